-- Health scores that vendors published, from oracles/worked_cases_shared.json,
-- as scorecards over metrics brought along; and an NPS through the refresh.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET cs_ext.now = '2026-03-02';
SELECT plan(10);

CREATE TABLE worked AS
SELECT c ->> 'id' AS id, c -> 'inputs' AS inputs, c -> 'expected' AS expected, c -> 'exact' AS exact
FROM jsonb_array_elements(pg_read_file(:'testdata' || '/oracles/worked_cases_shared.json')::jsonb) c;
SELECT set_has('SELECT id FROM worked', $$VALUES ('health_natero_four_components'), ('health_gainsight_group'), ('health_missing_component_reweighted'), ('nps_dela')$$,
	'the four cases of health are there');

CREATE TABLE account (id text PRIMARY KEY);
CREATE TABLE contract (account_id text, start_at timestamptz, mrr numeric);
CREATE INDEX ON contract (account_id);
CREATE TABLE answer (account_id text, at timestamptz, respondent text, score numeric);
CREATE INDEX ON answer (account_id);
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR') \g /dev/null
SELECT count(*) FROM cs.add_source('account', 'customer', 'account', '{"customer_id": "id"}') \g /dev/null
SELECT count(*) FROM cs.add_source('contract', 'subscription', 'contract', '{"customer_id": "account_id", "start_at": "start_at", "mrr": "mrr"}') \g /dev/null
SELECT count(*) FROM cs.add_source('answer', 'survey', 'answer', '{"customer_id": "account_id", "at": "at", "kind": "''nps''", "respondent": "respondent", "score": "score"}') \g /dev/null
INSERT INTO cs.metric (name, source, expression) SELECT 'x' || k, 'survey', 'avg(score)' FROM generate_series(0, 9) k;

-- Weights of components; each component the plain mean of its metrics.
INSERT INTO cs.scorecard (name, enabled) VALUES ('natero', false);
INSERT INTO cs.measure_group (scorecard, name, weight)
SELECT 'natero', w.key, w.value::float8 FROM worked, jsonb_each_text(inputs -> 'weights') w WHERE id = 'health_natero_four_components';
CREATE TABLE natero AS
SELECT 'x' || row_number() OVER (ORDER BY m.key, v.ordinality) AS metric, m.key AS part, v.value::float8
FROM worked, jsonb_each(inputs -> 'metrics') m, jsonb_array_elements_text(m.value) WITH ORDINALITY v WHERE id = 'health_natero_four_components';
INSERT INTO cs.measure (scorecard, name, metric, measure_group, worst, best) SELECT 'natero', metric, metric, part, 0, 100 FROM natero;
CREATE TABLE result AS
SELECT d.* FROM (SELECT jsonb_object_agg(metric, value) AS metrics FROM natero) n, cs.score_detail(n.metrics, 'natero') d;
SELECT is(round(r.score::numeric), (expected ->> 'score_rounded')::numeric, 'health_natero_four_components') FROM worked, result r WHERE id = 'health_natero_four_components';
SELECT is(round(score::numeric, 9), 71.55, 'exactly 71.55') FROM result;
SELECT is((SELECT sum((c ->> 'contribution')::float8) FROM jsonb_array_elements(contributions) c), score, 'the contributions add exactly') FROM result;

-- Weights that do not sum to 100.
INSERT INTO cs.scorecard (name, enabled) VALUES ('gainsight', false), ('pulse', false);
INSERT INTO cs.measure (scorecard, name, metric, weight, worst, best)
SELECT 'gainsight', 'x' || w.ordinality, 'x' || w.ordinality, w.value::float8, 0, 100
FROM worked, jsonb_array_elements_text(inputs -> 'weights') WITH ORDINALITY w WHERE id = 'health_gainsight_group';
SELECT results_eq($$
	SELECT round(s::numeric, 9), round(s::numeric) FROM (SELECT cs.score(jsonb_object_agg('x' || v.ordinality, v.value), 'gainsight') AS s
		FROM worked, jsonb_array_elements(inputs -> 'scores') WITH ORDINALITY v WHERE id = 'health_gainsight_group') x
$$, $$SELECT (exact ->> 'score')::numeric, (exact ->> 'rounded')::numeric FROM worked WHERE id = 'health_gainsight_group'$$, 'health_gainsight_group');

-- A missing component's weight is shared out.
INSERT INTO cs.measure (scorecard, name, metric, weight, worst, best)
SELECT 'pulse', 'w' || w.ordinality - 1, 'x' || w.ordinality - 1, w.value::float8, 0, 100
FROM worked, jsonb_array_elements_text(inputs -> 'weights') WITH ORDINALITY w WHERE id = 'health_missing_component_reweighted';
SELECT results_eq($$
	SELECT c ->> 'measure', round(100 * (c ->> 'weight')::numeric, 9)
	FROM worked, cs.score_detail((SELECT jsonb_object_agg('x' || k, 50) - ('x' || (inputs ->> 'missing')) FROM generate_series(0, 5) k), 'pulse') d,
		jsonb_array_elements(d.contributions) c
	WHERE id = 'health_missing_component_reweighted' AND c ->> 'measure' <> 'w' || (inputs ->> 'missing') ORDER BY 1
$$, $$SELECT e.key, e.value::numeric FROM worked, jsonb_each_text(exact) e WHERE id = 'health_missing_component_reweighted' ORDER BY 1$$,
	'health_missing_component_reweighted');

-- NPS, from answers through the refresh: promoters 9 and 10, detractors 0 to 6.
INSERT INTO account VALUES ('a');
INSERT INTO contract VALUES ('a', '2026-01-01', 100);
INSERT INTO answer SELECT 'a', '2026-02-01', 'p' || k, 9 + k % 2 FROM worked, generate_series(1, (inputs ->> 'promoters')::int) k WHERE id = 'nps_dela';
INSERT INTO answer SELECT 'a', '2026-02-01', 'n' || k, 7 + k % 2 FROM worked, generate_series(1, (inputs ->> 'passives')::int) k WHERE id = 'nps_dela';
INSERT INTO answer SELECT 'a', '2026-02-01', 'd' || k, k % 7 FROM worked, generate_series(1, (inputs ->> 'detractors')::int) k WHERE id = 'nps_dela';
CALL cs.refresh();
SELECT is(m.value, (exact ->> 'nps')::float8, 'nps_dela') FROM worked, cs.customer_metric m WHERE id = 'nps_dela' AND m.customer_id = 'a' AND m.metric = 'nps_180d';

-- What cs.score() takes and what it refuses.
SELECT results_eq($$SELECT cs.score('{"x0": 10, "x1": null, "other": "text"}', 'pulse'), cs.score('{"x0": "NaN"}', 'pulse'), cs.score(NULL, 'pulse')$$,
	'VALUES (NULL::float8, NULL::float8, NULL::float8)', 'below the minimum coverage, and for NULL: NULL');
SELECT throws_ok($$SELECT cs.score('{"x0": "10"}', 'pulse')$$, '22023', 'metric "x0" is not a number: "10"', 'a text is no number');
SELECT throws_ok($$SELECT cs.score('{}', 'puls')$$, '42704', 'scorecard "puls" does not exist', 'an unknown scorecard');
SELECT * FROM finish();
