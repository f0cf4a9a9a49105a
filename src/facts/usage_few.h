/*
 * usage_few.h
 *		Few events of one customer, without tables (usage_few.c).
 */
#ifndef CS_USAGE_FEW_H
#define CS_USAGE_FEW_H

#include "cs_ext.h"

#include "facts/usage_value.h"

#define CS_FEW_EVENTS 8
#define CS_FEW_BYTES 256

/* A name by its place in `names`; len -1: SQL NULL. */
typedef struct CsFewName
{
	int16 at;
	int16 len;
} CsFewName;

typedef struct CsFewEvent
{
	int64 count;
	DateADT day;
	CsFewName user;
	CsFewName event;
} CsFewEvent;

typedef struct CsUsageFew
{
	TimestampTz first;
	TimestampTz last;
	int16 n;
	int16 used; /* bytes of names */
	CsFewEvent events[CS_FEW_EVENTS];
	char names[CS_FEW_BYTES];
} CsUsageFew;

/* One event without a quantity; names of length -1 are NULL.  False: there is no room, nothing is done. */
extern bool cs_few_add(CsUsageFew *few, DateADT day, TimestampTz at, const char *user, int user_len,
					   const char *event, int event_len, int64 count);

/* All of them into a builder. */
extern void cs_few_build(const CsUsageFew *few, CsUsageBuild *b);

/* The encoding that a builder would give, palloc'd. */
extern struct varlena *cs_few_encode(const CsUsageFew *few);

#endif
