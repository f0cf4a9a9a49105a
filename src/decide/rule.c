/*
 * rule.c
 *		Rules: SQL expressions over a customer's state.
 *
 * In: expressions of segments, alert rules and messages, and a batch.  Out: one
 * value per rule and customer.  The way: each expression is parsed alone, the
 * names in it are looked up in the one namespace of metrics, dimensions and
 * columns of state, just the columns that somebody uses are projected for the
 * customers of the batch (privileged) and registered as the relation "state",
 * and all rules are evaluated over it in chunks (contained, as policy.run_as).
 *
 * Cases.
 * Error: a chunk that raises is evaluated again rule by rule, and a rule that
 * raises in halves of its customers down to the one that fails, so no rule and
 * no customer suffers from another.  What fails stands in definition_status.
 * Timeout, or an error in the definition itself (class 42): no halves, the rule
 * fails for all of the batch at once.
 * Failing for very many: after MAX_FAILING customers of a batch the rest counts
 * as failing too, so that a broken rule costs a bounded number of queries.
 * Restored, not yet checked definitions: a parse error is one more failure.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "cs_ext.h"
#include "core/hold.h"
#include "core/expired.h"
#include "core/texts.h"
#include "decide/rule_call.h"
#include "decide/rule_text.h"
#include "refresh/state.h"

#define CHUNK_RULES 500
#define MAX_FAILING 64

/*
 * Columns of state that rules see beside metrics and dimensions.  A metric of
 * the same name goes before (the four of the ledger are metrics as well).
 */
static const struct
{
	const char *name;
	const char *sql;
	const char *recomputed; /* in a what-if, where nothing decided is written; NULL: the same */
} state_columns[] = {
	{"customer_id", "s.customer_id", NULL},
	{"name", "c.name", NULL},
	{"owner", "c.owner", NULL},
	{"parent_id", "c.parent_id", NULL},
	{"created_at", "c.created_at", NULL},
	{"attributes", "c.attributes", NULL},
	{"active", "s.active", NULL},
	{"in_trial", "s.in_trial", NULL},
	{"mrr", "s.mrr::float8", NULL},
	{"seats", "s.seats::float8", NULL},
	{"tenure_days", "s.tenure_days::float8", NULL},
	{"days_to_renewal", "s.days_to_renewal::float8", NULL},
	{"health", "h.score", "s.score"},
	{"health_score", "h.score", "s.score"},
	{"coverage", "h.coverage", "s.coverage"},
	{"band", "h.band",
	 "(SELECT CASE WHEN s.score < k.red_below OR (s.score = k.red_below AND k.edge_closed = "
	 "'below') THEN 'red'"
	 " WHEN s.score > k.green_from OR (s.score = k.green_from AND k.edge_closed <> 'below') THEN "
	 "'green'"
	 " WHEN s.score IS NOT NULL THEN 'yellow' END FROM cs.scorecard k WHERE k.name = s.scorecard)"},
};

typedef struct Compiled
{
	CsRule *rule;
	char *expression; /* with its calls replaced */
	List *names;
	int64 customers; /* failing ones */
	int example;     /* index of one of them, -1: none */
	char *sqlstate;
	char *error;
} Compiled;

typedef struct Evaluation
{
	const CsBatch *batch;
	CsRuleValues *out;
	Compiled *rules;
} Evaluation;

/* ---- names -------------------------------------------------------------- */

static List *
text_column(const char *sql)
{
	List *list = NIL;
	MemoryContext context = CurrentMemoryContext;
	uint64 n = cs_exec(sql, CS_NO_ARGS);

	MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < n; i++)
		list = lappend(list, cs_cell(i, 1));
	return list;
}

static CsNames *
read_names(void)
{
	MemoryContext before = CurrentMemoryContext;
	MemoryContext context = CurrentMemoryContext;
	void **held = cs_held(CS_HELD_NAMES, &context);
	CsNames *names;
	uint64 n;

	if (held != NULL && *held != NULL)
	{
		names = palloc(sizeof(CsNames));
		*names = *(CsNames *) *held;
		return names;
	}
	n = cs_exec("SELECT m.name, coalesce(t.slot, 0) FROM cs.metric m"
				" LEFT JOIN cs_internal.metric_slot t ON t.metric = m.name"
				" WHERE m.enabled ORDER BY m.name",
				CS_NO_ARGS);
	MemoryContextSwitchTo(context);
	names = palloc0(sizeof(CsNames));
	for (uint64 i = 0; i < n; i++)
	{
		names->metrics = lappend(names->metrics, cs_cell(i, 1));
		names->slots = lappend_int(names->slots, atoi(cs_cell(i, 2)));
	}
	names->dimensions =
		text_column("SELECT name FROM cs.dimension WHERE enabled AND exclusive ORDER BY name");
	MemoryContextSwitchTo(before);
	if (held == NULL)
		return names;
	*held = names;
	return read_names();
}

