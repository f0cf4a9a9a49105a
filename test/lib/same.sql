-- same.sql: bag_eq for queries whose columns have no names of their own
CREATE FUNCTION pg_temp.same(have text, want text, name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	extra text; missing text;
BEGIN
	EXECUTE format('SELECT x::text FROM ((%s) EXCEPT ALL (%s)) AS x LIMIT 1', have, want) INTO extra;
	EXECUTE format('SELECT x::text FROM ((%s) EXCEPT ALL (%s)) AS x LIMIT 1', want, have) INTO missing;
	RETURN ok(extra IS NULL AND missing IS NULL, name)
		|| CASE WHEN extra IS NULL AND missing IS NULL THEN '' ELSE E'\n' || diag(format('have %s', extra), format(', want %s', missing)) END;
END $$;
