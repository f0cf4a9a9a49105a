-- A customer whose months are large: events come in order and late, change and
-- go, months end. After each refresh usage_daily is what plain SQL counts, the
-- union of the pieces is what a rebuild makes of it, and the pieces stay few.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
\ir ../lib/seed.sql
SELECT * FROM no_plan();
SET cs_ext.now = '2025-06-28 12:00+02';
SET cs_ext.usage_large = '2kB';

CREATE SCHEMA app;
CREATE TABLE app.event (customer_id text, at timestamptz, user_id bigint, name text, amount numeric);
CREATE INDEX ON app.event (customer_id, at);
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL) IS NULL AS done \gset
INSERT INTO cs.metric (name, source, expression) VALUES ('n', 'usage', 'events(usage, NULL, 30)'), ('u', 'usage', 'active_users(usage, 30)'), ('s', 'usage', 'days_since(usage, NULL)');
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO cs_ext_run;
SELECT count(*) AS mapped FROM cs.add_source('events', 'usage_event', 'app.event',
	'{"customer_id": "customer_id", "at": "at", "user_id": "user_id", "event": "name", "quantity": "amount"}') \gset

-- n events of a customer from an instant on
CREATE FUNCTION app.add(customer text, since timestamptz, span interval, n integer) RETURNS void LANGUAGE sql AS $$
	INSERT INTO app.event SELECT customer, since + span * i / n, floor(random() * 400), (ARRAY['a', 'b', NULL])[1 + floor(random() * 3)], CASE WHEN random() < 0.2 THEN round(random()::numeric, 2) END
	FROM generate_series(0, n - 1) i $$;
CREATE FUNCTION app.difference() RETURNS text LANGUAGE plpgsql SET TimeZone = 'Europe/Berlin' AS $$
DECLARE found text;
BEGIN
	SELECT to_jsonb(x)::text INTO found FROM (
		WITH raw AS (SELECT customer_id, name AS event, at::date AS day, count(*) AS events, sum(amount)::numeric(38,9) AS quantity, count(DISTINCT user_id) AS active_users FROM app.event GROUP BY 1, 2, 3),
			view AS (SELECT customer_id, event, day, events, quantity, active_users FROM cs.usage_daily)
		(SELECT 'raw' AS only, * FROM (TABLE raw EXCEPT ALL TABLE view) r) UNION ALL (SELECT 'view', * FROM (TABLE view EXCEPT ALL TABLE raw) v)) x LIMIT 1;
	RETURN found;
END $$;
CREATE FUNCTION app.pieces() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM cs_internal.usage_delta';
CREATE FUNCTION app.united() RETURNS TABLE (customer_id text, month date, usage text) LANGUAGE sql AS
$$ SELECT customer_id, month, cs.union_agg(usage)::text FROM cs_internal.usage_piece GROUP BY 1, 2 $$;

SELECT app.add('big', '2025-05-01 00:00+02', '57 days', 6000) IS NULL AS added \gset
SELECT app.add('small', '2025-05-01 00:00+02', '57 days', 30) IS NULL AS added \gset
CALL cs.refresh();
SELECT is(app.difference(), NULL, 'after the first build');
SELECT is(app.pieces(), 0::bigint, 'which makes one piece of a month');

-- in order: what is written is what came
CREATE PROCEDURE app.run() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 0 .. 39 LOOP
		PERFORM app.add('big', timestamptz '2025-06-27 02:00+02' + i * interval '10 minutes', '9 minutes', 10);
		COMMIT;
		CALL cs.refresh();
	END LOOP;
END $$;
SELECT xmin AS before FROM cs_internal.usage_month WHERE customer_id = 'big' AND month = '2025-06-01' \gset
CALL app.run();
SELECT is(app.difference(), NULL, 'after forty refreshes with events in order');
SELECT ok(app.pieces() BETWEEN 1 AND 12, 'they stand in few pieces: ' || app.pieces());
SELECT is(xmin::text, :'before', 'the large piece was not written') FROM cs_internal.usage_month WHERE customer_id = 'big' AND month = '2025-06-01';
SELECT is(s."values"[m.slot], (SELECT count(*)::float8 FROM app.event WHERE customer_id = 'big' AND at >= '2025-05-29 00:00+02' AND at < '2025-06-28 00:00+02'), 'metrics read all pieces')
FROM cs_internal.state s, cs_internal.metric_slot m WHERE m.metric = 'n' AND s.customer_id = 'big';

