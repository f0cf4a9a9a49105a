
-- ---------------------------------------------------------------------------
-- job: what the scheduler runs, and what became of it.
-- ---------------------------------------------------------------------------

CREATE TABLE cs.job (
	name text PRIMARY KEY,
	kind text NOT NULL,
	command text,
	every interval,
	at time,
	on_day integer,
	time_zone text,
	missed text NOT NULL DEFAULT 'run_once',
	max_runtime interval NOT NULL DEFAULT '1 hour',
	max_retries integer NOT NULL DEFAULT 3,
	retry_after interval NOT NULL DEFAULT '1 minute',
	concurrency_group text,
	run_as text,
	enabled boolean NOT NULL DEFAULT true,
	description text
);
SELECT pg_catalog.pg_extension_config_dump('cs.job', '');

COMMENT ON TABLE cs.job IS 'What the scheduler runs, by plain INSERT, UPDATE and DELETE. Schedules follow the clock, also where cs_ext.now is set; what runs computes as of cs_ext.now.';
COMMENT ON COLUMN cs.job.name IS 'Name of the job.';
COMMENT ON COLUMN cs.job.kind IS 'refresh (re-reads scanned sources too), snapshot (metrics and health as of the last local midnight), retention (thins history), check (cs.check(): what must hold between the numbers; a violation fails the run), sql (runs command as run_as).';
COMMENT ON COLUMN cs.job.command IS 'Kind sql only: one or more statements; each is a transaction of its own, so CALL may commit.';
COMMENT ON COLUMN cs.job.every IS 'Distance of the slots: months, days, or hours and less, not mixed. NULL: runs only by cs.run_job().';
COMMENT ON COLUMN cs.job.at IS 'Local time of day, where every is of days or months. NULL: the time at which the job was written.';
COMMENT ON COLUMN cs.job.on_day IS 'Day of the month, where every is of months; 31, and each day that a month lacks, means its last day. NULL: the day on which the job was written.';
COMMENT ON COLUMN cs.job.time_zone IS 'Zone of at and on_day. NULL: that of cs.policy.';
COMMENT ON COLUMN cs.job.missed IS 'What happens to slots that passed while nothing could run: run_once (one run for all of them) or skip (none; recorded). Late by more than five minutes, or half of every, counts as missed.';
COMMENT ON COLUMN cs.job.max_runtime IS 'A run is cancelled after this long.';
COMMENT ON COLUMN cs.job.max_retries IS 'How often a failed run is tried again before the next slot.';
COMMENT ON COLUMN cs.job.retry_after IS 'Pause before the first retry; doubled each time up to an hour, give or take an eighth. After a crash at least five minutes.';
COMMENT ON COLUMN cs.job.concurrency_group IS 'Of the jobs of a database that share this name one runs at a time; who is due meanwhile waits, the longest waiting first. NULL: none.';
COMMENT ON COLUMN cs.job.run_as IS 'Kind sql only: name of the role that the command runs as. The writer must be a member of it; it needs LOGIN and must not be a superuser unless cs_ext.allow_superuser_sql is on.';
COMMENT ON COLUMN cs.job.enabled IS 'false: not run by schedule. Enabling it again starts the schedule anew.';
COMMENT ON COLUMN cs.job.description IS 'Free text.';

-- Not dumped: what a server did. "started" is committed before a run and counts as crashed until the end is written.
CREATE TABLE cs_internal.job_run (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	job text NOT NULL,
	status text NOT NULL,                -- started, succeeded, failed, crashed, cancelled, skipped
	scheduled_at timestamptz,
	started_at timestamptz NOT NULL,
	ended_at timestamptz,
	pid integer,
	attempt integer NOT NULL DEFAULT 1,
	runs bigint NOT NULL DEFAULT 1,      -- refreshes are summed per minute, skips in a row in one
	run_as text,                         -- kind sql: as whom; who is no member does not see the row
	error text
);
CREATE INDEX job_run_job ON cs_internal.job_run (job, started_at);

