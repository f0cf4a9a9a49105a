/*
 * flow.h
 *		What the customers of each segment did in each period, from one pass over
 *		the ledger.
 */
#ifndef CS_FLOW_H
#define CS_FLOW_H

#include "cs_ext.h"

/* Sums of one segment and period; see flow_columns in flow.c for their names. */
typedef enum CsSum
{
	/* customers */
	SUM_CUSTOMERS,     /* active at the end less active at the start */
	SUM_CHURNED,       /* active at the start, not at the end, not merged */
	SUM_CHURNS,        /* churn movements */
	SUM_START_CHURNED, /* active at the start, with a churn */
	SUM_JOINED,        /* active in the period for the first time */
	SUM_CUSTOMERS_IN,  /* active at the end, here then, elsewhere at the start */
	SUM_CUSTOMERS_OUT,
	/* money, in millionths; the movements */
	SUM_MRR, /* at the end less at the start */
	SUM_NEW,
	SUM_REACTIVATION,
	SUM_EXPANSION,
	SUM_CONTRACTION,
	SUM_CHURN,
	SUM_PAUSE,
	SUM_RESUME,
	SUM_MERGE_IN,
	SUM_MERGE_OUT,
	SUM_FX,
	/* the same ten net between the bounds */
	SUM_NET_NEW,
	SUM_NET_REACTIVATION,
	SUM_NET_EXPANSION,
	SUM_NET_CONTRACTION,
	SUM_NET_CHURN,
	SUM_NET_PAUSE,
	SUM_NET_RESUME,
	SUM_NET_MERGE_IN,
	SUM_NET_MERGE_OUT,
	SUM_NET_FX,
	/* of the customers active at the start */
	SUM_START_GROSS, /* churn and contraction, by the movements */
	SUM_START_NET,   /* less expansion and reactivation */
	SUM_LOST,        /* what is not retained of their MRR, by the movements */
	SUM_NET_LOST,    /* the same, net */
	SUM_GAINED,      /* their MRR at the end less at the start, new payers left out */
	/* MRR at the end of who is here then and was elsewhere at the start, and the reverse */
	SUM_MRR_IN,
	SUM_MRR_OUT,
	NSUMS
} CsSum;

#define FIRST_MONEY SUM_MRR

extern const char *const cs_flow_columns[NSUMS];

/*
 * The sums of periods that touch: period n (from 1) is [bounds[n-1], bounds[n]),
 * period 0 the time before, whose sums are the balances at its end.
 */
typedef struct CsFlow CsFlow;

extern CsFlow *cs_flow_make(const TimestampTz *bounds, int nbounds, bool edge_at);

/*
 * Adds, or takes off where sign is -1, the customers of a query, in order of
 * customer and time.  Its columns:
 *	 customer_id text, at timestamptz
 *	 kind text, delta numeric, mrr_after numeric, active_after boolean
 *		a movement; kind NULL: the row changes the segment alone
 *	 segment text		where the customer is from then on; NULL: as before
 *	 initial text		where before the first movement, from
 *	 created_at timestamptz		this instant, or from the first movement if that is
 *		earlier; until then in none.  NULL: not before the first movement.
 *	 over boolean		the segment goes before all others until the next such row;
 *		NULL ends it
 * Only periods from first to last are counted.
 */
extern void cs_flow_add(CsFlow *flow, const char *sql, const CsArg *args, int nargs, int sign,
						int first, int last);

/* Adds to one sum. */
extern void cs_flow_put(CsFlow *flow, const char *segment, int period, CsSum sum, Datum value);

/* Segments met so far, and one sum: int8 below FIRST_MONEY, else numeric. */
extern int cs_flow_segments(const CsFlow *flow);
extern const char *cs_flow_segment(const CsFlow *flow, int segment);
extern bool cs_flow_any(const CsFlow *flow, int segment, int period);
extern Datum cs_flow_get(const CsFlow *flow, int segment, int period, CsSum sum);

/* Customers and MRR at the start of each period, carried: puts both. */
extern void cs_flow_carry(const CsFlow *flow, int segment, int period, Datum *customers,
						  Datum *mrr);

#endif
