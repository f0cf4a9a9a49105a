/*
 * usage_unpack.c
 *		The first build of the rollup: from files of events to rows.
 *
 * In: temporary files in which usage_pack told events apart by customer
 * (usage_spill.h).  Out: the months of each customer, encoded once, for all of his
 * events are in one part.  Parts are given to workers as they come for them, the
 * largest first; this process takes what they send and writes it meanwhile.  Where
 * there are no workers it does all of it.
 *
 * Memory of a process: a buffer of records with their names, and what is encoded
 * of one part.
 *
 * Cases.  A worker fails: its error is raised here.  Aborted, cancelled: the end of
 * the transaction ends the workers; files belong to usage_first.c.  Fewer workers
 * than asked for, or none: who is there does the work of all.
 */
#include "cs_ext.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "facts/usage_pack.h"
#include "facts/usage_spill.h"
#include "facts/usage_unpack.h"
#include "miscadmin.h"
#include "optimizer/cost.h"
#include "optimizer/paths.h"
#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/shm_mq.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"
#include "utils/wait_event.h"

/* Bytes that are sent at once, and of a worker's queue. */
#define BATCH (32 * 1024)
#define QUEUE (512 * 1024)

#define KEY_WORK 1
#define KEY_QUEUES 2

/* A block of a part. */
typedef struct PackBlock
{
	int64 offset;
	uint32 len;
	uint32 file;
} PackBlock;

typedef struct WorkPart
{
	int64 first; /* of its blocks */
	int64 nblocks;
	int64 bytes;
} WorkPart;

/* What is to be done; then the parts, files and blocks. */
typedef struct Work
{
	FileSet files;
	char zone[TZ_STRLEN_MAX + 1];
	int64 hi;
	int64 nparts;
	int64 nfiles;
	int64 nblocks;
	int64 bytes;
	pg_atomic_uint32 next; /* part that nobody has taken */
} Work;

#define WORK_PARTS(work) ((WorkPart *) ((char *) (work) + MAXALIGN(sizeof(Work))))
#define WORK_FILES(work) \
	((CsSpillFile *) ((char *) WORK_PARTS(work) + MAXALIGN(sizeof(WorkPart) * (work)->nparts)))
#define WORK_BLOCKS(work) \
	((PackBlock *) ((char *) WORK_FILES(work) + MAXALIGN(sizeof(CsSpillFile) * (work)->nfiles)))
#define WORK_SIZE(work) ((char *) (WORK_BLOCKS(work) + (work)->nblocks) - (char *) (work))

/* One process on its way through parts. */
typedef struct Reader
{
	Work *work;
	Pack *pack;
	File *files; /* 0: not opened */
	char *block;
	Size block_size;
	MemoryContext part; /* of merging */
	CsRunsMerge *merge; /* of several runs; NULL: there is one */
	int64 at;           /* in that one */
	StringInfoData out;
} Reader;

struct CsUnpack
{
	Work *work;
	Reader *reader; /* of this process, if it reads */
	ParallelContext *workers;
	shm_mq_handle **queues;
	int nqueues;
	int queue; /* whose turn it is */
	char *data;
	int64 len;
	int64 at;
};

/* ---- what is to be done ------------------------------------------------------------- */

