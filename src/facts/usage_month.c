/*
 * usage_month.c
 *		Uniting encoded values of one customer's month.
 *
 * In: payloads (usage_value.h) without stamp, all of one month, each cut to a
 * range of days.  Out: the one encoding of their union, as cs_usage_merge gives
 * it.  The days of a month are bits of one word, so nothing is sorted: the first
 * build comes here for most months of all customers, a change for most that it
 * writes.
 */
#include "cs_ext.h"

#include "common/int.h"
#include "facts/usage_month.h"
#include "miscadmin.h"

/* More events than that are left to cs_usage_merge. */
#define MONTH_EVENTS 1024
#define MONTH_PARTS 64
#define NOWHERE PG_UINT16_MAX

/* One part on its way. */
typedef struct Walk
{
	CsUsageReader r;
	CsUsageString name; /* of the event or user it stands at */
	uint32 length;      /* of that one's list */
	uint32 left;        /* events or users from there on */
	uint16 *place;      /* where its next event stands in the union, NOWHERE: not in it */
	uint32 range;       /* the days of the month that are taken */
	bool alike; /* a user of it alone, all of whose days are taken, is the same in the union */
	const uint8 *user; /* where the user it stands at begins */
} Walk;

struct CsMonthMerge
{
	StringInfoData events;
	StringInfoData users;
	Walk walks[MONTH_PARTS];
	int64 counts[31];
	uint32 bits[MONTH_EVENTS];
	uint16 places[MONTH_PARTS][MONTH_EVENTS];
};

CsMonthMerge *
cs_month_merge(void)
{
	CsMonthMerge *m = MemoryContextAllocZero(CurrentMemoryContext, sizeof(CsMonthMerge));

	initStringInfo(&m->events);
	initStringInfo(&m->users);
	return m;
}

void
cs_month_merge_end(CsMonthMerge *m)
{
	pfree(m->events.data);
	pfree(m->users.data);
	pfree(m);
}

/*
 * The least name that any walk stands at; *those: the walks that stand at it, as
 * bits.  False: all are at their end.
 */
static inline bool
least_name(const CsMonthMerge *m, int n, CsUsageString *name, uint64 *those)
{
	*those = 0;
	for (int i = 0; i < n; i++)
	{
		int cmp;

		if (m->walks[i].left == 0)
			continue;
		cmp = *those == 0 ? -1 : cs_compare_names(&m->walks[i].name, name);
		if (cmp < 0)
		{
			*name = m->walks[i].name;
			*those = 0;
		}
		if (cmp <= 0)
			*those |= UINT64CONST(1) << i;
	}
	return *those != 0;
}

/* The days of the month that lie in [lo, hi). */
static uint32
days_in(DateADT month, DateADT lo, DateADT hi)
{
	int64 from = Max((int64) lo - month, 0);
	int64 to = Min((int64) hi - month, 32);

	if (from >= to)
		return 0;
	return (uint32) ((UINT64CONST(1) << to) - (UINT64CONST(1) << from));
}

/* All events; returns how many, -1: not to be done here.  *min_day: the first day of any. */
static int
unite_events(CsMonthMerge *m, int n, DateADT month, DateADT *min_day)
{
	int nevents = 0;
	int first_day = 31;
	CsUsageString name = {NULL, 0};
	uint64 those;

	for (int i = 0; i < n; i++)
	{
		Walk *w = &m->walks[i];

		if (w->r.nevents > MONTH_EVENTS)
			return -1;
		w->left = w->r.nevents;
		w->place = m->places[i];
		if (w->left > 0)
			w->length = cs_usage_read_event(&w->r, &w->name);
	}
	while (least_name(m, n, &name, &those))
	{
		uint32 seen = 0;
		int before = -1;

		if (nevents == MONTH_EVENTS)
			return -1;
		for (; those != 0; those &= those - 1)
		{
			Walk *w = &m->walks[pg_rightmost_one_pos64(those)];
			bool taken = false;

			if (w->r.has_qty)
				return -1;
			while (w->length-- > 0)
			{
				DateADT day;
				int64 count;
				CsQty qty;

				cs_usage_read_day(&w->r, &day, &count, &qty);
				if (day < month || day - month >= 31)
					return -1;
				day -= month;
				if ((w->range & ((uint32) 1 << day)) == 0)
					continue;
				taken = true;
				if ((seen & ((uint32) 1 << day)) == 0)
					m->counts[day] = count;
				else if (pg_add_s64_overflow(m->counts[day], count, &m->counts[day]))
					return -1; /* cs_usage_merge says what is wrong */
				seen |= (uint32) 1 << day;
			}
			*w->place++ = taken ? nevents : NOWHERE;
			if (--w->left > 0)
				w->length = cs_usage_read_event(&w->r, &w->name);
		}
		if (seen == 0)
			continue;
		cs_put_name(&m->events, name.s, name.len);
		cs_put_varint(&m->events, (uint64) pg_popcount32(seen) * 2);
		first_day = Min(first_day, pg_rightmost_one_pos32(seen));
		for (; seen != 0; seen &= seen - 1)
		{
			int day = pg_rightmost_one_pos32(seen);

			if (before < 0)
				cs_put_zigzag(&m->events, month + day);
			else
				cs_put_varint(&m->events, day - before - 1);
			cs_put_zigzag(&m->events, m->counts[day]);
			before = day;
		}
		nevents++;
	}
	*min_day = month + first_day;
	return nevents;
}

/* Stand at the next user, if there is one. */
static inline void
next_user(Walk *w)
{
	w->user = w->r.p;
	if (w->left > 0)
		w->length = cs_usage_read_user(&w->r, &w->name);
}

