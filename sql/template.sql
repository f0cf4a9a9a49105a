
-- ---------------------------------------------------------------------------
-- template
-- ---------------------------------------------------------------------------

-- ---------------------------------------------------------------------------
-- template: standard definitions, written as ordinary rows by cs.setup() and
-- cs.install_template(). A row whose name is taken is left as it is.
-- ---------------------------------------------------------------------------

CREATE FUNCTION cs_internal.install_template(name text) RETURNS void
LANGUAGE plpgsql AS $body$
DECLARE
	path text := '';
BEGIN
	IF name IS NULL OR name <> ALL ('{saas_basic,profile_gainsight,profile_totango,profile_churnzero,profile_planhat,profile_catalyst,profile_natero,profile_vitally}') THEN
		RAISE EXCEPTION 'there is no template "%"', name USING ERRCODE = 'undefined_object',
			HINT = 'Templates: saas_basic, profile_gainsight, profile_totango, profile_churnzero, profile_planhat, profile_catalyst, profile_natero, profile_vitally.';
	END IF;
	IF NOT EXISTS (SELECT 1 FROM cs.policy) THEN
		RAISE EXCEPTION 'cs_ext is not set up in this database' USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Run cs.setup() first.';
	END IF;

	IF name LIKE 'profile%' THEN
		PERFORM cs_internal.install_profile(name);
		RETURN;
	END IF;

	INSERT INTO cs.metric (name, source, expression, unit, better, lookback_days, description, search_path)
	SELECT v.*, path FROM (VALUES
	('mrr', 'ledger', 'mrr', 'money', 'high', NULL::integer, 'Monthly recurring revenue in the policy''s currency'),
	('tenure_days', 'ledger', 'tenure_days', 'days', 'high', NULL, 'Local days since the current active period began; NULL when not active'),
	('days_to_renewal', 'ledger', 'days_to_renewal', 'days', 'high', NULL, 'Days to the next renewal of an active row; negative = overdue'),
	('seats', 'ledger', 'seats', 'count', 'high', NULL, 'Seats of active rows without trials'),
	('mrr_change_90d', 'ledger', 'mrr / nullif(mrr_ago(90), 0) - 1', 'share', 'high', 90, 'Change of MRR against 90 days ago'),
	('events_30d', 'usage', 'events(usage, NULL, 30)', 'count', 'high', 30, 'Events of the last 30 whole days'),
	('active_users_30d', 'usage', 'active_users(usage, 30)', 'count', 'high', 30, 'Users with an event in the last 30 whole days'),
	('active_days_30d', 'usage', 'active_days(usage, 30)', 'days', 'high', 30, 'Days with an event among the last 30'),
	('features_used_30d', 'usage', 'distinct_events(usage, 30)', 'count', 'high', 30, 'Kinds of events in the last 30 whole days'),
	('stickiness_30d', 'usage', 'stickiness(usage, 30)', 'share', 'high', 30, 'Mean daily users divided by users of the window'),
	('days_since_active', 'usage', 'days_since(usage, NULL)', 'days', 'low', NULL, 'Days since the last day with an event'),
	('usage_change_30d', 'usage', 'events(usage, NULL, 30) / nullif(events(usage, NULL, 30, ago => 30), 0)::float8 - 1', 'share', 'high', 60, 'Events of the last 30 days against the 30 before'),
	('active_users_change_30d', 'usage', 'active_users(usage, 30) / nullif(active_users(usage, 30, ago => 30), 0)::float8 - 1', 'share', 'high', 60, 'Active users of the last 30 days against the 30 before'),
	('seat_utilisation', 'formula', 'active_users_30d / nullif(seats, 0)', 'share', 'high', 30, 'Active users per seat'),
	('open_tickets', 'ticket', 'count(*) FILTER (WHERE resolved_at IS NULL)', 'count', 'low', NULL, 'Tickets not resolved'),
	('tickets_30d', 'ticket', 'count(*) FILTER (WHERE opened_at >= as_of_day - 30)', 'count', 'low', 30, 'Tickets opened in the last 30 days'),
	('open_escalations', 'ticket', 'count(*) FILTER (WHERE escalated AND resolved_at IS NULL)', 'count', 'low', NULL, 'Escalated tickets not resolved'),
	('first_reply_hours_90d', 'ticket', 'avg(extract(epoch FROM first_reply_at - opened_at) / 3600) FILTER (WHERE opened_at >= as_of_day - 90)', 'number', 'low', 90, 'Mean hours to the first reply'),
	('csat_90d', 'ticket', 'avg(csat) FILTER (WHERE resolved_at >= as_of_day - 90)', 'number', 'high', 90, 'Mean satisfaction of tickets resolved in the last 90 days'),
	('nps_latest', 'survey', '(array_agg(score ORDER BY at DESC, respondent) FILTER (WHERE kind = ''nps'' AND at >= as_of_day - 180))[1]', 'number', 'high', 180, 'Latest NPS answer of the last 180 days'),
	('nps_180d', 'survey', '100 * avg((score >= 9)::int - (score <= 6)::int) FILTER (WHERE kind = ''nps'' AND at >= as_of_day - 180)', 'points', 'high', 180, 'Net promoter score of the last 180 days'),
	('days_overdue', 'invoice', 'coalesce(max(as_of_day - due_at::date) FILTER (WHERE paid_at IS NULL AND due_at < as_of), 0)', 'days', 'low', NULL, 'Days the oldest unpaid invoice is overdue'),
	('days_since_touch', 'touchpoint', 'as_of_day - max(at)::date', 'days', 'low', NULL, 'Days since the last contact'),
	('mail_open_share_90d', 'message', 'avg((opened_at IS NOT NULL)::int) FILTER (WHERE sent_at >= as_of_day - 90)', 'share', 'high', 90, 'Share of messages opened'),
	('onboarding_share', 'onboarding_step', 'sum(coalesce(weight, 1) * (completed_at IS NOT NULL)::int) / nullif(sum(coalesce(weight, 1)), 0)', 'share', 'high', NULL, 'Share of onboarding done, by weight')
	) v (name, source, expression, unit, better, lookback_days, description)
	WHERE NOT EXISTS (SELECT 1 FROM cs.metric m WHERE m.name = v.name)
	ORDER BY v.source = 'formula';

	IF NOT EXISTS (SELECT 1 FROM cs.scorecard s WHERE s.name = 'default') THEN
		INSERT INTO cs.scorecard (name, description) VALUES ('default', 'Usage, support, voice and payment of any customer');
		INSERT INTO cs.measure (scorecard, name, metric, weight, worst, best)
		SELECT 'default', v.metric, v.metric, v.weight, v.worst, v.best FROM (VALUES
			('active_days_30d', 20, 0, 20), ('days_since_active', 25, 30, 0), ('usage_change_30d', 15, -0.5, 0.2),
			('open_escalations', 10, 2, 0), ('open_tickets', 5, 5, 0), ('csat_90d', 5, 1, 5), ('nps_latest', 10, 0, 10),
			('days_overdue', 5, 60, 0), ('days_since_touch', 5, 90, 0)) v (metric, weight, worst, best);
	END IF;

	INSERT INTO cs.dimension (name, fallback, description)
	SELECT v.* FROM (VALUES
		('tier', 'small', 'Value tier by MRR'),
		('touch', 'tech', 'Touch model: how much personal contact a customer gets'),
		('stage', 'adoption', 'Stage of the customer''s life')) v (name, fallback, description)
	WHERE NOT EXISTS (SELECT 1 FROM cs.dimension d WHERE d.name = v.name);

	INSERT INTO cs.segment (dimension, name, rule, priority, description, search_path)
	SELECT v.*, path FROM (VALUES
		('tier', 'enterprise', 'mrr >= 5000', 10, 'MRR of 5,000 and more'),
		('tier', 'mid', 'mrr >= 1000', 20, 'MRR of 1,000 and more'),
		('touch', 'high', 'tier = ''enterprise''', 10, 'A person for each customer'),
		('touch', 'low', 'tier = ''mid''', 20, 'A person for many customers'),
		('stage', 'churned', 'NOT active AND NOT in_trial', 10, 'Neither active nor in trial'),
		('stage', 'trial', 'in_trial AND NOT active', 20, 'In trial'),
		('stage', 'onboarding', 'tenure_days < 90 AND coalesce(onboarding_share, 0) < 1', 30, 'Within 90 days and onboarding not done'),
		('stage', 'escalation', 'open_escalations > 0', 40, 'An escalated ticket is open'),
		('stage', 'renewal', 'days_to_renewal <= 90', 50, 'The term ends within 90 days'),
		('stage', 'expansion', 'seat_utilisation >= 0.9', 60, 'Nearly all seats are in use'),
		('stage', 'advocacy', 'nps_latest >= 9 AND tenure_days >= 365', 70, 'A promoter of a year and more')
		) v (dimension, name, rule, priority, description)
	WHERE NOT EXISTS (SELECT 1 FROM cs.segment s WHERE s.dimension = v.dimension AND s.name = v.name);

	INSERT INTO cs.alert_rule (name, rule, clear_rule, source, key, severity, message, recommended_action, description, search_path)
	SELECT v.*, path FROM (VALUES
		('usage_drop', 'active AND usage_change_30d < -0.4 AND tenure_days > 60', 'NOT active OR usage_change_30d > -0.2', NULL, NULL, 'high',
			'format(''usage %s%% against the 30 days before'', round(100 * usage_change_30d))', 'Ask the main users what changed; offer a session on what they stopped using', 'Use fell by 40 % and more'),
		('inactive', 'active AND coalesce(days_since_active, tenure_days) > 14', 'NOT active OR coalesce(days_since_active, tenure_days) <= 7', NULL, NULL, 'medium',
			'format(''no activity for %s days'', coalesce(days_since_active, tenure_days))', 'Call the contact, not the user: is the project still alive?', 'Nobody used the product for two weeks'),
		('renewal_near', 'active AND days_to_renewal BETWEEN 0 AND 60', 'NOT active OR days_to_renewal > 60 OR days_to_renewal < 0', NULL, NULL, 'low',
			'format(''renewal in %s days'', days_to_renewal)', 'Send the renewal offer with what was achieved since the last one', 'The term ends within 60 days'),
		('health_red', 'active AND band = ''red''', 'NOT active OR band IN (''yellow'', ''green'')', NULL, NULL, 'high',
			'format(''health %s'', round(health::numeric, 1))', 'Read cs.health_explain for the measures that pull it down, and plan one step for each', 'The health band is red'),
		('payment_overdue', 'active AND days_overdue > 14', 'days_overdue <= 0', NULL, NULL, 'medium',
			'format(''oldest invoice overdue by %s days'', days_overdue)', 'Ask accounting for the invoice contact before it is escalated', 'An invoice is overdue by two weeks'),
		('ticket_escalated', 'escalated AND resolved_at IS NULL', 'resolved_at IS NOT NULL', 'ticket', 'ticket_id', 'critical',
			'format(''escalated ticket %s'', ticket_id)', 'Tell the customer who works on it and when they hear next', 'A ticket is escalated and not resolved')
		) v (name, rule, clear_rule, source, key, severity, message, recommended_action, description)
	WHERE NOT EXISTS (SELECT 1 FROM cs.alert_rule r WHERE r.name = v.name);

	INSERT INTO cs.job (name, kind, every, at, description)
	SELECT v.* FROM (VALUES
		('nightly_snapshot', 'snapshot', interval '1 day', time '00:15', 'Health and metrics of every customer as of local midnight'),
		('retention', 'retention', interval '1 day', time '03:30', 'Thins old history and runs')) v (name, kind, every, at, description)
	WHERE NOT EXISTS (SELECT 1 FROM cs.job j WHERE j.name = v.name);
END $body$;
COMMENT ON FUNCTION cs_internal.install_template(text) IS 'See cs.install_template.';

CREATE FUNCTION cs.install_template(name text) RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.install_template(text) IS
'Writes the standard definitions of a template as ordinary rows; names that are taken are left as they are. saas_basic: metrics, a scorecard, dimensions, alert rules, jobs; profile_gainsight, profile_totango, profile_churnzero, profile_planhat, profile_catalyst, profile_natero, profile_vitally: a scorecard, not enabled, that adds up as that product does.';
