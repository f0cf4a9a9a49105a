/*
 * usage_first.c
 *		Building the rollup from nothing: the first time, and by rebuild.
 *
 * In: all rows of all usage_event sources, read in one pass for very many
 * customers (aggregate usage_pack, usage_spill.c), then encoded customer by
 * customer (usage_unpack.c).  Out: usage_month of these customers, and their
 * pending rows for what else ingest does of them, with an empty range: of their
 * usage nothing is left to read.
 *
 * A pass is about the customers of a slice, a range of a hash of their ids, as
 * wide as room allows; it is one transaction.  cs_internal.usage_build says
 * how far that is: there is a row for each source that asked for it.
 *
 * Where no rollup stands, the rows of many events go past its index, which is made
 * anew over them (bulk.c) in the same transaction.
 *
 * Cases.
 * Crash, cancel, kill -9: slices that are done are committed, the next refresh
 * goes on behind them.
 * Facts change between two slices: they are in the change log, and read again
 * when the build is done, in whatever slice their customer is.
 * A source asks while another's build is under way: it begins again.
 * A source cannot be read: the build ends, everybody who asked is read whole when
 * it can be; the rollup keeps what it has.
 * refresh_customer beside it: waits for the slice, or the slice for it, for both
 * write the same rows.  Who is in a slice to come is read whole.
 * Somebody writes the rollup at this moment, or refresh(commit => false), whose locks
 * would last: rows are put into the index as they come.
 */
#include "cs_ext.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "core/bulk.h"
#include "core/elapsed.h"
#include "facts/ordered.h"
#include "facts/source.h"
#include "facts/usage.h"
#include "facts/usage_spill.h"
#include "facts/usage_unpack.h"
#include "optimizer/paths.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/* Bytes of an event, about: where workers do not help, an index need not be made anew. */
#define EVENT_BYTES 24

/*
 * cs_usage_build_begin: see usage.h.
 */
void
cs_usage_build_begin(const char *source)
{
	cs_exec("INSERT INTO cs_internal.usage_build (source, width) VALUES ($1, $2) ON CONFLICT DO "
			"NOTHING",
			CS_ARGS(cs_text(source), cs_int8(CS_SLICES)));
	cs_exec("UPDATE cs_internal.usage_build SET position = 0, events = 0, first_at = NULL, last_at "
			"= NULL",
			CS_NO_ARGS);
	cs_exec("DELETE FROM cs_internal.pending WHERE source = $1", CS_ARGS(cs_text(source)));
}

/*
 * cs_usage_build_position: see usage.h.
 */
int64
cs_usage_build_position(void)
{
	Datum position;
	bool isnull;

	cs_exec("SELECT min(position) FROM cs_internal.usage_build", CS_NO_ARGS);
	position = cs_value_datum(&isnull);
	return isnull ? -1 : DatumGetInt64(position);
}

/*
 * read_slice: hands out the events of all sources for the customers in [lo, *hi);
 * *hi comes down where there was too much of them.  The results of usage_pack in
 * *packed; false: a source cannot be read.
 */
