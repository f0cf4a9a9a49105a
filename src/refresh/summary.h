/*
 * summary.h
 *		The steps by which refresh keeps the monthly summaries.
 */
#ifndef CS_SUMMARY_H
#define CS_SUMMARY_H

#include "cs_ext.h"

/* Forgets summaries of definitions that changed, and all where too much of the ledger did. */
extern void cs_summary_prune(void);

/* The next customers whose ledger changed since the summaries took it in. */
extern Datum cs_summary_choose(const char *after, int *n);

/* Takes them in; they are locked, and the snapshot is younger than that. */
extern void cs_summary_fold(Datum ids);

/* Builds one dimension, or adds the months that have ended; false: none left. */
extern bool cs_summary_extend(TimestampTz as_of);

/*
 * True where the steps above are known to find nothing to do.
 * cs_summary_settle: they have just found nothing, and that holds up to this
 * instant (refresh/settled.c).
 */
extern bool cs_summary_settled(TimestampTz as_of);
extern void cs_summary_settle(TimestampTz until);

/* What is kept is of the definitions as they stand; false: that is not known without their fingerprints. */
extern bool cs_summary_current(void);

/* Dimensions whose months are, or are to be, kept ('' is everybody), and their fingerprints: two text[] of one length. */
extern void cs_summary_prints(Datum *dimensions, Datum *prints);

#endif
