/*
 * reference.c
 *		Reference distributions: what the curves `percentile` and `logistic`
 *		compare a value with.
 *
 * In: the values of everybody scored, as cs_internal.state has them.  Out: rows
 * of cs_internal.reference_distribution, per local day, metric and segment; and
 * from there the references of compiled scorecards.
 *
 * Decided state: written once a day, before its first evaluation, and never
 * changed, so customers refreshed at different instants are compared with the
 * same and one change does not move everybody.
 *
 * Cases.
 * First use of a metric: nothing was evaluated yet, so the distribution is
 * written after everybody was, and everybody is evaluated once more.
 * Nobody has a value: a row with n = 0 stands for the day, else each refresh
 * would try again.
 * New segment during the day: no reference until tomorrow, its values are missing.
 * A past day without rows: the newest before it; none: missing.
 * Two writers (refresh, snapshot): a lock, then what is there is left alone.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/array.h"

#include "insight/scorecard.h"

/* More values than that are thinned to as many quantiles: at most 0.005 points off. */
#define MAX_VALUES 10000

/* $1 day, $2 also where there was none before, $3 MAX_VALUES. */
static const char *const fix_sql =
	"WITH need AS ("
	" SELECT DISTINCT m.metric, coalesce(m.within, '') AS dimension, t.slot"
	" FROM cs.measure m JOIN cs_internal.metric_slot t ON t.metric = m.metric"
	" WHERE m.curve IN ('percentile', 'logistic') AND m.weight > 0"
	"  AND NOT EXISTS (SELECT FROM cs_internal.reference_distribution r WHERE r.day = $1"
	"   AND r.metric = m.metric AND r.dimension = coalesce(m.within, ''))"
	"  AND ($2 OR EXISTS (SELECT FROM cs_internal.reference_distribution r WHERE r.day < $1"
	"   AND r.metric = m.metric AND r.dimension = coalesce(m.within, '')))"
	"), known AS ("
	" SELECT n.metric, n.dimension,"
	"  CASE WHEN n.dimension = '' THEN '' ELSE s.segments ->> n.dimension END AS segment,"
	"  s.\"values\"[n.slot] AS v"
	" FROM need n JOIN cs_internal.state s ON (s.active OR s.in_trial)"
	"  AND s.\"values\"[n.slot] BETWEEN -1e100 AND 1e100"
	"), every AS ("
	" SELECT metric, dimension, segment, count(*) AS n, avg(v ORDER BY v) AS mean,"
	"  stddev_pop(v ORDER BY v) AS sd, array_agg(v ORDER BY v) AS sorted"
	" FROM known WHERE segment <> '' OR dimension = '' GROUP BY 1, 2, 3"
	" UNION ALL"
	" SELECT n.metric, n.dimension, '', 0, NULL, NULL, '{}' FROM need n"
	" WHERE n.dimension <> '' OR NOT EXISTS (SELECT FROM known k"
	"  WHERE k.metric = n.metric AND k.dimension = '')"
	")"
	" INSERT INTO cs_internal.reference_distribution"
	"  (day, metric, dimension, segment, n, mean, sd, \"values\")"
	" SELECT $1, metric, dimension, segment, n, mean, sd,"
	"  CASE WHEN n <= $3 THEN sorted"
	"   ELSE (SELECT array_agg(sorted[ceil((i - 0.5) * n / $3)::int] ORDER BY i)"
	"         FROM generate_series(1, $3) i) END"
	" FROM every ON CONFLICT DO NOTHING";

/*
 * cs_references_fix: see scorecard.h.
 */
bool
cs_references_fix(DateADT day, bool first)
{
	/* Nearly always no measure compares, and this is all that is asked. */
	if (cs_exec("SELECT 1 FROM cs.measure WHERE curve IN ('percentile', 'logistic') LIMIT 1",
				CS_NO_ARGS) == 0)
		return false;
	cs_exec("SELECT pg_advisory_xact_lock(1668509798, 3)", CS_NO_ARGS);
	return cs_exec(fix_sql, CS_ARGS(cs_date(day), cs_bool(first), cs_int4(MAX_VALUES))) > 0;
}

/*
 * compares: does the measure need references?
 */
static bool
compares(const CsMeasure *measure)
{
	return measure->curve.kind == CS_CURVE_PERCENTILE || measure->curve.kind == CS_CURVE_LOGISTIC;
}

/*
 * read_row: a row of the last cs_exec as a reference.
 */
