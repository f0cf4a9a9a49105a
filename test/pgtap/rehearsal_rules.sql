-- Rules tried on history: against a second implementation in SQL, and against
-- what the alerts themselves did on the same days.
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SET cs_ext.now = '2026-06-01 00:00+00';
SELECT * FROM no_plan();
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL) IS NULL AS done \gset
\ir ../lib/seed.sql
INSERT INTO cs.metric (name, source, expression) VALUES ('x', 'ledger', 'mrr');
INSERT INTO cs.dimension (name, fallback) VALUES ('size', 'small');
INSERT INTO cs.segment (dimension, name, rule) VALUES ('size', 'big', 'customer_id < ''c2''');
INSERT INTO cs_internal.customer (customer_id, name, owner, from_customer) SELECT 'c' || n, 'C' || n, CASE WHEN n % 3 > 0 THEN 'owner' || n % 3 END, true FROM generate_series(1, 40) n;
-- 120 days of a value that wanders between 0 and 9; some days are missing, some values NULL
INSERT INTO cs_internal.metric_history (customer_id, as_of, "values", segments, computed_at)
SELECT 'c' || n, timestamptz '2026-02-01 00:00+00' + d * interval '1 day', ARRAY[CASE WHEN random() < 0.95 THEN (5 + 5 * sin(n + d / (3.0 + n % 5)))::integer % 10 END]::float8[],
	jsonb_build_object('size', CASE WHEN 'c' || n < 'c2' THEN 'big' ELSE 'small' END), now()
FROM generate_series(1, 40) n, generate_series(0, 119) d WHERE random() < 0.9;
-- every third customer leaves
INSERT INTO cs_internal.movement (customer_id, at, kind, delta, mrr_after, active_after)
SELECT 'c' || n, '2025-01-01', 'new', 100, 100, true FROM generate_series(1, 40) n
UNION ALL SELECT 'c' || n, timestamptz '2026-03-15 12:00+00' + n * interval '2 days', 'churn', -100, 0, false FROM generate_series(1, 40) n WHERE n % 3 = 0;
INSERT INTO cs_internal.state (customer_id, active, segments) SELECT c.customer_id, true, '{}' FROM cs_internal.customer c;

SELECT throws_like($$SELECT * FROM cs.preview_rule('y < 3', '2026-02-01')$$, '%names "y", which is neither%', 'a rule that is none is refused');
SELECT throws_like($$SELECT * FROM cs.preview_rule('x < 3', '2026-07-01')$$, '%no metrics are kept in%', 'so is an interval without history');
SELECT throws_ok($$SELECT * FROM cs.preview_rule('x < 3', '2026-02-01', NULL, '0')$$, '22023', NULL, 'and a horizon of nothing');
SELECT throws_like($$SELECT * FROM cs.backtest_alert_rule('nme', '2026-02-01')$$, '%unknown alert rule "nme"%', 'an unknown rule');
INSERT INTO cs.alert_rule (name, source, rule, key) VALUES ('rows', 'ticket', 'escalated', 'ticket_id');
SELECT throws_ok($$SELECT * FROM cs.backtest_alert_rule('rows', '2026-02-01')$$, '0A000', NULL, 'a rule over rows');
DELETE FROM cs.alert_rule;

-- ---- preview: true after not true (NULL is neither) is an alert ----------------------
CREATE TEMP TABLE day AS SELECT h.customer_id, h.as_of, h."values"[1] AS x, h.segments ->> 'size' AS size FROM cs_internal.metric_history h;
CREATE TEMP TABLE fired AS
SELECT s.customer_id, s.as_of FROM (
	SELECT d.customer_id, d.as_of, d.x < 3 AS holds, lag(d.x < 3) OVER (PARTITION BY d.customer_id ORDER BY d.as_of) AS held FROM day d WHERE d.x IS NOT NULL) s
WHERE s.holds AND s.held IS DISTINCT FROM true;
CREATE TEMP TABLE p AS SELECT * FROM cs.preview_rule('x < 3', '2026-02-01', NULL, '30 days');
SELECT is((SELECT days FROM p), (SELECT count(DISTINCT as_of)::integer FROM day), 'days');
SELECT is((SELECT (evaluations, nulls)::text FROM p), (SELECT (count(*), count(*) FILTER (WHERE x IS NULL))::text FROM day), 'evaluations, and how many were NULL');
SELECT is((SELECT (alerts, customers)::text FROM p), (SELECT (count(*), count(DISTINCT customer_id))::text FROM fired), 'alerts and customers');
SELECT cmp_ok((SELECT alerts FROM p), '>', 20::bigint, 'there were some');
CREATE TEMP TABLE judged AS
SELECT f.customer_id, f.as_of, m.at, m.at > f.as_of AND m.at < f.as_of + interval '30 days' AS churned FROM fired f
LEFT JOIN LATERAL (SELECT m.at FROM cs_internal.movement m WHERE m.customer_id = f.customer_id AND m.kind = 'churn' AND m.at >= f.as_of) m ON true;
SELECT is((SELECT (judged, churned_after)::text FROM p),
	(SELECT (count(*) FILTER (WHERE churned OR as_of + interval '30 days' <= '2026-06-01'), count(*) FILTER (WHERE churned))::text FROM judged), 'judged, and followed by a churn');
