-- Renewals: what is due, what became of it, rates, cost and forecast, on
-- contracts written by hand; every number below is worked out in the comment.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SET cs_ext.now = '2025-11-15 12:00+01';
SELECT * FROM no_plan();

CREATE TABLE contract (customer text, product text, mrr numeric, currency text, start_on date, end_on date, renews_on date, months integer, status text,
	signed_on date, asked_on date, auto boolean, reason text);
-- Due in 2025-Q4 (1 October to 1 January), seen on 15 November:
INSERT INTO contract (customer, mrr, start_on, end_on, renews_on, signed_on, asked_on, auto) VALUES
	('early', 100, '2024-10-10', '2025-10-10', '2025-10-10', NULL, NULL, false), ('early', 120, '2025-10-10', NULL, '2026-10-10', '2025-09-20', NULL, false),    -- renewed with uplift, signed before
	('same day', 200, '2024-10-15', '2025-10-15', '2025-10-15', NULL, NULL, NULL), ('same day', 150, '2025-10-15', NULL, '2026-10-15', NULL, NULL, NULL),        -- renewed for less
	('gap', 90, '2024-10-20', '2025-10-20', '2025-10-20', NULL, NULL, NULL), ('gap', 90, '2025-10-25', NULL, '2026-10-25', NULL, NULL, NULL),                    -- five days late, within the gap of seven
	('ran over', 80, '2024-10-01', '2025-11-01', '2025-10-12', NULL, NULL, NULL), ('ran over', 80, '2025-11-01', NULL, '2026-11-01', NULL, NULL, NULL),          -- ran on for 20 days, then renewed
	('itself', 60, '2024-10-05', NULL, '2025-10-05', NULL, NULL, true),                                                                                          -- renews itself
	('lost', 300, '2024-11-03', '2025-11-03', '2025-11-03', NULL, '2025-10-01', NULL),                                                                           -- gone with notice
	('back', 70, '2024-10-08', '2025-10-08', '2025-10-08', NULL, NULL, NULL), ('back', 75, '2025-11-10', NULL, '2026-11-10', NULL, NULL, NULL),                  -- lost; a month later a reactivation
	('over', 110, '2024-10-30', NULL, '2025-10-30', NULL, NULL, NULL),                                                                                           -- overdue: runs on, nobody renewed it
	('soon', 140, '2024-12-01', NULL, '2025-12-01', NULL, NULL, NULL),                                                                                           -- open
	('leaving', 160, '2024-12-15', '2025-12-15', '2025-12-15', NULL, '2025-11-10', NULL),                                                                        -- open with notice
	('signed', 50, '2024-12-10', NULL, '2025-12-10', NULL, NULL, NULL), ('signed', 65, '2025-12-10', NULL, '2026-12-10', '2025-11-12', NULL, NULL),              -- the next one is signed
	('changed', 40, '2025-03-01', '2025-07-01', '2025-11-20', NULL, NULL, NULL), ('changed', 45, '2025-07-01', NULL, '2025-11-20', NULL, NULL, NULL),            -- more seats in the middle: due once
	('broken', 30, '2025-01-20', '2025-06-01', '2025-10-20', NULL, '2025-05-01', NULL),                                                                          -- left before its date: lost at it
	('two', 500, '2024-10-21', '2025-10-21', '2025-10-21', NULL, NULL, NULL), ('two', 10, '2024-01-05', NULL, '2026-01-05', NULL, NULL, NULL);                   -- one contract lost, another runs: the customer stays
INSERT INTO contract (customer, mrr, start_on, months, status) VALUES ('monthly', 20, '2025-02-28', 1, 'active'), ('monthly', 5, '2025-03-31', 1, 'trialing');   -- 28 October; 28 November and December to come
INSERT INTO contract (customer, mrr, start_on, end_on, months) VALUES ('plain', 25, '2025-01-01', '2025-10-02', NULL);                                           -- no term known: due at its end
-- Of the year before, for the chances: lost; late and renewed; late and lost; lost with notice; notice, and stayed.
INSERT INTO contract (customer, mrr, start_on, end_on, renews_on, asked_on) VALUES ('ago', 10, '2024-01-01', '2024-10-20', NULL, NULL), ('ago 2', 10, '2024-01-01', '2024-11-20', NULL, NULL),
	('late', 10, '2024-03-01', '2025-03-20', '2025-03-01', NULL), ('late', 10, '2025-03-20', NULL, '2026-03-20', NULL), ('late 2', 10, '2024-04-01', '2025-04-30', '2025-04-01', NULL),
	('asked', 10, '2024-05-01', '2025-05-01', '2025-05-01', '2025-04-01'), ('asked 2', 10, '2024-06-01', '2025-06-01', '2025-06-01', '2025-05-15'), ('asked 2', 10, '2025-06-01', NULL, '2026-06-01', NULL);
