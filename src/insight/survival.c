/*
 * survival.c
 *		Kaplan-Meier estimates: the aggregate km and what reads its result.
 *
 * In: durations, whether each ended in an event, and from when each was seen.
 * Out: cs.km_estimate, the counts by time in ascending order, from which the
 * curve with its bounds, the median and the restricted mean are worked out.
 * Counts are whole numbers, so neither the order of rows nor the cut between
 * parallel workers changes a bit of any result.  No SPI, no tables.
 */
#include "cs_ext.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/typcache.h"

#include "core/statistics.h"
#include "insight/survival.h"

/* Bins between two looks at interrupts; a power of two. */
#define INTERRUPT_EVERY 4096

/* ---- rows counted by time ----------------------------------------------- */

void
cs_bins_init(CsBins *b, MemoryContext cxt)
{
	b->cxt = cxt;
	b->used = 0;
	b->room = 8; /* small: there may be a state for each of many groups */
	b->bins = MemoryContextAlloc(cxt, b->room * sizeof(CsBin));
}

static int
compare_bins(const void *x, const void *y)
{
	const CsBin *a = x;
	const CsBin *b = y;

	if (a->time != b->time)
		return a->time < b->time ? -1 : 1;
	return a->group - b->group;
}

void
cs_bins_compact(CsBins *b)
{
	Size kept = 0;

	if (b->used == 0)
		return;
	CHECK_FOR_INTERRUPTS();
	qsort(b->bins, b->used, sizeof(CsBin), compare_bins);
	for (Size i = 1; i < b->used; i++)
	{
		if (i % INTERRUPT_EVERY == 0)
			CHECK_FOR_INTERRUPTS();
		if (compare_bins(&b->bins[kept], &b->bins[i]) != 0)
			b->bins[++kept] = b->bins[i];
		else
		{
			b->bins[kept].events += b->bins[i].events;
			b->bins[kept].censored += b->bins[i].censored;
			b->bins[kept].entered += b->bins[i].entered;
		}
	}
	b->used = kept + 1;
}

/*
 * Room is doubled only where compacting leaves more than half of it filled,
 * so a row costs amortised the logarithm of the number of times.
 */
void
cs_bins_add(CsBins *b, const CsBin *bin)
{
	if (b->used == b->room)
	{
		cs_bins_compact(b);
		if (b->used > b->room / 2)
		{
			b->bins = repalloc_huge(b->bins, 2 * b->room * sizeof(CsBin));
			b->room *= 2;
		}
	}
	b->bins[b->used++] = *bin;
}

MemoryContext
cs_survival_context(FunctionCallInfo fcinfo)
{
	MemoryContext cxt;

	if (!AggCheckCallContext(fcinfo, &cxt))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("aggregate support function called outside an aggregate")));
	return cxt;
}

double
cs_survival_duration(double duration, const char *aggregate)
{
	if (!isfinite(duration) || duration < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%s cannot use the duration %g", aggregate, duration),
						errdetail("A duration is a finite number, 0 or more."),
						errhint("Leave such rows out: %s(...) FILTER (WHERE ...).", aggregate)));
	return duration == 0 ? 0 : duration; /* no negative zero */
}

/* ---- the aggregate -------------------------------------------------------- */

PG_FUNCTION_INFO_V1(cs_km_step);

/*
 * One row: (state, duration, event [, entry]).  Rows without duration or event
 * say nothing; entry NULL or 0 is no late entry.
 */
Datum
cs_km_step(PG_FUNCTION_ARGS)
{
	MemoryContext cxt = cs_survival_context(fcinfo);
	CsBins *b = PG_ARGISNULL(0) ? NULL : (CsBins *) PG_GETARG_POINTER(0);
	CsBin row = {0};

	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
	{
		if (b == NULL)
			PG_RETURN_NULL();
		PG_RETURN_POINTER(b);
	}
	row.time = cs_survival_duration(PG_GETARG_FLOAT8(1), "cs.km");
	row.events = PG_GETARG_BOOL(2) ? 1 : 0;
	row.censored = 1 - row.events;
	if (b == NULL)
	{
		b = MemoryContextAlloc(cxt, sizeof(CsBins));
		cs_bins_init(b, cxt);
	}
	if (PG_NARGS() > 3 && !PG_ARGISNULL(3) && PG_GETARG_FLOAT8(3) != 0)
	{
		CsBin entry = {.time = PG_GETARG_FLOAT8(3), .entered = 1};

		/* NaN fails both comparisons */
		if (!(entry.time > 0 && entry.time < row.time))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("cs.km cannot use the entry %g of a duration of %g", entry.time,
								   row.time),
							errdetail("Who enters late is seen from entry on, so it lies between 0 "
									  "and the duration, before its end."),
							errhint("Leave rows out that were never seen at risk: "
									"FILTER (WHERE entry < duration).")));
		cs_bins_add(b, &entry);
	}
	cs_bins_add(b, &row);
	PG_RETURN_POINTER(b);
}

