/*
 * metric.c
 *		The stage that computes metrics: facts, rollup and ledger in, one float8[]
 *		per customer out.
 *
 * All metrics of one source and one search_path are one grouped query, run as
 * policy.run_as over the batch's rows; each expression is also evaluated once
 * over no rows, for customers who have none.  Formulas over other metrics come
 * last, level by level.  A query that fails is tried again metric by metric,
 * and a failing metric customer by customer, so that what is wrong stays NULL
 * and everything else is there.
 */
#include "cs_ext.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/lsyscache.h"

#include "core/empty.h"
#include "core/expired.h"
#include "core/hold.h"
#include "core/texts.h"
#include "decide/decide.h"
#include "facts/ledger.h"
#include "facts/source.h"
#include "facts/usage.h"
#include "insight/metric.h"
#include "refresh/state.h"

/* A metric that fails for this many customers and works for none is given up for the batch. */
#define GIVE_UP_AFTER 20

/* So is one that runs out of time for so many, or for the first at once: each costs cs_ext.user_sql_timeout. */
#define GIVE_UP_AFTER_TIMEOUTS 3

/* The values under work: customers by slots. */
typedef struct Matrix
{
	CsBatch *batch;
	char **ids; /* sorted, as the batch's */
	int nslots;
	double *values;
	bool *nulls;
} Matrix;

/* ---- definitions ------------------------------------------------------- */

List *
cs_metrics(void)
{
	MemoryContext before = CurrentMemoryContext;
	MemoryContext context = CurrentMemoryContext;
	void **held = cs_held(CS_HELD_METRICS, &context);
	List *metrics = NIL;
	uint64 n;

	if (held != NULL && *held != NULL)
		return *held;
	n = cs_exec("SELECT m.name, m.source, m.expression, m.search_path, s.slot,"
				" extract(epoch FROM m.max_lag) * 1000000"
				" FROM cs.metric m JOIN cs_internal.metric_slot s ON s.metric = m.name"
				" WHERE m.enabled ORDER BY m.name COLLATE \"C\"",
				CS_NO_ARGS);
	MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < n; i++)
	{
		CsMetric *metric = palloc0(sizeof(CsMetric));
		char *lag = cs_cell(i, 6);

		metric->name = cs_cell(i, 1);
		metric->source = cs_cell(i, 2);
		metric->expression = cs_cell(i, 3);
		metric->search_path = cs_cell(i, 4);
		metric->slot = atoi(cs_cell(i, 5));
		metric->max_lag = lag ? (int64) strtod(lag, NULL) : 0;
		metrics = lappend(metrics, metric);
	}
	SPI_freetuptable(SPI_tuptable);
	MemoryContextSwitchTo(before);
	if (held != NULL)
		*held = metrics;
	return metrics;
}

List *
cs_metric_names(void)
{
	List *names = NIL;
	ListCell *lc;

	foreach (lc, cs_metrics())
		names = lappend(names, ((CsMetric *) lfirst(lc))->name);
	return names;
}

List *
cs_metric_sources(const char *word)
{
	List *sources = NIL;
	CsSource *source;

	if (strcmp(word, "usage") == 0)
		return cs_sources("usage_event");
	if (strcmp(word, "ledger") == 0)
		return cs_sources("subscription");
	if (strcmp(word, "formula") == 0)
		return NIL;
	sources = cs_sources(word);
	if (sources == NIL && (source = cs_source(word)) != NULL)
		sources = list_make1(source);
	return sources;
}

static char *
mrr_ago_name(const char *func, List *constants, void *arg)
{
	List **days = arg;
	int n;

	if (list_length(constants) != 1 || (n = atoi(linitial(constants))) < 1 || n > 400)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("mrr_ago() takes one constant from 1 to 400 days"));
	*days = list_append_unique_int(*days, n);
	return psprintf("mrr_ago_%d", n);
}

char *
cs_metric_item(const CsMetric *metric, List **ago_days)
{
	char *expression = metric->expression;

	if (strcmp(metric->source, "ledger") == 0)
		expression = cs_replace_calls(expression, "mrr_ago", mrr_ago_name, ago_days,
									  psprintf("metric \"%s\"", metric->name));
	return psprintf("cs.as_value((%s\n))", expression);
}

/* ---- the matrix -------------------------------------------------------- */

/*
 * put: a value that is no number is a missing one.
 */
