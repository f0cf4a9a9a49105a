-- Severity, deadlines, calendars, quiet hours, caps and inhibition of alerts over
-- a virtual clock, from the stage alone.
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SET cs_ext.now = '2026-03-02 08:00+00';
SELECT * FROM no_plan();

SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL) IS NULL AS done \gset
INSERT INTO cs_internal.customer (customer_id, name, owner, from_customer) SELECT c, upper(c), CASE WHEN c < 'd' THEN 'ann' WHEN c < 'f' THEN 'bob' END, true FROM unnest('{a,b,c,d,e,f,g}'::text[]) c;
INSERT INTO cs_internal.state (customer_id, "values", active, segments, mrr) SELECT c, '{5,5}', true, '{}', 100 * n FROM unnest('{a,b,c,d,e,f,g}'::text[]) WITH ORDINALITY u (c, n);
INSERT INTO cs.metric (name, source, expression) VALUES ('x', 'ledger', 'mrr'), ('y', 'ledger', 'seats');
CREATE TEMP TABLE slot AS SELECT metric, slot FROM cs_internal.metric_slot;

CREATE FUNCTION public.at(moment text) RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('cs_ext.now', moment || '+00', false);
	PERFORM cs_internal.evaluate_alerts('{a,b,c,d,e,f,g}', (moment || '+00')::timestamptz);
	RETURN (moment || '+00')::timestamptz;
END $$;
CREATE FUNCTION public.put(customers text[], v float8, name text DEFAULT 'x') RETURNS void LANGUAGE sql AS $$
	UPDATE cs_internal.state SET "values"[(SELECT s.slot FROM slot s WHERE s.metric = name)] = v WHERE customer_id = ANY (customers)
