
-- ---------------------------------------------------------------------------
-- rehearsal: what an alert rule would have done, before it is switched on.
--
-- The rule goes over what history kept at each day bound, through the state
-- machine of alerts; what it would have opened is joined to the churns that
-- came, with the same rules as a backtest of scores (backtest.sql): notice
-- counts as the event, and an alert whose horizon is not over is not judged.
-- ---------------------------------------------------------------------------

-- Rows with customer_id: alerts. The one without: how often it was evaluated.
CREATE FUNCTION cs_internal.simulate_rule(rule text, since timestamptz, until timestamptz)
RETURNS TABLE (customer_id text, opened_at timestamptz, resolved_at timestamptz, severity text, message text,
	evaluations bigint, nulls bigint, days integer)
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'cs_simulate_rule_sql';
COMMENT ON FUNCTION cs_internal.simulate_rule(text, timestamptz, timestamptz) IS
'What a rule (a row of cs.alert_rule as JSON) would have opened on what history kept in [since, until); and a last row with how often it was evaluated, gave NULL, and on how many days.';

-- Since when, until when, within which horizon; raises for what makes no sense.
CREATE FUNCTION cs_internal.check_rehearsal(since timestamptz, until timestamptz, horizon interval) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	first timestamptz;
	last timestamptz;
BEGIN
	PERFORM cs_internal.check_horizon(since, horizon);
	SELECT min(h.as_of), max(h.as_of) INTO first, last FROM cs_internal.metric_history h;
	IF NOT EXISTS (SELECT FROM cs_internal.metric_history h WHERE h.as_of >= since AND h.as_of < coalesce(until, cs_internal.now())) THEN
		RAISE EXCEPTION 'no metrics are kept in [%, %)', since, coalesce(until, cs_internal.now())
			USING ERRCODE = 'invalid_parameter_value',
				DETAIL = CASE WHEN first IS NULL THEN 'Nothing is kept yet.' ELSE format('Kept is [%s, %s].', first, last) END,
				HINT = 'A job of kind snapshot keeps them each day; CALL cs.backfill_health(since) fills the past.';
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.check_rehearsal(timestamptz, timestamptz, interval) IS 'Raises for an interval without history and for a horizon that is none.';

-- Each alert with the churn that ended the time in which it opened.
CREATE FUNCTION cs_internal.rehearse(rule jsonb, since timestamptz, until timestamptz, horizon interval)
RETURNS TABLE (customer_id text, name text, owner text, opened_at timestamptz, resolved_at timestamptz, severity text, message text,
	churned_at timestamptz, event_at timestamptz, outcome text, lead_days integer, evaluations bigint, nulls bigint, days integer)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
	present timestamptz := cs_internal.now();
	zone text := (SELECT p.time_zone FROM cs.policy p);
BEGIN
	PERFORM cs_internal.check_rehearsal(since, until, horizon);
	RETURN QUERY
	WITH event AS MATERIALIZED (SELECT * FROM cs_internal.churn_events()),
	fired AS MATERIALIZED (SELECT * FROM cs_internal.simulate_rule(rule::text, since, coalesce(until, present)))
	SELECT f.customer_id, c.name, coalesce(c.owner, rule ->> 'fallback_owner'), f.opened_at, f.resolved_at, f.severity, f.message, v.churned_at, v.event_at,
		CASE WHEN f.customer_id IS NULL THEN NULL WHEN v.event_at <= f.opened_at THEN 'announced' WHEN v.event_at < f.opened_at + horizon THEN 'churned'
			WHEN f.opened_at + horizon > present THEN 'running' ELSE 'retained' END,
		CASE WHEN v.event_at > f.opened_at AND v.event_at < f.opened_at + horizon
			THEN (v.event_at AT TIME ZONE zone)::date - (f.opened_at AT TIME ZONE zone)::date END,
		f.evaluations, f.nulls, f.days
	FROM fired f
	LEFT JOIN cs_internal.customer c ON c.customer_id = f.customer_id
	LEFT JOIN LATERAL (SELECT e.churned_at, e.event_at FROM event e
		WHERE e.customer_id = f.customer_id AND e.churned_at >= f.opened_at ORDER BY e.churned_at LIMIT 1) v ON true
	ORDER BY f.opened_at, f.customer_id;
END $$;
COMMENT ON FUNCTION cs_internal.rehearse(jsonb, timestamptz, timestamptz, interval) IS 'The alerts a rule would have opened, each with what became of the customer; and a last row with the totals of simulate_rule.';

