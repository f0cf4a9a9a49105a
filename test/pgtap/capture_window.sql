-- Sources that are not captured by triggers, or whose events are of users:
-- capture => 'window' re-reads the last days, so it notices what changes there and
-- not what changes before, and says so; of users with valid_from and valid_to an
-- event belongs to the customer whose user it was then.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SELECT * FROM no_plan();
SET TimeZone = 'Asia/Tokyo';
SET cs_ext.now = '2026-03-31 12:00+02';
CREATE SCHEMA app;
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL) IS NULL AS done \gset
GRANT USAGE ON SCHEMA app TO cs_ext_run;
INSERT INTO cs.metric (name, source, expression) VALUES ('n', 'usage', 'events(usage, NULL, 60)'), ('u', 'usage', 'active_users(usage, 60)');

-- the rollup, by customer
CREATE FUNCTION app.kept() RETURNS jsonb LANGUAGE sql AS
$$ SELECT jsonb_object_agg(c, n) FROM (SELECT customer_id AS c, sum(events) AS n FROM cs.usage_daily GROUP BY 1) x $$;
CREATE FUNCTION app.metric(name text) RETURNS jsonb LANGUAGE sql AS
$$ SELECT jsonb_object_agg(customer_id, value) FROM cs.customer_metric WHERE metric = name $$;

-- ---- a window of seven days: from midnight of 24 March on, when the clock was another ----

CREATE TABLE app.event (id integer, customer_id text, at timestamptz, who text);
GRANT SELECT ON app.event TO cs_ext_run;
INSERT INTO app.event VALUES (1, 'a', '2026-03-24 00:00+01', 'u1'), (2, 'a', '2026-03-23 23:59:59.999999+01', 'u2'), (3, 'b', '2026-03-10 12:00+01', 'u3'), (4, 'b', '2026-03-30 12:00+02', 'u4'), (5, 'c', '2026-02-01 12:00+01', 'u5');
SELECT count(*) AS mapped FROM cs.add_source('events', 'usage_event', 'app.event', '{"customer_id": "customer_id", "at": "at", "user_id": "who"}', capture => 'window') \gset
CALL cs.refresh();
SELECT is(app.kept(), '{"a": 2, "b": 2, "c": 1}', 'everything is read once');
SELECT is((SELECT format('%s %s', capture, exact) FROM cs.source_status WHERE source = 'events'), 'window f', 'source_status says that it is not exact');
SELECT is((SELECT count(*) FROM pg_trigger WHERE tgrelid = 'app.event'::regclass), 0::bigint, 'there are no triggers');

UPDATE app.event SET customer_id = 'c' WHERE id = 1;
INSERT INTO app.event VALUES (6, 'b', '2026-03-29 03:00+02', 'u6'), (7, 'new', '2026-03-31 11:00+02', 'u7');
CALL cs.refresh();
SELECT is(app.kept(), '{"a": 1, "b": 3, "c": 2, "new": 1}', 'a row moved to another customer, a new one and a new customer inside the window are noticed');
SELECT is(app.metric('n'), '{"a": 1, "b": 3, "c": 2, "new": 0}', 'and the metrics follow');
DELETE FROM app.event WHERE id = 4;
CALL cs.refresh();
SELECT is(app.kept(), '{"a": 1, "b": 2, "c": 2, "new": 1}', 'so is a row that went');

UPDATE app.event SET customer_id = 'b' WHERE id = 2;
DELETE FROM app.event WHERE id = 5;
CALL cs.refresh();
SELECT is(app.kept(), '{"a": 1, "b": 2, "c": 2, "new": 1}', 'changes before the window are not noticed');
UPDATE app.event SET who = 'u3' WHERE id = 6;
CALL cs.refresh();
SELECT is(app.metric('u'), '{"a": 1, "b": 1, "c": 2, "new": 0}', 'nor when the customer changes inside it: that day is read and no other');
-- the window moves: what it leaves behind stays
SET cs_ext.now = '2026-04-06 00:00+02';
CALL cs.refresh();
SELECT is(app.kept(), '{"a": 1, "b": 2, "c": 2, "new": 1}', 'what falls out of the window stays as it was');
SELECT is(app.metric('n'), '{"a": 1, "b": 2, "c": 1, "new": 1}', 'and metrics are of the new day');
CALL cs.rebuild();
SELECT is(app.kept(), '{"b": 3, "c": 1, "new": 1}', 'a rebuild reads everything');
SELECT cs.drop_source('events') IS NULL AS dropped \gset
CALL cs.refresh();
SELECT is(app.kept(), NULL, 'nothing is left of a source that is dropped');