static bool
contains(List *list, const char *name)
{
	ListCell *lc;

	foreach (lc, list)
		if (strcmp(lfirst(lc), name) == 0)
			return true;
	return false;
}

List *
cs_state_columns(void)
{
	List *list = NIL;

	for (int i = 0; i < lengthof(state_columns); i++)
		list = lappend(list, pstrdup(state_columns[i].name));
	return list;
}

/*
 * compile: replace calls and collect the names.  Raises what the parser says.
 */
static void
compile(Compiled *compiled, CsNames *names, const char *what)
{
	char *key = unconstify(char *, compiled->rule->expression);
	int ncalls = list_length(names->calls);

	if (cs_rule_text_names(key, &compiled->names))
	{
		compiled->expression = key;
		return;
	}
	compiled->expression = cs_replace_rule_calls(key, &names->calls, what);
	compiled->names = cs_expression_names(compiled->expression, what);
	if (list_length(names->calls) == ncalls && strcmp(compiled->expression, key) == 0)
		cs_keep_rule_text(key, compiled->names);
}

/*
 * cs_rule_names: the names in an expression; for ago('mrr', 30) it is mrr, for
 * in_segment('tier:small') it is tier.
 */
List *
cs_rule_names(const char *expression, const char *what)
{
	List *calls = NIL;
	List *result = NIL;
	ListCell *lc;

	foreach (lc, cs_expression_names(cs_replace_rule_calls(expression, &calls, what), what))
	{
		CsCall *call = cs_find_call(calls, lfirst(lc));
		char *name = call ? cs_call_needs(call) : lfirst(lc);

		if (!contains(result, name))
			result = lappend(result, name);
	}
	return result;
}

/* ---- the relation "state" ----------------------------------------------- */

/*
 * column_sql: the SQL that gives a name's value; NULL when nothing has the name.
 */
static char *
column_sql(const char *name, CsNames *names, const CsBatch *batch)
{
	CsCall *call = cs_find_call(names->calls, name);

	if (call != NULL)
		return cs_call_sql(call, names, batch);
	if (contains(names->metrics, name))
		return cs_metric_value(names, "s.\"values\"", name);
	if (contains(names->dimensions, name))
		return psprintf("(s.segments ->> %s)", quote_literal_cstr(name));
	for (int i = 0; i < lengthof(state_columns); i++)
		if (strcmp(state_columns[i].name, name) == 0)
			return pstrdup(batch && batch->what_if && state_columns[i].recomputed
							   ? state_columns[i].recomputed
							   : state_columns[i].sql);
	return NULL;
}

/*
 * What cs_internal.state and cs_internal.health were at $1, a day bound: values
 * and segments as kept, MRR and whether active from the ledger as it is now,
 * health as stored, else as recomputed.  What nothing kept is NULL.
 */
static const char *kept_state =
	"(SELECT m.customer_id, m.\"values\", m.segments, l.active_after AS active, NULL::boolean AS "
	"in_trial,"
	"  l.mrr_after AS mrr, NULL::numeric AS seats, NULL::integer AS tenure_days,"
	"  NULL::integer AS days_to_renewal FROM cs_internal.metric_history m"
	"  LEFT JOIN LATERAL (SELECT x.active_after, x.mrr_after FROM cs_internal.movement x"
	"   WHERE x.customer_id = m.customer_id AND x.at <= $1 ORDER BY x.at DESC, x.seq DESC LIMIT 1) "
	"l ON true"
	"  WHERE m.as_of = $1) s"
	" LEFT JOIN LATERAL (SELECT k.score, k.band, k.coverage FROM cs_internal.health_history k"
	"  WHERE k.customer_id = s.customer_id AND k.as_of = $1 ORDER BY k.basis DESC LIMIT 1) h ON "
	"true";