static bool
read_slice(int64 lo, int64 *hi, int level, const FileSet *files, List **packed)
{
	TimestampTz now = cs_now();
	int64 width = *hi;
	ListCell *lc;

	foreach (lc, cs_sources("usage_event"))
	{
		CsSource *source = lfirst(lc);
		CsUserQuery query = {0};
		ErrorData *error = NULL;
		CsResult *rows;
		TupleTableSlot *slot;
		instr_time begin;

		INSTR_TIME_SET_CURRENT(begin);
		if (!OidIsValid(source->relid))
		{
			cs_build_failed("usage_build", source, "the relation is gone");
			return false;
		}
		query.sql =
			psprintf("SELECT cs.usage_pack(%lld, %lld, r.customer_key, r.at, r.user_native, "
					 "r.event, r.quantity, r.event_count) FROM (%s) r",
					 (long long) lo, (long long) width, cs_source_events(source));
		query.search_path = source->search_path;
		query.as_of = now;
		query.as_of_day = cs_local_day(now, cs_policy(false)->time_zone);
		query.unlimited = true;
		cs_spill_to(files);
		rows = cs_user_query_whole(&query, &error);
		if (rows == NULL)
		{
			cs_build_failed("usage_build", source, error->message);
			return false;
		}
		slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);
		if (tuplestore_gettupleslot(rows->store, true, false, slot))
		{
			bool isnull;
			Datum value = slot_getattr(slot, 1, &isnull);

			if (!isnull)
			{
				struct varlena *result = PG_DETOAST_DATUM_COPY(value);
				CsSpillHead head;

				memcpy(&head, VARDATA(result), sizeof(head));
				*packed = lappend(*packed, result);
				*hi = Min(*hi, head.hi);
				if (head.events > 0)
					cs_exec(
						"UPDATE cs_internal.usage_build SET events = events + $2, first_at = "
						"least(first_at, $3), last_at = greatest(last_at, $4) WHERE source = $1",
						CS_ARGS(cs_text(source->name), cs_int8(head.events), cs_tstz(head.first),
								cs_tstz(head.last)));
				ereport(level, errmsg("usage read: %lld events of source \"%s\" in %.0f ms",
									  (long long) head.events, source->name, cs_ms_since(begin)));
			}
		}
		ExecDropSingleTupleTableSlot(slot);
		tuplestore_end(rows->store);
	}
	return true;
}

/*
 * one_row: into a store.
 */
static void
one_row(CsResult *rows, Datum customer, DateADT month, struct varlena *usage)
{
	Datum values[3];
	bool nulls[3] = {false, false, false};

	values[0] = customer;
	values[1] = DateADTGetDatum(month);
	values[2] = PointerGetDatum(usage);
	tuplestore_putvalues(rows->store, rows->desc, values, nulls);
	rows->nrows++;
}

/*
 * new_row: into the rollup.
 */
static void
new_row(CsBulk *bulk, Datum customer, DateADT month, struct varlena *usage)
{
	TupleTableSlot *slot = cs_bulk_slot(bulk);

	slot->tts_values[0] = customer;
	slot->tts_values[1] = DateADTGetDatum(month);
	slot->tts_values[2] = PointerGetDatum(usage);
	memset(slot->tts_isnull, 0, sizeof(bool) * 3);
	cs_bulk_put(bulk, VARSIZE(usage));
}

static bool
rollup_is_empty(void)
{
	return cs_exec("SELECT FROM cs_internal.usage_month LIMIT 1", CS_NO_ARGS) == 0;
}

/* Nobody else writes this table until the end of the transaction; never stands in a queue for that. */
static bool
keep_writers_out(const char *table)
{
	return ConditionalLockRelationOid(
		get_relname_relid(table, get_namespace_oid("cs_internal", false)), ShareRowExclusiveLock);
}

/*
 * Whether rows go past the index: there are many, and nobody else writes any until
 * the end of the transaction.
 */
static bool
index_later(List *packed, bool at_once)
{
	int64 events = 0;
	ListCell *lc;

	foreach (lc, packed)
	{
		CsSpillHead head;

		memcpy(&head, VARDATA_ANY(lfirst(lc)), sizeof(head));
		events += head.events;
	}
	return at_once && events * EVENT_BYTES >= (int64) min_parallel_table_scan_size * BLCKSZ &&
		   keep_writers_out("usage_month");
}

/*
 * Pending rows of everybody in relation built, where nobody has any of these
 * sources: many at a time, in order of the key.  False: some have, or somebody
 * else may be writing one.
 */
