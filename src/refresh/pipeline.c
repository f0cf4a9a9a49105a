/*
 * pipeline.c
 *		The way of the data, on one page.
 *
 *	 facts ──► collect ──► ingest ──► extent ──► evaluate ──► summary ──► number
 *			   (what		(rollup,   (is there  (metrics,    (alert events,
 *				changed)	 ledger,	 data?)	   segments,	after commit)
 *							 identity)			   health, alerts)
 *
 * collect	 change log and scans become pending (source, customer, range).
 * build	 the usage rollup from nothing, where a usage source is read whole: a slice
 *			 of customers in one pass over the events, in one transaction. Then the
 *			 customers and the ledger, where there is none yet, in one transaction.
 * ingest	 a chunk of one source: derived rows of its customers, their dirty
 *			 marks, and the pending rows gone, in one transaction.
 * extent	 first and last instant of each source; when data appear or end,
 *			 everybody is evaluated. What customers are compared with is fixed
 *			 for the day.
 * evaluate	 a batch of customers, dirty ones first, then those due: all stages,
 *			 then their marks are cleared, in one transaction.
 * summary	 monthly sums take in what changed in the ledger (summary.c).
 *
 * Cases.
 * Crash, cancel, kill -9 in any step: that transaction is undone; change log,
 * pending and dirty rows are still there, so the next run does the step again.
 * Every step computes from the facts what should stand there, so doing it
 * twice changes nothing.
 * Concurrent writer: facts and their change log rows commit together, and a
 * step reads both on one snapshot, so it sees both or neither; what commits
 * later is another change log row.
 * Two refreshers: each step takes one advisory lock, so they take turns.
 * refresh_customer beside refresh: it holds the customer's lock; chunks and
 * batches skip locked customers, who stay pending and dirty.
 * Standby: refuses (a refresh writes); reading functions work.
 * Restore: derived tables are not dumped; source_state is empty, so every
 * source is read whole.
 * Policy or definitions changed: see check_policy and the '*' rows of change_log.
 */
#include "cs_ext.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/plancache.h"
#include "utils/snapmgr.h"

#include "core/expired.h"
#include "core/hold.h"
#include "core/texts.h"
#include "decide/decide.h"
#include "facts/ledger.h"
#include "facts/merge.h"
#include "facts/source.h"
#include "facts/usage.h"
#include "facts/usage_spill.h"
#include "insight/scorecard.h"
#include "refresh/mark.h"
#include "refresh/queue.h"
#include "refresh/refresh.h"
#include "refresh/state.h"
#include "refresh/summary.h"

enum
{
	PHASE_COLLECT,
	PHASE_BUILD,
	PHASE_INGEST,
	PHASE_EXTENT,
	PHASE_EVALUATE,
	PHASE_SUMMARY,
	PHASE_DONE
};

/*
 * cs_ids_from_query: first column as a text[] in C order of the query's own ORDER BY.
 */
Datum
cs_ids_from_query(const char *sql, const CsArg *args, int nargs, int *n)
{
	MemoryContext context = CurrentMemoryContext;
	Datum *ids;
	Datum result;

	cs_exec(sql, args, nargs);
	*n = (int) SPI_processed;
	ids = palloc(sizeof(Datum) * (*n + 1));
	for (int i = 0; i < *n; i++)
		ids[i] = CStringGetTextDatum(cs_cell(i, 1));
	MemoryContextSwitchTo(context);
	result = cs_text_array(ids, *n);
	SPI_freetuptable(SPI_tuptable);
	return result;
}

/*
 * lock_refresher: until the end of the transaction there is no other one.  No
 * SQL, so that where the transaction has one snapshot it is not yet taken, and
 * shows what the refresher before us did.
 */
static void
lock_refresher(void)
{
	DirectFunctionCall2(pg_advisory_xact_lock_int4, Int32GetDatum(CS_LOCK_CLASS), Int32GetDatum(0));
}

