/*
 * absent.c
 *		Weak stand-ins while modules are being put together; removed when all are in.
 */
#include "cs_ext.h"

#include "decide/decide.h"
#include "facts/source.h"
#include "insight/scorecard.h"

#define ABSENT __attribute__((weak))

ABSENT void
cs_collect(TimestampTz as_of, bool force_scan)
{
}
ABSENT void
cs_count_unusable(const CsSource *source, Datum ids, bool whole)
{
}
ABSENT bool
cs_source_extent(const CsSource *source, TimestampTz as_of)
{
	return false;
}
ABSENT void
cs_stage_health(CsBatch *batch)
{
}
ABSENT void
cs_stage_segments(CsBatch *batch, bool late)
{
}
ABSENT void
cs_stage_alerts(CsBatch *batch)
{
}
ABSENT bool
cs_number_events(void)
{
	return false;
}
