/*
 * flow.c
 *		One pass over movements of many customers: what the customers of each
 *		segment did in each of many periods that touch.
 *
 * In: movements in order of customer and time, as rows of a query that is read
 * as a stream; each says in which segment the customer is from then on.  Out:
 * sums a segment and period, from which every method of churn and both bases of
 * revenue follow (sql/summary.sql).
 *
 * A customer counts in a period where it stood at the period's start; whoever
 * is elsewhere at its end is a transfer.  So a customer adds nothing to a period
 * without a movement or a change of segment, and balances are carried: the work
 * is that of reading the movements, however many periods there are.
 *
 * Money is summed in millionths as 128-bit integers: the ledger's numeric(20,6)
 * is below 10^14, so sums of 10^18 customers are exact, in any order, and what
 * was added can be taken off again.
 */
#include "cs_ext.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "tcop/dest.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"

#include "core/money.h"
#include "insight/flow.h"

#define MILLION 1000000

const char *const cs_flow_columns[NSUMS] = {
	"customers",     "churned",         "churns",    "start_churned", "joined",
	"customers_in",  "customers_out",   "mrr",       "new_mrr",       "reactivation_mrr",
	"expansion_mrr", "contraction_mrr", "churn_mrr", "pause_mrr",     "resume_mrr",
	"merge_in",      "merge_out",       "fx_mrr",    "net_new",       "net_reactivation",
	"net_expansion", "net_contraction", "net_churn", "net_pause",     "net_resume",
	"net_merge_in",  "net_merge_out",   "net_fx",    "start_gross",   "start_net",
	"lost",          "net_lost",        "gained",    "mrr_in",        "mrr_out",
};

typedef struct Segment
{
	char *name;
	int128 **cells; /* one a period, NULL: all zero */
} Segment;

/* A movement's kind, as what it adds to. */
typedef enum Kind
{
	KIND_NEW,
	KIND_REACTIVATION,
	KIND_EXPANSION,
	KIND_CONTRACTION,
	KIND_CHURN,
	KIND_PAUSE,
	KIND_RESUME,
	KIND_MERGE_IN,
	KIND_MERGE_OUT,
	KIND_FX,
	NKINDS
} Kind;

static const struct
{
	const char *name;
	int sign; /* of the sum to the delta: all sums but fx are >= 0 */
} kinds[NKINDS] = {
	{"new", 1},    {"reactivation", 1}, {"expansion", 1}, {"contraction", -1}, {"churn", -1},
	{"pause", -1}, {"resume", 1},       {"merge_in", 1},  {"merge_out", -1},   {"fx", 1},
};

/* Where the pass is: one customer, in one period. */
typedef struct Place
{
	int period;
	TimestampTz at; /* of the row before */
	int segment;    /* now: the one above all others, else the placed one */
	int over;       /* -1: none */
	int placed;
	int initial;
	TimestampTz created;
	bool known;     /* it is a customer by now */
	int at_start;   /* at the period's start */
	int128 mrr;     /* now */
	bool active;    /* now */
	bool was_ever;  /* active at any instant up to now */
	bool paid_ever; /* MRR > 0 at any instant up to now */
	/* of the period */
	bool moved;
	int128 mrr_start;
	bool active_start;
	bool active_before;
	bool paid_before;
	bool was_active;
	bool merged; /* the last movement is one */
	int churns;
	int128 sums[NKINDS];
} Place;

struct CsFlow
{
	MemoryContext context;
	TimestampTz *bounds;
	int nbounds; /* periods are 0 to nbounds - 1 */
	TimestampTz shift;
	Segment *segments;
	int nsegments;
	int segments_size;
	int last; /* segment looked up last */

	/* of the running pass */
	int sign;
	int first;
	int end; /* the first period that is not counted any more */
	char *customer;
	Size customer_len;
	Size customer_size;
	bool any;
	Place place;
	uint64 rows;
};

typedef struct FlowReceiver
{
	DestReceiver pub;
	CsFlow *flow;
} FlowReceiver;

/* ---- money ---------------------------------------------------------------- */

