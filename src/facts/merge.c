/*
 * merge.c
 *		Merged customers: from an instant on, facts of one id count for another.
 *
 * In: sources of kind customer_merge.  Out: cs_internal.merge, the same rows by
 * outside id (derived: recomputed from the facts, not dumped), pending work for
 * everybody whose ledger a merge, or a merged customer's facts, touch, and dirty
 * marks for everybody else whom they touch.
 *
 * The facts themselves stay under the id they were written with, and so do the
 * rollup and what capture notes; who reads them asks here whom they count for
 * (CsWhose, cs_internal.merge_span).  A merge takes along what the customer has at its
 * instant; of several at one instant the first counts (cs_merges_resolve).
 *
 * Cases.
 * Nobody is merged: one probe of an empty table for each batch.
 * An instant before the merge: both have their own, so the past is evaluated as
 * it was.  The state is just before its instant, or on it under edge "at", and a
 * merge at that very instant is not yet, or is already, in force, as in the ledger.
 * A merge that is announced: both sides are due when it comes (refresh/due.c).
 * Rows of merges added, corrected, deleted: whoever was merged with one another
 * before or is after is pending and dirty.
 * A fact of an id that is merged, now or later: who gets it is dirty, too.
 * Crash: what the source says and the marks of whom it touches are one step of
 * ingest.  Restore: the first refresh reads merges before what they move.
 * A customer refreshed on its own: the ids merged into it are locked with it, for
 * it takes in what they used; refreshes beside it skip them all.
 * What says who a customer is does not move: rows of kind customer, and the
 * merges themselves, stay with the id they stand under.
 */
#include "cs_ext.h"

#include "catalog/pg_collation_d.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "lib/qunique.h"
#include "miscadmin.h"
#include "utils/array.h"

#include "core/texts.h"
#include "facts/ledger.h"
#include "facts/ledger_facts.h"
#include "facts/merge.h"
#include "facts/source_kind.h"
#include "refresh/refresh.h"

PG_FUNCTION_INFO_V1(cs_merge_span_sql);

/*
 * any_merge: the usual answer is no, and costs a probe of an empty table.
 */
static bool
any_merge(void)
{
	MemoryContext context = CurrentMemoryContext;
	bool any = cs_exec("SELECT 1 FROM cs_internal.merge LIMIT 1", CS_NO_ARGS) > 0;

	MemoryContextSwitchTo(context);
	return any;
}

/* All merges from these ids (text[]), in order of time. */
static CsMergeFact *
merges_from(Datum ids, int *nmerges)
{
	MemoryContext context = CurrentMemoryContext;
	uint64 n = cs_exec("SELECT from_id, into_id, at FROM cs_internal.merge WHERE from_id = ANY ($1)"
					   " ORDER BY at, from_id, into_id",
					   CS_ARGS(cs_textarray(ids)));
	CsMergeFact *merges;

	MemoryContextSwitchTo(context);
	merges = palloc(sizeof(CsMergeFact) * (n + 1));
	for (uint64 i = 0; i < n; i++)
	{
		bool isnull;

		merges[i].from = cs_cell(i, 1);
		merges[i].into = cs_cell(i, 2);
		merges[i].at = DatumGetTimestampTz(cs_cell_datum(i, 3, &isnull));
	}
	*nmerges = (int) n;
	return merges;
}

/*
 * cs_merge_family: see merge.h.
 */
