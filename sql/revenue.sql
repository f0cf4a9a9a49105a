
-- ---------------------------------------------------------------------------
-- revenue: how MRR came from one bound to the other, from the same flows as churn.
-- ---------------------------------------------------------------------------

-- The mean logo churn (snapshot) of the six whole months before the one in which
-- a period ends; months without a base are left out. One row a segment, or one
-- without a dimension. A segment is who was in it at the start of each month.
CREATE FUNCTION cs_internal.trailing_churn(t1 timestamptz, dimension text, segment text, basis text)
RETURNS TABLE (in_segment text, churn numeric, months integer)
LANGUAGE sql STABLE AS $$
	SELECT t.in_segment, avg(t.rate)::numeric(18,9), count(t.rate)::integer
	FROM cs.policy p
	CROSS JOIN LATERAL (SELECT date_trunc('month', (t1 - interval '1 microsecond') AT TIME ZONE p.time_zone) AS this_month) m
	CROSS JOIN LATERAL generate_series(1, 6) k
	CROSS JOIN LATERAL (SELECT (m.this_month - make_interval(months => k)) AT TIME ZONE p.time_zone,
		(m.this_month - make_interval(months => k - 1)) AT TIME ZONE p.time_zone) b (starts, stops)
	CROSS JOIN LATERAL cs_internal.churn_total(ARRAY[b.starts], b.stops, 'snapshot', 'logo', dimension, segment, b.starts, basis) t
	GROUP BY t.in_segment
$$;
COMMENT ON FUNCTION cs_internal.trailing_churn(timestamptz, text, text, text) IS
'Mean monthly logo churn of the six whole months before that of an instant''s, and how many had a base; NULL without any.';

CREATE FUNCTION cs_internal.revenue(p_period text, p_segment text, p_basis text)
RETURNS TABLE (
	mrr_start numeric, new_mrr numeric, reactivation_mrr numeric, expansion_mrr numeric, contraction_mrr numeric, churn_mrr numeric,
	pause_mrr numeric, resume_mrr numeric, merge_in numeric, merge_out numeric, fx_mrr numeric,
	transfer_in numeric, transfer_out numeric, mrr_end numeric,
	grr numeric, nrr numeric, gross_mrr_churn numeric, net_mrr_churn numeric, quick_ratio numeric, arpa numeric,
	customers_start bigint, customers_end bigint, period_start timestamptz, period_end timestamptz, basis text, currency text,
	segment text, time_zone text, period_edge text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz,
	current_attributes boolean, ltv numeric, ltv_churn numeric, ltv_months integer)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.now();
	span record;
	chosen text := coalesce(p_basis, 'ledger');
	part record;
	placed text;
BEGIN
	SELECT * INTO span FROM cs_internal.period(p_period, seen_at);
	PERFORM cs_internal.must_be_word('basis of revenue', chosen, '{ledger,endpoints}');
	SELECT * INTO part FROM cs_internal.find_part(p_segment);
	placed := cs_internal.basis_of(part.dimension);
	PERFORM cs_internal.note_stored_since(part.dimension, span.period_start);
	PERFORM cs_internal.note_history_from(span.period_start);
	PERFORM cs_internal.require_fx_rates();
	RETURN QUERY
	-- flows are of who was in the segment at the start, mrr_end of who is in it at the end
	SELECT t.mrr_start, t.new_mrr, t.reactivation_mrr, t.expansion_mrr, t.contraction_mrr, t.churn_mrr,
		t.pause_mrr, t.resume_mrr, t.merge_in, t.merge_out, t.fx_mrr,
		x.mrr_in::numeric(20,6), x.mrr_out::numeric(20,6), e.mrr::numeric(20,6),
		t.grr, t.nrr, t.gross_mrr_churn, t.net_mrr_churn, t.quick_ratio, (e.mrr / nullif(e.customers, 0))::numeric(20,6),
		e.at_start, e.customers, span.period_start, span.period_end, chosen, p.currency::text,
		part.dimension || ':' || part.segment, p.time_zone, p.period_edge, p.version,
		placed, span.complete, seen_at, cs_internal.today_stands_in(part.dimension, span.period_start, placed),
		(e.mrr / nullif(e.customers, 0) / nullif(l.churn, 0))::numeric(20,6), l.churn, coalesce(l.months, 0)
	FROM cs_internal.flow_total(ARRAY[span.period_start], span.period_end, chosen = 'endpoints', part.dimension, part.segment, span.period_start, placed) t
	CROSS JOIN LATERAL (
		SELECT coalesce(sum(y.mrr_in), 0), coalesce(sum(y.mrr_out), 0), coalesce(sum(y.customers_in), 0)::bigint, coalesce(sum(y.customers_out), 0)::bigint
		FROM cs_internal.transfer(part.dimension, span.period_start, span.period_end, placed, 'mrr') y
		WHERE part.dimension IS NOT NULL AND y.segment = part.segment) x (mrr_in, mrr_out, customers_in, customers_out)
	LEFT JOIN cs_internal.logos_between(span.period_start, span.period_end, part.dimension, part.segment, placed) g ON true
	CROSS JOIN LATERAL (SELECT t.mrr_end + x.mrr_in - x.mrr_out, coalesce(g.customers_start, t.customers_start),
		coalesce(g.customers_end, t.customers_end + x.customers_in - x.customers_out)) e (mrr, at_start, customers)
	LEFT JOIN cs_internal.trailing_churn(span.period_end, part.dimension, part.segment, placed) l ON true
	CROSS JOIN cs.policy p;
