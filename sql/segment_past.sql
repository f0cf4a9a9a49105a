
-- ---------------------------------------------------------------------------
-- segment_past: who was in which segment at an instant of the past, and the
-- arguments that name segments.
--
--   stored    as membership was kept then
--   restated  today's rules applied to the state of then (policy.segment_basis)
-- ---------------------------------------------------------------------------

CREATE FUNCTION cs_internal.find_segment(argument text, OUT dimension text, OUT segment text)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
	known text[];
	found text[];
	near text;
BEGIN
	IF argument IS NULL THEN
		RETURN;
	END IF;
	-- rules, fallbacks, and what stands in history (attribute values, dropped segments)
	SELECT array_agg(k.full_name ORDER BY k.full_name), array_agg(k.full_name ORDER BY k.full_name)
			FILTER (WHERE argument IN (k.full_name, k.name))
		INTO known, found
	FROM (
		SELECT s.dimension || ':' || s.name AS full_name, s.name FROM cs.segment s
		UNION SELECT d.name || ':' || d.fallback, d.fallback FROM cs.dimension d WHERE d.fallback IS NOT NULL
		UNION SELECT m.dimension || ':' || m.segment, m.segment FROM cs_internal.membership m
	) k;
	IF argument = ANY (found) THEN
		found := ARRAY[argument];
	END IF;
	IF found IS NULL THEN
		near := cs_internal.nearest(argument, known);
		IF near IS NULL THEN
			-- the bare name may be near although the full one is not
			near := cs_internal.nearest(argument, (SELECT array_agg(substr(k, strpos(k, ':') + 1)) FROM unnest(known) k));
		END IF;
		RAISE EXCEPTION 'unknown segment "%"', argument USING ERRCODE = 'invalid_parameter_value',
			HINT = coalesce('Did you mean "' || near || '"?', 'Known: ' || array_to_string(known[1:20], ', ')
				|| CASE WHEN cardinality(known) > 20 THEN ', ...' ELSE '' END || '.', 'There are no segments yet; they stand in cs.segment.');
	END IF;
	IF cardinality(found) > 1 THEN
		RAISE EXCEPTION 'segment "%" is ambiguous', argument USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Write one of: ' || array_to_string(found, ', ') || '.';
	END IF;
	dimension := split_part(found[1], ':', 1);
	segment := substr(found[1], strpos(found[1], ':') + 1);
END $$;
COMMENT ON FUNCTION cs_internal.find_segment(text) IS
'Dimension and segment of a segment argument (dimension:segment, or a name that one dimension has); 22023 when unknown or ambiguous, NULL for NULL.';

CREATE FUNCTION cs_internal.find_part(argument text, OUT dimension text, OUT segment text)
LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF EXISTS (SELECT 1 FROM cs.dimension d WHERE argument = d.name || ':(none)') THEN
		dimension := left(argument, -length(':(none)'));
		segment := '(none)';
	ELSIF EXISTS (SELECT 1 FROM cs.dimension d WHERE d.enabled AND d.attribute IN ('product', 'term_months') AND argument LIKE '_%:_%'
		AND d.name = split_part(argument, ':', 1)) THEN
		-- a product of the past that nobody has now is a segment of the past
		dimension := split_part(argument, ':', 1);
		segment := substr(argument, strpos(argument, ':') + 1);
	ELSE
		SELECT f.dimension, f.segment INTO dimension, segment FROM cs_internal.find_segment(argument) f;
	END IF;
	PERFORM cs_internal.must_be_exclusive(dimension);
END $$;
COMMENT ON FUNCTION cs_internal.find_part(text) IS
'As find_segment, for what sums over customers: dimension:(none) is there too, who is in no segment of it.';

-- Nobody is in a segment before membership was first stored: say so, for the
-- answer would look like an empty segment.
CREATE FUNCTION cs_internal.note_stored_since(dimension text, at timestamptz) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
	since timestamptz := (SELECT min(m.valid_from) FROM cs_internal.membership m WHERE m.dimension = note_stored_since.dimension);
BEGIN
	IF cs_internal.basis_of(dimension) = 'restated' THEN
		RETURN;
	END IF;
	IF at < since THEN
		RAISE NOTICE 'segments of % are stored from % on, so nobody is in one at %', dimension, since, at;
	ELSIF dimension IS NOT NULL AND since IS NULL THEN
		RAISE NOTICE 'no segments of % are stored yet', dimension
			USING HINT = 'CALL cs.refresh() to find them.';
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.note_stored_since(text, timestamptz) IS
'A NOTICE where the instant lies before the first stored membership of the dimension; nothing for NULL.';

