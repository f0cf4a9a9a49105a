/*
 * extent.c
 *		What stands in a source: rows that cannot be used, and how far it reaches.
 *
 * In: the relations of sources, changed ranges noted in source_state.  Out:
 * cs_internal.unusable, and first_at, last_at, has_rows, available of
 * source_state.  Read on the snapshot of the refresh, so what is counted is what
 * is ingested.
 */
#include "cs_ext.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"

#include "core/empty.h"
#include "core/texts.h"
#include "facts/source_kind.h"
#include "refresh/refresh.h"

/* ---- unusable rows -------------------------------------------------------- */

/*
 * count_unusable: see cs_count_unusable; without_customer: only rows whose key
 * is NULL or empty.  Rows of users whom no user source knows are nobody's, and
 * are not counted until it does.
 */
static void
count_unusable(const CsSource *source, Datum ids, bool whole, bool without_customer)
{
	CsMapping *mapping = CS_MAPPING(source);
	CsUserQuery query = {0};
	ErrorData *error = NULL;
	CsResult *rows;
	char *key = cs_source_key(source);
	char *condition = NULL;
	StringInfoData sql;

	if (without_customer)
		condition = mapping->key_native == TEXTOID || mapping->key_native == VARCHAROID ||
							mapping->key_native == BPCHAROID
						? psprintf("(%s IS NULL OR %s = '')", key, key)
						: psprintf("%s IS NULL", key);
	else if (!whole && !source->by_user)
		condition = psprintf("%s = ANY ($1)", key);
	if (!whole && !without_customer)
		cs_source_keys(source, ids, &query);
	query.search_path = source->search_path;

	initStringInfo(&sql);
	appendStringInfo(
		&sql,
		"SELECT customer_id, reason, count(*) AS row_count, min(example) AS example FROM "
		"(SELECT coalesce(%s, '') AS customer_id, %s AS reason, left(f::text, 200) COLLATE "
		"\"C\" AS example FROM (%s) f",
		cs_source_id(source, source->by_user ? "u.customer_key" : "f.customer_key"),
		cs_source_reason(source), cs_source_facts(source, condition));
	if (source->by_user)
		appendStringInfo(
			&sql, " %s JOIN (%s) u ON %s WHERE f.user_key IS NULL OR u.user_id IS NOT NULL",
			whole || without_customer ? "LEFT" : "",
			cs_source_users(source, !whole && !without_customer), cs_source_user_join(source));
	appendStringInfoString(&sql, ") x WHERE reason IS NOT NULL GROUP BY 1, 2");
	query.sql = sql.data;
	rows = cs_user_query(&query, &error);
	if (rows == NULL)
	{
		cs_source_error(source, error->message);
		return;
	}
	cs_register("counted", rows);
	cs_exec("DELETE FROM cs_internal.unusable WHERE source = $1 AND found_by = 'source' AND ($2 OR "
			"customer_id = ANY ($3))",
			CS_ARGS(cs_text(source->name), cs_bool(whole),
					without_customer
						? cs_textarray(cs_text_array((Datum[]){CStringGetTextDatum("")}, 1))
						: cs_datum(TEXTARRAYOID, ids, whole)));
	cs_exec(
		"INSERT INTO cs_internal.unusable (source, customer_id, reason, row_count, example) SELECT "
		"$1, customer_id, reason, row_count, example FROM counted ON CONFLICT (source, "
		"customer_id, "
		"reason) DO UPDATE SET row_count = excluded.row_count, example = excluded.example",
		CS_ARGS(cs_text(source->name)));
	cs_unregister("counted");
	tuplestore_end(rows->store);
}

/*
 * cs_count_without_customer: see source_kind.h.
 */
void
cs_count_without_customer(const CsSource *source)
{
	count_unusable(source, (Datum) 0, false, true);
}

/*
 * cs_count_unusable: see source.h.
 */
