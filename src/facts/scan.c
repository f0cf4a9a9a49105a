/*
 * scan.c
 *		Finding out what changed: the change log, whole re-reads, checksums.
 *
 * In: cs_internal.change_log (written by capture), the relations of sources.
 * Out: cs_internal.pending (source, customer, range of anchors), the marks of
 * changed definitions, counts of unusable rows, how far each source reaches.
 *
 * All of it runs in one transaction and, as refresh calls it, on one snapshot:
 * facts and their change log rows commit together, so both or neither are seen.
 * What a source's own SQL raises stands in source_state.error and leaves the
 * source marked to be read whole; the others go on.
 *
 *	trigger		change log rows become pending rows; where a row says "whole
 *				source", or the storage of the table changed without rows
 *				changing (partition attached or detached, truncated or rewritten),
 *				every customer of the source is pending.
 *	watermark	rows of transactions that the last look did not see become change
 *				log rows (watermark.c), and go on as those of a trigger.
 *	scan		every scan_interval a checksum per customer is compared with the
 *				one kept: new, changed and vanished customers are pending.  Kept is
 *				that of what was ingested, on one snapshot with it, so that a row
 *				which came after the look and is gone at the next is seen to be
 *				gone.  Of the first ledger it is that of the look before it.
 *	window		a checksum per customer and day of the last days (window.c): what
 *				changes before them is not noticed.
 */
#include "cs_ext.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/lsyscache.h"

#include "core/empty.h"
#include "facts/ledger.h"
#include "facts/merge.h"
#include "facts/source_kind.h"
#include "facts/usage.h"

/* ---- what a source looks like now ----------------------------------------- */

/*
 * cs_source_error: shown in source_status until the source can be read.  It
 * rests from now on: 2 s, doubled with each failure that follows soon, up to 5
 * minutes.  Who fails again while it rests (a statement beside the reading) does
 * not make it longer.
 */
void
cs_source_error(const CsSource *source, const char *error)
{
	cs_exec("UPDATE cs_internal.source_state SET error = $2,"
			" failures = f.n, retry_at = f.now + least(300, 2 ^ f.n) * interval '1 second'"
			" FROM (SELECT t.source, CASE WHEN t.retry_at > c.now - interval '10 minutes'"
			"   THEN least(t.failures, 20) + 1 ELSE 1 END AS n, c.now"
			"  FROM cs_internal.source_state t, (SELECT clock_timestamp()) c (now)"
			"  WHERE t.source = $1 AND t.retry_at > c.now IS NOT TRUE) f"
			" WHERE source_state.source = f.source",
			CS_ARGS(cs_text(source->name), cs_text(error)));
	cs_exec(
		"UPDATE cs_internal.source_state SET error = $2 WHERE source = $1 AND error IS DISTINCT "
		"FROM $2",
		CS_ARGS(cs_text(source->name), cs_text(error)));
}

/*
 * resting: it could not be read a short while ago.  It is read whole when it
 * rested, so whatever is noted of it meanwhile need not be looked at.
 */
static bool
resting(const CsSource *source)
{
	return cs_exec("SELECT 1 FROM cs_internal.source_state WHERE source = $1 AND needs_scan"
				   " AND retry_at > clock_timestamp()",
				   CS_ARGS(cs_text(source->name))) > 0;
}

static void
set_needs_scan(const char *source)
{
	cs_exec("UPDATE cs_internal.source_state SET needs_scan = true WHERE source = $1 AND NOT "
			"needs_scan",
			CS_ARGS(cs_text(source)));
}

/*
 * cs_source_failed: see source.h.
 */
void
cs_source_failed(const CsSource *source, const char *error)
{
	cs_source_error(source, error);
	set_needs_scan(source->name);
}

/*
 * cs_source_find, cs_source_found: see source_kind.h.
 */
