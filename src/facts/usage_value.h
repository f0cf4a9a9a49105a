/*
 * usage_value.h
 *		The inside of a cs.usage value, shared by src/facts/usage_*.c.
 *
 * What a value says, of one customer: per (event, day) the count and the exact
 * decimal sum of quantities; per (user, event) the set of days.  NULL is an
 * event and a user of its own (rows without one), sorted before all others.
 * Every (event, day) has a count and at least one user, and the other way round.
 *
 * Payload of the varlena, version 1.  v: unsigned LEB128; z: zigzag LEB128;
 * string: v length + 1 (0 is NULL), then the bytes.
 *
 *	byte version, byte flags (1 stamped, 2 has instants, 4 knows the running day)
 *	[z stamp] [z first, v last - first]
 *	v number of events; each, in order:
 *		string, v (2 * number of days + has quantities)
 *		each day, ascending: first z day, later v distance - 1;
 *			z count; [quantity: byte 0 none, 1 + scale then z mantissa, 255 then
 *			v length and decimal text]
 *	v number of users; each, in order:
 *		string, v number of events; each, ascending:
 *			v (4 * distance + n), distance the index of the first, later from the
 *			last one - 1; n is the number of days where they are at most three,
 *			else 0
 *			n days: first v distance from the value's first day, later v distance - 1
 *			n = 0: v number of chunks; each: first v distance from the value's first
 *			chunk, later v distance - 1; v bits (32 days, chunk = floor(day / 32))
 *
 * One content has one encoding: strings by bytes, no empty lists, quantities
 * without trailing zeros and as text only where scale > 18 or the mantissa does
 * not fit an int64.  So equal bytes are equal values.  Days are DateADT.
 *
 * An unstamped value (the rollup) carries its first and last instant; a
 * stamped one (for accessors) carries D instead, whole days before it, and day D
 * only where the running day is known.
 */
#ifndef CS_USAGE_VALUE_H
#define CS_USAGE_VALUE_H

#include "cs_ext.h"

#include "port/pg_bitutils.h"
#include "utils/numeric.h"

#define CS_USAGE_VERSION 1
#define CS_USAGE_STAMPED 1
#define CS_USAGE_INSTANTS 2
#define CS_USAGE_RUNNING 4
#define CS_USAGE_SCALE_MAX 18
#define CS_USAGE_QTY_TEXT 255

#define DatumGetUsage(d) ((struct varlena *) PG_DETOAST_DATUM_PACKED(d))
#define PG_GETARG_USAGE(n) DatumGetUsage(PG_GETARG_DATUM(n))

/* ---- exact decimals (usage_quantity.c) -------------------------------- */

/* A sum of quantities: mantissa / 10^scale while that fits, else a numeric. */
typedef struct CsQty
{
	bool has; /* any quantity at all: a sum of nothing is NULL */
	bool big;
	uint8 scale;
	int64 mantissa;
	Numeric n; /* if big */
} CsQty;

extern CsQty cs_qty_from_numeric(Numeric n);
extern Numeric cs_qty_to_numeric(const CsQty *q);
extern void cs_qty_add(CsQty *sum, const CsQty *q, MemoryContext cxt);
extern void cs_qty_encode(StringInfo buf, const CsQty *q);

/* ---- building and encoding (usage_build.c) ---------------------------- */

typedef struct CsUsageBuild CsUsageBuild;

extern CsUsageBuild *cs_usage_build(MemoryContext cxt);
extern int cs_usage_event(CsUsageBuild *b, const char *s, int len); /* s NULL: NULL */
extern int cs_usage_user(CsUsageBuild *b, const char *s, int len);
extern void cs_usage_count(CsUsageBuild *b, int event, DateADT day, int64 count, const CsQty *q);
CS_NORETURN extern void cs_usage_count_overflow(void); /* raises 22003 */
extern void cs_usage_mark(CsUsageBuild *b, int user, int event, int32 chunk, uint32 bits);
extern void cs_usage_instants(CsUsageBuild *b, TimestampTz first, TimestampTz last);
extern void cs_usage_set_stamp(CsUsageBuild *b, DateADT stamp, bool running);

/* True when the event was counted on that day (input may not say it twice). */
extern bool cs_usage_has_count(CsUsageBuild *b, int event, DateADT day);

/* Take away; why that is not exact, NULL when it is done. */
extern const char *cs_usage_take(CsUsageBuild *b, const CsUsageBuild *what);

