/*
 * alert_segment.c
 *		Alert rules of scope segment: early warning over whole segments.
 *
 * In: the rules of cs.alert_rule with scope 'segment', and what the segments are
 * made of now: members, their health, the ledger.  Out: alerts without a
 * customer, whose key is the segment; they live as all others do (alert.c).
 *
 * Each rule looks at the relation "segment_state", a row a segment: those of the
 * dimension or the segment that the rule names, or all customers together.  It is
 * looked at once a local day, when everybody is evaluated, and again when such a
 * rule was changed or an alert of it is due: a share moves slowly, and reading
 * all customers at each change of one would cost more than it tells.
 *
 * Cases.
 * A rule that raises: marked in definition_status, its alerts stay.
 * A segment that has no members any more: no row, no outcome, its alert stays
 * until the rule is clear or somebody closes it.
 * Few members: bounds of the share (Wilson) and the control limit widen, so that
 * small segments do not shout.
 * A crash: the day is noted in the transaction of the alerts.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "cs_ext.h"
#include "core/texts.h"
#include "decide/alert.h"

PG_FUNCTION_INFO_V1(cs_check_segment_rule_sql);

static const char *const segment_columns[] = {
	"segment", "dimension",  "customers",   "mrr",      "red",        "yellow",
	"green",   "red_share",  "red_low",     "red_high", "mean_score", "score_change_30d",
	"churned", "churn_rate", "churn_limit",
};

/*
 * look: the relation, for these segments (words as rules name them; '' all
 * customers together); NULL: no rows, for the types only.
 */
static CsResult *
look(const CsBatch *batch, Datum words)
{
	return cs_query("SELECT * FROM cs_internal.segment_state($1, $2)",
					CS_ARGS(cs_datum(TEXTARRAYOID, words, words == (Datum) 0),
							cs_tstz(batch ? batch->as_of : 0)));
}

/*
 * hint_of: errhint for an expression that did not pass: a near column, or all.
 */
static int
hint_of(const char *expression, const char *what, const ErrorData *error)
{
	List *columns = NIL;
	ListCell *lc;

	for (int i = 0; i < lengthof(segment_columns); i++)
		columns = lappend(columns, pstrdup(segment_columns[i]));
	if (error->sqlerrcode == ERRCODE_UNDEFINED_COLUMN)
		foreach (lc, cs_expression_names(expression, what))
		{
			char *near = cs_nearest(lfirst(lc), columns);

			if (near != NULL && strcmp(near, lfirst(lc)) != 0)
				return errhint("Did you mean \"%s\"?", near);
		}
	if (error->sqlerrcode == ERRCODE_GROUPING_ERROR || error->sqlerrcode == ERRCODE_WINDOWING_ERROR)
		return cs_row_hint(error);
	return errhint(
		"Rules of scope segment see segment, dimension, customers, mrr, red, yellow, green, "
		"red_share, red_low, red_high, mean_score, score_change_30d, churned, churn_rate and "
		"churn_limit.");
}

/*
 * cs_internal.check_segment_rule(expression, search_path, type, what).
 */
Datum
cs_check_segment_rule_sql(PG_FUNCTION_ARGS)
{
	char *expression = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char *search_path = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	bool is_rule = strcmp(text_to_cstring(PG_GETARG_TEXT_PP(2)), "boolean") == 0;
	char *what = text_to_cstring(PG_GETARG_TEXT_PP(3));
	CsUserQuery query = {0};
	ErrorData *error = NULL;
	CsResult *result;
	CsFrame frame;

	cs_enter(&frame);
	(void) cs_expression_names(expression, what);
	cs_register("segment_state", look(NULL, (Datum) 0));
	query.sql = cs_row_check(expression, "segment_state");
	query.search_path = search_path;
	query.as_of = cs_now();
	result = cs_user_query(&query, &error);
	cs_unregister("segment_state");
	if (error != NULL)
		ereport(ERROR, errcode(error->sqlerrcode), errmsg("%s: %s", what, error->message),
				errdetail("The expression is: %s", expression), hint_of(expression, what, error));
	if (is_rule && TupleDescAttr(result->desc, 0)->atttypid != BOOLOID)
		ereport(ERROR, errcode(ERRCODE_DATATYPE_MISMATCH),
				errmsg("%s must be boolean, but it is %s", what,
					   format_type_be(TupleDescAttr(result->desc, 0)->atttypid)),
				errhint("Write a condition, such as red_low > 0.2."));
	cs_leave(&frame);
	PG_RETURN_VOID();
}

