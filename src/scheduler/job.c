/*
 * job.c
 *		Jobs as the database worker sees them: which are due, runs, retries.
 *
 * In: cs.job, cs_internal.job_state, and the outcomes that job processes left
 * in shared memory.  Out: cs_internal.job_run.  "Started" is committed before
 * a run begins and is a crash until the end is written, so no sweep has to
 * find crashes.  Kinds of our own run here, one after the other; kind sql runs
 * in a process of its own, as its own role.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/acl.h"
#include "utils/date.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "cs_ext.h"
#include "scheduler/scheduler.h"
#include "scheduler/shared.h"

typedef struct Job
{
	char *name;
	char *kind;
	char *run_as;
	char *group; /* NULL: none */
	int64 max_runtime_ms;
	CsJobView view;
	/* job_state */
	int64 run_id;            /* 0: none under way */
	TimestampTz next_run_at; /* as it stands there, 0: none */
	bool live;               /* the run under way is held by a process */
} Job;

/* What the units below are given. */
typedef struct JobUnit
{
	MemoryContext context;
	List *jobs;
	Job *job;
	TimestampTz slot; /* 0: beside the schedule */
	int attempt;
	int64 run_id;
	const char *status;
	const char *error;
	TimestampTz retry_at;
	TimestampTz not_before;
	TimestampTz next_run_at;
} JobUnit;

/* An instant as argument: 0 is NULL. */
static CsArg
instant_arg(TimestampTz t)
{
	return cs_datum(TIMESTAMPTZOID, TimestampTzGetDatum(t), t == 0 || TIMESTAMP_NOT_FINITE(t));
}

/* cs_interval_ms: see shared.h. */
int64
cs_interval_ms(const Interval *i)
{
	return (i->time + (i->day + (int64) i->month * 30) * USECS_PER_DAY) / 1000;
}

static TimestampTz
instant_cell(uint64 row, int col)
{
	bool isnull;
	Datum d = cs_cell_datum(row, col, &isnull);

	return isnull ? 0 : DatumGetTimestampTz(d);
}

static char *
text_cell(uint64 row, int col, MemoryContext context)
{
	char *s = cs_cell(row, col);

	return s ? MemoryContextStrdup(context, s) : NULL;
}

/* ---- units ------------------------------------------------------------------ */

/* Unit: all jobs with where they stand. */
static void
load_unit(void *arg)
{
	JobUnit *u = arg;
	CsFrame frame;
	uint64 n;

	cs_enter(&frame);
	cs_exec("SELECT cs_internal.job_sync()", CS_NO_ARGS);
	n = cs_exec(
		"SELECT j.name, j.kind, j.run_as, j.enabled, j.every, j.at, coalesce(j.on_day, 0),"
		" coalesce(j.time_zone, p.time_zone), s.anchor, j.missed = 'skip', j.max_runtime,"
		" j.retry_after, j.max_retries, s.last_slot, s.attempt, s.retry_at, s.not_before,"
		" coalesce(s.run_id, 0), l.id IS NOT NULL, s.next_run_at, j.concurrency_group"
		" FROM cs.job j JOIN cs_internal.job_state s ON s.job = j.name CROSS JOIN cs.policy p"
		" LEFT JOIN cs_internal.live_runs() AS l(id) ON l.id = s.run_id"
		" ORDER BY coalesce(s.retry_at, s.last_slot, s.anchor), j.name",
		CS_NO_ARGS);
	for (uint64 i = 0; i < n; i++)
	{
		Job *job = MemoryContextAllocZero(u->context, sizeof(Job));
		MemoryContext old;
		bool isnull;
		Datum d;

		job->name = text_cell(i, 1, u->context);
		job->kind = text_cell(i, 2, u->context);
		job->run_as = text_cell(i, 3, u->context);
		job->view.enabled = DatumGetBool(cs_cell_datum(i, 4, &isnull));
		d = cs_cell_datum(i, 5, &isnull);
		job->view.has_schedule = !isnull;
		if (!isnull)
			job->view.schedule.every = *DatumGetIntervalP(d);
		d = cs_cell_datum(i, 6, &isnull);
		job->view.schedule.has_at = !isnull;
		if (!isnull)
			job->view.schedule.at = DatumGetTimeADT(d);
		job->view.schedule.on_day = DatumGetInt32(cs_cell_datum(i, 7, &isnull));
		job->view.schedule.time_zone = text_cell(i, 8, u->context);
		job->view.schedule.anchor = instant_cell(i, 9);
		job->view.skip_missed = DatumGetBool(cs_cell_datum(i, 10, &isnull));
		job->max_runtime_ms = cs_interval_ms(DatumGetIntervalP(cs_cell_datum(i, 11, &isnull)));
		job->view.retry_after_ms = cs_interval_ms(DatumGetIntervalP(cs_cell_datum(i, 12, &isnull)));
		job->view.max_retries = DatumGetInt32(cs_cell_datum(i, 13, &isnull));
		job->view.last_slot = instant_cell(i, 14);
		job->view.attempt = DatumGetInt32(cs_cell_datum(i, 15, &isnull));
		job->view.retry_at = instant_cell(i, 16);
		job->view.not_before = instant_cell(i, 17);
		job->run_id = DatumGetInt64(cs_cell_datum(i, 18, &isnull));
		job->live = DatumGetBool(cs_cell_datum(i, 19, &isnull));
		job->next_run_at = instant_cell(i, 20);
		job->group = text_cell(i, 21, u->context);
		old = MemoryContextSwitchTo(u->context);
		u->jobs = lappend(u->jobs, job);
		MemoryContextSwitchTo(old);
	}
	cs_leave(&frame);
}

