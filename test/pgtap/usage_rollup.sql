-- The usage rollup from the tables of a company: two sources, changes of every
-- kind, months that empty, a zone with daylight saving, events of the future.
-- After each refresh usage_daily and the metrics are what plain SQL says.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
\ir ../lib/seed.sql
SELECT * FROM no_plan();
-- the session's zone must not matter: it is far from the policy's
SET TimeZone = 'Asia/Tokyo';
SET cs_ext.now = '2024-03-20 15:30:00-04';

CREATE SCHEMA app;
CREATE TABLE app.event (account integer, at timestamptz, who text, what text, amount numeric, times integer);
CREATE INDEX ON app.event (account);
-- another product: text keys, local times, no users
CREATE TABLE app.legacy (ref text, happened timestamp, what text);
CREATE VIEW app.fact AS
SELECT account::text AS customer, at, who, what, amount, times FROM app.event
UNION ALL
SELECT substr(ref, 2), happened AT TIME ZONE 'America/New_York', NULL, what, NULL, NULL FROM app.legacy;

SELECT cs.setup(time_zone => 'America/New_York', currency => 'USD', template => NULL) IS NULL AS done \gset
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO cs_ext_run;
SELECT count(*) AS mapped FROM cs.add_source('events', 'usage_event', 'app.event',
	'{"customer_id": "account", "at": "at", "user_id": "who", "event": "what", "quantity": "amount", "event_count": "times"}') \gset
SELECT count(*) AS mapped FROM cs.add_source('legacy', 'usage_event', 'app.legacy',
	'{"customer_id": "substr(ref, 2)", "at": "happened", "event": "what"}') \gset
INSERT INTO cs.metric (name, source, expression) VALUES
	('n_30', 'usage', 'events(usage, NULL, 30)'),
	('n_before', 'usage', 'events(usage, NULL, 30, ago => 30)'),
	('n_today', 'usage', 'events(usage, NULL, 1, today => true)'),
	('users_7', 'usage', 'active_users(usage, 7, ''login'')'),
	('days_400', 'usage', 'active_days(usage, 400)'),
	('amount_30', 'usage', 'quantity(usage, ''api'', 30)'),
	('since', 'usage', 'days_since(usage, NULL)');

CREATE FUNCTION app.add(n integer) RETURNS void LANGUAGE sql AS $$
	INSERT INTO app.event
	SELECT floor(random() * 6), timestamptz '2024-02-20 00:00-05' + (random() ^ 2 * 32 - 12) * interval '1 day',
		CASE WHEN random() < 0.8 THEN 'u' || floor(random() * 9) END, (ARRAY['login', 'api', NULL])[1 + floor(random() * 3)],
		CASE WHEN random() < 0.5 THEN round((random() * 9)::numeric, 3) END, CASE WHEN random() < 0.3 THEN floor(random() * 4) END
	FROM generate_series(1, n);
	INSERT INTO app.legacy
	SELECT 'c' || floor(random() * 7), timestamp '2024-01-15' + random() * 66 * interval '1 day', 'login' FROM generate_series(1, n / 4);
$$;

-- NULL: values are what plain SQL over the facts before `now` says; else the first that is not
CREATE FUNCTION app.metric_difference(now timestamptz, customer_ text, "values" float8[]) RETURNS text LANGUAGE sql SET TimeZone = 'America/New_York' AS $$
	SELECT format('metric %s of %s at %s is %s, not %s', m.metric, customer_, now, "values"[m.slot], e.value)
	FROM cs_internal.metric_slot m
	JOIN (
		SELECT k AS metric, v::float8 AS value FROM (
			SELECT jsonb_build_object(
				'n_30', coalesce(sum(coalesce(times, 1)) FILTER (WHERE day >= d - 30 AND day < d), 0),
				'n_before', coalesce(sum(coalesce(times, 1)) FILTER (WHERE day >= d - 60 AND day < d - 30), 0),
				'n_today', coalesce(sum(coalesce(times, 1)) FILTER (WHERE day >= d - 1), 0),
				'users_7', count(DISTINCT who) FILTER (WHERE what = 'login' AND day >= d - 7 AND day < d),
				'days_400', count(DISTINCT day) FILTER (WHERE day >= d - 400 AND day < d),
				'amount_30', sum(amount) FILTER (WHERE what = 'api' AND day >= d - 30 AND day < d),
				'since', max(d) - max(day) FILTER (WHERE day < d)) AS j
			FROM (SELECT *, at::date AS day, now::date AS d FROM app.fact WHERE customer = customer_ AND at < now) f) o,
			jsonb_each_text(j) AS e (k, v)) e USING (metric)
	WHERE "values"[m.slot] IS DISTINCT FROM e.value
	LIMIT 1
$$;

