/*
 * ledger_facts.c
 *		The facts the ledger is made of, read and put together by customer.
 *
 * In: sources of kind subscription, cancellation and invoice, read as
 * policy.run_as (one contained query a source), merges, rates.  Out: for each
 * customer its terms in the policy's currency and its cancellations, ready for
 * the sweep, and the rows that no rate converts, counted.
 */
#include "cs_ext.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "core/texts.h"
#include "facts/ledger.h"
#include "facts/ledger_facts.h"
#include "refresh/refresh.h"

/* A term or a cancellation, and whose it is. */
typedef struct OwnedTerm
{
	const char *customer;
	CsTerm term;
} OwnedTerm;

typedef struct OwnedCancellation
{
	const char *customer;
	CsCancellation cancellation;
} OwnedCancellation;

typedef struct Chunk
{
	OwnedTerm *terms;
	int nterms;
	int terms_size;
	OwnedCancellation *cancellations;
	int ncancellations;
	int cancellations_size;
	bool past_due; /* some term is */
	bool foreign;  /* some term is in another currency */
} Chunk;

/* See cs_ledger_select; keep false: an error is raised. */
static CsResult *
select_rows(const CsSource *source, const char *select, bool cut, Datum ids, TimestampTz as_of,
			DateADT as_of_day, bool keep)
{
	CsUserQuery query = {0};
	ErrorData *error = NULL;
	CsResult *rows;

	query.sql =
		psprintf(select, cs_source_id(source, "r.customer_key"), cs_source_rows(source, true, cut));
	query.as_of = as_of;
	query.as_of_day = as_of_day;
	cs_source_keys(source, ids, &query);
	rows = cs_user_query(&query, keep ? &error : NULL);
	if (rows == NULL)
		cs_source_failed(source, error->message);
	return rows;
}

CsResult *
cs_ledger_select(const CsSource *source, const char *select, bool cut, Datum ids, TimestampTz as_of,
				 DateADT as_of_day)
{
	return select_rows(source, select, cut, ids, as_of, as_of_day, true);
}

CsResult *
cs_empty_result(TupleDesc desc)
{
	CsResult *r = palloc0(sizeof(CsResult));

	r->desc = BlessTupleDesc(desc);
	r->store = tuplestore_begin_heap(false, false, CS_RESULT_MEM);
	return r;
}

CsSweepRules
cs_sweep_rules(const CsPolicy *policy)
{
	CsSweepRules rules = {policy->free_is_active,
						  policy->max_pause_days,
						  policy->gap_days_money,
						  policy->reactivation_days,
						  cs_recognition(policy->recognition),
						  false};

	return rules;
}

/* Column 1 is the customer, then the columns of cs_internal.subscription_fact. */
static const char *const fact_select =
	"SELECT %s AS customer_id, " CS_TERM_COLUMNS ", r.subscription_id::text,"
	" r.term_months, r.seats::numeric, r.product::text, r.renews_at"
	" FROM (%s) r";

/*
 * cs_ledger_unusable_result, cs_ledger_unusable: see ledger_facts.h.
 */
CsResult *
cs_ledger_unusable_result(void)
{
	TupleDesc desc = CreateTemplateTupleDesc(3);

	TupleDescInitEntry(desc, 1, "source", TEXTOID, -1, 0);
	TupleDescInitEntry(desc, 2, "customer_id", TEXTOID, -1, 0);
	TupleDescInitEntryCollation(desc, 2, C_COLLATION_OID);
	TupleDescInitEntry(desc, 3, "reason", TEXTOID, -1, 0);
	return cs_empty_result(desc);
}

void
cs_ledger_unusable(CsResult *unusable, const char *source, const char *customer, const char *reason)
{
	Datum values[3];
	bool nulls[3] = {false, false, false};

	values[0] = CStringGetTextDatum(source);
	values[1] = CStringGetTextDatum(customer);
	values[2] = CStringGetTextDatum(reason);
	tuplestore_putvalues(unusable->store, unusable->desc, values, nulls);
}

