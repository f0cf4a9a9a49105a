/*
 * summary.c
 *		Monthly summaries: what the customers of each segment did in each month,
 *		kept, and brought up to date with what refresh changes.
 *
 * In: the ledger, the customers' attributes, membership, and what they were
 * before (the journals, written by triggers in the transaction that changes the
 * ledger or a customer).  Out: cs_internal.summary_month, one row a dimension,
 * segment and month, and the sums that sql/summary.sql makes churn and revenue
 * of (cs_internal.period_sums).  dimension '' is everybody.
 *
 * A kept month is a function of the ledger, of the customers and of the
 * definitions alone (src/insight/flow.c): so a customer's part can be taken off
 * as it was before and added as it is now, and what is kept equals what a
 * build would make of it, to the last digit.  Kept are whole months that have
 * ended; who reads adds the running one from the ledger.
 *
 * Cases.
 * Crash, cancel: a step is one transaction: journal rows go with the change of
 * the sums, or stay with the sums as they were.
 * refresh_customer: touches no sum.  Its journal rows stand until the next
 * refresh, and who reads meanwhile takes them into account.
 * Concurrent refresh_customer: a step locks the customers whose journal it
 * works off, before its snapshot; who is locked waits for the next refresh.
 * Build: on one snapshot on which the journal is empty; who commits later has
 * written the journal of what that snapshot saw.  While nothing is kept,
 * refresh writes no journal; refresh_customer always does.
 * Concurrent readers: sums, journal and ledger are read on one snapshot.
 * Definitions changed (a dimension, its segments, the policy's zone, edge or
 * basis): the fingerprint differs, so nobody reads what is kept, and the next
 * refresh builds anew.  So after restore: nothing here is dumped.
 * Turn of the month: the next refresh adds it; until then it is computed.
 * More changed than a tenth of the customers: built anew.
 * A rule that raises: the dimension is not kept until its definition changes;
 * who reads goes the long way.
 * as_of in the past, periods that are no months: computed.
 */
#include "cs_ext.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/snapmgr.h"

#include "insight/flow.h"
#include "refresh/place.h"
#include "refresh/refresh.h"
#include "refresh/summary.h"

PG_FUNCTION_INFO_V1(cs_period_sums_sql);
PG_FUNCTION_INFO_V1(cs_has_turn_sql);

/* ---- what is read ---------------------------------------------------------- */

/*
 * add_customers: the customers of a scope into the flow, placed in the segments
 * of the dimension ('' for everybody).  False where that cannot be done in one
 * pass; then nothing was added.
 *
 * An entry of membership counts at its very instant, a movement only behind it
 * (or, with period_edge 'at', at it), so entries stand a microsecond earlier.
 */
