-- Segments of the past, restated by the rules of today: value tiers from the ledger
-- alone and from the stages, attributes, what was assigned by hand; beside stored.
BEGIN;
SELECT no_plan();
CREATE ROLE regress_restated_run NOLOGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL search_path = public;
INSERT INTO cs.policy (run_as, time_zone, currency) VALUES ('regress_restated_run', 'UTC', 'EUR');
CREATE TABLE cust (c text, name text, owner text, attributes jsonb, since timestamptz);
CREATE TABLE sub (c text, s timestamptz, e timestamptz, mrr numeric, seats numeric);
SELECT count(*) FROM cs.add_source('cust', 'customer', 'cust', '{"customer_id": "c", "name": "name", "owner": "owner", "attributes": "attributes", "created_at": "since"}') \g /dev/null
SELECT count(*) FROM cs.add_source('sub', 'subscription', 'sub', '{"customer_id": "c", "start_at": "s", "end_at": "e", "mrr": "mrr", "seats": "seats"}') \g /dev/null
INSERT INTO cs.metric (name, source, expression) VALUES ('mrr', 'ledger', 'mrr'), ('tenure_days', 'ledger', 'tenure_days');
INSERT INTO cs.dimension (name, fallback) VALUES ('tier', 'small'), ('touch', 'tech'), ('age', NULL), ('whose', 'nobody');
INSERT INTO cs.dimension (name, attribute) VALUES ('channel', 'channel');
INSERT INTO cs.segment (dimension, name, rule, priority) VALUES ('tier', 'big', 'mrr >= 100', 1), ('tier', 'mid', 'mrr >= 20', 2),
	('touch', 'high', 'tier = ''big''', 1), ('age', 'old', 'tenure_days >= 60', 1), ('age', 'young', 'active', 2), ('whose', 'ann', 'owner = ''ann''', 1);
INSERT INTO cust VALUES ('a', 'A', 'ann', '{"channel": "web"}', '2024-01-01'), ('b', 'B', 'bob', '{"channel": "web"}', '2024-01-01'), ('d', 'D', 'ann', '{"channel": "partner"}', '2024-01-01'), ('n', 'N', 'ann', '{}', '2024-03-10');
INSERT INTO sub VALUES ('a', '2024-01-01', '2024-02-10', 150, 5), ('a', '2024-02-10', NULL, 30, 5), ('b', '2024-01-05', '2024-03-15', 30, 2), ('d', '2024-01-01', NULL, 10, 1), ('n', '2024-03-10', NULL, 500, 9);
SET LOCAL cs_ext.now = '2024-04-15 12:00+00';
CALL cs.refresh(commit => false);

SELECT results_eq($$ SELECT segment, numerator, denominator, transfer_in, transfer_out, segment_basis, current_attributes FROM cs.churn_by('2024-02', 'tier') $$,
	$$ VALUES ('big', 0::numeric, 1::numeric, 0::numeric, 1::numeric, 'restated', false), ('mid', 0, 1, 1, 0, 'restated', false), ('small', 0, 1, 0, 0, 'restated', false), ('(none)', 0, 0, 0, 0, 'restated', false), ('(total)', 0, 3, 0, 0, 'restated', false) $$,
	'value tiers of a month before anything was stored');
SELECT results_eq($$ SELECT segment, numerator, denominator, transfer_in, transfer_out FROM cs.churn_by('2024-03', 'tier', unit => 'gross_mrr') $$,
	$$ VALUES ('big', 0::numeric, 0::numeric, 500::numeric, 0::numeric), ('mid', 30, 60, 0, 0), ('small', 0, 10, 0, 0), ('(none)', 0, 0, 0, 500), ('(total)', 30, 70, 0, 0) $$, 'who was no customer at the start comes from (none)');
