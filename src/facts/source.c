/*
 * source.c
 *		Registered sources: loading them, understanding their expressions, and
 *		the keys that go into a query over them.
 *
 * In: rows of cs.source (what the user mapped) and cs_internal.source_state
 * (the types found when the expressions were last analysed).  Out: CsSource,
 * and CsUserQuery keys in the key column's own type.  The SELECT itself is
 * made in source_rows.c, definitions are written in source_define.c.
 *
 * A key is native when the mapping is a bare column of one of a few types:
 * then it is joined, grouped and filtered in the column's own type and
 * collation, because casting the column to text would lose every index on it.
 */
#include "cs_ext.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "datatype/timestamp.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/uuid.h"
#include "utils/varlena.h"

#include "core/hold.h"
#include "facts/source_kind.h"

static List *columns_from_json(const char *name, const char *json);
static Oid relation_oid(const char *relation);
static void take_types(CsSource *source, const char *types_json);

/*
 * cs_native_key_type: types whose values are compared natively.  Their text
 * form and the outside id convert into each other without loss.
 */
bool
cs_native_key_type(Oid type)
{
	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case UUIDOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case NUMERICOID:
			return true;
		default:
			return false;
	}
}

/*
 * is_list: (a, b), which our own parentheses make of "a, b".
 */
static bool
is_list(Node *value)
{
	return value != NULL && IsA(value, RowExpr) &&
		   ((RowExpr *) value)->row_format == COERCE_IMPLICIT_CAST;
}

/*
 * cs_expression_column: the name of the column when the expression is nothing
 * but a column, else NULL.  Raw parse only.  Raises 42601 naming `what` when
 * the text is not exactly one expression: what follows a closed parenthesis
 * could otherwise add to the query around it.
 */
char *
cs_expression_column(const char *expression, const char *what, int *offset)
{
	MemoryContext context = CurrentMemoryContext;
	char *sql = psprintf("SELECT (%s\n)", expression);
	List *volatile tree = NIL;
	SelectStmt *select;
	ResTarget *target;
	ColumnRef *ref;

	if (offset != NULL)
		*offset = strlen("SELECT (");
	PG_TRY();
	{
		tree = raw_parser(sql, RAW_PARSE_DEFAULT);
	}
	PG_CATCH();
	{
		ErrorData *edata;
		int position;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		FlushErrorState();
		position = edata->cursorpos - (int) strlen("SELECT (");
		ereport(ERROR, errcode(edata->sqlerrcode), errmsg("%s: %s", what, edata->message),
				errdetail("The expression is: %s", expression),
				position > 0 ? internalerrposition(position) : 0,
				position > 0 ? internalerrquery(expression) : 0,
				errhint("Give one SQL expression over the columns of the relation."));
	}
	PG_END_TRY();

	select = list_length(tree) == 1 ? (SelectStmt *) linitial_node(RawStmt, tree)->stmt : NULL;
	if (select == NULL || !IsA(select, SelectStmt) || select->op != SETOP_NONE ||
		select->fromClause != NIL || select->whereClause != NULL || select->groupClause != NIL ||
		select->havingClause != NULL || select->sortClause != NIL || select->limitCount != NULL ||
		select->limitOffset != NULL || select->lockingClause != NIL || select->valuesLists != NIL ||
		select->intoClause != NULL || select->distinctClause != NIL ||
		select->windowClause != NIL || list_length(select->targetList) != 1 ||
		is_list(linitial_node(ResTarget, select->targetList)->val))
		ereport(ERROR, errcode(ERRCODE_SYNTAX_ERROR), errmsg("%s is not one expression", what),
				errdetail("The expression is: %s", expression),
				errhint("Give one SQL expression over the columns of the relation."));

	target = linitial_node(ResTarget, select->targetList);
	if (target->name != NULL)
		ereport(ERROR, errcode(ERRCODE_SYNTAX_ERROR), errmsg("%s is not one expression", what),
				errdetail("The expression is: %s", expression),
				errhint("Leave out AS and the name."));
	if (target->val == NULL || !IsA(target->val, ColumnRef))
		return NULL;
	ref = (ColumnRef *) target->val;
	if (!IsA(llast(ref->fields), String))
		return NULL; /* a star */
	return pstrdup(strVal(llast(ref->fields)));
}

/*
 * relation_oid: of a qualified, quoted name; InvalidOid when it is gone.
 */
