-- Churn reasons: stated and root cause apart, and what they add up to.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SET cs_ext.now = '2025-06-15 12:00+00';
SELECT * FROM no_plan();

CREATE TABLE contract (customer integer, mrr numeric, start_on date, end_on date, why text);
INSERT INTO contract VALUES (1, 100, '2024-01-01', '2025-05-02', 'price'), (2, 50, '2024-01-01', '2025-05-03', ' Price '), (3, 70, '2024-01-01', '2025-05-04', 'competitor'),
	(4, 30, '2024-01-01', '2025-05-05', 'the cat did it'), (5, 20, '2024-01-01', '2025-05-06', NULL), (6, 10, '2024-01-01', '2025-04-06', 'price'), (7, 500, '2024-01-01', NULL, NULL),
	-- leaves twice in May
	(8, 40, '2024-01-01', '2025-05-10', 'price'), (8, 45, '2025-05-12', '2025-05-20', 'competitor');
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR') \g /dev/null
GRANT SELECT ON contract TO cs_ext_run;
SELECT count(*) FROM cs.add_source('contract', 'subscription', 'contract', '{"customer_id": "customer", "start_at": "start_on", "end_at": "end_on", "mrr": "mrr", "cancel_reason": "why"}') \g /dev/null
INSERT INTO cs.churn_reason (code, addressable, voluntary, description) VALUES ('price', true, true, 'too expensive'), ('competitor', true, true, NULL), ('low adoption', true, true, NULL), ('closed', false, false, NULL);
INSERT INTO cs.churn_reason (code, addressable, voluntary, enabled) VALUES ('old word', false, false, false);
CALL cs.refresh();

SELECT results_eq($$SELECT basis, reason COLLATE "C", addressable, voluntary, churns, customers, churn_mrr, share FROM cs.churn_by_reason('2025-05') WHERE basis = 'stated'$$, $$VALUES
	('stated', 'price' COLLATE "C", true, true, 3::bigint, 3::bigint, 190::numeric, round(3 / 7.0, 9)), ('stated', 'competitor', true, true, 2, 2, 115, round(2 / 7.0, 9)),
	('stated', 'the cat did it', NULL, NULL, 1, 1, 30, round(1 / 7.0, 9)), ('stated', 'closed', false, false, 0, 0, 0, 0), ('stated', 'low adoption', true, true, 0, 0, 0, 0),
	('stated', '(none)', NULL, NULL, 1, 1, 20, round(1 / 7.0, 9))$$, 'by what was said: every code, other words as they stand, and none');
SELECT results_eq($$SELECT reason COLLATE "C", churns FROM cs.churn_by_reason('2025-05') WHERE basis = 'root' AND churns > 0$$, $$VALUES ('(none)' COLLATE "C", 7::bigint)$$, 'nobody looked for the cause yet');

SELECT results_eq($$SELECT customer_id, churned_at::date, stated, root FROM cs.set_root_cause('1', 'low adoption', 'never finished the import', actor => 'ida')$$, $$VALUES ('1', date '2025-05-02', 'price', 'low adoption')$$, 'a root cause for the last churn');
SELECT is((SELECT churned_at::date FROM cs.set_root_cause(8, 'Low Adoption')), date '2025-05-20', 'customers may be numbers, codes of any case');
SELECT is((SELECT churned_at::date FROM cs.set_root_cause('6', 'closed', period => '2025-04')), date '2025-04-06', 'the churn of a period');
SELECT results_eq($$SELECT reason COLLATE "C", churns, churn_mrr FROM cs.churn_by_reason('2025-05') WHERE basis = 'root' AND churns > 0$$, $$VALUES ('low adoption' COLLATE "C", 2::bigint, 145::numeric), ('(none)', 5, 210)$$, 'by root cause');
SELECT results_eq($$SELECT stated, root, note, actor FROM cs.churn_reason_detail('2025-05') WHERE customer_id = '1'$$, $$VALUES ('price', 'low adoption', 'never finished the import', 'ida')$$, 'what was said stays beside it');
SELECT is((SELECT root FROM cs.set_root_cause('8', NULL)), NULL, 'and is taken back');
SELECT is((SELECT count(*) FROM cs.churn_reason_detail('2025-05') WHERE root IS NOT NULL), 1::bigint, 'so one is left');

