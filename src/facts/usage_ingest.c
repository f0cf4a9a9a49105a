/*
 * usage_ingest.c
 *		Usage read from the facts by customer and month, and from the rollup by
 *		evaluate.
 *
 * In: rows of the usage_event sources, grouped where they stand by customer
 * and local month; the rollup.  Out: one cs.usage per customer and month, a
 * function of the rows alone, so whatever way led to it the bytes are the same;
 * and for evaluate the union of a customer's months, stamped with its day.
 *
 * The rollup holds every usable row, also rows after the evaluated instant.
 * What is stamped has only whole days before D; the running day is read from
 * the facts, cut at as_of, where a metric asks for it (today => true).
 */
#include "cs_ext.h"

#include "catalog/pg_type.h"
#include "facts/merge.h"
#include "facts/source.h"
#include "facts/usage.h"
#include "facts/usage_store.h"
#include "pgtime.h"
#include "utils/datetime.h"

/*
 * cs_usage_day, cs_month_start: see usage.h.
 */
DateADT
cs_usage_day(TimestampTz at)
{
	return DatumGetDateADT(DirectFunctionCall1(timestamptz_date, TimestampTzGetDatum(at)));
}

DateADT
cs_month_start(DateADT day, int move)
{
	int year;
	int month;
	int mday;

	j2date(day + POSTGRES_EPOCH_JDATE, &year, &month, &mday);
	month += move;
	if (month > 12)
	{
		month -= 12;
		year++;
	}
	return date2j(year, month, 1) - POSTGRES_EPOCH_JDATE;
}

/* An instant as a literal that means the same in every zone. */
static char *
instant_literal(TimestampTz at)
{
	return psprintf("'%s'::pg_catalog.timestamptz",
					DatumGetCString(DirectFunctionCall1(timestamptz_out, TimestampTzGetDatum(at))));
}

/*
 * forget_parts: what was read may stand in a file, which must be closed before
 * the transaction ends.
 */
static void
forget_parts(List *read)
{
	ListCell *lc;

	foreach (lc, read)
	{
		cs_unregister(psprintf("usage_part_%d", foreach_current_index(lc) + 1));
		tuplestore_end(((CsResult *) lfirst(lc))->store);
	}
}

/* What rows are read: those of r for which the condition holds, and how their day and month are found. */
typedef struct Range
{
	const char *condition;
	const char *day;
	const char *month; /* NULL: by row */
} Range;

static Range
by_row(const char *condition)
{
	return (Range){condition, "r.at::pg_catalog.date", NULL};
}

/* The clocks of the session's zone are not changed between two instants. */
static bool
is_even(TimestampTz from, TimestampTz to)
{
	pg_time_t start = timestamptz_to_time_t(from);
	long before;
	long after;
	int before_dst;
	int after_dst;
	pg_time_t boundary;
	int res = pg_next_dst_boundary(&start, &before, &before_dst, &boundary, &after, &after_dst,
								   session_timezone);

	return res == 0 || (res == 1 && boundary >= timestamptz_to_time_t(to));
}

/*
 * range_of: instants [from, to).  A refresh reads some days, mostly one, of a
 * month that is known then: finding them again for each row by the rules of the
 * zone would cost more than counting it.
 */
static Range
range_of(TimestampTz from, TimestampTz to)
{
	Range range;
	DateADT first;
	DateADT last;
	DateADT month;

	if (TIMESTAMP_NOT_FINITE(from) || TIMESTAMP_NOT_FINITE(to))
		return by_row("true");
	range =
		by_row(psprintf("r.at >= %s AND r.at < %s", instant_literal(from), instant_literal(to)));
	/* beyond these years the zone's table may not speak */
	if (from < -100 * 365 * USECS_PER_DAY || to > 36 * 365 * USECS_PER_DAY || from >= to ||
		!is_even(from, to))
		return range;
	first = cs_usage_day(from);
	last = cs_usage_day(to - 1);
	month = cs_month_start(first, 0);
	if (month != cs_month_start(last, 0))
		return range;
	range.month = psprintf("'%s'::pg_catalog.date",
						   DatumGetCString(DirectFunctionCall1(date_out, DateADTGetDatum(month))));
	if (first == last)
		range.day =
			psprintf("'%s'::pg_catalog.date",
					 DatumGetCString(DirectFunctionCall1(date_out, DateADTGetDatum(first))));
	return range;
}

/*
 * Usage per customer and month of all usage_event sources, for rows of a range,
 * each source registered as usage_part_<n>.  Returns a SELECT of (customer_id,
 * month, usage) that unites them, and their results in *read; NULL when a source
 * cannot be read, which is marked: what is known of it stays until it can be.
 * whose: by customer, as of then; NULL: by the id the rows stand under.
 */
