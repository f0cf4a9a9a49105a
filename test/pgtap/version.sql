-- Rows that are overwritten in place (terms => 'current'): versions are kept, and each change counts from its instant.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET cs_ext.now = '2026-03-01 00:00Z';
SELECT * FROM no_plan();

CREATE SCHEMA app;
CREATE TABLE app.sub (
	id text PRIMARY KEY, customer_id integer, start_at timestamptz, end_at timestamptz, mrr numeric, currency text, seats integer, product text, status text,
	trial boolean, changed_at timestamptz, cancel_requested_at timestamptz, reason text, renews_at timestamptz);
CREATE INDEX ON app.sub (customer_id);
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL) \g /dev/null
GRANT USAGE ON SCHEMA app TO cs_ext_run;
\set mapping '{"customer_id": "customer_id", "subscription_id": "id", "start_at": "start_at", "end_at": "end_at", "mrr": "mrr", "currency": "currency", "seats": "seats", "product": "product", "status": "status", "is_trial": "trial", "cancel_requested_at": "cancel_requested_at", "cancel_reason": "reason", "renews_at": "renews_at"'
SELECT throws_ok(format($$SELECT cs.add_source('sub', 'subscription', 'app.sub', %L, terms => 'curent')$$, :'mapping' || '}'), '22023', NULL, 'an unknown word');
SELECT throws_ok($$SELECT cs.add_source('sub', 'subscription', 'app.sub', '{"customer_id": "customer_id", "start_at": "start_at", "mrr": "mrr"}', terms => 'current')$$, '22023', NULL, 'rows without a key cannot be followed');
SELECT throws_ok($$SELECT cs.add_source('sub', 'customer', 'app.sub', '{"customer_id": "customer_id"}', terms => 'current')$$, '22023', NULL, 'other kinds have no terms');
SELECT throws_ok(format($$SELECT cs.add_source('sub', 'subscription', 'app.sub', %L, capture => 'window', terms => 'current')$$, :'mapping' || '}'), '22023', NULL, 'nor can a window see old rows overwritten');
SELECT count(*) FROM cs.add_source('sub', 'subscription', 'app.sub', (:'mapping' || ', "changed_at": "changed_at"}')::jsonb, terms => 'current') \g /dev/null