END $$;
COMMENT ON FUNCTION cs_internal.revenue(text, text, text) IS 'See cs.revenue.';

CREATE FUNCTION cs.revenue(period text, segment text DEFAULT NULL, basis text DEFAULT 'ledger')
RETURNS TABLE (
	mrr_start numeric, new_mrr numeric, reactivation_mrr numeric, expansion_mrr numeric, contraction_mrr numeric, churn_mrr numeric,
	pause_mrr numeric, resume_mrr numeric, merge_in numeric, merge_out numeric, fx_mrr numeric,
	transfer_in numeric, transfer_out numeric, mrr_end numeric,
	grr numeric, nrr numeric, gross_mrr_churn numeric, net_mrr_churn numeric, quick_ratio numeric, arpa numeric,
	customers_start bigint, customers_end bigint, period_start timestamptz, period_end timestamptz, basis text, currency text,
	segment text, time_zone text, period_edge text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz,
	current_attributes boolean, ltv numeric, ltv_churn numeric, ltv_months integer)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.revenue(text, text, text) IS
'How MRR went from the start of a period to its end, one row: mrr_end = mrr_start + new + reactivation + expansion + resume + merge_in + transfer_in - contraction - churn - pause - merge_out - transfer_out + fx, all >= 0 but fx (and transfers of customers in credit). Basis ledger adds the movements inside the period up, endpoints nets each customer between the bounds. grr and nrr are of the customers there at the start: what is left of their MRR after losses (by the movements, or net), and with their gains; NULL where mrr_start is 0, as the two MRR churn rates over mrr_start. quick_ratio is (new + expansion) / (churn + contraction), NULL where nothing was lost; arpa is mrr_end / customers_end. ltv is arpa / ltv_churn, the mean monthly logo churn (snapshot) of the six whole months before the one in which the period ends (ltv_months of them had customers); NULL where nobody left in them: a lifetime without end is no number (cs.ltv has other rules). Amounts are MRR per month in the policy''s currency, rates fractions. With a segment (''tier:enterprise'', ''tier:(none)''), mrr_start, flows and rates are of who was in it at the start (by policy.segment_basis, as in cs.churn), whatever they are in later; transfer_in and transfer_out are the MRR at the end of who came and went since, so mrr_end, customers_end and arpa are of who is in it at the end, and the segments of a dimension with its (none) add up to the total. Without a segment transfers are 0.';

-- All segments of a dimension in one pass over the movements, and their sum.
CREATE FUNCTION cs_internal.revenue_by(p_period text, p_dimension text, p_basis text)
RETURNS TABLE (
	segment text, mrr_start numeric, new_mrr numeric, reactivation_mrr numeric, expansion_mrr numeric, contraction_mrr numeric, churn_mrr numeric,
	pause_mrr numeric, resume_mrr numeric, merge_in numeric, merge_out numeric, fx_mrr numeric,
	transfer_in numeric, transfer_out numeric, mrr_end numeric,
	grr numeric, nrr numeric, gross_mrr_churn numeric, net_mrr_churn numeric, quick_ratio numeric, arpa numeric,
	customers_start bigint, customers_end bigint, period_start timestamptz, period_end timestamptz, basis text, currency text,
	dimension text, time_zone text, period_edge text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz,
	current_attributes boolean, ltv numeric, ltv_churn numeric, ltv_months integer)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.now();
	span record;
	chosen text := coalesce(p_basis, 'ledger');
	placed text;
	by_account boolean := cs_internal.measure_of('logo') = 'logo';
