
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

-- Not dumped: what a server did. "started" is committed before a run and counts as crashed until the end is written.
CREATE TABLE cs_internal.job_run (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	job text NOT NULL,
	status text NOT NULL,                -- started, succeeded, failed, cancelled, skipped
	scheduled_at timestamptz,
	started_at timestamptz NOT NULL,
	ended_at timestamptz,
	pid integer,
	attempt integer NOT NULL DEFAULT 1,
	runs bigint NOT NULL DEFAULT 1,      -- refreshes are summed per minute
	error text
);
CREATE INDEX job_run_job ON cs_internal.job_run (job, started_at);
