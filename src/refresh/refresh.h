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
	int64 ingested;    /* customers, once per source with a change */
	int64 evaluated;   /* customers */
	bool worked;       /* did something that needs not be done again by the next run */
	int notice_level;  /* at which progress is said */
	bool commits;      /* each step is a transaction */

	/* private to progress.c */
	int stage; /* the last one said, 0: none */
	int tenth;
	bool progress;
	TimestampTz stage_started;

	/* private to pipeline.c */
	int64 to_ingest; /* when the phase began; -1: not counted */
	int64 to_evaluate;
	int phase;
	int steps;    /* so far */
	int pass;     /* of evaluate: changed, by definition, due */
	bool passed;  /* somebody was evaluated in this pass */
	bool yielded; /* not everybody due was evaluated */
	int rank;     /* of ingest: the source it is at, in TopMemoryContext */
	char *source;
	char *after; /* last customer looked at in this source or pass, in TopMemoryContext */
} CsRefresh;

/* What is done of a stage and what there is to do, after a step of a long run; place: its order, from 1. End: nothing is under way. */
extern void cs_progress(CsRefresh *run, int place, const char *stage, int64 done, int64 total);
extern void cs_progress_end(void);

/* First key of our advisory locks; the second is 0 for the refresher, else a customer's hash. */
#define CS_LOCK_CLASS 1668509797

/*
 * Shared by who locks a customer, exclusive by a refresher that would lock more
 * than a transaction should: the server's lock table is small, and full it
 * fails everybody.
 */
#define CS_LOCK_EVERYBODY (CS_LOCK_CLASS + 2)

/*
 * Runs a step on one snapshot, taken now, after the locks.  hold: the step
 * changes nothing of sources and definitions.  Inside a frame.
 */
extern bool cs_with_snapshot(bool (*step)(CsRefresh *run), CsRefresh *run, bool hold);

extern void cs_refresh_start(CsRefresh *run, bool force_scan);

/*
 * One transaction's worth of work: a chunk of ingest or a batch of evaluate.
 * False when nothing is left.  The caller is inside a transaction and commits
 * between steps (or does not: refresh(commit => false)).
 */
extern bool cs_refresh_step(CsRefresh *run);

/*
 * Ends the run early, for there is news: true where all that is left to it was
 * made by time or definitions and some of that was done.  The next steps only
 * conclude; what is left stays marked, and facts that changed come first in the
 * next run.
 */
extern bool cs_refresh_yield(CsRefresh *run);

/* True when a step would find work now; *next_due is when time alone makes some (DT_NOEND: never). Not in a frame. */
extern bool cs_refresh_needed(TimestampTz *next_due);

/* All stages of evaluate, in order (refresh/evaluate.c). */
extern void cs_evaluate(CsBatch *batch);

/* Makes a batch of these customers (sorted text[]) and registers the relation "batch". */
extern CsBatch *cs_batch_make(Datum ids, int nids, TimestampTz as_of, bool what_if);

/*
 * Evaluates customers at an instant without leaving a trace: `sql` reads the
 * outcome from the relation "evaluated", which has the columns of
 * cs_internal.state.  Rows in the caller's context.
 */
extern CsResult *cs_what_if(Datum ids, int nids, TimestampTz as_of, const char *sql);

/*
 * The same as far as segments go, without health unless late segments are
 * asked for; also in a read-only transaction, for it leaves nothing behind.
 */
extern CsResult *cs_what_if_segments(Datum ids, int nids, TimestampTz as_of, bool late,
									 const char *sql);

/* Turns with the refresher: until cs_end_turn or the end of the transaction there is no other one. */
extern void cs_take_turn(void);
extern void cs_end_turn(void);
extern bool cs_has_turn(void);

/* Identity of these customers from the sources that say who is one (refresh/identity.c). */
extern void cs_identity_ingest(Datum ids);

/*
 * The same of everybody, where subscription sources are registered, whose rows
 * (customer_id, each once) are given; false: a source cannot be read.  Who is
 * gone is pending for the sources in cs_internal.ledger_build.
 */
extern bool cs_identity_all(List *subscription_rows);

/* due_at of the batch: when time alone changes something (refresh/due.c). */
extern void cs_stage_due(CsBatch *batch);

/* A relation "ids"(customer_id) from a text[], and the array from a query's first column. */
extern Datum cs_ids_from_query(const char *sql, const CsArg *args, int nargs, int *n);

#endif
