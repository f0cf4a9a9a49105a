/*
 * due.c
 *		When time alone changes something about a customer.
 *
 * Windows are cut at local midnight, so everybody is due at the turn of the
 * day.  Between, a fact dated ahead becomes visible at its instant (a term that
 * starts at 10:00, a ticket resolved in the future), a deadline of an alert
 * passes, an override ends.  A row is seen when its anchor lies before as_of,
 * so it counts from one microsecond later.
 */
#include "cs_ext.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/array.h"

#include "facts/source_kind.h"
#include "facts/usage.h"
#include "refresh/refresh.h"

/*
 * future_of: SQL of the least instant at or after as_of among a source's time
 * columns, NULL when it has none.
 */
static char *
future_of(const CsSource *source)
{
	StringInfoData sql;
	ListCell *lc;

	initStringInfo(&sql);
	foreach (lc, CS_MAPPING(source)->columns)
	{
		const CsMapped *m = lfirst(lc);
		const char *col = quote_identifier(m->name);

		if (m->canon ? m->canon->type == CS_COL_TIME
					 : strncmp(m->name, "x_", 2) == 0 && m->type == TIMESTAMPTZOID)
			appendStringInfo(&sql, "%smin(s.%s) FILTER (WHERE s.%s >= as_of AND s.%s < 'infinity')",
							 sql.len ? ", " : "", col, col, col);
	}
	return sql.len ? psprintf("least(%s)", sql.data) : NULL;
}

/*
 * decided_due: deadlines of alerts and assignments, ends of overrides.  What is
 * past was seen by this evaluation; taken again it would keep the worker busy.
 */
static void
decided_due(CsBatch *batch, const char *function)
{
	cs_exec(
		psprintf("UPDATE cs_internal.state s SET due_at = d.due_at FROM cs_internal.%s($1) d"
				 " WHERE s.customer_id = d.customer_id AND d.due_at < s.due_at AND d.due_at > $2",
				 function),
		CS_ARGS(cs_textarray(batch->ids), cs_tstz(batch->as_of)));
}

/*
 * cs_stage_due: writes due_at.
 */
void
cs_stage_due(CsBatch *batch)
{
	TimestampTz midnight = cs_local_midnight(batch->as_of_day + 1, batch->policy->time_zone);
	bool running_day = cs_usage_sees_today();
	ListCell *lc;

	cs_exec("UPDATE cs_internal.state s SET due_at = least($1,"
			" (SELECT min(m.at) + interval '1 microsecond' FROM cs_internal.movement m"
			"   WHERE m.customer_id = s.customer_id AND m.at >= $2))"
			" FROM batch b WHERE s.customer_id = b.customer_id",
			CS_ARGS(cs_tstz(midnight), cs_tstz(batch->as_of)));
	decided_due(batch, "alert_due");
	decided_due(batch, "health_due");

	foreach (lc, cs_sources(NULL))
	{
		CsSource *source = lfirst(lc);
		CsUserQuery query = {0};
		ErrorData *error = NULL;
		CsResult *rows;
		char *future;

		/* Usage is cut to whole days unless a metric looks at the running one; a source that is gone is reported elsewhere. */
		if (source->mapping == NULL || !OidIsValid(source->relid) ||
			(strcmp(source->kind, "usage_event") == 0 && !running_day))
			continue;
		future = future_of(source);
		if (future == NULL)
			continue;
		query.as_of = batch->as_of;
		query.as_of_day = batch->as_of_day;
		cs_source_keys(source, batch->ids, &query);
		query.sql = psprintf("SELECT %s AS customer_id, %s AS at FROM (%s) s GROUP BY "
							 "s.customer_key HAVING %s < (as_of_day + 1)::timestamptz",
							 cs_source_id(source, "s.customer_key"), future,
							 cs_source_rows(source, true, false), future);
		rows = cs_user_query(&query, &error);
		if (rows == NULL)
			continue;
		cs_register("future", rows);
		cs_exec("UPDATE cs_internal.state s SET due_at = least(s.due_at, f.at + interval '1 "
				"microsecond')"
				" FROM future f WHERE s.customer_id = f.customer_id AND f.at + interval '1 "
				"microsecond' < s.due_at",
				CS_NO_ARGS);
		cs_unregister("future");
		tuplestore_end(rows->store);
	}
}
