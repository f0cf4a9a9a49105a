-- Rules that look into a customer's past, against kept history written by hand.
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SET cs_ext.now = '2026-03-31 08:00+00';
SELECT * FROM no_plan();
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL) IS NULL AS done \gset
INSERT INTO cs_internal.customer (customer_id, name, from_customer) SELECT c, upper(c), true FROM unnest('{a,b,c}'::text[]) c;
INSERT INTO cs.metric (name, source, expression) VALUES ('x', 'ledger', 'mrr'), (repeat('long', 15), 'ledger', 'seats');
INSERT INTO cs_internal.state (customer_id, as_of_day, "values", active, segments) VALUES ('a', '2026-03-31', '{40,7}', true, '{}'), ('b', '2026-03-31', '{5,7}', true, '{}'), ('c', '2026-03-31', NULL, true, '{}');
-- a: the day of the month, and 100 more on the 10th; b: constant; c: nothing
INSERT INTO cs_internal.metric_history (customer_id, as_of, "values", segments, computed_at)
SELECT c, d AT TIME ZONE 'Europe/Berlin', CASE c WHEN 'a' THEN ARRAY[extract(day FROM d) + CASE WHEN extract(day FROM d) = 10 THEN 100 ELSE 0 END, extract(day FROM d)] ELSE '{5,6}' END, '{}', now()
FROM unnest('{a,b}'::text[]) c, generate_series('2026-03-01'::timestamp, '2026-03-30', '1 day') d;
INSERT INTO cs.dimension (name, fallback) VALUES ('size', 'small'), ('stage', NULL), ('other_stage', NULL);
INSERT INTO cs.segment (dimension, name, rule) VALUES ('size', 'big', 'x > 10'), ('stage', 'renewal', 'x > 30'), ('other_stage', 'renewal', 'x > 50');

-- value: what an expression is for a customer, through a message.
CREATE FUNCTION public.value(expression text, customer text DEFAULT 'a') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	INSERT INTO cs.alert_rule (name, rule, message) VALUES ('probe', 'true', format('(%s)::text', expression));
	PERFORM cs_internal.evaluate_alerts('{a,b,c}', '2026-03-31 08:00+00');
	SELECT a.message INTO result FROM cs.alert a WHERE a.rule = 'probe' AND a.customer_id = customer ORDER BY a.id DESC LIMIT 1;
	DELETE FROM cs.alert_rule WHERE name = 'probe';
	PERFORM cs_internal.evaluate_alerts('{a,b,c}', '2026-03-31 08:00+00');
	DELETE FROM cs_internal.alert_event;
	DELETE FROM cs_internal.alert;
	RETURN result;
END $$;
SELECT is(public.value($$ago('x', 10)$$), '21', 'ago: the value kept at the start of that day');
SELECT is(public.value($$ago('x', 33)$$), NULL, 'NULL before the first');
SELECT is(public.value($$change('x', 10)$$), '19', 'change: now less then');
SELECT is(public.value($$change('x', 10) / ago('x', 10) > 0.5 AND ago('x', 10) = 21$$), 'true', 'several calls in one expression');
SELECT is(public.value(format($$ago('%s', 10) + change('%1$s', 20)$$, repeat('long', 15))), '17', 'of a metric with a long name');
SELECT is(public.value($$round(trend('x', 7)::numeric, 9)$$),
	(SELECT round(regr_slope(y, t)::numeric, 9)::text FROM (SELECT "values"[1] AS y, extract(epoch FROM as_of)::float8 / 86400 AS t FROM cs_internal.metric_history
		WHERE customer_id = 'a' AND as_of >= '2026-03-24 00:00+01' UNION ALL SELECT 40, extract(epoch FROM timestamptz '2026-03-31 08:00+00') / 86400) p),
	'trend: the slope a day through the values kept and the one now');
SELECT is(public.value($$trend('x', 2)$$) IS NOT NULL, true, 'three values are a trend');
SELECT is(public.value($$trend('x', 1)$$), NULL, 'two are none');
SELECT is(public.value($$trend('x', 7)$$, 'b'), '0', 'a constant has none');
SELECT is(public.value($$trend('x', 7)$$, 'c'), NULL, 'no data, no trend');
SELECT is(public.value($$round(zscore('x', 30)::numeric, 9)$$),
	(SELECT round(((40 - avg("values"[1])) / stddev_samp("values"[1]))::numeric, 9)::text FROM cs_internal.metric_history
		WHERE customer_id = 'a' AND as_of >= '2026-03-01 00:00+01'), 'zscore: against the values kept');
