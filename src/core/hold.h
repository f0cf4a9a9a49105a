/*
 * hold.h
 *		Definitions read once a step.
 */
#ifndef CS_HOLD_H
#define CS_HOLD_H

#include "cs_ext.h"

typedef enum CsHeld
{
	CS_HELD_POLICY,
	CS_HELD_SOURCES,
	CS_HELD_METRICS,
	CS_HELD_NAMES,
	CS_HELD_KINDS
} CsHeld;

/* For who runs a step that changes no definition; false also after an error. */
extern void cs_hold(bool hold);

/*
 * Where a reader keeps what it made, NULL while nothing is held; *where is the
 * memory that lives as long.
 */
extern void **cs_held(CsHeld what, MemoryContext *where);

#endif /* CS_HOLD_H */
