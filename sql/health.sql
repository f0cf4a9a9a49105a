
-- ---------------------------------------------------------------------------
-- health: the score as stored, its history and its explanation.
-- ---------------------------------------------------------------------------

-- Decided: the band has hysteresis, the stored score is what people saw.
CREATE TABLE cs_internal.health (
	customer_id text COLLATE "C" PRIMARY KEY,
	as_of timestamptz NOT NULL,          -- the evaluation that last changed the row
	score float8,                        -- after overrides; the automatic one stands in cs_internal.state
	auto_band text,                      -- band without overrides: what hysteresis looks at
	band text,
	band_since timestamptz,
	band_reason text,
	coverage float8,
	scorecard text,
	version bigint,                      -- newest definition_history.id of the scorecard's rows when scored
	computed_at timestamptz NOT NULL
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.health', '');

-- Decided: one row a day bound and one per band change; never rewritten.
CREATE TABLE cs_internal.health_history (
	customer_id text COLLATE "C" NOT NULL,
	as_of timestamptz NOT NULL,
	score float8,
	band text,
	coverage float8,
	scorecard text,
	version bigint,
	basis text NOT NULL DEFAULT 'stored',
	computed_at timestamptz NOT NULL,
	PRIMARY KEY (customer_id, as_of, basis)
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.health_history', '');

-- Decided: what people put in the place of the computed score or band. The
-- newest that has neither ended nor expired is in force.
CREATE TABLE cs_internal.health_override (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	customer_id text COLLATE "C" NOT NULL,
	value float8,
	delta float8,
	band text,
	reason text NOT NULL,
	actor text NOT NULL,
	created_at timestamptz NOT NULL,
	expires_at timestamptz NOT NULL,
	ended_at timestamptz                 -- when it expired, or a newer one replaced it
);
CREATE INDEX health_override_customer ON cs_internal.health_override (customer_id, id);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.health_override', '');
SELECT pg_catalog.pg_extension_config_dump('cs_internal.health_override_id_seq', '');

-- When time alone changes the health of customers: the expiry of their
-- overrides. The stage ends those that have expired, so each is due once.
CREATE FUNCTION cs_internal.health_due(customers text[])
RETURNS TABLE (customer_id text, due_at timestamptz)
LANGUAGE sql STABLE AS $$
	SELECT o.customer_id, min(o.expires_at) FROM cs_internal.health_override o
	WHERE o.customer_id = ANY ((SELECT customers)::text[]) AND o.ended_at IS NULL GROUP BY 1
$$;

-- The override in force at an instant, as a row of NULLs where there is none.
CREATE FUNCTION cs_internal.override_at(customer text, instant timestamptz) RETURNS cs_internal.health_override
LANGUAGE sql STABLE AS $$
	SELECT o FROM cs_internal.health_override o
	WHERE o.customer_id = customer AND o.created_at <= instant AND o.expires_at > instant
		AND (o.ended_at IS NULL OR o.ended_at > instant)
	ORDER BY o.id DESC LIMIT 1
$$;

CREATE FUNCTION cs_internal.health_band(score float8, red_below float8, green_from float8, edge_closed text, hysteresis float8, previous text) RETURNS text
LANGUAGE c IMMUTABLE AS 'MODULE_PATHNAME', 'cs_health_band_sql';
COMMENT ON FUNCTION cs_internal.health_band(float8, float8, float8, text, float8, text) IS
'Band of a score, given the band before (NULL: none); NULL without score or cuts.';

-- Score and band of an instant as people see them: the automatic score with
-- the override that was in force. The stage does the same in C.
CREATE FUNCTION cs_internal.shown_health(customer text, instant timestamptz, card text, automatic float8, previous text)
RETURNS TABLE (score float8, band text)
LANGUAGE sql STABLE ROWS 1 AS $$
	SELECT shown.score, CASE WHEN o.band IS NOT NULL AND c.name IS NOT NULL THEN o.band
		ELSE cs_internal.health_band(shown.score, c.red_below, c.green_from, c.edge_closed, c.hysteresis,
			CASE WHEN shown.score IS NOT DISTINCT FROM automatic THEN previous END) END
	FROM cs_internal.override_at(customer, instant) o
	LEFT JOIN cs.scorecard c ON c.name = card
	CROSS JOIN LATERAL (SELECT CASE WHEN c.name IS NULL THEN automatic
		WHEN o.value IS NOT NULL THEN round(o.value * 4294967296) / 4294967296
		-- least() takes no notice of a NULL: without a score there is nothing to move
		WHEN o.delta IS NOT NULL AND automatic IS NOT NULL THEN greatest(0, least(100, automatic + round(o.delta * 4294967296) / 4294967296))
		ELSE automatic END AS score) shown
$$;

-- ---- the stored score ------------------------------------------------------

-- What was known at an instant: the newest stored row up to it.
CREATE FUNCTION cs_internal.health_at(customer text, instant timestamptz)
RETURNS TABLE (as_of timestamptz, score float8, band text, coverage float8, scorecard text, version bigint, is_current boolean)
LANGUAGE sql STABLE ROWS 1 AS $$
	SELECT x.as_of, x.score, x.band, x.coverage, x.scorecard, x.version, x.is_current FROM (
		SELECT h.as_of, h.score, h.band, h.coverage, h.scorecard, h.version, true AS is_current
		FROM cs_internal.health h
		WHERE h.customer_id = customer AND (instant IS NULL OR h.as_of <= instant)
		UNION ALL
		(SELECT h.as_of, h.score, h.band, h.coverage, h.scorecard, h.version, false
		FROM cs_internal.health_history h
		WHERE h.customer_id = customer AND h.as_of <= instant AND h.basis = 'stored'
		ORDER BY h.as_of DESC LIMIT 1)) x
	-- The row in force keeps the instant it was last changed at, so once everything
	-- is evaluated up to the instant asked for it comes before a later snapshot.
	ORDER BY x.is_current AND instant >= (SELECT c.last_as_of FROM cs_internal.clock c) DESC NULLS LAST,
		x.as_of DESC, x.is_current DESC LIMIT 1
$$;

CREATE FUNCTION cs_internal.health_not_set_up() RETURNS float8
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RAISE EXCEPTION 'cs_ext is not set up in this database'
		USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Run SELECT cs.setup(time_zone => ''Europe/Berlin'', currency => ''EUR'');';
END $$;

-- plpgsql for its plans, which are kept in the session.
CREATE FUNCTION cs_internal.health_score(customer text, as_of timestamptz) RETURNS float8
LANGUAGE plpgsql STABLE AS $$
DECLARE
	result float8;
BEGIN
	IF as_of IS NULL THEN
		SELECT h.score INTO result FROM cs_internal.health h WHERE h.customer_id = customer;
	ELSE
		SELECT h.score INTO result FROM cs_internal.health_at(customer, as_of) h;
	END IF;
	IF result IS NULL AND NOT EXISTS (SELECT FROM cs.policy) THEN
		RETURN cs_internal.health_not_set_up();
	END IF;
	RETURN result;
END $$;
CREATE FUNCTION cs.health_score(customer text, as_of timestamptz DEFAULT NULL) RETURNS float8
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.health_score(text, timestamptz) IS 'The health score of a customer, 0 to 100, overrides included, as it was stored: as_of NULL (default) the newest, else the newest that was stored for an instant up to as_of. NULL for an unknown customer, where nothing is stored, and where there was no score (inactive, too little coverage).';

-- ---- why -------------------------------------------------------------------

CREATE FUNCTION cs_internal.health_explain(customer text, as_of timestamptz)
RETURNS TABLE (measure text, metric text, value float8, points float8, weight float8, contribution float8, lost float8, reason text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	h record;
	inputs float8[];
	extra jsonb;
	automatic float8;
	o cs_internal.health_override;
BEGIN
	PERFORM cs_internal.health_not_set_up() WHERE NOT EXISTS (SELECT FROM cs.policy);
	SELECT * INTO h FROM cs_internal.health_at(customer, health_explain.as_of);
	IF NOT FOUND THEN
		-- known, but never scored
		RETURN QUERY SELECT '(no score)'::text, NULL::text, NULL::float8, NULL::float8, NULL::float8, NULL::float8, NULL::float8, s.score_reason
			FROM cs_internal.state s WHERE s.customer_id = customer AND s.score_reason IS NOT NULL AND health_explain.as_of IS NULL;
		RETURN;
	END IF;
	IF h.scorecard IS NULL THEN
		RETURN QUERY SELECT '(no score)'::text, NULL::text, NULL::float8, NULL::float8, NULL::float8, NULL::float8, NULL::float8,
			CASE WHEN h.is_current THEN (SELECT s.score_reason FROM cs_internal.state s WHERE s.customer_id = customer) ELSE 'inactive' END;
		RETURN;
	END IF;

	-- The values: those kept at that day bound, or those of now.
	SELECT m."values", m.health_inputs INTO inputs, extra FROM cs_internal.metric_history m
		WHERE m.customer_id = customer AND m.as_of = h.as_of AND NOT h.is_current;
	IF NOT FOUND AND h.is_current THEN
		SELECT s."values", s.health_inputs INTO inputs, extra FROM cs_internal.state s WHERE s.customer_id = customer;
	ELSIF NOT FOUND THEN
		RAISE EXCEPTION 'the score of customer "%" at % cannot be explained: its inputs were not kept', customer, h.as_of
			USING ERRCODE = 'object_not_in_prerequisite_state',
				DETAIL = 'Metric values are kept at day bounds; this score is of a change of band between two of them.',
				HINT = 'Ask for the start of a day, or leave as_of out for the newest score.';
	END IF;

	FOR measure, metric, value, points, weight, contribution, lost, reason IN
		SELECT p.measure, p.metric, p.value, p.points, p.weight, p.contribution, p.lost, p.reason
		FROM cs_internal.score_parts(inputs, h.scorecard, h.version, extra) p
	LOOP
		automatic := CASE WHEN contribution IS NOT NULL THEN coalesce(automatic, 0) + contribution END;
		RETURN NEXT;
	END LOOP;

	o := cs_internal.override_at(customer, h.as_of);
	IF h.score IS DISTINCT FROM automatic AND coalesce(o.value, o.delta) IS NULL THEN
		RAISE EXCEPTION 'the score of customer "%" at % cannot be explained: it was computed from something else', customer, h.as_of
			USING ERRCODE = 'object_not_in_prerequisite_state',
				DETAIL = format('Stored is %s; the values and the scorecard kept give %s.', coalesce(h.score::text, 'no score'), coalesce(automatic::text, 'no score')),
				HINT = 'CALL cs.refresh() evaluates what is outstanding; cs.health_recompute() gives the score as known now.';
	END IF;

	IF o.id IS NOT NULL AND (o.delta IS NULL OR automatic IS NOT NULL) THEN
		RETURN QUERY SELECT '(override)'::text, NULL::text, coalesce(o.value, o.delta), NULL::float8, NULL::float8,
			h.score - coalesce(automatic, 0),
			CASE WHEN automatic IS NULL THEN 100 - h.score ELSE automatic - h.score END,
			format('%s by %s until %s: %s',
				CASE WHEN o.value IS NOT NULL THEN 'set' WHEN o.delta IS NOT NULL THEN 'moved' ELSE 'band ' || o.band END,
				o.actor, o.expires_at, o.reason);
	END IF;
	IF h.score IS NULL THEN
		RETURN QUERY SELECT '(no score)'::text, NULL::text, NULL::float8, NULL::float8, NULL::float8, NULL::float8, NULL::float8,
			(SELECT a.reason FROM cs_internal.score(inputs, h.scorecard, h.version, extra) a);
	END IF;
END $$;
CREATE FUNCTION cs.health_explain(customer text, as_of timestamptz DEFAULT NULL) RETURNS TABLE (measure text, metric text, value float8, points float8, weight float8, contribution float8, lost float8, reason text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.health_explain(text, timestamptz) IS 'Why health_score() is what it is: a row per measure with its value, points (0 to 100), weight (share of the score, after missing measures), contribution, points lost, and a reason where the value alone does not say it; a row (cap) for what a cap takes, a row (override) for an override, a row (no score) where there is none. Contributions add exactly to the score; without a score they are NULL. No row for an unknown customer. Raises 55000 where the inputs of a past score were not kept.';

-- ---- the score of the past, as known now ------------------------------------

CREATE FUNCTION cs_internal.recompute_score(customer text, as_of timestamptz) RETURNS float8
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'cs_recompute_score';

CREATE FUNCTION cs_internal.health_recompute(customer text, as_of timestamptz) RETURNS float8
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
	IF customer IS NULL OR NOT EXISTS (SELECT FROM cs_internal.customer c WHERE c.customer_id = customer) THEN
		PERFORM cs_internal.health_not_set_up() WHERE NOT EXISTS (SELECT FROM cs.policy);
		RAISE EXCEPTION 'unknown customer "%"', customer
			USING ERRCODE = 'no_data_found', HINT = 'A customer is known after the first refresh that reads its row.';
	END IF;
	RETURN cs_internal.recompute_score(customer, cs_internal.past_instant(as_of, 'as_of'));
END $$;
CREATE FUNCTION cs.health_recompute(customer text, as_of timestamptz DEFAULT NULL) RETURNS float8
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.health_recompute(text, timestamptz) IS 'The health score of a customer as of an instant (NULL, the default: now) as the facts say now, under the definitions of now, without overrides; nothing is stored. NULL where it would be NULL; raises for an unknown customer.';

-- ---- overrides -------------------------------------------------------------

-- Puts a value, a delta or a band in the place of what is computed. The newest
-- replaces the one before it.
CREATE FUNCTION cs_internal.override_health(customer text, value float8, delta float8, band text, reason text, expires_at timestamptz)
RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	now_at timestamptz := cs_internal.now();
	result bigint;
BEGIN
	PERFORM FROM cs_internal.customer c WHERE c.customer_id = override_health.customer;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'unknown customer "%"', customer
			USING ERRCODE = 'no_data_found', HINT = 'A customer is known after the first refresh that reads its row.';
	END IF;
	IF num_nonnulls(value, delta, band) <> 1 THEN
		RAISE EXCEPTION 'an override needs exactly one of value, delta and band'
			USING ERRCODE = 'invalid_parameter_value', DETAIL = format('%s were given.', num_nonnulls(value, delta, band));
	END IF;
	IF coalesce(reason, '') !~ '\S' THEN
		RAISE EXCEPTION 'an override needs a reason'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Say why in reason => ''...''; it is shown with the score.';
	END IF;
	IF expires_at IS NULL OR NOT isfinite(expires_at) THEN
		RAISE EXCEPTION 'an override needs an expiry'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Say until when in expires_at => ''...''.';
	END IF;
	IF expires_at <= now_at THEN
		RAISE EXCEPTION 'expires_at % is not in the future', expires_at
			USING ERRCODE = 'invalid_parameter_value', DETAIL = format('Now is %s.', now_at);
	END IF;
	PERFORM cs_internal.scorecard_number('value', value, 0, 100);
	PERFORM cs_internal.scorecard_number('delta', delta, -100, 100);
	IF band IS NOT NULL THEN
		PERFORM cs_internal.scorecard_word('band', 'of the override', band, '{red,yellow,green}');
	END IF;

	PERFORM cs_internal.lock_customer(customer);
	UPDATE cs_internal.health_override o SET ended_at = now_at
		WHERE o.customer_id = override_health.customer AND o.ended_at IS NULL AND o.expires_at > now_at;
	INSERT INTO cs_internal.health_override (customer_id, value, delta, band, reason, actor, created_at, expires_at)
		VALUES (override_health.customer, override_health.value, override_health.delta, override_health.band, override_health.reason,
			coalesce(nullif(current_setting('cs_ext.actor', true), ''), session_user::text), now_at, override_health.expires_at)
		RETURNING id INTO result;
	INSERT INTO cs_internal.dirty (customer_id, marked_at) VALUES (override_health.customer, clock_timestamp())
		ON CONFLICT DO NOTHING;
	RETURN result;
END $$;
CREATE FUNCTION cs.override_health(customer text, value float8 DEFAULT NULL, delta float8 DEFAULT NULL, band text DEFAULT NULL, reason text DEFAULT NULL, expires_at anycompatible DEFAULT NULL::text) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_override_health';
CREATE FUNCTION cs.override_health(customer bigint, value float8 DEFAULT NULL, delta float8 DEFAULT NULL, band text DEFAULT NULL, reason text DEFAULT NULL, expires_at anycompatible DEFAULT NULL::text) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_override_health';
CREATE FUNCTION cs.override_health(customer uuid, value float8 DEFAULT NULL, delta float8 DEFAULT NULL, band text DEFAULT NULL, reason text DEFAULT NULL, expires_at anycompatible DEFAULT NULL::text) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_override_health';
COMMENT ON FUNCTION cs.override_health(text, float8, float8, text, text, anycompatible) IS 'Puts a value (0 to 100), a delta (points) or a band (red, yellow, green), exactly one of them, in the place of what is computed for the customer, until expires_at (timestamptz; timestamp, date and text are read in the policy''s time zone); reason and expiry are required. A newer override replaces it. The automatic score is computed and kept beside it. Shown from the next refresh on. Returns the override''s id.';
COMMENT ON FUNCTION cs.override_health(bigint, float8, float8, text, text, anycompatible) IS 'override_health() for ids that are integers.';
COMMENT ON FUNCTION cs.override_health(uuid, float8, float8, text, text, anycompatible) IS 'override_health() for ids that are uuids.';

-- ---- views -----------------------------------------------------------------

CREATE VIEW cs.health_history WITH (security_barrier) AS
SELECT h.customer_id, h.as_of, h.score, h.band, h.coverage, h.scorecard, h.version, h.basis, h.computed_at
FROM cs_internal.health_history h;
COMMENT ON VIEW cs.health_history IS 'Health as it was stored: one row a customer and day bound, and one per change of band. Never rewritten.';
COMMENT ON COLUMN cs.health_history.customer_id IS 'Customer.';
COMMENT ON COLUMN cs.health_history.as_of IS 'Instant the row speaks of.';
COMMENT ON COLUMN cs.health_history.score IS 'Health score, 0 to 100, overrides included; NULL: none (inactive, too little coverage).';
COMMENT ON COLUMN cs.health_history.band IS 'red, yellow or green; NULL without score or override of the band.';
COMMENT ON COLUMN cs.health_history.coverage IS 'Share of the scorecard''s weight that had a value, 0 to 1; NULL where no scorecard applied.';
COMMENT ON COLUMN cs.health_history.scorecard IS 'Scorecard used; NULL where none applied.';
COMMENT ON COLUMN cs.health_history.version IS 'Definition of the scorecard used: the newest definition_history id of its rows then.';
COMMENT ON COLUMN cs.health_history.basis IS 'stored: computed at that time; recomputed: filled in later from the facts.';
COMMENT ON COLUMN cs.health_history.computed_at IS 'Clock time of the computation.';

CREATE VIEW cs.customer_health WITH (security_barrier) AS
SELECT s.customer_id, c.name, c.owner,
	h.score AS health_score, h.band, h.band_since,
	-- who was inactive from the first evaluation on has no row in health
	coalesce(h.band_reason, CASE s.score_reason WHEN 'inactive' THEN 'neither active nor in trial' ELSE s.score_reason END) AS band_reason,
	h.coverage, h.scorecard,
	s.score AS automatic_score, s.score_reason,
	(SELECT max(o.expires_at) FROM cs_internal.health_override o
		WHERE o.customer_id = s.customer_id AND o.ended_at IS NULL) AS override_expires_at,
	h.computed_at, k.last_as_of AS data_through_at,
	-- subqueries, not joins: who does not ask for them does not pay
	(SELECT x.score FROM cs_internal.health_history x
		WHERE x.customer_id = s.customer_id
			AND x.as_of <= ((k.last_as_of AT TIME ZONE p.time_zone)::date - 30)::timestamp AT TIME ZONE p.time_zone
		ORDER BY x.basis DESC, x.as_of DESC LIMIT 1) AS score_30d_ago,
	h.score - (SELECT x.score FROM cs_internal.health_history x
		WHERE x.customer_id = s.customer_id
			AND x.as_of <= ((k.last_as_of AT TIME ZONE p.time_zone)::date - 30)::timestamp AT TIME ZONE p.time_zone
		ORDER BY x.basis DESC, x.as_of DESC LIMIT 1) AS trend_30d,
	(k.last_as_of AT TIME ZONE p.time_zone)::date - (h.band_since AT TIME ZONE p.time_zone)::date AS days_in_band
FROM cs_internal.state s
LEFT JOIN cs_internal.customer c ON c.customer_id = s.customer_id
LEFT JOIN cs_internal.health h ON h.customer_id = s.customer_id
LEFT JOIN cs_internal.clock k ON k.id
LEFT JOIN cs.policy p ON true;
COMMENT ON VIEW cs.customer_health IS 'One row per customer: the newest health score, its band and why.';
COMMENT ON COLUMN cs.customer_health.customer_id IS 'Customer.';
COMMENT ON COLUMN cs.customer_health.name IS 'Name from the customer source; NULL: none.';
COMMENT ON COLUMN cs.customer_health.owner IS 'Owner of the customer; NULL: none.';
COMMENT ON COLUMN cs.customer_health.health_score IS 'Health score, 0 to 100, overrides included; NULL: see score_reason.';
COMMENT ON COLUMN cs.customer_health.band IS 'red, yellow or green; NULL without score or override of the band.';
COMMENT ON COLUMN cs.customer_health.band_since IS 'Instant since which the band is what it is.';
COMMENT ON COLUMN cs.customer_health.band_reason IS 'The two measures that lose most points, or the cap in force, or the override, or why there is no score.';
COMMENT ON COLUMN cs.customer_health.coverage IS 'Share of the scorecard''s weight that has a value, 0 to 1; NULL where no scorecard applies.';
COMMENT ON COLUMN cs.customer_health.scorecard IS 'Scorecard in use; NULL where none applies.';
COMMENT ON COLUMN cs.customer_health.automatic_score IS 'Score without overrides, 0 to 100; NULL: see score_reason.';
COMMENT ON COLUMN cs.customer_health.score_reason IS 'Why automatic_score is NULL: inactive, coverage, missing, no_scorecard; NULL where it is not.';
COMMENT ON COLUMN cs.customer_health.override_expires_at IS 'When the override in force ends; NULL: there is none.';
COMMENT ON COLUMN cs.customer_health.computed_at IS 'Clock time at which what is shown last changed; NULL: never scored.';
COMMENT ON COLUMN cs.customer_health.data_through_at IS 'Last evaluated instant.';
COMMENT ON COLUMN cs.customer_health.score_30d_ago IS 'Score at the start of the local day 30 days before data_through_at: as stored then, else as filled in by backfill_health(); NULL: none. cs.health_trend() takes any number of days.';
COMMENT ON COLUMN cs.customer_health.trend_30d IS 'health_score - score_30d_ago, points; NULL where one is missing.';
COMMENT ON COLUMN cs.customer_health.days_in_band IS 'Local days since band_since; NULL: never scored.';
