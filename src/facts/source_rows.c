/*
 * source_rows.c
 *		The SELECT that reads a source: what is usable, what was known.
 *
 * In: a CsSource.  Out: SQL text that runs contained (cs_user_query).  It has
 * two levels, which the planner makes one:
 *
 *   facts  f: the user's expressions, cast to the canonical types, over the
 *          relation, filtered by key in the key column's own type
 *   rows   over f: rows that cannot be used are left out, later columns are
 *          NULL until their time, every canonical column is there
 *
 * Conditions are written as plain comparisons, so that the planner has
 * statistics for them and an index on the key or the anchor serves.
 */
#include "cs_ext.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/lsyscache.h"

#include "facts/merge.h"
#include "facts/source_kind.h"

/* Times outside these bounds (CS_TIME_MIN, CS_TIME_MAX) are no dates of a company, and overflow in calendar arithmetic. */
#define TIME_MIN "'0001-01-01 00:00:00+00'::timestamptz"
#define TIME_MAX "'10001-01-01 00:00:00+00'::timestamptz"

/* A condition that each usable row fulfils, and what is wrong with a row that does not. */
typedef struct Condition
{
	const char *reason;
	const char *sql; /* true = usable; false or NULL = not */
	bool packed;     /* usage_pack looks itself: comparing all events costs */
} Condition;

static char *facts_sql(const CsSource *source, const char *key_condition, const char *extra);

static const char *
col(const char *name)
{
	return psprintf("f.%s", quote_identifier(name));
}

/*
 * cs_key_text: SQL of the outside id of a key: the value as text, without the
 * padding of char(n) (the cast does that) and trailing zeros of numeric.
 */
char *
cs_key_text(Oid type, const char *expression)
{
	if (OidIsValid(type) && getBaseType(type) == NUMERICOID)
		return psprintf("(trim_scale(%s)::text COLLATE \"C\")", expression);
	return psprintf("((%s)::text COLLATE \"C\")", expression);
}

/*
 * key_sql: a key column inside the facts, native where it can be.
 */
static char *
key_sql(const CsSource *source, const CsMapped *m)
{
	if (m->attnum > 0 && OidIsValid(m->type) && cs_native_key_type(getBaseType(m->type)))
		return pstrdup(quote_identifier(get_attname(source->relid, m->attnum, false)));
	return cs_key_text(m->type, psprintf("(%s\n)", m->expr));
}

/*
 * cs_source_key: SQL of the key (customer_id, or user_id when by_user) over the
 * relation itself; what an index must be on.
 */
char *
cs_source_key(const CsSource *source)
{
	CsMapping *mapping = CS_MAPPING(source);

	return mapping->key ? key_sql(source, mapping->key) : pstrdup("NULL::text");
}

/*
 * fact_sql: one expression of the user's as its canonical type.  A date or
 * timestamp near the ends of its range has no timestamptz and the cast would
 * raise; such values become infinite, which is found unusable.
 */
static char *
fact_sql(const CsMapped *m)
{
	Oid base = OidIsValid(m->type) ? getBaseType(m->type) : InvalidOid;
	char *e = psprintf("(%s\n)", m->expr);

	if (m->canon == NULL)
		return e;
	switch (m->canon->type)
	{
		case CS_COL_TEXT:
			if (strcmp(m->name, "status") == 0 || strcmp(m->name, "interval") == 0)
				return psprintf("lower(%s::text)", e);
			if (strcmp(m->name, "user_id") == 0 || strcmp(m->name, "parent_id") == 0 ||
				strcmp(m->name, "into_customer_id") == 0)
				return cs_key_text(m->type, e);
			return psprintf("%s::text", e);
		case CS_COL_TIME:
			if (base == TIMESTAMPTZOID)
				return e;
			if (base == DATEOID || base == TIMESTAMPOID)
				return psprintf("(CASE WHEN %s >= '0001-01-02' AND %s < '10000-12-31' THEN "
								"%s::timestamptz WHEN %s < '0001-01-02' THEN '-infinity' WHEN %s "
								">= '10000-12-31' THEN 'infinity'::timestamptz END)",
								e, e, e, e, e);
			return psprintf("%s::timestamptz", e);
		case CS_COL_NUMERIC:
			return base == NUMERICOID ? e : psprintf("%s::numeric", e);
		case CS_COL_INT:
			return psprintf("%s::bigint", e);
		case CS_COL_BOOL:
			return psprintf("%s::boolean", e);
		case CS_COL_JSONB:
			return psprintf("%s::jsonb", e);
	}
	return e;
}

