/*
 * alert_step.c
 *		The life of an alert: what one evaluation makes of it.
 *
 * In: an alert as it is, what its rule says now, the instant.  Out: the alert as
 * it is afterwards and whether it changed its state.  Nothing is read or
 * written here.
 *
 *   (none) ──► pending ──► open ──► acknowledged, snoozed ──► resolved | dismissed
 *
 * The refresh opens, resolves, ends snoozes and opens again; people acknowledge,
 * snooze, resolve and dismiss (sql/alert.sql).
 *
 * Cases.
 * No data (NULL, or the rule raised): neither opens, nor clears, nor rearms, nor
 * does a timer that waits for the rule run out.
 * A rule and its clear rule both true: opens nothing; what is open is resolved.
 * Closed while the rule still holds (by a person): nothing happens before the
 * rule was once false (rearmed), or people's decisions would be undone at once.
 * What is to open says so (wants); whether it may, among the others, is decided
 * in alert_limit.c, and what may not is held in pending.
 * A snooze ends early when the alert becomes worse.
 * Deadlines: reckoned when it opens; missed ones are told once, and escalated.
 * A snooze stops the clock for acknowledging: somebody has seen it.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "cs_ext.h"
#include "core/period.h"
#include "decide/alert.h"

static const char *const state_names[] = {NULL,      "pending",  "open",     "acknowledged",
										  "snoozed", "resolved", "dismissed"};

const char *
cs_alert_state_name(CsAlertState state)
{
	return state_names[state];
}

CsAlertState
cs_alert_state_of(const char *name)
{
	for (int i = CS_PENDING; i <= CS_DISMISSED; i++)
		if (strcmp(state_names[i], name) == 0)
			return (CsAlertState) i;
	elog(ERROR, "unknown state of an alert: \"%s\"", name);
}

/*
 * after: t + interval, by the calendar of the policy's zone; never where t is.
 */
static TimestampTz
after(TimestampTz t, const Interval *interval)
{
	if (t == CS_NEVER)
		return CS_NEVER;
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(t),
												   IntervalPGetDatum(interval)));
}

static void
move(CsAlert *alert, CsAlertState to, CsAlertChange *change)
{
	if (!change->moved)
		change->from = alert->state;
	change->moved = true;
	alert->state = to;
}

int
cs_severity_rank(const char *severity)
{
	static const char *const names[] = {"low", "medium", "high", "critical"};

	for (int i = 0; i < lengthof(names); i++)
		if (strcmp(names[i], severity) == 0)
			return i;
	return -1;
}

static TimestampTz
deadline(const CsBatch *batch, const CsAlertRule *rule, const Interval *within)
{
	if (within == NULL)
		return CS_NEVER;
	return rule->calendar
			   ? cs_hours_after(rule->calendar, batch->as_of, within, cs_policy_zone(batch->policy))
			   : after(batch->as_of, within);
}

/*
 * cs_alert_open: see alert.h.
 */
void
cs_alert_open(const CsBatch *batch, CsAlertRule *rule, CsAlert *alert, CsAlertChange *change)
{
	rule->fired++;
	move(alert, CS_OPEN, change);
	alert->wants = false;
	alert->held_by = NULL;
	alert->held_until = CS_NEVER;
	alert->cause = batch->cause ? pstrdup(batch->cause) : NULL;
	alert->fired_at = batch->as_of;
	if (alert->opened_at == CS_NEVER)
		alert->opened_at = batch->as_of;
	alert->pending_since = CS_NEVER;
	alert->acknowledged_at = CS_NEVER;
	alert->resolved_at = CS_NEVER;
	alert->clear_since = CS_NEVER;
	alert->rearmed = false;
	alert->ack_due_at = deadline(batch, rule, rule->ack_within);
	alert->resolve_due_at = deadline(batch, rule, rule->resolve_within);
	alert->ack_missed = alert->resolve_missed = false;
	alert->escalated_to = NULL;
	alert->escalated_at = CS_NEVER;
}

/*
 * cs_alert_hold: see alert.h.  Quietly: an event for each that is held would be
 * a storm as well.
 */
void
cs_alert_hold(const CsBatch *batch, CsAlert *alert, const char *held_by, TimestampTz until)
{
	alert->wants = false;
	alert->state = CS_PENDING;
	alert->held_by = held_by;
	alert->held_until = until;
}

