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

/* Rows of the table by their key, as they are now: who was marked since the step's snapshot was taken has one, too. */
typedef struct Marks
{
	Relation rel;
	Relation index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	ScanKeyData keys[2];
} Marks;

static void
open_marks(Marks *m, Oid table)
{
	PushCopiedSnapshot(GetLatestSnapshot());
	UpdateActiveSnapshotCommandId();
	m->rel = table_open(table, NoLock);
	list_free(RelationGetIndexList(m->rel)); /* finds the primary key */
	m->index = index_open(m->rel->rd_pkindex, AccessShareLock);
	m->slot = table_slot_create(m->rel, NULL);
	ScanKeyEntryInitialize(&m->keys[0], 0, 1, BTGreaterEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXT_GE, (Datum) 0);
	ScanKeyEntryInitialize(&m->keys[1], 0, 1, BTLessEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXT_LE, (Datum) 0);
	m->scan = cs_index_beginscan(m->rel, m->index, GetActiveSnapshot(), 2);
}

static void
close_marks(Marks *m)
{
	index_endscan(m->scan);
	ExecDropSingleTupleTableSlot(m->slot);
	index_close(m->index, AccessShareLock);
	table_close(m->rel, NoLock);
	PopActiveSnapshot();
}

static void
seek(Marks *m, Datum first, Datum last)
{
	m->keys[0].sk_argument = first;
	m->keys[1].sk_argument = last;
	index_rescan(m->scan, m->keys, 2, NULL, 0);
}

static bool
next_mark(Marks *m)
{
	return index_getnext_slot(m->scan, ForwardScanDirection, m->slot);
}

/*
 * find_marked: for each of the customers whether he has a row.  The customers of a
 * chunk stand beside each other, so mostly there is nothing between the first and
 * the last of them; where there is much they are looked up one by one.
 */
static int
find_marked(Oid table, const Datum *each, int n, bool *marked)
{
	Marks m;
	int nmarked = 0;
	int passed = 0;
	int i = 0;

	memset(marked, 0, sizeof(bool) * n);
	open_marks(&m, table);
	seek(&m, each[0], each[n - 1]);
	while (passed < 2 * n && next_mark(&m))
	{
		bool isnull;
		Datum id = slot_getattr(m.slot, 1, &isnull);
		int c = -1;

		passed++;
		while (i < n && (c = cs_compare_texts(each[i], id)) < 0)
			i++;
		if (c == 0)
		{
			marked[i] = true;
			nmarked++;
		}
	}
	/* who is behind where the walk was given up */
	for (; passed == 2 * n && i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (marked[i])
			continue;
		seek(&m, each[i], each[i]);
		marked[i] = next_mark(&m);
		nmarked += marked[i];
	}
	close_marks(&m);
	return nmarked;
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
	bool *marked;
	int n;
	int nmarked = 0;

	if (!last || !ConditionalLockRelationOid(table, ShareRowExclusiveLock))
	{
		by_statement(ids);
		return;
	}
	each = cs_text_elements(ids, &n);
	if (n == 0)
		return;
	marked = palloc0(sizeof(bool) * n);
	if (!cs_is_empty("dirty"))
		nmarked = find_marked(table, each, n, marked);
	bulk = cs_bulk_begin("dirty", RowExclusiveLock, true);
	for (int i = 0; i < n; i++)
	{
		TupleTableSlot *slot;

		if (marked[i])
			continue;
		slot = cs_bulk_slot(bulk);
		slot->tts_values[0] = each[i];
		slot->tts_values[1] = TimestampTzGetDatum(now);
		slot->tts_isnull[0] = slot->tts_isnull[1] = false;
		slot->tts_isnull[2] = true;
		cs_bulk_put(bulk, 40);
	}
	(void) cs_bulk_end(bulk);
	if (nmarked > 0)
	{
		Datum *those = palloc(sizeof(Datum) * nmarked);

		nmarked = 0;
		for (int i = 0; i < n; i++)
			if (marked[i])
				those[nmarked++] = each[i];
		by_statement(cs_text_array(those, nmarked));
	}
}
