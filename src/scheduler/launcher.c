/*
 * launcher.c
 *		The one process that is always there: it knows the databases and starts
 *		a worker where one has work.
 *
 * In: pg_database (it is connected to no database), the slots in shared
 * memory.  Out: database workers, oldest due first, at most
 * cs_ext.max_workers processes.  Each turn compares what is with what should
 * be; a latch only makes the next turn come sooner.
 */
#include "postgres.h"

#include <signal.h>

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "cs_ext.h"
#include "scheduler/scheduler.h"
#include "scheduler/shared.h"

#define SCAN_MS 10000    /* between two looks at pg_database */
#define RESCAN_MS 1000   /* not sooner, whoever asks */
#define JOB_WAIT_MS 5000 /* how long a place is kept for a job that found none */
#define KILL_MS 5000     /* grace of a job after max_runtime, before it is terminated */

/* Handles of the workers that this launcher started, by slot. */
static BackgroundWorkerHandle *handles[CS_MAX_DATABASES];
static bool scarce =
	false; /* said already that there is no place for a worker, since settings were read */
static bool full = false; /* said already that there are more databases than slots */

/* Leaves shared memory as if no launcher had been there; the slots stay. */
static void
launcher_exit(int code, Datum arg)
{
	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	if (cs_shared->launcher_pid == MyProcPid)
	{
		cs_shared->launcher_pid = 0;
		cs_shared->launcher_latch = NULL;
	}
	LWLockRelease(cs_shared->lock);
}

/* Whether cs_ext.databases names this database; an empty list names all. */
static bool
is_served(const char *name, List *names)
{
	ListCell *lc;

	if (names == NIL)
		return true;
	foreach (lc, names)
		if (strcmp((char *) lfirst(lc), name) == 0 || strcmp((char *) lfirst(lc), "*") == 0)
			return true;
	return false;
}

/* Gives the database a slot, due at once. The caller holds the lock. */
static void
add_database(Oid dboid)
{
	CsDatabaseSlot *slot = cs_database_slot(InvalidOid);

	if (slot == NULL && cs_shared->used < CS_MAX_DATABASES)
		slot = &cs_shared->databases[cs_shared->used++];
	if (slot == NULL)
	{
		if (!full)
			ereport(LOG, (errmsg("cs_ext serves no more than %d databases", CS_MAX_DATABASES),
						  errhint("Name the databases to serve in cs_ext.databases.")));
		full = true;
		return;
	}
	memset(slot, 0, sizeof(*slot));
	slot->dboid = dboid;
	slot->next_due = GetCurrentTimestamp();
}

/*
 * Reads pg_database and makes the slots agree with it: a slot for each
 * database that can have work, none for what is gone (once its worker ended).
 */
static void
scan_databases(void)
{
	List *found = NIL;
	List *names = NIL;
	char *list = pstrdup(cs_databases ? cs_databases : "");
	MemoryContext keep = CurrentMemoryContext;
	Relation rel;
	TableScanDesc scan;
	HeapTuple tup;
	ListCell *lc;

	(void) SplitIdentifierString(list, ',', &names); /* the setting takes nothing else */

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tup = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database db = (Form_pg_database) GETSTRUCT(tup);

		/* datconnlimit -2: a DROP DATABASE that was interrupted */
		if (db->datistemplate || !db->datallowconn || db->datconnlimit == -2 ||
			!is_served(NameStr(db->datname), names))
			continue;
		{
			MemoryContext old = MemoryContextSwitchTo(keep);

			found = lappend_oid(found, db->oid);
			MemoryContextSwitchTo(old);
		}
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(keep);

	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < CS_MAX_DATABASES; i++)
	{
		CsDatabaseSlot *slot = &cs_shared->databases[i];

		if (OidIsValid(slot->dboid) && !list_member_oid(found, slot->dboid))
		{
			/* no other worker meanwhile: the next look frees the slot */
			slot->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 2 * SCAN_MS);
			if (slot->worker_pid != 0)
				kill(slot->worker_pid, SIGTERM);
			else if (!slot->starting)
				memset(slot, 0, sizeof(*slot));
		}
	}
	foreach (lc, found)
		if (cs_database_slot(lfirst_oid(lc)) == NULL)
			add_database(lfirst_oid(lc));
	LWLockRelease(cs_shared->lock);
	list_free(found);
}

