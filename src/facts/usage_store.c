/*
 * usage_store.c
 *		Rows of the rollup found by their keys, and replaced where they stand.
 *
 * In: usage_month, usage_delta and usage_sealed, by their primary keys, on the
 * snapshot that a statement would have here.  Out: for evaluate one stamped
 * value per customer; for changes, rows of usage_month with some days as the
 * facts have them now.
 *
 * A refresh that touches everybody finds one or two rows of each customer here.
 * As statements (a join, a delete, an upsert, a few aggregates by probes) that
 * was a third of all its time, for copying and for executing, not for the rows.
 *
 * Cases.
 * Concurrent writer: who writes rows of a customer holds the customer's lock
 * (see also core/rewrite.c).
 * Own changes: those of earlier statements and calls are seen, as by a statement.
 * Crash, abort: rows and index entries go with the transaction.
 * Standby: reading works, nothing is written.
 */
#include "cs_ext.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplesort.h"
#include "utils/typcache.h"

#include "core/rewrite.h"
#include "core/texts.h"
#include "facts/usage.h"
#include "facts/usage_month.h"
#include "facts/usage_store.h"
#include "facts/usage_value.h"

/* ---- finding -------------------------------------------------------------- */

/* A table on its way through rows of one customer after the other. */
typedef struct Keyed
{
	Relation rel;
	Relation index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	ScanKeyData keys[3];
	AttrNumber month;
	AttrNumber usage;
	bool empty;            /* nothing to be found */
	bool single;           /* at most one row a month */
	MemoryContext context; /* of the scan, which keeps what it allocates on its way */
} Keyed;

static void
open_keyed(Keyed *k, const char *table, AttrNumber month, AttrNumber usage)
{
	Oid relid = get_relname_relid(table, get_namespace_oid("cs_internal", false));

	k->rel = table_open(relid, AccessShareLock);
	k->month = month;
	k->usage = usage;
	k->context = CurrentMemoryContext;
	k->empty = RelationGetNumberOfBlocks(k->rel) == 0;
	list_free(RelationGetIndexList(k->rel)); /* finds the primary key */
	k->index = index_open(k->rel->rd_pkindex, AccessShareLock);
	k->single = IndexRelationGetNumberOfKeyAttributes(k->index) == 2;
	k->slot = table_slot_create(k->rel, NULL);
	ScanKeyEntryInitialize(&k->keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID,
						   F_TEXTEQ, (Datum) 0);
	ScanKeyEntryInitialize(&k->keys[1], 0, 2, BTGreaterEqualStrategyNumber, InvalidOid, InvalidOid,
						   F_DATE_GE, (Datum) 0);
	ScanKeyEntryInitialize(&k->keys[2], 0, 2, BTLessEqualStrategyNumber, InvalidOid, InvalidOid,
						   F_DATE_LE, (Datum) 0);
	k->scan = cs_index_beginscan(k->rel, k->index, GetActiveSnapshot(), 3);
}

static void
close_keyed(Keyed *k)
{
	index_endscan(k->scan);
	ExecDropSingleTupleTableSlot(k->slot);
	index_close(k->index, AccessShareLock);
	table_close(k->rel, NoLock);
}

/* The months first to last of a customer; the rows come from next_row. */
static void
seek(Keyed *k, Datum customer, DateADT first, DateADT last)
{
	MemoryContext old = MemoryContextSwitchTo(k->context);

	k->keys[0].sk_argument = customer;
	k->keys[1].sk_argument = DateADTGetDatum(first);
	k->keys[2].sk_argument = DateADTGetDatum(last);
	index_rescan(k->scan, k->keys, 3, NULL, 0);
	MemoryContextSwitchTo(old);
}

/* In the order of the key, or backward; false: there are no more. */
static bool
next_row(Keyed *k, ScanDirection direction)
{
	MemoryContext old;
	bool found;

	if (k->empty)
		return false;
	old = MemoryContextSwitchTo(k->context);
	found = index_getnext_slot(k->scan, direction, k->slot);
	MemoryContextSwitchTo(old);
	return found;
}

static DateADT
month_of(const Keyed *k)
{
	bool isnull;

	return DatumGetDateADT(slot_getattr(k->slot, k->month, &isnull));
}

