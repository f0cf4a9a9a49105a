-- Product, term, seats, ends of terms and renewals: read from the versions of rows that
-- are overwritten in place, and for whom the rows of merged customers count.
SET client_min_messages = warning;
SET cs_ext.now = '2024-01-15 00:00Z';
SELECT * FROM no_plan();
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL) \g /dev/null
CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO cs_ext_run;
CREATE TABLE app.now_sub (id text PRIMARY KEY, c text, s timestamptz, e timestamptz, mrr numeric, seats integer, product text, months integer, status text, changed_at timestamptz);
CREATE TABLE app.sub (id serial, c text, s timestamptz, e timestamptz, mrr numeric, seats integer, product text, months integer);
CREATE TABLE app.merge (f text, i text, at timestamptz);
SELECT count(*) FROM cs.add_source('now_sub', 'subscription', 'app.now_sub', '{"customer_id": "c", "subscription_id": "id", "start_at": "s", "end_at": "e", "mrr": "mrr", "seats": "seats", "product": "product", "term_months": "months", "status": "status", "changed_at": "changed_at"}', terms => 'current') \g /dev/null
SELECT count(*) FROM cs.add_source('sub', 'subscription', 'app.sub', '{"customer_id": "c", "subscription_id": "id", "start_at": "s", "end_at": "e", "mrr": "mrr", "seats": "seats", "product": "product", "term_months": "months"}') \g /dev/null
SELECT count(*) FROM cs.add_source('merge', 'customer_merge', 'app.merge', '{"from_customer_id": "f", "into_customer_id": "i", "at": "at"}') \g /dev/null
INSERT INTO cs.dimension (name, attribute) VALUES ('product', 'product'), ('term', 'term_months');
CREATE FUNCTION app.product(c text, at timestamptz) RETURNS text LANGUAGE sql AS $$ SELECT segment FROM cs_internal.segment_at('product', at, 'restated') WHERE customer_id = c $$;

-- ---- versions ------------------------------------------------------------------------
INSERT INTO app.now_sub VALUES ('a', 'up', '2024-01-01Z', NULL, 10, 2, 'basic', NULL, 'active', '2024-01-01Z'), ('b', 'gone', '2024-01-01Z', NULL, 10, 1, 'basic', NULL, 'active', '2024-01-01Z'),
	('d', 'quarterly', '2024-01-01Z', NULL, 10, 1, 'basic', 3, 'active', '2024-01-01Z'), ('e', 'paused', '2024-01-01Z', NULL, 7, 4, 'basic', NULL, 'active', '2024-01-01Z');
CALL cs.refresh();
SET cs_ext.now = '2024-03-15 00:00Z';
UPDATE app.now_sub SET product = 'pro', mrr = 30, seats = 5, changed_at = '2024-03-10Z' WHERE id = 'a';
UPDATE app.now_sub SET status = 'paused', changed_at = '2024-03-12Z' WHERE id = 'e';
CALL cs.refresh();
SET cs_ext.now = '2024-08-15 00:00Z';
UPDATE app.now_sub SET status = 'canceled', changed_at = '2024-04-10Z' WHERE id = 'b';
UPDATE app.now_sub SET mrr = 50, changed_at = '2024-05-10Z' WHERE id = 'd';
CALL cs.refresh();
SELECT is(ARRAY[app.product('up', '2024-03-01'), app.product('up', '2024-04-01')], '{basic,pro}', 'a product is that of the version of then');
SELECT results_eq($$ SELECT segment, transfer_in, transfer_out FROM cs.churn_by('2024-03', 'product') WHERE transfer_in + transfer_out > 0 ORDER BY 1 $$, $$ VALUES ('(none)', 1::numeric, 0::numeric), ('basic', 0, 2), ('pro', 1, 0) $$, 'who went over to another one is a transfer');
SELECT results_eq($$ SELECT m, denominator, numerator FROM unnest(ARRAY['2024-02', '2024-03', '2024-04', '2024-05']) m, cs.churn(m, NULL, 'event_over_start', 'seats') $$,
	$$ VALUES ('2024-02', 8::numeric, 0::numeric), ('2024-03', 8, 4), ('2024-04', 7, 1), ('2024-05', 6, 0) $$, 'seats are those of the version of then');
