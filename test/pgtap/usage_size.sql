-- The largest values that are promised: a customer with 100,000 users in a month, one
-- with 10,000 event names, built in parallel and changed afterwards. The rollup and
-- the metrics are what plain SQL says.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET cs_ext.now = '2025-07-01 12:00+00';
SELECT no_plan();
CREATE SCHEMA app;
CREATE TABLE app.event (customer_id text, at timestamptz, user_id integer, name text, amount numeric);
INSERT INTO app.event SELECT 'users', timestamptz '2025-06-01 00:00+00' + e * interval '20 seconds', e % 100000, 'event ' || e % 3, CASE WHEN e % 1000 = 0 THEN -0.25 END FROM generate_series(0, 119999) e;
INSERT INTO app.event SELECT 'names', timestamptz '2025-06-01 00:00+00' + e * interval '2 minutes', CASE WHEN e % 5 > 0 THEN e % 7 END, 'event ' || e % 10000 FROM generate_series(0, 19999) e;
INSERT INTO app.event SELECT 'one', '2025-06-15 12:00+00', 1, 'event 1', 1;
CREATE INDEX ON app.event (customer_id, at);
ANALYZE app.event;
CREATE FUNCTION app.difference() RETURNS bigint LANGUAGE sql SET timezone = 'UTC' AS $$
	WITH raw AS (SELECT customer_id, name AS event, at::date AS day, count(*) AS events, sum(amount)::numeric(38,9) AS quantity, count(DISTINCT user_id) AS active_users FROM app.event GROUP BY 1, 2, 3),
		kept AS (SELECT customer_id, event, day, events, quantity, active_users FROM cs.usage_daily)
	SELECT count(*) FROM ((TABLE raw EXCEPT ALL TABLE kept) UNION ALL (TABLE kept EXCEPT ALL TABLE raw)) d $$;
CREATE FUNCTION app.wrong() RETURNS bigint LANGUAGE sql SET timezone = 'UTC' AS $$
	SELECT count(*) FROM (SELECT customer_id, count(*) AS n, count(DISTINCT user_id) AS u, count(DISTINCT at::date) AS d, count(DISTINCT name) AS f, sum(amount) AS q
			FROM app.event WHERE at >= '2025-06-01' AND at < '2025-07-01' GROUP BY 1) r
		FULL JOIN (SELECT customer_id, max(value) FILTER (WHERE metric = 'n') AS n, max(value) FILTER (WHERE metric = 'u') AS u, max(value) FILTER (WHERE metric = 'd') AS d,
			max(value) FILTER (WHERE metric = 'f') AS f, max(value) FILTER (WHERE metric = 'q') AS q FROM cs.customer_metric GROUP BY 1) m USING (customer_id)
		WHERE (r.n, r.u, r.d, r.f, r.q) IS DISTINCT FROM (m.n, m.u, m.d, m.f, m.q) $$;
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL) IS NULL AS done \gset
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON app.event TO cs_ext_run;
INSERT INTO cs.metric (name, source, expression) VALUES ('n', 'usage', 'events(usage, NULL, 30)'), ('u', 'usage', 'active_users(usage, 30)'), ('d', 'usage', 'active_days(usage, 30)'),
	('f', 'usage', 'distinct_events(usage, 30)'), ('q', 'usage', 'quantity(usage, NULL, 30)');
SELECT count(*) AS mapped FROM cs.add_source('events', 'usage_event', 'app.event', '{"customer_id": "customer_id", "at": "at", "user_id": "user_id", "event": "name", "quantity": "amount"}') \gset

SET min_parallel_table_scan_size = 0;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET max_parallel_workers_per_gather = 2;
CREATE FUNCTION pg_temp.plan(sql text) RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY EXECUTE 'EXPLAIN (COSTS OFF) ' || sql; END $$;
SELECT ok(string_agg(line, ' ') ~ 'Finalize Aggregate.*Gather.*Partial Aggregate.*Parallel Seq Scan', 'the pass over all events is one of several processes')
FROM pg_temp.plan('SELECT cs.usage_pack(0, 4294967296, customer_id, at, user_id, name, amount, NULL) FROM app.event') line;
CALL cs.refresh();
SELECT is(app.difference(), 0::bigint, 'the rollup after the first build');
SELECT is(app.wrong(), 0::bigint, 'and the metrics');
SELECT is((SELECT value FROM cs.customer_metric WHERE (customer_id, metric) = ('users', 'u')), 100000::float8, '100,000 users');
SELECT is((SELECT value FROM cs.customer_metric WHERE (customer_id, metric) = ('names', 'f')), 10000::float8, '10,000 event names');
CREATE TABLE app.built AS SELECT customer_id, month, usage FROM cs_internal.usage_whole;

INSERT INTO app.event SELECT c, '2025-06-20 00:00+00', 100000, 'event new', 0.5 FROM unnest('{users,names}'::text[]) c;
UPDATE app.event SET user_id = 100001 WHERE customer_id = 'users' AND user_id = 77;
DELETE FROM app.event WHERE customer_id = 'names' AND name = 'event 9999';
CALL cs.refresh();
SELECT is(app.difference(), 0::bigint, 'the rollup after changes');
SELECT is(app.wrong(), 0::bigint, 'and the metrics');
-- what is equal is the same bytes, and goes through text and back
SELECT is((SELECT count(*) FROM app.built b JOIN cs_internal.usage_whole w USING (customer_id, month) WHERE b.usage OPERATOR(cs.=) w.usage), 1::bigint, 'only who changed is another value');
SELECT ok(bool_and(usage::text::cs.usage OPERATOR(cs.=) usage), 'text and back is the same') FROM app.built;
SET max_parallel_workers_per_gather = 0;
CREATE TABLE app.changed AS SELECT customer_id, month, usage FROM cs_internal.usage_whole;
CALL cs.rebuild();
SELECT is((SELECT count(*) FROM app.changed b JOIN cs_internal.usage_whole w USING (customer_id, month) WHERE b.usage OPERATOR(cs.=) w.usage), 3::bigint, 'a rebuild by one process gives the same bytes');
SELECT * FROM finish();