/* Unit: the mark "started"; from its commit on this worker (or a process) holds the run. */
static void
begin_unit(void *arg)
{
	JobUnit *u = arg;
	CsFrame frame;
	bool isnull;

	cs_enter(&frame);
	cs_exec("SELECT cs_internal.job_begin($1, $2, $3, $4)",
			CS_ARGS(cs_text(u->job->name), instant_arg(u->slot), cs_int4(u->attempt),
					cs_int4(MyProcPid)));
	u->run_id = DatumGetInt64(cs_value_datum(&isnull));
	cs_leave(&frame);
	cs_worker_run(u->run_id);
}

/* Writes the end mark; inside a frame. */
static void
write_end(JobUnit *u)
{
	cs_exec("SELECT cs_internal.job_end($1, $2, $3, $4, $5)",
			CS_ARGS(cs_int8(u->run_id), cs_text(u->status), cs_text(u->error),
					instant_arg(u->retry_at), instant_arg(u->not_before)));
}

/* Unit: the end mark alone. */
static void
end_unit(void *arg)
{
	CsFrame frame;

	cs_enter(&frame);
	write_end(arg);
	cs_leave(&frame);
}

/* Unit: the work of a snapshot, retention or check together with its end mark: both or neither. */
static void
own_work_unit(void *arg)
{
	JobUnit *u = arg;
	CsFrame frame;

	cs_enter(&frame);
	cs_exec(psprintf("SELECT cs_internal.%s()", strcmp(u->job->kind, "snapshot") == 0
													? "snapshot_now"
												: strcmp(u->job->kind, "check") == 0 ? "check_now"
																					 : "retention"),
			CS_NO_ARGS);
	u->status = "succeeded";
	write_end(u);
	cs_leave(&frame);
}

/* Unit: a slot that is not run. */
static void
skip_unit(void *arg)
{
	JobUnit *u = arg;
	CsFrame frame;

	cs_enter(&frame);
	cs_exec("SELECT cs_internal.job_skip($1, $2, $3)",
			CS_ARGS(cs_text(u->job->name), instant_arg(u->slot), cs_text(u->error)));
	cs_leave(&frame);
}

/* Unit: what job_status says of the next run. */
static void
plan_unit(void *arg)
{
	JobUnit *u = arg;
	CsFrame frame;

	cs_enter(&frame);
	cs_exec("UPDATE cs_internal.job_state s SET next_run_at = $2"
			" WHERE s.job = $1 AND s.next_run_at IS DISTINCT FROM $2",
			CS_ARGS(cs_text(u->job->name), instant_arg(u->next_run_at)));
	cs_leave(&frame);
}

/* ---- ends and retries ----------------------------------------------------------- */

/* Ends the run that *u is about. False: the mark could not be written, the run will count as a crash. */
static bool
end_run(JobUnit *u, const char *status, const char *error)
{
	ErrorData *failure;
	bool done;

	u->status = status;
	u->error = error;
	u->retry_at = u->not_before = 0;
	if (strcmp(status, "failed") == 0 || strcmp(status, "crashed") == 0)
		cs_retry_plan(&u->job->view, u->attempt, strcmp(status, "crashed") == 0,
					  (double) random() / (double) RAND_MAX, GetCurrentTimestamp(), &u->retry_at,
					  &u->not_before);
	done = cs_unit(end_unit, u, "end of a job run", CS_LOG_NEWS, &failure);
	cs_worker_run(0);
	return done;
}