static Oid
relation_oid(const char *relation)
{
	List *names = textToQualifiedNameList(cstring_to_text(relation));

	return RangeVarGetRelid(makeRangeVarFromNameList(names), NoLock, true);
}

/*
 * columns_from_json: the pairs of cs.source.columns as a list of CsMapped in
 * the order of jsonb.  Raises 22023 when it is no object of texts.
 */
static List *
columns_from_json(const char *name, const char *json)
{
	Jsonb *jb = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json)));
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue v;
	List *result = NIL;
	CsMapped *column = NULL;

	if (!JB_ROOT_IS_OBJECT(jb))
		ereport(
			ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("columns of source \"%s\" must be a JSON object", name),
			errhint("For example '{\"customer_id\": \"account_id\", \"at\": \"created_at\"}'."));
	it = JsonbIteratorInit(&jb->root);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			column = palloc0(sizeof(CsMapped));
			column->name = pnstrdup(v.val.string.val, v.val.string.len);
		}
		else if (token == WJB_VALUE)
		{
			if (v.type == jbvString)
				column->expr = pnstrdup(v.val.string.val, v.val.string.len);
			if (column->expr == NULL || strspn(column->expr, " \t\r\n") == strlen(column->expr))
				ereport(
					ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("column \"%s\" of source \"%s\" must be a text with an SQL expression",
						   column->name, name),
					errhint(
						"Write numbers and constants as text too, e.g. \"mrr\": \"99.00\"; leave "
						"out what the relation does not have."));
			result = lappend(result, column);
		}
	}
	return result;
}

/*
 * in_kind_order: canonical columns as the kind lists them, then the rest by name.
 */
static List *
in_kind_order(List *columns, const CsKind *kind)
{
	List *result = NIL;
	ListCell *lc;

	for (const CsKindColumn *c = kind->columns; c->name != NULL; c++)
	{
		foreach (lc, columns)
		{
			CsMapped *m = lfirst(lc);

			if (strcmp(m->name, c->name) == 0)
			{
				m->canon = c;
				result = lappend(result, m);
			}
		}
	}
	foreach (lc, columns)
	{
		CsMapped *m = lfirst(lc);

		if (m->canon == NULL)
			result = lappend(result, m);
	}
	return result;
}

/*
 * take_types: what the last analysis found, {"column": type oid}.
 */
static void
take_types(CsSource *source, const char *types_json)
{
	Jsonb *jb = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(types_json)));
	ListCell *lc;

	foreach (lc, CS_MAPPING(source)->columns)
	{
		CsMapped *m = lfirst(lc);
		JsonbValue v;

		if (m->attnum > 0)
			continue; /* known from the catalog */
		if (getKeyJsonValueFromContainer(&jb->root, m->name, strlen(m->name), &v) != NULL &&
			v.type == jbvNumeric)
			m->type =
				DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(v.val.numeric)));
	}
}

/*
 * cs_source_resolve: everything that follows from the types of the columns.
 */
void
cs_source_resolve(CsSource *source)
{
	CsMapping *mapping = CS_MAPPING(source);
	CsMapped *key = mapping->key;
	Oid base = key && OidIsValid(key->type) ? getBaseType(key->type) : InvalidOid;

	mapping->native = key && key->attnum > 0 && cs_native_key_type(base);
	mapping->key_native = mapping->native ? base : TEXTOID;
	source->key_type = mapping->key_native;
	if (source->by_user)
		source->key_type = list_length(mapping->users) == 1
							   ? ((CsSource *) linitial(mapping->users))->key_type
							   : TEXTOID;
}

/*
 * cs_source_make: a source from its definition.  Types of bare columns come
 * from the catalog; of expressions from a later analysis.  Column names are
 * taken as they are; source_define.c checks them.
 */
