-- report.sql: what the database knows of the demo company, read from the views.
\set ON_ERROR_STOP on
\pset border 1
\pset footer off
\pset linestyle ascii
\echo

\pset title 'Churn of the last months'
SELECT to_char(month, 'YYYY-MM') AS month, numerator::integer AS churned, denominator::integer AS "of", round(100 * rate, 1) || ' %' AS rate,
	round(100 * ci_low, 1) || ' to ' || round(100 * ci_high, 1) || ' %' AS "95 % interval"
FROM cs.churn_monthly ORDER BY churn_monthly.month DESC LIMIT 6;

\pset title 'Revenue of the last months (EUR a month)'
SELECT to_char(month, 'YYYY-MM') AS month, round(mrr_start) AS opening, round(new_mrr + reactivation_mrr) AS new, round(expansion_mrr) AS expansion,
	round(contraction_mrr) AS contraction, round(churn_mrr) AS churn, round(mrr_end) AS closing, round(100 * nrr, 1) || ' %' AS "net retention"
FROM cs.revenue_monthly ORDER BY revenue_monthly.month DESC LIMIT 6;

\pset title 'Health'
SELECT coalesce(band, 'no score') AS band, count(*) AS customers, round(avg(health_score)::numeric, 1) AS "mean score", round(sum(mrr)) AS "MRR",
	repeat('#', (count(*) / 4)::integer) AS " "
FROM cs.customer_360 WHERE active GROUP BY 1 ORDER BY array_position('{red,yellow,green,no score}', coalesce(band, 'no score'));

\pset title 'The ten customers to contact first'
SELECT row_number() OVER (ORDER BY priority DESC) AS "#", name, owner, round(mrr) AS "MRR", round(health_score::numeric) AS health, reason
FROM cs.contact_priority ORDER BY priority DESC LIMIT 10;

\pset title 'Open alerts'
SELECT rule, severity, count(*) AS open, min(opened_at)::date AS oldest, max(opened_at)::date AS newest
FROM cs.open_alert GROUP BY 1, 2 ORDER BY array_position('{critical,high,medium,low}', severity), 3 DESC;

\pset title 'The newest of them'
SELECT a.severity, a.rule, c.name, a.key, a.message
FROM cs.open_alert a LEFT JOIN cs.customer_360 c USING (customer_id)
ORDER BY array_position('{critical,high,medium,low}', a.severity), a.opened_at DESC, a.id LIMIT 10;
