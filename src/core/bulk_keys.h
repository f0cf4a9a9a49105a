/*
 * bulk_keys.h
 *		Inside bulk.c: what the indexes need of rows, kept as they are written
 *		(bulk_keys.c).
 */
#ifndef CS_BULK_KEYS_H
#define CS_BULK_KEYS_H

#include "cs_ext.h"

#include "executor/tuptable.h"
#include "utils/rel.h"

#include "core/bulk.h"

/* Begins, in the current memory context; NULL: the indexes are not of the kind that can be made so. */
extern CsBulkKeys *cs_keys_begin(Relation rel);

/* A row that was written, and where; in order of the table's key as a rule. */
extern void cs_keys_add(CsBulkKeys *keys, TupleTableSlot *slot);

/* REINDEX of an index, locked, from the keys where all are there, else from the table. */
extern void cs_keys_reindex(CsBulkKeys *keys, Relation rel, Oid index);

#endif /* CS_BULK_KEYS_H */
