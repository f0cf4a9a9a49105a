-- SQL that users write is contained: it runs as policy.run_as, reads only what
-- that role may read, leaves nothing behind and ends in time, and what is wrong
-- with one definition harms no other.
SET client_min_messages = warning;
SET cs_ext.now = '2025-01-01';
SELECT cs.setup('Europe/Berlin', 'EUR', template => NULL);
SELECT * FROM no_plan();

CREATE SCHEMA app;
CREATE TABLE app.customer (customer_id text PRIMARY KEY, name text, created_at timestamptz);
CREATE TABLE app.ticket (ticket_id int PRIMARY KEY, customer_id text, opened_at timestamptz, weight int);
CREATE TABLE app.secret (n int);
INSERT INTO app.secret VALUES (42);
INSERT INTO app.customer SELECT 'c' || i, 'Customer ' || i, '2024-01-01' FROM generate_series(1, 30) i;
INSERT INTO app.ticket SELECT i, 'c' || i, '2024-06-01', i - 7 FROM generate_series(1, 30) i;
CREATE TABLE app.trace (what text);
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT ALL ON app.trace TO cs_ext_run;
SELECT count(*) FROM cs.add_source('customer', 'customer', 'app.customer', '{"customer_id": "customer_id", "name": "name", "created_at": "created_at"}');
SELECT count(*) FROM cs.add_source('ticket', 'ticket', 'app.ticket', '{"customer_id": "customer_id", "opened_at": "opened_at", "x_weight": "weight"}');

-- Functions that lie about being STABLE.
CREATE FUNCTION app.lies_write() RETURNS int LANGUAGE plpgsql STABLE AS $$
BEGIN EXECUTE 'INSERT INTO app.trace VALUES (''written'')'; RETURN 1; END $$;
CREATE FUNCTION app.lies_set() RETURNS int LANGUAGE plpgsql STABLE AS $$
BEGIN PERFORM set_config('cs_ext.actor', 'somebody else', false); PERFORM set_config('search_path', 'app', false); RETURN 1; END $$;
CREATE FUNCTION app.lies_notify() RETURNS int LANGUAGE plpgsql STABLE AS $$
BEGIN PERFORM pg_notify('cs_alert', 'forged'); RETURN 1; END $$;
CREATE FUNCTION app.lies_object() RETURNS int LANGUAGE plpgsql STABLE AS $$
BEGIN PERFORM lo_create(4711); RETURN 1; END $$;
CREATE FUNCTION app.loops() RETURNS int LANGUAGE plpgsql STABLE AS $$
BEGIN LOOP END LOOP; END $$;
CREATE FUNCTION app.sleeps() RETURNS int LANGUAGE plpgsql STABLE AS $$
BEGIN PERFORM pg_sleep(600); RETURN 1; END $$;
CREATE FUNCTION app.who() RETURNS int LANGUAGE sql STABLE AS
$$ SELECT CASE WHEN current_user = 'cs_ext_run' AND current_setting('TimeZone') = 'Europe/Berlin' AND current_setting('row_security') = 'off'
	AND current_setting('transaction_read_only') = 'on' THEN 1 ELSE 0 END $$;
CREATE FUNCTION app.reads_secret() RETURNS int LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (SELECT n FROM app.secret); END $$;
CREATE FUNCTION app.reads_ours() RETURNS int LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (SELECT count(*) FROM cs_internal.customer); END $$;
CREATE FUNCTION app.becomes_owner() RETURNS int LANGUAGE plpgsql STABLE AS $$
BEGIN SET LOCAL ROLE NONE; RETURN 1; END $$;

SET search_path = app, public;
INSERT INTO cs.metric (name, source, expression) VALUES
	('fine', 'ticket', 'count(*)'),
	('runs_as', 'ticket', 'who()'),
	('divides', 'ticket', 'sum(10 / x_weight)'),
	('lies_write', 'ticket', 'lies_write()'),
	('lies_set', 'ticket', 'lies_set()'),
	('lies_notify', 'ticket', 'lies_notify()'),
	('lies_object', 'ticket', 'lies_object()'),
	('loops', 'ticket', 'loops()'),
	('sleeps', 'ticket', 'sleeps()'),
	('reads_secret', 'ticket', 'reads_secret()'),
	('reads_ours', 'ticket', 'reads_ours()'),
	('becomes_owner', 'ticket', 'becomes_owner()');