/* Rows that are overwritten in place, as intervals; what cannot be followed is counted. */
static CsResult *
follow_versions(const CsSource *source, Datum ids, CsResult *rows, bool keep, CsResult *unusable)
{
	CsResult *refused;
	CsResult *pieces = cs_version_rows(source, ids, rows, keep, &refused);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(refused->desc, &TTSOpsMinimalTuple);

	tuplestore_rescan(refused->store);
	while (tuplestore_gettupleslot(refused->store, true, false, slot))
	{
		slot_getallattrs(slot);
		cs_ledger_unusable(unusable, source->name, TextDatumGetCString(slot->tts_values[0]),
						   TextDatumGetCString(slot->tts_values[1]));
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(refused->store);
	tuplestore_end(rows->store);
	return pieces;
}

/* All terms of the customers in one source go into the chunk; false: it cannot be read. */
static bool
read_terms(Chunk *chunk, const CsSource *source, Datum ids, const CsPolicy *policy, bool keep,
		   CsResult *unusable)
{
	TimestampTz now = cs_now();
	CsResult *rows = select_rows(source, fact_select, false, ids, now,
								 cs_local_day(now, policy->time_zone), keep);
	TupleTableSlot *slot;

	if (rows == NULL)
		return false;
	if (source->current)
		rows = follow_versions(source, ids, rows, keep, unusable);
	slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);
	tuplestore_rescan(rows->store);
	while (tuplestore_gettupleslot(rows->store, true, false, slot))
	{
		OwnedTerm owned;
		CsTermResult result;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		if (slot->tts_isnull[0])
			continue;
		result =
			cs_term_make(slot->tts_values + 1, slot->tts_isnull + 1, policy->currency, &owned.term);
		owned.customer = TextDatumGetCString(slot->tts_values[0]);
		if (result == CS_TERM_RANGE)
			cs_ledger_unusable(unusable, source->name, owned.customer, "MRR out of range");
		if (result != CS_TERM_OK)
			continue;
		owned.term.source = source->name;
		chunk->past_due |= owned.term.past_due;
		chunk->foreign |= owned.term.currency != NULL;
		if (chunk->nterms == chunk->terms_size)
		{
			chunk->terms_size *= 2;
			chunk->terms = repalloc_huge(chunk->terms, sizeof(OwnedTerm) * chunk->terms_size);
		}
		chunk->terms[chunk->nterms++] = owned;
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(rows->store);
	return true;
}

static bool
read_cancellations(Chunk *chunk, const CsSource *source, Datum ids, const CsPolicy *policy,
				   bool keep)
{
	TimestampTz now = cs_now();
	CsResult *rows = select_rows(source, CS_CANCELLATION_SELECT, false, ids, now,
								 cs_local_day(now, policy->time_zone), keep);
	TupleTableSlot *slot;

	if (rows == NULL)
		return false;
	slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);
	tuplestore_rescan(rows->store);
	while (tuplestore_gettupleslot(rows->store, true, false, slot))
	{
		OwnedCancellation owned;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		if (slot->tts_isnull[0] ||
			!cs_cancellation_make(slot->tts_values + 1, slot->tts_isnull + 1, &owned.cancellation))
			continue;
		owned.customer = TextDatumGetCString(slot->tts_values[0]);
		if (chunk->ncancellations == chunk->cancellations_size)
		{
			chunk->cancellations_size *= 2;
			chunk->cancellations = repalloc_huge(
				chunk->cancellations, sizeof(OwnedCancellation) * chunk->cancellations_size);
		}
		chunk->cancellations[chunk->ncancellations++] = owned;
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(rows->store);
	return true;
}

static int
owned_term_cmp(const void *a, const void *b)
{
	return strcmp(((const OwnedTerm *) a)->customer, ((const OwnedTerm *) b)->customer);
}

static int
owned_cancellation_cmp(const void *a, const void *b)
{
	return strcmp(((const OwnedCancellation *) a)->customer,
				  ((const OwnedCancellation *) b)->customer);
}

static int
due_cmp(const void *a, const void *b)
{
	const CsDue *x = a;
	const CsDue *y = b;
	int cmp = strcmp(x->customer, y->customer);

	return cmp != 0 ? cmp : x->at < y->at ? -1 : x->at > y->at ? 1 : 0;
}

static int
member_cmp(const void *a, const void *b)
{
	return strcmp(((const CsMember *) a)->customer, ((const CsMember *) b)->customer);
}

/* ------------------------------------------------------------------ past due */

/*
 * cs_ledger_past_due: see ledger.h.  Who is merged with others is among them
 * unseen, for theirs may be past due; so are all where a source cannot be read.
 */
Datum
cs_ledger_past_due(Datum ids)
{
	CsMergeFact *merges;
	int nmerges;
	Datum found;
	int n;
	ListCell *lc;

	(void) cs_merge_family(ids, &merges, &nmerges);
	if (nmerges > 0)
		return ids;
	found = PointerGetDatum(construct_empty_array(TEXTOID));
	foreach (lc, cs_sources("subscription"))
	{
		const CsSource *source = lfirst(lc);
		CsResult *rows;

		if (source->current)
			rows = cs_query("SELECT DISTINCT v.customer_id FROM cs_internal.subscription_version v"
							" WHERE v.source = $1 AND v.customer_id = ANY ($2)"
							" AND v.status = 'past_due'",
							CS_ARGS(cs_text(source->name), cs_textarray(ids)));
		else
			rows = cs_ledger_select(source,
									"SELECT DISTINCT %s AS customer_id FROM (%s) r"
									" WHERE r.status = 'past_due'",
									false, ids, cs_now(), 0);
		if (rows == NULL)
			return ids;
		cs_register("past_due", rows);
		found = cs_ids_from_query("SELECT i FROM (SELECT customer_id COLLATE \"C\" FROM past_due"
								  " UNION SELECT i FROM unnest($1) i) x (i) ORDER BY i",
								  CS_ARGS(cs_textarray(found)), &n);
		cs_unregister("past_due");
		tuplestore_end(rows->store);
	}
	return found;
}

/* Unpaid invoices of the customers, by customer and due date; false: a source cannot be read. */
static bool
read_dues(Datum ids, const CsPolicy *policy, bool keep, CsDue **dues, int *n)
{
	TimestampTz now = cs_now();
	int size = 64;
	ListCell *lc;

	*n = 0;
	*dues = palloc(sizeof(CsDue) * size);
	foreach (lc, cs_sources("invoice"))
	{
		CsResult *rows = select_rows(lfirst(lc), CS_DUE_SELECT, false, ids, now,
									 cs_local_day(now, policy->time_zone), keep);
		TupleTableSlot *slot;

		if (rows == NULL)
			return false;
		slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);
		tuplestore_rescan(rows->store);
		while (tuplestore_gettupleslot(rows->store, true, false, slot))
		{
			slot_getallattrs(slot);
			if (slot->tts_isnull[0] || slot->tts_isnull[1])
				continue;
			if (*n == size)
				*dues = repalloc_huge(*dues, sizeof(CsDue) * (size *= 2));
			(*dues)[*n].customer = TextDatumGetCString(slot->tts_values[0]);
			(*dues)[(*n)++].at = DatumGetTimestampTz(slot->tts_values[1]);
		}
		ExecDropSingleTupleTableSlot(slot);
		tuplestore_end(rows->store);
	}
	qsort(*dues, *n, sizeof(CsDue), due_cmp);
	return true;
}

