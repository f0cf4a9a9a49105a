/*
 * usage_build.c
 *		From rows, text or other values to one encoded usage value.
 *
 * Owns CsUsageBuild: the content of a value while it grows, in hash tables.
 * Counts and days come in through cs_usage_count and cs_usage_mark, whole
 * values through cs_usage_add; cs_usage_encode gives the one encoding of the
 * content (usage_value.h) and leaves the builder as it was.
 */
#include "cs_ext.h"

#include "common/hashfn.h"
#include "common/int.h"
#include "facts/usage_value.h"
#include "miscadmin.h"

/* ---- dictionaries, counts, marks -------------------------------------- */

typedef struct Word
{
	CsUsageString key;
	int id;
	char status;
} Word;

typedef struct CountKey
{
	int32 event;
	DateADT day;
} CountKey;

typedef struct Count
{
	CountKey key;
	char status;
	bool seen; /* scratch of cs_usage_fault */
	int64 count;
	CsQty qty;
} Count;

typedef struct MarkKey
{
	int32 user;
	int32 event;
	int32 chunk;
} MarkKey;

typedef struct Mark
{
	MarkKey key;
	uint32 bits;
	char status;
} Mark;

static inline uint32
hash_numbers(uint32 a, uint32 b, uint32 c)
{
	return hash_combine(murmurhash32(a), hash_combine(murmurhash32(b), murmurhash32(c)));
}

#define SH_PREFIX words
#define SH_ELEMENT_TYPE Word
#define SH_KEY_TYPE CsUsageString
#define SH_KEY key
#define SH_HASH_KEY(tb, k) hash_bytes((const unsigned char *) (k).s, (k).len)
#define SH_EQUAL(tb, a, b) ((a).len == (b).len && memcmp((a).s, (b).s, (a).len) == 0)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

#define SH_PREFIX counts
#define SH_ELEMENT_TYPE Count
#define SH_KEY_TYPE CountKey
#define SH_KEY key
#define SH_HASH_KEY(tb, k) hash_numbers((k).event, (k).day, 0)
#define SH_EQUAL(tb, a, b) ((a).event == (b).event && (a).day == (b).day)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

#define SH_PREFIX marks
#define SH_ELEMENT_TYPE Mark
#define SH_KEY_TYPE MarkKey
#define SH_KEY key
#define SH_HASH_KEY(tb, k) hash_numbers((k).user, (k).event, (k).chunk)
#define SH_EQUAL(tb, a, b) \
	((a).user == (b).user && (a).event == (b).event && (a).chunk == (b).chunk)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* Names in order of arrival; the id is the place. */
typedef struct Dictionary
{
	words_hash *hash;
	CsUsageString *names;
	int n;
	int allocated;
	int null_id; /* -1: NULL did not occur */
} Dictionary;

struct CsUsageBuild
{
	MemoryContext cxt;
	Dictionary events;
	Dictionary users;
	counts_hash *counts;
	marks_hash *marks;
	bool stamped;
	bool stamp_known; /* a value or caller said whether stamped */
	bool has_instants;
	bool running;
	DateADT stamp;
	TimestampTz first;
	TimestampTz last;
};

/* An empty builder whose memory is in cxt. */
CsUsageBuild *
cs_usage_build(MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	CsUsageBuild *b = palloc0(sizeof(CsUsageBuild));

	b->cxt = cxt;
	b->events.null_id = b->users.null_id = -1;
	b->events.hash = words_create(cxt, 4, NULL);
	b->users.hash = words_create(cxt, 4, NULL);
	b->counts = counts_create(cxt, 8, NULL);
	b->marks = marks_create(cxt, 8, NULL);
	MemoryContextSwitchTo(old);
	return b;
}

/* The id of a name, new or not; the bytes are copied. */
static int
word_id(CsUsageBuild *b, Dictionary *d, const char *s, int len)
{
	CsUsageString key = {s, len};
	Word *word = NULL;
	bool found;

	if (s == NULL)
	{
		if (d->null_id >= 0)
			return d->null_id;
		key.len = 0;
	}
	else
	{
		word = words_insert(d->hash, key, &found);
		if (found)
			return word->id;
	}

	if (d->n == d->allocated)
	{
		int more = Max(8, d->allocated * 2);
		Size size = mul_size(more, sizeof(CsUsageString));

		d->names = d->names ? repalloc_huge(d->names, size) : MemoryContextAllocHuge(b->cxt, size);
		d->allocated = more;
	}
	if (word)
	{
		char *copy = MemoryContextAlloc(b->cxt, len + 1);

		memcpy(copy, s, len);
		copy[len] = '\0';
		key.s = copy;
		word->key = key;
		word->id = d->n;
	}
	else
		d->null_id = d->n;
	d->names[d->n] = key;
	return d->n++;
}

