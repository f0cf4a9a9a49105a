/*
 * usage_window.c
 *		Which months of usage the metrics look at.
 *
 * In: the expressions of enabled metrics over usage.  Out: how many days back
 * from D they see, so that evaluate opens no other months.  Windows are constants
 * (SURFACE 3), so the raw parse tree says it; where usage is used in another
 * way than by an accessor with constants, all months are needed.
 */
#include "cs_ext.h"

#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"

#include "facts/usage.h"

/* Where an accessor has its arguments; -1: it has none of the kind. */
static const struct
{
	const char *name;
	int event;
	int days;
	int ago;
} accessors[] = {
	{"events", 1, 2, 3},       {"quantity", 1, 2, 3},         {"active_users", 2, 1, 3},
	{"active_days", -1, 1, 2}, {"distinct_events", -1, 1, 2}, {"stickiness", -1, 1, 2},
	{"days_since", 1, -1, 2},
};

/* The argument of a call at a place or by its name, NULL: not given. */
static Node *
argument(const FuncCall *call, int place, const char *name)
{
	ListCell *lc;

	foreach (lc, call->args)
	{
		Node *arg = lfirst(lc);

		if (IsA(arg, NamedArgExpr))
		{
			if (strcmp(((NamedArgExpr *) arg)->name, name) == 0)
				return (Node *) ((NamedArgExpr *) arg)->arg;
		}
		else if (foreach_current_index(lc) == place)
			return arg;
	}
	return NULL;
}

/* An integer constant; false: something else. */
static bool
constant(Node *arg, int *value)
{
	if (arg == NULL || !IsA(arg, A_Const) || ((A_Const *) arg)->isnull ||
		!IsA(&((A_Const *) arg)->val, Integer))
		return false;
	*value = intVal(&((A_Const *) arg)->val);
	return *value >= 0 && *value <= 400;
}

static bool
is_usage(Node *node)
{
	ColumnRef *ref = (ColumnRef *) node;

	return node != NULL && IsA(node, ColumnRef) && list_length(ref->fields) == 1 &&
		   IsA(linitial(ref->fields), String) &&
		   strcmp(strVal(linitial(ref->fields)), "usage") == 0;
}

/* Adds what a call of an accessor needs; false: that cannot be told. */
static bool
add_call(const FuncCall *call, int i, CsUsageNeed *need)
{
	Node *ago_arg = argument(call, accessors[i].ago, "ago");
	int days = 0;
	int ago = 0;

	if (ago_arg != NULL && !constant(ago_arg, &ago))
		return false;
	if (accessors[i].days < 0)
	{
		Node *event = argument(call, accessors[i].event, "event");

		/* of one event the last day may be in any month */
		if (event == NULL || !IsA(event, A_Const) || !((A_Const *) event)->isnull)
			return false;
		need->last = true;
		need->last_ago = Max(need->last_ago, ago);
		return true;
	}
	if (!constant(argument(call, accessors[i].days, "days"), &days))
		return false;
	need->days = Max(need->days, days + ago);
	return true;
}

static bool
walk(Node *node, void *context)
{
	CsUsageNeed *need = context;

	if (node == NULL)
		return false;
	if (IsA(node, FuncCall))
	{
		FuncCall *call = (FuncCall *) node;
		const char *name = strVal(llast(call->funcname));
		bool ours = list_length(call->funcname) == 1 ||
					(list_length(call->funcname) == 2 &&
					 strcmp(strVal(linitial(call->funcname)), "cs") == 0);

		/* without a schema it is ours: cs comes before the definition's own path */
		for (int i = 0; ours && i < lengthof(accessors); i++)
		{
			if (strcmp(name, accessors[i].name) != 0 || call->args == NIL ||
				!is_usage(linitial(call->args)))
				continue;
			if (!add_call(call, i, need))
				need->all = true;
			return false;
		}
	}
	else if (IsA(node, ColumnRef))
	{
		/* the value itself, or * */
		ColumnRef *ref = (ColumnRef *) node;
		Node *last = llast(ref->fields);

		if (IsA(last, A_Star) || strcmp(strVal(last), "usage") == 0 ||
			strcmp(strVal(linitial(ref->fields)), "usage") == 0)
			need->all = true;
		return false;
	}
	return raw_expression_tree_walker(node, walk, context);
}

/*
 * cs_usage_need: see usage.h.
 */
CsUsageNeed
cs_usage_need(void)
{
	CsUsageNeed need = {0};
	uint64 n =
		cs_exec("SELECT expression FROM cs.metric WHERE source = 'usage' AND enabled", CS_NO_ARGS);
	char **expressions = palloc(sizeof(char *) * (n + 1));

	for (uint64 i = 0; i < n; i++)
		expressions[i] = cs_cell(i, 1);
	for (uint64 i = 0; i < n && !need.all; i++)
	{
		List *tree = raw_parser(psprintf("SELECT %s\n", expressions[i]), RAW_PARSE_DEFAULT);

		(void) walk((Node *) linitial_node(RawStmt, tree)->stmt, &need);
	}
	return need;
}
