-- What a steady refresh reads: the changed customers' rows by the index on their
-- id, new rows by range, and no table from end to end, whatever the type and the
-- collation of the ids. Asserted on the server's own counts of rows read.
SET client_min_messages = warning;
SET TimeZone = 'America/New_York';
SET jit = off;
-- rows that parallel workers read are not in this session's counters
SET max_parallel_workers_per_gather = 0;
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => 'saas_basic') \g /dev/null
SELECT * FROM no_plan();
CREATE SCHEMA app;

-- One table of events per type of id, the same 200 customers in all of them; 100 events each.
CREATE TABLE public.id_kind (name text PRIMARY KEY, type text, id text);
INSERT INTO public.id_kind VALUES
	('int', 'integer', 'g % 200'), ('bigint', 'bigint', '(g % 200)::bigint'), ('numeric', 'numeric', '(g % 200)::numeric'),
	('uuid', 'uuid', 'md5((g % 200)::text)::uuid'),
	('text_c', 'text COLLATE "C"', '''c'' || g % 200'), ('text_default', 'text', '''c'' || g % 200'),
	('text_posix', 'text COLLATE "POSIX"', '''c'' || g % 200'), ('text_ucs', 'text COLLATE "ucs_basic"', '''c'' || g % 200'),
	('varchar', 'varchar(20)', '''c'' || g % 200'), ('char', 'char(12)', '''c'' || g % 200');
INSERT INTO public.id_kind SELECT 'text_' || collname, format('text COLLATE %I', collname), '''c'' || g % 200'
FROM pg_collation WHERE collname IN ('de-x-icu', 'tr-x-icu') AND collnamespace = 'pg_catalog'::regnamespace;
CREATE FUNCTION app.make() RETURNS void LANGUAGE plpgsql AS $$
DECLARE k record;
BEGIN
	FOR k IN SELECT * FROM public.id_kind LOOP
		EXECUTE format('CREATE TABLE app.%I (id %s, at timestamptz, who text)', 'hit_' || k.name, k.type);
		EXECUTE format('INSERT INTO app.%I SELECT %s, timestamptz ''2024-01-01 00:00Z'' + g * interval ''6 minutes'', ''u'' || g %% 9 FROM generate_series(1, 20000) g', 'hit_' || k.name, k.id);
		EXECUTE format('CREATE INDEX ON app.%I (id)', 'hit_' || k.name);
		EXECUTE format('CREATE INDEX ON app.%I (at)', 'hit_' || k.name);
		EXECUTE format('ANALYZE app.%I', 'hit_' || k.name);
		PERFORM cs.add_source(lower(regexp_replace('hit_' || k.name, '\W', '_', 'g')), 'usage_event', format('app.%I', 'hit_' || k.name)::regclass, '{"customer_id": "id", "at": "at", "user_id": "who"}');
	END LOOP;
END $$;
SELECT app.make() \g /dev/null

-- A company of text ids around them, in every other way facts come.
CREATE TABLE app.customer (id text PRIMARY KEY, name text, since date);
CREATE TABLE app.subscription (id int PRIMARY KEY, customer text, start_on date, end_on date, mrr numeric);
CREATE TABLE app.ticket (id int PRIMARY KEY, customer text, opened_at timestamptz, resolved_at timestamptz);
CREATE TABLE app.member (id bigint PRIMARY KEY, customer text, valid_from date, valid_to date);
CREATE TABLE app.click (member bigint, at timestamptz);
CREATE TABLE app.log (at timestamptz NOT NULL, customer text) PARTITION BY RANGE (at);
CREATE TABLE app.log_1 PARTITION OF app.log FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE app.log_2 PARTITION OF app.log FOR VALUES FROM ('2024-02-01') TO ('2025-01-01');
INSERT INTO app.customer SELECT 'c' || g, 'Customer ' || g, '2023-06-01' FROM generate_series(0, 3999) g;
INSERT INTO app.subscription SELECT g, 'c' || g % 4000, date '2023-07-01' + g % 90, NULL, 50 FROM generate_series(1, 8000) g;
INSERT INTO app.ticket SELECT g, 'c' || g % 4000, timestamptz '2024-01-01' + g * interval '10 minutes', NULL FROM generate_series(1, 12000) g;
INSERT INTO app.member SELECT g, 'c' || g % 4000, NULL, NULL FROM generate_series(1, 12000) g;
INSERT INTO app.click SELECT g % 12000, timestamptz '2024-01-01' + g * interval '3 minutes' FROM generate_series(1, 36000) g;
INSERT INTO app.log SELECT timestamptz '2024-01-01 12:00Z' + g * interval '5 minutes', 'c' || g % 2000 FROM generate_series(1, 20000) g;
CREATE INDEX ON app.subscription (customer);
CREATE INDEX ON app.ticket (customer);
CREATE INDEX ON app.ticket (opened_at);
CREATE INDEX ON app.subscription (start_on);
CREATE INDEX ON app.customer (since);
CREATE INDEX ON app.member (customer);
CREATE INDEX ON app.click (member);
CREATE INDEX ON app.click (at);
CREATE INDEX ON app.log (customer);
CREATE INDEX ON app.log (at);
ANALYZE app.customer, app.subscription, app.ticket, app.member, app.click, app.log;
SELECT count(*) FROM cs.add_source('customer', 'customer', 'app.customer', '{"customer_id": "id", "name": "name", "created_at": "since"}') \g /dev/null
SELECT count(*) FROM cs.add_source('subscription', 'subscription', 'app.subscription', '{"customer_id": "customer", "start_at": "start_on", "end_at": "end_on", "mrr": "mrr"}') \g /dev/null
SELECT count(*) FROM cs.add_source('ticket', 'ticket', 'app.ticket', '{"customer_id": "customer", "opened_at": "opened_at", "resolved_at": "resolved_at", "ticket_id": "id"}') \g /dev/null
SELECT count(*) FROM cs.add_source('member', 'user', 'app.member', '{"customer_id": "customer", "user_id": "id", "valid_from": "valid_from", "valid_to": "valid_to"}') \g /dev/null
SELECT count(*) FROM cs.add_source('click', 'usage_event', 'app.click', '{"user_id": "member", "at": "at", "event": "''click''"}') \g /dev/null
SELECT count(*) FROM cs.add_source('log', 'usage_event', 'app.log', '{"customer_id": "customer", "at": "at", "event": "''log''"}') \g /dev/null
SET cs_ext.now = '2024-04-10 12:00+02';
CALL cs.refresh();

-- Rows read in the running transaction.
CREATE VIEW app.read AS
SELECT relname AS name, coalesce(seq_tup_read, 0) AS scanned, coalesce(idx_tup_fetch, 0) AS fetched
FROM pg_stat_xact_user_tables WHERE schemaname = 'app';
SELECT cmp_ok((SELECT count(*) FROM cs.usage_daily), '>', 10000::bigint, 'there is a rollup');

-- ---- one event each of two customers
DO $$ DECLARE k record; BEGIN
	FOR k IN SELECT * FROM public.id_kind LOOP
		EXECUTE format('INSERT INTO app.%I SELECT %s, timestamptz ''2024-04-09'', ''u1'' FROM generate_series(17, 18) g', 'hit_' || k.name, k.id);
	END LOOP;
END $$;
SELECT pg_stat_force_next_flush() \g /dev/null
BEGIN;
CALL cs.refresh(commit => false);
SELECT is(scanned, 0::bigint, name || ': not read from end to end') FROM app.read WHERE name LIKE 'hit_%' ORDER BY name;
-- 2 of 200 customers have 200 rows; read to be counted, to be rolled up, to find who is no customer
SELECT cmp_ok(fetched, '<', 2000::bigint, name || ': ' || fetched || ' of 20000 rows read by index') FROM app.read WHERE name LIKE 'hit_%' ORDER BY name;
SELECT cmp_ok(fetched, '>', 0::bigint, name || ': and they are counted') FROM app.read WHERE name LIKE 'hit_%' ORDER BY name;
SELECT is_empty('SELECT * FROM app.read WHERE scanned > 5', 'nor was any other table read from end to end');
SELECT is((SELECT sum(fetched) FROM app.read WHERE name IN ('click', 'log_1')) < 1000, true, 'and of the others little by index');
COMMIT;

-- ---- every kind of fact of a few customers
INSERT INTO app.customer VALUES ('new', 'Newcomer', '2024-04-01');
INSERT INTO app.subscription VALUES (9001, 'new', '2024-04-02', NULL, 70);
UPDATE app.subscription SET end_on = '2024-03-01' WHERE customer = 'c33';
INSERT INTO app.ticket VALUES (20001, 'c34', '2024-04-09', NULL);
UPDATE app.ticket SET resolved_at = '2024-04-08' WHERE id = 77;
UPDATE app.member SET valid_to = '2024-03-01' WHERE id = 40;
INSERT INTO app.click VALUES (41, '2024-04-09'), (42, '2024-02-09');
DELETE FROM app.click WHERE member = 50;
INSERT INTO app.log VALUES ('2024-04-09', 'c60'), ('2024-01-09', 'c61');
SELECT pg_stat_force_next_flush() \g /dev/null
BEGIN;
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT * FROM app.read WHERE scanned > 5', 'all kinds: no table is read from end to end');
SELECT cmp_ok((SELECT sum(fetched) FROM app.read), '<', 12000::numeric, 'and little by index: ' || (SELECT string_agg(name || ' ' || fetched, ', ' ORDER BY name) FROM app.read));
COMMIT;
SELECT is((SELECT sum(events) FROM cs.usage_daily WHERE event = 'click'), (SELECT count(*)::numeric FROM app.click c
	JOIN app.member m ON m.id = c.member AND (m.valid_to IS NULL OR c.at < m.valid_to::timestamp AT TIME ZONE 'Europe/Berlin')), 'and the rollup is right');

-- ---- one customer
SELECT pg_stat_force_next_flush() \g /dev/null
BEGIN;
SELECT cs.refresh_customer('c17') \g /dev/null
SELECT is_empty('SELECT * FROM app.read WHERE scanned > 5', 'refresh_customer reads no table from end to end');
SELECT cmp_ok((SELECT sum(fetched) FROM app.read), '<', 4000::numeric, 'but its rows by index: ' || (SELECT sum(fetched) FROM app.read));
COMMIT;
INSERT INTO app.log VALUES ('2024-04-09 01:00', 'c17');
SELECT pg_stat_force_next_flush() \g /dev/null
BEGIN;
SELECT cs.refresh_customer('c17') \g /dev/null
SELECT is_empty('SELECT * FROM app.read WHERE scanned > 5', 'with an event not yet ingested likewise');
COMMIT;

-- ---- nothing new: nothing is read
CALL cs.refresh();
SELECT pg_stat_force_next_flush() \g /dev/null
BEGIN;
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT * FROM app.read WHERE scanned > 5 OR fetched > 0', 'a refresh with nothing to do reads no fact');
COMMIT;

-- ---- the turn of the day re-reads no events
SET cs_ext.now = '2024-04-11 00:00:01+02';
SELECT pg_stat_force_next_flush() \g /dev/null
BEGIN;
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT * FROM app.read WHERE (scanned > 5 OR fetched > 0) AND (name LIKE ''hit%'' OR name LIKE ''log%'' OR name = ''click'')', 'the turn of the day reads no events');
COMMIT;

-- ---- merged customers: the rows of the ids that count, by the same indexes, whatever their type
CREATE TABLE app.merged (old_id text, at timestamptz);
SELECT count(*) FROM cs.add_source('merged', 'customer_merge', 'app.merged', '{"from_customer_id": "old_id", "into_customer_id": "''c20''", "at": "at"}') \g /dev/null
INSERT INTO cs.metric (name, source, expression) VALUES ('today', 'usage', 'events(usage, NULL, 1, today => true)'), ('tickets', 'ticket', 'count(*)');
INSERT INTO cs.alert_rule (name, source, rule, key) VALUES ('old', 'ticket', 'opened_at < as_of - interval ''1 year''', 'ticket_id');
DO $$ DECLARE k record; BEGIN
	FOR k IN SELECT * FROM public.id_kind LOOP
		EXECUTE format('INSERT INTO app.merged SELECT (%s)::text, ''2024-04-01'' FROM generate_series(17, 17) g', k.id);
	END LOOP;
END $$;
SET cs_ext.now = '2024-04-11 12:00+02';
CALL cs.refresh();
DO $$ DECLARE k record; BEGIN
	FOR k IN SELECT * FROM public.id_kind LOOP
		EXECUTE format('INSERT INTO app.%I SELECT %s, timestamptz ''2024-04-11 08:00+02'', ''u1'' FROM generate_series(17, 17) g', 'hit_' || k.name, k.id);
	END LOOP;
END $$;
INSERT INTO app.ticket VALUES (20002, 'c17', '2024-04-11 08:00+02', NULL);
SELECT pg_stat_force_next_flush() \g /dev/null
BEGIN;
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT * FROM app.read WHERE scanned > 20', 'merged customers: no table is read from end to end');
SELECT cmp_ok(fetched, '<', 2000::bigint, name || ': ' || fetched || ' of 20000 rows read by index') FROM app.read WHERE name LIKE 'hit_%' ORDER BY name;
COMMIT;
SELECT is((SELECT value FROM cs.customer_metric WHERE customer_id = 'c20' AND metric = 'today'), (SELECT count(*)::float8 FROM public.id_kind), 'and what is read is right for ids of every type');
SELECT is((SELECT value FROM cs.customer_metric WHERE customer_id = 'c20' AND metric = 'tickets'), (SELECT count(*)::float8 FROM app.ticket WHERE customer IN ('c17', 'c20')), 'as for tickets');
SELECT is((SELECT string_agg(value::text, ' ' ORDER BY metric) FROM cs.customer_metric WHERE customer_id = 'c17' AND metric IN ('today', 'tickets')), '0 0', 'the old customer has none');
SELECT pg_stat_force_next_flush() \g /dev/null
BEGIN;
SELECT cs.refresh_customer('c20') \g /dev/null
SELECT is_empty('SELECT * FROM app.read WHERE scanned > 20', 'nor is one by refresh_customer');
COMMIT;
SELECT * FROM finish();
