
-- ---------------------------------------------------------------------------
-- history: what became of a score: between two instants, if the scorecard were
-- another one, and in the time before anything was stored.
--
--   health_diff          from one stored score to another, in parts that add up
--   preview_scorecard, compare_scorecards   who would move
--   backfill_health      the past, recomputed
--   health_restatement   what was stored beside what the facts say now
-- ---------------------------------------------------------------------------

CREATE FUNCTION cs_internal.evaluated_at(customers text[], as_of timestamptz)
RETURNS TABLE (customer_id text, "values" float8[], segments jsonb, active boolean, in_trial boolean,
	scorecard text, score float8, coverage float8, score_reason text, health_inputs jsonb)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_evaluated_at_sql';
COMMENT ON FUNCTION cs_internal.evaluated_at(text[], timestamptz) IS
'Customers (NULL: all there were) evaluated at an instant from the facts, by the definitions of now, without overrides and without a trace.';

-- ---- which scorecard, with which cuts ----------------------------------------

-- The segment that a scorecard names, as segments of state have it.
CREATE FUNCTION cs_internal.in_card_segment(wanted text, segments jsonb) RETURNS boolean
LANGUAGE sql STABLE AS $$
	SELECT wanted IS NULL OR coalesce(CASE jsonb_typeof(segments -> w.dimension)
			WHEN 'string' THEN segments ->> w.dimension = w.segment
			WHEN 'array' THEN segments -> w.dimension ? w.segment END, false)
	FROM (SELECT CASE WHEN wanted LIKE '%:%' THEN split_part(wanted, ':', 1)
				ELSE (SELECT min(s.dimension) FROM cs.segment s WHERE s.name = wanted) END AS dimension,
			CASE WHEN wanted LIKE '%:%' THEN substr(wanted, strpos(wanted, ':') + 1) ELSE wanted END AS segment) w
$$;
COMMENT ON FUNCTION cs_internal.in_card_segment(text, jsonb) IS 'Is who is in these segments in the one that a scorecard is for (NULL: everybody is).';

-- The row of a scorecard as a version had it; that of now where nothing was kept.
CREATE FUNCTION cs_internal.card_row(card text, version bigint) RETURNS cs.scorecard
LANGUAGE sql STABLE AS $$
	SELECT coalesce(
		(SELECT jsonb_populate_record(NULL::cs.scorecard, h.new_row) FROM cs_internal.definition_history h
			WHERE h.table_name = 'scorecard' AND h.id <= version AND h.new_row ->> 'name' = card
			ORDER BY h.id DESC LIMIT 1),
		(SELECT c FROM cs.scorecard c WHERE c.name = card))
$$;
COMMENT ON FUNCTION cs_internal.card_row(text, bigint) IS 'A scorecard as it was in a version (NULL: now); without its measures.';

-- Without a band before, so without hysteresis.
CREATE FUNCTION cs_internal.fresh_band(card text, version bigint, score float8) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT cs_internal.health_band(score, c.red_below, c.green_from, c.edge_closed, c.hysteresis, NULL)
	FROM cs_internal.card_row(card, version) c
$$;
COMMENT ON FUNCTION cs_internal.fresh_band(text, bigint, float8) IS 'Band of a score by the cuts of a scorecard, without hysteresis.';

CREATE FUNCTION cs_internal.must_be_scorecard(card text) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
	near text;
BEGIN
	PERFORM cs_internal.health_not_set_up() WHERE NOT EXISTS (SELECT FROM cs.policy);
	IF card IS NULL THEN
		RAISE EXCEPTION 'the scorecard must not be NULL' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	IF NOT EXISTS (SELECT FROM cs.scorecard c WHERE c.name = card) THEN
		near := cs_internal.nearest(card, ARRAY(SELECT c.name FROM cs.scorecard c ORDER BY 1));
		RAISE EXCEPTION 'scorecard "%" does not exist', card
			USING ERRCODE = 'undefined_object', HINT = coalesce(format('Did you mean "%s"?', near), 'Scorecards stand in cs.scorecard.');
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.must_be_scorecard(text) IS 'Raises, with the near match, for what is no scorecard.';

-- ---- from one score to another -------------------------------------------------