static char *
read_parts(Datum ids, const CsWhose *whose, Range range, bool cut, TimestampTz as_of,
		   DateADT as_of_day, List **read)
{
	StringInfoData parts;
	ListCell *lc;

	*read = NIL;
	initStringInfo(&parts);
	foreach (lc, cs_sources("usage_event"))
	{
		CsSource *source = lfirst(lc);
		CsUserQuery query = {0};
		char *name = psprintf("usage_part_%d", list_length(*read) + 1);
		CsResult *rows;
		ErrorData *error = NULL;

		if (!OidIsValid(source->relid))
		{
			cs_source_failed(source, "the relation is gone");
			forget_parts(*read);
			return NULL;
		}
		query.sql = psprintf(
			"SELECT %s AS customer_id, %s AS month,"
			" cs.usage_agg(%s, r.at, r.user_id::text, r.event::text,"
			" r.quantity::numeric, r.event_count::bigint) AS usage"
			" FROM (%s) r WHERE %s GROUP BY r.customer_key%s",
			whose ? cs_source_id_of(source, whose, "r.customer_key")
				  : cs_source_id(source, "r.customer_key"),
			range.month ? range.month : "pg_catalog.date_trunc('month', r.at)::pg_catalog.date",
			range.day,
			whose ? cs_source_rows_of(source, whose, cut) : cs_source_rows(source, true, cut),
			range.condition, range.month ? "" : ", 2");
		query.as_of = as_of;
		query.as_of_day = as_of_day;
		if (whose)
			cs_source_keys_of(source, whose, ids, &query);
		else
			cs_source_keys(source, ids, &query);
		rows = cs_user_query(&query, &error);
		if (rows == NULL)
		{
			cs_source_failed(source, error->message);
			forget_parts(*read);
			return NULL;
		}
		cs_register(name, rows);
		appendStringInfo(&parts, "%sSELECT customer_id, month, usage FROM %s",
						 *read != NIL ? " UNION ALL " : "", name);
		*read = lappend(*read, rows);
	}
	if (*read == NIL)
		return pstrdup("SELECT NULL::text COLLATE \"C\" AS customer_id, NULL::date AS month, "
					   "NULL::cs.usage AS "
					   "usage WHERE false");
	if (list_length(*read) > 1)
		return psprintf("SELECT customer_id, month, cs.union_agg(usage) AS usage FROM (%s) p"
						" GROUP BY customer_id, month",
						parts.data);
	return parts.data;
}

/*
 * cs_usage_read_parts, cs_usage_forget_parts: see usage.h.
 */
char *
cs_usage_read_parts(Datum ids, TimestampTz from, TimestampTz to, List **read)
{
	TimestampTz now = cs_now();

	return read_parts(ids, NULL, range_of(from, to), false, now,
					  cs_local_day(now, cs_policy(false)->time_zone), read);
}

void
cs_usage_forget_parts(List *read)
{
	forget_parts(read);
}

/*
 * cs_usage_sees_today: see usage.h.
 */
bool
cs_usage_sees_today(void)
{
	bool isnull;

	cs_exec("SELECT EXISTS (SELECT FROM cs.metric WHERE source = 'usage' AND enabled"
			" AND expression ~* '\\mtoday\\M')",
			CS_NO_ARGS);
	return DatumGetBool(cs_value_datum(&isnull));
}

/*
 * cs_usage_rows: see usage.h.  The running day is read only when an enabled
 * metric names today; else the value says that it does not know it.
 */
CsResult *
cs_usage_rows(const CsBatch *batch)
{
	CsUsageNeed need = cs_usage_need();
	CsResult *running = NULL;
	CsResult *result;
	List *read = NIL;
	DateADT from;

	if (cs_usage_sees_today())
	{
		char *parts = read_parts(
			batch->ids, batch->whose,
			by_row(psprintf("r.at >= %s", instant_literal(cs_local_midnight(
											  batch->as_of_day, batch->policy->time_zone)))),
			true, batch->as_of, batch->as_of_day, &read);

		if (parts != NULL)
			running = list_length(read) == 1 ? linitial(read) : cs_query(parts, CS_NO_ARGS);
	}

	/*
	 * The months in which the windows lie; for the last day of all the newest
	 * month that lies wholly before it, which has one.
	 */
	from = need.all ? DATEVAL_NOBEGIN : cs_month_start(batch->as_of_day - need.days, 0);
	result = cs_usage_stamped(batch->ids, batch->whose, from, batch->as_of_day, need.last,
							  cs_month_start(batch->as_of_day - need.last_ago, 0), running);
	if (running != NULL && list_length(read) != 1)
		tuplestore_end(running->store);
	forget_parts(read);
	return result;
}
