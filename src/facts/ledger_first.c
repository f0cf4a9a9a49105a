/*
 * ledger_first.c
 *		The ledger from nothing: who the customers are and all their movements, in
 *		one pass over the facts.
 *
 * In: all rows of all subscription, cancellation and invoice sources, each read
 * once and taken in order of customer (ordered.c: what does not fit into
 * maintenance_work_mem goes to a file), put together one customer at a time.
 * Out: movement, customer, the ledger's part of unusable, and the marks of what
 * is left to do.
 * Facts become terms, and terms movements, by the code that ingest uses.
 *
 * cs_internal.ledger_build has a row for each source that was found to be read
 * whole while nothing stood in the ledger; that is instead of a pending row for
 * each of its customers.  The build is one transaction.
 *
 * Movements are written in order of customer, past the indexes, which are made
 * anew over all of them: that is what a first build costs less than adding to
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
#include "utils/guc.h"
#include "utils/memutils.h"

#include "core/bulk.h"
#include "core/elapsed.h"
#include "facts/ledger.h"
#include "facts/ledger_facts.h"
#include "facts/ordered.h"
#include "facts/source_kind.h"
#include "refresh/refresh.h"

/* A source, row by row in order of customer. */
typedef struct Stream
{
	const CsSource *source;
	CsOrdered *o;  /* NULL: could not be read */
	CsResult *ids; /* the customers met, each once; NULL: not wanted */
} Stream;

/* The rates need the subscription's id, nothing else does. */
#define TERM_SELECT(id)                                                                       \
	"SELECT %s AS customer_id, " CS_TERM_COLUMNS ", " id " AS subscription_id, r.term_months" \
	" FROM (%s) r"

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
		cs_build_failed("ledger_build", source, error);
	return s->o != NULL;
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

/* ---- writing ---------------------------------------------------------------- */

/* The movements of one customer. */
static void
write_member(CsBulk *bulk, const CsMember *member, Datum id)
{
	for (int i = 0; i < member->nmovements; i++)
	{
		const CsMovement *m = &member->movements[i];
		TupleTableSlot *slot = cs_bulk_slot(bulk);

		slot->tts_values[0] = id;
		slot->tts_isnull[0] = false;
		cs_movement_values(m, slot->tts_values + 1, slot->tts_isnull + 1);
		cs_bulk_put(bulk, 100 + (m->reason ? strlen(m->reason) : 0));
	}
}

/* ---- putting together -------------------------------------------------------- */

typedef struct Build
{
	const CsPolicy *policy;
	CsRates *rates;
	CsResult *unusable;
	CsTerm *terms;
	int terms_size;
	CsCancellation *cancellations;
	int cancellations_size;
	CsDue *dues;
	int dues_size;
	int64 done; /* facts */
} Build;

/* Room for one more in an array that lives as long as the build. */
#define ROOM(array, n, size)                                                    \
	do                                                                          \
	{                                                                           \
		if ((n) == (size))                                                      \
			(array) = repalloc_huge((array), sizeof(*(array)) * ((size) *= 2)); \
	} while (0)

/* All rows of one customer in this stream. */
static void
take_terms(Build *b, Stream *s, CsMember *member, const text *id, bool *past_due, bool *foreign)
{
	do
	{
		CsTerm *term;
		Datum values[FACT_NCOLUMNS] = {0};
		bool nulls[FACT_NCOLUMNS];
		CsTermResult result;

		ROOM(b->terms, member->nterms, b->terms_size);
		term = &b->terms[member->nterms];
		slot_getallattrs(s->o->slot);
		memset(nulls, true, sizeof(nulls));
		memcpy(values, s->o->slot->tts_values + 1, sizeof(Datum) * (FACT_TERM_MONTHS + 1));
		memcpy(nulls, s->o->slot->tts_isnull + 1, sizeof(bool) * (FACT_TERM_MONTHS + 1));
		result = cs_term_make(values, nulls, b->policy->currency, term);
		if (result == CS_TERM_RANGE)
			cs_ledger_unusable(b->unusable, s->source->name, member->customer, "MRR out of range");
		if (result == CS_TERM_OK)
		{
			term->source = s->source->name;
			*past_due |= term->past_due;
			*foreign |= term->currency != NULL;
			member->nterms++;
		}
		cs_ordered_next(s->o);
		b->done++;
	} while (s->o->id != NULL && cs_id_cmp(s->o->id, id) == 0);
}

