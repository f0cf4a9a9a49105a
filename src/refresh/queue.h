/*
 * queue.h
 *		Taking customers from the work queues (queue.c).
 */
#ifndef CS_QUEUE_H
#define CS_QUEUE_H

#include "cs_ext.h"

/* A customer who waits for a source, and the instants of its rows that changed. */
typedef struct CsPending
{
	Datum customer_id;
	TimestampTz since;
	TimestampTz until;
} CsPending;

/*
 * Those of the candidates (sorted text[]) whom nobody else has locked, each
 * locked for this transaction.  Never waits.  refresh(commit => false) of many
 * customers comes to lock everybody, or leaves the rest to the next refresh when
 * it cannot.
 */
extern Datum cs_lock_free(Datum candidates, int *n);

/*
 * Those of the customers (sorted text[]) none of whose alerts is locked by
 * somebody else, with their alerts locked now.  Who acknowledges in a long
 * transaction holds up neither the refresh, which would wait for him with others
 * locked, nor falls into a deadlock with it.
 */
extern Datum cs_may_evaluate(Datum ids, int *n);

/*
 * Of these customers those who wait for the source, in order of their ids; they
 * wait no more.
 */
extern CsPending *cs_take_pending(const char *source, Datum ids, int *n);

/* The ids of some of them as a text[]. */
extern Datum cs_pending_ids(const CsPending *pending, int n);

#endif