/* How an error ended a run: cancelled by a person, or failed (also when it ran too long). */
static const char *
status_of(ErrorData *error, TimestampTz deadline, char **text)
{
	*text = error->message;
	if (error->sqlerrcode != ERRCODE_QUERY_CANCELED)
		return "failed";
	if (GetCurrentTimestamp() < deadline)
		return "cancelled";
	*text = pstrdup("ran longer than max_runtime");
	return "failed";
}

/* ---- runs -------------------------------------------------------------------------- */

/* Runs a job of a kind of our own, here and now. */
static void
run_here(JobUnit *u)
{
	ErrorData *error = NULL;
	TimestampTz deadline;
	char *text;
	bool done;

	if (!cs_unit(begin_unit, u, "start of a job run", CS_LOG_NEWS, &error))
		return;
	cs_worker_activity(psprintf("job %s", u->job->name));
	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), u->job->max_runtime_ms);
	cs_worker_deadline(deadline);
	if (strcmp(u->job->kind, "refresh") == 0)
	{
		done = cs_worker_refresh(true, &error);
		cs_worker_deadline(0);
		if (done)
			end_run(u, "succeeded", NULL);
	}
	else
	{
		done =
			cs_unit(own_work_unit, u, psprintf("job \"%s\"", u->job->name), CS_LOG_ALWAYS, &error);
		cs_worker_deadline(0);
		if (done)
			cs_worker_run(0);
	}
	if (done)
		return;
	if (error == NULL)
		end_run(u, "cancelled",
				cs_worker_cancelled() ? "canceling statement due to user request"
									  : "the scheduler was switched off");
	else
	{
		const char *status = status_of(error, deadline, &text);

		if (error->sqlerrcode == ERRCODE_DATA_CORRUPTED)
			u->attempt = u->job->view.max_retries + 1; /* looking again finds the same */
		end_run(u, status, text);
	}
}

/*
 * Why the role of a job cannot run it now, NULL: it can.  Looked up at each
 * run, for a role or a membership may have gone since the job was written.
 */
static const char *
role_trouble(const char *run_as, const char *writer, Oid *role)
{
	Oid writer_oid = writer ? get_role_oid(writer, true) : InvalidOid;
	HeapTuple tup = SearchSysCache1(AUTHNAME, CStringGetDatum(run_as));
	const char *trouble = NULL;
	Form_pg_authid form;

	if (!HeapTupleIsValid(tup))
		return psprintf(
			"role \"%s\" does not exist any more: create it, or change run_as of the job", run_as);
	form = (Form_pg_authid) GETSTRUCT(tup);
	*role = form->oid;
	if (form->rolsuper && !cs_allow_superuser_sql)
		trouble =
			psprintf("role \"%s\" is a superuser, and cs_ext.allow_superuser_sql is off", run_as);
	else if (!form->rolcanlogin)
		trouble = psprintf("role \"%s\" may not log in", run_as);
	else if (!OidIsValid(writer_oid))
		trouble = psprintf("who wrote this job (%s) does not exist any more: a member of role "
						   "\"%s\" must write it again",
						   writer ? writer : "unknown", run_as);
	else if (!is_member_of_role(writer_oid, form->oid))
		trouble =
			psprintf("role \"%s\", which wrote this job, is no member of role \"%s\" any more",
					 writer, run_as);
	ReleaseSysCache(tup);
	return trouble;
}

/* Unit: looks the role up. */
typedef struct RoleUnit
{
	const char *job;
	const char *run_as;
	Oid role;
	const char *trouble;
	MemoryContext context;
} RoleUnit;

static void
role_unit(void *arg)
{
	RoleUnit *r = arg;
	CsFrame frame;
	char *writer;

	cs_enter(&frame);
	cs_exec("SELECT w.writer FROM cs_internal.job_writer w WHERE w.job = $1",
			CS_ARGS(cs_text(r->job)));
	writer = text_cell(0, 1, r->context);
	cs_leave(&frame);
	r->trouble = role_trouble(r->run_as, writer, &r->role);
	if (r->trouble)
		r->trouble = MemoryContextStrdup(r->context, r->trouble);
}