CREATE FUNCTION cs_internal.rehearsal(rule jsonb, since timestamptz, until timestamptz, horizon interval)
RETURNS TABLE (days integer, evaluations bigint, nulls bigint, alerts bigint, customers bigint, open_at_end bigint, judged bigint, churned_after bigint,
	"precision" numeric, churns bigint, churns_foretold bigint, recall numeric, median_lead_days numeric, alerts_per_day numeric, owners bigint, alerts_per_owner_and_day numeric)
LANGUAGE sql VOLATILE AS $$
	WITH r AS MATERIALIZED (SELECT * FROM cs_internal.rehearse(rule, since, until, horizon)),
	a AS (SELECT * FROM r WHERE r.customer_id IS NOT NULL),
	t AS (SELECT r.days, r.evaluations, r.nulls FROM r WHERE r.customer_id IS NULL),
	-- churns that an alert of the interval could have foretold
	churn AS (
		SELECT e.customer_id, e.event_at,
			EXISTS (SELECT FROM a WHERE a.customer_id = e.customer_id AND a.opened_at < e.event_at AND a.opened_at + horizon > e.event_at) AS foretold
		FROM cs_internal.churn_events() e
		WHERE e.event_at > since AND e.event_at < coalesce(until, cs_internal.now())
	), n AS (
		SELECT count(*) AS alerts, count(DISTINCT a.customer_id) AS customers, count(*) FILTER (WHERE a.resolved_at IS NULL) AS open_at_end,
			count(*) FILTER (WHERE a.outcome IN ('churned', 'retained')) AS judged, count(*) FILTER (WHERE a.outcome = 'churned') AS churned_after,
			percentile_cont(0.5) WITHIN GROUP (ORDER BY a.lead_days) AS lead, count(DISTINCT coalesce(a.owner, '')) AS owners
		FROM a
	)
	SELECT t.days, t.evaluations, t.nulls, n.alerts, n.customers, n.open_at_end, n.judged, n.churned_after,
		round(n.churned_after::numeric / nullif(n.judged, 0), 9)::numeric(18,9), k.churns, k.foretold, round(k.foretold::numeric / nullif(k.churns, 0), 9)::numeric(18,9),
		n.lead::numeric(18,9), round(n.alerts::numeric / nullif(t.days, 0), 9)::numeric(18,9), n.owners,
		round(n.alerts::numeric / nullif(t.days * n.owners, 0), 9)::numeric(18,9)
	FROM t, n, (SELECT count(*) AS churns, count(*) FILTER (WHERE churn.foretold) AS foretold FROM churn) k
$$;
COMMENT ON FUNCTION cs_internal.rehearsal(jsonb, timestamptz, timestamptz, interval) IS 'What comes of cs_internal.rehearse in one row.';

-- The row of a rule by name, as JSON; refuses what cannot be rehearsed.
CREATE FUNCTION cs_internal.rehearsed_rule(name text) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
	r cs.alert_rule;
BEGIN
	SELECT * INTO r FROM cs.alert_rule a WHERE a.name = rehearsed_rule.name;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'unknown alert rule "%"', name USING ERRCODE = 'invalid_parameter_value',
			HINT = coalesce('Did you mean "' || cs_internal.nearest(name, (SELECT array_agg(a.name) FROM cs.alert_rule a)) || '"?',
				'Alert rules stand in cs.alert_rule.');
	END IF;
	IF r.source IS NOT NULL THEN
		RAISE EXCEPTION 'alert rule "%" looks at the rows of %, of which no past states are kept', name, r.source USING ERRCODE = 'feature_not_supported',
			HINT = 'Rules over a customer''s state can be tried on history.';
	END IF;
	RETURN to_jsonb(r);
END $$;
COMMENT ON FUNCTION cs_internal.rehearsed_rule(text) IS 'The row of an alert rule over state, as JSON.';

CREATE FUNCTION cs_internal.preview_rule(rule text, since timestamptz, until timestamptz, horizon interval)
RETURNS TABLE (days integer, evaluations bigint, nulls bigint, alerts bigint, customers bigint, open_at_end bigint, judged bigint, churned_after bigint,
	"precision" numeric, churns bigint, churns_foretold bigint, recall numeric, median_lead_days numeric, alerts_per_day numeric, owners bigint, alerts_per_owner_and_day numeric)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	PERFORM cs_internal.check_rule(rule, current_setting('search_path'), 'boolean', 'the rule');
	RETURN QUERY SELECT * FROM cs_internal.rehearsal(jsonb_build_object('name', 'preview', 'rule', rule, 'severity', 'medium', 'scope', 'customer', 'dwell', '0',
		'resolve_after', '0', 'cooldown', '1 day', 'reopen_within', '0', 'max_new', 2147483647, 'enabled', true, 'search_path', ''), since, until, horizon);
END $$;
COMMENT ON FUNCTION cs_internal.preview_rule(text, timestamptz, timestamptz, interval) IS 'See cs.preview_rule.';

