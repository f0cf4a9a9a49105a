/*
 * evaluate.c
 *		The stages a customer goes through, in order, and nowhere else.
 *
 * A stage reads and changes the batch's rows of cs_internal.state in memory
 * (state.c); its statements run on the batch's snapshot, over the customers in
 * the relation "batch".  At the end the rows that changed are written.  With
 * what_if nothing is, so the past is evaluated by the very code that evaluates
 * the present.
 */
#include "cs_ext.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "decide/decide.h"
#include "facts/ledger.h"
#include "facts/merge.h"
#include "insight/metric.h"
#include "insight/scorecard.h"
#include "refresh/refresh.h"
#include "refresh/state.h"

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
	batch->whose = cs_whose_show(ids, as_of, batch->policy);
	cs_state_load(batch, true);
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

	for (int i = 0; i < batch->state->n; i++)
	{
		cs_state_set(batch->state, i, CS_STATE_AS_OF_DAY, DateADTGetDatum(batch->as_of_day), false);
		cs_state_set(batch->state, i, CS_STATE_AHEAD, TimestampTzGetDatum(batch->ahead),
					 batch->ahead == 0);
	}
	for (int i = 0; i < lengthof(stages); i++)
	{
		CHECK_FOR_INTERRUPTS();
		if ((batch->what_if && stages[i].decides) || (batch->early_only && stages[i].late))
			continue;
		stages[i].run(batch);
		MemoryContextReset(stage);
	}
	if (!batch->what_if)
		cs_state_write(batch);
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
	cs_state_show(batch);
	cs_exec(sql, CS_NO_ARGS);
	cs_state_hide();
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
