-- Balances and flows of every month of two data sets, under both period edges,
-- against numbers that were computed elsewhere: oracles/endpoints_expected.json.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET cs_ext.now = '2025-01-01';

SELECT plan(18);

CREATE TABLE expected AS
SELECT d.set_name, e.edge, m.*
FROM (SELECT pg_read_file(:'testdata' || '/oracles/endpoints_expected.json')::jsonb AS doc) f,
	(VALUES ('hand_edges'), ('sim_social')) d (set_name), (VALUES ('before'), ('at')) e (edge),
	jsonb_to_recordset(f.doc -> d.set_name -> e.edge) AS m (month text, n_start bigint, n_end bigint, n_churn bigint, n_new bigint,
		n_reactivated bigint, mrr_start numeric, new numeric, reactivation numeric, expansion numeric, contraction numeric,
		churn numeric, mrr_end numeric, churn_rate numeric, grr numeric, nrr numeric);
SELECT is((SELECT count(*) FROM expected), 26::bigint, 'the oracle has 26 months');

CREATE TABLE subscription (
	account_id integer NOT NULL,
	product text,
	start_date date NOT NULL,
	end_date date,
	mrr numeric NOT NULL,
	quantity numeric,
	units text,
	bill_period_months integer,
	discount numeric
);
CREATE INDEX ON subscription (account_id);

-- What the public functions say of a month, in the oracle's words.
CREATE FUNCTION pg_temp.actual(month text) RETURNS TABLE (month_ text, n_start bigint, n_end bigint, n_churn bigint, n_new bigint,
	n_reactivated bigint, mrr_start numeric, new numeric, reactivation numeric, expansion numeric, contraction numeric,
	churn numeric, mrr_end numeric, churn_rate numeric, grr numeric, nrr numeric)
LANGUAGE sql AS $$
	WITH joined AS (
		SELECT EXISTS (SELECT FROM cs.movement m, cs.policy p
			WHERE m.customer_id = x.customer_id AND m.mrr_after > 0
			AND (m.at < c.period_start OR p.period_edge = 'at' AND m.at = c.period_start)) AS known
		FROM cs.churn($1) c, cs.churn_customers($1) x
		WHERE NOT x.in_denominator AND x.mrr_end > 0
	)
	SELECT $1, c.denominator::bigint, (SELECT count(*) FROM cs.churn_customers($1) x WHERE x.mrr_end > 0), c.numerator::bigint,
		(SELECT count(*) FROM joined WHERE NOT known), (SELECT count(*) FROM joined WHERE known),
		r.mrr_start, r.new_mrr, r.reactivation_mrr, r.expansion_mrr, r.contraction_mrr, r.churn_mrr, r.mrr_end,
		c.rate, r.grr, r.nrr
	FROM cs.churn($1) c, cs.revenue($1, basis => 'endpoints') r
$$;

SELECT cs.setup(time_zone => 'UTC', currency => 'USD', template => NULL) \g /dev/null

SELECT format('COPY subscription FROM %L CSV HEADER', :'testdata' || '/oracles/fightchurn_inputs/hand_edges/subscription.csv') \gexec
SELECT count(*) FROM cs.add_source('subscription', 'subscription', 'subscription',
	'{"customer_id": "account_id", "start_at": "start_date", "end_at": "end_date", "mrr": "mrr", "product": "product"}') \g /dev/null
CALL cs.refresh();

SELECT results_eq($$SELECT a.* FROM expected e, pg_temp.actual(e.month) a WHERE e.set_name = 'hand_edges' AND e.edge = 'before' ORDER BY 1$$,
	$$SELECT month, n_start, n_end, n_churn, n_new, n_reactivated, mrr_start, new, reactivation, expansion, contraction, churn, mrr_end,
		round(churn_rate, 9), round(grr, 9), round(nrr, 9) FROM expected WHERE set_name = 'hand_edges' AND edge = 'before' ORDER BY 1$$,
	'hand_edges, edge before: every month');
SELECT is((SELECT count(*) FROM expected e, cs.revenue(e.month) r WHERE e.set_name = 'hand_edges' AND e.edge = 'before'
	AND r.mrr_start = e.mrr_start AND r.mrr_end = e.mrr_end
	AND r.mrr_end = r.mrr_start + r.new_mrr + r.reactivation_mrr + r.expansion_mrr + r.resume_mrr - r.contraction_mrr - r.churn_mrr - r.pause_mrr),
	7::bigint, 'hand_edges, edge before: the ledger basis has the same balances and adds up');
SELECT is((SELECT count(*) FROM expected e WHERE e.set_name = 'hand_edges' AND e.edge = 'before' AND cs.churn_rate(e.month) IS NOT DISTINCT FROM round(e.churn_rate, 9)),
	7::bigint, 'hand_edges, edge before: churn_rate');
SELECT is((SELECT count(*) FROM expected e WHERE e.set_name = 'hand_edges' AND e.edge = 'before'
	AND (SELECT count(*) FILTER (WHERE x.in_numerator) = e.n_churn AND count(*) FILTER (WHERE x.in_denominator) = e.n_start
		AND coalesce(sum(x.mrr_start), 0) = e.mrr_start AND coalesce(sum(x.mrr_end), 0) = e.mrr_end FROM cs.churn_customers(e.month) x)),
	7::bigint, 'hand_edges, edge before: churn_customers adds up to its month');
