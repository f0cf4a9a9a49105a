/*
 * worker.c
 *		The transient worker of a database: refreshes, runs what is due, waits a
 *		moment for more, ends.
 *
 * In: the slot of its database (woken, back-off).  Out: committed refresh
 * steps and job runs; at the end the instant at which the database has work
 * again.  It ends when idle because a connected process is in the way of DROP
 * DATABASE.  Every unit of work is a transaction that holds a lock on the
 * extension: DROP EXTENSION waits for one unit, never for a run, and cannot
 * deadlock with it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "cs_ext.h"
#include "decide/decide.h"
#include "refresh/refresh.h"
#include "scheduler/scheduler.h"
#include "scheduler/shared.h"

#define LINGER_MS 2000      /* stays so long after its last work */
#define POLL_MS 60000       /* looks again by then, although nothing woke it */
#define PROBE_MS 30000      /* first pause after a look that found nothing to serve ... */
#define PROBE_MAX_MS 600000 /* ... doubled up to this */
#define UNREADY_MS 500      /* ... and the least one when something was committed meanwhile */
#define JOBS_MS 500         /* between two looks at jobs while refreshes follow each other */
#define INGEST_MS 3000      /* not interrupted sooner, so that evaluation is reached at all */
#define NUMBER_MS 200       /* events are numbered so often at least while a refresh goes on */
#define BARREN_MS 50        /* first pause after a refresh that could do nothing ... */
#define BARREN_MAX_MS 5000  /* ... doubled up to this */
#define SHARE_MS 1000       /* works so long at least, when other databases wait for a place */
#define LIFE_MS 600000      /* ends by then: a new one starts with fresh settings and memory */

/* What a look at the database finds. */
typedef enum Readiness
{
	READY,
	ABSENT,        /* no extension */
	OTHER_VERSION, /* the SQL of another version */
	NOT_SET_UP,
	HELD /* after a restore, until cs.release_hold() */
} Readiness;

static Oid database = InvalidOid;
static bool attached = false; /* the slot is ours */
static bool ended = false;    /* ended as it should */
static bool dropped = false;  /* the last unit found no extension: no news for the log */
static TimestampTz born = 0;  /* when this process began */
static TimestampTz deadline = 0;
static bool cancelled = false;   /* somebody asked to cancel, between two units */
static bool progress = false;    /* the last refresh did something */
static TimestampTz jobs_due = 0; /* when the next job is due, as of the last look */

/* ---- the slot ------------------------------------------------------------- */

/* Leaves the slot, whatever was the reason to end. */
static void
worker_exit(int code, Datum arg)
{
	CsDatabaseSlot *slot;
	TimestampTz now = GetCurrentTimestamp();

	if (!attached)
		return;
	attached = false;
	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	slot = cs_database_slot(database);
	if (slot && slot->worker_pid == MyProcPid)
	{
		slot->worker_pid = 0;
		slot->worker_latch = NULL;
		slot->run_id = 0;
		slot->activity[0] = '\0';
		/* sent away to make way is no failure */
		if (!ended && slot->not_before < now)
		{
			slot->failures++;
			slot->next_due = now;
			slot->not_before = TimestampTzPlusMilliseconds(now, cs_pause_ms(slot->failures));
		}
	}
	if (cs_shared->launcher_latch)
		SetLatch(cs_shared->launcher_latch);
	LWLockRelease(cs_shared->lock);
}

/*
 * Takes the slot. False: there is none, another worker has it, or since this
 * one was registered somebody wants the database alone.
 */
static bool
attach(void)
{
	CsDatabaseSlot *slot;

	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	slot = cs_database_slot(database);
	if (slot && slot->worker_pid == 0 && slot->not_before > GetCurrentTimestamp())
		slot->starting = false;
	else if (slot && (slot->worker_pid == 0 || !cs_process_alive(slot->worker_pid)))
	{
		slot->starting = false;
		slot->worker_pid = MyProcPid;
		slot->worker_latch = MyLatch;
		slot->started_at = GetCurrentTimestamp();
		slot->run_id = 0;
		attached = true;
	}
	LWLockRelease(cs_shared->lock);
	return attached;
}

/*
 * Ends the worker: the database has work again at next_due.  Returns when
 * something was committed since this worker last looked, unless final.
 */
static void
leave(TimestampTz next_due, bool final)
{
	CsDatabaseSlot *slot;

	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	slot = cs_database_slot(database);
	if (slot && slot->wake && !final)
	{
		LWLockRelease(cs_shared->lock);
		return;
	}
	if (slot)
	{
		slot->next_due = next_due;
		slot->failures = 0;
		slot->woken_at =
			GetCurrentTimestamp(); /* who still has work goes to the end of the queue */
	}
	ended = true;
	LWLockRelease(cs_shared->lock);
	proc_exit(0);
}

