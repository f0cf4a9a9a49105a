/*
 * source_tables.c
 *		cs.create_tables(schema): ready-made fact tables for who has none.
 *
 * In: a schema.  Out: ordinary tables of the caller in it, no members of the
 * extension, each registered as the source of its name.
 */
#include "cs_ext.h"

#include "catalog/namespace.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "facts/source_kind.h"

PG_FUNCTION_INFO_V1(cs_create_tables);

/* Columns that are not canonical names of the kind are keys of the table alone. */
static const struct
{
	const char *name;
	const char *body;
	const char *index; /* columns of a further index, or NULL */
} tables[] = {
	{"customer",
	 "customer_id text PRIMARY KEY, created_at timestamptz NOT NULL DEFAULT now(), name text, "
	 "parent_id text, owner text, attributes jsonb NOT NULL DEFAULT '{}'",
	 NULL},
	{"app_user",
	 "user_id text PRIMARY KEY, customer_id text NOT NULL, valid_from timestamptz, valid_to "
	 "timestamptz, email text, role text",
	 NULL},
	{"subscription",
	 "subscription_id text PRIMARY KEY, customer_id text NOT NULL, start_at timestamptz NOT NULL, "
	 "end_at timestamptz, mrr numeric NOT NULL, currency text, product text, seats numeric, "
	 "term_months integer, status text, is_trial boolean NOT NULL DEFAULT false, is_recurring "
	 "boolean "
	 "NOT NULL DEFAULT true, cancel_requested_at timestamptz, cancel_reason text, churn_kind text, "
	 "auto_renew boolean, renews_at timestamptz, changed_at timestamptz, CHECK (end_at >= "
	 "start_at)",
	 NULL},
	{"usage_event",
	 "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id text NOT NULL, at "
	 "timestamptz "
	 "NOT NULL, user_id text, event text, quantity numeric, event_count bigint",
	 "at"},
	{"ticket",
	 "ticket_id text PRIMARY KEY, customer_id text NOT NULL, opened_at timestamptz NOT NULL, "
	 "first_reply_at timestamptz, resolved_at timestamptz, severity text, category text, csat "
	 "numeric, "
	 "escalated boolean NOT NULL DEFAULT false",
	 NULL},
	{"survey",
	 "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id text NOT NULL, at "
	 "timestamptz "
	 "NOT NULL, kind text NOT NULL, score numeric NOT NULL, respondent text",
	 NULL},
	{"invoice",
	 "invoice_id text PRIMARY KEY, customer_id text NOT NULL, issued_at timestamptz, due_at "
	 "timestamptz NOT NULL, paid_at timestamptz, amount numeric, currency text",
	 NULL},
	{"touchpoint",
	 "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id text NOT NULL, at "
	 "timestamptz "
	 "NOT NULL, channel text, department text, author text, note text",
	 NULL},
	{"message",
	 "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id text NOT NULL, sent_at "
	 "timestamptz NOT NULL, opened_at timestamptz, clicked_at timestamptz, channel text, campaign "
	 "text",
	 NULL},
	{"onboarding_step",
	 "customer_id text NOT NULL, step text NOT NULL, starts_at timestamptz, due_at timestamptz, "
	 "completed_at timestamptz, weight numeric, PRIMARY KEY (customer_id, step)",
	 NULL},
	{"cancellation",
	 "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id text NOT NULL, at "
	 "timestamptz "
	 "NOT NULL, churn_kind text, reason text, note text",
	 NULL},
};

/*
 * run: one statement as the caller.
 */
static void
run(const char *sql)
{
	int rc = SPI_execute(sql, false, 0);

	if (rc < 0)
		elog(ERROR, "SPI_execute failed: %s: %s", SPI_result_code_string(rc), sql);
}

/*
 * mapping_of: every column of the new table that the kind knows, by its own name.
 */
static char *
mapping_of(const CsKind *kind, Oid relid)
{
	StringInfoData json;

	initStringInfo(&json);
	for (const CsKindColumn *c = kind->columns; c->name != NULL; c++)
	{
		if (get_attnum(relid, c->name) > 0)
			appendStringInfo(&json, "%s\"%s\": \"%s\"", json.len ? ", " : "{", c->name,
							 strcmp(c->name, "interval") == 0 ? "\\\"interval\\\"" : c->name);
	}
	appendStringInfoChar(&json, '}');
	return json.data;
}

/*
 * cs_create_tables: the tables first, as the caller and with the caller's
 * rights; then the sources.  The customer table's key leads an index wherever
 * customer_id is not the key itself.
 */
Datum
cs_create_tables(PG_FUNCTION_ARGS)
{
	Oid caller = GetUserId();
	ReturnSetInfo *rsinfo;
	const char *schema;
	Oid nsp;

	if (PG_ARGISNULL(0))
		ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("schema must not be NULL"));
	schema = quote_identifier(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (strcmp(schema, "cs") == 0 || strcmp(schema, "cs_internal") == 0)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("schema %s is of the extension", schema),
				errhint("Choose a schema of your own: the tables are yours."));
	InitMaterializedSRF(fcinfo, 0);
	rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	SPI_connect();
	nsp = get_namespace_oid(text_to_cstring(PG_GETARG_TEXT_PP(0)), true);
	if (!OidIsValid(nsp))
		run(psprintf("CREATE SCHEMA %s", schema));
	for (int i = 0; i < lengthof(tables); i++)
	{
		run(psprintf("CREATE TABLE %s.%s (%s)", schema, tables[i].name, tables[i].body));
		if (strncmp(tables[i].body, "customer_id", 11) != 0)
			run(psprintf("CREATE INDEX ON %s.%s (customer_id)", schema, tables[i].name));
		if (tables[i].index != NULL)
			run(psprintf("CREATE INDEX ON %s.%s (%s)", schema, tables[i].name, tables[i].index));
	}
	SPI_finish();
	nsp = get_namespace_oid(text_to_cstring(PG_GETARG_TEXT_PP(0)), false);

	for (int i = 0; i < lengthof(tables); i++)
	{
		CsDefinition def = {0};
		CsFrame frame;
		Datum values[2];
		bool nulls[2] = {false, false};

		def.name = def.kind = strcmp(tables[i].name, "app_user") == 0 ? "user" : tables[i].name;
		def.relid = get_relname_relid(tables[i].name, nsp);
		def.columns = mapping_of(cs_kind(def.kind), def.relid);
		def.capture = "auto";
		def.terms = "interval";
		def.search_path = pstrdup(GetConfigOption("search_path", false, false));
		def.quiet = true;
		cs_enter(&frame);
		(void) cs_define_source(&def, caller);
		cs_leave(&frame);
		values[0] = CStringGetTextDatum(def.name);
		values[1] = CStringGetTextDatum(psprintf("%s.%s", schema, tables[i].name));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