int
cs_usage_event(CsUsageBuild *b, const char *s, int len)
{
	return word_id(b, &b->events, s, len);
}

int
cs_usage_user(CsUsageBuild *b, const char *s, int len)
{
	return word_id(b, &b->users, s, len);
}

void
cs_usage_count_overflow(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("count of usage events out of range"),
			 errdetail("The events of one kind on one day add up to more than a bigint holds.")));
}

/* Add to the count and quantity of an event on a day.  Raises 22003 when the count leaves int64. */
void
cs_usage_count(CsUsageBuild *b, int event, DateADT day, int64 count, const CsQty *q)
{
	CountKey key = {event, day};
	bool found;
	Count *c = counts_insert(b->counts, key, &found);

	if (!found)
	{
		c->count = 0;
		memset(&c->qty, 0, sizeof(CsQty));
	}
	if (pg_add_s64_overflow(c->count, count, &c->count))
		cs_usage_count_overflow();
	cs_qty_add(&c->qty, q, b->cxt);
}

/* Days of one chunk on which a user did an event. */
void
cs_usage_mark(CsUsageBuild *b, int user, int event, int32 chunk, uint32 bits)
{
	MarkKey key = {user, event, chunk};
	bool found;
	Mark *m;

	if (bits == 0)
		return;
	m = marks_insert(b->marks, key, &found);
	m->bits = found ? (m->bits | bits) : bits;
}

/* Widen [first, last]. */
void
cs_usage_instants(CsUsageBuild *b, TimestampTz first, TimestampTz last)
{
	b->first = b->has_instants ? Min(b->first, first) : first;
	b->last = b->has_instants ? Max(b->last, last) : last;
	b->has_instants = true;
}

/* Make the value one of accessors: stamped with D, without instants, with day D if running. */
void
cs_usage_set_stamp(CsUsageBuild *b, DateADT stamp, bool running)
{
	b->stamped = b->stamp_known = true;
	b->stamp = stamp;
	b->running = running;
	b->has_instants = false;
}

bool
cs_usage_has_count(CsUsageBuild *b, int event, DateADT day)
{
	CountKey key = {event, day};

	return counts_lookup(b->counts, key) != NULL;
}

/* ---- whole values ----------------------------------------------------- */

/* Values go together when both are unstamped or both have the same stamp: else 22023. */
void
cs_usage_same_stamps(const CsUsageReader *a, const CsUsageReader *b)
{
	if (a->stamped != b->stamped || a->running != b->running ||
		(a->stamped && a->stamp != b->stamp))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("usage values with different stamps cannot be united"),
						errdetail("One belongs to another day than the other, only one is stamped, "
								  "or only one knows the running day."),
						errhint("Unite values of the rollup first and stamp the union.")));
}

/* The same for a value and what is built, whose stamp the first value says. */
void
cs_usage_check_stamps(CsUsageBuild *b, struct varlena *value)
{
	CsUsageReader r;
	CsUsageReader known = {0};

	cs_usage_read_value(&r, value);
	known.stamped = b->stamped;
	known.running = b->running;
	known.stamp = b->stamp;
	if (b->stamp_known)
		cs_usage_same_stamps(&known, &r);
	b->stamp_known = true;
	b->stamped = r.stamped;
	b->stamp = r.stamp;
	b->running = r.running;
}

/*
 * Add the days in [lo, hi) of an encoded value, instants included; stamps are
 * the caller's business.
 */
void
cs_usage_add(CsUsageBuild *b, struct varlena *value, DateADT lo, DateADT hi)
{
	CsUsageReader r;
	CsUsageString name;
	int *event_ids;

	cs_usage_read_value(&r, value);
	if (r.has_instants)
		cs_usage_instants(b, r.first, r.last);
	event_ids = MemoryContextAllocHuge(CurrentMemoryContext, mul_size(r.nevents + 1, sizeof(int)));
	for (uint32 i = 0; i < r.nevents; i++)
	{
		uint32 ndays = cs_usage_read_event(&r, &name);
		DateADT day;
		int64 count;
		CsQty qty;

		CHECK_FOR_INTERRUPTS();
		event_ids[i] = cs_usage_event(b, name.s, name.len);
		while (ndays-- > 0)
		{
			cs_usage_read_day(&r, &day, &count, &qty);
			if (day >= lo && day < hi)
				cs_usage_count(b, event_ids[i], day, count, &qty);
		}
	}
	cs_usage_read_users(&r);
	for (uint32 i = 0; i < r.nusers; i++)
	{
		uint32 nevents = cs_usage_read_user(&r, &name);
		int user = cs_usage_user(b, name.s, name.len);

		CHECK_FOR_INTERRUPTS();
		while (nevents-- > 0)
		{
			uint32 event;
			uint32 nchunks = cs_usage_read_user_event(&r, &event);
			int32 chunk;
			uint32 bits;

			while (nchunks-- > 0)
			{
				cs_usage_read_chunk(&r, &chunk, &bits);
				cs_usage_mark(b, user, event_ids[event], chunk,
							  bits & cs_chunk_mask(chunk, lo, hi));
			}
		}
	}
	cs_usage_read_end(&r);
	pfree(event_ids);
}

