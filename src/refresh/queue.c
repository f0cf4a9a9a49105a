/*
 * queue.c
 *		Taking customers from the work queues: who is locked, who waits, for what.
 *
 * In: ids that the pipeline chose from pending, dirty and due rows.  Out: those of
 * them that are this step's, each locked; of pending also since when, and the
 * rows are gone with the transaction that takes them.
 *
 * Cases.
 * Crash, abort: locks go, the rows of pending are back.
 * A customer who becomes pending again while the step works: a new row, for the
 * next step or run.
 * Somebody refreshes a customer on his own, or acts on his alerts: left out.
 */
#include "cs_ext.h"

#include "access/xact.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "core/empty.h"
#include "core/texts.h"
#include "refresh/queue.h"
#include "refresh/refresh.h"

/* More customers than that are not locked one by one. */
#define MAX_LOCKS 2000

static bool
try_lock(int32 class, int32 object)
{
	return DatumGetBool(DirectFunctionCall2(pg_try_advisory_xact_lock_int4, Int32GetDatum(class),
											Int32GetDatum(object)));
}

/*
 * cs_lock_free: see queue.h.
 */
Datum
cs_lock_free(Datum candidates, int *n)
{
	static TimestampTz counted_in = 0;
	static int counted = 0;
	Datum *ids;
	int found;

	ids = cs_text_elements(candidates, &found);
	if (counted_in != GetCurrentTransactionStartTimestamp())
	{
		counted_in = GetCurrentTransactionStartTimestamp();
		counted = 0;
	}
	if (counted + found > MAX_LOCKS)
	{
		*n = found;
		if (try_lock(CS_LOCK_EVERYBODY, 0))
			return candidates;
		*n = 0;
		return PointerGetDatum(construct_empty_array(TEXTOID));
	}
	counted += found;
	*n = 0;
	for (int i = 0; i < found; i++)
		/* what hashtext(id) says in SQL, under any collation that a database can have */
		if (try_lock(CS_LOCK_CLASS,
					 DatumGetInt32(DirectFunctionCall1Coll(hashtext, C_COLLATION_OID, ids[i]))))
			ids[(*n)++] = ids[i];
	return *n == found ? candidates : cs_text_array(ids, *n);
}

/*
 * cs_may_evaluate: see queue.h.  Asked for are those who may not, for there are
 * nearly none.
 */
Datum
cs_may_evaluate(Datum ids, int *n)
{
	int nnot;
	Datum not_them;
	Datum *each;
	Datum *not_each;
	int count;
	int skip = 0;

	each = cs_text_elements(ids, &count);
	*n = count;
	if (cs_is_empty("alert"))
		return ids;
	not_them = cs_ids_from_query(
		"WITH got AS MATERIALIZED (SELECT a.id FROM cs_internal.alert a WHERE a.live"
		"  AND a.customer_id = ANY ((SELECT $1)::text[]) ORDER BY a.id FOR UPDATE SKIP LOCKED)"
		" SELECT DISTINCT a.customer_id FROM cs_internal.alert a WHERE a.live"
		"  AND a.customer_id = ANY ((SELECT $1)::text[])"
		"  AND NOT EXISTS (SELECT 1 FROM got g WHERE g.id = a.id) ORDER BY 1",
		CS_ARGS(cs_textarray(ids)), &nnot);
	if (nnot == 0)
		return ids;
	not_each = cs_text_elements(not_them, &nnot);
	*n = 0;
	for (int i = 0; i < count; i++)
	{
		while (skip < nnot && cs_compare_texts(not_each[skip], each[i]) < 0)
			skip++;
		if (skip == nnot || cs_compare_texts(not_each[skip], each[i]) != 0)
			each[(*n)++] = each[i];
	}
	return cs_text_array(each, *n);
}

static int
compare_pending(const void *a, const void *b)
{
	return cs_compare_texts(((const CsPending *) a)->customer_id,
							((const CsPending *) b)->customer_id);
}

/*
 * cs_take_pending: see queue.h.
 */
CsPending *
cs_take_pending(const char *source, Datum ids, int *n)
{
	MemoryContext context = CurrentMemoryContext;
	CsPending *pending;
	bool isnull;

	/* they stand beside each other: without the range the planner reads all who wait for the source */
	*n =
		(int) cs_exec("DELETE FROM cs_internal.pending WHERE source = $1 AND customer_id = ANY ($2)"
					  " AND customer_id >= ($2)[1] AND customer_id <= ($2)[array_length($2, 1)]"
					  " RETURNING customer_id, since, until",
					  CS_ARGS(cs_text(source), cs_textarray(ids)));
	MemoryContextSwitchTo(context);
	pending = palloc(sizeof(CsPending) * (*n + 1));
	for (int i = 0; i < *n; i++)
	{
		pending[i].customer_id =
			PointerGetDatum(PG_DETOAST_DATUM_COPY(cs_cell_datum(i, 1, &isnull)));
		pending[i].since = DatumGetTimestampTz(cs_cell_datum(i, 2, &isnull));
		pending[i].until = DatumGetTimestampTz(cs_cell_datum(i, 3, &isnull));
	}
	SPI_freetuptable(SPI_tuptable);
	qsort(pending, *n, sizeof(CsPending), compare_pending);
	return pending;
}

/*
 * cs_pending_ids: see queue.h.
 */
Datum
cs_pending_ids(const CsPending *pending, int n)
{
	Datum *ids = palloc(sizeof(Datum) * (n + 1));

	for (int i = 0; i < n; i++)
		ids[i] = pending[i].customer_id;
	return cs_text_array(ids, n);
}