-- ---- users who change customers ---------------------------------------------------------

CREATE TABLE app.member (user_id bigint, customer_id text, since timestamptz, until timestamptz);
CREATE TABLE app.click (user_id bigint, at timestamptz);
CREATE INDEX ON app.click (user_id, at);
GRANT SELECT ON app.member, app.click TO cs_ext_run;
INSERT INTO app.member VALUES (1, 'a', NULL, '2026-03-10 00:00+01'), (1, 'b', '2026-03-10 00:00+01', NULL), (2, 'a', '2026-03-01 00:00+01', '2026-03-20 00:00+01'), (3, 'b', NULL, NULL);
INSERT INTO app.click VALUES (1, '2026-03-09 23:59:59.999999+01'), (1, '2026-03-10 00:00+01'), (1, '2026-03-15 00:00+01'),
	(2, '2026-02-28 23:00+01'), (2, '2026-03-01 00:00+01'), (2, '2026-03-20 00:00+01'), (3, '1969-12-31 12:00+01'), (4, '2026-03-15 00:00+01');
SELECT count(*) AS mapped FROM cs.add_source('members', 'user', 'app.member', '{"user_id": "user_id", "customer_id": "customer_id", "valid_from": "since", "valid_to": "until"}') \gset
SELECT count(*) AS mapped FROM cs.add_source('clicks', 'usage_event', 'app.click', '{"user_id": "user_id", "at": "at"}') \gset
CREATE FUNCTION app.joined() RETURNS jsonb LANGUAGE sql AS
$$ SELECT jsonb_object_agg(customer_id, n) FROM (SELECT m.customer_id, count(*) AS n FROM app.click c JOIN app.member m ON m.user_id = c.user_id AND (m.since IS NULL OR m.since <= c.at) AND (m.until IS NULL OR m.until > c.at) GROUP BY 1) x $$;
CALL cs.refresh();
SELECT is(app.kept(), '{"a": 2, "b": 3}', 'an event is of the customer whose user it was then');
SELECT is(app.kept(), app.joined(), 'as a join says');
UPDATE app.member SET until = '2026-03-15 00:00:00.000001+01' WHERE user_id = 1 AND customer_id = 'a';
UPDATE app.member SET since = '2026-03-15 00:00:00.000001+01' WHERE user_id = 1 AND customer_id = 'b';
CALL cs.refresh();
SELECT is(app.kept(), '{"a": 4, "b": 1}', 'his events follow the day on which he changes');
INSERT INTO app.member VALUES (4, 'd', '2026-03-15 00:00+01', NULL);
DELETE FROM app.member WHERE user_id = 3;
INSERT INTO app.click VALUES (2, '2026-03-19 23:59:59+01'), (4, '2026-04-01 00:00+02');
CALL cs.refresh();
SELECT is(app.kept(), '{"a": 5, "d": 2}', 'a new user, one who went, new events');
SELECT is(app.kept(), app.joined(), 'as a join says');
UPDATE app.click SET user_id = 4 WHERE user_id = 1 AND at < '2026-03-12';
UPDATE app.click SET at = '2026-03-20 00:00+01' WHERE user_id = 2 AND at = '2026-03-01 00:00+01';
CALL cs.refresh();
SELECT is(app.kept(), app.joined(), 'events that change the user or leave his time');
CREATE TABLE app.before AS SELECT customer_id, month, usage::text FROM cs_internal.usage_month;
CALL cs.rebuild();
SELECT bag_eq('SELECT customer_id, month, usage::text FROM cs_internal.usage_month', 'TABLE app.before', 'a rebuild gives the same values');
SELECT is_empty('SELECT * FROM cs.check()', 'no invariant is broken');
SELECT * FROM finish();
