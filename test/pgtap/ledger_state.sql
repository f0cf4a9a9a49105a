-- From tables to the ledger and to the ledger columns of a customer's state.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET cs_ext.now = '2026-06-15 12:00+09';
SELECT * FROM no_plan();

CREATE TABLE account (id integer PRIMARY KEY, name text);
CREATE TABLE plan_row (
	id integer PRIMARY KEY,
	account_id integer,
	start_at timestamptz,
	end_at timestamptz,
	amount numeric,
	every text,
	every_count integer,
	currency text,
	seats integer,
	status text,
	trial boolean,
	recurring boolean,
	renews_at timestamptz,
	cancel_requested_at timestamptz,
	changed_at timestamptz
);
CREATE INDEX ON plan_row (account_id);
CREATE TABLE addon (account_id integer, start_date date, end_date date, mrr numeric, why text);
CREATE INDEX ON addon (account_id);
CREATE TABLE leaving (account_id integer, at timestamptz, kind text, reason text);

SELECT cs.setup(time_zone => 'Asia/Tokyo', currency => 'JPY', template => NULL) \g /dev/null
SELECT count(*) FROM cs.add_source('account', 'customer', 'account', '{"customer_id": "id", "name": "name"}') \g /dev/null
SELECT count(*) FROM cs.add_source('plan', 'subscription', 'plan_row', '{"customer_id": "account_id", "subscription_id": "id", "start_at": "start_at",
	"end_at": "end_at", "amount": "amount", "interval": "every", "interval_count": "every_count", "currency": "currency", "seats": "seats", "status": "status",
	"is_trial": "trial", "is_recurring": "recurring", "renews_at": "renews_at", "cancel_requested_at": "cancel_requested_at", "changed_at": "changed_at"}') \g /dev/null
SELECT count(*) FROM cs.add_source('addon', 'subscription', 'addon', '{"customer_id": "account_id", "start_at": "start_date", "end_at": "end_date", "mrr": "mrr", "cancel_reason": "why"}') \g /dev/null
SELECT count(*) FROM cs.add_source('leaving', 'cancellation', 'leaving', '{"customer_id": "account_id", "at": "at", "churn_kind": "kind", "reason": "reason"}') \g /dev/null

