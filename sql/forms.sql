
-- ---------------------------------------------------------------------------
-- forms: public functions take a customer as text, bigint or uuid, and an
-- instant (at, as_of) as timestamptz, timestamp, date or text; the last three
-- are read in the policy's zone. Only the timestamptz form has a default, so
-- that a literal resolves to text and not to the session's zone. The forms are
-- made here from the one gate that is written out; the gate converts.
-- ---------------------------------------------------------------------------

DO $forms$
DECLARE
	f record;
	c text;
	t text;
	signature text;
	result text;
BEGIN
	FOR f IN
		SELECT p.oid, p.proname, obj_description(p.oid) AS comment,
			pg_get_function_arguments(p.oid) AS args, pg_get_function_result(p.oid) AS result, p.provolatile,
			pg_get_function_arguments(p.oid) ~ '^customer(_id)? text' AS by_customer,
			pg_get_function_arguments(p.oid) ~ '\m(at|as_of) timestamp with time zone' AS by_instant
		FROM pg_proc p
		WHERE p.pronamespace = 'cs'::regnamespace AND p.prosrc = 'cs_gate'
			AND (SELECT count(*) FROM pg_proc q WHERE q.pronamespace = p.pronamespace AND q.proname = p.proname) = 1
			AND pg_get_function_arguments(p.oid) ~ '(^customer(_id)? text|\m(at|as_of) timestamp with time zone)'
		ORDER BY p.proname
	LOOP
		FOR c IN SELECT unnest(CASE WHEN f.by_customer THEN '{text,bigint,uuid}'::text[] ELSE '{text}' END) LOOP
			FOR t IN SELECT unnest(CASE WHEN f.by_instant THEN '{timestamptz,timestamp,date,text}'::text[] ELSE '{timestamptz}' END) LOOP
				CONTINUE WHEN c = 'text' AND t = 'timestamptz';
				signature := f.args;
				IF f.by_customer THEN
					signature := regexp_replace(signature, '^(customer(?:_id)?) text', '\1 ' || c);
				END IF;
				IF f.by_instant AND t <> 'timestamptz' THEN
					-- No default for this form, and so none before it.
					signature := regexp_replace(signature, '\m(at|as_of) timestamp with time zone(?: DEFAULT [^,]+)?', '\1 ' || t);
					signature := regexp_replace(substring(signature FROM '^.*\m(?:at|as_of) [a-z]+'), ' DEFAULT [^,]+', '', 'g')
						|| coalesce(substring(signature FROM '^.*\m(?:at|as_of) [a-z]+(.*)$'), '');
				END IF;
				EXECUTE format('CREATE FUNCTION cs.%I(%s) RETURNS %s LANGUAGE c %s AS ''MODULE_PATHNAME'', ''cs_gate''',
					f.proname, signature, f.result,
					CASE f.provolatile WHEN 's' THEN 'STABLE' WHEN 'v' THEN 'VOLATILE' ELSE 'IMMUTABLE' END);
				EXECUTE format('COMMENT ON FUNCTION cs.%I(%s) IS %L', f.proname,
					regexp_replace(signature, ' DEFAULT [^,]+', '', 'g'), f.comment);
			END LOOP;
		END LOOP;
	END LOOP;
END $forms$;
