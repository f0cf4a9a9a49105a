/*
 * ledger.c
 *		The ledger: facts in, cs_internal.movement out.
 *
 * Ingest reads the facts of a chunk of customers (ledger_facts.c), hands each
 * customer, with those merged with it, to the sweep (ledger_sweep.c) and writes
 * the difference between what the sweep says and what stands in movement.  The
 * movements are a function of the facts, cs.fx_rate and the policy alone, never
 * of the instant: starts and ends that lie ahead stand there too, and who reads
 * cuts at an instant.
 *
 * Balances are taken just before an instant (DEFINITIONS B.1), or on it where
 * policy.period_edge is 'at'.
 */
#include "cs_ext.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/memutils.h"

#include "core/texts.h"
#include "facts/ledger.h"
#include "facts/ledger_facts.h"

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
	TupleDescInitEntry(desc, 10, "term_extension", BOOLOID, -1, 0);
	TupleDescInitEntry(desc, 11, "service_end_at", TIMESTAMPTZOID, -1, 0);
	TupleDescInitEntry(desc, 12, "cancel_requested_at", TIMESTAMPTZOID, -1, 0);
	TupleDescInitEntry(desc, 13, "cancel_effective_at", TIMESTAMPTZOID, -1, 0);
	return cs_empty_result(desc);
}

/*
 * cs_ledger_fits: see ledger_facts.h.
 */
bool
cs_ledger_fits(const CsMember *member, CsResult *unusable)
{
	const char *source = NULL;

	for (int i = 0; i < member->nmovements; i++)
	{
		const CsMovement *m = &member->movements[i];

		if (cs_money_fits(m->mrr_after) && cs_money_fits(m->delta))
			continue;
		/* of several sources the first by name, however the terms came */
		for (int t = 0; t < member->nterms; t++)
		{
			if (source == NULL || strcmp(member->terms[t].source, source) < 0)
				source = member->terms[t].source;
		}
		cs_ledger_unusable(unusable, source ? source : "", member->customer, "MRR out of range");
		return false;
	}
	return true;
}

