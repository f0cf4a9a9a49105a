/*
 * ledger_sweep.h
 *		Inside the ledger: terms in, movements out.
 */
#ifndef CS_LEDGER_SWEEP_H
#define CS_LEDGER_SWEEP_H

#include "cs_ext.h"

#include "utils/numeric.h"

#include "core/money.h"

/* What a subscription row says between its start and its end. */
typedef enum CsTermState
{
	CS_TERM_CARRIES, /* its MRR counts */
	CS_TERM_PAUSED   /* none of it counts, the customer is on hold */
} CsTermState;

/* When a churn is recognised, policy.recognition. */
typedef enum CsRecognition
{
	CS_AT_SERVICE_END,
	CS_AT_CANCEL_REQUEST,
	CS_AT_CANCEL_EFFECTIVE
} CsRecognition;

/* A usable subscription row, normalised: MRR per month in the policy's currency. */
typedef struct CsTerm
{
	TimestampTz start;
	TimestampTz end; /* DT_NOEND: open */
	CsTermState state;
	CsMoney mrr;
	Datum native;         /* numeric, MRR in the row's own currency, where that is another */
	const char *currency; /* of native; NULL: the policy's, mrr is as the row has it */
	const char *subscription_id;
	const char *source;     /* its name; NULL where rows are arguments */
	int term_months;        /* 0: not said */
	TimestampTz requested;  /* when the end was asked for; DT_NOEND: not said */
	TimestampTz effective;  /* when billing cancelled it; DT_NOEND: not said */
	const char *churn_kind; /* as the row says, or NULL */
	const char *reason;
	const char *implied_kind; /* what its other columns imply, or NULL */
	bool past_due;            /* counts until its grace is over */
	TimestampTz changed_at;   /* as the row says; DT_NOEND: not said */
} CsTerm;

/* A fact of kind cancellation. */
typedef struct CsCancellation
{
	TimestampTz at;
	const char *churn_kind;
	const char *reason;
} CsCancellation;

/* From `at` on the facts of one customer count for another; indexes into the members. */
typedef struct CsMerge
{
	TimestampTz at;
	int from;
	int into;
} CsMerge;

/* A term's share in a movement; they add up to its delta. */
typedef struct CsShare
{
	const CsTerm *term;
	int owner; /* the member whose fact it is */
	CsMoney amount;
} CsShare;

typedef struct CsMovement
{
	TimestampTz at;
	int seq; /* of those at one instant */
	const char *kind;
	CsMoney delta;
	CsMoney mrr_after;
	bool active_after;
	const char *churn_kind;
	const char *reason;
	bool term_extension;     /* a contraction that comes with a longer term */
	TimestampTz service_end; /* of a churn: the three instants; DT_NOEND: not known */
	TimestampTz requested;
	TimestampTz effective;
	CsShare *shares; /* where wanted */
	int nshares;
} CsMovement;

/* One customer: what goes in, and what the sweep makes of it. */
typedef struct CsMember
{
	const char *customer;
	CsTerm *terms;
	int nterms;
	CsCancellation *cancellations;
	int ncancellations;

	CsMovement *movements;
	int nmovements;
} CsMember;

typedef struct CsSweepRules
{
	bool free_is_active;
	int max_pause_days;    /* -1: no limit */
	int gap_days;          /* inactive for no longer: neither churn nor return */
	int reactivation_days; /* -1: any time; a later return is new */
	CsRecognition recognition;
	bool shares; /* fill in CsMovement.shares */
} CsSweepRules;

/*
 * Fills the movements of customers that are merged with one another (as
 * a rule one, without merges), in order of time, palloc'd.  Terms,
 * cancellations and merges may come in any order; their order may be changed,
 * nothing else.
 */
extern void cs_sweep(CsMember *members, int nmembers, CsMerge *merges, int nmerges,
					 const CsSweepRules *rules);

/* Sorts merges and leaves those that count; how many. */
extern int cs_merges_resolve(CsMerge *merges, int nmerges);

/* Whose facts of a member are at an instant; merges are resolved. */
extern int cs_merge_owner(int member, TimestampTz at, const CsMerge *merges, int nmerges);

/* A movement as the columns of cs_internal.movement from `at` on. */
#define MOVEMENT_COLUMNS 12
extern void cs_movement_values(const CsMovement *movement, Datum *values, bool *nulls);

/* ---- ledger_churn.c: gaps, recognition and reasons of churns ------------- */

/* Terms of one currency that end and begin together. */
typedef struct CsFx
{
	const char *currency;
	Datum native_out;  /* numeric, in that currency */
	CsMoney value_out; /* the same, converted at the rate each has locked */
	Datum native_in;
	CsMoney value_in;
	const CsTerm *term; /* one that begins, and whose it is */
	int owner;
} CsFx;

/* What happened to a member at one instant, netted. */
typedef struct CsPoint
{
	TimestampTz at;
	CsMoney mrr; /* after it */
	bool active;
	int paused; /* by how many paused terms became more or fewer */

	CsMoney merged; /* MRR that came with merged customers first */
	bool has_merged;
	bool merged_active;
	bool merged_positive; /* they had MRR at some instant */
	bool merged_was_active;
	TimestampTz merged_ended; /* and when they ceased to be active; DT_NOBEGIN: never */
	bool merge_out;           /* then all of it went to another customer */

	CsFx *fx;
	int nfx;
	int months_out; /* longest term of what ends, and of what begins */
	int months_in;

	const CsTerm *ending;  /* of the terms that end, the one that explains */
	TimestampTz requested; /* latest of the ending terms' instants; DT_NOEND where one says none */
	TimestampTz effective;
	TimestampTz service_end;

	CsShare *shares; /* changes since the point before */
	int nshares;
	CsShare *merge_shares;
	int nmerge_shares;
	bool dropped; /* its changes are in a later point */
} CsPoint;

extern void cs_points_close_gaps(CsPoint *points, int npoints, const CsSweepRules *rules);
extern void cs_points_recognise(CsPoint *points, int npoints, const CsCancellation *cancellations,
								int ncancellations, const CsSweepRules *rules);
extern void cs_explain_churn(CsMovement *churn, const CsPoint *point,
							 const CsCancellation *cancellations, int ncancellations,
							 TimestampTz previous_churn);
extern TimestampTz cs_days_after(TimestampTz at, int days);

/* ---- ledger_term.c: a row becomes a term or a cancellation --------------- */

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
	FACT_SUBSCRIPTION_ID,
	FACT_TERM_MONTHS,
	FACT_SEATS,
	FACT_PRODUCT,
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

/* The rates as one piece of memory, and made of it again, which stays where it is. */
extern char *cs_rates_pack(const CsRates *rates, Size *size);
extern CsRates *cs_rates_unpack(char *packed, const char *currency, const char *time_zone);
extern CsTermResult cs_term_make(const Datum *values, const bool *nulls, const char *currency,
								 CsTerm *term);
extern bool cs_cancellation_make(const Datum *values, const bool *nulls,
								 CsCancellation *cancellation);
extern CsTermResult cs_term_convert(CsTerm *term, TimestampTz locked_at, const CsRates *rates);
extern void cs_terms_lock(CsTerm *terms, int nterms, TimestampTz *locked_at);
extern CsRecognition cs_recognition(const char *word);

#endif
