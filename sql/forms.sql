
-- ---------------------------------------------------------------------------
-- forms: public functions take a customer as text, bigint or uuid, and an
-- instant as timestamptz, timestamp, date or text; the last three are read in
-- the policy's zone. The one gate that is written out gets its other forms
-- here, and the gate converts (src/core/gate.c). A function that has several
-- gates already has its forms.
--
-- Only the timestamptz form of an instant has a default, so that a literal
-- resolves to text and is not read in the session's zone. No argument before a
-- form's own can have a default then. Where that is wanted (churn), the gate is
-- written out with as_of text and all defaults; its other forms take bpchar in
-- place of text, which ranks below text in every resolution, so that a call
-- without as_of, or with a literal, finds the text form and a typed as_of its own.
-- ---------------------------------------------------------------------------

DO $forms$
DECLARE
	f record;
	customer text;
	instant text;
	signature text;
	identity text;
BEGIN
	FOR f IN
		SELECT g.*, g.names && '{customer,customer_id}'::text[] AS by_customer, behind IS NOT NULL AS behind_defaults,
			EXISTS (SELECT FROM unnest(g.names, g.types) a (name, type)
				WHERE a.name IN ('at', 'as_of', 'since', 'until', 'before', 'expires_at') AND a.type = 'timestamptz') AS by_instant
		FROM (SELECT p.oid, p.proname, p.pronargs, obj_description(p.oid) AS comment, pg_get_function_result(p.oid) AS result,
				CASE p.provolatile WHEN 's' THEN 'STABLE' WHEN 'v' THEN 'VOLATILE' ELSE 'IMMUTABLE' END AS volatility,
				p.proargnames[1:p.pronargs] AS names,
				ARRAY(SELECT CASE t WHEN 'timestamptz'::regtype THEN 'timestamptz' ELSE format_type(t, NULL) END
					FROM unnest(p.proargtypes) WITH ORDINALITY u (t, n) ORDER BY n) AS types,
				(SELECT string_agg(format(', OUT %I %s', a.name, format_type(a.type, NULL)), '' ORDER BY a.n)
					FROM unnest(p.proargnames, p.proallargtypes, p.proargmodes) WITH ORDINALITY a (name, type, mode, n)
					WHERE a.mode = 'o') AS outs
			FROM pg_proc p
			WHERE p.pronamespace = 'cs'::regnamespace AND p.prosrc = 'cs_gate'
				AND (SELECT count(*) FROM pg_proc q WHERE q.pronamespace = p.pronamespace AND q.proname = p.proname) = 1) g
		LEFT JOIN LATERAL (SELECT n AS behind FROM unnest(g.names, g.types) WITH ORDINALITY a (name, type, n)
			WHERE a.name = 'as_of' AND a.type = 'text') b ON true
		ORDER BY g.proname
	LOOP
		FOR customer IN SELECT unnest(CASE WHEN f.by_customer THEN '{text,bigint,uuid}' ELSE '{text}' END::text[]) LOOP
			FOR instant IN SELECT unnest(CASE WHEN f.behind_defaults THEN '{text,timestamptz,timestamp,date}'
				WHEN f.by_instant THEN '{timestamptz,timestamp,date,text}' ELSE '{timestamptz}' END::text[])
			LOOP
				SELECT string_agg(format('%I %s%s', a.name, a.type,
						CASE WHEN f.behind_defaults OR a.n > max_changed THEN ' DEFAULT ' || regexp_replace(pg_get_function_arg_default(f.oid, a.n::integer), '^NULL::.*$', 'NULL') END),
						', ' ORDER BY a.n),
					string_agg(a.type, ', ' ORDER BY a.n)
				INTO signature, identity
				FROM (
					SELECT b.*, coalesce(max(b.n) FILTER (WHERE b.type <> b.was) OVER (), 0) AS max_changed
					FROM (
						SELECT u.name, u.type AS was, u.n, CASE
							WHEN u.name IN ('customer', 'customer_id') AND u.type = 'text' THEN customer
							WHEN u.name IN ('at', 'as_of', 'since', 'until', 'before', 'expires_at') AND u.type = 'timestamptz' THEN instant
							WHEN f.behind_defaults AND u.name = 'as_of' THEN instant
							WHEN f.behind_defaults AND instant <> 'text' AND u.type = 'text' THEN 'bpchar'
							ELSE u.type END AS type
						FROM unnest(f.names, f.types) WITH ORDINALITY u (name, type, n)) b) a;
				CONTINUE WHEN identity IS NULL OR identity = array_to_string(f.types, ', ');
				EXECUTE format('CREATE FUNCTION cs.%I(%s%s) RETURNS %s LANGUAGE c %s AS ''MODULE_PATHNAME'', ''cs_gate''',
					f.proname, signature, f.outs, f.result, f.volatility);
				EXECUTE format('COMMENT ON FUNCTION cs.%I(%s) IS %L', f.proname, identity, f.comment);
			END LOOP;
		END LOOP;
	END LOOP;
END $forms$;
