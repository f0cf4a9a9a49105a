-- Cohort retention: RavenStack through the pipeline against pandas
-- (oracles/ravenstack.json), then small ledgers by hand.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SELECT * FROM no_plan();

CREATE TABLE subscription (subscription_id text PRIMARY KEY, account_id text NOT NULL, start_date date NOT NULL, end_date date, plan_tier text, seats integer,
	mrr_amount numeric, arr_amount numeric, is_trial boolean, upgrade_flag boolean, downgrade_flag boolean, churn_flag boolean,
	billing_frequency text, auto_renew_flag boolean);
CREATE INDEX ON subscription (account_id);
SELECT format('COPY subscription FROM %L CSV HEADER', :'testdata' || '/data/ravenstack/ravenstack_subscriptions.csv') \gexec
CREATE TABLE expected AS
SELECT (c.key || '-01')::date AS cohort, a.n::integer - 1 AS age, (c.value ->> 'size')::bigint AS size, (a.cell ->> 0)::bigint AS active, (a.cell ->> 1)::numeric AS mrr
FROM jsonb_each(pg_read_file(:'testdata' || '/oracles/ravenstack.json')::jsonb -> 'cohorts_month_end') c,
	jsonb_array_elements(c.value -> 'active_and_mrr_by_age') WITH ORDINALITY a (cell, n);

SET cs_ext.now = '2025-01-01';
SELECT cs.setup(time_zone => 'UTC', currency => 'USD', template => NULL) \g /dev/null
SELECT count(*) FROM cs.add_source('subscription', 'subscription', 'subscription',
	'{"customer_id": "account_id", "subscription_id": "subscription_id", "start_at": "start_date", "end_at": "end_date", "mrr": "mrr_amount", "is_trial": "is_trial"}') \g /dev/null
CALL cs.refresh();

SELECT results_eq($$SELECT cohort, age, customers, active, mrr FROM cs.retention_cohorts() WHERE cohort < '2023-07-01' ORDER BY 1, 2$$,
	'SELECT * FROM expected ORDER BY 1, 2', 'RavenStack: six cohorts, customers and money at each month''s end');
SELECT is((SELECT bool_and(complete) FROM cs.retention_cohorts()), true, 'at the first of a month every month is complete');
SELECT is((SELECT sum(customers) FROM cs.retention_cohorts() WHERE age = 0), (SELECT count(DISTINCT customer_id) FROM cs.movement WHERE mrr_after > 0)::numeric,
	'everybody who ever paid is in one cohort');
SELECT is_empty($$SELECT c.period_end FROM cs.retention_cohorts() c GROUP BY 1 HAVING sum(c.mrr) <> cs.mrr(c.period_end)$$, 'cohorts add up to the MRR of every month');
SELECT is_empty($$SELECT c.period_end FROM cs.retention_cohorts() c GROUP BY 1
	HAVING sum(c.active) <> (SELECT count(*) FROM (SELECT DISTINCT ON (customer_id) active_after FROM cs.movement WHERE at < c.period_end ORDER BY customer_id, at DESC) x WHERE active_after)$$,
	'and to its customers');
SELECT is_empty($$SELECT 1 FROM cs.retention_cohorts('year') c GROUP BY period_end HAVING sum(mrr) <> cs.mrr(period_end)$$, 'so do those by year');
SELECT is_empty($$SELECT 1 FROM cs.retention_cohorts('quarter') c GROUP BY period_end HAVING sum(mrr) <> cs.mrr(period_end)$$, 'by quarter');
SELECT is_empty($$SELECT 1 FROM cs.retention_cohorts('week') c GROUP BY period_end HAVING sum(mrr) <> cs.mrr(period_end)$$, 'and by week');
SELECT is_empty($$SELECT * FROM cs.retention_cohorts() WHERE retention IS DISTINCT FROM round(active / customers::numeric, 9)
	OR mrr_retention IS DISTINCT FROM round(mrr / mrr_first, 9)$$, 'rates are quotients');

