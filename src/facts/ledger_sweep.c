/*
 * ledger_sweep.c
 *		The sweep: from the subscription terms of customers to their movements.
 *
 * In: terms (half-open intervals with their MRR, any number, overlapping,
 * touching, gapped, of no length, open), cancellations, merges, switches of
 * the policy.  Out: one movement for each instant at which a customer's MRR or
 * its being active changed (more only where a merge or a rate is told apart).
 * No table is read and none is written, so the same code serves ingest, tests
 * and what-if.
 *
 *	 edges ──► points ──► gaps closed ──► churns dated ──► movements
 *
 * Starts and ends are put in order of time and everything that happens at one
 * instant is netted first: a term that ends where another begins leaves no
 * trace but their difference (DEFINITIONS B.3, several subscriptions; B.7
 * no. 7).  Sums are integers of millionths, hence exact in any order.
 *
 * Customers merged with one another are swept together: a merge hands the
 * balance of one to the other, and whatever begins or ends later counts there.
 */
#include "cs_ext.h"

#include "miscadmin.h"
#include "utils/fmgrprotos.h"

#include "facts/ledger_sweep.h"

/* A start or an end of a term. */
typedef struct Edge
{
	TimestampTz at;
	int member;
	const CsTerm *term;
	bool is_start;
	bool goes_on; /* an end and a start of one subscription whose rows say the same */
} Edge;

/* Where the sweep stands with one member: what holds just after the last instant. */
typedef struct Sweep
{
	CsMoney mrr;
	bool active;
	int free_terms;   /* open terms that carry an MRR of zero */
	int paused_terms; /* open paused terms */
	TimestampTz
		pause_limit;   /* when the running pause no longer counts as active; DT_NOEND: never */
	bool was_positive; /* MRR was positive at some instant before */
	bool was_active;
	TimestampTz ended; /* when it ceased to be active last */

	CsPoint *points;
	int npoints;
	int size;
	bool touched; /* the last point is of the running instant */
	CsMoney mrr_before;
	int paused_before;
} Sweep;

/* Before a movement: what its kind depends on. */
typedef struct Before
{
	CsMoney mrr;
	bool active;
	bool was_positive;
	bool was_active;
	TimestampTz ended;
} Before;

static Datum
num_add(Datum a, Datum b)
{
	return DirectFunctionCall2(numeric_add, a, b);
}

static int
num_cmp(Datum a, Datum b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, a, b));
}

/* NULL last. */
static int
text_cmp(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return (a == NULL) - (b == NULL);
	return strcmp(a, b);
}

/* 0 when two rows of one subscription say the same but for when. */
static int
said_cmp(const CsTerm *a, const CsTerm *b)
{
	int cmp = text_cmp(a->subscription_id, b->subscription_id);

	if (cmp == 0)
		cmp = text_cmp(a->source, b->source);
	if (cmp == 0)
		cmp = (int) a->state - (int) b->state;
	if (cmp == 0)
		cmp = cs_money_cmp(a->mrr, b->mrr);
	if (cmp == 0)
		cmp = text_cmp(a->currency, b->currency);
	if (cmp == 0 && a->currency != NULL)
		cmp = num_cmp(a->native, b->native);
	if (cmp == 0)
		cmp = text_cmp(a->churn_kind, b->churn_kind);
	if (cmp == 0)
		cmp = text_cmp(a->reason, b->reason);
	if (cmp == 0)
		cmp = text_cmp(a->implied_kind, b->implied_kind);
	if (cmp == 0)
		cmp = a->term_months - b->term_months;
	return cmp;
}

/* By time; at one instant the rows of a subscription that say the same stand together, ends first. */
static inline int
edge_cmp(const Edge *x, const Edge *y)
{
	int cmp;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	cmp = said_cmp(x->term, y->term);
	return cmp != 0 ? cmp : (int) x->is_start - (int) y->is_start;
}

/* Written out for edges: a customer's are few, and calls took most of the time. */
#define ST_SORT sort_edges
#define ST_ELEMENT_TYPE Edge
#define ST_COMPARE(a, b) edge_cmp(a, b)
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/*
 * Finds the ends that are none, and the starts: each end goes on in one start
 * that stands with it.  A row cut in two then says nothing at the cut, as the whole one would.
 */
