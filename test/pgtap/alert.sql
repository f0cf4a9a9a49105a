-- The life of alerts: every transition over a virtual clock, from the stage
-- alone (rows of state are written by hand, so that each step is one value).
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SET cs_ext.now = '2026-03-02 08:00+00';
SELECT * FROM no_plan();

SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL) IS NULL AS done \gset
INSERT INTO cs_internal.customer (customer_id, name, owner, attributes, from_customer)
SELECT c, upper(c), CASE WHEN c <> 'b' THEN 'ann' END, jsonb_build_object('plan', c), true FROM unnest('{a,b,c}'::text[]) c;
INSERT INTO cs_internal.state (customer_id, "values", active, segments) SELECT c, '{5,5}', true, '{}' FROM unnest('{a,b,c}'::text[]) c;
INSERT INTO cs.metric (name, source, expression) VALUES ('x', 'ledger', 'mrr'), ('y', 'ledger', 'seats');
CREATE TEMP TABLE slot AS SELECT metric, slot FROM cs_internal.metric_slot;

-- at: moves the clock there and evaluates; put: gives a metric a value.
CREATE FUNCTION public.at(moment text, cause text DEFAULT NULL) RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('cs_ext.now', moment || '+00', false);
	PERFORM cs_internal.evaluate_alerts('{a,b,c}', (moment || '+00')::timestamptz, cause);
	RETURN (moment || '+00')::timestamptz;
END $$;
CREATE FUNCTION public.put(customer text, v float8, name text DEFAULT 'x') RETURNS void LANGUAGE sql AS $$
	UPDATE cs_internal.state SET "values"[(SELECT s.slot FROM slot s WHERE s.metric = name)] = v WHERE customer_id = customer
$$;
-- life: what became of the alerts of a rule and customer, oldest first.
CREATE FUNCTION public.life(rule_name text, customer text DEFAULT 'a') RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(a.state, ' ' ORDER BY a.id) FROM cs.alert a WHERE a.rule = rule_name AND a.customer_id = customer
$$;
CREATE FUNCTION public.story(rule_name text, customer text DEFAULT 'a') RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(concat_ws('>', coalesce(e.from_state, ''), e.to_state), ' ' ORDER BY e.id)
	FROM cs_internal.alert_event e JOIN cs_internal.alert a ON a.id = e.alert_id
	WHERE a.rule = rule_name AND a.customer_id = customer
$$;
CREATE FUNCTION public.due(customer text DEFAULT 'a') RETURNS timestamptz LANGUAGE sql AS $$
	SELECT d.due_at FROM cs_internal.alert_due(ARRAY[customer]) d
$$;
CREATE FUNCTION public.newest(rule_name text, customer text DEFAULT 'a') RETURNS bigint LANGUAGE sql AS $$
	SELECT max(a.id) FROM cs.alert a WHERE a.rule = rule_name AND a.customer_id = customer
$$;

-- ---- opening, no data, resolving, opening again ---------------------------------
INSERT INTO cs.alert_rule (name, rule, message, fallback_owner) VALUES ('low', 'x < 3', $$format('x is %s', x)$$, 'pool');
SELECT is(public.at('2026-03-02 08:00'), '2026-03-02 08:00+00', 'nothing holds');
SELECT is(public.life('low'), NULL, 'no alert where the rule is false');
SELECT public.put('a', 1); SELECT public.put('b', 2);
SELECT public.at('2026-03-02 09:00') \gset
SELECT is(public.life('low'), 'open', 'it opens');
SELECT is((SELECT (message, owner, severity, key, cause)::text FROM cs.alert WHERE rule = 'low' AND customer_id = 'a'),
	'("x is 1",ann,medium,,)', 'with message, the owner of the customer, severity');
