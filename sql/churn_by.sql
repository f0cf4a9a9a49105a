
-- ---------------------------------------------------------------------------
-- churn_by: what people call: churn of a period, of its customers, by segment
-- and as a series; and their gates.
-- ---------------------------------------------------------------------------

CREATE FUNCTION cs_internal.churn(p_period text, p_segment text, p_method text, p_unit text, p_as_of timestamptz)
RETURNS TABLE (
	period_start timestamptz, period_end timestamptz, segment text, method text, unit text,
	numerator numeric, denominator numeric, rate numeric, ci_low numeric, ci_high numeric,
	time_zone text, period_edge text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz,
	current_attributes boolean, month_rate numeric, annual_rate numeric)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.past_instant(p_as_of, 'as_of');
	span record;
	choice record;
	part record;
	basis text;
BEGIN
	SELECT * INTO span FROM cs_internal.period(p_period, seen_at);
	SELECT * INTO choice FROM cs_internal.churn_choice(p_method, p_unit);
	SELECT * INTO part FROM cs_internal.find_part(p_segment);
	basis := cs_internal.basis_of(part.dimension);
	PERFORM cs_internal.note_stored_since(part.dimension, span.period_start);
	PERFORM cs_internal.note_history_from(span.period_start);
	RETURN QUERY
	SELECT span.period_start, span.period_end, part.dimension || ':' || part.segment, choice.method, choice.unit,
		t.numerator, t.denominator, t.rate,
		cs_internal.wilson(t.k, t.n, p.confidence::float8, false)::numeric(18,9),
		cs_internal.wilson(t.k, t.n, p.confidence::float8, true)::numeric(18,9),
		p.time_zone, p.period_edge, p.version,
		basis, span.complete, seen_at, cs_internal.today_stands_in(part.dimension, span.period_start, basis),
		cs_internal.rate_of_length(t.rate, span.period_start, span.period_end, 12), cs_internal.rate_of_length(t.rate, span.period_start, span.period_end, 1)
	FROM cs_internal.churn_total(ARRAY[span.period_start], span.period_end, choice.method, choice.unit,
		part.dimension, part.segment, span.period_start, basis) t
	CROSS JOIN cs.policy p;
END $$;
COMMENT ON FUNCTION cs_internal.churn(text, text, text, text, timestamptz) IS 'See cs.churn.';

CREATE FUNCTION cs_internal.churn_rate(p_period text, p_segment text, p_method text, p_unit text) RETURNS numeric
LANGUAGE sql STABLE AS $$
	SELECT c.rate FROM cs_internal.churn(p_period, p_segment, p_method, p_unit, NULL::timestamptz) c
$$;
COMMENT ON FUNCTION cs_internal.churn_rate(text, text, text, text) IS 'See cs.churn_rate.';

-- unit decides whose flow it is (seats, MRR, accounts) and what numerator and
-- denominator are; the amounts beside are MRR in any case, of an account what its
-- customers have. How many rows a flow has nobody can tell beforehand, and a
-- nested loop over two of them takes the square of the customers.
CREATE FUNCTION cs_internal.churn_member(t0 timestamptz, t1 timestamptz, p_dimension text, p_segment text, basis text, p_method text, p_unit text)
RETURNS TABLE (
	customer_id text, part text, in_numerator boolean, in_denominator boolean,
	mrr_start numeric, mrr_end numeric, churned_at timestamptz, churn_kind text, reason text,
	churn_mrr numeric, contraction_mrr numeric, expansion_mrr numeric, reactivation_mrr numeric, new_mrr numeric, events bigint,
	numerator numeric, denominator numeric)
LANGUAGE plpgsql STABLE SET jit = off SET enable_nestloop = off AS $$
#variable_conflict use_column
DECLARE
	measure text := cs_internal.measure_of(p_unit);
	by_entry boolean := p_method IN ('eligible_base', 'activity');
	net boolean := p_method IN ('eligible_base', 'activity', 'snapshot', 'daily_sum');
