-- Capture: what each way of writing leaves in the change log.
\set VERBOSITY default
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET TimeZone = 'UTC';
\set ECHO all
CREATE ROLE regress_run_capture;
SELECT cs.setup(time_zone => 'Asia/Tokyo', currency => 'JPY', template => NULL, run_as => 'regress_run_capture');
CREATE SCHEMA app;
CREATE TABLE app.event (id int PRIMARY KEY, customer int, at timestamptz, note text);
CREATE TABLE app.ticket (id int, account numeric(10,2), day date) PARTITION BY RANGE (day);
CREATE TABLE app.ticket_2024 PARTITION OF app.ticket FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE app.member (uid char(8), account uuid);
SELECT count(*) FROM cs.add_source('event', 'usage_event', 'app.event', '{"customer_id": "customer", "at": "at"}');
SELECT count(*) FROM cs.add_source('ticket', 'ticket', 'app.ticket', '{"customer_id": "account", "opened_at": "day"}');
SELECT count(*) FROM cs.add_source('member', 'user', 'app.member', '{"customer_id": "account", "user_id": "uid"}');
DELETE FROM cs_internal.change_log;
\set log 'WITH d AS (DELETE FROM cs_internal.change_log RETURNING *) SELECT source, customer_key, since, until FROM d ORDER BY source, customer_key COLLATE "C", since;'

-- insert, update of key and anchor, delete: old and new
INSERT INTO app.event VALUES (1, 10, '2024-01-01'), (2, 11, '2024-02-01'), (3, 10, '2024-03-01');
:log
UPDATE app.event SET customer = 12, at = '2024-05-01' WHERE id = 1;
:log
UPDATE app.event SET note = 'x' WHERE id = 2;
:log
DELETE FROM app.event WHERE id = 3;
:log
-- no row, no mark
DELETE FROM app.event WHERE id = 99;
:log
-- ON CONFLICT, MERGE, COPY
INSERT INTO app.event VALUES (2, 13, '2024-02-02'), (4, 14, '2024-02-03') ON CONFLICT (id) DO UPDATE SET customer = excluded.customer, at = excluded.at;
:log
INSERT INTO app.event VALUES (2, 15, '2024-02-02') ON CONFLICT DO NOTHING;
:log
MERGE INTO app.event e USING (VALUES (4, 16)) v(id, c) ON e.id = v.id WHEN MATCHED THEN UPDATE SET customer = v.c;
:log
COPY app.event (id, customer, at) FROM stdin WITH (DELIMITER ',');
5,17,2024-06-01
6,17,2024-06-09
\.
:log
-- rows without customer, without anchor, with infinite ones
INSERT INTO app.event VALUES (7, NULL, '2024-06-01'), (8, 18, NULL), (9, 19, 'infinity'), (10, 20, '-infinity');
:log
-- truncate
TRUNCATE app.event;
:log
-- several statements, one row per customer
BEGIN;
INSERT INTO app.event VALUES (1, 1, '2024-01-01');
INSERT INTO app.event VALUES (2, 1, '2024-01-05');
INSERT INTO app.event VALUES (3, 2, '2024-01-03');
SELECT count(*) AS not_written_yet FROM cs_internal.change_log;
COMMIT;
:log
-- rollback; rollback to a savepoint may mark too much, never too little
BEGIN;
INSERT INTO app.event VALUES (4, 3, '2024-01-01');
ROLLBACK;
:log
BEGIN;
INSERT INTO app.event VALUES (4, 4, '2024-01-01');
SAVEPOINT a;
INSERT INTO app.event VALUES (5, 5, '2024-01-01');
ROLLBACK TO a;
INSERT INTO app.event VALUES (6, 6, '2024-01-01');
COMMIT;
:log
DO $$ BEGIN
	BEGIN
		INSERT INTO app.event VALUES (20, 7, '2024-01-01');
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN NULL;
	END;
	INSERT INTO app.event VALUES (21, 8, '2024-01-01');
