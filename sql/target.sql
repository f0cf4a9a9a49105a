
-- ---------------------------------------------------------------------------
-- target: what was set out to be reached, and what was.
-- ---------------------------------------------------------------------------

CREATE TABLE cs.target (
	metric text NOT NULL,
	segment text NOT NULL DEFAULT '(total)',
	period text NOT NULL,
	value numeric NOT NULL,
	enabled boolean NOT NULL DEFAULT true,
	description text,
	PRIMARY KEY (metric, segment, period)
);
SELECT pg_catalog.pg_extension_config_dump('cs.target', '');
COMMENT ON TABLE cs.target IS 'Targets: a number to be reached by a segment in a period. cs.target_attainment shows what was reached.';
COMMENT ON COLUMN cs.target.metric IS
'What is measured: churn_rate, gross_mrr_churn, net_mrr_churn, grr, nrr, mrr, arpa, quick_ratio, renewal_rate, gross_renewal_rate, net_renewal_rate, healthy_renewals, churn_cost, or a metric of cs.metric (its mean over the customers that have it).';
COMMENT ON COLUMN cs.target.segment IS 'dimension:segment, or a name that one dimension has; (total) for all customers.';
COMMENT ON COLUMN cs.target.period IS 'Period word such as 2026-Q4, 2026-10 or this quarter, which moves on with time.';
COMMENT ON COLUMN cs.target.value IS 'The target, in the unit of what is measured: fractions for rates, MRR or cost in the policy''s currency.';
COMMENT ON COLUMN cs.target.enabled IS 'False: the row is as if it were not there.';
COMMENT ON COLUMN cs.target.description IS 'Free text; may be NULL.';

-- What a target can be of, beside metrics, and which way is better.
CREATE FUNCTION cs_internal.target_words() RETURNS TABLE (word text, better text)
LANGUAGE sql IMMUTABLE AS $$
	VALUES ('churn_rate', 'low'), ('gross_mrr_churn', 'low'), ('net_mrr_churn', 'low'), ('grr', 'high'), ('nrr', 'high'), ('mrr', 'high'), ('arpa', 'high'),
		('quick_ratio', 'high'), ('renewal_rate', 'high'), ('gross_renewal_rate', 'high'), ('net_renewal_rate', 'high'), ('healthy_renewals', 'high'), ('churn_cost', 'low')
$$;
COMMENT ON FUNCTION cs_internal.target_words() IS 'Numbers that a target can name, and whether high or low is better.';

