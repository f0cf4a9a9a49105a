/*
 * segment_past.c
 *		Who would be in which segment at an instant of the past, by the rules of
 *		today: the restated basis of rates by segment.
 *
 * In: a dimension, an instant, the ledger and the customers; where a rule asks
 * for more than these hold, the facts, through the stages of evaluate.  Out:
 * rows (customer_id, segment); who is in none has no row.  Nothing is kept.
 *
 * Two ways to the same rows.
 * By the ledger: where the rules of the dimension, and of those it names, use
 * nothing but MRR, being active and the customer's own columns.  One balance a
 * customer, one query a dimension; reads alone, so also on a standby.
 * By the stages: what-if evaluation in batches.  It takes turns with the
 * refresher and writes rows that it rolls back, also in a read-only
 * transaction; on a standby it is refused.
 *
 * Attributes, name, owner and parent are those of today: their past is not kept.
 */
#include "cs_ext.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"

#include "decide/decide.h"
#include "refresh/refresh.h"

PG_FUNCTION_INFO_V1(cs_segments_restated_sql);

/* Customers there were by $1, as rows c. */
#define THERE_BY                                                        \
	" FROM cs_internal.customer c WHERE (c.created_at < $1 OR EXISTS (" \
	"SELECT FROM cs_internal.movement v WHERE v.customer_id = c.customer_id AND v.at <= $1))"

/*
 * cs_segment_case: see decide.h.
 */
bool
cs_segment_case(const char *dimension, const char *fallback, StringInfo sql,
				const char **search_path)
{
	bool one_path = true;
	uint64 n = cs_exec("SELECT s.name, s.rule, s.search_path,"
					   " count(*) OVER () = count(*) OVER (PARTITION BY s.search_path)"
					   " FROM cs.segment s WHERE s.dimension = $1"
					   " ORDER BY s.priority, s.name COLLATE \"C\"",
					   CS_ARGS(cs_text(dimension)));

	*search_path = NULL;
	appendStringInfoString(sql, "CASE");
	for (uint64 i = 0; i < n; i++)
	{
		*search_path = cs_cell(i, 3);
		one_path &= *cs_cell(i, 4) == 't';
		appendStringInfo(sql, " WHEN (%s\n) THEN %s", cs_cell(i, 2),
						 quote_literal_cstr(cs_cell(i, 1)));
	}
	if (n == 0)
		appendStringInfoString(sql, " WHEN false THEN NULL");
	appendStringInfo(sql, " ELSE %s END::pg_catalog.text",
					 fallback ? quote_literal_cstr(fallback) : "NULL");
	return one_path;
}

/*
 * by_ledger: all dimensions of the chain, innermost first, each over what the
 * one before gave.  NULL where one of them cannot be had this way: rules with
 * search paths of their own, or one that raises.
 */
static CsResult *
by_ledger(const char *dimension, TimestampTz at)
{
	CsPolicy *policy = cs_policy(false);
	uint64 nlevels;
	char **names;
	char **fallbacks;
	CsResult *state;
	CsUserQuery query = {0};
	StringInfoData known;

	nlevels = cs_exec("SELECT n.dimension, d.fallback FROM cs_internal.dimension_needs($1) n"
					  " JOIN cs.dimension d ON d.name = n.dimension"
					  " ORDER BY n.level, n.dimension",
					  CS_ARGS(cs_text(dimension)));
	names = palloc(sizeof(char *) * (nlevels + 1));
	fallbacks = palloc(sizeof(char *) * (nlevels + 1));
	for (uint64 i = 0; i < nlevels; i++)
	{
		names[i] = cs_cell(i, 1);
		fallbacks[i] = cs_cell(i, 2);
	}

	/* without a subscription source MRR is not known, and nobody active */
	state = cs_query(
		psprintf("SELECT c.customer_id, c.name, c.owner, c.parent_id, c.created_at, c.attributes,"
				 " coalesce(m.active_after, false) AS active,"
				 " CASE WHEN EXISTS (SELECT FROM cs.source s WHERE s.kind = 'subscription' AND "
				 "s.enabled) THEN coalesce(m.mrr_after, 0)::float8 END AS mrr"
				 " FROM (SELECT c.*" THERE_BY ") c"
				 " LEFT JOIN (SELECT DISTINCT ON (v.customer_id) v.customer_id, v.mrr_after, "
				 "v.active_after"
				 " FROM cs_internal.movement v WHERE v.at %s $1"
				 " ORDER BY v.customer_id, v.at DESC, v.seq DESC) m"
				 " ON m.customer_id = c.customer_id",
				 policy->edge_at ? "<=" : "<"),
		CS_ARGS(cs_tstz(at)));

	query.as_of = at;
	query.as_of_day = cs_local_day(at, policy->time_zone);
	initStringInfo(&known);
	for (uint64 i = 0; i < nlevels; i++)
	{
		bool last = i == nlevels - 1;
		ErrorData *error = NULL;
		StringInfoData sql;
		CsResult *next;

		initStringInfo(&sql);
		if (last)
			appendStringInfoString(&sql, "SELECT customer_id");
		else
			appendStringInfo(&sql,
							 "SELECT customer_id, name, owner, parent_id, created_at, attributes, "
							 "active, mrr%s",
							 known.data);
		appendStringInfoString(&sql, ", ");
		if (!cs_segment_case(names[i], fallbacks[i], &sql, &query.search_path))
			return NULL;
		appendStringInfo(&sql, " AS %s FROM state", quote_identifier(names[i]));
		query.sql = sql.data;
		cs_register("state", state);
		next = cs_user_query(&query, &error);
		cs_unregister("state");
		tuplestore_end(state->store);
		if (next == NULL)
			return NULL;
		state = next;
		appendStringInfo(&known, ", %s", quote_identifier(names[i]));
	}
	return state;
}

