/*
 * ledger.c
 *		The ledger: subscriptions in, cs_internal.movement out, and from there
 *		the ledger columns of a customer's state.
 *
 * Ingest reads all subscription rows of a chunk of customers as
 * policy.run_as (one contained query a source), hands each customer's rows to
 * the sweep and writes the difference between what the sweep says and what
 * stands in movement.  The movements are a function of the facts, cs.fx_rate
 * and the policy alone, never of the instant: starts and ends that lie ahead
 * stand there too, and who reads cuts at an instant.
 *
 * Balances are taken just before an instant (DEFINITIONS B.1), or on it where
 * policy.period_edge is 'at'.
 */
#include "cs_ext.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"
#include "utils/formatting.h"
#include "utils/memutils.h"

#include "facts/ledger.h"
#include "facts/ledger_sweep.h"
#include "facts/source.h"

/* A term or a cancellation, and whose it is. */
typedef struct OwnedTerm
{
	const char *customer;
	CsTerm term;
} OwnedTerm;

typedef struct OwnedCancellation
{
	const char *customer;
	CsCancellation cancellation;
} OwnedCancellation;

typedef struct Chunk
{
	OwnedTerm *terms;
	int nterms;
	int terms_size;
	OwnedCancellation *cancellations;
	int ncancellations;
	int cancellations_size;
} Chunk;

/* ------------------------------------------------------------------ reading */

/*
 * Runs `select` over the rows of a source; the first column is the outside id.
 * NULL when the source cannot be read (relation or column gone, no right, too
 * slow): that is noted, and the source will be read whole once it can be.
 */
static CsResult *
read_source(const CsSource *source, const char *select, bool cut, Datum ids, TimestampTz as_of,
			DateADT as_of_day)
{
	CsUserQuery query = {0};
	ErrorData *error = NULL;
	CsResult *rows;

	query.sql =
		psprintf(select, cs_source_id(source, "r.customer_key"), cs_source_rows(source, true, cut));
	query.as_of = as_of;
	query.as_of_day = as_of_day;
	cs_source_keys(source, ids, &query);
	rows = cs_user_query(&query, &error);
	if (rows == NULL)
		cs_source_failed(source, error->message);
	return rows;
}

/* Column 1 is the customer, then the columns of cs_internal.subscription_fact. */
static const char *const fact_select =
	"SELECT %s AS customer_id, r.start_at, r.end_at, r.mrr::numeric, r.currency::text,"
	" r.status::text,"
	" r.is_trial, r.is_recurring, r.changed_at, r.cancel_requested_at,"
	" r.cancel_reason::text, r.churn_kind::text, r.auto_renew"
	" FROM (%s) r";

static const char *const cancellation_select =
	"SELECT %s AS customer_id, r.at, r.churn_kind::text, r.reason::text FROM (%s) r";

/* Counts what the ledger, not the source, finds unusable. */
static void
note_unusable(Tuplestorestate *store, TupleDesc desc, const CsSource *source, const char *customer,
			  char *reason)
{
	Datum values[3];
	bool nulls[3] = {false, false, false};

	values[0] = CStringGetTextDatum(source->name);
	values[1] = CStringGetTextDatum(customer);
	values[2] = CStringGetTextDatum(reason);
	tuplestore_putvalues(store, desc, values, nulls);
}

/* What is wrong with a row, as it will stand in cs_internal.unusable. */
static char *
unusable_reason(CsTermResult result, const Datum *values, const CsPolicy *policy)
{
	DateADT day;
	char *currency;

	if (result == CS_TERM_RANGE)
		return "MRR out of range";
	currency = TextDatumGetCString(values[FACT_CURRENCY]);
	day = cs_local_day(DatumGetTimestampTz(values[FACT_START_AT]), policy->time_zone);
	return psprintf("no fx_rate for %s at %s", asc_toupper(currency, strlen(currency)),
					DatumGetCString(DirectFunctionCall1(date_out, DateADTGetDatum(day))));
}

