/*
 * rule_call.c
 *		Functions of rules that look into a customer's past.
 *
 * In: an expression with calls such as ago('mrr', 30); out: the expression with
 * a column in place of each, and the SQL that gives the column from kept
 * history (cs_internal.metric_history, cs_internal.membership).  The names in
 * the calls are literals, so that what a rule depends on is known beforehand.
 *
 *	 ago('metric', days)		the value at the start of day D - days, or the last
 *								one within three days before; else NULL
 *	 change('metric', days)		the value now less ago('metric', days)
 *	 trend('metric', days)		slope a day of a straight line by least squares
 *								through the values kept since the start of day
 *								D - days and the one now; NULL under three values
 *	 zscore('metric', days)		how many standard deviations (of the sample) the
 *								value now lies from the mean of those kept since
 *								then; NULL under seven values or without any spread
 *	 in_segment('segment')		whether the customer is in it
 *	 days_in('segment')			local days since it came into it; NULL: is not in it
 *	 entered('segment', days)	whether it came into it since the start of day D - days
 *
 * A segment is written as dimension:name, or its bare name where only one
 * dimension has it.
 *
 * Cases.
 * No history: NULL, which neither opens nor clears (entered and in_segment are
 * about membership, which is known: false).
 * A past evaluation (what_if): history before its instant alone is seen.
 * A segment that was deleted: the column is unknown, the rule fails and says so.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "cs_ext.h"
#include "decide/rule_call.h"

#define AGO_SLACK_DAYS 3
#define MAX_DAYS 3650
#define MIN_TREND 3
#define MIN_ZSCORE 7

static const struct
{
	const char *name;
	bool of_metric;
	bool with_days;
	const char *example;
} functions[] = {
	[CS_CALL_AGO] = {"ago", true, true, "ago('mrr', 30)"},
	[CS_CALL_CHANGE] = {"change", true, true, "change('mrr', 30)"},
	[CS_CALL_TREND] = {"trend", true, true, "trend('events_30d', 28)"},
	[CS_CALL_ZSCORE] = {"zscore", true, true, "zscore('events_30d', 90)"},
	[CS_CALL_DAYS_IN] = {"days_in", false, false, "days_in('stage:onboarding')"},
	[CS_CALL_IN_SEGMENT] = {"in_segment", false, false, "in_segment('tier:enterprise')"},
	[CS_CALL_ENTERED] = {"entered", false, true, "entered('stage:renewal', 7)"},
};

typedef struct CallSearch
{
	List **calls;
	CsCallKind kind;
	const char *what;
} CallSearch;

/*
 * find_segment: the dimension and name of a segment as written.
 */
static void
find_segment(CsCall *call)
{
	cs_exec(
		"SELECT min(x.dimension), min(x.name) FROM (SELECT s.dimension, s.name FROM cs.segment s"
		" UNION SELECT d.name, d.fallback FROM cs.dimension d WHERE d.fallback IS NOT NULL"
		" UNION SELECT v.dimension, v.value FROM cs_internal.attribute_value v) x"
		" WHERE x.dimension || ':' || x.name = $1 OR (strpos($1, ':') = 0 AND x.name = $1)"
		" HAVING count(DISTINCT x.dimension) = 1",
		CS_ARGS(cs_text(call->name)));
	if (SPI_processed == 1)
	{
		call->dimension = cs_cell(0, 1);
		call->segment = cs_cell(0, 2);
	}
}

/*
 * name_of_call: the column that stands for a call.  The underscore keeps it
 * apart from every metric and dimension.
 */
static char *
name_of_call(const char *func, List *constants, void *arg)
{
	CallSearch *search = arg;
	bool with_days = functions[search->kind].with_days;
	CsCall *call;
	long days = 0;
	ListCell *lc;

	if (list_length(constants) != (with_days ? 2 : 1))
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("%s: %s() takes the name of a %s%s", search->what, func,
					   functions[search->kind].of_metric ? "metric" : "segment",
					   with_days ? " and a number of days" : ""),
				errhint("Write for example %s.", functions[search->kind].example));
	if (with_days)
	{
		char *end;

		days = strtol(lsecond(constants), &end, 10);
		if (*end != '\0' || end == (char *) lsecond(constants) || days < 1 || days > MAX_DAYS)
			ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("%s: \"%s\" in %s() is not a number of days between 1 and %d",
						   search->what, (char *) lsecond(constants), func, MAX_DAYS),
					errhint("Write for example %s.", functions[search->kind].example));
	}
	foreach (lc, *search->calls)
	{
		call = lfirst(lc);
		if (call->kind == search->kind && call->days == days &&
			strcmp(call->name, linitial(constants)) == 0)
			return pstrdup(call->column);
	}
	call = palloc0(sizeof(CsCall));
	call->kind = search->kind;
	call->name = pstrdup(linitial(constants));
	call->days = (int) days;
	/* Numbered, because a name made of the metric's could be too long for a column. */
	call->column = psprintf("_call_%d", list_length(*search->calls) + 1);
	if (!functions[call->kind].of_metric)
		find_segment(call);
	*search->calls = lappend(*search->calls, call);
	return pstrdup(call->column);
}

/*
 * cs_replace_rule_calls: see rule_call.h.
 */