static void
find_going_on(Edge *edges, int nedges)
{
	int end = 0; /* the first end of the running group that has no start yet */

	for (int i = 1; i < nedges; i++)
	{
		if (edges[i].at != edges[end].at || said_cmp(edges[i].term, edges[end].term) != 0)
			end = i;
		else if (edges[i].is_start && !edges[end].is_start)
			edges[i].goes_on = edges[end++].goes_on = true;
	}
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

/* ------------------------------------------------------------------- merges */

static int
merge_cmp(const void *a, const void *b)
{
	const CsMerge *x = a;
	const CsMerge *y = b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return x->from != y->from ? x->from - y->from : x->into - y->into;
}

/*
 * cs_merges_resolve: see ledger_sweep.h.  Of the merges of one instant those
 * that count are left, each to where it ends
 * up: of several merges of one customer the first, none into itself, no circle.
 */
int
cs_merges_resolve(CsMerge *merges, int nmerges)
{
	int n = 0;
	int group = 0; /* the first of the running instant */

	qsort(merges, nmerges, sizeof(CsMerge), merge_cmp);
	for (int i = 0; i < nmerges; i++)
	{
		CsMerge merge = merges[i];
		bool counts = true;

		if (n > 0 && merges[n - 1].at != merge.at)
			group = n;
		for (int k = group; k < n; k++)
		{
			counts &= merges[k].from != merge.from;
			if (merges[k].from == merge.into)
				merge.into = merges[k].into; /* which is where it ends up */
		}
		if (!counts || merge.from == merge.into)
			continue;
		for (int k = group; k < n; k++)
		{
			if (merges[k].into == merge.from)
				merges[k].into = merge.into;
		}
		merges[n++] = merge;
	}
	return n;
}

int
cs_merge_owner(int member, TimestampTz at, const CsMerge *merges, int nmerges)
{
	for (int i = 0; i < nmerges && merges[i].at <= at; i++)
	{
		if (merges[i].from == member)
			member = merges[i].into;
	}
	return member;
}

/* ------------------------------------------------------------------- points */

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
	cmp = -cs_money_cmp(a->mrr, b->mrr);
	if (cmp == 0)
		cmp = text_cmp(a->churn_kind, b->churn_kind);
	if (cmp == 0)
		cmp = text_cmp(a->reason, b->reason);
	if (cmp == 0)
		cmp = text_cmp(a->implied_kind, b->implied_kind);
	return cmp <= 0 ? a : b;
}

/* The point of this instant, begun when the member is first touched at it. */
static CsPoint *
touch(Sweep *s, TimestampTz at)
{
	CsPoint *p;

	if (s->touched)
		return &s->points[s->npoints - 1];
	if (s->npoints == s->size)
	{
		s->size = s->size == 0 ? 8 : s->size * 2;
		s->points = s->points == NULL ? palloc(sizeof(CsPoint) * s->size)
									  : repalloc_huge(s->points, sizeof(CsPoint) * s->size);
	}
	p = &s->points[s->npoints++];
	memset(p, 0, sizeof(CsPoint));
	p->at = p->service_end = at;
	p->merged = 0;
	p->merged_ended = DT_NOBEGIN;
	p->requested = p->effective = DT_NOBEGIN;
	s->touched = true;
	s->mrr_before = s->mrr;
	s->paused_before = s->paused_terms;
	return p;
}

static void
add_share(CsShare **shares, int *n, const CsTerm *term, int owner, CsMoney amount)
{
	/* the size is the next power of two */
	if (*n == 0)
		*shares = palloc(sizeof(CsShare) * 4);
	else if (*n >= 4 && (*n & (*n - 1)) == 0)
		*shares = repalloc_huge(*shares, sizeof(CsShare) * *n * 2);
	(*shares)[(*n)++] = (CsShare){term, owner, amount};
}