/*
 * project_state: the columns of these names for the customers of the batch;
 * batch NULL: no rows, for their types only.  What is no name of ours is left
 * out (it may belong to a subquery) and returned in *unknown.
 */
static CsResult *
project_state(const CsBatch *batch, List *used, CsNames *names, List **unknown)
{
	StringInfoData columns;
	CsResult *rows;
	ListCell *lc;

	initStringInfo(&columns);
	appendStringInfoString(&columns, "s.customer_id");
	foreach (lc, used)
	{
		char *name = lfirst(lc);
		char *sql = column_sql(name, names, batch);

		if (strcmp(name, "customer_id") == 0)
			continue;
		if (sql == NULL)
		{
			CsCall *call = cs_find_call(names->calls, name);

			if (unknown != NULL && strcmp(name, "as_of") != 0 && strcmp(name, "as_of_day") != 0)
				*unknown = lappend(*unknown, call ? call->name : name);
			continue;
		}
		appendStringInfo(&columns, ", %s AS %s", sql, quote_identifier(name));
	}
	if (batch && batch->kept)
		return cs_query(
			psprintf("SELECT %s FROM %s"
					 " LEFT JOIN cs_internal.customer c ON c.customer_id = s.customer_id"
					 " WHERE s.customer_id IN (SELECT b.customer_id FROM batch b)",
					 columns.data, kept_state),
			CS_ARGS(cs_tstz(batch->as_of)));

	/* A customer's row is in memory; of the others only those are joined that a column looks at. */
	if (batch != NULL)
		cs_state_show(batch);
	rows = cs_query(
		psprintf("SELECT %s FROM %s s%s%s%s", columns.data,
				 batch ? "evaluated" : "cs_internal.state",
				 strstr(columns.data, "c.") == NULL
					 ? ""
					 : " LEFT JOIN cs_internal.customer c ON c.customer_id = s.customer_id",
				 strstr(columns.data, "h.") == NULL
					 ? ""
					 : " LEFT JOIN cs_internal.health h ON h.customer_id = s.customer_id",
				 batch ? "" : " WHERE false"),
		CS_NO_ARGS);
	cs_state_hide();
	return rows;
}

/* ---- checking a definition ---------------------------------------------- */

/*
 * cs_check_rule: see decide.h.
 */
void
cs_check_rule(const CsRule *rule, const char *what)
{
	CsNames *names = read_names();
	CsRule copy = *rule;
	Compiled compiled = {.rule = &copy};
	List *unknown = NIL;
	CsUserQuery query = {0};
	ErrorData *error = NULL;
	CsResult *result;
	Oid type;

	compile(&compiled, names, what);
	cs_register("state", project_state(NULL, compiled.names, names, &unknown));
	query.sql = cs_row_check(compiled.expression, "state");
	query.search_path = rule->search_path;
	query.as_of = cs_now();
	result = cs_user_query(&query, &error);
	cs_unregister("state");

	if (error != NULL && error->sqlerrcode == ERRCODE_UNDEFINED_COLUMN && unknown != NIL)
	{
		List *candidates =
			list_concat(list_concat(cs_state_columns(), names->metrics), names->dimensions);
		char *name = linitial(unknown);
		char *near = cs_nearest(name, candidates);

		ereport(
			ERROR, errcode(ERRCODE_UNDEFINED_COLUMN),
			errmsg(
				"%s names \"%s\", which is neither a metric nor a dimension nor a column of state",
				what, name),
			near ? errhint("Did you mean \"%s\"?", near)
				 : errhint("Rules see the enabled metrics, the enabled dimensions, and "
						   "customer_id, name, owner, attributes, health, band and the like."));
	}
	if (error != NULL)
		ereport(ERROR, errcode(error->sqlerrcode), errmsg("%s: %s", what, error->message),
				error->detail ? errdetail_internal("%s", error->detail)
							  : errdetail("The expression is: %s", rule->expression),
				cs_row_hint(error));
	type = TupleDescAttr(result->desc, 0)->atttypid;
	if (rule->type == BOOLOID && type != BOOLOID)
		ereport(ERROR, errcode(ERRCODE_DATATYPE_MISMATCH),
				errmsg("%s must be boolean, but it is %s", what, format_type_be(type)),
				errdetail("The expression is: %s", rule->expression),
				errhint("Write a condition, such as mrr > 1000 or flag = 1."));
}

