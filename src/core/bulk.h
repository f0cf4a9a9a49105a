/*
 * bulk.h
 *		Many rows of one of the extension's own tables at once (bulk.c).
 */
#ifndef CS_BULK_H
#define CS_BULK_H

#include "cs_ext.h"

#include "access/htup.h"
#include "executor/tuptable.h"
#include "storage/lockdefs.h"

typedef struct CsBulk CsBulk;
typedef struct CsBulkKeys CsBulkKeys;

/*
 * Begin with a table of schema cs_internal, whose lock is kept until the end of
 * the transaction.  indexed false: its indexes do not get the rows, the caller
 * sees to that.  Lives in the current memory context.
 */
extern CsBulk *cs_bulk_begin(const char *table, LOCKMODE lock, bool indexed);

/*
 * A row: fill in tts_values and tts_isnull of the slot, then put it; `bytes` is
 * about its length.  What the values point to is copied by then.
 */
extern TupleTableSlot *cs_bulk_slot(CsBulk *bulk);
extern void cs_bulk_put(CsBulk *bulk, Size bytes);

/* A row as it will stand in the table, formed elsewhere with its descriptor; copied. */
extern void cs_bulk_put_tuple(CsBulk *bulk, HeapTupleHeader row, Size bytes);

/*
 * What the indexes will need of the rows is kept from now on, before the first of
 * them, which come in the order of the table's key; NULL where it had rows before,
 * or the indexes are of another kind.  Given to cs_bulk_index, freed with the
 * current memory context; takes maintenance_work_mem at most.
 */
extern CsBulkKeys *cs_bulk_keys(CsBulk *bulk);

/* All is written, and visible to the next command; how many rows there were. */
extern int64 cs_bulk_end(CsBulk *bulk);

/*
 * Rows that were written past the indexes are put into them, which are made anew
 * over all rows of the table; where somebody who reads stands in the way, row by
 * row.  The caller holds ShareRowExclusiveLock on the table since before the first
 * of them, and knows of no other row that is visible.  Indexes stay locked
 * until the end of the transaction.  keys: of all these rows, or NULL, then they
 * are read.
 */
extern void cs_bulk_index(const char *table, CsBulkKeys *keys);

#endif /* CS_BULK_H */
