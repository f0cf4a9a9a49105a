-- Alert rules of scope segment: what they see, when they are looked at, and that
-- their alerts live as all others do.
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SET cs_ext.now = '2026-03-10 08:00+00';
SELECT * FROM no_plan();
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL) IS NULL AS done \gset
SELECT count(*) FROM cs.create_tables('facts') \gset
INSERT INTO cs.dimension (name, fallback) VALUES ('size', 'small');
INSERT INTO cs.segment (dimension, name, rule) VALUES ('size', 'big', 'mrr >= 100');
-- 40 customers; the 10 big ones pay 100, the others 10. Four months back to two months back one small customer left each month,
-- in the last month five big ones did.
INSERT INTO facts.customer (customer_id, name, created_at) SELECT 'c' || n, 'C' || n, '2024-12-01' FROM generate_series(1, 60) n;
INSERT INTO facts.subscription (subscription_id, customer_id, start_at, end_at, mrr)
SELECT 's' || n, 'c' || n, '2024-12-15', CASE WHEN n > 40 AND n <= 52 THEN timestamptz '2025-01-10' + (n - 40) * interval '1 month' WHEN n IN (1, 2, 3, 4, 5) THEN '2026-02-15' END,
	CASE WHEN n <= 15 THEN 100 ELSE 10 END FROM generate_series(1, 60) n;
CALL cs.refresh();
-- kept membership since the beginning, as if cs_ext had been there; health by hand
UPDATE cs_internal.membership SET valid_from = '2024-12-01' WHERE customer_id NOT IN ('c1', 'c2', 'c3', 'c4', 'c5');
UPDATE cs_internal.membership SET valid_from = '2026-03-01' WHERE customer_id IN ('c1', 'c2', 'c3', 'c4', 'c5');
INSERT INTO cs_internal.membership (customer_id, dimension, segment, valid_from, valid_to, source)
SELECT 'c' || n, 'size', 'big', '2024-12-01', '2026-03-01', 'rule' FROM generate_series(1, 5) n;
DELETE FROM cs_internal.health;
INSERT INTO cs_internal.health (customer_id, as_of, score, band, computed_at)
SELECT 'c' || n, now(), CASE WHEN n % 3 = 0 THEN 20 ELSE 80 END, CASE WHEN n % 3 = 0 THEN 'red' ELSE 'green' END, now() FROM generate_series(6, 60) n WHERE n % 7 > 0;
INSERT INTO cs_internal.health_history (customer_id, as_of, score, basis, computed_at)
SELECT 'c' || n, '2026-02-08 00:00+01', 90, 'stored', now() FROM generate_series(6, 30) n;

CREATE TEMP TABLE seen AS SELECT * FROM cs_internal.segment_state('{size,all}', '2026-03-10 08:00+00');
SELECT is((SELECT array_agg(segment ORDER BY segment) FROM seen), '{all,size:big,size:small}', 'the segments of the dimension, and all together');
SELECT is((SELECT array_agg((customers, mrr)::text ORDER BY segment) FROM seen),
	(SELECT array_agg((n, mrr)::text ORDER BY segment) FROM (SELECT segment, count(*)::float8 AS n, sum(mrr)::float8 AS mrr FROM (
		SELECT CASE WHEN mrr >= 100 THEN 'size:big' ELSE 'size:small' END AS segment, mrr FROM facts.subscription WHERE end_at IS NULL UNION ALL
		SELECT 'all', mrr FROM facts.subscription WHERE end_at IS NULL) x GROUP BY segment) y), 'active customers and their MRR');
SELECT is((SELECT (red, yellow, green)::text FROM seen WHERE segment = 'all'),
	(SELECT (count(*) FILTER (WHERE n % 3 = 0)::float8, 0::float8, count(*) FILTER (WHERE n % 3 > 0)::float8)::text FROM generate_series(6, 60) n WHERE n % 7 > 0 AND n NOT BETWEEN 41 AND 52),
	'bands of the active ones');
SELECT is((SELECT (red_share, red_low, red_high)::text FROM seen WHERE segment = 'size:big'),
	(SELECT (red / (red + green), cs_internal.wilson(red::bigint, (red + green)::bigint, 0.95, false), cs_internal.wilson(red::bigint, (red + green)::bigint, 0.95, true))::text FROM seen WHERE segment = 'size:big'),
	'the share of red with its bounds');
SELECT cmp_ok((SELECT red_high - red_low FROM seen WHERE segment = 'size:big'), '>', (SELECT red_high - red_low FROM seen WHERE segment = 'all'), 'which are wider for few');
SELECT is((SELECT score_change_30d FROM seen WHERE segment = 'size:big'), (SELECT avg(CASE WHEN n % 3 = 0 THEN 20 ELSE 80 END - 90)::float8 FROM generate_series(6, 15) n WHERE n % 7 > 0), 'the mean change of scores');
SELECT is((SELECT array_agg((churned, churn_rate)::text ORDER BY segment) FROM seen), ARRAY[(5::float8, 5 / 48.0::float8)::text, '(5,' || (5 / 15.0::float8)::text || ')', '(0,0)'],
	'churn of the last month that is over, by who was in it at its start');
SELECT is((SELECT round(churn_limit::numeric, 9) FROM seen WHERE segment = 'all'), (SELECT round(least(1, p + 3 * sqrt(p * (1 - p) / 48))::numeric, 9)
	FROM (SELECT 12.0::float8 / sum(60 - n) AS p FROM generate_series(0, 11) n) x), 'its control limit from the twelve months before');
