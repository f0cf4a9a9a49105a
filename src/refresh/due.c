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

#include "core/empty.h"
#include "facts/merge.h"
#include "facts/source_kind.h"
#include "facts/usage.h"
#include "refresh/refresh.h"
#include "refresh/state.h"

static bool
is_time(const CsMapped *m)
{
	return m->canon ? m->canon->type == CS_COL_TIME
					: strncmp(m->name, "x_", 2) == 0 && m->type == TIMESTAMPTZOID;
}

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

		if (is_time(m))
			appendStringInfo(&sql, "%smin(s.%s) FILTER (WHERE s.%s >= as_of AND s.%s < 'infinity')",
							 sql.len ? ", " : "", col, col, col);
	}
	return sql.len ? psprintf("least(%s)", sql.data) : NULL;
}

/*
 * all_past: sources of which capture knows that no anchor lies at or behind as_of.
 * What came since it looked is a change, and has its customers evaluated again;
 * but not where a customer is refreshed with what is not yet committed.
 */
static List *
all_past(const CsBatch *batch)
{
	MemoryContext context = CurrentMemoryContext;
	List *names = NIL;
	uint64 n;

	if (batch->what_if || batch->ahead != 0)
		return NIL;
	n = cs_exec("SELECT source FROM cs_internal.source_state WHERE bounded AND error IS NULL"
				" AND changed_since IS NULL AND coalesce(last_at < $1, true)",
				CS_ARGS(cs_tstz(batch->as_of)));
	MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < n; i++)
		names = lappend(names, cs_cell(i, 1));
	SPI_freetuptable(SPI_tuptable);
	return names;
}

/*
 * has_other_times: it has instants beside its anchor.
 */
static bool
has_other_times(const CsSource *source)
{
	ListCell *lc;

	if (!cs_anchor_is_one(source))
		return true;
	foreach (lc, CS_MAPPING(source)->columns)
	{
		const CsMapped *m = lfirst(lc);

		if (is_time(m) && strcmp(m->name, source->anchor) != 0)
			return true;
	}
	return false;
}

/*
 * sooner: customers with instants, of the last cs_exec, into due_at where they
 * come before what stands there.  What is past was seen by this evaluation;
 * taken again it would keep the worker busy.
 */
static void
sooner(CsBatch *batch)
{
	for (uint64 r = 0; r < SPI_processed; r++)
	{
		int row = cs_state_row(batch->state, cs_cell(r, 1));
		bool isnull;
		Datum at = cs_cell_datum(r, 2, &isnull);

		if (row >= 0 && !isnull && DatumGetTimestampTz(at) > batch->as_of &&
			DatumGetTimestampTz(at) <
				DatumGetTimestampTz(batch->state->values[CS_STATE_CELL(row, CS_STATE_DUE_AT)]))
			cs_state_set(batch->state, row, CS_STATE_DUE_AT, at, false);
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * merges_ahead: when a merge comes, facts go from one customer to another.
 */
static void
merges_ahead(CsBatch *batch)
{
	const CsWhose *whose = batch->whose;

	for (int i = 0; i < whose->nahead; i++)
	{
		int rows[2] = {cs_state_row(batch->state, whose->ahead[i].from),
					   cs_state_row(batch->state, whose->ahead[i].into)};

		for (int k = 0; k < 2; k++)
		{
			Datum due =
				rows[k] < 0 ? 0 : batch->state->values[CS_STATE_CELL(rows[k], CS_STATE_DUE_AT)];

			if (rows[k] >= 0 && whose->ahead[i].at + 1 < DatumGetTimestampTz(due))
				cs_state_set(batch->state, rows[k], CS_STATE_DUE_AT,
							 TimestampTzGetDatum(whose->ahead[i].at + 1), false);
		}
	}
}

/*
 * cs_stage_due: writes due_at.
 */
void
cs_stage_due(CsBatch *batch)
{
	TimestampTz midnight = cs_local_midnight(batch->as_of_day + 1, batch->policy->time_zone);
	bool running_day = cs_usage_sees_today();
	List *past = all_past(batch);
	ListCell *lc;

	for (int i = 0; i < batch->state->n; i++)
	{
		TimestampTz moves = batch->state->next_movement[i];

		cs_state_set(batch->state, i, CS_STATE_DUE_AT,
					 TimestampTzGetDatum(moves < midnight ? moves + 1 : midnight), false);
	}
	merges_ahead(batch);
	/* deadlines of alerts and assignments, ends of overrides */
	if (!cs_is_empty("alert") || !cs_is_empty("segment_assignment") || !cs_is_empty("membership"))
	{
		cs_exec("SELECT d.customer_id, d.due_at FROM cs_internal.alert_due($1) d",
				CS_ARGS(cs_textarray(batch->ids)));
		sooner(batch);
	}
	if (!cs_is_empty("health_override"))
	{
		cs_exec("SELECT d.customer_id, d.due_at FROM cs_internal.health_due($1) d",
				CS_ARGS(cs_textarray(batch->ids)));
		sooner(batch);
	}

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
		if (cs_is_named(past, source->name) && !has_other_times(source))
			continue;
		future = future_of(source);
		if (future == NULL)
			continue;
		query.as_of = batch->as_of;
		query.as_of_day = batch->as_of_day;
		cs_source_keys_of(source, batch->whose, batch->ids, &query);
		query.sql = psprintf("SELECT %s AS customer_id, %s AS at FROM (%s) s GROUP BY "
							 "s.customer_key HAVING %s < (as_of_day + 1)::timestamptz",
							 cs_source_id_of(source, batch->whose, "s.customer_key"), future,
							 cs_source_rows_of(source, batch->whose, false), future);
		rows = cs_user_query(&query, &error);
		if (rows == NULL)
			continue;
		cs_register("future", rows);
		cs_exec("SELECT f.customer_id, f.at + interval '1 microsecond' FROM future f", CS_NO_ARGS);
		sooner(batch);
		cs_unregister("future");
		tuplestore_end(rows->store);
	}
}
