/*
 * shared.c
 *		Shared memory of the scheduler: set-up, slots, waking, and what
 *		cs.workers() reads from it.
 *
 * In: a transaction committed something (cs_scheduler_wake, from the commit
 * hook of capture).  Out: a flag in the slot of the database and the latch of
 * its worker, or of the launcher where there is none.  A wake-up is a hint:
 * the launcher looks by itself too, so a lost one costs time, not work.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "cs_ext.h"
#include "facts/source.h"
#include "scheduler/scheduler.h"
#include "scheduler/shared.h"

#define TRANCHE_NAME "cs_ext"

CsShared *cs_shared = NULL;

static shmem_request_hook_type prev_shmem_request = NULL;
static shmem_startup_hook_type prev_shmem_startup = NULL;
static bool wake_at_commit = false;
static bool rescan_at_commit = false;

PG_FUNCTION_INFO_V1(cs_workers_sql);
PG_FUNCTION_INFO_V1(cs_live_runs_sql);
PG_FUNCTION_INFO_V1(cs_wake_scheduler_sql);
PG_FUNCTION_INFO_V1(cs_signal_run_sql);

/* Asks for the memory before the server knows how much it needs in all. */
static void
request_shmem(void)
{
	if (prev_shmem_request)
		prev_shmem_request();
	RequestAddinShmemSpace(MAXALIGN(sizeof(CsShared)));
	RequestNamedLWLockTranche(TRANCHE_NAME, 1);
}

/* Makes it, empty, at server start and again after each crash restart. */
static void
startup_shmem(void)
{
	bool found;

	if (prev_shmem_startup)
		prev_shmem_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	cs_shared = ShmemInitStruct("cs_ext scheduler", sizeof(CsShared), &found);
	if (!found)
	{
		memset(cs_shared, 0, sizeof(CsShared));
		cs_shared->lock = &(GetNamedLWLockTranche(TRANCHE_NAME))->lock;
	}
	LWLockRelease(AddinShmemInitLock);
}

/* After the commit of a transaction that asked for it. */
static void
wake_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT && wake_at_commit)
		cs_scheduler_wake();
	if (event == XACT_EVENT_COMMIT && rescan_at_commit && cs_shared != NULL)
	{
		LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
		cs_shared->rescan = true;
		if (cs_shared->launcher_latch)
			SetLatch(cs_shared->launcher_latch);
		LWLockRelease(cs_shared->lock);
	}
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		wake_at_commit = rescan_at_commit = false;
}

