/*
 * scorecard_compile.c
 *		From the rows of cs.scorecard, cs.measure_group, cs.measure and cs.cap
 *		to CsScorecard: once a batch, so that scoring a customer touches no table.
 *
 * The rows are those of now, or, to explain a stored score, those of the
 * version it names: the rows that definition_history had at that id.  Rows may
 * have been restored unchecked, so nothing here fails on a bad one: what
 * cannot be used has no points.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "utils/array.h"

#include "insight/scorecard.h"

/*
 * The rows of a definition table as they were just after the history row $2:
 * of each key the newest row up to there.  A changed key ends the old one.
 */
#define ROWS_THEN(table, owner, name)                                                             \
	"(SELECT (jsonb_populate_record(NULL::cs." table ", r.row)).* FROM ("                         \
	"  SELECT DISTINCT ON (e.card, e.name) e.row FROM ("                                          \
	"   SELECT h.id, 1 AS part, h.new_row->>'" owner "' AS card, h.new_row->>'" name "' AS name," \
	"          h.new_row AS row"                                                                  \
	"     FROM cs_internal.definition_history h"                                                  \
	"    WHERE h.table_name = '" table "' AND h.id <= $2 AND h.new_row IS NOT NULL"               \
	"   UNION ALL"                                                                                \
	"   SELECT h.id, 0, h.old_row->>'" owner "', h.old_row->>'" name "', NULL"                    \
	"     FROM cs_internal.definition_history h"                                                  \
	"    WHERE h.table_name = '" table "' AND h.id <= $2 AND h.old_row IS NOT NULL) e"            \
	"  WHERE e.card = $1 ORDER BY e.card, e.name, e.id DESC, e.part DESC) r"                      \
	" WHERE r.row IS NOT NULL)"

/* $1: the scorecard's name or NULL for all that are enabled. */
#define CARDS_SQL(cards)                                                                         \
	"SELECT c.name,"                                                                             \
	" CASE WHEN strpos(c.segment, ':') > 0 THEN split_part(c.segment, ':', 1)"                   \
	"      ELSE (SELECT min(g.dimension) FROM cs.segment g WHERE g.name = c.segment) END,"       \
	" CASE WHEN strpos(c.segment, ':') > 0 THEN substr(c.segment, strpos(c.segment, ':') + 1)"   \
	"      ELSE c.segment END,"                                                                  \
	" c.red_below, c.green_from, c.edge_closed = 'below', c.hysteresis, c.min_coverage,"         \
	" c.combine = 'min',"                                                                        \
	" (SELECT max(h.id) FROM cs_internal.definition_history h"                                   \
	"   WHERE h.table_name IN ('scorecard', 'measure_group', 'measure', 'cap')"                  \
	"     AND coalesce(h.new_row, h.old_row)"                                                    \
	"         ->> CASE h.table_name WHEN 'scorecard' THEN 'name' ELSE 'scorecard' END = c.name)" \
	" FROM " cards " c WHERE CASE WHEN $1::text IS NULL THEN c.enabled ELSE c.name = $1 END"     \
	" ORDER BY c.segment IS NULL, c.priority, c.name COLLATE \"C\""

#define MEASURES_SQL(measures, groups)                                                           \
	"SELECT m.scorecard, m.name, m.metric, s.slot, m.measure_group, m.weight, m.curve,"          \
	" m.worst, m.best, m.half_life_days, m.missing, m.missing_points,"                           \
	" (SELECT array_agg(coalesce(CASE jsonb_typeof(e->'to') WHEN 'number'"                       \
	"                            THEN (e->>'to')::float8 END, 'Infinity') ORDER BY n)"           \
	"    FROM jsonb_array_elements(CASE jsonb_typeof(m.steps) WHEN 'array' THEN m.steps END)"    \
	"         WITH ORDINALITY AS x(e, n)),"                                                      \
	" (SELECT array_agg(coalesce(CASE jsonb_typeof(e->'points') WHEN 'number'"                   \
	"                            THEN (e->>'points')::float8 END, 'NaN') ORDER BY n)"            \
	"    FROM jsonb_array_elements(CASE jsonb_typeof(m.steps) WHEN 'array' THEN m.steps END)"    \
	"         WITH ORDINALITY AS x(e, n)),"                                                      \
	" g.weight, g.combine = 'min', m.within, m.min_n,"                                           \
	" CASE WHEN m.worst <> m.best THEN m.worst > m.best ELSE coalesce(x.better = 'low', false) " \
	"END,"                                                                                       \
	" m.max_age_days"                                                                            \
	" FROM " measures " m"                                                                       \
	" LEFT JOIN " groups " g ON g.scorecard = m.scorecard AND g.name = m.measure_group"          \
	" LEFT JOIN cs.metric x ON x.name = m.metric"                                                \
	" LEFT JOIN cs_internal.metric_slot s ON s.metric = m.metric"                                \
	" WHERE m.weight > 0 AND ($1::text IS NULL OR m.scorecard = $1)"                             \
	"   AND (m.measure_group IS NULL OR (g.enabled AND g.weight > 0))"                           \
	" ORDER BY m.scorecard COLLATE \"C\", m.name COLLATE \"C\""

