-- Sources: what add_source refuses and how it says so, and what it accepts.
\set VERBOSITY default
\set SHOW_CONTEXT never
SET client_min_messages = warning;
\set ECHO all
-- before set-up
SELECT * FROM cs.add_source('a', 'ticket', 'pg_class', '{}');
CREATE ROLE regress_run_add_source;
SELECT cs.setup(time_zone => 'Asia/Tokyo', currency => 'JPY', template => NULL, run_as => 'regress_run_add_source');

CREATE SCHEMA app;
CREATE TABLE app.account (id bigint PRIMARY KEY, name text, signup date, tags text[], "Csm Name" text);
CREATE TABLE app.contract (
	id uuid PRIMARY KEY DEFAULT gen_random_uuid(), account_id bigint, start_date date, end_date date,
	price numeric, unit text, n int, seats int, trial text, attributes jsonb, created timestamp);
CREATE FUNCTION app.noise(x numeric) RETURNS numeric LANGUAGE sql VOLATILE AS 'SELECT x';
CREATE SEQUENCE app.counter;
CREATE TYPE app.pair AS (a int, b int);
CREATE TABLE app.odd (id app.pair, ids int[], at timestamptz);
CREATE COLLATION app.loose (provider = icu, locale = 'und', deterministic = false);
CREATE TABLE app.loose_ids (id text COLLATE app.loose, at timestamptz);
CREATE TEMP TABLE session_table (id int, at timestamptz);

\set try 'SELECT count(*) FROM cs.add_source'
-- the SQLSTATE is what matters first
\set VERBOSITY sqlstate
-- names, kinds, words
:try('Contract', 'subscription', 'app.contract', '{}');
:try('contract', 'subscripton', 'app.contract', '{}');
:try('contract', 'licence', 'app.contract', '{}');
:try('contract', 'customer_merge', 'app.contract', '{}');
:try('ticket', 'other', 'app.contract', '{}');
:try('contract', 'subscription', 'app.contract', '{}', capture => 'watermark');
:try('contract', 'subscription', 'app.contract', '{}', capture => 'window');
:try('contract', 'subscription', 'app.contract', '{}', capture => 'magic');
:try('contract', 'subscription', 'app.contract', '{}', terms => 'current');
:try('contract', 'subscription', 'app.contract', '{}', terms => 'forever');
:try('contract', 'subscription', NULL, '{}');
:try('contract', 'subscription', 'app.gone', '{}');
:try('contract', 'subscription', 987654321, '{}');
:try('contract', 'subscription', 'app.counter', '{}');
:try('contract', 'other', 'session_table', '{"customer_id": "id"}');
:try('contract', 'other', 'pg_class', '{"customer_id": "oid"}');
:try('contract', 'other', 'cs.policy', '{"customer_id": "id"}');
-- columns
:try('contract', 'subscription', 'app.contract', '[]');
:try('contract', 'subscription', 'app.contract', '{"customer_id": 1}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": " "}');
:try('contract', 'subscription', 'app.contract', '{"customer": "account_id"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "strat_at": "start_date"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "mrr": "price"}');
:try('contract', 'subscription', 'app.contract', '{"start_at": "start_date", "mrr": "price"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date", "mrr": "price", "amount": "price", "interval": "unit"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date", "amount": "price"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date", "mrr": "price", "interval": "unit"}');
:try('contract', 'subscription', 'app.contract', '{"user_id": "account_id", "start_at": "start_date", "mrr": "price"}');
-- expressions
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id +", "start_at": "start_date", "mrr": "price"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date", "mrr": "price) FROM app.account; --"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date", "mrr": "price), (seats"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date", "mrr": "price AS p"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_dat", "mrr": "price"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date", "mrr": "nosuch(price)"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date", "mrr": "sum(price)"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date", "mrr": "row_number() OVER ()"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date", "mrr": "generate_series(1, n)"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date", "mrr": "app.noise(price)"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date", "mrr": "nextval(''app.counter'')"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "clock_timestamp()", "mrr": "price"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "unit", "mrr": "price"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "n", "mrr": "price"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date", "mrr": "unit"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date", "mrr": "price", "is_trial": "trial"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date", "mrr": "price", "term_months": "price"}');
:try('account', 'customer', 'app.account', '{"customer_id": "id", "attributes": "tags"}');
:try('odd', 'other', 'app.odd', '{"customer_id": "id"}');
:try('odd', 'other', 'app.odd', '{"customer_id": "ids"}');
:try('loose', 'other', 'app.loose_ids', '{"customer_id": "id"}');
:try('contract', 'other', 'app.contract', '{"customer_id": "account_id", "x_": "n"}');
-- nothing was left behind
SELECT count(*) FROM cs.source;
SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'cs_capture%';