-- NULL: the rollup and the metrics of all customers are what plain SQL says
CREATE FUNCTION app.difference() RETURNS text LANGUAGE plpgsql SET TimeZone = 'America/New_York' AS $$
DECLARE
	found text;
BEGIN
	SELECT 'usage_daily: ' || to_jsonb(x)::text INTO found FROM (
		(SELECT customer_id, event, day, month, events, quantity, active_users FROM cs.usage_daily
		EXCEPT ALL
		SELECT customer, what, at::date, date_trunc('month', at)::date, sum(coalesce(times, 1))::bigint, sum(amount)::numeric(38,9), count(DISTINCT who)
		FROM app.fact GROUP BY 1, 2, 3, 4)
		UNION ALL
		(SELECT customer, what, at::date, date_trunc('month', at)::date, sum(coalesce(times, 1))::bigint, sum(amount)::numeric(38,9), count(DISTINCT who)
		FROM app.fact GROUP BY 1, 2, 3, 4
		EXCEPT ALL
		SELECT customer_id, event, day, month, events, quantity, active_users FROM cs.usage_daily)) x LIMIT 1;
	IF found IS NOT NULL THEN
		RETURN found;
	END IF;
	RETURN (SELECT max(app.metric_difference(current_setting('cs_ext.now')::timestamptz, s.customer_id, s.values)) FROM cs_internal.state s);
END $$;

SELECT app.add(800) IS NULL AS added \gset
-- at both ends of a month and of the day, and in the hours of the change of the clock
INSERT INTO app.event SELECT 1, t, 'u1', 'login', NULL, NULL FROM unnest(ARRAY['2024-02-29 23:59:59.999999-05', '2024-03-01 00:00-05',
	'2024-03-10 01:59-05', '2024-03-10 03:00-04', '2024-03-20 00:00-04', '2024-03-20 15:29:59.999999-04', '2024-03-20 15:30-04', '2024-03-20 23:59-04', '2024-04-01 00:00-04']::timestamptz[]) t;
CALL cs.refresh();
SELECT cmp_ok((SELECT count(*) FROM cs_internal.state), '>=', 6::bigint, 'the customers of both sources are there');
SELECT is((SELECT count(*) FROM cs_internal.definition_status WHERE status <> 'ok'), 0::bigint, 'no metric fails');
SELECT is(app.difference(), NULL, 'after the first refresh');

SELECT app.add(60) IS NULL AS added \gset
DELETE FROM app.event WHERE random() < 0.1;
UPDATE app.event SET at = at + interval '40 days', account = account + 1 WHERE random() < 0.05;
CALL cs.refresh();
SELECT is(app.difference(), NULL, 'after inserts, deletes and moves');

DELETE FROM app.event WHERE account = 2 AND at >= '2024-03-01 00:00-05';
DELETE FROM app.legacy WHERE ref = 'c2' AND happened >= '2024-03-01';
CALL cs.refresh();
SELECT is((SELECT count(*) FROM cs_internal.usage_month WHERE customer_id = '2' AND month >= '2024-03-01'), 0::bigint, 'a month without events has no row');
SELECT is(app.difference(), NULL, 'after months were emptied');

SET cs_ext.now = '2024-04-02 00:00:00-04';
SELECT app.add(20) IS NULL AS added \gset
CALL cs.refresh();
SELECT is(app.difference(), NULL, 'on another day, at its first instant');

-- metrics as of then: what came later on that day is not seen, not even by today => true
SELECT sum(cs_internal.take_snapshot(t)) AS taken FROM unnest(ARRAY['2024-03-20 00:00-04', '2024-03-20 11:00-04', '2024-03-10 03:00-04', '2024-02-29 23:30-05']::timestamptz[]) t \gset
SELECT cmp_ok((SELECT count(*) FROM cs_internal.metric_history WHERE as_of < '2024-04-01'), '>=', 20::bigint, 'there are values of past instants');
SELECT is((SELECT max(app.metric_difference(h.as_of, h.customer_id, h.values)) FROM cs_internal.metric_history h), NULL, 'values of past instants see nothing later');

CREATE TABLE app.kept AS SELECT * FROM cs_internal.usage_month;
CALL cs.rebuild();
SELECT ok(NOT EXISTS (TABLE app.kept EXCEPT TABLE cs_internal.usage_month) AND NOT EXISTS (TABLE cs_internal.usage_month EXCEPT TABLE app.kept),
	'a rebuild gives the same values');
SELECT is(app.difference(), NULL, 'after the rebuild');

DELETE FROM app.event;
TRUNCATE app.legacy;
CALL cs.refresh();
SELECT is((SELECT count(*) FROM cs_internal.usage_month), 0::bigint, 'nothing is left of no events');

SELECT * FROM finish();
