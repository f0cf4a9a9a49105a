/*
 * evaluate.c
 *		The stages a customer goes through, in order, and nowhere else.
 *
 * A stage reads and writes cs_internal.state for the customers in the relation
 * "batch", on the batch's snapshot, which sees what earlier stages wrote.
 * With what_if no decided state is written and the caller rolls back, so the
 * past is evaluated by the very code that evaluates the present.
 */
#include "cs_ext.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "decide/decide.h"
#include "facts/ledger.h"
#include "insight/metric.h"
#include "insight/scorecard.h"
#include "refresh/refresh.h"

static void
early_segments(CsBatch *batch)
{
	cs_stage_segments(batch, false);
}

static void
late_segments(CsBatch *batch)
{
	cs_stage_segments(batch, true);
}

/*
 * Early segments choose the scorecard, so they come before health and must not
 * look at it; late ones look at health.
 */
static const struct
{
	void (*run)(CsBatch *batch);
	bool decides; /* writes decided state only: left out of what_if */
	bool late;    /* comes after early segments: left out where these are all that is asked */
} stages[] = {
	{cs_stage_ledger, false, false}, {cs_stage_metrics, false, false},
	{early_segments, false, false},  {cs_stage_health, false, true},
	{late_segments, false, true},    {cs_stage_alerts, true, true},
	{cs_stage_due, true, true},
};

/*
 * cs_batch_make: see refresh.h.
 */
CsBatch *
cs_batch_make(Datum ids, int nids, TimestampTz as_of, bool what_if)
{
	CsBatch *batch = palloc0(sizeof(CsBatch));

	batch->policy = cs_policy(false);
	batch->as_of = as_of;
	batch->as_of_day = cs_local_day(as_of, batch->policy->time_zone);
	batch->computed_at = GetCurrentTimestamp();
	batch->ids = ids;
	batch->nids = nids;
	batch->what_if = what_if;
	cs_register("batch", cs_query("SELECT i COLLATE \"C\" AS customer_id FROM unnest($1) i",
								  CS_ARGS(cs_textarray(ids))));
	return batch;
}

/*
 * cs_evaluate: see refresh.h.
 */
void
cs_evaluate(CsBatch *batch)
{
	MemoryContext stage =
		AllocSetContextCreate(CurrentMemoryContext, "cs_ext stage", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(stage);

	cs_exec("INSERT INTO cs_internal.state (customer_id) SELECT customer_id FROM batch ON CONFLICT "
			"DO NOTHING",
			CS_NO_ARGS);
	cs_exec("UPDATE cs_internal.state s SET as_of_day = $1 FROM batch b"
			" WHERE s.customer_id = b.customer_id AND s.as_of_day IS DISTINCT FROM $1",
			CS_ARGS(cs_date(batch->as_of_day)));
	for (int i = 0; i < lengthof(stages); i++)
	{
		CHECK_FOR_INTERRUPTS();
		if ((batch->what_if && stages[i].decides) || (batch->early_only && stages[i].late))
			continue;
		stages[i].run(batch);
		MemoryContextReset(stage);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(stage);
}

/*
 * what_if: see cs_what_if in refresh.h.
 */
static CsResult *
what_if(Datum ids, int nids, TimestampTz as_of, bool early_only, bool writable, const char *sql)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	CsResult *result = palloc0(sizeof(CsResult));
	CsBatch *batch;

	/* Outside the subtransaction, so that the rows survive its rollback. */
	result->store = tuplestore_begin_heap(true, false, CS_RESULT_MEM);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);

	/* The end of the subtransaction puts it back. */
	if (writable)
		XactReadOnly = false;
	batch = cs_batch_make(ids, nids, as_of, true);
	batch->early_only = early_only;
	cs_evaluate(batch);
	cs_exec(sql, CS_NO_ARGS);
	MemoryContextSwitchTo(context);
	result->desc = CreateTupleDescCopy(SPI_tuptable->tupdesc);
	result->nrows = SPI_processed;
	for (uint64 i = 0; i < result->nrows; i++)
		tuplestore_puttuple(result->store, SPI_tuptable->vals[i]);

	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return result;
}

/*
 * cs_what_if: see refresh.h.
 */
CsResult *
cs_what_if(Datum ids, int nids, TimestampTz as_of, const char *sql)
{
	return what_if(ids, nids, as_of, false, false, sql);
}

/*
 * cs_what_if_segments: see refresh.h.
 */
CsResult *
cs_what_if_segments(Datum ids, int nids, TimestampTz as_of, bool late, const char *sql)
{
	return what_if(ids, nids, as_of, !late, true, sql);
}
