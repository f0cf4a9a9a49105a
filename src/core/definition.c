/*
 * definition.c
 *		The trigger of every definition table.
 *
 * In: a row written by somebody who has DML on the table.  Out: an error that
 * says what is wrong, or a row in definition_history and a mark that every
 * customer is to be evaluated again.
 *
 * Cases.
 * Restore (check_function_bodies is off; pg_dump and pg_restore set it): rows
 * come in any order and refer to what is not there yet, so nothing is checked
 * and nothing written, or COPY would fail and the table be lost; a row of
 * policy holds the scheduler (staging must not mail customers).  Only for a
 * superuser or the owner: anybody else would switch the checks off by that
 * setting, and make run_as or the role of a job whatever he likes.
 * Abort: all of it is of the writer's transaction.
 * Concurrent writers: history and marks are appended, no row is shared.
 */
#include "cs_ext.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/sysattr.h"
#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/rel.h"

#include "core/core.h"
#include "facts/source.h"

PG_FUNCTION_INFO_V1(cs_definition_trigger);

static bool changed_in_transaction = false;
static bool callback_registered = false;

/*
 * After commit the scheduler is woken; a prepared transaction is found by polling.
 */
static void
definition_xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT && changed_in_transaction && cs_commit_hook != NULL)
		cs_commit_hook();
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		changed_in_transaction = false;
}

/*
 * key_of: the primary key's values joined by "/".
 */
static char *
key_of(Relation rel, HeapTuple tuple)
{
	Bitmapset *attrs = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_PRIMARY_KEY);
	StringInfoData key;
	int x = -1;

	initStringInfo(&key);
	while ((x = bms_next_member(attrs, x)) >= 0)
	{
		char *value =
			SPI_getvalue(tuple, RelationGetDescr(rel), x + FirstLowInvalidHeapAttributeNumber);

		appendStringInfo(&key, "%s%s", key.len ? "/" : "", value ? value : "");
	}
	return key.data;
}

static CsArg
row_arg(Relation rel, HeapTuple tuple)
{
	return cs_datum(RelationGetForm(rel)->reltype,
					tuple ? heap_copy_tuple_as_datum(tuple, RelationGetDescr(rel)) : (Datum) 0,
					tuple == NULL);
}

/*
 * must_be_member: definitions run as policy.run_as, so who writes them must be
 * able to act as that role.
 */
static void
must_be_member(const char *table)
{
	CsPolicy *policy = cs_policy(true);
	Oid writer = cs_caller();

	if (policy == NULL || writer == cs_owner() || !OidIsValid(policy->run_as_oid) ||
		has_privs_of_role(writer, policy->run_as_oid))
		return;
	ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			errmsg("must be a member of role \"%s\" to write cs.%s", policy->run_as, table),
			errdetail("The SQL of definitions runs as that role."),
			errhint("Ask for: GRANT %s TO %s.", quote_identifier(policy->run_as),
					quote_identifier(GetUserNameFromId(writer, false))));
}

/*
 * bears_on_customers: is everybody to be evaluated again?  What no stage reads
 * changes nobody.
 */
static bool
bears_on_customers(const char *table)
{
	static const char *const others[] = {"job", "outbox_topic", "churn_reason", "target"};

	for (int i = 0; i < lengthof(others); i++)
		if (strcmp(table, others[i]) == 0)
			return false;
	return true;
}

/*
 * is_out_of_use: deleted or switched off, so that no evaluation will say any more
 * whether it works.
 */
static bool
is_out_of_use(Relation rel, HeapTuple newtup)
{
	int column = SPI_fnumber(RelationGetDescr(rel), "enabled");
	bool isnull;

	if (newtup == NULL)
		return true;
	return column > 0 &&
		   !DatumGetBool(SPI_getbinval(newtup, RelationGetDescr(rel), column, &isnull));
}

/*
 * cs_definition_trigger: AFTER INSERT OR UPDATE OR DELETE, FOR EACH ROW.
 */
Datum
cs_definition_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	Relation rel;
	HeapTuple oldtup = NULL;
	HeapTuple newtup = NULL;
	const char *table;
	CsFrame frame;
	Oid jsonb2[2] = {JSONBOID, JSONBOID};

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event))
		ereport(ERROR, errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				errmsg("cs_internal.definition_trigger() must be an AFTER ROW trigger"));
	rel = trigdata->tg_relation;
	table = RelationGetRelationName(rel);
	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
		newtup = trigdata->tg_trigtuple;
	else if (TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
	{
		oldtup = trigdata->tg_trigtuple;
		newtup = trigdata->tg_newtuple;
	}
	else
		oldtup = trigdata->tg_trigtuple;

	cs_enter(&frame);
	if (!check_function_bodies && (superuser_arg(cs_caller()) || cs_caller() == cs_owner()))
	{
		if (strcmp(table, "policy") == 0 && TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
			cs_exec(
				"INSERT INTO cs_internal.hold (reason, since) VALUES ('restore', clock_timestamp())"
				" ON CONFLICT DO NOTHING",
				CS_NO_ARGS);
		cs_leave(&frame);
		return PointerGetDatum(NULL);
	}

	must_be_member(table);
	if (OidIsValid(LookupFuncName(
			list_make2(makeString("cs_internal"), makeString(psprintf("check_%s", table))), 2,
			jsonb2, true)))
		cs_exec(psprintf("SELECT cs_internal.%s(to_jsonb($1), to_jsonb($2))",
						 quote_identifier(psprintf("check_%s", table))),
				CS_ARGS(row_arg(rel, newtup), row_arg(rel, oldtup)));

	cs_exec("INSERT INTO cs_internal.definition_history (at, actor, table_name, key, cause, "
			"old_row, new_row)"
			" VALUES (clock_timestamp(), $1, $2, $3, $4, to_jsonb($5), to_jsonb($6))",
			CS_ARGS(cs_text(cs_actor && *cs_actor ? cs_actor
												  : GetUserNameFromId(GetSessionUserId(), false)),
					cs_text(table), cs_text(key_of(rel, newtup ? newtup : oldtup)),
					cs_text(newtup == NULL   ? "delete"
							: oldtup == NULL ? "insert"
											 : "update"),
					row_arg(rel, oldtup), row_arg(rel, newtup)));
	if (oldtup != NULL && is_out_of_use(rel, newtup))
		cs_exec("DELETE FROM cs_internal.definition_status WHERE (table_name = $1 AND key = $2)"
				" OR ($1 = 'dimension' AND table_name = 'segment' AND starts_with(key, $2 || '/'))",
				CS_ARGS(cs_text(table), cs_text(key_of(rel, oldtup))));
	if (bears_on_customers(table))
		cs_exec("INSERT INTO cs_internal.change_log (source) VALUES ('*')", CS_NO_ARGS);
	cs_leave(&frame);

	if (!callback_registered)
	{
		RegisterXactCallback(definition_xact_callback, NULL);
		callback_registered = true;
	}
	changed_in_transaction = true;
	return PointerGetDatum(NULL);
}
