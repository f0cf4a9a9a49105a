/*
 * metric_check.c
 *		What is wrong with a metric's expression, said when it is written.
 *
 * The expression is analysed, never run, as policy.run_as over what it will
 * read: the registered sources, or an empty relation with the columns of the
 * kind where none is registered yet.
 */
#include "cs_ext.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_type.h"
#include "parser/parser.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "facts/source.h"
#include "facts/source_kind.h"
#include "insight/metric.h"

PG_FUNCTION_INFO_V1(cs_analyse_metric);
PG_FUNCTION_INFO_V1(cs_expression_names_sql);

/*
 * cs_kind_columns_list: the canonical columns of a kind but the customer's, for
 * a select list.
 */
char *
cs_kind_columns_list(const char *kind_name, const char *alias)
{
	const CsKind *kind = cs_kind(kind_name);
	StringInfoData list;

	initStringInfo(&list);
	for (const CsKindColumn *c = kind->columns; c->name != NULL; c++)
		if (strcmp(c->name, "customer_id") != 0)
			appendStringInfo(&list, "%s%s.%s", list.len ? ", " : "", alias,
							 quote_identifier(c->name));
	return list.data;
}

static CsResult *
empty_relation(int ncols)
{
	CsResult *rows = palloc0(sizeof(CsResult));

	rows->desc = CreateTemplateTupleDesc(ncols);
	rows->store = tuplestore_begin_heap(true, false, CS_RESULT_MEM);
	return rows;
}

/*
 * register_kind: an empty relation with a kind's columns, where no source of it
 * is registered.
 */
static void
register_kind(const CsKind *kind)
{
	CsResult *rows;
	int n = 0;
	int i = 1;

	for (const CsKindColumn *c = kind->columns; c->name != NULL; c++)
		n++;
	rows = empty_relation(n + 1);
	TupleDescInitEntry(rows->desc, 1, "customer_key", TEXTOID, -1, 0);
	for (const CsKindColumn *c = kind->columns; c->name != NULL; c++)
	{
		Oid type;
		int32 typmod;

		parseTypeString(cs_column_type_name(c->type), &type, &typmod, false);
		TupleDescInitEntry(rows->desc, ++i, c->name, type, typmod, 0);
	}
	cs_register(kind->name, rows);
}

/*
 * register_ledger: the columns that expressions over the ledger see.
 */
static void
register_ledger(List *ago_days)
{
	CsResult *rows = empty_relation(5 + list_length(ago_days));
	ListCell *lc;
	int i = 5;

	TupleDescInitEntry(rows->desc, 1, "customer_id", TEXTOID, -1, 0);
	TupleDescInitEntry(rows->desc, 2, "mrr", NUMERICOID, -1, 0);
	TupleDescInitEntry(rows->desc, 3, "tenure_days", INT4OID, -1, 0);
	TupleDescInitEntry(rows->desc, 4, "days_to_renewal", INT4OID, -1, 0);
	TupleDescInitEntry(rows->desc, 5, "seats", NUMERICOID, -1, 0);
	foreach (lc, ago_days)
		TupleDescInitEntry(rows->desc, ++i, psprintf("mrr_ago_%d", lfirst_int(lc)), NUMERICOID, -1,
						   0);
	cs_register("ledger", rows);
}

static void
register_usage(void)
{
	CsResult *rows = empty_relation(2);
	Oid type;
	int32 typmod;

	parseTypeString("cs.usage", &type, &typmod, false);
	TupleDescInitEntry(rows->desc, 1, "customer_id", TEXTOID, -1, 0);
	TupleDescInitEntry(rows->desc, 2, "usage", type, -1, 0);
	cs_register("usage_state", rows);
}

static void
register_formula(const char *name)
{
	List *others = NIL;
	CsResult *rows;
	ListCell *lc;
	int i = 1;

	foreach (lc, cs_metric_names())
		if (strcmp(lfirst(lc), name) != 0)
			others = lappend(others, lfirst(lc));
	rows = empty_relation(1 + list_length(others));
	TupleDescInitEntry(rows->desc, 1, "customer_id", TEXTOID, -1, 0);
	foreach (lc, others)
		TupleDescInitEntry(rows->desc, ++i, lfirst(lc), FLOAT8OID, -1, 0);
	cs_register("metrics", rows);
}

/* ---- formulas ---------------------------------------------------------- */

/*
 * find_cycle: the path from `name` back to `target`, as "a -> b -> a", or NULL.
 */