/*
 * to_millionths: of what the ledger stores, which has six digits after the point.
 */
static int128
to_millionths(Datum value)
{
	CsMoney money;

	if (!cs_money(value, &money))
		elog(ERROR, "amount in the ledger is out of range");
	return money;
}

/* ---- sums ----------------------------------------------------------------- */

/*
 * cs_flow_make: see flow.h.  With period_edge 'at' every movement counts one
 * microsecond earlier, so that one code serves both edges.
 */
CsFlow *
cs_flow_make(const TimestampTz *bounds, int nbounds, bool edge_at)
{
	CsFlow *flow = palloc0(sizeof(CsFlow));

	flow->context = CurrentMemoryContext;
	flow->nbounds = nbounds;
	flow->bounds = palloc(sizeof(TimestampTz) * nbounds);
	memcpy(flow->bounds, bounds, sizeof(TimestampTz) * nbounds);
	flow->shift = edge_at ? 1 : 0;
	flow->segments_size = 8;
	flow->segments = palloc(sizeof(Segment) * flow->segments_size);
	return flow;
}

static int
segment_of(CsFlow *flow, const char *name, Size len)
{
	MemoryContext old;
	Segment *segment;

	if (flow->last < flow->nsegments && strncmp(flow->segments[flow->last].name, name, len) == 0 &&
		flow->segments[flow->last].name[len] == '\0')
		return flow->last;
	for (int i = 0; i < flow->nsegments; i++)
		if (strncmp(flow->segments[i].name, name, len) == 0 && flow->segments[i].name[len] == '\0')
			return flow->last = i;

	old = MemoryContextSwitchTo(flow->context);
	if (flow->nsegments == flow->segments_size)
	{
		flow->segments_size *= 2;
		flow->segments = repalloc(flow->segments, sizeof(Segment) * flow->segments_size);
	}
	segment = &flow->segments[flow->nsegments];
	segment->name = pnstrdup(name, len);
	segment->cells = palloc0(sizeof(int128 *) * flow->nbounds);
	MemoryContextSwitchTo(old);
	return flow->last = flow->nsegments++;
}

