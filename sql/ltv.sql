
-- ---------------------------------------------------------------------------
-- ltv: what a customer is worth, by the two ways people do it.
--   trailing   ARPA over the mean churn of six months: needs churn, and takes
--              for granted that it stays as it is
--   survival   ARPA times the restricted mean of the Kaplan-Meier curve: what a
--              customer brings within a horizon, also where nobody churned
-- ---------------------------------------------------------------------------

CREATE FUNCTION cs_internal.ltv(p_period text, p_segment text, p_zero_churn numeric, p_horizon_months integer, p_margin numeric)
RETURNS TABLE (
	arpa numeric, margin numeric, churn numeric, months integer, churn_used numeric, lifetime_months numeric, ltv numeric,
	horizon_months integer, restricted_mean_months numeric, ltv_survival numeric, median_months numeric, active_periods bigint,
	period_start timestamptz, period_end timestamptz, segment text, currency text,
	time_zone text, period_edge text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	r record;
	part record;
	share numeric := coalesce(p_margin, 1);
	horizon integer := coalesce(p_horizon_months, 36);
	estimate cs.km_estimate;
	month_days float8 := 365 / 12.0;
	mean float8;
BEGIN
	IF NOT (p_zero_churn > 0 AND p_zero_churn <= 1) THEN
		RAISE EXCEPTION 'zero_churn must be more than 0 and at most 1, not %', p_zero_churn USING ERRCODE = 'invalid_parameter_value',
			HINT = 'It is the monthly churn taken where nobody left, for example 0.0167; leave it out for no LTV there.';
	END IF;
	IF horizon NOT BETWEEN 1 AND 1200 THEN
		RAISE EXCEPTION 'horizon_months must be from 1 to 1200, not %', horizon USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF NOT (share > 0 AND share <= 1) THEN
		RAISE EXCEPTION 'margin must be more than 0 and at most 1, not %', share USING ERRCODE = 'invalid_parameter_value',
			HINT = 'It is the gross margin as a fraction: 0.8 is 80 %.';
	END IF;
	SELECT * INTO r FROM cs_internal.revenue(p_period, p_segment, 'ledger');
	SELECT * INTO part FROM cs_internal.find_part(p_segment);
	-- active periods as they stood at the end; of a segment, of who is in it then
	estimate := (SELECT cs.km(s.days, s.churned)
	FROM cs.policy p
	CROSS JOIN LATERAL cs_internal.active_stretch(p.gap_days_tenure, r.period_end) s
	LEFT JOIN cs_internal.segment_at(part.dimension, r.period_end, r.segment_basis) m ON m.customer_id = s.customer_id
	WHERE part.dimension IS NULL OR coalesce(m.segment, '(none)') = part.segment);
	-- beyond what was seen the curve is not known: NULL, and a shorter horizon helps
	mean := cs.restricted_mean(estimate, horizon * month_days) / month_days;
	RETURN QUERY
	SELECT r.arpa, share, r.ltv_churn, r.ltv_months, u.used, (1 / u.used)::numeric(20,6), (r.arpa * share / u.used)::numeric(20,6),
		horizon, mean::numeric(20,6), (r.arpa * share * mean::numeric)::numeric(20,6), (cs.median(estimate) / month_days)::numeric(20,6), coalesce((estimate).n, 0),
		r.period_start, r.period_end, r.segment, r.currency, r.time_zone, r.period_edge, r.policy_version, r.segment_basis, r.complete, r.as_of
	FROM (SELECT CASE WHEN r.ltv_churn = 0 THEN p_zero_churn ELSE r.ltv_churn END) u (used);
END $$;
COMMENT ON FUNCTION cs_internal.ltv(text, text, numeric, integer, numeric) IS 'See cs.ltv.';

CREATE FUNCTION cs.ltv(period text, segment text DEFAULT NULL, zero_churn numeric DEFAULT NULL, horizon_months integer DEFAULT 36, margin numeric DEFAULT 1)
RETURNS TABLE (
	arpa numeric, margin numeric, churn numeric, months integer, churn_used numeric, lifetime_months numeric, ltv numeric,
	horizon_months integer, restricted_mean_months numeric, ltv_survival numeric, median_months numeric, active_periods bigint,
	period_start timestamptz, period_end timestamptz, segment text, currency text,
	time_zone text, period_edge text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.ltv(text, text, numeric, integer, numeric) IS
'Lifetime value of a customer at the end of a period, one row, two ways. ltv = arpa * margin / churn_used: churn is the mean monthly logo churn (snapshot) of the six whole months before that of the period''s end, months of which had customers. Where nobody left in them there is no such lifetime: churn_used is zero_churn (Stripe takes 0.0167), and without it lifetime_months and ltv are NULL. ltv_survival = arpa * margin * restricted_mean_months: the mean time that active periods last within the first horizon_months (of 365 / 12 days) by Kaplan-Meier, those that run at the end censored; it needs no churn, and is NULL where no period was seen that long. median_months is when half of them are over, NULL where more than half stay. active_periods is how many were looked at; of a segment, those of who is in it at the end. Amounts in currency.';
