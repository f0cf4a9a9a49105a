-- Churn, revenue and MRR over a ledger written by hand and over random ones.
-- Random parts print their seed; psql -v seed=N repeats one.
BEGIN;
SELECT no_plan();

CREATE ROLE regress_churn_run NOLOGIN;
SET LOCAL client_min_messages = warning;
INSERT INTO cs.policy (run_as, time_zone, currency, segment_basis) VALUES ('regress_churn_run', 'UTC', 'EUR', 'stored');
SET LOCAL cs_ext.now = '2024-06-15 12:00+00';

-- A movement that brings the customer to mrr; delta from what stands before.
CREATE FUNCTION pg_temp.move(customer text, moment timestamptz, what text, mrr numeric, active boolean DEFAULT NULL,
	churn_kind text DEFAULT NULL, reason text DEFAULT NULL) RETURNS void LANGUAGE sql AS $$
	INSERT INTO cs_internal.movement (customer_id, at, seq, kind, delta, mrr_after, active_after, churn_kind, reason)
	SELECT customer, moment, count(*) FILTER (WHERE m.at = moment), what,
		mrr - coalesce((array_agg(m.mrr_after ORDER BY m.at DESC, m.seq DESC))[1], 0), mrr, coalesce(active, mrr > 0), move.churn_kind, move.reason
	FROM cs_internal.movement m WHERE m.customer_id = customer
$$;

-- ---- the worked example of the definitions -----------------------------------
-- 100 at the start, 10 of them leave, one of those is back; 20 join, 2 of them leave.
SELECT pg_temp.move(format('c%s', n), '2024-01-01', 'new', 10) FROM generate_series(1, 100) n;
SELECT pg_temp.move(format('c%s', n), '2024-03-05', 'churn', 0, false, 'voluntary', 'price') FROM generate_series(1, 10) n;
SELECT pg_temp.move('c10', '2024-03-20', 'reactivation', 12);
SELECT pg_temp.move(format('j%s', n), '2024-03-10', 'new', 10) FROM generate_series(1, 20) n;
SELECT pg_temp.move(format('j%s', n), '2024-03-25', 'churn', 0, false, 'term_end') FROM generate_series(1, 2) n;

SELECT is(cs.churn_rate('2024-03'), 0.09, 'the worked example: snapshot churn is 9 %');
SELECT results_eq($$ SELECT numerator, denominator, rate, method, unit, complete, period_edge, policy_version, time_zone, segment, segment_basis FROM cs.churn('2024-03') $$,
	$$ VALUES (9::numeric, 100::numeric, 0.09::numeric, 'snapshot', 'logo', true, 'before', 1, 'UTC', NULL::text, NULL::text) $$, 'the worked example: all of churn''s row');
SELECT results_eq($$ SELECT part, count(*), count(*) FILTER (WHERE in_numerator), count(*) FILTER (WHERE in_denominator), sum(mrr_start), sum(mrr_end)
	FROM cs.churn_customers('2024-03') GROUP BY part ORDER BY part $$,
	$$ VALUES ('churned', 9::bigint, 9::bigint, 9::bigint, 90::numeric, 0::numeric), ('joined', 18, 0, 0, 0, 180), ('joined_and_left', 2, 0, 0, 0, 0),
		('left_and_returned', 1, 0, 1, 10, 12), ('retained', 90, 0, 90, 900, 900) $$, 'the worked example: everybody has a part');
SELECT results_eq($$ SELECT DISTINCT churned_at, churn_kind, reason FROM cs.churn_customers('2024-03') WHERE part = 'churned' $$,
	$$ VALUES ('2024-03-05 00:00+00'::timestamptz, 'voluntary', 'price') $$, 'when and why stand beside who');
SELECT results_eq($$ SELECT mrr_start, new_mrr, reactivation_mrr, expansion_mrr, contraction_mrr, churn_mrr, mrr_end, grr, nrr, gross_mrr_churn, net_mrr_churn FROM cs.revenue('2024-03') $$,
	$$ VALUES (1000::numeric, 200::numeric, 12::numeric, 0::numeric, 0::numeric, 120::numeric, 1092::numeric, 0.9::numeric, 0.912::numeric, 0.12::numeric, 0.108::numeric) $$,
	'revenue by the ledger sees the customer that left and returned twice');
