/*
 * progress.c
 *		How far a long refresh or rebuild is: cs_internal.progress, and notices.
 *
 * In: each step of the pipeline says what is done and what was to do.  Out: a row
 * per stage, written in the step's own transaction, so what it says is committed;
 * a line for each tenth.  Runs of one batch say nothing and write nothing.
 *
 * Cases.  Killed: the rows stay until the next run ends, which goes on where it
 * was.  commit => false: only the transaction itself sees them.
 */
#include "cs_ext.h"

#include "refresh/refresh.h"

/*
 * cs_progress: see refresh.h.
 */
void
cs_progress(CsRefresh *run, int place, const char *stage, int64 done, int64 total)
{
	int tenth;

	if (run->stage != place)
	{
		run->stage = place;
		run->tenth = 0;
		run->stage_started = GetCurrentTimestamp();
	}
	if (total <= 0)
		return;
	done = Min(done, total);
	cs_exec("INSERT INTO cs_internal.progress AS p (stage, place, done, total, started_at, "
			"updated_at) VALUES ($1, $2, $3, $4, $5, clock_timestamp()) ON CONFLICT (stage) DO "
			"UPDATE SET done = excluded.done, total = excluded.total, started_at = "
			"excluded.started_at, updated_at = excluded.updated_at",
			CS_ARGS(cs_text(stage), cs_int4(place), cs_int8(done), cs_int8(total),
					cs_tstz(run->stage_started)));
	run->progress = true;
	tenth = (int) (done * 10 / total);
	if (tenth <= run->tenth)
		return;
	run->tenth = tenth;
	ereport(run->notice_level,
			errmsg("%s: %lld of %lld after %.1f s", stage, (long long) done, (long long) total,
				   (GetCurrentTimestamp() - run->stage_started) / 1000000.0));
}

/*
 * cs_progress_end: see refresh.h.
 */
void
cs_progress_end(void)
{
	cs_exec("DELETE FROM cs_internal.progress", CS_NO_ARGS);
}
