-- Published numbers stay; restatement says which customers and facts moved them.
BEGIN;
SELECT no_plan();
CREATE ROLE regress_publish_run NOLOGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL search_path = public;
INSERT INTO cs.policy (run_as, time_zone, currency) VALUES ('regress_publish_run', 'UTC', 'EUR');
CREATE TABLE sub (id integer PRIMARY KEY, c text, s timestamptz, e timestamptz, mrr numeric);
SELECT count(*) FROM cs.add_source('sub', 'subscription', 'sub', '{"customer_id": "c", "subscription_id": "id", "start_at": "s", "end_at": "e", "mrr": "mrr"}') \g /dev/null
INSERT INTO sub VALUES (1, 'a', '2024-01-01', NULL, 100), (2, 'b', '2024-01-01', '2024-03-10', 50), (3, 'd', '2024-01-01', NULL, 20), (4, 'n', '2024-03-05', NULL, 30), (5, 'x', '2024-01-01', NULL, 5);
SET LOCAL cs_ext.now = '2024-04-10 12:00+00';
CALL cs.refresh(commit => false);
SELECT throws_ok($$ SELECT cs.publish('2024-04') $$, '55000', 'the period "2024-04" is not over', 'a running period is not published');
SELECT throws_ok($$ SELECT * FROM cs.restatement('2024-03') $$, 'P0002', 'the period "2024-03" was not published', 'nor compared before it was');
SELECT is(cs.publish('2024-03', 'board deck'), 1::bigint, 'the first publication');
SELECT results_eq($$ SELECT number, value FROM cs.published WHERE number IN ('mrr_start', 'mrr_end', 'churn_mrr', 'new_mrr', 'churned', 'churn_base', 'churn_rate_logo', 'grr', 'arpa') ORDER BY 1 $$,
	$$ VALUES ('arpa', 38.75), ('churn_base', 4), ('churn_mrr', 50), ('churn_rate_logo', 0.25), ('churned', 1), ('grr', round(125 / 175.0, 9)), ('mrr_end', 155), ('mrr_start', 175), ('new_mrr', 30) $$, 'its numbers are those of the period');
SELECT results_eq($$ SELECT DISTINCT period, period_start, note, churn_method, policy_version, currency, latest, published_at > now() - interval '1 hour' FROM cs.published $$,
	$$ VALUES ('2024-03', timestamptz '2024-03-01 00:00+00', 'board deck', 'snapshot', 1, 'EUR', true, true) $$, 'and say what they were computed with');
SELECT is_empty($$ SELECT * FROM cs.restatement('2024-03') $$, 'nothing has moved');

-- what happens after the period moves nothing
UPDATE sub SET e = '2024-04-05' WHERE id = 3;
CALL cs.refresh(commit => false);
SELECT is_empty($$ SELECT * FROM cs.restatement('2024-03') $$, 'a later end moves nothing');

-- late and corrected facts: x had left in March, b stayed with less, o is new and old at once, n goes
UPDATE sub SET e = '2024-03-20' WHERE id = 5;
UPDATE sub SET e = NULL, mrr = 40 WHERE id = 2;
INSERT INTO sub VALUES (6, 'o', '2024-02-01', '2024-03-15', 8);
DELETE FROM sub WHERE id = 4;
CALL cs.refresh(commit => false);
CREATE TEMP TABLE r AS SELECT * FROM cs.restatement('2024-03');
SELECT results_eq($$ SELECT number, published, now, difference FROM r WHERE customer_id IS NULL AND number NOT LIKE 'churn_rate%' AND number NOT IN ('grr', 'nrr', 'arpa', 'quick_ratio', 'gross_mrr_churn', 'net_mrr_churn') ORDER BY 1 $$,
	$$ VALUES ('churn_base', 4::numeric, 5::numeric, -1::numeric), ('churn_mrr', 50, 13, 37), ('churned', 1, 2, -1), ('customers_end', 4, 3, 1), ('customers_start', 4, 5, -1), ('mrr_end', 155, 160, -5), ('mrr_start', 175, 173, 2), ('new_mrr', 30, 0, 30) $$,
	'the numbers that moved');
