/*
 * change_log.c
 *		What capture has noted, taken from the log and made pending.
 *
 * In: rows of cs_internal.change_log, in the order in which they were written.
 * Out: cs_internal.pending; sources that are to be read whole; corrections below a
 * seal; how far the change reaches, for the extent of its source.
 *
 * Rows are read and deleted where they stand, and those of one source and key
 * become one: as a statement (DELETE, RETURNING, GROUP BY, ORDER BY) that was a
 * sixteenth of a refresh that touches everybody.
 *
 * Cases.
 * Crash, abort: the log is as it was.
 * Rows written meanwhile: on no snapshot of this step; the next run takes them.
 * Two who take rows: nobody does without the refresher's turn.
 */
#include "cs_ext.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/bulk.h"
#include "core/rewrite.h"
#include "core/texts.h"
#include "facts/source_kind.h"

/* Rows that are handled at a time, which bounds memory. */
#define CHUNK 50000

/* A source and key: the same as in a row of the log, what is not known filled in. */
typedef struct Key
{
	const char *source;
	const char *key; /* NULL: the whole source */
} Key;

typedef struct Change
{
	Key key;
	TimestampTz since;
	TimestampTz until;
	int64 refused; /* 0: none */
	char status;
} Change;

static inline uint32
hash_key(Key k)
{
	uint32 source = hash_bytes((const unsigned char *) k.source, strlen(k.source));

	return k.key == NULL
			   ? source
			   : hash_combine(source, hash_bytes((const unsigned char *) k.key, strlen(k.key)));
}

static inline bool
same_key(Key a, Key b)
{
	if ((a.key == NULL) != (b.key == NULL) || (a.key != NULL && strcmp(a.key, b.key) != 0))
		return false;
	return a.source == b.source || strcmp(a.source, b.source) == 0;
}

#define SH_PREFIX changes
#define SH_ELEMENT_TYPE Change
#define SH_KEY_TYPE Key
#define SH_KEY key
#define SH_HASH_KEY(tb, k) hash_key(k)
#define SH_EQUAL(tb, a, b) same_key(a, b)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* By source and key, both by bytes; the whole source first. */
static int
compare_changes(const void *a, const void *b)
{
	const Change *x = a;
	const Change *y = b;
	int c = strcmp(x->key.source, y->key.source);

	if (c != 0)
		return c;
	if (x->key.key == NULL || y->key.key == NULL)
		return (x->key.key != NULL) - (y->key.key != NULL);
	return strcmp(x->key.key, y->key.key);
}

/*
 * Rows of the log, deleted, as one change for each source and key, in order.
 */