/* All terms of the customers in one source go into the chunk; false: it cannot be read. */
static bool
read_terms(Chunk *chunk, const CsSource *source, Datum ids, const CsPolicy *policy,
		   const CsRates *rates, CsResult *unusable)
{
	TimestampTz now = cs_now();
	CsResult *rows =
		read_source(source, fact_select, false, ids, now, cs_local_day(now, policy->time_zone));
	TupleTableSlot *slot;

	if (rows == NULL)
		return false;
	slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);
	tuplestore_rescan(rows->store);
	while (tuplestore_gettupleslot(rows->store, true, false, slot))
	{
		OwnedTerm owned;
		CsTermResult result;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		if (slot->tts_isnull[0])
			continue;
		result = cs_term_make(slot->tts_values + 1, slot->tts_isnull + 1, rates, &owned.term);
		owned.customer = TextDatumGetCString(slot->tts_values[0]);
		if (result == CS_TERM_NO_RATE || result == CS_TERM_RANGE)
			note_unusable(unusable->store, unusable->desc, source, owned.customer,
						  unusable_reason(result, slot->tts_values + 1, policy));
		if (result != CS_TERM_OK)
			continue;
		if (chunk->nterms == chunk->terms_size)
		{
			chunk->terms_size *= 2;
			chunk->terms = repalloc_huge(chunk->terms, sizeof(OwnedTerm) * chunk->terms_size);
		}
		chunk->terms[chunk->nterms++] = owned;
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(rows->store);
	return true;
}

static bool
read_cancellations(Chunk *chunk, const CsSource *source, Datum ids, const CsPolicy *policy)
{
	TimestampTz now = cs_now();
	CsResult *rows = read_source(source, cancellation_select, false, ids, now,
								 cs_local_day(now, policy->time_zone));
	TupleTableSlot *slot;

	if (rows == NULL)
		return false;
	slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);
	tuplestore_rescan(rows->store);
	while (tuplestore_gettupleslot(rows->store, true, false, slot))
	{
		OwnedCancellation *owned;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		if (slot->tts_isnull[0] || slot->tts_isnull[1])
			continue;
		if (chunk->ncancellations == chunk->cancellations_size)
		{
			chunk->cancellations_size *= 2;
			chunk->cancellations = repalloc_huge(
				chunk->cancellations, sizeof(OwnedCancellation) * chunk->cancellations_size);
		}
		owned = &chunk->cancellations[chunk->ncancellations++];
		owned->customer = TextDatumGetCString(slot->tts_values[0]);
		owned->cancellation.at = DatumGetTimestampTz(slot->tts_values[1]);
		owned->cancellation.churn_kind =
			slot->tts_isnull[2] ? NULL : TextDatumGetCString(slot->tts_values[2]);
		owned->cancellation.reason =
			slot->tts_isnull[3] ? NULL : TextDatumGetCString(slot->tts_values[3]);
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(rows->store);
	return true;
}

static int
owned_term_cmp(const void *a, const void *b)
{
	return strcmp(((const OwnedTerm *) a)->customer, ((const OwnedTerm *) b)->customer);
}

static int
owned_cancellation_cmp(const void *a, const void *b)
{
	return strcmp(((const OwnedCancellation *) a)->customer,
				  ((const OwnedCancellation *) b)->customer);
}

/* ------------------------------------------------------------------ writing */

/* An empty relation to be filled and registered. */
static CsResult *
empty_result(TupleDesc desc)
{
	CsResult *r = palloc0(sizeof(CsResult));

	r->desc = BlessTupleDesc(desc);
	r->store = tuplestore_begin_heap(false, false, CS_RESULT_MEM);
	return r;
}

