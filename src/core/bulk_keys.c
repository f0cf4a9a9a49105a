/*
 * bulk_keys.c
 *		What the indexes of a table need of its rows, kept as the rows are written.
 *
 * In: rows of a table that had none, one after the other, with the place each
 * was given.  Out: its indexes, made without reading the table again, from the
 * values in the order that they are wanted: the sort that every index begins with
 * then finds nothing to be done.  For an index in the order of the rows that is
 * how they came; one on an instant or a number is sorted here, for the values of
 * many rows are alike, and these take the longest to compare.
 *
 * An index reads a table through the access method of the table
 * (index_build_range_scan); for as long as an index is made, the method of this
 * table's entry in the relation cache is one that hands out what was kept.  Where
 * the entry is made anew meanwhile, the index is made from the table, which is the
 * same rows.
 *
 * Memory: maintenance_work_mem; where keys want more they are let go, and the
 * index is made from the table.
 */
#include "cs_ext.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "access/tupmacs.h"
#include "catalog/pg_am.h"
#include "catalog/pg_index.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "core/bulk_keys.h"
#include "core/radix.h"

/* Rows that memory is taken for at a time. */
#define CHUNK_ROWS 4096

/* What a row costs more while an index is sorted: its place, twice. */
#define SORT_BYTES (2 * sizeof(CsRadix))

/* A column of some index; a value that is passed by reference stands elsewhere, once for rows in a row. */
typedef struct Column
{
	AttrNumber attno;
	int16 len;
	bool byval;
	int offset;
} Column;

struct CsBulkKeys
{
	MemoryContext context;
	Size limit;
	Column columns[INDEX_MAX_KEYS];
	int ncolumns;
	AttrNumber last; /* of their numbers the greatest */
	int row_size;
	char **chunks; /* rows: where it stands, then the columns */
	int64 nchunks;
	int64 chunks_size;
	int64 nrows;
	bool lost; /* too many */
};

/* Whose keys are handed out; NULL: nobody's. */
static CsBulkKeys *handed_out = NULL;

/* ---- keeping --------------------------------------------------------------- */

/* The column of a table among those that are kept, added when it is not there yet; -1: cannot be. */
static int
find_column(CsBulkKeys *keys, Relation rel, AttrNumber attno)
{
	Form_pg_attribute att;
	Column *column;

	for (int i = 0; i < keys->ncolumns; i++)
	{
		if (keys->columns[i].attno == attno)
			return i;
	}
	if (attno <= 0 || keys->ncolumns == lengthof(keys->columns))
		return -1;
	att = TupleDescAttr(RelationGetDescr(rel), attno - 1);
	if (!att->attnotnull)
		return -1;
	column = &keys->columns[keys->ncolumns];
	column->attno = attno;
	column->len = att->attlen;
	column->byval = att->attbyval;
	keys->last = Max(keys->last, attno);
	/* places come first, two bytes aligned */
	column->offset = TYPEALIGN(column->byval ? column->len : sizeof(char *),
							   Max(keys->row_size, sizeof(ItemPointerData)));
	keys->row_size = column->offset + (column->byval ? column->len : sizeof(char *));
	return keys->ncolumns++;
}

/*
 * cs_keys_begin: see bulk_keys.h.  A table with pages may have rows that somebody
 * can still see.
 */
CsBulkKeys *
cs_keys_begin(Relation rel)
{
	CsBulkKeys *keys;
	ListCell *lc;
	bool fit = true;

	if (RelationGetNumberOfBlocks(rel) > 0)
		return NULL;
	keys = palloc0(sizeof(CsBulkKeys));
	foreach (lc, RelationGetIndexList(rel))
	{
		Relation index = index_open(lfirst_oid(lc), AccessShareLock);

		fit &= index->rd_rel->relam == BTREE_AM_OID && RelationGetIndexExpressions(index) == NIL &&
			   RelationGetIndexPredicate(index) == NIL;
		for (int i = 0; fit && i < index->rd_index->indnatts; i++)
			fit = find_column(keys, rel, index->rd_index->indkey.values[i]) >= 0;
		index_close(index, AccessShareLock);
	}
	if (!fit || keys->ncolumns == 0)
	{
		pfree(keys);
		return NULL;
	}
	keys->row_size = MAXALIGN(keys->row_size);
	keys->limit = maintenance_work_mem * (Size) 1024;
	keys->context =
		AllocSetContextCreate(CurrentMemoryContext, "cs_ext index keys", ALLOCSET_DEFAULT_SIZES);
	return keys;
}

static inline char *
row_at(const CsBulkKeys *keys, int64 row)
{
	return keys->chunks[row / CHUNK_ROWS] + (row % CHUNK_ROWS) * keys->row_size;
}

static inline Datum
get_value(const Column *column, const char *row)
{
	return fetch_att(row + column->offset, true, column->byval ? column->len : sizeof(Datum));
}

/* Room for more rows; false: there are too many. */
static bool
add_chunk(CsBulkKeys *keys)
{
	MemoryContext old;

	if (MemoryContextMemAllocated(keys->context, true) +
			(keys->nchunks + 1) * CHUNK_ROWS * SORT_BYTES >
		keys->limit)
	{
		MemoryContextReset(keys->context);
		keys->lost = true;
		return false;
	}
	old = MemoryContextSwitchTo(keys->context);
	if (keys->nchunks == keys->chunks_size)
	{
		keys->chunks_size = Max(64, keys->chunks_size * 2);
		keys->chunks = keys->chunks ? repalloc(keys->chunks, sizeof(char *) * keys->chunks_size)
									: palloc(sizeof(char *) * keys->chunks_size);
	}
	keys->chunks[keys->nchunks++] = palloc((Size) CHUNK_ROWS * keys->row_size);
	MemoryContextSwitchTo(old);
	return true;
}