BEGIN
	RETURN QUERY
	WITH flow AS (
		SELECT f.*, max(f.period_no) OVER (PARTITION BY f.customer_id) AS last_no
		FROM cs_internal.customer_flow(ARRAY[t0], t1, net,
			p_dimension, p_segment, t0, basis, measure) f
	), day AS (
		-- what daily_sum takes of a customer: the sum of its days
		SELECT f.customer_id, count(*) FILTER (WHERE f.active_start AND NOT f.active_end AND NOT f.merged) AS events,
			bool_or(f.active_start OR f.active_end AND f.period_no < cardinality(b.bounds)) AS in_base,
			sum(f.churn_mrr) AS churn_mrr, sum(f.contraction_mrr) AS contraction_mrr,
			sum(f.expansion_mrr) AS expansion_mrr, sum(f.reactivation_mrr) AS reactivation_mrr, sum(f.new_mrr) AS new_mrr
		FROM cs_internal.day_bounds(ARRAY[t0], t1) AS b (bounds)
		CROSS JOIN LATERAL cs_internal.customer_flow(b.bounds, t1, true, p_dimension, p_segment, t0, basis, measure) f
		WHERE p_method = 'daily_sum' AND f.period_no > 0
		GROUP BY f.customer_id
	), member AS (
		SELECT m.* FROM cs_internal.base_member(ARRAY[t0], t1, p_method, measure,
			p_dimension, p_segment, t0, basis) m
		WHERE by_entry
	), moved AS (
		SELECT f.customer_id, f.active_start, f.active_end, f.active_before, f.merged, f.churns, f.mrr_start, f.mrr_end,
			f.churned_at, f.churn_kind, f.reason,
			CASE WHEN d.customer_id IS NOT NULL THEN d.churn_mrr ELSE f.churn_mrr END AS churn_mrr,
			CASE WHEN d.customer_id IS NOT NULL THEN d.contraction_mrr ELSE f.contraction_mrr END AS contraction_mrr,
			CASE WHEN d.customer_id IS NOT NULL THEN d.expansion_mrr ELSE f.expansion_mrr END AS expansion_mrr,
			CASE WHEN d.customer_id IS NOT NULL THEN d.reactivation_mrr ELSE f.reactivation_mrr END AS reactivation_mrr,
			CASE WHEN d.customer_id IS NOT NULL THEN d.new_mrr ELSE f.new_mrr END AS new_mrr,
			CASE p_method
				WHEN 'snapshot' THEN (f.active_start AND NOT f.active_end AND NOT f.merged)::integer
				WHEN 'event_of_start' THEN (f.active_start AND f.churns > 0)::integer
				WHEN 'daily_sum' THEN d.events
				ELSE f.churns END AS events,
			CASE p_method
				WHEN 'daily_sum' THEN f.active_start OR d.in_base
				WHEN 'rolling_base' THEN f.active_start OR NOT f.active_before
				ELSE f.active_start END AS in_base,
			p_method <> 'event_of_start' OR f.active_start AS counts
		FROM flow f
		LEFT JOIN day d ON d.customer_id = f.customer_id
		WHERE f.period_no = 1 AND (f.active_start OR f.was_active)
		UNION ALL
		-- who has no movement in the period stays as the last row before says
		SELECT b.customer_id, true, true, true, false, 0, b.mrr_end, b.mrr_end, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, true, true
		FROM flow b
		WHERE b.period_no = 0 AND b.active_end AND b.last_no = 0
	), customer AS (
		SELECT coalesce(m.customer_id, e.customer_id) AS customer_id,
			coalesce(m.active_start, false) AS active_start, coalesce(m.active_end, false) AS active_end, coalesce(m.active_before, false) AS active_before,
			coalesce(m.merged, false) AS merged, coalesce(m.churns, 0) AS churns, coalesce(m.mrr_start, 0) AS mrr_start, coalesce(m.mrr_end, 0) AS mrr_end,
			m.churned_at, m.churn_kind, m.reason, coalesce(m.counts, true) AS counts,
			a.churn_mrr, a.contraction_mrr, a.expansion_mrr, a.reactivation_mrr, a.new_mrr,
			CASE WHEN by_entry THEN coalesce(e.gone, false)::integer ELSE m.events END AS events,
			CASE WHEN by_entry THEN e.customer_id IS NOT NULL ELSE m.in_base END AS in_base,
			CASE WHEN by_entry THEN coalesce(e.lost - CASE p_unit WHEN 'net_mrr' THEN e.won ELSE 0 END, 0)
				ELSE a.churn_mrr + a.contraction_mrr - CASE p_unit WHEN 'net_mrr' THEN a.expansion_mrr + a.reactivation_mrr ELSE 0 END END AS lost,
			CASE WHEN by_entry THEN coalesce(e.base, 0)
				ELSE m.mrr_start + CASE p_method WHEN 'rolling_base' THEN m.new_mrr ELSE 0 END END AS base
		FROM moved m
		FULL JOIN member e ON e.customer_id = m.customer_id
		CROSS JOIN LATERAL (
			SELECT CASE WHEN m.counts THEN m.churn_mrr ELSE 0 END, CASE WHEN m.counts THEN m.contraction_mrr ELSE 0 END,
				CASE WHEN m.counts THEN m.expansion_mrr ELSE 0 END, CASE WHEN m.counts THEN m.reactivation_mrr ELSE 0 END,
				CASE WHEN m.counts THEN m.new_mrr ELSE 0 END) a (churn_mrr, contraction_mrr, expansion_mrr, reactivation_mrr, new_mrr)
	), money AS (
		SELECT coalesce(g.account_id, f.customer_id) AS customer_id,
			coalesce(sum(f.mrr_start) FILTER (WHERE f.period_no = 1), 0)
				+ coalesce(sum(f.mrr_end) FILTER (WHERE f.period_no = 0 AND f.still), 0) AS mrr_start,
			coalesce(sum(f.mrr_end) FILTER (WHERE f.period_no = 1 OR f.still), 0) AS mrr_end,
			sum(f.churn_mrr) FILTER (WHERE f.period_no = 1) AS churn_mrr, sum(f.contraction_mrr) FILTER (WHERE f.period_no = 1) AS contraction_mrr,
			sum(f.expansion_mrr) FILTER (WHERE f.period_no = 1) AS expansion_mrr,
			sum(f.reactivation_mrr) FILTER (WHERE f.period_no = 1) AS reactivation_mrr, sum(f.new_mrr) FILTER (WHERE f.period_no = 1) AS new_mrr
		FROM (
			-- of an account all customers, wherever they stand themselves
			SELECT x.*, max(x.period_no) OVER (PARTITION BY x.customer_id) = 0 AS still
			FROM cs_internal.customer_flow(ARRAY[t0], t1, net,
				CASE measure WHEN 'seats' THEN p_dimension END, CASE measure WHEN 'seats' THEN p_segment END, t0, basis, 'mrr') x
		) f
		LEFT JOIN cs_internal.account_of() g ON g.customer_id = f.customer_id AND measure = 'logo'
		WHERE measure <> 'mrr'
		GROUP BY 1
	)
	SELECT c.customer_id,
		CASE
			WHEN c.active_start AND c.active_end THEN CASE WHEN c.churns > 0 THEN 'left_and_returned' ELSE 'retained' END
			WHEN c.active_start THEN CASE WHEN c.merged THEN 'merged' ELSE 'churned' END
			WHEN c.active_end THEN CASE WHEN c.active_before THEN 'reactivated' ELSE 'joined' END
			WHEN c.churns = 0 AND c.churned_at IS NULL AND by_entry AND NOT c.active_before THEN 'not_a_customer'
			ELSE CASE WHEN c.active_before THEN 'reactivated_and_left' ELSE 'joined_and_left' END
		END,
		c.events > 0, c.in_base,
		x.mrr_start::numeric(20,6), x.mrr_end::numeric(20,6), c.churned_at, c.churn_kind, c.reason,
		x.churn_mrr::numeric(20,6), x.contraction_mrr::numeric(20,6), x.expansion_mrr::numeric(20,6), x.reactivation_mrr::numeric(20,6),
		x.new_mrr::numeric(20,6), c.events::bigint,
		CASE p_unit WHEN 'logo' THEN c.events ELSE c.lost END::numeric(20,6),
		CASE WHEN p_method = 'daily_sum' THEN NULL WHEN p_unit = 'logo' THEN c.in_base::integer ELSE c.base END::numeric(20,6)
	FROM customer c
	LEFT JOIN money o ON o.customer_id = c.customer_id
	CROSS JOIN LATERAL (
		SELECT c.mrr_start, c.mrr_end, coalesce(c.churn_mrr, 0), coalesce(c.contraction_mrr, 0), coalesce(c.expansion_mrr, 0), coalesce(c.reactivation_mrr, 0), coalesce(c.new_mrr, 0)
		WHERE measure = 'mrr'
		UNION ALL
		SELECT coalesce(o.mrr_start, 0), coalesce(o.mrr_end, 0), coalesce(s.churn_mrr, 0), coalesce(s.contraction_mrr, 0),
			coalesce(s.expansion_mrr, 0), coalesce(s.reactivation_mrr, 0), coalesce(s.new_mrr, 0)
		FROM (SELECT) one
		LEFT JOIN (SELECT o.churn_mrr, o.contraction_mrr, o.expansion_mrr, o.reactivation_mrr, o.new_mrr WHERE c.counts) s ON true
		WHERE measure <> 'mrr'
	) x (mrr_start, mrr_end, churn_mrr, contraction_mrr, expansion_mrr, reactivation_mrr, new_mrr);
