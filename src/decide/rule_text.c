/*
 * rule_text.c
 *		Names in the texts of rules, kept for the session.
 *
 * A text that calls no function of rules is what it is, and its names follow
 * from it alone; so parsing a thousand rules for one customer is done once.
 * What a call means is looked up each time and not kept here.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "decide/rule_text.h"

typedef struct Text
{
	char *text; /* hash key */
	List *names;
} Text;

#define MAX_TEXTS 5000

static MemoryContext texts_memory = NULL;
static HTAB *texts = NULL;

static uint32
text_hash(const void *key, Size size)
{
	const char *text = *(char *const *) key;

	return hash_bytes((const unsigned char *) text, strlen(text));
}

static int
text_match(const void *a, const void *b, Size size)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/*
 * cs_begin_rule_texts: see rule_text.h.
 */
void
cs_begin_rule_texts(void)
{
	HASHCTL ctl = {.keysize = sizeof(char *),
				   .entrysize = sizeof(Text),
				   .hash = text_hash,
				   .match = text_match};

	if (texts != NULL && hash_get_num_entries(texts) < MAX_TEXTS)
		return;
	texts = NULL;
	if (texts_memory == NULL)
		texts_memory =
			AllocSetContextCreate(TopMemoryContext, "cs_ext rules", ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(texts_memory);
	ctl.hcxt = texts_memory;
	texts = hash_create("cs_ext rules", 256, &ctl,
						HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}

/*
 * cs_keep_rule_text: see rule_text.h.
 */
void
cs_keep_rule_text(const char *text, List *names)
{
	MemoryContext old;
	Text fresh = {0};
	ListCell *lc;

	if (texts == NULL)
		cs_begin_rule_texts();
	old = MemoryContextSwitchTo(texts_memory);
	fresh.text = pstrdup(text);
	foreach (lc, names)
		fresh.names = lappend(fresh.names, pstrdup(lfirst(lc)));
	*(Text *) hash_search(texts, &fresh.text, HASH_ENTER, NULL) = fresh;
	MemoryContextSwitchTo(old);
}

/*
 * cs_rule_text_names: see rule_text.h.
 */
bool
cs_rule_text_names(const char *text, List **names)
{
	char *key = unconstify(char *, text);
	Text *found = texts ? hash_search(texts, &key, HASH_FIND, NULL) : NULL;

	if (found == NULL)
		return false;
	*names = found->names;
	return true;
}
