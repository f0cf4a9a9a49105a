-- Usage of a simulated social network (19,169 events of seven months): the
-- accessors over the rollup against plain SQL over the events, in three zones.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET cs_ext.now = '2020-08-01 00:00+00';
SELECT * FROM no_plan();

CREATE TABLE event (account_id integer, event_time timestamp, event_type_id integer, user_id integer, event_value numeric);
CREATE TABLE event_type (event_type_id integer PRIMARY KEY, event_type_name text);
SELECT format('COPY event FROM %L (FORMAT csv, HEADER)', :'testdata' || '/oracles/fightchurn_inputs/sim_social/event.csv') \gexec
SELECT format('COPY event_type FROM %L (FORMAT csv, HEADER)', :'testdata' || '/oracles/fightchurn_inputs/sim_social/event_type.csv') \gexec
-- the simulation has one user an account: here three take turns, and messages are nobody's
UPDATE event SET user_id = extract(hour FROM event_time)::integer / 8, event_value = account_id / 10.0 + event_type_id WHERE event_type_id < 4;
UPDATE event SET user_id = NULL WHERE event_type_id = 6;
CREATE INDEX ON event (account_id);
CREATE VIEW named_event AS SELECT e.*, e.event_time AT TIME ZONE 'UTC' AS at, t.event_type_name FROM event e JOIN event_type t USING (event_type_id);
SELECT is((SELECT count(*) FROM named_event), 19169::bigint, 'all events are there');

SELECT cs.setup(time_zone => 'UTC', currency => 'USD', template => NULL) IS NULL AS done \gset
GRANT SELECT ON named_event, event TO cs_ext_run;
SELECT count(*) AS mapped FROM cs.add_source('events', 'usage_event', 'named_event',
	'{"customer_id": "account_id", "at": "at", "user_id": "user_id", "event": "event_type_name", "quantity": "event_value"}') \gset

CREATE VIEW value AS SELECT customer_id, cs.union_agg(usage) AS usage FROM cs_internal.usage_month GROUP BY 1;
CREATE TABLE fact (customer_id text COLLATE "C", day date, user_id integer, event text, event_value numeric);
CREATE INDEX ON fact (customer_id, day);
-- where the accessors, every seventeenth day, are not what plain SQL says
CREATE VIEW difference AS
SELECT g.* FROM (
		SELECT customer_id, d, n,
			cs.events(u, NULL, n), cs.events(u, NULL, n, ago => n) AS before, cs.events(u, 'post', n) AS posts, cs.quantity(u, 'like', n),
			cs.active_users(u, n), cs.active_users(u, n, 'post') AS posters, cs.active_days(u, n), cs.distinct_events(u, n),
			cs.stickiness(u, n), cs.days_since(u, NULL), cs.days_since(u, 'message') AS since_message
		FROM value v, generate_series(timestamp '2020-01-01', '2020-08-01', '17 days') t, unnest(ARRAY[7, 30, 90]) n,
			LATERAL (SELECT t::date AS d, cs.usage_at(v.usage, t::date) AS u OFFSET 0) s
		EXCEPT
		SELECT v.customer_id, t::date, n, w.*, s.*
		FROM value v, generate_series(timestamp '2020-01-01', '2020-08-01', '17 days') t, unnest(ARRAY[7, 30, 90]) n,
			LATERAL (SELECT count(*) FILTER (WHERE day >= t::date - n), count(*) FILTER (WHERE day < t::date - n),
					count(*) FILTER (WHERE event = 'post' AND day >= t::date - n), sum(event_value) FILTER (WHERE event = 'like' AND day >= t::date - n),
					count(DISTINCT user_id) FILTER (WHERE day >= t::date - n), count(DISTINCT user_id) FILTER (WHERE event = 'post' AND day >= t::date - n),
					count(DISTINCT day) FILTER (WHERE day >= t::date - n)::integer, count(DISTINCT event) FILTER (WHERE day >= t::date - n),
					count(DISTINCT (user_id, day)) FILTER (WHERE user_id IS NOT NULL AND day >= t::date - n)
						/ (n * nullif(count(DISTINCT user_id) FILTER (WHERE day >= t::date - n), 0)::float8)
				FROM fact f WHERE f.customer_id = v.customer_id AND day < t::date AND day >= t::date - 2 * n) w,
			LATERAL (SELECT t::date - max(day), t::date - max(day) FILTER (WHERE event = 'message')
				FROM fact f WHERE f.customer_id = v.customer_id AND day < t::date) s) g LIMIT 5;

-- one zone to the west, one to the east by half an hour more, both with a change of the clock in these months
CREATE TABLE tested (zone text, rolled bigint, accounts bigint, wrong bigint);
CREATE PROCEDURE try(zone text) LANGUAGE plpgsql AS $$
BEGIN
	UPDATE cs.policy SET time_zone = zone;
	COMMIT;
	CALL cs.rebuild();
	DELETE FROM fact;
	INSERT INTO fact SELECT account_id::text, (at AT TIME ZONE zone)::date, user_id, event_type_name, event_value FROM named_event;
	ANALYZE fact;
	INSERT INTO tested SELECT zone, (SELECT sum(events) FROM cs.usage_daily), (SELECT count(*) FROM value), (SELECT count(*) FROM difference);
	COMMIT;
END $$;
CALL try('UTC');
CREATE TABLE in_utc AS SELECT * FROM fact;
CALL try('America/Los_Angeles');
SELECT isnt_empty('SELECT day FROM fact EXCEPT ALL SELECT day FROM in_utc', 'days differ between zones');
CALL try('Australia/Lord_Howe');
SELECT is(rolled, 19169::bigint, 'all events are in the rollup: ' || zone) FROM tested;
SELECT is(accounts, (SELECT count(DISTINCT account_id) FROM event), 'every account has usage: ' || zone) FROM tested;
SELECT is(wrong, 0::bigint, 'accessors at every seventeenth day are what plain SQL says: ' || zone) FROM tested;
SELECT is((SELECT count(*) FROM tested), 3::bigint, 'three zones');

SELECT * FROM finish();