SELECT results_eq($$ SELECT segment, denominator, numerator FROM cs.churn_by('2024-03', 'touch') WHERE denominator > 0 $$, $$ VALUES ('tech', 3::numeric, 1::numeric), ('(total)', 3, 1) $$, 'a dimension over another one');
SELECT results_eq($$ SELECT segment, denominator, current_attributes FROM cs.churn_by('2024-03', 'age') $$, $$ VALUES ('old', 2::numeric, false), ('young', 1, false), ('(none)', 0, false), ('(total)', 3, false) $$, 'a dimension that asks for a metric goes through the stages');
SELECT results_eq($$ SELECT segment, denominator, numerator, current_attributes FROM cs.churn_by('2024-03', 'channel') $$, $$ VALUES ('partner', 1::numeric, 0::numeric, true), ('web', 2, 1, true), ('(none)', 0, 0, true), ('(total)', 3, 1, true) $$, 'an attribute of today stands in for the past, and the result says so');
SELECT results_eq($$ SELECT segment, denominator, current_attributes FROM cs.churn_by('2024-03', 'whose') WHERE denominator > 0 $$, $$ VALUES ('ann', 2::numeric, true), ('nobody', 1, true), ('(total)', 3, true) $$, 'and so does the owner in a rule');
SELECT results_eq($$ SELECT denominator, current_attributes, segment_basis FROM cs.churn('2024-03') $$, $$ VALUES (3::numeric, NULL::boolean, NULL::text) $$, 'without a segment there is no basis');

-- the two ways agree, and with evaluated_at
INSERT INTO sub SELECT 'r' || g, timestamptz '2024-01-01' + make_interval(days => g % 80), CASE WHEN g % 3 = 0 THEN timestamptz '2024-02-20' + make_interval(days => g % 40) END, g * 3, 1 FROM generate_series(1, 60) g;
CALL cs.refresh(commit => false);
SELECT bag_eq(format($$ SELECT customer_id::text, segment::text FROM cs_internal.segments_restated('%1$s', '2024-03-05') WHERE customer_id IN (SELECT customer_id FROM cs_internal.movement WHERE at <= '2024-03-05') $$, d),
	format($$ SELECT customer_id::text, segments ->> '%1$s' FROM cs_internal.evaluated_at(NULL, '2024-03-05') WHERE segments ? '%1$s' AND customer_id IN (SELECT customer_id FROM cs_internal.movement WHERE at <= '2024-03-05') $$, d),
	d || ': as the stages of evaluate have it at that instant') FROM unnest(ARRAY['tier', 'touch', 'age', 'channel', 'whose']) d;
SELECT is(ARRAY(SELECT cs_internal.ledger_knows(d) FROM unnest(ARRAY['tier', 'touch', 'age', 'whose']) d), '{t,t,f,t}', 'which of them the ledger knows by itself');
UPDATE cs.metric SET expression = 'mrr * 2' WHERE name = 'mrr';
SELECT is(cs_internal.ledger_knows('tier'), false, 'a metric that is no longer the column goes through the stages');
UPDATE cs.metric SET expression = 'mrr' WHERE name = 'mrr';
SELECT is_empty($$ SELECT c.segment FROM cs.churn_by('2024-03', 'age') c, cs.churn('2024-03', 'age:' || c.segment) x WHERE c.segment <> '(total)' AND (c.numerator, c.denominator) IS DISTINCT FROM (x.numerator, x.denominator) $$, 'a part is churn of its segment');
SELECT is_empty($$ SELECT s FROM unnest(ARRAY['tier', 'age', 'channel']) s, unnest(ARRAY['logo', 'gross_mrr', 'seats']) u,
		LATERAL (SELECT sum(numerator) FILTER (WHERE segment <> '(total)') - max(numerator) FILTER (WHERE segment = '(total)') AS k, sum(denominator) FILTER (WHERE segment <> '(total)') - max(denominator) FILTER (WHERE segment = '(total)') AS n, sum(transfer_in - transfer_out) AS t
			FROM cs.churn_by('2024-03', s, unit => u)) x WHERE k <> 0 OR n <> 0 OR t <> 0 $$, 'parts add up');
SELECT is_empty($$ SELECT a.segment FROM cs.churn_by('2024-02', 'tier', unit => 'gross_mrr') a JOIN cs.churn_by('2024-03', 'tier', unit => 'gross_mrr') z USING (segment), cs.revenue('2024-02', 'tier:' || a.segment) r
	WHERE a.segment <> '(total)' AND r.mrr_end <> z.denominator $$, 'a segment closes where it opens next');
