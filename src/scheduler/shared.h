/*
 * shared.h
 *		What the processes of the scheduler share: one slot per database, one
 *		slot per run in an extra process, and what each of them promises.
 *
 * Everything here is lost when the postmaster restarts its children after a
 * crash, and found again by the launcher's first turn: nothing in it is the
 * only copy of anything.
 */
#ifndef CS_SCHEDULER_SHARED_H
#define CS_SCHEDULER_SHARED_H

#include "cs_ext.h"

#include "postmaster/bgworker.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

#define CS_MAX_DATABASES 1024
#define CS_MAX_JOB_PROCESSES 64
#define CS_MESSAGE_LEN 512
#define CS_START_MS 30000 /* a registered process that has not come by then never will */

/* A database. Only the launcher makes and frees slots; dboid InvalidOid: free. */
typedef struct CsDatabaseSlot
{
	Oid dboid;
	bool starting;          /* a worker was registered and has not come yet */
	TimestampTz started_at; /* when it was registered, later: when it came */
	pid_t worker_pid;       /* 0: no worker */
	Latch *worker_latch;
	bool wake;              /* something was committed since the worker last looked */
	TimestampTz woken_at;   /* since when; who waits longest is served first */
	TimestampTz next_due;   /* when to start a worker although nothing woke */
	TimestampTz not_before; /* back-off and way for DROP DATABASE: not even when woken */
	int probes;             /* looks in a row that found nothing to serve */
	int failures;           /* of workers in a row, without a clean end */
	int refresh_failures;   /* of refreshes in a row */
	TimestampTz refresh_not_before;
	int barren; /* refreshes in a row that did nothing although there is something to do */
	bool
		cut; /* the last refresh ended before it concluded: another one is needed, whatever is marked */
	int64 run_id; /* the job run that the worker is in, 0: none */
	char activity[NAMEDATALEN];
	char message[CS_MESSAGE_LEN]; /* last error or reason to idle, "" none */
} CsDatabaseSlot;

/* A run of a job of kind sql in a process of its own. */
typedef enum CsJobProcessState
{
	CS_JOB_FREE,
	CS_JOB_REGISTERED, /* the process has not come yet */
	CS_JOB_RUNNING,
	CS_JOB_SUCCEEDED, /* the outcome waits for the database worker */
	CS_JOB_FAILED,
	CS_JOB_CANCELLED
} CsJobProcessState;

typedef struct CsJobProcess
{
	CsJobProcessState state;
	Oid dboid;
	Oid role;
	int64 run_id;
	pid_t pid;
	TimestampTz started_at;
	TimestampTz deadline;
	char job[NAMEDATALEN];
	char message[CS_MESSAGE_LEN];
} CsJobProcess;

typedef struct CsShared
{
	LWLock *lock; /* for everything below */
	pid_t launcher_pid;
	Latch *launcher_latch;
	TimestampTz launcher_since;
	bool waiting;               /* a database has work and there is no place: workers take turns */
	TimestampTz job_refused_at; /* a job of kind sql found no place for its process */
	bool rescan;                /* an unknown database has work: read pg_database now */
	int used; /* no slot from here on was ever used: every commit looks its slot up */
	CsDatabaseSlot databases[CS_MAX_DATABASES];
	CsJobProcess jobs[CS_MAX_JOB_PROCESSES];
} CsShared;

extern CsShared *cs_shared; /* NULL: not preloaded */

/* Slot of a database or NULL; the caller holds the lock. */
extern CsDatabaseSlot *cs_database_slot(Oid dboid);

/* Is a process of ours with this pid alive? */
extern bool cs_process_alive(pid_t pid);

/* True when other databases wait for a place and this worker had its share. */
extern bool cs_worker_turn_over(void);

/* How many database workers and job processes there are or will soon be; the caller holds the lock. */
extern int cs_worker_count(void);

/* The list of databases changes when this transaction commits. */
extern void cs_rescan_at_commit(void);

/* How long to rest after so many failures in a row: 2 s doubled up to 5 min, with jitter. */
extern int cs_pause_ms(int failures);

/* shared.c: set up by cs_scheduler_init; makeway.c: hook on utility statements. */
extern void cs_makeway_init(void);

/* Mains of the processes. */
extern PGDLLEXPORT void cs_launcher_main(Datum arg);
extern PGDLLEXPORT void cs_worker_main(Datum arg);
extern PGDLLEXPORT void cs_job_main(Datum arg);

/* ---- worker.c: a unit of work --------------------------------------------- */

