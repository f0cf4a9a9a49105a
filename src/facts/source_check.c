/*
 * source_check.c
 *		What a source may look like: refusals of cs.add_source().
 *
 * In: a definition and the relation's catalog entries.  Out: nothing, or an
 * error with SQLSTATE that names the column and says what to do.
 */
#include "cs_ext.h"

#include "access/htup_details.h"
#include "catalog/catalog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "facts/source_kind.h"

#define MAX_NAME 40
#define MAX_WINDOW 400
#define DEFAULT_WINDOW 7

static bool
good_name(const char *name, int max)
{
	const char *p = name;

	if (!(*p >= 'a' && *p <= 'z'))
		return false;
	for (; *p; p++)
	{
		if (!((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '_'))
			return false;
	}
	return p - name <= max;
}

/*
 * cs_window_days: days that 'window' or 'window 30' re-reads; 0: it is neither.
 */
int
cs_window_days(const char *capture)
{
	const char *p = capture + strlen("window");
	int days = 0;

	if (strncmp(capture, "window", strlen("window")) != 0)
		return 0;
	if (*p == '\0')
		return DEFAULT_WINDOW;
	if (*p++ != ' ' || *p == '\0')
		return 0;
	for (; *p; p++)
	{
		if (*p < '0' || *p > '9')
			return 0;
		days = days * 10 + (*p - '0');
		if (days > MAX_WINDOW)
			return 0;
	}
	return days;
}

/*
 * cs_check_words: name, kind, capture and terms.
 */
void
cs_check_words(const CsDefinition *def)
{
	const CsKind *kind = cs_kind(def->kind);

	if (!good_name(def->name, MAX_NAME))
		ereport(
			ERROR, errcode(ERRCODE_INVALID_NAME),
			errmsg("\"%s\" is not a name for a source", def->name),
			errhint("A name is a lower case letter followed by letters, digits and _, at most %d "
					"in all.",
					MAX_NAME));
	if (kind == NULL)
		ereport(
			ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("unknown kind of facts \"%s\"", def->kind),
			cs_nearest(def->kind, cs_kind_names())
				? cs_errhint_nearest(def->kind, cs_kind_names())
				: errhint("Kinds are customer, user, subscription, usage_event, ticket, survey, "
						  "invoice, touchpoint, message, onboarding_step, cancellation, licence, "
						  "customer_merge, other."));
	if (strcmp(def->kind, "other") == 0 &&
		(cs_kind(def->name) != NULL || strcmp(def->name, "usage") == 0 ||
		 strcmp(def->name, "ledger") == 0 || strcmp(def->name, "formula") == 0) &&
		strcmp(def->name, "other") != 0)
		ereport(
			ERROR, errcode(ERRCODE_RESERVED_NAME),
			errmsg("\"%s\" cannot be the name of a source of kind \"%s\"", def->name, def->kind),
			errdetail("Metrics use that name for something else."),
			errhint("Choose another name, e.g. \"%s_%s\".", def->name, def->kind));
	if (strcmp(def->terms, "interval") != 0 && strcmp(def->terms, "current") != 0)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("unknown terms \"%s\"", def->terms),
				errhint("Use 'interval', or 'current' for rows that are overwritten in place."));
	if (strcmp(def->terms, "current") == 0 && strcmp(def->kind, "subscription") != 0)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("terms => 'current' is of subscriptions, not of kind \"%s\"", def->kind),
				errhint("Leave terms out."));
	if (strcmp(def->terms, "current") == 0 &&
		(strcmp(def->capture, "watermark") == 0 || strcmp(def->capture, "window") == 0))
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("terms => 'current' cannot be captured by %s", def->capture),
				errdetail("Old rows are overwritten, not only new ones added."),
				errhint("Use 'auto', 'trigger' or 'scan'."));
	if (strcmp(def->capture, "auto") != 0 && strcmp(def->capture, "trigger") != 0 &&
		strcmp(def->capture, "watermark") != 0 && strcmp(def->capture, "scan") != 0 &&
		cs_window_days(def->capture) == 0)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("unknown capture \"%s\"", def->capture),
				errhint("Use 'auto', 'trigger', 'watermark', 'scan', 'window' (seven days) or "
						"'window <days>' with up to %d days.",
						MAX_WINDOW));
}

