/*
 * version.c
 *		Subscription rows that are overwritten in place (terms => 'current').
 *
 * In: the rows as they are now, read by ledger_facts.c for a chunk of
 * customers.  Out: cs_internal.subscription_version, to which each change of
 * amount, currency, status, trial, seats, product or term is added, and from
 * it the same rows as intervals, which the sweep takes like any others.
 *
 * A change counts from the row's changed_at, where that moved with it and lies
 * between the version before and now; else from the refresh that finds it.
 * Several changes between two refreshes are one.  Dates and reasons are
 * corrected in place.  A row that is gone ended when that was found; where it
 * comes back, it goes on from there.
 *
 * Cases.
 * Writer aborts: its row was never on our snapshot, there is no version.
 * Writer commits beside a refresh: not on the snapshot; its change log row
 * makes the customer pending for the next one.
 * Crash or cancel of a refresh: versions, movements and the end of the pending
 * row are one transaction, the step is done again and finds the same change.
 * refresh_customer: writes versions of uncommitted rows, which stay or go with
 * them; the customer's lock keeps the refresher away until then.
 * Restore: versions are dumped with the definitions; the restored rows equal
 * the last versions, so nothing is added.  Rows restored without their
 * versions begin a history of their own.
 * Rebuild: versions are decided, not derived: they stay, the ledger is made
 * from them again.
 * Source dropped: versions stay, so that a source of the same name (another
 * mapping) goes on with them.
 * Source unreadable: ledger_facts.c does not come here; nothing is gone.
 */
#include "cs_ext.h"

#include "facts/ledger_facts.h"

/* Columns of which a change is a version, and those that are corrected in place. */
#define VERSIONED(r)                                                                      \
	r "mrr, " r "currency, " r "status, " r "is_trial, " r "is_recurring, " r "seats, " r \
	  "product, " r "term_months"
#define CORRECTED(r)                                                                             \
	r "start_at, " r "end_at, " r "changed_at, " r "cancel_requested_at, " r "cancel_reason, " r \
	  "churn_kind, " r "auto_renew, " r "renews_at"

/*
 * note_versions: adds what the relations "version_row" (now) and
 * "version_last" (as last kept) differ in.
 */
static void
note_versions(const char *source, TimestampTz now)
{
	cs_exec(
		"INSERT INTO cs_internal.subscription_version AS v (source, customer_id,"
		" subscription_id, valid_from, recorded_at, gone, " VERSIONED("") ", " CORRECTED(
			"") ")"
				" SELECT $1, r.customer_id, r.subscription_id, CASE"
				" WHEN l.valid_from IS NULL THEN '-infinity'"
				" WHEN NOT l.gone AND r.changed_at IS DISTINCT FROM l.changed_at"
				" AND r.changed_at > l.valid_from AND r.changed_at <= $2 THEN r.changed_at"
				" ELSE greatest($2, l.valid_from) END, $2, false, " VERSIONED("r.") ", " CORRECTED(
					"r.") " FROM version_row r LEFT JOIN version_last l"
						  " ON l.customer_id = r.customer_id AND l.subscription_id = "
						  "r.subscription_id"
						  " WHERE l.customer_id IS NULL OR l.gone"
						  " OR (" VERSIONED("r.") ") IS DISTINCT FROM (" VERSIONED(
							  "l.") ")"
									" ON CONFLICT (source, customer_id, subscription_id, "
									"valid_from) DO UPDATE"
									" SET (gone, " VERSIONED("") ", " CORRECTED(
										"") ")"
											" = (SELECT false, " VERSIONED(
												"excluded.") ", " CORRECTED("excluded.") ")",
		CS_ARGS(cs_text(source), cs_tstz(now)));
	cs_exec("INSERT INTO cs_internal.subscription_version AS v (source, customer_id,"
			" subscription_id, valid_from, recorded_at, gone, " VERSIONED("") ", " CORRECTED(
				"") ")"
					" SELECT $1, l.customer_id, l.subscription_id, greatest($2, l.valid_from), $2, "
					"true, " VERSIONED("l.") ", " CORRECTED(
						"l.") " FROM version_last l WHERE NOT l.gone AND NOT EXISTS (SELECT FROM "
							  "version_row r"
							  " WHERE r.customer_id = l.customer_id AND r.subscription_id = "
							  "l.subscription_id)"
							  " ON CONFLICT (source, customer_id, subscription_id, valid_from) DO "
							  "UPDATE"
							  " SET gone = true",
			CS_ARGS(cs_text(source), cs_tstz(now)));
	cs_exec("UPDATE cs_internal.subscription_version v SET (" CORRECTED(
				"") ")"
					" = (SELECT " CORRECTED(
						"r.") ")"
							  " FROM version_row r, version_last l"
							  " WHERE l.customer_id = r.customer_id AND l.subscription_id = "
							  "r.subscription_id"
							  " AND NOT l.gone AND v.source = $1 AND v.customer_id = l.customer_id"
							  " AND v.subscription_id = l.subscription_id AND v.valid_from = "
							  "l.valid_from"
							  " AND (" VERSIONED("r.") ") IS NOT DISTINCT FROM (" VERSIONED(
								  "l.") ")"
										" AND (" CORRECTED("r.") ") IS DISTINCT FROM (" CORRECTED(
											"l.") ")",
			CS_ARGS(cs_text(source)));
}