static CsResult *
movement_result(void)
{
	TupleDesc desc = CreateTemplateTupleDesc(MOVEMENT_COLUMNS + 1);

	TupleDescInitEntry(desc, 1, "customer_id", TEXTOID, -1, 0);
	TupleDescInitEntryCollation(desc, 1, C_COLLATION_OID);
	TupleDescInitEntry(desc, 2, "at", TIMESTAMPTZOID, -1, 0);
	TupleDescInitEntry(desc, 3, "seq", INT2OID, -1, 0);
	TupleDescInitEntry(desc, 4, "kind", TEXTOID, -1, 0);
	TupleDescInitEntry(desc, 5, "delta", NUMERICOID, -1, 0);
	TupleDescInitEntry(desc, 6, "mrr_after", NUMERICOID, -1, 0);
	TupleDescInitEntry(desc, 7, "active_after", BOOLOID, -1, 0);
	TupleDescInitEntry(desc, 8, "churn_kind", TEXTOID, -1, 0);
	TupleDescInitEntry(desc, 9, "reason", TEXTOID, -1, 0);
	return empty_result(desc);
}

static CsResult *
unusable_result(void)
{
	TupleDesc desc = CreateTemplateTupleDesc(3);

	TupleDescInitEntry(desc, 1, "source", TEXTOID, -1, 0);
	TupleDescInitEntry(desc, 2, "customer_id", TEXTOID, -1, 0);
	TupleDescInitEntryCollation(desc, 2, C_COLLATION_OID);
	TupleDescInitEntry(desc, 3, "reason", TEXTOID, -1, 0);
	return empty_result(desc);
}

/* Sweeps one customer's terms and puts its movements into `result`. */
static void
sweep_customer(CsResult *result, CsResult *unusable, const char *customer, CsTerm *terms,
			   int nterms, CsCancellation *cancellations, int ncancellations,
			   const CsSweepRules *rules, const CsSource *any_source)
{
	int n;
	CsMovement *movements = cs_sweep(terms, nterms, cancellations, ncancellations, rules, &n);
	Datum values[MOVEMENT_COLUMNS + 1];
	bool nulls[MOVEMENT_COLUMNS + 1] = {false};

	for (int i = 0; i < n; i++)
	{
		if (cs_money_in_range(movements[i].mrr_after, 14) &&
			cs_money_in_range(movements[i].delta, 14))
			continue;
		note_unusable(unusable->store, unusable->desc, any_source, customer, "MRR out of range");
		return;
	}

	values[0] = CStringGetTextDatum(customer);
	for (int i = 0; i < n; i++)
	{
		cs_movement_values(&movements[i], values + 1, nulls + 1);
		tuplestore_putvalues(result->store, result->desc, values, nulls);
		result->nrows++;
	}
}

/*
 * Replaces what stands in the ledger of these customers by `result`: rows that
 * stay as they are are not touched.
 */
static void
write_movements(Datum ids, CsResult *result)
{
	cs_register("ledger_new", result);
	cs_exec("DELETE FROM cs_internal.movement m"
			" WHERE m.customer_id = ANY ($1) AND NOT EXISTS ("
			"SELECT FROM ledger_new n"
			" WHERE n.customer_id = m.customer_id AND n.at = m.at AND n.seq = m.seq"
			" AND n.kind = m.kind AND n.delta = m.delta AND n.mrr_after = m.mrr_after"
			" AND n.active_after = m.active_after"
			" AND n.churn_kind IS NOT DISTINCT FROM m.churn_kind"
			" AND n.reason IS NOT DISTINCT FROM m.reason)",
			CS_ARGS(cs_textarray(ids)));
	cs_exec("INSERT INTO cs_internal.movement (customer_id, at, seq, kind, delta, mrr_after,"
			" active_after, churn_kind, reason)"
			" SELECT n.customer_id, n.at, n.seq, n.kind, n.delta, n.mrr_after, n.active_after,"
			" n.churn_kind, n.reason FROM ledger_new n"
			" WHERE NOT EXISTS (SELECT FROM cs_internal.movement m"
			" WHERE m.customer_id = ANY ($1) AND m.customer_id = n.customer_id"
			" AND m.at = n.at AND m.seq = n.seq)",
			CS_ARGS(cs_textarray(ids)));
	cs_unregister("ledger_new");
}

