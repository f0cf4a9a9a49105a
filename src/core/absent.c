/*
 * absent.c
 *		Weak stand-ins while modules are being put together; removed when all are in.
 */
#include "cs_ext.h"

#include "decide/decide.h"
#include "facts/ledger.h"
#include "facts/source.h"
#include "facts/usage.h"
#include "insight/metric.h"
#include "insight/scorecard.h"

extern void (*cs_commit_hook)(void);
extern void cs_scheduler_init(void);

void (*cs_commit_hook)(void) __attribute__((weak)) = NULL;

__attribute__((weak)) void
cs_capture_init(void)
{
}
__attribute__((weak)) void
cs_scheduler_init(void)
{
}
__attribute__((weak)) void
cs_collect(TimestampTz as_of, bool force_scan)
{
}
__attribute__((weak)) void
cs_count_unusable(const CsSource *source, Datum ids, bool whole)
{
}
__attribute__((weak)) bool
cs_source_extent(const CsSource *source, TimestampTz as_of)
{
	return false;
}
__attribute__((weak)) List *
cs_sources(const char *kind)
{
	return NIL;
}
__attribute__((weak)) CsSource *
cs_source(const char *name)
{
	return NULL;
}
__attribute__((weak)) char *
cs_source_rows(const CsSource *source, bool keyed, bool cut)
{
	return NULL;
}
__attribute__((weak)) char *
cs_source_id(const CsSource *source, const char *key)
{
	return NULL;
}
__attribute__((weak)) void
cs_source_keys(const CsSource *source, Datum ids, CsUserQuery *query)
{
}
__attribute__((weak)) void
cs_usage_ingest(Datum ids, TimestampTz since, TimestampTz until, const CsPolicy *policy)
{
}
__attribute__((weak)) CsResult *
cs_usage_rows(const CsBatch *batch)
{
	return NULL;
}
__attribute__((weak)) void
cs_ledger_ingest(Datum ids, const CsPolicy *policy)
{
}
__attribute__((weak)) void
cs_stage_ledger(CsBatch *batch)
{
}
__attribute__((weak)) CsResult *
cs_ledger_rows(const CsBatch *batch, List *ago_days)
{
	return NULL;
}
__attribute__((weak)) void
cs_stage_health(CsBatch *batch)
{
}
__attribute__((weak)) void
cs_stage_segments(CsBatch *batch, bool late)
{
}
__attribute__((weak)) void
cs_stage_alerts(CsBatch *batch)
{
}
__attribute__((weak)) bool
cs_number_events(void)
{
	return false;
}
__attribute__((weak)) List *
cs_metric_names(void)
{
	List *names = NIL;
	uint64 n = cs_exec("SELECT name FROM cs.metric WHERE enabled ORDER BY name", CS_NO_ARGS);

	for (uint64 i = 0; i < n; i++)
		names = lappend(names, cs_cell(i, 1));
	return names;
}
__attribute__((weak)) int
cs_metric_slot(const char *name)
{
	cs_exec("SELECT slot FROM cs_internal.metric_slot WHERE metric = $1", CS_ARGS(cs_text(name)));
	return SPI_processed > 0 ? atoi(cs_value()) : 0;
}