BEGIN
	SELECT * INTO span FROM cs_internal.period(p_period, seen_at);
	PERFORM cs_internal.must_be_word('basis of revenue', chosen, '{ledger,endpoints}');
	PERFORM cs_internal.must_be_dimension(p_dimension);
	placed := cs_internal.basis_of(p_dimension);
	PERFORM cs_internal.note_stored_since(p_dimension, span.period_start);
	PERFORM cs_internal.require_fx_rates();
	RETURN QUERY
	WITH flow AS MATERIALIZED (
		SELECT f.in_segment,
			sum(f.active_end::integer - f.active_start::integer) FILTER (WHERE f.period_no = 0) AS n0,
			sum(f.active_end::integer - f.active_start::integer) AS n1,
			coalesce(sum(f.mrr_end - f.mrr_start) FILTER (WHERE f.period_no = 0), 0) AS m0,
			sum(f.mrr_end - f.mrr_start) AS m1,
			coalesce(sum(f.new_mrr) FILTER (WHERE f.period_no = 1), 0) AS new_mrr,
			coalesce(sum(f.reactivation_mrr) FILTER (WHERE f.period_no = 1), 0) AS reactivation_mrr,
			coalesce(sum(f.expansion_mrr) FILTER (WHERE f.period_no = 1), 0) AS expansion_mrr,
			coalesce(sum(f.contraction_mrr) FILTER (WHERE f.period_no = 1), 0) AS contraction_mrr,
			coalesce(sum(f.churn_mrr) FILTER (WHERE f.period_no = 1), 0) AS churn_mrr,
			coalesce(sum(f.pause_mrr) FILTER (WHERE f.period_no = 1), 0) AS pause_mrr,
			coalesce(sum(f.resume_mrr) FILTER (WHERE f.period_no = 1), 0) AS resume_mrr,
			coalesce(sum(f.merge_in) FILTER (WHERE f.period_no = 1), 0) AS merge_in,
			coalesce(sum(f.merge_out) FILTER (WHERE f.period_no = 1), 0) AS merge_out,
			coalesce(sum(f.fx_mrr) FILTER (WHERE f.period_no = 1), 0) AS fx_mrr,
			coalesce(sum(f.mrr_start - f.retained_mrr) FILTER (WHERE f.period_no = 1 AND f.active_start), 0) AS lost,
			coalesce(sum(f.mrr_end - f.mrr_start) FILTER (WHERE f.period_no = 1 AND f.active_start AND (f.paid_before OR f.mrr_start > 0)), 0) AS net
		FROM cs_internal.customer_flow(ARRAY[span.period_start], span.period_end, chosen = 'endpoints', p_dimension, NULL, span.period_start, placed, 'mrr') f
		GROUP BY f.in_segment
	), moved AS MATERIALIZED (
		SELECT x.* FROM cs_internal.transfer(p_dimension, span.period_start, span.period_end, placed, 'mrr') x
	), trail AS MATERIALIZED (
		SELECT l.* FROM cs_internal.trailing_churn(span.period_end, p_dimension, NULL, placed) l
	), counted AS MATERIALIZED (
		SELECT g.* FROM cs_internal.logos_between(span.period_start, span.period_end, p_dimension, NULL, placed) g
	), part AS (
		SELECT k.name, CASE WHEN k.name = '(none)' THEN 1 ELSE 0 END AS place,
			coalesce(f.m0, 0) AS m0, coalesce(f.new_mrr, 0) AS new_mrr, coalesce(f.reactivation_mrr, 0) AS reactivation_mrr,
			coalesce(f.expansion_mrr, 0) AS expansion_mrr, coalesce(f.contraction_mrr, 0) AS contraction_mrr, coalesce(f.churn_mrr, 0) AS churn_mrr,
			coalesce(f.pause_mrr, 0) AS pause_mrr, coalesce(f.resume_mrr, 0) AS resume_mrr, coalesce(f.merge_in, 0) AS merge_in,
			coalesce(f.merge_out, 0) AS merge_out, coalesce(f.fx_mrr, 0) AS fx_mrr,
			coalesce(x.mrr_in, 0) AS mrr_in, coalesce(x.mrr_out, 0) AS mrr_out,
			coalesce(f.m1, 0) + coalesce(x.mrr_in, 0) - coalesce(x.mrr_out, 0) AS m1,
			coalesce(f.lost, 0) AS lost, coalesce(f.net, 0) AS net,
			CASE WHEN by_account THEN coalesce(g.customers_start, 0) ELSE coalesce(f.n0, 0) END AS n0,
			CASE WHEN by_account THEN coalesce(g.customers_end, 0)
				ELSE coalesce(f.n1, 0) + coalesce(x.customers_in, 0) - coalesce(x.customers_out, 0) END AS n1, l.churn, l.months
		FROM (
			SELECT s.name FROM cs_internal.known_segment(p_dimension, span.period_start, span.period_end, placed) s (name)
			UNION SELECT c.in_segment FROM flow c
			UNION SELECT m.segment FROM moved m
		) k
		LEFT JOIN flow f ON f.in_segment = k.name
		LEFT JOIN counted g ON g.in_segment = k.name
		LEFT JOIN moved x ON x.segment = k.name
		LEFT JOIN trail l ON l.in_segment = k.name
	)
	SELECT q.name, q.m0::numeric(20,6), q.new_mrr::numeric(20,6), q.reactivation_mrr::numeric(20,6), q.expansion_mrr::numeric(20,6), q.contraction_mrr::numeric(20,6),
		q.churn_mrr::numeric(20,6), q.pause_mrr::numeric(20,6), q.resume_mrr::numeric(20,6), q.merge_in::numeric(20,6), q.merge_out::numeric(20,6), q.fx_mrr::numeric(20,6),
		q.mrr_in::numeric(20,6), q.mrr_out::numeric(20,6), q.m1::numeric(20,6),
		cs_internal.rate(q.m0 - q.lost, q.m0), cs_internal.rate(q.m0 + q.net, q.m0), cs_internal.rate(q.churn_mrr + q.contraction_mrr, q.m0),
		cs_internal.rate(q.churn_mrr + q.contraction_mrr - q.expansion_mrr - q.reactivation_mrr, q.m0),
		((q.new_mrr + q.expansion_mrr) / nullif(q.churn_mrr + q.contraction_mrr, 0))::numeric(30,9), (q.m1 / nullif(q.n1, 0))::numeric(20,6),
		q.n0::bigint, q.n1::bigint, span.period_start, span.period_end, chosen, p.currency::text, p_dimension,
		p.time_zone, p.period_edge, p.version, placed, span.complete, seen_at, cs_internal.today_stands_in(p_dimension, span.period_start, placed),
		(q.m1 / nullif(q.n1, 0) / nullif(q.churn, 0))::numeric(20,6), q.churn, coalesce(q.months, 0)
	FROM (
		SELECT * FROM part
		UNION ALL
		SELECT '(total)', 2, sum(t.m0), sum(t.new_mrr), sum(t.reactivation_mrr), sum(t.expansion_mrr), sum(t.contraction_mrr), sum(t.churn_mrr),
			sum(t.pause_mrr), sum(t.resume_mrr), sum(t.merge_in), sum(t.merge_out), sum(t.fx_mrr), 0, 0, sum(t.m1), sum(t.lost), sum(t.net),
			sum(t.n0), sum(t.n1), l.churn, l.months
		FROM part t
		CROSS JOIN (SELECT max(x.churn), max(x.months) FROM cs_internal.trailing_churn(span.period_end, NULL, NULL, NULL) x) l (churn, months)
		GROUP BY l.churn, l.months
	) q
	CROSS JOIN cs.policy p
	ORDER BY q.place, q.name COLLATE "C";
