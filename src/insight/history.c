/*
 * history.c
 *		The past as the facts have it now: customers evaluated at an instant
 *		without a trace, the notices that announced a churn, and the procedure
 *		that fills health_history backwards.
 *
 * In: facts, through the stages of evaluate (cs_what_if) and through
 * cs_user_query.  Out: rows for the SQL of history.sql and backtest.sql, which
 * decides what is kept.
 */
#include "cs_ext.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/array.h"
#include "utils/snapmgr.h"

#include "facts/source.h"
#include "refresh/refresh.h"

PG_FUNCTION_INFO_V1(cs_evaluated_at_sql);
PG_FUNCTION_INFO_V1(cs_notices_sql);
PG_FUNCTION_INFO_V1(cs_backfill_health_sql);

/* A line of progress at most this often. */
#define PROGRESS_EVERY 10000 /* milliseconds */

/*
 * cs_internal.evaluated_at(customers text[], as_of timestamptz): what the
 * stages make of these customers at that instant, from the facts and by the
 * definitions as they stand now; NULL: of every customer there was by then.
 */
Datum
cs_evaluated_at_sql(PG_FUNCTION_ARGS)
{
	char *after = pstrdup("");

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(1))
		return (Datum) 0;
	for (;;)
	{
		MemoryContext outer = CurrentMemoryContext;
		CsArg customers = cs_datum(TEXTARRAYOID, PG_ARGISNULL(0) ? (Datum) 0 : PG_GETARG_DATUM(0),
								   PG_ARGISNULL(0));
		CsFrame frame;
		Datum ids;
		int n;

		CHECK_FOR_INTERRUPTS();
		cs_enter(&frame);
		ids = cs_ids_from_query(
			"SELECT c.customer_id FROM cs_internal.customer c"
			" WHERE c.customer_id > $1 AND ($4::text[] IS NULL OR c.customer_id = ANY ($4))"
			" AND (coalesce(c.created_at, '-infinity') < $2 OR EXISTS (SELECT FROM "
			"cs_internal.movement m"
			"  WHERE m.customer_id = c.customer_id AND m.at <= $2))"
			" ORDER BY c.customer_id LIMIT $3",
			CS_ARGS(cs_text(after), cs_tstz(PG_GETARG_TIMESTAMPTZ(1)), cs_int4(cs_refresh_batch),
					customers),
			&n);
		if (n == 0)
		{
			cs_leave(&frame);
			break;
		}
		cs_exec("SELECT ($1)[$2]", CS_ARGS(cs_textarray(ids), cs_int4(n)));
		after = MemoryContextStrdup(outer, cs_value());

		cs_return_rows(
			cs_what_if(ids, n, PG_GETARG_TIMESTAMPTZ(1),
					   "SELECT s.customer_id, s.\"values\", s.segments,"
					   " coalesce(s.active, false), coalesce(s.in_trial, false),"
					   " s.scorecard, s.score, s.coverage, s.score_reason, s.health_inputs"
					   " FROM evaluated s"),
			fcinfo, 0);
		cs_leave(&frame);
	}
	return (Datum) 0;
}

/*
 * cs_internal.notices(): every notice that the facts hold: when a subscription
 * was cancelled and for when (end_at), and each cancellation (end_at NULL: it
 * belongs to the next churn).  A source that cannot be read raises: without
 * its notices a backtest would look better than it is.
 */
Datum
cs_notices_sql(PG_FUNCTION_ARGS)
{
	static const struct
	{
		const char *kind;
		const char *select;
	} kinds[] = {
		{"subscription", "SELECT %s AS customer_id, r.cancel_requested_at, r.end_at FROM (%s) r"
						 " WHERE r.cancel_requested_at IS NOT NULL"},
		{"cancellation", "SELECT %s AS customer_id, r.at, NULL::timestamptz FROM (%s) r"
						 " WHERE r.at IS NOT NULL"},
	};
	CsFrame frame;
	CsPolicy *policy;

	InitMaterializedSRF(fcinfo, 0);
	cs_enter(&frame);
	policy = cs_policy(false);
	for (int k = 0; k < lengthof(kinds); k++)
	{
		ListCell *lc;

		foreach (lc, cs_sources(kinds[k].kind))
		{
			CsSource *source = lfirst(lc);
			CsUserQuery query = {0};

			query.sql = psprintf(kinds[k].select, cs_source_id(source, "r.customer_key"),
								 cs_source_rows(source, false, false));
			query.search_path = source->search_path;
			query.as_of = cs_now();
			query.as_of_day = cs_local_day(query.as_of, policy->time_zone);
			cs_return_rows(cs_user_query(&query, NULL), fcinfo, 0);
		}
	}
	cs_leave(&frame);
	return (Datum) 0;
}

