-- The methods of churn, churn by segment, series, revenue of a segment with its
-- transfers: on ledgers written by hand and on random ones, against look-ups that
-- share no code with the extension. Random parts print their seed; psql -v seed=N
-- repeats one.
BEGIN;
SELECT no_plan();

CREATE ROLE regress_methods_run NOLOGIN;
SET LOCAL client_min_messages = warning;
INSERT INTO cs.policy (run_as, time_zone, currency, segment_basis) VALUES ('regress_methods_run', 'UTC', 'EUR', 'stored');
SET LOCAL cs_ext.now = '2024-06-15 12:00+00';
SET LOCAL search_path = public;

-- A movement that brings the customer to mrr; delta from what stands before.
CREATE FUNCTION pg_temp.move(customer text, moment timestamptz, what text, mrr numeric, active boolean DEFAULT NULL) RETURNS void LANGUAGE sql AS $$
	INSERT INTO cs_internal.movement (customer_id, at, seq, kind, delta, mrr_after, active_after)
	SELECT customer, moment, count(*) FILTER (WHERE m.at = moment), what,
		mrr - coalesce((array_agg(m.mrr_after ORDER BY m.at DESC, m.seq DESC))[1], 0), mrr, coalesce(active, mrr > 0)
	FROM cs_internal.movement m WHERE m.customer_id = customer
$$;
\ir ../lib/same.sql
CREATE TABLE method AS SELECT unnest(ARRAY['snapshot', 'rolling_base', 'event_over_start', 'event_of_start', 'daily_sum']) AS method;
CREATE TABLE unit AS SELECT unnest(ARRAY['logo', 'gross_mrr', 'net_mrr']) AS unit;

-- ---- the golden ledger ---------------------------------------------------------
-- 100 at the start, 10 of them leave, one of those is back; 20 join, 2 of them leave.
SELECT pg_temp.move(format('c%s', n), '2024-01-01', 'new', 10) FROM generate_series(1, 100) n;
SELECT pg_temp.move(format('c%s', n), '2024-03-05', 'churn', 0) FROM generate_series(1, 10) n;
SELECT pg_temp.move('c10', '2024-03-20', 'reactivation', 12);
SELECT pg_temp.move(format('j%s', n), '2024-03-10', 'new', 10) FROM generate_series(1, 20) n;
SELECT pg_temp.move(format('j%s', n), '2024-03-25', 'churn', 0) FROM generate_series(1, 2) n;

SELECT results_eq($$ SELECT c.method, c.numerator, c.denominator, c.rate FROM method m, cs.churn('2024-03', method => m.method) c ORDER BY 1 $$,
	$$ VALUES ('daily_sum', 12::numeric, NULL::numeric, round(10 / 100.0 + 2 / 111.0, 9)), ('event_of_start', 10, 100, 0.1), ('event_over_start', 12, 100, 0.12),
		('rolling_base', 12, 120, 0.1), ('snapshot', 9, 100, 0.09) $$, 'the golden ledger by every method');
SELECT results_eq($$ SELECT m.method, cs.churn_rate('2024-03', NULL, m.method) FROM method m WHERE m.method <> 'daily_sum' ORDER BY 1 $$,
	$$ VALUES ('event_of_start', 0.1), ('event_over_start', 0.12), ('rolling_base', 0.1), ('snapshot', 0.09) $$, 'and as a bare rate');
SELECT results_eq($$ SELECT m.method, u.unit FROM method m, unit u, cs.churn('2024-03', method => m.method, unit => u.unit) c
	WHERE c.ci_low IS NOT NULL AND c.ci_high > c.rate AND c.ci_low < c.rate ORDER BY 1 $$,
	$$ VALUES ('event_of_start', 'logo'), ('snapshot', 'logo') $$, 'bounds stand only beside a share of customers');
SELECT results_eq($$ SELECT c.method, c.unit, c.numerator, c.denominator, c.rate FROM method m, (VALUES ('gross_mrr'), ('net_mrr')) u (unit), cs.churn('2024-03', method => m.method, unit => u.unit) c ORDER BY 1, 2 $$,
	$$ VALUES ('daily_sum', 'gross_mrr', 120::numeric, NULL::numeric, round(100 / 1000.0 + 20 / 1112.0, 9)), ('daily_sum', 'net_mrr', 108, NULL, round(100 / 1000.0 - 12 / 1100.0 + 20 / 1112.0, 9)),
		('event_of_start', 'gross_mrr', 100, 1000, 0.1), ('event_of_start', 'net_mrr', 88, 1000, 0.088),
		('event_over_start', 'gross_mrr', 120, 1000, 0.12), ('event_over_start', 'net_mrr', 108, 1000, 0.108),
		('rolling_base', 'gross_mrr', 120, 1200, 0.1), ('rolling_base', 'net_mrr', 108, 1200, 0.09),
		('snapshot', 'gross_mrr', 90, 1000, 0.09), ('snapshot', 'net_mrr', 88, 1000, 0.088) $$, 'the golden ledger in money');
SELECT results_eq($$ SELECT m.method, count(*) FILTER (WHERE in_numerator), sum(events), count(*) FILTER (WHERE in_denominator) FROM method m, cs.churn_customers('2024-03', NULL, m.method) GROUP BY 1 ORDER BY 1 $$,
	$$ VALUES ('daily_sum', 12::bigint, 12::numeric, 120::bigint), ('event_of_start', 10, 10, 100), ('event_over_start', 12, 12, 100), ('rolling_base', 12, 12, 120), ('snapshot', 9, 9, 100) $$,
	'the golden ledger by customer');
