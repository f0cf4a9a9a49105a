/*
 * ledger_row.c
 *		A movement as a row of cs_internal.movement.
 *
 * In: a movement and whose it is.  Out: the values of its columns, or the row as
 * it stands on disk.  The second is what heap_form_tuple makes of the first, byte
 * for byte but for what an insert fills in (builds with assertions compare them),
 * in a third of the time: of a million subscriptions it took as long as the sweep.
 */
#include "cs_ext.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "facts/ledger_member.h"

/* Columns of the table, by number. */
enum
{
	CUSTOMER_ID,
	AT,
	SEQ,
	KIND,
	DELTA,
	MRR_AFTER,
	ACTIVE_AFTER,
	CHURN_KIND,
	REASON,
	TERM_EXTENSION,
	SERVICE_END_AT,
	CANCEL_REQUESTED_AT,
	CANCEL_EFFECTIVE_AT,
	NCOLUMNS
};

StaticAssertDecl(NCOLUMNS == MOVEMENT_COLUMNS + 1, "columns of movement");

static const Oid column_types[NCOLUMNS] = {
	TEXTOID, TIMESTAMPTZOID, INT2OID, TEXTOID,        NUMERICOID,     NUMERICOID,    BOOLOID,
	TEXTOID, TEXTOID,        BOOLOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID};

/*
 * cs_movement_values: see ledger_sweep.h.
 */
void
cs_movement_values(const CsMovement *m, Datum *values, bool *nulls)
{
	memset(nulls, 0, sizeof(bool) * MOVEMENT_COLUMNS);
	values[0] = TimestampTzGetDatum(m->at);
	values[1] = Int16GetDatum(m->seq);
	values[2] = CStringGetTextDatum(m->kind);
	values[3] = cs_money_numeric(m->delta);
	values[4] = cs_money_numeric(m->mrr_after);
	values[5] = BoolGetDatum(m->active_after);
	nulls[6] = m->churn_kind == NULL;
	values[6] = nulls[6] ? (Datum) 0 : CStringGetTextDatum(m->churn_kind);
	nulls[7] = m->reason == NULL;
	values[7] = nulls[7] ? (Datum) 0 : CStringGetTextDatum(m->reason);
	values[8] = BoolGetDatum(m->term_extension);
	nulls[9] = m->service_end == DT_NOEND;
	values[9] = TimestampTzGetDatum(m->service_end);
	nulls[10] = m->requested == DT_NOEND;
	values[10] = TimestampTzGetDatum(m->requested);
	nulls[11] = m->effective == DT_NOEND;
	values[11] = TimestampTzGetDatum(m->effective);
}

/*
 * cs_movement_row: see ledger_member.h.
 */
void
cs_movement_row(const CsMovement *movement, const text *id, Datum *values, bool *nulls)
{
	values[0] = PointerGetDatum(id);
	nulls[0] = false;
	cs_movement_values(movement, values + 1, nulls + 1);
}

/* ---- as it stands on disk ------------------------------------------------------ */

/* The longest text with one byte before it. */
#define SHORT_TEXT (VARATT_SHORT_MAX - VARHDRSZ_SHORT)

StaticAssertDecl(MAXALIGN(SizeofHeapTupleHeader + NCOLUMNS) + 4 * VARATT_SHORT_MAX +
						 2 * (VARHDRSZ_SHORT + CS_MONEY_BYTES) + NCOLUMNS * MAXIMUM_ALIGNOF <=
					 CS_PACKED_MOVEMENT,
				 "a packed movement");

/*
 * cs_movement_packs: see ledger_member.h.
 */
bool
cs_movement_packs(TupleDesc desc)
{
	if (desc->natts != NCOLUMNS)
		return false;
	for (int i = 0; i < NCOLUMNS; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->atttypid != column_types[i] || att->attisdropped ||
			(att->attlen == -1 && att->attstorage == TYPSTORAGE_PLAIN))
			return false;
	}
	return true;
}

static inline bool
is_short(const char *s)
{
	return s == NULL || strlen(s) <= SHORT_TEXT;
}

static inline char *
put_short(char *to, const char *s, Size len)
{
	SET_VARSIZE_SHORT(to, len + VARHDRSZ_SHORT);
	memcpy(to + VARHDRSZ_SHORT, s, len);
	return to + VARHDRSZ_SHORT + len;
}

