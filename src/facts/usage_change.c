/*
 * usage_change.c
 *		The rollup after a change: no more is read and written than changed.
 *
 * In: pending rows of a usage_event source, which say in what range of instants
 * a customer's events changed.  Out: usage_month and usage_delta.
 *
 * Most customers: the local days of the range are read by index and take the
 * place of these days in the months' values.  Days are whole in a value (counts,
 * quantities and user days of other days stay), so this is exact.
 *
 * Large months (cs_ext.usage_large bytes) are not written anew for an event: they are
 * in pieces by time.  usage_month holds the events before the first piece of
 * usage_delta, a piece those from its `since` up to the next one's.  Events behind
 * the last instant of a piece begin a new one; of what changed inside one piece its
 * days are read, as of most customers, inside several the whole of them.  A new piece
 * is united with the one before it while that is at most twice as large, so an event
 * is rewritten as often as the logarithm of the month's size; the pieces of a month
 * that is over become one.
 *
 * What readers see is the union of a month's pieces, which does not depend on
 * where they are cut.
 *
 * Cases.  Crash, concurrent writers: as the pipeline says; all of a step is one
 * transaction on one snapshot, for customers that it has locked.
 */
#include "cs_ext.h"

#include "catalog/pg_type.h"
#include "core/texts.h"
#include "facts/source.h"
#include "facts/usage.h"
#include "facts/usage_store.h"
#include "facts/usage_value.h"
#include "refresh/queue.h"
#include "refresh/refresh.h"
#include "utils/array.h"

/*
 * The first and the last instant of a value; false where it has none.  Reads
 * no more than the head of what may be large.
 */
static bool
instants(Datum value, TimestampTz *first, TimestampTz *last)
{
	struct varlena *head = (struct varlena *) PG_DETOAST_DATUM_SLICE(value, 0, 64);
	CsUsageReader r;

	/* the number of events, which is read with the head, may be cut off */
	cs_usage_read_head(&r, VARDATA_ANY(head), VARSIZE_ANY_EXHDR(head), ERRCODE_DATA_CORRUPTED);
	*first = r.first;
	*last = r.last;
	return r.has_instants;
}

PG_FUNCTION_INFO_V1(cs_usage_last);

/* usage_last(usage): its last instant; NULL: it has none. */
Datum
cs_usage_last(PG_FUNCTION_ARGS)
{
	TimestampTz first;
	TimestampTz last;

	if (!instants(PG_GETARG_DATUM(0), &first, &last))
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(last);
}

/* ---- most customers ------------------------------------------------------- */

/*
 * replace_days: of these customers (no large months among them) the days lo to
 * hi, read now.  Returns the customers whose months have to be read whole.
 */
static Datum
replace_days(Datum ids, DateADT lo, DateADT hi, const CsFoundMonths *found, const CsPolicy *policy,
			 int *unsure)
{
	List *read = NIL;
	char *parts = cs_usage_read_parts(ids, cs_local_midnight(lo, policy->time_zone),
									  cs_local_midnight(hi + 1, policy->time_zone), &read);
	CsResult *fresh;

	*unsure = 0;
	if (parts == NULL)
		return (Datum) 0;
	fresh = list_length(read) == 1 ? linitial(read) : cs_query(parts, CS_NO_ARGS);
	ids = cs_usage_replace_days(ids, fresh, lo, hi, found, unsure);
	if (list_length(read) != 1)
		tuplestore_end(fresh->store);
	cs_usage_forget_parts(read);
	return ids;
}

/* ---- large months --------------------------------------------------------- */

/*
 * compact: the last piece of a month goes into the one before it while that is at
 * most twice as large (all: in any case).
 */
