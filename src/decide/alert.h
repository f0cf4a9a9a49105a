/*
 * alert.h
 *		Alert rules, alerts and what evaluation found, between the reading and
 *		writing of them (alert.c, alert_row.c) and the state machine (alert_step.c).
 */
#ifndef CS_ALERT_H
#define CS_ALERT_H

#include "executor/tuptable.h"

#include "decide/hours.h"
#include "decide/rule.h"

/* An instant that is not set. */
#define CS_NEVER DT_NOBEGIN

typedef enum CsTruth
{
	CS_NO,
	CS_YES,
	CS_UNKNOWN /* NULL, or the rule raised: neither opens nor clears */
} CsTruth;

typedef enum CsAlertState
{
	CS_NONE, /* there is no alert yet */
	CS_PENDING,
	CS_OPEN,
	CS_ACKNOWLEDGED,
	CS_SNOOZED,
	CS_RESOLVED,
	CS_DISMISSED
} CsAlertState;

typedef struct CsAlertRule
{
	char *name;
	char *rule;
	char *clear_rule; /* NULL: rule is false */
	char *source;     /* NULL: over the customer's state */
	char *key;
	char *dimension; /* with segment: only customers in it; NULL: all */
	char *segment;
	bool overlapping; /* that dimension */
	char *scope_word; /* of scope segment: a dimension, dimension:segment, or all */
	char *severity;
	char *severity_expression; /* NULL: always severity */
	char *message;
	char *search_path;
	Interval dwell;
	Interval resolve_after;
	Interval cooldown;
	Interval reopen_within;
	Interval *ack_within; /* NULL: no deadline */
	Interval *resolve_within;
	CsHours *calendar; /* in which deadlines count; NULL: always */
	CsHours *quiet;    /* in which nothing opens; NULL: never */
	int owner_cap;     /* openings per owner and local day; 0: no limit */
	char *escalate_to;
	char *fallback_owner;
	List *inhibited_by; /* char *: rules whose open alerts keep this one from opening */
	int level;          /* inhibiting rules stand below the ones they inhibit */
	int max_new;
	int fired; /* how many went open at this instant */
} CsAlertRule;

/* Why an alert whose rule holds long enough is not open. */
#define CS_HELD_MAX_NEW "max_new"
#define CS_HELD_QUIET "quiet_hours"
#define CS_HELD_INHIBITED "inhibited_by"
#define CS_HELD_CAP "owner_cap_per_day"

/* What the rule says of one customer (and key). */
typedef struct CsOutcome
{
	CsAlertRule *rule;
	char *customer_id;
	char *key; /* "" where the rule has none */
	CsTruth holds;
	CsTruth clear;
	char *message;  /* NULL: none */
	char *severity; /* NULL: the rule's */
	char *fact_id;  /* of a row that stands under another id than the customer's; else NULL */
} CsOutcome;

/* As in cs_internal.alert; see there. */
typedef struct CsAlert
{
	int64 id; /* 0: new */
	char *rule;
	char *customer_id;
	char *key;
	char *severity;
	CsAlertState state;
	char *message;
	char *cause;
	TimestampTz pending_since;
	const char *held_by; /* CS_HELD_...; NULL: it waits for dwell, or is not pending */
	TimestampTz held_until;
	TimestampTz opened_at;
	TimestampTz fired_at;
	TimestampTz acknowledged_at;
	TimestampTz snoozed_until;
	TimestampTz clear_since;
	TimestampTz resolved_at;
	bool rearmed;
	bool live;
	TimestampTz ack_due_at;
	TimestampTz resolve_due_at;
	bool ack_missed;
	bool resolve_missed;
	char *escalated_to;
	TimestampTz escalated_at;
	TimestampTz due_at;
	char *fact_id; /* of the row it was last about; NULL: the customer's */
	bool wants;    /* in this step: is to open if nothing forbids it */
} CsAlert;

/* One change of state within a step. */
typedef struct CsAlertChange
{
	CsAlertState from;
	const char *cause;
	const char *note;
	bool moved; /* there is an event to write */
} CsAlertChange;

