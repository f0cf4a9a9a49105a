/*
 * settled.c
 *		What the monthly summaries depend on, found out once.
 *
 * Which dimensions are kept, and under which definitions (their fingerprints),
 * takes tenths of a second to find out, for it looks into every rule.  A
 * refresh asks each time, and nearly always the answer is the same.  So the
 * answer is kept for the session with a hash of the rows it was made of, which
 * is one short statement; and that nothing is to be done is kept in a table,
 * for workers come and go: it stays true while definitions, the list of what is
 * kept and the month are the same and the journals are empty.
 *
 * In: definition tables and cs_internal.summary, on the step's snapshot.  Out:
 * the answers; cs_internal.summary_settled.
 *
 * Cases.
 * Definitions changed, here or elsewhere, restored, rolled back: another hash.
 * Summaries forgotten by a trigger or by another session: their rows are part
 * of the second hash.
 * Update of the extension: its version is part of the hash.
 * Crash, abort, commit => false rolled back: the row goes with the transaction
 * that found nothing to do.
 * Two refreshers take turns; nobody else writes the row.
 */
#include "cs_ext.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/memutils.h"

#include "refresh/summary.h"

/*
 * All that cs_internal.summary_fingerprint() reads, more rather than less; and
 * what is kept.  Two columns: the hash of the one, and of both.
 */
static const char *const hash_sql =
	"SELECT md5(d.t), md5(d.t || coalesce((SELECT string_agg(s::text, ';' ORDER BY s.dimension)"
	"  FROM cs_internal.summary s), ''))"
	" FROM (SELECT concat_ws('|', '" CS_EXT_VERSION "',"
	" (SELECT string_agg(p::text, ';') FROM cs.policy p),"
	" (SELECT string_agg(d::text, ';' ORDER BY d.name) FROM cs.dimension d),"
	" (SELECT string_agg(s::text, ';' ORDER BY s.dimension, s.name) FROM cs.segment s),"
	" (SELECT string_agg(v::text, ';' ORDER BY v.dimension, v.value)"
	"  FROM cs_internal.attribute_value v),"
	" (SELECT string_agg(DISTINCT a.dimension, ';') FROM cs_internal.segment_assignment a),"
	" (SELECT string_agg(concat_ws(',', m.name, m.enabled, m.source, m.expression, m.max_lag), ';'"
	"  ORDER BY m.name) FROM cs.metric m),"
	" (SELECT string_agg(concat_ws(',', s.kind, s.enabled), ';' ORDER BY s.name)"
	"  FROM cs.source s)) AS t) d";

static MemoryContext memory = NULL;
static char *definitions_hash = NULL; /* of the answers below */
static Datum dimensions = 0;          /* text[] */
static Datum prints = 0;              /* text[], as long */
/*
 * hashes: of the definitions, and of these and what is kept.
 */
static void
hashes(char **definitions, char **all)
{
	cs_exec(hash_sql, CS_NO_ARGS);
	*definitions = cs_cell(0, 1);
	*all = cs_cell(0, 2);
}

/*
 * cs_summary_prints: see summary.h.
 */
void
cs_summary_prints(Datum *out_dimensions, Datum *out_prints)
{
	char *definitions;
	char *all;
	bool isnull;

	hashes(&definitions, &all);
	if (definitions_hash == NULL || strcmp(definitions_hash, definitions) != 0)
	{
		MemoryContext fresh;
		MemoryContext old;
		Datum d;
		Datum p;

		cs_exec(
			"SELECT coalesce(array_agg(x.name ORDER BY x.name), '{}'),"
			" coalesce(array_agg(x.print ORDER BY x.name), '{}')"
			" FROM (SELECT n.name, cs_internal.summary_fingerprint(n.name) AS print"
			"  FROM (SELECT '' AS name UNION ALL SELECT d.name FROM cs.dimension d) n OFFSET 0) x"
			" WHERE x.print IS NOT NULL",
			CS_NO_ARGS);
		d = cs_cell_datum(0, 1, &isnull);
		p = cs_cell_datum(0, 2, &isnull);
		definitions_hash = NULL;
		fresh =
			AllocSetContextCreate(TopMemoryContext, "cs_ext fingerprints", ALLOCSET_SMALL_SIZES);
		old = MemoryContextSwitchTo(fresh);
		dimensions = PointerGetDatum(DatumGetArrayTypePCopy(d));
		prints = PointerGetDatum(DatumGetArrayTypePCopy(p));
		definitions_hash = pstrdup(definitions);
		MemoryContextSwitchTo(old);
		if (memory != NULL)
			MemoryContextDelete(memory);
		memory = fresh;
	}
	*out_dimensions = dimensions;
	*out_prints = prints;
}

/*
 * cs_summary_current: see summary.h.
 */
bool
cs_summary_current(void)
{
	char *definitions;
	char *all;

	hashes(&definitions, &all);
	return cs_exec("SELECT FROM cs_internal.summary_settled s WHERE s.hash = $1",
				   CS_ARGS(cs_text(all))) > 0;
}

/*
 * journals_empty: nothing of ledger and customers changed since the summaries
 * took it in.
 */
static bool
journals_empty(void)
{
	return cs_exec("SELECT 1 FROM cs_internal.movement_before UNION ALL"
				   " SELECT 1 FROM cs_internal.customer_before LIMIT 1",
				   CS_NO_ARGS) == 0;
}

/*
 * cs_summary_settled: see summary.h.
 */
bool
cs_summary_settled(TimestampTz as_of)
{
	char *before;
	char *definitions;
	char *all;

	if (cs_exec("SELECT s.hash FROM cs_internal.summary_settled s WHERE $1 <= s.until",
				CS_ARGS(cs_tstz(as_of))) == 0)
		return false;
	before = cs_cell(0, 1);
	if (!journals_empty())
		return false;
	hashes(&definitions, &all);
	return strcmp(before, all) == 0;
}

/*
 * cs_summary_settle: see summary.h.
 */
void
cs_summary_settle(TimestampTz until)
{
	char *definitions;
	char *all;

	hashes(&definitions, &all);
	cs_exec("INSERT INTO cs_internal.summary_settled AS s (hash, until) VALUES ($1, $2)"
			" ON CONFLICT (id) DO UPDATE SET hash = excluded.hash, until = excluded.until"
			" WHERE (s.hash, s.until) <> (excluded.hash, excluded.until)",
			CS_ARGS(cs_text(all), cs_tstz(until)));
}
