/*
 * bulk.c
 *		Rows of a table written many at a time.
 *
 * In: rows of one of the extension's own tables, none of which is there yet, best
 * in the order of its key.  Out: the rows and, where wanted, their index entries.
 * As COPY does it: a page is filled and logged at once, where a statement would
 * do so row by row.  Triggers are not called, constraints that are no index not
 * looked at.
 *
 * Where nothing stood in a table rows may be written past its indexes, which are
 * made anew over all of them: that costs less than adding to them one by one, and
 * least where what they need was kept while the rows were written (bulk_keys.c).
 * Until the commit nobody sees the rows, so nobody misses them in an index; after
 * an abort they are dead rows that no index knows, for vacuum.
 *
 * Cases.  Aborted: rows and entries go with the transaction.  Somebody else
 * writes one of the rows: the unique index waits for him, then raises, as an
 * INSERT does.  Somebody reads the table and keeps his transaction open: an index
 * cannot be made anew while he holds it; a gap is looked for for a moment without
 * standing in anybody's way, then rows are added one by one.
 */
#include "cs_ext.h"

#include "access/heapam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

#include "core/bulk.h"
#include "core/bulk_keys.h"

/* Rows that are written at a time, and bytes of them, where they are long. */
#define ROWS 1000
#define BYTES (64 * 1024)

/* How long a gap between readers is looked for, in tries of 100 ms. */
#define LOCK_TRIES 20

struct CsBulk
{
	Relation rel;
	EState *estate;
	ResultRelInfo *result; /* NULL: without indexes */
	BulkInsertState state; /* NULL: pages are not written out while rows come */
	CsBulkKeys *keys;      /* NULL: not kept */
	CommandId cid;
	MemoryContext context; /* where this lives */
	TupleTableSlot *slots[ROWS];
	int n;
	Size bytes;
	int64 rows;
};

/*
 * cs_bulk_begin: see bulk.h.
 */
CsBulk *
cs_bulk_begin(const char *table, LOCKMODE lock, bool indexed)
{
	CsBulk *b = palloc0(sizeof(CsBulk));

	b->rel = table_open(get_relname_relid(table, get_namespace_oid("cs_internal", false)), lock);
	b->estate = CreateExecutorState();
	if (indexed)
	{
		b->result = makeNode(ResultRelInfo);
		InitResultRelInfo(b->result, b->rel, 1, NULL, 0);
		ExecOpenIndices(b->result, false);
		/* rows that have no entries yet will be read at once, and had better stay in shared buffers */
		b->state = GetBulkInsertState();
	}
	/* parallel workers may come while rows are written, and then nobody can take an id */
	(void) GetCurrentTransactionId();
	b->cid = GetCurrentCommandId(true);
	b->context = CurrentMemoryContext;
	return b;
}

/*
 * cs_bulk_keys: see bulk.h.
 */
CsBulkKeys *
cs_bulk_keys(CsBulk *b)
{
	Assert(b->result == NULL && b->n == 0 && b->rows == 0);
	b->keys = cs_keys_begin(b->rel);
	return b->keys;
}

/* What was gathered goes into the table and its indexes. */
static void
flush(CsBulk *b)
{
	/* writing leaves pieces behind */
	MemoryContext old = MemoryContextSwitchTo(GetPerTupleMemoryContext(b->estate));

	if (b->n > 0)
		table_multi_insert(b->rel, b->slots, b->n, b->cid, 0, b->state);
	MemoryContextSwitchTo(old);
	for (int i = 0; i < b->n; i++)
	{
		if (b->result != NULL)
			cs_insert_index_tuples(b->result, b->slots[i], b->estate);
		if (b->keys != NULL)
			cs_keys_add(b->keys, b->slots[i]);
		ExecClearTuple(b->slots[i]);
	}
	ResetPerTupleExprContext(b->estate);
	b->rows += b->n;
	b->n = 0;
	b->bytes = 0;
}

