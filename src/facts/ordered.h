/*
 * ordered.h
 *		All rows of a source in order of customer (ordered.c).
 */
#ifndef CS_ORDERED_H
#define CS_ORDERED_H

#include "cs_ext.h"

#include "executor/tuptable.h"

#include "core/radix.h"
#include "facts/source.h"

/* Rows of one source, standing at one of them. */
typedef struct CsOrdered
{
	CsResult *rows;
	TupleTableSlot *slot; /* the row */
	text *id;             /* its first column; NULL: there are no more */
	CsRadix *sorted;      /* NULL: they stand in order in the store */
	uint64 nsorted;
	uint64 next;
} CsOrdered;

/*
 * Runs `select` (with %s for the outside id, its first column, and %s for the
 * rows, and no ORDER BY) over all usable rows of a source, and stands at the
 * first; rows whose id is NULL are left out.  `then` is by what else rows of one
 * customer are sorted (", 2"); NULL: they come in any order.  Returns NULL, and
 * why in *error, when the source cannot be read.  Lives in the current memory
 * context.
 */
extern CsOrdered *cs_ordered_open(const CsSource *source, const char *select, const char *then,
								  const CsPolicy *policy, const char **error);
extern void cs_ordered_next(CsOrdered *ordered);
extern void cs_ordered_close(CsOrdered *ordered);

/* The order that ids come in. */
extern int cs_id_cmp(const text *a, const text *b);

/*
 * cs_user_query for all rows of a source.  Where workers have all processors
 * this process only waits for them: as a third reader it would take time from
 * them, and leave more to be united.
 */
extern CsResult *cs_user_query_whole(const CsUserQuery *query, ErrorData **error);

#endif /* CS_ORDERED_H */
