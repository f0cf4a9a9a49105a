/*
 * usage_quantity.c
 *		Exact decimal sums inside a usage value.
 *
 * Owns CsQty: a sum that is an int64 mantissa with a scale as long as that
 * holds it exactly, and a numeric afterwards.  The value of a sum never
 * depends on the order of the additions; its form may, so it is normalised
 * when encoded.
 */
#include "cs_ext.h"

#include "common/int.h"
#include "facts/usage_value.h"

static const int64 power_of_ten[CS_USAGE_SCALE_MAX + 1] = {INT64CONST(1),
														   INT64CONST(10),
														   INT64CONST(100),
														   INT64CONST(1000),
														   INT64CONST(10000),
														   INT64CONST(100000),
														   INT64CONST(1000000),
														   INT64CONST(10000000),
														   INT64CONST(100000000),
														   INT64CONST(1000000000),
														   INT64CONST(10000000000),
														   INT64CONST(100000000000),
														   INT64CONST(1000000000000),
														   INT64CONST(10000000000000),
														   INT64CONST(100000000000000),
														   INT64CONST(1000000000000000),
														   INT64CONST(10000000000000000),
														   INT64CONST(100000000000000000),
														   INT64CONST(1000000000000000000)};

/* Drop trailing zeros behind the point. */
static void
strip_zeros(CsQty *q)
{
	while (q->scale > 0 && q->mantissa % 10 == 0)
	{
		q->mantissa /= 10;
		q->scale--;
	}
}

/*
 * The quantity of one row.  NaN and infinity are no decimal: 22003.  The
 * result refers to n's memory where it is big.
 */
CsQty
cs_qty_from_numeric(Numeric n)
{
	CsQty q = {.has = true};
	char *text;
	bool negative;
	bool behind_point = false;

	if (numeric_is_nan(n) || numeric_is_inf(n))
		ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
						errmsg("quantity of a usage event is not a finite number")));

	text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(n)));
	negative = (*text == '-');
	for (char *c = text + (negative ? 1 : 0); *c; c++)
	{
		if (*c == '.')
		{
			/* only digits that matter are read, so 1.50 and 1.5 are one */
			Size len = strlen(c);

			while (len > 1 && c[len - 1] == '0')
				c[--len] = '\0';
			behind_point = true;
			continue;
		}
		if (behind_point && q.scale == CS_USAGE_SCALE_MAX)
			q.big = true;
		else if (pg_mul_s64_overflow(q.mantissa, 10, &q.mantissa) ||
				 pg_sub_s64_overflow(q.mantissa, *c - '0', &q.mantissa))
			q.big = true;
		if (q.big)
			break;
		if (behind_point)
			q.scale++;
	}
	/* gathered negative, as that side of int64 is the larger */
	if (!q.big && !negative && pg_sub_s64_overflow(0, q.mantissa, &q.mantissa))
		q.big = true;
	if (q.big)
	{
		q.n = n;
		q.mantissa = 0;
		q.scale = 0;
	}
	pfree(text);
	return q;
}

/* The sum as a numeric without trailing zeros, palloc'd. */
Numeric
cs_qty_to_numeric(const CsQty *q)
{
	if (q->big)
		return DatumGetNumeric(DirectFunctionCall1(numeric_trim_scale, NumericGetDatum(q->n)));
	if (q->scale == 0)
		return int64_to_numeric(q->mantissa);
	return DatumGetNumeric(DirectFunctionCall1(
		numeric_trim_scale, NumericGetDatum(int64_div_fast_to_numeric(q->mantissa, q->scale))));
}

/*
 * sum += q.  A big sum lives in cxt.  Raises 22003 only where numeric itself
 * would overflow.
 */
void
cs_qty_add(CsQty *sum, const CsQty *q, MemoryContext cxt)
{
	MemoryContext old;
	Numeric a;
	Numeric b;
	Numeric n;

	if (!q->has)
		return;
	if (!sum->has || (!sum->big && !q->big))
	{
		int64 x = sum->has ? sum->mantissa : 0;
		int64 y = q->mantissa;
		int scale = Max(sum->has ? sum->scale : 0, q->scale);

		if (!q->big &&
			!pg_mul_s64_overflow(x, power_of_ten[scale - (sum->has ? sum->scale : 0)], &x) &&
			!pg_mul_s64_overflow(y, power_of_ten[scale - q->scale], &y) &&
			!pg_add_s64_overflow(x, y, &x))
		{
			sum->has = true;
			sum->mantissa = x;
			sum->scale = scale;
			return;
		}
	}

	a = sum->has ? cs_qty_to_numeric(sum) : int64_to_numeric(0);
	b = cs_qty_to_numeric(q);
	old = MemoryContextSwitchTo(cxt);
	n = DatumGetNumeric(DirectFunctionCall2(numeric_add, NumericGetDatum(a), NumericGetDatum(b)));
	MemoryContextSwitchTo(old);
	pfree(a);
	pfree(b);
	if (sum->has && sum->big)
		pfree(sum->n);
	memset(sum, 0, sizeof(*sum));
	sum->has = true;
	sum->big = true;
	sum->n = n;
}

/* Append the one encoding of the sum (usage_value.h). */
void
cs_qty_encode(StringInfo buf, const CsQty *q)
{
	CsQty small;

	if (!q->has)
	{
		appendStringInfoCharMacro(buf, 0);
		return;
	}
	/* a big sum may have come back into range */
	small = q->big ? cs_qty_from_numeric(q->n) : *q;
	if (small.big)
	{
		Numeric n = cs_qty_to_numeric(q);
		char *text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(n)));

		appendStringInfoCharMacro(buf, (char) CS_USAGE_QTY_TEXT);
		cs_put_varint(buf, strlen(text));
		appendStringInfoString(buf, text);
		pfree(text);
		pfree(n);
		return;
	}
	strip_zeros(&small);
	appendStringInfoCharMacro(buf, (char) (1 + small.scale));
	cs_put_zigzag(buf, small.mantissa);
}
