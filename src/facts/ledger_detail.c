/*
 * ledger_detail.c
 *		The subscription rows behind each movement of one customer.
 *
 * In: the facts as they are now, read and swept as ingest does, with the share
 * of each row noted.  Out: rows for cs.movement_rows.  Nothing is written, so
 * it works on a standby and inside a read-only transaction.
 */
#include "cs_ext.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"

#include "core/texts.h"
#include "facts/ledger_facts.h"

PG_FUNCTION_INFO_V1(cs_movement_rows_sql);

#define DETAIL_COLUMNS 13

/* One row: a movement, and the share of one subscription row in it (NULL: no money moved). */
static void
put_share(ReturnSetInfo *rsinfo, const CsLedgerFacts *facts, const CsMovement *m,
		  const CsShare *share, const int *owners)
{
	Datum values[DETAIL_COLUMNS] = {0};
	bool nulls[DETAIL_COLUMNS];

	memset(nulls, share == NULL, sizeof(nulls));
	memset(nulls, false, 5);
	values[0] = TimestampTzGetDatum(m->at);
	values[1] = Int16GetDatum(m->seq);
	values[2] = CStringGetTextDatum(m->kind);
	values[3] = cs_money_numeric(m->delta);
	values[4] =
		share != NULL ? cs_money_numeric(share->amount) : NumericGetDatum(int64_to_numeric(0));
	if (share != NULL)
	{
		const CsTerm *term = share->term;

		values[5] = CStringGetTextDatum(term->source);
		nulls[6] = term->subscription_id == NULL;
		values[6] = nulls[6] ? (Datum) 0 : CStringGetTextDatum(term->subscription_id);
		values[7] = CStringGetTextDatum(facts->members[owners[share->owner]].customer);
		values[8] = TimestampTzGetDatum(term->start);
		nulls[9] = term->end == DT_NOEND;
		values[9] = TimestampTzGetDatum(term->end);
		values[10] = cs_money_numeric(term->mrr);
		nulls[11] = nulls[12] = term->currency == NULL;
		values[11] = nulls[11] ? (Datum) 0 : term->native;
		values[12] = nulls[12] ? (Datum) 0 : CStringGetTextDatum(term->currency);
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * cs_internal.movement_rows(customer): see cs.movement_rows.
 */
Datum
cs_movement_rows_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CsPolicy *policy;
	CsSweepRules rules;
	CsLedgerFacts *facts;
	CsMember *member = NULL;
	Datum id;
	int *owners;
	int first = 0;
	int n = 0;
	CsFrame frame;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	cs_enter(&frame);
	id = PG_GETARG_DATUM(0);
	policy = cs_policy(false);
	rules = cs_sweep_rules(policy);
	rules.shares = true;
	facts = cs_ledger_read(cs_text_array(&id, 1), policy, false);
	for (int i = 0; i < facts->nmembers; i++)
	{
		if (strcmp(facts->members[i].customer, TextDatumGetCString(id)) == 0)
		{
			first = facts->family[i];
			member = &facts->members[i];
		}
	}
	if (member != NULL)
	{
		/* shares name their owner by its place in the family */
		owners = palloc(sizeof(int) * facts->nmembers);
		for (int i = first; i < facts->nmembers; i++)
		{
			if (facts->family[i] == first)
				owners[n++] = i;
		}
		cs_ledger_family(facts, first, &rules);
		for (int i = 0; i < member->nmovements; i++)
		{
			const CsMovement *m = &member->movements[i];

			if (m->nshares == 0)
				put_share(rsinfo, facts, m, NULL, owners);
			for (int k = 0; k < m->nshares; k++)
				put_share(rsinfo, facts, m, &m->shares[k], owners);
		}
	}
	tuplestore_end(facts->unusable->store);
	cs_leave(&frame);
	return (Datum) 0;
}
