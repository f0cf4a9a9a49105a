-- A day that begins twice: on the Azores, on 27 October 2024, clocks went back from
-- 01:00 to 00:00. The first hour belongs to that day, for whoever reads usage by days.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SELECT * FROM no_plan();
SET TimeZone = 'Asia/Tokyo';
SET cs_ext.now = '2024-10-28 12:00+00';
CREATE SCHEMA app;
CREATE TABLE app.event (customer_id text, at timestamptz, who integer);
CREATE INDEX ON app.event (customer_id, at);
CREATE TABLE app.look (LIKE app.event INCLUDING ALL);
CREATE TABLE app.plan (customer_id text, start_at timestamptz, mrr numeric);
SELECT cs.setup(time_zone => 'Atlantic/Azores', currency => 'EUR', template => NULL) IS NULL AS done \gset
INSERT INTO cs.metric (name, source, expression) VALUES ('n', 'usage', 'events(usage, NULL, 1)');
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO cs_ext_run;
SELECT count(*) AS mapped FROM
	cs.add_source('event', 'usage_event', 'app.event', '{"customer_id": "customer_id", "at": "at", "user_id": "who", "event": "''e''"}') a,
	cs.add_source('look', 'usage_event', 'app.look', '{"customer_id": "customer_id", "at": "at", "user_id": "who", "event": "''l''"}', capture => 'window') b,
	cs.add_source('plan', 'subscription', 'app.plan', '{"customer_id": "customer_id", "start_at": "start_at", "mrr": "mrr"}') d \gset
CREATE FUNCTION app.difference() RETURNS text LANGUAGE sql SET TimeZone = 'Atlantic/Azores' AS $$
	WITH raw AS (SELECT 'e' AS event, at::date AS day, count(*) AS events FROM app.event GROUP BY 2 UNION ALL SELECT 'l', at::date, count(*) FROM app.look GROUP BY 2),
		kept AS (SELECT event, day, events FROM cs.usage_daily)
	SELECT string_agg(to_jsonb(x)::text, ' ') FROM ((SELECT 'raw' AS only, * FROM (TABLE raw EXCEPT ALL TABLE kept) r) UNION ALL (SELECT 'kept', * FROM (TABLE kept EXCEPT ALL TABLE raw) k)) x $$;

-- every ten minutes around the night
INSERT INTO app.event SELECT 'c', t, 1 FROM generate_series(timestamptz '2024-10-26 20:05+00', '2024-10-27 05:05+00', '10 minutes') t;
INSERT INTO app.look SELECT * FROM app.event;
INSERT INTO app.plan VALUES ('c', '2024-10-20 00:30+00', 10);
CALL cs.refresh();
SELECT is(app.difference(), NULL, 'first build');
SELECT is("values"[slot], 62::float8, 'the metric counts the hour with its day') FROM cs_internal.state, cs_internal.metric_slot WHERE metric = 'n';
SELECT is(cs_internal.instant(date '2024-10-27'), timestamp '2024-10-27' AT TIME ZONE 'Atlantic/Azores', 'what bounds periods and balances is the midnight that SQL has');
INSERT INTO app.event VALUES ('c', '2024-10-27 04:00+00', 2);
CALL cs.refresh();
SELECT is(app.difference(), NULL, 'a late event of that day');
INSERT INTO app.event VALUES ('c', '2024-10-26 22:00+00', 2);
CALL cs.refresh();
SELECT is(app.difference(), NULL, 'one of the day before');
INSERT INTO app.event VALUES ('c', '2024-10-27 00:30+00', 2);
CALL cs.refresh();
SELECT is(app.difference(), NULL, 'one in its first hour');

-- by looks: read again, and not once more
INSERT INTO app.look VALUES ('c', '2024-10-27 00:30+00', 2);
CALL cs.refresh();
SELECT is(app.difference(), NULL, 'one that a look finds');
SELECT checksum AS kept FROM cs_internal.scan_checksum WHERE source = 'look' AND day = '2024-10-27' \gset
INSERT INTO app.look VALUES ('c', '2024-10-27 00:40+00', 2);
CALL cs.refresh();
SELECT isnt(checksum, :kept, 'whose sum is kept with what it found') FROM cs_internal.scan_checksum WHERE source = 'look' AND day = '2024-10-27';
SELECT is(app.difference(), NULL, 'and another one');
SELECT * FROM finish();