/*
 * Ends past due terms grace_days after the first invoice in them that is
 * unpaid was due; where there is none, after the row became past due; where
 * that is not said either, the row counts as long as it runs.
 */
void
cs_ledger_end_grace(CsMember *member, const CsDue *dues, int ndues, int grace_days)
{
	for (int i = 0; i < member->nterms; i++)
	{
		CsTerm *term = &member->terms[i];
		TimestampTz due = DT_NOEND;
		int low = 0;
		int high = ndues;

		if (!term->past_due)
			continue;
		while (low < high)
		{
			CsDue key = {member->customer, term->start};
			int middle = (low + high) / 2;

			if (due_cmp(&dues[middle], &key) < 0)
				low = middle + 1;
			else
				high = middle;
		}
		if (low < ndues && strcmp(dues[low].customer, member->customer) == 0 &&
			dues[low].at < term->end)
			due = dues[low].at;
		else if (term->changed_at != DT_NOEND && term->changed_at >= term->start)
			due = term->changed_at;
		if (due != DT_NOEND)
			term->end = Min(term->end, cs_days_after(due, grace_days));
	}
}

/* --------------------------------------------------------------- by customer */

/* Terms in other currencies at the rates their subscriptions began with; what has none is left out. */
void
cs_ledger_convert(CsMember *member, const CsRates *rates, const CsPolicy *policy,
				  CsResult *unusable)
{
	TimestampTz *locked_at = palloc(sizeof(TimestampTz) * (member->nterms + 1));
	int n = 0;

	cs_terms_lock(member->terms, member->nterms, locked_at);
	for (int i = 0; i < member->nterms; i++)
	{
		CsTerm *term = &member->terms[i];
		CsTermResult result = cs_term_convert(term, locked_at[i], rates);

		if (result == CS_TERM_NO_RATE)
			cs_ledger_unusable(
				unusable, term->source, member->customer,
				psprintf("no fx_rate for %s to %s at %s", term->currency, policy->currency,
						 DatumGetCString(DirectFunctionCall1(
							 date_out,
							 DateADTGetDatum(cs_local_day(locked_at[i], policy->time_zone))))));
		else if (result != CS_TERM_OK)
			cs_ledger_unusable(unusable, term->source, member->customer, "MRR out of range");
		else
			member->terms[n++] = *term;
	}
	member->nterms = n;
	pfree(locked_at);
}

