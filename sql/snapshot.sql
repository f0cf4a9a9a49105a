
-- ---------------------------------------------------------------------------
-- snapshot: what was known at each local midnight.
-- ---------------------------------------------------------------------------

CREATE FUNCTION cs_internal.snapshot_band(score float8, card cs.scorecard, previous text) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT CASE
		WHEN score IS NULL THEN NULL
		WHEN score < red OR (card.edge_closed = 'below' AND score = red) THEN 'red'
		WHEN score < green OR (card.edge_closed = 'below' AND score = green) THEN 'yellow'
		ELSE 'green' END
	FROM (SELECT
		-- Worsening is at once; improving needs the cut and the hysteresis.
		card.red_below + CASE WHEN previous = 'red' THEN card.hysteresis ELSE 0 END AS red,
		card.green_from + CASE WHEN previous IN ('red', 'yellow') THEN card.hysteresis ELSE 0 END AS green) cut
$$;
COMMENT ON FUNCTION cs_internal.snapshot_band(float8, cs.scorecard, text) IS
'Band of a score under a scorecard, given the band before (NULL: none). NULL without a score.';

CREATE FUNCTION cs_internal.scorecard_version(name text) RETURNS bigint
LANGUAGE sql STABLE AS $$
	SELECT max(h.id) FROM cs_internal.definition_history h
	WHERE h.table_name IN ('scorecard', 'measure_group', 'measure')
		AND coalesce(h.new_row, h.old_row) ->> CASE h.table_name WHEN 'scorecard' THEN 'name' ELSE 'scorecard' END = name
$$;
COMMENT ON FUNCTION cs_internal.scorecard_version(text) IS
'Version of a scorecard: the id of the last change of its rows in definition_history.';

CREATE FUNCTION cs_internal.take_snapshot(as_of timestamptz) RETURNS bigint
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'cs_take_snapshot_sql';
COMMENT ON FUNCTION cs_internal.take_snapshot(timestamptz) IS
'Appends metrics and health of every customer as of a local midnight to history; what is there is kept. Returns how many were added.';