Datum
cs_merge_family(Datum ids, CsMergeFact **merges, int *nmerges)
{
	MemoryContext context = CurrentMemoryContext;
	Datum family = ids;

	*merges = NULL;
	*nmerges = 0;
	if (!any_merge() ||
		cs_exec("SELECT 1 FROM cs_internal.merge WHERE from_id = ANY ($1)"
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
	*merges = merges_from(family, nmerges);
	return family;
}

/* Everybody merged with these customers has his ledger made anew by this refresh, and is evaluated. */
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
	cs_exec("INSERT INTO cs_internal.dirty (customer_id, marked_at)"
			" SELECT i, clock_timestamp() FROM unnest($1) i ON CONFLICT (customer_id) DO UPDATE"
			" SET cause = NULL WHERE dirty.cause IS NOT NULL",
			CS_ARGS(cs_textarray(family)));
}

/*
 * cs_merge_ingest: see merge.h.
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
 * cs_merge_pending: see merge.h.
 */
void
cs_merge_pending(void)
{
	if (!any_merge())
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

/*
 * cs_merge_reached: see merge.h.
 */
Datum
cs_merge_reached(Datum ids)
{
	int n;

	if (!any_merge())
		return ids;
	return cs_ids_from_query("WITH RECURSIVE f (i) AS (SELECT i COLLATE \"C\" FROM unnest($1) i"
							 " UNION SELECT m.into_id FROM f JOIN cs_internal.merge m"
							 " ON m.from_id = f.i) SELECT i FROM f ORDER BY i",
							 CS_ARGS(cs_textarray(ids)), &n);
}

/* ---- whose facts are whose ----------------------------------------------- */

/* A relation of two columns, the first of which is an id. */
static CsResult *
pairs(const char *first, const char *second, Oid type)
{
	TupleDesc desc = CreateTemplateTupleDesc(2);

	TupleDescInitEntry(desc, 1, first, TEXTOID, -1, 0);
	TupleDescInitEntryCollation(desc, 1, C_COLLATION_OID);
	TupleDescInitEntry(desc, 2, second, type, -1, 0);
	TupleDescInitEntryCollation(desc, 2, C_COLLATION_OID);
	return cs_empty_result(desc);
}

static void
put_pair(CsResult *result, Datum first, Datum second)
{
	Datum values[2] = {first, second};
	bool nulls[2] = {false, false};

	tuplestore_putvalues(result->store, result->desc, values, nulls);
	result->nrows++;
}

/*
 * merged_into: these ids, and all whose facts may ever come to one of them.
 * Where facts go that leave them does not matter: they never come back.
 */
static Datum
merged_into(Datum ids, int *n)
{
	return cs_ids_from_query("WITH RECURSIVE f (i) AS (SELECT i COLLATE \"C\" FROM unnest($1) i"
							 " UNION SELECT m.from_id FROM f JOIN cs_internal.merge m"
							 " ON m.into_id = f.i) SELECT i FROM f ORDER BY i",
							 CS_ARGS(cs_textarray(ids)), n);
}

/* These merges by the place of the ids among sorted ones, those that count. */
static CsMerge *
merges_between(const CsMergeFact *facts, int *nmerges, char *const *ids, int n)
{
	CsMerge *merges = palloc(sizeof(CsMerge) * (*nmerges + 1));

	for (int i = 0; i < *nmerges; i++)
		merges[i] = (CsMerge){facts[i].at, cs_find_string(facts[i].from, ids, n),
							  cs_find_string(facts[i].into, ids, n)};
	*nmerges = cs_merges_resolve(merges, *nmerges);
	return merges;
}

/*
 * owners_of: for whom the facts of each member count at an instant, by index; the
 * answer of cs_merge_owner for all of them.
 */
static int *
owners_of(int n, TimestampTz at, const CsMerge *merges, int nmerges)
{
	int *parent = palloc(sizeof(int) * n); /* facts that went the same way since */
	int *owner = palloc(sizeof(int) * n);  /* of a parent of none */
	int *has = palloc(sizeof(int) * n);    /* the parent that a member owns; -1: nothing */
	int *result = palloc(sizeof(int) * n);

	for (int i = 0; i < n; i++)
		parent[i] = owner[i] = has[i] = i;
	for (int i = 0; i < nmerges && merges[i].at <= at; i++)
	{
		int from = has[merges[i].from];
		int into = has[merges[i].into];

		if (from < 0)
			continue;
		has[merges[i].from] = -1;
		if (into >= 0)
			parent[from] = into;
		else
		{
			has[merges[i].into] = from;
			owner[from] = merges[i].into;
		}
	}
	for (int i = 0; i < n; i++)
	{
		int top = i;

		while (parent[top] != top)
			top = parent[top] = parent[parent[top]];
		result[i] = owner[top];
		Assert(n > 100 || result[i] == cs_merge_owner(i, at, merges, nmerges));
	}
	return result;
}

/* An id, whose its facts are, from when to when. */
static void
put_span(ReturnSetInfo *rsinfo, const char *id, const char *owner, TimestampTz since,
		 TimestampTz until)
{
	Datum values[4] = {CStringGetTextDatum(id), CStringGetTextDatum(owner),
					   TimestampTzGetDatum(since), TimestampTzGetDatum(until)};
	bool nulls[4] = {false, false, false, false};

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * cs_internal.merge_span(): see there.  Each merge, in order of time, takes along
 * all facts that its customer has by then.
 */
Datum
cs_merge_span_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum ids;
	char **names;
	CsMerge *merges;
	int *owner;
	int *first; /* of the facts that a member has */
	int *next;
	TimestampTz *since; /* DT_NOBEGIN: never merged */
	int n;
	int nmerges;
	CsFrame frame;

	InitMaterializedSRF(fcinfo, 0);
	cs_enter(&frame);
	ids = cs_ids_from_query("SELECT from_id FROM cs_internal.merge UNION SELECT into_id FROM"
							" cs_internal.merge ORDER BY 1",
							CS_NO_ARGS, &n);
	if (n == 0)
	{
		cs_leave(&frame);
		return (Datum) 0;
	}
	names = cs_text_strings(ids, &n);
	merges = merges_between(merges_from(ids, &nmerges), &nmerges, names, n);
	owner = palloc(sizeof(int) * n);
	first = palloc(sizeof(int) * n);
	next = palloc(sizeof(int) * n);
	since = palloc(sizeof(TimestampTz) * n);
	for (int i = 0; i < n; i++)
	{
		owner[i] = first[i] = i;
		next[i] = -1;
		since[i] = DT_NOBEGIN;
	}
	for (int i = 0; i < nmerges; i++)
	{
		const CsMerge *m = &merges[i];
		int last = -1;

		for (int k = first[m->from]; k >= 0; k = next[k])
		{
			CHECK_FOR_INTERRUPTS();
			put_span(rsinfo, names[k], names[owner[k]], since[k], m->at);
			owner[k] = m->into;
			since[k] = m->at;
			last = k;
		}
		if (last < 0)
			continue;
		next[last] = first[m->into];
		first[m->into] = first[m->from];
		first[m->from] = -1;
	}
	for (int i = 0; i < n; i++)
		if (since[i] > DT_NOBEGIN)
			put_span(rsinfo, names[i], names[owner[i]], since[i], DT_NOEND);
	cs_leave(&frame);
	return (Datum) 0;
}

/*
 * cs_whose: see merge.h.
 */
CsWhose *
cs_whose(Datum customers, TimestampTz as_of, const CsPolicy *policy)
{
	CsWhose *whose = palloc0(sizeof(CsWhose));
	TimestampTz at = policy->edge_at ? as_of : as_of - 1;
	CsMergeFact *merges;
	CsMerge *indexed;
	int nmerges;
	Datum ids;
	char **members;
	char **names;
	int *owner;
	int nmembers;
	int n;

	whose->customers = whose->fact_ids = customers;
	whose->owner = pairs("fact_id", "customer_id", TEXTOID);
	if (!any_merge())
		return whose;
	ids = merged_into(customers, &nmembers);
	merges = merges_from(ids, &nmerges);
	whose->merged = nmerges > 0;
	if (!whose->merged)
		return whose;
	names = cs_text_strings(customers, &n);

	/* with those outside, to whom facts may go */
	members = cs_text_strings(ids, &nmembers);
	members = repalloc(members, sizeof(char *) * (nmembers + nmerges));
	for (int i = 0; i < nmerges; i++)
		members[nmembers + i] = merges[i].into;
	qsort(members, nmembers + nmerges, sizeof(char *), pg_qsort_strcmp);
	nmembers = qunique(members, nmembers + nmerges, sizeof(char *), pg_qsort_strcmp);
	indexed = merges_between(merges, &nmerges, members, nmembers);
	owner = owners_of(nmembers, at, indexed, nmerges);

	whose->facts = palloc(sizeof(char *) * nmembers);
	whose->owners = palloc(sizeof(char *) * nmembers);
	for (int i = 0; i < nmembers; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (cs_find_string(members[owner[i]], names, n) < 0)
			continue;
		whose->facts[whose->n] = members[i];
		whose->owners[whose->n++] = members[owner[i]];
		if (owner[i] != i)
			put_pair(whose->owner, CStringGetTextDatum(members[i]),
					 CStringGetTextDatum(members[owner[i]]));
	}
	whose->fact_ids = cs_strings_array(whose->facts, whose->n);

	whose->ahead = palloc(sizeof(CsMergeFact) * nmerges);
	for (int i = 0; i < nmerges; i++)
		if (indexed[i].at > at)
			whose->ahead[whose->nahead++] =
				(CsMergeFact){members[indexed[i].from], members[indexed[i].into], indexed[i].at};
	return whose;
}

/*
 * cs_whose_show, cs_whose_hide, cs_whose_ids, cs_counts_for: see merge.h.
 */
CsWhose *
cs_whose_show(Datum customers, TimestampTz as_of, const CsPolicy *policy)
{
	CsWhose *whose = cs_whose(customers, as_of, policy);

	cs_register("fact_owner", whose->owner);
	return whose;
}

void
cs_whose_hide(void)
{
	cs_unregister("fact_owner");
}

Datum
cs_whose_ids(const CsWhose *whose, Datum customers)
{
	char **names;
	char **facts;
	int n;
	int nfacts = 0;

	if (!whose->merged)
		return customers;
	if (customers == whose->customers)
		return whose->fact_ids;
	names = cs_text_strings(customers, &n);
	facts = palloc(sizeof(char *) * (whose->n + 1));
	for (int i = 0; i < whose->n; i++)
		if (cs_find_string(whose->owners[i], names, n) >= 0)
			facts[nfacts++] = whose->facts[i];
	return cs_strings_array(facts, nfacts);
}

bool
cs_counts_for(const CsWhose *whose, const char *fact_id, const char *customer_id)
{
	int i;

	if (!whose->merged)
		return strcmp(fact_id, customer_id) == 0;
	i = cs_find_string(fact_id, whose->facts, whose->n);
	return i >= 0 && strcmp(whose->owners[i], customer_id) == 0;
}
