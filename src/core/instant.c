/*
 * instant.c
 *		Instants as people write them, read in the policy's zone.
 *
 * In: text, date, timestamp.  Out: timestamptz.  Every at and as_of argument
 * that is not a timestamptz, and both bounds of a range, go through here, so
 * that neither TimeZone nor DateStyle of the session changes a result.
 */
#include "postgres.h"

#include <ctype.h>

#include "pgtime.h"
#include "utils/datetime.h"

#include "core/period.h"

static TimestampTz local_instant(Timestamp local, pg_tz *zone);

PG_FUNCTION_INFO_V1(cs_instant_text);
PG_FUNCTION_INFO_V1(cs_instant_date);
PG_FUNCTION_INFO_V1(cs_instant_timestamp);
PG_FUNCTION_INFO_V1(cs_instant_timestamptz);

/* The policy's zone, which the policy's own check has found to exist. */
pg_tz *
cs_policy_zone(const CsPolicy *policy)
{
	pg_tz *zone = pg_tzset(policy->time_zone);

	if (zone == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("time zone \"%s\" of the policy is not known to this server",
							   policy->time_zone),
						errhint("UPDATE cs.policy SET time_zone to one of pg_timezone_names.")));
	return zone;
}

/* Exactly count digits at *s, and no digit after them: their value, *s moved behind. */
bool
cs_scan_digits(const char **s, int count, int *value)
{
	int v = 0;

	for (int i = 0; i < count; i++)
	{
		if (!isdigit((unsigned char) (*s)[i]))
			return false;
		v = v * 10 + ((*s)[i] - '0');
	}
	if (isdigit((unsigned char) (*s)[count]))
		return false;
	*s += count;
	*value = v;
	return true;
}

/*
 * cs_parse_instant reads 'YYYY-MM-DD[(T| )HH:MM[:SS[.fraction]][zone]]'; without
 * a zone in the given one.  False: *why says what is wrong, to follow the
 * text.  Stricter than timestamptz_in on purpose: what that takes and this
 * does not depends on DateStyle ('01/02/2026') or on the clock ('today').
 */
bool
cs_parse_instant(const char *text, pg_tz *zone, TimestampTz *result, const char **why)
{
	const char *s = text;
	struct pg_tm tm = {0};
	fsec_t fsec = 0;
	int tz;
	bool has_zone = false;

	*why = "is not a date";
	while (isspace((unsigned char) *s))
		s++;
	if (!cs_scan_digits(&s, 4, &tm.tm_year) || *s++ != '-' || !cs_scan_digits(&s, 2, &tm.tm_mon) ||
		*s++ != '-' || !cs_scan_digits(&s, 2, &tm.tm_mday))
	{
		if (pg_strncasecmp(text, "infinity", 8) == 0 || pg_strncasecmp(text, "-infinity", 9) == 0)
			*why = "is not finite";
		return false;
	}
	if (tm.tm_year < 1 || tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 ||
		tm.tm_mday > day_tab[isleap(tm.tm_year)][tm.tm_mon - 1])
	{
		*why = "is a day that no calendar has";
		return false;
	}

	if ((*s == ' ' || *s == 'T' || *s == 't') && isdigit((unsigned char) s[1]))
	{
		s++;
		*why = "has no usable time of day";
		if (!cs_scan_digits(&s, 2, &tm.tm_hour) || *s++ != ':' ||
			!cs_scan_digits(&s, 2, &tm.tm_min))
			return false;
		if (*s == ':')
		{
			s++;
			if (!cs_scan_digits(&s, 2, &tm.tm_sec))
				return false;
			if (*s == '.')
			{
				int unit = 100000;

				s++;
				if (!isdigit((unsigned char) *s))
					return false;
				for (; isdigit((unsigned char) *s); s++)
				{
					/* the seventh digit rounds, as the server's own types do */
					if (unit > 0)
						fsec += (*s - '0') * unit;
					else if (unit == 0 && *s >= '5')
						fsec++;
					unit = unit > 1 ? unit / 10 : unit - 1;
				}
			}
		}
		if (tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 59)
			return false;
	}

	while (isspace((unsigned char) *s))
		s++;
	if ((*s == 'Z' || *s == 'z') && s[1] == '\0')
	{
		tz = 0;
		has_zone = true;
	}
	else if (*s == '+' || *s == '-')
	{
		int sign = *s++ == '-' ? 1 : -1; /* the server counts offsets westward */
		int hours;
		int minutes = 0;

		*why = "has no usable time zone";
		if (cs_scan_digits(&s, 4, &hours))
		{
			minutes = hours % 100;
			hours /= 100;
		}
		else if (!cs_scan_digits(&s, 2, &hours))
			return false;
		else if (*s == ':')
		{
			s++;
			if (!cs_scan_digits(&s, 2, &minutes))
				return false;
		}
		if (*s != '\0' || hours > MAX_TZDISP_HOUR || minutes > 59)
			return false;
		tz = sign * (hours * SECS_PER_HOUR + minutes * SECS_PER_MINUTE);
		has_zone = true;
	}
	else if (isalpha((unsigned char) *s))
	{
		*why = "names an unknown time zone";
		zone = pg_tzset(s);
		if (zone == NULL)
			return false;
	}
	else if (*s != '\0')
	{
		*why = "has something behind the date";
		return false;
	}

	if (!has_zone)
		tz = DetermineTimeZoneOffset(&tm, zone);
	if (tm2timestamp(&tm, fsec, &tz, result) != 0)
	{
		*why = "is out of range";
		return false;
	}
	return true;
}

