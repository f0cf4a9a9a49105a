/*
 * error.c
 *		Near matches, for hints.
 */
#include "cs_ext.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/varlena.h"

PG_FUNCTION_INFO_V1(cs_nearest_sql);

/*
 * cs_nearest: least edit distance, at most a third of the word, or two (two
 * letters changed places; one where the word is shorter than four), the first
 * of equals.
 */
char *
cs_nearest(const char *word, List *candidates)
{
	int len = strlen(word);
	int best = Max(len >= 4 ? 2 : 1, len / 3) + 1;
	char *nearest = NULL;
	ListCell *lc;

	if (len == 0 || len > 63)
		return NULL;
	foreach (lc, candidates)
	{
		char *candidate = lfirst(lc);
		int clen = strlen(candidate);
		int d;

		if (clen > 63 || abs(clen - len) >= best)
			continue;
		d = varstr_levenshtein_less_equal(word, len, candidate, clen, 1, 1, 1, best, true);
		if (d < best)
		{
			best = d;
			nearest = candidate;
		}
	}
	return nearest;
}

int
cs_errhint_nearest(const char *word, List *candidates)
{
	char *near = cs_nearest(word, candidates);

	if (near != NULL)
		errhint("Did you mean \"%s\"?", near);
	return 0;
}

Datum
cs_nearest_sql(PG_FUNCTION_ARGS)
{
	List *candidates = NIL;
	Datum *elems;
	bool *nulls;
	int n;
	char *near;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &elems, &nulls,
					  &n);
	for (int i = 0; i < n; i++)
		if (!nulls[i])
			candidates = lappend(candidates, TextDatumGetCString(elems[i]));
	near = cs_nearest(text_to_cstring(PG_GETARG_TEXT_PP(0)), candidates);
	if (near == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(near));
}
