/*
 * usage_read.c
 *		Walking through an encoded usage value, front to back.
 *
 * Owns CsUsageReader.  Nothing read is trusted: each step checks that it stays
 * inside the payload and in range, so a damaged or hostile value raises an
 * error (22P03 from binary input, XX001 for a stored value) and never more.
 */
#include "cs_ext.h"

#include "facts/usage_value.h"

void
cs_usage_damaged(const CsUsageReader *r, const char *what)
{
	ereport(ERROR, (errcode(r->sqlstate), errmsg("invalid binary form of cs.usage"),
					errdetail("%s at byte %zu of %zu.", what, (Size) (r->p - r->start),
							  (Size) (r->end - r->start))));
}

static uint8
read_byte(CsUsageReader *r)
{
	if (r->p >= r->end)
		cs_usage_damaged(r, "Unexpected end");
	return *r->p++;
}

uint64
cs_usage_read_long_varint(CsUsageReader *r)
{
	uint64 v = 0;

	for (int shift = 0; shift < 70; shift += 7)
	{
		uint8 byte = read_byte(r);

		if (shift == 63 && byte > 1)
			break;
		v |= (uint64) (byte & 0x7f) << shift;
		if ((byte & 0x80) == 0)
			return v;
	}
	cs_usage_damaged(r, "Number too large");
}

/* Begin the walk: the header up to the instants. */
void
cs_usage_read_head(CsUsageReader *r, const char *data, Size len, int sqlstate)
{
	uint8 version;
	uint8 flags;

	memset(r, 0, sizeof(*r));
	r->start = r->p = (const uint8 *) data;
	r->end = r->p + len;
	r->sqlstate = sqlstate;
	r->min_day = CS_DAY_END;

	version = read_byte(r);
	if (version != CS_USAGE_VERSION)
		ereport(ERROR, (errcode(sqlstate), errmsg("invalid binary form of cs.usage"),
						errdetail("Its format version is %d; this library knows version %d.",
								  version, CS_USAGE_VERSION)));
	flags = read_byte(r);
	if (flags & ~(CS_USAGE_STAMPED | CS_USAGE_INSTANTS | CS_USAGE_RUNNING))
		cs_usage_damaged(r, "Unknown flag");
	r->running = (flags & CS_USAGE_RUNNING) != 0;
	if (flags & CS_USAGE_STAMPED)
	{
		r->stamped = true;
		r->stamp = cs_usage_check_day(r, cs_usage_read_zigzag(r));
	}
	if (flags & CS_USAGE_INSTANTS)
	{
		uint64 span;

		r->has_instants = true;
		r->first = cs_usage_read_zigzag(r);
		span = cs_usage_read_varint(r);
		r->last = (TimestampTz) ((uint64) r->first + span);
		if (!IS_VALID_TIMESTAMP(r->first) || !IS_VALID_TIMESTAMP(r->last) || r->last < r->first)
			cs_usage_damaged(r, "Instant out of range");
	}
}

/* The whole header. */
void
cs_usage_read(CsUsageReader *r, const char *data, Size len, int sqlstate)
{
	cs_usage_read_head(r, data, len, sqlstate);
	r->nevents = cs_usage_read_length(r);
}

/* The same for a stored (detoasted) value. */
void
cs_usage_read_value(CsUsageReader *r, struct varlena *value)
{
	cs_usage_read(r, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), ERRCODE_DATA_CORRUPTED);
}

/* What stands behind the count of a day; a quantity beyond int64 is palloc'd. */
void
cs_usage_read_qty(CsUsageReader *r, CsQty *q)
{
	uint8 form = read_byte(r);

	if (form == CS_USAGE_QTY_TEXT)
	{
		uint32 len = cs_usage_read_length(r);
		char *text = pnstrdup((const char *) r->p, len);

		if (len == 0 || strspn(text, "-0123456789.") != len ||
			strspn(text + 1, "0123456789.") != len - 1)
			cs_usage_damaged(r, "Quantity that is no number");
		*q = cs_qty_from_numeric(DatumGetNumeric(DirectFunctionCall3(
			numeric_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1))));
		r->p += len;
		pfree(text);
	}
	else if (form > 1 + CS_USAGE_SCALE_MAX)
		cs_usage_damaged(r, "Unknown form of quantity");
	else if (form > 0)
	{
		q->has = true;
		q->scale = form - 1;
		q->mantissa = cs_usage_read_zigzag(r);
	}
}

/* After the last day of the last event: to the users. */
void
cs_usage_read_users(CsUsageReader *r)
{
	r->nusers = cs_usage_read_length(r);
}

/* The value must be over. */
void
cs_usage_read_end(CsUsageReader *r)
{
	if (r->p != r->end)
		cs_usage_damaged(r, "More than the value says");
}
