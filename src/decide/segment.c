/*
 * segment.c
 *		The stages of segments: which segment of each dimension a customer is in.
 *
 * In: the rows of state of a batch, the dimensions that are early (or late) and
 * their segments.  Out: state.segments, and unless this is a what-if the kept
 * history in cs_internal.membership.
 *
 * Dimensions go in levels: those whose rules name other dimensions come after
 * these.  In a dimension the first segment by priority, then name, whose rule is
 * true is taken; NULL counts as not true; else the fallback; else none.
 *
 * Cases.
 * A rule that raises for a customer before another one is true: nobody knows
 * whether it would have been the first, so the customer stays where he is.
 * Manual assignments win over everything until they expire.
 * Two changes at one instant (refresh of one customer, frozen clock): the later
 * replaces the earlier, so no interval of membership is empty.
 * A dimension that is gone or disabled: its memberships end.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "cs_ext.h"
#include "decide/rule.h"

PG_FUNCTION_INFO_V1(cs_evaluate_segments_sql);

#define MAX_ATTRIBUTE_VALUES 200

typedef struct Dimension
{
	char *name;
	char *attribute; /* NULL: segments have rules */
	char *fallback;
	int level;
	int first; /* its segments in the array of rules */
	int count;
} Dimension;

/*
 * read_dimensions: enabled ones that are early, or late, in order of level.
 */
static Dimension *
read_dimensions(bool late, int *n)
{
	Dimension *dimensions;

	*n = (int) cs_exec(
		"SELECT d.name, d.attribute, d.fallback, o.level"
		" FROM cs_internal.dimension_order() o JOIN cs.dimension d ON d.name = o.dimension"
		" WHERE o.late = $1 ORDER BY o.level, d.name",
		CS_ARGS(cs_bool(late)));
	dimensions = palloc0(sizeof(Dimension) * (*n + 1));
	for (int i = 0; i < *n; i++)
	{
		dimensions[i].name = cs_cell(i, 1);
		dimensions[i].attribute = cs_cell(i, 2);
		dimensions[i].fallback = cs_cell(i, 3);
		dimensions[i].level = atoi(cs_cell(i, 4));
	}
	return dimensions;
}

/*
 * read_rules: the segments of these dimensions, in the order they are tried.
 * names[i] is the segment of rules[i].
 */
static CsRule *
read_rules(Dimension *dimensions, int ndimensions, int *nrules, char ***names)
{
	Datum *wanted = palloc(sizeof(Datum) * (ndimensions + 1));
	CsRule *rules;
	int d = 0;

	for (int i = 0; i < ndimensions; i++)
		wanted[i] = CStringGetTextDatum(dimensions[i].name);
	*nrules = (int) cs_exec("SELECT u.n - 1, s.name, s.rule, s.search_path"
							" FROM unnest($1) WITH ORDINALITY u (dimension, n) JOIN cs.segment s "
							"ON s.dimension = u.dimension"
							" ORDER BY u.n, s.priority, s.name COLLATE \"C\"",
							CS_ARGS(cs_textarray(PointerGetDatum(construct_array(
								wanted, ndimensions, TEXTOID, -1, false, TYPALIGN_INT)))));
	rules = palloc0(sizeof(CsRule) * (*nrules + 1));
	*names = palloc(sizeof(char *) * (*nrules + 1));
	for (int i = 0; i < *nrules; i++)
	{
		for (; d < atoi(cs_cell(i, 1)); d++)
			dimensions[d + 1].first = i;
		dimensions[d].count++;
		(*names)[i] = cs_cell(i, 2);
		rules[i].table_name = "segment";
		rules[i].key = psprintf("%s/%s", dimensions[d].name, (*names)[i]);
		rules[i].expression = cs_cell(i, 3);
		rules[i].search_path = cs_cell(i, 4);
		rules[i].type = BOOLOID;
	}
	return rules;
}

/*
 * choose: rows (customer_id, dimension, segment, source, keep) from the values
 * of the rules.  keep: the segment is not known, the customer stays.
 */
