/*
 * health.c
 *		Functions of health that SQL cannot write: the override whose expiry
 *		takes any form of an instant, the score of the past recomputed, and the
 *		score in force without a statement.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/core.h"
#include "insight/scorecard.h"
#include "refresh/refresh.h"

PG_FUNCTION_INFO_V1(cs_override_health);
PG_FUNCTION_INFO_V1(cs_recompute_score);
PG_FUNCTION_INFO_V1(cs_health_band_sql);

/*
 * cs.override_health(customer text | bigint | uuid, value, delta, band, reason,
 * expires_at anycompatible): a gate of its own.
 *
 * All of its arguments but the customer have defaults, so with one function per
 * form of expires_at a call without it would be ambiguous, and a literal would
 * be read in the session's time zone.  As anycompatible a literal is text, and
 * text, date and timestamp are read in the policy's zone, as everywhere.
 */
Datum
cs_override_health(PG_FUNCTION_ARGS)
{
	Oid customer_type = get_fn_expr_argtype(fcinfo->flinfo, 0);
	Oid type = get_fn_expr_argtype(fcinfo->flinfo, 5);
	CsArg args[6];
	CsFrame frame;
	Datum result;
	bool isnull;

	if (type == UNKNOWNOID || !OidIsValid(type))
		type = TEXTOID;
	if (type != TEXTOID && type != DATEOID && type != TIMESTAMPOID && type != TIMESTAMPTZOID)
		ereport(ERROR, errcode(ERRCODE_DATATYPE_MISMATCH),
				errmsg("expires_at of an override cannot be of type %s", format_type_be(type)),
				errhint("Give a timestamptz, a timestamp, a date or a text."));
	for (int i = 0; i < 6; i++)
		args[i] = cs_datum(i == 0  ? customer_type
						   : i < 3 ? FLOAT8OID
						   : i < 5 ? TEXTOID
								   : type,
						   PG_ARGISNULL(i) ? (Datum) 0 : PG_GETARG_DATUM(i), PG_ARGISNULL(i));

	cs_enter(&frame);
	cs_exec("SELECT cs_internal.override_health($1::text, $2, $3, $4, $5, cs_internal.instant($6))",
			args, lengthof(args));
	result = cs_value_datum(&isnull);
	cs_leave(&frame);
	return result;
}

/*
 * cs_internal.recompute_score(customer text, as_of timestamptz): evaluates the
 * customer at that instant from the facts, without leaving a trace; the
 * automatic score, NULL where there is none.
 */
Datum
cs_recompute_score(PG_FUNCTION_ARGS)
{
	Datum id = PG_GETARG_DATUM(0);
	TimestampTz as_of = PG_GETARG_TIMESTAMPTZ(1);
	ArrayType *ids = construct_array(&id, 1, TEXTOID, -1, false, TYPALIGN_INT);
	CsFrame frame;
	CsResult *rows;
	TupleTableSlot *slot;
	Datum score = (Datum) 0;
	bool isnull = true;

	cs_enter(&frame);
	rows = cs_what_if(PointerGetDatum(ids), 1, as_of, "SELECT score FROM evaluated");
	slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);
	if (tuplestore_gettupleslot(rows->store, true, false, slot))
		score = slot_getattr(slot, 1, &isnull);
	if (!isnull)
		score = Float8GetDatum(DatumGetFloat8(score));
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(rows->store);
	cs_leave(&frame);
	if (isnull)
		PG_RETURN_NULL();
	return score;
}

/*
 * cs_health_score_shortcut: the score in force, read by the primary key of
 * cs_internal.health.  Left to the function behind: an instant, and where there
 * is no score (it says whether cs_ext is set up at all).
 */
bool
cs_health_score_shortcut(FunctionCallInfo fcinfo, Datum *result)
{
	Oid schema = get_namespace_oid("cs_internal", true);
	Oid relid = get_relname_relid("health", schema);
	Oid index = get_relname_relid("health_pkey", schema);
	Relation rel;
	AttrNumber attnum;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	bool isnull = true;

	if (PG_ARGISNULL(0) || !PG_ARGISNULL(1) || !ActiveSnapshotSet())
		return false;
	if (!OidIsValid(relid) || !OidIsValid(index))
		return false;
	rel = table_open(relid, AccessShareLock);
	attnum = get_attnum(relid, "score");
	ScanKeyInit(&key, get_attnum(relid, "customer_id"), BTEqualStrategyNumber, F_TEXTEQ,
				PG_GETARG_DATUM(0));
	scan = systable_beginscan(rel, index, true, GetActiveSnapshot(), 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Datum score = heap_getattr(tuple, attnum, RelationGetDescr(rel), &isnull);

		if (!isnull)
			*result = Float8GetDatum(DatumGetFloat8(score));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return !isnull;
}

/*
 * cs_internal.health_band(score, red_below, green_from, edge_closed,
 * hysteresis, previous): cs_band for SQL.  NULL without score or cuts.
 */
Datum
cs_health_band_sql(PG_FUNCTION_ARGS)
{
	CsScorecard card = {0};
	CsBand previous = CS_BAND_NONE;

	for (int i = 0; i < 5; i++)
		if (PG_ARGISNULL(i))
			PG_RETURN_NULL();
	card.red_below = PG_GETARG_FLOAT8(1);
	card.green_from = PG_GETARG_FLOAT8(2);
	card.edge_below = strcmp(text_to_cstring(PG_GETARG_TEXT_PP(3)), "below") == 0;
	card.hysteresis = PG_GETARG_FLOAT8(4);
	if (!PG_ARGISNULL(5))
		previous = cs_band_of_name(text_to_cstring(PG_GETARG_TEXT_PP(5)));
	PG_RETURN_TEXT_P(cstring_to_text(cs_band_name(cs_band(&card, PG_GETARG_FLOAT8(0), previous))));
}