static void
take_cancellations(Build *b, Stream *s, CsMember *member, const text *id)
{
	do
	{
		ROOM(b->cancellations, member->ncancellations, b->cancellations_size);
		slot_getallattrs(s->o->slot);
		if (cs_cancellation_make(s->o->slot->tts_values + 1, s->o->slot->tts_isnull + 1,
								 &b->cancellations[member->ncancellations]))
			member->ncancellations++;
		cs_ordered_next(s->o);
		b->done++;
	} while (s->o->id != NULL && cs_id_cmp(s->o->id, id) == 0);
}

static void
take_dues(Build *b, Stream *s, const char *customer, const text *id, int *ndues)
{
	do
	{
		ROOM(b->dues, *ndues, b->dues_size);
		slot_getallattrs(s->o->slot);
		if (!s->o->slot->tts_isnull[1])
			b->dues[(*ndues)++] = (CsDue){customer, DatumGetTimestampTz(s->o->slot->tts_values[1])};
		cs_ordered_next(s->o);
		b->done++;
	} while (s->o->id != NULL && cs_id_cmp(s->o->id, id) == 0);
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

/* All customers, one after the other: the movements of each are written. */
static void
sweep_all(Build *b, Stream *streams, int n, int level, CsBulk *bulk)
{
	CsSweepRules rules = cs_sweep_rules(b->policy);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "cs_ext ledger customer",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	text *id;
	int64 facts = 0;
	int64 tenth = 0;
	instr_time begin;

	INSTR_TIME_SET_CURRENT(begin);
	for (int i = 0; i < n; i++)
		facts += streams[i].o->rows->nrows;
	while ((id = next_customer(streams, n)) != NULL)
	{
		CsMember member = {0};
		Datum id_datum = PointerGetDatum(id);
		bool past_due = false;
		bool foreign = false;
		int ndues = 0;
		bool isnull = false;

		CHECK_FOR_INTERRUPTS();
		member.customer = text_to_cstring(id);
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
			if (strcmp(s->source->kind, "subscription") == 0)
				take_terms(b, s, &member, id, &past_due, &foreign);
			else if (strcmp(s->source->kind, "cancellation") == 0)
				take_cancellations(b, s, &member, id);
			else
				take_dues(b, s, member.customer, id, &ndues);
		}
		if (member.nterms > 0)
		{
			member.terms = b->terms;
			member.cancellations = b->cancellations;
			if (past_due)
				cs_ledger_end_grace(&member, b->dues, ndues, b->policy->grace_days);
			if (foreign)
				cs_ledger_convert(&member, b->rates, b->policy, b->unusable);
			cs_sweep(&member, 1, NULL, 0, &rules);
			if (cs_ledger_fits(&member, b->unusable))
				write_member(bulk, &member, id_datum);
		}
		MemoryContextReset(context);
		if (b->done * 10 / facts > tenth)
		{
			tenth = b->done * 10 / facts;
			ereport(level, errmsg("ledger: %lld of %lld facts after %.1f s", (long long) b->done,
								  (long long) facts, cs_ms_since(begin) / 1000));
		}
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
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

		if (!open_stream(s, source,
						 maps(source, "currency") ? TERM_SELECT("r.subscription_id::text")
												  : TERM_SELECT("NULL::text"),
						 NULL, policy))
			return false;
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
	Build b = {0};
	CsBulk *bulk;
	int64 rows;
	instr_time begin;
	double sweeping;

	INSTR_TIME_SET_CURRENT(begin);
	b.policy = policy;
	b.rates = cs_rates_load(policy);
	b.unusable = cs_ledger_unusable_result();
	b.terms_size = b.cancellations_size = b.dues_size = 64;
	b.terms = palloc(sizeof(CsTerm) * b.terms_size);
	b.cancellations = palloc(sizeof(CsCancellation) * b.cancellations_size);
	b.dues = palloc(sizeof(CsDue) * b.dues_size);
	/* of who was refreshed on his own meanwhile */
	cs_exec("DELETE FROM cs_internal.movement", CS_NO_ARGS);
	/* nobody else may write, for his rows would be in indexes that are made anew */
	bulk = cs_bulk_begin("movement", ShareRowExclusiveLock, false);
	sweep_all(&b, streams, n, level, bulk);
	rows = cs_bulk_end(bulk);
	sweeping = cs_ms_since(begin);
	INSTR_TIME_SET_CURRENT(begin);
	if (rows > 0)
		cs_bulk_index("movement");
	ereport(level, errmsg("ledger written: %lld movements in %.0f ms, indexed in %.0f ms",
						  (long long) rows, sweeping, cs_ms_since(begin)));
	cs_ledger_write_unusable((Datum) 0, b.unusable);
	tuplestore_end(b.unusable->store);
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
