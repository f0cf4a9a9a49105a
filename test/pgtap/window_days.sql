-- capture => 'window' reads again the last days, and of a customer who changed there
-- the days that changed: asserted on rows read, and that usage is what plain SQL over
-- the events counts, bit for bit what a rebuild makes of it. One case after the other
-- as src/facts/window.c lists them; the window lies over days without and with two
-- midnights. psql -v seed=N repeats a run.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
\ir ../lib/seed.sql
SELECT * FROM no_plan();
SET jit = off;
-- rows that parallel workers read are not in this session's counters
SET max_parallel_workers_per_gather = 0;
SET TimeZone = 'Asia/Tokyo';
-- On 17 February 2018 the hour before midnight came twice.
SET cs_ext.now = '2018-02-21 12:00-03';
SELECT cs.setup(time_zone => 'America/Sao_Paulo', currency => 'BRL', template => NULL) IS NULL AS done \gset
CREATE SCHEMA app;
INSERT INTO cs.metric (name, source, expression) VALUES ('n', 'usage', 'events(usage, NULL, 60)'), ('q', 'usage', 'quantity(usage, NULL, 5)'), ('u', 'usage', 'active_users(usage, 60)');

CREATE TABLE app.customer (id text PRIMARY KEY);
INSERT INTO app.customer SELECT 'c' || g FROM generate_series(0, 19) g;
CREATE TABLE app.event (id serial PRIMARY KEY, customer_id text, at timestamptz, who integer, amount numeric);
CREATE INDEX ON app.event (customer_id, at);
CREATE INDEX ON app.event (at);
-- ten a day of each customer, on 100 days
INSERT INTO app.event (customer_id, at, who, amount) SELECT 'c' || g % 20, timestamptz '2017-11-13 13:00-02' + g * interval '432 seconds', g % 7, g % 5 FROM generate_series(0, 19999) g;
ANALYZE app.customer, app.event;
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO cs_ext_run;
SELECT count(*) AS mapped FROM cs.add_source('customer', 'customer', 'app.customer', '{"customer_id": "id"}') \gset
SELECT count(*) AS mapped FROM cs.add_source('event', 'usage_event', 'app.event', '{"customer_id": "customer_id", "at": "at", "user_id": "who", "event": "''e''", "quantity": "amount"}', capture => 'window') \gset

-- where usage_daily and a count of the usable events differ
CREATE FUNCTION app.difference() RETURNS text LANGUAGE sql SET TimeZone = 'America/Sao_Paulo' AS $$
	WITH raw AS (SELECT customer_id, at::date AS day, count(*) AS events, sum(amount)::numeric(38,9) AS quantity, count(DISTINCT who) AS active_users FROM app.event
			WHERE customer_id <> '' AND at IS NOT NULL AND amount <> 'NaN' GROUP BY 1, 2),
		kept AS (SELECT customer_id, day, events, quantity, active_users FROM cs.usage_daily)
	SELECT to_jsonb(x)::text FROM ((SELECT 'raw' AS only, * FROM (TABLE raw EXCEPT ALL TABLE kept) r) UNION ALL (SELECT 'kept', * FROM (TABLE kept EXCEPT ALL TABLE raw) k)) x LIMIT 1 $$;
CREATE VIEW app.derived AS
	SELECT 'usage' AS what, customer_id, month::text AS name, usage::text AS value FROM cs_internal.usage_month
	UNION ALL SELECT 'metric', customer_id, metric, value::text FROM cs.customer_metric
	UNION ALL SELECT 'unusable', customer_id, reason, row_count::text FROM cs_internal.unusable;