END $$;
:log
-- many customers: written out at the outermost level, one row in a subtransaction
TRUNCATE app.event;
DELETE FROM cs_internal.change_log;
BEGIN;
INSERT INTO app.event SELECT g, g, '2024-01-01' FROM generate_series(1, 25000) g;
SELECT count(*) AS written_early FROM cs_internal.change_log;
ROLLBACK;
SELECT count(*) FROM cs_internal.change_log;
INSERT INTO app.event SELECT g, g, '2024-01-01' FROM generate_series(1, 25000) g;
SELECT count(DISTINCT customer_key), bool_and(customer_key IS NOT NULL) FROM cs_internal.change_log;
DELETE FROM cs_internal.change_log;
BEGIN;
UPDATE app.event SET at = '2023-01-01' WHERE id = 1;
SAVEPOINT a;
UPDATE app.event SET at = '2023-01-01' WHERE id <= 15000;
INSERT INTO app.ticket VALUES (1, 1, '2024-02-01');
ROLLBACK TO a;
COMMIT;
:log
-- partitions: the parent, the leaf, one attached later, numeric ids
INSERT INTO app.ticket VALUES (1, 1.50, '2024-02-01');
INSERT INTO app.ticket_2024 VALUES (1, 100, '2024-03-01');
CREATE TABLE app.ticket_2025 PARTITION OF app.ticket FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
INSERT INTO app.ticket_2025 VALUES (1, 7, '2025-03-01');
CREATE TABLE app.ticket_2026 (day date, account numeric(10,2), id int);
ALTER TABLE app.ticket ATTACH PARTITION app.ticket_2026 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO app.ticket VALUES (1, 8, '2026-03-01');
UPDATE app.ticket SET day = '2026-04-01' WHERE account = 7;
:log
TRUNCATE app.ticket;
:log
-- char(n) and uuid
INSERT INTO app.member VALUES ('u1', '00000000-0000-0000-0000-00000000000a');
:log
-- replication applies rows under this role
SET session_replication_role = replica;
INSERT INTO app.event VALUES (30001, 1, '2024-01-01');
TRUNCATE app.member;
RESET session_replication_role;
:log
-- other triggers and cascades
CREATE TABLE app.parent (id int PRIMARY KEY);
INSERT INTO app.parent VALUES (30001);
ALTER TABLE app.event ADD FOREIGN KEY (id) REFERENCES app.parent ON DELETE CASCADE NOT VALID;
DELETE FROM app.parent;
:log
-- deferred triggers write before the commit, and are noted
CREATE FUNCTION app.late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO app.event VALUES (30002, 77, '2024-01-01'); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON app.parent DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION app.late();
INSERT INTO app.parent VALUES (30002);
:log
ALTER TABLE app.event DROP CONSTRAINT event_id_fkey;
-- the writer needs no right on anything of ours
CREATE ROLE regress_cs_writer;
GRANT USAGE ON SCHEMA app TO regress_cs_writer;
GRANT ALL ON ALL TABLES IN SCHEMA app TO regress_cs_writer;
SET ROLE regress_cs_writer;
INSERT INTO app.event VALUES (30003, 78, '2024-01-01');
RESET ROLE;
:log
-- a renamed column: the writer goes on, the source is re-read
ALTER TABLE app.event RENAME COLUMN customer TO client;
INSERT INTO app.event VALUES (30004, 79, '2024-01-01');
:log
CALL cs.refresh();
SELECT source, needs_scan, error FROM cs.source_status ORDER BY source;
ALTER TABLE app.event RENAME COLUMN client TO customer;
-- a changed type
ALTER TABLE app.event ALTER COLUMN customer TYPE bigint;
INSERT INTO app.event VALUES (30005, 3000000000, '2024-01-01');
:log
-- long keys
CREATE TABLE app.long (id text, at timestamptz);
SELECT count(*) FROM cs.add_source('long', 'touchpoint', 'app.long', '{"customer_id": "id", "at": "at"}');
DELETE FROM cs_internal.change_log;
INSERT INTO app.long VALUES (repeat('x', 600), '2024-01-01');
:log
-- by hand
SELECT cs.mark_changed('event', 42);
SELECT cs.mark_changed('event', '43', '2024-01-01', '2024-02-01');
SELECT cs.mark_changed('member', '00000000-0000-0000-0000-00000000000a'::uuid);
SELECT cs.mark_changed('ticket');
:log
SELECT cs.mark_changed('evnt');
SELECT cs.mark_changed('event', '1', '2024-02-01', '2024-01-01');
SELECT cs.mark_changed(NULL);
-- the trigger function alone
SELECT cs_internal.capture();
-- the table of the log is gone with the extension, in the middle of a writer's transaction
BEGIN;
INSERT INTO app.event VALUES (30006, 80, '2024-01-01');
DROP EXTENSION cs_ext;
INSERT INTO app.event VALUES (30007, 80, '2024-01-01');
COMMIT;
SELECT count(*) FROM app.event WHERE id > 30005;
CREATE EXTENSION cs_ext;
DROP SCHEMA app CASCADE;
DROP OWNED BY regress_cs_writer, regress_run_capture;
DROP ROLE regress_cs_writer, regress_run_capture;