static int
member_index(const CsLedgerFacts *facts, const char *customer)
{
	CsMember key = {0};
	const CsMember *found;

	key.customer = customer;
	found = bsearch(&key, facts->members, facts->nmembers, sizeof(CsMember), member_cmp);
	return found == NULL ? -1 : (int) (found - facts->members);
}

/* Who is merged with whom: each member's family is named after its least member. */
static void
find_families(CsLedgerFacts *facts, const CsMergeFact *merges, int nmerges)
{
	bool again = nmerges > 0;

	facts->family = palloc(sizeof(int) * (facts->nmembers + 1));
	facts->merged = palloc0(sizeof(bool) * (facts->nmembers + 1));
	for (int i = 0; i < facts->nmembers; i++)
		facts->family[i] = i;
	facts->merges = palloc(sizeof(CsMerge) * (nmerges + 1));
	for (int i = 0; i < nmerges; i++)
	{
		CsMerge m = {merges[i].at, member_index(facts, merges[i].from),
					 member_index(facts, merges[i].into)};

		if (m.from < 0 || m.into < 0)
			continue;
		facts->merges[facts->nmerges++] = m;
		facts->merged[m.from] = facts->merged[m.into] = true;
	}
	while (again)
	{
		again = false;
		for (int i = 0; i < facts->nmerges; i++)
		{
			int *a = &facts->family[facts->merges[i].from];
			int *b = &facts->family[facts->merges[i].into];

			again |= *a != *b;
			*a = *b = Min(*a, *b);
		}
	}
}

