
-- ---------------------------------------------------------------------------
-- scorecard: how metrics become a health score.
-- ---------------------------------------------------------------------------

CREATE TABLE cs.scorecard (
	name text PRIMARY KEY,
	segment text,
	priority integer NOT NULL DEFAULT 100,
	red_below float8 NOT NULL DEFAULT 50,
	green_from float8 NOT NULL DEFAULT 75,
	edge_closed text NOT NULL DEFAULT 'above',
	hysteresis float8 NOT NULL DEFAULT 2,
	min_coverage float8 NOT NULL DEFAULT 0.5,
	combine text NOT NULL DEFAULT 'mean',
	enabled boolean NOT NULL DEFAULT true,
	description text
);
SELECT pg_catalog.pg_extension_config_dump('cs.scorecard', '');

CREATE TABLE cs.measure_group (
	scorecard text NOT NULL,
	name text NOT NULL,
	weight float8 NOT NULL DEFAULT 1,
	combine text NOT NULL DEFAULT 'mean',
	enabled boolean NOT NULL DEFAULT true,
	description text,
	PRIMARY KEY (scorecard, name)
);
SELECT pg_catalog.pg_extension_config_dump('cs.measure_group', '');

CREATE TABLE cs.measure (
	scorecard text NOT NULL,
	name text NOT NULL,
	metric text NOT NULL,
	measure_group text,
	weight float8 NOT NULL DEFAULT 1,
	curve text NOT NULL DEFAULT 'linear',
	worst float8,
	best float8,
	steps jsonb,
	half_life_days float8,
	within text,
	min_n integer NOT NULL DEFAULT 20,
	missing text NOT NULL DEFAULT 'reweight',
	missing_points float8,
	max_age_days integer,
	description text,
	PRIMARY KEY (scorecard, name)
);
SELECT pg_catalog.pg_extension_config_dump('cs.measure', '');

CREATE TABLE cs.cap (
	scorecard text NOT NULL,
	rule text NOT NULL,
	at_most float8 NOT NULL,
	enabled boolean NOT NULL DEFAULT true,
	description text,
	search_path text NOT NULL DEFAULT pg_catalog.current_setting('search_path'),
	PRIMARY KEY (scorecard, rule)
);
SELECT pg_catalog.pg_extension_config_dump('cs.cap', '');

COMMENT ON TABLE cs.scorecard IS 'Scorecards: each turns the metrics of a customer into one health score from 0 to 100. A customer has the first enabled one, by priority, whose segment it is in; else the first without segment.';
COMMENT ON COLUMN cs.scorecard.name IS 'Name.';
COMMENT ON COLUMN cs.scorecard.segment IS 'Segment it is for, ''dimension:segment'' (or the segment alone where one dimension has it) of an early dimension; NULL: everybody who has no other.';
COMMENT ON COLUMN cs.scorecard.priority IS 'Which is tried first, lowest first; then by name.';
COMMENT ON COLUMN cs.scorecard.red_below IS 'Cut between red and yellow, points.';
COMMENT ON COLUMN cs.scorecard.green_from IS 'Cut between yellow and green, points.';
COMMENT ON COLUMN cs.scorecard.edge_closed IS 'above: a score on a cut belongs to the upper band; below: to the lower.';
COMMENT ON COLUMN cs.scorecard.hysteresis IS 'Points beyond a cut that are needed for a better band than before; a band worsens at once.';
COMMENT ON COLUMN cs.scorecard.min_coverage IS 'Share of the weight that must have a value; below it the score is NULL with reason coverage.';
COMMENT ON COLUMN cs.scorecard.combine IS 'mean: groups add up by weight; min: the lowest group is the score.';
COMMENT ON COLUMN cs.scorecard.enabled IS 'false: not used.';
COMMENT ON COLUMN cs.scorecard.description IS 'Free text.';

COMMENT ON TABLE cs.measure_group IS 'Groups of measures of a scorecard. A measure without group stands beside the groups with its own weight.';
COMMENT ON COLUMN cs.measure_group.scorecard IS 'Scorecard.';
COMMENT ON COLUMN cs.measure_group.name IS 'Name within the scorecard.';
COMMENT ON COLUMN cs.measure_group.weight IS 'Weight among the groups, any total; 0: the group does not count.';
COMMENT ON COLUMN cs.measure_group.combine IS 'mean: measures add up by weight; min: the lowest measure is the group.';
COMMENT ON COLUMN cs.measure_group.enabled IS 'false: its measures do not count.';
COMMENT ON COLUMN cs.measure_group.description IS 'Free text.';

