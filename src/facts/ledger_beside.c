/*
 * ledger_beside.c
 *		The ledger's first build: a parallel worker makes the movements, while this
 *		process reads the next rows and writes the movements that are made.
 *
 *	 rows ──► queue ──► worker: terms, sweep, heap tuples ──► queue ──► table
 *
 * Both sides take about the same time, and PostgreSQL lets no worker insert, so
 * there is one worker.  What both need to know stands in shared memory; the worker
 * reads no table.  Rows stay in their order on both ways.
 *
 * A message has rows up to MESSAGE bytes, or one that is longer:
 *	 there		for each row the number of its source, then the row, a minimal tuple
 *	 back		kind, then heap tuples of movements, or rows of what is unusable
 *
 * Cases.  No worker to be had: cs_beside_begin says so, and the caller does the
 * work himself.  Cancel, error on either side: the parallel context goes with the
 * transaction, and the worker with it; the worker's error is raised here.  Worker
 * killed: as any parallel worker's end, an error here.  Both queues full: this side
 * waits for none of them alone, and empties the one while it fills the other.
 */
#include "cs_ext.h"

#include "access/htup_details.h"
#include "access/parallel.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "storage/latch.h"
#include "storage/shm_mq.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

#include "facts/ledger_facts.h"
#include "facts/ledger_member.h"

/* Bytes of a message, and of a queue. */
#define MESSAGE (64 * 1024)
#define QUEUE (8 * MESSAGE)

/* What stands where in shared memory. */
enum
{
	KEY_SHARED,
	KEY_RATES,
	KEY_QUEUE_THERE,
	KEY_QUEUE_BACK,
	KEY_SOURCE /* and its descriptor, of each */
};

typedef struct Shared
{
	CsPolicy policy; /* its texts follow, the pointers are of the process that reads */
	char time_zone[TZ_STRLEN_MAX + 1];
	char recognition[NAMEDATALEN];
	int nsources;
} Shared;

/* Pointers in it are of the process that reads. */
typedef struct SharedSource
{
	CsRowSource source;
	char name[FLEXIBLE_ARRAY_MEMBER];
} SharedSource;

/* A message on its way back. */
typedef enum Kind
{
	MOVEMENTS,
	UNUSABLE,
	END
} Kind;

typedef struct Message
{
	char *data;
	Size len;
	Size size;
} Message;

struct CsBeside
{
	ParallelContext *context;
	shm_mq_handle *there;
	shm_mq_handle *back;
	CsBulk *bulk;
	CsResult *unusable; /* where what is unusable goes */
	TupleTableSlot *unusable_slot;
	Message message;
	bool ended; /* the worker has said all */
};

/* ---- messages ---------------------------------------------------------------- */

static void
start_message(Message *m)
{
	m->size = MESSAGE;
	m->data = palloc(m->size);
	m->len = 0;
}

/* Place for so many bytes at most, aligned; their number will stand before them. */
static char *
make_room(Message *m, Size bytes)
{
	Size end = m->len + MAXALIGN(sizeof(Size)) + MAXALIGN(bytes);

	if (end > m->size)
		m->data = repalloc_huge(m->data, m->size = Max(end, m->size * 2));
	return m->data + m->len + MAXALIGN(sizeof(Size));
}

/* So many are there. */
static void
add_to_message(Message *m, Size bytes)
{
	memcpy(m->data + m->len, &bytes, sizeof(bytes));
	m->len += MAXALIGN(sizeof(Size)) + MAXALIGN(bytes);
}

/* A copy of some bytes is added. */
static void
copy_to_message(Message *m, const void *data, Size bytes)
{
	memcpy(make_room(m, bytes), data, bytes);
	add_to_message(m, bytes);
}

/* What was added, one after the other, from *at on. */
static char *
next_of_message(char *data, Size *at, Size *bytes)
{
	char *place = data + *at;

	memcpy(bytes, place, sizeof(*bytes));
	*at += MAXALIGN(sizeof(Size)) + MAXALIGN(*bytes);
	return place + MAXALIGN(sizeof(Size));
}

/* ---- the worker -------------------------------------------------------------- */

typedef struct Worker
{
	shm_mq_handle *back;
	TupleDesc movement;
	bool packs;
	Message message;
} Worker;

/* Sends what was added; nobody listens any more: this ends. */
static void
send_back(Worker *w)
{
	if (shm_mq_send(w->back, w->message.len, w->message.data, false, true) != SHM_MQ_SUCCESS)
		ereport(ERROR, errcode(ERRCODE_INTERNAL_ERROR),
				errmsg("lost connection to the process that writes the ledger"));
	w->message.len = 0;
}