-- events read in the running transaction: from end to end, by index
CREATE VIEW app.read AS SELECT coalesce(seq_tup_read, 0) AS scanned, coalesce(idx_tup_fetch, 0) AS fetched FROM pg_stat_xact_user_tables WHERE relid = 'app.event'::regclass;
CREATE FUNCTION app.in_window() RETURNS bigint LANGUAGE sql SET TimeZone = 'America/Sao_Paulo' AS
$$ SELECT count(*) FROM app.event WHERE at >= (current_setting('cs_ext.now')::timestamptz::date - 7)::timestamptz $$;

CALL cs.refresh();
SELECT is(app.difference(), NULL, 'everything is read at first');
SELECT scanned_at AS whole_at FROM cs.source_status WHERE source = 'event' \gset

-- ---- nothing changed
SELECT app.in_window() AS window \gset
SELECT pg_stat_force_next_flush() \g /dev/null
BEGIN;
CALL cs.refresh(commit => false);
SELECT is(scanned, 0::bigint, 'a look reads nothing from end to end') FROM app.read;
SELECT is(fetched, :window::bigint, 'but the window by index, once') FROM app.read;
COMMIT;

-- ---- rows come and change
INSERT INTO app.event (customer_id, at, who, amount) VALUES ('c3', '2018-02-20 10:00-03', 99, 1.5), ('c4', '2018-02-17 23:30-02', 98, 2), ('c4', '2018-02-17 23:30-03', 97, 3), ('c4', '2018-02-18 00:00-03', 96, 4);
UPDATE app.event SET amount = amount + 1 WHERE customer_id = 'c5' AND at >= '2018-02-19 00:00-03' AND at < '2018-02-20 00:00-03';
SELECT app.in_window() AS window \gset
SELECT pg_stat_force_next_flush() \g /dev/null
BEGIN;
CALL cs.refresh(commit => false);
SELECT is(scanned, 0::bigint, 'three changed: nothing is read from end to end') FROM app.read;
-- each has 1000 events; of the four days together 40, counted for what is unusable, read, and summed
SELECT cmp_ok(fetched, '<=', :window + 3 * 3 * 45::bigint, 'but the window and the days that changed: ' || fetched || ' of 20000 rows') FROM app.read;
SELECT cmp_ok(fetched, '>', :window::bigint, 'which are counted') FROM app.read;
COMMIT;
SELECT is(app.difference(), NULL, 'and usage is right, in the hour that came twice too');

-- ---- a row moves to another day and another customer, a day and a customer lose all
UPDATE app.event SET customer_id = 'c7', at = at + interval '1 day' WHERE id = (SELECT min(id) FROM app.event WHERE customer_id = 'c6' AND at >= '2018-02-16 00:00-02');
DELETE FROM app.event WHERE customer_id = 'c8' AND at >= '2018-02-16 00:00-02' AND at < '2018-02-17 00:00-02';
DELETE FROM app.event WHERE customer_id = 'c9' AND at >= '2018-02-14 00:00-02';
CALL cs.refresh();
SELECT is(app.difference(), NULL, 'rows that move and go, days that become empty');

-- ---- before the window
BEGIN;
DELETE FROM app.event WHERE id = (SELECT min(id) FROM app.event WHERE customer_id = 'c3');
UPDATE app.event SET amount = 77 WHERE id = (SELECT max(id) FROM app.event WHERE customer_id = 'c3');
CALL cs.refresh(commit => false);
SELECT is((app.difference()::jsonb) - 'events' - 'quantity' - 'active_users', '{"only": "raw", "customer_id": "c3", "day": "2017-11-13"}', 'a change before it is not noticed, though the customer changes inside');
ROLLBACK;

-- ---- rolled back
UPDATE app.event SET amount = 78 WHERE id = (SELECT max(id) FROM app.event WHERE customer_id = 'c3');
BEGIN;
CALL cs.refresh(commit => false);
SELECT is(app.difference(), NULL, 'what a refresh that is rolled back did');
ROLLBACK;
SELECT isnt(app.difference(), NULL, 'is undone with what it remembered');
CALL cs.refresh();
SELECT is(app.difference(), NULL, 'and done by the next');

