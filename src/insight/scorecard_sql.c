/*
 * scorecard_sql.c
 *		Scoring as functions: of an array of values by slot, and of metrics that
 *		somebody brings along.
 *
 * In: values and the name of a scorecard.  Out: a score, its band and coverage,
 * what each measure contributes.  Nothing of a customer is read.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "decide/decide.h"
#include "insight/scorecard.h"

PG_FUNCTION_INFO_V1(cs_score_sql);
PG_FUNCTION_INFO_V1(cs_score_parts_sql);
PG_FUNCTION_INFO_V1(cs_score_metrics);
PG_FUNCTION_INFO_V1(cs_score_detail);

/*
 * cs_score_array: see scorecard.h.
 */
CsScore
cs_score_array(const CsScorecard *card, ArrayType *array, const CsExtra *extra, CsPart *parts)
{
	Datum *elements = NULL;
	bool *nulls = NULL;
	float8 *values;
	int n = 0;

	if (array != NULL)
		deconstruct_array(array, FLOAT8OID, sizeof(float8), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
						  &elements, &nulls, &n);
	values = palloc(sizeof(float8) * (n + 1));
	for (int i = 0; i < n; i++)
		values[i] = nulls[i] ? 0 : DatumGetFloat8(elements[i]);
	return cs_score_values(card, values, nulls, n, extra, parts);
}

/*
 * today: the local day of now; any before setup.
 */
static DateADT
today(void)
{
	CsPolicy *policy = cs_policy(true);

	return policy ? cs_local_day(cs_now(), policy->time_zone) : 0;
}

/*
 * card_named: a scorecard by name and version (0: as it is now).  An unknown one
 * raises.
 */
static CsScorecard *
card_named(const char *name, int64 version)
{
	CsScorecard *card = cs_scorecard(name, version);

	if (card == NULL)
	{
		List *names = NIL;

		cs_exec("SELECT name FROM cs.scorecard ORDER BY name", CS_NO_ARGS);
		for (uint64 r = 0; r < SPI_processed; r++)
			names = lappend(names, cs_cell(r, 1));
		ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT),
				errmsg("scorecard \"%s\" does not exist", name), cs_errhint_nearest(name, names));
	}
	return card;
}

/*
 * card_of_args: the scorecard that arguments 1 (name) and 2 (version) name.
 */
static CsScorecard *
card_of_args(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(1))
		ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("the scorecard must not be NULL"));
	return card_named(text_to_cstring(PG_GETARG_TEXT_PP(1)),
					  PG_ARGISNULL(2) ? 0 : PG_GETARG_INT64(2));
}

/*
 * cs_internal.score("values" float8[], scorecard text, version bigint, inputs jsonb):
 * one row (score, coverage, reason).
 */
Datum
cs_score_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CsFrame frame;
	CsScorecard *card;
	CsExtra extra;
	CsScore score;
	Datum out[3] = {0};
	bool nulls[3] = {false, false, false};
	const char *reason;

	InitMaterializedSRF(fcinfo, 0);
	cs_enter(&frame);
	card = card_of_args(fcinfo);
	cs_extra_read(card, PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3), today(), &extra);
	score = cs_score_array(card, PG_ARGISNULL(0) ? NULL : PG_GETARG_ARRAYTYPE_P(0), &extra,
						   palloc(sizeof(CsPart) * (card->nmeasures + 1)));
	reason = cs_score_reason_name(score.reason);
	out[0] = Float8GetDatum(score.score / CS_GRID);
	nulls[0] = score.reason != CS_SCORED;
	out[1] = Float8GetDatum(score.coverage);
	out[2] = reason ? CStringGetTextDatum(reason) : (Datum) 0;
	nulls[2] = reason == NULL;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, out, nulls);
	cs_leave(&frame);
	return (Datum) 0;
}

/*
 * part_reason: why a measure has the points and the weight it has, for people;
 * NULL where its value speaks for itself.
 */
