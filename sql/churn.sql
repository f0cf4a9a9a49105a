
-- ---------------------------------------------------------------------------
-- churn: who left between two bounds, from the ledger of movements.
--
--   customer_flow    what each customer did between bounds, one pass over movement
--   flow_total       the same added up, one row a period: what revenue says
--   flow_churn       churn by the methods that are sums of flows, one row a period and segment
--   transfer         who is in another segment at the end than at the start
-- Other methods stand in churn_method, what people call in churn_by.
--
-- measure is what flows: mrr, seats or logo (seat_movement, logo_movement
-- instead of movement; see measure_of).
-- basis says how segments are found (segment_past).
--
-- jit is off where they are called: measured on small ledgers, compiling these
-- long queries takes ten times as long as running them.
--
-- A balance at a bound is what stands just before it; with period_edge 'at'
-- what stands on it. Instants have microseconds, so the second is the first
-- with every movement moved one microsecond back: one code path for both.
-- ---------------------------------------------------------------------------

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
	dimension text, segment text, attributed_at timestamptz, basis text, measure text)
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
		FROM cs_internal.moves(measure) m
		LEFT JOIN cs_internal.place_at(measure, customer_flow.dimension, attributed_at, basis) s ON s.customer_id = m.customer_id
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
COMMENT ON FUNCTION cs_internal.customer_flow(timestamptz[], timestamptz, boolean, text, text, timestamptz, text, text) IS
'Per customer and period with movements: balances at both bounds and the flows between, of the movements (endpoints false) or net (true); all flows >= 0 but fx. in_segment is where the customer stood in the dimension at attributed_at, (none) where nowhere, (total) without a dimension; a segment leaves only its customers.';

-- Balances are carried from period to period, so periods without movements cost nothing.
CREATE FUNCTION cs_internal.flow_total(
	bounds timestamptz[], until timestamptz, endpoints boolean,
	dimension text, segment text, attributed_at timestamptz, basis text)
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
		FROM cs_internal.customer_flow(bounds, until, endpoints, dimension, segment, attributed_at, basis, 'mrr') f
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
COMMENT ON FUNCTION cs_internal.flow_total(timestamptz[], timestamptz, boolean, text, text, timestamptz, text) IS
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

-- Five methods of churn are sums over customer_flow; they differ in what is
-- taken from a customer and in the base:
--   snapshot          net between the bounds, over who is there at the start
--   event_over_start  all movements, over the same
--   event_of_start    movements of those there at the start, over the same
--   rolling_base      all movements, over the same and the new
--   daily_sum         snapshot of each local day, rates added up
-- As in flow_total, balances are carried from period to period.
CREATE FUNCTION cs_internal.flow_churn(
	bounds timestamptz[], until timestamptz, method text, unit text, measure text,
	dimension text, segment text, attributed_at timestamptz, basis text)
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
				WHEN unit <> 'net_mrr' THEN f.churn_mrr + f.contraction_mrr
				ELSE f.churn_mrr + f.contraction_mrr - f.expansion_mrr - f.reactivation_mrr END) AS lost,
			sum(CASE WHEN method <> 'rolling_base' THEN 0
				WHEN unit = 'logo' THEN (f.was_active AND NOT f.active_start AND NOT f.active_before)::integer
				ELSE f.new_mrr END) AS joined
		FROM fine
		CROSS JOIN LATERAL cs_internal.customer_flow(fine.bounds, until, method IN ('snapshot', 'daily_sum'), dimension, segment, attributed_at,
			basis, measure) f
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
		CROSS JOIN LATERAL (SELECT CASE WHEN method = 'daily_sum' THEN width_bucket(fine.bounds[b.n], flow_churn.bounds) ELSE b.n END) x (period_no)
		WHERE b.n > 0
		GROUP BY x.period_no, b.in_segment
	) t
$$;
COMMENT ON FUNCTION cs_internal.flow_churn(timestamptz[], timestamptz, text, text, text, text, text, timestamptz, text) IS
'Churn by method and unit, one row a period and, with a dimension, a segment (all where segment is NULL). k of n for the interval where the method is a share of customers, else NULL; denominator NULL for daily_sum, which has one a day.';

-- Who is elsewhere in the dimension at t1 than at t0, by what stands at t1: so
-- segments that count who was there at t0 come, with these, to who is there at t1.
CREATE FUNCTION cs_internal.transfer(dimension text, t0 timestamptz, t1 timestamptz, basis text, measure text)
RETURNS TABLE (segment text, customers_in bigint, customers_out bigint, mrr_in numeric, mrr_out numeric)
LANGUAGE sql STABLE AS $$
	SELECT v.segment, sum(v.sign * b.active_after::integer) FILTER (WHERE v.sign > 0), -sum(v.sign * b.active_after::integer) FILTER (WHERE v.sign < 0),
		sum(b.mrr_after) FILTER (WHERE v.sign > 0), sum(b.mrr_after) FILTER (WHERE v.sign < 0)
	FROM (
		SELECT DISTINCT ON (m.customer_id) m.customer_id, m.mrr_after, m.active_after
		FROM cs_internal.moves(measure) m
		WHERE m.at < t1 + (SELECT cs_internal.edge_shift())
		ORDER BY m.customer_id, m.at DESC, m.seq DESC
	) b
	LEFT JOIN cs_internal.place_at(measure, transfer.dimension, t0, basis) a ON a.customer_id = b.customer_id
	LEFT JOIN cs_internal.place_at(measure, transfer.dimension, t1, basis) z ON z.customer_id = b.customer_id
	CROSS JOIN LATERAL (VALUES (coalesce(a.segment, '(none)'), -1), (coalesce(z.segment, '(none)'), 1)) v (segment, sign)
	WHERE a.segment IS DISTINCT FROM z.segment AND (b.active_after OR b.mrr_after <> 0)
	GROUP BY v.segment
$$;
COMMENT ON FUNCTION cs_internal.transfer(text, timestamptz, timestamptz, text, text) IS
'Per segment, customers and MRR (or seats) at t1 that came from and went to other segments (or none) since t0; NULL where there are none.';
