-- Merged customers: from the instant of a merge on all facts of the old id count
-- for the new one, in metrics of every kind, in alerts over rows and in what is
-- due, and for instants before it nothing has changed. The merges themselves are
-- corrected and deleted as any other fact.
SET client_min_messages = warning;
SET TimeZone = 'America/New_York';
SET jit = off;
SET cs_ext.now = '2024-06-20 12:00Z';
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL) \g /dev/null
SELECT * FROM no_plan();
CREATE SCHEMA app;
CREATE TABLE app.cust (id bigint PRIMARY KEY, region text, created_at timestamptz DEFAULT '2024-01-01Z');
CREATE TABLE app.sub (customer bigint, s timestamptz, e timestamptz, mrr numeric);
CREATE TABLE app.event (customer bigint, who text, at timestamptz);
CREATE TABLE app.ticket (id int PRIMARY KEY, customer bigint, opened_at timestamptz, resolved_at timestamptz, severity text, escalated boolean DEFAULT false);
CREATE TABLE app.answer (customer text, at timestamptz, score int);
CREATE TABLE app.bill (customer int, issued_at timestamptz, due_at timestamptz, paid_at timestamptz);
CREATE TABLE app.contract (customer numeric, at timestamptz, pages int);
CREATE TABLE app.person (customer bigint, email text);
CREATE TABLE app.click (email text, at timestamptz);
CREATE TABLE app.goodbye (customer bigint, at timestamptz);
CREATE TABLE app.merge (old_id bigint, new_id text, at timestamptz);
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO cs_ext_run;
SELECT count(*) FROM cs.add_source('cust', 'customer', 'app.cust', '{"customer_id": "id", "created_at": "created_at", "attributes": "jsonb_build_object(''region'', region)"}') \g /dev/null
SELECT count(*) FROM cs.add_source('sub', 'subscription', 'app.sub', '{"customer_id": "customer", "start_at": "s", "end_at": "e", "mrr": "mrr"}') \g /dev/null
SELECT count(*) FROM cs.add_source('event', 'usage_event', 'app.event', '{"customer_id": "customer", "user_id": "who", "at": "at"}') \g /dev/null
SELECT count(*) FROM cs.add_source('person', 'user', 'app.person', '{"user_id": "email", "customer_id": "customer"}') \g /dev/null
SELECT count(*) FROM cs.add_source('click', 'usage_event', 'app.click', '{"user_id": "email", "at": "at", "event": "''click''"}') \g /dev/null
SELECT count(*) FROM cs.add_source('ticket', 'ticket', 'app.ticket', '{"customer_id": "customer", "ticket_id": "id", "opened_at": "opened_at", "resolved_at": "resolved_at", "severity": "severity", "escalated": "escalated", "x_who": "customer"}') \g /dev/null
SELECT count(*) FROM cs.add_source('answer', 'survey', 'app.answer', '{"customer_id": "customer", "at": "at", "kind": "''nps''", "score": "score"}') \g /dev/null
SELECT count(*) FROM cs.add_source('bill', 'invoice', 'app.bill', '{"customer_id": "customer", "issued_at": "issued_at", "due_at": "due_at", "paid_at": "paid_at"}') \g /dev/null
SELECT count(*) FROM cs.add_source('contract', 'other', 'app.contract', '{"customer_id": "customer", "at": "at", "x_pages": "pages"}') \g /dev/null
SELECT count(*) FROM cs.add_source('goodbye', 'cancellation', 'app.goodbye', '{"customer_id": "customer", "at": "at"}') \g /dev/null
SELECT count(*) FROM cs.add_source('merged', 'customer_merge', 'app.merge', '{"from_customer_id": "old_id", "into_customer_id": "new_id", "at": "at"}') \g /dev/null
INSERT INTO cs.metric (name, source, expression) VALUES ('mrr', 'ledger', 'mrr'),
	('events', 'usage', 'events(usage, NULL, 90)'), ('users', 'usage', 'active_users(usage, 90)'), ('idle', 'usage', 'days_since(usage, NULL)'),
	('tickets', 'ticket', 'count(*)'), ('foreign_tickets', 'ticket', 'count(*) FILTER (WHERE customer_id <> x_who::text)'), ('open', 'ticket', 'count(*) FILTER (WHERE resolved_at IS NULL)'),
	('nps', 'survey', 'avg(score)'), ('overdue', 'invoice', 'count(*) FILTER (WHERE paid_at IS NULL)'), ('pages', 'contract', 'sum(x_pages)'),
	('age', 'customer', 'as_of_day - min(created_at)::date'), ('load', 'formula', 'tickets + events');
