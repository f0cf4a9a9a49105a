/*
 * usage_access.c
 *		What a stamped usage value answers: the accessors of metrics, and its rows.
 *
 * D is the stamp moved back by `ago`.  A window of n days is [D - n, D), and
 * with `today` also D itself.  NULL as event is any event.
 */
#include "cs_ext.h"

#include "common/int.h"
#include "facts/usage_value.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"

#define CS_WINDOW_MAX 400
/* Chunks that a window and its running day can touch. */
#define CS_WINDOW_CHUNKS (CS_WINDOW_MAX / 32 + 3)

typedef struct Window
{
	CsUsageReader r;
	DateADT lo;
	DateADT hi;
	int days; /* in [lo, hi) */
	bool any_event;
	CsUsageString event;
} Window;

/* Start reading a stamped value; 22023 when it has no stamp. */
static void
read_stamped(CsUsageReader *r, struct varlena *value)
{
	cs_usage_read_value(r, value);
	if (!r->stamped)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("usage value is not stamped with a day"),
						errdetail("Accessors count days back from the day of as_of, which this "
								  "value does not carry."),
						errhint("In a metric of source \"usage\" the column usage is stamped; "
								"elsewhere stamp with cs.usage_at(usage, day).")));
}

/* today => true asks for day D itself: 22023 where the value does not know it. */
static void
need_running(const CsUsageReader *r, int back)
{
	if (back == 0 && !r->running)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("usage value does not know its running day"),
				 errdetail("The running day is read only for metrics that name the argument."),
				 errhint("Write today => true, with its name.")));
}

static void
set_event(Window *w, FunctionCallInfo fcinfo, int arg)
{
	w->any_event = PG_ARGISNULL(arg);
	if (!w->any_event)
	{
		text *event = PG_GETARG_TEXT_PP(arg);

		w->event.s = VARDATA_ANY(event);
		w->event.len = VARSIZE_ANY_EXHDR(event);
	}
}

/*
 * The window that the arguments say.  False: an argument is NULL, so is the
 * answer.  22023 for days outside 1..400 and ago outside 0..400.
 */
static bool
open_window(Window *w, FunctionCallInfo fcinfo, int event, int days, int ago)
{
	int n;
	int back;

	memset(w, 0, sizeof(*w));
	if (PG_ARGISNULL(0) || PG_ARGISNULL(days) || PG_ARGISNULL(ago) || PG_ARGISNULL(ago + 1))
		return false;
	n = PG_GETARG_INT32(days);
	back = PG_GETARG_INT32(ago);
	if (n < 1 || n > CS_WINDOW_MAX)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("window of %d days is out of range", n),
						errhint("A window has 1 to %d days.", CS_WINDOW_MAX)));
	if (back < 0 || back > CS_WINDOW_MAX)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("ago of %d days is out of range", back),
						errhint("A window ends 0 to %d days ago.", CS_WINDOW_MAX)));
	read_stamped(&w->r, PG_GETARG_USAGE(0));
	w->hi = w->r.stamp - back + (PG_GETARG_BOOL(ago + 1) ? 1 : 0);
	if (PG_GETARG_BOOL(ago + 1))
		need_running(&w->r, back);
	w->lo = w->r.stamp - back - n;
	w->days = w->hi - w->lo;
	w->any_event = true;
	if (event > 0)
		set_event(w, fcinfo, event);
	return true;
}

static bool
wanted(const Window *w, const CsUsageString *name)
{
	return w->any_event || (name->s != NULL && name->len == w->event.len &&
							memcmp(name->s, w->event.s, name->len) == 0);
}

/* Read past all days of all events; returns the place of the wanted event, -1: it is not there. */
static int64
skip_events(Window *w)
{
	int64 found = -1;

	for (uint32 i = 0; i < w->r.nevents; i++)
	{
		CsUsageString name;
		uint32 ndays = cs_usage_read_event(&w->r, &name);
		DateADT day;
		int64 count;
		CsQty qty;

		if (!w->any_event && wanted(w, &name))
			found = i;
		while (ndays-- > 0)
			cs_usage_read_day(&w->r, &day, &count, &qty);
	}
	return found;
}

