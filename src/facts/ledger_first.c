/*
 * ledger_first.c
 *		The ledger from nothing: who the customers are and all their movements, in
 *		one pass over the facts.
 *
 * In: all rows of all subscription, cancellation and invoice sources, each read
 * once and taken in order of customer (ordered.c: what does not fit into
 * maintenance_work_mem goes to a file), put together one customer at a time
 * (ledger_member.c), where there is much by a parallel worker, while this process
 * writes what it made (ledger_beside.c).
 * Out: movement, customer, the ledger's part of unusable, and the marks of what
 * is left to do.
 *
 * cs_internal.ledger_build has a row for each source that was found to be read
 * whole while nothing stood in the ledger; that is instead of a pending row for
 * each of its customers.  The build is one transaction.
 *
 * Movements are written in order of customer, past the indexes, which are made
 * anew over all of them from what was kept while they were written
 * (core/bulk_keys.c): that is what a first build costs less than adding to
 * a ledger.  Until the commit nobody sees the rows, so nobody misses them in an
 * index; after an abort they are dead rows that no index knows, for vacuum.
 *
 * Cases.
 * Crash, cancel, kill -9: the transaction is undone, ledger_build still says
 * what is to be done, the next refresh begins again.
 * Facts change meanwhile: they are in the change log, and ingest reads these
 * customers again.
 * refresh_customer before it: what it wrote is made anew.  Beside it: waits for
 * the build, or the build for it, for both write the same rows.
 * Somebody reads the ledger and keeps his transaction open: an index cannot be
 * made anew while he holds it.  The build looks for a gap for a moment without
 * standing in anybody's way, then adds its rows to the indexes one by one.
 * No worker to be had: this process sweeps itself.
 * A source cannot be read: nothing is built, all who asked are read whole when
 * it can be.
 * Not to be built at once (refresh(commit => false), whose locks would last; merged
 * customers, rows overwritten in place, which need more than one pass): every
 * customer becomes pending, and ingest does the same in chunks.
 * Standby, restore: see pipeline.c; ledger_build is not dumped.
 */
#include "cs_ext.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "optimizer/paths.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "core/bulk.h"
#include "core/elapsed.h"
#include "facts/ledger.h"
#include "facts/ledger_facts.h"
#include "facts/ledger_member.h"
#include "facts/ordered.h"
#include "facts/source_kind.h"
#include "refresh/refresh.h"

/* A source, row by row in order of customer. */
typedef struct Stream
{
	const CsSource *source;
	CsRowSource rows;
	CsOrdered *o;  /* NULL: could not be read */
	CsResult *ids; /* the customers met, each once; NULL: not wanted */
} Stream;

/* Columns of a subscription by their FACT_ numbers, cast to what cs_term_make takes. */
static const struct
{
	const char *name;
	const char *sql;
} term_columns[] = {
	[FACT_START_AT] = {"start_at", "r.start_at"},
	[FACT_END_AT] = {"end_at", "r.end_at"},
	[FACT_MRR] = {NULL, "r.mrr::numeric"}, /* always there: it may be made of others */
	[FACT_CURRENCY] = {"currency", "r.currency::text"},
	[FACT_STATUS] = {"status", "r.status::text"},
	[FACT_IS_TRIAL] = {"is_trial", "r.is_trial"},
	[FACT_IS_RECURRING] = {"is_recurring", "r.is_recurring"},
	[FACT_CHANGED_AT] = {"changed_at", "r.changed_at"},
	[FACT_CANCEL_REQUESTED_AT] = {"cancel_requested_at", "r.cancel_requested_at"},
	[FACT_CANCEL_REASON] = {"cancel_reason", "r.cancel_reason::text"},
	[FACT_CHURN_KIND] = {"churn_kind", "r.churn_kind::text"},
	[FACT_AUTO_RENEW] = {"auto_renew", "r.auto_renew"},
	[FACT_SUBSCRIPTION_ID] = {"subscription_id", "r.subscription_id::text"},
	[FACT_TERM_MONTHS] = {"term_months", "r.term_months"},
};