SELECT cmp_ok((SELECT churn_rate FROM seen WHERE segment = 'size:big'), '>', (SELECT churn_limit FROM seen WHERE segment = 'size:big'), 'big customers leave beyond it');

-- ---- alerts -----------------------------------------------------------------------------
INSERT INTO cs.alert_rule (name, scope, segment, rule, clear_rule, severity, message, ack_within, fallback_owner, escalate_to)
VALUES ('churn_high', 'segment', 'size', 'churn_rate > churn_limit', 'churn_rate <= churn_limit', 'critical', $$format('%s of %s left', churned, segment)$$, '4 hours', 'lead', 'boss'),
	('red_all', 'segment', NULL, 'red_low > 0.2', NULL, 'high', NULL, NULL, NULL, NULL),
	('one', 'segment', 'size:small', 'customers > 0', NULL, 'low', NULL, NULL, NULL, NULL);
SELECT cs_internal.evaluate_segment_alerts(cs_internal.now()) \gset
SELECT is((SELECT string_agg(rule || ' ' || key || ' ' || state, ', ' ORDER BY rule, key) FROM cs.alert), 'churn_high size:big open, one size:small open, red_all all open', 'one alert a segment');
SELECT is((SELECT (customer_id, severity, message, owner, ack_due_at)::text FROM cs.alert WHERE rule = 'churn_high'), '(,critical,"5 of size:big left",lead,"2026-03-10 12:00:00+00")', 'without a customer');
SELECT is((SELECT (customer_id, key)::text FROM cs.alert_changes() WHERE rule = 'churn_high'), '(,size:big)', 'pollers see it');
UPDATE cs_internal.health SET band = 'green' WHERE band = 'red';
SELECT cs_internal.evaluate_segment_alerts(cs_internal.now()) \gset
SELECT is((SELECT state FROM cs.alert WHERE rule = 'red_all'), 'open', 'not looked at again on the same day');
SET cs_ext.now = '2026-03-10 13:00+00';
SELECT cs_internal.evaluate_segment_alerts(cs_internal.now()) \gset
SELECT is((SELECT (state, escalated_to)::text FROM cs.alert WHERE rule = 'churn_high'), '(open,boss)', 'but when a deadline is missed');
SELECT is((SELECT state FROM cs.ack_alert((SELECT id FROM cs.alert WHERE rule = 'churn_high'))), 'acknowledged', 'people act on it');
SELECT is((SELECT state FROM cs.snooze_alert((SELECT id FROM cs.alert WHERE rule = 'one'), '2026-03-12 00:00+00')), 'snoozed', 'as on others');
SELECT is((SELECT count(*) FROM cs_internal.dirty WHERE customer_id = ''), 0::bigint, 'nobody is marked for it');
SET cs_ext.now = '2026-03-11 08:00+00';
DELETE FROM cs.alert_rule WHERE name = 'one';
SELECT cs_internal.evaluate_segment_alerts(cs_internal.now()) \gset
SELECT is((SELECT string_agg(rule || ' ' || state, ', ' ORDER BY rule) FROM cs.alert), 'churn_high acknowledged, one resolved, red_all resolved', 'the next day all are looked at');
SET cs_ext.now = '2026-04-01 08:00+00';
SELECT cs_internal.evaluate_segment_alerts(cs_internal.now()) \gset
SELECT is((SELECT state FROM cs.alert WHERE rule = 'churn_high'), 'resolved', 'a month without churn clears');
SELECT is((SELECT count(*)::integer FROM cs.customer_360 WHERE open_alerts > 0), 0, 'no customer has one');
SELECT is(cs_internal.segments_due('2026-04-01 09:00+00'), false, 'looked at for the day');
SET cs_ext.now = '2026-04-02 08:00+00';
INSERT INTO cs.alert_rule (name, scope, rule) VALUES ('by_refresh', 'segment', 'customers > 0');
CALL cs.refresh();
SELECT is((SELECT state FROM cs.alert WHERE rule = 'by_refresh'), 'open', 'the refresh does it');

-- ---- refused ----------------------------------------------------------------------------
PREPARE refused (text, text, text) AS INSERT INTO cs.alert_rule (name, scope, segment, rule, source) VALUES ('bad', 'segment', $1, $2, $3);
SELECT throws_like($$EXECUTE refused('sise', 'red > 3', NULL)$$, '%unknown dimension "sise"%', 'an unknown dimension');
SELECT throws_like($$EXECUTE refused('size:bigg', 'red > 3', NULL)$$, '%bigg%', 'an unknown segment');
SELECT throws_like($$EXECUTE refused('size', 'redd > 3', NULL)$$, '%redd%', 'an unknown column');
SELECT throws_like($$EXECUTE refused('size', 'red', NULL)$$, '%must be boolean%', 'no condition');
SELECT throws_like($$EXECUTE refused('size', 'max(red) > 3', NULL)$$, '%aggregate%', 'an aggregate');
SELECT throws_like($$EXECUTE refused('size', 'red > 3', 'ticket')$$, '%neither source nor key%', 'a source');
SELECT throws_ok($$DELETE FROM cs.dimension WHERE name = 'size'$$, '2BP01', NULL, 'a dimension in use cannot go');
INSERT INTO cs.alert_rule (name, scope, segment, rule) VALUES ('broken', 'segment', 'size', '1 / (customers - customers)::integer > 0');
SELECT cs_internal.evaluate_segment_alerts(cs_internal.now()) \gset
SELECT is((SELECT (status, error)::text FROM cs.definition_status WHERE key = 'broken'), '(failing,"division by zero")', 'a rule that raises is marked');
SELECT * FROM finish();
