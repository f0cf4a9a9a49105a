-- cs.recommended_action: what to do, and what came of doing it.
SET client_min_messages = warning;
SET cs_ext.now = '2026-06-01 00:00+00';
SELECT * FROM no_plan();
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => 'saas_basic') IS NULL AS done \gset
SELECT is((SELECT count(*) FROM cs.alert_rule WHERE recommended_action IS NULL), 0::bigint, 'every standard rule says what to do');
INSERT INTO cs_internal.clock (last_as_of, last_refresh_at) VALUES ('2026-06-01 00:00+00', now()) ON CONFLICT (id) DO UPDATE SET last_as_of = excluded.last_as_of;
INSERT INTO cs_internal.customer (customer_id, name, from_customer) SELECT 'c' || n, 'C' || n, true FROM generate_series(1, 60) n;
-- 25 old alerts acknowledged, of whose customers 5 left in time; 22 left alone, of whose 11 did; 3 dismissed, 10 too young
INSERT INTO cs_internal.alert (rule, customer_id, severity, state, opened_at, live)
SELECT 'inactive', 'c' || n, 'medium', CASE WHEN n BETWEEN 48 AND 50 THEN 'dismissed' ELSE 'resolved' END, CASE WHEN n > 50 THEN timestamptz '2026-05-01' ELSE '2026-01-10' END, false FROM generate_series(1, 60) n;
INSERT INTO cs_internal.alert_event (alert_id, at, actor, from_state, to_state) SELECT a.id, a.opened_at, 'ann', 'open', 'acknowledged' FROM cs_internal.alert a WHERE substr(a.customer_id, 2)::integer <= 25;
INSERT INTO cs_internal.movement (customer_id, at, kind, delta, mrr_after, active_after)
SELECT 'c' || n, timestamptz '2026-02-01', 'churn', -1, 0, false FROM generate_series(1, 60) n WHERE n <= 5 OR n BETWEEN 30 AND 40 UNION ALL
SELECT 'c' || n, timestamptz '2026-05-20', 'churn', -1, 0, false FROM generate_series(10, 15) n UNION ALL SELECT 'c' || n, timestamptz '2026-01-01', 'churn', -1, 0, false FROM generate_series(41, 47) n;
INSERT INTO cs_internal.alert (rule, customer_id, severity, state, opened_at, message) VALUES ('inactive', 'c60', 'medium', 'open', '2026-05-31', 'quiet'), ('usage_drop', 'c59', 'high', 'snoozed', '2026-05-31', NULL);
SELECT is((SELECT (customer_id, name, rule, severity, message, recommended_action)::text FROM cs.recommended_action WHERE customer_id = 'c60'),
	(SELECT ('c60'::text, 'C60'::text, 'inactive'::text, 'medium'::text, 'quiet'::text, recommended_action)::text FROM cs.alert_rule WHERE name = 'inactive'), 'an open alert with what the rule recommends');
SELECT is((SELECT (acted, left_alone, round(churned_acted, 4), round(churned_left_alone, 4), round(effect, 4))::text FROM cs.recommended_action WHERE customer_id = 'c60'),
	'(25,22,0.2000,0.5000,0.3000)', 'what came of acting: churns within 90 days of the opening, of alerts that old');
SELECT is((SELECT (acted, left_alone, effect)::text FROM cs.recommended_action WHERE customer_id = 'c59'), '(0,0,)', 'nothing where nothing is known');
SELECT is((SELECT count(*) FROM cs.recommended_action), 2::bigint, 'a row for each open alert');
DELETE FROM cs_internal.alert WHERE customer_id IN ('c26', 'c27', 'c28');
SELECT is((SELECT effect FROM cs.recommended_action WHERE customer_id = 'c60'), NULL, 'fewer than 20 tell nothing');
SELECT * FROM finish();
