
-- ---------------------------------------------------------------------------
-- profile: scorecards that add up as other products do, over the standard
-- metrics; ordinary rows, not enabled, written by cs.install_template().
-- ---------------------------------------------------------------------------

CREATE FUNCTION cs_internal.install_profile(profile text) RETURNS void
LANGUAGE plpgsql AS $body$
DECLARE
	lacking text;
BEGIN
	IF EXISTS (SELECT 1 FROM cs.scorecard s WHERE s.name = profile) THEN
		RETURN;
	END IF;
	SELECT string_agg(n, ', ') INTO lacking
	FROM unnest('{active_days_30d,features_used_30d,usage_change_30d,open_tickets,open_escalations,nps_latest,csat_90d,days_overdue,days_since_touch}'::text[]) n
	WHERE NOT EXISTS (SELECT 1 FROM cs.metric m WHERE m.name = n);
	IF lacking IS NOT NULL THEN
		RAISE EXCEPTION 'template "%" needs the standard metrics', profile USING ERRCODE = 'object_not_in_prerequisite_state',
			DETAIL = format('Not there: %s.', lacking), HINT = 'Run SELECT cs.install_template(''saas_basic'') first.';
	END IF;

	INSERT INTO cs.scorecard (name, red_below, green_from, edge_closed, hysteresis, min_coverage, enabled, description)
	SELECT v.*, 0, 0, false, 'Adds up as ' || initcap(substr(profile, 9)) || ' does; see doc/health.md' FROM (VALUES
		('profile_gainsight', 50, 75, 'below'), ('profile_totango', 40, 75, 'above'), ('profile_churnzero', 40, 70, 'below'),
		('profile_planhat', 40, 70, 'above'), ('profile_catalyst', 40, 70, 'above'), ('profile_natero', 40, 70, 'above'),
		('profile_vitally', 40, 70, 'above')) v (name, red, green, edge) WHERE v.name = profile;

	INSERT INTO cs.measure_group (scorecard, name, weight)
	SELECT profile, v.grp, v.weight FROM (VALUES
		('profile_gainsight', 'usage', 40), ('profile_gainsight', 'support', 30), ('profile_gainsight', 'voice', 30),
		('profile_totango', 'usage', 50), ('profile_totango', 'support', 25), ('profile_totango', 'voice', 25),
		('profile_catalyst', 'usage', 40), ('profile_catalyst', 'support', 30), ('profile_catalyst', 'voice', 30),
		('profile_natero', 'usage', 3), ('profile_natero', 'support', 2), ('profile_natero', 'voice', 2),
		('profile_vitally', 'usage', 50), ('profile_vitally', 'support', 25), ('profile_vitally', 'voice', 25)) v (card, grp, weight)
	WHERE v.card = profile;

	-- The same six metrics in each: what differs is how they become points and add up.
	INSERT INTO cs.measure (scorecard, name, metric, measure_group, weight, curve, worst, best, steps, missing, missing_points)
	SELECT profile, v.metric, v.metric,
		CASE WHEN EXISTS (SELECT 1 FROM cs.measure_group g WHERE g.scorecard = profile) THEN v.grp END,
		CASE WHEN profile = 'profile_churnzero' THEN v.weight ELSE 1 END,
		k.curve,
		CASE WHEN k.curve <> 'steps' THEN v.worst END, CASE WHEN k.curve <> 'steps' THEN v.best END,
		CASE WHEN k.curve = 'steps' THEN CASE WHEN v.worst < v.best
			THEN jsonb_build_array(jsonb_build_object('to', v.low, 'points', 0), jsonb_build_object('to', v.high, 'points', k.middle), jsonb_build_object('points', 100))
			ELSE jsonb_build_array(jsonb_build_object('to', v.low, 'points', 100), jsonb_build_object('to', v.high, 'points', k.middle), jsonb_build_object('points', 0)) END END,
		k.missing, CASE WHEN k.missing = 'neutral' THEN 50 END
	FROM (VALUES
		('active_days_30d', 'usage', 25, 0, 20, 5, 12), ('features_used_30d', 'usage', 15, 0, 10, 2, 5), ('open_tickets', 'support', 15, 5, 0, 1, 3),
		('open_escalations', 'support', 20, 2, 0, 0, 1), ('nps_latest', 'voice', 15, 0, 10, 6, 8), ('csat_90d', 'voice', 10, 1, 5, 3, 4)) v (metric, grp, weight, worst, best, low, high),
		(VALUES ('profile_gainsight', 'linear', 0, 'reweight'), ('profile_totango', 'steps', 60, 'reweight'), ('profile_churnzero', 'steps', 50, 'zero'),
		('profile_planhat', 'bounded', 0, 'neutral'), ('profile_catalyst', 'linear', 0, 'redistribute'), ('profile_natero', 'linear', 0, 'reweight'),
		('profile_vitally', 'steps', 50, 'reweight')) k (card, curve, middle, missing)
	WHERE k.card = profile;

	IF profile = 'profile_gainsight' THEN
		INSERT INTO cs.cap (scorecard, rule, at_most, description, search_path) VALUES (profile, 'open_escalations > 0', 50, 'Exception: red while an escalation is open', '');
	END IF;
END $body$;
COMMENT ON FUNCTION cs_internal.install_profile(text) IS 'Writes the scorecard of a profile, unless there is one of that name. Raises 55000 where the standard metrics are not there.';