/*
 * monthly_sql: MRR of an amount per interval, before rounding (DEFINITIONS
 * B.3: year/12, week*52/12, day*365/12; a quarter is three months).  Multiplied
 * first, divided once.
 */
static char *
monthly_sql(const CsSource *source)
{
	CsMapped *amount = cs_mapped(source, "amount");
	CsMapped *interval = cs_mapped(source, "interval");
	CsMapped *count = cs_mapped(source, "interval_count");
	const char *n =
		count ? psprintf("coalesce(nullif(%s, 0), 1)::numeric", fact_sql(count)) : "1::numeric";
	const char *a = fact_sql(amount);

	return psprintf("(CASE %s WHEN 'month' THEN %s / %s WHEN 'year' THEN %s / (12 * %s) "
					"WHEN 'quarter' THEN %s / (3 * %s) WHEN 'week' THEN %s * 52 / (12 * %s) "
					"WHEN 'day' THEN %s * 365 / (12 * %s) END)",
					fact_sql(interval), a, n, a, n, a, n, a, n, a, n);
}

/*
 * user_native: the user of an event in a type whose text is told from it, for
 * who makes the text himself, once a user instead of once a row.
 */
static char *
user_native(const CsMapped *m)
{
	return OidIsValid(m->type) && cs_native_key_type(getBaseType(m->type))
			   ? psprintf("(%s\n)", m->expr)
			   : fact_sql(m);
}

/*
 * cs_source_facts: the inner SELECT.  key_condition is over the relation, or NULL.
 */
char *
cs_source_facts(const CsSource *source, const char *key_condition)
{
	return facts_sql(source, key_condition, NULL);
}

/*
 * facts_sql: with one more column, `extra` over the relation, or NULL.
 */
static char *
facts_sql(const CsSource *source, const char *key_condition, const char *extra)
{
	CsMapping *mapping = CS_MAPPING(source);
	StringInfoData sql;
	ListCell *lc;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s AS %s", cs_source_key(source),
					 source->by_user ? "user_key" : "customer_key");
	if (strcmp(source->kind, "user") == 0 && cs_mapped(source, "user_id") != NULL)
		appendStringInfo(&sql, ", %s AS user_key", key_sql(source, cs_mapped(source, "user_id")));
	foreach (lc, mapping->columns)
	{
		CsMapped *m = lfirst(lc);

		if (strcmp(m->name, CS_KEY_COLUMN(mapping->kind)) == 0)
			continue;
		if (m->canon == NULL && strncmp(m->name, "x_", 2) != 0)
			continue; /* a user_id that only links */
		appendStringInfo(&sql, ", %s AS %s", fact_sql(m), quote_identifier(m->name));
	}
	if (strcmp(source->kind, "usage_event") == 0 && cs_mapped(source, "user_id") != NULL)
		appendStringInfo(&sql, ", %s AS user_native", user_native(cs_mapped(source, "user_id")));
	if (strcmp(source->kind, "subscription") == 0 && cs_mapped(source, "mrr") == NULL)
		appendStringInfo(&sql, ", %s AS mrr",
						 cs_mapped(source, "amount") && cs_mapped(source, "interval")
							 ? monthly_sql(source)
							 : "NULL::numeric");
	if (extra != NULL)
		appendStringInfo(&sql, ", %s", extra);
	appendStringInfo(&sql, " FROM %s", source->relation);
	if (key_condition != NULL)
		appendStringInfo(&sql, " WHERE %s", key_condition);
	return sql.data;
}

/* ---- what is usable ------------------------------------------------------- */

static List *
add(List *conditions, const char *reason, const char *sql)
{
	Condition *c = palloc(sizeof(Condition));

	c->reason = reason;
	c->sql = sql;
	c->packed = false;
	return lappend(conditions, c);
}

/*
 * mark_packed: from one of them on.
 */
static void
mark_packed(List *conditions, int from)
{
	for (int i = from; i < list_length(conditions); i++)
		((Condition *) list_nth(conditions, i))->packed = true;
}

/*
 * time_conditions: a required or anchor column must be there and finite; of
 * the others only minus infinity is refused, because infinity is "not yet".
 */
