/*
 * usage_agg.c
 *		Building, uniting, comparing and stamping usage values.
 *
 * Owns the aggregates usage_agg and union_agg (parallel: their partial states
 * travel in the encoding of the type), the operators + - = <>, and usage_stamp.
 */
#include "cs_ext.h"

#include "common/hashfn.h"
#include "facts/usage_few.h"
#include "facts/usage_value.h"

static MemoryContext
aggregate_context(FunctionCallInfo fcinfo)
{
	MemoryContext cxt;

	if (!AggCheckCallContext(fcinfo, &cxt))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("aggregate support function called outside an aggregate")));
	return cxt;
}

/* What was gathered of a group: a few events, or all in a builder. */
typedef struct Gathered
{
	MemoryContext cxt;
	CsUsageBuild *build; /* NULL: in few */
	CsUsageFew few;
} Gathered;

static Gathered *
gather(MemoryContext cxt)
{
	Gathered *g = MemoryContextAlloc(cxt, sizeof(Gathered));

	g->cxt = cxt;
	g->build = NULL;
	g->few.n = g->few.used = 0;
	return g;
}

static CsUsageBuild *
build_of(Gathered *g)
{
	if (g->build == NULL)
	{
		g->build = cs_usage_build(g->cxt);
		cs_few_build(&g->few, g->build);
	}
	return g->build;
}

static struct varlena *
encode(Gathered *g)
{
	return g->build == NULL && g->few.n > 0 ? cs_few_encode(&g->few) : cs_usage_encode(build_of(g));
}

PG_FUNCTION_INFO_V1(cs_usage_agg_step);

/*
 * One event: (state, day, at, user_id, event, quantity, event_count).  day is
 * the local day of at in the caller's zone.  A row without day or at says
 * nothing; no event_count counts as one.
 */
Datum
cs_usage_agg_step(PG_FUNCTION_ARGS)
{
	MemoryContext cxt = aggregate_context(fcinfo);
	Gathered *g = PG_ARGISNULL(0) ? NULL : (Gathered *) PG_GETARG_POINTER(0);
	CsUsageBuild *b;
	DateADT day;
	TimestampTz at;
	CsQty qty = {0};
	text *user = PG_ARGISNULL(3) ? NULL : PG_GETARG_TEXT_PP(3);
	text *event = PG_ARGISNULL(4) ? NULL : PG_GETARG_TEXT_PP(4);
	int64 count = PG_ARGISNULL(6) ? 1 : PG_GETARG_INT64(6);
	int e;
	int u;

	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
	{
		if (g == NULL)
			PG_RETURN_NULL();
		PG_RETURN_POINTER(g);
	}
	day = PG_GETARG_DATEADT(1);
	at = PG_GETARG_TIMESTAMPTZ(2);
	if (DATE_NOT_FINITE(day) || TIMESTAMP_NOT_FINITE(at))
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("a usage event cannot be at infinity")));
	if (g == NULL)
		g = gather(cxt);
	if (g->build == NULL && PG_ARGISNULL(5) &&
		cs_few_add(&g->few, day, at, user ? VARDATA_ANY(user) : NULL,
				   user ? VARSIZE_ANY_EXHDR(user) : -1, event ? VARDATA_ANY(event) : NULL,
				   event ? VARSIZE_ANY_EXHDR(event) : -1, count))
		PG_RETURN_POINTER(g);

	b = build_of(g);
	if (!PG_ARGISNULL(5))
		qty = cs_qty_from_numeric(PG_GETARG_NUMERIC(5));
	e = event ? cs_usage_event(b, VARDATA_ANY(event), VARSIZE_ANY_EXHDR(event))
			  : cs_usage_event(b, NULL, 0);
	u = user ? cs_usage_user(b, VARDATA_ANY(user), VARSIZE_ANY_EXHDR(user))
			 : cs_usage_user(b, NULL, 0);
	cs_usage_count(b, e, day, count, &qty);
	cs_usage_mark(b, u, e, cs_chunk_of(day), cs_bit_of(day));
	cs_usage_instants(b, at, at);
	PG_RETURN_POINTER(g);
}

