/*
 * source_define.c
 *		add_source, drop_source, preview_source.
 *
 * In: what a user maps.  Out: a row of cs.source and cs_internal.source_state,
 * capture triggers on the relation, SELECT for run_as; or an error that names
 * the column and says what to do.
 *
 * These are no gates: who calls matters.  The caller's rights are checked by
 * name (member of run_as, TRIGGER and grant option on the relation), the work
 * is done as the owner.
 */
#include "cs_ext.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "core/core.h"
#include "facts/source_kind.h"

#define LOCK_TIMEOUT_MS 3000

PG_FUNCTION_INFO_V1(cs_add_source);
PG_FUNCTION_INFO_V1(cs_drop_source);
PG_FUNCTION_INFO_V1(cs_preview_source);

typedef CsDefinition Definition;

/* ---- who ------------------------------------------------------------------ */

/*
 * cs_must_be_member: the SQL of a source runs as run_as, so only who may act as
 * that role may write it.
 */
void
cs_must_be_member(const CsPolicy *policy, Oid caller, const char *what)
{
	if (!OidIsValid(policy->run_as_oid))
		ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT),
				errmsg("role \"%s\" of cs.policy.run_as does not exist", policy->run_as),
				errhint("Create the role, or UPDATE cs.policy SET run_as to one that exists."));
	if (!has_privs_of_role(caller, policy->run_as_oid))
		ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				errmsg("must be a member of role \"%s\" to %s", policy->run_as, what),
				errdetail("The SQL of sources runs as that role."),
				errhint("Ask for: GRANT %s TO %s.", quote_identifier(policy->run_as),
						quote_identifier(GetUserNameFromId(caller, false))));
}

/*
 * owner_of: of a relation or a namespace.
 */
static Oid
owner_of(int cache, Oid oid)
{
	HeapTuple tuple = SearchSysCache1(cache, ObjectIdGetDatum(oid));
	Oid owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for object %u", oid);
	owner = cache == RELOID ? ((Form_pg_class) GETSTRUCT(tuple))->relowner
							: ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* ---- rights --------------------------------------------------------------- */

/* may_read: the whole relation or some of its columns. */
static bool
may_read(Oid relid, Oid role)
{
	return pg_class_aclcheck(relid, role, ACL_SELECT) == ACLCHECK_OK ||
		   pg_attribute_aclcheck_all(relid, role, ACL_SELECT, ACLMASK_ANY) == ACLCHECK_OK;
}

/*
 * cs_source_denied: why run_as may not read the relation, with the GRANT that
 * lets it; NULL: it may, or there is no such role.
 */
char *
cs_source_denied(const CsSource *source, const CsPolicy *policy, char **remedy)
{
	Oid schema = get_rel_namespace(source->relid);
	const char *role = quote_identifier(policy->run_as);

	if (!OidIsValid(policy->run_as_oid))
		return NULL;
	if (CS_NAMESPACE_ACLCHECK(schema, policy->run_as_oid, ACL_USAGE) != ACLCHECK_OK)
	{
		const char *name = quote_identifier(get_namespace_name(schema));

		*remedy = psprintf("GRANT USAGE ON SCHEMA %s TO %s;", name, role);
		return psprintf("role %s may not use schema %s", policy->run_as, name);
	}
	if (may_read(source->relid, policy->run_as_oid))
		return NULL;
	*remedy = psprintf("GRANT SELECT ON %s TO %s;", source->relation, role);
	return psprintf("role %s may not read %s", policy->run_as, source->relation);
}

static bool
can_grant_select(Oid relid, Oid role)
{
	AclMode mode = ACL_GRANT_OPTION_FOR(ACL_SELECT);

	return has_privs_of_role(role, owner_of(RELOID, relid)) ||
		   (pg_class_aclmask(relid, role, mode, ACLMASK_ANY) & mode) != 0;
}

/*
 * let_read: SELECT on the relation and USAGE on its schema for run_as, granted
 * where the caller could do so, else an error that says who can.
 */
static void
let_read(const CsSource *source, const CsPolicy *policy, Oid caller)
{
	Oid schema = get_rel_namespace(source->relid);
	const char *role = quote_identifier(policy->run_as);
	const char *schema_name = quote_identifier(get_namespace_name(schema));

	if (CS_NAMESPACE_ACLCHECK(schema, policy->run_as_oid, ACL_USAGE) != ACLCHECK_OK)
	{
		if (!has_privs_of_role(caller, owner_of(NAMESPACEOID, schema)))
			ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					errmsg("role \"%s\" may not use schema %s", policy->run_as, schema_name),
					errhint("Role %s or a superuser must run: GRANT USAGE ON SCHEMA %s TO %s;",
							GetUserNameFromId(owner_of(NAMESPACEOID, schema), false), schema_name,
							role));
		cs_exec(psprintf("GRANT USAGE ON SCHEMA %s TO %s", schema_name, role), CS_NO_ARGS);
	}
	if (may_read(source->relid, policy->run_as_oid))
		return;
	if (!can_grant_select(source->relid, caller))
		ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				errmsg("role \"%s\" may not read %s", policy->run_as, source->relation),
				errhint("Role %s or a superuser must run: GRANT SELECT ON %s TO %s;",
						GetUserNameFromId(owner_of(RELOID, source->relid), false), source->relation,
						role));
	cs_exec(psprintf("GRANT SELECT ON %s TO %s", source->relation, role), CS_NO_ARGS);
}