SELECT is((SELECT owner FROM cs.alert WHERE rule = 'low' AND customer_id = 'b'), 'pool', 'the fallback owner where the customer has none');
SELECT public.at('2026-03-02 10:00') \gset
SELECT is(public.story('low'), '>open', 'evaluating again writes nothing');
SELECT public.put('a', NULL);
SELECT public.at('2026-03-02 11:00') \gset
SELECT is(public.life('low'), 'open', 'no data resolves nothing');
SELECT public.put('a', 2);
SELECT public.at('2026-03-02 11:30') \gset
SELECT is((SELECT message FROM cs.alert WHERE rule = 'low' AND customer_id = 'a'), 'x is 2', 'the message follows');
SELECT public.put('a', 5);
SELECT public.at('2026-03-02 12:00') \gset
SELECT is(public.life('low'), 'resolved', 'false resolves');
SELECT is((SELECT resolved_at FROM cs.alert WHERE rule = 'low' AND customer_id = 'a'), '2026-03-02 12:00+00', 'at the evaluated instant');
SELECT public.put('a', NULL);
SELECT public.at('2026-03-02 13:00') \gset
SELECT is(public.life('low'), 'resolved', 'no data opens nothing');
SELECT public.put('a', 1);
SELECT public.at('2026-03-09 11:59') \gset
SELECT is(public.life('low'), 'open', 'within reopen_within the same alert opens again');
SELECT is((SELECT opened_at FROM cs.alert WHERE rule = 'low' AND customer_id = 'a'), '2026-03-02 09:00+00', 'opened_at is the first opening');
SELECT public.put('a', 5);
SELECT public.at('2026-03-09 12:00') \gset
SELECT public.put('a', 1);
SELECT public.at('2026-03-16 12:00') \gset
SELECT is(public.life('low'), 'resolved open', 'after reopen_within it is a new alert');
SELECT is(public.story('low'), '>open open>resolved resolved>open open>resolved >open', 'each change is an event');
SELECT throws_ok($$INSERT INTO cs_internal.alert (rule, customer_id, severity, state) VALUES ('low', 'a', 'low', 'pending')$$, '23505', NULL,
	'two live alerts of one identity are impossible');
DELETE FROM cs.alert_rule WHERE name = 'low';
SELECT public.at('2026-03-16 13:00') \gset
SELECT is(public.life('low'), 'resolved resolved', 'the alerts of a deleted rule are resolved');
SELECT is((SELECT e.cause FROM cs.alert_event e WHERE e.alert_id = public.newest('low') AND e.to_state = 'resolved'), 'definition', 'and say so');

-- ---- dwell ---------------------------------------------------------------------
SELECT public.put(c, 5) FROM unnest('{a,b,c}'::text[]) c;
INSERT INTO cs.alert_rule (name, rule, dwell) VALUES ('slow', 'x < 3', '2 days');
SELECT public.put('a', 1);
SELECT public.at('2026-03-20 08:00') \gset
SELECT is(public.life('slow'), 'pending', 'dwell: pending first');
SELECT is((SELECT count(*)::int FROM cs.open_alert WHERE rule = 'slow'), 0, 'a pending alert is not open');
SELECT is(public.due(), '2026-03-22 08:00+00', 'dwell is a boundary of time');
SELECT public.put('a', 5);
SELECT public.at('2026-03-21 08:00') \gset
SELECT is(public.life('slow'), 'resolved', 'it fell away before dwell was over');
SELECT is((SELECT opened_at FROM cs.alert WHERE rule = 'slow'), NULL, 'and never was open');
SELECT is(public.due(), NULL, 'nothing more to wait for');
SELECT public.put('a', 1);
SELECT public.at('2026-03-21 09:00') \gset
SELECT public.put('a', NULL);
SELECT public.at('2026-03-23 09:00') \gset
SELECT is(public.life('slow'), 'resolved pending', 'no data: dwell runs out and nothing opens');
SELECT is(public.due(), NULL, 'nor is the customer evaluated in a loop');
SELECT public.put('a', 1);
SELECT public.at('2026-03-23 10:00') \gset
SELECT is(public.life('slow'), 'resolved open', 'the rule holds after dwell: open');
SELECT is(public.story('slow'), '>pending pending>resolved >pending pending>open', 'events of dwell');
-- Opening again needs dwell too, and falls back to what it was.
SELECT public.put('a', 5);
SELECT public.at('2026-03-24 10:00') \gset
SELECT public.put('a', 1);
SELECT public.at('2026-03-25 10:00') \gset
SELECT is(public.life('slow'), 'resolved pending', 'opening again waits for dwell');
SELECT public.put('a', 5);
SELECT public.at('2026-03-26 10:00') \gset
SELECT is((SELECT (state, resolved_at)::text FROM cs.alert WHERE id = public.newest('slow')), '(resolved,"2026-03-24 10:00:00+00")',
	'and falls back to the resolution it had');