static void
put(Matrix *m, int row, int slot, Datum value, bool isnull)
{
	Size i = (Size) row * m->nslots + slot - 1;
	double v = isnull ? 0 : DatumGetFloat8(value);

	m->nulls[i] = isnull || isnan(v) || isinf(v);
	m->values[i] = m->nulls[i] ? 0 : v;
}

/*
 * put_rows: columns are customer_id and one per metric; id NULL: for everybody.
 */
static void
put_rows(Matrix *m, CsResult *rows, List *metrics, bool everybody)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);

	tuplestore_rescan(rows->store);
	while (tuplestore_gettupleslot(rows->store, true, false, slot))
	{
		int first = 0;
		int last = m->batch->nids - 1;
		ListCell *lc;
		int col = 1;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		if (!everybody)
		{
			if (slot->tts_isnull[0])
				continue;
			first = last = cs_state_row(m->batch->state, TextDatumGetCString(slot->tts_values[0]));
			if (first < 0)
				continue;
		}
		foreach (lc, metrics)
		{
			CsMetric *metric = lfirst(lc);

			for (int row = first; row <= last; row++)
				put(m, row, metric->slot, slot->tts_values[col], slot->tts_isnull[col]);
			col++;
		}
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(rows->store);
}

/* ---- what failed, in cs_internal.definition_status ----------------------- */

/*
 * mark_failing: a batch of fewer customers than it failed for before says
 * nothing of the others, so their number stays.
 */
static void
mark_failing(Matrix *m, const CsMetric *metric, ErrorData *error, int64 customers,
			 const char *example)
{
	cs_exec("INSERT INTO cs_internal.definition_status AS d"
			" (table_name, key, status, sqlstate, error, customers, example, since)"
			" VALUES ('metric', $1, 'failing', $2, $3, $4, $5, clock_timestamp())"
			" ON CONFLICT (table_name, key) DO UPDATE SET status = 'failing',"
			" sqlstate = excluded.sqlstate, error = excluded.error, example = excluded.example,"
			" customers = CASE WHEN d.status = 'failing' AND d.customers > $6 THEN d.customers"
			" ELSE excluded.customers END,"
			" since = CASE WHEN d.status = 'failing' THEN d.since ELSE excluded.since END",
			CS_ARGS(cs_text(metric->name), cs_text(unpack_sql_state(error->sqlerrcode)),
					cs_text(error->message), cs_int8(customers), cs_text(example),
					cs_int8(m->batch->nids)));
}

/*
 * mark_working: it works for the batch; with others that were not tried again and
 * have no value it goes on being shown.
 */
static void
mark_working(Matrix *m, const CsMetric *metric)
{
	if (cs_is_empty("definition_status"))
		return;
	cs_exec("DELETE FROM cs_internal.definition_status d WHERE d.table_name = 'metric'"
			" AND d.key = $4 AND d.status = 'failing' AND " CS_TRIED_AGAIN,
			CS_ARGS(cs_textarray(m->batch->ids), cs_int8(m->batch->nids), cs_int8(cs_refresh_batch),
					cs_text(metric->name)));
}

/* ---- one group of metrics ---------------------------------------------- */

/* What a group's query reads: "FROM from GROUP BY", with the id made from the key. */
typedef struct Reading
{
	CsUserQuery query; /* all but the SQL */
	char *from;
	char *id;
	bool grouped; /* a row per fact, not per customer */
	List *read;   /* CsResults registered for it, to be ended after */
} Reading;

static char *
group_sql(Reading *g, List *metrics, bool empty)
{
	StringInfoData sql;
	List *days = NIL;
	ListCell *lc;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s", empty ? "NULL::text" : g->grouped ? g->id : "customer_id");
	foreach (lc, metrics)
		appendStringInfo(&sql, ", %s", cs_metric_item(lfirst(lc), &days));
	appendStringInfo(&sql, " FROM %s", g->from);
	if (empty)
		appendStringInfoString(&sql, " WHERE false");
	else if (g->grouped)
		appendStringInfoString(&sql, " GROUP BY customer_key");
	return sql.data;
}

/*
 * run_group: the values of some metrics for some customers, first those of
 * customers without rows.
 */
static bool
run_group(Matrix *m, Reading *g, List *metrics, Datum keys, ErrorData **error)
{
	CsResult *rows;

	if (g->grouped)
	{
		g->query.sql = group_sql(g, metrics, true);
		if ((rows = cs_user_query(&g->query, error)) == NULL)
			return false;
		put_rows(m, rows, metrics, keys == (Datum) 0);
	}
	g->query.sql = group_sql(g, metrics, false);
	if ((rows = cs_user_query(&g->query, error)) == NULL)
		return false;
	put_rows(m, rows, metrics, false);
	return true;
}

