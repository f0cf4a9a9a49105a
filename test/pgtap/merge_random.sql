-- Merged customers at random: chains, merges back, several of one customer, on
-- facts of every shape of source. Metrics are plain SQL over the raw facts with ids
-- mapped one merge at a time: as of random instants, incrementally while facts and
-- merges change and time goes on, and after a rebuild. The seed is printed;
-- psql -v seed=N repeats a run.
SET client_min_messages = warning;
SET TimeZone = 'America/New_York';
SET jit = off;
\ir ../lib/seed.sql
SET cs_ext.now = '2024-06-20 12:00Z';
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL) \g /dev/null
SELECT * FROM no_plan();
UPDATE cs.policy SET period_edge = CASE WHEN random() < 0.5 THEN 'at' ELSE 'before' END;
CREATE SCHEMA app;
CREATE TABLE app.cust (id int PRIMARY KEY);
CREATE TABLE app.sub (customer int, s timestamptz, e timestamptz, mrr numeric);
CREATE TABLE app.event (id serial, customer int, who text, at timestamptz, name text);
CREATE TABLE app.person (id serial, customer text, email text, since timestamptz, until timestamptz);
CREATE TABLE app.click (id serial, email text, at timestamptz);
CREATE TABLE app.ticket (id serial, customer int, opened_at timestamptz, resolved_at timestamptz);
CREATE TABLE app.issue (id serial, customer text, opened_at timestamptz, resolved_at timestamptz);
CREATE TABLE app.answer (id serial, customer numeric, at timestamptz, score int);
CREATE TABLE app.merge (id serial, f int, i int, at timestamptz);
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO cs_ext_run;

CREATE FUNCTION public.who() RETURNS int LANGUAGE sql VOLATILE AS $$ SELECT 1 + floor(random() * 24)::int $$;
CREATE FUNCTION public.day(days int, before int DEFAULT 0) RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
	SELECT timestamptz '2024-06-23 18:00Z' - make_interval(secs => random() * 86400 * days) - make_interval(days => before) $$;
CREATE FUNCTION public.more(n int) RETURNS void LANGUAGE sql VOLATILE AS $$
	INSERT INTO app.event (customer, who, at, name) SELECT who(), 'u' || who() % 7, day(100), (ARRAY['login', 'view'])[1 + who() % 2] FROM generate_series(1, n * 6);
	INSERT INTO app.person (customer, email, since, until) SELECT who()::text, 'p' || who(), t, CASE WHEN random() < 0.3 THEN t + interval '30 days' END FROM (SELECT day(60, 30) AS t FROM generate_series(1, n / 3)) x;
	INSERT INTO app.click (email, at) SELECT 'p' || who(), day(100) FROM generate_series(1, n * 2);
	INSERT INTO app.ticket (customer, opened_at, resolved_at) SELECT who(), t, CASE WHEN random() < 0.6 THEN t + make_interval(hours => who() * 9) END FROM (SELECT day(100) AS t FROM generate_series(1, n)) x;
	INSERT INTO app.issue (customer, opened_at, resolved_at) SELECT who()::text, t, CASE WHEN random() < 0.6 THEN t + make_interval(hours => who() * 9) END FROM (SELECT day(100) AS t FROM generate_series(1, n)) x;
	INSERT INTO app.answer (customer, at, score) SELECT who(), day(100), who() % 11 FROM generate_series(1, n);
	INSERT INTO app.sub SELECT who(), day(100), CASE WHEN random() < 0.4 THEN day(20, -30) END, who() FROM generate_series(1, n / 3);
	INSERT INTO app.merge (f, i, at) SELECT who(), who(), day(40) FROM generate_series(1, n / 3);