static bool
mark_at_once(void)
{
	CsResult *sources;
	CsResult *customers;
	TupleTableSlot *source;
	TupleTableSlot *customer;
	CsBulk *bulk;

	if (!keep_writers_out("pending") ||
		cs_exec("SELECT FROM cs_internal.pending JOIN cs_internal.usage_build USING (source)"
				" LIMIT 1",
				CS_NO_ARGS) > 0)
		return false;
	sources = cs_query("SELECT source FROM cs_internal.usage_build ORDER BY 1", CS_NO_ARGS);
	customers = cs_query("SELECT DISTINCT customer_id FROM built ORDER BY 1", CS_NO_ARGS);
	source = MakeSingleTupleTableSlot(sources->desc, &TTSOpsMinimalTuple);
	customer = MakeSingleTupleTableSlot(customers->desc, &TTSOpsMinimalTuple);
	bulk = cs_bulk_begin("pending", RowExclusiveLock, true);
	while (tuplestore_gettupleslot(sources->store, true, false, source))
	{
		tuplestore_rescan(customers->store);
		while (tuplestore_gettupleslot(customers->store, true, false, customer))
		{
			TupleTableSlot *slot = cs_bulk_slot(bulk);
			bool isnull;

			CHECK_FOR_INTERRUPTS();
			slot->tts_values[0] = slot_getattr(source, 1, &isnull);
			slot->tts_values[1] = slot_getattr(customer, 1, &isnull);
			slot->tts_values[2] = TimestampTzGetDatum(DT_NOEND);
			slot->tts_values[3] = TimestampTzGetDatum(DT_NOBEGIN);
			memset(slot->tts_isnull, 0, sizeof(bool) * 4);
			cs_bulk_put(bulk, 64);
		}
	}
	cs_bulk_end(bulk);
	ExecDropSingleTupleTableSlot(source);
	ExecDropSingleTupleTableSlot(customer);
	tuplestore_end(sources->store);
	tuplestore_end(customers->store);
	return true;
}

/*
 * write_slice: the rollup of the slice is what was read; returns how many rows.
 * Where there is no rollup yet, rows go into it as they come.
 */