/*
 * cs_relation_name: qualified and quoted; refuses what can't be a source.
 */
char *
cs_relation_name(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class form;
	char *schema;
	char *name;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, errcode(ERRCODE_UNDEFINED_TABLE),
				errmsg("relation with OID %u does not exist", relid),
				errhint("Give the relation by name, e.g. 'public.subscriptions'."));
	form = (Form_pg_class) GETSTRUCT(tuple);
	schema = get_namespace_name(form->relnamespace);
	name = pstrdup(quote_qualified_identifier(schema, NameStr(form->relname)));
	if (form->relkind != RELKIND_RELATION && form->relkind != RELKIND_PARTITIONED_TABLE &&
		form->relkind != RELKIND_VIEW && form->relkind != RELKIND_MATVIEW &&
		form->relkind != RELKIND_FOREIGN_TABLE)
		ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE),
				errmsg("%s is not a table, view, materialized view or foreign table", name));
	if (form->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("%s is temporary", name),
				errdetail("Other sessions, which refresh, do not see its rows."),
				errhint("Use an ordinary table."));
	if (IsCatalogNamespace(form->relnamespace) || strcmp(schema, "cs") == 0 ||
		strcmp(schema, "cs_internal") == 0)
		ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE),
				errmsg("%s is not a table of facts", name),
				errhint("Map tables of your own; what cs_ext computes can't be its source."));
	ReleaseSysCache(tuple);
	return name;
}

static List *
relation_columns(Oid relid)
{
	List *names = NIL;
	uint64 n =
		cs_exec("SELECT attname FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT "
				"attisdropped ORDER BY attnum",
				CS_ARGS(cs_datum(OIDOID, ObjectIdGetDatum(relid), false)));

	for (uint64 i = 0; i < n; i++)
		names = lappend(names, cs_cell(i, 1));
	return names;
}

static char *
kind_columns(const CsKind *kind)
{
	StringInfoData list;

	initStringInfo(&list);
	for (const CsKindColumn *c = kind->columns; c->name != NULL; c++)
		appendStringInfo(&list, "%s%s", list.len ? ", " : "", c->name);
	return list.data;
}

/*
 * cs_check_columns: which columns are mapped.
 */