static void
compact(const char *id, DateADT month, bool all)
{
	CsArg customer = cs_text(id);
	CsArg of = cs_date(month);

	for (;;)
	{
		bool isnull;
		TimestampTz since;
		TimestampTz before;
		bool base;

		/* the last two */
		if (cs_exec("SELECT since, pg_column_size(usage) FROM cs_internal.usage_delta WHERE "
					"customer_id = $1 AND month = $2 UNION ALL SELECT NULL, pg_column_size(usage)"
					" FROM cs_internal.usage_month WHERE customer_id = $1 AND month = $2"
					" ORDER BY 1 DESC NULLS LAST LIMIT 2",
					CS_ARGS(customer, of)) < 2)
			return;
		since = DatumGetTimestampTz(cs_cell_datum(0, 1, &isnull));
		if (!all && DatumGetInt32(cs_cell_datum(1, 2, &isnull)) >
						2 * (int64) DatumGetInt32(cs_cell_datum(0, 2, &isnull)))
			return;
		before = DatumGetTimestampTz(cs_cell_datum(1, 1, &base));
		if (base)
			cs_exec("UPDATE cs_internal.usage_month m SET usage = m.usage OPERATOR(cs.+) d.usage "
					"FROM cs_internal.usage_delta d WHERE m.customer_id = $1 AND m.month = $2 AND "
					"d.customer_id = $1 AND d.month = $2 AND d.since = $3",
					CS_ARGS(customer, of, cs_tstz(since)));
		else
			cs_exec("UPDATE cs_internal.usage_delta m SET usage = m.usage OPERATOR(cs.+) d.usage "
					"FROM cs_internal.usage_delta d WHERE m.customer_id = $1 AND m.month = $2 AND "
					"m.since = $4 AND d.customer_id = $1 AND d.month = $2 AND d.since = $3",
					CS_ARGS(customer, of, cs_tstz(since), cs_tstz(before)));
		cs_exec("DELETE FROM cs_internal.usage_delta WHERE customer_id = $1 AND month = $2 AND "
				"since = $3",
				CS_ARGS(customer, of, cs_tstz(since)));
	}
}

/*
 * read_range: the events of one customer from `since` up to `until`, inside one
 * month, as a value registered as the one row of "fresh"; its usage is NULL where
 * there are none.  NULL: a source cannot be read.
 */
static CsResult *
read_range(Datum ids, TimestampTz since, TimestampTz until)
{
	List *read = NIL;
	char *parts = cs_usage_read_parts(ids, since, until, &read);
	CsResult *fresh;

	if (parts == NULL)
		return NULL;
	fresh =
		cs_query(psprintf("SELECT cs.union_agg(p.usage) AS usage FROM (%s) p", parts), CS_NO_ARGS);
	cs_usage_forget_parts(read);
	cs_register("fresh", fresh);
	return fresh;
}

/*
 * change_days_of_piece: of one piece of a large month, from `from` to `to`, the
 * days in which instants from `since` to `until` lie are read, and take the place of
 * these days in it.  False: they cannot, the piece is to be read whole.
 */
static bool
change_days_of_piece(Datum ids, const char *id, DateADT month, bool base, TimestampTz from,
					 TimestampTz to, TimestampTz since, TimestampTz until, const CsPolicy *policy)
{
	MemoryContext context = CurrentMemoryContext;
	CsArg customer = cs_text(id);
	DateADT lo = cs_usage_day(since);
	DateADT hi = cs_usage_day(Min(until, to - 1));
	struct varlena *old;
	struct varlena *now = NULL;
	struct varlena *usage;
	CsResult *fresh;
	Oid type;
	bool unsure;
	bool isnull;
	Datum value;

	fresh = read_range(ids, Max(from, cs_local_midnight(lo, policy->time_zone)),
					   Min(to, cs_local_midnight(hi + 1, policy->time_zone)));
	if (fresh == NULL)
		return true; /* what is known stays until it can be read */
	type = TupleDescAttr(fresh->desc, 0)->atttypid;
	cs_exec("SELECT usage FROM fresh", CS_NO_ARGS);
	value = cs_value_datum(&isnull);
	MemoryContextSwitchTo(context);
	if (!isnull)
		now = PG_DETOAST_DATUM_COPY(value);
	cs_unregister("fresh");
	tuplestore_end(fresh->store);
	if (base)
		cs_exec("SELECT usage FROM cs_internal.usage_month WHERE customer_id = $1 AND month = $2",
				CS_ARGS(customer, cs_date(month)));
	else
		cs_exec("SELECT usage FROM cs_internal.usage_delta WHERE customer_id = $1 AND month = $2"
				" AND since = $3",
				CS_ARGS(customer, cs_date(month), cs_tstz(from)));
	value = cs_value_datum(&isnull);
	if (isnull)
		return false;
	MemoryContextSwitchTo(context);
	old = PG_DETOAST_DATUM_COPY(value);
	usage = cs_usage_replaced(old, now, lo, hi, &unsure);
	if (usage == NULL || unsure)
		return false;
	if (VARSIZE(usage) == VARSIZE(old) && memcmp(usage, old, VARSIZE(old)) == 0)
		return true;
	value = PointerGetDatum(usage);
	if (base)
		cs_exec("UPDATE cs_internal.usage_month SET usage = $3 WHERE customer_id = $1 AND month = "
				"$2",
				CS_ARGS(customer, cs_date(month), cs_datum(type, value, false)));
	else
		cs_exec("UPDATE cs_internal.usage_delta SET usage = $4 WHERE customer_id = $1 AND month = "
				"$2 AND since = $3",
				CS_ARGS(customer, cs_date(month), cs_tstz(from), cs_datum(type, value, false)));
	return true;
}

