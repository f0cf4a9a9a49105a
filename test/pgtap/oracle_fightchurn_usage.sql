-- fight-churn's counts of events in 28 days (listings 3.1, 3.3, 3.6, 3.9) on two data
-- sets, against what its own SQL returns for them: oracles/fightchurn_expected.json.
-- Its boundaries: an event counts from 28 days before the date on, and no longer on
-- the date itself. Accounts without events have no row there and 0 here.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SELECT no_plan();
CREATE TABLE answer AS
SELECT s.key AS set_name, s.value AS j FROM jsonb_each(pg_read_file(:'testdata' || '/oracles/fightchurn_expected.json')::jsonb -> 'sets') s;
-- which event a metric of 3.3 counts: 3.6 names the first, the totals tell the others
CREATE TABLE counted (set_name text, metric integer, event text);
INSERT INTO counted VALUES ('sim_social', 0, 'post'), ('sim_social', 1, 'like'), ('hand_edges', 0, 'order'), ('hand_edges', 1, 'login');
CREATE TABLE event (account_id integer, event_time timestamp, event_type_id integer, user_id integer, event_value numeric);
CREATE TABLE event_type (event_type_id integer PRIMARY KEY, event_type_name text);
CREATE VIEW named_event AS SELECT e.account_id, e.event_time, t.event_type_name FROM event e JOIN event_type t USING (event_type_id);

-- the calculation dates of a data set: weekly, as 3.6 lists them
CREATE VIEW calculated AS
SELECT a.set_name, (r ->> 'calc_date')::date AS day, r AS answer FROM answer a, jsonb_array_elements(a.j #> '{3.6_metric_stats,rows}') r;

SELECT cs.setup(time_zone => 'America/New_York', currency => 'USD', template => NULL) IS NULL AS done \gset
GRANT SELECT ON named_event, event, event_type TO cs_ext_run;
INSERT INTO cs.metric (name, source, expression) VALUES ('posts', 'usage', 'events(usage, ''post'', 28)'), ('orders', 'usage', 'events(usage, ''order'', 28)');
SELECT count(*) AS mapped FROM cs.add_source('events', 'usage_event', 'named_event', '{"customer_id": "account_id", "at": "event_time", "event": "event_type_name"}') \gset

CREATE TABLE tested (set_name text, what text, got text, want text);
CREATE PROCEDURE try(name text, dir text) LANGUAGE plpgsql AS $$
DECLARE
	j jsonb;
	of text;
BEGIN
	DELETE FROM event;
	DELETE FROM event_type;
	EXECUTE format('COPY event FROM %L (FORMAT csv, HEADER)', dir || '/event.csv');
	EXECUTE format('COPY event_type FROM %L (FORMAT csv, HEADER)', dir || '/event_type.csv');
	SELECT a.j INTO j FROM answer a WHERE a.set_name = name;
	of := j #>> '{3.1_event_count,event}';
	PERFORM set_config('cs_ext.now', j #>> '{3.1_event_count,to}', false);
	COMMIT;
	CALL cs.refresh();
	INSERT INTO tested SELECT name, '3.1 event count', string_agg(m.customer_id || ' ' || m.value, ', ' ORDER BY m.customer_id::integer),
		(SELECT string_agg((r ->> 'account_id') || ' ' || (r ->> ('n_' || of || '_permonth')), ', ' ORDER BY (r ->> 'account_id')::integer) FROM jsonb_array_elements(j #> '{3.1_event_count,rows}') r)
		FROM cs.customer_metric m WHERE m.metric = of || 's' AND m.value <> 0;
	CREATE TEMP TABLE n AS
		SELECT d.day, d.answer, c.metric, v.customer_id, cs.events(cs.usage_at(v.usage, d.day), c.event, 28) AS n
		FROM (SELECT customer_id, cs.union_agg(usage) AS usage FROM cs_internal.usage_whole GROUP BY 1) v, calculated d, counted c WHERE d.set_name = name AND c.set_name = name;
	INSERT INTO tested SELECT name, format('3.3 metric %s', metric), format('n %s, total %s, min %s, max %s', count(*), sum(n), min(n), max(n)),
		(SELECT format('n %s, total %s, min %s, max %s', r ->> 'n', (r ->> 'total')::numeric::integer, (r ->> 'min')::numeric::integer, (r ->> 'max')::numeric::integer)
			FROM jsonb_array_elements(j -> '3.3_3.13_metric_table_summary') r WHERE (r ->> 'metric_name_id')::integer = metric)
		FROM n WHERE n.n > 0 GROUP BY metric;
	INSERT INTO tested SELECT name, '3.6 on ' || day, format('n %s, average %s, min %s, max %s', count(*), round(avg(n), 9), min(n), max(n)),
		format('n %s, average %s, min %s, max %s', answer ->> 'n_calc', round((answer ->> 'avg')::numeric, 9), (answer ->> 'min')::numeric::integer, (answer ->> 'max')::numeric::integer)
		FROM n WHERE n.n > 0 AND metric = 0 GROUP BY day, answer;
	DROP TABLE n;
	INSERT INTO tested SELECT name, '3.9 events per day', string_agg((r ->> 'event_date') || ' ' || coalesce(u.n, 0), ', ' ORDER BY r ->> 'event_date'), string_agg((r ->> 'event_date') || ' ' || (r ->> 'n_event'), ', ' ORDER BY r ->> 'event_date')
		FROM jsonb_array_elements(j #> '{3.9_events_per_day,rows}') r
		LEFT JOIN (SELECT day, sum(events) AS n FROM cs.usage_daily WHERE event = j #>> '{3.9_events_per_day,event}' GROUP BY 1) u ON u.day = (r ->> 'event_date')::date;
	COMMIT;
END $$;
SELECT :'testdata' || '/oracles/fightchurn_inputs/hand_edges' AS hand, :'testdata' || '/oracles/fightchurn_inputs/sim_social' AS social \gset
CALL try('sim_social', :'social');
CALL try('hand_edges', :'hand');
SELECT is(got, want, format('%s: %s', set_name, what)) FROM tested ORDER BY set_name, what;
SELECT is((SELECT count(*) FROM tested), 6 + (SELECT count(*) FROM calculated) + 2, 'each listing and each date was compared');

-- the boundaries, to the microsecond, also over the change of the clock (8 March, 29 days of 24 hours ago)
DELETE FROM event;
INSERT INTO event SELECT a, t, (SELECT event_type_id FROM event_type WHERE event_type_name = 'order'), 1, NULL
FROM (VALUES (1, timestamp '2020-03-04 00:00'), (2, '2020-03-03 23:59:59.999999'), (3, '2020-04-01 00:00'), (4, '2020-03-31 23:59:59.999999')) v (a, t);
SET cs_ext.now = '2024-07-01';
CALL cs.rebuild();
SELECT is((SELECT jsonb_object_agg(customer_id, cs.events(cs.usage_at(usage, '2020-04-01'), 'order', 28)) FROM cs_internal.usage_whole WHERE customer_id = ANY ('{1,2,3,4}')),
	'{"1": 1, "2": 0, "3": 0, "4": 1}', 'from 28 days before the date on, and not on the date');
SELECT * FROM finish();
