/*
 * plan.c
 *		Plans kept for the session.
 *
 * A statement is parsed and analysed once a session, and where few rows are at
 * stake (one customer refreshed) planned once; where many are it is planned for
 * the rows at hand, which costs little beside them.
 *
 * A plan is found by the statement's text, the types of its arguments, what
 * settings it was read under, and the row types and sizes of the relations
 * registered in the frame that it reads; a user's query by all that are
 * registered, for one of them may hide a table of the same name.
 *
 * For the customers of a batch a statement says = ANY ((SELECT $1)::text[]) where
 * their rows are found by an index in any case: as a constant the planner looks each
 * of thousands of ids up in the statistics, which over all statements of a batch
 * was a tenth of evaluating it.  Where rows are filtered by the array instead it
 * must stay a constant, for only such a one is hashed.
 *
 * Cases.
 * DDL, changed functions, rights, row security: PostgreSQL's plan cache notices
 * and analyses anew; a user's query is then checked anew, see spi.c.
 * Tables that grow: a plan made once is made again after PLAN_SECONDS, and each
 * time it was used twice as often, so that one made for an empty table does not
 * outlive the table's being empty.
 * Error while a plan is made: nothing is kept.
 * Nested frames (a rule calls a function that enters one): what is running is
 * never freed; it is taken out of the table and freed from an outermost frame.
 * Many different statements: at MAX_PLANS, or MAX_TEXT bytes of text, all go.
 */
#include "cs_ext.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"
#include "port/pg_bitutils.h"
#include "utils/array.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "core/plan.h"

#define MAX_PLANS 1000
#define MAX_TEXT (16 * 1024 * 1024)
#define PLAN_SECONDS 30
#define FIRST_AGAIN 16

/* Up to so many rows or keys one plan serves all. */
#define FEW_ROWS 8

/* Size of a relation that the plan only must not mistake for a table. */
#define UNREAD (-1)

/* ---- relations of the frame --------------------------------------------- */

typedef struct Seen
{
	const char *name;
	TupleDesc desc;
	int size; /* its class, or UNREAD */
	struct Seen *next;
} Seen;

/* Lives in the frame's SPI memory; goes with it, by error or not. */
typedef struct Frame
{
	Seen *relations;
	int nrelations;
	MemoryContext memory;
	struct Frame *outer;
	MemoryContextCallback gone;
} Frame;

static Frame *frame = NULL;

static void
frame_gone(void *arg)
{
	for (Frame **f = &frame; *f != NULL; f = &(*f)->outer)
		if (*f == arg)
		{
			*f = (*f)->outer;
			return;
		}
}

/*
 * cs_plan_frame: to be called with the frame's SPI memory current.
 */
void
cs_plan_frame(void)
{
	Frame *f = palloc0(sizeof(Frame));

	f->memory = CurrentMemoryContext;
	f->outer = frame;
	f->gone.func = frame_gone;
	f->gone.arg = f;
	MemoryContextRegisterResetCallback(f->memory, &f->gone);
	frame = f;
}

/*
 * size_class: 0 for few; else rows that differ by less than four times are one.
 */
static int
size_class(uint64 rows)
{
	return rows <= FEW_ROWS ? 0 : pg_leftmost_one_pos64(rows) / 2;
}

void
cs_plan_no_relation(const char *name)
{
	for (Seen **r = &frame->relations; *r != NULL; r = &(*r)->next)
		if (strcmp((*r)->name, name) == 0)
		{
			*r = (*r)->next;
			frame->nrelations--;
			return;
		}
}

void
cs_plan_relation(const char *name, const CsResult *rows)
{
	Seen *r;

	cs_plan_no_relation(name);
	r = MemoryContextAlloc(frame->memory, sizeof(Seen));
	r->name = MemoryContextStrdup(frame->memory, name);
	r->desc = rows->desc;
	r->size = size_class(rows->nrows);
	r->next = frame->relations;
	frame->relations = r;
	frame->nrelations++;
}

static Seen *
find_relation(const char *name)
{
	for (Seen *r = frame->relations; r != NULL; r = r->next)
		if (strcmp(r->name, name) == 0)
			return r;
	return NULL;
}

/* ---- the table of plans --------------------------------------------------- */

typedef struct Kept
{
	CsPlan plan;
	char *key;
	int key_length;
	Seen *relations; /* that it reads; of a user's query all there were */
	int nrelations;
	bool all_relations;
	bool once; /* may be planned once for all values: made again at times */
	int64 uses;
	int64 again_at; /* uses */
	TimestampTz made_at;
	MemoryContext memory;
	struct Kept *next; /* of the same hash, or to be freed */
} Kept;

typedef struct Bucket
{
	uint32 hash; /* key */
	Kept *first;
} Bucket;

static HTAB *plans = NULL;
static int nplans = 0;
static Size text_bytes = 0;
static Kept *to_free = NULL;

/*
 * let_go: out of the table; freed where nothing can be running it.
 */
