-- How long a metric and an alert rule that raise are shown as failing: until those
-- they failed for, or everybody, were tried again; a refresh of some of them is not
-- enough, and nobody who is gone keeps a mark.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SELECT * FROM no_plan();
SET cs_ext.now = '2026-03-02 12:00+00';
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL) IS NULL AS done \gset
CREATE SCHEMA app;
CREATE TABLE app.customer (id text PRIMARY KEY);
CREATE TABLE app.ticket (customer_id text, at timestamptz DEFAULT '2026-03-01', n integer);
INSERT INTO app.customer VALUES ('a'), ('b'), ('c'), ('d');
INSERT INTO app.ticket (customer_id, n) VALUES ('a', 0), ('b', 0), ('c', 0), ('d', 1);
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO cs_ext_run;
SELECT count(*) AS mapped FROM cs.add_source('customer', 'customer', 'app.customer', '{"customer_id": "id"}') \gset
SELECT count(*) AS mapped FROM cs.add_source('ticket', 'ticket', 'app.ticket', '{"customer_id": "customer_id", "opened_at": "at", "x_n": "n"}') \gset
INSERT INTO cs.metric (name, source, expression) VALUES ('least', 'ticket', 'min(x_n)'), ('inverse', 'ticket', '1 / min(x_n)');
INSERT INTO cs.alert_rule (name, rule) VALUES ('fragile', '1 / least > 5');
CREATE VIEW app.failing AS SELECT key || ' ' || customers || ' ' || example AS mark FROM cs.definition_status WHERE status = 'failing';
CREATE FUNCTION app.put(customer text, n integer) RETURNS void LANGUAGE sql AS 'UPDATE app.ticket SET n = $2 WHERE customer_id = $1';

CALL cs.refresh();
SELECT set_eq('TABLE app.failing', '{inverse 3 a,fragile 3 a}'::text[], 'they fail for three customers');

-- ---- some of them
SELECT app.put('a', 1) \g /dev/null
CALL cs.refresh();
SELECT is((SELECT jsonb_agg(customer_id ORDER BY customer_id) FROM cs.customer_metric WHERE metric = 'inverse' AND value IS NOT NULL), '["a", "d"]', 'the one that is shown has a value again');
SELECT set_eq('TABLE app.failing', '{inverse 3 a,fragile 3 a}'::text[], 'and two others have not: it goes on being shown');
SELECT app.put('b', 0) \g /dev/null
CALL cs.refresh();
SELECT set_eq('TABLE app.failing', '{inverse 3 b,fragile 3 b}'::text[], 'one alone that fails again says nothing of the others');
SELECT app.put(c, 1) FROM unnest('{b,c}'::text[]) c \g /dev/null
SELECT cs.refresh_customer('b') \g /dev/null
SELECT set_eq('TABLE app.failing', '{inverse 3 b,fragile 3 b}'::text[], 'nor one that is refreshed on his own');
CALL cs.refresh();
SET cs_ext.now = '2026-03-03 12:00+00';
CALL cs.refresh();
SELECT is_empty('TABLE app.failing', 'when everybody was evaluated it goes');

-- ---- all of them
SELECT app.put(c, 0) FROM unnest('{b,c}'::text[]) c \g /dev/null
CALL cs.refresh();
SELECT set_eq('TABLE app.failing', '{inverse 2 b,fragile 2 b}'::text[], 'they fail for two');
SELECT app.put(c, 2) FROM unnest('{b,c}'::text[]) c \g /dev/null
CALL cs.refresh();
SELECT is_empty('TABLE app.failing', 'both work again: it goes at once');

-- ---- a batch after the other
SET cs_ext.refresh_batch = 2;
SELECT app.put('a', 0) \g /dev/null
SET cs_ext.now = '2026-03-04 12:00+00';
CALL cs.refresh();
SELECT set_eq('TABLE app.failing', '{inverse 1 a,fragile 1 a}'::text[], 'a batch that works says nothing of the one before it');
RESET cs_ext.refresh_batch;

-- ---- who is shown is gone
SELECT app.put('b', 0) \g /dev/null
CALL cs.refresh();
DELETE FROM app.customer WHERE id IN ('a', 'b');
DELETE FROM app.ticket WHERE customer_id IN ('a', 'b');
CALL cs.refresh();
SET cs_ext.now = '2026-03-05 12:00+00';
CALL cs.refresh();
SELECT is_empty('TABLE app.failing', 'who is no customer any more keeps no mark');
SELECT * FROM finish();