CREATE FUNCTION cs_internal.backtest_alert_rule(name text, since timestamptz, until timestamptz, horizon interval)
RETURNS TABLE (days integer, evaluations bigint, nulls bigint, alerts bigint, customers bigint, open_at_end bigint, judged bigint, churned_after bigint,
	"precision" numeric, churns bigint, churns_foretold bigint, recall numeric, median_lead_days numeric, alerts_per_day numeric, owners bigint, alerts_per_owner_and_day numeric)
LANGUAGE sql VOLATILE AS $$
	SELECT * FROM cs_internal.rehearsal(cs_internal.rehearsed_rule(name), since, until, horizon)
$$;
COMMENT ON FUNCTION cs_internal.backtest_alert_rule(text, timestamptz, timestamptz, interval) IS 'See cs.backtest_alert_rule.';

CREATE FUNCTION cs_internal.backtest_alerts(name text, since timestamptz, until timestamptz, horizon interval)
RETURNS TABLE (customer_id text, customer_name text, owner text, opened_at timestamptz, resolved_at timestamptz, severity text, message text,
	churned_at timestamptz, event_at timestamptz, outcome text, lead_days integer)
LANGUAGE sql VOLATILE AS $$
	SELECT r.customer_id, r.name, r.owner, r.opened_at, r.resolved_at, r.severity, r.message, r.churned_at, r.event_at, r.outcome, r.lead_days
	FROM cs_internal.rehearse(cs_internal.rehearsed_rule(backtest_alerts.name), since, until, horizon) r
	WHERE r.customer_id IS NOT NULL
	ORDER BY r.opened_at, r.customer_id
$$;
COMMENT ON FUNCTION cs_internal.backtest_alerts(text, timestamptz, timestamptz, interval) IS 'See cs.backtest_alerts.';

CREATE FUNCTION cs.preview_rule(rule text, since timestamptz, until timestamptz DEFAULT NULL, horizon interval DEFAULT '90 days')
RETURNS TABLE (days integer, evaluations bigint, nulls bigint, alerts bigint, customers bigint, open_at_end bigint, judged bigint, churned_after bigint,
	"precision" numeric, churns bigint, churns_foretold bigint, recall numeric, median_lead_days numeric, alerts_per_day numeric, owners bigint, alerts_per_owner_and_day numeric)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.preview_rule(text, timestamptz, timestamptz, interval) IS
'What a condition would have done as an alert rule on the metrics kept at the day bounds of [since, until) (NULL: now), before it is written: on how many days and how often it was evaluated and gave NULL (which opens nothing), alerts and customers, how many would still be open; judged: alerts whose horizon is over, of customers who had not given notice; churned_after: those whose customer left or gave notice within it; precision = churned_after / judged; churns in the interval, how many of them an alert came before by less than the horizon, recall = churns_foretold / churns; the median of days from alert to event; alerts a day, and a day and owner. NULL where nothing is there to divide by. Segments and metrics as kept, MRR from the ledger, owner and attributes of now. Raises where nothing is kept.';
CREATE FUNCTION cs.backtest_alert_rule(name text, since timestamptz, until timestamptz DEFAULT NULL, horizon interval DEFAULT '90 days')
RETURNS TABLE (days integer, evaluations bigint, nulls bigint, alerts bigint, customers bigint, open_at_end bigint, judged bigint, churned_after bigint,
	"precision" numeric, churns bigint, churns_foretold bigint, recall numeric, median_lead_days numeric, alerts_per_day numeric, owners bigint, alerts_per_owner_and_day numeric)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.backtest_alert_rule(text, timestamptz, timestamptz, interval) IS
'Like cs.preview_rule(), of a rule that stands in cs.alert_rule, enabled or not, with its clear_rule, dwell, resolve_after and segment; without what depends on people and other alerts (quiet hours, caps, inhibition). Raises for an unknown rule and for one over rows.';
CREATE FUNCTION cs.backtest_alerts(name text, since timestamptz, until timestamptz DEFAULT NULL, horizon interval DEFAULT '90 days')
RETURNS TABLE (customer_id text, customer_name text, owner text, opened_at timestamptz, resolved_at timestamptz, severity text, message text,
	churned_at timestamptz, event_at timestamptz, outcome text, lead_days integer)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.backtest_alerts(text, timestamptz, timestamptz, interval) IS
'The alerts that cs.backtest_alert_rule() counts: when each would have opened and been resolved (NULL: still open at the end), the churn that came (event_at: it or the notice, whichever was earlier), and outcome: churned (within the horizon), retained, announced (notice was given before the alert) or running (the horizon is not over). lead_days: local days from alert to event; NULL unless churned.';
