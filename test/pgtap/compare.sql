-- Curves that compare customers, with what was known at the day's start; and
-- values carried over days without one.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET cs_ext.now = '2026-03-02 12:00+01';
SELECT * FROM no_plan();

CREATE TABLE account (id text PRIMARY KEY, plan text);
CREATE TABLE contract (account_id text, start_at timestamptz, end_at timestamptz, mrr numeric);
CREATE INDEX ON contract (account_id);
CREATE TABLE answer (account_id text, at timestamptz, kind text, score numeric);
CREATE INDEX ON answer (account_id);
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL) \g /dev/null
SELECT count(*) FROM cs.add_source('account', 'customer', 'account', '{"customer_id": "id", "attributes": "jsonb_build_object(''plan'', plan)"}') \g /dev/null
SELECT count(*) FROM cs.add_source('contract', 'subscription', 'contract', '{"customer_id": "account_id", "start_at": "start_at", "end_at": "end_at", "mrr": "mrr"}') \g /dev/null
SELECT count(*) FROM cs.add_source('answer', 'survey', 'answer', '{"customer_id": "account_id", "at": "at", "kind": "kind", "score": "score"}') \g /dev/null
INSERT INTO cs.metric (name, source, expression, better) VALUES
	('x', 'survey', $$(array_agg(score ORDER BY at DESC) FILTER (WHERE kind = 'x'))[1]$$, 'high'),
	('bad', 'survey', $$(array_agg(score ORDER BY at DESC) FILTER (WHERE kind = 'bad'))[1]$$, 'low'),
	('week', 'survey', $$avg(score) FILTER (WHERE kind = 'w' AND at >= as_of_day - 7)$$, 'high');
INSERT INTO cs.dimension (name, attribute, fallback) VALUES ('plan', 'plan', 'none');
INSERT INTO cs.scorecard (name, hysteresis, min_coverage) VALUES ('card', 0, 0);
INSERT INTO cs.measure (scorecard, name, metric, curve, within, min_n) VALUES
	('card', 'rank', 'x', 'percentile', 'plan', 4), ('card', 'bad rank', 'bad', 'percentile', 'plan', 4), ('card', 'z', 'x', 'logistic', NULL, 4);

