-- What cs.doctor() says of a fault names its cause and a remedy that works: rights
-- that were taken away, what is only a consequence, definitions that fail for
-- somebody, that were switched off, and alerts that are held.
SET client_min_messages = warning;
SET cs_ext.now = '2025-01-01';
SELECT cs.setup('UTC', 'EUR', template => NULL);
SELECT * FROM no_plan();

CREATE SCHEMA app;
CREATE TABLE app.customer (id text PRIMARY KEY);
CREATE TABLE app.ticket (id int PRIMARY KEY, customer_id text, opened_at timestamptz, weight int);
CREATE INDEX ON app.ticket (customer_id);
INSERT INTO app.customer SELECT 'c' || i FROM generate_series(1, 9) i;
INSERT INTO app.ticket SELECT i, 'c' || i, '2024-06-01', i - 7 FROM generate_series(1, 9) i;

-- Rights, when a mapping is tried out.
SELECT throws_ok($$SELECT * FROM cs.preview_source('customer', 'app.customer', '{"customer_id": "id"}')$$, '42501', 'role cs_ext_run may not use schema app', 'a preview says which right is missing on the schema');
SELECT count(*) FROM cs.add_source('customer', 'customer', 'app.customer', '{"customer_id": "id"}');
SELECT throws_ok($$SELECT * FROM cs.preview_source('ticket', 'app.ticket', '{"customer_id": "customer_id", "opened_at": "opened_at"}')$$, '42501', 'role cs_ext_run may not read app.ticket', 'and on the relation');
SELECT count(*) FROM cs.add_source('ticket', 'ticket', 'app.ticket', '{"customer_id": "customer_id", "opened_at": "opened_at", "x_weight": "weight"}');
CALL cs.refresh();

CREATE VIEW app.said AS SELECT concat_ws(' | ', "check", severity, object, finding, remedy) AS line FROM cs.doctor() WHERE "check" NOT IN ('scheduler', 'stale', 'index');
SELECT is_empty('SELECT * FROM app.said', 'nothing is wrong');

-- Rights, taken away from the schema: one row a source, and its remedy heals.
REVOKE USAGE ON SCHEMA app FROM cs_ext_run;
SELECT cs.mark_changed('ticket');
CALL cs.refresh();
SELECT is((SELECT error FROM cs.source_status WHERE source = 'ticket'), 'role cs_ext_run may not use schema app', 'source_status names the right on the schema');
SELECT results_eq('SELECT line FROM app.said', $$VALUES
	('read | error | customer | role cs_ext_run may not use schema app | GRANT USAGE ON SCHEMA app TO cs_ext_run;'),
	('read | error | ticket | role cs_ext_run may not use schema app | GRANT USAGE ON SCHEMA app TO cs_ext_run;')$$, 'the doctor says it once for each source, with the GRANT');
SELECT remedy FROM cs.doctor() WHERE object = 'ticket' \gexec
CALL cs.refresh();
SELECT is_empty('SELECT * FROM app.said', 'which is the remedy');

-- A renamed column: the source comes before the definitions that suffer from it.
INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('weight', 'ticket', 'max(x_weight)', 'number', 'low');
CALL cs.refresh();
ALTER TABLE app.ticket RENAME customer_id TO account;
SET cs_ext.now = '2025-01-02';
CALL cs.refresh();
SELECT is((SELECT array_agg("check" || ' ' || object ORDER BY n) FROM (SELECT "check", object, row_number() OVER () AS n FROM cs.doctor() WHERE severity = 'error') d),
	'{mapping ticket,definition metric weight}', 'the cause stands before what follows from it, and once');
ALTER TABLE app.ticket RENAME account TO customer_id;
CALL cs.refresh();
SELECT is_empty('SELECT * FROM app.said', 'back under its name all is well');

-- Definitions that fail, until they are mended, switched off or gone.
INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('divides', 'ticket', 'max(1 / x_weight)', 'number', 'low');
INSERT INTO cs.dimension (name, fallback) VALUES ('odd', 'no'), ('odder', 'no');
INSERT INTO cs.segment (dimension, name, rule) VALUES ('odd', 'yes', '1 / (weight - weight)::int = 0'), ('odder', 'yes', '1 / (weight - weight)::int = 0');
INSERT INTO cs.alert_rule (name, rule, severity) VALUES ('divided', '1 / (weight - weight)::int = 0', 'low');
CALL cs.refresh();
SELECT is((SELECT array_agg(object ORDER BY object) FROM cs.doctor() WHERE "check" = 'definition'), '{alert_rule divided,metric divides,segment odd/yes,segment odder/yes}', 'four definitions fail');
SELECT is((SELECT finding FROM cs.doctor() WHERE object = 'metric divides'), 'failing for 1 customer, e.g. "c7": division by zero', 'for whom is said');
UPDATE cs.metric SET enabled = false WHERE name = 'divides';
UPDATE cs.dimension SET enabled = false WHERE name = 'odd';
SELECT is((SELECT array_agg(object ORDER BY object) FROM cs.doctor() WHERE "check" = 'definition'), '{alert_rule divided,segment odder/yes}', 'what is switched off fails no more, and nothing else is forgotten');
UPDATE cs.alert_rule SET enabled = false WHERE name = 'divided';
DELETE FROM cs.dimension WHERE name = 'odder';
CALL cs.refresh();
SELECT is_empty('SELECT * FROM app.said', 'nor after a refresh');
UPDATE cs.metric SET enabled = true WHERE name = 'divides';
CALL cs.refresh();
SELECT is((SELECT array_agg(object) FROM cs.doctor() WHERE "check" = 'definition'), '{metric divides}', 'switched on it fails again');
DELETE FROM cs.metric WHERE name = 'divides';