static char *
find_cycle(const char *name, const char *expression, const char *target, const char *path,
		   List *seen)
{
	ListCell *lc;

	foreach (lc, cs_expression_names(expression, psprintf("metric \"%s\"", name)))
	{
		char *next = lfirst(lc);
		char *here = psprintf("%s -> %s", path, next);
		char *found;
		char *next_expression;
		ListCell *s;
		bool known = false;

		if (strcmp(next, target) == 0)
			return here;
		foreach (s, seen)
			known |= strcmp(lfirst(s), next) == 0;
		if (known ||
			cs_exec("SELECT expression FROM cs.metric WHERE name = $1 AND source = 'formula'",
					CS_ARGS(cs_text(next))) == 0)
			continue;
		next_expression = cs_value();
		found = find_cycle(next, next_expression, target, here, lappend(list_copy(seen), next));
		if (found != NULL)
			return found;
	}
	return NULL;
}

/*
 * check_formula: every name is a metric; no metric is made of itself.
 */
static void
check_formula(const char *name, const char *expression)
{
	List *metrics = cs_metric_names();
	ListCell *lc;
	char *cycle;

	foreach (lc, cs_expression_names(expression, psprintf("metric \"%s\"", name)))
	{
		char *used = lfirst(lc);
		bool known =
			strcmp(used, name) == 0 || strcmp(used, "as_of") == 0 || strcmp(used, "as_of_day") == 0;
		ListCell *m;

		foreach (m, metrics)
			known |= strcmp(lfirst(m), used) == 0;
		if (!known)
			ereport(ERROR, errcode(ERRCODE_UNDEFINED_COLUMN),
					errmsg("metric \"%s\": there is no metric \"%s\"", name, used),
					errdetail("A formula is made of other metrics."),
					cs_errhint_nearest(used, metrics));
	}
	cycle = find_cycle(name, expression, name, name, list_make1(pstrdup(name)));
	if (cycle != NULL)
		ereport(ERROR, errcode(ERRCODE_INVALID_RECURSION),
				errmsg("metric \"%s\" is made of itself", name),
				errdetail("The way round is: %s.", cycle),
				errhint("Take one of these out of the other's expression."));
}

/* ---- windows ----------------------------------------------------------- */

/* Accessors of usage by the place of their days argument, from 0. */
static const struct
{
	const char *func;
	int days;
} windows[] = {
	{"events", 2},      {"quantity", 2},        {"active_users", 1},
	{"active_days", 1}, {"distinct_events", 1}, {"stickiness", 1},
};

static bool
is_constant(Node *node)
{
	return IsA(node, A_Const) ||
		   (IsA(node, NamedArgExpr) && IsA(((NamedArgExpr *) node)->arg, A_Const));
}

static bool
check_windows(Node *node, void *context)
{
	const char *name = context;

	if (node == NULL)
		return false;
	if (IsA(node, FuncCall))
	{
		FuncCall *func = (FuncCall *) node;
		char *called = strVal(llast(func->funcname));

		for (int i = 0; i < lengthof(windows); i++)
			if (strcmp(called, windows[i].func) == 0)
				for (int a = windows[i].days; a < list_length(func->args); a++)
					if ((a == windows[i].days || IsA(list_nth(func->args, a), NamedArgExpr)) &&
						!is_constant(list_nth(func->args, a)))
						ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
								errmsg("metric \"%s\": the window of %s() must be a constant", name,
									   called),
								errhint("Write the days as a number from 1 to 400."));
	}
	return raw_expression_tree_walker(node, check_windows, context);
}

/* ---- the check --------------------------------------------------------- */

/*
 * analyse: raises what is wrong with one SELECT of the expression.
 */