static int
compare_parts(const void *a, const void *b)
{
	const WorkPart *x = a;
	const WorkPart *y = b;

	return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

/* Go through the blocks of all results: count them, or give them their places. */
static void
each_block(Work *work, List *packed, int64 last_part, bool place)
{
	WorkPart *parts = WORK_PARTS(work);
	CsSpillFile *files = WORK_FILES(work);
	PackBlock *blocks = WORK_BLOCKS(work);
	uint32 n = 0;
	ListCell *lc;

	foreach (lc, packed)
	{
		const char *from = VARDATA_ANY(lfirst(lc));
		CsSpillHead head;

		memcpy(&head, from, sizeof(head));
		from += sizeof(head);
		for (int64 i = 0; i < head.nfiles; i++, n++)
		{
			CsSpillFile file;

			memcpy(&file, from, sizeof(file));
			from += sizeof(file);
			if (place)
				files[n] = file;
			for (int64 j = 0; j < file.nblocks; j++)
			{
				CsSpillBlock block;

				memcpy(&block, from, sizeof(block));
				from += sizeof(block);
				if (block.part > last_part)
					continue;
				if (place)
				{
					PackBlock *b = &blocks[parts[block.part].first + parts[block.part].nblocks++];

					b->offset = block.offset;
					b->len = block.len;
					b->file = n;
					parts[block.part].bytes += block.len;
					work->bytes += block.len;
				}
				else
				{
					parts[block.part].nblocks++;
					work->nblocks++;
				}
			}
		}
	}
	work->nfiles = n;
}

static Work *
make_work(const FileSet *files, List *packed, int64 lo, int64 width, int64 hi, const char *zone)
{
	int64 last_part = (hi - 1 - lo) >> cs_spill_shift(lo, width);
	Work *count = palloc0(MAXALIGN(sizeof(Work)) + sizeof(WorkPart) * (last_part + 1));
	Work *work;
	int64 sum = 0;

	count->files = *files;
	strlcpy(count->zone, zone, sizeof(count->zone));
	count->hi = hi;
	count->nparts = last_part + 1;
	pg_atomic_init_u32(&count->next, 0);
	each_block(count, packed, last_part, false);

	work = MemoryContextAllocHuge(CurrentMemoryContext, WORK_SIZE(count));
	memcpy(work, count, MAXALIGN(sizeof(Work)) + sizeof(WorkPart) * count->nparts);
	for (int64 i = 0; i < work->nparts; i++)
	{
		WORK_PARTS(work)[i].first = sum;
		sum += WORK_PARTS(work)[i].nblocks;
		WORK_PARTS(work)[i].nblocks = 0;
	}
	each_block(work, packed, last_part, true);
	pfree(count);
	/* the largest first, so that nobody comes to it last */
	qsort(WORK_PARTS(work), work->nparts, sizeof(WorkPart), compare_parts);
	return work;
}

/* ---- events --------------------------------------------------------------- */

/* A record more. */
static inline void
add_record(Pack *p, uint32 customer, uint32 user, uint32 event, TimestampTz at, uint32 extra)
{
	Record *r;

	if (p->n == p->size)
	{
		p->size = p->size ? Min(p->size * 2, MAX_RECORDS) : 1024;
		p->records = p->records ? repalloc_huge(p->records, mul_size(sizeof(Record), p->size))
								: MemoryContextAlloc(p->cxt, sizeof(Record) * p->size);
	}
	r = &p->records[p->n++];
	r->at = at;
	r->customer = customer;
	r->user = user;
	r->event = event;
	r->extra = extra;
}

/* What a record says besides; len 0: no quantity.  Its place, from 1. */
static uint32
add_extra(Pack *p, const char *quantity, uint32 len, int64 count)
{
	Extra *x;

	if (p->nextras == p->extras_size)
	{
		p->extras_size = Max(1024, p->extras_size * 2);
		p->extras = p->extras ? repalloc_huge(p->extras, mul_size(sizeof(Extra), p->extras_size))
							  : MemoryContextAlloc(p->name_cxt, sizeof(Extra) * p->extras_size);
	}
	x = &p->extras[p->nextras++];
	x->count = count;
	memset(&x->qty, 0, sizeof(CsQty));
	if (len > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(p->name_cxt);
		Numeric n = palloc(len);

		memcpy(n, quantity, len);
		x->qty = cs_qty_from_numeric(n);
		if (!x->qty.big)
			pfree(n);
		MemoryContextSwitchTo(old);
	}
	return p->nextras;
}

static inline const char *
take(const char *from, void *to, Size len)
{
	memcpy(to, from, len);
	return from + len;
}

static inline const char *
take_string(const char *from, const char **s, uint32 *len)
{
	*len = (uint8) *from++;
	if (*len == CS_SPILL_LONG)
		from = take(from, len, sizeof(*len));
	*s = from;
	return from + *len;
}

static uint32
uuid_label(Pack *p, Labels *d, const char *bytes, bool *fresh)
{
	static const char digits[] = "0123456789abcdef";
	char text[36];
	char *to = text;

	for (int i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*to++ = '-';
		*to++ = digits[(uint8) bytes[i] >> 4];
		*to++ = digits[(uint8) bytes[i] & 15];
	}
	return cs_pack_text(p, d, text, sizeof(text), fresh);
}

/* The label of a key, and what is behind it. */
static inline const char *
take_key(Pack *p, Labels *d, Oid type, const char *from, uint32 *label, bool *fresh)
{
	switch (type)
	{
		case INT4OID:
		{
			int32 number;

			from = take(from, &number, sizeof(number));
			*label = cs_pack_number(p, d, number, fresh);
			return from;
		}
		case INT8OID:
		{
			int64 number;

			from = take(from, &number, sizeof(number));
			*label = cs_pack_number(p, d, number, fresh);
			return from;
		}
		case UUIDOID:
			*label = uuid_label(p, d, from, fresh);
			return from + UUID_LEN;
		default:
		{
			const char *s;
			uint32 len;

			from = take_string(from, &s, &len);
			*label = cs_pack_text(p, d, s, len, fresh);
			return from;
		}
	}
}

/* Whether a customer's hash is below the bound; the label keeps it. */
static inline bool
is_asked_for(Pack *p, uint32 id, bool fresh)
{
	Label *l;

	if (p->hi == CS_SLICES)
		return true;
	l = &p->customers.labels[id];
	if (fresh)
		l->wanted = cs_usage_slice(l->s, l->len) < p->hi;
	return l->wanted;
}

/* All events of a block. */
static void
take_block(Pack *p, const CsSpillFile *file, const char *from, const char *end)
{
	while (from < end)
	{
		TimestampTz at;
		uint8 flags;
		uint32 customer;
		uint32 user;
		uint32 event;
		uint32 extra = 0;
		bool wanted;
		bool fresh;

		from = take(from, &at, sizeof(at));
		from = take(from, &flags, sizeof(flags));
		from = take_key(p, &p->customers, file->customer_type, from, &customer, &fresh);
		wanted = is_asked_for(p, customer, fresh);
		if (flags & CS_SPILL_NO_USER)
			user = cs_pack_null(p, &p->users);
		else
			from = take_key(p, &p->users, file->user_type, from, &user, &fresh);
		if (flags & CS_SPILL_NO_EVENT)
			event = cs_pack_null(p, &p->names);
		else
			from = take_key(p, &p->names, TEXTOID, from, &event, &fresh);
		if (flags & CS_SPILL_EXTRA)
		{
			int64 count;
			const char *quantity;
			uint32 len;

			from = take(from, &count, sizeof(count));
			from = take_string(from, &quantity, &len);
			if (wanted)
				extra = add_extra(p, quantity, len, count);
		}
		if (wanted)
			add_record(p, customer, user, event, at, extra);
		/* who is not asked for has a label, too */
		if (p->n >= MAX_RECORDS || p->arena_used + p->tables >= MAX_NAMES)
			cs_pack_encode(p);
	}
}

/* ---- parts ---------------------------------------------------------------- */

static Reader *
start_reader(Work *work)
{
	Reader *r = palloc0(sizeof(Reader));
	Pack *p = palloc0(sizeof(Pack));

	r->work = work;
	r->pack = p;
	r->files = palloc0(sizeof(File) * work->nfiles);
	r->part =
		AllocSetContextCreate(CurrentMemoryContext, "cs_ext usage part", ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&r->out);
	p->cxt = CurrentMemoryContext;
	p->name_cxt = AllocSetContextCreate(CurrentMemoryContext, "cs_ext usage names", 0, 256 * 1024,
										8 * 1024 * 1024);
	p->hi = work->hi;
	p->zone = pg_tzset(work->zone);
	if (p->zone == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("time zone \"%s\" not recognized", work->zone)));
	cs_pack_start_labels(p);
	return r;
}

