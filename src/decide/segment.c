/*
 * segment.c
 *		The stages of segments: which segment of each dimension a customer is in.
 *
 * In: the rows of state of a batch, the dimensions that are early (or late) and
 * their segments.  Out: state.segments, and unless this is a what-if the kept
 * history in cs_internal.membership, of those who moved.
 *
 * Dimensions go in levels: those whose rules name other dimensions come after
 * these.  In a dimension the first segment by priority, then name, whose rule is
 * true is taken; NULL counts as not true; else the fallback; else none.
 *
 * Cases.
 * A rule that raises for a customer before another one is true: nobody knows
 * whether it would have been the first, so the customer stays where he is.
 * An overlapping dimension (not exclusive): each of its segments is asked by
 * itself, as if it were a dimension that the customer is in or not; the fallback
 * is for who is in none of them.
 * min_days: who came into a segment within so many local days stays, whatever
 * the rules say; not in a what-if, which has no past of its own.
 * Manual assignments win over everything until they expire.
 * Two changes at one instant (refresh of one customer, frozen clock): the later
 * replaces the earlier, so no interval of membership is empty.
 * A dimension that is gone or disabled: its memberships end.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/jsonb.h"

#include "cs_ext.h"
#include "core/empty.h"
#include "core/texts.h"
#include "decide/rule.h"
#include "decide/segment.h"
#include "refresh/state.h"

PG_FUNCTION_INFO_V1(cs_evaluate_segments_sql);

#define MAX_ATTRIBUTE_VALUES 200

/* Where a customer is in one dimension. */
typedef struct Place
{
	const char *segment; /* NULL: in none */
	const char *source;
	const char *reason;
	bool keep; /* the segment is not known, the customer stays */
} Place;

/* The dimensions of one level with everybody's place in each. */
typedef struct Level
{
	CsBatch *batch;
	CsDimension *dimensions;
	int n;
	Place *places; /* customers x dimensions; of who is in no relation, source is NULL */
} Level;

#define PLACE(level, customer, dimension) (&(level)->places[(customer) * (level)->n + (dimension)])

static int
dimension_of(const Level *level, const char *name)
{
	for (int d = 0; d < level->n; d++)
		if (strcmp(level->dimensions[d].name, name) == 0)
			return d;
	return -1;
}

/*
 * place_of: of a customer, where a segment of a dimension is noted; NULL: none of
 * this level.
 */
static Place *
place_of(Level *level, const char *customer_id, const char *dimension, const char *segment)
{
	int row = cs_state_row(level->batch->state, customer_id);

	for (int d = 0; row >= 0 && d < level->n; d++)
		if (strcmp(level->dimensions[d].name, dimension) == 0 &&
			(level->dimensions[d].part == NULL || strcmp(level->dimensions[d].part, segment) == 0))
			return PLACE(level, row, d);
	return NULL;
}

/*
 * place_by_rules: the first segment whose rule is true.
 */
static void
place_by_rules(Level *level, const CsDimensions *defs)
{
	int first = level->dimensions[0].first;
	int n = level->dimensions[level->n - 1].first + level->dimensions[level->n - 1].count - first;
	CsRuleValues *values = cs_rule_values(level->batch, defs->rules + first, n);

	for (int c = 0; c < level->batch->state->n; c++)
		for (int d = 0; d < level->n; d++)
		{
			CsDimension *dimension = &level->dimensions[d];
			Place *place = PLACE(level, c, d);

			if (dimension->attribute != NULL)
				continue;
			place->segment = dimension->part ? NULL : dimension->fallback;
			place->source = "fallback";
			for (int i = dimension->first - first; i < dimension->first - first + dimension->count;
				 i++)
			{
				int cell = CS_CELL(values, c, i);

				if (values->failed[cell])
				{
					place->keep = true;
					break;
				}
				if (!values->isnull[cell] && DatumGetBool(values->values[cell]))
				{
					place->segment = defs->names[first + i];
					place->source = "rule";
					break;
				}
			}
		}
}

/*
 * attribute_values: the relation "attribute" (customer_id, dimension, value,
 * known) of the batch for dimensions by attribute.
 */