PG_FUNCTION_INFO_V1(cs_km_combine);

Datum
cs_km_combine(PG_FUNCTION_ARGS)
{
	MemoryContext cxt = cs_survival_context(fcinfo);
	CsBins *a = PG_ARGISNULL(0) ? NULL : (CsBins *) PG_GETARG_POINTER(0);
	CsBins *b = PG_ARGISNULL(1) ? NULL : (CsBins *) PG_GETARG_POINTER(1);

	if (a == NULL && b != NULL)
	{
		a = MemoryContextAlloc(cxt, sizeof(CsBins));
		cs_bins_init(a, cxt);
	}
	if (a == NULL)
		PG_RETURN_NULL();
	for (Size i = 0; b != NULL && i < b->used; i++)
		cs_bins_add(a, &b->bins[i]);
	PG_RETURN_POINTER(a);
}

PG_FUNCTION_INFO_V1(cs_km_serialize);

Datum
cs_km_serialize(PG_FUNCTION_ARGS)
{
	CsBins *b = (CsBins *) PG_GETARG_POINTER(0);
	StringInfoData out;

	cs_survival_context(fcinfo);
	cs_bins_compact(b);
	pq_begintypsend(&out);
	for (Size i = 0; i < b->used; i++)
	{
		pq_sendfloat8(&out, b->bins[i].time);
		pq_sendint64(&out, b->bins[i].events);
		pq_sendint64(&out, b->bins[i].censored);
		pq_sendint64(&out, b->bins[i].entered);
	}
	PG_RETURN_BYTEA_P(pq_endtypsend(&out));
}

PG_FUNCTION_INFO_V1(cs_km_deserialize);

Datum
cs_km_deserialize(PG_FUNCTION_ARGS)
{
	bytea *in = PG_GETARG_BYTEA_PP(0);
	CsBins *b = palloc(sizeof(CsBins));
	StringInfoData buf;

	cs_survival_context(fcinfo);
	cs_bins_init(b, CurrentMemoryContext);
	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, VARDATA_ANY(in), VARSIZE_ANY_EXHDR(in));
	while (buf.cursor < buf.len)
	{
		CsBin bin = {0};

		bin.time = pq_getmsgfloat8(&buf);
		bin.events = pq_getmsgint64(&buf);
		bin.censored = pq_getmsgint64(&buf);
		bin.entered = pq_getmsgint64(&buf);
		cs_bins_add(b, &bin);
	}
	pfree(buf.data);
	PG_RETURN_POINTER(b);
}

PG_FUNCTION_INFO_V1(cs_km_final);

/*
 * At risk at a time is who entered before it (or never late) and has not left
 * before it: who leaves at a time, censored or not, is still at risk there.
 */