/* ---- evaluation --------------------------------------------------------- */

/*
 * run: evaluate the rules of these indexes over customers [from, to) into the
 * matrix; false with *error when something raised.
 */
static bool
run(Evaluation *eval, const int *which, int n, int from, int to, ErrorData **error)
{
	CsRuleValues *out = eval->out;
	CsUserQuery query = {0};
	StringInfoData sql;
	CsResult *result;
	TupleTableSlot *slot;
	bool part = from > 0 || to < out->ncustomers;

	CHECK_FOR_INTERRUPTS();
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT customer_id");
	for (int i = 0; i < n; i++)
	{
		Compiled *compiled = &eval->rules[which[i]];

		appendStringInfo(&sql, ", (%s\n)::%s", compiled->expression,
						 compiled->rule->type == BOOLOID ? "pg_catalog.bool" : "pg_catalog.text");
	}
	appendStringInfoString(&sql, " FROM state");
	if (part)
	{
		appendStringInfoString(&sql, " WHERE customer_id = ANY ($1)");
		query.key_type = TEXTARRAYOID;
		query.keys = cs_strings_array(out->ids + from, to - from);
	}
	query.sql = sql.data;
	query.search_path = eval->rules[which[0]].rule->search_path;
	query.as_of = eval->batch->as_of;
	query.as_of_day = eval->batch->as_of_day;
	result = cs_user_query(&query, error);
	if (result == NULL)
		return false;

	slot = MakeSingleTupleTableSlot(result->desc, &TTSOpsMinimalTuple);
	while (tuplestore_gettupleslot(result->store, true, false, slot))
	{
		bool isnull;
		Datum id = slot_getattr(slot, 1, &isnull);
		int row = cs_find_string(TextDatumGetCString(id), out->ids, out->ncustomers);

		if (row < 0)
			continue;
		out->present[row] = true;
		for (int i = 0; i < n; i++)
		{
			int cell = CS_CELL(out, row, which[i]);
			Datum value = slot_getattr(slot, i + 2, &out->isnull[cell]);
			bool byval = eval->rules[which[i]].rule->type == BOOLOID;

			out->failed[cell] = false;
			out->values[cell] =
				out->isnull[cell] ? (Datum) 0 : datumCopy(value, byval, byval ? 1 : -1);
		}
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(result->store);
	return true;
}

static void
fail(Evaluation *eval, int which, int from, int to, const char *sqlstate, const char *error)
{
	Compiled *compiled = &eval->rules[which];

	for (int i = from; i < to; i++)
	{
		int cell = CS_CELL(eval->out, i, which);

		eval->out->failed[cell] = true;
		eval->out->isnull[cell] = true;
	}
	if (compiled->customers == 0)
	{
		compiled->example = from;
		compiled->sqlstate = pstrdup(sqlstate);
		compiled->error = pstrdup(error);
	}
	compiled->customers += to - from;
	compiled->rule->failed = true;
}

/*
 * divide: a rule raised for customers [from, to); find those it raises for.
 */
static void
divide(Evaluation *eval, int which, int from, int to, ErrorData *error)
{
	int middle = from + (to - from) / 2;

	if (to - from == 1 || eval->rules[which].customers >= MAX_FAILING ||
		error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
		ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION)
	{
		fail(eval, which, from, to, unpack_sql_state(error->sqlerrcode), error->message);
		return;
	}
	for (int half = 0; half < 2; half++)
	{
		int start = half == 0 ? from : middle;
		int end = half == 0 ? middle : to;
		ErrorData *again = NULL;

		if (!run(eval, &which, 1, start, end, &again))
			divide(eval, which, start, end, again);
	}
}

/*
 * compile_all: parse every rule; one that does not parse fails for everybody.
 */
static void
compile_all(Evaluation *eval, int nrules, CsNames *names)
{
	MemoryContext context = CurrentMemoryContext;

	for (int i = 0; i < nrules; i++)
	{
		Compiled *compiled = &eval->rules[i];

		PG_TRY();
		{
			compile(compiled, names,
					psprintf("%s \"%s\"", compiled->rule->table_name, compiled->rule->key));
		}
		PG_CATCH();
		{
			ErrorData *error;

			/* Parsing alone takes no lock and opens nothing: there is nothing to roll back. */
			MemoryContextSwitchTo(context);
			error = CopyErrorData();
			FlushErrorState();
			compiled->expression = NULL;
			if (eval->out->ncustomers > 0)
				fail(eval, i, 0, eval->out->ncustomers, unpack_sql_state(error->sqlerrcode),
					 error->message);
		}
		PG_END_TRY();
	}
}

static bool
same_path(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") == 0;
}

/*
 * evaluate_all: in chunks of rules that share a search_path.
 */
static void
evaluate_all(Evaluation *eval, int nrules)
{
	bool *done = palloc0(nrules + 1);
	int *chunk = palloc(sizeof(int) * CHUNK_RULES);

	for (int i = 0; i < nrules && !eval->batch->what_if; i++)
	{
		CsRule *rule = eval->rules[i].rule;
		ErrorData *error = cs_expired(rule->table_name, rule->key, rule->expression);

		if (error == NULL || eval->rules[i].expression == NULL)
			continue;
		fail(eval, i, 0, eval->out->ncustomers, unpack_sql_state(error->sqlerrcode),
			 error->message);
		done[i] = true;
	}
	for (int first = 0; first < nrules; first++)
	{
		ErrorData *error = NULL;
		int n = 0;

		if (done[first] || eval->rules[first].expression == NULL)
			continue;
		for (int i = first; i < nrules && n < CHUNK_RULES; i++)
			if (!done[i] && eval->rules[i].expression != NULL &&
				same_path(eval->rules[i].rule->search_path, eval->rules[first].rule->search_path))
			{
				chunk[n++] = i;
				done[i] = true;
			}
		if (run(eval, chunk, n, 0, eval->out->ncustomers, &error))
			continue;
		for (int i = 0; i < n; i++)
		{
			ErrorData *alone = n == 1 ? error : NULL;

			if (n == 1 || !run(eval, &chunk[i], 1, 0, eval->out->ncustomers, &alone))
			{
				CsRule *rule = eval->rules[chunk[i]].rule;

				divide(eval, chunk[i], 0, eval->out->ncustomers, alone);
				if (!eval->batch->what_if)
					cs_note_expired(rule->table_name, rule->key, rule->expression, alone);
			}
		}
	}
}

/*
 * cs_rule_values: all rules over the batch.  Customers without a row of state
 * are not present; their cells are NULL and not failed.
 */
CsRuleValues *
cs_rule_values(const CsBatch *batch, CsRule *rules, int nrules)
{
	Evaluation eval = {.batch = batch};
	CsRuleValues *out = palloc0(sizeof(CsRuleValues));
	CsNames *names = read_names();
	CsFailure *failures = palloc0(sizeof(CsFailure) * (nrules + 1));
	List *used = NIL;
	int cells;

	out->ids = cs_text_strings(batch->ids, &out->ncustomers);
	cells = out->ncustomers * nrules;
	out->nrules = nrules;
	qsort(out->ids, out->ncustomers, sizeof(char *), pg_qsort_strcmp);
	out->present = palloc0(out->ncustomers + 1);
	out->values = palloc0(sizeof(Datum) * (cells + 1));
	out->isnull = palloc(cells + 1);
	memset(out->isnull, true, cells + 1);
	out->failed = palloc0(cells + 1);
	if (cells == 0)
		return out;

	cs_begin_rule_texts();
	eval.out = out;
	eval.rules = palloc0(sizeof(Compiled) * nrules);
	for (int i = 0; i < nrules; i++)
	{
		rules[i].failed = false;
		eval.rules[i].rule = &rules[i];
		eval.rules[i].example = -1;
	}
	compile_all(&eval, nrules, names);
	for (int i = 0; i < nrules; i++)
	{
		ListCell *lc;

		foreach (lc, eval.rules[i].names)
			if (eval.rules[i].expression != NULL && !contains(used, lfirst(lc)))
				used = lappend(used, lfirst(lc));
	}
	cs_register("state", project_state(batch, used, names, NULL));
	evaluate_all(&eval, nrules);
	cs_unregister("state");

	for (int i = 0; i < nrules; i++)
	{
		failures[i].table_name = rules[i].table_name;
		failures[i].key = rules[i].key;
		failures[i].customers = eval.rules[i].customers;
		if (eval.rules[i].customers > 0)
		{
			failures[i].example = out->ids[eval.rules[i].example];
			failures[i].sqlstate = eval.rules[i].sqlstate;
			failures[i].error = eval.rules[i].error;
		}
	}
	cs_note_failures(batch, failures, nrules);
	return out;
}

/*
 * cs_eval_rules: see decide.h.  A row holds at most 1,600 columns: more rules
 * than that take cs_rule_values.
 */
CsResult *
cs_eval_rules(const CsBatch *batch, CsRule *rules, int nrules)
{
	CsRuleValues *values = cs_rule_values(batch, rules, nrules);
	CsResult *result = palloc0(sizeof(CsResult));
	Datum *row = palloc(sizeof(Datum) * (nrules + 1));
	bool *isnull = palloc(nrules + 1);

	result->desc = CreateTemplateTupleDesc(nrules + 1);
	TupleDescInitEntry(result->desc, 1, "customer_id", TEXTOID, -1, 0);
	TupleDescInitEntryCollation(result->desc, 1, C_COLLATION_OID);
	for (int i = 0; i < nrules; i++)
		TupleDescInitEntry(result->desc, i + 2, psprintf("r%d", i + 1), rules[i].type, -1, 0);
	result->store = tuplestore_begin_heap(true, false, CS_RESULT_MEM);
	for (int c = 0; c < values->ncustomers; c++)
	{
		if (!values->present[c])
			continue;
		row[0] = CStringGetTextDatum(values->ids[c]);
		isnull[0] = false;
		for (int i = 0; i < nrules; i++)
		{
			row[i + 1] = values->values[CS_CELL(values, c, i)];
			isnull[i + 1] = values->isnull[CS_CELL(values, c, i)];
		}
		tuplestore_putvalues(result->store, result->desc, row, isnull);
		result->nrows++;
	}
	return result;
}

/*
 * given_state: the relation "state" of one customer of whom only `given` is
 * known, with columns of the types that rules always see.
 */
static CsResult *
given_state(List *used, CsNames *names, Jsonb *given)
{
	TupleDesc desc = project_state(NULL, used, names, NULL)->desc;
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);
		char *name = quote_literal_cstr(NameStr(column->attname));

		appendStringInfoString(&sql, i ? ", " : "SELECT ");
		if (column->atttypid == FLOAT8OID)
			appendStringInfo(&sql,
							 "CASE jsonb_typeof($1->%s) WHEN 'boolean' THEN "
							 "($1->%s)::boolean::int::float8 ELSE ($1->>%s)::float8 END",
							 name, name, name);
		else
			appendStringInfo(&sql, "($1->>%s)::%s", name, format_type_be(column->atttypid));
		appendStringInfo(&sql, " AS %s", quote_identifier(NameStr(column->attname)));
	}
	return cs_query(sql.data, CS_ARGS(cs_datum(JSONBOID, JsonbPGetDatum(given), false)));
}