CsResult *
cs_source_find(const CsSource *source, const CsUserQuery *query)
{
	ErrorData *error = NULL;
	CsResult *rows = cs_user_query(query, &error);

	if (rows == NULL)
		cs_source_failed(source, error->message);
	else
		cs_register("found", rows);
	return rows;
}

void
cs_source_found(CsResult *rows)
{
	cs_unregister("found");
	tuplestore_end(rows->store);
}

/*
 * cs_build_failed: see source.h.
 */
void
cs_build_failed(const char *build, const CsSource *source, const char *error)
{
	cs_source_failed(source, error);
	cs_exec(psprintf("UPDATE cs_internal.source_state SET needs_scan = true"
					 " WHERE source IN (SELECT b.source FROM cs_internal.%s b)",
					 build),
			CS_NO_ARGS);
	cs_exec(psprintf("DELETE FROM cs_internal.%s", build), CS_NO_ARGS);
}

/*
 * cs_source_has_triggers: both of them, always enabled.
 */
bool
cs_source_has_triggers(const CsSource *source)
{
	cs_exec(
		"SELECT count(*) = 2 FROM pg_trigger WHERE tgrelid = $1 AND tgenabled = 'A' AND tgname IN "
		"('cs_capture_' || $2, 'cs_capture_' || $2 || '_truncate')",
		CS_ARGS(cs_datum(OIDOID, ObjectIdGetDatum(source->relid), false), cs_text(source->name)));
	return *cs_value() == 't';
}

/*
 * check_storage: the relation, its partitions and their files as a text; true
 * when rows may have come or gone without a row trigger.  Read by SQL, so on
 * the snapshot that the facts are read on.  Partitions made empty are no news.
 */
static bool
check_storage(const CsSource *source, const char *before)
{
	static const char *const now_sql =
		"WITH RECURSIVE t AS (SELECT $1::oid AS oid UNION ALL SELECT i.inhrelid FROM pg_inherits i "
		"JOIN t ON i.inhparent = t.oid) SELECT string_agg(c.oid || ':' || c.relfilenode, ' ' ORDER "
		"BY "
		"c.oid) FROM t JOIN pg_class c ON c.oid = t.oid";
	CsArg relid = cs_datum(OIDOID, ObjectIdGetDatum(source->relid), false);
	char *now;

	cs_exec(now_sql, CS_ARGS(relid));
	now = cs_value();
	if (before != NULL && now != NULL && strcmp(before, now) == 0)
		return false;
	cs_exec("UPDATE cs_internal.source_state SET storage = $2 WHERE source = $1",
			CS_ARGS(cs_text(source->name), cs_text(now)));
	if (before == NULL || now == NULL)
		return true;
	cs_exec("SELECT EXISTS (SELECT 1 FROM string_to_table($1, ' ') o WHERE o <> ALL "
			"(string_to_array($2, ' '))) OR EXISTS (SELECT 1 FROM string_to_table($2, ' ') n WHERE "
			"n <> "
			"ALL (string_to_array($1, ' ')) AND coalesce(pg_relation_size(split_part(n, ':', "
			"1)::oid), 1) > 0)",
			CS_ARGS(cs_text(before), cs_text(now)));
	return *cs_value() == 't';
}

/*
 * verify: brings source_state up to date; false when the source can't be read.
 */
