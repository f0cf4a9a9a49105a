-- policy.logo_level = 'parent': customers under one parent are one logo, by hand.
-- On random companies: logo_random.
BEGIN;
SELECT no_plan();
\set run_as regress_logo_run
\ir ../lib/logo_company.sql

-- ---- by hand -----------------------------------------------------------------------
-- holding has a, b and (under a) deep, and pays nothing itself; ghost is no customer; k1 and k2 are each other's parent
INSERT INTO cust VALUES ('holding', NULL, '{"channel": "event"}'), ('a', 'holding', '{"channel": "web"}'), ('b', 'holding', '{"channel": "partner"}'), ('deep', 'a', '{"channel": "event"}'),
	('s', 's', '{"channel": "web"}'), ('x', 'ghost', NULL), ('y', 'ghost', '{"channel": "partner"}'), ('k1', 'k2', NULL), ('k2', 'k1', NULL), ('z', '', NULL);
INSERT INTO sub (c, s, e, mrr) VALUES ('a', '2024-01-01', '2024-03-10', 100), ('b', '2024-01-01', '2024-03-20', 50), ('deep', '2024-02-15', NULL, 10),
	('s', '2024-01-01', '2024-03-05', 20), ('x', '2024-01-01', NULL, 30), ('y', '2024-03-02', NULL, 5), ('k1', '2024-01-01', '2024-03-08', 7), ('k2', '2024-01-01', '2024-03-25', 8), ('z', '2024-03-05', '2024-03-15', 1);
INSERT INTO event SELECT c, at FROM (VALUES ('a', timestamptz '2024-02-20 10:00+00'), ('deep', '2024-03-20 10:00+00'), ('s', '2024-02-25'), ('holding', '2024-02-28')) v (c, at);
CALL cs.refresh(commit => false);
CREATE TEMP TABLE method AS SELECT unnest(ARRAY['snapshot', 'rolling_base', 'event_over_start', 'event_of_start', 'daily_sum', 'eligible_base', 'activity']) AS method;
CREATE TEMP TABLE by_customer AS SELECT m.method, u, to_jsonb(c) - '{policy_version,as_of}'::text[] AS answer FROM method m, unnest('{gross_mrr,net_mrr,seats}'::text[]) u, cs.churn('2024-03', NULL, m.method, u) c;
SELECT is((SELECT row(numerator, denominator)::text FROM cs.churn('2024-03')), '(5,7)', 'each customer by itself');
SELECT cs.publish('2024-03') \g /dev/null
UPDATE cs.policy SET logo_level = 'parent';
SELECT results_eq($$ SELECT m.method, numerator, denominator, rate, ci_low IS NOT NULL FROM method m, cs.churn('2024-03', NULL, m.method) ORDER BY 1 $$, $$ VALUES
	('activity', 1::numeric, 2::numeric, 0.5::numeric, true),        -- s stopped; holding goes on by deep
	('daily_sum', 3, NULL, round(1/4.0 + 1/4.0 + 1/3.0, 9), false),  -- s of 4 (z came that day), z of 4, k1 of 3
	('eligible_base', 3, 4, 0.75, true),                             -- holding, s, z and the circle came to a term; holding stayed
	('event_of_start', 2, 4, 0.5, true), ('event_over_start', 3, 4, 0.75, false), ('rolling_base', 3, 5, 0.6, false), ('snapshot', 2, 4, 0.5, true) $$, 'churn by each method in accounts');
SELECT is_empty($$ SELECT b.method, u FROM by_customer b, cs.churn('2024-03', NULL, b.method, u) c WHERE to_jsonb(c) - '{policy_version,as_of}'::text[] <> b.answer $$, 'money and seats are what they were');
SELECT results_eq($$ SELECT customer_id, name, part, in_numerator, mrr_start, mrr_end, churn_mrr, contraction_mrr, expansion_mrr, new_mrr, churned_at::date FROM cs.churn_customers('2024-03') ORDER BY 1 $$, $$ VALUES
	('ghost', NULL::text, 'retained', false, 30::numeric, 35::numeric, 0::numeric, 0::numeric, 0::numeric, 5::numeric, NULL::date), ('holding', NULL, 'retained', false, 160, 10, 150, 0, 0, 0, NULL),
	('k1', NULL, 'churned', true, 15, 0, 15, 0, 0, 0, '2024-03-25'), ('s', NULL, 'churned', true, 20, 0, 20, 0, 0, 0, '2024-03-05'), ('z', NULL, 'joined_and_left', false, 0, 0, 0, 0, 0, 0, '2024-03-15') $$,
	'the accounts behind it, with the money of their customers: the topmost parent, a circle by its least id');
