/*
 * hours.c
 *		Hours of the week: written as 'mon-fri 09:00-17:00, sat 10:00-14:00'.
 *
 * In: such a text, an instant and the policy's zone.  Out: whether the instant
 * lies in the hours, when they begin or end, and what deadline an interval gives
 * in which just they count.  Nothing is read or written here.
 *
 * A part is days (one, a range that may go over the week's end, or left out for
 * every day) and a half-open range of local clock times; one that ends before it
 * begins goes on into the next day (22:00-07:00).  Parts are united.  Local time
 * is what the zone makes of an instant, so an hour that a change of the clocks
 * skips does not count and one that it repeats counts twice.
 */
#include "postgres.h"

#include <ctype.h>

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "core/period.h"
#include "decide/hours.h"

PG_FUNCTION_INFO_V1(cs_check_hours_sql);
PG_FUNCTION_INFO_V1(cs_hours_after_sql);
PG_FUNCTION_INFO_V1(cs_hours_always_sql);

#define MINUTES_A_DAY (24 * 60)

static const char *const day_names[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat"};

static void
skip_space(const char **s)
{
	while (isspace((unsigned char) **s))
		(*s)++;
}

/*
 * scan_day: one of the day names, -1 where none stands.
 */
static int
scan_day(const char **s)
{
	for (int i = 0; i < lengthof(day_names); i++)
		if (pg_strncasecmp(*s, day_names[i], 3) == 0 && !isalpha((unsigned char) (*s)[3]))
		{
			*s += 3;
			return i;
		}
	return -1;
}

/*
 * scan_clock: HH:MM from 00:00 to 24:00, in minutes; -1 where none stands.
 */
static int
scan_clock(const char **s)
{
	int hour;
	int minute;

	if (!cs_scan_digits(s, 2, &hour) || **s != ':')
		return -1;
	(*s)++;
	if (!cs_scan_digits(s, 2, &minute) || minute > 59 || hour * 60 + minute > MINUTES_A_DAY)
		return -1;
	return hour * 60 + minute;
}

/*
 * parse: fills hours; the part that is not understood, NULL: all is.
 */
static const char *
parse(const char *text, CsHours *hours)
{
	const char *s = text;

	for (;;)
	{
		const char *part;
		int first;
		int last;
		int from;
		int to;

		skip_space(&s);
		part = s;
		first = last = scan_day(&s);
		if (first >= 0 && *s == '-')
		{
			s++;
			if ((last = scan_day(&s)) < 0)
				return part;
		}
		skip_space(&s);
		if ((from = scan_clock(&s)) < 0 || *s++ != '-' || (to = scan_clock(&s)) < 0 || from == to ||
			from == MINUTES_A_DAY)
			return part;
		if (first < 0)
		{
			first = 0;
			last = 6;
		}
		for (int day = first;; day = (day + 1) % 7)
		{
			int length = (to - from + MINUTES_A_DAY) % MINUTES_A_DAY;

			if (length == 0)
				length = MINUTES_A_DAY;
			for (int i = 0; i < length; i++)
			{
				int minute = (day * MINUTES_A_DAY + from + i) % CS_MINUTES_A_WEEK;

				hours->in[minute / 8] |= 1 << (minute % 8);
			}
			if (day == last)
				break;
		}
		skip_space(&s);
		if (*s == '\0')
			return NULL;
		if (*s++ != ',')
			return part;
	}
}

/*
 * cs_hours, cs_hours_or_null: see hours.h.
 */
CsHours *
cs_hours(const char *text, const char *what)
{
	CsHours *hours = palloc0(sizeof(CsHours));
	const char *part = parse(text, hours);

	if (part != NULL)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("%s: \"%s\" is not hours of the week", what, text),
				errdetail("The part that is not understood begins at \"%s\".", part),
				errhint("Write for example 'mon-fri 09:00-17:00, sat 10:00-14:00', or "
						"'22:00-07:00' for every night."));
	return hours;
}

CsHours *
cs_hours_or_null(const char *text)
{
	CsHours *hours = palloc0(sizeof(CsHours));

	return text != NULL && parse(text, hours) == NULL ? hours : NULL;
}

/*
 * minute_of: the minute of the week at which t lies in local time.
 */
