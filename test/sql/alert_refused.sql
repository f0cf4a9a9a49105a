-- Alert rules that are refused: SQLSTATE, what is named, the hint.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS cs_ext CASCADE;
CREATE EXTENSION cs_ext;
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL);
CREATE TABLE public.alert_ticket (id int PRIMARY KEY, company text NOT NULL, opened timestamptz NOT NULL, closed timestamptz, urgent boolean, team text);
GRANT SELECT ON public.alert_ticket TO cs_ext_run;

CREATE FUNCTION refused(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text; detail text; hint text; state text;
BEGIN
	EXECUTE statement;
	RAISE EXCEPTION SQLSTATE 'OK000';
EXCEPTION WHEN SQLSTATE 'OK000' THEN
	RETURN 'accepted';
WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n  ', state || ' ' || message, nullif(detail, ''), nullif(hint, ''));
END $$;
CREATE FUNCTION alert_rule(columns text, vals text) RETURNS text LANGUAGE sql AS $$
	SELECT refused(format('INSERT INTO cs.alert_rule (name, %s) VALUES (''new'', %s)', columns, vals))
$$;
\pset format unaligned
\pset tuples_only on

SELECT alert_rule('rule', '''active AND''');
SELECT alert_rule('rule', '''actve''');
SELECT alert_rule('rule', '''owner''');
SELECT alert_rule('rule, clear_rule', '''active'', ''NOT activ''');
SELECT alert_rule('rule, message', '''active'', ''nme || 1''');
SELECT alert_rule('rule, severity', '''active'', ''hihg''');
INSERT INTO cs.dimension (name, fallback) VALUES ('tier', 'small');
SELECT alert_rule('rule, segment', '''active'', ''tier:smal''');
SELECT alert_rule('rule, dwell', '''active'', ''-1 day''');
SELECT alert_rule('rule, resolve_after', '''active'', ''-1 day''');
SELECT alert_rule('rule, cooldown', '''active'', ''-1 day''');
SELECT alert_rule('rule, reopen_within', '''active'', ''-1 day''');
SELECT alert_rule('rule, max_new', '''active'', 0');
-- whole segments, severity, deadlines, limits
SELECT alert_rule('rule, scope', '''active'', ''segment''');
SELECT alert_rule('rule, severity_expression', '''active'', ''sevrity''');
SELECT alert_rule('rule, ack_within', '''active'', ''0''');
SELECT alert_rule('rule, resolve_within', '''active'', ''-1 hour''');
SELECT alert_rule('rule, calendar', '''active'', ''office''');
SELECT alert_rule('rule, calendar', '''active'', ''mon-fri 09:00-17:00; sat 10:00-12:00''');
SELECT alert_rule('rule, calendar', '''active'', ''mon-fry 09:00-17:00''');
SELECT alert_rule('rule, calendar', '''active'', ''mon 09:00-25:00''');
SELECT alert_rule('rule, calendar', '''active'', ''mon 09:00-09:00''');
SELECT alert_rule('rule, calendar, ack_within', '''active'', ''mon 09:00-17:00'', ''1 month''');
SELECT alert_rule('rule, quiet_hours', '''active'', ''22-6''');
SELECT alert_rule('rule, quiet_hours', '''active'', ''00:00-24:00''');
SELECT alert_rule('rule, owner_cap_per_day', '''active'', 0');
SELECT alert_rule('rule, inhibited_by', '''active'', ''other''');
SELECT alert_rule('rule, inhibited_by', '''active'', ''new''');
SELECT alert_rule('rule, source, key', '''true'', ''usage_event'', ''event''');
-- rules over rows: before a source of the kind is registered only the syntax is known
SELECT alert_rule('rule, key', '''active'', ''ticket_id''');
SELECT alert_rule('rule, source', '''escalated'', ''ticket''');
SELECT alert_rule('rule, source, key', '''escalated'', ''tickt'', ''ticket_id''');
SELECT alert_rule('rule, source, key', '''escalated AND'', ''ticket'', ''ticket_id''');
SELECT alert_rule('rule, source, key', '''escalated'', ''ticket'', ''ticket_id''');
SELECT count(*) FROM cs.add_source('alert_tickets', 'ticket', 'public.alert_ticket',
	'{"customer_id": "company", "ticket_id": "id", "opened_at": "opened", "resolved_at": "closed", "escalated": "urgent", "x_team": "team"}');
SELECT alert_rule('rule, source, key', '''esclated'', ''ticket'', ''ticket_id''');
SELECT alert_rule('rule, source, key', '''mrr > 5'', ''ticket'', ''ticket_id''');
SELECT alert_rule('rule, source, key', '''x_team'', ''ticket'', ''ticket_id''');
SELECT alert_rule('rule, source, key', '''random() > 0.5'', ''ticket'', ''ticket_id''');
SELECT alert_rule('rule, source, key', '''escalated'', ''ticket'', ''id''');
SELECT alert_rule('rule, source, key', '''count(*) > 3'', ''ticket'', ''ticket_id''');
SELECT alert_rule('rule, source, key, message', $$'escalated AND x_team = ''a'' AND opened_at > as_of - interval ''3 days''', 'ticket', 'ticket_id', 'x_team'$$);
SELECT count(*) FROM cs.alert_rule;
SELECT cs.drop_source('alert_tickets');
DROP TABLE public.alert_ticket;
DROP FUNCTION alert_rule, refused;
\pset tuples_only off
DROP EXTENSION cs_ext;
CREATE EXTENSION cs_ext;
