/*
 * capture.c
 *		How a change of a fact is noticed: the trigger on mapped tables, and what
 *		a transaction notes until it commits.
 *
 * In: row triggers (insert, update, delete; also by COPY, ON CONFLICT, logical
 * apply: ENABLE ALWAYS) and a statement trigger (truncate).  Each notes
 * (source, customer key, least and greatest anchor) in memory.  Out: rows of
 * cs_internal.change_log, written just before the commit or the prepare, with
 * no SQL in between; after the commit the scheduler is woken.
 *
 * Noting too much is harmless: a customer is looked at again and nothing
 * changed.  Noting too little is a wrong number for ever.  So:
 *
 *	rollback			what is in memory is forgotten; change_log rows that were
 *						already written roll back with the facts.
 *	rollback to a		the notes stay (too much, harmless): the rows they stand
 *	savepoint			for may have been noted before the savepoint too.
 *	many customers		10,000 notes are written out and forgotten, but only at
 *						the outermost level.  Inside a subtransaction the written
 *						rows would vanish with it, also for facts changed before
 *						it; there the source's notes become one "whole source".
 *	prepare				written with the prepared transaction; COMMIT PREPARED in
 *						another session makes them visible, nobody is woken.
 *	any doubt			(a column is gone, the key is long, the extension's table
 *						is gone) the whole source is noted or nothing is written;
 *						the writer's statement never fails because of us.
 *	error in the log	disk full while writing the log fails the transaction: a
 *						change that can't be noted must not be committed.
 *
 * customer_key in the log is the outside id; '' stands for rows without one,
 * NULL for the whole source.  Where user_id is mapped it is the user's id.
 */
#include "cs_ext.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/uuid.h"

#include "facts/source.h"

#define MAX_NOTES 10000
#define MAX_KEY 500

/* What is noted of one customer of one source. */
typedef struct NoteKey
{
	int source; /* index into sources */
	const char *key;
} NoteKey;

typedef struct Note
{
	NoteKey key;
	TimestampTz since;
	TimestampTz until;
	int64 refused; /* rows written below the seal */
} Note;

typedef struct NotedSource
{
	char *name;
	bool whole;
	int nnotes;
} NotedSource;

/* All of it lives in one context, deleted at the end of the transaction. */
static MemoryContext context = NULL;
static HTAB *notes = NULL;
static NotedSource *sources = NULL;
static int nsources = 0;
static int sources_size = 0;
static bool logged = false; /* change_log rows were written in this transaction */

/* The last note: consecutive rows are often of one customer. */
static Note *last_note = NULL;

void (*cs_commit_hook)(void) = NULL;

PG_FUNCTION_INFO_V1(cs_capture);

/* ---- notes ---------------------------------------------------------------- */

static uint32
note_hash(const void *key, Size keysize)
{
	const NoteKey *k = key;

	return hash_combine(hash_bytes((const unsigned char *) k->key, strlen(k->key)), k->source);
}

static int
note_match(const void *a, const void *b, Size keysize)
{
	const NoteKey *x = a;
	const NoteKey *y = b;

	return x->source == y->source && strcmp(x->key, y->key) == 0 ? 0 : 1;
}

static void
forget(void)
{
	MemoryContext old = context;

	context = NULL;
	notes = NULL;
	sources = NULL;
	nsources = sources_size = 0;
	last_note = NULL;
	if (old != NULL)
		MemoryContextDelete(old);
}