/* So many bytes of a table are scanned in the time that a fact takes to be swept, about. */
#define FACT_BYTES 400

/* ---- whether ---------------------------------------------------------------- */

/* Whether the ledger can be made in one pass over the facts. */
static bool
can_build(void)
{
	ListCell *lc;
	List *subscriptions = cs_sources("subscription");

	foreach (lc, subscriptions)
	{
		if (((const CsSource *) lfirst(lc))->current)
			return false;
	}
	if (subscriptions == NIL || cs_sources("customer_merge") != NIL)
		return false;
	cs_exec("SELECT NOT EXISTS (SELECT FROM cs_internal.merge)"
			" AND NOT EXISTS (SELECT FROM cs_internal.summary)",
			CS_NO_ARGS);
	return *cs_value() == 't';
}

/*
 * cs_ledger_build_begin: see ledger.h.
 */
bool
cs_ledger_build_begin(const CsSource *source)
{
	if (strcmp(source->kind, "subscription") != 0 && strcmp(source->kind, "customer") != 0 &&
		strcmp(source->kind, "cancellation") != 0)
		return false;
	if (cs_exec("SELECT FROM cs_internal.movement LIMIT 1", CS_NO_ARGS) > 0 || !can_build())
		return false;
	cs_exec("INSERT INTO cs_internal.ledger_build (source) VALUES ($1) ON CONFLICT DO NOTHING",
			CS_ARGS(cs_text(source->name)));
	cs_exec("DELETE FROM cs_internal.pending WHERE source = $1", CS_ARGS(cs_text(source->name)));
	return true;
}

/*
 * cs_ledger_build_waits: see ledger.h.
 */
bool
cs_ledger_build_waits(void)
{
	return cs_exec("SELECT FROM cs_internal.ledger_build LIMIT 1", CS_NO_ARGS) > 0;
}

/* Everybody is left to ingest, in chunks. */
static void
leave_to_ingest(void)
{
	ListCell *lc;

	foreach (lc, cs_sources(NULL))
	{
		const CsSource *source = lfirst(lc);

		if (cs_exec("SELECT FROM cs_internal.ledger_build WHERE source = $1",
					CS_ARGS(cs_text(source->name))) > 0)
			(void) cs_pending_all(source);
	}
	cs_exec("DELETE FROM cs_internal.ledger_build", CS_NO_ARGS);
}

/* ---- reading ---------------------------------------------------------------- */

/* A relation (customer_id). */
static CsResult *
id_result(void)
{
	TupleDesc desc = CreateTemplateTupleDesc(1);

	TupleDescInitEntry(desc, 1, "customer_id", TEXTOID, -1, 0);
	TupleDescInitEntryCollation(desc, 1, C_COLLATION_OID);
	return cs_empty_result(desc);
}

/*
 * open_stream: a source is read, and stands at its first row.  False when it
 * cannot be read; then nothing will be built.
 */
static bool
open_stream(Stream *s, const CsSource *source, const char *select, const char *then,
			const CsPolicy *policy)
{
	const char *error;

	memset(s, 0, sizeof(Stream));
	s->source = source;
	s->o = cs_ordered_open(source, select, then, policy, &error);
	if (s->o == NULL)
	{
		cs_build_failed("ledger_build", source, error);
		return false;
	}
	s->rows.kind = strcmp(source->kind, "subscription") == 0   ? CS_ROW_TERM
				   : strcmp(source->kind, "cancellation") == 0 ? CS_ROW_CANCELLATION
															   : CS_ROW_DUE;
	s->rows.name = source->name;
	s->rows.desc = s->o->rows->desc;
	return true;
}

static bool
maps(const CsSource *source, const char *column)
{
	ListCell *lc;

	foreach (lc, source->columns)
	{
		if (strcmp(lfirst(lc), column) == 0)
			return true;
	}
	return false;
}

/*
 * What is read of a subscription source: the columns it has, for one that it has
 * not is NULL in every row, which costs as much as a value on the way here.
 */