CREATE FUNCTION cs_internal.must_be_dimension(dimension text) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
	known text[] := ARRAY(SELECT d.name FROM cs.dimension d UNION SELECT DISTINCT m.dimension FROM cs_internal.membership m ORDER BY 1);
BEGIN
	IF dimension = ANY (known) THEN
		PERFORM cs_internal.must_be_exclusive(dimension);
		RETURN;
	END IF;
	IF dimension IS NULL THEN
		RAISE EXCEPTION 'a dimension is needed' USING ERRCODE = 'null_value_not_allowed',
			HINT = 'Dimensions stand in cs.dimension.';
	END IF;
	RAISE EXCEPTION 'unknown dimension "%"', dimension USING ERRCODE = 'invalid_parameter_value',
		HINT = coalesce('Did you mean "' || cs_internal.nearest(dimension, known) || '"?',
			'Known: ' || nullif(array_to_string(known, ', '), '') || '.', 'There are no dimensions yet; they stand in cs.dimension.');
END $$;
COMMENT ON FUNCTION cs_internal.must_be_dimension(text) IS
'Raises 22023 with the near match unless the dimension is defined or has history; 22004 for NULL.';


-- A dimension and those that its rules name, these first.
CREATE FUNCTION cs_internal.dimension_needs(dimension text) RETURNS TABLE (dimension text, level integer)
LANGUAGE sql STABLE AS $$
	WITH RECURSIVE needed AS (
		SELECT d.name FROM cs.dimension d WHERE d.name = dimension_needs.dimension AND d.enabled
		UNION
		SELECT d.name
		FROM needed n
		JOIN cs.segment s ON s.dimension = n.name
		CROSS JOIN LATERAL unnest(cs_internal.rule_names(s.rule)) u (name)
		JOIN cs.dimension d ON d.name = u.name AND d.enabled
	)
	SELECT n.name, o.level FROM needed n JOIN cs_internal.dimension_order() o ON o.dimension = n.name
$$;
COMMENT ON FUNCTION cs_internal.dimension_needs(text) IS 'An enabled dimension and those its rules name, directly or through others, with the level in the order of evaluation.';

CREATE FUNCTION cs_internal.dimension_uses(dimension text) RETURNS TABLE (name text)
LANGUAGE sql STABLE AS $$
	SELECT DISTINCT u.name
	FROM cs_internal.dimension_needs(dimension_uses.dimension) n
	JOIN cs.segment s ON s.dimension = n.dimension
	CROSS JOIN LATERAL unnest(cs_internal.rule_names(s.rule)) u (name)
$$;
COMMENT ON FUNCTION cs_internal.dimension_uses(text) IS 'Names in the rules of a dimension and of those it needs.';

-- mrr is a metric where one has that name: it must be the column and no more.
CREATE FUNCTION cs_internal.ledger_knows(dimension text) RETURNS boolean
LANGUAGE sql STABLE AS $$
	SELECT NOT EXISTS (
		SELECT FROM cs_internal.dimension_uses(dimension) u
		LEFT JOIN cs.metric m ON m.name = u.name AND m.enabled
		WHERE NOT EXISTS (SELECT FROM cs_internal.dimension_needs(ledger_knows.dimension) n WHERE n.dimension = u.name)
			AND (u.name <> ALL ('{customer_id,name,owner,parent_id,created_at,attributes,active,mrr,as_of,as_of_day}')
				OR m.name IS NOT NULL AND (m.source, btrim(m.expression), m.max_lag IS NULL) <> ('ledger', u.name, true)))
		AND NOT EXISTS (
			SELECT FROM cs_internal.dimension_needs(dimension) n
			JOIN cs.dimension d ON d.name = n.dimension
			LEFT JOIN cs.segment s ON s.dimension = n.dimension
			WHERE d.attribute IS NOT NULL OR s.rule ~* '\mago\s*\('
				OR EXISTS (SELECT FROM cs_internal.segment_assignment a WHERE a.dimension = n.dimension AND n.dimension <> ledger_knows.dimension))
$$;
COMMENT ON FUNCTION cs_internal.ledger_knows(text) IS 'Do the rules of a dimension ask for nothing but MRR, being active and columns of the customer.';

