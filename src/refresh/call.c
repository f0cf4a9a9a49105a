/*
 * call.c
 *		Refreshing as SQL calls it: CALL cs.refresh(), CALL cs.rebuild() and
 *		cs.refresh_customer().
 *
 * In: a call.  Out: the steps of pipeline.c one after the other, each in its own
 * transaction where the call may commit; or one customer with the caller's
 * uncommitted changes, in the caller's transaction.
 */
#include "cs_ext.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/array.h"
#include "utils/snapmgr.h"

#include "core/texts.h"
#include "decide/decide.h"
#include "facts/ledger.h"
#include "facts/merge.h"
#include "facts/source.h"
#include "facts/usage.h"
#include "refresh/refresh.h"

PG_FUNCTION_INFO_V1(cs_refresh_sql);
PG_FUNCTION_INFO_V1(cs_rebuild_sql);
PG_FUNCTION_INFO_V1(cs_refresh_customer_sql);

/*
 * next_transaction: commits.  A step has one snapshot of its own, taken after
 * its locks, so the session's default isolation gives nothing here; under
 * REPEATABLE READ it would fail beside people who act on alerts.
 */
static void
next_transaction(void)
{
	SPI_commit();
	XactIsoLevel = XACT_READ_COMMITTED;
}

/*
 * number_events: of what is committed, in a transaction of its own: who polls
 * waits for no step after the one that opened his alert.
 */
static void
number_events(void)
{
	PushActiveSnapshot(GetTransactionSnapshot());
	(void) cs_number_events();
	PopActiveSnapshot();
	next_transaction();
}

/*
 * run_refresh: the loop of both procedures.
 */
static void
run_refresh(FunctionCallInfo fcinfo, bool commit, const char *procedure)
{
	CallContext *call = (CallContext *) fcinfo->context;
	bool atomic = call == NULL || !IsA(call, CallContext) || call->atomic;
	CsRefresh run;
	bool more;

	if (commit && atomic)
		ereport(ERROR, errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				errmsg("CALL cs.%s() commits between batches and cannot run inside a transaction "
					   "or function",
					   procedure),
				errhint("Switch autocommit on, or use CALL cs.refresh(commit => false)."));
	SPI_connect_ext(commit ? SPI_OPT_NONATOMIC : 0);
	cs_refresh_start(&run, true);
	run.commits = commit;
	if (strcmp(procedure, "rebuild") == 0)
		run.notice_level = NOTICE;
	if (commit)
		next_transaction();
	do
	{
		int64 evaluated = run.evaluated;

		more = cs_refresh_step(&run);
		if (commit)
		{
			next_transaction();
			if (run.evaluated > evaluated || !more)
				number_events();
		}
	} while (more);
	SPI_finish();
}

/*
 * cs_refresh_sql: CALL cs.refresh(commit).
 */
Datum
cs_refresh_sql(PG_FUNCTION_ARGS)
{
	run_refresh(fcinfo, PG_ARGISNULL(0) ? true : PG_GETARG_BOOL(0), "refresh");
	PG_RETURN_VOID();
}

/*
 * cs_rebuild_sql: CALL cs.rebuild(source): refresh after forgetting how far the
 * source (NULL: every source) was read.  Rows are recomputed in place, so
 * readers keep what they have until it is replaced.
 */
Datum
cs_rebuild_sql(PG_FUNCTION_ARGS)
{
	CsFrame frame;

	cs_enter(&frame);
	(void) cs_policy(false);
	if (!PG_ARGISNULL(0))
	{
		char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));

		cs_exec("SELECT name FROM cs.source", CS_NO_ARGS);
		if (cs_exec("SELECT 1 FROM cs.source WHERE name = $1", CS_ARGS(cs_text(name))) == 0)
			ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT),
					errmsg("there is no source \"%s\"", name),
					errhint("Sources stand in cs.source."));
		cs_exec("UPDATE cs_internal.source_state SET needs_scan = true WHERE source = $1",
				CS_ARGS(cs_text(name)));
	}
	else
	{
		cs_exec("UPDATE cs_internal.source_state SET needs_scan = true", CS_NO_ARGS);
		cs_exec("INSERT INTO cs_internal.dirty (customer_id, marked_at)"
				" SELECT customer_id, clock_timestamp() FROM cs_internal.customer"
				" UNION SELECT customer_id, clock_timestamp() FROM cs_internal.state ON CONFLICT "
				"DO NOTHING",
				CS_NO_ARGS);
	}
	cs_leave(&frame);
	run_refresh(fcinfo, true, "rebuild");
	PG_RETURN_VOID();
}

/* The customer of cs_refresh_customer_sql, and the ids under which facts of his stand, for customer_now. */
static Datum customer_ids;
static Datum customer_facts;

/*
 * customer_now: everything of one customer, in the caller's transaction.
 */