CREATE FUNCTION app.ledger(customer text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(concat_ws(' ', to_char(m.at AT TIME ZONE 'UTC', 'MM-DD'), m.kind, trim_scale(m.delta), m.churn_kind, m.reason), ', ' ORDER BY m.at, m.seq)
	FROM cs.movement m WHERE m.customer_id = customer
$$;
CREATE FUNCTION app.state(customer text) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', trim_scale(s.mrr), s.active, s.in_trial, coalesce(s.seats::text, '-')) FROM cs_internal.state s WHERE s.customer_id = customer
$$;

INSERT INTO app.sub (id, customer_id, start_at, mrr, seats, product, status, trial, changed_at) VALUES
	('a', 1, '2026-01-01Z', 100, 5, 'basic', 'active', false, '2026-01-01Z'),
	('b', 2, '2026-01-01Z', 100, 5, 'basic', 'active', false, NULL),
	('c', 3, '2026-02-20Z', 50, 1, 'basic', 'trialing', true, '2026-02-20Z'),
	('d', 4, '2026-01-01Z', 70, 1, 'basic', 'active', false, '2026-01-01Z'),
	('e', 5, '2026-01-01Z', 80, 1, 'basic', 'active', false, '2026-01-01Z'),
	('f', 6, '2026-01-01Z', 90, 1, 'basic', 'active', false, '2026-01-01Z');
CALL cs.refresh();
SELECT is(app.ledger('1'), '01-01 new 100', 'the first version holds from the start');
SELECT results_eq($$SELECT history_from FROM cs.source_status WHERE source = 'sub'$$, $$VALUES (timestamptz '2026-03-01Z')$$, 'history begins when the source was read first');

-- changed_at says when
SET cs_ext.now = '2026-03-20 00:00Z';
UPDATE app.sub SET mrr = 130, seats = 7, changed_at = '2026-03-10Z' WHERE id = 'a';
-- nothing says when: the refresh that finds it
UPDATE app.sub SET mrr = 60 WHERE id = 'b';
-- a trial becomes a customer; a customer is not paid for; a row is canceled at once; a row is paused
UPDATE app.sub SET status = 'active', trial = false, changed_at = '2026-03-06Z' WHERE id = 'c';
UPDATE app.sub SET status = 'unpaid', changed_at = '2026-03-07Z' WHERE id = 'd';
UPDATE app.sub SET status = 'canceled', cancel_requested_at = '2026-03-05Z', reason = 'price', changed_at = '2026-03-08Z' WHERE id = 'e';
UPDATE app.sub SET status = 'paused', changed_at = '2026-03-09Z' WHERE id = 'f';
CALL cs.refresh();
SELECT is(app.ledger('1'), '01-01 new 100, 03-10 expansion 30', 'a change of amount counts from changed_at');
SELECT is(app.ledger('2'), '01-01 new 100, 03-20 contraction -40', 'else from the refresh that finds it');
SELECT is(app.ledger('3'), '03-06 new 50', 'a trial that becomes a customer is new then');
SELECT is(app.ledger('4'), '01-01 new 70, 03-07 churn -70 involuntary', 'unpaid is a churn from then');
SELECT is(app.ledger('5'), '01-01 new 80, 03-08 churn -80 voluntary price', 'canceled without an end counted until then');
SELECT is(app.ledger('6'), '01-01 new 90, 03-09 pause -90', 'a pause begins then');
SELECT is(app.state('1') || '; ' || app.state('3') || '; ' || app.state('4') || '; ' || app.state('6'), '130 t f 7; 50 t f 1; 0 f f -; 0 t f -', 'the state of each');
SELECT set_eq('SELECT customer_id COLLATE "default", trim_scale(value) FROM (SELECT customer_id, mrr AS value FROM cs_internal.state) x WHERE customer_id IN (''1'', ''3'')', $$VALUES ('1', 130::numeric), ('3', 50)$$, 'balances are those of the last version');
-- as of then: seats and trials are those of the version of that day
SELECT is((SELECT trim_scale(mrr_after) FROM cs.movement WHERE customer_id = '1' AND at < '2026-03-10Z' ORDER BY at DESC LIMIT 1), 100::numeric, 'the balance before a change is the one before');

-- what is no version: dates and reasons are corrected
UPDATE app.sub SET start_at = '2026-01-05Z', end_at = '2026-05-01Z', cancel_requested_at = '2026-03-18Z', reason = 'late word' WHERE id = 'a';
CALL cs.refresh();
SELECT is(app.ledger('1'), '01-05 new 100, 03-10 expansion 30, 05-01 churn -130 voluntary late word', 'dates and reasons are corrected in place');
SELECT is((SELECT count(*) FROM cs_internal.subscription_version WHERE subscription_id = 'a'), 2::bigint, 'and are no version');

-- touched, not changed; changed back
SET cs_ext.now = '2026-03-25 00:00Z';
UPDATE app.sub SET changed_at = '2026-03-24Z' WHERE id = 'a';
UPDATE app.sub SET mrr = 100, changed_at = '2026-03-22Z' WHERE id = 'b';
CALL cs.refresh();
SELECT is((SELECT count(*) FROM cs_internal.subscription_version WHERE subscription_id = 'a'), 2::bigint, 'a row that was only touched has no version');
SELECT is(app.ledger('2'), '01-01 new 100, 03-20 contraction -40, 03-22 expansion 40', 'there and back are two changes');
-- changed_at in the future or before the version before is not believed
UPDATE app.sub SET mrr = 110, changed_at = '2026-12-01Z' WHERE id = 'b';
UPDATE app.sub SET product = 'team', changed_at = '2026-01-02Z' WHERE id = 'c';
CALL cs.refresh();
SELECT is(app.ledger('2'), '01-01 new 100, 03-20 contraction -40, 03-22 expansion 40, 03-25 expansion 10', 'nothing is changed in the future');
SELECT results_eq($$SELECT valid_from, product FROM cs_internal.subscription_version WHERE subscription_id = 'c' ORDER BY valid_from DESC LIMIT 1$$, $$VALUES (timestamptz '2026-03-25Z', 'team')$$, 'nor before the version before; a product is a version, too');

-- gone and back, in one refresh and in two
SET cs_ext.now = '2026-04-01 00:00Z';
CREATE TABLE app.saved AS SELECT * FROM app.sub;
BEGIN;
DELETE FROM app.sub;
INSERT INTO app.sub SELECT * FROM app.saved;
COMMIT;
CREATE TABLE app.versions AS SELECT * FROM cs_internal.subscription_version;
CALL cs.refresh();
SELECT set_eq('SELECT * FROM cs_internal.subscription_version', 'SELECT * FROM app.versions', 'a table loaded anew is no change');
DELETE FROM app.sub WHERE id = 'c';
CALL cs.refresh();
SELECT is(app.ledger('3'), '03-06 new 50, 04-01 churn -50', 'a row that is gone ended when that was found');
SET cs_ext.now = '2026-04-03 00:00Z';
INSERT INTO app.sub SELECT * FROM app.saved WHERE id = 'c';
CALL cs.refresh();
SELECT is(app.ledger('3'), '03-06 new 50, 04-01 churn -50, 04-03 reactivation 50', 'and goes on when it is back');

-- a writer who rolls back, and one who asks for his customer inside his transaction
CREATE TABLE app.quiet AS SELECT * FROM cs_internal.subscription_version;
BEGIN;
UPDATE app.sub SET mrr = 1;
SELECT cs.refresh_customer('1');
ROLLBACK;
CALL cs.refresh();
SELECT set_eq('SELECT * FROM cs_internal.subscription_version', 'SELECT * FROM app.quiet', 'what was rolled back left no version');
BEGIN;
UPDATE app.sub SET mrr = 140, changed_at = '2026-04-02Z' WHERE id = 'a';
SELECT cs.refresh_customer('1');
SELECT is(app.ledger('1'), '01-05 new 100, 03-10 expansion 30, 04-02 expansion 10, 05-01 churn -140 voluntary late word', 'refresh_customer keeps the version with the change');
COMMIT;
CALL cs.refresh();
SELECT is((SELECT count(*) FROM cs_internal.subscription_version WHERE subscription_id = 'a'), 3::bigint, 'and the refresh after it finds nothing more');

-- a refresh that is undone finds the same change again
BEGIN;
UPDATE app.sub SET seats = 9, changed_at = '2026-04-02 12:00Z' WHERE id = 'a';
COMMIT;
BEGIN;
CALL cs.refresh(commit => false);
ROLLBACK;
SELECT is((SELECT count(*) FROM cs_internal.subscription_version WHERE subscription_id = 'a'), 3::bigint, 'a refresh that is undone leaves nothing');
CALL cs.refresh();
SELECT results_eq($$SELECT valid_from, seats FROM cs_internal.subscription_version WHERE subscription_id = 'a' ORDER BY valid_from DESC LIMIT 1$$, $$VALUES (timestamptz '2026-04-02 12:00Z', 9::numeric)$$, 'the next one finds it');

-- rows that cannot be followed
ALTER TABLE app.sub DROP CONSTRAINT sub_pkey;
ALTER TABLE app.sub ALTER id DROP NOT NULL;
INSERT INTO app.sub (id, customer_id, start_at, mrr, status) VALUES (NULL, 7, '2026-01-01Z', 10, 'active'), ('x', 8, '2026-01-01Z', 10, 'active'), ('x', 8, '2026-02-01Z', 20, 'active');
CALL cs.refresh();
SELECT results_eq($$SELECT customer_id COLLATE "default", reason, row_count FROM cs_internal.unusable WHERE found_by = 'ledger' ORDER BY 1$$,
	$$VALUES ('7', 'subscription_id is NULL', 1::bigint), ('8', 'subscription_id is not unique', 1)$$, 'rows without a key of their own are counted');
SELECT is(app.ledger('8'), '01-01 new 10', 'of two with one key the older counts');

-- a rebuild keeps versions and makes the same ledger; so does the source added anew
CREATE TABLE app.kept AS SELECT * FROM cs.movement;
CREATE TABLE app.kept_versions AS SELECT * FROM cs_internal.subscription_version;
CALL cs.rebuild();
SELECT set_eq('SELECT * FROM cs.movement', 'SELECT * FROM app.kept', 'a rebuild makes the same ledger');
SELECT set_eq('SELECT * FROM cs_internal.subscription_version', 'SELECT * FROM app.kept_versions', 'from the same versions');
SELECT cs.drop_source('sub') \g /dev/null
CALL cs.refresh();
SELECT is_empty('SELECT * FROM cs.movement', 'without the source there is no ledger');
SELECT count(*) FROM cs.add_source('sub', 'subscription', 'app.sub', (:'mapping' || ', "changed_at": "changed_at"}')::jsonb, terms => 'current') \g /dev/null
CALL cs.refresh();
SELECT set_eq('SELECT * FROM cs.movement', 'SELECT * FROM app.kept', 'added again it goes on where it was');

SET client_min_messages = notice;
SELECT lives_ok($$SELECT cs_internal.note_history_from('2026-02-01Z')$$, 'what lies before the history is noted');
SELECT * FROM finish();
