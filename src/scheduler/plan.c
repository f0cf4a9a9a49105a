/*
 * plan.c
 *		What is to be done with a job at an instant: pure, no clock, no tables.
 *
 * In: the job's schedule, where it stands (job_state), and "now".  Out: run,
 * skip a slot or wait, and until when.  The worker asks with the clock's time;
 * tests ask with a clock of their own, and so drive a year in a second
 * (test/sql/job_year.sql).
 */
#include "postgres.h"

#include <math.h>

#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/timestamp.h"

#include "cs_ext.h"
#include "scheduler/shared.h"

#define CRASH_PAUSE_MS (5 * 60 * 1000L) /* so that somebody can pause the job */
#define RETRY_MAX_MS (60 * 60 * 1000L)
#define MISSED_MS (5 * 60 * 1000L) /* a slot that late was missed */
#define BUSY_MS (60 * 1000L)       /* look again at a busy group; its end wakes the worker */

PG_FUNCTION_INFO_V1(cs_job_plan_sql);
PG_FUNCTION_INFO_V1(cs_retry_plan_sql);

/*
 * cs_job_plan: see shared.h.  The order of questions is the policy: a slot that
 * came is dealt with once, by a run or by a recorded skip, except that a job
 * that rests after a crash, or whose group is busy, leaves it for later.
 */
CsJobPlan
cs_job_plan(const CsJobView *job, TimestampTz now)
{
	CsJobPlan plan = {CS_JOB_WAIT, 0, 0, NULL, DT_NOEND};
	TimestampTz slot;
	bool due = false;
	bool rests = false;

	if (job->enabled && job->has_schedule && cs_schedule_latest(&job->schedule, now, &slot) &&
		slot > job->last_slot)
	{
		int64 late = MISSED_MS;

		if (job->schedule.every.time > 0)
			late = Min(late, job->schedule.every.time / 2000);
		if (job->not_before > now)
			rests = true;
		else if (job->running)
			plan.why = "the run before was still active";
		else if (job->skip_missed && TimestampDifferenceExceeds(slot, now, (int) late))
			plan.why = "missed: nothing could run at that time";
		else
			due = true;
		plan.slot = slot;
		if (plan.why)
		{
			plan.act = CS_JOB_SKIP;
			plan.next = now;
			return plan;
		}
		plan.attempt = 1;
	}

	if (!due && !job->running && job->retry_at != 0 && job->retry_at <= now)
	{
		/* a retry goes on counting, a run that was asked for begins anew */
		due = true;
		plan.slot = job->attempt > 0 ? job->last_slot : 0;
		plan.attempt = job->attempt + 1;
	}

	if (due && !job->group_busy)
	{
		plan.act = CS_JOB_RUN;
		plan.next = now;
		return plan;
	}

	plan.slot = 0;
	plan.attempt = 0;
	if (due)
		plan.next = TimestampTzPlusMilliseconds(now, BUSY_MS);
	if (job->enabled && job->has_schedule)
		plan.next = Min(plan.next, Max(cs_schedule_next(&job->schedule, now), job->not_before));
	if (rests)
		plan.next = Min(plan.next, job->not_before);
	if (job->retry_at > now && !job->running)
		plan.next = Min(plan.next, Max(job->retry_at, job->not_before));
	return plan;
}

/*
 * cs_retry_plan: see shared.h.
 */
void
cs_retry_plan(const CsJobView *job, int attempt, bool crashed, double jitter, TimestampTz now,
			  TimestampTz *retry_at, TimestampTz *not_before)
{
	double ms = job->retry_after_ms * pow(2, Min(attempt - 1, 20));

	*retry_at = *not_before = 0;
	ms = Min(ms, RETRY_MAX_MS) * (0.875 + 0.25 * jitter);
	if (crashed)
	{
		ms = Max(ms, CRASH_PAUSE_MS);
		*not_before = TimestampTzPlusMilliseconds(now, (int64) ms);
	}
	if (attempt > job->max_retries)
		return;
	*retry_at = TimestampTzPlusMilliseconds(now, (int64) ms);
	if (job->enabled && job->has_schedule && *retry_at >= cs_schedule_next(&job->schedule, now))
		*retry_at = 0;
}

