-- Kaplan-Meier and log-rank against numbers computed elsewhere (published cases,
-- oracles/telco.json, R's survival run on two data sets), their properties on random
-- durations, then active periods and survival over a ledger.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SELECT * FROM no_plan();

-- ---- published cases ------------------------------------------------------------

CREATE TABLE worked AS
SELECT c ->> 'id' AS id, c -> 'inputs' AS inputs, c -> 'exact' AS exact, c -> 'expected' AS expected
FROM jsonb_array_elements(pg_read_file(:'testdata' || '/oracles/worked_cases_shared.json')::jsonb) c;

CREATE TABLE five AS
SELECT cs.km((i ->> 'days')::float8, (i ->> 'churned')::int = 1) AS estimate
FROM worked, jsonb_array_elements(inputs) i WHERE id = 'km_five_customers';
SELECT is((SELECT jsonb_object_agg('S' || time, round(survival::numeric, 12)) FROM five, cs.km_curve(estimate) WHERE time > 0),
	(SELECT jsonb_object_agg(key, round(value::numeric, 12)) FROM worked, jsonb_each_text(exact) WHERE id = 'km_five_customers'),
	'five customers by hand');
SELECT results_eq('SELECT time, at_risk, events, censored FROM five, cs.km_curve(estimate)',
	$$VALUES (0::float8, 5::bigint, 0::bigint, 0::bigint), (10, 5, 1, 0), (20, 4, 1, 1), (30, 2, 1, 0), (40, 1, 0, 1)$$,
	'and who was at risk: at a tie the censored one still is');
SELECT is((SELECT array[cs.median(estimate), cs.survival_at(estimate, 9.9), round(cs.survival_at(estimate, 40)::numeric, 12), cs.survival_at(estimate, 40.1), cs.restricted_mean(estimate, 20),
	cs.restricted_mean(estimate), cs.restricted_mean(estimate, 41)] FROM five),
	'{30,1,0.3,NULL,18,27,NULL}'::float8[], 'its median, shares and means: nothing is known after the last time');

CREATE TABLE leukemia AS
SELECT '0' AS grp, t::float8 AS duration, true AS event FROM worked, jsonb_array_elements(inputs -> 'group0' -> 't') t WHERE id = 'logrank_leukemia'
UNION ALL
SELECT '1', t::float8, n <= 9 FROM worked, jsonb_array_elements(inputs -> 'group1' -> 't') WITH ORDINALITY u (t, n) WHERE id = 'logrank_leukemia';
SELECT is((SELECT jsonb_build_object('chisq', round((cs.logrank(duration, event, grp)).chi_square::numeric, 9),
		'p', round((cs.logrank(duration, event, grp)).p_value::numeric, 9)) FROM leukemia),
	(SELECT exact FROM worked WHERE id = 'logrank_leukemia'), 'log-rank of two groups of patients');
SELECT is((SELECT (cs.logrank(duration, event, grp)).degrees_of_freedom FROM leukemia), 1, 'with one degree of freedom');

-- ---- Telco: overall, by contract -----------------------------------------------

CREATE TABLE telco_text (customer_id text, gender text, senior text, partner text, dependents text, tenure float8, phone text, lines text,
	internet text, security text, backup text, protection text, support text, tv text, movies text, contract text, paperless text,
	payment text, monthly numeric, total text, churn text);
SELECT format('COPY telco_text FROM %L CSV HEADER', :'testdata' || '/data/telco/Telco-Customer-Churn.csv') \gexec
CREATE TABLE telco_oracle AS SELECT pg_read_file(:'testdata' || '/oracles/telco.json')::jsonb AS doc;
CREATE TABLE telco_km AS
SELECT coalesce(replace(contract, 'One year', 'One_year'), 'overall') AS name, cs.km(tenure, churn = 'Yes') AS estimate
FROM (SELECT replace(contract, 'Two year', 'Two_year') AS contract, tenure, churn FROM telco_text) t GROUP BY ROLLUP (contract);
CREATE TABLE telco_expected AS
SELECT e.key AS name, u.*
FROM telco_oracle, jsonb_each(doc -> 'km') e,
	ROWS FROM (jsonb_array_elements_text(e.value -> 'times'), jsonb_array_elements_text(e.value -> 'n_risk'),
		jsonb_array_elements_text(e.value -> 'survival'), jsonb_array_elements_text(e.value -> 'std_err')) u (time, n_risk, survival, std_err);
SELECT is((SELECT count(*) FROM telco_expected), 32::bigint, 'the oracle has 32 points of four curves');
SELECT is((SELECT count(*) FROM telco_expected e JOIN telco_km k USING (name), cs.km_curve(k.estimate) c
	WHERE c.time = e.time::float8 AND c.at_risk = e.n_risk::bigint AND abs(c.survival - e.survival::float8) < 1e-9), 32::bigint, 'each is met');
-- S ln(S) ln(ln(low) / ln(S)) / z is the standard error again
SELECT is((SELECT count(*) FROM telco_expected e JOIN telco_km k USING (name), cs.km_curve(k.estimate) c
	WHERE c.time = e.time::float8 AND abs(e.std_err::float8 - CASE WHEN c.survival = 1 THEN 0
		ELSE -c.survival * ln(c.survival) * ln(ln(c.ci_low) / ln(c.survival)) / 1.959963984540054 END) < 1e-9),
	32::bigint, 'with its standard error, read back from the bound');
SELECT results_eq($$SELECT k.name, (k.estimate).n, cs.median(k.estimate) FROM telco_km k ORDER BY 1$$,
	$$SELECT e.key, (e.value ->> 'n')::bigint, nullif(e.value ->> 'median', 'NA')::float8 FROM telco_oracle, jsonb_each(doc -> 'km') e ORDER BY 1$$,
	'customers and medians');
CREATE TABLE telco_test AS SELECT (cs.logrank(tenure, churn = 'Yes', contract)).* FROM telco_text;
SELECT is((SELECT jsonb_build_object('df', t.degrees_of_freedom, 'p', t.p_value, 'groups', t.groups, 'n', t.n, 'observed', t.observed) FROM telco_test t),
	(SELECT (doc #> '{logrank,Contract}') - '{chisq,expected}'::text[] FROM telco_oracle), 'log-rank by contract: groups and their events');
SELECT ok((SELECT abs(t.chi_square / (doc #>> '{logrank,Contract,chisq}')::float8 - 1) < 1e-6 FROM telco_test t, telco_oracle), 'its chi-square');
SELECT is((SELECT count(*) FROM telco_test t, telco_oracle, unnest(t.expected) WITH ORDINALITY x (e, i)
	WHERE abs(x.e / (doc #>> array['logrank', 'Contract', 'expected', (i - 1)::text])::float8 - 1) < 1e-9), 3::bigint, 'and expected events');

-- ---- waltons and lung: what R says, asked here ------------------------------------------------

CREATE TABLE r_curve (name text, time float8, n_risk bigint, n_event bigint, n_censor bigint, survival float8, ci_low float8, ci_high float8);
CREATE TABLE r_mean (name text, median float8, mean float8);
CREATE TABLE r_test (name text, chi_square float8, df integer, p float8);
CREATE TABLE r_version (r text, survival text);
-- from the folder above test/; without R there are no numbers, and this fails
\set said_by_r `/usr/bin/Rscript --vanilla test/lib/survival_r.R :'testdata'/data/lifelines`
:said_by_r
SELECT is((SELECT count(*) FROM r_version), 1::bigint, 'R ran');
SELECT diag(format('R %s, survival %s', r, survival)) FROM r_version;

CREATE TABLE waltons (t float8, e integer, grp text);
SELECT format('COPY waltons FROM %L CSV HEADER', :'testdata' || '/data/lifelines/waltons_dataset.csv') \gexec
CREATE TABLE lung (n integer GENERATED ALWAYS AS IDENTITY, inst text, t integer, status integer, age integer, sex integer, ecog text, a text, b text, c text, d text);
SELECT format('COPY lung (inst, t, status, age, sex, ecog, a, b, c, d) FROM %L CSV HEADER', :'testdata' || '/data/lifelines/lung.csv') \gexec
CREATE TABLE fitted AS
SELECT 'waltons ' || grp AS name, 0.95 AS confidence, cs.km(t, e = 1) AS estimate FROM waltons GROUP BY grp
UNION ALL SELECT 'lung', 0.9, cs.km(t, status = 1) FROM lung
UNION ALL SELECT 'lung late', 0.95, cs.km(t, status = 1, n * 37 % t) FROM lung;

CREATE FUNCTION pg_temp.near(a float8, b float8) RETURNS boolean LANGUAGE sql AS $$ SELECT coalesce(abs(a - b) < 1e-9, a IS NULL AND b IS NULL) $$;
SELECT results_eq($$SELECT f.name, c.time, c.at_risk, c.events, c.censored FROM fitted f, cs.km_curve(f.estimate) c WHERE c.time > 0 ORDER BY 1, 2$$,
	'SELECT name, time, n_risk, n_event, n_censor FROM r_curve ORDER BY 1, 2', 'R: counts of four curves, one with late entry');
SELECT is_empty($$SELECT r.*, c.* FROM fitted f CROSS JOIN cs.km_curve(f.estimate, f.confidence) c JOIN r_curve r ON r.name = f.name AND r.time = c.time
	WHERE NOT (pg_temp.near(c.survival, r.survival) AND pg_temp.near(c.ci_low, r.ci_low) AND pg_temp.near(c.ci_high, r.ci_high))$$, 'R: survival and both bounds');
SELECT is((SELECT count(*) FROM fitted f JOIN r_mean r USING (name) WHERE cs.median(f.estimate) = r.median AND pg_temp.near(cs.restricted_mean(f.estimate), r.mean)),
	4::bigint, 'R: medians and restricted means');
CREATE TABLE tested AS
SELECT 'waltons' AS name, (cs.logrank(t, e = 1, grp)).* FROM waltons
UNION ALL SELECT 'lung sex', (cs.logrank(t, status = 1, sex::text)).* FROM lung
UNION ALL SELECT 'lung ecog', (cs.logrank(t, status = 1, coalesce(ecog, 'none'))).* FROM lung;
SELECT is((SELECT count(*) FROM tested t JOIN r_test r USING (name) WHERE t.degrees_of_freedom = r.df
	AND abs(t.chi_square / r.chi_square - 1) < 1e-9 AND abs(t.p_value / r.p - 1) < 1e-9), 3::bigint, 'R: three log-rank tests, p-values to nine digits');

-- ---- properties on random durations ------------------------------------------------

-- :seed can be given to repeat a run
\ir ../lib/seed.sql
CREATE TABLE life AS
SELECT x.*, CASE WHEN x.duration > 1 AND random() < 0.5 THEN floor(random() * x.duration) ELSE 0 END AS entry
FROM (SELECT i, floor(random() * 400)::float8 AS duration, random() < 0.6 AS event, chr(65 + (random() * 3)::int) AS grp FROM generate_series(1, 20000) i) x;

SELECT is((SELECT cs.km(duration, event, entry ORDER BY duration DESC)::text FROM life), (SELECT cs.km(duration, event, entry ORDER BY md5(i::text))::text FROM life),
	'the order of rows changes nothing');
SELECT is((SELECT cs.logrank(duration, event, grp ORDER BY duration, grp)::text FROM life), (SELECT cs.logrank(duration, event, grp ORDER BY grp DESC, i)::text FROM life),
	'nor that of a log-rank test, to the bit');
SELECT is((SELECT cs.km(duration, event, 0)::text FROM life), (SELECT cs.km(duration, event)::text FROM life), 'entry 0 is no late entry');
SELECT is((SELECT cs.km(duration, event, NULL)::text FROM life), (SELECT cs.km(duration, event)::text FROM life), 'nor is NULL');
SELECT is_empty($$SELECT c.time FROM (SELECT cs.km(duration, true) AS estimate FROM life) k, cs.km_curve(k.estimate) c
	WHERE abs(c.survival - (SELECT avg((duration > c.time)::int) FROM life)) > 1e-12$$, 'without censoring the curve is the share that lasts longer');
SELECT ok((SELECT abs(cs.restricted_mean(cs.km(duration, true)) / avg(duration) - 1) < 1e-12 FROM life), 'and its mean the mean');
SELECT is_empty($$SELECT c.time FROM (SELECT cs.km(duration, event, entry) AS estimate FROM life) k, cs.km_curve(k.estimate) c
	WHERE c.time > 0 AND c.at_risk <> (SELECT count(*) FROM life WHERE duration >= c.time AND (entry = 0 OR entry < c.time))$$, 'at risk is who entered before and has not left');
SELECT is_empty($$SELECT c.time FROM (SELECT cs.km(duration, event, entry) AS estimate FROM life) k, cs.km_curve(k.estimate) c
	WHERE NOT (c.ci_low <= c.survival AND c.survival <= c.ci_high) OR c.ci_low < 0 OR c.ci_high > 1$$, 'bounds lie around the curve, within 0 and 1');
SELECT is((SELECT array_agg(degrees_of_freedom) FROM (SELECT (cs.logrank(duration, event, g)).degrees_of_freedom FROM life, unnest(ARRAY[grp, 'twin']) g) x), '{4}', 'four groups and all of them make five');

-- workers' parts are put together
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2;
CREATE FUNCTION pg_temp.plan_of(q text) RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY EXECUTE 'EXPLAIN (COSTS off) ' || q; END $$;
SELECT ok((SELECT string_agg(p, ' ') FROM pg_temp.plan_of('SELECT cs.km(duration, event, entry) FROM life') p) ~ 'Partial Aggregate.*Parallel', 'km runs in parallel');
CREATE TABLE together AS SELECT cs.km(duration, event, entry)::text AS estimate FROM life;
SET max_parallel_workers_per_gather = 0;
SELECT is((SELECT estimate FROM together), (SELECT cs.km(duration, event, entry)::text FROM life), 'to the same estimate');
RESET max_parallel_workers_per_gather; RESET min_parallel_table_scan_size; RESET parallel_tuple_cost; RESET parallel_setup_cost;

-- ---- fight-churn's active periods ---------------------------------------------------

CREATE TABLE subscription (account_id integer NOT NULL, product text, start_date date NOT NULL, end_date date, mrr numeric NOT NULL,
	quantity numeric, units text, bill_period_months integer, discount numeric);
CREATE INDEX ON subscription (account_id);
CREATE TABLE listing AS
SELECT s.key AS set_name, (s.value #>> '{4.1_4.2_active_periods,observe,0}')::date AS since, (s.value #>> '{4.1_4.2_active_periods,observe,1}')::date AS until, r.*
FROM jsonb_each(pg_read_file(:'testdata' || '/oracles/fightchurn_expected.json')::jsonb -> 'sets') s,
	jsonb_to_recordset(s.value #> '{4.1_4.2_active_periods,rows}') r (account_id integer, start_date date, churn_date date);
SET cs_ext.now = '2020-05-15';
SELECT cs.setup(time_zone => 'UTC', currency => 'USD', template => NULL) \g /dev/null
UPDATE cs.policy SET period_edge = 'at', free_is_active = true;
SELECT count(*) FROM cs.add_source('subscription', 'subscription', 'subscription',
	'{"customer_id": "account_id", "start_at": "start_date", "end_at": "end_date", "mrr": "mrr", "product": "product"}') \g /dev/null

SELECT format('COPY subscription FROM %L CSV HEADER', :'testdata' || '/oracles/fightchurn_inputs/sim_social/subscription.csv') \gexec
CALL cs.refresh();
CREATE VIEW ours AS SELECT customer_id::integer AS account_id, start_at::date AS start_date, end_at::date AS churn_date FROM cs.active_periods(7);
SELECT results_eq($$SELECT o.* FROM ours o WHERE coalesce(churn_date, 'infinity') >= '2020-02-01' ORDER BY 1, 2$$,
	$$SELECT account_id, start_date, churn_date FROM listing WHERE set_name = 'sim_social' ORDER BY 1, 2$$, 'sim_social: listing 4.1');

TRUNCATE subscription;
SELECT format('COPY subscription FROM %L CSV HEADER', :'testdata' || '/oracles/fightchurn_inputs/hand_edges/subscription.csv') \gexec
SET cs_ext.now = '2024-05-20';
CALL cs.refresh();
SELECT results_eq($$SELECT o.* FROM ours o WHERE coalesce(churn_date, 'infinity') >= '2024-01-01' ORDER BY 1, 2$$,
	$$SELECT account_id, start_date, churn_date FROM listing WHERE set_name = 'hand_edges' AND account_id <> 18 ORDER BY 1, 2$$,
	'hand_edges: listing 4.1, without the account of no length');
SELECT results_eq($$SELECT period_no, start_at::date, end_at::date, days, churned FROM cs.active_periods(9) WHERE customer_id = '4'$$,
	$$VALUES (1, date '2024-01-15', date '2024-02-15', 31, true), (2, '2024-02-25', NULL, 85, false)$$, 'a gap of ten days is more than nine; the end announced for June has not come');
SELECT results_eq($$SELECT period_no, start_at::date, end_at::date, days, churned FROM cs.active_periods(10) WHERE customer_id = '4'$$,
	$$VALUES (1, date '2024-01-15', NULL::date, 126, false)$$, 'and not more than ten: the gap does not end the period');
SELECT is((SELECT count(*) FROM cs.active_periods()), (SELECT count(*) FROM cs.active_periods(7)), 'left out, the gap is the policy''s');
SELECT throws_ok('SELECT * FROM cs.active_periods(-1)', '22023', 'gap_days must be from 0 to 36500, not -1', 'a negative gap is refused');
SELECT is_empty($$SELECT m.customer_id FROM cs_internal.state m JOIN cs.active_periods() a ON a.customer_id = m.customer_id AND a.end_at IS NULL
	WHERE m.tenure_days IS DISTINCT FROM a.days$$, 'the days of a running period are the tenure');

-- ---- survival over the ledger ----------------------------------------------------------

SELECT results_eq('SELECT * FROM cs.survival()', $$SELECT c.*, NULL::text FROM (SELECT cs.km(days, churned) AS estimate FROM cs.active_periods()) k, cs.km_curve(k.estimate) c$$,
	'survival is the curve of active periods');
UPDATE cs.policy SET confidence = 0.5;
SELECT ok((SELECT bool_and(s.ci_low > c.ci_low AND s.ci_high < c.ci_high) FROM cs.survival() s JOIN (SELECT c.* FROM (SELECT cs.km(days, churned) AS estimate FROM cs.active_periods()) k,
	cs.km_curve(k.estimate) c) c USING (time) WHERE s.survival BETWEEN 0.01 AND 0.99), 'its bounds follow policy.confidence');

-- by hand: when who was stored in which segment
TRUNCATE subscription;
CALL cs.refresh();
SELECT is_empty('SELECT * FROM cs.survival()', 'an empty ledger has no curve');
SELECT is_empty('SELECT * FROM cs.active_periods()', 'and no periods');
INSERT INTO cs_internal.movement (customer_id, at, kind, delta, mrr_after, active_after) VALUES
	('a', '2024-01-01', 'new', 10, 10, true), ('a', '2024-03-01', 'churn', -10, 0, false),   -- 60 days
	('b', '2024-01-01', 'new', 10, 10, true),
	('c', '2024-01-01', 'new', 10, 10, true), ('c', '2024-01-31', 'merge_out', -10, 0, false),
	('d', '2024-02-01', 'new', 10, 10, true), ('d', '2024-02-11', 'churn', -10, 0, false);
INSERT INTO cs_internal.membership (customer_id, dimension, segment, valid_from, valid_to, source) VALUES
	('a', 'tier', 'gold', '2024-01-21', '2024-03-01', 'rule'), ('a', 'tier', 'none', '2024-03-01', NULL, 'rule'),
	('b', 'tier', 'gold', '2024-01-01', '2024-02-10', 'rule'), ('b', 'tier', 'tin', '2024-02-10', NULL, 'rule'),
	('c', 'tier', 'gold', '2024-01-01', NULL, 'rule'),
	('d', 'tier', 'gold', '2024-02-11', NULL, 'rule');          -- only after it had left
SELECT results_eq($$SELECT customer_id, days, churned FROM cs.active_periods() ORDER BY 1$$,
	$$VALUES ('a', 60, true), ('b', 140, false), ('c', 30, false), ('d', 10, true)$$, 'who went into a merged customer did not churn');
SELECT results_eq($$SELECT time, at_risk, events, censored, survival FROM cs.survival('tier:gold')$$,
	$$VALUES (0::float8, 2::bigint, 0::bigint, 0::bigint, 1::float8), (30, 3, 0, 1, 1), (40, 2, 0, 1, 1), (60, 1, 1, 0, 0)$$,
	'in a segment: a is seen from day 20 on, b until day 40, c until its merge, d never');
SELECT results_eq($$SELECT time, at_risk, events, censored FROM cs.survival('tin')$$, $$VALUES (0::float8, 0::bigint, 0::bigint, 0::bigint), (140, 1, 0, 1)$$,
	'b goes on in the other segment');
SELECT throws_ok($$SELECT * FROM cs.survival('tier:silver')$$, '22023', 'unknown segment "tier:silver"', 'an unknown segment is refused');

-- e is paused in between; f is in Berlin's summer; g came into gold and left on one day
INSERT INTO cs_internal.movement (customer_id, at, kind, delta, mrr_after, active_after) VALUES
	('e', '2024-01-01', 'new', 10, 10, true), ('e', '2024-02-01', 'pause', -10, 0, true), ('e', '2024-03-01', 'resume', 10, 10, true),
	('f', '2024-03-01 00:00 Europe/Berlin', 'new', 10, 10, true), ('f', '2024-04-01 00:00 Europe/Berlin', 'churn', -10, 0, false),
	('g', '2024-01-01', 'new', 10, 10, true), ('g', '2024-01-15 18:00', 'churn', -10, 0, false);
INSERT INTO cs_internal.membership (customer_id, dimension, segment, valid_from, source) VALUES ('g', 'tier', 'gold', '2024-01-15 06:00', 'rule');
SELECT results_eq($$SELECT customer_id, period_no, days, churned FROM cs.active_periods(0) WHERE customer_id IN ('e', 'g') ORDER BY 1$$,
	$$VALUES ('e', 1, 140, false), ('g', 1, 14, true)$$, 'a pause ends no active period');
SELECT is((SELECT max(at_risk) FROM cs.survival('tier:gold')), 3::bigint, 'who came in and left on one day is not seen at risk');
UPDATE cs.policy SET time_zone = 'Europe/Berlin';
SELECT is((SELECT days FROM cs.active_periods() WHERE customer_id = 'f'), 31, 'days are those of the policy''s zone: March has 31, one of them short');
SET TimeZone = 'Pacific/Apia';
SELECT is((SELECT days FROM cs.active_periods() WHERE customer_id = 'f'), 31, 'whatever the session''s is');
RESET TimeZone;
UPDATE cs.policy SET time_zone = 'UTC';
DELETE FROM cs_internal.movement WHERE customer_id IN ('e', 'f', 'g');

CREATE ROLE survival_reader;
SELECT cs.grant_reader('survival_reader') \g /dev/null
SET ROLE survival_reader;
SELECT (SELECT count(*) FROM cs.survival('tier:gold')) = 4 AND (SELECT cs.median(cs.km(days, churned)) FROM cs.active_periods()) = 60 AS read \gset
RESET ROLE;
SELECT ok(:'read', 'a reader may ask all of this');
SELECT cs_internal.revoke_definer('survival_reader') \g /dev/null
DROP ROLE survival_reader;

SELECT * FROM finish();
