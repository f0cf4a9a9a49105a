/*
 * alert_row.c
 *		Alert rules over the rows of a kind of fact: an alert per key.
 *
 * In: a rule with source, and a batch.  Out: what the rule says of each row of
 * these customers as of the instant, by customer and key.  The rows are read as
 * policy.run_as in one query per source; the rule sees the canonical columns and
 * x_ columns of the kind, as_of and as_of_day, and nothing else.
 *
 * Cases.
 * Several rows of one key: the rule holds when it holds for one of them, and is
 * clear when it is clear for all.
 * A key that is NULL identifies nothing: the row is left out.
 * A row that is gone gives no outcome: no data, so its alert stays.
 * A row that counts for another customer now, for the one it stands under was
 * merged or is no longer: that is known, so the alert is cleared (cs_row_left),
 * and the other one's opens.
 * A row that raises: the customers are halved down to the one it stands at; the
 * others have their outcomes, and the rule is marked in definition_status.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "cs_ext.h"
#include "core/expired.h"
#include "core/texts.h"
#include "decide/alert.h"
#include "facts/merge.h"
#include "facts/source.h"
#include "facts/source_kind.h"

PG_FUNCTION_INFO_V1(cs_check_row_rule_sql);

#define MAX_FAILING 64

typedef struct RowReading
{
	const CsBatch *batch;
	CsAlertRule *rule;
	const CsSource *source;
	char *sql;
	CsAlertKnown known;
	void *known_arg;
	List *outcomes;
	CsFailure failure;
} RowReading;

static List *
sources_of(const char *word)
{
	List *sources = cs_sources(word);
	CsSource *source;

	if (sources != NIL)
		return sources;
	source = cs_source(word);
	return source != NULL && strcmp(source->kind, "other") == 0 ? list_make1(source) : NIL;
}

/*
 * rows_query: the columns customer_id, key, holds, clear, message, severity, fact_id.
 */
static char *
rows_query(const CsSource *source, const CsWhose *whose, const CsAlertRule *rule)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s, (%s\n)::pg_catalog.text, (%s\n)::pg_catalog.bool,",
					 cs_source_id_of(source, whose, "customer_key"), rule->key, rule->rule);
	if (rule->clear_rule != NULL)
		appendStringInfo(&sql, " (%s\n)::pg_catalog.bool,", rule->clear_rule);
	else
		appendStringInfo(&sql, " NOT (%s\n)::pg_catalog.bool,", rule->rule);
	if (rule->message != NULL)
		appendStringInfo(&sql, " CASE WHEN (%s\n) THEN (%s\n)::pg_catalog.text END", rule->rule,
						 rule->message);
	else
		appendStringInfoString(&sql, " NULL::pg_catalog.text");
	if (rule->severity_expression != NULL)
		appendStringInfo(&sql, ", CASE WHEN (%s\n) THEN (%s\n)::pg_catalog.text END", rule->rule,
						 rule->severity_expression);
	else
		appendStringInfoString(&sql, ", NULL::pg_catalog.text");
	appendStringInfo(&sql, ", %s FROM (%s) AS %s", cs_source_fact_of(source, whose),
					 cs_source_rows_of(source, whose, true), quote_identifier(source->kind));
	return sql.data;
}

/*
 * cs_slot_truth, cs_slot_text: see alert.h.
 */
CsTruth
cs_slot_truth(TupleTableSlot *slot, int column)
{
	bool isnull;
	Datum value = slot_getattr(slot, column, &isnull);

	return isnull ? CS_UNKNOWN : DatumGetBool(value) ? CS_YES : CS_NO;
}

