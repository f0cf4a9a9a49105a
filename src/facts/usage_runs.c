/*
 * usage_runs.c
 *		The first build of the rollup: usage of all customers in one pass.
 *
 * Owns the aggregate usage_pack.  Grouping by customer and month in the executor
 * costs a state and a hash entry for each of very many groups; this aggregate
 * has one state a process.  It keeps rows as records of 24 bytes, names by
 * number; when the buffer is full it sorts them by customer and month, encodes
 * each group at once into its one encoding (usage_value.h) and forgets records
 * and names.  So a process holds a buffer, the names in it, and what is encoded.
 * Partial states travel as they are; who reads the result merges the runs.
 *
 * Memory: where what is encoded grows beyond a bound, customers at the
 * upper end of the hash range are left out and the result says so (hi); the caller
 * asks for them in another pass.
 *
 * Cases.  Aborted, cancelled: everything is in the aggregate's context.  Events
 * are cut into days in the session's time zone, which the contained side sets
 * to the policy's.
 */
#include "cs_ext.h"

#include "common/hashfn.h"
#include "facts/source_kind.h"
#include "facts/usage_month.h"
#include "facts/usage_pack.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/*
 * cs_usage_slice: the hash of a customer's id that slices are ranges of.
 */
uint32
cs_usage_slice(const char *id, int len)
{
	return hash_bytes((const unsigned char *) id, len);
}

PG_FUNCTION_INFO_V1(cs_usage_slice_sql);

Datum
cs_usage_slice_sql(PG_FUNCTION_ARGS)
{
	text *id = PG_GETARG_TEXT_PP(0);

	PG_RETURN_INT64(cs_usage_slice(VARDATA_ANY(id), VARSIZE_ANY_EXHDR(id)));
}

/* ---- the aggregate -------------------------------------------------------- */

static Pack *
start_pack(FunctionCallInfo fcinfo, bool gathers)
{
	MemoryContext cxt;
	Pack *p;

	if (!AggCheckCallContext(fcinfo, &cxt))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("aggregate support function called outside an aggregate")));
	p = MemoryContextAllocZero(cxt, sizeof(Pack));
	p->cxt = cxt;
	p->hi = CS_SLICES;
	if (gathers)
	{
		p->name_cxt =
			AllocSetContextCreate(cxt, "cs_ext usage names", 0, 256 * 1024, 8 * 1024 * 1024);
		cs_pack_start_labels(p);
	}
	return p;
}

static void
check_type(Oid type)
{
	if (!cs_native_key_type(type))
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
						errmsg("type %s is no type of ids", format_type_be(type)),
						errhint("Cast it to text.")));
}

/*
 * cs_pack_record: see usage_pack.h.
 */
void
cs_pack_record(Pack *p, uint32 customer, uint32 user, uint32 event, TimestampTz at, uint32 extra)
{
	Record *r;

	if (p->n == p->size)
	{
		/* what waits comes on top of the bound */
		p->size = p->size ? Min(p->size * 2, MAX_RECORDS + WAITING) : 1024;
		p->records = p->records ? repalloc_huge(p->records, mul_size(sizeof(Record), p->size))
								: MemoryContextAlloc(p->cxt, sizeof(Record) * p->size);
	}
	r = &p->records[p->n++];
	r->at = at;
	r->customer = customer;
	r->user = user;
	r->event = event;
	r->extra = extra;
	p->first = p->events ? Min(p->first, at) : at;
	p->last = p->events ? Max(p->last, at) : at;
	p->events++;
}

/* What a record says besides; quantity NULL: none.  Its place, from 1. */
static uint32
add_extra(Pack *p, Numeric quantity, int64 count)
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
	if (quantity != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(p->name_cxt);

		x->qty = cs_qty_from_numeric(quantity);
		if (x->qty.big)
			x->qty.n = DatumGetNumericCopy(NumericGetDatum(x->qty.n));
		MemoryContextSwitchTo(old);
	}
	return p->nextras;
}

