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