SELECT is((SELECT "precision" FROM p), (SELECT round(churned_after::numeric / judged, 9) FROM p), 'precision is their ratio');
SELECT is((SELECT (churns, churns_foretold)::text FROM p), (SELECT (count(*), count(*) FILTER (WHERE EXISTS (SELECT FROM fired f WHERE f.customer_id = m.customer_id
		AND f.as_of < m.at AND f.as_of + interval '30 days' > m.at)))::text FROM cs_internal.movement m WHERE m.kind = 'churn' AND m.at < '2026-06-01'), 'churns, and those foretold');
SELECT is((SELECT median_lead_days FROM p), (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY at::date - as_of::date) FROM judged WHERE churned)::numeric(18,9), 'median lead');
SELECT is((SELECT alerts_per_day FROM p), (SELECT round(alerts::numeric / days, 9) FROM p), 'alerts a day');
SELECT is((SELECT owners FROM p), (SELECT count(DISTINCT coalesce(c.owner, '')) FROM fired f JOIN cs_internal.customer c USING (customer_id)), 'owners');
SELECT is((SELECT count(*) FROM cs_internal.alert) + (SELECT count(*) FROM cs_internal.alert_event), 0::bigint, 'nothing was written');

-- ---- a rule with everything: it does what the alerts did ------------------------------
CREATE PROCEDURE public.live_through() LANGUAGE plpgsql AS $$
DECLARE
	bound timestamptz;
BEGIN
	FOR bound IN SELECT DISTINCT d.as_of FROM day d ORDER BY 1 LOOP
		UPDATE cs_internal.state s SET "values" = ARRAY[d.x], segments = jsonb_build_object('size', d.size) FROM day d WHERE d.customer_id = s.customer_id AND d.as_of = bound;
		PERFORM cs_internal.evaluate_alerts((SELECT array_agg(d.customer_id) FROM day d WHERE d.as_of = bound), bound);
	END LOOP;
END $$;
INSERT INTO cs.alert_rule (name, rule, clear_rule, dwell, resolve_after, reopen_within, max_new, message, severity_expression, segment)
VALUES ('full', 'x < 4', 'x > 6', '2 days', '1 day', '3 days', 1000000, $$format('x is %s', x)$$, $$CASE WHEN x < 1 THEN 'critical' END$$, 'size:big'),
	('plain', 'x < 2', NULL, '0', '0', '0', 1000000, NULL, NULL, NULL);
CALL public.live_through();
CREATE FUNCTION public.as_lived(rule_name text) RETURNS TABLE (customer_id text, opened_at timestamptz, resolved_at timestamptz) LANGUAGE sql AS $$
	SELECT a.customer_id, e.at, (SELECT min(n.at) FROM cs_internal.alert_event n WHERE n.alert_id = e.alert_id AND n.id > e.id AND n.to_state = 'resolved')
	FROM cs_internal.alert_event e JOIN cs.alert a ON a.id = e.alert_id
	WHERE a.rule = rule_name AND e.to_state = 'open' AND e.from_state IS DISTINCT FROM 'open' ORDER BY 2, 1
$$;
SELECT bag_eq($$SELECT customer_id, opened_at, resolved_at FROM cs.backtest_alerts('full', '2026-02-01', NULL, '30 days')$$, $$SELECT * FROM public.as_lived('full')$$,
	'dwell, clear rule, resolve_after, reopening and segment');
SELECT cmp_ok((SELECT count(*) FROM public.as_lived('full')), '>', 5::bigint, 'of which there were some');
SELECT bag_eq($$SELECT customer_id, opened_at, resolved_at FROM cs.backtest_alerts('plain', '2026-02-01', NULL, '30 days')$$, $$SELECT * FROM public.as_lived('plain')$$, 'and a plain one');
SELECT is((SELECT (alerts, open_at_end)::text FROM cs.backtest_alert_rule('full', '2026-02-01')), (SELECT (count(*), count(*) FILTER (WHERE resolved_at IS NULL))::text FROM public.as_lived('full')), 'in one row');
UPDATE cs.alert_rule SET enabled = false;
SELECT is((SELECT alerts FROM cs.backtest_alert_rule('full', '2026-02-01')), (SELECT count(*) FROM public.as_lived('full')), 'before it is switched on too');
SELECT is((SELECT count(*) FROM cs.backtest_alerts('full', '2026-02-01') WHERE outcome NOT IN ('churned', 'retained', 'running', 'announced')), 0::bigint, 'each has an outcome');
SELECT is((SELECT severity FROM cs.backtest_alerts('plain', '2026-02-01') LIMIT 1), 'medium', 'severity of the rule');
SELECT is((SELECT bool_or(severity = 'critical') FROM cs.backtest_alerts('full', '2026-02-01')), (SELECT bool_or(severity = 'critical') FROM cs.alert WHERE rule = 'full'), 'or of its expression');
SELECT is((SELECT sum(alerts) FROM cs.backtest_alert_rule('plain', '2026-02-01', '2026-03-01')),
	(SELECT count(*)::numeric FROM cs.backtest_alerts('plain', '2026-02-01') WHERE opened_at < '2026-03-01'), 'until is the first instant not looked at');
SELECT * FROM finish();