SELECT is_empty($$ SELECT number FROM r GROUP BY 1 HAVING bool_or(customer_id IS NOT NULL) AND sum(difference) FILTER (WHERE customer_id IS NOT NULL) <> max(difference) FILTER (WHERE customer_id IS NULL) $$, 'customers add up to each of them');
SELECT is_empty($$ SELECT number FROM r WHERE customer_id IS NULL AND number IN ('mrr_start', 'mrr_end', 'churned', 'new_mrr') AND number NOT IN (SELECT number FROM r WHERE customer_id IS NOT NULL) $$, 'and stand behind each');
SELECT results_eq($$ SELECT DISTINCT customer_id, cause, (facts_then -> 0 ->> 'end_at')::timestamptz, facts_then -> 0 ->> 'mrr', (facts_now -> 0 ->> 'end_at')::timestamptz, facts_now -> 0 ->> 'subscription_id', jsonb_array_length(facts_now) FROM r WHERE customer_id IS NOT NULL ORDER BY 1 $$,
	$$ VALUES ('b', 'facts', timestamptz '2024-03-10 00:00+00', '50.000000', NULL::timestamptz, '2', 1), ('n', 'facts', NULL, '30.000000', NULL, NULL, NULL), ('o', 'facts', NULL, NULL, '2024-03-15 00:00+00', '6', 1), ('x', 'facts', NULL, '5.000000', '2024-03-20 00:00+00', '5', 1) $$,
	'with the facts as they were and as they are');
SELECT results_eq($$ SELECT number, published, now FROM r WHERE customer_id IS NULL AND number = 'churn_rate_logo' $$, $$ VALUES ('churn_rate_logo', 0.25::numeric(30,9), 0.4::numeric(30,9)) $$, 'rates have their total');
SELECT is((SELECT value FROM cs.published WHERE number = 'mrr_end'), 155::numeric, 'what was published stands');

-- once more, and by another policy
SELECT is(cs.publish('2024-03', 'restated'), 2::bigint, 'the period is published again');
SELECT results_eq($$ SELECT publication, latest, value FROM cs.published WHERE number = 'mrr_end' ORDER BY 1 $$, $$ VALUES (1::bigint, false, 155::numeric(30,9)), (2, true, 160) $$, 'both stand');
SELECT is_empty($$ SELECT * FROM cs.restatement('2024-03') $$, 'the later one is compared with');
UPDATE cs.policy SET churn_method = 'event_over_start';
SELECT is_empty($$ SELECT * FROM cs.restatement('2024-03') $$, 'by the method that was published');
SET LOCAL cs_ext.now = '2024-07-01 00:00+00';
INSERT INTO sub VALUES (7, 'e', '2024-04-20', '2024-06-01', 9);
CALL cs.refresh(commit => false);
SELECT is(cs.publish('2024-05'), 3::bigint, 'a month with an end at its bound');
UPDATE cs.policy SET period_edge = 'at';
CALL cs.refresh(commit => false);
SELECT results_eq($$ SELECT customer_id, published, now, cause, facts_now FROM cs.restatement('2024-05') WHERE number = 'mrr_end' $$,
	$$ VALUES (NULL::text, 149::numeric(30,9), 140::numeric(30,9), NULL::text, NULL::jsonb), ('e', 9, 0, 'policy', NULL) $$, 'a changed policy is named where no fact was corrected');
SELECT throws_ok('UPDATE cs_internal.publication SET note = NULL', '55000', 'what was published is not changed', 'nobody changes it');
SELECT throws_ok('DELETE FROM cs_internal.published_customer', '55000', NULL, 'nor removes it');
SELECT throws_ok('TRUNCATE cs_internal.published_fact', '55000', NULL, 'nor empties it');
SELECT * FROM finish();
ROLLBACK;
