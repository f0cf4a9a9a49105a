-- Health: the arithmetic of scorecards against published results and random
-- ones, then bands, overrides, history and explanation through the refresh.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET cs_ext.now = '2026-03-02 12:00+01';
SELECT * FROM no_plan();

CREATE TABLE account (id text PRIMARY KEY, name text, boss text);
CREATE TABLE contract (account_id text, start_at timestamptz, end_at timestamptz, mrr numeric);
CREATE INDEX ON contract (account_id);
CREATE TABLE answer (account_id text, at timestamptz, kind text, score numeric);
CREATE INDEX ON answer (account_id);
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL) \g /dev/null
SELECT count(*) FROM cs.add_source('account', 'customer', 'account', '{"customer_id": "id", "name": "name", "owner": "boss"}') \g /dev/null
SELECT count(*) FROM cs.add_source('contract', 'subscription', 'contract', '{"customer_id": "account_id", "start_at": "start_at", "end_at": "end_at", "mrr": "mrr"}') \g /dev/null
SELECT count(*) FROM cs.add_source('answer', 'survey', 'answer', '{"customer_id": "account_id", "at": "at", "kind": "kind", "score": "score"}') \g /dev/null

-- m1 to m8: the newest answer of that kind.
INSERT INTO cs.metric (name, source, expression)
SELECT 'm' || k, 'survey', format('(array_agg(score ORDER BY at DESC) FILTER (WHERE kind = %L))[1]', 'm' || k) FROM generate_series(1, 8) k;

-- values by slot from values of m1, m2, ...
CREATE FUNCTION pg_temp.vals(VARIADIC v float8[]) RETURNS float8[] LANGUAGE sql STABLE AS $$
	SELECT array_agg(CASE WHEN s.metric ~ '^m\d$' THEN v[substr(s.metric, 2)::int] END ORDER BY g)
	FROM generate_series(1, (SELECT max(slot) FROM cs_internal.metric_slot)) g LEFT JOIN cs_internal.metric_slot s ON s.slot = g
$$;
CREATE FUNCTION pg_temp.score(card text, VARIADIC v float8[]) RETURNS float8 LANGUAGE sql STABLE AS $$
	SELECT s.score FROM cs_internal.score(pg_temp.vals(VARIADIC v), card) s
$$;

-- ---- curves ------------------------------------------------------------------
INSERT INTO cs.scorecard (name, enabled) VALUES ('curves', false);
INSERT INTO cs.measure (scorecard, name, metric, curve, worst, best, steps, half_life_days) VALUES
	('curves', 'up', 'm1', 'linear', 10, 20, NULL, NULL),
	('curves', 'down', 'm2', 'linear', 20, 10, NULL, NULL),
	('curves', 'bounded', 'm3', 'bounded', 10, 20, NULL, NULL),
	('curves', 'steps', 'm4', 'steps', NULL, NULL, '[{"to":10,"points":0},{"to":50,"points":60},{"points":100}]', NULL),
	('curves', 'half', 'm5', 'half_life', NULL, NULL, NULL, 30),
	('curves', 'flag', 'm6', 'flag', NULL, NULL, NULL, NULL),
	('curves', 'bad flag', 'm7', 'flag', 1, 0, NULL, NULL);
CREATE FUNCTION pg_temp.points(VARIADIC v float8[]) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT string_agg(measure || ' ' || coalesce(round(points::numeric, 3)::text, '-'), ', ' ORDER BY metric) FROM cs_internal.score_parts(pg_temp.vals(VARIADIC v), 'curves')
$$;
SELECT is(pg_temp.points(10, 10, 9.9, 10, 0, 0, 0), 'up 0.000, down 100.000, bounded -, steps 0.000, half 100.000, flag 0.000, bad flag 100.000', 'curves at their lower ends');
SELECT is(pg_temp.points(12.5, 12.5, 10, 10.01, 30, 1, 1), 'up 25.000, down 75.000, bounded 0.000, steps 60.000, half 50.000, flag 100.000, bad flag 0.000', 'curves between');
SELECT is(pg_temp.points(99, 99, 20, 50, 90, -3, 2), 'up 100.000, down 0.000, bounded 100.000, steps 60.000, half 12.500, flag 100.000, bad flag 0.000', 'curves at their upper ends');
SELECT is(pg_temp.points('Infinity', '-Infinity', 20.1, 50.01, -5, NULL, 'NaN'), 'up 100.000, down 100.000, bounded -, steps 100.000, half 100.000, flag -, bad flag -', 'curves beyond; NULL and NaN are missing');
SELECT is((SELECT reason FROM cs_internal.score_parts(pg_temp.vals(1, 1, 99), 'curves') WHERE measure = 'bounded'), 'out of range: left out', 'a value outside a bounded curve says so');