SELECT results_eq($$ SELECT mrr_start, new_mrr, reactivation_mrr, expansion_mrr, contraction_mrr, churn_mrr, mrr_end, grr, nrr, gross_mrr_churn, net_mrr_churn FROM cs.revenue('2024-03', basis => 'endpoints') $$,
	$$ VALUES (1000::numeric, 180::numeric, 0::numeric, 2::numeric, 0::numeric, 90::numeric, 1092::numeric, 0.91::numeric, 0.912::numeric, 0.09::numeric, 0.088::numeric) $$,
	'revenue by endpoints nets each customer');
SELECT results_eq($$ SELECT numerator, denominator, rate, ci_low, ci_high FROM cs.churn('2024-03', unit => 'gross_mrr') $$,
	$$ VALUES (90::numeric, 1000::numeric, 0.09::numeric, NULL::numeric, NULL::numeric) $$, 'gross MRR churn, without bounds');
SELECT is(cs.churn_rate('2024-03', unit => 'net_mrr'), 0.088, 'net MRR churn');

-- ---- empty, none, running ----------------------------------------------------
SELECT results_eq($$ SELECT numerator, denominator, rate, ci_low, ci_high FROM cs.churn('2023-12') $$,
	$$ VALUES (0::numeric, 0::numeric, NULL::numeric, NULL::numeric, NULL::numeric) $$, 'an empty base gives NULL');
SELECT results_eq($$ SELECT grr, nrr, gross_mrr_churn, net_mrr_churn, mrr_start, mrr_end FROM cs.revenue('2023-12') $$,
	$$ VALUES (NULL::numeric, NULL::numeric, NULL::numeric, NULL::numeric, 0::numeric, 0::numeric) $$, 'revenue of an empty base: amounts 0, rates NULL');
SELECT is(cs.churn_rate('2024-02'), 0::numeric, 'nobody left gives 0');
SELECT results_eq($$ SELECT round(ci_low, 6), round(ci_high, 6) FROM cs.churn('2024-02') $$, $$ VALUES (0.000000, 0.036993) $$, 'Wilson bounds of 0 of 100');
SELECT pg_temp.move('c20', '2024-06-10', 'churn', 0);
SELECT pg_temp.move('c21', '2024-06-15 12:00+00', 'churn', 0);
SELECT pg_temp.move('c22', '2024-06-20', 'churn', 0);
SELECT results_eq($$ SELECT numerator, complete, period_end, as_of FROM cs.churn('2024-06') $$,
	$$ VALUES (1::numeric, false, '2024-06-15 12:00+00'::timestamptz, '2024-06-15 12:00+00'::timestamptz) $$, 'a running month is computed up to now');
SELECT results_eq($$ SELECT numerator, complete FROM cs.churn('2024-06', as_of => '2024-06-05') $$,
	$$ VALUES (0::numeric, false) $$, 'and up to as_of');
SELECT is(cs.mrr(), 1082::numeric, 'MRR now leaves out what is only announced');
SELECT is(cs.mrr('2024-03-20'), 900 + 200::numeric, 'MRR at an instant is just before it');
SELECT throws_ok($$ SELECT cs.churn_rate('2024-07') $$, '22023', NULL, 'a future period is refused');
SELECT throws_ok($$ SELECT * FROM cs.churn('2024-05', as_of => '2024-06-16') $$, '22023', NULL, 'a future as_of is refused');
SELECT throws_ok($$ SELECT cs.mrr(date '2024-06-16') $$, '22023', NULL, 'MRR of the future is refused');
SELECT throws_ok($$ SELECT cs.mrr('infinity') $$, '22007', NULL, 'MRR at infinity is refused');

-- ---- the edge ----------------------------------------------------------------
DELETE FROM cs_internal.movement;
SELECT pg_temp.move('a', '2024-01-01', 'new', 10);
SELECT pg_temp.move('b', '2024-01-01', 'new', 10);
SELECT pg_temp.move('b', '2024-02-01', 'churn', 0);
SELECT pg_temp.move('d', '2024-02-01', 'new', 30);
SELECT results_eq($$ SELECT p, c.numerator, c.denominator, r.mrr_start, r.mrr_end FROM unnest(ARRAY['2023-12', '2024-01', '2024-02']) p, cs.churn(p) c, cs.revenue(p) r $$,
	$$ VALUES ('2023-12', 0::numeric, 0::numeric, 0::numeric, 0::numeric), ('2024-01', 0, 0, 0, 20), ('2024-02', 1, 2, 20, 40) $$,
	'edge before: what happens at the bound belongs to the period that begins there');