static List *
time_conditions(List *list, const CsSource *source, const CsMapped *m)
{
	const char *c = col(m->name);
	bool required = (m->canon->flags & CS_COL_REQUIRED) != 0 ||
					(strcmp(source->kind, "other") == 0 && strcmp(m->name, "at") == 0);

	if (required)
	{
		list = add(list, psprintf("%s is NULL", m->name), psprintf("%s IS NOT NULL", c));
		list = add(list, psprintf("%s is infinite or out of range", m->name),
				   psprintf("(%s >= " TIME_MIN " AND %s < " TIME_MAX ")", c, c));
	}
	else if (m->canon->flags & CS_COL_ANCHOR)
		list = add(list, psprintf("%s is infinite or out of range", m->name),
				   psprintf("(%s IS NULL OR (%s >= " TIME_MIN " AND %s < " TIME_MAX "))", c, c, c));
	else
		list = add(list, psprintf("%s is minus infinity", m->name),
				   psprintf("(%s IS NULL OR %s >= " TIME_MIN ")", c, c));
	return list;
}

/*
 * conditions_of: all of them, in the order in which a row's reason is chosen.
 */
static List *
conditions_of(const CsSource *source)
{
	CsMapping *mapping = CS_MAPPING(source);
	bool subscription = strcmp(source->kind, "subscription") == 0;
	bool event = strcmp(source->kind, "usage_event") == 0;
	List *list = NIL;
	ListCell *lc;

	if (!source->by_user)
	{
		list = add(list, psprintf("%s is NULL", CS_KEY_COLUMN(mapping->kind)),
				   "f.customer_key IS NOT NULL");
		if (mapping->key_native == TEXTOID || mapping->key_native == VARCHAROID ||
			mapping->key_native == BPCHAROID)
			list = add(list, psprintf("%s is empty", CS_KEY_COLUMN(mapping->kind)),
					   "f.customer_key <> ''");
		if (event)
			mark_packed(list, 0);
	}
	else
		list = add(list, "user_id is NULL", "f.user_key IS NOT NULL");

	foreach (lc, mapping->columns)
	{
		CsMapped *m = lfirst(lc);
		const char *c = col(m->name);

		if (m->canon == NULL || m == mapping->key)
			continue;
		if (m->canon->type == CS_COL_TIME)
		{
			int before = list_length(list);

			list = time_conditions(list, source, m);
			if (event)
				mark_packed(list, before);
			continue;
		}
		if ((m->canon->flags & CS_COL_REQUIRED) || (subscription && strcmp(m->name, "mrr") == 0) ||
			(subscription && strcmp(m->name, "amount") == 0))
			list = add(list, psprintf("%s is NULL", m->name), psprintf("%s IS NOT NULL", c));
		if (m->canon->type == CS_COL_NUMERIC)
			list = add(list, psprintf("%s is not a finite number", m->name),
					   psprintf("(%s IS NULL OR (%s > '-Infinity'::numeric AND %s < "
								"'Infinity'::numeric))",
								c, c, c));
		if (m->canon->flags & CS_COL_NOT_NEGATIVE)
			list = add(list, psprintf("%s is negative", m->name),
					   psprintf("(%s IS NULL OR %s >= 0)", c, c));
	}

	if (subscription)
	{
		if (cs_mapped(source, "interval"))
			list = add(list, "interval is unknown",
					   "f.\"interval\" IN ('day', 'week', 'month', 'quarter', 'year')");
		if (cs_mapped(source, "interval_count"))
			list = add(list, "interval_count is less than 1",
					   "(f.interval_count IS NULL OR f.interval_count >= 1)");
		if (cs_mapped(source, "status"))
			list = add(list, "status is unknown",
					   "(f.status IS NULL OR f.status IN ('active', 'trialing', 'paused', "
					   "'past_due', 'unpaid', 'incomplete', 'canceled'))");
		list = add(list, "mrr is too large", "abs(f.mrr) < 1e14");
		if (cs_mapped(source, "end_at"))
			list = add(list, "end_at is before start_at",
					   "(f.end_at IS NULL OR f.end_at >= f.start_at)");
	}
	if (strcmp(source->kind, "user") == 0 && cs_mapped(source, "valid_from") &&
		cs_mapped(source, "valid_to"))
		list = add(list, "valid_to is before valid_from",
				   "(f.valid_to IS NULL OR f.valid_from IS NULL OR f.valid_to >= f.valid_from)");
	if (strcmp(source->kind, "survey") == 0)
		list = add(list, "score of an nps answer is not from 0 to 10",
				   "(f.kind <> 'nps' OR f.score BETWEEN 0 AND 10)");
	if (cs_mapped(source, "attributes") && strcmp(source->kind, "customer") == 0)
		list = add(list, "attributes is not an object",
				   "(f.attributes IS NULL OR jsonb_typeof(f.attributes) = 'object')");
	return list;
}