INSERT INTO account SELECT g, 'account ' || g FROM generate_series(1, 20) g;
INSERT INTO plan_row (id, account_id, start_at, end_at, amount, every, every_count, currency, seats, status, trial, recurring, renews_at, cancel_requested_at, changed_at) VALUES
	-- 1: yearly, and an add-on from the other source
	(1, 1, '2026-01-01+09', NULL, 120000, 'year', 1, 'JPY', 10, 'active', false, true, '2026-07-01+09', NULL, NULL),
	-- 2: weekly, two at once; renewal overdue
	(2, 2, '2026-01-01+09', NULL, 1000, 'week', 2, NULL, 3, NULL, NULL, NULL, '2026-06-10 23:00+09', NULL, NULL),
	(3, 2, '2026-03-01+09', NULL, 30, 'day', 1, NULL, 4, 'past_due', NULL, NULL, '2026-12-01+09', NULL, NULL),
	-- 3: a gap of five days, closed for tenure; then one of nine days, not closed
	(4, 3, '2025-01-01+09', '2025-06-01+09', 100, 'month', 1, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL),
	(5, 3, '2025-06-10+09', '2026-02-01+09', 100, 'month', 1, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL),
	(6, 3, '2026-02-06+09', NULL, 100, 'quarter', 1, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL),
	-- 4: gone; 5: trial only; 6: trial beside a paid row
	(7, 4, '2025-01-01+09', '2026-05-01+09', 500, 'month', 1, NULL, 8, 'canceled', NULL, NULL, NULL, '2026-04-01+09', NULL),
	(8, 5, '2026-06-10+09', '2026-06-24+09', 500, 'month', 1, NULL, 8, 'trialing', NULL, NULL, NULL, NULL, NULL),
	(9, 6, '2026-06-10+09', NULL, 500, 'month', 1, NULL, 8, 'active', true, NULL, NULL, NULL, NULL),
	(10, 6, '2026-06-01+09', NULL, 700, 'month', 1, NULL, 2, 'active', false, NULL, '2026-07-01+09', NULL, NULL),
	-- 7: not recurring; 8: paused since March; 9: free
	(11, 7, '2026-06-01+09', NULL, 9999, 'month', 1, NULL, 2, 'active', false, false, NULL, NULL, NULL),
	(12, 8, '2026-01-01+09', '2026-03-01+09', 400, 'month', 1, NULL, 2, 'active', false, NULL, NULL, NULL, NULL),
	(13, 8, '2026-03-01+09', NULL, 400, 'month', 1, NULL, 2, 'paused', false, NULL, NULL, NULL, NULL),
	(14, 9, '2026-01-01+09', NULL, 0, 'month', 1, NULL, 1, 'active', false, NULL, NULL, NULL, NULL),
	-- 10: starts tomorrow, 11: ends today at three in the afternoon, told yesterday; 12: told tomorrow
	(15, 10, '2026-06-16+09', NULL, 100, 'month', 1, NULL, 1, 'active', false, NULL, NULL, NULL, NULL),
	(16, 11, '2026-01-01+09', '2026-06-15 15:00+09', 100, 'month', 1, NULL, 1, 'active', false, NULL, NULL, '2026-06-14+09', NULL),
	(17, 12, '2026-01-01+09', '2026-06-20+09', 100, 'month', 1, NULL, 1, 'active', false, NULL, NULL, '2026-06-16+09', NULL),
	-- 13: dollars, in small letters
	(18, 13, '2026-01-15+09', NULL, 10, 'month', 1, 'usd', 1, 'active', false, NULL, NULL, NULL, NULL),
	-- 14: canceled without an end
	(19, 14, '2026-01-15+09', NULL, 10, 'month', 1, NULL, 1, 'canceled', false, NULL, NULL, NULL, '2026-05-15 10:00+09'),
	-- 15: cannot be used
	(20, 15, '2026-01-15+09', '2026-01-01+09', 10, 'month', 1, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO addon VALUES (1, '2026-02-01', '2026-04-01', 333.3333333, 'not needed'), (1, '2026-05-01', NULL, 50, NULL), (4, '2025-02-01', '2025-03-01', 1, 'small');
INSERT INTO leaving VALUES (4, '2026-04-01+09', 'voluntary', 'price'), (4, '2026-05-20+09', 'involuntary', 'late word'), (3, '2025-05-20+09', NULL, 'budget');
INSERT INTO cs.metric (name, source, expression, unit, better) VALUES
	('ago_44', 'ledger', 'mrr_ago(44)', 'money', 'high'), ('ago_45', 'ledger', 'mrr_ago(45)', 'money', 'high'),
	('growth', 'ledger', 'mrr / nullif(mrr_ago(90), 0) - 1', 'share', 'high');

CALL cs.refresh();

CREATE FUNCTION pg_temp.ledger(customer text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(concat_ws(' ', to_char(m.at AT TIME ZONE 'Asia/Tokyo', 'YYYY-MM-DD HH24:MI'), m.kind, trim_scale(m.delta), m.churn_kind, m.reason), ', ' ORDER BY m.at)
	FROM cs.movement m WHERE m.customer_id = customer
$$;
SELECT is(pg_temp.ledger('1'), '2026-01-01 00:00 new 10000, 2026-02-01 00:00 expansion 333.333333, 2026-04-01 00:00 contraction -333.333333, 2026-05-01 00:00 expansion 50', 'two sources add up; dates are midnights of the policy''s zone');
SELECT is(pg_temp.ledger('2'), '2026-01-01 00:00 new 2166.666667, 2026-03-01 00:00 expansion 912.5', 'weeks and days are 52/12 and 365/12');
SELECT is(pg_temp.ledger('3'), '2025-01-01 00:00 new 100, 2025-06-01 00:00 churn -100 budget, 2025-06-10 00:00 reactivation 100, 2026-02-01 00:00 churn -100, 2026-02-06 00:00 reactivation 33.333333', 'gaps are churns for money');
SELECT is(pg_temp.ledger('4'), '2025-01-01 00:00 new 500, 2025-02-01 00:00 expansion 1, 2025-03-01 00:00 contraction -1, 2026-05-01 00:00 churn -500 voluntary price', 'a cancellation explains the churn after it');
SELECT is(pg_temp.ledger('5'), NULL, 'a trial moves nothing');
SELECT is(pg_temp.ledger('7'), NULL, 'nor does what does not recur');
SELECT is(pg_temp.ledger('8'), '2026-01-01 00:00 new 400, 2026-03-01 00:00 pause -400', 'a pause');
SELECT is(pg_temp.ledger('10'), '2026-06-16 00:00 new 100', 'what starts tomorrow is known');
SELECT is(pg_temp.ledger('13'), NULL, 'dollars without a rate are left out');
SELECT is(pg_temp.ledger('14'), '2026-01-15 00:00 new 10, 2026-05-15 10:00 churn -10', 'canceled without an end: when it was changed');
SELECT is(pg_temp.ledger('15'), NULL, 'a row that cannot be used moves nothing');

CREATE FUNCTION pg_temp.state(customer text) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', 'mrr', trim_scale(s.mrr), CASE WHEN s.active THEN 'active' ELSE 'inactive' END, CASE WHEN s.in_trial THEN 'trial' END,
		'seats', coalesce(trim_scale(s.seats)::text, '-'), 'tenure', coalesce(s.tenure_days::text, '-'), 'renewal', coalesce(s.days_to_renewal::text, '-'))
	FROM cs_internal.state s WHERE s.customer_id = customer
$$;
SELECT is(pg_temp.state('1'), 'mrr 10050 active seats 10 tenure 165 renewal 16', 'state of a plain customer');
SELECT is(pg_temp.state('2'), 'mrr 3079.166667 active seats 7 tenure 165 renewal -5', 'the least renewal counts, overdue is negative');
SELECT is(pg_temp.state('3'), 'mrr 33.333333 active seats 1 tenure 370 renewal -', 'tenure closes gaps up to gap_days_tenure');
SELECT is(pg_temp.state('4'), 'mrr 0 inactive seats - tenure - renewal -', 'gone');
SELECT is(pg_temp.state('5'), 'mrr 0 inactive trial seats - tenure - renewal -', 'a trial is no customer yet, and its seats do not count');
SELECT is(pg_temp.state('6'), 'mrr 700 active trial seats 2 tenure 14 renewal 16', 'a trial beside a paid row');
SELECT is(pg_temp.state('7'), 'mrr 0 inactive seats - tenure - renewal -', 'a row that does not recur');
SELECT is(pg_temp.state('8'), 'mrr 0 active seats - tenure 165 renewal -', 'paused, without a limit: active');
SELECT is(pg_temp.state('9'), 'mrr 0 inactive seats 1 tenure - renewal -', 'free is not active');
SELECT is(pg_temp.state('10'), 'mrr 0 inactive seats - tenure - renewal -', 'not begun');
SELECT is(pg_temp.state('11'), 'mrr 100 active seats 1 tenure 165 renewal -', 'ends this afternoon');
SELECT is(pg_temp.state('16'), 'mrr 0 inactive seats - tenure - renewal -', 'a customer without a subscription');

-- 45 days ago was midnight of 1 May, when the add-on began: the balance is the one just before
CREATE FUNCTION pg_temp.metric(customer text, name text) RETURNS numeric LANGUAGE sql AS $$
	SELECT round(m.value::numeric, 6) FROM cs.customer_metric m WHERE m.customer_id = customer AND m.metric = name
$$;
SELECT is(pg_temp.metric('1', 'ago_45'), 10000.0, 'mrr_ago: just before that midnight');
SELECT is(pg_temp.metric('1', 'ago_44'), 10050.0, 'mrr_ago: a day later');
SELECT is(pg_temp.metric('1', 'growth'), -0.027419, 'mrr_ago in an expression');
SELECT is(pg_temp.metric('6', 'ago_45'), 0.0, 'mrr_ago before the first movement is 0');

-- an unchanged row is not written again
CREATE TEMP TABLE written AS SELECT customer_id, at, xmin::text AS x FROM cs_internal.movement WHERE customer_id = '1';
UPDATE addon SET mrr = 60 WHERE account_id = 1 AND mrr = 50;
CALL cs.refresh();
SELECT is(pg_temp.ledger('1'), '2026-01-01 00:00 new 10000, 2026-02-01 00:00 expansion 333.333333, 2026-04-01 00:00 contraction -333.333333, 2026-05-01 00:00 expansion 60', 'a correction is as if it had always been so');
SELECT is((SELECT count(*) FROM written w JOIN cs_internal.movement m USING (customer_id, at) WHERE m.xmin::text = w.x), 3::bigint, 'and rewrites only what it changes');

-- rates: the missing one is counted, named, and when there, locked at the start
SELECT results_eq($$SELECT source, reason, row_count FROM cs_internal.unusable WHERE customer_id = '13'$$, $$VALUES ('plan', 'no fx_rate for USD to JPY at 2026-01-15', 1::bigint)$$, 'a missing rate is counted');
SELECT throws_ok('SELECT cs_internal.require_fx_rates()', '22000', 'currencies are mixed and rates are missing in cs.fx_rate: USD to JPY at 2026-01-15', 'and can be refused, with pairs and dates');
SELECT throws_ok($$SELECT * FROM cs.revenue('2026-05')$$, '22000', 'currencies are mixed and rates are missing in cs.fx_rate: USD to JPY at 2026-01-15', 'and revenue refuses');
INSERT INTO cs.fx_rate VALUES ('USD', '2026-01-01', 150), ('USD', '2026-02-01', 160), ('USD', '2025-01-01', 1);
CALL cs.refresh();
SELECT is(pg_temp.ledger('13'), '2026-01-15 00:00 new 1500', 'the rate of the start''s day');
SELECT is((SELECT count(*) FROM cs_internal.unusable WHERE reason LIKE 'no fx_rate%'), 0::bigint, 'and no row is left out any more');
SELECT lives_ok('SELECT cs_internal.require_fx_rates()', 'nothing to refuse');
UPDATE cs.fx_rate SET rate = 155 WHERE valid_from = '2026-01-01';
CALL cs.refresh();
SELECT is(pg_temp.ledger('13'), '2026-01-15 00:00 new 1550', 'a corrected rate makes the ledger anew');
SELECT throws_ok($$INSERT INTO cs.fx_rate VALUES ('EUR', '2026-01-01', 0)$$, '22023', NULL, 'a rate of 0 is refused');
SELECT throws_ok($$INSERT INTO cs.fx_rate VALUES ('EUR', '2026-01-01', 'NaN')$$, '22023', NULL, 'a rate that is no number is refused');
SELECT throws_ok($$INSERT INTO cs.fx_rate VALUES ('eur', '2026-01-01', 2)$$, '22023', NULL, 'a code in small letters is refused');
SELECT throws_ok($$INSERT INTO cs.fx_rate VALUES ('JPY', '2026-01-01', 2)$$, '22023', NULL, 'the policy''s own currency is refused');

-- switches of the policy
UPDATE cs.policy SET free_is_active = true, max_pause_days = 60, gap_days_tenure = 4;
CALL cs.refresh();
SELECT is(pg_temp.state('9'), 'mrr 0 active seats 1 tenure 165 renewal -', 'free_is_active');
SELECT is(pg_temp.ledger('8'), '2026-01-01 00:00 new 400, 2026-03-01 00:00 pause -400, 2026-04-30 00:00 churn 0', 'max_pause_days');
SELECT is(pg_temp.state('8'), 'mrr 0 inactive seats - tenure - renewal -', 'a pause that is too long');
SELECT is(pg_temp.state('3'), 'mrr 33.333333 active seats 1 tenure 129 renewal -', 'gap_days_tenure');

-- as time goes by
SET cs_ext.now = '2026-06-15 15:00+09';
CALL cs.refresh();
SELECT is(pg_temp.state('11'), 'mrr 100 active seats 1 tenure 165 renewal -', 'the balance is taken just before the instant');
SET cs_ext.now = '2026-06-15 15:00:00.000001+09';
CALL cs.refresh();
SELECT is(pg_temp.state('11'), 'mrr 0 inactive seats - tenure - renewal -', 'an end in the middle of a day, without any change of facts');
SET cs_ext.now = '2026-06-16 00:00:01+09';
CALL cs.refresh();
SELECT is(pg_temp.state('10'), 'mrr 100 active seats 1 tenure 0 renewal -', 'and a start');

-- rows, customers and sources that go
DELETE FROM plan_row WHERE account_id = 2;
CALL cs.refresh();
SELECT is(pg_temp.ledger('2'), NULL, 'no row, no movement');
SELECT is(pg_temp.state('2'), 'mrr 0 inactive seats - tenure - renewal -', 'and no state of it');
TRUNCATE addon;
CALL cs.refresh();
SELECT is(pg_temp.ledger('1'), '2026-01-01 00:00 new 10000', 'a truncated source');
UPDATE plan_row SET account_id = 17 WHERE id = 1;
CALL cs.refresh();
SELECT is(pg_temp.ledger('1'), NULL, 'a row that changes hands leaves the one');
SELECT is(pg_temp.ledger('17'), '2026-01-01 00:00 new 10000', 'and comes to the other');

-- sums that do not fit are left out and counted, and break nothing
INSERT INTO plan_row (id, account_id, start_at, amount, every, every_count) SELECT 100 + g, 18, '2026-01-01+09', 9e13, 'month', 1 FROM generate_series(1, 2) g;
CALL cs.refresh();
SELECT is(pg_temp.ledger('18'), NULL, 'a customer with more money than fits');
SELECT is((SELECT reason FROM cs_internal.unusable WHERE customer_id = '18'), 'MRR out of range', 'is counted');

-- a source that cannot be read: what was known stays, nobody churns, and it heals
INSERT INTO addon VALUES (6, '2026-01-01', NULL, 5, NULL);
CALL cs.refresh();
SELECT is(pg_temp.ledger('6'), '2026-01-01 00:00 new 5, 2026-06-01 00:00 expansion 700', 'before it breaks');
ALTER TABLE addon RENAME mrr TO money;
UPDATE plan_row SET amount = 800 WHERE id = 10;
SELECT lives_ok('CALL cs.refresh(commit => false)', 'a broken source does not stop the refresh');
SELECT is(pg_temp.ledger('6'), '2026-01-01 00:00 new 5, 2026-06-01 00:00 expansion 700', 'the ledger of its customers stays');
SELECT is(pg_temp.state('6'), 'mrr 705 active seats - tenure 166 renewal -', 'what is read from the rows is not known');
SELECT isnt((SELECT error FROM cs.source_status WHERE source = 'addon'), NULL, 'the status says so');
ALTER TABLE addon RENAME money TO mrr;
CALL cs.refresh();
SELECT is(pg_temp.ledger('6'), '2026-01-01 00:00 new 5, 2026-06-01 00:00 expansion 800', 'once mended, nothing was missed');
SELECT is((SELECT error FROM cs.source_status WHERE source = 'addon'), NULL, 'and the status is clear');

-- a customer table that is made anew does not end everybody
ALTER TABLE account RENAME TO account_before;
UPDATE plan_row SET amount = 900 WHERE id = 10;
SELECT lives_ok('CALL cs.refresh(commit => false)', 'a missing customer table does not stop the refresh');
SELECT is((SELECT count(*) FROM cs.customer_360), 20::bigint, 'and its customers stay');
SELECT is(pg_temp.ledger('6'), '2026-01-01 00:00 new 5, 2026-06-01 00:00 expansion 900', 'other sources go on');
ALTER TABLE account_before RENAME TO account;
CALL cs.refresh();

-- a rebuild makes the same
CREATE TEMP TABLE before AS SELECT * FROM cs_internal.movement;
CALL cs.rebuild();
SELECT set_eq('SELECT * FROM cs_internal.movement', 'SELECT * FROM before', 'rebuild makes the same ledger');

SELECT is_empty('SELECT * FROM cs.check()', 'no invariant is broken');
SELECT * FROM finish();