CsSource *
cs_source_make(const char *name, const char *kind, const char *relation, const char *columns_json,
			   const char *search_path, bool with_users)
{
	CsSource *source = palloc0(sizeof(CsSource));
	CsMapping *mapping = palloc0(sizeof(CsMapping));
	ListCell *lc;

	source->name = pstrdup(name);
	source->kind = pstrdup(kind);
	source->relation = pstrdup(relation);
	source->relid = relation_oid(relation);
	source->search_path = search_path ? pstrdup(search_path) : NULL;
	source->capture = pstrdup("scan");
	source->sealed = DT_NOBEGIN;
	source->mapping = mapping;
	mapping->kind = cs_kind(kind);
	if (mapping->kind == NULL)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("source \"%s\" has the unknown kind \"%s\"", name, kind),
				cs_errhint_nearest(kind, cs_kind_names()));
	mapping->columns = in_kind_order(columns_from_json(name, columns_json), mapping->kind);

	foreach (lc, mapping->columns)
	{
		CsMapped *m = lfirst(lc);
		char *column = cs_expression_column(
			m->expr, psprintf("column \"%s\" of source \"%s\"", m->name, name), NULL);

		source->columns = lappend(source->columns, m->name);
		if (column != NULL && OidIsValid(source->relid))
		{
			AttrNumber attnum = get_attnum(source->relid, column);

			if (attnum > 0)
			{
				int32 typmod;

				m->attnum = attnum;
				get_atttypetypmodcoll(source->relid, attnum, &m->type, &typmod, &m->collation);
			}
		}
		if (m->canon && (m->canon->flags & CS_COL_ANCHOR))
		{
			/* signed_at before start_at, issued_at before due_at */
			source->anchor = m->name;
		}
	}
	if (source->anchor == NULL && strcmp(kind, "invoice") == 0)
		source->anchor = pstrdup("due_at");

	mapping->key = cs_mapped(source, CS_KEY_COLUMN(mapping->kind));
	if (mapping->key == NULL)
	{
		mapping->key = cs_mapped(source, "user_id");
		source->by_user = mapping->key != NULL && strcmp(kind, "user") != 0;
		if (source->by_user && with_users)
			mapping->users = cs_sources("user");
	}
	cs_source_resolve(source);
	return source;
}

/*
 * cs_mapped: the mapping of a column by its canonical or x_ name, or NULL.
 */
CsMapped *
cs_mapped(const CsSource *source, const char *name)
{
	ListCell *lc;

	foreach (lc, CS_MAPPING(source)->columns)
	{
		CsMapped *m = lfirst(lc);

		if (strcmp(m->name, name) == 0)
			return m;
	}
	return NULL;
}

/*
 * cs_source_analyse: asks the parser, as run_as, for the types of all
 * expressions.  NULL when all is well; else the error, and which column it is
 * about (NULL: the relation as a whole).
 */
ErrorData *
cs_source_analyse(CsSource *source, CsMapped **failed)
{
	CsMapping *mapping = CS_MAPPING(source);
	CsUserQuery query = {0};
	ErrorData *error = NULL;
	StringInfoData sql;
	TupleDesc desc;
	ListCell *lc;

	if (failed != NULL)
		*failed = NULL;
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	foreach (lc, mapping->columns)
	{
		CsMapped *m = lfirst(lc);

		appendStringInfo(&sql, "%s(%s\n) AS %s", foreach_current_index(lc) ? ", " : "", m->expr,
						 quote_identifier(m->name));
	}
	appendStringInfo(&sql, " FROM %s", source->relation);
	query.sql = sql.data;
	query.search_path = source->search_path;
	desc = cs_user_check(&query, &error);
	if (desc != NULL)
	{
		foreach (lc, mapping->columns)
		{
			CsMapped *m = lfirst(lc);
			Form_pg_attribute att = TupleDescAttr(desc, foreach_current_index(lc));

			m->type = att->atttypid;
			m->collation = att->attcollation;
		}
		cs_source_resolve(source);
		return NULL;
	}
	if (failed == NULL)
		return error;

	/* Which one is it?  In WHERE, where aggregates and sets have no place. */
	foreach (lc, mapping->columns)
	{
		CsMapped *m = lfirst(lc);
		ErrorData *own = NULL;

		query.sql = psprintf("SELECT (%s\n) FROM %s", m->expr, source->relation);
		if (cs_user_check(&query, &own) == NULL)
		{
			*failed = m;
			return own;
		}
	}
	return error;
}

static List *read_sources(const char *kind);

/*
 * cs_sources: see source.h.
 */
