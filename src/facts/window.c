/*
 * window.c
 *		Capture by window: the last days of a relation are read again, and what
 *		differs there is ingested by days.
 *
 * In: rows of a source with an anchor in the last window_days local days, usable
 * or not, and scan_checksum, the sums of the last look.  Out: pending rows that
 * say which days of a customer changed, so that no others are read.
 *
 *	row comes, goes,		its customer and day differ in their checksum; who had
 *	is changed				the row before, and on which day, differs, too.
 *	before the window		not noticed, whether or not the customer changes inside.
 *	a day leaves the window	its sums are forgotten; nothing is pending for it.
 *	window made wider		the days that came into it are new: read once more.
 *	unusable row			is in the sums as any other, so the customer is counted
 *							anew when one comes or goes; rows without a customer are
 *							counted where they stand.
 *	row without an instant	is in every window, where the kind wants one: unusable.
 *	read whole				everybody is pending or built anew without the window;
 *							the sums are only kept for the next look.
 *	cannot be read			read whole once it can be, as any source; so are rows
 *							before the window at fault, when it is read whole.
 *	sealed					days before the seal are not looked at.
 *	crash, rollback			the sums roll back with what is pending of them.
 *	concurrent writer		what commits after the look is in the next one.  A row
 *							that comes after a look and goes before the next, and is
 *							read by what the first one made pending, stays until its
 *							day changes again: one reason more why this is not exact.
 *	customers change		follow_users() of scan.c marks whom their users' rows
 *	their users				belong to now, and these are read whole.
 */
#include "cs_ext.h"

#include "facts/source_kind.h"
#include "utils/date.h"

/*
 * sums_sql: a checksum of each customer and local day from as_of on, and the first
 * and last anchor there.  A sum over the rows: their order does not matter.
 */
static char *
sums_sql(const CsSource *source)
{
	char *anchor = cs_source_anchor(source);
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql,
					 "SELECT coalesce(%s, '') COLLATE \"C\" AS customer_id, "
					 "coalesce(%s::pg_catalog.date, '-infinity') AS day, "
					 "sum(hashtextextended(f::text, 0)::numeric) AS checksum, min(%s) AS first_at, "
					 "max(%s) AS last_at FROM (%s) f",
					 cs_source_id(source, source->by_user ? "u.customer_key" : "f.customer_key"),
					 anchor, anchor, anchor, cs_source_facts(source, NULL));
	if (source->by_user)
		appendStringInfo(&sql, " LEFT JOIN (%s) u ON %s", cs_source_users(source, false),
						 cs_source_user_join(source));
	if (cs_anchor_required(source))
		appendStringInfo(&sql, " WHERE (%s >= as_of OR %s IS NULL)", anchor, anchor);
	else
		appendStringInfo(&sql, " WHERE %s >= as_of", anchor);
	if (source->by_user)
		appendStringInfoString(&sql, " AND (f.user_key IS NULL OR u.user_id IS NOT NULL)");
	appendStringInfoString(&sql, " GROUP BY 1, 2");
	return sql.data;
}

/*
 * note_changes: what differs between the relation "found" and the sums kept of the
 * days from `first` on is pending, and its range noted for the source's extent.
 * True when anything does.
 */
static bool
note_changes(const CsSource *source, DateADT first)
{
	CsArg name = cs_text(source->name);
	CsResult *changed =
		cs_query("SELECT customer_id, day, n.first_at, n.last_at FROM found n FULL JOIN (SELECT "
				 "customer_id, day, checksum FROM cs_internal.scan_checksum WHERE source = $1 AND "
				 "(day >= $2 OR day = '-infinity')) o USING (customer_id, day) WHERE n.checksum IS "
				 "DISTINCT FROM o.checksum",
				 CS_ARGS(name, cs_date(first)));
	bool any = changed->nrows > 0;

	if (any)
	{
		cs_register("changed", changed);
		cs_exec("INSERT INTO cs_internal.pending (source, customer_id, since, until) SELECT $1, "
				"customer_id, min(day)::timestamptz, CASE WHEN min(day) = '-infinity' THEN "
				"'infinity' ELSE max(day) + time '23:59:59.999999' END::timestamptz FROM changed "
				"WHERE customer_id <> '' GROUP BY customer_id" CS_UPSERT_PENDING,
				CS_ARGS(name));
		/* infinite: to be looked up; nothing is known to widen the extent by */
		cs_exec("UPDATE cs_internal.source_state t SET changed_since = least(t.changed_since, "
				"c.since), changed_until = greatest(t.changed_until, c.until) FROM (SELECT "
				"coalesce(min(first_at), 'infinity') AS since, coalesce(max(last_at), '-infinity') "
				"AS until FROM changed) c WHERE t.source = $1",
				CS_ARGS(name));
		if (cs_exec("SELECT FROM changed WHERE customer_id = '' LIMIT 1", CS_NO_ARGS) > 0)
			cs_count_without_customer(source);
		cs_unregister("changed");
	}
	tuplestore_end(changed->store);
	return any;
}

/*
 * cs_window_look: see source_kind.h.
 */
void
cs_window_look(const CsSource *source, TimestampTz as_of, bool whole)
{
	const char *zone = cs_policy(false)->time_zone;
	CsArg name = cs_text(source->name);
	CsUserQuery query = {0};
	ErrorData *error = NULL;
	CsResult *rows;
	TimestampTz since = cs_local_midnight(cs_local_day(as_of, zone) - source->window_days, zone);

	since = Max(since, source->sealed);
	query.sql = sums_sql(source);
	query.as_of = since;
	query.search_path = source->search_path;
	rows = cs_user_query(&query, &error);
	if (rows == NULL)
	{
		cs_source_failed(source, error->message);
		return;
	}
	cs_register("found", rows);
	if (whole || note_changes(source, cs_local_day(since, zone)))
		cs_exec("INSERT INTO cs_internal.scan_checksum AS s (source, customer_id, day, checksum) "
				"SELECT $1, customer_id, day, checksum FROM found ON CONFLICT (source, "
				"customer_id, day) DO UPDATE SET checksum = excluded.checksum WHERE s.checksum <> "
				"excluded.checksum",
				CS_ARGS(name));
	cs_exec("DELETE FROM cs_internal.scan_checksum s WHERE s.source = $1 AND NOT EXISTS (SELECT "
			"FROM found n WHERE n.customer_id = s.customer_id AND n.day = s.day)",
			CS_ARGS(name));
	cs_unregister("found");
	tuplestore_end(rows->store);
	cs_exec("UPDATE cs_internal.source_state SET looked_at = clock_timestamp() WHERE source = $1",
			CS_ARGS(name));
}