-- ---- missing data: DEFINITIONS C.3 --------------------------------------------
-- usage 80 weight 50, NPS missing weight 30, support 40 weight 20
INSERT INTO cs.scorecard (name, enabled) SELECT unnest('{flat,zero,neutral,grouped,whole,covered}'::text[]), false;
INSERT INTO cs.measure_group (scorecard, name, weight) VALUES ('grouped', 'voice', 50);
INSERT INTO cs.measure (scorecard, name, metric, measure_group, weight, worst, best, missing, missing_points)
SELECT c.card, v.name, v.metric, CASE WHEN c.card = 'grouped' AND v.metric <> 'm1' THEN 'voice' END, v.weight, 0, 100,
	CASE WHEN v.metric = 'm2' THEN c.missing ELSE 'reweight' END, CASE WHEN v.metric = 'm2' THEN c.points END
FROM (VALUES ('usage', 'm1', 50), ('nps', 'm2', 30), ('support', 'm3', 20)) v (name, metric, weight),
	(VALUES ('flat', 'reweight', NULL::float8), ('zero', 'zero', NULL), ('neutral', 'neutral', 50), ('grouped', 'redistribute', NULL),
		('whole', 'null_overall', NULL), ('covered', 'reweight', NULL)) c (card, missing, points);
UPDATE cs.scorecard SET min_coverage = 0.7 WHERE name = 'flat';
UPDATE cs.scorecard SET min_coverage = 0.71 WHERE name = 'covered';
SELECT is(round(pg_temp.score('flat', 80, NULL, 40)::numeric, 1), 68.6, 'C.3: flat reweight');
SELECT is(pg_temp.score('zero', 80, NULL, 40), 48.0::float8, 'C.3: zero');
SELECT is(pg_temp.score('neutral', 80, NULL, 40), 63.0::float8, 'C.3: neutral 50');
SELECT is(pg_temp.score('grouped', 80, NULL, 40), 60.0::float8, 'C.3: redistributed inside the group');
SELECT results_eq($$SELECT score, coverage, reason FROM cs_internal.score(pg_temp.vals(80, NULL, 40), 'whole')$$,
	$$VALUES (NULL::float8, 0.7::float8, 'missing')$$, 'null_overall: no score, coverage is told');
SELECT results_eq($$SELECT score, coverage, reason FROM cs_internal.score(pg_temp.vals(80, NULL, 40), 'covered')$$,
	$$VALUES (NULL::float8, 0.7::float8, 'coverage')$$, 'below the minimum coverage: no score');
SELECT is((SELECT coverage FROM cs_internal.score(pg_temp.vals(80, NULL, 40), 'zero')), 0.7::float8, 'points by policy are no coverage');
SELECT is(pg_temp.score('grouped', 80, NULL, NULL), 80.0::float8, 'redistribute: an empty group goes to the others');
SELECT is((SELECT reason FROM cs_internal.score(pg_temp.vals(NULL, NULL, NULL), 'flat')), 'coverage', 'nothing known: no score');
-- a group of redistribute leaves and one of reweight leaves, both partly missing
INSERT INTO cs.scorecard (name, min_coverage, enabled) VALUES ('mixed', 0, false);
INSERT INTO cs.measure_group (scorecard, name, weight) VALUES ('mixed', 'a', 60), ('mixed', 'b', 40);
INSERT INTO cs.measure (scorecard, name, metric, measure_group, weight, worst, best, missing) VALUES
	('mixed', 'a1', 'm1', 'a', 1, 0, 100, 'redistribute'), ('mixed', 'a2', 'm2', 'a', 2, 0, 100, 'redistribute'),
	('mixed', 'b1', 'm3', 'b', 1, 0, 100, 'reweight'), ('mixed', 'b2', 'm4', 'b', 3, 0, 100, 'reweight');
-- a keeps 60 by a1 alone; b has 10 of its 40 left; 60 and 10 of 70
SELECT is(round(pg_temp.score('mixed', 90, NULL, 20, NULL)::numeric, 8), round((60 * 90 + 10 * 20) / 70.0, 8), 'redistribute keeps the group''s share, reweight does not');
-- a is empty: its 60 go to b, whose b2 is dropped: b1 alone
SELECT is(pg_temp.score('mixed', NULL, NULL, 20, NULL), 20.0::float8, 'all but one missing');
SELECT is((SELECT reason FROM cs_internal.score(pg_temp.vals(NULL), 'mixed')), 'missing', 'no coverage needed, nothing there');

