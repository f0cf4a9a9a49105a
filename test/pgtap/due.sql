-- When a customer is due: facts dated ahead, found by reading the facts of a batch,
-- which is left out where a source is known to have none.
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SET cs_ext.now = '2024-03-10 09:00Z';
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL) \g /dev/null
SELECT * FROM no_plan();
CREATE SCHEMA app;
CREATE TABLE app.customer (id text PRIMARY KEY, name text, since timestamptz);
CREATE TABLE app.answer (customer text, kind text, score numeric, at timestamptz);
CREATE TABLE app.visit (customer text, at timestamptz, x_until timestamptz);
INSERT INTO app.customer SELECT 'c' || g, 'Customer ' || g, '2023-06-01' FROM generate_series(1, 40) g;
INSERT INTO app.answer SELECT 'c' || g, 'nps', 7, '2024-02-01' FROM generate_series(1, 40) g;
INSERT INTO app.visit SELECT 'c' || g, '2024-02-01', '2024-02-02' FROM generate_series(1, 40) g;
CREATE INDEX ON app.answer (customer);
CREATE INDEX ON app.answer (at);
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO cs_ext_run;
SELECT cs.add_source('customers', 'customer', 'app.customer', '{"customer_id": "id", "name": "name", "created_at": "since"}') \g /dev/null
SELECT cs.add_source('answers', 'survey', 'app.answer', '{"customer_id": "customer", "kind": "kind", "score": "score", "at": "at"}') \g /dev/null
SELECT cs.add_source('visits', 'other', 'app.visit', '{"customer_id": "customer", "at": "at", "x_until": "x_until"}') \g /dev/null
CALL cs.refresh();

CREATE FUNCTION public.due(id text) RETURNS text LANGUAGE sql AS
$$ SELECT to_char(due_at, 'DD HH24:MI:SS.US') FROM cs_internal.state WHERE customer_id = id $$;
CREATE FUNCTION public.scans(relation regclass) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_stat_clear_snapshot();
	RETURN (SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relid = relation);
END $$;
SELECT is((SELECT count(*) FROM cs_internal.state WHERE due_at = '2024-03-11'), 40::bigint, 'nothing ahead: everybody is due at midnight');
SELECT is((SELECT array_agg(source ORDER BY source) FROM cs_internal.source_state WHERE bounded), '{answers,customers,visits}', 'of all sources it is known how far they reach');

-- everybody is evaluated anew, for no fact's sake
SELECT pg_stat_force_next_flush() \g /dev/null
SELECT public.scans('app.answer') AS answers, public.scans('app.visit') AS visits \gset
INSERT INTO cs_internal.dirty (customer_id, marked_at) SELECT customer_id, clock_timestamp() FROM cs_internal.customer;
CALL cs.refresh();
SELECT pg_stat_force_next_flush() \g /dev/null
SELECT is(public.scans('app.answer') - :answers, 0::bigint, 'a source without anything ahead is not read for it');
SELECT cmp_ok(public.scans('app.visit') - :visits, '>', 0::bigint, 'one with instants of its own is');

-- ahead, by the anchor
INSERT INTO app.answer VALUES ('c3', 'nps', 9, '2024-03-10 14:30Z');
CALL cs.refresh();
SELECT is(public.due('c3'), '10 14:30:00.000001', 'a fact dated ahead has its customer evaluated at its instant');
SELECT is(public.due('c4'), '11 00:00:00.000000', 'others are due at midnight');
INSERT INTO cs_internal.dirty (customer_id, marked_at) SELECT customer_id, clock_timestamp() FROM cs_internal.customer;
CALL cs.refresh();
SELECT is(public.due('c3'), '10 14:30:00.000001', 'also when he is evaluated for another reason');
UPDATE app.customer SET since = '2024-03-10 11:00Z' WHERE id = 'c5';
CALL cs.refresh();
SELECT is(public.due('c5'), '10 11:00:00.000001', 'so has a customer who is announced');
UPDATE app.visit SET x_until = '2024-03-10 12:00Z' WHERE customer = 'c6';
CALL cs.refresh();
SELECT is(public.due('c6'), '10 12:00:00.000001', 'and an instant that is no anchor');
SET cs_ext.now = '2024-03-10 15:00Z';
CALL cs.refresh();
SELECT is((SELECT count(*) FROM cs_internal.state WHERE due_at <> '2024-03-11'), 0::bigint, 'when all have come, midnight is next');

-- with what is not yet committed
BEGIN;
INSERT INTO app.answer VALUES ('c7', 'nps', 9, '2024-03-10 18:00Z');
SELECT cs.refresh_customer('c7') \g /dev/null
SELECT is(public.due('c7'), '10 18:00:00.000001', 'cs.refresh_customer() sees what its transaction wrote');
ROLLBACK;

-- a bound that is not known is not trusted
UPDATE cs_internal.source_state SET bounded = false WHERE source = 'answers';
SELECT pg_stat_force_next_flush() \g /dev/null
SELECT public.scans('app.answer') AS answers \gset
INSERT INTO cs_internal.dirty (customer_id, marked_at) SELECT customer_id, clock_timestamp() FROM cs_internal.customer;
CALL cs.refresh();
SELECT pg_stat_force_next_flush() \g /dev/null
SELECT cmp_ok(public.scans('app.answer') - :answers, '>', 0::bigint, 'a source that may reach further is read');
SELECT * FROM finish();
