/*
 * logrank.c
 *		The log-rank test: the aggregate logrank.
 *
 * In: durations, whether each ended in an event, and the group of each.  Out:
 * cs.logrank_result, the test that all groups have one survival curve.  Groups
 * are put in the order of their bytes, so the order of rows changes no bit of
 * the result.  No SPI, no tables.
 */
#include "cs_ext.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "core/texts.h"
#include "insight/survival.h"

/* The variance has the square of this many cells, and each time visits all. */
#define GROUP_LIMIT 100

typedef struct LogrankState
{
	CsBins bins;
	int ngroups;
	text *group[GROUP_LIMIT];
} LogrankState;

/* The number of a group, a new one where it was not seen before. */
static int
group_number(LogrankState *state, text *name)
{
	text *kept;

	for (int g = 0; g < state->ngroups; g++)
	{
		if (VARSIZE_ANY_EXHDR(state->group[g]) == VARSIZE_ANY_EXHDR(name) &&
			memcmp(VARDATA_ANY(state->group[g]), VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name)) == 0)
			return g;
	}
	if (state->ngroups == GROUP_LIMIT)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("cs.logrank compares at most %d groups", GROUP_LIMIT),
						errhint("Put small groups together, or compare fewer with FILTER.")));
	kept = MemoryContextAlloc(state->bins.cxt, VARHDRSZ + VARSIZE_ANY_EXHDR(name));
	SET_VARSIZE(kept, VARHDRSZ + VARSIZE_ANY_EXHDR(name));
	memcpy(VARDATA(kept), VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	state->group[state->ngroups] = kept;
	return state->ngroups++;
}

PG_FUNCTION_INFO_V1(cs_logrank_step);

/* One row: (state, duration, event, grp).  A row with a NULL says nothing. */
Datum
cs_logrank_step(PG_FUNCTION_ARGS)
{
	MemoryContext cxt = cs_survival_context(fcinfo);
	LogrankState *state = PG_ARGISNULL(0) ? NULL : (LogrankState *) PG_GETARG_POINTER(0);
	CsBin row = {0};

	if (PG_ARGISNULL(1) || PG_ARGISNULL(2) || PG_ARGISNULL(3))
	{
		if (state == NULL)
			PG_RETURN_NULL();
		PG_RETURN_POINTER(state);
	}
	row.time = cs_survival_duration(PG_GETARG_FLOAT8(1), "cs.logrank");
	row.events = PG_GETARG_BOOL(2) ? 1 : 0;
	row.censored = 1 - row.events;
	if (state == NULL)
	{
		state = MemoryContextAllocZero(cxt, sizeof(LogrankState));
		cs_bins_init(&state->bins, cxt);
	}
	row.group = group_number(state, PG_GETARG_TEXT_PP(3));
	cs_bins_add(&state->bins, &row);
	PG_RETURN_POINTER(state);
}

/*
 * chi_square_tail is the probability that a chi-square variable exceeds x > 0:
 * the upper regularised incomplete gamma function Q(df/2, x/2), by its power
 * series below df/2 + 1 and by its continued fraction (modified Lentz) above,
 * each summed until it no longer changes.
 */
static double
chi_square_tail(double x, int df)
{
	double a = df / 2.0;
	double y = x / 2;
	double scale = exp(a * log(y) - y - lgamma(a));

	if (y < a + 1)
	{
		double term = 1 / a;
		double sum = term;

		for (double k = a + 1; term > sum * 1e-17; k++)
		{
			term *= y / k;
			sum += term;
		}
		return 1 - sum * scale;
	}
	else
	{
		double b = y + 1 - a;
		double c = 1e300;
		double d = 1 / b;
		double fraction = d;

		for (int i = 1; i < 10000; i++)
		{
			double factor = i * (a - i);

			b += 2;
			d = 1 / (factor * d + b);
			c = b + factor / c;
			fraction *= c * d;
			if (fabs(c * d - 1) < 1e-16)
				break;
		}
		return fraction * scale;
	}
}

/*
 * chi_square returns (O-E)' V^- (O-E), V given by its n rows, and in *rank the
 * degrees of freedom: a Cholesky decomposition in place that passes over what
 * depends on earlier rows (the last group always does, since rows sum to 0).
 */
static double
chi_square(double *v, double *difference, int n, int *rank)
{
	double sum = 0;

	*rank = 0;
	for (int i = 0; i < n; i++)
	{
		double pivot = v[i * n + i];

		for (int k = 0; k < i; k++)
		{
			double part = v[i * n + k];

			for (int m = 0; m < k; m++)
				part -= v[i * n + m] * v[k * n + m];
			v[i * n + k] = v[k * n + k] > 0 ? part / v[k * n + k] : 0;
			pivot -= v[i * n + k] * v[i * n + k];
			difference[i] -= v[i * n + k] * difference[k];
		}
		if (pivot > 1e-10 * v[i * n + i])
		{
			v[i * n + i] = sqrt(pivot);
			difference[i] /= v[i * n + i];
			sum += difference[i] * difference[i];
			(*rank)++;
		}
		else
			v[i * n + i] = difference[i] = 0;
	}
	return sum;
}

