-- The first build of the ledger, in one pass over all facts, makes what ingest
-- makes customer by customer: random facts of two subscription sources with
-- rates, grace and cancellations, rows that cannot be used, ids that are no
-- customers. What cannot be built in one pass is not. The seed is printed:
-- psql -v seed=N repeats a run.
\set ON_ERROR_STOP 1
\ir ../lib/seed.sql
SET client_min_messages = warning;
SET cs_ext.now = '2026-03-01 09:00Z';
SET cs_ext.refresh_batch = 7;
SELECT * FROM no_plan();

CREATE SCHEMA app;
CREATE TABLE app.account (id text, name text);
CREATE TABLE app.sub (id text, customer_id text, start_at timestamptz, end_at timestamptz, mrr numeric, currency text, term_months integer,
	status text, changed_at timestamptz, cancel_requested_at timestamptz, reason text);
CREATE TABLE app.plain (customer_id integer, start_at timestamptz, end_at timestamptz, amount numeric, period text);
CREATE TABLE app.invoice (customer_id text, due_at timestamptz, paid_at timestamptz, amount numeric);
CREATE TABLE app.leaving (customer_id text, at timestamptz, reason text);
CREATE TABLE app.event (customer_id text, at timestamptz);
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL) \g /dev/null
GRANT USAGE ON SCHEMA app TO cs_ext_run;
INSERT INTO cs.fx_rate (currency, valid_from, rate) SELECT 'USD', date '2025-03-15' + m * 45, 0.5 + round(random()::numeric, 4) FROM generate_series(0, 12) m;
SELECT count(*) FROM cs.add_source('account', 'customer', 'app.account', '{"customer_id": "id", "name": "name"}') \g /dev/null
SELECT count(*) FROM cs.add_source('sub', 'subscription', 'app.sub', '{"customer_id": "customer_id", "subscription_id": "id", "start_at": "start_at", "end_at": "end_at", "mrr": "mrr", "currency": "currency",
	"term_months": "term_months", "status": "status", "changed_at": "changed_at", "cancel_requested_at": "cancel_requested_at", "cancel_reason": "reason"}') \g /dev/null
CREATE VIEW app.plain_view AS SELECT * FROM app.plain;
SELECT count(*) FROM cs.add_source('plain', 'subscription', 'app.plain_view', '{"customer_id": "customer_id", "start_at": "start_at", "end_at": "end_at", "amount": "amount", "interval": "period"}') \g /dev/null
SELECT count(*) FROM cs.add_source('invoice', 'invoice', 'app.invoice', '{"customer_id": "customer_id", "due_at": "due_at", "paid_at": "paid_at", "amount": "amount"}') \g /dev/null
SELECT count(*) FROM cs.add_source('leaving', 'cancellation', 'app.leaving', '{"customer_id": "customer_id", "at": "at", "reason": "reason"}') \g /dev/null
SELECT count(*) FROM cs.add_source('event', 'usage_event', 'app.event', '{"customer_id": "customer_id", "at": "at"}') \g /dev/null

CREATE FUNCTION app.one(words text[]) RETURNS text LANGUAGE sql VOLATILE AS 'SELECT nullif(words[1 + floor(random() * array_length(words, 1))], ''NULL'')';
CREATE FUNCTION app.day() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$SELECT timestamptz '2025-02-01 00:00+01' + floor(random() * 420) * interval '1 day'$$;
CREATE FUNCTION app.who() RETURNS integer LANGUAGE sql VOLATILE AS 'SELECT 1 + floor(random() * 120)::integer';
INSERT INTO app.account SELECT i::text, 'Company ' || i FROM generate_series(3, 130, 3) i;
INSERT INTO app.sub SELECT app.one('{s1,s2,s3,s4,NULL}'), CASE WHEN random() < 0.02 THEN app.one('{NULL,"","Ünï code",10}') ELSE app.who()::text END, d, e, CASE WHEN random() < 0.02 THEN app.one('{NaN,99999999999999.9,NULL,1e20}')::numeric ELSE round((random() * 100 - 5)::numeric, 2) END,
		app.one('{EUR,eur,USD,usd,GBP,NULL}'), (1 + floor(random() * 12))::integer, app.one('{active,active,active,canceled,past_due,paused,trialing,unpaid}'), CASE WHEN random() < 0.5 THEN d + interval '9 days' END,
		CASE WHEN random() < 0.5 THEN e - random() * interval '60 days' END, app.one('{price,gone,NULL}')
	FROM generate_series(1, 500), app.day() d, LATERAL (SELECT CASE WHEN random() < 0.8 THEN d + floor(random() * 120 - 2) * interval '1 day' END AS e) x;
