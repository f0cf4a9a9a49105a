/*
 * settled.c
 *		What the monthly summaries depend on, known for the session.
 *
 * Which dimensions are kept, and under which definitions (their fingerprints),
 * takes a tenth of a second to find out, for it looks into every rule.  A
 * refresh asks each time, and nearly always the answer is the same: so the
 * answer is kept here with a hash of the rows it was made of, which is one short
 * statement.  The same with "nothing is to be done": it stays true while the
 * definitions, the list of what is kept and the month are the same and the
 * journals are empty.
 *
 * In: definition tables and cs_internal.summary, on the step's snapshot.  Out:
 * the answers.
 *
 * Cases.
 * Definitions changed, here or elsewhere, restored, rolled back: another hash.
 * Summaries forgotten by a trigger or by another session: their rows are part
 * of the second hash.
 * A session of its own for each refresh (pg_cron): asks anew, once.
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
	" FROM (SELECT concat_ws('|',"
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
static char settled_hash[33] = "";    /* nothing is to be done under this one ... */
static TimestampTz settled_until = 0; /* ... up to the end of this month */

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
	char *definitions;
	char *all;

	if (settled_until == 0 || as_of > settled_until || !journals_empty())
		return false;
	hashes(&definitions, &all);
	return strcmp(settled_hash, all) == 0;
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
	strlcpy(settled_hash, all, sizeof(settled_hash));
	settled_until = until;
}
