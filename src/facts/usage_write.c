/*
 * usage_write.c
 *		Rows of the rollup written many at a time.
 *
 * In: rows of usage_month, none of which is there yet, best in order of customer
 * and month.  Out: the rows and their index entries.  As COPY does it: a page is
 * filled and logged at once, where a statement would do so row by row.
 *
 * Cases.  Aborted: rows and entries go with the transaction.  Somebody else
 * writes one of the rows: the unique index waits for him, then raises, as an
 * INSERT does.
 */
#include "cs_ext.h"

#include "access/heapam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "executor/executor.h"
#include "facts/usage_write.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#define ROWS 256
#define BYTES (64 * 1024)

struct CsUsageWriter
{
	Relation rel;
	ResultRelInfo *result;
	EState *estate;
	BulkInsertState bulk;
	TupleTableSlot *slots[ROWS];
	int n;
	Size bytes;
};

CsUsageWriter *
cs_usage_writer(void)
{
	CsUsageWriter *w = palloc0(sizeof(CsUsageWriter));
	Oid relid = get_relname_relid("usage_month", get_namespace_oid("cs_internal", false));

	w->rel = table_open(relid, RowExclusiveLock);
	w->estate = CreateExecutorState();
	w->result = makeNode(ResultRelInfo);
	InitResultRelInfo(w->result, w->rel, 1, NULL, 0);
	ExecOpenIndices(w->result, false);
	w->bulk = GetBulkInsertState();
	for (int i = 0; i < ROWS; i++)
		w->slots[i] = table_slot_create(w->rel, NULL);
	return w;
}

/* What was gathered goes into the table and its index. */
static void
flush(CsUsageWriter *w)
{
	if (w->n == 0)
		return;
	table_multi_insert(w->rel, w->slots, w->n, GetCurrentCommandId(true), 0, w->bulk);
	for (int i = 0; i < w->n; i++)
	{
		cs_insert_index_tuples(w->result, w->slots[i], w->estate);
		ExecClearTuple(w->slots[i]);
	}
	ResetPerTupleExprContext(w->estate);
	w->n = 0;
	w->bytes = 0;
}

void
cs_usage_write(CsUsageWriter *w, Datum customer, DateADT month, struct varlena *usage)
{
	TupleTableSlot *slot = w->slots[w->n++];

	ExecClearTuple(slot);
	slot->tts_values[0] = customer;
	slot->tts_values[1] = DateADTGetDatum(month);
	slot->tts_values[2] = PointerGetDatum(usage);
	memset(slot->tts_isnull, 0, sizeof(bool) * 3);
	ExecStoreVirtualTuple(slot);
	ExecMaterializeSlot(slot);
	w->bytes += VARSIZE(usage);
	if (w->n == ROWS || w->bytes >= BYTES)
		flush(w);
}

void
cs_usage_writer_end(CsUsageWriter *w)
{
	flush(w);
	for (int i = 0; i < ROWS; i++)
		ExecDropSingleTupleTableSlot(w->slots[i]);
	FreeBulkInsertState(w->bulk);
	table_finish_bulk_insert(w->rel, 0);
	ExecCloseIndices(w->result);
	table_close(w->rel, NoLock);
	FreeExecutorState(w->estate);
	CommandCounterIncrement();
	pfree(w);
}
