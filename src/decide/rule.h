/*
 * rule.h
 *		What segments and alerts share: rules evaluated into a matrix.
 */
#ifndef CS_RULE_H
#define CS_RULE_H

#include "decide/decide.h"

/*
 * Values of n rules for the customers of a batch: cell (customer, rule).
 * failed: the rule raised for this customer (the value is NULL then).
 */
typedef struct CsRuleValues
{
	int ncustomers;
	int nrules;
	char **ids;    /* in C collation order, as in the batch */
	bool *present; /* has a row of state */
	Datum *values;
	bool *isnull;
	bool *failed;
} CsRuleValues;

#define CS_CELL(v, customer, rule) ((customer) * (v)->nrules + (rule))

extern CsRuleValues *cs_rule_values(const CsBatch *batch, CsRule *rules, int nrules);

/* One failure of a definition, to be kept in cs_internal.definition_status. */
typedef struct CsFailure
{
	const char *table_name;
	const char *key;
	int64 customers; /* 0: none failed */
	const char *example;
	const char *sqlstate;
	const char *error;
} CsFailure;

/* Marks what failed, and takes the mark from what worked again for its example. */
extern void cs_note_failures(const CsBatch *batch, CsFailure *failures, int n);

/* May this transaction write rows of definition_status? False: somebody else is at it, and tries again. */
extern bool cs_status_lock(void);

/* For checking that an expression is one over a single row, and the hint when it is not. */
extern char *cs_row_check(const char *expression, const char *from);
extern int cs_row_hint(const ErrorData *error);

/* Names that an expression over state uses, the metrics of ago() among them. */
extern List *cs_rule_names(const char *expression, const char *what);

/* A batch of these customers for one stage alone, its relation registered. Inside a frame. */
extern CsBatch *cs_decide_batch(Datum ids, TimestampTz as_of, const char *cause);

/* The columns of state that every rule sees beside metrics and dimensions. */
extern List *cs_state_columns(void);

#endif /* CS_RULE_H */
