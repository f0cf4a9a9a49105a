
-- ---------------------------------------------------------------------------
-- metric: a number per customer at an instant, written as SQL.
-- ---------------------------------------------------------------------------

CREATE TABLE cs.metric (
	name text PRIMARY KEY,
	source text NOT NULL,
	expression text NOT NULL,
	unit text NOT NULL DEFAULT 'number',
	better text NOT NULL DEFAULT 'high',
	lookback_days integer,
	max_lag interval,
	enabled boolean NOT NULL DEFAULT true,
	description text,
	search_path text NOT NULL DEFAULT pg_catalog.current_setting('search_path')
);
SELECT pg_catalog.pg_extension_config_dump('cs.metric', '');

-- Decided: which element of the values array a metric has, for its life.
CREATE TABLE cs_internal.metric_slot (
	metric text PRIMARY KEY,
	slot integer NOT NULL UNIQUE
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.metric_slot', '');

-- Decided: values as they were known at each local midnight.
CREATE TABLE cs_internal.metric_history (
	customer_id text COLLATE "C" NOT NULL,
	as_of timestamptz NOT NULL,
	"values" float8[] NOT NULL,
	segments jsonb NOT NULL,
	health_inputs jsonb,                 -- as in cs_internal.state
	computed_at timestamptz NOT NULL,
	PRIMARY KEY (customer_id, as_of)
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.metric_history', '');

COMMENT ON TABLE cs.metric IS 'One row a metric: a number per customer at an instant, written as SQL. A change is checked, kept in definition_history, and evaluated for every customer at the next refresh.';
COMMENT ON COLUMN cs.metric.name IS 'Name, [a-z][a-z0-9_]*; it is also the column that rules and formulas use.';
COMMENT ON COLUMN cs.metric.source IS 'What the expression reads: usage, ledger, formula (other metrics), a kind of fact (all its sources united), or the name of a source of kind other.';
COMMENT ON COLUMN cs.metric.expression IS 'SQL expression; over facts an aggregate. as_of (timestamptz) and as_of_day (date) are constants in it. The result must be a number or a boolean.';
COMMENT ON COLUMN cs.metric.unit IS 'number, count, share, days, money, points or flag.';
COMMENT ON COLUMN cs.metric.better IS 'high or low: which direction is good.';
COMMENT ON COLUMN cs.metric.lookback_days IS 'How far back the expression looks, for people; NULL: not stated.';
COMMENT ON COLUMN cs.metric.max_lag IS 'When the newest row of the source is older than this, the value is NULL; NULL: no limit.';
COMMENT ON COLUMN cs.metric.enabled IS 'Whether it is computed.';
COMMENT ON COLUMN cs.metric.description IS 'Free text.';
COMMENT ON COLUMN cs.metric.search_path IS 'search_path of who wrote the row; the expression runs with it.';

-- What an expression may give: a number, or a boolean as 0 or 1. Anything else
-- does not resolve here and is refused when the metric is written.
CREATE FUNCTION cs.as_value(value float8) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN value;
COMMENT ON FUNCTION cs.as_value(float8) IS 'A metric''s value from a number. NULL stays NULL.';
CREATE FUNCTION cs.as_value(value boolean) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN value::int::float8;
COMMENT ON FUNCTION cs.as_value(boolean) IS 'A metric''s value from a boolean: 1 or 0. NULL stays NULL.';

CREATE FUNCTION cs_internal.analyse_metric(name text, source text, expression text, search_path text) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_analyse_metric';
COMMENT ON FUNCTION cs_internal.analyse_metric(text, text, text, text) IS
'Raises what is wrong with a metric''s expression, naming the metric.';

-- Names that rules see beside metrics.
CREATE FUNCTION cs_internal.state_columns() RETURNS text[]
LANGUAGE sql IMMUTABLE AS $$
	SELECT '{customer_id,name,owner,parent_id,created_at,attributes,health,health_score,band,coverage,active,in_trial,as_of,as_of_day,usage}'::text[]
$$;
COMMENT ON FUNCTION cs_internal.state_columns() IS 'Names that a metric or dimension must not take.';

CREATE FUNCTION cs_internal.check_metric(new jsonb, old jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	n cs.metric := jsonb_populate_record(NULL::cs.metric, new);
	o cs.metric := jsonb_populate_record(NULL::cs.metric, old);
	users text;
BEGIN
	IF old IS NOT NULL AND (new IS NULL OR n.name <> o.name) THEN
		SELECT string_agg(u, ', ') INTO users FROM (
			SELECT format('measure "%s" of scorecard "%s"', m.name, m.scorecard) u FROM cs.measure m WHERE m.metric = o.name
			UNION ALL
			SELECT format('cap "%s" of scorecard "%s"', k.rule, k.scorecard) FROM cs.cap k WHERE o.name = ANY (cs_internal.rule_names(k.rule))
			UNION ALL
			SELECT format('metric "%s"', m.name) FROM cs.metric m
				WHERE m.source = 'formula' AND m.name <> o.name AND o.name = ANY (cs_internal.expression_names(m.expression))
			UNION ALL
			SELECT format('segment "%s" of dimension "%s"', s.name, s.dimension) FROM cs.segment s
				WHERE o.name = ANY (cs_internal.expression_names(s.rule))
			UNION ALL
			SELECT format('alert rule "%s"', r.name) FROM cs.alert_rule r
				WHERE r.source IS NULL AND o.name = ANY (cs_internal.expression_names(concat_ws(' AND ', r.rule, r.clear_rule)))
			ORDER BY 1) x;
		IF users IS NOT NULL THEN
			RAISE EXCEPTION 'metric "%" is in use', o.name USING ERRCODE = 'dependent_objects_still_exist',
				DETAIL = format('It is used by: %s.', users), HINT = 'Change or delete those first.';
		END IF;
		IF new IS NULL THEN
			RETURN;
		END IF;
		DELETE FROM cs_internal.metric_slot s WHERE s.metric = n.name;
		UPDATE cs_internal.metric_slot s SET metric = n.name WHERE s.metric = o.name;
	END IF;

	IF n.name !~ '^[a-z][a-z0-9_]{0,62}$' THEN
		RAISE EXCEPTION 'metric name "%" is not of the form [a-z][a-z0-9_]*', n.name USING ERRCODE = 'invalid_name',
			HINT = 'Use small letters, digits and underscores, for example tickets_30d.';
	END IF;
	IF n.name = ANY (cs_internal.state_columns()) OR EXISTS (SELECT 1 FROM cs.dimension d WHERE d.name = n.name) THEN
		RAISE EXCEPTION 'metric "%" has the name of a column that rules see', n.name USING ERRCODE = 'duplicate_column',
			HINT = 'Metrics, dimensions and state columns share one namespace; choose another name.';
	END IF;
	PERFORM cs_internal.must_be_word('unit', n.unit, '{number,count,share,days,money,points,flag}');
	PERFORM cs_internal.must_be_word('value of better', n.better, '{high,low}');
	IF n.lookback_days < 0 OR n.max_lag < '0' THEN
		RAISE EXCEPTION 'lookback_days and max_lag of metric "%" must not be negative', n.name USING ERRCODE = 'invalid_parameter_value';
	END IF;
	PERFORM cs_internal.analyse_metric(n.name, n.source, n.expression, n.search_path);
	-- A deleted metric keeps its slot: history still has its values there.
	INSERT INTO cs_internal.metric_slot (metric, slot)
		SELECT n.name, coalesce(max(s.slot), 0) + 1 FROM cs_internal.metric_slot s
		ON CONFLICT (metric) DO NOTHING;
END $$;
COMMENT ON FUNCTION cs_internal.check_metric(jsonb, jsonb) IS 'Refuses what cs.metric must not hold, gives a new metric its slot; called by the definition trigger.';

CREATE FUNCTION cs_internal.expression_names(expression text) RETURNS text[]
LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'cs_expression_names_sql';
COMMENT ON FUNCTION cs_internal.expression_names(text) IS 'Unqualified column names in an expression, without looking at any table.';

CREATE TRIGGER definition AFTER INSERT OR UPDATE OR DELETE ON cs.metric
	FOR EACH ROW EXECUTE FUNCTION cs_internal.definition_trigger();

CREATE VIEW cs.customer_metric WITH (security_barrier) AS
SELECT s.customer_id::text AS customer_id, m.name AS metric, s."values"[t.slot] AS value,
	s.as_of_day::timestamp AT TIME ZONE p.time_zone AS as_of, k.last_as_of AS data_through_at, k.last_refresh_at AS computed_at
FROM cs_internal.state s
CROSS JOIN cs.metric m
JOIN cs_internal.metric_slot t ON t.metric = m.name
CROSS JOIN cs.policy p
LEFT JOIN cs_internal.clock k ON true
WHERE m.enabled;
COMMENT ON VIEW cs.customer_metric IS 'Current value of every metric of every customer.';
COMMENT ON COLUMN cs.customer_metric.customer_id IS 'The customer.';
COMMENT ON COLUMN cs.customer_metric.metric IS 'Name of the metric.';
COMMENT ON COLUMN cs.customer_metric.value IS 'Value in the metric''s unit; NULL where there is no data.';
COMMENT ON COLUMN cs.customer_metric.as_of IS 'Start of the local day the value belongs to.';
COMMENT ON COLUMN cs.customer_metric.data_through_at IS 'Facts before this instant are in.';
COMMENT ON COLUMN cs.customer_metric.computed_at IS 'When the last refresh ended.';

CREATE VIEW cs.metric_history WITH (security_barrier) AS
SELECT h.customer_id::text AS customer_id, m.name AS metric, h."values"[t.slot] AS value, h.as_of, h.computed_at
FROM cs_internal.metric_history h
CROSS JOIN cs.metric m
JOIN cs_internal.metric_slot t ON t.metric = m.name;
COMMENT ON VIEW cs.metric_history IS 'Values of metrics as they were known at each local midnight a snapshot was taken for.';
COMMENT ON COLUMN cs.metric_history.customer_id IS 'The customer.';
COMMENT ON COLUMN cs.metric_history.metric IS 'Name of the metric.';
COMMENT ON COLUMN cs.metric_history.value IS 'Value in the metric''s unit; NULL where there was no data.';
COMMENT ON COLUMN cs.metric_history.as_of IS 'The local midnight.';
COMMENT ON COLUMN cs.metric_history.computed_at IS 'When the snapshot was taken.';
