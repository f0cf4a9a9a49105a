-- Worked examples of churn and MRR from published documents: inputs and numbers of
-- oracles/worked_cases_shared.json, each with the call that its definition asks for.
BEGIN;
SELECT plan(27);

CREATE ROLE regress_worked_run NOLOGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL cs_ext.now = '2026-06-15 12:00+00';
INSERT INTO cs.policy (run_as, time_zone, currency) VALUES ('regress_worked_run', 'UTC', 'USD');

CREATE TEMP TABLE worked AS
SELECT c ->> 'id' AS id, c -> 'inputs' AS inputs, c -> 'exact' AS exact, c -> 'expected' AS expected FROM jsonb_array_elements(pg_read_file(:'testdata' || '/oracles/worked_cases_shared.json')::jsonb) c;

-- The ledger of a case whose inputs are subscriptions; a row with n stands for n customers.
CREATE FUNCTION pg_temp.load(facts jsonb) RETURNS bigint LANGUAGE sql AS $$
	DELETE FROM cs_internal.movement;
	INSERT INTO cs_internal.movement (customer_id, at, seq, kind, delta, mrr_after, active_after)
	SELECT r.customer_id, m.at, m.seq, m.kind, m.delta, m.mrr_after, m.active_after
	FROM (
		SELECT coalesce(x ->> 'account', format('%s of %s', n, x)) AS customer_id,
			array_agg(jsonb_populate_record(NULL::cs_internal.subscription_fact, jsonb_build_object('start_at', x ->> 'start', 'end_at', x ->> 'end', 'mrr', x -> 'mrr'))) AS facts
		FROM jsonb_array_elements($1) x CROSS JOIN LATERAL generate_series(1, coalesce((x ->> 'n')::integer, 1)) n
		GROUP BY 1
	) r
	CROSS JOIN LATERAL cs_internal.ledger_sweep(r.facts) m;
	SELECT count(*) FROM cs_internal.movement;
$$;
CREATE FUNCTION pg_temp.open(id text) RETURNS boolean LANGUAGE sql AS $$ SELECT pg_temp.load(w.inputs) > 0 FROM worked w WHERE w.id = $1 $$;
CREATE FUNCTION pg_temp.is_worked(have numeric, id text, name text, places integer DEFAULT 9) RETURNS text LANGUAGE sql AS $$
	SELECT is(round(have, places), round((w.exact ->> name)::numeric, places), format('%s: %s', id, name)) FROM worked w WHERE w.id = $2
$$;

SELECT pg_temp.open('mrr_annual_normalised') \g /dev/null
SELECT pg_temp.is_worked(cs.mrr('2026-01-02'), 'mrr_annual_normalised', 'mrr');

SELECT pg_temp.open('mrr_rollforward_stripe') \g /dev/null
SELECT results_eq($$ SELECT mrr_start, new_mrr, reactivation_mrr, expansion_mrr, contraction_mrr, churn_mrr, mrr_end FROM cs.revenue('2026-01') $$,
	$$ SELECT (exact ->> 'start')::numeric, (exact ->> 'new')::numeric, 0::numeric, (exact ->> 'expansion')::numeric, (exact ->> 'contraction')::numeric, (exact ->> 'churn')::numeric, (exact ->> 'end')::numeric
		FROM worked WHERE id = 'mrr_rollforward_stripe' $$, 'mrr_rollforward_stripe: revenue of the month');

SELECT pg_temp.open('subscriber_churn_two_denominators') \g /dev/null
SELECT pg_temp.is_worked(cs.churn_rate('2026-01', method => 'rolling_base'), 'subscriber_churn_two_denominators', 'stripe_rate');
SELECT pg_temp.is_worked(cs.churn_rate('2026-01', method => 'snapshot'), 'subscriber_churn_two_denominators', 'plain_rate');

SELECT pg_temp.open('cohort_revenue_over_100') \g /dev/null
SELECT pg_temp.is_worked(r.nrr, 'cohort_revenue_over_100', 'revenue_retention') FROM cs.revenue('2026-02') r;
SELECT pg_temp.is_worked(1 - cs.churn_rate('2026-02'), 'cohort_revenue_over_100', 'logo_retention');

SELECT pg_temp.open('gross_net_mrr_churn_chartmogul') \g /dev/null
SELECT pg_temp.is_worked(cs.churn_rate('2026-01', unit => 'gross_mrr'), 'gross_net_mrr_churn_chartmogul', 'gross');
SELECT pg_temp.is_worked(cs.churn_rate('2026-01', unit => 'net_mrr'), 'gross_net_mrr_churn_chartmogul', 'net');

-- cents: the inputs are thirds of a cent
SELECT pg_temp.open('movement_lifecycle_chartmogul') \g /dev/null
SELECT pg_temp.is_worked(r.new_mrr, 'movement_lifecycle_chartmogul', 'new', 2) FROM cs.revenue('2025-01') r;
SELECT pg_temp.is_worked(r.expansion_mrr, 'movement_lifecycle_chartmogul', 'expansion') FROM cs.revenue('2025-01') r;
SELECT pg_temp.is_worked(r.contraction_mrr, 'movement_lifecycle_chartmogul', 'contraction') FROM cs.revenue('2025-01') r;
SELECT pg_temp.is_worked(r.churn_mrr, 'movement_lifecycle_chartmogul', 'churn_in_step3') FROM cs.revenue('2025-01') r;
SELECT pg_temp.is_worked(r.churn_mrr, 'movement_lifecycle_chartmogul', 'churn', 2) FROM cs.revenue('2026-01') r;
SELECT pg_temp.is_worked(r.reactivation_mrr, 'movement_lifecycle_chartmogul', 'reactivation') FROM cs.revenue('2026-03') r;
SELECT pg_temp.is_worked(r.new_mrr, 'movement_lifecycle_chartmogul', 'new_in_step5') FROM cs.revenue('2026-03') r;