SELECT results_eq($$ SELECT m, numerator, denominator FROM unnest(ARRAY['2024-03', '2024-04']) m, cs.churn(m, NULL, 'eligible_base') $$, $$ VALUES ('2024-03', 0::numeric, 1::numeric), ('2024-04', 1, 2) $$,
	'a change ends no term, a pause and a cancellation do; the quarterly one comes to its own');
SELECT results_eq($$ SELECT customer_id, due_at::date, target_mrr, renewed_mrr FROM cs.renewals('2024') WHERE due_at < '2024-08-01' AND customer_id = 'quarterly' ORDER BY 2 $$, $$ VALUES
	('quarterly', date '2024-04-01', 10::numeric, 10::numeric), ('quarterly', '2024-07-01', 50, 50) $$, 'what was due is what the version of then paid, on the grid of the row''s own start');
SELECT is_empty($$ SELECT * FROM cs.check('2024-01-01') $$, 'the invariants hold');

-- ---- merged customers -------------------------------------------------------------------
INSERT INTO app.sub (c, s, e, mrr, seats, product, months) VALUES ('old', '2024-01-01Z', NULL, 100, 3, 'gold', 1), ('new', '2024-01-01Z', NULL, 20, 1, 'tin', 12),
	('late', '2024-01-01Z', '2024-06-09Z', 40, 1, 'gold', NULL), ('heir', '2024-01-01Z', NULL, 5, 1, 'tin', NULL), ('heir', '2024-06-12Z', NULL, 45, 1, 'gold', NULL);
INSERT INTO app.merge VALUES ('old', 'new', '2024-03-10Z'), ('late', 'heir', '2024-06-10Z');
CALL cs.refresh();
SELECT is(ARRAY[app.product('new', '2024-03-01'), app.product('new', '2024-04-01'), app.product('old', '2024-03-01'), app.product('old', '2024-04-01')], '{tin,gold,gold,NULL}',
	'the product of who came over is that of the new customer from then on');
SELECT results_eq($$ SELECT customer_id COLLATE "default", segment COLLATE "default" FROM cs.customer_segment WHERE dimension = 'product' AND customer_id IN ('old', 'new', 'late', 'heir') ORDER BY 1 $$, $$ VALUES ('heir', 'gold'), ('new', 'gold') $$, 'as refresh stores it');
SELECT cs.refresh_customer('new') \g /dev/null
SELECT is((SELECT segment FROM cs.customer_segment WHERE customer_id = 'new' AND dimension = 'product'), 'gold', 'refresh_customer reads the rows of both');
SELECT results_eq($$ SELECT customer_id, due_at::date, target_mrr, status FROM cs.renewals('2024') WHERE customer_id IN ('old', 'new') AND due_at < '2024-05-01' ORDER BY 2, 1 $$, $$ VALUES
	('old', date '2024-02-01', 100::numeric, 'renewed'), ('old', '2024-03-01', 100, 'renewed'), ('new', '2024-04-01', 100, 'renewed') $$, 'a term is due for whom its row counts then');
SELECT results_eq($$ SELECT customer_id, due_at::date, status, renewed_mrr FROM cs.renewals('2024-06') WHERE customer_id IN ('late', 'heir') $$, $$ VALUES ('late', date '2024-06-09', 'renewed', 45::numeric) $$, 'what follows under the new customer renews what ended under the old one');
SELECT is_empty($$ SELECT * FROM cs.check('2024-01-01') $$, 'the invariants hold with them');
SELECT * FROM finish();
