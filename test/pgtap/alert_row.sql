-- Alerts over rows of facts, through the whole refresh: one per key, opened and
-- resolved by what happens to the row, kept when the row is gone.
\ir ../lib/small_company.sql
SET client_min_messages = warning;
SELECT * FROM no_plan();
DELETE FROM cs.alert_rule;
INSERT INTO cs.alert_rule (name, source, rule, clear_rule, key, severity, message)
VALUES ('escalated', 'ticket', 'escalated AND resolved_at IS NULL', 'resolved_at IS NOT NULL', 'ticket_id', 'critical', $$format('%s ticket %s', severity, ticket_id)$$);
UPDATE app.ticket SET escalated = false;
CALL cs.refresh();
SELECT is((SELECT count(*)::int FROM cs.alert), 0, 'no ticket is escalated');

INSERT INTO app.ticket (id, customer_id, opened_at, severity, escalated) VALUES (901, 3, '2025-06-30 10:00+02', 'high', true), (902, 3, '2025-06-30 11:00+02', 'low', true), (903, 4, '2025-06-30 11:00+02', 'low', false);
CALL cs.refresh();
SELECT is((SELECT string_agg(format('%s %s %s %s %s', customer_id, key, severity, state, message), ', ' ORDER BY key) FROM cs.alert),
	'3 901 critical open high ticket 901, 3 902 critical open low ticket 902', 'an alert per key');
SELECT is((SELECT owner FROM cs.alert WHERE key = '901'), 'owner0', 'the owner is the customer''s');
CALL cs.refresh();
UPDATE app.ticket SET severity = 'urgent' WHERE id = 901;
CALL cs.refresh();
SELECT is((SELECT string_agg(key || ' ' || message, ', ' ORDER BY key) FROM cs.alert), '901 urgent ticket 901, 902 low ticket 902', 'no second row for the same ticket');
SELECT is((SELECT count(*)::int FROM cs.alert_event), 2, 'and no event without a change');

UPDATE app.ticket SET resolved_at = '2025-07-01 05:00+02' WHERE id = 901;
DELETE FROM app.ticket WHERE id = 902;
CALL cs.refresh();
SELECT is((SELECT string_agg(key || ' ' || state, ', ' ORDER BY key) FROM cs.alert), '901 resolved, 902 open', 'resolved by the row; a row that is gone is no data');
UPDATE app.ticket SET resolved_at = NULL WHERE id = 901;
CALL cs.refresh();
SELECT is((SELECT string_agg(key || ' ' || state, ', ' ORDER BY key) FROM cs.alert), '901 open, 902 open', 'the same alert opens again');
-- A resolution dated ahead counts from its instant, by due_at alone.
UPDATE app.ticket SET resolved_at = '2025-07-01 08:00+02' WHERE id = 901;
CALL cs.refresh();
SELECT is((SELECT state FROM cs.alert WHERE key = '901'), 'open', 'not resolved yet');
SET cs_ext.now = '2025-07-01 08:30+02';
CALL cs.refresh();
SELECT is((SELECT state FROM cs.alert WHERE key = '901'), 'resolved', 'resolved when its time has come');
-- Snooze: the refresh wakes it by time alone.
SELECT id AS gone FROM cs.alert WHERE key = '902' \gset
SELECT is((SELECT state FROM cs.snooze_alert(:gone, '2025-07-01 10:00')), 'snoozed', 'put aside, in local time');
CALL cs.refresh();
SET cs_ext.now = '2025-07-01 10:00+02';
CALL cs.refresh();
SELECT is((SELECT state FROM cs.alert WHERE id = :gone), 'open', 'awake at its time');
SELECT is((SELECT state FROM cs.resolve_alert(:gone, 'the ticket was deleted')), 'resolved', 'by hand');