typedef struct Sums
{
	int ngroups;
	int64 n[GROUP_LIMIT];
	int64 observed[GROUP_LIMIT];
	double expected[GROUP_LIMIT];
	double *variance; /* ngroups x ngroups */
} Sums;

/*
 * add_up goes through the times.  With d events among n at risk, n_g of them
 * in group g, g expects d n_g / n with the hypergeometric covariance
 * d (n - d) / (n - 1) (n_g / n) ((g = h) - n_h / n).
 */
static void
add_up(const CsBins *b, const int *place, Sums *s)
{
	int64 at_risk[GROUP_LIMIT] = {0};
	int64 total = 0;
	Size i = 0;

	for (Size k = 0; k < b->used; k++)
	{
		int g = place[b->bins[k].group];

		at_risk[g] += b->bins[k].events + b->bins[k].censored;
		total += b->bins[k].events + b->bins[k].censored;
		s->observed[g] += b->bins[k].events;
	}
	memcpy(s->n, at_risk, sizeof(at_risk));
	while (i < b->used)
	{
		int64 events = 0;
		Size same = i;

		CHECK_FOR_INTERRUPTS();
		for (; same < b->used && b->bins[same].time == b->bins[i].time; same++)
			events += b->bins[same].events;
		if (events > 0)
		{
			double spread =
				total > 1 ? events * ((double) (total - events) / (double) (total - 1)) : 0;

			for (int g = 0; g < s->ngroups; g++)
			{
				double share = (double) at_risk[g] / (double) total;

				s->expected[g] += events * share;
				if (share == 0)
					continue;
				for (int h = 0; h < s->ngroups; h++)
					s->variance[g * s->ngroups + h] +=
						spread * share * ((g == h) - (double) at_risk[h] / (double) total);
			}
		}
		for (; i < same; i++)
		{
			int64 left = b->bins[i].events + b->bins[i].censored;

			at_risk[place[b->bins[i].group]] -= left;
			total -= left;
		}
	}
}

typedef struct NamedGroup
{
	text *name;
	int number;
} NamedGroup;

static int
compare_groups(const void *x, const void *y)
{
	text *a = ((const NamedGroup *) x)->name;
	text *b = ((const NamedGroup *) y)->name;
	Size la = VARSIZE_ANY_EXHDR(a);
	Size lb = VARSIZE_ANY_EXHDR(b);
	int c = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(la, lb));

	return c != 0 ? c : (la > lb) - (la < lb);
}

PG_FUNCTION_INFO_V1(cs_logrank_final);

Datum
cs_logrank_final(PG_FUNCTION_ARGS)
{
	LogrankState *state;
	NamedGroup order[GROUP_LIMIT];
	int place[GROUP_LIMIT];
	double difference[GROUP_LIMIT];
	Datum column[4][GROUP_LIMIT];
	Datum values[7];
	bool nulls[7] = {0};
	TupleDesc desc;
	Sums s = {0};
	double x;
	int rank;

	cs_survival_context(fcinfo);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	state = (LogrankState *) PG_GETARG_POINTER(0);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "cs.logrank does not return a row");
	cs_bins_compact(&state->bins);

	s.ngroups = state->ngroups;
	s.variance = palloc0(sizeof(double) * s.ngroups * s.ngroups);
	for (int g = 0; g < s.ngroups; g++)
	{
		order[g].name = state->group[g];
		order[g].number = g;
	}
	qsort(order, s.ngroups, sizeof(NamedGroup), compare_groups);
	for (int g = 0; g < s.ngroups; g++)
		place[order[g].number] = g;
	add_up(&state->bins, place, &s);

	for (int g = 0; g < s.ngroups; g++)
	{
		difference[g] = s.observed[g] - s.expected[g];
		column[0][g] = PointerGetDatum(order[g].name);
		column[1][g] = Int64GetDatum(s.n[g]);
		column[2][g] = Int64GetDatum(s.observed[g]);
		column[3][g] = Float8GetDatum(s.expected[g]);
	}
	x = chi_square(s.variance, difference, s.ngroups, &rank);
	values[0] = Float8GetDatum(x);
	values[1] = Int32GetDatum(rank);
	values[2] = Float8GetDatum(x > 0 && rank > 0 ? chi_square_tail(x, rank) : 1);
	nulls[0] = nulls[2] = rank == 0;
	values[3] = cs_text_array(column[0], s.ngroups);
	for (int c = 1; c < 4; c++)
		values[c + 3] =
			PointerGetDatum(construct_array(column[c], s.ngroups, c == 3 ? FLOAT8OID : INT8OID, 8,
											FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
