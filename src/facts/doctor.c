/*
 * doctor.c
 *		What cs.doctor() finds by looking at sources, and cs.mark_changed().
 *
 * In: sources, the catalog, and facts read as run_as.  Out: rows (check,
 * severity, object, finding, remedy), joined in SQL with what stands in state.
 */
#include "cs_ext.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "funcapi.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"

#include "facts/source_kind.h"

PG_FUNCTION_INFO_V1(cs_doctor_sources);
PG_FUNCTION_INFO_V1(cs_mark_changed);
PG_FUNCTION_INFO_V1(cs_source_sql);

static void
finding(ReturnSetInfo *rsinfo, const char *check, const char *severity, const char *object,
		const char *what, const char *remedy)
{
	const char *cells[5] = {check, severity, object, what, remedy};
	Datum values[5];
	bool nulls[5] = {false};

	for (int i = 0; i < 5; i++)
		values[i] = CStringGetTextDatum(cells[i]);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * locked: somebody keeps readers out of the relation (VACUUM FULL, ALTER TABLE),
 * or waits in order to. A refresh waits for it; looking for what is wrong does not.
 */
static bool
locked(ReturnSetInfo *rsinfo, const CsSource *source)
{
	char *who = NULL;
	char *pids = NULL;

	if (ConditionalLockRelationOid(source->relid, AccessShareLock))
		return false;
	if (cs_exec("SELECT string_agg(format('pid %s (%s)', l.pid, coalesce(a.usename, "
				"a.backend_type)), ', ' ORDER BY l.pid), string_agg(format('SELECT "
				"pg_terminate_backend(%s);', l.pid), ' ' ORDER BY l.pid) FROM pg_locks l LEFT JOIN "
				"pg_stat_activity a USING (pid) WHERE l.locktype = 'relation' AND l.relation = $1 "
				"AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = "
				"current_database()) AND l.mode = 'AccessExclusiveLock'",
				CS_ARGS(cs_datum(OIDOID, ObjectIdGetDatum(source->relid), false))) > 0)
	{
		who = cs_cell(0, 1);
		pids = cs_cell(0, 2);
	}
	finding(rsinfo, "locked", "warning", source->name,
			psprintf("%s is locked against readers by %s", source->relation,
					 who ? who : "a transaction that has ended meanwhile"),
			psprintf("A refresh that reads it waits; see pg_stat_activity. If it does not end: %s",
					 pids ? pids : "look again."));
	return true;
}

/*
 * readable: the relation is there and run_as may read it.
 */
static bool
readable(ReturnSetInfo *rsinfo, CsSource *source, const CsPolicy *policy)
{
	ErrorData *error;
	char *denied;
	char *remedy = NULL;

	if (!OidIsValid(source->relid))
	{
		finding(rsinfo, "relation", "error", source->name,
				psprintf("relation %s does not exist", source->relation),
				psprintf("Bring the relation back, or SELECT cs.drop_source(%s);",
						 quote_literal_cstr(source->name)));
		return false;
	}
	denied = cs_source_denied(source, policy, &remedy);
	if (denied != NULL)
	{
		finding(rsinfo, "read", "error", source->name, denied, remedy);
		return false;
	}
	if (locked(rsinfo, source))
		return false;
	error = cs_source_analyse(source, NULL);
	if (error != NULL)
	{
		finding(
			rsinfo, "mapping", "error", source->name, error->message,
			error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE
				? psprintf("GRANT what the mapping needs to %s, who reads it; past row security: "
						   "ALTER ROLE %s BYPASSRLS;",
						   quote_identifier(policy->run_as), quote_identifier(policy->run_as))
				: "Correct the relation, or drop the source and add it with other columns.");
		return false;
	}
	return true;
}

/*
 * check_index: reading some customers needs an index on the key.
 */
static void
check_index(ReturnSetInfo *rsinfo, const CsSource *source)
{
	CsMapping *mapping = CS_MAPPING(source);
	char relkind = get_rel_relkind(source->relid);
	CsMapped *key = mapping->key;
	char *column;

	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE &&
		relkind != RELKIND_MATVIEW)
		return;
	if (mapping->native)
	{
		if (cs_exec(
				"SELECT 1 FROM pg_index WHERE indrelid = $1 AND indkey[0] = $2 AND indisvalid AND "
				"indpred IS NULL",
				CS_ARGS(cs_datum(OIDOID, ObjectIdGetDatum(source->relid), false),
						cs_int4(key->attnum))) > 0)
			return;
		column = psprintf("(%s)", quote_identifier(get_attname(source->relid, key->attnum, false)));
	}
	else
	{
		/* Which expression an index has is not compared here: any on an expression will do. */
		if (cs_exec(
				"SELECT 1 FROM pg_index WHERE indrelid = $1 AND indkey[0] = 0 AND indisvalid AND "
				"indpred IS NULL",
				CS_ARGS(cs_datum(OIDOID, ObjectIdGetDatum(source->relid), false))) > 0)
			return;
		column = psprintf("(((%s)::text) COLLATE \"C\")", key->expr);
	}
	finding(rsinfo, "index", "warning", source->name,
			psprintf("%s has no index that begins with %s, so every refresh reads it whole",
					 source->relation, key->expr),
			psprintf("CREATE INDEX CONCURRENTLY ON %s %s;", source->relation, column));
}

