/*
 * alert.h
 *		Alert rules, alerts and what evaluation found, between the reading and
 *		writing of them (alert.c, alert_row.c) and the state machine (alert_step.c).
 */
#ifndef CS_ALERT_H
#define CS_ALERT_H

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
	char *severity;
	char *message;
	char *search_path;
	Interval dwell;
	Interval resolve_after;
	Interval cooldown;
	Interval reopen_within;
	int max_new;
	int fired; /* how many went open at this instant */
} CsAlertRule;

/* What the rule says of one customer (and key). */
typedef struct CsOutcome
{
	CsAlertRule *rule;
	char *customer_id;
	char *key; /* "" where the rule has none */
	CsTruth holds;
	CsTruth clear;
	char *message; /* NULL: none */
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
	bool held;
	TimestampTz opened_at;
	TimestampTz fired_at;
	TimestampTz acknowledged_at;
	TimestampTz snoozed_until;
	TimestampTz clear_since;
	TimestampTz resolved_at;
	bool rearmed;
	bool live;
	TimestampTz due_at;
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
extern void cs_alert_end(const CsBatch *batch, CsAlert *alert, CsAlertChange *change);

extern const char *cs_alert_state_name(CsAlertState state);
extern CsAlertState cs_alert_state_of(const char *name);

/* alert_row.c: outcomes of a rule over the rows of a kind, List of CsOutcome *; known is asked what is worth keeping. */
typedef bool (*CsAlertKnown)(const CsAlertRule *rule, const char *customer_id, const char *key,
							 void *arg);
extern List *cs_row_outcomes(const CsBatch *batch, CsAlertRule *rule, CsAlertKnown known,
							 void *arg);

#endif /* CS_ALERT_H */
