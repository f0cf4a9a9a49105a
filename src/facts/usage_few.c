/*
 * usage_few.c
 *		Few events of one customer, without tables.
 *
 * In: the events of a group of usage_agg.  Out: their one encoding, or all of them
 * into a builder, when they become many or have quantities.  A refresh groups
 * the events of a day by customer: mostly a handful, for which four hash tables,
 * sorting their contents and the memory of it were a twentieth of the refresh.
 */
#include "cs_ext.h"

#include "common/int.h"
#include "facts/usage_few.h"

static CsUsageString
name_of(const CsUsageFew *few, CsFewName name)
{
	return (CsUsageString){name.len < 0 ? NULL : few->names + name.at, Max(name.len, 0)};
}

static CsFewName
keep_name(CsUsageFew *few, const char *s, int len)
{
	CsFewName name = {few->used, len};

	if (len > 0)
	{
		memcpy(few->names + few->used, s, len);
		few->used += len;
	}
	return name;
}

/*
 * cs_few_add: see usage_few.h.
 */
bool
cs_few_add(CsUsageFew *few, DateADT day, TimestampTz at, const char *user, int user_len,
		   const char *event, int event_len, int64 count)
{
	CsFewEvent *e = &few->events[few->n];

	if (few->n == CS_FEW_EVENTS || user_len > CS_FEW_BYTES || event_len > CS_FEW_BYTES ||
		few->used + Max(user_len, 0) + Max(event_len, 0) > CS_FEW_BYTES)
		return false;
	e->day = day;
	e->count = count;
	e->user = keep_name(few, user, user_len);
	e->event = keep_name(few, event, event_len);
	few->first = few->n == 0 ? at : Min(few->first, at);
	few->last = few->n == 0 ? at : Max(few->last, at);
	few->n++;
	return true;
}

/*
 * cs_few_build: see usage_few.h.
 */
void
cs_few_build(const CsUsageFew *few, CsUsageBuild *b)
{
	for (int i = 0; i < few->n; i++)
	{
		const CsFewEvent *e = &few->events[i];
		CsUsageString user = name_of(few, e->user);
		CsUsageString event = name_of(few, e->event);
		CsQty none = {0};
		int event_id = cs_usage_event(b, event.s, event.len);
		int user_id = cs_usage_user(b, user.s, user.len);

		cs_usage_count(b, event_id, e->day, e->count, &none);
		cs_usage_mark(b, user_id, event_id, cs_chunk_of(e->day), cs_bit_of(e->day));
	}
	if (few->n > 0)
		cs_usage_instants(b, few->first, few->last);
}

/* Numbers names in their order; the same name has the same number.  Returns how many there are. */
static int
number_names(const CsUsageFew *few, bool users, int *number)
{
	CsUsageString names[CS_FEW_EVENTS];
	int n = 0;

	for (int i = 0; i < few->n; i++)
	{
		CsUsageString name = name_of(few, users ? few->events[i].user : few->events[i].event);
		int c = -1;
		int at = n;

		while (at > 0 && (c = cs_compare_names(&name, &names[at - 1])) < 0)
			at--;
		if (at > 0 && c == 0)
		{
			number[i] = at - 1;
			continue;
		}
		memmove(names + at + 1, names + at, sizeof(names[0]) * (n - at));
		names[at] = name;
		n++;
		for (int k = 0; k < i; k++)
			number[k] += number[k] >= at;
		number[i] = at;
	}
	return n;
}

/* Orders 0 .. n - 1 by keys. */
static void
order_by(const uint64 *key, int *order, int n)
{
	for (int i = 0; i < n; i++)
	{
		int at = i;

		while (at > 0 && key[order[at - 1]] > key[i])
		{
			order[at] = order[at - 1];
			at--;
		}
		order[at] = i;
	}
}

/* A day as a number that sorts as it does. */
static inline uint64
sortable(DateADT day)
{
	return (uint64) ((int64) day - CS_DAY_MIN);
}