static bool
add_customers(CsFlow *flow, const char *dimension, const CsPolicy *policy, CsScope scope, Datum ids,
			  int sign, int first, int last)
{
	CsArg args[] = {cs_text(dimension), cs_datum(TEXTARRAYOID, ids, scope == SCOPE_ALL),
					cs_text(NULL), cs_text(NULL)};
	const char *segment = "NULL::text";
	const char *initial = "'(none)'::text";
	const char *created = "timestamptz '-infinity'";
	const char *joins = "";
	CsResult *placed = NULL;
	CsPlacing placing;
	StringInfoData sql;

	if (!cs_place_read(dimension, &placing))
		return false;
	args[2] = cs_text(placing.fallback);
	args[3] = cs_text(placing.attribute);
	switch (placing.mode)
	{
		case 't':
			initial = "'(total)'::text";
			break;
		case 'a':
			segment = initial = "CASE WHEN c.customer_id IS NOT NULL"
								" THEN coalesce(k.value, $3, '(none)') END";
			created = "c.created_at";
			joins = psprintf(" LEFT JOIN %s c ON c.customer_id = m.customer_id"
							 " LEFT JOIN cs_internal.attribute_value k ON k.dimension = $1"
							 " AND k.value = coalesce(c.attributes ->> $4,"
							 " CASE WHEN $4 = 'owner' THEN c.owner END)",
							 cs_place_customers(scope));
			break;
		case 'r':
			placed = cs_placed_rows(dimension, &placing, scope, args, 2);
			if (placed == NULL)
				return false;
			cs_register("placed", placed);
			segment = "CASE WHEN c.customer_id IS NOT NULL THEN p.segment END";
			initial = "CASE WHEN c.customer_id IS NOT NULL THEN i.segment END";
			created = "c.created_at";
			joins = psprintf(
				" LEFT JOIN %s c ON c.customer_id = m.customer_id"
				" LEFT JOIN placed p ON %s%s%s"
				" LEFT JOIN placed i ON %s%s%s",
				cs_place_customers(scope), placing.by_customer ? "p._customer = c.customer_id" : "",
				placing.by_customer && placing.by_ledger ? " AND " : "",
				placing.by_ledger ? "p._mrr = m.mrr_after AND p._active = m.active_after" : "",
				placing.by_customer ? "i._customer = c.customer_id" : "",
				placing.by_customer && placing.by_ledger ? " AND " : "",
				placing.by_ledger ? "i._mrr = 0 AND NOT i._active" : "");
			break;
	}

	initStringInfo(&sql);
	appendStringInfo(&sql,
					 "SELECT m.customer_id, m.at, m.kind, m.delta, m.mrr_after, m.active_after,"
					 " CASE WHEN m.over THEN m.entry ELSE %s END, %s, %s, m.over FROM ("
					 "SELECT v.customer_id, v.at, v.seq::integer AS place, v.kind, v.delta,"
					 " v.mrr_after, v.active_after, NULL::text AS entry, false AS over FROM %s v",
					 segment, initial, created, cs_place_movements(scope));
	if (placing.mode == 's' || (placing.mode != 't' && placing.manual))
	{
		const char *earlier = policy->edge_at ? "" : " - interval '1 microsecond'";
		const char *these =
			psprintf("s.dimension = $1%s%s", placing.mode == 's' ? "" : " AND s.source = 'manual'",
					 scope == SCOPE_ALL ? "" : " AND s.customer_id = ANY ($2)");

		appendStringInfo(&sql,
						 " UNION ALL SELECT s.customer_id, s.valid_to%s, -2, NULL, NULL, NULL,"
						 " NULL, NULL, true FROM cs_internal.membership s"
						 " WHERE %s AND s.valid_to IS NOT NULL"
						 " UNION ALL SELECT s.customer_id, s.valid_from%s, -1, NULL, NULL, NULL,"
						 " NULL, s.segment, true FROM cs_internal.membership s WHERE %s",
						 earlier, these, earlier, these);
	}
	appendStringInfo(&sql, ") m%s ORDER BY m.customer_id, m.at, m.place", joins);
	cs_flow_add(flow, sql.data, args, lengthof(args), sign, first, last);
	if (placed != NULL)
	{
		cs_unregister("placed");
		tuplestore_end(placed->store);
	}
	return true;
}

/* ---- reading ---------------------------------------------------------------- */

static TimestampTz *
instants_of(Datum array, int *n)
{
	Datum *values;
	bool *nulls;
	TimestampTz *result;

	deconstruct_array(DatumGetArrayTypeP(array), TIMESTAMPTZOID, sizeof(TimestampTz),
					  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &values, &nulls, n);
	result = palloc(sizeof(TimestampTz) * (*n + 1));
	for (int i = 0; i < *n; i++)
		result[i] = DatumGetTimestampTz(values[i]);
	return result;
}

/* The sums as a list for SQL, each made by the format of one %s. */
static char *
sum_list(const char *format)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < NSUMS; i++)
	{
		if (i > 0)
			appendStringInfoString(&list, ", ");
		for (const char *p = format; *p; p++)
		{
			if (p[0] == '%' && p[1] == 's')
			{
				appendStringInfoString(&list, cs_flow_columns[i]);
				p++;
			}
			else
				appendStringInfoChar(&list, *p);
		}
	}
	return list.data;
}

/*
 * kept_periods: how many of the periods can be taken from the kept months: from
 * the first on, those that are months which have ended and are kept.  -1: none
 * of it can be used, not even what was there before the first.
 */
static int
kept_periods(const char *dimension, const TimestampTz *bounds, int nbounds, Datum bounds_array)
{
	TimestampTz through;
	bool isnull;
	int n = 0;

	/* the fingerprint looks into every rule, which takes longer than reading what is kept */
	if (cs_exec("SELECT s.through FROM cs_internal.summary s WHERE s.dimension = $1"
				" AND NOT s.failed"
				" AND ($3 OR s.fingerprint = cs_internal.summary_fingerprint($1))"
				" AND cs_internal.are_months($2)",
				CS_ARGS(cs_text(dimension), cs_datum(TIMESTAMPTZARRAYOID, bounds_array, false),
						cs_bool(cs_summary_current()))) == 0)
		return -1;
	through = DatumGetTimestampTz(cs_cell_datum(0, 1, &isnull));
	if (through < bounds[0])
		return -1;
	while (n + 1 < nbounds && bounds[n + 1] <= through)
		n++;
	return n;
}