static void
show(Reading *g, const char *name, CsResult *rows)
{
	cs_register(name, rows);
	g->read = lappend(g->read, rows);
}

/*
 * forget: what was read may stand in a file, which must be closed before the
 * transaction ends. The names are registered anew before they are read again.
 */
static void
forget(Reading *g)
{
	ListCell *lc;

	foreach (lc, g->read)
		tuplestore_end(((CsResult *) lfirst(lc))->store);
	g->read = NIL;
}

/*
 * prepare_group: what the metrics of a source word read.  False when there is
 * nothing to read, which leaves the values missing.  `ids`: the customers.
 */
static bool
prepare_group(CsBatch *batch, const char *word, const char *search_path, List *metrics, Datum ids,
			  Reading *g)
{
	List *sources = cs_metric_sources(word);
	List *days = NIL;
	ListCell *lc;

	memset(g, 0, sizeof(Reading));
	g->query.as_of = batch->as_of;
	g->query.as_of_day = batch->as_of_day;
	g->query.search_path = search_path;
	if (strcmp(word, "usage") == 0)
	{
		show(g, "usage_state", cs_usage_rows(batch));
		g->from = "usage_state";
		return sources != NIL;
	}
	if (strcmp(word, "ledger") == 0)
	{
		foreach (lc, metrics)
			(void) cs_metric_item(lfirst(lc), &days);
		show(g, "ledger", cs_ledger_rows(batch, days));
		g->from = "ledger";
		return true;
	}

	g->grouped = true;
	foreach (lc, sources)
	{
		CsSource *source = lfirst(lc);
		CsUserQuery read = {0};
		CsResult *rows;
		ErrorData *error = NULL;

		if (!OidIsValid(source->relid))
			continue;
		if (list_length(sources) == 1)
		{
			/* The usual case: grouped in the column's own type, where the rows are. */
			cs_source_keys_of(source, batch->whose, ids, &g->query);
			g->query.search_path = cs_join_paths(search_path, source->search_path);
			g->from = psprintf("(%s) AS %s", cs_source_rows_of(source, batch->whose, true),
							   quote_identifier(word));
			g->id = cs_source_id_of(source, batch->whose, "customer_key");
			return true;
		}

		/* Several sources of a kind are read one by one and united under one name. */
		read.as_of = batch->as_of;
		read.as_of_day = batch->as_of_day;
		cs_source_keys_of(source, batch->whose, ids, &read);
		read.sql = psprintf("SELECT %s AS customer_key, %s FROM (%s) s",
							cs_source_id_of(source, batch->whose, "s.customer_key"),
							cs_kind_columns_list(source->kind, "s"),
							cs_source_rows_of(source, batch->whose, true));
		rows = cs_user_query(&read, &error);
		if (rows == NULL)
		{
			cs_source_failed(source, error->message);
			continue;
		}
		show(g, psprintf("united_%d", foreach_current_index(lc)), rows);
		g->from = psprintf("%s%sSELECT * FROM united_%d", g->from ? g->from : "",
						   g->from ? " UNION ALL " : "", foreach_current_index(lc));
	}
	if (g->from == NULL)
		return false;
	g->from = psprintf("(%s) AS %s", g->from, quote_identifier(word));
	g->id = "customer_key";
	return true;
}

/*
 * available: a source without data before as_of, or whose newest row is older
 * than max_lag, leaves the metric missing: no data is not a zero.
 */
static bool
available(CsBatch *batch, const CsMetric *metric, List *sources)
{
	ListCell *lc;

	foreach (lc, sources)
	{
		CsSource *source = lfirst(lc);
		bool isnull;
		Datum last;

		cs_exec("SELECT last_at FROM cs_internal.source_state WHERE source = $1 AND available",
				CS_ARGS(cs_text(source->name)));
		last = cs_value_datum(&isnull);
		if (SPI_processed == 1 && (metric->max_lag == 0 || isnull ||
								   DatumGetTimestampTz(last) >= batch->as_of - metric->max_lag))
			return true;
	}
	return false;
}

/*
 * left_out: its SQL ran out of time a short while ago; said as if it had again.
 */
static bool
left_out(Matrix *m, const CsMetric *metric)
{
	ErrorData *error;

	if (m->batch->what_if)
		return false;
	error = cs_expired("metric", metric->name, metric->expression);
	if (error != NULL)
		mark_failing(m, metric, error, m->batch->nids, NULL);
	return error != NULL;
}

