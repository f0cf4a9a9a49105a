-- Definitions as a user writes them, one statement after the other, in the
-- order of the reference: metric, scorecard of a segment, its dimension, rules,
-- a job. Then a refresh, and every one of them at work.
SET client_min_messages = error;
SET cs_ext.now = '2025-01-01';
SELECT cs.setup('Europe/Berlin', 'EUR') IS NULL AS done \gset
CREATE SCHEMA app;
SELECT count(*) AS made FROM cs.create_tables('app') \gset
SELECT * FROM no_plan();

INSERT INTO app.customer (customer_id, name, created_at)
SELECT 'c' || i, 'Customer ' || i, '2024-01-01' FROM generate_series(1, 6) i;
INSERT INTO app.subscription (subscription_id, customer_id, start_at, mrr)
SELECT 's' || i, 'c' || i, '2024-01-15', 2000 * i FROM generate_series(1, 6) i;
INSERT INTO app.usage_event (customer_id, user_id, at, event)
SELECT 'c' || i, 'u' || u, timestamptz '2024-11-03 10:00+01' + d * interval '1 day', 'login'
FROM generate_series(1, 6) i, generate_series(1, 3) u, generate_series(0, 57) d
WHERE i <> 4 OR d < 30;
INSERT INTO app.ticket (ticket_id, customer_id, opened_at, severity, escalated)
SELECT 't' || i || '.' || k, 'c' || i, timestamptz '2024-12-01 09:00+01' + k * interval '1 day', CASE WHEN i = 5 THEN 'urgent' ELSE 'low' END, i = 6 AND k < 3
FROM generate_series(1, 6) i, generate_series(1, 4) k;

SELECT lives_ok($$INSERT INTO cs.metric (name, source, expression, unit, better, lookback_days)
VALUES ('my_urgent_tickets_60d', 'ticket', $m$count(*) FILTER (WHERE severity = 'urgent' AND opened_at >= as_of_day - 60)$m$, 'count', 'low', 60)$$, 'a metric');
SELECT lives_ok($$INSERT INTO cs.scorecard (name, segment, priority) VALUES ('my_enterprise', 'my_tier:enterprise', 10)$$, 'a scorecard before its dimension');
SELECT lives_ok($$INSERT INTO cs.measure_group (scorecard, name, weight) VALUES ('my_enterprise', 'adoption', 60), ('my_enterprise', 'support', 40)$$, 'groups');
SELECT lives_ok($$INSERT INTO cs.measure (scorecard, name, metric, measure_group, worst, best) VALUES ('my_enterprise', 'urgent tickets', 'my_urgent_tickets_60d', 'support', 5, 0)$$, 'a measure');
SELECT lives_ok($$INSERT INTO cs.dimension (name, fallback) VALUES ('my_tier', 'small')$$, 'a dimension');
SELECT lives_ok($$INSERT INTO cs.segment (dimension, name, rule, priority) VALUES ('my_tier', 'enterprise', 'mrr >= 5000', 10)$$, 'a segment');
SELECT lives_ok($$INSERT INTO cs.alert_rule (name, rule, clear_rule, severity, dwell, message)
VALUES ('my_usage_drop', 'usage_change_30d < -0.4 AND tenure_days > 60', 'usage_change_30d > -0.2', 'high', '2 days', $m$format('usage %s%%', round(100 * usage_change_30d))$m$)$$, 'an alert rule');
SELECT lives_ok($$INSERT INTO cs.alert_rule (name, source, rule, clear_rule, key, severity)
VALUES ('my_ticket_escalated', 'ticket', 'escalated AND resolved_at IS NULL', 'resolved_at IS NOT NULL', 'ticket_id', 'critical')$$, 'an alert rule over rows');
SELECT lives_ok($$INSERT INTO cs.job (name, kind, every, at) VALUES ('my_nightly', 'snapshot', '1 day', '02:15')$$, 'a job');
SELECT lives_ok('CALL cs.refresh(commit => false)', 'a refresh');

SELECT is((SELECT value FROM cs.customer_metric WHERE customer_id = 'c5' AND metric = 'my_urgent_tickets_60d'), 4::float8, 'the metric counts');
SELECT is((SELECT array_agg(customer_id ORDER BY customer_id) FROM cs.customer_health WHERE scorecard = 'my_enterprise'), '{c3,c4,c5,c6}'::text[], 'the scorecard is that of its segment');
SELECT is(cs.health_score('c5'), 20::float8, 'the score is that of the one measure: 4 of 5 is 20');
SELECT is((SELECT sum(contribution) FROM cs.health_explain('c5')), 20::float8, 'and its contributions add up to it');
SELECT is((SELECT string_agg(customer_id || ' ' || segment, ', ' ORDER BY customer_id) FROM cs.customer_segment WHERE dimension = 'my_tier' AND customer_id < 'c4'),
	'c1 small, c2 small, c3 enterprise', 'segments are assigned');
SELECT is((SELECT string_agg(customer_id || '/' || key || ' ' || state, ', ' ORDER BY key) FROM cs.alert WHERE rule = 'my_ticket_escalated'),
	'c6/t6.1 open, c6/t6.2 open', 'an alert for each escalated ticket');
SELECT is((SELECT string_agg(customer_id || ' ' || state || coalesce(' ' || message, ''), ', ') FROM cs.alert WHERE rule = 'my_usage_drop'),
	'c4 pending usage -97%', 'the drop waits for its dwell');
SET cs_ext.now = '2025-01-03 00:00:01';
CALL cs.refresh(commit => false);
SELECT is((SELECT string_agg(customer_id || ' ' || state, ', ') FROM cs.alert WHERE rule = 'my_usage_drop'), 'c4 open', 'and opens after two days');
SELECT is((SELECT string_agg(v::text, '; ') FROM cs.validate() v), NULL, 'nothing is left to say about the definitions');

-- One change, one transaction: what a business change does to score and alerts goes with it.
BEGIN;
INSERT INTO app.ticket (ticket_id, customer_id, opened_at, severity, escalated) VALUES ('new', 'c3', '2025-01-02', 'urgent', true);
SELECT cs.refresh_customer('c3');
SELECT is(cs.health_score('c3'), 80::float8, 'refresh_customer sees what is not committed');
SELECT is((SELECT count(*) FROM cs.open_alert WHERE customer_id = 'c3' AND key = 'new' AND rule = 'my_ticket_escalated'), 1::bigint, 'and its alert is there');
ROLLBACK;
SELECT is(cs.health_score('c3'), 100::float8, 'all of it is rolled back with the change');
SELECT is((SELECT count(*) FROM cs.alert WHERE customer_id = 'c3' AND key = 'new'), 0::bigint, 'the alert too');
SELECT throws_ok($$SELECT cs.refresh_customer('nobody')$$, 'P0002', NULL, 'an unknown customer is refused');

-- A snapshot is what was known at midnight; recomputing it gives the same.
SELECT cs_internal.take_snapshot('2025-01-03 00:00+01') AS added \gset
SELECT is((SELECT count(*) FROM cs.health_history WHERE as_of = '2025-01-03 00:00+01' AND basis = 'stored'), 6::bigint, 'a snapshot has every customer');
SELECT is((SELECT count(*) FROM cs.health_history h WHERE h.as_of = '2025-01-03 00:00+01'
	AND h.score IS DISTINCT FROM cs.health_recompute(h.customer_id, '2025-01-03')), 0::bigint, 'recomputed, bit for bit the same');
SELECT is((SELECT cs_internal.take_snapshot('2025-01-03 00:00+01')), 0::bigint, 'taking it again adds nothing');
SELECT * FROM finish();