$$;
INSERT INTO app.cust SELECT generate_series(1, 24);
SELECT more(36) \g /dev/null
SELECT count(*) FROM cs.add_source('cust', 'customer', 'app.cust', '{"customer_id": "id"}') \g /dev/null
SELECT count(*) FROM cs.add_source('sub', 'subscription', 'app.sub', '{"customer_id": "customer", "start_at": "s", "end_at": "CASE WHEN e < s THEN s ELSE e END", "mrr": "mrr"}') \g /dev/null
SELECT count(*) FROM cs.add_source('event', 'usage_event', 'app.event', '{"customer_id": "customer", "user_id": "who", "at": "at", "event": "name"}') \g /dev/null
SELECT count(*) FROM cs.add_source('person', 'user', 'app.person', '{"user_id": "email", "customer_id": "customer", "valid_from": "since", "valid_to": "until"}') \g /dev/null
SELECT count(*) FROM cs.add_source('click', 'usage_event', 'app.click', '{"user_id": "email", "at": "at", "event": "''click''"}') \g /dev/null
SELECT count(*) FROM cs.add_source('ticket', 'ticket', 'app.ticket', '{"customer_id": "customer", "opened_at": "opened_at", "resolved_at": "resolved_at", "ticket_id": "id"}') \g /dev/null
SELECT count(*) FROM cs.add_source('issue', 'ticket', 'app.issue', '{"customer_id": "customer", "opened_at": "opened_at", "resolved_at": "resolved_at", "ticket_id": "id"}') \g /dev/null
SELECT count(*) FROM cs.add_source('answer', 'survey', 'app.answer', '{"customer_id": "customer", "at": "at", "kind": "''nps''", "score": "score"}') \g /dev/null
SELECT count(*) FROM cs.add_source('merged', 'customer_merge', 'app.merge', '{"from_customer_id": "f", "into_customer_id": "i", "at": "at"}') \g /dev/null
INSERT INTO cs.metric (name, source, expression) VALUES ('mrr', 'ledger', 'mrr'),
	('a_events', 'usage', 'events(usage, NULL, 20)'), ('b_users', 'usage', 'active_users(usage, 45)'), ('c_logins', 'usage', $$events(usage, 'login', 90)$$),
	('d_idle', 'usage', 'days_since(usage, NULL)'), ('e_today', 'usage', 'events(usage, NULL, 2, today => true)'),
	('f_tickets', 'ticket', 'count(*)'), ('g_open', 'ticket', 'count(*) FILTER (WHERE resolved_at IS NULL)'), ('h_nps', 'survey', 'sum(score)'), ('i_latest', 'survey', '(array_agg(score ORDER BY at DESC))[1]');
CREATE TEMP TABLE names AS SELECT array_agg(s.metric ORDER BY s.metric) AS names, array_agg(s.slot ORDER BY s.metric) AS slots FROM cs_internal.metric_slot s WHERE s.metric <> 'mrr';

-- whose facts an id's are: merge by merge in order of time
CREATE FUNCTION public.owner_of(id int, at timestamptz) RETURNS int LANGUAGE plpgsql AS $$
DECLARE m record; owner int := id;
BEGIN
	FOR m IN SELECT f, i FROM app.merge WHERE merge.at < owner_of.at OR merge.at = owner_of.at AND (SELECT period_edge = 'at' FROM cs.policy) ORDER BY merge.at LOOP
		IF m.f = owner THEN owner := m.i; END IF;
	END LOOP;
	RETURN owner;
