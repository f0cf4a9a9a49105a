/*
 * spi.c
 *		The two ways to run SQL, and the bridge between them.
 *
 * Privileged: cs_enter .. cs_leave.  The extension's owner is the current user,
 * in a restricted operation, with pinned search_path and settings; our own
 * tables are reached here and nowhere else.
 *
 * Contained: cs_user_query.  SQL that a user wrote runs as policy.run_as in a
 * read-only subtransaction that is always rolled back.  Read-only alone would
 * let a function change settings, NOTIFY and write large objects; the rollback
 * undoes those.  A timer of our own limits it, because statement_timeout does
 * not reach statements inside a running one.
 *
 * What passes between the two is a CsResult: a tuplestore made outside the
 * subtransaction, registered under a name as an ephemeral relation.
 */
#include "cs_ext.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/tstoreReceiver.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "pgtime.h"
#include "parser/analyze.h"
#include "parser/parse_node.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/wait_event.h"

#include "core/core.h"
#include "core/plan.h"

static Snapshot batch_snapshot = NULL;
static Oid caller = InvalidOid;
static TimeoutId user_sql_timer;
static bool user_sql_timer_registered = false;
static volatile sig_atomic_t user_sql_timed_out = false;
static volatile sig_atomic_t user_sql_waited = false; /* for a lock, when its time was over */

static const struct
{
	const char *name;
	const char *value;
} pinned[] = {
	{"search_path", "pg_catalog, pg_temp"},
	{"DateStyle", "ISO, MDY"},
	{"IntervalStyle", "postgres"},
	{"extra_float_digits", "1"},
	{"bytea_output", "hex"},
	{"lc_numeric", "C"},
	{"lc_time", "C"},
	{"lc_monetary", "C"},
	{"array_nulls", "on"},
	{"transform_null_equals", "off"},
	{"standard_conforming_strings", "on"},
	/* our statements are many and short, and tables without statistics look large: compiling took seconds a batch */
	{"jit", "off"},
};

/* ---- bound parameters -------------------------------------------------- */

CsArg
cs_datum(Oid type, Datum v, bool isnull)
{
	CsArg a = {type, v, isnull};

	return a;
}

CsArg
cs_text(const char *s)
{
	return cs_datum(TEXTOID, s ? CStringGetTextDatum(s) : (Datum) 0, s == NULL);
}

CsArg
cs_textarray(Datum array)
{
	return cs_datum(TEXTARRAYOID, array, false);
}

CsArg
cs_int4(int32 v)
{
	return cs_datum(INT4OID, Int32GetDatum(v), false);
}

CsArg
cs_int8(int64 v)
{
	return cs_datum(INT8OID, Int64GetDatum(v), false);
}

CsArg
cs_bool(bool v)
{
	return cs_datum(BOOLOID, BoolGetDatum(v), false);
}

CsArg
cs_float8(float8 v)
{
	return cs_datum(FLOAT8OID, Float8GetDatum(v), false);
}

CsArg
cs_tstz(TimestampTz v)
{
	return cs_datum(TIMESTAMPTZOID, TimestampTzGetDatum(v), false);
}

CsArg
cs_date(DateADT v)
{
	return cs_datum(DATEOID, DateADTGetDatum(v), false);
}

/* ---- the privileged side ----------------------------------------------- */

/*
 * set_if_different: a setting for the current GUC level.  Comparing first
 * keeps entering a frame cheap where nothing differs.
 */
static void
set_if_different(const char *name, const char *value)
{
	const char *now = GetConfigOption(name, false, false);

	if (now == NULL || strcmp(now, value) != 0)
		(void) set_config_option(name, value, superuser() ? PGC_SUSET : PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * cs_owner: the role that owns the extension's tables.
 */
Oid
cs_owner(void)
{
	Oid nsp = get_namespace_oid("cs_internal", true);
	HeapTuple tup;
	Oid owner;

	if (!OidIsValid(nsp))
		ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT),
				errmsg("extension cs_ext is not installed in this database"),
				errhint("Run CREATE EXTENSION cs_ext."));
	tup = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(nsp));
	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for namespace %u", nsp);
	owner = ((Form_pg_namespace) GETSTRUCT(tup))->nspowner;
	ReleaseSysCache(tup);
	return owner;
}

/*
 * cs_caller: who entered from outside, for questions of membership.
 */
Oid
cs_caller(void)
{
	return OidIsValid(caller) ? caller : GetUserId();
}

/*
 * make_environment: SPI makes the list of registered relations with the first
 * of them, in the memory context of that moment.  It must live as long as the
 * frame, so it is made here.
 */