/* Every member with its part of the chunk, which is sorted for that. */
static void
hand_out(CsLedgerFacts *facts, Chunk *chunk)
{
	int t = 0;
	int c = 0;
	CsTerm *terms = palloc_extended(sizeof(CsTerm) * (chunk->nterms + 1), MCXT_ALLOC_HUGE);
	CsCancellation *cancellations =
		palloc_extended(sizeof(CsCancellation) * (chunk->ncancellations + 1), MCXT_ALLOC_HUGE);

	qsort(chunk->terms, chunk->nterms, sizeof(OwnedTerm), owned_term_cmp);
	qsort(chunk->cancellations, chunk->ncancellations, sizeof(OwnedCancellation),
		  owned_cancellation_cmp);
	for (int i = 0; i < chunk->nterms; i++)
		terms[i] = chunk->terms[i].term;
	for (int i = 0; i < chunk->ncancellations; i++)
		cancellations[i] = chunk->cancellations[i].cancellation;

	for (int i = 0; i < facts->nmembers; i++)
	{
		CsMember *m = &facts->members[i];

		while (t < chunk->nterms && strcmp(chunk->terms[t].customer, m->customer) < 0)
			t++;
		m->terms = terms + t;
		for (; t < chunk->nterms && strcmp(chunk->terms[t].customer, m->customer) == 0; t++)
			m->nterms++;
		while (c < chunk->ncancellations &&
			   strcmp(chunk->cancellations[c].customer, m->customer) < 0)
			c++;
		m->cancellations = cancellations + c;
		for (; c < chunk->ncancellations &&
			   strcmp(chunk->cancellations[c].customer, m->customer) == 0;
			 c++)
			m->ncancellations++;
	}
}

/*
 * cs_ledger_read: see ledger_facts.h.
 */
CsLedgerFacts *
cs_ledger_read(Datum ids, const CsPolicy *policy, bool keep)
{
	CsLedgerFacts *facts = palloc0(sizeof(CsLedgerFacts));
	Chunk chunk = {0};
	CsMergeFact *merges;
	int nmerges;
	Datum family = cs_merge_family(ids, &merges, &nmerges);
	Datum *elements;
	CsDue *dues = NULL;
	int ndues = 0;
	CsRates *rates;
	ListCell *lc;

	facts->unusable = cs_ledger_unusable_result();

	chunk.terms_size = chunk.cancellations_size = 256;
	chunk.terms = palloc(sizeof(OwnedTerm) * chunk.terms_size);
	chunk.cancellations = palloc(sizeof(OwnedCancellation) * chunk.cancellations_size);
	foreach (lc, cs_sources("subscription"))
	{
		if (!read_terms(&chunk, lfirst(lc), family, policy, keep, facts->unusable))
			return facts;
	}
	foreach (lc, cs_sources("cancellation"))
	{
		if (!read_cancellations(&chunk, lfirst(lc), family, policy, keep))
			return facts;
	}
	if (chunk.past_due && !read_dues(family, policy, keep, &dues, &ndues))
		return facts;
	facts->readable = true;

	elements = cs_text_elements(family, &facts->nmembers);
	facts->members = palloc0(sizeof(CsMember) * (facts->nmembers + 1));
	for (int i = 0; i < facts->nmembers; i++)
		facts->members[i].customer = TextDatumGetCString(elements[i]);
	qsort(facts->members, facts->nmembers, sizeof(CsMember), member_cmp);
	find_families(facts, merges, nmerges);
	hand_out(facts, &chunk);

	rates = chunk.foreign ? cs_rates_load(policy) : NULL;
	for (int i = 0; i < facts->nmembers; i++)
	{
		if (chunk.past_due)
			cs_ledger_end_grace(&facts->members[i], dues, ndues, policy->grace_days);
		if (chunk.foreign)
			cs_ledger_convert(&facts->members[i], rates, policy, facts->unusable);
	}
	return facts;
}