END $$;
COMMENT ON FUNCTION cs_internal.churn_member(timestamptz, timestamptz, text, text, text, text, text) IS
'The customers behind churn between two instants, by method and unit, of a segment (all where NULL): numerator and denominator add up to those of churn_total.';

CREATE FUNCTION cs_internal.churn_customers(p_period text, p_segment text, p_method text, p_unit text DEFAULT NULL)
RETURNS TABLE (
	customer_id text, name text, segment text, part text, in_numerator boolean, in_denominator boolean,
	mrr_start numeric, mrr_end numeric, churned_at timestamptz, churn_kind text, reason text,
	churn_mrr numeric, contraction_mrr numeric, expansion_mrr numeric, reactivation_mrr numeric, new_mrr numeric, events bigint,
	numerator numeric, denominator numeric)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
	span record;
	choice record;
	part record;
BEGIN
	SELECT * INTO span FROM cs_internal.period(p_period, cs_internal.now());
	SELECT * INTO choice FROM cs_internal.churn_choice(p_method, p_unit);
	SELECT * INTO part FROM cs_internal.find_part(p_segment);
	PERFORM cs_internal.note_stored_since(part.dimension, span.period_start);
	PERFORM cs_internal.note_history_from(span.period_start);
	RETURN QUERY
	SELECT m.customer_id, i.name, part.dimension || ':' || part.segment, m.part, m.in_numerator, m.in_denominator,
		m.mrr_start, m.mrr_end, m.churned_at, m.churn_kind, m.reason,
		m.churn_mrr, m.contraction_mrr, m.expansion_mrr, m.reactivation_mrr, m.new_mrr, m.events, m.numerator, m.denominator
	FROM cs_internal.churn_member(span.period_start, span.period_end, part.dimension, part.segment, cs_internal.basis_of(part.dimension),
		choice.method, choice.unit) m
	LEFT JOIN cs_internal.customer i ON i.customer_id = m.customer_id
	ORDER BY m.in_numerator DESC, m.mrr_start DESC, m.customer_id;