static char *
term_select(const CsSource *source, CsRowSource *rows)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT %s AS customer_id");
	for (int i = 0; i < lengthof(term_columns); i++)
	{
		if (term_columns[i].name != NULL && !maps(source, term_columns[i].name))
			continue;
		/* nothing but the rates asks for the id */
		if (i == FACT_SUBSCRIPTION_ID && !maps(source, "currency"))
			continue;
		appendStringInfo(&sql, ", %s", term_columns[i].sql);
		rows->columns[rows->ncolumns++] = i;
	}
	appendStringInfoString(&sql, " FROM (%s) r");
	return sql.data;
}

/* ---- writing ---------------------------------------------------------------- */

/* Where movements go that are made in this process. */
typedef struct Writer
{
	CsBulk *bulk;
	TupleDesc desc;
	bool packs;
	HeapTupleHeader row; /* CS_PACKED_MOVEMENT bytes */
} Writer;

/* The movements of one customer. */
static void
write_member(const CsMember *member, const text *id, void *arg)
{
	Writer *w = arg;

	for (int i = 0; i < member->nmovements; i++)
	{
		const CsMovement *m = &member->movements[i];
		Size len = w->packs ? cs_movement_pack(m, id, w->desc, w->row) : 0;

		if (len > 0)
			cs_bulk_put_tuple(w->bulk, w->row, len);
		else
		{
			TupleTableSlot *slot = cs_bulk_slot(w->bulk);

			cs_movement_row(m, id, slot->tts_values, slot->tts_isnull);
			cs_bulk_put(w->bulk, 100 + (m->reason ? strlen(m->reason) : 0));
		}
	}
}

/* Begins with a table's rows. */
static Writer *
start_writer(CsBulk *bulk)
{
	Writer *w = palloc(sizeof(Writer));

	w->bulk = bulk;
	w->desc = cs_bulk_slot(bulk)->tts_tupleDescriptor;
	w->packs = cs_movement_packs(w->desc);
	w->row = palloc(CS_PACKED_MOVEMENT);
	return w;
}

/* The least customer that a stream stands at, copied; NULL at the end. */
static text *
next_customer(Stream *streams, int n)
{
	const text *least = NULL;
	text *copy;
	int len;

	for (int i = 0; i < n; i++)
	{
		if (streams[i].o->id != NULL && (least == NULL || cs_id_cmp(streams[i].o->id, least) < 0))
			least = streams[i].o->id;
	}
	if (least == NULL)
		return NULL;
	len = VARSIZE_ANY_EXHDR(least);
	copy = palloc(VARHDRSZ + len);
	SET_VARSIZE(copy, VARHDRSZ + len);
	memcpy(VARDATA(copy), VARDATA_ANY(least), len);
	return copy;
}

/*
 * All rows, customer after customer: their movements are written, here or as
 * a worker makes them (beside; else maker).
 */
static void
sweep_all(Stream *streams, int n, CsMaker *maker, CsBeside *beside, int level)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "cs_ext ledger customer id",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	text *id;
	int64 facts = 0;
	int64 done = 0;
	int64 tenth = 0;
	instr_time begin;

	INSTR_TIME_SET_CURRENT(begin);
	for (int i = 0; i < n; i++)
		facts += streams[i].o->rows->nrows;
	while ((id = next_customer(streams, n)) != NULL)
	{
		Datum id_datum = PointerGetDatum(id);
		bool isnull = false;

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < n; i++)
		{
			Stream *s = &streams[i];

			if (s->o->id == NULL || cs_id_cmp(s->o->id, id) != 0)
				continue;
			if (s->ids != NULL)
			{
				tuplestore_putvalues(s->ids->store, s->ids->desc, &id_datum, &isnull);
				s->ids->nrows++;
			}
			do
			{
				if (beside != NULL)
					cs_beside_row(beside, i, s->o->slot);
				else
					cs_maker_row(maker, &s->rows, s->o->slot);
				cs_ordered_next(s->o);
				done++;
			} while (s->o->id != NULL && cs_id_cmp(s->o->id, id) == 0);
		}
		MemoryContextReset(context);
		if (done * 10 / facts > tenth)
		{
			tenth = done * 10 / facts;
			ereport(level, errmsg("ledger: %lld of %lld facts after %.1f s", (long long) done,
								  (long long) facts, cs_ms_since(begin) / 1000));
		}
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/* A worker takes its time to start: there had better be as much to do as a scan is shared for. */
static bool
worth_a_worker(const Stream *streams, int n)
{
	int64 facts = 0;

	for (int i = 0; i < n; i++)
		facts += streams[i].o->rows->nrows;
	return facts * FACT_BYTES >= (int64) min_parallel_table_scan_size * BLCKSZ;
}