void
cs_count_unusable(const CsSource *source, Datum ids, bool whole)
{
	if (source->mapping == NULL || !OidIsValid(source->relid))
		return;
	count_unusable(source, ids, whole, false);
}

static char *
instant_text(TimestampTz at)
{
	return DatumGetCString(DirectFunctionCall1(timestamptz_out, TimestampTzGetDatum(at)));
}

/*
 * cs_count_unusable_between: see source.h.  Who had none and has none in the
 * range has none; in many sources of usage none can be there, and nothing is read.
 */
void
cs_count_unusable_between(const CsSource *source, Datum ids, TimestampTz since, TimestampTz until)
{
	char *anchor;
	int n;

	if (source->mapping == NULL || !OidIsValid(source->relid))
		return;
	anchor = cs_source_anchor(source);
	if (source->by_user || anchor == NULL || TIMESTAMP_NOT_FINITE(since) ||
		TIMESTAMP_NOT_FINITE(until))
	{
		cs_count_unusable(source, ids, false);
		return;
	}
	if (strcmp(source->kind, "usage_event") == 0 && cs_usage_is_usable(source))
	{
		if (cs_is_empty("unusable"))
			return;
		ids = cs_ids_from_query("SELECT DISTINCT customer_id FROM cs_internal.unusable"
								" WHERE source = $1 AND customer_id = ANY ((SELECT $2)::text[])"
								" ORDER BY 1",
								CS_ARGS(cs_text(source->name), cs_textarray(ids)), &n);
	}
	else
	{
		CsUserQuery query = {0};
		CsResult *rows;

		cs_source_keys(source, ids, &query);
		query.search_path = source->search_path;
		query.sql = psprintf(
			"SELECT DISTINCT %s AS customer_id FROM (%s) f WHERE %s >= '%s' AND %s <= "
			"'%s' AND %s IS NOT NULL",
			cs_source_id(source, "f.customer_key"),
			cs_source_facts(source, psprintf("%s = ANY ($1)", cs_source_key(source))), anchor,
			instant_text(since), anchor, instant_text(until), cs_source_reason(source));
		rows = cs_source_find(source, &query);
		if (rows == NULL)
			return;
		ids = cs_ids_from_query("SELECT customer_id FROM found UNION SELECT customer_id FROM"
								" cs_internal.unusable WHERE source = $1 AND customer_id = ANY ($2)"
								" ORDER BY 1",
								CS_ARGS(cs_text(source->name), cs_textarray(ids)), &n);
		cs_source_found(rows);
	}
	if (n > 0)
		cs_count_unusable(source, ids, false);
}

/* ---- extent --------------------------------------------------------------- */

/*
 * cs_anchor_bounds: how the least and greatest anchor are found at little cost:
 * by an index that begins with its column, by reading a small table;
 * CS_BOUNDS_NONE: they are not.
 */
CsBounds
cs_anchor_bounds(const CsSource *source)
{
	CsMapped *m = source->anchor ? cs_mapped(source, source->anchor) : NULL;

	if (m == NULL)
		return CS_BOUNDS_SCAN; /* nothing to find */
	if (m->attnum > 0 && cs_anchor_is_one(source) &&
		cs_exec("SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON "
				"a.oid = c.relam AND a.amname = 'btree' WHERE i.indrelid = $1 AND i.indkey[0] = $2 "
				"AND i.indisvalid AND i.indpred IS NULL",
				CS_ARGS(cs_datum(OIDOID, ObjectIdGetDatum(source->relid), false),
						cs_int4(m->attnum))) > 0)
		return CS_BOUNDS_INDEX;
	cs_exec("SELECT sum(c.relpages) < 1000 FROM pg_class c WHERE c.oid = $1 OR c.oid IN (SELECT "
			"inhrelid FROM pg_inherits WHERE inhparent = $1)",
			CS_ARGS(cs_datum(OIDOID, ObjectIdGetDatum(source->relid), false)));
	return *cs_value() == 't' ? CS_BOUNDS_SCAN : CS_BOUNDS_NONE;
}

