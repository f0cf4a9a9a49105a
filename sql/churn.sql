
-- ---------------------------------------------------------------------------
-- churn: who left between two bounds, from the ledger of movements.
--
--   customer_flow   what each customer did between bounds, one pass over movement
--   flow_total      the same added up, one row a period; revenue reads it too
--   churn, churn_rate, churn_customers, mrr, churn_months
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
	customer_id text, period_no integer,
	mrr_start numeric, active_start boolean, active_before boolean, paid_before boolean,
	mrr_end numeric, active_end boolean, was_active boolean, merged boolean,
	churns bigint, churned_at timestamptz, churn_kind text, reason text,
	new_mrr numeric, reactivation_mrr numeric, expansion_mrr numeric, contraction_mrr numeric, churn_mrr numeric,
	pause_mrr numeric, resume_mrr numeric, merge_in numeric, merge_out numeric, fx_mrr numeric,
	retained_mrr numeric)
LANGUAGE sql STABLE AS $$
	WITH placed AS (
		SELECT m.customer_id, m.at, m.seq, m.kind, m.delta, m.mrr_after, m.active_after, m.churn_kind, m.reason,
			-- in brackets, so that the policy is asked once, not per row
			width_bucket(m.at - (SELECT cs_internal.edge_shift()), bounds) AS period_no
		FROM cs_internal.movement m
		WHERE m.at < until + (SELECT cs_internal.edge_shift())
			AND (dimension IS NULL OR EXISTS (
				SELECT 1 FROM cs_internal.membership s
				WHERE s.customer_id = m.customer_id AND s.dimension = customer_flow.dimension
					AND s.segment = customer_flow.segment
					AND s.valid_from <= attributed_at AND (s.valid_to IS NULL OR attributed_at < s.valid_to)))
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
		SELECT n.customer_id, n.period_no,
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
	SELECT n.customer_id, n.period_no, n.mrr_start, n.active_start, n.active_before, n.paid_before,
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
'Per customer and period with movements: balances at both bounds and the flows between, of the movements (endpoints false) or net (true); all flows >= 0 but fx. With a dimension, only members of the segment at attributed_at.';

-- Balances are carried from period to period, so periods without movements cost nothing.
CREATE FUNCTION cs_internal.flow_total(
	bounds timestamptz[], until timestamptz, endpoints boolean,
	dimension text, segment text, attributed_at timestamptz)
RETURNS TABLE (
	period_no integer, customers_start bigint, customers_churned bigint, customers_end bigint,
	mrr_start numeric, new_mrr numeric, reactivation_mrr numeric, expansion_mrr numeric, contraction_mrr numeric, churn_mrr numeric,
	pause_mrr numeric, resume_mrr numeric, merge_in numeric, merge_out numeric, fx_mrr numeric, mrr_end numeric,
	grr numeric, nrr numeric, gross_mrr_churn numeric, net_mrr_churn numeric)
LANGUAGE sql STABLE AS $$
	WITH changed AS (
		SELECT f.period_no,
			sum(f.active_end::integer - f.active_start::integer) AS d_customers,
			count(*) FILTER (WHERE f.active_start AND NOT f.active_end AND NOT f.merged) AS churned,
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
	SELECT t.n, t.n0::bigint, coalesce(t.churned, 0), t.n1::bigint,
		t.m0::numeric(20,6), coalesce(t.new_mrr, 0)::numeric(20,6), coalesce(t.reactivation_mrr, 0)::numeric(20,6),
		coalesce(t.expansion_mrr, 0)::numeric(20,6), coalesce(t.contraction_mrr, 0)::numeric(20,6), coalesce(t.churn_mrr, 0)::numeric(20,6),
		coalesce(t.pause_mrr, 0)::numeric(20,6), coalesce(t.resume_mrr, 0)::numeric(20,6),
		coalesce(t.merge_in, 0)::numeric(20,6), coalesce(t.merge_out, 0)::numeric(20,6), coalesce(t.fx_mrr, 0)::numeric(20,6), t.m1::numeric(20,6),
		cs_internal.rate(t.m0 - coalesce(t.lost, 0), t.m0),
		cs_internal.rate(t.m0 + coalesce(t.net, 0), t.m0),
		cs_internal.rate(coalesce(t.churn_mrr + t.contraction_mrr, 0), t.m0),
		cs_internal.rate(coalesce(t.churn_mrr + t.contraction_mrr - t.expansion_mrr - t.reactivation_mrr, 0), t.m0)
	FROM total t
	WHERE t.n > 0
$$;
COMMENT ON FUNCTION cs_internal.flow_total(timestamptz[], timestamptz, boolean, text, text, timestamptz) IS
'One row a period: customers and MRR at both bounds, flows, GRR and NRR of who was there at the start; the totals of customer_flow.';

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
	IF method <> 'snapshot' THEN
		RAISE EXCEPTION 'churn method "%" is not available yet', method USING ERRCODE = 'feature_not_supported',
			HINT = 'This version computes the method snapshot.';
	END IF;
	IF unit = 'seats' THEN
		RAISE EXCEPTION 'churn unit "seats" is not available yet' USING ERRCODE = 'feature_not_supported',
			HINT = 'This version computes the units logo, gross_mrr and net_mrr.';
	END IF;
	PERFORM cs_internal.require_fx_rates();
END $$;
COMMENT ON FUNCTION cs_internal.churn_choice(text, text) IS
'Method and unit of churn, the policy''s where NULL; refuses unknown ones (22023) and those that wait for a later version (0A000).';

CREATE FUNCTION cs_internal.churn_parts(unit text, churned bigint, customers bigint,
	churn_mrr numeric, contraction_mrr numeric, expansion_mrr numeric, reactivation_mrr numeric, mrr_start numeric,
	OUT numerator numeric, OUT denominator numeric, OUT k bigint, OUT n bigint)
LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE unit WHEN 'logo' THEN churned
			WHEN 'gross_mrr' THEN churn_mrr + contraction_mrr
			WHEN 'net_mrr' THEN churn_mrr + contraction_mrr - expansion_mrr - reactivation_mrr END,
		CASE unit WHEN 'logo' THEN customers ELSE mrr_start END,
		CASE unit WHEN 'logo' THEN churned END, CASE unit WHEN 'logo' THEN customers END
$$;
COMMENT ON FUNCTION cs_internal.churn_parts(text, bigint, bigint, numeric, numeric, numeric, numeric, numeric) IS
'Numerator and denominator of snapshot churn in a unit; k of n for the interval, NULL where the unit is money.';

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
	SELECT * INTO part FROM cs_internal.find_segment(p_segment);
	PERFORM cs_internal.note_stored_since(part.dimension, span.period_start);
	RETURN QUERY
	SELECT span.period_start, span.period_end, part.dimension || ':' || part.segment, choice.method, choice.unit,
		v.numerator, v.denominator, cs_internal.rate(v.numerator, v.denominator),
		cs_internal.wilson(v.k, v.n, p.confidence::float8, false)::numeric(18,9),
		cs_internal.wilson(v.k, v.n, p.confidence::float8, true)::numeric(18,9),
		p.time_zone, p.period_edge, p.version,
		CASE WHEN part.dimension IS NOT NULL THEN 'stored' END, span.complete, seen_at
	FROM cs_internal.flow_total(ARRAY[span.period_start], span.period_end, true, part.dimension, part.segment, span.period_start) t
	CROSS JOIN LATERAL cs_internal.churn_parts(choice.unit, t.customers_churned, t.customers_start,
		t.churn_mrr, t.contraction_mrr, t.expansion_mrr, t.reactivation_mrr, t.mrr_start) v
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
	churn_mrr numeric, contraction_mrr numeric, expansion_mrr numeric, reactivation_mrr numeric)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	span record;
	choice record;
	part record;
BEGIN
	SELECT * INTO span FROM cs_internal.period(p_period, cs_internal.now());
	SELECT * INTO choice FROM cs_internal.churn_choice(p_method, NULL);
	SELECT * INTO part FROM cs_internal.find_segment(p_segment);
	PERFORM cs_internal.note_stored_since(part.dimension, span.period_start);
	RETURN QUERY
	WITH flow AS (
		SELECT f.* FROM cs_internal.customer_flow(ARRAY[span.period_start], span.period_end, true,
			part.dimension, part.segment, span.period_start) f
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
			f.active_start AND NOT f.active_end AND NOT f.merged AS in_numerator, f.active_start AS in_denominator,
			f.mrr_start, f.mrr_end, f.churned_at, f.churn_kind, f.reason,
			f.churn_mrr, f.contraction_mrr, f.expansion_mrr, f.reactivation_mrr
		FROM flow f
		WHERE f.period_no = 1 AND (f.active_start OR f.was_active)
		UNION ALL
		SELECT u.customer_id, 'retained', false, true, u.mrr_end, u.mrr_end, NULL, NULL, NULL, 0, 0, 0, 0
		FROM unmoved u
	)
	SELECT c.customer_id, i.name, part.dimension || ':' || part.segment, c.part, c.in_numerator, c.in_denominator,
		c.mrr_start::numeric(20,6), c.mrr_end::numeric(20,6), c.churned_at, c.churn_kind, c.reason,
		c.churn_mrr::numeric(20,6), c.contraction_mrr::numeric(20,6), c.expansion_mrr::numeric(20,6), c.reactivation_mrr::numeric(20,6)
	FROM customer c
	LEFT JOIN cs_internal.customer i ON i.customer_id = c.customer_id
	ORDER BY c.in_numerator DESC, c.mrr_start DESC, c.customer_id;
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
	SELECT * INTO part FROM cs_internal.find_segment(p_segment);
	PERFORM cs_internal.note_stored_since(part.dimension, bound);
	SELECT sum(b.mrr_after) INTO total
	FROM (
		SELECT DISTINCT ON (m.customer_id) m.mrr_after
		FROM cs_internal.movement m
		WHERE m.at < bound + (SELECT cs_internal.edge_shift())
			AND (part.dimension IS NULL OR EXISTS (
				SELECT 1 FROM cs_internal.membership s
				WHERE s.customer_id = m.customer_id AND s.dimension = part.dimension AND s.segment = part.segment
					AND s.valid_from <= bound AND (s.valid_to IS NULL OR bound < s.valid_to)))
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
	SELECT span.months[t.period_no], v.numerator, v.denominator, cs_internal.rate(v.numerator, v.denominator),
		cs_internal.wilson(v.k, v.n, p.confidence::float8, false)::numeric(18,9),
		cs_internal.wilson(v.k, v.n, p.confidence::float8, true)::numeric(18,9),
		choice.method, choice.unit, t.period_no < cardinality(span.bounds), c.last_as_of, c.last_refresh_at
	FROM cs_internal.flow_total(span.bounds, seen_at, true, NULL, NULL, NULL) t
	CROSS JOIN LATERAL cs_internal.churn_parts(choice.unit, t.customers_churned, t.customers_start,
		t.churn_mrr, t.contraction_mrr, t.expansion_mrr, t.reactivation_mrr, t.mrr_start) v
	CROSS JOIN cs.policy p
	LEFT JOIN cs_internal.clock c ON true
	ORDER BY t.period_no;
END $$;
COMMENT ON FUNCTION cs_internal.churn_months() IS 'See cs.churn_months.';

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
'Churn in a period, one row. Method snapshot: of the customers active at the start, those not active at the end; unit logo counts them, gross_mrr is churn and contraction over MRR at the start, net_mrr takes expansion and reactivation off. rate is NULL with an empty base; ci_low and ci_high (Wilson, policy.confidence) only for logo. A running period ends at as_of (default now; text is read in the policy''s time zone), complete = false. A segment (''tier:enterprise'', or a name that one dimension has) is who was in it at the start as stored, whatever policy.segment_basis says: segment_basis shows ''stored'', NULL without a segment.';

CREATE FUNCTION cs.churn_customers(period text, segment text DEFAULT NULL, method text DEFAULT NULL)
RETURNS TABLE (
	customer_id text, name text, segment text, part text, in_numerator boolean, in_denominator boolean,
	mrr_start numeric, mrr_end numeric, churned_at timestamptz, churn_kind text, reason text,
	churn_mrr numeric, contraction_mrr numeric, expansion_mrr numeric, reactivation_mrr numeric)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.churn_customers(text, text, text) IS
'Who is behind cs.churn: each customer active at the start or at any instant of the period. part is churned, retained, left_and_returned, joined, joined_and_left, reactivated, reactivated_and_left or merged; rows with in_numerator and in_denominator count up to numerator and denominator of unit logo, the four amounts (net between the bounds, MRR per month) add up to those of the money units. churned_at, churn_kind and reason are of the last churn inside the period, NULL without one. segment is the argument in full.';

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
COMMENT ON COLUMN cs.churn_monthly.numerator IS 'Customers lost (unit logo) or MRR lost (money units; net_mrr can be negative).';
COMMENT ON COLUMN cs.churn_monthly.denominator IS 'Customers active, or MRR, at the start of the month.';
COMMENT ON COLUMN cs.churn_monthly.rate IS 'numerator / denominator as a fraction; NULL where the denominator is 0.';
COMMENT ON COLUMN cs.churn_monthly.ci_low IS 'Lower Wilson bound of the rate at policy.confidence; NULL for money units and an empty base.';
COMMENT ON COLUMN cs.churn_monthly.ci_high IS 'Upper Wilson bound of the rate at policy.confidence; NULL for money units and an empty base.';
COMMENT ON COLUMN cs.churn_monthly.method IS 'Method of churn: policy.churn_method.';
COMMENT ON COLUMN cs.churn_monthly.unit IS 'What is counted: policy.churn_unit.';
COMMENT ON COLUMN cs.churn_monthly.complete IS 'False for the running month, which is computed up to now.';
COMMENT ON COLUMN cs.churn_monthly.data_through_at IS 'Instant up to which facts were evaluated; NULL before the first refresh.';
COMMENT ON COLUMN cs.churn_monthly.computed_at IS 'When the last refresh was; NULL before the first.';