/*
 * Starts the process of a job of kind sql.  False: there is no place for it
 * now; nothing was recorded, the job stays due.
 */
static bool
run_apart(JobUnit *u)
{
	RoleUnit r = {u->job->name, u->job->run_as, InvalidOid, NULL, CurrentMemoryContext};
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;
	CsJobProcess *process = NULL;
	ErrorData *error;

	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	if (cs_worker_count() < Max(cs_max_workers, 2))
		for (int i = 0; i < CS_MAX_JOB_PROCESSES && process == NULL; i++)
			if (cs_shared->jobs[i].state == CS_JOB_FREE)
				process = &cs_shared->jobs[i];
	if (process)
	{
		memset(process, 0, sizeof(*process));
		process->state = CS_JOB_REGISTERED;
		process->dboid = MyDatabaseId;
		process->started_at = GetCurrentTimestamp();
		process->deadline =
			TimestampTzPlusMilliseconds(process->started_at, u->job->max_runtime_ms);
		strlcpy(process->job, u->job->name, sizeof(process->job));
	}
	else
		cs_shared->job_refused_at = GetCurrentTimestamp();
	LWLockRelease(cs_shared->lock);
	if (process == NULL)
		return false;

	if (!cs_unit(begin_unit, u, "start of a job run", CS_LOG_NEWS, &error))
	{
		process->state = CS_JOB_FREE;
		return true;
	}
	if (!cs_unit(role_unit, &r, "role of a job", CS_LOG_NEWS, &error))
		r.trouble = error->message;
	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	process->run_id = u->run_id;
	process->role = r.role;
	LWLockRelease(cs_shared->lock);
	cs_worker_run(0);
	if (r.trouble)
	{
		u->attempt = u->job->view.max_retries + 1; /* trying again does not help */
		end_run(u, "failed", r.trouble);
		process->state = CS_JOB_FREE;
		return true;
	}

	memset(&worker, 0, sizeof(worker));
	snprintf(worker.bgw_name, BGW_MAXLEN, "cs_ext job %s", u->job->name);
	strlcpy(worker.bgw_type, "cs_ext job", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "cs_ext", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "cs_job_main", BGW_MAXLEN);
	worker.bgw_main_arg = Int32GetDatum(process - cs_shared->jobs);
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
	{
		end_run(u, "failed", "no place for a background worker: raise max_worker_processes");
		process->state = CS_JOB_FREE;
		return true;
	}
	u->job->run_id = u->run_id;
	u->job->live = true;
	return true;
}

/* Fetches the outcomes that job processes of this database left. */
static void
collect_outcomes(List *jobs)
{
	for (int i = 0; i < CS_MAX_JOB_PROCESSES; i++)
	{
		CsJobProcess copy;
		JobUnit u = {0};
		ListCell *lc;
		const char *status;
		const char *error = NULL;

		LWLockAcquire(cs_shared->lock, LW_SHARED);
		copy = cs_shared->jobs[i];
		LWLockRelease(cs_shared->lock);
		if (copy.dboid != MyDatabaseId || copy.state == CS_JOB_FREE)
			continue;

		if (copy.state == CS_JOB_SUCCEEDED)
			status = "succeeded";
		else if (copy.state == CS_JOB_FAILED || copy.state == CS_JOB_CANCELLED)
		{
			status = copy.state == CS_JOB_FAILED ? "failed" : "cancelled";
			error = copy.message;
		}
		else if (copy.state == CS_JOB_REGISTERED &&
				 TimestampDifferenceExceeds(copy.started_at, GetCurrentTimestamp(), CS_START_MS))
		{
			status = "failed";
			error = "its process did not start; see the server's log";
		}
		else if (copy.state == CS_JOB_RUNNING && !cs_process_alive(copy.pid))
			status = "crashed";
		else
			continue;

		foreach (lc, jobs)
			if (copy.run_id != 0 && ((Job *) lfirst(lc))->run_id == copy.run_id)
				u.job = lfirst(lc);
		u.run_id = copy.run_id;
		if (u.job)
		{
			u.attempt = u.job->view.attempt;
			if (!end_run(&u, status, error))
				continue;
			u.job->run_id = 0;
			u.job->view.retry_at = u.retry_at;
			u.job->view.not_before = u.not_before;
		}
		else
		{
			/* the job was deleted meanwhile: only its history is left */
			ErrorData *failure;

			u.status = status;
			u.error = error;
			if (!cs_unit(end_unit, &u, "end of a job run", CS_LOG_NEWS, &failure))
				continue;
		}
		LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
		memset(&cs_shared->jobs[i], 0, sizeof(CsJobProcess));
		LWLockRelease(cs_shared->lock);
	}
}