static int
segment_of_datum(CsFlow *flow, Datum value)
{
	text *name = DatumGetTextPP(value);

	return segment_of(flow, VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
}

static int128 *
cell(CsFlow *flow, int segment, int period)
{
	int128 **cells = flow->segments[segment].cells;

	/* 128-bit integers need the alignment that palloc gives */
	if (cells[period] == NULL)
		cells[period] = MemoryContextAllocZero(flow->context, sizeof(int128) * NSUMS);
	return cells[period];
}

void
cs_flow_put(CsFlow *flow, const char *segment, int period, CsSum sum, Datum value)
{
	cell(flow, segment_of(flow, segment, strlen(segment)), period)[sum] +=
		sum < FIRST_MONEY ? (int128) DatumGetInt64(value) : to_millionths(value);
}

int
cs_flow_segments(const CsFlow *flow)
{
	return flow->nsegments;
}

const char *
cs_flow_segment(const CsFlow *flow, int segment)
{
	return flow->segments[segment].name;
}

bool
cs_flow_any(const CsFlow *flow, int segment, int period)
{
	const int128 *sums = flow->segments[segment].cells[period];

	for (int i = 0; sums != NULL && i < NSUMS; i++)
		if (sums[i] != 0)
			return true;
	return false;
}

Datum
cs_flow_get(const CsFlow *flow, int segment, int period, CsSum sum)
{
	const int128 *sums = flow->segments[segment].cells[period];
	int128 value = sums ? sums[sum] : 0;

	return sum < FIRST_MONEY ? Int64GetDatum((int64) value) : cs_money_numeric(value);
}

void
cs_flow_carry(const CsFlow *flow, int segment, int period, Datum *customers, Datum *mrr)
{
	int128 n = 0;
	int128 money = 0;

	for (int i = 0; i < period; i++)
	{
		const int128 *sums = flow->segments[segment].cells[i];

		if (sums == NULL)
			continue;
		n += sums[SUM_CUSTOMERS] + sums[SUM_CUSTOMERS_IN] - sums[SUM_CUSTOMERS_OUT];
		money += sums[SUM_MRR] + sums[SUM_MRR_IN] - sums[SUM_MRR_OUT];
	}
	*customers = Int64GetDatum((int64) n);
	*mrr = cs_money_numeric(money);
}

/* ---- the pass ------------------------------------------------------------- */

static int128
least(int128 a, int128 b)
{
	return a < b ? a : b;
}

static int128
not_below_zero(int128 a)
{
	return a > 0 ? a : 0;
}

/*
 * add_moved: a period with movements, to the sums of the segment that the
 * customer was in at its start.  Net, the change between the bounds is named
 * once: of a customer active at both, pauses and fx keep their name as far as
 * the net change goes, the rest is expansion or contraction (DEFINITIONS B.2).
 */
static void
add_moved(CsFlow *flow)
{
	Place *p = &flow->place;
	int128 *d = p->sums;
	int128 *s = cell(flow, p->at_start, p->period);
	int sign = flow->sign;
	int128 change = p->mrr - p->mrr_start;
	int128 fx = p->mrr_start > 0 && p->mrr > 0 ? d[KIND_FX] : 0;
	int128 gain = not_below_zero(change - fx);
	int128 loss = not_below_zero(fx - change);
	int128 resumed = p->active_start && p->paid_before
						 ? least(gain, not_below_zero(d[KIND_RESUME] - d[KIND_PAUSE]))
						 : 0;
	int128 paused = p->active ? least(loss, not_below_zero(d[KIND_PAUSE] - d[KIND_RESUME])) : 0;
	int128 merged_in = least(gain - resumed, d[KIND_MERGE_IN]);
	int128 merged_out = least(loss - paused, d[KIND_MERGE_OUT]);

	s[SUM_CUSTOMERS] += sign * ((int) p->active - (int) p->active_start);
	s[SUM_CHURNED] += sign * (int) (p->active_start && !p->active && !p->merged);
	s[SUM_CHURNS] += sign * p->churns;
	s[SUM_START_CHURNED] += sign * (int) (p->active_start && p->churns > 0);
	s[SUM_JOINED] += sign * (int) (p->was_active && !p->active_start && !p->active_before);
	s[SUM_MRR] += sign * change;
	for (int k = 0; k < NKINDS; k++)
		s[SUM_NEW + k] += sign * d[k];

	gain -= resumed + merged_in;
	loss -= paused + merged_out;
	s[!p->paid_before   ? SUM_NET_NEW
	  : p->active_start ? SUM_NET_EXPANSION
						: SUM_NET_REACTIVATION] += sign * gain;
	s[p->active ? SUM_NET_CONTRACTION : SUM_NET_CHURN] += sign * loss;
	s[SUM_NET_PAUSE] += sign * paused;
	s[SUM_NET_RESUME] += sign * resumed;
	s[SUM_NET_MERGE_IN] += sign * merged_in;
	s[SUM_NET_MERGE_OUT] += sign * merged_out;
	s[SUM_NET_FX] += sign * fx;

	if (!p->active_start)
		return;
	s[SUM_START_GROSS] += sign * (d[KIND_CHURN] + d[KIND_CONTRACTION]);
	s[SUM_START_NET] +=
		sign * (d[KIND_CHURN] + d[KIND_CONTRACTION] - d[KIND_EXPANSION] - d[KIND_REACTIVATION]);
	s[SUM_LOST] +=
		sign * (p->mrr_start - not_below_zero(p->mrr_start - d[KIND_CHURN] - d[KIND_CONTRACTION] -
											  d[KIND_PAUSE] - d[KIND_MERGE_OUT]));
	s[SUM_NET_LOST] += sign * (p->mrr_start - least(p->mrr_start, p->mrr));
	/* a free customer's first payment is new, not gained */
	if (p->paid_before || p->mrr_start > 0)
		s[SUM_GAINED] += sign * change;
}

/*
 * close_period: the customer is at the end of its period.
 */
static void
close_period(CsFlow *flow)
{
	Place *p = &flow->place;
	int128 *s;

	if (p->period == 0)
	{
		if (flow->first == 0 && (p->active || p->mrr != 0))
		{
			s = cell(flow, p->segment, 0);
			s[SUM_CUSTOMERS] += flow->sign * (int) p->active;
			s[SUM_MRR] += flow->sign * p->mrr;
		}
		return;
	}
	if (p->period < flow->first)
		return;
	if (p->moved)
		add_moved(flow);
	if (p->segment != p->at_start && (p->active || p->mrr != 0))
	{
		s = cell(flow, p->at_start, p->period);
		s[SUM_CUSTOMERS_OUT] += flow->sign * (int) p->active;
		s[SUM_MRR_OUT] += flow->sign * p->mrr;
		s = cell(flow, p->segment, p->period);
		s[SUM_CUSTOMERS_IN] += flow->sign * (int) p->active;
		s[SUM_MRR_IN] += flow->sign * p->mrr;
	}
}

static void
open_period(CsFlow *flow, int period)
{
	Place *p = &flow->place;

	p->period = period;
	p->at_start = p->segment;
	p->moved = false;
	p->mrr_start = p->mrr;
	p->active_start = p->active;
	p->active_before = p->was_ever;
	p->paid_before = p->paid_ever;
	p->was_active = false;
	p->merged = false;
	p->churns = 0;
	memset(p->sums, 0, sizeof(p->sums));
}

/*
 * period_of: the period of an instant, which is not before the current one.
 */
static int
period_of(const CsFlow *flow, TimestampTz at)
{
	int low = flow->place.period;
	int high = flow->end;

	if (low == flow->end || at < flow->bounds[low])
		return low;
	/* bounds[low] <= at; the answer is the number of bounds that are <= at */
	while (high - low > 1)
	{
		int middle = low + (high - low) / 2;

		if (flow->bounds[middle] <= at)
			low = middle;
		else
			high = middle;
	}
	return high;
}

static Kind
kind_of(Datum value)
{
	text *name = DatumGetTextPP(value);
	Size len = VARSIZE_ANY_EXHDR(name);

	for (int k = 0; k < NKINDS; k++)
		if (strlen(kinds[k].name) == len && memcmp(kinds[k].name, VARDATA_ANY(name), len) == 0)
			return k;
	elog(ERROR, "unknown kind of movement");
}

enum
{
	COL_CUSTOMER,
	COL_AT,
	COL_KIND,
	COL_DELTA,
	COL_MRR_AFTER,
	COL_ACTIVE_AFTER,
	COL_SEGMENT,
	COL_INITIAL,
	COL_CREATED_AT,
	COL_OVER
};

static void
place(Place *p)
{
	p->segment = p->over >= 0 ? p->over : p->placed;
}

/*
 * next_customer: the one before is complete.
 */
static void
next_customer(CsFlow *flow, text *customer, TupleTableSlot *slot)
{
	Size len = VARSIZE_ANY_EXHDR(customer);
	Place *p = &flow->place;
	int none = segment_of(flow, "(none)", 6);

	if (flow->any)
		close_period(flow);
	if (len > flow->customer_size)
	{
		flow->customer_size = len * 2;
		flow->customer = MemoryContextAlloc(flow->context, flow->customer_size);
	}
	memcpy(flow->customer, VARDATA_ANY(customer), len);
	flow->customer_len = len;
	flow->any = true;

	memset(p, 0, sizeof(Place));
	p->at = DT_NOBEGIN;
	p->over = -1;
	p->initial = slot->tts_isnull[COL_INITIAL]
					 ? none
					 : segment_of_datum(flow, slot->tts_values[COL_INITIAL]);
	p->created = slot->tts_isnull[COL_CREATED_AT]
					 ? DT_NOEND
					 : DatumGetTimestampTz(slot->tts_values[COL_CREATED_AT]);
	p->known = p->created == DT_NOBEGIN;
	p->placed = p->known ? p->initial : none;
	place(p);
	open_period(flow, 0);
}

/*
 * move_to: the customer is at this instant; false when that is beyond what is
 * counted.
 */
static bool
move_to(CsFlow *flow, TimestampTz at)
{
	int period = period_of(flow, at);

	if (period == flow->end)
		return false;
	if (period != flow->place.period)
	{
		close_period(flow);
		open_period(flow, period);
	}
	flow->place.at = at;
	return true;
}

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	CsFlow *flow = ((FlowReceiver *) self)->flow;
	Place *p = &flow->place;
	text *customer;
	TimestampTz at;
	bool moves;

	if ((++flow->rows & 1023) == 0)
		CHECK_FOR_INTERRUPTS();
	slot_getallattrs(slot);
	customer = DatumGetTextPP(slot->tts_values[COL_CUSTOMER]);
	if (!flow->any || VARSIZE_ANY_EXHDR(customer) != flow->customer_len ||
		memcmp(VARDATA_ANY(customer), flow->customer, flow->customer_len) != 0)
		next_customer(flow, customer, slot);

	at = DatumGetTimestampTz(slot->tts_values[COL_AT]);
	moves = !slot->tts_isnull[COL_KIND];
	if (!p->known)
	{
		/* a first movement on a bound makes it a customer at the bound */
		TimestampTz known = moves ? Min(p->created, at - 1) : p->created;

		if (known <= at - flow->shift)
		{
			if (!move_to(flow, Max(known, p->at)))
				return true;
			p->known = true;
			p->placed = p->initial;
			place(p);
		}
	}
	if (!move_to(flow, at - flow->shift))
		return true;
	if (moves)
	{
		Kind kind = kind_of(slot->tts_values[COL_KIND]);

		p->moved = true;
		p->sums[kind] += kinds[kind].sign * to_millionths(slot->tts_values[COL_DELTA]);
		p->mrr = to_millionths(slot->tts_values[COL_MRR_AFTER]);
		p->active = DatumGetBool(slot->tts_values[COL_ACTIVE_AFTER]);
		p->was_active |= p->active;
		p->was_ever |= p->active;
		p->paid_ever |= p->mrr > 0;
		p->merged = kind == KIND_MERGE_OUT;
		p->churns += kind == KIND_CHURN;
	}
	if (DatumGetBool(slot->tts_values[COL_OVER]))
		p->over = slot->tts_isnull[COL_SEGMENT]
					  ? -1
					  : segment_of_datum(flow, slot->tts_values[COL_SEGMENT]);
	else if (!slot->tts_isnull[COL_SEGMENT])
		p->placed = segment_of_datum(flow, slot->tts_values[COL_SEGMENT]);
	place(p);
	return true;
}

