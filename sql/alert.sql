
-- ---------------------------------------------------------------------------
-- alert: rules, alerts with identity and a life, their events.
-- ---------------------------------------------------------------------------

CREATE TABLE cs.alert_rule (
	name text PRIMARY KEY,
	rule text NOT NULL,
	clear_rule text,
	source text,
	key text,
	segment text,
	severity text NOT NULL DEFAULT 'medium',
	severity_expression text,
	scope text NOT NULL DEFAULT 'customer',
	message text,
	dwell interval NOT NULL DEFAULT '0',
	resolve_after interval NOT NULL DEFAULT '0',
	cooldown interval NOT NULL DEFAULT '1 day',
	reopen_within interval NOT NULL DEFAULT '7 days',
	ack_within interval,
	resolve_within interval,
	calendar text,
	quiet_hours text,
	owner_cap_per_day integer,
	escalate_to text,
	fallback_owner text,
	max_new integer NOT NULL DEFAULT 100,
	inhibited_by text,
	recommended_action text,
	enabled boolean NOT NULL DEFAULT true,
	description text,
	search_path text NOT NULL DEFAULT pg_catalog.current_setting('search_path')
);
SELECT pg_catalog.pg_extension_config_dump('cs.alert_rule', '');
COMMENT ON TABLE cs.alert_rule IS 'When an alert opens and when it is over, per customer or per row of a kind of fact. Evaluated at each refresh for the customers that changed or are due.';
COMMENT ON COLUMN cs.alert_rule.name IS 'Name of the rule, part of an alert''s identity.';
COMMENT ON COLUMN cs.alert_rule.rule IS 'SQL condition that opens: over the customer''s state, or with source over the columns of a row. NULL neither opens nor clears.';
COMMENT ON COLUMN cs.alert_rule.clear_rule IS 'SQL condition that resolves; NULL: rule is false.';
COMMENT ON COLUMN cs.alert_rule.source IS 'Kind of fact, or name of a source of kind other, whose rows the rule looks at; NULL: the customer''s state.';
COMMENT ON COLUMN cs.alert_rule.key IS 'With source: SQL expression that identifies a row (ticket_id), so that each has its own alert.';
COMMENT ON COLUMN cs.alert_rule.segment IS 'Only customers in this segment; leaving it resolves. With scope segment: the dimension whose segments are looked at, or one of them as dimension:segment; the key of the alert is the segment. NULL: all (with scope segment: all customers together, key all).';
COMMENT ON COLUMN cs.alert_rule.severity IS 'low, medium, high or critical; what holds where severity_expression gives none.';
COMMENT ON COLUMN cs.alert_rule.severity_expression IS 'SQL expression for the severity, over what the rule sees, evaluated while the rule holds. An open alert follows it; a snoozed one that becomes worse is open again. NULL: always severity.';
COMMENT ON COLUMN cs.alert_rule.scope IS 'customer: the rule looks at each customer; segment: at whole segments, once a local day, with the columns segment, dimension, customers, mrr, red, yellow, green, red_share with its bounds red_low and red_high, mean_score, score_change_30d, churned and churn_rate of the last month that is over, and churn_limit (control limit of the months before).';
COMMENT ON COLUMN cs.alert_rule.message IS 'SQL expression for the text of the alert, over what the rule sees; NULL: no text.';
COMMENT ON COLUMN cs.alert_rule.dwell IS 'How long rule must hold before the alert opens; it is pending until then.';
COMMENT ON COLUMN cs.alert_rule.resolve_after IS 'How long it must be clear before the alert is resolved.';
COMMENT ON COLUMN cs.alert_rule.cooldown IS 'After a dismissal: no new alert until this is over and the rule was once false.';
COMMENT ON COLUMN cs.alert_rule.reopen_within IS 'After a resolution: within this time the same alert is opened again, later a new one.';
COMMENT ON COLUMN cs.alert_rule.ack_within IS 'Time from opening within which somebody must acknowledge; passed, it is told as an event with cause deadline, and escalated. NULL: no deadline.';
COMMENT ON COLUMN cs.alert_rule.resolve_within IS 'Time from opening within which it must be resolved; passed, as ack_within. NULL: no deadline.';
COMMENT ON COLUMN cs.alert_rule.calendar IS 'Hours of the week that count for ack_within and resolve_within, in the policy''s zone, such as mon-fri 09:00-17:00, sat 10:00-14:00: days of an interval are then days with hours. NULL: all hours count.';
COMMENT ON COLUMN cs.alert_rule.quiet_hours IS 'Hours of the week in which no alert of the rule opens, written as in calendar, such as 22:00-07:00; it is pending until they are over. NULL: none.';
COMMENT ON COLUMN cs.alert_rule.owner_cap_per_day IS 'At most so many alerts of the rule open per owner and local day, the most severe and largest customers first; the rest is pending until the next day (cs.held_alert). Without an owner there is no cap. NULL: no limit.';
COMMENT ON COLUMN cs.alert_rule.escalate_to IS 'Who looks after an alert whose deadline was missed, shown as escalated_to; the owner stays. NULL: nobody.';
COMMENT ON COLUMN cs.alert_rule.fallback_owner IS 'Owner of the alert where the customer has none.';
COMMENT ON COLUMN cs.alert_rule.max_new IS 'At most so many alerts of the rule open per refresh run; the rest is held, tried again an hour later, and reported.';
COMMENT ON COLUMN cs.alert_rule.inhibited_by IS 'Names of other rules, separated by commas: while an alert of one of them is open for the customer, none of this rule opens; it is pending until then. NULL: none.';
COMMENT ON COLUMN cs.alert_rule.recommended_action IS 'What to do about it, in words; shown with each open alert in cs.recommended_action. NULL: nothing is said.';
COMMENT ON COLUMN cs.alert_rule.enabled IS 'false: not evaluated; its open alerts are resolved with cause definition.';
COMMENT ON COLUMN cs.alert_rule.description IS 'Free text.';
COMMENT ON COLUMN cs.alert_rule.search_path IS 'search_path of the writer, used when the expressions are evaluated.';

