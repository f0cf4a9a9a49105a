/*
 * ledger_member.h
 *		Inside the ledger's first build: the rows of a customer become its movements
 *		(ledger_member.c), in this process or another (ledger_beside.c).
 */
#ifndef CS_LEDGER_MEMBER_H
#define CS_LEDGER_MEMBER_H

#include "cs_ext.h"

#include "executor/tuptable.h"

#include "core/bulk.h"
#include "facts/ledger_sweep.h"

/* What a row is, by the kind of its source. */
typedef enum CsRowKind
{
	CS_ROW_TERM,         /* customer_id, then columns of cs_internal.subscription_fact */
	CS_ROW_CANCELLATION, /* as CS_CANCELLATION_SELECT */
	CS_ROW_DUE           /* as CS_DUE_SELECT, in order of the instant */
} CsRowKind;

/* Rows that are read of one source. */
typedef struct CsRowSource
{
	CsRowKind kind;
	int ncolumns;                /* of a term */
	int8 columns[FACT_NCOLUMNS]; /* which these are, by their FACT_ numbers; the others are NULL */
	const char *name;
	TupleDesc desc;
} CsRowSource;

/* ---- ledger_member.c ---------------------------------------------------- */

typedef struct CsMaker CsMaker;

/* Takes a customer that was swept, whose movements can be stored; it is gone afterwards. */
typedef void (*CsMade)(const CsMember *member, const text *id, void *arg);

/*
 * Begins, in the current memory context.  Of the policy what cs_sweep_rules
 * reads, currency, time_zone and grace_days count.
 */
extern CsMaker *cs_maker_begin(const CsPolicy *policy, const CsRates *rates, CsResult *unusable,
							   CsMade made, void *arg);

/* A row, whose id is in the slot's first column; those of one customer follow one another. */
extern void cs_maker_row(CsMaker *maker, const CsRowSource *source, TupleTableSlot *slot);

/* There are no more rows. */
extern void cs_maker_end(CsMaker *maker);

/* ---- ledger_row.c -------------------------------------------------------- */

/* The row of a movement, as the columns of cs_internal.movement. */
extern void cs_movement_row(const CsMovement *movement, const text *id, Datum *values, bool *nulls);

/*
 * The same as it stands on disk.  packs: whether the table is as is known here.
 * pack: puts the row into CS_PACKED_MOVEMENT bytes, aligned, and returns its
 * length; 0: its texts are too long, it has to be formed.
 */
#define CS_PACKED_MOVEMENT 1024
extern bool cs_movement_packs(TupleDesc desc);
extern Size cs_movement_pack(const CsMovement *movement, const text *id, TupleDesc desc,
							 HeapTupleHeader row);

/* ---- ledger_beside.c ---------------------------------------------------- */

typedef struct CsBeside CsBeside;

/*
 * A parallel worker makes movements of the rows it is given, which are written
 * here as they come back; NULL where none can be had.  While it lives nothing else
 * may be written and no transaction id be taken; the caller has one.
 */
extern CsBeside *cs_beside_begin(const CsRowSource *sources, int nsources, const CsPolicy *policy,
								 const CsRates *rates, CsBulk *bulk, CsResult *unusable);
extern void cs_beside_row(CsBeside *beside, int source, TupleTableSlot *slot);

/* There are no more rows: all is written, and what was unusable is in its relation. */
extern void cs_beside_end(CsBeside *beside);

#endif /* CS_LEDGER_MEMBER_H */