/*
 * cs_usage_is_usable: see source_kind.h.
 */
bool
cs_usage_is_usable(const CsSource *source)
{
	ListCell *lc;

	foreach (lc, conditions_of(source))
		if (!((Condition *) lfirst(lc))->packed)
			return false;
	return true;
}

/*
 * cs_source_reason: SQL over f: why the row cannot be used, NULL when it can.
 */
char *
cs_source_reason(const CsSource *source)
{
	StringInfoData sql;
	ListCell *lc;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "CASE");
	foreach (lc, conditions_of(source))
	{
		Condition *c = lfirst(lc);

		appendStringInfo(&sql, " WHEN (%s) IS NOT TRUE THEN %s", c->sql,
						 quote_literal_cstr(c->reason));
	}
	appendStringInfoString(&sql, " END");
	return sql.data;
}

/* ---- what was known ------------------------------------------------------- */

/*
 * cs_source_anchor: SQL over f of the anchor, NULL when none is mapped.
 */
char *
cs_source_anchor(const CsSource *source)
{
	if (source->anchor == NULL)
		return NULL;
	if (strcmp(source->anchor, "signed_at") == 0)
		return pstrdup("coalesce(f.signed_at, f.start_at)");
	if (strcmp(source->anchor, "issued_at") == 0)
		return pstrdup("coalesce(f.issued_at, f.due_at)");
	return pstrdup(col(source->anchor));
}

/*
 * cs_anchor_is_one: the anchor is one mapped column, not the first of two.
 */
bool
cs_anchor_is_one(const CsSource *source)
{
	return source->anchor != NULL && strcmp(source->anchor, "signed_at") != 0 &&
		   strcmp(source->anchor, "issued_at") != 0;
}

/*
 * cs_anchor_required: every usable row has one.  created_at of a customer and
 * starts_at of an onboarding step may be NULL: known all along.
 */
bool
cs_anchor_required(const CsSource *source)
{
	return source->anchor != NULL && strcmp(source->kind, "customer") != 0 &&
		   strcmp(source->kind, "onboarding_step") != 0;
}

/*
 * known_sql: the instant from which a later column is known: least of the
 * mapped ones that say so, NULL when the column is known with its row.
 */
static char *
known_sql(const CsSource *source, const char *const *names)
{
	StringInfoData sql;
	int n = 0;

	initStringInfo(&sql);
	for (int i = 0; i < 3 && names[i] != NULL; i++)
	{
		if (cs_mapped(source, names[i]) != NULL)
			appendStringInfo(&sql, "%s%s", n++ ? ", " : "", col(names[i]));
	}
	if (n == 0)
		return NULL;
	return n == 1 ? sql.data : psprintf("least(%s)", sql.data);
}

/*
 * value_sql: a canonical column of the rows.
 */
static char *
value_sql(const CsSource *source, const CsKindColumn *c, bool cut)
{
	CsMapped *m = cs_mapped(source, c->name);
	const char *value = col(c->name);
	const char *known;

	if (strcmp(source->kind, "subscription") == 0 && strcmp(c->name, "mrr") == 0)
		return pstrdup("f.mrr::numeric(20,6)");
	if (m == NULL)
		return psprintf("NULL::%s", cs_column_type_name(c->type));
	if (source->anchor && strcmp(source->anchor, c->name) == 0)
		return cs_source_anchor(source);
	if (c->type == CS_COL_TIME && !(c->flags & CS_COL_REQUIRED))
		value = psprintf("CASE WHEN %s < " TIME_MAX " THEN %s END", value, value);
	if (!cut)
		return pstrdup(value);

	if (strcmp(source->kind, "subscription") == 0 && strcmp(c->name, "status") == 0)
	{
		static const char *const when[] = {"cancel_requested_at", "end_at", "changed_at"};

		known = known_sql(source, when);
		return known == NULL ? pstrdup(value)
							 : psprintf("CASE WHEN f.status <> 'canceled' OR %s < as_of THEN "
										"f.status END",
										known);
	}
	known = known_sql(source, c->known);
	if (known == NULL)
		return pstrdup(value);
	return psprintf("CASE WHEN %s < as_of THEN %s END", known, value);
}