/* Notes a term in another currency that begins or ends. */
static void
note_fx(CsPoint *p, const CsTerm *term, int owner, bool is_start)
{
	CsFx *fx = NULL;

	for (int i = 0; i < p->nfx; i++)
	{
		if (strcmp(p->fx[i].currency, term->currency) == 0)
			fx = &p->fx[i];
	}
	if (fx == NULL)
	{
		Datum nothing = NumericGetDatum(int64_to_numeric(0));

		p->fx = p->fx == NULL ? palloc(sizeof(CsFx)) : repalloc(p->fx, sizeof(CsFx) * (p->nfx + 1));
		fx = &p->fx[p->nfx++];
		*fx = (CsFx){term->currency, nothing, 0, nothing, 0, NULL, 0};
	}
	if (is_start)
	{
		fx->native_in = num_add(fx->native_in, term->native);
		fx->value_in += term->mrr;
		fx->term = term;
		fx->owner = owner;
	}
	else
	{
		fx->native_out = num_add(fx->native_out, term->native);
		fx->value_out += term->mrr;
	}
}

/* One term begins or ends. */
static void
apply_edge(Sweep *s, const Edge *edge, const CsSweepRules *rules)
{
	const CsTerm *term = edge->term;
	bool is_start = edge->is_start;
	CsPoint *p = touch(s, edge->at);
	int step = is_start ? 1 : -1;

	if (term->state == CS_TERM_PAUSED)
		s->paused_terms += step;
	else if (term->mrr == 0)
		s->free_terms += step;
	else
	{
		s->mrr = is_start ? s->mrr + term->mrr : s->mrr - term->mrr;
		if (term->currency != NULL && !edge->goes_on)
			note_fx(p, term, edge->member, is_start);
		if (rules->shares)
			add_share(&p->shares, &p->nshares, term, edge->member,
					  is_start ? term->mrr : -term->mrr);
	}
	if (edge->goes_on)
		return;
	if (is_start)
		p->months_in = Max(p->months_in, term->term_months);
	else
	{
		/* DT_NOEND is the greatest: one that says nothing makes all of them say nothing */
		p->requested = Max(p->requested, term->requested);
		p->effective = Max(p->effective, term->effective);
		p->months_out = Max(p->months_out, term->term_months);
		p->ending = telling_term(p->ending, term);
	}
}

/* Hands everything of one member to another, before what else happens at the instant. */
static void
apply_merge(Sweep *sweeps, const CsMember *members, int nmembers, int *owner, const CsMerge *merge,
			const CsSweepRules *rules)
{
	Sweep *from = &sweeps[merge->from];
	Sweep *into = &sweeps[merge->into];
	CsPoint *out = touch(from, merge->at);
	CsPoint *in = touch(into, merge->at);

	out->merge_out = from->active || from->mrr != 0;
	in->has_merged = true;
	in->merged += from->mrr;
	in->merged_active |= from->active;
	in->merged_positive |= from->was_positive;
	in->merged_was_active |= from->was_active;
	if (!from->active)
		in->merged_ended = Max(in->merged_ended, from->ended);

	if (rules->shares)
	{
		for (int m = 0; m < nmembers; m++)
		{
			for (int t = 0; owner[m] == merge->from && t < members[m].nterms; t++)
			{
				const CsTerm *term = &members[m].terms[t];

				if (term->start >= merge->at || term->end < merge->at || term->end <= term->start ||
					term->state == CS_TERM_PAUSED || term->mrr == 0)
					continue;
				add_share(&in->merge_shares, &in->nmerge_shares, term, m, term->mrr);
				add_share(&out->shares, &out->nshares, term, m, -term->mrr);
			}
		}
	}

	into->mrr += from->mrr;
	into->free_terms += from->free_terms;
	if (into->paused_terms == 0)
		into->pause_limit = from->pause_limit;
	into->paused_terms += from->paused_terms;
	into->paused_before = into->paused_terms;
	from->mrr = 0;
	from->free_terms = from->paused_terms = from->paused_before = 0;
	from->pause_limit = DT_NOEND;
	for (int m = 0; m < nmembers; m++)
	{
		if (owner[m] == merge->from)
			owner[m] = merge->into;
	}
}

/*
 * Whether paused terms keep the customer active from this instant on.  A pause
 * runs from the first paused term to the last one touching it; its limit is
 * counted from its start.  pause_limit is set while the limit lies ahead.
 */
