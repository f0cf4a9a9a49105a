-- SQL of a definition that never ends costs its time a few times, not in every
-- batch and for every customer; its status says so all along, and others have
-- their values. How often it ran is counted by a lock of the session that it
-- takes, which no rollback takes back.
SET client_min_messages = error;
SET cs_ext.now = '2025-01-01';
SELECT cs.setup('Europe/Berlin', 'EUR', template => NULL);
SELECT * FROM no_plan();

CREATE SCHEMA app;
CREATE TABLE app.customer (customer_id text PRIMARY KEY, name text, created_at timestamptz);
CREATE TABLE app.ticket (ticket_id int PRIMARY KEY, customer_id text, opened_at timestamptz, weight int);
INSERT INTO app.customer SELECT 'c' || i, 'Customer ' || i, '2024-01-01' FROM generate_series(1, 30) i;
INSERT INTO app.ticket SELECT i, 'c' || i, '2024-06-01', i FROM generate_series(1, 30) i;
GRANT USAGE ON SCHEMA app TO cs_ext_run;
SELECT count(*) FROM cs.add_source('customer', 'customer', 'app.customer', '{"customer_id": "customer_id", "name": "name", "created_at": "created_at"}');
SELECT count(*) FROM cs.add_source('ticket', 'ticket', 'app.ticket', '{"customer_id": "customer_id", "ticket_id": "ticket_id", "opened_at": "opened_at", "x_weight": "weight"}');

CREATE FUNCTION app.forever(which int) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN PERFORM pg_advisory_lock(4711, which); LOOP END LOOP; END $$;
-- Never ends for one customer alone.
CREATE FUNCTION app.forever_of(weight bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN IF weight = 17 THEN PERFORM app.forever(4); END IF; RETURN weight; END $$;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA app TO cs_ext_run;
CREATE FUNCTION public.ran(which int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE n int := 0;
BEGIN WHILE pg_advisory_unlock(4711, which) LOOP n := n + 1; END LOOP; RETURN n; END $$;

INSERT INTO cs.metric (name, source, expression) VALUES
	('fine', 'ticket', 'count(*)'),
	('endless', 'ticket', 'app.forever(1)::int'),
	('endless_formula', 'formula', 'CASE WHEN app.forever(5) THEN fine END');
INSERT INTO cs.dimension (name) VALUES ('kind');
INSERT INTO cs.segment (dimension, name, rule, priority) VALUES ('kind', 'endless', 'app.forever(2)', 1), ('kind', 'fine', 'fine = 1', 2);
INSERT INTO cs.alert_rule (name, source, rule, key) VALUES ('endless_row', 'ticket', 'app.forever(3)', 'ticket_id');
SET cs_ext.refresh_batch = 5;
SET cs_ext.user_sql_timeout = '500ms';

CALL cs.refresh();
SELECT is((SELECT count(*) FROM cs.customer_metric WHERE metric = 'fine' AND value = 1), 30::bigint, 'six batches: others have their values');
SELECT is((SELECT count(*) FROM cs.customer_segment WHERE segment = 'fine'), 0::bigint, 'a segment behind one that is not known is not known');
SELECT is(public.ran(1), 3, 'a metric: with the others, alone, and for one customer');
SELECT is(public.ran(2), 2, 'a rule: with the others, and alone');
SELECT is(public.ran(3), 1, 'a rule over rows: once');
SELECT is(public.ran(5), 1, 'a formula: once');
CREATE VIEW public.said AS SELECT key, sqlstate, error ~ 'user_sql_timeout \(500 ms\)' AS said FROM cs_internal.definition_status ORDER BY key COLLATE "C";
PREPARE expected AS VALUES ('endless', '57014', true), ('endless_formula', '57014', true), ('endless_row', '57014', true), ('kind.endless', '57014', true);
SELECT results_eq('SELECT regexp_replace(key, ''^kind[^a-z]+'', ''kind.''), sqlstate::text, said FROM public.said', 'expected', 'the status says why');

-- what is left out says the same
DELETE FROM cs_internal.definition_status;
SELECT cs.refresh_customer('c3');
SELECT is(public.ran(1) + public.ran(2) + public.ran(3) + public.ran(5), 0, 'shortly after, nothing of it is tried');
SELECT results_eq('SELECT regexp_replace(key, ''^kind[^a-z]+'', ''kind.''), sqlstate::text, said FROM public.said', 'expected', 'and its status is the same');

-- who asks for a refresh, or changes it
UPDATE app.ticket SET weight = weight WHERE ticket_id = 9;
CALL cs.refresh();
SELECT cmp_ok(public.ran(1), '>=', 1, 'who calls for a refresh has it tried');
SELECT is(public.ran(2), 2, 'rules too');
UPDATE cs.metric SET expression = 'sum(app.forever_of(x_weight::bigint))' WHERE name = 'endless';
DELETE FROM cs.metric WHERE name = 'endless_formula';
DELETE FROM cs.alert_rule;
DELETE FROM cs.segment WHERE name = 'endless';
CALL cs.refresh();
SELECT is((SELECT count(*) FROM cs.customer_metric WHERE metric = 'endless' AND value IS NOT NULL), 29::bigint, 'one that never ends for one customer has a value for all others');
SELECT cmp_ok(public.ran(4), '<=', 3, 'and is not given up for his sake');

-- after the pause it is tried again, by a refresh of nobody's asking
UPDATE cs.metric SET expression = 'app.forever(1)::int' WHERE name = 'endless';
SET cs_ext.user_sql_timeout = '30ms';
SELECT cs.refresh_customer('c3');
SELECT public.ran(1) AS ran \gset
SELECT cmp_ok(:ran, '>=', 1, 'another limit, another try');
CREATE FUNCTION public.tried_again() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 200 LOOP
		PERFORM cs.refresh_customer('c3');
		IF public.ran(1) > 0 THEN RETURN true; END IF;
		PERFORM pg_sleep(0.05);
	END LOOP;
	RETURN false;
END $$;
SELECT ok(public.tried_again(), 'and after a while it is tried again');
SELECT * FROM finish();