/* The ledger's part of cs_internal.unusable; the source's own reasons are left alone. */
static void
write_unusable(Datum ids, CsResult *unusable)
{
	cs_exec("DELETE FROM cs_internal.unusable"
			" WHERE found_by = 'ledger' AND customer_id = ANY ($1)",
			CS_ARGS(cs_textarray(ids)));
	cs_register("ledger_unusable", unusable);
	cs_exec("INSERT INTO cs_internal.unusable (source, customer_id, reason, row_count, example, "
			"found_by)"
			" SELECT source, customer_id, reason, count(*), 'customer ' || customer_id, 'ledger'"
			" FROM ledger_unusable GROUP BY 1, 2, 3",
			CS_NO_ARGS);
	cs_unregister("ledger_unusable");
}

/* Sweeps all customers of a chunk, each in a context that is reset after it. */
static void
sweep_chunk(Chunk *chunk, CsResult *result, CsResult *unusable, MemoryContext sweep_context,
			const CsSweepRules *rules, const CsSource *any_source)
{
	MemoryContext old_context;
	int c = 0;

	qsort(chunk->terms, chunk->nterms, sizeof(OwnedTerm), owned_term_cmp);
	qsort(chunk->cancellations, chunk->ncancellations, sizeof(OwnedCancellation),
		  owned_cancellation_cmp);

	old_context = MemoryContextSwitchTo(sweep_context);
	for (int t = 0; t < chunk->nterms;)
	{
		const char *customer = chunk->terms[t].customer;
		CsTerm *terms;
		CsCancellation *cancellations;
		int nterms = 0;
		int ncancellations = 0;

		while (t + nterms < chunk->nterms &&
			   strcmp(chunk->terms[t + nterms].customer, customer) == 0)
			nterms++;
		while (c < chunk->ncancellations && strcmp(chunk->cancellations[c].customer, customer) < 0)
			c++;
		while (c + ncancellations < chunk->ncancellations &&
			   strcmp(chunk->cancellations[c + ncancellations].customer, customer) == 0)
			ncancellations++;

		terms = palloc(sizeof(CsTerm) * nterms);
		for (int i = 0; i < nterms; i++)
			terms[i] = chunk->terms[t + i].term;
		cancellations = palloc(sizeof(CsCancellation) * (ncancellations + 1));
		for (int i = 0; i < ncancellations; i++)
			cancellations[i] = chunk->cancellations[c + i].cancellation;

		sweep_customer(result, unusable, customer, terms, nterms, cancellations, ncancellations,
					   rules, any_source);
		t += nterms;
		c += ncancellations;
		MemoryContextReset(sweep_context);
	}
	MemoryContextSwitchTo(old_context);
}

/*
 * Recomputes the movements of these customers (text[]) from all subscription
 * and cancellation sources.  A customer without a usable row ends up without a
 * movement.  Rows in a currency without a rate are left out and counted.
 * While one of the sources cannot be read, what stands there is kept.
 */
