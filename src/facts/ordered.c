/*
 * ordered.c
 *		All rows of a source in order of customer.
 *
 * In: the usable rows of a source, read once as policy.run_as.  Out: the same
 * rows, ids as C orders them, one at a time.
 *
 * What fits into memory is read as it comes and sorted here: the first bytes of an
 * id stand next to the row, so rows of one customer are found equal without
 * a look at them, which the executor's sort takes for each.  What does not is
 * sorted by the query, whose workers and files are for that.  Which of both is
 * guessed from the size of the relation; where there proves to be more than
 * was guessed, the source is read once more.
 */
#include "cs_ext.h"

#include <unistd.h>

#include "access/relation.h"
#include "access/table.h"
#include "optimizer/cost.h"
#include "optimizer/plancat.h"
#include "port/pg_bswap.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "core/radix.h"
#include "facts/ordered.h"

/* What a row takes in memory, about: it stands in a tuplestore, and its place in the order, twice. */
#define ROW_BYTES 144

/*
 * How far ahead rows are fetched from memory, where they do not stand in order,
 * and how many at a time: the processor waits for the page of each, and for those
 * of several only when they are asked for in one go.
 */
#define AHEAD 32

/*
 * cs_id_cmp: see ordered.h.
 */
int
cs_id_cmp(const text *a, const text *b)
{
	int la = VARSIZE_ANY_EXHDR(a);
	int lb = VARSIZE_ANY_EXHDR(b);
	int cmp = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(la, lb));

	return cmp != 0 ? cmp : la - lb;
}

/*
 * cs_user_query_whole: see ordered.h.
 */
