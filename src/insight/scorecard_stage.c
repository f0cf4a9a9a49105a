/*
 * scorecard_stage.c
 *		The stage of evaluate that scores a batch.
 *
 * In: "values", segments, active and in_trial of the batch's state, the band
 * of before, the override in force.  Out, set-wise: the automatic score into
 * the state; unless what_if the score and band that people see into
 * cs_internal.health, and a row of cs_internal.health_history per change of
 * band.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/datum.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "core/empty.h"
#include "decide/rule.h"
#include "insight/scorecard.h"
#include "refresh/state.h"

/* Columns of what stood there before, of who is asked for. */
enum
{
	WAS_CUSTOMER = 1,
	WAS_SCORE,
	WAS_AUTO_BAND,
	WAS_BAND,
	WAS_BAND_SINCE,
	WAS_BAND_REASON,
	WAS_COVERAGE,
	WAS_SCORECARD,
	WAS_VERSION
};

static const char *const health_sql =
	"SELECT h.customer_id, h.score, h.auto_band, h.band, h.band_since, h.band_reason,"
	" h.coverage, h.scorecard, h.version"
	" FROM cs_internal.health h WHERE h.customer_id = ANY ((SELECT $1)::text[])";

/* Columns of the override in force. */
enum
{
	OVERRIDE_VALUE = 2,
	OVERRIDE_DELTA,
	OVERRIDE_BAND,
	OVERRIDE_REASON
};

static const char *const override_sql =
	"SELECT DISTINCT ON (x.customer_id) x.customer_id, x.value, x.delta, x.band, x.reason"
	" FROM cs_internal.health_override x WHERE x.customer_id = ANY ((SELECT $2)::text[])"
	"  AND x.ended_at IS NULL AND x.expires_at > $1"
	" ORDER BY x.customer_id, x.id DESC";

#define CARRIED_VALUES 2

/* One row at most a customer: what a statement found, by row of the state. */
typedef struct Found
{
	SPITupleTable *table; /* NULL: not asked */
	HeapTuple *rows;
} Found;

/* Columns of the relation health_new. */
enum
{
	OUT_CUSTOMER,
	OUT_SCORECARD,
	OUT_AUTO_SCORE,
	OUT_COVERAGE,
	OUT_SCORE_REASON,
	OUT_SCORE,
	OUT_AUTO_BAND,
	OUT_BAND,
	OUT_BAND_REASON,
	OUT_VERSION,
	OUT_OLD_BAND,
	OUT_OLD_BAND_SINCE,
	OUT_INPUTS,
	OUT_NCOLUMNS
};

static const struct
{
	const char *name;
	Oid type;
} out_columns[OUT_NCOLUMNS] = {
	{"customer_id", TEXTOID},    {"scorecard", TEXTOID},    {"auto_score", FLOAT8OID},
	{"coverage", FLOAT8OID},     {"score_reason", TEXTOID}, {"score", FLOAT8OID},
	{"auto_band", TEXTOID},      {"band", TEXTOID},         {"band_reason", TEXTOID},
	{"version", INT8OID},        {"old_band", TEXTOID},     {"old_band_since", TIMESTAMPTZOID},
	{"health_inputs", JSONBOID},
};

static const char *const write_health_sql =
	"INSERT INTO cs_internal.health AS h (customer_id, as_of, score, auto_band, band,"
	"  band_since, band_reason, coverage, scorecard, version, computed_at)"
	" SELECT n.customer_id, $1, n.score, n.auto_band, n.band,"
	"  CASE WHEN n.band IS DISTINCT FROM n.old_band THEN $1 ELSE n.old_band_since END,"
	"  n.band_reason, n.coverage, n.scorecard, n.version, $2"
	" FROM health_new n"
	" ON CONFLICT (customer_id) DO UPDATE SET as_of = excluded.as_of, score = excluded.score,"
	"  auto_band = excluded.auto_band, band = excluded.band, band_since = excluded.band_since,"
	"  band_reason = excluded.band_reason, coverage = excluded.coverage,"
	"  scorecard = excluded.scorecard, version = excluded.version,"
	"  computed_at = excluded.computed_at";