/*
 * cs_keys_add: see bulk_keys.h.
 */
void
cs_keys_add(CsBulkKeys *keys, TupleTableSlot *slot)
{
	char *row;
	const char *before = NULL;

	if (keys->lost || (keys->nrows % CHUNK_ROWS == 0 && !add_chunk(keys)))
		return;
	row = row_at(keys, keys->nrows);
	if (keys->nrows > 0)
		before = row_at(keys, keys->nrows - 1);
	memcpy(row, &slot->tts_tid, sizeof(ItemPointerData));
	slot_getsomeattrs(slot, keys->last);
	for (int i = 0; i < keys->ncolumns; i++)
	{
		const Column *column = &keys->columns[i];
		Datum value = slot->tts_values[column->attno - 1];

		if (!column->byval)
		{
			Datum last = before ? get_value(column, before) : (Datum) 0;

			if (before && datumIsEqual(last, value, false, column->len))
				value = last;
			else
			{
				MemoryContext old = MemoryContextSwitchTo(keys->context);

				value = datumCopy(value, false, column->len);
				MemoryContextSwitchTo(old);
			}
		}
		store_att_byval(row + column->offset, value, column->byval ? column->len : sizeof(Datum));
	}
	keys->nrows++;
}

/* ---- handing out ------------------------------------------------------------ */

/* Rows in the order they came. */
static void
hand_out_all(const CsBulkKeys *keys, Relation index, const Column *const *columns, int n,
			 IndexBuildCallback callback, void *state)
{
	Datum values[INDEX_MAX_KEYS];
	bool nulls[INDEX_MAX_KEYS] = {false};

	for (int64 i = 0; i < keys->nrows; i++)
	{
		char *row = row_at(keys, i);

		CHECK_FOR_INTERRUPTS();
		for (int k = 0; k < n; k++)
			values[k] = get_value(columns[k], row);
		callback(index, (ItemPointer) row, values, nulls, true, state);
	}
}

/*
 * Rows in order of one column, as a number with its sign; where that is not the
 * order of its type, only time is lost.
 */
static void
hand_out_sorted(const CsBulkKeys *keys, Relation index, const Column *column,
				IndexBuildCallback callback, void *state)
{
	CsRadix *items = palloc_extended(sizeof(CsRadix) * keys->nrows, MCXT_ALLOC_HUGE);
	CsRadix *other = palloc_extended(sizeof(CsRadix) * keys->nrows, MCXT_ALLOC_HUGE);
	CsRadix *sorted;
	bool isnull = false;

	for (int64 i = 0; i < keys->nrows; i++)
	{
		char *row = row_at(keys, i);

		items[i].key = (uint64) get_value(column, row) ^ (UINT64CONST(1) << 63);
		memcpy(&items[i].item, row, sizeof(ItemPointerData));
	}
	sorted = cs_radix_sort(items, other, keys->nrows);
	for (int64 i = 0; i < keys->nrows; i++)
	{
		Datum value = (Datum) (sorted[i].key ^ (UINT64CONST(1) << 63));
		ItemPointerData place;

		CHECK_FOR_INTERRUPTS();
		memcpy(&place, &sorted[i].item, sizeof(place));
		callback(index, &place, &value, &isnull, true, state);
	}
	pfree(items);
	pfree(other);
}

/* In place of the table: see index_build_range_scan in access/tableam.h. */
static double
hand_out(Relation rel, Relation index, IndexInfo *info, bool allow_sync, bool anyvisible,
		 bool progress, BlockNumber start, BlockNumber nblocks, IndexBuildCallback callback,
		 void *state, TableScanDesc scan)
{
	CsBulkKeys *keys = handed_out;
	const Column *columns[INDEX_MAX_KEYS];
	int n = index->rd_index->indnatts;

	Assert(keys != NULL && scan == NULL && start == 0 && nblocks == InvalidBlockNumber);
	for (int i = 0; i < n; i++)
		columns[i] = &keys->columns[find_column(keys, rel, index->rd_index->indkey.values[i])];
	if (n == 1 && columns[0]->byval)
		hand_out_sorted(keys, index, columns[0], callback, state);
	else
		hand_out_all(keys, index, columns, n, callback, state);
	return keys->nrows;
}

/*
 * cs_keys_reindex: see bulk_keys.h.
 */
void
cs_keys_reindex(CsBulkKeys *keys, Relation rel, Oid index)
{
	char *sql = psprintf("REINDEX INDEX %s",
						 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
													get_rel_name(index)));
	const TableAmRoutine *am = rel->rd_tableam;
	TableAmRoutine handing_out;
	int settings;

	if (keys == NULL || keys->lost)
	{
		cs_exec(sql, CS_NO_ARGS);
		return;
	}
	/* workers would read the table */
	settings = NewGUCNestLevel();
	(void) set_config_option("max_parallel_maintenance_workers", "0", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	handing_out = *am;
	handing_out.index_build_range_scan = hand_out;
	PG_TRY();
	{
		handed_out = keys;
		rel->rd_tableam = &handing_out;
		cs_exec(sql, CS_NO_ARGS);
	}
	PG_FINALLY();
	{
		rel->rd_tableam = am;
		handed_out = NULL;
	}
	PG_END_TRY();
	AtEOXact_GUC(true, settings);
}