CREATE FUNCTION cs_internal.segments_restated(dimension text, at timestamptz)
RETURNS TABLE (customer_id text, segment text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_segments_restated_sql';
COMMENT ON FUNCTION cs_internal.segments_restated(text, timestamptz) IS
'Who would be in which segment at an instant by the rules of today; who is in none has no row. Without what was assigned by hand.';

-- An assignment by hand is a decision of its time, so it stands in the restated past too.
CREATE FUNCTION cs_internal.restated_at(dimension text, at timestamptz, basis text)
RETURNS TABLE (customer_id text, segment text)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_variable
BEGIN
	IF basis = 'restated' THEN
		RETURN QUERY
		SELECT r.customer_id, r.segment
		FROM cs_internal.segments_restated(dimension, at) r
		WHERE NOT EXISTS (SELECT FROM cs_internal.membership m
			WHERE m.customer_id = r.customer_id AND m.dimension = restated_at.dimension AND m.source = 'manual'
				AND m.valid_from <= at AND (m.valid_to IS NULL OR at < m.valid_to));
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.restated_at(text, timestamptz, text) IS 'As segments_restated, without who was assigned by hand then; nothing for basis stored.';

-- Read into the plans of the flows, so that what is stored is joined as a table.
CREATE FUNCTION cs_internal.segment_at(dimension text, at timestamptz, basis text)
RETURNS TABLE (customer_id text, segment text)
LANGUAGE sql STABLE AS $$
	SELECT m.customer_id, m.segment FROM cs_internal.membership m
	WHERE m.dimension = segment_at.dimension AND m.valid_from <= segment_at.at AND (m.valid_to IS NULL OR segment_at.at < m.valid_to)
		AND (basis = 'stored' OR m.source = 'manual')
	UNION ALL
	SELECT r.customer_id, r.segment FROM cs_internal.restated_at(segment_at.dimension, segment_at.at, basis) r
$$;
COMMENT ON FUNCTION cs_internal.segment_at(text, timestamptz, text) IS
'Who is in which segment of a dimension at an instant; who is in none has no row. basis stored: as membership was kept; restated: by the rules of today.';

-- How segments of the past are found for this dimension. One that is no longer
-- defined has no rules to apply.
CREATE FUNCTION cs_internal.basis_of(dimension text) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT CASE WHEN dimension IS NOT NULL THEN
		CASE WHEN EXISTS (SELECT FROM cs.dimension d WHERE d.name = basis_of.dimension AND d.enabled) THEN p.segment_basis ELSE 'stored' END END
	FROM cs.policy p
$$;
COMMENT ON FUNCTION cs_internal.basis_of(text) IS 'stored or restated, as the policy says; stored for a dimension that is not defined; NULL without a dimension.';

-- Attributes, name, owner and parent of a customer are known as they are now.
CREATE FUNCTION cs_internal.today_stands_in(dimension text, at timestamptz, basis text) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF basis IS DISTINCT FROM 'restated' THEN
		RETURN CASE WHEN dimension IS NOT NULL THEN false END;
	END IF;
	RETURN at < coalesce((SELECT c.last_as_of FROM cs_internal.clock c), cs_internal.now())
		AND (EXISTS (SELECT FROM cs_internal.dimension_uses(dimension) u WHERE u.name IN ('attributes', 'name', 'owner', 'parent_id'))
			OR EXISTS (SELECT FROM cs_internal.dimension_needs(dimension) n JOIN cs.dimension d ON d.name = n.dimension
				WHERE d.attribute NOT IN ('product', 'term_months') OR EXISTS (SELECT FROM cs_internal.customer c WHERE c.attributes ? d.attribute)));
END $$;
COMMENT ON FUNCTION cs_internal.today_stands_in(text, timestamptz, text) IS
'Does today''s value of an attribute stand in for that of the instant, which is not kept: true where a restated dimension uses attributes, name, owner or parent and the instant lies before the last refresh; NULL without a dimension.';

CREATE FUNCTION cs_internal.known_segment(dimension text, t0 timestamptz, t1 timestamptz, basis text) RETURNS SETOF text
LANGUAGE sql STABLE AS $$
	SELECT s.name FROM cs.segment s WHERE s.dimension = known_segment.dimension
	UNION SELECT d.fallback FROM cs.dimension d WHERE d.name = known_segment.dimension AND d.fallback IS NOT NULL
	UNION SELECT m.segment FROM cs_internal.membership m
	WHERE basis = 'stored' AND m.dimension = known_segment.dimension AND m.valid_from <= t1 AND (m.valid_to IS NULL OR t0 < m.valid_to)
	UNION SELECT '(none)'
$$;
COMMENT ON FUNCTION cs_internal.known_segment(text, timestamptz, timestamptz, text) IS
'Segments that have a row in churn by a dimension also where nobody is in them.';
