/*
 * refresh.h
 *		The way of the data, in steps of one transaction each.
 */
#ifndef CS_REFRESH_H
#define CS_REFRESH_H

#include "cs_ext.h"

typedef struct CsRefresh
{
	TimestampTz as_of; /* fixed at start, for every batch of the run */
	bool force_scan;   /* re-read scanned sources now */
	int phase;         /* private to pipeline.c */
	int64 ingested;    /* customers, per source counted once each */
	int64 evaluated;
} CsRefresh;

extern void cs_refresh_start(CsRefresh *run, bool force_scan);

/*
 * One transaction's worth of work: a chunk of ingest or a batch of evaluate.
 * False when nothing is left.  The caller is inside a transaction and commits
 * between steps (or does not: refresh(commit => false)).
 */
extern bool cs_refresh_step(CsRefresh *run);

/* True when a step would find work now; *next_due is when time alone makes some (DT_NOEND: never). Not in a frame. */
extern bool cs_refresh_needed(TimestampTz *next_due);

/* All stages of evaluate, in order (refresh/evaluate.c). */
extern void cs_evaluate(CsBatch *batch);

/* Makes a batch of these customers (sorted text[]) and registers the relation "batch". */
extern CsBatch *cs_batch_make(Datum ids, int nids, TimestampTz as_of, bool what_if);

#endif
