-- Bad arguments and bad definitions: each gives an error with its SQLSTATE that
-- names the thing, and changes nothing.
\ir ../lib/small_company.sql
SET client_min_messages = warning;
CALL cs.refresh();
SELECT * FROM no_plan();

-- What is in the extension's tables, in one number.
CREATE FUNCTION public.contents() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	t record;
	part text;
	whole text := '';
BEGIN
	FOR t IN SELECT c.oid::regclass AS name FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace IN ('cs'::regnamespace, 'cs_internal'::regnamespace) ORDER BY c.oid LOOP
		EXECUTE format('SELECT coalesce(md5(string_agg(x::text, E''\n'' ORDER BY x::text)), ''empty'') FROM %s x', t.name) INTO part;
		whole := whole || t.name || ' ' || part || E'\n';
	END LOOP;
	RETURN md5(whole || (SELECT coalesce(string_agg(tgname, ',' ORDER BY tgname), '') FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE c.relnamespace = 'app'::regnamespace));
END $$;

-- refused: the statement raises an error of this SQLSTATE (a pattern) whose message, detail or hint
-- mentions the thing (a pattern), and leaves user, path and zone of the session as they were.
CREATE FUNCTION public.refused(label text, statement text, code text, mention text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text; message text; detail text; hint text; said text;
	session text := format('%s %s %s', current_user, current_setting('search_path'), current_setting('TimeZone'));
BEGIN
	BEGIN
		EXECUTE statement;
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	END;
	IF state IS NULL THEN
		RETURN fail(label || ': was accepted');
	END IF;
	said := format('%s: %s / %s / %s', state, message, detail, hint);
	RETURN ok(state ~ ('^(' || code || ')$') AND concat_ws(' ', message, detail, hint) ~* mention
		AND session = format('%s %s %s', current_user, current_setting('search_path'), current_setting('TimeZone')), label)
		|| CASE WHEN state ~ ('^(' || code || ')$') AND concat_ws(' ', message, detail, hint) ~* mention THEN '' ELSE E'\n' || diag(said) END;
END $$;

CREATE TABLE public.before AS SELECT public.contents() AS contents;

-- ---- periods, instants, segments, methods -------------------------------------
SELECT public.refused('a month that does not exist', $$SELECT cs.churn_rate('2025-13')$$, '22\w+', '2025-13');
SELECT public.refused('a word that is no period', $$SELECT cs.churn_rate('lst month')$$, '22\w+', 'last month');
SELECT public.refused('an empty period word', $$SELECT cs.churn_rate('')$$, '22\w+', 'period');
SELECT public.refused('a reversed period', $$SELECT cs.churn_rate('[2025-06-01,2025-01-01)')$$, '22\w+', '2025-06-01');
SELECT public.refused('an empty range', $$SELECT cs.churn_rate('[2025-06-01,2025-06-01)')$$, '22\w+', '2025-06-01');
SELECT public.refused('a wholly future period', $$SELECT cs.churn_rate('2031-01')$$, '22\w+', '2031-01');
SELECT public.refused('an instant that does not parse', $$SELECT cs.mrr('yesterdayish')$$, '22\w+', 'yesterdayish');
SELECT public.refused('an unknown segment of a dimension', $$SELECT cs.churn_rate('2025-05', 'tier:enterprize')$$, '42704|22\w+', 'enterprise');
SELECT public.refused('an unknown dimension', $$SELECT cs.churn_rate('2025-05', 'teir:enterprise')$$, '42704|22\w+', 'tier');
SELECT public.refused('an unknown method', $$SELECT cs.churn_rate('2025-05', method => 'snapshoot')$$, '22\w+', 'snapshot');
SELECT public.refused('an unknown unit', $$SELECT cs.churn_rate('2025-05', unit => 'logos')$$, '22\w+', 'logo');
SELECT public.refused('revenue of an unknown segment', $$SELECT * FROM cs.revenue('2025-05', 'tier:enterprize')$$, '42704|22\w+', 'enterprise');
SELECT public.refused('churn by an unknown dimension', $$SELECT * FROM cs.churn_by('2025-05', 'teir')$$, '42704|22\w+', 'tier');
SELECT public.refused('a series by an unknown grain', $$SELECT * FROM cs.churn_series('2025-01-01', '2025-05-01', 'moth')$$, '22\w+', 'month');
SELECT public.refused('a rate above everything', $$SELECT cs.annualise(5, 30)$$, '22\w+', '5 %');
SELECT public.refused('an unknown basis', $$SELECT * FROM cs.revenue('2025-05', basis => 'ledgr')$$, '22\w+', 'ledger');

-- ---- acting on what is not there ------------------------------------------------
SELECT public.refused('refreshing a customer nobody knows', $$SELECT cs.refresh_customer('nobody')$$, 'P0002|42704|22\w+', 'nobody');
SELECT public.refused('dropping a source nobody registered', $$SELECT cs.drop_source('ticket')$$, '42704', 'tickets');
SELECT public.refused('refresh with commits inside a transaction', $$CALL cs.refresh()$$, '25001|2D000|0A000|55000', 'commit => false');

-- ---- set-up and sources -----------------------------------------------------------
SELECT public.refused('a time zone that does not exist', $$SELECT cs.setup(time_zone => 'Mars/Olympus', currency => 'EUR')$$, '22\w+|55000|42710', 'Mars/Olympus|already|set up');
SELECT public.refused('an unknown kind', $$SELECT cs.add_source('x', 'tickt', 'app.ticket', '{}')$$, '22\w+|42704', 'ticket');
SELECT public.refused('an unknown column', $$SELECT cs.add_source('x', 'ticket', 'app.ticket', '{"custmer_id": "customer_id", "opened_at": "opened_at"}')$$, '42703|22\w+', 'customer_id');
SELECT public.refused('a required column left out', $$SELECT cs.add_source('x', 'ticket', 'app.ticket', '{"customer_id": "customer_id"}')$$, '22\w+|42\w+|23502', 'opened_at');
SELECT public.refused('an expression that does not parse', $$SELECT cs.add_source('x', 'ticket', 'app.ticket', '{"customer_id": "customer_id", "opened_at": "opened_at +"}')$$, '42601', 'opened_at');
SELECT public.refused('an expression over a column that is not there', $$SELECT cs.add_source('x', 'ticket', 'app.ticket', '{"customer_id": "customer_id", "opened_at": "openend_at"}')$$, '42703', 'opened_at');
SELECT public.refused('an expression of the wrong type', $$SELECT cs.add_source('x', 'ticket', 'app.ticket', '{"customer_id": "customer_id", "opened_at": "severity = ''low''"}')$$, '42804|22\w+', 'opened_at');
SELECT public.refused('an expression that is two', $$SELECT cs.add_source('x', 'ticket', 'app.ticket', '{"customer_id": "customer_id", "opened_at": "opened_at, now()"}')$$, '42601|42804|22\w+', 'opened_at');
SELECT public.refused('a volatile expression', $$SELECT cs.add_source('x', 'ticket', 'app.ticket', '{"customer_id": "customer_id", "opened_at": "clock_timestamp()"}')$$, '42\w+|22\w+|0A000', 'opened_at|volatile');
SELECT public.refused('a relation that is gone', $$SELECT cs.add_source('x', 'ticket', 'app.tickets_old', '{"customer_id": "customer_id", "opened_at": "opened_at"}')$$, '42P01', 'tickets_old');
SELECT public.refused('both mrr and amount', $$SELECT cs.add_source('x', 'subscription', 'app.subscription', '{"customer_id": "customer_id", "start_at": "start_on", "mrr": "mrr", "amount": "mrr", "interval": "''month''"}')$$, '22\w+|42\w+', 'mrr.*amount|amount.*mrr');
SELECT public.refused('amount without interval', $$SELECT cs.add_source('x', 'subscription', 'app.subscription', '{"customer_id": "customer_id", "start_at": "start_on", "amount": "mrr"}')$$, '22\w+|42\w+|23502', 'interval');
SELECT public.refused('a name that is taken', $$SELECT cs.add_source('tickets', 'ticket', 'app.ticket', '{"customer_id": "customer_id", "opened_at": "opened_at"}')$$, '42710|23505', 'tickets');
SELECT public.refused('an unknown capture', $$SELECT cs.add_source('x', 'ticket', 'app.ticket', '{"customer_id": "customer_id", "opened_at": "opened_at"}', capture => 'triger')$$, '22\w+', 'trigger');
SELECT public.refused('a watermark that the table does not have', $$SELECT cs.add_source('x', 'ticket', 'app.ticket', '{"customer_id": "customer_id", "opened_at": "opened_at"}', capture => 'watermark')$$, '55000', 'add_watermark');
SELECT public.refused('a window of too many days', $$SELECT cs.add_source('x', 'ticket', 'app.ticket', '{"customer_id": "customer_id", "opened_at": "opened_at"}', capture => 'window 401')$$, '22023', 'window');
SELECT public.refused('rows overwritten in place without a key', $$SELECT cs.add_source('x', 'subscription', 'app.subscription', '{"customer_id": "customer_id", "start_at": "start_on", "mrr": "mrr"}', terms => 'current')$$, '22\w+', 'subscription_id');
SELECT public.refused('a licence without seats', $$SELECT cs.add_source('x', 'licence', 'app.subscription', '{"customer_id": "customer_id", "start_at": "start_on"}')$$, '22\w+|42\w+', 'seats');
SELECT public.refused('a merge into nobody', $$SELECT cs.add_source('x', 'customer_merge', 'app.touch', '{"from_customer_id": "customer_id", "at": "at"}')$$, '22\w+|42\w+', 'into_customer_id');

-- ---- policy ------------------------------------------------------------------------
SELECT public.refused('a policy in a zone that does not exist', $$UPDATE cs.policy SET time_zone = 'Europe/Atlantis'$$, '22\w+', 'Atlantis');
SELECT public.refused('an unknown period edge', $$UPDATE cs.policy SET period_edge = 'befor'$$, '22\w+|23514', 'period_edge|before');
SELECT public.refused('a confidence of more than one', $$UPDATE cs.policy SET confidence = 1.5$$, '22\w+|23514', 'confidence');
SELECT public.refused('a week that starts on day eight', $$UPDATE cs.policy SET week_start = 8$$, '22\w+|23514', 'week_start');
SELECT public.refused('negative days of grace', $$UPDATE cs.policy SET grace_days = -1$$, '22\w+|23514', 'negative');
SELECT public.refused('an execution role that is a superuser', $$UPDATE cs.policy SET run_as = current_user$$, '22\w+|42\w+|23514', 'superuser');
SELECT public.refused('an execution role that does not exist', $$UPDATE cs.policy SET run_as = 'nobody_here'$$, '42704|22\w+', 'nobody_here');

-- ---- metrics -----------------------------------------------------------------------
SELECT public.refused('a metric that does not parse', $$INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('m1', 'ticket', 'count(*', 'count', 'low')$$, '42601', 'm1');
SELECT public.refused('a metric over an unknown column', $$INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('m2', 'ticket', 'count(*) FILTER (WHERE resolvd_at IS NULL)', 'count', 'low')$$, '42703', 'm2|resolvd_at');
SELECT public.refused('a volatile metric', $$INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('m3', 'ticket', 'count(*) * random()', 'count', 'low')$$, '42\w+|22\w+|0A000', 'm3|volatile');
SELECT public.refused('a metric that is two statements', $$INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('m4', 'ticket', 'count(*); DELETE FROM app.ticket', 'count', 'low')$$, '42601|22\w+', 'm4|;|DELETE');
SELECT public.refused('a metric with a name that is none', $$INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('My Metric', 'ticket', 'count(*)', 'count', 'low')$$, '22\w+|42602|23514', 'My Metric');
SELECT public.refused('a metric named like a column in use', $$INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('attributes', 'ticket', 'count(*)', 'count', 'low')$$, '42\w+|22\w+', 'attributes');
SELECT public.refused('a metric of an unknown source', $$INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('m5', 'tiket', 'count(*)', 'count', 'low')$$, '42704|22\w+', 'ticket');
SELECT public.refused('a metric that is a text', $$INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('m6', 'ticket', 'max(severity)', 'number', 'low')$$, '42804|22\w+', 'm6|text');
SELECT public.refused('a metric that is an interval', $$INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('m7', 'ticket', 'max(resolved_at - opened_at)', 'number', 'low')$$, '42804|22\w+', 'epoch');
SELECT public.refused('a window that is not constant', $$INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('m8', 'usage', 'events(usage, NULL, (random() * 30)::int)', 'count', 'high')$$, '42\w+|22\w+|0A000', 'm8|constant|volatile');
SELECT public.refused('an unknown unit of a metric', $$INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('m9', 'ticket', 'count(*)', 'counts', 'low')$$, '22\w+|23514', 'count');
SELECT public.refused('a metric better sideways', $$INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('m10', 'ticket', 'count(*)', 'count', 'sideways')$$, '22\w+|23514', 'better|sideways');
SELECT public.refused('a formula over an unknown metric', $$INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('m11', 'formula', 'open_tickts * 2', 'number', 'low')$$, '42703|42704|22\w+', 'open_tickets');
SELECT public.refused('a cyclic formula', $$WITH a AS (INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('m12', 'formula', 'open_tickets + 1', 'number', 'low')) SELECT 1;
	UPDATE cs.metric SET expression = 'm12 + 1' WHERE name = 'm12'$$, '42\w+|22\w+', 'm12');
SELECT public.refused('deleting a metric in use', $$DELETE FROM cs.metric WHERE name = 'active_days_30d'$$, '2BP01|23503|55006|55000', 'default|active_days_30d');

-- ---- scorecards ---------------------------------------------------------------------
SELECT public.refused('a measure of an unknown metric', $$INSERT INTO cs.measure (scorecard, name, metric, worst, best) VALUES ('default', 'x', 'open_tickts', 5, 0)$$, '42704|23503|22\w+', 'open_tickets');
SELECT public.refused('a negative weight', $$UPDATE cs.measure SET weight = -1 WHERE scorecard = 'default' AND metric = 'open_tickets'$$, '22\w+|23514', 'weight');
SELECT public.refused('a weight that is no number', $$UPDATE cs.measure SET weight = 'NaN' WHERE scorecard = 'default' AND metric = 'open_tickets'$$, '22\w+|23514', 'weight');
SELECT public.refused('all weights zero', $$UPDATE cs.measure SET weight = 0 WHERE scorecard = 'default'$$, '22\w+|23514', 'weight');
SELECT public.refused('worst is best', $$UPDATE cs.measure SET worst = 1, best = 1 WHERE scorecard = 'default' AND metric = 'open_tickets'$$, '22\w+|23514', 'worst');
SELECT public.refused('red above green', $$UPDATE cs.scorecard SET red_below = 80, green_from = 60 WHERE name = 'default'$$, '22\w+|23514', 'red_below');
SELECT public.refused('an unknown curve', $$UPDATE cs.measure SET curve = 'liner' WHERE scorecard = 'default' AND metric = 'open_tickets'$$, '22\w+|23514', 'linear');
SELECT public.refused('percentile without within', $$UPDATE cs.measure SET curve = 'percentile', worst = NULL, best = NULL, within = NULL WHERE scorecard = 'default' AND metric = 'open_tickets'$$, '22\w+|23514|0A000', 'within|percentile');
SELECT public.refused('steps that do not rise', $$UPDATE cs.measure SET curve = 'steps', worst = NULL, best = NULL, steps = '[{"to": 10, "points": 0}, {"to": 5, "points": 50}, {"points": 100}]' WHERE scorecard = 'default' AND metric = 'open_tickets'$$, '22\w+|23514|0A000', 'steps');
SELECT public.refused('an unknown policy for what is missing', $$UPDATE cs.measure SET missing = 'zeroo' WHERE scorecard = 'default' AND metric = 'open_tickets'$$, '22\w+|23514', 'zero');
SELECT public.refused('a scorecard of an unknown segment', $$INSERT INTO cs.scorecard (name, segment, priority) VALUES ('x', 'tier:enterprize', 10)$$, '42704|22\w+', 'enterprise');
SELECT public.refused('a measure of an unknown scorecard', $$INSERT INTO cs.measure (scorecard, name, metric, worst, best) VALUES ('defalt', 'x', 'open_tickets', 5, 0)$$, '23503|42704', 'scorecard');

-- ---- rules: segments and alerts ---------------------------------------------------------
SELECT public.refused('a rule that does not parse', $$INSERT INTO cs.segment (dimension, name, rule) VALUES ('tier', 'x', 'mrr >= ')$$, '42601', 'rule|segment|"x"');
SELECT public.refused('a rule naming an unknown metric', $$INSERT INTO cs.segment (dimension, name, rule) VALUES ('tier', 'x', 'open_tickts > 3')$$, '42703|42704|22\w+', 'open_tickets');
SELECT public.refused('a rule that is no condition', $$INSERT INTO cs.segment (dimension, name, rule) VALUES ('tier', 'x', 'mrr + 1')$$, '42804|22\w+', 'boolean');
SELECT public.refused('a rule that writes', $$INSERT INTO cs.segment (dimension, name, rule) VALUES ('tier', 'x', 'mrr > 0); DELETE FROM app.ticket; SELECT (true')$$, '42601|22\w+', 'rule|segment|;');
SELECT public.refused('a volatile rule', $$INSERT INTO cs.segment (dimension, name, rule) VALUES ('tier', 'x', 'mrr > random()')$$, '42\w+|22\w+|0A000', 'volatile');
SELECT public.refused('a rule that sleeps', $$INSERT INTO cs.segment (dimension, name, rule) VALUES ('tier', 'x', 'pg_sleep(1) IS NULL')$$, '42\w+|22\w+|0A000', 'volatile|pg_sleep');
SELECT public.refused('a segment of an unknown dimension', $$INSERT INTO cs.segment (dimension, name, rule) VALUES ('teir', 'x', 'mrr > 0')$$, '42704|23503|22\w+', 'dimension|tier');
SELECT public.refused('a dimension named like a metric', $$INSERT INTO cs.dimension (name, fallback) VALUES ('open_tickets', 'x')$$, '42\w+|22\w+|23505', 'open_tickets');
SELECT public.refused('a dimension that depends on itself', $$INSERT INTO cs.segment (dimension, name, rule) VALUES ('tier', 'x', $r$tier = 'enterprise'$r$)$$, '42\w+|22\w+', 'tier');
SELECT public.refused('an unknown severity', $$INSERT INTO cs.alert_rule (name, rule, severity) VALUES ('r1', 'mrr > 0', 'hihg')$$, '22\w+|23514', 'high');
SELECT public.refused('an alert rule naming an unknown metric', $$INSERT INTO cs.alert_rule (name, rule, severity) VALUES ('r2', 'usage_chnge_30d < 0', 'high')$$, '42703|42704|22\w+', 'usage_change_30d');
SELECT public.refused('a clear rule that does not parse', $$INSERT INTO cs.alert_rule (name, rule, clear_rule, severity) VALUES ('r3', 'mrr > 0', 'mrr >', 'high')$$, '42601', 'r3|clear');
SELECT public.refused('an alert over rows of an unknown kind', $$INSERT INTO cs.alert_rule (name, source, rule, key, severity) VALUES ('r4', 'tickt', 'escalated', 'ticket_id', 'high')$$, '42704|22\w+', 'ticket');
SELECT public.refused('an alert that lasts a negative time', $$INSERT INTO cs.alert_rule (name, rule, severity, dwell) VALUES ('r5', 'mrr > 0', 'high', '-1 day')$$, '22\w+|23514', 'dwell');
SELECT public.refused('an alert of an unknown segment', $$INSERT INTO cs.alert_rule (name, rule, severity, segment) VALUES ('r6', 'mrr > 0', 'high', 'tier:enterprize')$$, '42704|22\w+', 'enterprise');
SELECT public.refused('a message that does not parse', $$INSERT INTO cs.alert_rule (name, rule, severity, message) VALUES ('r7', 'mrr > 0', 'high', 'format(')$$, '42601', 'r7|message');

-- ---- jobs, rates --------------------------------------------------------------------------
SELECT public.refused('an unknown kind of job', $$INSERT INTO cs.job (name, kind, every) VALUES ('j1', 'refrsh', '1 minute')$$, '22\w+|23514', 'refresh');
SELECT public.refused('a job that is due always', $$INSERT INTO cs.job (name, kind, every) VALUES ('j2', 'refresh', '0')$$, '22\w+|23514', 'every');
SELECT public.refused('a job of SQL as a superuser', $$INSERT INTO cs.job (name, kind, command, every, run_as) VALUES ('j3', 'sql', 'SELECT 1', '1 hour', current_user)$$, '22\w+|42\w+|23514|0A000', 'superuser|sql');
SELECT public.refused('a rate below zero', $$INSERT INTO cs.fx_rate (currency, valid_from, rate) VALUES ('USD', '2024-01-01', -1)$$, '22\w+|23514', 'rate');

SELECT is(public.contents(), contents, 'and nothing was changed by any of them') FROM public.before;

-- A member of nothing may not define anything.
CREATE ROLE bad_input_guest;
GRANT USAGE ON SCHEMA cs TO bad_input_guest;
GRANT INSERT, SELECT ON cs.metric TO bad_input_guest;
SET ROLE bad_input_guest;
SELECT throws_ok($$INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('m13', 'ticket', 'count(*)', 'count', 'low')$$, '42501', NULL, 'a definition by no member of the execution role');
RESET ROLE;
REVOKE ALL ON cs.metric FROM bad_input_guest;
REVOKE ALL ON SCHEMA cs FROM bad_input_guest;
DROP ROLE bad_input_guest;
SELECT is(public.contents(), contents, 'nor by that') FROM public.before;

-- A snapshot that cannot see the newest commits must not write scores.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT throws_ok($$SELECT cs.refresh_customer('1')$$, '25001', NULL, 'refresh_customer under REPEATABLE READ');
COMMIT;
SELECT is_empty('SELECT * FROM cs.check()', 'no invariant is broken');
SELECT * FROM finish();
