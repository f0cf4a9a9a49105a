/*
 * usage_encode.c
 *		Encoding what was gathered of a part of the customers.
 *
 * In: records (customer, user, event, instant) of a Pack.  Out: a run of entries
 * (usage_runs.h), each the one encoding of a customer's month, as usage_agg gives
 * it.  Records are placed by customer in one pass of counting; the groups are
 * small, so most are encoded by filling a small table instead of sorting.
 */
#include "cs_ext.h"

#include "common/int.h"
#include "facts/usage_pack.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "port/pg_bitutils.h"
#include "port/pg_bswap.h"
#include "utils/datetime.h"
#include "utils/memutils.h"

typedef struct SortItem
{
	uint64 key;
	uint32 at;
} SortItem;

#define ST_SORT sort_items
#define ST_ELEMENT_TYPE SortItem
#define ST_COMPARE(a, b) ((a)->key < (b)->key ? -1 : (a)->key > (b)->key)
#define ST_SCOPE static
#define ST_DECLARE
#define ST_DEFINE
#include "lib/sort_template.h"

/* Order of names: NULL first, then by bytes. */
static inline int
compare_names(const Label *a, const Label *b)
{
	int cmp;

	if (a->s == NULL || b->s == NULL)
		return (a->s != NULL) - (b->s != NULL);
	if (a->prefix != b->prefix)
		return a->prefix < b->prefix ? -1 : 1;
	if (a->len <= sizeof(uint64) && b->len <= sizeof(uint64))
		return 0;
	cmp = memcmp(a->s, b->s, Min(a->len, b->len));
	return cmp != 0 ? cmp : (a->len > b->len) - (a->len < b->len);
}

#define ST_SORT sort_names
#define ST_ELEMENT_TYPE uint32
#define ST_COMPARE_ARG_TYPE const Label
#define ST_COMPARE(a, b, names) compare_names(&(names)[*(a)], &(names)[*(b)])
#define ST_SCOPE static
#define ST_DECLARE
#define ST_DEFINE
#include "lib/sort_template.h"

#define ST_SORT sort_ranks
#define ST_ELEMENT_TYPE uint32
#define ST_COMPARE(a, b) (*(a) < *(b) ? -1 : *(a) > *(b))
#define ST_SCOPE static
#define ST_DECLARE
#define ST_DEFINE
#include "lib/sort_template.h"

/* ---- local days ----------------------------------------------------------- */

static inline int64
floor_div(int64 a, int64 b)
{
	return a >= 0 ? a / b : -((b - 1 - a) / b);
}

/* What is known of the zone on a UTC day. */
static void
fill_day(DaySlot *slot, int64 utc_day, pg_tz *zone)
{
	/* seconds since 1970 */
	pg_time_t start =
		(utc_day + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE)) * (pg_time_t) SECS_PER_DAY;
	long before;
	long after;
	int before_dst;
	int after_dst;
	pg_time_t boundary;
	int res =
		pg_next_dst_boundary(&start, &before, &before_dst, &boundary, &after, &after_dst, zone);

	slot->utc_day = utc_day;
	slot->filled = true;
	/* beyond these years the zone's table may not speak */
	slot->simple = (res == 0 || (res == 1 && boundary >= start + SECS_PER_DAY)) &&
				   utc_day > -36500 && utc_day < 13500;
	slot->offset = (int64) before * USECS_PER_SEC;
}

