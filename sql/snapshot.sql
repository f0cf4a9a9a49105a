
-- ---------------------------------------------------------------------------
-- snapshot: what was known at each local midnight.
-- ---------------------------------------------------------------------------

CREATE FUNCTION cs_internal.scorecard_version(name text) RETURNS bigint
LANGUAGE sql STABLE AS $$
	SELECT max(h.id) FROM cs_internal.definition_history h
	WHERE h.table_name IN ('scorecard', 'measure_group', 'measure', 'cap')
		AND coalesce(h.new_row, h.old_row) ->> CASE h.table_name WHEN 'scorecard' THEN 'name' ELSE 'scorecard' END = name
$$;
COMMENT ON FUNCTION cs_internal.scorecard_version(text) IS
'Version of a scorecard: the id of the last change of its rows in definition_history.';

CREATE FUNCTION cs_internal.take_snapshot(as_of timestamptz) RETURNS bigint
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'cs_take_snapshot_sql';
COMMENT ON FUNCTION cs_internal.take_snapshot(timestamptz) IS
'Appends metrics and health of every customer as of a local midnight to history; what is there is kept. Returns how many were added.';