PG_FUNCTION_INFO_V1(cs_usage_events);

/* events(usage, event, days, ago, today): events counted in the window. */
Datum
cs_usage_events(PG_FUNCTION_ARGS)
{
	Window w;
	int64 sum = 0;

	if (!open_window(&w, fcinfo, 1, 2, 3))
		PG_RETURN_NULL();
	for (uint32 i = 0; i < w.r.nevents; i++)
	{
		CsUsageString name;
		uint32 ndays = cs_usage_read_event(&w.r, &name);
		bool want = wanted(&w, &name);
		DateADT day;
		int64 count;
		CsQty qty;

		while (ndays-- > 0)
		{
			cs_usage_read_day(&w.r, &day, &count, &qty);
			if (want && day >= w.lo && day < w.hi && pg_add_s64_overflow(sum, count, &sum))
				ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
								errmsg("count of usage events out of range")));
		}
	}
	PG_RETURN_INT64(sum);
}

PG_FUNCTION_INFO_V1(cs_usage_quantity);

/* quantity(usage, event, days, ago, today): sum of quantities; NULL where no event of the window has one, as sum() says. */
Datum
cs_usage_quantity(PG_FUNCTION_ARGS)
{
	Window w;
	CsQty sum = {0};

	if (!open_window(&w, fcinfo, 1, 2, 3))
		PG_RETURN_NULL();
	for (uint32 i = 0; i < w.r.nevents; i++)
	{
		CsUsageString name;
		uint32 ndays = cs_usage_read_event(&w.r, &name);
		bool want = wanted(&w, &name);
		DateADT day;
		int64 count;
		CsQty qty;

		while (ndays-- > 0)
		{
			cs_usage_read_day(&w.r, &day, &count, &qty);
			if (want && day >= w.lo && day < w.hi)
				cs_qty_add(&sum, &qty, CurrentMemoryContext);
		}
	}
	if (!sum.has)
		PG_RETURN_NULL();
	PG_RETURN_NUMERIC(cs_qty_to_numeric(&sum));
}

/*
 * Users of the window, and the sum over its days of each day's users.  Rows
 * without user are nobody.
 */
static void
count_users(Window *w, int64 *users, int64 *user_days)
{
	int64 event = skip_events(w);
	int32 first = cs_chunk_of(w->lo);
	int nwindow = cs_chunk_of(w->hi - 1) - first + 1;

	*users = *user_days = 0;
	cs_usage_read_users(&w->r);
	for (uint32 i = 0; i < w->r.nusers; i++)
	{
		CsUsageString name;
		uint32 nevents = cs_usage_read_user(&w->r, &name);
		uint32 days[CS_WINDOW_CHUNKS];
		int n = 0;

		memset(days, 0, sizeof(uint32) * nwindow);

		while (nevents-- > 0)
		{
			uint32 index;
			uint32 nchunks = cs_usage_read_user_event(&w->r, &index);
			int32 chunk;
			uint32 bits;

			while (nchunks-- > 0)
			{
				cs_usage_read_chunk(&w->r, &chunk, &bits);
				bits &= cs_chunk_mask(chunk, w->lo, w->hi);
				if (bits != 0 && (w->any_event || index == event))
					days[chunk - first] |= bits;
			}
		}
		for (int k = 0; k < nwindow; k++)
			n += pg_popcount32(days[k]);
		if (name.s != NULL && n > 0)
		{
			*users += 1;
			*user_days += n;
		}
	}
}

PG_FUNCTION_INFO_V1(cs_usage_active_users);