DELETE FROM cs.alert_rule WHERE name = 'slow';

-- ---- clear rule and resolve_after --------------------------------------------------
INSERT INTO cs.alert_rule (name, rule, clear_rule, resolve_after) VALUES ('band', 'x < 3', 'x > 4', '1 day');
SELECT public.put('a', 1);
SELECT public.at('2026-04-01 08:00') \gset
SELECT public.put('a', 3.5);
SELECT public.at('2026-04-02 08:00') \gset
SELECT is(public.life('band'), 'open', 'neither rule nor clear rule: stays');
SELECT public.put('a', 5);
SELECT public.at('2026-04-03 08:00') \gset
SELECT is(public.life('band'), 'open', 'clear, but not for resolve_after');
SELECT is(public.due(), '2026-04-04 08:00+00', 'resolve_after is a boundary of time');
SELECT public.put('a', NULL);
SELECT public.at('2026-04-05 08:00') \gset
SELECT is(public.life('band'), 'open', 'no data when resolve_after runs out: stays');
SELECT public.put('a', 3.5);
SELECT public.at('2026-04-05 09:00') \gset
SELECT public.put('a', 5);
SELECT public.at('2026-04-05 10:00') \gset
SELECT is(public.due(), '2026-04-06 10:00+00', 'what was not clear in between starts the wait anew');
SELECT public.at('2026-04-06 10:00') \gset
SELECT is(public.life('band'), 'resolved', 'clear for resolve_after: resolved');
DELETE FROM cs.alert_rule WHERE name = 'band';

-- ---- what people do ----------------------------------------------------------------
INSERT INTO cs.alert_rule (name, rule) VALUES ('hand', 'x < 3');
SELECT public.put('a', 1);
SELECT public.at('2026-05-01 08:00') \gset
SELECT public.newest('hand') AS id \gset
SELECT is((SELECT state FROM cs.ack_alert(:id, 'on it', 'zoe')), 'acknowledged', 'acknowledge returns the alert');
SELECT is((SELECT state FROM cs.ack_alert(:id)), 'acknowledged', 'again: no change');
SELECT is((SELECT (actor, from_state, to_state, note)::text FROM cs.alert_event WHERE alert_id = :id AND to_state = 'acknowledged'),
	'(zoe,open,acknowledged,"on it")', 'one event, with actor and note');
SET cs_ext.actor = 'app:7';
SELECT is((SELECT owner FROM cs.assign_alert(:id, 'bob')), 'bob', 'assign');
SELECT is((SELECT actor FROM cs.alert_event WHERE alert_id = :id AND note = 'owner: bob'), 'app:7', 'the actor is cs_ext.actor');
RESET cs_ext.actor;
SELECT is((SELECT owner FROM cs.assign_alert(:id, 'bob')), 'bob', 'assigning again: no change');
SELECT throws_ok(format('SELECT cs.snooze_alert(%s, %L)', :id, '2026-05-01'), '22023', NULL, 'a snooze into the past is refused');
SELECT throws_ok(format('SELECT cs.snooze_alert(%s, NULL::timestamptz)', :id), '22023', NULL, 'a snooze without end is refused');
SELECT is((SELECT (state, snoozed_until)::text FROM cs.snooze_alert(:id, '2026-05-03')), '(snoozed,"2026-05-02 22:00:00+00")',
	'snooze, a date read in the policy''s zone');
