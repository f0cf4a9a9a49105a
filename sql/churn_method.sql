
-- ---------------------------------------------------------------------------
-- churn_method: every method of churn under one call, and the two that are no
-- sums of flows:
--   eligible_base   of those whose term ended in the period, who is gone at its end
--   activity        of those who used the product before the start, who did not before the end
-- Both look at customers from an instant of their own on: the first end of a
-- term, or the start.
-- ---------------------------------------------------------------------------

-- Amounts: what the customer had at that instant, and its net change from there
-- to the end of the period, named as in customer_flow (endpoints). Who stopped
-- using the product is lost with all it had then.
CREATE FUNCTION cs_internal.base_member(
	bounds timestamptz[], until timestamptz, method text, measure text,
	dimension text, segment text, attributed_at timestamptz, basis text)
RETURNS TABLE (customer_id text, period_no integer, in_segment text, entered_at timestamptz,
	gone boolean, lost numeric, won numeric, base numeric)
LANGUAGE sql STABLE AS $$
	WITH used AS MATERIALIZED (
		SELECT DISTINCT coalesce(g.account_id, u.customer_id) AS customer_id, u.bound_no
		FROM cs_internal.usage_activity(bounds, until) u
		LEFT JOIN cs_internal.account_of() g ON g.customer_id = u.customer_id AND measure = 'logo'
		WHERE method = 'activity'
	), entry AS (
		SELECT coalesce(g.account_id, d.customer_id) AS customer_id, d.period_no, min(d.due_at) AS entered_at, NULL::boolean AS lapsed
		FROM cs_internal.term_due(bounds, until) d
		LEFT JOIN cs_internal.account_of() g ON g.customer_id = d.customer_id AND measure = 'logo'
		WHERE method = 'eligible_base'
		GROUP BY 1, 2
		UNION ALL
		SELECT a.customer_id, a.bound_no, bounds[a.bound_no] + (SELECT cs_internal.edge_shift()), z.customer_id IS NULL
		FROM used a
		LEFT JOIN used z ON z.customer_id = a.customer_id AND z.bound_no = a.bound_no + 1
		WHERE a.bound_no <= cardinality(bounds)
	), balance AS (
		SELECT e.customer_id, e.period_no, e.entered_at, e.lapsed,
			coalesce((array_agg(m.mrr_after ORDER BY m.at DESC, m.seq DESC) FILTER (WHERE m.at < e.entered_at))[1], 0) AS m0,
			coalesce((array_agg(m.active_after ORDER BY m.at DESC, m.seq DESC) FILTER (WHERE m.at < e.entered_at))[1], false) AS a0,
			coalesce((array_agg(m.mrr_after ORDER BY m.at DESC, m.seq DESC))[1], 0) AS m1,
			coalesce((array_agg(m.active_after ORDER BY m.at DESC, m.seq DESC))[1], false) AS a1,
			coalesce((array_agg(m.kind = 'merge_out' ORDER BY m.at DESC, m.seq DESC) FILTER (WHERE m.at >= e.entered_at))[1], false) AS merged,
			coalesce(sum(m.delta) FILTER (WHERE m.at >= e.entered_at AND m.kind = 'fx'), 0) AS fx,
			coalesce(-sum(m.delta) FILTER (WHERE m.at >= e.entered_at AND m.kind IN ('pause', 'resume')), 0) AS paused,
			coalesce(sum(m.delta) FILTER (WHERE m.at >= e.entered_at AND m.kind = 'merge_in'), 0) AS merge_in,
			coalesce(-sum(m.delta) FILTER (WHERE m.at >= e.entered_at AND m.kind = 'merge_out'), 0) AS merge_out
		FROM entry e
		LEFT JOIN cs_internal.moves(measure) m ON m.customer_id = e.customer_id
			AND m.at < coalesce(bounds[e.period_no + 1], until) + (SELECT cs_internal.edge_shift())
		GROUP BY e.customer_id, e.period_no, e.entered_at, e.lapsed
	), net AS (
		SELECT b.*, greatest(b.m1 - b.m0 - f.fx, 0) AS gain, greatest(b.m0 + f.fx - b.m1, 0) AS loss
		FROM balance b
		CROSS JOIN LATERAL (SELECT CASE WHEN b.m0 > 0 AND b.m1 > 0 THEN b.fx ELSE 0 END) f (fx)
	), named AS (
		SELECT n.*, n.loss - p.paused - least(n.loss - p.paused, n.merge_out) AS losses,
			n.gain - p.resumed - least(n.gain - p.resumed, n.merge_in) AS gains
		FROM net n
		CROSS JOIN LATERAL (SELECT CASE WHEN n.a1 THEN least(n.loss, greatest(n.paused, 0)) ELSE 0 END,
			CASE WHEN n.a0 THEN least(n.gain, greatest(-n.paused, 0)) ELSE 0 END) p (paused, resumed)
	)
	SELECT n.customer_id, n.period_no, CASE WHEN base_member.dimension IS NULL THEN '(total)' ELSE coalesce(s.segment, '(none)') END, n.entered_at,
		coalesce(n.lapsed, NOT n.a1) AND NOT n.merged,
		CASE WHEN n.merged THEN 0 WHEN n.lapsed THEN n.m0 ELSE n.losses END,
		CASE WHEN n.merged OR n.lapsed THEN 0 ELSE n.gains END,
		n.m0
	FROM named n
	LEFT JOIN cs_internal.place_at(measure, base_member.dimension, attributed_at, basis) s ON s.customer_id = n.customer_id
	WHERE (n.a0 OR n.lapsed IS NOT NULL)
		AND (base_member.segment IS NULL OR coalesce(s.segment, '(none)') = base_member.segment)
