-- cs.usage against plain SQL over the raw rows: random events of several
-- customers with NULL users and events, negative, fractional and huge
-- quantities, empty days, a zone with daylight saving, days before 1970; and
-- hostile bytes, which must be refused or be what they say.
-- Another run with the same events: psql -v seed=N
BEGIN;
SET LOCAL client_min_messages = warning;
SELECT no_plan();
SET LOCAL TimeZone = 'America/New_York';

\ir ../lib/seed.sql

-- ---- the events -------------------------------------------------------------

CREATE TEMP TABLE raw (customer text, at timestamptz, user_id text, event text, quantity numeric, event_count bigint, day date);

-- around both changes of the clock, with whole days left empty
INSERT INTO raw
SELECT 'c' || (1 + floor(random() ^ 2 * 4)),
	timestamptz '2023-10-01' + floor(random() * 180) * interval '1 day' * (1 - floor(random() * 1.02)) + random() * interval '23 hours',
	CASE WHEN random() < 0.15 THEN NULL WHEN random() < 0.03 THEN '' ELSE 'u' || floor(random() ^ 2 * 40) END,
	(ARRAY['login', 'export', 'api', 'übung', 'a "b"', '', NULL])[1 + floor(random() * 7)],
	CASE WHEN random() < 0.4 THEN NULL WHEN random() < 0.01 THEN 1e30 * random()::numeric
		ELSE round(((random() - 0.3) * 1000)::numeric, floor(random() * 6)::int) END,
	CASE WHEN random() < 0.5 THEN NULL ELSE floor(random() * 5)::bigint END
FROM generate_series(1, 6000);
DELETE FROM raw WHERE extract(doy FROM at)::int % 7 = 3;
-- the hours that do not exist or exist twice
INSERT INTO raw
SELECT 'c1', t, 'u1', 'login', 1, NULL::bigint
FROM generate_series(timestamptz '2023-11-04 22:00', '2023-11-06 02:00', '10 minutes') t
UNION ALL
SELECT 'c1', t, 'u2', 'login', 0.25, NULL
FROM generate_series(timestamptz '2024-03-09 22:00', '2024-03-11 02:00', '10 minutes') t;
-- before 1970 and before 2000
INSERT INTO raw
SELECT 'old', timestamptz '1969-11-20' + random() * interval '70 days', 'u' || floor(random() * 10),
	(ARRAY['login', NULL])[1 + floor(random() * 2)], -random()::numeric, NULL
FROM generate_series(1, 400);
UPDATE raw SET day = at::date;
CREATE INDEX ON raw (customer, day);
ANALYZE raw;

CREATE TEMP TABLE month_value AS
SELECT customer, date_trunc('month', day)::date AS month, cs.usage_agg(day, at, user_id, event, quantity, event_count) AS usage
FROM raw GROUP BY 1, 2;
CREATE TEMP TABLE value AS SELECT customer, cs.union_agg(usage) AS usage FROM month_value GROUP BY 1;

-- ---- one content, one value -------------------------------------------------

SELECT is_empty($$
	SELECT customer FROM (SELECT customer, cs.usage_agg(day, at, user_id, event, quantity, event_count ORDER BY random()) AS usage FROM raw GROUP BY 1) w
	JOIN value v USING (customer) WHERE v.usage OPERATOR(cs.<>) w.usage
$$, 'the union of the months is the value of all rows, in any order');
SELECT is_empty($$
	SELECT customer FROM (SELECT customer, cs.union_agg(usage) AS usage FROM
		(SELECT customer, floor(random() * 9), cs.usage_agg(day, at, user_id, event, quantity, event_count) AS usage FROM raw GROUP BY 1, 2) p GROUP BY 1) w
	JOIN value v USING (customer) WHERE v.usage OPERATOR(cs.<>) w.usage
$$, 'so is the union of any parts');
SELECT is((SELECT count(*) FROM value v WHERE v.usage::text::cs.usage OPERATOR(cs.=) v.usage), (SELECT count(*) FROM value),
	'text form round-trips');

CREATE FUNCTION pg_temp.plain() RETURNS SETOF cs.usage LANGUAGE sql AS
$$ SELECT cs.usage_agg(day, at, user_id, event, quantity, event_count) FROM raw $$;
CREATE TABLE public.usage_raw AS SELECT * FROM raw;
ANALYZE public.usage_raw;
SET LOCAL min_parallel_table_scan_size = 0;
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL max_parallel_workers_per_gather = 2;
CREATE TEMP TABLE parallel_plan (line text);
DO $$
DECLARE line text;
BEGIN
	FOR line IN EXPLAIN SELECT cs.usage_agg(day, at, user_id, event, quantity, event_count) FROM public.usage_raw LOOP
		INSERT INTO parallel_plan VALUES (line);
	END LOOP;
END $$;
SELECT ok(EXISTS (SELECT FROM parallel_plan WHERE line LIKE '%Partial Aggregate%'), 'usage_agg runs in parallel');
SELECT ok((SELECT cs.usage_agg(day, at, user_id, event, quantity, event_count) FROM public.usage_raw) OPERATOR(cs.=) (SELECT * FROM pg_temp.plain()),
	'the parallel value is the serial one');