/* ---- as SQL ------------------------------------------------------------------ */

/* An instant of an argument: NULL is 0. */
static TimestampTz
instant(FunctionCallInfo fcinfo, int arg)
{
	return PG_ARGISNULL(arg) ? 0 : PG_GETARG_TIMESTAMPTZ(arg);
}

/* A row of two to five columns; instants that are 0 or never become NULL. */
static Datum
row_of(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TupleDesc desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "row type expected");
	for (int i = 0; i < desc->natts; i++)
		if (TupleDescAttr(desc, i)->atttypid == TIMESTAMPTZOID)
			nulls[i] = values[i] == 0 || TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(values[i]));
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/*
 * SQL: cs_internal.job_plan(every, at, on_day, time_zone, anchor, skip_missed,
 * last_slot, attempt, retry_at, not_before, running, group_busy, now)
 * → (act, slot, attempt, why, next); every NULL: no schedule.
 */
Datum
cs_job_plan_sql(PG_FUNCTION_ARGS)
{
	static const char *const acts[] = {"wait", "run", "skip"};
	CsJobView job = {0};
	CsJobPlan plan;
	Datum values[5];
	bool nulls[5] = {0};

	job.enabled = true;
	job.has_schedule = !PG_ARGISNULL(0);
	if (job.has_schedule)
		job.schedule = cs_schedule_args(fcinfo);
	job.schedule.anchor = instant(fcinfo, 4);
	job.skip_missed = PG_GETARG_BOOL(5);
	job.last_slot = instant(fcinfo, 6);
	job.attempt = PG_GETARG_INT32(7);
	job.retry_at = instant(fcinfo, 8);
	job.not_before = instant(fcinfo, 9);
	job.running = PG_GETARG_BOOL(10);
	job.group_busy = PG_GETARG_BOOL(11);
	plan = cs_job_plan(&job, PG_GETARG_TIMESTAMPTZ(12));

	values[0] = CStringGetTextDatum(acts[plan.act]);
	values[1] = TimestampTzGetDatum(plan.slot);
	values[2] = Int32GetDatum(plan.attempt);
	values[3] = plan.why ? CStringGetTextDatum(plan.why) : (Datum) 0;
	nulls[3] = plan.why == NULL;
	values[4] = TimestampTzGetDatum(plan.next);
	return row_of(fcinfo, values, nulls);
}

/*
 * SQL: cs_internal.retry_plan(every, at, on_day, time_zone, anchor, attempt,
 * max_retries, retry_after, crashed, jitter from 0 to 1, now) → (retry_at, not_before)
 */
Datum
cs_retry_plan_sql(PG_FUNCTION_ARGS)
{
	CsJobView job = {0};
	TimestampTz retry_at;
	TimestampTz not_before;
	Datum values[2];
	bool nulls[2] = {0};

	job.enabled = true;
	job.has_schedule = !PG_ARGISNULL(0);
	if (job.has_schedule)
		job.schedule = cs_schedule_args(fcinfo);
	job.schedule.anchor = instant(fcinfo, 4);
	job.max_retries = PG_GETARG_INT32(6);
	job.retry_after_ms = cs_interval_ms(PG_GETARG_INTERVAL_P(7));
	cs_retry_plan(&job, PG_GETARG_INT32(5), PG_GETARG_BOOL(8), PG_GETARG_FLOAT8(9),
				  PG_GETARG_TIMESTAMPTZ(10), &retry_at, &not_before);
	values[0] = TimestampTzGetDatum(retry_at);
	values[1] = TimestampTzGetDatum(not_before);
	return row_of(fcinfo, values, nulls);
}
