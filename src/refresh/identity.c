/*
 * identity.c
 *		Who the customers are: ids, names, owners and attributes.
 *
 * In: rows of customer and subscription sources (of any source where neither
 * kind is registered), read as policy.run_as.  Out: cs_internal.customer.
 */
#include "cs_ext.h"

#include "lib/stringinfo.h"

#include "facts/source.h"
#include "refresh/refresh.h"

/*
 * read_sources: rows of each source for these ids (0: for all) are added to a
 * list; false when one cannot be read.
 */
static bool
read_sources(List *sources, Datum ids, const char *columns, List **results)
{
	ListCell *lc;

	foreach (lc, sources)
	{
		const CsSource *source = lfirst(lc);
		CsUserQuery query = {0};
		ErrorData *error = NULL;
		CsResult *rows;

		if (ids != (Datum) 0)
			cs_source_keys(source, ids, &query);
		query.search_path = source->search_path;
		query.unlimited = ids == (Datum) 0;
		query.sql = psprintf("SELECT %s AS customer_id%s FROM (%s) s GROUP BY s.customer_key",
							 cs_source_id(source, "s.customer_key"), columns,
							 cs_source_rows(source, ids != (Datum) 0, false));
		rows = cs_user_query(&query, &error);
		if (rows == NULL)
		{
			cs_source_failed(source, error->message);
			return false;
		}
		*results = lappend(*results, rows);
	}
	return true;
}

/* What is known of a customer by each kind of source, of `present`. */
static const char *const of_customer =
	"SELECT %d AS n, p.customer_id, p.name::text, p.owner::text, p.parent_id::text, p.created_at,"
	" p.attributes, true AS customer, false AS subscription, false AS other FROM present_%d p";
static const char *const of_other =
	"SELECT %d AS n, p.customer_id, NULL::text AS name, NULL::text AS owner,"
	" NULL::text AS parent_id, NULL::timestamptz AS created_at, NULL::jsonb AS attributes,"
	" false AS customer, %s AS subscription, %s AS other FROM present_%d p";

/*
 * show: the rows of some sources as relations present_<n>, and into the union.
 */
static void
show(StringInfo all, int *n, List *results, const char *subscription, const char *other)
{
	ListCell *lc;

	foreach (lc, results)
	{
		(*n)++;
		cs_register(psprintf("present_%d", *n), lfirst(lc));
		appendStringInfoString(all, *n > 1 ? " UNION ALL " : "");
		if (subscription == NULL)
			appendStringInfo(all, of_customer, *n, *n);
		else
			appendStringInfo(all, of_other, *n, subscription, other, *n);
	}
}

/*
 * ingest: recompute the rows of these ids; 0: of all, with what subscription
 * sources say given.  While a source cannot be read what stands there is kept:
 * a table that is made anew must not end memberships and alerts.
 */