/*
 * cs_take_turn, cs_end_turn, cs_has_turn: see refresh.h.
 */
void
cs_take_turn(void)
{
	lock_refresher();
}

void
cs_end_turn(void)
{
	LOCKTAG tag;

	/* what pg_advisory_xact_lock(CS_LOCK_CLASS, 0) has taken */
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, CS_LOCK_CLASS, 0, 2);
	(void) LockRelease(&tag, ExclusiveLock, false);
}

bool
cs_has_turn(void)
{
	LOCKTAG tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, CS_LOCK_CLASS, 0, 2);
	return cs_lock_held_by_me(&tag, ExclusiveLock);
}

/*
 * cs_with_snapshot: see refresh.h.
 */
bool
cs_with_snapshot(bool (*step)(CsRefresh *run), CsRefresh *run, bool hold)
{
	Snapshot snapshot = RegisterSnapshot(GetTransactionSnapshot());
	volatile bool worked = false;

	PG_TRY();
	{
		cs_set_snapshot(snapshot);
		PushActiveSnapshot(snapshot);
		cs_hold(hold);
		worked = step(run);
		PopActiveSnapshot();
	}
	PG_FINALLY();
	{
		cs_set_snapshot(NULL);
		cs_hold(false);
	}
	PG_END_TRY();
	UnregisterSnapshot(snapshot);
	return worked;
}

static bool
step_collect(CsRefresh *run)
{
	cs_collect(run->as_of, run->force_scan);
	return true;
}

/*
 * lock_everybody: who is refreshed on his own writes rows that a slice of the
 * build writes, too; one waits for the other, before the snapshot.
 */
static void
lock_everybody(void)
{
	DirectFunctionCall2(pg_advisory_xact_lock_int4, Int32GetDatum(CS_LOCK_EVERYBODY),
						Int32GetDatum(0));
}

static bool
step_build(CsRefresh *run)
{
	int64 position;

	cs_usage_build_step(run->commits, run->notice_level);
	run->worked = true;
	position = cs_usage_build_position();
	cs_progress(run, 1, "build", position < 0 ? 100 : position * 100 / CS_SLICES, 100);
	return true;
}

static bool
step_ledger_build(CsRefresh *run)
{
	cs_ledger_build_step(run->commits, run->notice_level);
	cs_progress(run, 1, "build", 100, 100);
	return true;
}

/*
 * says_who: whether a change in this source can make somebody a customer or
 * not one: customers and subscriptions do, any source where there are neither,
 * and one that is gone may have been one of them.
 */
static bool
says_who(const CsSource *source)
{
	return source->mapping == NULL || strcmp(source->kind, "customer") == 0 ||
		   strcmp(source->kind, "subscription") == 0 ||
		   (cs_sources("customer") == NIL && cs_sources("subscription") == NIL);
}

/*
 * ingest_chunk: what a kind of fact changes, for some customers; last: the
 * transaction commits behind it.
 */
static void
ingest_chunk(const CsSource *source, const CsPending *pending, int n, bool last)
{
	CsPolicy *policy = cs_policy(false);
	Datum ids = cs_pending_ids(pending, n);

	/* First what is unusable, for the ledger adds what it cannot use for want of a rate. */
	if (strcmp(source->kind, "usage_event") == 0)
		cs_usage_ingest_pending(source, pending, n, policy);
	else
	{
		cs_count_unusable(source, ids, false);
		cs_look_ingested(source, ids, DT_NOBEGIN, DT_NOEND);
	}
	if (strcmp(source->kind, "customer_merge") == 0)
		cs_merge_ingest(source, ids);
	else if (strcmp(source->kind, "subscription") == 0 || strcmp(source->kind, "cancellation") == 0)
		cs_ledger_ingest(ids, policy);
	else if (strcmp(source->kind, "invoice") == 0)
		cs_ledger_ingest(cs_ledger_past_due(ids), policy);
	if (says_who(source))
		cs_identity_ingest(ids);
	cs_orphans_ingest(source, ids);
	cs_mark_dirty(cs_merge_reached(ids), last);
}