/*
 * Notes what became of the workers: one that ended without saying so failed,
 * and its database rests a while.  The caller holds the lock.
 */
static void
collect_workers(TimestampTz now)
{
	for (int i = 0; i < CS_MAX_DATABASES; i++)
	{
		CsDatabaseSlot *slot = &cs_shared->databases[i];
		bool gone = false;
		pid_t pid;

		if (!OidIsValid(slot->dboid) || (!slot->starting && slot->worker_pid == 0))
		{
			if (handles[i])
				pfree(handles[i]);
			handles[i] = NULL;
			continue;
		}
		if (handles[i])
			gone = GetBackgroundWorkerPid(handles[i], &pid) == BGWH_STOPPED;
		else if (slot->worker_pid != 0)
			gone = !cs_process_alive(slot->worker_pid);
		else
			gone = TimestampDifferenceExceeds(slot->started_at, now, CS_START_MS);
		if (!gone)
			continue;

		if (handles[i])
			pfree(handles[i]);
		handles[i] = NULL;
		slot->starting = false;
		slot->worker_pid = 0;
		slot->worker_latch = NULL;
		slot->run_id = 0;
		slot->failures++;
		slot->not_before =
			Max(slot->not_before, TimestampTzPlusMilliseconds(now, cs_pause_ms(slot->failures)));
	}
}

/*
 * Looks after the job processes: one that did not stop by itself at its
 * deadline is terminated, and the outcome of one that is gone is fetched by
 * its database's worker.
 */
static void
watch_jobs(TimestampTz now)
{
	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < CS_MAX_JOB_PROCESSES; i++)
	{
		CsJobProcess *job = &cs_shared->jobs[i];
		CsDatabaseSlot *slot;

		if (job->state == CS_JOB_FREE)
			continue;
		slot = cs_database_slot(job->dboid);
		if (slot == NULL)
		{
			/* the database is gone */
			if (!cs_process_alive(job->pid))
				memset(job, 0, sizeof(*job));
		}
		else if (job->state == CS_JOB_RUNNING && cs_process_alive(job->pid))
		{
			if (TimestampDifferenceExceeds(job->deadline, now, KILL_MS))
				kill(job->pid, SIGTERM);
		}
		else if (job->state != CS_JOB_REGISTERED ||
				 TimestampDifferenceExceeds(job->started_at, now, CS_START_MS))
		{
			/* where nothing can be served the outcome waits for the worker's own looks */
			if (slot->probes == 0 && !slot->wake)
			{
				slot->wake = true;
				slot->woken_at = now;
			}
		}
	}
	LWLockRelease(cs_shared->lock);
}

/* Starts a worker for the slot. False: the server has no place for one. */
static bool
start_worker(int i)
{
	CsDatabaseSlot *slot = &cs_shared->databases[i];
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	snprintf(worker.bgw_name, BGW_MAXLEN, "cs_ext worker for database %u", slot->dboid);
	strlcpy(worker.bgw_type, "cs_ext worker", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "cs_ext", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "cs_worker_main", BGW_MAXLEN);
	worker.bgw_main_arg = ObjectIdGetDatum(slot->dboid);
	worker.bgw_notify_pid = MyProcPid;

	/* said before the start, so that the worker finds the slot waiting for it */
	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	slot->starting = true;
	slot->started_at = GetCurrentTimestamp();
	LWLockRelease(cs_shared->lock);

	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
		bool done = RegisterDynamicBackgroundWorker(&worker, &handles[i]);

		MemoryContextSwitchTo(old);
		if (done)
			return true;
	}
	handles[i] = NULL;
	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	slot->starting = false;
	LWLockRelease(cs_shared->lock);
	return false;
}