-- ---- published results --------------------------------------------------------
INSERT INTO cs.scorecard (name, enabled) VALUES ('natero', false), ('gainsight', false), ('pulse', false);
INSERT INTO cs.measure_group (scorecard, name, weight) VALUES ('natero', 'support', 2), ('natero', 'engagement', 3), ('natero', 'usage', 3), ('natero', 'pulse', 2);
INSERT INTO cs.measure (scorecard, name, metric, measure_group, worst, best)
SELECT 'natero', 'x' || k, 'm' || k, (ARRAY['support', 'engagement', 'engagement', 'usage', 'usage', 'usage', 'pulse'])[k], 0, 100 FROM generate_series(1, 7) k;
SELECT is(round(pg_temp.score('natero', 80, 76, 65, 81, 65, 90, 54)::numeric), 72::numeric, 'four components, weights 2 3 3 2');
SELECT is(round(pg_temp.score('natero', 80, 76, 65, 81, 65, 90, 54)::numeric, 6), 71.55, 'exactly 71.55');
INSERT INTO cs.measure (scorecard, name, metric, weight, worst, best) VALUES ('gainsight', 'x1', 'm1', 20, 0, 100), ('gainsight', 'x2', 'm2', 15, 0, 100), ('gainsight', 'x3', 'm3', 22, 0, 100);
SELECT is(round(pg_temp.score('gainsight', 47, 59, 21)::numeric, 8), 40.12280702, 'weights that do not sum to 100');
INSERT INTO cs.measure (scorecard, name, metric, weight, worst, best)
SELECT 'pulse', 'x' || k, 'm' || k, (ARRAY[20, 16, 16, 16, 12, 20])[k], 0, 100 FROM generate_series(1, 6) k;
SELECT results_eq($$SELECT round((weight * 100)::numeric, 6) FROM cs_internal.score_parts(pg_temp.vals(1, 1, 1, 1, 1, NULL), 'pulse') WHERE measure <> 'x6' ORDER BY measure$$,
	'VALUES (25.0), (20.0), (20.0), (20.0), (15.0)', 'a missing component''s weight is shared out');

-- ---- min ----------------------------------------------------------------------
INSERT INTO cs.scorecard (name, combine, enabled) VALUES ('lowest', 'min', false);
INSERT INTO cs.measure_group (scorecard, name, combine) VALUES ('lowest', 'a', 'mean'), ('lowest', 'b', 'min');
INSERT INTO cs.measure (scorecard, name, metric, measure_group, worst, best) VALUES
	('lowest', 'a1', 'm1', 'a', 0, 100), ('lowest', 'a2', 'm2', 'a', 0, 100), ('lowest', 'b1', 'm3', 'b', 0, 100), ('lowest', 'b2', 'm4', 'b', 0, 100), ('lowest', 'c', 'm5', NULL, 0, 100);
SELECT is(pg_temp.score('lowest', 20, 60, 50, 90, 70), 40.0::float8, 'min: the lowest group is the score');
SELECT results_eq($$SELECT measure, weight, contribution, reason FROM cs_internal.score_parts(pg_temp.vals(20, 90, 50, 90, 70), 'lowest') ORDER BY 1$$,
	$$VALUES ('a1', 0::float8, 0::float8, 'not the lowest'), ('a2', 0, 0, 'not the lowest'), ('b1', 1, 50, NULL), ('b2', 0, 0, 'not the lowest'), ('c', 0, 0, 'not the lowest')$$,
	'min: the lowest measure carries all');
SELECT results_eq($$SELECT measure FROM cs_internal.score_parts(pg_temp.vals(70, 70, 70, 70, 70), 'lowest') WHERE weight > 0 ORDER BY 1$$, $$VALUES ('a1'), ('a2')$$, 'min: among equals the first by name');

-- ---- random scorecards ----------------------------------------------------------
\ir ../lib/seed.sql

-- What customers are compared with: 30 values with ties, spread as those below.
INSERT INTO cs.dimension (name, fallback) VALUES ('pool', 'all');
INSERT INTO cs_internal.reference_distribution
SELECT date '2026-03-02', 'm' || k, d.dimension, d.segment, 30, avg(v ORDER BY v), stddev_pop(v ORDER BY v), array_agg(v ORDER BY v)
FROM generate_series(1, 8) k, (VALUES ('', ''), ('pool', 'all')) d (dimension, segment),
	LATERAL (SELECT k AS metric, round((random() * 30 - 15)::numeric)::float8 AS v FROM generate_series(1, 30)) x GROUP BY 1, 2, 3, 4;

CREATE FUNCTION pg_temp.pick(words text[]) RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT words[1 + floor(random() * cardinality(words))::int] $$;
CREATE FUNCTION pg_temp.make_card() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	groups text[] := (ARRAY['g1', 'g2', 'g3'])[1:floor(random() * 4)::int];
	kind text; policy text;