RESET search_path;

LISTEN cs_alert;
SET cs_ext.user_sql_timeout = '50ms';
SELECT lives_ok('CALL cs.refresh(commit => false)', 'a refresh outlives every bad definition');
RESET cs_ext.user_sql_timeout;

SELECT is((SELECT sum(value) FROM cs.customer_metric WHERE metric = 'fine'), 30::float8, 'other metrics are there');
SELECT is((SELECT avg(value) FROM cs.customer_metric WHERE metric = 'runs_as'), 1::float8,
	'it runs as run_as, read-only, in the policy''s zone, with row_security off');
SELECT is((SELECT array_agg(customer_id) FROM cs.customer_metric WHERE metric = 'divides' AND value IS NULL), '{c7}'::text[],
	'a division by zero on one customer leaves that one missing');
SELECT is((SELECT array_agg(object ORDER BY object) FROM cs.doctor() WHERE "check" = 'definition' AND remedy LIKE '%cheaper%'),
	'{metric loops,metric sleeps}'::text[], 'the doctor tells what is slow from what is wrong');
SELECT is((SELECT sqlstate || ' ' || customers || ' ' || example FROM cs_internal.definition_status WHERE key = 'divides'), '22012 1 c7',
	'and is reported with its SQLSTATE and the customer');
SELECT is((SELECT count(*) FROM app.trace), 0::bigint, 'nothing was written');
SELECT is((SELECT sqlstate FROM cs_internal.definition_status WHERE key = 'lies_write'), '0A000', 'writing is refused');
SELECT is(current_setting('cs_ext.actor') || current_setting('search_path'), '"$user", public', 'settings are as before');
SELECT is((SELECT count(*) FROM pg_largeobject_metadata WHERE oid = 4711), 0::bigint, 'no large object is left');
SELECT is((SELECT string_agg(key || ' ' || sqlstate, ', ' ORDER BY key) FROM cs_internal.definition_status WHERE key IN ('loops', 'sleeps')),
	'loops 57014, sleeps 57014', 'endless loops and sleeps end in time');
SELECT is((SELECT string_agg(key || ' ' || sqlstate, ', ' ORDER BY key) FROM cs_internal.definition_status WHERE key LIKE 'reads%'),
	'reads_ours 42501, reads_secret 42501', 'it reads only what run_as may read');
SELECT is((SELECT sqlstate FROM cs_internal.definition_status WHERE key = 'becomes_owner'), '0A000', 'it cannot become somebody else');
SELECT is((SELECT count(*) FROM cs_internal.definition_status), 8::bigint, 'failing definitions, and only those, are listed');

-- What does not even get in.
PREPARE volatile_metric AS INSERT INTO cs.metric (name, source, expression) VALUES ('v', 'ticket', 'count(*) + random()');
SELECT throws_ok('volatile_metric', '0A000', NULL, 'a volatile function is refused when written');
PREPARE closing AS INSERT INTO cs.metric (name, source, expression) VALUES ('v', 'ticket', '1) FROM app.secret; SELECT (2');
SELECT throws_ok('closing', '42601', NULL, 'text that closes the parenthesis is refused');
PREPARE commented AS INSERT INTO cs.metric (name, source, expression) VALUES ('v', 'ticket', 'count(*) -- ');
SELECT lives_ok('commented', 'a comment at the end harms nothing');
DELETE FROM cs.metric WHERE name = 'v';
PREPARE subselect AS INSERT INTO cs.metric (name, source, expression) VALUES ('v', 'ticket', '(SELECT n FROM app.secret)');
SELECT throws_ok('subselect', '42501', NULL, 'reading a table that run_as may not read is refused when written');

