/*
 * state.c
 *		The rows of cs_internal.state of a batch, in memory while the stages run.
 *
 * In: the rows as they stand.  The stages read and change them here, by
 * customer and column, or as the relation "evaluated" in statements.  Out: the
 * rows that are different, written in their places at the end, so that a row
 * is written at most once an evaluation, and not at all where nothing changed.
 *
 * Cases.
 * What-if: nothing is written, so it needs no turn with the refresher.
 * Concurrent writer: who evaluates a customer holds the customer's lock.
 * Crash, abort: the statement is of the batch's transaction.
 */
#include "cs_ext.h"

#include "access/htup_details.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"

#include "core/rewrite.h"
#include "core/texts.h"
#include "refresh/state.h"

static const struct
{
	const char *name;
	Oid type;
	int16 length;
	bool byval;
} columns[CS_STATE_COLUMNS] = {
	{"customer_id", TEXTOID, -1, false},
	{"as_of_day", DATEOID, 4, true},
	{"mrr", NUMERICOID, -1, false},
	{"active", BOOLOID, 1, true},
	{"in_trial", BOOLOID, 1, true},
	{"seats", NUMERICOID, -1, false},
	{"tenure_days", INT4OID, 4, true},
	{"days_to_renewal", INT4OID, 4, true},
	{"values", FLOAT8ARRAYOID, -1, false},
	{"segments", JSONBOID, -1, false},
	{"scorecard", TEXTOID, -1, false},
	{"score", FLOAT8OID, 8, FLOAT8PASSBYVAL},
	{"coverage", FLOAT8OID, 8, FLOAT8PASSBYVAL},
	{"score_reason", TEXTOID, -1, false},
	{"health_inputs", JSONBOID, -1, false},
	{"due_at", TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL},
	{"ahead", TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL},
};

static const char *const load_sql =
	"SELECT s.customer_id, s.as_of_day, s.mrr, s.active, s.in_trial, s.seats, s.tenure_days,"
	" s.days_to_renewal, s.\"values\", s.segments, s.scorecard, s.score, s.coverage,"
	" s.score_reason, s.health_inputs, s.due_at, s.ahead, s.ctid"
	" FROM cs_internal.state s WHERE s.customer_id = ANY ((SELECT $1)::text[])";

/* Who has no row yet; two sessions may both find none. */
static const char *const insert_sql =
	"INSERT INTO cs_internal.state (customer_id, as_of_day, mrr, active, in_trial, seats,"
	"  tenure_days, days_to_renewal, \"values\", segments, scorecard, score, coverage,"
	"  score_reason, health_inputs, due_at, ahead)"
	" SELECT e.customer_id, e.as_of_day, e.mrr, e.active, e.in_trial, e.seats, e.tenure_days,"
	"  e.days_to_renewal, e.\"values\", e.segments, e.scorecard, e.score, e.coverage,"
	"  e.score_reason, e.health_inputs, e.due_at, e.ahead FROM evaluated e"
	" ON CONFLICT (customer_id) DO UPDATE SET as_of_day = excluded.as_of_day,"
	"  mrr = excluded.mrr, active = excluded.active, in_trial = excluded.in_trial,"
	"  seats = excluded.seats, tenure_days = excluded.tenure_days,"
	"  days_to_renewal = excluded.days_to_renewal, \"values\" = excluded.\"values\","
	"  segments = excluded.segments, scorecard = excluded.scorecard, score = excluded.score,"
	"  coverage = excluded.coverage, score_reason = excluded.score_reason,"
	"  health_inputs = excluded.health_inputs, due_at = excluded.due_at, ahead = excluded.ahead";

/*
 * copy: into the current memory, varlena in its one plain form.
 */
static Datum
copy(int column, Datum value)
{
	if (columns[column].byval)
		return value;
	if (columns[column].length == -1)
	{
		struct varlena *plain = PG_DETOAST_DATUM(value);

		if (plain != (struct varlena *) DatumGetPointer(value))
			return PointerGetDatum(plain);
	}
	return datumCopy(value, false, columns[column].length);
}

int
cs_state_row(const CsState *state, const char *id)
{
	return cs_find_string(id, state->ids, state->n);
}

/*
 * read_stored: what the last cs_exec found.
 */
