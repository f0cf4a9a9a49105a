
-- ---------------------------------------------------------------------------
-- factor: which metrics went before churn.
--
-- One observation is a customer that was active at a month start, with its
-- metrics as the facts visible then give them (evaluated_at), and whether it
-- left, or gave notice, before the next. So a value never comes after the event
-- it is held against; who had given notice before is left out, and so is a
-- month that is not over.
-- ---------------------------------------------------------------------------

CREATE FUNCTION cs_internal.factor_observations(p_period text, p_segment text)
RETURNS TABLE (as_of timestamptz, until timestamptz, customer_id text, "values" float8[], outcome text)
LANGUAGE plpgsql VOLATILE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.now();
	span record;
	part record;
	bounds timestamptz[];
	late integer;
BEGIN
	SELECT * INTO span FROM cs_internal.period(p_period, seen_at);
	SELECT * INTO part FROM cs_internal.find_part(p_segment);
	-- the start and each month start inside; the last one looks to the end
	SELECT array_agg(b.at ORDER BY b.at) INTO bounds
	FROM (SELECT span.period_start AS at
		UNION SELECT m AT TIME ZONE p.time_zone
		FROM cs.policy p, generate_series(date_trunc('month', span.period_start AT TIME ZONE p.time_zone), span.period_end AT TIME ZONE p.time_zone, interval '1 month') m
		WHERE m AT TIME ZONE p.time_zone > span.period_start AND m AT TIME ZONE p.time_zone < span.period_end) b;
	IF NOT span.complete THEN
		bounds := bounds[1:cardinality(bounds) - 1];
		IF bounds = '{}' THEN
			RAISE EXCEPTION 'no month of "%" is over', p_period USING ERRCODE = 'invalid_parameter_value',
				HINT = 'A month that is not over would count customers as retained that may yet leave. Give a period of which a month is over.';
		END IF;
		RAISE NOTICE 'the running month is left out: it is not over';
	END IF;
	RETURN QUERY
	WITH event AS MATERIALIZED (SELECT e.* FROM cs_internal.churn_events() e),
	bound AS (
		SELECT bounds[n] AS at, CASE WHEN n < cardinality(bounds) THEN bounds[n + 1] WHEN span.complete THEN span.period_end
			ELSE (date_trunc('month', bounds[n] AT TIME ZONE p.time_zone) + interval '1 month') AT TIME ZONE p.time_zone END AS until
		FROM generate_subscripts(bounds, 1) n CROSS JOIN cs.policy p
	)
	SELECT b.at, b.until, e.customer_id, e."values",
		CASE WHEN v.event_at < b.at THEN 'announced' WHEN v.event_at < b.until THEN 'churned' ELSE 'retained' END
	FROM bound b
	CROSS JOIN LATERAL cs_internal.evaluated_at(NULL, b.at) e
	LEFT JOIN LATERAL (SELECT x.event_at FROM event x WHERE x.customer_id = e.customer_id AND x.churned_at >= b.at ORDER BY x.churned_at LIMIT 1) v ON true
	LEFT JOIN cs_internal.segment_at(part.dimension, b.at, cs_internal.basis_of(part.dimension)) s ON s.customer_id = e.customer_id
	WHERE e.active AND (part.dimension IS NULL OR coalesce(s.segment, '(none)') = part.segment);
END $$;
COMMENT ON FUNCTION cs_internal.factor_observations(text, text) IS
'Active customers at the start of a period and at each month start in it, with their metric values as known then and what they did until the next: churned (notice counts), retained, or announced before.';

-- Sums run in the order of customer and month, so that no plan changes a digit.
CREATE FUNCTION cs_internal.churn_factors(p_period text, p_segment text)
RETURNS TABLE (rank bigint, metric text, better text, n bigint, churned bigint, missing bigint, customers bigint, mean numeric, sd numeric,
	correlation numeric, effect numeric, effect_low numeric, effect_high numeric,
	bottom_to numeric, bottom_n bigint, bottom_churned bigint, bottom_rate numeric, top_from numeric, top_n bigint, top_churned bigint, top_rate numeric,
	churn_rate numeric, announced bigint, months bigint)
