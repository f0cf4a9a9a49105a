/*
 * metric.h
 *		Metrics: one query per source, values in slots.
 */
#ifndef CS_METRIC_H
#define CS_METRIC_H

#include "cs_ext.h"

/* Stage: fills "values" of cs_internal.state for the batch. */
extern void cs_stage_metrics(CsBatch *batch);

/* Names of all enabled metrics (char *), in order. */
extern List *cs_metric_names(void);

/* Slot of a metric in the values array (from 1), 0 when there is no such metric. */
extern int cs_metric_slot(const char *name);

#endif