/* As it is stored; good until the next row. */
static struct varlena *
stored_usage(const Keyed *k)
{
	bool isnull;

	return (struct varlena *) DatumGetPointer(slot_getattr(k->slot, k->usage, &isnull));
}

/* A copy in the current memory. */
static struct varlena *
usage_of(const Keyed *k)
{
	return pg_detoast_datum_copy(stored_usage(k));
}

/* A row of usage_month: where it stands, and its value. */
typedef struct Month
{
	DateADT month;
	ItemPointerData tid;
	struct varlena *usage;
} Month;

static Month
this_month(const Keyed *k)
{
	return (Month){month_of(k), k->slot->tts_tid, usage_of(k)};
}

/* One month of some customers, in their order. */
struct CsFoundMonths
{
	DateADT month;
	int n;
	Datum *ids;
	Month *rows; /* usage NULL: there is none */
	Size bytes;
};

/* Of a batch of usual customers it is a hundredth of that. */
#define FOUND_BYTES (16 * 1024 * 1024)

/*
 * find_months: those of one customer: a large one?  One month, as it is the rule,
 * is kept in `found`.
 */
static bool
find_months(Keyed *k, Datum id, DateADT first, DateADT last, CsFoundMonths *found)
{
	seek(k, id, first, last);
	if (found != NULL)
	{
		found->ids[found->n] = id;
		found->rows[found->n].usage = NULL;
	}
	while (next_row(k, ForwardScanDirection))
	{
		if (toast_datum_size(PointerGetDatum(stored_usage(k))) > cs_usage_large)
			return true;
		if (found != NULL && found->bytes <= FOUND_BYTES)
		{
			found->rows[found->n] = this_month(k);
			found->bytes += VARSIZE_ANY(found->rows[found->n].usage);
		}
	}
	if (found != NULL)
		found->n++;
	return false;
}

/*
 * cs_usage_large_ones: see usage_store.h.
 */
Datum
cs_usage_large_ones(Datum ids, DateADT first, DateADT last, int *n, CsFoundMonths **found)
{
	Keyed months;
	Keyed pieces;
	int count;
	Datum *each = cs_text_elements(ids, &count);
	Datum *large = palloc(sizeof(Datum) * (count + 1));

	*n = 0;
	*found = NULL;
	if (first == last)
	{
		*found = palloc0(sizeof(CsFoundMonths));
		(*found)->month = first;
		(*found)->ids = palloc(sizeof(Datum) * (count + 1));
		(*found)->rows = palloc(sizeof(Month) * (count + 1));
	}
	cs_push_snapshot();
	open_keyed(&months, "usage_month", 2, 3);
	open_keyed(&pieces, "usage_delta", 2, 4);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!pieces.empty)
			seek(&pieces, each[i], DATEVAL_NOBEGIN, DATEVAL_NOEND);
		if (next_row(&pieces, ForwardScanDirection) ||
			find_months(&months, each[i], first, last, *found))
			large[(*n)++] = each[i];
	}
	close_keyed(&pieces);
	close_keyed(&months);
	PopActiveSnapshot();
	if (*found != NULL && (*found)->bytes > FOUND_BYTES)
		*found = NULL;
	return cs_text_array(large, *n);
}

/* ---- for evaluate --------------------------------------------------------- */

/* Values of one customer. */
typedef struct Parts
{
	CsUsagePart *parts;
	int n;
	int size;
} Parts;

static void
add_part(Parts *p, struct varlena *value, DateADT lo, DateADT hi)
{
	if (p->n == p->size)
	{
		p->size = Max(8, p->size * 2);
		p->parts = p->parts ? repalloc(p->parts, sizeof(CsUsagePart) * p->size)
							: palloc(sizeof(CsUsagePart) * p->size);
	}
	p->parts[p->n++] = (CsUsagePart){VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), lo, hi};
}

/* A value of the rollup, unless it begins on the day or later. */
static void
add_days_before(Parts *p, struct varlena *value, DateADT day)
{
	CsUsageReader r;

	cs_usage_read_head(&r, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), ERRCODE_DATA_CORRUPTED);
	if (!r.has_instants || cs_usage_day(r.first) < day)
		add_part(p, value, CS_DAY_MIN, day);
}

