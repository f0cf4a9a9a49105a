-- Schedules are pure arithmetic: the slots of a grid after an instant.
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, MDY';
CREATE FUNCTION slots(every interval, at time, on_day integer, zone text, anchor timestamptz, n integer)
RETURNS SETOF timestamptz LANGUAGE sql AS $$
	WITH RECURSIVE s(t, k) AS (
		SELECT cs_internal.next_run(every, at, on_day, zone, anchor, anchor), 1
		UNION ALL
		SELECT cs_internal.next_run(every, at, on_day, zone, anchor, t), k + 1 FROM s WHERE k < n)
	SELECT t FROM s ORDER BY k
$$;

-- Elapsed time: from the anchor, without drift.
SELECT slots('90 seconds', NULL, NULL, 'UTC', '2026-01-01 00:00:10', 3);
SELECT cs_internal.next_run('90 seconds', NULL, NULL, 'UTC', '2026-01-01 00:00:10', '2026-01-01 00:05:00');
-- Days at a local time; the first slot is the next one.
SELECT slots('1 day', '02:15', NULL, 'Asia/Tokyo', '2026-01-01 12:00', 2);
SELECT slots('1 week', '02:15', NULL, 'UTC', '2026-01-01 12:00', 2);
-- Without a time that of the anchor, a whole step away.
SELECT slots('2 days', NULL, NULL, 'Europe/Berlin', '2026-03-27 12:00', 3);
-- A local time that the clocks skip is read with the offset before: once, at 03:30.
SELECT slots('1 day', '02:30', NULL, 'Europe/Berlin', '2026-03-28 00:00', 3);
-- A local time that comes twice: once, the second one.
SELECT slots('1 day', '02:30', NULL, 'Europe/Berlin', '2026-10-24 00:00', 3);
-- 24 hours are not a day.
SELECT slots('24 hours', NULL, NULL, 'Europe/Berlin', '2026-10-24 00:00', 3);
-- Months: the last day, a day that February lacks, a day of the anchor.
SELECT slots('1 month', '06:00', 31, 'UTC', '2026-01-31 12:00', 3);
SELECT slots('1 month', '06:00', 30, 'UTC', '2028-01-30 12:00', 3);
SELECT slots('3 months', NULL, NULL, 'UTC', '2026-08-31 06:00', 4);
SELECT slots('1 year', '00:00', 29, 'UTC', '2028-02-01', 2);
-- The latest slot: none before the first.
SELECT cs_internal.latest_run('1 day', '02:15', NULL, 'UTC', '2026-01-01 02:15', '2026-01-02 02:14:59');
SELECT cs_internal.latest_run('1 day', '02:15', NULL, 'UTC', '2026-01-01 02:15', '2026-01-02 02:15');
SELECT cs_internal.latest_run('1 day', '02:15', NULL, 'UTC', '2026-01-01 02:15', '2026-02-10 01:00');

-- For every schedule and instant: latest <= instant < next, next follows latest,
-- and next of the instant just before a slot is that slot.
SELECT count(*) AS tried, count(*) FILTER (WHERE NOT ok) AS wrong
FROM (
	SELECT n > t AND (l IS NULL OR l <= t) AND (l IS NULL OR cs_internal.next_run(every, at, on_day, zone, a, l) = n)
		AND cs_internal.next_run(every, at, on_day, zone, a, n - interval '1 microsecond') = n
		AND cs_internal.latest_run(every, at, on_day, zone, a, n) = n AS ok
	FROM (VALUES (interval '7 minutes', NULL::time, NULL::integer), ('1 day', NULL, NULL), ('1 day', '02:30', NULL),
			('1 day', '00:00', NULL), ('1 day', '23:59:59.5', NULL), ('3 days', '03:00', NULL), ('2 weeks', NULL, NULL),
			('1 month', '02:30', 31), ('1 month', NULL, NULL), ('5 months', '01:00', 29), ('1 year', NULL, 1)) s(every, at, on_day)
		CROSS JOIN (VALUES ('UTC'), ('Europe/Berlin'), ('America/New_York'), ('Australia/Lord_Howe'), ('America/Santiago')) z(zone)
		CROSS JOIN generate_series(timestamptz '2026-01-31 23:30', '2027-01-31', '67 hours 13 minutes') t
		CROSS JOIN (VALUES (timestamptz '2026-01-31 02:30')) anchors(a)
		CROSS JOIN LATERAL (SELECT cs_internal.next_run(every, at, on_day, zone, a, t), cs_internal.latest_run(every, at, on_day, zone, a, t)) r(n, l)
) x;
-- One slot a local day, over a year and both changes of the clocks.
SELECT count(*), count(DISTINCT (t AT TIME ZONE 'Europe/Berlin')::date)
FROM slots('1 day', '02:30', NULL, 'Europe/Berlin', '2026-01-01', 365) t;