/*
 * remember: a position of the run, kept from step to step.
 */
static void
remember(char **where, const char *value)
{
	char *old = *where;

	*where = value ? MemoryContextStrdup(TopMemoryContext, value) : NULL;
	if (old != NULL)
		pfree(old);
}

/* The customers of the running step: locked before its snapshot is taken. */
static Datum chosen_ids;
static int chosen_n;

/*
 * choose_chunk: the next pending customers of the run's source, or of the next
 * source; who is one comes first.  Who is locked by somebody else
 * (refresh_customer) is left out and stays pending: what that transaction wrote
 * is not on our snapshot.  False when no source has any left.
 */
static bool
choose_chunk(CsRefresh *run)
{
	for (;;)
	{
		Datum candidates;
		int found;

		if (run->after == NULL)
		{
			/* One probe a source: pending may be long, and is read in its key's order below. */
			cs_exec(
				"SELECT q.name, q.rank FROM (SELECT s.name, coalesce(array_position("
				"'{customer,user,customer_merge,subscription,cancellation}', s.kind), 8) AS rank"
				" FROM cs.source s WHERE EXISTS"
				" (SELECT 1 FROM cs_internal.pending p WHERE p.source = s.name)) q"
				" WHERE (q.rank, q.name) > ($1, $2) ORDER BY q.rank, q.name LIMIT 1",
				CS_ARGS(cs_int4(run->rank), cs_text(run->source ? run->source : "")));
			if (SPI_processed == 0)
				cs_exec("SELECT p.source, 9 FROM cs_internal.pending p WHERE NOT EXISTS"
						" (SELECT 1 FROM cs.source s WHERE s.name = p.source)"
						" AND ($1 < 9 OR p.source > $2) ORDER BY p.source LIMIT 1",
						CS_ARGS(cs_int4(run->rank), cs_text(run->source ? run->source : "")));
			if (SPI_processed == 0)
			{
				remember(&run->source, NULL);
				return false;
			}
			remember(&run->source, cs_cell(0, 1));
			run->rank = atoi(cs_cell(0, 2));
			remember(&run->after, "");
		}
		candidates = cs_ids_from_query(
			"SELECT customer_id FROM cs_internal.pending WHERE source = $1"
			" AND customer_id > $2 ORDER BY customer_id LIMIT $3",
			CS_ARGS(cs_text(run->source), cs_text(run->after), cs_int4(cs_refresh_batch)), &found);
		if (found == 0)
		{
			remember(&run->after, NULL);
			continue;
		}
		cs_exec("SELECT ($1)[array_length($1, 1)]", CS_ARGS(cs_textarray(candidates)));
		remember(&run->after, cs_value());
		chosen_ids = cs_lock_free(candidates, &chosen_n);
		return true;
	}
}

/*
 * step_ingest: the chosen chunk.  A source that is gone or switched off has
 * nothing to read: its customers are recomputed without it.
 */
static bool
step_ingest(CsRefresh *run)
{
	CsSource *source = cs_source(run->source);
	bool gone = source == NULL;
	CsPending *pending;
	int n;

	if (chosen_n == 0)
		return true;
	if (gone)
	{
		source = palloc0(sizeof(CsSource));
		source->name = run->source;
		source->kind = "usage_event";
	}
	pending = cs_take_pending(source->name, chosen_ids, &n);
	if (n == 0)
		return true; /* another refresher had them meanwhile */

	ingest_chunk(source, pending, n, run->commits && !gone);
	if (gone)
	{
		cs_merge_ingest(source, cs_pending_ids(pending, n));
		cs_ledger_ingest(cs_pending_ids(pending, n), cs_policy(false));
	}
	run->ingested += n;
	run->worked = true;
	if (run->to_ingest > cs_refresh_batch)
		cs_progress(run, 2, "ingest", run->ingested, run->to_ingest);
	return true;
}