static const char *
part_reason(const CsMeasure *measure, const CsPart *part, bool scored)
{
	const char *what = part->out_of_range ? "out of range" : "missing";

	if (part->out_of_range &&
		(measure->curve.kind == CS_CURVE_PERCENTILE || measure->curve.kind == CS_CURVE_LOGISTIC))
		what = "too few to compare with";
	if (part->has_value && scored && part->share == 0)
		return "not the lowest";
	if (part->has_value)
		return part->carried ? "carried: the newest value kept" : NULL;
	switch (measure->missing)
	{
		case CS_MISSING_ZERO:
			return psprintf("%s: counted as 0", what);
		case CS_MISSING_NEUTRAL:
			return psprintf("%s: counted as %g", what, measure->missing_points);
		case CS_MISSING_REDISTRIBUTE:
			return psprintf("%s: weight given to the rest of its group", what);
		case CS_MISSING_NULL_OVERALL:
			return psprintf("%s: no score without it", what);
		case CS_MISSING_REWEIGHT:
		case CS_MISSING_CARRY:
			break;
	}
	return psprintf("%s: left out", what);
}

/*
 * cap_reason: what a cap says, for people.
 */
static char *
cap_reason(const CsCap *cap)
{
	return psprintf("at most %g while %s", cap->at_most / CS_GRID, cap->rule);
}

/*
 * cs_internal.score_parts("values" float8[], scorecard text, version bigint,
 * inputs jsonb): a row per measure, and one for the cap that takes something.  Contributions add exactly to the score, contributions
 * and losses to 100; where there is no score both are NULL.
 */
Datum
cs_score_parts_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CsFrame frame;
	CsScorecard *card;
	CsExtra extra;
	CsScore score;
	CsPart *parts;

	InitMaterializedSRF(fcinfo, 0);
	cs_enter(&frame);
	card = card_of_args(fcinfo);
	parts = palloc(sizeof(CsPart) * (card->nmeasures + 1));
	cs_extra_read(card, PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3), today(), &extra);
	score = cs_score_array(card, PG_ARGISNULL(0) ? NULL : PG_GETARG_ARRAYTYPE_P(0), &extra, parts);
	for (int i = 0; i < card->nmeasures; i++)
	{
		CsMeasure *measure = &card->measures[i];
		CsPart *part = &parts[i];
		bool scored = score.reason == CS_SCORED;
		const char *reason = part_reason(measure, part, scored);
		Datum out[8] = {0};
		bool nulls[8] = {false};

		out[0] = CStringGetTextDatum(measure->name);
		out[1] = CStringGetTextDatum(measure->metric);
		out[2] = Float8GetDatum(part->value);
		nulls[2] = !part->has_value && !part->out_of_range;
		out[3] = Float8GetDatum(part->points);
		nulls[3] = !part->counts;
		/* without a score nothing was shared out: the weight as defined */
		out[4] = Float8GetDatum(scored ? part->share : measure->share);
		out[5] = Float8GetDatum(part->contribution / CS_GRID);
		nulls[5] = !scored;
		out[6] = Float8GetDatum(part->lost / CS_GRID);
		nulls[6] = !scored;
		out[7] = reason ? CStringGetTextDatum(reason) : (Datum) 0;
		nulls[7] = reason == NULL;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, out, nulls);
	}
	if (score.score < score.uncapped)
	{
		const CsCap *cap = &card->caps[extra.cap];
		Datum out[8] = {0};
		bool nulls[8] = {false, true, false, true, true, false, false, false};

		out[0] = CStringGetTextDatum("(cap)");
		out[2] = Float8GetDatum(cap->at_most / CS_GRID);
		out[5] = Float8GetDatum((score.score - score.uncapped) / CS_GRID);
		out[6] = Float8GetDatum((score.uncapped - score.score) / CS_GRID);
		out[7] = CStringGetTextDatum(cap_reason(cap));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, out, nulls);
	}
	cs_leave(&frame);
	return (Datum) 0;
}

/* ---- metrics that somebody brings along ---------------------------------- */

/* The scorecard of the calls of one expression, compiled once a query. */
typedef struct CsKeptCard
{
	char *name;
	DateADT day;   /* whose references it has */
	CsRule *rules; /* of the card's caps */
	CsScorecard *card;
	CsPart *parts;
	int nvalues;
	float8 *values;
	bool *nulls;
} CsKeptCard;

/*
 * kept_card: the scorecard of argument 1, from the first call of the query.
 */