/*
 * add_months: a customer's rows, the newest first, as far back as `from`, and
 * with `last` down to one before `last_before`.  Returns the month of the oldest.
 */
static DateADT
add_months(Keyed *k, Parts *p, Datum customer, DateADT from, DateADT day, bool last,
		   DateADT last_before)
{
	DateADT oldest = DATEVAL_NOEND;

	if (k->empty)
		return oldest;
	seek(k, customer, last ? DATEVAL_NOBEGIN : from, day);
	while (next_row(k, BackwardScanDirection))
	{
		DateADT month = month_of(k);

		/* of a month there may be several rows */
		if (month < from && oldest < last_before && month != oldest)
			break;
		add_days_before(p, usage_of(k), day);
		oldest = month;
		/* where a month is one row, the one before need not be looked at */
		if (k->single && month <= from && month < last_before)
			break;
	}
	return oldest;
}

/*
 * stamped: the union of the parts.  Mostly there is one, all of it lies before the
 * day, and only its head is written anew.
 */
static struct varlena *
stamped(const Parts *p, DateADT day, bool running)
{
	CsUsageHead head = {.stamped = true, .running = running, .stamp = day};
	CsUsageReader r;
	StringInfoData buf;

	if (p->n != 1)
		return cs_usage_merge(p->parts, p->n, &head);
	cs_usage_read_head(&r, p->parts[0].data, p->parts[0].len, ERRCODE_DATA_CORRUPTED);
	if (!r.has_instants || cs_usage_day(r.last) >= day)
		return cs_usage_merge(p->parts, p->n, &head);
	initStringInfo(&buf);
	enlargeStringInfo(&buf, VARHDRSZ + 16 + (r.end - r.p));
	appendStringInfoSpaces(&buf, VARHDRSZ);
	cs_usage_put_head(&buf, &head);
	appendBinaryStringInfoNT(&buf, (const char *) r.p, r.end - r.p);
	SET_VARSIZE(buf.data, buf.len);
	return (struct varlena *) buf.data;
}

static int
compare_to_id(const void *customer, const void *id)
{
	return cs_compare_texts(*(const Datum *) customer, *(const Datum *) id);
}

/* The place of an id among the sorted ones, -1: it is none of them. */
static int
place_of(Datum id, const Datum *each, int n)
{
	const Datum *found = bsearch(&id, each, n, sizeof(Datum), compare_to_id);

	return found ? (int) (found - each) : -1;
}

/* The values of the running day of each customer. */
static List **
running_of(const Datum *each, int n, CsResult *running)
{
	List **values = palloc0(sizeof(List *) * (n + 1));
	TupleTableSlot *slot;

	if (running == NULL)
		return values;
	slot = MakeSingleTupleTableSlot(running->desc, &TTSOpsMinimalTuple);
	while (tuplestore_gettupleslot(running->store, true, false, slot))
	{
		int place;

		slot_getallattrs(slot);
		if (slot->tts_isnull[0] || slot->tts_isnull[2])
			continue;
		place = place_of(slot->tts_values[0], each, n);
		if (place >= 0)
			values[place] = lappend(values[place], PG_DETOAST_DATUM_COPY(slot->tts_values[2]));
	}
	ExecDropSingleTupleTableSlot(slot);
	return values;
}

/* The ids (text) under which facts stand that count for each customer. */
static List **
facts_of(const Datum *each, int n, const CsWhose *whose)
{
	List **facts = palloc0(sizeof(List *) * (n + 1));

	for (int i = 0; i < n && !whose->merged; i++)
		facts[i] = list_make1(DatumGetPointer(each[i]));
	for (int i = 0; i < whose->n && whose->merged; i++)
	{
		int place = place_of(CStringGetTextDatum(whose->owners[i]), each, n);

		if (place >= 0)
			facts[place] = lappend(facts[place], cstring_to_text(whose->facts[i]));
	}
	return facts;
}