/* active_users(usage, days, event, ago, today): different users with an event in the window. */
Datum
cs_usage_active_users(PG_FUNCTION_ARGS)
{
	Window w;
	int64 users;
	int64 user_days;

	if (!open_window(&w, fcinfo, 2, 1, 3))
		PG_RETURN_NULL();
	count_users(&w, &users, &user_days);
	PG_RETURN_INT64(users);
}

PG_FUNCTION_INFO_V1(cs_usage_stickiness);

/*
 * stickiness(usage, days, ago, today): mean users of a day of the window over
 * the users of the window; NULL without any.  The running day is a day more.
 */
Datum
cs_usage_stickiness(PG_FUNCTION_ARGS)
{
	Window w;
	int64 users;
	int64 user_days;

	if (!open_window(&w, fcinfo, 0, 1, 2))
		PG_RETURN_NULL();
	count_users(&w, &users, &user_days);
	if (users == 0)
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8((float8) user_days / ((float8) w.days * (float8) users));
}

PG_FUNCTION_INFO_V1(cs_usage_active_days);

/* active_days(usage, days, ago, today): days of the window with any event, by whomever. */
Datum
cs_usage_active_days(PG_FUNCTION_ARGS)
{
	Window w;
	bool active[CS_WINDOW_MAX + 1] = {false};
	int n = 0;

	if (!open_window(&w, fcinfo, 0, 1, 2))
		PG_RETURN_NULL();
	for (uint32 i = 0; i < w.r.nevents; i++)
	{
		CsUsageString name;
		uint32 ndays = cs_usage_read_event(&w.r, &name);
		DateADT day;
		int64 count;
		CsQty qty;

		while (ndays-- > 0)
		{
			cs_usage_read_day(&w.r, &day, &count, &qty);
			if (day >= w.lo && day < w.hi)
				active[day - w.lo] = true;
		}
	}
	for (int i = 0; i < w.days; i++)
		n += active[i];
	PG_RETURN_INT32(n);
}

PG_FUNCTION_INFO_V1(cs_usage_distinct_events);

/* distinct_events(usage, days, ago, today): different event names in the window; NULL is no name. */
Datum
cs_usage_distinct_events(PG_FUNCTION_ARGS)
{
	Window w;
	int64 n = 0;

	if (!open_window(&w, fcinfo, 0, 1, 2))
		PG_RETURN_NULL();
	for (uint32 i = 0; i < w.r.nevents; i++)
	{
		CsUsageString name;
		uint32 ndays = cs_usage_read_event(&w.r, &name);
		bool here = false;
		DateADT day;
		int64 count;
		CsQty qty;

		while (ndays-- > 0)
		{
			cs_usage_read_day(&w.r, &day, &count, &qty);
			here |= (day >= w.lo && day < w.hi);
		}
		n += (here && name.s != NULL);
	}
	PG_RETURN_INT64(n);
}

PG_FUNCTION_INFO_V1(cs_usage_days_since);

/* days_since(usage, event, ago, today): D - the last day before D (with today: up to D) with the event, of any age; NULL: never. */
Datum
cs_usage_days_since(PG_FUNCTION_ARGS)
{
	Window w;
	int back;
	DateADT day_of;
	bool found = false;
	DateADT last = 0;

	memset(&w, 0, sizeof(w));
	if (PG_ARGISNULL(0) || PG_ARGISNULL(2) || PG_ARGISNULL(3))
		PG_RETURN_NULL();
	back = PG_GETARG_INT32(2);
	if (back < 0 || back > CS_WINDOW_MAX)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("ago of %d days is out of range", back),
						errhint("It is 0 to %d.", CS_WINDOW_MAX)));
	read_stamped(&w.r, PG_GETARG_USAGE(0));
	set_event(&w, fcinfo, 1);
	day_of = w.r.stamp - back;
	w.hi = day_of + (PG_GETARG_BOOL(3) ? 1 : 0);
	if (PG_GETARG_BOOL(3))
		need_running(&w.r, back);
	for (uint32 i = 0; i < w.r.nevents; i++)
	{
		CsUsageString name;
		uint32 ndays = cs_usage_read_event(&w.r, &name);
		bool want = wanted(&w, &name);
		DateADT day;
		int64 count;
		CsQty qty;

		while (ndays-- > 0)
		{
			cs_usage_read_day(&w.r, &day, &count, &qty);
			if (want && day < w.hi && (!found || day > last))
			{
				found = true;
				last = day;
			}
		}
	}
	if (!found)
		PG_RETURN_NULL();
	PG_RETURN_INT32(day_of - last);
}