BEGIN
	DELETE FROM cs.scorecard WHERE name IN ('card', 'twin');
	INSERT INTO cs.scorecard (name, combine, min_coverage, enabled) VALUES ('card', pg_temp.pick('{mean,mean,min}'), CASE WHEN random() < 0.7 THEN 0 ELSE random() END, false);
	INSERT INTO cs.measure_group (scorecard, name, weight, combine)
		SELECT 'card', g, round((random() * 50)::numeric, 2) + 1, pg_temp.pick('{mean,mean,min}') FROM unnest(groups) g;
	FOR k IN 1 .. 1 + floor(random() * 8)::int LOOP
		kind := pg_temp.pick('{linear,linear,bounded,steps,half_life,flag,percentile,logistic}');
		policy := pg_temp.pick('{reweight,reweight,redistribute,zero,neutral}');
		INSERT INTO cs.measure (scorecard, name, metric, measure_group, weight, curve, worst, best, steps, half_life_days, missing, missing_points, within, min_n)
		VALUES ('card', 'x' || k, 'm' || k, CASE WHEN random() < 0.7 THEN groups[1 + floor(random() * cardinality(groups))::int] END,
			CASE WHEN k > 1 AND random() < 0.1 THEN 0 ELSE round((random() * 100)::numeric, 3) + 0.001 END, kind,
			CASE WHEN kind IN ('linear', 'bounded') THEN -10 * random() - 1 END, CASE WHEN kind IN ('linear', 'bounded') THEN 10 * random() + 1 END,
			CASE kind WHEN 'steps' THEN '[{"to":-5,"points":0},{"to":3,"points":33.3},{"points":100}]'::jsonb END,
			CASE kind WHEN 'half_life' THEN 1 + 20 * random() END, policy, CASE policy WHEN 'neutral' THEN 100 * random() END,
			CASE WHEN kind = 'percentile' OR kind = 'logistic' AND random() < 0.5 THEN 'pool' END, CASE WHEN random() < 0.8 THEN 20 ELSE 31 END);
	END LOOP;
	INSERT INTO cs.cap (scorecard, rule, at_most) VALUES ('card', 'true', 100 * random()), ('card', 'm1 > 0', round((100 * random())::numeric));
	-- half of the straight curves point down
	UPDATE cs.measure m SET worst = 0, best = 1 WHERE scorecard = 'card' AND m.curve IN ('percentile', 'logistic') AND random() < 0.5;
	UPDATE cs.measure m SET worst = best, best = worst WHERE scorecard = 'card' AND m.curve IN ('linear', 'bounded', 'percentile', 'logistic') AND random() < 0.5;
	-- the same, written in another order
	INSERT INTO cs.scorecard (name, combine, min_coverage, enabled) SELECT 'twin', combine, min_coverage, enabled FROM cs.scorecard WHERE name = 'card';
	INSERT INTO cs.measure_group (scorecard, name, weight, combine)
		SELECT 'twin', name, weight, combine FROM cs.measure_group WHERE scorecard = 'card' ORDER BY random();
	INSERT INTO cs.cap (scorecard, rule, at_most) SELECT 'twin', rule, at_most FROM cs.cap WHERE scorecard = 'card' ORDER BY random();
	INSERT INTO cs.measure (scorecard, name, metric, measure_group, weight, curve, worst, best, steps, half_life_days, missing, missing_points, within, min_n)
		SELECT 'twin', name, metric, measure_group, weight, curve, worst, best, steps, half_life_days, missing, missing_points, within, min_n
		FROM cs.measure WHERE scorecard = 'card' ORDER BY random();
END $$;

