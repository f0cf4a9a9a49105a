/*
 * expression.c
 *		Looking into the SQL of definitions before it is analysed: that it is
 *		one expression and nothing else, which names it uses, and the few calls
 *		whose result is prepared beforehand (mrr_ago, ago).
 *
 * An expression reaches a query as "(expression\n)".  It is parsed alone here
 * first, in the same wrapping, so that no text can close the parenthesis.
 */
#include "cs_ext.h"

#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"
#include "parser/parser.h"
#include "utils/memutils.h"

#include "core/core.h"

/* "SELECT (" stands before the expression in the text that is parsed. */
#define PREFIX "SELECT ("
#define PREFIX_LEN 8

/*
 * parse_expression: the raw tree of one expression; errors name `what`.
 */
static Node *
parse_expression(const char *expression, const char *what)
{
	MemoryContext context = CurrentMemoryContext;
	List *volatile parsed = NIL;
	List *volatile alone = NIL;
	SelectStmt *stmt;
	ErrorData *volatile edata = NULL;

	PG_TRY();
	{
		/* Without the parentheses too: "a) OR (b" and "a, b" are no expressions. */
		alone = raw_parser(psprintf("SELECT %s\n", expression), RAW_PARSE_DEFAULT);
		parsed = raw_parser(psprintf(PREFIX "%s\n)", expression), RAW_PARSE_DEFAULT);
	}
	PG_CATCH();
	{
		/* The scanner only allocates memory, so there is nothing to roll back. */
		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();

	if (edata != NULL)
		ereport(ERROR, errcode(edata->sqlerrcode), errmsg("%s: %s", what, edata->message),
				errdetail("The expression is: %s", expression),
				errhint("Write one SQL expression, as after SELECT, without the SELECT."));

	stmt = list_length(parsed) == 1 ? (SelectStmt *) linitial_node(RawStmt, parsed)->stmt : NULL;
	if (list_length(alone) != 1 || stmt == NULL || !IsA(stmt, SelectStmt) ||
		list_length(((SelectStmt *) linitial_node(RawStmt, alone)->stmt)->targetList) != 1 ||
		stmt->op != SETOP_NONE || list_length(stmt->targetList) != 1 || stmt->fromClause != NIL ||
		stmt->whereClause != NULL || stmt->groupClause != NIL || stmt->havingClause != NULL ||
		stmt->windowClause != NIL || stmt->valuesLists != NIL || stmt->sortClause != NIL ||
		stmt->limitCount != NULL || stmt->limitOffset != NULL || stmt->lockingClause != NIL ||
		stmt->withClause != NULL || stmt->intoClause != NULL || stmt->distinctClause != NIL ||
		linitial_node(ResTarget, stmt->targetList)->name != NULL)
		ereport(ERROR, errcode(ERRCODE_SYNTAX_ERROR), errmsg("%s: not one SQL expression", what),
				errdetail("The expression is: %s", expression),
				errhint("Write one SQL expression, as after SELECT, without the SELECT."));
	return linitial_node(ResTarget, stmt->targetList)->val;
}

static bool
collect_names(Node *node, void *context)
{
	List **names = context;

	if (node == NULL)
		return false;
	if (IsA(node, ColumnRef))
	{
		ColumnRef *ref = (ColumnRef *) node;

		if (IsA(linitial(ref->fields), String))
		{
			char *name = strVal(linitial(ref->fields));
			ListCell *lc;

			if (list_length(ref->fields) > 1)
				return false;
			foreach (lc, *names)
				if (strcmp(lfirst(lc), name) == 0)
					return false;
			*names = lappend(*names, name);
		}
		return false;
	}
	return raw_expression_tree_walker(node, collect_names, context);
}

/*
 * cs_expression_names: see cs_ext.h.
 */
List *
cs_expression_names(const char *expression, const char *what)
{
	List *names = NIL;

	(void) collect_names(parse_expression(expression, what), &names);
	return names;
}

/* ---- calls with constants ---------------------------------------------- */

typedef struct Call
{
	int start;       /* byte offset of the function's name in the expression */
	int end;         /* just behind its closing parenthesis */
	List *constants; /* as text */
} Call;

typedef struct FindCalls
{
	const char *expression;
	const char *func;
	const char *what;
	List *calls;
} FindCalls;

/*
 * constant_text: the text of a constant (a sign is part of it), NULL otherwise.
 */
static char *
constant_text(Node *node, int *location)
{
	if (node != NULL && IsA(node, A_Const) && !((A_Const *) node)->isnull)
	{
		A_Const *con = (A_Const *) node;

		*location = con->location;
		switch (nodeTag(&con->val))
		{
			case T_Integer:
				return psprintf("%d", intVal(&con->val));
			case T_String:
				return pstrdup(strVal(&con->val));
			default:
				return NULL;
		}
	}
	return NULL;
}

static bool
find_calls(Node *node, void *context)
{
	FindCalls *find = context;

	if (node == NULL)
		return false;
	if (IsA(node, FuncCall))
	{
		FuncCall *func = (FuncCall *) node;

		if (list_length(func->funcname) == 1 &&
			strcmp(strVal(linitial(func->funcname)), find->func) == 0)
		{
			Call *call = palloc0(sizeof(Call));
			int last = func->location;
			const char *p;
			ListCell *lc;

			foreach (lc, func->args)
			{
				char *text = constant_text(lfirst(lc), &last);

				if (text == NULL)
					ereport(
						ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%s: the arguments of %s() must be constants", find->what,
							   find->func),
						errhint("Write them as literals, such as mrr_ago(90) or ago('mrr', 30)."));
				call->constants = lappend(call->constants, text);
			}

			/* Behind the last constant come only blanks and the parenthesis, or it is refused. */
			call->start = func->location - PREFIX_LEN;
			p = find->expression + last - PREFIX_LEN;
			if (func->args == NIL)
				p = strchr(p, '(') ? strchr(p, '(') + 1 : p;
			else if (*p == '\'')
			{
				for (p++; *p != '\0'; p++)
				{
					if (p[0] == '\'' && p[1] == '\'')
						p++;
					else if (*p == '\'')
						break;
				}
				if (*p == '\'')
					p++;
			}
			else
				while (*p >= '0' && *p <= '9')
					p++;
			while (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')
				p++;
			if (*p != ')')
				ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%s: the arguments of %s() must be plain constants", find->what,
							   find->func),
						errhint("Write them as literals, such as mrr_ago(90) or ago('mrr', 30)."));
			call->end = p + 1 - find->expression;
			find->calls = lappend(find->calls, call);
			return false;
		}
	}
	return raw_expression_tree_walker(node, find_calls, context);
}

static int
by_start(const ListCell *a, const ListCell *b)
{
	return ((Call *) lfirst(a))->start - ((Call *) lfirst(b))->start;
}

/*
 * cs_replace_calls: see cs_ext.h.
 */
char *
cs_replace_calls(const char *expression, const char *func, CsCallName name_of, void *arg,
				 const char *what)
{
	FindCalls find = {expression, func, what, NIL};
	StringInfoData out;
	int done = 0;
	ListCell *lc;

	(void) find_calls(parse_expression(expression, what), &find);
	list_sort(find.calls, by_start);
	initStringInfo(&out);
	foreach (lc, find.calls)
	{
		Call *call = lfirst(lc);

		appendBinaryStringInfo(&out, expression + done, call->start - done);
		appendStringInfoString(&out, name_of(func, call->constants, arg));
		done = call->end;
	}
	appendStringInfoString(&out, expression + done);
	return out.data;
}