END $$;
COMMENT ON FUNCTION cs_internal.churn_customers(text, text, text, text) IS 'See cs.churn_customers.';

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
		LEFT JOIN cs_internal.segment_at(part.dimension, bound, cs_internal.basis_of(part.dimension)) s ON s.customer_id = m.customer_id
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
	FROM cs_internal.churn_spans(span.bounds, seen_at, choice.method, choice.unit, NULL, NULL, NULL) t
	CROSS JOIN cs.policy p
	LEFT JOIN cs_internal.clock c ON true
	ORDER BY t.period_no;
END $$;
COMMENT ON FUNCTION cs_internal.churn_months() IS 'See cs.churn_months.';

-- ---- by segment and as a series ----------------------------------------------

CREATE FUNCTION cs_internal.churn_by(p_period text, p_dimension text, p_method text, p_unit text)
RETURNS TABLE (
	segment text, numerator numeric, denominator numeric, rate numeric, ci_low numeric, ci_high numeric,
	transfer_in numeric, transfer_out numeric, period_start timestamptz, period_end timestamptz, dimension text, method text, unit text,
	time_zone text, period_edge text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz,
	current_attributes boolean, month_rate numeric, annual_rate numeric, rank bigint)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.now();
	span record;
	choice record;
	basis text;
	measure text;