static void
note_expired(Matrix *m, const CsMetric *metric, ErrorData *error)
{
	if (!m->batch->what_if)
		cs_note_expired("metric", metric->name, metric->expression, error);
}

/*
 * one_by_one: a metric whose query failed, for each customer alone.
 */
static void
one_by_one(Matrix *m, CsMetric *metric, ErrorData *first_error)
{
	List *one = list_make1(metric);
	int64 failed = 0;
	int64 worked = 0;
	int timeouts = 0;
	char *example = NULL;
	ErrorData *error = first_error;
	CsBatch single = *m->batch;

	for (int i = 0; i < m->batch->nids; i++)
	{
		Datum id = CStringGetTextDatum(m->ids[i]);
		Reading g;
		ErrorData *e = NULL;

		if ((worked == 0 && (failed >= GIVE_UP_AFTER || timeouts > 0)) ||
			timeouts >= GIVE_UP_AFTER_TIMEOUTS)
		{
			if (timeouts > 0)
				note_expired(m, metric, error);
			failed += m->batch->nids - i;
			break;
		}
		single.ids = cs_text_array(&id, 1);
		single.nids = 1;
		cs_register("batch", cs_query("SELECT i COLLATE \"C\" AS customer_id FROM unnest($1) i",
									  CS_ARGS(cs_textarray(single.ids))));
		if (!prepare_group(&single, metric->source, metric->search_path, one, single.ids, &g))
			break;
		if (run_group(m, &g, one, single.ids, &e))
			worked++;
		else
		{
			put(m, i, metric->slot, (Datum) 0, true);
			failed++;
			if (e->sqlerrcode == ERRCODE_QUERY_CANCELED)
				timeouts++;
			if (example == NULL)
			{
				example = m->ids[i];
				error = e;
			}
		}
		forget(&g);
	}
	cs_register("batch", cs_query("SELECT i COLLATE \"C\" AS customer_id FROM unnest($1) i",
								  CS_ARGS(cs_textarray(m->batch->ids))));
	mark_failing(m, metric, error, failed, example);
}

static void
compute_group(Matrix *m, const char *word, const char *search_path, List *metrics)
{
	List *sources = cs_metric_sources(word);
	List *usable = NIL;
	ListCell *lc;
	ErrorData *error = NULL;
	Reading g;

	foreach (lc, metrics)
		if ((strcmp(word, "ledger") == 0 || available(m->batch, lfirst(lc), sources)) &&
			!left_out(m, lfirst(lc)))
			usable = lappend(usable, lfirst(lc));
	if (usable == NIL || !prepare_group(m->batch, word, search_path, usable, m->batch->ids, &g))
		return;
	if (run_group(m, &g, usable, (Datum) 0, &error))
	{
		foreach (lc, usable)
			mark_working(m, lfirst(lc));
		forget(&g);
		return;
	}
	foreach (lc, usable)
	{
		CsMetric *metric = lfirst(lc);
		bool alone = list_length(usable) == 1;

		if (!alone)
			error = NULL;
		if (!alone && run_group(m, &g, list_make1(metric), (Datum) 0, &error))
			mark_working(m, metric);
		else if (m->batch->nids == 1)
		{
			mark_failing(m, metric, error, 1, m->ids[0]);
			note_expired(m, metric, error);
		}
		else
		{
			/* That registers what it reads of each customer under the same names. */
			forget(&g);
			one_by_one(m, metric, error);
			if (!prepare_group(m->batch, word, search_path, usable, m->batch->ids, &g))
				return;
		}
	}
	forget(&g);
}

/* ---- formulas ---------------------------------------------------------- */

/*
 * register_metrics: the values so far as relation "metrics", one column each.
 */
static void
register_metrics(Matrix *m, List *all)
{
	CsResult *rows = palloc0(sizeof(CsResult));
	int ncols = list_length(all) + 1;
	Datum *values = palloc0(sizeof(Datum) * ncols);
	bool *nulls = palloc0(sizeof(bool) * ncols);
	ListCell *lc;
	int col = 1;

	rows->desc = CreateTemplateTupleDesc(ncols);
	TupleDescInitEntry(rows->desc, 1, "customer_id", TEXTOID, -1, 0);
	foreach (lc, all)
		TupleDescInitEntry(rows->desc, ++col, ((CsMetric *) lfirst(lc))->name, FLOAT8OID, -1, 0);
	rows->store = tuplestore_begin_heap(true, false, CS_RESULT_MEM);
	rows->nrows = m->batch->nids;
	for (int i = 0; i < m->batch->nids; i++)
	{
		values[0] = CStringGetTextDatum(m->ids[i]);
		col = 1;
		foreach (lc, all)
		{
			int at = i * m->nslots + ((CsMetric *) lfirst(lc))->slot - 1;

			values[col] = Float8GetDatum(m->values[at]);
			nulls[col++] = m->nulls[at];
		}
		tuplestore_putvalues(rows->store, rows->desc, values, nulls);
	}
	cs_register("metrics", rows);
}