-- What does not hold of one random card and some random customers; counts what was scored.
CREATE TEMPORARY TABLE tried (score float8, coverage float8, capped boolean);
CREATE FUNCTION pg_temp.violations() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	v float8[]; w float8[]; slots float8[]; s record; t record; p record; better float8; m cs.measure; extra jsonb;
BEGIN
	PERFORM pg_temp.make_card();
	FOR i IN 1 .. 12 LOOP
		v := ARRAY(SELECT CASE WHEN random() < 0.25 THEN NULL WHEN random() < 0.1 THEN 0 ELSE random() * 30 - 15 END FROM generate_series(1, 8));
		slots := pg_temp.vals(VARIADIC v);
		extra := '{"reference": "2026-03-02", "within": {"pool": "all"}}'::jsonb || (ARRAY['{}', '{"cap": "true"}', '{"cap": "m1 > 0"}']::jsonb[])[1 + floor(random() * 3)::int];
		SELECT * INTO s FROM cs_internal.score(slots, 'card', NULL, extra);
		SELECT sum(contribution) AS forth, sum(contribution ORDER BY measure DESC) AS back, sum(contribution + lost) AS whole, sum(weight) AS weights,
			min(contribution) FILTER (WHERE measure <> '(cap)') AS least, min(lost) AS least_lost, count(*) FILTER (WHERE points NOT BETWEEN 0 AND 100) AS beyond
			INTO p FROM cs_internal.score_parts(slots, 'card', NULL, extra);
		INSERT INTO tried VALUES (s.score, s.coverage, EXISTS (SELECT FROM cs_internal.score_parts(slots, 'card', NULL, extra) WHERE measure = '(cap)'));
		IF s.score <> p.forth OR s.score <> p.back OR (s.score IS NULL) <> (p.forth IS NULL) THEN
			RETURN NEXT format('contributions add to %s and %s, the score is %s: %s', p.forth, p.back, s.score, v);
		END IF;
		IF p.whole <> 100 OR p.least < -1e-8 OR p.least_lost < -1e-8 OR p.beyond > 0 THEN
			RETURN NEXT format('contributions and losses add to %s, least %s and %s, %s points out of range: %s', p.whole, p.least, p.least_lost, p.beyond, v);
		END IF;
		IF s.score NOT BETWEEN 0 AND 100 OR s.coverage NOT BETWEEN 0 AND 1 THEN
			RETURN NEXT format('score %s, coverage %s: %s', s.score, s.coverage, v);
		END IF;
		SELECT * INTO t FROM cs_internal.score(slots, 'twin', NULL, extra);
		IF s IS DISTINCT FROM t OR EXISTS (SELECT * FROM cs_internal.score_parts(slots, 'card', NULL, extra) EXCEPT SELECT * FROM cs_internal.score_parts(slots, 'twin', NULL, extra)) THEN
			RETURN NEXT format('written in another order: %s and %s: %s', s, t, v);
		END IF;
		-- one value of a measure that is not bounded moves for the better
		SELECT * INTO m FROM cs.measure x WHERE x.scorecard = 'card' AND x.curve <> 'bounded' AND v[substr(x.metric, 2)::int] IS NOT NULL ORDER BY random() LIMIT 1;
		CONTINUE WHEN m.name IS NULL;
		w := v;
		better := v[substr(m.metric, 2)::int] + CASE WHEN m.curve = 'half_life' OR m.worst > m.best THEN -1 ELSE 1 END * random() * 5;
		CONTINUE WHEN m.curve = 'flag' AND better = 0;
		w[substr(m.metric, 2)::int] := better;
		SELECT * INTO t FROM cs_internal.score(pg_temp.vals(VARIADIC w), 'card', NULL, extra);
		IF t.score < s.score - 1.0 / 4294967296 OR (t.score IS NULL) <> (s.score IS NULL) THEN
			RETURN NEXT format('%s (%s) from %s to %s moves the score from %s to %s: %s', m.name, m.curve, v[substr(m.metric, 2)::int], better, s.score, t.score, v);
		END IF;
	END LOOP;
END $$;
SELECT is_empty('SELECT v FROM generate_series(1, 40) g, LATERAL (SELECT g, pg_temp.violations() AS v) x',
	'contributions add exactly in any order, scores lie in [0, 100], order changes nothing, better values never lower the score');
SELECT ok(count(score) > 200 AND count(DISTINCT score) > 100 AND count(*) FILTER (WHERE coverage < 1) > 100 AND count(*) FILTER (WHERE capped) > 20, format('%s random customers, %s scored', count(*), count(score))) FROM tried;
DELETE FROM cs.scorecard;
DELETE FROM cs.dimension;
DELETE FROM cs_internal.reference_distribution;

-- ---- through the refresh --------------------------------------------------------
INSERT INTO cs.dimension (name, fallback) VALUES ('size', 'small');
INSERT INTO cs.segment (dimension, name, rule) VALUES ('size', 'large', 'mrr >= 1000');
INSERT INTO cs.scorecard (name, hysteresis, min_coverage) VALUES ('standard', 5, 0);
INSERT INTO cs.scorecard (name, segment, priority) VALUES ('large', 'size:large', 500), ('not used', 'size:large', 1);
UPDATE cs.scorecard SET enabled = false WHERE name = 'not used';
INSERT INTO cs.measure (scorecard, name, metric, weight, worst, best) VALUES
	('standard', 'first', 'm1', 3, 0, 100), ('standard', 'second', 'm2', 1, 0, 100), ('large', 'only', 'm1', 1, 0, 10), ('not used', 'x', 'm1', 1, 0, 10);

INSERT INTO account VALUES ('a', 'Alpha', 'ann'), ('b', 'Beta', 'bob'), ('c', 'Gone', 'ann'), ('d', 'Silent', NULL);
INSERT INTO contract VALUES ('a', '2026-01-01', NULL, 100), ('b', '2026-01-01', NULL, 5000), ('c', '2025-01-01', '2026-01-01', 100), ('d', '2026-01-01', NULL, 1000);
INSERT INTO answer VALUES ('a', '2026-03-01', 'm1', 80), ('a', '2026-03-01', 'm2', 40), ('b', '2026-03-01', 'm1', 9);
CALL cs.refresh();
SELECT results_eq('SELECT customer_id COLLATE "default", name, owner, health_score, band, coverage, scorecard, score_reason FROM cs.customer_health ORDER BY 1',
	$$VALUES ('a', 'Alpha', 'ann', 70::float8, 'yellow', 1::float8, 'standard', NULL), ('b', 'Beta', 'bob', 90, 'green', 1, 'large', NULL),
		('c', 'Gone', 'ann', NULL, NULL, NULL, NULL, 'inactive'), ('d', 'Silent', NULL, NULL, NULL, 0, 'large', 'coverage')$$, 'the scorecard of the segment first, whatever its priority; inactive and unknown are not scored');
