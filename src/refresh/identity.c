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
 * read_source: rows of one source for these ids; NULL where it is gone.
 */
static CsResult *
read_source(const CsSource *source, Datum ids, const char *columns, const char *tail)
{
	CsUserQuery query = {0};

	if (!OidIsValid(source->relid))
		return NULL;
	cs_source_keys(source, ids, &query);
	query.sql = psprintf("SELECT %s AS customer_id%s FROM (%s) s %s",
						 cs_source_id(source, "s.customer_key"), columns,
						 cs_source_rows(source, true, false), tail);
	return cs_user_query(&query, NULL);
}

/*
 * collect_ids: which of the ids have a usable row in any of the sources, as
 * relation "present"; several sources are united one by one.
 */
static void
mark_present(List *sources, Datum ids, const char *column)
{
	ListCell *lc;

	cs_exec(
		psprintf("UPDATE cs_internal.customer SET %s = false WHERE customer_id = ANY ($1) AND %s",
				 column, column),
		CS_ARGS(cs_textarray(ids)));
	foreach (lc, sources)
	{
		CsResult *rows = read_source(lfirst(lc), ids, "", "GROUP BY s.customer_key");

		if (rows == NULL)
			continue;
		cs_register("present", rows);
		cs_exec(psprintf("INSERT INTO cs_internal.customer (customer_id, %s) SELECT DISTINCT "
						 "customer_id, true FROM present"
						 " ON CONFLICT (customer_id) DO UPDATE SET %s = true",
						 column, column),
				CS_NO_ARGS);
		cs_unregister("present");
	}
}

/*
 * cs_identity_ingest: recompute the rows of these ids.
 */
void
cs_identity_ingest(Datum ids)
{
	List *customers = cs_sources("customer");
	List *subscriptions = cs_sources("subscription");
	ListCell *lc;

	cs_exec(
		"UPDATE cs_internal.customer SET name = NULL, owner = NULL, parent_id = NULL, created_at = "
		"NULL,"
		" attributes = NULL, from_customer = false WHERE customer_id = ANY ($1) AND from_customer",
		CS_ARGS(cs_textarray(ids)));
	foreach (lc, customers)
	{
		/* Of several rows of one customer the oldest counts, ties by content, so that order never matters. */
		CsResult *rows = read_source(
			lfirst(lc), ids,
			", (array_agg(s.name ORDER BY s.created_at, s.name))[1] AS name"
			", (array_agg(s.owner ORDER BY s.created_at, s.owner))[1] AS owner"
			", (array_agg(s.parent_id ORDER BY s.created_at, s.parent_id))[1] AS parent_id"
			", min(s.created_at) AS created_at"
			", (array_agg(s.attributes ORDER BY s.created_at, s.attributes))[1] AS attributes",
			"GROUP BY s.customer_key");

		if (rows == NULL)
			continue;
		cs_register("present", rows);
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
	mark_present(subscriptions, ids, "from_subscription");
	if (customers == NIL && subscriptions == NIL)
		mark_present(cs_sources(NULL), ids, "from_other");
	else
		cs_exec("UPDATE cs_internal.customer SET from_other = false WHERE from_other", CS_NO_ARGS);
	cs_exec("DELETE FROM cs_internal.customer WHERE customer_id = ANY ($1)"
			" AND NOT (from_customer OR from_subscription OR from_other)",
			CS_ARGS(cs_textarray(ids)));
}