/* What is left to do of everybody, and for whom nothing more is known of the sources that asked. */
static void
write_marks(const Stream *streams, int n)
{
	bool some;

	for (int i = 0; i < n; i++)
	{
		const Stream *s = &streams[i];

		/* whose cancellations are of no customer: ingest finds out where else he stands */
		if (s->ids == NULL || strcmp(s->source->kind, "cancellation") != 0)
			continue;
		cs_register("met", s->ids);
		cs_exec("INSERT INTO cs_internal.pending (source, customer_id) SELECT $1, m.customer_id"
				" FROM met m WHERE NOT EXISTS (SELECT FROM cs_internal.customer c"
				" WHERE c.customer_id = m.customer_id) ON CONFLICT DO NOTHING",
				CS_ARGS(cs_text(s->source->name)));
		cs_unregister("met");
	}
	cs_exec("INSERT INTO cs_internal.pending (source, customer_id) SELECT b.source, k.customer_id"
			" FROM cs_internal.ledger_build b JOIN cs.source s ON s.name = b.source,"
			" (SELECT customer_id FROM cs_internal.state UNION SELECT customer_id FROM"
			"  cs_internal.usage_month UNION SELECT customer_id FROM cs_internal.unusable"
			"  WHERE customer_id <> '') k WHERE NOT EXISTS (SELECT FROM cs_internal.customer c"
			"  WHERE c.customer_id = k.customer_id) ON CONFLICT DO NOTHING",
			CS_NO_ARGS);
	cs_exec("DELETE FROM cs_internal.orphan o USING cs_internal.customer c"
			" WHERE c.customer_id = o.customer_id",
			CS_NO_ARGS);
	/* where nobody is marked nobody is looked up */
	some = cs_exec("SELECT FROM cs_internal.dirty LIMIT 1", CS_NO_ARGS) > 0;
	cs_exec(psprintf("INSERT INTO cs_internal.dirty (customer_id, marked_at)"
					 " SELECT customer_id, clock_timestamp() FROM cs_internal.customer%s",
					 some ? " ON CONFLICT (customer_id) DO UPDATE SET cause = NULL"
							" WHERE dirty.cause IS NOT NULL"
						  : ""),
			CS_NO_ARGS);
}

/* Opens what the ledger is made of; false when a source cannot be read.  met: the relations of customers with subscriptions. */
static bool
open_streams(Stream *streams, int *n, const CsPolicy *policy, List **met)
{
	bool past_due = false;
	ListCell *lc;

	foreach (lc, cs_sources("subscription"))
	{
		const CsSource *source = lfirst(lc);
		Stream *s = &streams[(*n)++];

		CsRowSource rows = {CS_ROW_TERM};

		if (!open_stream(s, source, term_select(source, &rows), NULL, policy))
			return false;
		memcpy(s->rows.columns, rows.columns, sizeof(rows.columns));
		s->rows.ncolumns = rows.ncolumns;
		s->ids = id_result();
		*met = lappend(*met, s->ids);
		past_due |= maps(source, "status");
	}
	foreach (lc, cs_sources("cancellation"))
	{
		Stream *s = &streams[(*n)++];

		if (!open_stream(s, lfirst(lc), CS_CANCELLATION_SELECT, NULL, policy))
			return false;
		s->ids = id_result();
	}
	/* only a row that is past due asks for invoices */
	foreach (lc, past_due ? cs_sources("invoice") : NIL)
	{
		if (!open_stream(&streams[(*n)++], lfirst(lc), CS_DUE_SELECT, ", 2", policy))
			return false;
	}
	return true;
}

