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

CS_NORETURN static void
damaged(const CsUsageReader *r, const char *what)
{
	ereport(ERROR, (errcode(r->sqlstate), errmsg("invalid binary form of cs.usage"),
					errdetail("%s at byte %zu of %zu.", what, (Size) (r->p - r->start),
							  (Size) (r->end - r->start))));
}

static uint8
read_byte(CsUsageReader *r)
{
	if (r->p >= r->end)
		damaged(r, "Unexpected end");
	return *r->p++;
}

static pg_noinline uint64
read_long_varint(CsUsageReader *r)
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
	damaged(r, "Number too large");
}

/* Most numbers are one byte. */
static inline uint64
read_varint(CsUsageReader *r)
{
	if (r->p < r->end && *r->p < 0x80)
		return *r->p++;
	return read_long_varint(r);
}

static inline int64
read_zigzag(CsUsageReader *r)
{
	uint64 v = read_varint(r);

	return (int64) (v >> 1) ^ -(int64) (v & 1);
}

/* The length of a list; each element takes at least a byte. */
static uint32
read_length(CsUsageReader *r)
{
	uint64 n = read_varint(r);

	if (n > (uint64) (r->end - r->p) || n > PG_INT32_MAX)
		damaged(r, "List longer than the value");
	return (uint32) n;
}

static void
read_name(CsUsageReader *r, CsUsageString *name)
{
	uint64 n = read_varint(r);

	name->s = NULL;
	name->len = 0;
	if (n == 0)
		return;
	if (n - 1 > (uint64) (r->end - r->p))
		damaged(r, "Name longer than the value");
	name->s = (const char *) r->p;
	name->len = (int) (n - 1);
	r->p += n - 1;
}

static DateADT
check_day(CsUsageReader *r, int64 day)
{
	if (day < CS_DAY_MIN || day >= CS_DAY_END)
		damaged(r, "Day out of range");
	return (DateADT) day;
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
		damaged(r, "Unknown flag");
	r->running = (flags & CS_USAGE_RUNNING) != 0;
	if (flags & CS_USAGE_STAMPED)
	{
		r->stamped = true;
		r->stamp = check_day(r, read_zigzag(r));
	}
	if (flags & CS_USAGE_INSTANTS)
	{
		uint64 span;

		r->has_instants = true;
		r->first = read_zigzag(r);
		span = read_varint(r);
		r->last = (TimestampTz) ((uint64) r->first + span);
		if (!IS_VALID_TIMESTAMP(r->first) || !IS_VALID_TIMESTAMP(r->last) || r->last < r->first)
			damaged(r, "Instant out of range");
	}
}

/* The whole header. */
void
cs_usage_read(CsUsageReader *r, const char *data, Size len, int sqlstate)
{
	cs_usage_read_head(r, data, len, sqlstate);
	r->nevents = read_length(r);
}

/* The same for a stored (detoasted) value. */
void
cs_usage_read_value(CsUsageReader *r, struct varlena *value)
{
	cs_usage_read(r, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), ERRCODE_DATA_CORRUPTED);
}

/* Next event: its name and the number of its days, which must be read before the next step. */
uint32
cs_usage_read_event(CsUsageReader *r, CsUsageString *name)
{
	uint64 n;

	read_name(r, name);
	n = read_varint(r);
	r->has_qty = n & 1;
	r->fresh = true;
	n >>= 1;
	if (n == 0 || n > (uint64) (r->end - r->p))
		damaged(r, "Wrong number of days");
	return (uint32) n;
}

/* Next day of the event.  A quantity beyond int64 is palloc'd. */
void
cs_usage_read_day(CsUsageReader *r, DateADT *day, int64 *count, CsQty *q)
{
	memset(q, 0, sizeof(*q));
	if (r->fresh)
		r->day = read_zigzag(r);
	else
	{
		uint64 distance = read_varint(r);

		if (distance > PG_UINT32_MAX)
			damaged(r, "Day out of range");
		r->day += 1 + (int64) distance;
	}
	r->fresh = false;
	*day = check_day(r, r->day);
	r->min_day = Min(r->min_day, *day);
	*count = read_zigzag(r);
	if (r->has_qty)
	{
		uint8 form = read_byte(r);

		if (form == CS_USAGE_QTY_TEXT)
		{
			uint32 len = read_length(r);
			char *text = pnstrdup((const char *) r->p, len);

			if (len == 0 || strspn(text, "-0123456789.") != len ||
				strspn(text + 1, "0123456789.") != len - 1)
				damaged(r, "Quantity that is no number");
			*q = cs_qty_from_numeric(DatumGetNumeric(
				DirectFunctionCall3(numeric_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid),
									Int32GetDatum(-1))));
			r->p += len;
			pfree(text);
		}
		else if (form > 1 + CS_USAGE_SCALE_MAX)
			damaged(r, "Unknown form of quantity");
		else if (form > 0)
		{
			q->has = true;
			q->scale = form - 1;
			q->mantissa = read_zigzag(r);
		}
	}
}

/* After the last day of the last event: to the users. */
void
cs_usage_read_users(CsUsageReader *r)
{
	r->nusers = read_length(r);
}

/* Next user: the name and the number of its events. */
uint32
cs_usage_read_user(CsUsageReader *r, CsUsageString *name)
{
	uint32 n;

	read_name(r, name);
	n = read_length(r);
	if (n == 0)
		damaged(r, "User without events");
	r->index = -1;
	return n;
}

/*
 * Next event of the user: its place among the events and the number of chunks of
 * days.  Where the days are a list, each is a chunk.
 */
uint32
cs_usage_read_user_event(CsUsageReader *r, uint32 *index)
{
	uint64 distance = read_varint(r);
	uint32 n = distance % 4;

	distance /= 4;
	if (distance >= r->nevents || r->index + 1 + (int64) distance >= r->nevents)
		damaged(r, "Event out of range");
	r->index += 1 + (int64) distance;
	*index = (uint32) r->index;
	r->listed = n > 0;
	if (r->listed)
	{
		r->next = r->min_day;
		return n;
	}
	n = read_length(r);
	if (n == 0)
		damaged(r, "User event without days");
	r->chunk = (int64) cs_chunk_of(r->min_day) - 1;
	return n;
}

/* Next chunk of the user's event. */
void
cs_usage_read_chunk(CsUsageReader *r, int32 *chunk, uint32 *bits)
{
	uint64 distance = read_varint(r);
	uint64 days;

	if (distance > PG_UINT32_MAX)
		damaged(r, "Day out of range");
	if (r->listed)
	{
		DateADT day = check_day(r, r->next + (int64) distance);

		r->next = (int64) day + 1;
		*chunk = cs_chunk_of(day);
		*bits = cs_bit_of(day);
		return;
	}
	r->chunk += 1 + (int64) distance;
	if (r->chunk < cs_chunk_of(CS_DAY_MIN) || r->chunk > cs_chunk_of(CS_DAY_END - 1))
		damaged(r, "Day out of range");
	days = read_varint(r);
	if (days == 0 || days > PG_UINT32_MAX)
		damaged(r, "Wrong days of a chunk");
	*chunk = (int32) r->chunk;
	*bits = (uint32) days;
}

/* The value must be over. */
void
cs_usage_read_end(CsUsageReader *r)
{
	if (r->p != r->end)
		damaged(r, "More than the value says");
}