static void
read_block(Reader *r, const PackBlock *b)
{
	CsSpillFile *file = &WORK_FILES(r->work)[b->file];
	uint32 done = 0;

	CHECK_FOR_INTERRUPTS();
	if (r->files[b->file] == 0)
		r->files[b->file] = FileSetOpen(&r->work->files, file->name, O_RDONLY);
	if (b->len > r->block_size)
	{
		if (r->block != NULL)
			pfree(r->block);
		r->block_size = b->len;
		r->block = MemoryContextAllocHuge(r->pack->cxt, b->len);
	}
	while (done < b->len)
	{
		int n = FileRead(r->files[b->file], r->block + done, Min(b->len - done, 1 << 30),
						 b->offset + done, WAIT_EVENT_BUFFILE_READ);

		if (n < 0)
			ereport(ERROR, (errcode_for_file_access(), errmsg("could not read file \"%s\": %m",
															  FilePathName(r->files[b->file]))));
		if (n == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED), errmsg("temporary file \"%s\" is too short",
															 FilePathName(r->files[b->file]))));
		done += n;
	}
	take_block(r->pack, file, r->block, r->block + b->len);
}

/* Ids of what types these are told apart as: numbers are labels of their own. */
static bool
same_keys(const CsSpillFile *a, const CsSpillFile *b)
{
	return (a->customer_type == INT4OID || a->customer_type == INT8OID) ==
			   (b->customer_type == INT4OID || b->customer_type == INT8OID) &&
		   (a->user_type == INT4OID || a->user_type == INT8OID) ==
			   (b->user_type == INT4OID || b->user_type == INT8OID);
}

