-- What stands beside the ordinary way: a source that cannot be read for a
-- while, one customer refreshed on its own, orphans.
\ir ../lib/small_company.sql
SET client_min_messages = warning;
SELECT * FROM no_plan();

CREATE TABLE app.cancellation (customer_id bigint, at timestamptz, reason text);
CREATE TABLE app.member (id text PRIMARY KEY, customer_id bigint);
CREATE TABLE app.click (user_id text, at timestamptz, name text);
INSERT INTO app.cancellation VALUES (7, '2025-01-01 00:00+01', 'moved away');
INSERT INTO app.member VALUES ('m3', 3), ('m99', 99);
GRANT SELECT ON app.cancellation, app.member, app.click TO cs_ext_run;
SELECT count(*) AS mapped FROM (
	SELECT cs.add_source('cancellations', 'cancellation', 'app.cancellation', '{"customer_id": "customer_id", "at": "at", "reason": "reason"}')
	UNION ALL SELECT cs.add_source('members', 'user', 'app.member', '{"customer_id": "customer_id", "user_id": "id"}')
	UNION ALL SELECT cs.add_source('clicks', 'usage_event', 'app.click', '{"user_id": "user_id", "at": "at", "event": "name"}')
) m \gset
CALL cs.refresh();

-- a cancellation source that is gone
CREATE TABLE app.movement_before AS SELECT * FROM cs_internal.movement;
SELECT ok(count(*) > 40, 'there are movements') FROM app.movement_before;
ALTER TABLE app.cancellation RENAME TO elsewhere;
UPDATE app.subscription SET mrr = mrr + 1 WHERE customer_id = 7;
CALL cs.refresh();
SELECT set_eq('SELECT * FROM cs_internal.movement', 'SELECT * FROM app.movement_before', 'while a cancellation source is gone the ledger stays');
SELECT matches(error, 'cancellation', 'and the source says so') FROM cs_internal.source_state WHERE source = 'cancellations';
ALTER TABLE app.elsewhere RENAME TO cancellation;
CALL cs.refresh();
SELECT is((SELECT mrr_after FROM cs_internal.movement WHERE customer_id = '7' ORDER BY at, seq LIMIT 1),
	(SELECT mrr_after + 1 FROM app.movement_before WHERE customer_id = '7' ORDER BY at, seq LIMIT 1), 'when it is back the ledger goes on');

-- events of users, refreshed in the writer's transaction
SELECT is((SELECT max(events) FROM cs.usage_daily WHERE customer_id = '3' AND event = 'poke'), NULL, 'no poke yet');
INSERT INTO app.click SELECT 'm3', timestamptz '2025-06-30 12:00+02' + i * interval '1 second', 'poke' FROM generate_series(1, 5) i;
SELECT cs.refresh_customer('3') IS NULL AS done \gset
SELECT is((SELECT max(events) FROM cs.usage_daily WHERE customer_id = '3' AND event = 'poke'), 5::bigint, 'refresh_customer counts events of its users');
UPDATE app.member SET customer_id = 4 WHERE id = 'm3';
SELECT cs.refresh_customer('4') IS NULL AS done \gset
SELECT is((SELECT max(events) FROM cs.usage_daily WHERE customer_id = '4' AND event = 'poke'), 5::bigint, 'and what a user brings along');
CALL cs.refresh();
SELECT is((SELECT array_agg(customer_id) FROM cs.usage_daily WHERE event = 'poke'), '{4}', 'the refresh takes it from where it was');

-- an id that is no customer, is one, is none again
CREATE FUNCTION app.orphans() RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(source || ' ' || customer_id, ', ' ORDER BY source, customer_id) FROM cs_internal.orphan $$;
SELECT is(app.orphans(), 'members 99', 'an orphan');
INSERT INTO app.ticket (customer_id, opened_at) VALUES (99, '2025-06-01 00:00+02');
CALL cs.refresh();
SELECT is(app.orphans(), 'members 99, tickets 99', 'in two sources');
INSERT INTO app.customer VALUES (99, 'Found', 'owner1', 'west', '2025-06-20 00:00+02');
CALL cs.refresh();
SELECT is(app.orphans(), NULL, 'a customer is none');
DELETE FROM app.customer WHERE id = 99;
DELETE FROM app.ticket WHERE customer_id = 40;
DELETE FROM app.subscription WHERE customer_id = 40;
DELETE FROM app.customer WHERE id = 40;
CALL cs.refresh();
SELECT ok(app.orphans() LIKE '%events 40, invoices 40, members 99,%tickets 99%' AND app.orphans() NOT LIKE '%tickets 40%',
	'customers who are gone leave orphans where they have rows: ' || app.orphans());

-- refreshed on its own after a refresh began, which comes to it later
SET cs_ext.now = '2025-07-01 06:30:00+02';
INSERT INTO app.ticket (customer_id, opened_at, escalated) VALUES (5, '2025-07-01 06:20+02', true) RETURNING id AS ticket \gset
SELECT cs.refresh_customer('5') IS NULL AS done \gset
CREATE FUNCTION app.story(ticket text) RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(e.to_state, ' ' ORDER BY e.id) FROM cs_internal.alert_event e JOIN cs_internal.alert a ON a.id = e.alert_id WHERE a.key = ticket $$;
SELECT is(app.story(:'ticket'), 'open', 'refresh_customer opened an alert');
SELECT open_tickets AS tickets FROM (SELECT "values"[s.slot] AS open_tickets FROM cs_internal.state, cs_internal.metric_slot s WHERE customer_id = '5' AND s.metric = 'open_escalations') x \gset
SET cs_ext.now = '2025-07-01 06:10:00+02';
CALL cs.refresh();
SELECT is((SELECT "values"[s.slot] FROM cs_internal.state, cs_internal.metric_slot s WHERE customer_id = '5' AND s.metric = 'open_escalations'), :'tickets'::float8,
	'the older refresh leaves the customer alone');
SELECT is((SELECT array_agg(customer_id) FROM cs_internal.dirty), '{5}', 'to the next one');
SET cs_ext.now = '2025-07-01 06:40:00+02';
CALL cs.refresh();
SELECT is(app.story(:'ticket') || (SELECT count(*) FROM cs_internal.dirty), 'open0', 'which finds nothing new');
SELECT is((SELECT count(*) FROM cs_internal.state WHERE ahead IS NOT NULL), 0::bigint, 'and nobody is ahead');

-- many customers in one transaction do not fill the server's lock table
INSERT INTO app.customer SELECT c, 'Many', 'owner1', 'west', '2025-06-20 00:00+02' FROM generate_series(1001, 3500) c;
BEGIN;
CALL cs.refresh(commit => false);
SELECT cmp_ok(count(*), '<=', 2002::bigint, 'a transaction holds some locks, not one a customer') FROM pg_locks WHERE locktype = 'advisory';
COMMIT;
SELECT cmp_ok(count(*), '>', 2500::bigint, 'and evaluates all of them') FROM cs_internal.state;
SELECT is((SELECT count(*) FROM cs_internal.dirty), 0::bigint, 'none is left');
SELECT * FROM finish();