static bool
verify(CsSource *source, const CsPolicy *policy)
{
	char *storage = NULL;
	char *types;
	char *wanted;
	const char *capture;
	const char *reason;
	char *denied, *remedy;
	ErrorData *error;

	if (cs_exec("SELECT storage FROM cs_internal.source_state WHERE source = $1",
				CS_ARGS(cs_text(source->name))) > 0)
		storage = cs_cell(0, 1);
	else
		cs_exec(
			"INSERT INTO cs_internal.source_state (source, capture, capture_reason) VALUES ($1, "
			"'scan', 'not looked at yet')",
			CS_ARGS(cs_text(source->name)));

	if (!OidIsValid(source->relid))
	{
		cs_source_failed(source, psprintf("relation %s does not exist", source->relation));
		return false;
	}
	if ((denied = cs_source_denied(source, policy, &remedy)) != NULL)
	{
		cs_source_failed(source, denied);
		return false;
	}
	error = cs_source_analyse(source, NULL);
	if (error != NULL)
	{
		cs_source_failed(source, error->message);
		return false;
	}

	cs_exec("SELECT capture FROM cs.source WHERE name = $1", CS_ARGS(cs_text(source->name)));
	wanted = cs_value();
	capture = cs_source_capture(source, wanted, &reason);
	if (strcmp(capture, "trigger") == 0 && !cs_source_has_triggers(source))
	{
		capture = "scan";
		reason = "its capture triggers are missing or disabled";
	}
	source->capture = pstrdup(capture);
	types = cs_source_types(source);
	cs_exec(
		"UPDATE cs_internal.source_state SET capture = $2, capture_reason = $3, column_types = "
		"$4::jsonb, error = NULL, needs_scan = needs_scan OR (column_types IS NOT NULL AND "
		"column_types <> $4::jsonb) OR capture <> $2 WHERE source = $1 AND (capture, "
		"capture_reason, error) IS DISTINCT FROM ($2, $3, NULL) OR source = $1 AND column_types IS "
		"DISTINCT FROM $4::jsonb",
		CS_ARGS(cs_text(source->name), cs_text(capture), cs_text(reason), cs_text(types)));
	if ((strcmp(capture, "trigger") == 0 || strcmp(capture, "watermark") == 0) &&
		check_storage(source, storage))
		set_needs_scan(source->name);
	return true;
}

/* ---- pending -------------------------------------------------------------- */

/*
 * cs_pending_known: every id that is known from before is pending for a source,
 * so that what is no longer in the source is seen to be gone.
 */
void
cs_pending_known(const char *source)
{
	cs_exec(
		"INSERT INTO cs_internal.pending (source, customer_id) SELECT $1, customer_id FROM (SELECT "
		"customer_id FROM cs_internal.customer UNION SELECT customer_id FROM cs_internal.state "
		"UNION SELECT customer_id FROM cs_internal.movement UNION SELECT customer_id FROM "
		"cs_internal.usage_month UNION SELECT from_id FROM cs_internal.merge WHERE source = $1 "
		"UNION SELECT customer_id FROM cs_internal.usage_sealed WHERE "
		"source = "
		"$1 UNION SELECT customer_id FROM cs_internal.unusable WHERE source = "
		"$1 AND customer_id <> '') k" CS_UPSERT_PENDING,
		CS_ARGS(cs_text(source)));
}

/*
 * can_have_orphans: whether its ids may be no customers.
 */
static bool
can_have_orphans(const CsSource *source)
{
	return strcmp(source->kind, "customer") != 0 && strcmp(source->kind, "subscription") != 0;
}

/*
 * done_reading: the source was read whole.
 */
static void
done_reading(const CsSource *source)
{
	cs_exec(
		"UPDATE cs_internal.source_state SET needs_scan = false, scanned_at = clock_timestamp(), "
		"looked_at = clock_timestamp(), changed_since = '-infinity', changed_until = 'infinity', "
		"read_whole = true, error = NULL WHERE source = $1",
		CS_ARGS(cs_text(source->name)));
	if (strcmp(source->capture, "watermark") == 0)
		cs_exec("UPDATE cs_internal.source_state SET rewritten = $2 WHERE source = $1",
				CS_ARGS(cs_text(source->name), cs_int8(cs_rewritten(source->relid))));
}

/*
 * note_strangers: which of the ids stand in this source and are no customers.
 */
