-- LTV both ways, rates of other lengths, and revenue by a dimension against revenue
-- of each segment.
BEGIN;
SELECT no_plan();
CREATE ROLE regress_ltv_run NOLOGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL cs_ext.now = '2024-09-15 12:00+00';
INSERT INTO cs.policy (run_as, time_zone, currency, segment_basis) VALUES ('regress_ltv_run', 'UTC', 'EUR', 'stored');
CREATE FUNCTION pg_temp.move(customer text, moment timestamptz, what text, mrr numeric) RETURNS void LANGUAGE sql AS $$
	INSERT INTO cs_internal.movement (customer_id, at, seq, kind, delta, mrr_after, active_after)
	SELECT customer, moment, count(*) FILTER (WHERE m.at = moment), what, mrr - coalesce((array_agg(m.mrr_after ORDER BY m.at DESC, m.seq DESC))[1], 0), mrr, mrr > 0
	FROM cs_internal.movement m WHERE m.customer_id = customer
$$;
-- 100 customers of 10 from 2024; five leave in February, four of 95 in May
SELECT pg_temp.move('c' || n, '2024-01-01', 'new', 10) FROM generate_series(1, 100) n;
SELECT pg_temp.move('c' || n, '2024-02-11', 'churn', 0) FROM generate_series(1, 5) n;
SELECT pg_temp.move('c' || n, '2024-05-06', 'churn', 0) FROM generate_series(6, 9) n;
SELECT pg_temp.move('c100', '2024-07-01', 'expansion', 101);
SELECT results_eq($$ SELECT arpa, ltv, ltv_churn, ltv_months FROM cs.revenue('2024-07') $$,
	$$ SELECT round(1001 / 91.0, 6), round(1001 / 91.0 / round((5 / 100.0 + 4 / 95.0) / 5, 9), 6), round((5 / 100.0 + 4 / 95.0) / 5, 9), 5 $$,
	'six months before July: January had nobody at its start and is left out');
SELECT results_eq($$ SELECT ltv, ltv_churn, ltv_months FROM cs.revenue('2024-08') $$, $$ SELECT round(1001 / 91.0 / round((5 / 100.0 + 4 / 95.0) / 6, 9), 6), round((5 / 100.0 + 4 / 95.0) / 6, 9), 6 $$, 'before August all six');
SELECT results_eq($$ SELECT ltv, ltv_churn, ltv_months FROM cs.revenue('2024-02') $$, $$ VALUES (NULL::numeric, NULL::numeric, 0) $$, 'the month itself is out');
DELETE FROM cs_internal.movement WHERE kind = 'churn';
SELECT results_eq($$ SELECT churn, months, churn_used, lifetime_months, ltv FROM cs.ltv('2024-08') $$, $$ VALUES (0::numeric, 6, NULL::numeric, NULL::numeric, NULL::numeric) $$, 'nobody left: no LTV by churn');
SELECT results_eq($$ SELECT churn, churn_used, round(lifetime_months, 3), ltv FROM cs.ltv('2024-08', zero_churn => 0.0167) $$, $$ SELECT 0::numeric, 0.0167, 59.880, round(1091 / 100.0 / 0.0167, 6) $$, 'unless a churn is taken for it');
-- 244 days seen at 1 September: eight months of 365 / 12 days
SELECT results_eq($$ SELECT horizon_months, restricted_mean_months, ltv_survival, median_months, active_periods FROM cs.ltv('2024-08', horizon_months => 8) $$, $$ VALUES (8, 8::numeric, round(10.91 * 8, 6), NULL::numeric, 100::bigint) $$, 'by survival everybody stays through the horizon');
SELECT is((SELECT ltv_survival FROM cs.ltv('2024-08')), NULL, 'beyond what was seen it is not known');
SELECT pg_temp.move('c' || n, '2024-03-01', 'churn', 0) FROM generate_series(1, 50) n;
SELECT results_eq($$ SELECT round(restricted_mean_months, 6), round(median_months, 6), churn FROM cs.ltv('2024-08', horizon_months => 6) $$,
	$$ VALUES (round(0.5 * 60 / (365 / 12.0) + 0.5 * 6, 6), round(60 / (365 / 12.0), 6), round(0.5 / 6, 9)) $$, 'half of them leave after sixty days');
SELECT is((SELECT ltv FROM cs.ltv('2024-08', margin => 0.8)), (SELECT round(arpa * 0.8 / churn, 6) FROM cs.ltv('2024-08')), 'with a gross margin');
SELECT throws_ok(format('SELECT * FROM cs.ltv(''2024-08'', %s)', a), '22023', NULL, 'refused: ' || a) FROM unnest(ARRAY['zero_churn => 0', 'zero_churn => 2', 'horizon_months => 0', 'margin => 0', 'margin => ''NaN''']) a;

-- rates of other lengths stand beside
SELECT results_eq($$ SELECT rate, month_rate, annual_rate FROM cs.churn('2024-03') $$, $$ SELECT 0.5::numeric, cs.annualise(0.5, 12 * 31), cs.annualise(0.5, 31) $$, 'of a standard month, of a year');
SELECT results_eq($$ SELECT day, month_rate, annual_rate FROM cs.churn_series('2024-02-01', '2024-05-01') $$,
	$$ VALUES (date '2024-02-01', 0::numeric, 0::numeric), ('2024-03-01', cs.annualise(0.5, 12 * 31), cs.annualise(0.5, 31)), ('2024-04-01', 0, 0) $$, 'in a series too');
