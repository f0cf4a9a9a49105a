/*
 * gate.c
 *		The way in for everybody: cs.f(args) runs cs_internal.f(args).
 *
 * A gate gives a caller who has EXECUTE on it, and no right on our tables, the
 * result of a function that runs as the owner with pinned settings.  It is one
 * C function for all of them, so there is one place to review.
 *
 * A gate may stand in several forms (sql/forms.sql): a customer as bigint or
 * uuid, an instant as timestamp, date or text.  Where cs_internal has no
 * function of just these types, the one of that name and number of arguments
 * is called, ids as text and instants read in the policy's zone.
 *
 * What apps ask all the time is answered in C where it can be (shortcuts), with
 * neither frame nor statement: what it says is what the function behind says.
 */
#include "cs_ext.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "core/core.h"

PG_FUNCTION_INFO_V1(cs_gate);

/* One per gate and session; a function that was dropped leaves its entry unused. */
typedef struct Gate
{
	Oid fn_oid; /* hash key */
	SPIPlanPtr plan;
	CsShortcut shortcut; /* NULL: none */
	bool retset;
	bool read_only;
	int16 typlen;
	bool typbyval;
} Gate;

static HTAB *gates = NULL;

/*
 * Shortcuts of gates by name and argument types.  One that cannot answer (false)
 * leaves the call to the function behind.
 */
static const struct
{
	const char *name;
	int nargs;
	Oid types[2];
	CsShortcut shortcut;
} shortcuts[] = {
	{"health_score", 2, {TEXTOID, TIMESTAMPTZOID}, cs_health_score_shortcut},
};

static CsShortcut
shortcut_of(Form_pg_proc proc)
{
	for (int i = 0; i < lengthof(shortcuts); i++)
		if (strcmp(NameStr(proc->proname), shortcuts[i].name) == 0 &&
			proc->pronargs == shortcuts[i].nargs &&
			memcmp(proc->proargtypes.values, shortcuts[i].types, sizeof(Oid) * proc->pronargs) == 0)
			return shortcuts[i].shortcut;
	return NULL;
}

/*
 * inner_types: argument types of the function behind a gate: the same, or those
 * of the only function of that name and number of arguments.
 */
static Oid *
inner_types(const char *name, int nargs, Oid *types)
{
	List *qualified = list_make2(makeString("cs_internal"), makeString(pstrdup(name)));
	FuncCandidateList candidate;

	if (OidIsValid(LookupFuncName(qualified, nargs, types, true)))
		return types;
	candidate = FuncnameGetCandidates(qualified, nargs, NIL, false, false, false, true);
	if (candidate == NULL || candidate->next != NULL)
		elog(ERROR, "no one function cs_internal.%s with %d arguments", name, nargs);
	return candidate->args;
}

/*
 * gate_of: finds or prepares the inner call.  Inside a frame.
 */
static Gate *
gate_of(Oid fn_oid)
{
	Gate *gate;
	bool found;
	HeapTuple tup;
	Form_pg_proc proc;
	StringInfoData sql;
	SPIPlanPtr plan;
	Oid rettype;
	Oid *inner;

	if (gates == NULL)
	{
		HASHCTL ctl = {0};

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(Gate);
		gates = hash_create("cs_ext gates", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	gate = hash_search(gates, &fn_oid, HASH_FIND, NULL);
	if (gate != NULL)
		return gate;

	tup = SearchSysCache1(PROCOID, ObjectIdGetDatum(fn_oid));
	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for function %u", fn_oid);
	proc = (Form_pg_proc) GETSTRUCT(tup);
	rettype = proc->prorettype;
	initStringInfo(&sql);
	inner = inner_types(NameStr(proc->proname), proc->pronargs, proc->proargtypes.values);
	appendStringInfo(&sql, "SELECT %scs_internal.%s(", proc->proretset ? "* FROM " : "",
					 quote_identifier(NameStr(proc->proname)));
	for (int i = 0; i < proc->pronargs; i++)
	{
		const char *form = "$%d";

		if (inner[i] != proc->proargtypes.values[i])
			form = inner[i] == TIMESTAMPTZOID ? "cs_internal.instant($%d)" : "$%d::text";
		appendStringInfoString(&sql, i ? ", " : "");
		appendStringInfo(&sql, form, i + 1);
	}
	appendStringInfoChar(&sql, ')');
	plan = SPI_prepare(sql.data, proc->pronargs, proc->proargtypes.values);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\"", sql.data);

	gate = hash_search(gates, &fn_oid, HASH_ENTER, &found);
	gate->plan = plan;
	gate->shortcut = shortcut_of(proc);
	gate->retset = proc->proretset;
	gate->read_only = proc->provolatile != PROVOLATILE_VOLATILE;
	get_typlenbyval(rettype, &gate->typlen, &gate->typbyval);
	ReleaseSysCache(tup);
	return gate;
}

/*
 * return_set: the inner rows into the caller's tuplestore.
 */
static void
return_set(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TupleDesc inner = SPI_tuptable->tupdesc;
	Datum *values = palloc(sizeof(Datum) * inner->natts);
	bool *nulls = palloc(sizeof(bool) * inner->natts);

	if (inner->natts != rsinfo->setDesc->natts)
		elog(ERROR, "a gate and its inner function return different columns");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		heap_deform_tuple(SPI_tuptable->vals[i], inner, values, nulls);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

/*
 * cs_gate: enter, call, leave.
 */
Datum
cs_gate(PG_FUNCTION_ARGS)
{
	int nargs = PG_NARGS();
	Datum *values;
	char *nulls;
	Datum result = (Datum) 0;
	bool isnull = true;
	CsFrame frame;
	Gate *gate;
	int rc;

	gate = gates ? hash_search(gates, &fcinfo->flinfo->fn_oid, HASH_FIND, NULL) : NULL;
	if (gate != NULL && gate->shortcut != NULL && gate->shortcut(fcinfo, &result))
		return result;

	values = palloc(sizeof(Datum) * (nargs + 1));
	nulls = palloc(nargs + 1);
	for (int i = 0; i < nargs; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	nulls[nargs] = '\0';

	if (fcinfo->flinfo->fn_retset)
	{
		/* A set of scalars has no row type of its own to be looked up. */
		if (get_func_result_type(fcinfo->flinfo->fn_oid, NULL, NULL) == TYPEFUNC_SCALAR)
			InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
		else
			InitMaterializedSRF(fcinfo, 0);
	}

	cs_enter(&frame);
	gate = gate_of(fcinfo->flinfo->fn_oid);
	rc = SPI_execute_plan(gate->plan, values, nulls, gate->read_only, 0);
	if (rc < 0)
		elog(ERROR, "gate failed: %s", SPI_result_code_string(rc));
	if (gate->retset)
		return_set(fcinfo);
	else if (SPI_processed > 0 && SPI_tuptable != NULL)
	{
		result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
		if (!isnull)
			result = SPI_datumTransfer(result, gate->typbyval, gate->typlen);
	}
	cs_leave(&frame);

	if (fcinfo->flinfo->fn_retset)
		return (Datum) 0;
	if (isnull)
		PG_RETURN_NULL();
	return result;
}