-- ---- unusable rows
INSERT INTO app.event (customer_id, at, amount) VALUES ('c1', '2018-02-19 10:00-03', 'NaN'), (NULL, '2018-02-19 10:00-03', 1), ('', '2018-02-18 10:00-03', 1), ('c2', NULL, 1);
CALL cs.refresh();
SELECT is(unusable_rows, 4::bigint, 'rows that cannot be used are counted: ' || unusable::text) FROM cs.source_status WHERE source = 'event';
SELECT is(app.difference(), NULL, 'and left out');
UPDATE app.event SET amount = 5 WHERE amount = 'NaN';
DELETE FROM app.event WHERE customer_id IS NULL;
CALL cs.refresh();
SELECT is(unusable_rows, 2::bigint, 'one is mended, one gone: ' || unusable::text) FROM cs.source_status WHERE source = 'event';
DELETE FROM app.event WHERE customer_id = '';
UPDATE app.event SET at = '2018-02-18 00:00-03' WHERE at IS NULL;
CALL cs.refresh();
SELECT is(unusable_rows, 0::bigint, 'and all of them') FROM cs.source_status WHERE source = 'event';
SELECT is(app.difference(), NULL, 'what can be used now is');

-- ---- who is not a customer
INSERT INTO app.event (customer_id, at, amount) VALUES ('stranger', '2018-02-20 11:00-03', 1);
CALL cs.refresh();
SELECT is(orphans, 1::bigint, 'an id that is no customer') FROM cs.source_status WHERE source = 'event';
DELETE FROM app.event WHERE customer_id = 'stranger';
CALL cs.refresh();
SELECT is(orphans, 0::bigint, 'and goes') FROM cs.source_status WHERE source = 'event';

-- ---- the window moves
SET cs_ext.now = '2018-02-22 00:30-03';
SELECT app.in_window() AS window \gset
SELECT pg_stat_force_next_flush() \g /dev/null
BEGIN;
CALL cs.refresh(commit => false);
SELECT is(fetched, :window::bigint, 'at the turn of the day the window is read and no customer') FROM app.read;
COMMIT;
BEGIN;
DELETE FROM app.event WHERE at >= '2018-02-14 00:00-02' AND at < '2018-02-15 00:00-02';
CALL cs.refresh(commit => false);
SELECT is((app.difference()::jsonb)->>'day', '2018-02-14', 'a day that it left is kept');
ROLLBACK;

-- ---- it becomes wider
UPDATE app.event SET amount = 9 WHERE id = (SELECT max(id) FROM app.event WHERE customer_id = 'c11' AND at < '2018-02-12 00:00-02');
CALL cs.refresh();
SELECT isnt(app.difference(), NULL, 'a change of ten days ago is not in a window of seven days');
UPDATE cs.source SET capture = 'window 14' WHERE name = 'event';
CALL cs.refresh();
SELECT is(app.difference(), NULL, 'but in one of fourteen');
SELECT is(scanned_at, :'whole_at'::timestamptz, 'all of it without reading the source whole') FROM cs.source_status WHERE source = 'event';

-- ---- large months, in pieces
SET cs_ext.usage_large = 100;
INSERT INTO app.event (customer_id, at, who, amount) SELECT 'c12', timestamptz '2018-02-22 00:00-03' + g * interval '1 second', g, 1 FROM generate_series(1, 50) g;
CALL cs.refresh();
INSERT INTO app.event (customer_id, at, who, amount) VALUES ('c12', '2018-02-22 00:20-03', 1, 1), ('c12', '2018-02-12 00:20-02', 1, 1);
DELETE FROM app.event WHERE customer_id = 'c12' AND at >= '2018-02-15 12:00-02' AND at < '2018-02-15 18:00-02';
CALL cs.refresh();
SELECT is(app.difference(), NULL, 'a large month follows');
RESET cs_ext.usage_large;

