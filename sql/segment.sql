
-- ---------------------------------------------------------------------------
-- segment: dimensions, their segments, and who was in them when.
-- ---------------------------------------------------------------------------

CREATE TABLE cs.dimension (
	name text PRIMARY KEY,
	exclusive boolean NOT NULL DEFAULT true,
	attribute text,
	fallback text,
	min_days integer NOT NULL DEFAULT 0,
	sees text NOT NULL DEFAULT 'early',          -- set by the check: early or late
	enabled boolean NOT NULL DEFAULT true,
	description text
);
SELECT pg_catalog.pg_extension_config_dump('cs.dimension', '');
COMMENT ON TABLE cs.dimension IS 'A family of segments. Of an exclusive one a customer is in at most one segment, and rules see it as a text column with the name of that; in overlapping ones a customer may be in several.';
COMMENT ON COLUMN cs.dimension.name IS 'Name, [a-z][a-z0-9_]*; shares one namespace with metrics and columns of state.';
COMMENT ON COLUMN cs.dimension.exclusive IS 'true: a customer is in at most one segment, the first whose rule is true. false: in each whose rule is true; such a dimension is no column of rules (in_segment() asks for it), and no rates by segment or scorecards are had by it, for its segments do not add up.';
COMMENT ON COLUMN cs.dimension.attribute IS 'One segment per value of this key of the customer''s attributes, at most 200; where a customer has no such key, owner is its owner, and product and term_months are those of its running subscription with the largest MRR. Such a dimension has no rows in cs.segment. NULL: segments have rules.';
COMMENT ON COLUMN cs.dimension.fallback IS 'Segment of customers for whom no rule is true. NULL: they are in none.';
COMMENT ON COLUMN cs.dimension.min_days IS 'Local days that a customer stays in a segment at least, whatever the rules say meanwhile; assignments by hand win all the same. 0: none. Does not hold where the past is evaluated anew.';
COMMENT ON COLUMN cs.dimension.sees IS 'Generated: late when a rule of it names health, health_score, band, coverage or a late dimension, so that it is evaluated after health; else early.';
COMMENT ON COLUMN cs.dimension.enabled IS 'false: not evaluated, unknown to rules, memberships end.';
COMMENT ON COLUMN cs.dimension.description IS 'Free text.';

CREATE TABLE cs.segment (
	dimension text NOT NULL,
	name text NOT NULL,
	rule text NOT NULL,
	priority integer NOT NULL DEFAULT 100,
	description text,
	search_path text NOT NULL DEFAULT pg_catalog.current_setting('search_path'),
	PRIMARY KEY (dimension, name)
);
SELECT pg_catalog.pg_extension_config_dump('cs.segment', '');
COMMENT ON TABLE cs.segment IS 'Segments of a dimension by rule: a customer is in the first, by priority and then name, whose rule is true.';
COMMENT ON COLUMN cs.segment.dimension IS 'Dimension it belongs to.';
COMMENT ON COLUMN cs.segment.name IS 'Name inside the dimension; tier:enterprise names it from outside.';
COMMENT ON COLUMN cs.segment.rule IS 'SQL condition over the customer''s state. NULL counts as not true.';
COMMENT ON COLUMN cs.segment.priority IS 'Lowest first.';
COMMENT ON COLUMN cs.segment.description IS 'Free text.';
COMMENT ON COLUMN cs.segment.search_path IS 'search_path of the writer, used when the rule is evaluated.';

