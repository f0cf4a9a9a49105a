-- fight-churn's listings 2.1, 2.2 and 2.4 to 2.8 on two data sets, against what its own
-- SQL returns for them: oracles/fightchurn_expected.json. It takes balances on the bound
-- and counts free accounts, so the policy does. Where it returns NULL for nobody lost
-- (2.4) the answer here is 0, and months without churn that it drops (2.6) are here.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET cs_ext.now = '2025-01-01';

SELECT plan(18);

CREATE TABLE listing AS
SELECT s.key AS set_name, format('[%s,%s)', split_part(p.key, '..', 1), split_part(p.key, '..', 2)) AS period, p.value AS answer
FROM jsonb_each(pg_read_file(:'testdata' || '/oracles/fightchurn_expected.json')::jsonb -> 'sets') s, jsonb_each(s.value -> 'period') p;
CREATE TABLE month AS
SELECT s.key AS set_name, l.key AS listing, (r ->> 'start_date')::date AS start_date, r AS answer
FROM jsonb_each(pg_read_file(:'testdata' || '/oracles/fightchurn_expected.json')::jsonb -> 'sets') s, jsonb_each(s.value) l, jsonb_array_elements(l.value) r
WHERE l.key LIKE '2._\_%' AND jsonb_typeof(l.value) = 'array';
SELECT is((SELECT count(*) FROM listing), 10::bigint, 'the oracle has 10 periods');
SELECT is((SELECT count(*) FROM month), 29::bigint, 'and 29 months in three listings');

CREATE TABLE subscription (
	account_id integer NOT NULL, product text, start_date date NOT NULL, end_date date, mrr numeric NOT NULL,
	quantity numeric, units text, bill_period_months integer, discount numeric
);
CREATE INDEX ON subscription (account_id);
SELECT cs.setup(time_zone => 'UTC', currency => 'USD', template => NULL) \g /dev/null
UPDATE cs.policy SET period_edge = 'at', free_is_active = true;

