/*
 * ledger_churn.c
 *		What is a churn, when it is, and why: between the points of the sweep and
 *		its movements.
 *
 * In: the points of one customer in order of time, its cancellations, the
 * policy's gap_days_money and recognition.  Out: the same points, some folded
 * into later ones (dropped), churns with the instant at which they count.
 *
 * Nothing here knows an instant "now": a churn stands as soon as its end is
 * known, and is gone again when a row turns up that fills the gap.
 */
#include "cs_ext.h"

#include "utils/fmgrprotos.h"

#include "facts/ledger_sweep.h"

/* Local days after an instant; the session's zone is the policy's within a frame. */
TimestampTz
cs_days_after(TimestampTz at, int days)
{
	Interval span = {0};

	if (days > (END_TIMESTAMP - at) / USECS_PER_DAY - 2)
		return END_TIMESTAMP - 1; /* as good as never */
	span.day = days;
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(at),
												   IntervalPGetDatum(&span)));
}

static Datum
num_add(Datum a, Datum b)
{
	return DirectFunctionCall2(numeric_add, a, b);
}

/* What began and ended at `from` is told as if it had at `into`. */
static void
fold(const CsPoint *from, CsPoint *into)
{
	if (from->nshares > 0)
	{
		CsShare *all =
			palloc(sizeof(CsShare) * pg_nextpower2_32(from->nshares + into->nshares + 4));

		memcpy(all, from->shares, sizeof(CsShare) * from->nshares);
		if (into->nshares > 0)
			memcpy(all + from->nshares, into->shares, sizeof(CsShare) * into->nshares);
		into->shares = all;
		into->nshares += from->nshares;
	}
	for (int i = 0; i < from->nfx; i++)
	{
		const CsFx *f = &from->fx[i];
		CsFx *t = NULL;

		for (int k = 0; k < into->nfx; k++)
		{
			if (strcmp(into->fx[k].currency, f->currency) == 0)
				t = &into->fx[k];
		}
		if (t == NULL)
		{
			into->fx = into->fx == NULL ? palloc(sizeof(CsFx))
										: repalloc(into->fx, sizeof(CsFx) * (into->nfx + 1));
			into->fx[into->nfx++] = *f;
			continue;
		}
		t->native_out = num_add(t->native_out, f->native_out);
		t->value_out += f->value_out;
		t->native_in = num_add(t->native_in, f->native_in);
		t->value_in += f->value_in;
		if (t->term == NULL)
		{
			t->term = f->term;
			t->owner = f->owner;
		}
	}
	into->paused += from->paused;
	into->months_out = Max(into->months_out, from->months_out);
	into->months_in = Max(into->months_in, from->months_in);
}

static bool
brings_money(const CsPoint *p)
{
	return p->has_merged && p->merged != 0;
}

/*
 * Where the customer is active again not later than gap_days after it ceased
 * to be, the balance before the gap goes on until then: neither churn nor
 * return, only the difference.  0 days: every gap counts.
 */
void
cs_points_close_gaps(CsPoint *points, int npoints, const CsSweepRules *rules)
{
	if (rules->gap_days <= 0)
		return;
	for (int i = 1; i < npoints; i++)
	{
		TimestampTz limit;

		if (points[i].active || !points[i - 1].active || points[i].merge_out)
			continue;
		limit = cs_days_after(points[i].at, rules->gap_days);
		for (int j = i + 1; j < npoints && points[j].at <= limit; j++)
		{
			if (points[j].merge_out || (brings_money(&points[j]) && !points[j].active))
				break;
			if (!points[j].active)
				continue;
			for (int k = i; k < j; k++)
			{
				fold(&points[k], &points[j]);
				points[j].merged_positive |= points[k].merged_positive;
				points[k].dropped = true;
			}
			break;
		}
	}
}

/* The latest cancellation after one instant and not after another, or NULL. */
static const CsCancellation *
cancellation_between(const CsCancellation *cancellations, int n, TimestampTz after,
					 TimestampTz until)
{
	for (int i = n - 1; i >= 0; i--)
	{
		if (cancellations[i].at > until)
			continue;
		return cancellations[i].at > after ? &cancellations[i] : NULL;
	}
	return NULL;
}

static bool
is_known(TimestampTz at)
{
	return at != DT_NOBEGIN && at != DT_NOEND;
}

/*
 * Dates each churn by policy.recognition: at the end of service it stays; else
 * where all rows that end then, or a cancellation, name the other instant, it
 * counts from there, and what happened between is part of it.  Not before the
 * customer came (or another was merged into it): then it stays, too.
 */
void
cs_points_recognise(CsPoint *points, int npoints, const CsCancellation *cancellations,
					int ncancellations, const CsSweepRules *rules)
{
	TimestampTz since = DT_NOBEGIN;
	TimestampTz previous = DT_NOBEGIN;
	bool active = false;

	if (rules->recognition == CS_AT_SERVICE_END)
		return;
	for (int i = 0; i < npoints; i++)
	{
		CsPoint *p = &points[i];

		if (p->dropped)
			continue;
		if (p->active && (!active || brings_money(p)))
			since = p->at;
		if (active && !p->active && !p->merge_out && !brings_money(p))
		{
			TimestampTz at = p->effective;

			if (rules->recognition == CS_AT_CANCEL_REQUEST)
			{
				const CsCancellation *c =
					cancellation_between(cancellations, ncancellations, previous, p->at);

				at = is_known(p->requested) ? p->requested : c != NULL ? c->at : DT_NOEND;
			}
			if (is_known(at) && at > since && at < p->at)
			{
				/* nearest first, so that shares and rates stay in order of time */
				for (int k = i - 1; k >= 0 && (points[k].dropped || points[k].at >= at); k--)
				{
					if (points[k].dropped)
						continue;
					fold(&points[k], p);
					points[k].dropped = true;
				}
				p->at = at;
			}
			previous = p->service_end;
		}
		active = p->active;
	}
}

/*
 * Kind and reason of a churn: what the ending term says; else the latest
 * cancellation between the churn before and this one; else what the ending
 * term's other columns imply; else nothing is known.  And its three instants.
 */
void
cs_explain_churn(CsMovement *churn, const CsPoint *point, const CsCancellation *cancellations,
				 int ncancellations, TimestampTz previous_churn)
{
	const CsTerm *ending = point->ending;
	const CsCancellation *found =
		cancellation_between(cancellations, ncancellations, previous_churn, point->service_end);

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

	churn->service_end = point->service_end;
	churn->requested = is_known(point->requested) ? point->requested
					   : found != NULL            ? found->at
												  : DT_NOEND;
	churn->effective = is_known(point->effective) ? point->effective : DT_NOEND;
}
