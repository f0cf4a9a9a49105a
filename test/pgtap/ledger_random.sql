-- The ledger in full on random facts: rates, merges, grace, licences, rows overwritten in place, under changing switches of
-- the policy. After random changes and refreshes it is what a rebuild makes; balances roll forward; rows behind movements add
-- up; cutting rows in two changes nothing. The seed is printed: psql -v seed=N repeats a run.
\set ON_ERROR_STOP 1
\ir ../lib/seed.sql
SET client_min_messages = warning;
SET cs_ext.now = '2026-03-01 09:00Z';
SELECT * FROM no_plan();

CREATE SCHEMA app;
CREATE TABLE app.account (id integer PRIMARY KEY);
CREATE TABLE app.sub (
	key integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text, customer_id integer, start_at timestamptz, end_at timestamptz, mrr numeric, currency text, term_months integer,
	status text, changed_at timestamptz, cancel_requested_at timestamptz, reason text, seats integer);
CREATE TABLE app.cur (id integer PRIMARY KEY, customer_id integer, start_at timestamptz, end_at timestamptz, mrr numeric, status text, changed_at timestamptz, seats integer);
CREATE TABLE app.invoice (customer_id integer, due_at timestamptz, paid_at timestamptz, amount numeric);
CREATE TABLE app.leaving (customer_id integer, at timestamptz, reason text);
CREATE TABLE app.merged (old_id integer, new_id integer, at timestamptz);
CREATE TABLE app.licence (customer_id integer, seats integer, start_at timestamptz, end_at timestamptz);
INSERT INTO app.account SELECT generate_series(1, 40);
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL) \g /dev/null
GRANT USAGE ON SCHEMA app TO cs_ext_run;
INSERT INTO cs.fx_rate (currency, valid_from, rate) SELECT c, date '2025-01-01' + m * 45, 0.5 + round(random()::numeric, 4) FROM unnest('{USD,GBP}'::text[]) c, generate_series(0, 12) m;
SELECT count(*) FROM cs.add_source('account', 'customer', 'app.account', '{"customer_id": "id"}') \g /dev/null
SELECT count(*) FROM cs.add_source('sub', 'subscription', 'app.sub', '{"customer_id": "customer_id", "subscription_id": "id", "start_at": "start_at", "end_at": "end_at", "mrr": "mrr", "currency": "currency",
	"term_months": "term_months", "status": "status", "changed_at": "changed_at", "cancel_requested_at": "cancel_requested_at", "cancel_reason": "reason", "seats": "seats"}') \g /dev/null
SELECT count(*) FROM cs.add_source('cur', 'subscription', 'app.cur', '{"customer_id": "customer_id", "subscription_id": "id", "start_at": "start_at", "end_at": "end_at", "mrr": "mrr",
	"status": "status", "changed_at": "changed_at", "seats": "seats"}', terms => 'current') \g /dev/null
SELECT count(*) FROM cs.add_source('invoice', 'invoice', 'app.invoice', '{"customer_id": "customer_id", "due_at": "due_at", "paid_at": "paid_at", "amount": "amount"}') \g /dev/null
SELECT count(*) FROM cs.add_source('leaving', 'cancellation', 'app.leaving', '{"customer_id": "customer_id", "at": "at", "reason": "reason"}') \g /dev/null
SELECT count(*) FROM cs.add_source('merged', 'customer_merge', 'app.merged', '{"from_customer_id": "old_id", "into_customer_id": "new_id", "at": "at"}') \g /dev/null
SELECT count(*) FROM cs.add_source('licence', 'licence', 'app.licence', '{"customer_id": "customer_id", "seats": "seats", "start_at": "start_at", "end_at": "end_at"}') \g /dev/null

CREATE FUNCTION app.one(words text[]) RETURNS text LANGUAGE sql VOLATILE AS 'SELECT words[1 + floor(random() * array_length(words, 1))]';
CREATE FUNCTION app.day() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$SELECT timestamptz '2025-02-01 00:00+01' + floor(random() * 420) * interval '1 day'$$;
CREATE FUNCTION app.who() RETURNS integer LANGUAGE sql VOLATILE AS 'SELECT 1 + floor(random() * 40)::integer';