-- ---- as a rebuild makes it
CREATE TABLE app.before AS TABLE app.derived;
CALL cs.rebuild();
SELECT bag_eq('TABLE app.derived', 'TABLE app.before', 'a rebuild gives the same, bit for bit');

-- ---- at random, over the day without a midnight (4 November 2018)
CREATE PROCEDURE app.run() LANGUAGE plpgsql AS $$
<<run>>
DECLARE
	at timestamptz := '2018-11-01 09:00-03';
	wrong text;
BEGIN
	FOR i IN 1 .. 30 LOOP
		PERFORM set_config('cs_ext.now', at::text, false);
		FOR j IN 1 .. 1 + floor(random() * 12) LOOP
			CASE floor(random() * 4)
				WHEN 0 THEN DELETE FROM app.event WHERE id = (SELECT e.id FROM app.event e WHERE e.at >= run.at - interval '6 days' ORDER BY random() LIMIT 1);
				WHEN 1 THEN UPDATE app.event e SET customer_id = 'c' || floor(random() * 20), at = run.at - random() * interval '6 days', amount = CASE WHEN random() < 0.2 THEN 'NaN' ELSE round(random()::numeric, 3) END
					WHERE id = (SELECT x.id FROM app.event x WHERE x.at >= run.at - interval '6 days' ORDER BY random() LIMIT 1);
				ELSE INSERT INTO app.event (customer_id, at, who, amount) SELECT 'c' || floor(random() * 20), run.at - random() * interval '6 days', floor(random() * 9), floor(random() * 9);
			END CASE;
		END LOOP;
		COMMIT;
		CALL cs.refresh();
		wrong := coalesce(wrong, app.difference());
		at := at + random() * interval '9 hours';
	END LOOP;
	PERFORM set_config('app.wrong', wrong, false);
END $$;
CALL app.run();
SELECT is(nullif(current_setting('app.wrong'), ''), NULL, 'thirty refreshes after random changes');
SELECT is((SELECT coalesce(sum(row_count), 0) FROM cs_internal.unusable), (SELECT count(*)::numeric FROM app.event WHERE amount = 'NaN'), 'unusable rows likewise');
DROP TABLE app.before;
CREATE TABLE app.before AS TABLE app.derived;
CALL cs.rebuild();
SELECT bag_eq('TABLE app.derived', 'TABLE app.before', 'and a rebuild gives the same, bit for bit');
SELECT is_empty('SELECT * FROM cs.check()', 'no invariant is broken');

-- ---- events of users
CREATE TABLE app.member (id integer, customer_id text, since timestamptz, until timestamptz);
CREATE TABLE app.click (member integer, at timestamptz);
CREATE INDEX ON app.click (at);
INSERT INTO app.member VALUES (1, 'c1', NULL, '2018-11-06 00:00-02'), (1, 'c2', '2018-11-06 00:00-02', NULL), (2, 'c2', NULL, NULL);
INSERT INTO app.click VALUES (1, '2018-11-05 12:00-02'), (1, '2018-11-07 12:00-02'), (2, '2018-10-01 12:00-03'), (3, '2018-11-07 12:00-02');
GRANT SELECT ON app.member, app.click TO cs_ext_run;
SELECT cs.drop_source('event') IS NULL AS dropped \gset
SET cs_ext.now = '2018-11-20 12:00-02';
SELECT count(*) AS mapped FROM cs.add_source('member', 'user', 'app.member', '{"user_id": "id", "customer_id": "customer_id", "valid_from": "since", "valid_to": "until"}') \gset
SELECT count(*) AS mapped FROM cs.add_source('click', 'usage_event', 'app.click', '{"user_id": "member", "at": "at"}', capture => 'window 30') \gset
CREATE FUNCTION app.kept() RETURNS jsonb LANGUAGE sql AS
$$ SELECT jsonb_object_agg(c, n) FROM (SELECT customer_id AS c, sum(events) AS n FROM cs.usage_daily GROUP BY 1) x $$;
CALL cs.refresh();
SELECT is(app.kept(), '{"c1": 1, "c2": 2}', 'events of users');
INSERT INTO app.click VALUES (1, '2018-11-05 13:00-02'), (1, '2018-11-08 13:00-02'), (2, '2018-11-08 13:00-02'), (NULL, '2018-11-08 13:00-02');
CALL cs.refresh();
SELECT is(app.kept(), '{"c1": 2, "c2": 4}', 'new ones are of whom the user was then');
SELECT is(unusable_rows, 1::bigint, 'without a user they are counted') FROM cs.source_status WHERE source = 'click';
UPDATE app.member SET customer_id = 'c3' WHERE id = 2;
CALL cs.refresh();
SELECT is(app.kept(), '{"c1": 2, "c2": 2, "c3": 2}', 'with a user who changes go all of his');
DELETE FROM app.click WHERE at = '2018-11-08 13:00-02' AND member = 2 OR member IS NULL;
CALL cs.refresh();
SELECT is(app.kept(), '{"c1": 2, "c2": 2, "c3": 1}', 'and rows that go');
SELECT is(unusable_rows, 0::bigint, 'are counted no more') FROM cs.source_status WHERE source = 'click';

