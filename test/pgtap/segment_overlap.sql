-- Overlapping dimensions, and least days in a segment.
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SET cs_ext.now = '2026-03-02 08:00+00';
SELECT * FROM no_plan();
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL) IS NULL AS done \gset
INSERT INTO cs.metric (name, source, expression) VALUES ('x', 'ledger', 'mrr');
INSERT INTO cs_internal.customer (customer_id, name, from_customer) SELECT c, upper(c), true FROM unnest('{a,b,c}'::text[]) c;
INSERT INTO cs_internal.state (customer_id, "values", active, segments) SELECT c, '{0}', true, '{}' FROM unnest('{a,b,c}'::text[]) c;
INSERT INTO cs.dimension (name, exclusive, fallback) VALUES ('persona', false, 'nobody'), ('track', false, NULL);
INSERT INTO cs.segment (dimension, name, rule, priority) VALUES ('persona', 'even', 'x::integer % 2 = 0 AND x > 0', 10), ('persona', 'third', 'x::integer % 3 = 0 AND x > 0', 20),
	('persona', 'high', 'x > 10', 5), ('track', 'escalation', 'x > 20', 1);
INSERT INTO cs.dimension (name) VALUES ('mood');
INSERT INTO cs.segment (dimension, name, rule) VALUES ('mood', 'busy', $$in_segment('persona:even') AND in_segment('persona:third')$$);

CREATE FUNCTION public.at(moment text, a float8, b float8 DEFAULT 0) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('cs_ext.now', moment || '+00', false);
	UPDATE cs_internal.state SET "values" = ARRAY[CASE customer_id WHEN 'a' THEN a WHEN 'b' THEN b ELSE 0 END];
	PERFORM cs_internal.evaluate_segments('{a,b,c}', (moment || '+00')::timestamptz, false);
	PERFORM cs_internal.evaluate_alerts('{a,b,c}', (moment || '+00')::timestamptz);
END $$;
SELECT public.at('2026-03-02 08:00', 6, 4);
SELECT is((SELECT array_agg(customer_id || ':' || segment ORDER BY customer_id, segment) FROM cs.customer_segment WHERE dimension = 'persona'),
	'{a:even,a:third,b:even,c:nobody}', 'in each segment whose rule is true, else the fallback');
SELECT is(cs.segment_of('a', 'persona'), 'even, third', 'segment_of names all');
SELECT is((SELECT segments -> 'persona' FROM cs_internal.state WHERE customer_id = 'a'), '["even", "third"]'::jsonb, 'kept as a list');
SELECT is(cs.segment_of('a', 'mood'), 'busy', 'rules ask by in_segment()');
SELECT public.at('2026-03-02 09:00', 6, 4);
SELECT is((SELECT count(*) FROM cs.segment_history WHERE valid_from > '2026-03-02 08:30+00' OR valid_to IS NOT NULL), 0::bigint, 'evaluating again changes nothing');
SELECT public.at('2026-03-03 08:00', 12, 0);
SELECT is((SELECT array_agg(segment || coalesce('-' || source, '') ORDER BY segment) FROM cs.customer_segment WHERE dimension = 'persona' AND customer_id = 'a'),
	'{even-rule,high-rule,third-rule}', 'one more is entered, the others go on');
SELECT is((SELECT array_agg((segment, valid_from::date, valid_to::date)::text ORDER BY segment) FROM cs.segment_history WHERE customer_id = 'b' AND dimension = 'persona'),
	'{"(even,2026-03-02,2026-03-03)","(nobody,2026-03-03,)"}', 'left, and the fallback entered');
SELECT is((SELECT array_agg(valid_from::date ORDER BY segment) FROM cs.customer_segment WHERE dimension = 'persona' AND customer_id = 'a'), '{2026-03-02,2026-03-03,2026-03-02}', 'each with its own beginning');
SELECT public.at('2026-03-03 08:00', 9, 0);
SELECT is((SELECT array_agg((segment, valid_from::date, valid_to::date)::text ORDER BY segment, valid_from) FROM cs.segment_history WHERE customer_id = 'a' AND dimension = 'persona'),
	'{"(even,2026-03-02,2026-03-03)","(third,2026-03-02,)"}', 'what was entered at the same instant never was');
SELECT public.at('2026-03-03 08:00', 6, 0);
SELECT is((SELECT array_agg((segment, valid_from::date, valid_to::date)::text ORDER BY segment) FROM cs.segment_history WHERE customer_id = 'a' AND dimension = 'persona'),
	'{"(even,2026-03-02,)","(third,2026-03-02,)"}', 'nor was the leaving');