/* What makes the content no usage value, as a message; NULL when it is one. */
extern const char *cs_usage_fault(CsUsageBuild *b);
extern struct varlena *cs_usage_encode(CsUsageBuild *b);

/* Add the days [lo, hi) of an encoded value.  Raises 22023 when one is stamped and the other not, or on another day. */
extern void cs_usage_add(CsUsageBuild *b, struct varlena *value, DateADT lo, DateADT hi);
extern void cs_usage_check_stamps(CsUsageBuild *b, struct varlena *value);

/* ---- merging (usage_merge.c) ------------------------------------------ */

/* The days [lo, hi) of a payload. */
typedef struct CsUsagePart
{
	const char *data;
	Size len;
	DateADT lo;
	DateADT hi;
} CsUsagePart;

/* What stands before the content: a stamp, or instants (which no value without content has). */
typedef struct CsUsageHead
{
	bool stamped;
	bool running;
	bool has_instants;
	DateADT stamp;
	TimestampTz first;
	TimestampTz last;
} CsUsageHead;

/* A value up to its content. */
extern void cs_usage_put_head(StringInfo buf, const CsUsageHead *head);

/*
 * The union of the parts, encoded, palloc'd: the bytes that a builder with the
 * same content gives.  head NULL: unstamped, from the least to the greatest
 * instant of the parts, which is right where they are whole values.
 */
extern struct varlena *cs_usage_merge(const CsUsagePart *parts, int n, const CsUsageHead *head);

/* ---- reading (usage_read.c) ------------------------------------------- */

/* A walk over a payload, in the order of the layout; every step checks bounds. */
typedef struct CsUsageReader
{
	const uint8 *start;
	const uint8 *p;
	const uint8 *end;
	int sqlstate; /* of what is raised when it is damaged */
	bool stamped;
	bool has_instants;
	bool running; /* day D itself is known */
	DateADT stamp;
	TimestampTz first;
	TimestampTz last;
	uint32 nevents;
	uint32 nusers; /* after cs_usage_read_users */
	/* where the walk is */
	bool has_qty;
	bool fresh;  /* nothing read of the current list yet */
	bool listed; /* the days of a user's event are a list */
	int64 next;  /* in that list: the least that the next one can be */
	int64 day;
	int64 index;
	int64 chunk;
	DateADT min_day; /* of all days read */
} CsUsageReader;

typedef struct CsUsageString
{
	const char *s; /* NULL: SQL NULL; not terminated */
	int len;
} CsUsageString;

/* Order of names: NULL first, then by bytes. */
static inline int
cs_compare_names(const CsUsageString *a, const CsUsageString *b)
{
	int cmp;

	if (a->s == NULL || b->s == NULL)
		return (a->s != NULL) - (b->s != NULL);
	cmp = memcmp(a->s, b->s, Min(a->len, b->len));
	return cmp != 0 ? cmp : (a->len > b->len) - (a->len < b->len);
}

extern void cs_usage_read(CsUsageReader *r, const char *data, Size len, int sqlstate);
/* Only up to the instants and stamp; the rest may be cut off. */
extern void cs_usage_read_head(CsUsageReader *r, const char *data, Size len, int sqlstate);
extern void cs_usage_read_value(CsUsageReader *r, struct varlena *value);
extern void cs_usage_read_users(CsUsageReader *r);
extern void cs_usage_read_end(CsUsageReader *r);
extern void cs_usage_same_stamps(const CsUsageReader *a, const CsUsageReader *b);

/* ---- days in chunks of 32 --------------------------------------------- */

static inline int32
cs_chunk_of(DateADT day)
{
	return day >= 0 ? day / 32 : -((31 - day) / 32);
}

static inline uint32
cs_bit_of(DateADT day)
{
	return (uint32) 1 << (day - cs_chunk_of(day) * 32);
}

/* The bits of a chunk whose days are in [lo, hi). */
static inline uint32
cs_chunk_mask(int32 chunk, DateADT lo, DateADT hi)
{
	int64 from = (int64) lo - (int64) chunk * 32;
	int64 to = (int64) hi - (int64) chunk * 32;
	uint64 mask;

	if (to <= 0 || from >= 32 || to <= from)
		return 0;
	mask = to >= 32 ? PG_UINT32_MAX : (((uint64) 1 << to) - 1);
	if (from > 0)
		mask &= ~(((uint64) 1 << from) - 1);
	return (uint32) mask;
}

