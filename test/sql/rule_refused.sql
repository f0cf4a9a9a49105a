-- Rules that are refused: SQLSTATE, what is named, the hint; nothing is kept.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS cs_ext CASCADE;
CREATE EXTENSION cs_ext;
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL);
INSERT INTO cs.metric (name, source, expression) VALUES ('mrr', 'ledger', 'mrr'), ('seats', 'ledger', 'seats');
INSERT INTO cs.dimension (name, fallback) VALUES ('tier', 'small'), ('touch', 'tech');
INSERT INTO cs.segment (dimension, name, rule) VALUES ('tier', 'big', 'mrr >= 5000'), ('touch', 'high', $$tier = 'big'$$);

CREATE FUNCTION refused(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text; detail text; hint text; state text;
BEGIN
	EXECUTE statement;
	RAISE EXCEPTION SQLSTATE 'OK000';
EXCEPTION WHEN SQLSTATE 'OK000' THEN
	RETURN 'accepted';
WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n  ', state || ' ' || message, nullif(detail, ''), nullif(hint, ''));
END $$;
CREATE FUNCTION rule(expression text) RETURNS text LANGUAGE sql AS $$
	SELECT refused(format('INSERT INTO cs.segment (dimension, name, rule) VALUES (''tier'', ''new'', %L)', expression))
$$;
CREATE FUNCTION volatile_one() RETURNS boolean LANGUAGE sql VOLATILE AS 'SELECT true';
\pset format unaligned
\pset tuples_only on

-- not an expression
SELECT rule('');
SELECT rule('mrr >');
SELECT rule('mrr > 1 AND');
SELECT rule('mrr > 1) OR (true');
SELECT rule('mrr > 1; DELETE FROM cs.segment');
SELECT rule('mrr > 1) FROM state; DELETE FROM cs.segment; SELECT (true');
SELECT rule('mrr > 1 -- everything');
SELECT rule('mrr > 1 /*');
SELECT rule('SELECT true');
-- names
SELECT rule('mrrr > 1');
SELECT rule('teir = ''big''');
SELECT rule('wholly_unknown = 1');
SELECT rule('ctid IS NOT NULL');
SELECT rule('score > 1');
-- ago()
SELECT rule('ago(''mrrr'', 30) > 1');
SELECT rule('ago(''mrr'', days_to_renewal::int) > 1');
SELECT rule('ago(''mrr'', 0) > 1');
SELECT rule('ago(''mrr'') > 1');
SELECT rule('mrr < ago(''mrr'', 30)');
-- types
SELECT rule('mrr');
SELECT rule('''yes''');
SELECT rule('mrr > ''many''');
SELECT rule('attributes > 3');
SELECT rule('count(*) > 1');
SELECT rule('row_number() OVER () > 1');
SELECT rule('generate_series(1, 3) > 1');
-- what it may not do
SELECT rule('mrr > random()');
SELECT rule('created_at < clock_timestamp()');
SELECT rule('public.volatile_one()');
SELECT rule('pg_sleep(1) IS NULL');
SELECT rule('EXISTS (SELECT 1 FROM cs_internal.state)');
SELECT rule('EXISTS (SELECT 1 FROM pg_catalog.pg_authid)');
SELECT rule('(WITH x AS (DELETE FROM cs.segment RETURNING 1) SELECT true FROM x)');
SELECT rule('EXISTS (SELECT 1 FROM cs.segment FOR UPDATE)');
-- accepted
SELECT rule($$mrr > 100 AND attributes ->> 'region' = 'north' AND created_at < as_of - interval '1 year' AND (seats, tenure_days) > (1, 2)
	-- a remark at the end$$);
SELECT rule('name LIKE ''A%'' AND (SELECT max(x) FROM generate_series(1, 3) x) = 3 AND as_of_day > ''2020-01-01''');

-- cycles, with their path
SELECT rule('touch = ''high''');
SELECT rule('tier = ''small''');
-- one namespace
SELECT refused($$INSERT INTO cs.dimension (name) VALUES ('mrr')$$);
SELECT refused($$INSERT INTO cs.dimension (name) VALUES ('tenure_days')$$);
SELECT refused($$INSERT INTO cs.dimension (name) VALUES ('band')$$);
SELECT refused($$INSERT INTO cs.dimension (name) VALUES ('as_of')$$);
SELECT refused($$INSERT INTO cs.dimension (name) VALUES ('Tier 2')$$);
SELECT refused($$INSERT INTO cs.metric (name, source, expression) VALUES ('tier', 'ledger', 'mrr')$$);
-- dimensions and segments
SELECT refused($$INSERT INTO cs.dimension (name, exclusive, attribute) VALUES ('many', false, 'plan')$$);
SELECT refused($$INSERT INTO cs.dimension (name, min_days) VALUES ('lazy', -3)$$);
SELECT refused($$INSERT INTO cs.dimension (name, fallback) VALUES ('none', '(none)')$$);
SELECT refused($$UPDATE cs.dimension SET attribute = 'tier' WHERE name = 'tier'$$);
SELECT refused($$INSERT INTO cs.segment (dimension, name, rule) VALUES ('tier', '', 'true')$$);
SELECT refused($$INSERT INTO cs.segment (dimension, name, rule) VALUES ('teir', 'x', 'true')$$);
SELECT refused($$DELETE FROM cs.dimension WHERE name = 'tier'$$);
SELECT refused($$UPDATE cs.dimension SET name = 'level' WHERE name = 'tier'$$);
SELECT refused($$DELETE FROM cs.metric WHERE name = 'mrr'$$);

SELECT dimension, name, rule FROM cs.segment ORDER BY 1, 2;
SELECT name, sees FROM cs.dimension ORDER BY 1;
DROP FUNCTION rule, refused, volatile_one;
\pset tuples_only off
DROP EXTENSION cs_ext;
CREATE EXTENSION cs_ext;