/*
 * step_extent: when a source begins or ceases to have data, what is missing
 * changes for everybody.
 */
static bool
step_extent(CsRefresh *run)
{
	bool all = false;
	ListCell *lc;

	foreach (lc, cs_sources(NULL))
		all |= cs_source_extent(lfirst(lc), run->as_of);
	if (all)
		cs_exec("INSERT INTO cs_internal.dirty (customer_id, marked_at)"
				" SELECT customer_id, clock_timestamp() FROM cs_internal.customer ON CONFLICT DO "
				"NOTHING",
				CS_NO_ARGS);
	return true;
}

/*
 * Who is evaluated, in this order. The turn of the day makes everybody due, and
 * must not delay a customer whose facts changed.
 */
static const struct
{
	const char *cause;
	const char *sql; /* $1 how many, $2 behind which id, $3 as_of */
} passes[] = {
	{NULL, "SELECT customer_id FROM cs_internal.dirty WHERE cause IS NULL AND customer_id > $2"
		   " AND $3 IS NOT NULL ORDER BY customer_id LIMIT $1"},
	{"definition", "SELECT customer_id FROM cs_internal.dirty WHERE customer_id > $2"
				   " AND $3 IS NOT NULL ORDER BY customer_id LIMIT $1"},
	{NULL, "SELECT customer_id FROM cs_internal.state WHERE due_at <= $3 AND customer_id > $2"
		   " ORDER BY customer_id LIMIT $1"},
};

/*
 * choose_batch: the next customers, each locked for this transaction.  Who is
 * locked by somebody else (refresh_customer, a person who acts on an alert) is
 * left out and stays marked.
 * False when no pass has any left.
 */
static bool
choose_batch(CsRefresh *run)
{
	for (; run->pass < lengthof(passes);
		 run->pass++, remember(&run->after, NULL), run->passed = false)
	{
		Datum candidates;
		int found;

		candidates =
			cs_ids_from_query(passes[run->pass].sql,
							  CS_ARGS(cs_int4(cs_refresh_batch),
									  cs_text(run->after ? run->after : ""), cs_tstz(run->as_of)),
							  &found);
		if (found == 0)
			continue;
		cs_exec("SELECT ($1)[array_length($1, 1)]", CS_ARGS(cs_textarray(candidates)));
		remember(&run->after, cs_value());
		chosen_ids = cs_may_evaluate(cs_lock_free(candidates, &chosen_n), &chosen_n);
		return true;
	}
	return false;
}

/*
 * retire: ids that are no customers (any more) lose derived state and health;
 * history is kept, memberships end, open alerts are resolved.  Returns the others.
 */
static Datum
retire(Datum ids, int *n, TimestampTz as_of)
{
	Datum gone;
	int ngone;

	gone = cs_ids_from_query(
		"SELECT i FROM unnest($1) WITH ORDINALITY u(i, o) WHERE NOT EXISTS"
		" (SELECT 1 FROM cs_internal.customer c WHERE c.customer_id = i) AND NOT EXISTS"
		" (SELECT 1 FROM cs_internal.state s WHERE s.customer_id = i AND s.ahead > $2) ORDER BY o",
		CS_ARGS(cs_textarray(ids), cs_tstz(as_of)), &ngone);
	if (ngone == 0)
		return ids;
	cs_exec("DELETE FROM cs_internal.state WHERE customer_id = ANY ($1)",
			CS_ARGS(cs_textarray(gone)));
	cs_exec("DELETE FROM cs_internal.health WHERE customer_id = ANY ($1)",
			CS_ARGS(cs_textarray(gone)));
	cs_exec("DELETE FROM cs_internal.dirty WHERE customer_id = ANY ($1)",
			CS_ARGS(cs_textarray(gone)));
	cs_exec("UPDATE cs_internal.membership SET valid_to = greatest($2, valid_from)"
			" WHERE customer_id = ANY ($1) AND valid_to IS NULL",
			CS_ARGS(cs_textarray(gone), cs_tstz(as_of)));
	cs_exec("SELECT cs_internal.end_alerts($1, $2)", CS_ARGS(cs_textarray(gone), cs_tstz(as_of)));
	return cs_ids_from_query(
		"SELECT i FROM unnest($1) WITH ORDINALITY u(i, o) WHERE i <> ALL ($2) ORDER BY o",
		CS_ARGS(cs_textarray(ids), cs_textarray(gone)), n);
}

