/*
 * ledger_term.c
 *		A subscription row becomes a term of the sweep, a row of kind cancellation
 *		what the sweep takes for one.
 *
 * In: the columns of cs_internal.subscription_fact or cancellation_fact as a source gives them, and
 * the rates of cs.fx_rate.  Out: a term with its MRR per month in the policy's
 * currency, or the word why there is none.  What a status means for MRR
 * (SURFACE 2, "What carries MRR") stands here and nowhere else in C.
 */
#include "cs_ext.h"

#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/formatting.h"

#include "facts/ledger_sweep.h"

typedef struct Rate
{
	char *currency;
	DateADT valid_from;
	Datum rate; /* numeric: policy currency per unit */
} Rate;

struct CsRates
{
	const char *currency; /* the policy's */
	const char *time_zone;
	Rate *rates; /* by currency, the newest first */
	int nrates;
};

static bool
is_nothing(Datum n)
{
	return DatumGetInt32(
			   DirectFunctionCall2(numeric_cmp, n, NumericGetDatum(int64_to_numeric(0)))) == 0;
}

/* All rates, once per ingest.  Call inside a frame. */
CsRates *
cs_rates_load(const CsPolicy *policy)
{
	CsRates *rates = palloc0(sizeof(CsRates));
	uint64 n;

	rates->currency = policy->currency;
	rates->time_zone = policy->time_zone;
	n = cs_exec("SELECT currency::text, valid_from, rate FROM cs.fx_rate WHERE enabled"
				" ORDER BY currency COLLATE \"C\", valid_from DESC",
				CS_NO_ARGS);
	rates->rates = palloc(sizeof(Rate) * (n + 1));
	for (uint64 i = 0; i < n; i++)
	{
		Rate *r = &rates->rates[rates->nrates++];
		bool isnull;

		r->currency = cs_cell(i, 1);
		r->valid_from = DatumGetDateADT(cs_cell_datum(i, 2, &isnull));
		r->rate = datumCopy(cs_cell_datum(i, 3, &isnull), false, -1);
	}
	return rates;
}

/* A rate in a piece of memory: its currency, then the number, each aligned. */
typedef struct PackedRate
{
	DateADT valid_from;
	int number_at; /* where the rate stands behind this */
	int next_at;   /* and the next one; 0: this is none */
} PackedRate;

/*
 * cs_rates_pack, cs_rates_unpack: see ledger_sweep.h.
 */
char *
cs_rates_pack(const CsRates *rates, Size *size)
{
	Size total = sizeof(PackedRate);
	char *packed;
	char *to;

	for (int i = 0; i < rates->nrates; i++)
		total += MAXALIGN(sizeof(PackedRate)) + MAXALIGN(strlen(rates->rates[i].currency) + 1) +
				 MAXALIGN(VARSIZE_ANY(DatumGetPointer(rates->rates[i].rate)));
	packed = to = palloc_extended(total, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < rates->nrates; i++)
	{
		const Rate *r = &rates->rates[i];
		PackedRate *p = (PackedRate *) to;
		Size bytes = VARSIZE_ANY(DatumGetPointer(r->rate));

		p->valid_from = r->valid_from;
		p->number_at = MAXALIGN(sizeof(PackedRate)) + MAXALIGN(strlen(r->currency) + 1);
		p->next_at = p->number_at + MAXALIGN(bytes);
		strcpy(to + MAXALIGN(sizeof(PackedRate)), r->currency);
		memcpy(to + p->number_at, DatumGetPointer(r->rate), bytes);
		to += p->next_at;
	}
	*size = total;
	return packed;
}

CsRates *
cs_rates_unpack(char *packed, const char *currency, const char *time_zone)
{
	CsRates *rates = palloc0(sizeof(CsRates));
	int n = 0;

	rates->currency = currency;
	rates->time_zone = time_zone;
	for (char *p = packed; ((PackedRate *) p)->next_at != 0; p += ((PackedRate *) p)->next_at)
		n++;
	rates->rates = palloc(sizeof(Rate) * (n + 1));
	for (char *p = packed; ((PackedRate *) p)->next_at != 0; p += ((PackedRate *) p)->next_at)
	{
		Rate *r = &rates->rates[rates->nrates++];

		r->currency = p + MAXALIGN(sizeof(PackedRate));
		r->valid_from = ((PackedRate *) p)->valid_from;
		r->rate = PointerGetDatum(p + ((PackedRate *) p)->number_at);
	}
	return rates;
}

/*
 * The rate in force on the local day of an instant.  Currencies are in upper
 * case.  False: no such rate.
 */
