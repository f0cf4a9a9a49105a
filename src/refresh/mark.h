/*
 * mark.h
 *		Marking customers to be evaluated (mark.c).
 */
#ifndef CS_MARK_H
#define CS_MARK_H

#include "cs_ext.h"

/*
 * These customers (sorted text[]) are evaluated next, for their facts changed.
 * last: the transaction commits right after, so that whoever wants to mark
 * somebody meanwhile need not wait long.
 */
extern void cs_mark_dirty(Datum ids, bool last);

#endif
