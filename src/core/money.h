/*
 * money.h
 *		Money as the ledger adds it up: an integer of millionths.
 */
#ifndef CS_MONEY_H
#define CS_MONEY_H

#include "cs_ext.h"

#ifndef HAVE_INT128
#error "cs_ext needs a compiler with integers of 128 bits"
#endif

/* Millionths of the major unit: numeric(20,6), and any sum of very many of them, exactly. */
typedef int128 CsMoney;

/*
 * A numeric, rounded half away from zero to six digits as numeric itself does.
 * False: not a number, infinite, or 10^28 and more.
 */
extern bool cs_money(Datum numeric, CsMoney *money);

/* The numeric of it, with six digits after the point, palloc'd. */
extern Datum cs_money_numeric(CsMoney money);

/* The same without the length that a varlena begins with; how many bytes it is. */
#define CS_MONEY_BYTES 34
extern int cs_money_put(CsMoney money, char *to);

/* Whether numeric(20,6) holds it: less than 10^14 on either side. */
static inline bool
cs_money_fits(CsMoney money)
{
	const CsMoney limit = (CsMoney) INT64CONST(100000000000000) * 1000000;

	return money < limit && money > -limit;
}

static inline int
cs_money_cmp(CsMoney a, CsMoney b)
{
	return (a > b) - (a < b);
}

#endif /* CS_MONEY_H */
