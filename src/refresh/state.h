/*
 * state.h
 *		The rows of cs_internal.state of a batch, in memory while the stages run.
 */
#ifndef CS_STATE_H
#define CS_STATE_H

#include "cs_ext.h"

#include "storage/itemptr.h"

/* Columns of cs_internal.state. */
enum
{
	CS_STATE_CUSTOMER_ID,
	CS_STATE_AS_OF_DAY,
	CS_STATE_MRR,
	CS_STATE_ACTIVE,
	CS_STATE_IN_TRIAL,
	CS_STATE_SEATS,
	CS_STATE_TENURE_DAYS,
	CS_STATE_DAYS_TO_RENEWAL,
	CS_STATE_VALUES,
	CS_STATE_SEGMENTS,
	CS_STATE_SCORECARD,
	CS_STATE_SCORE,
	CS_STATE_COVERAGE,
	CS_STATE_SCORE_REASON,
	CS_STATE_HEALTH_INPUTS,
	CS_STATE_DUE_AT,
	CS_STATE_AHEAD,
	CS_STATE_COLUMNS
};

/*
 * n rows, in order of the batch's ids.  there: the customer has a row, or gets
 * one when the batch is written.
 */
typedef struct CsState
{
	int n;
	char **ids;
	bool *there;
	Datum *values; /* n x CS_STATE_COLUMNS, varlena without short header */
	bool *nulls;
	Datum *stored; /* as they stand in the table */
	bool *stored_nulls;
	bool *is_stored;
	ItemPointerData *places;    /* of those that are stored */
	TimestampTz *next_movement; /* that lies ahead, by the ledger; DT_NOEND: none */
	CsResult *shown;            /* the relation last made of them, NULL: to be made */
	MemoryContext memory;
} CsState;

#define CS_STATE_CELL(row, column) ((Size) (row) *CS_STATE_COLUMNS + (column))

/* Reads the rows of a batch, whose relation is registered.  all: who has none gets one. */
extern void cs_state_load(CsBatch *batch, bool all);

/*
 * How many customers of a batch that was just loaded are not ahead of its instant;
 * *ids: these (sorted text[]).
 */
extern int cs_state_not_ahead(const CsBatch *batch, Datum *ids);

/* The row of a customer, -1: not of the batch. */
extern int cs_state_row(const CsState *state, const char *id);

/* Sets a cell; the value is copied. */
extern void cs_state_set(CsState *state, int row, int column, Datum value, bool isnull);

/*
 * From show to hide our statements see the rows as the relation "evaluated",
 * with the columns of cs_internal.state.  Not while a user's SQL runs, where it
 * could hide a table.
 */
extern void cs_state_show(const CsBatch *batch);
extern void cs_state_hide(void);

/* Writes the rows that differ from what is stored. */
extern void cs_state_write(CsBatch *batch);

#endif /* CS_STATE_H */