/*
 * cs_bulk_slot, cs_bulk_put: see bulk.h.
 */
TupleTableSlot *
cs_bulk_slot(CsBulk *b)
{
	if (b->slots[b->n] == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(b->context);

		b->slots[b->n] = table_slot_create(b->rel, NULL);
		MemoryContextSwitchTo(old);
	}
	return b->slots[b->n];
}

/* The row that was filled in is one. */
static void
put(CsBulk *b, Size bytes)
{
	b->n++;
	b->bytes += bytes;
	if (b->n == ROWS || b->bytes >= BYTES)
		flush(b);
}

void
cs_bulk_put(CsBulk *b, Size bytes)
{
	TupleTableSlot *slot = b->slots[b->n];

	ExecStoreVirtualTuple(slot);
	ExecMaterializeSlot(slot);
	put(b, bytes);
}

/*
 * cs_bulk_put_tuple: see bulk.h.
 */
void
cs_bulk_put_tuple(CsBulk *b, HeapTupleHeader row, Size bytes)
{
	HeapTupleData tuple;

	tuple.t_len = bytes;
	tuple.t_data = row;
	tuple.t_tableOid = RelationGetRelid(b->rel);
	ItemPointerSetInvalid(&tuple.t_self);
	ExecForceStoreHeapTuple(&tuple, cs_bulk_slot(b), false);
	put(b, bytes);
}

/*
 * cs_bulk_end: see bulk.h.
 */
int64
cs_bulk_end(CsBulk *b)
{
	int64 rows;

	flush(b);
	for (int i = 0; i < ROWS && b->slots[i] != NULL; i++)
		ExecDropSingleTupleTableSlot(b->slots[i]);
	if (b->state != NULL)
		FreeBulkInsertState(b->state);
	table_finish_bulk_insert(b->rel, 0);
	if (b->result != NULL)
		ExecCloseIndices(b->result);
	table_close(b->rel, NoLock);
	FreeExecutorState(b->estate);
	CommandCounterIncrement();
	rows = b->rows;
	pfree(b);
	return rows;
}

/* Whether all indexes are ours until the end of the transaction; never stands in a queue for them. */
static bool
lock_indexes(List *indexes)
{
	for (int try = 0; try < LOCK_TRIES; try++)
	{
		int n = 0;
		ListCell *lc;

		foreach (lc, indexes)
		{
			if (!ConditionalLockRelationOid(lfirst_oid(lc), AccessExclusiveLock))
				break;
			n++;
		}
		if (n == list_length(indexes))
			return true;
		while (n-- > 0)
			UnlockRelationOid(list_nth_oid(indexes, n), AccessExclusiveLock);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 100,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return false;
}

/* All rows of the table are put into its indexes, which are empty of them. */
static void
index_one_by_one(Relation rel)
{
	EState *estate = CreateExecutorState();
	ResultRelInfo *result = makeNode(ResultRelInfo);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan;

	InitResultRelInfo(result, rel, 0, NULL, 0);
	ExecOpenIndices(result, false);
	scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		(void) cs_insert_index_tuples(result, slot, estate);
		ResetPerTupleExprContext(estate);
	}
	table_endscan(scan);
	ExecCloseIndices(result);
	ExecDropSingleTupleTableSlot(slot);
	FreeExecutorState(estate);
}

/*
 * cs_bulk_index: see bulk.h.
 */
void
cs_bulk_index(const char *table, CsBulkKeys *keys)
{
	Relation rel =
		table_open(get_relname_relid(table, get_namespace_oid("cs_internal", false)), NoLock);
	List *indexes = RelationGetIndexList(rel);
	ListCell *lc;

	if (lock_indexes(indexes))
	{
		foreach (lc, indexes)
			cs_keys_reindex(keys, rel, lfirst_oid(lc));
	}
	else
	{
		PushActiveSnapshot(GetLatestSnapshot());
		index_one_by_one(rel);
		PopActiveSnapshot();
	}
	table_close(rel, NoLock);
}