/* ---- backfill_health -------------------------------------------------------- */

/*
 * backfill_bounds: the day bounds to fill, as timestamptz[]; arguments are
 * checked there.
 */
static ArrayType *
backfill_bounds(FunctionCallInfo fcinfo)
{
	MemoryContext context = CurrentMemoryContext;
	Oid since_type = get_fn_expr_argtype(fcinfo->flinfo, 0);
	Oid until_type = get_fn_expr_argtype(fcinfo->flinfo, 1);
	CsFrame frame;
	ArrayType *bounds;
	Datum value;
	bool isnull;

	cs_enter(&frame);
	(void) cs_policy(false);
	cs_exec("SELECT cs_internal.backfill_bounds(cs_internal.instant($1), cs_internal.instant($2), "
			"$3)",
			CS_ARGS(cs_datum(since_type, PG_GETARG_DATUM(0), PG_ARGISNULL(0)),
					cs_datum(until_type, PG_GETARG_DATUM(1), PG_ARGISNULL(1)),
					cs_datum(INTERVALOID, PG_GETARG_DATUM(2), PG_ARGISNULL(2))));
	value = cs_value_datum(&isnull);
	MemoryContextSwitchTo(context);
	bounds = DatumGetArrayTypePCopy(value);
	cs_leave(&frame);
	return bounds;
}

/*
 * backfill_batch: one batch of one bound; true while there may be more.
 * *after is the last customer looked at, *added counts.
 */
static bool
backfill_batch(TimestampTz bound, bool again, char **after, int64 *added, MemoryContext context)
{
	CsFrame frame;
	char *last;
	bool isnull;

	PushActiveSnapshot(GetTransactionSnapshot());
	cs_enter(&frame);
	cs_exec("SELECT b.last, b.added FROM cs_internal.backfill_batch($1, $2, $3, $4) b",
			CS_ARGS(cs_tstz(bound), cs_text(*after), cs_int4(cs_refresh_batch), cs_bool(again)));
	last = cs_cell(0, 1);
	*added += DatumGetInt64(cs_cell_datum(0, 2, &isnull));
	if (last != NULL)
		*after = MemoryContextStrdup(context, last);
	cs_leave(&frame);
	PopActiveSnapshot();
	return last != NULL;
}

/*
 * next_transaction: commits. A batch takes its turn with the refresher and must
 * see what that one did, whatever isolation the session has by default.
 */
static void
next_transaction(void)
{
	SPI_commit();
	XactIsoLevel = XACT_READ_COMMITTED;
}

/*
 * CALL cs.backfill_health(since, until, every, again): a transaction a batch,
 * so what is done stays done; a second run finds the rest.
 */
Datum
cs_backfill_health_sql(PG_FUNCTION_ARGS)
{
	CallContext *call = (CallContext *) fcinfo->context;
	MemoryContext context =
		AllocSetContextCreate(TopMemoryContext, "cs_ext backfill", ALLOCSET_SMALL_SIZES);
	TimestampTz started = GetCurrentTimestamp();
	TimestampTz told = started;
	bool again = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
	int64 added = 0;
	ArrayType *array;
	Datum *bounds;
	bool *missing;
	int nbounds;

	if (call == NULL || !IsA(call, CallContext) || call->atomic)
		ereport(ERROR, errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				errmsg("CALL cs.backfill_health() commits between batches and cannot run inside a "
					   "transaction or function"),
				errhint("Switch autocommit on."));
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	array = backfill_bounds(fcinfo);
	MemoryContextSwitchTo(context);
	deconstruct_array(DatumGetArrayTypePCopy(PointerGetDatum(array)), TIMESTAMPTZOID,
					  sizeof(TimestampTz), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &bounds, &missing,
					  &nbounds);
	next_transaction();
	for (int i = 0; i < nbounds; i++)
	{
		char *after = "";

		while (backfill_batch(DatumGetTimestampTz(bounds[i]), again, &after, &added, context))
		{
			next_transaction();
			CHECK_FOR_INTERRUPTS();
			if (TimestampDifferenceExceeds(told, GetCurrentTimestamp(), PROGRESS_EVERY))
			{
				told = GetCurrentTimestamp();
				ereport(NOTICE, errmsg("%d of %d day bounds, " INT64_FORMAT " scores so far", i,
									   nbounds, added));
			}
		}
	}
	SPI_finish();
	MemoryContextDelete(context);
	ereport(NOTICE,
			errmsg("health filled in at %d day bounds: " INT64_FORMAT " scores", nbounds, added));
	PG_RETURN_VOID();
}