/* The rows of one id, in all three tables. */
static void
add_rows(Keyed *months, Keyed *pieces, Keyed *sealed, Parts *p, Datum id, DateADT from, DateADT day,
		 bool last, DateADT last_before)
{
	DateADT oldest = add_months(months, p, id, from, day, last, last_before);

	if (!pieces->empty && oldest != DATEVAL_NOEND)
	{
		seek(pieces, id, oldest, day);
		while (next_row(pieces, ForwardScanDirection))
			add_days_before(p, usage_of(pieces), day);
	}
	(void) add_months(sealed, p, id, from, day, last, last_before);
}

/*
 * cs_usage_stamped: see usage_store.h.
 */
CsResult *
cs_usage_stamped(Datum ids, const CsWhose *whose, DateADT from, DateADT day, bool last,
				 DateADT last_before, CsResult *running)
{
	CsResult *result = palloc0(sizeof(CsResult));
	MemoryContext one =
		AllocSetContextCreate(CurrentMemoryContext, "cs_ext usage", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;
	Keyed months;
	Keyed pieces;
	Keyed sealed;
	int n;
	Datum *each = cs_text_elements(ids, &n);
	List **facts = facts_of(each, n, whose);
	List **today = running_of(each, n, running);

	cs_push_snapshot();
	open_keyed(&months, "usage_month", 2, 3);
	open_keyed(&pieces, "usage_delta", 2, 4);
	open_keyed(&sealed, "usage_sealed", 3, 4);
	result->desc = CreateTemplateTupleDesc(2);
	TupleDescInitEntry(result->desc, 1, "customer_id", TEXTOID, -1, 0);
	TupleDescInitEntryCollation(result->desc, 1, C_COLLATION_OID);
	TupleDescInitEntry(result->desc, 2, "usage",
					   TupleDescAttr(RelationGetDescr(months.rel), 2)->atttypid, -1, 0);
	result->store = tuplestore_begin_heap(true, false, CS_RESULT_MEM);
	result->nrows = n;
	old = MemoryContextSwitchTo(one);
	for (int i = 0; i < n; i++)
	{
		Parts parts = {0};
		Datum values[2];
		bool nulls[2] = {false, false};
		ListCell *lc;

		CHECK_FOR_INTERRUPTS();
		foreach (lc, facts[i])
			add_rows(&months, &pieces, &sealed, &parts, PointerGetDatum(lfirst(lc)), from, day,
					 last, last_before);
		foreach (lc, today[i])
			add_part(&parts, lfirst(lc), day, day + 1);
		values[0] = each[i];
		values[1] = PointerGetDatum(stamped(&parts, day, running != NULL));
		tuplestore_putvalues(result->store, result->desc, values, nulls);
		MemoryContextReset(one);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(one);
	close_keyed(&sealed);
	close_keyed(&pieces);
	close_keyed(&months);
	PopActiveSnapshot();
	return result;
}

/* ---- changes -------------------------------------------------------------- */

#define TYPE_LT(type) (lookup_type_cache((type), TYPECACHE_LT_OPR)->lt_opr)

/* What the facts say, in order of customer and month. */
typedef struct Fresh
{
	Tuplesortstate *sort;
	TupleTableSlot *slot;
	bool there;
} Fresh;

static void
next_fresh(Fresh *f)
{
	f->there = tuplesort_gettupleslot(f->sort, true, false, f->slot, NULL);
	if (f->there)
		slot_getallattrs(f->slot);
}

static void
sort_fresh(Fresh *f, CsResult *rows)
{
	AttrNumber columns[2] = {1, 2};
	Oid operators[2] = {TYPE_LT(TEXTOID), TYPE_LT(DATEOID)};
	Oid collations[2] = {C_COLLATION_OID, InvalidOid};
	bool nulls_first[2] = {true, true};

	f->slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);
	f->sort = tuplesort_begin_heap(rows->desc, 2, columns, operators, collations, nulls_first,
								   work_mem, NULL, TUPLESORT_NONE);
	while (tuplestore_gettupleslot(rows->store, true, false, f->slot))
		tuplesort_puttupleslot(f->sort, f->slot);
	tuplesort_performsort(f->sort);
	next_fresh(f);
}

/* Is what comes next of this customer?  What is of one before is left out. */
static bool
fresh_of(Fresh *f, Datum customer)
{
	int c = -1;

	while (f->there &&
		   (f->slot->tts_isnull[0] || f->slot->tts_isnull[1] || f->slot->tts_isnull[2] ||
			(c = cs_compare_texts(f->slot->tts_values[0], customer)) < 0))
		next_fresh(f);
	return f->there && c == 0;
}

/*
 * unite: parts of one month; scratch NULL: without it.
 */
static struct varlena *
unite(const CsUsagePart *parts, int n, const CsUsageHead *head, DateADT month,
	  CsMonthMerge *scratch)
{
	StringInfoData buf;
	Size bytes = VARHDRSZ + 64;

	if (scratch == NULL || !head->has_instants)
		return cs_usage_merge(parts, n, head);
	for (int i = 0; i < n; i++)
		bytes += parts[i].len;
	initStringInfo(&buf);
	enlargeStringInfo(&buf, bytes);
	appendStringInfoSpaces(&buf, VARHDRSZ);
	if (!cs_month_unite(scratch, &buf, parts, n, month, head))
		return cs_usage_merge(parts, n, head);
	SET_VARSIZE(buf.data, buf.len);
	return (struct varlena *) buf.data;
}

/*
 * replaced: see cs_usage_replaced in usage_store.h; scratch: to unite by, the
 * values are of the month.
 */
static struct varlena *
replaced(struct varlena *old, struct varlena *fresh, DateADT lo, DateADT hi, bool *unsure,
		 DateADT month, CsMonthMerge *scratch)
{
	CsUsagePart parts[3];
	CsUsageHead head = {0};
	CsUsageReader r;
	struct varlena *result;
	int n = 0;

	*unsure = false;
	if (fresh != NULL)
	{
		cs_usage_read_value(&r, fresh);
		head = (CsUsageHead){.has_instants = true, .first = r.first, .last = r.last};
		parts[n++] =
			(CsUsagePart){VARDATA_ANY(fresh), VARSIZE_ANY_EXHDR(fresh), CS_DAY_MIN, CS_DAY_END};
	}
	if (old != NULL)
	{
		CsUsagePart kept = {VARDATA_ANY(old), VARSIZE_ANY_EXHDR(old), CS_DAY_MIN, CS_DAY_END};
		DateADT first;
		DateADT last;

		cs_usage_read_value(&r, old);
		first = cs_usage_day(r.first);
		last = cs_usage_day(r.last);
		if (first < lo || first > hi)
			head.first = head.has_instants ? Min(head.first, r.first) : r.first;
		else
			*unsure |= n == 0;
		if (last < lo || last > hi)
			head.last = head.has_instants ? Max(head.last, r.last) : r.last;
		else
			*unsure |= n == 0;
		head.has_instants = true;
		/* a part without days would be walked through for nothing */
		if (first < lo)
		{
			parts[n] = kept;
			parts[n++].hi = lo;
		}
		if (last > hi)
		{
			parts[n] = kept;
			parts[n++].lo = hi + 1;
		}
	}
	if (n == 0)
	{
		*unsure = false;
		return NULL;
	}
	head.has_instants &= !*unsure;
	result = unite(parts, n, &head, month, scratch);
	cs_usage_read_value(&r, result);
	if (r.nevents > 0)
		return result;
	*unsure = false;
	return NULL;
}

/*
 * cs_usage_replaced: see usage_store.h.
 */
struct varlena *
cs_usage_replaced(struct varlena *old, struct varlena *fresh, DateADT lo, DateADT hi, bool *unsure)
{
	return replaced(old, fresh, lo, hi, unsure, lo, NULL);
}

/*
 * write_month: the row `was` (usage NULL: there is none) becomes `usage`; NULL:
 * none.  The same again is not written.
 */
static void
write_month(CsRewrite *writing, Datum customer, DateADT month, Month *was, struct varlena *usage)
{
	TupleTableSlot *slot;

	if (usage == NULL)
	{
		cs_rewrite_gone(writing, &was->tid);
		return;
	}
	if (was->usage != NULL && VARSIZE_ANY_EXHDR(was->usage) == VARSIZE_ANY_EXHDR(usage) &&
		memcmp(VARDATA_ANY(was->usage), VARDATA_ANY(usage), VARSIZE_ANY_EXHDR(usage)) == 0)
		return;
	slot = cs_rewrite_slot(writing);
	slot->tts_values[0] = customer;
	slot->tts_values[1] = DateADTGetDatum(month);
	slot->tts_values[2] = PointerGetDatum(usage);
	memset(slot->tts_isnull, 0, sizeof(bool) * 3);
	cs_rewrite_put(writing, was->usage ? &was->tid : NULL);
}

/* The rows of one customer after the other, from what was found before or from the table. */
typedef struct Rows
{
	Keyed months;
	DateADT first;
	DateADT last;
	const CsFoundMonths *found; /* NULL: nothing */
	int next;                   /* of found */
	bool scanned;               /* this customer is read from the table */
	CsMonthMerge *scratch;
} Rows;

static bool
next_month(Rows *r, Month *month)
{
	if (!r->scanned || !next_row(&r->months, ForwardScanDirection))
		return false;
	*month = this_month(&r->months);
	return true;
}

static bool
first_month(Rows *r, Datum customer, Month *month)
{
	const CsFoundMonths *f = r->found;
	int c = -1;

	while (f != NULL && r->next < f->n && (c = cs_compare_texts(f->ids[r->next], customer)) < 0)
		r->next++;
	r->scanned = f == NULL || r->next == f->n || c != 0;
	if (r->scanned)
	{
		seek(&r->months, customer, r->first, r->last);
		return next_month(r, month);
	}
	*month = f->rows[r->next];
	return month->usage != NULL;
}

/*
 * replace_of: the months of one customer beside those of the facts.  False: of one
 * of them is not known what is left.
 */
static bool
replace_of(Rows *r, Datum customer, Fresh *fresh, DateADT lo, DateADT hi, CsRewrite *writing)
{
	bool sure = true;
	Month row = {0};
	bool found = first_month(r, customer, &row);
	bool more;

	while ((more = fresh_of(fresh, customer)) || found)
	{
		DateADT month = found ? row.month : DATEVAL_NOEND;
		struct varlena *now = NULL;
		struct varlena *usage;
		Month was = {0};
		bool unsure;

		if (more)
			month = Min(month, DatumGetDateADT(fresh->slot->tts_values[1]));
		if (more && DatumGetDateADT(fresh->slot->tts_values[1]) == month)
			now = PG_DETOAST_DATUM_PACKED(fresh->slot->tts_values[2]);
		if (found && row.month == month)
			was = row;
		usage = replaced(was.usage, now, lo, hi, &unsure, month, r->scratch);
		if (!unsure)
			write_month(writing, customer, month, &was, usage);
		sure &= !unsure;
		if (now != NULL)
			next_fresh(fresh);
		if (was.usage != NULL)
			found = next_month(r, &row);
	}
	return sure;
}

/*
 * cs_usage_replace_days: see usage_store.h.
 */
Datum
cs_usage_replace_days(Datum ids, CsResult *rows, DateADT lo, DateADT hi, const CsFoundMonths *found,
					  int *unsure)
{
	MemoryContext one =
		AllocSetContextCreate(CurrentMemoryContext, "cs_ext month", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;
	Rows r = {.first = cs_month_start(lo, 0), .last = cs_month_start(hi, 0)};
	CsRewrite *writing;
	Fresh fresh;
	int n;
	Datum *each = cs_text_elements(ids, &n);

	if (found != NULL && r.first == r.last && found->month == r.first)
		r.found = found;
	*unsure = 0;
	r.scratch = cs_month_merge();
	sort_fresh(&fresh, rows);
	cs_push_snapshot();
	open_keyed(&r.months, "usage_month", 2, 3);
	writing = cs_rewrite_begin("usage_month");
	old = MemoryContextSwitchTo(one);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!replace_of(&r, each[i], &fresh, lo, hi, writing))
			each[(*unsure)++] = each[i];
		MemoryContextReset(one);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(one);
	cs_rewrite_end(writing);
	close_keyed(&r.months);
	PopActiveSnapshot();
	tuplesort_end(fresh.sort);
	ExecDropSingleTupleTableSlot(fresh.slot);
	cs_month_merge_end(r.scratch);
	return cs_text_array(each, *unsure);
}
