-- Caps: a score is at most that while a rule holds; the explanation still adds
-- up, also of the past and under later definitions.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET cs_ext.now = '2026-03-02 12:00+01';
SELECT * FROM no_plan();

CREATE TABLE account (id text PRIMARY KEY, kind text);
CREATE TABLE contract (account_id text, start_at timestamptz, mrr numeric);
CREATE INDEX ON contract (account_id);
CREATE TABLE ticket (account_id text, id int, opened_at timestamptz, resolved_at timestamptz, escalated boolean);
CREATE INDEX ON ticket (account_id);
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL) \g /dev/null
SELECT count(*) FROM cs.add_source('account', 'customer', 'account', '{"customer_id": "id", "name": "kind"}') \g /dev/null
SELECT count(*) FROM cs.add_source('contract', 'subscription', 'contract', '{"customer_id": "account_id", "start_at": "start_at", "mrr": "mrr"}') \g /dev/null
SELECT count(*) FROM cs.add_source('ticket', 'ticket', 'ticket', '{"customer_id": "account_id", "ticket_id": "id", "opened_at": "opened_at", "resolved_at": "resolved_at", "escalated": "escalated"}') \g /dev/null
INSERT INTO cs.metric (name, source, expression) VALUES
	('escalations', 'ticket', 'count(*) FILTER (WHERE escalated AND resolved_at IS NULL)'), ('tickets', 'ticket', 'count(*)'), ('mrr', 'ledger', 'mrr');
INSERT INTO cs.dimension (name, fallback) VALUES ('size', 'small');
INSERT INTO cs.segment (dimension, name, rule) VALUES ('size', 'large', 'mrr >= 1000');
INSERT INTO cs.scorecard (name, hysteresis) VALUES ('card', 0);
INSERT INTO cs.measure (scorecard, name, metric, weight, worst, best) VALUES ('card', 'money', 'mrr', 2, 0, 3000), ('card', 'tickets', 'tickets', 1, 10, 0);
INSERT INTO cs.cap (scorecard, rule, at_most) VALUES
	('card', 'escalations > 0', 49), ('card', 'escalations > 1', 20.3), ('card', 'size = ''small''', 60), ('card', 'escalations / (mrr - 3000) > 0', 10);

INSERT INTO account VALUES ('a', 'Alpha'), ('b', 'Beta'), ('c', 'Gamma'), ('d', 'Delta');
INSERT INTO contract VALUES ('a', '2026-01-01', 2700), ('b', '2026-01-01', 2700), ('c', '2026-01-01', 900), ('d', '2026-01-01', 3000);
INSERT INTO ticket VALUES ('a', 1, '2026-02-01', NULL, true), ('a', 2, '2026-02-02', NULL, false),
	('b', 3, '2026-02-01', NULL, true), ('b', 4, '2026-02-02', NULL, true), ('d', 5, '2026-02-01', NULL, true);
CALL cs.refresh();

SELECT results_eq('SELECT customer_id COLLATE "default", round(health_score::numeric, 6), band, band_reason FROM cs.customer_health ORDER BY 1', $$VALUES
	('a', 49.0, 'red', 'at most 49 while escalations > 0'), ('b', 20.3, 'red', 'at most 20.3 while escalations > 1'),
	('c', 53.333333, 'yellow', 'money loses 46.7'), ('d', 49, 'red', 'at most 49 while escalations > 0')$$,
	'the lowest cap that holds counts; one above the score, one that is false or fails counts not');
SELECT results_eq($$SELECT key, status, customers, example FROM cs_internal.definition_status$$,
	$$VALUES ('card/escalations / (mrr - 3000) > 0', 'failing', 1::bigint, 'd')$$, 'a rule that fails is told');
SELECT results_eq($$SELECT measure, value, points, weight, round(contribution::numeric, 6), round(lost::numeric, 6), reason FROM cs.health_explain('a')$$, $$VALUES
	('money', 2700::float8, 90::float8, 2 / 3::float8, 60.0, 6.666667, NULL), ('tickets', 2, 80, 1 / 3::float8, 26.666667, 6.666667, NULL),
	('(cap)', 49, NULL, NULL, -37.666667, 37.666667, 'at most 49 while escalations > 0')$$, 'a row says what the cap takes');
SELECT ok(bool_and(s = score AND whole = 100), 'contributions add exactly to each capped score, contributions and losses to 100')
FROM (SELECT cs.health_score(c) AS score, (SELECT sum(contribution) FROM cs.health_explain(c)) AS s, (SELECT sum(contribution + lost) FROM cs.health_explain(c)) AS whole
	FROM unnest('{a,b,c,d}'::text[]) c) x;
