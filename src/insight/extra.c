/*
 * extra.c
 *		What a score depends on beside the values by slot, as JSON and back.
 *
 * In: what the stage found out for a customer.  Out: health_inputs, which stands
 * beside the values in cs_internal.state and cs_internal.metric_history; and
 * from there again what is needed to score those values once more.
 *
 * Form, each key only where it says something:
 *	cap		  the rule that holds and caps lowest
 *	reference local day of the reference distributions
 *	within	  {"dimension": "segment"}: whom the customer was compared with
 *	carried	  {"measure": value}: values of before in the place of missing ones
 */
#include "postgres.h"

#include <math.h>

#include "common/shortest_dec.h"
#include "utils/numeric.h"

#include "insight/scorecard.h"

/*
 * push_key, push_text, push_number: into the object that is being built.
 */
static void
push_key(JsonbParseState **state, const char *key)
{
	JsonbValue v;

	v.type = jbvString;
	v.val.string.val = pstrdup(key);
	v.val.string.len = strlen(key);
	pushJsonbValue(state, WJB_KEY, &v);
}

static void
push_text(JsonbParseState **state, const char *text)
{
	JsonbValue v;

	v.type = jbvString;
	v.val.string.val = pstrdup(text);
	v.val.string.len = strlen(text);
	pushJsonbValue(state, WJB_VALUE, &v);
}

static void
push_number(JsonbParseState **state, float8 number)
{
	char text[DOUBLE_SHORTEST_DECIMAL_LEN];
	JsonbValue v;

	/* The shortest text that reads back as the same number. */
	double_to_shortest_decimal_buf(number, text);
	v.type = jbvNumeric;
	v.val.numeric = DatumGetNumeric(DirectFunctionCall3(
		numeric_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	pushJsonbValue(state, WJB_VALUE, &v);
}

/*
 * carried_any: does any measure use a value of before?
 */
static bool
carried_any(const CsScorecard *card, const CsExtra *extra)
{
	for (int i = 0; extra->carried && i < card->nmeasures; i++)
		if (!isnan(extra->carried[i]))
			return true;
	return false;
}

/*
 * cs_extra_write: see scorecard.h.
 */
Jsonb *
cs_extra_write(const CsScorecard *card, const CsExtra *extra)
{
	JsonbParseState *state = NULL;
	bool carried = carried_any(card, extra);

	if (extra->cap < 0 && !extra->compares && !carried)
		return NULL;
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (extra->cap >= 0)
	{
		push_key(&state, "cap");
		push_text(&state, card->caps[extra->cap].rule);
	}
	if (extra->compares)
	{
		push_key(&state, "reference");
		push_text(&state,
				  DatumGetCString(DirectFunctionCall1(date_out, DateADTGetDatum(extra->day))));
		push_key(&state, "within");
		pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		for (int i = 0; i < card->nmeasures; i++)
			if (extra->references[i] != NULL && card->measures[i].within != NULL)
			{
				push_key(&state, card->measures[i].within);
				push_text(&state, extra->references[i]->segment);
			}
		pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	if (carried)
	{
		push_key(&state, "carried");
		pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		for (int i = 0; i < card->nmeasures; i++)
			if (!isnan(extra->carried[i]))
			{
				push_key(&state, card->measures[i].name);
				push_number(&state, extra->carried[i]);
			}
		pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/*
 * text_key: a text of an object, NULL where it is none.
 */
static char *
text_key(Jsonb *json, const char *key)
{
	JsonbValue found;

	if (json == NULL || !JB_ROOT_IS_OBJECT(json) ||
		getKeyJsonValueFromContainer(&json->root, key, strlen(key), &found) == NULL ||
		found.type != jbvString)
		return NULL;
	return pnstrdup(found.val.string.val, found.val.string.len);
}

/*
 * object_key: an object in an object, NULL where it is none.
 */
static JsonbContainer *
object_key(Jsonb *json, const char *key)
{
	JsonbValue found;

	if (json == NULL || !JB_ROOT_IS_OBJECT(json) ||
		getKeyJsonValueFromContainer(&json->root, key, strlen(key), &found) == NULL ||
		found.type != jbvBinary || !JsonContainerIsObject(found.val.binary.data))
		return NULL;
	return found.val.binary.data;
}

/*
 * cs_extra_read: see scorecard.h.
 */
void
cs_extra_read(CsScorecard *card, Jsonb *json, DateADT today, CsExtra *extra)
{
	char *cap = text_key(json, "cap");
	char *day = text_key(json, "reference");
	JsonbContainer *within = object_key(json, "within");
	JsonbContainer *carried = object_key(json, "carried");

	memset(extra, 0, sizeof(*extra));
	extra->cap = -1;
	for (int i = 0; cap && i < card->ncaps && extra->cap < 0; i++)
		if (strcmp(card->caps[i].rule, cap) == 0)
			extra->cap = i;

	if (day != NULL)
		today = DatumGetDateADT(DirectFunctionCall1(date_in, CStringGetDatum(day)));
	cs_references_load(list_make1(card), today);
	cs_extra_compare(card, within, today, extra);

	if (carried == NULL)
		return;
	extra->carried = palloc(sizeof(float8) * (card->nmeasures + 1));
	for (int i = 0; i < card->nmeasures; i++)
	{
		JsonbValue found;

		extra->carried[i] = NAN;
		if (getKeyJsonValueFromContainer(carried, card->measures[i].name,
										 strlen(card->measures[i].name), &found) != NULL &&
			found.type == jbvNumeric)
			extra->carried[i] = DatumGetFloat8(
				DirectFunctionCall1(numeric_float8, NumericGetDatum(found.val.numeric)));
	}
}