/*
 * read_kept: the kept months before bounds[periods], those before the first
 * bound as period 0.
 */
static void
read_kept(CsFlow *flow, const char *dimension, Datum bounds_array, TimestampTz until)
{
	uint64 n;

	n = cs_exec(psprintf("SELECT k.segment, width_bucket(k.starts, $2), %s"
						 " FROM cs_internal.summary_month k"
						 " WHERE k.dimension = $1 AND k.starts < $3 GROUP BY 1, 2",
						 sum_list("sum(k.%s)")),
				CS_ARGS(cs_text(dimension), cs_datum(TIMESTAMPTZARRAYOID, bounds_array, false),
						cs_tstz(until)));
	for (uint64 row = 0; row < n; row++)
	{
		bool isnull;
		char *segment = cs_cell(row, 1);
		int period = DatumGetInt32(cs_cell_datum(row, 2, &isnull));

		for (int i = 0; i < NSUMS; i++)
		{
			Datum value = cs_cell_datum(row, i + 3, &isnull);

			/* the sum of bigints is numeric */
			if (i < FIRST_MONEY)
				value = DirectFunctionCall1(numeric_int8, value);
			cs_flow_put(flow, segment, period, i, value);
		}
	}
}

/* Customers in the journals: what is kept has them as they were. */
static Datum
journalled(int *n)
{
	return cs_ids_from_query("SELECT b.customer_id FROM cs_internal.movement_before b"
							 " UNION SELECT c.customer_id FROM cs_internal.customer_before c"
							 " ORDER BY 1",
							 CS_NO_ARGS, n);
}

/* Customers who did something, or changed their segment, in [since, until). */
static Datum
movers(const char *dimension, const CsPolicy *policy, TimestampTz since, TimestampTz until, int *n)
{
	const char *later = policy->edge_at ? " + interval '1 microsecond'" : "";
	CsPlacing placing;

	if (!cs_place_read(dimension, &placing))
		placing.mode = 's';

	return cs_ids_from_query(
		psprintf("SELECT m.customer_id FROM cs_internal.movement m"
				 " WHERE m.at >= $2%s AND m.at < $3%s"
				 " UNION SELECT s.customer_id FROM cs_internal.membership s"
				 " WHERE s.dimension = $1%s AND (s.valid_from > $2 AND s.valid_from <= $3"
				 " OR s.valid_to > $2 AND s.valid_to <= $3) ORDER BY 1",
				 later, later, placing.mode == 's' ? "" : " AND s.source = 'manual'"),
		CS_ARGS(cs_text(dimension), cs_tstz(since), cs_tstz(until)), n);
}

/*
 * fill: the sums of all periods, from what is kept as far as that goes; false
 * where they cannot be had in one pass.
 */
static bool
fill(CsFlow *flow, const char *dimension, const CsPolicy *policy, const TimestampTz *bounds,
	 int nbounds, Datum bounds_array, bool may_be_kept)
{
	int last = nbounds - 1;
	int kept = may_be_kept ? kept_periods(dimension, bounds, nbounds, bounds_array) : -1;
	Datum ids;
	int n;

	if (kept < 0)
		return add_customers(flow, dimension, policy, SCOPE_ALL, (Datum) 0, 1, 0, last);
	read_kept(flow, dimension, bounds_array, bounds[kept]);
	ids = journalled(&n);
	if (n > 0 && !(add_customers(flow, dimension, policy, SCOPE_THESE, ids, 1, 0, kept) &&
				   add_customers(flow, dimension, policy, SCOPE_BEFORE, ids, -1, 0, kept)))
		return false;
	if (kept == last)
		return true;
	ids = movers(dimension, policy, bounds[kept], bounds[last], &n);
	return n == 0 || add_customers(flow, dimension, policy, SCOPE_THESE, ids, 1, kept + 1, last);
}

/*
 * cs_internal.period_sums(dimension, bounds, kept): a row a segment and period,
 * periods without a customer or movement too, (total) or (none) always; (segment, period_no,
 * customers_start, mrr_start, then the sums).  No row where they cannot be had
 * in one pass.
 */
