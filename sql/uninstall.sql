
-- ---------------------------------------------------------------------------
-- uninstall: leaving without loss. What was kept goes into ordinary tables of a
-- schema of the user's, the capture triggers go, and DROP EXTENSION then needs
-- no CASCADE. Until that, everything can be put back by cs.add_source().
-- ---------------------------------------------------------------------------

-- What cannot be computed again, and the definitions that say how to read it:
-- table of the copy -> what is read.
CREATE FUNCTION cs_internal.keepsakes() RETURNS TABLE (name text, query text)
LANGUAGE sql STABLE AS $$
	-- what people read of what was decided
	SELECT v.name, format('SELECT * FROM cs.%I', v.name)
	FROM unnest('{alert,alert_event,segment_history,health_history,metric_history,movement,definition_history,job_run}'::text[]) v(name)
	UNION ALL
	-- every definition and every other table that a dump would carry, as it stands
	SELECT CASE c.relnamespace WHEN 'cs'::regnamespace THEN 'definition_' ELSE 'internal_' END || c.relname, format('SELECT * FROM %s', c.oid::regclass)
	FROM pg_class c JOIN pg_extension e ON e.extname = 'cs_ext' AND c.oid = ANY (e.extconfig)
	WHERE c.relkind IN ('r', 'p')
$$;
COMMENT ON FUNCTION cs_internal.keepsakes() IS 'What cs.uninstall() copies: name of the table and the query that fills it.';

-- A type of the extension's cannot stay behind in a column: such values are kept as text.
CREATE FUNCTION cs_internal.keep(schema_name text, table_name text, query text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
	columns text;
BEGIN
	EXECUTE format('CREATE TEMPORARY VIEW cs_keepsake AS %s', query);
	SELECT string_agg(CASE WHEN d.objid IS NULL THEN quote_ident(a.attname) ELSE format('%I::text AS %1$I', a.attname) END, ', ' ORDER BY a.attnum)
	INTO columns
	FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
		LEFT JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = coalesce(nullif(t.typelem, 0), t.oid) AND d.deptype = 'e'
			AND d.refobjid = (SELECT e.oid FROM pg_extension e WHERE e.extname = 'cs_ext')
	WHERE a.attrelid = 'pg_temp.cs_keepsake'::regclass AND a.attnum > 0 AND NOT a.attisdropped;
	EXECUTE format('CREATE TABLE %I.%I AS SELECT %s FROM pg_temp.cs_keepsake', schema_name, table_name, columns);
	GET DIAGNOSTICS n = ROW_COUNT;
	DROP VIEW pg_temp.cs_keepsake;
	RETURN n;
END $$;
COMMENT ON FUNCTION cs_internal.keep(text, text, text) IS 'Copies the rows of a query into a new ordinary table; returns how many.';