/* cs_scheduler_init: see scheduler.h. Nothing at all during pg_upgrade. */
void
cs_scheduler_init(void)
{
	BackgroundWorker worker;

	if (IsBinaryUpgrade)
		return;

	prev_shmem_request = shmem_request_hook;
	shmem_request_hook = request_shmem;
	prev_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
	cs_makeway_init();
	RegisterXactCallback(wake_callback, NULL);
	cs_commit_hook = cs_scheduler_wake;

	memset(&worker, 0, sizeof(worker));
	strlcpy(worker.bgw_name, "cs_ext launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "cs_ext launcher", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	strlcpy(worker.bgw_library_name, "cs_ext", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "cs_launcher_main", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

/* cs_scheduler_preloaded: see scheduler.h. */
bool
cs_scheduler_preloaded(void)
{
	return cs_shared != NULL;
}

/* cs_database_slot: the slot of a database, or NULL; the caller holds the lock. */
CsDatabaseSlot *
cs_database_slot(Oid dboid)
{
	for (int i = 0; i < cs_shared->used; i++)
		if (cs_shared->databases[i].dboid == dboid)
			return &cs_shared->databases[i];
	return NULL;
}

/* cs_process_alive: whether a backend with this pid is there now. */
bool
cs_process_alive(pid_t pid)
{
	return pid != 0 && BackendPidGetProc(pid) != NULL;
}

/* cs_worker_count: processes that count against cs_ext.max_workers; the caller holds the lock. */
int
cs_worker_count(void)
{
	int n = 0;

	for (int i = 0; i < CS_MAX_DATABASES; i++)
		if (OidIsValid(cs_shared->databases[i].dboid) &&
			(cs_shared->databases[i].starting || cs_shared->databases[i].worker_pid != 0))
			n++;
	for (int i = 0; i < CS_MAX_JOB_PROCESSES; i++)
		if (cs_shared->jobs[i].state == CS_JOB_REGISTERED ||
			cs_shared->jobs[i].state == CS_JOB_RUNNING)
			n++;
	return n;
}

/* cs_pause_ms: a pause that doubles with each failure up to five minutes, give or take an eighth. */
int
cs_pause_ms(int failures)
{
	double ms = 1000.0 * (double) (1 << Min(failures, 16));

	ms = Min(ms, 300000.0);
	return (int) (ms * (0.875 + 0.25 * ((double) random() / (double) RAND_MAX)));
}

/*
 * cs_scheduler_wake: marks this database and sets one latch.  The lock is
 * taken exclusively for a moment, also when the flag stands already: the
 * worker clears the flag before it looks, under the same lock, so what was
 * committed before the flag was set is seen by the next look.
 */
void
cs_scheduler_wake(void)
{
	CsDatabaseSlot *slot;
	Latch *latch = NULL;

	if (cs_shared == NULL || !OidIsValid(MyDatabaseId))
		return;

	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	slot = cs_database_slot(MyDatabaseId);
	if (slot == NULL)
	{
		if (!cs_shared->rescan)
			latch = cs_shared->launcher_latch;
		cs_shared->rescan = true;
	}
	else if (!slot->wake)
	{
		slot->wake = true;
		slot->woken_at = GetCurrentTimestamp();
		latch = slot->worker_latch ? slot->worker_latch : cs_shared->launcher_latch;
	}
	if (latch)
		SetLatch(latch);
	LWLockRelease(cs_shared->lock);
}

/* cs_scheduler_wake_at_commit: see scheduler.h. */
void
cs_scheduler_wake_at_commit(void)
{
	wake_at_commit = true;
}

/* cs_rescan_at_commit: see shared.h. */
void
cs_rescan_at_commit(void)
{
	rescan_at_commit = true;
}

/* SQL: cs_internal.wake_scheduler(), true when there is a scheduler to wake. */
Datum
cs_wake_scheduler_sql(PG_FUNCTION_ARGS)
{
	cs_scheduler_wake_at_commit();
	PG_RETURN_BOOL(cs_scheduler_preloaded() && cs_scheduler);
}

/* An instant for SQL: never and unknown are NULL. */
static void
put_instant(Datum *values, bool *nulls, int col, TimestampTz t)
{
	if (t == 0 || TIMESTAMP_NOT_FINITE(t))
		nulls[col] = true;
	else
		values[col] = TimestampTzGetDatum(t);
}

/* A text for SQL: the empty one is NULL. */
static void
put_string(Datum *values, bool *nulls, int col, const char *s)
{
	if (s[0] == '\0')
		nulls[col] = true;
	else
		values[col] = CStringGetTextDatum(s);
}

/*
 * SQL: cs_internal.workers() → (pid, process, database_oid, role_oid, since,
 * activity, woken, next_due, not_before, failures, message, run_id): the
 * launcher, every database it knows, every job process.
 */
Datum
cs_workers_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CsShared *copy;

	InitMaterializedSRF(fcinfo, 0);
	if (cs_shared == NULL)
		return (Datum) 0;

	copy = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(CsShared));
	LWLockAcquire(cs_shared->lock, LW_SHARED);
	memcpy(copy, cs_shared, sizeof(CsShared));
	LWLockRelease(cs_shared->lock);

	for (int i = -1; i < CS_MAX_DATABASES + CS_MAX_JOB_PROCESSES; i++)
	{
		Datum values[12] = {0};
		bool nulls[12] = {0};

		if (i < 0)
		{
			if (copy->launcher_pid == 0)
				continue;
			values[0] = Int32GetDatum(copy->launcher_pid);
			values[1] = CStringGetTextDatum("launcher");
			nulls[2] = nulls[3] = nulls[5] = nulls[7] = nulls[8] = nulls[10] = nulls[11] = true;
			put_instant(values, nulls, 4, copy->launcher_since);
			values[6] = BoolGetDatum(copy->rescan);
			values[9] = Int32GetDatum(0);
		}
		else if (i < CS_MAX_DATABASES)
		{
			CsDatabaseSlot *slot = &copy->databases[i];

			if (!OidIsValid(slot->dboid))
				continue;
			if (slot->worker_pid != 0)
				values[0] = Int32GetDatum(slot->worker_pid);
			else
				nulls[0] = true;
			values[1] = CStringGetTextDatum("worker");
			values[2] = ObjectIdGetDatum(slot->dboid);
			nulls[3] = true;
			put_instant(values, nulls, 4, slot->worker_pid != 0 ? slot->started_at : 0);
			put_string(values, nulls, 5, slot->worker_pid != 0 ? slot->activity : "");
			values[6] = BoolGetDatum(slot->wake);
			put_instant(values, nulls, 7, slot->next_due);
			put_instant(values, nulls, 8, Max(slot->not_before, slot->refresh_not_before));
			values[9] = Int32GetDatum(Max(slot->failures, slot->refresh_failures));
			put_string(values, nulls, 10, slot->message);
			if (slot->run_id != 0)
				values[11] = Int64GetDatum(slot->run_id);
			else
				nulls[11] = true;
		}
		else
		{
			CsJobProcess *job = &copy->jobs[i - CS_MAX_DATABASES];

			if (job->state != CS_JOB_REGISTERED && job->state != CS_JOB_RUNNING)
				continue;
			if (job->pid != 0)
				values[0] = Int32GetDatum(job->pid);
			else
				nulls[0] = true;
			values[1] = CStringGetTextDatum("job");
			values[2] = ObjectIdGetDatum(job->dboid);
			values[3] = ObjectIdGetDatum(job->role);
			put_instant(values, nulls, 4, job->started_at);
			put_string(values, nulls, 5, job->job);
			values[6] = BoolGetDatum(false);
			nulls[7] = nulls[8] = nulls[10] = true;
			values[9] = Int32GetDatum(0);
			values[11] = Int64GetDatum(job->run_id);
		}
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	pfree(copy);
	return (Datum) 0;
}

/* SQL: cs_internal.live_runs(): the job runs of this database that a live process holds. */
Datum
cs_live_runs_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int64 runs[CS_MAX_JOB_PROCESSES + 1];
	int n = 0;
	bool null = false;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (cs_shared == NULL)
		return (Datum) 0;

	LWLockAcquire(cs_shared->lock, LW_SHARED);
	for (int i = 0; i < CS_MAX_JOB_PROCESSES; i++)
	{
		CsJobProcess *job = &cs_shared->jobs[i];

		/* an outcome that was not collected yet still is a run, not a crash */
		if (job->state != CS_JOB_FREE && job->dboid == MyDatabaseId)
			runs[n++] = job->run_id;
	}
	{
		CsDatabaseSlot *slot = cs_database_slot(MyDatabaseId);

		if (slot && slot->worker_pid != 0 && slot->run_id != 0)
			runs[n++] = slot->run_id;
	}
	LWLockRelease(cs_shared->lock);

	for (int i = 0; i < n; i++)
	{
		Datum value = Int64GetDatum(runs[i]);

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value, &null);
	}
	return (Datum) 0;
}