PG_FUNCTION_INFO_V1(cs_usage_pack_step);

/*
 * One event: (state, lo, hi, customer key, at, user_id, event, quantity,
 * event_count).  A row without key or instant says nothing.
 */
Datum
cs_usage_pack_step(PG_FUNCTION_ARGS)
{
	Pack *p = PG_ARGISNULL(0) ? NULL : (Pack *) PG_GETARG_POINTER(0);
	TimestampTz at;
	bool counts_once;

	if (p == NULL)
	{
		p = start_pack(fcinfo, true);
		p->key_type = getBaseType(get_fn_expr_argtype(fcinfo->flinfo, 3));
		if (PG_ARGISNULL(1) || PG_ARGISNULL(2) || PG_GETARG_INT64(1) < 0 ||
			PG_GETARG_INT64(2) > CS_SLICES || PG_GETARG_INT64(1) >= PG_GETARG_INT64(2))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("slice of customers is out of range"),
					 errhint("It is [lo, hi) with 0 <= lo < hi <= %lld.", (long long) CS_SLICES)));
		p->user_type = getBaseType(get_fn_expr_argtype(fcinfo->flinfo, 5));
		check_type(p->key_type);
		check_type(p->user_type);
		p->lo = PG_GETARG_INT64(1);
		p->hi = PG_GETARG_INT64(2);
	}
	if (PG_ARGISNULL(3) || PG_ARGISNULL(4))
		PG_RETURN_POINTER(p);
	at = PG_GETARG_TIMESTAMPTZ(4);
	if (TIMESTAMP_NOT_FINITE(at))
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("a usage event cannot be at infinity")));
	counts_once = PG_ARGISNULL(7) && (PG_ARGISNULL(8) || PG_GETARG_INT64(8) == 1);
	if (!counts_once || !cs_pack_later(p, PG_GETARG_DATUM(3), PG_GETARG_DATUM(5), PG_ARGISNULL(5),
									   PG_GETARG_DATUM(6), PG_ARGISNULL(6), at))
	{
		int64 customer = cs_pack_customer(p, PG_GETARG_DATUM(3));

		if (customer >= 0)
		{
			uint32 user = cs_pack_user(p, PG_GETARG_DATUM(5), PG_ARGISNULL(5));
			uint32 event = cs_pack_event(p, PG_GETARG_DATUM(6), PG_ARGISNULL(6));
			uint32 extra = 0;

			if (!counts_once)
				extra = add_extra(p, PG_ARGISNULL(7) ? NULL : PG_GETARG_NUMERIC(7),
								  PG_ARGISNULL(8) ? 1 : PG_GETARG_INT64(8));
			cs_pack_record(p, customer, user, event, at, extra);
		}
	}
	/* who is not in the slice has a label, too */
	if (p->n >= MAX_RECORDS || p->arena_used + p->tables >= MAX_NAMES)
		cs_pack_encode(p);
	PG_RETURN_POINTER(p);
}

/* The state as one value (usage_runs.h). */
static struct varlena *
packed(Pack *p)
{
	CsRunsHead head;
	struct varlena *result;
	char *to;
	Size size;

	if (p->name_cxt != NULL)
		cs_pack_encode(p);
	cs_pack_shed(p, MAX_RESULT);
	head.lo = p->lo;
	head.hi = p->hi;
	head.events = p->events;
	head.first = p->first;
	head.last = p->last;
	head.nruns = p->nruns;
	size = VARHDRSZ + sizeof(head) + p->encoded + sizeof(int64) * p->nruns;
	result = palloc(size);
	SET_VARSIZE(result, size);
	to = VARDATA(result);
	memcpy(to, &head, sizeof(head));
	to += sizeof(head);
	for (int i = 0; i < p->nruns; i++)
	{
		memcpy(to, &p->runs[i].len, sizeof(int64));
		to += sizeof(int64);
		memcpy(to, p->runs[i].data, p->runs[i].len);
		to += p->runs[i].len;
	}
	return result;
}