/*
 * ask: what one rule says of its segments.
 */
static List *
ask(const CsBatch *batch, CsAlertRule *rule)
{
	CsFailure failure = {.table_name = "alert_rule", .key = rule->name};
	CsUserQuery query = {0};
	ErrorData *error = NULL;
	List *outcomes = NIL;
	CsResult *result;
	TupleTableSlot *slot;
	char *not_rule = psprintf("NOT (%s\n)", rule->rule);

	query.sql =
		psprintf("SELECT segment, (%s\n)::pg_catalog.bool, (%s\n)::pg_catalog.bool,"
				 " CASE WHEN (%s\n) THEN (%s\n)::pg_catalog.text END,"
				 " CASE WHEN (%s\n) THEN (%s\n)::pg_catalog.text END FROM segment_state WHERE "
				 "segment = %s OR "
				 "dimension = %s",
				 rule->rule, rule->clear_rule ? rule->clear_rule : not_rule, rule->rule,
				 rule->message ? rule->message : "NULL", rule->rule,
				 rule->severity_expression ? rule->severity_expression : "NULL",
				 quote_literal_cstr(rule->scope_word), quote_literal_cstr(rule->scope_word));
	query.search_path = rule->search_path;
	query.as_of = batch->as_of;
	query.as_of_day = batch->as_of_day;
	result = cs_user_query(&query, &error);
	if (result == NULL)
	{
		failure.customers = 1;
		failure.sqlstate = pstrdup(unpack_sql_state(error->sqlerrcode));
		failure.error = error->message;
		cs_note_failures(batch, &failure, 1);
		return NIL;
	}
	cs_note_failures(batch, &failure, 1);
	slot = MakeSingleTupleTableSlot(result->desc, &TTSOpsMinimalTuple);
	while (tuplestore_gettupleslot(result->store, true, false, slot))
	{
		CsOutcome *outcome = palloc0(sizeof(CsOutcome));

		outcome->rule = rule;
		outcome->customer_id = "";
		outcome->key = cs_slot_text(slot, 1);
		outcome->holds = cs_slot_truth(slot, 2);
		outcome->clear = cs_slot_truth(slot, 3);
		outcome->message = cs_slot_text(slot, 4);
		outcome->severity = cs_slot_text(slot, 5);
		outcomes = lappend(outcomes, outcome);
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(result->store);
	return outcomes;
}

/*
 * cs_segment_outcomes: see alert.h.
 */
List *
cs_segment_outcomes(const CsBatch *batch, CsAlertRule *rules, int nrules, CsAlertKnown known,
					void *arg)
{
	Datum *words = palloc(sizeof(Datum) * (nrules + 1));
	List *outcomes = NIL;
	List *result = NIL;
	ListCell *lc;

	for (int i = 0; i < nrules; i++)
		words[i] = CStringGetTextDatum(rules[i].scope_word);
	cs_register("segment_state", look(batch, cs_text_array(words, nrules)));
	for (int i = 0; i < nrules; i++)
		outcomes = list_concat(outcomes, ask(batch, &rules[i]));
	cs_unregister("segment_state");
	foreach (lc, outcomes)
	{
		CsOutcome *outcome = lfirst(lc);

		if (outcome->holds == CS_YES || known(outcome->rule, "", outcome->key, arg))
			result = lappend(result, outcome);
	}
	return result;
}