-- plan p has 1, 2, 2, 5; plan q has 10 and 20; an account that left has 1000
INSERT INTO account VALUES ('p1', 'p'), ('p2', 'p'), ('p3', 'p'), ('p4', 'p'), ('q1', 'q'), ('q2', 'q'), ('gone', 'p'), ('silent', 'p');
INSERT INTO contract SELECT id, '2026-01-01', CASE id WHEN 'gone' THEN timestamptz '2026-02-01' END, 100 FROM account;
INSERT INTO answer SELECT v.id, '2026-02-01', k, v.x FROM (VALUES ('p1', 1), ('p2', 2), ('p3', 2), ('p4', 5), ('q1', 10), ('q2', 20), ('gone', 1000)) v (id, x), unnest('{x,bad}'::text[]) k;
CREATE FUNCTION pg_temp.points(customer text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(measure || ' ' || coalesce(round(points::numeric, 3)::text, reason), ', ' ORDER BY measure) FROM cs.health_explain(customer)
$$;
-- One batch a customer: what is compared with does not depend on who came first.
SET cs_ext.refresh_batch = 1;
CALL cs.refresh();
RESET cs_ext.refresh_batch;
SELECT results_eq('SELECT metric, dimension, segment, n, round(mean::numeric, 6), round(sd::numeric, 6), "values" FROM cs_internal.reference_distribution ORDER BY 1, 2, 3', $$VALUES
	('bad', 'plan', '', 0::bigint, NULL::numeric, NULL::numeric, '{}'::float8[]), ('bad', 'plan', 'p', 4, 2.5, 1.5, '{1,2,2,5}'), ('bad', 'plan', 'q', 2, 15, 5, '{10,20}'),
	('x', '', '', 6, 6.666667, 6.674995, '{1,2,2,5,10,20}'), ('x', 'plan', '', 0, NULL, NULL, '{}'), ('x', 'plan', 'p', 4, 2.5, 1.5, '{1,2,2,5}'), ('x', 'plan', 'q', 2, 15, 5, '{10,20}')$$,
	'the first refresh of all writes what it compares with, of everybody scored, and uses it');
-- logistic: z of 1, 2 and 5 against mean 6.667, deviation 6.675
SELECT is(pg_temp.points('p1'), 'bad rank 87.500, rank 12.500, z 29.966', 'lowest of four; better low the other way round');
SELECT is(pg_temp.points('p2'), 'bad rank 50.000, rank 50.000, z 33.201', 'equal values share the middle of their ranks');
SELECT is(pg_temp.points('p4'), 'bad rank 12.500, rank 87.500, z 43.790', 'highest of four');
SELECT is(pg_temp.points('q1'), 'bad rank too few to compare with: left out, rank too few to compare with: left out, z 62.231', 'fewer than min_n: missing');
SELECT is(round((100 / (1 + exp(-(10 - 40.0 / 6) / sqrt(534.0 / 6 - 1600.0 / 36))))::numeric, 3), 62.231, 'by hand');
SELECT is(pg_temp.points('silent'), '(no score) missing, bad rank missing: left out, rank missing: left out, z missing: left out', 'a missing value is missing');
SELECT ok(bool_and(cs.health_score(id) = (SELECT sum(contribution) FROM cs.health_explain(id))), 'contributions add exactly') FROM account WHERE id NOT IN ('gone', 'silent');

-- During the day one change moves nobody else, and the comparison stays what it was.
CREATE TABLE seen AS SELECT id, cs.health_score(id) AS score FROM account;
SET cs_ext.now = '2026-03-02 15:00+01';
INSERT INTO answer VALUES ('p1', '2026-03-02 13:00+01', 'x', 100);
CALL cs.refresh();
SELECT is(pg_temp.points('p1'), 'bad rank 87.500, rank 100.000, z 100.000', 'above all that was known at the start of the day');
SELECT results_eq($$SELECT id, cs.health_score(id) FROM account WHERE id <> 'p1' ORDER BY 1$$, $$SELECT * FROM seen WHERE id <> 'p1' ORDER BY 1$$, 'nobody else moves');
CREATE TEMP TABLE kept AS SELECT * FROM cs_internal.reference_distribution;
CALL cs.rebuild();
SELECT set_eq('SELECT * FROM cs_internal.reference_distribution', 'SELECT * FROM kept', 'a rebuild uses what is stored');
SELECT is(pg_temp.points('p1'), 'bad rank 87.500, rank 100.000, z 100.000', 'and gives the same');

-- The next day compares with what was known at its start.
SET cs_ext.now = '2026-03-03 09:00+01';
INSERT INTO account VALUES ('p5', 'p');
INSERT INTO contract VALUES ('p5', '2026-03-03 00:30+01', NULL, 100);
INSERT INTO answer VALUES ('p5', '2026-03-03 01:00+01', 'x', 3);
SELECT cs_internal.take_snapshot('2026-03-03 00:00+01') \g /dev/null
CALL cs.refresh();
SELECT is((SELECT "values" FROM cs_internal.reference_distribution WHERE metric = 'x' AND segment = 'p' AND day = '2026-03-03'), '{2,2,5,100}', 'the values of yesterday''s end');
SELECT is(pg_temp.points('p2'), 'bad rank 50.000, rank 25.000, z 35.290', 'p2 falls behind a day later');
SELECT is((SELECT count(*) FROM cs.health_explain('p5') WHERE measure = 'rank' AND points = 50), 1::bigint, 'who is new is compared too');
SELECT ok(bool_and(cs.health_score(id, '2026-03-03') = cs.health_recompute(id, '2026-03-03')
	AND cs.health_score(id, '2026-03-03') = (SELECT sum(contribution) FROM cs.health_explain(id, '2026-03-03'))), 'the snapshot is recomputed bit for bit and explained')
FROM account WHERE id IN ('p1', 'p2', 'p3', 'p4', 'q1');
SELECT is(cs.health_recompute('p2', '2026-03-02 12:00'), (SELECT score FROM seen WHERE id = 'p2'), 'so is the score of the day before');
SELECT is(cs.health_recompute('p2', '2026-02-20'), NULL, 'a day before anything was compared has no such score');
SELECT is(round(cs.score('{"x": 5, "plan": "p"}', 'card')::numeric, 3), round(((62.5 + 100 / (1 + exp(-(5 - m) / s))) / 2)::numeric, 3), 'metrics brought along are compared with those of today')
FROM (SELECT mean AS m, sd AS s FROM cs_internal.reference_distribution WHERE metric = 'x' AND dimension = '' AND day = '2026-03-03') r;

-- What is compared within must stay early, and stay.
SELECT throws_ok($$UPDATE cs.dimension SET name = 'other' WHERE name = 'plan'$$, '2BP01', NULL, 'a dimension that is compared within stays');
INSERT INTO cs.dimension (name, fallback) VALUES ('mood', 'fine');
INSERT INTO cs.segment (dimension, name, rule) VALUES ('mood', 'odd', 'x > 5');
UPDATE cs.measure SET within = 'mood' WHERE name = 'z';
SELECT throws_ok($$UPDATE cs.segment SET rule = 'health < 30' WHERE name = 'odd'$$, '42P17', NULL, 'and may not come to look at health');
CALL cs.refresh();
SELECT is((SELECT string_agg(segment || ' ' || n, ', ' ORDER BY segment) FROM cs_internal.reference_distribution WHERE dimension = 'mood'), ' 0, fine 4, odd 3', 'a new comparison is there after one refresh');
SELECT is(pg_temp.points('p2'), 'bad rank 50.000, rank 25.000, z 30.651', 'and used');

-- ---- very many values are thinned ---------------------------------------------
DELETE FROM cs.scorecard;
INSERT INTO cs.scorecard (name) VALUES ('card');
INSERT INTO cs.measure (scorecard, name, metric, curve, within) VALUES ('card', 'rank', 'bad', 'percentile', 'plan');
BEGIN;
INSERT INTO cs_internal.state (customer_id, active, "values", segments)
SELECT 'many' || g, true, (SELECT array_agg(CASE WHEN t.metric = 'bad' THEN g END ORDER BY t.slot) FROM cs_internal.metric_slot t), '{"plan": "r"}' FROM generate_series(1, 25000) g;
SELECT cs_internal.fix_references('2027-01-01', true) \g /dev/null
SELECT results_eq($$SELECT n, cardinality("values"), "values"[1], "values"[5000] FROM cs_internal.reference_distribution WHERE day = '2027-01-01' AND segment = 'r'$$,
	'VALUES (25000::bigint, 10000, 2::float8, 12499::float8)', 'to 10,000 quantiles');
SELECT is(cs_internal.fix_references('2027-01-01', true), false, 'once');
ROLLBACK;

-- ---- carry ---------------------------------------------------------------------
DELETE FROM cs.scorecard;
INSERT INTO cs.scorecard (name, hysteresis, min_coverage) VALUES ('card', 0, 0);
INSERT INTO cs.measure (scorecard, name, metric, worst, best, missing, max_age_days) VALUES
	('card', 'week', 'week', 0, 10, 'carry', 3), ('card', 'steady', 'x', 0, 10, 'reweight', NULL);
INSERT INTO answer VALUES ('q1', '2026-03-03 02:00+01', 'w', 4), ('p2', '2026-03-09 02:00+01', 'w', 8);
-- snapshots of each day from the 9th on: q1 has 4 on the 10th for the last time
SELECT set_config('cs_ext.now', (d || ' 06:00+01'), false), cs_internal.take_snapshot(d::timestamp AT TIME ZONE 'Europe/Berlin') FROM generate_series(date '2026-03-09', '2026-03-12', '1 day') g (t), LATERAL (SELECT t::date AS d) x \g /dev/null
SET cs_ext.now = '2026-03-12 12:00+01';
CALL cs.refresh();
SELECT results_eq($$SELECT value, points, weight, contribution, reason FROM cs.health_explain('q1') WHERE measure = 'week'$$,
	$$VALUES (4::float8, 40::float8, 0.5::float8, 20::float8, 'carried: the newest value kept')$$, 'two days later the last value kept counts');
SELECT is((SELECT coverage FROM cs.customer_health WHERE customer_id = 'q1'), 1::float8, 'and is coverage');
SELECT is((SELECT value FROM cs.health_explain('p2') WHERE measure = 'week'), 8::float8, 'who has a value needs none of before');
SELECT is((SELECT health_inputs FROM cs_internal.state WHERE customer_id = 'p2'), NULL, 'and keeps none');
SELECT is(cs.health_recompute('q1', '2026-03-12 12:00'), cs.health_score('q1'), 'recomputed the same');
SET cs_ext.now = '2026-03-14 12:00+01';
CALL cs.refresh();
SELECT results_eq($$SELECT value, points, weight, reason FROM cs.health_explain('q1') WHERE measure = 'week'$$,
	$$VALUES (NULL::float8, NULL::float8, 0::float8, 'missing: left out')$$, 'older than max_age_days it counts no more');
SELECT is(cs.health_score('q1'), 100::float8, 'the rest is the score');
SELECT results_eq($$SELECT cs.health_score('q1', '2026-03-12'), sum(contribution) FROM cs.health_explain('q1', '2026-03-12')$$, 'VALUES (70::float8, 70::float8)', 'the past is explained by what was carried then');
SELECT is((SELECT count(*) FROM cs.validate()), 0::bigint, 'validate finds nothing');
SELECT * FROM finish();