/* Does a job of kind sql wait for a process while none runs? Then one place is kept for it. The caller holds the lock. */
static bool
job_waits(TimestampTz now)
{
	if (cs_max_workers < 2 ||
		TimestampDifferenceExceeds(cs_shared->job_refused_at, now, JOB_WAIT_MS))
		return false;
	for (int i = 0; i < CS_MAX_JOB_PROCESSES; i++)
		if (cs_shared->jobs[i].state == CS_JOB_REGISTERED ||
			cs_shared->jobs[i].state == CS_JOB_RUNNING)
			return false;
	return true;
}

/*
 * Starts workers where there is work, the one that waits longest first.
 * Returns the milliseconds until the next slot comes due.
 */
static long
start_workers(void)
{
	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz oldest = DT_NOEND;
		TimestampTz next = DT_NOEND;
		int chosen = -1;
		bool room;

		LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
		collect_workers(now);
		for (int i = 0; i < CS_MAX_DATABASES; i++)
		{
			CsDatabaseSlot *slot = &cs_shared->databases[i];
			TimestampTz due;

			if (!OidIsValid(slot->dboid) || slot->starting || slot->worker_pid != 0)
				continue;
			due = slot->wake ? Min(slot->next_due, slot->woken_at) : slot->next_due;
			due = Max(due, slot->not_before);
			if (due > now)
				next = Min(next, due);
			else if (due < oldest)
			{
				oldest = due;
				chosen = i;
			}
		}
		room = cs_worker_count() < cs_max_workers - (job_waits(now) ? 1 : 0);
		cs_shared->waiting = chosen >= 0 && !room;
		LWLockRelease(cs_shared->lock);

		if (chosen < 0)
		{
			if (next == DT_NOEND)
				return SCAN_MS;
			return Max(1, Min(SCAN_MS, TimestampDifferenceMilliseconds(now, next)));
		}
		if (!room || !start_worker(chosen))
		{
			if (!scarce)
				ereport(LOG, (errmsg("cs_ext has databases with work and no place for a worker"),
							  room ? errhint("Raise max_worker_processes.")
								   : errhint("Raise cs_ext.max_workers, now %d.", cs_max_workers)));
			scarce = true;
			return 1000;
		}
	}
}

/* Main of the launcher. */
void
cs_launcher_main(Datum arg)
{
	MemoryContext turn;
	TimestampTz scanned = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	if (cs_shared == NULL)
		proc_exit(0);

	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	turn = AllocSetContextCreate(TopMemoryContext, "cs_ext launcher turn", ALLOCSET_DEFAULT_SIZES);

	on_shmem_exit(launcher_exit, 0);
	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	cs_shared->launcher_pid = MyProcPid;
	cs_shared->launcher_latch = MyLatch;
	cs_shared->launcher_since = GetCurrentTimestamp();
	LWLockRelease(cs_shared->lock);

	for (;;)
	{
		long timeout = 60000;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			scanned = 0;
			scarce = false;
		}

		MemoryContextSwitchTo(turn);
		if (cs_scheduler)
		{
			TimestampTz now = GetCurrentTimestamp();
			bool rescan;

			/* the flag is lowered before the look, so what is set meanwhile is seen by the next */
			LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
			rescan = cs_shared->rescan && TimestampDifferenceExceeds(scanned, now, RESCAN_MS);
			if (rescan)
				cs_shared->rescan = false;
			LWLockRelease(cs_shared->lock);

			if (rescan || scanned == 0 || TimestampDifferenceExceeds(scanned, now, SCAN_MS))
			{
				scan_databases();
				MemoryContextSwitchTo(turn);
				scanned = now;
			}
			watch_jobs(now);
			timeout = start_workers();
			if (cs_shared->rescan)
				timeout = Min(timeout, RESCAN_MS);
		}
		MemoryContextReset(turn);
		pgstat_report_stat(true);
		pgstat_report_activity(STATE_IDLE, NULL);

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout,
						 PG_WAIT_EXTENSION);
	}
}
