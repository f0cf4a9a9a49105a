/*
 * ledger_sweep.c
 *		The sweep: from the subscription terms of one customer to its movements.
 *
 * In: terms (half-open intervals with their MRR, any number, overlapping,
 * touching, gapped, of no length, open), cancellations, two switches of the
 * policy.  Out: one movement for each instant at which the customer's MRR or
 * its being active changed.  No table is read and none is written, so the
 * same code serves ingest, tests and what-if.
 *
 * Starts and ends are put in order of time and everything that happens at one
 * instant is netted first: a term that ends where another begins leaves no
 * trace but their difference (DEFINITIONS B.3, several subscriptions; B.7
 * no. 7).  Sums are numeric with six digits, hence exact in any order.
 */
#include "cs_ext.h"

#include "miscadmin.h"
#include "utils/fmgrprotos.h"

#include "facts/ledger_sweep.h"

/* A start or an end of a term. */
typedef struct Edge
{
	TimestampTz at;
	int term;
	bool is_start;
} Edge;

/* Where the sweep stands: what holds just after the last instant. */
typedef struct Sweep
{
	const CsSweepRules *rules;
	Datum mrr;
	bool active;
	int free_terms;   /* open terms that carry an MRR of zero */
	int paused_terms; /* open paused terms */
	TimestampTz
		pause_limit;   /* when the running pause no longer counts as active; DT_NOEND: never */
	bool was_positive; /* MRR was positive at some instant before */
	bool was_active;
} Sweep;

static Datum
num_zero(void)
{
	return DirectFunctionCall2(numeric_round, NumericGetDatum(int64_to_numeric(0)),
							   Int32GetDatum(6));
}

static int
num_cmp(Datum a, Datum b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, a, b));
}

static int
num_sign(Datum a)
{
	return num_cmp(a, NumericGetDatum(int64_to_numeric(0)));
}

static int
edge_cmp(const void *a, const void *b)
{
	const Edge *x = a;
	const Edge *y = b;

	return x->at < y->at ? -1 : x->at > y->at ? 1 : 0;
}

/* NULL last. */
static int
text_cmp(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return (a == NULL) - (b == NULL);
	return strcmp(a, b);
}

static int
cancellation_cmp(const void *a, const void *b)
{
	const CsCancellation *x = a;
	const CsCancellation *y = b;
	int cmp;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	cmp = text_cmp(x->churn_kind, y->churn_kind);
	return cmp != 0 ? cmp : text_cmp(x->reason, y->reason);
}

/*
 * Of two terms that end together, the one whose word about a churn counts:
 * one that says something, then the one with more MRR, then by text.  When a
 * term began plays no part, else cutting one in two could change the answer.
 */
static const CsTerm *
telling_term(const CsTerm *a, const CsTerm *b)
{
	bool a_says;
	bool b_says;
	int cmp;

	if (a == NULL || b == NULL)
		return a == NULL ? b : a;
	a_says = a->churn_kind != NULL || a->reason != NULL;
	b_says = b->churn_kind != NULL || b->reason != NULL;
	if (a_says != b_says)
		return a_says ? a : b;
	cmp = -num_cmp(a->mrr, b->mrr);
	if (cmp == 0)
		cmp = text_cmp(a->churn_kind, b->churn_kind);
	if (cmp == 0)
		cmp = text_cmp(a->reason, b->reason);
	if (cmp == 0)
		cmp = text_cmp(a->implied_kind, b->implied_kind);
	return cmp <= 0 ? a : b;
}

/*
 * Kind and reason of a churn: what the ending term says; else the latest
 * cancellation between the churn before and this one; else what the ending
 * term's other columns imply; else nothing is known.
 */
static void
explain_churn(CsMovement *churn, const CsTerm *ending, const CsCancellation *cancellations,
			  int ncancellations, TimestampTz previous_churn)
{
	const CsCancellation *found = NULL;

	for (int i = ncancellations - 1; i >= 0; i--)
	{
		if (cancellations[i].at > churn->at)
			continue;
		if (cancellations[i].at > previous_churn)
			found = &cancellations[i];
		break;
	}

	if (ending != NULL)
	{
		churn->churn_kind = ending->churn_kind;
		churn->reason = ending->reason;
	}
	if (found != NULL)
	{
		if (churn->churn_kind == NULL)
			churn->churn_kind = found->churn_kind;
		if (churn->reason == NULL)
			churn->reason = found->reason;
	}
	if (churn->churn_kind == NULL && ending != NULL)
		churn->churn_kind = ending->implied_kind;
}

/*
 * The kind of what happened at one instant, NULL when nothing did.
 * `paused` is by how many paused terms became more or fewer.
 */
static const char *
movement_kind(const Sweep *s, Datum mrr, bool active, int paused)
{
	int change = num_cmp(mrr, s->mrr);

	if (change > 0)
	{
		if (num_sign(mrr) > 0 && !s->was_positive)
			return "new";
		if (active && !s->active)
			return "reactivation";
		return paused < 0 ? "resume" : "expansion";
	}
	if (change < 0)
	{
		if (s->active && !active)
			return "churn";
		return paused > 0 ? "pause" : "contraction";
	}

	/* MRR stays, as a rule at zero: only being active can have changed */
	if (active == s->active)
		return NULL;
	if (!active)
		return "churn";
	if (s->paused_terms + paused > 0)
		return "pause";
	return s->was_active ? "reactivation" : "new";
}

