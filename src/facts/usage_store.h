/*
 * usage_store.h
 *		Rows of the rollup found by their keys (usage_store.c).
 */
#ifndef CS_USAGE_STORE_H
#define CS_USAGE_STORE_H

#include "cs_ext.h"

#include "facts/merge.h"

/*
 * Of customers (sorted text[]), those who have a large month among these (first to
 * last), or pieces of any month: a text[] in the order of the ids.  *found: what
 * stands there of the others, for cs_usage_replace_days of one month, if that is
 * little.
 */
typedef struct CsFoundMonths CsFoundMonths;
extern Datum cs_usage_large_ones(Datum ids, DateADT first, DateADT last, int *n,
								 CsFoundMonths **found);

/*
 * The days lo to hi of customers (sorted text[]) as `fresh` says: rows
 * (customer_id, month, usage) in any order, of these customers and days alone.
 * Returns those who have a month whose first or last instant went and the next
 * is not known: it stays as it was, and is to be read whole.
 */
extern Datum cs_usage_replace_days(Datum ids, CsResult *fresh, DateADT lo, DateADT hi,
								   const CsFoundMonths *found, int *unsure);

/*
 * old with the local days lo to hi as fresh says; old or fresh NULL: nothing.
 * NULL when nothing is left.  Where days went that had the first or last instant
 * and nothing came, the next one is not known: *unsure.
 */
extern struct varlena *cs_usage_replaced(struct varlena *old, struct varlena *fresh, DateADT lo,
										 DateADT hi, bool *unsure);

/*
 * What evaluate reads of customers (sorted text[]), from the rows of the ids that
 * count for each: months from `from` up to that of `day`, and
 * with `last` the newest before the month `last_before`; of them whole days
 * before `day`, which they are stamped with.  running: (customer_id, month,
 * usage) of the running day, some for each customer; NULL: not known.  Rows (customer_id, usage), one
 * per customer.
 */
extern CsResult *cs_usage_stamped(Datum ids, const CsWhose *whose, DateADT from, DateADT day,
								  bool last, DateADT last_before, CsResult *running);

#endif
