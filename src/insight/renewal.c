/*
 * renewal.c
 *		Subscription rows as the SQL of renewals and of the checks reads them.
 *
 * In: the subscription sources, read as policy.run_as through cs_user_query,
 * whole or cut at an instant to what was known then.  Out: typed rows with the
 * outside id.  What a row means for a renewal is decided in renewal.sql.
 *
 * Nothing is kept: a crash, an abort, a concurrent writer or a restore leave
 * nothing behind, and a standby can read.
 */
#include "cs_ext.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"

#include "facts/source.h"

PG_FUNCTION_INFO_V1(cs_subscription_rows_sql);

/*
 * cs_internal.subscription_rows(customers text[], as_of timestamptz): the
 * usable subscription rows of these customers (NULL: of all), as they were
 * known at as_of (NULL: as they stand now, ends to come included).  A source
 * that cannot be read raises: without its rows a renewal would look lost.
 */
Datum
cs_subscription_rows_sql(PG_FUNCTION_ARGS)
{
	static const char *const select =
		"SELECT %s AS customer_id, r.subscription_id::text, r.start_at, r.end_at, r.mrr::numeric,"
		" r.currency::text, r.product::text, r.term_months::integer, coalesce(r.status::text, "
		"'active'),"
		" r.is_trial, r.is_recurring, r.signed_at, r.cancel_requested_at, r.cancel_reason::text,"
		" r.churn_kind::text, r.auto_renew, r.renews_at, r.changed_at, r.start_at AS row_start"
		" FROM (%s) r";
	/* rows that are overwritten in place, by the versions that ingest keeps */
	static const char *const version_select =
		"SELECT v.customer_id, v.subscription_id, v.start_at,"
		" CASE WHEN $3 IS NULL OR NOT v.is_last OR least(v.cancel_requested_at, v.end_at) < $3"
		" THEN v.end_at END, v.mrr, v.currency, v.product, v.term_months::integer,"
		" coalesce(v.status, 'active'), v.is_trial, v.is_recurring, NULL::timestamptz,"
		" CASE WHEN $3 IS NULL OR v.cancel_requested_at < $3 THEN v.cancel_requested_at END,"
		" v.cancel_reason, v.churn_kind, v.auto_renew, v.renews_at,"
		" CASE WHEN $3 IS NULL OR v.changed_at < $3 THEN v.changed_at END,"
		" min(v.start_at) OVER (PARTITION BY v.customer_id, v.subscription_id)"
		" FROM cs_internal.subscription_piece v WHERE v.source = $1"
		" AND ($2 IS NULL OR v.customer_id = ANY ($2)) AND ($3 IS NULL OR v.start_at < $3)";
	bool keyed = !PG_ARGISNULL(0);
	bool cut = !PG_ARGISNULL(1);
	CsFrame frame;
	CsPolicy *policy;
	ListCell *lc;

	InitMaterializedSRF(fcinfo, 0);
	cs_enter(&frame);
	policy = cs_policy(false);
	foreach (lc, cs_sources("subscription"))
	{
		CsSource *source = lfirst(lc);
		CsUserQuery query = {0};

		if (source->current)
		{
			cs_return_rows(
				cs_query(version_select,
						 CS_ARGS(cs_text(source->name),
								 cs_datum(TEXTARRAYOID, keyed ? PG_GETARG_DATUM(0) : 0, !keyed),
								 cs_datum(TIMESTAMPTZOID, cut ? PG_GETARG_DATUM(1) : 0, !cut))),
				fcinfo, 0);
			continue;
		}
		query.sql = psprintf(select, cs_source_id(source, "r.customer_key"),
							 cs_source_rows(source, keyed, cut));
		query.search_path = source->search_path;
		query.as_of = cut ? PG_GETARG_TIMESTAMPTZ(1) : cs_now();
		query.as_of_day = cs_local_day(query.as_of, policy->time_zone);
		if (keyed)
			cs_source_keys(source, PG_GETARG_DATUM(0), &query);
		cs_return_rows(cs_user_query(&query, NULL), fcinfo, 0);
	}
	cs_leave(&frame);
	return (Datum) 0;
}
