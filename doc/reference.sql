-- reference.sql: prints doc/reference.md from the comments in the catalog.
--   psql -XAtq -d DATABASE_WITH_CS_EXT -f doc/reference.sql > doc/reference.md
\pset tuples_only on
\pset format unaligned
\echo '# Reference'
\echo
\echo 'Made from the comments in the catalog by `doc/reference.sql`. Functions without an argument for the instant'
\echo 'use now (setting `cs_ext.now`); each instant may also be given as `date`, `timestamp` or text, read in the policy''s zone.'
\echo
\echo '## Functions and procedures'
\echo
\echo '| name | arguments | what it does |'
\echo '|---|---|---|'
-- One line a name: the form with the most general instant stands for its overloads.
SELECT format('| `%s` | %s | %s |', name, arguments, replace(comment, E'\n', ' '))
FROM (
	SELECT DISTINCT ON (p.proname) p.proname AS name, coalesce(obj_description(p.oid, 'pg_proc'), '') AS comment,
		replace(coalesce(nullif(pg_get_function_arguments(p.oid), ''), ' '), '|', '\|') AS arguments
	FROM pg_proc p, pg_depend d, pg_extension e
	WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
		AND e.extname = 'cs_ext' AND p.pronamespace = 'cs'::regnamespace
		AND NOT EXISTS (SELECT FROM pg_operator o WHERE o.oprcode = p.oid) AND 'internal'::regtype <> ALL (p.proargtypes)
		AND 'cstring'::regtype <> ALL (p.proargtypes) AND p.prorettype NOT IN ('cstring'::regtype, 'internal'::regtype)
	ORDER BY p.proname, ('bpchar'::regtype = ANY (p.proargtypes)), ('timestamptz'::regtype = ANY (p.proargtypes)) DESC, ('text'::regtype = ANY (p.proargtypes)) DESC, p.oid
) f ORDER BY name;
\echo
\echo '## Views'
SELECT E'\n### ' || c.relname || E'\n\n' || coalesce(obj_description(c.oid, 'pg_class'), '') || E'\n\n| column | type | meaning |\n|---|---|---|\n'
	|| string_agg(format('| `%s` | %s | %s |', a.attname, format_type(a.atttypid, a.atttypmod), replace(coalesce(col_description(c.oid, a.attnum), ''), E'\n', ' ')), E'\n' ORDER BY a.attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'cs'::regnamespace AND c.relkind = 'v'
GROUP BY c.oid, c.relname ORDER BY c.relname;
\echo
\echo '## Definition tables'
\echo
\echo 'Written with plain INSERT, UPDATE and DELETE by members of `policy.run_as`; checked when written.'
SELECT E'\n### ' || c.relname || E'\n\n' || coalesce(obj_description(c.oid, 'pg_class'), '') || E'\n\n| column | type | default | meaning |\n|---|---|---|---|\n'
	|| string_agg(format('| `%s` | %s | %s | %s |', a.attname, format_type(a.atttypid, a.atttypmod),
		coalesce('`' || regexp_replace(pg_get_expr(d.adbin, d.adrelid), '::[a-z ]+$', '') || '`', ''), replace(coalesce(col_description(c.oid, a.attnum), ''), E'\n', ' ')), E'\n' ORDER BY a.attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'cs'::regnamespace AND c.relkind = 'r'
GROUP BY c.oid, c.relname ORDER BY c.relname;
\echo
\echo '## Settings'
\echo
\echo '| setting | default | meaning |'
\echo '|---|---|---|'
LOAD 'cs_ext';
SELECT format('| `%s` | %s | %s |', name, coalesce('`' || nullif(boot_val, '') || '`', 'empty'), concat_ws(' ', short_desc, extra_desc))
FROM pg_settings WHERE name LIKE 'cs\_ext.%' ORDER BY name;
