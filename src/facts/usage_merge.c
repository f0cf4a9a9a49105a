/*
 * usage_merge.c
 *		Uniting encoded usage values without taking them apart.
 *
 * In: payloads (usage_value.h), each cut to a range of days.  Out: the one
 * encoding of their union.  All lists of a payload are sorted, so the union is
 * a merge: one walk through the events of all parts, one through their users,
 * with no more memory than a list of days.  Parts may be of one value: a value
 * without some days is its days before them and its days behind them.
 */
#include "cs_ext.h"

#include "common/int.h"
#include "facts/usage_value.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* One part on its way. */
typedef struct Walk
{
	CsUsageReader r;
	DateADT lo;
	DateADT hi;
	CsUsageString name; /* of the event or user it stands at */
	uint32 length;      /* of that one's list */
	uint32 left;        /* events or users from there on */
	uint32 event;       /* number of the event it stands at */
	int32 *place; /* event of the part -> event of the union, -1: none of its days are in range */
} Walk;

typedef struct Day
{
	DateADT day;
	int64 count;
	CsQty qty;
} Day;

typedef struct Chunk
{
	uint64 key; /* event of the union in the upper half, chunk moved to be positive */
	uint32 bits;
} Chunk;

typedef struct Lists
{
	Day *days;
	Chunk *chunks;
	uint32 ndays;
	uint32 nchunks;
	uint32 days_size;
	uint32 chunks_size;
} Lists;

#define CHUNK_BIAS ((int64) 1 << 31)

#define ST_SORT sort_days
#define ST_ELEMENT_TYPE Day
#define ST_COMPARE(a, b) ((a)->day < (b)->day ? -1 : (a)->day > (b)->day)
#define ST_SCOPE static
#define ST_DECLARE
#define ST_DEFINE
#include "lib/sort_template.h"

#define ST_SORT sort_chunks
#define ST_ELEMENT_TYPE Chunk
#define ST_COMPARE(a, b) ((a)->key < (b)->key ? -1 : (a)->key > (b)->key)
#define ST_SCOPE static
#define ST_DECLARE
#define ST_DEFINE
#include "lib/sort_template.h"

/* The walk that stands at the least name; NULL: all are at their end. */
static Walk *
least(Walk *walks, int n)
{
	Walk *found = NULL;

	for (int i = 0; i < n; i++)
	{
		if (walks[i].left > 0 &&
			(found == NULL || cs_compare_names(&walks[i].name, &found->name) < 0))
			found = &walks[i];
	}
	return found;
}

static void
next_event(Walk *w)
{
	if (w->left > 0)
		w->length = cs_usage_read_event(&w->r, &w->name);
}

static void
next_user(Walk *w)
{
	if (w->left > 0)
		w->length = cs_usage_read_user(&w->r, &w->name);
}

/* The days of the event that a walk stands at, those in its range. */
static void
take_days(Lists *l, Walk *w)
{
	while (w->length-- > 0)
	{
		Day *d;

		if (l->ndays == l->days_size)
		{
			l->days_size = Max(64, l->days_size * 2);
			l->days = l->days ? repalloc_huge(l->days, mul_size(sizeof(Day), l->days_size))
							  : palloc(sizeof(Day) * l->days_size);
		}
		d = &l->days[l->ndays];
		cs_usage_read_day(&w->r, &d->day, &d->count, &d->qty);
		l->ndays += (d->day >= w->lo && d->day < w->hi);
	}
}

/* One event of the union. */
static void
put_days(StringInfo buf, Lists *l, const CsUsageString *name)
{
	uint32 n = 0;
	bool has_qty = false;

	for (uint32 i = 0; i < l->ndays; i++)
	{
		Day *d = &l->days[i];

		if (n > 0 && l->days[n - 1].day == d->day)
		{
			if (pg_add_s64_overflow(l->days[n - 1].count, d->count, &l->days[n - 1].count))
				ereport(ERROR,
						(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
						 errmsg("count of usage events out of range"),
						 errdetail("The events of one kind on one day add up to more than a bigint "
								   "holds.")));
			cs_qty_add(&l->days[n - 1].qty, &d->qty, CurrentMemoryContext);
		}
		else
			l->days[n++] = *d;
		has_qty |= d->qty.has;
	}
	cs_put_name(buf, name->s, name->len);
	cs_put_varint(buf, (uint64) n * 2 + has_qty);
	for (uint32 i = 0; i < n; i++)
	{
		if (i == 0)
			cs_put_zigzag(buf, l->days[i].day);
		else
			cs_put_varint(buf, (int64) l->days[i].day - l->days[i - 1].day - 1);
		cs_put_zigzag(buf, l->days[i].count);
		if (has_qty)
			cs_qty_encode(buf, &l->days[i].qty);
	}
}

