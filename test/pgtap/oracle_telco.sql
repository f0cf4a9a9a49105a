-- The Telco set as subscriptions: churn in customers and MRR, overall, by contract and by
-- tenure tier (attributes of the customer), under both period edges, against
-- oracles/telco.json. Every churn is dated 2020-01-01: under edge before it is churn of
-- 2020-01, under at of 2019-12. Rates over all 7,043 count 11 rows of tenure 0, which
-- no ledger can have; Kaplan-Meier and log-rank of all of them stand in survival.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET cs_ext.now = '2020-02-01';
SELECT * FROM no_plan();
CREATE TABLE telco_text (customer_id text PRIMARY KEY, gender text, senior text, partner text, dependents text, tenure integer, phone text, lines text,
	internet text, security text, backup text, protection text, support text, tv text, movies text, contract text, paperless text,
	payment text, monthly numeric, total text, churn text);
SELECT format('COPY telco_text FROM %L CSV HEADER', :'testdata' || '/data/telco/Telco-Customer-Churn.csv') \gexec
CREATE TABLE telco AS SELECT pg_read_file(:'testdata' || '/oracles/telco.json')::jsonb AS doc;
CREATE TABLE customer AS
SELECT customer_id, jsonb_build_object('contract', contract, 'tier', CASE WHEN tenure <= 12 THEN '0-12' WHEN tenure <= 24 THEN '13-24' WHEN tenure <= 48 THEN '25-48' WHEN tenure <= 60 THEN '49-60' ELSE '61-72' END) AS attributes
FROM telco_text;
CREATE TABLE subscription AS
SELECT customer_id, (timestamp '2020-01-01' - make_interval(months => tenure))::date AS start_on, CASE WHEN churn = 'Yes' THEN date '2020-01-01' END AS end_on, monthly FROM telco_text;
CREATE INDEX ON subscription (customer_id);
SELECT cs.setup(time_zone => 'UTC', currency => 'USD', template => NULL) \g /dev/null
SELECT count(*) FROM cs.add_source('customer', 'customer', 'customer', '{"customer_id": "customer_id", "attributes": "attributes"}') \g /dev/null
SELECT count(*) FROM cs.add_source('subscription', 'subscription', 'subscription', '{"customer_id": "customer_id", "start_at": "start_on", "end_at": "end_on", "mrr": "monthly"}') \g /dev/null
INSERT INTO cs.dimension (name, attribute) VALUES ('contract', 'contract'), ('tenure_tier', 'tier');
CALL cs.refresh();

CREATE FUNCTION pg_temp.near(have numeric, want jsonb) RETURNS boolean LANGUAGE sql AS $$ SELECT abs(have - (want #>> '{}')::numeric) <= 1e-9 $$;
-- rates have nine places: the oracle's whole fraction is met by numerator / denominator
CREATE FUNCTION pg_temp.every_rate(month text, next_month text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	dated text := '2019-12-01..2020-01-01';
BEGIN
	RETURN NEXT is_empty(format($q$ SELECT c.*, m.* FROM cs.churn(%1$L) c, cs.churn(%1$L, unit => 'gross_mrr') m, telco, LATERAL (SELECT doc #> '{as_dates,%2$s,overall}') o (o)
		WHERE (c.numerator = (o ->> 'n_churn')::numeric AND c.denominator = (o ->> 'n_start')::numeric AND pg_temp.near(c.numerator / c.denominator, o -> 'churn_rate') AND c.rate = round((o ->> 'churn_rate')::numeric, 9)
			AND m.numerator = (o ->> 'churn_mrr')::numeric AND m.denominator = (o ->> 'start_mrr')::numeric AND pg_temp.near(m.numerator / m.denominator, o -> 'mrr_churn_rate')) IS NOT TRUE $q$, month, dated), month || ': customers and MRR');
	RETURN NEXT is((SELECT count(*) FROM telco, jsonb_each(doc #> ARRAY['as_dates', dated, 'Contract']) o JOIN cs.churn_by(month, 'contract') c ON c.segment = o.key JOIN cs.churn_by(month, 'contract', unit => 'gross_mrr') m ON m.segment = o.key
		WHERE c.numerator = (o.value ->> 'n_churn')::numeric AND c.denominator = (o.value ->> 'n_start')::numeric AND pg_temp.near(c.numerator / c.denominator, o.value -> 'churn_rate')
			AND m.numerator = (o.value ->> 'churn_mrr')::numeric AND m.denominator = (o.value ->> 'start_mrr')::numeric AND pg_temp.near(m.numerator / m.denominator, o.value -> 'mrr_churn_rate')), 3::bigint, month || ': by contract');
	RETURN NEXT is((SELECT count(*) FROM telco, jsonb_each(doc #> '{churn_rates,tenure_tier}') o JOIN cs.churn_by(month, 'tenure_tier') c ON c.segment = o.key JOIN cs.churn_by(month, 'tenure_tier', unit => 'gross_mrr') m ON m.segment = o.key,
			LATERAL (SELECT count(*) AS n, coalesce(sum(monthly), 0) AS mrr FROM telco_text WHERE tenure = 0 AND o.key = '0-12') zero
		WHERE c.numerator = (o.value ->> 'churned')::numeric AND c.denominator + zero.n = (o.value ->> 'n')::numeric AND pg_temp.near(c.numerator / (c.denominator + zero.n), o.value -> 'churn_rate')
			AND m.numerator = (o.value ->> 'churned_mrr')::numeric AND m.denominator + zero.mrr = (o.value ->> 'mrr')::numeric AND pg_temp.near(m.numerator / (m.denominator + zero.mrr), o.value -> 'mrr_churn_rate')), 5::bigint, month || ': by tenure tier, with the rows of tenure 0 put back');
	RETURN NEXT results_eq(format('SELECT numerator FROM cs.churn(%L)', next_month), 'VALUES (0::numeric)', next_month || ': and nobody in the other month');
END $$;
SELECT * FROM pg_temp.every_rate('2020-01', '2019-12');
UPDATE cs.policy SET period_edge = 'at';
CALL cs.refresh();
SELECT * FROM pg_temp.every_rate('2019-12', '2020-01');
SELECT results_eq('SELECT sum(numerator), sum(denominator) FROM cs.churn_customers(''2019-12'')', 'SELECT numerator, denominator FROM cs.churn(''2019-12'')', 'the customers behind it add up');
SELECT * FROM finish();