Datum
cs_period_sums_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char *dimension = PG_ARGISNULL(0) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(0));
	Datum values[NSUMS + 4];
	bool nulls[NSUMS + 4] = {false};
	TimestampTz *bounds;
	int nbounds;
	CsFrame frame;
	CsFlow *flow;
	CsPolicy *policy;
	volatile bool filled = false;
	Snapshot before;
	const char *everybody = *dimension == '\0' ? "(total)" : "(none)";

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(1))
		return (Datum) 0;
	bounds = instants_of(PG_GETARG_DATUM(1), &nbounds);

	cs_enter(&frame);
	policy = cs_policy(false);
	flow = cs_flow_make(bounds, nbounds, policy->edge_at);
	cs_flow_put(flow, everybody, 0, SUM_CUSTOMERS, Int64GetDatum(0));
	/* what is kept, the journal and the ledger as of one instant */
	before = cs_set_snapshot(GetActiveSnapshot());
	PG_TRY();
	{
		filled = fill(flow, dimension, policy, bounds, nbounds, PG_GETARG_DATUM(1),
					  !PG_ARGISNULL(2) && PG_GETARG_BOOL(2));
	}
	PG_FINALLY();
	{
		cs_set_snapshot(before);
	}
	PG_END_TRY();
	for (int s = 0; filled && s < cs_flow_segments(flow); s++)
	{
		/* (none) stands in the flow of everybody too */
		if (*dimension == '\0' && strcmp(cs_flow_segment(flow, s), everybody) != 0)
			continue;
		values[0] = CStringGetTextDatum(cs_flow_segment(flow, s));
		for (int period = 1; period < nbounds; period++)
		{
			values[1] = Int32GetDatum(period);
			cs_flow_carry(flow, s, period, &values[2], &values[3]);
			for (int i = 0; i < NSUMS; i++)
				values[i + 4] = cs_flow_get(flow, s, period, i);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	cs_leave(&frame);
	return (Datum) 0;
}

/*
 * cs_internal.has_turn(): see cs_take_turn.
 */
Datum
cs_has_turn_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(cs_has_turn());
}

/* ---- keeping ---------------------------------------------------------------- */

/*
 * write_months: adds the sums of the flow's periods to the kept months.  Rows
 * in which everything is zero go, so that what stands does not depend on the way.
 */
static void
write_months(CsFlow *flow, const char *dimension, const TimestampTz *bounds, int nbounds)
{
	TupleDesc desc = CreateTemplateTupleDesc(NSUMS + 3);
	CsResult *rows = palloc0(sizeof(CsResult));
	Datum values[NSUMS + 3];
	bool nulls[NSUMS + 3] = {false};

	TupleDescInitEntry(desc, 1, "dimension", TEXTOID, -1, 0);
	TupleDescInitEntry(desc, 2, "segment", TEXTOID, -1, 0);
	TupleDescInitEntry(desc, 3, "starts", TIMESTAMPTZOID, -1, 0);
	for (int i = 0; i < NSUMS; i++)
		TupleDescInitEntry(desc, i + 4, cs_flow_columns[i], i < FIRST_MONEY ? INT8OID : NUMERICOID,
						   -1, 0);
	rows->desc = BlessTupleDesc(desc);
	rows->store = tuplestore_begin_heap(true, false, CS_RESULT_MEM);

	values[0] = CStringGetTextDatum(dimension);
	for (int s = 0; s < cs_flow_segments(flow); s++)
	{
		values[1] = CStringGetTextDatum(cs_flow_segment(flow, s));
		for (int period = 1; period < nbounds; period++)
		{
			if (!cs_flow_any(flow, s, period))
				continue;
			values[2] = TimestampTzGetDatum(bounds[period - 1]);
			for (int i = 0; i < NSUMS; i++)
				values[i + 3] = cs_flow_get(flow, s, period, i);
			tuplestore_putvalues(rows->store, rows->desc, values, nulls);
			rows->nrows++;
		}
	}
	cs_register("summary_new", rows);
	cs_exec(psprintf("INSERT INTO cs_internal.summary_month AS k (dimension, segment, starts, %s)"
					 " SELECT n.dimension, n.segment, n.starts, %s FROM summary_new n"
					 " ON CONFLICT (dimension, segment, starts) DO UPDATE SET %s",
					 sum_list("%s"), sum_list("n.%s"), sum_list("%s = k.%s + excluded.%s")),
			CS_NO_ARGS);
	cs_unregister("summary_new");
	tuplestore_end(rows->store);
	cs_exec(psprintf("DELETE FROM cs_internal.summary_month k WHERE k.dimension = $1"
					 " AND (%s) = (%s)",
					 sum_list("k.%s"), sum_list("0 * k.%s")),
			CS_ARGS(cs_text(dimension)));
}