SELECT is((SELECT state FROM cs.snooze_alert(:id, timestamptz '2026-05-02 22:00+00')), 'snoozed', 'the same again: no change');
SELECT is((SELECT count(*)::int FROM cs_internal.dirty WHERE customer_id = 'a'), 1, 'the customer is evaluated soon');
SELECT public.at('2026-05-01 09:00') \gset
SELECT is(public.life('hand'), 'snoozed', 'asleep although the rule holds');
SELECT is(public.due(), '2026-05-02 22:00+00', 'the end of a snooze is a boundary of time');
SELECT is((SELECT state FROM cs.unsnooze_alert(:id)), 'open', 'unsnooze');
SELECT is((SELECT state FROM cs.unsnooze_alert(:id)), 'open', 'again: no change');
SELECT is((SELECT state FROM cs.snooze_alert(:id, timestamptz '2026-05-02 22:00+00')), 'snoozed', 'asleep once more');
SELECT public.put('a', NULL);
SELECT public.at('2026-05-02 22:00') \gset
SELECT is(public.life('hand'), 'open', 'a snooze ends by time, no data or not');
SELECT is((SELECT state FROM cs.snooze_alert(:id, timestamptz '2026-05-09 22:00+00')), 'snoozed', 'asleep a third time');
SELECT public.put('a', 5);
SELECT public.at('2026-05-03 08:00') \gset
SELECT is(public.life('hand'), 'resolved', 'what is over resolves asleep too');
-- Resolved by hand while the rule still holds.
SELECT public.put('a', 1);
SELECT public.at('2026-05-04 08:00') \gset
SELECT is((SELECT state FROM cs.resolve_alert(:id, 'called them')), 'resolved', 'resolve by hand');
SELECT is((SELECT state FROM cs.resolve_alert(:id)), 'resolved', 'again: no change');
SELECT public.at('2026-05-04 09:00') \gset
SELECT is(public.life('hand'), 'resolved', 'it stays resolved while the rule goes on holding');
SELECT public.put('a', NULL);
SELECT public.at('2026-05-04 10:00') \gset
SELECT public.put('a', 1);
SELECT public.at('2026-05-04 11:00') \gset
SELECT is(public.life('hand'), 'resolved', 'no data in between does not rearm');
SELECT public.put('a', 5);
SELECT public.at('2026-05-04 12:00') \gset
SELECT public.put('a', 1);
SELECT public.at('2026-05-04 13:00') \gset
SELECT is(public.life('hand'), 'open', 'once false, it opens again');
-- Dismissed.
SELECT throws_ok(format('SELECT cs.dismiss_alert(%s, %L)', :id, ' '), '22023', NULL, 'dismissing needs a reason');
SELECT is((SELECT state FROM cs.dismiss_alert(:id, 'known')), 'dismissed', 'dismiss');
SELECT is((SELECT state FROM cs.dismiss_alert(:id, 'known')), 'dismissed', 'again: no change');
SELECT public.put('a', 5);
SELECT public.at('2026-05-04 14:00') \gset
SELECT is(public.due(), '2026-05-05 13:00+00', 'the end of the cooldown is a boundary of time');
SELECT public.put('a', 1);
SELECT public.at('2026-05-05 12:59') \gset
SELECT is(public.life('hand'), 'dismissed', 'rearmed, but the cooldown is not over');
SELECT public.at('2026-05-05 13:00') \gset
SELECT is(public.life('hand'), 'dismissed open', 'after the cooldown a new alert');
SELECT is((SELECT state FROM cs.dismiss_alert(public.newest('hand'), 'still known')), 'dismissed', 'dismissed again');
SELECT public.at('2026-05-15 13:00') \gset
SELECT is(public.life('hand'), 'dismissed dismissed', 'the cooldown is over, but the rule never was false');

