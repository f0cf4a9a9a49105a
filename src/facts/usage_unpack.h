/*
 * usage_unpack.h
 *		What usage_pack wrote as rows of the rollup (usage_unpack.c).
 */
#ifndef CS_USAGE_UNPACK_H
#define CS_USAGE_UNPACK_H

#include "cs_ext.h"

#include "facts/usage_runs.h"
#include "storage/fileset.h"

typedef struct CsUnpack CsUnpack;

/*
 * Begin: the files of a file set that results of usage_pack name, all of them for
 * customers whose hash is in [lo, width), and read up to hi.  Days are those of
 * the zone.  next: the months of a customer one after the other, customers in any
 * order; the entry stands until the next call.  Between begin and end of workers
 * (which is before next gives false) the transaction is in parallel mode: no
 * commands, no subtransactions.
 */
extern CsUnpack *cs_unpack(const FileSet *files, List *packed, int64 lo, int64 width, int64 hi,
						   const char *zone);
extern bool cs_unpack_next(CsUnpack *u, CsRunEntry *entry);

#endif
