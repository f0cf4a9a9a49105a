/*
 * usage_spill.h
 *		Events of very many customers, told apart by customer, in temporary files.
 *
 * The pass over all events only hands them out: an event goes to a part, a range
 * of the hash of the customer's id, of one file for each process.  What the
 * aggregate usage_pack gives says where the parts stand, all in the machine's own
 * byte order, for it never leaves the server:
 *
 *	CsSpillHead, then each file: CsSpillFile, its blocks
 *	a block: events; each, unaligned:
 *		int64 instant, byte flags, key of the customer, [key of the user], [string
 *		event], [int64 count, string quantity as numeric]
 *	a key: int32, int64 or 16 bytes, or a string, by the type the file says
 *	a string: byte length (CS_SPILL_LONG: uint32 length follows), the bytes
 */
#ifndef CS_USAGE_SPILL_H
#define CS_USAGE_SPILL_H

#include "cs_ext.h"

#include "storage/fileset.h"

/* Slices are ranges of a 32-bit hash of the id. */
#define CS_SLICES INT64CONST(0x100000000)

#define CS_SPILL_PARTS 128

/* Flags of an event. */
#define CS_SPILL_NO_USER 1
#define CS_SPILL_NO_EVENT 2
#define CS_SPILL_EXTRA 4    /* a count and a quantity follow */
#define CS_SPILL_QUANTITY 8 /* which is not NULL */

#define CS_SPILL_LONG 255

typedef struct CsSpillBlock
{
	int64 offset;
	uint32 len;
	uint32 part;
} CsSpillBlock;

typedef struct CsSpillFile
{
	char name[32];
	Oid customer_type; /* int4, int8, uuid or text */
	Oid user_type;
	int64 nblocks;
} CsSpillFile;

typedef struct CsSpillHead
{
	int64 lo; /* what the files are about: customers with lo <= hash < hi */
	int64 hi; /* may be less than asked for, where it was too much */
	int64 events;
	TimestampTz first; /* of all events; meaningless where events = 0 */
	TimestampTz last;
	int64 nfiles;
} CsSpillHead;

/* The hash of a customer's id, and the part that it is in. */
extern uint32 cs_usage_slice(const char *id, int len);

/* By how many bits to move hash - lo for the part: there are at most CS_SPILL_PARTS. */
static inline int
cs_spill_shift(int64 lo, int64 hi)
{
	int shift = 0;

	while ((hi - lo - 1) >> shift >= CS_SPILL_PARTS)
		shift++;
	return shift;
}

/*
 * Where this transaction's queries put their files, workers too; until the level
 * of settings ends that the caller has begun.
 */
extern void cs_spill_to(const FileSet *files);

#endif