static CsResult *
choose(const CsRuleValues *values, Dimension *dimensions, int ndimensions, char **names)
{
	CsResult *result = palloc0(sizeof(CsResult));

	result->desc = CreateTemplateTupleDesc(5);
	TupleDescInitEntry(result->desc, 1, "customer_id", TEXTOID, -1, 0);
	TupleDescInitEntryCollation(result->desc, 1, C_COLLATION_OID);
	TupleDescInitEntry(result->desc, 2, "dimension", TEXTOID, -1, 0);
	TupleDescInitEntry(result->desc, 3, "segment", TEXTOID, -1, 0);
	TupleDescInitEntry(result->desc, 4, "source", TEXTOID, -1, 0);
	TupleDescInitEntry(result->desc, 5, "keep", BOOLOID, -1, 0);
	result->store = tuplestore_begin_heap(true, false, CS_RESULT_MEM);

	for (int d = 0; d < ndimensions; d++)
	{
		Datum row[5];
		bool isnull[5] = {false};

		if (dimensions[d].attribute != NULL)
			continue;
		row[1] = CStringGetTextDatum(dimensions[d].name);
		for (int c = 0; c < values->ncustomers; c++)
		{
			const char *segment = dimensions[d].fallback;
			const char *source = "fallback";
			bool keep = false;

			for (int i = dimensions[d].first; i < dimensions[d].first + dimensions[d].count; i++)
			{
				int cell = CS_CELL(values, c, i);

				if (values->failed[cell])
				{
					keep = true;
					break;
				}
				if (!values->isnull[cell] && DatumGetBool(values->values[cell]))
				{
					segment = names[i];
					source = "rule";
					break;
				}
			}
			row[0] = CStringGetTextDatum(values->ids[c]);
			isnull[2] = keep || segment == NULL;
			row[2] = isnull[2] ? (Datum) 0 : CStringGetTextDatum(segment);
			row[3] = CStringGetTextDatum(source);
			row[4] = BoolGetDatum(keep);
			tuplestore_putvalues(result->store, result->desc, row, isnull);
			result->nrows++;
		}
	}
	return result;
}

/*
 * attribute_values: the relation "attribute" (customer_id, dimension, value,
 * known) of the batch for dimensions by attribute.
 */
static CsResult *
attribute_values(const CsBatch *batch, ArrayType *attributes, int n)
{
	/* nearly always there is none, and nothing is asked */
	if (n == 0)
		return cs_query("SELECT NULL::text COLLATE \"C\" AS customer_id, NULL::text AS dimension,"
						" NULL::text AS value, NULL::boolean AS known WHERE false",
						CS_NO_ARGS);
	return cs_query("SELECT * FROM cs_internal.attribute_of($1, $2, $3, true)",
					CS_ARGS(cs_textarray(batch->ids), cs_tstz(batch->as_of),
							cs_textarray(PointerGetDatum(attributes))));
}

/*
 * note_attribute_values: learns new values of an attribute dimension, up to the
 * limit; values beyond it count as none and are reported.
 */
static void
note_attribute_values(const CsBatch *batch, Dimension *dimension)
{
	CsFailure failure = {.table_name = "dimension", .key = dimension->name};

	if (!batch->what_if)
		cs_exec("INSERT INTO cs_internal.attribute_value (dimension, value)"
				" SELECT $1, v.value FROM (SELECT DISTINCT a.value FROM attribute a"
				"  WHERE a.dimension = $1) v"
				" WHERE v.value <> '' AND NOT EXISTS (SELECT 1 FROM cs_internal.attribute_value k"
				"  WHERE k.dimension = $1 AND k.value = v.value)"
				" ORDER BY v.value LIMIT greatest($2 - (SELECT count(*) FROM "
				"cs_internal.attribute_value k"
				"  WHERE k.dimension = $1), 0)"
				" ON CONFLICT DO NOTHING",
				CS_ARGS(cs_text(dimension->name), cs_int8(MAX_ATTRIBUTE_VALUES)));
	cs_exec("SELECT count(*), min(a.customer_id) FROM attribute a"
			" WHERE a.dimension = $1 AND a.value <> '' AND NOT EXISTS (SELECT 1 FROM "
			"cs_internal.attribute_value k WHERE k.dimension = $1 AND k.value = a.value)",
			CS_ARGS(cs_text(dimension->name)));
	failure.customers = atol(cs_cell(0, 1));
	if (failure.customers > 0)
	{
		failure.example = cs_cell(0, 2);
		failure.sqlstate = "54000";
		failure.error = psprintf("attribute \"%s\" has more than %d values; customers with further "
								 "ones are in no segment of their own",
								 dimension->attribute, MAX_ATTRIBUTE_VALUES);
	}
	cs_note_failures(batch, &failure, 1);
}

