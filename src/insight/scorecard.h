/*
 * scorecard.h
 *		Scorecards, compiled once a batch, and the health score.
 */
#ifndef CS_SCORECARD_H
#define CS_SCORECARD_H

#include "cs_ext.h"

/*
 * Stage: scorecard, score, coverage, score_reason of cs_internal.state; unless
 * what_if also cs_internal.health (band with hysteresis) and, on a change of
 * band, cs_internal.health_history.
 */
extern void cs_stage_health(CsBatch *batch);

#endif