/* ---- capture -------------------------------------------------------------- */

/*
 * cs_source_capture: what is in force, and why; what is asked for is not
 * refused here, only replaced.
 */
const char *
cs_source_capture(const CsSource *source, const char *wanted, const char **reason)
{
	CsMapping *mapping = CS_MAPPING(source);
	char relkind = get_rel_relkind(source->relid);
	const char *obstacle = NULL;
	const char *unused = "";

	if (relkind == RELKIND_VIEW || relkind == RELKIND_MATVIEW)
		obstacle = "a view has no rows of its own to put a trigger on";
	else if (relkind == RELKIND_FOREIGN_TABLE)
		obstacle = "a foreign table changes where no trigger of this database sees it";
	else if (relkind == RELKIND_RELATION && has_subclass(source->relid))
		obstacle = "child tables do not inherit triggers";
	else if (mapping->key->attnum <= 0)
		obstacle = psprintf("%s is an expression, not a column", mapping->key->name);
	else if (!mapping->native)
		obstacle =
			psprintf("%s is of type %s", mapping->key->name, format_type_be(mapping->key->type));

	if (strcmp(wanted, "scan") == 0)
	{
		*reason = "as asked for";
		return "scan";
	}
	if (cs_window_days(wanted) > 0)
	{
		*reason =
			psprintf("as asked for; not exact: changes more than %d days back are not noticed",
					 cs_window_days(wanted));
		if (source->anchor != NULL)
			return "window";
		*reason = "it has no anchor to take the last days by";
		return "scan";
	}
	if (strcmp(wanted, "trigger") != 0)
	{
		char *column;
		const char *missing = cs_watermark_obstacle(source, &column);

		if (missing == NULL)
		{
			*reason = psprintf("column %s says which transaction wrote a row; updates and "
							   "deletes are not noticed",
							   quote_identifier(column));
			return "watermark";
		}
		if (strcmp(wanted, "watermark") == 0)
		{
			*reason = missing;
			return "scan";
		}
		if (column != NULL)
			unused = psprintf("; its watermark is not used: %s", missing);
	}
	if (obstacle == NULL)
	{
		*reason = strcmp(wanted, "auto") == 0 ? psprintf("a table whose key is a column%s", unused)
											  : "as asked for";
		return "trigger";
	}
	*reason = obstacle;
	return "scan";
}

/* Adds the hint to a lock timeout while triggers are made. */
static void
lock_context(void *arg)
{
	if (geterrcode() == ERRCODE_LOCK_NOT_AVAILABLE)
		errhint("Another transaction is using %s for long. Call again when it has ended, or set "
				"lock_timeout higher first.",
				(const char *) arg);
}

/*
 * cs_source_add_triggers: capture triggers, ENABLE ALWAYS, gone with the
 * extension.  Inside a frame.
 */