/*
 * month_bounds: starts of the months from that of since to the one of until.
 */
static TimestampTz *
month_bounds(TimestampTz since, TimestampTz until, int *n)
{
	MemoryContext context = CurrentMemoryContext;
	Datum array;
	bool isnull;

	cs_exec("SELECT cs_internal.month_starts($1, $2)", CS_ARGS(cs_tstz(since), cs_tstz(until)));
	array = cs_value_datum(&isnull);
	MemoryContextSwitchTo(context);
	return instants_of(array, n);
}

typedef struct Kept
{
	char *dimension;
	TimestampTz through; /* DT_NOBEGIN: not kept yet */
} Kept;

/*
 * read_dimensions: the dimensions that are, or are to be, kept under the
 * definitions as they stand.
 */
static Kept *
read_dimensions(int *n)
{
	Kept *result;
	bool isnull;
	Datum dimensions;
	Datum prints;

	cs_summary_prints(&dimensions, &prints);
	*n = (int) cs_exec("SELECT d.dimension, coalesce(s.through, '-infinity')"
					   " FROM unnest($1) d (dimension)"
					   " LEFT JOIN cs_internal.summary s ON s.dimension = d.dimension"
					   " WHERE s.failed IS NOT TRUE ORDER BY 1",
					   CS_ARGS(cs_textarray(dimensions)));
	result = palloc0(sizeof(Kept) * (*n + 1));
	for (int i = 0; i < *n; i++)
	{
		result[i].dimension = cs_cell(i, 1);
		result[i].through = DatumGetTimestampTz(cs_cell_datum(i, 2, &isnull));
	}
	return result;
}

/*
 * first_movement: the earliest instant in the ledger, or in the journal; false
 * where there is none.
 */
static bool
first_movement(TimestampTz *at)
{
	bool isnull;

	cs_exec("SELECT least((SELECT min(m.at) FROM cs_internal.movement m),"
			" (SELECT min(b.at) FROM cs_internal.movement_before b))",
			CS_NO_ARGS);
	*at = DatumGetTimestampTz(cs_value_datum(&isnull));
	return !isnull;
}

/*
 * discard: what was kept under definitions that changed is forgotten.
 */
static void
discard(void)
{
	Datum dimensions;
	Datum prints;

	cs_summary_prints(&dimensions, &prints);
	cs_exec("DELETE FROM cs_internal.summary s WHERE NOT EXISTS (SELECT 1"
			" FROM unnest($1, $2) f (dimension, print)"
			" WHERE f.dimension = s.dimension AND f.print = s.fingerprint)",
			CS_ARGS(cs_textarray(dimensions), cs_textarray(prints)));
	cs_exec("DELETE FROM cs_internal.summary_month k WHERE NOT EXISTS"
			" (SELECT 1 FROM cs_internal.summary s WHERE s.dimension = k.dimension)",
			CS_NO_ARGS);
}

/*
 * cs_summary_fold: these customers as they are for these customers as they
 * were, in every kept dimension.
 */
void
cs_summary_fold(Datum ids)
{
	const CsPolicy *policy = cs_policy(false);
	int n;
	Kept *kept;
	TimestampTz since;

	/* since the refresh began definitions may have changed, and back */
	discard();
	kept = read_dimensions(&n);
	for (int i = 0; i < n && first_movement(&since); i++)
	{
		MemoryContext stage =
			AllocSetContextCreate(CurrentMemoryContext, "cs_ext summary", ALLOCSET_DEFAULT_SIZES);
		MemoryContext old;
		TimestampTz *bounds;
		int nbounds;
		CsFlow *flow;

		if (kept[i].through == DT_NOBEGIN || since >= kept[i].through)
			continue;
		old = MemoryContextSwitchTo(stage);
		bounds = month_bounds(since - USECS_PER_SEC, kept[i].through, &nbounds);
		flow = cs_flow_make(bounds, nbounds, policy->edge_at);
		if (add_customers(flow, kept[i].dimension, policy, SCOPE_THESE, ids, 1, 1, nbounds - 1) &&
			add_customers(flow, kept[i].dimension, policy, SCOPE_BEFORE, ids, -1, 1, nbounds - 1))
			write_months(flow, kept[i].dimension, bounds, nbounds);
		else
			cs_exec("DELETE FROM cs_internal.summary s WHERE s.dimension = $1",
					CS_ARGS(cs_text(kept[i].dimension)));
		MemoryContextSwitchTo(old);
		MemoryContextDelete(stage);
	}
	cs_exec("DELETE FROM cs_internal.movement_before WHERE customer_id = ANY ($1)",
			CS_ARGS(cs_textarray(ids)));
	cs_exec("DELETE FROM cs_internal.customer_before WHERE customer_id = ANY ($1)",
			CS_ARGS(cs_textarray(ids)));
}

