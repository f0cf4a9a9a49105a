-- The sweep against a second implementation in plain SQL, on random subscriptions.
BEGIN;
SELECT plan(9);
SET LOCAL TimeZone = 'UTC';

-- :seed can be given to repeat a run
\ir ../lib/seed.sql

-- 400 customers with up to 9 rows: whole days over two months, so that starts
-- and ends coincide, rows touch, and some have no length or no end.
CREATE TEMP TABLE subscription AS
SELECT c AS customer_id, n, s.start_at, s.start_at + s.days * interval '1 day' AS end_at,
	CASE WHEN s.status <> 'active' OR random() < 0.1 THEN 0 ELSE round((random() * 200)::numeric, (random() * 6)::int) + 0.01 END AS mrr,
	s.status
FROM generate_series(1, 400) c, LATERAL generate_series(1, (random() * c / 45)::int) n,
	LATERAL (SELECT timestamptz '2024-02-01' + (random() * 30)::int * interval '1 day' AS start_at,
		CASE WHEN random() < 0.9 AND n > 0 THEN (random() * 12)::int END AS days,
		CASE WHEN random() < 0.4 AND c % 3 = 0 THEN 'paused' ELSE 'active' END AS status) s;

-- one that surely has a pause and a resume
INSERT INTO subscription VALUES
	(400, 100, '2024-01-01', '2024-01-10', 50, 'active'), (400, 101, '2024-01-10', '2024-01-20', 0, 'paused'),
	(400, 102, '2024-01-20', '2024-01-25', 60, 'active');

CREATE FUNCTION pg_temp.sweep(customer integer, rows regclass, free boolean)
RETURNS TABLE (customer_id integer, at timestamptz, kind text, delta numeric, mrr_after numeric, active boolean)
LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format(
		'SELECT $1, s.at, s.kind, s.delta, s.mrr_after, s.active_after FROM cs_internal.ledger_sweep(
			(SELECT array_agg(f) FROM %s r, jsonb_populate_record(NULL::cs_internal.subscription_fact, to_jsonb(r)) f
			WHERE r.customer_id = $1), NULL, $2) s', rows)
	USING customer, free;
END
$$;

CREATE TEMP TABLE swept AS
SELECT f.free, s.* FROM (VALUES (false), (true)) f (free), generate_series(1, 400) c, pg_temp.sweep(c, 'subscription', f.free) s;

-- The definition, written down: at each instant, before and after.
CREATE TEMP TABLE plain AS
WITH instant AS (
	SELECT customer_id, start_at AS at FROM subscription
	UNION SELECT customer_id, end_at FROM subscription WHERE end_at IS NOT NULL
), balance AS (
	SELECT f.free, i.customer_id, i.at, b.mrr, b.mrr > 0 OR b.paused > 0 OR f.free AND b.frees > 0 AS active, b.paused
	FROM (VALUES (false), (true)) f (free), instant i, LATERAL (
		SELECT coalesce(sum(s.mrr), 0) AS mrr, count(*) FILTER (WHERE s.status = 'paused') AS paused,
			count(*) FILTER (WHERE s.status = 'active' AND s.mrr = 0) AS frees
		FROM subscription s
		WHERE s.customer_id = i.customer_id AND s.start_at <= i.at AND (s.end_at > i.at OR s.end_at IS NULL)) b
), change AS (
	SELECT b.*, lag(b.mrr, 1, 0::numeric) OVER w AS mrr0, lag(b.active, 1, false) OVER w AS active0, lag(b.paused, 1, 0::bigint) OVER w AS paused0,
		coalesce(bool_or(b.mrr > 0) OVER past, false) AS was_positive, coalesce(bool_or(b.active) OVER past, false) AS was_active
	FROM balance b
	WINDOW w AS (PARTITION BY b.free, b.customer_id ORDER BY b.at),
		past AS (PARTITION BY b.free, b.customer_id ORDER BY b.at ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
SELECT free, customer_id, at, CASE
		WHEN mrr > mrr0 AND NOT was_positive THEN 'new'
		WHEN mrr > mrr0 AND NOT active0 THEN 'reactivation'
		WHEN mrr > mrr0 AND paused < paused0 THEN 'resume'
		WHEN mrr > mrr0 THEN 'expansion'
		WHEN active0 AND NOT active THEN 'churn'
		WHEN mrr < mrr0 AND paused > paused0 THEN 'pause'
		WHEN mrr < mrr0 THEN 'contraction'
		WHEN paused > 0 THEN 'pause'
		WHEN was_active THEN 'reactivation'
		ELSE 'new' END AS kind,
	mrr - mrr0 AS delta, mrr AS mrr_after, active
FROM change WHERE mrr <> mrr0 OR active <> active0;

SELECT set_eq('SELECT * FROM swept', 'SELECT * FROM plain', 'movements are those of the plain SQL');
SELECT is((SELECT count(DISTINCT kind) FROM swept), 7::bigint, 'the data has every kind of movement');

SELECT is_empty($$
	SELECT * FROM (SELECT s.*, sum(delta) OVER (PARTITION BY free, customer_id ORDER BY at) AS rolled FROM swept s) s
	WHERE rolled <> mrr_after
$$, 'each balance is the one before plus the movement');

SELECT is_empty($$
	SELECT * FROM swept s WHERE NOT free AND mrr_after <> (
		SELECT coalesce(sum(x.mrr), 0) FROM subscription x
		WHERE x.customer_id = s.customer_id AND x.start_at <= s.at AND (x.end_at > s.at OR x.end_at IS NULL))
$$, 'each balance is the sum of the rows that cover it');

SELECT is_empty($$
	SELECT * FROM swept WHERE CASE WHEN kind IN ('new', 'reactivation', 'expansion', 'resume') THEN delta < 0 ELSE delta > 0 END
$$, 'the sign of a movement is that of its kind');

SELECT is_empty($$
	SELECT 1 FROM swept WHERE kind = 'new' AND delta > 0 GROUP BY free, customer_id HAVING count(*) > 1
$$, 'a customer''s first money comes once');

-- row order changes nothing
CREATE TEMP TABLE shuffled AS SELECT * FROM subscription ORDER BY random();
SELECT set_eq($$SELECT s.* FROM generate_series(1, 400) c, pg_temp.sweep(c, 'shuffled', true) s$$,
	'SELECT customer_id, at, kind, delta, mrr_after, active FROM swept WHERE free', 'row order changes nothing');

-- a row cut into two touching pieces changes nothing
CREATE TEMP TABLE cut AS
WITH at AS (
	SELECT s.*, s.start_at + random() * (coalesce(s.end_at, s.start_at + interval '50 days') - s.start_at) AS cut_at FROM subscription s
)
SELECT customer_id, start_at, cut_at AS end_at, mrr, status FROM at
UNION ALL SELECT customer_id, cut_at, end_at, mrr, status FROM at;
SELECT set_eq($$SELECT s.* FROM generate_series(1, 400) c, pg_temp.sweep(c, 'cut', true) s$$,
	'SELECT customer_id, at, kind, delta, mrr_after, active FROM swept WHERE free', 'touching pieces change nothing');

-- the zone of the session plays no part where no limit in days is set
SET LOCAL TimeZone = 'Asia/Tokyo';
SELECT set_eq($$SELECT s.* FROM generate_series(1, 400) c, pg_temp.sweep(c, 'subscription', true) s$$,
	'SELECT customer_id, at, kind, delta, mrr_after, active FROM swept WHERE free', 'the session''s zone changes nothing');

SELECT * FROM finish();
ROLLBACK;