static void
note_strangers(const CsSource *source, Datum strangers)
{
	CsUserQuery query = {0};
	CsResult *rows;

	if (source->mapping == NULL || !OidIsValid(source->relid) || !can_have_orphans(source))
		return;
	cs_source_keys(source, strangers, &query);
	query.sql =
		psprintf("SELECT DISTINCT %s AS customer_id FROM (%s) r",
				 cs_source_id(source, "r.customer_key"), cs_source_rows(source, true, false));
	rows = cs_source_find(source, &query);
	if (rows == NULL)
		return;
	cs_exec("DELETE FROM cs_internal.orphan WHERE source = $1 AND customer_id = ANY ($2)",
			CS_ARGS(cs_text(source->name), cs_textarray(strangers)));
	cs_exec("INSERT INTO cs_internal.orphan (source, customer_id) SELECT $1, customer_id FROM "
			"found ON CONFLICT DO NOTHING",
			CS_ARGS(cs_text(source->name)));
	cs_source_found(rows);
}

/*
 * cs_orphans_ingest: see source.h.
 */
void
cs_orphans_ingest(const CsSource *source, Datum ids)
{
	Datum strangers;
	bool isnull;
	ListCell *lc;

	if (!cs_is_empty("orphan"))
		cs_exec("DELETE FROM cs_internal.orphan o USING cs_internal.customer c WHERE c.customer_id "
				"= o.customer_id AND o.customer_id = ANY ($1)",
				CS_ARGS(cs_textarray(ids)));
	cs_exec("SELECT array_agg(i) FROM unnest($1) i WHERE NOT EXISTS (SELECT 1 FROM "
			"cs_internal.customer c WHERE c.customer_id = i)",
			CS_ARGS(cs_textarray(ids)));
	strangers = cs_value_datum(&isnull);
	if (isnull)
		return;
	strangers = PointerGetDatum(DatumGetArrayTypePCopy(strangers));
	if (source->mapping != NULL && can_have_orphans(source))
		note_strangers(source, strangers);
	else
		foreach (lc, cs_sources(NULL))
			note_strangers(lfirst(lc), strangers);
}

/*
 * forget_orphans: of a source that is read whole; ingest finds them again.
 */
static void
forget_orphans(const CsSource *source)
{
	cs_exec("DELETE FROM cs_internal.orphan WHERE source = $1", CS_ARGS(cs_text(source->name)));
}

/*
 * cs_pending_all: every customer of the source, and every one known before, is
 * pending; false when it cannot be read, which is noted.
 */
bool
cs_pending_all(const CsSource *source)
{
	CsUserQuery query = {0};
	CsResult *rows;

	query.sql =
		psprintf("SELECT DISTINCT %s AS customer_id FROM (SELECT DISTINCT customer_key FROM (%s) "
				 "r) d",
				 cs_source_id(source, "customer_key"), cs_source_rows(source, false, false));
	query.search_path = source->search_path;
	rows = cs_source_find(source, &query);
	if (rows == NULL)
		return false;
	cs_exec("INSERT INTO cs_internal.pending (source, customer_id) SELECT $1, customer_id FROM "
			"found" CS_UPSERT_PENDING,
			CS_ARGS(cs_text(source->name)));
	cs_source_found(rows);
	cs_pending_known(source->name);
	return true;
}

/*
 * read_whole: every customer of the source, and every one known before, is
 * pending, or will be seen to by what is built from nothing; false when it cannot
 * be read, which is noted.
 */
static bool
read_whole(const CsSource *source)
{
	if (strcmp(source->kind, "usage_event") == 0)
	{
		/* Its customers are found while the rollup is built. */
		cs_usage_build_begin(source->name);
		forget_orphans(source);
		cs_count_unusable(source, (Datum) 0, true);
		done_reading(source);
		return true;
	}
	if (!cs_ledger_build_begin(source) && !cs_pending_all(source))
		return false;
	forget_orphans(source);
	cs_count_unusable(source, (Datum) 0, true);
	done_reading(source);
	return true;
}