BEGIN
	SELECT * INTO span FROM cs_internal.period(p_period, seen_at);
	SELECT * INTO choice FROM cs_internal.churn_choice(p_method, p_unit);
	measure := cs_internal.measure_of(choice.unit);
	PERFORM cs_internal.must_be_dimension(p_dimension);
	basis := cs_internal.basis_of(p_dimension);
	PERFORM cs_internal.note_stored_since(p_dimension, span.period_start);
	PERFORM cs_internal.note_history_from(span.period_start);
	RETURN QUERY
	WITH churned AS MATERIALIZED (
		SELECT t.* FROM cs_internal.churn_total(ARRAY[span.period_start], span.period_end, choice.method, choice.unit,
			p_dimension, NULL, span.period_start, basis) t
	), moved AS MATERIALIZED (
		SELECT x.* FROM cs_internal.transfer(p_dimension, span.period_start, span.period_end, basis,
			measure) x
	), part AS (
		SELECT k.name, CASE WHEN k.name = '(none)' THEN 1 ELSE 0 END AS place, t.numerator, t.denominator, t.rate, t.k, t.n,
			CASE choice.unit WHEN 'logo' THEN x.customers_in ELSE x.mrr_in END AS transfer_in,
			CASE choice.unit WHEN 'logo' THEN x.customers_out ELSE x.mrr_out END AS transfer_out
		FROM (
			SELECT s.name FROM cs_internal.known_segment(p_dimension, span.period_start, span.period_end, basis) s (name)
			UNION SELECT c.in_segment FROM churned c
			UNION SELECT m.segment FROM moved m
		) k
		LEFT JOIN churned t ON t.in_segment = k.name
		LEFT JOIN moved x ON x.segment = k.name
		UNION ALL
		SELECT '(total)', 2, t.numerator, t.denominator, t.rate, t.k, t.n, 0, 0
		FROM cs_internal.churn_total(ARRAY[span.period_start], span.period_end, choice.method, choice.unit, NULL, NULL, NULL, NULL) t
	), enough AS (
		-- a rate of a handful of customers is no place in a ranking
		SELECT q.*, q.rate IS NOT NULL AND q.place < 2 AND c.n >= p.min_n AS counts
		FROM part q
		CROSS JOIN cs.policy p
		LEFT JOIN (
			SELECT t.in_segment, t.denominator FROM churned t WHERE choice.unit = 'logo' AND choice.method <> 'daily_sum'
			UNION ALL
			SELECT t.in_segment, t.denominator
			FROM cs_internal.churn_total(ARRAY[span.period_start], span.period_end,
				CASE choice.method WHEN 'daily_sum' THEN 'snapshot' ELSE choice.method END, 'logo', p_dimension, NULL, span.period_start, basis) t
			WHERE choice.unit <> 'logo' OR choice.method = 'daily_sum'
		) c (in_segment, n) ON c.in_segment = q.name
	)
	SELECT q.name, coalesce(q.numerator, 0), CASE WHEN choice.method <> 'daily_sum' THEN coalesce(q.denominator, 0) END, q.rate,
		cs_internal.wilson(q.k, q.n, p.confidence::float8, false)::numeric(18,9),
		cs_internal.wilson(q.k, q.n, p.confidence::float8, true)::numeric(18,9),
		coalesce(q.transfer_in, 0), coalesce(q.transfer_out, 0),
		span.period_start, span.period_end, p_dimension, choice.method, choice.unit,
		p.time_zone, p.period_edge, p.version, basis, span.complete, seen_at, cs_internal.today_stands_in(p_dimension, span.period_start, basis),
		cs_internal.rate_of_length(q.rate, span.period_start, span.period_end, 12), cs_internal.rate_of_length(q.rate, span.period_start, span.period_end, 1),
		CASE WHEN q.counts THEN rank() OVER (PARTITION BY q.counts ORDER BY q.rate DESC) END
	FROM enough q
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
	time_zone text, period_edge text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz,
	current_attributes boolean, month_rate numeric, annual_rate numeric)
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
	basis text;