static void
start_back(Worker *w, Kind kind)
{
	w->message.len = MAXALIGN(sizeof(Kind));
	memcpy(w->message.data, &kind, sizeof(kind));
}

/* A movement, as it will stand in the table. */
static void
add_movement(Worker *w, const CsMovement *movement, const text *id)
{
	Size len = 0;

	if (w->packs)
		len = cs_movement_pack(movement, id, w->movement,
							   (HeapTupleHeader) make_room(&w->message, CS_PACKED_MOVEMENT));
	if (len > 0)
		add_to_message(&w->message, len);
	else
	{
		Datum values[MOVEMENT_COLUMNS + 1];
		bool nulls[MOVEMENT_COLUMNS + 1];
		HeapTuple tuple;

		cs_movement_row(movement, id, values, nulls);
		tuple = heap_form_tuple(w->movement, values, nulls);
		copy_to_message(&w->message, tuple->t_data, tuple->t_len);
	}
}

/* The movements of a customer. */
static void
send_movements(const CsMember *member, const text *id, void *arg)
{
	Worker *w = arg;

	for (int i = 0; i < member->nmovements; i++)
	{
		add_movement(w, &member->movements[i], id);
		if (w->message.len >= MESSAGE)
		{
			send_back(w);
			start_back(w, MOVEMENTS);
		}
	}
}

static void
send_unusable(Worker *w, CsResult *unusable)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(unusable->desc, &TTSOpsMinimalTuple);

	start_back(w, UNUSABLE);
	tuplestore_rescan(unusable->store);
	while (tuplestore_gettupleslot(unusable->store, true, false, slot))
	{
		bool should_free;
		MinimalTuple tuple = ExecFetchSlotMinimalTuple(slot, &should_free);

		copy_to_message(&w->message, tuple, tuple->t_len);
		if (w->message.len >= MESSAGE)
		{
			send_back(w);
			start_back(w, UNUSABLE);
		}
	}
	send_back(w);
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(unusable->store);
}

extern PGDLLEXPORT void cs_ledger_beside_main(dsm_segment *seg, shm_toc *toc);

/*
 * What the worker runs: rows until there are none, then what was unusable.
 */
void
cs_ledger_beside_main(dsm_segment *seg, shm_toc *toc)
{
	Shared *shared = shm_toc_lookup(toc, KEY_SHARED, false);
	CsPolicy policy = shared->policy;
	CsRowSource *sources = palloc0(sizeof(CsRowSource) * shared->nsources);
	TupleTableSlot **slots = palloc0(sizeof(TupleTableSlot *) * shared->nsources);
	shm_mq *there = shm_toc_lookup(toc, KEY_QUEUE_THERE, false);
	shm_mq *back = shm_toc_lookup(toc, KEY_QUEUE_BACK, false);
	shm_mq_handle *rows;
	Worker w = {0};
	CsResult *unusable = cs_ledger_unusable_result();
	CsMaker *maker;
	Size len;
	void *data;

	shm_mq_set_receiver(there, MyProc);
	shm_mq_set_sender(back, MyProc);
	rows = shm_mq_attach(there, seg, NULL);
	w.back = shm_mq_attach(back, seg, NULL);
	start_message(&w.message);

	policy.time_zone = shared->time_zone;
	policy.recognition = shared->recognition;
	for (int i = 0; i < shared->nsources; i++)
	{
		SharedSource *s = shm_toc_lookup(toc, KEY_SOURCE + 2 * i, false);

		sources[i] = s->source;
		sources[i].name = s->name;
		sources[i].desc = shm_toc_lookup(toc, KEY_SOURCE + 2 * i + 1, false);
		slots[i] = MakeSingleTupleTableSlot(sources[i].desc, &TTSOpsMinimalTuple);
	}
	/* the last descriptor is the table's */
	w.movement = shm_toc_lookup(toc, KEY_SOURCE + 2 * shared->nsources, false);
	w.packs = cs_movement_packs(w.movement);
	maker = cs_maker_begin(
		&policy,
		cs_rates_unpack(shm_toc_lookup(toc, KEY_RATES, false), policy.currency, policy.time_zone),
		unusable, send_movements, &w);

	start_back(&w, MOVEMENTS);
	for (;;)
	{
		Size at = 0;

		if (shm_mq_receive(rows, &len, &data, false) != SHM_MQ_SUCCESS)
			ereport(ERROR, errcode(ERRCODE_INTERNAL_ERROR),
					errmsg("lost connection to the process that reads the facts"));
		if (len == 0)
			break;
		while (at < len)
		{
			Size bytes;
			char *row = next_of_message(data, &at, &bytes);
			int source;

			memcpy(&source, row, sizeof(source));
			ExecStoreMinimalTuple((MinimalTuple) (row + MAXALIGN(sizeof(int))), slots[source],
								  false);
			cs_maker_row(maker, &sources[source], slots[source]);
		}
	}
	cs_maker_end(maker);
	send_back(&w);
	send_unusable(&w, unusable);
	start_back(&w, END);
	send_back(&w);
	shm_mq_detach(w.back);
	shm_mq_detach(rows);
}

