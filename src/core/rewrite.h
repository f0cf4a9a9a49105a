/*
 * rewrite.h
 *		Rows of the extension's own tables replaced one by one (rewrite.c).
 */
#ifndef CS_REWRITE_H
#define CS_REWRITE_H

#include "cs_ext.h"

#include "executor/tuptable.h"
#include "utils/rel.h"

typedef struct CsRewrite CsRewrite;

/*
 * Begin, for each row fill the slot's values and put it, end: what was written is
 * visible then.  tid: the row that it replaces; NULL: it is new.  gone: the row is
 * deleted.
 */
extern CsRewrite *cs_rewrite_begin(const char *table);
extern Relation cs_rewrite_table(CsRewrite *w);
extern TupleTableSlot *cs_rewrite_slot(CsRewrite *w);
extern void cs_rewrite_put(CsRewrite *w, ItemPointer tid);
extern void cs_rewrite_gone(CsRewrite *w, ItemPointer tid);
extern void cs_rewrite_end(CsRewrite *w);

/*
 * Deletes a row that the active snapshot sees.  Where somebody has changed it since,
 * this and the above raise a serialization failure.
 */
extern void cs_row_gone(Relation rel, ItemPointer tid);

#endif