void
cs_source_add_triggers(const CsSource *source)
{
	CsMapping *mapping = CS_MAPPING(source);
	CsMapped *anchor = source->anchor ? cs_mapped(source, source->anchor) : NULL;
	char *extension = get_extension_name(get_extension_oid("cs_ext", false));
	const char *triggers[2];
	StringInfoData args;

	initStringInfo(&args);
	appendStringInfo(&args, "%s, %s", quote_literal_cstr(source->name),
					 quote_literal_cstr(get_attname(source->relid, mapping->key->attnum, false)));

	/* signed_at and issued_at may be NULL, and then another column counts */
	if (anchor != NULL && anchor->attnum > 0 && cs_anchor_is_one(source))
		appendStringInfo(&args, ", %s",
						 quote_literal_cstr(get_attname(source->relid, anchor->attnum, false)));

	/* the seal in microseconds, as an instant and as local time: zones are not known in a writer */
	if (!TIMESTAMP_IS_NOBEGIN(source->sealed) && anchor != NULL && anchor->attnum > 0)
		appendStringInfo(&args, ", '" INT64_FORMAT "', '" INT64_FORMAT "'", source->sealed,
						 DatumGetTimestamp(DirectFunctionCall1(
							 timestamptz_timestamp, TimestampTzGetDatum(source->sealed))));

	triggers[0] = quote_identifier(psprintf("cs_capture_%s", source->name));
	triggers[1] = quote_identifier(psprintf("cs_capture_%s_truncate", source->name));
	cs_exec(
		psprintf("CREATE TRIGGER %s AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE "
				 "FUNCTION cs_internal.capture(%s)",
				 triggers[0], source->relation, args.data),
		CS_NO_ARGS);
	cs_exec(psprintf("CREATE TRIGGER %s AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION "
					 "cs_internal.capture(%s)",
					 triggers[1], source->relation, args.data),
			CS_NO_ARGS);
	for (int i = 0; i < 2; i++)
	{
		cs_exec(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s", source->relation, triggers[i]),
				CS_NO_ARGS);
		cs_exec(psprintf("ALTER TRIGGER %s ON %s DEPENDS ON EXTENSION %s", triggers[i],
						 source->relation, quote_identifier(extension)),
				CS_NO_ARGS);
	}
}

/*
 * lock_relation: SHARE ROW EXCLUSIVE, not waited for long.
 */