BEGIN
	SELECT * INTO span FROM cs_internal.period('this month', seen_at);     -- says so where setup is missing
	PERFORM cs_internal.must_be_word('grain', grain, '{day,week,month,quarter,year}');
	SELECT * INTO choice FROM cs_internal.churn_choice(p_method, NULL);
	SELECT * INTO part FROM cs_internal.find_part(p_segment);
	basis := cs_internal.basis_of(part.dimension);
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
	)
	SELECT span.labels[i.n], t.numerator, t.denominator, t.rate,
		cs_internal.wilson(t.k, t.n, p.confidence::float8, false)::numeric(18,9),
		cs_internal.wilson(t.k, t.n, p.confidence::float8, true)::numeric(18,9),
		i.starts, least(i.stops, seen_at), part.dimension || ':' || part.segment, choice.method, choice.unit,
		p.time_zone, p.period_edge, p.version, basis, i.stops <= seen_at, seen_at, cs_internal.today_stands_in(part.dimension, i.starts, basis),
		cs_internal.rate_of_length(t.rate, i.starts, least(i.stops, seen_at), 12), cs_internal.rate_of_length(t.rate, i.starts, least(i.stops, seen_at), 1)
	FROM item i
	JOIN cs_internal.churn_spans(span.bounds, least(span.ends, seen_at), choice.method, choice.unit, part.dimension, part.segment, basis) t ON t.period_no = i.n
	CROSS JOIN cs.policy p
	ORDER BY i.n;
END $$;
COMMENT ON FUNCTION cs_internal.churn_series(timestamptz, timestamptz, text, text, text) IS 'See cs.churn_series.';

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
	time_zone text, period_edge text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz,
	current_attributes boolean, month_rate numeric, annual_rate numeric)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.churn(text, text, text, text, text) IS
'Churn in a period, one row. Method snapshot: of the customers active at the start, those not active at the end; event_of_start: those of them with a churn in the period; event_over_start: all churns in the period over the customers at the start; rolling_base: over those and the new ones; daily_sum: snapshot of each local day, rates added up (denominator NULL); eligible_base: of the customers whose term ended in the period, those not active at its end; activity: of the customers with a usage event in the policy.inactivity_days local days before the start, those without one before the end. Unit logo counts customers, gross_mrr is churn and contraction over MRR at the start, net_mrr takes expansion and reactivation off, seats is gross_mrr of seats; net between the bounds (snapshot, of each day for daily_sum, from the end of the term for eligible_base; activity: all that a customer who stopped had) or by the movements (the others). rate is NULL with an empty base; ci_low and ci_high (Wilson, policy.confidence) only for logo by snapshot, event_of_start, eligible_base and activity. A running period ends at as_of (default now; text is read in the policy''s time zone), complete = false. A segment (''tier:enterprise'', ''tier:(none)'' for who is in none, or a name that one dimension has) is who was in it at the start, by policy.segment_basis: restated (the rules of today over the state of then) or stored (as kept then); segment_basis says which, NULL without a segment, and current_attributes whether today''s attributes, name, owner or parent stood in for those of then, which are not kept. month_rate and annual_rate are what the rate comes to in a month of 365 / 12 days and in a year of 365: 1 - (1 - rate)^(their days / local days of the period); NULL where more than all was lost.';

CREATE FUNCTION cs.churn_customers(period text, segment text DEFAULT NULL, method text DEFAULT NULL, unit text DEFAULT NULL)
RETURNS TABLE (
	customer_id text, name text, segment text, part text, in_numerator boolean, in_denominator boolean,
	mrr_start numeric, mrr_end numeric, churned_at timestamptz, churn_kind text, reason text,
	churn_mrr numeric, contraction_mrr numeric, expansion_mrr numeric, reactivation_mrr numeric, new_mrr numeric, events bigint,
	numerator numeric, denominator numeric)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.churn_customers(text, text, text, text) IS