#define CAPS_SQL(caps)                                                     \
	"SELECT k.scorecard, k.rule, k.search_path, k.at_most FROM " caps " k" \
	" WHERE k.enabled AND ($1::text IS NULL OR k.scorecard = $1)"          \
	" ORDER BY k.scorecard COLLATE \"C\", k.at_most, k.rule COLLATE \"C\""

/*
 * cell_float: a float8 of the last cs_exec, or `otherwise` for NULL.
 */
static float8
cell_float(uint64 row, int col, float8 otherwise)
{
	bool isnull;
	Datum value = cs_cell_datum(row, col, &isnull);

	return isnull ? otherwise : DatumGetFloat8(value);
}

static int32
cell_int(uint64 row, int col, int32 otherwise)
{
	bool isnull;
	Datum value = cs_cell_datum(row, col, &isnull);

	return isnull ? otherwise : DatumGetInt32(value);
}

static bool
cell_bool(uint64 row, int col)
{
	bool isnull;
	Datum value = cs_cell_datum(row, col, &isnull);

	return !isnull && DatumGetBool(value);
}

/*
 * cell_floats: a float8[] without nulls; its length is returned.
 */
static int
cell_floats(uint64 row, int col, float8 **out)
{
	bool isnull;
	Datum value = cs_cell_datum(row, col, &isnull);
	ArrayType *array;
	int n;

	if (isnull)
		return 0;
	array = DatumGetArrayTypePCopy(value);
	n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	*out = (float8 *) ARR_DATA_PTR(array);
	return n;
}

/*
 * missing_of: the policy a word means; reweight for any other (restored unchecked).
 */
static CsMissing
missing_of(const char *word)
{
	if (strcmp(word, "redistribute") == 0)
		return CS_MISSING_REDISTRIBUTE;
	if (strcmp(word, "zero") == 0)
		return CS_MISSING_ZERO;
	if (strcmp(word, "neutral") == 0)
		return CS_MISSING_NEUTRAL;
	if (strcmp(word, "null_overall") == 0)
		return CS_MISSING_NULL_OVERALL;
	if (strcmp(word, "carry") == 0)
		return CS_MISSING_CARRY;
	return CS_MISSING_REWEIGHT;
}

/*
 * read_cards: the scorecards of the last cs_exec, still without measures.
 */
static List *
read_cards(void)
{
	List *cards = NIL;

	for (uint64 r = 0; r < SPI_processed; r++)
	{
		CsScorecard *card = palloc0(sizeof(CsScorecard));
		bool isnull;
		Datum version = cs_cell_datum(r, 10, &isnull);

		card->name = cs_cell(r, 1);
		card->dimension = cs_cell(r, 2);
		card->segment = cs_cell(r, 3);
		card->red_below = cell_float(r, 4, 0);
		card->green_from = cell_float(r, 5, 0);
		card->edge_below = cell_bool(r, 6);
		card->hysteresis = cell_float(r, 7, 0);
		card->min_coverage = cell_float(r, 8, 0);
		card->min = cell_bool(r, 9);
		card->version = isnull ? 0 : DatumGetInt64(version);
		cards = lappend(cards, card);
	}
	return cards;
}

/*
 * group_of: the index of a measure's group in the card, added when it is new.
 * Without group the measure is a group of its own.
 */
static int
group_of(CsScorecard *card, uint64 row)
{
	char *name = cs_cell(row, 5);
	CsGroup *group;

	for (int g = 0; name && g < card->ngroups; g++)
		if (card->groups[g].name && strcmp(card->groups[g].name, name) == 0)
			return g;
	group = &card->groups[card->ngroups];
	group->name = name;
	group->weight = cell_float(row, name ? 15 : 6, 0);
	group->min = name && cell_bool(row, 16);
	return card->ngroups++;
}

/*
 * read_measures: the measures of the last cs_exec into their cards.  Rows come
 * in order of scorecard and name, so groups stand in the order of their first
 * measure: the same however they were written.
 */