-- Who wrote a job of kind sql last: must be a member of its run_as, when it is
-- written and at each run. Decided, dumped; names, for a restore where the roles
-- are made later.
CREATE TABLE cs_internal.job_writer (
	job text PRIMARY KEY,
	writer text NOT NULL
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.job_writer', '');

-- Not dumped: where each job stands on this server. Written by the worker alone
-- (and by cs.run_job), which compares it with cs.job each turn.
CREATE TABLE cs_internal.job_state (
	job text PRIMARY KEY,
	schedule text NOT NULL,              -- what the slots depend on, as text: when it differs the grid starts anew
	anchor timestamptz NOT NULL,         -- start of the grid
	last_slot timestamptz,               -- the last one that was run, skipped or given up
	attempt integer NOT NULL DEFAULT 0,  -- of the last slot
	retry_at timestamptz,                -- an extra run: a retry, or asked for
	not_before timestamptz,              -- pause after a crash
	run_id bigint,                       -- the run under way
	failures integer NOT NULL DEFAULT 0, -- in a row
	next_run_at timestamptz
);

CREATE FUNCTION cs_internal.check_schedule(every interval, at time, on_day integer, time_zone text) RETURNS void
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_check_schedule_sql';
COMMENT ON FUNCTION cs_internal.check_schedule(interval, time, integer, text) IS
'Raises 22023 with a hint for a schedule that is not sound.';

CREATE FUNCTION cs_internal.next_run(every interval, at time, on_day integer, time_zone text,
	anchor timestamptz, after timestamptz) RETURNS timestamptz
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_next_run_sql';
COMMENT ON FUNCTION cs_internal.next_run(interval, time, integer, text, timestamptz, timestamptz) IS
'First slot after an instant, of the grid that begins at the anchor.';

CREATE FUNCTION cs_internal.latest_run(every interval, at time, on_day integer, time_zone text,
	anchor timestamptz, now timestamptz) RETURNS timestamptz
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_latest_run_sql';
COMMENT ON FUNCTION cs_internal.latest_run(interval, time, integer, text, timestamptz, timestamptz) IS
'Last slot at or before an instant, of the grid that begins at the anchor; NULL: none yet.';

CREATE FUNCTION cs_internal.job_plan(every interval, at time, on_day integer, time_zone text, anchor timestamptz,
	skip_missed boolean, last_slot timestamptz, attempt integer, retry_at timestamptz, not_before timestamptz,
	running boolean, group_busy boolean, now timestamptz,
	OUT act text, OUT slot timestamptz, OUT try integer, OUT why text, OUT next timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_job_plan_sql';
COMMENT ON FUNCTION cs_internal.job_plan(interval, time, integer, text, timestamptz, boolean, timestamptz, integer, timestamptz, timestamptz, boolean, boolean, timestamptz) IS
'What the worker does with a job at an instant: act (wait, run, skip) for which slot, and when to ask again. Without a clock of its own, so that a test can drive it with any.';

CREATE FUNCTION cs_internal.retry_plan(every interval, at time, on_day integer, time_zone text, anchor timestamptz,
	attempt integer, max_retries integer, retry_after interval, crashed boolean, jitter double precision, now timestamptz,
	OUT retry_at timestamptz, OUT not_before timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_retry_plan_sql';
COMMENT ON FUNCTION cs_internal.retry_plan(interval, time, integer, text, timestamptz, integer, integer, interval, boolean, double precision, timestamptz) IS
'When a run that failed is tried again, and until when a crashed job rests; jitter from 0 to 1.';

CREATE FUNCTION cs_internal.live_runs() RETURNS SETOF bigint
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_live_runs_sql';
COMMENT ON FUNCTION cs_internal.live_runs() IS 'See cs.live_runs.';

-- Public because a view calls its functions as whoever reads it.
CREATE FUNCTION cs.live_runs() RETURNS SETOF bigint LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.live_runs() IS
'Ids of the job runs of this database that a live process holds; none where cs_ext is not preloaded.';

CREATE FUNCTION cs_internal.wake_scheduler() RETURNS boolean
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_wake_scheduler_sql';
COMMENT ON FUNCTION cs_internal.wake_scheduler() IS
'Wakes the scheduler for this database when the transaction commits; false where there is none.';

-- Lifting the hold after a restore is work for the scheduler.
CREATE FUNCTION cs_internal.wake_trigger() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cs_internal.wake_scheduler();
	RETURN NULL;
END $$;
COMMENT ON FUNCTION cs_internal.wake_trigger() IS 'Wakes the scheduler for this database when the transaction commits.';

CREATE TRIGGER wake AFTER DELETE ON cs_internal.hold
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.wake_trigger();

CREATE FUNCTION cs_internal.worker_slots(OUT pid integer, OUT process text, OUT database oid, OUT role oid,
	OUT since timestamptz, OUT activity text, OUT woken boolean, OUT next_due timestamptz,
	OUT not_before timestamptz, OUT failures integer, OUT message text, OUT run_id bigint) RETURNS SETOF record
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_workers_sql';
COMMENT ON FUNCTION cs_internal.worker_slots() IS 'Shared memory of the scheduler as rows.';

-- ---- definitions ---------------------------------------------------------

CREATE FUNCTION cs_internal.check_job(new jsonb, old jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	n cs.job := jsonb_populate_record(NULL::cs.job, new);
	r pg_roles;
BEGIN
	IF old->>'name' IS DISTINCT FROM new->>'name' OR new->>'kind' IS DISTINCT FROM 'sql' THEN
		DELETE FROM cs_internal.job_writer w WHERE w.job = old->>'name';
	END IF;
	IF new IS NULL THEN
		RETURN;
	END IF;
	IF n.name !~ '\S' THEN
		RAISE EXCEPTION 'a job needs a name' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'For example nightly_snapshot.';
	END IF;
	PERFORM cs_internal.must_be_word(format('kind of job "%s":', n.name), n.kind, '{refresh,snapshot,retention,check,sql}');
	PERFORM cs_internal.must_be_word(format('missed of job "%s":', n.name), n.missed, '{run_once,skip}');
	IF n.concurrency_group !~ '\S' THEN
		RAISE EXCEPTION 'job "%": an empty concurrency_group names nothing', n.name USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Give the jobs that must not run together the same word, or leave it NULL.';
	END IF;
	IF n.every IS NULL AND (n.at IS NOT NULL OR n.on_day IS NOT NULL) THEN
		RAISE EXCEPTION 'job "%": at and on_day need every', n.name USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Write, for example, every = ''1 day'', at = ''02:15''.';
	END IF;
	IF n.time_zone IS NOT NULL AND NOT EXISTS (SELECT FROM pg_timezone_names z WHERE lower(z.name) = lower(n.time_zone)) THEN
		RAISE EXCEPTION 'job "%": unknown time zone "%"', n.name, n.time_zone USING ERRCODE = 'invalid_parameter_value',
			HINT = coalesce('Did you mean "' || cs_internal.nearest(n.time_zone,
				(SELECT array_agg(z.name) FROM pg_timezone_names z)) || '"? ', '') || 'Names stand in pg_timezone_names.';
	END IF;
	IF n.every IS NOT NULL THEN
		PERFORM cs_internal.check_schedule(n.every, n.at, n.on_day,
			coalesce(n.time_zone, (SELECT p.time_zone FROM cs.policy p), 'UTC'));
	END IF;
	IF n.max_runtime <= interval '0' OR n.retry_after <= interval '0' OR n.max_retries < 0 THEN
		RAISE EXCEPTION 'job "%": max_runtime and retry_after must be longer than nothing, max_retries not negative', n.name
			USING ERRCODE = 'invalid_parameter_value',
			DETAIL = format('max_runtime %s, retry_after %s, max_retries %s.', n.max_runtime, n.retry_after, n.max_retries),
			HINT = 'Set max_retries to 0 for no retry.';
	END IF;
	IF n.kind <> 'sql' THEN
		IF n.command IS NOT NULL OR n.run_as IS NOT NULL THEN
			RAISE EXCEPTION 'job "%": command and run_as belong to jobs of kind sql', n.name
				USING ERRCODE = 'invalid_parameter_value', HINT = format('Leave them NULL, or write kind = ''sql'' instead of ''%s''.', n.kind);
		END IF;
		RETURN;
	END IF;

	IF n.command IS NULL OR n.command !~ '\S' THEN
		RAISE EXCEPTION 'job "%": kind sql needs a command', n.name USING ERRCODE = 'invalid_parameter_value',
			HINT = 'For example command = ''CALL my_procedure()''.';
	END IF;
	IF n.run_as IS NULL THEN
		RAISE EXCEPTION 'job "%": kind sql needs run_as', n.name USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Name the role that the command runs as; the writer must be a member of it.';
	END IF;
	SELECT * INTO r FROM pg_roles p WHERE p.rolname = n.run_as;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'job "%": role "%" does not exist', n.name, n.run_as USING ERRCODE = 'undefined_object',
			HINT = coalesce('Did you mean "' || cs_internal.nearest(n.run_as,
				(SELECT array_agg(p.rolname::text) FROM pg_roles p WHERE p.rolname !~ '^pg_')) || '"?',
				'Create it, or name another.');
	END IF;
	IF new IS DISTINCT FROM old AND NOT pg_has_role(cs_internal.caller(), r.oid, 'MEMBER') THEN
		RAISE EXCEPTION 'job "%": must be a member of role "%"', n.name, n.run_as USING ERRCODE = 'insufficient_privilege',
			DETAIL = 'The command runs as that role.',
			HINT = format('Ask for: GRANT %I TO %I.', n.run_as, cs_internal.caller());
	END IF;
	IF r.rolsuper AND NOT current_setting('cs_ext.allow_superuser_sql')::boolean THEN
		RAISE EXCEPTION 'job "%": role "%" is a superuser', n.name, n.run_as USING ERRCODE = 'insufficient_privilege',
			HINT = 'Name an ordinary role, or set cs_ext.allow_superuser_sql.';
	END IF;
	IF NOT r.rolcanlogin THEN
		RAISE EXCEPTION 'job "%": role "%" may not log in', n.name, n.run_as USING ERRCODE = 'invalid_parameter_value',
			DETAIL = 'The command runs in a process that logs in as that role.',
			HINT = format('Run ALTER ROLE %I LOGIN (without a password nobody else can use it), or name another role.', n.run_as);
	END IF;
	IF new IS DISTINCT FROM old THEN
		INSERT INTO cs_internal.job_writer AS w (job, writer) VALUES (n.name, cs_internal.caller())
		ON CONFLICT (job) DO UPDATE SET writer = EXCLUDED.writer WHERE w.writer <> EXCLUDED.writer;
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.check_job(jsonb, jsonb) IS 'Refuses what cs.job must not hold; called by the definition trigger.';

CREATE TRIGGER definition AFTER INSERT OR UPDATE OR DELETE ON cs.job
	FOR EACH ROW EXECUTE FUNCTION cs_internal.definition_trigger();

-- ---- what the worker calls -------------------------------------------------

CREATE FUNCTION cs_internal.job_sync() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM cs_internal.job_state s WHERE NOT EXISTS (SELECT FROM cs.job j WHERE j.name = s.job);
	INSERT INTO cs_internal.job_state AS s (job, schedule, anchor)
	SELECT j.name, concat_ws('|', j.every, j.at, j.on_day, coalesce(j.time_zone, p.time_zone), j.enabled), clock_timestamp()
	FROM cs.job j CROSS JOIN cs.policy p
	WHERE NOT EXISTS (SELECT FROM cs_internal.job_state o WHERE o.job = j.name
		AND o.schedule = concat_ws('|', j.every, j.at, j.on_day, coalesce(j.time_zone, p.time_zone), j.enabled))
	ON CONFLICT (job) DO UPDATE SET schedule = EXCLUDED.schedule, anchor = EXCLUDED.anchor, last_slot = NULL,
		attempt = 0, not_before = NULL, retry_at = NULL, next_run_at = NULL
	-- somebody else has done it since the statement began, and asked for a run
	WHERE s.schedule <> EXCLUDED.schedule;
END $$;
COMMENT ON FUNCTION cs_internal.job_sync() IS
'Makes job_state agree with cs.job: new and changed schedules start their grid now.';

CREATE FUNCTION cs_internal.job_begin(job text, slot timestamptz, attempt integer, pid integer) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	run bigint;
BEGIN
	INSERT INTO cs_internal.job_run (job, status, scheduled_at, started_at, pid, attempt, run_as)
	VALUES ($1, 'started', $2, clock_timestamp(), $4, $3, (SELECT j.run_as FROM cs.job j WHERE j.name = $1)) RETURNING id INTO run;
	UPDATE cs_internal.job_state s SET last_slot = coalesce($2, s.last_slot), attempt = $3, run_id = run,
		retry_at = NULL, not_before = NULL, next_run_at = NULL WHERE s.job = $1;
	RETURN run;
END $$;
COMMENT ON FUNCTION cs_internal.job_begin(text, timestamptz, integer, integer) IS
'Writes the mark "started" of a run, which counts as a crash until job_end.';

CREATE FUNCTION cs_internal.job_trim(job text) RETURNS void
LANGUAGE sql AS $$
	DELETE FROM cs_internal.job_run r WHERE r.id IN (
		SELECT o.id FROM cs_internal.job_run o WHERE o.job = $1 AND o.status <> 'started'
			AND (o.started_at < clock_timestamp() - interval '90 days' OR o.started_at < (
				SELECT k.started_at FROM cs_internal.job_run k WHERE k.job = $1
				ORDER BY k.started_at DESC OFFSET 999 LIMIT 1))
		ORDER BY o.started_at LIMIT 100)
$$;
COMMENT ON FUNCTION cs_internal.job_trim(text) IS
'Keeps the history of a job bounded, a few rows at a time: its last thousand runs, of the last ninety days.';

CREATE FUNCTION cs_internal.job_end(run bigint, status text, error text, retry_at timestamptz, not_before timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	name text;
BEGIN
	UPDATE cs_internal.job_run r SET status = $2, error = $3,
		ended_at = CASE WHEN $2 <> 'crashed' THEN clock_timestamp() END
	WHERE r.id = run AND r.status = 'started' RETURNING r.job INTO name;
	UPDATE cs_internal.job_state s SET run_id = NULL, retry_at = $4, not_before = $5,
		failures = CASE WHEN $2 = 'succeeded' THEN 0 WHEN $2 = 'cancelled' THEN s.failures ELSE s.failures + 1 END
	WHERE s.run_id = run;
	PERFORM cs_internal.job_trim(name);
END $$;
COMMENT ON FUNCTION cs_internal.job_end(bigint, text, text, timestamptz, timestamptz) IS
'Writes how a run ended, and keeps the history of the job bounded.';

CREATE FUNCTION cs_internal.job_skip(job text, slot timestamptz, why text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	-- Slots skipped in a row, for the same reason, are one row.
	UPDATE cs_internal.job_run r SET runs = r.runs + 1, scheduled_at = $2, ended_at = clock_timestamp()
	WHERE r.status = 'skipped' AND r.error = why
		AND r.id = (SELECT max(o.id) FROM cs_internal.job_run o WHERE o.job = $1 AND o.status <> 'started');
	IF NOT FOUND THEN
		INSERT INTO cs_internal.job_run (job, status, scheduled_at, started_at, ended_at, run_as, error)
		VALUES ($1, 'skipped', $2, clock_timestamp(), clock_timestamp(), (SELECT j.run_as FROM cs.job j WHERE j.name = $1), why);
		PERFORM cs_internal.job_trim($1);
	END IF;
	UPDATE cs_internal.job_state s SET last_slot = $2 WHERE s.job = $1;
END $$;
COMMENT ON FUNCTION cs_internal.job_skip(text, timestamptz, text) IS 'Records a slot that was not run, and why.';

CREATE FUNCTION cs_internal.note_refresh(started timestamptz, pid integer, error text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	IF error IS NOT NULL THEN
		INSERT INTO cs_internal.job_run (job, status, scheduled_at, started_at, ended_at, pid, error)
		VALUES ('refresh', 'failed', NULL, started, clock_timestamp(), $2, $3);
		RETURN;
	END IF;
	UPDATE cs_internal.job_run r SET runs = r.runs + 1, ended_at = clock_timestamp()
	WHERE r.job = 'refresh' AND r.status = 'succeeded' AND r.scheduled_at = date_trunc('minute', started)
		AND r.started_at >= date_trunc('minute', started);
	IF NOT FOUND THEN
		INSERT INTO cs_internal.job_run (job, status, scheduled_at, started_at, ended_at, pid)
		VALUES ('refresh', 'succeeded', date_trunc('minute', started), started, clock_timestamp(), $2);
		-- Two days of them are kept.
		DELETE FROM cs_internal.job_run r WHERE r.id IN (
			SELECT o.id FROM cs_internal.job_run o WHERE o.job = 'refresh' AND o.status IN ('succeeded', 'failed')
				AND o.started_at < clock_timestamp() - interval '2 days'
			ORDER BY o.started_at LIMIT 100);
		-- Of jobs that are gone nobody else takes care.
		DELETE FROM cs_internal.job_run r WHERE r.id IN (
			SELECT o.id FROM cs_internal.job_run o WHERE o.status <> 'started'
				AND o.started_at < clock_timestamp() - interval '90 days'
			ORDER BY o.id LIMIT 100);
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.note_refresh(timestamptz, integer, text) IS
'Counts a refresh of the worker in the row of its minute; a failed one has a row of its own.';

CREATE FUNCTION cs_internal.retention() RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	zone text := (SELECT p.time_zone FROM cs.policy p);
	day_bound timestamptz := date_trunc('day', cs_internal.now(), zone) - interval '92 days';
	month_bound timestamptz := date_trunc('day', cs_internal.now(), zone) - interval '730 days';
	n bigint;
	total bigint := 0;
BEGIN
	DELETE FROM cs_internal.job_run r WHERE r.status <> 'started' AND r.started_at < clock_timestamp() - interval '90 days';
	GET DIAGNOSTICS n = ROW_COUNT;
	total := total + n + cs_internal.outbox_retention();
	-- Metric values: every day for 92 days, Mondays for two years, then the first of each month.
	DELETE FROM cs_internal.metric_history h
	WHERE h.as_of < day_bound
		AND extract(day FROM h.as_of AT TIME ZONE zone) <> 1
		AND (h.as_of < month_bound OR extract(isodow FROM h.as_of AT TIME ZONE zone) <> 1);
	GET DIAGNOSTICS n = ROW_COUNT;
	total := total + n;
	-- Scores likewise; a row that began another band stays for ever.
	DELETE FROM cs_internal.health_history h USING (
		SELECT o.customer_id, o.as_of, o.basis,
			o.band IS NOT DISTINCT FROM lag(o.band) OVER (PARTITION BY o.customer_id, o.basis ORDER BY o.as_of) AS same
		FROM cs_internal.health_history o) p
	WHERE p.customer_id = h.customer_id AND p.as_of = h.as_of AND p.basis = h.basis AND p.same
		AND h.as_of < day_bound
		AND extract(day FROM h.as_of AT TIME ZONE zone) <> 1
		AND (h.as_of < month_bound OR extract(isodow FROM h.as_of AT TIME ZONE zone) <> 1);
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN total + n;
END $$;
COMMENT ON FUNCTION cs_internal.retention() IS
'What a job of kind retention does: thins run and metric history by age. Returns the rows removed.';

-- ---- for people --------------------------------------------------------------

CREATE FUNCTION cs_internal.must_run_jobs(name text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	role text := (SELECT p.run_as FROM cs.policy p);
BEGIN
	IF role IS NULL THEN
		RAISE EXCEPTION 'cs_ext is not set up in this database' USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Run SELECT cs.setup(...).';
	END IF;
	IF NOT EXISTS (SELECT FROM cs.job j WHERE j.name = $1) THEN
		RAISE EXCEPTION 'unknown job "%"', $1 USING ERRCODE = 'undefined_object',
			HINT = coalesce('Did you mean "' || cs_internal.nearest($1, (SELECT array_agg(j.name) FROM cs.job j)) || '"?',
				'Jobs stand in cs.job.');
	END IF;
	IF to_regrole(quote_ident(role)) IS NOT NULL AND NOT pg_has_role(cs_internal.caller(), role, 'MEMBER') THEN
		RAISE EXCEPTION 'must be a member of role "%" to act on jobs', role USING ERRCODE = 'insufficient_privilege',
			HINT = format('Ask for: GRANT %I TO %I.', role, cs_internal.caller());
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.must_run_jobs(text) IS 'Raises unless the job exists and the caller may act on jobs.';

CREATE FUNCTION cs_internal.snapshot_now() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	as_of timestamptz := date_trunc('day', cs_internal.now(), (SELECT p.time_zone FROM cs.policy p));
BEGIN
	PERFORM cs_internal.take_snapshot(as_of);
END $$;
COMMENT ON FUNCTION cs_internal.snapshot_now() IS
'What a job of kind snapshot does: keeps metrics and health as of the last local midnight.';

CREATE FUNCTION cs_internal.check_now() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
	first text;
BEGIN
	SELECT count(*), (array_agg(concat_ws(' ', c.invariant, c.period, c.customer_id) || format(': expected %s, got %s', c.expected, c.got)))[1]
	INTO n, first FROM cs_internal."check"(NULL, NULL) c;
	IF n > 0 THEN
		RAISE EXCEPTION '% violations, e.g. %', n, first USING ERRCODE = 'data_corrupted',
			HINT = 'SELECT * FROM cs.check() shows all of them; CALL cs.rebuild() makes derived state anew.';
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.check_now() IS
'What a job of kind check does: raises when cs.check() finds anything.';

CREATE FUNCTION cs_internal.run_job(name text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	k text;
	run bigint;
BEGIN
	PERFORM cs_internal.must_run_jobs($1);
	PERFORM cs_internal.job_sync();
	IF cs_internal.wake_scheduler() THEN
		UPDATE cs_internal.job_state s SET retry_at = clock_timestamp(), not_before = NULL, attempt = 0 WHERE s.job = $1;
		RETURN 'queued';
	END IF;
	SELECT j.kind INTO k FROM cs.job j WHERE j.name = $1;
	IF k NOT IN ('snapshot', 'retention', 'check') THEN
		RAISE EXCEPTION 'job "%" of kind % needs the scheduler, which does not run', $1, k
			USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = CASE k WHEN 'refresh' THEN 'Use CALL cs.refresh() here, or preload cs_ext and set cs_ext.scheduler on.'
				ELSE 'Run the command itself, or preload cs_ext and set cs_ext.scheduler on.' END;
	END IF;
	run := cs_internal.job_begin($1, NULL, 1, pg_backend_pid());
	IF k = 'snapshot' THEN
		PERFORM cs_internal.snapshot_now();
	ELSIF k = 'check' THEN
		PERFORM cs_internal.check_now();
	ELSE
		PERFORM cs_internal.retention();
	END IF;
	PERFORM cs_internal.job_end(run, 'succeeded', NULL, NULL, NULL);
	RETURN 'done';
END $$;
COMMENT ON FUNCTION cs_internal.run_job(text) IS 'See cs.run_job.';

CREATE FUNCTION cs.run_job(name text) RETURNS text LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.run_job(text) IS
'Runs a job once beside its schedule, also a paused one. Returns queued: the scheduler runs it as soon as this transaction has committed; or, where no scheduler runs, done: kinds snapshot, retention and check ran in this transaction (refresh and sql raise 55000 then). Raises 42704 for an unknown job.';

CREATE FUNCTION cs_internal.pause_job(name text) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cs_internal.must_run_jobs($1);
	UPDATE cs.job j SET enabled = false WHERE j.name = $1 AND j.enabled;
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION cs_internal.pause_job(text) IS 'See cs.pause_job.';

CREATE FUNCTION cs.pause_job(name text) RETURNS boolean LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.pause_job(text) IS
'Sets enabled of a job to false; a run under way goes on. True when that was a change. Raises 42704 for an unknown job.';

CREATE FUNCTION cs_internal.resume_job(name text) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cs_internal.must_run_jobs($1);
	UPDATE cs.job j SET enabled = true WHERE j.name = $1 AND NOT j.enabled;
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION cs_internal.resume_job(text) IS 'See cs.resume_job.';

CREATE FUNCTION cs.resume_job(name text) RETURNS boolean LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.resume_job(text) IS
'Sets enabled of a job to true; its schedule starts anew, nothing is made up for. True when that was a change. Raises 42704 for an unknown job.';

CREATE FUNCTION cs_internal.signal_run(run bigint) RETURNS boolean
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_signal_run_sql';
COMMENT ON FUNCTION cs_internal.signal_run(bigint) IS
'Asks the process that holds a run of this database to cancel it; false: none does.';

CREATE FUNCTION cs_internal.cancel_run(run bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
	name text := (SELECT r.job FROM cs_internal.job_run r WHERE r.id = run);
	role text := (SELECT p.run_as FROM cs.policy p);
BEGIN
	IF to_regrole(quote_ident(role)) IS NOT NULL AND NOT pg_has_role(cs_internal.caller(), role, 'MEMBER') THEN
		RAISE EXCEPTION 'must be a member of role "%" to act on jobs', role USING ERRCODE = 'insufficient_privilege',
			HINT = format('Ask for: GRANT %I TO %I.', role, cs_internal.caller());
	END IF;
	IF name IS NULL THEN
		RAISE EXCEPTION 'unknown run %', run USING ERRCODE = 'undefined_object',
			HINT = 'Runs stand in cs.job_run; what runs now has status running.';
	END IF;
	RETURN cs_internal.signal_run(run);
END $$;
COMMENT ON FUNCTION cs_internal.cancel_run(bigint) IS 'See cs.cancel_run.';

CREATE FUNCTION cs.cancel_run(run bigint) RETURNS boolean LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.cancel_run(bigint) IS
'Asks a run (id of cs.job_run) to stop; it ends as cancelled and is not tried again before its next slot. True when a process was asked, false when the run has ended. Raises 42704 for an unknown run.';

CREATE FUNCTION cs_internal.workers(OUT pid integer, OUT process text, OUT database text, OUT run_as text,
	OUT since timestamptz, OUT activity text, OUT job text, OUT next_due timestamptz, OUT failures integer,
	OUT message text) RETURNS SETOF record
LANGUAGE sql AS $$
	SELECT w.pid, w.process, d.datname::text,
		coalesce(a.rolname::text, CASE WHEN w.process = 'worker' AND d.datname = current_database() THEN (SELECT p.run_as FROM cs.policy p) END),
		w.since, CASE WHEN v.may THEN w.activity END, CASE WHEN v.may THEN r.job END,
		CASE WHEN w.process = 'worker' AND w.pid IS NULL THEN
			greatest(CASE WHEN w.woken THEN least(w.next_due, clock_timestamp()) ELSE w.next_due END, w.not_before) END,
		w.failures, CASE WHEN v.may THEN w.message END
	FROM cs_internal.worker_slots() w
		LEFT JOIN pg_database d ON d.oid = w.database
		-- an error may quote data: of other databases it is for those who see all of pg_stat_activity
		CROSS JOIN LATERAL (SELECT d.oid IS NULL OR d.datname = current_database()
			OR pg_has_role(cs_internal.caller(), 'pg_read_all_stats', 'USAGE')) v(may)
		LEFT JOIN pg_roles a ON a.oid = w.role
		LEFT JOIN cs_internal.job_run r ON r.id = w.run_id AND d.datname = current_database()
$$;
COMMENT ON FUNCTION cs_internal.workers() IS 'See cs.workers.';

CREATE FUNCTION cs.workers(OUT pid integer, OUT process text, OUT database text, OUT run_as text,
	OUT since timestamptz, OUT activity text, OUT job text, OUT next_due timestamptz, OUT failures integer,
	OUT message text) RETURNS SETOF record LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.workers() IS
'The processes of the scheduler, of the whole server: the launcher, a row for each database it serves (pid NULL while no worker is there) and one for each job of kind sql that runs. run_as: the role that its SQL runs as, of workers that of policy.run_as of this database; since: of the process; activity: what it does; job: the run it is in, of this database; next_due: when a worker is started at the latest; failures in a row; message: last error or why nothing is served. Activity and message of other databases are NULL for who has not the rights of pg_read_all_stats. No rows where cs_ext is not preloaded.';

CREATE VIEW cs.job_run WITH (security_barrier) AS
SELECT r.id, r.job,
	CASE WHEN r.status <> 'started' THEN r.status
		WHEN l.id IS NOT NULL THEN 'running' ELSE 'crashed' END AS status,
	r.scheduled_at, r.started_at, r.ended_at, r.attempt, r.runs, r.run_as, r.error
FROM cs_internal.job_run r LEFT JOIN cs.live_runs() AS l(id) ON l.id = r.id
WHERE r.run_as IS NULL OR pg_catalog.pg_has_role(pg_catalog.to_regrole(pg_catalog.quote_ident(r.run_as)), 'USAGE')
	OR (SELECT pg_catalog.pg_has_role(pg_catalog.to_regrole(pg_catalog.quote_ident(p.run_as)), 'USAGE') FROM cs.policy p)
	OR (SELECT u.rolsuper FROM pg_catalog.pg_roles u WHERE u.rolname OPERATOR(pg_catalog.=) CURRENT_USER);
COMMENT ON VIEW cs.job_run IS 'Runs of jobs, and the refreshes of the worker as job refresh, summed per minute. Bounded: a thousand and ninety days a job, two days of refreshes. Runs of kind sql are seen by members of their run_as and of policy.run_as.';
COMMENT ON COLUMN cs.job_run.id IS 'Number of the run.';
COMMENT ON COLUMN cs.job_run.job IS 'Name of the job; refresh for the worker''s own refreshes.';
COMMENT ON COLUMN cs.job_run.status IS 'running, succeeded, failed, crashed (began and left no end), cancelled, skipped (missed, or the run before was still active).';
COMMENT ON COLUMN cs.job_run.scheduled_at IS 'The slot that it ran for; NULL: beside the schedule.';
COMMENT ON COLUMN cs.job_run.started_at IS 'When it began; of summed refreshes the first.';
COMMENT ON COLUMN cs.job_run.ended_at IS 'When it ended; of summed refreshes the last. NULL while it runs and after a crash.';
COMMENT ON COLUMN cs.job_run.attempt IS 'Counts the tries for this slot, from 1.';
COMMENT ON COLUMN cs.job_run.runs IS 'How many refreshes, or slots skipped in a row, this row sums up; else 1.';
COMMENT ON COLUMN cs.job_run.run_as IS 'Kind sql: the role that it ran as; else NULL, for policy.run_as.';
COMMENT ON COLUMN cs.job_run.error IS 'What went wrong or why it was skipped; NULL when nothing did.';

CREATE VIEW cs.job_status WITH (security_barrier) AS
SELECT j.name AS job, j.kind, j.enabled, coalesce(j.run_as, p.run_as) AS run_as, r.status AS last_status,
	r.id AS last_run, r.started_at AS last_started_at, r.ended_at AS last_ended_at,
	s.next_run_at, coalesce(s.failures, 0) AS failures,
	CASE WHEN r.status IN ('failed', 'crashed', 'cancelled') THEN coalesce(r.error, r.status) END AS error,
	coalesce(k.skipped, 0)::bigint AS skipped, k.why AS skipped_why,
	CASE
		WHEN r.status = 'running' THEN pg_catalog.format('wait: it runs; SELECT cs.cancel_run(%s) to stop it', r.id)
		WHEN h.reason IS NOT NULL THEN 'held since a restore: SELECT cs.release_hold()'
		WHEN s.job IS NULL THEN 'nothing has looked at this job yet: preload cs_ext, set cs_ext.scheduler on, or use cs.run_job()'
		WHEN s.not_before > pg_catalog.clock_timestamp() THEN 'crashed: rests, then runs again; cs.pause_job() to prevent that'
		WHEN s.failures > 0 AND s.retry_at IS NOT NULL THEN 'failed: is tried again; cs.run_job() to do so now, cs.pause_job() to prevent it'
		WHEN s.failures > 0 THEN 'failed: put right what error says, then cs.run_job(), or wait for the next slot'
		WHEN g.job IS NOT NULL AND (s.retry_at <= pg_catalog.clock_timestamp() OR s.next_run_at <= pg_catalog.clock_timestamp())
			THEN pg_catalog.format('wait: job "%s" of its concurrency_group runs', g.job)
		WHEN NOT j.enabled THEN 'paused: cs.resume_job() to go on'
		WHEN j.every IS NULL THEN 'has no schedule: cs.run_job()'
		ELSE 'nothing' END AS what_to_do,
	coalesce(r.ended_at, r.started_at) AS data_through_at,
	pg_catalog.statement_timestamp() AS computed_at
FROM cs.job j
	CROSS JOIN cs.policy p
	LEFT JOIN cs_internal.job_state s ON s.job = j.name
	LEFT JOIN cs_internal.hold h ON true
	LEFT JOIN LATERAL (SELECT * FROM cs.job_run o WHERE o.job = j.name AND o.status <> 'skipped'
		ORDER BY o.started_at DESC, o.id DESC LIMIT 1) r ON true
	LEFT JOIN LATERAL (SELECT sum(o.runs) AS skipped, (array_agg(o.error ORDER BY o.id DESC))[1] AS why FROM cs_internal.job_run o
		WHERE o.job = j.name AND o.status = 'skipped' AND o.started_at > pg_catalog.statement_timestamp() - interval '1 day') k ON true
	LEFT JOIN LATERAL (SELECT o.name AS job FROM cs.job o JOIN cs_internal.job_state t ON t.job = o.name
		WHERE o.concurrency_group = j.concurrency_group AND o.name <> j.name AND t.run_id IS NOT NULL LIMIT 1) g ON true
WHERE j.run_as IS NULL OR pg_catalog.pg_has_role(pg_catalog.to_regrole(pg_catalog.quote_ident(j.run_as)), 'USAGE')
	OR pg_catalog.pg_has_role(pg_catalog.to_regrole(pg_catalog.quote_ident(p.run_as)), 'USAGE')
	OR (SELECT u.rolsuper FROM pg_catalog.pg_roles u WHERE u.rolname OPERATOR(pg_catalog.=) CURRENT_USER);
COMMENT ON VIEW cs.job_status IS 'Each job: as whom it runs, how its last run went, when the next is, and what to do. Jobs of kind sql are seen by members of their run_as and of policy.run_as.';
COMMENT ON COLUMN cs.job_status.job IS 'Name of the job.';
COMMENT ON COLUMN cs.job_status.kind IS 'Kind of the job.';
COMMENT ON COLUMN cs.job_status.enabled IS 'Whether it runs by schedule.';
COMMENT ON COLUMN cs.job_status.run_as IS 'The role that it runs as: of kind sql its own, else policy.run_as (for the SQL of definitions).';
COMMENT ON COLUMN cs.job_status.last_status IS 'Status of the last run that was not skipped, as in cs.job_run; NULL: none yet.';
COMMENT ON COLUMN cs.job_status.last_run IS 'Id of that run in cs.job_run, for cs.cancel_run().';
COMMENT ON COLUMN cs.job_status.last_started_at IS 'When that run began.';
COMMENT ON COLUMN cs.job_status.last_ended_at IS 'When that run ended; NULL while it runs and after a crash.';
COMMENT ON COLUMN cs.job_status.next_run_at IS 'When it runs next, as the worker saw it last; NULL: not planned.';
COMMENT ON COLUMN cs.job_status.failures IS 'Failed and crashed runs in a row.';
COMMENT ON COLUMN cs.job_status.error IS 'Error of the last run; NULL when it went well.';
COMMENT ON COLUMN cs.job_status.skipped IS 'Slots that were not run in the last 24 hours (overlap or missed).';
COMMENT ON COLUMN cs.job_status.skipped_why IS 'Why the last of these was not run; NULL: there is none.';
COMMENT ON COLUMN cs.job_status.what_to_do IS 'What happens next and what to do, in words.';
COMMENT ON COLUMN cs.job_status.data_through_at IS 'End (or start, while it runs) of the last run.';
COMMENT ON COLUMN cs.job_status.computed_at IS 'When this row was read.';