END $$;
CREATE FUNCTION public.expected(t timestamptz) RETURNS TABLE (customer_id text, metrics float8[]) LANGUAGE sql AS $$
	WITH whose AS MATERIALIZED (SELECT id, owner_of(id, t) AS owner FROM app.cust),
	d AS (SELECT (t AT TIME ZONE 'Europe/Berlin')::date AS today),
	used AS MATERIALIZED (SELECT w.owner, e.who, e.name, e.at, (e.at AT TIME ZONE 'Europe/Berlin')::date AS day
		FROM (SELECT customer, who, name, at FROM app.event UNION ALL
			SELECT p.customer::int, c.email, 'click', c.at FROM app.click c JOIN app.person p ON p.email = c.email AND c.at >= p.since AND (p.until IS NULL OR c.at < p.until)) e
		JOIN whose w ON w.id = e.customer WHERE e.at < t),
	asked AS MATERIALIZED (SELECT w.owner, x.resolved_at FROM (SELECT customer, opened_at, resolved_at FROM app.ticket UNION ALL SELECT customer::int, opened_at, resolved_at FROM app.issue) x
		JOIN whose w ON w.id = x.customer WHERE x.opened_at < t),
	said AS MATERIALIZED (SELECT w.owner, a.at, a.score FROM app.answer a JOIN whose w ON w.id = a.customer WHERE a.at < t)
	SELECT c.id::text, ARRAY[
		(SELECT count(*) FROM used u WHERE u.owner = c.id AND u.day >= d.today - 20 AND u.day < d.today),
		(SELECT count(DISTINCT u.who) FROM used u WHERE u.owner = c.id AND u.day >= d.today - 45 AND u.day < d.today),
		(SELECT count(*) FROM used u WHERE u.owner = c.id AND u.name = 'login' AND u.day >= d.today - 90 AND u.day < d.today),
		(SELECT d.today - max(u.day) FROM used u WHERE u.owner = c.id AND u.day < d.today),
		(SELECT count(*) FROM used u WHERE u.owner = c.id AND u.day >= d.today - 2 AND u.day <= d.today),
		(SELECT count(*) FROM asked a WHERE a.owner = c.id),
		(SELECT count(*) FROM asked a WHERE a.owner = c.id AND (a.resolved_at < t) IS NOT TRUE),
		(SELECT sum(s.score) FROM said s WHERE s.owner = c.id),
		(SELECT s.score FROM said s WHERE s.owner = c.id ORDER BY s.at DESC LIMIT 1)]::float8[]
	FROM app.cust c, d
$$;
CREATE FUNCTION public.picked(v float8[]) RETURNS float8[] LANGUAGE sql AS $$ SELECT array_agg(v[s] ORDER BY o) FROM names, unnest(slots) WITH ORDINALITY u (s, o) $$;
CREATE FUNCTION public.wrong(t timestamptz) RETURNS TABLE (customer_id text, got float8[], want float8[]) LANGUAGE sql AS $$
	SELECT x.customer_id, picked(e."values"), x.metrics FROM expected(t) x LEFT JOIN cs_internal.evaluated_at(NULL, t) e ON e.customer_id = x.customer_id
	WHERE picked(e."values") IS DISTINCT FROM x.metrics $$;
CREATE FUNCTION public.wrong_now() RETURNS TABLE (customer_id text, got float8[], want float8[]) LANGUAGE sql AS $$
	SELECT x.customer_id, picked(e."values"), x.metrics FROM expected(current_setting('cs_ext.now')::timestamptz) x LEFT JOIN cs_internal.state e ON e.customer_id = x.customer_id
	WHERE picked(e."values") IS DISTINCT FROM x.metrics $$;

CALL cs.refresh();
SELECT is((SELECT array_length(names, 1) FROM names), 9, 'all metrics are compared');
SELECT cmp_ok((SELECT count(*) FROM app.cust WHERE owner_of(id, current_setting('cs_ext.now')::timestamptz) <> id), '>', 0::bigint, 'somebody is merged');
SELECT is_empty('SELECT * FROM wrong_now()', 'the first refresh');
-- as of any instant: some at random, some a microsecond around and on merges
SELECT is_empty(format('SELECT * FROM wrong(%L)', t), 'as of ' || t) FROM (SELECT day(50) AS t FROM generate_series(1, 4) UNION ALL
	SELECT at + make_interval(secs => n / 1e6) FROM (SELECT at FROM app.merge ORDER BY id LIMIT 2) m, generate_series(-1, 1) n) x;
