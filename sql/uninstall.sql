
-- ---------------------------------------------------------------------------
-- uninstall: leaving without loss. What was kept goes into ordinary tables of a
-- schema of the user's, the capture triggers go, and DROP EXTENSION then needs
-- no CASCADE. Until then all of it can be undone, see the comment below.
-- ---------------------------------------------------------------------------

-- What cannot be computed again: the views of what was decided, as people read
-- them, and every table that a dump would carry, as it stands.
CREATE FUNCTION cs_internal.keepsakes() RETURNS TABLE (name text, relation regclass)
LANGUAGE sql STABLE AS $$
	SELECT v.name, to_regclass('cs.' || v.name)
	FROM unnest('{alert,alert_event,segment_history,health_history,metric_history,movement}'::text[]) v(name)
	UNION ALL
	SELECT CASE c.relnamespace WHEN 'cs'::regnamespace THEN 'definition_' ELSE 'internal_' END || c.relname, c.oid::regclass
	FROM pg_class c JOIN pg_extension e ON e.extname = 'cs_ext' AND c.oid = ANY (e.extconfig)
	WHERE c.relkind IN ('r', 'p')
$$;
COMMENT ON FUNCTION cs_internal.keepsakes() IS 'What cs.uninstall() copies: name of the copy, and from where.';

CREATE FUNCTION cs_internal.uninstall(keep_in text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	k record;
	columns text;
	n bigint;
	total bigint := 0;
	tables integer := 0;
	triggers integer := 0;
	extension oid := (SELECT e.oid FROM pg_extension e WHERE e.extname = 'cs_ext');
	who text := cs_internal.caller();
BEGIN
	IF NOT (SELECT r.rolsuper OR e.extowner = r.oid FROM pg_extension e, pg_roles r WHERE e.oid = extension AND r.rolname = who) THEN
		RAISE EXCEPTION 'must be the owner of extension cs_ext to uninstall it' USING ERRCODE = 'insufficient_privilege',
			HINT = 'Ask a superuser.';
	END IF;
	IF keep_in IN ('cs', 'cs_internal') OR keep_in ~ '^pg_' THEN
		RAISE EXCEPTION 'what is kept cannot stand in schema "%"', keep_in USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Name a schema of your own, or one to be made.';
	END IF;

	IF keep_in IS NOT NULL THEN
		IF to_regnamespace(quote_ident(keep_in)) IS NULL THEN
			EXECUTE format('CREATE SCHEMA %I AUTHORIZATION %I', keep_in, who);
		END IF;
		FOR k IN SELECT s.name, s.relation FROM cs_internal.keepsakes() s ORDER BY s.name COLLATE "C" LOOP
			IF to_regclass(format('%I.%I', keep_in, k.name)) IS NOT NULL THEN
				RAISE EXCEPTION 'schema "%" already has a table "%"', keep_in, k.name USING ERRCODE = 'duplicate_table',
					HINT = 'Name another schema, or one to be made.';
			END IF;
			-- a type of the extension's cannot stay behind in a column: such values are kept as text
			SELECT string_agg(CASE WHEN d.objid IS NULL THEN quote_ident(a.attname) ELSE format('%I::text AS %1$I', a.attname) END, ', ' ORDER BY a.attnum)
			INTO columns
			FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
				LEFT JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid IN (t.oid, t.typelem)
					AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension AND d.deptype = 'e'
			WHERE a.attrelid = k.relation AND a.attnum > 0 AND NOT a.attisdropped;
			EXECUTE format('CREATE TABLE %I.%I AS SELECT %s FROM %s', keep_in, k.name, columns, k.relation);
			GET DIAGNOSTICS n = ROW_COUNT;
			EXECUTE format('ALTER TABLE %I.%I OWNER TO %I', keep_in, k.name, who);
			total := total + n;
			tables := tables + 1;
		END LOOP;
	END IF;

	-- nothing of ours acts any more, nor makes a trigger again
	INSERT INTO cs_internal.hold (reason, since) VALUES ('uninstall', clock_timestamp()) ON CONFLICT (id) DO UPDATE SET reason = EXCLUDED.reason;
	UPDATE cs.source SET enabled = false WHERE enabled;
	FOR k IN SELECT t.tgname, t.tgrelid::regclass AS relation FROM pg_trigger t
		JOIN pg_proc p ON p.oid = t.tgfoid AND p.pronamespace IN ('cs'::regnamespace, 'cs_internal'::regnamespace)
		JOIN pg_class c ON c.oid = t.tgrelid AND c.relnamespace NOT IN ('cs'::regnamespace, 'cs_internal'::regnamespace)
		WHERE t.tgparentid = 0 AND NOT t.tgisinternal
	LOOP
		EXECUTE format('DROP TRIGGER %I ON %s', k.tgname, k.relation);
		triggers := triggers + 1;
	END LOOP;

	RAISE NOTICE '% rows kept in % tables%, % triggers removed', total, tables, coalesce(format(' of schema "%s"', keep_in), ''), triggers;
	SELECT string_agg(DISTINCT pg_describe_object(o.classid, o.objid, 0), ', ') INTO columns
	FROM (
		SELECT 'pg_class'::regclass AS classid, r.ev_class AS objid
		FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
		JOIN pg_depend m ON m.classid = d.refclassid AND m.objid = d.refobjid AND m.refclassid = 'pg_extension'::regclass AND m.refobjid = extension AND m.deptype = 'e'
		WHERE d.deptype = 'n'
			AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = 'pg_class'::regclass AND x.objid = r.ev_class AND x.refobjid = extension AND x.deptype = 'e')
		UNION
		SELECT d.classid, d.objid
		FROM pg_depend d
		JOIN pg_depend m ON m.classid = d.refclassid AND m.objid = d.refobjid AND m.refclassid = 'pg_extension'::regclass AND m.refobjid = extension AND m.deptype = 'e'
		WHERE d.deptype = 'n' AND d.classid IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_trigger'::regclass, 'pg_constraint'::regclass)
			AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = d.classid AND x.objid = d.objid AND x.deptype IN ('e', 'i', 'a'))) o;
	IF columns IS NOT NULL THEN
		RAISE WARNING 'DROP EXTENSION needs CASCADE for what was built on cs_ext: %', columns;
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.uninstall(text) IS 'See cs.uninstall.';

CREATE PROCEDURE cs.uninstall(keep_in text DEFAULT NULL) LANGUAGE c AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON PROCEDURE cs.uninstall(text) IS
'Prepares DROP EXTENSION: copies history, decisions and definitions into ordinary tables of schema keep_in (made if missing; NULL: nothing is copied), switches the sources off, holds the scheduler and removes the capture triggers. For the owner of the extension. Undone by ROLLBACK; later by UPDATE cs.source SET enabled = true and cs.release_hold(). Warns of views and functions of yours that still need cs_ext.';