-- both are of the end of 2025, thirty days apart
SELECT pg_temp.open('mrr_growth_rate_profitable') \g /dev/null
SELECT pg_temp.is_worked((cs.mrr('2025-12-31') - cs.mrr('2025-12-01')) / cs.mrr('2025-12-01'), 'mrr_growth_rate_profitable', 'growth');
SELECT pg_temp.open('mrr_at_snapshots_profitable') \g /dev/null
SELECT pg_temp.is_worked(cs.mrr('2025-12-01'), 'mrr_at_snapshots_profitable', 'mrr_30d_ago');
SELECT pg_temp.is_worked(cs.mrr('2025-12-31'), 'mrr_at_snapshots_profitable', 'mrr_now');

-- the same month by both bases, and who counts it in the rate: base of nobody, so only numerators
SELECT pg_temp.open('same_month_join_and_leave') \g /dev/null
SELECT results_eq($$ SELECT s.new_mrr, s.churn_mrr, e.new_mrr, e.churn_mrr FROM cs.revenue('2026-03', basis => 'endpoints') s, cs.revenue('2026-03', basis => 'ledger') e $$,
	$$ SELECT (exact ->> 'snapshot_new')::numeric, (exact ->> 'snapshot_churn')::numeric, (exact ->> 'event_new')::numeric, (exact ->> 'event_churn')::numeric FROM worked WHERE id = 'same_month_join_and_leave' $$,
	'same_month_join_and_leave: net, and by movements');
SELECT results_eq($$ SELECT c.method, c.numerator, c.denominator FROM unnest(ARRAY['snapshot', 'event_over_start', 'rolling_base']) m, cs.churn('2026-03', method => m) c $$,
	$$ VALUES ('snapshot', 0::numeric, 0::numeric), ('event_over_start', 1, 0), ('rolling_base', 1, 1) $$, 'same_month_join_and_leave: in no snapshot, in both parts of the rolling base');

SELECT pg_temp.open('ten_customers_two_medium') \g /dev/null
SELECT results_eq($$ SELECT r.mrr_start, cs.churn_rate('2026-01', unit => 'gross_mrr'), cs.churn_rate('2026-01') FROM cs.revenue('2026-01') r $$,
	$$ SELECT (exact ->> 'start')::numeric, (exact ->> 'gross_mrr_churn')::numeric, (exact ->> 'logo_churn')::numeric FROM worked WHERE id = 'ten_customers_two_medium' $$,
	'ten_customers_two_medium: logos and money differ');

SELECT pg_temp.open('logo_churn_quarter') \g /dev/null
SELECT pg_temp.is_worked(cs.churn_rate('2026-Q1'), 'logo_churn_quarter', 'churn');
SELECT is(1 - cs.churn_rate('2026-Q1'), (expected ->> 'retention')::numeric, 'logo_churn_quarter: retention') FROM worked WHERE id = 'logo_churn_quarter';

-- the inputs are amounts: customers who make them
CREATE FUNCTION pg_temp.quick_ratio(amounts jsonb) RETURNS numeric LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_temp.load(jsonb_build_array(
		jsonb_build_object('account', 'left', 'start', '2025-06-01', 'end', '2026-01-10', 'mrr', amounts -> 'churn'),
		jsonb_build_object('account', 'less', 'start', '2025-06-01', 'mrr', 1), jsonb_build_object('account', 'less', 'start', '2025-06-01', 'end', '2026-01-11', 'mrr', amounts -> 'contraction'),
		jsonb_build_object('account', 'more', 'start', '2025-06-01', 'mrr', 1), jsonb_build_object('account', 'more', 'start', '2026-01-12', 'mrr', amounts -> 'expansion'),
		jsonb_build_object('account', 'new', 'start', '2026-01-13', 'mrr', amounts -> 'new')));
	RETURN (SELECT r.quick_ratio FROM cs.revenue('2026-01') r);
END $$;
SELECT pg_temp.is_worked(pg_temp.quick_ratio(w.inputs), w.id, 'quick_ratio') FROM worked w WHERE w.id IN ('quick_ratio_1', 'quick_ratio_4');

SELECT is(ARRAY(SELECT cs.annualise(m::numeric, 365 / 12.0) FROM jsonb_array_elements_text(w.inputs -> 'monthly') m),
	ARRAY[w.exact -> 'a1', w.exact -> 'a5', w.exact -> 'a10']::text[]::numeric[], w.id || ': 1, 5 and 10 % a month')
FROM worked w WHERE w.id = 'annualise_churn_a';

-- every case of these kinds has been looked at
SELECT is(ARRAY(SELECT id FROM worked WHERE id !~ '^(km|logrank|health|nps)_' ORDER BY id), ARRAY['annualise_churn_a', 'cohort_revenue_over_100', 'gross_net_mrr_churn_chartmogul', 'logo_churn_quarter', 'movement_lifecycle_chartmogul', 'mrr_annual_normalised', 'mrr_at_snapshots_profitable',
	'mrr_growth_rate_profitable', 'mrr_rollforward_stripe', 'quick_ratio_1', 'quick_ratio_4', 'same_month_join_and_leave', 'subscriber_churn_two_denominators', 'ten_customers_two_medium'], 'the cases about churn and MRR are these');

SELECT * FROM finish();
ROLLBACK;
