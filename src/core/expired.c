/*
 * expired.c
 *		SQL of definitions that ran out of time, remembered for the session.
 *
 * A metric or rule whose SQL never ends costs cs_ext.user_sql_timeout each time
 * it is tried: with the others, alone, for each batch.  Once it was tried alone
 * it is left out for twenty times as long as its time, so that it takes a small
 * part of a worker's; its status says the same as when it was tried.
 *
 * In: what the stages of evaluate found.  Out: whether they try.
 *
 * Cases.
 * The expression or the setting is changed: another entry, tried at once.
 * What it reads was mended (an index): CALL cs.refresh() and a job of kind
 * refresh try at once; a worker after the pause.
 * The session ends: forgotten; a worker lives ten minutes at most.
 * Previews and what-if evaluations: neither ask nor note.
 */
#include "cs_ext.h"

#include "common/hashfn.h"
#include "utils/hsearch.h"

#include "core/core.h"
#include "core/expired.h"

#define REST_TIMES 20

/* More than that are not remembered: they begin anew. */
#define MAX_ENTRIES 1000

typedef struct Entry
{
	uint64 hash;
	TimestampTz until;
} Entry;

static HTAB *entries = NULL;

static uint64
hash_of(const char *table, const char *key, const char *sql)
{
	char *text = psprintf("%s\n%s\n%d\n%s", table, key, cs_user_sql_timeout, sql);
	uint64 hash = hash_bytes_extended((unsigned char *) text, strlen(text), 0);

	pfree(text);
	return hash;
}

/*
 * cs_expired: see expired.h.
 */
ErrorData *
cs_expired(const char *table, const char *key, const char *sql)
{
	uint64 hash;
	Entry *entry;
	ErrorData *error;

	if (entries == NULL || hash_get_num_entries(entries) == 0)
		return NULL;
	hash = hash_of(table, key, sql);
	entry = hash_search(entries, &hash, HASH_FIND, NULL);
	if (entry == NULL)
		return NULL;
	if (entry->until <= GetCurrentTimestamp())
	{
		hash_search(entries, &hash, HASH_REMOVE, NULL);
		return NULL;
	}
	error = palloc0(sizeof(ErrorData));
	error->elevel = ERROR;
	error->sqlerrcode = ERRCODE_QUERY_CANCELED;
	error->message = cs_timeout_message();
	return error;
}

/*
 * cs_note_expired: see expired.h.
 */
void
cs_note_expired(const char *table, const char *key, const char *sql, const ErrorData *error)
{
	uint64 hash;
	Entry *entry;

	if (error == NULL || error->sqlerrcode != ERRCODE_QUERY_CANCELED)
		return;
	if (entries != NULL && hash_get_num_entries(entries) >= MAX_ENTRIES)
		cs_forget_expired();
	if (entries == NULL)
	{
		HASHCTL ctl = {0};

		ctl.keysize = sizeof(uint64);
		ctl.entrysize = sizeof(Entry);
		entries = hash_create("cs_ext expired SQL", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	hash = hash_of(table, key, sql);
	entry = hash_search(entries, &hash, HASH_ENTER, NULL);
	entry->until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
											   (int64) REST_TIMES * cs_user_sql_timeout);
}

/*
 * cs_forget_expired: see expired.h.
 */
void
cs_forget_expired(void)
{
	if (entries != NULL)
		hash_destroy(entries);
	entries = NULL;
}