/*
 * change_pieces: one large month of one customer, where instants from `since` to
 * `until` (inclusive) changed.
 */
static void
change_pieces(const char *id, DateADT month, TimestampTz since, TimestampTz until,
			  const CsPolicy *policy)
{
	Datum one[1] = {CStringGetTextDatum(id)};
	Datum ids = cs_text_array(one, 1);
	CsArg customer = cs_text(id);
	CsArg of = cs_date(month);
	TimestampTz from = cs_local_midnight(month, policy->time_zone);
	TimestampTz to = cs_local_midnight(cs_month_start(month, 1), policy->time_zone);
	TimestampTz last;
	bool isnull;
	bool base; /* what is read begins with the month */
	bool inside;
	TimestampTz changed = since = Max(since, from);
	CsResult *fresh;

	until = Min(until, to);

	/* the piece that `since` lies in: behind its last instant a new one begins */
	cs_exec("SELECT since, cs_internal.usage_last(usage) FROM cs_internal.usage_delta WHERE "
			"customer_id = $1 AND month = $2 AND since <= $3 UNION ALL SELECT NULL, "
			"cs_internal.usage_last(usage) FROM cs_internal.usage_month WHERE customer_id = $1 AND "
			"month = $2 ORDER BY 1 DESC NULLS LAST LIMIT 1",
			CS_ARGS(customer, of, cs_tstz(since)));
	last = DatumGetTimestampTz(cs_cell_datum(0, 2, &isnull));
	inside = isnull || last >= since;
	if (inside)
	{
		since = DatumGetTimestampTz(cs_cell_datum(0, 1, &base));
		if (base)
			since = from;
	}
	else
		base = false;
	if (inside)
	{
		TimestampTz next;

		cs_exec("SELECT min(since) FROM cs_internal.usage_delta WHERE customer_id = $1 AND month ="
				" $2 AND since > $3",
				CS_ARGS(customer, of, cs_tstz(base ? DT_NOBEGIN : since)));
		next = DatumGetTimestampTz(cs_value_datum(&isnull));
		if (isnull)
			next = to;
		if ((next > until || next == to) &&
			change_days_of_piece(ids, id, month, base, since, next, changed, until, policy))
		{
			compact(id, month, cs_usage_day(cs_now()) >= cs_month_start(month, 1));
			return;
		}
	}
	/* up to the piece that begins behind `until` */
	cs_exec("SELECT min(since) FROM cs_internal.usage_delta WHERE customer_id = $1 AND month = $2 "
			"AND since > $3",
			CS_ARGS(customer, of, cs_tstz(until)));
	until = DatumGetTimestampTz(cs_value_datum(&isnull));
	if (isnull)
		until = to;

	fresh = read_range(ids, since, until);
	if (fresh == NULL)
		return;
	cs_exec("DELETE FROM cs_internal.usage_delta WHERE customer_id = $1 AND month = $2 AND since "
			">= $3 AND since < $4",
			CS_ARGS(customer, of, cs_tstz(since), cs_tstz(until)));
	if (!base)
		cs_exec("INSERT INTO cs_internal.usage_delta (customer_id, month, since, usage)"
				" SELECT $1, $2, $3, usage FROM fresh WHERE usage IS NOT NULL",
				CS_ARGS(customer, of, cs_tstz(since)));
	else if (cs_exec("UPDATE cs_internal.usage_month m SET usage = f.usage FROM fresh f WHERE "
					 "m.customer_id = $1 AND m.month = $2 AND f.usage IS NOT NULL",
					 CS_ARGS(customer, of)) == 0)
	{
		/* nothing before the first piece: it takes its place */
		cs_exec("DELETE FROM cs_internal.usage_month WHERE customer_id = $1 AND month = $2",
				CS_ARGS(customer, of));
		cs_exec(
			"WITH d AS (DELETE FROM cs_internal.usage_delta WHERE customer_id = $1 AND month = "
			"$2 AND since = (SELECT min(since) FROM cs_internal.usage_delta WHERE customer_id = "
			"$1 AND month = $2) RETURNING usage) INSERT INTO cs_internal.usage_month "
			"(customer_id, month, usage) SELECT $1, $2, usage FROM d",
			CS_ARGS(customer, of));
	}
	cs_unregister("fresh");
	tuplestore_end(fresh->store);
	compact(id, month, cs_usage_day(cs_now()) >= cs_month_start(month, 1));
}

