/*
 * hours.h
 *		Hours of the week, as calendars and quiet hours of alert rules give them.
 */
#ifndef CS_HOURS_H
#define CS_HOURS_H

#include "cs_ext.h"
#include "pgtime.h"

#define CS_MINUTES_A_WEEK (7 * 24 * 60)

/* One bit a minute, from Sunday 00:00 local time. */
typedef struct CsHours
{
	uint8 in[CS_MINUTES_A_WEEK / 8];
} CsHours;

/* Raises 22023, naming `what`, for what is not hours. */
extern CsHours *cs_hours(const char *text, const char *what);

/* NULL for what is not hours, and for NULL. */
extern CsHours *cs_hours_or_null(const char *text);

extern bool cs_hours_contain(const CsHours *hours, TimestampTz t, pg_tz *zone);

/* The first instant from t on that is outside (or inside) the hours; t itself where it is; DT_NOEND: none within a week. */
extern TimestampTz cs_hours_next(const CsHours *hours, TimestampTz t, bool inside, pg_tz *zone);

/* t plus an interval in which just the hours count: see hours.c. */
extern TimestampTz cs_hours_after(const CsHours *hours, TimestampTz t, const Interval *interval,
								  pg_tz *zone);

#endif /* CS_HOURS_H */
