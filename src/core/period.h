/*
 * period.h
 *		Period words and ranges: text in, half-open interval of instants out.
 */
#ifndef CS_PERIOD_H
#define CS_PERIOD_H

#include "cs_ext.h"

typedef struct CsPeriod
{
	TimestampTz start;
	TimestampTz end; /* of a running period: as_of */
	bool complete;   /* false: the period was still running at as_of */
} CsPeriod;

/* Raises 22023 for what is malformed, reversed, ambiguous or wholly after as_of. */
extern CsPeriod cs_period(const char *word, TimestampTz as_of, const CsPolicy *policy);

#endif
