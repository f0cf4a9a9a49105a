/*
 * window.c
 *		Capture by window: the last days of a relation are read again, and what
 *		differs there is ingested by days.
 *
 * In: rows of a source with an anchor in the last window_days local days, usable
 * or not, and scan_checksum, the sums of what was ingested.  Out: pending rows that
 * say which days of a customer changed, so that no others are read; and, when they
 * are ingested, their sums.
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
 *	read whole				everybody is pending or built anew; the days of the
 *							window are pending besides, for their sums.
 *	cannot be read			read whole once it can be, as any source; so are rows
 *							before the window at fault, when it is read whole.
 *	sealed					days before the seal are not looked at.
 *	crash, rollback			the sums roll back with what is pending of them.
 *	concurrent writer		what commits after the look is in the next one.  The sums
 *							kept are not those of the look but of what was ingested,
 *							on one snapshot with it: a row that came between the two
 *							and is gone at the next look is seen to be gone.
 *	customer locked			stays pending, and his sums as they were.
 *	customers change		follow_users() of scan.c marks whom their users' rows
 *	their users				belong to now, and these are read whole.
 */
#include "cs_ext.h"

#include "facts/source_kind.h"
#include "utils/date.h"

/*
 * sums_of: a checksum of each customer (keyed: those in $1) and local day of the
 * rows for which the condition holds of the anchor, and the first and last of
 * these.  A sum over the rows: their order does not matter.
 */
static char *
sums_of(const CsSource *source, bool keyed, const char *condition)
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
					 anchor, anchor, anchor,
					 cs_source_facts(source, keyed && !source->by_user
												 ? psprintf("%s = ANY ($1)", cs_source_key(source))
												 : NULL));
	if (source->by_user)
		appendStringInfo(&sql, " %s JOIN (%s) u ON %s", keyed ? "" : "LEFT",
						 cs_source_users(source, keyed), cs_source_user_join(source));
	appendStringInfo(&sql, " WHERE %s %s", anchor, condition);
	if (source->by_user)
		appendStringInfoString(&sql, " AND (f.user_key IS NULL OR u.user_id IS NOT NULL)");
	appendStringInfoString(&sql, " GROUP BY 1, 2");
	return sql.data;
}

/*
 * sums_sql: those from as_of on.  Rows without an anchor apart: an index finds
 * the ones and the others, not both at once.
 */
static char *
sums_sql(const CsSource *source, bool keyed)
{
	char *sql = sums_of(source, keyed, ">= as_of");

	return cs_anchor_required(source)
			   ? psprintf("%s UNION ALL %s", sql, sums_of(source, keyed, "IS NULL"))
			   : sql;
}

/*
 * read_sums: those from an instant on, of these customers (0: of all), as the
 * relation "found"; NULL when the source cannot be read, which is noted.
 */
static CsResult *
read_sums(const CsSource *source, Datum ids, TimestampTz since)
{
	CsUserQuery query = {0};

	if (ids != (Datum) 0)
		cs_source_keys(source, ids, &query);
	query.sql = sums_sql(source, ids != (Datum) 0);
	query.as_of = since;
	query.search_path = source->search_path;
	return cs_source_find(source, &query);
}

/*
 * window_start: midnight that begins the days which are re-read.
 */
static TimestampTz
window_start(const CsSource *source, TimestampTz as_of, const char *zone)
{
	TimestampTz since = cs_local_midnight(cs_local_day(as_of, zone) - source->window_days, zone);

	return Max(since, source->sealed);
}

/*
 * note_changes: what differs between the relation "found" and the sums kept of the
 * days from `first` on is pending, and its range noted for the source's extent.
 * True when anything does.
 */
static bool
note_changes(const CsSource *source, CsArg first)
{
	CsArg name = cs_text(source->name);
	CsResult *changed =
		cs_query("SELECT customer_id, day, n.first_at, n.last_at FROM found n FULL JOIN (SELECT "
				 "customer_id, day, checksum FROM cs_internal.scan_checksum WHERE source = $1 AND "
				 "(day >= $2 OR day = '-infinity')) o USING (customer_id, day) WHERE n.checksum IS "
				 "DISTINCT FROM o.checksum",
				 CS_ARGS(name, first));
	bool any = changed->nrows > 0;

	if (any)
	{
		cs_register("changed", changed);
		cs_exec("INSERT INTO cs_internal.pending (source, customer_id, since, until) SELECT $1, "
				"customer_id, (min(day) - 1 + time '23:59:59.999999')::timestamptz + interval '1 "
				"microsecond', CASE WHEN min(day) = '-infinity' THEN "
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
 * cs_window_look: see source_kind.h.  Rows without a customer are never ingested:
 * their sums are kept here.
 */
void
cs_window_look(const CsSource *source, TimestampTz as_of, bool whole)
{
	const char *zone = cs_policy(false)->time_zone;
	TimestampTz since = window_start(source, as_of, zone);
	CsArg name = cs_text(source->name);
	CsArg first = cs_date(cs_local_day(since, zone));
	CsResult *rows;

	cs_exec("DELETE FROM cs_internal.scan_checksum WHERE source = $1 AND ($3 OR day < $2 AND day > "
			"'-infinity')",
			CS_ARGS(name, first, cs_bool(whole)));
	rows = read_sums(source, (Datum) 0, since);
	if (rows == NULL)
		return;
	if (note_changes(source, first))
	{
		cs_exec("DELETE FROM cs_internal.scan_checksum WHERE source = $1 AND customer_id = ''",
				CS_ARGS(name));
		cs_exec("INSERT INTO cs_internal.scan_checksum (source, customer_id, day, checksum) SELECT "
				"$1, customer_id, day, checksum FROM found WHERE customer_id = ''",
				CS_ARGS(name));
	}
	cs_source_found(rows);
	cs_exec("UPDATE cs_internal.source_state SET looked_at = clock_timestamp() WHERE source = $1",
			CS_ARGS(name));
}

/*
 * cs_window_ingested: see source_kind.h.  A day of which only a part may have been
 * read keeps the sum it has: what a look makes pending are whole days.
 */
void
cs_window_ingested(const CsSource *source, Datum ids, TimestampTz since, TimestampTz until)
{
	const char *zone = cs_policy(false)->time_zone;
	CsArg name = cs_text(source->name);
	bool whole = TIMESTAMP_IS_NOBEGIN(since);
	CsArg first;
	CsArg last = cs_date(DATEVAL_NOEND);
	TimestampTz from = window_start(source, cs_now(), zone);
	CsResult *rows;

	if (source->window_days == 0)
		return;
	if (!whole)
		from = Max(from, cs_local_midnight(cs_local_day(since - 1, zone) + 1, zone));
	if (!TIMESTAMP_IS_NOEND(until))
		last = cs_date(cs_local_day(until + 1, zone) - 1);
	first = cs_date(cs_local_day(from, zone));
	rows = read_sums(source, ids, from);
	if (rows == NULL)
		return;
	cs_exec("DELETE FROM cs_internal.scan_checksum WHERE source = $1 AND customer_id = ANY ($2) "
			"AND (day BETWEEN $3 AND $4 OR $5 AND day = '-infinity')",
			CS_ARGS(name, cs_textarray(ids), first, last, cs_bool(whole)));
	cs_exec("INSERT INTO cs_internal.scan_checksum (source, customer_id, day, checksum) SELECT $1, "
			"customer_id, day, checksum FROM found WHERE day BETWEEN $2 AND $3 OR $4 AND day = "
			"'-infinity'",
			CS_ARGS(name, first, last, cs_bool(whole)));
	cs_source_found(rows);
}