CREATE FUNCTION cs_internal.check_target(new jsonb, old jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	n cs.target := jsonb_populate_record(NULL::cs.target, new);
	known text[] := ARRAY(SELECT w.word FROM cs_internal.target_words() w UNION SELECT m.name FROM cs.metric m ORDER BY 1);
BEGIN
	IF new IS NULL THEN
		RETURN;
	END IF;
	IF NOT n.metric = ANY (known) THEN
		RAISE EXCEPTION 'unknown metric "%" of a target', n.metric USING ERRCODE = 'invalid_parameter_value',
			HINT = coalesce('Did you mean "' || cs_internal.nearest(n.metric, known) || '"?', 'Targets are of: ' || array_to_string(known, ', ') || '.');
	END IF;
	IF n.segment <> '(total)' THEN
		PERFORM cs_internal.must_be_segment(n.segment);
	END IF;
	PERFORM cs_internal.whole_period(n.period, cs_internal.now());
	IF n.value IN ('NaN', 'Infinity', '-Infinity') THEN
		RAISE EXCEPTION 'the target of "%" is %', n.metric, n.value USING ERRCODE = 'invalid_parameter_value', HINT = 'Give a number.';
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.check_target(jsonb, jsonb) IS 'Refuses what cs.target must not hold; called by the definition trigger.';

CREATE TRIGGER definition AFTER INSERT OR UPDATE OR DELETE ON cs.target
	FOR EACH ROW EXECUTE FUNCTION cs_internal.definition_trigger();

-- ---- share of healthy renewals --------------------------------------------------

CREATE FUNCTION cs_internal.healthy_renewals(p_period text, p_segment text)
RETURNS TABLE (healthy bigint, renewals bigint, share numeric, healthy_mrr numeric, mrr numeric, share_mrr numeric, unknown bigint, target numeric, attained boolean,
	period_start timestamptz, period_end timestamptz, segment text, as_of timestamptz)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.now();
	span record;
	part record;
	wanted numeric;
BEGIN
	SELECT * INTO span FROM cs_internal.whole_period(coalesce(p_period, 'this quarter'), seen_at);
	SELECT * INTO part FROM cs_internal.find_part(p_segment);
	-- the target of this very word, else of another one that means the same span
	SELECT t.value INTO wanted FROM cs.target t
	CROSS JOIN LATERAL cs_internal.whole_period(t.period, seen_at) w
	WHERE t.enabled AND t.metric = 'healthy_renewals' AND (w.period_start, w.period_end) = (span.period_start, span.period_end)
		AND t.segment IN (coalesce(part.dimension || ':' || part.segment, '(total)'), coalesce(p_segment, '(total)'))
	ORDER BY t.period = p_period DESC, t.segment LIMIT 1;
	RETURN QUERY
	SELECT x.k, x.n, cs_internal.rate(x.k, x.n), x.mk::numeric(20,6), x.m::numeric(20,6), cs_internal.rate(x.mk, x.m), x.u, wanted, cs_internal.rate(x.k, x.n) >= wanted,
		span.period_start, span.period_end, part.dimension || ':' || part.segment, seen_at
	FROM (SELECT count(*) FILTER (WHERE r.band = 'green' AND r.status = 'not_at_risk') AS k, count(*) AS n, count(*) FILTER (WHERE r.band IS NULL) AS u,
			coalesce(sum(r.target_mrr) FILTER (WHERE r.band = 'green' AND r.status = 'not_at_risk'), 0) AS mk, coalesce(sum(r.target_mrr), 0) AS m
		FROM cs_internal.renewals(coalesce(p_period, 'this quarter'), p_segment) r
		WHERE r.status IN ('not_at_risk', 'at_risk', 'overdue')) x;
END $$;
COMMENT ON FUNCTION cs_internal.healthy_renewals(text, text) IS 'See cs.healthy_renewals.';

CREATE FUNCTION cs.healthy_renewals(period text DEFAULT 'this quarter', segment text DEFAULT NULL)
RETURNS TABLE (healthy bigint, renewals bigint, share numeric, healthy_mrr numeric, mrr numeric, share_mrr numeric, unknown bigint, target numeric, attained boolean,
	period_start timestamptz, period_end timestamptz, segment text, as_of timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.healthy_renewals(text, text) IS
'Of the renewals of a period that are open or overdue, how many are healthy: the customer is green now, gave no notice, and it is not overdue; share and, by the MRR due, share_mrr as fractions, NULL where nothing is open. unknown counts those without a band, which are not healthy. target is that of cs.target (metric healthy_renewals) for this period and segment, attained whether share reaches it; NULL without one.';

-- ---- what was reached -------------------------------------------------------------

-- The mean of a metric over who has it: as of the last day bound kept before the end, of a running period as it stands.
CREATE FUNCTION cs_internal.mean_metric(metric text, dimension text, segment text, until timestamptz, running boolean) RETURNS numeric
LANGUAGE sql STABLE AS $$
	WITH bound AS (
		SELECT CASE WHEN NOT running THEN (SELECT max(h.as_of) FROM cs_internal.metric_history h WHERE h.as_of <= until) END AS at
	), value AS (
		SELECT s.customer_id, s."values"[t.slot] AS x FROM cs_internal.state s CROSS JOIN cs_internal.metric_slot t
		WHERE running AND t.metric = mean_metric.metric AND s.active
		UNION ALL
		SELECT h.customer_id, h."values"[t.slot] FROM bound b JOIN cs_internal.metric_history h ON h.as_of = b.at CROSS JOIN cs_internal.metric_slot t
		WHERE NOT running AND t.metric = mean_metric.metric
	)
	SELECT avg(v.x ORDER BY v.customer_id)::numeric(30,9)
	FROM value v
	LEFT JOIN cs_internal.segment_at(mean_metric.dimension, (SELECT coalesce(b.at, until) FROM bound b), cs_internal.basis_of(mean_metric.dimension)) s ON s.customer_id = v.customer_id
	WHERE mean_metric.dimension IS NULL OR coalesce(s.segment, '(none)') = mean_metric.segment
$$;
COMMENT ON FUNCTION cs_internal.mean_metric(text, text, text, timestamptz, boolean) IS 'Mean of a metric over the customers (of a segment) that have a value; NULL where nobody has.';

CREATE FUNCTION cs_internal.target_actual(metric text, segment text, period text) RETURNS numeric
LANGUAGE plpgsql STABLE SET jit = off SET client_min_messages = warning AS $$
DECLARE
	word text := nullif(segment, '(total)');
	span record;
	part record;
BEGIN
	CASE
		WHEN metric = 'churn_rate' THEN
			RETURN (SELECT c.rate FROM cs_internal.churn(period, word, NULL, 'logo', NULL::timestamptz) c);
		WHEN metric IN ('gross_mrr_churn', 'net_mrr_churn', 'grr', 'nrr', 'mrr', 'arpa', 'quick_ratio') THEN
			RETURN (SELECT CASE metric WHEN 'gross_mrr_churn' THEN r.gross_mrr_churn WHEN 'net_mrr_churn' THEN r.net_mrr_churn WHEN 'grr' THEN r.grr WHEN 'nrr' THEN r.nrr
				WHEN 'mrr' THEN r.mrr_end WHEN 'arpa' THEN r.arpa ELSE r.quick_ratio END FROM cs_internal.revenue(period, word, 'ledger') r);
		WHEN metric IN ('renewal_rate', 'gross_renewal_rate', 'net_renewal_rate') THEN
			RETURN (SELECT r.rate FROM cs_internal.renewal_rate(period, word, CASE metric WHEN 'renewal_rate' THEN 'logo' WHEN 'gross_renewal_rate' THEN 'gross_mrr' ELSE 'net_mrr' END) r);
		WHEN metric = 'healthy_renewals' THEN
			RETURN (SELECT h.share FROM cs_internal.healthy_renewals(period, word) h);
		WHEN metric = 'churn_cost' THEN
			RETURN (SELECT c.churn_cost FROM cs_internal.churn_cost(period, word) c);
		ELSE
			SELECT * INTO span FROM cs_internal.period(period, cs_internal.now());
			SELECT * INTO part FROM cs_internal.find_part(word);
			RETURN cs_internal.mean_metric(metric, part.dimension, part.segment, span.period_end, NOT span.complete);
	END CASE;
END $$;
COMMENT ON FUNCTION cs_internal.target_actual(text, text, text) IS 'What a target is measured by: the number of that name for the segment and period.';

CREATE FUNCTION cs_internal.target_attainments()
RETURNS TABLE (metric text, segment text, period text, target numeric, actual numeric, better text, attained boolean, gap numeric,
	period_start timestamptz, period_end timestamptz, complete boolean, error text, data_through_at timestamptz, computed_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
	t record;
	span record;
BEGIN
	PERFORM cs_internal.period('this month', cs_internal.now());        -- says so where setup is missing
	FOR t IN
		SELECT x.*, coalesce(w.better, m.better) AS way, k.last_as_of, k.last_refresh_at
		FROM cs.target x
		LEFT JOIN cs_internal.target_words() w ON w.word = x.metric
		LEFT JOIN cs.metric m ON m.name = x.metric AND w.word IS NULL
		LEFT JOIN cs_internal.clock k ON true
		WHERE x.enabled
		ORDER BY x.metric COLLATE "C", x.segment COLLATE "C", x.period COLLATE "C"
	LOOP
		metric := t.metric; segment := t.segment; period := t.period; target := t.value; better := t.way;
		data_through_at := t.last_as_of; computed_at := t.last_refresh_at;
		actual := NULL; error := NULL; period_start := NULL; period_end := NULL; complete := NULL;
		BEGIN
			SELECT * INTO span FROM cs_internal.whole_period(t.period, cs_internal.now());
			period_start := span.period_start; period_end := span.period_end; complete := span.complete;
			IF span.period_start <= cs_internal.now() OR t.metric = 'healthy_renewals' THEN
				actual := cs_internal.target_actual(t.metric, t.segment, t.period);
			END IF;
		EXCEPTION WHEN data_exception OR feature_not_supported OR undefined_object THEN
			error := SQLERRM;       -- a segment or a metric that is no longer there
		END;
		gap := CASE t.way WHEN 'low' THEN target - actual ELSE actual - target END;
		attained := gap >= 0;
		RETURN NEXT;
	END LOOP;
END $$;
COMMENT ON FUNCTION cs_internal.target_attainments() IS 'See cs.target_attainments.';

CREATE FUNCTION cs.target_attainments()
RETURNS TABLE (metric text, segment text, period text, target numeric, actual numeric, better text, attained boolean, gap numeric,
	period_start timestamptz, period_end timestamptz, complete boolean, error text, data_through_at timestamptz, computed_at timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.target_attainments() IS 'The rows of cs.target_attainment.';

CREATE VIEW cs.target_attainment WITH (security_barrier) AS
SELECT a.metric, a.segment, a.period, a.target::numeric(30,9) AS target, a.actual::numeric(30,9) AS actual, a.better, a.attained, a.gap::numeric(30,9) AS gap,
	a.period_start, a.period_end, a.complete, a.error, a.data_through_at, a.computed_at
FROM cs.target_attainments() a;
COMMENT ON VIEW cs.target_attainment IS 'Each enabled target beside what was reached; a running period as it stands now.';
COMMENT ON COLUMN cs.target_attainment.metric IS 'What is measured: see cs.target.metric.';
COMMENT ON COLUMN cs.target_attainment.segment IS 'The segment; (total): all customers.';
COMMENT ON COLUMN cs.target_attainment.period IS 'The period as the target names it.';
COMMENT ON COLUMN cs.target_attainment.target IS 'The target, in the unit of what is measured.';
COMMENT ON COLUMN cs.target_attainment.actual IS 'What was reached, by the function of that name; a metric: its mean over the customers that have it. NULL where nothing can be measured, and for a period to come.';
COMMENT ON COLUMN cs.target_attainment.better IS 'high: the target is a least value; low: a largest one.';
COMMENT ON COLUMN cs.target_attainment.attained IS 'Whether the target is reached; NULL without actual.';
COMMENT ON COLUMN cs.target_attainment.gap IS 'By how much it is better than the target; negative: what is missing. NULL without actual.';
COMMENT ON COLUMN cs.target_attainment.period_start IS 'Start of the period.';
COMMENT ON COLUMN cs.target_attainment.period_end IS 'End of the period, also of a running one.';
COMMENT ON COLUMN cs.target_attainment.complete IS 'Whether the period is over.';
COMMENT ON COLUMN cs.target_attainment.error IS 'Why it cannot be measured, e.g. a segment that is gone; NULL: it can.';
COMMENT ON COLUMN cs.target_attainment.data_through_at IS 'Facts before this instant are evaluated; NULL before the first refresh.';
COMMENT ON COLUMN cs.target_attainment.computed_at IS 'When the last refresh was; NULL before the first.';
