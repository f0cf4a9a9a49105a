-- The methods eligible_base and activity and the unit seats, over real sources: by
-- hand, and on random facts against look-ups that share no code with the extension.
-- Random parts print their seed; psql -v seed=N repeats one.
BEGIN;
SELECT no_plan();
CREATE ROLE regress_base_run NOLOGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL cs_ext.now = '2024-09-15 12:00+00';
SET LOCAL search_path = public;
INSERT INTO cs.policy (run_as, time_zone, currency, segment_basis) VALUES ('regress_base_run', 'UTC', 'EUR', 'stored');
CREATE TABLE sub (id serial, c text, s timestamptz, e timestamptz, mrr numeric, seats numeric, term integer, renews timestamptz, status text DEFAULT 'active', trial boolean DEFAULT false);
CREATE TABLE used (c text, at timestamptz);
SELECT count(*) FROM cs.add_source('sub', 'subscription', 'sub', '{"customer_id": "c", "subscription_id": "id", "start_at": "s", "end_at": "e", "mrr": "mrr", "seats": "seats", "term_months": "term", "renews_at": "renews", "status": "status", "is_trial": "trial"}') \g /dev/null
SELECT count(*) FROM cs.add_source('used', 'usage_event', 'used', '{"customer_id": "c", "at": "at"}') \g /dev/null

-- ---- eligible_base by hand -------------------------------------------------------
INSERT INTO sub (c, s, e, mrr, seats, term, renews) VALUES
	('renewed', '2023-03-10', '2024-03-10', 100, 10, NULL, NULL), ('renewed', '2024-03-10', NULL, 120, 12, NULL, NULL),    -- a row a term
	('cheaper', '2023-03-31', '2024-03-31', 100, 10, NULL, NULL), ('cheaper', '2024-03-31', NULL, 70, 4, NULL, NULL),
	('left', '2023-03-15', '2024-03-15', 50, 5, 12, NULL),                     -- a term of twelve months, not renewed
	('rolls', '2023-03-20', NULL, 30, 3, 12, NULL),                           -- renews by itself
	('known', '2024-01-01', NULL, 20, 2, NULL, '2024-03-25'),                 -- only the next renewal is known
	('cannot', '2024-01-01', NULL, 10, 1, 12, NULL),                          -- in the middle of its term
	('open', '2024-01-01', NULL, 10, 1, NULL, NULL),                          -- no term at all
	('upgrade', '2023-12-01', '2024-03-05', 10, 1, 12, NULL), ('upgrade', '2024-03-05', NULL, 15, 2, 12, NULL),     -- no term ends here
	('early', '2023-12-01', '2024-03-05', 10, 1, 12, NULL),                   -- cut short for good
	('inside', '2024-03-02', '2024-03-28', 40, 4, NULL, NULL),                -- a whole term inside the month
	('late', '2023-03-12', '2024-03-12', 60, 6, NULL, NULL), ('late', '2024-03-20', NULL, 60, 6, NULL, NULL),       -- renewed late
	('tomorrow', '2023-04-01', '2024-04-01', 10, 1, NULL, NULL);               -- at the bound: the next month's
INSERT INTO sub (c, s, e, mrr, seats, trial) VALUES ('trial', '2024-03-01', '2024-03-15', 10, 9, true);
CALL cs.refresh(commit => false);
SELECT results_eq($$ SELECT customer_id, in_numerator, mrr_start, denominator FROM cs.churn_customers('2024-03', NULL, 'eligible_base') WHERE in_denominator ORDER BY 1 $$,
	$$ VALUES ('cheaper', false, 100::numeric, 1::numeric), ('early', true, 10, 1), ('inside', true, 0, 1), ('known', false, 20, 1), ('late', false, 60, 1), ('left', true, 50, 1), ('renewed', false, 100, 1), ('rolls', false, 30, 1) $$,
	'who comes to the end of a term in March, and who of them is gone');
SELECT results_eq($$ SELECT unit, numerator, denominator, rate, ci_low IS NOT NULL FROM unnest(ARRAY['logo', 'gross_mrr', 'net_mrr', 'seats']) u, cs.churn('2024-03', method => 'eligible_base', unit => u) $$,
	$$ VALUES ('logo', 3::numeric, 8::numeric, 0.375, true), ('gross_mrr', 50 + 30 + 10 + 40, 50 + 100 + 100 + 30 + 20 + 10 + 40 + 60, round(130 / 410.0, 9), false),
		('net_mrr', 110, 410, round(110 / 410.0, 9), false), ('seats', 5 + 6 + 1 + 4, 5 + 10 + 10 + 3 + 2 + 1 + 4 + 6, round(16 / 41.0, 9), false) $$,
	'eligible_base in every unit, with bounds beside customers');
