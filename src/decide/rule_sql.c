/*
 * rule_sql.c
 *		What SQL needs of rules: the checks of definition tables, the names that
 *		a rule uses; and the book of definitions that fail.
 *
 * In: expressions as text, or failures of a batch.  Out: an error that names
 * the definition, a list of names, rows of cs_internal.definition_status.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "nodes/value.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "cs_ext.h"
#include "core/texts.h"
#include "decide/rule.h"
#include "facts/merge.h"
#include "refresh/state.h"

PG_FUNCTION_INFO_V1(cs_check_rule_sql);
PG_FUNCTION_INFO_V1(cs_rule_names_sql);

/* ---- what failed -------------------------------------------------------- */

/*
 * cs_status_lock: definition_status is shared by all customers, so a refresh of
 * one customer inside a business transaction must never wait for it, nor make
 * the refresher wait: who does not get the lock leaves the marks to the next
 * evaluation.
 */
bool
cs_status_lock(void)
{
	bool isnull;

	cs_exec("SELECT pg_try_advisory_xact_lock(1668509798, 2)", CS_NO_ARGS);
	return DatumGetBool(cs_value_datum(&isnull));
}

/*
 * cs_note_failures: several entries of one key count as one definition.  A mark
 * goes when the definition fails for nobody in a batch in which all may be that
 * it failed for.  A batch of fewer customers does not say how many they are.
 */
void
cs_note_failures(const CsBatch *batch, CsFailure *failures, int n)
{
	bool *seen = palloc0(n + 1);
	List *marked = NIL;
	uint64 nmarked;

	if (batch->what_if)
		return;

	/* Nearly always nothing is marked, and this is all that is asked. */
	nmarked =
		cs_exec("SELECT d.table_name || '/' || d.key FROM cs_internal.definition_status d"
				" WHERE d.status = 'failing' AND (d.example IS NULL OR " CS_TRIED_AGAIN ")",
				CS_ARGS(cs_textarray(batch->ids), cs_int8(batch->nids), cs_int8(cs_refresh_batch)));
	for (uint64 i = 0; i < nmarked; i++)
		marked = lappend(marked, makeString(cs_cell(i, 1)));
	for (int i = 0; i < n; i++)
	{
		CsFailure *worst = &failures[i];

		if (seen[i])
			continue;
		for (int j = i; j < n; j++)
			if (strcmp(failures[j].key, failures[i].key) == 0 &&
				strcmp(failures[j].table_name, failures[i].table_name) == 0)
			{
				seen[j] = true;
				if (failures[j].customers > worst->customers)
					worst = &failures[j];
			}
		if (worst->customers > 0)
		{
			if (!cs_status_lock())
				return;
			cs_exec(
				"INSERT INTO cs_internal.definition_status AS d"
				" (table_name, key, status, sqlstate, error, customers, example, since)"
				" VALUES ($1, $2, 'failing', $3, $4, $5, $6, $7)"
				" ON CONFLICT (table_name, key) DO UPDATE SET status = 'failing',"
				" sqlstate = excluded.sqlstate, error = excluded.error, example = excluded.example,"
				" customers = CASE WHEN d.status = 'failing' AND d.customers > $8 THEN "
				"d.customers ELSE excluded.customers END,"
				" since = CASE WHEN d.status = 'failing' THEN d.since ELSE excluded.since END",
				CS_ARGS(cs_text(worst->table_name), cs_text(worst->key), cs_text(worst->sqlstate),
						cs_text(worst->error), cs_int8(worst->customers), cs_text(worst->example),
						cs_tstz(batch->computed_at), cs_int8(batch->nids)));
		}
		else if (marked != NIL &&
				 list_member(marked,
							 makeString(psprintf("%s/%s", worst->table_name, worst->key))) &&
				 cs_status_lock())
			cs_exec("DELETE FROM cs_internal.definition_status"
					" WHERE table_name = $1 AND key = $2 AND status = 'failing'",
					CS_ARGS(cs_text(worst->table_name), cs_text(worst->key)));
	}
}

/*
 * cs_decide_batch: for running one stage alone.
 */