-- an account of price zero and one of no length are no customers with money
SELECT is((SELECT count(*) FROM cs.movement WHERE customer_id IN ('15', '18')), 0::bigint, 'hand_edges: neither the free nor the zero-length account moves');
SELECT is((SELECT count(*) FROM cs.movement WHERE customer_id = '17'), 2::bigint, 'hand_edges: three touching months are one stay');

SELECT is_empty($$SELECT * FROM cs.check('2023-11-01', '2024-09-01')$$, 'hand_edges, edge before: no invariant is broken');

UPDATE cs.policy SET period_edge = 'at';
CALL cs.refresh();
SELECT results_eq($$SELECT a.* FROM expected e, pg_temp.actual(e.month) a WHERE e.set_name = 'hand_edges' AND e.edge = 'at' ORDER BY 1$$,
	$$SELECT month, n_start, n_end, n_churn, n_new, n_reactivated, mrr_start, new, reactivation, expansion, contraction, churn, mrr_end,
		round(churn_rate, 9), round(grr, 9), round(nrr, 9) FROM expected WHERE set_name = 'hand_edges' AND edge = 'at' ORDER BY 1$$,
	'hand_edges, edge at: every month');
SELECT is((SELECT count(*) FROM expected e, cs.revenue(e.month) r WHERE e.set_name = 'hand_edges' AND e.edge = 'at'
	AND r.mrr_start = e.mrr_start AND r.mrr_end = e.mrr_end
	AND r.mrr_end = r.mrr_start + r.new_mrr + r.reactivation_mrr + r.expansion_mrr + r.resume_mrr - r.contraction_mrr - r.churn_mrr - r.pause_mrr),
	7::bigint, 'hand_edges, edge at: the ledger basis has the same balances and adds up');

SELECT is_empty($$SELECT * FROM cs.check('2023-11-01', '2024-09-01')$$, 'hand_edges, edge at: no invariant is broken');

-- the other data set comes into the same table: everything of the first goes, by capture
DELETE FROM subscription;
SELECT format('COPY subscription FROM %L CSV HEADER', :'testdata' || '/oracles/fightchurn_inputs/sim_social/subscription.csv') \gexec
CALL cs.refresh();

SELECT results_eq($$SELECT a.* FROM expected e, pg_temp.actual(e.month) a WHERE e.set_name = 'sim_social' AND e.edge = 'at' ORDER BY 1$$,
	$$SELECT month, n_start, n_end, n_churn, n_new, n_reactivated, mrr_start, new, reactivation, expansion, contraction, churn, mrr_end,
		round(churn_rate, 9), round(grr, 9), round(nrr, 9) FROM expected WHERE set_name = 'sim_social' AND edge = 'at' ORDER BY 1$$,
	'sim_social, edge at: every month');
UPDATE cs.policy SET period_edge = 'before';
CALL cs.refresh();
SELECT results_eq($$SELECT a.* FROM expected e, pg_temp.actual(e.month) a WHERE e.set_name = 'sim_social' AND e.edge = 'before' ORDER BY 1$$,
	$$SELECT month, n_start, n_end, n_churn, n_new, n_reactivated, mrr_start, new, reactivation, expansion, contraction, churn, mrr_end,
		round(churn_rate, 9), round(grr, 9), round(nrr, 9) FROM expected WHERE set_name = 'sim_social' AND edge = 'before' ORDER BY 1$$,
	'sim_social, edge before: every month');
SELECT is((SELECT count(*) FROM expected e, cs.revenue(e.month) r WHERE e.set_name = 'sim_social' AND e.edge = 'before'
	AND r.mrr_start = e.mrr_start AND r.mrr_end = e.mrr_end
	AND r.mrr_end = r.mrr_start + r.new_mrr + r.reactivation_mrr + r.expansion_mrr + r.resume_mrr - r.contraction_mrr - r.churn_mrr - r.pause_mrr),
	6::bigint, 'sim_social, edge before: the ledger basis has the same balances and adds up');
SELECT is((SELECT count(*) FROM expected e WHERE e.set_name = 'sim_social' AND e.edge = 'before'
	AND cs.mrr((e.month || '-01')::date) = e.mrr_start), 6::bigint, 'sim_social, edge before: mrr() at each month''s start');
-- the first month has nobody at its start: no rate, not zero
SELECT is((SELECT cs.churn_rate('2020-01')), NULL, 'an empty base has no rate');

-- the session has no say
SET TimeZone = 'America/Caracas';
SET DateStyle = 'German, DMY';
SET search_path = pg_temp, public;
SELECT public.is((SELECT count(*) FROM public.expected e, pg_temp.actual(e.month) a WHERE e.set_name = 'sim_social' AND e.edge = 'before'
	AND a.mrr_end = e.mrr_end AND a.n_churn = e.n_churn AND a.n_new = e.n_new), 6::bigint, 'sim_social: TimeZone, DateStyle and search_path of the session change nothing');
RESET TimeZone;
RESET DateStyle;
RESET search_path;

SELECT is_empty($$SELECT * FROM cs.check('2020-01-01', '2020-08-01')$$, 'sim_social, edge before: no invariant is broken');
SELECT * FROM finish();