static void
read_row(uint64 row, CsReference *out)
{
	bool isnull;
	Datum value;

	out->segment = cs_cell(row, 2);
	value = cs_cell_datum(row, 3, &isnull);
	out->n = DatumGetInt64(value);
	value = cs_cell_datum(row, 4, &isnull);
	out->mean = isnull ? NAN : DatumGetFloat8(value);
	value = cs_cell_datum(row, 5, &isnull);
	out->sd = isnull ? 0 : DatumGetFloat8(value);
	value = cs_cell_datum(row, 6, &isnull);
	if (!isnull)
	{
		ArrayType *array = DatumGetArrayTypePCopy(value);

		out->nvalues = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
		out->values = (float8 *) ARR_DATA_PTR(array);
	}
}

/*
 * cs_references_load: see scorecard.h.
 */
void
cs_references_load(List *cards, DateADT day)
{
	MemoryContext keep = CurrentMemoryContext;
	StringInfoData list;
	CsReference *all;
	char **key;
	uint64 n;
	ListCell *lc;

	initStringInfo(&list);
	foreach (lc, cards)
	{
		CsScorecard *card = lfirst(lc);

		for (int i = 0; i < card->nmeasures; i++)
			if (compares(&card->measures[i]))
			{
				const char *within = card->measures[i].within;

				appendStringInfo(&list, "%s(%s, %s)", list.len ? ", " : "",
								 quote_literal_cstr(card->measures[i].metric),
								 quote_literal_cstr(within ? within : ""));
			}
	}
	if (list.len == 0)
		return;

	n = cs_exec(
		psprintf("SELECT r.dimension || '/' || r.metric, r.segment, r.n, r.mean, r.sd, r.\"values\""
				 " FROM (SELECT DISTINCT * FROM (VALUES %s) v) u (metric, dimension)"
				 " CROSS JOIN LATERAL (SELECT max(x.day) AS day"
				 "  FROM cs_internal.reference_distribution x WHERE x.metric = u.metric"
				 "   AND x.dimension = u.dimension AND x.day <= $1) d"
				 " JOIN cs_internal.reference_distribution r ON r.day = d.day"
				 "  AND r.metric = u.metric AND r.dimension = u.dimension"
				 " ORDER BY r.metric, r.dimension, r.segment",
				 list.data),
		CS_ARGS(cs_date(day)));
	MemoryContextSwitchTo(keep);
	all = palloc0(sizeof(CsReference) * (n + 1));
	key = palloc(sizeof(char *) * (n + 1));
	for (uint64 r = 0; r < n; r++)
	{
		key[r] = cs_cell(r, 1);
		read_row(r, &all[r]);
	}
	SPI_freetuptable(SPI_tuptable);

	foreach (lc, cards)
	{
		CsScorecard *card = lfirst(lc);

		for (int i = 0; i < card->nmeasures; i++)
		{
			CsMeasure *measure = &card->measures[i];
			char *mine = psprintf("%s/%s", measure->within ? measure->within : "", measure->metric);

			for (uint64 r = 0; compares(measure) && r < n; r++)
				if (strcmp(key[r], mine) == 0)
				{
					if (measure->nreferences == 0)
						measure->references = &all[r];
					measure->nreferences++;
				}
			pfree(mine);
		}
	}
}

/*
 * cs_reference_of: see scorecard.h.
 */
const CsReference *
cs_reference_of(const CsMeasure *measure, const char *segment, int length)
{
	for (int i = 0; i < measure->nreferences; i++)
		if ((int) strlen(measure->references[i].segment) == length &&
			memcmp(measure->references[i].segment, segment, length) == 0)
			return &measure->references[i];
	return NULL;
}

/*
 * cs_extra_compare: see scorecard.h.
 */
void
cs_extra_compare(const CsScorecard *card, JsonbContainer *segments, DateADT day, CsExtra *extra)
{
	extra->compares = false;
	extra->day = day;
	for (int i = 0; i < card->nmeasures; i++)
	{
		const CsMeasure *measure = &card->measures[i];
		JsonbValue found;

		if (!compares(measure))
			continue;
		if (!extra->compares)
			extra->references = palloc0(sizeof(CsReference *) * card->nmeasures);
		extra->compares = true;
		if (measure->within == NULL)
			extra->references[i] = cs_reference_of(measure, "", 0);
		else if (segments != NULL && JsonContainerIsObject(segments) &&
				 getKeyJsonValueFromContainer(segments, measure->within, strlen(measure->within),
											  &found) != NULL &&
				 found.type == jbvString)
			extra->references[i] =
				cs_reference_of(measure, found.val.string.val, found.val.string.len);
	}
}

PG_FUNCTION_INFO_V1(cs_references_fix_sql);

/*
 * cs_internal.fix_references(day date, first boolean)
 */
Datum
cs_references_fix_sql(PG_FUNCTION_ARGS)
{
	CsFrame frame;
	bool written;

	cs_enter(&frame);
	written = cs_references_fix(PG_GETARG_DATEADT(0), PG_GETARG_BOOL(1));
	cs_leave(&frame);
	PG_RETURN_BOOL(written);
}