SELECT is(ARRAY[cs.mrr('2024-01-01'), cs.mrr('2024-02-01')], ARRAY[0, 20]::numeric[], 'edge before: MRR just before the bound');
SELECT is((SELECT array_agg(month ORDER BY month) FROM cs.churn_monthly), (SELECT array_agg(m::date) FROM generate_series(date '2024-01-01', '2024-06-01', '1 month') m),
	'every month from the first movement on, with and without churn');
UPDATE cs.policy SET period_edge = 'at';
SELECT results_eq($$ SELECT p, c.numerator, c.denominator, r.mrr_start, r.mrr_end, c.period_edge, c.policy_version FROM unnest(ARRAY['2023-12', '2024-01', '2024-02']) p, cs.churn(p) c, cs.revenue(p) r $$,
	$$ VALUES ('2023-12', 0::numeric, 0::numeric, 0::numeric, 20::numeric, 'at', 2), ('2024-01', 1, 2, 20, 40, 'at', 2), ('2024-02', 0, 2, 40, 40, 'at', 2) $$,
	'edge at: what happens at the bound belongs to the period that ends there');
SELECT is(ARRAY[cs.mrr('2024-01-01'), cs.mrr('2024-02-01')], ARRAY[20, 40]::numeric[], 'edge at: MRR on the bound');
SELECT is((SELECT min(month) FROM cs.churn_monthly), date '2023-12-01', 'edge at: the first movement is of the month before');
UPDATE cs.policy SET period_edge = 'before';

-- ---- a zone, and the session -------------------------------------------------
DELETE FROM cs_internal.movement;
UPDATE cs.policy SET time_zone = 'Asia/Tokyo';
SELECT pg_temp.move('a', '2024-01-10', 'new', 10);
SELECT pg_temp.move('a', '2024-03-31 16:30+00', 'churn', 0);       -- 1 April in Tokyo
SELECT results_eq($$ SELECT p, cs.churn_rate(p) FROM unnest(ARRAY['2024-03', '2024-04']) p $$, $$ VALUES ('2024-03', 0::numeric), ('2024-04', 1) $$,
	'months are cut in the zone of the policy');
SELECT results_eq($$ SELECT month, rate FROM cs.churn_monthly WHERE numerator > 0 $$, $$ VALUES (date '2024-04-01', 1::numeric(18,9)) $$, 'in the view, too');
CREATE TEMP TABLE plain AS
	SELECT to_jsonb(c)::text AS j FROM (SELECT period_start, period_end, rate, ci_low FROM cs.churn('2024-04', as_of => '2024-05-01')) c
	UNION ALL SELECT cs.mrr('2024-04-01 01:29')::text UNION ALL SELECT cs.mrr(date '2024-04-02')::text UNION ALL SELECT cs.mrr(timestamp '2024-04-01 01:31')::text
	UNION ALL SELECT to_jsonb(m)::text FROM cs.revenue_monthly m UNION ALL SELECT to_jsonb(m)::text FROM cs.churn_monthly m;
CREATE SCHEMA hostile;
CREATE FUNCTION hostile.width_bucket(timestamptz, timestamptz[]) RETURNS integer LANGUAGE sql AS 'SELECT 0';
CREATE TABLE hostile.movement (customer_id text);
SET LOCAL cs_ext.now = '2024-06-15 12:00:00+00';
SET LOCAL DateStyle = 'German, DMY';
SET LOCAL search_path = hostile, pg_catalog, public;
SET LOCAL IntervalStyle = 'sql_standard';
SET LOCAL TimeZone = 'America/New_York';
CREATE TEMP TABLE changed AS
	SELECT to_jsonb(c)::text AS j FROM (SELECT period_start, period_end, rate, ci_low FROM cs.churn('2024-04', as_of => '2024-05-01')) c
	UNION ALL SELECT cs.mrr('2024-04-01 01:29')::text UNION ALL SELECT cs.mrr(date '2024-04-02')::text UNION ALL SELECT cs.mrr(timestamp '2024-04-01 01:31')::text
	UNION ALL SELECT to_jsonb(m)::text FROM cs.revenue_monthly m UNION ALL SELECT to_jsonb(m)::text FROM cs.churn_monthly m;