-- Held alerts are no error of the rule.
INSERT INTO cs.alert_rule (name, rule, severity, max_new) VALUES ('heavy', 'weight > -100', 'low', 4);
CALL cs.refresh();
SELECT matches((SELECT line FROM app.said), '^held \| warning \| alert_rule heavy \| 5 alerts are held: .* cs.held_alert.* max_new', 'held alerts are a warning that says where they are and what to raise');
SELECT is((SELECT count(*) FROM cs.held_alert WHERE rule = 'heavy'), 5::bigint, 'and there they are');

DELETE FROM cs.alert_rule;

-- A customer that was merged into nobody, and a source that no refresh has read.
CREATE TABLE app.merge (old_id text PRIMARY KEY, new_id text, at date);
SELECT count(*) FROM cs.add_source('merged', 'customer_merge', 'app.merge', '{"from_customer_id": "old_id", "into_customer_id": "new_id", "at": "at"}');
SELECT results_eq('SELECT line FROM app.said', $$VALUES ('unread | warning | merged | it was not read yet: all numbers are without it | CALL cs.refresh();')$$, 'a source that was never read says so');
INSERT INTO app.merge VALUES ('c1', 'nobody', '2024-03-01'), ('c2', 'gone', '2024-03-01'), ('gone', 'c3', '2024-04-01');
CALL cs.refresh();
SELECT results_eq('SELECT line FROM app.said', $$VALUES ('merge | warning | nobody | "c1" was merged into "nobody", which is no customer: its MRR counts in the totals, but nobody has it | Correct the merge, or add the customer it names to a customer source.')$$, 'so does a merge into what is no customer, unless that one went on into a customer');
INSERT INTO app.customer VALUES ('nobody');
CALL cs.refresh();
SELECT is_empty('SELECT * FROM app.said', 'with that customer all is well');

-- Row security, and a currency without a rate: the remedy is not to correct rows or columns.
ALTER TABLE app.ticket ENABLE ROW LEVEL SECURITY;
SELECT matches((SELECT line FROM app.said), '^mapping \| error \| ticket \| .* row-level security .* ALTER ROLE cs_ext_run BYPASSRLS;$', 'row security on a source is said with its remedy');
ALTER TABLE app.ticket DISABLE ROW LEVEL SECURITY;
CREATE TABLE app.contract (id text PRIMARY KEY, customer_id text, start_at date, mrr numeric, currency text);
INSERT INTO app.contract VALUES ('k1', 'c1', '2024-01-01', 10, 'USD');
SELECT count(*) FROM cs.add_source('contract', 'subscription', 'app.contract', '{"subscription_id": "id", "customer_id": "customer_id", "start_at": "start_at", "mrr": "mrr", "currency": "currency"}');
CALL cs.refresh();
SELECT results_eq('SELECT line FROM app.said', $$VALUES ('unusable | warning | contract | 1 row cannot be used: no fx_rate for USD to EUR at 2024-01-01; e.g. customer c1 | INSERT INTO cs.fx_rate (currency, valid_from, rate); then CALL cs.refresh().')$$, 'so is a missing rate');
INSERT INTO cs.fx_rate (currency, valid_from, rate) VALUES ('USD', '2024-01-01', 0.9);
CALL cs.refresh();
SELECT is_empty('SELECT * FROM app.said', 'and the remedy works');

-- A mapping that makes every row unusable says so at once.
SELECT is((SELECT warning FROM cs.add_source('yearly', 'subscription', 'app.contract', '{"customer_id": "customer_id", "start_at": "start_at", "amount": "mrr", "interval": "''yearly''"}') WHERE "column" = 'customer_id'),
	'the first row cannot be used: interval is unknown', 'add_source warns where the first row cannot be used');
SELECT is((SELECT count(*) FROM cs.add_source('annual', 'subscription', 'app.contract', '{"customer_id": "customer_id", "start_at": "start_at", "amount": "mrr", "interval": "''year''"}') WHERE warning LIKE '%first row%'),
	0::bigint, 'and not where it can');

-- A metric over what run_as may not read.
REVOKE SELECT ON app.ticket FROM cs_ext_run;
SELECT throws_like($$INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('n', 'ticket', 'count(*)', 'count', 'low')$$, '%permission denied for table ticket%', 'a metric over an unreadable source is refused when it is written');
SELECT * FROM finish();