SELECT results_eq($$ SELECT quick_ratio, arpa, transfer_in, transfer_out, segment FROM cs.revenue('2024-03') $$,
	$$ VALUES (round(200 / 120.0, 9), round(1092 / 109.0, 6), 0::numeric, 0::numeric, NULL::text) $$, 'quick ratio and ARPA of the golden ledger');
SELECT results_eq($$ SELECT quick_ratio, arpa FROM cs.revenue('2024-02') $$, $$ VALUES (NULL::numeric, 10::numeric) $$, 'nothing lost: no quick ratio');
SELECT results_eq($$ SELECT quick_ratio, arpa FROM cs.revenue('2023-12') $$, $$ VALUES (NULL::numeric, NULL::numeric) $$, 'no customers: no ARPA');
SELECT results_eq($$ SELECT quick_ratio, arpa FROM cs.revenue_monthly WHERE month = '2024-03-01' $$, $$ VALUES (round(200 / 120.0, 9), round(1092 / 109.0, 6)) $$, 'the view says the same');

-- who leaves twice counts twice as events, once as a customer; who comes and goes in a day is seen by events alone
SELECT pg_temp.move('c1', '2024-04-02', 'reactivation', 10);
SELECT pg_temp.move('c20', '2024-04-10', 'churn', 0);
SELECT pg_temp.move('c20', '2024-04-12', 'reactivation', 10);
SELECT pg_temp.move('c20', '2024-04-20', 'churn', 0);
SELECT pg_temp.move('day', '2024-04-15 08:00+00', 'new', 10);
SELECT pg_temp.move('day', '2024-04-15 09:00+00', 'churn', 0);
SELECT results_eq($$ SELECT c.method, c.numerator, c.denominator FROM method m, cs.churn('2024-04', method => m.method) c ORDER BY 1 $$,
	$$ VALUES ('daily_sum', 2::numeric, NULL::numeric), ('event_of_start', 1, 109), ('event_over_start', 3, 109), ('rolling_base', 3, 110), ('snapshot', 1, 109) $$,
	'leaving twice, and within a day');
SELECT results_eq($$ SELECT m.method, in_numerator, events FROM method m, cs.churn_customers('2024-04', NULL, m.method) WHERE customer_id = 'c20' ORDER BY 1 $$,
	$$ VALUES ('daily_sum', true, 2::bigint), ('event_of_start', true, 1), ('event_over_start', true, 2), ('rolling_base', true, 2), ('snapshot', true, 1) $$, 'the customer who left twice');

-- ---- empty, none, the policy ---------------------------------------------------
SELECT results_eq($$ SELECT c.method, c.numerator, c.rate FROM method m, cs.churn('2023-12', method => m.method) c ORDER BY 1 $$,
	$$ SELECT method, 0::numeric, NULL::numeric FROM method ORDER BY 1 $$, 'an empty base gives NULL by every method');
SELECT results_eq($$ SELECT m.method, cs.churn_rate('2024-02', method => m.method) FROM method m ORDER BY 1 $$, $$ SELECT method, 0::numeric FROM method ORDER BY 1 $$, 'nobody left gives 0 by every method');
UPDATE cs.policy SET churn_method = 'event_over_start';
SELECT results_eq($$ SELECT method, rate FROM cs.churn('2024-03') $$, $$ VALUES ('event_over_start', 0.12) $$, 'the method of the policy');
SELECT results_eq($$ SELECT method, rate FROM cs.churn_monthly WHERE month = '2024-03-01' $$, $$ VALUES ('event_over_start', 0.12::numeric(18,9)) $$, 'also in the view');
SELECT lives_ok(format('UPDATE cs.policy SET churn_method = %L', m), m || ' is a method for the policy') FROM unnest(ARRAY['eligible_base', 'activity']) m;
UPDATE cs.policy SET churn_method = 'daily_sum';
SELECT results_eq($$ SELECT month, numerator, denominator, rate FROM cs.churn_monthly WHERE month >= '2024-03-01' ORDER BY 1 $$,
	$$ SELECT m::date, c.numerator::numeric(20,6), c.denominator::numeric(20,6), c.rate::numeric(18,9) FROM generate_series(timestamp '2024-03-01', '2024-06-01', '1 month') m, cs.churn(to_char(m, 'YYYY-MM')) c $$,
	'daily_sum by month');
UPDATE cs.policy SET churn_method = 'snapshot';

-- ---- series ----------------------------------------------------------------------
SELECT results_eq($$ SELECT day, numerator, denominator, rate, complete FROM cs.churn_series('2023-12-15', '2024-06-02') $$,
	$$ VALUES (date '2023-12-01', 0::numeric, 0::numeric, NULL::numeric, true), ('2024-01-01', 0, 0, NULL, true), ('2024-02-01', 0, 100, 0, true),
		('2024-03-01', 9, 100, 0.09, true), ('2024-04-01', 1, 109, round(1 / 109.0, 9), true), ('2024-05-01', 0, 109, 0, true), ('2024-06-01', 0, 109, 0, false) $$,
	'every month is there: NULL without a base, 0 without churn');