SELECT results_eq($$ SELECT numerator, denominator FROM unnest(ARRAY['2024-02', '2024-04', '2024-Q1']) WITH ORDINALITY p (w, n), cs.churn(w, method => 'eligible_base') ORDER BY n $$,
	$$ VALUES (0::numeric, 0::numeric), (1, 1), (3, 8) $$, 'the bound belongs to the month that begins there');
UPDATE cs.policy SET period_edge = 'at';
CALL cs.refresh(commit => false);
SELECT results_eq($$ SELECT p, numerator, denominator FROM unnest(ARRAY['2024-03', '2024-04']) p, cs.churn(p, method => 'eligible_base') $$,
	$$ VALUES ('2024-03', 4::numeric, 9::numeric), ('2024-04', 0, 0) $$, 'with period_edge at to the month that ends there');
UPDATE cs.policy SET period_edge = 'before';
CALL cs.refresh(commit => false);
SELECT is(cs.churn_rate('2024-02', method => 'eligible_base'), NULL, 'nobody up for renewal: NULL');
SELECT results_eq($$ SELECT day, numerator, denominator FROM cs.churn_series('2024-01-01', '2024-05-01', method => 'eligible_base') $$,
	$$ VALUES (date '2024-01-01', 0::numeric, 0::numeric), ('2024-02-01', 0, 0), ('2024-03-01', 3, 8), ('2024-04-01', 1, 1) $$, 'every month stands in the series');
SELECT results_eq($$ SELECT numerator, denominator FROM cs.churn('2024-03', method => 'eligible_base', as_of => '2024-03-11') $$, $$ VALUES (1::numeric, 2::numeric) $$, 'a running period: whose term has ended by then');

-- ---- activity by hand ---------------------------------------------------------------
-- at 1 March the window is 31 January to 29 February, at 1 April 2 March to 31 March
INSERT INTO used VALUES ('renewed', '2024-02-10'), ('renewed', '2024-03-30'), ('left', '2024-01-31 00:00+00'), ('rolls', '2024-01-30 23:59+00'),
	('known', '2024-02-29 23:59+00'), ('known', '2024-03-01 10:00+00'), ('open', '2024-03-02'), ('nobody', '2024-02-15'), ('cheaper', '2024-02-01'), ('cheaper', '2024-04-01');
INSERT INTO sub (c, s, e, mrr, seats) VALUES ('nobody', '2024-05-01', NULL, 5, 1);
CALL cs.refresh(commit => false);
SELECT results_eq($$ SELECT customer_id, part, in_numerator FROM cs.churn_customers('2024-03', NULL, 'activity') WHERE in_denominator ORDER BY 1 $$,
	$$ VALUES ('cheaper', 'retained', true), ('known', 'retained', true), ('left', 'churned', true), ('nobody', 'not_a_customer', true), ('renewed', 'retained', false) $$,
	'who used the product in the thirty days before the start, and who of them not before the end');
SELECT results_eq($$ SELECT unit, numerator, denominator, ci_high IS NOT NULL FROM unnest(ARRAY['logo', 'gross_mrr', 'net_mrr', 'seats']) u, cs.churn('2024-03', method => 'activity', unit => u) $$,
	$$ VALUES ('logo', 4::numeric, 5::numeric, true), ('gross_mrr', 170, 270, false), ('net_mrr', 150, 270, false), ('seats', 17, 27, false) $$, 'activity in every unit');
UPDATE cs.policy SET inactivity_days = 31;
SELECT results_eq($$ SELECT numerator, denominator, policy_version FROM cs.churn('2024-03', method => 'activity') $$, $$ SELECT 4::numeric, 6::numeric, p.version FROM cs.policy p $$, 'the window is the policy''s, and the result says of which version');
SELECT is((SELECT count(*) FROM cs.definition_history WHERE table_name = 'policy' AND (new_row ->> 'inactivity_days')::integer = 30 AND (new_row ->> 'version')::integer < (SELECT version FROM cs.policy)), 3::bigint, 'the versions before are kept');
UPDATE cs.policy SET inactivity_days = 30;

-- ---- seats by hand -------------------------------------------------------------------
SELECT results_eq($$ SELECT method, numerator, denominator FROM unnest(ARRAY['snapshot', 'event_over_start', 'event_of_start', 'rolling_base', 'daily_sum']) m, cs.churn('2024-03', method => m, unit => 'seats') $$,
	$$ VALUES ('snapshot', 5 + 6 + 1::numeric, 10 + 10 + 5 + 3 + 2 + 1 + 1 + 1 + 1 + 6 + 1::numeric), ('event_over_start', 12 + 4 + 6, 41), ('event_of_start', 12 + 6, 41), ('rolling_base', 22, 45), ('daily_sum', 22, NULL) $$,
	'seats lost by the methods that are sums of flows; a trial has none');

