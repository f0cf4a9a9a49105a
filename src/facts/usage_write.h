/*
 * usage_write.h
 *		Many rows of the rollup at once (usage_write.c).
 */
#ifndef CS_USAGE_WRITE_H
#define CS_USAGE_WRITE_H

#include "cs_ext.h"

typedef struct CsUsageWriter CsUsageWriter;

/* Begin, write rows that are not there yet, end: what was written is visible then. */
extern CsUsageWriter *cs_usage_writer(void);
extern void cs_usage_write(CsUsageWriter *w, Datum customer, DateADT month, struct varlena *usage);
extern void cs_usage_writer_end(CsUsageWriter *w);

#endif