static void
receive_startup(DestReceiver *self, int operation, TupleDesc desc)
{
}

static void
receive_nothing(DestReceiver *self)
{
}

/*
 * cs_flow_add: see flow.h.  The query reads on the active snapshot.
 */
void
cs_flow_add(CsFlow *flow, const char *sql, const CsArg *args, int nargs, int sign, int first,
			int last)
{
	FlowReceiver receiver = {
		{receive_row, receive_startup, receive_nothing, receive_nothing, DestNone}, flow};
	SPIExecuteOptions options = {0};
	int rc;

	flow->sign = sign;
	flow->first = first;
	flow->end = last + 1;
	flow->any = false;
	flow->rows = 0;
	options.params = makeParamList(nargs);
	for (int i = 0; i < nargs; i++)
	{
		options.params->params[i].value = args[i].value;
		options.params->params[i].isnull = args[i].isnull;
		options.params->params[i].pflags = PARAM_FLAG_CONST;
		options.params->params[i].ptype = args[i].type;
	}
	options.read_only = true;
	options.must_return_tuples = true;
	options.dest = &receiver.pub;
	rc = SPI_execute_extended(sql, &options);
	if (rc < 0)
		elog(ERROR, "SPI_execute_extended failed: %s: %s", SPI_result_code_string(rc), sql);
	if (flow->any)
		close_period(flow);
	flow->any = false;
}