/*
 * begin: the rule holds; it is to open at once or after dwell.
 */
static void
begin(const CsBatch *batch, CsAlertRule *rule, CsAlert *alert, CsAlertChange *change)
{
	alert->pending_since = batch->as_of;
	if (batch->as_of >= after(alert->pending_since, &rule->dwell))
		alert->wants = true;
	else
		move(alert, CS_PENDING, change);
}

/*
 * fall_back: it stopped holding before dwell was over.  An alert that had been
 * open before is what it was: resolved, and may still open again.
 */
static void
fall_back(const CsBatch *batch, CsAlert *alert, CsAlertChange *change)
{
	move(alert, CS_RESOLVED, change);
	alert->pending_since = CS_NEVER;
	alert->held_by = NULL;
	alert->held_until = CS_NEVER;
	alert->rearmed = true;
	if (alert->opened_at == CS_NEVER)
	{
		alert->live = false;
		alert->resolved_at = batch->as_of;
	}
}

static void
resolve(const CsBatch *batch, CsAlert *alert, bool rearmed, CsAlertChange *change)
{
	move(alert, CS_RESOLVED, change);
	alert->resolved_at = batch->as_of;
	alert->snoozed_until = CS_NEVER;
	alert->clear_since = CS_NEVER;
	alert->rearmed = rearmed;
}

static void
earliest(TimestampTz *due, TimestampTz t, TimestampTz now)
{
	if (t != CS_NEVER && t > now && (*due == CS_NEVER || t < *due))
		*due = t;
}

/*
 * cs_alert_reckon: see alert.h.
 */
void
cs_alert_reckon(const CsBatch *batch, const CsAlertRule *rule, CsAlert *alert)
{
	TimestampTz due = CS_NEVER;
	TimestampTz now = batch->as_of;

	if (!alert->live)
	{
		alert->due_at = CS_NEVER;
		return;
	}
	switch (alert->state)
	{
		case CS_PENDING:
			earliest(&due,
					 alert->held_by ? alert->held_until : after(alert->pending_since, &rule->dwell),
					 now);
			break;
		case CS_SNOOZED:
			earliest(&due, alert->snoozed_until, now);
			/* FALLTHROUGH */
		case CS_OPEN:
		case CS_ACKNOWLEDGED:
			earliest(&due, after(alert->clear_since, &rule->resolve_after), now);
			if (alert->state == CS_OPEN && !alert->ack_missed)
				earliest(&due, alert->ack_due_at, now);
			if (!alert->resolve_missed)
				earliest(&due, alert->resolve_due_at, now);
			break;
		case CS_DISMISSED:
			if (alert->rearmed)
				earliest(&due, after(alert->resolved_at, &rule->cooldown), now);
			break;
		case CS_NONE:
		case CS_RESOLVED:
			break;
	}
	alert->due_at = due;
}

/*
 * tell: something about an alert that stays in its state, unless that has just
 * changed, is an event from the state to itself.
 */
static void
tell(CsAlert *alert, char *note, CsAlertChange *change)
{
	move(alert, alert->state, change);
	change->note = change->note ? psprintf("%s; %s", change->note, note) : note;
}

/*
 * take_severity: what severity_expression says now; worse ends a snooze.
 */
static void
take_severity(CsAlert *alert, const CsOutcome *outcome, CsAlertChange *change)
{
	bool worse;

	if (outcome->severity == NULL || strcmp(outcome->severity, alert->severity) == 0)
		return;
	worse = cs_severity_rank(outcome->severity) > cs_severity_rank(alert->severity);
	alert->severity = outcome->severity;
	if (alert->state == CS_SNOOZED && worse)
	{
		move(alert, CS_OPEN, change);
		alert->snoozed_until = CS_NEVER;
	}
	if (alert->state >= CS_OPEN && alert->state <= CS_SNOOZED)
		tell(alert, psprintf("severity: %s", alert->severity), change);
}

/*
 * miss_deadlines: tells of each missed one once, and names who is to look after
 * it now.
 */