static void
lock_relation(const CsSource *source, bool quiet)
{
	ErrorContextCallback callback;

	if (!quiet)
		ereport(NOTICE,
				errmsg("taking a SHARE ROW EXCLUSIVE lock on %s to change its capture triggers",
					   source->relation),
				errdetail("Writers wait until this transaction ends; readers do not."));
	if (LockTimeout == 0)
		(void) set_config_option("lock_timeout", psprintf("%d", LOCK_TIMEOUT_MS), PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	callback.callback = lock_context;
	callback.arg = (void *) source->relation;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	LockRelationOid(source->relid, ShareRowExclusiveLock);
	error_context_stack = callback.previous;
}

/*
 * cs_source_drop_triggers: those that are there, under the lock that making
 * them takes.  Inside a frame.
 */
void
cs_source_drop_triggers(const CsSource *source)
{
	static const char *const suffix[] = {"", "_truncate"};

	for (int i = 0; i < 2; i++)
	{
		const char *trigger =
			quote_identifier(psprintf("cs_capture_%s%s", source->name, suffix[i]));

		if (cs_exec("SELECT 1 FROM pg_trigger WHERE tgrelid = $1 AND quote_ident(tgname) = $2",
					CS_ARGS(cs_datum(OIDOID, ObjectIdGetDatum(source->relid), false),
							cs_text(trigger))) == 0)
			continue;
		if (i == 0)
			lock_relation(source, false);
		cs_exec(psprintf("DROP TRIGGER %s ON %s", trigger, source->relation), CS_NO_ARGS);
	}
}

/*
 * cs_source_lock: so that no writer is in the middle of something.
 */
void
cs_source_lock(const CsSource *source)
{
	lock_relation(source, false);
}

/* ---- add_source ----------------------------------------------------------- */

/*
 * cs_column_types: what cs_source_analyse found, as kept in source_state.
 */
char *
cs_source_types(const CsSource *source)
{
	StringInfoData json;
	ListCell *lc;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	foreach (lc, CS_MAPPING(source)->columns)
	{
		CsMapped *m = lfirst(lc);

		if (json.len > 1)
			appendStringInfoString(&json, ", ");
		escape_json(&json, m->name);
		appendStringInfo(&json, ": %u", m->type);
	}
	appendStringInfoChar(&json, '}');
	return json.data;
}

/*
 * sample_of: the first row, as text, or NULL; an error becomes a warning.
 */
static CsResult *
sample_of(const CsSource *source, char **warning)
{
	CsMapping *mapping = CS_MAPPING(source);
	CsUserQuery query = {0};
	ErrorData *error = NULL;
	CsResult *result;
	StringInfoData sql;
	ListCell *lc;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	foreach (lc, mapping->columns)
	{
		CsMapped *m = lfirst(lc);

		appendStringInfo(&sql, "%sleft((%s\n)::text, 60)", foreach_current_index(lc) ? ", " : "",
						 m->expr);
	}
	appendStringInfo(&sql, " FROM %s LIMIT 1", source->relation);
	query.sql = sql.data;
	query.search_path = source->search_path;
	result = cs_user_query(&query, &error);
	if (result == NULL)
	{
		if (error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE)
			ReThrowError(error);
		*warning = psprintf("reading the first row failed: %s", error->message);
	}
	return result;
}

/*
 * unusable: why the first row cannot be used, as with an interval that is none;
 * NULL: it can, or there is none.
 */
static char *
unusable(const CsSource *source)
{
	CsUserQuery query = {.sql = cs_source_preview(source, 1), .search_path = source->search_path};
	ErrorData *error = NULL;
	CsResult *rows;
	char *said = NULL;

	query.as_of = cs_now();
	query.as_of_day = cs_local_day(query.as_of, cs_policy(false)->time_zone);
	rows = cs_user_query(&query, &error);
	if (rows == NULL)
		return NULL;
	cs_register("first_row", rows);
	if (cs_exec("SELECT reason FROM first_row WHERE reason IS NOT NULL", CS_NO_ARGS) > 0)
		said = psprintf("the first row cannot be used: %s", cs_value());
	cs_unregister("first_row");
	tuplestore_end(rows->store);
	return said;
}

/*
 * warning_of: what is worth knowing about a mapped column; NULL when nothing is.
 */
static char *
warning_of(const CsSource *source, const CsMapped *m)
{
	CsMapping *mapping = CS_MAPPING(source);
	Oid base = getBaseType(m->type);

	if (m == mapping->key && !mapping->native)
		return psprintf("not a plain column: reading some customers needs CREATE INDEX ON %s "
						"(((%s)::text) COLLATE \"C\")",
						source->relation, m->expr);
	if (strcmp(m->name, "end_at") == 0 && base == DATEOID && m->attnum > 0)
		return psprintf("the first day without entitlement; where it is the last day with it, map "
						"it as %s + 1",
						m->expr);
	if (m->canon != NULL && m->canon->type == CS_COL_TIME && base == DATEOID)
		return pstrdup("a date is midnight in the policy's zone");
	if (m->canon != NULL && m->canon->type == CS_COL_TIME && base == TIMESTAMPOID)
		return pstrdup("a timestamp without zone is local time in the policy's zone");
	return NULL;
}

/*
 * return_row: of a column, mapped (m) or not.
 */
static void
return_row(ReturnSetInfo *rsinfo, const char *name, const CsMapped *m, const char *sample,
		   const char *warning)
{
	const char *cells[4] = {name, m ? m->expr : NULL, sample, warning};
	Datum values[4];
	bool nulls[4];

	for (int i = 0; i < 4; i++)
	{
		nulls[i] = cells[i] == NULL;
		values[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(cells[i]);
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * return_rows: one row per canonical column in the kind's order, then user_id
 * where it links, then x_ columns.
 */
static void
return_rows(ReturnSetInfo *rsinfo, const CsSource *source)
{
	CsMapping *mapping = CS_MAPPING(source);
	char *warning = NULL;
	CsResult *sample = sample_of(source, &warning);
	List *samples = NIL;
	ListCell *lc;

	if (sample != NULL)
	{
		TupleTableSlot *slot = MakeSingleTupleTableSlot(sample->desc, &TTSOpsMinimalTuple);

		if (!tuplestore_gettupleslot(sample->store, true, false, slot))
			warning = pstrdup("the relation has no rows yet");
		else
		{
			slot_getallattrs(slot);
			warning = unusable(source);
			for (int i = 0; i < sample->desc->natts; i++)
				samples = lappend(
					samples, slot->tts_isnull[i] ? NULL : TextDatumGetCString(slot->tts_values[i]));
		}
		ExecDropSingleTupleTableSlot(slot);
	}
	for (const CsKindColumn *c = mapping->kind->columns; c->name != NULL; c++)
	{
		if (cs_mapped(source, c->name) == NULL)
			return_row(rsinfo, c->name, NULL, NULL, NULL);
		foreach (lc, mapping->columns)
		{
			CsMapped *m = lfirst(lc);
			char *said = warning_of(source, m);

			if (m->canon == c)
				return_row(rsinfo, m->name, m,
						   samples ? list_nth(samples, foreach_current_index(lc)) : NULL,
						   said == NULL && m == mapping->key ? warning : said);
		}
	}
	foreach (lc, mapping->columns)
	{
		CsMapped *m = lfirst(lc);
		char *said = warning_of(source, m);

		if (m->canon == NULL)
			return_row(rsinfo, m->name, m,
					   samples ? list_nth(samples, foreach_current_index(lc)) : NULL,
					   said == NULL && m == mapping->key ? warning : said);
	}
}

/*
 * cs_define_source: all of it, inside a frame.  Returns the source.
 */
CsSource *
cs_define_source(const Definition *def, Oid caller)
{
	CsPolicy *policy = cs_policy(false);
	CsSource *source;
	const char *capture;
	const char *reason;

	cs_must_be_member(policy, caller, "add a source");
	cs_check_words(def);
	source = cs_source_make(def->name, def->kind, cs_relation_name(def->relid), def->columns,
							def->search_path, true);
	source->current = strcmp(def->terms, "current") == 0;
	cs_check_columns(source);
	cs_exec("SELECT name FROM cs.source WHERE name = $1", CS_ARGS(cs_text(def->name)));
	if (SPI_processed > 0)
		ereport(ERROR, errcode(ERRCODE_DUPLICATE_OBJECT),
				errmsg("source \"%s\" already exists", def->name),
				errhint("Choose another name, or drop it first: SELECT cs.drop_source(%s);",
						quote_literal_cstr(def->name)));
	let_read(source, policy, caller);
	cs_check_expressions(source);
	capture = cs_source_capture(source, def->capture, &reason);
	if (strcmp(def->capture, "trigger") == 0 && strcmp(capture, "trigger") != 0)
		ereport(ERROR, errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("source \"%s\" cannot be captured by trigger", def->name),
				errdetail("The reason: %s.", reason),
				errhint("Use capture => 'scan', which re-reads the relation."));
	if (strcmp(def->capture, "watermark") == 0 && strcmp(capture, "watermark") != 0)
		ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("source \"%s\" cannot be captured by watermark", def->name),
				errdetail("The reason: %s.", reason),
				errhint("Where rows are only ever added: SELECT cs.add_watermark(%s); else use "
						"'auto'.",
						quote_literal_cstr(source->relation)));
	if (cs_window_days(def->capture) > 0 && strcmp(capture, "window") != 0)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("source \"%s\" cannot be captured by window", def->name),
				errdetail("The reason: %s.", reason),
				errhint("Map the column with the instant of a row, or use 'scan'."));
	source->capture = pstrdup(capture);

	if (strcmp(capture, "trigger") == 0)
	{
		if (pg_class_aclcheck(source->relid, caller, ACL_TRIGGER) != ACLCHECK_OK)
			ereport(
				ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				errmsg("permission denied to add capture triggers to %s", source->relation),
				errhint(
					"Role %s or a superuser must run: GRANT TRIGGER ON %s TO %s; or use capture "
					"=> 'scan'.",
					GetUserNameFromId(owner_of(RELOID, source->relid), false), source->relation,
					quote_identifier(GetUserNameFromId(caller, false))));
		lock_relation(source, def->quiet);
		cs_source_add_triggers(source);
	}

	cs_exec("INSERT INTO cs.source (name, kind, relation, columns, capture, terms, search_path) "
			"VALUES ($1, $2, $3, $4::jsonb, $5, $6, $7)",
			CS_ARGS(cs_text(def->name), cs_text(def->kind), cs_text(source->relation),
					cs_text(def->columns), cs_text(def->capture), cs_text(def->terms),
					cs_text(def->search_path)));
	cs_exec("INSERT INTO cs_internal.source_state (source, capture, capture_reason, column_types) "
			"VALUES ($1, $2, $3, $4::jsonb) ON CONFLICT (source) DO UPDATE SET capture = "
			"EXCLUDED.capture, capture_reason = EXCLUDED.capture_reason, column_types = "
			"EXCLUDED.column_types, needs_scan = true, scanned_at = NULL, error = NULL, "
			"retry_at = NULL",
			CS_ARGS(cs_text(def->name), cs_text(capture), cs_text(reason),
					cs_text(cs_source_types(source))));
	cs_exec(
		"INSERT INTO cs_internal.definition_history (at, actor, table_name, key, cause, new_row) "
		"SELECT clock_timestamp(), $2, 'source', s.name, 'insert', to_jsonb(s) FROM cs.source s "
		"WHERE s.name = $1",
		CS_ARGS(cs_text(def->name), cs_text(GetUserNameFromId(GetSessionUserId(), false))));
	cs_capture_note("*", NULL, 0, 0);
	return source;
}

/*
 * cs_add_source: cs.add_source(name, kind, relation, columns, capture, terms).
 */
Datum
cs_add_source(PG_FUNCTION_ARGS)
{
	Definition def = {0};
	Oid caller = GetUserId();
	CsFrame frame;
	static const char *const arguments[] = {"name",    "kind",    "relation",
											"columns", "capture", "terms"};

	for (int i = 0; i < lengthof(arguments); i++)
	{
		if (PG_ARGISNULL(i))
			ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					errmsg("%s of a source must not be NULL", arguments[i]));
	}
	def.name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	def.kind = text_to_cstring(PG_GETARG_TEXT_PP(1));
	def.relid = PG_GETARG_OID(2);
	def.columns = DatumGetCString(DirectFunctionCall1(jsonb_out, PG_GETARG_DATUM(3)));
	def.capture = text_to_cstring(PG_GETARG_TEXT_PP(4));
	def.terms = text_to_cstring(PG_GETARG_TEXT_PP(5));
	def.search_path = pstrdup(GetConfigOption("search_path", false, false));

	InitMaterializedSRF(fcinfo, 0);
	cs_enter(&frame);
	return_rows((ReturnSetInfo *) fcinfo->resultinfo, cs_define_source(&def, caller));
	cs_leave(&frame);
	return (Datum) 0;
}

/* ---- drop_source ---------------------------------------------------------- */

/*
 * refuse_in_use: what could not be computed without the source.
 */
static void
refuse_in_use(const CsSource *source)
{
	char *users;

	if (strcmp(source->kind, "other") == 0)
	{
		cs_exec("SELECT string_agg(quote_ident(name), ', ' ORDER BY name) FROM cs.metric WHERE "
				"source = "
				"$1",
				CS_ARGS(cs_text(source->name)));
		users = cs_value();
		if (users != NULL)
			ereport(ERROR, errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					errmsg("source \"%s\" is used by metrics", source->name),
					errdetail("They are: %s.", users),
					errhint("Delete these metrics first, or let them read another source."));
	}
	if (strcmp(source->kind, "user") == 0 && list_length(cs_sources("user")) == 1)
	{
		ListCell *lc;

		foreach (lc, cs_sources(NULL))
		{
			CsSource *other = lfirst(lc);

			if (other->by_user)
				ereport(
					ERROR, errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					errmsg("source \"%s\" is the only user source, and source \"%s\" maps user_id",
						   source->name, other->name),
					errhint("Drop source \"%s\" first.", other->name));
		}
	}
}

/*
 * cs_drop_source: cs.drop_source(name).  Facts stay; what was derived from them
 * goes at the next refresh, because all customers are pending for a source
 * that is no more.
 */
Datum
cs_drop_source(PG_FUNCTION_ARGS)
{
	Oid caller = GetUserId();
	char *name;
	CsFrame frame;
	CsSource *source;
	static const char *const derived[] = {"source_state", "scan_checksum", "unusable", "orphan"};

	if (PG_ARGISNULL(0))
		ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("name of a source must not be NULL"));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	cs_enter(&frame);
	cs_must_be_member(cs_policy(false), caller, "drop a source");
	source = cs_source_named(name);
	refuse_in_use(source);
	if (!TIMESTAMP_IS_NOBEGIN(source->sealed))
		ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("source \"%s\" is sealed", name),
				errdetail("What is sealed of it may not be there as rows any more."),
				errhint("To give it up: SELECT cs.unseal(%s);", quote_literal_cstr(name)));
	if (OidIsValid(source->relid))
		cs_source_drop_triggers(source);
	cs_exec(
		"INSERT INTO cs_internal.definition_history (at, actor, table_name, key, cause, old_row) "
		"SELECT clock_timestamp(), $2, 'source', s.name, 'delete', to_jsonb(s) FROM cs.source s "
		"WHERE s.name = $1",
		CS_ARGS(cs_text(name), cs_text(GetUserNameFromId(GetSessionUserId(), false))));
	cs_exec("DELETE FROM cs.source WHERE name = $1", CS_ARGS(cs_text(name)));
	for (int i = 0; i < lengthof(derived); i++)
		cs_exec(psprintf("DELETE FROM cs_internal.%s WHERE source = $1", derived[i]),
				CS_ARGS(cs_text(name)));
	cs_pending_known(name);
	cs_capture_note("*", NULL, 0, 0);
	cs_leave(&frame);
	PG_RETURN_VOID();
}

