-- Churn factors: a planted signal is found with the numbers that plain SQL gives,
-- noise is not, and nothing of what came after the churn is seen.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SET cs_ext.now = '2025-06-15 12:00+00';
SELECT * FROM no_plan();

-- 240 customers. The lower x, the more leave in March or April 2025; y has nothing to do with it.
CREATE TABLE life AS
SELECT c AS customer, c % 12 AS x, c * 7919 % 101 AS y,
	CASE WHEN c % 12 <= 2 AND c / 12 % 2 = 0 OR c % 12 = 7 AND c / 12 % 5 = 0 THEN date '2025-03-05' + c % 50 END AS left_on
FROM generate_series(1, 240) c;
CREATE TABLE contract AS
SELECT customer, date '2024-01-01' AS start_on, left_on AS end_on, 10 AS mrr,
	CASE WHEN customer % 24 = 1 THEN date '2025-02-20' END AS asked_on, 'customer ' || customer AS name FROM life;
CREATE TABLE reading AS SELECT customer, timestamptz '2024-12-31 10:00+00' AS at, x, y FROM life;
-- what can only be known once somebody has left
CREATE TABLE farewell AS SELECT customer, (left_on + 1)::timestamptz AS at FROM life WHERE left_on IS NOT NULL;
CREATE TABLE verdict AS SELECT customer, timestamptz '2025-05-31' AS at, CASE WHEN left_on IS NULL THEN 1 ELSE 0 END AS good FROM life;

SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL) \g /dev/null
GRANT SELECT ON contract, reading, farewell, verdict TO cs_ext_run;
SELECT count(*) FROM cs.add_source('contract', 'subscription', 'contract', '{"customer_id": "customer", "start_at": "start_on", "end_at": "end_on", "mrr": "mrr", "cancel_requested_at": "asked_on"}') \g /dev/null
SELECT count(*) FROM cs.add_source('reading', 'other', 'reading', '{"customer_id": "customer", "at": "at", "x_x": "x", "x_y": "y"}') \g /dev/null
SELECT count(*) FROM cs.add_source('farewell', 'other', 'farewell', '{"customer_id": "customer", "at": "at"}') \g /dev/null
SELECT count(*) FROM cs.add_source('verdict', 'other', 'verdict', '{"customer_id": "customer", "at": "at", "x_good": "good"}') \g /dev/null
INSERT INTO cs.metric (name, source, expression, unit, better) VALUES
	('planted', 'reading', 'max(x_x)', 'number', 'high'), ('noise', 'reading', 'max(x_y)', 'number', 'high'), ('half', 'reading', 'max(x_y) FILTER (WHERE x_y > 50)', 'number', 'high'),
	('flat', 'reading', 'count(*)', 'count', 'high'), ('rare', 'reading', 'count(*) FILTER (WHERE x_x = 0)', 'count', 'low'), ('common', 'reading', 'count(*) FILTER (WHERE x_x > 0)', 'count', 'low'),
	('goodbyes', 'farewell', 'count(*)', 'count', 'low'), ('hindsight', 'verdict', 'max(x_good)', 'flag', 'high');
CALL cs.refresh();

CREATE TEMP TABLE march AS SELECT * FROM cs.churn_factors('2025-03');
CREATE TEMP TABLE quarter AS SELECT * FROM cs.churn_factors('2025-Q1');
SELECT diag(format('%s %s: effect %s [%s, %s], r %s, bottom %s, top %s', rank, metric, effect, effect_low, effect_high, correlation, bottom_rate, top_rate)) FROM march;

-- of March: who was there on the 1st and had not given notice; gone is who left or asked before April
CREATE TEMP TABLE seen AS SELECT l.*, (least(left_on, asked_on) < '2025-04-01')::integer AS gone FROM life l JOIN contract USING (customer) WHERE asked_on IS NULL OR asked_on >= '2025-03-01' OR left_on IS NULL;
UPDATE seen SET gone = coalesce((left_on < '2025-04-01')::integer, 0);
SELECT results_eq($$SELECT n, churned, missing, announced, months, churn_rate FROM march WHERE metric = 'planted'$$,
	$$SELECT count(*), sum(gone), 0::bigint, 240 - count(*), 1::bigint, avg(gone)::numeric(18,9) FROM seen$$, 'who is observed, and who left');
SELECT cmp_ok(announced, '>', 0::bigint, 'some had given notice before and are left out') FROM march LIMIT 1;
SELECT is(rank, 1::bigint, 'the planted signal is first') FROM march WHERE metric = 'planted';
SELECT ok(effect < 0 AND effect_high < 0, 'less of it, more churn, and surely so') FROM march WHERE metric = 'planted';
SELECT ok(effect_low < 0 AND effect_high > 0, 'the effect of noise may be none') FROM march WHERE metric = 'noise';
SELECT results_eq($$SELECT correlation, effect, mean::numeric(18,6), sd::numeric(18,6) FROM march WHERE metric = 'planted'$$,
	$$SELECT corr(gone, x)::numeric(18,9), (regr_slope(gone, x) * stddev(x))::numeric(18,9), avg(x)::numeric(18,6), stddev(x)::numeric(18,6) FROM seen$$, 'correlation and effect as SQL has them');