static bool
pause_goes_on(Sweep *s, TimestampTz at, const CsSweepRules *rules)
{
	int max_days = rules->max_pause_days;

	if (s->paused_terms == 0)
	{
		s->pause_limit = DT_NOEND;
		return false;
	}
	if (max_days < 0)
		return true;
	if (s->paused_before == 0)
	{
		s->pause_limit = max_days > 0 ? cs_days_after(at, max_days) : DT_NOEND;
		return max_days > 0;
	}
	if (s->pause_limit <= at)
		s->pause_limit = DT_NOEND;
	return s->pause_limit != DT_NOEND;
}

/* The instant is over for a member: its point is kept when it changed something. */
static void
finish_point(Sweep *s, const CsSweepRules *rules)
{
	CsPoint *p = &s->points[s->npoints - 1];
	bool was_active = s->active;

	s->touched = false;
	p->active = s->mrr > 0;
	p->active |= pause_goes_on(s, p->at, rules);
	p->active |= rules->free_is_active && s->free_terms > 0;
	p->mrr = s->mrr;
	p->paused = s->paused_terms - s->paused_before;

	s->active = p->active;
	s->was_positive |= s->mrr > 0 || p->merged_positive;
	s->was_active |= p->active || p->merged_was_active;
	if (was_active && !p->active)
		s->ended = p->at;

	if (!p->has_merged && !p->merge_out && p->active == was_active && s->mrr == s->mrr_before)
		s->npoints--;
}

/* ---------------------------------------------------------------- movements */

/*
 * The kind of what happened between two balances, NULL when nothing did.
 * `paused` is by how many paused terms became more or fewer.
 */
static const char *
movement_kind(const Before *b, TimestampTz at, CsMoney mrr, bool active, int paused,
			  const CsSweepRules *rules)
{
	int change = cs_money_cmp(mrr, b->mrr);
	bool too_late = rules->reactivation_days >= 0 && b->ended != DT_NOBEGIN &&
					at > cs_days_after(b->ended, rules->reactivation_days);

	if (change > 0)
	{
		if (mrr > 0 && !b->was_positive)
			return "new";
		if (active && !b->active)
			return too_late ? "new" : "reactivation";
		return paused < 0 ? "resume" : "expansion";
	}
	if (change < 0)
	{
		if (b->active && !active)
			return "churn";
		return paused > 0 ? "pause" : "contraction";
	}

	/* MRR stays, as a rule at zero: only being active can have changed */
	if (active == b->active)
		return NULL;
	if (!active)
		return "churn";
	if (paused > 0)
		return "pause";
	return b->was_active && !too_late ? "reactivation" : "new";
}

/* Shares of one term made one; those of nothing left out. */
static void
net_shares(CsMovement *m)
{
	int n = 0;

	for (int i = 0; i < m->nshares; i++)
	{
		int k = 0;

		while (k < n && m->shares[k].term != m->shares[i].term)
			k++;
		if (k < n)
			m->shares[k].amount += m->shares[i].amount;
		else
			m->shares[n++] = m->shares[i];
	}
	m->nshares = 0;
	for (int i = 0; i < n; i++)
	{
		if (m->shares[i].amount != 0)
			m->shares[m->nshares++] = m->shares[i];
	}
}

static CsMovement *
add_movement(CsMember *member, const CsPoint *p, const char *kind, Before *b, CsMoney mrr,
			 bool active)
{
	CsMovement *m = &member->movements[member->nmovements];

	*m = (CsMovement){0};
	m->at = p->at;
	m->seq = member->nmovements > 0 && m[-1].at == p->at ? m[-1].seq + 1 : 0;
	m->kind = kind;
	m->delta = mrr - b->mrr;
	m->mrr_after = b->mrr = mrr;
	m->active_after = b->active = active;
	m->service_end = m->requested = m->effective = DT_NOEND;
	member->nmovements++;
	return m;
}