static void
put_events(const CsUsageFew *few, StringInfo buf, const int *event, int nevents)
{
	uint64 key[CS_FEW_EVENTS];
	int order[CS_FEW_EVENTS];

	for (int i = 0; i < few->n; i++)
		key[i] = (uint64) event[i] << 32 | sortable(few->events[i].day);
	order_by(key, order, few->n);
	cs_put_varint(buf, nevents);
	for (int i = 0; i < few->n;)
	{
		int of = event[order[i]];
		CsUsageString name = name_of(few, few->events[order[i]].event);
		DateADT before = 0;
		bool first = true;
		int ndays = 0;

		for (int k = i; k < few->n && event[order[k]] == of; k++)
			ndays += k == i || key[order[k]] != key[order[k - 1]];
		cs_put_name(buf, name.s, name.len);
		cs_put_varint(buf, (uint64) ndays * 2);
		while (ndays-- > 0)
		{
			DateADT day = few->events[order[i]].day;
			uint64 same = key[order[i]];
			int64 count = 0;

			for (; i < few->n && key[order[i]] == same; i++)
				if (pg_add_s64_overflow(count, few->events[order[i]].count, &count))
					cs_usage_count_overflow();
			if (first)
				cs_put_zigzag(buf, day);
			else
				cs_put_varint(buf, (int64) day - before - 1);
			cs_put_zigzag(buf, count);
			before = day;
			first = false;
		}
	}
}

static void
put_users(const CsUsageFew *few, StringInfo buf, const int *event, DateADT min_day)
{
	int user[CS_FEW_EVENTS];
	uint64 key[CS_FEW_EVENTS];
	int order[CS_FEW_EVENTS];

	cs_put_varint(buf, number_names(few, true, user));
	for (int i = 0; i < few->n; i++)
		key[i] = (uint64) user[i] << 48 | (uint64) event[i] << 40 | sortable(few->events[i].day);
	order_by(key, order, few->n);
	for (int i = 0; i < few->n;)
	{
		int of = user[order[i]];
		CsUsageString name = name_of(few, few->events[order[i]].user);
		int last_event = -1;
		int nevents = 0;

		for (int k = i; k < few->n && user[order[k]] == of; k++)
			nevents += k == i || event[order[k]] != event[order[k - 1]];
		cs_put_name(buf, name.s, name.len);
		cs_put_varint(buf, nevents);
		while (nevents-- > 0)
		{
			int this_event = event[order[i]];
			int32 chunks[CS_FEW_EVENTS];
			uint32 bits[CS_FEW_EVENTS];
			int nchunks = 0;
			uint32 ndays = 0;
			CsUsageDays days;

			for (; i < few->n && user[order[i]] == of && event[order[i]] == this_event; i++)
			{
				DateADT day = few->events[order[i]].day;

				if (nchunks == 0 || chunks[nchunks - 1] != cs_chunk_of(day))
				{
					chunks[nchunks] = cs_chunk_of(day);
					bits[nchunks++] = 0;
				}
				bits[nchunks - 1] |= cs_bit_of(day);
			}
			for (int k = 0; k < nchunks; k++)
				ndays += pg_popcount32(bits[k]);
			cs_put_days_head(&days, buf, this_event - last_event - 1, ndays, nchunks, min_day);
			last_event = this_event;
			for (int k = 0; k < nchunks; k++)
				cs_put_days(&days, buf, chunks[k], bits[k]);
		}
	}
}

/*
 * cs_few_encode: see usage_few.h.
 */
struct varlena *
cs_few_encode(const CsUsageFew *few)
{
	CsUsageHead head = {.has_instants = true, .first = few->first, .last = few->last};
	int event[CS_FEW_EVENTS];
	int nevents = number_names(few, false, event);
	DateADT min_day = few->events[0].day;
	StringInfoData buf;

	for (int i = 1; i < few->n; i++)
		min_day = Min(min_day, few->events[i].day);
	initStringInfo(&buf);
	appendStringInfoSpaces(&buf, VARHDRSZ);
	cs_usage_put_head(&buf, &head);
	put_events(few, &buf, event, nevents);
	put_users(few, &buf, event, min_day);
	SET_VARSIZE(buf.data, buf.len);
	return (struct varlena *) buf.data;
}
