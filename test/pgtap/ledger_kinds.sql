-- The ledger in full: rates, gaps, recognition, grace, merges, licences; each policy switch against the others.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET cs_ext.now = '2026-06-15 12:00Z';
SELECT * FROM no_plan();

CREATE SCHEMA app;
CREATE TABLE app.sub (
	id text, customer_id text, start_at timestamptz, end_at timestamptz, mrr numeric, currency text, term_months integer, status text,
	changed_at timestamptz, cancel_requested_at timestamptz, churn_kind text, reason text, seats numeric);
CREATE TABLE app.invoice (customer_id text, due_at timestamptz, paid_at timestamptz, amount numeric);
CREATE TABLE app.leaving (customer_id text, at timestamptz, churn_kind text, reason text);
CREATE TABLE app.merged (old_id text, new_id text, at timestamptz);
CREATE TABLE app.licence (customer_id text, seats integer, start_at timestamptz, end_at timestamptz);
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL) \g /dev/null
GRANT USAGE ON SCHEMA app TO cs_ext_run;
SELECT count(*) FROM cs.add_source('sub', 'subscription', 'app.sub', '{"customer_id": "customer_id", "subscription_id": "id", "start_at": "start_at", "end_at": "end_at",
	"mrr": "mrr", "currency": "currency", "term_months": "term_months", "status": "status", "changed_at": "changed_at", "cancel_requested_at": "cancel_requested_at",
	"churn_kind": "churn_kind", "cancel_reason": "reason", "seats": "seats"}') \g /dev/null
SELECT count(*) FROM cs.add_source('invoice', 'invoice', 'app.invoice', '{"customer_id": "customer_id", "due_at": "due_at", "paid_at": "paid_at", "amount": "amount"}') \g /dev/null
SELECT count(*) FROM cs.add_source('leaving', 'cancellation', 'app.leaving', '{"customer_id": "customer_id", "at": "at", "churn_kind": "churn_kind", "reason": "reason"}') \g /dev/null
SELECT count(*) FROM cs.add_source('merged', 'customer_merge', 'app.merged', '{"from_customer_id": "old_id", "into_customer_id": "new_id", "at": "at"}') \g /dev/null