/* The same of any day, slowly. */
static DateADT
local_day_of(Pack *p, TimestampTz at)
{
	struct pg_tm tm;
	fsec_t fsec;
	int offset;

	if (timestamp2tm(at, &offset, &tm, &fsec, NULL, p->zone) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	return date2j(tm.tm_year, tm.tm_mon, tm.tm_mday) - POSTGRES_EPOCH_JDATE;
}

/* The local day of an instant. */
static inline DateADT
local_day(Pack *p, TimestampTz at)
{
	int64 utc_day = floor_div(at, USECS_PER_DAY);
	DaySlot *slot = &p->days[utc_day & (DAY_SLOTS - 1)];

	if (!slot->filled || slot->utc_day != utc_day)
		fill_day(slot, utc_day, p->zone);
	if (slot->simple)
		return (DateADT) floor_div(at + slot->offset, USECS_PER_DAY);
	return local_day_of(p, at);
}

/* ---- encoding ------------------------------------------------------------- */

/*
 * Names in order: all of them are sorted once; those of a group are found in a
 * table of all or, where that would be long, sorted as numbers.
 */
typedef struct Ranks
{
	const Label *labels;
	uint32 *order; /* label of a rank */
	uint32 *rank;  /* of a label */
	uint32 *group; /* which group a rank was last met in */
	uint32 *place; /* of a rank in that group */
	uint32 *met;   /* ranks of the group, in order after place_met */
	uint32 n;      /* of those */
	uint32 least;
	uint32 greatest;
} Ranks;

/* Records of a customer of one month, one after the other: there are few, for events come by time. */
typedef struct Stretch
{
	DateADT month;
	uint32 from;
	uint32 to;
} Stretch;

#define ST_SORT sort_stretches
#define ST_ELEMENT_TYPE Stretch
#define ST_COMPARE(a, b) ((a)->month < (b)->month ? -1 : (a)->month > (b)->month)
#define ST_SCOPE static
#define ST_DECLARE
#define ST_DEFINE
#include "lib/sort_template.h"

/* Scratch of encoding, grown as groups need it. */
typedef struct Scratch
{
	uint32 *items; /* records of a customer, by month */
	Stretch *stretches;
	SortItem *keys; /* of a group */
	DateADT *days;  /* of a customer's records */
	uint32 size;
	uint32 group;
	Ranks users;
	Ranks names;
	int64 dense[DENSE];
	uint32 bits[DENSE];
	uint64 masks[DENSE];
} Scratch;

static void
need_scratch(Scratch *w, uint32 n)
{
	if (n <= w->size)
		return;
	if (w->size > 0)
	{
		pfree(w->items);
		pfree(w->stretches);
		pfree(w->keys);
		pfree(w->days);
	}
	w->size = Max(n, 1024);
	w->items = MemoryContextAllocHuge(CurrentMemoryContext, mul_size(sizeof(uint32), w->size));
	w->stretches = MemoryContextAllocHuge(CurrentMemoryContext, mul_size(sizeof(Stretch), w->size));
	w->keys = MemoryContextAllocHuge(CurrentMemoryContext, mul_size(sizeof(SortItem), w->size));
	w->days = MemoryContextAllocHuge(CurrentMemoryContext, mul_size(sizeof(DateADT), w->size));
}

/*
 * All labels in order: by their prefixes, which stand in what is sorted and need
 * not be fetched, then those that have one in common.
 */
static void
order_names(uint32 *order, const Labels *d)
{
	SortItem *items =
		MemoryContextAllocHuge(CurrentMemoryContext, mul_size(sizeof(SortItem), d->n + 1));

	for (uint32 i = 0; i < d->n; i++)
	{
		items[i].key = d->labels[i].prefix;
		items[i].at = i;
	}
	sort_items(items, d->n);
	for (uint32 i = 0; i < d->n; i++)
		order[i] = items[i].at;
	for (uint32 i = 0; i < d->n;)
	{
		uint32 end = i + 1;

		while (end < d->n && items[end].key == items[i].key)
			end++;
		if (end > i + 1)
			sort_names(order + i, end - i, d->labels);
		i = end;
	}
	pfree(items);
}

static void
rank_all(Ranks *r, const Labels *d)
{
	Size bytes = mul_size(sizeof(uint32), d->n + 1);

	r->labels = d->labels;
	r->order = MemoryContextAllocHuge(CurrentMemoryContext, bytes);
	r->rank = MemoryContextAllocHuge(CurrentMemoryContext, bytes);
	r->group =
		MemoryContextAllocExtended(CurrentMemoryContext, bytes, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	r->place = MemoryContextAllocHuge(CurrentMemoryContext, bytes);
	r->met = MemoryContextAllocHuge(CurrentMemoryContext, bytes);
	order_names(r->order, d);
	for (uint32 i = 0; i < d->n; i++)
		r->rank[r->order[i]] = i;
}

static inline const Label *
met_label(const Ranks *r, uint32 place)
{
	return &r->labels[r->order[r->met[place]]];
}

static inline void
start_group(Ranks *r)
{
	r->n = 0;
	r->least = PG_UINT32_MAX;
	r->greatest = 0;
}

/* Add a name to those of the group, if it is not yet there. */
static inline void
meet(Ranks *r, uint32 rank, uint32 group)
{
	if (r->group[rank] != group)
	{
		r->group[rank] = group;
		r->met[r->n++] = rank;
		r->least = Min(r->least, rank);
		r->greatest = Max(r->greatest, rank);
	}
}

/* All of the group are met: give them their places. */
static void
place_met(Ranks *r, uint32 group)
{
	if (r->greatest - r->least < r->n * 4)
	{
		uint32 n = 0;

		for (uint32 rank = r->least; rank <= r->greatest; rank++)
		{
			/* stays where it is when it is none of the group */
			r->met[n] = rank;
			r->place[rank] = n;
			n += r->group[rank] == group;
			if (n == r->n)
				break;
		}
		return;
	}
	sort_ranks(r->met, r->n);
	for (uint32 i = 0; i < r->n; i++)
		r->place[r->met[i]] = i;
}

static inline void
put_name(StringInfo buf, const Label *name)
{
	uint64 bytes;

	if (name->s == NULL || name->len > sizeof(bytes))
	{
		cs_put_name(buf, name->s, name->len);
		return;
	}
	/* a short name stands in the label, which is at hand; its text need not be fetched */
	bytes = pg_hton64(name->prefix);
	cs_put_name(buf, (const char *) &bytes, name->len);
}

/* Adds one record to a count. */
static inline void
add_count(Pack *p, int64 *count, const Record *r)
{
	int64 n = r->extra ? p->extras[r->extra - 1].count : 1;

	if (pg_add_s64_overflow(*count, n, count))
		ereport(
			ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("count of usage events out of range"),
			 errdetail("The events of one kind on one day add up to more than a bigint holds.")));
}

static inline void
put_day(StringInfo buf, DateADT day, DateADT before, bool first, int64 count)
{
	if (first)
		cs_put_zigzag(buf, day);
	else
		cs_put_varint(buf, (int64) day - before - 1);
	cs_put_zigzag(buf, count);
}

/*
 * Events of a group without quantities whose table of events and days is small:
 * the usual case.
 */
static void
put_events_dense(Pack *p, StringInfo buf, Scratch *w, const Record *records, const uint32 *items,
				 uint32 n, DateADT month)
{
	uint32 nevents = w->names.n;
	int64 *counts = w->dense;
	uint32 *seen = w->bits;

	memset(counts, 0, sizeof(int64) * nevents * 31);
	memset(seen, 0, sizeof(uint32) * nevents);
	for (uint32 i = 0; i < n; i++)
	{
		const Record *r = &records[items[i]];
		uint32 event = w->names.place[r->event];
		uint32 day = w->days[items[i]] - month;

		add_count(p, &counts[event * 31 + day], r);
		seen[event] |= (uint32) 1 << day;
	}
	for (uint32 e = 0; e < nevents; e++)
	{
		DateADT before = 0;
		bool first = true;

		put_name(buf, met_label(&w->names, e));
		cs_put_varint(buf, (uint64) pg_popcount32(seen[e]) * 2);
		for (uint32 left = seen[e]; left != 0; left &= left - 1)
		{
			int day = pg_rightmost_one_pos32(left);

			put_day(buf, month + day, before, first, counts[e * 31 + day]);
			before = month + day;
			first = false;
		}
	}
}

/* Events of any group, by sorting. */
static void
put_events(Pack *p, StringInfo buf, Scratch *w, const Record *records, const uint32 *items,
		   uint32 n, DateADT month)
{
	for (uint32 i = 0; i < n; i++)
	{
		const Record *r = &records[items[i]];

		w->keys[i].key =
			((uint64) w->names.place[r->event] << 32) | (uint32) (w->days[items[i]] - month);
		w->keys[i].at = items[i];
	}
	sort_items(w->keys, n);
	for (uint32 i = 0; i < n;)
	{
		uint32 rank = w->keys[i].key >> 32;
		uint32 ndays = 0;
		bool has_qty = false;
		uint32 end;
		DateADT before = 0;
		bool first = true;

		for (end = i; end < n && w->keys[end].key >> 32 == rank; end++)
		{
			uint32 extra = records[w->keys[end].at].extra;

			ndays += (end == i || w->keys[end].key != w->keys[end - 1].key);
			has_qty |= extra && p->extras[extra - 1].qty.has;
		}
		put_name(buf, met_label(&w->names, rank));
		cs_put_varint(buf, (uint64) ndays * 2 + has_qty);
		while (i < end)
		{
			uint64 key = w->keys[i].key;
			DateADT day = month + (DateADT) (uint32) key;
			CsQty qty = {0};
			int64 count = 0;

			for (; i < end && w->keys[i].key == key; i++)
			{
				const Record *r = &records[w->keys[i].at];

				add_count(p, &count, r);
				if (r->extra)
					cs_qty_add(&qty, &p->extras[r->extra - 1].qty, CurrentMemoryContext);
			}
			put_day(buf, day, before, first, count);
			if (has_qty)
				cs_qty_encode(buf, &qty);
			before = day;
			first = false;
		}
	}
}

/* As cs_put_varint, where there is room. */
static inline char *
put_varint(char *to, uint64 v)
{
	while (v >= 0x80)
	{
		*to++ = (char) (v | 0x80);
		v >>= 7;
	}
	*to++ = (char) v;
	return to;
}

/*
 * One event of a user whose days are few, as cs_put_month_days has it: all of the
 * days are near the first one of the value, so each is one byte.
 */
static inline char *
put_few_days(char *to, uint32 distance, uint32 days, int ndays, int shift)
{
	int next = 0;

	to = put_varint(to, (uint64) distance * 4 + ndays);
	for (; days != 0; days &= days - 1)
	{
		int day = pg_rightmost_one_pos32(days) - shift;

		*to++ = (char) (day - next);
		next = day + 1;
	}
	return to;
}

/* Users of a group whose table of users and events is small, of at most 64 events. */
static void
put_users_dense(StringInfo buf, Scratch *w, const Record *records, const uint32 *items, uint32 n,
				DateADT month, DateADT min_day)
{
	uint32 nevents = w->names.n;
	uint32 nusers = w->users.n;
	uint32 *bits = w->bits;
	uint64 *masks = w->masks;

	memset(bits, 0, sizeof(uint32) * nevents * nusers);
	memset(masks, 0, sizeof(uint64) * nusers);
	for (uint32 i = 0; i < n; i++)
	{
		const Record *r = &records[items[i]];
		uint32 user = w->users.place[r->user];
		uint32 event = w->names.place[r->event];

		bits[user * nevents + event] |= (uint32) 1 << (w->days[items[i]] - month);
		masks[user] |= (uint64) 1 << event;
	}
	for (uint32 u = 0; u < nusers; u++, bits += nevents)
	{
		uint32 next = 0;

		put_name(buf, met_label(&w->users, u));
		cs_put_varint(buf, pg_popcount64(masks[u]));
		for (uint64 left = masks[u]; left != 0; left &= left - 1)
		{
			uint32 e = pg_rightmost_one_pos64(left);
			int ndays = pg_popcount32(bits[e]);

			if (ndays <= CS_USAGE_LISTED)
			{
				if (buf->len + 16 >= buf->maxlen)
					enlargeStringInfo(buf, 16);
				buf->len =
					put_few_days(buf->data + buf->len, e - next, bits[e], ndays, min_day - month) -
					buf->data;
			}
			else
				cs_put_month_days(buf, e - next, bits[e], month, min_day);
			next = e + 1;
		}
	}
}

/* Users of any group, by sorting; it has fewer than 2^28 records. */
static void
put_users(StringInfo buf, Scratch *w, const Record *records, const uint32 *items, uint32 n,
		  DateADT month, DateADT min_day)
{
	for (uint32 i = 0; i < n; i++)
	{
		const Record *r = &records[items[i]];

		w->keys[i].key = ((uint64) w->users.place[r->user] << 36) |
						 ((uint64) w->names.place[r->event] << 5) |
						 (uint32) (w->days[items[i]] - month);
	}
	sort_items(w->keys, n);
	for (uint32 i = 0; i < n;)
	{
		uint64 user = w->keys[i].key >> 36;
		uint32 user_events = 0;
		uint32 next = 0;
		uint32 end;

		for (end = i; end < n && w->keys[end].key >> 36 == user; end++)
			user_events += (end == i || w->keys[end].key >> 5 != w->keys[end - 1].key >> 5);
		put_name(buf, met_label(&w->users, user));
		cs_put_varint(buf, user_events);
		while (i < end)
		{
			uint64 event = w->keys[i].key >> 5;
			uint32 days = 0;

			for (; i < end && w->keys[i].key >> 5 == event; i++)
				days |= (uint32) 1 << (w->keys[i].key & 31);
			event &= ((uint64) 1 << 31) - 1;
			cs_put_month_days(buf, event - next, days, month, min_day);
			next = event + 1;
		}
	}
}

/* The payload of one group: n records, by `items`, of one customer and month. */
static void
encode_group(Pack *p, StringInfo buf, Scratch *w, const Record *records, const uint32 *items,
			 uint32 n, DateADT month)
{
	TimestampTz first = records[items[0]].at;
	TimestampTz last = first;
	DateADT min_day = w->days[items[0]];
	bool has_qty = false;

	w->group++;
	start_group(&w->names);
	start_group(&w->users);
	for (uint32 i = 0; i < n; i++)
	{
		const Record *r = &records[items[i]];

		first = Min(first, r->at);
		last = Max(last, r->at);
		min_day = Min(min_day, w->days[items[i]]);
		has_qty |= r->extra && p->extras[r->extra - 1].qty.has;
		meet(&w->names, r->event, w->group);
		meet(&w->users, r->user, w->group);
	}
	place_met(&w->names, w->group);
	place_met(&w->users, w->group);

	appendStringInfoCharMacro(buf, CS_USAGE_VERSION);
	appendStringInfoCharMacro(buf, CS_USAGE_INSTANTS);
	cs_put_zigzag(buf, first);
	cs_put_varint(buf, (uint64) last - (uint64) first);
	cs_put_varint(buf, w->names.n);
	if (!has_qty && w->names.n * 31 <= DENSE)
		put_events_dense(p, buf, w, records, items, n, month);
	else
		put_events(p, buf, w, records, items, n, month);
	cs_put_varint(buf, w->users.n);
	if (w->names.n <= 64 &&
		(uint64) w->users.n * w->names.n <= Min(DENSE, Max(1024, (uint64) n * 16)))
		put_users_dense(buf, w, records, items, n, month, min_day);
	else
		put_users(buf, w, records, items, n, month, min_day);
}

/* First day of the month of a day; *end: of the next one. */
static DateADT
month_of(DateADT day, DateADT *end)
{
	int year;
	int month;
	int mday;

	j2date(day + POSTGRES_EPOCH_JDATE, &year, &month, &mday);
	*end = date2j(month == 12 ? year + 1 : year, month == 12 ? 1 : month + 1, 1) -
		   POSTGRES_EPOCH_JDATE;
	return day - (mday - 1);
}

/* The records of one customer: a group for each month. */
static void
encode_customer(Pack *p, StringInfo buf, Scratch *w, const Label *id, const Record *records,
				uint32 n)
{
	DateADT month = 0;
	DateADT month_end = 0;
	uint32 nstretches = 0;
	uint32 nitems = 0;
	uint32 done = 0;

	need_scratch(w, n);
	for (uint32 i = 0; i < n; i++)
	{
		DateADT day = local_day(p, records[i].at);

		if (i == 0 || day < month || day >= month_end)
		{
			month = month_of(day, &month_end);
			w->stretches[nstretches].month = month;
			w->stretches[nstretches++].from = i;
		}
		w->days[i] = day;
		w->stretches[nstretches - 1].to = i + 1;
	}
	sort_stretches(w->stretches, nstretches);
	for (uint32 i = 0; i < nstretches; i++)
	{
		for (uint32 j = w->stretches[i].from; j < w->stretches[i].to; j++)
			w->items[nitems++] = j;
		month = w->stretches[i].month;
		if (i + 1 == nstretches || w->stretches[i + 1].month != month)
		{
			int at = cs_run_begin(buf, id->s, id->len, month);

			encode_group(p, buf, w, records, w->items + done, nitems - done, month);
			cs_run_end(buf, at);
			done = nitems;
		}
	}
}

static void
add_run(Pack *p, char *data, int64 len)
{
	if (p->nruns == p->runs_size)
	{
		p->runs_size = Max(8, p->runs_size * 2);
		p->runs = p->runs ? repalloc(p->runs, sizeof(Run) * p->runs_size)
						  : MemoryContextAlloc(p->cxt, sizeof(Run) * p->runs_size);
	}
	p->runs[p->nruns].data = data;
	p->runs[p->nruns++].len = len;
}

/* Records whose place is asked for ahead when they are placed. */
#define PLACES_AHEAD 16

/* Encode what was gathered as one run, and forget it. */
void
cs_pack_encode(Pack *p)
{
	MemoryContext scratch;
	MemoryContext old;
	Scratch *w;
	StringInfoData buf;
	uint32 *order;
	uint32 *start;
	Record *sorted;
	uint32 ncustomers;
	uint32 sum = 0;

	if (p->n == 0)
	{
		cs_pack_start_labels(p);
		return;
	}
	ncustomers = p->customers.n;
	old = MemoryContextSwitchTo(p->cxt);
	initStringInfo(&buf);
	scratch = AllocSetContextCreate(p->cxt, "cs_ext usage run", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(scratch);

	/* by customer, in order of their ids: one pass of counting, one of placing */
	order = palloc(sizeof(uint32) * (ncustomers + 1));
	start = palloc0(sizeof(uint32) * (ncustomers + 1));
	order_names(order, &p->customers);
	for (uint32 i = 0; i < p->n; i++)
		start[p->records[i].customer]++;
	for (uint32 i = 0; i < ncustomers; i++)
	{
		uint32 n = start[order[i]];

		start[order[i]] = sum;
		sum += n;
	}
	w = palloc0(sizeof(Scratch));
	rank_all(&w->users, &p->users);
	rank_all(&w->names, &p->names);
	if (p->n > p->sorted_size)
	{
		if (p->sorted)
			pfree(p->sorted);
		p->sorted_size = p->size;
		p->sorted = MemoryContextAllocHuge(p->cxt, mul_size(sizeof(Record), p->sorted_size));
	}
	sorted = p->sorted;
	for (uint32 i = 0; i < p->n; i++)
	{
		Record *r = &sorted[start[p->records[i].customer]++];

		if (i + PLACES_AHEAD < p->n)
			__builtin_prefetch(&sorted[start[p->records[i + PLACES_AHEAD].customer]], 1);
		*r = p->records[i];
		/* from here on ranks stand for users and events */
		r->user = w->users.rank[r->user];
		r->event = w->names.rank[r->event];
	}

	/* now start[] is where each one ends */
	sum = 0;
	for (uint32 i = 0; i < ncustomers; i++)
	{
		uint32 end = start[order[i]];

		CHECK_FOR_INTERRUPTS();
		if (end > sum)
			encode_customer(p, &buf, w, &p->customers.labels[order[i]], sorted + sum, end - sum);
		sum = end;
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	add_run(p, repalloc_huge(buf.data, Max(buf.len, 1)), buf.len);
	p->n = 0;
	cs_pack_start_labels(p);
}