/*
 * change_days: days lo to hi of customers without large months among them.
 */
static void
change_days(Datum ids, DateADT lo, DateADT hi, const CsFoundMonths *found, const CsPolicy *policy)
{
	int unsure;

	ids = replace_days(ids, lo, hi, found, policy, &unsure);
	if (unsure > 0)
		(void) replace_days(ids, cs_month_start(lo, 0), cs_month_start(hi, 1) - 1, NULL, policy,
							&unsure);
}

/*
 * change_large: one customer who has large months.  Those that are over become
 * one piece again.
 */
static void
change_large(const char *id, TimestampTz since, TimestampTz until, const CsPolicy *policy)
{
	Datum one[1] = {CStringGetTextDatum(id)};
	Datum ids = cs_text_array(one, 1);
	DateADT lo = cs_usage_day(since);
	DateADT hi = cs_usage_day(until);
	DateADT next = lo;
	CsResult *large;
	CsResult *over;
	TupleTableSlot *slot;

	/* the range may be of any length: a date that stands for no end, beside an ordinary one */
	large = cs_query(
		"SELECT month FROM (SELECT month FROM cs_internal.usage_delta WHERE "
		"customer_id = $1 UNION SELECT month FROM cs_internal.usage_month WHERE "
		"customer_id = $1 AND pg_column_size(usage) > $2) m WHERE month BETWEEN $3 AND "
		"$4 ORDER BY 1",
		CS_ARGS(cs_text(id), cs_int4(cs_usage_large), cs_date(cs_month_start(lo, 0)), cs_date(hi)));
	slot = MakeSingleTupleTableSlot(large->desc, &TTSOpsMinimalTuple);
	while (tuplestore_gettupleslot(large->store, true, false, slot))
	{
		bool isnull;
		DateADT month = DatumGetDateADT(slot_getattr(slot, 1, &isnull));

		CHECK_FOR_INTERRUPTS();
		if (month > next)
			change_days(ids, next, month - 1, NULL, policy);
		change_pieces(id, month, since, until, policy);
		next = cs_month_start(month, 1);
	}
	if (next <= hi)
		change_days(ids, next, hi, NULL, policy);
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(large->store);
	over = cs_query("SELECT DISTINCT month FROM cs_internal.usage_delta WHERE customer_id = $1 AND "
					"month < $2",
					CS_ARGS(cs_text(id), cs_date(cs_month_start(cs_usage_day(cs_now()), 0))));
	slot = MakeSingleTupleTableSlot(over->desc, &TTSOpsMinimalTuple);
	while (tuplestore_gettupleslot(over->store, true, false, slot))
	{
		bool isnull;

		compact(id, DatumGetDateADT(slot_getattr(slot, 1, &isnull)), true);
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(over->store);
}

/* ---- changes -------------------------------------------------------------- */

/*
 * ingest_whole: all months of these customers.
 */
static void
ingest_whole(Datum ids, const CsPolicy *policy)
{
	List *read = NIL;
	char *parts = cs_usage_read_parts(ids, DT_NOBEGIN, DT_NOEND, &read);

	if (parts == NULL)
		return;
	cs_exec("DELETE FROM cs_internal.usage_delta WHERE customer_id = ANY ($1)",
			CS_ARGS(cs_textarray(ids)));
	cs_exec(psprintf("WITH part AS MATERIALIZED (%s), gone AS ("
					 " DELETE FROM cs_internal.usage_month m WHERE m.customer_id = ANY ($1)"
					 " AND NOT EXISTS (SELECT FROM part p WHERE p.customer_id = m.customer_id"
					 " AND p.month = m.month))"
					 " INSERT INTO cs_internal.usage_month AS m (customer_id, month, usage)"
					 " SELECT p.customer_id, p.month, p.usage FROM part p"
					 " ON CONFLICT (customer_id, month) DO UPDATE SET usage = EXCLUDED.usage"
					 " WHERE m.usage OPERATOR(cs.<>) EXCLUDED.usage",
					 parts),
			CS_ARGS(cs_textarray(ids)));
	cs_usage_forget_parts(read);
}

/*
 * cs_usage_ingest: see usage.h.
 */
void
cs_usage_ingest(Datum ids, TimestampTz since, TimestampTz until, const CsPolicy *policy)
{
	CsFoundMonths *found;
	Datum large;
	DateADT lo;
	DateADT hi;
	int n;

	if (since > until)
		return; /* nothing of usage changed */
	if (TIMESTAMP_NOT_FINITE(since) || TIMESTAMP_NOT_FINITE(until) ||
		cs_usage_build_position() >= 0)
	{
		/* who is not built yet has no months that may stay */
		ingest_whole(ids, policy);
		return;
	}
	lo = cs_usage_day(since);
	hi = cs_usage_day(until);
	large = cs_usage_large_ones(ids, cs_month_start(lo, 0), cs_month_start(hi, 0), &n, &found);
	if (n > 0)
	{
		Datum *each;
		int count;

		each = cs_text_elements(large, &count);
		for (int i = 0; i < count; i++)
			change_large(TextDatumGetCString(each[i]), since, until, policy);
		ids = cs_ids_from_query(
			"SELECT i FROM unnest($1) WITH ORDINALITY u(i, o) WHERE i <> ALL ($2) ORDER BY o",
			CS_ARGS(cs_textarray(ids), cs_textarray(large)), &n);
		if (n == 0)
			return;
	}
	change_days(ids, lo, hi, found, policy);
}

/*
 * cs_usage_ingest_pending: see usage.h.  Who changed long ago does not make the
 * others be read from there on: customers go together whose changes begin in
 * about the same time.
 */
void
cs_usage_ingest_pending(const CsSource *source, const CsPending *pending, int n,
						const CsPolicy *policy)
{
	static const int ages[] = {2, 35, 400, PG_INT32_MAX}; /* days before now */
	TimestampTz now = cs_now();
	TimestampTz above = DT_NOEND;
	CsPending *some = palloc(sizeof(CsPending) * n);

	for (int age = 0; age <= lengthof(ages); age++)
	{
		TimestampTz from = DT_NOBEGIN;
		TimestampTz since = DT_NOEND;
		TimestampTz until = DT_NOBEGIN;
		int nsome = 0;
		Datum ids;

		if (age < lengthof(ages) && ages[age] != PG_INT32_MAX)
			from = now - ages[age] * USECS_PER_DAY;
		else if (age < lengthof(ages))
			from = MIN_TIMESTAMP; /* all that say since when */
		for (int i = 0; i < n; i++)
		{
			if (pending[i].since > pending[i].until || pending[i].since < from ||
				pending[i].since >= above)
				continue;
			some[nsome++] = pending[i];
			since = Min(since, pending[i].since);
			until = Max(until, pending[i].until);
		}
		above = from;
		if (nsome == 0)
			continue;
		ids = cs_pending_ids(some, nsome);
		if (OidIsValid(source->relid))
			cs_count_unusable_between(source, ids, since, until);
		cs_usage_ingest(ids, since, until, policy);
		cs_look_ingested(source, ids, since, until);
	}
	pfree(some);
}
