
-- ---------------------------------------------------------------------------
-- scorecard: how metrics become a health score.
-- ---------------------------------------------------------------------------

CREATE TABLE cs.scorecard (
	name text PRIMARY KEY,
	segment text,
	priority integer NOT NULL DEFAULT 100,
	red_below float8 NOT NULL DEFAULT 50,
	green_from float8 NOT NULL DEFAULT 75,
	edge_closed text NOT NULL DEFAULT 'above',
	hysteresis float8 NOT NULL DEFAULT 2,
	min_coverage float8 NOT NULL DEFAULT 0.5,
	combine text NOT NULL DEFAULT 'mean',
	enabled boolean NOT NULL DEFAULT true,
	description text
);
SELECT pg_catalog.pg_extension_config_dump('cs.scorecard', '');

CREATE TABLE cs.measure_group (
	scorecard text NOT NULL REFERENCES cs.scorecard ON UPDATE CASCADE ON DELETE CASCADE,
	name text NOT NULL,
	weight float8 NOT NULL DEFAULT 1,
	combine text NOT NULL DEFAULT 'mean',
	enabled boolean NOT NULL DEFAULT true,
	description text,
	PRIMARY KEY (scorecard, name)
);
SELECT pg_catalog.pg_extension_config_dump('cs.measure_group', '');

CREATE TABLE cs.measure (
	scorecard text NOT NULL REFERENCES cs.scorecard ON UPDATE CASCADE ON DELETE CASCADE,
	name text NOT NULL,
	metric text NOT NULL,
	measure_group text,
	weight float8 NOT NULL DEFAULT 1,
	curve text NOT NULL DEFAULT 'linear',
	worst float8,
	best float8,
	steps jsonb,
	half_life_days float8,
	within text,
	min_n integer NOT NULL DEFAULT 20,
	missing text NOT NULL DEFAULT 'reweight',
	missing_points float8,
	max_age_days integer,
	description text,
	PRIMARY KEY (scorecard, name)
);
SELECT pg_catalog.pg_extension_config_dump('cs.measure', '');