-- ---- by hand, failing rules, alerts ---------------------------------------------------
SELECT cs.assign_segment('b', 'persona', 'high', 'they said so', '2026-03-05 00:00+00') \gset
SELECT public.at('2026-03-04 08:00', 6, 2);
SELECT is((SELECT array_agg(segment || '-' || source ORDER BY segment) FROM cs.customer_segment WHERE dimension = 'persona' AND customer_id = 'b'), '{even-rule,high-manual}', 'assigned by hand beside what the rules say');
SELECT public.at('2026-03-05 08:00', 6, 0);
SELECT is(cs.segment_of('b', 'persona'), 'nobody', 'until it expires');
UPDATE cs.segment SET rule = '1 / (x::integer - 7) > 100' WHERE name = 'third';
SELECT public.at('2026-03-06 08:00', 7, 7);
SELECT is((cs.segment_of('a', 'persona'), cs.segment_of('b', 'persona'))::text, '(third,nobody)', 'where a rule raises, that membership stays as it is');
UPDATE cs.segment SET rule = 'x::integer % 3 = 0 AND x > 0' WHERE name = 'third';
INSERT INTO cs.alert_rule (name, rule, segment) VALUES ('evens', 'x > 0', 'persona:even');
SELECT public.at('2026-03-07 08:00', 2, 3);
SELECT is((SELECT array_agg(customer_id) FROM cs.open_alert), '{a}', 'an alert rule for one of them');
SELECT public.at('2026-03-08 08:00', 3, 3);
SELECT is((SELECT count(*) FROM cs.open_alert), 0::bigint, 'leaving it resolves');
DELETE FROM cs.alert_rule;

-- ---- refused ------------------------------------------------------------------------------
SELECT throws_like($$INSERT INTO cs.alert_rule (name, rule) VALUES ('bad', 'persona = ''even''')$$, '%names "persona", which is neither%', 'it is no column of rules');
SELECT throws_ok($$SELECT * FROM cs.churn_by('2026-02', 'persona')$$, '0A000', 'the segments of dimension "persona" overlap', 'no rates by segments that do not add up');
SELECT throws_ok($$SELECT cs.churn_rate('2026-02', 'persona:even')$$, '0A000', NULL, 'nor of one of them');
SELECT throws_ok($$INSERT INTO cs.scorecard (name, segment) VALUES ('s', 'persona:even')$$, '0A000', NULL, 'no scorecard by it');
SELECT throws_like($$INSERT INTO cs.dimension (name, exclusive, attribute) VALUES ('p', false, 'plan')$$, '%of which a customer has one value%', 'an attribute has one value');
INSERT INTO cs.alert_rule (name, rule) VALUES ('busy', 'mood = ''busy''');
SELECT throws_like($$UPDATE cs.dimension SET exclusive = false WHERE name = 'mood'$$, '%"mood", as one whose segments exclude each other, is in use%', 'what is used as a column stays exclusive');
DELETE FROM cs.alert_rule;
UPDATE cs.dimension SET exclusive = true WHERE name = 'track';
SELECT public.at('2026-03-09 08:00', 30, 3);
SELECT is(cs.segment_of('a', 'track'), 'escalation', 'an overlapping one can become exclusive');
UPDATE cs.dimension SET exclusive = false WHERE name = 'track';
SELECT public.at('2026-03-09 09:00', 30, 3);
SELECT is((SELECT (segment, valid_from)::text FROM cs.customer_segment WHERE customer_id = 'a' AND dimension = 'track'), '(escalation,"2026-03-09 08:00:00+00")', 'and back, and nobody moves');

-- ---- least days -----------------------------------------------------------------------------
INSERT INTO cs.dimension (name, min_days, fallback) VALUES ('size', 3, 'small');
INSERT INTO cs.segment (dimension, name, rule) VALUES ('size', 'big', 'x >= 10');
SELECT throws_ok($$UPDATE cs.dimension SET min_days = -1 WHERE name = 'size'$$, '22023', NULL, 'negative days are refused');
SELECT public.at('2026-03-10 08:00', 20, 0);
SELECT is((cs.segment_of('a', 'size'), cs.segment_of('b', 'size'))::text, '(big,small)', 'first placed at once');
SELECT public.at('2026-03-11 08:00', 0, 20);
SELECT is((cs.segment_of('a', 'size'), cs.segment_of('b', 'size'))::text, '(big,small)', 'nobody moves within three days');
SELECT is((SELECT d.due_at FROM cs_internal.alert_due('{a}') d), '2026-03-12 23:00+00', 'due when they are over, at local midnight');
SELECT public.at('2026-03-12 22:59', 0, 20);
SELECT is((cs.segment_of('a', 'size'), cs.segment_of('b', 'size'))::text, '(big,small)', 'the third day counts in whole');
SELECT public.at('2026-03-12 23:00', 0, 20);
SELECT is((cs.segment_of('a', 'size'), cs.segment_of('b', 'size'))::text, '(small,big)', 'then they do');
SELECT cs.assign_segment('a', 'size', 'big', 'by hand') \gset
SELECT public.at('2026-03-13 08:00', 0, 20);
SELECT is(cs.segment_of('a', 'size'), 'big', 'a person moves whom they like');
SELECT cs.assign_segment('a', 'size', NULL, NULL) \gset
SELECT public.at('2026-03-13 09:00', 0, 20);
SELECT is(cs.segment_of('a', 'size'), 'small', 'and back');
SELECT * FROM finish();
