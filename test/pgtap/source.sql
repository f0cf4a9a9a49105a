-- Sources: how they are read (plans, ids, what was known when), what of them
-- cannot be used, and how change is noticed where no row trigger fires.
SET client_min_messages = warning;
SELECT cs.setup(time_zone => 'Asia/Tokyo', currency => 'JPY', template => NULL) \g /dev/null
SELECT * FROM no_plan();
CREATE SCHEMA app;

-- The rows of a source by its own SQL: keys are an array literal, as_of an instant.
CREATE FUNCTION public.rows_of(source text, keys text, as_of text DEFAULT NULL) RETURNS SETOF jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('TimeZone', 'Asia/Tokyo', true);
	RETURN QUERY EXECUTE format('SELECT to_jsonb(r) - ''customer_key'' FROM (%s) r',
		replace(replace(cs_internal.source_sql(source, keys IS NOT NULL, as_of IS NOT NULL), '$1', coalesce(quote_literal(keys), '')),
			'as_of', coalesce(quote_literal(as_of) || '::timestamptz', '')));
END $$;
CREATE FUNCTION public.plan_of(source text, keys text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	line text;
	result text := '';
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || replace(cs_internal.source_sql(source, true, false), '$1', quote_literal(keys)) LOOP
		result := result || line || E'\n';
	END LOOP;
	RETURN result;
END $$;

-- ---- plans: each key type in its own index -----------------------------------
CREATE TABLE app.fact AS
SELECT g AS n, (g % 5000)::smallint AS small, g % 5000 AS int, (g % 5000)::bigint AS big,
	md5((g % 5000)::text)::uuid AS uuid, 'c' || g % 5000 AS text, ('c' || g % 5000)::varchar(20) AS varchar,
	('c' || g % 5000)::char(12) AS char, (g % 5000)::numeric(12,2) AS numeric,
	timestamptz '2024-01-01' + g * interval '1 minute' AS at
FROM generate_series(1, 50000) g;
SELECT 'CREATE INDEX ON app.fact (' || quote_ident(t) || ')' FROM unnest('{small,int,big,uuid,text,varchar,char,numeric}'::text[]) t \gexec
CREATE INDEX ON app.fact ((('x' || n)::text) COLLATE "C");
ANALYZE app.fact;
SELECT count(*) FROM unnest('{small,int,big,uuid,text,varchar,char,numeric}'::text[]) t,
	LATERAL cs.add_source('by_' || t, 'touchpoint', 'app.fact', jsonb_build_object('customer_id', quote_ident(t), 'at', 'at')) \g /dev/null
SELECT count(*) FROM cs.add_source('by_expression', 'touchpoint', 'app.fact', '{"customer_id": "''x'' || n", "at": "at"}') \g /dev/null

SELECT matches(public.plan_of('by_' || t, k), 'Index Cond: \(*"?' || t || '"?\)?(::\w+)? = ANY', format('%s ids are found by the index of their type', t))
FROM (VALUES ('small', '{7}'), ('int', '{7}'), ('big', '{7}'), ('uuid', '{8f14e45f-ceea-167a-5a36-dedd4bea2543}'), ('text', '{c7}'),
	('varchar', '{c7}'), ('char', '{c7}'), ('numeric', '{7}')) v(t, k);
SELECT matches(public.plan_of('by_expression', '{x7}'), 'Index Cond: \(*''x''::text \|\|', 'an expression is found by the index that the warning names');
SELECT is((SELECT count(*) FROM public.rows_of('by_' || t, k)), 10::bigint, format('%s ids: the rows of one customer', t))
FROM (VALUES ('small', '{7}'), ('int', '{7}'), ('big', '{7}'), ('uuid', '{8f14e45f-ceea-167a-5a36-dedd4bea2543}'), ('text', '{c7}'),
	('varchar', '{c7}'), ('char', '{c7}'), ('numeric', '{7}')) v(t, k);
SELECT is((SELECT DISTINCT r ->> 'customer_id' FROM public.rows_of('by_' || t, k) r), o, format('%s ids: as they are outside', t))
FROM (VALUES ('small', '{7}', '7'), ('uuid', '{8f14e45f-ceea-167a-5a36-dedd4bea2543}', '8f14e45f-ceea-167a-5a36-dedd4bea2543'),
	('char', '{c7}', 'c7'), ('numeric', '{7}', '7')) v(t, k, o);
-- as the customers a database has: all of them, one grouped read
SELECT matches((SELECT string_agg(l, E'\n') FROM (SELECT public.plan_of('by_int', '{1,2,3}') AS l) p), 'fact', 'the plan reads the table itself');
SELECT unalike(cs_internal.source_sql('by_int', true, true), '%int)::text = ANY%', 'a native key is never cast');
SELECT cs.drop_source(name) FROM cs.source \g /dev/null

-- ---- what was known when ------------------------------------------------------
CREATE TABLE app.ticket (id int PRIMARY KEY, c int, opened timestamptz, replied timestamptz, solved timestamptz, stars int, hot boolean);
INSERT INTO app.ticket VALUES (1, 1, '2024-03-01 00:00+09', '2024-03-02 00:00+09', '2024-03-10 00:00+09', 4, true),
	(2, 1, '2024-03-05 00:00+09', NULL, 'infinity', 2, false);
SELECT count(*) FROM cs.add_source('ticket', 'ticket', 'app.ticket',
	'{"customer_id": "c", "ticket_id": "id", "opened_at": "opened", "first_reply_at": "replied", "resolved_at": "solved", "csat": "stars", "escalated": "hot"}') \g /dev/null
SELECT is((SELECT string_agg(r ->> 'ticket_id', ',' ORDER BY r ->> 'ticket_id') FROM public.rows_of('ticket', NULL, a) r), w, 'tickets seen at ' || a)
FROM (VALUES ('2024-03-01 00:00+09', NULL), ('2024-03-01 00:00:01+09', '1'), ('2024-03-05 00:00:01+09', '1,2')) v(a, w);
SELECT is((SELECT format('%s|%s|%s|%s', r ->> 'first_reply_at' IS NOT NULL, r ->> 'resolved_at' IS NOT NULL, r ->> 'csat', r ->> 'escalated') FROM public.rows_of('ticket', NULL, a) r WHERE r ->> 'ticket_id' = '1'), w, 'known of a ticket at ' || a)
FROM (VALUES ('2024-03-02 00:00+09', 'f|f||true'), ('2024-03-02 00:00:01+09', 't|f||true'), ('2024-03-10 00:00+09', 't|f||true'), ('2024-03-10 00:00:01+09', 't|t|4|true')) v(a, w);
SELECT is((SELECT format('%s|%s', r ->> 'resolved_at', r ->> 'csat') FROM public.rows_of('ticket', '{1}', NULL) r WHERE r ->> 'ticket_id' = '2'), '|2', 'infinity is not yet; uncut, everything is there');

CREATE TABLE app.term (id int PRIMARY KEY, c int, s date, e date, asked date, signed date, renew date, st text, why text, amount numeric, unit text, every int);
INSERT INTO app.term VALUES (1, 1, '2024-01-01', '2024-12-31', '2024-06-01', NULL, '2025-01-01', 'active', 'price', 120, 'year', 1),
	(2, 1, '2025-01-01', NULL, NULL, '2024-11-01', NULL, 'active', NULL, 10, 'month', NULL),
	(3, 2, '2024-01-01', 'infinity', NULL, NULL, NULL, 'canceled', NULL, 10, 'day', 1);
SELECT count(*) FROM cs.add_source('term', 'subscription', 'app.term',
	'{"customer_id": "c", "subscription_id": "id", "start_at": "s", "end_at": "e", "cancel_requested_at": "asked", "signed_at": "signed", "renews_at": "renew", "status": "st", "cancel_reason": "why", "amount": "amount", "interval": "unit", "interval_count": "every"}') \g /dev/null
SELECT is((SELECT string_agg(format('%s:%s:%s:%s', r ->> 'subscription_id', (r ->> 'end_at')::date, r ->> 'cancel_reason', (r ->> 'renews_at')::date), ' ' ORDER BY r ->> 'subscription_id') FROM public.rows_of('term', '{1}', a) r), w, 'known of the terms at ' || a)
FROM (VALUES ('2024-01-01 00:00+09', NULL), ('2024-06-01 00:00+09', '1:::2025-01-01'), ('2024-06-01 00:01+09', '1:2024-12-31:price:2025-01-01'),
	('2024-11-02 00:00+09', '1:2024-12-31:price:2025-01-01 2:::')) v(a, w);
SELECT is((SELECT r ->> 'status' FROM public.rows_of('term', '{2}', '2024-06-01 00:00+09') r), NULL, 'canceled is not known while no date says since when');
SELECT is((SELECT r ->> 'end_at' FROM public.rows_of('term', '{2}') r), NULL, 'end_at infinity is NULL');
SELECT is((SELECT (r ->> 'start_at')::timestamptz FROM public.rows_of('term', '{2}') r), '2024-01-01 00:00+09', 'a date is midnight in the zone of the policy');

-- ---- MRR of amount and interval, rounded once per row --------------------------
TRUNCATE app.term;
INSERT INTO app.term (id, c, s, amount, unit, every) VALUES (1, 1, '2024-01-01', 10, 'year', 1), (2, 1, '2024-01-01', 10, 'Quarter', 1), (3, 1, '2024-01-01', 10, 'month', NULL),
	(4, 1, '2024-01-01', 10, 'week', 1), (5, 1, '2024-01-01', 10, 'day', 1), (6, 1, '2024-01-01', 100, 'month', 6), (7, 1, '2024-01-01', 100, 'week', 2), (8, 1, '2024-01-01', 1, 'year', 3);
SELECT results_eq($$SELECT (r ->> 'subscription_id')::int, (r ->> 'mrr')::numeric FROM public.rows_of('term', NULL) r ORDER BY 1$$,
	$$VALUES (1, 0.833333), (2, 3.333333), (3, 10.000000), (4, 43.333333), (5, 304.166667), (6, 16.666667), (7, 216.666667), (8, 0.027778)$$,
	'year/12, quarter/3, week*52/12, day*365/12, divided by interval_count');
SELECT cs.drop_source('term'), cs.drop_source('ticket') \g /dev/null

-- ---- rows that cannot be used ---------------------------------------------------
CREATE TABLE app.bad_term (id serial, c text, s timestamptz, e timestamptz, amount numeric, unit text, st text, seats numeric, every int);
CREATE TABLE app.bad_survey (c int, at timestamptz, kind text, score numeric);
CREATE TABLE app.bad_event (c int, at date, n int, q float8);
CREATE TABLE app.bad_customer (id int, made date, extra jsonb);
SELECT count(*) FROM cs.add_source('bad_term', 'subscription', 'app.bad_term',
	'{"customer_id": "c", "start_at": "s", "end_at": "e", "amount": "amount", "interval": "unit", "interval_count": "every", "status": "st", "seats": "seats"}') \g /dev/null
SELECT count(*) FROM cs.add_source('bad_survey', 'survey', 'app.bad_survey', '{"customer_id": "c", "at": "at", "kind": "kind", "score": "score"}') \g /dev/null
SELECT count(*) FROM cs.add_source('bad_event', 'usage_event', 'app.bad_event', '{"customer_id": "c", "at": "at", "event_count": "n", "quantity": "q"}') \g /dev/null
SELECT count(*) FROM cs.add_source('bad_customer', 'customer', 'app.bad_customer', '{"customer_id": "id", "created_at": "made", "attributes": "extra"}') \g /dev/null
CALL cs.refresh();
-- written after the first refresh: noticed by capture, counted by ingest
INSERT INTO app.bad_term (c, s, e, amount, unit, st, seats, every) VALUES
	('1', '2024-01-01', NULL, 100, 'month', 'active', 1, 1),
	('1', '2024-01-01', '2024-01-01', 100, 'month', 'active', 1, 1),
	(NULL, '2024-01-01', NULL, 100, 'month', 'active', 1, 1),
	('', '2024-01-01', NULL, 100, 'month', 'active', 1, 1),
	('1', NULL, NULL, 100, 'month', 'active', 1, 1),
	('1', 'infinity', NULL, 100, 'month', 'active', 1, 1),
	('1', '-infinity', NULL, 100, 'month', 'active', 1, 1),
	('1', '2024-01-01', '2023-01-01', 100, 'month', 'active', 1, 1),
	('1', '2024-01-01', '-infinity', 100, 'month', 'active', 1, 1),
	('1', '2024-01-01', NULL, 'NaN', 'month', 'active', 1, 1),
	('1', '2024-01-01', NULL, 'infinity', 'month', 'active', 1, 1),
	('1', '2024-01-01', NULL, NULL, 'month', 'active', 1, 1),
	('1', '2024-01-01', NULL, 1e20, 'month', 'active', 1, 1),
	('1', '2024-01-01', NULL, 100, 'fortnight', 'active', 1, 1),
	('1', '2024-01-01', NULL, 100, NULL, 'active', 1, 1),
	('1', '2024-01-01', NULL, 100, 'month', 'asleep', 1, 1),
	('1', '2024-01-01', NULL, 100, 'month', 'active', -1, 1),
	('1', '2024-01-01', NULL, 100, 'month', 'active', 1, 0);
INSERT INTO app.bad_survey VALUES (1, '2024-01-01', 'nps', 9), (1, '2024-01-01', 'nps', 11), (1, '2024-01-01', NULL, 1), (1, '2024-01-01', 'ces', 'NaN');
INSERT INTO app.bad_event VALUES (1, '2024-01-01', 1, 1), (1, '5874897-12-31', 1, 1), (1, '4713-01-01 BC', 1, 1), (1, '2024-01-01', -1, 1), (1, '2024-01-01', 1, 'NaN'), (NULL, '2024-01-01', 1, 1), (999, '2024-01-01', 1, 1);
INSERT INTO app.bad_customer VALUES (1, '2024-01-01', '{}'), (2, NULL, '{}'), (3, 'infinity', '{}'), (4, '2024-01-01', '[1]');
SELECT lives_ok('CALL cs.refresh(commit => false)', 'bad rows do not stop a refresh');
CREATE FUNCTION public.reasons() RETURNS SETOF text LANGUAGE sql AS $$
	SELECT t FROM (SELECT format('%s: %s %s', s.source, r.key, r.value ->> 'rows') AS t FROM cs.source_status s, jsonb_each(s.unusable) r) x ORDER BY t COLLATE "C" $$;
SELECT results_eq('SELECT * FROM public.reasons()', ARRAY[
	'bad_customer: attributes is not an object 1',
	'bad_customer: created_at is infinite or out of range 1',
	'bad_event: at is infinite or out of range 2',
	'bad_event: customer_id is NULL 1',
	'bad_event: event_count is negative 1',
	'bad_event: quantity is not a finite number 1',
	'bad_survey: kind is NULL 1',
	'bad_survey: score is not a finite number 1',
	'bad_survey: score of an nps answer is not from 0 to 10 1',
	'bad_term: amount is NULL 1',
	'bad_term: amount is not a finite number 2',
	'bad_term: customer_id is NULL 1',
	'bad_term: customer_id is empty 1',
	'bad_term: end_at is before start_at 1',
	'bad_term: end_at is minus infinity 1',
	'bad_term: interval is unknown 2',
	'bad_term: interval_count is less than 1 1',
	'bad_term: mrr is too large 1',
	'bad_term: seats is negative 1',
	'bad_term: start_at is NULL 1',
	'bad_term: start_at is infinite or out of range 2',
	'bad_term: status is unknown 1'], 'each is counted with its reason');
SELECT ok(bool_and(r.value ->> 'example' <> ''), 'and an example') FROM cs.source_status s, jsonb_each(s.unusable) r;
SELECT is((SELECT sum(delta) FROM cs.movement WHERE customer_id = '1'), 100::numeric, 'the usable rows count; a term of no length has no effect');
SELECT is((SELECT sum(events)::bigint FROM cs.usage_daily WHERE customer_id = '1'), 1::bigint, 'of events too');
SELECT is((SELECT orphans FROM cs.source_status WHERE source = 'bad_event'), 1::bigint, 'an id that is no customer is an orphan');
SELECT results_eq($$SELECT customer_id::text COLLATE "default" FROM cs_internal.customer ORDER BY 1$$, ARRAY['1', '2'], 'created_at may be NULL; what cannot be used makes no customer');
CREATE TEMP TABLE counted AS SELECT * FROM public.reasons();
SELECT count(cs.mark_changed(source)::text) FROM cs.source_status \g /dev/null
CALL cs.refresh();
SELECT results_eq('SELECT * FROM public.reasons()', 'SELECT * FROM counted', 'read whole, the counts are the same');
UPDATE app.bad_term SET s = '2024-01-01' WHERE s IS NULL;
DELETE FROM app.bad_term WHERE c IS NULL OR st = 'asleep';
CALL cs.refresh();
SELECT results_eq($$SELECT reason::text FROM cs_internal.unusable WHERE source = 'bad_term' AND reason IN ('start_at is NULL', 'customer_id is NULL', 'status is unknown')$$, ARRAY[]::text[], 'corrected rows are no longer counted');
SELECT cs.drop_source(name) FROM cs.source \g /dev/null
CALL cs.refresh();
SELECT is((SELECT count(*) FROM cs_internal.customer) + (SELECT count(*) FROM cs.movement), 0::bigint, 'dropped sources leave nothing derived');

-- ---- users ---------------------------------------------------------------------
CREATE TABLE app.account (id int PRIMARY KEY, name text);
INSERT INTO app.account SELECT g, 'Account ' || g FROM generate_series(1, 3) g;
CREATE TABLE app.seat (person bigint, account int, since date, until date);
CREATE INDEX ON app.seat (account);
CREATE TABLE app.click (person bigint, at timestamptz);
CREATE INDEX ON app.click (person);
INSERT INTO app.seat SELECT g, 1 + g % 2, NULL, NULL FROM generate_series(1, 2000) g;
INSERT INTO app.click SELECT 10 + g % 2000, timestamptz '2024-05-01 12:00+09' + g * interval '1 second' FROM generate_series(1, 20000) g;
UPDATE app.seat SET until = '2024-05-02' WHERE person = 7;
INSERT INTO app.seat VALUES (7, 3, '2024-05-02', NULL);
INSERT INTO app.click VALUES (7, '2024-05-01 23:59:59+09'), (7, '2024-05-02 00:00+09'), (99999, '2024-05-01 12:00+09');
ANALYZE app.seat; ANALYZE app.click;
SELECT count(*) FROM cs.add_source('account', 'customer', 'app.account', '{"customer_id": "id", "name": "name"}') \g /dev/null
SELECT count(*) FROM cs.add_source('seat', 'user', 'app.seat', '{"customer_id": "account", "user_id": "person", "valid_from": "since", "valid_to": "until"}') \g /dev/null
SELECT count(*) FROM cs.add_source('click', 'usage_event', 'app.click', '{"user_id": "person", "at": "at"}') \g /dev/null
CREATE FUNCTION public.clicks() RETURNS SETOF text LANGUAGE sql AS $$
	SELECT t FROM (SELECT format('%s %s %s', customer_id, day, sum(events)) AS t FROM cs.usage_daily GROUP BY customer_id, day) x ORDER BY t COLLATE "C" $$;
CREATE FUNCTION public.clicks_now() RETURNS SETOF text LANGUAGE sql AS $$
	SELECT t FROM (SELECT format('%s %s %s', s.account, (c.at AT TIME ZONE 'Asia/Tokyo')::date, count(*)) AS t FROM app.click c JOIN app.seat s ON s.person = c.person
		AND (s.since IS NULL OR s.since <= (c.at AT TIME ZONE 'Asia/Tokyo')::date) AND (s.until IS NULL OR s.until > (c.at AT TIME ZONE 'Asia/Tokyo')::date)
	GROUP BY s.account, (c.at AT TIME ZONE 'Asia/Tokyo')::date) x ORDER BY t COLLATE "C" $$;
CALL cs.refresh();
SELECT results_eq('SELECT * FROM public.clicks()', 'SELECT * FROM public.clicks_now()', 'events of users count for the customer they belonged to then');
INSERT INTO app.click VALUES (8, '2024-05-03 12:00+09');
CALL cs.refresh();
SELECT results_eq('SELECT * FROM public.clicks()', 'SELECT * FROM public.clicks_now()', 'a user''s new event');
UPDATE app.seat SET account = 3 WHERE person = 8;
INSERT INTO app.seat VALUES (99999, 3, NULL, NULL);
CALL cs.refresh();
SELECT results_eq('SELECT * FROM public.clicks()', 'SELECT * FROM public.clicks_now()', 'a user who moved, and one who appeared after the event');
DELETE FROM app.seat WHERE person = 10;
DELETE FROM app.click WHERE person = 10;
CALL cs.refresh();
SELECT results_eq('SELECT * FROM public.clicks()', 'SELECT * FROM public.clicks_now()', 'a user and the events gone in one go');
SELECT unalike(public.plan_of('click', '{1}'), '%account)::text%', 'users are joined in their own types');
SELECT throws_ok($$SELECT cs.drop_source('seat')$$, '2BP01', NULL, 'the only user source cannot be dropped under its users');
SELECT cs.drop_source('click'), cs.drop_source('seat') \g /dev/null

-- ---- views: re-read, compared by checksum ------------------------------------------
CREATE VIEW app.clicks AS SELECT s.account, c.at FROM app.click c JOIN app.seat s USING (person);
SELECT count(*) FROM cs.add_source('clicks', 'usage_event', 'app.clicks', '{"customer_id": "account", "at": "at"}') \g /dev/null
SELECT is((SELECT capture FROM cs.source_status WHERE source = 'clicks'), 'scan', 'a view is scanned');
CREATE FUNCTION public.view_is_right(label text) RETURNS text LANGUAGE sql AS $$
	SELECT results_eq('SELECT customer_id::int, sum(events)::bigint FROM cs.usage_daily GROUP BY 1 ORDER BY 1',
		'SELECT account, count(*) FROM app.clicks GROUP BY 1 ORDER BY 1', label) $$;
CALL cs.refresh();
SELECT public.view_is_right('a view as it is');
DELETE FROM app.click WHERE person = 12;
UPDATE app.seat SET account = 9 WHERE person = 13;
CALL cs.refresh();
SELECT public.view_is_right('rows gone and a customer new');
DELETE FROM app.seat WHERE account = 9;
CALL cs.refresh();
SELECT public.view_is_right('a customer gone');
-- order and repetition
CREATE TEMP TABLE sums AS SELECT * FROM cs_internal.scan_checksum;
CREATE TABLE app.shuffled AS SELECT * FROM app.click ORDER BY random();
TRUNCATE app.click;
INSERT INTO app.click SELECT * FROM app.shuffled;
CALL cs.refresh();
SELECT set_eq('SELECT customer_id, checksum FROM cs_internal.scan_checksum', 'SELECT customer_id, checksum FROM sums', 'the order of rows changes no checksum');
INSERT INTO app.click SELECT person, at FROM app.click WHERE person = 14 LIMIT 1;
CALL cs.refresh();
SELECT public.view_is_right('the same row twice is two rows');
-- a view that breaks and is mended
ALTER VIEW app.clicks RENAME COLUMN account TO client;
INSERT INTO app.account VALUES (4, 'Four');
SELECT lives_ok('CALL cs.refresh(commit => false)', 'a broken source does not stop the others');
SELECT ok((SELECT error ~ 'account' FROM cs.source_status WHERE source = 'clicks'), 'it says why');
SELECT ok(EXISTS (SELECT 1 FROM cs_internal.customer WHERE customer_id = '4'), 'the others went on');
SELECT ok(EXISTS (SELECT 1 FROM cs.doctor() WHERE "check" = 'mapping' AND object = 'clicks'), 'doctor names it');
ALTER VIEW app.clicks RENAME COLUMN client TO account;
CALL cs.refresh();
SELECT is((SELECT error FROM cs.source_status WHERE source = 'clicks'), NULL, 'mended');
SELECT cs.drop_source('clicks') \g /dev/null

-- ---- partitions that come and go without a row trigger ---------------------------------
CREATE TABLE app.hit (account int, at timestamptz NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE app.hit_1 PARTITION OF app.hit FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE INDEX ON app.hit (account);
SELECT count(*) FROM cs.add_source('hit', 'usage_event', 'app.hit', '{"customer_id": "account", "at": "at"}') \g /dev/null
CREATE FUNCTION public.hits_are_right(label text) RETURNS text LANGUAGE sql AS $$
	SELECT results_eq('SELECT customer_id::int, sum(events)::bigint FROM cs.usage_daily GROUP BY 1 ORDER BY 1',
		'SELECT account, count(*) FROM app.hit GROUP BY 1 ORDER BY 1', label) $$;
INSERT INTO app.hit SELECT 1 + g % 3, '2024-01-05' FROM generate_series(1, 10) g;
CALL cs.refresh();
SELECT public.hits_are_right('a partitioned table');
CREATE TABLE app.hit_2 (account int, at timestamptz NOT NULL);
INSERT INTO app.hit_2 SELECT 2, '2024-02-05' FROM generate_series(1, 5);
ALTER TABLE app.hit ATTACH PARTITION app.hit_2 FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
CALL cs.refresh();
SELECT public.hits_are_right('a filled partition attached');
TRUNCATE app.hit_2;
CALL cs.refresh();
SELECT public.hits_are_right('a partition truncated by its own name');
ALTER TABLE app.hit DETACH PARTITION app.hit_1;
CALL cs.refresh();
SELECT public.hits_are_right('a partition detached');
SELECT scanned_at AS before FROM cs.source_status WHERE source = 'hit' \gset
CREATE TABLE app.hit_3 PARTITION OF app.hit FOR VALUES FROM ('2024-03-01') TO ('2024-04-01');
CALL cs.refresh();
SELECT is((SELECT scanned_at FROM cs.source_status WHERE source = 'hit'), :'before'::timestamptz, 'an empty partition makes nothing be read');
INSERT INTO app.hit VALUES (3, '2024-03-05');
CALL cs.refresh();
SELECT public.hits_are_right('and its rows are captured');

-- ---- how far a source reaches ------------------------------------------------------------
SELECT is((SELECT format('%s %s', first_at AT TIME ZONE 'UTC', last_at AT TIME ZONE 'UTC') FROM cs.source_status WHERE source = 'hit'),
	(SELECT format('%s %s', min(at) AT TIME ZONE 'UTC', max(at) AT TIME ZONE 'UTC') FROM app.hit), 'first and last instant');
DELETE FROM app.hit;
CALL cs.refresh();
SELECT is((SELECT last_at FROM cs.source_status WHERE source = 'hit'), NULL, 'none without rows');
SELECT ok(NOT available, 'and nothing is available') FROM cs_internal.source_state WHERE source = 'hit';

-- ---- doctor ---------------------------------------------------------------------------------
SELECT is((SELECT string_agg("check", ',' ORDER BY "check") FROM cs.doctor() WHERE object IN ('hit', 'account')), NULL, 'nothing is wrong with these');
CREATE TABLE app.plain (account int, s date, e date);
INSERT INTO app.plain SELECT g % 7, d, (d + interval '1 month' - interval '1 day')::date FROM generate_series(1, 7) g, generate_series(date '2024-01-01', '2024-06-01', '1 month') d;
SELECT count(*) FROM cs.add_source('plain', 'subscription', 'app.plain', '{"customer_id": "account", "start_at": "s", "end_at": "e", "mrr": "1"}') \g /dev/null
CREATE TABLE app.twice (u int, account int);
INSERT INTO app.twice VALUES (1, 1), (1, 2);
SELECT count(*) FROM cs.add_source('twice', 'user', 'app.twice', '{"customer_id": "account", "user_id": "u"}') \g /dev/null
INSERT INTO app.hit VALUES (77, '2024-03-05');
ALTER TABLE app.hit DISABLE TRIGGER cs_capture_hit;
CALL cs.refresh();
CREATE FUNCTION public.finds(what text, thing text, cure text) RETURNS text LANGUAGE sql AS $$
	SELECT ok(EXISTS (SELECT 1 FROM cs.doctor() d WHERE d."check" = what AND d.object = thing AND d.remedy ~ cure), format('doctor finds %s of %s', what, thing)) $$;
SELECT public.finds('index', 'plain', 'CREATE INDEX CONCURRENTLY ON app.plain \(account\);');
SELECT public.finds('inclusive_end', 'plain', '\(e\) \+ 1');
SELECT public.finds('users', 'twice', 'one row at a time');
SELECT public.finds('triggers', 'hit', 'ENABLE ALWAYS TRIGGER cs_capture_hit;');
SELECT public.finds('orphans', 'hit', 'customer');
SELECT is((SELECT capture FROM cs.source_status WHERE source = 'hit'), 'scan', 'without its triggers a table is scanned');
ALTER TABLE app.hit ENABLE ALWAYS TRIGGER cs_capture_hit;
INSERT INTO app.bad_event VALUES (1, 'infinity', 1, 1);
SELECT count(*) FROM cs.add_source('bad_event', 'usage_event', 'app.bad_event', '{"customer_id": "c", "at": "at"}') \g /dev/null
ALTER TABLE app.twice RENAME TO twice_no_more;
CALL cs.refresh();
REVOKE ALL ON app.plain FROM cs_ext_run;
SELECT public.finds('read', 'plain', 'GRANT SELECT ON app.plain TO cs_ext_run;');
GRANT SELECT ON app.plain TO cs_ext_run;
SELECT public.finds('relation', 'twice', 'drop_source');
SELECT public.finds('unusable', 'bad_event', 'Correct');
SELECT is((SELECT capture FROM cs.source_status WHERE source = 'hit'), 'trigger', 'with them it is captured again');
SELECT public.finds('scheduler', 'shared_preload_libraries', 'refresh') WHERE current_setting('shared_preload_libraries') !~ 'cs_ext';
INSERT INTO cs_internal.hold (reason, since) VALUES ('restore', now());
SELECT public.finds('hold', 'cs_ext', 'release_hold');
DELETE FROM cs_internal.hold;
INSERT INTO cs_internal.definition_status (table_name, key, status, error, since) VALUES ('metric', 'm', 'failing', 'division by zero', now());
SELECT public.finds('definition', 'metric m', 'Correct');
SELECT finish();
