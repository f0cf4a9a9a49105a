/*
 * usage_runs.h
 *		Usage of many customers at once: sorted runs of (customer, month, usage).
 *
 * A run is a sequence of entries in order of customer id (bytes) and month; one
 * (customer, month) stands in a run at most once, but may stand in several runs:
 * its value is their union.  An entry begins at a multiple of four bytes, in the
 * machine's own byte order, for it never leaves the server:
 *
 *	uint32 length of the id; int32 month (DateADT); the id; up to three bytes; the
 *	cs.usage, with a varlena header of four bytes; up to three bytes
 */
#ifndef CS_USAGE_RUNS_H
#define CS_USAGE_RUNS_H

#include "cs_ext.h"

#include "facts/usage_value.h"

typedef struct CsRunEntry
{
	CsUsageString id; /* never NULL */
	DateADT month;
	struct varlena *usage;
} CsRunEntry;

/* The entry at a place, which moves behind it; the entry points into the run. */
static inline void
cs_run_read(char *data, int64 *at, CsRunEntry *entry)
{
	uint32 len;

	memcpy(&len, data + *at, sizeof(len));
	memcpy(&entry->month, data + *at + sizeof(len), sizeof(entry->month));
	*at += sizeof(len) + sizeof(entry->month);
	entry->id.s = data + *at;
	entry->id.len = len;
	*at += INTALIGN(len);
	entry->usage = (struct varlena *) (data + *at);
	*at += INTALIGN(VARSIZE(entry->usage));
}

/* Append an entry up to its usage: begin says where that is, end is called when it is there. */
extern int cs_run_begin(StringInfo run, const char *id, uint32 len, DateADT month);
extern void cs_run_end(StringInfo run, int usage);

/* Merging runs as one ordered sequence, in which each (customer, month) stands once. */
typedef struct CsRunsMerge CsRunsMerge;

extern CsRunsMerge *cs_runs_merge(void);
extern void cs_runs_add(CsRunsMerge *merge, char *run, int64 len); /* must stay */

/* Append the next one to a run; false: there is none. */
extern bool cs_runs_next(CsRunsMerge *merge, StringInfo run);

#endif