-- Every action from every state: allowed, or 55000.
CREATE FUNCTION public.try(action text, from_state text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	alert_id bigint;
	result text;
BEGIN
	INSERT INTO cs_internal.alert (rule, customer_id, key, severity, state, snoozed_until)
	VALUES ('try', 'a', gen_random_uuid()::text, 'low', from_state, CASE WHEN from_state = 'snoozed' THEN timestamptz '2026-06-01' END)
	RETURNING id INTO alert_id;
	BEGIN
		EXECUTE format('SELECT x.state FROM cs.%s x', replace(action, '$', alert_id::text)) INTO result;
	EXCEPTION WHEN OTHERS THEN
		result := SQLSTATE;
	END;
	RETURN result;
END $$;
SELECT is(string_agg(public.try(a.call, s.state), ' ' ORDER BY s.n), a.expected, a.call)
FROM (VALUES
	('ack_alert($)', '55000 acknowledged acknowledged acknowledged 55000 55000'),
	('assign_alert($, ''bob'')', 'pending open acknowledged snoozed 55000 55000'),
	('snooze_alert($, ''2026-07-01'')', '55000 snoozed snoozed snoozed 55000 55000'),
	('unsnooze_alert($)', '55000 open acknowledged open 55000 55000'),
	('resolve_alert($)', '55000 resolved resolved resolved resolved 55000'),
	('dismiss_alert($, ''no'')', '55000 dismissed dismissed dismissed 55000 dismissed')) a (call, expected),
	unnest('{pending,open,acknowledged,snoozed,resolved,dismissed}'::text[]) WITH ORDINALITY s (state, n)
GROUP BY a.call, a.expected;
SELECT throws_ok($$SELECT cs.ack_alert(4711)$$, 'P0002', 'unknown alert 4711', 'an unknown alert raises');
DELETE FROM cs_internal.alert_event e USING cs_internal.alert a WHERE a.id = e.alert_id AND a.rule = 'try';
DELETE FROM cs_internal.alert WHERE rule = 'try';
DELETE FROM cs.alert_rule WHERE name = 'hand';

-- ---- rules that fail -------------------------------------------------------------------
SELECT public.put(c, 1) FROM unnest('{a,b,c}'::text[]) c;
INSERT INTO cs.alert_rule (name, rule) VALUES ('good', 'x < 3'), ('fragile', '1 / (x - 1) > 0.5');
SELECT public.put('c', 2);
SELECT public.at('2026-06-01 08:00') \gset
SELECT is((SELECT string_agg(customer_id, ',' ORDER BY customer_id) FROM cs.alert WHERE rule = 'good' AND state = 'open'), 'a,b,c', 'a failing rule harms no other');
SELECT is((SELECT string_agg(customer_id, ',') FROM cs.alert WHERE rule = 'fragile' AND state = 'open'), 'c', 'nor the customers it works for');
SELECT is((SELECT (status, sqlstate, customers, example)::text FROM cs_internal.definition_status WHERE key = 'fragile'), '(failing,22012,2,a)', 'it is marked');
SELECT public.put('c', 1);
SELECT public.at('2026-06-01 09:00') \gset
SELECT is(public.life('fragile', 'c'), 'open', 'an error is no data: it resolves nothing');
SELECT public.put(c, 7) FROM unnest('{a,b,c}'::text[]) c;
SELECT public.at('2026-06-01 10:00') \gset
SELECT is((SELECT count(*)::int FROM cs_internal.definition_status), 0, 'the mark goes when it works again');
SELECT is((SELECT count(*)::int FROM cs.open_alert), 0, 'and everything is resolved');
INSERT INTO cs.alert_rule (name, rule, message) VALUES ('mute', 'x = 8', '(1 / (x - 8))::text');
SELECT public.put('a', 8);
SELECT public.at('2026-06-01 11:00') \gset
SELECT is((SELECT (state, message)::text FROM cs.alert WHERE rule = 'mute'), '(open,)', 'a failing message opens without text');
SELECT is((SELECT sqlstate FROM cs_internal.definition_status WHERE key = 'mute'), '22012', 'and is marked');
CREATE FUNCTION public.sleeper() RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM pg_sleep(30); RETURN true; END $$;
CREATE FUNCTION public.intruder() RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM set_config('work_mem', '77MB', false); PERFORM pg_notify('cs_alert', 'forged'); RETURN true; END $$;
GRANT EXECUTE ON FUNCTION public.sleeper(), public.intruder() TO cs_ext_run;
DELETE FROM cs.alert_rule;
INSERT INTO cs.alert_rule (name, rule) VALUES ('sleepy', 'public.sleeper()'), ('intruder', 'public.intruder() AND x = 7'), ('fine', 'x = 7');
SET cs_ext.user_sql_timeout = '200ms';
SELECT public.at('2026-06-02 08:00') \gset
SELECT is(public.life('fine', 'b'), 'open', 'a rule that never ends is cut off, the others have their results');
SELECT is((SELECT sqlstate FROM cs_internal.definition_status WHERE key = 'sleepy'), '57014', 'it is marked as cancelled');
SELECT is(current_setting('work_mem') = '77MB', false, 'what a rule set is undone');
RESET cs_ext.user_sql_timeout;
DELETE FROM cs.alert_rule;

-- ---- no storms ---------------------------------------------------------------------------
INSERT INTO cs.alert_rule (name, rule, max_new) VALUES ('storm', 'x = 7 OR x = 8', 2);
SELECT public.at('2026-06-03 08:00') \gset
SELECT is((SELECT string_agg(state, ' ' ORDER BY customer_id) FROM cs.alert WHERE rule = 'storm'), 'open open pending', 'max_new open, the rest is held');
SELECT is((SELECT (status, customers)::text FROM cs_internal.definition_status WHERE key = 'storm'), '(held,1)', 'and reported');
SELECT public.at('2026-06-03 08:00') \gset
SELECT is((SELECT count(*)::int FROM cs.alert WHERE rule = 'storm' AND state = 'open'), 2, 'the same instant opens no more');
SELECT is(public.due('c'), '2026-06-03 09:00+00', 'it is tried again an hour later');
SELECT public.at('2026-06-03 09:00') \gset
SELECT is((SELECT count(*)::int FROM cs.alert WHERE rule = 'storm' AND state = 'open'), 3, 'and opens then');
SELECT is((SELECT count(*)::int FROM cs_internal.definition_status WHERE key = 'storm'), 0, 'nothing is held any more');
DELETE FROM cs.alert_rule;

-- ---- segments, definitions, no customer any more ---------------------------------------------
INSERT INTO cs.dimension (name, attribute) VALUES ('plan', 'plan');
INSERT INTO cs.alert_rule (name, rule, segment) VALUES ('ours', 'x > 0', 'plan:a');
SELECT cs_internal.evaluate_segments('{a,b,c}', '2026-06-04 08:00+00', false) IS NULL AS done \gset
SELECT public.at('2026-06-04 08:00', 'definition') \gset
SELECT is((SELECT string_agg(customer_id, ',') FROM cs.alert WHERE rule = 'ours'), 'a', 'only customers of the segment');
SELECT is((SELECT cause FROM cs.alert WHERE rule = 'ours'), 'definition', 'opened because a definition changed, and says so');
UPDATE cs_internal.customer SET attributes = '{"plan":"z"}' WHERE customer_id = 'a';
SELECT cs_internal.evaluate_segments('{a,b,c}', '2026-06-04 09:00+00', false) IS NULL AS done \gset
SELECT public.at('2026-06-04 09:00') \gset
SELECT is(public.life('ours'), 'resolved', 'leaving the segment resolves');
UPDATE cs.alert_rule SET segment = NULL WHERE name = 'ours';
SELECT public.at('2026-06-04 10:00') \gset
SELECT cs_internal.end_alerts('{b}', '2026-06-04 11:00+00') IS NULL AS done \gset
SELECT is((SELECT (a.state, e.cause)::text FROM cs.alert a JOIN cs.alert_event e ON e.alert_id = a.id AND e.to_state = 'resolved' WHERE a.rule = 'ours' AND a.customer_id = 'b'),
	'(resolved,customer)', 'who is no customer any more has no open alerts');
DELETE FROM cs.alert_rule;

-- ---- ago() -------------------------------------------------------------------------------------
INSERT INTO cs_internal.metric_history (customer_id, as_of, "values", segments, computed_at)
SELECT 'a', d::timestamp AT TIME ZONE 'Europe/Berlin', CASE s.slot WHEN 1 THEN ARRAY[v] ELSE ARRAY[NULL, v] END, '{}', now()
FROM slot s, (VALUES (date '2026-06-01', 70.0::float8), (date '2026-06-05', 10)) h (d, v) WHERE s.metric = 'x';
INSERT INTO cs.alert_rule (name, rule, message) VALUES ('fell', $$x < ago('x', 7) OR ago('x', 7) IS NULL$$, $$coalesce(ago('x', 7)::text, 'none')$$);
SELECT public.at('2026-06-08 08:00') \gset
SELECT is((SELECT message FROM cs.alert WHERE rule = 'fell' AND customer_id = 'a'), '70', 'ago: the snapshot of that day');
SELECT public.at('2026-06-11 08:00') \gset
SELECT is((SELECT message FROM cs.alert WHERE rule = 'fell' AND customer_id = 'a'), '70', 'ago: the last one within three days before');
SELECT public.at('2026-06-12 07:00') \gset
SELECT is((SELECT message FROM cs.alert WHERE rule = 'fell' AND customer_id = 'a'), '10', 'ago: D - 7 is a snapshot again');
SELECT public.at('2026-06-17 08:00') \gset
SELECT is((SELECT message FROM cs.alert WHERE rule = 'fell' AND customer_id = 'a'), 'none', 'ago: NULL where none is near');

-- ---- a long random walk of facts, time and people ----------------------------------------------
-- Whatever happens: an unbroken chain of events, their end is the state, one live alert per identity,
-- and the refresh opens only what holds and resolves only what is clear.
\ir ../lib/seed.sql
DELETE FROM cs.alert_rule;
INSERT INTO cs.alert_rule (name, rule, clear_rule, dwell, resolve_after, cooldown, reopen_within, max_new) VALUES
	('w1', 'x < 3', NULL, '0', '0', '1 day', '3 days', 100), ('w2', 'x < 3', 'x > 6', '1 day', '1 day', '2 days', '0', 100),
	('w3', 'y < 5', 'y > 2', '12 hours', '0', '0', '10 days', 1);
CREATE TABLE public.walk (moment timestamptz, customer text, x float8, y float8);
CREATE FUNCTION public.stroll(steps integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	t timestamptz := '2026-07-01 00:00+00';
	c text;
	a record;
BEGIN
	FOR i IN 1 .. steps LOOP
		t := t + (random() * 20)::integer * interval '1 hour' + interval '1 hour';
		FOREACH c IN ARRAY '{a,b,c}'::text[] LOOP
			PERFORM public.put(c, CASE WHEN random() < 0.2 THEN NULL ELSE floor(random() * 10) END);
			PERFORM public.put(c, CASE WHEN random() < 0.2 THEN NULL ELSE floor(random() * 10) END, 'y');
		END LOOP;
		INSERT INTO public.walk SELECT t, s.customer_id, s."values"[sx.slot], s."values"[sy.slot]
		FROM cs_internal.state s, slot sx, slot sy WHERE sx.metric = 'x' AND sy.metric = 'y';
		PERFORM public.at((t AT TIME ZONE 'UTC')::text);
		FOR a IN SELECT * FROM cs.open_alert o WHERE random() < 0.15 ORDER BY id LOOP
			CASE floor(random() * 5)::integer
				WHEN 0 THEN PERFORM cs.ack_alert(a.id);
				WHEN 1 THEN PERFORM cs.snooze_alert(a.id, t + interval '30 hours');
				WHEN 2 THEN PERFORM cs.unsnooze_alert(a.id);
				WHEN 3 THEN PERFORM cs.resolve_alert(a.id);
				ELSE PERFORM cs.dismiss_alert(a.id, 'walk');
			END CASE;
		END LOOP;
	END LOOP;
END $$;
SELECT public.stroll(150);
CREATE TEMP TABLE chain AS
SELECT e.*, a.rule, a.customer_id, a.state, lag(e.to_state) OVER w AS before, lead(e.id) OVER w IS NULL AS last
FROM cs_internal.alert_event e JOIN cs_internal.alert a ON a.id = e.alert_id
WHERE a.rule ~ '^w[123]$' WINDOW w AS (PARTITION BY e.alert_id ORDER BY e.id);
SELECT cmp_ok((SELECT count(*) FROM chain WHERE actor = 'cs_ext'), '>', 100::bigint, 'much happened');
SELECT is((SELECT count(*)::int FROM chain WHERE from_state IS DISTINCT FROM before AND rule <> 'w3'), 0, 'each event begins where the one before ended');
SELECT is((SELECT count(*)::int FROM chain WHERE last AND to_state <> state AND NOT (rule = 'w3' AND state = 'pending')), 0, 'the last one is the state');
SELECT is((SELECT string_agg(DISTINCT coalesce(from_state, '-') || '>' || to_state, ' ') FROM chain WHERE actor = 'cs_ext'
	AND (coalesce(from_state, '-'), to_state) NOT IN (('-', 'pending'), ('-', 'open'), ('pending', 'open'), ('pending', 'resolved'), ('open', 'resolved'),
		('acknowledged', 'resolved'), ('snoozed', 'resolved'), ('snoozed', 'open'), ('resolved', 'pending'), ('resolved', 'open'))), NULL,
	'the refresh takes no other way than the documented ones');
SELECT is((SELECT count(*)::int FROM chain c JOIN walk w ON w.moment = c.at AND w.customer = c.customer_id
	WHERE c.actor = 'cs_ext' AND c.to_state = 'open' AND c.from_state IS DISTINCT FROM 'snoozed'
		AND NOT CASE c.rule WHEN 'w3' THEN coalesce(w.y < 5 AND w.y <= 2, false) ELSE coalesce(w.x < 3, false) END), 0, 'nothing opens that does not hold');
SELECT is((SELECT count(*)::int FROM chain c JOIN walk w ON w.moment = c.at AND w.customer = c.customer_id
	WHERE c.actor = 'cs_ext' AND c.to_state = 'resolved' AND c.from_state <> 'pending'
		AND NOT CASE c.rule WHEN 'w1' THEN coalesce(w.x >= 3, false) WHEN 'w2' THEN coalesce(w.x > 6, false) ELSE coalesce(w.y > 2, false) END), 0,
	'nothing is resolved that is not clear');
SELECT is((SELECT count(*)::int FROM walk w CROSS JOIN (VALUES ('w1')) r (rule)
	WHERE w.moment = (SELECT max(moment) FROM walk) AND w.x >= 3
		AND EXISTS (SELECT 1 FROM cs.open_alert o WHERE o.rule = r.rule AND o.customer_id = w.customer)), 0, 'and what is clear is not open');
SELECT is((SELECT count(*)::int FROM (SELECT at FROM chain WHERE rule = 'w3' AND to_state = 'open' AND actor = 'cs_ext' AND from_state IS DISTINCT FROM 'snoozed'
	GROUP BY at HAVING count(*) > 1) x), 0, 'never more than max_new at one instant');

-- ---- numbering ------------------------------------------------------------------------------------
SELECT is((SELECT count(*)::int FROM cs.alert_event WHERE seq IS NOT NULL), 0, 'nothing is numbered when it is written');
CREATE TEMP TABLE polled AS SELECT * FROM cs.alert_changes(0, 10);
INSERT INTO polled SELECT c.* FROM cs.alert_changes((SELECT max(seq) FROM polled), 100000) c;
SELECT is((SELECT array_agg(seq ORDER BY seq) FROM polled), (SELECT array_agg(i) FROM generate_series(1, (SELECT count(*) FROM cs.alert_event)) i),
	'a poller sees every change once, numbered without gaps');
SELECT is((SELECT count(*)::int FROM cs.alert_changes((SELECT max(seq) FROM polled))), 0, 'and then nothing');
SELECT is((SELECT count(*)::int FROM cs.alert a WHERE a.seq IS DISTINCT FROM (SELECT max(p.seq) FROM polled p WHERE p.alert_id = a.id)), 0, 'alert.seq is the newest');
SELECT throws_ok('SELECT cs.alert_changes(0, 0)', '22023', NULL, 'max_rows must be positive');
SELECT is((SELECT count(*)::int FROM cs_internal.alert a GROUP BY a.rule, a.customer_id, a.key, a.live HAVING a.live AND count(*) > 1), NULL, 'no identity has two live alerts');
SELECT * FROM finish();