/*
 * checksums_sql: a checksum per customer (keyed: of those in $1).  It is a sum over
 * the rows, so their order does not matter; a row counts as often as it stands there.
 */
static char *
checksums_sql(const CsSource *source, bool keyed)
{
	return psprintf("SELECT %s AS customer_id, sum(hashtextextended(r::text, 0)::numeric) AS "
					"checksum FROM (%s) r GROUP BY customer_key",
					cs_source_id(source, "customer_key"), cs_source_rows(source, keyed, false));
}

/*
 * checksums_ingested: of these customers, who were read whole.
 */
static void
checksums_ingested(const CsSource *source, Datum ids)
{
	CsUserQuery query = {0};
	CsResult *rows;

	cs_source_keys(source, ids, &query);
	query.sql = checksums_sql(source, true);
	rows = cs_source_find(source, &query);
	if (rows == NULL)
		return;
	cs_exec("DELETE FROM cs_internal.scan_checksum WHERE source = $1 AND customer_id = ANY ($2)",
			CS_ARGS(cs_text(source->name), cs_textarray(ids)));
	cs_exec("INSERT INTO cs_internal.scan_checksum (source, customer_id, checksum) SELECT $1, "
			"customer_id, checksum FROM found",
			CS_ARGS(cs_text(source->name)));
	cs_unregister("found");
	tuplestore_end(rows->store);
}

/*
 * cs_look_ingested: see source.h.
 */
void
cs_look_ingested(const CsSource *source, Datum ids, TimestampTz since, TimestampTz until)
{
	if (source->mapping == NULL || !OidIsValid(source->relid))
		return;
	if (strcmp(source->capture, "window") == 0)
		cs_window_ingested(source, ids, since, until);
	else if (strcmp(source->capture, "scan") == 0 && TIMESTAMP_IS_NOBEGIN(since) &&
			 TIMESTAMP_IS_NOEND(until))
		checksums_ingested(source, ids);
}

/*
 * read_checksums: compares a checksum per customer with the one kept.
 */
static void
read_checksums(const CsSource *source, bool everything)
{
	CsUserQuery query = {0};
	CsResult *rows;
	CsArg name = cs_text(source->name);
	bool built; /* from nothing: only who is gone is pending */

	query.sql = checksums_sql(source, false);
	query.search_path = source->search_path;
	rows = cs_source_find(source, &query);
	if (rows == NULL)
		return;
	built = everything && cs_ledger_build_begin(source);
	cs_exec("INSERT INTO cs_internal.pending (source, customer_id) SELECT $1, "
			"coalesce(n.customer_id, o.customer_id) FROM found n FULL JOIN (SELECT * FROM "
			"cs_internal.scan_checksum WHERE source = $1 AND day = '-infinity') o ON "
			"o.customer_id = n.customer_id WHERE (n.checksum IS DISTINCT FROM o.checksum OR $2) "
			"AND (n.customer_id IS NULL OR NOT $3)" CS_UPSERT_PENDING,
			CS_ARGS(name, cs_bool(everything), cs_bool(built)));
	if (everything || SPI_processed > 0)
	{
		cs_exec("DELETE FROM cs_internal.scan_checksum s WHERE s.source = $1 AND (s.day > "
				"'-infinity' OR NOT EXISTS (SELECT 1 FROM found n WHERE n.customer_id = "
				"s.customer_id))",
				CS_ARGS(name));
		cs_exec("INSERT INTO cs_internal.scan_checksum AS s (source, customer_id, checksum) SELECT "
				"$1, customer_id, checksum FROM found ON CONFLICT (source, customer_id, day) DO "
				"UPDATE SET checksum = excluded.checksum WHERE s.checksum <> excluded.checksum",
				CS_ARGS(name));
	}
	cs_source_found(rows);
	if (everything && !built)
		cs_pending_known(source->name);
	if (everything)
		forget_orphans(source);
	cs_count_unusable(source, (Datum) 0, true);
	done_reading(source);
}

