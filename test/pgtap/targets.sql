-- Targets, what is reached of them, and the share of healthy renewals.
\set ON_ERROR_STOP 1
\ir ../lib/small_company.sql
SET client_min_messages = warning;
SELECT * FROM no_plan();
-- terms that run out soon, and every score known
UPDATE app.subscription SET renews_on = date '2025-07-10' + customer_id::integer % 60 WHERE renews_on IS NOT NULL;
CALL cs.refresh();

INSERT INTO cs.target (metric, period, value) VALUES ('churn_rate', '2025-05', 0.2), ('grr', '2025-05', 0.999), ('mrr', '2025-05', 1), ('renewal_rate', '2025-Q2', 0.5), ('gross_renewal_rate', '2025-Q2', 0.5), ('net_renewal_rate', '2025-Q2', 0.5),
	('healthy_renewals', 'this quarter', 0.9), ('churn_cost', '2025-Q2', 100000000), ('active_days_30d', 'this month', 5), ('open_tickets', 'this month', 0), ('nrr', '2026-01', 1), ('arpa', '2025-05', 10), ('quick_ratio', '2025-05', 1),
	('gross_mrr_churn', '2025-05', 0.5), ('net_mrr_churn', '2025-05', -1);
INSERT INTO cs.target (metric, segment, period, value, enabled) VALUES ('grr', 'tier:enterprise', '2025-05', 0.5, true), ('nrr', '(total)', '2025-05', 1, false);

SELECT results_eq($$SELECT t.metric, t.actual, t.attained FROM cs.target_attainment t WHERE t.segment = '(total)' AND t.period = '2025-05' ORDER BY 1$$,
	$$SELECT v.metric, v.actual::numeric(30,9), CASE v.metric WHEN 'churn_rate' THEN v.actual <= 0.2 WHEN 'gross_mrr_churn' THEN v.actual <= 0.5 WHEN 'net_mrr_churn' THEN v.actual <= -1 WHEN 'grr' THEN v.actual >= 0.999
			WHEN 'arpa' THEN v.actual >= 10 ELSE v.actual >= 1 END
	FROM cs.revenue('2025-05') r, cs.churn('2025-05') c, LATERAL (VALUES ('arpa', r.arpa), ('churn_rate', c.rate), ('gross_mrr_churn', r.gross_mrr_churn), ('grr', r.grr), ('mrr', r.mrr_end), ('net_mrr_churn', r.net_mrr_churn), ('quick_ratio', r.quick_ratio)) v (metric, actual) ORDER BY 1$$,
	'a target beside the number of its name, low or high as is better');
SELECT results_eq($$SELECT metric, actual FROM cs.target_attainment WHERE period = '2025-Q2' AND metric LIKE '%renewal_rate' ORDER BY 1$$,
	$$SELECT 'gross_renewal_rate', rate::numeric(30,9) FROM cs.renewal_rate('2025-Q2', unit => 'gross_mrr') UNION ALL SELECT 'net_renewal_rate', rate FROM cs.renewal_rate('2025-Q2', unit => 'net_mrr') UNION ALL SELECT 'renewal_rate', rate FROM cs.renewal_rate('2025-Q2')$$, 'renewal rates');
SELECT is((SELECT actual FROM cs.target_attainment WHERE metric = 'churn_cost'), (SELECT churn_cost FROM cs.churn_cost('2025-Q2')), 'churn cost');
SELECT is((SELECT actual FROM cs.target_attainment WHERE segment = 'tier:enterprise'), (SELECT grr FROM cs.revenue('2025-05', 'tier:enterprise')), 'of a segment');
SELECT results_eq($$SELECT metric, actual::numeric(18,6), attained, gap::numeric(18,6) FROM cs.target_attainment WHERE period = 'this month' ORDER BY 1$$,
	$$SELECT m.metric, avg(m.value)::numeric(18,6), CASE m.metric WHEN 'open_tickets' THEN avg(m.value) <= 0 ELSE avg(m.value) >= 5 END, (CASE m.metric WHEN 'open_tickets' THEN -avg(m.value) ELSE avg(m.value) - 5 END)::numeric(18,6)
	FROM cs.customer_metric m JOIN cs.customer_360 c USING (customer_id) WHERE c.active AND m.metric IN ('active_days_30d', 'open_tickets') GROUP BY 1 ORDER BY 1$$, 'the mean of a metric, now');