/*
 * check_ends: end_at is the first instant without entitlement; where many terms
 * begin a day after the last one's end, it was the last day with it.
 */
static void
check_ends(ReturnSetInfo *rsinfo, const CsSource *source)
{
	CsMapped *end = cs_mapped(source, "end_at");
	CsUserQuery query = {0};
	ErrorData *error = NULL;
	CsResult *rows;

	if (strcmp(source->kind, "subscription") != 0 || end == NULL)
		return;
	query.sql = psprintf("SELECT count(*) FILTER (WHERE next_start = end_at + interval '1 day') AS "
						 "inclusive, count(*) FILTER (WHERE next_start = end_at) AS touching FROM "
						 "(SELECT end_at, lead(start_at) OVER (PARTITION BY customer_key ORDER BY "
						 "start_at, end_at) AS next_start FROM (%s) r) t",
						 cs_source_rows(source, false, false));
	query.search_path = source->search_path;
	rows = cs_user_query(&query, &error);
	if (rows == NULL)
		return;
	cs_register("terms", rows);
	if (cs_exec("SELECT inclusive FROM terms WHERE inclusive > 0 AND inclusive >= touching",
				CS_NO_ARGS) > 0)
		finding(
			rsinfo, "inclusive_end", "warning", source->name,
			psprintf(
				"%s terms begin exactly one day after the end of the customer's term before, as "
				"if end_at were the last day",
				cs_value()),
			psprintf("Map end_at as (%s) + 1: it is the first instant without entitlement.",
					 end->expr));
	cs_unregister("terms");
	tuplestore_end(rows->store);
}

/*
 * check_triggers: a source meant to be captured by trigger is.
 */
static void
check_triggers(ReturnSetInfo *rsinfo, const CsSource *source)
{
	const char *reason;
	char *wanted;

	cs_exec("SELECT capture FROM cs.source WHERE name = $1", CS_ARGS(cs_text(source->name)));
	wanted = cs_value();
	if (strcmp(cs_source_capture(source, wanted, &reason), "trigger") != 0 ||
		cs_source_has_triggers(source))
		return;
	finding(
		rsinfo, "triggers", "error", source->name,
		psprintf("capture triggers of %s are missing or disabled: it is re-read whole instead",
				 source->relation),
		psprintf(
			"ALTER TABLE %s ENABLE ALWAYS TRIGGER %s; likewise %s; or drop the source and add it "
			"again.",
			source->relation, quote_identifier(psprintf("cs_capture_%s", source->name)),
			quote_identifier(psprintf("cs_capture_%s_truncate", source->name))));
}

/*
 * check_watermark: what is captured by watermark must only grow.
 */
static void
check_watermark(ReturnSetInfo *rsinfo, const CsSource *source)
{
	int64 rewritten = cs_rewritten(source->relid);

	if (cs_exec("SELECT ($2 - rewritten)::text FROM cs_internal.source_state WHERE source = $1 AND "
				"capture = 'watermark' AND rewritten < $2",
				CS_ARGS(cs_text(source->name), cs_int8(rewritten))) == 0)
		return;
	finding(rsinfo, "watermark", "warning", source->name,
			psprintf("%s rows were updated or deleted in %s since it was read whole, which a "
					 "watermark does not notice",
					 cs_value(), source->relation),
			psprintf("SELECT cs.mark_changed(%s, <customer>); or CALL cs.rebuild(%s); where that "
					 "is usual, capture => 'trigger'.",
					 quote_literal_cstr(source->name), quote_literal_cstr(source->name)));
}

/*
 * check_anchor: without an index on it, how far a big table reaches is not looked up.
 */
static void
check_anchor(ReturnSetInfo *rsinfo, const CsSource *source)
{
	CsMapped *anchor = source->anchor ? cs_mapped(source, source->anchor) : NULL;

	if (anchor == NULL || cs_anchor_bounds(source) != CS_BOUNDS_NONE)
		return;
	finding(rsinfo, "index", "info", source->name,
			psprintf("%s has no index that begins with %s: its first and last row are those that "
					 "capture has seen, exact again after a whole read",
					 source->relation, anchor->expr),
			anchor->attnum > 0
				? psprintf("CREATE INDEX CONCURRENTLY ON %s (%s);", source->relation,
						   quote_identifier(get_attname(source->relid, anchor->attnum, false)))
				: "Where the exact bounds matter, map a column and index it.");
}