/* ---- users ---------------------------------------------------------------- */

/*
 * native_users: one user source, whose user_id is compared natively with ours.
 */
static bool
native_users(const CsSource *source)
{
	CsMapping *mapping = CS_MAPPING(source);
	CsMapped *ours = mapping->key;
	CsMapped *theirs;
	Oid a;
	Oid b;

	if (list_length(mapping->users) != 1 || !mapping->native)
		return false;
	theirs = cs_mapped(linitial(mapping->users), "user_id");
	if (theirs == NULL || theirs->attnum <= 0 || !OidIsValid(theirs->type))
		return false;
	a = mapping->key_native == VARCHAROID ? TEXTOID : mapping->key_native;
	b = getBaseType(theirs->type) == VARCHAROID ? TEXTOID : getBaseType(theirs->type);
	return a == b && ours->collation == theirs->collation;
}

/*
 * seal_sql: rows below the seal are not read, whether they are there or not.
 */
static char *
seal_sql(const CsSource *source)
{
	if (TIMESTAMP_IS_NOBEGIN(source->sealed))
		return "";
	return psprintf(
		" AND %s >= '%s'::timestamptz", cs_source_anchor(source),
		DatumGetCString(DirectFunctionCall1(timestamptz_out, TimestampTzGetDatum(source->sealed))));
}

/*
 * rows_sql: see cs_source_rows; key_condition as in cs_source_facts.  owned: the
 * key is the id for whom the row counts by the relation "fact_owner".  packed:
 * without what usage_pack looks at.
 */
static char *
rows_sql(const CsSource *source, const char *key_condition, const char *users, bool cut, bool owned,
		 bool packed)
{
	CsMapping *mapping = CS_MAPPING(source);
	char *anchor = cs_source_anchor(source);
	const char *key = users ? "u.customer_key" : "f.customer_key";
	char *id = cs_source_id(source, key);
	StringInfoData sql;
	ListCell *lc;

	initStringInfo(&sql);
	if (owned)
		appendStringInfo(&sql,
						 "SELECT coalesce(o.customer_id, %s) AS customer_key,"
						 " coalesce(o.customer_id, %s) AS customer_id, o.fact_id",
						 id, id);
	else
		appendStringInfo(&sql, "SELECT %s AS customer_key, %s AS customer_id", key, id);
	if (strcmp(source->kind, "user") == 0)
		appendStringInfoString(&sql, ", f.user_key");
	if (strcmp(source->kind, "usage_event") == 0)
		appendStringInfo(&sql, ", %s AS user_native",
						 cs_mapped(source, "user_id") ? "f.user_native" : "NULL::text");
	for (const CsKindColumn *c = mapping->kind->columns; c->name != NULL; c++)
	{
		if (c != mapping->kind->columns)
			appendStringInfo(&sql, ", %s AS %s", value_sql(source, c, cut),
							 quote_identifier(c->name));
	}
	foreach (lc, mapping->columns)
	{
		CsMapped *m = lfirst(lc);

		if (m->canon == NULL && strncmp(m->name, "x_", 2) == 0)
			appendStringInfo(&sql, ", %s", col(m->name));
	}
	appendStringInfo(&sql, " FROM (%s) f", cs_source_facts(source, key_condition));
	if (users != NULL)
	{
		appendStringInfo(&sql, " JOIN (%s) u ON %s", users, cs_source_user_join(source));
		if (anchor != NULL)
			appendStringInfo(&sql,
							 " AND (u.valid_from IS NULL OR u.valid_from <= %s) AND (u.valid_to "
							 "IS NULL OR u.valid_to > %s)",
							 anchor, anchor);
	}
	if (owned)
		appendStringInfo(&sql, " LEFT JOIN fact_owner o ON o.fact_id = %s", id);
	appendStringInfoString(&sql, " WHERE true");
	foreach (lc, conditions_of(source))
	{
		Condition *c = lfirst(lc);

		if (!packed || !c->packed)
			appendStringInfo(&sql, " AND %s", c->sql);
	}
	appendStringInfoString(&sql, seal_sql(source));
	if (cut && anchor != NULL)
	{
		if (!cs_anchor_required(source))
			appendStringInfo(&sql, " AND (%s IS NULL OR %s < as_of)", anchor, anchor);
		else
			appendStringInfo(&sql, " AND %s < as_of", anchor);
	}
	return sql.data;
}

