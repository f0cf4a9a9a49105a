
-- ---------------------------------------------------------------------------
-- revenue: how MRR came from one bound to the other, from the same flows as churn.
-- ---------------------------------------------------------------------------

CREATE FUNCTION cs_internal.revenue(p_period text, p_segment text, p_basis text)
RETURNS TABLE (
	mrr_start numeric, new_mrr numeric, reactivation_mrr numeric, expansion_mrr numeric, contraction_mrr numeric, churn_mrr numeric,
	pause_mrr numeric, resume_mrr numeric, merge_in numeric, merge_out numeric, fx_mrr numeric,
	transfer_in numeric, transfer_out numeric, mrr_end numeric,
	grr numeric, nrr numeric, gross_mrr_churn numeric, net_mrr_churn numeric, quick_ratio numeric, arpa numeric,
	customers_start bigint, customers_end bigint, period_start timestamptz, period_end timestamptz, basis text, currency text,
	segment text, time_zone text, period_edge text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz,
	current_attributes boolean)
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
	PERFORM cs_internal.require_fx_rates();
	RETURN QUERY
	-- flows are of who was in the segment at the start, mrr_end of who is in it at the end
	SELECT t.mrr_start, t.new_mrr, t.reactivation_mrr, t.expansion_mrr, t.contraction_mrr, t.churn_mrr,
		t.pause_mrr, t.resume_mrr, t.merge_in, t.merge_out, t.fx_mrr,
		x.mrr_in::numeric(20,6), x.mrr_out::numeric(20,6), e.mrr::numeric(20,6),
		t.grr, t.nrr, t.gross_mrr_churn, t.net_mrr_churn, t.quick_ratio, (e.mrr / nullif(e.customers, 0))::numeric(20,6),
		t.customers_start, e.customers, span.period_start, span.period_end, chosen, p.currency::text,
		part.dimension || ':' || part.segment, p.time_zone, p.period_edge, p.version,
		placed, span.complete, seen_at, cs_internal.today_stands_in(part.dimension, span.period_start, placed)
	FROM cs_internal.flow_total(ARRAY[span.period_start], span.period_end, chosen = 'endpoints', part.dimension, part.segment, span.period_start, placed) t
	CROSS JOIN LATERAL (
		SELECT coalesce(sum(y.mrr_in), 0), coalesce(sum(y.mrr_out), 0), coalesce(sum(y.customers_in), 0)::bigint, coalesce(sum(y.customers_out), 0)::bigint
		FROM cs_internal.transfer(part.dimension, span.period_start, span.period_end, placed, 'mrr') y
		WHERE part.dimension IS NOT NULL AND y.segment = part.segment) x (mrr_in, mrr_out, customers_in, customers_out)
	CROSS JOIN LATERAL (SELECT t.mrr_end + x.mrr_in - x.mrr_out, t.customers_end + x.customers_in - x.customers_out) e (mrr, customers)
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
	current_attributes boolean)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.revenue(text, text, text) IS
'How MRR went from the start of a period to its end, one row: mrr_end = mrr_start + new + reactivation + expansion + resume + merge_in + transfer_in - contraction - churn - pause - merge_out - transfer_out + fx, all >= 0 but fx (and transfers of customers in credit). Basis ledger adds the movements inside the period up, endpoints nets each customer between the bounds. grr and nrr are of the customers there at the start: what is left of their MRR after losses (by the movements, or net), and with their gains; NULL where mrr_start is 0, as the two MRR churn rates over mrr_start. quick_ratio is (new + expansion) / (churn + contraction), NULL where nothing was lost; arpa is mrr_end / customers_end. Amounts are MRR per month in the policy''s currency, rates fractions. With a segment (''tier:enterprise'', ''tier:(none)''), mrr_start, flows and rates are of who was in it at the start (by policy.segment_basis, as in cs.churn), whatever they are in later; transfer_in and transfer_out are the MRR at the end of who came and went since, so mrr_end, customers_end and arpa are of who is in it at the end, and the segments of a dimension with its (none) add up to the total. Without a segment transfers are 0.';

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
	FROM cs_internal.flow_total(span.bounds, seen_at, p_basis = 'endpoints', NULL, NULL, NULL, NULL) t
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
