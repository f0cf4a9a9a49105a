/*
 * place.c
 *		Where the definitions of today place the states that customers were in.
 *
 * In: the ledger, the customers, and for the summaries what both were before
 * (their journals).  Out: SQL that reads them, and the segments that the rules
 * of a dimension give for each state, run contained as policy.run_as.  Nothing
 * is kept.
 */
#include "cs_ext.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "lib/stringinfo.h"

#include "decide/decide.h"
#include "refresh/place.h"

PG_FUNCTION_INFO_V1(cs_states_placed_sql);

/*
 * cs_place_movements, cs_place_customers: see place.h.
 */
const char *
cs_place_movements(CsScope scope)
{
	switch (scope)
	{
		case SCOPE_ALL:
			return "cs_internal.movement";
		case SCOPE_THESE:
			return "(SELECT * FROM cs_internal.movement v WHERE v.customer_id = ANY ($2))";
		case SCOPE_BEFORE:
			return "(SELECT v.customer_id, v.at, v.seq, v.kind, v.delta, v.mrr_after,"
				   " v.active_after FROM cs_internal.movement v"
				   " WHERE v.customer_id = ANY ($2) AND NOT EXISTS (SELECT 1"
				   " FROM cs_internal.movement_before b WHERE b.customer_id = v.customer_id"
				   " AND b.at = v.at AND b.seq = v.seq)"
				   " UNION ALL SELECT b.customer_id, b.at, b.seq, b.kind, b.delta, b.mrr_after,"
				   " b.active_after FROM cs_internal.movement_before b"
				   " WHERE b.customer_id = ANY ($2) AND b.kind IS NOT NULL)";
	}
	return NULL;
}

const char *
cs_place_customers(CsScope scope)
{
	switch (scope)
	{
		case SCOPE_ALL:
			return "cs_internal.customer";
		case SCOPE_THESE:
			return "(SELECT * FROM cs_internal.customer v WHERE v.customer_id = ANY ($2))";
		case SCOPE_BEFORE:
			return "(SELECT v.customer_id, v.name, v.owner, v.parent_id, v.created_at,"
				   " v.attributes FROM cs_internal.customer v"
				   " WHERE v.customer_id = ANY ($2) AND NOT EXISTS (SELECT 1"
				   " FROM cs_internal.customer_before b WHERE b.customer_id = v.customer_id)"
				   " UNION ALL SELECT b.customer_id, b.name, b.owner, b.parent_id, b.created_at,"
				   " b.attributes FROM cs_internal.customer_before b"
				   " WHERE b.customer_id = ANY ($2) AND b.present)";
	}
	return NULL;
}

/*
 * cs_place_read: see place.h.
 */
bool
cs_place_read(const char *dimension, CsPlacing *placing)
{
	char *mode;

	memset(placing, 0, sizeof(CsPlacing));
	cs_exec("SELECT cs_internal.pass_mode($1),"
			" (SELECT d.attribute FROM cs.dimension d WHERE d.name = $1),"
			" (SELECT d.fallback FROM cs.dimension d WHERE d.name = $1),"
			" EXISTS (SELECT FROM cs_internal.membership m WHERE m.dimension = $1"
			"  AND m.source = 'manual')",
			CS_ARGS(cs_text(dimension)));
	mode = cs_cell(0, 1);
	if (mode == NULL)
		return false;
	placing->mode = *mode;
	placing->attribute = cs_cell(0, 2);
	placing->fallback = cs_cell(0, 3);
	placing->manual = *cs_cell(0, 4) == 't';
	if (placing->mode == 'r')
	{
		cs_exec("SELECT coalesce(bool_or(u.name NOT IN ('mrr', 'active')), false),"
				" coalesce(bool_or(u.name IN ('mrr', 'active')), false)"
				" FROM cs_internal.dimension_uses($1) u",
				CS_ARGS(cs_text(dimension)));
		placing->by_customer = *cs_cell(0, 1) == 't';
		placing->by_ledger = *cs_cell(0, 2) == 't' || !placing->by_customer;
	}
	return true;
}

/*
 * cs_placed_rows: see place.h.
 */
CsResult *
cs_placed_rows(const char *dimension, const CsPlacing *placing, CsScope scope, const CsArg *args,
			   int nargs)
{
	CsUserQuery query = {0};
	ErrorData *error = NULL;
	CsResult *state;
	CsResult *placed;
	StringInfoData sql;
	const char *states;

	if (placing->by_customer && placing->by_ledger)
		states = psprintf("(SELECT m.customer_id AS id, m.mrr_after, m.active_after FROM %s m"
						  " UNION SELECT n.customer_id, 0, false FROM %s n) v"
						  " JOIN %s c ON c.customer_id = v.id",
						  cs_place_movements(scope), cs_place_movements(scope),
						  cs_place_customers(scope));
	else if (placing->by_ledger)
		states = psprintf("(SELECT m.mrr_after, m.active_after FROM %s m UNION SELECT 0, false) v",
						  cs_place_movements(scope));
	else
		states = psprintf("%s c", cs_place_customers(scope));
	state = cs_query(
		psprintf("SELECT %s%s%s FROM %s",
				 placing->by_customer ? "c.customer_id AS _customer, c.customer_id, c.name,"
										" c.owner, c.parent_id, c.created_at, c.attributes"
									  : "",
				 placing->by_customer && placing->by_ledger ? ", " : "",
				 /* without a subscription source MRR is not known */
				 placing->by_ledger
					 ? "v.mrr_after AS _mrr, v.active_after AS _active, v.active_after AS active,"
					   " CASE WHEN EXISTS (SELECT FROM cs.source s WHERE s.kind = 'subscription'"
					   " AND s.enabled) THEN v.mrr_after::float8 END AS mrr"
					 : "",
				 states),
		args, nargs);

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s%s%s, ", placing->by_customer ? "_customer" : "",
					 placing->by_customer && placing->by_ledger ? ", " : "",
					 placing->by_ledger ? "_mrr, _active" : "");
	(void) cs_segment_case(dimension, placing->fallback ? placing->fallback : "(none)", &sql,
						   &query.search_path);
	appendStringInfoString(&sql, " AS segment FROM state");
	query.sql = sql.data;
	cs_register("state", state);
	placed = cs_user_query(&query, &error);
	cs_unregister("state");
	tuplestore_end(state->store);
	return placed;
}

/*
 * cs_internal.states_placed(dimension): (customer_id, mrr, active, segment) of
 * every state that a customer was in by the ledger, and of being inactive; no
 * row where the rules cannot be had in one pass, or one raises.
 */
Datum
cs_states_placed_sql(PG_FUNCTION_ARGS)
{
	CsPlacing placing;
	CsResult *placed = NULL;
	char *dimension;
	CsFrame frame;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	dimension = text_to_cstring(PG_GETARG_TEXT_PP(0));
	cs_enter(&frame);
	if (cs_place_read(dimension, &placing) && placing.mode == 'r')
	{
		/* all columns, whatever the rules depend on */
		placing.by_customer = placing.by_ledger = true;
		placed = cs_placed_rows(dimension, &placing, SCOPE_ALL, CS_NO_ARGS);
	}
	if (placed != NULL)
		cs_return_rows(placed, fcinfo, 0);
	cs_leave(&frame);
	return (Datum) 0;
}