INSERT INTO cs.alert_rule (name, source, rule, clear_rule, key, severity, message) VALUES
	('escalated', 'ticket', 'escalated AND resolved_at IS NULL', 'resolved_at IS NOT NULL', 'ticket_id', 'high', $$format('ticket %s of %s', ticket_id, customer_id)$$);

INSERT INTO cs.scorecard (name) VALUES ('plain');
INSERT INTO cs.measure (scorecard, name, metric, worst, best) VALUES ('plain', 'tickets', 'tickets', 5, 0), ('plain', 'nps', 'nps', 0, 10);

INSERT INTO app.cust (id, region) SELECT g, 'region ' || g FROM generate_series(1, 9) g;
INSERT INTO app.sub SELECT g, '2024-01-01Z', NULL, g * 10 FROM generate_series(1, 9) g;
-- customer g has g events of two users, a ticket, an answer of score g, an open bill, a contract of g pages, and one person with a click
INSERT INTO app.event SELECT g, 'u' || g * 10 + n % 2, timestamptz '2024-05-20 10:00Z' + n * interval '1 day' FROM generate_series(1, 9) g, generate_series(1, g) n;
INSERT INTO app.ticket SELECT g, g, timestamptz '2024-05-25 10:00Z' FROM generate_series(1, 9) g;
INSERT INTO app.answer SELECT g, '2024-05-26 10:00Z', g FROM generate_series(1, 9) g;
INSERT INTO app.bill SELECT g, '2024-05-01Z', '2024-05-31Z' FROM generate_series(1, 9) g;
INSERT INTO app.contract SELECT g, '2024-02-01Z', g FROM generate_series(1, 9) g;
INSERT INTO app.person SELECT g, 'p' || g FROM generate_series(1, 9) g;
INSERT INTO app.click SELECT 'p' || g, '2024-06-01 10:00Z' FROM generate_series(1, 9) g;
CALL cs.refresh();

-- name=value of a customer's metrics, now and recomputed as of an instant
CREATE FUNCTION public.now_of(customer text, VARIADIC names text[]) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(n || '=' || coalesce(round(value::numeric, 2)::float8::text, '-'), ' ' ORDER BY o)
	FROM unnest(names) WITH ORDINALITY u (n, o) LEFT JOIN cs.customer_metric m ON m.metric = n AND m.customer_id = customer
$$;
CREATE FUNCTION public.then_of(customer text, at timestamptz, VARIADIC names text[]) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(n || '=' || coalesce(round(e."values"[s.slot]::numeric, 2)::float8::text, '-'), ' ' ORDER BY o)
	FROM unnest(names) WITH ORDINALITY u (n, o) JOIN cs_internal.metric_slot s ON s.metric = n, cs_internal.evaluated_at(ARRAY[customer], at) e
$$;
CREATE FUNCTION public.alerts() RETURNS text LANGUAGE sql AS $$ SELECT string_agg(format('%s:%s %s', customer_id, key, state), ', ' ORDER BY customer_id, key, id) FROM cs.alert WHERE rule = 'escalated' $$;
SELECT is(now_of('1', 'events', 'tickets', 'nps', 'overdue', 'pages'), 'events=2 tickets=1 nps=1 overdue=1 pages=1', 'nobody is merged');