static void
prepare_notes(void)
{
	HASHCTL ctl = {0};

	if (context != NULL)
		return;
	context =
		AllocSetContextCreate(TopTransactionContext, "cs_ext capture", ALLOCSET_DEFAULT_SIZES);
	ctl.keysize = sizeof(NoteKey);
	ctl.entrysize = sizeof(Note);
	ctl.hash = note_hash;
	ctl.match = note_match;
	ctl.hcxt = context;
	notes = hash_create("cs_ext notes", 256, &ctl,
						HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}

/*
 * source_index: of the source's name, made when it is new.
 */
static int
source_index(const char *name)
{
	for (int i = 0; i < nsources; i++)
	{
		if (strcmp(sources[i].name, name) == 0)
			return i;
	}
	if (nsources == sources_size)
	{
		sources_size = sources_size ? sources_size * 2 : 8;
		sources = sources ? repalloc(sources, sizeof(NotedSource) * sources_size)
						  : MemoryContextAlloc(context, sizeof(NotedSource) * sources_size);
	}
	sources[nsources].name = MemoryContextStrdup(context, name);
	sources[nsources].whole = false;
	sources[nsources].nnotes = 0;
	return nsources++;
}

/*
 * collapse: the source with most notes becomes one "whole source".
 */
static void
collapse(void)
{
	HASH_SEQ_STATUS scan;
	Note *note;
	int most = 0;

	for (int i = 1; i < nsources; i++)
	{
		if (sources[i].nnotes > sources[most].nnotes)
			most = i;
	}
	hash_seq_init(&scan, notes);
	while ((note = hash_seq_search(&scan)) != NULL)
	{
		if (note->key.source == most)
			hash_search(notes, &note->key, HASH_REMOVE, NULL);
	}
	sources[most].whole = true;
	sources[most].nnotes = 0;
	last_note = NULL;
}

/*
 * add_note: see cs_capture_note(); refused: rows written below the seal, which are
 * counted, but not of a source that is noted whole.
 */
static void
add_note(const char *source, const char *key, TimestampTz since, TimestampTz until, int64 refused)
{
	NoteKey k;
	Note *note = last_note;
	bool found;

	prepare_notes();
	if (note == NULL || key == NULL || strcmp(note->key.key, key) != 0 ||
		strcmp(sources[note->key.source].name, source) != 0)
	{
		k.source = source_index(source);
		k.key = key;
		if (sources[k.source].whole)
			return;
		if (key == NULL || strlen(key) > MAX_KEY)
		{
			/* Its notes stay in the hash; writing skips them. */
			sources[k.source].whole = true;
			last_note = NULL;
			return;
		}
		note = hash_search(notes, &k, HASH_ENTER, &found);
		if (!found)
		{
			note->key.key = MemoryContextStrdup(context, key);
			note->since = since;
			note->until = until;
			note->refused = 0;
			sources[k.source].nnotes++;
		}
		last_note = note;
	}
	if (since < note->since)
		note->since = since;
	if (until > note->until)
		note->until = until;
	note->refused += refused;

	if (hash_get_num_entries(notes) >= MAX_NOTES)
	{
		if (GetCurrentTransactionNestLevel() == 1)
			cs_capture_flush();
		else
			collapse();
	}
}

/*
 * cs_capture_note: see source.h.
 */
void
cs_capture_note(const char *source, const char *key, TimestampTz since, TimestampTz until)
{
	add_note(source, key, since, until, 0);
}

/* ---- writing the log ------------------------------------------------------ */

static void
write_row(Relation rel, const char *source, const char *key, TimestampTz since, TimestampTz until,
		  int64 refused)
{
	Datum values[5];
	bool nulls[5] = {false, key == NULL, key == NULL, key == NULL, refused == 0};
	HeapTuple tuple;

	values[0] = CStringGetTextDatum(source);
	values[1] = key ? CStringGetTextDatum(key) : (Datum) 0;
	values[2] = TimestampTzGetDatum(since);
	values[3] = TimestampTzGetDatum(until);
	values[4] = Int64GetDatum(refused);
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	simple_heap_insert(rel, tuple);
	heap_freetuple(tuple);
}

/*
 * cs_capture_flush: writes what is noted.  At the outermost level it is
 * forgotten then; inside a subtransaction, whose rollback would take the rows
 * away, it stays noted and is written once more before the commit.
 */
void
cs_capture_flush(void)
{
	HASH_SEQ_STATUS scan;
	Note *note;
	Oid nsp;
	Oid relid;
	Relation rel;
	MemoryContext row_context;
	MemoryContext old;

	if (context == NULL)
		return;
	nsp = get_namespace_oid("cs_internal", true);
	relid = OidIsValid(nsp) ? get_relname_relid("change_log", nsp) : InvalidOid;
	rel = OidIsValid(relid) ? try_table_open(relid, RowExclusiveLock) : NULL;
	if (rel == NULL || RelationGetDescr(rel)->natts != 5)
	{
		/* The extension was dropped, or is another version: nobody reads the log. */
		if (rel != NULL)
			table_close(rel, NoLock);
		forget();
		return;
	}
	row_context =
		AllocSetContextCreate(CurrentMemoryContext, "cs_ext change log row", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(row_context);
	for (int i = 0; i < nsources; i++)
	{
		if (sources[i].whole)
			write_row(rel, sources[i].name, NULL, 0, 0, 0);
	}
	hash_seq_init(&scan, notes);
	while ((note = hash_seq_search(&scan)) != NULL)
	{
		if (!sources[note->key.source].whole)
			write_row(rel, sources[note->key.source].name, note->key.key, note->since, note->until,
					  note->refused);
		MemoryContextReset(row_context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(row_context);
	table_close(rel, NoLock);
	logged = true;
	if (GetCurrentTransactionNestLevel() == 1)
		forget();
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			cs_capture_flush();
			break;
		case XACT_EVENT_COMMIT:
			if (logged && cs_commit_hook != NULL)
				cs_commit_hook();
			logged = false;
			forget();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			logged = false;
			forget();
			break;
		default:
			break;
	}
}

/*
 * cs_capture_init: see source.h.
 */
void
cs_capture_init(void)
{
	RegisterXactCallback(at_transaction_event, NULL);
}

/* ---- the trigger ---------------------------------------------------------- */

/*
 * attribute: number of a column in this relation.  The same trigger fires on
 * partitions, whose columns may stand in another order; the number is
 * remembered and checked by name, which costs one comparison a row.
 */
static int
attribute(TupleDesc desc, const char *name, int *hint)
{
	if (*hint < 1 || *hint > desc->natts || TupleDescAttr(desc, *hint - 1)->attisdropped ||
		strcmp(NameStr(TupleDescAttr(desc, *hint - 1)->attname), name) != 0)
		*hint = SPI_fnumber(desc, name);
	return *hint;
}

/*
 * key_of: the outside id of a key value; NULL when the type is none we know.
 */
static const char *
key_of(Oid type, Datum value, char *buffer)
{
	switch (type)
	{
		case INT2OID:
			pg_ltoa(DatumGetInt16(value), buffer);
			return buffer;
		case INT4OID:
			pg_ltoa(DatumGetInt32(value), buffer);
			return buffer;
		case INT8OID:
			buffer[pg_lltoa(DatumGetInt64(value), buffer)] = '\0';
			return buffer;
		case UUIDOID:
			return DatumGetCString(DirectFunctionCall1(uuid_out, value));
		case TEXTOID:
		case VARCHAROID:
			return TextDatumGetCString(value);
		case BPCHAROID:
			return TextDatumGetCString(DirectFunctionCall1(rtrim1, value));
		case NUMERICOID:
			return DatumGetCString(
				DirectFunctionCall1(numeric_out, DirectFunctionCall1(numeric_trim_scale, value)));
		default:
			return NULL;
	}
}

/*
 * anchor_of: bounds of the instant of a row.  A date or a local timestamp is
 * some hours off in zones that are not known here, so two days are noted.
 */
static void
anchor_of(Oid type, Datum value, TimestampTz *since, TimestampTz *until)
{
	TimestampTz at;
	int overflow = 0;

	*since = DT_NOBEGIN;
	*until = DT_NOEND;
	if (type == TIMESTAMPTZOID)
	{
		*since = *until = DatumGetTimestampTz(value);
		return;
	}
	if (type == DATEOID)
		at = date2timestamp_opt_overflow(DatumGetDateADT(value), &overflow);
	else if (type == TIMESTAMPOID)
		at = DatumGetTimestamp(value);
	else
		return;
	if (overflow != 0 || TIMESTAMP_NOT_FINITE(at) || at < MIN_TIMESTAMP + 2 * USECS_PER_DAY ||
		at > END_TIMESTAMP - 2 * USECS_PER_DAY)
		return;
	*since = at - USECS_PER_DAY;
	*until = at + USECS_PER_DAY;
}

/* The seal of the trigger that fires, in microseconds; local for what has no zone. */
typedef struct Seal
{
	bool set;
	TimestampTz at;
	Timestamp local;
} Seal;

/*
 * below: whether the instant is before the seal.
 */
static bool
below(const Seal *seal, Oid type, Datum value)
{
	int overflow = 0;

	switch (type)
	{
		case TIMESTAMPTZOID:
			return DatumGetTimestampTz(value) < seal->at;
		case TIMESTAMPOID:
			return DatumGetTimestamp(value) < seal->local;
		case DATEOID:
			return date2timestamp_opt_overflow(DatumGetDateADT(value), &overflow) < seal->local;
		default:
			return false;
	}
}

/*
 * note_tuple: one version of a row.  written: it is there afterwards.
 */
static void
note_tuple(const char *source, TupleDesc desc, HeapTuple tuple, int key, int anchor,
		   const Seal *seal, bool written)
{
	TimestampTz since = DT_NOBEGIN;
	TimestampTz until = DT_NOEND;
	char buffer[32];
	const char *id = "";
	bool isnull;
	Datum value = heap_getattr(tuple, key, desc, &isnull);

	if (!isnull)
		id = key_of(getBaseType(TupleDescAttr(desc, key - 1)->atttypid), value, buffer);
	if (anchor > 0)
	{
		value = heap_getattr(tuple, anchor, desc, &isnull);
		if (!isnull)
		{
			Oid type = getBaseType(TupleDescAttr(desc, anchor - 1)->atttypid);

			if (seal->set && below(seal, type, value))
			{
				/* what is gone below the seal is kept: rows may be dropped there */
				if (written && id != NULL)
					add_note(source, id, DT_NOEND, DT_NOBEGIN, 1);
				return;
			}
			anchor_of(type, value, &since, &until);
		}
	}
	cs_capture_note(source, id, since, until);
}

/*
 * cs_capture: the trigger function.  Arguments: source, key column, and the
 * anchor column where that is a bare column; after cs.seal() the seal, as an
 * instant and as local time.
 */
Datum
cs_capture(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	static int key_hint = 0;
	static int anchor_hint = 0;
	char **args;
	int nargs;
	TupleDesc desc;
	int key;
	int anchor;
	MemoryContext row_context;
	MemoryContext old;
	Seal seal = {false, 0, 0};
	static MemoryContext scratch = NULL;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				errmsg("cs_internal.capture() is a trigger function"),
				errhint("cs.add_source() creates its triggers."));
	args = data->tg_trigger->tgargs;
	nargs = data->tg_trigger->tgnargs;
	if (nargs < 1 || !TRIGGER_FIRED_AFTER(data->tg_event))
		return PointerGetDatum(NULL);
	if (!TRIGGER_FIRED_FOR_ROW(data->tg_event))
	{
		cs_capture_note(args[0], NULL, 0, 0);
		return PointerGetDatum(NULL);
	}

	desc = RelationGetDescr(data->tg_relation);
	key = nargs > 1 ? attribute(desc, args[1], &key_hint) : 0;
	anchor = nargs > 2 ? attribute(desc, args[2], &anchor_hint) : 0;
	if (key <= 0)
	{
		cs_capture_note(args[0], NULL, 0, 0);
		return PointerGetDatum(NULL);
	}
	if (nargs > 4)
	{
		seal.set = true;
		seal.at = strtoll(args[3], NULL, 10);
		seal.local = strtoll(args[4], NULL, 10);
	}

	if (scratch == NULL)
		scratch =
			AllocSetContextCreate(TopMemoryContext, "cs_ext capture row", ALLOCSET_SMALL_SIZES);
	row_context = scratch;
	old = MemoryContextSwitchTo(row_context);
	note_tuple(args[0], desc, data->tg_trigtuple, key, anchor, &seal,
			   TRIGGER_FIRED_BY_INSERT(data->tg_event));
	if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
		note_tuple(args[0], desc, data->tg_newtuple, key, anchor, &seal, true);
	MemoryContextSwitchTo(old);
	MemoryContextReset(row_context);
	return PointerGetDatum(NULL);
}