static bool
rate_at(const CsRates *rates, const char *currency, TimestampTz at, Datum *rate)
{
	DateADT day = cs_local_day(at, rates->time_zone);
	int low = 0;
	int high = rates->nrates;

	/* the first of this currency that is not later; the newest come first */
	while (low < high)
	{
		int middle = (low + high) / 2;
		const Rate *r = &rates->rates[middle];
		int cmp = strcmp(r->currency, currency);

		if (cmp < 0 || (cmp == 0 && r->valid_from > day))
			low = middle + 1;
		else
			high = middle;
	}
	if (low == rates->nrates || strcmp(rates->rates[low].currency, currency) != 0)
		return false;
	*rate = rates->rates[low].rate;
	return true;
}

static char *
text_or_null(const Datum *values, const bool *nulls, int column)
{
	return nulls[column] ? NULL : TextDatumGetCString(values[column]);
}

static TimestampTz
instant_or_none(const Datum *values, const bool *nulls, int column)
{
	return nulls[column] ? DT_NOEND : DatumGetTimestampTz(values[column]);
}

/*
 * Fills *term from the columns of one row; everything in it is palloc'd.
 * currency: the policy's; NULL: every row is in it.  Where the row is in
 * another, mrr is still to be converted (cs_term_convert).
 *
 * A row stands for its whole interval: past_due counts (until its grace is
 * over, which ledger.c knows), trialing, incomplete and unpaid carry nothing,
 * canceled counts until its end, and where it has none until it was changed or
 * cancelled; without either it carries nothing.
 */
CsTermResult
cs_term_make(const Datum *values, const bool *nulls, const char *currency, CsTerm *term)
{
	char *status = nulls[FACT_STATUS] ? "active" : TextDatumGetCString(values[FACT_STATUS]);

	memset(term, 0, sizeof(CsTerm));
	if (nulls[FACT_START_AT])
		return CS_TERM_UNKNOWN;
	term->start = DatumGetTimestampTz(values[FACT_START_AT]);
	term->end = instant_or_none(values, nulls, FACT_END_AT);
	term->requested = instant_or_none(values, nulls, FACT_CANCEL_REQUESTED_AT);
	term->changed_at = instant_or_none(values, nulls, FACT_CHANGED_AT);
	term->effective = DT_NOEND;
	if (TIMESTAMP_NOT_FINITE(term->start) || term->end < term->start)
		return CS_TERM_UNKNOWN;
	if ((!nulls[FACT_IS_TRIAL] && DatumGetBool(values[FACT_IS_TRIAL])) ||
		(!nulls[FACT_IS_RECURRING] && !DatumGetBool(values[FACT_IS_RECURRING])))
		return CS_TERM_NOTHING;

	if (strcmp(status, "active") == 0)
		term->state = CS_TERM_CARRIES;
	else if (strcmp(status, "past_due") == 0)
	{
		term->state = CS_TERM_CARRIES;
		term->past_due = true;
	}
	else if (strcmp(status, "paused") == 0)
		term->state = CS_TERM_PAUSED;
	else if (strcmp(status, "canceled") == 0)
	{
		term->state = CS_TERM_CARRIES;
		term->effective = term->changed_at;
		if (term->end == DT_NOEND)
			term->end = term->changed_at != DT_NOEND ? term->changed_at : term->requested;
		if (term->end == DT_NOEND)
			return CS_TERM_NOTHING;
	}
	else if (strcmp(status, "trialing") == 0 || strcmp(status, "incomplete") == 0 ||
			 strcmp(status, "unpaid") == 0)
		return CS_TERM_NOTHING;
	else
		return CS_TERM_UNKNOWN;

	/* what a paused row would cost does not matter: none of it counts */
	if (term->state == CS_TERM_PAUSED)
		term->mrr = 0;
	else if (nulls[FACT_MRR])
		return CS_TERM_UNKNOWN;
	else if (!cs_money(values[FACT_MRR], &term->mrr))
	{
		Numeric n = DatumGetNumeric(values[FACT_MRR]);

		return numeric_is_nan(n) || numeric_is_inf(n) ? CS_TERM_UNKNOWN : CS_TERM_RANGE;
	}
	else if (!cs_money_fits(term->mrr))
		return CS_TERM_RANGE;
	/* nothing is nothing in every currency */
	if (currency != NULL && !nulls[FACT_CURRENCY] && term->state != CS_TERM_PAUSED &&
		(term->mrr != 0 || !is_nothing(values[FACT_MRR])))
	{
		char *own = TextDatumGetCString(values[FACT_CURRENCY]);

		if (pg_strcasecmp(own, currency) != 0)
		{
			term->currency = asc_toupper(own, strlen(own));
			term->native = datumCopy(values[FACT_MRR], false, -1);
		}
	}

	term->subscription_id = text_or_null(values, nulls, FACT_SUBSCRIPTION_ID);
	if (!nulls[FACT_TERM_MONTHS])
		term->term_months = (int) Max(0, Min(DatumGetInt64(values[FACT_TERM_MONTHS]), INT_MAX));
	term->churn_kind = text_or_null(values, nulls, FACT_CHURN_KIND);
	term->reason = text_or_null(values, nulls, FACT_CANCEL_REASON);
	if (term->past_due)
		term->implied_kind = "involuntary";
	else if (!nulls[FACT_CANCEL_REQUESTED_AT])
		term->implied_kind = "voluntary";
	else if (!nulls[FACT_AUTO_RENEW] && !DatumGetBool(values[FACT_AUTO_RENEW]))
		term->implied_kind = "term_end";
	return CS_TERM_OK;
}