/*
 * by_stages: a batch of customers at a time.
 */
static void
by_stages(const char *dimension, TimestampTz at, bool late, FunctionCallInfo fcinfo)
{
	char *after = pstrdup("");
	char *sql = psprintf("SELECT s.customer_id, s.segments ->> %s FROM evaluated s",
						 quote_literal_cstr(dimension));

	if (RecoveryInProgress())
		ereport(ERROR, errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				errmsg("segments of dimension \"%s\" cannot be restated on a standby", dimension),
				errdetail("Its rules ask for metrics, which are computed again for the past."),
				errhint("Ask on the primary, or set segment_basis of cs.policy to 'stored'."));
	for (;;)
	{
		Datum ids;
		int n;

		CHECK_FOR_INTERRUPTS();
		ids =
			cs_ids_from_query("SELECT c.customer_id" THERE_BY
							  " AND c.customer_id > $2 ORDER BY c.customer_id LIMIT $3",
							  CS_ARGS(cs_tstz(at), cs_text(after), cs_int4(cs_refresh_batch)), &n);
		if (n == 0)
			break;
		cs_exec("SELECT ($1)[$2]", CS_ARGS(cs_textarray(ids), cs_int4(n)));
		after = cs_value();
		cs_return_rows(cs_what_if_segments(ids, n, at, late, sql), fcinfo, 2);
	}
}

/*
 * cs_internal.segments_restated(dimension, at): an attribute dimension is one
 * query over the customers, others see above.
 */
Datum
cs_segments_restated_sql(PG_FUNCTION_ARGS)
{
	char *dimension;
	TimestampTz at;
	CsFrame frame;
	CsResult *rows = NULL;
	bool light;
	bool late;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		return (Datum) 0;
	dimension = text_to_cstring(PG_GETARG_TEXT_PP(0));
	at = PG_GETARG_TIMESTAMPTZ(1);

	cs_enter(&frame);
	if (cs_exec("SELECT d.attribute IS NOT NULL, o.late, cs_internal.ledger_knows(d.name)"
				" FROM cs.dimension d JOIN cs_internal.dimension_order() o ON o.dimension = d.name"
				" WHERE d.name = $1 AND d.enabled",
				CS_ARGS(cs_text(dimension))) == 0)
	{
		cs_leave(&frame);
		return (Datum) 0;
	}
	late = strcmp(cs_cell(0, 2), "t") == 0;
	light = strcmp(cs_cell(0, 3), "t") == 0;
	if (strcmp(cs_cell(0, 1), "t") == 0)
		rows =
			cs_query("SELECT c.customer_id, coalesce(k.value, CASE WHEN d.attribute IN ('product', "
					 "'term_months') THEN nullif(a.value, '') END, d.fallback)"
					 " FROM (SELECT c.*" THERE_BY ") c CROSS JOIN cs.dimension d"
					 " LEFT JOIN cs_internal.attribute_of(NULL, $1, ARRAY[$2], false) a"
					 " ON a.customer_id = c.customer_id"
					 " LEFT JOIN cs_internal.attribute_value k ON k.dimension = d.name"
					 " AND k.value = a.value"
					 " WHERE d.name = $2",
					 CS_ARGS(cs_tstz(at), cs_text(dimension)));
	else if (light)
		rows = by_ledger(dimension, at);
	if (rows != NULL)
		cs_return_rows(rows, fcinfo, 2);
	else
		by_stages(dimension, at, late, fcinfo);
	cs_leave(&frame);
	return (Datum) 0;
}