SET LOCAL TimeZone = 'UTC';
SET LOCAL search_path = public, pg_catalog;
-- a timestamptz is shown in the session's zone; as an instant it must be the same
UPDATE changed SET j = replace(replace(j, '2024-03-31T11:00:00-04:00', '2024-03-31T15:00:00+00:00'), '2024-04-30T11:00:00-04:00', '2024-04-30T15:00:00+00:00');
SELECT bag_eq('SELECT j FROM changed', 'SELECT j FROM plain', 'no setting of the session changes a result');
SET LOCAL DateStyle = 'ISO, MDY';
UPDATE cs.policy SET time_zone = 'UTC';

-- ---- segments, as stored -----------------------------------------------------
DELETE FROM cs_internal.movement;
SELECT pg_temp.move(c, '2024-01-01', 'new', 10) FROM unnest(ARRAY['a', 'b', 'd', 'e']) c;
SELECT pg_temp.move(c, '2024-03-10', 'churn', 0) FROM unnest(ARRAY['a', 'e']) c;
INSERT INTO cs_internal.membership (customer_id, dimension, segment, valid_from, valid_to, source)
VALUES ('a', 'tier', 'gold', '2024-01-01', '2024-03-11', 'rule'), ('b', 'tier', 'gold', '2024-01-01', NULL, 'rule'),
	('d', 'tier', 'basic', '2024-01-01', '2024-03-05', 'rule'), ('d', 'tier', 'gold', '2024-03-05', NULL, 'rule'), ('e', 'tier', 'basic', '2024-01-01', NULL, 'rule'),
	('a', 'stage', 'basic', '2024-01-01', NULL, 'rule');
SELECT results_eq($$ SELECT s, c.segment, c.numerator, c.denominator, c.segment_basis FROM unnest(ARRAY['tier:gold', 'gold', 'tier:basic']) s, cs.churn('2024-03', s) c $$,
	$$ VALUES ('tier:gold', 'tier:gold', 1::numeric, 2::numeric, 'stored'), ('gold', 'tier:gold', 1, 2, 'stored'), ('tier:basic', 'tier:basic', 1, 2, 'stored') $$,
	'a segment is who was in it at the start of the period');
SELECT results_eq($$ SELECT customer_id, segment, part FROM cs.churn_customers('2024-03', 'gold') ORDER BY 1 $$, $$ VALUES ('a', 'tier:gold', 'churned'), ('b', 'tier:gold', 'retained') $$,
	'and so are the customers behind it');
SELECT is(ARRAY[cs.mrr('2024-03-06', 'tier:gold'), cs.mrr('2024-03-12', 'tier:gold'), cs.mrr('2023-03-06', 'tier:gold')], ARRAY[30, 20, 0]::numeric[], 'MRR of a segment is of who is in it then');
SELECT throws_ok($$ SELECT cs.churn_rate('2024-03', 'tier:golf') $$, '22023', 'unknown segment "tier:golf"', 'an unknown segment is refused');
SELECT throws_ok($$ SELECT cs.churn_rate('2024-03', 'basic') $$, '22023', 'segment "basic" is ambiguous', 'an ambiguous segment is refused');
SELECT throws_ok($$ SELECT cs.mrr('2024-03-06', '') $$, '22023', 'unknown segment ""', 'an empty segment is refused');

-- ---- refused -----------------------------------------------------------------
SELECT throws_ok($$ SELECT cs.churn_rate('2024-03', method => 'snapshop') $$, '22023', 'unknown churn method "snapshop"', 'an unknown method is refused');
SELECT throws_ok($$ SELECT cs.churn_rate('2024-03', unit => 'logos') $$, '22023', 'unknown churn unit "logos"', 'an unknown unit is refused');
SELECT throws_ok($$ SELECT cs.churn_rate('2024-03', method => 'activity') $$, '55000', 'churn method "activity" needs usage events', 'activity needs usage events');
SELECT throws_ok($$ SELECT cs.churn_rate('2024-03', unit => 'seats') $$, '55000', 'churn unit "seats" needs the seats of subscriptions', 'seats need their column');
SELECT is(cs.churn_rate('2024-03', method => 'eligible_base'), NULL, 'without terms nobody is up for renewal');
SELECT throws_ok($$ SELECT * FROM cs.revenue('2024-03', 'tier:golf') $$, '22023', NULL, 'an unknown segment is refused by revenue');
SELECT throws_ok($$ SELECT * FROM cs.revenue('2024-03', basis => 'legder') $$, '22023', NULL, 'an unknown basis is refused');
SELECT throws_ok($$ SELECT cs.churn_rate(NULL) $$, '22004', NULL, 'a NULL period is refused');
SELECT throws_ok($$ SELECT * FROM cs.churn_customers('2024-3') $$, '22023', NULL, 'a malformed period is refused');