static inline char *
put_money(char *to, CsMoney money)
{
	int len = cs_money_put(money, to + VARHDRSZ_SHORT);

	SET_VARSIZE_SHORT(to, len + VARHDRSZ_SHORT);
	return to + VARHDRSZ_SHORT + len;
}

/* What lies before an instant is zeros. */
static inline char *
put_instant(char *to, TimestampTz at)
{
	char *place = (char *) TYPEALIGN(sizeof(at), to);

	memset(to, 0, place - to);
	memcpy(place, &at, sizeof(at));
	return place + sizeof(at);
}

#ifdef USE_ASSERT_CHECKING
/* Whether PostgreSQL forms the same row; what transactions say of it an insert fills in. */
static bool
is_as_formed(const CsMovement *m, const text *id, TupleDesc desc, HeapTupleHeader row, Size len)
{
	Datum values[NCOLUMNS];
	bool nulls[NCOLUMNS];
	HeapTuple formed;
	bool same;

	cs_movement_row(m, id, values, nulls);
	formed = heap_form_tuple(desc, values, nulls);
	same = formed->t_len == len && formed->t_data->t_hoff == row->t_hoff &&
		   HeapTupleHeaderGetNatts(formed->t_data) == HeapTupleHeaderGetNatts(row) &&
		   ((formed->t_data->t_infomask ^ row->t_infomask) & ~HEAP_XACT_MASK) == 0 &&
		   memcmp(formed->t_data->t_bits, row->t_bits, len - SizeofHeapTupleHeader) == 0;
	heap_freetuple(formed);
	return same;
}
#endif

/*
 * cs_movement_pack: see ledger_member.h.
 */
Size
cs_movement_pack(const CsMovement *m, const text *id, TupleDesc desc, HeapTupleHeader row)
{
	bool nulls[NCOLUMNS] = {false};
	bool some;
	int hoff;
	char *to;
	Size len;

	if (VARSIZE_ANY_EXHDR(id) > SHORT_TEXT || !is_short(m->churn_kind) || !is_short(m->reason))
		return 0;
	nulls[CHURN_KIND] = m->churn_kind == NULL;
	nulls[REASON] = m->reason == NULL;
	nulls[SERVICE_END_AT] = m->service_end == DT_NOEND;
	nulls[CANCEL_REQUESTED_AT] = m->requested == DT_NOEND;
	nulls[CANCEL_EFFECTIVE_AT] = m->effective == DT_NOEND;
	some = nulls[CHURN_KIND] || nulls[REASON] || nulls[SERVICE_END_AT] ||
		   nulls[CANCEL_REQUESTED_AT] || nulls[CANCEL_EFFECTIVE_AT];
	hoff = MAXALIGN(SizeofHeapTupleHeader + (some ? BITMAPLEN(NCOLUMNS) : 0));

	memset(row, 0, hoff);
	ItemPointerSetInvalid(&row->t_ctid);
	HeapTupleHeaderSetNatts(row, NCOLUMNS);
	row->t_hoff = hoff;
	row->t_infomask = HEAP_HASVARWIDTH;
	if (some)
	{
		row->t_infomask |= HEAP_HASNULL;
		for (int i = 0; i < NCOLUMNS; i++)
		{
			if (!nulls[i])
				row->t_bits[i / BITS_PER_BYTE] |= 1 << (i % BITS_PER_BYTE);
		}
	}

	to = (char *) row + hoff;
	to = put_short(to, VARDATA_ANY(id), VARSIZE_ANY_EXHDR(id));
	to = put_instant(to, m->at);
	*(int16 *) to = (int16) m->seq;
	to += sizeof(int16);
	to = put_short(to, m->kind, strlen(m->kind));
	to = put_money(to, m->delta);
	to = put_money(to, m->mrr_after);
	*to++ = m->active_after;
	if (!nulls[CHURN_KIND])
		to = put_short(to, m->churn_kind, strlen(m->churn_kind));
	if (!nulls[REASON])
		to = put_short(to, m->reason, strlen(m->reason));
	*to++ = m->term_extension;
	if (!nulls[SERVICE_END_AT])
		to = put_instant(to, m->service_end);
	if (!nulls[CANCEL_REQUESTED_AT])
		to = put_instant(to, m->requested);
	if (!nulls[CANCEL_EFFECTIVE_AT])
		to = put_instant(to, m->effective);

	len = to - (char *) row;
	Assert(is_as_formed(m, id, desc, row, len));
	return len;
}