/* ---- the process that writes --------------------------------------------------- */

static void
put_in_shared_memory(ParallelContext *context, const CsRowSource *sources, int nsources,
					 const CsPolicy *policy, const char *rates, Size rates_size, TupleDesc movement)
{
	Shared *shared = shm_toc_allocate(context->toc, sizeof(Shared));
	char *packed = shm_toc_allocate(context->toc, rates_size);
	TupleDesc desc;

	memset(shared, 0, sizeof(Shared));
	shared->policy = *policy;
	shared->policy.run_as = shared->policy.time_zone = shared->policy.recognition = NULL;
	strlcpy(shared->time_zone, policy->time_zone, sizeof(shared->time_zone));
	strlcpy(shared->recognition, policy->recognition, sizeof(shared->recognition));
	shared->nsources = nsources;
	shm_toc_insert(context->toc, KEY_SHARED, shared);
	memcpy(packed, rates, rates_size);
	shm_toc_insert(context->toc, KEY_RATES, packed);
	for (int i = 0; i < nsources; i++)
	{
		SharedSource *s = shm_toc_allocate(context->toc, offsetof(SharedSource, name) +
															 strlen(sources[i].name) + 1);

		s->source = sources[i];
		strcpy(s->name, sources[i].name);
		shm_toc_insert(context->toc, KEY_SOURCE + 2 * i, s);
		desc = shm_toc_allocate(context->toc, TupleDescSize(sources[i].desc));
		TupleDescCopy(desc, sources[i].desc);
		shm_toc_insert(context->toc, KEY_SOURCE + 2 * i + 1, desc);
	}
	desc = shm_toc_allocate(context->toc, TupleDescSize(movement));
	TupleDescCopy(desc, movement);
	shm_toc_insert(context->toc, KEY_SOURCE + 2 * nsources, desc);
}

static shm_mq *
create_queue(ParallelContext *context, int key)
{
	shm_mq *queue = shm_mq_create(shm_toc_allocate(context->toc, QUEUE), QUEUE);

	shm_toc_insert(context->toc, key, queue);
	return queue;
}

/*
 * cs_beside_begin: see ledger_member.h.
 */
CsBeside *
cs_beside_begin(const CsRowSource *sources, int nsources, const CsPolicy *policy,
				const CsRates *rates, CsBulk *bulk, CsResult *unusable)
{
	/* as a row type of no table, as which it can stand in shared memory */
	TupleDesc movement = CreateTupleDescCopy(cs_bulk_slot(bulk)->tts_tupleDescriptor);
	ParallelContext *context;
	Size rates_size;
	char *packed;
	CsBeside *b;
	shm_mq *there = NULL;
	shm_mq *back = NULL;

	if (max_parallel_maintenance_workers == 0 || IsInParallelMode())
		return NULL;
	movement->tdtypeid = RECORDOID;
	movement->tdtypmod = -1;
	packed = cs_rates_pack(rates, &rates_size);
	PushActiveSnapshot(GetTransactionSnapshot());
	EnterParallelMode();
	context = CreateParallelContext("$libdir/cs_ext", "cs_ledger_beside_main", 1);
	shm_toc_estimate_chunk(&context->estimator, sizeof(Shared));
	shm_toc_estimate_chunk(&context->estimator, rates_size);
	shm_toc_estimate_chunk(&context->estimator, QUEUE);
	shm_toc_estimate_chunk(&context->estimator, QUEUE);
	shm_toc_estimate_keys(&context->estimator, 5);
	for (int i = 0; i < nsources; i++)
	{
		shm_toc_estimate_chunk(&context->estimator,
							   offsetof(SharedSource, name) + strlen(sources[i].name) + 1);
		shm_toc_estimate_chunk(&context->estimator, TupleDescSize(sources[i].desc));
	}
	shm_toc_estimate_chunk(&context->estimator, TupleDescSize(movement));
	shm_toc_estimate_keys(&context->estimator, 2 * nsources);
	InitializeParallelDSM(context);
	PopActiveSnapshot();

	if (context->seg != NULL)
	{
		put_in_shared_memory(context, sources, nsources, policy, packed, rates_size, movement);
		there = create_queue(context, KEY_QUEUE_THERE);
		back = create_queue(context, KEY_QUEUE_BACK);
		shm_mq_set_sender(there, MyProc);
		shm_mq_set_receiver(back, MyProc);
		LaunchParallelWorkers(context);
	}
	if (context->nworkers_launched == 0)
	{
		DestroyParallelContext(context);
		ExitParallelMode();
		return NULL;
	}
	b = palloc0(sizeof(CsBeside));
	b->context = context;
	b->bulk = bulk;
	b->unusable = unusable;
	b->unusable_slot = MakeSingleTupleTableSlot(unusable->desc, &TTSOpsMinimalTuple);
	b->there = shm_mq_attach(there, context->seg, context->worker[0].bgwhandle);
	b->back = shm_mq_attach(back, context->seg, context->worker[0].bgwhandle);
	start_message(&b->message);
	return b;
}

