/*
 * texts.c
 *		Arrays of texts, of ids above all: made, taken apart, looked through.
 */
#include "cs_ext.h"

#include "catalog/pg_type.h"
#include "core/texts.h"
#include "utils/array.h"
#include "utils/builtins.h"

/*
 * cs_text_array, cs_strings_array, cs_text_elements, cs_text_strings: see texts.h.
 */
Datum
cs_text_array(Datum *texts, int n)
{
	return PointerGetDatum(construct_array(texts, n, TEXTOID, -1, false, TYPALIGN_INT));
}

Datum
cs_strings_array(char *const *strings, int n)
{
	Datum *texts = palloc(sizeof(Datum) * (n + 1));

	for (int i = 0; i < n; i++)
		texts[i] = CStringGetTextDatum(strings[i]);
	return cs_text_array(texts, n);
}

Datum *
cs_text_elements(Datum array, int *n)
{
	Datum *texts;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, &texts, NULL, n);
	return texts;
}

char **
cs_text_strings(Datum array, int *n)
{
	Datum *texts = cs_text_elements(array, n);
	char **strings = palloc(sizeof(char *) * (*n + 1));

	for (int i = 0; i < *n; i++)
		strings[i] = TextDatumGetCString(texts[i]);
	return strings;
}

/*
 * cs_find_string: see texts.h.
 */
int
cs_find_string(const char *string, char *const *sorted, int n)
{
	char *const *found = bsearch(&string, sorted, n, sizeof(char *), pg_qsort_strcmp);

	return found ? (int) (found - sorted) : -1;
}
