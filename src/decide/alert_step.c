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
 * More than max_new openings at one instant: the rest is held in pending.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "cs_ext.h"
#include "decide/alert.h"

/* A held alert is tried again after this time, or whenever the customer is evaluated. */
#define HELD_RETRY (USECS_PER_HOUR)

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

/*
 * fire: goes open, or is held where too many did at this instant.
 */
static void
fire(const CsBatch *batch, CsAlertRule *rule, CsAlert *alert, CsAlertChange *change)
{
	if (rule->fired >= rule->max_new)
	{
		/* Quietly: an event for each that is held would be a storm as well. */
		alert->state = CS_PENDING;
		alert->held = true;
		return;
	}
	rule->fired++;
	move(alert, CS_OPEN, change);
	alert->held = false;
	alert->cause = batch->cause ? pstrdup(batch->cause) : NULL;
	alert->fired_at = batch->as_of;
	if (alert->opened_at == CS_NEVER)
		alert->opened_at = batch->as_of;
	alert->pending_since = CS_NEVER;
	alert->acknowledged_at = CS_NEVER;
	alert->resolved_at = CS_NEVER;
	alert->clear_since = CS_NEVER;
	alert->rearmed = false;
}

/*
 * begin: the rule holds; fires at once or after dwell.
 */
static void
begin(const CsBatch *batch, CsAlertRule *rule, CsAlert *alert, CsAlertChange *change)
{
	alert->pending_since = batch->as_of;
	if (batch->as_of >= after(alert->pending_since, &rule->dwell))
		fire(batch, rule, alert, change);
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
	alert->held = false;
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
 * next_boundary: when time alone changes something, after now.
 */
static TimestampTz
next_boundary(const CsBatch *batch, const CsAlertRule *rule, const CsAlert *alert)
{
	TimestampTz due = CS_NEVER;
	TimestampTz now = batch->as_of;

	if (!alert->live)
		return CS_NEVER;
	switch (alert->state)
	{
		case CS_PENDING:
			earliest(&due,
					 alert->held ? now + HELD_RETRY : after(alert->pending_since, &rule->dwell),
					 now);
			break;
		case CS_SNOOZED:
			earliest(&due, alert->snoozed_until, now);
			earliest(&due, after(alert->clear_since, &rule->resolve_after), now);
			break;
		case CS_OPEN:
		case CS_ACKNOWLEDGED:
			earliest(&due, after(alert->clear_since, &rule->resolve_after), now);
			break;
		case CS_DISMISSED:
			if (alert->rearmed)
				earliest(&due, after(alert->resolved_at, &rule->cooldown), now);
			break;
		case CS_NONE:
		case CS_RESOLVED:
			break;
	}
	return due;
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
				fire(batch, rule, alert, change);
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
	if (holds == CS_YES && outcome->message != NULL && alert->state >= CS_PENDING &&
		alert->state <= CS_SNOOZED)
		alert->message = outcome->message;
	alert->due_at = next_boundary(batch, rule, alert);
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
	alert->held = false;
	alert->pending_since = CS_NEVER;
	alert->live = false;
	alert->due_at = CS_NEVER;
}