static void
read_measures(List *cards)
{
	uint64 nrows = SPI_processed;
	ListCell *lc;

	foreach (lc, cards)
	{
		CsScorecard *card = lfirst(lc);
		uint64 first = 0;
		uint64 end;

		while (first < nrows && strcmp(cs_cell(first, 1), card->name) != 0)
			first++;
		for (end = first; end < nrows && strcmp(cs_cell(end, 1), card->name) == 0;)
			end++;
		card->measures = palloc0(sizeof(CsMeasure) * (end - first + 1));
		card->groups = palloc0(sizeof(CsGroup) * (end - first + 1));
		for (uint64 r = first; r < end; r++)
		{
			CsMeasure *measure = &card->measures[card->nmeasures++];
			bool isnull;
			Datum slot = cs_cell_datum(r, 4, &isnull);
			int npoints;

			measure->name = cs_cell(r, 2);
			measure->metric = cs_cell(r, 3);
			measure->slot = isnull ? 0 : DatumGetInt32(slot);
			measure->group = group_of(card, r);
			measure->weight = cell_float(r, 6, 0);
			measure->curve.kind = cs_curve_kind(cs_cell(r, 7));
			measure->curve.worst = cell_float(r, 8, NAN);
			measure->curve.best = cell_float(r, 9, NAN);
			measure->curve.half_life = cell_float(r, 10, 0);
			measure->missing = missing_of(cs_cell(r, 11));
			measure->missing_points = Max(0, Min(100, cell_float(r, 12, 50)));
			measure->within = cs_cell(r, 17);
			measure->curve.min_n = cell_int(r, 18, 0);
			measure->curve.falling = cell_bool(r, 19);
			measure->max_age_days = cell_int(r, 20, 0);
			measure->curve.nsteps = cell_floats(r, 13, &measure->curve.to);
			npoints = cell_floats(r, 14, &measure->curve.points);
			measure->curve.nsteps = Min(measure->curve.nsteps, npoints);
		}
		cs_scorecard_prepare(card);
	}
}

/*
 * read_caps: the caps of the last cs_exec into their cards, the lowest first.
 */
static void
read_caps(List *cards)
{
	ListCell *lc;

	foreach (lc, cards)
	{
		CsScorecard *card = lfirst(lc);

		card->caps = palloc0(sizeof(CsCap) * (SPI_processed + 1));
		for (uint64 r = 0; r < SPI_processed; r++)
		{
			CsCap *cap = &card->caps[card->ncaps];

			if (strcmp(cs_cell(r, 1), card->name) != 0)
				continue;
			cap->rule = cs_cell(r, 2);
			cap->search_path = cs_cell(r, 3);
			cap->at_most = (int64) rint(Max(0, Min(100, cell_float(r, 4, 100))) * CS_GRID);
			card->ncaps++;
		}
	}
}

/*
 * cs_scorecards: all enabled scorecards with their measures, those of a segment
 * first, by priority, then by name.
 */
List *
cs_scorecards(void)
{
	MemoryContext keep = CurrentMemoryContext;
	List *cards;

	cs_exec(CARDS_SQL("cs.scorecard"), CS_ARGS(cs_text(NULL)));
	MemoryContextSwitchTo(keep);
	cards = read_cards();
	SPI_freetuptable(SPI_tuptable);
	cs_exec(MEASURES_SQL("cs.measure", "cs.measure_group"), CS_ARGS(cs_text(NULL)));
	MemoryContextSwitchTo(keep);
	read_measures(cards);
	SPI_freetuptable(SPI_tuptable);
	cs_exec(CAPS_SQL("cs.cap"), CS_ARGS(cs_text(NULL)));
	MemoryContextSwitchTo(keep);
	read_caps(cards);
	SPI_freetuptable(SPI_tuptable);
	return cards;
}

/*
 * cs_scorecard: one by name; with a version as its rows were then.
 */
CsScorecard *
cs_scorecard(const char *name, int64 version)
{
	MemoryContext keep = CurrentMemoryContext;
	List *cards;
	CsScorecard *card;

	if (version != 0)
		cs_exec(CARDS_SQL(ROWS_THEN("scorecard", "name", "name")),
				CS_ARGS(cs_text(name), cs_int8(version)));
	else
		cs_exec(CARDS_SQL("cs.scorecard"), CS_ARGS(cs_text(name)));
	MemoryContextSwitchTo(keep);
	cards = read_cards();
	if (cards == NIL)
		return NULL;
	if (version != 0)
		cs_exec(MEASURES_SQL(ROWS_THEN("measure", "scorecard", "name"),
							 ROWS_THEN("measure_group", "scorecard", "name")),
				CS_ARGS(cs_text(name), cs_int8(version)));
	else
		cs_exec(MEASURES_SQL("cs.measure", "cs.measure_group"), CS_ARGS(cs_text(name)));
	MemoryContextSwitchTo(keep);
	read_measures(cards);
	if (version != 0)
		cs_exec(CAPS_SQL(ROWS_THEN("cap", "scorecard", "rule")),
				CS_ARGS(cs_text(name), cs_int8(version)));
	else
		cs_exec(CAPS_SQL("cs.cap"), CS_ARGS(cs_text(name)));
	MemoryContextSwitchTo(keep);
	read_caps(cards);
	card = linitial(cards);
	if (version != 0)
		card->version = version;
	return card;
}
