/*
 * mark.c
 *		Marking customers to be evaluated: rows of cs_internal.dirty.
 *
 * In: the customers of a chunk that was ingested.  Out: a row each, without a
 * cause, for the cause is that facts changed; who has one for a definition's sake
 * gives that up.
 *
 * An INSERT with ON CONFLICT writes each row twice into the log and looks into
 * the index twice.  Mostly none of them is marked yet: then they are written many
 * at a time, in order.
 *
 * Cases.
 * Somebody marks one of them at the same time (who acts on an alert, assigns a
 * segment, overrides a score): writers are kept out from the look for rows until
 * the commit, which is next; where one is at it already, or the transaction is
 * the caller's and may last, the statement is run, which waits for rows alone.
 * Vacuum at work: likewise.
 * Crash, abort: the marks go with what was ingested, and the customers are
 * pending again.
 */
#include "cs_ext.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation_d.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/bulk.h"
#include "core/empty.h"
#include "core/texts.h"
#include "refresh/mark.h"

static void
by_statement(Datum ids)
{
	cs_exec("INSERT INTO cs_internal.dirty (customer_id, marked_at)"
			" SELECT i, clock_timestamp() FROM unnest($1) i ON CONFLICT (customer_id) DO UPDATE "
			"SET cause = NULL"
			" WHERE dirty.cause IS NOT NULL",
			CS_ARGS(cs_textarray(ids)));
}

/*
 * unmarked: brings those to the front who have no row, behind them those who
 * have; returns how many have none.
 */
static int
unmarked(Oid table, Datum *each, int n)
{
	Relation rel = table_open(table, NoLock);
	Datum *marked = palloc(sizeof(Datum) * (n + 1));
	int nmarked = 0;
	int nunmarked = 0;
	Relation index;
	IndexScanDesc scan;
	ScanKeyData key;
	TupleTableSlot *slot;

	/* not the step's snapshot: who was marked since it was taken has a row, too */
	PushCopiedSnapshot(GetLatestSnapshot());
	UpdateActiveSnapshotCommandId();
	list_free(RelationGetIndexList(rel)); /* finds the primary key */
	index = index_open(rel->rd_pkindex, AccessShareLock);
	slot = table_slot_create(rel, NULL);
	ScanKeyEntryInitialize(&key, 0, 1, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID, F_TEXTEQ,
						   (Datum) 0);
	scan = cs_index_beginscan(rel, index, GetActiveSnapshot(), 1);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		key.sk_argument = each[i];
		index_rescan(scan, &key, 1, NULL, 0);
		if (index_getnext_slot(scan, ForwardScanDirection, slot))
			marked[nmarked++] = each[i];
		else
			each[nunmarked++] = each[i];
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(rel, NoLock);
	PopActiveSnapshot();
	memcpy(each + nunmarked, marked, sizeof(Datum) * nmarked);
	pfree(marked);
	return nunmarked;
}

/*
 * cs_mark_dirty: see mark.h.
 */
void
cs_mark_dirty(Datum ids, bool last)
{
	Oid table = get_relname_relid("dirty", get_namespace_oid("cs_internal", false));
	TimestampTz now = GetCurrentTimestamp();
	Datum *each;
	CsBulk *bulk;
	int n;
	int nunmarked;

	if (!last || !ConditionalLockRelationOid(table, ShareRowExclusiveLock))
	{
		by_statement(ids);
		return;
	}
	each = cs_text_elements(ids, &n);
	nunmarked = cs_is_empty("dirty") ? n : unmarked(table, each, n);
	bulk = cs_bulk_begin("dirty", RowExclusiveLock, true);
	for (int i = 0; i < nunmarked; i++)
	{
		TupleTableSlot *slot = cs_bulk_slot(bulk);

		slot->tts_values[0] = each[i];
		slot->tts_values[1] = TimestampTzGetDatum(now);
		slot->tts_isnull[0] = slot->tts_isnull[1] = false;
		slot->tts_isnull[2] = true;
		cs_bulk_put(bulk, 40);
	}
	(void) cs_bulk_end(bulk);
	if (nunmarked < n)
		by_statement(cs_text_array(each + nunmarked, n - nunmarked));
}