$$;
CREATE FUNCTION public.life(rule_name text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(a.customer_id || ':' || a.state, ' ' ORDER BY a.customer_id, a.id) FROM cs.alert a WHERE a.rule = rule_name
$$;
CREATE FUNCTION public.notes(rule_name text, customer text DEFAULT 'a') RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(concat_ws(' ', e.from_state || '>' || e.to_state, '(' || e.cause || ')', e.note), ' | ' ORDER BY e.id)
	FROM cs_internal.alert_event e JOIN cs_internal.alert a ON a.id = e.alert_id
	WHERE a.rule = rule_name AND a.customer_id = customer AND e.from_state IS NOT NULL
$$;
CREATE FUNCTION public.due(customer text DEFAULT 'a') RETURNS timestamptz LANGUAGE sql AS $$
	SELECT d.due_at FROM cs_internal.alert_due(ARRAY[customer]) d
$$;
CREATE FUNCTION public.id(rule_name text, customer text DEFAULT 'a') RETURNS bigint LANGUAGE sql AS $$
	SELECT max(a.id) FROM cs.alert a WHERE a.rule = rule_name AND a.customer_id = customer
$$;

-- ---- severity by expression -------------------------------------------------------
INSERT INTO cs.alert_rule (name, rule, severity_expression) VALUES ('grade', 'x < 4', $$CASE WHEN x < 1 THEN 'critical' WHEN x < 2 THEN 'high' WHEN x < 3 THEN NULL ELSE 'bad' END$$);
SELECT public.put('{a}', 1.5); SELECT public.put('{b}', 2.5); SELECT public.put('{c}', 3.5);
SELECT public.at('2026-03-02 09:00') \gset
SELECT is((SELECT string_agg(severity, ' ' ORDER BY customer_id) FROM cs.alert WHERE rule = 'grade'), 'high medium medium', 'the expression gives it, else the rule');
SELECT is((SELECT (status, customers, example, error)::text FROM cs.definition_status WHERE key = 'grade'),
	'(failing,1,c,"severity_expression gives ""bad"", which is not low, medium, high or critical")', 'what is no severity is reported');
SELECT public.put('{a}', 0.5);
SELECT public.at('2026-03-02 10:00') \gset
SELECT is((SELECT severity FROM cs.alert WHERE id = public.id('grade')), 'critical', 'an open alert follows');
SELECT is(public.notes('grade'), 'open>open severity: critical', 'and says so');
SELECT cs.snooze_alert(public.id('grade'), '2026-03-10 00:00') \gset
SELECT public.put('{a}', 1.5);
SELECT public.at('2026-03-02 11:00') \gset
SELECT is((SELECT state || severity FROM cs.alert WHERE id = public.id('grade')), 'snoozedhigh', 'better leaves a snooze alone');
SELECT public.put('{a}', 0.5);
SELECT public.at('2026-03-02 12:00') \gset
SELECT is((SELECT state || severity FROM cs.alert WHERE id = public.id('grade')), 'opencritical', 'worse ends it');
SELECT is((SELECT snoozed_until FROM cs.alert WHERE id = public.id('grade')), NULL, 'and its end with it');
SELECT alike(public.notes('grade'), '%snoozed>open severity: critical', 'in one event');
SELECT public.put('{c}', 1.5);
SELECT public.at('2026-03-02 12:30') \gset
SELECT is((SELECT count(*)::int FROM cs.definition_status WHERE key = 'grade'), 0, 'corrected, the mark goes');
DELETE FROM cs.alert_rule WHERE name = 'grade';
SELECT public.put('{a,b,c,d,e,f,g}', 5);

-- ---- deadlines --------------------------------------------------------------------
INSERT INTO cs.alert_rule (name, rule, ack_within, resolve_within, escalate_to) VALUES ('late', 'x < 4', '2 hours', '1 day', 'boss');
SELECT public.put('{a,b,c}', 1);
SELECT public.at('2026-03-03 08:00') \gset
SELECT is((SELECT (ack_due_at, resolve_due_at, escalated_to)::text FROM cs.alert WHERE id = public.id('late')),
	'("2026-03-03 10:00:00+00","2026-03-04 08:00:00+00",)', 'deadlines are reckoned at the opening');
SELECT is(public.due(), '2026-03-03 10:00+00', 'and the customer is due then');
SELECT state FROM cs.ack_alert(public.id('late', 'b')) \gset
SELECT state FROM cs.snooze_alert(public.id('late', 'c'), '2026-03-03 20:00') \gset
SELECT public.at('2026-03-03 09:59') \gset
SELECT is(public.notes('late'), NULL, 'nothing before the deadline');
SELECT public.at('2026-03-03 10:00') \gset
SELECT is(public.notes('late'), 'open>open (deadline) not acknowledged in time; escalated to boss', 'a missed one is told and escalated');
SELECT is((SELECT (state, owner, escalated_to, escalated_at)::text FROM cs.alert WHERE id = public.id('late')),
	'(open,ann,boss,"2026-03-03 10:00:00+00")', 'the owner stays');
SELECT is(public.notes('late', 'b'), 'open>acknowledged', 'not for what was acknowledged');
SELECT is(public.notes('late', 'c'), 'open>snoozed', 'nor for what somebody put aside');
SELECT is(public.due(), '2026-03-04 08:00+00', 'the next is that for resolving');
SELECT public.at('2026-03-03 11:00') \gset
SELECT is((SELECT count(*)::int FROM cs_internal.alert_event WHERE alert_id = public.id('late')), 2, 'told once');
SELECT public.at('2026-03-03 20:00') \gset
SELECT alike(public.notes('late', 'c'), '%snoozed>open snooze is over; not acknowledged in time; escalated to boss', 'back from the snooze it is late');
SELECT public.at('2026-03-04 08:00') \gset
SELECT alike(public.notes('late'), '%| open>open (deadline) not resolved in time; escalated to boss', 'resolving has its own');
SELECT alike(public.notes('late', 'b'), '%| acknowledged>acknowledged (deadline) not resolved in time; escalated to boss', 'also of an acknowledged one');
SELECT public.put('{a}', 5);
SELECT public.at('2026-03-04 09:00') \gset
SELECT public.put('{a}', 1);
SELECT public.at('2026-03-04 10:00') \gset
SELECT is((SELECT (state, ack_due_at, escalated_to, escalated_at)::text FROM cs.alert WHERE id = public.id('late')),
	'(open,"2026-03-04 12:00:00+00",,)', 'opened again, it has new deadlines');
UPDATE cs.alert_rule SET escalate_to = NULL WHERE name = 'late';
SELECT public.at('2026-03-04 12:00') \gset
SELECT alike(public.notes('late'), '%| open>open (deadline) not acknowledged in time', 'without anybody to escalate to it is told all the same');
DELETE FROM cs.alert_rule WHERE name = 'late';

-- ---- business hours ------------------------------------------------------------------
CREATE FUNCTION public.office(at text, within interval, hours text DEFAULT 'mon-fri 09:00-17:00') RETURNS text LANGUAGE sql AS $$
	SELECT to_char(cs_internal.hours_after(hours, at::timestamp AT TIME ZONE 'Europe/Berlin', within) AT TIME ZONE 'Europe/Berlin', 'Dy HH24:MI:SS')
$$;
SELECT is(public.office('2026-03-02 10:00:30', '2 hours'), 'Mon 12:00:30', 'inside the hours');
SELECT is(public.office('2026-03-02 16:00', '2 hours'), 'Tue 10:00:00', 'over the night');
SELECT is(public.office('2026-03-06 16:30', '1 hour'), 'Mon 09:30:00', 'over the weekend');
SELECT is(public.office('2026-03-07 12:00', '1 hour'), 'Mon 10:00:00', 'begun outside');
SELECT is(public.office('2026-03-02 16:00', '1 hour'), 'Mon 17:00:00', 'up to the end');
SELECT is(public.office('2026-03-06 10:00', '1 day'), 'Mon 10:00:00', 'a day is a day with hours');
SELECT is(public.office('2026-03-05 16:00', '1 day 2 hours'), 'Mon 10:00:00', 'days first, then hours');
SELECT is(public.office('2026-03-07 10:00', '3 hours', 'sat 09:00-12:00, mon-fri 08:00-10:00'), 'Mon 09:00:00', 'several parts');
SELECT is(public.office('2026-03-02 23:00', '2 hours', '22:00-06:00'), 'Tue 01:00:00', 'hours over midnight');
SELECT is(public.office('2026-03-29 00:30', '2 hours', '00:00-24:00'), 'Sun 03:30:00', 'an hour that the clocks skip does not count');
SELECT is(public.office('2026-10-25 01:30', '2 hours', '00:00-24:00'), 'Sun 02:30:00', 'one that they repeat counts twice');
SELECT is(public.office('2026-03-07 10:00', '1 hour', 'fri-mon 09:00-10:00'), 'Sun 10:00:00', 'days over the end of the week');
SELECT is(public.office('2026-03-02 10:00', '40 hours'), 'Mon 10:00:00', 'a week of them');
INSERT INTO cs.alert_rule (name, rule, ack_within, calendar) VALUES ('office', 'x < 4', '4 hours', 'mon-fri 09:00-17:00');
SELECT public.at('2026-03-06 14:00') \gset
SELECT is((SELECT ack_due_at AT TIME ZONE 'Europe/Berlin' FROM cs.alert WHERE id = public.id('office')), '2026-03-09 11:00', 'an alert on Friday at 15:00 is due on Monday at 11:00');
DELETE FROM cs.alert_rule WHERE name = 'office';
SELECT public.put('{a,b,c,d,e,f,g}', 5);

-- ---- quiet hours -----------------------------------------------------------------------
INSERT INTO cs.alert_rule (name, rule, quiet_hours) VALUES ('quiet', 'x < 4', '22:00-07:00');
SELECT public.put('{a,b}', 1);
SELECT public.at('2026-03-10 22:30') \gset
SELECT is(public.life('quiet'), 'a:pending b:pending', 'nothing opens in quiet hours');
SELECT is(public.due(), '2026-03-11 06:00+00', 'it is due when they are over');
SELECT is((SELECT (held_by, held_until_at)::text FROM cs.held_alert WHERE customer_id = 'a'), '(quiet_hours,"2026-03-11 06:00:00+00")', 'and shown as held');
SELECT is((SELECT count(*)::int FROM cs_internal.alert_event WHERE alert_id = public.id('quiet')), 0, 'quietly');
SELECT public.put('{b}', 5);
SELECT public.at('2026-03-11 05:00') \gset
SELECT is(public.life('quiet'), 'a:pending b:resolved', 'what is over by then never opened');
SELECT public.at('2026-03-11 06:00') \gset
SELECT is(public.life('quiet'), 'a:open b:resolved', 'then it opens');
SELECT is((SELECT count(*)::int FROM cs.held_alert), 0, 'nothing is held');
SELECT public.put('{a}', 5);
SELECT public.at('2026-03-11 23:00') \gset
SELECT is(public.life('quiet'), 'a:resolved b:resolved', 'resolving does not wait');
DELETE FROM cs.alert_rule WHERE name = 'quiet';

-- ---- a cap per owner and day -------------------------------------------------------------
INSERT INTO cs.alert_rule (name, rule, owner_cap_per_day) VALUES ('cap', 'x < 4', 2);
SELECT public.put('{a,b,c,d,f,g}', 1);
SELECT public.at('2026-03-12 09:00') \gset
SELECT is(public.life('cap'), 'a:pending b:open c:open d:open f:open g:open', 'the largest customers of an owner first; without an owner there is no cap');
SELECT is((SELECT (customer_id, owner, held_by, rank, held_until_at)::text FROM cs.held_alert), '(a,ann,owner_cap_per_day,1,"2026-03-12 23:00:00+00")', 'the rest is shown and waits for the next local day');
SELECT public.put('{e}', 1);
SELECT public.at('2026-03-12 10:00') \gset
SELECT is(public.life('cap'), 'a:pending b:open c:open d:open e:open f:open g:open', 'what opened before counts');
SELECT public.put('{b,c}', 5);
SELECT public.at('2026-03-12 11:00') \gset
SELECT is((SELECT state FROM cs.alert WHERE id = public.id('cap')), 'pending', 'resolving gives no room on the same day');
SELECT public.at('2026-03-12 23:00') \gset
SELECT is((SELECT (state, owner, opened_at)::text FROM cs.alert WHERE id = public.id('cap')), '(open,ann,"2026-03-12 23:00:00+00")', 'the next day does');
DELETE FROM cs.alert_rule WHERE name = 'cap';
SELECT public.put('{a,b,c,d,e,f,g}', 5);
SELECT public.at('2026-03-13 00:00') \gset
INSERT INTO cs.alert_rule (name, rule, max_new, severity_expression) VALUES ('rank', 'x < 4', 2, $$CASE WHEN x < 1 THEN 'critical' END$$);
SELECT public.put('{a}', 0); SELECT public.put('{b,c,d}', 1);
SELECT public.at('2026-03-13 01:00') \gset
SELECT is(public.life('rank'), 'a:open b:pending c:pending d:open', 'max_new too lets the most severe, then the largest through');
SELECT is((SELECT string_agg(customer_id || rank, ' ' ORDER BY rank) FROM cs.held_alert), 'c1 b2', 'the rest in the order in which it comes');
DELETE FROM cs.alert_rule WHERE name = 'rank';
SELECT public.put('{a,b,c,d,e,f,g}', 5);
SELECT public.at('2026-03-13 02:00') \gset

-- ---- inhibition -----------------------------------------------------------------------------
INSERT INTO cs.alert_rule (name, rule) VALUES ('root', 'y < 4');
INSERT INTO cs.alert_rule (name, rule, inhibited_by) VALUES ('leaf', 'x < 4', 'root'), ('lower', 'x < 4', 'root, leaf');
SELECT public.put('{a,b}', 1);
SELECT public.put('{a}', 1, 'y');
SELECT public.at('2026-03-14 09:00') \gset
SELECT is((public.life('root'), public.life('leaf'), public.life('lower'))::text, '(a:open,"a:pending b:open","a:pending b:pending")', 'while one is open those that it inhibits wait, and a held one inhibits nothing');
SELECT is((SELECT string_agg(rule || customer_id || held_by, ' ' ORDER BY rule, customer_id) FROM cs.held_alert), 'leafainhibited_by lowerainhibited_by lowerbinhibited_by', 'shown as held');
SELECT public.put('{a}', 5, 'y');
SELECT public.at('2026-03-14 10:00') \gset
SELECT is((public.life('root'), public.life('leaf'), public.life('lower'))::text, '(a:resolved,"a:open b:open","a:pending b:pending")', 'resolved, the next opens at once');
DELETE FROM cs_internal.dirty;
SELECT state FROM cs.dismiss_alert(public.id('leaf', 'b'), 'known') \gset
SELECT is((SELECT array_agg(customer_id) FROM cs_internal.dirty), '{b}', 'closed by a person, the customer is evaluated');
SELECT public.at('2026-03-14 11:00') \gset
SELECT is(public.life('lower'), 'a:pending b:open', 'and the next opens');
SELECT public.put('{a}', 1, 'y');
SELECT public.at('2026-03-14 12:00') \gset
SELECT is((public.life('root'), public.life('leaf'))::text, '(a:open,"a:open b:dismissed")', 'what is open already stays');
SELECT throws_like($$UPDATE cs.alert_rule SET inhibited_by = 'lower' WHERE name = 'root'$$, '%cycle: root -> lower -> root%', 'a cycle is refused with its path');
SELECT throws_like($$UPDATE cs.alert_rule SET inhibited_by = 'rot' WHERE name = 'leaf'$$, '%names "rot", which is no alert rule%', 'so is an unknown rule');
SELECT throws_ok($$DELETE FROM cs.alert_rule WHERE name = 'leaf'$$, '2BP01', 'alert rule "leaf" is in use', 'a rule that is named cannot go');
INSERT INTO cs.outbox_topic (name, event, rule) VALUES ('lower', 'alert', 'lower');
SELECT throws_ok($$UPDATE cs.alert_rule SET name = 'lowest' WHERE name = 'lower'$$, '2BP01', 'alert rule "lower" is in use', 'nor be named otherwise');
UPDATE cs.alert_rule SET enabled = false WHERE name = 'root';
SELECT public.put('{d}', 1); SELECT public.put('{d}', 1, 'y');
SELECT public.at('2026-03-14 13:00') \gset
SELECT is((SELECT state FROM cs.alert WHERE id = public.id('leaf', 'd')), 'open', 'a rule that is off inhibits nothing');
SELECT * FROM finish();