static bool
ingest(Datum ids, List *subscription_rows)
{
	CsArg whose = cs_datum(TEXTARRAYOID, ids, ids == (Datum) 0);
	bool all_ids = ids == (Datum) 0;
	bool none = false; /* nobody is known: nobody is looked up */
	List *customers = cs_sources("customer");
	List *subscriptions = cs_sources("subscription");
	bool others = customers == NIL && subscriptions == NIL;
	List *customer_rows = NIL;
	List *other_rows = NIL;
	StringInfoData all;
	int n = 0;

	/* Of several rows of one customer the oldest counts, ties by content, so that order never matters. */
	if (!read_sources(
			customers, ids,
			", (array_agg(s.name ORDER BY s.created_at, s.name))[1] AS name"
			", (array_agg(s.owner ORDER BY s.created_at, s.owner))[1] AS owner"
			", (array_agg(s.parent_id ORDER BY s.created_at, s.parent_id))[1] AS parent_id"
			", min(s.created_at) AS created_at"
			", (array_agg(s.attributes ORDER BY s.created_at, s.attributes))[1] AS attributes",
			&customer_rows) ||
		(!all_ids && !read_sources(subscriptions, ids, "", &subscription_rows)) ||
		(others && !read_sources(cs_sources(NULL), ids, "", &other_rows)))
		return false;

	/* Of several sources the first by name that says something; a row that stays as it is is not touched. */
	initStringInfo(&all);
	show(&all, &n, customer_rows, NULL, NULL);
	show(&all, &n, subscription_rows, "true", "false");
	show(&all, &n, other_rows, "false", "true");
	if (others)
		appendStringInfo(&all,
						 "%sSELECT 0 AS n, u.customer_id, NULL::text AS name, NULL::text AS owner,"
						 " NULL::text AS parent_id, NULL::timestamptz AS created_at,"
						 " NULL::jsonb AS attributes, false AS customer, false AS subscription,"
						 " true AS other FROM cs_internal.usage_sealed u"
						 " WHERE u.customer_id = ANY ($1)",
						 n > 0 ? " UNION ALL " : "");
	if (all_ids)
		none = cs_exec("SELECT FROM cs_internal.customer LIMIT 1", CS_NO_ARGS) == 0;
	if (all.len > 0)
		cs_exec(
			psprintf(
				"INSERT INTO cs_internal.customer AS c (customer_id, name, owner, parent_id,"
				"  created_at, attributes, from_customer, from_subscription, from_other)"
				" SELECT p.customer_id,"
				"  (array_agg(p.name ORDER BY p.n) FILTER (WHERE p.name IS NOT NULL))[1],"
				"  (array_agg(p.owner ORDER BY p.n) FILTER (WHERE p.owner IS NOT NULL))[1],"
				"  (array_agg(p.parent_id ORDER BY p.n)"
				"   FILTER (WHERE p.parent_id IS NOT NULL))[1],"
				"  min(p.created_at),"
				"  (array_agg(p.attributes ORDER BY p.n)"
				"   FILTER (WHERE p.attributes IS NOT NULL))[1],"
				"  bool_or(p.customer), bool_or(p.subscription), bool_or(p.other)"
				" FROM (%s) p WHERE p.customer_id IS NOT NULL GROUP BY p.customer_id%s",
				all.data,
				none ? ""
					 : " ON CONFLICT (customer_id) DO UPDATE SET name = excluded.name,"
					   "  owner = excluded.owner, parent_id = excluded.parent_id,"
					   "  created_at = excluded.created_at, attributes = excluded.attributes,"
					   "  from_customer = excluded.from_customer,"
					   "  from_subscription = excluded.from_subscription,"
					   "  from_other = excluded.from_other"
					   " WHERE (c.name, c.owner, c.parent_id, c.created_at, c.attributes,"
					   "  c.from_customer, c.from_subscription, c.from_other) IS DISTINCT FROM"
					   "  (excluded.name, excluded.owner, excluded.parent_id, excluded.created_at,"
					   "   excluded.attributes, excluded.from_customer, excluded.from_subscription,"
					   "   excluded.from_other)"),
			CS_ARGS(whose));
	if (none)
		;
	else if (all_ids)
		cs_exec(psprintf("WITH gone AS (DELETE FROM cs_internal.customer c WHERE NOT EXISTS"
						 "  (SELECT 1 FROM (%s) p WHERE p.customer_id = c.customer_id)"
						 "  RETURNING c.customer_id)"
						 " INSERT INTO cs_internal.pending (source, customer_id)"
						 " SELECT b.source, g.customer_id FROM cs_internal.ledger_build b, gone g"
						 " WHERE $1 IS NULL ON CONFLICT DO NOTHING",
						 all.data),
				CS_ARGS(whose));
	else
		cs_exec(all.len > 0
					? psprintf("DELETE FROM cs_internal.customer c WHERE c.customer_id = ANY ($1)"
							   " AND NOT EXISTS (SELECT 1 FROM (%s) p"
							   "  WHERE p.customer_id = c.customer_id)",
							   all.data)
					: "DELETE FROM cs_internal.customer c WHERE c.customer_id = ANY ($1)",
				CS_ARGS(whose));
	for (; n > 0; n--)
		cs_unregister(psprintf("present_%d", n));
	return true;
}

/*
 * cs_identity_ingest, cs_identity_all: see refresh.h.
 */
void
cs_identity_ingest(Datum ids)
{
	(void) ingest(ids, NIL);
}

bool
cs_identity_all(List *subscription_rows)
{
	return ingest((Datum) 0, subscription_rows);
}