/*
 * key_condition_of: rows whose key is in $1.
 */
static char *
key_condition_of(const CsSource *source, bool as_text)
{
	CsMapping *mapping = CS_MAPPING(source);
	char *key = cs_source_key(source);

	if (as_text && mapping->native)
		key = cs_key_text(mapping->key_native, key);
	return psprintf("%s = ANY ($1)", key);
}

/*
 * cs_source_users: the users of a by_user source: a SELECT of customer_key,
 * user_id, user_key (one user source only), valid_from, valid_to.
 */
char *
cs_source_users(const CsSource *source, bool keyed)
{
	CsMapping *mapping = CS_MAPPING(source);
	bool several = list_length(mapping->users) > 1;
	StringInfoData sql;
	ListCell *lc;

	if (mapping->users == NIL)
		return pstrdup(
			"SELECT NULL::text AS customer_key, NULL::text AS user_id, NULL::timestamptz "
			"AS valid_from, NULL::timestamptz AS valid_to WHERE false");
	initStringInfo(&sql);
	foreach (lc, mapping->users)
	{
		CsSource *users = lfirst(lc);

		appendStringInfo(&sql, "%sSELECT %s%s, user_id, valid_from, valid_to FROM (%s) r",
						 foreach_current_index(lc) ? " UNION ALL " : "",
						 several ? "customer_id AS customer_key" : "customer_key",
						 several ? "" : ", user_key",
						 rows_sql(users, keyed ? key_condition_of(users, several) : NULL, NULL,
								  false, false, false));
	}
	return sql.data;
}

/*
 * cs_source_rows: see source.h.
 */
char *
cs_source_rows(const CsSource *source, bool keyed, bool cut)
{
	if (source->by_user)
		return rows_sql(source, NULL, cs_source_users(source, keyed), cut, false, false);
	return rows_sql(source, keyed ? key_condition_of(source, false) : NULL, NULL, cut, false,
					false);
}

/*
 * cs_source_events: see source.h.
 */
char *
cs_source_events(const CsSource *source)
{
	return rows_sql(source, NULL, source->by_user ? cs_source_users(source, false) : NULL, false,
					false, true);
}

/*
 * owned_elsewhere: some rows count for another customer than they stand under.
 * What says who a customer is does not.
 */
static bool
owned_elsewhere(const CsSource *source, const CsWhose *whose)
{
	return whose->merged && strcmp(source->kind, "customer") != 0 &&
		   strcmp(source->kind, "customer_merge") != 0;
}

/*
 * cs_source_rows_of, cs_source_id_of, cs_source_fact_of, cs_source_keys_of: see source.h.
 */
char *
cs_source_rows_of(const CsSource *source, const CsWhose *whose, bool cut)
{
	if (!owned_elsewhere(source, whose))
		return cs_source_rows(source, true, cut);
	if (source->by_user)
		return rows_sql(source, NULL, cs_source_users(source, true), cut, true, false);
	return rows_sql(source, key_condition_of(source, false), NULL, cut, true, false);
}

char *
cs_source_id_of(const CsSource *source, const CsWhose *whose, const char *key_expression)
{
	return owned_elsewhere(source, whose) ? pstrdup(key_expression)
										  : cs_source_id(source, key_expression);
}

const char *
cs_source_fact_of(const CsSource *source, const CsWhose *whose)
{
	return owned_elsewhere(source, whose) ? "fact_id" : "NULL::pg_catalog.text";
}

void
cs_source_keys_of(const CsSource *source, const CsWhose *whose, Datum customers, CsUserQuery *query)
{
	cs_source_keys(
		source, owned_elsewhere(source, whose) ? cs_whose_ids(whose, customers) : customers, query);
}

/*
 * cs_source_preview: the first rows, usable or not, with the reason and the
 * mapped columns as they would be read now.
 */