/* A second change at the very same instant takes the place of the first: an instant has one band. */
static const char *const write_history_sql =
	"INSERT INTO cs_internal.health_history (customer_id, as_of, score, band, coverage,"
	"  scorecard, version, basis, computed_at)"
	" SELECT n.customer_id, $1, n.score, n.band, n.coverage, n.scorecard, n.version, 'stored', $2"
	" FROM health_new n WHERE n.band IS DISTINCT FROM n.old_band"
	" ON CONFLICT (customer_id, as_of, basis) DO UPDATE SET score = excluded.score,"
	"  band = excluded.band, coverage = excluded.coverage, scorecard = excluded.scorecard,"
	"  version = excluded.version, computed_at = excluded.computed_at";

/*
 * in_segment: is the customer of these segments one of the scorecard's?
 * segments is {"dimension": "segment"} or {"dimension": ["segment", ...]}.
 */
static bool
in_segment(const CsScorecard *card, Jsonb *segments)
{
	JsonbValue wanted;
	JsonbValue found;

	if (card->segment == NULL)
		return true;
	if (segments == NULL || card->dimension == NULL || !JB_ROOT_IS_OBJECT(segments))
		return false;
	if (getKeyJsonValueFromContainer(&segments->root, card->dimension, strlen(card->dimension),
									 &found) == NULL)
		return false;
	if (found.type == jbvString)
		return found.val.string.len == (int) strlen(card->segment) &&
			   memcmp(found.val.string.val, card->segment, found.val.string.len) == 0;
	if (found.type != jbvBinary || !JsonContainerIsArray(found.val.binary.data))
		return false;
	wanted.type = jbvString;
	wanted.val.string.val = card->segment;
	wanted.val.string.len = strlen(card->segment);
	return findJsonbValueFromContainer(found.val.binary.data, JB_FARRAY, &wanted) != NULL;
}

/*
 * choose: the first scorecard whose segment the customer is in; NULL when
 * there is none.
 */
static CsScorecard *
choose(List *cards, Jsonb *segments)
{
	ListCell *lc;

	foreach (lc, cards)
		if (in_segment(lfirst(lc), segments))
			return lfirst(lc);
	return NULL;
}

/*
 * cs_cap_rule: see scorecard.h.
 */
void
cs_cap_rule(const CsScorecard *card, int cap, CsRule *rule)
{
	memset(rule, 0, sizeof(*rule));
	rule->table_name = "cap";
	rule->key = psprintf("%s/%s", card->name, card->caps[cap].rule);
	rule->expression = card->caps[cap].rule;
	rule->search_path = card->caps[cap].search_path;
	rule->type = BOOLOID;
}

/*
 * cap_values: the rules of all caps over the batch; NULL where there are none.
 */
static CsRuleValues *
cap_values(const CsBatch *batch, List *cards)
{
	CsRule *rules;
	int n = 0;
	ListCell *lc;

	foreach (lc, cards)
		n += ((CsScorecard *) lfirst(lc))->ncaps;
	if (n == 0)
		return NULL;
	rules = palloc(sizeof(CsRule) * n);
	n = 0;
	foreach (lc, cards)
	{
		CsScorecard *card = lfirst(lc);

		for (int i = 0; i < card->ncaps; i++)
		{
			card->caps[i].in_batch = n;
			cs_cap_rule(card, i, &rules[n++]);
		}
	}
	return cs_rule_values(batch, rules, n);
}

/*
 * cap_of: the lowest cap of the card whose rule is true for the customer, -1
 * when there is none.  A rule that is NULL or failed caps nothing.
 */
static int
cap_of(const CsScorecard *card, const CsRuleValues *values, const char *customer)
{
	int low = 0;
	int high = values ? values->ncustomers : 0;

	if (card->ncaps == 0)
		return -1;
	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (strcmp(values->ids[middle], customer) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low >= values->ncustomers || strcmp(values->ids[low], customer) != 0)
		return -1;
	for (int i = 0; i < card->ncaps; i++)
	{
		int cell = CS_CELL(values, low, card->caps[i].in_batch);

		if (!values->isnull[cell] && DatumGetBool(values->values[cell]))
			return i;
	}
	return -1;
}

/*
 * carried_sql: an array with, for each measure that carries, the newest value
 * that was kept within its age; only where there is none now.  $1 is as_of.
 * NULL where no measure carries.
 */