-- what cuts terms, renewals and use by time says the same as these walks, instant by instant
CREATE FUNCTION public.wrong_spans() RETURNS TABLE (id int, at timestamptz, got text, want text) LANGUAGE sql AS $$
	SELECT c.id, t.at, coalesce(o.owner, c.id::text), owner_of(c.id, t.at)::text
	FROM app.cust c CROSS JOIN (SELECT at + make_interval(secs => n / 1e6) AS at FROM app.merge, generate_series(-1, 1) n UNION SELECT 'infinity') t
	LEFT JOIN cs_internal.merge_span() o ON o.id = c.id::text AND CASE (SELECT period_edge FROM cs.policy) WHEN 'at' THEN o.since <= t.at AND t.at < o.until OR o.until = t.at AND t.at = 'infinity' ELSE o.since < t.at AND t.at <= o.until END
	WHERE coalesce(o.owner, c.id::text) <> owner_of(c.id, t.at)::text $$;
SELECT is_empty('SELECT * FROM wrong_spans()', 'from when to when the facts of an id count for whom');
-- MRR goes the way the ledger says, as before
SELECT is((SELECT sum(s.mrr) FROM cs_internal.state s), (SELECT sum(mrr) FROM app.sub WHERE s < t AND (e IS NULL OR e >= t)), 'no money is made or lost')
FROM (SELECT current_setting('cs_ext.now')::timestamptz AS t) n WHERE (SELECT period_edge = 'before' FROM cs.policy);

-- ---- facts and merges change, time goes on ---------------------------------------------
CREATE FUNCTION public.disturb() RETURNS void LANGUAGE sql VOLATILE AS $$
	SELECT more(6);
	UPDATE app.merge SET at = day(40), i = CASE WHEN random() < 0.5 THEN who() ELSE i END WHERE random() < 0.2;
	UPDATE app.merge SET f = who() WHERE random() < 0.1;
	DELETE FROM app.merge WHERE random() < 0.15;
	DELETE FROM app.event WHERE random() < 0.05;
	UPDATE app.event SET customer = who() WHERE random() < 0.03;
	UPDATE app.person SET customer = who()::text WHERE random() < 0.1;
	UPDATE app.ticket SET resolved_at = opened_at + interval '3 days' WHERE random() < 0.2;
	DELETE FROM app.issue WHERE random() < 0.05;
$$;
SELECT disturb() \g /dev/null
CALL cs.refresh();
SELECT is_empty('SELECT * FROM wrong_now()', 'after a change');
SET cs_ext.now = '2024-06-20 17:30Z';
CALL cs.refresh();
SELECT is_empty('SELECT * FROM wrong_now()', 'some hours later, with merges and facts that were ahead');
SELECT disturb() \g /dev/null
SET cs_ext.now = '2024-06-21 09:00Z';
CALL cs.refresh();
SELECT is_empty('SELECT * FROM wrong_now()', 'after a change and the turn of the day');
SET cs_ext.now = '2024-06-21 13:00Z';
CALL cs.refresh();
SELECT is_empty('SELECT * FROM wrong_now()', 'by time alone');
SELECT disturb() \g /dev/null
SET cs_ext.now = '2024-06-21 21:59Z';
SELECT cs.refresh_customer(g) FROM generate_series(1, 24, 5) g \g /dev/null
CALL cs.refresh();
SELECT is_empty('SELECT * FROM wrong_now()', 'beside customers refreshed on their own');
SET cs_ext.now = '2024-06-24 05:00Z';
CALL cs.refresh();
SELECT is_empty('SELECT * FROM wrong_now()', 'when nothing lies ahead any more');
SELECT is_empty('SELECT * FROM wrong_spans()', 'of all merges, corrected and added');
SELECT is_empty('SELECT * FROM cs.check()', 'the invariants hold');
CREATE TEMP TABLE incremental AS SELECT customer_id, mrr, "values" FROM cs_internal.state;
CALL cs.rebuild();
SELECT set_eq('SELECT customer_id, mrr, "values" FROM cs_internal.state', 'SELECT * FROM incremental', 'a rebuild gives the same');
TRUNCATE app.merge;
CALL cs.refresh();
SELECT is_empty('SELECT * FROM wrong_now()', 'without merges');
SELECT is((SELECT count(*) FROM cs_internal.merge), 0::bigint, 'nothing of them is left');
SELECT * FROM finish();
