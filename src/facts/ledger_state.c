/*
 * ledger_state.c
 *		What a customer's state takes from the ledger.
 *
 * In: cs_internal.movement (one pass over those of each customer) and, as they
 * were known at the evaluated instant, subscription and licence rows.  Out: the
 * ledger columns of state, when the next movement is, and the same as metrics
 * see them, with balances some days ago.
 */
#include "cs_ext.h"

#include "catalog/pg_collation_d.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/fmgrprotos.h"

#include "facts/ledger.h"
#include "facts/ledger_facts.h"
#include "facts/source.h"
#include "refresh/state.h"

/*
 * Of the rows of one source, what the ledger columns need of each customer.
 * Seats of past due rows apart: they count while their grace lasts.
 */
static char *
state_select(bool edge_at)
{
	return psprintf(
		"SELECT %%s AS customer_id,"
		" sum(r.seats::numeric) FILTER (WHERE r.counts AND r.status <> 'past_due') AS seats,"
		" sum(r.seats::numeric) FILTER (WHERE r.counts AND r.status = 'past_due') AS seats_due,"
		" bool_or(r.tries) AS in_trial,"
		" min(r.renews_at) FILTER (WHERE r.counts) AS renews_at"
		" FROM (SELECT t.customer_key, t.seats, t.renews_at, t.status,"
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

/* Seats of the licences that run. */
static char *
licence_select(bool edge_at)
{
	return psprintf("SELECT %%s AS customer_id, sum(r.seats::numeric) AS seats FROM (%%s) r"
					" WHERE r.start_at %s as_of AND coalesce(r.end_at, 'infinity') %s as_of"
					" GROUP BY r.customer_key",
					edge_at ? "<=" : "<", edge_at ? ">" : ">=");
}

/* What state_select gives, without a row. */
static CsResult *
no_facts(void)
{
	TupleDesc desc = CreateTemplateTupleDesc(5);

	TupleDescInitEntry(desc, 1, "customer_id", TEXTOID, -1, 0);
	TupleDescInitEntryCollation(desc, 1, C_COLLATION_OID);
	TupleDescInitEntry(desc, 2, "seats", NUMERICOID, -1, 0);
	TupleDescInitEntry(desc, 3, "seats_due", NUMERICOID, -1, 0);
	TupleDescInitEntry(desc, 4, "in_trial", BOOLOID, -1, 0);
	TupleDescInitEntry(desc, 5, "renews_at", TIMESTAMPTZOID, -1, 0);
	return cs_empty_result(desc);
}

/* What licence_select gives, without a row. */
static CsResult *
no_licences(void)
{
	TupleDesc desc = CreateTemplateTupleDesc(2);

	TupleDescInitEntry(desc, 1, "customer_id", TEXTOID, -1, 0);
	TupleDescInitEntryCollation(desc, 1, C_COLLATION_OID);
	TupleDescInitEntry(desc, 2, "seats", NUMERICOID, -1, 0);
	return cs_empty_result(desc);
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
 * Rows of all sources of a kind, or of none where one cannot be read; the ids
 * are those the facts stand under.
 */
static CsResult *
read_all(const char *kind, const char *select, const CsBatch *batch, CsResult *none, bool *readable)
{
	CsResult *facts = NULL;
	Datum ids = batch->whose->fact_ids;
	ListCell *lc;

	*readable = true;
	foreach (lc, cs_sources(kind))
	{
		const CsSource *source = lfirst(lc);
		CsResult *rows = source->current ? cs_version_state(source, select, ids, batch->as_of)
										 : cs_ledger_select(source, select, true, ids, batch->as_of,
															batch->as_of_day);

		*readable &= rows != NULL;
		if (rows != NULL)
			facts = append_rows(facts, rows);
	}
	return *readable && facts != NULL ? facts : none;
}

/* One customer's movements, in order, as far as they were read. */
typedef struct Run
{
	int row; /* of the state; -1: none yet */
	Datum mrr;
	bool any;
	bool active;
	TimestampTz since; /* begin of the active period */
	TimestampTz ended; /* end of the one before; DT_NOBEGIN: there was none */
} Run;

/* What the movements of a customer up to the instant say. */
static void
put_run(CsBatch *batch, const Run *run)
{
	int days = 0;

	if (run->row < 0)
		return;
	if (run->any)
		cs_state_set(batch->state, run->row, CS_STATE_MRR, run->mrr, false);
	cs_state_set(batch->state, run->row, CS_STATE_ACTIVE, BoolGetDatum(run->active), false);
	if (run->active)
		days = batch->as_of_day - cs_local_day(run->since, batch->policy->time_zone);
	cs_state_set(batch->state, run->row, CS_STATE_TENURE_DAYS, Int32GetDatum(days), !run->active);
}

/*
 * mrr, active and tenure_days, and when the next movement is, from one pass over
 * the movements.  The active period began at the last start that was not within
 * gap_days_tenure of the end before it; a customer that was merged away ended
 * there, and did not begin by it.
 */
static void
put_balances(CsBatch *batch)
{
	const CsPolicy *policy = batch->policy;
	Datum zero = DirectFunctionCall3(numeric_in, CStringGetDatum("0.000000"),
									 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	Run run = {-1};
	uint64 n;

	for (int i = 0; i < batch->state->n; i++)
	{
		cs_state_set(batch->state, i, CS_STATE_MRR, zero, false);
		cs_state_set(batch->state, i, CS_STATE_ACTIVE, BoolGetDatum(false), false);
		cs_state_set(batch->state, i, CS_STATE_TENURE_DAYS, (Datum) 0, true);
	}
	n = cs_exec("SELECT b.customer_id, m.at, m.mrr_after, m.active_after FROM batch b"
				" CROSS JOIN LATERAL (SELECT v.at, v.mrr_after, v.active_after"
				" FROM cs_internal.movement v WHERE v.customer_id = b.customer_id"
				" ORDER BY v.at, v.seq OFFSET 0) m",
				CS_NO_ARGS);
	for (uint64 r = 0; r < n; r++)
	{
		bool isnull;
		text *id = DatumGetTextPP(cs_cell_datum(r, 1, &isnull));
		TimestampTz at = DatumGetTimestampTz(cs_cell_datum(r, 2, &isnull));
		bool active = DatumGetBool(cs_cell_datum(r, 4, &isnull));
		const char *known = run.row < 0 ? "" : batch->state->ids[run.row];

		if (strlen(known) != VARSIZE_ANY_EXHDR(id) ||
			memcmp(known, VARDATA_ANY(id), VARSIZE_ANY_EXHDR(id)) != 0)
		{
			CHECK_FOR_INTERRUPTS();
			put_run(batch, &run);
			run = (Run){
				cs_state_row(batch->state, text_to_cstring(id)), 0, false, false, 0, DT_NOBEGIN};
		}
		if (run.row < 0)
			continue;
		if (policy->edge_at ? at > batch->as_of : at >= batch->as_of)
		{
			batch->state->next_movement[run.row] = Min(batch->state->next_movement[run.row], at);
			continue;
		}
		run.mrr = cs_cell_datum(r, 3, &isnull);
		run.any = true;
		if (active == run.active)
			continue;
		if (active &&
			(run.ended == DT_NOBEGIN || cs_days_after(run.ended, policy->gap_days_tenure) < at))
			run.since = at;
		if (!active)
			run.ended = at;
		run.active = active;
	}
	put_run(batch, &run);
	SPI_freetuptable(SPI_tuptable);
}

/*
 * Stage: mrr, active, in_trial, seats, tenure_days, days_to_renewal of the
 * batch's rows of state (SURFACE 7, ledger columns).  Where no
 * subscription source is registered all are NULL: nothing is known.  While one
 * cannot be read, so are those that do not come from the ledger.
 */
void
cs_stage_ledger(CsBatch *batch)
{
	const CsPolicy *policy = batch->policy;
	CsState *state = batch->state;
	bool licensed = cs_sources("licence") != NIL;
	CsResult *facts;
	CsResult *licences;
	bool readable;
	bool licences_readable;
	uint64 n;

	if (cs_sources("subscription") == NIL)
	{
		for (int i = 0; i < state->n; i++)
			for (int c = CS_STATE_MRR; c <= CS_STATE_DAYS_TO_RENEWAL; c++)
				cs_state_set(state, i, c, (Datum) 0, true);
		return;
	}
	put_balances(batch);
	facts = read_all("subscription", state_select(policy->edge_at), batch, no_facts(), &readable);
	licences = read_all("licence", licence_select(policy->edge_at), batch, no_licences(),
						&licences_readable);

	for (int i = 0; i < state->n; i++)
	{
		cs_state_set(state, i, CS_STATE_IN_TRIAL, BoolGetDatum(false), !readable);
		cs_state_set(state, i, CS_STATE_SEATS, DirectFunctionCall1(int4_numeric, Int32GetDatum(0)),
					 !licensed || !licences_readable);
		cs_state_set(state, i, CS_STATE_DAYS_TO_RENEWAL, (Datum) 0, true);
	}
	cs_register("ledger_facts", facts);
	cs_register("ledger_licences", licences);
	n = cs_exec("SELECT coalesce(o.customer_id, r.customer_id), sum(r.seats),"
				" coalesce(sum(r.seats), 0) + sum(r.seats_due), bool_or(r.in_trial),"
				" min(r.renews_at)::date - $1"
				" FROM ledger_facts r LEFT JOIN fact_owner o ON o.fact_id = r.customer_id"
				" GROUP BY 1",
				CS_ARGS(cs_date(batch->as_of_day)));
	for (uint64 r = 0; r < n; r++)
	{
		int row = cs_state_row(state, cs_cell(r, 1));
		bool isnull;
		Datum value;

		if (row < 0)
			continue;
		value = cs_cell_datum(r, 4, &isnull);
		if (readable)
			cs_state_set(state, row, CS_STATE_IN_TRIAL,
						 BoolGetDatum(!isnull && DatumGetBool(value)), false);
		value = cs_cell_datum(r, 5, &isnull);
		cs_state_set(state, row, CS_STATE_DAYS_TO_RENEWAL, value, isnull);
		if (licensed)
			continue;
		/* past due seats count while the customer is active: that is what grace says */
		value = cs_cell_datum(r, 3, &isnull);
		if (isnull || !DatumGetBool(state->values[CS_STATE_CELL(row, CS_STATE_ACTIVE)]))
			value = cs_cell_datum(r, 2, &isnull);
		cs_state_set(state, row, CS_STATE_SEATS, value, isnull);
	}
	SPI_freetuptable(SPI_tuptable);
	if (licensed && licences_readable)
	{
		n = cs_exec("SELECT coalesce(o.customer_id, r.customer_id), coalesce(sum(r.seats), 0)"
					" FROM ledger_licences r LEFT JOIN fact_owner o ON o.fact_id = r.customer_id"
					" GROUP BY 1",
					CS_NO_ARGS);
		for (uint64 r = 0; r < n; r++)
		{
			int row = cs_state_row(state, cs_cell(r, 1));
			bool isnull;
			Datum value = cs_cell_datum(r, 2, &isnull);

			if (row >= 0)
				cs_state_set(state, row, CS_STATE_SEATS, value, false);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	cs_unregister("ledger_facts");
	cs_unregister("ledger_licences");
	tuplestore_end(facts->store);
	tuplestore_end(licences->store);
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
	CsResult *rows;
	ListCell *lc;
	int i = 0;

	initStringInfo(&columns);
	initStringInfo(&joins);
	foreach (lc, ago_days)
	{
		int days = lfirst_int(lc);

		args[i++] = cs_tstz(cs_clock_midnight(batch->as_of_day - days, policy->time_zone));
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
	cs_state_show(batch);
	rows = cs_query(psprintf("SELECT s.customer_id, s.mrr, s.tenure_days, s.days_to_renewal,"
							 " s.seats%s"
							 " FROM batch b JOIN evaluated s"
							 " ON s.customer_id = b.customer_id%s",
							 columns.data, joins.data),
					args, i);
	cs_state_hide();
	return rows;
}
