
-- ---------------------------------------------------------------------------
-- view
-- ---------------------------------------------------------------------------

CREATE VIEW cs.customer_360 WITH (security_barrier) AS
SELECT c.customer_id::text AS customer_id, c.name, c.owner, c.parent_id, c.created_at,
	s.active, s.in_trial,
	s.mrr::numeric(20,6) AS mrr,
	s.seats::numeric(20,6) AS seats,
	s.tenure_days,
	s.days_to_renewal,
	h.score AS health_score, h.band, h.band_since AS band_since_at,
	-- who was inactive from the first evaluation on has no row in health
	coalesce(h.band_reason, CASE s.score_reason WHEN 'inactive' THEN 'neither active nor in trial' ELSE s.score_reason END) AS band_reason,
	h.coverage, h.scorecard,
	s.segments->>'stage' AS stage, s.segments->>'tier' AS tier, s.segments->>'touch' AS touch,
	coalesce(a.open_alerts, 0)::integer AS open_alerts,
	a.worst_severity,
	u.last_used_on,
	k.last_as_of AS data_through_at,
	h.computed_at
FROM cs_internal.customer c
LEFT JOIN cs_internal.state s ON s.customer_id = c.customer_id
LEFT JOIN cs_internal.health h ON h.customer_id = c.customer_id
LEFT JOIN (
	SELECT o.customer_id, count(*) AS open_alerts,
		(array_agg(o.severity ORDER BY array_position('{critical,high,medium,low}', o.severity)))[1] AS worst_severity
	FROM cs.open_alert o GROUP BY o.customer_id) a ON a.customer_id = c.customer_id
LEFT JOIN LATERAL (SELECT s.as_of_day - s."values"[(SELECT t.slot FROM cs_internal.metric_slot t JOIN cs.metric d ON d.name = t.metric
		WHERE t.metric = 'days_since_active' AND d.enabled)]::integer AS last_used_on) u ON true
LEFT JOIN cs_internal.clock k ON true;
COMMENT ON VIEW cs.customer_360 IS 'One row a customer: who, what it pays, how healthy, in which segments, and what is open.';
COMMENT ON COLUMN cs.customer_360.customer_id IS 'The customer.';
COMMENT ON COLUMN cs.customer_360.name IS 'Name from the customer source; NULL where none is mapped.';
COMMENT ON COLUMN cs.customer_360.owner IS 'The customer''s owner (a person), not a database role; NULL: none.';
COMMENT ON COLUMN cs.customer_360.parent_id IS 'The parent customer; NULL: none.';
COMMENT ON COLUMN cs.customer_360.created_at IS 'When the customer was created, from the customer source.';
COMMENT ON COLUMN cs.customer_360.active IS 'Has MRR, or is paused or free as far as the policy counts that. NULL before the first evaluation.';
COMMENT ON COLUMN cs.customer_360.in_trial IS 'A trial is running.';
COMMENT ON COLUMN cs.customer_360.mrr IS 'Monthly recurring revenue in the policy''s currency.';
COMMENT ON COLUMN cs.customer_360.seats IS 'Seats of active subscriptions; NULL where none are mapped.';
COMMENT ON COLUMN cs.customer_360.tenure_days IS 'Local days since the current active period began; NULL when not active.';
COMMENT ON COLUMN cs.customer_360.days_to_renewal IS 'Days to the next renewal, negative = overdue; NULL: none known.';
COMMENT ON COLUMN cs.customer_360.health_score IS 'Health score from 0 to 100, overrides included; NULL with the reason in band_reason.';
COMMENT ON COLUMN cs.customer_360.band IS 'red, yellow or green; NULL without a score.';
COMMENT ON COLUMN cs.customer_360.band_since_at IS 'Since when the customer is in this band.';
COMMENT ON COLUMN cs.customer_360.band_reason IS 'Why the band is what it is, or why there is no score.';
COMMENT ON COLUMN cs.customer_360.coverage IS 'Share of the scorecard''s weight with data, 0 to 1.';
COMMENT ON COLUMN cs.customer_360.scorecard IS 'The scorecard that was used.';
COMMENT ON COLUMN cs.customer_360.stage IS 'Segment in dimension stage; NULL: none.';
COMMENT ON COLUMN cs.customer_360.tier IS 'Segment in dimension tier; NULL: none.';
COMMENT ON COLUMN cs.customer_360.touch IS 'Segment in dimension touch; NULL: none.';
COMMENT ON COLUMN cs.customer_360.open_alerts IS 'Number of open, acknowledged and snoozed alerts.';
COMMENT ON COLUMN cs.customer_360.worst_severity IS 'Highest severity among them; NULL: none.';
COMMENT ON COLUMN cs.customer_360.last_used_on IS 'Last local day with usage before today; NULL: never.';
COMMENT ON COLUMN cs.customer_360.data_through_at IS 'Facts before this instant are in.';
COMMENT ON COLUMN cs.customer_360.computed_at IS 'When the health was last computed.';

