-- A year of schedules, driven by a clock of the test's own: what the worker
-- decides at each instant (cs_internal.job_plan, cs_internal.retry_plan) is asked
-- with a virtual "now" that jumps to the next instant at which anything is due.
-- Europe/Berlin, from before one change of the clocks to after the other.
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, MDY';
SET IntervalStyle = 'postgres';
CREATE TABLE vjob (name text PRIMARY KEY, every interval, at time, on_day integer, zone text, skip_missed boolean DEFAULT false,
	grp text, takes interval DEFAULT '1 minute', fails text DEFAULT 'never', max_retries integer DEFAULT 3, retry_after interval DEFAULT '1 minute',
	-- job_state
	last_slot timestamptz, attempt integer DEFAULT 0, retry_at timestamptz, not_before timestamptz, running_until timestamptz, outcome text, ask timestamptz);
CREATE TABLE vrun (job text, status text, slot timestamptz, started timestamptz, ended timestamptz, attempt integer, why text);

INSERT INTO vjob (name, every, at, on_day, zone, skip_missed, grp, takes, fails, max_retries, retry_after) VALUES
	('nightly',   '1 day',      '02:30', NULL, 'Europe/Berlin',    false, NULL, '10 minutes', 'never',  3, '1 minute'),
	('tokyo',     '1 day',      '02:30', NULL, 'Asia/Tokyo',       false, NULL, '1 minute',   'never',  3, '1 minute'),
	('santiago',  '1 day',      '00:00', NULL, 'America/Santiago', false, NULL, '1 minute',   'never',  3, '1 minute'),
	('closing',   '1 month',    '03:00', 31,   'Europe/Berlin',    false, NULL, '1 hour',     'never',  3, '1 minute'),
	('hourly',    '1 hour',     NULL,    NULL, 'Europe/Berlin',    false, NULL, '5 minutes',  'never',  3, '1 minute'),
	('skipping',  '1 hour',     NULL,    NULL, 'Europe/Berlin',    true,  NULL, '5 minutes',  'never',  3, '1 minute'),
	('slow',      '1 hour',     NULL,    NULL, 'Europe/Berlin',    false, NULL, '90 minutes', 'never',  3, '1 minute'),
	('failing',   '1 day',      '05:00', NULL, 'Europe/Berlin',    false, NULL, '1 minute',   'always', 2, '10 minutes'),
	('crashing',  '1 day',      '06:00', NULL, 'Europe/Berlin',    false, NULL, '1 minute',   'crash',  1, '1 second'),
	('group one', '1 day',      '12:00', NULL, 'Europe/Berlin',    false, 'g',  '30 minutes', 'never',  3, '1 minute'),
	('group two', '1 day',      '12:00', NULL, 'Europe/Berlin',    false, 'g',  '30 minutes', 'never',  3, '1 minute');

-- The server is down for some hours on two days: nothing is asked then.
CREATE FUNCTION up(t timestamptz) RETURNS timestamptz LANGUAGE sql AS $$
	SELECT CASE WHEN t >= '2026-05-10 00:00Z' AND t < '2026-05-12 09:20Z' THEN timestamptz '2026-05-12 09:20Z' ELSE t END $$;

CREATE FUNCTION simulate(since timestamptz, until timestamptz) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	now timestamptz := since;
	jobs vjob[] := (SELECT array_agg(v ORDER BY v.name) FROM vjob v);
	j vjob;
	g vjob;
	p record;
	turns bigint := 0;
	started timestamptz[] := array_fill(NULL::timestamptz, ARRAY[cardinality(jobs)]);
	busy boolean;
	next timestamptz;
BEGIN
	LOOP
		turns := turns + 1;
		-- ends of runs; whoever waits for the group is asked then
		FOR i IN 1 .. cardinality(jobs) LOOP
			j := jobs[i];
			CONTINUE WHEN j.running_until IS NULL OR j.running_until > now;
			INSERT INTO vrun VALUES (j.name, j.outcome, j.last_slot, started[i], j.running_until, j.attempt, NULL);
			IF j.outcome <> 'succeeded' THEN
				SELECT * INTO p FROM cs_internal.retry_plan(j.every, j.at, j.on_day, j.zone, since, j.attempt, j.max_retries, j.retry_after,
					j.outcome = 'crashed', 0.5, j.running_until);
				j.retry_at := p.retry_at;
				j.not_before := p.not_before;
			END IF;
			j.running_until := NULL;
			jobs[i] := j;
			FOR k IN 1 .. cardinality(jobs) LOOP
				g := jobs[k];
				IF k = i OR g.grp = j.grp THEN
					g.ask := now;
					jobs[k] := g;
				END IF;
			END LOOP;
		END LOOP;
		next := 'infinity';
		FOR i IN 1 .. cardinality(jobs) LOOP
			j := jobs[i];
			WHILE j.ask IS NULL OR j.ask <= now LOOP
				busy := j.grp IS NOT NULL AND EXISTS (SELECT FROM unnest(jobs) x WHERE x.grp = j.grp AND x.name <> j.name AND x.running_until IS NOT NULL);
				SELECT * INTO p FROM cs_internal.job_plan(j.every, j.at, j.on_day, j.zone, since, j.skip_missed, j.last_slot, j.attempt, j.retry_at,
					j.not_before, j.running_until IS NOT NULL, busy, now);
				IF p.act = 'skip' THEN
					INSERT INTO vrun VALUES (j.name, 'skipped', p.slot, now, now, NULL, p.why);
					j.last_slot := p.slot;
				ELSIF p.act = 'run' THEN
					started[i] := now;
					j.last_slot := coalesce(p.slot, j.last_slot);
					j.attempt := p.try;
					j.retry_at := NULL;
					j.not_before := NULL;
					j.running_until := now + j.takes;
					j.outcome := CASE j.fails WHEN 'always' THEN 'failed' WHEN 'crash' THEN 'crashed' ELSE 'succeeded' END;
				ELSIF p.next <= now THEN
					RAISE EXCEPTION '% asks for % at %: the worker would spin', j.name, p.next, now;
				ELSE
					j.ask := coalesce(p.next, 'infinity');
				END IF;
				jobs[i] := j;
			END LOOP;
			next := least(next, j.ask, j.running_until);
		END LOOP;
		now := up(next);
		EXIT WHEN now >= until;
	END LOOP;
	RETURN turns;