/* What cannot be an instant: 22007 with the accepted forms. */
void
cs_refuse_instant(const char *given, const char *why)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_DATETIME_FORMAT), errmsg("\"%s\" %s", given, why),
					errhint(CS_INSTANT_FORMS)));
}

/* Local time in the zone as an instant; where clocks jump, by the server's own rule. */
static TimestampTz
local_instant(Timestamp local, pg_tz *zone)
{
	struct pg_tm tm;
	fsec_t fsec;
	int tz;
	TimestampTz result;

	if (timestamp2tm(local, NULL, &tm, &fsec, NULL, NULL) != 0)
		cs_refuse_instant("timestamp", "is out of range");
	tz = DetermineTimeZoneOffset(&tm, zone);
	if (tm2timestamp(&tm, fsec, &tz, &result) != 0)
		cs_refuse_instant("timestamp", "is out of range");
	return result;
}

/* cs_internal.instant(text): strict, in the policy's zone; 22007 for what is no instant. */
Datum
cs_instant_text(PG_FUNCTION_ARGS)
{
	char *given = text_to_cstring(PG_GETARG_TEXT_PP(0));
	CsFrame frame;
	TimestampTz result;
	const char *why;

	cs_enter(&frame);
	if (!cs_parse_instant(given, cs_policy_zone(cs_policy(false)), &result, &why))
		cs_refuse_instant(given, why);
	cs_leave(&frame);
	PG_RETURN_TIMESTAMPTZ(result);
}

/* cs_internal.instant(date): the start of that day in the policy's zone. */
Datum
cs_instant_date(PG_FUNCTION_ARGS)
{
	DateADT day = PG_GETARG_DATEADT(0);
	CsFrame frame;
	TimestampTz result;

	if (DATE_NOT_FINITE(day))
		cs_refuse_instant(DATE_IS_NOEND(day) ? "infinity" : "-infinity", "is not finite");
	cs_enter(&frame);
	result = cs_clock_midnight(day, cs_policy(false)->time_zone);
	cs_leave(&frame);
	PG_RETURN_TIMESTAMPTZ(result);
}

/* cs_internal.instant(timestamp): local time in the policy's zone. */
Datum
cs_instant_timestamp(PG_FUNCTION_ARGS)
{
	Timestamp local = PG_GETARG_TIMESTAMP(0);
	CsFrame frame;
	TimestampTz result;

	if (TIMESTAMP_NOT_FINITE(local))
		cs_refuse_instant(local > 0 ? "infinity" : "-infinity", "is not finite");
	cs_enter(&frame);
	result = local_instant(local, cs_policy_zone(cs_policy(false)));
	cs_leave(&frame);
	PG_RETURN_TIMESTAMPTZ(result);
}

/* cs_internal.instant(timestamptz): the instant itself, refused when not finite. */
Datum
cs_instant_timestamptz(PG_FUNCTION_ARGS)
{
	TimestampTz at = PG_GETARG_TIMESTAMPTZ(0);

	if (TIMESTAMP_NOT_FINITE(at))
		cs_refuse_instant(at > 0 ? "infinity" : "-infinity", "is not finite");
	PG_RETURN_TIMESTAMPTZ(at);
}