CREATE VIEW cs.contact_priority WITH (security_barrier) AS
SELECT t.customer_id, t.name, t.owner,
	(t.risk * t.value * t.urgency * t.silence) AS priority,
	t.risk, t.value, t.urgency, t.silence,
	t.band, t.health_score, t.mrr, t.days_to_renewal, t.days_since_touch, t.open_alerts, t.reason,
	t.data_through_at, t.computed_at
FROM (
	SELECT v.customer_id, v.name, v.owner, v.band, v.health_score, v.mrr, v.days_to_renewal, v.open_alerts,
		v.data_through_at, v.computed_at,
		coalesce((100 - v.health_score) / 100, 0.5) AS risk,
		coalesce(v.mrr, 0)::float8 AS value,
		1 + coalesce(a.weight, 0)
			+ CASE WHEN v.days_to_renewal BETWEEN -90 AND 90 THEN (90 - greatest(v.days_to_renewal, 0)) / 90.0 ELSE 0 END AS urgency,
		1 + least(coalesce(m.days_since_touch, 90), 90) / 90 AS silence,
		m.days_since_touch,
		coalesce(nullif(concat_ws('; ', a.messages,
			CASE WHEN v.band IN ('red', 'yellow') OR v.health_score IS NULL
				THEN format('health %s: %s', coalesce(round(v.health_score::numeric, 1)::text, 'unknown'), v.band_reason) END,
			CASE WHEN m.days_since_touch > 60 THEN format('no contact for %s days', m.days_since_touch) END), ''),
			'pays much, and nothing is wrong') AS reason
	FROM cs.customer_360 v
	JOIN cs_internal.state s ON s.customer_id = v.customer_id
	LEFT JOIN LATERAL (SELECT s."values"[(SELECT t.slot FROM cs_internal.metric_slot t JOIN cs.metric d ON d.name = t.metric
		WHERE t.metric = 'days_since_touch' AND d.enabled)] AS days_since_touch) m ON true
	LEFT JOIN (
		SELECT o.customer_id,
			sum(CASE o.severity WHEN 'critical' THEN 2 WHEN 'high' THEN 1 WHEN 'medium' THEN 0.5 ELSE 0.25 END)::float8 AS weight,
			string_agg(format('%s: %s', o.rule, o.message), '; '
				ORDER BY array_position('{critical,high,medium,low}', o.severity), o.rule, o.id) AS messages
		FROM cs.open_alert o GROUP BY o.customer_id) a ON a.customer_id = v.customer_id
	WHERE v.active) t;
COMMENT ON VIEW cs.contact_priority IS 'Active customers by whom to contact first: priority = risk × value × urgency × silence, each term a column. Order by priority DESC.';
COMMENT ON COLUMN cs.contact_priority.customer_id IS 'The customer.';
COMMENT ON COLUMN cs.contact_priority.name IS 'Name of the customer.';
COMMENT ON COLUMN cs.contact_priority.owner IS 'The customer''s owner (a person); NULL: none.';
COMMENT ON COLUMN cs.contact_priority.priority IS 'Product of the four terms; only the order matters.';
COMMENT ON COLUMN cs.contact_priority.risk IS '(100 - health score) / 100; 0.5 where there is no score.';
COMMENT ON COLUMN cs.contact_priority.value IS 'MRR in the policy''s currency.';
COMMENT ON COLUMN cs.contact_priority.urgency IS '1, plus 2, 1, 0.5 or 0.25 for each open alert by severity, plus up to 1 as a renewal within 90 days comes near or is overdue.';
COMMENT ON COLUMN cs.contact_priority.silence IS '1, plus up to 1 for days since the last contact (90 and more, or never: 2).';
COMMENT ON COLUMN cs.contact_priority.band IS 'Health band; NULL without a score.';
COMMENT ON COLUMN cs.contact_priority.health_score IS 'Health score from 0 to 100; NULL: none.';
COMMENT ON COLUMN cs.contact_priority.mrr IS 'Monthly recurring revenue.';
COMMENT ON COLUMN cs.contact_priority.days_to_renewal IS 'Days to the next renewal, negative = overdue; NULL: none known.';
COMMENT ON COLUMN cs.contact_priority.days_since_touch IS 'Days since the last contact; NULL: never, or no touchpoints mapped.';
COMMENT ON COLUMN cs.contact_priority.open_alerts IS 'Number of open alerts.';
COMMENT ON COLUMN cs.contact_priority.reason IS 'The open alerts'' messages, what pulls a red or yellow score down, and long silence, in words.';
COMMENT ON COLUMN cs.contact_priority.data_through_at IS 'Facts before this instant are in.';
COMMENT ON COLUMN cs.contact_priority.computed_at IS 'When the health was last computed.';