Datum
cs_km_final(PG_FUNCTION_ARGS)
{
	CsBins *b;
	TupleDesc desc;
	Datum *column[4];
	Datum values[6];
	bool nulls[6] = {0};
	int64 at_risk = 0;
	int64 entered = 0;
	int n = 0;

	cs_survival_context(fcinfo);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	b = (CsBins *) PG_GETARG_POINTER(0);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "cs.km does not return a row");
	cs_bins_compact(b);
	for (int c = 0; c < 4; c++)
		column[c] = palloc_extended(b->used * sizeof(Datum), MCXT_ALLOC_HUGE);
	for (Size i = 0; i < b->used; i++)
	{
		at_risk += b->bins[i].events + b->bins[i].censored;
		entered += b->bins[i].entered;
	}
	values[0] = Int64GetDatum(at_risk);
	values[1] = Int64GetDatum(entered);
	at_risk -= entered;
	for (Size i = 0; i < b->used; i++)
	{
		const CsBin *bin = &b->bins[i];

		if (i % INTERRUPT_EVERY == 0)
			CHECK_FOR_INTERRUPTS();
		if (bin->events + bin->censored > 0)
		{
			column[0][n] = Float8GetDatum(bin->time);
			column[1][n] = Int64GetDatum(at_risk);
			column[2][n] = Int64GetDatum(bin->events);
			column[3][n++] = Int64GetDatum(bin->censored);
		}
		at_risk += bin->entered - bin->events - bin->censored;
	}
	for (int c = 0; c < 4; c++)
		values[c + 2] = PointerGetDatum(construct_array(column[c], n, c == 0 ? FLOAT8OID : INT8OID,
														8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* ---- reading an estimate ---------------------------------------------------- */

typedef struct Estimate
{
	int64 n;
	int64 late;
	int count;
	const double *time;
	const int64 *at_risk;
	const int64 *events;
	const int64 *censored;
} Estimate;

static void
refuse_estimate(void)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("not an estimate of cs.km"),
					errdetail("Its times must ascend from 0 on, with as many counts, and nobody "
							  "can leave who is not at risk."),
					errhint("Pass on what cs.km returned, unchanged.")));
}

/* A field that is an array of eight-byte values without NULLs; its length goes into *count. */
static const void *
read_array(HeapTupleHeader row, int field, Oid type, int *count)
{
	bool isnull;
	Datum value = GetAttributeByNum(row, field, &isnull);
	ArrayType *a = isnull ? NULL : DatumGetArrayTypeP(value);

	if (a == NULL || ARR_NDIM(a) != 1 || ARR_ELEMTYPE(a) != type || array_contains_nulls(a))
		refuse_estimate();
	*count = ARR_DIMS(a)[0];
	return ARR_DATA_PTR(a);
}

/*
 * read_estimate takes a cs.km_estimate apart.  Anybody can write such a row,
 * so it is checked for everything the curve relies on.
 */
static void
read_estimate(HeapTupleHeader row, Estimate *e)
{
	bool isnull;
	int length[4];

	e->n = DatumGetInt64(GetAttributeByNum(row, 1, &isnull));
	if (isnull)
		refuse_estimate();
	e->late = DatumGetInt64(GetAttributeByNum(row, 2, &isnull));
	if (isnull || e->late < 0 || e->late > e->n)
		refuse_estimate();
	e->time = read_array(row, 3, FLOAT8OID, &length[0]);
	e->at_risk = read_array(row, 4, INT8OID, &length[1]);
	e->events = read_array(row, 5, INT8OID, &length[2]);
	e->censored = read_array(row, 6, INT8OID, &length[3]);
	e->count = length[0];
	if (length[1] != e->count || length[2] != e->count || length[3] != e->count)
		refuse_estimate();
	for (int i = 0; i < e->count; i++)
	{
		if (!isfinite(e->time[i]) || e->time[i] < 0 || (i > 0 && e->time[i] <= e->time[i - 1]) ||
			e->events[i] < 0 || e->censored[i] < 0 || e->at_risk[i] < 1 ||
			e->events[i] > e->at_risk[i] || e->censored[i] > e->at_risk[i] - e->events[i])
			refuse_estimate();
	}
}

/* A time that is asked for. */
static double
check_time(double time, const char *argument)
{
	if (!isfinite(time) || time < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%s must be a finite number, 0 or more, not %g", argument, time),
						errhint("It is in the unit of the durations that went into cs.km.")));
	return time;
}

/* The estimate after time i, from that before it. */
static double
survive(const Estimate *e, int i, double before)
{
	return before * ((double) (e->at_risk[i] - e->events[i]) / (double) e->at_risk[i]);
}

PG_FUNCTION_INFO_V1(cs_km_curve);

/*
 * cs.km_curve(estimate, confidence): a row for time 0 and one for each time at
 * which somebody left.  The bounds are Greenwood's, on the scale log(-log S):
 * S^exp(-+ z s / log S) with s^2 = sum of d / (n (n - d)).  Where S is 1 or 0
 * that scale has no value, and they are NULL.
 */