-- licences take the place of the seats of subscriptions; merged customers are neither lost nor new
CREATE TABLE lic (c text, s timestamptz, e timestamptz, n integer);
CREATE TABLE merged (a text, b text, at timestamptz);
INSERT INTO lic VALUES ('renewed', '2024-01-01', '2024-03-05', 7), ('rolls', '2024-01-01', NULL, 3), ('open', '2024-02-01', '2024-03-20', 4), ('open', '2024-03-20', NULL, 6);
INSERT INTO merged VALUES ('rolls', 'cannot', '2024-03-10');
INSERT INTO used VALUES ('rolls', '2024-03-25 10:00+00'), ('rolls', '2024-03-04 10:00+00');
SELECT count(*) FROM cs.add_source('lic', 'licence', 'lic', '{"customer_id": "c", "start_at": "s", "end_at": "e", "seats": "n"}') \g /dev/null
SELECT count(*) FROM cs.add_source('merged', 'customer_merge', 'merged', '{"from_customer_id": "a", "into_customer_id": "b", "at": "at"}') \g /dev/null
CALL cs.refresh(commit => false);
SELECT results_eq($$ SELECT method, numerator, denominator FROM unnest(ARRAY['snapshot', 'event_over_start']) m, cs.churn('2024-03', method => m, unit => 'seats') $$,
	$$ VALUES ('snapshot', 7::numeric, 14::numeric), ('event_over_start', 7, 14) $$, 'seats of licences, with a merge that loses none');
SELECT results_eq($$ SELECT customer_id, part, numerator FROM cs.churn_customers('2024-03', NULL, 'snapshot', 'seats') WHERE part <> 'retained' ORDER BY 1 $$,
	$$ VALUES ('cannot', 'joined', 0::numeric), ('renewed', 'churned', 7), ('rolls', 'merged', 0) $$, 'who they went to');
SELECT results_eq($$ SELECT customer_id, in_numerator FROM cs.churn_customers('2024-03', NULL, 'eligible_base') WHERE customer_id IN ('rolls', 'cannot') AND in_denominator $$,
	$$ VALUES ('cannot', false) $$, 'a term that ends after the merge is of whom it went to');
SELECT results_eq($$ SELECT bound_no, customer_id COLLATE "default" FROM cs_internal.usage_activity(ARRAY['2024-03-06', '2024-04-01']::timestamptz[], '2024-04-02') WHERE customer_id IN ('rolls', 'cannot') AND bound_no < 3 ORDER BY 1 $$,
	$$ VALUES (1, 'rolls'), (2, 'cannot') $$, 'what is used under the old id after the merge is used by the new customer');
SELECT cs.drop_source('lic'), cs.drop_source('merged') \g /dev/null
CALL cs.refresh(commit => false);

-- ---- random facts ----------------------------------------------------------------------
\ir ../lib/seed.sql
TRUNCATE sub, used;
INSERT INTO sub (c, s, e, mrr, seats, term, status, trial)
SELECT 'r' || floor(random() * 50)::integer, x.s, CASE WHEN random() < 0.8 THEN x.s + make_interval(days => (random() * 120)::integer) END,
	(ARRAY[0, 10, 20, 33.333333])[1 + floor(random() * 4)::integer], (ARRAY[NULL, 0, 1, 5, 20])[1 + floor(random() * 5)::integer],
	(ARRAY[NULL, 1, 3])[1 + floor(random() * 3)::integer], (ARRAY['active', 'active', 'active', 'past_due', 'paused', 'incomplete'])[1 + floor(random() * 6)::integer], random() < 0.1
FROM (SELECT timestamptz '2024-02-20' + make_interval(days => (random() * 170)::integer, hours => CASE WHEN random() < 0.2 THEN (random() * 24)::integer ELSE 0 END) AS s FROM generate_series(1, 220)) x;
INSERT INTO used SELECT 'r' || floor(random() * 60)::integer, timestamptz '2024-02-01' + make_interval(mins => (random() * 300000)::integer) FROM generate_series(1, 400);
CALL cs.refresh(commit => false);
CREATE TEMP TABLE span AS SELECT to_char(m, 'YYYY-MM') AS period, m AT TIME ZONE 'UTC' AS t0, least((m + interval '1 month') AT TIME ZONE 'UTC', '2024-09-15 12:00+00') AS t1
FROM generate_series(timestamp '2024-02-01', '2024-09-01', '1 month') m
UNION ALL SELECT '[2024-04-10,2024-06-05)', '2024-04-10', '2024-06-05';