static void
miss_deadlines(const CsBatch *batch, const CsAlertRule *rule, CsAlert *alert, CsAlertChange *change)
{
	bool ack = alert->state == CS_OPEN && !alert->ack_missed && alert->ack_due_at != CS_NEVER &&
			   batch->as_of >= alert->ack_due_at;
	bool resolve = !alert->resolve_missed && alert->resolve_due_at != CS_NEVER &&
				   batch->as_of >= alert->resolve_due_at;

	if (!ack && !resolve)
		return;
	alert->ack_missed |= ack;
	alert->resolve_missed |= resolve;
	if (!change->moved)
		change->cause = "deadline";
	if (ack)
		tell(alert, pstrdup("not acknowledged in time"), change);
	if (resolve)
		tell(alert, pstrdup("not resolved in time"), change);
	if (rule->escalate_to != NULL)
	{
		alert->escalated_to = rule->escalate_to;
		alert->escalated_at = batch->as_of;
		tell(alert, psprintf("escalated to %s", rule->escalate_to), change);
	}
}

/*
 * cs_alert_step: see alert.h.
 */
bool
cs_alert_step(const CsBatch *batch, CsAlertRule *rule, CsAlert *alert, const CsOutcome *outcome,
			  CsAlertChange *change)
{
	TimestampTz now = batch->as_of;
	CsTruth holds = outcome ? outcome->holds : CS_UNKNOWN;
	CsTruth clear = outcome ? outcome->clear : CS_UNKNOWN;
	bool again = false;

	if (holds == CS_YES && clear == CS_YES)
		holds = CS_UNKNOWN;
	change->cause = batch->cause;
	alert->wants = false;

	switch (alert->state)
	{
		case CS_NONE:
			if (holds == CS_YES)
				begin(batch, rule, alert, change);
			break;

		case CS_PENDING:
			if (holds == CS_NO)
				fall_back(batch, alert, change);
			else if (holds == CS_YES && now >= after(alert->pending_since, &rule->dwell))
				alert->wants = true;
			break;

		case CS_OPEN:
		case CS_ACKNOWLEDGED:
		case CS_SNOOZED:
			if (clear == CS_NO)
				alert->clear_since = CS_NEVER;
			else if (clear == CS_YES)
			{
				if (alert->clear_since == CS_NEVER)
					alert->clear_since = now;
				if (now >= after(alert->clear_since, &rule->resolve_after))
				{
					resolve(batch, alert, holds == CS_NO, change);
					break;
				}
			}
			if (alert->state == CS_SNOOZED && now >= alert->snoozed_until)
			{
				move(alert, CS_OPEN, change);
				change->note = "snooze is over";
				alert->snoozed_until = CS_NEVER;
			}
			break;

		case CS_RESOLVED:
			if (holds == CS_NO)
				alert->rearmed = true;
			if (!alert->rearmed)
				break;
			if (now >= after(alert->resolved_at, &rule->reopen_within))
			{
				alert->live = false;
				again = holds == CS_YES;
			}
			else if (holds == CS_YES)
				begin(batch, rule, alert, change);
			break;

		case CS_DISMISSED:
			if (holds == CS_NO)
				alert->rearmed = true;
			if (alert->rearmed && now >= after(alert->resolved_at, &rule->cooldown))
			{
				alert->live = false;
				again = holds == CS_YES;
			}
			break;
	}
	if (holds == CS_YES &&
		(alert->wants || (alert->state >= CS_PENDING && alert->state <= CS_SNOOZED)))
	{
		if (outcome->message != NULL)
			alert->message = outcome->message;
		alert->fact_id = outcome->fact_id;
		take_severity(alert, outcome, change);
	}
	if (alert->state >= CS_OPEN && alert->state <= CS_SNOOZED)
		miss_deadlines(batch, rule, alert, change);
	return again;
}

/*
 * cs_alert_end: see alert.h.
 */
void
cs_alert_end(const CsBatch *batch, CsAlert *alert, CsAlertChange *change)
{
	if (alert->state >= CS_PENDING && alert->state <= CS_SNOOZED)
		resolve(batch, alert, true, change);
	change->cause = "definition";
	alert->held_by = NULL;
	alert->held_until = CS_NEVER;
	alert->pending_since = CS_NEVER;
	alert->live = false;
	alert->due_at = CS_NEVER;
}
