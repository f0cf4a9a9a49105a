/*
 * usage_month.h
 *		Uniting values of one month (usage_month.c).
 */
#ifndef CS_USAGE_MONTH_H
#define CS_USAGE_MONTH_H

#include "cs_ext.h"

#include "facts/usage_value.h"

/* Scratch of uniting. */
typedef struct CsMonthMerge CsMonthMerge;

extern CsMonthMerge *cs_month_merge(void);
extern void cs_month_merge_end(CsMonthMerge *m);

/*
 * Append the union of unstamped payloads, cut to their ranges of days, to a buffer;
 * all of them are of the month.  head: its instants; NULL: those of the parts, which
 * are whole.  False, and nothing is appended: quantities, too many events or
 * parts, days of another month, nothing left; cs_usage_merge does those.
 */
extern bool cs_month_unite(CsMonthMerge *m, StringInfo buf, const CsUsagePart *parts, int n,
						   DateADT month, const CsUsageHead *head);

#endif