-- day kind delta, as text; more than one movement of an instant in their order
CREATE FUNCTION app.ledger(customer text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(concat_ws(' ', to_char(m.at AT TIME ZONE 'UTC', 'MM-DD'), m.kind, trim_scale(m.delta), m.churn_kind, m.reason), ', ' ORDER BY m.at, m.seq)
	FROM cs.movement m WHERE m.customer_id = customer
$$;
CREATE FUNCTION app.rolls() RETURNS SETOF cs.movement LANGUAGE sql AS $$
	SELECT m.* FROM (SELECT x.*, sum(x.delta) OVER (PARTITION BY x.customer_id ORDER BY x.at, x.seq) AS rolled FROM cs.movement x) r
	JOIN cs.movement m USING (customer_id, at, seq) WHERE r.rolled <> r.mrr_after
$$;

-- ---- currencies ---------------------------------------------------------------
INSERT INTO cs.fx_rate (currency, valid_from, rate) VALUES ('USD', '2026-01-01', 0.9), ('USD', '2026-03-01', 0.8), ('GBP', '2026-01-01', 1.2);
INSERT INTO app.sub (id, customer_id, start_at, end_at, mrr, currency) VALUES
	-- a renewal at another rate: only the rate moved
	('a1', 'fx1', '2026-01-10Z', '2026-03-10Z', 100, 'USD'), ('a2', 'fx1', '2026-03-10Z', NULL, 100, 'usd'),
	-- renewed for more: rate and expansion apart
	('b1', 'fx2', '2026-01-10Z', '2026-03-10Z', 100, 'USD'), ('b2', 'fx2', '2026-03-10Z', NULL, 150, 'USD'),
	-- renewed for less
	('c1', 'fx3', '2026-01-10Z', '2026-03-10Z', 100, 'USD'), ('c2', 'fx3', '2026-03-10Z', NULL, 40, 'USD'),
	-- one subscription in two rows keeps its rate
	('d1', 'fx4', '2026-01-10Z', '2026-03-10Z', 100, 'USD'), ('d1', 'fx4', '2026-03-10Z', NULL, 100, 'USD'),
	-- and takes another when it was away
	('e1', 'fx5', '2026-01-10Z', '2026-03-10Z', 100, 'USD'), ('e1', 'fx5', '2026-03-11Z', NULL, 100, 'USD'),
	-- another currency altogether is no matter of rates
	('f1', 'fx6', '2026-01-10Z', '2026-03-10Z', 100, 'USD'), ('f2', 'fx6', '2026-03-10Z', NULL, 80, 'GBP'),
	('g1', 'fx7', '2026-01-10Z', '2026-03-10Z', 100, 'USD'), ('g2', 'fx7', '2026-03-10Z', NULL, 90, 'EUR'),
	-- beside a row of the policy's currency
	('h1', 'fx8', '2026-01-10Z', '2026-03-10Z', 100, 'USD'), ('h2', 'fx8', '2026-03-10Z', NULL, 100, 'USD'), ('h3', 'fx8', '2026-03-10Z', NULL, 7, NULL);
CALL cs.refresh();
SELECT is(app.ledger('fx1'), '01-10 new 90, 03-10 fx -10', 'a renewal at another rate is fx');
SELECT is(app.ledger('fx2'), '01-10 new 90, 03-10 fx -10, 03-10 expansion 40', 'fx is of what goes on, at the new rate the rest is expansion');
SELECT is(app.ledger('fx3'), '01-10 new 90, 03-10 fx -4, 03-10 contraction -54', 'of less, only what is left has fx');
SELECT is(app.ledger('fx4'), '01-10 new 90', 'the rate is locked at the start of the subscription');
SELECT is(app.ledger('fx5'), '01-10 new 90, 03-10 churn -90, 03-11 reactivation 80', 'who was away begins again');
SELECT is(app.ledger('fx6'), '01-10 new 90, 03-10 expansion 6', 'another currency is no fx');
SELECT is(app.ledger('fx7'), '01-10 new 90', 'the same money in another currency is nothing');
SELECT is(app.ledger('fx8'), '01-10 new 90, 03-10 fx -10, 03-10 expansion 7', 'fx beside an expansion in the policy''s currency');
SELECT results_eq($$SELECT fx_mrr, expansion_mrr, contraction_mrr, mrr_end - mrr_start FROM cs.revenue('2026-03')$$,
	$$VALUES (-34.000000, 53.000000, 54.000000, -45.000000)$$, 'revenue shows rates apart');
SELECT set_eq('SELECT customer_id, at, seq, kind, delta, sum(amount) FROM cs.movement_detail GROUP BY 1, 2, 3, 4, 5', 'SELECT customer_id, at, seq, kind, delta, delta AS sum FROM cs.movement', 'the rows behind each movement add up to it: rates');
SELECT results_eq($$SELECT kind COLLATE "default", amount, subscription_id, start_at, end_at, mrr, native_mrr, currency FROM cs.movement_detail WHERE customer_id = 'fx2' AND at > '2026-02-01Z' ORDER BY seq, subscription_id$$,
	$$VALUES ('fx', -10.000000, 'b2', timestamptz '2026-03-10Z', NULL::timestamptz, 120.000000, 150.000000, 'USD'),
	('expansion', -90, 'b1', '2026-01-10Z', '2026-03-10Z', 90, 100, 'USD'), ('expansion', 130, 'b2', '2026-03-10Z', NULL, 120, 150, 'USD')$$, 'rows that end and begin, and what of it is the rate');
INSERT INTO app.sub (id, customer_id, start_at, mrr, currency) VALUES ('i1', 'fx9', '2026-02-03Z', 5, 'CHF'), ('i2', 'fx9', '2025-12-31Z', 5, 'USD');
CALL cs.refresh();
SELECT throws_like('SELECT cs.mrr()', '%: CHF to EUR at 2026-02-03, USD to EUR at 2025-12-31', 'what has no rate is refused with pairs and dates');
DELETE FROM app.sub;
CALL cs.refresh();

-- ---- gaps, returns, recognition: pure functions of the rows -----------------------
CREATE FUNCTION app.sweep(facts text, cancellations text DEFAULT '[]', gap integer DEFAULT 0, back integer DEFAULT NULL, recognition text DEFAULT 'service_end', pause integer DEFAULT NULL) RETURNS text
LANGUAGE sql SET TimeZone = 'UTC' AS $$
	SELECT string_agg(concat_ws(' ', to_char(s.at, 'MM-DD'), s.kind, trim_scale(s.delta), s.churn_kind, s.reason), ', ' ORDER BY s.at, s.seq)
	FROM cs_internal.ledger_sweep(
		ARRAY(SELECT f FROM jsonb_populate_recordset(NULL::cs_internal.subscription_fact, facts::jsonb) f),
		ARRAY(SELECT c FROM jsonb_populate_recordset(NULL::cs_internal.cancellation_fact, cancellations::jsonb) c), false, pause, gap, back, recognition) s
$$;
\set gap '[{"start_at": "2026-01-01", "end_at": "2026-02-01", "mrr": 100}, {"start_at": "2026-02-04", "end_at": "2026-03-01", "mrr": 130}]'
SELECT is(app.sweep(:'gap'), '01-01 new 100, 02-01 churn -100, 02-04 reactivation 130, 03-01 churn -130', 'a gap is a churn');
SELECT is(app.sweep(:'gap', gap => 3), '01-01 new 100, 02-04 expansion 30, 03-01 churn -130', 'not when it is allowed');
SELECT is(app.sweep(:'gap', gap => 2), app.sweep(:'gap'), 'a day longer than allowed');
SELECT is(app.sweep('[{"start_at": "2026-01-01", "end_at": "2026-02-01", "mrr": 100}, {"start_at": "2026-02-04", "end_at": "2026-03-01", "mrr": 100}]', gap => 3), '01-01 new 100, 03-01 churn -100', 'the same money after an allowed gap is nothing');
SELECT is(app.sweep('[{"start_at": "2026-01-01", "end_at": "2026-02-01", "mrr": 100}, {"start_at": "2026-02-03", "end_at": "2026-02-03 12:00", "mrr": -5}, {"start_at": "2026-02-04", "mrr": 90}]', gap => 3), '01-01 new 100, 02-04 contraction -10', 'what happens inside an allowed gap is left out');
SELECT is(app.sweep('[{"start_at": "2026-01-01", "end_at": "2026-02-01", "mrr": 100}, {"start_at": "2026-01-15", "end_at": "2026-01-20", "mrr": 50}, {"start_at": "2026-01-22", "mrr": 50}]', gap => 3),
	'01-01 new 100, 01-15 expansion 50, 01-20 contraction -50, 01-22 expansion 50, 02-01 contraction -100', 'a gap of one row while another runs is none');
\set back '[{"start_at": "2026-01-01", "end_at": "2026-02-01", "mrr": 100}, {"start_at": "2026-03-01", "end_at": "2026-04-01", "mrr": 100}, {"start_at": "2026-04-11", "mrr": 100}]'
SELECT is(app.sweep(:'back', back => 28), '01-01 new 100, 02-01 churn -100, 03-01 reactivation 100, 04-01 churn -100, 04-11 reactivation 100', 'back within the days');
SELECT is(app.sweep(:'back', back => 27), '01-01 new 100, 02-01 churn -100, 03-01 new 100, 04-01 churn -100, 04-11 reactivation 100', 'back a day later is new');
SELECT is(app.sweep(:'back', back => 0), '01-01 new 100, 02-01 churn -100, 03-01 new 100, 04-01 churn -100, 04-11 new 100', 'no reactivation at all');

\set told '[{"start_at": "2026-01-01", "end_at": "2026-03-01", "mrr": 100, "status": "canceled", "cancel_requested_at": "2026-02-05", "changed_at": "2026-02-20"}]'
SELECT is(app.sweep(:'told'), '01-01 new 100, 03-01 churn -100 voluntary', 'recognised at the end of service');
SELECT is(app.sweep(:'told', recognition => 'cancel_request'), '01-01 new 100, 02-05 churn -100 voluntary', 'when it was asked for');
SELECT is(app.sweep(:'told', recognition => 'cancel_effective'), '01-01 new 100, 02-20 churn -100 voluntary', 'when billing cancelled');
SELECT results_eq(format($$SELECT service_end_at, cancel_requested_at, cancel_effective_at FROM cs_internal.ledger_sweep(
	ARRAY(SELECT f FROM jsonb_populate_recordset(NULL::cs_internal.subscription_fact, %L) f), recognition => %L) WHERE kind = 'churn'$$, :'told', r),
	$$VALUES (timestamptz '2026-03-01Z', timestamptz '2026-02-05Z', timestamptz '2026-02-20Z')$$, 'all three instants are kept, ' || r)
FROM unnest('{service_end,cancel_request,cancel_effective}'::text[]) r;
SELECT is(app.sweep('[{"start_at": "2026-01-01", "end_at": "2026-03-01", "mrr": 100}]', '[{"at": "2026-02-03", "churn_kind": "voluntary", "reason": "price"}]', recognition => 'cancel_request'),
	'01-01 new 100, 02-03 churn -100 voluntary price', 'a cancellation dates the churn, too');
SELECT is(app.sweep('[{"start_at": "2026-01-01", "mrr": 100}]', '[{"at": "2026-02-03"}]', recognition => 'cancel_request'), '01-01 new 100', 'but makes none');
SELECT is(app.sweep('[{"start_at": "2026-01-01", "end_at": "2026-03-01", "mrr": 100, "cancel_requested_at": "2026-02-05"}, {"start_at": "2026-03-01", "mrr": 120}]', recognition => 'cancel_request'),
	'01-01 new 100, 03-01 expansion 20', 'a row that goes on in another was no churn');
SELECT is(app.sweep('[{"start_at": "2026-01-01", "end_at": "2026-03-01", "mrr": 100, "cancel_requested_at": "2026-02-05"}, {"start_at": "2026-02-10", "end_at": "2026-03-01", "mrr": 20, "cancel_requested_at": "2026-02-15"}, {"start_at": "2026-02-12", "end_at": "2026-02-20", "mrr": 3}]', recognition => 'cancel_request'),
	'01-01 new 100, 02-10 expansion 20, 02-12 expansion 3, 02-15 churn -123 voluntary', 'the last request counts, and all that ran then goes');
SELECT is(app.sweep('[{"start_at": "2026-01-01", "end_at": "2026-03-01", "mrr": 100, "cancel_requested_at": "2026-02-05"}, {"start_at": "2026-02-10", "end_at": "2026-03-01", "mrr": 20}]', recognition => 'cancel_request'),
	'01-01 new 100, 02-10 expansion 20, 03-01 churn -120 voluntary', 'who did not ask for all of it is there until the end');
SELECT is(app.sweep('[{"start_at": "2026-01-01", "end_at": "2026-03-01", "mrr": 100, "cancel_requested_at": "2025-12-05"}]', recognition => 'cancel_request'), '01-01 new 100, 03-01 churn -100 voluntary', 'not before the customer came');
SELECT is(app.sweep('[{"start_at": "2026-01-01", "end_at": "2026-03-01", "mrr": 100, "cancel_requested_at": "2026-02-05"}, {"start_at": "2026-04-01", "mrr": 100}]', recognition => 'cancel_request', back => 40),
	'01-01 new 100, 02-05 churn -100 voluntary, 04-01 new 100', 'the window of a return begins where the churn counts');

-- a move to a longer term
SELECT results_eq($$SELECT kind COLLATE "default", delta, term_extension FROM cs_internal.ledger_sweep(ARRAY(SELECT f FROM jsonb_populate_recordset(NULL::cs_internal.subscription_fact,
	'[{"start_at": "2026-01-01", "end_at": "2026-02-01", "mrr": 100, "term_months": 1}, {"start_at": "2026-02-01", "end_at": "2027-02-01", "mrr": 80, "term_months": 12},
	{"start_at": "2027-02-01", "mrr": 70, "term_months": 12}]') f))$$,
	$$VALUES ('new', 100.000000, false), ('contraction', -20.000000, true), ('contraction', -10.000000, false)$$, 'a drop with a longer term is told apart');

-- ---- grace ---------------------------------------------------------------------------
INSERT INTO app.sub (id, customer_id, start_at, end_at, mrr, status, changed_at, seats) VALUES
	('a', 'due1', '2026-01-01Z', NULL, 100, 'past_due', NULL, 4), ('b', 'due2', '2026-01-01Z', NULL, 100, 'past_due', '2026-05-20Z', 4), ('c', 'due3', '2026-01-01Z', NULL, 100, 'past_due', NULL, 4),
	('d', 'due4', '2026-01-01Z', '2026-04-05Z', 100, 'past_due', NULL, 4), ('e', 'due5', '2026-01-01Z', NULL, 100, 'active', NULL, 4), ('f', 'due6', '2026-03-05Z', NULL, 100, 'past_due', NULL, 4);
INSERT INTO app.invoice VALUES
	('due1', '2026-03-10Z', '2026-03-15Z', 100), ('due1', '2026-04-10Z', NULL, 100), ('due1', '2026-04-08Z', NULL, -20), ('due1', '2026-05-10Z', NULL, 100),
	('due4', '2026-04-01Z', NULL, 100), ('due5', '2026-02-01Z', NULL, 100), ('due6', '2026-02-01Z', NULL, 100);
CALL cs.refresh();
SELECT is(app.ledger('due1'), '01-01 new 100, 05-10 churn -100 involuntary', 'grace_days after the first unpaid invoice was due');
SELECT is(app.ledger('due2'), '01-01 new 100, 06-19 churn -100 involuntary', 'without an invoice, after it became past due');
SELECT is(app.ledger('due3'), '01-01 new 100', 'without either it counts');
SELECT is(app.ledger('due4'), '01-01 new 100, 04-05 churn -100 involuntary', 'nothing is made longer');
SELECT is(app.ledger('due5'), '01-01 new 100', 'an active row does not mind invoices');
SELECT is(app.ledger('due6'), '03-05 new 100', 'nor do invoices from before the row');
SELECT results_eq($$SELECT customer_id COLLATE "default", seats FROM cs_internal.state WHERE customer_id IN ('due1', 'due2') ORDER BY 1$$, $$VALUES ('due1', NULL::numeric), ('due2', 4)$$, 'seats count while the grace lasts');
UPDATE app.invoice SET paid_at = '2026-06-01Z' WHERE customer_id = 'due1';
UPDATE app.sub SET status = 'active' WHERE customer_id = 'due1';
CALL cs.refresh();
SELECT is(app.ledger('due1'), '01-01 new 100', 'paid: the churn is taken back');
INSERT INTO app.invoice VALUES ('due3', '2026-02-01Z', NULL, 100);
CALL cs.refresh();
SELECT is(app.ledger('due3'), '01-01 new 100, 03-03 churn -100 involuntary', 'an invoice that comes late is enough');
UPDATE cs.policy SET grace_days = 10;
CALL cs.refresh();
SELECT is(app.ledger('due3'), '01-01 new 100, 02-11 churn -100 involuntary', 'with other grace_days the ledger is made anew');
UPDATE cs.policy SET grace_days = 30;

-- a refund is money that went back, not a price
CREATE TABLE app.before AS SELECT * FROM cs.movement WHERE customer_id = 'due5';
INSERT INTO app.invoice VALUES ('due5', '2026-03-01Z', NULL, -100), ('due5', '2026-03-01Z', '2026-03-02Z', -1200);
CALL cs.refresh();
SELECT set_eq('SELECT * FROM cs.movement WHERE customer_id = ''due5''', 'SELECT * FROM app.before', 'refunds change nothing');
TRUNCATE app.sub, app.invoice;
CALL cs.refresh();

-- ---- a gap filled later takes its churn back -------------------------------------------
UPDATE cs.policy SET gap_days_money = 5;
INSERT INTO app.sub (id, customer_id, start_at, end_at, mrr) VALUES ('a', 'late', '2026-01-01Z', '2026-02-01Z', 100);
CALL cs.refresh();
SELECT is(app.ledger('late'), '01-01 new 100, 02-01 churn -100', 'the end is known, so the churn stands');
INSERT INTO app.sub (id, customer_id, start_at, end_at, mrr) VALUES ('b', 'late', '2026-02-05Z', NULL, 60);
CALL cs.refresh();
SELECT is(app.ledger('late'), '01-01 new 100, 02-05 contraction -40', 'a late row retracts it');
SELECT set_eq('SELECT customer_id, at, seq, kind, delta, sum(amount) FROM cs.movement_detail GROUP BY 1, 2, 3, 4, 5', 'SELECT customer_id, at, seq, kind, delta, delta AS sum FROM cs.movement', 'the rows behind each movement add up to it: gaps');
UPDATE app.sub SET start_at = '2026-02-08Z' WHERE id = 'b';
CALL cs.refresh();
SELECT is(app.ledger('late'), '01-01 new 100, 02-01 churn -100, 02-08 reactivation 60', 'a correction brings it back');
UPDATE cs.policy SET gap_days_money = 0, recognition = 'cancel_request', reactivation_days = 3;
UPDATE app.sub SET cancel_requested_at = '2026-01-20Z' WHERE id = 'a';
CALL cs.refresh();
SELECT is(app.ledger('late'), '01-01 new 100, 01-20 churn -100 voluntary, 02-08 new 60', 'each switch makes the ledger anew');
SELECT set_eq('SELECT customer_id, at, seq, kind, delta, sum(amount) FROM cs.movement_detail GROUP BY 1, 2, 3, 4, 5', 'SELECT customer_id, at, seq, kind, delta, delta AS sum FROM cs.movement', 'the rows behind each movement add up to it: recognition');
UPDATE cs.policy SET recognition = 'service_end', reactivation_days = NULL;
TRUNCATE app.sub;
CALL cs.refresh();

-- ---- merges --------------------------------------------------------------------------------
INSERT INTO app.sub (id, customer_id, start_at, end_at, mrr, status, seats) VALUES
	('a', 'old', '2026-01-01Z', '2026-05-01Z', 100, NULL, 3), ('b', 'new', '2026-02-01Z', NULL, 10, NULL, 2), ('a2', 'old', '2026-04-10Z', NULL, 5, NULL, 1),
	-- consolidated at the same instant
	('c', 'left', '2026-01-01Z', '2026-03-01Z', 40, NULL, 0), ('d', 'right', '2026-01-01Z', '2026-03-01Z', 60, NULL, 0), ('e', 'right', '2026-03-01Z', NULL, 90, NULL, 0),
	-- one after the other, and into one who has never been
	('f', 'one', '2026-01-01Z', NULL, 1, NULL, 0), ('g', 'two', '2026-01-01Z', NULL, 2, NULL, 0),
	-- who had left before, and who paused
	('h', 'gone', '2026-01-01Z', '2026-02-01Z', 7, NULL, 0), ('i', 'heir', '2026-04-01Z', NULL, 9, NULL, 0),
	('j', 'rest', '2026-01-01Z', '2026-02-01Z', 8, NULL, 0), ('k', 'rest', '2026-02-01Z', NULL, 8, 'paused', 0);
INSERT INTO app.merged VALUES ('old', 'new', '2026-03-15Z'), ('left', 'right', '2026-03-01Z'), ('one', 'two', '2026-02-01Z'), ('two', 'three', '2026-03-01Z'),
	('gone', 'heir', '2026-03-01Z'), ('rest', 'guest', '2026-03-01Z');
CALL cs.refresh();
SELECT is(app.ledger('old'), '01-01 new 100, 03-15 merge_out -100 merged', 'who is merged goes, and is no churn');
SELECT is(app.ledger('new'), '02-01 new 10, 03-15 merge_in 100, 04-10 expansion 5, 05-01 contraction -100', 'what was his counts there from then on');
SELECT is(app.ledger('left'), '01-01 new 40, 03-01 merge_out -40 merged', 'a row that ends at the merge');
SELECT is(app.ledger('right'), '01-01 new 60, 03-01 merge_in 40, 03-01 contraction -10', 'comes over first, then the rest is netted');
SELECT is(app.ledger('one') || '; ' || app.ledger('two') || '; ' || app.ledger('three'),
	'01-01 new 1, 02-01 merge_out -1 merged; 01-01 new 2, 02-01 merge_in 1, 03-01 merge_out -3 merged; 03-01 merge_in 3', 'one merge after another');
SELECT is(app.ledger('gone') || '; ' || app.ledger('heir'), '01-01 new 7, 02-01 churn -7; 04-01 reactivation 9', 'who had left before comes back with the heir');
SELECT is(app.ledger('rest') || '; ' || app.ledger('guest'), '01-01 new 8, 02-01 pause -8, 03-01 merge_out 0 merged; 03-01 merge_in 0', 'a pause goes over as it is');
SELECT results_eq($$SELECT customer_id COLLATE "default", mrr, active, seats FROM cs_internal.state WHERE customer_id IN ('new', 'old') ORDER BY 1$$,
	$$VALUES ('new', 15.000000::numeric(20,6), true, 3::numeric), ('old', 0.000000, false, NULL)$$, 'the state of both');
SELECT results_eq($$SELECT sum(delta) FILTER (WHERE kind = 'merge_in') + sum(delta) FILTER (WHERE kind = 'merge_out') FROM cs.movement$$, 'VALUES (0.000000)', 'what goes comes');
SELECT results_eq($$SELECT merge_in, merge_out, churn_mrr, new_mrr FROM cs.revenue('2026-03')$$, 'VALUES (143.000000, 143.000000, 0.000000, 0.000000)', 'revenue shows merges apart');
SELECT results_eq($$SELECT numerator, denominator FROM cs.churn('2026-03')$$, 'VALUES (0::numeric, 6::numeric)', 'a merge is neither churn nor new');
SELECT is_empty('SELECT * FROM app.rolls()', 'balances roll forward');

SELECT set_eq('SELECT customer_id, at, seq, kind, delta, sum(amount) FROM cs.movement_detail GROUP BY 1, 2, 3, 4, 5', 'SELECT customer_id, at, seq, kind, delta, delta AS sum FROM cs.movement', 'the rows behind each movement add up to it: merges');
SELECT results_eq($$SELECT kind COLLATE "default", amount, subscription_id, fact_customer_id COLLATE "default" FROM cs.movement_detail WHERE customer_id = 'new' ORDER BY at, seq$$,
	$$VALUES ('new', 10.000000, 'b', 'new'), ('merge_in', 100, 'a', 'old'), ('expansion', 5, 'a2', 'old'), ('contraction', -100, 'a', 'old')$$, 'rows of a merged customer say whose they are');
-- facts that change after the merge are followed to whom they count for
UPDATE app.sub SET mrr = 6 WHERE id = 'a2';
CALL cs.refresh();
SELECT is(app.ledger('new'), '02-01 new 10, 03-15 merge_in 100, 04-10 expansion 6, 05-01 contraction -100', 'a changed row of the old id');
UPDATE app.merged SET at = '2026-04-20Z' WHERE old_id = 'old';
CALL cs.refresh();
SELECT is(app.ledger('old') || '; ' || app.ledger('new'), '01-01 new 100, 04-10 expansion 6, 04-20 merge_out -106 merged; 02-01 new 10, 04-20 merge_in 106, 05-01 contraction -100', 'a merge moved');
UPDATE app.merged SET new_id = 'heir' WHERE old_id = 'old';
CALL cs.refresh();
SELECT is(app.ledger('new') || '; ' || app.ledger('heir'), '02-01 new 10; 04-01 reactivation 9, 04-20 merge_in 106, 05-01 contraction -100', 'and into another');
DELETE FROM app.merged WHERE old_id = 'old';
CALL cs.refresh();
SELECT is(app.ledger('old') || '; ' || app.ledger('heir'), '01-01 new 100, 04-10 expansion 6, 05-01 contraction -100; 04-01 reactivation 9', 'and taken back');
-- a circle, a merge into itself, two merges of one customer
INSERT INTO app.merged VALUES ('old', 'new', '2026-03-15Z'), ('new', 'old', '2026-03-15Z'), ('old', 'old', '2026-03-01Z'), ('old', 'heir', '2026-03-20Z');
CALL cs.refresh();
SELECT is(app.ledger('new') || '; ' || app.ledger('old') || '; ' || app.ledger('heir'),
	'02-01 new 10, 03-15 merge_out -10 merged; 01-01 new 100, 03-15 merge_in 10, 03-20 merge_out -110 merged; 03-20 merge_in 110, 04-01 expansion 9, 04-10 expansion 6, 05-01 contraction -100',
	'of a circle at one instant one half counts');
SELECT results_eq($$SELECT customer_id COLLATE "default", mrr, seats FROM cs_internal.state WHERE customer_id IN ('new', 'old', 'heir') ORDER BY 1$$,
	$$VALUES ('heir', 25.000000, 3::numeric), ('new', 0, NULL), ('old', 0, NULL)$$, 'seats follow the same merges as money');
SELECT is_empty('SELECT * FROM app.rolls()', 'and balances roll forward');
CREATE TABLE app.kept AS SELECT * FROM cs.movement;
CALL cs.rebuild();
SELECT set_eq('SELECT * FROM cs.movement', 'SELECT * FROM app.kept', 'a rebuild says the same of merges');
SELECT cs.drop_source('merged') \g /dev/null
CALL cs.refresh();
SELECT is(app.ledger('left') || '; ' || app.ledger('right'), '01-01 new 40, 03-01 churn -40; 01-01 new 60, 03-01 expansion 30', 'without the source of merges there are none');

-- ---- a row cut in two says nothing at the cut ----------------------------------------------------
INSERT INTO app.sub (id, customer_id, start_at, end_at, mrr, currency, status, reason) VALUES
	('free', 'cut', '2026-01-01Z', '2026-03-01Z', 0, NULL, NULL, 'gone'), ('free', 'cut', '2026-03-01Z', '2026-05-01Z', 0, NULL, NULL, 'gone'),
	('paid', 'cut', '2026-01-01Z', '2026-03-01Z', 30, NULL, NULL, 'price'),
	('usd1', 'rate', '2026-01-10Z', '2026-04-10Z', 100, 'USD', NULL, NULL), ('usd2', 'rate', '2026-03-10Z', '2026-04-10Z', 50, 'USD', NULL, NULL), ('usd2', 'rate', '2026-04-10Z', NULL, 50, 'USD', NULL, NULL),
	('credit', 'owed', '2026-01-01Z', '2026-04-01Z', -5, NULL, NULL, NULL), ('hold', 'owed', '2026-01-01Z', '2026-04-01Z', 20, NULL, 'paused', NULL);
CALL cs.refresh();
SELECT is(app.ledger('cut'), '01-01 new 30, 03-01 churn -30 price', 'what goes on does not explain a churn');
SELECT is(app.ledger('rate'), '01-10 new 90, 03-10 expansion 40, 04-10 contraction -90', 'nor has it a rate to move');
SELECT is(app.ledger('owed'), '01-01 pause -5, 04-01 expansion 5, 04-01 churn 0', 'a customer on hold to whom money is owed leaves without any');

-- ---- licences ----------------------------------------------------------------------------------
SELECT count(*) FROM cs.add_source('licence', 'licence', 'app.licence', '{"customer_id": "customer_id", "seats": "seats", "start_at": "start_at", "end_at": "end_at"}') \g /dev/null
INSERT INTO app.licence VALUES ('new', 20, '2026-01-01Z', NULL), ('new', 5, '2026-06-15 12:00Z', NULL), ('new', 7, '2026-01-01Z', '2026-06-15 12:00Z'), ('new', 9, '2026-01-01Z', '2026-06-15 11:59Z'), ('old', -1, '2026-01-01Z', NULL);
CALL cs.refresh();
SELECT results_eq($$SELECT customer_id COLLATE "default", seats FROM cs_internal.state WHERE customer_id IN ('new', 'right') ORDER BY 1$$, $$VALUES ('new', 27::numeric), ('right', 0)$$, 'seats are those of the licences just before the instant');
SELECT results_eq($$SELECT reason, row_count FROM cs_internal.unusable WHERE source = 'licence'$$, $$VALUES ('seats is negative', 1::bigint)$$, 'a licence that cannot be used is counted');
SELECT * FROM finish();
