/*
 * elapsed.h
 *		How long something took.
 */
#ifndef CS_ELAPSED_H
#define CS_ELAPSED_H

#include "portability/instr_time.h"

/* Milliseconds since INSTR_TIME_SET_CURRENT(begin). */
static inline double
cs_ms_since(instr_time begin)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, begin);
	return INSTR_TIME_GET_MILLISEC(now);
}

#endif /* CS_ELAPSED_H */
