-- A backtest of the standard scorecard on the demo company, where usage,
-- tickets, surveys and payment decline before most customers leave.
\set ON_ERROR_STOP 1
\set customers 150
\set signal 1
\ir ../lib/demo_company.sql
SELECT * FROM no_plan();

CREATE TEMPORARY TABLE seen AS SELECT * FROM cs.backtest_observations('default', '2025-02-01', horizon => '90 days');
CREATE TEMPORARY TABLE result AS SELECT * FROM cs.backtest_scorecard('default', '2025-02-01', horizon => '90 days');
CREATE TEMPORARY TABLE gone AS SELECT * FROM cs.backtest_churned('default', '2025-02-01', horizon => '90 days');
SELECT diag(format('%s: %s of %s churned, rate %s [%s, %s], AUC %s, lead %s', band, churned, observations, rate, ci_low, ci_high, auc, median_lead_days)) FROM result;

-- ---- does it tell who leaves ---------------------------------------------------
SELECT cmp_ok(auc, '>', 0.65, 'the score foretells churn') FROM result WHERE band = '(all)';
SELECT cmp_ok((SELECT ci_low FROM result WHERE band = 'red'), '>', (SELECT ci_high FROM result WHERE band = 'green'), 'red churns more than green, with separate intervals');

-- ---- against the facts ---------------------------------------------------------
SELECT results_eq('SELECT DISTINCT as_of FROM seen ORDER BY 1', $$SELECT m AT TIME ZONE 'Europe/Berlin' FROM generate_series(timestamp '2025-02-01', '2026-08-01', '1 month') m$$,
	'month starts; those whose next 90 days are not over are left out');
-- who was active, when that ended, and since when it was known, from the tables of the company
CREATE TEMPORARY TABLE life AS
SELECT customer_id::text AS customer_id, min(starts_on) AS born, max(coalesce(ended_on, 'infinity')) AS gone_on,
	min(cancel_requested_on) FILTER (WHERE ended_on = stop) AS asked_on
FROM (SELECT c.*, max(coalesce(ended_on, 'infinity')) OVER (PARTITION BY customer_id, stint) AS stop FROM (
	SELECT c.*, sum((starts_on > until_then)::int) OVER (PARTITION BY customer_id ORDER BY starts_on, id) AS stint FROM (
		SELECT c.*, coalesce(max(coalesce(ended_on, 'infinity')) OVER (PARTITION BY customer_id ORDER BY starts_on, id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), '-infinity') AS until_then
		FROM company.contract c WHERE status IN ('active', 'paused') AND amount > 0) c) c) c
GROUP BY c.customer_id, c.stint;
CREATE TEMPORARY TABLE expected AS
SELECT (d::timestamp AT TIME ZONE 'Europe/Berlin') AS as_of, l.customer_id,
	CASE WHEN least(l.asked_on, l.gone_on) < d THEN 'announced' WHEN least(l.asked_on, l.gone_on) < d + 90 THEN 'churned' ELSE 'retained' END AS outcome
FROM generate_series(timestamp '2025-02-01', '2026-08-01', '1 month') m, LATERAL (SELECT m::date AS d) x JOIN life l ON l.born < x.d AND l.gone_on >= x.d;
SELECT is_empty('SELECT s.*, e.outcome FROM seen s FULL JOIN expected e USING (as_of, customer_id) WHERE s.outcome IS DISTINCT FROM e.outcome', 'each observation has the outcome that the contracts say');
SELECT is((SELECT announced FROM result WHERE band = '(all)'), count(*), 'who had given notice is counted apart') FROM expected WHERE outcome = 'announced';
SELECT cmp_ok(count(*), '>', 10::bigint, 'and there were some') FROM expected WHERE outcome = 'announced';
SELECT results_eq($$SELECT band, observations, churned FROM result WHERE observations > 0 ORDER BY 1$$,
	$$SELECT coalesce(band, part), count(*), count(*) FILTER (WHERE outcome = 'churned') FROM (
		SELECT coalesce(band, '(no score)') AS part, outcome, NULL AS band FROM seen UNION ALL SELECT NULL, outcome, '(all)' FROM seen) x WHERE outcome <> 'announced' GROUP BY 1 ORDER BY 1$$, 'bands add up');
SELECT is((SELECT auc FROM result WHERE band = '(all)'),
	(SELECT avg(CASE WHEN c.score < r.score THEN 1 WHEN c.score = r.score THEN 0.5 ELSE 0 END)::numeric(18,9) FROM seen c, seen r WHERE c.outcome = 'churned' AND r.outcome = 'retained' AND c.score IS NOT NULL AND r.score IS NOT NULL),
	'AUC is the share of pairs in which who churned had the lower score');
SELECT is_empty($$SELECT * FROM result r, result a WHERE a.band = '(all)' AND r.observations > 0 AND (abs(r.lift - r.rate / a.rate) > 1e-6 OR abs(r.share_of_churned - r.churned / a.churned::numeric) > 1e-8
	OR r.rate NOT BETWEEN r.ci_low AND r.ci_high)$$, 'lift, share and interval');