static void
analyse(const char *name, const char *expression, CsUserQuery *query, const char *from,
		bool grouped)
{
	ErrorData *error = NULL;
	TupleDesc desc;
	Oid type;
	char category;
	bool preferred;

	query->sql = psprintf("SELECT (%s\n) FROM %s%s", expression, from,
						  grouped ? " GROUP BY customer_key" : "");
	desc = cs_user_check(query, &error);
	if (desc == NULL)
		ereport(ERROR, errcode(error->sqlerrcode),
				errmsg("metric \"%s\": %s", name, error->message),
				error->detail ? errdetail("%s", error->detail) : 0,
				error->hint ? errhint("%s", error->hint)
				: error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE
					? errhint("Metrics run as role %s: GRANT it what the expression needs.",
							  cs_policy(false)->run_as)
				: error->sqlerrcode == ERRCODE_GROUPING_ERROR
					? errhint("Over facts the expression must be an aggregate, such as "
							  "count(*) FILTER (WHERE ...).")
					: 0);
	type = TupleDescAttr(desc, 0)->atttypid;
	get_type_category_preferred(getBaseType(type), &category, &preferred);
	if (category != TYPCATEGORY_NUMERIC && category != TYPCATEGORY_BOOLEAN)
		ereport(ERROR, errcode(ERRCODE_DATATYPE_MISMATCH),
				errmsg("metric \"%s\" gives %s, not a number", name, format_type_be(type)),
				category == TYPCATEGORY_TIMESPAN
					? errhint("For days write extract(epoch FROM ...) / 86400.")
				: category == TYPCATEGORY_DATETIME
					? errhint("For an age in days write as_of_day - (...)::date.")
					: errhint("The result must be a number or a boolean."));
}

/*
 * cs_analyse_metric(name, source, expression, search_path)
 */
Datum
cs_analyse_metric(PG_FUNCTION_ARGS)
{
	char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char *word = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char *expression = text_to_cstring(PG_GETARG_TEXT_PP(2));
	char *path = PG_ARGISNULL(3) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(3));
	char *what = psprintf("metric \"%s\"", name);
	CsMetric metric = {0};
	CsUserQuery query = {0};
	CsFrame frame;
	List *days = NIL;
	List *sources;
	ListCell *lc;

	cs_enter(&frame);
	(void) cs_expression_names(expression, what);
	query.search_path = path;
	metric.name = name;
	metric.source = word;
	metric.expression = expression;

	if (strcmp(word, "usage") == 0)
	{
		List *raw = raw_parser(psprintf("SELECT (%s\n)", expression), RAW_PARSE_DEFAULT);

		(void) check_windows(linitial_node(RawStmt, raw)->stmt, name);
		register_usage();
		analyse(name, expression, &query, "usage_state", false);
	}
	else if (strcmp(word, "ledger") == 0)
	{
		(void) cs_metric_item(&metric, &days);
		register_ledger(days);
		query.sql = NULL;
		expression = cs_metric_item(&metric, &days);
		analyse(name, expression, &query, "ledger", false);
	}
	else if (strcmp(word, "formula") == 0)
	{
		check_formula(name, expression);
		register_formula(name);
		analyse(name, expression, &query, "metrics", false);
	}
	else if ((sources = cs_metric_sources(word)) != NIL)
	{
		foreach (lc, sources)
		{
			CsSource *source = lfirst(lc);

			if (!OidIsValid(source->relid))
				continue;
			cs_source_keys(source, PointerGetDatum(construct_empty_array(TEXTOID)), &query);
			query.search_path = path;
			analyse(
				name, expression, &query,
				psprintf("(%s) AS %s", cs_source_rows(source, true, true), quote_identifier(word)),
				true);
		}
	}
	else if (cs_kind(word) != NULL && strcmp(word, "other") != 0)
	{
		register_kind(cs_kind(word));
		analyse(name, expression, &query, quote_identifier(word), true);
	}
	else
	{
		List *words = list_concat(list_make3("usage", "ledger", "formula"), cs_kind_names());

		foreach (lc, cs_sources("other"))
			words = lappend(words, ((CsSource *) lfirst(lc))->name);
		ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT),
				errmsg("metric \"%s\": there is no source \"%s\"", name, word),
				cs_nearest(word, words) != NULL
					? errhint("Did you mean \"%s\"?", cs_nearest(word, words))
					: errhint("Use usage, ledger, formula, a kind of fact, or the name of a source "
							  "of kind other."));
	}
	cs_leave(&frame);
	PG_RETURN_VOID();
}

Datum
cs_expression_names_sql(PG_FUNCTION_ARGS)
{
	List *names = cs_expression_names(text_to_cstring(PG_GETARG_TEXT_PP(0)), "expression");
	Datum *elems = palloc(sizeof(Datum) * (list_length(names) + 1));
	int n = 0;
	ListCell *lc;

	foreach (lc, names)
		elems[n++] = CStringGetTextDatum(lfirst(lc));
	PG_RETURN_ARRAYTYPE_P(construct_array(elems, n, TEXTOID, -1, false, TYPALIGN_INT));
}
