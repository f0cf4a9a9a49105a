/*
 * schedule.c
 *		When a job is due: pure arithmetic, no clock and no tables.
 *
 * A schedule is a grid of slots numbered 0, 1, 2, ...; slot 0 is the first one
 * after the anchor (when the job was written).  Slots never drift, whenever
 * the runs begin.  Three kinds of grid:
 *   every '90 seconds'  (hours and less)  anchor + (k + 1) * every, in elapsed time
 *   every '2 days'      (days, weeks)     each n-th local day at a local time
 *   every '1 month'     (months, years)   each n-th month on a day, at a local time
 * The local time is `at`, else that of the anchor; the day of the month is
 * `on_day`, else that of the anchor; a month too short for it has the slot on
 * its last day.
 *
 * Daylight saving: each slot is one instant, so each local day has one run.
 * A local time that the clocks skip is read with the offset before the change
 * (02:30 becomes 03:30); one that comes twice means the second.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "cs_ext.h"
#include "scheduler/shared.h"

PG_FUNCTION_INFO_V1(cs_next_run_sql);
PG_FUNCTION_INFO_V1(cs_latest_run_sql);
PG_FUNCTION_INFO_V1(cs_check_schedule_sql);

/* A schedule made ready: one step's length in its own unit, and slot 0. */
typedef struct Grid
{
	int64 micros; /* > 0: elapsed time */
	int days;     /* > 0: local days */
	int months;   /* > 0: months */
	TimestampTz anchor;
	int64 first; /* local day, or month counted from year 0, of slot 0 */
	int on_day;
	TimeADT at;
	pg_tz *zone;
} Grid;

/* cs_schedule_check: see shared.h. */
const char *
cs_schedule_check(const CsSchedule *s, const char **hint)
{
	const Interval *e = &s->every;

	*hint = "Give every as, for example, '15 minutes', '1 day' or '1 month'.";
	if (e->time < 0 || e->day < 0 || e->month < 0 || (e->time == 0 && e->day == 0 && e->month == 0))
		return "every must be longer than nothing";
	if ((e->time != 0) + (e->day != 0) + (e->month != 0) > 1)
		return "every must be of months, of days or of hours and less, not mixed";
	if (e->time != 0 && e->time < USECS_PER_SEC)
		return "every must be at least a second";
	*hint = "Write every in days ('1 day', not '24 hours') or months.";
	if (s->has_at && e->time != 0)
		return "a time of day needs every to be of days or months";
	*hint =
		"Write every in months, and on_day as 1 to 31, where 31 means the last day of the month.";
	if (s->on_day != 0 && e->month == 0)
		return "on_day needs every to be of months";
	if (s->on_day < 0 || s->on_day > 31)
		return "on_day must lie from 1 to 31";
	*hint = "Names stand in pg_timezone_names.";
	if (s->time_zone == NULL || pg_tzset(s->time_zone) == NULL)
		return "unknown time zone";
	*hint = NULL;
	return NULL;
}