INSERT INTO contract (customer, mrr, currency, start_on, end_on, renews_on) VALUES ('dollar', 100, 'usd', '2024-11-05', '2025-11-05', '2025-11-05'), ('dollar', 100, 'USD', '2025-11-05', NULL, '2026-11-05');

SELECT cs.setup(time_zone => 'UTC', currency => 'EUR') \g /dev/null
GRANT SELECT ON contract TO cs_ext_run;
INSERT INTO cs.fx_rate (currency, valid_from, rate) VALUES ('USD', '2024-01-01', 0.5), ('USD', '2025-06-01', 0.6);
SELECT count(*) FROM cs.add_source('contract', 'subscription', 'contract', '{"customer_id": "customer", "product": "product", "mrr": "mrr", "currency": "currency",
	"start_at": "start_on", "end_at": "end_on", "renews_at": "renews_on", "term_months": "months", "status": "status", "signed_at": "signed_on",
	"cancel_requested_at": "asked_on", "auto_renew": "auto", "cancel_reason": "reason"}') \g /dev/null
CALL cs.refresh();

-- ---- what is due, and what became of it ----------------------------------------
SELECT results_eq($$SELECT customer_id COLLATE "C", due_at::date, status COLLATE "C", in_time, target_mrr, renewed_mrr, lost_mrr, is_kept FROM cs.renewals('2025-Q4') ORDER BY 1, 2$$, $$VALUES
	('back' COLLATE "C", date '2025-10-08', 'lost' COLLATE "C", NULL::boolean, 70::numeric, 0::numeric, 70::numeric, false),
	('broken', '2025-10-20', 'lost', NULL, 30, 0, 30, false),
	('changed', '2025-11-20', 'not_at_risk', NULL, 45, NULL, NULL, NULL),
	('dollar', '2025-11-05', 'renewed', true, 50, 60, 0, true),
	('early', '2025-10-10', 'renewed', true, 100, 120, 0, true),
	('gap', '2025-10-20', 'renewed', false, 90, 90, 0, true),
	('itself', '2025-10-05', 'renewed', true, 60, 60, 0, true),
	('leaving', '2025-12-15', 'at_risk', NULL, 160, NULL, NULL, NULL),
	('lost', '2025-11-03', 'lost', NULL, 300, 0, 300, false),
	('monthly', '2025-10-28', 'renewed', true, 20, 20, 0, true),
	('monthly', '2025-11-28', 'not_at_risk', NULL, 20, NULL, NULL, NULL),
	('over', '2025-10-30', 'overdue', NULL, 110, NULL, NULL, NULL),
	('plain', '2025-10-02', 'lost', NULL, 25, 0, 25, false),
	('ran over', '2025-10-12', 'renewed', false, 80, 80, 0, true),
	('same day', '2025-10-15', 'renewed', true, 200, 150, 50, true),
	('signed', '2025-12-10', 'renewed', true, 50, 65, 0, true),
	('soon', '2025-12-01', 'not_at_risk', NULL, 140, NULL, NULL, NULL),
	('two', '2025-10-21', 'lost', NULL, 500, 0, 500, true)$$, 'every renewal of the quarter');

SELECT results_eq($$SELECT status, renewals, customers, target_mrr, renewed_mrr, lost_mrr, in_time, late FROM cs.renewal_status('2025-Q4')$$, $$VALUES
	('renewed', 8::bigint, 8::bigint, 650::numeric, 645::numeric, 50::numeric, 6::bigint, 2::bigint), ('not_at_risk', 3, 3, 205, 0, 0, 0, 0), ('at_risk', 1, 1, 160, 0, 0, 0, 0),
	('overdue', 1, 1, 110, 0, 0, 0, 0), ('lost', 5, 5, 925, 0, 925, 0, 0), ('(total)', 18, 17, 2050, 645, 975, 6, 2)$$, 'by status and amount');
