-- What holds for every object of the extension, whoever wrote it.
BEGIN;
SELECT * FROM no_plan();

CREATE TEMP VIEW member AS
SELECT d.classid, d.objid FROM pg_depend d, pg_extension e
WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'cs_ext' AND d.deptype = 'e';
CREATE TEMP VIEW func AS
SELECT p.*, p.oid::regprocedure::text AS signature FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid;
CREATE TEMP VIEW rel AS
SELECT c.*, c.oid::regclass::text AS name FROM pg_class c JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid;

-- Each row names what breaks the rule.
SELECT is_empty($$SELECT signature FROM func WHERE pronamespace = 'cs'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL ORDER BY 1$$,
	'every public function has a comment');
SELECT is_empty($$SELECT name FROM rel WHERE relnamespace = 'cs'::regnamespace AND relkind IN ('r', 'v', 'p', 'm') AND obj_description(oid, 'pg_class') IS NULL ORDER BY 1$$,
	'every public table and view has a comment');
SELECT is_empty($$SELECT name || '.' || attname FROM rel JOIN pg_attribute a ON a.attrelid = rel.oid AND attnum > 0 AND NOT attisdropped
	WHERE relnamespace = 'cs'::regnamespace AND relkind IN ('r', 'v', 'p', 'm') AND col_description(rel.oid, attnum) IS NULL ORDER BY 1$$,
	'every column of them has a comment');
SELECT is_empty($$SELECT t.typname FROM pg_type t JOIN member m ON m.classid = 'pg_type'::regclass AND m.objid = t.oid
	WHERE typnamespace = 'cs'::regnamespace AND typtype = 'b' AND typelem = 0 AND obj_description(t.oid, 'pg_type') IS NULL$$,
	'every type has a comment');

SELECT is_empty($$SELECT signature FROM func WHERE proacl IS NULL AND prorettype <> 'trigger'::regtype
	OR EXISTS (SELECT FROM aclexplode(proacl) WHERE grantee = 0) AND pronamespace = 'cs_internal'::regnamespace ORDER BY 1$$,
	'no internal function may be called by everybody');
SELECT is_empty($$SELECT name, privilege_type FROM rel, aclexplode(relacl) WHERE grantee = 0 ORDER BY 1$$, 'no relation is open to everybody');
SELECT is_empty($$SELECT nspname FROM pg_namespace, aclexplode(nspacl) WHERE nspname IN ('cs', 'cs_internal') AND grantee = 0$$, 'nor a schema');
SELECT is_empty($$SELECT signature FROM func WHERE prosecdef ORDER BY 1$$, 'no function is SECURITY DEFINER: gates change the user themselves');
SELECT is_empty($$SELECT name FROM rel WHERE relkind = 'v' AND relnamespace = 'cs'::regnamespace AND NOT coalesce(reloptions::text ~ 'security_barrier=(true|on|1)|security_barrier[,}]', false) ORDER BY 1$$,
	'every public view is a security barrier');
SELECT is_empty($$SELECT name || '.' || attname FROM rel JOIN pg_attribute a ON a.attrelid = rel.oid AND attnum > 0 AND NOT attisdropped
	WHERE relnamespace = 'cs'::regnamespace AND relkind = 'v' AND atttypid = 'numeric'::regtype AND atttypmod = -1 ORDER BY 1$$,
	'numeric columns of public views have a precision');
SELECT is_empty($$SELECT signature FROM func WHERE pronamespace = 'cs'::regnamespace AND prosrc = 'cs_gate'
	AND NOT EXISTS (SELECT FROM func i WHERE i.pronamespace = 'cs_internal'::regnamespace AND i.proname = func.proname AND i.pronargs = func.pronargs
		AND NOT EXISTS (SELECT FROM unnest(func.proargtypes::oid[], i.proargtypes::oid[]) a (given, inside)
			WHERE NOT (given = inside OR inside = 'text'::regtype AND given IN ('bigint'::regtype, 'uuid'::regtype, 'bpchar'::regtype)
				OR inside = 'timestamptz'::regtype AND given IN ('timestamp'::regtype, 'date'::regtype, 'text'::regtype)))) ORDER BY 1$$,
	'every gate leads somewhere, a form of it to the one it is a form of');
SELECT is_empty($$SELECT g.signature FROM func g JOIN func i ON i.pronamespace = 'cs_internal'::regnamespace AND i.proname = g.proname AND i.proargtypes = g.proargtypes
	WHERE g.pronamespace = 'cs'::regnamespace AND g.prosrc = 'cs_gate'
	-- a procedure stands before a function
	AND (g.prorettype, g.proretset, replace(g.prokind::text, 'p', 'f'), g.proallargtypes) IS DISTINCT FROM (i.prorettype, i.proretset, i.prokind::text, i.proallargtypes) ORDER BY 1$$,
	'and returns what the function behind it returns');

-- The install script puts no row into a table that pg_dump carries: a restore would meet it again.
CREATE FUNCTION pg_temp.rows_of(t text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
	EXECUTE 'SELECT count(*) FROM ' || t INTO n;
	RETURN n;
END $$;
SELECT is(pg_temp.rows_of(c.oid::regclass::text), 0::bigint, c.oid::regclass || ' is empty after CREATE EXTENSION')
FROM pg_class c, pg_extension e WHERE e.extname = 'cs_ext' AND c.oid = ANY (e.extconfig) AND c.relkind = 'r' ORDER BY c.oid::regclass::text;
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class c, pg_extension e, pg_depend d
	WHERE e.extname = 'cs_ext' AND c.oid = ANY (e.extconfig) AND c.relkind = 'r' AND d.refobjid = c.oid AND d.classid = 'pg_class'::regclass
	AND d.deptype IN ('a', 'i') AND (SELECT relkind FROM pg_class WHERE oid = d.objid) = 'S' AND d.objid <> ALL (e.extconfig)$$,
	'the sequence of a dumped table is dumped with it');

-- What asks before it is set up is told what to do.
SELECT throws_like($$SELECT cs.churn_rate('2025-01')$$, '%not set up%', 'before setup() a reading function says so');
SELECT * FROM finish();
ROLLBACK;