PG_FUNCTION_INFO_V1(cs_usage_union_step);

/* One value; NULL says nothing. */
Datum
cs_usage_union_step(PG_FUNCTION_ARGS)
{
	MemoryContext cxt = aggregate_context(fcinfo);
	Gathered *g = PG_ARGISNULL(0) ? NULL : (Gathered *) PG_GETARG_POINTER(0);
	struct varlena *value;

	if (PG_ARGISNULL(1))
	{
		if (g == NULL)
			PG_RETURN_NULL();
		PG_RETURN_POINTER(g);
	}
	value = PG_GETARG_USAGE(1);
	if (g == NULL)
		g = gather(cxt);
	cs_usage_check_stamps(build_of(g), value);
	cs_usage_add(build_of(g), value, CS_DAY_MIN, CS_DAY_END);
	PG_RETURN_POINTER(g);
}

PG_FUNCTION_INFO_V1(cs_usage_agg_combine);

Datum
cs_usage_agg_combine(PG_FUNCTION_ARGS)
{
	MemoryContext cxt = aggregate_context(fcinfo);
	Gathered *a = PG_ARGISNULL(0) ? NULL : (Gathered *) PG_GETARG_POINTER(0);
	struct varlena *value;

	if (PG_ARGISNULL(1))
	{
		if (a == NULL)
			PG_RETURN_NULL();
		PG_RETURN_POINTER(a);
	}
	if (a == NULL)
		a = gather(cxt);
	value = encode((Gathered *) PG_GETARG_POINTER(1));
	cs_usage_check_stamps(build_of(a), value);
	cs_usage_add(build_of(a), value, CS_DAY_MIN, CS_DAY_END);
	pfree(value);
	PG_RETURN_POINTER(a);
}

PG_FUNCTION_INFO_V1(cs_usage_agg_serialize);

Datum
cs_usage_agg_serialize(PG_FUNCTION_ARGS)
{
	aggregate_context(fcinfo);
	PG_RETURN_POINTER(encode((Gathered *) PG_GETARG_POINTER(0)));
}

PG_FUNCTION_INFO_V1(cs_usage_agg_deserialize);

Datum
cs_usage_agg_deserialize(PG_FUNCTION_ARGS)
{
	struct varlena *value = PG_GETARG_USAGE(0);
	Gathered *g;

	aggregate_context(fcinfo);
	g = gather(CurrentMemoryContext);
	cs_usage_check_stamps(build_of(g), value);
	cs_usage_add(build_of(g), value, CS_DAY_MIN, CS_DAY_END);
	PG_RETURN_POINTER(g);
}

PG_FUNCTION_INFO_V1(cs_usage_agg_final);

Datum
cs_usage_agg_final(PG_FUNCTION_ARGS)
{
	aggregate_context(fcinfo);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_POINTER(encode((Gathered *) PG_GETARG_POINTER(0)));
}

/* ---- operators -------------------------------------------------------- */

PG_FUNCTION_INFO_V1(cs_usage_plus);

Datum
cs_usage_plus(PG_FUNCTION_ARGS)
{
	CsUsageReader r[2];
	CsUsagePart parts[2];
	CsUsageHead head = {0};

	for (int i = 0; i < 2; i++)
	{
		struct varlena *value = PG_GETARG_USAGE(i);

		cs_usage_read_value(&r[i], value);
		parts[i].data = VARDATA_ANY(value);
		parts[i].len = VARSIZE_ANY_EXHDR(value);
		parts[i].lo = CS_DAY_MIN;
		parts[i].hi = CS_DAY_END;
	}
	cs_usage_same_stamps(&r[0], &r[1]);
	if (!r[0].stamped)
		PG_RETURN_POINTER(cs_usage_merge(parts, 2, NULL));
	head.stamped = true;
	head.running = r[0].running;
	head.stamp = r[0].stamp;
	PG_RETURN_POINTER(cs_usage_merge(parts, 2, &head));
}