static char *
carried_sql(List *cards, const CsBatch *batch)
{
	StringInfoData sql;
	int n = 0;
	ListCell *lc;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT s.customer_id, ARRAY[");
	foreach (lc, cards)
	{
		CsScorecard *card = lfirst(lc);

		for (int i = 0; i < card->nmeasures; i++)
		{
			CsMeasure *measure = &card->measures[i];
			TimestampTz oldest;

			if (measure->missing != CS_MISSING_CARRY || measure->slot < 1)
				continue;
			measure->carry = n;
			oldest = cs_clock_midnight(batch->as_of_day - measure->max_age_days,
									   batch->policy->time_zone);
			appendStringInfo(
				&sql,
				"%sCASE WHEN s.\"values\"[%d] IS NULL OR s.\"values\"[%d] = 'NaN' THEN"
				" (SELECT k.\"values\"[%d] FROM cs_internal.metric_history k"
				" WHERE k.customer_id = s.customer_id AND k.as_of < $1 AND k.as_of >= %s"
				" AND k.\"values\"[%d] BETWEEN -1e300 AND 1e300 ORDER BY k.as_of DESC LIMIT 1) END",
				n ? ", " : "", measure->slot, measure->slot, measure->slot,
				quote_literal_cstr(DatumGetCString(
					DirectFunctionCall1(timestamptz_out, TimestampTzGetDatum(oldest)))),
				measure->slot);
			n++;
		}
	}
	appendStringInfoString(&sql, "]::float8[] FROM evaluated s");
	return n > 0 ? sql.data : NULL;
}

/*
 * carried_of: the values of before of one customer, per measure of its card.
 */
static float8 *
carried_of(const CsScorecard *card, ArrayType *array)
{
	float8 *carried = palloc(sizeof(float8) * (card->nmeasures + 1));
	Datum *elements;
	bool *nulls;
	int n;

	deconstruct_array(array, FLOAT8OID, sizeof(float8), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &elements,
					  &nulls, &n);
	for (int i = 0; i < card->nmeasures; i++)
	{
		const CsMeasure *measure = &card->measures[i];

		carried[i] = NAN;
		if (measure->missing == CS_MISSING_CARRY && measure->slot >= 1 && !nulls[measure->carry])
			carried[i] = DatumGetFloat8(elements[measure->carry]);
	}
	return carried;
}

/*
 * most_lost: the index of the measure that loses most, leaving out `but`;
 * -1 when none loses anything.
 */
static int
most_lost(const CsScorecard *card, const CsPart *parts, int but)
{
	int most = -1;

	for (int i = 0; i < card->nmeasures; i++)
		if (i != but && parts[i].lost > 0 && (most < 0 || parts[i].lost > parts[most].lost))
			most = i;
	return most;
}

/*
 * why: one line for people: what made the score NULL, the cap that cuts it, or
 * the two measures that lose most of it.
 */
static char *
why(const CsScorecard *card, const CsScore *score, const CsExtra *extra, const CsPart *parts)
{
	StringInfoData text;
	int first;
	int second;

	initStringInfo(&text);
	switch (score->reason)
	{
		case CS_SCORE_NO_SCORECARD:
			return "no scorecard applies";
		case CS_SCORE_INACTIVE:
			return "neither active nor in trial";
		case CS_SCORE_COVERAGE:
			appendStringInfo(&text, "coverage %.2f is below %.2f", score->coverage,
							 card->min_coverage);
			return text.data;
		case CS_SCORE_MISSING:
			if (score->blocker >= 0)
				appendStringInfo(&text, "%s has no value", card->measures[score->blocker].name);
			else
				appendStringInfoString(&text, "no measure has a value");
			return text.data;
		case CS_SCORED:
			break;
	}
	if (score->score < score->uncapped)
		return psprintf("at most %g while %s", card->caps[extra->cap].at_most / CS_GRID,
						card->caps[extra->cap].rule);
	first = most_lost(card, parts, -1);
	if (first < 0)
		return "nothing lost";
	appendStringInfo(&text, "%s loses %.1f", card->measures[first].name,
					 parts[first].lost / CS_GRID);
	second = most_lost(card, parts, first);
	if (second >= 0)
		appendStringInfo(&text, ", %s %.1f", card->measures[second].name,
						 parts[second].lost / CS_GRID);
	return text.data;
}

/*
 * override_score: a score on the grid after an override; the automatic one
 * where the override is of the band.
 */
static int64
override_score(int64 automatic, float8 value, float8 delta, bool has_value, bool has_delta)
{
	float8 units = automatic;

	if (has_value)
		units = rint(value * CS_GRID);
	else if (has_delta)
		units += rint(delta * CS_GRID);
	return (int64) Max(0, Min(100 * CS_GRID, units));
}

/*
 * find: runs a statement, keyed by customer in its first column.
 */
static Found
find(const CsBatch *batch, const char *sql, const CsArg *args, int nargs)
{
	MemoryContext context = CurrentMemoryContext;
	Found found;

	cs_exec(sql, args, nargs);
	MemoryContextSwitchTo(context);
	found.table = SPI_tuptable;
	found.rows = palloc0(sizeof(HeapTuple) * (batch->state->n + 1));
	for (uint64 r = 0; r < found.table->numvals; r++)
	{
		char *id = cs_cell(r, 1);
		int row = cs_state_row(batch->state, id);

		pfree(id);
		if (row >= 0)
			found.rows[row] = found.table->vals[r];
	}
	return found;
}

static Datum
found_datum(const Found *found, int row, int col, bool *isnull)
{
	*isnull = true;
	if (found->table == NULL || found->rows[row] == NULL)
		return (Datum) 0;
	return SPI_getbinval(found->rows[row], found->table->tupdesc, col, isnull);
}

static char *
found_text(const Found *found, int row, int col)
{
	bool isnull;
	Datum value = found_datum(found, row, col, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/*
 * score_row: one customer of the batch, from the state to the row of health_new.
 */
static void
score_row(const CsBatch *batch, List *cards, const CsRuleValues *caps, int row, const Found *was,
		  const Found *overrides, const Found *carried, Datum *out, bool *nulls)
{
#define STATE(col)                                            \
	(isnull = batch->state->nulls[CS_STATE_CELL(row, (col))], \
	 isnull ? (Datum) 0 : batch->state->values[CS_STATE_CELL(row, (col))])
#define OUT_TEXT(col, s)                                     \
	do                                                       \
	{                                                        \
		const char *s_ = (s);                                \
		nulls[col] = s_ == NULL;                             \
		out[col] = s_ ? CStringGetTextDatum(s_) : (Datum) 0; \
	} while (0)
	CsScore score = {.reason = CS_SCORED, .blocker = -1};
	CsExtra extra = {.cap = -1};
	Jsonb *inputs = NULL;
	CsScorecard *card = NULL;
	CsPart *parts = NULL;
	CsBand auto_band = CS_BAND_NONE;
	CsBand band = CS_BAND_NONE;
	char *override_reason = NULL;
	char *override_band;
	char *text;
	int64 shown = 0;
	bool has_shown;
	bool has_value;
	bool has_delta;
	float8 value;
	float8 delta;
	bool scored;
	bool isnull;
	Datum d;

	/* a NULL is a zero Datum: false */
	scored = DatumGetBool(STATE(CS_STATE_ACTIVE));
	scored |= DatumGetBool(STATE(CS_STATE_IN_TRIAL));
	if (!scored)
		score.reason = CS_SCORE_INACTIVE;
	else
	{
		Jsonb *segments;

		d = STATE(CS_STATE_SEGMENTS);
		segments = isnull ? NULL : DatumGetJsonbP(d);
		card = choose(cards, segments);
		if (card == NULL)
			score.reason = CS_SCORE_NO_SCORECARD;
		else
		{
			ArrayType *values;

			d = STATE(CS_STATE_VALUES);
			parts = palloc(sizeof(CsPart) * (card->nmeasures + 1));
			values = isnull ? NULL : DatumGetArrayTypeP(d);
			extra.cap = cap_of(card, caps, batch->state->ids[row]);
			cs_extra_compare(card, segments ? &segments->root : NULL, batch->as_of_day, &extra);
			d = found_datum(carried, row, CARRIED_VALUES, &isnull);
			if (!isnull)
				extra.carried = carried_of(card, DatumGetArrayTypeP(d));
			score = cs_score_array(card, values, &extra, parts);
			inputs = cs_extra_write(card, &extra);
		}
	}
	text = why(card, &score, &extra, parts);
	has_shown = score.reason == CS_SCORED;
	shown = score.score;
	if (has_shown)
		band = auto_band =
			cs_band(card, shown / CS_GRID, cs_band_of_name(found_text(was, row, WAS_AUTO_BAND)));

	/* An override holds for who is scored by a scorecard, also where its inputs are missing. */
	if (card != NULL)
		override_reason = found_text(overrides, row, OVERRIDE_REASON);
	if (override_reason != NULL)
	{
		value = DatumGetFloat8(found_datum(overrides, row, OVERRIDE_VALUE, &isnull));
		has_value = !isnull;
		delta = DatumGetFloat8(found_datum(overrides, row, OVERRIDE_DELTA, &isnull));
		has_delta = !isnull;
		override_band = found_text(overrides, row, OVERRIDE_BAND);
		if (has_value || (has_delta && has_shown))
		{
			shown = override_score(shown, value, delta, has_value, has_delta);
			has_shown = true;
			band = cs_band(card, shown / CS_GRID, CS_BAND_NONE);
		}
		if (override_band != NULL)
			band = cs_band_of_name(override_band);
		if (override_band != NULL || has_shown)
			text = psprintf("override: %s", override_reason);
	}

	out[OUT_CUSTOMER] = STATE(CS_STATE_CUSTOMER_ID);
	nulls[OUT_CUSTOMER] = false;
	OUT_TEXT(OUT_SCORECARD, card ? card->name : NULL);
	out[OUT_AUTO_SCORE] = Float8GetDatum(score.score / CS_GRID);
	nulls[OUT_AUTO_SCORE] = score.reason != CS_SCORED;
	out[OUT_COVERAGE] = Float8GetDatum(score.coverage);
	nulls[OUT_COVERAGE] = card == NULL;
	OUT_TEXT(OUT_SCORE_REASON, cs_score_reason_name(score.reason));
	out[OUT_SCORE] = Float8GetDatum(shown / CS_GRID);
	nulls[OUT_SCORE] = !has_shown;
	OUT_TEXT(OUT_AUTO_BAND, cs_band_name(auto_band));
	OUT_TEXT(OUT_BAND, cs_band_name(band));
	OUT_TEXT(OUT_BAND_REASON, text);
	out[OUT_VERSION] = Int64GetDatum(card ? card->version : 0);
	nulls[OUT_VERSION] = card == NULL || card->version == 0;
	out[OUT_OLD_BAND] = found_datum(was, row, WAS_BAND, &isnull);
	nulls[OUT_OLD_BAND] = isnull;
	out[OUT_OLD_BAND_SINCE] = found_datum(was, row, WAS_BAND_SINCE, &isnull);
	nulls[OUT_OLD_BAND_SINCE] = isnull;
	out[OUT_INPUTS] = PointerGetDatum(inputs);
	nulls[OUT_INPUTS] = inputs == NULL;
#undef STATE
#undef OUT_TEXT
}

/*
 * put_state: what of a row goes into the state.
 */
static void
put_state(const CsBatch *batch, int row, const Datum *out, const bool *nulls)
{
	static const struct
	{
		int from;
		int to;
	} kept[] = {
		{OUT_SCORECARD, CS_STATE_SCORECARD},  {OUT_AUTO_SCORE, CS_STATE_SCORE},
		{OUT_COVERAGE, CS_STATE_COVERAGE},    {OUT_SCORE_REASON, CS_STATE_SCORE_REASON},
		{OUT_INPUTS, CS_STATE_HEALTH_INPUTS},
	};

	for (int i = 0; i < lengthof(kept); i++)
		cs_state_set(batch->state, row, kept[i].to, out[kept[i].from], nulls[kept[i].from]);
}

/*
 * is_news: does health have to be written?  Who was never scored has no row.
 */
static bool
is_news(const Found *was, int row, const Datum *out, const bool *nulls)
{
	static const struct
	{
		int was;
		int out;
		int16 length;
	} kept[] = {
		{WAS_SCORE, OUT_SCORE, 8},       {WAS_AUTO_BAND, OUT_AUTO_BAND, -1},
		{WAS_BAND, OUT_BAND, -1},        {WAS_BAND_REASON, OUT_BAND_REASON, -1},
		{WAS_COVERAGE, OUT_COVERAGE, 8}, {WAS_SCORECARD, OUT_SCORECARD, -1},
		{WAS_VERSION, OUT_VERSION, 8},
	};

	if (was->table == NULL || was->rows[row] == NULL)
		return nulls[OUT_SCORE_REASON] || strcmp(TextDatumGetCString(out[OUT_SCORE_REASON]),
												 cs_score_reason_name(CS_SCORE_INACTIVE)) != 0;
	for (int i = 0; i < lengthof(kept); i++)
	{
		bool isnull;
		Datum before = found_datum(was, row, kept[i].was, &isnull);

		if (isnull != nulls[kept[i].out])
			return true;
		if (isnull)
			continue;
		if (kept[i].length == -1)
			before = PointerGetDatum(PG_DETOAST_DATUM(before));
		if (!datumIsEqual(before, out[kept[i].out], kept[i].length == 8 && FLOAT8PASSBYVAL,
						  kept[i].length))
			return true;
	}
	return false;
}

/*
 * write_rows: rows of health_new into health, and changes of band into its history.
 */
static void
write_rows(const CsBatch *batch, CsResult *rows, bool any_band)
{
	CsArg args[] = {cs_tstz(batch->as_of), cs_tstz(batch->computed_at)};

	if (rows->nrows == 0)
		return;
	cs_register("health_new", rows);
	cs_exec(write_health_sql, args, lengthof(args));
	if (any_band)
		cs_exec(write_history_sql, args, lengthof(args));
	cs_unregister("health_new");
}

/*
 * cs_stage_health: see scorecard.h.  Call inside a frame, with the relation
 * "batch" registered.
 */
void
cs_stage_health(CsBatch *batch)
{
	List *cards = cs_scorecards();
	CsRuleValues *caps;
	CsResult rows = {0};
	Found was = {0};
	Found overrides = {0};
	Found carried = {0};
	MemoryContext per_row =
		AllocSetContextCreate(CurrentMemoryContext, "cs_ext score", ALLOCSET_DEFAULT_SIZES);
	char *sql;
	bool any_band = false;

	cs_references_load(cards, batch->as_of_day);
	caps = cap_values(batch, cards);
	rows.desc = CreateTemplateTupleDesc(OUT_NCOLUMNS);
	for (int i = 0; i < OUT_NCOLUMNS; i++)
		TupleDescInitEntry(rows.desc, i + 1, out_columns[i].name, out_columns[i].type, -1, 0);
	TupleDescInitEntryCollation(rows.desc, OUT_CUSTOMER + 1, C_COLLATION_OID);
	rows.store = tuplestore_begin_heap(true, false, CS_RESULT_MEM);

	if (!batch->what_if)
	{
		CsArg args[] = {cs_tstz(batch->as_of), cs_textarray(batch->ids)};

		if (!cs_is_empty("health"))
			was = find(batch, health_sql, CS_ARGS(cs_textarray(batch->ids)));
		if (!cs_is_empty("health_override"))
		{
			cs_exec("UPDATE cs_internal.health_override o SET ended_at = o.expires_at"
					" WHERE o.customer_id = ANY ((SELECT $2)::text[]) AND o.ended_at IS NULL AND "
					"o.expires_at <= $1",
					args, lengthof(args));
			overrides = find(batch, override_sql, args, lengthof(args));
		}
	}
	sql = carried_sql(cards, batch);
	if (sql != NULL)
	{
		cs_state_show(batch);
		carried = find(batch, sql, CS_ARGS(cs_tstz(batch->as_of)));
		cs_state_hide();
	}
	for (int row = 0; row < batch->state->n; row++)
	{
		MemoryContext before = MemoryContextSwitchTo(per_row);
		Datum out[OUT_NCOLUMNS];
		bool nulls[OUT_NCOLUMNS];

		CHECK_FOR_INTERRUPTS();
		if (batch->state->there[row])
		{
			score_row(batch, cards, caps, row, &was, &overrides, &carried, out, nulls);
			put_state(batch, row, out, nulls);
			if (!batch->what_if && is_news(&was, row, out, nulls))
			{
				bool isnull;
				Datum band = found_datum(&was, row, WAS_BAND, &isnull);

				any_band |= isnull != nulls[OUT_BAND] ||
							(!isnull && strcmp(TextDatumGetCString(band),
											   TextDatumGetCString(out[OUT_BAND])) != 0);
				tuplestore_putvalues(rows.store, rows.desc, out, nulls);
				rows.nrows++;
			}
		}
		MemoryContextSwitchTo(before);
		MemoryContextReset(per_row);
	}
	MemoryContextDelete(per_row);
	if (!batch->what_if)
		write_rows(batch, &rows, any_band);
	tuplestore_end(rows.store);
	SPI_freetuptable(was.table);
	SPI_freetuptable(overrides.table);
	SPI_freetuptable(carried.table);
}