SELECT is(public.value($$zscore('x', 30)$$, 'b'), NULL, 'NULL without spread');
SELECT is(public.value($$zscore('x', 6)$$), NULL, 'and under seven values');
SELECT is(public.value($$zscore('x', 7) > 1$$), 'true', 'seven are enough');

-- ---- segments --------------------------------------------------------------------
SELECT cs_internal.evaluate_segments('{a,b,c}', '2026-03-28 23:30+00', false) \gset
SELECT is(public.value($$in_segment('size:big')$$), 'true', 'in_segment');
SELECT is(public.value($$in_segment('big')$$, 'b'), 'false', 'by its bare name');
SELECT is(public.value($$in_segment('small')$$, 'b'), 'true', 'also a fallback');
SELECT is(public.value($$days_in('size:big')$$), '2', 'days_in counts local days: since the 29th in Berlin');
SELECT is(public.value($$days_in('size:small')$$), NULL, 'NULL for who is not in it');
SELECT is(public.value($$entered('size:big', 2)$$), 'true', 'entered: since the start of the 29th');
SELECT is(public.value($$entered('size:big', 1)$$), 'false', 'not since the 30th');
UPDATE cs_internal.state SET "values" = '{5,5}' WHERE customer_id = 'a';
SELECT cs_internal.evaluate_segments('{a,b,c}', '2026-03-30 08:00+00', false) \gset
SELECT is(public.value($$in_segment('size:big')$$), 'false', 'left');
SELECT is(public.value($$days_in('size:big')$$), NULL, 'no days any more');
SELECT is(public.value($$entered('size:big', 2)$$), 'true', 'but entered it was');
SELECT is(public.value($$days_in('size:small')$$), '1', 'one day in the other');
-- a dimension that looks at another one's membership stands behind it
INSERT INTO cs.dimension (name) VALUES ('aged');
INSERT INTO cs.segment (dimension, name, rule) VALUES ('aged', 'settled', $$days_in('size:small') >= 1$$);
SELECT is((SELECT level > 0 FROM cs_internal.dimension_order() WHERE dimension = 'aged'), true, 'a dimension that uses it comes later');
SELECT cs_internal.evaluate_segments('{a,b,c}', '2026-03-31 08:00+00', false) \gset
SELECT is(cs.segment_of('a', 'aged'), 'settled', 'and sees it');
SELECT throws_like($$UPDATE cs.segment SET rule = 'in_segment(''aged:settled'')' WHERE dimension = 'size'$$, '%cycle%', 'a cycle through calls is refused');
SELECT throws_ok($$DELETE FROM cs.metric WHERE name = 'x'$$, '2BP01', NULL, 'a metric in use cannot go');

-- ---- refused ------------------------------------------------------------------------
PREPARE refused (text) AS INSERT INTO cs.alert_rule (name, rule) VALUES ('bad', $1);
SELECT throws_like($$EXECUTE refused('trend(''y'', 7) < 0')$$, '%names "y", which is neither%', 'an unknown metric');
SELECT throws_like($$EXECUTE refused('in_segment(''size:bigg'')')$$, '%names "size:bigg"%', 'an unknown segment');
SELECT throws_like($$EXECUTE refused('in_segment(''renewal'')')$$, '%names "renewal"%', 'a name that several dimensions have');
SELECT throws_like($$EXECUTE refused('change(''x'') < 0')$$, '%change() takes the name of a metric and a number of days%', 'a missing argument');
SELECT throws_like($$EXECUTE refused('days_in(''small'', 3) > 1')$$, '%days_in() takes the name of a segment%', 'one too many');
SELECT throws_like($$EXECUTE refused('zscore(''x'', 0) > 1')$$, '%not a number of days between 1 and 3650%', 'days out of range');
SELECT throws_like($$EXECUTE refused('trend(name, 7) > 1')$$, '%trend%', 'a name that is no literal');
SELECT throws_like($$EXECUTE refused('trend(''x'', 7)')$$, '%must be boolean%', 'a number that is no condition');
SELECT * FROM finish();