LANGUAGE plpgsql VOLATILE SET jit = off AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	WITH observed AS MATERIALIZED (SELECT o.* FROM cs_internal.factor_observations(p_period, p_segment) o),
	span AS (
		SELECT count(DISTINCT o.as_of) AS months, count(*) FILTER (WHERE o.outcome = 'announced') AS announced FROM observed o
	), value AS MATERIALIZED (
		SELECT d.name AS metric, d.better, o.customer_id, o.as_of, o."values"[t.slot] AS x, (o.outcome = 'churned')::integer::float8 AS y
		FROM observed o CROSS JOIN cs.metric d JOIN cs_internal.metric_slot t ON t.metric = d.name
		WHERE d.enabled AND o.outcome <> 'announced'
	), moment AS (
		SELECT v.metric, v.better, count(v.x) AS n, count(*) FILTER (WHERE v.x IS NULL) AS missing, count(DISTINCT v.customer_id) FILTER (WHERE v.x IS NOT NULL) AS customers,
			(sum(v.y) FILTER (WHERE v.x IS NOT NULL))::bigint AS churned,
			avg(v.x ORDER BY v.customer_id, v.as_of) AS mean, stddev_samp(v.x ORDER BY v.customer_id, v.as_of) AS sd,
			avg(v.y) FILTER (WHERE v.x IS NOT NULL) AS rate, corr(v.y, v.x ORDER BY v.customer_id, v.as_of) AS r,
			percentile_disc(0.2) WITHIN GROUP (ORDER BY v.x) AS q20, percentile_disc(0.8) WITHIN GROUP (ORDER BY v.x) AS q80,
			min(v.x) AS lowest, max(v.x) AS highest
		FROM value v GROUP BY 1, 2
	), slope AS (
		-- change of the churn rate with one standard deviation: least squares of y on z = (x - mean) / sd
		SELECT v.metric, sum((v.x - m.mean) / m.sd * (v.y - m.rate) ORDER BY v.customer_id, v.as_of) / (m.n - 1) AS b
		FROM value v JOIN moment m USING (metric) WHERE m.sd > 0 AND v.x IS NOT NULL GROUP BY v.metric, m.n
	), cluster AS (
		-- its error, from the sums of each customer: the months of one resemble each other
		SELECT c.metric, sqrt(sum(c.u ^ 2 ORDER BY c.customer_id) * count(*) / nullif(count(*) - 1, 0)) / max(c.n - 1) AS se
		FROM (SELECT v.metric, v.customer_id, m.n,
				sum((v.x - m.mean) / m.sd * (v.y - m.rate - s.b * (v.x - m.mean) / m.sd) ORDER BY v.as_of) AS u
			FROM value v JOIN moment m USING (metric) JOIN slope s USING (metric) WHERE v.x IS NOT NULL GROUP BY v.metric, v.customer_id, m.n) c
		GROUP BY c.metric
	), cut AS (
		-- bottom and top fifth, ties together; where one value fills more than that, it against the rest
		SELECT m.metric, c.low, c.high, c.below, c.above
		FROM moment m
		CROSS JOIN LATERAL (SELECT
			CASE WHEN m.q20 < m.q80 OR m.highest > m.q80 THEN m.q20 ELSE m.lowest END AS low,
			CASE WHEN m.q20 < m.q80 THEN m.q80 ELSE m.q80 END AS high,
			m.q20 = m.q80 AND m.highest = m.q80 AS below, m.q20 = m.q80 AND m.highest > m.q80 AS above) c
		WHERE m.lowest < m.highest
	), bin AS (
		SELECT v.metric,
			count(*) FILTER (WHERE b.in_bottom) AS bottom_n, coalesce(sum(v.y) FILTER (WHERE b.in_bottom), 0)::bigint AS bottom_k, max(v.x) FILTER (WHERE b.in_bottom) AS bottom_to,
			count(*) FILTER (WHERE b.in_top) AS top_n, coalesce(sum(v.y) FILTER (WHERE b.in_top), 0)::bigint AS top_k, min(v.x) FILTER (WHERE b.in_top) AS top_from
		FROM value v JOIN cut c USING (metric)
		CROSS JOIN LATERAL (SELECT CASE WHEN c.below THEN v.x < c.high ELSE v.x <= c.low END AS in_bottom,
			CASE WHEN c.above THEN v.x > c.high ELSE v.x >= c.high END AS in_top) b
		GROUP BY 1
	), line AS (
		SELECT m.*, s.b, k.se, b.bottom_n, b.bottom_k, b.bottom_to, b.top_n, b.top_k, b.top_from,
			cs_internal.normal_quantile((1 + p.confidence::float8) / 2) AS z,
			s.b IS NOT NULL AND m.churned >= p.min_n AND m.n - m.churned >= p.min_n AS counts
		FROM moment m CROSS JOIN cs.policy p LEFT JOIN slope s USING (metric) LEFT JOIN cluster k USING (metric) LEFT JOIN bin b USING (metric)
	)
	SELECT CASE WHEN l.counts THEN row_number() OVER (PARTITION BY l.counts ORDER BY round(abs(l.b)::numeric, 9) DESC, l.metric COLLATE "C") END,
		l.metric, l.better, l.n, coalesce(l.churned, 0), l.missing, l.customers, l.mean::numeric, l.sd::numeric, l.r::numeric(18,9),
		l.b::numeric(18,9), (l.b - l.z * l.se)::numeric(18,9), (l.b + l.z * l.se)::numeric(18,9),
		l.bottom_to::numeric, l.bottom_n, l.bottom_k, cs_internal.rate(l.bottom_k, l.bottom_n), l.top_from::numeric, l.top_n, l.top_k, cs_internal.rate(l.top_k, l.top_n),
		cs_internal.rate(l.churned, l.n), s.announced, s.months
	FROM line l CROSS JOIN span s
	ORDER BY 1 NULLS LAST, l.metric COLLATE "C";