void
cs_check_columns(const CsSource *source)
{
	CsMapping *mapping = CS_MAPPING(source);
	const CsKind *kind = mapping->kind;
	bool subscription = strcmp(source->kind, "subscription") == 0;
	List *names = NIL;
	ListCell *lc;

	for (const CsKindColumn *c = kind->columns; c->name != NULL; c++)
		names = lappend(names, pstrdup(c->name));
	names = lappend(names, pstrdup("user_id"));

	foreach (lc, mapping->columns)
	{
		CsMapped *m = lfirst(lc);

		if (m->canon != NULL || strcmp(m->name, "user_id") == 0)
			continue;
		if (strncmp(m->name, "x_", 2) == 0 && good_name(m->name, 63) && m->name[2] != '\0')
			continue;
		ereport(ERROR, errcode(ERRCODE_UNDEFINED_COLUMN),
				errmsg("kind \"%s\" has no column \"%s\"", source->kind, m->name),
				errdetail("Its columns are %s.", kind_columns(kind)),
				cs_nearest(m->name, names)
					? cs_errhint_nearest(m->name, names)
					: errhint("Name an extra column of your own \"x_%s\".", m->name));
	}

	for (const CsKindColumn *c = kind->columns; c->name != NULL; c++)
	{
		if (!(c->flags & CS_COL_REQUIRED) || cs_mapped(source, c->name) != NULL)
			continue;
		if (c == kind->columns && source->by_user)
			continue;
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("column \"%s\" is required for kind \"%s\"", c->name, source->kind),
				errhint("Add \"%s\": \"<expression>\" to columns%s.", c->name,
						strcmp(c->name, "customer_id") == 0 && strcmp(source->kind, "user") != 0
							? ", or \"user_id\" where a user source maps users to customers"
							: ""));
	}
	if (source->by_user && mapping->users == NIL)
		ereport(
			ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			errmsg("source \"%s\" maps user_id, but there is no user source", source->name),
			errhint("Register the table of users first: cs.add_source('user', 'user', …), or map "
					"customer_id."));
	if (source->current && !cs_mapped(source, "subscription_id"))
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("terms => 'current' needs the column \"subscription_id\""),
				errdetail("Rows that are overwritten in place are followed by it."),
				errhint("Map the key of the table."));
	if (subscription && cs_mapped(source, "mrr") && cs_mapped(source, "amount"))
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("both \"mrr\" and \"amount\" are mapped"),
				errhint("Map \"mrr\" where the table has a monthly figure, else \"amount\" with "
						"\"interval\"."));
	if (subscription && !cs_mapped(source, "mrr") && !cs_mapped(source, "amount"))
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("column \"mrr\" or \"amount\" is required for kind \"subscription\""),
				errhint("Map \"mrr\" where the table has a monthly figure, else \"amount\" with "
						"\"interval\"."));
	if (subscription && cs_mapped(source, "amount") && !cs_mapped(source, "interval"))
		ereport(
			ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("\"amount\" is mapped without \"interval\""),
			errhint("Add \"interval\", an expression that gives day, week, month, quarter or year; "
					"a constant is written \"'month'\"."));
	if (subscription && cs_mapped(source, "mrr") &&
		(cs_mapped(source, "interval") || cs_mapped(source, "interval_count")))
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("\"interval\" belongs to \"amount\", but \"mrr\" is mapped"),
				errhint("Leave \"interval\" out, or map \"amount\"."));
}

/*
 * column_error: what the parser said about one expression, told of the column.
 */
static void
column_error(const CsSource *source, const CsMapped *m, const ErrorData *e)
{
	/* The analysed text began with "SELECT (". */
	int position = (e->internalpos > 0 ? e->internalpos : e->cursorpos) - (int) strlen("SELECT (");
	bool inside = position > 0 && position <= pg_mbstrlen(m->expr);
	char *near = NULL;

	if (e->sqlerrcode == ERRCODE_UNDEFINED_COLUMN)
	{
		/* the message quotes the name it did not find */
		const char *open = strchr(e->message, '"');
		const char *close = open ? strchr(open + 1, '"') : NULL;

		if (close != NULL)
			near =
				cs_nearest(pnstrdup(open + 1, close - open - 1), relation_columns(source->relid));
	}
	ereport(ERROR, errcode(e->sqlerrcode),
			errmsg("column \"%s\" of source \"%s\": %s", m->name, source->name, e->message),
			errdetail("The expression is: %s", m->expr), inside ? internalerrposition(position) : 0,
			inside ? internalerrquery(m->expr) : 0,
			near ? errhint("Did you mean \"%s\"?", near)
			: e->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE
				? errhint("Sources are read as role %s: GRANT it what the expression needs.",
						  cs_policy(false)->run_as)
				: errhint("%s", e->hint
									? e->hint
									: "Values of columns are SQL expressions over the relation; a "
									  "constant text is written \"'month'\"."));
}

/*
 * check_type: the type of an expression must become the canonical type without
 * a cast that can fail on a row.
 */
