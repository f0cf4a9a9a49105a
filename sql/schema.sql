\echo Use "CREATE EXTENSION cs_ext" to load this file. \quit
SET LOCAL search_path TO pg_catalog, pg_temp;

-- ---------------------------------------------------------------------------
-- schema: the two schemas and what everything below stands on.
--   cs           what people use: functions, definition tables, views
--   cs_internal  state and the implementations behind the gates; nobody has
--                USAGE on it but the owner
-- ---------------------------------------------------------------------------

CREATE SCHEMA cs;
CREATE SCHEMA cs_internal;
COMMENT ON SCHEMA cs IS 'cs_ext: customer success. Functions, definition tables and views.';
COMMENT ON SCHEMA cs_internal IS 'cs_ext: state and implementation. Not an interface.';

-- A public function is a gate: cs.f(args) runs cs_internal.f(args), found by
-- name and argument types, as the owner, with pinned search_path and settings.
-- Every gate is CREATE FUNCTION cs.f(...) ... AS 'MODULE_PATHNAME', 'cs_gate'.

CREATE FUNCTION cs_internal.now() RETURNS timestamptz
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_now_sql';
COMMENT ON FUNCTION cs_internal.now() IS
'The instant that refresh and every as_of default use: cs_ext.now, else the clock; never before the last evaluated instant.';

CREATE FUNCTION cs_internal.nearest(word text, candidates text[]) RETURNS text
LANGUAGE c IMMUTABLE AS 'MODULE_PATHNAME', 'cs_nearest_sql';
COMMENT ON FUNCTION cs_internal.nearest(text, text[]) IS
'The candidate nearest to the word by edit distance; NULL when none is near.';

-- AFTER ROW trigger of every definition table: checks that the writer is a
-- member of policy.run_as, calls cs_internal.check_<table>(new jsonb, old jsonb)
-- as the owner, keeps definition_history, marks all customers for evaluation.
-- While check_function_bodies is off (restore) it does nothing.
CREATE FUNCTION cs_internal.definition_trigger() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'cs_definition_trigger';
COMMENT ON FUNCTION cs_internal.definition_trigger() IS
'Validates, keeps history of and announces a change of a definition table.';

-- What a foreign key does between definition tables, in two triggers: pg_restore
-- -j loads tables beside each other, and a foreign key would lose the one whose
-- rows come first. While a superuser has check_function_bodies off (restore)
-- they do nothing. They fire before the definition trigger, by their names, and
-- run as the writer, who has rights on both tables.
CREATE FUNCTION cs_internal.belongs() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	wanted text := to_jsonb(NEW) ->> TG_ARGV[1];
	found_one boolean;
BEGIN
	IF NOT current_setting('check_function_bodies')::boolean AND current_setting('is_superuser')::boolean THEN
		RETURN NULL;
	END IF;
	EXECUTE format('SELECT true FROM cs.%I p WHERE p.name = $1 FOR KEY SHARE', TG_ARGV[0]) INTO found_one USING wanted;
	IF found_one IS NULL THEN
		RAISE EXCEPTION 'insert or update on table "%" violates foreign key constraint "%"', TG_TABLE_NAME, format('%s_%s_fkey', TG_TABLE_NAME, TG_ARGV[1])
			USING ERRCODE = 'foreign_key_violation', DETAIL = format('Key (%s)=(%s) is not present in table "%s".', TG_ARGV[1], wanted, TG_ARGV[0]);
	END IF;
	RETURN NULL;
END $$;
COMMENT ON FUNCTION cs_internal.belongs() IS 'Trigger of a definition table: its column (second argument) names a row of another (first argument).';

CREATE FUNCTION cs_internal.belongings() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'DELETE' THEN
		EXECUTE format('DELETE FROM cs.%I c WHERE c.%I = $1', TG_ARGV[0], TG_ARGV[1]) USING OLD.name;
	ELSIF NEW.name <> OLD.name THEN
		EXECUTE format('UPDATE cs.%I c SET %2$I = $2 WHERE c.%2$I = $1', TG_ARGV[0], TG_ARGV[1]) USING OLD.name, NEW.name;
	END IF;
	RETURN NULL;
END $$;
COMMENT ON FUNCTION cs_internal.belongings() IS 'Trigger of a definition table: what names its rows, in the table and column of the arguments, goes and is renamed with them.';

CREATE TABLE cs_internal.definition_history (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	at timestamptz NOT NULL,
	actor text NOT NULL,
	table_name text NOT NULL,
	key text NOT NULL,
	cause text NOT NULL,
	old_row jsonb,
	new_row jsonb
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.definition_history', '');
SELECT pg_catalog.pg_extension_config_dump('cs_internal.definition_history_id_seq', '');

CREATE TABLE cs_internal.definition_status (
	table_name text NOT NULL,
	key text NOT NULL,
	status text NOT NULL,          -- ok, failing, held
	sqlstate text,
	error text,
	customers bigint,              -- how many customers it failed for
	example text,                  -- one of them
	since timestamptz NOT NULL,
	PRIMARY KEY (table_name, key)
);

CREATE FUNCTION cs_internal.caller() RETURNS text
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_caller_sql';
COMMENT ON FUNCTION cs_internal.caller() IS 'Name of the role that called the outermost gate.';

-- A row here holds the scheduler and all that goes out; written by a restore,
-- removed by cs.release_hold(). Not dumped.
CREATE TABLE cs_internal.hold (
	id boolean PRIMARY KEY DEFAULT true CHECK (id),
	reason text NOT NULL,
	since timestamptz NOT NULL
);