SELECT is((SELECT (effect_high - effect)::numeric(18,7) FROM march WHERE metric = 'planted'), (
	SELECT (1.959963984540054 * sqrt(sum((z * (gone - a - b * z)) ^ 2) * count(*) / (count(*) - 1)) / (count(*) - 1))::numeric(18,7)
	FROM (SELECT (x - m) / s AS z, gone, a, k * s AS b FROM seen, (SELECT avg(x)::float8 AS m, stddev(x)::float8 AS s, avg(gone)::float8 AS a, regr_slope(gone, x) AS k FROM seen) y) r), 'and its interval');
SELECT results_eq($$SELECT bottom_to, bottom_n, bottom_churned, top_from, top_n, top_churned FROM march WHERE metric = 'planted'$$,
	$$SELECT q.lo::numeric, count(*) FILTER (WHERE x <= q.lo), sum(gone) FILTER (WHERE x <= q.lo), q.hi::numeric, count(*) FILTER (WHERE x >= q.hi), sum(gone) FILTER (WHERE x >= q.hi)
	FROM seen, (SELECT percentile_disc(0.2) WITHIN GROUP (ORDER BY x) AS lo, percentile_disc(0.8) WITHIN GROUP (ORDER BY x) AS hi FROM seen) q GROUP BY q.lo, q.hi$$, 'the lowest and the highest fifth');
SELECT results_eq($$SELECT metric, bottom_to, bottom_n, top_from, top_n FROM march WHERE metric IN ('rare', 'common') ORDER BY 1$$,
	$$SELECT 'common', 0::numeric, count(*) FILTER (WHERE x = 0), 1::numeric, count(*) FILTER (WHERE x > 0) FROM seen UNION ALL
	SELECT 'rare', 0, count(*) FILTER (WHERE x > 0), 1, count(*) FILTER (WHERE x = 0) FROM seen ORDER BY 1$$, 'a value that fills more than a fifth stands against the rest');
SELECT results_eq($$SELECT n + missing, missing > 0 FROM march WHERE metric = 'half'$$, $$SELECT count(*), true FROM seen$$, 'who has no value is counted apart');

-- ---- no leak --------------------------------------------------------------------
SELECT results_eq($$SELECT rank, sd, effect FROM march WHERE metric = 'goodbyes'$$, $$VALUES (NULL::bigint, 0::numeric, NULL::numeric)$$, 'what is written when somebody has left is not seen');
SELECT results_eq($$SELECT rank, n, missing FROM march WHERE metric = 'hindsight'$$, $$SELECT NULL::bigint, 0::bigint, count(*) FROM seen$$, 'nor what is found out later');
SELECT is(rank, NULL, 'what is the same for all has no rank') FROM march WHERE metric = 'flat';
SELECT is((SELECT array_agg(rank ORDER BY rank) FROM march WHERE rank IS NOT NULL), (SELECT array_agg(g) FROM generate_series(1, (SELECT count(*) FROM march WHERE rank IS NOT NULL)) g), 'ranks without gaps');
SELECT is_empty($$SELECT * FROM march a, march b WHERE a.rank < b.rank AND abs(a.effect) < abs(b.effect)$$, 'by the size of the effect');
UPDATE reading SET x = 12 - x, y = 101 - y, at = '2025-03-01 00:00+00';
CALL cs.refresh();
SELECT results_eq($$SELECT rank, n, missing FROM cs.churn_factors('2025-03') WHERE metric = 'planted'$$, $$SELECT NULL::bigint, 0::bigint, count(*) FROM seen$$, 'a value of the instant itself is not before it');
UPDATE reading SET x = 12 - x, y = 101 - y, at = '2024-12-31 10:00+00';
CALL cs.refresh();
SELECT set_eq($$SELECT * FROM cs.churn_factors('2025-03')$$, 'SELECT * FROM march', 'the same facts give the same, bit for bit');

-- ---- shuffled ---------------------------------------------------------------------
UPDATE reading r SET x = s.x FROM (SELECT a.customer, b.x FROM (SELECT customer, row_number() OVER (ORDER BY customer) AS n FROM life) a
	JOIN (SELECT x, row_number() OVER (ORDER BY md5(customer::text)) AS n FROM life) b USING (n)) s WHERE s.customer = r.customer;
CALL cs.refresh();
SELECT ok(effect_low < 0 AND effect_high > 0, 'shuffled among the customers the signal is gone: ' || effect) FROM cs.churn_factors('2025-03') WHERE metric = 'planted';

-- ---- several months -----------------------------------------------------------------
SELECT is(months, 3::bigint, 'a quarter is seen at three month starts') FROM quarter LIMIT 1;
SELECT results_eq($$SELECT n, customers FROM quarter WHERE metric = 'planted'$$, $$SELECT 240 + 240 + count(*), 240::bigint FROM seen$$, 'each customer at each of them');
SELECT is((SELECT churned FROM quarter WHERE metric = 'planted'), (SELECT sum(gone) FROM seen) + (SELECT count(*) FROM contract WHERE asked_on < '2025-04-01' AND end_on IS NOT NULL), 'an event counts once: when notice was given');

-- ---- refused ----------------------------------------------------------------------
SELECT throws_ok($$SELECT * FROM cs.churn_factors('this month')$$, '22023', 'no month of "this month" is over', 'a month that is not over');
SELECT is(months, 2::bigint, 'of a running quarter the months that are over') FROM cs.churn_factors('this quarter') LIMIT 1;
SELECT throws_ok($$SELECT * FROM cs.churn_factors('2025-03', 'nowhere:x')$$, '22023', NULL, 'an unknown segment');
SELECT * FROM finish();