/* The runs of a value as those of an empty state, which points into it. */
static void
unpack(Pack *p, struct varlena *value)
{
	CsRunsHead head;
	char *from = VARDATA_ANY(value);

	memcpy(&head, from, sizeof(head));
	from += sizeof(head);
	p->lo = head.lo;
	p->hi = head.hi;
	p->events = head.events;
	p->first = head.first;
	p->last = head.last;
	for (int i = 0; i < head.nruns; i++)
	{
		int64 len;

		memcpy(&len, from, sizeof(len));
		from += sizeof(len);
		cs_pack_add_run(p, from, len);
		from += len;
	}
}

PG_FUNCTION_INFO_V1(cs_usage_pack_serialize);

Datum
cs_usage_pack_serialize(PG_FUNCTION_ARGS)
{
	PG_RETURN_POINTER(packed((Pack *) PG_GETARG_POINTER(0)));
}

PG_FUNCTION_INFO_V1(cs_usage_pack_deserialize);

/* The state only points at the value: combine, which comes next, keeps it. */
Datum
cs_usage_pack_deserialize(PG_FUNCTION_ARGS)
{
	Pack *p = start_pack(fcinfo, false);

	p->cxt = CurrentMemoryContext;
	unpack(p, PG_DETOAST_DATUM_PACKED(PG_GETARG_DATUM(0)));
	PG_RETURN_POINTER(p);
}

PG_FUNCTION_INFO_V1(cs_usage_pack_combine);

Datum
cs_usage_pack_combine(PG_FUNCTION_ARGS)
{
	Pack *a = PG_ARGISNULL(0) ? NULL : (Pack *) PG_GETARG_POINTER(0);
	Pack *b;

	if (PG_ARGISNULL(1))
	{
		if (a == NULL)
			PG_RETURN_NULL();
		PG_RETURN_POINTER(a);
	}
	if (a == NULL)
		a = start_pack(fcinfo, false);
	b = (Pack *) PG_GETARG_POINTER(1);
	if (b->name_cxt != NULL)
		cs_pack_encode(b);
	a->lo = b->lo;
	a->hi = Min(a->hi, b->hi);
	if (b->events > 0)
	{
		a->first = a->events ? Min(a->first, b->first) : b->first;
		a->last = a->events ? Max(a->last, b->last) : b->last;
		a->events += b->events;
	}
	for (int i = 0; i < b->nruns; i++)
	{
		char *data = MemoryContextAllocHuge(a->cxt, Max(b->runs[i].len, 1));

		memcpy(data, b->runs[i].data, b->runs[i].len);
		cs_pack_add_run(a, data, b->runs[i].len);
	}
	cs_pack_shed(a, MAX_RESULT);
	PG_RETURN_POINTER(a);
}

PG_FUNCTION_INFO_V1(cs_usage_pack_final);

Datum
cs_usage_pack_final(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_POINTER(packed((Pack *) PG_GETARG_POINTER(0)));
}

/* ---- merging -------------------------------------------------------------- */

typedef struct Cursor
{
	const char *data;
	int64 len;
	int64 at; /* of the entry behind the current one */
	CsUsageString id;
	DateADT month;
	CsUsagePart payload;
} Cursor;

struct CsRunsMerge
{
	Cursor *cursors;
	int n;
	int size;
	CsUsagePart *parts; /* as many as cursors */
	CsMonthMerge *months;
	StringInfoData value;
	MemoryContext scratch;
};

CsRunsMerge *
cs_runs_merge(void)
{
	CsRunsMerge *merge = palloc0(sizeof(CsRunsMerge));

	merge->months = cs_month_merge();
	initStringInfo(&merge->value);
	merge->scratch =
		AllocSetContextCreate(CurrentMemoryContext, "cs_ext usage month", ALLOCSET_DEFAULT_SIZES);
	return merge;
}

