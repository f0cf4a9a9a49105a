-- Cohorts and survival by segment as policy.segment_basis says: restated by the rules of
-- today (followed from movement to movement, by attribute, or asked month by month), or stored.
BEGIN;
SELECT no_plan();
CREATE ROLE regress_retention_run NOLOGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL search_path = public;
SET LOCAL cs_ext.now = '2024-07-01';
INSERT INTO cs.policy (run_as, time_zone, currency) VALUES ('regress_retention_run', 'UTC', 'EUR');
CREATE TABLE cust (c text PRIMARY KEY, attributes jsonb);
CREATE TABLE sub (id serial, c text, s timestamptz, e timestamptz, mrr numeric);
SELECT count(*) FROM cs.add_source('cust', 'customer', 'cust', '{"customer_id": "c", "attributes": "attributes"}') \g /dev/null
SELECT count(*) FROM cs.add_source('sub', 'subscription', 'sub', '{"customer_id": "c", "start_at": "s", "end_at": "e", "mrr": "mrr"}') \g /dev/null
INSERT INTO cs.metric (name, source, expression) VALUES ('mrr', 'ledger', 'mrr'), ('tenure_days', 'ledger', 'tenure_days');
INSERT INTO cs.dimension (name, attribute) VALUES ('channel', 'channel');
INSERT INTO cs.dimension (name, fallback) VALUES ('tier', 'small'), ('tier_again', 'small'), ('age', 'young');
INSERT INTO cs.segment (dimension, name, rule, priority) VALUES ('tier', 'big', 'mrr >= 100', 1), ('tier_again', 'big', 'mrr >= 100 AND coalesce(tenure_days, 0) >= 0', 1), ('age', 'old', 'tenure_days >= 45', 1);
INSERT INTO cs.dimension (name, exclusive) VALUES ('flag', false);
INSERT INTO cs.segment (dimension, name, rule) VALUES ('flag', 'any', 'true');
-- a: big for 60 days, then small, churns on day 90; b: small all along; d: small, big from day 40 on; n: comes and goes within March
INSERT INTO cust VALUES ('a', '{"channel": "web"}'), ('b', '{"channel": "web"}'), ('d', '{"channel": "shop"}'), ('n', '{"channel": "web"}');
INSERT INTO sub (c, s, e, mrr) VALUES ('a', '2024-01-01', '2024-03-01', 150), ('a', '2024-03-01', '2024-03-31', 50), ('b', '2024-01-11', NULL, 20),
	('d', '2024-01-01', '2024-02-10', 10), ('d', '2024-02-10', NULL, 120), ('n', '2024-03-05', '2024-03-25', 200);
CALL cs.refresh(commit => false);

SELECT results_eq($$ SELECT time, at_risk, events, censored, segment_basis FROM cs.survival('tier:big') $$, $$ VALUES
	(0::float8, 2::bigint, 0::bigint, 0::bigint, 'restated'), (20, 2, 1, 0, 'restated'), (60, 2, 0, 1, 'restated'), (182, 1, 0, 1, 'restated') $$,
	'a and n from their start, d from day 40 on; a goes over on day 60, n churns on day 20');
SELECT results_eq($$ SELECT time, at_risk, events, censored FROM cs.survival('tier:small') $$, $$ VALUES
	(0::float8, 2::bigint, 0::bigint, 0::bigint), (40, 2, 0, 1), (90, 2, 1, 0), (172, 1, 0, 1) $$, 'the rest of the same lives');
SELECT results_eq($$ SELECT time, at_risk, events, censored FROM cs.survival('channel:web') $$, $$ VALUES (0::float8, 3::bigint, 0::bigint, 0::bigint), (20, 3, 1, 0), (90, 2, 1, 0), (172, 1, 0, 1) $$, 'an attribute is for life');
-- asked at each start of a month: n, who came and went in between, is never seen
SELECT results_eq($$ SELECT time, at_risk, events, censored FROM cs.survival('tier_again:big') $$, $$ VALUES (0::float8, 0::bigint, 0::bigint, 0::bigint), (90, 2, 1, 0), (182, 1, 0, 1) $$, 'rules over metrics are asked at starts of months, just before: a from February on and to its end, d from March on');
SELECT is((SELECT segment_basis FROM cs.survival() LIMIT 1), NULL, 'without a segment there is no basis');
-- parts of a life add up to it
SELECT results_eq($$ SELECT sum(events) FROM (SELECT events FROM cs.survival('tier:big') UNION ALL SELECT events FROM cs.survival('tier:small')) x $$, $$ SELECT sum(events) FROM cs.survival() $$, 'each churn is in one segment');