SELECT is((SELECT band_reason FROM cs.customer_health WHERE customer_id = 'a'), 'first loses 15.0, second 15.0', 'what pulls the score down');
SELECT is((SELECT band_reason FROM cs.customer_health WHERE customer_id = 'd'), 'coverage 0.00 is below 0.50', 'why there is no score');
SELECT results_eq('SELECT customer_id COLLATE "default", score, band FROM cs.health_history ORDER BY 1', $$VALUES ('a', 70::float8, 'yellow'), ('b', 90, 'green')$$, 'the first band of each is history');
SELECT results_eq($$SELECT cs.health_score('a'), cs.health_score('c'), cs.health_score('nobody'), cs.health_score(42), cs.health_score('00000000-0000-0000-0000-000000000001'::uuid)$$,
	'VALUES (70::float8, NULL::float8, NULL::float8, NULL::float8, NULL::float8)', 'health_score: NULL where nothing is stored');
SELECT results_eq($$SELECT * FROM cs.health_explain('a')$$, $$VALUES
	('first', 'm1', 80::float8, 80::float8, 0.75::float8, 60::float8, 15::float8, NULL::text), ('second', 'm2', 40, 40, 0.25, 10, 15, NULL)$$, 'health_explain');
SELECT results_eq($$SELECT measure, reason, contribution FROM cs.health_explain('d')$$, $$VALUES ('only', 'missing: left out', NULL::float8), ('(no score)', 'coverage', NULL)$$, 'health_explain where there is no score');
SELECT is_empty($$SELECT * FROM cs.health_explain('nobody')$$, 'health_explain of an unknown customer');

-- A refresh that changes nothing writes nothing.
SELECT xmin AS row_before FROM cs_internal.health WHERE customer_id = 'a' \gset
SELECT cs.mark_changed('answer', 'a') \g /dev/null
CALL cs.refresh();
SELECT is((SELECT xmin FROM cs_internal.health WHERE customer_id = 'a')::text, :'row_before', 'what is the same is not written');

-- Hysteresis: better only beyond the cut plus 5, worse at once.
SET cs_ext.now = '2026-03-03 12:00+01';
INSERT INTO answer VALUES ('a', '2026-03-03 06:00+01', 'm1', 92);
CALL cs.refresh();
SELECT results_eq($$SELECT health_score, band FROM cs.customer_health WHERE customer_id = 'a'$$, $$VALUES (79::float8, 'yellow')$$, '79 is not yet green after yellow');
SET cs_ext.now = '2026-03-04 12:00+01';
INSERT INTO answer VALUES ('a', '2026-03-04 06:00+01', 'm2', 44);
CALL cs.refresh();
SELECT results_eq($$SELECT health_score, band, band_since FROM cs.customer_health WHERE customer_id = 'a'$$, $$VALUES (80::float8, 'green', '2026-03-04 12:00+01'::timestamptz)$$, '80 is');
SET cs_ext.now = '2026-03-05 12:00+01';
INSERT INTO answer VALUES ('a', '2026-03-05 06:00+01', 'm2', 20);
CALL cs.refresh();
SELECT results_eq($$SELECT health_score, band FROM cs.customer_health WHERE customer_id = 'a'$$, $$VALUES (74::float8, 'yellow')$$, '74 is yellow at once');
SET cs_ext.now = '2026-03-06 12:00+01';
INSERT INTO answer VALUES ('a', '2026-03-06 06:00+01', 'm1', 20);
CALL cs.refresh();
SET cs_ext.now = '2026-03-07 12:00+01';
INSERT INTO answer VALUES ('a', '2026-03-07 06:00+01', 'm1', 96);
CALL cs.refresh();
SELECT results_eq($$SELECT as_of, score, band FROM cs.health_history WHERE customer_id = 'a' ORDER BY 1$$,
	$$VALUES ('2026-03-02 12:00+01'::timestamptz, 70::float8, 'yellow'), ('2026-03-04 12:00+01', 80, 'green'), ('2026-03-05 12:00+01', 74, 'yellow'), ('2026-03-06 12:00+01', 20, 'red'), ('2026-03-07 12:00+01', 77, 'yellow')$$,
	'history: one row per change of band; from red straight past green by less than the hysteresis is yellow');
