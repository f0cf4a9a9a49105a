
-- ---------------------------------------------------------------------------
-- churn: who left between two bounds, from the ledger of movements.
--
--   customer_flow   what each customer did between bounds, one pass over movement
--   flow_total      the same added up, one row a period: what revenue says
--   churn_total     churn by any method, one row a period and segment
--   churn, churn_rate, churn_customers, churn_by, churn_series, churn_months, mrr
--
-- jit is off where they are called: measured on small ledgers, compiling these
-- long queries takes ten times as long as running them.
--
-- A balance at a bound is what stands just before it; with period_edge 'at'
-- what stands on it. Instants have microseconds, so the second is the first
-- with every movement moved one microsecond back: one code path for both.
-- ---------------------------------------------------------------------------

CREATE FUNCTION cs_internal.edge_shift() RETURNS interval
LANGUAGE sql STABLE AS $$
	SELECT CASE WHEN p.period_edge = 'at' THEN interval '1 microsecond' ELSE interval '0' END FROM cs.policy p
$$;
COMMENT ON FUNCTION cs_internal.edge_shift() IS
'What is taken from the instant of a movement before it is compared with a bound: nothing, or a microsecond with period_edge at.';

CREATE FUNCTION cs_internal.rate(numerator numeric, denominator numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE WHEN denominator > 0 THEN (numerator / denominator)::numeric(18,9) END
$$;
COMMENT ON FUNCTION cs_internal.rate(numeric, numeric) IS 'The quotient to nine places; NULL where the base is empty.';

-- bounds: ascending starts of touching periods, 1 to n; the last one ends at
-- until. A row per customer and period in which the customer has a movement,
-- and one of period 0, the time before the first bound: who has no row in a
-- period stays as the last row says.
CREATE FUNCTION cs_internal.customer_flow(
	bounds timestamptz[], until timestamptz, endpoints boolean,
	dimension text, segment text, attributed_at timestamptz)
RETURNS TABLE (
	customer_id text, period_no integer, in_segment text,
	mrr_start numeric, active_start boolean, active_before boolean, paid_before boolean,
	mrr_end numeric, active_end boolean, was_active boolean, merged boolean,
	churns bigint, churned_at timestamptz, churn_kind text, reason text,
	new_mrr numeric, reactivation_mrr numeric, expansion_mrr numeric, contraction_mrr numeric, churn_mrr numeric,
	pause_mrr numeric, resume_mrr numeric, merge_in numeric, merge_out numeric, fx_mrr numeric,
	retained_mrr numeric)
LANGUAGE sql STABLE AS $$
	WITH placed AS (
		SELECT m.customer_id, CASE WHEN customer_flow.dimension IS NULL THEN '(total)' ELSE coalesce(s.segment, '(none)') END AS in_segment, m.at, m.seq, m.kind, m.delta, m.mrr_after, m.active_after, m.churn_kind, m.reason,
			-- in brackets, so that the policy is asked once, not per row
			width_bucket(m.at - (SELECT cs_internal.edge_shift()), bounds) AS period_no
		FROM cs_internal.movement m
		LEFT JOIN cs_internal.membership s ON s.customer_id = m.customer_id AND s.dimension = customer_flow.dimension
			AND s.valid_from <= attributed_at AND (s.valid_to IS NULL OR attributed_at < s.valid_to)
		WHERE m.at < until + (SELECT cs_internal.edge_shift())
			AND (customer_flow.segment IS NULL OR coalesce(s.segment, '(none)') = customer_flow.segment)
		OFFSET 0        -- so that period_no is worked out once a row
	), neighbours AS (
		SELECT p.*,
			lag(p.period_no) OVER w IS DISTINCT FROM p.period_no AS is_first,
			lead(p.period_no) OVER w IS DISTINCT FROM p.period_no AS is_last,
			coalesce(lag(p.mrr_after) OVER w, 0) AS mrr_before,
			coalesce(lag(p.active_after) OVER w, false) AS active_now,
			coalesce(bool_or(p.active_after) OVER before, false) AS active_before,
			coalesce(bool_or(p.mrr_after > 0) OVER before, false) AS paid_before
		FROM placed p
		WINDOW w AS (PARTITION BY p.customer_id ORDER BY p.at, p.seq),
			before AS (PARTITION BY p.customer_id ORDER BY p.at, p.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
	), customer AS (
		SELECT n.customer_id, n.period_no, min(n.in_segment) AS in_segment,
			max(n.mrr_before) FILTER (WHERE n.is_first) AS mrr_start,
			bool_or(n.active_now) FILTER (WHERE n.is_first) AS active_start,
			bool_or(n.active_before) FILTER (WHERE n.is_first) AS active_before,
			bool_or(n.paid_before) FILTER (WHERE n.is_first) AS paid_before,
			max(n.mrr_after) FILTER (WHERE n.is_last) AS mrr_end,
			bool_or(n.active_after) FILTER (WHERE n.is_last) AS active_end,
			coalesce(bool_or(n.kind = 'merge_out') FILTER (WHERE n.is_last), false) AS merged,
			bool_or(n.active_after) AS was_active,
			count(*) FILTER (WHERE n.kind = 'churn') AS churns,
			max(n.at) FILTER (WHERE n.kind = 'churn') AS churned_at,
			(array_agg(n.churn_kind ORDER BY n.at DESC, n.seq DESC) FILTER (WHERE n.kind = 'churn'))[1] AS churn_kind,
			(array_agg(n.reason ORDER BY n.at DESC, n.seq DESC) FILTER (WHERE n.kind = 'churn'))[1] AS reason,
			coalesce(sum(n.delta) FILTER (WHERE n.kind = 'new'), 0) AS d_new,
			coalesce(sum(n.delta) FILTER (WHERE n.kind = 'reactivation'), 0) AS d_reactivation,
			coalesce(sum(n.delta) FILTER (WHERE n.kind = 'expansion'), 0) AS d_expansion,
			coalesce(-sum(n.delta) FILTER (WHERE n.kind = 'contraction'), 0) AS d_contraction,
			coalesce(-sum(n.delta) FILTER (WHERE n.kind = 'churn'), 0) AS d_churn,
			coalesce(-sum(n.delta) FILTER (WHERE n.kind = 'pause'), 0) AS d_pause,
			coalesce(sum(n.delta) FILTER (WHERE n.kind = 'resume'), 0) AS d_resume,
			coalesce(sum(n.delta) FILTER (WHERE n.kind = 'merge_in'), 0) AS d_merge_in,
			coalesce(-sum(n.delta) FILTER (WHERE n.kind = 'merge_out'), 0) AS d_merge_out,
			coalesce(sum(n.delta) FILTER (WHERE n.kind = 'fx'), 0) AS d_fx
		FROM neighbours n
		GROUP BY n.customer_id, n.period_no
	), net AS (
		-- endpoints: the net change between the bounds is named once. Of a
		-- customer active at both, pauses and fx keep their name as far as the
		-- net change goes, the rest is expansion or contraction.
		SELECT c.*, f.fx, f.gain, f.loss, r.resumed, x.paused,
			least(f.gain - r.resumed, c.d_merge_in) AS merged_in,
			least(f.loss - x.paused, c.d_merge_out) AS merged_out
		FROM customer c
		CROSS JOIN LATERAL (
			SELECT v.fx, greatest(c.mrr_end - c.mrr_start - v.fx, 0) AS gain, greatest(c.mrr_start + v.fx - c.mrr_end, 0) AS loss
			FROM (SELECT CASE WHEN c.mrr_start > 0 AND c.mrr_end > 0 THEN c.d_fx ELSE 0 END AS fx) v) f
		CROSS JOIN LATERAL (SELECT CASE WHEN c.active_start AND c.paid_before
			THEN least(f.gain, greatest(c.d_resume - c.d_pause, 0)) ELSE 0 END AS resumed) r
		CROSS JOIN LATERAL (SELECT CASE WHEN c.active_end
			THEN least(f.loss, greatest(c.d_pause - c.d_resume, 0)) ELSE 0 END AS paused) x
	)
	SELECT n.customer_id, n.period_no, n.in_segment, n.mrr_start, n.active_start, n.active_before, n.paid_before,
		n.mrr_end, n.active_end, n.was_active, n.merged, n.churns, n.churned_at, n.churn_kind, n.reason,
		CASE WHEN NOT endpoints THEN n.d_new WHEN NOT n.paid_before THEN n.gain - n.merged_in ELSE 0 END,
		CASE WHEN NOT endpoints THEN n.d_reactivation
			WHEN n.paid_before AND NOT n.active_start THEN n.gain - n.merged_in ELSE 0 END,
		CASE WHEN NOT endpoints THEN n.d_expansion
			WHEN n.paid_before AND n.active_start THEN n.gain - n.resumed - n.merged_in ELSE 0 END,
		CASE WHEN NOT endpoints THEN n.d_contraction WHEN n.active_end THEN n.loss - n.paused - n.merged_out ELSE 0 END,
		CASE WHEN NOT endpoints THEN n.d_churn WHEN NOT n.active_end THEN n.loss - n.merged_out ELSE 0 END,
		CASE WHEN endpoints THEN n.paused ELSE n.d_pause END,
		CASE WHEN endpoints THEN n.resumed ELSE n.d_resume END,
		CASE WHEN endpoints THEN n.merged_in ELSE n.d_merge_in END,
		CASE WHEN endpoints THEN n.merged_out ELSE n.d_merge_out END,
		CASE WHEN endpoints THEN n.fx ELSE n.d_fx END,
		CASE WHEN endpoints THEN least(n.mrr_start, n.mrr_end)
			ELSE greatest(n.mrr_start - n.d_churn - n.d_contraction - n.d_pause - n.d_merge_out, 0) END
	FROM net n
$$;
COMMENT ON FUNCTION cs_internal.customer_flow(timestamptz[], timestamptz, boolean, text, text, timestamptz) IS
'Per customer and period with movements: balances at both bounds and the flows between, of the movements (endpoints false) or net (true); all flows >= 0 but fx. in_segment is where the customer stood in the dimension at attributed_at, (none) where nowhere, (total) without a dimension; a segment leaves only its customers.';

-- Balances are carried from period to period, so periods without movements cost nothing.
CREATE FUNCTION cs_internal.flow_total(
	bounds timestamptz[], until timestamptz, endpoints boolean,
	dimension text, segment text, attributed_at timestamptz)
RETURNS TABLE (
	period_no integer, customers_start bigint, customers_end bigint,
	mrr_start numeric, new_mrr numeric, reactivation_mrr numeric, expansion_mrr numeric, contraction_mrr numeric, churn_mrr numeric,
	pause_mrr numeric, resume_mrr numeric, merge_in numeric, merge_out numeric, fx_mrr numeric, mrr_end numeric,
	grr numeric, nrr numeric, gross_mrr_churn numeric, net_mrr_churn numeric, quick_ratio numeric)
LANGUAGE sql STABLE AS $$
	WITH changed AS (
		SELECT f.period_no,
			sum(f.active_end::integer - f.active_start::integer) AS d_customers,
			sum(f.mrr_end - f.mrr_start) AS d_mrr,
			sum(f.new_mrr) AS new_mrr, sum(f.reactivation_mrr) AS reactivation_mrr, sum(f.expansion_mrr) AS expansion_mrr,
			sum(f.contraction_mrr) AS contraction_mrr, sum(f.churn_mrr) AS churn_mrr, sum(f.pause_mrr) AS pause_mrr,
			sum(f.resume_mrr) AS resume_mrr, sum(f.merge_in) AS merge_in, sum(f.merge_out) AS merge_out, sum(f.fx_mrr) AS fx_mrr,
			sum(f.mrr_start - f.retained_mrr) FILTER (WHERE f.active_start) AS lost,
			-- of those there at the start and not new: a free customer's first payment is new
			sum(f.mrr_end - f.mrr_start) FILTER (WHERE f.active_start AND (f.paid_before OR f.mrr_start > 0)) AS net
		FROM cs_internal.customer_flow(bounds, until, endpoints, dimension, segment, attributed_at) f
		GROUP BY f.period_no
	), carried AS (
		SELECT g.n, c.*,
			sum(c.d_customers) OVER w AS customers_after, sum(c.d_mrr) OVER w AS mrr_after
		FROM generate_series(0, cardinality(bounds)) AS g (n)
		LEFT JOIN changed c ON c.period_no = g.n
		WINDOW w AS (ORDER BY g.n)
	), total AS (
		SELECT c.*, coalesce(c.customers_after, 0) AS n1, coalesce(c.customers_after, 0) - coalesce(c.d_customers, 0) AS n0,
			coalesce(c.mrr_after, 0) AS m1, coalesce(c.mrr_after, 0) - coalesce(c.d_mrr, 0) AS m0
		FROM carried c
	)
	SELECT t.n, t.n0::bigint, t.n1::bigint,
		t.m0::numeric(20,6), coalesce(t.new_mrr, 0)::numeric(20,6), coalesce(t.reactivation_mrr, 0)::numeric(20,6),
		coalesce(t.expansion_mrr, 0)::numeric(20,6), coalesce(t.contraction_mrr, 0)::numeric(20,6), coalesce(t.churn_mrr, 0)::numeric(20,6),
		coalesce(t.pause_mrr, 0)::numeric(20,6), coalesce(t.resume_mrr, 0)::numeric(20,6),
		coalesce(t.merge_in, 0)::numeric(20,6), coalesce(t.merge_out, 0)::numeric(20,6), coalesce(t.fx_mrr, 0)::numeric(20,6), t.m1::numeric(20,6),
		cs_internal.rate(t.m0 - coalesce(t.lost, 0), t.m0),
		cs_internal.rate(t.m0 + coalesce(t.net, 0), t.m0),
		cs_internal.rate(coalesce(t.churn_mrr + t.contraction_mrr, 0), t.m0),
		cs_internal.rate(coalesce(t.churn_mrr + t.contraction_mrr - t.expansion_mrr - t.reactivation_mrr, 0), t.m0),
		-- no rate(): little lost makes it as large as it likes
		((t.new_mrr + t.expansion_mrr) / nullif(t.churn_mrr + t.contraction_mrr, 0))::numeric(30,9)
	FROM total t
	WHERE t.n > 0
$$;
COMMENT ON FUNCTION cs_internal.flow_total(timestamptz[], timestamptz, boolean, text, text, timestamptz) IS
'One row a period: customers and MRR at both bounds, flows, GRR and NRR of who was there at the start; the totals of customer_flow.';

-- Local midnights between the bounds, and the bounds: daily_sum looks at each day on its own.
CREATE FUNCTION cs_internal.day_bounds(bounds timestamptz[], until timestamptz) RETURNS timestamptz[]
LANGUAGE sql STABLE AS $$
	SELECT array_agg(b.at ORDER BY b.at)
	FROM (
		SELECT unnest(bounds) AS at
		UNION
		SELECT d.local_day AT TIME ZONE p.time_zone
		FROM cs.policy p
		CROSS JOIN LATERAL generate_series(date_trunc('day', bounds[1] AT TIME ZONE p.time_zone),
			until AT TIME ZONE p.time_zone, interval '1 day') AS d (local_day)
		WHERE d.local_day AT TIME ZONE p.time_zone > bounds[1] AND d.local_day AT TIME ZONE p.time_zone < until
	) b
$$;
COMMENT ON FUNCTION cs_internal.day_bounds(timestamptz[], timestamptz) IS
'The ascending bounds with every start of a local day of the policy between the first and until put in.';

-- Every method of churn is a sum over customer_flow; they differ in what is
-- taken from a customer and in the base:
--   snapshot          net between the bounds, over who is there at the start
--   event_over_start  all movements, over the same
--   event_of_start    movements of those there at the start, over the same
--   rolling_base      all movements, over the same and the new
--   daily_sum         snapshot of each local day, rates added up
-- As in flow_total, balances are carried from period to period.
CREATE FUNCTION cs_internal.churn_total(
	bounds timestamptz[], until timestamptz, method text, unit text,
	dimension text, segment text, attributed_at timestamptz)
RETURNS TABLE (period_no integer, in_segment text, numerator numeric, denominator numeric, rate numeric, k bigint, n bigint)
LANGUAGE sql STABLE AS $$
	WITH fine AS (
		SELECT CASE WHEN method = 'daily_sum' THEN cs_internal.day_bounds(bounds, until) ELSE bounds END AS bounds
	), changed AS (
		SELECT f.period_no, f.in_segment,
			sum(f.active_end::integer - f.active_start::integer) AS d_customers,
			sum(f.mrr_end - f.mrr_start) AS d_mrr,
			sum(CASE
				WHEN unit = 'logo' AND method IN ('snapshot', 'daily_sum') THEN (f.active_start AND NOT f.active_end AND NOT f.merged)::integer
				WHEN method = 'event_of_start' AND NOT f.active_start THEN 0
				WHEN unit = 'logo' AND method = 'event_of_start' THEN (f.churns > 0)::integer
				WHEN unit = 'logo' THEN f.churns
				WHEN unit = 'gross_mrr' THEN f.churn_mrr + f.contraction_mrr
				ELSE f.churn_mrr + f.contraction_mrr - f.expansion_mrr - f.reactivation_mrr END) AS lost,
			sum(CASE WHEN method <> 'rolling_base' THEN 0
				WHEN unit = 'logo' THEN (f.was_active AND NOT f.active_start AND NOT f.active_before)::integer
				ELSE f.new_mrr END) AS joined
		FROM fine
		CROSS JOIN LATERAL cs_internal.customer_flow(fine.bounds, until, method IN ('snapshot', 'daily_sum'), dimension, segment, attributed_at) f
		GROUP BY f.period_no, f.in_segment
	), part AS (
		SELECT c.in_segment FROM changed c
		UNION SELECT CASE WHEN dimension IS NULL THEN '(total)' ELSE coalesce(segment, '(none)') END
	), base AS (
		SELECT g.n, p.in_segment, coalesce(c.lost, 0) AS lost,
			coalesce(c.joined, 0) + CASE WHEN unit = 'logo'
				THEN coalesce(sum(c.d_customers) OVER w - coalesce(c.d_customers, 0), 0)
				ELSE coalesce(sum(c.d_mrr) OVER w - coalesce(c.d_mrr, 0), 0) END AS base
		FROM fine
		CROSS JOIN LATERAL generate_series(0, cardinality(fine.bounds)) AS g (n)
		CROSS JOIN part p
		LEFT JOIN changed c ON c.period_no = g.n AND c.in_segment = p.in_segment
		WINDOW w AS (PARTITION BY p.in_segment ORDER BY g.n)
	)
	SELECT t.period_no, t.in_segment, t.lost, CASE WHEN method <> 'daily_sum' THEN t.base END,
		CASE WHEN method = 'daily_sum' THEN t.by_day::numeric(18,9) ELSE cs_internal.rate(t.lost, t.base) END,
		CASE WHEN unit = 'logo' AND method IN ('snapshot', 'event_of_start') THEN t.lost::bigint END,
		CASE WHEN unit = 'logo' AND method IN ('snapshot', 'event_of_start') THEN t.base::bigint END
	FROM (
		SELECT x.period_no, b.in_segment, sum(b.lost) AS lost, sum(b.base) AS base,
			sum(b.lost / nullif(b.base, 0)) FILTER (WHERE b.base > 0) AS by_day
		FROM base b
		CROSS JOIN fine
		CROSS JOIN LATERAL (SELECT CASE WHEN method = 'daily_sum' THEN width_bucket(fine.bounds[b.n], churn_total.bounds) ELSE b.n END) x (period_no)
		WHERE b.n > 0
		GROUP BY x.period_no, b.in_segment
	) t
$$;
COMMENT ON FUNCTION cs_internal.churn_total(timestamptz[], timestamptz, text, text, text, text, timestamptz) IS
'Churn by method and unit, one row a period and, with a dimension, a segment (all where segment is NULL). k of n for the interval where the method is a share of customers, else NULL; denominator NULL for daily_sum, which has one a day.';

-- ---- arguments ---------------------------------------------------------------

CREATE FUNCTION cs_internal.find_segment(argument text, OUT dimension text, OUT segment text)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
	known text[];
	found text[];
	near text;
BEGIN
	IF argument IS NULL THEN
		RETURN;
	END IF;
	-- rules, fallbacks, and what stands in history (attribute values, dropped segments)
	SELECT array_agg(k.full_name ORDER BY k.full_name), array_agg(k.full_name ORDER BY k.full_name)
			FILTER (WHERE argument IN (k.full_name, k.name))
		INTO known, found
	FROM (
		SELECT s.dimension || ':' || s.name AS full_name, s.name FROM cs.segment s
		UNION SELECT d.name || ':' || d.fallback, d.fallback FROM cs.dimension d WHERE d.fallback IS NOT NULL
		UNION SELECT m.dimension || ':' || m.segment, m.segment FROM cs_internal.membership m
	) k;
	IF argument = ANY (found) THEN
		found := ARRAY[argument];
	END IF;
	IF found IS NULL THEN
		near := cs_internal.nearest(argument, known);
		IF near IS NULL THEN
			-- the bare name may be near although the full one is not
			near := cs_internal.nearest(argument, (SELECT array_agg(substr(k, strpos(k, ':') + 1)) FROM unnest(known) k));
		END IF;
		RAISE EXCEPTION 'unknown segment "%"', argument USING ERRCODE = 'invalid_parameter_value',
			HINT = coalesce('Did you mean "' || near || '"?', 'Known: ' || array_to_string(known[1:20], ', ')
				|| CASE WHEN cardinality(known) > 20 THEN ', ...' ELSE '' END || '.', 'There are no segments yet; they stand in cs.segment.');
	END IF;
	IF cardinality(found) > 1 THEN
		RAISE EXCEPTION 'segment "%" is ambiguous', argument USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Write one of: ' || array_to_string(found, ', ') || '.';
	END IF;
	dimension := split_part(found[1], ':', 1);
	segment := substr(found[1], strpos(found[1], ':') + 1);
END $$;
COMMENT ON FUNCTION cs_internal.find_segment(text) IS
'Dimension and segment of a segment argument (dimension:segment, or a name that one dimension has); 22023 when unknown or ambiguous, NULL for NULL.';

CREATE FUNCTION cs_internal.find_part(argument text, OUT dimension text, OUT segment text)
LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF EXISTS (SELECT 1 FROM cs.dimension d WHERE argument = d.name || ':(none)') THEN
		dimension := left(argument, -length(':(none)'));
		segment := '(none)';
	ELSE
		SELECT f.dimension, f.segment INTO dimension, segment FROM cs_internal.find_segment(argument) f;
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.find_part(text) IS
'As find_segment, for what sums over customers: dimension:(none) is there too, who is in no segment of it.';

-- Nobody is in a segment before membership was first stored: say so, for the
-- answer would look like an empty segment.
CREATE FUNCTION cs_internal.note_stored_since(dimension text, at timestamptz) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
	since timestamptz := (SELECT min(m.valid_from) FROM cs_internal.membership m WHERE m.dimension = note_stored_since.dimension);
BEGIN
	IF at < since THEN
		RAISE NOTICE 'segments of % are stored from % on, so nobody is in one at %', dimension, since, at;
	ELSIF dimension IS NOT NULL AND since IS NULL THEN
		RAISE NOTICE 'no segments of % are stored yet', dimension
			USING HINT = 'CALL cs.refresh() to find them.';
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.note_stored_since(text, timestamptz) IS
'A NOTICE where the instant lies before the first stored membership of the dimension; nothing for NULL.';

CREATE FUNCTION cs_internal.churn_choice(INOUT method text, INOUT unit text)
LANGUAGE plpgsql STABLE AS $$
BEGIN
	SELECT coalesce(method, p.churn_method), coalesce(unit, p.churn_unit) INTO method, unit FROM cs.policy p;
	PERFORM cs_internal.must_be_word('churn method', method,
		'{snapshot,rolling_base,event_over_start,event_of_start,daily_sum,eligible_base,activity}');
	PERFORM cs_internal.must_be_word('churn unit', unit, '{logo,gross_mrr,net_mrr,seats}');
	IF method IN ('eligible_base', 'activity') THEN
		RAISE EXCEPTION 'churn method "%" is not available yet', method USING ERRCODE = 'feature_not_supported',
			HINT = 'This version computes snapshot, rolling_base, event_over_start, event_of_start and daily_sum.';
	END IF;
	IF unit = 'seats' THEN
		RAISE EXCEPTION 'churn unit "seats" is not available yet' USING ERRCODE = 'feature_not_supported',
			HINT = 'This version computes the units logo, gross_mrr and net_mrr.';
	END IF;
	PERFORM cs_internal.require_fx_rates();
END $$;
COMMENT ON FUNCTION cs_internal.churn_choice(text, text) IS
'Method and unit of churn, the policy''s where NULL; refuses unknown ones (22023) and those that wait for a later version (0A000).';

-- ---- churn -------------------------------------------------------------------

CREATE FUNCTION cs_internal.churn(p_period text, p_segment text, p_method text, p_unit text, p_as_of timestamptz)
RETURNS TABLE (
	period_start timestamptz, period_end timestamptz, segment text, method text, unit text,
	numerator numeric, denominator numeric, rate numeric, ci_low numeric, ci_high numeric,
	time_zone text, period_edge text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.past_instant(p_as_of, 'as_of');
	span record;
	choice record;
	part record;
BEGIN
	SELECT * INTO span FROM cs_internal.period(p_period, seen_at);
	SELECT * INTO choice FROM cs_internal.churn_choice(p_method, p_unit);
	SELECT * INTO part FROM cs_internal.find_part(p_segment);
	PERFORM cs_internal.note_stored_since(part.dimension, span.period_start);
	RETURN QUERY
	SELECT span.period_start, span.period_end, part.dimension || ':' || part.segment, choice.method, choice.unit,
		t.numerator, t.denominator, t.rate,
		cs_internal.wilson(t.k, t.n, p.confidence::float8, false)::numeric(18,9),
		cs_internal.wilson(t.k, t.n, p.confidence::float8, true)::numeric(18,9),
		p.time_zone, p.period_edge, p.version,
		CASE WHEN part.dimension IS NOT NULL THEN 'stored' END, span.complete, seen_at
	FROM cs_internal.churn_total(ARRAY[span.period_start], span.period_end, choice.method, choice.unit,
		part.dimension, part.segment, span.period_start) t
	CROSS JOIN cs.policy p;
END $$;
COMMENT ON FUNCTION cs_internal.churn(text, text, text, text, timestamptz) IS 'See cs.churn.';

CREATE FUNCTION cs_internal.churn_rate(p_period text, p_segment text, p_method text, p_unit text) RETURNS numeric
LANGUAGE sql STABLE AS $$
	SELECT c.rate FROM cs_internal.churn(p_period, p_segment, p_method, p_unit, NULL::timestamptz) c
$$;
COMMENT ON FUNCTION cs_internal.churn_rate(text, text, text, text) IS 'See cs.churn_rate.';

CREATE FUNCTION cs_internal.churn_customers(p_period text, p_segment text, p_method text)
RETURNS TABLE (
	customer_id text, name text, segment text, part text, in_numerator boolean, in_denominator boolean,
	mrr_start numeric, mrr_end numeric, churned_at timestamptz, churn_kind text, reason text,
	churn_mrr numeric, contraction_mrr numeric, expansion_mrr numeric, reactivation_mrr numeric, new_mrr numeric, events bigint)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	span record;
	choice record;
	part record;
BEGIN
	SELECT * INTO span FROM cs_internal.period(p_period, cs_internal.now());
	SELECT * INTO choice FROM cs_internal.churn_choice(p_method, NULL);
	SELECT * INTO part FROM cs_internal.find_part(p_segment);
	PERFORM cs_internal.note_stored_since(part.dimension, span.period_start);
	RETURN QUERY
	WITH flow AS (
		SELECT f.* FROM cs_internal.customer_flow(ARRAY[span.period_start], span.period_end, choice.method IN ('snapshot', 'daily_sum'),
			part.dimension, part.segment, span.period_start) f
	), day AS (
		-- what daily_sum takes of a customer: the sum of its days
		SELECT f.customer_id, count(*) FILTER (WHERE f.active_start AND NOT f.active_end AND NOT f.merged) AS events,
			bool_or(f.active_start OR f.active_end AND f.period_no < cardinality(b.bounds)) AS in_base,
			sum(f.churn_mrr) AS churn_mrr, sum(f.contraction_mrr) AS contraction_mrr,
			sum(f.expansion_mrr) AS expansion_mrr, sum(f.reactivation_mrr) AS reactivation_mrr, sum(f.new_mrr) AS new_mrr
		FROM cs_internal.day_bounds(ARRAY[span.period_start], span.period_end) AS b (bounds)
		CROSS JOIN LATERAL cs_internal.customer_flow(b.bounds, span.period_end, true, part.dimension, part.segment, span.period_start) f
		WHERE choice.method = 'daily_sum' AND f.period_no > 0
		GROUP BY f.customer_id
	), unmoved AS (
		SELECT b.customer_id, b.mrr_end FROM flow b
		WHERE b.period_no = 0 AND b.active_end
			AND NOT EXISTS (SELECT 1 FROM flow i WHERE i.customer_id = b.customer_id AND i.period_no = 1)
	), customer AS (
		SELECT f.customer_id,
			CASE
				WHEN f.active_start AND f.active_end THEN CASE WHEN f.churns > 0 THEN 'left_and_returned' ELSE 'retained' END
				WHEN f.active_start THEN CASE WHEN f.merged THEN 'merged' ELSE 'churned' END
				WHEN f.active_end THEN CASE WHEN f.active_before THEN 'reactivated' ELSE 'joined' END
				ELSE CASE WHEN f.active_before THEN 'reactivated_and_left' ELSE 'joined_and_left' END
			END AS part,
			CASE choice.method
				WHEN 'snapshot' THEN (f.active_start AND NOT f.active_end AND NOT f.merged)::integer
				WHEN 'event_of_start' THEN (f.active_start AND f.churns > 0)::integer
				WHEN 'daily_sum' THEN d.events
				ELSE f.churns END AS events,
			CASE choice.method
				WHEN 'daily_sum' THEN f.active_start OR d.in_base
				WHEN 'rolling_base' THEN f.active_start OR NOT f.active_before
				ELSE f.active_start END AS in_denominator,
			f.mrr_start, f.mrr_end, f.churned_at, f.churn_kind, f.reason,
			a.churn_mrr, a.contraction_mrr, a.expansion_mrr, a.reactivation_mrr, a.new_mrr
		FROM flow f
		LEFT JOIN day d ON d.customer_id = f.customer_id
		CROSS JOIN LATERAL (
			SELECT f.churn_mrr, f.contraction_mrr, f.expansion_mrr, f.reactivation_mrr, f.new_mrr
			WHERE choice.method <> 'daily_sum' AND (choice.method <> 'event_of_start' OR f.active_start)
			UNION ALL
			SELECT d.churn_mrr, d.contraction_mrr, d.expansion_mrr, d.reactivation_mrr, d.new_mrr WHERE choice.method = 'daily_sum'
			UNION ALL
			SELECT 0, 0, 0, 0, 0 WHERE choice.method = 'event_of_start' AND NOT f.active_start
		) a
		WHERE f.period_no = 1 AND (f.active_start OR f.was_active)
		UNION ALL
		SELECT u.customer_id, 'retained', 0, true, u.mrr_end, u.mrr_end, NULL, NULL, NULL, 0, 0, 0, 0, 0
		FROM unmoved u
	)
	SELECT c.customer_id, i.name, part.dimension || ':' || part.segment, c.part, c.events > 0, c.in_denominator,
		c.mrr_start::numeric(20,6), c.mrr_end::numeric(20,6), c.churned_at, c.churn_kind, c.reason,
		c.churn_mrr::numeric(20,6), c.contraction_mrr::numeric(20,6), c.expansion_mrr::numeric(20,6), c.reactivation_mrr::numeric(20,6),
		c.new_mrr::numeric(20,6), c.events
	FROM customer c
	LEFT JOIN cs_internal.customer i ON i.customer_id = c.customer_id
	ORDER BY c.events > 0 DESC, c.mrr_start DESC, c.customer_id;
END $$;
COMMENT ON FUNCTION cs_internal.churn_customers(text, text, text) IS 'See cs.churn_customers.';

CREATE FUNCTION cs_internal.mrr(p_at timestamptz, p_segment text) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
DECLARE
	bound timestamptz := cs_internal.past_instant(p_at, 'at');
	part record;
	total numeric;
BEGIN
	IF NOT EXISTS (SELECT 1 FROM cs.policy) THEN
		PERFORM cs_internal.instant(current_date);     -- says that setup is missing
	END IF;
	PERFORM cs_internal.require_fx_rates();
	SELECT * INTO part FROM cs_internal.find_part(p_segment);
	PERFORM cs_internal.note_stored_since(part.dimension, bound);
	SELECT sum(b.mrr_after) INTO total
	FROM (
		SELECT DISTINCT ON (m.customer_id) m.mrr_after
		FROM cs_internal.movement m
		LEFT JOIN cs_internal.membership s ON s.customer_id = m.customer_id AND s.dimension = part.dimension
			AND s.valid_from <= bound AND (s.valid_to IS NULL OR bound < s.valid_to)
		WHERE m.at < bound + (SELECT cs_internal.edge_shift())
			AND (part.segment IS NULL OR coalesce(s.segment, '(none)') = part.segment)
		ORDER BY m.customer_id, m.at DESC, m.seq DESC
	) b;
	RETURN coalesce(total, 0)::numeric(20,6);
END $$;
COMMENT ON FUNCTION cs_internal.mrr(timestamptz, text) IS 'See cs.mrr.';

-- The policy's months from the first movement to the one that as_of lies in.
CREATE FUNCTION cs_internal.month_bound(as_of timestamptz, OUT months date[], OUT bounds timestamptz[])
LANGUAGE sql STABLE AS $$
	SELECT array_agg(g.month::date ORDER BY g.month), array_agg(g.month AT TIME ZONE p.time_zone ORDER BY g.month)
	FROM cs.policy p
	CROSS JOIN (SELECT min(m.at) - cs_internal.edge_shift() AS first_at FROM cs_internal.movement m) f
	CROSS JOIN LATERAL generate_series(date_trunc('month', f.first_at AT TIME ZONE p.time_zone),
		date_trunc('month', as_of AT TIME ZONE p.time_zone), interval '1 month') AS g (month)
$$;
COMMENT ON FUNCTION cs_internal.month_bound(timestamptz) IS
'Every month from the first movement to as_of''s, and the instants at which they start; NULL without movements.';

CREATE FUNCTION cs_internal.churn_months()
RETURNS TABLE (
	month date, numerator numeric, denominator numeric, rate numeric, ci_low numeric, ci_high numeric,
	method text, unit text, complete boolean, data_through_at timestamptz, computed_at timestamptz)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.now();
	choice record;
	span record;
BEGIN
	SELECT * INTO span FROM cs_internal.period('this month', seen_at);
	SELECT * INTO choice FROM cs_internal.churn_choice(NULL, NULL);
	SELECT * INTO span FROM cs_internal.month_bound(seen_at);
	IF span.bounds IS NULL THEN
		RETURN;
	END IF;
	RETURN QUERY
	SELECT span.months[t.period_no], t.numerator, t.denominator, t.rate,
		cs_internal.wilson(t.k, t.n, p.confidence::float8, false)::numeric(18,9),
		cs_internal.wilson(t.k, t.n, p.confidence::float8, true)::numeric(18,9),
		choice.method, choice.unit, t.period_no < cardinality(span.bounds), c.last_as_of, c.last_refresh_at
	FROM cs_internal.churn_total(span.bounds, seen_at, choice.method, choice.unit, NULL, NULL, NULL) t
	CROSS JOIN cs.policy p
	LEFT JOIN cs_internal.clock c ON true
	ORDER BY t.period_no;
END $$;
COMMENT ON FUNCTION cs_internal.churn_months() IS 'See cs.churn_months.';

-- ---- by segment and as a series ----------------------------------------------

CREATE FUNCTION cs_internal.must_be_dimension(dimension text) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
	known text[] := ARRAY(SELECT d.name FROM cs.dimension d UNION SELECT DISTINCT m.dimension FROM cs_internal.membership m ORDER BY 1);
BEGIN
	IF dimension = ANY (known) THEN
		RETURN;
	END IF;
	IF dimension IS NULL THEN
		RAISE EXCEPTION 'a dimension is needed' USING ERRCODE = 'null_value_not_allowed',
			HINT = 'Dimensions stand in cs.dimension.';
	END IF;
	RAISE EXCEPTION 'unknown dimension "%"', dimension USING ERRCODE = 'invalid_parameter_value',
		HINT = coalesce('Did you mean "' || cs_internal.nearest(dimension, known) || '"?',
			'Known: ' || nullif(array_to_string(known, ', '), '') || '.', 'There are no dimensions yet; they stand in cs.dimension.');
END $$;
COMMENT ON FUNCTION cs_internal.must_be_dimension(text) IS
'Raises 22023 with the near match unless the dimension is defined or has history; 22004 for NULL.';

-- Who is elsewhere in the dimension at t1 than at t0, by what stands at t1: so
-- segments that count who was there at t0 come, with these, to who is there at t1.
CREATE FUNCTION cs_internal.transfer(dimension text, t0 timestamptz, t1 timestamptz)
RETURNS TABLE (segment text, customers_in bigint, customers_out bigint, mrr_in numeric, mrr_out numeric)
LANGUAGE sql STABLE AS $$
	SELECT v.segment, sum(v.sign * b.active_after::integer) FILTER (WHERE v.sign > 0), -sum(v.sign * b.active_after::integer) FILTER (WHERE v.sign < 0),
		sum(b.mrr_after) FILTER (WHERE v.sign > 0), sum(b.mrr_after) FILTER (WHERE v.sign < 0)
	FROM (
		SELECT DISTINCT ON (m.customer_id) m.customer_id, m.mrr_after, m.active_after
		FROM cs_internal.movement m
		WHERE m.at < t1 + (SELECT cs_internal.edge_shift())
		ORDER BY m.customer_id, m.at DESC, m.seq DESC
	) b
	LEFT JOIN cs_internal.membership a ON a.customer_id = b.customer_id AND a.dimension = transfer.dimension
		AND a.valid_from <= t0 AND (a.valid_to IS NULL OR t0 < a.valid_to)
	LEFT JOIN cs_internal.membership z ON z.customer_id = b.customer_id AND z.dimension = transfer.dimension
		AND z.valid_from <= t1 AND (z.valid_to IS NULL OR t1 < z.valid_to)
	CROSS JOIN LATERAL (VALUES (coalesce(a.segment, '(none)'), -1), (coalesce(z.segment, '(none)'), 1)) v (segment, sign)
	WHERE a.segment IS DISTINCT FROM z.segment AND (b.active_after OR b.mrr_after <> 0)
	GROUP BY v.segment
$$;
COMMENT ON FUNCTION cs_internal.transfer(text, timestamptz, timestamptz) IS
'Per segment, customers and MRR at t1 that came from and went to other segments (or none) since t0; NULL where there are none.';

CREATE FUNCTION cs_internal.churn_by(p_period text, p_dimension text, p_method text, p_unit text)
RETURNS TABLE (
	segment text, numerator numeric, denominator numeric, rate numeric, ci_low numeric, ci_high numeric,
	transfer_in numeric, transfer_out numeric, period_start timestamptz, period_end timestamptz, dimension text, method text, unit text,
	time_zone text, period_edge text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.now();
	span record;
	choice record;
BEGIN
	SELECT * INTO span FROM cs_internal.period(p_period, seen_at);
	SELECT * INTO choice FROM cs_internal.churn_choice(p_method, p_unit);
	PERFORM cs_internal.must_be_dimension(p_dimension);
	PERFORM cs_internal.note_stored_since(p_dimension, span.period_start);
	RETURN QUERY
	WITH known AS (
		SELECT s.name FROM cs.segment s WHERE s.dimension = p_dimension
		UNION SELECT d.fallback FROM cs.dimension d WHERE d.name = p_dimension AND d.fallback IS NOT NULL
		UNION SELECT m.segment FROM cs_internal.membership m
		WHERE m.dimension = p_dimension AND m.valid_from <= span.period_end AND (m.valid_to IS NULL OR span.period_start < m.valid_to)
		UNION SELECT '(none)'
	), part AS (
		SELECT k.name, CASE WHEN k.name = '(none)' THEN 1 ELSE 0 END AS place, t.numerator, t.denominator, t.rate, t.k, t.n,
			CASE choice.unit WHEN 'logo' THEN x.customers_in ELSE x.mrr_in END AS transfer_in,
			CASE choice.unit WHEN 'logo' THEN x.customers_out ELSE x.mrr_out END AS transfer_out
		FROM known k
		LEFT JOIN cs_internal.churn_total(ARRAY[span.period_start], span.period_end, choice.method, choice.unit,
			p_dimension, NULL, span.period_start) t ON t.in_segment = k.name
		LEFT JOIN cs_internal.transfer(p_dimension, span.period_start, span.period_end) x ON x.segment = k.name
		UNION ALL
		SELECT '(total)', 2, t.numerator, t.denominator, t.rate, t.k, t.n, 0, 0
		FROM cs_internal.churn_total(ARRAY[span.period_start], span.period_end, choice.method, choice.unit, NULL, NULL, NULL) t
	)
	SELECT q.name, coalesce(q.numerator, 0), CASE WHEN choice.method <> 'daily_sum' THEN coalesce(q.denominator, 0) END, q.rate,
		cs_internal.wilson(q.k, q.n, p.confidence::float8, false)::numeric(18,9),
		cs_internal.wilson(q.k, q.n, p.confidence::float8, true)::numeric(18,9),
		coalesce(q.transfer_in, 0), coalesce(q.transfer_out, 0),
		span.period_start, span.period_end, p_dimension, choice.method, choice.unit,
		p.time_zone, p.period_edge, p.version, 'stored', span.complete, seen_at
	FROM part q
	CROSS JOIN cs.policy p
	ORDER BY q.place, q.name COLLATE "C";
END $$;
COMMENT ON FUNCTION cs_internal.churn_by(text, text, text, text) IS 'See cs.churn_by.';

-- Starts of the periods of a grain, cut in the policy's zone, that hold an
-- instant of [since, until). A local day that a zone skipped is not there.
CREATE FUNCTION cs_internal.grain_bounds(grain text, since timestamptz, until timestamptz, OUT labels date[], OUT bounds timestamptz[], OUT ends timestamptz)
LANGUAGE plpgsql STABLE AS $$
DECLARE
	zone text;
	back interval;
	step interval := CASE grain WHEN 'quarter' THEN interval '3 months' ELSE ('1 ' || grain)::interval END;
	first_at timestamp;
	last_at timestamp;
BEGIN
	SELECT p.time_zone, CASE grain WHEN 'week' THEN make_interval(days => p.week_start - 1) ELSE interval '0' END
		INTO zone, back FROM cs.policy p;
	first_at := date_trunc(grain, (since AT TIME ZONE zone) - back) + back;
	last_at := date_trunc(grain, ((until - interval '1 microsecond') AT TIME ZONE zone) - back) + back;
	IF extract(epoch FROM last_at - first_at) / extract(epoch FROM step) > 20000 THEN
		RAISE EXCEPTION 'a series by % from % to % is longer than 20000 periods', grain, since, until
			USING ERRCODE = 'program_limit_exceeded', HINT = 'Choose a coarser grain or a later since.';
	END IF;
	SELECT array_agg(x.label ORDER BY x.at), array_agg(x.at ORDER BY x.at) INTO labels, bounds
	FROM (
		SELECT max(g.local)::date AS label, g.local AT TIME ZONE zone AS at
		FROM generate_series(first_at, last_at, step) AS g (local)
		GROUP BY g.local AT TIME ZONE zone
	) x;
	ends := (last_at + step) AT TIME ZONE zone;
END $$;
COMMENT ON FUNCTION cs_internal.grain_bounds(text, timestamptz, timestamptz) IS
'First local days and first instants of the periods of a grain that hold an instant of [since, until), and the end of the last.';

CREATE FUNCTION cs_internal.churn_series(p_since timestamptz, p_until timestamptz, p_grain text, p_segment text, p_method text)
RETURNS TABLE (
	day date, numerator numeric, denominator numeric, rate numeric, ci_low numeric, ci_high numeric,
	period_start timestamptz, period_end timestamptz, segment text, method text, unit text,
	time_zone text, period_edge text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.now();
	grain text := coalesce(p_grain, 'month');
	choice record;
	part record;
	span record;
	start_at timestamptz;
	stop_at timestamptz;
BEGIN
	SELECT * INTO span FROM cs_internal.period('this month', seen_at);     -- says so where setup is missing
	PERFORM cs_internal.must_be_word('grain', grain, '{day,week,month,quarter,year}');
	SELECT * INTO choice FROM cs_internal.churn_choice(p_method, NULL);
	SELECT * INTO part FROM cs_internal.find_part(p_segment);
	-- periods are cut at seen_at; one that begins exactly there holds no instant before it
	stop_at := least(cs_internal.instant(p_until), seen_at);
	start_at := coalesce(cs_internal.past_instant(cs_internal.instant(p_since), 'since'), seen_at);
	IF p_since IS NULL THEN
		SELECT min(m.at) - cs_internal.edge_shift() INTO start_at FROM cs_internal.movement m;
		IF start_at IS NULL OR start_at >= stop_at THEN
			RETURN;
		END IF;
	END IF;
	IF p_until <= p_since THEN
		RAISE EXCEPTION 'until % is not after since %', p_until, p_since USING ERRCODE = 'invalid_parameter_value',
			HINT = 'A series has the periods that hold an instant from since to just before until.';
	END IF;
	SELECT * INTO span FROM cs_internal.grain_bounds(grain, start_at, stop_at);
	IF span.bounds IS NULL THEN
		RETURN;
	END IF;
	PERFORM cs_internal.note_stored_since(part.dimension, span.bounds[1]);
	RETURN QUERY
	WITH item AS (
		SELECT n, span.bounds[n] AS starts, coalesce(span.bounds[n + 1], span.ends) AS stops FROM generate_subscripts(span.bounds, 1) n
	), total AS (
		SELECT t.* FROM cs_internal.churn_total(span.bounds, least(span.ends, seen_at), choice.method, choice.unit, NULL, NULL, NULL) t
		WHERE part.dimension IS NULL
		UNION ALL
		-- who is in the segment is asked anew at each start
		SELECT i.n, t.in_segment, t.numerator, t.denominator, t.rate, t.k, t.n
		FROM item i
		CROSS JOIN LATERAL cs_internal.churn_total(ARRAY[i.starts], least(i.stops, seen_at), choice.method, choice.unit,
			part.dimension, part.segment, i.starts) t
		WHERE part.dimension IS NOT NULL
	)
	SELECT span.labels[i.n], t.numerator, t.denominator, t.rate,
		cs_internal.wilson(t.k, t.n, p.confidence::float8, false)::numeric(18,9),
		cs_internal.wilson(t.k, t.n, p.confidence::float8, true)::numeric(18,9),
		i.starts, least(i.stops, seen_at), part.dimension || ':' || part.segment, choice.method, choice.unit,
		p.time_zone, p.period_edge, p.version, CASE WHEN part.dimension IS NOT NULL THEN 'stored' END, i.stops <= seen_at, seen_at
	FROM item i
	JOIN total t ON t.period_no = i.n
	CROSS JOIN cs.policy p
	ORDER BY i.n;
END $$;
COMMENT ON FUNCTION cs_internal.churn_series(timestamptz, timestamptz, text, text, text) IS 'See cs.churn_series.';

CREATE FUNCTION cs_internal.annualise(p_rate numeric, p_days numeric) RETURNS numeric
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
	IF NOT (p_days > 0 AND p_days < 'Infinity') THEN
		RAISE EXCEPTION 'days must be more than 0, not %', p_days USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Give the length of the period that the rate is of.';
	END IF;
	IF NOT (p_rate <= 1 AND p_rate > '-Infinity') THEN
		RAISE EXCEPTION 'a rate of % cannot be annualised', p_rate USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Rates are fractions: 0.05 is 5 %. Nobody can lose more than everything.';
	END IF;
	RETURN (1 - power(1 - p_rate, 365 / p_days))::numeric(30,9);
END $$;
COMMENT ON FUNCTION cs_internal.annualise(numeric, numeric) IS 'See cs.annualise.';

-- ---- gates -------------------------------------------------------------------

CREATE FUNCTION cs.churn_rate(period text, segment text DEFAULT NULL, method text DEFAULT NULL, unit text DEFAULT NULL)
RETURNS numeric LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.churn_rate(text, text, text, text) IS
'Churn in a period as a fraction with nine places (0.09 is 9 %): the rate of cs.churn. NULL where nobody was there at the start, 0 where nobody left.';

-- as_of is text here, so that it can stand behind defaults: see forms.sql.
CREATE FUNCTION cs.churn(period text, segment text DEFAULT NULL, method text DEFAULT NULL, unit text DEFAULT NULL, as_of text DEFAULT NULL)
RETURNS TABLE (
	period_start timestamptz, period_end timestamptz, segment text, method text, unit text,
	numerator numeric, denominator numeric, rate numeric, ci_low numeric, ci_high numeric,
	time_zone text, period_edge text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.churn(text, text, text, text, text) IS
'Churn in a period, one row. Method snapshot: of the customers active at the start, those not active at the end; event_of_start: those of them with a churn in the period; event_over_start: all churns in the period over the customers at the start; rolling_base: over those and the new ones; daily_sum: snapshot of each local day, rates added up (denominator NULL). Unit logo counts customers, gross_mrr is churn and contraction over MRR at the start, net_mrr takes expansion and reactivation off; net between the bounds (snapshot, of each day for daily_sum) or by the movements (the others). rate is NULL with an empty base; ci_low and ci_high (Wilson, policy.confidence) only for logo by snapshot and event_of_start. A running period ends at as_of (default now; text is read in the policy''s time zone), complete = false. A segment (''tier:enterprise'', ''tier:(none)'' for who is in none, or a name that one dimension has) is who was in it at the start as stored, whatever policy.segment_basis says: segment_basis shows ''stored'', NULL without a segment.';

CREATE FUNCTION cs.churn_customers(period text, segment text DEFAULT NULL, method text DEFAULT NULL)
RETURNS TABLE (
	customer_id text, name text, segment text, part text, in_numerator boolean, in_denominator boolean,
	mrr_start numeric, mrr_end numeric, churned_at timestamptz, churn_kind text, reason text,
	churn_mrr numeric, contraction_mrr numeric, expansion_mrr numeric, reactivation_mrr numeric, new_mrr numeric, events bigint)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.churn_customers(text, text, text) IS
'Who is behind cs.churn: each customer active at the start or at any instant of the period. part is churned, retained, left_and_returned, joined, joined_and_left, reactivated, reactivated_and_left or merged; events adds up to the numerator of unit logo (by snapshot and event_of_start it is 1 where in_numerator), rows with in_denominator count up to its denominator (by daily_sum: who is in the base of any day). The amounts are MRR per month, net or by the movements as the method has it, and add up to the money units; to the base of rolling_base belongs mrr_start + new_mrr. churned_at, churn_kind and reason are of the last churn inside the period, NULL without one. segment is the argument in full.';

CREATE FUNCTION cs.churn_by(period text, dimension text, method text DEFAULT NULL, unit text DEFAULT NULL)
RETURNS TABLE (
	segment text, numerator numeric, denominator numeric, rate numeric, ci_low numeric, ci_high numeric,
	transfer_in numeric, transfer_out numeric, period_start timestamptz, period_end timestamptz, dimension text, method text, unit text,
	time_zone text, period_edge text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.churn_by(text, text, text, text) IS
'Churn in a period by the segments of a dimension: one row a segment, ''(none)'' for who is in none, then ''(total)''. A customer counts where it stood at the start as stored, so numerators and denominators add up to the total; who had no segment then, as most new customers, is in ''(none)''. transfer_in and transfer_out: customers active at the end (unit logo) or their MRR then, that are in another segment at the end than at the start; both add up to the same. rate and its bounds as in cs.churn, NULL where nobody was there.';

-- No defaults for since and until: a literal must find the form of text.
CREATE FUNCTION cs.churn_series(since timestamptz, until timestamptz, grain text DEFAULT 'month', segment text DEFAULT NULL, method text DEFAULT NULL)
RETURNS TABLE (
	day date, numerator numeric, denominator numeric, rate numeric, ci_low numeric, ci_high numeric,
	period_start timestamptz, period_end timestamptz, segment text, method text, unit text,
	time_zone text, period_edge text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.churn_series(timestamptz, timestamptz, text, text, text) IS
'Churn of every period of a grain (day, week, month, quarter, year) that holds an instant of [since, until), whole periods of the policy''s time zone and week_start; each row is what cs.churn says of that period, in the unit of the policy. Periods in which nothing happened are there: rate 0, or NULL where nobody was there. since NULL: from the first movement; until NULL, or later: to the running period, complete = false. day is the first local day of the period.';

CREATE FUNCTION cs.annualise(rate numeric, days numeric) RETURNS numeric
LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.annualise(numeric, numeric) IS
'What a churn rate of so many days is in a year of 365 if it goes on: 1 - (1 - rate)^(365 / days), nine places. With 12 times the days it is the rate of a month of standard length (365 / 12 days): annualise(0.028, 12 * 28) for February. NULL for NULL.';

-- mrr(at): the balance, by the edge of the policy

CREATE FUNCTION cs.mrr(at timestamptz DEFAULT NULL, segment text DEFAULT NULL)
RETURNS numeric LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.mrr(timestamptz, text) IS
'MRR per month in the policy''s currency at an instant (default now), taken just before it or, with period_edge at, on it; so mrr(start of a period) is its opening. 0 where nobody pays. With a segment: of who is in it then, as stored.';

CREATE FUNCTION cs.churn_months()
RETURNS TABLE (
	month date, numerator numeric, denominator numeric, rate numeric, ci_low numeric, ci_high numeric,
	method text, unit text, complete boolean, data_through_at timestamptz, computed_at timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.churn_months() IS 'The rows of cs.churn_monthly.';

CREATE VIEW cs.churn_monthly WITH (security_barrier) AS
SELECT c.month, c.numerator::numeric(20,6) AS numerator, c.denominator::numeric(20,6) AS denominator,
	c.rate::numeric(18,9) AS rate, c.ci_low::numeric(18,9) AS ci_low, c.ci_high::numeric(18,9) AS ci_high,
	c.method, c.unit, c.complete, c.data_through_at, c.computed_at
FROM cs.churn_months() c;
COMMENT ON VIEW cs.churn_monthly IS
'Churn of every month from the first movement to the running one, by the policy''s method and unit; each row is what cs.churn says of that month. Months without churn are there with 0.';
COMMENT ON COLUMN cs.churn_monthly.month IS 'First day of the month, which is cut in the policy''s time zone.';
COMMENT ON COLUMN cs.churn_monthly.numerator IS 'Customers or churns, as the method counts (unit logo), or MRR lost (money units; net_mrr can be negative).';
COMMENT ON COLUMN cs.churn_monthly.denominator IS 'Customers active, or MRR, at the start of the month; by rolling_base with the new ones. NULL by daily_sum, which has one a day.';
COMMENT ON COLUMN cs.churn_monthly.rate IS 'numerator / denominator as a fraction, by daily_sum the sum of those of each day; NULL where the base is empty.';
COMMENT ON COLUMN cs.churn_monthly.ci_low IS 'Lower Wilson bound of the rate at policy.confidence; only for customers (unit logo) by snapshot and event_of_start, NULL with an empty base.';
COMMENT ON COLUMN cs.churn_monthly.ci_high IS 'Upper Wilson bound of the rate at policy.confidence; only for customers (unit logo) by snapshot and event_of_start, NULL with an empty base.';
COMMENT ON COLUMN cs.churn_monthly.method IS 'Method of churn: policy.churn_method.';
COMMENT ON COLUMN cs.churn_monthly.unit IS 'What is counted: policy.churn_unit.';
COMMENT ON COLUMN cs.churn_monthly.complete IS 'False for the running month, which is computed up to now.';
COMMENT ON COLUMN cs.churn_monthly.data_through_at IS 'Instant up to which facts were evaluated; NULL before the first refresh.';
COMMENT ON COLUMN cs.churn_monthly.computed_at IS 'When the last refresh was; NULL before the first.';