SELECT results_eq($$ SELECT day, numerator FROM cs.churn_series(NULL, NULL, 'quarter') $$, $$ VALUES (date '2024-01-01', 0::numeric), ('2024-04-01', 1) $$, 'from the first movement to now');
SELECT results_eq($$ SELECT count(*), sum(numerator), max(period_end) FROM cs.churn_series(date '2024-06-01', date '2025-01-01', 'day') $$,
	$$ VALUES (15::bigint, 0::numeric, timestamptz '2024-06-15 12:00+00') $$, 'days that have not begun are not there');
SELECT is_empty($$ SELECT * FROM cs.churn_series(NULL, '2023-06-01') $$, 'nothing before the first movement');
SELECT throws_ok($$ SELECT * FROM cs.churn_series('2024-03-01', '2024-03-01') $$, '22023', NULL, 'until must be after since');
SELECT throws_ok($$ SELECT * FROM cs.churn_series('2024-07-01', NULL) $$, '22023', NULL, 'a future since is refused');
SELECT throws_ok($$ SELECT * FROM cs.churn_series('2024-01-01', '2024-03-01', 'moth') $$, '22023', 'unknown grain "moth"', 'an unknown grain is refused');
SELECT throws_ok($$ SELECT * FROM cs.churn_series('0001-01-01', NULL, 'day') $$, '54000', NULL, 'too many periods are refused');
SELECT throws_ok($$ SELECT * FROM cs.churn_series('2024-01-01', NULL, method => 'activity') $$, '55000', NULL, 'as is a method without its facts');
UPDATE cs.policy SET week_start = 7;
SELECT results_eq($$ SELECT day, numerator FROM cs.churn_series('2024-03-05', '2024-03-11', 'week') $$, $$ VALUES (date '2024-03-03', 10::numeric), ('2024-03-10', 0) $$, 'weeks start as the policy says');
UPDATE cs.policy SET week_start = 1;
-- a day that the zone never had: Samoa went from 29 to 31 December 2011
UPDATE cs.policy SET time_zone = 'Pacific/Apia';
SELECT is((SELECT array_agg(day) FROM cs.churn_series('2011-12-28', '2012-01-02', 'day', method => 'daily_sum')), '{2011-12-28,2011-12-29,2011-12-31,2012-01-01}'::date[], 'a local day that never was is not there');
UPDATE cs.policy SET time_zone = 'Asia/Tokyo';
SET LOCAL TimeZone = 'America/New_York';
SET LOCAL DateStyle = 'German, DMY';
SELECT is((SELECT min(period_start) FROM cs.churn_series('2024-03-01', '2024-03-02')), timestamptz '2024-02-29 15:00+00', 'text is read in the zone of the policy');
SELECT is((SELECT min(period_start) FROM cs.churn_series(date '01.03.2024', NULL)), timestamptz '2024-02-29 15:00+00', 'and a date');
SET LOCAL TimeZone = 'UTC';
SET LOCAL DateStyle = 'ISO, MDY';
UPDATE cs.policy SET time_zone = 'UTC';

-- ---- by segment --------------------------------------------------------------------
DELETE FROM cs_internal.movement;
SELECT pg_temp.move(c, '2024-01-01', 'new', 10) FROM unnest(ARRAY['a', 'b', 'd', 'e', 'f']) c;
SELECT pg_temp.move(c, '2024-03-10', 'churn', 0) FROM unnest(ARRAY['a', 'e']) c;
SELECT pg_temp.move('n', '2024-03-12', 'new', 7);
SELECT pg_temp.move('d', '2024-03-12', 'expansion', 15);
INSERT INTO cs.dimension (name, fallback) VALUES ('tier', 'rest');
INSERT INTO cs.segment (dimension, name, rule) VALUES ('tier', 'gold', 'mrr > 100'), ('tier', 'silver', 'mrr > 50');
INSERT INTO cs_internal.membership (customer_id, dimension, segment, valid_from, valid_to, source)
VALUES ('a', 'tier', 'gold', '2024-01-01', '2024-03-11', 'rule'), ('b', 'tier', 'gold', '2024-01-01', NULL, 'rule'),
	('d', 'tier', 'basic', '2024-01-01', '2024-03-05', 'rule'), ('d', 'tier', 'gold', '2024-03-05', NULL, 'rule'),
	('e', 'tier', 'basic', '2024-01-01', NULL, 'rule'), ('n', 'tier', 'gold', '2024-03-12', NULL, 'rule');
SELECT results_eq($$ SELECT segment, numerator, denominator, rate, transfer_in, transfer_out FROM cs.churn_by('2024-03', 'tier') $$,
	$$ VALUES ('basic', 1::numeric, 2::numeric, 0.5::numeric, 0::numeric, 1::numeric), ('gold', 1, 2, 0.5, 2, 0), ('rest', 0, 0, NULL, 0, 0), ('silver', 0, 0, NULL, 0, 0),
		('(none)', 0, 1, 0, 0, 1), ('(total)', 2, 5, 0.4, 0, 0) $$, 'churn by every segment, with who moved between them');
