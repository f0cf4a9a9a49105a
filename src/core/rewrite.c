/*
 * rewrite.c
 *		Rows of the extension's own tables replaced one by one, where they stand.
 *
 * In: the places of rows that this transaction has read, and what takes their
 * place.  Out: new versions of the rows with their index entries.  A statement
 * would look each row up once more, and lock it, though who writes it holds the
 * customer's lock.  Triggers are not called, constraints that are no index not
 * looked at.
 *
 * Cases.  Aborted: rows and entries go with the transaction.  Somebody wrote a
 * row after it was read, without the customer's lock: raises, as a statement
 * under REPEATABLE READ does, and the step is done again.
 */
#include "cs_ext.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "executor/executor.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "core/rewrite.h"

struct CsRewrite
{
	Relation rel;
	EState *estate;
	ResultRelInfo *result;
	TupleTableSlot *slot;
};

/*
 * cs_rewrite_begin: see rewrite.h.
 */
CsRewrite *
cs_rewrite_begin(const char *table)
{
	CsRewrite *w = palloc0(sizeof(CsRewrite));

	w->rel = table_open(get_relname_relid(table, get_namespace_oid("cs_internal", false)),
						RowExclusiveLock);
	w->estate = CreateExecutorState();
	w->result = makeNode(ResultRelInfo);
	InitResultRelInfo(w->result, w->rel, 1, NULL, 0);
	ExecOpenIndices(w->result, false);
	w->slot = table_slot_create(w->rel, NULL);
	return w;
}

Relation
cs_rewrite_table(CsRewrite *w)
{
	return w->rel;
}

/*
 * cs_rewrite_slot: its columns are to be set, all of them.
 */
TupleTableSlot *
cs_rewrite_slot(CsRewrite *w)
{
	ExecClearTuple(w->slot);
	return w->slot;
}

/* Raises where somebody else has changed the row since the snapshot. */
static void
must_be_ours(TM_Result result)
{
	switch (result)
	{
		case TM_Ok:
			break;
		case TM_Updated:
		case TM_Deleted:
			ereport(ERROR, errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					errmsg("could not serialize access due to concurrent update"),
					errdetail("Another refresh has taken the same rows."),
					errhint("Do the transaction again."));
			break;
		default:
			elog(ERROR, "row of cs_ext in state %d", result);
	}
}

/*
 * cs_row_gone: see rewrite.h.
 */
void
cs_row_gone(Relation rel, ItemPointer tid)
{
	TM_FailureData failure;

	must_be_ours(table_tuple_delete(rel, tid, GetCurrentCommandId(true), GetActiveSnapshot(),
									InvalidSnapshot, true, &failure, false));
}

/*
 * cs_rewrite_put, cs_rewrite_gone: see rewrite.h.
 */
void
cs_rewrite_put(CsRewrite *w, ItemPointer tid)
{
	bool in_index = true;

	ExecStoreVirtualTuple(w->slot);
	if (tid == NULL)
		simple_table_tuple_insert(w->rel, w->slot);
	else
		must_be_ours(cs_table_tuple_update(w->rel, tid, w->slot, &in_index));
	if (in_index)
		cs_insert_index_tuples(w->result, w->slot, w->estate);
	ResetPerTupleExprContext(w->estate);
}

void
cs_rewrite_gone(CsRewrite *w, ItemPointer tid)
{
	cs_row_gone(w->rel, tid);
}

/*
 * cs_rewrite_end: see rewrite.h.
 */
void
cs_rewrite_end(CsRewrite *w)
{
	ExecDropSingleTupleTableSlot(w->slot);
	ExecCloseIndices(w->result);
	table_close(w->rel, NoLock);
	FreeExecutorState(w->estate);
	CommandCounterIncrement();
	pfree(w);
}
