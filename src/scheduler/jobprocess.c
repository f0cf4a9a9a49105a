/*
 * jobprocess.c
 *		The process of one run of a job of kind sql: logs in as the job's role,
 *		runs the command, leaves the outcome.
 *
 * In: its place in shared memory, the command of the job (read as the
 * extension, before anything of the user's runs).  Out: the outcome, in the
 * same place; the database worker writes it down.  Each statement of the
 * command is a statement of its own, as if typed in psql, so CALL may commit
 * and VACUUM may run.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "parser/analyze.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "cs_ext.h"
#include "scheduler/scheduler.h"
#include "scheduler/shared.h"

static CsJobProcess *place = NULL;

/* Writes the outcome once; the first word stands. */
static void
set_outcome(CsJobProcessState state, const char *message)
{
	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	if (place->pid == MyProcPid && place->state == CS_JOB_RUNNING)
	{
		place->state = state;
		strlcpy(place->message, message, sizeof(place->message));
	}
	LWLockRelease(cs_shared->lock);
}

/* Whatever ended the process: there is an outcome, and somebody to fetch it is woken. */
static void
job_exit(int code, Datum arg)
{
	CsDatabaseSlot *slot;

	set_outcome(CS_JOB_FAILED, "its process was terminated; see the server's log");
	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	slot = cs_database_slot(place->dboid);
	if (slot)
	{
		if (!slot->wake)
			slot->woken_at = GetCurrentTimestamp();
		slot->wake = true;
		if (slot->worker_latch)
			SetLatch(slot->worker_latch);
	}
	if (cs_shared->launcher_latch)
		SetLatch(cs_shared->launcher_latch);
	LWLockRelease(cs_shared->lock);
}

/* Names the job in every error. */
static void
job_context(void *arg)
{
	errcontext("cs_ext job \"%s\"", place->job);
}

/* The command of this run, in the given context; NULL: the job is gone. */
static char *
read_command(MemoryContext context)
{
	CsFrame frame;
	char *command = NULL;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	cs_enter(&frame);
	if (cs_exec("SELECT j.command FROM cs_internal.job_run r JOIN cs.job j ON j.name = r.job"
				" WHERE r.id = $1",
				CS_ARGS(cs_int8(place->run_id))) == 1 &&
		cs_value() != NULL)
		command = MemoryContextStrdup(context, cs_value());
	cs_leave(&frame);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return command;
}

/* Runs each statement of the command at top level, in a transaction of its own. */
static void
run_command(const char *command, MemoryContext context)
{
	List *statements;
	ListCell *lc;

	MemoryContextSwitchTo(context);
	statements = pg_parse_query(command);
	foreach (lc, statements)
	{
		RawStmt *raw = lfirst_node(RawStmt, lc);
		CommandTag tag = CreateCommandTag(raw->stmt);
		MemoryContext work;
		QueryCompletion qc;
		List *queries;
		List *plans;
		Portal portal;
		DestReceiver *dest;
		bool snapshot = false;

		if (IsA(raw->stmt, TransactionStmt))
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							errmsg("transaction statements are not allowed in a job"),
							errhint("Put what belongs together into a DO block or a procedure.")));
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		work = AllocSetContextCreate(context, "cs_ext job statement", ALLOCSET_DEFAULT_SIZES);
		MemoryContextSwitchTo(work);
		if (analyze_requires_snapshot(raw))
		{
			PushActiveSnapshot(GetTransactionSnapshot());
			snapshot = true;
		}
		queries = pg_analyze_and_rewrite_fixedparams(raw, command, NULL, 0, NULL);
		plans = pg_plan_queries(queries, command, 0, NULL);
		if (snapshot)
			PopActiveSnapshot();

		portal = CreatePortal("", true, true);
		portal->visible = false;
		PortalDefineQuery(portal, NULL, command, tag, plans, NULL);
		PortalStart(portal, NULL, 0, InvalidSnapshot);
		dest = CreateDestReceiver(DestNone);
		(void) cs_portal_run(portal, dest, &qc);
		dest->rDestroy(dest);
		PortalDrop(portal, false);
		CommitTransactionCommand();
		MemoryContextSwitchTo(context);
		MemoryContextDelete(work);
		pgstat_report_stat(false);
		CHECK_FOR_INTERRUPTS();
	}
}

/* False while somebody wants the database alone (makeway.c). */
static bool
may_connect(void)
{
	CsDatabaseSlot *slot;
	bool may;

	LWLockAcquire(cs_shared->lock, LW_SHARED);
	slot = cs_database_slot(place->dboid);
	may = slot != NULL && slot->not_before <= GetCurrentTimestamp();
	LWLockRelease(cs_shared->lock);
	return may;
}

/* Main of a job process; the argument is its place. */
void
cs_job_main(Datum arg)
{
	MemoryContext context;
	ErrorContextCallback error_context = {NULL, job_context, NULL};
	int index = DatumGetInt32(arg);
	bool mine = false;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	if (cs_shared == NULL || index < 0 || index >= CS_MAX_JOB_PROCESSES)
		proc_exit(0);

	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	place = &cs_shared->jobs[index];
	if (place->state == CS_JOB_REGISTERED)
	{
		place->state = CS_JOB_RUNNING;
		place->pid = MyProcPid;
		mine = true;
	}
	LWLockRelease(cs_shared->lock);
	if (!mine)
		proc_exit(0);
	on_shmem_exit(job_exit, 0);
	if (!may_connect())
	{
		set_outcome(CS_JOB_FAILED, "made way for a statement that needs the database alone");
		proc_exit(0);
	}

	BackgroundWorkerInitializeConnectionByOid(place->dboid, place->role, 0);
	SetConfigOption("application_name", MyBgworkerEntry->bgw_name, PGC_USERSET, PGC_S_SESSION);
	context = AllocSetContextCreate(TopMemoryContext, "cs_ext job", ALLOCSET_DEFAULT_SIZES);

	error_context_stack = &error_context;
	PG_TRY();
	{
		char *command = read_command(context);

		if (command != NULL)
		{
			pgstat_report_activity(STATE_RUNNING, command);
			enable_timeout_at(STATEMENT_TIMEOUT, place->deadline);
			run_command(command, context);
			disable_timeout(STATEMENT_TIMEOUT, false);
		}
		set_outcome(CS_JOB_SUCCEEDED, "");
	}
	PG_CATCH();
	{
		ErrorData *error;

		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		if (error->sqlerrcode != ERRCODE_QUERY_CANCELED)
			set_outcome(CS_JOB_FAILED, error->message);
		else if (GetCurrentTimestamp() >= place->deadline)
			set_outcome(CS_JOB_FAILED, "ran longer than max_runtime");
		else
			set_outcome(CS_JOB_CANCELLED, error->message);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	proc_exit(0);
}