char *
cs_slot_text(TupleTableSlot *slot, int column)
{
	bool isnull;
	Datum value = slot_getattr(slot, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

static bool
read_rows(RowReading *reading, Datum *ids, int n, ErrorData **error)
{
	CsUserQuery query = {0};
	CsResult *result;
	TupleTableSlot *slot;

	CHECK_FOR_INTERRUPTS();
	cs_source_keys_of(reading->source, reading->batch->whose, cs_text_array(ids, n), &query);
	query.search_path = cs_join_paths(query.search_path, reading->rule->search_path);
	query.sql = reading->sql;
	query.as_of = reading->batch->as_of;
	query.as_of_day = reading->batch->as_of_day;
	result = cs_user_query(&query, error);
	if (result == NULL)
		return false;

	slot = MakeSingleTupleTableSlot(result->desc, &TTSOpsMinimalTuple);
	while (tuplestore_gettupleslot(result->store, true, false, slot))
	{
		char *customer_id = cs_slot_text(slot, 1);
		char *key = cs_slot_text(slot, 2);
		CsTruth holds = cs_slot_truth(slot, 3);
		CsOutcome *outcome;

		if (customer_id == NULL || key == NULL ||
			(holds != CS_YES &&
			 !reading->known(reading->rule, customer_id, key, reading->known_arg)))
			continue;
		outcome = palloc0(sizeof(CsOutcome));
		outcome->rule = reading->rule;
		outcome->customer_id = customer_id;
		outcome->key = key;
		outcome->holds = holds;
		outcome->clear = cs_slot_truth(slot, 4);
		outcome->message = cs_slot_text(slot, 5);
		outcome->severity = cs_slot_text(slot, 6);
		outcome->fact_id = cs_slot_text(slot, 7);
		reading->outcomes = lappend(reading->outcomes, outcome);
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(result->store);
	return true;
}

/*
 * give_up: these customers have no outcome, for that reason.
 */
static void
give_up(RowReading *reading, Datum *ids, int n, const ErrorData *error)
{
	CsFailure *failure = &reading->failure;

	if (failure->customers == 0)
	{
		failure->example = TextDatumGetCString(ids[0]);
		failure->sqlstate = pstrdup(unpack_sql_state(error->sqlerrcode));
		failure->error = psprintf("source \"%s\": %s", reading->source->name, error->message);
	}
	failure->customers += n;
}

/*
 * read_customers: with halving, as for rules over state.
 */
static void
read_customers(RowReading *reading, Datum *ids, int n)
{
	ErrorData *error = NULL;
	CsFailure *failure = &reading->failure;

	if (n == 0 || read_rows(reading, ids, n, &error))
		return;
	if (n == 1 || failure->customers >= MAX_FAILING ||
		error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
		ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION)
	{
		give_up(reading, ids, n, error);
		if (!reading->batch->what_if)
			cs_note_expired("alert_rule", reading->rule->name, reading->sql, error);
		return;
	}
	read_customers(reading, ids, n / 2);
	read_customers(reading, ids + n / 2, n - n / 2);
}

static int
compare_outcomes(const ListCell *a, const ListCell *b)
{
	const CsOutcome *x = lfirst(a);
	const CsOutcome *y = lfirst(b);
	int c = strcmp(x->customer_id, y->customer_id);

	return c != 0 ? c : strcmp(x->key, y->key);
}

/*
 * one_per_key: joins the outcomes of several rows of one key.
 */
static List *
one_per_key(List *outcomes)
{
	List *result = NIL;
	CsOutcome *last = NULL;
	ListCell *lc;

	list_sort(outcomes, compare_outcomes);
	foreach (lc, outcomes)
	{
		CsOutcome *o = lfirst(lc);

		if (last == NULL || strcmp(last->customer_id, o->customer_id) != 0 ||
			strcmp(last->key, o->key) != 0)
		{
			result = lappend(result, o);
			last = o;
			continue;
		}
		if (o->holds == CS_YES && last->holds != CS_YES)
		{
			last->holds = CS_YES;
			last->message = o->message;
			last->severity = o->severity;
			last->fact_id = o->fact_id;
		}
		else if (o->holds == CS_YES && last->fact_id != NULL &&
				 (o->fact_id == NULL || strcmp(o->fact_id, last->fact_id) < 0))
			last->fact_id = o->fact_id;
		else if (o->holds == CS_UNKNOWN && last->holds == CS_NO)
			last->holds = CS_UNKNOWN;
		if (o->clear == CS_NO || (o->clear == CS_UNKNOWN && last->clear == CS_YES))
			last->clear = o->clear;
	}
	return result;
}

/*
 * cs_row_outcomes: see alert.h.  Outcomes that do not hold are given only where
 * an alert is known that they could bear on.
 */
List *
cs_row_outcomes(const CsBatch *batch, CsAlertRule *rule, CsAlertKnown known, void *arg)
{
	RowReading reading = {.batch = batch,
						  .rule = rule,
						  .known = known,
						  .known_arg = arg,
						  .failure = {.table_name = "alert_rule", .key = rule->name}};
	Datum *ids;
	int n;
	ListCell *lc;

	ids = cs_text_elements(batch->ids, &n);
	foreach (lc, sources_of(rule->source))
	{
		ErrorData *error;

		reading.source = lfirst(lc);
		reading.sql = rows_query(reading.source, batch->whose, rule);
		error = batch->what_if ? NULL : cs_expired("alert_rule", rule->name, reading.sql);
		if (error == NULL)
			read_customers(&reading, ids, n);
		else if (n > 0)
			give_up(&reading, ids, n, error);
	}
	cs_note_failures(batch, &reading.failure, 1);
	return one_per_key(reading.outcomes);
}

/*
 * cs_row_left: see alert.h.
 */
CsOutcome *
cs_row_left(const CsBatch *batch, CsAlertRule *rule, const CsAlert *alert)
{
	const char *fact_id = alert->fact_id ? alert->fact_id : alert->customer_id;
	CsOutcome *outcome;

	if (rule->source == NULL || cs_counts_for(batch->whose, fact_id, alert->customer_id))
		return NULL;
	outcome = palloc0(sizeof(CsOutcome));
	outcome->rule = rule;
	outcome->customer_id = alert->customer_id;
	outcome->key = alert->key;
	outcome->holds = CS_NO;
	outcome->clear = CS_YES;
	return outcome;
}

/*
 * cs_internal.check_row_rule(source, expression, search_path, type, what).
 */
Datum
cs_check_row_rule_sql(PG_FUNCTION_ARGS)
{
	char *word = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char *expression = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char *search_path = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));
	bool is_rule = strcmp(text_to_cstring(PG_GETARG_TEXT_PP(3)), "boolean") == 0;
	char *what = text_to_cstring(PG_GETARG_TEXT_PP(4));
	CsFrame frame;
	List *sources;
	ListCell *lc;

	cs_enter(&frame);
	(void) cs_expression_names(expression, what);
	sources = sources_of(word);
	if (sources == NIL)
	{
		List *kinds = cs_kind_names();
		bool is_kind = false;

		foreach (lc, kinds)
			if (strcmp(lfirst(lc), word) == 0 && strcmp(word, "other") != 0)
				is_kind = true;
		if (!is_kind)
			ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("%s: \"%s\" is neither a kind of fact nor a source of kind other", what,
						   word),
					cs_errhint_nearest(word, kinds));
	}
	foreach (lc, sources)
	{
		CsSource *source = lfirst(lc);
		CsUserQuery query = {0};
		ErrorData *error = NULL;
		CsResult *result;

		query.sql =
			cs_row_check(expression, psprintf("(%s) AS %s", cs_source_rows(source, false, true),
											  quote_identifier(source->kind)));
		query.search_path = cs_join_paths(source->search_path, search_path);
		query.as_of = cs_now();
		result = cs_user_query(&query, &error);
		if (error != NULL)
		{
			char *near = NULL;
			ListCell *name;

			if (error->sqlerrcode == ERRCODE_UNDEFINED_COLUMN)
				foreach (name, cs_expression_names(expression, what))
					if (near == NULL)
					{
						near = cs_nearest(lfirst(name), source->columns);
						if (near != NULL && strcmp(near, lfirst(name)) == 0)
							near = NULL;
					}
			ereport(ERROR, errcode(error->sqlerrcode), errmsg("%s: %s", what, error->message),
					errdetail("The expression is: %s", expression),
					near ? errhint("Did you mean \"%s\"?", near)
					: error->hint || error->sqlerrcode == ERRCODE_GROUPING_ERROR ||
							error->sqlerrcode == ERRCODE_WINDOWING_ERROR
						? cs_row_hint(error)
						: errhint("The rule sees the columns of kind %s and the x_ "
								  "columns of source \"%s\".",
								  source->kind, source->name));
		}
		if (is_rule && TupleDescAttr(result->desc, 0)->atttypid != BOOLOID)
			ereport(
				ERROR, errcode(ERRCODE_DATATYPE_MISMATCH),
				errmsg("%s must be boolean, but it is %s", what,
					   format_type_be(TupleDescAttr(result->desc, 0)->atttypid)),
				errdetail("The expression is: %s", expression),
				errhint("Write a condition, such as severity = 'urgent' AND resolved_at IS NULL."));
	}
	cs_leave(&frame);
	PG_RETURN_VOID();
}