static uint64
write_slice(const FileSet *files, List *packed, int64 lo, int64 width, int64 hi, bool at_once)
{
	bool everybody = lo == 0 && hi == CS_SLICES;
	const char *in_slice = everybody ? "$1 = $1 AND $2 = $2"
									 : "cs_internal.usage_slice(m.customer_id) >= $1 AND "
									   "cs_internal.usage_slice(m.customer_id) < $2";
	CsResult *part = cs_query(
		"SELECT customer_id, month, usage FROM cs_internal.usage_month WHERE false", CS_NO_ARGS);
	CsResult *customers =
		cs_query("SELECT customer_id FROM cs_internal.usage_month WHERE false", CS_NO_ARGS);
	CsBulk *bulk = NULL;
	CsUnpack *unpack;
	MemoryContext row =
		AllocSetContextCreate(CurrentMemoryContext, "cs_ext usage row", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = CurrentMemoryContext;
	StringInfoData last;
	CsRunEntry entry;
	uint64 n = 0;
	bool empty = rollup_is_empty();
	bool later = false;

	if (empty && index_later(packed, at_once))
	{
		/* by now somebody may have written and gone */
		empty = rollup_is_empty();
		later = empty;
	}
	if (empty)
		bulk = cs_bulk_begin("usage_month", RowExclusiveLock, !later);
	initStringInfo(&last);
	unpack = cs_unpack(files, packed, lo, width, hi, cs_policy(false)->time_zone);
	while (cs_unpack_next(unpack, &entry))
	{
		Datum customer;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(row);
		customer = PointerGetDatum(cstring_to_text_with_len(entry.id.s, entry.id.len));
		/* he may come again, when several processes send months by turns */
		if (n == 0 || last.len != entry.id.len || memcmp(last.data, entry.id.s, last.len) != 0)
		{
			bool isnull = false;

			tuplestore_putvalues(customers->store, customers->desc, &customer, &isnull);
			customers->nrows++;
			resetStringInfo(&last);
			appendBinaryStringInfo(&last, entry.id.s, entry.id.len);
		}
		MemoryContextSwitchTo(old);
		if (bulk != NULL)
			new_row(bulk, customer, entry.month, entry.usage);
		else
			one_row(part, customer, entry.month, entry.usage);
		MemoryContextReset(row);
		n++;
	}
	MemoryContextDelete(row);
	if (bulk != NULL)
		cs_bulk_end(bulk);
	if (later && n > 0)
		cs_bulk_index("usage_month", NULL);

	cs_register("part", part);
	cs_register("built", customers);
	if (!later || !mark_at_once())
		cs_exec(psprintf("INSERT INTO cs_internal.pending AS p (source, customer_id, since, until)"
						 " SELECT b.source, c.customer_id, 'infinity', '-infinity'"
						 " FROM cs_internal.usage_build b, (SELECT customer_id FROM built UNION"
						 " SELECT m.customer_id FROM cs_internal.usage_month m WHERE $3 AND %s) c"
						 " ON CONFLICT DO NOTHING",
						 in_slice),
				CS_ARGS(cs_int8(lo), cs_int8(hi), cs_bool(!empty)));
	cs_exec(psprintf("DELETE FROM cs_internal.usage_delta m WHERE %s", in_slice),
			CS_ARGS(cs_int8(lo), cs_int8(hi)));
	if (!empty)
	{
		cs_exec(
			psprintf("DELETE FROM cs_internal.usage_month m WHERE %s AND NOT EXISTS (SELECT FROM "
					 "part p WHERE p.customer_id = m.customer_id AND p.month = m.month)",
					 in_slice),
			CS_ARGS(cs_int8(lo), cs_int8(hi)));
		cs_exec("INSERT INTO cs_internal.usage_month AS m (customer_id, month, usage)"
				" SELECT customer_id, month, usage FROM part"
				" ON CONFLICT (customer_id, month) DO UPDATE SET usage = EXCLUDED.usage"
				" WHERE m.usage OPERATOR(cs.<>) EXCLUDED.usage",
				CS_NO_ARGS);
	}
	cs_unregister("part");
	cs_unregister("built");
	tuplestore_end(part->store);
	tuplestore_end(customers->store);
	return n;
}

/*
 * finish: everybody is built.  Where one pass saw all events, how far the source
 * reaches is known, too.
 */
static void
finish(void)
{
	ListCell *lc;

	foreach (lc, cs_sources("usage_event"))
	{
		const CsSource *source = lfirst(lc);

		if (!source->by_user)
			cs_exec("UPDATE cs_internal.source_state t SET first_at = b.first_at, last_at = "
					"b.last_at, bounded = true, has_rows = b.events > 0, changed_since = NULL, "
					"changed_until = "
					"NULL, read_whole = false"
					" FROM cs_internal.usage_build b WHERE b.source = $1 AND t.source = $1"
					" AND b.width = $2 AND t.changed_since = '-infinity'",
					CS_ARGS(cs_text(source->name), cs_int8(CS_SLICES)));
	}
	cs_exec("DELETE FROM cs_internal.usage_build", CS_NO_ARGS);
}

/* When the step ends, however it does. */
static void
delete_files(void *files)
{
	FileSetDeleteAll(files);
}

/*
 * cs_usage_build_step: see usage.h.
 */
void
cs_usage_build_step(bool at_once, int level)
{
	MemoryContext slice =
		AllocSetContextCreate(CurrentMemoryContext, "cs_ext usage slice", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(slice);
	FileSet *files = palloc0(sizeof(FileSet));
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));
	int64 lo;
	int64 hi;
	bool isnull;
	List *packed = NIL;

	FileSetInit(files);
	callback->func = delete_files;
	callback->arg = files;
	MemoryContextRegisterResetCallback(slice, callback);

	/* all who are left: a customer larger than memory must not make the slices behind him narrow */
	cs_exec("SELECT min(position) FROM cs_internal.usage_build", CS_NO_ARGS);
	lo = DatumGetInt64(cs_cell_datum(0, 1, &isnull));
	hi = CS_SLICES;
	if (read_slice(lo, &hi, level, files, &packed))
	{
		instr_time begin;
		uint64 rows;

		INSTR_TIME_SET_CURRENT(begin);
		rows = write_slice(files, packed, lo, CS_SLICES, hi, at_once);
		ereport(level, errmsg("usage written: %llu months of customers in %.0f ms",
							  (unsigned long long) rows, cs_ms_since(begin)));
		if (hi == CS_SLICES)
			finish();
		else
			cs_exec("UPDATE cs_internal.usage_build SET position = $1, width = $2",
					CS_ARGS(cs_int8(hi), cs_int8(hi - lo)));
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(slice);
}