SELECT is(sum(share), 2.000000000, 'shares add up to the total''s') FROM cs.renewal_status('2025-Q4');
SELECT results_eq('SELECT * FROM cs.renewal_status()', $$SELECT * FROM cs.renewal_status('2025-Q4')$$, 'left out: this quarter, to its end');

-- by 15 November thirteen customers were due: eight are there, one is overdue, four are gone
SELECT results_eq($$SELECT numerator, denominator, rate, in_time, overdue, lost, complete FROM cs.renewal_rate('2025-Q4')$$,
	$$VALUES (8::numeric, 13::numeric, round(8 / 13.0, 9), 5::numeric, 1::numeric, 4::numeric, false)$$, 'logo renewal rate');
SELECT results_eq($$SELECT ci_low, ci_high FROM cs.renewal_rate('2025-Q4')$$, $$SELECT cs_internal.wilson(8, 13, 0.95, false)::numeric(18,9), cs_internal.wilson(8, 13, 0.95, true)::numeric(18,9)$$, 'with its Wilson bounds');
SELECT results_eq($$SELECT numerator, denominator, rate, in_time, overdue, lost, ci_low FROM cs.renewal_rate('2025-Q4', unit => 'gross_mrr')$$,
	$$VALUES (550::numeric, 1635::numeric, round(550 / 1635.0, 9), 380::numeric, 110::numeric, 975::numeric, NULL::numeric)$$, 'gross: each capped at what was due');
SELECT results_eq($$SELECT numerator, denominator, rate FROM cs.renewal_rate('2025-Q4', unit => 'net_mrr')$$, $$VALUES (580::numeric, 1635::numeric, round(580 / 1635.0, 9))$$, 'net: with uplift');
SELECT results_eq($$SELECT numerator, denominator, rate FROM cs.renewal_rate('2023-Q4')$$, $$VALUES (0::numeric, 0::numeric, NULL::numeric)$$, 'nothing due: no rate');
SELECT is_empty($$SELECT * FROM generate_series(timestamp '2024-10-01', '2025-11-01', '1 month') m, cs.renewal_rate(to_char(m, 'YYYY-MM')) r, cs.renewal_rate(to_char(m, 'YYYY-MM'), unit => 'gross_mrr') g
	WHERE r.numerator + r.overdue + r.lost <> r.denominator OR g.numerator + g.overdue + g.lost <> g.denominator OR r.rate NOT BETWEEN 0 AND 1 OR g.rate NOT BETWEEN 0 AND 1$$, 'renewed, overdue and lost come to what was due, every month');
-- September: five contracts of which nothing is special, one of them monthly
SELECT results_eq($$SELECT numerator, denominator FROM cs.renewal_rate('2025-Q2')$$, $$VALUES (2::numeric, 4::numeric)$$, 'a monthly contract is due every month and counts once');

-- the view and its function
SELECT set_eq($$SELECT customer_id, due_at, status, target_mrr FROM cs.renewal WHERE due_at >= '2025-10-01' AND due_at < '2026-01-01'$$, $$SELECT customer_id, due_at, status, target_mrr FROM cs.renewals('2025-Q4')$$, 'the view shows the same renewals');
SELECT is((SELECT min(due_at) >= '2024-10-01' AND max(due_at) < '2026-11-15 12:00+01' FROM cs.renewal), true, 'from the same quarter last year to a year from now');
SELECT is((SELECT count(*) FROM cs.renewal WHERE customer_id = 'monthly' AND due_at > '2025-11-15'), 1::bigint, 'of dates to come the next one');
SELECT is((SELECT array_agg(due_at::date ORDER BY due_at) FROM cs.renewals('[2025-02-01,2025-06-01)') WHERE customer_id = 'monthly'), '{2025-03-28,2025-04-28,2025-05-28}'::date[], 'months are stepped from the start, not from step to step');
SELECT is((SELECT sum(n.renewals) FROM (SELECT 'tier:' || s.name AS word FROM cs.segment s WHERE s.dimension = 'tier' UNION SELECT 'tier:' || d.fallback FROM cs.dimension d WHERE d.name = 'tier' AND d.fallback IS NOT NULL UNION SELECT 'tier:(none)') w,
	cs.renewal_status('2025-Q4', w.word) n WHERE n.status = '(total)'), 18::numeric, 'segments add up to the total');