SELECT set_eq('SELECT customer_id, event_at FROM gone', $$SELECT DISTINCT customer_id, event_at FROM seen WHERE outcome = 'churned'$$, 'one row for each churn');
SELECT is_empty($$SELECT * FROM gone g WHERE NOT EXISTS (SELECT FROM seen s WHERE s.customer_id = g.customer_id AND s.as_of = g.as_of AND s.band IS NOT DISTINCT FROM g.band AND s.score IS NOT DISTINCT FROM g.score)
	OR EXISTS (SELECT FROM seen s WHERE s.customer_id = g.customer_id AND s.as_of > g.as_of AND s.as_of <= g.event_at AND s.outcome = 'churned')$$, 'with the score at the last month start before the event');
SELECT is_empty($$SELECT * FROM gone g WHERE first_red_at IS NOT NULL AND (NOT EXISTS (SELECT FROM seen s WHERE s.customer_id = g.customer_id AND s.as_of = g.first_red_at AND s.band = 'red')
	OR lead_days < 0 OR EXISTS (SELECT FROM seen s WHERE s.customer_id = g.customer_id AND s.as_of BETWEEN g.first_red_at AND g.event_at AND s.band = 'green' AND s.outcome <> 'announced'))$$, 'and the first red after the last green');
SELECT is((SELECT median_lead_days FROM result WHERE band = 'red'), (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY lead_days)::numeric(18,9) FROM gone WHERE lead_days IS NOT NULL), 'lead time is the median of theirs');
SELECT cmp_ok(count(*), '>', 0::bigint, 'some churned green') FROM gone WHERE band = 'green';

-- ---- a draft is tried like one in use ----------------------------------------------
INSERT INTO cs.scorecard (name, red_below, green_from, edge_closed, hysteresis, min_coverage, combine, enabled)
	SELECT 'draft', red_below, green_from, edge_closed, hysteresis, min_coverage, combine, false FROM cs.scorecard WHERE name = 'default';
INSERT INTO cs.measure_group (scorecard, name, weight, combine) SELECT 'draft', name, weight, combine FROM cs.measure_group WHERE scorecard = 'default';
INSERT INTO cs.measure (scorecard, name, metric, measure_group, weight, curve, worst, best, steps, half_life_days, within, min_n, missing, missing_points, max_age_days)
	SELECT 'draft', name, metric, measure_group, weight, curve, worst, best, steps, half_life_days, within, min_n, missing, missing_points, max_age_days FROM cs.measure WHERE scorecard = 'default';
SELECT set_eq($$SELECT * FROM cs.backtest_observations('draft', '2025-04-01', '2025-06-01')$$, $$SELECT * FROM seen WHERE as_of BETWEEN '2025-04-01 00:00+02' AND '2025-05-01 00:00+02'$$,
	'the same scorecard, not enabled, gives the same');

-- ---- no leak --------------------------------------------------------------------------
-- The same months, once nothing after them has been written down.
DELETE FROM company.usage_log WHERE at >= '2025-06-01 00:00+02';
DELETE FROM company.ticket WHERE opened_at >= '2025-06-01 00:00+02';
UPDATE company.ticket SET resolved_at = NULL, csat = NULL WHERE resolved_at >= '2025-06-01 00:00+02';
DELETE FROM company.survey WHERE answered_at >= '2025-06-01 00:00+02';
DELETE FROM company.invoice WHERE issued_on >= '2025-06-01';
UPDATE company.invoice SET paid_at = NULL WHERE paid_at >= '2025-06-01 00:00+02';
DELETE FROM company.touchpoint WHERE at >= '2025-06-01 00:00+02';
CALL cs.refresh();
SELECT set_eq($$SELECT * FROM cs.backtest_observations('default', '2025-05-01', '2025-06-02')$$, $$SELECT * FROM seen WHERE as_of BETWEEN '2025-05-01 00:00+02' AND '2025-06-01 00:00+02'$$,
	'a score as of an instant does not see what came later, bit for bit');
SELECT is_empty($$SELECT customer_id, score, cs.health_recompute(customer_id, as_of) FROM (SELECT * FROM seen WHERE as_of = '2025-05-01 00:00+02' ORDER BY customer_id LIMIT 15) s WHERE score IS DISTINCT FROM cs.health_recompute(customer_id, as_of)$$,
	'and is what health_recompute() gives');

-- ---- refused ----------------------------------------------------------------------------
SELECT throws_ok($$SELECT * FROM cs.backtest_scorecard('defualt', '2025-02-01')$$, '42704', 'scorecard "defualt" does not exist', 'an unknown scorecard');
SELECT throws_ok($$SELECT * FROM cs.backtest_scorecard('default', '2026-09-01')$$, '22023', NULL, 'no month whose window is over');
SELECT throws_ok($$SELECT * FROM cs.backtest_scorecard('default', '2025-02-01', horizon => '0 days')$$, '22023', NULL, 'no horizon');
SELECT * FROM finish();
