/*
 * merge.c
 *		Merged customers: from an instant on, facts of one id count for another.
 *
 * In: sources of kind customer_merge.  Out: cs_internal.merge, the same rows by
 * outside id (derived: recomputed from the facts, not dumped), and pending
 * work for everybody whose ledger a merge, or a merged customer's facts, touch.
 *
 * The facts themselves stay under the id they were written with; who reads
 * them asks here whom they count for.  A customer is merged away once: of
 * several merges the first counts (the sweep resolves them).
 */
#include "cs_ext.h"

#include "facts/ledger.h"
#include "facts/ledger_facts.h"
#include "facts/source_kind.h"
#include "refresh/refresh.h"

/*
 * cs_merge_family: see ledger_facts.h.
 */
Datum
cs_merge_family(Datum ids, CsMergeFact **merges, int *nmerges)
{
	MemoryContext context = CurrentMemoryContext;
	Datum family = ids;
	uint64 n;

	*merges = NULL;
	*nmerges = 0;
	if (cs_exec("SELECT 1 FROM cs_internal.merge WHERE from_id = ANY ($1)"
				" UNION ALL SELECT 1 FROM cs_internal.merge WHERE into_id = ANY ($1) LIMIT 1",
				CS_ARGS(cs_textarray(ids))) == 0)
		return ids;
	MemoryContextSwitchTo(context);
	for (int before = -1, now = 0; now != before;)
	{
		before = now;
		family = cs_ids_from_query(
			"SELECT i FROM (SELECT i COLLATE \"C\" FROM unnest($1) i"
			" UNION SELECT m.into_id FROM cs_internal.merge m WHERE m.from_id = ANY ($1)"
			" UNION SELECT m.from_id FROM cs_internal.merge m WHERE m.into_id = ANY ($1)) f (i)"
			" ORDER BY i",
			CS_ARGS(cs_textarray(family)), &now);
	}
	n = cs_exec("SELECT from_id, into_id, at FROM cs_internal.merge WHERE from_id = ANY ($1)"
				" ORDER BY at, from_id, into_id",
				CS_ARGS(cs_textarray(family)));
	MemoryContextSwitchTo(context);
	*merges = palloc(sizeof(CsMergeFact) * (n + 1));
	for (uint64 i = 0; i < n; i++)
	{
		bool isnull;

		(*merges)[i].from = cs_cell(i, 1);
		(*merges)[i].into = cs_cell(i, 2);
		(*merges)[i].at = DatumGetTimestampTz(cs_cell_datum(i, 3, &isnull));
	}
	*nmerges = (int) n;
	return family;
}

/* Everybody merged with these customers has his ledger made anew by this refresh. */
static void
family_is_pending(Datum ids)
{
	CsMergeFact *merges;
	int nmerges;
	Datum family = cs_merge_family(ids, &merges, &nmerges);

	cs_exec("INSERT INTO cs_internal.pending (source, customer_id)"
			" SELECT s.name, i FROM (SELECT min(name) AS name FROM cs.source"
			" WHERE kind = 'subscription' AND enabled) s, unnest($1) i WHERE s.name IS NOT NULL"
			" ON CONFLICT (source, customer_id) DO UPDATE"
			" SET since = '-infinity', until = 'infinity'",
			CS_ARGS(cs_textarray(family)));
}

/*
 * cs_merge_ingest: see ledger.h.
 */
void
cs_merge_ingest(const CsSource *source, Datum ids)
{
	CsResult *rows;
	TimestampTz now = cs_now();

	if (source->mapping == NULL)
	{
		/* the source is gone; every customer is pending for that */
		cs_exec("DELETE FROM cs_internal.merge WHERE source = $1", CS_ARGS(cs_text(source->name)));
		return;
	}
	rows =
		cs_ledger_select(source, "SELECT %s AS customer_id, r.into_customer_id, r.at FROM (%s) r",
						 false, ids, now, 0);
	if (rows == NULL)
		return;
	family_is_pending(ids);
	cs_register("merge_rows", rows);
	cs_exec("DELETE FROM cs_internal.merge WHERE source = $1 AND from_id = ANY ($2)",
			CS_ARGS(cs_text(source->name), cs_textarray(ids)));
	cs_exec("INSERT INTO cs_internal.merge (source, from_id, into_id, at)"
			" SELECT DISTINCT $1, customer_id, into_customer_id, at FROM merge_rows"
			" WHERE into_customer_id <> '' AND into_customer_id <> customer_id",
			CS_ARGS(cs_text(source->name)));
	cs_unregister("merge_rows");
	tuplestore_end(rows->store);
	family_is_pending(ids);
}

/*
 * cs_merge_pending: see ledger.h.
 */
void
cs_merge_pending(void)
{
	if (cs_exec("SELECT 1 FROM cs_internal.merge LIMIT 1", CS_NO_ARGS) == 0)
		return;
	cs_exec("WITH RECURSIVE f (source, customer_id) AS ("
			"SELECT p.source, p.customer_id FROM cs_internal.pending p"
			" JOIN cs.source s ON s.name = p.source"
			" WHERE s.kind IN ('subscription', 'cancellation', 'invoice', 'licence')"
			" AND (EXISTS (SELECT FROM cs_internal.merge m WHERE m.from_id = p.customer_id)"
			" OR EXISTS (SELECT FROM cs_internal.merge m WHERE m.into_id = p.customer_id))"
			" UNION SELECT f.source, CASE WHEN m.from_id = f.customer_id THEN m.into_id"
			" ELSE m.from_id END FROM f JOIN cs_internal.merge m"
			" ON m.from_id = f.customer_id OR m.into_id = f.customer_id)"
			" INSERT INTO cs_internal.pending (source, customer_id)"
			" SELECT source, customer_id FROM f ON CONFLICT (source, customer_id) DO UPDATE"
			" SET since = '-infinity', until = 'infinity'",
			CS_NO_ARGS);
}