CREATE FUNCTION app.change(n integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	k integer;
	d timestamptz;
	c integer;
BEGIN
	FOR k IN 1 .. n LOOP
		d := app.day();
		c := app.who();
		INSERT INTO app.sub (id, customer_id, start_at, end_at, mrr, currency, term_months, status, changed_at, cancel_requested_at, reason, seats)
		SELECT CASE WHEN random() < 0.8 THEN 's' || floor(random() * 50) END, c, d, e, round((random() * 100 - 5)::numeric, 2), app.one('{EUR,eur,USD,usd,GBP,NULL}'), (1 + floor(random() * 12))::integer,
			app.one('{active,active,active,canceled,past_due,paused,trialing,unpaid}'), CASE WHEN random() < 0.5 THEN d + interval '9 days' END,
			CASE WHEN random() < 0.5 THEN e - random() * interval '60 days' END, app.one('{price,gone,NULL}'), floor(random() * 9)::integer
		FROM (SELECT CASE WHEN random() < 0.8 THEN d + floor(random() * 120) * interval '1 day' END AS e) x;
		IF random() < 0.5 THEN
			-- goes on where another ends
			INSERT INTO app.sub (id, customer_id, start_at, mrr, currency, term_months)
			SELECT s.id, s.customer_id, s.end_at + floor(random() * 3) * interval '1 day', s.mrr, s.currency, s.term_months + 1 FROM app.sub s WHERE s.end_at IS NOT NULL ORDER BY random() LIMIT 1;
		END IF;
		INSERT INTO app.cur VALUES (k + (random() * 60)::integer, app.who(), app.day(), NULL, round((random() * 100)::numeric, 2), app.one('{active,trialing,past_due}'), NULL, 1) ON CONFLICT DO NOTHING;
		INSERT INTO app.invoice SELECT app.who(), t, CASE WHEN random() < 0.5 THEN t + interval '20 days' END, 50 - random() * 60 FROM app.day() t;
		INSERT INTO app.leaving SELECT app.who(), app.day(), app.one('{price,other}') WHERE random() < 0.4;
		INSERT INTO app.merged SELECT app.who(), app.who(), app.day() WHERE random() < 0.2;
		INSERT INTO app.licence SELECT app.who(), floor(random() * 30), t, CASE WHEN random() < 0.5 THEN t + random() * interval '300 days' END FROM app.day() t WHERE random() < 0.3;
	END LOOP;
	UPDATE app.sub SET mrr = mrr + 1 WHERE random() < 0.05;
	UPDATE app.sub SET end_at = start_at + floor(random() * 90) * interval '1 day' WHERE random() < 0.05;
	UPDATE app.sub SET customer_id = app.who() WHERE random() < 0.02;
	DELETE FROM app.sub WHERE random() < 0.05;
	UPDATE app.cur SET mrr = round((random() * 100)::numeric, 2), changed_at = current_setting('cs_ext.now')::timestamptz - random() * interval '5 days' WHERE random() < 0.2;
	UPDATE app.cur SET status = app.one('{active,active,paused,unpaid,canceled,past_due}'), seats = seats + 1 WHERE random() < 0.2;
	UPDATE app.cur SET end_at = start_at + random() * interval '500 days' WHERE random() < 0.1;
	DELETE FROM app.cur WHERE random() < 0.05;
	UPDATE app.invoice SET paid_at = due_at + interval '5 days' WHERE random() < 0.1;
	DELETE FROM app.leaving WHERE random() < 0.1;
	UPDATE app.merged SET at = at + interval '7 days' WHERE random() < 0.2;
	DELETE FROM app.merged WHERE random() < 0.1;
END $$;

CREATE TABLE app.kept (pass text, tab text, r text);
CREATE FUNCTION app.keep(pass text) RETURNS void LANGUAGE sql AS $$
	INSERT INTO app.kept SELECT pass, 'movement', m::text FROM cs_internal.movement m;
	INSERT INTO app.kept SELECT pass, 'merge', m::text FROM cs_internal.merge m;
	INSERT INTO app.kept SELECT pass, 'version', v::text FROM cs_internal.subscription_version v;
	INSERT INTO app.kept SELECT pass, 'unusable', (u.source, u.customer_id, u.reason, u.row_count)::text FROM cs_internal.unusable u;
	INSERT INTO app.kept SELECT pass, 'state', (s.customer_id, s.mrr, s.active, s.in_trial, s.seats, s.tenure_days, s.days_to_renewal)::text FROM cs_internal.state s;
$$;
CREATE FUNCTION app.differ(pass text) RETURNS SETOF text LANGUAGE sql AS $$
	(SELECT tab || ' only before: ' || r FROM (SELECT tab, r FROM app.kept WHERE kept.pass = differ.pass || ' before' EXCEPT ALL SELECT tab, r FROM app.kept WHERE kept.pass = differ.pass || ' after') x LIMIT 5)
	UNION ALL
	(SELECT tab || ' only after: ' || r FROM (SELECT tab, r FROM app.kept WHERE kept.pass = differ.pass || ' after' EXCEPT ALL SELECT tab, r FROM app.kept WHERE kept.pass = differ.pass || ' before') x LIMIT 5)
$$;
CREATE FUNCTION app.wrong_balances() RETURNS SETOF text LANGUAGE sql AS $$
	SELECT x::text FROM (SELECT m.*, sum(m.delta) OVER (PARTITION BY m.customer_id ORDER BY m.at, m.seq) AS rolled,
		lag(m.active_after, 1, false) OVER (PARTITION BY m.customer_id ORDER BY m.at, m.seq) AS was_active FROM cs_internal.movement m) x
	WHERE x.rolled <> x.mrr_after OR x.active_after <> (x.mrr_after > 0) AND x.kind NOT IN ('pause', 'churn', 'merge_in', 'contraction', 'expansion', 'new', 'reactivation', 'resume', 'merge_out', 'fx')
		OR (x.kind = 'churn') <> (x.was_active AND NOT x.active_after AND x.kind <> 'merge_out')
		OR x.kind IN ('new', 'expansion', 'reactivation', 'resume') AND x.delta < 0 OR x.kind IN ('contraction', 'churn') AND x.delta > 0
$$;
CREATE FUNCTION app.wrong_details() RETURNS SETOF text LANGUAGE sql AS $$
	(SELECT 'movement ' || m::text FROM (SELECT customer_id, at, seq, kind, delta FROM cs.movement EXCEPT SELECT customer_id, at, seq, kind, sum(amount) FROM cs.movement_detail GROUP BY 1, 2, 3, 4) m LIMIT 3)
	UNION ALL
	(SELECT 'detail ' || m::text FROM (SELECT customer_id, at, seq, kind, sum(amount) FROM cs.movement_detail GROUP BY 1, 2, 3, 4 EXCEPT SELECT customer_id, at, seq, kind, delta FROM cs.movement) m LIMIT 3)
$$;

SELECT app.change(80) \g /dev/null
CALL cs.refresh();
SELECT is_empty('SELECT * FROM app.wrong_balances()', 'balances roll forward');
SELECT is_empty('SELECT * FROM app.wrong_details()', 'the rows behind each movement add up to it');

SET cs_ext.now = '2026-03-02 09:00Z';
SELECT app.change(15) \g /dev/null
CALL cs.refresh();
SET cs_ext.now = '2026-03-05 09:00Z';
SELECT app.change(15) \g /dev/null
CALL cs.refresh();
SELECT app.keep('plain before') \g /dev/null
CALL cs.rebuild();
SELECT app.keep('plain after') \g /dev/null
SELECT is_empty($$SELECT app.differ('plain')$$, 'a rebuild says what the refreshes said');

UPDATE cs.policy SET gap_days_money = 4, reactivation_days = 30, recognition = 'cancel_request', grace_days = 12, max_pause_days = 20;
CALL cs.refresh();
SELECT is_empty('SELECT * FROM app.wrong_balances()', 'balances roll forward, with other switches');
SELECT is_empty('SELECT * FROM app.wrong_details()', 'and rows add up');
SET cs_ext.now = '2026-03-09 09:00Z';
SELECT app.change(15) \g /dev/null
CALL cs.refresh();
SELECT app.keep('switched before') \g /dev/null
CALL cs.rebuild();
SELECT app.keep('switched after') \g /dev/null
SELECT is_empty($$SELECT app.differ('switched')$$, 'and a rebuild says the same');
SELECT is_empty($$SELECT at FROM cs.movement WHERE kind IN ('merge_in', 'merge_out') GROUP BY at HAVING sum(delta) <> 0$$, 'what goes by a merge comes at that instant');

-- cutting rows of one subscription in two changes nothing, not even a rate; nor does their order
DELETE FROM app.sub WHERE id IS NULL OR cancel_requested_at IS NOT NULL OR status = 'past_due' OR changed_at IS NOT NULL OR status = 'canceled' AND end_at IS NULL;
UPDATE app.sub SET id = 'k' || key;
CALL cs.refresh();
SELECT app.keep('cut before') \g /dev/null
CREATE TABLE app.whole AS SELECT * FROM app.sub;
DELETE FROM app.sub;
INSERT INTO app.sub (id, customer_id, start_at, end_at, mrr, currency, term_months, status, reason, seats)
SELECT w.id, w.customer_id, p.start_at, p.end_at, w.mrr, w.currency, w.term_months, w.status, w.reason, w.seats
FROM app.whole w, LATERAL (SELECT w.start_at + floor(1 + random() * 40) * interval '1 day' AS cut) c,
	LATERAL (VALUES (w.start_at, CASE WHEN c.cut < w.end_at OR w.end_at IS NULL THEN c.cut ELSE w.end_at END), (c.cut, w.end_at)) p (start_at, end_at)
WHERE p.end_at IS NULL OR p.end_at > p.start_at
ORDER BY random();
CALL cs.refresh();
SELECT app.keep('cut after') \g /dev/null
SELECT is_empty($$SELECT app.differ('cut')$$, 'rows cut in two say the same');
SELECT ok(count(DISTINCT kind) >= 9, 'the data has nearly every kind of movement: ' || string_agg(DISTINCT kind, ', ')) FROM (SELECT split_part(r, ',', 4) AS kind FROM app.kept WHERE tab = 'movement') x;
SELECT * FROM finish();