SELECT results_eq($$SELECT cs.health_score('a', '2026-03-05'), cs.health_score('a', date '2026-03-06'), cs.health_score('a', timestamp '2026-03-06 11:59:59'), cs.health_score('a', timestamptz '2026-03-06 11:00+00'), cs.health_score('a', '2026-03-02')$$,
	'VALUES (80::float8, 74::float8, 74::float8, 20::float8, NULL::float8)', 'health_score at an instant is what was known then');
SELECT results_eq($$SELECT cs.health_recompute('a', '2026-03-05 13:00'), cs.health_recompute('a', date '2026-03-02'), cs.health_recompute('a', NULL::timestamptz)$$,
	'VALUES (74::float8, 70::float8, 77::float8)', 'health_recompute reads the facts');
SELECT results_eq($$SELECT cs.health_score('a'), count(*) FROM cs.health_history WHERE customer_id = 'a'$$, 'VALUES (77::float8, 5::bigint)', 'and leaves no trace');
SELECT throws_ok($$SELECT cs.health_recompute('nobody', '2026-03-05')$$, 'P0002', NULL, 'health_recompute of an unknown customer');
SELECT throws_ok($$SELECT cs.health_recompute('a', '2027-03-05')$$, '22023', NULL, 'health_recompute in the future');
SELECT throws_ok($$SELECT * FROM cs.health_explain('a', '2026-03-06 13:00')$$, '55000', NULL, 'a score between day bounds whose inputs were not kept');

-- The explanation is that of the definition that was used.
UPDATE cs.measure SET weight = 1 WHERE scorecard = 'standard';
SELECT results_eq($$SELECT measure, weight, contribution FROM cs.health_explain('a')$$, $$VALUES ('first', 0.75::float8, 72::float8), ('second', 0.25, 5)$$, 'before the next refresh: by the weights the score was made with');
CALL cs.refresh();
SELECT results_eq($$SELECT measure, weight, contribution FROM cs.health_explain('a')$$, $$VALUES ('first', 0.5::float8, 48::float8), ('second', 0.5, 10)$$, 'after it: by the new ones');

-- ---- overrides --------------------------------------------------------------------
SELECT throws_ok($$SELECT cs.override_health('a', value => 50, expires_at => '2026-04-01')$$, '22023', NULL, 'no override without reason');
SELECT throws_ok($$SELECT cs.override_health('a', value => 50, reason => 'x')$$, '22023', NULL, 'no override without expiry');
SELECT throws_ok($$SELECT cs.override_health('a', reason => 'x', expires_at => '2026-04-01')$$, '22023', NULL, 'no override of nothing');
SELECT throws_ok($$SELECT cs.override_health('a', value => 50, band => 'red', reason => 'x', expires_at => '2026-04-01')$$, '22023', NULL, 'no override of two things');
SELECT throws_ok($$SELECT cs.override_health('a', value => 101, reason => 'x', expires_at => '2026-04-01')$$, '22023', NULL, 'no override above 100');
SELECT throws_ok($$SELECT cs.override_health('a', band => 'geen', reason => 'x', expires_at => '2026-04-01')$$, '22023', 'unknown band "geen" of the override', 'no override of an unknown band');
SELECT throws_ok($$SELECT cs.override_health('a', value => 50, reason => 'x', expires_at => '2026-03-01')$$, '22023', NULL, 'no override that has expired');
SELECT throws_ok($$SELECT cs.override_health('nobody', value => 50, reason => 'x', expires_at => '2026-04-01')$$, 'P0002', NULL, 'no override of an unknown customer');
SELECT throws_ok($$SELECT cs.override_health('a', value => 50, reason => 'x', expires_at => 5)$$, '42804', NULL, 'expires_at is an instant');
SELECT is((SELECT count(*) FROM cs_internal.health_override), 0::bigint, 'nothing of these was kept');

SET cs_ext.actor = 'ann';
SET TimeZone = 'America/New_York';
SELECT cs.override_health('a', delta => -10.3, reason => 'the champion left', expires_at => '2026-03-09') \g /dev/null
SELECT cs.override_health('b', NULL, NULL, 'red', 'they told us', timestamptz '2026-03-20') \g /dev/null
SELECT cs.override_health('d', value => 30, reason => 'quiet', expires_at => now() + interval '100 years') \g /dev/null
SELECT is((SELECT expires_at FROM cs_internal.health_override WHERE customer_id = 'a'), '2026-03-09 00:00+01'::timestamptz, 'a literal is read in the policy''s zone');
CALL cs.refresh();
SELECT results_eq($$SELECT customer_id COLLATE "default", round(health_score::numeric, 6), band, band_reason, automatic_score FROM cs.customer_health WHERE customer_id <> 'c' ORDER BY 1$$,
	$$VALUES ('a', 47.7, 'red', 'override: the champion left', 58::float8), ('b', 90, 'red', 'override: they told us', 90), ('d', 30, 'red', 'override: quiet', NULL)$$, 'overrides stand beside the automatic score');
