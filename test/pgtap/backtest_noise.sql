-- The same where usage and everything else declines at random: a backtest that
-- finds more than chance sees the future.
\set ON_ERROR_STOP 1
\set customers 430
\set signal 0
\set leaving 3
\ir ../lib/demo_company.sql
SELECT * FROM plan(3);
CREATE TEMPORARY TABLE result AS SELECT * FROM cs.backtest_scorecard('default', '2025-02-01', horizon => '90 days');
SELECT diag(format('%s: %s of %s churned, rate %s [%s, %s], AUC %s', band, churned, observations, rate, ci_low, ci_high, auc)) FROM result;
SELECT cmp_ok(customers_churned, '>=', 200::bigint, 'customers enough churned') FROM result WHERE band = '(all)';
SELECT cmp_ok(auc, '>=', 0.4, 'AUC not below 0.4') FROM result WHERE band = '(all)';
SELECT cmp_ok(auc, '<=', 0.6, 'nor above 0.6') FROM result WHERE band = '(all)';
SELECT * FROM finish();