$$;
COMMENT ON FUNCTION cs_internal.base_member(timestamptz[], timestamptz, text, text, text, text, timestamptz, text) IS
'The customers in the base of eligible_base or activity, one row a customer and period: from when on it is looked at, whether it is gone, what was lost and won (MRR or seats, >= 0) and what it had.';

-- churn by method and unit; the interface of flow_churn
CREATE FUNCTION cs_internal.churn_total(
	bounds timestamptz[], until timestamptz, method text, unit text,
	dimension text, segment text, attributed_at timestamptz, basis text)
RETURNS TABLE (period_no integer, in_segment text, numerator numeric, denominator numeric, rate numeric, k bigint, n bigint)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_variable
DECLARE
	measure text := cs_internal.measure_of(unit);
BEGIN
	IF method NOT IN ('eligible_base', 'activity') THEN
		RETURN QUERY SELECT f.* FROM cs_internal.flow_churn(bounds, until, method, unit, measure, dimension, segment, attributed_at, basis) f;
		RETURN;
	END IF;
	RETURN QUERY
	WITH part AS (
		SELECT m.period_no, m.in_segment,
			sum(CASE unit WHEN 'logo' THEN m.gone::integer WHEN 'net_mrr' THEN m.lost - m.won ELSE m.lost END) AS lost,
			sum(CASE unit WHEN 'logo' THEN 1 ELSE m.base END) AS base
		FROM cs_internal.base_member(bounds, until, method, measure,
			dimension, segment, attributed_at, basis) m
		GROUP BY m.period_no, m.in_segment
	), grid AS (
		SELECT g.n, s.in_segment
		FROM generate_series(1, cardinality(bounds)) AS g (n)
		CROSS JOIN (SELECT p.in_segment FROM part p
			UNION SELECT CASE WHEN dimension IS NULL THEN '(total)' ELSE coalesce(segment, '(none)') END) s
	)
	SELECT g.n, g.in_segment, coalesce(p.lost, 0), coalesce(p.base, 0), cs_internal.rate(coalesce(p.lost, 0), coalesce(p.base, 0)),
		CASE WHEN unit = 'logo' THEN coalesce(p.lost, 0)::bigint END, CASE WHEN unit = 'logo' THEN coalesce(p.base, 0)::bigint END
	FROM grid g
	LEFT JOIN part p ON p.period_no = g.n AND p.in_segment = g.in_segment;
END $$;
COMMENT ON FUNCTION cs_internal.churn_total(timestamptz[], timestamptz, text, text, text, text, timestamptz, text) IS
'Churn by method and unit, one row a period and, with a dimension, a segment (all where segment is NULL). k of n for the interval where the method is a share of customers, else NULL; denominator NULL for daily_sum, which has one a day.';

