-- Segments: order of evaluation, history, manual assignments, attributes.
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SET cs_ext.now = '2026-03-02 08:00+00';
SELECT * FROM no_plan();

SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL) IS NULL AS done \gset
INSERT INTO cs_internal.customer (customer_id, attributes, from_customer)
SELECT c, jsonb_build_object('plan', 'plan ' || c), true FROM unnest('{a,b,42}'::text[]) c;
INSERT INTO cs_internal.state (customer_id, "values", active, segments) SELECT c, '{5,5}', true, '{}' FROM unnest('{a,b,42}'::text[]) c;
INSERT INTO cs.metric (name, source, expression) VALUES ('x', 'ledger', 'mrr');
CREATE FUNCTION public.put(customer text, v float8) RETURNS void LANGUAGE sql AS $$
	UPDATE cs_internal.state SET "values"[(SELECT s.slot FROM cs_internal.metric_slot s WHERE s.metric = 'x')] = v WHERE customer_id = customer
$$;
CREATE FUNCTION public.at(moment text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('cs_ext.now', moment || '+00', false);
	PERFORM cs_internal.evaluate_segments('{a,b,42}', (moment || '+00')::timestamptz, false);
	PERFORM cs_internal.evaluate_segments('{a,b,42}', (moment || '+00')::timestamptz, true);
END $$;
-- history of a customer in a dimension: segment[from,to) in hours of the day, oldest first
CREATE FUNCTION public.history(dim text, customer text DEFAULT 'a') RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(format('%s[%s,%s)', h.segment, to_char(h.valid_from, 'DD:HH24'), to_char(h.valid_to, 'DD:HH24')), ' ' ORDER BY h.valid_from)
	FROM cs.segment_history h WHERE h.dimension = dim AND h.customer_id = customer
$$;

-- ---- one customer, one segment ------------------------------------------------------
INSERT INTO cs.dimension (name, fallback) VALUES ('tier', 'small');
INSERT INTO cs.segment (dimension, name, rule, priority) VALUES ('tier', 'big', 'x >= 100', 10), ('tier', 'mid', 'x >= 10', 20), ('tier', 'alike', 'x >= 10', 20);
SELECT public.put('a', 500); SELECT public.put('b', 50); SELECT public.put('42', NULL);
SELECT public.at('2026-03-02 08:00');
SELECT is(cs.segment_of('a', 'tier'), 'big', 'first match by priority');
SELECT is(cs.segment_of('b', 'tier'), 'alike', 'ties by name');
SELECT is(cs.segment_of(42, 'tier'), 'small', 'NULL is not true: the fallback');
SELECT is((SELECT segments FROM cs_internal.state WHERE customer_id = 'a'), '{"tier":"big"}'::jsonb, 'and in the state');
SELECT public.at('2026-03-02 09:00');
SELECT is(public.history('tier'), 'big[02:08,)', 'nothing changed, nothing written');
SELECT public.put('a', 1);
SELECT public.at('2026-03-02 10:00');
SELECT is(public.history('tier'), 'big[02:08,02:10) small[02:10,)', 'a change ends one interval and begins the next');
SELECT public.put('a', 50);
SELECT public.at('2026-03-02 10:00');
SELECT is(public.history('tier'), 'big[02:08,02:10) alike[02:10,)', 'a second change at the same instant replaces the first');
SELECT public.put('a', 500);
SELECT public.at('2026-03-02 10:00');
SELECT is(public.history('tier'), 'big[02:08,)', 'and back again it never was');
SELECT is(cs.segment_of('a', 'tier', '2026-03-02'), NULL, 'as of an instant before: none');
SELECT is(cs.segment_of('a', 'tier', timestamptz '2026-03-02 08:00+00'), 'big', 'the first instant counts');
SELECT public.put('a', 1);
SELECT public.at('2026-03-03 08:00');
SELECT is(cs.segment_of('a', 'tier', '2026-03-03'), 'big', 'a date is its midnight in the policy''s zone');
SELECT is(cs.segment_of('a', 'tier', timestamptz '2026-03-03 08:00+00'), 'small', 'the end does not count');
SELECT is(cs.segment_of('nobody', 'tier'), NULL, 'an unknown customer: NULL');
SELECT throws_ok($$SELECT cs.segment_of('a', 'tiers')$$, '22023', 'unknown dimension "tiers"', 'an unknown dimension raises');

-- ---- a rule that raises ---------------------------------------------------------------
INSERT INTO cs.dimension (name) VALUES ('odd');
INSERT INTO cs.segment (dimension, name, rule, priority) VALUES ('odd', 'first', '10 / x > 5', 10), ('odd', 'second', 'x < 100', 20);
SELECT public.put('a', 1); SELECT public.put('b', 50);
SELECT public.at('2026-03-04 08:00');
SELECT is(cs.segment_of('a', 'odd') || cs.segment_of('b', 'odd'), 'firstsecond', 'both rules work');
SELECT public.put('a', 0); SELECT public.put('b', 1);
SELECT public.at('2026-03-04 09:00');
SELECT is(cs.segment_of('a', 'odd'), 'first', 'who cannot be judged stays where he is');
SELECT is(cs.segment_of('b', 'odd'), 'first', 'the others move');
SELECT is((SELECT (table_name, key, sqlstate, customers, example)::text FROM cs_internal.definition_status), '(segment,odd/first,22012,1,a)', 'and the rule is marked');
SELECT public.put('a', 50);
SELECT public.at('2026-03-04 10:00');
SELECT is((SELECT count(*)::int FROM cs_internal.definition_status), 0, 'until it works again');

-- ---- dimensions that look at others, early and late --------------------------------------
INSERT INTO cs.dimension (name) VALUES ('touch'), ('risk'), ('care');
INSERT INTO cs.segment (dimension, name, rule) VALUES ('touch', 'high', $$tier = 'big'$$), ('risk', 'red', $$band = 'red' OR health < 10$$),
	('care', 'urgent', $$risk = 'red' AND touch = 'high'$$);
SELECT is((SELECT string_agg(name || ' ' || sees, ', ' ORDER BY name) FROM cs.dimension), 'care late, odd early, risk late, tier early, touch early',
	'late is who sees health, or who sees it');
SELECT is((SELECT string_agg(dimension || level, ' ' ORDER BY dimension) FROM cs_internal.dimension_order()), 'care2 odd0 risk0 tier0 touch1', 'levels');
INSERT INTO cs_internal.health (customer_id, as_of, score, band, computed_at) VALUES ('a', '2026-03-04', 20, 'red', now()), ('b', '2026-03-04', 90, 'green', now());
SELECT public.put('a', 500);
SELECT public.at('2026-03-05 08:00');
SELECT is((SELECT segments FROM cs_internal.state WHERE customer_id = 'a'), '{"tier":"big","touch":"high","risk":"red","care":"urgent"}'::jsonb,
	'each level sees what the one before decided at this instant');
SELECT is((SELECT count(*)::int FROM cs.customer_segment WHERE customer_id = 'b' AND dimension IN ('risk', 'touch', 'care')), 0, 'no rule, no fallback: no segment');
SELECT throws_ok($$INSERT INTO cs.segment (dimension, name, rule) VALUES ('tier', 'loop', $r$care = 'urgent'$r$)$$, '42P17',
	'the rules of dimensions form a cycle: care -> touch -> tier -> care', 'a cycle is refused with its path');
SELECT throws_ok($$INSERT INTO cs.segment (dimension, name, rule) VALUES ('tier', 'self', $r$tier = 'big'$r$)$$, '42P17', NULL, 'a dimension cannot look at itself');
INSERT INTO cs.scorecard (name, segment) VALUES ('large', 'touch:high');
SELECT throws_ok($$INSERT INTO cs.segment (dimension, name, rule) VALUES ('touch', 'sick', 'health < 5')$$, '42P17', NULL,
	'a dimension that a scorecard is chosen by must not see health');
SELECT throws_ok($$DELETE FROM cs.segment WHERE dimension = 'touch' AND name = 'high'$$, '2BP01', 'segment "touch:high" is in use', 'a segment in use stays');
SELECT throws_ok($$DELETE FROM cs.dimension WHERE name = 'tier'$$, '2BP01', 'dimension "tier" is in use', 'a dimension in use stays');
SELECT throws_ok($$UPDATE cs.dimension SET enabled = false WHERE name = 'tier'$$, '2BP01', NULL, 'nor can it be switched off');
DELETE FROM cs.segment WHERE dimension = 'risk';
SELECT is((SELECT string_agg(name || ' ' || sees, ', ' ORDER BY name) FROM cs.dimension WHERE name IN ('risk', 'care')), 'care early, risk early', 'sees follows the rules');
DELETE FROM cs.segment WHERE dimension = 'care';
DELETE FROM cs.dimension WHERE name = 'risk';
SELECT public.at('2026-03-05 09:00');
SELECT is(public.history('risk'), 'red[05:08,05:09)', 'memberships of a dimension that is gone end');
SELECT is((SELECT segments ? 'risk' FROM cs_internal.state WHERE customer_id = 'a'), false, 'and leave the state');

-- ---- by hand -----------------------------------------------------------------------------
SELECT cs.assign_segment('a', 'tier', 'mid', 'special terms', '2026-03-08') IS NULL AS done \gset
SELECT is((SELECT count(*)::int FROM cs_internal.dirty WHERE customer_id = 'a'), 1, 'the customer is evaluated soon');
SELECT public.at('2026-03-06 08:00');
SELECT is((SELECT (segment, source, reason)::text FROM cs.customer_segment WHERE customer_id = 'a' AND dimension = 'tier'), '(mid,manual,"special terms")', 'a manual assignment wins');
SELECT is((SELECT segments ->> 'touch' FROM cs_internal.state WHERE customer_id = 'a'), NULL, 'for what looks at it too');
SELECT is((SELECT due_at FROM cs_internal.alert_due('{a}')), '2026-03-07 23:00+00', 'its end is a boundary of time');
SELECT public.at('2026-03-07 23:00');
SELECT is(cs.segment_of('a', 'tier'), 'big', 'after it the rules count again');
SELECT is((SELECT count(*)::int FROM cs_internal.alert_due('{a}')), 0, 'nothing more to wait for');
SELECT cs.assign_segment(42, 'tier', 'big', 'for ever') IS NULL AS done \gset
SELECT public.at('2026-03-09 08:00');
SELECT cs.assign_segment(42, 'tier', NULL, NULL) IS NULL AS done \gset
SELECT public.at('2026-03-10 08:00');
SELECT is(public.history('tier', '42'), 'small[02:08,09:08) big[09:08,10:08) small[10:08,)', 'without an end it stays until it is taken back');
SELECT throws_ok($$SELECT cs.assign_segment('nobody', 'tier', 'big', 'x')$$, 'P0002', 'unknown customer "nobody"', 'an unknown customer raises');
SELECT throws_ok($$SELECT cs.assign_segment('a', 'tiers', 'big', 'x')$$, '22023', 'unknown dimension "tiers"', 'an unknown dimension raises');
SELECT throws_ok($$SELECT cs.assign_segment('a', 'tier', 'bigg', 'x')$$, '22023', 'unknown segment "tier:bigg"', 'an unknown segment raises');
SELECT throws_ok($$SELECT cs.assign_segment('a', 'tier', 'big', '')$$, '22023', NULL, 'without a reason: refused');
SELECT throws_ok($$SELECT cs.assign_segment('a', 'tier', 'big', 'x', '2026-03-01')$$, '22023', NULL, 'an end in the past: refused');

-- ---- one segment per value of an attribute ----------------------------------------------------
INSERT INTO cs.dimension (name, attribute, fallback) VALUES ('plan', 'plan', 'unknown');
UPDATE cs_internal.customer SET attributes = NULL WHERE customer_id = 'b';
SELECT public.at('2026-03-11 08:00');
SELECT is((SELECT string_agg(segment || ' ' || source, ', ' ORDER BY customer_id) FROM cs.customer_segment WHERE dimension = 'plan'),
	'plan 42 attribute, plan a attribute, unknown fallback', 'the value, or the fallback');
SELECT throws_ok($$INSERT INTO cs.segment (dimension, name, rule) VALUES ('plan', 'p', 'x > 1')$$, '22023', NULL, 'such a dimension has no rules');
INSERT INTO cs_internal.attribute_value SELECT 'plan', 'old ' || i FROM generate_series(1, 198) i;
UPDATE cs_internal.customer SET attributes = '{"plan":"one too many"}' WHERE customer_id = 'b';
SELECT public.at('2026-03-11 09:00');
SELECT is(cs.segment_of('b', 'plan'), 'unknown', 'the 201st value is no segment');
SELECT is((SELECT (key, sqlstate, customers, example)::text FROM cs_internal.definition_status WHERE table_name = 'dimension'), '(plan,54000,1,b)', 'and is reported');
UPDATE cs_internal.customer SET attributes = '{"plan":"old 7"}' WHERE customer_id = 'b';
SELECT public.at('2026-03-11 10:00');
SELECT is(cs.segment_of('b', 'plan'), 'old 7', 'a known one is');
SELECT is((SELECT count(*)::int FROM cs_internal.definition_status), 0, 'nothing to report any more');

SELECT is((SELECT count(*)::int FROM cs_internal.membership WHERE valid_to <= valid_from), 0, 'no interval is empty');
SELECT is((SELECT count(*)::int FROM cs_internal.membership a JOIN cs_internal.membership b USING (customer_id, dimension)
	WHERE (a.segment, a.valid_from) < (b.segment, b.valid_from)
		AND tstzrange(a.valid_from, a.valid_to) && tstzrange(b.valid_from, b.valid_to)), 0, 'no two overlap');
SELECT is_empty('SELECT * FROM cs.check()', 'no invariant is broken');
SELECT * FROM finish();