SELECT ok(bool_and(s = score), 'with overrides contributions still add exactly') FROM (
	SELECT (SELECT sum(contribution) FROM cs.health_explain(c)) AS s, cs.health_score(c) AS score FROM unnest('{a,b,d}'::text[]) c) x;
SELECT is((SELECT reason FROM cs.health_explain('a') WHERE measure = '(override)'), 'moved by ann until 2026-03-09 00:00:00+01: the champion left', 'and say who and why');
SELECT is((SELECT due_at FROM cs_internal.state WHERE customer_id = 'b'), '2026-03-08 00:00+01'::timestamptz, 'due at the turn of the day');
SET cs_ext.now = '2026-03-08 12:00+01';
SELECT cs_internal.take_snapshot('2026-03-08 00:00+01') \g /dev/null
SELECT results_eq($$SELECT customer_id COLLATE "default", round(score::numeric, 6), band FROM cs.health_history WHERE as_of = '2026-03-08 00:00+01' ORDER BY 1$$,
	$$VALUES ('a', 47.7, 'red'), ('b', 90, 'red'), ('c', NULL, NULL), ('d', 30, 'red')$$, 'a snapshot keeps what people saw at midnight');
SELECT results_eq($$SELECT (SELECT sum(contribution) FROM cs.health_explain(c, '2026-03-08')) FROM unnest('{a,b,c,d}'::text[]) c ORDER BY c$$,
	$$SELECT cs.health_score(c, '2026-03-08') FROM unnest('{a,b,c,d}'::text[]) c ORDER BY c$$, 'and can be explained exactly');
SELECT cs.override_health('a', value => 99, reason => 'a new champion', expires_at => timestamp '2026-03-08 18:00') \g /dev/null
CALL cs.refresh();
SELECT results_eq($$SELECT health_score, band FROM cs.customer_health WHERE customer_id = 'a'$$, $$VALUES (99::float8, 'green')$$, 'a newer override replaces the one before');
SELECT is((SELECT due_at FROM cs_internal.state WHERE customer_id = 'a'), '2026-03-08 18:00+01'::timestamptz, 'due when it expires');
SET cs_ext.now = '2026-03-08 18:00+01';
CALL cs.refresh();
SELECT results_eq($$SELECT health_score, band, override_expires_at FROM cs.customer_health WHERE customer_id = 'a'$$, $$VALUES (58::float8, 'yellow', NULL::timestamptz)$$, 'expired: the automatic score again, none of the older overrides');
SELECT is((SELECT count(*) FROM cs_internal.health_override), 4::bigint, 'overrides are kept');
SELECT results_eq($$SELECT customer_id COLLATE "default" FROM cs_internal.health_due(ARRAY['a', 'b', 'c', 'd']) ORDER BY 1$$, $$VALUES ('b'), ('d')$$, 'what has expired is not due again');
SET TimeZone = 'UTC';

-- Who leaves loses score and band, with a row of history.
UPDATE contract SET end_at = '2026-03-09' WHERE account_id = 'a';
SET cs_ext.now = '2026-03-10 12:00+01';
CALL cs.refresh();
SELECT results_eq($$SELECT health_score, band, band_reason, band_since, score_reason FROM cs.customer_health WHERE customer_id = 'a'$$,
	$$VALUES (NULL::float8, NULL::text, 'neither active nor in trial', '2026-03-10 12:00+01'::timestamptz, 'inactive')$$, 'who is not active is not scored');
SELECT is((SELECT count(*) FROM cs.health_history WHERE customer_id = 'a' AND band IS NULL), 1::bigint, 'and the change is history');
SELECT is(cs.health_score('a', '2026-03-09'), 58::float8, 'the score of before stays known');

-- ---- the other edge ----------------------------------------------------------------
UPDATE cs.scorecard SET red_below = 10, green_from = 90, edge_closed = 'below', hysteresis = 0 WHERE name = 'large';
DELETE FROM cs_internal.health_override;
UPDATE cs.measure SET best = 10 WHERE scorecard = 'large';
SELECT cs.mark_changed('answer', 'b') \g /dev/null
CALL cs.refresh();
SELECT results_eq($$SELECT health_score, band FROM cs.customer_health WHERE customer_id = 'b'$$, $$VALUES (90::float8, 'yellow')$$, 'edge_closed below: a score on the cut belongs to the lower band');
UPDATE cs.scorecard SET edge_closed = 'above' WHERE name = 'large';
CALL cs.refresh();
SELECT is((SELECT band FROM cs.customer_health WHERE customer_id = 'b'), 'green', 'edge_closed above: to the upper');

SELECT * FROM finish();