/*
 * step_evaluate: the chosen batch.  Who was refreshed on his own after this run
 * began is left to the next one: at the run's instant, what opened his alert
 * would not have happened yet.
 */
static bool
step_evaluate(CsRefresh *run)
{
	int n = chosen_n;
	Datum ids = retire(chosen_ids, &n, run->as_of);
	CsBatch *batch;

	if (n == 0)
		return true;
	batch = cs_batch_make(ids, n, run->as_of, false);
	n = cs_state_not_ahead(batch, &ids);
	if (n == 0)
		return true;
	if (n < batch->nids)
		batch = cs_batch_make(ids, n, run->as_of, false);
	batch->cause = passes[run->pass].cause;
	cs_evaluate(batch);
	cs_exec("DELETE FROM cs_internal.dirty WHERE customer_id = ANY ((SELECT $1)::text[])",
			CS_ARGS(cs_textarray(ids)));
	run->evaluated += n;
	run->worked = run->passed = true;
	if (run->to_evaluate > cs_refresh_batch)
		cs_progress(run, 3, "evaluate", run->evaluated, run->to_evaluate);
	return true;
}

/*
 * first_references: where a measure compares customers by a metric that was
 * never compared before, everybody had to be evaluated first; now that they
 * are, what they are compared with is known, and they are evaluated again.
 */
static bool
first_references(CsRefresh *run)
{
	if (!cs_references_fix(cs_local_day(run->as_of, cs_policy(false)->time_zone), true))
		return false;
	cs_exec("INSERT INTO cs_internal.dirty (customer_id, marked_at, cause)"
			" SELECT customer_id, clock_timestamp(), 'definition' FROM cs_internal.state"
			" ON CONFLICT DO NOTHING",
			CS_NO_ARGS);
	run->pass = 0;
	run->after = NULL;
	return true;
}

/*
 * choose_folded: the next customers whom the summaries have as they were, each
 * locked for this transaction; who is locked by somebody else waits for the next
 * refresh.  False when there are none left.
 */
static bool
choose_folded(CsRefresh *run)
{
	int found;
	Datum candidates = cs_summary_choose(run->after ? run->after : "", &found);

	if (found == 0)
		return false;
	cs_exec("SELECT ($1)[array_length($1, 1)]", CS_ARGS(cs_textarray(candidates)));
	remember(&run->after, cs_value());
	chosen_ids = cs_lock_free(candidates, &chosen_n);
	return true;
}

static bool
step_prune(CsRefresh *run)
{
	cs_summary_prune();
	return true;
}

static bool
step_fold(CsRefresh *run)
{
	if (chosen_n > 0)
		cs_summary_fold(chosen_ids);
	return true;
}

static bool
step_extend(CsRefresh *run)
{
	return cs_summary_extend(run->as_of);
}

static bool
step_settled(CsRefresh *run)
{
	return cs_summary_settled(run->as_of);
}

/*
 * summarise: one step; false when the summaries are as they should be.
 */
static bool
summarise(CsRefresh *run)
{
	if (run->after == NULL)
	{
		if (cs_with_snapshot(step_settled, run, false))
			return false;
		remember(&run->after, "");
		return cs_with_snapshot(step_prune, run, false);
	}
	if (choose_folded(run))
		return cs_with_snapshot(step_fold, run, false);
	return cs_with_snapshot(step_extend, run, false);
}