/* The instant of a local day and time; see daylight saving above. */
static TimestampTz
local_instant(int64 day, TimeADT at, pg_tz *zone)
{
	struct pg_tm tm = {0};
	fsec_t fsec;
	int tz;
	TimestampTz result;

	j2date((int) (day + POSTGRES_EPOCH_JDATE), &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
	tm.tm_hour = (int) (at / USECS_PER_HOUR);
	tm.tm_min = (int) (at / USECS_PER_MINUTE % 60);
	tm.tm_sec = (int) (at / USECS_PER_SEC % 60);
	fsec = (fsec_t) (at % USECS_PER_SEC);
	tz = DetermineTimeZoneOffset(&tm, zone);
	if (tm2timestamp(&tm, fsec, &tz, &result) != 0)
		return DT_NOEND;
	return result;
}

/* The instant of slot k. */
static TimestampTz
slot_at(const Grid *g, int64 k)
{
	int64 month;
	int year;
	int mon;
	int last;

	if (g->micros > 0)
		return g->anchor + (k + 1) * g->micros;
	if (g->days > 0)
		return local_instant(g->first + k * g->days, g->at, g->zone);
	month = g->first + k * g->months;
	year = (int) (month / 12);
	mon = (int) (month % 12) + 1;
	last = day_tab[isleap(year)][mon - 1];
	return local_instant(date2j(year, mon, Min(g->on_day, last)) - POSTGRES_EPOCH_JDATE, g->at,
						 g->zone);
}

/* Local date and time of an instant. */
static void
local_parts(TimestampTz t, pg_tz *zone, struct pg_tm *tm, TimeADT *at)
{
	fsec_t fsec;
	int tz;

	if (timestamp2tm(t, &tz, tm, &fsec, NULL, zone) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	*at = ((tm->tm_hour * 60 + tm->tm_min) * (int64) 60 + tm->tm_sec) * USECS_PER_SEC + fsec;
}

/* Makes the grid of a sound schedule. */
static Grid
make_grid(const CsSchedule *s)
{
	Grid g = {0};
	struct pg_tm tm;
	TimeADT at;

	g.anchor = s->anchor;
	g.micros = s->every.time;
	g.days = s->every.day;
	g.months = s->every.month;
	g.zone = pg_tzset(s->time_zone);
	if (g.micros > 0)
		return g;

	local_parts(s->anchor, g.zone, &tm, &at);
	g.at = s->has_at ? s->at : at;
	g.on_day = s->on_day != 0 ? s->on_day : tm.tm_mday;
	g.first = g.days > 0 ? date2j(tm.tm_year, tm.tm_mon, tm.tm_mday) - POSTGRES_EPOCH_JDATE
						 : (int64) tm.tm_year * 12 + tm.tm_mon - 1;

	/* with a time or day of its own the first slot is the next one, not a whole step away */
	if (slot_at(&g, 0) <= s->anchor)
		g.first += s->has_at || s->on_day != 0 ? 1 : Max(g.days, g.months);
	return g;
}

/* Number of the last slot at or before an instant, -1 when it is before slot 0. */
static int64
slot_before(const Grid *g, TimestampTz t)
{
	int64 k;

	if (g->micros > 0)
		return t < g->anchor ? -1 : (t - g->anchor) / g->micros - 1;
	if (t < slot_at(g, 0))
		return -1;
	{
		struct pg_tm tm;
		TimeADT at;
		int64 unit;

		local_parts(t, g->zone, &tm, &at);
		unit = g->days > 0 ? date2j(tm.tm_year, tm.tm_mon, tm.tm_mday) - POSTGRES_EPOCH_JDATE
						   : (int64) tm.tm_year * 12 + tm.tm_mon - 1;
		k = (unit - g->first) / Max(g->days, g->months);
	}
	/* the guess is off by one at most where the slot comes later that day or the clocks changed */
	k++;
	while (k >= 0 && slot_at(g, k) > t)
		k--;
	return k;
}

/* cs_schedule_next: see shared.h. */
TimestampTz
cs_schedule_next(const CsSchedule *schedule, TimestampTz after)
{
	Grid g = make_grid(schedule);

	return slot_at(&g, slot_before(&g, after) + 1);
}

/* cs_schedule_latest: see shared.h. */
bool
cs_schedule_latest(const CsSchedule *schedule, TimestampTz now, TimestampTz *slot)
{
	Grid g = make_grid(schedule);
	int64 k = slot_before(&g, now);

	if (k < 0)
		return false;
	*slot = slot_at(&g, k);
	return true;
}

/* Arguments (every, at, on_day, time zone [, anchor]) of a SQL call; raises 22023 for what is unsound. */
CsSchedule
cs_schedule_args(FunctionCallInfo fcinfo)
{
	CsSchedule s = {{0}};
	const char *wrong;
	const char *hint;

	if (!PG_ARGISNULL(0))
		s.every = *PG_GETARG_INTERVAL_P(0);
	s.has_at = !PG_ARGISNULL(1);
	if (s.has_at)
		s.at = PG_GETARG_TIMEADT(1);
	s.on_day = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT32(2);
	if (!PG_ARGISNULL(2) && s.on_day == 0)
		s.on_day = -1; /* zero is no day */
	s.time_zone = PG_ARGISNULL(3) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(3));
	wrong = cs_schedule_check(&s, &hint);
	if (wrong)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", wrong),
				 errdetail("every %s, at %s, on_day %s, time zone %s.",
						   PG_ARGISNULL(0) ? "NULL"
										   : DatumGetCString(DirectFunctionCall1(
												 interval_out, PG_GETARG_DATUM(0))),
						   PG_ARGISNULL(1)
							   ? "NULL"
							   : DatumGetCString(DirectFunctionCall1(time_out, PG_GETARG_DATUM(1))),
						   PG_ARGISNULL(2) ? "NULL" : psprintf("%d", PG_GETARG_INT32(2)),
						   s.time_zone ? s.time_zone : "NULL"),
				 errhint("%s", hint)));
	return s;
}

/* SQL: cs_internal.check_schedule(every, at, on_day, time_zone): raises or returns nothing. */
Datum
cs_check_schedule_sql(PG_FUNCTION_ARGS)
{
	(void) cs_schedule_args(fcinfo);
	PG_RETURN_VOID();
}

/* SQL: cs_internal.next_run(every, at, on_day, time_zone, anchor, after): first slot after. */
Datum
cs_next_run_sql(PG_FUNCTION_ARGS)
{
	CsSchedule s = cs_schedule_args(fcinfo);

	if (PG_ARGISNULL(4) || PG_ARGISNULL(5))
		PG_RETURN_NULL();
	s.anchor = PG_GETARG_TIMESTAMPTZ(4);
	PG_RETURN_TIMESTAMPTZ(cs_schedule_next(&s, PG_GETARG_TIMESTAMPTZ(5)));
}

/* SQL: cs_internal.latest_run(every, at, on_day, time_zone, anchor, now): last slot at or before now, NULL: none yet. */
Datum
cs_latest_run_sql(PG_FUNCTION_ARGS)
{
	CsSchedule s = cs_schedule_args(fcinfo);
	TimestampTz slot;

	if (PG_ARGISNULL(4) || PG_ARGISNULL(5))
		PG_RETURN_NULL();
	s.anchor = PG_GETARG_TIMESTAMPTZ(4);
	if (!cs_schedule_latest(&s, PG_GETARG_TIMESTAMPTZ(5), &slot))
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(slot);
}