END $$;
COMMENT ON FUNCTION cs_internal.revenue_by(text, text, text) IS 'See cs.revenue_by.';

CREATE FUNCTION cs.revenue_by(period text, dimension text, basis text DEFAULT 'ledger')
RETURNS TABLE (
	segment text, mrr_start numeric, new_mrr numeric, reactivation_mrr numeric, expansion_mrr numeric, contraction_mrr numeric, churn_mrr numeric,
	pause_mrr numeric, resume_mrr numeric, merge_in numeric, merge_out numeric, fx_mrr numeric,
	transfer_in numeric, transfer_out numeric, mrr_end numeric,
	grr numeric, nrr numeric, gross_mrr_churn numeric, net_mrr_churn numeric, quick_ratio numeric, arpa numeric,
	customers_start bigint, customers_end bigint, period_start timestamptz, period_end timestamptz, basis text, currency text,
	dimension text, time_zone text, period_edge text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz,
	current_attributes boolean, ltv numeric, ltv_churn numeric, ltv_months integer)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.revenue_by(text, text, text) IS
'Revenue in a period by the segments of a dimension: one row a segment, ''(none)'' for who is in none, then ''(total)''; each row is what cs.revenue says of that segment. mrr_start, flows and rates are of who was in it at the start (by policy.segment_basis), transfer_in and transfer_out the MRR at the end of who came and went since, so that mrr_end is of who is in it at the end and amounts add up to the total.';