/* Step to the next entry; false at the end. */
static bool
advance(Cursor *c)
{
	if (c->at >= c->len)
		return false;
	cs_pack_read(c->data, &c->at, &c->id, &c->month, &c->payload);
	return true;
}

const CsRunsHead *
cs_runs_add(CsRunsMerge *merge, struct varlena *value)
{
	CsRunsHead *head = palloc(sizeof(CsRunsHead));
	char *from = VARDATA_ANY(value);

	memcpy(head, from, sizeof(CsRunsHead));
	from += sizeof(CsRunsHead);
	for (int i = 0; i < head->nruns; i++)
	{
		Cursor *c;
		int64 len;

		memcpy(&len, from, sizeof(len));
		from += sizeof(len);
		if (merge->n == merge->size)
		{
			merge->size = Max(16, merge->size * 2);
			merge->cursors = merge->cursors ? repalloc(merge->cursors, sizeof(Cursor) * merge->size)
											: palloc(sizeof(Cursor) * merge->size);
			merge->parts = merge->parts ? repalloc(merge->parts, sizeof(CsUsagePart) * merge->size)
										: palloc(sizeof(CsUsagePart) * merge->size);
		}
		c = &merge->cursors[merge->n];
		memset(c, 0, sizeof(Cursor));
		c->data = from;
		c->len = len;
		if (advance(c))
			merge->n++;
		from += len;
	}
	return head;
}

static inline int
compare_entries(const Cursor *a, const Cursor *b)
{
	int cmp = memcmp(a->id.s, b->id.s, Min(a->id.len, b->id.len));

	if (cmp != 0)
		return cmp;
	if (a->id.len != b->id.len)
		return a->id.len < b->id.len ? -1 : 1;
	return (a->month > b->month) - (a->month < b->month);
}

/*
 * cs_runs_next: see usage_runs.h.  There are few runs, so the least entry is
 * found by looking at all of them.
 */
bool
cs_runs_next(CsRunsMerge *merge, int64 hi, const char **id, int *idlen, DateADT *month,
			 struct varlena **value)
{
	while (merge->n > 0)
	{
		int least = 0;
		int nparts = 0;
		Cursor found;

		for (int i = 1; i < merge->n; i++)
		{
			if (compare_entries(&merge->cursors[i], &merge->cursors[least]) < 0)
				least = i;
		}
		found = merge->cursors[least];
		for (int i = least; i < merge->n;)
		{
			Cursor *c = &merge->cursors[i];

			if (compare_entries(c, &found) != 0)
			{
				i++;
				continue;
			}
			merge->parts[nparts++] = c->payload;
			if (advance(c))
				i++;
			else
			{
				/* the last one takes its place and is looked at next */
				merge->n--;
				if (i < merge->n)
					*c = merge->cursors[merge->n];
			}
		}
		if (cs_usage_slice(found.id.s, found.id.len) >= hi)
			continue;
		resetStringInfo(&merge->value);
		appendStringInfoSpaces(&merge->value, VARHDRSZ);
		if (nparts == 1)
			appendBinaryStringInfoNT(&merge->value, found.payload.data, found.payload.len);
		else if (!cs_month_unite(merge->months, &merge->value, merge->parts, nparts, found.month))
		{
			MemoryContext old = MemoryContextSwitchTo(merge->scratch);
			struct varlena *united = cs_usage_merge(merge->parts, nparts, NULL);

			MemoryContextSwitchTo(old);
			appendBinaryStringInfoNT(&merge->value, VARDATA(united), VARSIZE(united) - VARHDRSZ);
			MemoryContextReset(merge->scratch);
		}
		*value = (struct varlena *) merge->value.data;
		SET_VARSIZE(*value, merge->value.len);
		*id = found.id.s;
		*idlen = found.id.len;
		*month = found.month;
		return true;
	}
	return false;
}