static void
make_environment(void)
{
	EphemeralNamedRelationData none = {{0}};

	none.md.name = "none";
	(void) SPI_register_relation(&none);
	(void) SPI_unregister_relation("none");
}

/*
 * cs_enter: become the extension's owner, pin the settings, connect SPI.
 */
void
cs_enter(CsFrame *frame)
{
	Oid owner = cs_owner();
	char *zone;
	int i;

	cs_version_check();
	GetUserIdAndSecContext(&frame->user, &frame->sec_context);
	frame->caller = caller;
	if (frame->user != owner || !(frame->sec_context & SECURITY_RESTRICTED_OPERATION))
		caller = frame->user;
	SetUserIdAndSecContext(owner, frame->sec_context | SECURITY_LOCAL_USERID_CHANGE |
									  SECURITY_RESTRICTED_OPERATION);
	frame->guc_level = NewGUCNestLevel();
	for (i = 0; i < lengthof(pinned); i++)
		set_if_different(pinned[i].name, pinned[i].value);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	cs_plan_frame();
	make_environment();

	/* Dates are cut in the policy's zone, whatever the session's is; an unknown one is about to be refused. */
	zone = cs_policy_time_zone();
	set_if_different("TimeZone", zone && pg_tzset(zone) ? zone : "UTC");
}

/*
 * cs_leave: undo cs_enter.  Results that must survive were made in a context
 * of the caller's.
 */
void
cs_leave(CsFrame *frame)
{
	SPI_finish();
	AtEOXact_GUC(true, frame->guc_level);
	caller = frame->caller;
	SetUserIdAndSecContext(frame->user, frame->sec_context);
}

Snapshot
cs_set_snapshot(Snapshot snapshot)
{
	Snapshot before = batch_snapshot;

	batch_snapshot = snapshot;
	return before;
}

/*
 * cs_push_snapshot: see cs_ext.h.
 */
void
cs_push_snapshot(void)
{
	CommandCounterIncrement();
	PushCopiedSnapshot(batch_snapshot ? batch_snapshot : GetTransactionSnapshot());
	UpdateActiveSnapshotCommandId();
}

/*
 * cs_exec: see cs_ext.h.
 */
uint64
cs_exec(const char *sql, const CsArg *args, int nargs)
{
	Datum *values = palloc0(sizeof(Datum) * (nargs + 1));
	char *nulls = palloc(nargs + 2);
	CsPlan *plan = cs_plan_own(sql, args, nargs);
	int rc;
	int i;

	for (i = 0; i < nargs; i++)
	{
		values[i] = args[i].value;
		nulls[i] = args[i].isnull ? 'n' : ' ';
	}
	nulls[nargs] = 'n'; /* see cs_plan_own */
	nulls[nargs + 1] = '\0';

	if (batch_snapshot != NULL)
		rc = SPI_execute_snapshot(plan->spi, values, nulls, batch_snapshot, InvalidSnapshot, false,
								  true, 0);
	else
		rc = SPI_execute_plan(plan->spi, values, nulls, false, 0);
	if (rc < 0)
		elog(ERROR, "SPI_execute failed: %s: %s", SPI_result_code_string(rc), sql);
	cs_plan_release(plan);
	pfree(values);
	pfree(nulls);
	return SPI_processed;
}

/*
 * cs_query: like cs_exec, with the rows in a tuplestore of the caller's.
 */
CsResult *
cs_query(const char *sql, const CsArg *args, int nargs)
{
	CsResult *result = palloc0(sizeof(CsResult));
	uint64 i;

	result->store = tuplestore_begin_heap(true, false, CS_RESULT_MEM);
	cs_exec(sql, args, nargs);
	if (SPI_tuptable == NULL)
		elog(ERROR, "statement returns no rows: %s", sql);
	result->desc = CreateTupleDescCopy(SPI_tuptable->tupdesc);
	result->nrows = SPI_processed;
	for (i = 0; i < result->nrows; i++)
		tuplestore_puttuple(result->store, SPI_tuptable->vals[i]);
	SPI_freetuptable(SPI_tuptable);
	return result;
}

char *
cs_cell(uint64 row, int col)
{
	char *s;

	if (SPI_tuptable == NULL || row >= SPI_tuptable->numvals)
		return NULL;
	s = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, col);
	return s;
}

Datum
cs_cell_datum(uint64 row, int col, bool *isnull)
{
	if (SPI_tuptable == NULL || row >= SPI_tuptable->numvals)
	{
		*isnull = true;
		return (Datum) 0;
	}
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, col, isnull);
}

char *
cs_value(void)
{
	return cs_cell(0, 1);
}