/* What the rates alone changed: of what goes on in the same currency, at the mean rates. */
static CsMoney
fx_amount(const CsFx *fx)
{
	Datum nothing = NumericGetDatum(int64_to_numeric(0));
	Datum common;
	Datum old;
	Datum new;
	CsMoney amount;

	if (num_cmp(fx->native_out, nothing) <= 0 || num_cmp(fx->native_in, nothing) <= 0)
		return 0;
	common = num_cmp(fx->native_out, fx->native_in) < 0 ? fx->native_out : fx->native_in;
	old = DirectFunctionCall2(
		numeric_div, DirectFunctionCall2(numeric_mul, common, cs_money_numeric(fx->value_out)),
		fx->native_out);
	new = DirectFunctionCall2(
		numeric_div, DirectFunctionCall2(numeric_mul, common, cs_money_numeric(fx->value_in)),
		fx->native_in);
	if (!cs_money(DirectFunctionCall2(numeric_sub, new, old), &amount))
		elog(ERROR, "change of rates out of range");
	return amount;
}

/* The movement of kind fx, where the customer paid before and goes on paying. */
static void
add_fx(CsMember *member, CsPoint *p, Before *b, const CsSweepRules *rules)
{
	CsMoney sum = 0;
	CsShare *shares = NULL;
	int nshares = 0;
	CsMovement *m;

	if (b->mrr <= 0 || p->mrr <= 0)
		return;
	for (int i = 0; i < p->nfx; i++)
	{
		CsMoney amount = fx_amount(&p->fx[i]);

		if (amount == 0)
			continue;
		sum += amount;
		if (rules->shares)
		{
			add_share(&shares, &nshares, p->fx[i].term, p->fx[i].owner, amount);
			add_share(&p->shares, &p->nshares, p->fx[i].term, p->fx[i].owner, -amount);
		}
	}
	if (sum == 0)
		return;
	m = add_movement(member, p, "fx", b, b->mrr + sum, b->active);
	m->shares = shares;
	m->nshares = nshares;
}

/* The movements of one member from its points. */
static void
make_movements(CsMember *member, CsPoint *points, int npoints, const CsSweepRules *rules)
{
	Before b = {0, false, false, false, DT_NOBEGIN};
	TimestampTz previous_churn = DT_NOBEGIN;

	/* of a point: what came with a merge, a rate's doing, the end of a negative MRR, the rest */
	member->movements = palloc(sizeof(CsMovement) * (npoints * 4 + 1));
	for (int i = 0; i < npoints; i++)
	{
		CsPoint *p = &points[i];
		CsMovement *m;
		const char *kind;

		if (p->dropped)
			continue;
		if (p->has_merged)
		{
			if (p->merged != 0 || (p->merged_active && !b.active))
			{
				m = add_movement(member, p, "merge_in", &b, b.mrr + p->merged,
								 b.active || p->merged_active);
				m->shares = p->merge_shares;
				m->nshares = p->nmerge_shares;
			}
			b.was_positive |= p->merged_positive;
			b.was_active |= p->merged_was_active;
			b.ended = Max(b.ended, p->merged_ended);
		}
		if (p->nfx > 0)
			add_fx(member, p, &b, rules);
		if (b.active && !p->active && !p->merge_out && p->mrr > b.mrr)
		{
			/* more MRR, and gone: what was owed to the customer ended with it */
			m = add_movement(member, p, "expansion", &b, p->mrr, true);
			m->shares = p->shares;
			m->nshares = p->nshares;
			net_shares(m);
			p->nshares = 0;
		}
		kind = p->merge_out ? "merge_out"
							: movement_kind(&b, p->at, p->mrr, p->active, p->paused, rules);
		if (kind != NULL)
		{
			bool churn = strcmp(kind, "churn") == 0;

			m = add_movement(member, p, kind, &b, p->mrr, p->active);
			m->shares = p->shares;
			m->nshares = p->nshares;
			net_shares(m);
			if (churn)
			{
				cs_explain_churn(m, p, member->cancellations, member->ncancellations,
								 previous_churn);
				b.ended = p->at;
				previous_churn = p->service_end;
			}
			else if (p->merge_out)
				m->churn_kind = "merged";
			m->term_extension = strcmp(kind, "contraction") == 0 && p->months_out > 0 &&
								p->months_in > p->months_out;
		}
		b.was_positive |= p->mrr > 0;
		b.was_active |= p->active;
	}
}

