-- The argument forms of churn, mrr and period: each call finds the form that reads
-- as_of in the zone of the policy, whatever the session's zone is.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE regress_churn_calls NOLOGIN;
INSERT INTO cs.policy (run_as, time_zone, currency, segment_basis) VALUES ('regress_churn_calls', 'Asia/Tokyo', 'JPY', 'stored');
SET cs_ext.now = '2024-06-15 00:00:00+09';
SET TimeZone = 'America/New_York';
INSERT INTO cs_internal.movement (customer_id, at, kind, delta, mrr_after, active_after)
VALUES ('a', '2024-01-05 00:00+09', 'new', 10, 10, true), ('a', '2024-02-05 00:00+09', 'churn', -10, 0, false), ('b', '2024-01-06 00:00+09', 'new', 5, 5, true);
INSERT INTO cs_internal.membership (customer_id, dimension, segment, valid_from, source) VALUES ('a', 'tier', 'gold', '2024-01-01', 'rule');

-- all at the start of 31 May in Tokyo
CREATE TEMP TABLE call (form text);
INSERT INTO call VALUES
	($$ cs.churn('2024-02', as_of => '2024-05-31') $$),
	($$ cs.churn('2024-02'::text, as_of => '2024-05-31') $$),
	($$ cs.churn('2024-02', as_of => '2024-05-31'::text) $$),
	($$ cs.churn('2024-02'::varchar, as_of => '2024-05-31'::varchar) $$),
	($$ cs.churn('2024-02', as_of => date '2024-05-31') $$),
	($$ cs.churn('2024-02'::text, as_of => date '2024-05-31') $$),
	($$ cs.churn('2024-02'::varchar, as_of => timestamp '2024-05-31') $$),
	($$ cs.churn('2024-02', as_of => timestamptz '2024-05-31 00:00+09') $$),
	($$ cs.churn('2024-02', NULL, as_of => '2024-05-31') $$),
	($$ cs.churn('2024-02', 'gold', as_of => '2024-05-31') $$),
	($$ cs.churn('2024-02', 'tier:gold'::text, as_of => date '2024-05-31') $$),
	($$ cs.churn('2024-02', unit => 'logo', as_of => '2024-05-31') $$),
	($$ cs.churn('2024-02'::text, unit => 'logo'::text, as_of => timestamp '2024-05-31') $$),
	($$ cs.churn('2024-02', NULL, 'snapshot', 'logo', '2024-05-31') $$),
	($$ cs.churn('2024-02', NULL, 'snapshot', 'logo', date '2024-05-31') $$),
	($$ cs.churn('2024-02'::text, NULL::text, 'snapshot'::text, 'logo'::text, timestamptz '2024-05-31 00:00+09') $$),
	($$ cs.churn(period => '2024-02', segment => NULL, method => NULL, unit => NULL, as_of => timestamp '2024-05-31') $$),
	($$ cs.churn(as_of => '2024-05-31', period => '2024-02') $$);
CREATE FUNCTION pg_temp.as_of(form text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	r text;
BEGIN
	EXECUTE 'SELECT concat_ws('' '', as_of AT TIME ZONE ''Asia/Tokyo'', denominator, segment) FROM ' || form INTO r;
	RETURN r;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
SELECT form, pg_temp.as_of(form) FROM call;

-- without as_of, and prepared as drivers do
SELECT cs.churn_rate('2024-02'), cs.churn_rate('2024-02', 'gold'), cs.churn_rate('2024-02', 'tier:gold', 'snapshot', 'gross_mrr'), cs.churn_rate('2024-02', unit => 'net_mrr');
SELECT count(*) FROM cs.churn('2024-02') UNION ALL SELECT count(*) FROM cs.churn('2024-02'::varchar) UNION ALL SELECT count(*) FROM cs.churn('2024-02', as_of => NULL);
PREPARE by_driver (varchar, varchar) AS SELECT segment, numerator FROM cs.churn($1, $2);
EXECUTE by_driver ('2024-02', 'gold');
PREPARE by_instant (text, text, text, text, timestamptz) AS SELECT segment, numerator FROM cs.churn($1, $2, $3, $4, $5);
EXECUTE by_instant ('2024-02', NULL, NULL, NULL, '2024-05-31');

-- a movement at Tokyo's midnight counts after it
SELECT cs.mrr('2024-01-06') AS text, cs.mrr(date '2024-01-06') AS date, cs.mrr(timestamp '2024-01-06') AS timestamp, cs.mrr(timestamptz '2024-01-06 00:00+09') AS timestamptz,
	cs.mrr('2024-01-06 00:00:00.000001') AS after, cs.mrr() AS now, cs.mrr(segment => 'gold') AS now_gold, cs.mrr('2024-01-06', 'gold') AS gold, cs.mrr(at => date '2024-01-07', segment => 'tier:gold') AS named;

-- before segments were stored nobody is in one, and a notice says so
RESET client_min_messages;
SELECT denominator, rate FROM cs.churn('2023-12', 'gold');
SELECT cs.mrr('2023-12-31', 'gold');
SET client_min_messages = warning;

-- refused, each with its state and hint
CREATE FUNCTION pg_temp.refused(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text; hint text;
BEGIN
	EXECUTE 'SELECT * FROM ' || call;
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RETURN format('%s %s | %s', SQLSTATE, message, hint);
END $$;
SELECT pg_temp.refused(call) FROM unnest(ARRAY[
	$$ cs.churn('2024-02', 'tier:silver') $$, $$ cs.churn('2024-02', 'tier:golt') $$, $$ cs.churn('2024-02', 'golt') $$,
	$$ cs.churn('2024-02', method => 'snapshto') $$, $$ cs.churn('2024-02', method => 'eligible_base') $$, $$ cs.churn('2024-02', unit => 'gross') $$, $$ cs.churn('2024-02', unit => 'seats') $$,
	$$ cs.churn('2024-02', as_of => 'yesterday') $$, $$ cs.churn('2024-02', as_of => 'infinity'::timestamptz) $$, $$ cs.churn('2024-02', as_of => '2024-06-16') $$, $$ cs.churn('2024-02', as_of => '2024-01-31') $$,
	$$ cs.revenue('2024-02', 'golt') $$, $$ cs.revenue('2024-02', basis => 'endpoint') $$, $$ cs.revenue_months('movements') $$, $$ cs.revenue('02/2024') $$,
	$$ cs.mrr('NaN') $$, $$ cs.mrr(date 'infinity') $$, $$ cs.mrr('2024-06-15 00:01') $$]) call;

DELETE FROM cs_internal.movement;
DELETE FROM cs_internal.membership;
ALTER TABLE cs.policy DISABLE TRIGGER USER;
DELETE FROM cs.policy;
ALTER TABLE cs.policy ENABLE TRIGGER USER;
DROP OWNED BY regress_churn_calls;
DROP ROLE regress_churn_calls;