static void
close_streams(Stream *streams, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (streams[i].o != NULL)
			cs_ordered_close(streams[i].o);
		if (streams[i].ids != NULL)
			tuplestore_end(streams[i].ids->store);
	}
}

/* Sweeps all and writes the ledger, from streams that are open. */
static void
build_ledger(Stream *streams, int n, const CsPolicy *policy, int level)
{
	CsRates *rates = cs_rates_load(policy);
	CsResult *unusable = cs_ledger_unusable_result();
	CsRowSource *sources = palloc(sizeof(CsRowSource) * n);
	CsBulk *bulk;
	CsBulkKeys *keys;
	CsBeside *beside = NULL;
	int64 rows;
	instr_time begin;
	double sweeping;

	INSTR_TIME_SET_CURRENT(begin);
	/* of who was refreshed on his own meanwhile */
	cs_exec("DELETE FROM cs_internal.movement", CS_NO_ARGS);
	/* nobody else may write, for his rows would be in indexes that are made anew */
	bulk = cs_bulk_begin("movement", ShareRowExclusiveLock, false);
	keys = cs_bulk_keys(bulk);
	for (int i = 0; i < n; i++)
		sources[i] = streams[i].rows;
	if (worth_a_worker(streams, n))
		beside = cs_beside_begin(sources, n, policy, rates, bulk, unusable);
	if (beside != NULL)
	{
		sweep_all(streams, n, NULL, beside, level);
		cs_beside_end(beside);
	}
	else
	{
		CsMaker *maker = cs_maker_begin(policy, rates, unusable, write_member, start_writer(bulk));

		sweep_all(streams, n, maker, NULL, level);
		cs_maker_end(maker);
	}
	rows = cs_bulk_end(bulk);
	/* their memory is the indexes' now */
	for (int i = 0; i < n; i++)
	{
		cs_ordered_close(streams[i].o);
		streams[i].o = NULL;
	}
	sweeping = cs_ms_since(begin);
	INSTR_TIME_SET_CURRENT(begin);
	if (rows > 0)
		cs_bulk_index("movement", keys);
	ereport(level, errmsg("ledger written: %lld movements in %.0f ms%s, indexed in %.0f ms",
						  (long long) rows, sweeping, beside != NULL ? " beside a worker" : "",
						  cs_ms_since(begin)));
	cs_ledger_write_unusable((Datum) 0, unusable);
	tuplestore_end(unusable->store);
}

/* Everything, as cs_ledger_build_step promises. */
static void
build_all(const CsPolicy *policy, int level)
{
	Stream *streams = palloc0(sizeof(Stream) * (list_length(cs_sources(NULL)) + 1));
	List *met = NIL;
	int n = 0;
	instr_time begin;

	INSTR_TIME_SET_CURRENT(begin);
	if (open_streams(streams, &n, policy, &met))
	{
		int64 read = 0;

		for (int i = 0; i < n; i++)
			read += streams[i].o->rows->nrows;
		ereport(level,
				errmsg("ledger read: %lld facts in %.0f ms", (long long) read, cs_ms_since(begin)));
		build_ledger(streams, n, policy, level);
		INSTR_TIME_SET_CURRENT(begin);
		if (cs_identity_all(met))
		{
			write_marks(streams, n);
			cs_exec("DELETE FROM cs_internal.ledger_build", CS_NO_ARGS);
			ereport(level, errmsg("customers written in %.0f ms", cs_ms_since(begin)));
		}
		else
			leave_to_ingest();
	}
	close_streams(streams, n);
}

/*
 * cs_ledger_build_step: see ledger.h.
 */
void
cs_ledger_build_step(bool at_once, int level)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "cs_ext ledger build", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	int settings = NewGUCNestLevel();

	/* it sorts as much as an index that is made, and may take as much memory */
	if (maintenance_work_mem > work_mem)
		(void) set_config_option("work_mem", psprintf("%dkB", maintenance_work_mem), PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	if (at_once && can_build())
		build_all(cs_policy(false), level);
	else
		leave_to_ingest();
	AtEOXact_GUC(true, settings);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}