/*
 * write_state: chosen segments, attribute values and assignments of one level
 * into state.segments; returns what holds now, as the relation for membership.
 * whole: segments of other dimensions go (the first level starts anew).
 */
static CsResult *
write_state(const CsBatch *batch, CsResult *chosen, bool whole)
{
	CsResult *seg;

	cs_register("chosen", chosen);
	seg =
		cs_query("WITH here AS ("
				 " SELECT c.customer_id, c.dimension, c.segment, c.source, c.keep FROM chosen c"
				 " UNION ALL"
				 " SELECT a.customer_id, a.dimension, coalesce(k.value, d.fallback),"
				 "  CASE WHEN k.value IS NULL THEN 'fallback' ELSE 'attribute' END, NOT a.known"
				 " FROM attribute a JOIN cs.dimension d ON d.name = a.dimension"
				 "  LEFT JOIN cs_internal.attribute_value k ON k.dimension = a.dimension"
				 "   AND k.value = a.value)"
				 " SELECT h.customer_id, h.dimension,"
				 "  CASE WHEN a.customer_id IS NOT NULL THEN a.segment WHEN h.keep THEN m.segment "
				 "ELSE h.segment END AS segment,"
				 "  CASE WHEN a.customer_id IS NOT NULL THEN 'manual' WHEN h.keep THEN m.source "
				 "ELSE h.source END AS source,"
				 "  a.reason"
				 " FROM here h JOIN cs_internal.state s ON s.customer_id = h.customer_id"
				 "  LEFT JOIN cs_internal.segment_assignment a ON a.customer_id = h.customer_id"
				 "   AND a.dimension = h.dimension AND (a.expires_at > $1 OR a.expires_at IS NULL)"
				 "   AND a.assigned_at <= $1"
				 "  LEFT JOIN cs_internal.membership m ON h.keep AND m.customer_id = h.customer_id"
				 "   AND m.dimension = h.dimension AND m.valid_to IS NULL",
				 CS_ARGS(cs_tstz(batch->as_of)));
	cs_unregister("chosen");
	cs_register("seg", seg);
	cs_exec("UPDATE cs_internal.state s SET segments = n.segments"
			" FROM (SELECT x.customer_id,"
			"   (CASE WHEN $1 THEN '{}'::jsonb ELSE x.segments END) ||"
			"   coalesce(jsonb_object_agg(g.dimension, g.segment) FILTER (WHERE g.segment IS NOT "
			"NULL), '{}'::jsonb) AS segments"
			"  FROM batch b JOIN cs_internal.state x ON x.customer_id = b.customer_id"
			"   LEFT JOIN seg g ON g.customer_id = b.customer_id"
			"  GROUP BY x.customer_id, x.segments) n"
			" WHERE s.customer_id = n.customer_id AND s.segments IS DISTINCT FROM n.segments",
			CS_ARGS(cs_bool(whole)));
	cs_unregister("seg");
	return seg;
}

/*
 * write_membership: what changed against the kept history.
 */
static void
write_membership(const CsBatch *batch, CsResult *seg)
{
	CsArg at[] = {cs_tstz(batch->as_of)};

	cs_register("seg", seg);

	/* An entry at this very instant that no longer holds never was. */
	cs_exec(
		"DELETE FROM cs_internal.membership m USING seg g"
		" WHERE m.customer_id = g.customer_id AND m.dimension = g.dimension AND m.valid_to IS NULL"
		" AND m.valid_from >= $1 AND m.segment IS DISTINCT FROM g.segment",
		at, 1);
	/* Nor was the leaving of the segment that holds again. */
	cs_exec("UPDATE cs_internal.membership m SET valid_to = NULL FROM seg g"
			" WHERE m.customer_id = g.customer_id AND m.dimension = g.dimension AND m.valid_to = $1"
			" AND m.segment = g.segment"
			" AND NOT EXISTS (SELECT 1 FROM cs_internal.membership o WHERE o.customer_id = "
			"m.customer_id"
			"  AND o.dimension = m.dimension AND o.valid_to IS NULL)",
			at, 1);
	cs_exec(
		"UPDATE cs_internal.membership m SET valid_to = $1 FROM seg g"
		" WHERE m.customer_id = g.customer_id AND m.dimension = g.dimension AND m.valid_to IS NULL"
		" AND m.segment IS DISTINCT FROM g.segment",
		at, 1);
	cs_exec("INSERT INTO cs_internal.membership (customer_id, dimension, segment, valid_from, "
			"source, reason)"
			" SELECT g.customer_id, g.dimension, g.segment, $1, g.source, g.reason FROM seg g"
			" WHERE g.segment IS NOT NULL AND NOT EXISTS (SELECT 1 FROM cs_internal.membership o"
			"  WHERE o.customer_id = g.customer_id AND o.dimension = g.dimension AND o.valid_to IS "
			"NULL)",
			at, 1);
	cs_unregister("seg");
}