END $$;
COMMENT ON FUNCTION cs_internal.churn_factors(text, text) IS 'See cs.churn_factors.';

CREATE FUNCTION cs.churn_factors(period text, segment text DEFAULT NULL)
RETURNS TABLE (rank bigint, metric text, better text, n bigint, churned bigint, missing bigint, customers bigint, mean numeric, sd numeric,
	correlation numeric, effect numeric, effect_low numeric, effect_high numeric,
	bottom_to numeric, bottom_n bigint, bottom_churned bigint, bottom_rate numeric, top_from numeric, top_n bigint, top_churned bigint, top_rate numeric,
	churn_rate numeric, announced bigint, months bigint)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.churn_factors(text, text) IS
'Which metrics went before churn, the strongest first. An observation is a customer active at the start of the period or at a month start in it, with the metric as the facts visible then give it, against whether it left or gave notice before the next; who had given notice before is left out (announced), and so is a month that is not over. n observations have a value (missing have none), churned of them left. effect is the change of the churn rate, as a fraction, with one standard deviation (sd) more of the metric (least squares), effect_low and effect_high its interval at policy.confidence, with the months of a customer taken together; correlation is Pearson''s. bottom and top are the lowest and highest fifth (values up to bottom_to, from top_from; ties together, and where one value fills more than a fifth, that one against the rest) with their churn rates. rank goes by the size of effect; NULL with fewer than policy.min_n that left or stayed, or where all have one value. What goes before churn need not cause it. Segments as at each month start. Stores nothing; writes and rolls back, so not in a read-only transaction.';