/* Sets a bool of this database's slot, which is given by its offset there. */
static void
set_flag(size_t flag, bool value)
{
	CsDatabaseSlot *slot;

	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	slot = cs_database_slot(database);
	if (slot)
		*(bool *) ((char *) slot + flag) = value;
	LWLockRelease(cs_shared->lock);
}

/* Lowers the wake flag; what is committed from now on raises it again. */
static void
lower_flag(void)
{
	set_flag(offsetof(CsDatabaseSlot, wake), false);
}

/*
 * Keeps what went wrong (NULL: nothing) where cs.workers() shows it.  True
 * when it is new, so that a log line is written once and not per turn.
 */
static bool
note_message(const char *message)
{
	CsDatabaseSlot *slot;
	char text[CS_MESSAGE_LEN];
	bool news = false;

	strlcpy(text, message ? message : "", sizeof(text));
	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	slot = cs_database_slot(database);
	if (slot)
	{
		news = strcmp(slot->message, text) != 0;
		strlcpy(slot->message, text, sizeof(slot->message));
	}
	LWLockRelease(cs_shared->lock);
	return news;
}

/* cs_worker_activity: see shared.h. */
void
cs_worker_activity(const char *activity)
{
	CsDatabaseSlot *slot;

	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	slot = cs_database_slot(database);
	if (slot)
		strlcpy(slot->activity, activity, sizeof(slot->activity));
	LWLockRelease(cs_shared->lock);
	pgstat_report_activity(strcmp(activity, "idle") == 0 ? STATE_IDLE : STATE_RUNNING, activity);
}

/* cs_worker_run: see shared.h. */
void
cs_worker_run(int64 run_id)
{
	CsDatabaseSlot *slot;

	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	slot = cs_database_slot(database);
	if (slot)
		slot->run_id = run_id;
	LWLockRelease(cs_shared->lock);
}

/* cs_worker_leaving: see shared.h. Settings are read again here. */
bool
cs_worker_leaving(void)
{
	/* a cancel that comes between two units has no statement to end */
	HOLD_CANCEL_INTERRUPTS();
	CHECK_FOR_INTERRUPTS();
	RESUME_CANCEL_INTERRUPTS();
	if (QueryCancelPending)
	{
		QueryCancelPending = false;
		cancelled = true;
	}
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	return !cs_scheduler;
}

/* cs_worker_cancelled: see shared.h. */
bool
cs_worker_cancelled(void)
{
	bool answer = cancelled;

	cancelled = false;
	return answer;
}

/* cs_worker_turn_over: see shared.h. */
bool
cs_worker_turn_over(void)
{
	return cs_shared->waiting && TimestampDifferenceExceeds(born, GetCurrentTimestamp(), SHARE_MS);
}

/* cs_worker_deadline: see shared.h. */
void
cs_worker_deadline(TimestampTz at)
{
	deadline = at;
}

/* ---- a unit of work ------------------------------------------------------- */

/* Says in every error of a unit what the worker was doing. */
static void
unit_context(void *arg)
{
	errcontext("cs_ext worker, %s", (const char *) arg);
}

/* Locks the extension against being dropped in this transaction; InvalidOid: it is not there. */
static Oid
lock_extension(void)
{
	Oid oid = get_extension_oid("cs_ext", true);

	if (!OidIsValid(oid))
		return InvalidOid;
	LockDatabaseObject(ExtensionRelationId, oid, 0, AccessShareLock);
	return get_extension_oid("cs_ext", true) == oid ? oid : InvalidOid;
}

/* cs_unit: see shared.h. */
bool
cs_unit(CsUnit unit, void *arg, const char *what, CsUnitLog log, ErrorData **error)
{
	MemoryContext caller = CurrentMemoryContext;
	ErrorContextCallback *outer_context = error_context_stack;
	volatile bool done = false;

	*error = NULL;
	PG_TRY();
	{
		ErrorContextCallback context = {error_context_stack, unit_context, (void *) what};

		error_context_stack = &context;
		if (deadline != 0)
			enable_timeout_at(STATEMENT_TIMEOUT, deadline);
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		dropped = !OidIsValid(lock_extension());
		if (dropped)
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
							errmsg("extension \"cs_ext\" was dropped meanwhile")));
		PushActiveSnapshot(GetTransactionSnapshot());
		unit(arg);
		if (ActiveSnapshotSet())
			PopActiveSnapshot();
		CommitTransactionCommand();
		disable_timeout(STATEMENT_TIMEOUT, false);
		error_context_stack = outer_context;
		done = true;
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		disable_timeout(STATEMENT_TIMEOUT, false);
		QueryCancelPending = false;
		error_context_stack = outer_context;
		MemoryContextSwitchTo(caller);
		*error = CopyErrorData();
		if (!dropped && (log == CS_LOG_ALWAYS || note_message((*error)->message)))
			EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();

	MemoryContextSwitchTo(caller);
	pgstat_report_stat(false);
	return done;
}

