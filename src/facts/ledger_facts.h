/*
 * ledger_facts.h
 *		Inside the ledger: the facts of some customers, read and put together.
 */
#ifndef CS_LEDGER_FACTS_H
#define CS_LEDGER_FACTS_H

#include "facts/ledger_sweep.h"
#include "facts/merge.h"
#include "facts/source.h"

/*
 * What is read of facts, by one chunk of customers or by all of them in order:
 * after the customer's id the columns of cs_internal.subscription_fact up to
 * auto_renew, those of cancellation_fact, and when an unpaid invoice is due
 * (credits are not something to be paid).  %s: the outside id and the rows.
 */
#define CS_TERM_COLUMNS                                                       \
	"r.start_at, r.end_at, r.mrr::numeric, r.currency::text, r.status::text," \
	" r.is_trial, r.is_recurring, r.changed_at, r.cancel_requested_at,"       \
	" r.cancel_reason::text, r.churn_kind::text, r.auto_renew"
#define CS_CANCELLATION_SELECT \
	"SELECT %s AS customer_id, r.at, r.churn_kind::text, r.reason::text FROM (%s) r"
#define CS_DUE_SELECT                                \
	"SELECT %s AS customer_id, r.due_at FROM (%s) r" \
	" WHERE r.paid_at IS NULL AND coalesce(r.amount, 1) > 0"

/*
 * Customers in order of id, each with its facts; those merged with one
 * another form a family and are swept together.
 */
typedef struct CsLedgerFacts
{
	CsMember *members;
	int nmembers;
	int *family;  /* of each member: the least member it is merged with, itself as a rule */
	bool *merged; /* of each member: it is merged with somebody */
	CsMerge *merges;
	int nmerges;
	CsResult *unusable; /* source, customer_id, reason */
	bool readable;      /* false: a source could not be read, nothing else is filled in */
} CsLedgerFacts;

/*
 * Facts of these customers (text[]) and of all that are merged with them, in
 * the current memory context.  keep: what was found on the way is written (a
 * source that cannot be read, versions of rows that are overwritten in place);
 * else nothing is, and such an error is raised.
 */
extern CsLedgerFacts *cs_ledger_read(Datum ids, const CsPolicy *policy, bool keep);

/*
 * Runs `select` (with %s for the outside id and %s for the rows) over the
 * usable rows of a source.  NULL when it cannot be read: that is noted, and
 * the source will be read whole once it can be.
 */
extern CsResult *cs_ledger_select(const CsSource *source, const char *select, bool cut, Datum ids,
								  TimestampTz as_of, DateADT as_of_day);

extern CsSweepRules cs_sweep_rules(const CsPolicy *policy);

/* Sweeps the family that begins with this member, in the current memory context. */
extern void cs_ledger_family(CsLedgerFacts *facts, int first, const CsSweepRules *rules);

/* An empty relation to be filled and registered. */
extern CsResult *cs_empty_result(TupleDesc desc);

/* When an unpaid invoice of a customer is due. */
typedef struct CsDue
{
	const char *customer;
	TimestampTz at;
} CsDue;

/*
 * What is made of one customer's terms before the sweep: past due ones end with
 * their grace (dues are sorted by customer and instant), those in
 * other currencies are converted, and what has no rate is left out and counted.
 */
extern void cs_ledger_end_grace(CsMember *member, const CsDue *dues, int ndues, int grace_days);
extern void cs_ledger_convert(CsMember *member, const CsRates *rates, const CsPolicy *policy,
							  CsResult *unusable);

/*
 * What the ledger, not the source, finds unusable: an empty relation (source,
 * customer_id, reason), a row of it, whether a swept member can be stored (else
 * counted), and writing what was found of these customers, ids 0: of all.
 */
extern CsResult *cs_ledger_unusable_result(void);
extern void cs_ledger_unusable(CsResult *unusable, const char *source, const char *customer,
							   const char *reason);
extern bool cs_ledger_fits(const CsMember *member, CsResult *unusable);
extern void cs_ledger_write_unusable(Datum ids, CsResult *unusable);

/* ---- version.c ----------------------------------------------------------- */

/*
 * Of a source with terms 'current': keeps what changed in the rows just read
 * (columns as of cs_internal.subscription_fact after customer_id, then
 * renews_at), and returns them as intervals, in the same columns without
 * renews_at.  *refused: (customer_id, reason) of rows that cannot be followed,
 * because they have no subscription_id of their own.  keep false: what is kept
 * so far is returned.
 */
extern CsResult *cs_version_rows(const CsSource *source, Datum ids, CsResult *rows, bool keep,
								 CsResult **refused);

/* The same intervals as they were known at an instant, through a `select` of ledger_state.c. */
extern CsResult *cs_version_state(const CsSource *source, const char *select, Datum ids,
								  TimestampTz as_of);

#endif