Datum
cs_value_datum(bool *isnull)
{
	return cs_cell_datum(0, 1, isnull);
}

/*
 * cs_register: make rows visible to statements under a name, in this frame.
 */
void
cs_register(const char *name, CsResult *rows)
{
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));
	int rc;

	enr->md.name = pstrdup(name);
	enr->md.reliddesc = InvalidOid;
	enr->md.tupdesc = rows->desc;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = rows->nrows;
	enr->reldata = rows->store;
	(void) SPI_unregister_relation(name);
	rc = SPI_register_relation(enr);
	if (rc != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register relation \"%s\": %s", name, SPI_result_code_string(rc));
	cs_plan_relation(name, rows);
}

void
cs_unregister(const char *name)
{
	(void) SPI_unregister_relation(name);
	cs_plan_no_relation(name);
}

/*
 * cs_return_rows: see cs_ext.h.
 */
void
cs_return_rows(CsResult *rows, FunctionCallInfo fcinfo, int not_null)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);

	tuplestore_rescan(rows->store);
	while (tuplestore_gettupleslot(rows->store, true, false, slot))
	{
		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		if (not_null == 0 || !slot->tts_isnull[not_null - 1])
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, slot->tts_values,
								 slot->tts_isnull);
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(rows->store);
}

/*
 * cs_join_paths: see cs_ext.h.
 */
const char *
cs_join_paths(const char *first, const char *second)
{
	if (first == NULL || *first == '\0')
		return second;
	if (second == NULL || *second == '\0')
		return first;
	return psprintf("%s, %s", first, second);
}

/* ---- the contained side ------------------------------------------------ */

enum
{
	PARAM_KEYS = 1,
	PARAM_AS_OF,
	PARAM_AS_OF_DAY,
	NPARAMS = PARAM_AS_OF_DAY
};

/*
 * make_param: one of the three constants that a user's SQL may name.
 */
static Node *
make_param(int id, Oid type, int location)
{
	Param *param = makeNode(Param);

	param->paramkind = PARAM_EXTERN;
	param->paramid = id;
	param->paramtype = type;
	param->paramtypmod = -1;
	param->paramcollid = get_typcollation(type);
	param->location = location;
	return (Node *) param;
}

/*
 * columnref_hook: as_of and as_of_day are constants, not columns, so that they
 * need not be grouped by.
 */
static Node *
columnref_hook(ParseState *pstate, ColumnRef *cref)
{
	const char *name;

	if (list_length(cref->fields) != 1 || !IsA(linitial(cref->fields), String))
		return NULL;
	name = strVal(linitial(cref->fields));
	if (strcmp(name, "as_of") == 0)
		return make_param(PARAM_AS_OF, TIMESTAMPTZOID, cref->location);
	if (strcmp(name, "as_of_day") == 0)
		return make_param(PARAM_AS_OF_DAY, DATEOID, cref->location);
	return NULL;
}

static Node *
paramref_hook(ParseState *pstate, ParamRef *pref)
{
	Oid key_type = DatumGetObjectId(PointerGetDatum(pstate->p_ref_hook_state));

	if (pref->number != PARAM_KEYS || !OidIsValid(key_type))
		return NULL;
	return make_param(PARAM_KEYS, key_type, pref->location);
}

/*
 * key_type_arg: what the hooks are given.  A kept plan calls them again when it
 * is analysed anew, so it points to nothing.
 */
static void *
key_type_arg(Oid key_type)
{
	return DatumGetPointer(ObjectIdGetDatum(key_type));
}

static void
parser_setup(ParseState *pstate, void *arg)
{
	pstate->p_pre_columnref_hook = columnref_hook;
	pstate->p_paramref_hook = paramref_hook;
	pstate->p_ref_hook_state = arg;
}

static ParamListInfo
make_params(const CsUserQuery *query)
{
	ParamListInfo params = makeParamList(NPARAMS);
	ParamExternData *p = params->params;

	p[PARAM_KEYS - 1].value = query->keys;
	p[PARAM_KEYS - 1].isnull = !OidIsValid(query->key_type);
	p[PARAM_KEYS - 1].ptype = query->key_type;
	p[PARAM_AS_OF - 1].value = TimestampTzGetDatum(query->as_of);
	p[PARAM_AS_OF - 1].isnull = false;
	p[PARAM_AS_OF - 1].ptype = TIMESTAMPTZOID;
	p[PARAM_AS_OF_DAY - 1].value = DateADTGetDatum(query->as_of_day);
	p[PARAM_AS_OF_DAY - 1].isnull = false;
	p[PARAM_AS_OF_DAY - 1].ptype = DATEOID;
	for (int i = 0; i < NPARAMS; i++)
		p[i].pflags = PARAM_FLAG_CONST;
	return params;
}