/*
 * end_gone: memberships of dimensions that are no longer there, and
 * assignments that are over.
 */
static void
end_gone(const CsBatch *batch)
{
	CsArg at[] = {cs_tstz(batch->as_of)};
	const char *gone = " JOIN batch b ON b.customer_id = x.customer_id"
					   " WHERE x.valid_to IS NULL AND NOT EXISTS (SELECT 1 FROM cs.dimension d"
					   "  WHERE d.name = x.dimension AND d.enabled)";

	cs_exec(psprintf("DELETE FROM cs_internal.membership m USING (SELECT x.customer_id, x.dimension"
					 " FROM cs_internal.membership x%s) g"
					 " WHERE m.customer_id = g.customer_id AND m.dimension = g.dimension"
					 " AND m.valid_to IS NULL AND m.valid_from >= $1",
					 gone),
			at, 1);
	cs_exec(psprintf("UPDATE cs_internal.membership m SET valid_to = $1 FROM (SELECT "
					 "x.customer_id, x.dimension"
					 " FROM cs_internal.membership x%s) g"
					 " WHERE m.customer_id = g.customer_id AND m.dimension = g.dimension AND "
					 "m.valid_to IS NULL",
					 gone),
			at, 1);
	cs_exec("DELETE FROM cs_internal.segment_assignment a USING batch b"
			" WHERE a.customer_id = b.customer_id AND a.expires_at <= $1",
			at, 1);
}

/*
 * stage_level: dimensions that need nothing of each other.
 */
static void
stage_level(CsBatch *batch, Dimension *dimensions, int n, bool whole)
{
	int nrules;
	char **names;
	CsRule *rules = read_rules(dimensions, n, &nrules, &names);
	CsRuleValues *values = cs_rule_values(batch, rules, nrules);
	Datum *attributes = palloc(sizeof(Datum) * (n + 1));
	int nattributes = 0;
	CsResult *chosen = choose(values, dimensions, n, names);
	CsResult *attribute;
	CsResult *seg;

	for (int d = 0; d < n; d++)
		if (dimensions[d].attribute != NULL)
			attributes[nattributes++] = CStringGetTextDatum(dimensions[d].name);
	attribute = attribute_values(
		batch, construct_array(attributes, nattributes, TEXTOID, -1, false, TYPALIGN_INT),
		nattributes);
	cs_register("attribute", attribute);
	for (int d = 0; d < n; d++)
		if (dimensions[d].attribute != NULL)
			note_attribute_values(batch, &dimensions[d]);
	seg = write_state(batch, chosen, whole);
	cs_unregister("attribute");
	tuplestore_end(attribute->store);
	if (!batch->what_if)
		write_membership(batch, seg);
	tuplestore_end(chosen->store);
	tuplestore_end(seg->store);
}

/*
 * cs_stage_segments: see decide.h.  The early stage always runs once, with no
 * dimension too, so that state.segments starts anew.
 */
void
cs_stage_segments(CsBatch *batch, bool late)
{
	int n;
	Dimension *dimensions = read_dimensions(late, &n);
	int first = 0;

	if (!late && !batch->what_if)
		end_gone(batch);
	do
	{
		int next = first;

		while (next < n && dimensions[next].level == dimensions[first].level)
			next++;
		if (next > first || !late)
			stage_level(batch, dimensions + first, next - first, !late && first == 0);
		first = next;
	} while (first < n);
}

/*
 * cs_internal.evaluate_segments(customer_ids, as_of, late): the stage alone.
 */
Datum
cs_evaluate_segments_sql(PG_FUNCTION_ARGS)
{
	CsFrame frame;
	CsBatch *batch;

	cs_enter(&frame);
	batch = cs_decide_batch(PG_GETARG_DATUM(0), PG_GETARG_TIMESTAMPTZ(1), NULL);
	cs_stage_segments(batch, PG_GETARG_BOOL(2));
	cs_leave(&frame);
	PG_RETURN_VOID();
}
