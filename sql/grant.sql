
-- ---------------------------------------------------------------------------
-- grant
-- ---------------------------------------------------------------------------

-- What the execution role and its members may do: write definitions, run the
-- functions that operate cs_ext, and read. Everything else is nobody's.
CREATE FUNCTION cs_internal.definition_tables() RETURNS SETOF regclass
LANGUAGE sql STABLE AS $$
	SELECT c.oid::regclass
	FROM pg_class c
	WHERE c.relnamespace = 'cs'::regnamespace AND c.relkind = 'r' AND c.relname <> 'source'
	ORDER BY c.relname
$$;
COMMENT ON FUNCTION cs_internal.definition_tables() IS 'The tables of schema cs that members of policy.run_as write by plain DML.';

CREATE FUNCTION cs_internal.grant_definer(role_name text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('GRANT USAGE ON SCHEMA cs TO %I', role_name);
	EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA cs TO %I', role_name);
	EXECUTE (SELECT format('GRANT INSERT, UPDATE, DELETE ON %s TO %I', string_agg(t::text, ', '), role_name)
		FROM cs_internal.definition_tables() t);
	EXECUTE format('GRANT EXECUTE ON ALL ROUTINES IN SCHEMA cs TO %I', role_name);
END $$;
COMMENT ON FUNCTION cs_internal.grant_definer(text) IS 'Gives a role what policy.run_as has.';

CREATE FUNCTION cs_internal.revoke_definer(role_name text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA cs FROM %I', role_name);
	EXECUTE format('REVOKE ALL ON ALL ROUTINES IN SCHEMA cs FROM %I', role_name);
	EXECUTE format('REVOKE ALL ON SCHEMA cs FROM %I', role_name);
END $$;
COMMENT ON FUNCTION cs_internal.revoke_definer(text) IS 'Takes back what policy.run_as had.';

-- Who reads: the views and the functions that answer, nothing that acts.
CREATE FUNCTION cs_internal.grant_reader(role_name text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	IF NOT EXISTS (SELECT 1 FROM pg_roles r WHERE r.rolname = role_name) THEN
		RAISE EXCEPTION 'role "%" does not exist', role_name USING ERRCODE = 'undefined_object';
	END IF;
	EXECUTE format('GRANT USAGE ON SCHEMA cs TO %I', role_name);
	EXECUTE (SELECT format('GRANT SELECT ON %s TO %I', string_agg(c.oid::regclass::text, ', '), role_name)
		FROM pg_class c WHERE c.relnamespace = 'cs'::regnamespace AND c.relkind = 'v');
	EXECUTE (SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I', string_agg(p.oid::regprocedure::text, ', '), role_name)
		FROM pg_proc p
		WHERE p.pronamespace = 'cs'::regnamespace AND p.prokind IN ('f', 'a') AND p.provolatile <> 'v');
END $$;
COMMENT ON FUNCTION cs_internal.grant_reader(text) IS 'See cs.grant_reader.';

CREATE FUNCTION cs.grant_reader(role_name text) RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.grant_reader(text) IS
'Lets a role read: USAGE on schema cs, SELECT on its views, EXECUTE on its reading functions. Raises for an unknown role.';

-- Who works with customers: reads, and acts on alerts, segments and health.
CREATE FUNCTION cs_internal.grant_csm(role_name text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cs_internal.grant_reader(role_name);
	EXECUTE (SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I', string_agg(p.oid::regprocedure::text, ', '), role_name)
		FROM pg_proc p
		WHERE p.pronamespace = 'cs'::regnamespace AND p.proname IN ('alert_changes', 'poll', 'ack', 'ack_alert', 'assign_alert', 'snooze_alert',
			'unsnooze_alert', 'resolve_alert', 'dismiss_alert', 'assign_segment', 'override_health', 'refresh_customer', 'set_root_cause'));
END $$;
COMMENT ON FUNCTION cs_internal.grant_csm(text) IS 'See cs.grant_csm.';

CREATE FUNCTION cs.grant_csm(role_name text) RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.grant_csm(text) IS
'Lets a role read and act on customers: what cs.grant_reader() gives, the functions that change alerts, alert_changes(), poll(), ack(), assign_segment(), override_health(), refresh_customer() and set_root_cause(). Raises for an unknown role.';

CREATE FUNCTION cs_internal.grant_admin(role_name text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	run_as text := (SELECT p.run_as FROM cs.policy p);
BEGIN
	IF run_as IS NULL THEN
		RAISE EXCEPTION 'cs_ext is not set up in this database' USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Run cs.setup() first.';
	END IF;
	IF NOT EXISTS (SELECT 1 FROM pg_roles r WHERE r.rolname = role_name) THEN
		RAISE EXCEPTION 'role "%" does not exist', role_name USING ERRCODE = 'undefined_object';
	END IF;
	-- functions that came with an update of the extension; a script of its own must
	-- not grant, or pg_dump would take the right for one that comes by itself
	PERFORM cs_internal.grant_definer(run_as);
	IF role_name <> run_as THEN
		EXECUTE format('GRANT %I TO %I', run_as, role_name);
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.grant_admin(text) IS 'See cs.grant_admin.';

CREATE FUNCTION cs.grant_admin(role_name text) RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.grant_admin(text) IS
'Makes a role a member of policy.run_as: it may write definitions and run every function of schema cs. Called with run_as itself it only gives that role its rights on schema cs again, after an update of the extension.';

REVOKE ALL ON SCHEMA cs, cs_internal FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA cs, cs_internal FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA cs, cs_internal FROM PUBLIC;