-- how it reads
\set VERBOSITY default
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "strat_at": "start_date"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "mrr": "price"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_dat + 1", "mrr": "price"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "unit", "mrr": "price"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date", "mrr": "price * (1 +"}');
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date", "mrr": "app.noise(price)"}');
:try('contract', 'licence', 'app.contract', '{}');
:try('contract', 'subscripton', 'app.contract', '{}');

-- accepted
INSERT INTO app.account VALUES (1, 'One', '2024-01-01', '{}', 'Ann');
INSERT INTO app.contract (id, account_id, start_date, end_date, price, unit, n) VALUES
	('00000000-0000-0000-0000-000000000001', 1, '2024-01-01', '2024-12-31', 120, 'Year', 1);
SET client_min_messages = notice;
SELECT * FROM cs.add_source('contract', 'subscription', 'app.contract',
	'{"customer_id": "account_id", "start_at": "start_date", "end_at": "end_date + 1", "amount": "price", "interval": "unit", "interval_count": "n", "x_big": "price > 100"}');
SELECT * FROM cs.add_source('account', 'customer', 'app.account', '{"customer_id": "id", "name": "name", "owner": "\"Csm Name\"", "created_at": "signup", "attributes": "jsonb_build_object(''tags'', tags)"}');
SELECT * FROM cs.add_source('plain', 'other', 'app.account', '{"customer_id": "''A'' || id", "x_n": "1"}') WHERE mapped_to IS NOT NULL;
\set VERBOSITY sqlstate
:try('contract', 'subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date", "mrr": "price"}');
\set VERBOSITY default
SELECT name, kind, relation, columns, capture, terms FROM cs.source ORDER BY name;
SELECT source, capture, capture_reason FROM cs_internal.source_state ORDER BY source;
SELECT tgname, tgenabled FROM pg_trigger WHERE tgname LIKE 'cs_capture%' ORDER BY tgname;
SELECT has_table_privilege('regress_run_add_source', 'app.contract', 'SELECT') AND has_schema_privilege('regress_run_add_source', 'app', 'USAGE') AS can_read;

-- preview and suggestion
SELECT * FROM cs.preview_source('subscription', 'app.contract', '{"customer_id": "account_id", "start_at": "start_date", "end_at": "start_date - 1", "mrr": "price"}');
SELECT cs.suggest_source('app.account');
SELECT cs.suggest_source('app.odd');
SELECT cs.preview_source('subscription', 'app.contract', '{}', 0);

-- dropped by name
SELECT cs.drop_source('contrac');
SELECT cs.drop_source('plain');
SELECT cs.drop_source('contract');
SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'cs_capture_contract%';

-- ready-made tables
SELECT * FROM cs.create_tables('facts');
SELECT * FROM cs.create_tables('cs');
SELECT count(*) FROM pg_trigger t WHERE tgname LIKE 'cs_capture%' AND tgenabled = 'A';
SELECT c.relname, r.rolname = current_user AS mine, NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e') AS free
FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.relnamespace = 'facts'::regnamespace AND c.relkind = 'r' ORDER BY 1;

-- rights
SET client_min_messages = warning;
CREATE ROLE regress_cs_outsider;
CREATE ROLE regress_cs_member IN ROLE regress_run_add_source;
GRANT USAGE ON SCHEMA cs, app TO regress_cs_outsider;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cs TO regress_cs_outsider;
SET ROLE regress_cs_outsider;
:try('t', 'other', 'app.odd', '{"customer_id": "at::text"}');
SELECT cs.drop_source('account');
RESET ROLE;
SET ROLE regress_cs_member;
:try('t', 'other', 'app.odd', '{"customer_id": "at::text"}');
RESET ROLE;
GRANT SELECT ON app.odd TO regress_run_add_source;
CREATE TABLE app.plain_ids (id int, at timestamptz);
GRANT SELECT ON app.plain_ids TO regress_run_add_source;
SET ROLE regress_cs_member;
:try('t', 'other', 'app.odd', '{"customer_id": "at::text"}');
:try('p', 'other', 'app.plain_ids', '{"customer_id": "id"}');
:try('p', 'other', 'app.plain_ids', '{"customer_id": "id"}', capture => 'scan');
SELECT * FROM cs_internal.change_log;
INSERT INTO cs.source (name, kind, relation, columns) VALUES ('x', 'other', 'app.odd', '{}');
RESET ROLE;

-- the caller's lock_timeout is as it was
SHOW lock_timeout;

-- the facts outlive the extension, the triggers do not
SET client_min_messages = error;
DROP EXTENSION cs_ext;
SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'cs_capture%';
SELECT count(*) FROM app.contract;
CREATE EXTENSION cs_ext;
DROP SCHEMA app, facts CASCADE;
DROP ROLE regress_cs_outsider, regress_cs_member;
DROP OWNED BY regress_run_add_source;
DROP ROLE regress_run_add_source;