SELECT is((SELECT sum(cs.mrr('2024-03-01', 'tier:' || s)) FROM unnest(ARRAY['big', 'mid', 'small', '(none)']) s), cs.mrr('2024-03-01'), 'mrr() of the segments too');
SELECT results_eq($$ SELECT day, denominator, segment_basis FROM cs.churn_series('2024-01-01', '2024-04-01', segment => 'tier:big') $$, $$ SELECT m::date, (SELECT denominator FROM cs.churn(to_char(m, 'YYYY-MM'), 'tier:big')), 'restated' FROM generate_series(timestamp '2024-01-01', '2024-03-01', '1 month') m $$, 'in a series the segment is that of each start');

-- product, term and owner: one row makes each a dimension
ALTER TABLE sub ADD p text, ADD t integer;
UPDATE sub SET p = CASE WHEN c = 'a' AND e IS NULL THEN 'plus' WHEN c IN ('a', 'd') THEN 'basic' WHEN c = 'n' THEN 'pro' END, t = CASE c WHEN 'n' THEN 12 ELSE 1 END;
INSERT INTO sub (c, s, mrr, seats, p, t) VALUES ('d', '2024-02-15', 40, 1, 'pro', 12);
SELECT cs.drop_source('sub') \g /dev/null
SELECT count(*) FROM cs.add_source('sub', 'subscription', 'sub', '{"customer_id": "c", "start_at": "s", "end_at": "e", "mrr": "mrr", "seats": "seats", "product": "p", "term_months": "t"}') \g /dev/null
INSERT INTO cs.dimension (name, attribute) VALUES ('product', 'product'), ('term', 'term_months'), ('account_owner', 'owner');
CALL cs.refresh(commit => false);
SELECT results_eq($$ SELECT dimension, segment FROM cs.customer_segment WHERE customer_id = 'd' AND dimension IN ('product', 'term', 'account_owner') ORDER BY 1 $$,
	$$ VALUES ('account_owner', 'ann'), ('product', 'pro'), ('term', '12') $$, 'owner, and product and term of the largest subscription');
SELECT results_eq($$ SELECT m, ARRAY(SELECT x.segment || ' ' || x.denominator FROM cs.churn_by(m, 'product') x WHERE x.segment <> '(none)') FROM unnest(ARRAY['2024-02', '2024-03']) m $$,
	$$ SELECT '2024-02', ARRAY['basic 2', 'plus 0', 'pro 0', '(total) ' || (SELECT denominator FROM cs.churn('2024-02'))] UNION ALL SELECT '2024-03', ARRAY['plus 1', 'pro 1', '(total) ' || (SELECT denominator FROM cs.churn('2024-03'))] $$, 'churn by product: the one of then');
SELECT results_eq($$ SELECT segment, transfer_in, transfer_out, current_attributes FROM cs.churn_by('2024-02', 'product') WHERE segment IN ('basic', 'plus', 'pro') $$,
	$$ VALUES ('basic', 0::numeric, 2::numeric, false), ('plus', 1, 0, false), ('pro', 1, 0, false) $$, 'who went over to another product is a transfer');
SELECT is((SELECT denominator FROM cs.churn('2024-02', 'product:basic')), 2::numeric, 'a product that nobody has now is a segment of then');
SELECT is_empty($$ SELECT d FROM unnest(ARRAY['product', 'term', 'account_owner', 'channel', 'tier', 'age']) d, cs.churn_by('2024-03', d) c GROUP BY d HAVING sum(numerator) FILTER (WHERE segment <> '(total)') <> max(numerator) FILTER (WHERE segment = '(total)') OR sum(denominator) FILTER (WHERE segment <> '(total)') <> max(denominator) FILTER (WHERE segment = '(total)') $$, 'every dimension adds up');
SELECT is_empty($$ SELECT d, c.segment, s.day FROM unnest(ARRAY['product', 'term', 'account_owner', 'channel', 'tier', 'age']) d, cs.churn_by('2024-03', d) c, cs.churn_series('2024-03-01', '2024-04-01', segment => d || ':' || c.segment) s
	WHERE c.segment <> '(total)' AND (s.numerator, s.denominator) IS DISTINCT FROM (c.numerator, c.denominator) $$, 'a series says the same of each segment of every dimension');
