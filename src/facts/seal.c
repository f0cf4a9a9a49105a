/*
 * seal.c
 *		cs.seal(source, before): what happened before an instant is final.
 *
 * In: the rows of a usage_event source below the seal, read once more.  Out:
 * cs_internal.usage_sealed, their rollup by customer and month, which is dumped;
 * cs_internal.seal; and capture triggers that know the seal.  From then on
 * cs_source_rows() gives rows from the seal on only, so ingest, rebuild and
 * metrics over the rows do the same whether rows below it are still there or
 * were dropped, detached or deleted.  The rollup that people read is the sealed
 * part united with the derived one (cs_internal.usage_whole).
 *
 *	writers			wait while the seal is made (the lock of making triggers), so
 *					each row is either in the sealed part or above the seal or
 *					counted as a correction that came too late.
 *	refresh			takes turns with it.
 *	watermark		the last look is moved to the snapshot of the seal.
 *	scan, window	have no such lock: a row that is committed below the seal
 *					between the reading and the seal's commit is neither sealed nor
 *					counted.
 *	abort, crash	all of it is one transaction.
 *	restore			seal and sealed part are dumped, the derived part is made
 *					anew from what rows there are; triggers are dumped with their
 *					arguments.
 *	zone			the sealed days are cut in it, so cs.policy refuses another.
 *	rollback to a	corrections of a rolled back subtransaction stay counted: the
 *	savepoint		number shown may be too high, never too low.
 */
#include "cs_ext.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "core/core.h"
#include "facts/source_kind.h"
#include "facts/usage.h"
#include "refresh/refresh.h"

PG_FUNCTION_INFO_V1(cs_seal);
PG_FUNCTION_INFO_V1(cs_unseal);

/*
 * sealable: the source of this name, refused where it cannot be sealed.
 */
static CsSource *
sealable(const char *name, const char *what)
{
	CsSource *source;

	cs_must_be_member(cs_policy(false), cs_caller(), what);
	source = cs_source_named(name);
	if (strcmp(source->kind, "usage_event") != 0)
		ereport(ERROR, errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("source \"%s\" of kind \"%s\" cannot be sealed", name, source->kind),
				errdetail("Only usage events are kept as a rollup; of other kinds the rows "
						  "themselves are read."),
				errhint("Keep these rows: they are few."));
	if (IsolationUsesXactSnapshot())
		ereport(ERROR, errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				errmsg("to %s needs the isolation level READ COMMITTED", what),
				errdetail("Under an older snapshot rows would be missed."));
	return source;
}

/*
 * read_below: the rollup of rows from the seal that is there up to the new one,
 * added to what is sealed.  Returns how many customers and months it has.
 */
static int64
read_below(const CsSource *source, TimestampTz before)
{
	CsUserQuery query = {0};
	CsResult *rows;
	int64 n;

	query.sql = psprintf(
		"SELECT %s AS customer_id, pg_catalog.date_trunc('month', r.at)::pg_catalog.date AS month, "
		"cs.usage_agg(r.at::pg_catalog.date, r.at, r.user_id::text, r.event::text, "
		"r.quantity::numeric, r.event_count::bigint) AS usage, min(r.at) AS first_at, max(r.at) AS "
		"last_at FROM (%s) r WHERE r.at < as_of GROUP BY r.customer_key, 2",
		cs_source_id(source, "r.customer_key"), cs_source_rows(source, false, false));
	query.as_of = before;
	query.search_path = source->search_path;
	rows = cs_user_query(&query, NULL);
	n = (int64) rows->nrows;
	cs_register("sealing", rows);
	cs_exec("INSERT INTO cs_internal.usage_sealed AS s (source, customer_id, month, usage) SELECT "
			"$1, customer_id, month, cs.union_agg(usage) FROM sealing GROUP BY customer_id, month "
			"ON CONFLICT (source, customer_id, month) DO UPDATE SET usage = s.usage OPERATOR(cs.+) "
			"excluded.usage",
			CS_ARGS(cs_text(source->name)));
	cs_exec("INSERT INTO cs_internal.seal AS s (source, before, time_zone, actor, sealed_at, "
			"first_at, last_at) SELECT $1, $2, p.time_zone, cs_internal.caller(), "
			"clock_timestamp(), r.first_at, r.last_at FROM cs.policy p, (SELECT min(first_at) AS "
			"first_at, max(last_at) AS last_at FROM sealing) r ON CONFLICT (source) DO UPDATE SET "
			"before = excluded.before, actor = excluded.actor, sealed_at = excluded.sealed_at, "
			"first_at = least(s.first_at, excluded.first_at), last_at = greatest(s.last_at, "
			"excluded.last_at)",
			CS_ARGS(cs_text(source->name), cs_tstz(before)));
	cs_unregister("sealing");
	tuplestore_end(rows->store);
	return n;
}

/*
 * derive_again: the derived rollup of the months below the seal, without the
 * rows that are sealed now.
 */