/*
 * alert_step.c: what an instant and what the rule says make of an alert.
 * cs_alert_step: true when a new alert of the same identity is to begin, for
 * which it is called again with an alert in state CS_NONE.
 * cs_alert_end: the rule is gone or disabled.
 */
extern bool cs_alert_step(const CsBatch *batch, CsAlertRule *rule, CsAlert *alert,
						  const CsOutcome *outcome, CsAlertChange *change);

/*
 * What cs_alert_step left in wants: opens, or is held for the reason given until
 * something changes, at the latest at `until` (CS_NEVER: time alone changes nothing).
 */
extern void cs_alert_open(const CsBatch *batch, CsAlertRule *rule, CsAlert *alert,
						  CsAlertChange *change);
extern void cs_alert_hold(const CsBatch *batch, CsAlert *alert, const char *held_by,
						  TimestampTz until);

/* When time alone changes something, into alert->due_at; after the alert is as it will be. */
extern void cs_alert_reckon(const CsBatch *batch, const CsAlertRule *rule, CsAlert *alert);

/* 0 low to 3 critical; -1: no severity. */
extern int cs_severity_rank(const char *severity);
extern void cs_alert_end(const CsBatch *batch, CsAlert *alert, CsAlertChange *change);

extern const char *cs_alert_state_name(CsAlertState state);
extern CsAlertState cs_alert_state_of(const char *name);

/*
 * alert_limit.c: opens, in order of inhibition and rank, what may open of the
 * alerts that want to; the rest is held.  alerts are all live alerts of the
 * batch after the step, List of CsStep *.
 */
typedef struct CsStep
{
	CsAlertRule *rule; /* NULL: gone */
	CsAlert *alert;
	CsAlert before;
	CsAlertChange change;
} CsStep;
extern void cs_alert_limits(const CsBatch *batch, List *steps);

/* Is there an alert of this identity, on which what does not hold could bear? */
typedef bool (*CsAlertKnown)(const CsAlertRule *rule, const char *customer_id, const char *key,
							 void *arg);

/* How often rules over state were evaluated, and were NULL or raised. */
typedef struct CsAlertCounts
{
	int64 evaluations;
	int64 nulls;
} CsAlertCounts;

/*
 * alert_rule.c.  cs_alert_rules: the enabled rules of a scope by name; or the one that
 * `only`, a row of cs.alert_rule as jsonb, gives.
 * cs_alert_outcomes: List of CsOutcome * by identity, of what holds and of what
 * is known; counts may be NULL.
 */
extern CsAlertRule *cs_alert_rules(const CsBatch *batch, const char *scope, const char *only,
								   int *nrules);
extern CsAlertRule *cs_alert_rule_find(CsAlertRule *rules, int nrules, const char *name);
extern List *cs_alert_outcomes(const CsBatch *batch, CsAlertRule *alert_rules, int nrules,
							   CsAlertKnown known, void *arg, CsAlertCounts *counts);

/* Sorts outcomes by identity, and leaves out and marks severities that are none. */
extern void cs_alert_settle(const CsBatch *batch, int nrules, List *outcomes);

/* alert_segment.c: outcomes of the rules of scope segment; the customer is "". */
extern List *cs_segment_outcomes(const CsBatch *batch, CsAlertRule *rules, int nrules,
								 CsAlertKnown known, void *arg);

/* By rule, customer, key. */
extern int cs_compare_identity(const char *rule1, const char *customer1, const char *key1,
							   const char *rule2, const char *customer2, const char *key2);

/* alert_row.c: outcomes of a rule over the rows of a kind, List of CsOutcome *. */
extern List *cs_row_outcomes(const CsBatch *batch, CsAlertRule *rule, CsAlertKnown known,
							 void *arg);

/*
 * What is known of an alert without outcome: its row counts for another
 * customer now, so it is clear.  NULL: nothing.
 */
extern CsOutcome *cs_row_left(const CsBatch *batch, CsAlertRule *rule, const CsAlert *alert);

/* A column of a row of outcomes, from 1: the text palloc'd, or NULL; the truth, unknown for NULL. */
extern char *cs_slot_text(TupleTableSlot *slot, int column);
extern CsTruth cs_slot_truth(TupleTableSlot *slot, int column);

#endif /* CS_ALERT_H */
