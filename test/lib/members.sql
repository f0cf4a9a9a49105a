-- members.sql: what the extension consists of, one member a line: what a version
-- adds or takes away is seen in the difference to the list of the one before.
-- Views and tables with their columns, functions with their arguments and result.
--   psql -XAtq -d DATABASE_WITH_CS_EXT -f test/lib/members.sql > test/members/VERSION.txt
SELECT m FROM (
	SELECT pg_describe_object(d.classid, d.objid, 0)
		|| coalesce(' (' || (SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
			FROM pg_attribute a WHERE d.classid = 'pg_class'::regclass AND a.attrelid = d.objid AND a.attnum > 0 AND NOT a.attisdropped) || ')', '')
		|| coalesce(' -> ' || (SELECT pg_get_function_result(p.oid) FROM pg_proc p WHERE d.classid = 'pg_proc'::regclass AND p.oid = d.objid), '') AS m
	FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'cs_ext'
	WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
		-- from PostgreSQL 17 on the row type of a table, and arrays of types, are members too
		AND NOT EXISTS (SELECT FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid WHERE d.classid = 'pg_type'::regclass AND t.oid = d.objid
			AND (c.relkind <> 'c' OR EXISTS (SELECT FROM pg_type element WHERE element.typarray = t.oid)))) x
ORDER BY m COLLATE "C";