-- What came of acting: alerts of a rule that somebody acknowledged, against those
-- that nobody did, by who churned within 90 days of the opening. Not an
-- experiment: people choose whom they call.
CREATE VIEW cs.recommended_action WITH (security_barrier) AS
WITH past AS (
	SELECT a.rule, x.acted,
		EXISTS (SELECT FROM cs_internal.movement m WHERE m.customer_id = a.customer_id AND m.kind = 'churn' AND m.at > a.opened_at AND m.at < a.opened_at + interval '90 days') AS churned
	FROM cs_internal.alert a, cs_internal.clock k,
		LATERAL (SELECT EXISTS (SELECT FROM cs_internal.alert_event e WHERE e.alert_id = a.id AND e.to_state = 'acknowledged') AS acted) x
	WHERE a.customer_id <> '' AND a.opened_at + interval '90 days' <= k.last_as_of AND a.state <> 'dismissed'
), effect AS (
	SELECT p.rule, count(*) FILTER (WHERE p.acted) AS acted, count(*) FILTER (WHERE NOT p.acted) AS left_alone,
		avg(p.churned::integer) FILTER (WHERE p.acted) AS churned_acted, avg(p.churned::integer) FILTER (WHERE NOT p.acted) AS churned_left_alone
	FROM past p GROUP BY p.rule
)
SELECT a.customer_id::text AS customer_id, c.name, a.owner, a.id AS alert_id, a.rule, a.severity, a.state, a.message, r.recommended_action,
	coalesce(e.acted, 0) AS acted, coalesce(e.left_alone, 0) AS left_alone,
	e.churned_acted::numeric(18,9) AS churned_acted, e.churned_left_alone::numeric(18,9) AS churned_left_alone,
	CASE WHEN e.acted >= 20 AND e.left_alone >= 20 THEN e.churned_left_alone - e.churned_acted END::numeric(18,9) AS effect,
	k.last_as_of AS data_through_at, k.last_refresh_at AS computed_at
FROM cs_internal.alert a
JOIN cs.alert_rule r ON r.name = a.rule
LEFT JOIN cs_internal.customer c ON c.customer_id = a.customer_id
LEFT JOIN effect e ON e.rule = a.rule
LEFT JOIN cs_internal.clock k ON true
WHERE a.state IN ('open', 'acknowledged', 'snoozed') AND a.customer_id <> '';
COMMENT ON VIEW cs.recommended_action IS 'What to do about each open alert of a customer, and what came of acting on earlier ones of the rule.';
COMMENT ON COLUMN cs.recommended_action.customer_id IS 'Customer.';
COMMENT ON COLUMN cs.recommended_action.name IS 'Name of the customer; NULL: none is mapped.';
COMMENT ON COLUMN cs.recommended_action.owner IS 'Owner of the alert; NULL: nobody.';
COMMENT ON COLUMN cs.recommended_action.alert_id IS 'Alert.';
COMMENT ON COLUMN cs.recommended_action.rule IS 'Its rule.';
COMMENT ON COLUMN cs.recommended_action.severity IS 'low, medium, high or critical.';
COMMENT ON COLUMN cs.recommended_action.state IS 'open, acknowledged or snoozed.';
COMMENT ON COLUMN cs.recommended_action.message IS 'Text of the alert; NULL: none.';
COMMENT ON COLUMN cs.recommended_action.recommended_action IS 'What the rule recommends; NULL: nothing.';
COMMENT ON COLUMN cs.recommended_action.acted IS 'Alerts of the rule opened 90 days ago and earlier that somebody acknowledged; dismissed ones do not count.';
COMMENT ON COLUMN cs.recommended_action.left_alone IS 'Those that nobody acknowledged.';
COMMENT ON COLUMN cs.recommended_action.churned_acted IS 'Share of the customers of the former who churned within 90 days of the opening; NULL: there are none.';
COMMENT ON COLUMN cs.recommended_action.churned_left_alone IS 'The same of the latter.';
COMMENT ON COLUMN cs.recommended_action.effect IS 'churned_left_alone - churned_acted: above 0 where acting went with fewer churns. Not an experiment: people choose whom they call. NULL with fewer than 20 of either.';
COMMENT ON COLUMN cs.recommended_action.data_through_at IS 'Facts before this instant are in.';
COMMENT ON COLUMN cs.recommended_action.computed_at IS 'When the last refresh ran, by the clock.';

CREATE VIEW cs.definition_status WITH (security_barrier) AS
SELECT d.table_name, d.key, d.status, d.sqlstate, d.error, d.customers, d.example, d.since
FROM cs_internal.definition_status d;
COMMENT ON VIEW cs.definition_status IS 'Definitions with something to tell: the SQL of a metric or rule that failed when it ran, and where.';
COMMENT ON COLUMN cs.definition_status.table_name IS 'Definition table, for example metric.';
COMMENT ON COLUMN cs.definition_status.key IS 'Key of the definition in it.';
COMMENT ON COLUMN cs.definition_status.status IS 'ok, failing, or held.';
COMMENT ON COLUMN cs.definition_status.sqlstate IS 'SQLSTATE of the last error; NULL: none.';
COMMENT ON COLUMN cs.definition_status.error IS 'Its message; NULL: none.';
COMMENT ON COLUMN cs.definition_status.customers IS 'For how many customers it failed; NULL: not known by customer.';
COMMENT ON COLUMN cs.definition_status.example IS 'One of them.';
COMMENT ON COLUMN cs.definition_status.since IS 'Since when the status is what it is.';
