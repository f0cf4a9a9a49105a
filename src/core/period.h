/*
 * period.h
 *		Period words and ranges: text in, half-open interval of instants out.
 */
#ifndef CS_PERIOD_H
#define CS_PERIOD_H

#include "cs_ext.h"
#include "pgtime.h"

typedef struct CsPeriod
{
	TimestampTz start;
	TimestampTz end; /* of a running period: as_of */
	bool complete;   /* false: the period was still running at as_of */
} CsPeriod;

/* Raises 22023 for what is malformed, reversed, ambiguous or wholly after as_of. */
extern CsPeriod cs_period(const char *word, TimestampTz as_of, const CsPolicy *policy);

/* ---- instants (core/instant.c) ---------------------------------------- */

#define CS_INSTANT_FORMS                                                                        \
	"Instants are written '2026-10-31' (the start of that day) or '2026-10-31 14:30', read in " \
	"the policy's time zone, or with a zone of their own: '2026-10-31 14:30+09'."

/* The policy's zone; 22023 when this server does not know it. */
extern pg_tz *cs_policy_zone(const CsPolicy *policy);

/* ISO date or date and time, without a zone in the given one; false: *why says what is wrong. */
extern bool cs_parse_instant(const char *text, pg_tz *zone, TimestampTz *result, const char **why);

/* Raises 22007 with the accepted forms. */
extern void cs_refuse_instant(const char *given, const char *why);

/* Exactly count digits at *s: their value, *s moved behind them. */
extern bool cs_scan_digits(const char **s, int count, int *value);

#endif
