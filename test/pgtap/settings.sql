-- Nothing a session may set changes a result: zone, date style, search_path
-- with look-alikes, locale, and the settings that change how text is read.
\ir ../lib/small_company.sql
SET client_min_messages = warning;
CALL cs.refresh();
SELECT * FROM no_plan();

-- Look-alikes of what a careless query would call, earlier in the path than the real ones.
CREATE SCHEMA evil;
CREATE FUNCTION evil.no(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN false;
CREATE FUNCTION evil.no(numeric, numeric) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN false;
CREATE OPERATOR evil.= (FUNCTION = evil.no, LEFTARG = text, RIGHTARG = text);
CREATE OPERATOR evil.> (FUNCTION = evil.no, LEFTARG = numeric, RIGHTARG = numeric);
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql STABLE RETURN timestamptz '1999-01-01';
CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN 'x'::text;
CREATE FUNCTION evil.round(double precision) RETURNS double precision LANGUAGE sql IMMUTABLE RETURN 0::double precision;
CREATE FUNCTION evil.count_of(bigint) RETURNS bigint LANGUAGE sql IMMUTABLE RETURN 7::bigint;
CREATE TABLE evil.subscription (customer_id text);
CREATE TABLE evil.state (customer_id text);
CREATE TABLE evil.policy (id boolean);

-- What people ask, as tables, so that values are compared and not their text.
CREATE PROCEDURE public.ask(pass text) LANGUAGE plpgsql AS $$
DECLARE
	q record;
BEGIN
	FOR q IN SELECT * FROM (VALUES
		('churn_month', $q$SELECT * FROM cs.churn('2025-05')$q$),
		('churn_quarter', $q$SELECT * FROM cs.churn('2025-Q2')$q$),
		('churn_relative', $q$SELECT * FROM cs.churn('last month')$q$),
		('churn_running', $q$SELECT * FROM cs.churn('this quarter')$q$),
		('churn_range', $q$SELECT * FROM cs.churn('[2025-01-15,2025-06-15)')$q$),
		('churn_rate', $q$SELECT cs.churn_rate('2025-05') AS rate$q$),
		('churn_customers', $q$SELECT * FROM cs.churn_customers('2025-05')$q$),
		('revenue', $q$SELECT * FROM cs.revenue('2025-05')$q$),
		('revenue_endpoints', $q$SELECT * FROM cs.revenue('2025-Q2', basis => 'endpoints')$q$),
		('mrr', $q$SELECT cs.mrr('2025-03-01') AS mrr$q$),
		('score_text', $q$SELECT customer_id, cs.health_score(customer_id, '2025-07-01 06:00') AS score FROM cs.customer_360$q$),
		('explain', $q$SELECT c.customer_id, x.* FROM cs.customer_360 c, cs.health_explain(c.customer_id) x$q$),
		('customer_360', $q$SELECT * FROM cs.customer_360$q$),
		('customer_health', $q$SELECT * FROM cs.customer_health$q$),
		('customer_segment', $q$SELECT * FROM cs.customer_segment$q$),
		('open_alert', $q$SELECT * FROM cs.open_alert$q$),
		('churn_monthly', $q$SELECT * FROM cs.churn_monthly$q$),
		('revenue_monthly', $q$SELECT * FROM cs.revenue_monthly$q$),
		('contact_priority', $q$SELECT * FROM cs.contact_priority$q$)) v(name, query)
	LOOP
		EXECUTE pg_catalog.format('CREATE TABLE public.%I AS %s', q.name || '_' || pass, q.query);
	END LOOP;
END $$;

CREATE FUNCTION public.same(a text, b text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	t record;
	n bigint;
BEGIN
	FOR t IN SELECT pg_catalog.left(relname, -1 - pg_catalog.length(a)) AS name FROM pg_class
		WHERE relnamespace = 'public'::regnamespace AND relname LIKE '%\_' || a ORDER BY 1
	LOOP
		EXECUTE pg_catalog.format('SELECT count(*) FROM ((TABLE public.%1$I EXCEPT ALL TABLE public.%2$I) UNION ALL (TABLE public.%2$I EXCEPT ALL TABLE public.%1$I)) d', t.name || '_' || a, t.name || '_' || b) INTO n;
		RETURN NEXT is(n, 0::bigint, t.name || ' is the same ' || b);
		EXECUTE pg_catalog.format('SELECT count(*) FROM public.%I', t.name || '_' || a) INTO n;
		RETURN NEXT ok(n > 0, t.name || ' has ' || n || ' rows to compare');
	END LOOP;
END $$;

CALL public.ask('plain');

SET TimeZone = 'Pacific/Auckland';
CALL public.ask('zone');
SET DateStyle = 'SQL, DMY';
SET IntervalStyle = 'sql_standard';
CALL public.ask('style');
SET search_path = evil, pg_catalog, public;
CALL public.ask('path');
SET lc_numeric = 'POSIX';
SET lc_time = 'POSIX';
SET lc_monetary = 'C.UTF-8';
SET extra_float_digits = -15;
SET array_nulls = off;
SET transform_null_equals = on;
SET standard_conforming_strings = off;
SET escape_string_warning = off;
SET quote_all_identifiers = on;
SET bytea_output = 'escape';
SET row_security = off;
SET default_transaction_isolation = 'read committed';
SET check_function_bodies = on;
CALL public.ask('reading');

-- A rebuild under all of these at once makes the same state.
CREATE TABLE public.state_before AS SELECT * FROM cs_internal.state;
CREATE TABLE public.usage_before AS SELECT customer_id, month, usage::text FROM cs_internal.usage_month;
CALL cs.rebuild();
CALL cs.refresh();
RESET ALL;
SET cs_ext.now = '2025-07-01 06:00:00+02';
SELECT public.same('plain', 'zone');
SELECT public.same('plain', 'style');
SELECT public.same('plain', 'path');
SELECT public.same('plain', 'reading');
SELECT is_empty('(TABLE cs_internal.state EXCEPT ALL TABLE public.state_before) UNION ALL (TABLE public.state_before EXCEPT ALL TABLE cs_internal.state)', 'a rebuild under other settings makes the same state');
SELECT is_empty('(SELECT customer_id, month, usage::text FROM cs_internal.usage_month EXCEPT ALL TABLE public.usage_before)', 'and the same rollup');

-- Definitions written under another path mean what they mean to their writer.
CREATE SCHEMA other;
CREATE FUNCTION other.doubled(numeric) RETURNS numeric LANGUAGE sql IMMUTABLE RETURN 2 * $1;
GRANT USAGE ON SCHEMA other TO cs_ext_run;
SET search_path = other, public;
INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('doubled_mrr', 'ledger', 'doubled(mrr)', 'money', 'high');
SET search_path = evil, public;
CALL cs.refresh();
RESET search_path;
SELECT is(count(*), 0::bigint, 'the path of the writer counts, not the one of the refresher') FROM cs.customer_metric m
	JOIN cs.customer_metric b USING (customer_id) WHERE m.metric = 'doubled_mrr' AND b.metric = 'mrr' AND m.value IS DISTINCT FROM 2 * b.value;
SELECT ok(count(*) > 20, 'seen on ' || count(*) || ' customers') FROM cs.customer_metric WHERE metric = 'doubled_mrr' AND value > 0;
SELECT throws_ok(format('SET cs_ext.now = %L', v), '22023', NULL, format('cs_ext.now is not %s', v))
FROM unnest('{yesterday-ish,infinity,2026-13-01,10:00}'::text[]) v;
SELECT lives_ok(format('SET cs_ext.now = %L', v), format('cs_ext.now may be "%s"', v))
FROM unnest(ARRAY['2026-10-31 06:00:00+01', '2026-10-31 06:00 Europe/Berlin', '2026-10-31', 'yesterday', '']) v;
-- a parallel worker is given the settings before it knows the time zones
SET cs_ext.now = '2026-10-31 06:00Z';
SELECT set_config(name, 'on', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query') \g /dev/null
SELECT min(current_setting('cs_ext.now')) AS seen FROM pg_class \gset
SELECT is(:'seen'::text, '2026-10-31 06:00Z', 'a parallel worker takes cs_ext.now');
RESET cs_ext.now;
SELECT * FROM finish();
