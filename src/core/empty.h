/*
 * empty.h
 *		Whether a table of the extension has anything at all (empty.c).
 */
#ifndef CS_EMPTY_H
#define CS_EMPTY_H

#include "cs_ext.h"

/* True: no snapshot shows a row of this table of cs_internal.  False: one may. */
extern bool cs_is_empty(const char *table);

#endif
