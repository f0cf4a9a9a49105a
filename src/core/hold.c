/*
 * hold.c
 *		Definitions read once a step.
 *
 * A step of refresh works on one snapshot and changes no definition, so what it
 * reads of them is the same however often it asks.  Between cs_hold(true) and
 * cs_hold(false) the readers keep here what they made of the rows.
 *
 * Nothing is kept from step to step: what is read is always what the step's
 * snapshot shows, the transaction's own changes and their rollback included.
 */
#include "cs_ext.h"

#include "utils/memutils.h"

#include "core/hold.h"

static MemoryContext memory = NULL;
static void *held[CS_HELD_KINDS];

void
cs_hold(bool hold)
{
	memset(held, 0, sizeof(held));
	if (memory != NULL)
		MemoryContextDelete(memory);
	memory =
		hold ? AllocSetContextCreate(TopMemoryContext, "cs_ext definitions", ALLOCSET_SMALL_SIZES)
			 : NULL;
}

void **
cs_held(CsHeld what, MemoryContext *where)
{
	if (memory == NULL)
		return NULL;
	*where = memory;
	return &held[what];
}