static CsKeptCard *
kept_card(FunctionCallInfo fcinfo)
{
	CsKeptCard *kept = fcinfo->flinfo->fn_extra;
	char *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	MemoryContext old;
	CsFrame frame;

	if (kept != NULL && strcmp(kept->name, name) == 0)
		return kept;
	cs_enter(&frame);
	/* A query that goes through many scorecards keeps each until its end. */
	old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	kept = palloc0(sizeof(CsKeptCard));
	kept->name = pstrdup(name);
	kept->card = card_named(kept->name, 0);
	kept->day = today();
	MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	cs_references_load(list_make1(kept->card), kept->day);
	MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	kept->rules = palloc0(sizeof(CsRule) * (kept->card->ncaps + 1));
	for (int i = 0; i < kept->card->ncaps; i++)
		cs_cap_rule(kept->card, i, &kept->rules[i]);
	kept->parts = palloc(sizeof(CsPart) * (kept->card->nmeasures + 1));
	for (int i = 0; i < kept->card->nmeasures; i++)
		kept->nvalues = Max(kept->nvalues, kept->card->measures[i].slot);
	kept->values = palloc0(sizeof(float8) * (kept->nvalues + 1));
	kept->nulls = palloc(sizeof(bool) * (kept->nvalues + 1));
	MemoryContextSwitchTo(old);
	cs_leave(&frame);
	fcinfo->flinfo->fn_extra = kept;
	return kept;
}

/*
 * value_of_json: a metric's value from JSON.  Numbers are themselves, booleans
 * 1 and 0; texts are what to_jsonb() makes of NaN and the infinities.  False:
 * no value.  Anything else raises.
 */
static bool
value_of_json(const char *metric, const JsonbValue *json, float8 *value)
{
	static const struct
	{
		const char *word;
		float8 value;
	} words[] = {{"NaN", NAN}, {"Infinity", INFINITY}, {"-Infinity", -INFINITY}};

	switch (json->type)
	{
		case jbvNull:
			return false;
		case jbvBool:
			*value = json->val.boolean ? 1 : 0;
			return true;
		case jbvNumeric:
			*value = DatumGetFloat8(
				DirectFunctionCall1(numeric_float8, NumericGetDatum(json->val.numeric)));
			return true;
		case jbvString:
			for (int i = 0; i < lengthof(words); i++)
				if (json->val.string.len == (int) strlen(words[i].word) &&
					strncmp(json->val.string.val, words[i].word, json->val.string.len) == 0)
				{
					*value = words[i].value;
					return true;
				}
			ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("metric \"%s\" is not a number: \"%.*s\"", metric,
						   Min(json->val.string.len, 40), json->val.string.val),
					errhint("Give a JSON number, true, false or null."));
		default:
			break;
	}
	ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("metric \"%s\" is not a number", metric),
			errhint("Give a JSON number, true, false or null."));
}

/*
 * score_metrics: the score of {"metric": value, ...}.  Keys that are no metric
 * of the scorecard are passed over, so that a whole row can be given; rules of
 * caps see what is given under their names.
 */
static CsScore
score_metrics(CsKeptCard *kept, Jsonb *metrics, CsExtra *extra)
{
	const CsScorecard *card = kept->card;

	if (!JB_ROOT_IS_OBJECT(metrics))
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("metrics must be a JSON object"),
				errhint("Write {\"metric\": value, ...}, or to_jsonb() of a row whose columns are "
						"named like metrics."));
	memset(kept->nulls, true, kept->nvalues + 1);
	for (int i = 0; i < card->nmeasures; i++)
	{
		const CsMeasure *measure = &card->measures[i];
		JsonbValue found;

		if (measure->slot < 1 ||
			getKeyJsonValueFromContainer(&metrics->root, measure->metric, strlen(measure->metric),
										 &found) == NULL)
			continue;
		kept->nulls[measure->slot - 1] =
			!value_of_json(measure->metric, &found, &kept->values[measure->slot - 1]);
	}
	memset(extra, 0, sizeof(*extra));
	extra->cap = -1;
	cs_extra_compare(card, &metrics->root, kept->day, extra);
	if (card->ncaps > 0)
	{
		CsFrame frame;
		int holds;

		cs_enter(&frame);
		holds = cs_first_rule_of(kept->rules, card->ncaps, metrics);
		cs_leave(&frame);
		extra->cap = holds;
	}
	return cs_score_values(card, kept->values, kept->nulls, kept->nvalues, extra, kept->parts);
}

/*
 * cs.score(metrics jsonb, card text): the score; NULL where there is none.
 */