static bool
step_done(CsRefresh *run)
{
	cs_progress_end();
	if (!run->yielded) /* once a day: not of segments half of which are of yesterday */
		cs_segment_alerts(run->as_of);
	cs_exec(
		"INSERT INTO cs_internal.clock (last_as_of, last_refresh_at) VALUES ($1, clock_timestamp())"
		" ON CONFLICT (id) DO UPDATE SET last_as_of = greatest(clock.last_as_of, "
		"excluded.last_as_of),"
		" last_refresh_at = excluded.last_refresh_at",
		CS_ARGS(cs_tstz(run->as_of)));
	return false;
}

/*
 * count_of: how many rows a stage has to do; $1 is the run's instant.
 */
static int64
count_of(const char *sql, CsRefresh *run)
{
	bool isnull;

	cs_exec(sql, CS_ARGS(cs_tstz(run->as_of)));
	return DatumGetInt64(cs_value_datum(&isnull));
}

void
cs_refresh_start(CsRefresh *run, bool force_scan)
{
	CsFrame frame;

	if (RecoveryInProgress())
		ereport(ERROR, errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				errmsg("cannot refresh on a standby"),
				errhint("Refresh on the primary; its results arrive here."));
	memset(run, 0, sizeof(CsRefresh));
	cs_enter(&frame);
	(void) cs_policy(false);
	run->as_of = cs_now();
	run->force_scan = force_scan;
	if (force_scan)
		cs_forget_expired();
	run->notice_level = DEBUG1;
	run->commits = true;
	run->to_ingest = run->to_evaluate = -1;
	cs_leave(&frame);
}

/*
 * plan_anew: the tables that a long run fills were empty when its statements
 * were planned, and nobody analyses them before it ends: such a plan reads all
 * of them for each batch.  So plans are made again whenever the run has become
 * twice as long: the first refresh of 140,000 customers takes 14 to 16 s of CPU with
 * it and 18 s without, and 24 s where customers are not named either (see
 * write_membership).
 */
static void
plan_anew(CsRefresh *run)
{
	run->steps++;
	if (run->steps >= 32 && (run->steps & (run->steps - 1)) == 0)
		ResetPlanCache();
}

/*
 * cs_refresh_step: see refresh.h.
 */
