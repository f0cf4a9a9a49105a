/*
 * ledger.h
 *		The sweep over subscriptions and what stands in the ledger.
 */
#ifndef CS_LEDGER_H
#define CS_LEDGER_H

#include "cs_ext.h"

#include "facts/source.h"

/* Recompute cs_internal.movement of these customers (sorted text[]) from the facts. */
extern void cs_ledger_ingest(Datum ids, const CsPolicy *policy);

/*
 * The ledger and the customers from nothing (ledger_first.c).  begin: because
 * this source is read whole; false: not that way, its customers are to be
 * pending.  waits: it is to be done.  step: does it, in this transaction, or
 * leaves everybody to ingest where it cannot be done at_once; says at `level`
 * how long it took.
 */
extern bool cs_ledger_build_begin(const CsSource *source);
extern bool cs_ledger_build_waits(void);
extern void cs_ledger_build_step(bool at_once, int level);

/* Of these customers, those whose ledger unpaid invoices can change: some row is past due. */
extern Datum cs_ledger_past_due(Datum ids);

/* Stage: fills mrr, active, in_trial, seats, tenure_days, days_to_renewal of cs_internal.state for the batch. */
extern void cs_stage_ledger(CsBatch *batch);

/*
 * Rows (customer_id text, mrr numeric, tenure_days int, days_to_renewal int,
 * seats numeric, mrr_ago_<n> numeric ...) of the batch, one mrr_ago column for
 * each int of ago_days; reads cs_internal.state and movement.
 */
extern CsResult *cs_ledger_rows(const CsBatch *batch, List *ago_days);

#endif