SELECT results_eq($$SELECT actual, attained, complete FROM cs.target_attainment WHERE period = '2026-01'$$, $$VALUES (NULL::numeric, NULL::boolean, false)$$, 'nothing is reached of a time to come');
SELECT is((SELECT count(*) FROM cs.target_attainment), (SELECT count(*) FROM cs.target WHERE enabled), 'enabled ones only');

-- ---- healthy renewals -------------------------------------------------------------
SELECT results_eq($$SELECT healthy, renewals, share, mrr, unknown, target, attained FROM cs.healthy_renewals()$$,
	$$SELECT count(*) FILTER (WHERE band = 'green' AND status = 'not_at_risk'), count(*), (count(*) FILTER (WHERE band = 'green' AND status = 'not_at_risk') / count(*)::numeric)::numeric(18,9), sum(target_mrr), count(*) FILTER (WHERE band IS NULL), 0.9,
		count(*) FILTER (WHERE band = 'green' AND status = 'not_at_risk') >= 0.9 * count(*)
	FROM cs.renewals('this quarter') WHERE status IN ('at_risk', 'not_at_risk', 'overdue')$$, 'share of healthy renewals against the target');
SELECT cmp_ok(healthy, '>', 0::bigint, 'there are some') FROM cs.healthy_renewals();
SELECT cmp_ok(healthy, '<', renewals, 'and not all are') FROM cs.healthy_renewals();
SELECT is((SELECT target FROM cs.healthy_renewals('2025-Q3')), 0.9, 'the target holds for the quarter by any word');
SELECT results_eq($$SELECT renewals, share, target, attained FROM cs.healthy_renewals('2030-Q1')$$, $$VALUES (0::bigint, NULL::numeric, NULL::numeric, NULL::boolean)$$, 'nothing due: no share');
SELECT is((SELECT actual FROM cs.target_attainment WHERE metric = 'healthy_renewals'), (SELECT share FROM cs.healthy_renewals()), 'also among the targets');

-- ---- as kept then ---------------------------------------------------------------------
CALL cs.backfill_health('2025-07-01', '2025-07-01 05:00', '1 day');
INSERT INTO cs.target (metric, period, value) VALUES ('events_30d', '2025-06', 5);
SELECT is((SELECT actual FROM cs.target_attainment WHERE period = '2025-06'), (SELECT avg(value)::numeric(30,9) FROM cs.metric_history WHERE metric = 'events_30d' AND as_of = '2025-07-01 00:00+02'), 'a month that is over: the mean at its end, as kept');
SELECT isnt((SELECT actual FROM cs.target_attainment WHERE period = '2025-06'), NULL, 'there is one');

-- ---- the table ------------------------------------------------------------------------
SELECT throws_ok($$INSERT INTO cs.target (metric, period, value) VALUES ('churn_rat', '2025-05', 1)$$, '22023', 'unknown metric "churn_rat" of a target', 'an unknown metric');
SELECT throws_ok($$INSERT INTO cs.target (metric, segment, period, value) VALUES ('grr', 'tier:entreprise', '2025-05', 1)$$, '22023', NULL, 'an unknown segment');
SELECT throws_ok($$INSERT INTO cs.target (metric, period, value) VALUES ('grr', 'soon', 1)$$, '22023', NULL, 'no period');
SELECT throws_ok($$INSERT INTO cs.target (metric, period, value) VALUES ('grr', '2025-07', 'NaN')$$, '22023', NULL, 'no number');
SELECT is((SELECT count(*) FROM cs_internal.definition_history WHERE table_name = 'target'), (SELECT count(*) FROM cs.target), 'targets have a history');
UPDATE cs.target SET value = 0.3 WHERE metric = 'churn_rate';
SELECT results_eq($$SELECT old_row ->> 'value', new_row ->> 'value' FROM cs_internal.definition_history WHERE table_name = 'target' AND cause = 'update'$$, $$VALUES ('0.2', '0.3')$$, 'with old and new');
BEGIN;
CREATE ROLE regress_target_reader NOLOGIN;
SELECT cs.grant_reader('regress_target_reader') \g /dev/null
SET LOCAL ROLE regress_target_reader;
SELECT count(*) AS seen FROM cs.target_attainment \gset
RESET ROLE;
ROLLBACK;
SELECT cmp_ok(:seen, '>', 10, 'readers read the view');
SELECT * FROM finish();