List *
cs_sources(const char *kind)
{
	static bool reading = false; /* making one of them asks for the users' */
	MemoryContext memory;
	void **held = cs_held(CS_HELD_SOURCES, &memory);
	List *result = NIL;
	ListCell *lc;

	if (held == NULL || reading)
		return read_sources(kind);
	if (*held == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(memory);

		reading = true;
		PG_TRY();
		{
			*held = read_sources(NULL);
		}
		PG_FINALLY();
		{
			reading = false;
		}
		PG_END_TRY();
		MemoryContextSwitchTo(old);
	}
	foreach (lc, (List *) *held)
		if (kind == NULL || strcmp(((CsSource *) lfirst(lc))->kind, kind) == 0)
			result = lappend(result, lfirst(lc));
	return result;
}

/*
 * read_sources: enabled ones of a kind, NULL: of all, by name.
 */
static List *
read_sources(const char *kind)
{
	List *result = NIL;
	uint64 n;
	char ***cells;

	n = cs_exec("SELECT s.name, s.kind, s.relation, s.columns::text, s.search_path, "
				"coalesce(t.capture, 'scan'), t.column_types::text, (extract(epoch FROM "
				"q.before) * 1000000)::bigint::text, s.terms, s.capture "
				"FROM cs.source s LEFT JOIN cs_internal.source_state t ON t.source = s.name "
				"LEFT JOIN cs_internal.seal q ON q.source = s.name "
				"WHERE s.enabled AND ($1 IS NULL OR s.kind = $1) ORDER BY s.name COLLATE \"C\"",
				CS_ARGS(cs_text(kind)));

	/* Copied first: making a source runs SQL of its own. */
	cells = palloc(sizeof(char **) * (n + 1));
	for (uint64 i = 0; i < n; i++)
	{
		cells[i] = palloc(sizeof(char *) * 10);
		for (int c = 0; c < 10; c++)
			cells[i][c] = cs_cell(i, c + 1);
	}
	SPI_freetuptable(SPI_tuptable);

	for (uint64 i = 0; i < n; i++)
	{
		CsSource *source =
			cs_source_make(cells[i][0], cells[i][1], cells[i][2], cells[i][3], cells[i][4], true);

		source->capture = cells[i][5];
		source->window_days = cs_window_days(cells[i][9]);
		if (cells[i][7] != NULL) /* microseconds since 1970 */
			source->sealed = (TimestampTz) strtoll(cells[i][7], NULL, 10) -
							 (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
		source->current = strcmp(cells[i][8], "current") == 0;
		if (cells[i][6] != NULL)
			take_types(source, cells[i][6]);
		else if (OidIsValid(source->relid))
			(void) cs_source_analyse(source, NULL);
		cs_source_resolve(source);
		result = lappend(result, source);
	}
	return result;
}

/*
 * cs_source: see source.h.
 */
CsSource *
cs_source(const char *name)
{
	ListCell *lc;

	foreach (lc, cs_sources(NULL))
	{
		CsSource *source = lfirst(lc);

		if (strcmp(source->name, name) == 0)
			return source;
	}
	return NULL;
}

/*
 * cs_source_named: see source.h.
 */
CsSource *
cs_source_named(const char *name)
{
	CsSource *source = cs_source(name);
	List *names = NIL;
	ListCell *lc;

	if (source != NULL)
		return source;
	foreach (lc, cs_sources(NULL))
		names = lappend(names, ((CsSource *) lfirst(lc))->name);
	ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("there is no source \"%s\"", name),
			cs_nearest(name, names) ? cs_errhint_nearest(name, names)
									: errhint("Sources stand in cs.source."));
}

/* ---- keys --------------------------------------------------------------- */

/*
 * int_of_id: true when the id is the canonical text form of an integer within
 * [min, max].  '042' and '+42' are other ids than '42' and no value of the type.
 */
static bool
int_of_id(const char *id, int64 min, int64 max, int64 *value)
{
	const char *p = id;
	bool negative = *p == '-';
	uint64 v = 0;
	int digits = 0;

	if (negative)
		p++;
	if (*p == '\0' || (*p == '0' && (p[1] != '\0' || negative)))
		return false;
	for (; *p; p++)
	{
		if (*p < '0' || *p > '9' || ++digits > 19)
			return false;
		v = v * 10 + (*p - '0');
	}
	if (v > (uint64) PG_INT64_MAX + (negative ? 1 : 0))
		return false;
	*value = negative ? (int64) (0 - v) : (int64) v;
	return *value >= min && *value <= max;
}

/*
 * numeric_form: canonical form of a numeric id: digits, no leading zero, no
 * trailing zero of a fraction.
 */