-- Decided. live: pending, open, acknowledged, snoozed, and closed ones that
-- still bear on what opens next (reopening, cooldown). At most one live alert
-- per identity (rule, customer, key); key '' where a rule has none.
CREATE TABLE cs_internal.alert (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	rule text NOT NULL,
	customer_id text COLLATE "C" NOT NULL,
	key text NOT NULL DEFAULT '',
	severity text NOT NULL,
	state text NOT NULL CHECK (state IN ('pending', 'open', 'acknowledged', 'snoozed', 'resolved', 'dismissed')),
	message text,
	cause text,
	owner text,
	pending_since timestamptz,           -- pending: the rule holds since then
	held_by text,                        -- pending although the rule held long enough: max_new, quiet_hours, inhibited_by, owner_cap_per_day
	opened_at timestamptz,               -- first time it was open
	fired_at timestamptz,                -- last time it went open; counted against max_new
	acknowledged_at timestamptz,
	snoozed_until timestamptz,
	clear_since timestamptz,             -- waits for resolve_after
	resolved_at timestamptz,             -- resolved or dismissed
	rearmed boolean NOT NULL DEFAULT false, -- closed: the rule was once false since
	live boolean NOT NULL DEFAULT true CHECK (live OR state IN ('resolved', 'dismissed')),
	ack_due_at timestamptz,              -- deadlines, reckoned at the opening
	resolve_due_at timestamptz,
	ack_missed boolean NOT NULL DEFAULT false, -- told once
	resolve_missed boolean NOT NULL DEFAULT false,
	escalated_to text,
	escalated_at timestamptz,
	due_at timestamptz,                  -- when time alone changes something, after the last evaluation
	fact_id text COLLATE "C"             -- of a rule over rows: the id its row stands under; NULL: the customer's
);
CREATE UNIQUE INDEX alert_identity ON cs_internal.alert (rule, customer_id, key) WHERE live;
CREATE INDEX alert_live_customer ON cs_internal.alert (customer_id) WHERE live;
CREATE INDEX alert_customer ON cs_internal.alert (customer_id);
CREATE INDEX alert_held ON cs_internal.alert (rule) WHERE held_by IS NOT NULL;
CREATE INDEX alert_fired ON cs_internal.alert (rule, fired_at);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.alert', '');
SELECT pg_catalog.pg_extension_config_dump('cs_internal.alert_id_seq', '');

-- Decided. One row for each change of an alert.
CREATE TABLE cs_internal.alert_event (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	seq bigint UNIQUE,                   -- NULL when written; numbered after commit by the one refresher
	alert_id bigint NOT NULL,
	at timestamptz NOT NULL,
	actor text NOT NULL,
	from_state text,
	to_state text NOT NULL,
	cause text,
	note text
);
CREATE INDEX alert_event_unnumbered ON cs_internal.alert_event (id) WHERE seq IS NULL;
CREATE INDEX alert_event_alert ON cs_internal.alert_event (alert_id, seq);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.alert_event', '');
SELECT pg_catalog.pg_extension_config_dump('cs_internal.alert_event_id_seq', '');

-- ---- definitions ------------------------------------------------------------

-- Definitions whose rules use a name, or that are bound to a segment: for refusing to take it away.
CREATE FUNCTION cs_internal.rule_users(name text) RETURNS text[]
LANGUAGE sql STABLE AS $$
	SELECT array_agg(x.who ORDER BY x.who)
	FROM (
		SELECT format('segment "%s:%s"', s.dimension, s.name) AS who FROM cs.segment s
		WHERE rule_users.name = ANY (cs_internal.rule_names(s.rule))
		UNION
		SELECT format('alert rule "%s"', a.name) FROM cs.alert_rule a
		WHERE a.source IS NULL AND a.scope = 'customer' AND rule_users.name = ANY (cs_internal.rule_names(a.rule)
			|| cs_internal.rule_names(a.clear_rule) || cs_internal.rule_names(a.message) || cs_internal.rule_names(a.severity_expression))
		UNION
		SELECT format('cap "%s" of scorecard "%s"', k.rule, k.scorecard) FROM cs.cap k
		WHERE rule_users.name = ANY (cs_internal.rule_names(k.rule))
	) x
$$;
COMMENT ON FUNCTION cs_internal.rule_users(text) IS 'Segments, alert rules and caps whose expressions use a metric or dimension of that name; NULL: none.';

CREATE FUNCTION cs_internal.segment_users(dimension text, segment text) RETURNS text[]
LANGUAGE sql STABLE AS $$
	SELECT array_agg(x.who ORDER BY x.who)
	FROM (
		SELECT format('scorecard "%s"', k.name) AS who, k.segment AS word FROM cs.scorecard k
		UNION ALL
		SELECT format('measure "%s" of scorecard "%s"', m.name, m.scorecard), m.within || ':' FROM cs.measure m
		UNION ALL
		SELECT format('alert rule "%s"', a.name), CASE WHEN a.scope = 'segment' AND a.segment NOT LIKE '%:%' THEN a.segment || ':' ELSE a.segment END FROM cs.alert_rule a
	) x
	WHERE x.word LIKE '%:%' AND split_part(x.word, ':', 1) = segment_users.dimension
			AND (segment_users.segment IS NULL OR x.word = segment_users.dimension || ':' || segment_users.segment)
		OR x.word NOT LIKE '%:%' AND x.word = segment_users.segment
$$;
COMMENT ON FUNCTION cs_internal.segment_users(text, text) IS 'Scorecards, measures and alert rules bound to a segment (NULL: to any of the dimension); NULL: none.';

CREATE FUNCTION cs_internal.check_row_rule(source text, expression text, search_path text, type text, what text) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_check_row_rule_sql';
COMMENT ON FUNCTION cs_internal.check_row_rule(text, text, text, text, text) IS
'Like check_rule, for an expression over the rows of a kind of fact (or a source of kind other). Where no source of the kind is registered yet only its syntax is checked.';

-- Names separated by commas.
CREATE FUNCTION cs_internal.names_in(list text) RETURNS text[]
LANGUAGE sql IMMUTABLE AS $$ SELECT array_agg(DISTINCT btrim(n)) FROM unnest(string_to_array(list, ',')) n WHERE btrim(n) <> '' $$;
COMMENT ON FUNCTION cs_internal.names_in(text) IS 'The names in a list separated by commas; NULL: none.';