CREATE FUNCTION cs_internal.revenue_months(p_basis text)
RETURNS TABLE (
	month date, basis text,
	mrr_start numeric, new_mrr numeric, reactivation_mrr numeric, expansion_mrr numeric, contraction_mrr numeric, churn_mrr numeric,
	pause_mrr numeric, resume_mrr numeric, merge_in numeric, merge_out numeric, fx_mrr numeric, mrr_end numeric,
	grr numeric, nrr numeric, gross_mrr_churn numeric, net_mrr_churn numeric, quick_ratio numeric, arpa numeric,
	customers_start bigint, customers_end bigint, currency text,
	complete boolean, data_through_at timestamptz, computed_at timestamptz)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.now();
	span record;
BEGIN
	SELECT * INTO span FROM cs_internal.period('this month', seen_at);
	PERFORM cs_internal.must_be_word('basis of revenue', p_basis, '{ledger,endpoints}');
	PERFORM cs_internal.require_fx_rates();
	SELECT * INTO span FROM cs_internal.month_bound(seen_at);
	IF span.bounds IS NULL THEN
		RETURN;
	END IF;
	RETURN QUERY
	SELECT span.months[t.period_no], p_basis,
		t.mrr_start, t.new_mrr, t.reactivation_mrr, t.expansion_mrr, t.contraction_mrr, t.churn_mrr,
		t.pause_mrr, t.resume_mrr, t.merge_in, t.merge_out, t.fx_mrr, t.mrr_end,
		t.grr, t.nrr, t.gross_mrr_churn, t.net_mrr_churn, t.quick_ratio, (t.mrr_end / nullif(t.customers_end, 0))::numeric(20,6), t.customers_start, t.customers_end, p.currency::text,
		t.period_no < cardinality(span.bounds), c.last_as_of, c.last_refresh_at
	FROM cs_internal.revenue_periods(span.bounds || seen_at, NULL, p_basis = 'endpoints') t
	CROSS JOIN cs.policy p
	LEFT JOIN cs_internal.clock c ON true
	ORDER BY t.period_no;
END $$;
COMMENT ON FUNCTION cs_internal.revenue_months(text) IS 'See cs.revenue_months.';

