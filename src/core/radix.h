/*
 * radix.h
 *		Many items in order of a number (radix.c).
 */
#ifndef CS_RADIX_H
#define CS_RADIX_H

#include "cs_ext.h"

typedef struct CsRadix
{
	uint64 key;
	uint64 item; /* whatever the number is of */
} CsRadix;

/*
 * Items in order of their keys, those with the same one in the order they come.
 * Returns where they stand: in `items` or in `other`, which has as much room.
 */
extern CsRadix *cs_radix_sort(CsRadix *items, CsRadix *other, uint64 n);

#endif /* CS_RADIX_H */