static int
minute_of(TimestampTz t, pg_tz *zone)
{
	struct pg_tm tm;
	fsec_t fsec;
	int offset;

	if (timestamp2tm(t, &offset, &tm, &fsec, NULL, zone) != 0)
		ereport(ERROR, errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				errmsg("timestamp out of range"));
	return j2day(date2j(tm.tm_year, tm.tm_mon, tm.tm_mday)) * MINUTES_A_DAY + tm.tm_hour * 60 +
		   tm.tm_min;
}

bool
cs_hours_contain(const CsHours *hours, TimestampTz t, pg_tz *zone)
{
	int minute = minute_of(t, zone);

	return (hours->in[minute / 8] & (1 << (minute % 8))) != 0;
}

/* The next full minute after t. */
static TimestampTz
next_minute(TimestampTz t)
{
	TimestampTz begun = t - t % USECS_PER_MINUTE;

	if (begun > t)
		begun -= USECS_PER_MINUTE;
	return begun + USECS_PER_MINUTE;
}

/*
 * cs_hours_next: see hours.h.
 */
TimestampTz
cs_hours_next(const CsHours *hours, TimestampTz t, bool inside, pg_tz *zone)
{
	for (int i = 0; i <= CS_MINUTES_A_WEEK + 120; i++)
	{
		if (cs_hours_contain(hours, t, zone) == inside)
			return t;
		t = next_minute(t);
	}
	return DT_NOEND;
}

static bool
is_working_day(const CsHours *hours, int day)
{
	for (int i = day * MINUTES_A_DAY / 8; i < (day + 1) * MINUTES_A_DAY / 8; i++)
		if (hours->in[i] != 0)
			return true;
	return false;
}

/*
 * cs_hours_after: what begins outside the hours counts from their next
 * beginning; each day of the interval is a day with hours, at the same clock
 * time; then its hours and minutes pass only inside.  Months have no meaning
 * here and are refused where the rule is written.
 */
TimestampTz
cs_hours_after(const CsHours *hours, TimestampTz t, const Interval *interval, pg_tz *zone)
{
	Interval day = {.day = 1};
	int64 left = interval->time;

	t = cs_hours_next(hours, t, true, zone);
	for (int i = 0; i < interval->day; i++)
		do
		{
			CHECK_FOR_INTERRUPTS();
			t = DatumGetTimestampTz(DirectFunctionCall2(
				timestamptz_pl_interval, TimestampTzGetDatum(t), IntervalPGetDatum(&day)));
		} while (!is_working_day(hours, minute_of(t, zone) / MINUTES_A_DAY));
	while (left > 0)
	{
		TimestampTz next = next_minute(t);

		CHECK_FOR_INTERRUPTS();
		if (cs_hours_contain(hours, t, zone))
		{
			if (left <= next - t)
				return t + left;
			left -= next - t;
		}
		t = next;
	}
	return t;
}

/*
 * cs_internal.check_hours(text, what): raises what is wrong.
 */
Datum
cs_check_hours_sql(PG_FUNCTION_ARGS)
{
	cs_hours(text_to_cstring(PG_GETARG_TEXT_PP(0)), text_to_cstring(PG_GETARG_TEXT_PP(1)));
	PG_RETURN_VOID();
}

/*
 * cs_internal.hours_after(hours, t, interval): a deadline, in the policy's zone.
 */
Datum
cs_hours_after_sql(PG_FUNCTION_ARGS)
{
	CsFrame frame;
	TimestampTz result;

	cs_enter(&frame);
	result = cs_hours_after(cs_hours(text_to_cstring(PG_GETARG_TEXT_PP(0)), "hours"),
							PG_GETARG_TIMESTAMPTZ(1), PG_GETARG_INTERVAL_P(2),
							cs_policy_zone(cs_policy(false)));
	cs_leave(&frame);
	PG_RETURN_TIMESTAMPTZ(result);
}

/*
 * cs_internal.always_in(hours): are they the whole week?
 */
Datum
cs_hours_always_sql(PG_FUNCTION_ARGS)
{
	CsHours *hours = cs_hours(text_to_cstring(PG_GETARG_TEXT_PP(0)), "hours");

	for (int i = 0; i < lengthof(hours->in); i++)
		if (hours->in[i] != 0xFF)
			PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(true);
}