/* Fills *cancellation from the columns of cs_internal.cancellation_fact; false: the row has no instant. */
bool
cs_cancellation_make(const Datum *values, const bool *nulls, CsCancellation *cancellation)
{
	if (nulls[0])
		return false;
	cancellation->at = DatumGetTimestampTz(values[0]);
	cancellation->churn_kind = text_or_null(values, nulls, 1);
	cancellation->reason = text_or_null(values, nulls, 2);
	return true;
}

/* A term in another currency at the rate of the local day of `locked_at`. */
CsTermResult
cs_term_convert(CsTerm *term, TimestampTz locked_at, const CsRates *rates)
{
	Datum rate;

	if (term->currency == NULL)
		return CS_TERM_OK;
	if (!rate_at(rates, term->currency, locked_at, &rate))
		return CS_TERM_NO_RATE;
	if (!cs_money(DirectFunctionCall2(numeric_mul, term->native, rate), &term->mrr) ||
		!cs_money_fits(term->mrr))
		return CS_TERM_RANGE;
	return CS_TERM_OK;
}

static int
subscription_cmp(const void *a, const void *b)
{
	const CsTerm *x = *(const CsTerm *const *) a;
	const CsTerm *y = *(const CsTerm *const *) b;
	int cmp = strcmp(x->subscription_id, y->subscription_id);

	if (cmp == 0 && x->source != NULL && y->source != NULL)
		cmp = strcmp(x->source, y->source);
	if (cmp == 0)
		cmp = x->start < y->start ? -1 : x->start > y->start ? 1 : 0;
	return cmp;
}

/*
 * When each term's rate was locked: at the start of its subscription.  Rows of
 * one subscription_id that touch or overlap in one currency are one
 * subscription, so cutting a row in two changes no rate; a row without an id
 * is one of its own.
 */
void
cs_terms_lock(CsTerm *terms, int nterms, TimestampTz *locked_at)
{
	CsTerm **sorted = palloc(sizeof(CsTerm *) * (nterms + 1));
	TimestampTz chain_start = 0;
	TimestampTz chain_end = 0;
	const char *currency = NULL;
	int n = 0;

	for (int i = 0; i < nterms; i++)
	{
		locked_at[i] = terms[i].start;
		if (terms[i].subscription_id != NULL)
			sorted[n++] = &terms[i];
	}
	qsort(sorted, n, sizeof(CsTerm *), subscription_cmp);
	for (int i = 0; i < n; i++)
	{
		const CsTerm *t = sorted[i];
		bool same = i > 0 && strcmp(sorted[i - 1]->subscription_id, t->subscription_id) == 0 &&
					(t->source == NULL || strcmp(sorted[i - 1]->source, t->source) == 0);

		if (!same || t->start > chain_end ||
			(currency != NULL && t->currency != NULL && strcmp(currency, t->currency) != 0))
		{
			chain_start = t->start;
			chain_end = t->end;
			currency = t->currency;
		}
		chain_end = Max(chain_end, t->end);
		if (currency == NULL)
			currency = t->currency;
		locked_at[t - terms] = chain_start;
	}
	pfree(sorted);
}

/* policy.recognition as the sweep has it. */
CsRecognition
cs_recognition(const char *word)
{
	return strcmp(word, "cancel_request") == 0     ? CS_AT_CANCEL_REQUEST
		   : strcmp(word, "cancel_effective") == 0 ? CS_AT_CANCEL_EFFECTIVE
												   : CS_AT_SERVICE_END;
}