-- One row that raises leaves the other customers alone.
INSERT INTO cs.alert_rule (name, source, rule, key) VALUES ('ratio', 'ticket', '100 / (csat - 3) > 0 AND opened_at > as_of - interval ''2 days''', 'ticket_id');
INSERT INTO app.ticket (id, customer_id, opened_at, resolved_at, severity, csat, escalated) VALUES (911, 5, '2025-07-01 09:00+02', '2025-07-01 09:30+02', 'low', 3, false), (912, 6, '2025-07-01 09:00+02', '2025-07-01 09:30+02', 'low', 5, false);
UPDATE app.ticket SET csat = 4 WHERE csat = 3 AND id < 900;
CALL cs.refresh();
SELECT is((SELECT string_agg(key, ',') FROM cs.alert WHERE rule = 'ratio' AND state = 'open'), '912', 'the others have their alerts');
SELECT is((SELECT (status, sqlstate, customers, example)::text FROM cs_internal.definition_status WHERE key = 'ratio'), '(failing,22012,1,5)', 'the rule is marked');
UPDATE app.ticket SET csat = 1 WHERE id = 911;
CALL cs.refresh();
SELECT is((SELECT count(*)::int FROM cs_internal.definition_status), 0, 'until it works again');

-- Two rows of one key are one alert: open while one of them holds, over when all are clear.
CREATE TABLE app.incident (code text, company bigint, at timestamptz, fixed boolean);
GRANT SELECT ON app.incident TO cs_ext_run;
SELECT count(*) AS mapped FROM cs.add_source('incidents', 'other', 'app.incident', '{"customer_id": "company", "at": "at", "x_code": "code", "x_fixed": "fixed"}') \gset
INSERT INTO cs.alert_rule (name, source, rule, key) VALUES ('incident', 'incidents', 'NOT x_fixed', 'x_code');
INSERT INTO app.incident VALUES ('i1', 7, '2025-07-01 07:00+02', false), ('i1', 7, '2025-07-01 07:30+02', true), ('i1', 8, '2025-07-01 07:30+02', NULL), (NULL, 8, '2025-07-01 07:30+02', false);
CALL cs.refresh();
SELECT is((SELECT string_agg(customer_id || ' ' || key, ',') FROM cs.alert WHERE rule = 'incident'), '7 i1', 'one alert for both rows; no key, no alert; NULL opens nothing');
UPDATE app.incident SET fixed = true WHERE company = 7;
CALL cs.refresh();
SELECT is((SELECT state FROM cs.alert WHERE rule = 'incident'), 'resolved', 'over when all rows are clear');

-- Nobody's customer any more.
UPDATE app.ticket SET escalated = true, resolved_at = NULL WHERE id = 912;
CALL cs.refresh();
SELECT is((SELECT state FROM cs.alert WHERE rule = 'escalated' AND key = '912'), 'open', 'open for customer 6');
DELETE FROM app.customer WHERE id = 6;
DELETE FROM app.subscription WHERE customer_id = 6;
CALL cs.refresh();
SELECT is((SELECT (a.state, e.cause)::text FROM cs.alert a JOIN cs.alert_event e ON e.alert_id = a.id AND e.to_state = 'resolved' WHERE a.rule = 'escalated' AND a.key = '912'),
	'(resolved,customer)', 'who is no customer any more has no open alerts');

-- Rebuild leaves decided state alone.
CREATE TEMP TABLE before AS SELECT * FROM cs_internal.alert;
CREATE TEMP TABLE events AS SELECT id FROM cs_internal.alert_event;
CALL cs.rebuild();
SELECT is((SELECT count(*)::int FROM (SELECT * FROM before EXCEPT SELECT * FROM cs_internal.alert) x), 0, 'a rebuild changes no alert');
SELECT is((SELECT count(*)::int FROM cs_internal.alert_event), (SELECT count(*)::int FROM events), 'and writes no event');
SELECT is((SELECT array_agg(seq ORDER BY id) FROM cs_internal.alert_event), (SELECT array_agg(i::bigint) FROM generate_series(1, (SELECT count(*) FROM cs_internal.alert_event)) i),
	'the refresh numbered every event, without gaps');
SELECT * FROM finish();
