/*
 * empty.c
 *		Whether a table of the extension has anything at all.
 *
 * In: the length of its file.  Out: no page, no row.  Where nobody ever overrode a
 * score or an alert was never opened, a batch would ask for each of its thousands
 * of customers, at six places, whether there is one; these questions were a
 * fifteenth of a refresh that touches everybody.
 *
 * Cases.  Rows that are not committed, deleted, or of another snapshot: there are
 * pages, so the statement is run and says what it shows.  Vacuum cut the pages
 * off: no snapshot needed what was in them.  Somebody writes the first row at this
 * moment: on no snapshot taken before.
 */
#include "cs_ext.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "storage/bufmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "core/empty.h"

/*
 * cs_is_empty: see empty.h.
 */
bool
cs_is_empty(const char *table)
{
	Relation rel = table_open(get_relname_relid(table, get_namespace_oid("cs_internal", false)),
							  AccessShareLock);
	bool empty = RelationGetNumberOfBlocks(rel) == 0;

	table_close(rel, AccessShareLock);
	return empty;
}
