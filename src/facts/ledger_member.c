/*
 * ledger_member.c
 *		The ledger's first build: the rows of a customer become its movements.
 *
 * In: rows of subscriptions, cancellations and unpaid invoices, those of one
 * customer after those of another.  Out: each customer with its movements, one at
 * a time, and what was found unusable.  Facts become terms, and terms movements, by
 * the code that ingest uses.  No table is read and none is written, so that a
 * parallel worker can do it.
 *
 * Memory: one customer's rows.
 */
#include "cs_ext.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "facts/ledger_facts.h"
#include "facts/ledger_member.h"
#include "facts/ordered.h"

struct CsMaker
{
	const CsPolicy *policy;
	const CsRates *rates;
	CsSweepRules rules;
	CsResult *unusable;
	CsMade made;
	void *arg;

	MemoryContext context; /* of the customer */
	text *id;              /* NULL: none is begun */
	CsMember member;
	bool past_due;
	bool foreign;
	int ndues;

	CsTerm *terms; /* these grow, and live as long as the maker */
	int terms_size;
	CsCancellation *cancellations;
	int cancellations_size;
	CsDue *dues;
	int dues_size;
};

/* Room for one more. */
#define ROOM(array, n, size)                                                    \
	do                                                                          \
	{                                                                           \
		if ((n) == (size))                                                      \
			(array) = repalloc_huge((array), sizeof(*(array)) * ((size) *= 2)); \
	} while (0)

/*
 * cs_maker_begin: see ledger_member.h.
 */
CsMaker *
cs_maker_begin(const CsPolicy *policy, const CsRates *rates, CsResult *unusable, CsMade made,
			   void *arg)
{
	CsMaker *m = palloc0(sizeof(CsMaker));

	m->policy = policy;
	m->rates = rates;
	m->rules = cs_sweep_rules(policy);
	m->unusable = unusable;
	m->made = made;
	m->arg = arg;
	m->context = AllocSetContextCreate(CurrentMemoryContext, "cs_ext ledger customer",
									   ALLOCSET_DEFAULT_SIZES);
	m->terms_size = m->cancellations_size = m->dues_size = 64;
	m->terms = palloc(sizeof(CsTerm) * m->terms_size);
	m->cancellations = palloc(sizeof(CsCancellation) * m->cancellations_size);
	m->dues = palloc(sizeof(CsDue) * m->dues_size);
	return m;
}

/* The customer has no more rows. */
static void
finish_customer(CsMaker *m)
{
	CsMember *member = &m->member;

	if (member->nterms > 0)
	{
		member->terms = m->terms;
		member->cancellations = m->cancellations;
		if (m->past_due)
			cs_ledger_end_grace(member, m->dues, m->ndues, m->policy->grace_days);
		if (m->foreign)
			cs_ledger_convert(member, m->rates, m->policy, m->unusable);
		cs_sweep(member, 1, NULL, 0, &m->rules);
		if (cs_ledger_fits(member, m->unusable))
			m->made(member, m->id, m->arg);
	}
	m->id = NULL;
	MemoryContextReset(m->context);
}

static void
start_customer(CsMaker *m, const text *id)
{
	int len = VARSIZE_ANY_EXHDR(id);

	m->id = palloc(VARHDRSZ + len);
	SET_VARSIZE(m->id, VARHDRSZ + len);
	memcpy(VARDATA(m->id), VARDATA_ANY(id), len);
	m->member = (CsMember){0};
	m->member.customer = text_to_cstring(m->id);
	m->past_due = m->foreign = false;
	m->ndues = 0;
}

static void
add_term(CsMaker *m, const CsRowSource *source, TupleTableSlot *slot)
{
	CsMember *member = &m->member;
	CsTerm *term;
	Datum values[FACT_NCOLUMNS];
	bool nulls[FACT_NCOLUMNS];
	CsTermResult result;

	ROOM(m->terms, member->nterms, m->terms_size);
	term = &m->terms[member->nterms];
	memset(nulls, true, sizeof(nulls));
	for (int i = 0; i < source->ncolumns; i++)
	{
		values[source->columns[i]] = slot->tts_values[i + 1];
		nulls[source->columns[i]] = slot->tts_isnull[i + 1];
	}
	result = cs_term_make(values, nulls, m->policy->currency, term);
	if (result == CS_TERM_RANGE)
		cs_ledger_unusable(m->unusable, source->name, member->customer, "MRR out of range");
	if (result == CS_TERM_OK)
	{
		term->source = source->name;
		m->past_due |= term->past_due;
		m->foreign |= term->currency != NULL;
		member->nterms++;
	}
}

/*
 * cs_maker_row: see ledger_member.h.
 */
void
cs_maker_row(CsMaker *m, const CsRowSource *source, TupleTableSlot *slot)
{
	MemoryContext old = MemoryContextSwitchTo(m->context);
	const text *id;

	slot_getallattrs(slot);
	id = (const text *) DatumGetPointer(slot->tts_values[0]);
	if (m->id == NULL || cs_id_cmp(m->id, id) != 0)
	{
		CHECK_FOR_INTERRUPTS();
		if (m->id != NULL)
			finish_customer(m);
		start_customer(m, id);
	}
	switch (source->kind)
	{
		case CS_ROW_TERM:
			add_term(m, source, slot);
			break;
		case CS_ROW_CANCELLATION:
			ROOM(m->cancellations, m->member.ncancellations, m->cancellations_size);
			if (cs_cancellation_make(slot->tts_values + 1, slot->tts_isnull + 1,
									 &m->cancellations[m->member.ncancellations]))
				m->member.ncancellations++;
			break;
		case CS_ROW_DUE:
			ROOM(m->dues, m->ndues, m->dues_size);
			if (!slot->tts_isnull[1])
				m->dues[m->ndues++] =
					(CsDue){m->member.customer, DatumGetTimestampTz(slot->tts_values[1])};
			break;
	}
	MemoryContextSwitchTo(old);
}

/*
 * cs_maker_end: see ledger_member.h.
 */
void
cs_maker_end(CsMaker *m)
{
	MemoryContext old = MemoryContextSwitchTo(m->context);

	if (m->id != NULL)
		finish_customer(m);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(m->context);
	pfree(m->terms);
	pfree(m->cancellations);
	pfree(m->dues);
	pfree(m);
}