/* All events; returns how many, *min_day is the first day of any. */
static uint32
merge_events(StringInfo buf, Lists *l, Walk *walks, int n, DateADT *min_day)
{
	uint32 nevents = 0;
	Walk *w;

	for (int i = 0; i < n; i++)
	{
		walks[i].left = walks[i].r.nevents;
		walks[i].place = MemoryContextAllocHuge(CurrentMemoryContext,
												mul_size(sizeof(int32), walks[i].r.nevents + 1));
		next_event(&walks[i]);
	}
	while ((w = least(walks, n)) != NULL)
	{
		CsUsageString name = w->name;
		int taken = 0;

		CHECK_FOR_INTERRUPTS();
		l->ndays = 0;
		for (int i = w - walks; i < n; i++)
		{
			Walk *x = &walks[i];
			uint32 before = l->ndays;

			if (x->left == 0 || cs_compare_names(&x->name, &name) != 0)
				continue;
			take_days(l, x);
			taken += l->ndays > before;
			x->place[x->event++] = l->ndays > before ? (int32) nevents : -1;
			x->left--;
			next_event(x);
		}
		if (l->ndays == 0)
			continue;
		if (taken > 1)
			sort_days(l->days, l->ndays);
		put_days(buf, l, &name);
		*min_day = nevents == 0 ? l->days[0].day : Min(*min_day, l->days[0].day);
		nevents++;
	}
	return nevents;
}

/* What the user that a walk stands at did, in its range. */
static void
take_chunks(Lists *l, Walk *w)
{
	while (w->length-- > 0)
	{
		uint32 event;
		uint32 nchunks = cs_usage_read_user_event(&w->r, &event);

		while (nchunks-- > 0)
		{
			int32 chunk;
			uint32 bits;

			cs_usage_read_chunk(&w->r, &chunk, &bits);
			bits &= cs_chunk_mask(chunk, w->lo, w->hi);
			if (bits == 0 || w->place[event] < 0)
				continue;
			if (l->nchunks == l->chunks_size)
			{
				l->chunks_size = Max(64, l->chunks_size * 2);
				l->chunks = l->chunks
								? repalloc_huge(l->chunks, mul_size(sizeof(Chunk), l->chunks_size))
								: palloc(sizeof(Chunk) * l->chunks_size);
			}
			l->chunks[l->nchunks].key =
				((uint64) w->place[event] << 32) | (uint64) (chunk + CHUNK_BIAS);
			l->chunks[l->nchunks++].bits = bits;
		}
	}
}

/* One user of the union. */
static void
put_user(StringInfo buf, Lists *l, const CsUsageString *name, DateADT min_day)
{
	uint32 n = 0;
	uint32 nevents = 0;
	int64 last_event = -1;

	for (uint32 i = 0; i < l->nchunks; i++)
	{
		if (n > 0 && l->chunks[n - 1].key == l->chunks[i].key)
			l->chunks[n - 1].bits |= l->chunks[i].bits;
		else
			l->chunks[n++] = l->chunks[i];
	}
	for (uint32 i = 0; i < n; i++)
		nevents += i == 0 || l->chunks[i].key >> 32 != l->chunks[i - 1].key >> 32;
	cs_put_name(buf, name->s, name->len);
	cs_put_varint(buf, nevents);
	for (uint32 i = 0; i < n;)
	{
		uint32 event = l->chunks[i].key >> 32;
		uint32 ndays = 0;
		uint32 end = i;
		CsUsageDays days;

		while (end < n && l->chunks[end].key >> 32 == event)
			ndays += pg_popcount32(l->chunks[end++].bits);
		cs_put_days_head(&days, buf, event - last_event - 1, ndays, end - i, min_day);
		last_event = event;
		for (; i < end; i++)
			cs_put_days(&days, buf, (int64) (uint32) l->chunks[i].key - CHUNK_BIAS,
						l->chunks[i].bits);
	}
}