SELECT results_eq($$ SELECT cohort, customers, active, mrr_first, segment_basis FROM cs.retention_cohorts('month', 'tier:big') WHERE age IN (0, 2) ORDER BY 1, age $$, $$ VALUES
	(date '2024-01-01', 1::bigint, 1::bigint, 150::numeric, 'restated'), ('2024-01-01', 1, 0, 150, 'restated') $$, 'cohorts are of who was in the segment at the end of the first month');
SELECT results_eq($$ SELECT cohort, customers FROM cs.retention_cohorts('month', 'tier:small') WHERE age = 0 ORDER BY 1 $$, $$ VALUES (date '2024-01-01', 2::bigint), ('2024-03-01', 1) $$, 'who had left by then is small');
SELECT results_eq($$ SELECT cohort, customers FROM cs.retention_cohorts('month', 'age:old') WHERE age = 0 $$, $$ SELECT cohort, customers FROM cs.retention_cohorts('month', 'age:old') WHERE false $$, 'nobody is old within a month');
SELECT results_eq($$ SELECT cohort, customers FROM cs.retention_cohorts('quarter', 'age:old') WHERE age = 0 $$, $$ VALUES (date '2024-01-01', 2::bigint) $$, 'by the stages: within a quarter b and d are');
SELECT results_eq($$ SELECT sum(customers) FROM (SELECT customers FROM cs.retention_cohorts('month', 'tier:big') WHERE age = 0 UNION ALL SELECT customers FROM cs.retention_cohorts('month', 'tier:small') WHERE age = 0) x $$,
	$$ SELECT sum(customers) FROM cs.retention_cohorts() WHERE age = 0 $$, 'cohorts of the segments add up');

-- a decision by hand counts from when it was made, before the rules
INSERT INTO cs_internal.membership (customer_id, dimension, segment, valid_from, source) VALUES ('b', 'tier', 'big', '2024-05-10', 'manual');
SELECT results_eq($$ SELECT time, at_risk, events, censored FROM cs.survival('tier:small') WHERE time > 90 $$, $$ VALUES (120::float8, 1::bigint, 0::bigint, 1::bigint) $$, 'b is small until it was assigned');
SELECT results_eq($$ SELECT time, at_risk FROM cs.survival('tier:big') WHERE time > 100 $$, $$ VALUES (172::float8, 2::bigint), (182, 1) $$, 'and big from then on');
-- another rule moves the past
UPDATE cs.segment SET rule = 'mrr >= 180' WHERE dimension = 'tier' AND name = 'big';
SELECT results_eq($$ SELECT time, at_risk, events FROM cs.survival('tier:big') WHERE events > 0 $$, $$ VALUES (20::float8, 1::bigint, 1::bigint) $$, 'restated follows the rule of today');
UPDATE cs.policy SET segment_basis = 'stored';
SET LOCAL cs_ext.now = '2024-07-15';
SELECT results_eq($$ SELECT max(at_risk), segment_basis FROM cs.survival('channel:web') GROUP BY 2 $$, $$ VALUES (1::bigint, 'stored') $$, 'stored looks at what was kept: b alone was there then');
SELECT is_empty($$ SELECT * FROM cs.retention_cohorts('month', 'channel:web') $$, 'and no cohort was in a segment at the end of its first month');
UPDATE cs.policy SET segment_basis = 'restated';
SELECT results_eq($$ SELECT max(at_risk), segment_basis FROM cs.survival('flag:any') GROUP BY 2 $$, $$ VALUES (2::bigint, 'stored') $$, 'where segments overlap membership is as stored at either');
SELECT * FROM finish();
ROLLBACK;