CREATE FUNCTION cs_internal.check_hours(hours text, what text) RETURNS void
LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'cs_check_hours_sql';
COMMENT ON FUNCTION cs_internal.check_hours(text, text) IS 'Raises 22023, naming what, for a text that is not hours of the week.';

CREATE FUNCTION cs_internal.hours_after(hours text, at timestamptz, within interval) RETURNS timestamptz
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'cs_hours_after_sql';
COMMENT ON FUNCTION cs_internal.hours_after(text, timestamptz, interval) IS 'The deadline that an interval gives in which just these hours of the week count, in the policy''s zone.';

CREATE FUNCTION cs_internal.always_in(hours text) RETURNS boolean
LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'cs_hours_always_sql';
COMMENT ON FUNCTION cs_internal.always_in(text) IS 'Whether these hours of the week are all there are.';

CREATE FUNCTION cs_internal.alert_rule_users(name text) RETURNS text[]
LANGUAGE sql STABLE AS $$
	SELECT array_agg(x.who ORDER BY x.who)
	FROM (
		SELECT format('inhibited_by of alert rule "%s"', a.name) AS who FROM cs.alert_rule a
		WHERE alert_rule_users.name = ANY (cs_internal.names_in(a.inhibited_by))
		UNION ALL
		SELECT format('outbox topic "%s"', t.name) FROM cs.outbox_topic t WHERE t.rule = alert_rule_users.name
	) x
$$;
COMMENT ON FUNCTION cs_internal.alert_rule_users(text) IS 'Definitions that name an alert rule; NULL: none.';

