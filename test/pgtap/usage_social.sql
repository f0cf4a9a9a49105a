-- Usage of a simulated social network (19,169 events of seven months): the
-- accessors over the rollup against plain SQL over the events.
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
CREATE VIEW named_event AS SELECT e.*, t.event_type_name FROM event e JOIN event_type t USING (event_type_id);
SELECT is((SELECT count(*) FROM named_event), 19169::bigint, 'all events are there');

SELECT cs.setup(time_zone => 'UTC', currency => 'USD', template => NULL) IS NULL AS done \gset
GRANT SELECT ON named_event, event TO cs_ext_run;
SELECT count(*) AS mapped FROM cs.add_source('events', 'usage_event', 'named_event',
	'{"customer_id": "account_id", "at": "event_time", "user_id": "user_id", "event": "event_type_name", "quantity": "event_value"}') \gset
CALL cs.refresh();
SELECT is((SELECT sum(events) FROM cs.usage_daily), 19169::numeric, 'all events are in the rollup');

CREATE TEMP TABLE value AS SELECT customer_id, cs.union_agg(usage) AS usage FROM cs_internal.usage_month GROUP BY 1;
SELECT is((SELECT count(*) FROM value), (SELECT count(DISTINCT account_id) FROM event), 'every account has usage');
CREATE TEMP TABLE fact AS
SELECT account_id::text COLLATE "C" AS customer_id, event_time::date AS day, user_id, event_type_name AS event, event_value FROM named_event;
CREATE INDEX ON fact (customer_id, day);
ANALYZE fact;

SELECT is_empty($$
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
				FROM fact f WHERE f.customer_id = v.customer_id AND day < t::date) s) g LIMIT 5
$$, 'accessors at every seventeenth day are what plain SQL says');

SELECT * FROM finish();
