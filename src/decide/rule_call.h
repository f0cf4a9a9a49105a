/*
 * rule_call.h
 *		Functions of rules that look into a customer's past.
 */
#ifndef CS_RULE_CALL_H
#define CS_RULE_CALL_H

#include "decide/rule.h"

typedef enum CsCallKind
{
	CS_CALL_AGO,        /* ago('metric', days) */
	CS_CALL_CHANGE,     /* change('metric', days) */
	CS_CALL_TREND,      /* trend('metric', days) */
	CS_CALL_ZSCORE,     /* zscore('metric', days) */
	CS_CALL_DAYS_IN,    /* days_in('segment') */
	CS_CALL_IN_SEGMENT, /* in_segment('segment') */
	CS_CALL_ENTERED     /* entered('segment', days) */
} CsCallKind;

/* One call: what stands for it is a column of the relation "state". */
typedef struct CsCall
{
	CsCallKind kind;
	char *column;
	char *name;      /* the metric, or the segment as written */
	char *dimension; /* of the segment; NULL: there is no such one */
	char *segment;
	int days;
} CsCall;

/* The one namespace of rules, read once. */
typedef struct CsNames
{
	List *metrics;    /* char * */
	List *slots;      /* of metrics, int; 0: none yet */
	List *dimensions; /* char * */
	List *calls;      /* CsCall *, filled while expressions are read */
} CsNames;

/* The expression with columns in place of the calls, which are added to the list (each once). Raises for malformed ones, naming what. */
extern char *cs_replace_rule_calls(const char *expression, List **calls, const char *what);

extern CsCall *cs_find_call(List *calls, const char *column);

/* What a call depends on: a metric or a dimension. */
extern char *cs_call_needs(const CsCall *call);

/* The SQL of a metric's value, of an array that holds the slots. */
extern char *cs_metric_value(const CsNames *names, const char *array, const char *metric);

/* The SQL of a call over s (cs_internal.state); batch NULL: for its type only. NULL: names something unknown. */
extern char *cs_call_sql(const CsCall *call, const CsNames *names, const CsBatch *batch);

#endif /* CS_RULE_CALL_H */