CsResult *
cs_user_query_whole(const CsUserQuery *query, ErrorData **error)
{
	int level = NewGUCNestLevel();
	CsResult *rows;

#ifdef _SC_NPROCESSORS_ONLN
	if (max_parallel_workers_per_gather >= 2 &&
		sysconf(_SC_NPROCESSORS_ONLN) <= max_parallel_workers_per_gather)
		(void) set_config_option("parallel_leader_participation", "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
#endif
	rows = cs_user_query(query, error);
	AtEOXact_GUC(true, level);
	return rows;
}

/* ---- in memory ----------------------------------------------------------------- */

/*
 * A row in memory.  Its key is the first bytes of the id, zeros behind them, which
 * compare as the id does.
 */
static inline MinimalTuple
tuple_of(const CsRadix *row)
{
	return (MinimalTuple) (uintptr_t) row->item;
}

/* The id that a row begins with; it is not NULL. */
static const text *
id_of(MinimalTuple tuple)
{
	return (const text *) ((const char *) tuple + tuple->t_hoff - MINIMAL_TUPLE_OFFSET);
}

static inline int
row_cmp(const CsRadix *a, const CsRadix *b)
{
	if (a->key != b->key)
		return a->key < b->key ? -1 : 1;
	/* a zero at its end: the whole id is in it */
	if ((a->key & 0xFF) == 0)
		return 0;
	return cs_id_cmp(id_of(tuple_of(a)), id_of(tuple_of(b)));
}

#define ST_SORT sort_alike
#define ST_ELEMENT_TYPE CsRadix
#define ST_COMPARE(a, b) row_cmp(a, b)
#define ST_SCOPE static
#define ST_CHECK_FOR_INTERRUPTS
#define ST_DEFINE
#include "lib/sort_template.h"

/* Rows in order of their ids; returns where they stand, as cs_radix_sort does. */
static CsRadix *
sort_rows(CsRadix *rows, CsRadix *other, uint64 n)
{
	uint64 end;

	rows = cs_radix_sort(rows, other, n);
	for (uint64 begin = 0; begin < n; begin = end)
	{
		for (end = begin + 1; end < n && rows[end].key == rows[begin].key;)
			end++;
		if (end - begin > 1 && (rows[begin].key & 0xFF) != 0)
			sort_alike(&rows[begin], end - begin);
	}
	return rows;
}

/* Whether the rows of a relation can be expected to fit into memory. */
static bool
may_fit(Oid relid)
{
	Relation rel = try_relation_open(relid, AccessShareLock);
	BlockNumber pages;
	double tuples = -1;
	double visible;

	if (rel == NULL)
		return false;
	if (rel->rd_rel->relkind == RELKIND_RELATION || rel->rd_rel->relkind == RELKIND_MATVIEW)
		estimate_rel_size(rel, NULL, &pages, &tuples, &visible);
	relation_close(rel, AccessShareLock);
	return tuples >= 0 && tuples * ROW_BYTES < CS_RESULT_MEM * 1024.0;
}

/* Sorts the rows, which stay where they are. */
static void
sort_in_memory(CsOrdered *o)
{
	Size size = sizeof(CsRadix) * (o->rows->nrows + 1);
	CsRadix *rows = MemoryContextAllocHuge(CurrentMemoryContext, size);
	CsRadix *other = MemoryContextAllocHuge(CurrentMemoryContext, size);

	while (tuplestore_gettupleslot(o->rows->store, true, false, o->slot))
	{
		CsRadix *row = &rows[o->nsorted];
		bool isnull;
		bool should_free;
		const text *id;
		uint64 head = 0;
		Size len;

		CHECK_FOR_INTERRUPTS();
		id = (const text *) DatumGetPointer(slot_getattr(o->slot, 1, &isnull));
		if (isnull)
			continue;
		row->item = (uintptr_t) ExecFetchSlotMinimalTuple(o->slot, &should_free);
		Assert(!should_free && id == id_of(tuple_of(row)));
		len = VARSIZE_ANY_EXHDR(id);
		memcpy(&head, VARDATA_ANY(id), Min(len, sizeof(head)));
		row->key = pg_ntoh64(head);
		o->nsorted++;
	}
	ExecClearTuple(o->slot);
	o->sorted = sort_rows(rows, other, o->nsorted);
	pfree(o->sorted == rows ? other : rows);
}

/* ---- reading ------------------------------------------------------------------- */

/*
 * cs_ordered_open: see ordered.h.
 */
CsOrdered *
cs_ordered_open(const CsSource *source, const char *select, const char *then,
				const CsPolicy *policy, const char **error)
{
	CsOrdered *o = palloc0(sizeof(CsOrdered));
	CsUserQuery query = {0};
	ErrorData *edata = NULL;
	bool in_memory;
	char *sql;
	int level;

	if (!OidIsValid(source->relid))
	{
		*error = "the relation is gone";
		return NULL;
	}
	sql = psprintf(select, cs_source_id(source, "r.customer_key"),
				   cs_source_rows(source, false, false));
	query.search_path = source->search_path;
	query.as_of = cs_now();
	query.as_of_day = cs_local_day(query.as_of, policy->time_zone);
	query.unlimited = true;

	in_memory = then == NULL && may_fit(source->relid);
	/* rows that wait here for the last one may as well come from workers, at no cost to be weighed */
	level = NewGUCNestLevel();
	if (in_memory)
		(void) set_config_option("parallel_tuple_cost", "0", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	query.sql = in_memory ? sql : psprintf("%s ORDER BY 1%s", sql, then ? then : "");
	o->rows = cs_user_query_whole(&query, &edata);
	AtEOXact_GUC(true, level);
	if (in_memory && o->rows != NULL && !tuplestore_in_memory(o->rows->store))
	{
		tuplestore_end(o->rows->store);
		in_memory = false;
		query.sql = psprintf("%s ORDER BY 1", sql);
		o->rows = cs_user_query_whole(&query, &edata);
	}
	if (o->rows == NULL)
	{
		*error = edata->message;
		return NULL;
	}
	o->slot = MakeSingleTupleTableSlot(o->rows->desc, &TTSOpsMinimalTuple);
	tuplestore_rescan(o->rows->store);
	if (in_memory)
		sort_in_memory(o);
	cs_ordered_next(o);
	return o;
}

/* Fetches the rows behind the next AHEAD from memory. */
static void
fetch_ahead(const CsOrdered *o)
{
	uint64 end = Min(o->next + 2 * AHEAD, o->nsorted);

	for (uint64 i = o->next + AHEAD; i < end; i++)
	{
		const char *tuple = (const char *) tuple_of(&o->sorted[i]);

		__builtin_prefetch(tuple);
		__builtin_prefetch(tuple + PG_CACHE_LINE_SIZE / 2);
	}
}

/*
 * cs_ordered_next: see ordered.h.
 */
void
cs_ordered_next(CsOrdered *o)
{
	MemoryContext old;
	bool isnull;

	if (o->sorted != NULL)
	{
		o->id = NULL;
		if (o->next == o->nsorted)
			return;
		if (o->next % AHEAD == 0)
			fetch_ahead(o);
		ExecStoreMinimalTuple(tuple_of(&o->sorted[o->next++]), o->slot, false);
		o->id = (text *) DatumGetPointer(slot_getattr(o->slot, 1, &isnull));
		return;
	}
	/* a row that waited in a file belongs to the slot, which outlives the customer */
	old = MemoryContextSwitchTo(o->slot->tts_mcxt);
	do
	{
		o->id = NULL;
		if (!tuplestore_gettupleslot(o->rows->store, true, false, o->slot))
			break;
		o->id = (text *) DatumGetPointer(slot_getattr(o->slot, 1, &isnull));
	} while (isnull);
	MemoryContextSwitchTo(old);
}

/*
 * cs_ordered_close: see ordered.h.
 */
void
cs_ordered_close(CsOrdered *o)
{
	ExecDropSingleTupleTableSlot(o->slot);
	tuplestore_end(o->rows->store);
	if (o->sorted != NULL)
		pfree(o->sorted);
	pfree(o);
}