-- ---- sealed inside the window
SELECT cs.seal('click', '2018-11-07') IS NULL AS sealed \gset
INSERT INTO app.click VALUES (1, '2018-11-06 12:00-02'), (1, '2018-11-09 12:00-02');
DELETE FROM app.click WHERE at < '2018-11-06';
CALL cs.refresh();
SELECT is(app.kept(), '{"c1": 2, "c2": 3, "c3": 1}', 'below the seal nothing changes, above it it does');
SELECT is((SELECT count(*) FROM cs_internal.scan_checksum WHERE day < '2018-11-07'), 0::bigint, 'and nothing below is looked at');

-- ---- rows before the window are at fault
CREATE TABLE app.ticket (customer_id text, at timestamptz, n integer);
CREATE INDEX ON app.ticket (at);
INSERT INTO app.ticket VALUES ('c1', '2018-01-01', 0), ('c2', '2018-11-19', 2);
GRANT SELECT ON app.ticket TO cs_ext_run;
INSERT INTO cs.metric (name, source, expression) VALUES ('tickets', 'ticket', 'count(*)');
SELECT count(*) AS mapped FROM cs.add_source('ticket', 'ticket', 'app.ticket', '{"customer_id": "customer_id", "opened_at": "at", "csat": "10 / n"}', capture => 'window') \gset
CALL cs.refresh();
SELECT is((needs_scan, error)::text, '(t,"division by zero")', 'a source that cannot be read is to be read whole, whatever its window says') FROM cs.source_status WHERE source = 'ticket';
UPDATE app.ticket SET n = 1 WHERE n = 0;
CALL cs.refresh();
SELECT is((needs_scan, error)::text, '(f,)', 'and is, once it can be') FROM cs.source_status WHERE source = 'ticket';
SELECT is((SELECT jsonb_object_agg(customer_id, value) FROM cs.customer_metric WHERE metric = 'tickets' AND value > 0), '{"c1": 1, "c2": 1}', 'with rows before the window');

-- ---- other kinds of facts
INSERT INTO app.ticket VALUES ('c2', '2018-11-20 00:00-02', 1);
DELETE FROM app.ticket WHERE n = 2;
INSERT INTO app.ticket VALUES ('c4', '2018-11-20 00:00-02', 1);
CALL cs.refresh();
SELECT is((SELECT jsonb_object_agg(customer_id, value) FROM cs.customer_metric WHERE metric = 'tickets' AND value > 0), '{"c1": 1, "c2": 1, "c4": 1}', 'other facts follow, too');
SELECT * FROM finish();