-- at each instant: what the row says, a row at a time
CREATE FUNCTION pg_temp.seats(customer text, at timestamptz) RETURNS numeric LANGUAGE sql AS $$
	SELECT coalesce(sum(seats), 0) FROM sub WHERE c = customer AND s < at AND (e >= at OR e IS NULL) AND s < coalesce(e, 'infinity') AND status IN ('active', 'past_due') AND NOT trial $$;
CREATE FUNCTION pg_temp.is_active(customer text, at timestamptz) RETURNS boolean LANGUAGE sql AS $$
	SELECT coalesce((SELECT active_after FROM cs_internal.movement m WHERE m.customer_id = customer AND m.at < is_active.at ORDER BY m.at DESC, seq DESC LIMIT 1), false) $$;
CREATE FUNCTION pg_temp.is_used(customer text, at timestamptz) RETURNS boolean LANGUAGE sql AS $$
	SELECT EXISTS (SELECT FROM used u WHERE u.c = customer AND u.at >= date_trunc('day', is_used.at) - interval '30 days' AND u.at < date_trunc('day', is_used.at)) $$;
CREATE TEMP TABLE who AS SELECT DISTINCT c FROM sub UNION SELECT DISTINCT c FROM used WHERE c IN (SELECT c FROM sub);

SELECT bag_eq($$ SELECT period, numerator::numeric, denominator::numeric FROM span, cs.churn(period, method => 'activity') $$,
	$$ SELECT period, count(*) FILTER (WHERE c IS NOT NULL AND NOT pg_temp.is_used(c, t1))::numeric AS k, count(c)::numeric AS n FROM span LEFT JOIN who ON pg_temp.is_used(c, t0) GROUP BY 1 $$, 'activity on random facts');
SELECT bag_eq($$ SELECT period, numerator::numeric, denominator::numeric FROM span, cs.churn(period, method => 'snapshot', unit => 'seats') $$,
	$$ SELECT period, sum(greatest(pg_temp.seats(c, t0) - pg_temp.seats(c, t1), 0)) AS k, sum(pg_temp.seats(c, t0)) AS n FROM span, who GROUP BY 1 $$, 'seats by snapshot on random facts');
-- each end of a term by walking the calendar a month at a time
CREATE TEMP TABLE due AS
SELECT DISTINCT s.c, d.at FROM sub s, LATERAL (
	SELECT s.e WHERE s.e IS NOT NULL AND (s.term IS NULL OR NOT EXISTS (SELECT FROM sub o WHERE o.c = s.c AND o.s = s.e AND o.status IN ('active', 'past_due') AND NOT o.trial AND (o.e IS NULL OR o.e > o.s)))
	UNION SELECT s.s + make_interval(months => n) FROM generate_series(1, 12) n WHERE n % s.term = 0 AND (s.e IS NULL OR s.s + make_interval(months => n) <= s.e)) d (at)
WHERE s.status IN ('active', 'past_due') AND NOT s.trial AND (s.e IS NULL OR s.e > s.s);
SELECT bag_eq($$ SELECT period, numerator::numeric, denominator::numeric FROM span, cs.churn(period, method => 'eligible_base') $$,
	$$ SELECT p.period, count(d.c) FILTER (WHERE NOT pg_temp.is_active(d.c, p.t1))::numeric AS k, count(d.c)::numeric AS n FROM span p LEFT JOIN LATERAL (
		SELECT c, min(at) AS at FROM due WHERE due.at >= p.t0 AND due.at < p.t1 GROUP BY c) d ON pg_temp.is_active(d.c, d.at) GROUP BY 1 $$, 'eligible_base on random facts');
SELECT cmp_ok((SELECT sum(denominator) FROM span, cs.churn(period, method => 'eligible_base')), '>', 50::numeric, 'there were terms to look at');

-- members add up exactly, whatever is asked
SELECT is_empty($$
	SELECT s.period, m.method, u.unit, c.numerator, w.n, c.denominator, w.d
	FROM span s, unnest(ARRAY['snapshot', 'rolling_base', 'event_over_start', 'event_of_start', 'daily_sum', 'eligible_base', 'activity']) m (method),
		unnest(ARRAY['logo', 'gross_mrr', 'net_mrr', 'seats']) u (unit), cs.churn(s.period, NULL, m.method, u.unit) c,
		LATERAL (SELECT coalesce(sum(x.numerator), 0), CASE WHEN m.method <> 'daily_sum' THEN coalesce(sum(x.denominator), 0) END FROM cs.churn_customers(s.period, NULL, m.method, u.unit) x) w (n, d)
	WHERE c.numerator <> w.n OR c.denominator IS DISTINCT FROM w.d $$, 'churn_customers adds up to churn by every method and unit');

SELECT * FROM finish();
ROLLBACK;