/* The days of the month in what is read of one event of a user. */
static inline uint32
read_days(Walk *w, uint32 nchunks, int32 base, int shift)
{
	uint32 days = 0;

	while (nchunks-- > 0)
	{
		int32 chunk;
		uint32 bits;

		cs_usage_read_chunk(&w->r, &chunk, &bits);
		days |= (uint32) ((chunk > base ? (uint64) bits << 32 : bits) >> shift);
	}
	return days;
}

/*
 * Copies a user whom no other walk has and none of whose days is left out.  False:
 * some are, nothing is done.
 */
static bool
copy_user(CsMonthMerge *m, Walk *w, int32 base, int shift)
{
	CsUsageReader before = w->r;

	for (uint32 i = 0; i < w->length; i++)
	{
		uint32 event;
		uint32 nchunks = cs_usage_read_user_event(&w->r, &event);

		if ((read_days(w, nchunks, base, shift) & ~w->range) != 0)
		{
			w->r = before;
			return false;
		}
	}
	appendBinaryStringInfoNT(&m->users, (const char *) w->user, w->r.p - w->user);
	w->left--;
	next_user(w);
	return true;
}

/* All users; returns how many. */
static uint32
unite_users(CsMonthMerge *m, int n, DateADT month, DateADT min_day)
{
	int32 base = cs_chunk_of(month);
	int shift = month - base * 32;
	uint32 nusers = 0;
	CsUsageString name = {NULL, 0};
	uint64 those;

	for (int i = 0; i < n; i++)
	{
		Walk *w = &m->walks[i];

		w->place = m->places[i];
		/* days are said from the first one on, events by their places */
		w->alike = w->r.min_day == min_day;
		for (uint32 e = 0; e < w->r.nevents; e++)
			w->alike &= w->place[e] == e;
		cs_usage_read_users(&w->r);
		w->left = w->r.nusers;
		next_user(w);
	}
	while (least_name(m, n, &name, &those))
	{
		int low = MONTH_EVENTS;
		int high = -1;
		uint32 nevents = 0;
		uint32 next = 0;

		CHECK_FOR_INTERRUPTS();
		if ((those & (those - 1)) == 0)
		{
			Walk *w = &m->walks[pg_rightmost_one_pos64(those)];

			if (w->alike && copy_user(m, w, base, shift))
			{
				nusers++;
				continue;
			}
		}
		for (; those != 0; those &= those - 1)
		{
			Walk *w = &m->walks[pg_rightmost_one_pos64(those)];

			while (w->length-- > 0)
			{
				uint32 event;
				uint32 nchunks = cs_usage_read_user_event(&w->r, &event);
				int place = w->place[event];
				uint32 days = read_days(w, nchunks, base, shift) & w->range;

				if (days == 0 || place == NOWHERE)
					continue;
				/* of those between, none has been met */
				for (; low > place && high >= 0; low--)
					m->bits[low - 1] = 0;
				for (; high < place && high >= 0; high++)
					m->bits[high + 1] = 0;
				if (high < 0)
				{
					low = high = place;
					m->bits[place] = 0;
				}
				nevents += m->bits[place] == 0;
				m->bits[place] |= days;
			}
			w->left--;
			next_user(w);
		}
		if (nevents == 0)
			continue;
		cs_put_name(&m->users, name.s, name.len);
		cs_put_varint(&m->users, nevents);
		for (int e = low; e <= high; e++)
		{
			if (m->bits[e] == 0)
				continue;
			cs_put_month_days(&m->users, e - next, m->bits[e], month, min_day);
			next = e + 1;
		}
		nusers++;
	}
	for (int i = 0; i < n; i++)
		cs_usage_read_end(&m->walks[i].r);
	return nusers;
}

/*
 * cs_month_unite: see usage_month.h.
 */
bool
cs_month_unite(CsMonthMerge *m, StringInfo buf, const CsUsagePart *parts, int n, DateADT month,
			   const CsUsageHead *head)
{
	TimestampTz first = DT_NOEND;
	TimestampTz last = DT_NOBEGIN;
	DateADT min_day;
	int nevents;
	int nwalks = 0;
	uint32 nusers;

	if (n > MONTH_PARTS)
		return false;
	for (int i = 0; i < n; i++)
	{
		uint32 range = days_in(month, parts[i].lo, parts[i].hi);
		CsUsageReader *r;

		if (i > 0 && parts[i].data == parts[i - 1].data)
		{
			/* its days before some and behind them: walked through once */
			m->walks[nwalks - 1].range |= range;
			continue;
		}
		r = &m->walks[nwalks].r;
		cs_usage_read(r, parts[i].data, parts[i].len, ERRCODE_DATA_CORRUPTED);
		if (!r->has_instants || r->stamped || r->nevents == 0)
			return false;
		first = Min(first, r->first);
		last = Max(last, r->last);
		m->walks[nwalks++].range = range;
	}
	if (head != NULL)
	{
		first = head->first;
		last = head->last;
	}
	resetStringInfo(&m->events);
	resetStringInfo(&m->users);
	nevents = unite_events(m, nwalks, month, &min_day);
	if (nevents <= 0)
		return false;
	nusers = unite_users(m, nwalks, month, min_day);

	appendStringInfoCharMacro(buf, CS_USAGE_VERSION);
	appendStringInfoCharMacro(buf, CS_USAGE_INSTANTS);
	cs_put_zigzag(buf, first);
	cs_put_varint(buf, (uint64) last - (uint64) first);
	cs_put_varint(buf, nevents);
	appendBinaryStringInfoNT(buf, m->events.data, m->events.len);
	cs_put_varint(buf, nusers);
	appendBinaryStringInfoNT(buf, m->users.data, m->users.len);
	return true;
}