/* Encode the next part; false: there is none. */
static bool
next_part(Reader *r)
{
	Pack *p = r->pack;
	uint32 i = pg_atomic_fetch_add_u32(&r->work->next, 1);
	const WorkPart *part;
	const PackBlock *blocks;

	if (i >= r->work->nparts)
		return false;
	part = &WORK_PARTS(r->work)[i];
	blocks = &WORK_BLOCKS(r->work)[part->first];
	for (int64 j = 0; j < part->nblocks; j++)
	{
		if (j > 0 && !same_keys(&WORK_FILES(r->work)[blocks[j - 1].file],
								&WORK_FILES(r->work)[blocks[j].file]))
			cs_pack_encode(p);
		read_block(r, &blocks[j]);
	}
	cs_pack_encode(p);
	r->at = 0;
	if (p->nruns > 1)
	{
		MemoryContext old = MemoryContextSwitchTo(r->part);

		r->merge = cs_runs_merge();
		for (int j = 0; j < p->nruns; j++)
			cs_runs_add(r->merge, p->runs[j].data, p->runs[j].len);
		MemoryContextSwitchTo(old);
	}
	return true;
}

static void
end_part(Reader *r)
{
	for (int i = 0; i < r->pack->nruns; i++)
		pfree(r->pack->runs[i].data);
	r->pack->nruns = 0;
	r->merge = NULL;
	MemoryContextReset(r->part);
}

/* Some entries; false: all parts are done. */
static bool
next_batch(Reader *r, char **data, int64 *len)
{
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (r->merge != NULL)
		{
			resetStringInfo(&r->out);
			while (r->out.len < BATCH && cs_runs_next(r->merge, &r->out))
				;
			*data = r->out.data;
			*len = r->out.len;
		}
		else if (r->pack->nruns > 0)
		{
			Run *run = &r->pack->runs[0];
			int64 from = r->at;
			CsRunEntry entry;

			while (r->at < run->len && r->at - from < BATCH)
				cs_run_read(run->data, &r->at, &entry);
			*data = run->data + from;
			*len = r->at - from;
		}
		else
			*len = 0;
		if (*len > 0)
			return true;
		end_part(r);
		if (!next_part(r))
			return false;
	}
}

static void
end_reader(Reader *r)
{
	for (int64 i = 0; i < r->work->nfiles; i++)
	{
		if (r->files[i] != 0)
			FileClose(r->files[i]);
	}
}

/* ---- workers -------------------------------------------------------------- */

extern PGDLLEXPORT void cs_usage_unpack_main(dsm_segment *seg, shm_toc *toc);

/*
 * cs_usage_unpack_main: a worker.  Where nobody listens any more it ends.
 */
void
cs_usage_unpack_main(dsm_segment *seg, shm_toc *toc)
{
	Work *work = shm_toc_lookup(toc, KEY_WORK, false);
	char *queues = shm_toc_lookup(toc, KEY_QUEUES, false);
	shm_mq *queue = (shm_mq *) (queues + (Size) ParallelWorkerNumber * QUEUE);
	Reader *r = start_reader(work);
	shm_mq_handle *to;
	char *data;
	int64 len;

	shm_mq_set_sender(queue, MyProc);
	to = shm_mq_attach(queue, seg, NULL);
	while (next_batch(r, &data, &len))
	{
		if (shm_mq_send(to, len, data, false, true) != SHM_MQ_SUCCESS)
			break;
	}
	end_reader(r);
	shm_mq_detach(to);
}