static void
let_go(Bucket *bucket, Kept *kept)
{
	for (Kept **k = &bucket->first; *k != NULL; k = &(*k)->next)
		if (*k == kept)
		{
			*k = kept->next;
			break;
		}
	kept->next = to_free;
	to_free = kept;
	nplans--;
	text_bytes -= kept->key_length;
}

static void
free_what_may(void)
{
	if (frame->outer != NULL)
		return;
	if (nplans > MAX_PLANS || text_bytes > MAX_TEXT)
	{
		HASH_SEQ_STATUS all;
		Bucket *bucket;

		hash_seq_init(&all, plans);
		while ((bucket = hash_seq_search(&all)) != NULL)
			while (bucket->first != NULL)
				let_go(bucket, bucket->first);
	}
	while (to_free != NULL)
	{
		Kept *kept = to_free;

		to_free = kept->next;
		SPI_freeplan(kept->plan.spi);
		MemoryContextDelete(kept->memory);
	}
}

static Bucket *
bucket_of(uint32 hash)
{
	Bucket *bucket;
	bool found;

	if (plans == NULL)
	{
		HASHCTL ctl = {0};

		ctl.keysize = sizeof(uint32);
		ctl.entrysize = sizeof(Bucket);
		plans = hash_create("cs_ext plans", 256, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	bucket = hash_search(plans, &hash, HASH_ENTER, &found);
	if (!found)
		bucket->first = NULL;
	return bucket;
}

static bool
relations_match(const Kept *kept)
{
	if (kept->all_relations && kept->nrelations != frame->nrelations)
		return false;
	for (Seen *r = kept->relations; r != NULL; r = r->next)
	{
		Seen *here = find_relation(r->name);

		if (here == NULL || (r->size != UNREAD && here->size != r->size) ||
			!equalTupleDescs(here->desc, r->desc))
			return false;
	}
	return true;
}

/*
 * find: a plan that fits and is not due to be made again.  *uses: how often it,
 * or the one it is to replace, was used.
 */
static Kept *
find(const StringInfo key, uint32 hash, int64 *uses)
{
	Bucket *bucket = bucket_of(hash);

	*uses = 0;
	for (Kept *kept = bucket->first; kept != NULL; kept = kept->next)
	{
		if (kept->key_length != key->len || memcmp(kept->key, key->data, key->len) != 0 ||
			!relations_match(kept))
			continue;
		*uses = ++kept->uses;
		if ((kept->plan.checked == NIL || SPI_plan_is_valid(kept->plan.spi)) &&
			(!kept->once || (kept->uses < kept->again_at &&
							 GetCurrentTimestamp() < kept->made_at + PLAN_SECONDS * USECS_PER_SEC)))
			return kept;
		let_go(bucket, kept);
		return NULL;
	}
	return NULL;
}

/*
 * collect_relations: names of registered relations that a query reads.
 */
static bool
collect_relations(Node *node, List **names)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		if (rte->rtekind == RTE_NAMEDTUPLESTORE)
			*names = lappend(*names, rte->enrname);
		return false; /* query_tree_walker goes on into it */
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, collect_relations, names, QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, collect_relations, names);
}

/*
 * remember_relation: a copy into the plan's memory.
 */
static void
remember_relation(Kept *kept, const Seen *relation, int size)
{
	Seen *copy;

	for (copy = kept->relations; copy != NULL; copy = copy->next)
		if (strcmp(copy->name, relation->name) == 0)
			return;
	copy = palloc(sizeof(Seen));
	copy->name = pstrdup(relation->name);
	copy->desc = CreateTupleDescCopy(relation->desc);
	copy->size = size;
	copy->next = kept->relations;
	kept->relations = copy;
	kept->nrelations++;
}

/*
 * read_relations: those that the plan reads, with their sizes.
 */
static void
read_relations(Kept *kept)
{
	List *names = NIL;
	ListCell *lc;
	ListCell *tree;

	foreach (lc, SPI_plan_get_plan_sources(kept->plan.spi))
		foreach (tree, ((CachedPlanSource *) lfirst(lc))->query_list)
			(void) collect_relations(lfirst(tree), &names);
	foreach (lc, names)
	{
		Seen *relation = find_relation(lfirst(lc));

		if (relation != NULL)
			remember_relation(kept, relation, relation->size);
	}
}

/*
 * keep: into the table.  The plan was just prepared and is still the caller's.
 * size: class of the largest array argument, UNREAD when there is none.
 *
 * Few rows: planned once for all values.  Many: for those at hand, each time.
 * Nothing that tells how many, or a user's query, whose tables may be of any
 * size: PostgreSQL decides.
 */