void
cs_ledger_ingest(Datum ids, const CsPolicy *policy)
{
	MemoryContext chunk_context =
		AllocSetContextCreate(CurrentMemoryContext, "cs_ext ledger", ALLOCSET_DEFAULT_SIZES);
	MemoryContext sweep_context =
		AllocSetContextCreate(chunk_context, "cs_ext ledger sweep", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(chunk_context);
	List *sources = cs_sources("subscription");
	CsSweepRules rules = {policy->free_is_active, policy->max_pause_days};
	CsRates *rates = cs_rates_load(policy);
	CsResult *result = movement_result();
	CsResult *unusable = unusable_result();
	Chunk chunk = {0};
	bool readable = true;
	ListCell *lc;

	chunk.terms_size = chunk.cancellations_size = 256;
	chunk.terms = palloc(sizeof(OwnedTerm) * chunk.terms_size);
	chunk.cancellations = palloc(sizeof(OwnedCancellation) * chunk.cancellations_size);

	foreach (lc, sources)
		readable &= read_terms(&chunk, lfirst(lc), ids, policy, rates, unusable);
	foreach (lc, cs_sources("cancellation"))
		readable &= read_cancellations(&chunk, lfirst(lc), ids, policy);

	/* half of the facts would show churn that never was */
	if (readable)
	{
		sweep_chunk(&chunk, result, unusable, sweep_context, &rules,
					sources == NIL ? NULL : linitial(sources));
		write_movements(ids, result);
		write_unusable(ids, unusable);
	}

	tuplestore_end(result->store);
	tuplestore_end(unusable->store);
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(chunk_context);
}

/* ------------------------------------------------------------------- reading */

/* Of the rows of one source, what the ledger columns need of each customer. */
static char *
state_select(bool edge_at)
{
	return psprintf(
		"SELECT %%s AS customer_id,"
		" sum(r.seats::numeric) FILTER (WHERE r.counts) AS seats,"
		" bool_or(r.tries) AS in_trial,"
		" min(r.renews_at) FILTER (WHERE r.counts) AS renews_at"
		" FROM (SELECT t.customer_key, t.seats, t.renews_at,"
		" t.runs AND t.status IN ('active', 'past_due', 'canceled')"
		" AND t.is_trial IS NOT TRUE AS counts,"
		" t.runs AND ((t.is_trial AND t.status IN ('active', 'past_due', 'canceled'))"
		" OR t.status = 'trialing') IS TRUE AS tries"
		" FROM (SELECT u.customer_key, u.seats, u.renews_at, u.is_trial,"
		" coalesce(u.status::text, 'active') AS status,"
		" u.start_at %s as_of AND u.is_recurring IS NOT FALSE"
		" AND coalesce(u.end_at, CASE WHEN u.status::text = 'canceled'"
		" THEN coalesce(u.changed_at, u.cancel_requested_at, '-infinity') END, 'infinity')"
		" %s as_of AS runs"
		" FROM (%%s) u) t) r"
		" GROUP BY r.customer_key",
		edge_at ? "<=" : "<", edge_at ? ">" : ">=");
}

/* What state_select gives, without a row. */
static CsResult *
no_facts(void)
{
	TupleDesc desc = CreateTemplateTupleDesc(4);

	TupleDescInitEntry(desc, 1, "customer_id", TEXTOID, -1, 0);
	TupleDescInitEntryCollation(desc, 1, C_COLLATION_OID);
	TupleDescInitEntry(desc, 2, "seats", NUMERICOID, -1, 0);
	TupleDescInitEntry(desc, 3, "in_trial", BOOLOID, -1, 0);
	TupleDescInitEntry(desc, 4, "renews_at", TIMESTAMPTZOID, -1, 0);
	return empty_result(desc);
}

/* Puts all rows of `from` into `into`, which is created from the first. */
static CsResult *
append_rows(CsResult *into, CsResult *from)
{
	TupleTableSlot *slot;

	if (into == NULL)
		return from;
	slot = MakeSingleTupleTableSlot(from->desc, &TTSOpsMinimalTuple);
	tuplestore_rescan(from->store);
	while (tuplestore_gettupleslot(from->store, true, false, slot))
	{
		tuplestore_puttupleslot(into->store, slot);
		into->nrows++;
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(from->store);
	return into;
}

/*
 * Stage: mrr, active, in_trial, seats, tenure_days, days_to_renewal of
 * cs_internal.state for the batch (SURFACE 7, ledger columns).  Where no
 * subscription source is registered all are NULL: nothing is known.  While one
 * cannot be read, so are those that do not come from the ledger.
 */
void
cs_stage_ledger(CsBatch *batch)
{
	const CsPolicy *policy = batch->policy;
	const char *until = policy->edge_at ? "<=" : "<";
	List *sources = cs_sources("subscription");
	CsResult *facts = NULL;
	char *select = state_select(policy->edge_at);
	bool readable = true;
	ListCell *lc;

	if (sources == NIL)
	{
		cs_exec("UPDATE cs_internal.state s SET mrr = NULL, active = NULL, in_trial = NULL,"
				" seats = NULL, tenure_days = NULL, days_to_renewal = NULL"
				" FROM batch b WHERE s.customer_id = b.customer_id",
				CS_NO_ARGS);
		return;
	}
	foreach (lc, sources)
	{
		CsResult *rows =
			read_source(lfirst(lc), select, true, batch->ids, batch->as_of, batch->as_of_day);

		readable &= rows != NULL;
		if (rows != NULL)
			facts = append_rows(facts, rows);
	}
	if (!readable)
		facts = no_facts();

	/*
	 * The balance is one index probe a customer.  The active period began at
	 * the last start that was not within gap_days_tenure of the end before it.
	 */
	cs_register("ledger_facts", facts);
	cs_exec(
		psprintf(
			"UPDATE cs_internal.state s SET"
			" mrr = coalesce(m.mrr_after, 0),"
			" active = coalesce(m.active_after, false),"
			" in_trial = CASE WHEN $4 THEN coalesce(f.in_trial, false) END,"
			" seats = f.seats,"
			" tenure_days = CASE WHEN m.active_after THEN $2 - p.since::date END,"
			" days_to_renewal = f.renews_at::date - $2"
			" FROM batch b"
			" LEFT JOIN LATERAL ("
			"SELECT v.mrr_after, v.active_after FROM cs_internal.movement v"
			" WHERE v.customer_id = b.customer_id AND v.at %1$s $1"
			" ORDER BY v.at DESC, v.seq DESC LIMIT 1) m ON true"
			" LEFT JOIN LATERAL ("
			"SELECT max(x.at) AS since FROM ("
			"SELECT w.at, w.active_after, lag(w.at) OVER (ORDER BY w.at, w.seq) AS before FROM ("
			"SELECT v.at, v.seq, v.active_after,"
			" lag(v.active_after, 1, false) OVER (ORDER BY v.at, v.seq) AS was_active"
			" FROM cs_internal.movement v"
			" WHERE v.customer_id = b.customer_id AND v.at %1$s $1) w"
			" WHERE w.active_after <> w.was_active) x"
			" WHERE x.active_after"
			" AND (x.before IS NULL OR x.before + make_interval(days => $3) < x.at)) p ON true"
			" LEFT JOIN (SELECT customer_id, sum(seats) AS seats, bool_or(in_trial) AS in_trial,"
			" min(renews_at) AS renews_at FROM ledger_facts GROUP BY customer_id) f"
			" ON f.customer_id = b.customer_id"
			" WHERE s.customer_id = b.customer_id",
			until),
		CS_ARGS(cs_tstz(batch->as_of), cs_date(batch->as_of_day), cs_int4(policy->gap_days_tenure),
				cs_bool(readable)));
	cs_unregister("ledger_facts");
	tuplestore_end(facts->store);
}

/*
 * The ledger as metrics see it: the columns of state, and mrr_ago_<n>, the MRR
 * at the local midnight of D - n (0 before the first movement, NULL where no
 * subscription source is registered).
 */
CsResult *
cs_ledger_rows(const CsBatch *batch, List *ago_days)
{
	const CsPolicy *policy = batch->policy;
	int nago = list_length(ago_days);
	CsArg *args = palloc(sizeof(CsArg) * (nago + 1));
	StringInfoData columns;
	StringInfoData joins;
	ListCell *lc;
	int i = 0;

	initStringInfo(&columns);
	initStringInfo(&joins);
	foreach (lc, ago_days)
	{
		int days = lfirst_int(lc);

		args[i++] = cs_tstz(cs_local_midnight(batch->as_of_day - days, policy->time_zone));
		appendStringInfo(&columns,
						 ", CASE WHEN s.mrr IS NOT NULL THEN coalesce(a%d.mrr_after, 0) END"
						 " AS mrr_ago_%d",
						 i, days);
		appendStringInfo(&joins,
						 " LEFT JOIN LATERAL (SELECT v.mrr_after FROM cs_internal.movement v"
						 " WHERE v.customer_id = s.customer_id AND v.at %s $%d"
						 " ORDER BY v.at DESC, v.seq DESC LIMIT 1) a%d ON true",
						 policy->edge_at ? "<=" : "<", i, i);
	}
	return cs_query(psprintf("SELECT s.customer_id, s.mrr, s.tenure_days, s.days_to_renewal,"
							 " s.seats%s"
							 " FROM batch b JOIN cs_internal.state s"
							 " ON s.customer_id = b.customer_id%s",
							 columns.data, joins.data),
					args, i);
}