SELECT is_empty($$ SELECT s.dimension, s.segment, s.month FROM cs.churn_by_segment_monthly s, cs.churn_by(to_char(s.month, 'YYYY-MM'), s.dimension) c
	WHERE s.dimension IN ('account_owner', 'channel', 'tier') AND c.segment = s.segment AND (s.numerator, s.denominator) IS DISTINCT FROM (c.numerator, c.denominator) $$, 'and so do the months that are kept');
SELECT results_eq($$ SELECT s.dimension, kept, months > 0 FROM cs.summary_status() s WHERE s.dimension IN ('product', 'account_owner') ORDER BY 1 $$, $$ VALUES ('account_owner', true, true), ('product', false, false) $$, 'an owner''s are kept, products are read from the facts');
SELECT is_empty($$ SELECT d FROM unnest(ARRAY['product', 'term', 'account_owner']) d, cs.revenue_by('2024-03', d) r GROUP BY d HAVING sum(mrr_end) FILTER (WHERE segment <> '(total)') <> max(mrr_end) FILTER (WHERE segment = '(total)') $$, 'in revenue too');
UPDATE cust SET attributes = '{"product": "special"}' WHERE c = 'b';
CALL cs.refresh(commit => false);
SELECT results_eq($$ SELECT x.segment, current_attributes FROM cs.churn_by('2024-03', 'product') x WHERE denominator > 0 AND segment = 'special' $$, $$ VALUES ('special', true) $$, 'a key of the attributes goes before');
UPDATE cust SET attributes = '{"channel": "web"}' WHERE c = 'b';
CALL cs.refresh(commit => false);

-- by hand: a decision of its time
SELECT cs.assign_segment('d', 'tier', 'big', 'strategic') \g /dev/null
SET LOCAL cs_ext.now = '2024-05-20 12:00+00';
CALL cs.refresh(commit => false);
SELECT is(ARRAY(SELECT (SELECT segment FROM cs_internal.segment_at('tier', t, 'restated') WHERE customer_id = 'd') FROM unnest(ARRAY['2024-04-01', '2024-05-20 12:00']::timestamptz[]) t), '{mid,big}', 'an assignment counts from when it was made');
-- rules change: restated moves, stored stays
SELECT results_eq($$ SELECT denominator, segment_basis FROM cs.churn('2024-05', 'tier:mid') $$, $$ SELECT count(*)::numeric, 'restated' FROM cs_internal.segment_at('tier', '2024-05-01', 'restated') s JOIN cs_internal.segment_at('tier', '2024-05-01', 'stored') o USING (customer_id, segment), LATERAL (SELECT active_after FROM cs_internal.movement m WHERE m.customer_id = s.customer_id AND m.at < '2024-05-01' ORDER BY at DESC LIMIT 1) m WHERE segment = 'mid' AND active_after $$, 'while nothing changed both say the same');
UPDATE cs.segment SET rule = 'mrr >= 1' WHERE dimension = 'tier' AND name = 'mid';
SELECT is((SELECT denominator FROM cs.churn('2024-02', 'tier:small')), 0::numeric, 'restated follows the rule of today');
UPDATE cs.policy SET segment_basis = 'stored';
SELECT results_eq($$ SELECT segment_basis, current_attributes, denominator > 0 FROM cs.churn('2024-05', 'tier:small') $$, $$ VALUES ('stored', false, true) $$, 'stored does not');
SELECT results_eq($$ SELECT segment_basis, denominator FROM cs.churn_by('2024-02', 'tier') WHERE segment = '(none)' $$, $$ SELECT 'stored', denominator FROM cs.churn('2024-02') $$, 'and before the first refresh nobody is in a segment');
UPDATE cs.policy SET segment_basis = 'restated';

-- reading alone is enough, for the stages too, and nothing is left behind
CREATE TEMP TABLE before AS SELECT s.* FROM cs_internal.state s;
SET LOCAL transaction_read_only = on;
SELECT is((SELECT sum(denominator) FROM cs.churn_by('2024-03', 'age') WHERE segment <> '(total)'), (SELECT denominator FROM cs.churn('2024-03')), 'in a read-only transaction');
SELECT throws_ok('CREATE TABLE x ()', '25006', NULL, 'which is still one');
SELECT is_empty('SELECT s::text FROM cs_internal.state s EXCEPT SELECT b::text FROM before b', 'state is as it was');
SELECT * FROM finish();
ROLLBACK;
