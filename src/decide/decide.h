/*
 * decide.h
 *		Rules, segments, alerts.
 */
#ifndef CS_DECIDE_H
#define CS_DECIDE_H

#include "cs_ext.h"

#include "utils/jsonb.h"

/* One rule: a boolean (or text, for messages) SQL expression over a customer's state. */
typedef struct CsRule
{
	const char *table_name; /* where it is defined, for definition_status */
	const char *key;
	const char *expression;
	const char *search_path;
	Oid type;    /* BOOLOID or TEXTOID */
	bool failed; /* out: could not be evaluated for all customers */
} CsRule;

/*
 * decide/rule.c: evaluate rules over the batch; the result has customer_id
 * and one column r1..rn per rule (NULL where a rule failed for a customer).
 * Failing rules are marked in cs_internal.definition_status.
 */
extern CsResult *cs_eval_rules(const CsBatch *batch, CsRule *rules, int nrules);

/*
 * decide/rule.c: the first of the rules that is true for a customer of whom
 * just {"name": value, ...} is known, -1: none; what is not given is NULL.  An
 * error of a rule is raised.
 */
extern int cs_first_rule_of(CsRule *rules, int nrules, Jsonb *given);

/* Refuses, with a clear error naming `what`, a rule that does not parse, is not of the type, writes, is volatile or names something unknown (near match). */
extern void cs_check_rule(const CsRule *rule, const char *what);

/*
 * Appends a CASE of the rules of a dimension, which gives the segment; no rule is
 * true: the fallback, or NULL.  False where the rules have search paths of their
 * own; else *search_path is theirs, NULL where there is none (decide/segment_past.c).
 */
extern bool cs_segment_case(const char *dimension, const char *fallback, StringInfo sql,
							const char **search_path);

/*
 * Of a mark d in definition_status: the customer that is shown is in the batch, or
 * is none any more, and the batch is as large as the number it failed for, or as a
 * batch can be: with fewer there are some left that were not tried again.  $1 the
 * ids of the batch, $2 their number, $3 cs_refresh_batch.
 */
#define CS_TRIED_AGAIN                                                                \
	"(d.example = ANY ($1) OR NOT EXISTS (SELECT FROM cs_internal.customer c"         \
	" WHERE c.customer_id = d.example)) AND (coalesce(d.customers, 0) <= $2 OR $2 >=" \
	" least($3, (SELECT count(*) FROM cs_internal.customer)))"

/* Stages. Segments: state.segments and, unless what_if, cs_internal.membership. */
extern void cs_stage_segments(CsBatch *batch, bool late);
extern void cs_stage_alerts(CsBatch *batch);

/* When everybody is evaluated: alerts of whole segments, where it is time to look at them. On a snapshot, inside a frame. */
extern void cs_segment_alerts(TimestampTz as_of);

/* By the one refresher, in a transaction of its own: numbers alert events and notifies. True when it numbered any. */
extern bool cs_number_events(void);

#endif