/*
 * compute_formulas: those whose inputs are all there, until none is left.  The
 * definitions' check has refused cycles; what is left anyway stays missing.
 */
static void
compute_formulas(Matrix *m, List *all)
{
	List *waiting = NIL;
	ListCell *lc;

	foreach (lc, all)
		if (strcmp(((CsMetric *) lfirst(lc))->source, "formula") == 0)
			waiting = lappend(waiting, lfirst(lc));

	while (waiting != NIL)
	{
		List *ready = NIL;
		List *later = NIL;

		foreach (lc, waiting)
		{
			CsMetric *metric = lfirst(lc);
			bool blocked = false;
			ListCell *name;
			ListCell *other;

			foreach (name, cs_expression_names(metric->expression,
											   psprintf("metric \"%s\"", metric->name)))
				foreach (other, waiting)
					if (strcmp(lfirst(name), ((CsMetric *) lfirst(other))->name) == 0)
						blocked = true;
			if (blocked)
				later = lappend(later, metric);
			else
				ready = lappend(ready, metric);
		}
		if (ready == NIL)
			break;
		register_metrics(m, all);
		foreach (lc, ready)
		{
			CsMetric *metric = lfirst(lc);
			Reading g = {0};
			ErrorData *error = NULL;

			g.query.as_of = m->batch->as_of;
			g.query.as_of_day = m->batch->as_of_day;
			g.query.search_path = metric->search_path;
			g.from = "metrics";
			if (left_out(m, metric))
				continue;
			if (run_group(m, &g, list_make1(metric), (Datum) 0, &error))
				mark_working(m, metric);
			else
			{
				mark_failing(m, metric, error, m->batch->nids, NULL);
				note_expired(m, metric, error);
			}
		}
		cs_unregister("metrics");
		waiting = later;
	}
}

/* ---- the stage --------------------------------------------------------- */

/*
 * write_values: the arrays into state.
 */
static void
write_values(Matrix *m)
{
	Datum *elems = palloc(sizeof(Datum) * m->nslots);
	int lbound = 1;

	for (int i = 0; i < m->batch->nids; i++)
	{
		ArrayType *array;

		for (int s = 0; s < m->nslots; s++)
			elems[s] = Float8GetDatum(m->values[(Size) i * m->nslots + s]);
		array = construct_md_array(elems, m->nulls + (Size) i * m->nslots, 1, &m->nslots, &lbound,
								   FLOAT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
		cs_state_set(m->batch->state, i, CS_STATE_VALUES, PointerGetDatum(array), false);
		pfree(array);
	}
}

/*
 * cs_stage_metrics: see metric.h.
 */
void
cs_stage_metrics(CsBatch *batch)
{
	List *all = cs_metrics();
	List *done = NIL;
	Matrix m = {0};
	ListCell *lc;

	m.batch = batch;
	foreach (lc, all)
		m.nslots = Max(m.nslots, ((CsMetric *) lfirst(lc))->slot);
	if (m.nslots == 0)
		return;
	m.ids = batch->state->ids;
	m.values = palloc0(sizeof(double) * batch->nids * m.nslots);
	m.nulls = palloc(sizeof(bool) * batch->nids * m.nslots);
	memset(m.nulls, true, sizeof(bool) * batch->nids * m.nslots);

	foreach (lc, all)
	{
		CsMetric *metric = lfirst(lc);
		List *group = NIL;
		ListCell *other;

		if (strcmp(metric->source, "formula") == 0 || list_member_ptr(done, metric))
			continue;
		foreach (other, all)
		{
			CsMetric *o = lfirst(other);

			if (strcmp(o->source, metric->source) == 0 &&
				strcmp(o->search_path, metric->search_path) == 0)
			{
				group = lappend(group, o);
				done = lappend(done, o);
			}
		}
		compute_group(&m, metric->source, metric->search_path, group);
	}
	compute_formulas(&m, all);
	write_values(&m);
}