/*
 * only_source: of a plan that refuse_unfit() has let pass.
 */
static CachedPlanSource *
only_source(SPIPlanPtr plan)
{
	return linitial(SPI_plan_get_plan_sources(plan));
}

/*
 * refuse_unfit: what is not one plain SELECT and what is volatile.
 */
static void
refuse_unfit(SPIPlanPtr plan)
{
	List *sources = SPI_plan_get_plan_sources(plan);
	CachedPlanSource *source;
	Query *tree;

	if (list_length(sources) != 1)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("the SQL of a definition must be one expression"));
	source = linitial(sources);
	if (list_length(source->query_list) != 1)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("the SQL of a definition must be one expression"));
	tree = linitial_node(Query, source->query_list);
	if (tree->commandType != CMD_SELECT || tree->hasModifyingCTE || tree->hasForUpdate)
		ereport(ERROR, errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				errmsg("the SQL of a definition must not write or lock"),
				errhint("Definitions only read: use an expression without INSERT, UPDATE, DELETE "
						"or FOR UPDATE."));
	if (contain_volatile_functions((Node *) tree))
		ereport(ERROR, errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("the SQL of a definition must not call a volatile function"),
				errdetail("A volatile function may write or give another result at each call, so "
						  "results could not be computed again."),
				errhint("Use as_of or as_of_day instead of the clock, and functions marked STABLE "
						"or IMMUTABLE."));
}

/*
 * prepare_user_sql: parse, analyse and check.
 */
static void
prepare_user_sql(CsPlan *plan, const CsUserQuery *query)
{
	plan->spi = SPI_prepare_params(query->sql, parser_setup, key_type_arg(query->key_type),
								   CURSOR_OPT_PARALLEL_OK);
	if (plan->spi == NULL)
		elog(ERROR, "SPI_prepare_params failed: %s", SPI_result_code_string(SPI_result));
	refuse_unfit(plan->spi);
	plan->checked = only_source(plan->spi)->query_list;
}

/*
 * check_permissions: analysis does not look at rights; say when a definition is
 * written that run_as may not read what it names.
 */
static void
check_permissions(SPIPlanPtr plan)
{
	CachedPlan *cached = SPI_plan_get_cached_plan(plan);

	if (cached == NULL)
		return;
	cs_check_plan_permissions(linitial_node(PlannedStmt, cached->stmt_list));
	ReleaseCachedPlan(cached, NULL); /* not saved, so no owner holds it */
}

static void
user_sql_timer_handler(void)
{
	user_sql_timed_out = true;
	user_sql_waited = (*my_wait_event_info & 0xFF000000) == PG_WAIT_LOCK;
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

/*
 * cs_timeout_message: see core.h.
 */
char *
cs_timeout_message(void)
{
	return psprintf("SQL of definitions ran longer than cs_ext.user_sql_timeout (%d ms)",
					cs_user_sql_timeout);
}

/*
 * become_run_as: inside the subtransaction, whose abort undoes all of it.
 * Returns what of it the meaning of a text depends on.
 */
static char *
become_run_as(const CsUserQuery *query)
{
	CsPolicy *policy = cs_policy(false);
	Oid user;
	int sec_context;
	char *path;

	if (!OidIsValid(policy->run_as_oid))
		ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT),
				errmsg("role \"%s\" of cs.policy.run_as does not exist", policy->run_as),
				errhint("Create the role, or UPDATE cs.policy SET run_as to one that exists."));
	if (superuser_arg(policy->run_as_oid))
		ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				errmsg("role \"%s\" of cs.policy.run_as is a superuser", policy->run_as),
				errhint("UPDATE cs.policy SET run_as to an ordinary role."));

	path = psprintf("pg_catalog, cs%s%s, pg_temp",
					query->search_path && *query->search_path ? ", " : "",
					query->search_path ? query->search_path : "");
	set_if_different("search_path", path);
	set_if_different("TimeZone", policy->time_zone);
	set_if_different("row_security", "off");
	GetUserIdAndSecContext(&user, &sec_context);
	SetUserIdAndSecContext(policy->run_as_oid, sec_context | SECURITY_LOCAL_USERID_CHANGE |
												   SECURITY_RESTRICTED_OPERATION);
	XactReadOnly = true;
	return psprintf("%u %s %s", policy->run_as_oid, policy->time_zone, path);
}