/* All days there are, as a half-open range. */
#define CS_DAY_MIN (DATETIME_MIN_JULIAN - POSTGRES_EPOCH_JDATE)
#define CS_DAY_END (DATE_END_JULIAN - POSTGRES_EPOCH_JDATE)

/* ---- steps of the walk that are taken for each day of each user ------- */

/* Raises: the value is no encoding; what: why. */
CS_NORETURN extern void cs_usage_damaged(const CsUsageReader *r, const char *what);
extern uint64 cs_usage_read_long_varint(CsUsageReader *r);
extern void cs_usage_read_qty(CsUsageReader *r, CsQty *q);

/* Most numbers are one byte. */
static inline uint64
cs_usage_read_varint(CsUsageReader *r)
{
	if (r->p < r->end && *r->p < 0x80)
		return *r->p++;
	return cs_usage_read_long_varint(r);
}

static inline int64
cs_usage_read_zigzag(CsUsageReader *r)
{
	uint64 v = cs_usage_read_varint(r);

	return (int64) (v >> 1) ^ -(int64) (v & 1);
}

/* The length of a list; each element takes at least a byte. */
static inline uint32
cs_usage_read_length(CsUsageReader *r)
{
	uint64 n = cs_usage_read_varint(r);

	if (n > (uint64) (r->end - r->p) || n > PG_INT32_MAX)
		cs_usage_damaged(r, "List longer than the value");
	return (uint32) n;
}

static inline void
cs_usage_read_name(CsUsageReader *r, CsUsageString *name)
{
	uint64 n = cs_usage_read_varint(r);

	name->s = NULL;
	name->len = 0;
	if (n == 0)
		return;
	if (n - 1 > (uint64) (r->end - r->p))
		cs_usage_damaged(r, "Name longer than the value");
	name->s = (const char *) r->p;
	name->len = (int) (n - 1);
	r->p += n - 1;
}

static inline DateADT
cs_usage_check_day(CsUsageReader *r, int64 day)
{
	if (day < CS_DAY_MIN || day >= CS_DAY_END)
		cs_usage_damaged(r, "Day out of range");
	return (DateADT) day;
}

/* Next event: its name and the number of its days, which must be read before the next step. */
static inline uint32
cs_usage_read_event(CsUsageReader *r, CsUsageString *name)
{
	uint64 n;

	cs_usage_read_name(r, name);
	n = cs_usage_read_varint(r);
	r->has_qty = n & 1;
	r->fresh = true;
	n >>= 1;
	if (n == 0 || n > (uint64) (r->end - r->p))
		cs_usage_damaged(r, "Wrong number of days");
	return (uint32) n;
}

/* Next day of the event.  A quantity beyond int64 is palloc'd. */
static inline void
cs_usage_read_day(CsUsageReader *r, DateADT *day, int64 *count, CsQty *q)
{
	*q = (CsQty){0};
	if (r->fresh)
		r->day = cs_usage_read_zigzag(r);
	else
	{
		uint64 distance = cs_usage_read_varint(r);

		if (distance > PG_UINT32_MAX)
			cs_usage_damaged(r, "Day out of range");
		r->day += 1 + (int64) distance;
	}
	r->fresh = false;
	*day = cs_usage_check_day(r, r->day);
	r->min_day = Min(r->min_day, *day);
	*count = cs_usage_read_zigzag(r);
	if (r->has_qty)
		cs_usage_read_qty(r, q);
}

/* Next user: the name and the number of its events. */
static inline uint32
cs_usage_read_user(CsUsageReader *r, CsUsageString *name)
{
	uint32 n;

	cs_usage_read_name(r, name);
	n = cs_usage_read_length(r);
	if (n == 0)
		cs_usage_damaged(r, "User without events");
	r->index = -1;
	return n;
}

/*
 * Next event of the user: its place among the events and the number of chunks of
 * days; one and the same may come several times, one after the other.  Where the
 * days are a list, each is a chunk.
 */
static inline uint32
cs_usage_read_user_event(CsUsageReader *r, uint32 *index)
{
	uint64 distance = cs_usage_read_varint(r);
	uint32 n = distance % 4;

	distance /= 4;
	if (distance >= r->nevents || r->index + 1 + (int64) distance >= r->nevents)
		cs_usage_damaged(r, "Event out of range");
	r->index += 1 + (int64) distance;
	*index = (uint32) r->index;
	r->listed = n > 0;
	if (r->listed)
	{
		r->next = r->min_day;
		return n;
	}
	n = cs_usage_read_length(r);
	if (n == 0)
		cs_usage_damaged(r, "User event without days");
	r->chunk = (int64) cs_chunk_of(r->min_day) - 1;
	return n;
}