SELECT results_eq($$SELECT cs.health_recompute('a', '2026-03-02'), cs.health_recompute('b', '2026-02-01 12:00'), cs.health_recompute('a', '2026-01-20')$$,
	$$SELECT 49::float8, 49::float8, cs.score('{"mrr": 2700, "tickets": 0}', 'card')$$, 'recomputed of a past instant with the caps that held then');

-- A snapshot keeps which cap held, so the past is explained by it under whatever the definition is by then.
SET cs_ext.now = '2026-03-03 12:00+01';
SELECT cs_internal.take_snapshot('2026-03-03 00:00+01') \g /dev/null
UPDATE cs.cap SET at_most = 30 WHERE rule = 'escalations > 0';
DELETE FROM cs.cap WHERE rule = 'escalations > 1';
CALL cs.refresh();
SELECT results_eq($$SELECT customer_id COLLATE "default", health_score FROM cs.customer_health WHERE customer_id IN ('a', 'b') ORDER BY 1$$, $$VALUES ('a', 30::float8), ('b', 30)$$,
	'a changed cap counts at the next refresh');
SELECT results_eq($$SELECT c, cs.health_score(c, '2026-03-03'), (SELECT sum(contribution) FROM cs.health_explain(c, '2026-03-03')), (SELECT value FROM cs.health_explain(c, '2026-03-03') WHERE measure = '(cap)')
	FROM unnest('{a,b}'::text[]) c$$, $$VALUES ('a', 49::float8, 49::float8, 49::float8), ('b', round(20.3 * 4294967296) / 4294967296::float8, round(20.3 * 4294967296) / 4294967296::float8, round(20.3 * 4294967296) / 4294967296::float8)$$,
	'the stored score is explained by the cap of then');

-- Overrides stand on the capped score.
SELECT cs.override_health('a', delta => 5, reason => 'they promised', expires_at => '2026-04-01') \g /dev/null
UPDATE ticket SET resolved_at = '2026-03-03' WHERE account_id = 'b';
CALL cs.refresh();
SELECT results_eq($$SELECT health_score, automatic_score, (SELECT sum(contribution) FROM cs.health_explain('a')) FROM cs.customer_health WHERE customer_id = 'a'$$,
	'VALUES (35::float8, 30::float8, 35::float8)', 'a delta is added to the capped score');
SELECT is((SELECT health_inputs FROM cs_internal.state WHERE customer_id = 'b'), NULL, 'nothing is kept where no cap holds');
SELECT cmp_ok(cs.health_score('b'), '>', 80::float8, 'and the score is free again');

-- What caps metrics brought along.
SELECT results_eq($$SELECT cs.score('{"mrr": 2700, "tickets": 1, "escalations": 1}', 'card'), cs.score('{"mrr": 2700, "tickets": 1, "size": "small"}', 'card'),
	cs.score('{"mrr": 2700, "tickets": 1}', 'card')$$, 'SELECT 30::float8, 60::float8, cs.score(''{"mrr": 2700, "tickets": 1, "escalations": false, "size": null}'', ''card'')', 'cs.score: rules see what is given');
SELECT ok((SELECT sum((c ->> 'contribution')::float8) = d.score AND count(*) = 3 FROM jsonb_array_elements(d.contributions) c), 'and its contributions add exactly')
FROM cs.score_detail('{"mrr": 2700, "tickets": 1, "escalations": 1}', 'card') d;

-- What must not be.
INSERT INTO cs.dimension (name, fallback) VALUES ('mood', 'fine');
INSERT INTO cs.segment (dimension, name, rule) VALUES ('mood', 'bad', 'health < 30');
SELECT throws_ok($$INSERT INTO cs.cap VALUES ('card', 'mood = ''bad''', 10)$$, '42P17', 'cap "mood = ''bad''" of scorecard "card" looks at "mood", which is known only after the score', 'a cap sees no late dimension');
SELECT throws_ok($$INSERT INTO cs.segment (dimension, name, rule) VALUES ('size', 'odd', 'band = ''red''')$$, '42P17', NULL, 'nor may what it sees become late');
SELECT throws_ok($$DELETE FROM cs.dimension WHERE name = 'size'$$, '2BP01', NULL, 'nor go');
SELECT throws_ok($$DELETE FROM cs.metric WHERE name = 'escalations'$$, '2BP01', NULL, 'a metric that a cap uses stays');
SELECT is((SELECT count(*) FROM cs.validate()), 0::bigint, 'validate finds nothing');
DELETE FROM cs.scorecard;
SELECT is((SELECT count(*) FROM cs.cap), 0::bigint, 'caps go with their scorecard');
SELECT * FROM finish();