static bool
customer_now(CsRefresh *run)
{
	Datum ids = customer_ids;
	Datum facts = customer_facts;
	CsPolicy *policy = cs_policy(false);
	CsBatch *batch;
	bool isnull;
	TimestampTz since;
	TimestampTz until;
	ListCell *lc;

	/*
	 * What capture has noted of usage and the refresher has not read yet; NULL
	 * key or range: all.  Where events are of users, whose they are is not
	 * looked up, and a changed user may have brought all of his.
	 */
	cs_exec("SELECT min(CASE WHEN c.kind = 'usage_event' AND c.since IS NOT NULL THEN c.since ELSE "
			"'-infinity' END),"
			" max(CASE WHEN c.kind = 'usage_event' AND c.until IS NOT NULL THEN c.until ELSE "
			"'infinity' END)"
			" FROM (SELECT s.kind, l.since, l.until FROM cs_internal.change_log l"
			"  JOIN cs.source s ON s.name = l.source WHERE l.customer_key = ANY ($1) OR "
			"l.customer_key IS NULL OR NOT s.columns ? 'customer_id'"
			"  UNION ALL SELECT coalesce(s.kind, 'usage_event'), p.since, p.until FROM "
			"cs_internal.pending p LEFT JOIN cs.source s ON s.name = p.source"
			"  WHERE p.customer_id = ANY ($1)) c"
			" WHERE c.kind IN ('usage_event', 'user')",
			CS_ARGS(cs_textarray(facts)));
	since = DatumGetTimestampTz(cs_cell_datum(0, 1, &isnull));
	if (isnull)
		since = DT_NOEND;
	until = DatumGetTimestampTz(cs_cell_datum(0, 2, &isnull));
	if (isnull)
		until = DT_NOBEGIN;
	if (cs_usage_build_position() >= 0)
	{
		/* his slice may still have to be built, then nothing says that he waits */
		since = DT_NOBEGIN;
		until = DT_NOEND;
	}
	foreach (lc, cs_sources("usage_event"))
		cs_watermark_tail(lfirst(lc), facts, &since, &until);
	if (since <= until)
		cs_usage_ingest(facts, since, until, policy);
	cs_ledger_ingest(ids, policy);
	cs_identity_ingest(ids);
	if (cs_exec("SELECT 1 FROM cs_internal.customer WHERE customer_id = ($1)[1]",
				CS_ARGS(cs_textarray(ids))) == 0)
		return false;
	batch = cs_batch_make(ids, 1, run->as_of, false);
	batch->ahead = run->as_of;
	cs_evaluate(batch);
	return true;
}

/*
 * ids_of_customer: those whose rows refreshing the customer may write: its own,
 * and, for what they used, those that are merged into it.
 */
static Datum
ids_of_customer(Datum ids, TimestampTz as_of)
{
	CsWhose *whose = cs_whose(ids, as_of, cs_policy(false));
	int n;

	if (!whose->merged)
		return ids;
	return cs_ids_from_query("SELECT i FROM (SELECT i COLLATE \"C\" FROM unnest($1) i"
							 " UNION SELECT i FROM unnest($2) i) u (i) ORDER BY i",
							 CS_ARGS(cs_textarray(ids), cs_textarray(whose->fact_ids)), &n);
}

/*
 * cs_refresh_customer_sql: one customer, with the caller's uncommitted changes;
 * commits or rolls back with them.  Touches only rows keyed by the customer (the
 * rollup also of who is merged into it) and leaves the change log and the dirty
 * mark to the refresher, and what the sources say of merges, which concerns others.
 */
Datum
cs_refresh_customer_sql(PG_FUNCTION_ARGS)
{
	char *id;
	Datum ids[1];
	CsFrame frame;
	CsRefresh run;

	if (PG_ARGISNULL(0))
		ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("customer must not be NULL"));
	if (IsolationUsesXactSnapshot())
		ereport(
			ERROR, errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			errmsg("cs.refresh_customer() needs the isolation level READ COMMITTED"),
			errdetail("Under an older snapshot it would write what is no longer true."),
			errhint("Call it in a transaction of that level, or leave it to CALL cs.refresh()."));
	id = text_to_cstring(PG_GETARG_TEXT_PP(0));

	cs_refresh_start(&run, false);
	cs_enter(&frame);
	ids[0] = CStringGetTextDatum(id);
	customer_ids = cs_text_array(ids, 1);
	cs_exec("SELECT pg_advisory_xact_lock_shared($1, 0)", CS_ARGS(cs_int4(CS_LOCK_EVERYBODY)));
	customer_facts = ids_of_customer(customer_ids, run.as_of);
	cs_exec("SELECT pg_advisory_xact_lock($1, hashtext(u.i)) FROM unnest($2) u (i)",
			CS_ARGS(cs_int4(CS_LOCK_CLASS), cs_textarray(customer_facts)));
	cs_capture_flush();
	if (!cs_with_snapshot(customer_now, &run, true))
		ereport(ERROR, errcode(ERRCODE_NO_DATA_FOUND), errmsg("there is no customer \"%s\"", id),
				errhint("Customers are the ids of customer and subscription sources; see "
						"cs.source_status."));
	cs_leave(&frame);
	PG_RETURN_VOID();
}