static void
check_type(const CsSource *source, const CsMapped *m)
{
	Oid base = getBaseType(m->type);
	const char *wanted = NULL;
	const char *cast = NULL;

	if (get_typtype(base) == TYPTYPE_PSEUDO)
		ereport(ERROR, errcode(ERRCODE_DATATYPE_MISMATCH),
				errmsg("column \"%s\" of source \"%s\" has the pseudo-type %s", m->name,
					   source->name, format_type_be(m->type)),
				errhint("Map a column or an expression with a value."));
	if (m->canon == NULL || m->canon->type == CS_COL_TEXT)
	{
		bool key = m == CS_MAPPING(source)->key || strcmp(m->name, "customer_id") == 0 ||
				   strcmp(m->name, "user_id") == 0 || strcmp(m->name, "into_customer_id") == 0;

		if (key && OidIsValid(m->collation) && !get_collation_isdeterministic(m->collation))
			ereport(ERROR, errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("column \"%s\" of source \"%s\" has a nondeterministic collation",
						   m->name, source->name),
					errdetail(
						"Ids that differ would count as equal in some queries and not in others."),
					errhint("Map it as (%s) COLLATE \"C\", with ids written in one way.", m->expr));
		if (key && (type_is_rowtype(base) || OidIsValid(get_element_type(base))))
			ereport(ERROR, errcode(ERRCODE_DATATYPE_MISMATCH),
					errmsg("column \"%s\" of source \"%s\" is of type %s, which is no id", m->name,
						   source->name, format_type_be(m->type)),
					errhint("Map one column with the id."));
		return;
	}
	switch (m->canon->type)
	{
		case CS_COL_TIME:
			if (base != TIMESTAMPTZOID && base != TIMESTAMPOID && base != DATEOID)
			{
				wanted = "a date or timestamp";
				cast =
					base == INT8OID || base == INT4OID ? "to_timestamp(%s)" : "(%s)::timestamptz";
			}
			break;
		case CS_COL_NUMERIC:
			if (base != NUMERICOID && base != INT2OID && base != INT4OID && base != INT8OID &&
				base != FLOAT4OID && base != FLOAT8OID)
			{
				wanted = "a number";
				cast = base == BOOLOID ? "(%s)::int" : "(%s)::numeric";
			}
			break;
		case CS_COL_INT:
			if (base != INT2OID && base != INT4OID && base != INT8OID)
			{
				wanted = "an integer";
				cast = "(%s)::bigint";
			}
			break;
		case CS_COL_BOOL:
			if (base != BOOLOID)
			{
				wanted = "boolean";
				cast = base == TEXTOID || base == VARCHAROID ? "(%s)::boolean" : "(%s) <> 0";
			}
			break;
		case CS_COL_JSONB:
			if (base != JSONBOID)
			{
				wanted = "jsonb";
				cast = base == JSONOID ? "(%s)::jsonb" : "to_jsonb(%s)";
			}
			break;
		case CS_COL_TEXT:
			break;
	}
	if (wanted == NULL)
		return;
	ereport(ERROR, errcode(ERRCODE_DATATYPE_MISMATCH),
			errmsg("column \"%s\" of source \"%s\" must be %s, but the expression is of type %s",
				   m->name, source->name, wanted, format_type_be(m->type)),
			errdetail("The expression is: %s", m->expr),
			errhint("Map it as %s.", psprintf(cast, m->expr)));
}

/*
 * cs_check_expressions: each of them alone, in a place where aggregates, window
 * functions and sets are refused by the parser; then its type.
 */
void
cs_check_expressions(CsSource *source)
{
	CsMapping *mapping = CS_MAPPING(source);
	ErrorData *error;
	CsMapped *failed;
	ListCell *lc;

	foreach (lc, mapping->columns)
	{
		CsMapped *m = lfirst(lc);
		CsUserQuery query = {0};

		query.sql = psprintf("SELECT (%s\n) FROM %s WHERE (%s\n) IS NULL", m->expr,
							 source->relation, m->expr);
		query.search_path = source->search_path;
		if (cs_user_check(&query, &error) == NULL)
			column_error(source, m, error);
	}
	error = cs_source_analyse(source, &failed);
	if (error != NULL)
		ReThrowError(error);
	foreach (lc, mapping->columns)
		check_type(source, lfirst(lc));
}
