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

/*
 * Append the union of unstamped payloads to a buffer; all of them are whole and of
 * the month.  False, and nothing is appended: quantities, too many events or
 * parts, days of another month; cs_usage_merge does those.
 */
extern bool cs_month_unite(CsMonthMerge *m, StringInfo buf, const CsUsagePart *parts, int n,
						   DateADT month);

#endif
