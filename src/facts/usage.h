/*
 * usage.h
 *		The rollup of usage events: type cs.usage, its month rows.
 */
#ifndef CS_USAGE_H
#define CS_USAGE_H

#include "cs_ext.h"

struct CsSource;
struct CsPending;

/*
 * The rollup of these customers after a change (usage_change.c).  ingest: of
 * instants in [since, until]; infinite: everything; since > until: nothing.
 * ingest_pending: of what was pending for the source, with its unusable rows.
 */
extern void cs_usage_ingest(Datum ids, TimestampTz since, TimestampTz until,
							const CsPolicy *policy);
extern void cs_usage_ingest_pending(const struct CsSource *source, const struct CsPending *pending,
									int n, const CsPolicy *policy);

/*
 * Usage from the facts (usage_ingest.c), of these customers, for rows that
 * lie in [from, to), infinite: all: a SELECT of (customer_id, month, usage), and
 * its results, to be forgotten; NULL when a source cannot be read, which is noted.
 */
extern char *cs_usage_read_parts(Datum ids, TimestampTz from, TimestampTz to, List **read);
extern void cs_usage_forget_parts(List *read);

/* The local day of an instant, in the frame's zone. */
extern DateADT cs_usage_day(TimestampTz at);

/* First day of the month of a day, moved by some months. */
extern DateADT cs_month_start(DateADT day, int move);

/*
 * The rollup from nothing (usage_first.c), in slices of customers.  begin: for
 * all, because of this source.  position: how far it is, -1: there is nothing
 * to build.  step: the next slice, on the snapshot of the step; says at `level`
 * how long it took.  at_once: the step commits, so that what it locks is locked for
 * as long as it takes.
 */
extern void cs_usage_build_begin(const char *source);
extern int64 cs_usage_build_position(void);
extern void cs_usage_build_step(bool at_once, int level);

/*
 * Rows (customer_id text, usage cs.usage), one per customer of the batch: the
 * union of what is needed, stamped with D; an empty usage where there is none.
 */
extern CsResult *cs_usage_rows(const CsBatch *batch);

/*
 * What of a customer's usage the enabled metrics look at (usage_window.c): the
 * days before D; with last also the last day before D - last_ago, of any age.
 */
typedef struct CsUsageNeed
{
	bool all;
	int days;
	bool last;
	int last_ago;
} CsUsageNeed;

extern CsUsageNeed cs_usage_need(void);

/* Whether an enabled metric looks at the running day (today => true). */
extern bool cs_usage_sees_today(void);

#endif