SELECT results_eq($$ SELECT customers_start, customers_end, mrr_start, mrr_end, arpa, churn_mrr FROM cs.revenue('2024-03') $$, $$ VALUES (4::bigint, 2::bigint, 225::numeric, 45::numeric, 22.5::numeric, 186::numeric) $$, 'revenue counts accounts, its money is that of the customers');
SELECT results_eq($$ SELECT segment, numerator, denominator, transfer_in, transfer_out FROM cs.churn_by('2024-03', 'channel') $$, $$ VALUES
	('event', 0::numeric, 0::numeric, 1::numeric, 0::numeric), ('web', 1, 2, 0, 1), ('(none)', 1, 2, 0, 0), ('(total)', 2, 4, 0, 0) $$,
	'an account stands where its largest customer stands: holding by a, then by deep');
SELECT results_eq($$ SELECT customer_id, in_numerator, mrr_start FROM cs.churn_customers('2024-03', 'channel:web') ORDER BY 1 $$, $$ VALUES ('holding', false, 160::numeric), ('s', true, 20) $$, 'with all its customers, wherever they stand');
SELECT results_eq($$ SELECT segment, customers_start, customers_end, mrr_start FROM cs.revenue_by('2024-03', 'channel') $$, $$ VALUES
	('event', 0::bigint, 1::bigint, 10::numeric), ('partner', 0, 0, 50), ('web', 2, 0, 120), ('(none)', 2, 1, 45), ('(total)', 4, 2, 225) $$, 'money stays where the customers stand');
SELECT is((SELECT count(DISTINCT policy_version) FROM cs.churn('2024-03')), 1::bigint, 'results name the version of the policy');
-- nothing but the policy moved
SELECT results_eq($$ SELECT number, customer_id, published, now, cause FROM cs.restatement('2024-03') WHERE number = 'customers_end' ORDER BY 2 NULLS FIRST $$, $$ VALUES
	('customers_end', NULL::text, 3::numeric, 2::numeric, NULL::text), ('customers_end', 'deep', 1, 0, 'policy'), ('customers_end', 'ghost', 0, 1, 'policy'), ('customers_end', 'holding', 0, 1, 'policy'), ('customers_end', 'x', 1, 0, 'policy'), ('customers_end', 'y', 1, 0, 'policy') $$,
	'what was published before moves by the policy');
SELECT cs.publish('2024-03') \g /dev/null
SELECT is_empty($$ SELECT * FROM cs.restatement('2024-03') $$, 'published by accounts nothing has moved');
UPDATE sub SET e = '2024-03-30' WHERE c = 'deep';
CALL cs.refresh(commit => false);
SELECT results_eq($$ SELECT number, customer_id, difference, cause, facts_now -> 0 ->> 'end_at' IS NOT NULL FROM cs.restatement('2024-03') WHERE number IN ('churned', 'mrr_end', 'customers_end') AND customer_id IS NOT NULL ORDER BY 1 $$, $$ VALUES
	('churned', 'holding', -1::numeric, 'facts', true), ('customers_end', 'holding', 1, 'facts', true), ('mrr_end', 'deep', 10, 'facts', true) $$, 'a corrected customer moves the number of its account');
SELECT is_empty($$ SELECT number FROM cs.restatement('2024-03') GROUP BY 1 HAVING bool_or(customer_id IS NOT NULL) AND sum(difference) FILTER (WHERE customer_id IS NOT NULL) <> max(difference) FILTER (WHERE customer_id IS NULL) $$, 'and they add up');
-- a merge inside an account is nothing, one out of it is no churn
UPDATE sub SET e = NULL WHERE c IN ('deep', 's', 'k2');
INSERT INTO merge VALUES ('deep', 'b', '2024-04-10'), ('k2', 's', '2024-04-12');
CALL cs.refresh(commit => false);
SELECT results_eq($$ SELECT numerator, denominator FROM cs.churn('2024-04') $$, $$ VALUES (0::numeric, 4::numeric) $$, 'nobody left');
SELECT results_eq($$ SELECT customer_id, part FROM cs.churn_customers('2024-04') ORDER BY 1 $$, $$ VALUES ('ghost', 'retained'), ('holding', 'retained'), ('k1', 'merged'), ('s', 'retained') $$, 'the account that went over is merged');
SELECT is_empty($$ SELECT * FROM cs.check('2024-01-01', NULL) $$, 'the invariants hold');
-- another parent from now on: for the past too
UPDATE cust SET parent = NULL WHERE c = 'x';
CALL cs.refresh(commit => false);
SELECT results_eq($$ SELECT customer_id FROM cs.churn_customers('2024-04') ORDER BY 1 $$, $$ VALUES ('ghost'), ('holding'), ('k1'), ('s'), ('x') $$, 'parents are those of today');
SELECT throws_ok($$ UPDATE cs.policy SET logo_level = 'group' $$, '22023', NULL, 'another level is refused');
SELECT * FROM finish();
ROLLBACK;