static CsPlan *
keep(const CsPlan *plan, const StringInfo key, uint32 hash, bool user, int size, int64 uses)
{
	MemoryContext memory =
		AllocSetContextCreate(CurrentMemoryContext, "cs_ext plan", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(memory);
	Kept *kept = palloc0(sizeof(Kept));
	Bucket *bucket = bucket_of(hash);
	int options = 0;
	ListCell *lc;

	kept->plan = *plan;
	kept->plan.kept = kept;
	kept->key = palloc(key->len);
	memcpy(kept->key, key->data, key->len);
	kept->key_length = key->len;
	kept->memory = memory;
	read_relations(kept);
	for (Seen *r = kept->relations; r != NULL; r = r->next)
		size = Max(size, r->size);
	kept->all_relations = user;
	for (Seen *r = frame->relations; user && r != NULL; r = r->next)
		remember_relation(kept, r, UNREAD);
	kept->once = size <= 0;
	kept->uses = uses;
	kept->again_at = Max(FIRST_AGAIN, 2 * uses);
	kept->made_at = GetCurrentTimestamp();
	MemoryContextSwitchTo(old);

	if (size > 0)
		options = CURSOR_OPT_CUSTOM_PLAN;
	else if (size == 0 && !user)
		options = CURSOR_OPT_GENERIC_PLAN;
	foreach (lc, SPI_plan_get_plan_sources(plan->spi))
		((CachedPlanSource *) lfirst(lc))->cursor_options |= options;
	if (SPI_keepplan(plan->spi) != 0)
		elog(ERROR, "could not keep a plan");
	MemoryContextSetParent(memory, CacheMemoryContext);
	kept->next = bucket->first;
	bucket->first = kept;
	nplans++;
	text_bytes += key->len;
	return &kept->plan;
}

void
cs_plan_release(CsPlan *plan)
{
	if (plan->kept == NULL)
		SPI_freeplan(plan->spi);
}

/* ---- our statements ------------------------------------------------------- */

/*
 * array_size: class of the number of elements.
 */
static int
array_size(Datum array)
{
	ArrayType *a = DatumGetArrayTypeP(array);

	return size_class(ArrayGetNItems(ARR_NDIM(a), ARR_DIMS(a)));
}

/*
 * is_utility: whether anything in it has no plan.
 */
static bool
is_utility(SPIPlanPtr spi)
{
	ListCell *lc;
	ListCell *tree;

	foreach (lc, SPI_plan_get_plan_sources(spi))
		foreach (tree, ((CachedPlanSource *) lfirst(lc))->query_list)
			if (lfirst_node(Query, tree)->commandType == CMD_UTILITY)
				return true;
	return false;
}

/*
 * cs_plan_own: see plan.h.
 */
CsPlan *
cs_plan_own(const char *sql, const CsArg *args, int nargs)
{
	StringInfoData key;
	Oid *types = palloc(sizeof(Oid) * (nargs + 1));
	int size = UNREAD;
	int64 uses;
	uint32 hash;
	Kept *found;
	CsPlan *plan;

	if (frame == NULL)
		elog(ERROR, "a statement of ours outside a frame: %s", sql);
	free_what_may();
	initStringInfo(&key);
	appendStringInfoChar(&key, 'o');
	for (int i = 0; i < nargs; i++)
	{
		types[i] = args[i].type;
		appendBinaryStringInfo(&key, (char *) &types[i], sizeof(Oid));
		if (args[i].type == TEXTARRAYOID && !args[i].isnull)
		{
			int of_array = array_size(args[i].value);

			size = Max(size, of_array);
			appendStringInfoChar(&key, (char) of_array);
		}
	}
	types[nargs] = INT4OID;
	appendStringInfoString(&key, sql);
	hash = hash_bytes((unsigned char *) key.data, key.len);
	found = find(&key, hash, &uses);
	if (found != NULL)
		plan = &found->plan;
	else
	{
		plan = palloc0(sizeof(CsPlan));
		plan->spi = SPI_prepare(sql, nargs + 1, types);
		if (plan->spi == NULL)
			elog(ERROR, "SPI_prepare failed: %s: %s", SPI_result_code_string(SPI_result), sql);
		if (!is_utility(plan->spi))
			plan = keep(plan, &key, hash, false, size, uses);
	}
	pfree(key.data);
	pfree(types);
	return plan;
}

/* ---- users' queries --------------------------------------------------------- */

/*
 * cs_plan_user: see plan.h.
 */
CsPlan *
cs_plan_user(const CsUserQuery *query, const char *setting,
			 void (*make)(CsPlan *plan, const CsUserQuery *query))
{
	StringInfoData key;
	int size = UNREAD;
	int64 uses;
	uint32 hash;
	Kept *found;

	free_what_may();
	initStringInfo(&key);
	appendStringInfoChar(&key, 'u');
	appendBinaryStringInfo(&key, (const char *) &query->key_type, sizeof(Oid));
	if (OidIsValid(query->key_type))
	{
		size = array_size(query->keys);
		appendStringInfoChar(&key, (char) size);
	}
	appendStringInfoString(&key, setting);
	appendStringInfoChar(&key, '\0');
	appendStringInfoString(&key, query->sql);
	hash = hash_bytes((unsigned char *) key.data, key.len);
	found = find(&key, hash, &uses);
	if (found == NULL)
	{
		CsPlan plan = {.key_type = query->key_type};

		make(&plan, query);
		found = keep(&plan, &key, hash, true, size, uses)->kept;
	}
	pfree(key.data);
	return &found->plan;
}