-- What cs.job refuses, and with which hint.
\set VERBOSITY default
CREATE ROLE regress_cs_job;
INSERT INTO cs.policy (run_as, time_zone, currency) VALUES ('regress_cs_job', 'UTC', 'EUR');
\set VERBOSITY verbose
\set SHOW_CONTEXT never
CREATE FUNCTION refused(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text; message text; hint text;
BEGIN
	EXECUTE statement;
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RETURN format(E'%s %s\n  %s', state, message, hint);
END $$;
\pset format unaligned
\pset tuples_only on
SELECT refused('INSERT INTO cs.job (name, kind) VALUES ('' '', ''refresh'')');
SELECT refused('INSERT INTO cs.job (name, kind) VALUES (''a'', ''snapshots'')');
SELECT refused('INSERT INTO cs.job (name, kind, missed) VALUES (''a'', ''refresh'', ''skipped'')');
SELECT refused('INSERT INTO cs.job (name, kind, concurrency_group) VALUES (''a'', ''refresh'', '' '')');
SELECT refused('INSERT INTO cs.job (name, kind, at) VALUES (''a'', ''refresh'', ''02:15'')');
SELECT refused('INSERT INTO cs.job (name, kind, every) VALUES (''a'', ''refresh'', ''0'')');
SELECT refused('INSERT INTO cs.job (name, kind, every) VALUES (''a'', ''refresh'', ''-1 day'')');
SELECT refused('INSERT INTO cs.job (name, kind, every) VALUES (''a'', ''refresh'', ''0.5 seconds'')');
SELECT refused('INSERT INTO cs.job (name, kind, every) VALUES (''a'', ''refresh'', ''1 day 2 hours'')');
SELECT refused('INSERT INTO cs.job (name, kind, every, at) VALUES (''a'', ''refresh'', ''24 hours'', ''02:15'')');
SELECT refused('INSERT INTO cs.job (name, kind, every, on_day) VALUES (''a'', ''refresh'', ''1 day'', 1)');
SELECT refused('INSERT INTO cs.job (name, kind, every, on_day) VALUES (''a'', ''refresh'', ''1 month'', 32)');
SELECT refused('INSERT INTO cs.job (name, kind, every, on_day) VALUES (''a'', ''refresh'', ''1 month'', 0)');
SELECT refused('INSERT INTO cs.job (name, kind, every, time_zone) VALUES (''a'', ''refresh'', ''1 day'', ''Europe/Berlim'')');
SELECT refused('INSERT INTO cs.job (name, kind, time_zone) VALUES (''a'', ''refresh'', ''Europe/Berlim'')');
SELECT refused('INSERT INTO cs.job (name, kind, max_retries) VALUES (''a'', ''refresh'', -1)');
SELECT refused('INSERT INTO cs.job (name, kind, max_runtime) VALUES (''a'', ''refresh'', ''0'')');
SELECT refused('INSERT INTO cs.job (name, kind, command) VALUES (''a'', ''refresh'', ''SELECT 1'')');
SELECT refused('INSERT INTO cs.job (name, kind, run_as) VALUES (''a'', ''sql'', ''regress_cs_job'')');
SELECT refused('INSERT INTO cs.job (name, kind, command) VALUES (''a'', ''sql'', ''SELECT 1'')');
SELECT refused('INSERT INTO cs.job (name, kind, command, run_as) VALUES (''a'', ''sql'', ''SELECT 1'', ''regress_cs_jub'')');
SELECT refused('INSERT INTO cs.job (name, kind, command, run_as) VALUES (''a'', ''sql'', ''SELECT 1'', ''regress_cs_job'')');
SELECT refused('SELECT cs.run_job(''nothing'')');
SELECT count(*) FROM cs.job;

-- What it takes, and what the views say before anything ran.
INSERT INTO cs.job (name, kind, every, at, on_day, time_zone) VALUES ('monthly', 'retention', '1 month', '02:15', 31, 'Asia/Tokyo');
INSERT INTO cs.job (name, kind) VALUES ('by hand', 'snapshot');
SELECT refused('SELECT cs.pause_job(''montly'')');
SELECT cs.pause_job('monthly'), cs.pause_job('monthly'), cs.resume_job('monthly'), cs.resume_job('monthly');
SELECT job, kind, enabled, last_status, failures, error FROM cs.job_status ORDER BY job;
SELECT count(*) FROM cs.job_run WHERE job <> 'refresh';

-- Retention: each day for 92 days, Mondays for two years, then firsts of the month; what began a band stays.
INSERT INTO cs_internal.metric_history (customer_id, as_of, "values", segments, computed_at)
SELECT 'c', d, '{}', '{}', d FROM generate_series(date_trunc('day', now()) - interval '1000 days', date_trunc('day', now()), '1 day') d;
INSERT INTO cs_internal.health_history (customer_id, as_of, score, band, computed_at)
SELECT 'c', as_of, 50, CASE WHEN as_of < date_trunc('day', now()) - interval '500 days' THEN 'red' ELSE 'green' END, as_of FROM cs_internal.metric_history;
SELECT cs_internal.retention() > 0;
SELECT count(*) FILTER (WHERE as_of >= date_trunc('day', now()) - interval '92 days') AS days,
	count(*) FILTER (WHERE as_of < date_trunc('day', now()) - interval '92 days' AND extract(isodow FROM as_of) <> 1 AND extract(day FROM as_of) <> 1) AS between_mondays,
	count(*) FILTER (WHERE as_of < date_trunc('day', now()) - interval '730 days' AND extract(day FROM as_of) <> 1) AS old_but_firsts
FROM cs_internal.metric_history;
SELECT count(*) - (SELECT count(*) FROM cs_internal.metric_history WHERE customer_id = 'c') BETWEEN 0 AND 2 AS as_many_and_the_bands,
	min(as_of) FILTER (WHERE band = 'green') = date_trunc('day', now()) - interval '500 days' AS green_begins
FROM cs_internal.health_history;

DELETE FROM cs.job;
DROP FUNCTION slots, refused;
DROP EXTENSION cs_ext;
DROP ROLE regress_cs_job;
CREATE EXTENSION cs_ext;