SELECT results_eq($$ SELECT segment, numerator, denominator, transfer_in, transfer_out, unit, dimension, segment_basis, complete FROM cs.churn_by('2024-03', 'tier', unit => 'gross_mrr') WHERE denominator > 0 $$,
	$$ VALUES ('basic', 10::numeric, 20::numeric, 0::numeric, 15::numeric, 'gross_mrr', 'tier', 'stored', true), ('gold', 10, 20, 22, 0, 'gross_mrr', 'tier', 'stored', true),
		('(none)', 0, 10, 0, 7, 'gross_mrr', 'tier', 'stored', true), ('(total)', 20, 50, 0, 0, 'gross_mrr', 'tier', 'stored', true) $$, 'and in money');
SELECT results_eq($$ SELECT s, r.segment, mrr_start, new_mrr, expansion_mrr, churn_mrr, transfer_in, transfer_out, mrr_end, customers_end, arpa, nrr FROM unnest(ARRAY['gold', 'tier:basic', 'tier:(none)', NULL]) s, cs.revenue('2024-03', s) r $$,
	$$ VALUES ('gold', 'tier:gold', 20::numeric, 0::numeric, 0::numeric, 10::numeric, 22::numeric, 0::numeric, 32::numeric, 3::bigint, round(32 / 3.0, 6), 0.5::numeric),
		('tier:basic', 'tier:basic', 20, 0, 5, 10, 0, 15, 0, 0, NULL, 0.75), ('tier:(none)', 'tier:(none)', 10, 7, 0, 0, 0, 7, 10, 1, 10, 1), (NULL, NULL, 50, 7, 5, 20, 0, 0, 42, 4, 10.5, 0.7) $$,
	'revenue of a segment rolls forward with its transfers');
UPDATE cs.policy SET min_n = 2;
SELECT results_eq($$ SELECT segment, rate, rank FROM cs.churn_by('2024-03', 'tier', 'event_over_start', 'gross_mrr') $$,
	$$ VALUES ('basic', 0.5::numeric, 1::bigint), ('gold', 0.5, 1), ('rest', NULL, NULL), ('silver', NULL, NULL), ('(none)', 0, NULL), ('(total)', 0.4, NULL) $$, 'segments of at least min_n customers have a rank');
UPDATE cs.policy SET min_n = 3;
SELECT is((SELECT count(rank) FROM cs.churn_by('2024-03', 'tier')), 0::bigint, 'below it none has');
UPDATE cs.policy SET min_n = 5;
SELECT is(ARRAY[cs.mrr('2024-04-01', 'tier:(none)'), cs.mrr('2024-04-01', 'tier:gold')], ARRAY[10, 32]::numeric[], 'MRR of who is in no segment');
SELECT results_eq($$ SELECT customer_id, segment FROM cs.churn_customers('2024-03', 'tier:(none)') ORDER BY 1 $$, $$ VALUES ('f', 'tier:(none)'), ('n', 'tier:(none)') $$, 'and who they are');
SELECT throws_ok($$ SELECT * FROM cs.churn_by('2024-03', 'teir') $$, '22023', 'unknown dimension "teir"', 'an unknown dimension is refused');
SELECT throws_ok($$ SELECT * FROM cs.churn_by('2024-03', NULL) $$, '22004', NULL, 'a NULL dimension is refused');
SELECT throws_ok($$ SELECT cs.churn_rate('2024-03', 'teir:(none)') $$, '22023', NULL, 'and (none) of it');