-- Rights: nothing for PUBLIC, definitions for members of run_as only.
CREATE ROLE cs_ext_test_plain;
CREATE ROLE cs_ext_test_member;
CREATE ROLE cs_ext_test_reader;
CREATE ROLE cs_ext_test_csm;
GRANT cs_ext_run TO cs_ext_test_member;
SELECT cs.grant_reader('cs_ext_test_reader');
SELECT cs.grant_csm('cs_ext_test_csm');
SELECT is((SELECT count(*) FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
	WHERE p.pronamespace IN ('cs'::regnamespace, 'cs_internal'::regnamespace) AND a.grantee = 0), 0::bigint, 'no function is PUBLIC''s');
SELECT is((SELECT count(*) FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
	WHERE c.relnamespace IN ('cs'::regnamespace, 'cs_internal'::regnamespace) AND c.relkind IN ('r', 'v', 'S') AND a.grantee = 0), 0::bigint, 'no table or view is PUBLIC''s');
SELECT is(has_schema_privilege('cs_ext_test_plain', 'cs', 'USAGE') OR has_schema_privilege('cs_ext_run', 'cs_internal', 'USAGE'), false,
	'schemas are closed to strangers, cs_internal to everybody');

GRANT USAGE ON SCHEMA public TO cs_ext_test_plain, cs_ext_test_member, cs_ext_test_reader, cs_ext_test_csm;
SET ROLE cs_ext_test_plain;
SELECT throws_ok('SELECT * FROM cs.customer_360', '42501', NULL, 'a plain role reads nothing');
SELECT throws_ok('SELECT cs.mrr()', '42501', NULL, 'a plain role calls nothing');
SET ROLE cs_ext_test_reader;
SELECT lives_ok(format('SELECT * FROM cs.%I', relname), format('a reader reads cs.%I', relname))
FROM pg_class WHERE relnamespace = 'cs'::regnamespace AND relkind = 'v' ORDER BY relname;
SELECT is((SELECT count(*) FROM cs.customer_360), 30::bigint, 'a reader reads the views');
SELECT lives_ok('SELECT cs.mrr()', 'a reader calls what reads');
SELECT throws_ok('SELECT * FROM cs_internal.state', '42501', NULL, 'a reader sees no internal table');
SELECT throws_ok($$INSERT INTO cs.metric (name, source, expression) VALUES ('r', 'ticket', 'count(*)')$$, '42501', NULL, 'a reader writes no definition');
SELECT throws_ok($$SELECT cs.refresh_customer('c1')$$, '42501', NULL, 'a reader does not act');
RESET ROLE;
SET cs_ext.user_sql_timeout = '50ms';   -- the metrics that never end are still there
SET ROLE cs_ext_test_csm;
SELECT lives_ok($$SELECT cs.refresh_customer('c1')$$, 'a csm acts on customers');
SELECT lives_ok($$SELECT * FROM cs.alert_changes(0, 10)$$, 'and polls alerts');
SELECT throws_ok($$INSERT INTO cs.metric (name, source, expression) VALUES ('r', 'ticket', 'count(*)')$$, '42501', NULL, 'but writes no definition');
SELECT throws_ok($$SELECT cs.setup('UTC', 'EUR')$$, '42501', NULL, 'and does not operate');
SET ROLE cs_ext_test_member;
SELECT lives_ok($$INSERT INTO cs.metric (name, source, expression) VALUES ('by_member', 'ticket', 'count(*)')$$, 'a member of run_as writes definitions');
SELECT throws_ok($$SELECT * FROM cs_internal.state$$, '42501', NULL, 'and still sees no internal table');
RESET ROLE;
SELECT is((SELECT actor FROM cs_internal.definition_history ORDER BY id DESC LIMIT 1), session_user::text, 'history names who did it');
SELECT * FROM finish();
DROP OWNED BY cs_ext_test_csm, cs_ext_test_reader, cs_ext_test_member, cs_ext_test_plain;
DROP ROLE cs_ext_test_csm, cs_ext_test_reader, cs_ext_test_member, cs_ext_test_plain;