/* The worker is gone, and did not say that it had finished: its error is raised, or one for it. */
CS_NORETURN static void
lost_worker(CsBeside *b)
{
	WaitForParallelWorkersToFinish(b->context);
	ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			errmsg("lost connection to the worker that makes the ledger"),
			errhint("Look into the server's log; the next refresh begins again."));
}

/* Writes what has come back, if something has; false: nothing. */
static bool
take_back(CsBeside *b)
{
	Size len;
	void *data;
	Kind kind;
	Size at = MAXALIGN(sizeof(Kind));

	if (b->ended)
		return false;
	switch (shm_mq_receive(b->back, &len, &data, true))
	{
		case SHM_MQ_SUCCESS:
			break;
		case SHM_MQ_WOULD_BLOCK:
			return false;
		case SHM_MQ_DETACHED:
			lost_worker(b);
	}
	memcpy(&kind, data, sizeof(kind));
	b->ended = kind == END;
	while (at < len)
	{
		Size bytes;
		char *row = next_of_message(data, &at, &bytes);

		if (kind == MOVEMENTS)
			cs_bulk_put_tuple(b->bulk, (HeapTupleHeader) row, bytes);
		else
		{
			ExecStoreMinimalTuple((MinimalTuple) row, b->unusable_slot, false);
			tuplestore_puttupleslot(b->unusable->store, b->unusable_slot);
		}
	}
	return true;
}

/* Until the worker has taken or sent something. */
static void
wait_for_worker(void)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH, 0, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* Sends what was added, and writes what comes back until it is sent. */
static void
send_there(CsBeside *b)
{
	for (;;)
	{
		shm_mq_result result = shm_mq_send(b->there, b->message.len, b->message.data, true, true);
		bool some = false;

		if (result == SHM_MQ_DETACHED)
			lost_worker(b);
		while (take_back(b))
			some = true;
		if (result == SHM_MQ_SUCCESS)
			break;
		if (!some)
			wait_for_worker();
	}
	b->message.len = 0;
}

/*
 * cs_beside_row: see ledger_member.h.
 */
void
cs_beside_row(CsBeside *b, int source, TupleTableSlot *slot)
{
	bool should_free;
	MinimalTuple tuple = ExecFetchSlotMinimalTuple(slot, &should_free);
	Size bytes = MAXALIGN(sizeof(int)) + tuple->t_len;
	char *row = make_room(&b->message, bytes);

	memcpy(row, &source, sizeof(source));
	memcpy(row + MAXALIGN(sizeof(int)), tuple, tuple->t_len);
	add_to_message(&b->message, bytes);
	if (should_free)
		heap_free_minimal_tuple(tuple);
	if (b->message.len >= MESSAGE)
		send_there(b);
}

/*
 * cs_beside_end: see ledger_member.h.
 */
void
cs_beside_end(CsBeside *b)
{
	if (b->message.len > 0)
		send_there(b);
	send_there(b); /* nothing: that was all */
	while (!b->ended)
	{
		if (!take_back(b))
			wait_for_worker();
	}
	ExecDropSingleTupleTableSlot(b->unusable_slot);
	WaitForParallelWorkersToFinish(b->context);
	DestroyParallelContext(b->context);
	ExitParallelMode();
	pfree(b->message.data);
	pfree(b);
}