-- ---- what it costs ----------------------------------------------------------------
-- lost since 1 October: back 70, lost 300, plain 25, and gap 90 for five days; less for two 500, same day 50
SELECT results_eq($$SELECT churn_cost, accounts_lost, cost_per_account, contraction_cost, last_year_start, last_year_end, last_year_cost, last_year_accounts, last_year_cost_per_account, change, currency, complete FROM cs.churn_cost()$$,
	$$VALUES (5820::numeric, 4::bigint, 1455::numeric, 6600::numeric, timestamptz '2024-10-01', timestamptz '2024-11-15 12:00+01', 120::numeric, 1::bigint, 120::numeric, 47.5::numeric, 'EUR', false)$$, 'QTD churn cost, per account, and last year to the same day');
SELECT results_eq($$SELECT churn_cost, accounts_lost, cost_per_account FROM cs.churn_cost('2025-03')$$, $$VALUES (0::numeric, 0::bigint, NULL::numeric)$$, 'nobody lost: no cost per account');
SELECT is((SELECT sum(churn_cost) FROM cs.churn_cost('2024-Q4')), 12 * 20.0, 'a complete quarter');
SELECT is((SELECT 12 * churn_mrr FROM cs.revenue('qtd')), (SELECT churn_cost FROM cs.churn_cost('qtd')), 'is twelve times the churn of revenue()');

-- ---- to the end of the quarter ------------------------------------------------------
-- past: 9 dates of which 2 lost, 2 with notice 1 lost, 2 that ran over 1 lost; ahead: 45, 140 and twice 20; 160; 110
SELECT results_eq($$SELECT part, renewals, amount, past_renewals, past_lost, p_expected, expected FROM cs.churn_cost_forecast()$$, $$VALUES
	('realised', 4::bigint, 5820::numeric, NULL::bigint, NULL::bigint, NULL::numeric, 5820::numeric),
	('open', 3, 2460, 9, 2, round(2 / 9.0, 9), round(12 * (45 * 2 / 9.0 + 140 * 2 / 9.0 + 20 * 32 / 81.0), 6)),
	('notice', 1, 1920, 2, 1, 0.5, 960), ('overdue', 1, 1320, 2, 1, 0.5, 660),
	('(total)', 5, 5700, NULL, NULL, NULL, round(5820 + 960 + 660 + 12 * (45 * 2 / 9.0 + 140 * 2 / 9.0 + 20 * 32 / 81.0), 6))$$, 'forecast of churn cost to the end of the quarter');
SELECT is_empty($$SELECT * FROM cs.churn_cost_forecast() f WHERE NOT f.low <= f.expected OR NOT f.expected <= f.high OR f.p_low > f.p_expected OR f.p_expected > f.p_high OR f.high > f.amount + CASE f.part WHEN '(total)' THEN 5820 ELSE 0 END$$, 'low, expected, high');
SELECT results_eq($$SELECT p_low, p_high FROM cs.churn_cost_forecast() WHERE part = 'open'$$, $$SELECT cs_internal.wilson(2, 9, 0.95, false)::numeric(18,9), cs_internal.wilson(2, 9, 0.95, true)::numeric(18,9)$$, 'the chances have Wilson bounds');
BEGIN;
DELETE FROM contract WHERE start_on < '2025-06-01' AND customer <> 'soon' AND renews_on IS DISTINCT FROM '2025-12-01' AND end_on < '2025-10-01';
DELETE FROM contract WHERE customer = 'monthly';
CALL cs.refresh(commit => false);
SELECT results_eq($$SELECT part, past_renewals, p_low, p_expected, p_high, expected FROM cs.churn_cost_forecast() WHERE part IN ('overdue', '(total)')$$,
	$$VALUES ('overdue', 0::bigint, 0::numeric, NULL::numeric, 1::numeric, NULL::numeric), ('(total)', NULL, NULL, NULL, NULL, NULL)$$, 'without a past nothing is expected, and anything possible');
ROLLBACK;