/* ---- preview_source ------------------------------------------------------- */

/*
 * cs_preview_source: cs.preview_source(kind, relation, columns, max_rows): the
 * first rows as they would be read, and why a row could not be used.
 */
Datum
cs_preview_source(PG_FUNCTION_ARGS)
{
	Definition def = {0};
	Oid caller = GetUserId();
	CsUserQuery query = {0};
	CsPolicy *policy;
	CsSource *source;
	CsFrame frame;
	char *denied;
	char *remedy = NULL;

	for (int i = 0; i < 4; i++)
	{
		if (PG_ARGISNULL(i))
			ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					errmsg("kind, relation, columns and max_rows must not be NULL"));
	}
	if (PG_GETARG_INT32(3) < 1 || PG_GETARG_INT32(3) > 1000)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("max_rows must be from 1 to 1000"));
	def.name = def.kind = text_to_cstring(PG_GETARG_TEXT_PP(0));
	def.relid = PG_GETARG_OID(1);
	def.columns = DatumGetCString(DirectFunctionCall1(jsonb_out, PG_GETARG_DATUM(2)));
	def.capture = "auto";
	def.terms = "interval";

	InitMaterializedSRF(fcinfo, 0);
	def.search_path = pstrdup(GetConfigOption("search_path", false, false));
	cs_enter(&frame);
	policy = cs_policy(false);
	cs_must_be_member(policy, caller, "preview a source");
	cs_check_words(&def);
	source = cs_source_make(def.name, def.kind, cs_relation_name(def.relid), def.columns,
							def.search_path, true);
	cs_check_columns(source);
	denied = cs_source_denied(source, policy, &remedy);
	if (denied != NULL)
		ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("%s", denied),
				errhint("%s cs.add_source() does that where the caller may.", remedy));
	cs_check_expressions(source);
	query.sql = cs_source_preview(source, PG_GETARG_INT32(3));
	query.search_path = source->search_path;
	query.as_of = cs_now();
	query.as_of_day = cs_local_day(query.as_of, policy->time_zone);
	cs_return_rows(cs_user_query(&query, NULL), fcinfo, 0);
	cs_leave(&frame);
	return (Datum) 0;
}