static void
start_timer(void)
{
	if (cs_user_sql_timeout <= 0)
		return;
	if (!user_sql_timer_registered)
	{
		user_sql_timer = RegisterTimeout(USER_TIMEOUT, user_sql_timer_handler);
		user_sql_timer_registered = true;
	}
	enable_timeout_after(user_sql_timer, cs_user_sql_timeout);
}

static void
stop_timer(void)
{
	if (user_sql_timer_registered)
		disable_timeout(user_sql_timer, false);

	/* Fired, but nobody looked: it must not cancel what comes next. */
	if (user_sql_timed_out)
		QueryCancelPending = false;
}

/*
 * run_user_sql: the rows go into result->store; the row type is a copy in
 * `context`.
 */
static void
run_user_sql(const CsUserQuery *query, const char *setting, CsResult *result, MemoryContext context)
{
	CsPlan *plan = cs_plan_user(query, setting, prepare_user_sql);
	SPIExecuteOptions options = {0};
	MemoryContext old;
	int rc;

	options.params = make_params(query);
	options.read_only = true;
	options.must_return_tuples = true;
	options.dest = CreateDestReceiver(DestTuplestore);
	SetTuplestoreDestReceiverParams(options.dest, result->store, context, false, NULL, NULL);
	rc = SPI_execute_plan_extended(plan->spi, &options);
	if (rc < 0)
		elog(ERROR, "SPI_execute_plan_extended failed: %s", SPI_result_code_string(rc));
	result->nrows = SPI_processed;

	/* Analysed anew while we took its locks: what it is now may be unfit. All is rolled back anyhow. */
	if (only_source(plan->spi)->query_list != plan->checked)
	{
		plan->checked = NIL;
		refuse_unfit(plan->spi);
		plan->checked = only_source(plan->spi)->query_list;
	}
	old = MemoryContextSwitchTo(context);
	result->desc = CreateTupleDescCopy(only_source(plan->spi)->resultDesc);
	MemoryContextSwitchTo(old);
}

/*
 * contained: both entry points.  execute false: analyse only.
 */
static CsResult *
contained(const CsUserQuery *query, bool execute, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	CsResult *result = palloc0(sizeof(CsResult));
	ErrorData *edata = NULL;

	/* Outside the subtransaction, so that rows survive its rollback. */
	result->store = tuplestore_begin_heap(true, false, CS_RESULT_MEM);

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		char *setting = become_run_as(query);

		user_sql_timed_out = user_sql_waited = false;
		if (batch_snapshot != NULL)
			PushActiveSnapshot(batch_snapshot);
		else
			PushActiveSnapshot(GetTransactionSnapshot());
		if (!query->unlimited)
			start_timer();
		if (execute)
			run_user_sql(query, setting, result, context);
		else
		{
			CsPlan plan = {0};

			prepare_user_sql(&plan, query);
			MemoryContextSwitchTo(context);
			result->desc = CreateTupleDescCopy(only_source(plan.spi)->resultDesc);
			check_permissions(plan.spi);
			SPI_freeplan(plan.spi);
		}
		stop_timer();
		PopActiveSnapshot();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		stop_timer();
		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_END_TRY();

	if (edata == NULL)
		return result;

	tuplestore_end(result->store);
	if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED && user_sql_waited)
	{
		/* A lock says nothing about the definition: what stands there stays as it is. */
		edata->sqlerrcode = ERRCODE_LOCK_NOT_AVAILABLE;
		edata->message = psprintf("SQL of definitions waited for a lock longer than "
								  "cs_ext.user_sql_timeout (%d ms)",
								  cs_user_sql_timeout);
		edata->hint = pstrdup("Nothing was changed. cs.doctor() names who locks a source; when "
							  "that has ended, the next refresh goes on.");
		error = NULL;
	}
	else if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED && user_sql_timed_out)
	{
		edata->message = cs_timeout_message();
		edata->hint = pstrdup("Make the expression cheaper, add the index that cs.doctor() names, "
							  "or raise the setting.");
	}
	else if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED ||
			 edata->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
			 edata->sqlerrcode == ERRCODE_CRASH_SHUTDOWN ||
			 edata->sqlerrcode == ERRCODE_OUT_OF_MEMORY)
		error = NULL; /* not the definition's fault */
	if (error == NULL)
		ReThrowError(edata);
	*error = edata;
	return NULL;
}

CsResult *
cs_user_query(const CsUserQuery *query, ErrorData **error)
{
	return contained(query, true, error);
}

TupleDesc
cs_user_check(const CsUserQuery *query, ErrorData **error)
{
	CsResult *result = contained(query, false, error);
	TupleDesc desc;

	if (result == NULL)
		return NULL;
	desc = result->desc;
	tuplestore_end(result->store);
	pfree(result);
	return desc;
}