-- ---- what was not known yet, and what changes a renewal ----------------------------------
BEGIN;
UPDATE contract SET signed_on = '2025-11-20' WHERE customer = 'signed' AND mrr = 65;
SELECT is((SELECT status FROM cs.renewal WHERE customer_id = 'signed' AND due_at = '2025-12-10'), 'not_at_risk', 'what is signed tomorrow is not known today');
UPDATE cs.policy SET gap_days_tenure = 60;
SELECT results_eq($$SELECT status, in_time, renewed_at::date, renewed_mrr FROM cs.renewals('2025-Q4') WHERE customer_id = 'back'$$, $$VALUES ('renewed', false, date '2025-11-10', 75::numeric)$$, 'a longer gap makes a late renewal of a return');
UPDATE contract SET auto = true WHERE customer = 'over';
SELECT results_eq($$SELECT status, in_time FROM cs.renewals('2025-Q4') WHERE customer_id = 'over'$$, $$VALUES ('renewed', true)$$, 'what renews itself is not overdue');
INSERT INTO contract (customer, mrr, start_on, end_on, renews_on) VALUES ('lost', 0, '2025-11-03', NULL, '2026-11-03');
SELECT is((SELECT status FROM cs.renewals('2025-Q4') WHERE customer_id = 'lost'), 'lost', 'a free contract renews nothing');
UPDATE cs.policy SET free_is_active = true;
SELECT results_eq($$SELECT status, lost_mrr FROM cs.renewals('2025-Q4') WHERE customer_id = 'lost'$$, $$VALUES ('renewed', 300::numeric)$$, 'unless the free are active');
ROLLBACK;
-- touching pieces of one contract, and the order of rows, change nothing
CREATE TEMP TABLE before AS SELECT * FROM cs.renewals('2025-Q4');
CREATE TEMP TABLE kept AS SELECT * FROM contract;
BEGIN;
DELETE FROM contract;
INSERT INTO contract SELECT * FROM kept ORDER BY mrr DESC, customer;
CALL cs.refresh(commit => false);
SELECT set_eq($$SELECT customer_id, due_at, status, target_mrr, renewed_mrr FROM cs.renewals('2025-Q4')$$, 'SELECT customer_id, due_at, status, target_mrr, renewed_mrr FROM before', 'the order of rows changes nothing');
UPDATE contract SET end_on = '2025-02-01' WHERE renews_on >= '2025-10-01' AND start_on < '2025-01-01' AND customer <> 'two';
INSERT INTO contract SELECT customer, product, mrr, currency, '2025-02-01', end_on, renews_on, months, status, signed_on, asked_on, auto, reason FROM kept WHERE renews_on >= '2025-10-01' AND start_on < '2025-01-01' AND customer <> 'two';
SELECT set_eq($$SELECT customer_id, due_at, status, target_mrr, renewed_mrr FROM cs.renewals('2025-Q4') WHERE customer_id <> 'dollar'$$, $$SELECT customer_id, due_at, status, target_mrr, renewed_mrr FROM before WHERE customer_id <> 'dollar'$$, 'nor does a contract in two touching rows');
ROLLBACK;

-- ---- refused ---------------------------------------------------------------------------------
SELECT throws_ok($$SELECT * FROM cs.renewal_rate('2025-Q4', unit => 'gros_mrr')$$, '22023', 'unknown unit of renewal "gros_mrr"', 'an unknown unit');
SELECT throws_ok($$SELECT * FROM cs.renewal_rate('2026-Q3')$$, '22023', NULL, 'a rate of a time to come');
SELECT throws_ok($$SELECT * FROM cs.renewals('soonish')$$, '22023', NULL, 'no period');
SELECT throws_ok($$SELECT * FROM cs.renewals('2025-Q4', 'teir:x')$$, '22023', NULL, 'an unknown segment');
SELECT isnt_empty($$SELECT * FROM cs.renewals('2026-Q1')$$, 'a quarter to come has renewals');

-- who reads the views needs no right on the facts
BEGIN;
CREATE ROLE regress_renewal_reader NOLOGIN;
SELECT cs.grant_reader('regress_renewal_reader') \g /dev/null
SET LOCAL ROLE regress_renewal_reader;
SELECT count(*) AS seen FROM cs.renewal \gset
RESET ROLE;
SELECT cmp_ok(:seen, '>', 20, 'a reader sees the renewals without a right on the contracts');
ROLLBACK;
SELECT is_empty('SELECT * FROM cs.check()', 'no invariant is broken');
SELECT * FROM finish();
