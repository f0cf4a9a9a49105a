/*
 * usage.h
 *		The rollup of usage events: type cs.usage, its month rows.
 */
#ifndef CS_USAGE_H
#define CS_USAGE_H

#include "cs_ext.h"

/* Recompute usage_month of these customers from all usage_event sources, for the local months that [since, until] touches. */
extern void cs_usage_ingest(Datum ids, TimestampTz since, TimestampTz until,
							const CsPolicy *policy);

/*
 * Rows (customer_id text, usage cs.usage), one per customer of the batch: the
 * union of what is needed, stamped with D; an empty usage where there is none.
 */
extern CsResult *cs_usage_rows(const CsBatch *batch);

/* Whether an enabled metric looks at the running day (today => true). */
extern bool cs_usage_sees_today(void);

#endif