CREATE FUNCTION cs_internal.churn_choice(INOUT method text, INOUT unit text)
LANGUAGE plpgsql STABLE AS $$
BEGIN
	SELECT coalesce(method, p.churn_method), coalesce(unit, p.churn_unit) INTO method, unit FROM cs.policy p;
	PERFORM cs_internal.must_be_word('churn method', method,
		'{snapshot,rolling_base,event_over_start,event_of_start,daily_sum,eligible_base,activity}');
	PERFORM cs_internal.must_be_word('churn unit', unit, '{logo,gross_mrr,net_mrr,seats}');
	IF method = 'activity' AND NOT EXISTS (SELECT FROM cs.source s WHERE s.kind = 'usage_event' AND s.enabled)
		AND NOT EXISTS (SELECT FROM cs_internal.usage_whole) THEN
		RAISE EXCEPTION 'churn method "activity" needs usage events' USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Register them with cs.add_source(name, ''usage_event'', ...), then CALL cs.refresh().';
	END IF;
	IF unit = 'seats' AND NOT EXISTS (SELECT FROM cs.source s WHERE s.enabled
		AND (s.kind = 'licence' OR s.kind = 'subscription' AND s.columns ? 'seats')) THEN
		RAISE EXCEPTION 'churn unit "seats" needs the seats of subscriptions' USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Map the column seats of a subscription source.';
	END IF;
	PERFORM cs_internal.require_fx_rates();
END $$;
COMMENT ON FUNCTION cs_internal.churn_choice(text, text) IS
'Method and unit of churn, the policy''s where NULL; refuses unknown ones (22023) and those whose facts are not registered (55000).';

-- ---- rates of other lengths ------------------------------------------------------

-- e^48 is the last that fits in thirty digits, nine of them places.
CREATE FUNCTION cs_internal.compounded(rate numeric, times numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE STRICT AS $$
	SELECT CASE WHEN rate = 1 THEN 1 WHEN rate < 1 AND ln(1 - rate) * times < 48 THEN 1 - power(1 - rate, times) END::numeric(30,9)
$$;
COMMENT ON FUNCTION cs_internal.compounded(numeric, numeric) IS
'What a churn rate comes to after so many times its period: 1 - (1 - rate)^times, nine places. NULL above 1, and where growth would be beyond thirty digits.';

CREATE FUNCTION cs_internal.annualise(p_rate numeric, p_days numeric) RETURNS numeric
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
	a_year numeric;
BEGIN
	IF NOT (p_days > 0 AND p_days < 'Infinity') THEN
		RAISE EXCEPTION 'days must be more than 0, not %', p_days USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Give the length of the period that the rate is of.';
	END IF;
	IF NOT (p_rate <= 1 AND p_rate > '-Infinity') THEN
		RAISE EXCEPTION 'a rate of % cannot be annualised', p_rate USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Rates are fractions: 0.05 is 5 %. Nobody can lose more than everything.';
	END IF;
	a_year := cs_internal.compounded(p_rate, 365 / p_days);
	IF a_year IS NULL THEN
		RAISE EXCEPTION 'a rate of % in % days is beyond all bounds in a year', p_rate, p_days USING ERRCODE = 'numeric_value_out_of_range',
			HINT = 'Growth of so short a time does not last a year; give a longer period.';
	END IF;
	RETURN a_year;
END $$;
COMMENT ON FUNCTION cs_internal.annualise(numeric, numeric) IS 'See cs.annualise.';

CREATE FUNCTION cs_internal.rate_of_length(rate numeric, t0 timestamptz, t1 timestamptz, parts integer) RETURNS numeric
LANGUAGE sql STABLE AS $$
	SELECT CASE WHEN d.days > 0 THEN cs_internal.compounded(rate, 365 / (parts * d.days)) END
	FROM (SELECT (extract(epoch FROM (t1 AT TIME ZONE p.time_zone) - (t0 AT TIME ZONE p.time_zone)) / 86400)::numeric AS days FROM cs.policy p) d
$$;
COMMENT ON FUNCTION cs_internal.rate_of_length(numeric, timestamptz, timestamptz, integer) IS
'The rate of a period as that of the so many parts of a year of 365 days, by its local days; NULL above 1 and where it would be beyond all bounds.';

CREATE FUNCTION cs.annualise(rate numeric, days numeric) RETURNS numeric
LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.annualise(numeric, numeric) IS
'What a churn rate of so many days is in a year of 365 if it goes on: 1 - (1 - rate)^(365 / days), nine places. With 12 times the days it is the rate of a month of standard length (365 / 12 days): annualise(0.028, 12 * 28) for February. NULL for NULL.';