-- ---- one merge ------------------------------------------------------------------------
INSERT INTO app.merge VALUES (1, '2', '2024-06-10Z');
CALL cs.refresh();
SELECT is(now_of('2', 'mrr', 'events', 'users', 'idle'), 'mrr=30 events=5 users=5 idle=19', 'usage counts for the new customer, that of its persons, too');
SELECT is(now_of('2', 'tickets', 'foreign_tickets', 'open', 'load'), 'tickets=2 foreign_tickets=1 open=2 load=7', 'so do tickets, which are the new customer''s in every way, and formulas over both');
SELECT is(now_of('2', 'nps', 'overdue', 'pages'), 'nps=1.5 overdue=2 pages=3', 'surveys, invoices and tables of one''s own');
SELECT is(now_of('1', 'mrr', 'events', 'users', 'idle', 'tickets', 'open', 'nps', 'overdue', 'pages'), 'mrr=0 events=0 users=0 idle=- tickets=0 open=0 nps=- overdue=0 pages=-', 'the old one has nothing left');
SELECT is(now_of('1', 'age') || ' ' || now_of('2', 'age'), 'age=171 age=171', 'each is the customer it is: rows that say so stay');
SELECT is((SELECT attributes ->> 'region' FROM cs_internal.customer WHERE customer_id = '2'), 'region 2', 'attributes are one''s own');
SELECT is(now_of('3', 'events', 'tickets', 'nps'), 'events=4 tickets=1 nps=3', 'who is evaluated with them keeps what is his');
SELECT is((SELECT string_agg(measure || ' ' || value, ' ' ORDER BY measure) FROM cs.health_explain('2') WHERE measure IN ('tickets', 'nps')), 'nps 1.5 tickets 2', 'health is explained by what counts');
SELECT is((SELECT row(health_score, band)::text FROM cs.customer_360 WHERE customer_id = '1') || (SELECT health_score FROM cs.customer_360 WHERE customer_id = '2'), '(,)37.5', 'the new one is scored with it, the old one no longer');
SELECT is((SELECT round(cs.health_recompute('1', '2024-06-09 12:00Z')::numeric, 3)), 45.000, 'as it was before');
INSERT INTO cs.metric (name, source, expression) VALUES ('fragile', 'contract', 'sum(100 / (x_pages - 1))');
INSERT INTO cs.alert_rule (name, source, rule, key) VALUES ('ratio', 'ticket', '100 / (x_who - 1) > 40', 'ticket_id');
CALL cs.refresh();
SELECT is(now_of('2', 'fragile', 'pages') || ' ' || now_of('3', 'fragile', 'pages') || ' ' || now_of('1', 'fragile'), 'fragile=- pages=3 fragile=50 pages=3 fragile=-', 'a fact that a metric fails on fails the new customer''s alone');
SELECT results_eq($$SELECT key, customers, example FROM cs_internal.definition_status ORDER BY 1$$, $$VALUES ('fragile', 1::bigint, '2'), ('ratio', 1, '2')$$, 'who is named');
SELECT is((SELECT string_agg(customer_id || ':' || key, ' ' ORDER BY customer_id) FROM cs.alert WHERE rule = 'ratio'), '3:3', 'as a row that a rule fails on');
DELETE FROM cs.metric WHERE name = 'fragile';
DELETE FROM cs.alert_rule WHERE name = 'ratio';
CALL cs.refresh();

-- ---- the past ----------------------------------------------------------------------------
SELECT is(then_of('1', '2024-06-09 12:00Z', 'mrr', 'events', 'tickets', 'nps', 'overdue', 'pages'), 'mrr=10 events=2 tickets=1 nps=1 overdue=1 pages=1', 'before the merge the old customer had its own');
SELECT is(then_of('2', '2024-06-09 12:00Z', 'mrr', 'events', 'tickets', 'nps', 'overdue', 'pages'), 'mrr=20 events=3 tickets=1 nps=2 overdue=1 pages=2', 'and the new one, too');
SELECT is(then_of('2', '2024-06-10Z', 'mrr', 'events', 'tickets'), 'mrr=20 events=3 tickets=1', 'the state at an instant is the one just before it');
SELECT is(then_of('2', '2024-06-10 00:00:00.000001Z', 'mrr', 'events', 'tickets'), 'mrr=30 events=5 tickets=2', 'from then on all counts, whenever it happened');
BEGIN;
UPDATE cs.policy SET period_edge = 'at';
SELECT is(then_of('2', '2024-06-10Z', 'mrr', 'events', 'tickets'), 'mrr=30 events=5 tickets=2', 'with edge at, on it, as in the ledger');
SELECT is(then_of('2', '2024-06-09 23:59:59.999999Z', 'mrr', 'events', 'tickets'), 'mrr=20 events=3 tickets=1', 'and not before');
ROLLBACK;
CALL cs.backfill_health('2024-06-09', '2024-06-13');
SELECT is((SELECT string_agg(format('%s %s %s', customer_id, as_of::date, value), ', ' ORDER BY as_of, customer_id) FROM cs.metric_history WHERE metric = 'tickets' AND customer_id IN ('1', '2') AND as_of < '2024-06-12Z'),
	'1 2024-06-08 1, 2 2024-06-08 1, 1 2024-06-09 1, 2 2024-06-09 1, 1 2024-06-10 0, 2 2024-06-10 2', 'history is filled in as it was then');

