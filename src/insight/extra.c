/*
 * extra.c
 *		What a score depends on beside the values by slot, as JSON and back.
 *
 * In: what the stage found out for a customer.  Out: health_inputs, which stands
 * beside the values in cs_internal.state and cs_internal.metric_history; and
 * from there again what is needed to score those values once more.
 * Form: {"cap": "the rule that holds and caps lowest"}; what is not there says
 * nothing, and NULL is all of it.
 */
#include "postgres.h"

#include "insight/scorecard.h"

/*
 * push_key, push_text: into the object that is being built.
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

/*
 * cs_extra_write: see scorecard.h.
 */
Jsonb *
cs_extra_write(const CsScorecard *card, const CsExtra *extra)
{
	JsonbParseState *state = NULL;

	if (extra->cap < 0)
		return NULL;
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_key(&state, "cap");
	push_text(&state, card->caps[extra->cap].rule);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/*
 * cs_extra_read: see scorecard.h.
 */
void
cs_extra_read(const CsScorecard *card, Jsonb *json, CsExtra *extra)
{
	JsonbValue found;

	extra->cap = -1;
	if (json == NULL || !JB_ROOT_IS_OBJECT(json))
		return;
	if (getKeyJsonValueFromContainer(&json->root, "cap", 3, &found) != NULL &&
		found.type == jbvString)
		for (int i = 0; i < card->ncaps && extra->cap < 0; i++)
			if ((int) strlen(card->caps[i].rule) == found.val.string.len &&
				memcmp(card->caps[i].rule, found.val.string.val, found.val.string.len) == 0)
				extra->cap = i;
}