RESET min_parallel_table_scan_size;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET max_parallel_workers_per_gather;
DROP TABLE public.usage_raw;

SELECT results_eq($$
	SELECT customer, u.* FROM value, cs.unnest(usage) u ORDER BY customer, u.event COLLATE "C" NULLS FIRST, u.day
$$, $$
	SELECT customer, day, event, sum(coalesce(event_count, 1))::bigint, sum(quantity), count(DISTINCT user_id)
	FROM raw GROUP BY customer, day, event ORDER BY customer, event COLLATE "C" NULLS FIRST, day
$$, 'unnest is a grouped query over the rows');

-- ---- accessors --------------------------------------------------------------

CREATE TEMP TABLE probe AS
SELECT v.customer, v.d, v.n, v.ago, v.today, v.event, cs.usage_at(u.usage, v.d) AS usage
FROM (
	SELECT 'c' || c AS customer, d, n, ago, today, event
	FROM generate_series(1, 4) c,
		(SELECT date '2023-09-25' + (random() * 200)::int AS d FROM generate_series(1, 12) UNION ALL
		 VALUES (date '2023-11-05'), ('2023-11-06'), ('2024-03-10'), ('2024-03-11'), ('2023-10-01'), ('2025-06-01')) ds (d),
		unnest(ARRAY[1, 2, 7, 30, 31, 90, 400]) n, unnest(ARRAY[0, 1, 30]) ago, unnest(ARRAY[false, true]) today,
		(VALUES (NULL), ('login'), ('übung'), (''), ('missing')) e (event)
	WHERE random() < 0.1
	UNION ALL
	SELECT 'old', date '1969-12-01' + k * 9, n, ago, today, event
	FROM generate_series(0, 8) k, unnest(ARRAY[1, 30, 400]) n, unnest(ARRAY[0, 10]) ago, unnest(ARRAY[false, true]) today,
		(VALUES (NULL), ('login')) e (event)) v
JOIN value u USING (customer);

CREATE TEMP TABLE expected AS
SELECT p.ctid AS row, x.*, s.*
FROM probe p
CROSS JOIN LATERAL (
	SELECT coalesce(sum(coalesce(r.event_count, 1)) FILTER (WHERE p.event IS NULL OR r.event = p.event), 0)::bigint AS events,
		sum(r.quantity) FILTER (WHERE p.event IS NULL OR r.event = p.event) AS quantity,
		count(DISTINCT r.user_id) FILTER (WHERE p.event IS NULL OR r.event = p.event) AS active_users,
		count(DISTINCT r.day)::int AS active_days,
		count(DISTINCT r.event) AS distinct_events,
		count(DISTINCT (r.user_id, r.day)) FILTER (WHERE r.user_id IS NOT NULL)
			/ ((p.n + p.today::int)::float8 * nullif(count(DISTINCT r.user_id), 0)) AS stickiness
	FROM raw r
	WHERE r.customer = p.customer AND r.day >= p.d - p.ago - p.n AND r.day < p.d - p.ago + p.today::int) x
CROSS JOIN LATERAL (
	SELECT p.d - p.ago - max(r.day) AS days_since
	FROM raw r
	WHERE r.customer = p.customer AND r.day < p.d - p.ago + p.today::int AND (p.event IS NULL OR r.event = p.event)) s;

SELECT cmp_ok((SELECT count(*) FROM probe), '>', 1000::bigint, 'a thousand of windows are compared');
SELECT cmp_ok((SELECT count(*) FROM expected WHERE events > 0 AND quantity IS NOT NULL AND stickiness > 0), '>', 300::bigint,
	'of which many have something in them');

SELECT is_empty(format($$
	SELECT p.customer, p.d, p.n, p.ago, p.today, p.event, e.%1$I AS expected, %2$s AS got
	FROM probe p JOIN expected e ON e.row = p.ctid WHERE e.%1$I IS DISTINCT FROM %2$s LIMIT 5
$$, name, call), name || ' is what plain SQL says')
FROM (VALUES
	('events', 'cs.events(p.usage, p.event, p.n, ago => p.ago, today => p.today)'),
	('quantity', 'cs.quantity(p.usage, p.event, p.n, ago => p.ago, today => p.today)'),
	('active_users', 'cs.active_users(p.usage, p.n, p.event, ago => p.ago, today => p.today)'),
	('active_days', 'cs.active_days(p.usage, p.n, ago => p.ago, today => p.today)'),
	('distinct_events', 'cs.distinct_events(p.usage, p.n, ago => p.ago, today => p.today)'),
	('stickiness', 'cs.stickiness(p.usage, p.n, ago => p.ago, today => p.today)'),
	('days_since', 'cs.days_since(p.usage, p.event, ago => p.ago, today => p.today)')) f (name, call);