-- some go on where they end: at another rate, or on hold and back; one comes again for more, and stays for less
INSERT INTO app.sub (customer_id, start_at, end_at, mrr) VALUES ('1005', '2025-03-01', '2025-05-01', 40), ('1005', '2025-06-01', NULL, 60), ('1005', '2025-07-01', '2025-08-01', 5);
INSERT INTO app.sub (customer_id, start_at, end_at, mrr, currency) VALUES ('1004', '2025-04-01', '2025-08-01', 100, 'USD'), ('1004', '2025-08-01', NULL, 120, 'usd');
INSERT INTO app.sub (id, customer_id, start_at, end_at, mrr, status) SELECT 'r', '1003', timestamptz '2025-03-01 00:00+01' + k * interval '20 days', timestamptz '2025-03-21 00:00+01' + k * interval '20 days', 10, CASE k WHEN 1 THEN 'paused' ELSE 'active' END FROM generate_series(0, 2) k;
-- ids that are alike for long
INSERT INTO app.sub (customer_id, start_at, end_at, mrr) SELECT i, d, d + interval '40 days', 10 FROM unnest('{customer-2,customer-10,customer,customers,custome,customer-1,custome2}'::text[]) i, generate_series(1, 3), app.day() d ORDER BY random();
INSERT INTO app.plain SELECT app.who(), d, CASE WHEN random() < 0.6 THEN d + floor(random() * 90) * interval '1 day' END, round((random() * 100)::numeric, 2), app.one('{month,year,week,day,quarter,fortnight}') FROM generate_series(1, 100), app.day() d;
INSERT INTO app.sub (customer_id, start_at, mrr) SELECT '7', '2025-05-01', 99999999999999 FROM generate_series(1, 2);
INSERT INTO app.invoice SELECT app.who(), t, CASE WHEN random() < 0.5 THEN t + interval '20 days' END, 50 - random() * 60 FROM generate_series(1, 200), app.day() t;
INSERT INTO app.leaving SELECT CASE WHEN random() < 0.1 THEN 'nobody' ELSE app.who()::text END, app.day(), app.one('{price,other}') FROM generate_series(1, 60);
INSERT INTO app.event SELECT CASE WHEN random() < 0.1 THEN 'nobody' ELSE app.who()::text END, app.day() FROM generate_series(1, 60);

-- All that the two ways make, by name of the way.
CREATE TABLE app.kept (way text, tab text, r jsonb);
CREATE PROCEDURE app.keep(way text) LANGUAGE plpgsql AS $$
DECLARE
	t text;
BEGIN
	FOREACH t IN ARRAY '{movement,customer,unusable,orphan,state}'::text[] LOOP
		EXECUTE format('INSERT INTO app.kept SELECT %L, %L, to_jsonb(x) - ''computed_at'' FROM cs_internal.%I x', way, t, t);
	END LOOP;
	INSERT INTO app.kept SELECT way, 'waiting', to_jsonb(w) FROM (SELECT 'pending' AS queue, source, customer_id FROM cs_internal.pending
		UNION ALL SELECT 'dirty', cause, customer_id FROM cs_internal.dirty UNION ALL SELECT 'build', source, NULL FROM cs_internal.ledger_build) w;