-- Decided: valid_to NULL = now. source: rule, fallback, attribute, manual.
CREATE TABLE cs_internal.membership (
	customer_id text COLLATE "C" NOT NULL,
	dimension text NOT NULL,
	segment text NOT NULL,
	valid_from timestamptz NOT NULL,
	valid_to timestamptz,
	source text NOT NULL,
	reason text,
	PRIMARY KEY (customer_id, dimension, segment, valid_from)
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.membership', '');

-- Decided: segments given by hand; they win until they expire (NULL: until taken back).
CREATE TABLE cs_internal.segment_assignment (
	customer_id text COLLATE "C" NOT NULL,
	dimension text NOT NULL,
	segment text NOT NULL,
	reason text NOT NULL,
	expires_at timestamptz,
	actor text NOT NULL,
	assigned_at timestamptz NOT NULL,
	PRIMARY KEY (customer_id, dimension)
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.segment_assignment', '');

-- Derived: values seen of attribute dimensions, at most 200 each.
CREATE TABLE cs_internal.attribute_value (
	dimension text NOT NULL,
	value text NOT NULL,
	PRIMARY KEY (dimension, value)
);

-- In place of foreign keys, see cs_internal.belongs().
CREATE TRIGGER belongs AFTER INSERT OR UPDATE OF dimension ON cs.segment
	FOR EACH ROW EXECUTE FUNCTION cs_internal.belongs('dimension', 'dimension');
CREATE TRIGGER belongings_segment AFTER UPDATE OF name OR DELETE ON cs.dimension
	FOR EACH ROW EXECUTE FUNCTION cs_internal.belongings('segment', 'dimension');

-- Who acts: the application's user where the session says so, else the session's.
CREATE FUNCTION cs_internal.actor(actor text) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT coalesce(nullif(actor, ''), nullif(current_setting('cs_ext.actor', true), ''), session_user)
$$;
COMMENT ON FUNCTION cs_internal.actor(text) IS 'The actor as given, else cs_ext.actor, else the user of the session.';

-- Raises unless it names a segment; of an attribute dimension any value does, seen or not.
CREATE FUNCTION cs_internal.must_be_segment(word text) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF NOT EXISTS (SELECT 1 FROM cs.dimension d
		WHERE d.enabled AND d.attribute IS NOT NULL AND word LIKE '%:_%' AND d.name = split_part(word, ':', 1)) THEN
		PERFORM cs_internal.find_segment(word);
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.must_be_segment(text) IS 'Raises 22023 with the near match unless it is dimension:segment, or a name that one dimension has.';

-- Which dimension is evaluated when: late after health, and after the dimensions that its rules name.
CREATE FUNCTION cs_internal.dimension_order() RETURNS TABLE (dimension text, late boolean, level integer)
LANGUAGE sql STABLE AS $$
	WITH RECURSIVE used AS MATERIALIZED (
		SELECT DISTINCT s.dimension, u.name
		FROM cs.segment s, unnest(cs_internal.rule_names(s.rule)) u (name)
	), edge AS (
		SELECT u.dimension, d.name AS needs FROM used u JOIN cs.dimension d ON d.name = u.name AND d.enabled
	), reach AS (
		SELECT d.name AS dimension, d.name AS needs, 0 AS depth FROM cs.dimension d WHERE d.enabled
		UNION
		SELECT r.dimension, e.needs, r.depth + 1 FROM reach r JOIN edge e ON e.dimension = r.needs
		WHERE r.depth < (SELECT count(*) FROM cs.dimension)
	)
	SELECT r.dimension,
		bool_or(EXISTS (SELECT 1 FROM used u WHERE u.dimension = r.needs
			AND u.name IN ('health', 'health_score', 'band', 'coverage'))),
		max(r.depth)
	FROM reach r
	GROUP BY r.dimension
$$;
COMMENT ON FUNCTION cs_internal.dimension_order() IS
'Enabled dimensions: whether a rule of theirs, or of a dimension they name, names health (late), and how many dimensions stand before them.';

-- Refuses cycles with their path, and a late dimension that a scorecard is chosen by; keeps dimension.sees.
CREATE FUNCTION cs_internal.check_dimension_order() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	cycle text;
	card record;
BEGIN
	WITH RECURSIVE edge AS MATERIALIZED (
		SELECT DISTINCT s.dimension, d.name AS needs
		FROM cs.segment s, unnest(cs_internal.rule_names(s.rule)) u (name)
			JOIN cs.dimension d ON d.name = u.name
	), path AS (
		SELECT e.dimension AS start, e.needs AS at, ARRAY[e.dimension, e.needs] AS way FROM edge e
		UNION ALL
		SELECT p.start, e.needs, p.way || e.needs FROM path p JOIN edge e ON e.dimension = p.at
		WHERE p.at <> p.start AND NOT e.needs = ANY (p.way[2:])
	)
	SELECT array_to_string(p.way, ' -> ') INTO cycle FROM path p WHERE p.at = p.start
	ORDER BY array_length(p.way, 1), p.way LIMIT 1;
	IF cycle IS NOT NULL THEN
		RAISE EXCEPTION 'the rules of dimensions form a cycle: %', cycle USING ERRCODE = 'invalid_object_definition',
			HINT = 'A dimension may look only at dimensions that do not look at it.';
	END IF;

	SELECT k.name, o.dimension INTO card
	FROM cs.scorecard k JOIN cs_internal.dimension_order() o ON o.late
		AND (split_part(k.segment, ':', 1) = o.dimension AND k.segment LIKE '%:%'
			OR EXISTS (SELECT 1 FROM cs.segment s WHERE s.dimension = o.dimension AND s.name = k.segment))
	LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'dimension "%" would see health, but scorecard "%" is chosen by it', card.dimension, card.name
			USING ERRCODE = 'invalid_object_definition',
			HINT = 'A scorecard is chosen before health is known: its segment must not look at health, health_score, band or coverage.';
	END IF;

	SELECT m.scorecard, m.name, o.dimension INTO card
	FROM cs.measure m JOIN cs_internal.dimension_order() o ON o.late AND o.dimension = m.within
	LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'dimension "%" would see health, but measure "%" of scorecard "%" compares within it', card.dimension, card.name, card.scorecard
			USING ERRCODE = 'invalid_object_definition', HINT = 'Customers are compared before health is known.';
	END IF;

	SELECT k.scorecard, k.rule, o.dimension INTO card
	FROM cs.cap k JOIN cs_internal.dimension_order() o ON o.late AND o.dimension = ANY (cs_internal.rule_names(k.rule))
	LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'dimension "%" would see health, but cap "%" of scorecard "%" looks at it', card.dimension, card.rule, card.scorecard
			USING ERRCODE = 'invalid_object_definition',
			HINT = 'A cap is applied before health is known: what it looks at must not look at health, health_score, band or coverage.';
	END IF;

	UPDATE cs.dimension d SET sees = CASE WHEN o.late THEN 'late' ELSE 'early' END
	FROM cs_internal.dimension_order() o
	WHERE o.dimension = d.name AND d.sees IS DISTINCT FROM CASE WHEN o.late THEN 'late' ELSE 'early' END;
END $$;
COMMENT ON FUNCTION cs_internal.check_dimension_order() IS 'Refuses cycles of dimensions, scorecards chosen by a late dimension and caps that look at one; writes dimension.sees.';

CREATE FUNCTION cs_internal.refuse_in_use(what text, users text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	IF users IS NOT NULL THEN
		RAISE EXCEPTION '% is in use', what USING ERRCODE = 'dependent_objects_still_exist',
			DETAIL = format('Used by %s.', array_to_string(users, ', ')), HINT = 'Change or delete these first.';
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.refuse_in_use(text, text[]) IS 'Raises 2BP01 with the users unless there are none.';

-- Rules that name the dimension as a column, and scorecards and measures by its segments.
CREATE FUNCTION cs_internal.exclusive_users(dimension text) RETURNS text[]
LANGUAGE sql STABLE AS $$
	SELECT array_agg(x.who ORDER BY x.who)
	FROM (
		SELECT u AS who FROM unnest(cs_internal.rule_users(exclusive_users.dimension)) u
		UNION
		SELECT u FROM unnest(cs_internal.segment_users(exclusive_users.dimension, NULL)) u WHERE u NOT LIKE 'alert rule %'
	) x
$$;
COMMENT ON FUNCTION cs_internal.exclusive_users(text) IS 'Definitions that need a dimension to be exclusive; NULL: none.';

CREATE FUNCTION cs_internal.must_be_exclusive(dimension text) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF EXISTS (SELECT FROM cs.dimension d WHERE d.name = must_be_exclusive.dimension AND NOT d.exclusive) THEN
		RAISE EXCEPTION 'the segments of dimension "%" overlap', dimension USING ERRCODE = 'feature_not_supported',
			DETAIL = 'Customers in several of them would be counted several times, and parts would not add up to the total.',
			HINT = 'Use a dimension with exclusive = true.';
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.must_be_exclusive(text) IS 'Refuses an overlapping dimension with 0A000.';

CREATE FUNCTION cs_internal.check_dimension(new jsonb, old jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	n cs.dimension := jsonb_populate_record(NULL::cs.dimension, new);
	o cs.dimension := jsonb_populate_record(NULL::cs.dimension, old);
BEGIN
	IF old IS NOT NULL AND (new IS NULL OR n.name <> o.name OR NOT n.enabled) THEN
		PERFORM cs_internal.refuse_in_use(format('dimension "%s"', o.name), cs_internal.rule_users(o.name));
		PERFORM cs_internal.refuse_in_use(format('dimension "%s"', o.name), cs_internal.segment_users(o.name, NULL));
	END IF;
	IF new IS NULL THEN
		DELETE FROM cs_internal.segment_assignment a WHERE a.dimension = o.name;
		DELETE FROM cs_internal.attribute_value v WHERE v.dimension = o.name;
		RETURN;
	END IF;
	PERFORM cs_internal.check_rule_name('dimension', n.name);
	IF n.min_days NOT BETWEEN 0 AND 3650 THEN
		RAISE EXCEPTION 'dimension "%": min_days must be between 0 and 3650, not %', n.name, n.min_days USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF NOT n.exclusive AND n.attribute IS NOT NULL THEN
		RAISE EXCEPTION 'dimension "%" takes its segments from attribute "%", of which a customer has one value', n.name, n.attribute
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave exclusive true.';
	END IF;
	IF NOT n.exclusive AND old IS NOT NULL AND o.exclusive THEN
		PERFORM cs_internal.refuse_in_use(format('dimension "%s", as one whose segments exclude each other,', o.name), cs_internal.exclusive_users(o.name));
	END IF;
	IF n.attribute = '' OR n.fallback IN ('', '(none)') THEN
		RAISE EXCEPTION 'dimension "%": attribute and fallback must be names or NULL', n.name
			USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF n.attribute IS NOT NULL AND EXISTS (SELECT 1 FROM cs.segment s WHERE s.dimension = n.name) THEN
		RAISE EXCEPTION 'dimension "%" has segments with rules, so it cannot take them from attribute "%"', n.name, n.attribute
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Delete its rows of cs.segment first.';
	END IF;
	IF old IS NOT NULL AND (o.name <> n.name OR o.attribute IS DISTINCT FROM n.attribute) THEN
		DELETE FROM cs_internal.attribute_value v WHERE v.dimension = o.name;
		UPDATE cs_internal.segment_assignment a SET dimension = n.name WHERE a.dimension = o.name;
	END IF;
	PERFORM cs_internal.check_dimension_order();
END $$;
COMMENT ON FUNCTION cs_internal.check_dimension(jsonb, jsonb) IS 'Refuses what cs.dimension must not hold; called by the definition trigger.';

CREATE FUNCTION cs_internal.check_segment(new jsonb, old jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	n cs.segment := jsonb_populate_record(NULL::cs.segment, new);
	o cs.segment := jsonb_populate_record(NULL::cs.segment, old);
	d cs.dimension;
BEGIN
	IF old IS NOT NULL AND (new IS NULL OR n.name <> o.name) THEN
		PERFORM cs_internal.refuse_in_use(format('segment "%s:%s"', o.dimension, o.name),
			cs_internal.segment_users(o.dimension, o.name));
	END IF;
	IF new IS NULL THEN
		DELETE FROM cs_internal.segment_assignment a WHERE a.dimension = o.dimension AND a.segment = o.name;
		PERFORM cs_internal.check_dimension_order();
		RETURN;
	END IF;
	IF btrim(n.name) <> n.name OR n.name IN ('', '(none)') THEN
		RAISE EXCEPTION 'a segment cannot be named "%"', n.name USING ERRCODE = 'invalid_name';
	END IF;
	SELECT * INTO d FROM cs.dimension x WHERE x.name = n.dimension;
	IF d.attribute IS NOT NULL THEN
		RAISE EXCEPTION 'dimension "%" takes its segments from attribute "%"', n.dimension, d.attribute
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Make another dimension for segments with rules.';
	END IF;
	PERFORM cs_internal.check_rule(n.rule, n.search_path, 'boolean', format('rule of segment "%s:%s"', n.dimension, n.name));
	PERFORM cs_internal.check_dimension_order();
END $$;
COMMENT ON FUNCTION cs_internal.check_segment(jsonb, jsonb) IS 'Refuses what cs.segment must not hold; called by the definition trigger.';

-- Not on sees: that column is the check's own.
CREATE TRIGGER definition
	AFTER INSERT OR UPDATE OF name, exclusive, attribute, fallback, min_days, enabled, description OR DELETE ON cs.dimension
	FOR EACH ROW EXECUTE FUNCTION cs_internal.definition_trigger();
CREATE TRIGGER definition AFTER INSERT OR UPDATE OR DELETE ON cs.segment
	FOR EACH ROW EXECUTE FUNCTION cs_internal.definition_trigger();

-- ---- reading --------------------------------------------------------------

CREATE FUNCTION cs_internal.must_be_defined(dimension text, what text DEFAULT NULL, enabled boolean DEFAULT false,
	hint text DEFAULT 'Dimensions stand in cs.dimension.') RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM cs.dimension d WHERE d.name = must_be_defined.dimension AND (d.enabled OR NOT must_be_defined.enabled)) THEN
		RAISE EXCEPTION '%unknown dimension "%"', coalesce(what || ': ', ''), dimension USING ERRCODE = 'invalid_parameter_value',
			HINT = coalesce('Did you mean "' || cs_internal.nearest(dimension, (SELECT array_agg(d.name) FROM cs.dimension d)) || '"?', hint);
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.must_be_defined(text, text, boolean, text) IS
'Raises 22023, after what where given, unless the dimension is a row of cs.dimension, an enabled one where asked; the hint is its near match, else as given.';

CREATE FUNCTION cs_internal.segment_of(customer text, dimension text, as_of timestamptz) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
	result text;
BEGIN
	PERFORM cs_internal.must_be_defined(dimension);
	SELECT string_agg(m.segment, ', ' ORDER BY m.segment) INTO result
	FROM cs_internal.membership m
	WHERE m.customer_id = segment_of.customer AND m.dimension = segment_of.dimension
		AND (segment_of.as_of IS NULL AND m.valid_to IS NULL
			OR m.valid_from <= segment_of.as_of AND (m.valid_to > segment_of.as_of OR m.valid_to IS NULL));
	RETURN result;
END $$;
COMMENT ON FUNCTION cs_internal.segment_of(text, text, timestamptz) IS 'See cs.segment_of.';

CREATE FUNCTION cs_internal.assign_segment(customer text, dimension text, segment text, reason text, expires_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	IF NOT EXISTS (SELECT 1 FROM cs_internal.customer c WHERE c.customer_id = assign_segment.customer) THEN
		RAISE EXCEPTION 'unknown customer "%"', customer USING ERRCODE = 'no_data_found',
			HINT = 'Customers are the ids of customer and subscription sources, known after the next refresh.';
	END IF;
	PERFORM cs_internal.must_be_defined(dimension, enabled => true);
	PERFORM cs_internal.lock_customer(customer);
	IF segment IS NULL THEN
		DELETE FROM cs_internal.segment_assignment a
		WHERE a.customer_id = assign_segment.customer AND a.dimension = assign_segment.dimension;
	ELSE
		PERFORM cs_internal.must_be_segment(dimension || ':' || segment);
		IF reason IS NULL OR btrim(reason) = '' THEN
			RAISE EXCEPTION 'assigning a segment needs a reason' USING ERRCODE = 'invalid_parameter_value',
				HINT = 'People who meet the segment later want to know why.';
		END IF;
		IF expires_at <= cs_internal.now() THEN
			RAISE EXCEPTION 'expires_at % is in the past', expires_at USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Give a later instant, or NULL for an assignment that stays until it is taken back.';
		END IF;
		INSERT INTO cs_internal.segment_assignment AS a (customer_id, dimension, segment, reason, expires_at, actor, assigned_at)
		VALUES (customer, assign_segment.dimension, assign_segment.segment, assign_segment.reason, assign_segment.expires_at,
			cs_internal.actor(NULL), cs_internal.now())
		ON CONFLICT ON CONSTRAINT segment_assignment_pkey DO UPDATE SET segment = excluded.segment, reason = excluded.reason,
			expires_at = excluded.expires_at, actor = excluded.actor, assigned_at = excluded.assigned_at;
	END IF;
	INSERT INTO cs_internal.dirty AS d (customer_id, marked_at) VALUES (customer, clock_timestamp())
	ON CONFLICT (customer_id) DO UPDATE SET marked_at = excluded.marked_at;
END $$;
COMMENT ON FUNCTION cs_internal.assign_segment(text, text, text, text, timestamptz) IS 'See cs.assign_segment.';

CREATE FUNCTION cs.segment_of(customer text, dimension text, as_of timestamptz DEFAULT NULL) RETURNS text
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.segment_of(text, text, timestamptz) IS
'Segment the customer was in, in that dimension, as kept at that instant; left out: now. Of an overlapping dimension all of them, by name, with commas between. NULL for an unknown customer or one in no segment; raises for an unknown dimension.';

CREATE FUNCTION cs.assign_segment(customer text, dimension text, segment text, reason text, expires_at timestamptz DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.assign_segment(text, text, text, text, timestamptz) IS
'Puts the customer into a segment by hand: it wins over the rules until expires_at (NULL: until taken back), from the next refresh. segment NULL takes the assignment back. Raises for an unknown customer, dimension or segment, and without a reason.';

CREATE VIEW cs.customer_segment WITH (security_barrier) AS
	SELECT m.customer_id::text AS customer_id, m.dimension, m.segment, m.valid_from, m.source, m.reason,
		(SELECT c.last_as_of FROM cs_internal.clock c) AS data_through_at,
		(SELECT c.last_refresh_at FROM cs_internal.clock c) AS computed_at
	FROM cs_internal.membership m
	WHERE m.valid_to IS NULL;
COMMENT ON VIEW cs.customer_segment IS 'The segments each customer is in now; one row per customer and dimension, none where the customer is in no segment, and several of an overlapping one.';
COMMENT ON COLUMN cs.customer_segment.customer_id IS 'Customer.';
COMMENT ON COLUMN cs.customer_segment.dimension IS 'Dimension.';
COMMENT ON COLUMN cs.customer_segment.segment IS 'Segment of that dimension.';
COMMENT ON COLUMN cs.customer_segment.valid_from IS 'Evaluated instant from which the customer is in it.';
COMMENT ON COLUMN cs.customer_segment.source IS 'How the customer came in: rule, fallback, attribute or manual.';
COMMENT ON COLUMN cs.customer_segment.reason IS 'Reason given with a manual assignment; else NULL.';
COMMENT ON COLUMN cs.customer_segment.data_through_at IS 'Instant up to which facts are evaluated: that of the last refresh.';
COMMENT ON COLUMN cs.customer_segment.computed_at IS 'When the last refresh ran, by the clock.';

CREATE VIEW cs.segment_history WITH (security_barrier) AS
	SELECT m.customer_id::text AS customer_id, m.dimension, m.segment, m.valid_from, m.valid_to, m.source, m.reason,
		(SELECT c.last_as_of FROM cs_internal.clock c) AS data_through_at,
		(SELECT c.last_refresh_at FROM cs_internal.clock c) AS computed_at
	FROM cs_internal.membership m;
COMMENT ON VIEW cs.segment_history IS 'Who was in which segment when, as kept; never rewritten by later corrections of facts.';
COMMENT ON COLUMN cs.segment_history.customer_id IS 'Customer.';
COMMENT ON COLUMN cs.segment_history.dimension IS 'Dimension.';
COMMENT ON COLUMN cs.segment_history.segment IS 'Segment of that dimension.';
COMMENT ON COLUMN cs.segment_history.valid_from IS 'First instant in it (evaluated instant of the entry).';
COMMENT ON COLUMN cs.segment_history.valid_to IS 'First instant no longer in it; NULL: still in it.';
COMMENT ON COLUMN cs.segment_history.source IS 'How the customer came in: rule, fallback, attribute or manual.';
COMMENT ON COLUMN cs.segment_history.reason IS 'Reason given with a manual assignment; else NULL.';
COMMENT ON COLUMN cs.segment_history.data_through_at IS 'Instant up to which facts are evaluated: that of the last refresh.';
COMMENT ON COLUMN cs.segment_history.computed_at IS 'When the last refresh ran, by the clock.';

-- For tests and for looking into one stage: the segments of these customers alone.
CREATE FUNCTION cs_internal.evaluate_segments(customer_ids text[], as_of timestamptz, late boolean) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_evaluate_segments_sql';
COMMENT ON FUNCTION cs_internal.evaluate_segments(text[], timestamptz, boolean) IS
'Runs the stage of early or late segments over these customers'' rows of state.';
