
-- ---------------------------------------------------------------------------
-- health: the score as stored, its history and its explanation.
-- ---------------------------------------------------------------------------

-- Decided: the band has hysteresis, the stored score is what people saw.
CREATE TABLE cs_internal.health (
	customer_id text COLLATE "C" PRIMARY KEY,
	as_of timestamptz NOT NULL,
	score float8,
	band text,
	band_since timestamptz,
	band_reason text,
	coverage float8,
	scorecard text,
	version bigint,
	computed_at timestamptz NOT NULL
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.health', '');

-- Decided: one row a day bound and one per band change; never rewritten.
CREATE TABLE cs_internal.health_history (
	customer_id text COLLATE "C" NOT NULL,
	as_of timestamptz NOT NULL,
	score float8,
	band text,
	coverage float8,
	scorecard text,
	version bigint,
	basis text NOT NULL DEFAULT 'stored',
	computed_at timestamptz NOT NULL,
	PRIMARY KEY (customer_id, as_of, basis)
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.health_history', '');