bool
cs_refresh_step(CsRefresh *run)
{
	CsFrame frame;
	bool more = true;

	CHECK_FOR_INTERRUPTS();
	plan_anew(run);
	lock_refresher();
	PushActiveSnapshot(GetTransactionSnapshot());
	cs_enter(&frame);
	/*
	 * A batch is some thousand customers that stand together: the pages of one
	 * probe serve the next, which the planner does not know. At its usual costs
	 * it reads tables of some hundred thousand rows whole for each batch.
	 */
	if (run->phase == PHASE_INGEST || run->phase == PHASE_EVALUATE)
		(void) set_config_option("random_page_cost", "0.1", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	switch (run->phase)
	{
		case PHASE_COLLECT:
			cs_with_snapshot(step_collect, run, false);
			run->phase = PHASE_BUILD;
			break;
		case PHASE_BUILD:
			if (cs_usage_build_position() >= 0)
			{
				lock_everybody();
				cs_with_snapshot(step_build, run, false);
			}
			else if (cs_ledger_build_waits())
			{
				lock_everybody();
				cs_with_snapshot(step_ledger_build, run, false);
			}
			else
				run->phase = PHASE_INGEST;
			break;
		case PHASE_INGEST:
			if (run->to_ingest < 0)
				run->to_ingest =
					count_of("SELECT count(*) FROM cs_internal.pending WHERE $1 IS NOT NULL", run);
			if (choose_chunk(run))
				cs_with_snapshot(step_ingest, run, true);
			else
				run->phase = PHASE_EXTENT;
			break;
		case PHASE_EXTENT:
			cs_with_snapshot(step_extent, run, false);
			(void) cs_references_fix(cs_local_day(run->as_of, cs_policy(false)->time_zone), false);
			run->phase = PHASE_EVALUATE;
			break;
		case PHASE_EVALUATE:
			if (run->to_evaluate < 0)
				run->to_evaluate = count_of(
					"SELECT (SELECT count(*) FROM cs_internal.dirty) + (SELECT count(*)"
					" FROM cs_internal.state s WHERE s.due_at <= $1 AND NOT EXISTS"
					" (SELECT 1 FROM cs_internal.dirty d WHERE d.customer_id = s.customer_id))",
					run);
			if (choose_batch(run))
				cs_with_snapshot(step_evaluate, run, true);
			else if (!first_references(run))
			{
				remember(&run->after, NULL);
				run->phase = PHASE_SUMMARY;
			}
			break;
		case PHASE_SUMMARY:
			if (!summarise(run))
			{
				remember(&run->after, NULL);
				run->phase = PHASE_DONE;
			}
			break;
		case PHASE_DONE:
			more = cs_with_snapshot(step_done, run, false);
			break;
	}
	cs_leave(&frame);
	PopActiveSnapshot();
	return more;
}

/*
 * cs_refresh_yield: see refresh.h.
 */
bool
cs_refresh_yield(CsRefresh *run)
{
	if (run->phase != PHASE_EVALUATE || run->pass == 0 || !run->passed)
		return false;
	remember(&run->after, NULL);
	run->phase = PHASE_DONE;
	run->yielded = true;
	return true;
}

/*
 * cs_refresh_needed: see refresh.h.
 */
bool
cs_refresh_needed(TimestampTz *next_due)
{
	CsFrame frame;
	bool needed;
	bool isnull;
	TimestampTz now;
	Datum due;

	cs_enter(&frame);
	now = cs_now();
	cs_exec("SELECT EXISTS (SELECT 1 FROM cs_internal.change_log) OR EXISTS (SELECT 1 FROM "
			"cs_internal.pending)"
			" OR EXISTS (SELECT 1 FROM cs_internal.dirty)"
			" OR EXISTS (SELECT 1 FROM cs_internal.usage_build)"
			" OR EXISTS (SELECT 1 FROM cs_internal.ledger_build)"
			" OR EXISTS (SELECT 1 FROM cs.source s LEFT JOIN cs_internal.source_state t ON "
			"t.source = s.name"
			" WHERE s.enabled AND (t.source IS NULL OR t.needs_scan OR (t.capture <> 'trigger' AND"
			" (t.looked_at IS NULL OR t.looked_at <= clock_timestamp() - make_interval(secs => "
			"$1)))) AND (t.retry_at <= clock_timestamp()) IS NOT FALSE)"
			" OR EXISTS (SELECT 1 FROM cs_internal.state WHERE due_at <= $2)",
			CS_ARGS(cs_float8(cs_scan_interval), cs_tstz(now)));
	needed = *cs_value() == 't';
	*next_due = DT_NOEND;
	cs_exec("SELECT least((SELECT min(due_at) FROM cs_internal.state WHERE due_at > $2),"
			" (SELECT min(looked_at) + make_interval(secs => $1) FROM cs_internal.source_state "
			"WHERE capture <> 'trigger'),"
			" (SELECT min(t.retry_at) FROM cs_internal.source_state t JOIN cs.source s"
			"  ON s.name = t.source AND s.enabled WHERE t.retry_at > clock_timestamp()))",
			CS_ARGS(cs_float8(cs_scan_interval), cs_tstz(now)));
	due = cs_value_datum(&isnull);
	if (!isnull)
		*next_due = DatumGetTimestampTz(due);
	cs_leave(&frame);
	return needed;
}