char *
cs_source_preview(const CsSource *source, int max_rows)
{
	CsMapping *mapping = CS_MAPPING(source);
	StringInfoData sql;
	ListCell *lc;

	initStringInfo(&sql);
	appendStringInfo(
		&sql,
		"SELECT r.reason IS NULL, r.reason, to_jsonb(r) - 'reason' FROM (SELECT %s AS "
		"reason, %s AS %s",
		cs_source_reason(source),
		cs_key_text(mapping->key_native, source->by_user ? "f.user_key" : "f.customer_key"),
		source->by_user ? "user_id" : "customer_id");
	for (const CsKindColumn *c = mapping->kind->columns; c->name != NULL; c++)
	{
		if (c == mapping->kind->columns || (source->by_user && strcmp(c->name, "user_id") == 0))
			continue;
		if (cs_mapped(source, c->name) != NULL)
			appendStringInfo(&sql, ", %s AS %s", col(c->name), quote_identifier(c->name));
		else if (strcmp(source->kind, "subscription") == 0 && strcmp(c->name, "mrr") == 0)
			appendStringInfoString(&sql, ", round(f.mrr, 6) AS mrr");
	}
	foreach (lc, mapping->columns)
	{
		CsMapped *m = lfirst(lc);

		if (m->canon == NULL && strncmp(m->name, "x_", 2) == 0)
			appendStringInfo(&sql, ", %s", col(m->name));
	}
	appendStringInfo(&sql, " FROM (%s) f LIMIT %d) r", cs_source_facts(source, NULL), max_rows);
	return sql.data;
}

/*
 * cs_source_extent_sql: least and greatest anchor of usable rows, and whether
 * there are any; without the users of a by_user source.  required: the anchor
 * is never NULL, so its least value says whether there are rows.
 *
 *	CS_BOUNDS_NONE		only whether there are rows
 *	CS_BOUNDS_SCAN		all rows are looked at
 *	CS_BOUNDS_INDEX		from both ends of an index on the anchor's column, up to
 *						the first usable row; for cs_query_by_index(…, true)
 */
char *
cs_source_extent_sql(const CsSource *source, bool required, CsBounds bounds)
{
	char *anchor = cs_source_anchor(source);
	const char *raw = NULL;
	const char *first = "NULL::timestamptz";
	const char *last = first;
	const char *from;
	StringInfoData rows;
	ListCell *lc;

	if (bounds == CS_BOUNDS_INDEX)
		raw = psprintf("%s AS raw_anchor",
					   quote_identifier(get_attname(
						   source->relid, cs_mapped(source, source->anchor)->attnum, false)));
	initStringInfo(&rows);
	appendStringInfo(&rows, " FROM (%s) f", facts_sql(source, NULL, raw));
	foreach (lc, conditions_of(source))
	{
		Condition *c = lfirst(lc);

		appendStringInfo(&rows, "%s %s", foreach_current_index(lc) ? " AND" : " WHERE", c->sql);
	}
	appendStringInfoString(&rows, seal_sql(source));
	from = rows.data;
	if (anchor != NULL && bounds == CS_BOUNDS_INDEX)
	{
		first = psprintf("(SELECT %s%s AND f.raw_anchor IS NOT NULL ORDER BY f.raw_anchor LIMIT 1)",
						 anchor, from);
		last = psprintf(
			"(SELECT %s%s AND f.raw_anchor IS NOT NULL ORDER BY f.raw_anchor DESC LIMIT 1)", anchor,
			from);
	}
	else if (anchor != NULL && bounds == CS_BOUNDS_SCAN)
	{
		first = psprintf("min(%s)", anchor);
		last = psprintf("max(%s)", anchor);
	}
	return psprintf(
		"SELECT first_at, last_at, %s AS has_rows FROM (SELECT %s AS first_at, %s AS last_at%s) b",
		required ? "first_at IS NOT NULL" : psprintf("EXISTS (SELECT 1%s)", from), first, last,
		bounds == CS_BOUNDS_SCAN && anchor != NULL ? from : "");
}

/*
 * cs_source_user_join: SQL that a fact f is of the user u, natively where both
 * are columns of one type.
 */
char *
cs_source_user_join(const CsSource *source)
{
	CsMapping *mapping = CS_MAPPING(source);

	if (native_users(source))
		return pstrdup("u.user_key = f.user_key");
	return psprintf("(u.user_id COLLATE \"C\") = %s",
					cs_key_text(mapping->key ? mapping->key_native : TEXTOID, "f.user_key"));
}