-- ---- what it adds up to ------------------------------------------------------------
SELECT is_empty($$SELECT * FROM generate_series(timestamp '2025-03-01', '2025-06-01', '1 month') m, LATERAL (SELECT basis, sum(churns) AS n, sum(churn_mrr) AS lost FROM cs.churn_by_reason(to_char(m, 'YYYY-MM')) GROUP BY 1) r,
	cs.churn(to_char(m, 'YYYY-MM'), method => 'event_over_start') c, cs.revenue(to_char(m, 'YYYY-MM')) v WHERE r.n <> c.numerator OR r.lost <> v.churn_mrr$$, 'churns and MRR are those of churn and revenue');
SELECT results_eq($$SELECT count(*), sum(churn_mrr) FROM cs.churn_reason_detail('2025-05')$$, $$SELECT sum(churns)::bigint, sum(churn_mrr) FROM cs.churn_by_reason('2025-05') WHERE basis = 'stated'$$, 'and of the churns behind them');
SELECT is((SELECT sum(share) FROM cs.churn_by_reason('2025-05') WHERE basis = 'root'), 1.0, 'shares add up to one');
SELECT is((SELECT sum(share) FROM cs.churn_by_reason('2025-03')), NULL, 'nothing to divide by: no shares');

-- ---- a corrected churn ----------------------------------------------------------------
UPDATE contract SET end_on = '2025-05-09' WHERE customer = 1;
CALL cs.refresh();
SELECT results_eq($$SELECT churned_at::date, root FROM cs.churn_reason_detail('2025-05') WHERE customer_id = '1'$$, $$VALUES (date '2025-05-09', 'low adoption')$$, 'the cause follows a date that was corrected');
UPDATE contract SET end_on = NULL WHERE customer = 1;
CALL cs.refresh();
SELECT is((SELECT count(*) FROM cs.churn_reason_detail('2025-05') WHERE root IS NOT NULL), 0::bigint, 'a churn that never was has none');
UPDATE contract SET end_on = '2025-05-02' WHERE customer = 1;
CALL cs.refresh();
CALL cs.rebuild();
SELECT is((SELECT root FROM cs.churn_reason_detail('2025-05') WHERE customer_id = '1'), 'low adoption', 'it is decided: a rebuild keeps it');

-- ---- the table --------------------------------------------------------------------------
SELECT throws_ok($$INSERT INTO cs.churn_reason VALUES ('PRICE ', true, true)$$, '23505', NULL, 'a code that another one is already');
SELECT throws_ok($$INSERT INTO cs.churn_reason VALUES ('(none)', true, true)$$, '22023', NULL, 'a word that means something else');
SELECT throws_ok($$INSERT INTO cs.churn_reason VALUES (' ', true, true)$$, '22023', NULL, 'an empty one');
SELECT throws_ok($$DELETE FROM cs.churn_reason WHERE code = 'low adoption'$$, '2BP01', 'churn reason "low adoption" is in use', 'one that is in use');
SELECT is((SELECT count(*) FROM cs_internal.definition_history WHERE table_name = 'churn_reason'), 5::bigint, 'changes have a history');
SELECT throws_ok($$SELECT cs.set_root_cause('1', 'prise')$$, '22023', 'unknown churn reason "prise"', 'an unknown code');
SELECT throws_ok($$SELECT cs.set_root_cause('1', 'old word')$$, '22023', NULL, 'one that is not enabled');
SELECT throws_ok($$SELECT cs.set_root_cause('7', 'price')$$, 'P0002', 'customer "7" has no churn', 'a customer that is there');
SELECT throws_ok($$SELECT cs.set_root_cause('1', 'price', period => '2025-04')$$, 'P0002', NULL, 'no churn in that period');
SELECT is_empty($$SELECT * FROM cs.check('2025-05-01')$$, 'no invariant is broken');
SELECT * FROM finish();
