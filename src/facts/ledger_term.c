/*
 * ledger_term.c
 *		A subscription row becomes a term of the sweep.
 *
 * In: the columns of cs_internal.subscription_fact as a source gives them, and
 * the rates of cs.fx_rate.  Out: a term with its MRR per month in the policy's
 * currency, or the word why there is none.  What a status means for MRR
 * (SURFACE 2, "What carries MRR") stands here and nowhere else in C.
 */
#include "cs_ext.h"

#include "utils/datum.h"
#include "utils/fmgrprotos.h"

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

static Datum
num(int64 v)
{
	return NumericGetDatum(int64_to_numeric(v));
}

static bool
not_a_number(Datum n)
{
	return numeric_is_nan(DatumGetNumeric(n)) || numeric_is_inf(DatumGetNumeric(n));
}

/* |n| < 10^digits, and neither NaN nor infinite. */
bool
cs_money_in_range(Datum n, int digits)
{
	int64 limit = 1;

	if (not_a_number(n))
		return false;
	for (int i = 0; i < digits; i++)
		limit *= 10;
	return DatumGetBool(
		DirectFunctionCall2(numeric_lt, DirectFunctionCall1(numeric_abs, n), num(limit)));
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
				" ORDER BY currency, valid_from DESC",
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

/*
 * The rate in force on the local day of an instant: it is locked there for
 * the whole term.  Currencies compare without case.  False: no such rate.
 */
static bool
rate_at(const CsRates *rates, const char *currency, TimestampTz at, Datum *rate)
{
	DateADT day = cs_local_day(at, rates->time_zone);

	for (int i = 0; i < rates->nrates; i++)
	{
		const Rate *r = &rates->rates[i];

		if (pg_strcasecmp(r->currency, currency) == 0 && r->valid_from <= day)
		{
			*rate = r->rate;
			return true;
		}
	}
	return false;
}

static char *
text_or_null(const Datum *values, const bool *nulls, int column)
{
	return nulls[column] ? NULL : TextDatumGetCString(values[column]);
}

/*
 * Fills *term from the columns of one row.  rates NULL: the row is in the
 * policy's currency.  Everything in the term is palloc'd.
 *
 * A row stands for its whole interval (terms 'interval'): past_due counts
 * (grace_days awaits invoices), trialing, incomplete and unpaid carry nothing,
 * canceled counts until its end, and where it has none until it was changed or
 * cancelled; without either it carries nothing.
 */
CsTermResult
cs_term_make(const Datum *values, const bool *nulls, const CsRates *rates, CsTerm *term)
{
	char *status = nulls[FACT_STATUS] ? "active" : TextDatumGetCString(values[FACT_STATUS]);
	Datum mrr;

	memset(term, 0, sizeof(CsTerm));
	if (nulls[FACT_START_AT])
		return CS_TERM_UNKNOWN;
	term->start = DatumGetTimestampTz(values[FACT_START_AT]);
	term->end = nulls[FACT_END_AT] ? DT_NOEND : DatumGetTimestampTz(values[FACT_END_AT]);
	if (TIMESTAMP_NOT_FINITE(term->start) || term->end < term->start)
		return CS_TERM_UNKNOWN;
	if ((!nulls[FACT_IS_TRIAL] && DatumGetBool(values[FACT_IS_TRIAL])) ||
		(!nulls[FACT_IS_RECURRING] && !DatumGetBool(values[FACT_IS_RECURRING])))
		return CS_TERM_NOTHING;

	if (strcmp(status, "active") == 0 || strcmp(status, "past_due") == 0)
		term->state = CS_TERM_CARRIES;
	else if (strcmp(status, "paused") == 0)
		term->state = CS_TERM_PAUSED;
	else if (strcmp(status, "canceled") == 0)
	{
		term->state = CS_TERM_CARRIES;
		if (term->end == DT_NOEND)
		{
			if (!nulls[FACT_CHANGED_AT])
				term->end = DatumGetTimestampTz(values[FACT_CHANGED_AT]);
			else if (!nulls[FACT_CANCEL_REQUESTED_AT])
				term->end = DatumGetTimestampTz(values[FACT_CANCEL_REQUESTED_AT]);
			else
				return CS_TERM_NOTHING;
		}
	}
	else if (strcmp(status, "trialing") == 0 || strcmp(status, "incomplete") == 0 ||
			 strcmp(status, "unpaid") == 0)
		return CS_TERM_NOTHING;
	else
		return CS_TERM_UNKNOWN;

	/* what a paused row would cost does not matter: none of it counts */
	if (term->state == CS_TERM_PAUSED)
		mrr = num(0);
	else if (nulls[FACT_MRR] || not_a_number(values[FACT_MRR]))
		return CS_TERM_UNKNOWN;
	else if (!cs_money_in_range(values[FACT_MRR], 14))
		return CS_TERM_RANGE;
	else
		mrr = values[FACT_MRR];

	/* nothing is nothing in every currency */
	if (rates != NULL && !nulls[FACT_CURRENCY] &&
		DatumGetInt32(DirectFunctionCall2(numeric_cmp, mrr, num(0))) != 0)
	{
		char *currency = TextDatumGetCString(values[FACT_CURRENCY]);
		Datum rate;

		if (pg_strcasecmp(currency, rates->currency) != 0)
		{
			if (!rate_at(rates, currency, term->start, &rate))
				return CS_TERM_NO_RATE;
			mrr = DirectFunctionCall2(numeric_mul, mrr, rate);
		}
	}
	term->mrr = DirectFunctionCall2(numeric_round, mrr, Int32GetDatum(6));
	if (!cs_money_in_range(term->mrr, 14))
		return CS_TERM_RANGE;

	term->churn_kind = text_or_null(values, nulls, FACT_CHURN_KIND);
	term->reason = text_or_null(values, nulls, FACT_CANCEL_REASON);
	if (strcmp(status, "past_due") == 0)
		term->implied_kind = "involuntary";
	else if (!nulls[FACT_CANCEL_REQUESTED_AT])
		term->implied_kind = "voluntary";
	else if (!nulls[FACT_AUTO_RENEW] && !DatumGetBool(values[FACT_AUTO_RENEW]))
		term->implied_kind = "term_end";
	return CS_TERM_OK;
}
