
-- ---------------------------------------------------------------------------
-- validate: the checks of every definition, run again on what stands there.
-- After a restore, whose COPY checks nothing, and after a change of the tables
-- that definitions read.
-- ---------------------------------------------------------------------------

CREATE FUNCTION cs_internal.validate() RETURNS TABLE (table_name text, key text, error_code text, error text, hint text)
LANGUAGE plpgsql AS $$
DECLARE
	t record;
	r record;
BEGIN
	FOR t IN
		SELECT c.relname, c.oid::regclass AS rel
		FROM pg_class c
		WHERE c.relnamespace = 'cs'::regnamespace AND c.relkind = 'r'
			AND to_regprocedure(format('cs_internal.%I(jsonb, jsonb)', 'check_' || c.relname)) IS NOT NULL
		ORDER BY array_position('{policy,metric,dimension,segment,scorecard,measure_group,measure,cap,alert_rule,job}', c.relname::text), c.relname
	LOOP
		FOR r IN EXECUTE format('SELECT to_jsonb(x) AS row FROM %s x ORDER BY x::text COLLATE "C"', t.rel) LOOP
			BEGIN
				EXECUTE format('SELECT cs_internal.%I($1, $1)', 'check_' || t.relname) USING r.row;
			EXCEPTION WHEN OTHERS THEN
				table_name := t.relname;
				key := concat_ws('/', r.row->>'scorecard', r.row->>'dimension', coalesce(r.row->>'name', r.row->>'rule', r.row->>'currency'));
				GET STACKED DIAGNOSTICS error_code = RETURNED_SQLSTATE, error = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
				hint := nullif(hint, '');
				RETURN NEXT;
			END;
		END LOOP;
	END LOOP;
END $$;
COMMENT ON FUNCTION cs_internal.validate() IS 'See cs.validate.';

CREATE FUNCTION cs.validate() RETURNS TABLE (table_name text, key text, error_code text, error text, hint text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.validate() IS
'Runs the check of every definition again and returns a row for each that fails: its table and key, the SQLSTATE, what is wrong and a hint. No row: all are well.';