-- ---- active periods of the same ledger ------------------------------------------------

SELECT is_empty($$SELECT c.period_end FROM cs.retention_cohorts() c LEFT JOIN cs.active_periods(0) a ON a.start_at < c.period_end AND (a.end_at >= c.period_end OR a.end_at IS NULL)
	WHERE c.age = 0 GROUP BY c.period_end HAVING count(a.customer_id) <> (SELECT sum(active) FROM cs.retention_cohorts() x WHERE x.period_end = c.period_end)$$,
	'at each month''s end as many periods run as customers are active');
CREATE TABLE gap AS SELECT g.gap_days, a.*, lag(a.end_at) OVER (PARTITION BY g.gap_days, a.customer_id ORDER BY a.period_no) AS ended_before
FROM (VALUES (0), (1), (20), (400)) g (gap_days), cs.active_periods(g.gap_days) a;
SELECT is_empty('SELECT * FROM gap WHERE start_at <= ended_before + make_interval(days => gap_days) OR ended_before IS NULL AND period_no > 1', 'periods lie more than the gap apart');
SELECT is_empty($$SELECT z.* FROM gap z WHERE z.gap_days = 0 AND (SELECT count(*) FROM gap g WHERE g.gap_days > 0 AND g.customer_id = z.customer_id
	AND g.start_at <= z.start_at AND (g.end_at >= z.end_at OR g.end_at IS NULL)) <> 3$$, 'a wider gap only puts them together');
SELECT is((SELECT array_agg(n ORDER BY n DESC) FROM (SELECT count(*) AS n FROM gap GROUP BY gap_days) x), (SELECT array_agg(n ORDER BY gap_days) FROM (SELECT gap_days, count(*) AS n FROM gap GROUP BY 1) x),
	'the wider the gap, the fewer there are');
SELECT is_empty($$SELECT * FROM gap WHERE churned <> (end_at IS NOT NULL)$$, 'each that ended churned');
SELECT is_empty($$SELECT a.customer_id FROM gap a JOIN cs.movement m ON m.customer_id = a.customer_id AND m.at = a.end_at WHERE m.kind <> 'churn'$$, 'on a movement of that kind');

-- ---- by hand -------------------------------------------------------------------------

TRUNCATE subscription;
CALL cs.refresh();
SELECT is_empty('SELECT * FROM cs.retention_cohorts()', 'an empty ledger has no cohorts');
-- a leaves within its first month and comes back in March; b goes on; c starts in March and ends on its last instant
INSERT INTO cs_internal.movement (customer_id, at, kind, delta, mrr_after, active_after) VALUES
	('a', '2025-01-05', 'new', 10, 10, true), ('a', '2025-01-20', 'churn', -10, 0, false), ('a', '2025-03-02', 'reactivation', 30, 30, true),
	('b', '2025-01-31', 'new', 40, 40, true), ('b', '2025-02-10', 'expansion', 20, 60, true), ('b', '2025-09-01', 'churn', -60, 0, false),
	('c', '2025-03-01', 'new', 5, 5, true), ('c', '2025-04-01', 'churn', -5, 0, false),
	('f', '2025-01-01', 'new', 0, 0, true), ('f', '2025-02-01', 'new', 8, 8, true);           -- free first
