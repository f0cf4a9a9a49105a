/*
 * usage_runs.h
 *		Usage of many customers at once: sorted runs of (customer, month, usage).
 *
 * A run is a sequence of entries in order of customer id (bytes) and month; one
 * (customer, month) stands in a run at most once, but may stand in several runs:
 * its value is their union.  What usage_pack gives, all in the machine's own
 * byte order, for it never leaves the server:
 *
 *	CsRunsHead, then each run: int64 length, entries; each entry, unaligned:
 *		uint32 length of the id, the id; int32 month (DateADT); uint32 length of the
 *		payload, the payload of a cs.usage without varlena header
 */
#ifndef CS_USAGE_RUNS_H
#define CS_USAGE_RUNS_H

#include "cs_ext.h"

/* Slices are ranges of a 32-bit hash of the id. */
#define CS_SLICES INT64CONST(0x100000000)

typedef struct CsRunsHead
{
	int64 lo; /* what the runs are about: customers with lo <= hash < hi */
	int64 hi; /* may be less than asked for, where memory did not suffice */
	int64 events;
	TimestampTz first; /* of all events; meaningless where events = 0 */
	TimestampTz last;
	int64 nruns;
} CsRunsHead;

extern uint32 cs_usage_slice(const char *id, int len);

/* Merging runs (usage_runs.c): several results of usage_pack as one ordered sequence. */
typedef struct CsRunsMerge CsRunsMerge;

extern CsRunsMerge *cs_runs_merge(void);
extern const CsRunsHead *cs_runs_add(CsRunsMerge *merge, struct varlena *packed); /* must stay */

/* Next (customer, month) below the slice bound; the value stands until the next one. */
extern bool cs_runs_next(CsRunsMerge *merge, int64 hi, const char **id, int *idlen, DateADT *month,
						 struct varlena **value);

#endif
