/*
 * ledger_sweep.h
 *		Inside the ledger: terms in, movements out.
 */
#ifndef CS_LEDGER_SWEEP_H
#define CS_LEDGER_SWEEP_H

#include "cs_ext.h"

#include "utils/numeric.h"

/* What a subscription row says between its start and its end. */
typedef enum CsTermState
{
	CS_TERM_CARRIES, /* its MRR counts */
	CS_TERM_PAUSED   /* none of it counts, the customer is on hold */
} CsTermState;

/* A usable subscription row, normalised: MRR per month in the policy's currency. */
typedef struct CsTerm
{
	TimestampTz start;
	TimestampTz end; /* DT_NOEND: open */
	CsTermState state;
	Datum mrr;              /* numeric, rounded to six digits */
	const char *churn_kind; /* as the row says, or NULL */
	const char *reason;
	const char *implied_kind; /* what its other columns imply, or NULL */
} CsTerm;

/* A fact of kind cancellation. */
typedef struct CsCancellation
{
	TimestampTz at;
	const char *churn_kind;
	const char *reason;
} CsCancellation;

typedef struct CsMovement
{
	TimestampTz at;
	const char *kind;
	Datum delta;     /* numeric */
	Datum mrr_after; /* numeric */
	bool active_after;
	const char *churn_kind;
	const char *reason;
} CsMovement;

typedef struct CsSweepRules
{
	bool free_is_active;
	int max_pause_days; /* -1: no limit */
} CsSweepRules;

/*
 * The movements of one customer in order of time, palloc'd.  Terms and
 * cancellations may come in any order; neither is changed but for its order.
 */
extern CsMovement *cs_sweep(CsTerm *terms, int nterms, CsCancellation *cancellations,
							int ncancellations, const CsSweepRules *rules, int *nmovements);

/* A movement as the columns at, seq, kind, delta, mrr_after, active_after, churn_kind, reason. */
#define MOVEMENT_COLUMNS 8
extern void cs_movement_values(const CsMovement *movement, Datum *values, bool *nulls);

/* ---- ledger_term.c: a subscription row becomes a term ------------------ */

/* Columns of cs_internal.subscription_fact, in its order, from 0. */
enum
{
	FACT_START_AT,
	FACT_END_AT,
	FACT_MRR,
	FACT_CURRENCY,
	FACT_STATUS,
	FACT_IS_TRIAL,
	FACT_IS_RECURRING,
	FACT_CHANGED_AT,
	FACT_CANCEL_REQUESTED_AT,
	FACT_CANCEL_REASON,
	FACT_CHURN_KIND,
	FACT_AUTO_RENEW,
	FACT_NCOLUMNS
};

typedef enum CsTermResult
{
	CS_TERM_OK,
	CS_TERM_NOTHING, /* the row is fine and carries no MRR */
	CS_TERM_UNKNOWN, /* what the source counts as unusable: status, dates, NaN */
	CS_TERM_NO_RATE, /* another currency and no rate at its start */
	CS_TERM_RANGE    /* more money than numeric(20,6) can sum safely */
} CsTermResult;

/* Rates of one currency into the policy's, by local day; see cs_rates_load(). */
typedef struct CsRates CsRates;

extern CsRates *cs_rates_load(const CsPolicy *policy);
extern CsTermResult cs_term_make(const Datum *values, const bool *nulls, const CsRates *rates,
								 CsTerm *term);

/* True when the number is one the ledger can store and add up. */
extern bool cs_money_in_range(Datum numeric, int digits);

#endif