static CsResult *
attribute_values(const Level *level, int nattributes)
{
	Datum *names = palloc(sizeof(Datum) * nattributes);
	int n = 0;

	for (int d = 0; d < level->n; d++)
		if (level->dimensions[d].attribute != NULL)
			names[n++] = CStringGetTextDatum(level->dimensions[d].name);
	return cs_query("SELECT * FROM cs_internal.attribute_of($1, $2, $3, true)",
					CS_ARGS(cs_textarray(level->batch->ids), cs_tstz(level->batch->as_of),
							cs_textarray(cs_text_array(names, n))));
}

/*
 * note_attribute_values: learns new values of an attribute dimension, up to the
 * limit; values beyond it count as none and are reported.
 */
static void
note_attribute_values(const CsBatch *batch, CsDimension *dimension)
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
 * place_by_attribute: dimensions whose segments are the values of an attribute.
 */
static void
place_by_attribute(Level *level)
{
	int nattributes = 0;
	CsResult *attribute;

	/* nearly always there is none, and nothing is asked */
	for (int d = 0; d < level->n; d++)
		nattributes += level->dimensions[d].attribute != NULL;
	if (nattributes == 0)
		return;
	attribute = attribute_values(level, nattributes);
	cs_register("attribute", attribute);
	for (int d = 0; d < level->n; d++)
	{
		CsDimension *dimension = &level->dimensions[d];
		uint64 n;

		if (dimension->attribute == NULL)
			continue;
		note_attribute_values(level->batch, dimension);
		n = cs_exec("SELECT a.customer_id, k.value, a.known FROM attribute a"
					" LEFT JOIN cs_internal.attribute_value k ON k.dimension = a.dimension"
					"  AND k.value = a.value WHERE a.dimension = $1",
					CS_ARGS(cs_text(dimension->name)));
		for (uint64 i = 0; i < n; i++)
		{
			int row = cs_state_row(level->batch->state, cs_cell(i, 1));
			bool isnull;
			Place *place;

			if (row < 0)
				continue;
			place = PLACE(level, row, d);
			place->segment = cs_cell(i, 2);
			place->source = place->segment ? "attribute" : "fallback";
			if (place->segment == NULL)
				place->segment = dimension->fallback;
			place->keep = !DatumGetBool(cs_cell_datum(i, 3, &isnull));
		}
		SPI_freetuptable(SPI_tuptable);
	}
	cs_unregister("attribute");
	tuplestore_end(attribute->store);
}

/*
 * place_as_before: where a rule raised, the customer stays where he is.
 */