SELECT results_eq($$ SELECT rate, month_rate, annual_rate FROM cs.churn('2024-07', unit => 'net_mrr') $$, $$ SELECT r, cs.annualise(r, 12 * 31), cs.annualise(r, 31) FROM (SELECT round(-91 / 500.0, 9) AS r) x $$, 'growth compounds as well');
SAVEPOINT few;
INSERT INTO cs_internal.movement (customer_id, at, seq, kind, delta, mrr_after, active_after) VALUES ('late', '2024-03-01', 0, 'new', 1, 1, true), ('late', '2024-04-20', 0, 'expansion', 399, 400, true);
DELETE FROM cs_internal.movement WHERE customer_id <> 'late';
SELECT results_eq($$ SELECT numerator, rate, month_rate IS NOT NULL, annual_rate FROM cs.churn('[2024-04-15,2024-05-01)', unit => 'net_mrr') $$, $$ VALUES (-399::numeric, -399::numeric, true, NULL::numeric) $$, 'growth beyond all bounds is no number');
INSERT INTO cs_internal.movement (customer_id, at, seq, kind, delta, mrr_after, active_after) VALUES ('late', '2024-05-20', 0, 'churn', -400, 0, false);
SELECT results_eq($$ SELECT rate, month_rate, annual_rate FROM cs.churn('2024-05') $$, $$ VALUES (1::numeric, 1::numeric, 1::numeric) $$, 'when everybody left it is everybody in a year too');
ROLLBACK TO few;
UPDATE cs.policy SET time_zone = 'Europe/Berlin';
SELECT is((SELECT month_rate FROM cs.churn('[2024-03-01,2024-04-01)')), cs.annualise((SELECT rate FROM cs.churn('[2024-03-01,2024-04-01)')), 12 * 31), 'local days: the hour that summer time takes does not count');
UPDATE cs.policy SET time_zone = 'UTC';

-- ---- revenue by a dimension ------------------------------------------------------
\ir ../lib/seed.sql
DELETE FROM cs_internal.movement;
INSERT INTO cs.dimension (name, fallback) VALUES ('tier', 'rest');
INSERT INTO cs_internal.movement (customer_id, at, seq, kind, delta, mrr_after, active_after)
SELECT f.customer_id, m.at, m.seq, m.kind, m.delta, m.mrr_after, m.active_after
FROM (SELECT r.c AS customer_id, array_agg(jsonb_populate_record(NULL::cs_internal.subscription_fact, jsonb_build_object('start_at', r.s, 'end_at', r.s + make_interval(days => r.d), 'mrr', r.m, 'status', r.status))) AS facts
	FROM (SELECT 'r' || floor(random() * 50)::integer AS c, timestamptz '2024-01-10' + make_interval(hours => (random() * 4000)::integer) AS s, (random() * 90)::integer AS d, (ARRAY[0, 10, 20, 33.333333])[1 + floor(random() * 4)::integer] AS m,
		(ARRAY['active', 'active', 'active', 'paused'])[1 + floor(random() * 4)::integer] AS status FROM generate_series(1, 250)) r GROUP BY r.c) f
CROSS JOIN LATERAL cs_internal.ledger_sweep(f.facts) m;
INSERT INTO cs_internal.membership (customer_id, dimension, segment, valid_from, valid_to, source)
SELECT x.customer_id, 'tier', x.segment, x.at, x.next, 'rule'
FROM (SELECT s.*, lead(s.at) OVER (PARTITION BY s.customer_id ORDER BY s.at) AS next
	FROM (SELECT DISTINCT ON (c.customer_id, a.at) c.customer_id, a.at, (ARRAY['gold', 'silver', NULL])[1 + floor(random() * 3)::integer] AS segment
		FROM (SELECT DISTINCT customer_id FROM cs_internal.movement) c, LATERAL (SELECT timestamptz '2024-01-20' + make_interval(days => (random() * 200)::integer) AS at FROM generate_series(1, 4) WHERE c.customer_id IS NOT NULL) a) s) x
WHERE x.segment IS NOT NULL;
SELECT is_empty(format($$ SELECT b.segment, p FROM unnest(ARRAY['2024-02', '2024-05', '2024-Q2', '[2024-03-07,2024-06-19)', '2024-09']) p, cs.revenue_by(p, 'tier', %L) b, cs.revenue(p, nullif('tier:' || b.segment, 'tier:(total)'), %L) r
	WHERE to_jsonb(b) - '{segment,dimension,segment_basis,current_attributes}'::text[] <> to_jsonb(r) - '{segment,segment_basis,current_attributes}'::text[] AND b.segment <> 'rest' $$, basis, basis), basis || ': each row of revenue_by is revenue of that segment')
FROM unnest(ARRAY['ledger', 'endpoints']) basis;
SELECT results_eq($$ SELECT segment, mrr_end, customers_end, basis, dimension FROM cs.revenue_by('2024-05', 'tier') WHERE segment IN ('rest') $$, $$ VALUES ('rest', 0::numeric, 0::bigint, 'ledger', 'tier') $$, 'a segment without customers has its row');
SELECT cmp_ok((SELECT count(*) FROM unnest(ARRAY['2024-02', '2024-05', '2024-Q2', '[2024-03-07,2024-06-19)', '2024-09']) p, cs.revenue_by(p, 'tier') WHERE mrr_start > 0 AND transfer_in > 0), '>', 1::bigint, 'and there was something to compare');
SELECT throws_ok($$ SELECT * FROM cs.revenue_by('2024-05', 'teir') $$, '22023', NULL, 'an unknown dimension is refused');
SELECT * FROM finish();
ROLLBACK;
