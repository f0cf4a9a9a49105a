/*
 * money.c
 *		Between numeric, as money is stored, and the integer it is added up in.
 *
 * Both ways read and write the bytes of a numeric as they stand on disk (the
 * format since 9.1, which pg_upgrade relies on), because calling numeric's own
 * functions took most of the time of a sweep:
 *
 *	header	16 bits: 10 s dddddd w wwwwww	short: sign, digits behind the point,
 *											weight with its sign
 *			 or 0s dddddddddddddd			long: the weight is the next 16 bits
 *			 or 11...						NaN and infinities
 *	digits	16 bits each, base 10000, the first counts 10000^weight; zeros at
 *			either end are left out
 */
#include "cs_ext.h"

#include "core/money.h"

#define BASE 10000
#define SCALE 6

/*
 * cs_money: see money.h.
 */
bool
cs_money(Datum numeric, CsMoney *money)
{
	struct varlena *v = PG_DETOAST_DATUM_PACKED(numeric);
	const char *p = VARDATA_ANY(v);
	int len = VARSIZE_ANY_EXHDR(v);
	uint16 header;
	bool negative;
	int weight;
	int head;
	int ndigits;
	uint16 digit;
	CsMoney value = 0;

	memcpy(&header, p, sizeof(header));
	if ((header & 0xC000) == 0xC000)
		return false;
	if (header & 0x8000)
	{
		negative = (header & 0x2000) != 0;
		weight = (header & 0x3F) - (header & 0x40);
		head = sizeof(uint16);
	}
	else
	{
		int16 w;

		memcpy(&w, p + sizeof(uint16), sizeof(w));
		negative = (header & 0xC000) == 0x4000;
		weight = w;
		head = 2 * sizeof(uint16);
	}
	if (weight > 6)
		return false;
	ndigits = (len - head) / (int) sizeof(uint16);
	p += head;

	/* to 1/10000, then the digit in which millionths end */
	if (weight <= 2)
	{
		int64 small = 0;

		for (int i = 0; i <= weight + 1; i++)
		{
			digit = 0;
			if (i < ndigits)
				memcpy(&digit, p + i * sizeof(digit), sizeof(digit));
			small = small * BASE + digit;
		}
		value = small;
	}
	else
	{
		for (int i = 0; i <= weight + 1; i++)
		{
			digit = 0;
			if (i < ndigits)
				memcpy(&digit, p + i * sizeof(digit), sizeof(digit));
			value = value * BASE + digit;
		}
	}
	value *= 100;
	if (weight + 2 >= 0 && weight + 2 < ndigits)
	{
		memcpy(&digit, p + (weight + 2) * sizeof(digit), sizeof(digit));
		value += digit / 100 + (digit % 100 >= 50);
	}
	*money = negative ? -value : value;
	return true;
}

/*
 * cs_money_put: see money.h.
 */
int
cs_money_put(CsMoney money, char *to)
{
	unsigned __int128 rest = money < 0 ? -(unsigned __int128) money : (unsigned __int128) money;
	uint16 digits[16];
	int first = lengthof(digits); /* of those in use */
	int last = lengthof(digits);  /* behind them */
	int weight = -1 - SCALE / 4;
	uint16 header = 0x8000 | (SCALE << 7);
	uint64 low;

	/* from the last digit, which millionths fill by half; divisions of 128 bits are dear */
	if (rest > PG_UINT64_MAX)
	{
		digits[--first] = (uint16) (rest % 100) * 100;
		rest /= 100;
	}
	else
	{
		digits[--first] = (uint16) ((uint64) rest % 100) * 100;
		rest = (uint64) rest / 100;
	}
	while (rest > PG_UINT64_MAX)
	{
		digits[--first] = (uint16) (rest % BASE);
		rest /= BASE;
		weight++;
	}
	for (low = (uint64) rest; low > 0; low /= BASE)
	{
		digits[--first] = (uint16) (low % BASE);
		weight++;
	}
	while (last > first && digits[last - 1] == 0)
		last--;
	while (first < last && digits[first] == 0)
	{
		first++;
		weight--;
	}
	if (first == last)
		weight = 0;
	else if (money < 0)
		header |= 0x2000;
	header |= (weight < 0 ? 0x40 : 0) | (weight & 0x3F);

	memcpy(to, &header, sizeof(header));
	memcpy(to + sizeof(header), digits + first, (last - first) * sizeof(uint16));
	return sizeof(header) + (last - first) * sizeof(uint16);
}

/*
 * cs_money_numeric: see money.h.
 */
Datum
cs_money_numeric(CsMoney money)
{
	struct varlena *result = palloc(VARHDRSZ + CS_MONEY_BYTES);

	SET_VARSIZE(result, VARHDRSZ + cs_money_put(money, VARDATA(result)));
	return PointerGetDatum(result);
}