-- Everything that the listings say of a data set, from the public functions; rates to 1e-9.
CREATE FUNCTION pg_temp.near(have numeric, want jsonb) RETURNS boolean LANGUAGE sql AS $$
	SELECT abs(have - coalesce(want #>> '{}', '0')::numeric) <= 1e-9
$$;
CREATE FUNCTION pg_temp.every_listing(set_name text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	RETURN NEXT is_empty(format($q$ SELECT l.period, r.nrr, r.mrr_start, l.answer -> '2.1_net_retention' FROM listing l, cs.revenue(l.period, basis => 'endpoints') r
		WHERE l.set_name = %L AND (pg_temp.near(r.nrr, l.answer #> '{2.1_net_retention,net_mrr_retention_rate}') AND pg_temp.near(1 - r.nrr, l.answer #> '{2.1_net_retention,net_mrr_churn_rate}')
			AND pg_temp.near(r.mrr_start, l.answer #> '{2.1_net_retention,start_mrr}') AND pg_temp.near(round(r.nrr * r.mrr_start, 4), l.answer #> '{2.1_net_retention,retain_mrr}')) IS NOT TRUE $q$, set_name), set_name || ': 2.1 net retention');
	RETURN NEXT is_empty(format($q$ SELECT l.period, c.numerator, c.denominator, l.answer -> '2.2_churn_rate' FROM listing l, cs.churn(l.period) c
		WHERE l.set_name = %L AND (pg_temp.near(c.rate, l.answer #> '{2.2_churn_rate,churn_rate}') AND pg_temp.near(1 - c.rate, l.answer #> '{2.2_churn_rate,retention_rate}')
			AND pg_temp.near(c.numerator, l.answer #> '{2.2_churn_rate,n_churn}') AND pg_temp.near(c.denominator, l.answer #> '{2.2_churn_rate,n_start}')) IS NOT TRUE $q$, set_name), set_name || ': 2.2 churn rate');
	RETURN NEXT is_empty(format($q$ SELECT l.period, c.rate, r.churn_mrr, r.contraction_mrr, l.answer -> '2.4_mrr_churn' FROM listing l, cs.churn(l.period, unit => 'gross_mrr') c, cs.revenue(l.period, basis => 'endpoints') r
		WHERE l.set_name = %L AND (pg_temp.near(c.rate, l.answer #> '{2.4_mrr_churn,mrr_churn_rate}') AND pg_temp.near(c.denominator, l.answer #> '{2.4_mrr_churn,start_mrr}')
			AND pg_temp.near(r.churn_mrr, l.answer #> '{2.4_mrr_churn,churn_mrr}') AND pg_temp.near(r.contraction_mrr, l.answer #> '{2.4_mrr_churn,downsell_mrr}')) IS NOT TRUE $q$, set_name), set_name || ': 2.4 MRR churn, 0 where nobody left');
	-- from the whole fraction: nine places are too few for a power of twelve
	RETURN NEXT is_empty(format($q$ SELECT l.period, l.answer -> '2.5_churn_scaled' FROM listing l, cs.churn(l.period) c, LATERAL (SELECT extract(epoch FROM c.period_end - c.period_start) / 86400) d (days)
		WHERE l.set_name = %L AND (pg_temp.near(cs.annualise(c.numerator / c.denominator, d.days), l.answer #> '{2.5_churn_scaled,annual_churn}')
			AND pg_temp.near(cs.annualise(c.numerator / c.denominator, 12 * d.days), l.answer #> '{2.5_churn_scaled,monthly_churn}') AND pg_temp.near(d.days, l.answer #> '{2.5_churn_scaled,period_days}')) IS NOT TRUE $q$, set_name), set_name || ': 2.5 churn of a year and of a standard month');
	RETURN NEXT is_empty(format($q$ SELECT m.start_date, m.answer FROM month m LEFT JOIN cs.churn_series((SELECT min(start_date) FROM month WHERE set_name = %1$L), (SELECT max(start_date) + 1 FROM month WHERE set_name = %1$L)) c ON c.day = m.start_date
		WHERE m.set_name = %1$L AND m.listing LIKE '2.6%%' AND (pg_temp.near(c.rate, m.answer -> 'churn_rate') AND pg_temp.near(c.numerator, m.answer -> 'n_churn') AND pg_temp.near(c.denominator, m.answer -> 'n_start')
			AND pg_temp.near(cs.annualise(c.numerator / c.denominator, 365 / 12.0), m.answer -> 'annual_churn_rate')) IS NOT TRUE $q$, set_name), set_name || ': 2.6 churn of every month');
	-- what it calls extension, a drop that comes with a longer term, is contraction here and in its other listings
	RETURN NEXT is_empty(format($q$ SELECT m.start_date, r.churn_mrr, r.contraction_mrr, m.answer FROM month m, cs.revenue(to_char(m.start_date, 'YYYY-MM'), basis => 'endpoints') r
		WHERE m.set_name = %L AND m.listing LIKE '2.7%%' AND (pg_temp.near(r.mrr_start, m.answer -> 'start_mrr') AND pg_temp.near(r.churn_mrr, m.answer -> 'churn_mrr')
			AND r.contraction_mrr = (m.answer ->> 'downsell_mrr')::numeric + (m.answer ->> 'extension_mrr')::numeric
			AND pg_temp.near(r.gross_mrr_churn - (m.answer ->> 'mrr_extension_rate')::numeric, m.answer -> 'mrr_churn_rate')
			AND pg_temp.near(cs.annualise((r.churn_mrr + r.contraction_mrr - (m.answer ->> 'extension_mrr')::numeric) / r.mrr_start, 365 / 12.0), m.answer -> 'annual_mrr_churn_rate')) IS NOT TRUE $q$, set_name), set_name || ': 2.7 MRR churn of every month');
	RETURN NEXT is_empty(format($q$ SELECT m.start_date, r.nrr, m.answer FROM month m, cs.revenue(to_char(m.start_date, 'YYYY-MM'), basis => 'endpoints') r
		WHERE m.set_name = %L AND m.listing LIKE '2.8%%' AND (pg_temp.near(r.nrr, m.answer -> 'net_retention_rate') AND pg_temp.near(1 - cs.annualise(1 - (m.answer ->> 'retained_mrr')::numeric / r.mrr_start, 365 / 12.0), m.answer -> 'annual_net_retention_rate')) IS NOT TRUE $q$, set_name),
		set_name || ': 2.8 net retention of every month');
END $$;

SELECT format('COPY subscription FROM %L CSV HEADER', :'testdata' || '/oracles/fightchurn_inputs/hand_edges/subscription.csv') \gexec
SELECT count(*) FROM cs.add_source('subscription', 'subscription', 'subscription',
	'{"customer_id": "account_id", "start_at": "start_date", "end_at": "end_date", "mrr": "mrr", "product": "product"}') \g /dev/null
CALL cs.refresh();
SELECT * FROM pg_temp.every_listing('hand_edges');
SELECT is((SELECT denominator FROM cs.churn('2024-01')), 14::numeric, 'hand_edges: the free account counts');

DELETE FROM subscription;
SELECT format('COPY subscription FROM %L CSV HEADER', :'testdata' || '/oracles/fightchurn_inputs/sim_social/subscription.csv') \gexec
CALL cs.refresh();
SELECT * FROM pg_temp.every_listing('sim_social');
SELECT results_eq($$ SELECT day, numerator, rate FROM cs.churn_series('2020-03-01', '2020-06-01') WHERE day NOT IN (SELECT start_date FROM month WHERE set_name = 'sim_social' AND listing LIKE '2.6%') $$,
	$$ VALUES (date '2020-04-01', 0::numeric, 0::numeric) $$, 'sim_social: the month without churn is there');

SELECT * FROM finish();