/*
 * extend: months that have ended since are added to a dimension; all of them
 * where nothing is kept yet.
 */
static void
extend(const Kept *kept, TimestampTz through, const CsPolicy *policy)
{
	TimestampTz since = kept->through;
	bool failed = false;

	if (since != DT_NOBEGIN || first_movement(&since))
	{
		int nbounds;
		TimestampTz *bounds = month_bounds(
			kept->through == DT_NOBEGIN ? since - USECS_PER_SEC : since, through, &nbounds);
		CsFlow *flow = cs_flow_make(bounds, nbounds, policy->edge_at);

		failed =
			!add_customers(flow, kept->dimension, policy, SCOPE_ALL, (Datum) 0, 1, 1, nbounds - 1);
		if (!failed)
			write_months(flow, kept->dimension, bounds, nbounds);
	}
	cs_exec("INSERT INTO cs_internal.summary AS s (dimension, fingerprint, through, built_at,"
			" failed) VALUES ($1, cs_internal.summary_fingerprint($1), $2, clock_timestamp(), $3)"
			" ON CONFLICT (dimension) DO UPDATE SET through = excluded.through,"
			" failed = excluded.failed",
			CS_ARGS(cs_text(kept->dimension), cs_tstz(through), cs_bool(failed)));
}

/*
 * month_start: of the month of an instant.
 */
static TimestampTz
month_start(TimestampTz at)
{
	int n;
	TimestampTz *bounds = month_bounds(at, at, &n);

	return bounds[0];
}

/*
 * month_end: of the month of an instant.
 */
static TimestampTz
month_end(TimestampTz at)
{
	int n;
	/* no month is longer than that, the one after it no shorter */
	TimestampTz *bounds = month_bounds(at, at + 32 * USECS_PER_DAY, &n);

	return bounds[1];
}

/*
 * cs_summary_choose: see summary.h.
 */
Datum
cs_summary_choose(const char *after, int *n)
{
	return cs_ids_from_query("SELECT j.customer_id FROM ("
							 "SELECT b.customer_id FROM cs_internal.movement_before b"
							 " WHERE b.customer_id > $1 UNION SELECT c.customer_id"
							 " FROM cs_internal.customer_before c WHERE c.customer_id > $1) j"
							 " ORDER BY 1 LIMIT $2",
							 CS_ARGS(cs_text(after), cs_int4(cs_refresh_batch)), n);
}

/*
 * cs_summary_prune: see summary.h.
 */
void
cs_summary_prune(void)
{
	cs_exec("SELECT cs_internal.prune_journal()", CS_NO_ARGS);
	discard();
}

/*
 * cs_summary_extend: see summary.h.
 */
bool
cs_summary_extend(TimestampTz as_of)
{
	const CsPolicy *policy = cs_policy(false);
	TimestampTz through = month_start(as_of);
	int n;
	Kept *kept;

	/* on this snapshot what is in the journal would count twice */
	if (cs_exec("SELECT 1 FROM cs_internal.movement_before UNION ALL"
				" SELECT 1 FROM cs_internal.customer_before LIMIT 1",
				CS_NO_ARGS) > 0)
		return false;
	/* since the refresh began definitions may have changed, and back */
	discard();
	kept = read_dimensions(&n);
	for (int i = 0; i < n; i++)
		/* at that very instant membership may still change */
		if (kept[i].through < through && through < as_of)
		{
			extend(&kept[i], through, policy);
			return true;
		}
	if (through < as_of)
		cs_summary_settle(month_end(as_of));
	return false;
}