static bool
numeric_form(const char *id)
{
	const char *p = id;
	const char *fraction;

	if (strlen(id) > 1000)
		return false;
	if (strcmp(id, "NaN") == 0 || strcmp(id, "Infinity") == 0 || strcmp(id, "-Infinity") == 0)
		return true;
	if (*p == '-')
		p++;
	if (*p < '0' || *p > '9' || (*p == '0' && p[1] != '\0' && p[1] != '.'))
		return false;
	p += strspn(p, "0123456789");
	if (*p == '\0')
		return strcmp(id, "-0") != 0;
	if (*p++ != '.')
		return false;
	fraction = p;
	p += strspn(p, "0123456789");
	return *p == '\0' && p > fraction && p[-1] != '0';
}

static bool
uuid_form(const char *id)
{
	for (int i = 0; i < 36; i++)
	{
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? id[i] != '-'
				 : !((id[i] >= '0' && id[i] <= '9') || (id[i] >= 'a' && id[i] <= 'f')))
			return false;
	}
	return id[36] == '\0';
}

/*
 * native_value: an outside id as a value of the key type; false when it is
 * none.  Never raises: the form is checked before the type's input function.
 */
static bool
native_value(Oid type, const char *id, Datum *value)
{
	int64 i;

	switch (type)
	{
		case INT2OID:
			if (!int_of_id(id, PG_INT16_MIN, PG_INT16_MAX, &i))
				return false;
			*value = Int16GetDatum((int16) i);
			return true;
		case INT4OID:
			if (!int_of_id(id, PG_INT32_MIN, PG_INT32_MAX, &i))
				return false;
			*value = Int32GetDatum((int32) i);
			return true;
		case INT8OID:
			if (!int_of_id(id, PG_INT64_MIN, PG_INT64_MAX, &i))
				return false;
			*value = Int64GetDatum(i);
			return true;
		case UUIDOID:
			if (!uuid_form(id))
				return false;
			*value = DirectFunctionCall1(uuid_in, CStringGetDatum(id));
			return true;
		case NUMERICOID:
			if (!numeric_form(id))
				return false;
			*value = DirectFunctionCall3(numeric_in, CStringGetDatum(id),
										 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
			return true;
		default:
			*value = CStringGetTextDatum(id); /* text and bpchar are the same bytes */
			return true;
	}
}

/*
 * cs_native_keys: a text[] of outside ids as an array of the native type,
 * without the ids that are none of its values.  NULL elements are left out.
 */
static Datum
native_keys(Oid type, Datum ids)
{
	Datum *elems;
	bool *nulls;
	int n;
	Datum *values;
	int nvalues = 0;
	int16 typlen;
	bool typbyval;
	char typalign;

	deconstruct_array(DatumGetArrayTypeP(ids), TEXTOID, -1, false, TYPALIGN_INT, &elems, &nulls,
					  &n);
	values = palloc(sizeof(Datum) * (n + 1));
	for (int i = 0; i < n; i++)
	{
		if (!nulls[i] && native_value(type, TextDatumGetCString(elems[i]), &values[nvalues]))
			nvalues++;
	}
	get_typlenbyvalalign(type, &typlen, &typbyval, &typalign);
	return PointerGetDatum(construct_array(values, nvalues, type, typlen, typbyval, typalign));
}

/*
 * cs_source_array_type: element type of the array that a key of this native
 * type is compared with.  varchar has no operators of its own.
 */
static Oid
compared_type(Oid type)
{
	return type == VARCHAROID ? TEXTOID : type;
}

/*
 * cs_source_keys: see source.h.
 */
void
cs_source_keys(const CsSource *source, Datum ids, CsUserQuery *query)
{
	Oid type = compared_type(source->key_type);

	query->search_path = source->search_path;
	query->key_type = get_array_type(type);
	query->keys = native_keys(type, ids);
}

/*
 * cs_user_keys: the same for the user ids of a source that maps users.
 */
void
cs_user_keys(Oid user_type, Datum ids, CsUserQuery *query)
{
	Oid type = compared_type(user_type);

	query->key_type = get_array_type(type);
	query->keys = native_keys(type, ids);
}

/*
 * cs_source_id: see source.h.
 */
char *
cs_source_id(const CsSource *source, const char *key_expression)
{
	return cs_key_text(source->key_type, key_expression);
}