END $$;
CREATE FUNCTION app.difference(a text, b text) RETURNS TABLE (tab text, "only" text, r jsonb) LANGUAGE sql AS $$
	(SELECT d.tab, a, d.r FROM (SELECT k.tab, k.r FROM app.kept k WHERE way = a EXCEPT ALL SELECT k.tab, k.r FROM app.kept k WHERE way = b) d LIMIT 5)
	UNION ALL (SELECT d.tab, b, d.r FROM (SELECT k.tab, k.r FROM app.kept k WHERE way = b EXCEPT ALL SELECT k.tab, k.r FROM app.kept k WHERE way = a) d LIMIT 5)
$$;
CREATE PROCEDURE app.empty() LANGUAGE sql AS $$
	TRUNCATE cs_internal.customer, cs_internal.movement, cs_internal.ledger_build, cs_internal.usage_month, cs_internal.usage_delta, cs_internal.usage_build, cs_internal.state, cs_internal.unusable, cs_internal.orphan,
		cs_internal.source_state, cs_internal.pending, cs_internal.dirty, cs_internal.change_log, cs_internal.summary, cs_internal.summary_month, cs_internal.movement_before, cs_internal.customer_before;
$$;

-- What both ways make of what stands in the tables now.
CREATE PROCEDURE app.both(INOUT transactions bigint, INOUT movements bigint) LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM app.kept;
	CALL app.empty();
	COMMIT;
	CALL cs.refresh();
	SELECT count(DISTINCT xmin::text), count(*) INTO transactions, movements FROM cs_internal.movement;
	CALL app.keep('first');
	CALL app.empty();
	CALL cs.refresh(commit => false);
	CALL app.keep('ingest');
	COMMIT;
END $$;

CALL app.both(NULL, NULL) \gset
SELECT is(string_agg(capture, ',' ORDER BY capture), 'scan,trigger,trigger,trigger,trigger,trigger', 'of sources with triggers and a scanned one') FROM cs_internal.source_state;
SELECT ok(:movements > 200, :'movements' || ' movements');
SELECT is(:transactions::bigint, 1::bigint, 'of one transaction');
SELECT is_empty($$SELECT * FROM app.difference('first', 'ingest')$$, 'the first build makes what ingest makes');
SELECT is(count(*), 7::bigint, 'of ids that begin alike, too') FROM cs_internal.customer WHERE customer_id LIKE 'custome%';
SELECT ok(count(DISTINCT r ->> 'reason') >= 6, 'of unusable rows too: ' || string_agg(DISTINCT r ->> 'reason', ', ')) FROM app.kept WHERE tab = 'unusable';
SELECT ok(count(*) >= 2, 'of ids that are no customers') FROM app.kept WHERE tab = 'orphan' AND way = 'first' AND r ->> 'customer_id' = 'nobody';
SELECT set_has('SELECT r ->> ''kind'' FROM app.kept WHERE tab = ''movement'' AND way = ''first''', $$VALUES ('new'), ('expansion'), ('contraction'), ('churn'), ('reactivation'), ('pause'), ('resume'), ('fx')$$, 'all kinds are among them');

-- the same where a worker sweeps
SET min_parallel_table_scan_size = 0;
CALL app.both(NULL, NULL) \gset
SELECT is(:transactions::bigint, 1::bigint, 'of one transaction, with a worker beside it');
SELECT is_empty($$SELECT * FROM app.difference('first', 'ingest')$$, 'a worker makes what ingest makes');
RESET min_parallel_table_scan_size;