static Change *
take_rows(int *n)
{
	Relation rel = table_open(
		get_relname_relid("change_log", get_namespace_oid("cs_internal", false)), RowExclusiveLock);
	changes_hash *hash = changes_create(CurrentMemoryContext, 1024, NULL);
	ItemPointerData *places = palloc(sizeof(ItemPointerData) * CHUNK);
	const char *last_source = "";
	changes_iterator iterator;
	TupleTableSlot *slot;
	TableScanDesc scan;
	Change *result;
	Change *change;
	int nrows = 0;

	cs_push_snapshot();
	slot = table_slot_create(rel, NULL);
	scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	while (nrows < CHUNK && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		Datum *values = slot->tts_values;
		bool *nulls = slot->tts_isnull;
		TimestampTz since;
		TimestampTz until;
		text *source;
		bool found;
		Key key;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		places[nrows++] = slot->tts_tid;
		source = DatumGetTextPP(values[0]);
		if (strlen(last_source) != VARSIZE_ANY_EXHDR(source) ||
			memcmp(last_source, VARDATA_ANY(source), VARSIZE_ANY_EXHDR(source)) != 0)
			last_source = text_to_cstring(source);
		key.source = last_source;
		key.key = nulls[1] ? NULL : TextDatumGetCString(values[1]);
		since = nulls[2] ? DT_NOBEGIN : DatumGetTimestampTz(values[2]);
		until = nulls[3] ? DT_NOEND : DatumGetTimestampTz(values[3]);
		change = changes_insert(hash, key, &found);
		change->since = found ? Min(change->since, since) : since;
		change->until = found ? Max(change->until, until) : until;
		change->refused = (found ? change->refused : 0) + (nulls[4] ? 0 : DatumGetInt64(values[4]));
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	for (int i = 0; i < nrows; i++)
	{
		CHECK_FOR_INTERRUPTS();
		cs_row_gone(rel, &places[i]);
	}
	PopActiveSnapshot();
	table_close(rel, NoLock);
	CommandCounterIncrement();
	pfree(places);

	*n = 0;
	result = palloc(sizeof(Change) * (hash->members + 1));
	changes_start_iterate(hash, &iterator);
	while ((change = changes_iterate(hash, &iterator)) != NULL)
		result[(*n)++] = *change;
	changes_destroy(hash);
	qsort(result, *n, sizeof(Change), compare_changes);
	return result;
}

/*
 * show: the changes as a relation (source, customer_key, since, until, refused).
 */
static CsResult *
show(const Change *all, int n)
{
	CsResult *rows = palloc0(sizeof(CsResult));

	rows->desc = CreateTemplateTupleDesc(5);
	TupleDescInitEntry(rows->desc, 1, "source", TEXTOID, -1, 0);
	TupleDescInitEntry(rows->desc, 2, "customer_key", TEXTOID, -1, 0);
	TupleDescInitEntryCollation(rows->desc, 2, C_COLLATION_OID);
	TupleDescInitEntry(rows->desc, 3, "since", TIMESTAMPTZOID, -1, 0);
	TupleDescInitEntry(rows->desc, 4, "until", TIMESTAMPTZOID, -1, 0);
	TupleDescInitEntry(rows->desc, 5, "refused", INT8OID, -1, 0);
	rows->store = tuplestore_begin_heap(true, false, CS_RESULT_MEM);
	rows->nrows = n;
	for (int i = 0; i < n; i++)
	{
		const Change *c = &all[i];
		bool whole = c->key.key == NULL;
		Datum values[5] = {CStringGetTextDatum(c->key.source),
						   whole ? (Datum) 0 : CStringGetTextDatum(c->key.key),
						   TimestampTzGetDatum(c->since), TimestampTzGetDatum(c->until),
						   Int64GetDatum(c->refused)};
		bool nulls[5] = {false, whole, false, false, c->refused == 0};

		tuplestore_putvalues(rows->store, rows->desc, values, nulls);
		pfree(DatumGetPointer(values[0]));
		if (!whole)
			pfree(DatumGetPointer(values[1]));
	}
	return rows;
}

/* A customer of the source, or with '' rows without one, where something changed. */
static bool
is_of(const Change *c, const char *source, bool customer)
{
	return c->key.key != NULL && (*c->key.key != '\0') == customer && c->since <= c->until &&
		   strcmp(c->key.source, source) == 0;
}

static bool
any_of(const Change *all, int n, const char *source, bool customer)
{
	for (int i = 0; i < n; i++)
		if (is_of(&all[i], source, customer))
			return true;
	return false;
}

/*
 * cs_is_named: see source_kind.h.
 */
bool
cs_is_named(List *names, const char *name)
{
	ListCell *lc;

	foreach (lc, names)
	{
		if (strcmp(lfirst(lc), name) == 0)
			return true;
	}
	return false;
}

/*
 * users_to_customers: change log rows of a source that maps user_id: all
 * customers that the users ever belonged to are pending.  Users that no user
 * source knows are found when their user row appears.
 */
static void
users_to_customers(const CsSource *source)
{
	ListCell *lc;
	Datum ids;
	bool isnull;

	cs_exec("SELECT array_agg(customer_key) FROM changes WHERE source = $1 AND customer_key <> '' "
			"AND since <= until",
			CS_ARGS(cs_text(source->name)));
	ids = cs_value_datum(&isnull);
	if (isnull)
		return;
	ids = PointerGetDatum(DatumGetArrayTypePCopy(ids));
	foreach (lc, CS_MAPPING(source)->users)
	{
		CsSource *users = lfirst(lc);
		CsMapped *user_id = cs_mapped(users, "user_id");
		bool native = user_id->attnum > 0 && OidIsValid(user_id->type) &&
					  cs_native_key_type(getBaseType(user_id->type));
		CsUserQuery query = {0};
		ErrorData *error = NULL;
		CsResult *rows;

		cs_user_keys(native ? getBaseType(user_id->type) : TEXTOID, ids, &query);
		query.sql = psprintf("SELECT customer_id, user_id FROM (%s) u WHERE %s = ANY ($1)",
							 cs_source_rows(users, false, false),
							 native ? "user_key" : "(user_id COLLATE \"C\")");
		query.search_path = users->search_path;
		rows = cs_user_query(&query, &error);
		if (rows == NULL)
		{
			cs_source_error(users, error->message);
			cs_source_failed(source, error->message);
			continue;
		}
		cs_register("members", rows);
		cs_exec("INSERT INTO cs_internal.pending (source, customer_id, since, until) SELECT $1, "
				"m.customer_id, min(c.since), max(c.until) FROM members m JOIN changes c ON "
				"c.source = $1 "
				"AND c.customer_key = m.user_id AND c.since <= c.until GROUP BY "
				"m.customer_id" CS_UPSERT_PENDING,
				CS_ARGS(cs_text(source->name)));
		cs_unregister("members");
		tuplestore_end(rows->store);
	}
}

/*
 * customers_pending: change log rows of a source that maps customer_id.  Mostly
 * nobody is pending for it yet: then they are written in order and many at a
 * time.  Only who has the refresher's turn writes here.
 */
static void
customers_pending(const CsSource *source, const Change *all, int n)
{
	CsBulk *bulk;
	Datum name;

	if (cs_exec("SELECT FROM cs_internal.pending WHERE source = $1 LIMIT 1",
				CS_ARGS(cs_text(source->name))) > 0)
	{
		cs_exec("INSERT INTO cs_internal.pending (source, customer_id, since, until) SELECT "
				"source, customer_key, since, until FROM changes WHERE source = $1 AND "
				"customer_key <> '' AND since <= until" CS_UPSERT_PENDING,
				CS_ARGS(cs_text(source->name)));
		return;
	}
	name = CStringGetTextDatum(source->name);
	bulk = cs_bulk_begin("pending", RowExclusiveLock, true);
	for (int i = 0; i < n; i++)
	{
		TupleTableSlot *slot;
		Datum id;

		CHECK_FOR_INTERRUPTS();
		if (!is_of(&all[i], source->name, true))
			continue;
		id = CStringGetTextDatum(all[i].key.key);
		slot = cs_bulk_slot(bulk);
		slot->tts_values[0] = name;
		slot->tts_values[1] = id;
		slot->tts_values[2] = TimestampTzGetDatum(all[i].since);
		slot->tts_values[3] = TimestampTzGetDatum(all[i].until);
		memset(slot->tts_isnull, 0, sizeof(bool) * 4);
		cs_bulk_put(bulk, 64);
		pfree(DatumGetPointer(id));
	}
	(void) cs_bulk_end(bulk);
}

/*
 * cs_take_changes: see source_kind.h.
 */
bool
cs_take_changes(List *sources, List **whole)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext chunk = AllocSetContextCreate(context, "cs_ext changes", ALLOCSET_DEFAULT_SIZES);
	CsResult *rows;
	Change *all;
	bool definitions = false;
	bool refused = false;
	ListCell *lc;
	int n;

	MemoryContextSwitchTo(chunk);
	all = take_rows(&n);
	MemoryContextSwitchTo(context);
	if (n == 0)
	{
		MemoryContextDelete(chunk);
		return false;
	}
	for (int i = 0; i < n; i++)
	{
		definitions |= strcmp(all[i].key.source, "*") == 0;
		refused |= all[i].refused > 0;
		if (all[i].key.key == NULL && strcmp(all[i].key.source, "*") != 0)
			*whole = lappend(*whole, pstrdup(all[i].key.source));
	}
	rows = show(all, n);
	cs_register("changes", rows);
	if (definitions)
		cs_exec("INSERT INTO cs_internal.dirty (customer_id, marked_at, cause) SELECT customer_id, "
				"clock_timestamp(), 'definition' FROM cs_internal.customer ON CONFLICT DO NOTHING",
				CS_NO_ARGS);
	if (refused)
		cs_exec("UPDATE cs_internal.seal s SET corrections = s.corrections + c.n, corrected_at = "
				"clock_timestamp() FROM (SELECT source, sum(refused)::bigint AS n FROM changes "
				"GROUP BY source) c WHERE s.source = c.source AND c.n > 0",
				CS_NO_ARGS);
	cs_exec("UPDATE cs_internal.source_state t SET changed_since = least(t.changed_since, "
			"c.since), changed_until = greatest(t.changed_until, c.until) FROM (SELECT source, "
			"min(since) AS since, max(until) AS until FROM changes WHERE since <= until GROUP BY "
			"source) c WHERE c.source = t.source",
			CS_NO_ARGS);
	foreach (lc, sources)
	{
		CsSource *source = lfirst(lc);

		if (!any_of(all, n, source->name, true))
			continue;
		if (source->by_user)
			users_to_customers(source);
		else
			customers_pending(source, all, n);
	}
	foreach (lc, sources)
	{
		CsSource *source = lfirst(lc);

		if (any_of(all, n, source->name, false))
			cs_count_without_customer(source);
	}
	cs_unregister("changes");
	tuplestore_end(rows->store);
	MemoryContextDelete(chunk);
	return true;
}
