/*
 * texts.h
 *		Arrays of texts, of ids above all (texts.c).
 */
#ifndef CS_TEXTS_H
#define CS_TEXTS_H

#include "cs_ext.h"

/* A text[] of these texts, none of them NULL; of these strings. */
extern Datum cs_text_array(Datum *texts, int n);
extern Datum cs_strings_array(char *const *strings, int n);

/* The elements of a text[] without NULLs, and how many there are; as strings, palloc'd. */
extern Datum *cs_text_elements(Datum array, int *n);
extern char **cs_text_strings(Datum array, int *n);

/* The place of a string among sorted ones, -1: it is none of them. */
extern int cs_find_string(const char *string, char *const *sorted, int n);

/* The order of texts by their bytes, as COLLATE "C" has it. */
static inline int
cs_compare_texts(Datum a, Datum b)
{
	text *x = DatumGetTextPP(a);
	text *y = DatumGetTextPP(b);
	int nx = VARSIZE_ANY_EXHDR(x);
	int ny = VARSIZE_ANY_EXHDR(y);
	int c = memcmp(VARDATA_ANY(x), VARDATA_ANY(y), Min(nx, ny));

	return c != 0 ? c : nx - ny;
}

#endif /* CS_TEXTS_H */