COMMENT ON TABLE cs.measure IS 'Measures: a metric inside a scorecard, with the curve that gives it points, a weight, and what happens where it has no value.';
COMMENT ON COLUMN cs.measure.scorecard IS 'Scorecard.';
COMMENT ON COLUMN cs.measure.name IS 'Name within the scorecard.';
COMMENT ON COLUMN cs.measure.metric IS 'Metric (cs.metric).';
COMMENT ON COLUMN cs.measure.measure_group IS 'Group; NULL: beside the groups, with its own weight.';
COMMENT ON COLUMN cs.measure.weight IS 'Weight within the group, any total; 0: shown nowhere, counts nowhere.';
COMMENT ON COLUMN cs.measure.curve IS 'linear (clamped), bounded (missing outside), steps, half_life (100 x 2^(-value / half_life_days)), flag (100 where the value is not 0), percentile (share of the customers of the same segment of "within" that are below, equal ones counted half), logistic (100 / (1 + e^-z), z = distance from the mean of the customers compared in standard deviations).';
COMMENT ON COLUMN cs.measure.worst IS 'linear, bounded: value of 0 points. flag: 1 where the flag is a bad sign. percentile, logistic: with best, only the direction; both NULL: that of the metric (better).';
COMMENT ON COLUMN cs.measure.best IS 'linear, bounded: value of 100 points; which of the two is larger gives the direction. flag: 0 where the flag is a bad sign.';
COMMENT ON COLUMN cs.measure.steps IS 'steps: [{"to":10,"points":0},{"to":50,"points":60},{"points":100}], each for values above the one before up to and including "to".';
COMMENT ON COLUMN cs.measure.half_life_days IS 'half_life: value at which 50 points are left.';
COMMENT ON COLUMN cs.measure.within IS 'percentile, logistic: dimension within whose segments customers are compared; logistic, NULL: with everybody.';
COMMENT ON COLUMN cs.measure.min_n IS 'percentile, logistic: with fewer customers to compare with, the value counts as missing.';
COMMENT ON COLUMN cs.measure.missing IS 'Without value: reweight (left out, the rest divided by what is left), redistribute (its weight goes to the rest of its group, else to the other groups), zero, neutral (missing_points), null_overall (no score), carry (the newest value kept at a day bound of the last max_age_days; without one as reweight).';
COMMENT ON COLUMN cs.measure.missing_points IS 'neutral: the points, 0 to 100.';
COMMENT ON COLUMN cs.measure.max_age_days IS 'carry: days after which a value of before counts no more.';
COMMENT ON COLUMN cs.measure.description IS 'Free text.';

COMMENT ON TABLE cs.cap IS 'Caps: while the rule holds for a customer, its score is at most that. Where several hold, the lowest counts.';
COMMENT ON COLUMN cs.cap.scorecard IS 'Scorecard.';
COMMENT ON COLUMN cs.cap.rule IS 'SQL condition over the customer''s state, such as open_escalations > 0; it must not name health, band, coverage or a dimension that does. NULL, and a rule that fails, caps nothing.';
COMMENT ON COLUMN cs.cap.at_most IS 'Most points, 0 to 100, while the rule holds.';
COMMENT ON COLUMN cs.cap.enabled IS 'false: not used.';
COMMENT ON COLUMN cs.cap.description IS 'Free text.';
COMMENT ON COLUMN cs.cap.search_path IS 'search_path of who wrote the row; the rule runs with it.';