/* Cancellations count for whom the customer was merged into when they came. */
static void
hand_over_cancellations(CsMember *members, int nmembers, const CsMerge *merges, int nmerges)
{
	CsCancellation **lists = palloc0(sizeof(CsCancellation *) * nmembers);
	int *counts = palloc0(sizeof(int) * nmembers);
	int total = 0;

	for (int m = 0; m < nmembers; m++)
		total += members[m].ncancellations;
	for (int m = 0; m < nmembers; m++)
		lists[m] = palloc(sizeof(CsCancellation) * (total + 1));
	for (int m = 0; m < nmembers; m++)
	{
		for (int i = 0; i < members[m].ncancellations; i++)
		{
			const CsCancellation *c = &members[m].cancellations[i];
			int owner = cs_merge_owner(m, c->at, merges, nmerges);

			lists[owner][counts[owner]++] = *c;
		}
	}
	for (int m = 0; m < nmembers; m++)
	{
		members[m].cancellations = lists[m];
		members[m].ncancellations = counts[m];
	}
}

void
cs_sweep(CsMember *members, int nmembers, CsMerge *merges, int nmerges, const CsSweepRules *rules)
{
	Sweep *sweeps = palloc0(sizeof(Sweep) * nmembers);
	int *owner = palloc(sizeof(int) * nmembers);
	Edge *edges;
	int nedges = 0;
	int next = 0;
	int next_merge = 0;

	for (int m = 0; m < nmembers; m++)
		nedges += members[m].nterms * 2;
	edges = palloc_extended(sizeof(Edge) * (nedges + 1), MCXT_ALLOC_HUGE);
	nedges = 0;
	for (int m = 0; m < nmembers; m++)
	{
		Sweep *s = &sweeps[m];

		owner[m] = m;
		s->mrr = 0;
		s->pause_limit = DT_NOEND;
		s->ended = DT_NOBEGIN;
		members[m].nmovements = 0;
		for (int i = 0; i < members[m].nterms; i++)
		{
			const CsTerm *term = &members[m].terms[i];

			if (term->end <= term->start)
				continue; /* no instant lies in it */
			edges[nedges++] = (Edge){term->start, m, term, true, false};
			if (term->end != DT_NOEND)
				edges[nedges++] = (Edge){term->end, m, term, false, false};
		}
	}
	sort_edges(edges, nedges);
	find_going_on(edges, nedges);
	nmerges = cs_merges_resolve(merges, nmerges);
	if (nmerges > 0)
		hand_over_cancellations(members, nmembers, merges, nmerges);

	for (;;)
	{
		TimestampTz at = next < nedges ? edges[next].at : DT_NOEND;

		CHECK_FOR_INTERRUPTS();
		if (next_merge < nmerges)
			at = Min(at, merges[next_merge].at);
		for (int m = 0; m < nmembers; m++)
			at = Min(at, sweeps[m].pause_limit);
		if (at == DT_NOEND)
			break;

		for (int m = 0; m < nmembers; m++)
		{
			if (sweeps[m].pause_limit == at)
				(void) touch(&sweeps[m], at);
		}
		for (; next_merge < nmerges && merges[next_merge].at == at; next_merge++)
			apply_merge(sweeps, members, nmembers, owner, &merges[next_merge], rules);
		for (; next < nedges && edges[next].at == at; next++)
		{
			const Edge *e = &edges[next];

			apply_edge(&sweeps[owner[e->member]], e, rules);
		}
		for (int m = 0; m < nmembers; m++)
		{
			if (sweeps[m].touched)
				finish_point(&sweeps[m], rules);
		}
	}

	for (int m = 0; m < nmembers; m++)
	{
		CsMember *member = &members[m];
		Sweep *s = &sweeps[m];

		if (member->ncancellations > 1)
			qsort(member->cancellations, member->ncancellations, sizeof(CsCancellation),
				  cancellation_cmp);
		cs_points_close_gaps(s->points, s->npoints, rules);
		cs_points_recognise(s->points, s->npoints, member->cancellations, member->ncancellations,
							rules);
		make_movements(member, s->points, s->npoints, rules);
	}
	pfree(edges);
	pfree(sweeps);
	pfree(owner);
}