-- ---- pauses, merges, free customers ------------------------------------------
DELETE FROM cs_internal.movement;
SELECT pg_temp.move('paused', '2024-01-01', 'new', 100);
SELECT pg_temp.move('paused', '2024-03-01', 'pause', 0, true);
SELECT pg_temp.move('paused', '2024-04-10', 'resume', 120);
SELECT pg_temp.move('half', '2024-01-01', 'new', 100);
SELECT pg_temp.move('half', '2024-03-02', 'pause', 60);
SELECT pg_temp.move('half', '2024-03-03', 'contraction', 50);
SELECT pg_temp.move('lapsed', '2024-01-01', 'new', 100);
SELECT pg_temp.move('lapsed', '2024-02-01', 'pause', 0, true);
SELECT pg_temp.move('lapsed', '2024-03-20', 'churn', 0, false);
SELECT pg_temp.move('old id', '2024-01-01', 'new', 40);
SELECT pg_temp.move('old id', '2024-03-15', 'merge_out', 0);
SELECT pg_temp.move('new id', '2024-01-01', 'new', 10);
SELECT pg_temp.move('new id', '2024-03-15', 'merge_in', 50);
SELECT pg_temp.move('free', '2024-01-01', 'new', 0, true);
SELECT pg_temp.move('free', '2024-03-10', 'new', 7);
SELECT results_eq($$ SELECT r.basis, mrr_start, new_mrr, contraction_mrr, churn_mrr, pause_mrr, merge_in, merge_out, mrr_end, grr, nrr FROM unnest(ARRAY['ledger', 'endpoints']) b, cs.revenue('2024-03', NULL, b) r $$,
	$$ SELECT b, 250::numeric, 7::numeric, 10::numeric, 0::numeric, 140::numeric, 40::numeric, 40::numeric, 107::numeric, 0.24::numeric, 0.4::numeric FROM unnest(ARRAY['ledger', 'endpoints']) b $$,
	'pauses and merges have flows of their own, a free customer''s first payment is new');
SELECT results_eq($$ SELECT numerator, denominator FROM cs.churn('2024-03') $$, $$ VALUES (1::numeric, 6::numeric) $$,
	'a pause is no churn, its end without return is, a merge is not');
SELECT results_eq($$ SELECT customer_id, part FROM cs.churn_customers('2024-03') WHERE NOT part = 'retained' ORDER BY 1 $$, $$ VALUES ('lapsed', 'churned'), ('old id', 'merged') $$, 'and the customers say so');
SELECT results_eq($$ SELECT resume_mrr, expansion_mrr, reactivation_mrr FROM cs.revenue('2024-04', basis => 'endpoints') $$, $$ VALUES (120::numeric, 0::numeric, 0::numeric) $$, 'the end of a pause is resume');

-- ---- random ledgers, against sums written another way --------------------------
DELETE FROM cs_internal.movement;
\ir ../lib/seed.sql

-- whole days and odd instants, overlaps, gaps, equal starts, trials, pauses, free rows; through the sweep
CREATE TEMP TABLE row_of AS
SELECT 'r' || (1 + floor(random() * 150))::integer AS customer_id, s.start_at,
	CASE WHEN random() < 0.75 THEN s.start_at + make_interval(days => (random() * 200)::integer + 1) END AS end_at,
	(ARRAY[0, 10, 20, 33.333333, 50])[1 + floor(random() * 5)::integer] AS mrr,
	(ARRAY['active', 'active', 'active', 'paused', 'trialing'])[1 + floor(random() * 5)::integer] AS status
FROM (SELECT timestamptz '2023-09-01 00:00+00' + make_interval(days => (random() * 270)::integer)
		+ CASE WHEN random() < 0.3 THEN make_interval(secs => (random() * 86400)::integer) ELSE interval '0' END AS start_at
	FROM generate_series(1, 400)) s;