char *
cs_replace_rule_calls(const char *expression, List **calls, const char *what)
{
	char *result = pstrdup(expression);

	for (int kind = 0; kind < lengthof(functions); kind++)
	{
		CallSearch search = {calls, kind, what};

		/* Nearly every rule names none of them. */
		if (strcasestr(result, functions[kind].name) != NULL)
			result = cs_replace_calls(result, functions[kind].name, name_of_call, &search, what);
	}
	return result;
}

CsCall *
cs_find_call(List *calls, const char *column)
{
	ListCell *lc;

	foreach (lc, calls)
		if (strcmp(((CsCall *) lfirst(lc))->column, column) == 0)
			return lfirst(lc);
	return NULL;
}

char *
cs_call_needs(const CsCall *call)
{
	return functions[call->kind].of_metric || call->dimension == NULL ? call->name
																	  : call->dimension;
}

char *
cs_metric_value(const CsNames *names, const char *array, const char *metric)
{
	ListCell *name;
	ListCell *slot;

	forboth (name, names->metrics, slot, names->slots)
		if (strcmp(lfirst(name), metric) == 0 && lfirst_int(slot) > 0)
			return psprintf("(%s)[%d]", array, lfirst_int(slot));
	return pstrdup("NULL::float8");
}

static char *
instant_literal(TimestampTz t)
{
	return psprintf("%s::timestamptz", quote_literal_cstr(DatumGetCString(DirectFunctionCall1(
										   timestamptz_out, TimestampTzGetDatum(t)))));
}

/* The start of the local day so many days before the batch's. */
static char *
day_literal(const CsBatch *batch, int days)
{
	return instant_literal(
		batch ? cs_clock_midnight(batch->as_of_day - days, batch->policy->time_zone) : 0);
}

static char *
ago_sql(const CsCall *call, const CsNames *names, const CsBatch *batch)
{
	return psprintf("(SELECT %s FROM cs_internal.metric_history m WHERE m.customer_id = "
					"s.customer_id AND m.as_of <= %s AND m.as_of >= %s"
					" ORDER BY m.as_of DESC LIMIT 1)",
					cs_metric_value(names, "m.\"values\"", call->name),
					day_literal(batch, call->days),
					day_literal(batch, call->days + AGO_SLACK_DAYS));
}

/*
 * cs_call_sql: see rule_call.h.
 */
char *
cs_call_sql(const CsCall *call, const CsNames *names, const CsBatch *batch)
{
	const char *zone = batch ? batch->policy->time_zone : "UTC";
	char *now = instant_literal(batch ? batch->as_of : 0);
	char *value;
	char *kept;
	char *since;
	char *in;
	ListCell *lc;

	if (functions[call->kind].of_metric)
	{
		bool known = false;

		foreach (lc, names->metrics)
			known |= strcmp(lfirst(lc), call->name) == 0;
		if (!known)
			return NULL;
	}
	else if (call->dimension == NULL)
		return NULL;

	value = cs_metric_value(names, "s.\"values\"", call->name);
	kept = cs_metric_value(names, "m.\"values\"", call->name);
	since = psprintf("FROM cs_internal.metric_history m WHERE m.customer_id = s.customer_id"
					 " AND m.as_of >= %s AND m.as_of < %s",
					 day_literal(batch, call->days), now);
	in = psprintf("FROM cs_internal.membership m WHERE m.customer_id = s.customer_id"
				  " AND m.dimension = %s AND m.segment = %s AND m.valid_from <= %s",
				  call->dimension ? quote_literal_cstr(call->dimension) : "NULL",
				  call->segment ? quote_literal_cstr(call->segment) : "NULL", now);
	switch (call->kind)
	{
		case CS_CALL_AGO:
			return ago_sql(call, names, batch);
		case CS_CALL_CHANGE:
			return psprintf("(%s - %s)", value, ago_sql(call, names, batch));
		case CS_CALL_TREND:
			return psprintf("(SELECT CASE WHEN count(y) >= %d THEN regr_slope(y, x) END FROM ("
							"SELECT %s, extract(epoch FROM m.as_of - %s)::float8 / 86400 %s"
							" UNION ALL SELECT %s, 0) p (y, x))",
							MIN_TREND, kept, now, since, value);
		case CS_CALL_ZSCORE:
			return psprintf("(SELECT CASE WHEN count(y) >= %d THEN (%s - avg(y)) / "
							"nullif(stddev_samp(y), 0) END FROM (SELECT %s %s) p (y))",
							MIN_ZSCORE, value, kept, since);
		case CS_CALL_DAYS_IN:
			return psprintf(
				"(SELECT (%s::date - (m.valid_from AT TIME ZONE %s)::date)::float8 %s"
				" AND (m.valid_to IS NULL OR m.valid_to > %s) ORDER BY m.valid_from LIMIT 1)",
				quote_literal_cstr(DatumGetCString(
					DirectFunctionCall1(date_out, DateADTGetDatum(batch ? batch->as_of_day : 0)))),
				quote_literal_cstr(zone), in, now);
		case CS_CALL_IN_SEGMENT:
			return psprintf("coalesce((s.segments -> %s) @> to_jsonb(%s::text), false)",
							quote_literal_cstr(call->dimension), quote_literal_cstr(call->segment));
		case CS_CALL_ENTERED:
			return psprintf("EXISTS (SELECT %s AND m.valid_from >= %s)", in,
							day_literal(batch, call->days));
	}
	return NULL;
}