-- ---- facts that come in under the old id ------------------------------------------------------
INSERT INTO app.event VALUES (1, 'late', '2024-06-19 10:00Z');
CALL cs.refresh();
SELECT is(now_of('2', 'events', 'users', 'idle'), 'events=6 users=6 idle=1', 'an event of the old customer is one of the new');
INSERT INTO app.ticket VALUES (101, 1, '2024-06-20 09:00Z');
CALL cs.refresh();
SELECT is(now_of('2', 'tickets', 'open'), 'tickets=3 open=3', 'so is a ticket');
INSERT INTO app.click VALUES ('p1', '2024-06-18 10:00Z');
CALL cs.refresh();
SELECT is(now_of('2', 'events') || ' ' || now_of('1', 'events'), 'events=7 events=0', 'and what a person of it does');
DELETE FROM app.click WHERE at = '2024-06-18 10:00Z';
DELETE FROM app.event WHERE who = 'late';
UPDATE app.ticket SET resolved_at = '2024-06-20 15:00Z' WHERE id = 101;
CALL cs.refresh();
SELECT is(now_of('2', 'events', 'open'), 'events=5 open=3', 'they go as they came');
SELECT is((SELECT due_at FROM cs_internal.state WHERE customer_id = '2'), '2024-06-20 15:00:00.000001Z', 'due when something of the old one changes by time');
SET cs_ext.now = '2024-06-20 16:00Z';
CALL cs.refresh();
SELECT is(now_of('2', 'open'), 'open=2', 'which it then has');

-- ---- a customer on its own -----------------------------------------------------------------------
BEGIN;
INSERT INTO app.event VALUES (1, 'new', '2024-06-17 10:00Z');
INSERT INTO app.ticket VALUES (102, 1, '2024-06-20 09:00Z');
SELECT cs.refresh_customer(2);
SELECT is(now_of('2', 'events', 'users', 'tickets'), 'events=6 users=6 tickets=4', 'refresh_customer of the new one sees what was just written under the old');
SELECT cs.refresh_customer('1');
SELECT is(now_of('1', 'events', 'tickets') || ' ' || now_of('2', 'events'), 'events=0 tickets=0 events=6', 'of the old one, nothing');
ROLLBACK;
SELECT is((SELECT count(*) FROM cs_internal.usage_month WHERE customer_id = '1'), 2::bigint, 'rolled back with the facts: the rollup stands by the ids of the facts');
CALL cs.refresh();
SELECT is(now_of('2', 'events', 'tickets'), 'events=5 tickets=3', 'and nothing has changed');

-- ---- alerts over rows --------------------------------------------------------------------------------
UPDATE app.ticket SET escalated = true WHERE id IN (1, 2, 3);
CALL cs.refresh();
SELECT is(alerts(), '2:1 open, 2:2 open, 3:3 open', 'the ticket of the old customer has its alert at the new one');
SELECT is((SELECT message FROM cs.alert WHERE key = '1'), 'ticket 1 of 2', 'which is who it speaks of');
INSERT INTO app.merge VALUES (3, '4', '2024-06-15Z');
CALL cs.refresh();
SELECT is(alerts(), '2:1 open, 2:2 open, 3:3 resolved, 4:3 open', 'merged away, an alert is over, and opens at whom its row counts for');
DELETE FROM app.merge WHERE old_id = 3;
CALL cs.refresh();
SELECT is(alerts(), '2:1 open, 2:2 open, 3:3 open, 4:3 resolved', 'without the merge it is the other way round, and the old one is the same alert again');
DELETE FROM app.ticket WHERE id = 1;
CALL cs.refresh();
SELECT is(alerts(), '2:1 open, 2:2 open, 3:3 open, 4:3 resolved', 'a row that is gone is no data, here as elsewhere');
INSERT INTO app.ticket VALUES (1, 1, '2024-05-25 10:00Z', NULL, NULL, true);
UPDATE app.ticket SET resolved_at = '2024-06-20 15:30Z' WHERE id IN (1, 3);
CALL cs.refresh();
SELECT is(alerts(), '2:1 resolved, 2:2 open, 3:3 resolved, 4:3 resolved', 'the row resolves it');