END $$;

SELECT simulate('2026-01-01 00:00Z', '2027-01-01 00:00Z') > 10000 AS many_turns;

-- Every local day once, whatever the clocks do: 02:30 does not exist on 29 March (03:30 is taken)
-- and comes twice on 25 October (the second is taken). Down from 10 to 12 May: one run for all missed slots.
SELECT job, count(*) AS runs, count(DISTINCT (slot AT TIME ZONE zone)::date) AS days, min(slot AT TIME ZONE zone), max(slot AT TIME ZONE zone)
FROM vrun JOIN vjob ON name = job WHERE job IN ('nightly', 'tokyo', 'santiago') GROUP BY job, zone ORDER BY job;
SELECT slot, slot AT TIME ZONE 'Europe/Berlin' AS local, started - slot AS late FROM vrun
WHERE job = 'nightly' AND ((slot AT TIME ZONE 'Europe/Berlin')::time <> '02:30' OR started <> slot
	OR (slot AT TIME ZONE 'Europe/Berlin')::date IN ('2026-03-29', '2026-10-25')) ORDER BY slot;
SELECT slot AT TIME ZONE 'Europe/Berlin' AS closing FROM vrun WHERE job = 'closing' ORDER BY slot;

-- Elapsed hours: none lost or doubled by the clocks; missed ones make one run, or none and a row that says so.
SELECT job, status, count(*), count(DISTINCT slot) AS slots, min(why) AS why FROM vrun WHERE job IN ('hourly', 'skipping') GROUP BY 1, 2 ORDER BY 1, 2;
-- Runs of 90 minutes each hour: every second slot is skipped, never two at a time.
SELECT status, count(*), min(why) AS why FROM vrun WHERE job = 'slow' GROUP BY 1 ORDER BY 1;
SELECT count(*) AS overlapping FROM (SELECT started, max(ended) OVER (PARTITION BY job ORDER BY started ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
	FROM vrun WHERE status <> 'skipped') x WHERE started < before;
-- A group runs one at a time; who waits runs when the other ends, and both run each day.
SELECT count(*) AS together FROM (SELECT started, max(ended) OVER (ORDER BY started ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
	FROM vrun WHERE job ~ 'group' AND status <> 'skipped') x WHERE started < before;
SELECT job, count(*), sum((started <> slot)::integer) > 100 AS waited_often, max(started - slot) AS longest_wait
FROM vrun WHERE job ~ 'group' AND slot NOT BETWEEN '2026-05-09' AND '2026-05-13' GROUP BY 1 ORDER BY 1;

-- Tried again after 10, then 20 minutes, then left until the next slot.
SELECT attempt, count(*), min(started - slot), max(started - slot) FROM vrun WHERE job = 'failing' AND slot NOT BETWEEN '2026-05-10' AND '2026-05-13' GROUP BY 1 ORDER BY 1;
-- After a crash five minutes pass, however short retry_after is.
SELECT attempt, count(*), min(started - slot) FROM vrun WHERE job = 'crashing' AND slot NOT BETWEEN '2026-05-10' AND '2026-05-13' GROUP BY 1 ORDER BY 1;

-- Retries alone: doubled up to an hour, give or take an eighth; none when the tries are used up or the next slot comes sooner.
SELECT attempt, jitter, extract(epoch FROM retry_at - timestamptz '2026-06-01 00:00Z') AS seconds, not_before IS NOT NULL AS rests
FROM generate_series(1, 8) attempt, (VALUES (0.0::float8), (1.0)) x(jitter),
	cs_internal.retry_plan('1 day', '12:00', NULL, 'UTC', '2026-01-01', attempt, 7, '1 minute', false, jitter, '2026-06-01 00:00Z') ORDER BY 1, 2;
SELECT * FROM cs_internal.retry_plan('5 minutes', NULL, NULL, 'UTC', '2026-01-01', 1, 7, '6 minutes', false, 0.5, '2026-06-01 00:00Z');
SELECT * FROM cs_internal.retry_plan('5 minutes', NULL, NULL, 'UTC', '2026-01-01 00:01', 1, 7, '1 second', true, 0.5, '2026-06-01 00:00Z');