static void
place_as_before(Level *level)
{
	bool any = false;
	uint64 n;

	for (int i = 0; i < level->batch->state->n * level->n; i++)
	{
		any |= level->places[i].keep;
		if (level->places[i].keep)
			level->places[i].segment = level->places[i].source = NULL;
	}
	if (!any)
		return;
	n = cs_exec("SELECT m.customer_id, m.dimension, m.segment, m.source"
				" FROM cs_internal.membership m WHERE m.customer_id = ANY ($1)"
				" AND m.valid_to IS NULL",
				CS_ARGS(cs_textarray(level->batch->ids)));
	for (uint64 i = 0; i < n; i++)
	{
		Place *place = place_of(level, cs_cell(i, 1), cs_cell(i, 2), cs_cell(i, 3));

		if (place == NULL || !place->keep)
			continue;
		place->segment = cs_cell(i, 3);
		place->source = cs_cell(i, 4);
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * place_for_min_days: who came in lately stays.
 */
static void
place_for_min_days(Level *level)
{
	CsBatch *batch = level->batch;
	bool any = false;
	uint64 n;

	for (int d = 0; d < level->n; d++)
		any |= level->dimensions[d].min_days > 0;
	if (!any || batch->what_if)
		return;
	n = cs_exec(
		"SELECT m.customer_id, m.dimension, m.segment, m.source FROM cs_internal.membership m"
		" JOIN cs.dimension d ON d.name = m.dimension AND d.min_days > 0"
		" WHERE m.valid_to IS NULL AND m.source <> 'manual' AND m.customer_id = ANY ($1)"
		" AND (m.valid_from AT TIME ZONE $2)::date > $3 - d.min_days",
		CS_ARGS(cs_textarray(batch->ids), cs_text(batch->policy->time_zone),
				cs_date(batch->as_of_day)));
	for (uint64 i = 0; i < n; i++)
	{
		Place *place = place_of(level, cs_cell(i, 1), cs_cell(i, 2), cs_cell(i, 3));

		if (place == NULL || place->source == NULL ||
			(place->segment != NULL && strcmp(place->segment, cs_cell(i, 3)) == 0))
			continue;
		place->segment = cs_cell(i, 3);
		place->source = cs_cell(i, 4);
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * place_spare: the fallback of overlapping dimensions, for who is in no other part.
 */
static void
place_spare(Level *level)
{
	for (int d = 0; d < level->n; d++)
	{
		CsDimension *spare = &level->dimensions[d];

		if (!spare->is_spare)
			continue;
		for (int c = 0; c < level->batch->state->n; c++)
		{
			Place *place = PLACE(level, c, d);
			bool in = false;

			for (int o = 0; o < d; o++)
				if (strcmp(level->dimensions[o].name, spare->name) == 0)
					in |= PLACE(level, c, o)->segment != NULL;
			if (place->source != NULL && strcmp(place->source, "manual") == 0)
				continue;
			place->segment = in ? NULL : spare->part;
			place->source = "fallback";
		}
	}
}

/*
 * place_by_hand: assignments win.
 */
static void
place_by_hand(Level *level)
{
	uint64 n = cs_exec("SELECT a.customer_id, a.dimension, a.segment, a.reason"
					   " FROM cs_internal.segment_assignment a"
					   " WHERE a.customer_id = ANY ((SELECT $2)::text[])"
					   " AND (a.expires_at > $1 OR a.expires_at IS NULL)"
					   " AND a.assigned_at <= $1",
					   CS_ARGS(cs_tstz(level->batch->as_of), cs_textarray(level->batch->ids)));

	for (uint64 i = 0; i < n; i++)
	{
		Place *place = place_of(level, cs_cell(i, 1), cs_cell(i, 2), cs_cell(i, 3));

		/* of a customer whose attributes nobody knows, nothing is known */
		if (place == NULL || (place->source == NULL && !place->keep))
			continue;
		place->segment = cs_cell(i, 3);
		place->source = "manual";
		place->reason = cs_cell(i, 4);
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * segments_json: {"dimension": "segment"} of what was there, without the
 * dimensions of the level, and the places of the customer.
 */
static Jsonb *
segments_json(const Level *level, int customer, Jsonb *before)
{
	JsonbParseState *parse = NULL;
	JsonbValue key;
	JsonbValue value;

	pushJsonbValue(&parse, WJB_BEGIN_OBJECT, NULL);
	if (before != NULL)
	{
		JsonbIterator *it = JsonbIteratorInit(&before->root);
		JsonbIteratorToken token;

		while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
		{
			if (token == WJB_KEY)
				key = value;
			else if (token == WJB_VALUE &&
					 dimension_of(level, pnstrdup(key.val.string.val, key.val.string.len)) < 0)
			{
				pushJsonbValue(&parse, WJB_KEY, &key);
				pushJsonbValue(&parse, WJB_VALUE, &value);
			}
		}
	}
	for (int d = 0; d < level->n;)
	{
		const char *name = level->dimensions[d].name;
		bool parts = level->dimensions[d].part != NULL;
		bool begun = false;

		/* the parts of an overlapping dimension stand beside each other */
		do
		{
			const Place *place = PLACE(level, customer, d);

			if (place->segment == NULL)
				continue;
			key.type = value.type = jbvString;
			key.val.string.val = (char *) name;
			key.val.string.len = strlen(name);
			value.val.string.val = (char *) place->segment;
			value.val.string.len = strlen(place->segment);
			if (!begun)
				pushJsonbValue(&parse, WJB_KEY, &key);
			if (!begun && parts)
				pushJsonbValue(&parse, WJB_BEGIN_ARRAY, NULL);
			begun = true;
			pushJsonbValue(&parse, parts ? WJB_ELEM : WJB_VALUE, &value);
		} while (++d < level->n && parts && strcmp(level->dimensions[d].name, name) == 0);
		if (begun && parts)
			pushJsonbValue(&parse, WJB_END_ARRAY, NULL);
	}
	return JsonbValueToJsonb(pushJsonbValue(&parse, WJB_END_OBJECT, NULL));
}

/*
 * is_at: does the stored {"dimension": "segment"} say the same?
 */
static bool
is_at(Jsonb *stored, const char *dimension, const char *part, const char *segment)
{
	JsonbValue found;

	if (part != NULL)
	{
		JsonbValue wanted = {.type = jbvString};
		bool in;

		wanted.val.string.val = (char *) part;
		wanted.val.string.len = strlen(part);
		in = getKeyJsonValueFromContainer(&stored->root, dimension, strlen(dimension), &found) !=
				 NULL &&
			 found.type == jbvBinary &&
			 findJsonbValueFromContainer(found.val.binary.data, JB_FARRAY, &wanted) != NULL;
		return in == (segment != NULL);
	}

	if (getKeyJsonValueFromContainer(&stored->root, dimension, strlen(dimension), &found) == NULL)
		return segment == NULL;
	return segment != NULL && found.type == jbvString &&
		   found.val.string.len == (int) strlen(segment) &&
		   memcmp(found.val.string.val, segment, found.val.string.len) == 0;
}

/*
 * write_state: into state.segments.  whole: segments of other dimensions go
 * (the first level starts anew).  Customers beside each other are often in the
 * same segments, so what was made for the one before is taken where it fits.
 */
static void
write_state(const Level *level, bool whole)
{
	CsState *state = level->batch->state;
	Jsonb *last = NULL;
	Jsonb *last_before = NULL;
	int last_row = -1;

	for (int c = 0; c < state->n; c++)
	{
		Size cell = CS_STATE_CELL(c, CS_STATE_SEGMENTS);
		Jsonb *before = whole || state->nulls[cell] ? NULL : DatumGetJsonbP(state->values[cell]);
		bool same =
			last != NULL &&
			(before == last_before ||
			 (before != NULL && last_before != NULL &&
			  datumIsEqual(PointerGetDatum(before), PointerGetDatum(last_before), false, -1)));

		for (int d = 0; same && d < level->n; d++)
		{
			const char *a = PLACE(level, c, d)->segment;
			const char *b = PLACE(level, last_row, d)->segment;

			same = a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
		}
		if (!same)
		{
			last = segments_json(level, c, before);
			last_before = before;
			last_row = c;
		}
		cs_state_set(state, c, CS_STATE_SEGMENTS, PointerGetDatum(last), false);
	}
}

/*
 * moved: rows (customer_id, dimension, segment, source, reason, part) of places that
 * are others than the stored row says.  It says what membership says, for both
 * are written together; without one (after a restore) all are looked at.
 */
static CsResult *
moved(const Level *level)
{
	CsState *state = level->batch->state;
	CsResult *result = palloc0(sizeof(CsResult));

	result->desc = CreateTemplateTupleDesc(6);
	TupleDescInitEntry(result->desc, 1, "customer_id", TEXTOID, -1, 0);
	TupleDescInitEntryCollation(result->desc, 1, C_COLLATION_OID);
	TupleDescInitEntry(result->desc, 2, "dimension", TEXTOID, -1, 0);
	TupleDescInitEntry(result->desc, 3, "segment", TEXTOID, -1, 0);
	TupleDescInitEntry(result->desc, 4, "source", TEXTOID, -1, 0);
	TupleDescInitEntry(result->desc, 5, "reason", TEXTOID, -1, 0);
	TupleDescInitEntry(result->desc, 6, "part", TEXTOID, -1, 0);
	result->store = tuplestore_begin_heap(true, false, CS_RESULT_MEM);
	for (int c = 0; c < state->n; c++)
	{
		Size cell = CS_STATE_CELL(c, CS_STATE_SEGMENTS);
		Jsonb *stored = state->is_stored[c] && !state->stored_nulls[cell]
							? DatumGetJsonbP(state->stored[cell])
							: NULL;

		for (int d = 0; d < level->n; d++)
		{
			const Place *place = PLACE(level, c, d);
			const char *name = level->dimensions[d].name;
			const char *texts[] = {state->ids[c], name,          place->segment,
								   place->source, place->reason, level->dimensions[d].part};
			Datum row[6];
			bool isnull[6];

			if (!state->there[c] || (place->source == NULL && !place->keep) ||
				(stored != NULL && is_at(stored, name, level->dimensions[d].part, place->segment)))
				continue;
			for (int i = 0; i < 6; i++)
			{
				isnull[i] = texts[i] == NULL;
				row[i] = isnull[i] ? (Datum) 0 : CStringGetTextDatum(texts[i]);
			}
			tuplestore_putvalues(result->store, result->desc, row, isnull);
			result->nrows++;
		}
	}
	return result;
}

/*
 * write_membership: what changed against the kept history.  The customers are
 * named beside the join: while the table grows, the planner would read it whole
 * for each batch (19 s of CPU instead of 14 to 16 for a first refresh of 140,000).
 */
static void
write_membership(const CsBatch *batch, CsResult *seg)
{
	CsArg at[] = {cs_tstz(batch->as_of), cs_textarray(batch->ids)};

	if (seg->nrows == 0)
		return;
	cs_register("seg", seg);

	/* An entry at this very instant that no longer holds never was. */
	cs_exec("DELETE FROM cs_internal.membership m USING seg g"
			" WHERE m.customer_id = ANY ($2) AND m.customer_id = g.customer_id AND m.dimension = "
			"g.dimension AND m.valid_to IS NULL"
			" AND m.valid_from >= $1 AND m.segment IS DISTINCT FROM g.segment"
			" AND m.segment = coalesce(g.part, m.segment)",
			at, 2);
	/* Nor was the leaving of the segment that holds again. */
	cs_exec(
		"UPDATE cs_internal.membership m SET valid_to = NULL FROM seg g"
		" WHERE m.customer_id = ANY ($2) AND m.customer_id = g.customer_id AND m.dimension = "
		"g.dimension AND m.valid_to = $1"
		" AND m.segment = g.segment"
		" AND NOT EXISTS (SELECT 1 FROM cs_internal.membership o WHERE o.customer_id = ANY ($2)"
		"  AND o.customer_id = m.customer_id AND o.dimension = m.dimension AND o.valid_to IS NULL"
		"  AND o.segment = coalesce(g.part, o.segment))",
		at, 2);
	cs_exec("UPDATE cs_internal.membership m SET valid_to = $1 FROM seg g"
			" WHERE m.customer_id = ANY ($2) AND m.customer_id = g.customer_id AND m.dimension = "
			"g.dimension AND m.valid_to IS NULL"
			" AND m.segment IS DISTINCT FROM g.segment AND m.segment = coalesce(g.part, m.segment)",
			at, 2);
	cs_exec("INSERT INTO cs_internal.membership (customer_id, dimension, segment, valid_from, "
			"source, reason)"
			" SELECT g.customer_id, g.dimension, g.segment, $1, g.source, g.reason FROM seg g"
			" WHERE g.segment IS NOT NULL AND NOT EXISTS (SELECT 1 FROM cs_internal.membership o"
			"  WHERE o.customer_id = ANY ($2) AND o.customer_id = g.customer_id AND o.dimension = "
			"g.dimension AND o.valid_to IS "
			"NULL AND o.segment = coalesce(g.part, o.segment))",
			at, 2);
	cs_unregister("seg");
}

/*
 * any_gone: is somebody in a dimension that is not there, or is that unknown?
 */
static bool
any_gone(const CsBatch *batch, const CsDimensions *defs)
{
	CsState *state = batch->state;
	Level all = {.dimensions = defs->dimensions, .n = defs->ndimensions};
	Jsonb *last = NULL;

	for (int c = 0; c < state->n; c++)
	{
		Size cell = CS_STATE_CELL(c, CS_STATE_SEGMENTS);
		Jsonb *stored;
		JsonbIterator *it;
		JsonbIteratorToken token;
		JsonbValue value;

		if (!state->is_stored[c] || state->stored_nulls[cell])
			return true;
		stored = DatumGetJsonbP(state->stored[cell]);
		if (last != NULL && datumIsEqual(PointerGetDatum(last), PointerGetDatum(stored), false, -1))
			continue;
		last = stored;
		it = JsonbIteratorInit(&stored->root);
		while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
			if (token == WJB_KEY &&
				dimension_of(&all, pnstrdup(value.val.string.val, value.val.string.len)) < 0)
				return true;
	}
	return false;
}

/*
 * end_gone: memberships of dimensions that are no longer there, and
 * assignments that are over.
 */
static void
end_gone(const CsBatch *batch, const CsDimensions *defs)
{
	CsArg at[] = {cs_tstz(batch->as_of), cs_textarray(batch->ids)};
	const char *gone = " WHERE x.customer_id = ANY ($2) AND x.valid_to IS NULL AND NOT EXISTS "
					   "(SELECT 1 FROM cs.dimension d"
					   "  WHERE d.name = x.dimension AND d.enabled)";

	if (any_gone(batch, defs))
	{
		cs_exec(
			psprintf("DELETE FROM cs_internal.membership m USING (SELECT x.customer_id, x.dimension"
					 " FROM cs_internal.membership x%s) g"
					 " WHERE m.customer_id = ANY ($2) AND m.customer_id = g.customer_id AND "
					 "m.dimension = g.dimension"
					 " AND m.valid_to IS NULL AND m.valid_from >= $1",
					 gone),
			at, 2);
		cs_exec(psprintf("UPDATE cs_internal.membership m SET valid_to = $1 FROM (SELECT "
						 "x.customer_id, x.dimension"
						 " FROM cs_internal.membership x%s) g"
						 " WHERE m.customer_id = ANY ($2) AND m.customer_id = g.customer_id AND "
						 "m.dimension = g.dimension AND "
						 "m.valid_to IS NULL",
						 gone),
				at, 2);
	}
	if (!cs_is_empty("segment_assignment"))
		cs_exec("DELETE FROM cs_internal.segment_assignment a"
				" WHERE a.customer_id = ANY ((SELECT $2)::text[]) AND a.expires_at <= $1",
				at, 2);
}

/*
 * stage_level: dimensions that need nothing of each other.
 */
static void
stage_level(CsBatch *batch, const CsDimensions *defs, CsDimension *dimensions, int n, bool whole)
{
	Level level = {.batch = batch, .dimensions = dimensions, .n = n};

	level.places = palloc0(sizeof(Place) * ((Size) batch->state->n * n + 1));
	if (n > 0)
	{
		place_by_rules(&level, defs);
		place_by_attribute(&level);
		place_as_before(&level);
		place_for_min_days(&level);
		place_by_hand(&level);
		place_spare(&level);
	}
	write_state(&level, whole);
	if (!batch->what_if)
	{
		CsResult *seg = moved(&level);

		write_membership(batch, seg);
		tuplestore_end(seg->store);
	}
}

/*
 * cs_stage_segments: see decide.h.  The early stage always runs once, with no
 * dimension too, so that state.segments starts anew.
 */
void
cs_stage_segments(CsBatch *batch, bool late)
{
	CsDimensions *defs = cs_dimensions();
	bool whole = !late;
	int first = 0;

	if (!late && !batch->what_if)
		end_gone(batch, defs);
	while (first < defs->ndimensions)
	{
		CsDimension *dimension = &defs->dimensions[first];
		int next = first;

		while (next < defs->ndimensions && defs->dimensions[next].level == dimension->level &&
			   defs->dimensions[next].late == dimension->late)
			next++;
		if (dimension->late == late)
		{
			stage_level(batch, defs, dimension, next - first, whole);
			whole = false;
		}
		first = next;
	}
	if (whole)
		stage_level(batch, defs, NULL, 0, true);
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
	cs_state_write(batch);
	cs_leave(&frame);
	PG_RETURN_VOID();
}