/* cs_jobs_forget: see shared.h. */
void
cs_jobs_forget(void)
{
	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < CS_MAX_JOB_PROCESSES; i++)
	{
		CsJobProcess *job = &cs_shared->jobs[i];

		if (job->dboid == MyDatabaseId &&
			(job->state >= CS_JOB_SUCCEEDED ||
			 (job->state == CS_JOB_RUNNING && !cs_process_alive(job->pid)) ||
			 (job->state == CS_JOB_REGISTERED &&
			  TimestampDifferenceExceeds(job->started_at, GetCurrentTimestamp(), CS_START_MS))))
			memset(job, 0, sizeof(*job));
	}
	LWLockRelease(cs_shared->lock);
}

/* ---- the turn ------------------------------------------------------------------------ */

/* Does another job of its concurrency group run, by what this turn knows? */
static bool
group_busy(const Job *job, List *jobs)
{
	ListCell *lc;

	if (job->group == NULL)
		return false;
	foreach (lc, jobs)
	{
		const Job *other = lfirst(lc);

		if (other != job && other->run_id != 0 && other->live && other->group != NULL &&
			strcmp(other->group, job->group) == 0)
			return true;
	}
	return false;
}

/*
 * One job's turn: ends what crashed, skips what was missed, runs what is due.
 * True when it ran. *next: when it is due again.
 */
static bool
job_turn(Job *job, List *jobs, TimestampTz *next)
{
	JobUnit u = {0};
	ErrorData *error;
	TimestampTz now = GetCurrentTimestamp();
	CsJobPlan plan;

	u.job = job;
	*next = DT_NOEND;

	if (job->run_id != 0 && !job->live)
	{
		u.run_id = job->run_id;
		u.attempt = job->view.attempt;
		if (!end_run(&u, "crashed", NULL))
		{
			*next = TimestampTzPlusMilliseconds(now, 10000);
			return false;
		}
		job->run_id = 0;
		job->view.retry_at = u.retry_at;
		job->view.not_before = u.not_before;
	}

	job->view.running = job->run_id != 0;
	job->view.group_busy = group_busy(job, jobs);
	plan = cs_job_plan(&job->view, now);
	if (plan.act == CS_JOB_SKIP)
	{
		u.slot = plan.slot;
		u.error = plan.why;
		if (!cs_unit(skip_unit, &u, "skipping of a slot", CS_LOG_NEWS, &error))
		{
			*next = TimestampTzPlusMilliseconds(now, 10000);
			return false;
		}
		u.error = NULL;
		job->view.last_slot = plan.slot;
		plan = cs_job_plan(&job->view, now);
	}
	if (plan.act == CS_JOB_RUN)
	{
		bool ran = true;

		u.slot = plan.slot;
		u.attempt = plan.attempt;
		if (strcmp(job->kind, "sql") == 0)
			ran = run_apart(&u);
		else
			run_here(&u);
		*next = ran ? GetCurrentTimestamp() : TimestampTzPlusMilliseconds(now, 2000);
		return ran;
	}

	*next = plan.next;
	if (job->next_run_at != (*next == DT_NOEND ? 0 : *next) && !job->view.group_busy)
	{
		u.next_run_at = *next;
		cs_unit(plan_unit, &u, "planning of a job", CS_LOG_NEWS, &error);
	}
	return false;
}

/* cs_jobs_turn: see shared.h. */
bool
cs_jobs_turn(TimestampTz *next)
{
	JobUnit u = {0};
	ErrorData *error;
	ListCell *lc;
	bool ran = false;

	*next = DT_NOEND;
	u.context = CurrentMemoryContext;
	if (!cs_unit(load_unit, &u, "reading of jobs", CS_LOG_NEWS, &error))
	{
		*next = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 10000);
		return false;
	}
	collect_outcomes(u.jobs);
	foreach (lc, u.jobs)
	{
		TimestampTz due;

		if (cs_worker_leaving())
			break;
		ran |= job_turn(lfirst(lc), u.jobs, &due);
		*next = Min(*next, due);
	}
	return ran;
}
