
-- ---------------------------------------------------------------------------
-- alert_segment: what alert rules of scope segment see.
-- ---------------------------------------------------------------------------

-- Decided: the local day on which whole segments were last looked at.
CREATE TABLE cs_internal.segment_look (
	id boolean PRIMARY KEY DEFAULT true CHECK (id),
	as_of_day date NOT NULL
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.segment_look', '');

-- A new day, a changed rule (its check empties segment_look), a deadline of an
-- alert, or one whose rule is no longer of this scope.
CREATE FUNCTION cs_internal.segments_due(as_of timestamptz) RETURNS boolean
LANGUAGE sql STABLE AS $$
	SELECT EXISTS (SELECT FROM cs.alert_rule r WHERE r.enabled AND r.scope = 'segment')
			AND NOT EXISTS (SELECT FROM cs_internal.segment_look l, cs.policy p WHERE l.as_of_day >= (segments_due.as_of AT TIME ZONE p.time_zone)::date)
		OR EXISTS (SELECT FROM cs_internal.alert a WHERE a.live AND a.customer_id = ''
			AND (a.due_at <= segments_due.as_of OR NOT EXISTS (SELECT FROM cs.alert_rule r WHERE r.name = a.rule AND r.enabled AND r.scope = 'segment')))
$$;
COMMENT ON FUNCTION cs_internal.segments_due(timestamptz) IS 'Whether the alerts of whole segments are to be looked at.';

-- Health of now, churn of months that are over, attributed to who was in the
-- segment at their start, as kept. The limit is that of a p-chart: the mean rate
-- of the twelve months before plus three standard deviations of a share of as
-- many customers; at least six of these months must have customers.
CREATE FUNCTION cs_internal.segment_state(words text[], as_of timestamptz)
RETURNS TABLE (segment text, dimension text, customers float8, mrr float8, red float8, yellow float8, green float8, red_share float8, red_low float8, red_high float8,
	mean_score float8, score_change_30d float8, churned float8, churn_rate float8, churn_limit float8)
LANGUAGE sql STABLE AS $$
	WITH p AS (SELECT p.time_zone, p.confidence, p.period_edge FROM cs.policy p),
	wanted AS (SELECT DISTINCT CASE WHEN w <> 'all' THEN split_part(w, ':', 1) END AS dimension FROM unnest(words) w),
	member AS (
		SELECT m.customer_id, m.dimension, m.dimension || ':' || m.segment AS segment, m.valid_from, m.valid_to
		FROM cs_internal.membership m JOIN wanted w ON w.dimension = m.dimension
		UNION ALL
		SELECT c.customer_id, NULL, 'all', '-infinity', NULL FROM cs_internal.customer c WHERE EXISTS (SELECT FROM wanted w WHERE w.dimension IS NULL)
	), health AS (
		SELECT m.segment, m.dimension, count(*) FILTER (WHERE s.active) AS customers, sum(s.mrr) FILTER (WHERE s.active) AS mrr,
			count(*) FILTER (WHERE s.active AND h.band = 'red') AS red, count(*) FILTER (WHERE s.active AND h.band = 'yellow') AS yellow,
			count(*) FILTER (WHERE s.active AND h.band = 'green') AS green, avg(h.score) FILTER (WHERE s.active) AS mean_score,
			avg(h.score - b.score) FILTER (WHERE s.active) AS score_change_30d
		FROM p CROSS JOIN member m JOIN cs_internal.state s ON s.customer_id = m.customer_id
		LEFT JOIN cs_internal.health h ON h.customer_id = m.customer_id
		LEFT JOIN cs_internal.health_history b ON b.customer_id = m.customer_id AND b.basis = 'stored'
			AND b.as_of = (date_trunc('day', segment_state.as_of AT TIME ZONE p.time_zone) - interval '30 days') AT TIME ZONE p.time_zone
		WHERE m.valid_to IS NULL
		GROUP BY m.segment, m.dimension
	), month AS (
		SELECT n, (t.begun - (n + 1) * interval '1 month') AT TIME ZONE t.time_zone AS bound, (t.begun - n * interval '1 month') AT TIME ZONE t.time_zone AS next
		FROM (SELECT p.time_zone, date_trunc('month', segment_state.as_of AT TIME ZONE p.time_zone) AS begun FROM p) t, generate_series(0, 12) n
	), churn AS (
		SELECT m.segment, b.n, count(*) AS base, count(*) FILTER (WHERE NOT coalesce(y.active_after, false)) AS churned
		FROM p CROSS JOIN month b JOIN member m ON m.valid_from <= b.bound AND (m.valid_to IS NULL OR m.valid_to > b.bound)
		JOIN LATERAL (SELECT v.active_after FROM cs_internal.movement v WHERE v.customer_id = m.customer_id
			AND (v.at < b.bound OR (p.period_edge = 'at' AND v.at = b.bound)) ORDER BY v.at DESC, v.seq DESC LIMIT 1) x ON x.active_after
		LEFT JOIN LATERAL (SELECT v.active_after FROM cs_internal.movement v WHERE v.customer_id = m.customer_id
			AND (v.at < b.next OR (p.period_edge = 'at' AND v.at = b.next)) ORDER BY v.at DESC, v.seq DESC LIMIT 1) y ON true
		GROUP BY m.segment, b.n
	), chart AS (
		SELECT c.segment, max(c.churned) FILTER (WHERE c.n = 0) AS churned, max(c.base) FILTER (WHERE c.n = 0) AS base,
			CASE WHEN count(*) FILTER (WHERE c.n > 0) >= 6 THEN sum(c.churned) FILTER (WHERE c.n > 0) / sum(c.base) FILTER (WHERE c.n > 0) END AS mean
		FROM churn c GROUP BY c.segment
	)
	SELECT h.segment, h.dimension, h.customers, h.mrr, h.red, h.yellow, h.green, h.red::float8 / nullif(n.n, 0),
		CASE WHEN n.n > 0 THEN cs_internal.wilson(h.red, n.n, p.confidence::float8, false) END, CASE WHEN n.n > 0 THEN cs_internal.wilson(h.red, n.n, p.confidence::float8, true) END,
		h.mean_score, h.score_change_30d, k.churned, k.churned::float8 / nullif(k.base, 0),
		least(1, k.mean + 3 * sqrt(k.mean * (1 - k.mean) / nullif(k.base, 0)))::float8
	FROM p CROSS JOIN health h CROSS JOIN LATERAL (SELECT h.red + h.yellow + h.green AS n) n LEFT JOIN chart k ON k.segment = h.segment
$$;
COMMENT ON FUNCTION cs_internal.segment_state(text[], timestamptz) IS
'What alert rules of scope segment see, a row a segment of these dimensions (all: everybody together).';

CREATE FUNCTION cs_internal.check_segment_rule(expression text, search_path text, type text, what text) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_check_segment_rule_sql';
COMMENT ON FUNCTION cs_internal.check_segment_rule(text, text, text, text) IS 'Like check_rule, for an expression over whole segments.';

CREATE FUNCTION cs_internal.evaluate_segment_alerts(as_of timestamptz) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'cs_evaluate_segment_alerts_sql';
COMMENT ON FUNCTION cs_internal.evaluate_segment_alerts(timestamptz) IS 'Runs the stage of alerts of whole segments, where it is time for it; for tests and for looking into one stage.';