/* The id of a name in another builder, -1: it is not there. */
static int
same_word(const Dictionary *d, const CsUsageString *name)
{
	Word *word;

	if (name->s == NULL)
		return d->null_id;
	word = words_lookup(d->hash, *name);
	return word ? word->id : -1;
}

static bool
same_quantity(const CsQty *a, const CsQty *b)
{
	StringInfoData x;
	StringInfoData y;
	bool same;

	if (!a->has || !b->has)
		return a->has == b->has;
	initStringInfo(&x);
	initStringInfo(&y);
	cs_qty_encode(&x, a);
	cs_qty_encode(&y, b);
	same = x.len == y.len && memcmp(x.data, y.data, x.len) == 0;
	pfree(x.data);
	pfree(y.data);
	return same;
}

/*
 * Take the content of one builder out of another's; why that cannot be told, NULL
 * when it is done.  Users are sets, so of an event on a day only all or nothing
 * can be taken: who was there both before and after is not known otherwise.
 */
const char *
cs_usage_take(CsUsageBuild *b, const CsUsageBuild *what)
{
	int *events = MemoryContextAllocHuge(b->cxt, mul_size(what->events.n + 1, sizeof(int)));
	int *users = MemoryContextAllocHuge(b->cxt, mul_size(what->users.n + 1, sizeof(int)));
	counts_iterator ci;
	marks_iterator mi;
	Count *c;
	Mark *m;

	for (int i = 0; i < what->events.n; i++)
		events[i] = same_word(&b->events, &what->events.names[i]);
	for (int i = 0; i < what->users.n; i++)
		users[i] = same_word(&b->users, &what->users.names[i]);
	counts_start_iterate(what->counts, &ci);
	while ((c = counts_iterate(what->counts, &ci)) != NULL)
	{
		CountKey key = {events[c->key.event], c->key.day};
		Count *mine = key.event < 0 ? NULL : counts_lookup(b->counts, key);

		if (mine == NULL)
			return "A day of an event in the second one is not in the first";
		if (mine->count != c->count || !same_quantity(&mine->qty, &c->qty))
			return "Only a part of a day of an event would go";
		counts_delete(b->counts, key);
	}
	marks_start_iterate(what->marks, &mi);
	while ((m = marks_iterate(what->marks, &mi)) != NULL)
	{
		MarkKey key = {users[m->key.user], events[m->key.event], m->key.chunk};
		Mark *mine = key.user < 0 ? NULL : marks_lookup(b->marks, key);

		if (mine == NULL || (m->bits & ~mine->bits) != 0)
			return "A day of a user in the second one is not in the first";
		mine->bits &= ~m->bits;
		if (mine->bits == 0)
			marks_delete(b->marks, key);
	}
	/* whoever is left on a day that went */
	marks_start_iterate(b->marks, &mi);
	while ((m = marks_iterate(b->marks, &mi)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		for (uint32 left = m->bits; left != 0; left &= left - 1)
		{
			CountKey key = {m->key.event, m->key.chunk * 32 + pg_rightmost_one_pos32(left)};

			if (counts_lookup(b->counts, key) == NULL)
				return "Only a part of the users of a day would go";
		}
	}
	return NULL;
}

/*
 * What is wrong with content that came from outside: every day of a user must
 * be counted and every counted day have a user, only an unstamped value with
 * content has instants, and a stamped one has no day after its stamp.
 */
const char *
cs_usage_fault(CsUsageBuild *b)
{
	counts_iterator ci;
	marks_iterator mi;
	Count *c;
	Mark *m;

	counts_start_iterate(b->counts, &ci);
	while ((c = counts_iterate(b->counts, &ci)) != NULL)
	{
		c->seen = false;
		if (c->key.day < CS_DAY_MIN || c->key.day >= CS_DAY_END)
			return "a day is out of range";
		if (b->stamped && (c->key.day > b->stamp || (c->key.day == b->stamp && !b->running)))
			return "a day does not lie before the stamp";
	}
	marks_start_iterate(b->marks, &mi);
	while ((m = marks_iterate(b->marks, &mi)) != NULL)
	{
		for (int i = 0; i < 32; i++)
		{
			CountKey key = {m->key.event, m->key.chunk * 32 + i};

			if ((m->bits & ((uint32) 1 << i)) == 0)
				continue;
			if ((c = counts_lookup(b->counts, key)) == NULL)
				return "a user is active on a day that has no count";
			c->seen = true;
		}
	}
	counts_start_iterate(b->counts, &ci);
	while ((c = counts_iterate(b->counts, &ci)) != NULL)
	{
		if (!c->seen)
			return "a counted day has no user";
	}
	if (b->running && !b->stamped)
		return "a running day is known without a stamp";
	if (b->has_instants != (!b->stamped && b->counts->members > 0))
		return "an unstamped value with events has a first and a last instant, no other has";
	if (b->has_instants && b->first > b->last)
		return "the first instant is later than the last";
	return NULL;
}

/* ---- encoding --------------------------------------------------------- */

static int
compare_names(const void *a, const void *b, void *arg)
{
	const CsUsageString *names = arg;
	const CsUsageString *x = &names[*(const int *) a];
	const CsUsageString *y = &names[*(const int *) b];
	int cmp;

	if (x->s == NULL || y->s == NULL)
		return (x->s != NULL) - (y->s != NULL);
	cmp = memcmp(x->s, y->s, Min(x->len, y->len));
	return cmp != 0 ? cmp : (x->len > y->len) - (x->len < y->len);
}

/* rank[id] for names that are used (-1 for others), order[rank] = id; returns how many. */
static int
rank_names(const Dictionary *d, const bool *used, int **rank, int **order)
{
	int n = 0;

	*rank = MemoryContextAllocHuge(CurrentMemoryContext, mul_size(d->n + 1, sizeof(int)));
	*order = MemoryContextAllocHuge(CurrentMemoryContext, mul_size(d->n + 1, sizeof(int)));
	for (int i = 0; i < d->n; i++)
	{
		(*rank)[i] = -1;
		if (used[i])
			(*order)[n++] = i;
	}
	qsort_arg(*order, n, sizeof(int), compare_names, d->names);
	for (int i = 0; i < n; i++)
		(*rank)[(*order)[i]] = i;
	return n;
}

static int
compare_counts(const void *a, const void *b)
{
	const CountKey *x = &(*(Count *const *) a)->key;
	const CountKey *y = &(*(Count *const *) b)->key;

	if (x->event != y->event)
		return x->event < y->event ? -1 : 1;
	return (x->day > y->day) - (x->day < y->day);
}

static int
compare_marks(const void *a, const void *b)
{
	const MarkKey *x = &((const Mark *) a)->key;
	const MarkKey *y = &((const Mark *) b)->key;

	if (x->user != y->user)
		return x->user < y->user ? -1 : 1;
	if (x->event != y->event)
		return x->event < y->event ? -1 : 1;
	return (x->chunk > y->chunk) - (x->chunk < y->chunk);
}

/* Counts of each event: `all` is sorted by event id, rank by rank they are written. */
static DateADT
put_events(StringInfo buf, const CsUsageBuild *b, Count **all, int n, const int *order, int nevents)
{
	int *start =
		MemoryContextAllocHuge(CurrentMemoryContext, mul_size(b->events.n + 1, sizeof(int)));
	DateADT min_day = 0;

	for (int i = 0, id = 0; id <= b->events.n; id++)
	{
		while (i < n && all[i]->key.event < id)
			i++;
		start[id] = i;
	}
	for (int i = 0; i < n; i++)
		min_day = i == 0 ? all[i]->key.day : Min(min_day, all[i]->key.day);

	cs_put_varint(buf, nevents);
	for (int e = 0; e < nevents; e++)
	{
		int id = order[e];
		bool has_qty = false;

		for (int i = start[id]; i < start[id + 1]; i++)
			has_qty |= all[i]->qty.has;
		cs_put_name(buf, b->events.names[id].s, b->events.names[id].len);
		cs_put_varint(buf, (uint64) (start[id + 1] - start[id]) * 2 + has_qty);
		for (int i = start[id]; i < start[id + 1]; i++)
		{
			if (i == start[id])
				cs_put_zigzag(buf, all[i]->key.day);
			else
				cs_put_varint(buf, (int64) all[i]->key.day - all[i - 1]->key.day - 1);
			cs_put_zigzag(buf, all[i]->count);
			if (has_qty)
				cs_qty_encode(buf, &all[i]->qty);
		}
	}
	pfree(start);
	return min_day;
}

/* Days of each user: marks carry ranks and are sorted. */
static void
put_users(StringInfo buf, const CsUsageBuild *b, const Mark *all, int n, const int *order,
		  int nusers, DateADT min_day)
{
	int i = 0;

	cs_put_varint(buf, nusers);
	for (int u = 0; u < nusers; u++)
	{
		int nevents = 0;
		int last_event = -1;

		for (int k = i; k < n && all[k].key.user == u; k++)
			nevents += (k == i || all[k].key.event != all[k - 1].key.event);
		cs_put_name(buf, b->users.names[order[u]].s, b->users.names[order[u]].len);
		cs_put_varint(buf, nevents);
		while (i < n && all[i].key.user == u)
		{
			int event = all[i].key.event;
			int nchunks = 0;
			uint32 ndays = 0;
			CsUsageDays days;

			while (i + nchunks < n && all[i + nchunks].key.user == u &&
				   all[i + nchunks].key.event == event)
				ndays += pg_popcount32(all[i + nchunks++].bits);
			cs_put_days_head(&days, buf, event - last_event - 1, ndays, nchunks, min_day);
			last_event = event;
			for (; nchunks > 0; nchunks--, i++)
				cs_put_days(&days, buf, all[i].key.chunk, all[i].bits);
		}
	}
}

/*
 * The one encoding of the content, palloc'd.  Names without any day left are
 * not written.
 */
struct varlena *
cs_usage_encode(CsUsageBuild *b)
{
	int ncounts = b->counts->members;
	int nmarks = b->marks->members;
	Count **counts =
		MemoryContextAllocHuge(CurrentMemoryContext, mul_size(ncounts + 1, sizeof(Count *)));
	Mark *marks = MemoryContextAllocHuge(CurrentMemoryContext, mul_size(nmarks + 1, sizeof(Mark)));
	bool *used = palloc0(Max(b->events.n, b->users.n) + 1);
	int *event_rank;
	int *event_order;
	int *user_rank;
	int *user_order;
	int nevents;
	int nusers;
	counts_iterator ci;
	marks_iterator mi;
	Count *c;
	Mark *m;
	DateADT min_day;
	StringInfoData buf;
	int n;

	counts_start_iterate(b->counts, &ci);
	for (n = 0; (c = counts_iterate(b->counts, &ci)) != NULL; n++)
	{
		counts[n] = c;
		used[c->key.event] = true;
	}
	nevents = rank_names(&b->events, used, &event_rank, &event_order);
	qsort(counts, n, sizeof(Count *), compare_counts);

	memset(used, 0, Max(b->events.n, b->users.n) + 1);
	marks_start_iterate(b->marks, &mi);
	for (n = 0; (m = marks_iterate(b->marks, &mi)) != NULL; n++)
	{
		marks[n] = *m;
		used[m->key.user] = true;
	}
	nusers = rank_names(&b->users, used, &user_rank, &user_order);
	CHECK_FOR_INTERRUPTS();
	for (int i = 0; i < nmarks; i++)
	{
		marks[i].key.user = user_rank[marks[i].key.user];
		marks[i].key.event = event_rank[marks[i].key.event];
	}
	qsort(marks, nmarks, sizeof(Mark), compare_marks);

	initStringInfo(&buf);
	appendStringInfoSpaces(&buf, VARHDRSZ);
	appendStringInfoCharMacro(&buf, CS_USAGE_VERSION);
	appendStringInfoCharMacro(&buf, (b->stamped ? CS_USAGE_STAMPED : 0) |
										(b->running ? CS_USAGE_RUNNING : 0) |
										(b->has_instants ? CS_USAGE_INSTANTS : 0));
	if (b->stamped)
		cs_put_zigzag(&buf, b->stamp);
	if (b->has_instants)
	{
		cs_put_zigzag(&buf, b->first);
		cs_put_varint(&buf, (uint64) b->last - (uint64) b->first);
	}
	min_day = put_events(&buf, b, counts, ncounts, event_order, nevents);
	CHECK_FOR_INTERRUPTS();
	put_users(&buf, b, marks, nmarks, user_order, nusers, min_day);

	pfree(counts);
	pfree(marks);
	pfree(used);
	pfree(event_rank);
	pfree(event_order);
	pfree(user_rank);
	pfree(user_order);
	SET_VARSIZE(buf.data, buf.len);
	return (struct varlena *) buf.data;
}