/* ---- rows ------------------------------------------------------------- */

typedef struct Row
{
	DateADT day;
	int64 count;
	int64 users;
	CsQty qty;
} Row;

PG_FUNCTION_INFO_V1(cs_usage_unnest);

/* unnest(usage) → (day, event, events, quantity, active_users), by event and day. */
Datum
cs_usage_unnest(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CsUsageReader r;
	CsUsageString *names;
	uint32 *start; /* of the rows of each event, and the end */
	Row *rows;
	Size n = 0;
	Size allocated = 64;

	InitMaterializedSRF(fcinfo, 0);
	cs_usage_read_value(&r, PG_GETARG_USAGE(0));
	names = MemoryContextAllocHuge(CurrentMemoryContext,
								   mul_size(r.nevents + 1, sizeof(CsUsageString)));
	start = MemoryContextAllocHuge(CurrentMemoryContext, mul_size(r.nevents + 1, sizeof(uint32)));
	rows = palloc(allocated * sizeof(Row));
	for (uint32 i = 0; i < r.nevents; i++)
	{
		uint32 ndays = cs_usage_read_event(&r, &names[i]);

		start[i] = n;
		while (ndays-- > 0)
		{
			if (n == allocated)
				rows = repalloc_huge(rows, mul_size(allocated *= 2, sizeof(Row)));
			cs_usage_read_day(&r, &rows[n].day, &rows[n].count, &rows[n].qty);
			rows[n++].users = 0;
		}
	}
	start[r.nevents] = n;

	cs_usage_read_users(&r);
	for (uint32 i = 0; i < r.nusers; i++)
	{
		CsUsageString name;
		uint32 nevents = cs_usage_read_user(&r, &name);

		CHECK_FOR_INTERRUPTS();
		while (nevents-- > 0)
		{
			uint32 event;
			uint32 nchunks = cs_usage_read_user_event(&r, &event);
			uint32 at = start[event];

			/* both lists ascend, so one merge does it */
			while (nchunks-- > 0)
			{
				int32 chunk;
				uint32 bits;

				cs_usage_read_chunk(&r, &chunk, &bits);
				for (int k = 0; k < 32 && name.s != NULL; k++)
				{
					if ((bits & ((uint32) 1 << k)) == 0)
						continue;
					while (at < start[event + 1] && rows[at].day < chunk * 32 + k)
						at++;
					if (at < start[event + 1] && rows[at].day == chunk * 32 + k)
						rows[at].users++;
				}
			}
		}
	}
	cs_usage_read_end(&r);

	for (uint32 i = 0; i < r.nevents; i++)
	{
		Datum event = names[i].s
						  ? PointerGetDatum(cstring_to_text_with_len(names[i].s, names[i].len))
						  : (Datum) 0;

		for (uint32 k = start[i]; k < start[i + 1]; k++)
		{
			Datum values[5];
			bool nulls[5] = {false, names[i].s == NULL, false, !rows[k].qty.has, false};

			CHECK_FOR_INTERRUPTS();
			values[0] = DateADTGetDatum(rows[k].day);
			values[1] = event;
			values[2] = Int64GetDatum(rows[k].count);
			values[3] =
				rows[k].qty.has ? NumericGetDatum(cs_qty_to_numeric(&rows[k].qty)) : (Datum) 0;
			values[4] = Int64GetDatum(rows[k].users);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	return (Datum) 0;
}