-- All that a stored score was made from. uncapped is what the inputs and the
-- definition give, automatic minus uncapped the cap, stored minus automatic the
-- override.
CREATE FUNCTION cs_internal.health_made_of(customer text, instant timestamptz,
	OUT as_of timestamptz, OUT score float8, OUT automatic float8, OUT reason text, OUT scorecard text, OUT version bigint,
	OUT inputs float8[], OUT extra jsonb, OUT uncapped float8, OUT override text, OUT computed_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_variable
DECLARE
	h record;
	o cs_internal.health_override;
BEGIN
	SELECT * INTO h FROM cs_internal.health_at(customer, instant) x;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	as_of := h.as_of; score := h.score; scorecard := h.scorecard; version := h.version;
	IF h.is_current THEN
		SELECT x.computed_at INTO computed_at FROM cs_internal.health x WHERE x.customer_id = customer;
	ELSE
		SELECT x.computed_at INTO computed_at FROM cs_internal.health_history x
			WHERE x.customer_id = customer AND x.as_of = h.as_of AND x.basis = 'stored';
	END IF;
	IF scorecard IS NULL THEN
		reason := 'inactive';
		RETURN;
	END IF;
	IF h.is_current THEN
		SELECT s."values", s.health_inputs INTO inputs, extra FROM cs_internal.state s WHERE s.customer_id = customer;
	ELSE
		SELECT m."values", m.health_inputs INTO inputs, extra FROM cs_internal.metric_history m WHERE m.customer_id = customer AND m.as_of = h.as_of;
		IF NOT FOUND THEN
			RAISE EXCEPTION 'the score of customer "%" at % cannot be explained: its inputs were not kept', customer, h.as_of
				USING ERRCODE = 'object_not_in_prerequisite_state',
					DETAIL = 'Metric values are kept at day bounds; this score is of a change of band between two of them.',
					HINT = 'Ask for the start of a day, or leave until out for the newest score.';
		END IF;
	END IF;
	SELECT x.score, x.reason INTO automatic, reason FROM cs_internal.score(inputs, scorecard, version, extra) x;
	uncapped := (SELECT x.score FROM cs_internal.score(inputs, scorecard, version, extra - 'cap') x);
	o := cs_internal.override_at(customer, h.as_of);
	IF o.id IS NOT NULL THEN
		override := format('%s by %s: %s', CASE WHEN o.value IS NOT NULL THEN 'set to ' || o.value
			WHEN o.delta IS NOT NULL THEN 'moved by ' || o.delta ELSE 'band ' || o.band END, o.actor, o.reason);
	END IF;
	IF score IS DISTINCT FROM automatic AND coalesce(o.value, o.delta) IS NULL THEN
		RAISE EXCEPTION 'the score of customer "%" at % cannot be explained: it was computed from something else', customer, h.as_of
			USING ERRCODE = 'object_not_in_prerequisite_state',
				DETAIL = format('Stored is %s; the values and the scorecard kept give %s.', coalesce(score::text, 'no score'), coalesce(automatic::text, 'no score')),
				HINT = 'CALL cs.refresh() evaluates what is outstanding; cs.health_recompute() gives the score as known now.';
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.health_made_of(text, timestamptz) IS
'The stored score of an instant with its inputs, its definition and its override; no row known: all NULL.';

CREATE FUNCTION cs_internal.points_text(change float8) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE WHEN round(change::numeric, 1) > 0 THEN '+' ELSE '' END || round(change::numeric, 1)
$$;
COMMENT ON FUNCTION cs_internal.points_text(float8) IS 'A change of points for people: +4.5.';

CREATE FUNCTION cs_internal.value_text(value float8) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE WHEN value IS NULL THEN 'no value' WHEN abs(value) < 1e15 THEN trim_scale(round(value::numeric, 3))::text ELSE value::text END
$$;
COMMENT ON FUNCTION cs_internal.value_text(float8) IS 'A metric value for people, to three places.';

-- One metric at a time is moved from its old value to its new one under the old
-- definition, first those that gained a value, then those that lost it, then
-- the rest; then the definition is changed; caps and overrides stand beside.
-- Each part is what the score changes in that step, so the parts add up
-- whatever the curves are; all are multiples of 2^-32, so they do so exactly
-- and in any order. A step at which there would be no score (coverage) is
-- counted with the next.
CREATE FUNCTION cs_internal.health_diff(customer text, since timestamptz, until timestamptz)
RETURNS TABLE (part text, measure text, value_since float8, value_until float8, change float8, explanation text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	a record;            -- at since
	b record;            -- at until
	inputs float8[];
	before float8;
	after float8;
	step record;
	redefined text;
	rest float8 := 0;
	any_row boolean := false;
BEGIN
	PERFORM cs_internal.health_not_set_up() WHERE NOT EXISTS (SELECT FROM cs.policy);
	IF since IS NULL THEN
		RAISE EXCEPTION 'since must not be NULL' USING ERRCODE = 'null_value_not_allowed', HINT = 'Give the start of a day, for example ''2026-10-01''.';
	END IF;
	IF until <= since THEN
		RAISE EXCEPTION 'until % is not after since %', until, since USING ERRCODE = 'invalid_parameter_value';
	END IF;
	SELECT * INTO a FROM cs_internal.health_made_of(customer, since);
	SELECT * INTO b FROM cs_internal.health_made_of(customer, until);
	IF b.as_of IS NULL THEN
		RETURN;          -- unknown, or never scored
	END IF;
	IF a.score IS NULL OR b.score IS NULL THEN
		part := 'no score';
		measure := '(no score)';
		explanation := CASE
			WHEN a.as_of IS NULL THEN format('nothing was stored until %s', since)
			WHEN a.score IS NULL AND b.score IS NULL THEN format('no score at either end: %s, then %s', a.reason, b.reason)
			WHEN a.score IS NULL THEN format('no score at %s (%s), %s at %s', a.as_of, a.reason, round(b.score::numeric, 1), b.as_of)
			ELSE format('%s at %s, no score at %s (%s)', round(a.score::numeric, 1), a.as_of, b.as_of, b.reason) END;
		RETURN NEXT;
		RETURN;
	END IF;

	before := a.uncapped;
	IF a.automatic IS NOT NULL AND b.automatic IS NOT NULL THEN
		-- values, under the definition of since
		inputs := a.inputs || array_fill(NULL::float8, ARRAY[greatest(0, coalesce(cardinality(b.inputs), 0) - coalesce(cardinality(a.inputs), 0))]);
		FOR step IN
			WITH leaf AS (
				SELECT p.metric, string_agg(p.measure, ', ' ORDER BY p.measure COLLATE "C") AS measures,
					bool_or(p.value IS NOT NULL AND coalesce(p.reason, '') NOT LIKE 'out of range%') AS present
				FROM cs_internal.score_parts(a.inputs, a.scorecard, a.version, a.extra - 'cap') p GROUP BY p.metric
			), later AS (
				SELECT p.metric,
					bool_or(p.value IS NOT NULL AND coalesce(p.reason, '') NOT LIKE 'out of range%') AS present
				FROM cs_internal.score_parts(b.inputs, a.scorecard, a.version, a.extra - 'cap') p GROUP BY p.metric
			)
			SELECT l.metric, l.measures, s.slot, a.inputs[s.slot] AS old_value, b.inputs[s.slot] AS new_value,
				CASE WHEN l.present AND NOT n.present THEN 2 WHEN n.present AND NOT l.present THEN 1 ELSE 3 END AS pass
			FROM leaf l JOIN later n USING (metric) JOIN cs_internal.metric_slot s ON s.metric = l.metric
			WHERE a.inputs[s.slot] IS DISTINCT FROM b.inputs[s.slot]
			ORDER BY 6, l.measures COLLATE "C"
		LOOP
			inputs[step.slot] := step.new_value;
			after := (SELECT x.score FROM cs_internal.score(inputs, a.scorecard, a.version, a.extra - 'cap') x);
			CONTINUE WHEN after IS NULL OR after = before;
			change := after - before;
			before := after;
			SELECT to_char(d.at, 'YYYY-MM-DD') INTO redefined FROM cs_internal.definition_history d
				WHERE d.table_name = 'metric' AND d.key = step.metric AND d.at > a.computed_at AND d.at <= b.computed_at
					AND (d.old_row - 'description') IS DISTINCT FROM (d.new_row - 'description')
				ORDER BY d.id DESC LIMIT 1;
			part := CASE WHEN redefined IS NOT NULL THEN 'definition' WHEN step.pass = 3 THEN 'value' ELSE 'missing' END;
			measure := step.measures;
			value_since := step.old_value;
			value_until := step.new_value;
			explanation := format('%s: %s', cs_internal.points_text(change), CASE
				WHEN redefined IS NOT NULL THEN format('metric %s was redefined on %s: %s, now %s', step.metric, redefined,
					cs_internal.value_text(step.old_value), cs_internal.value_text(step.new_value))
				WHEN step.pass = 1 THEN format('%s has a value now: %s', step.metric, cs_internal.value_text(step.new_value))
				WHEN step.pass = 2 AND step.new_value IS NULL THEN format('%s has no value any more (it was %s)', step.metric, cs_internal.value_text(step.old_value))
				WHEN step.pass = 2 THEN format('%s went from %s to %s, which does not count', step.metric, cs_internal.value_text(step.old_value), cs_internal.value_text(step.new_value))
				ELSE format('%s went from %s to %s', step.metric, cs_internal.value_text(step.old_value), cs_internal.value_text(step.new_value)) END);
			any_row := true;
			RETURN NEXT;
		END LOOP;
		value_since := NULL;
		value_until := NULL;

		-- what else measures were made from then
		after := (SELECT x.score FROM cs_internal.score(b.inputs, a.scorecard, a.version, b.extra - 'cap') x);
		IF a.scorecard = b.scorecard AND after <> before THEN
			part := 'value';
			measure := '(others)';
			change := after - before;
			explanation := format('%s: what the values are compared with, or carried on from, has changed', cs_internal.points_text(change));
			before := after;
			any_row := true;
			RETURN NEXT;
		END IF;

		-- the definition, over the values of until
		IF b.uncapped <> before THEN
			IF a.scorecard = b.scorecard AND before = after THEN
				part := 'definition';
				FOR step IN
					SELECT m.name, m.d, m.is_first, m.was, m.now FROM (
						SELECT coalesce(o.measure, n.measure) AS name, coalesce(n.contribution, 0) - coalesce(o.contribution, 0) AS d,
							row_number() OVER (ORDER BY abs(coalesce(n.contribution, 0) - coalesce(o.contribution, 0)) DESC, coalesce(o.measure, n.measure) COLLATE "C") = 1 AS is_first,
							o.weight AS was, n.weight AS now
						FROM cs_internal.score_parts(b.inputs, a.scorecard, a.version, b.extra - 'cap') o
						FULL JOIN cs_internal.score_parts(b.inputs, b.scorecard, b.version, b.extra - 'cap') n ON n.measure = o.measure) m
					ORDER BY m.is_first, m.name COLLATE "C"
				LOOP
					-- what rounding to the grid leaves on other measures goes to the one that changed most
					IF NOT step.is_first AND abs(step.d) < 1e-6 THEN
						rest := rest + step.d;
						CONTINUE;
					END IF;
					measure := step.name;
					change := step.d + CASE WHEN step.is_first THEN rest ELSE 0 END;
					explanation := format('%s: scorecard "%s" was changed, %s', cs_internal.points_text(change), b.scorecard, CASE
						WHEN step.was IS NULL THEN format('measure %s is new', step.name)
						WHEN step.now IS NULL THEN format('measure %s is gone', step.name)
						WHEN round(step.was::numeric, 4) <> round(step.now::numeric, 4) THEN format('measure %s weighs %s %% instead of %s %%', step.name,
							trim_scale(round(100 * step.now::numeric, 1)), trim_scale(round(100 * step.was::numeric, 1)))
						ELSE format('measure %s gives other points', step.name) END);
					any_row := true;
					RETURN NEXT;
				END LOOP;
			ELSE
				part := CASE WHEN a.scorecard = b.scorecard THEN 'definition' ELSE 'scorecard' END;
				measure := '(scorecard)';
				change := b.uncapped - before;
				explanation := format('%s: %s', cs_internal.points_text(change), CASE WHEN a.scorecard = b.scorecard
					THEN format('scorecard "%s" was changed', b.scorecard)
					ELSE format('scorecard "%s"%s in the place of "%s"', b.scorecard,
						(SELECT ' for ' || c.segment FROM cs_internal.card_row(b.scorecard, b.version) c WHERE c.segment IS NOT NULL), a.scorecard) END);
				any_row := true;
				RETURN NEXT;
			END IF;
		END IF;

		change := (b.automatic - b.uncapped) - (a.automatic - a.uncapped);
		IF change <> 0 THEN
			part := 'cap';
			measure := '(cap)';
			explanation := format('%s: %s', cs_internal.points_text(change), CASE
				WHEN b.automatic = b.uncapped THEN format('not capped any more by %s', a.extra ->> 'cap')
				WHEN a.automatic = a.uncapped THEN format('capped by %s', b.extra ->> 'cap')
				ELSE format('capped by %s takes %s instead of %s', b.extra ->> 'cap',
					round((b.uncapped - b.automatic)::numeric, 1), round((a.uncapped - a.automatic)::numeric, 1)) END);
			any_row := true;
			RETURN NEXT;
		END IF;
		change := (b.score - b.automatic) - (a.score - a.automatic);
	ELSE
		-- One of the two stood for a score that could not be computed: all is the override's.
		change := b.score - a.score;
	END IF;

	IF change <> 0 THEN
		part := 'override';
		measure := '(override)';
		explanation := format('%s: %s', cs_internal.points_text(change), CASE
			WHEN a.override IS NULL THEN 'override ' || b.override
			WHEN b.override IS NULL THEN 'no override any more; it was ' || a.override
			ELSE format('override %s; before, %s', b.override, a.override) END);
		any_row := true;
		RETURN NEXT;
	END IF;
	IF NOT any_row THEN
		part := 'none';
		measure := '(nothing)';
		change := 0;
		explanation := 'nothing that counts has changed';
		RETURN NEXT;
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.health_diff(text, timestamptz, timestamptz) IS 'See cs.health_diff.';

CREATE FUNCTION cs.health_diff(customer text, since timestamptz, until timestamptz DEFAULT NULL)
RETURNS TABLE (part text, measure text, value_since float8, value_until float8, change float8, explanation text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.health_diff(text, timestamptz, timestamptz) IS 'Why the stored health score is another one at until (NULL, the default: the newest) than at since: a row per cause, part = value, missing (a measure gained or lost its value), definition (the scorecard or the metric was changed), scorecard (another one applies), cap, override, none; with the metric''s value at both ends where it is one. The changes, in points, add exactly to the difference of health_score() at the two instants. Without a score at one of them one row, part = no score, change NULL. No row for an unknown customer. Raises 55000 where the inputs of a past score were not kept: ask for starts of days.';

-- ---- trend and disagreement ------------------------------------------------------

CREATE FUNCTION cs_internal.health_trend(customer text, days integer, looked_at timestamptz)
RETURNS TABLE (as_of timestamptz, score float8, before_as_of timestamptz, score_before float8, basis_before text, change float8, band text, days_in_band integer)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	zone text := (SELECT p.time_zone FROM cs.policy p);
	seen_at timestamptz := cs_internal.past_instant(looked_at, 'as_of');
	bound timestamptz;
BEGIN
	PERFORM cs_internal.health_not_set_up() WHERE zone IS NULL;
	IF days IS NULL OR days NOT BETWEEN 1 AND 36500 THEN
		RAISE EXCEPTION 'days is %', coalesce(days::text, 'NULL')
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Give a number of days from 1 to 36500.';
	END IF;
	bound := ((seen_at AT TIME ZONE zone)::date - days)::timestamp AT TIME ZONE zone;
	RETURN QUERY
	SELECT n.as_of, n.score, o.as_of, o.score, o.basis, n.score - o.score, n.band,
		(seen_at AT TIME ZONE zone)::date - (coalesce(
			-- the first row after the last one of another band
			(SELECT min(x.as_of) FROM cs_internal.health_history x
				WHERE x.customer_id = customer AND x.basis = 'stored' AND x.as_of <= n.as_of AND x.as_of > coalesce(
					(SELECT max(y.as_of) FROM cs_internal.health_history y
						WHERE y.customer_id = customer AND y.basis = 'stored' AND y.as_of <= n.as_of
							AND y.band IS DISTINCT FROM n.band), '-infinity')),
			n.as_of) AT TIME ZONE zone)::date
	FROM cs_internal.health_at(customer, CASE WHEN looked_at IS NOT NULL THEN seen_at END) n
	LEFT JOIN LATERAL (
		SELECT h.as_of, h.score, h.basis FROM cs_internal.health_history h
		WHERE h.customer_id = customer AND h.as_of <= bound
		ORDER BY h.basis DESC, h.as_of DESC LIMIT 1) o ON true;
END $$;
COMMENT ON FUNCTION cs_internal.health_trend(text, integer, timestamptz) IS 'See cs.health_trend.';

CREATE FUNCTION cs.health_trend(customer text, days integer DEFAULT 30, as_of timestamptz DEFAULT NULL)
RETURNS TABLE (as_of timestamptz, score float8, before_as_of timestamptz, score_before float8, basis_before text, change float8, band text, days_in_band integer)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.health_trend(text, integer, timestamptz) IS 'The stored score at as_of (NULL, the default: now) against the one at the start of the local day that many days before: what was stored then, or, where nothing had been, what backfill_health() filled in (basis_before says which). change is in points, NULL where one of them is no score; days_in_band are local days since the band began to be what it is. No row for an unknown customer and where nothing was stored.';

CREATE VIEW cs.score_disagreement WITH (security_barrier) AS
SELECT o.customer_id, c.name, c.owner, h.score AS health_score, s.score AS automatic_score, h.score - s.score AS difference,
	h.band, h.auto_band AS automatic_band, o.value AS override_value, o.delta AS override_delta, o.band AS override_band,
	o.reason, o.actor, o.created_at, o.expires_at, k.last_as_of AS data_through_at, h.computed_at
FROM cs_internal.health_override o
JOIN cs_internal.health h ON h.customer_id = o.customer_id
JOIN cs_internal.state s ON s.customer_id = o.customer_id
LEFT JOIN cs_internal.customer c ON c.customer_id = o.customer_id
LEFT JOIN cs_internal.clock k ON k.id
WHERE o.ended_at IS NULL AND h.scorecard IS NOT NULL
	AND (h.score IS DISTINCT FROM s.score OR h.band IS DISTINCT FROM h.auto_band);
COMMENT ON VIEW cs.score_disagreement IS 'Customers whose override says something else than their data: the score or band in force beside the computed one.';
COMMENT ON COLUMN cs.score_disagreement.customer_id IS 'Customer.';
COMMENT ON COLUMN cs.score_disagreement.name IS 'Name from the customer source; NULL: none.';
COMMENT ON COLUMN cs.score_disagreement.owner IS 'Owner of the customer; NULL: none.';
COMMENT ON COLUMN cs.score_disagreement.health_score IS 'Score in force, 0 to 100; NULL: none (the override is of the band, and there is too little data).';
COMMENT ON COLUMN cs.score_disagreement.automatic_score IS 'Computed score, 0 to 100; NULL where it cannot be computed.';
COMMENT ON COLUMN cs.score_disagreement.difference IS 'health_score - automatic_score, points; NULL where one is missing.';
COMMENT ON COLUMN cs.score_disagreement.band IS 'Band in force.';
COMMENT ON COLUMN cs.score_disagreement.automatic_band IS 'Band of the computed score; NULL without one.';
COMMENT ON COLUMN cs.score_disagreement.override_value IS 'The override''s score; NULL: it is a delta or a band.';
COMMENT ON COLUMN cs.score_disagreement.override_delta IS 'The override''s points; NULL: it is a value or a band.';
COMMENT ON COLUMN cs.score_disagreement.override_band IS 'The override''s band; NULL: it is a value or a delta.';
COMMENT ON COLUMN cs.score_disagreement.reason IS 'Reason given.';
COMMENT ON COLUMN cs.score_disagreement.actor IS 'Who set it.';
COMMENT ON COLUMN cs.score_disagreement.created_at IS 'When it was set.';
COMMENT ON COLUMN cs.score_disagreement.expires_at IS 'When it ends by itself.';
COMMENT ON COLUMN cs.score_disagreement.data_through_at IS 'Last evaluated instant.';
COMMENT ON COLUMN cs.score_disagreement.computed_at IS 'Clock time at which the score in force last changed.';

-- ---- the past, filled in ----------------------------------------------------------

CREATE FUNCTION cs_internal.backfill_bounds(since timestamptz, until timestamptz, every interval) RETURNS timestamptz[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
	zone text := (SELECT p.time_zone FROM cs.policy p);
	present timestamptz := cs_internal.now();
	first_day timestamp;
	bounds timestamptz[];
BEGIN
	IF since IS NULL THEN
		RAISE EXCEPTION 'since must not be NULL' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	IF every IS NULL OR every <= interval '0' OR NOT isfinite(every)
		OR every <> make_interval(months => (extract(year FROM every) * 12 + extract(month FROM every))::integer, days => extract(day FROM every)::integer)
	THEN
		RAISE EXCEPTION 'every is %, not whole days or months', coalesce(every::text, 'NULL')
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Give for example ''1 day'', ''7 days'' or ''1 month''.';
	END IF;
	until := least(until, present);
	first_day := date_trunc('day', since AT TIME ZONE zone);
	IF first_day AT TIME ZONE zone < since THEN
		first_day := first_day + interval '1 day';
	END IF;
	SELECT array_agg(b.at ORDER BY b.at) INTO bounds
	FROM (SELECT (first_day + k * every) AT TIME ZONE zone AS at
		FROM generate_series(0, greatest(0, until::date - since::date + 1)) k
		WHERE (first_day + k * every) AT TIME ZONE zone < coalesce(until, present)) b;
	IF bounds IS NULL THEN
		RAISE EXCEPTION 'no start of a day lies in [%, %)', since, coalesce(until, present)
			USING ERRCODE = 'invalid_parameter_value', DETAIL = format('Now is %s.', present);
	END IF;
	RETURN bounds;
END $$;
COMMENT ON FUNCTION cs_internal.backfill_bounds(timestamptz, timestamptz, interval) IS
'Local midnights in [since, until) (never after now), every so often from the first one on.';

-- One batch of one bound, behind a customer. What was stored stays; again takes
-- the place of what was recomputed before.
CREATE FUNCTION cs_internal.backfill_batch(bound timestamptz, behind text, max_customers integer, again boolean, OUT last text, OUT added bigint)
LANGUAGE plpgsql AS $$
DECLARE
	ids text[];
BEGIN
	added := 0;
	SELECT array_agg(c.customer_id), max(c.customer_id) INTO ids, last
	FROM (SELECT c.customer_id FROM cs_internal.customer c
		WHERE c.customer_id > behind AND NOT EXISTS (SELECT FROM cs_internal.health_history h
			WHERE h.customer_id = c.customer_id AND h.as_of = bound AND (h.basis = 'stored' OR NOT again))
		ORDER BY c.customer_id LIMIT max_customers) c;
	IF ids IS NULL THEN
		RETURN;
	END IF;
	WITH seen AS MATERIALIZED (
		SELECT e.* FROM cs_internal.evaluated_at(ids, bound) e
		-- who was not a customer yet has no past
		WHERE e.active OR e.in_trial OR EXISTS (SELECT FROM cs_internal.movement m WHERE m.customer_id = e.customer_id AND m.at < bound)
	), kept AS (
		INSERT INTO cs_internal.metric_history AS m (customer_id, as_of, "values", segments, health_inputs, computed_at)
		SELECT s.customer_id, bound, s."values", s.segments, s.health_inputs, clock_timestamp() FROM seen s WHERE s."values" IS NOT NULL
		ON CONFLICT (customer_id, as_of) DO UPDATE SET "values" = excluded."values", segments = excluded.segments,
			health_inputs = excluded.health_inputs, computed_at = excluded.computed_at
		WHERE again
	)
	INSERT INTO cs_internal.health_history AS h (customer_id, as_of, score, band, coverage, scorecard, version, basis, computed_at)
	SELECT s.customer_id, bound, s.score, cs_internal.fresh_band(s.scorecard, NULL, s.score), s.coverage, s.scorecard,
		cs_internal.scorecard_version(s.scorecard), 'recomputed', clock_timestamp()
	FROM seen s
	ON CONFLICT (customer_id, as_of, basis) DO UPDATE SET score = excluded.score, band = excluded.band, coverage = excluded.coverage,
		scorecard = excluded.scorecard, version = excluded.version, computed_at = excluded.computed_at
	WHERE again;
	GET DIAGNOSTICS added = ROW_COUNT;
END $$;
COMMENT ON FUNCTION cs_internal.backfill_batch(timestamptz, text, integer, boolean) IS
'Fills history at one day bound for the next customers behind one; the last of them, NULL when there are none.';

CREATE PROCEDURE cs.backfill_health(since timestamptz, until timestamptz DEFAULT NULL, every interval DEFAULT '1 day', again boolean DEFAULT false)
LANGUAGE c AS 'MODULE_PATHNAME', 'cs_backfill_health_sql';
CREATE PROCEDURE cs.backfill_health(since timestamp, until timestamp DEFAULT NULL, every interval DEFAULT '1 day', again boolean DEFAULT false)
LANGUAGE c AS 'MODULE_PATHNAME', 'cs_backfill_health_sql';
CREATE PROCEDURE cs.backfill_health(since date, until date DEFAULT NULL, every interval DEFAULT '1 day', again boolean DEFAULT false)
LANGUAGE c AS 'MODULE_PATHNAME', 'cs_backfill_health_sql';
CREATE PROCEDURE cs.backfill_health(since text, until text DEFAULT NULL, every interval DEFAULT '1 day', again boolean DEFAULT false)
LANGUAGE c AS 'MODULE_PATHNAME', 'cs_backfill_health_sql';
COMMENT ON PROCEDURE cs.backfill_health(timestamptz, timestamptz, interval, boolean) IS
'Fills health_history (basis recomputed) and metric_history at the local midnights in [since, until) (NULL: now), one every so many days or months, from the facts and by the definitions of now, without overrides and hysteresis. What was stored is never touched, what was recomputed only with again => true, so a second run does what is missing. Commits between batches.';
COMMENT ON PROCEDURE cs.backfill_health(timestamp, timestamp, interval, boolean) IS 'backfill_health() with local times in the policy''s time zone.';
COMMENT ON PROCEDURE cs.backfill_health(date, date, interval, boolean) IS 'backfill_health() with days: their starts in the policy''s time zone.';
COMMENT ON PROCEDURE cs.backfill_health(text, text, interval, boolean) IS 'backfill_health() with instants as text, read in the policy''s time zone.';

-- ---- stored, and as the facts say now ----------------------------------------------

CREATE FUNCTION cs_internal.health_restatement(customer text, since timestamptz, until timestamptz)
RETURNS TABLE (as_of timestamptz, stored float8, recomputed float8, change float8, same boolean, scorecard text, version bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	PERFORM cs_internal.health_not_set_up() WHERE NOT EXISTS (SELECT FROM cs.policy);
	RETURN QUERY
	SELECT h.as_of, h.score, CASE WHEN f.known THEN w.score END, CASE WHEN f.known THEN w.score - h.score END,
		CASE WHEN f.known THEN h.score IS NOT DISTINCT FROM w.score END, h.scorecard, h.version
	FROM cs_internal.health_history h
	LEFT JOIN LATERAL cs_internal.evaluated_at(ARRAY[h.customer_id], h.as_of) e ON true
	LEFT JOIN cs_internal.metric_history m ON m.customer_id = h.customer_id AND m.as_of = h.as_of
	CROSS JOIN LATERAL (SELECT h.scorecard IS NULL
		OR (e.scorecard = h.scorecard AND h.version IS NOT DISTINCT FROM cs_internal.scorecard_version(h.scorecard)) AS by_stage) v
	CROSS JOIN LATERAL (SELECT
		-- Of an older version the stage cannot be asked which cap held, what a value
		-- was compared with or carried on from: what was kept beside the values says.
		v.by_stage OR m.customer_id IS NOT NULL OR NOT EXISTS (SELECT FROM cs_internal.definition_history d
			WHERE d.id <= h.version AND coalesce(d.new_row, d.old_row) ->> 'scorecard' = h.scorecard
				AND (d.table_name = 'cap' OR (d.table_name = 'measure'
					AND (d.new_row ->> 'curve' IN ('percentile', 'logistic') OR d.new_row ->> 'missing' = 'carry')))) AS known,
		CASE WHEN NOT coalesce(e.active OR e.in_trial, false) THEN NULL
			WHEN v.by_stage AND (m.health_inputs - 'cap') IS NOT DISTINCT FROM (e.health_inputs - 'cap') THEN e.score
			-- carried on from, or compared with, as kept then: filling in the past since is no correction
			WHEN v.by_stage AND m.customer_id IS NOT NULL THEN (SELECT x.score FROM cs_internal.score(e."values", h.scorecard, h.version,
				coalesce(m.health_inputs - 'cap', '{}') || jsonb_strip_nulls(jsonb_build_object('cap', e.health_inputs -> 'cap'))) x)
			WHEN v.by_stage THEN e.score
			ELSE (SELECT x.score FROM cs_internal.score(e."values", h.scorecard, h.version, m.health_inputs) x) END AS automatic) f
	CROSS JOIN LATERAL cs_internal.shown_health(h.customer_id, h.as_of, h.scorecard, f.automatic, NULL) w
	WHERE h.customer_id = customer AND h.basis = 'stored'
		AND (since IS NULL OR h.as_of >= since) AND (until IS NULL OR h.as_of < until)
	ORDER BY h.as_of;
END $$;
COMMENT ON FUNCTION cs_internal.health_restatement(text, timestamptz, timestamptz) IS 'See cs.health_restatement.';

CREATE FUNCTION cs.health_restatement(customer text, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL)
RETURNS TABLE (as_of timestamptz, stored float8, recomputed float8, change float8, same boolean, scorecard text, version bigint)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.health_restatement(text, timestamptz, timestamptz) IS 'Each stored score of the customer in [since, until) (NULL: open) beside the one that the facts give now for the same instant, under the scorecard version it was made with and the override of then: same is true, bit for bit, unless a fact or the expression of a metric was corrected since; NULL between two day bounds where the version is not the present one and had caps, comparisons with other customers or carried values, for what they came to was not kept. Stores nothing; writes and rolls back, so not in a read-only transaction.';

-- ---- before it counts ----------------------------------------------------------------

-- The stages themselves, at the instant of the last refresh: so the difference
-- is the definitions' alone.
CREATE FUNCTION cs_internal.preview_scorecard(card text)
RETURNS TABLE (customer_id text, score_now float8, score_new float8, band_now text, band_new text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	ids text[];
BEGIN
	PERFORM cs_internal.must_be_scorecard(card);
	ids := ARRAY(SELECT s.customer_id FROM cs_internal.state s
		WHERE (s.active OR s.in_trial) AND (s.scorecard = card
			OR EXISTS (SELECT FROM cs.scorecard c WHERE c.name = card AND cs_internal.in_card_segment(c.segment, s.segments))));
	RETURN QUERY
	SELECT s.customer_id, s.score, e.score,
		cs_internal.fresh_band(s.scorecard, h.version, s.score), cs_internal.fresh_band(e.scorecard, NULL, e.score)
	FROM cs_internal.evaluated_at(ids, (SELECT k.last_as_of FROM cs_internal.clock k)) e
	JOIN cs_internal.state s ON s.customer_id = e.customer_id
	LEFT JOIN cs_internal.health h ON h.customer_id = s.customer_id
	WHERE card IN (s.scorecard, e.scorecard)
	ORDER BY s.customer_id;
END $$;
COMMENT ON FUNCTION cs_internal.preview_scorecard(text) IS 'See cs.preview_scorecard.';

CREATE FUNCTION cs.preview_scorecard(card text)
RETURNS TABLE (customer_id text, score_now float8, score_new float8, band_now text, band_new text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.preview_scorecard(text) IS 'What a refresh would make of the customers whose scorecard it is or would be, with the definitions as this transaction sees them: BEGIN; UPDATE cs.measure ...; SELECT * FROM cs.preview_scorecard(...); ROLLBACK. They are evaluated as of the last refresh, without a trace; score_now is what that refresh made. Scores are automatic ones, bands without hysteresis; NULL: no score. Costs what a refresh of these customers costs; not in a read-only transaction.';

CREATE FUNCTION cs_internal.score_inputs("values" float8[], segments jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS $$
	SELECT segments || coalesce(jsonb_object_agg(s.metric, "values"[s.slot]), '{}')
	FROM cs_internal.metric_slot s WHERE "values"[s.slot] IS NOT NULL
$$;
COMMENT ON FUNCTION cs_internal.score_inputs(float8[], jsonb) IS 'Metrics and segments of a customer in the form that cs.score() takes, for a scorecard that is not the customer''s.';

CREATE FUNCTION cs_internal.compare_scorecards(a text, b text)
RETURNS TABLE (customer_id text, score_a float8, score_b float8, band_a text, band_b text, change float8)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	PERFORM cs_internal.must_be_scorecard(a);
	PERFORM cs_internal.must_be_scorecard(b);
	RETURN QUERY
	SELECT s.customer_id, x.score, y.score, cs_internal.fresh_band(a, NULL, x.score), cs_internal.fresh_band(b, NULL, y.score), y.score - x.score
	FROM cs_internal.state s
	CROSS JOIN LATERAL (SELECT cs_internal.score_inputs(s."values", s.segments) AS given) i
	CROSS JOIN LATERAL (SELECT cs.score(i.given, a) AS score) x
	CROSS JOIN LATERAL (SELECT cs.score(i.given, b) AS score) y
	WHERE (s.active OR s.in_trial)
		AND EXISTS (SELECT FROM cs.scorecard c WHERE c.name IN (a, b) AND cs_internal.in_card_segment(c.segment, s.segments))
	ORDER BY s.customer_id;
END $$;
COMMENT ON FUNCTION cs_internal.compare_scorecards(text, text) IS 'See cs.compare_scorecards.';

CREATE FUNCTION cs.compare_scorecards(a text, b text)
RETURNS TABLE (customer_id text, score_a float8, score_b float8, band_a text, band_b text, change float8)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.compare_scorecards(text, text) IS 'Two scorecards (enabled or not) over the values of the last refresh, for each scored customer in the segment of either: scores, bands without hysteresis, and the change from a to b in points; NULL: no score. Rules of caps see metrics and segments.';