static void
derive_again(const CsSource *source, TimestampTz before)
{
	CsPolicy *policy = cs_policy(false);
	char *after = pstrdup("");
	int found;

	for (;;)
	{
		Datum ids = cs_ids_from_query(
			"SELECT DISTINCT customer_id FROM cs_internal.usage_sealed WHERE source = $1 AND "
			"customer_id > $2 ORDER BY customer_id LIMIT $3",
			CS_ARGS(cs_text(source->name), cs_text(after), cs_int4(cs_refresh_batch)), &found);

		if (found == 0)
			return;
		CHECK_FOR_INTERRUPTS();
		cs_exec("SELECT ($1)[array_length($1, 1)]", CS_ARGS(cs_textarray(ids)));
		after = cs_value();
		cs_usage_ingest(ids, DT_NOBEGIN, before - 1, policy);
	}
}

/*
 * seal_source: all of it, on one snapshot taken after the locks.
 */
static int64
seal_source(CsSource *source, TimestampTz before)
{
	Snapshot snapshot = RegisterSnapshot(GetTransactionSnapshot());
	int timeout = cs_user_sql_timeout;
	volatile int64 n = 0;

	PG_TRY();
	{
		cs_set_snapshot(snapshot);
		cs_user_sql_timeout = 0; /* the caller's own statement_timeout counts */
		if (strcmp(source->capture, "watermark") == 0)
			(void) cs_watermark_look(source);
		n = read_below(source, before);
		source->sealed = before;
		if (cs_source_has_triggers(source))
		{
			cs_source_drop_triggers(source);
			cs_source_add_triggers(source);
		}
		derive_again(source, before);
	}
	PG_FINALLY();
	{
		cs_user_sql_timeout = timeout;
		cs_set_snapshot(NULL);
		UnregisterSnapshot(snapshot);
	}
	PG_END_TRY();
	return n;
}

/*
 * cs_seal: cs_internal.seal(source, before).  Returns the number of customers
 * and months that were added to what is sealed.
 */
Datum
cs_seal(PG_FUNCTION_ARGS)
{
	CsFrame frame;
	CsSource *source;
	TimestampTz before;
	int64 n = 0;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("source and before must not be NULL"));
	before = PG_GETARG_TIMESTAMPTZ(1);
	cs_enter(&frame);
	source = sealable(text_to_cstring(PG_GETARG_TEXT_PP(0)), "seal a source");
	if (TIMESTAMP_NOT_FINITE(before) || before > cs_now())
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("a source cannot be sealed before an instant that is still to come"),
				errhint("What is before it must be final."));
	if (before < source->sealed)
		ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("source \"%s\" is sealed before a later instant already", source->name),
				errdetail("It is sealed before %s.",
						  DatumGetCString(DirectFunctionCall1(
							  timestamptz_out, TimestampTzGetDatum(source->sealed)))),
				errhint("A seal only moves forward; cs.unseal(%s) gives up all of it.",
						quote_literal_cstr(source->name)));
	if (!OidIsValid(source->relid))
		ereport(ERROR, errcode(ERRCODE_UNDEFINED_TABLE),
				errmsg("relation %s does not exist", source->relation));
	if (before > source->sealed)
	{
		cs_take_turn();
		if (cs_source_has_triggers(source))
			cs_source_lock(source);
		cs_capture_flush();
		n = seal_source(source, before);
	}
	cs_leave(&frame);
	PG_RETURN_INT64(n);
}

/*
 * cs_unseal: cs_internal.unseal(source): gives up what is sealed; the next
 * refresh reads the rows that are there.  Returns the number of customers and
 * months given up.
 */
Datum
cs_unseal(PG_FUNCTION_ARGS)
{
	CsFrame frame;
	CsSource *source;
	int64 n;

	if (PG_ARGISNULL(0))
		ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("source must not be NULL"));
	cs_enter(&frame);
	source = sealable(text_to_cstring(PG_GETARG_TEXT_PP(0)), "unseal a source");
	cs_take_turn();
	if (OidIsValid(source->relid) && cs_source_has_triggers(source))
	{
		cs_source_lock(source);
		source->sealed = DT_NOBEGIN;
		cs_source_drop_triggers(source);
		cs_source_add_triggers(source);
	}
	cs_exec("UPDATE cs_internal.source_state SET needs_scan = true WHERE source = $1",
			CS_ARGS(cs_text(source->name)));
	cs_exec("INSERT INTO cs_internal.pending (source, customer_id) SELECT DISTINCT $1, customer_id "
			"FROM cs_internal.usage_sealed WHERE source = $1 ON CONFLICT (source, customer_id) DO "
			"UPDATE SET since = '-infinity', until = 'infinity'",
			CS_ARGS(cs_text(source->name)));
	n = (int64) cs_exec("DELETE FROM cs_internal.usage_sealed WHERE source = $1",
						CS_ARGS(cs_text(source->name)));
	cs_exec("DELETE FROM cs_internal.seal WHERE source = $1", CS_ARGS(cs_text(source->name)));
	cs_leave(&frame);
	PG_RETURN_INT64(n);
}