CsBatch *
cs_decide_batch(Datum ids, TimestampTz as_of, const char *cause)
{
	CsBatch *batch = palloc0(sizeof(CsBatch));
	bool isnull;

	batch->policy = cs_policy(false);
	batch->as_of = as_of;
	batch->as_of_day = cs_local_day(as_of, batch->policy->time_zone);
	batch->computed_at = GetCurrentTimestamp();
	batch->cause = cause;
	cs_exec("SELECT array_agg(u.id ORDER BY u.id COLLATE \"C\"), count(*) FROM unnest($1) u (id)",
			CS_ARGS(cs_textarray(ids)));
	batch->ids = cs_cell_datum(0, 1, &isnull);
	batch->nids = isnull ? 0 : atoi(cs_cell(0, 2));
	if (isnull)
		batch->ids = PointerGetDatum(construct_empty_array(TEXTOID));
	cs_register("batch", cs_query("SELECT u.id COLLATE \"C\" AS customer_id FROM unnest($1) u (id)",
								  CS_ARGS(cs_textarray(batch->ids))));
	batch->whose = cs_whose_show(batch->ids, as_of, batch->policy);
	cs_state_load(batch, false);
	return batch;
}

/*
 * cs_row_check: a query whose analysis refuses what is no expression over one
 * row: aggregates, window functions and functions that return sets may not stand
 * in WHERE.  Its column has the type of the expression.  It is run, not only
 * analysed, because rights are looked at when a query starts; LIMIT 0 reads and
 * calls nothing.
 */
char *
cs_row_check(const char *expression, const char *from)
{
	return psprintf("SELECT (%s\n) FROM %s WHERE (%s\n) IS NULL LIMIT 0", expression, from,
					expression);
}

/*
 * cs_row_hint: errhint for what cs_row_check found.
 */
int
cs_row_hint(const ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_GROUPING_ERROR || error->sqlerrcode == ERRCODE_WINDOWING_ERROR)
		return errhint("The expression sees one row at a time; count and sum in a metric and name "
					   "that metric.");
	return error->hint ? errhint("%s", error->hint) : 0;
}

/* ---- for SQL ------------------------------------------------------------ */

static char *
text_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/*
 * return_names: a text[] that outlives the frame.
 */
static Datum
return_names(CsFrame *frame, List *names)
{
	Datum *elements = palloc(sizeof(Datum) * (list_length(names) + 1));
	int n = 0;
	Datum array;
	ListCell *lc;

	foreach (lc, names)
		elements[n++] = CStringGetTextDatum(lfirst(lc));
	array = cs_text_array(elements, n);
	array = SPI_datumTransfer(array, false, -1);
	cs_leave(frame);
	return array;
}

/*
 * cs_internal.check_rule(expression, search_path, type, what): raises what is
 * wrong; returns the names it uses.
 */
Datum
cs_check_rule_sql(PG_FUNCTION_ARGS)
{
	CsRule rule = {.expression = text_arg(fcinfo, 0), .search_path = text_arg(fcinfo, 1)};
	char *type = text_arg(fcinfo, 2);
	char *what = text_arg(fcinfo, 3);
	CsFrame frame;

	cs_enter(&frame);
	if (rule.expression == NULL || strspn(rule.expression, " \t\r\n") == strlen(rule.expression))
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s is empty", what),
				errhint("Write a SQL condition over the customer's state, such as mrr >= 5000."));
	rule.type = strcmp(type, "text") == 0 ? TEXTOID : BOOLOID;
	cs_check_rule(&rule, what);
	return return_names(&frame, cs_rule_names(rule.expression, what));
}

/*
 * cs_internal.rule_names(expression): the names alone, nothing analysed.  An
 * expression that does not parse (restored, not yet checked) has none.
 */
Datum
cs_rule_names_sql(PG_FUNCTION_ARGS)
{
	char *expression = text_arg(fcinfo, 0);
	List *volatile names = NIL;
	MemoryContext context;
	CsFrame frame;

	cs_enter(&frame);
	context = CurrentMemoryContext;
	PG_TRY();
	{
		if (expression != NULL)
			names = cs_rule_names(expression, "rule");
	}
	PG_CATCH();
	{
		/* Parsing alone takes no lock and opens nothing: there is nothing to roll back. */
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
	return return_names(&frame, names);
}