-- Decided: what percentile and logistic compare with, fixed at the start of each
-- local day. dimension '': everybody; a row with segment '' of another dimension
-- says only that the day was written.
CREATE TABLE cs_internal.reference_distribution (
	day date NOT NULL,
	metric text NOT NULL,
	dimension text NOT NULL,
	segment text NOT NULL,
	n bigint NOT NULL,
	mean float8,
	sd float8,                           -- of the population
	"values" float8[] NOT NULL,          -- ascending; 10,000 quantiles where there were more
	PRIMARY KEY (metric, dimension, day, segment)
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.reference_distribution', '');

-- In place of foreign keys, see cs_internal.belongs().
CREATE TRIGGER belongs AFTER INSERT OR UPDATE OF scorecard ON cs.measure_group
	FOR EACH ROW EXECUTE FUNCTION cs_internal.belongs('scorecard', 'scorecard');
CREATE TRIGGER belongings_measure_group AFTER UPDATE OF name OR DELETE ON cs.scorecard
	FOR EACH ROW EXECUTE FUNCTION cs_internal.belongings('measure_group', 'scorecard');
CREATE TRIGGER belongs AFTER INSERT OR UPDATE OF scorecard ON cs.measure
	FOR EACH ROW EXECUTE FUNCTION cs_internal.belongs('scorecard', 'scorecard');
CREATE TRIGGER belongings_measure AFTER UPDATE OF name OR DELETE ON cs.scorecard
	FOR EACH ROW EXECUTE FUNCTION cs_internal.belongings('measure', 'scorecard');
CREATE TRIGGER belongs AFTER INSERT OR UPDATE OF scorecard ON cs.cap
	FOR EACH ROW EXECUTE FUNCTION cs_internal.belongs('scorecard', 'scorecard');
CREATE TRIGGER belongings_cap AFTER UPDATE OF name OR DELETE ON cs.scorecard
	FOR EACH ROW EXECUTE FUNCTION cs_internal.belongings('cap', 'scorecard');

CREATE FUNCTION cs_internal.fix_references(day date, first boolean) RETURNS boolean
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'cs_references_fix_sql';
COMMENT ON FUNCTION cs_internal.fix_references(date, boolean) IS
'Writes what is missing of the day''s reference distributions, from state: of metrics that had one before, with first of all. True when there was any.';

-- The score of an array of values by slot, and what each measure contributes
-- to it; version NULL: the definition of now, else as definition_history had it;
-- inputs: health_inputs of the customer then.
CREATE FUNCTION cs_internal.score("values" float8[], scorecard text, version bigint DEFAULT NULL, inputs jsonb DEFAULT NULL)
RETURNS TABLE (score float8, coverage float8, reason text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_score_sql';
COMMENT ON FUNCTION cs_internal.score(float8[], text, bigint, jsonb) IS
'Score of values by slot; NULL with reason coverage or missing.';

CREATE FUNCTION cs_internal.score_parts("values" float8[], scorecard text, version bigint DEFAULT NULL, inputs jsonb DEFAULT NULL)
RETURNS TABLE (measure text, metric text, value float8, points float8, weight float8, contribution float8, lost float8, reason text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_score_parts_sql';
COMMENT ON FUNCTION cs_internal.score_parts(float8[], text, bigint, jsonb) IS
'What each measure contributes, and what a cap takes, as a row (cap); contributions add exactly to the score, contributions and losses to 100.';

CREATE FUNCTION cs.score(metrics jsonb, card text) RETURNS float8
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'cs_score_metrics';
COMMENT ON FUNCTION cs.score(jsonb, text) IS 'The score, 0 to 100, that a scorecard gives to metrics brought along: {"metric": value, ...}, or to_jsonb() of a row whose columns are named like metrics. A metric that is not there or null is missing; keys that are no metric of the scorecard are passed over. Rules of caps see what is given under the names they use, else NULL. NULL where there is no score, and for NULL. The scorecard is read once a query.';

CREATE FUNCTION cs.score_detail(metrics jsonb, card text)
RETURNS TABLE (score float8, band text, coverage float8, reason text, contributions jsonb)
LANGUAGE c STABLE STRICT ROWS 1 AS 'MODULE_PATHNAME', 'cs_score_detail';
COMMENT ON FUNCTION cs.score_detail(jsonb, text) IS 'One row of what cs.score() computes: the score, its band (without hysteresis), coverage (share of the weight that has a value, 0 to 1), reason (coverage or missing, why score and band are NULL), and contributions: an array of objects with measure, metric, value, points, weight, contribution, lost and reason, as the rows of cs.health_explain(). Contributions add exactly to the score; what a cap takes stands among them as "(cap)". No row for NULL.';

-- ---- checks, called by the definition trigger ------------------------------

-- One of the words that a column accepts.
CREATE FUNCTION cs_internal.scorecard_word(kind text, what text, word text, accepted text[]) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	near text;
BEGIN
	IF word = ANY (accepted) THEN
		RETURN;
	END IF;
	near := cs_internal.nearest(word, accepted);
	RAISE EXCEPTION 'unknown % "%" %', kind, word, what
		USING ERRCODE = 'invalid_parameter_value',
			HINT = CASE WHEN near IS NULL THEN format('Use one of: %s.', array_to_string(accepted, ', '))
				ELSE format('Did you mean "%s"?', near) END;
END $$;

-- A finite number between two bounds; NULL passes.
CREATE FUNCTION cs_internal.scorecard_number(what text, number float8, low float8, high float8) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF number < low OR number > high OR number IN ('NaN', 'Infinity', '-Infinity') THEN
		RAISE EXCEPTION '% is %', what, number
			USING ERRCODE = 'invalid_parameter_value',
				HINT = CASE WHEN high = 'Infinity' AND low = '-Infinity' THEN 'Give a finite number.'
					WHEN high = 'Infinity' THEN format('Give a finite number that is not below %s.', low)
					ELSE format('Give a number from %s to %s.', low, high) END;
	END IF;
END $$;

-- At least one measure must have weight, once there are measures.
CREATE FUNCTION cs_internal.scorecard_weights(card text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF EXISTS (SELECT FROM cs.scorecard c WHERE c.name = card)
		AND EXISTS (SELECT FROM cs.measure m WHERE m.scorecard = card)
		AND NOT EXISTS (
			SELECT FROM cs.measure m
			LEFT JOIN cs.measure_group g ON g.scorecard = m.scorecard AND g.name = m.measure_group
			WHERE m.scorecard = card AND m.weight > 0 AND (m.measure_group IS NULL OR g.weight > 0))
	THEN
		RAISE EXCEPTION 'all weights of scorecard "%" are zero', card
			USING ERRCODE = 'invalid_parameter_value',
				DETAIL = 'A measure counts when its weight and that of its group are above zero.',
				HINT = 'Give one measure a positive weight, or set the scorecard to enabled = false.';
	END IF;
END $$;

-- The segment of a scorecard: one that exists, of an early dimension.
CREATE FUNCTION cs_internal.scorecard_segment(card text, wanted text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	dim text;
	seg text;
	dims text[];
	near text;
	dimension_row cs.dimension;
BEGIN
	IF wanted LIKE '%:%' THEN
		dim := split_part(wanted, ':', 1);
		seg := substr(wanted, strpos(wanted, ':') + 1);
	ELSE
		seg := wanted;
		dims := ARRAY(SELECT s.dimension FROM cs.segment s WHERE s.name = seg
			UNION SELECT d.name FROM cs.dimension d WHERE d.fallback = seg ORDER BY 1);
		IF cardinality(dims) > 1 THEN
			RAISE EXCEPTION 'segment "%" of scorecard "%" is ambiguous', wanted, card
				USING ERRCODE = 'ambiguous_alias', DETAIL = format('Dimensions with it: %s.', array_to_string(dims, ', ')),
					HINT = format('Write it with its dimension: ''%s:%s''.', dims[1], seg);
		ELSIF cardinality(dims) = 0 THEN
			near := cs_internal.nearest(wanted, ARRAY(SELECT s.name FROM cs.segment s ORDER BY 1));
			RAISE EXCEPTION 'unknown segment "%" of scorecard "%"', wanted, card
				USING ERRCODE = 'undefined_object',
					HINT = CASE WHEN near IS NULL THEN 'Insert the dimension and the segment first, then the scorecard.'
						ELSE format('Did you mean "%s"?', near) END;
		END IF;
		dim := dims[1];
	END IF;

	SELECT * INTO dimension_row FROM cs.dimension d WHERE d.name = dim;
	IF NOT FOUND THEN
		near := cs_internal.nearest(dim, ARRAY(SELECT d.name FROM cs.dimension d ORDER BY 1));
		-- A slip of the pen is refused; a name that is like no other may be defined next.
		IF near IS NOT NULL THEN
			RAISE EXCEPTION 'unknown dimension "%" in segment "%" of scorecard "%"', dim, wanted, card
				USING ERRCODE = 'undefined_object', HINT = format('Did you mean "%s"?', near);
		END IF;
		RAISE WARNING 'scorecard "%" is for segment "%", which does not exist yet', card, wanted
			USING HINT = format('It is used by nobody until dimension "%s" is inserted.', dim);
		RETURN;
	END IF;
	PERFORM cs_internal.must_be_exclusive(dim);
	IF dimension_row.sees = 'late' THEN
		RAISE EXCEPTION 'scorecard "%" is for segment "%" of a late dimension', card, wanted
			USING ERRCODE = 'invalid_parameter_value',
				DETAIL = format('Rules of dimension "%s" look at health, which is computed by the scorecard.', dim),
				HINT = 'Use a segment of a dimension whose rules name neither health nor band.';
	END IF;
	IF dimension_row.attribute IS NULL AND dimension_row.fallback IS DISTINCT FROM seg
		AND NOT EXISTS (SELECT FROM cs.segment s WHERE s.dimension = dim AND s.name = seg)
	THEN
		near := cs_internal.nearest(seg, ARRAY(SELECT s.name FROM cs.segment s WHERE s.dimension = dim ORDER BY 1));
		RAISE EXCEPTION 'unknown segment "%" of scorecard "%"', wanted, card
			USING ERRCODE = 'undefined_object',
				HINT = CASE WHEN near IS NULL THEN format('Insert segment "%s" of dimension "%s" first.', seg, dim)
					ELSE format('Did you mean "%s:%s"?', dim, near) END;
	END IF;
END $$;

CREATE FUNCTION cs_internal.check_scorecard(new jsonb, old jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	card cs.scorecard;
	what text;
BEGIN
	IF new IS NULL THEN
		RETURN;
	END IF;
	card := jsonb_populate_record(NULL::cs.scorecard, new);
	what := format('of scorecard "%s"', card.name);
	IF card.name !~ '\S' THEN
		RAISE EXCEPTION 'the name of a scorecard is empty' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	PERFORM cs_internal.scorecard_word('combine', what, card.combine, '{mean,min}');
	PERFORM cs_internal.scorecard_word('edge_closed', what, card.edge_closed, '{above,below}');
	PERFORM cs_internal.scorecard_number('red_below ' || what, card.red_below, 0, 100);
	PERFORM cs_internal.scorecard_number('green_from ' || what, card.green_from, 0, 100);
	PERFORM cs_internal.scorecard_number('hysteresis ' || what, card.hysteresis, 0, 100);
	PERFORM cs_internal.scorecard_number('min_coverage ' || what, card.min_coverage, 0, 1);
	IF card.red_below > card.green_from THEN
		RAISE EXCEPTION 'red_below % is above green_from % %', card.red_below, card.green_from, what
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Give red_below <= green_from; equal: there is no yellow.';
	END IF;
	IF card.segment IS NOT NULL THEN
		PERFORM cs_internal.scorecard_segment(card.name, card.segment);
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.check_scorecard(jsonb, jsonb) IS 'Refuses what cs.scorecard must not hold; called by the definition trigger.';

CREATE FUNCTION cs_internal.check_measure_group(new jsonb, old jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	grp cs.measure_group;
	gone cs.measure_group;
	what text;
	users text[];
BEGIN
	IF old IS NOT NULL THEN
		gone := jsonb_populate_record(NULL::cs.measure_group, old);
		users := ARRAY(SELECT m.name FROM cs.measure m
			JOIN cs.scorecard c ON c.name = m.scorecard
			LEFT JOIN cs.measure_group g ON g.scorecard = m.scorecard AND g.name = m.measure_group
			WHERE m.scorecard = gone.scorecard AND m.measure_group = gone.name AND g.name IS NULL ORDER BY 1);
		IF cardinality(users) > 0 THEN
			RAISE EXCEPTION 'group "%" of scorecard "%" is in use', gone.name, gone.scorecard
				USING ERRCODE = 'dependent_objects_still_exist', DETAIL = format('Measures in it: %s.', array_to_string(users, ', ')),
					HINT = 'Give those measures another group first, or set enabled = false.';
		END IF;
		PERFORM cs_internal.scorecard_weights(gone.scorecard);
	END IF;
	IF new IS NULL THEN
		RETURN;
	END IF;
	grp := jsonb_populate_record(NULL::cs.measure_group, new);
	what := format('of group "%s" of scorecard "%s"', grp.name, grp.scorecard);
	IF grp.name !~ '\S' THEN
		RAISE EXCEPTION 'the name of a group of scorecard "%" is empty', grp.scorecard USING ERRCODE = 'invalid_parameter_value';
	END IF;
	PERFORM cs_internal.scorecard_word('combine', what, grp.combine, '{mean,min}');
	PERFORM cs_internal.scorecard_number('weight ' || what, grp.weight, 0, 1e9);
	PERFORM cs_internal.scorecard_weights(grp.scorecard);
END $$;
COMMENT ON FUNCTION cs_internal.check_measure_group(jsonb, jsonb) IS 'Refuses what cs.measure_group must not hold; called by the definition trigger.';

-- Steps: ascending "to", the last one open, points from 0 to 100.
CREATE FUNCTION cs_internal.scorecard_steps(what text, steps jsonb) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	problem text;
	step jsonb;
	number bigint;
	previous float8 := '-Infinity';
	key text;
BEGIN
	IF jsonb_typeof(steps) IS DISTINCT FROM 'array' OR steps = '[]' THEN
		problem := 'steps must be an array with at least one step';
	ELSE
		FOR step, number IN SELECT * FROM jsonb_array_elements(steps) WITH ORDINALITY LOOP
			IF jsonb_typeof(step) <> 'object' THEN
				problem := format('step %s is not an object', number);
				EXIT;
			END IF;
			SELECT k INTO key FROM jsonb_object_keys(step) k WHERE k NOT IN ('to', 'points') ORDER BY 1 LIMIT 1;
			problem := CASE
				WHEN key IS NOT NULL THEN format('step %s has an unknown key "%s"', number, key)
				WHEN jsonb_typeof(step->'points') IS DISTINCT FROM 'number' THEN format('step %s has no number "points"', number)
				WHEN (step->>'points')::numeric NOT BETWEEN 0 AND 100 THEN format('step %s has %s points, outside 0 to 100', number, step->>'points')
				WHEN number = jsonb_array_length(steps) AND step ? 'to' THEN 'the last step has a "to"; values above it would have no points'
				WHEN number < jsonb_array_length(steps) AND jsonb_typeof(step->'to') IS DISTINCT FROM 'number'
					THEN format('step %s has no number "to"', number)
				WHEN step ? 'to' AND (step->>'to')::numeric > 1e300 THEN format('"to" of step %s is too large', number)
				WHEN step ? 'to' AND (step->>'to')::float8 <= previous THEN format('"to" of step %s is not above that of the step before', number)
			END;
			EXIT WHEN problem IS NOT NULL;
			previous := (step->>'to')::float8;
		END LOOP;
	END IF;
	IF problem IS NOT NULL THEN
		RAISE EXCEPTION 'malformed steps %', what
			USING ERRCODE = 'invalid_parameter_value', DETAIL = problem || '.',
				HINT = 'Write for example [{"to":10,"points":0},{"to":50,"points":60},{"points":100}].';
	END IF;
END $$;

-- What percentile and logistic compare: a direction, an early dimension, a number of customers.
CREATE FUNCTION cs_internal.scorecard_compared(what text, m cs.measure) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	dimension_row cs.dimension;
	near text;
BEGIN
	IF num_nonnulls(m.worst, m.best) = 1 THEN
		RAISE EXCEPTION 'curve "%" % takes both worst and best, or neither', m.curve, what
			USING ERRCODE = 'invalid_parameter_value', HINT = 'They say the direction only; without them it is that of the metric.';
	END IF;
	IF m.min_n < 1 THEN
		RAISE EXCEPTION 'min_n % is %', what, m.min_n
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the least number of customers to compare with, 1 or more.';
	END IF;
	IF m.within IS NULL THEN
		RETURN;
	END IF;
	SELECT * INTO dimension_row FROM cs.dimension d WHERE d.name = m.within;
	IF NOT FOUND THEN
		near := cs_internal.nearest(m.within, ARRAY(SELECT d.name FROM cs.dimension d ORDER BY 1));
		RAISE EXCEPTION 'unknown dimension "%" %', m.within, what
			USING ERRCODE = 'undefined_object',
				HINT = CASE WHEN near IS NULL THEN 'Insert it into cs.dimension first.' ELSE format('Did you mean "%s"?', near) END;
	END IF;
	PERFORM cs_internal.must_be_exclusive(m.within);
	IF dimension_row.sees = 'late' THEN
		RAISE EXCEPTION 'dimension "%" % looks at health, which is computed by the scorecard', m.within, what
			USING ERRCODE = 'invalid_object_definition', HINT = 'Use a dimension whose rules name neither health nor band.';
	END IF;
END $$;

CREATE FUNCTION cs_internal.check_measure(new jsonb, old jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	m cs.measure;
	what text;
	near text;
	stray text;
BEGIN
	IF old IS NOT NULL THEN
		PERFORM cs_internal.scorecard_weights(old->>'scorecard');
	END IF;
	IF new IS NULL THEN
		RETURN;
	END IF;
	m := jsonb_populate_record(NULL::cs.measure, new);
	what := format('of measure "%s" of scorecard "%s"', m.name, m.scorecard);
	IF m.name !~ '\S' OR m.name LIKE '(%' THEN
		RAISE EXCEPTION 'measure "%" of scorecard "%": the name is empty or starts with a parenthesis', m.name, m.scorecard
			USING ERRCODE = 'invalid_parameter_value', DETAIL = 'Names in parentheses are rows of cs.health_explain() that are no measures.';
	END IF;

	IF NOT EXISTS (SELECT FROM cs.metric x WHERE x.name = m.metric) THEN
		near := cs_internal.nearest(m.metric, ARRAY(SELECT x.name FROM cs.metric x ORDER BY 1));
		RAISE EXCEPTION 'unknown metric "%" %', m.metric, what
			USING ERRCODE = 'undefined_object',
				HINT = CASE WHEN near IS NULL THEN 'Insert it into cs.metric first.' ELSE format('Did you mean "%s"?', near) END;
	END IF;
	IF m.measure_group IS NOT NULL
		AND NOT EXISTS (SELECT FROM cs.measure_group g WHERE g.scorecard = m.scorecard AND g.name = m.measure_group)
	THEN
		near := cs_internal.nearest(m.measure_group, ARRAY(SELECT g.name FROM cs.measure_group g WHERE g.scorecard = m.scorecard ORDER BY 1));
		RAISE EXCEPTION 'unknown group "%" %', m.measure_group, what
			USING ERRCODE = 'undefined_object',
				HINT = CASE WHEN near IS NULL THEN 'Insert it into cs.measure_group first.' ELSE format('Did you mean "%s"?', near) END;
	END IF;
	PERFORM cs_internal.scorecard_number('weight ' || what, m.weight, 0, 1e9);

	-- the curve and just its own parameters
	PERFORM cs_internal.scorecard_word('curve', what, m.curve, '{linear,bounded,steps,half_life,flag,percentile,logistic}');
	IF m.curve = 'percentile' AND m.within IS NULL THEN
		RAISE EXCEPTION 'curve "percentile" % needs "within"', what
			USING ERRCODE = 'invalid_parameter_value', DETAIL = '"within" names the dimension within which customers are compared.';
	END IF;
	SELECT string_agg(format('"%s"', p.name), ', ') INTO stray
		FROM (VALUES ('worst', m.worst IS NOT NULL, '{linear,bounded,flag,percentile,logistic}'::text[]),
				('best', m.best IS NOT NULL, '{linear,bounded,flag,percentile,logistic}'),
				('steps', m.steps IS NOT NULL, '{steps}'),
				('half_life_days', m.half_life_days IS NOT NULL, '{half_life}'),
				('within', m.within IS NOT NULL, '{percentile,logistic}')) AS p (name, given, curves)
		WHERE p.given AND m.curve <> ALL (p.curves);
	IF stray IS NOT NULL THEN
		RAISE EXCEPTION 'curve "%" % does not use %', m.curve, what, stray
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave it NULL, or choose the curve that uses it.';
	END IF;
	PERFORM cs_internal.scorecard_number('worst ' || what, m.worst, '-1e300', '1e300');
	PERFORM cs_internal.scorecard_number('best ' || what, m.best, '-1e300', '1e300');
	IF m.curve IN ('linear', 'bounded') AND (m.worst IS NULL OR m.best IS NULL) THEN
		RAISE EXCEPTION 'curve "%" % needs worst and best', m.curve, what
			USING ERRCODE = 'invalid_parameter_value', HINT = 'worst is the value of 0 points, best that of 100; which is larger gives the direction.';
	END IF;
	IF m.worst = m.best THEN
		RAISE EXCEPTION 'worst = best = % %', m.worst, what
			USING ERRCODE = 'invalid_parameter_value', HINT = 'worst is the value of 0 points, best that of 100; for yes or no use curve "flag".';
	END IF;
	IF m.curve = 'flag' AND NOT coalesce((m.worst, m.best) IN ((0, 1), (1, 0)), m.worst IS NULL AND m.best IS NULL) THEN
		RAISE EXCEPTION 'curve "flag" % takes worst 0 and best 1, or worst 1 and best 0', what
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave both NULL where the flag is a good sign.';
	END IF;
	IF m.curve IN ('percentile', 'logistic') THEN
		PERFORM cs_internal.scorecard_compared(what, m);
	END IF;
	IF m.curve = 'steps' THEN
		PERFORM cs_internal.scorecard_steps(what, m.steps);
	END IF;
	IF m.curve = 'half_life' AND NOT coalesce(m.half_life_days > 0 AND m.half_life_days < 'Infinity', false) THEN
		RAISE EXCEPTION 'curve "half_life" % needs half_life_days above 0', what USING ERRCODE = 'invalid_parameter_value';
	END IF;

	-- the missing policy
	PERFORM cs_internal.scorecard_word('missing', what, m.missing, '{reweight,redistribute,zero,neutral,null_overall,carry}');
	IF (m.missing = 'neutral') <> (m.missing_points IS NOT NULL) THEN
		RAISE EXCEPTION 'missing_points % belong to missing = ''neutral'' and only there', what
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Give both or neither.';
	END IF;
	PERFORM cs_internal.scorecard_number('missing_points ' || what, m.missing_points, 0, 100);
	IF (m.missing = 'carry') <> (m.max_age_days IS NOT NULL) THEN
		RAISE EXCEPTION 'max_age_days % belong to missing = ''carry'' and only there', what
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Give both or neither. How old the facts may be that a metric sees stands in its expression.';
	END IF;
	PERFORM cs_internal.scorecard_number('max_age_days ' || what, m.max_age_days, 1, 3650);
	PERFORM cs_internal.scorecard_weights(m.scorecard);
END $$;
COMMENT ON FUNCTION cs_internal.check_measure(jsonb, jsonb) IS 'Refuses what cs.measure must not hold; called by the definition trigger.';

CREATE FUNCTION cs_internal.check_cap(new jsonb, old jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	cap cs.cap;
	names text[];
	late text;
	what text;
BEGIN
	IF new IS NULL THEN
		RETURN;
	END IF;
	cap := jsonb_populate_record(NULL::cs.cap, new);
	what := format('cap "%s" of scorecard "%s"', cap.rule, cap.scorecard);
	PERFORM cs_internal.scorecard_number('at_most of ' || what, cap.at_most, 0, 100);
	names := cs_internal.check_rule(cap.rule, cap.search_path, 'boolean', what);
	SELECT n INTO late FROM unnest(names) n
		WHERE n IN ('health', 'health_score', 'band', 'coverage')
			OR EXISTS (SELECT FROM cs.dimension d WHERE d.name = n AND d.sees = 'late')
		ORDER BY 1 LIMIT 1;
	IF late IS NOT NULL THEN
		RAISE EXCEPTION '% looks at "%", which is known only after the score', what, late
			USING ERRCODE = 'invalid_object_definition',
				DETAIL = 'The order is metrics, early segments, health, late segments, alerts.',
				HINT = 'Use metrics, columns of the customer, and dimensions whose rules name neither health nor band.';
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.check_cap(jsonb, jsonb) IS 'Refuses what cs.cap must not hold; called by the definition trigger.';

CREATE TRIGGER definition AFTER INSERT OR UPDATE OR DELETE ON cs.cap
	FOR EACH ROW EXECUTE FUNCTION cs_internal.definition_trigger();
CREATE TRIGGER definition AFTER INSERT OR UPDATE OR DELETE ON cs.scorecard
	FOR EACH ROW EXECUTE FUNCTION cs_internal.definition_trigger();
CREATE TRIGGER definition AFTER INSERT OR UPDATE OR DELETE ON cs.measure_group
	FOR EACH ROW EXECUTE FUNCTION cs_internal.definition_trigger();
CREATE TRIGGER definition AFTER INSERT OR UPDATE OR DELETE ON cs.measure
	FOR EACH ROW EXECUTE FUNCTION cs_internal.definition_trigger();
