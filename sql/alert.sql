
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
	enabled boolean NOT NULL DEFAULT true,
	description text,
	search_path text NOT NULL DEFAULT pg_catalog.current_setting('search_path')
);
SELECT pg_catalog.pg_extension_config_dump('cs.alert_rule', '');

-- Decided. One open alert per (rule, customer, key); key '' where a rule has none.
CREATE TABLE cs_internal.alert (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	seq bigint,
	rule text NOT NULL,
	customer_id text COLLATE "C" NOT NULL,
	key text NOT NULL DEFAULT '',
	severity text NOT NULL,
	state text NOT NULL,                 -- pending, open, acknowledged, snoozed, resolved, dismissed
	message text,
	cause text,
	owner text,
	pending_since timestamptz,
	opened_at timestamptz,
	acknowledged_at timestamptz,
	snoozed_until timestamptz,
	clear_since timestamptz,
	resolved_at timestamptz,
	rearmed boolean NOT NULL DEFAULT false,      -- after dismissal: the rule was once not true
	evaluated_at timestamptz
);
CREATE UNIQUE INDEX alert_identity ON cs_internal.alert (rule, customer_id, key)
	WHERE state IN ('pending', 'open', 'acknowledged', 'snoozed');
CREATE INDEX alert_customer ON cs_internal.alert (customer_id);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.alert', '');
SELECT pg_catalog.pg_extension_config_dump('cs_internal.alert_id_seq', '');

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
SELECT pg_catalog.pg_extension_config_dump('cs_internal.alert_event', '');
SELECT pg_catalog.pg_extension_config_dump('cs_internal.alert_event_id_seq', '');
