/*
 * usage_runs.c
 *		Runs of (customer, month, usage): writing and merging them.
 *
 * In: runs (usage_runs.h), which one process encoded of one part of the customers:
 * several where there was too much to gather at once, or sources have ids of
 * different types.  Out: one run.
 */
#include "cs_ext.h"

#include "facts/usage_month.h"
#include "facts/usage_runs.h"
#include "utils/memutils.h"

/*
 * cs_run_begin, cs_run_end: see usage_runs.h.
 */
int
cs_run_begin(StringInfo run, const char *id, uint32 len, DateADT month)
{
	static const char zero[VARHDRSZ] = {0};
	int usage;

	appendBinaryStringInfoNT(run, (const char *) &len, sizeof(len));
	appendBinaryStringInfoNT(run, (const char *) &month, sizeof(month));
	appendBinaryStringInfoNT(run, id, len);
	appendBinaryStringInfoNT(run, zero, INTALIGN(run->len) - run->len);
	usage = run->len;
	appendBinaryStringInfoNT(run, zero, VARHDRSZ); /* set at the end */
	return usage;
}

void
cs_run_end(StringInfo run, int usage)
{
	static const char zero[4] = {0};

	SET_VARSIZE(run->data + usage, run->len - usage);
	appendBinaryStringInfoNT(run, zero, INTALIGN(run->len) - run->len);
}

/* ---- merging -------------------------------------------------------------- */

typedef struct Cursor
{
	char *data;
	int64 len;
	int64 at; /* of the entry behind the current one */
	CsRunEntry entry;
} Cursor;

struct CsRunsMerge
{
	Cursor *cursors;
	int n;
	int size;
	CsUsagePart *parts; /* as many as cursors */
	CsMonthMerge *months;
	MemoryContext scratch;
};

CsRunsMerge *
cs_runs_merge(void)
{
	CsRunsMerge *merge = palloc0(sizeof(CsRunsMerge));

	merge->months = cs_month_merge();
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
	cs_run_read(c->data, &c->at, &c->entry);
	return true;
}

void
cs_runs_add(CsRunsMerge *merge, char *run, int64 len)
{
	Cursor *c;

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
	c->data = run;
	c->len = len;
	if (advance(c))
		merge->n++;
}

static inline int
compare_entries(const CsRunEntry *a, const CsRunEntry *b)
{
	int cmp = cs_compare_names(&a->id, &b->id);

	return cmp != 0 ? cmp : (a->month > b->month) - (a->month < b->month);
}

/*
 * cs_runs_next: see usage_runs.h.  There are few runs, so the least entry is
 * found by looking at all of them.
 */
bool
cs_runs_next(CsRunsMerge *merge, StringInfo run)
{
	int least = 0;
	int nparts = 0;
	int usage;
	CsRunEntry found;

	if (merge->n == 0)
		return false;
	for (int i = 1; i < merge->n; i++)
	{
		if (compare_entries(&merge->cursors[i].entry, &merge->cursors[least].entry) < 0)
			least = i;
	}
	found = merge->cursors[least].entry;
	for (int i = least; i < merge->n;)
	{
		Cursor *c = &merge->cursors[i];
		CsUsagePart *part = &merge->parts[nparts];

		if (compare_entries(&c->entry, &found) != 0)
		{
			i++;
			continue;
		}
		part->data = VARDATA(c->entry.usage);
		part->len = VARSIZE(c->entry.usage) - VARHDRSZ;
		part->lo = CS_DAY_MIN;
		part->hi = CS_DAY_END;
		nparts++;
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
	usage = cs_run_begin(run, found.id.s, found.id.len, found.month);
	if (nparts == 1)
		appendBinaryStringInfoNT(run, merge->parts[0].data, merge->parts[0].len);
	else if (!cs_month_unite(merge->months, run, merge->parts, nparts, found.month, NULL))
	{
		MemoryContext old = MemoryContextSwitchTo(merge->scratch);
		struct varlena *united = cs_usage_merge(merge->parts, nparts, NULL);

		MemoryContextSwitchTo(old);
		appendBinaryStringInfoNT(run, VARDATA(united), VARSIZE(united) - VARHDRSZ);
		MemoryContextReset(merge->scratch);
	}
	cs_run_end(run, usage);
	return true;
}