/* ---- looking -------------------------------------------------------------- */

/* Is this database set up, and by the version of SQL that this library knows? */
static Readiness
look(char **version)
{
	Readiness result = ABSENT;
	MemoryContext caller = CurrentMemoryContext;
	Oid extension;

	*version = NULL;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	extension = lock_extension();
	if (OidIsValid(extension))
	{
		Oid types[1] = {OIDOID};
		Datum values[1] = {ObjectIdGetDatum(extension)};

		PushActiveSnapshot(GetTransactionSnapshot());
		SPI_connect();
		SPI_execute_with_args("SELECT extversion FROM pg_catalog.pg_extension "
							  "WHERE oid OPERATOR(pg_catalog.=) $1",
							  1, types, values, NULL, true, 1);
		if (SPI_processed == 1)
			*version = MemoryContextStrdup(
				caller, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
		SPI_finish();

		if (*version && strcmp(*version, CS_EXT_VERSION) == 0)
		{
			CsFrame frame;
			bool isnull;

			cs_enter(&frame);
			if (cs_policy(true) == NULL)
				result = NOT_SET_UP;
			else
			{
				cs_exec("SELECT EXISTS (SELECT FROM cs_internal.hold)", CS_NO_ARGS);
				result = DatumGetBool(cs_value_datum(&isnull)) ? HELD : READY;
			}
			cs_leave(&frame);
		}
		else if (*version)
			result = OTHER_VERSION;
		PopActiveSnapshot();
	}
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
	return result;
}

/* Nothing to serve here: says why (once) and ends for a while, longer each time. */
static void
leave_unready(Readiness found, const char *version)
{
	CsDatabaseSlot *slot;
	TimestampTz now = GetCurrentTimestamp();
	int probes = 0;
	long ms;
	const char *name;

	StartTransactionCommand();
	name = MemoryContextStrdup(TopMemoryContext, get_database_name(database));
	CommitTransactionCommand();

	if (found == OTHER_VERSION)
	{
		char *text =
			psprintf("library of version %s, extension of version %s", CS_EXT_VERSION, version);

		if (note_message(text))
			ereport(LOG, (errmsg("cs_ext does not serve database \"%s\": %s", name, text),
						  errhint("Run ALTER EXTENSION cs_ext UPDATE there.")));
	}
	else if (found == HELD)
	{
		if (note_message("held until cs.release_hold()"))
			ereport(LOG, (errmsg("cs_ext is held in database \"%s\"", name),
						  errhint("Run SELECT cs.release_hold() there when it shall run.")));
	}
	else
	{
		cs_jobs_forget();
		note_message(found == ABSENT ? "extension not created" : "not set up: call cs.setup()");
	}

	/* a wake-up is not lost but answered a moment later: writers must not start a process per commit */
	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	slot = cs_database_slot(database);
	if (slot)
	{
		probes = slot->probes++;
		slot->not_before = Max(slot->not_before, TimestampTzPlusMilliseconds(now, UNREADY_MS));
	}
	LWLockRelease(cs_shared->lock);
	ms = Min((long) PROBE_MS << Min(probes, 16), PROBE_MAX_MS);
	leave(TimestampTzPlusMilliseconds(now, ms), true);
}

/* ---- refresh -------------------------------------------------------------- */

typedef struct RefreshUnit
{
	CsRefresh run;
	bool force_scan;
	bool answer;
	TimestampTz next_due;
	TimestampTz started_at;
	const char *error;
} RefreshUnit;

/* Unit: is there anything to refresh? */
static void
needed_unit(void *arg)
{
	RefreshUnit *u = arg;

	u->answer = cs_refresh_needed(&u->next_due);
}

/* Unit: fixes the instant of the run. */
static void
start_unit(void *arg)
{
	RefreshUnit *u = arg;

	cs_refresh_start(&u->run, u->force_scan);
}

/* Unit: one step. It takes its snapshot itself, after its locks. */
static void
step_unit(void *arg)
{
	RefreshUnit *u = arg;

	PopActiveSnapshot();
	u->answer = cs_refresh_step(&u->run);
}

/* Unit: numbers the events that were committed, and notifies. */
static void
number_unit(void *arg)
{
	CsFrame frame;

	cs_enter(&frame);
	cs_number_events();
	cs_leave(&frame);
}

/* Unit: sums the refresh up in the row of its minute; a failure has a row of its own. */
static void
sum_unit(void *arg)
{
	RefreshUnit *u = arg;
	CsFrame frame;

	cs_enter(&frame);
	cs_exec("SELECT cs_internal.note_refresh($1, $2, $3)",
			CS_ARGS(cs_tstz(u->started_at), cs_int4(MyProcPid), cs_text(u->error)));
	cs_leave(&frame);
}

/* Keeps that a refresh did not conclude, for the next one, which may be another worker's. */
static void
note_cut(bool cut)
{
	set_flag(offsetof(CsDatabaseSlot, cut), cut);
}

/* Was anything committed since this worker lowered the flag? */
static bool
woken(void)
{
	CsDatabaseSlot *slot;
	bool answer;

	LWLockAcquire(cs_shared->lock, LW_SHARED);
	slot = cs_database_slot(database);
	answer = slot && slot->wake;
	LWLockRelease(cs_shared->lock);
	return answer;
}

/* cs_worker_refresh: see shared.h. */
bool
cs_worker_refresh(bool force_scan, ErrorData **error)
{
	RefreshUnit u;
	ErrorData *ignored;
	TimestampTz numbered_at = GetCurrentTimestamp();

	memset(&u, 0, sizeof(u));
	u.force_scan = force_scan;
	u.started_at = numbered_at;
	u.answer = true;
	cs_worker_activity("refresh");
	cancelled = false;
	if (!cs_unit(start_unit, &u, "refresh", CS_LOG_NEWS, error))
		return false;
	while (u.answer && !cs_worker_leaving() && !cancelled)
	{
		int64 evaluated = u.run.evaluated;

		if (!cs_unit(step_unit, &u, "refresh", CS_LOG_NEWS, error))
			return false;

		/* alerts wait for no step after theirs, and what people did for no long refresh */
		if (u.run.evaluated > evaluated || !u.answer ||
			TimestampDifferenceExceeds(numbered_at, GetCurrentTimestamp(), NUMBER_MS))
		{
			if (!cs_unit(number_unit, NULL, "numbering of alert events", CS_LOG_NEWS, error))
				return false;
			numbered_at = GetCurrentTimestamp();
		}

		if (!u.answer || force_scan)
			continue;

		/* what is left is in tables: the next worker of this database goes on with it, or this one after the jobs */
		if (u.run.worked &&
			(u.run.evaluated > 0 ||
			 TimestampDifferenceExceeds(u.started_at, GetCurrentTimestamp(), INGEST_MS)) &&
			(cs_worker_turn_over() || (jobs_due != 0 && jobs_due <= GetCurrentTimestamp())))
		{
			progress = true;
			note_cut(true);
			return true;
		}
		/* facts that changed do not wait until everybody was evaluated whom time or a definition made due */
		if (woken())
			(void) cs_refresh_yield(&u.run);
	}
	if (u.answer)
	{
		*error = NULL;
		return false;
	}
	note_cut(u.run.yielded);
	progress = u.run.ingested > 0 || u.run.evaluated > 0;
	cs_unit(sum_unit, &u, "bookkeeping of refreshes", CS_LOG_NEWS, &ignored);
	return true;
}

/*
 * Refreshes when there is something to do and no failure to rest from.  True
 * when it did; *next: when to look again.
 */
static bool
refresh_turn(TimestampTz *next)
{
	CsDatabaseSlot *slot;
	RefreshUnit u;
	ErrorData *error;
	TimestampTz not_before = 0;
	TimestampTz now = GetCurrentTimestamp();
	bool cut = false;

	LWLockAcquire(cs_shared->lock, LW_SHARED);
	slot = cs_database_slot(database);
	if (slot)
	{
		not_before = slot->refresh_not_before;
		cut = slot->cut;
	}
	LWLockRelease(cs_shared->lock);
	*next = not_before;
	if (not_before > now)
		return false;

	memset(&u, 0, sizeof(u));
	u.started_at = now;
	if (cs_unit(needed_unit, &u, "refresh", CS_LOG_NEWS, &error))
	{
		if (!u.answer && !cut)
		{
			LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
			slot = cs_database_slot(database);
			if (slot)
				slot->barren = 0;
			LWLockRelease(cs_shared->lock);
			/* acts of people write events too */
			if (cs_unit(number_unit, NULL, "numbering of alert events", CS_LOG_NEWS, &error))
			{
				note_message(NULL);
				/* under a fixed cs_ext.now the next boundary never comes, though the clock is past it */
				*next = u.next_due > now ? u.next_due : DT_NOEND;
				return false;
			}
		}
		else if (cs_worker_refresh(false, &error))
		{
			int barren = 1;

			note_message(NULL);
			LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
			slot = cs_database_slot(database);
			if (slot)
			{
				slot->refresh_failures = 0;
				/* what is left is held by somebody, e.g. a customer locked by refresh_customer: not a busy loop */
				barren = slot->barren = progress ? 0 : slot->barren + 1;
			}
			LWLockRelease(cs_shared->lock);
			*next = progress ? now
							 : TimestampTzPlusMilliseconds(
								   now, Min(BARREN_MAX_MS, BARREN_MS << Min(barren, 10)));
			return progress;
		}
	}

	if (error == NULL)
		return false; /* switched off meanwhile */

	/* Failed: recorded, and rests for longer each time. */
	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	slot = cs_database_slot(database);
	if (slot)
	{
		slot->refresh_failures++;
		slot->refresh_not_before =
			TimestampTzPlusMilliseconds(now, cs_pause_ms(slot->refresh_failures));
		*next = slot->refresh_not_before;
	}
	LWLockRelease(cs_shared->lock);
	u.error = error->message;
	{
		ErrorData *ignored;

		cs_unit(sum_unit, &u, "bookkeeping of refreshes", CS_LOG_NEWS, &ignored);
	}
	return false;
}

/* ---- main ----------------------------------------------------------------- */

/* Settings of the database or role that would change how the worker runs are pinned. */
static void
pin_settings(void)
{
	static const char *const pinned[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		{"statement_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"lock_timeout", "0"},
		{"check_function_bodies", "on"},
		{"application_name", "cs_ext worker"},
	};

	for (int i = 0; i < lengthof(pinned); i++)
		SetConfigOption(pinned[i][0], pinned[i][1], PGC_USERSET, PGC_S_SESSION);
}

/* Main of the database worker; the argument is the database. */
void
cs_worker_main(Datum arg)
{
	MemoryContext turn;
	TimestampTz last_work;
	TimestampTz jobs_looked = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	database = DatumGetObjectId(arg);
	born = last_work = GetCurrentTimestamp();
	if (cs_shared == NULL)
		proc_exit(0);
	on_shmem_exit(worker_exit, 0);
	if (!attach())
		proc_exit(0);

	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	pin_settings();
	turn = AllocSetContextCreate(TopMemoryContext, "cs_ext worker turn", ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		Readiness found;
		char *version;
		TimestampTz refresh_due;
		TimestampTz now;
		TimestampTz due;
		bool worked;
		long ms;

		ResetLatch(MyLatch);
		cancelled = false;
		if (cs_worker_leaving())
			leave(GetCurrentTimestamp(), true);
		MemoryContextReset(turn);
		MemoryContextSwitchTo(turn);

		lower_flag();
		found = look(&version);
		MemoryContextSwitchTo(turn);
		if (found != READY)
			leave_unready(found, version);
		LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
		{
			CsDatabaseSlot *slot = cs_database_slot(database);

			if (slot)
				slot->probes = 0;
		}
		LWLockRelease(cs_shared->lock);

		worked = refresh_turn(&refresh_due);
		MemoryContextSwitchTo(turn);
		/* while one refresh follows the other, jobs are looked at twice a second and not each time */
		now = GetCurrentTimestamp();
		if (!worked || jobs_due <= now || TimestampDifferenceExceeds(jobs_looked, now, JOBS_MS))
		{
			worked |= cs_jobs_turn(&jobs_due);
			jobs_looked = now;
			MemoryContextSwitchTo(turn);
		}
		cs_worker_activity("idle");
		pgstat_report_stat(true);

		now = GetCurrentTimestamp();
		due = Min(Min(refresh_due, jobs_due), TimestampTzPlusMilliseconds(now, POLL_MS));
		if (worked)
			last_work = now;
		if (TimestampDifferenceExceeds(born, now, LIFE_MS))
			leave(due, true);
		if (cs_worker_turn_over())
			leave(worked ? now : due, true);
		ms = LINGER_MS - TimestampDifferenceMilliseconds(last_work, now);
		if (ms <= 0 && due > now)
		{
			leave(due, false);
			continue;
		}
		if (worked)
			ms = 1; /* there may be more */
		else if (due <= now)
			ms = 500; /* look again, but never spin */
		else
			ms = Max(1, Min(ms, TimestampDifferenceMilliseconds(now, due)));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
						 PG_WAIT_EXTENSION);
	}
}