/*
 * cs_source_extent: see source.h.  Looks only where something changed.  In a
 * big table without an index on the anchor, the bounds are widened by what
 * capture saw, and are exact again after the next whole read.
 */
bool
cs_source_extent(const CsSource *source, TimestampTz as_of)
{
	bool required = cs_anchor_required(source);
	CsUserQuery query = {0};
	ErrorData *error = NULL;
	CsResult *rows;

	if (!OidIsValid(source->relid) ||
		cs_exec("SELECT changed_since IS NULL OR coalesce(retry_at > clock_timestamp(), false), "
				"read_whole FROM cs_internal.source_state WHERE "
				"source = $1",
				CS_ARGS(cs_text(source->name))) == 0)
		return false;
	if (*cs_cell(0, 1) != 't')
	{
		bool whole = *cs_cell(0, 2) == 't';
		CsBounds bounds = cs_anchor_bounds(source);
		bool exact;

		if (whole && bounds == CS_BOUNDS_NONE)
			bounds = CS_BOUNDS_SCAN;
		exact = bounds != CS_BOUNDS_NONE;
		if (!exact)
			cs_exec("UPDATE cs_internal.source_state SET first_at = least(first_at, "
					"CASE WHEN isfinite(changed_since) THEN changed_since END), last_at = "
					"greatest(last_at, CASE WHEN isfinite(changed_until) THEN changed_until END), "
					"bounded = bounded AND isfinite(changed_until) WHERE source = $1",
					CS_ARGS(cs_text(source->name)));
		if (exact || !required)
		{
			query.sql = cs_source_extent_sql(source, required, bounds);
			query.search_path = source->search_path;
			rows = bounds == CS_BOUNDS_INDEX ? cs_query_by_index(&query, true, &error)
											 : cs_user_query(&query, &error);
			if (rows == NULL)
			{
				cs_source_error(source, error->message);
				return false;
			}
			cs_register("bounds", rows);
			cs_exec("UPDATE cs_internal.source_state SET first_at = CASE WHEN $2 THEN b.first_at "
					"ELSE source_state.first_at END, last_at = CASE WHEN $2 THEN b.last_at ELSE "
					"source_state.last_at END, has_rows = b.has_rows, bounded = bounded OR $2 FROM "
					"bounds b WHERE source = $1",
					CS_ARGS(cs_text(source->name), cs_bool(exact)));
			cs_unregister("bounds");
			tuplestore_end(rows->store);
		}
		cs_exec("UPDATE cs_internal.source_state SET changed_since = NULL, changed_until = NULL, "
				"read_whole = false WHERE source = $1",
				CS_ARGS(cs_text(source->name)));
	}

	/* What is sealed is there, whether its rows are or not. */
	cs_exec(
		"UPDATE cs_internal.source_state t SET first_at = least(t.first_at, s.first_at), last_at "
		"= greatest(t.last_at, s.last_at), has_rows = t.has_rows OR s.first_at IS NOT NULL FROM "
		"cs_internal.seal s WHERE t.source = $1 AND s.source = $1 AND (t.first_at IS DISTINCT FROM "
		"least(t.first_at, s.first_at) OR t.last_at IS DISTINCT FROM greatest(t.last_at, "
		"s.last_at))",
		CS_ARGS(cs_text(source->name)));

	/* Where the anchor may be NULL, or there is none, any row is known all along. */
	return cs_exec(
			   "UPDATE cs_internal.source_state SET available = NOT available WHERE source = $1 "
			   "AND "
			   "available <> CASE WHEN $3 THEN coalesce(first_at < $2, false) ELSE has_rows END",
			   CS_ARGS(cs_text(source->name), cs_tstz(as_of), cs_bool(required))) > 0;
}