static void
start_workers(CsUnpack *u, int n)
{
	ParallelContext *w;
	Work *work;
	char *queues;

	/* what is written while workers run needs one, and none can be had then */
	(void) GetCurrentTransactionId();
	EnterParallelMode();
	w = CreateParallelContext("$libdir/cs_ext", "cs_usage_unpack_main", n);
	shm_toc_estimate_chunk(&w->estimator, WORK_SIZE(u->work));
	shm_toc_estimate_chunk(&w->estimator, mul_size(QUEUE, n));
	shm_toc_estimate_keys(&w->estimator, 2);
	PushActiveSnapshot(GetTransactionSnapshot());
	InitializeParallelDSM(w);
	PopActiveSnapshot();
	if (w->seg == NULL)
	{
		/* no shared memory to be had */
		DestroyParallelContext(w);
		ExitParallelMode();
		return;
	}
	work = shm_toc_allocate(w->toc, WORK_SIZE(u->work));
	memcpy(work, u->work, WORK_SIZE(u->work));
	shm_toc_insert(w->toc, KEY_WORK, work);
	queues = shm_toc_allocate(w->toc, mul_size(QUEUE, n));
	shm_toc_insert(w->toc, KEY_QUEUES, queues);
	u->queues = palloc0(sizeof(shm_mq_handle *) * n);
	for (int i = 0; i < n; i++)
	{
		shm_mq *queue = shm_mq_create(queues + (Size) i * QUEUE, QUEUE);

		shm_mq_set_receiver(queue, MyProc);
		u->queues[i] = shm_mq_attach(queue, w->seg, NULL);
	}
	LaunchParallelWorkers(w);
	u->workers = w;
	u->nqueues = w->nworkers_launched;
	for (int i = 0; i < u->nqueues; i++)
		shm_mq_set_handle(u->queues[i], w->worker[i].bgwhandle);
	if (u->nqueues > 0)
		pg_atomic_write_u32(&u->work->next, u->work->nparts);
}

static void
end_workers(CsUnpack *u)
{
	if (u->workers == NULL)
		return;
	WaitForParallelWorkersToFinish(u->workers);
	DestroyParallelContext(u->workers);
	ExitParallelMode();
	u->workers = NULL;
}

/* What any worker sent; false: all have ended. */
static bool
receive(CsUnpack *u)
{
	int waiting = 0;

	while (u->nqueues > 0)
	{
		Size len;
		void *data;
		shm_mq_result result;

		CHECK_FOR_INTERRUPTS();
		u->queue %= u->nqueues;
		result = shm_mq_receive(u->queues[u->queue], &len, &data, true);
		if (result == SHM_MQ_SUCCESS)
		{
			u->data = data;
			u->len = len;
			u->at = 0;
			return true;
		}
		if (result == SHM_MQ_DETACHED)
		{
			shm_mq_detach(u->queues[u->queue]);
			u->queues[u->queue] = u->queues[--u->nqueues];
			waiting = 0;
			continue;
		}
		u->queue++;
		if (++waiting >= u->nqueues)
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH, 0,
							 WAIT_EVENT_EXECUTE_GATHER);
			ResetLatch(MyLatch);
			waiting = 0;
		}
	}
	return false;
}

/* ---- outside -------------------------------------------------------------- */

/*
 * cs_unpack: see usage_unpack.h.  Little is read faster than workers start.
 */
CsUnpack *
cs_unpack(const FileSet *files, List *packed, int64 lo, int64 width, int64 hi, const char *zone)
{
	CsUnpack *u = palloc0(sizeof(CsUnpack));
	int n = Min(max_parallel_workers_per_gather, max_parallel_workers);

	u->work = make_work(files, packed, lo, width, hi, zone);
	if (n > 0 && u->work->bytes >= (int64) min_parallel_table_scan_size * BLCKSZ)
		start_workers(u, n);
	return u;
}

/*
 * cs_unpack_next: see usage_unpack.h.
 */
bool
cs_unpack_next(CsUnpack *u, CsRunEntry *entry)
{
	while (u->at >= u->len)
	{
		if (receive(u))
			continue;
		end_workers(u);
		if (u->reader == NULL)
			u->reader = start_reader(u->work);
		if (!next_batch(u->reader, &u->data, &u->len))
		{
			end_reader(u->reader);
			return false;
		}
		u->at = 0;
	}
	cs_run_read(u->data, &u->at, entry);
	return true;
}
