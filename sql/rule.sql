
-- ---------------------------------------------------------------------------
-- rule: SQL conditions over a customer's state, and the one namespace they see.
-- ---------------------------------------------------------------------------

CREATE FUNCTION cs_internal.check_rule(expression text, search_path text, type text, what text) RETURNS text[]
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_check_rule_sql';
COMMENT ON FUNCTION cs_internal.check_rule(text, text, text, text) IS
'Refuses, naming what, an expression over state that does not parse, writes, is volatile, is not of the type (boolean or text) or names something unknown. Returns the names it uses.';

CREATE FUNCTION cs_internal.rule_names(expression text) RETURNS text[]
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_rule_names_sql';
COMMENT ON FUNCTION cs_internal.rule_names(text) IS
'Names that an expression over state uses, the metrics of ago() among them; none for NULL or what does not parse.';

-- One namespace: a metric, a dimension and a column of state never share a name.
CREATE FUNCTION cs_internal.check_rule_name(kind text, name text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	taken text;
BEGIN
	IF name !~ '^[a-z][a-z0-9_]*$' OR length(name) > 63 THEN
		RAISE EXCEPTION 'the name of a % must match [a-z][a-z0-9_]*, not "%"', kind, name
			USING ERRCODE = 'invalid_name', HINT = 'Rules use it as a column name.';
	END IF;
	taken := CASE
		WHEN kind <> 'metric' AND EXISTS (SELECT 1 FROM cs.metric m WHERE m.name = check_rule_name.name) THEN 'a metric'
		WHEN kind <> 'dimension' AND EXISTS (SELECT 1 FROM cs.dimension d WHERE d.name = check_rule_name.name) THEN 'a dimension'
		WHEN name = ANY (cs_internal.state_columns()) THEN 'a column of state'
		WHEN kind <> 'metric' AND name IN ('mrr', 'seats', 'tenure_days', 'days_to_renewal') THEN 'a column of the ledger'
		END;
	IF taken IS NOT NULL THEN
		RAISE EXCEPTION 'the name "%" is taken by %', name, taken USING ERRCODE = 'duplicate_object',
			HINT = format('Metrics, dimensions and columns of state share one namespace in rules: give the %s another name.', kind);
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.check_rule_name(text, text) IS
'Refuses a name for a metric or dimension that is no identifier or means something else in rules already.';