SET cs_ext.now = '2025-04-10';
SELECT results_eq('SELECT cohort, age, customers, active, retention, mrr_first, mrr, mrr_retention, complete FROM cs.retention_cohorts() ORDER BY 1, 2',
	$$VALUES (date '2025-01-01', 0, 2::bigint, 1::bigint, 0.5, 50::numeric, 40::numeric, 0.8, true),
		('2025-01-01', 1, 2, 1, 0.5, 50, 60, 1.2, true), ('2025-01-01', 2, 2, 2, 1, 50, 90, 1.8, true), ('2025-01-01', 3, 2, 2, 1, 50, 90, 1.8, false),
		('2025-02-01', 0, 1, 1, 1, 8, 8, 1, true), ('2025-02-01', 1, 1, 1, 1, 8, 8, 1, true), ('2025-02-01', 2, 1, 1, 1, 8, 8, 1, false),
		('2025-03-01', 0, 1, 1, 1, 5, 5, 1, true), ('2025-03-01', 1, 1, 0, 0, 5, 0, 0, false)$$,
	'age 0 shows who left in the first month, who comes back stays in the cohort, nothing announced counts');
SELECT results_eq($$SELECT cohort, age, customers, active, complete FROM cs.retention_cohorts('quarter') ORDER BY 1, 2$$,
	$$VALUES (date '2025-01-01', 0, 4::bigint, 4::bigint, true), ('2025-01-01', 1, 4, 3, false)$$, 'by quarter');
UPDATE cs.policy SET period_edge = 'at';
SELECT results_eq($$SELECT cohort, age, active FROM cs.retention_cohorts() WHERE cohort = '2025-02-01' ORDER BY 1, 2$$,
	$$VALUES (date '2025-02-01', 0, 1::bigint), ('2025-02-01', 1, 0), ('2025-02-01', 2, 0)$$, 'edge at: a start on the first of March is February''s, an end on the first of April is March''s');
UPDATE cs.policy SET period_edge = 'before', week_start = 7;
SELECT is((SELECT array_agg(DISTINCT cohort ORDER BY cohort) FROM cs.retention_cohorts('week')), '{2025-01-05,2025-01-26,2025-02-23}', 'weeks begin as the policy says');
SELECT is((SELECT count(*) FROM cs.retention_cohorts('week') WHERE EXTRACT(isodow FROM period_start) <> 7 OR complete AND period_end - period_start <> interval '7 days'), 0::bigint,
	'every one of them');

INSERT INTO cs_internal.membership (customer_id, dimension, segment, valid_from, valid_to, source) VALUES
	('a', 'tier', 'gold', '2025-01-06', '2025-02-01', 'rule'), ('a', 'tier', 'tin', '2025-02-01', NULL, 'rule'),
	('b', 'tier', 'gold', '2025-01-31', '2025-03-03', 'rule'), ('c', 'tier', 'gold', '2025-03-02', NULL, 'rule');
SELECT results_eq($$SELECT cohort, age, customers, active FROM cs.retention_cohorts('month', 'gold') WHERE complete ORDER BY 1, 2$$,
	$$VALUES (date '2025-01-01', 0, 1::bigint, 1::bigint), ('2025-01-01', 1, 1, 1), ('2025-01-01', 2, 1, 1), ('2025-03-01', 0, 1, 1)$$,
	'of a segment: who was in it at the end of the cohort''s month, wherever it went later');
SELECT throws_ok($$SELECT * FROM cs.retention_cohorts('day')$$, '22023', NULL, 'an unknown grain is refused');
SELECT throws_ok($$SELECT * FROM cs.retention_cohorts('month', 'tier:silver')$$, '22023', NULL, 'and an unknown segment');

-- the session has no say, the policy's zone has: on 1 January 2025 at 00:00 UTC it is still December in New York
CREATE TABLE by_utc AS SELECT * FROM cs.retention_cohorts();
SET TimeZone = 'Asia/Tokyo';
SELECT is_empty('SELECT * FROM cs.retention_cohorts() EXCEPT SELECT * FROM by_utc', 'the session''s zone changes nothing');
RESET TimeZone;
UPDATE cs.policy SET time_zone = 'America/New_York';
SELECT is((SELECT min(period_start) FROM cs.retention_cohorts()), timestamptz '2025-01-01 00:00 America/New_York', 'months are the policy''s');
SELECT is_empty('SELECT * FROM cs.check()', 'no invariant is broken');
SELECT * FROM finish();
