/*
 * identity.c
 *		Who the customers are: ids, names, owners and attributes.
 *
 * In: rows of customer and subscription sources (of any source where neither
 * kind is registered), read as policy.run_as.  Out: cs_internal.customer.
 */
#include "cs_ext.h"

#include "facts/source.h"
#include "refresh/refresh.h"

/*
 * read_sources: rows of each source for these ids are added to a list; false
 * when one cannot be read.
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

		cs_source_keys(source, ids, &query);
		query.sql = psprintf("SELECT %s AS customer_id%s FROM (%s) s GROUP BY s.customer_key",
							 cs_source_id(source, "s.customer_key"), columns,
							 cs_source_rows(source, true, false));
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

/*
 * mark_present: which of the ids have a usable row in any of the sources.
 */
static void
mark_present(List *results, Datum ids, const char *column)
{
	ListCell *lc;

	cs_exec(
		psprintf("UPDATE cs_internal.customer SET %s = false WHERE customer_id = ANY ($1) AND %s",
				 column, column),
		CS_ARGS(cs_textarray(ids)));
	foreach (lc, results)
	{
		cs_register("present", lfirst(lc));
		cs_exec(psprintf("INSERT INTO cs_internal.customer (customer_id, %s) SELECT DISTINCT "
						 "customer_id, true FROM present"
						 " ON CONFLICT (customer_id) DO UPDATE SET %s = true",
						 column, column),
				CS_NO_ARGS);
		cs_unregister("present");
	}
}

/*
 * cs_identity_ingest: recompute the rows of these ids.  While a source cannot
 * be read what stands there is kept: a table that is made anew must not end
 * memberships and alerts.
 */
void
cs_identity_ingest(Datum ids)
{
	List *customers = cs_sources("customer");
	List *subscriptions = cs_sources("subscription");
	bool others = customers == NIL && subscriptions == NIL;
	List *customer_rows = NIL;
	List *subscription_rows = NIL;
	List *other_rows = NIL;
	ListCell *lc;

	/* Of several rows of one customer the oldest counts, ties by content, so that order never matters. */
	if (!read_sources(
			customers, ids,
			", (array_agg(s.name ORDER BY s.created_at, s.name))[1] AS name"
			", (array_agg(s.owner ORDER BY s.created_at, s.owner))[1] AS owner"
			", (array_agg(s.parent_id ORDER BY s.created_at, s.parent_id))[1] AS parent_id"
			", min(s.created_at) AS created_at"
			", (array_agg(s.attributes ORDER BY s.created_at, s.attributes))[1] AS attributes",
			&customer_rows) ||
		!read_sources(subscriptions, ids, "", &subscription_rows) ||
		(others && !read_sources(cs_sources(NULL), ids, "", &other_rows)))
		return;

	cs_exec(
		"UPDATE cs_internal.customer SET name = NULL, owner = NULL, parent_id = NULL, created_at = "
		"NULL,"
		" attributes = NULL, from_customer = false WHERE customer_id = ANY ($1) AND from_customer",
		CS_ARGS(cs_textarray(ids)));
	foreach (lc, customer_rows)
	{
		cs_register("present", lfirst(lc));
		cs_exec("INSERT INTO cs_internal.customer AS c (customer_id, name, owner, parent_id, "
				"created_at, attributes, from_customer)"
				" SELECT DISTINCT ON (customer_id) customer_id, name, owner, parent_id, "
				"created_at, attributes, true"
				" FROM present ORDER BY customer_id, created_at"
				" ON CONFLICT (customer_id) DO UPDATE SET name = coalesce(c.name, excluded.name),"
				" owner = coalesce(c.owner, excluded.owner), parent_id = coalesce(c.parent_id, "
				"excluded.parent_id),"
				" created_at = least(c.created_at, excluded.created_at),"
				" attributes = coalesce(c.attributes, excluded.attributes), from_customer = true",
				CS_NO_ARGS);
		cs_unregister("present");
	}
	mark_present(subscription_rows, ids, "from_subscription");
	if (others)
	{
		mark_present(other_rows, ids, "from_other");
		cs_exec("INSERT INTO cs_internal.customer (customer_id, from_other) SELECT DISTINCT "
				"customer_id, true FROM cs_internal.usage_sealed WHERE customer_id = ANY ($1) ON "
				"CONFLICT (customer_id) DO UPDATE SET from_other = true",
				CS_ARGS(cs_textarray(ids)));
	}
	else
		cs_exec("UPDATE cs_internal.customer SET from_other = false"
				" WHERE customer_id = ANY ($1) AND from_other",
				CS_ARGS(cs_textarray(ids)));
	cs_exec("DELETE FROM cs_internal.customer WHERE customer_id = ANY ($1)"
			" AND NOT (from_customer OR from_subscription OR from_other)",
			CS_ARGS(cs_textarray(ids)));
}
