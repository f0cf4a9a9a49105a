/*
 * survival.h
 *		What the aggregates km and logrank keep of the rows they have seen.
 */
#ifndef CS_SURVIVAL_H
#define CS_SURVIVAL_H

#include "postgres.h"
#include "fmgr.h"

/* What happens at one time in one group. */
typedef struct CsBin
{
	double time;
	int32 group;
	int64 events;
	int64 censored;
	int64 entered; /* late: at risk after this time, not at it */
} CsBin;

/*
 * Rows counted by time and group: memory follows the number of different
 * times, not of rows.
 */
typedef struct CsBins
{
	MemoryContext cxt;
	Size used;
	Size room;
	CsBin *bins;
} CsBins;

extern void cs_bins_init(CsBins *b, MemoryContext cxt);
extern void cs_bins_add(CsBins *b, const CsBin *bin);
/* Ascending by time and group, each pair once; adding may go on afterwards. */
extern void cs_bins_compact(CsBins *b);

/* The aggregate's memory; raises outside an aggregate. */
extern MemoryContext cs_survival_context(FunctionCallInfo fcinfo);
/* 22023 unless the duration is finite and not negative. */
extern double cs_survival_duration(double duration, const char *aggregate);

#endif