-- ---- annualise -----------------------------------------------------------------
SELECT is(round(cs.annualise(0.05, 365 / 12.0), 3), 0.460, '5 % a month is 46.0 % a year, not 60');
SELECT is(round(cs.annualise(0.20, 12 * 365), 4), 0.0184, '20 % a year is 1.84 % a month');
SELECT is(ARRAY[round(cs.annualise(0.028, 12 * 28), 4), round(cs.annualise(0.028, 12 * 31), 4)], ARRAY[0.0304, 0.0275], '2.8 % in February and in a month of 31 days, as of a standard month');
SELECT is(ARRAY[cs.annualise(0, 30), cs.annualise(1, 30), cs.annualise(NULL, 30), cs.annualise(0.1, 365)], ARRAY[0, 1, NULL, 0.1], 'nobody, everybody, nothing, a year');
SELECT cmp_ok(cs.annualise(-0.01, 30), '<', -0.12, 'net churn below 0 grows');
SELECT throws_ok('SELECT cs.annualise(-20, 1)', '22003', 'a rate of -20 in 1 days is beyond all bounds in a year', 'what no number holds is refused');
SELECT is(ARRAY[cs.annualise(0.999, 0.001), cs.annualise(-20, 24)], ARRAY[1, 1 - round(21 ^ (365 / 24.0::numeric), 9)]::numeric[], 'all but all, often, is all; much growth has many digits');
SELECT throws_ok(format('SELECT cs.annualise(%s)', a), '22023', NULL, 'refused: ' || a)
FROM unnest(ARRAY['0.1, 0', '0.1, -1', '1.1, 30', '''NaN'', 30', '0.1, ''NaN''', '0.1, ''Infinity''', '''-Infinity'', 30']) a;

-- ---- random ledgers ----------------------------------------------------------------
DELETE FROM cs_internal.movement;
DELETE FROM cs_internal.membership;
\ir ../lib/seed.sql

-- many short stays with gaps, so that people leave and come back within a month; pauses and free rows
CREATE TEMP TABLE row_of AS
SELECT 'r' || (1 + floor(random() * 60))::integer AS customer_id, s.start_at,
	CASE WHEN random() < 0.9 THEN s.start_at + make_interval(hours => (random() * random() * 2400)::integer + 1) END AS end_at,
	(ARRAY[0, 10, 20, 33.333333, 50])[1 + floor(random() * 5)::integer] AS mrr,
	(ARRAY['active', 'active', 'active', 'active', 'paused'])[1 + floor(random() * 5)::integer] AS status
FROM (SELECT timestamptz '2024-01-10 00:00+00' + make_interval(hours => (random() * 3600)::integer) AS start_at FROM generate_series(1, 350)) s;
UPDATE row_of SET start_at = date_trunc('day', start_at), end_at = date_trunc('day', end_at) + interval '1 day' WHERE random() < 0.6;
UPDATE row_of SET end_at = date_trunc('month', end_at) + interval '1 month' WHERE random() < 0.2;
INSERT INTO cs_internal.movement (customer_id, at, seq, kind, delta, mrr_after, active_after)
SELECT f.customer_id, m.at, m.seq, m.kind, m.delta, m.mrr_after, m.active_after
FROM (SELECT r.customer_id, array_agg(jsonb_populate_record(NULL::cs_internal.subscription_fact, to_jsonb(r))) AS facts
	FROM row_of r GROUP BY r.customer_id) f
CROSS JOIN LATERAL cs_internal.ledger_sweep(f.facts, NULL, false, 20) m;
-- two merges, as later versions will write them: neither churn nor new
INSERT INTO cs_internal.movement (customer_id, at, seq, kind, delta, mrr_after, active_after)
VALUES ('m1', '2024-02-01', 0, 'new', 40, 40, true), ('m1', '2024-03-07 10:00+00', 0, 'merge_out', -40, 0, false), ('m2', '2024-02-01', 0, 'new', 5, 5, true), ('m2', '2024-03-07 10:00+00', 0, 'merge_in', 40, 45, true);
-- each customer wanders through the tiers, sometimes in none
INSERT INTO cs_internal.membership (customer_id, dimension, segment, valid_from, valid_to, source)
SELECT x.customer_id, 'tier', x.segment, x.at, x.next, 'rule'
FROM (SELECT s.*, lead(s.at) OVER (PARTITION BY s.customer_id ORDER BY s.at) AS next
	FROM (SELECT DISTINCT ON (c.customer_id, a.at) c.customer_id, a.at, (ARRAY['gold', 'silver', 'basic', NULL])[1 + floor(random() * 4)::integer] AS segment
		FROM (SELECT DISTINCT customer_id FROM cs_internal.movement) c,
			LATERAL (SELECT timestamptz '2024-01-20 00:00+00' + make_interval(days => (random() * 140)::integer) AS at FROM generate_series(1, 4) WHERE c.customer_id IS NOT NULL) a) s) x
WHERE x.segment IS NOT NULL;
SELECT cmp_ok((SELECT count(*) FROM cs_internal.movement WHERE kind = 'churn'), '>', 60::bigint, 'the random ledger has churns');
SELECT cmp_ok((SELECT max(events) FROM cs.churn_customers('[2024-01-10,2024-06-15)', NULL, 'event_over_start')), '>', 1::bigint, 'some customers leave more than once');

CREATE TEMP TABLE span (period text, t0 timestamptz, t1 timestamptz);
INSERT INTO span SELECT to_char(m, 'YYYY-MM'), m, least(m + interval '1 month', '2024-06-15 12:00+00')
FROM generate_series(timestamp '2023-12-01', '2024-06-01', '1 month') AS g (local), LATERAL (SELECT local AT TIME ZONE 'UTC') AS x (m);
INSERT INTO span SELECT DISTINCT format('[%s,%s)', to_char(a, 'YYYY-MM-DD HH24:MI'), to_char(b, 'YYYY-MM-DD HH24:MI')), a, b
FROM (SELECT timestamptz '2024-01-15' + make_interval(hours => (random() * 1500)::integer) AS a FROM generate_series(1, 4)) x,
	LATERAL (SELECT a + make_interval(hours => (random() * 1400)::integer + 1) AS b) y;

-- every customer at every bound and local midnight, by look-ups
CREATE FUNCTION pg_temp.compare(edge text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	UPDATE cs.policy SET period_edge = edge;
	CREATE TEMP TABLE piece ON COMMIT DROP AS        -- the days of each span, cut at its bounds
	SELECT s.period, b.at AS d0, lead(b.at, 1, s.t1) OVER (PARTITION BY s.period ORDER BY b.at) AS d1
	FROM span s, LATERAL (SELECT s.t0 AS at UNION SELECT d FROM generate_series(timestamptz '2023-12-01', '2024-06-15', '1 day') d WHERE d > s.t0 AND d < s.t1) b;
	CREATE TEMP TABLE stand ON COMMIT DROP AS
	SELECT i.at, c.customer_id, coalesce(b.mrr_after, 0) AS mrr, coalesce(b.active_after, false) AS active,
		EXISTS (SELECT FROM cs_internal.movement m WHERE m.customer_id = c.customer_id AND m.active_after AND (m.at < i.at OR edge = 'at' AND m.at = i.at)) AS was,
		EXISTS (SELECT FROM cs_internal.movement m WHERE m.customer_id = c.customer_id AND m.mrr_after > 0 AND (m.at < i.at OR edge = 'at' AND m.at = i.at)) AS paid,
		coalesce((SELECT s.segment FROM cs_internal.membership s WHERE s.customer_id = c.customer_id AND s.dimension = 'tier' AND s.valid_from <= i.at AND (s.valid_to > i.at OR s.valid_to IS NULL)), '(none)') AS segment
	FROM (SELECT d0 AS at FROM piece UNION SELECT d1 FROM piece) i CROSS JOIN (SELECT DISTINCT customer_id FROM cs_internal.movement) c
	LEFT JOIN LATERAL (SELECT * FROM cs_internal.movement m WHERE m.customer_id = c.customer_id AND (m.at < i.at OR edge = 'at' AND m.at = i.at) ORDER BY m.at DESC, m.seq DESC LIMIT 1) b ON true;
	CREATE INDEX ON stand (at, customer_id);
	-- what a customer did in a span, and on each of its days
	CREATE TEMP TABLE did ON COMMIT DROP AS
	SELECT s.period, a.customer_id, a.segment, a.active AS a0, z.active AS a1, a.was, a.mrr AS m0, z.mrr AS m1, z.segment AS segment1,
		count(*) FILTER (WHERE m.kind = 'churn') AS churns, bool_or(m.active_after) AS appeared, bool_or(m.kind = 'merge_out') AS merged,
		coalesce(-sum(m.delta) FILTER (WHERE m.kind IN ('churn', 'contraction')), 0) AS lost, coalesce(sum(m.delta) FILTER (WHERE m.kind IN ('expansion', 'reactivation')), 0) AS won,
		coalesce(sum(m.delta) FILTER (WHERE m.kind = 'new'), 0) AS new
	FROM span s JOIN stand a ON a.at = s.t0 JOIN stand z ON z.at = s.t1 AND z.customer_id = a.customer_id
	LEFT JOIN cs_internal.movement m ON m.customer_id = a.customer_id AND CASE edge WHEN 'at' THEN m.at > s.t0 AND m.at <= s.t1 ELSE m.at >= s.t0 AND m.at < s.t1 END
	GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9;
	CREATE TEMP TABLE got ON COMMIT DROP AS SELECT s.period AS word, m.method AS by_method, u.unit AS in_unit, c.* FROM span s, method m, unit u, cs.churn(s.period, NULL, m.method, u.unit) c;
	CREATE TEMP TABLE part ON COMMIT DROP AS SELECT s.period AS word, c.* FROM span s, method m, unit u, cs.churn_by(s.period, 'tier', m.method, u.unit) c;
	CREATE TEMP TABLE who ON COMMIT DROP AS SELECT s.period AS word, m.method AS by_method, c.* FROM span s, method m, cs.churn_customers(s.period, NULL, m.method) c;

	RETURN NEXT pg_temp.same('SELECT word, segment, method, numerator, denominator FROM part WHERE unit = ''logo'' AND method <> ''daily_sum'' AND (denominator > 0 OR numerator > 0)',
		'SELECT * FROM (SELECT d.period, x.segment, m.method,
			coalesce(sum(CASE m.method WHEN ''snapshot'' THEN (a0 AND NOT a1 AND NOT coalesce(merged AND churns = 0, false))::integer WHEN ''event_of_start'' THEN (a0 AND churns > 0)::integer ELSE churns END), 0)::numeric AS k,
			coalesce(sum(CASE m.method WHEN ''rolling_base'' THEN (a0 OR NOT was AND appeared)::integer ELSE a0::integer END), 0)::numeric AS n
		FROM did d, method m, LATERAL (VALUES (d.segment), (''(total)'')) x (segment) WHERE m.method <> ''daily_sum'' GROUP BY 1, 2, 3) q
		WHERE k > 0 OR n > 0', edge || ': customers lost of every span and segment');
	RETURN NEXT pg_temp.same('SELECT word, segment, method, unit, numerator, denominator FROM part WHERE unit <> ''logo'' AND method NOT IN (''snapshot'', ''daily_sum'') AND (denominator <> 0 OR numerator <> 0)',
		'SELECT d.period, x.segment, m.method, u.unit,
			sum(CASE WHEN m.method = ''event_of_start'' AND NOT a0 THEN 0 ELSE lost - CASE u.unit WHEN ''net_mrr'' THEN won ELSE 0 END END),
			sum(m0 + CASE m.method WHEN ''rolling_base'' THEN new ELSE 0 END)
		FROM did d, method m, unit u, LATERAL (VALUES (d.segment), (''(total)'')) x (segment) WHERE m.method NOT IN (''snapshot'', ''daily_sum'') AND u.unit <> ''logo'' GROUP BY 1, 2, 3, 4
		HAVING sum(CASE WHEN m.method = ''event_of_start'' AND NOT a0 THEN 0 ELSE lost - CASE u.unit WHEN ''net_mrr'' THEN won ELSE 0 END END) <> 0 OR sum(m0 + CASE m.method WHEN ''rolling_base'' THEN new ELSE 0 END) <> 0',
		edge || ': MRR lost by the movements');
	RETURN NEXT pg_temp.same('SELECT word, numerator, rate FROM got WHERE by_method = ''daily_sum'' AND in_unit = ''logo''',
		'SELECT period, sum(k)::numeric, sum(round(k::numeric / n, 20)) FILTER (WHERE n > 0)::numeric(18,9) FROM (
			SELECT p.period, p.d0, count(*) FILTER (WHERE a.active AND NOT z.active AND NOT (a.customer_id = ''m1'' AND p.d0 <= ''2024-03-07 10:00+00'' AND p.d1 >= ''2024-03-07 10:00+00'')) AS k, count(*) FILTER (WHERE a.active) AS n
			FROM piece p JOIN stand a ON a.at = p.d0 JOIN stand z ON z.at = p.d1 AND z.customer_id = a.customer_id GROUP BY 1, 2) d GROUP BY 1', edge || ': daily_sum adds up the days');
	RETURN NEXT pg_temp.same('SELECT word, method, unit, transfer_in, transfer_out, segment FROM part WHERE transfer_in <> 0 OR transfer_out <> 0',
		'SELECT d.period, m.method, u.unit, sum(CASE WHEN x.enters THEN v.amount ELSE 0 END), sum(CASE WHEN x.enters THEN 0 ELSE v.amount END), x.segment
		FROM did d, method m, unit u, LATERAL (SELECT CASE u.unit WHEN ''logo'' THEN d.a1::integer ELSE d.m1 END) v (amount), LATERAL (VALUES (d.segment, false), (d.segment1, true)) x (segment, enters)
		WHERE d.segment <> d.segment1 AND v.amount <> 0 GROUP BY 1, 2, 3, x.segment', edge || ': transfers of every span and segment');
	RETURN NEXT is_empty('SELECT word, method, unit FROM part GROUP BY 1, 2, 3 HAVING sum(numerator) FILTER (WHERE segment <> ''(total)'') <> max(numerator) FILTER (WHERE segment = ''(total)'')
		OR sum(denominator) FILTER (WHERE segment <> ''(total)'') IS DISTINCT FROM max(denominator) FILTER (WHERE segment = ''(total)'') OR sum(transfer_in) <> sum(transfer_out)
		OR count(*) FILTER (WHERE segment = ''(none)'') <> 1 OR count(*) FILTER (WHERE segment = ''(total)'') <> 1', edge || ': segments add up to the total');
	RETURN NEXT pg_temp.same('SELECT word, by_method, in_unit, numerator, denominator, rate, ci_low, ci_high FROM got',
		'SELECT word, method, unit, numerator, denominator, rate, ci_low, ci_high FROM part WHERE segment = ''(total)''', edge || ': the total is churn of the span');
	RETURN NEXT pg_temp.same('SELECT p.word, p.segment, p.method, p.unit, p.numerator, p.denominator, p.rate, p.ci_low FROM part p WHERE p.segment IN (''gold'', ''(none)'')',
		'SELECT p.word, p.segment, p.method, p.unit, c.numerator, c.denominator, c.rate, c.ci_low FROM part p, cs.churn(p.word, ''tier:'' || p.segment, p.method, p.unit) c WHERE p.segment IN (''gold'', ''(none)'')', edge || ': a part is churn of the segment');
	RETURN NEXT pg_temp.same('SELECT word, by_method, in_unit, numerator, denominator FROM got',
		'SELECT word, by_method, u.unit, CASE u.unit WHEN ''logo'' THEN coalesce(sum(events), 0) ELSE coalesce(sum(churn_mrr + contraction_mrr - CASE u.unit WHEN ''net_mrr'' THEN expansion_mrr + reactivation_mrr ELSE 0 END), 0) END,
			CASE WHEN by_method = ''daily_sum'' THEN NULL WHEN u.unit = ''logo'' THEN count(*) FILTER (WHERE in_denominator)::numeric ELSE coalesce(sum(mrr_start + CASE by_method WHEN ''rolling_base'' THEN new_mrr ELSE 0 END), 0) END
		FROM (SELECT s.period AS word, m.method AS by_method FROM span s, method m) g LEFT JOIN who w USING (word, by_method) CROSS JOIN unit u GROUP BY 1, 2, 3', edge || ': customers add up to churn by every method and unit');
	RETURN NEXT is_empty('SELECT * FROM who WHERE in_numerator <> (events > 0) OR events > 1 AND by_method IN (''snapshot'', ''event_of_start'') OR in_numerator AND NOT in_denominator AND by_method IN (''snapshot'', ''event_of_start'', ''daily_sum'')',
		edge || ': who is in a numerator has events, and a base');
	RETURN NEXT pg_temp.same('SELECT word, segment, by_method, sum(events), count(*) FROM who GROUP BY 1, 2, 3',
		'SELECT word, NULL, by_method, sum(events), count(*) FROM (SELECT w.period AS word, m.method AS by_method, c.events FROM span w, method m, unnest(ARRAY[''gold'', ''silver'', ''basic'', ''(none)'']) s, cs.churn_customers(w.period, ''tier:'' || s, m.method) c) x GROUP BY 1, 2, 3',
		edge || ': the customers of the segments are all customers');
	-- revenue: parts roll forward with their transfers, add up, and close where the next month opens
	CREATE TEMP TABLE money ON COMMIT DROP AS SELECT s.period AS word, x.part, b.basis AS by_basis, r.* FROM span s, unnest(ARRAY['tier:gold', 'tier:silver', 'tier:basic', 'tier:(none)', NULL]) x (part), (VALUES ('ledger'), ('endpoints')) b (basis), cs.revenue(s.period, x.part, b.basis) r;
	RETURN NEXT is_empty('SELECT * FROM money WHERE mrr_end <> mrr_start + new_mrr + reactivation_mrr + expansion_mrr + resume_mrr + merge_in + transfer_in - contraction_mrr - churn_mrr - pause_mrr - merge_out - transfer_out + fx_mrr',
		edge || ': revenue of every segment rolls forward');
	RETURN NEXT is_empty('SELECT word, by_basis FROM money GROUP BY 1, 2 HAVING ' || (SELECT string_agg(format('sum(%1$s) FILTER (WHERE part IS NOT NULL) <> max(%1$s) FILTER (WHERE part IS NULL)', k), ' OR ')
		FROM unnest(ARRAY['mrr_start', 'new_mrr', 'reactivation_mrr', 'expansion_mrr', 'contraction_mrr', 'churn_mrr', 'pause_mrr', 'resume_mrr', 'merge_in', 'merge_out', 'transfer_in - transfer_out', 'mrr_end', 'customers_start', 'customers_end']) k),
		edge || ': revenue of the segments adds up to the whole');
	RETURN NEXT is_empty('SELECT a.word, a.part FROM money a JOIN money z ON z.part = a.part AND z.by_basis = a.by_basis AND z.period_start = a.period_end WHERE a.word LIKE ''2%'' AND z.word LIKE ''2%'' AND (a.mrr_end <> z.mrr_start OR a.customers_end <> z.customers_start)',
		edge || ': a segment closes where it opens next');
	RETURN NEXT is_empty('SELECT * FROM money WHERE part IS NOT NULL AND (mrr_start <> cs.mrr(period_start, part) OR mrr_end <> cs.mrr(period_end, part))', edge || ': mrr() of a segment is its balance at the bounds');
	RETURN NEXT is_empty('SELECT * FROM money WHERE by_basis = ''endpoints'' AND abs(nrr - grr - (expansion_mrr + resume_mrr + (SELECT coalesce(sum(least(greatest(d.m1 - d.m0, 0), 40)), 0) FROM did d WHERE d.customer_id = ''m2'' AND d.a0 AND d.period = word AND (part IS NULL OR part = ''tier:'' || d.segment))) / nullif(mrr_start, 0)) > 1e-8 AND merge_in <> 40',
		edge || ': NRR less GRR is what the base gained');
	-- counts at both ends, through the parts that endpoints cannot see
	RETURN NEXT is_empty('SELECT m.word FROM money m JOIN (SELECT word, count(*) FILTER (WHERE part = ''churned'') AS churned, count(*) FILTER (WHERE part = ''merged'') AS merged, count(*) FILTER (WHERE part IN (''joined'', ''reactivated'')) AS came FROM who WHERE by_method = ''snapshot'' GROUP BY 1) w USING (word)
		WHERE m.part IS NULL AND m.customers_end <> m.customers_start - churned - merged + came', edge || ': customers at the end are those at the start less who left and with who came');
	DROP TABLE piece, stand, did, got, part, who, money;
END $$;
SELECT * FROM pg_temp.compare('before');
SELECT * FROM pg_temp.compare('at');

-- a series is churn of each of its periods, with a segment too
CREATE FUNCTION pg_temp.series(edge text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	UPDATE cs.policy SET period_edge = edge;
	RETURN QUERY SELECT pg_temp.same(format('SELECT day, numerator, denominator, rate, ci_low, ci_high, method, segment, segment_basis, complete FROM cs.churn_series(''2024-01-15'', NULL, %L, %L, %L)', g.grain, s, m.method),
		format($q$SELECT d::date, c.numerator, c.denominator, c.rate, c.ci_low, c.ci_high, c.method, c.segment, c.segment_basis, e <= '2024-06-15 12:00'
			FROM generate_series(date_trunc(%1$L, timestamp '2024-01-15'), '2024-06-15', %2$L) d, LATERAL (SELECT d + %2$L::interval) x (e),
				cs.churn(format('[%%s,%%s)', to_char(d, 'YYYY-MM-DD HH24:MI'), to_char(least(e, '2024-06-15 12:00'), 'YYYY-MM-DD HH24:MI')), %3$L, %4$L) c$q$, g.grain, g.step, s, m.method),
		format('%s: series by %s of %s by %s', edge, g.grain, coalesce(s, 'all'), m.method))
	FROM (VALUES ('month', '1 month'), ('week', '7 days'), ('quarter', '3 months')) g (grain, step), unnest(ARRAY[NULL, 'tier:silver']) s, method m;
END $$;
SELECT * FROM pg_temp.series('before');
SELECT * FROM pg_temp.series('at');

-- a reader needs no right on the tables behind
UPDATE cs.policy SET period_edge = 'before';
CREATE ROLE regress_methods_reader NOLOGIN;
SELECT cs.grant_reader('regress_methods_reader');
SET LOCAL ROLE regress_methods_reader;
SELECT lives_ok($$ SELECT * FROM cs.churn_by('2024-03', 'tier'), cs.churn_series('2024-01-01', NULL), cs.revenue('2024-03', 'tier:gold') LIMIT 1 $$, 'a reader reads');
RESET ROLE;

-- before setup
ALTER TABLE cs.policy DISABLE TRIGGER USER;
DELETE FROM cs.policy;
SELECT throws_ok(q, '55000', 'cs_ext is not set up in this database', q)
FROM unnest(ARRAY['SELECT * FROM cs.churn_by(''2024-03'', ''tier'')', 'SELECT * FROM cs.churn_series(NULL, NULL)']) q;

SELECT * FROM finish();
ROLLBACK;