/*
 * SQL: cs_internal.signal_run(run): cancels it, whoever of this database holds
 * it.  The pid is that of the holder while the lock is held: a process leaves
 * its place before it ends.
 */
Datum
cs_signal_run_sql(PG_FUNCTION_ARGS)
{
	int64 run_id = PG_GETARG_INT64(0);
	CsDatabaseSlot *slot;
	bool asked = false;

	if (cs_shared == NULL || run_id == 0)
		PG_RETURN_BOOL(false);

	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	slot = cs_database_slot(MyDatabaseId);
	if (slot && slot->worker_pid != 0 && slot->run_id == run_id)
		asked = kill(slot->worker_pid, SIGINT) == 0;
	for (int i = 0; i < CS_MAX_JOB_PROCESSES; i++)
	{
		CsJobProcess *job = &cs_shared->jobs[i];

		if (job->dboid != MyDatabaseId || job->run_id != run_id)
			continue;
		if (job->state == CS_JOB_RUNNING)
			asked = kill(job->pid, SIGINT) == 0;
		else if (job->state == CS_JOB_REGISTERED)
		{
			/* a process that finds its place taken back goes away by itself */
			job->state = CS_JOB_CANCELLED;
			strlcpy(job->message, "cancelled before it began", sizeof(job->message));
			asked = true;
		}
	}
	LWLockRelease(cs_shared->lock);
	if (asked)
		cs_scheduler_wake();
	PG_RETURN_BOOL(asked);
}