/*
 * cs_first_rule_of: see decide.h.
 */
int
cs_first_rule_of(CsRule *rules, int nrules, Jsonb *given)
{
	CsNames *names = read_names();
	int first = -1;

	for (int i = 0; i < nrules && first < 0; i++)
	{
		Compiled compiled = {.rule = &rules[i]};
		CsUserQuery query = {0};
		CsResult *result;
		TupleTableSlot *slot;
		bool isnull;

		compile(&compiled, names, psprintf("%s \"%s\"", rules[i].table_name, rules[i].key));
		cs_register("state", given_state(compiled.names, names, given));
		query.sql = psprintf("SELECT (%s\n)::pg_catalog.bool FROM state", compiled.expression);
		query.search_path = rules[i].search_path;
		query.as_of = cs_now();
		query.as_of_day = cs_local_day(query.as_of, cs_policy(false)->time_zone);
		result = cs_user_query(&query, NULL);
		cs_unregister("state");

		slot = MakeSingleTupleTableSlot(result->desc, &TTSOpsMinimalTuple);
		if (tuplestore_gettupleslot(result->store, true, false, slot) &&
			DatumGetBool(slot_getattr(slot, 1, &isnull)) && !isnull)
			first = i;
		ExecDropSingleTupleTableSlot(slot);
		tuplestore_end(result->store);
	}
	return first;
}