/*
 * cs_version_rows: see ledger_facts.h.
 */
CsResult *
cs_version_rows(const CsSource *source, Datum ids, CsResult *rows, bool keep, CsResult **refused)
{
	CsResult *now;
	CsResult *last;

	cs_register("version_read", rows);
	now = cs_query("SELECT * FROM (SELECT r.*, row_number() OVER (PARTITION BY r.customer_id,"
				   " r.subscription_id ORDER BY r.start_at, r.end_at, r.mrr, r.status, r.seats,"
				   " r.product) AS n FROM version_read r WHERE r.subscription_id <> '') x"
				   " WHERE x.n = 1",
				   CS_NO_ARGS);
	*refused = cs_query("SELECT x.customer_id, CASE WHEN coalesce(x.subscription_id, '') = ''"
						" THEN 'subscription_id is NULL' ELSE 'subscription_id is not unique' END"
						" FROM (SELECT r.customer_id, r.subscription_id, row_number() OVER"
						" (PARTITION BY r.customer_id, r.subscription_id) AS n"
						" FROM version_read r) x"
						" WHERE coalesce(x.subscription_id, '') = '' OR x.n > 1",
						CS_NO_ARGS);
	cs_unregister("version_read");
	last = cs_query("SELECT DISTINCT ON (v.customer_id, v.subscription_id) v.*"
					" FROM cs_internal.subscription_version v"
					" WHERE v.source = $1 AND v.customer_id = ANY ($2)"
					" ORDER BY v.customer_id, v.subscription_id, v.valid_from DESC",
					CS_ARGS(cs_text(source->name), cs_textarray(ids)));
	cs_register("version_row", now);
	cs_register("version_last", last);
	if (keep)
		note_versions(source->name, cs_now());
	cs_unregister("version_row");
	cs_unregister("version_last");
	tuplestore_end(now->store);
	tuplestore_end(last->store);

	return cs_query("SELECT p.customer_id, p.start_at, p.end_at, p.mrr::numeric, p.currency,"
					" p.status, p.is_trial, p.is_recurring, p.changed_at, p.cancel_requested_at,"
					" p.cancel_reason, p.churn_kind, p.auto_renew, p.subscription_id,"
					" p.term_months, p.seats, p.product"
					" FROM cs_internal.subscription_piece p"
					" WHERE p.source = $1 AND p.customer_id = ANY ($2)",
					CS_ARGS(cs_text(source->name), cs_textarray(ids)));
}

/*
 * cs_version_state: see ledger_facts.h.  What is not known at the instant yet
 * (the end of a row without a cancellation so far) is NULL, as in a cut read.
 */
CsResult *
cs_version_state(const CsSource *source, const char *select, Datum ids, TimestampTz as_of)
{
	static const char *const rows =
		"SELECT p.customer_id AS customer_key, p.seats, p.renews_at, p.is_trial, p.status,"
		" p.is_recurring, p.start_at, CASE WHEN p.changed_at < $3 THEN p.changed_at END"
		" AS changed_at, CASE WHEN p.cancel_requested_at < $3 THEN p.cancel_requested_at END"
		" AS cancel_requested_at, CASE WHEN NOT p.is_last"
		" OR least(p.cancel_requested_at, p.end_at) < $3 THEN p.end_at END AS end_at,"
		" $3::timestamptz AS as_of"
		" FROM cs_internal.subscription_piece p WHERE p.source = $1 AND p.customer_id = ANY ($2)";

	return cs_query(psprintf(select, "r.customer_key", rows),
					CS_ARGS(cs_text(source->name), cs_textarray(ids), cs_tstz(as_of)));
}