UPDATE row_of SET start_at = date_trunc('month', start_at), end_at = date_trunc('month', end_at) + interval '1 month' WHERE random() < 0.4;
INSERT INTO cs_internal.movement (customer_id, at, seq, kind, delta, mrr_after, active_after, churn_kind, reason)
SELECT f.customer_id, m.at, m.seq, m.kind, m.delta, m.mrr_after, m.active_after, m.churn_kind, m.reason
FROM (SELECT r.customer_id, array_agg(jsonb_populate_record(NULL::cs_internal.subscription_fact, to_jsonb(r))) AS facts
	FROM row_of r GROUP BY r.customer_id) f
CROSS JOIN LATERAL cs_internal.ledger_sweep(f.facts, NULL, false, 40) m;
SELECT cmp_ok((SELECT count(*) FROM cs_internal.movement), '>', 200::bigint, 'the random ledger has movements');
SELECT cmp_ok((SELECT count(DISTINCT kind) FROM cs_internal.movement), '>=', 6::bigint, 'of many kinds');

CREATE TEMP TABLE span (period text, t0 timestamptz, t1 timestamptz);
INSERT INTO span SELECT to_char(m, 'YYYY-MM'), m, least(m + interval '1 month', '2024-06-15 12:00+00')
FROM generate_series(timestamp '2023-08-01', '2024-06-01', '1 month') AS g (local), LATERAL (SELECT local AT TIME ZONE 'UTC') AS x (m);
INSERT INTO span SELECT DISTINCT format('[%s,%s)', a::date, b::date), a, b
FROM (SELECT timestamptz '2023-09-01' + make_interval(days => (random() * 150)::integer) AS a FROM generate_series(1, 10)) x,
	LATERAL (SELECT a + make_interval(days => (random() * 90)::integer + 1) AS b) y;

-- per customer and span, by a look-up at each bound: no code shared with the extension
CREATE FUNCTION pg_temp.expected(edge_at boolean) RETURNS TABLE (period text, customer_id text, m0 numeric, a0 boolean, m1 numeric, a1 boolean, paid boolean)
LANGUAGE sql AS $$
	SELECT s.period, c.customer_id, coalesce(b0.mrr_after, 0), coalesce(b0.active_after, false), coalesce(b1.mrr_after, 0), coalesce(b1.active_after, false),
		EXISTS (SELECT FROM cs_internal.movement m WHERE m.customer_id = c.customer_id AND m.mrr_after > 0 AND (m.at < s.t0 OR (edge_at AND m.at = s.t0)))
	FROM span s CROSS JOIN (SELECT DISTINCT customer_id FROM cs_internal.movement) c
	LEFT JOIN LATERAL (SELECT * FROM cs_internal.movement m WHERE m.customer_id = c.customer_id AND (m.at < s.t0 OR (edge_at AND m.at = s.t0)) ORDER BY m.at DESC, m.seq DESC LIMIT 1) b0 ON true
	LEFT JOIN LATERAL (SELECT * FROM cs_internal.movement m WHERE m.customer_id = c.customer_id AND (m.at < s.t1 OR (edge_at AND m.at = s.t1)) ORDER BY m.at DESC, m.seq DESC LIMIT 1) b1 ON true