CREATE FUNCTION cs.revenue_months(basis text DEFAULT 'ledger')
RETURNS TABLE (
	month date, basis text,
	mrr_start numeric, new_mrr numeric, reactivation_mrr numeric, expansion_mrr numeric, contraction_mrr numeric, churn_mrr numeric,
	pause_mrr numeric, resume_mrr numeric, merge_in numeric, merge_out numeric, fx_mrr numeric, mrr_end numeric,
	grr numeric, nrr numeric, gross_mrr_churn numeric, net_mrr_churn numeric, quick_ratio numeric, arpa numeric,
	customers_start bigint, customers_end bigint, currency text,
	complete boolean, data_through_at timestamptz, computed_at timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.revenue_months(text) IS 'The rows of cs.revenue_monthly, of basis ledger or endpoints.';

CREATE VIEW cs.revenue_monthly WITH (security_barrier) AS
SELECT r.month,
	r.mrr_start::numeric(20,6) AS mrr_start, r.new_mrr::numeric(20,6) AS new_mrr,
	r.reactivation_mrr::numeric(20,6) AS reactivation_mrr, r.expansion_mrr::numeric(20,6) AS expansion_mrr,
	r.contraction_mrr::numeric(20,6) AS contraction_mrr, r.churn_mrr::numeric(20,6) AS churn_mrr,
	r.pause_mrr::numeric(20,6) AS pause_mrr, r.resume_mrr::numeric(20,6) AS resume_mrr,
	r.merge_in::numeric(20,6) AS merge_in, r.merge_out::numeric(20,6) AS merge_out, r.fx_mrr::numeric(20,6) AS fx_mrr,
	r.mrr_end::numeric(20,6) AS mrr_end,
	r.grr::numeric(18,9) AS grr, r.nrr::numeric(18,9) AS nrr,
	r.gross_mrr_churn::numeric(18,9) AS gross_mrr_churn, r.net_mrr_churn::numeric(18,9) AS net_mrr_churn,
	r.quick_ratio::numeric(30,9) AS quick_ratio, r.arpa::numeric(20,6) AS arpa,
	r.customers_start, r.customers_end, r.currency, r.complete, r.data_through_at, r.computed_at
FROM cs.revenue_months('ledger') r;
COMMENT ON VIEW cs.revenue_monthly IS
'MRR and its movements in every month from the first movement to the running one; each row is what cs.revenue says of that month (basis ledger). Amounts are MRR per month in the policy''s currency.';
COMMENT ON COLUMN cs.revenue_monthly.month IS 'First day of the month, which is cut in the policy''s time zone.';
COMMENT ON COLUMN cs.revenue_monthly.mrr_start IS 'MRR at the start of the month: mrr_end of the month before.';
COMMENT ON COLUMN cs.revenue_monthly.new_mrr IS 'MRR of customers that never paid before.';
COMMENT ON COLUMN cs.revenue_monthly.reactivation_mrr IS 'MRR of customers that came back after a churn.';
COMMENT ON COLUMN cs.revenue_monthly.expansion_mrr IS 'Increases of customers that were active.';
COMMENT ON COLUMN cs.revenue_monthly.contraction_mrr IS 'Decreases of customers that stayed active; >= 0.';
COMMENT ON COLUMN cs.revenue_monthly.churn_mrr IS 'MRR lost with customers that stopped being active; >= 0.';
COMMENT ON COLUMN cs.revenue_monthly.pause_mrr IS 'MRR put on hold by pauses, neither churn nor contraction; >= 0.';
COMMENT ON COLUMN cs.revenue_monthly.resume_mrr IS 'MRR back from pauses.';
COMMENT ON COLUMN cs.revenue_monthly.merge_in IS 'MRR that came with merged customers.';
COMMENT ON COLUMN cs.revenue_monthly.merge_out IS 'MRR that went with merged customers; >= 0.';
COMMENT ON COLUMN cs.revenue_monthly.fx_mrr IS 'Change by exchange rates alone; of either sign.';
COMMENT ON COLUMN cs.revenue_monthly.mrr_end IS 'MRR at the end: mrr_start + new + reactivation + expansion + resume + merge_in - contraction - churn - pause - merge_out + fx.';
COMMENT ON COLUMN cs.revenue_monthly.grr IS 'Gross revenue retention, a fraction from 0 to 1: of mrr_start, what is left after losses; NULL where mrr_start is 0.';
COMMENT ON COLUMN cs.revenue_monthly.nrr IS 'Net revenue retention, a fraction: MRR at the end of the customers there at the start, over mrr_start; NULL where that is 0.';
COMMENT ON COLUMN cs.revenue_monthly.gross_mrr_churn IS '(churn + contraction) / mrr_start; NULL where mrr_start is 0.';
COMMENT ON COLUMN cs.revenue_monthly.net_mrr_churn IS '(churn + contraction - expansion - reactivation) / mrr_start, can be negative; NULL where mrr_start is 0.';
COMMENT ON COLUMN cs.revenue_monthly.quick_ratio IS '(new + expansion) / (churn + contraction); NULL where nothing was lost.';
COMMENT ON COLUMN cs.revenue_monthly.arpa IS 'MRR per active customer at the end: mrr_end / customers_end; NULL without customers.';
COMMENT ON COLUMN cs.revenue_monthly.customers_start IS 'Active customers at the start.';
COMMENT ON COLUMN cs.revenue_monthly.customers_end IS 'Active customers at the end.';
COMMENT ON COLUMN cs.revenue_monthly.currency IS 'Currency of the amounts: policy.currency.';
COMMENT ON COLUMN cs.revenue_monthly.complete IS 'False for the running month, which is computed up to now.';
COMMENT ON COLUMN cs.revenue_monthly.data_through_at IS 'Instant up to which facts were evaluated; NULL before the first refresh.';
COMMENT ON COLUMN cs.revenue_monthly.computed_at IS 'When the last refresh was; NULL before the first.';