static void
read_stored(CsState *state)
{
	SPITupleTable *table = SPI_tuptable;
	Datum values[CS_STATE_COLUMNS + 1]; /* the last is the row's place */
	bool nulls[CS_STATE_COLUMNS + 1];

	for (uint64 r = 0; r < table->numvals; r++)
	{
		char *id;
		int row;

		CHECK_FOR_INTERRUPTS();
		heap_deform_tuple(table->vals[r], table->tupdesc, values, nulls);
		id = TextDatumGetCString(values[CS_STATE_CUSTOMER_ID]);
		row = cs_state_row(state, id);
		pfree(id);
		if (row < 0)
			continue;
		state->is_stored[row] = true;
		state->places[row] = *(ItemPointer) DatumGetPointer(values[CS_STATE_COLUMNS]);
		for (int c = 0; c < CS_STATE_COLUMNS; c++)
		{
			Size cell = CS_STATE_CELL(row, c);

			state->stored_nulls[cell] = state->nulls[cell] = nulls[c];
			if (!nulls[c])
				state->stored[cell] = state->values[cell] = copy(c, values[c]);
		}
	}
}

/*
 * cs_state_load: see state.h.
 */
void
cs_state_load(CsBatch *batch, bool all)
{
	MemoryContext memory =
		AllocSetContextCreate(CurrentMemoryContext, "cs_ext state", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(memory);
	CsState *state = palloc0(sizeof(CsState));
	Size cells;

	state->ids = cs_text_strings(batch->ids, &state->n);
	cells = CS_STATE_CELL(state->n, 0) + 1;
	state->memory = memory;
	state->there = palloc0(state->n + 1);
	state->is_stored = palloc0(state->n + 1);
	state->places = palloc0(sizeof(ItemPointerData) * (state->n + 1));
	state->next_movement = palloc(sizeof(TimestampTz) * (state->n + 1));
	for (int i = 0; i < state->n; i++)
		state->next_movement[i] = DT_NOEND;
	state->values = palloc0(sizeof(Datum) * cells);
	state->stored = palloc0(sizeof(Datum) * cells);
	state->nulls = palloc(cells);
	state->stored_nulls = palloc(cells);
	memset(state->nulls, true, cells);
	memset(state->stored_nulls, true, cells);
	cs_exec(load_sql, CS_ARGS(cs_textarray(batch->ids)));
	MemoryContextSwitchTo(memory);
	read_stored(state);
	SPI_freetuptable(SPI_tuptable);
	for (int i = 0; i < state->n; i++)
	{
		state->there[i] = all || state->is_stored[i];
		if (!state->is_stored[i])
		{
			cs_state_set(state, i, CS_STATE_CUSTOMER_ID, CStringGetTextDatum(state->ids[i]), false);
			cs_state_set(state, i, CS_STATE_SEGMENTS,
						 DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")), false);
		}
	}
	batch->state = state;
	MemoryContextSwitchTo(old);
}

/*
 * cs_state_not_ahead: see state.h.
 */
int
cs_state_not_ahead(const CsBatch *batch, Datum *ids)
{
	const CsState *state = batch->state;
	char **those = palloc(sizeof(char *) * (state->n + 1));
	int n = 0;

	for (int i = 0; i < state->n; i++)
	{
		Size cell = CS_STATE_CELL(i, CS_STATE_AHEAD);

		if (state->nulls[cell] || DatumGetTimestampTz(state->values[cell]) <= batch->as_of)
			those[n++] = state->ids[i];
	}
	*ids = n == state->n ? batch->ids : cs_strings_array(those, n);
	return n;
}

/*
 * cs_state_set: see state.h.
 */
void
cs_state_set(CsState *state, int row, int column, Datum value, bool isnull)
{
	Size cell = CS_STATE_CELL(row, column);
	MemoryContext old;

	if (state->shown != NULL)
	{
		tuplestore_end(state->shown->store);
		state->shown = NULL;
	}
	state->nulls[cell] = isnull;
	if (isnull)
		return;
	old = MemoryContextSwitchTo(state->memory);
	state->values[cell] = copy(column, value);
	MemoryContextSwitchTo(old);
}

/*
 * is_same: does the row stand in the table as it is?
 */
static bool
is_same(const CsState *state, int row)
{
	Datum *values = state->values + CS_STATE_CELL(row, 0);
	Datum *stored = state->stored + CS_STATE_CELL(row, 0);
	bool *nulls = state->nulls + CS_STATE_CELL(row, 0);
	bool *stored_nulls = state->stored_nulls + CS_STATE_CELL(row, 0);

	for (int c = 0; c < CS_STATE_COLUMNS; c++)
		if (nulls[c] != stored_nulls[c] ||
			(!nulls[c] && values[c] != stored[c] &&
			 !datumIsEqual(values[c], stored[c], columns[c].byval, columns[c].length)))
			return false;
	return true;
}

/*
 * make_relation: rows that are there, or of these those that are not stored.
 */
static CsResult *
make_relation(const CsState *state, bool unstored)
{
	CsResult *rows = palloc0(sizeof(CsResult));

	rows->desc = CreateTemplateTupleDesc(CS_STATE_COLUMNS);
	for (int c = 0; c < CS_STATE_COLUMNS; c++)
		TupleDescInitEntry(rows->desc, c + 1, columns[c].name, columns[c].type, -1, 0);
	TupleDescInitEntryCollation(rows->desc, CS_STATE_CUSTOMER_ID + 1, C_COLLATION_OID);
	rows->store = tuplestore_begin_heap(true, false, CS_RESULT_MEM);
	for (int i = 0; i < state->n; i++)
	{
		if (!state->there[i] || (unstored && state->is_stored[i]))
			continue;
		tuplestore_putvalues(rows->store, rows->desc, state->values + CS_STATE_CELL(i, 0),
							 state->nulls + CS_STATE_CELL(i, 0));
		rows->nrows++;
	}
	return rows;
}

/*
 * replace_stored: rows that are stored and differ, in their places.
 */
static void
replace_stored(const CsState *state)
{
	CsRewrite *writing = NULL;
	AttrNumber at[CS_STATE_COLUMNS];
	int32 typmod[CS_STATE_COLUMNS];

	for (int i = 0; i < state->n; i++)
	{
		TupleTableSlot *slot;

		if (!state->there[i] || !state->is_stored[i] || is_same(state, i))
			continue;
		if (writing == NULL)
		{
			TupleDesc desc;

			writing = cs_rewrite_begin("state");
			desc = RelationGetDescr(cs_rewrite_table(writing));
			for (int c = 0; c < CS_STATE_COLUMNS; c++)
			{
				at[c] = SPI_fnumber(desc, columns[c].name);
				if (at[c] <= 0)
					elog(ERROR, "cs_internal.state has no column \"%s\"", columns[c].name);
				typmod[c] = TupleDescAttr(desc, at[c] - 1)->atttypmod;
			}
		}
		slot = cs_rewrite_slot(writing);
		memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts);
		for (int c = 0; c < CS_STATE_COLUMNS; c++)
		{
			Size cell = CS_STATE_CELL(i, c);
			Datum value = state->values[cell];

			if (state->nulls[cell])
				continue;
			if (columns[c].type == NUMERICOID && typmod[c] >= 0)
				value = DirectFunctionCall2(numeric, value, Int32GetDatum(typmod[c]));
			slot->tts_values[at[c] - 1] = value;
			slot->tts_isnull[at[c] - 1] = false;
		}
		cs_rewrite_put(writing, &state->places[i]);
	}
	if (writing != NULL)
		cs_rewrite_end(writing);
}

/*
 * cs_state_show, cs_state_hide: see state.h.
 */
void
cs_state_show(const CsBatch *batch)
{
	CsState *state = batch->state;

	if (state->shown == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(state->memory);

		state->shown = make_relation(state, false);
		MemoryContextSwitchTo(old);
	}
	cs_register("evaluated", state->shown);
}

void
cs_state_hide(void)
{
	cs_unregister("evaluated");
}

/*
 * cs_state_write: see state.h.
 */
void
cs_state_write(CsBatch *batch)
{
	CsState *state = batch->state;
	CsResult *rows = make_relation(state, true);

	replace_stored(state);
	if (rows->nrows > 0)
	{
		cs_register("evaluated", rows);
		cs_exec(insert_sql, CS_NO_ARGS);
		cs_unregister("evaluated");
	}
	tuplestore_end(rows->store);
	if (state->shown != NULL)
		tuplestore_end(state->shown->store);
	state->shown = NULL;
}