/* Local days after an instant; the session's zone is the policy's within a frame. */
static TimestampTz
days_after(TimestampTz at, int days)
{
	Interval span = {0};

	if (days > (END_TIMESTAMP - at) / USECS_PER_DAY - 2)
		return END_TIMESTAMP - 1; /* as good as never */
	span.day = days;
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(at),
												   IntervalPGetDatum(&span)));
}

/*
 * Whether paused terms keep the customer active from this instant on.  A pause
 * runs from the first paused term to the last one touching it; its limit is
 * counted from its start.  pause_limit is set while the limit lies ahead.
 */
static bool
pause_goes_on(Sweep *s, TimestampTz at, int paused_terms)
{
	int max_days = s->rules->max_pause_days;

	if (paused_terms == 0)
	{
		s->pause_limit = DT_NOEND;
		return false;
	}
	if (max_days < 0)
		return true;
	if (s->paused_terms == 0)
	{
		s->pause_limit = max_days > 0 ? days_after(at, max_days) : DT_NOEND;
		return max_days > 0;
	}
	if (s->pause_limit <= at)
		s->pause_limit = DT_NOEND;
	return s->pause_limit != DT_NOEND;
}

CsMovement *
cs_sweep(CsTerm *terms, int nterms, CsCancellation *cancellations, int ncancellations,
		 const CsSweepRules *rules, int *nmovements)
{
	Edge *edges = palloc(sizeof(Edge) * Max(nterms * 2, 1));
	CsMovement *out;
	Sweep s = {0};
	TimestampTz previous_churn = DT_NOBEGIN;
	int nedges = 0;
	int nout = 0;
	int next = 0;
	int pauses = 0;

	for (int i = 0; i < nterms; i++)
	{
		if (terms[i].end <= terms[i].start)
			continue; /* no instant lies in it */
		edges[nedges++] = (Edge){terms[i].start, i, true};
		if (terms[i].end != DT_NOEND)
			edges[nedges++] = (Edge){terms[i].end, i, false};
		if (terms[i].state == CS_TERM_PAUSED)
			pauses++;
	}
	qsort(edges, nedges, sizeof(Edge), edge_cmp);
	if (ncancellations > 1)
		qsort(cancellations, ncancellations, sizeof(CsCancellation), cancellation_cmp);

	/* one movement an instant: the edges, and the limit of each pause */
	out = palloc(sizeof(CsMovement) * (nedges + pauses + 1));
	s.rules = rules;
	s.mrr = num_zero();
	s.pause_limit = DT_NOEND;

	while (next < nedges || s.pause_limit != DT_NOEND)
	{
		TimestampTz at = next < nedges ? Min(edges[next].at, s.pause_limit) : s.pause_limit;
		Datum mrr = s.mrr;
		int free_terms = s.free_terms;
		int paused_terms = s.paused_terms;
		bool pause_counts;
		bool active;
		const CsTerm *ending = NULL;
		const char *kind;

		CHECK_FOR_INTERRUPTS();

		for (; next < nedges && edges[next].at == at; next++)
		{
			const CsTerm *term = &terms[edges[next].term];
			int step = edges[next].is_start ? 1 : -1;

			if (term->state == CS_TERM_PAUSED)
				paused_terms += step;
			else if (num_sign(term->mrr) == 0)
				free_terms += step;
			else
				mrr = DirectFunctionCall2(step > 0 ? numeric_add : numeric_sub, mrr, term->mrr);
			if (step < 0)
				ending = telling_term(ending, term);
		}

		pause_counts = pause_goes_on(&s, at, paused_terms);
		active = num_sign(mrr) > 0 || pause_counts || (rules->free_is_active && free_terms > 0);
		kind = movement_kind(&s, mrr, active, paused_terms - s.paused_terms);
		if (kind != NULL)
		{
			CsMovement *m = &out[nout++];

			*m = (CsMovement){0};
			m->at = at;
			m->kind = kind;
			m->delta = DirectFunctionCall2(numeric_sub, mrr, s.mrr);
			m->mrr_after = mrr;
			m->active_after = active;
			if (strcmp(kind, "churn") == 0)
			{
				explain_churn(m, ending, cancellations, ncancellations, previous_churn);
				previous_churn = at;
			}
		}

		s.mrr = mrr;
		s.active = active;
		s.free_terms = free_terms;
		s.paused_terms = paused_terms;
		s.was_positive |= num_sign(mrr) > 0;
		s.was_active |= active;
	}

	pfree(edges);
	*nmovements = nout;
	return out;
}

void
cs_movement_values(const CsMovement *m, Datum *values, bool *nulls)
{
	memset(nulls, 0, sizeof(bool) * MOVEMENT_COLUMNS);
	values[0] = TimestampTzGetDatum(m->at);
	values[1] = Int16GetDatum(0);
	values[2] = CStringGetTextDatum(m->kind);
	values[3] = m->delta;
	values[4] = m->mrr_after;
	values[5] = BoolGetDatum(m->active_after);
	nulls[6] = m->churn_kind == NULL;
	values[6] = nulls[6] ? (Datum) 0 : CStringGetTextDatum(m->churn_kind);
	nulls[7] = m->reason == NULL;
	values[7] = nulls[7] ? (Datum) 0 : CStringGetTextDatum(m->reason);
}