/*
 * check_users: a user in two rows at one time counts for two customers.
 */
static void
check_users(ReturnSetInfo *rsinfo, const CsSource *source)
{
	CsUserQuery query = {0};
	ErrorData *error = NULL;
	CsResult *rows;

	if (strcmp(source->kind, "user") != 0)
		return;
	query.sql =
		psprintf("SELECT count(*) AS twice, min(user_id) AS example FROM (SELECT user_id, "
				 "lead(coalesce(valid_from, '-infinity')) OVER w AS next_from, valid_to FROM (%s) "
				 "r WINDOW w AS (PARTITION BY user_id ORDER BY coalesce(valid_from, "
				 "'-infinity'))) u WHERE next_from < coalesce(valid_to, 'infinity')",
				 cs_source_rows(source, false, false));
	query.search_path = source->search_path;
	rows = cs_user_query(&query, &error);
	if (rows == NULL)
		return;
	cs_register("doubles", rows);
	if (cs_exec("SELECT twice, example FROM doubles WHERE twice > 0", CS_NO_ARGS) > 0)
		finding(
			rsinfo, "users", "warning", source->name,
			psprintf(
				"%s users belong to two rows at one time, e.g. \"%s\": what they do counts twice",
				cs_cell(0, 1), cs_cell(0, 2)),
			"Give each user one row at a time, with valid_from and valid_to where they move.");
	cs_unregister("doubles");
	tuplestore_end(rows->store);
}

/*
 * cs_doctor_sources: cs_internal.doctor_sources(), inside a frame.
 */
Datum
cs_doctor_sources(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo;
	CsFrame frame;
	CsPolicy *policy;
	ListCell *lc;

	InitMaterializedSRF(fcinfo, 0);
	rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	cs_enter(&frame);
	policy = cs_policy(false);
	foreach (lc, cs_sources(NULL))
	{
		CsSource *source = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (!readable(rsinfo, source, policy))
			continue;
		check_index(rsinfo, source);
		check_triggers(rsinfo, source);
		check_watermark(rsinfo, source);
		check_anchor(rsinfo, source);
		check_ends(rsinfo, source);
		check_users(rsinfo, source);
	}
	cs_leave(&frame);
	return (Datum) 0;
}

/*
 * cs_mark_changed: cs_internal.mark_changed(source, customer, since, until).
 */
Datum
cs_mark_changed(PG_FUNCTION_ARGS)
{
	CsFrame frame;
	CsSource *source;
	char *name;
	char *customer = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	TimestampTz since = PG_ARGISNULL(2) ? DT_NOBEGIN : PG_GETARG_TIMESTAMPTZ(2);
	TimestampTz until = PG_ARGISNULL(3) ? DT_NOEND : PG_GETARG_TIMESTAMPTZ(3);

	if (PG_ARGISNULL(0))
		ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("source must not be NULL"),
				errhint("Name one source; call once per source."));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (since > until)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("since must not be after until"));
	cs_enter(&frame);
	(void) cs_policy(false);
	source = cs_source_named(name);
	if (until < source->sealed)
		ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("source \"%s\" is sealed: what is before %s is final", name,
					   DatumGetCString(DirectFunctionCall1(timestamptz_out,
														   TimestampTzGetDatum(source->sealed)))),
				errdetail("Corrections below the seal are not applied."),
				errhint("Record the correction with an instant after the seal."));
	if (customer == NULL || !source->by_user)
		cs_capture_note(name, customer, since, until);
	else
	{
		ListCell *lc;

		/* Its log holds users; a change of the customer's users makes it re-read too. */
		foreach (lc, CS_MAPPING(source)->users)
			cs_capture_note(((CsSource *) lfirst(lc))->name, customer, DT_NOBEGIN, DT_NOEND);
	}
	cs_leave(&frame);
	PG_RETURN_VOID();
}

/*
 * cs_source_sql: cs_internal.source_sql(source, keyed, cut): the SELECT that
 * reads a source, to look at its plan; NULL for an unknown source.
 */
Datum
cs_source_sql(PG_FUNCTION_ARGS)
{
	CsFrame frame;
	CsSource *source;
	char *sql = NULL;

	cs_enter(&frame);
	source = cs_source(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (source != NULL)
	{
		char *rows = cs_source_rows(source, PG_GETARG_BOOL(1), PG_GETARG_BOOL(2));

		sql = SPI_palloc(strlen(rows) + 1); /* outlives the frame */
		strcpy(sql, rows);
	}
	cs_leave(&frame);
	if (sql == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(sql));
}