typedef void (*CsUnit)(void *arg);

/* Whether an error is logged each time, or only when it differs from the one before. */
typedef enum CsUnitLog
{
	CS_LOG_NEWS,
	CS_LOG_ALWAYS
} CsUnitLog;

/*
 * Runs a unit in a transaction of its own, the extension locked against being
 * dropped meanwhile. True when it committed. False: it was rolled back and
 * *error is the reason (in the caller's context, already logged).
 */
extern bool cs_unit(CsUnit unit, void *arg, const char *what, CsUnitLog log, ErrorData **error);

/* What cs.workers() and pg_stat_activity show of this worker; the job run it is in (0: none). */
extern void cs_worker_activity(const char *activity);
extern void cs_worker_run(int64 run_id);

/* While set, units are cancelled at this instant; 0: no limit. */
extern void cs_worker_deadline(TimestampTz deadline);

/* True when this worker shall leave: the scheduler was switched off or somebody makes way. */
extern bool cs_worker_leaving(void);

/* True, once, when a cancel came while no unit ran. */
extern bool cs_worker_cancelled(void);

/* A whole refresh, each step its own transaction. False: *error is the reason; NULL: it was cancelled, or the scheduler switched off. */
extern bool cs_worker_refresh(bool force_scan, ErrorData **error);

/* ---- job.c ---------------------------------------------------------------- */

/* Runs what is due; true when anything ran. *next: when the next job is due (DT_NOEND: never). */
extern bool cs_jobs_turn(TimestampTz *next);

/* Outcomes that nobody will write down any more: the extension is gone. */
extern void cs_jobs_forget(void);

/* ---- schedule.c ----------------------------------------------------------- */

typedef struct CsSchedule
{
	Interval every;
	bool has_at;
	TimeADT at; /* local time of day */
	int on_day; /* 0: none; 31: last day of the month */
	const char *time_zone;
	TimestampTz anchor; /* the grid begins after this instant */
} CsSchedule;

/* NULL when the schedule is sound, else what is wrong with it; *hint how to put it right. */
extern const char *cs_schedule_check(const CsSchedule *schedule, const char **hint);

/* First slot after an instant; latest slot at or before it (false: none yet). */
extern TimestampTz cs_schedule_next(const CsSchedule *schedule, TimestampTz after);
extern bool cs_schedule_latest(const CsSchedule *schedule, TimestampTz now, TimestampTz *slot);

/* The first four arguments of a SQL call as a sound schedule; else raises 22023. */
extern CsSchedule cs_schedule_args(FunctionCallInfo fcinfo);

/* ---- plan.c --------------------------------------------------------------- */

/* A job and where it stands, as far as decisions need it; instants that are 0: none. */
typedef struct CsJobView
{
	bool enabled;
	bool has_schedule;
	CsSchedule schedule;
	bool skip_missed; /* missed = 'skip' */
	bool running;     /* a run is under way */
	bool group_busy;  /* another job of its concurrency group runs */
	int max_retries;
	int64 retry_after_ms;
	TimestampTz last_slot;  /* the last one dealt with */
	int attempt;            /* at that slot */
	TimestampTz retry_at;   /* an extra run: a retry, or asked for */
	TimestampTz not_before; /* pause after a crash */
} CsJobView;

typedef enum CsJobAct
{
	CS_JOB_WAIT,
	CS_JOB_RUN,
	CS_JOB_SKIP
} CsJobAct;

typedef struct CsJobPlan
{
	CsJobAct act;
	TimestampTz slot; /* that is run or skipped; 0: beside the schedule */
	int attempt;      /* of the run */
	const char *why;  /* it is skipped */
	TimestampTz next; /* when to ask again, DT_NOEND: when something happens */
} CsJobPlan;

/* What is to be done with a job now. */
extern CsJobPlan cs_job_plan(const CsJobView *job, TimestampTz now);

/*
 * When a run that failed at its n-th attempt is tried again: after
 * retry_after, doubled per try up to an hour, give or take an eighth (jitter
 * from 0 to 1); not when the tries are used up, nor past the next slot, which
 * comes instead.  After a crash the job rests at least five minutes.
 */
extern void cs_retry_plan(const CsJobView *job, int attempt, bool crashed, double jitter,
						  TimestampTz now, TimestampTz *retry_at, TimestampTz *not_before);

/* Milliseconds of an interval, months as 30 days. */
extern int64 cs_interval_ms(const Interval *interval);

#endif