/* ---- collecting -------------------------------------------------------- */

/*
 * scan_due: a scanned source is to be re-read.
 */
static bool
scan_due(const CsSource *source, bool force)
{
	if (force)
		return true;
	cs_exec(
		"SELECT looked_at IS NULL OR looked_at <= clock_timestamp() - make_interval(secs => $2) "
		"FROM cs_internal.source_state WHERE source = $1",
		CS_ARGS(cs_text(source->name), cs_float8(cs_scan_interval)));
	return *cs_value() == 't';
}

/*
 * follow_users: where users changed, what these users did counts for other
 * customers now.
 */
static void
follow_users(List *all)
{
	ListCell *lc;

	foreach (lc, all)
	{
		CsSource *source = lfirst(lc);

		if (!source->by_user)
			continue;
		cs_exec(
			"INSERT INTO cs_internal.pending (source, customer_id) SELECT DISTINCT $1, "
			"p.customer_id FROM cs_internal.pending p JOIN cs.source s ON s.name = p.source WHERE "
			"s.kind = 'user'" CS_UPSERT_PENDING,
			CS_ARGS(cs_text(source->name)));
		if (SPI_processed > 0)
			cs_exec(
				"UPDATE cs_internal.source_state SET changed_since = '-infinity', changed_until = "
				"'infinity' WHERE source = $1",
				CS_ARGS(cs_text(source->name)));
	}
}

/*
 * look_for_new: rows of a source with a watermark go to the change log.  What
 * is to be read whole is not looked at before.
 */
static void
look_for_new(const CsSource *source)
{
	if (strcmp(source->capture, "watermark") != 0)
		return;
	cs_exec("SELECT needs_scan FROM cs_internal.source_state WHERE source = $1",
			CS_ARGS(cs_text(source->name)));
	if (*cs_value() == 't')
		return;
	if (!cs_watermark_look(source))
		set_needs_scan(source->name);
}

/*
 * cs_collect: see source.h.
 */
void
cs_collect(TimestampTz as_of, bool force_scan)
{
	CsPolicy *policy = cs_policy(false);
	List *all;
	List *readable = NIL;
	List *whole = NIL;
	ListCell *lc;

	cs_capture_flush();
	CommandCounterIncrement();
	if (force_scan) /* who asks for a refresh has mended something, perhaps */
		cs_exec("UPDATE cs_internal.source_state SET retry_at = clock_timestamp()"
				" WHERE retry_at > clock_timestamp()",
				CS_NO_ARGS);
	all = cs_sources(NULL);
	foreach (lc, all)
	{
		if (!resting(lfirst(lc)) && verify(lfirst(lc), policy))
			readable = lappend(readable, lfirst(lc));
	}
	foreach (lc, readable)
		look_for_new(lfirst(lc));
	while (cs_take_changes(readable, &whole))
		CHECK_FOR_INTERRUPTS();

	foreach (lc, readable)
	{
		CsSource *source = lfirst(lc);
		bool needs_scan;

		cs_exec("SELECT needs_scan FROM cs_internal.source_state WHERE source = $1",
				CS_ARGS(cs_text(source->name)));
		needs_scan = *cs_value() == 't' || cs_is_named(whole, source->name);
		if (strcmp(source->capture, "scan") == 0)
		{
			if (needs_scan || scan_due(source, force_scan))
				read_checksums(source, needs_scan);
		}
		else if (strcmp(source->capture, "window") == 0)
		{
			if (!needs_scan && !scan_due(source, force_scan))
				continue;
			if (!needs_scan || read_whole(source))
				cs_window_look(source, as_of, needs_scan);
		}
		else if (needs_scan &&
				 (strcmp(source->capture, "watermark") != 0 || cs_watermark_begin(source)))
			read_whole(source);
	}
	follow_users(readable);
	cs_merge_pending();
}