Datum
cs_score_metrics(PG_FUNCTION_ARGS)
{
	CsKeptCard *kept = kept_card(fcinfo);
	CsExtra extra;
	CsScore score = score_metrics(kept, PG_GETARG_JSONB_P(0), &extra);

	if (score.reason != CS_SCORED)
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(score.score / CS_GRID);
}

/*
 * push_text, push_float: one key of an object; float: NULL where has is false,
 * a text where JSON has no such number.
 */
static void
push_text(JsonbParseState **state, const char *key, const char *text)
{
	JsonbValue v;

	v.type = jbvString;
	v.val.string.val = pstrdup(key);
	v.val.string.len = strlen(key);
	pushJsonbValue(state, WJB_KEY, &v);
	v.type = text ? jbvString : jbvNull;
	if (text)
	{
		v.val.string.val = pstrdup(text);
		v.val.string.len = strlen(text);
	}
	pushJsonbValue(state, WJB_VALUE, &v);
}

static void
push_float(JsonbParseState **state, const char *key, bool has, float8 number)
{
	JsonbValue v;
	char text[DOUBLE_SHORTEST_DECIMAL_LEN];

	/* The shortest text that reads back as the same number, whatever the session's settings. */
	double_to_shortest_decimal_buf(number, text);
	if (!has || !isfinite(number))
	{
		push_text(state, key, has ? text : NULL);
		return;
	}
	v.type = jbvString;
	v.val.string.val = pstrdup(key);
	v.val.string.len = strlen(key);
	pushJsonbValue(state, WJB_KEY, &v);
	v.type = jbvNumeric;
	v.val.numeric = DatumGetNumeric(DirectFunctionCall3(
		numeric_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	pushJsonbValue(state, WJB_VALUE, &v);
}

/*
 * push_part: what a measure contributes, as an object.
 */
static void
push_part(JsonbParseState **state, const CsMeasure *measure, const CsPart *part, bool scored)
{
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_text(state, "measure", measure->name);
	push_text(state, "metric", measure->metric);
	push_float(state, "value", part->has_value || part->out_of_range, part->value);
	push_float(state, "points", part->counts, part->points);
	push_float(state, "weight", true, scored ? part->share : measure->share);
	push_float(state, "contribution", scored, part->contribution / CS_GRID);
	push_float(state, "lost", scored, part->lost / CS_GRID);
	push_text(state, "reason", part_reason(measure, part, scored));
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/*
 * push_cap: what a cap takes, as an object like those of measures.
 */
static void
push_cap(JsonbParseState **state, const CsCap *cap, int64 taken)
{
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_text(state, "measure", "(cap)");
	push_text(state, "metric", NULL);
	push_float(state, "value", true, cap->at_most / CS_GRID);
	push_float(state, "points", false, 0);
	push_float(state, "weight", false, 0);
	push_float(state, "contribution", true, -taken / CS_GRID);
	push_float(state, "lost", true, taken / CS_GRID);
	push_text(state, "reason", cap_reason(cap));
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/*
 * cs.score_detail(metrics jsonb, card text): one row: score, band, coverage,
 * reason, contributions.
 */
Datum
cs_score_detail(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CsKeptCard *kept = kept_card(fcinfo);
	CsExtra extra;
	CsScore score = score_metrics(kept, PG_GETARG_JSONB_P(0), &extra);
	bool scored = score.reason == CS_SCORED;
	const char *reason = cs_score_reason_name(score.reason);
	JsonbParseState *state = NULL;
	Datum out[5] = {0};
	bool nulls[5] = {false};

	InitMaterializedSRF(fcinfo, 0);
	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < kept->card->nmeasures; i++)
		push_part(&state, &kept->card->measures[i], &kept->parts[i], scored);
	if (score.score < score.uncapped)
		push_cap(&state, &kept->card->caps[extra.cap], score.uncapped - score.score);

	out[0] = Float8GetDatum(score.score / CS_GRID);
	nulls[0] = !scored;
	nulls[1] = !scored;
	if (scored)
		out[1] = CStringGetTextDatum(
			cs_band_name(cs_band(kept->card, score.score / CS_GRID, CS_BAND_NONE)));
	out[2] = Float8GetDatum(score.coverage);
	nulls[3] = reason == NULL;
	if (reason)
		out[3] = CStringGetTextDatum(reason);
	out[4] = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL)));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, out, nulls);
	return (Datum) 0;
}