'Who is behind cs.churn: each customer active at the start or at any instant of the period, and by activity each that used the product. numerator and denominator add up exactly to those of cs.churn in the same unit (denominator NULL by daily_sum). part is churned, retained, left_and_returned, joined, joined_and_left, reactivated, reactivated_and_left, merged, or not_a_customer (usage without a subscription); events is how often the customer counts as lost, in_denominator who is in the base (by daily_sum: of any day). The amounts are MRR per month, net or by the movements as the method has it. churned_at, churn_kind and reason are of the last churn inside the period, NULL without one. segment is the argument in full. With unit seats parts and events are of the seats.';

CREATE FUNCTION cs.churn_by(period text, dimension text, method text DEFAULT NULL, unit text DEFAULT NULL)
RETURNS TABLE (
	segment text, numerator numeric, denominator numeric, rate numeric, ci_low numeric, ci_high numeric,
	transfer_in numeric, transfer_out numeric, period_start timestamptz, period_end timestamptz, dimension text, method text, unit text,
	time_zone text, period_edge text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz,
	current_attributes boolean, month_rate numeric, annual_rate numeric, rank bigint)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.churn_by(text, text, text, text) IS
'Churn in a period by the segments of a dimension: one row a segment, ''(none)'' for who is in none, then ''(total)''. A customer counts where it stood at the start, so numerators and denominators add up to the total; who had no segment then, as most new customers, is in ''(none)''. transfer_in and transfer_out: customers active at the end (unit logo) or their MRR (seats) then, that are in another segment at the end than at the start; both add up to the same. rate and its bounds as in cs.churn, NULL where nobody was there; rank is the place by rate, highest first, of the segments with at least policy.min_n customers in the base, else NULL.';

-- No defaults for since and until: a literal must find the form of text.
CREATE FUNCTION cs.churn_series(since timestamptz, until timestamptz, grain text DEFAULT 'month', segment text DEFAULT NULL, method text DEFAULT NULL)
RETURNS TABLE (
	day date, numerator numeric, denominator numeric, rate numeric, ci_low numeric, ci_high numeric,
	period_start timestamptz, period_end timestamptz, segment text, method text, unit text,
	time_zone text, period_edge text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz,
	current_attributes boolean, month_rate numeric, annual_rate numeric)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.churn_series(timestamptz, timestamptz, text, text, text) IS
'Churn of every period of a grain (day, week, month, quarter, year) that holds an instant of [since, until), whole periods of the policy''s time zone and week_start; each row is what cs.churn says of that period, in the unit of the policy. Periods in which nothing happened are there: rate 0, or NULL where nobody was there. since NULL: from the first movement; until NULL, or later: to the running period, complete = false. day is the first local day of the period.';

-- mrr(at): the balance, by the edge of the policy

CREATE FUNCTION cs.mrr(at timestamptz DEFAULT NULL, segment text DEFAULT NULL)
RETURNS numeric LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.mrr(timestamptz, text) IS
'MRR per month in the policy''s currency at an instant (default now), taken just before it or, with period_edge at, on it; so mrr(start of a period) is its opening. 0 where nobody pays. With a segment: of who is in it then, by policy.segment_basis.';

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
COMMENT ON COLUMN cs.churn_monthly.ci_low IS 'Lower Wilson bound of the rate at policy.confidence; only for customers (unit logo) by snapshot, event_of_start, eligible_base and activity, NULL with an empty base.';
COMMENT ON COLUMN cs.churn_monthly.ci_high IS 'Upper Wilson bound of the rate at policy.confidence; only for customers (unit logo) by snapshot, event_of_start, eligible_base and activity, NULL with an empty base.';
COMMENT ON COLUMN cs.churn_monthly.method IS 'Method of churn: policy.churn_method.';
COMMENT ON COLUMN cs.churn_monthly.unit IS 'What is counted: policy.churn_unit.';
COMMENT ON COLUMN cs.churn_monthly.complete IS 'False for the running month, which is computed up to now.';
COMMENT ON COLUMN cs.churn_monthly.data_through_at IS 'Instant up to which facts were evaluated; NULL before the first refresh.';
COMMENT ON COLUMN cs.churn_monthly.computed_at IS 'When the last refresh was; NULL before the first.';