$$;
\ir ../lib/same.sql
CREATE FUNCTION pg_temp.compare(edge text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	UPDATE cs.policy SET period_edge = edge;
	CREATE TEMP TABLE want ON COMMIT DROP AS SELECT * FROM pg_temp.expected(edge = 'at');
	CREATE TEMP TABLE got ON COMMIT DROP AS SELECT s.period, r.* FROM span s, unnest(ARRAY['ledger', 'endpoints']) b, cs.revenue(s.period, NULL, b) r;
	CREATE TEMP TABLE who ON COMMIT DROP AS SELECT s.period, c.* FROM span s, cs.churn_customers(s.period) c;
	RETURN NEXT pg_temp.same('SELECT s.period, c.numerator, c.denominator FROM span s, cs.churn(s.period) c',
		'SELECT period, count(*) FILTER (WHERE a0 AND NOT a1)::numeric, count(*) FILTER (WHERE a0)::numeric FROM want GROUP BY period', edge || ': churn of every span');
	RETURN NEXT pg_temp.same('SELECT period, mrr_start, mrr_end, customers_start, customers_end, nrr FROM got WHERE basis = ''endpoints''',
		'SELECT period, sum(m0), sum(m1), count(*) FILTER (WHERE a0), count(*) FILTER (WHERE a1), round(sum(m1) FILTER (WHERE a0 AND (paid OR m0 > 0)) / nullif(sum(m0), 0), 9) FROM want GROUP BY period',
		edge || ': balances and NRR of every span');
	RETURN NEXT pg_temp.same('SELECT period, grr, new_mrr, reactivation_mrr, churn_mrr, expansion_mrr + resume_mrr, contraction_mrr + pause_mrr FROM got WHERE basis = ''endpoints''',
		'SELECT period, round(sum(least(m0, m1)) FILTER (WHERE a0) / nullif(sum(m0), 0), 9),
			coalesce(sum(m1) FILTER (WHERE NOT paid), 0), coalesce(sum(m1) FILTER (WHERE paid AND NOT a0), 0), coalesce(sum(m0) FILTER (WHERE NOT a1), 0),
			coalesce(sum(greatest(m1 - m0, 0)) FILTER (WHERE paid AND a0), 0), coalesce(sum(greatest(m0 - m1, 0)) FILTER (WHERE a1), 0) FROM want GROUP BY period',
		edge || ': flows between the endpoints of every span');
	RETURN NEXT pg_temp.same('SELECT period, new_mrr, reactivation_mrr, expansion_mrr, contraction_mrr, churn_mrr, pause_mrr, resume_mrr FROM got WHERE basis = ''ledger''',
		format('SELECT s.period, %s FROM span s LEFT JOIN cs_internal.movement m ON %s GROUP BY s.period',
			(SELECT string_agg(format('coalesce(abs(sum(m.delta) FILTER (WHERE m.kind = %L)), 0)', k), ', ') FROM unnest(ARRAY['new', 'reactivation', 'expansion', 'contraction', 'churn', 'pause', 'resume']) k),
			CASE edge WHEN 'at' THEN 'm.at > s.t0 AND m.at <= s.t1' ELSE 'm.at >= s.t0 AND m.at < s.t1' END), edge || ': movements of every span');
	RETURN NEXT is_empty('SELECT * FROM got WHERE mrr_end <> mrr_start + new_mrr + reactivation_mrr + expansion_mrr + resume_mrr + merge_in - contraction_mrr - churn_mrr - pause_mrr - merge_out + fx_mrr',
		edge || ': both bases roll forward');
	RETURN NEXT is_empty('SELECT * FROM got WHERE grr NOT BETWEEN 0 AND 1 OR grr > nrr OR least(new_mrr, reactivation_mrr, expansion_mrr, contraction_mrr, churn_mrr, pause_mrr, resume_mrr, merge_in, merge_out) < 0 OR (grr IS NULL) <> (mrr_start = 0)',
		edge || ': 0 <= GRR <= 1, GRR <= NRR, no negative flow');
	RETURN NEXT is_empty('SELECT * FROM got l JOIN got e USING (period) WHERE l.basis = ''ledger'' AND e.basis = ''endpoints'' AND (l.grr > e.grr OR l.nrr <> e.nrr OR l.mrr_end <> e.mrr_end)',
		edge || ': GRR by movements never exceeds GRR between endpoints');
	RETURN NEXT pg_temp.same('SELECT s.period, c.unit, c.numerator, c.denominator FROM span s, unnest(ARRAY[''logo'', ''gross_mrr'', ''net_mrr'']) u, cs.churn(s.period, unit => u) c',
		'SELECT s.period, u, CASE u WHEN ''logo'' THEN count(*) FILTER (WHERE in_numerator)::numeric WHEN ''gross_mrr'' THEN coalesce(sum(churn_mrr + contraction_mrr), 0)
				ELSE coalesce(sum(churn_mrr + contraction_mrr - expansion_mrr - reactivation_mrr), 0) END,
			CASE u WHEN ''logo'' THEN count(*) FILTER (WHERE in_denominator)::numeric ELSE coalesce(sum(mrr_start), 0) END
		FROM span s CROSS JOIN unnest(ARRAY[''logo'', ''gross_mrr'', ''net_mrr'']) u LEFT JOIN who w USING (period) GROUP BY s.period, u', edge || ': customers add up to churn in every unit');
	RETURN NEXT is_empty('SELECT period, customer_id FROM who GROUP BY 1, 2 HAVING count(*) > 1', edge || ': one row a customer');
	RETURN NEXT pg_temp.same('SELECT to_char(month, ''YYYY-MM''), numerator, denominator, rate, ci_low, ci_high, complete FROM cs.churn_monthly',
		format('SELECT s.period, c.numerator::numeric(20,6), c.denominator::numeric(20,6), c.rate, c.ci_low, c.ci_high, c.complete FROM span s, cs.churn(s.period) c
			WHERE s.period LIKE ''2%%'' AND s.t1 > (SELECT min(at) - %L::interval FROM cs_internal.movement)', CASE edge WHEN 'at' THEN '1 microsecond' ELSE '0' END),
		edge || ': churn_monthly is churn of each month');
	RETURN NEXT pg_temp.same('SELECT basis, to_char(month, ''YYYY-MM''), mrr_start, new_mrr, reactivation_mrr, expansion_mrr, contraction_mrr, churn_mrr, pause_mrr, resume_mrr, mrr_end, grr, nrr, gross_mrr_churn, net_mrr_churn, customers_start, customers_end, complete
			FROM unnest(ARRAY[''ledger'', ''endpoints'']) b, cs.revenue_months(b)',
		format('SELECT basis, period, mrr_start, new_mrr, reactivation_mrr, expansion_mrr, contraction_mrr, churn_mrr, pause_mrr, resume_mrr, mrr_end, grr, nrr, gross_mrr_churn, net_mrr_churn, customers_start, customers_end, complete
			FROM got JOIN span s USING (period) WHERE period LIKE ''2%%'' AND s.t1 > (SELECT min(at) - %L::interval FROM cs_internal.movement)', CASE edge WHEN 'at' THEN '1 microsecond' ELSE '0' END),
		edge || ': revenue_months is revenue of each month');
	RETURN NEXT is_empty('SELECT * FROM span s, cs.revenue(s.period) r WHERE cs.mrr(r.period_start) <> r.mrr_start OR cs.mrr(r.period_end) <> r.mrr_end', edge || ': mrr() is the balance at the bounds');
	DROP TABLE want, got, who;
END $$;
SELECT * FROM pg_temp.compare('before');
SELECT * FROM pg_temp.compare('at');

-- the running month is there, marked, and nothing after it
SELECT results_eq('SELECT month, complete FROM cs.churn_monthly ORDER BY month DESC LIMIT 2', $$ VALUES (date '2024-06-01', false), ('2024-05-01', true) $$, 'the running month stands last, incomplete');
UPDATE cs.policy SET churn_unit = 'gross_mrr';
SELECT bag_eq($$ SELECT to_char(month, 'YYYY-MM'), unit, rate, ci_low FROM cs.churn_monthly $$,
	$$ SELECT to_char(m.month, 'YYYY-MM'), 'gross_mrr'::text, cs.churn_rate(to_char(m.month, 'YYYY-MM')), NULL::numeric FROM cs.churn_monthly m $$, 'churn_monthly follows the unit of the policy');
INSERT INTO cs_internal.clock (last_as_of, last_refresh_at) VALUES ('2024-06-14', '2024-06-14 00:01') ON CONFLICT (id) DO UPDATE SET last_as_of = excluded.last_as_of, last_refresh_at = excluded.last_refresh_at;
SELECT results_eq('SELECT DISTINCT data_through_at, computed_at FROM cs.revenue_monthly', $$ VALUES ('2024-06-14 00:00+00'::timestamptz, '2024-06-14 00:01+00'::timestamptz) $$, 'views say how far the data goes');

-- a reader needs no right on the tables behind
CREATE ROLE regress_churn_reader NOLOGIN;
SELECT cs.grant_reader('regress_churn_reader');
SET LOCAL ROLE regress_churn_reader;
SELECT lives_ok($$ SELECT * FROM cs.churn_monthly, cs.revenue_monthly, cs.churn('2024-03') $$, 'a reader reads');
SELECT throws_ok('SELECT * FROM cs_internal.movement', '42501', NULL, 'but not the tables behind');
RESET ROLE;

-- before setup
ALTER TABLE cs.policy DISABLE TRIGGER USER;
DELETE FROM cs.policy;
SELECT throws_ok(q, '55000', 'cs_ext is not set up in this database', q)
FROM unnest(ARRAY['SELECT cs.churn_rate(''2024-03'')', 'SELECT cs.mrr()', 'SELECT * FROM cs.revenue(''2024-03'')', 'SELECT * FROM cs.churn_monthly', 'SELECT * FROM cs.revenue_monthly', 'SELECT * FROM cs.churn_customers(''2024-03'')']) q;

SELECT * FROM finish();
ROLLBACK;