-- Refuses rules that are not there, and cycles with their path.
CREATE FUNCTION cs_internal.check_inhibition(name text, inhibited_by text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	other text;
	cycle text;
BEGIN
	FOREACH other IN ARRAY coalesce(cs_internal.names_in(inhibited_by), '{}') LOOP
		IF NOT EXISTS (SELECT FROM cs.alert_rule a WHERE a.name = other) THEN
			RAISE EXCEPTION 'alert rule "%": inhibited_by names "%", which is no alert rule', name, other USING ERRCODE = 'invalid_parameter_value',
				HINT = coalesce('Did you mean "' || cs_internal.nearest(other, (SELECT array_agg(a.name) FROM cs.alert_rule a)) || '"?',
					'Alert rules stand in cs.alert_rule.');
		END IF;
	END LOOP;
	WITH RECURSIVE edge AS (
		SELECT a.name AS start, u.needs FROM cs.alert_rule a, unnest(cs_internal.names_in(a.inhibited_by)) u (needs)
	), path AS (
		SELECT e.needs AS at, ARRAY[e.start, e.needs] AS way FROM edge e WHERE e.start = check_inhibition.name
		UNION ALL
		SELECT e.needs, p.way || e.needs FROM path p JOIN edge e ON e.start = p.at
		WHERE p.at <> check_inhibition.name AND NOT e.needs = ANY (p.way[2:])
	)
	SELECT array_to_string(p.way, ' -> ') INTO cycle FROM path p WHERE p.at = check_inhibition.name LIMIT 1;
	IF cycle IS NOT NULL THEN
		RAISE EXCEPTION 'alert rules would inhibit each other in a cycle: %', cycle USING ERRCODE = 'invalid_object_definition',
			HINT = 'A rule may be inhibited only by rules that it does not inhibit.';
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.check_inhibition(text, text) IS 'Refuses what alert_rule.inhibited_by must not hold.';

CREATE FUNCTION cs_internal.check_alert_rule(new jsonb, old jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	n cs.alert_rule := jsonb_populate_record(NULL::cs.alert_rule, new);
	what text;
	negative text;
	e record;
BEGIN
	IF old IS NOT NULL AND (new IS NULL OR n.name <> old ->> 'name') THEN
		PERFORM cs_internal.refuse_in_use(format('alert rule "%s"', old ->> 'name'), cs_internal.alert_rule_users(old ->> 'name'));
	END IF;
	IF new IS NULL THEN
		RETURN;
	END IF;
	IF n.scope = 'segment' THEN
		DELETE FROM cs_internal.segment_look;
	END IF;
	what := format('alert rule "%s"', n.name);
	IF btrim(n.name) = '' THEN
		RAISE EXCEPTION 'an alert rule needs a name' USING ERRCODE = 'invalid_name';
	END IF;
	PERFORM cs_internal.must_be_word('severity', n.severity, '{low,medium,high,critical}');
	PERFORM cs_internal.must_be_word('scope', n.scope, '{customer,segment}');
	negative := CASE
		WHEN n.dwell < '0' THEN 'dwell'
		WHEN n.resolve_after < '0' THEN 'resolve_after'
		WHEN n.cooldown < '0' THEN 'cooldown'
		WHEN n.reopen_within < '0' THEN 'reopen_within'
		WHEN n.ack_within <= '0' THEN 'ack_within'
		WHEN n.resolve_within <= '0' THEN 'resolve_within' END;
	IF negative IN ('ack_within', 'resolve_within') THEN
		RAISE EXCEPTION '%: % must be a time, such as ''4 hours''', what, negative USING ERRCODE = 'invalid_parameter_value',
			HINT = 'NULL: no deadline.';
	END IF;
	IF negative IS NOT NULL THEN
		RAISE EXCEPTION '%: % must not be negative', what, negative USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF n.max_new < 1 THEN
		RAISE EXCEPTION '%: max_new must be at least 1, not %', what, n.max_new USING ERRCODE = 'invalid_parameter_value',
			HINT = 'To stop a rule, set enabled to false.';
	END IF;
	PERFORM cs_internal.check_hours(n.calendar, format('calendar of %s', what)), cs_internal.check_hours(n.quiet_hours, format('quiet_hours of %s', what));
	IF n.calendar IS NOT NULL AND (extract(month FROM n.ack_within) <> 0 OR extract(year FROM n.ack_within) <> 0
			OR extract(month FROM n.resolve_within) <> 0 OR extract(year FROM n.resolve_within) <> 0) THEN
		RAISE EXCEPTION '%: with a calendar, deadlines are in days, hours and minutes', what USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF n.quiet_hours IS NOT NULL AND cs_internal.always_in(n.quiet_hours) THEN
		RAISE EXCEPTION '%: quiet_hours are the whole week', what USING ERRCODE = 'invalid_parameter_value',
			HINT = 'To stop a rule, set enabled to false.';
	END IF;
	IF n.owner_cap_per_day < 1 THEN
		RAISE EXCEPTION '%: owner_cap_per_day must be at least 1, not %', what, n.owner_cap_per_day USING ERRCODE = 'invalid_parameter_value',
			HINT = 'NULL: no limit.';
	END IF;
	PERFORM cs_internal.check_inhibition(n.name, n.inhibited_by);
	IF n.scope = 'segment' AND (n.source IS NOT NULL OR n.key IS NOT NULL) THEN
		RAISE EXCEPTION '%: with scope segment there is neither source nor key', what USING ERRCODE = 'invalid_parameter_value',
			HINT = 'The key of such an alert is the segment.';
	END IF;
	IF n.scope = 'segment' AND n.segment NOT LIKE '%:%' THEN
		PERFORM cs_internal.must_be_defined(n.segment, what, hint => 'With scope segment, segment names a dimension, or one segment as dimension:segment.');
	END IF;
	IF n.segment IS NOT NULL AND (n.scope = 'customer' OR n.segment LIKE '%:%') THEN
		PERFORM cs_internal.must_be_segment(n.segment);
	END IF;
	IF n.source IS NULL AND n.key IS NOT NULL THEN
		RAISE EXCEPTION '%: a key needs a source', what USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Without source there is one alert per customer. Name the kind of fact in source, for example ticket.';
	END IF;
	IF n.source IS NOT NULL AND n.key IS NULL THEN
		RAISE EXCEPTION '%: a rule over rows needs a key', what USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Give the expression that identifies a row, for example ticket_id.';
	END IF;
	IF n.source = 'usage_event' THEN
		RAISE EXCEPTION '%: rules over single usage events are not available yet', what USING ERRCODE = 'feature_not_supported',
			HINT = 'Make a metric with source usage and a rule over that metric.';
	END IF;
	FOR e IN SELECT x.* FROM (VALUES ('rule', n.rule, 'boolean'), ('clear_rule', n.clear_rule, 'boolean'),
			('key', n.key, 'text'), ('message', n.message, 'text'),
			('severity_expression', n.severity_expression, 'text')) x (part, expression, type)
		WHERE x.expression IS NOT NULL OR x.part = 'rule'
	LOOP
		IF n.scope = 'segment' THEN
			PERFORM cs_internal.check_segment_rule(e.expression, n.search_path, e.type, format('%s of %s', e.part, what));
		ELSIF n.source IS NULL THEN
			PERFORM cs_internal.check_rule(e.expression, n.search_path, e.type, format('%s of %s', e.part, what));
		ELSE
			PERFORM cs_internal.check_row_rule(n.source, e.expression, n.search_path, e.type, format('%s of %s', e.part, what));
		END IF;
	END LOOP;
END $$;
COMMENT ON FUNCTION cs_internal.check_alert_rule(jsonb, jsonb) IS 'Refuses what cs.alert_rule must not hold; called by the definition trigger.';

CREATE TRIGGER definition AFTER INSERT OR UPDATE OR DELETE ON cs.alert_rule
	FOR EACH ROW EXECUTE FUNCTION cs_internal.definition_trigger();

-- ---- for the refresh --------------------------------------------------------

-- When time alone next changes an alert or a segment of a customer, as of the
-- customer's last evaluation: dwell, snooze, resolve_after, cooldown, hold, and
-- the end of manual assignments. Customers without such a boundary have no row.
CREATE FUNCTION cs_internal.alert_due(customer_ids text[]) RETURNS TABLE (customer_id text, due_at timestamptz)
LANGUAGE sql STABLE AS $$
	SELECT x.customer_id, min(x.due_at)
	FROM (
		SELECT a.customer_id, a.due_at FROM cs_internal.alert a
		WHERE a.customer_id = ANY ((SELECT customer_ids)::text[]) AND a.live AND a.due_at IS NOT NULL
		UNION ALL
		SELECT s.customer_id, s.expires_at FROM cs_internal.segment_assignment s
		WHERE s.customer_id = ANY ((SELECT customer_ids)::text[]) AND s.expires_at IS NOT NULL
		UNION ALL
		-- the day on which min_days are over
		SELECT m.customer_id, ((m.valid_from AT TIME ZONE p.time_zone)::date + d.min_days)::timestamp AT TIME ZONE p.time_zone
		FROM cs.policy p CROSS JOIN cs.dimension d JOIN cs_internal.membership m ON m.dimension = d.name
		WHERE d.min_days > 0 AND m.valid_to IS NULL AND m.customer_id = ANY ((SELECT customer_ids)::text[])
			AND (m.valid_from AT TIME ZONE p.time_zone)::date + d.min_days > (cs_internal.now() AT TIME ZONE p.time_zone)::date
	) x
	GROUP BY x.customer_id
$$;
COMMENT ON FUNCTION cs_internal.alert_due(text[]) IS
'The earliest instant at which time alone changes an alert or segment of a customer; called after the stages.';

-- Of ids that are no customers any more: nothing evaluates them, so what is open is resolved.
CREATE FUNCTION cs_internal.end_alerts(customer_ids text[], as_of timestamptz) RETURNS void
LANGUAGE sql AS $$
	WITH ending AS (
		SELECT a.id, a.state FROM cs_internal.alert a
		WHERE a.live AND a.customer_id = ANY (customer_ids)
		ORDER BY a.id FOR UPDATE
	), ended AS (
		UPDATE cs_internal.alert a SET live = false, held_by = NULL, pending_since = NULL, snoozed_until = NULL,
			clear_since = NULL, due_at = NULL,
			resolved_at = CASE WHEN e.state IN ('resolved', 'dismissed') THEN a.resolved_at ELSE as_of END,
			state = CASE WHEN e.state = 'dismissed' THEN 'dismissed' ELSE 'resolved' END
		FROM ending e WHERE a.id = e.id
	)
	INSERT INTO cs_internal.alert_event (alert_id, at, actor, from_state, to_state, cause)
	SELECT e.id, as_of, 'cs_ext', e.state, 'resolved', 'customer'
	FROM ending e WHERE e.state NOT IN ('resolved', 'dismissed') ORDER BY e.id
$$;
COMMENT ON FUNCTION cs_internal.end_alerts(text[], timestamptz) IS
'Resolves, with cause customer, the alerts of ids that are no customers any more.';

CREATE FUNCTION cs_internal.evaluate_alerts(customer_ids text[], as_of timestamptz, cause text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_evaluate_alerts_sql';
COMMENT ON FUNCTION cs_internal.evaluate_alerts(text[], timestamptz, text) IS
'Runs the stage of alerts over these customers'' rows of state; for tests and for looking into one stage.';

-- Who numbers holds the lock until commit, so numbers are given in order of
-- commit and a reader never sees one below the greatest it has seen. (The
-- class of lock beside that of the refresh; 1 numbers, 2 writes definition_status.)
CREATE FUNCTION cs_internal.number_events() RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
	last bigint;
	n bigint;
	e record;
	quiet boolean;
BEGIN
	IF NOT pg_try_advisory_xact_lock(1668509798, 1) THEN
		RETURN false;
	END IF;
	PERFORM cs_internal.number_outbox();
	SELECT coalesce(max(x.seq), 0) INTO last FROM cs_internal.alert_event x;
	WITH next AS (
		SELECT x.id, last + row_number() OVER (ORDER BY x.id) AS seq
		FROM cs_internal.alert_event x WHERE x.seq IS NULL
	)
	UPDATE cs_internal.alert_event x SET seq = next.seq FROM next WHERE x.id = next.id;
	GET DIAGNOSTICS n = ROW_COUNT;
	-- A queue that nobody empties must not make anybody's commit fail.
	quiet := n > 0 AND pg_notification_queue_usage() > 0.5;
	IF n > 0 AND NOT quiet THEN
		FOR e IN SELECT x.seq, x.alert_id, x.to_state, a.severity
			FROM cs_internal.alert_event x JOIN cs_internal.alert a ON a.id = x.alert_id
			WHERE x.seq > last ORDER BY x.seq
		LOOP
			PERFORM pg_notify('cs_alert', json_build_object('id', e.alert_id, 'seq', e.seq,
				'state', e.to_state, 'severity', e.severity)::text);
		END LOOP;
	END IF;
	RETURN n > 0;
END $$;
COMMENT ON FUNCTION cs_internal.number_events() IS
'Numbers the alert events that are committed and have no seq yet, and sends the notifications. False when there was none, or somebody else is at it.';

-- ---- reading ----------------------------------------------------------------

CREATE VIEW cs.alert WITH (security_barrier) AS
	SELECT a.id,
		(SELECT max(e.seq) FROM cs_internal.alert_event e WHERE e.alert_id = a.id) AS seq,
		a.rule, nullif(a.customer_id, '')::text AS customer_id, nullif(a.key, '') AS key, a.severity, a.state, a.message, a.cause,
		a.owner, a.opened_at, a.acknowledged_at,
		CASE WHEN a.state IN ('resolved', 'dismissed') THEN a.resolved_at END AS resolved_at, a.snoozed_until,
		a.ack_due_at, a.resolve_due_at, a.escalated_to, a.escalated_at,
		(SELECT c.last_as_of FROM cs_internal.clock c) AS data_through_at,
		(SELECT c.last_refresh_at FROM cs_internal.clock c) AS computed_at
	FROM cs_internal.alert a;
COMMENT ON VIEW cs.alert IS 'Every alert that there is or was; at most one open per rule, customer and key.';
COMMENT ON COLUMN cs.alert.id IS 'Identity of the alert, kept when it is opened again.';
COMMENT ON COLUMN cs.alert.seq IS 'Number of its newest change, see cs.alert_changes; NULL until the first is numbered.';
COMMENT ON COLUMN cs.alert.rule IS 'Name of the alert rule.';
COMMENT ON COLUMN cs.alert.customer_id IS 'Customer; NULL for an alert of a rule with scope segment.';
COMMENT ON COLUMN cs.alert.key IS 'Row it is about, of a rule with source; segment, of a rule with scope segment; else NULL.';
COMMENT ON COLUMN cs.alert.severity IS 'low, medium, high or critical: as of the opening, or what severity_expression last gave while the rule held.';
COMMENT ON COLUMN cs.alert.state IS 'pending (the rule holds, dwell is not over, or something holds it: cs.held_alert), open, acknowledged, snoozed, resolved or dismissed.';
COMMENT ON COLUMN cs.alert.message IS 'Text of the rule''s message at the last evaluation at which the rule held; NULL where it has none.';
COMMENT ON COLUMN cs.alert.cause IS 'definition: opened because a definition changed; NULL: because of facts or time.';
COMMENT ON COLUMN cs.alert.owner IS 'The customer''s owner at the opening, the rule''s fallback_owner, or whom it was assigned to.';
COMMENT ON COLUMN cs.alert.opened_at IS 'Evaluated instant at which it first opened; NULL while pending.';
COMMENT ON COLUMN cs.alert.acknowledged_at IS 'When somebody acknowledged it; NULL after it was opened again.';
COMMENT ON COLUMN cs.alert.resolved_at IS 'When it was resolved or dismissed; NULL otherwise.';
COMMENT ON COLUMN cs.alert.snoozed_until IS 'End of the snooze; NULL when not snoozed.';
COMMENT ON COLUMN cs.alert.ack_due_at IS 'By when it was to be acknowledged, reckoned at the opening; NULL: no deadline.';
COMMENT ON COLUMN cs.alert.resolve_due_at IS 'By when it was to be resolved, reckoned at the opening; NULL: no deadline.';
COMMENT ON COLUMN cs.alert.escalated_to IS 'Who looks after it since a deadline was missed; NULL: none was, or the rule names nobody.';
COMMENT ON COLUMN cs.alert.escalated_at IS 'Evaluated instant of that; NULL: none.';
COMMENT ON COLUMN cs.alert.data_through_at IS 'Instant up to which facts are evaluated: that of the last refresh.';
COMMENT ON COLUMN cs.alert.computed_at IS 'When the last refresh ran, by the clock.';

CREATE VIEW cs.open_alert WITH (security_barrier) AS
	SELECT a.* FROM cs.alert a WHERE a.state IN ('open', 'acknowledged', 'snoozed');
COMMENT ON VIEW cs.open_alert IS 'Alerts that are open, acknowledged or snoozed.';
DO $comments$
DECLARE
	c record;
BEGIN
	FOR c IN SELECT a.attname, col_description(a.attrelid, a.attnum) AS d FROM pg_attribute a
		WHERE a.attrelid = 'cs.alert'::regclass AND a.attnum > 0
	LOOP
		EXECUTE format('COMMENT ON COLUMN cs.open_alert.%I IS %L', c.attname, c.d);
	END LOOP;
END $comments$;

CREATE VIEW cs.held_alert WITH (security_barrier) AS
	SELECT a.rule, nullif(a.customer_id, '')::text AS customer_id, nullif(a.key, '') AS key, a.owner, a.severity, a.message, a.held_by,
		a.pending_since AS pending_since_at, a.due_at AS held_until_at, s.mrr::numeric(20,6) AS mrr,
		row_number() OVER (PARTITION BY a.rule, a.owner
			ORDER BY array_position('{critical,high,medium,low}', a.severity), s.mrr DESC NULLS LAST, a.customer_id, a.key)::integer AS rank,
		(SELECT c.last_as_of FROM cs_internal.clock c) AS data_through_at,
		(SELECT c.last_refresh_at FROM cs_internal.clock c) AS computed_at
	FROM cs_internal.alert a LEFT JOIN cs_internal.state s ON s.customer_id = a.customer_id
	WHERE a.live AND a.held_by IS NOT NULL;
COMMENT ON VIEW cs.held_alert IS 'Alerts whose rule holds long enough and that are not open, and why.';
COMMENT ON COLUMN cs.held_alert.rule IS 'Name of the alert rule.';
COMMENT ON COLUMN cs.held_alert.customer_id IS 'Customer; NULL for an alert of a rule with scope segment.';
COMMENT ON COLUMN cs.held_alert.key IS 'Row it is about, of a rule with source; segment, of a rule with scope segment; else NULL.';
COMMENT ON COLUMN cs.held_alert.owner IS 'Owner; NULL: none.';
COMMENT ON COLUMN cs.held_alert.severity IS 'low, medium, high or critical.';
COMMENT ON COLUMN cs.held_alert.message IS 'Text of the rule''s message; NULL: none.';
COMMENT ON COLUMN cs.held_alert.held_by IS 'Column of cs.alert_rule that holds it: max_new, quiet_hours, inhibited_by or owner_cap_per_day.';
COMMENT ON COLUMN cs.held_alert.pending_since_at IS 'Since when the rule holds.';
COMMENT ON COLUMN cs.held_alert.held_until_at IS 'When it is looked at again at the latest; NULL: when the customer is evaluated.';
COMMENT ON COLUMN cs.held_alert.mrr IS 'MRR of the customer at its last evaluation; NULL: unknown.';
COMMENT ON COLUMN cs.held_alert.rank IS 'Place among the held alerts of the rule and owner, by severity, then MRR.';
COMMENT ON COLUMN cs.held_alert.data_through_at IS 'Instant up to which facts are evaluated: that of the last refresh.';
COMMENT ON COLUMN cs.held_alert.computed_at IS 'When the last refresh ran, by the clock.';

CREATE VIEW cs.alert_event WITH (security_barrier) AS
	SELECT e.seq, e.alert_id, e.at, e.actor, e.from_state, e.to_state, e.cause, e.note,
		(SELECT c.last_as_of FROM cs_internal.clock c) AS data_through_at,
		(SELECT c.last_refresh_at FROM cs_internal.clock c) AS computed_at
	FROM cs_internal.alert_event e;
COMMENT ON VIEW cs.alert_event IS 'Every change of every alert.';
COMMENT ON COLUMN cs.alert_event.seq IS 'Number of the change, dense and increasing in order of commit; NULL until it is numbered.';
COMMENT ON COLUMN cs.alert_event.alert_id IS 'Alert.';
COMMENT ON COLUMN cs.alert_event.at IS 'Instant of the change: the evaluated one of a refresh, that of the call for what people do.';
COMMENT ON COLUMN cs.alert_event.actor IS 'cs_ext for the refresh, else who did it.';
COMMENT ON COLUMN cs.alert_event.from_state IS 'State before; NULL for the first. Equal to to_state where owner, severity or end of the snooze changed, or a deadline was missed.';
COMMENT ON COLUMN cs.alert_event.to_state IS 'State after.';
COMMENT ON COLUMN cs.alert_event.cause IS 'definition: because a definition changed; deadline: one was missed; customer: it is no customer any more; NULL otherwise.';
COMMENT ON COLUMN cs.alert_event.note IS 'What the actor wrote, or what happened; may be NULL.';
COMMENT ON COLUMN cs.alert_event.data_through_at IS 'Instant up to which facts are evaluated: that of the last refresh.';
COMMENT ON COLUMN cs.alert_event.computed_at IS 'When the last refresh ran, by the clock.';

CREATE FUNCTION cs_internal.alert_changes(after_seq bigint, max_rows integer)
RETURNS TABLE (seq bigint, alert_id bigint, at timestamptz, actor text, from_state text, to_state text, cause text,
	note text, rule text, customer_id text, key text, severity text)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	IF max_rows < 1 THEN
		RAISE EXCEPTION 'max_rows must be at least 1, not %', max_rows USING ERRCODE = 'invalid_parameter_value';
	END IF;
	-- A fixed snapshot cannot number what it does not see; such a caller reads what is numbered.
	IF NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'
		AND current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN
		PERFORM cs_internal.number_events();
	END IF;
	RETURN QUERY
	SELECT e.seq, e.alert_id, e.at, e.actor, e.from_state, e.to_state, e.cause, e.note,
		a.rule, nullif(a.customer_id, '')::text, nullif(a.key, ''), a.severity
	FROM cs_internal.alert_event e JOIN cs_internal.alert a ON a.id = e.alert_id
	WHERE e.seq > coalesce(after_seq, 0)
	ORDER BY e.seq
	LIMIT max_rows;
END $$;
COMMENT ON FUNCTION cs_internal.alert_changes(bigint, integer) IS 'See cs.alert_changes.';

CREATE FUNCTION cs.alert_changes(after_seq bigint DEFAULT 0, max_rows integer DEFAULT 1000)
RETURNS TABLE (seq bigint, alert_id bigint, at timestamptz, actor text, from_state text, to_state text, cause text,
	note text, rule text, customer_id text, key text, severity text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.alert_changes(bigint, integer) IS
'Changes of alerts with seq greater than after_seq, in order, at most max_rows. Changes that nobody numbered yet are numbered by the call: commit before acting on them. A poller that keeps the greatest seq sees every change exactly once.';

-- ---- acting -----------------------------------------------------------------

-- The alert, locked; refuses an unknown id and a state from which the action is not possible.
CREATE FUNCTION cs_internal.alert_for(id bigint, action text, allowed text[]) RETURNS cs_internal.alert
LANGUAGE plpgsql AS $$
DECLARE
	a cs_internal.alert;
BEGIN
	SELECT * INTO a FROM cs_internal.alert x WHERE x.id = alert_for.id FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'unknown alert %', coalesce(id::text, 'NULL') USING ERRCODE = 'no_data_found',
			HINT = 'Alerts stand in cs.alert.';
	END IF;
	IF NOT a.state = ANY (allowed) THEN
		RAISE EXCEPTION 'cannot % alert %, which is %', action, id, a.state
			USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = format('It is possible for an alert that is %s.', array_to_string(allowed, ' or '));
	END IF;
	RETURN a;
END $$;
COMMENT ON FUNCTION cs_internal.alert_for(bigint, text, text[]) IS 'Locks and returns an alert that is in one of the states, else raises.';

CREATE FUNCTION cs_internal.alert_moved(id bigint, from_state text, to_state text, note text, actor text) RETURNS cs.alert
LANGUAGE plpgsql AS $$
DECLARE
	result cs.alert;
BEGIN
	INSERT INTO cs_internal.alert_event (alert_id, at, actor, from_state, to_state, note)
	VALUES (id, cs_internal.now(), cs_internal.actor(actor), from_state, to_state, note);
	SELECT * INTO result FROM cs.alert a WHERE a.id = alert_moved.id;
	RETURN result;
END $$;
COMMENT ON FUNCTION cs_internal.alert_moved(bigint, text, text, text, text) IS 'Writes the event of a change and returns the alert as it is now.';

CREATE FUNCTION cs_internal.alert_row(id bigint) RETURNS cs.alert
LANGUAGE sql STABLE AS $$ SELECT a FROM cs.alert a WHERE a.id = alert_row.id $$;
COMMENT ON FUNCTION cs_internal.alert_row(bigint) IS 'The alert as it is now.';

-- The refresh reckons with the new boundary when it evaluates the customer next: soon.
CREATE FUNCTION cs_internal.mark_customer(customer text) RETURNS void
LANGUAGE sql AS $$
	INSERT INTO cs_internal.dirty AS d (customer_id, marked_at) SELECT customer, clock_timestamp() WHERE customer <> ''
	ON CONFLICT (customer_id) DO UPDATE SET marked_at = excluded.marked_at
$$;
COMMENT ON FUNCTION cs_internal.mark_customer(text) IS 'Has the customer evaluated by the next refresh.';

CREATE FUNCTION cs_internal.end_inhibition(rule text, customer text) RETURNS void
LANGUAGE sql AS $$
	SELECT cs_internal.mark_customer(customer)
	WHERE EXISTS (SELECT FROM cs_internal.alert a JOIN cs.alert_rule r ON r.name = a.rule
		WHERE a.live AND a.customer_id = end_inhibition.customer AND a.held_by = 'inhibited_by'
			AND end_inhibition.rule = ANY (cs_internal.names_in(r.inhibited_by)))
$$;
COMMENT ON FUNCTION cs_internal.end_inhibition(text, text) IS 'Has the customer evaluated when an alert of the rule is closed that kept others from opening.';

CREATE FUNCTION cs_internal.ack_alert(id bigint, note text, actor text) RETURNS cs.alert
LANGUAGE plpgsql AS $$
DECLARE
	a cs_internal.alert := cs_internal.alert_for(id, 'acknowledge', '{open,acknowledged,snoozed}');
BEGIN
	IF a.state = 'acknowledged' THEN
		RETURN cs_internal.alert_row(id);
	END IF;
	UPDATE cs_internal.alert x SET state = 'acknowledged', acknowledged_at = cs_internal.now(), snoozed_until = NULL
	WHERE x.id = a.id;
	RETURN cs_internal.alert_moved(id, a.state, 'acknowledged', note, actor);
END $$;
COMMENT ON FUNCTION cs_internal.ack_alert(bigint, text, text) IS 'See cs.ack_alert.';

CREATE FUNCTION cs_internal.assign_alert(id bigint, owner text, note text, actor text) RETURNS cs.alert
LANGUAGE plpgsql AS $$
DECLARE
	a cs_internal.alert := cs_internal.alert_for(id, 'assign', '{pending,open,acknowledged,snoozed}');
BEGIN
	IF a.owner IS NOT DISTINCT FROM assign_alert.owner THEN
		RETURN cs_internal.alert_row(id);
	END IF;
	UPDATE cs_internal.alert x SET owner = assign_alert.owner WHERE x.id = a.id;
	RETURN cs_internal.alert_moved(id, a.state, a.state, coalesce(note, 'owner: ' || coalesce(owner, 'nobody')), actor);
END $$;
COMMENT ON FUNCTION cs_internal.assign_alert(bigint, text, text, text) IS 'See cs.assign_alert.';

CREATE FUNCTION cs_internal.snooze_alert(id bigint, until timestamptz, note text, actor text) RETURNS cs.alert
LANGUAGE plpgsql AS $$
DECLARE
	a cs_internal.alert := cs_internal.alert_for(id, 'snooze', '{open,acknowledged,snoozed}');
BEGIN
	IF until IS NULL OR until <= cs_internal.now() OR until = 'infinity' THEN
		RAISE EXCEPTION 'cannot snooze alert % until %, which is not in the future', id, coalesce(until::text, 'NULL')
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the instant at which it comes back.';
	END IF;
	IF a.state = 'snoozed' AND a.snoozed_until = until THEN
		RETURN cs_internal.alert_row(id);
	END IF;
	UPDATE cs_internal.alert x SET state = 'snoozed', snoozed_until = until, due_at = least(x.due_at, until) WHERE x.id = a.id;
	PERFORM cs_internal.mark_customer(a.customer_id);
	RETURN cs_internal.alert_moved(id, a.state, 'snoozed', note, actor);
END $$;
COMMENT ON FUNCTION cs_internal.snooze_alert(bigint, timestamptz, text, text) IS 'See cs.snooze_alert.';

CREATE FUNCTION cs_internal.unsnooze_alert(id bigint, note text, actor text) RETURNS cs.alert
LANGUAGE plpgsql AS $$
DECLARE
	a cs_internal.alert := cs_internal.alert_for(id, 'unsnooze', '{open,acknowledged,snoozed}');
BEGIN
	IF a.state <> 'snoozed' THEN
		RETURN cs_internal.alert_row(id);
	END IF;
	UPDATE cs_internal.alert x SET state = 'open', snoozed_until = NULL WHERE x.id = a.id;
	RETURN cs_internal.alert_moved(id, a.state, 'open', note, actor);
END $$;
COMMENT ON FUNCTION cs_internal.unsnooze_alert(bigint, text, text) IS 'See cs.unsnooze_alert.';

CREATE FUNCTION cs_internal.resolve_alert(id bigint, note text, actor text) RETURNS cs.alert
LANGUAGE plpgsql AS $$
DECLARE
	a cs_internal.alert := cs_internal.alert_for(id, 'resolve', '{open,acknowledged,snoozed,resolved}');
BEGIN
	IF a.state = 'resolved' THEN
		RETURN cs_internal.alert_row(id);
	END IF;
	UPDATE cs_internal.alert x SET state = 'resolved', resolved_at = cs_internal.now(), snoozed_until = NULL, clear_since = NULL,
		rearmed = false, due_at = NULL
	WHERE x.id = a.id;
	PERFORM cs_internal.end_inhibition(a.rule, a.customer_id);
	RETURN cs_internal.alert_moved(id, a.state, 'resolved', note, actor);
END $$;
COMMENT ON FUNCTION cs_internal.resolve_alert(bigint, text, text) IS 'See cs.resolve_alert.';

CREATE FUNCTION cs_internal.dismiss_alert(id bigint, reason text, actor text) RETURNS cs.alert
LANGUAGE plpgsql AS $$
DECLARE
	a cs_internal.alert := cs_internal.alert_for(id, 'dismiss', '{open,acknowledged,snoozed,dismissed}');
BEGIN
	IF a.state = 'dismissed' THEN
		RETURN cs_internal.alert_row(id);
	END IF;
	IF reason IS NULL OR btrim(reason) = '' THEN
		RAISE EXCEPTION 'dismissing an alert needs a reason' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Say why it was a false alarm, so that the rule can be made better.';
	END IF;
	UPDATE cs_internal.alert x SET state = 'dismissed', resolved_at = cs_internal.now(), snoozed_until = NULL, clear_since = NULL,
		rearmed = false, due_at = NULL
	WHERE x.id = a.id;
	PERFORM cs_internal.end_inhibition(a.rule, a.customer_id);
	RETURN cs_internal.alert_moved(id, a.state, 'dismissed', reason, actor);
END $$;
COMMENT ON FUNCTION cs_internal.dismiss_alert(bigint, text, text) IS 'See cs.dismiss_alert.';

CREATE FUNCTION cs.ack_alert(id bigint, note text DEFAULT NULL, actor text DEFAULT NULL) RETURNS cs.alert
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.ack_alert(bigint, text, text) IS
'Acknowledges an open or snoozed alert and returns it; an acknowledged one is returned unchanged. actor: cs_ext.actor, else the session''s user. Raises for an unknown alert, 55000 for one that is pending or closed.';
CREATE FUNCTION cs.assign_alert(id bigint, owner text, note text DEFAULT NULL, actor text DEFAULT NULL) RETURNS cs.alert
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.assign_alert(bigint, text, text, text) IS
'Gives an alert to an owner (NULL: nobody) and returns it. Raises for an unknown alert, 55000 for a closed one.';
CREATE FUNCTION cs.unsnooze_alert(id bigint, note text DEFAULT NULL, actor text DEFAULT NULL) RETURNS cs.alert
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.unsnooze_alert(bigint, text, text) IS
'Ends a snooze: the alert is open again, and returned; one that is not snoozed is returned unchanged. Raises for an unknown alert, 55000 for one that is pending or closed.';
CREATE FUNCTION cs.resolve_alert(id bigint, note text DEFAULT NULL, actor text DEFAULT NULL) RETURNS cs.alert
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.resolve_alert(bigint, text, text) IS
'Resolves an alert by hand and returns it; it opens again only after its rule was once false. A resolved one is returned unchanged. Raises for an unknown alert, 55000 for one that is pending or dismissed.';
CREATE FUNCTION cs.dismiss_alert(id bigint, reason text, actor text DEFAULT NULL) RETURNS cs.alert
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.dismiss_alert(bigint, text, text) IS
'Dismisses an alert as a false alarm, with the reason, and returns it: no new one until the rule''s cooldown is over and its rule was once false. A dismissed one is returned unchanged. Raises without a reason, for an unknown alert, 55000 for one that is pending or resolved.';

CREATE FUNCTION cs.snooze_alert(id bigint, until timestamptz, note text DEFAULT NULL, actor text DEFAULT NULL) RETURNS cs.alert
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.snooze_alert(bigint, timestamptz, text, text) IS
'Puts an alert aside until that instant, and returns it; it comes back as open unless it was resolved meanwhile. Raises for an instant that is not in the future, for an unknown alert, 55000 for one that is pending or closed.';