-- ---- a chain, and an announced merge ---------------------------------------------------------------------
INSERT INTO app.merge VALUES (2, '5', '2024-06-14Z');
CALL cs.refresh();
SELECT is(now_of('5', 'mrr', 'events', 'tickets', 'pages'), 'mrr=80 events=11 tickets=4 pages=8', 'merges follow one another');
SELECT is(now_of('2', 'mrr', 'events', 'tickets', 'pages'), 'mrr=0 events=0 tickets=0 pages=-', 'who stood between has nothing');
SELECT is(then_of('2', '2024-06-12Z', 'mrr', 'events', 'tickets', 'pages'), 'mrr=30 events=5 tickets=2 pages=3', 'but had all of it then');
SELECT is(alerts(), '2:1 resolved, 2:2 resolved, 3:3 resolved, 4:3 resolved, 5:2 open', 'open alerts go on with the chain');
INSERT INTO app.event VALUES (1, 'late', '2024-06-19 10:00Z');
CALL cs.refresh();
SELECT is(now_of('5', 'events'), 'events=12', 'a fact of the first id counts for the last');
INSERT INTO app.merge VALUES (6, '7', '2024-06-20 18:00Z'), (7, '8', '2024-06-20 19:00Z');
CALL cs.refresh();
SELECT is(now_of('6', 'tickets') || now_of('7', 'tickets') || now_of('8', 'tickets'), 'tickets=1tickets=1tickets=1', 'an announced merge is none yet');
SELECT results_eq($$SELECT customer_id COLLATE "default", due_at FROM cs_internal.state WHERE customer_id IN ('6', '7', '8') ORDER BY 1$$,
	$$VALUES ('6', timestamptz '2024-06-20 18:00:00.000001Z'), ('7', '2024-06-20 18:00:00.000001Z'), ('8', '2024-06-20 19:00:00.000001Z')$$, 'both sides are due when it comes');
SET cs_ext.now = '2024-06-20 18:00:01Z';
CALL cs.refresh();
SELECT is(now_of('6', 'mrr', 'tickets', 'events') || ' ' || now_of('7', 'mrr', 'tickets', 'events'), 'mrr=0 tickets=0 events=0 mrr=130 tickets=2 events=15', 'it has come, by time alone');
SET cs_ext.now = '2024-06-20 19:00:01Z';
CALL cs.refresh();
SELECT is(now_of('7', 'mrr', 'tickets', 'events') || ' ' || now_of('8', 'mrr', 'tickets', 'events'), 'mrr=0 tickets=0 events=0 mrr=210 tickets=3 events=24', 'and so has the next');