-- late, changed, deleted, inside pieces and at their ends
CREATE PROCEDURE app.disorder() LANGUAGE plpgsql AS $$
DECLARE wrong text;
BEGIN
	FOR i IN 1 .. 25 LOOP
		CASE i % 5
			WHEN 0 THEN PERFORM app.add('big', timestamptz '2025-06-26 00:00+02' + random() * interval '40 hours', '1 second', 3);
			WHEN 1 THEN DELETE FROM app.event WHERE customer_id = 'big' AND at >= timestamptz '2025-06-27 00:00+02' AND random() < 0.03;
			WHEN 2 THEN UPDATE app.event SET at = at + (random() - 0.5) * interval '2 hours' WHERE customer_id = 'big' AND at >= timestamptz '2025-06-27 05:00+02' AND random() < 0.02;
			WHEN 3 THEN DELETE FROM app.event WHERE ctid = (SELECT ctid FROM app.event WHERE customer_id = 'big' ORDER BY at DESC LIMIT 1);
			ELSE PERFORM app.add('big', (SELECT max(at) FROM app.event WHERE customer_id = 'big'), '5 minutes', 7);
		END CASE;
		COMMIT;
		CALL cs.refresh();
		wrong := app.difference();
		IF wrong IS NOT NULL THEN RAISE EXCEPTION 'step %: %', i, wrong; END IF;
	END LOOP;
END $$;
CALL app.disorder();
SELECT pass('usage_daily is what plain SQL counts after each of 25 changes in disorder');
CREATE TABLE app.kept AS SELECT * FROM app.united();
CALL cs.rebuild();
SELECT set_eq('SELECT * FROM app.united()', 'SELECT * FROM app.kept', 'the pieces say what a rebuild says');
SELECT is(app.pieces(), 0::bigint, 'which makes one of them');

-- the base goes: a piece takes its place; a month goes; it is over
SELECT app.add('big', '2025-06-28 01:00+02', '1 hour', 20) IS NULL AS added \gset
CALL cs.refresh();
SELECT cmp_ok(app.pieces(), '>', 0::bigint, 'a piece again');
DELETE FROM app.event WHERE customer_id = 'big' AND at >= '2025-06-01 00:00+02' AND at < '2025-06-28 00:30+02';
CALL cs.refresh();
SELECT is(app.difference(), NULL, 'after all before the piece went');
DELETE FROM app.event WHERE customer_id = 'big' AND at >= '2025-05-01 00:00+02' AND at < '2025-06-01 00:00+02' AND random() < 0.5;
CALL cs.refresh();
SELECT is(app.difference(), NULL, 'after changes all over a month');
SET cs_ext.usage_large = '300B';
SELECT app.add('big', '2025-06-28 03:00+02', '4 hours', 3000) IS NULL AS added \gset
CALL cs.refresh();
SELECT app.add('big', '2025-06-28 08:00+02', '1 hour', 20) IS NULL AS added \gset
CALL cs.refresh();
SELECT cmp_ok(app.pieces(), '>', 0::bigint, 'pieces in June');
SET cs_ext.now = '2025-07-02 12:00+02';
SELECT app.add('big', '2025-07-01 01:00+02', '1 hour', 20) IS NULL AS added \gset
CALL cs.refresh();
SELECT is((SELECT count(*) FROM cs_internal.usage_delta WHERE month = '2025-06-01'), 0::bigint, 'a month that is over is one piece');
SELECT is(app.difference(), NULL, 'and says the same');
DELETE FROM app.event WHERE customer_id = 'big';
CALL cs.refresh();
SELECT is((SELECT count(*) FROM cs_internal.usage_piece WHERE customer_id = 'big'), 0::bigint, 'nothing is left of no events');
SELECT is(app.difference(), NULL, 'the other customer stays');

-- an event a day before all others of its month, and the only one of a day goes
DELETE FROM app.event WHERE customer_id = 'small' AND at = (SELECT min(at) FROM app.event WHERE customer_id = 'small');
CALL cs.refresh();
DELETE FROM app.event WHERE customer_id = 'small' AND at = (SELECT max(at) FROM app.event WHERE customer_id = 'small');
CALL cs.refresh();
SELECT is(app.difference(), NULL, 'after the first and the last event went');
TRUNCATE app.kept;
INSERT INTO app.kept SELECT * FROM app.united();
CALL cs.rebuild();
SELECT set_eq('SELECT * FROM app.united()', 'SELECT * FROM app.kept', 'first and last instant are a rebuild''s');

-- a date that stands for no end: what lies between costs nothing
SELECT app.add('big', '2025-06-28 03:00+02', '4 hours', 3000) IS NULL AS added \gset
CALL cs.refresh();
BEGIN;
INSERT INTO app.event VALUES ('big', '2025-06-20 12:00+02', 1, 'a'), ('big', '9999-12-30 12:00+00', 1, 'a');
CALL cs.refresh(commit => false);
SELECT cmp_ok((SELECT seq_scan + idx_scan FROM pg_stat_xact_user_tables WHERE relid = 'app.event'::regclass), '<', 100::bigint, 'the facts are not read for each month until then');
COMMIT;
SELECT is(app.difference(), NULL, 'and every event counts');
SELECT * FROM finish();