Datum
cs_km_curve(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	double confidence = PG_GETARG_FLOAT8(1);
	double survival = 1;
	double greenwood = 0;
	double z;
	Estimate e;

	if (!(confidence > 0 && confidence < 1))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("confidence must lie between 0 and 1, not at %g", confidence),
						errhint("0.95 is 95 %%.")));
	z = cs_normal_quantile((1 + confidence) / 2);
	read_estimate(PG_GETARG_HEAPTUPLEHEADER(0), &e);
	InitMaterializedSRF(fcinfo, 0);

	for (int i = e.count > 0 && e.time[0] == 0 ? 0 : -1; i < e.count; i++)
	{
		Datum values[7];
		bool nulls[7] = {0};

		if (i % INTERRUPT_EVERY == 0)
			CHECK_FOR_INTERRUPTS();
		if (i >= 0)
		{
			survival = survive(&e, i, survival);
			if (e.events[i] > 0 && survival > 0)
				greenwood += (double) e.events[i] /
							 ((double) e.at_risk[i] * (double) (e.at_risk[i] - e.events[i]));
			values[1] = Int64GetDatum(e.at_risk[i]);
		}
		else
			values[1] = Int64GetDatum(e.n - e.late);
		values[0] = Float8GetDatum(i < 0 ? 0 : e.time[i]);
		values[2] = Int64GetDatum(i < 0 ? 0 : e.events[i]);
		values[3] = Int64GetDatum(i < 0 ? 0 : e.censored[i]);
		values[4] = Float8GetDatum(survival);
		nulls[5] = nulls[6] = survival <= 0 || greenwood <= 0;
		if (!nulls[5])
		{
			double spread = z * sqrt(greenwood) / log(survival);

			values[5] = Float8GetDatum(pow(survival, exp(-spread)));
			values[6] = Float8GetDatum(pow(survival, exp(spread)));
		}
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(cs_km_median);

/*
 * cs.median(estimate): the first time at which S is 1/2 or less; NULL where it
 * never is.  Rounding of the product must not move a curve that stands on 1/2.
 */
Datum
cs_km_median(PG_FUNCTION_ARGS)
{
	double survival = 1;
	Estimate e;

	read_estimate(PG_GETARG_HEAPTUPLEHEADER(0), &e);
	for (int i = 0; i < e.count; i++)
	{
		survival = survive(&e, i, survival);
		if (survival <= 0.5 * (1 + 1e-12))
			PG_RETURN_FLOAT8(e.time[i]);
	}
	PG_RETURN_NULL();
}

PG_FUNCTION_INFO_V1(cs_km_survival_at);

/* cs.survival_at(estimate, time): S at it; NULL after the last time, unless nobody was left there. */
Datum
cs_km_survival_at(PG_FUNCTION_ARGS)
{
	double at = check_time(PG_GETARG_FLOAT8(1), "time");
	double survival = 1;
	Estimate e;

	read_estimate(PG_GETARG_HEAPTUPLEHEADER(0), &e);
	for (int i = 0; i < e.count && e.time[i] <= at; i++)
		survival = survive(&e, i, survival);
	if (survival > 0 && (e.count == 0 || at > e.time[e.count - 1]))
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(survival);
}

PG_FUNCTION_INFO_V1(cs_km_restricted_mean);

/*
 * cs.restricted_mean(estimate, until): the area under S from 0 to until (NULL:
 * the last time); NULL after the last time, unless nobody was left there.
 */
Datum
cs_km_restricted_mean(PG_FUNCTION_ARGS)
{
	double survival = 1;
	double area = 0;
	double from = 0;
	double until;
	Estimate e;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	read_estimate(PG_GETARG_HEAPTUPLEHEADER(0), &e);
	if (e.count == 0)
		PG_RETURN_NULL();
	until = PG_ARGISNULL(1) ? e.time[e.count - 1] : check_time(PG_GETARG_FLOAT8(1), "until");
	for (int i = 0; i < e.count && e.time[i] <= until; i++)
	{
		area += survival * (e.time[i] - from);
		from = e.time[i];
		survival = survive(&e, i, survival);
	}
	if (survival > 0 && until > e.time[e.count - 1])
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(area + survival * (until - from));
}