-- ---- corrected, deleted, without a customer, without the source -------------------------------------------------
UPDATE app.merge SET new_id = '9' WHERE old_id = 2;
CALL cs.refresh();
SELECT is(now_of('5', 'events', 'tickets', 'nps') || ' ' || now_of('9', 'events', 'tickets', 'nps'), 'events=6 tickets=1 nps=5 events=16 tickets=4 nps=4', 'into somebody else: taken from one, given to the other');
UPDATE app.merge SET at = '2024-07-01Z' WHERE old_id = 2;
CALL cs.refresh();
SELECT is(now_of('2', 'events', 'tickets') || ' ' || now_of('9', 'events', 'tickets'), 'events=6 tickets=3 events=10 tickets=1', 'put off');
UPDATE app.merge SET old_id = 3 WHERE old_id = 2;
UPDATE app.merge SET at = '2024-06-01Z' WHERE old_id = 3;
CALL cs.refresh();
SELECT is(now_of('2', 'events', 'tickets') || ' ' || now_of('3', 'events', 'tickets') || ' ' || now_of('9', 'events', 'tickets'), 'events=6 tickets=3 events=0 tickets=0 events=14 tickets=2', 'somebody else''s');
DELETE FROM app.merge WHERE old_id = 1;
CALL cs.refresh();
SELECT is(now_of('1', 'events', 'tickets') || ' ' || now_of('2', 'events', 'tickets'), 'events=3 tickets=2 events=3 tickets=1', 'deleted: each has its own again');
DELETE FROM app.cust WHERE id = 3;
DELETE FROM app.sub WHERE customer = 3;
CALL cs.refresh();
SELECT is(now_of('9', 'mrr', 'events', 'tickets'), 'mrr=90 events=14 tickets=2', 'the old id need not be a customer any more');
SELECT is((SELECT string_agg(source || orphans, ' ' ORDER BY source) FROM cs.source_status WHERE orphans > 0), NULL, 'nor is it an orphan then: its facts count');
UPDATE app.sub SET e = '2024-06-21Z' WHERE customer IN (6, 7, 8);
INSERT INTO app.goodbye VALUES (6, '2024-06-19Z');
SET cs_ext.now = '2024-06-22 06:00Z';
CALL cs.refresh();
SELECT results_eq($$SELECT customer_id COLLATE "default", churned_at, event_at FROM cs_internal.churn_events()$$, $$VALUES ('8', timestamptz '2024-06-21Z', timestamptz '2024-06-19Z')$$, 'notice under the old id is notice of the new customer');
SELECT is_empty('SELECT * FROM cs.check()', 'the invariants hold');
CREATE TEMP TABLE incremental AS SELECT customer_id, mrr, seats, "values" FROM cs_internal.state;
CALL cs.rebuild();
SELECT set_eq('SELECT customer_id, mrr, seats, "values" FROM cs_internal.state', 'SELECT * FROM incremental', 'a rebuild gives the same');
SELECT cs.drop_source('merged') \g /dev/null
CALL cs.refresh();
SELECT is(now_of('9', 'mrr', 'events', 'tickets') || ' ' || now_of('6', 'events', 'tickets'), 'mrr=90 events=10 tickets=1 events=7 tickets=1', 'without the source nobody is merged');

-- ---- from when to when ------------------------------------------------------------
CREATE FUNCTION public.spans(merges text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM cs_internal.merge;
	INSERT INTO cs_internal.merge (source, from_id, into_id, at) SELECT 'm', left(m, 1), substr(m, 2, 1), date '2024-01-01' + substr(m, 3)::int FROM unnest(string_to_array(merges, ' ')) m;
	RETURN (SELECT string_agg(id || owner || CASE WHEN isfinite(since) THEN (since::date - date '2024-01-01')::text ELSE '' END || CASE WHEN isfinite(until) THEN '-' || (until::date - date '2024-01-01')::text ELSE '' END, ' ' ORDER BY id COLLATE "C", since) FROM cs_internal.merge_span());
END $$;
SELECT is(spans(''), NULL, 'nobody is merged: no spans');
SELECT is(spans('ab3'), 'aa-3 ab3', 'once');
SELECT is(spans('ab3 bc5'), 'aa-3 ab3-5 ac5 bb-5 bc5', 'and on');
SELECT is(spans('bc3 ab5'), 'aa-5 ab5 bb-3 bc3', 'into one who went before: only what he had then went with him');
SELECT is(spans('ab3 ba5'), 'aa-3 ab3-5 aa5 bb-5 ba5', 'there and back');
SELECT is(spans('ab3 ac5'), 'aa-3 ab3', 'away once: there is nothing left to go');
SELECT is(spans('ab3 bc3'), 'aa-3 ac3 bb-3 bc3', 'at one instant: where it ends up');
SELECT is(spans('ab3 ba3'), 'aa-3 ab3', 'a circle at one instant is none');
SELECT * FROM finish();