static uint32
merge_users(StringInfo buf, Lists *l, Walk *walks, int n, DateADT min_day)
{
	uint32 nusers = 0;
	Walk *w;

	for (int i = 0; i < n; i++)
	{
		cs_usage_read_users(&walks[i].r);
		walks[i].left = walks[i].r.nusers;
		next_user(&walks[i]);
	}
	while ((w = least(walks, n)) != NULL)
	{
		CsUsageString name = w->name;
		int taken = 0;

		CHECK_FOR_INTERRUPTS();
		l->nchunks = 0;
		for (int i = w - walks; i < n; i++)
		{
			Walk *x = &walks[i];
			uint32 before = l->nchunks;

			if (x->left == 0 || cs_compare_names(&x->name, &name) != 0)
				continue;
			take_chunks(l, x);
			taken += l->nchunks > before;
			x->left--;
			next_user(x);
		}
		if (l->nchunks == 0)
			continue;
		if (taken > 1)
			sort_chunks(l->chunks, l->nchunks);
		put_user(buf, l, &name, min_day);
		nusers++;
	}
	for (int i = 0; i < n; i++)
		cs_usage_read_end(&walks[i].r);
	return nusers;
}

/*
 * cs_usage_put_head: see usage_value.h.
 */
void
cs_usage_put_head(StringInfo buf, const CsUsageHead *head)
{
	appendStringInfoCharMacro(buf, CS_USAGE_VERSION);
	appendStringInfoCharMacro(buf, (head->stamped ? CS_USAGE_STAMPED : 0) |
									   (head->running ? CS_USAGE_RUNNING : 0) |
									   (head->has_instants ? CS_USAGE_INSTANTS : 0));
	if (head->stamped)
		cs_put_zigzag(buf, head->stamp);
	if (head->has_instants)
	{
		cs_put_zigzag(buf, head->first);
		cs_put_varint(buf, (uint64) head->last - (uint64) head->first);
	}
}

/*
 * cs_usage_merge: see usage_value.h.
 */
struct varlena *
cs_usage_merge(const CsUsagePart *parts, int n, const CsUsageHead *head)
{
	Walk *walks = palloc0(sizeof(Walk) * (n + 1));
	Lists lists = {0};
	CsUsageHead known = {0};
	CsUsageHead put;
	StringInfoData events;
	StringInfoData users;
	StringInfoData buf;
	DateADT min_day = 0;
	uint32 nevents;
	uint32 nusers;

	for (int i = 0; i < n; i++)
	{
		Walk *w = &walks[i];

		cs_usage_read(&w->r, parts[i].data, parts[i].len, ERRCODE_DATA_CORRUPTED);
		w->lo = parts[i].lo;
		w->hi = parts[i].hi;
		if (w->r.has_instants)
		{
			known.first = known.has_instants ? Min(known.first, w->r.first) : w->r.first;
			known.last = known.has_instants ? Max(known.last, w->r.last) : w->r.last;
			known.has_instants = true;
		}
	}
	put = head ? *head : known;

	initStringInfo(&events);
	initStringInfo(&users);
	nevents = merge_events(&events, &lists, walks, n, &min_day);
	nusers = merge_users(&users, &lists, walks, n, min_day);

	initStringInfo(&buf);
	enlargeStringInfo(&buf, events.len + users.len + 64);
	appendStringInfoSpaces(&buf, VARHDRSZ);
	put.has_instants &= nevents > 0;
	cs_usage_put_head(&buf, &put);
	cs_put_varint(&buf, nevents);
	appendBinaryStringInfo(&buf, events.data, events.len);
	cs_put_varint(&buf, nusers);
	appendBinaryStringInfo(&buf, users.data, users.len);

	pfree(events.data);
	pfree(users.data);
	for (int i = 0; i < n; i++)
		pfree(walks[i].place);
	pfree(walks);
	if (lists.days)
		pfree(lists.days);
	if (lists.chunks)
		pfree(lists.chunks);
	SET_VARSIZE(buf.data, buf.len);
	return (struct varlena *) buf.data;
}