/* Puts what the sweep made of one customer into the relations. */
static void
put_member(CsResult *result, CsResult *unusable, const CsMember *member)
{
	Datum values[MOVEMENT_COLUMNS + 1];
	bool nulls[MOVEMENT_COLUMNS + 1] = {false};

	if (!cs_ledger_fits(member, unusable))
		return;
	values[0] = CStringGetTextDatum(member->customer);
	for (int i = 0; i < member->nmovements; i++)
	{
		cs_movement_values(&member->movements[i], values + 1, nulls + 1);
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
	/* a first build has nothing to compare with */
	if (cs_exec("SELECT 1 FROM cs_internal.movement WHERE customer_id = ANY ($1) LIMIT 1",
				CS_ARGS(cs_textarray(ids))) == 0)
	{
		if (result->nrows == 0)
			return;
		cs_register("ledger_new", result);
		cs_exec("INSERT INTO cs_internal.movement (customer_id, at, seq, kind, delta, mrr_after,"
				" active_after, churn_kind, reason, term_extension, service_end_at,"
				" cancel_requested_at, cancel_effective_at) SELECT * FROM ledger_new",
				CS_NO_ARGS);
		cs_unregister("ledger_new");
		return;
	}
	cs_register("ledger_new", result);
	cs_exec("DELETE FROM cs_internal.movement m"
			" WHERE m.customer_id = ANY ($1) AND NOT EXISTS ("
			"SELECT FROM ledger_new n"
			" WHERE n.customer_id = m.customer_id AND n.at = m.at AND n.seq = m.seq"
			" AND n.kind = m.kind AND n.delta = m.delta AND n.mrr_after = m.mrr_after"
			" AND n.active_after = m.active_after AND n.term_extension = m.term_extension"
			" AND (n.churn_kind, n.reason, n.service_end_at, n.cancel_requested_at,"
			" n.cancel_effective_at) IS NOT DISTINCT FROM (m.churn_kind, m.reason,"
			" m.service_end_at, m.cancel_requested_at, m.cancel_effective_at))",
			CS_ARGS(cs_textarray(ids)));
	cs_exec("INSERT INTO cs_internal.movement (customer_id, at, seq, kind, delta, mrr_after,"
			" active_after, churn_kind, reason, term_extension, service_end_at,"
			" cancel_requested_at, cancel_effective_at)"
			" SELECT n.customer_id, n.at, n.seq, n.kind, n.delta, n.mrr_after, n.active_after,"
			" n.churn_kind, n.reason, n.term_extension, n.service_end_at, n.cancel_requested_at,"
			" n.cancel_effective_at FROM ledger_new n"
			" WHERE NOT EXISTS (SELECT FROM cs_internal.movement m"
			" WHERE m.customer_id = ANY ($1) AND m.customer_id = n.customer_id"
			" AND m.at = n.at AND m.seq = n.seq)",
			CS_ARGS(cs_textarray(ids)));
	cs_unregister("ledger_new");
}

/*
 * cs_ledger_write_unusable: the ledger's part of cs_internal.unusable; the
 * source's own reasons are left alone.
 */
void
cs_ledger_write_unusable(Datum ids, CsResult *unusable)
{
	CsArg whose = cs_datum(TEXTARRAYOID, ids, ids == (Datum) 0);

	cs_exec("DELETE FROM cs_internal.unusable"
			" WHERE found_by = 'ledger' AND ($1 IS NULL OR customer_id = ANY ($1))",
			CS_ARGS(whose));
	cs_register("ledger_unusable", unusable);
	cs_exec("INSERT INTO cs_internal.unusable (source, customer_id, reason, row_count, example, "
			"found_by)"
			" SELECT source, customer_id, reason, count(*), 'customer ' || customer_id, 'ledger'"
			" FROM ledger_unusable WHERE $1 IS NULL OR customer_id = ANY ($1) GROUP BY 1, 2, 3",
			CS_ARGS(whose));
	cs_unregister("ledger_unusable");
}

/*
 * cs_ledger_family: see ledger_facts.h.
 */
void
cs_ledger_family(CsLedgerFacts *facts, int first, const CsSweepRules *rules)
{
	CsMember *members;
	CsMerge *merges;
	int *index;
	int n = 0;
	int nmerges = 0;

	if (!facts->merged[first])
	{
		cs_sweep(&facts->members[first], 1, NULL, 0, rules);
		return;
	}
	members = palloc(sizeof(CsMember) * facts->nmembers);
	index = palloc(sizeof(int) * facts->nmembers);
	merges = palloc(sizeof(CsMerge) * facts->nmerges);
	for (int i = first; i < facts->nmembers; i++)
	{
		if (facts->family[i] != first)
			continue;
		index[i] = n;
		members[n++] = facts->members[i];
	}
	for (int i = 0; i < facts->nmerges; i++)
	{
		const CsMerge *m = &facts->merges[i];

		if (facts->family[m->from] == first)
			merges[nmerges++] = (CsMerge){m->at, index[m->from], index[m->into]};
	}
	cs_sweep(members, n, merges, nmerges, rules);
	for (int i = first; i < facts->nmembers; i++)
	{
		if (facts->family[i] == first)
			facts->members[i] = members[index[i]];
	}
}

/*
 * Recomputes the movements of these customers (text[]) from all subscription,
 * cancellation, invoice and merge sources.  A customer without a usable row
 * ends up without a movement.  Rows in a currency without a rate are left out
 * and counted.  While one of the sources cannot be read, what stands there is
 * kept: half of the facts would show churn that never was.
 */
void
cs_ledger_ingest(Datum ids, const CsPolicy *policy)
{
	MemoryContext chunk_context;
	MemoryContext sweep_context;
	MemoryContext old_context;
	CsLedgerFacts *facts;
	CsSweepRules rules = cs_sweep_rules(policy);

	if (ARR_NDIM(DatumGetArrayTypeP(ids)) == 0)
		return;
	chunk_context =
		AllocSetContextCreate(CurrentMemoryContext, "cs_ext ledger", ALLOCSET_DEFAULT_SIZES);
	sweep_context =
		AllocSetContextCreate(chunk_context, "cs_ext ledger sweep", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(chunk_context);
	facts = cs_ledger_read(ids, policy, true);
	if (facts->readable)
	{
		CsResult *result = movement_result();
		Datum *wanted;
		int nwanted;
		int next = 0;

		/* both are sorted; who is only read to sweep with others is not written */
		wanted = cs_text_elements(ids, &nwanted);
		for (int i = 0; i < facts->nmembers; i++)
		{
			CsMember *member = &facts->members[i];
			bool own =
				next < nwanted && strcmp(TextDatumGetCString(wanted[next]), member->customer) == 0;

			CHECK_FOR_INTERRUPTS();
			MemoryContextSwitchTo(facts->merged[i] ? chunk_context : sweep_context);
			if (facts->family[i] == i)
				cs_ledger_family(facts, i, &rules);
			if (own)
			{
				put_member(result, facts->unusable, member);
				next++;
			}
			MemoryContextReset(sweep_context);
		}
		MemoryContextSwitchTo(chunk_context);
		write_movements(ids, result);
		cs_ledger_write_unusable(ids, facts->unusable);
		tuplestore_end(result->store);
	}
	tuplestore_end(facts->unusable->store);
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(chunk_context);
}