/* Next chunk of the user's event. */
static inline void
cs_usage_read_chunk(CsUsageReader *r, int32 *chunk, uint32 *bits)
{
	uint64 distance = cs_usage_read_varint(r);
	uint64 days;

	if (distance > PG_UINT32_MAX)
		cs_usage_damaged(r, "Day out of range");
	if (r->listed)
	{
		DateADT day = cs_usage_check_day(r, r->next + (int64) distance);

		r->next = (int64) day + 1;
		*chunk = cs_chunk_of(day);
		*bits = cs_bit_of(day);
		return;
	}
	r->chunk += 1 + (int64) distance;
	if (r->chunk < cs_chunk_of(CS_DAY_MIN) || r->chunk > cs_chunk_of(CS_DAY_END - 1))
		cs_usage_damaged(r, "Day out of range");
	days = cs_usage_read_varint(r);
	if (days == 0 || days > PG_UINT32_MAX)
		cs_usage_damaged(r, "Wrong days of a chunk");
	*chunk = (int32) r->chunk;
	*bits = (uint32) days;
}

/* ---- writing ---------------------------------------------------------- */

/* LEB128 */
static inline void
cs_put_varint(StringInfo buf, uint64 v)
{
	char *at;

	if (buf->len + 10 >= buf->maxlen)
		enlargeStringInfo(buf, 10);
	at = buf->data + buf->len;
	while (v >= 0x80)
	{
		*at++ = (char) (v | 0x80);
		v >>= 7;
	}
	*at++ = (char) v;
	buf->len = at - buf->data;
}

static inline void
cs_put_zigzag(StringInfo buf, int64 v)
{
	cs_put_varint(buf, ((uint64) v << 1) ^ (v < 0 ? PG_UINT64_MAX : 0));
}

static inline void
cs_put_name(StringInfo buf, const char *s, int len)
{
	if (s == NULL)
		cs_put_varint(buf, 0);
	else
	{
		cs_put_varint(buf, (uint64) len + 1);
		appendBinaryStringInfoNT(buf, s, len);
	}
}

/* Days of a user's event, up to which they are a list. */
#define CS_USAGE_LISTED 3

typedef struct CsUsageDays
{
	bool listed;
	int64 next; /* least day or chunk that can come */
} CsUsageDays;

/* Begin the days of one event of a user: how many there are, in how many chunks. */
static inline void
cs_put_days_head(CsUsageDays *days, StringInfo buf, uint32 distance, uint32 ndays, uint32 nchunks,
				 DateADT min_day)
{
	days->listed = ndays <= CS_USAGE_LISTED;
	cs_put_varint(buf, (uint64) distance * 4 + (days->listed ? ndays : 0));
	if (days->listed)
		days->next = min_day;
	else
	{
		cs_put_varint(buf, nchunks);
		days->next = cs_chunk_of(min_day);
	}
}

/* The next chunk of them. */
static inline void
cs_put_days(CsUsageDays *days, StringInfo buf, int64 chunk, uint32 bits)
{
	if (!days->listed)
	{
		cs_put_varint(buf, chunk - days->next);
		cs_put_varint(buf, bits);
		days->next = chunk + 1;
		return;
	}
	for (; bits != 0; bits &= bits - 1)
	{
		int64 day = chunk * 32 + pg_rightmost_one_pos32(bits);

		cs_put_varint(buf, day - days->next);
		days->next = day + 1;
	}
}

/* One event of a user: the days of a month as bits. */
static inline void
cs_put_month_days(StringInfo buf, uint32 distance, uint32 days, DateADT month, DateADT min_day)
{
	int32 base = cs_chunk_of(month);
	uint64 wide = (uint64) days << (month - base * 32); /* a month touches at most two chunks */
	uint32 low = (uint32) wide;
	uint32 high = (uint32) (wide >> 32);
	CsUsageDays put;

	cs_put_days_head(&put, buf, distance, pg_popcount32(days), (low != 0) + (high != 0), min_day);
	if (low != 0)
		cs_put_days(&put, buf, base, low);
	if (high != 0)
		cs_put_days(&put, buf, base + 1, high);
}

#endif /* CS_USAGE_VALUE_H */
