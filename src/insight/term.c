/*
 * term.c
 *		Subscription rows as facts: what term, how many seats, of which product.
 *		The ledger keeps money alone, so what else a rate asks for is read here.
 *
 * In: subscription and licence sources, through cs_user_query as policy.run_as,
 * each whole and once a call; of rows that are overwritten in place the versions
 * that ingest keeps.  Out: rows for term.sql.  Nothing is kept here: a
 * corrected fact shows at the next call (a version after the next refresh).  A
 * source that cannot be read raises, for a rate over half of the facts would be
 * a wrong one.
 */
#include "cs_ext.h"

#include "catalog/pg_type.h"
#include "funcapi.h"

#include "facts/source.h"

PG_FUNCTION_INFO_V1(cs_term_rows_sql);

/*
 * The columns of cs_internal.term_rows: %s is the outside id, the name of the
 * source and its rows.  A canceled row without an end ends when it was
 * canceled, as in the ledger.
 */
static const struct
{
	const char *kind;
	const char *select;
} kinds[] = {
	{"subscription",
	 "SELECT %s AS customer_id, %s::text AS source, r.subscription_id::text, r.start_at,"
	 " coalesce(r.end_at, CASE WHEN r.status::text = 'canceled'"
	 " THEN coalesce(r.changed_at, r.cancel_requested_at, r.start_at) END) AS end_at,"
	 " r.renews_at, r.term_months::integer, r.seats::numeric, r.mrr::numeric, r.currency::text,"
	 " r.product::text, coalesce(r.status::text, 'active') AS status,"
	 " coalesce(r.status::text, 'active') IN ('active', 'past_due', 'canceled')"
	 " AND r.is_trial IS NOT TRUE AND r.is_recurring IS NOT FALSE AS counts,"
	 " r.start_at AS row_start, false AS goes_on"
	 " FROM (%s) r"},
	{"licence", "SELECT %s AS customer_id, %s::text AS source, NULL::text, r.start_at, r.end_at,"
				" NULL::timestamptz, NULL::integer, r.seats::numeric, NULL::numeric, NULL::text,"
				" r.product::text, 'licence', true, r.start_at, false"
				" FROM (%s) r"},
};

/* The same of rows that are overwritten in place, by their versions; goes_on: into the next. */
static const char *const version_select =
	"SELECT p.customer_id, p.source, p.subscription_id, p.start_at, p.ends_at, p.renews_at,"
	" p.term_months::integer, p.seats, p.mrr, p.currency, p.product, p.status, p.counts,"
	" min(p.start_at) OVER w,"
	" coalesce(lead(p.start_at) OVER w = p.ends_at AND"
	" lead(p.counts AND coalesce(p.ends_at > p.start_at, true)) OVER w, false)"
	" FROM (SELECT v.*, coalesce(v.end_at, CASE WHEN v.status = 'canceled'"
	" THEN coalesce(v.changed_at, v.cancel_requested_at, v.start_at) END) AS ends_at,"
	" coalesce(v.status, 'active') IN ('active', 'past_due', 'canceled')"
	" AND v.is_trial IS NOT TRUE AND v.is_recurring IS NOT FALSE AS counts"
	" FROM cs_internal.subscription_piece v"
	" WHERE v.source = $1 AND ($2 IS NULL OR v.customer_id = ANY ($2))) p"
	" WINDOW w AS (PARTITION BY p.customer_id, p.subscription_id ORDER BY p.start_at)";

/*
 * cs_internal.term_rows(ids): the usable rows of the subscription and licence
 * sources, as known now, of these customers (NULL: of all).
 */
Datum
cs_term_rows_sql(PG_FUNCTION_ARGS)
{
	bool keyed = !PG_ARGISNULL(0);
	CsFrame frame;
	CsPolicy *policy;

	InitMaterializedSRF(fcinfo, 0);
	cs_enter(&frame);
	policy = cs_policy(false);
	for (int k = 0; k < lengthof(kinds); k++)
	{
		ListCell *lc;

		foreach (lc, cs_sources(kinds[k].kind))
		{
			CsSource *source = lfirst(lc);
			CsUserQuery query = {0};
			CsResult *rows;

			if (source->current)
				rows = cs_query(
					version_select,
					CS_ARGS(cs_text(source->name),
							cs_datum(TEXTARRAYOID, keyed ? PG_GETARG_DATUM(0) : 0, !keyed)));
			else
			{
				query.sql = psprintf(kinds[k].select, cs_source_id(source, "r.customer_key"),
									 quote_literal_cstr(source->name),
									 cs_source_rows(source, keyed, false));
				query.search_path = source->search_path;
				if (keyed)
					cs_source_keys(source, PG_GETARG_DATUM(0), &query);
				query.as_of = cs_now();
				query.as_of_day = cs_local_day(query.as_of, policy->time_zone);
				rows = cs_user_query(&query, NULL);
			}
			cs_return_rows(rows, fcinfo, 0);
		}
	}
	cs_leave(&frame);
	return (Datum) 0;
}
