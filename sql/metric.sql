
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
	computed_at timestamptz NOT NULL,
	PRIMARY KEY (customer_id, as_of)
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.metric_history', '');