CS_NORETURN static void
refuse_minus(const char *detail, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("usage values cannot be subtracted exactly"), errdetail("%s.", detail),
					errhint("%s", hint)));
}

PG_FUNCTION_INFO_V1(cs_usage_minus);

/*
 * a - b: the x with x + b = a that has no event on a day on which b has it.
 * 22023 where there is none.
 */
Datum
cs_usage_minus(PG_FUNCTION_ARGS)
{
	CsUsageBuild *content[2];
	CsUsageReader r[2];
	const char *fault;
	CsUsageReader left;
	struct varlena *result;

	for (int i = 0; i < 2; i++)
	{
		struct varlena *value = PG_GETARG_USAGE(i);

		cs_usage_read_value(&r[i], value);
		content[i] = cs_usage_build(CurrentMemoryContext);
		cs_usage_add(content[i], value, CS_DAY_MIN, CS_DAY_END);
	}
	cs_usage_same_stamps(&r[0], &r[1]);
	if (r[0].stamped)
		cs_usage_set_stamp(content[0], r[0].stamp, r[0].running);
	fault = cs_usage_take(content[0], content[1]);
	if (fault != NULL)
		refuse_minus(fault, "What can be taken away is all of an event on a day: its count, its "
							"quantity and all its users.");
	result = cs_usage_encode(content[0]);
	if (r[0].stamped || r[1].nevents == 0)
		PG_RETURN_POINTER(result);
	cs_usage_read_value(&left, result);
	if (left.nevents == 0)
		PG_RETURN_POINTER(cs_usage_encode(cs_usage_build(CurrentMemoryContext)));
	if (r[1].first <= r[0].first || r[1].last >= r[0].last)
		refuse_minus("The first or the last instant would go, and the next one is not known",
					 "Stamp both with cs.usage_at(usage, day): stamped values have no instants.");
	PG_RETURN_POINTER(result);
}

static bool
usage_equal(struct varlena *a, struct varlena *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		   memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

PG_FUNCTION_INFO_V1(cs_usage_eq);

Datum
cs_usage_eq(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(usage_equal(PG_GETARG_USAGE(0), PG_GETARG_USAGE(1)));
}

PG_FUNCTION_INFO_V1(cs_usage_ne);

Datum
cs_usage_ne(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(!usage_equal(PG_GETARG_USAGE(0), PG_GETARG_USAGE(1)));
}

PG_FUNCTION_INFO_V1(cs_usage_hash);

Datum
cs_usage_hash(PG_FUNCTION_ARGS)
{
	struct varlena *value = PG_GETARG_USAGE(0);

	return hash_any((unsigned char *) VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

/* ---- stamping ----------------------------------------------------------- */

PG_FUNCTION_INFO_V1(cs_usage_stamp);

/*
 * usage_stamp(usage, D, running): what accessors read.  Of usage only whole
 * days before D are kept; of running only day D, what is known of the running
 * day (NULL: nothing is, and accessors refuse today => true).  usage NULL:
 * nobody ever did anything.
 * With two arguments, usage_at(usage, D), usage is also the running day.
 */
Datum
cs_usage_stamp(PG_FUNCTION_ARGS)
{
	int running = PG_NARGS() > 2 ? 2 : 0;
	CsUsageBuild *b;
	DateADT stamp;

	if (PG_ARGISNULL(1))
		PG_RETURN_NULL();
	stamp = PG_GETARG_DATEADT(1);
	if (DATE_NOT_FINITE(stamp))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a usage value cannot be stamped with an infinite day")));
	b = cs_usage_build(CurrentMemoryContext);
	if (!PG_ARGISNULL(0))
		cs_usage_add(b, PG_GETARG_USAGE(0), CS_DAY_MIN, stamp);
	if (!PG_ARGISNULL(running))
		cs_usage_add(b, PG_GETARG_USAGE(running), stamp, stamp + 1);
	cs_usage_set_stamp(b, stamp, PG_NARGS() < 3 || !PG_ARGISNULL(running));
	PG_RETURN_POINTER(cs_usage_encode(b));
}