-- the same with the ledger's indexes, which were made anew
CALL app.empty();
CALL cs.refresh();
CREATE TABLE app.scanned AS SELECT * FROM cs_internal.movement;
SELECT results_eq('SELECT customer_id, at, seq FROM cs_internal.movement ORDER BY ctid', 'SELECT customer_id, at, seq FROM cs_internal.movement ORDER BY customer_id, at, seq', 'it is written in the order of its key');
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT is((SELECT count(*) FROM cs_internal.movement WHERE at > '-infinity'), (SELECT count(*) FROM app.scanned), 'the index of instants has all');
SELECT set_eq('SELECT (SELECT x FROM cs_internal.movement x WHERE x.customer_id = s.customer_id AND x.at = s.at AND x.seq = s.seq)::text FROM app.scanned s', 'SELECT s::text FROM app.scanned s', 'the key finds each');
SELECT throws_ok('INSERT INTO cs_internal.movement SELECT * FROM app.scanned LIMIT 1', '23505', NULL, 'and refuses another');
RESET enable_seqscan;
RESET enable_bitmapscan;

-- changes after it are ingested
UPDATE app.sub SET mrr = mrr + 1 WHERE customer_id IN ('11', '12');
DELETE FROM app.sub WHERE customer_id = '13';
DELETE FROM app.plain WHERE customer_id = 13;
CALL cs.refresh();
CREATE TABLE app.after AS SELECT * FROM cs_internal.movement;
DELETE FROM app.kept;
CALL app.both(NULL, NULL) \gset
SELECT set_eq('SELECT * FROM cs_internal.movement', 'SELECT * FROM app.after', 'incremental equals the first build');

-- a source that cannot be read: nothing is built, then all of it
CALL app.empty();
ALTER TABLE app.leaving RENAME TO elsewhere;
CALL cs.refresh();
SELECT is((SELECT count(*) FROM cs_internal.movement), 0::bigint, 'while a source cannot be read nothing is built');
SELECT is(string_agg(source, ','), 'leaving', 'and the source says so') FROM cs_internal.source_state WHERE error IS NOT NULL;
ALTER TABLE app.elsewhere RENAME TO leaving;
CALL cs.refresh();
SELECT set_eq('SELECT * FROM cs_internal.movement', 'SELECT * FROM app.after', 'when it is back all is');

-- what needs more than one pass is left to ingest
CREATE TABLE app.merged (old_id text, new_id text, at timestamptz);
INSERT INTO app.merged VALUES ('11', '12', '2025-06-01 00:00+02');
SELECT count(*) FROM cs.add_source('merged', 'customer_merge', 'app.merged', '{"from_customer_id": "old_id", "into_customer_id": "new_id", "at": "at"}') \g /dev/null
CALL app.both(NULL, NULL) \gset
SELECT ok(:transactions > 1, 'merged customers are ingested in chunks');
SELECT is_empty($$SELECT * FROM app.difference('first', 'ingest')$$, 'with the same outcome');

-- more than memory holds waits in files
SELECT cs.drop_source('merged') \g /dev/null
SELECT cs.drop_source('leaving') \g /dev/null
CALL cs.refresh();
INSERT INTO app.leaving SELECT (1 + i % 120)::text, app.day(), (i % 7)::text FROM generate_series(1, 16000) i;
SELECT count(*) FROM cs.add_source('leaving', 'cancellation', 'app.leaving', '{"customer_id": "customer_id", "at": "at", "reason": "repeat(reason, 5000)"}') \g /dev/null
CALL app.both(NULL, NULL) \gset
SELECT is(:transactions::bigint, 1::bigint, 'built in one transaction from facts that do not fit into memory');
SELECT is_empty($$SELECT * FROM app.difference('first', 'ingest')$$, 'with the same outcome');
SET min_parallel_table_scan_size = 0;
CALL app.both(NULL, NULL) \gset
SELECT is_empty($$SELECT * FROM app.difference('first', 'ingest')$$, 'the same where a worker sweeps');
SELECT ok(count(*) > 0, 'long reasons are among them') FROM cs_internal.movement WHERE length(reason) >= 5000;
SELECT * FROM finish();
