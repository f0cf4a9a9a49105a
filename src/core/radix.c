/*
 * radix.c
 *		Many items in order of a number, byte by byte from the last: they are so in
 *		less time than by comparing them.  Bytes that all keys share cost nothing.
 */
#include "cs_ext.h"

#include "miscadmin.h"

#include "core/radix.h"

/*
 * cs_radix_sort: see radix.h.
 */
CsRadix *
cs_radix_sort(CsRadix *items, CsRadix *other, uint64 n)
{
	uint64(*counts)[256] = palloc0(sizeof(uint64[sizeof(items->key)][256]));

	for (uint64 i = 0; i < n; i++)
	{
		for (int byte = 0; byte < sizeof(items->key); byte++)
			counts[byte][(items[i].key >> (8 * byte)) & 0xFF]++;
	}
	for (int byte = 0; byte < sizeof(items->key); byte++)
	{
		uint64 *place = counts[byte];
		uint64 before = 0;
		CsRadix *sorted = other;

		CHECK_FOR_INTERRUPTS();
		if (n == 0 || place[(items[0].key >> (8 * byte)) & 0xFF] == n)
			continue;
		for (int value = 0; value < 256; value++)
		{
			uint64 count = place[value];

			place[value] = before;
			before += count;
		}
		for (uint64 i = 0; i < n; i++)
			sorted[place[(items[i].key >> (8 * byte)) & 0xFF]++] = items[i];
		other = items;
		items = sorted;
	}
	pfree(counts);
	return items;
}