SELECT is_empty($$
	SELECT v.customer, d FROM value v, generate_series(timestamp '2023-09-20', '2024-04-10', '13 days') d
	WHERE cs_internal.usage_stamp(v.usage, d::date) OPERATOR(cs.<>) cs_internal.usage_stamp(
		(SELECT cs.usage_agg(day, at, user_id, event, quantity, event_count) FROM raw r WHERE r.customer = v.customer AND r.day < d::date), d::date)
$$, 'a stamped value is a function of the days before the stamp alone');

-- ---- hostile bytes ----------------------------------------------------------

CREATE TEMP TABLE bytes (v bytea);
CREATE TEMP TABLE sent (v cs.usage);
-- NULL: refused, or read as what was sent; else what happened
CREATE FUNCTION pg_temp.receive(b bytea) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	file text := current_setting('data_directory') || '/cs_usage_test.bin';
BEGIN
	DELETE FROM bytes;
	DELETE FROM sent;
	INSERT INTO bytes VALUES (b);
	EXECUTE format('COPY bytes TO %L (FORMAT binary)', file);
	EXECUTE format('COPY sent FROM %L (FORMAT binary)', file);
	IF (SELECT cs_internal.usage_send(v) FROM sent) <> b THEN
		RETURN 'read as something else';
	END IF;
	RETURN CASE WHEN (SELECT v::text::cs.usage OPERATOR(cs.=) v FROM sent) THEN 'read' ELSE 'text form differs' END;
EXCEPTION WHEN OTHERS THEN
	RETURN CASE WHEN SQLSTATE LIKE '22%' THEN 'refused' ELSE SQLSTATE || ' ' || SQLERRM END;
END $$;

SELECT is((SELECT string_agg(DISTINCT pg_temp.receive(cs_internal.usage_send(usage)), ', ') FROM value), 'read', 'binary form round-trips');
CREATE TEMP TABLE mutated AS
SELECT CASE kind
	WHEN 0 THEN set_byte(b, floor(random() * length(b))::int, floor(random() * 256)::int)
	WHEN 1 THEN substr(b, 1, floor(random() * length(b))::int)
	WHEN 2 THEN substr(b, 1, at) || decode(lpad(to_hex(floor(random() * 256)::int), 2, '0'), 'hex') || substr(b, at + 1)
	WHEN 3 THEN substr(b, 1, at) || substr(b, at + 2)
	ELSE set_byte(set_byte(b, at, 255), least(at + 1, length(b) - 1), 255) END AS b
FROM (SELECT b, floor(random() * 5)::int AS kind, floor(random() * length(b))::int AS at
	FROM (SELECT cs_internal.usage_send(cs.usage_agg(day, at, user_id, event, quantity, event_count)) AS b
		FROM (SELECT * FROM raw ORDER BY random() LIMIT 6) r) v, generate_series(1, 600)) m;
CREATE TEMP TABLE verdict AS SELECT pg_temp.receive(b) AS verdict, b FROM mutated;
SELECT is_empty($$ SELECT verdict, b FROM verdict WHERE verdict NOT IN ('read', 'refused') LIMIT 3 $$, 'changed bytes are refused or are what they say');
SELECT cmp_ok((SELECT count(*) FROM verdict WHERE verdict = 'refused'), '>', 200::bigint, 'most are refused');
SELECT is((SELECT string_agg(DISTINCT pg_temp.receive(decode(b, 'hex')), ', ') FROM (VALUES ('0101020102ff0200020102750100010001')) x (b)),
	CASE WHEN getdatabaseencoding() = 'UTF8' THEN 'refused' ELSE 'read' END, 'names are checked for their encoding');
DO $$ BEGIN EXECUTE 'COPY (SELECT) TO PROGRAM ''rm -f cs_usage_test.bin'''; END $$;

CREATE FUNCTION pg_temp.parse(t text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN CASE WHEN t::cs.usage::text::cs.usage OPERATOR(cs.=) t::cs.usage THEN 'read' ELSE 'text form differs' END;
EXCEPTION WHEN OTHERS THEN
	RETURN CASE WHEN SQLSTATE LIKE '22%' THEN 'refused' ELSE SQLSTATE || ' ' || SQLERRM END;
END $$;
SELECT is_empty($$
	SELECT verdict, t FROM (SELECT t, pg_temp.parse(t) AS verdict FROM (
		SELECT overlay(t PLACING (ARRAY['"', '[', ']', ',', '{', '9', '-', 'null', '1e9', ':', ' ', 'é'])[1 + floor(random() * 12)]
			FROM 1 + floor(random() * length(t))::int FOR floor(random() * 3)::int) AS t
		FROM (SELECT cs.usage_agg(day, at, user_id, event, quantity, event_count)::text AS t
			FROM (SELECT * FROM raw ORDER BY random() LIMIT 6) r) v, generate_series(1, 1000)) m) x
	WHERE verdict NOT IN ('read', 'refused') LIMIT 3
$$, 'changed text is refused or is what it says');

SELECT * FROM finish();
ROLLBACK;
