
-- ---------------------------------------------------------------------------
-- segment: dimensions, their segments, and who was in them when.
-- ---------------------------------------------------------------------------

CREATE TABLE cs.dimension (
	name text PRIMARY KEY,
	exclusive boolean NOT NULL DEFAULT true,
	attribute text,
	fallback text,
	min_days integer NOT NULL DEFAULT 0,
	sees text NOT NULL DEFAULT 'early',          -- set by the check: early or late
	enabled boolean NOT NULL DEFAULT true,
	description text
);
SELECT pg_catalog.pg_extension_config_dump('cs.dimension', '');

CREATE TABLE cs.segment (
	dimension text NOT NULL REFERENCES cs.dimension ON UPDATE CASCADE ON DELETE CASCADE,
	name text NOT NULL,
	rule text NOT NULL,
	priority integer NOT NULL DEFAULT 100,
	description text,
	search_path text NOT NULL DEFAULT pg_catalog.current_setting('search_path'),
	PRIMARY KEY (dimension, name)
);
SELECT pg_catalog.pg_extension_config_dump('cs.segment', '');

-- Decided: valid_to NULL = now. source: rule, fallback, attribute, manual.
CREATE TABLE cs_internal.membership (
	customer_id text COLLATE "C" NOT NULL,
	dimension text NOT NULL,
	segment text NOT NULL,
	valid_from timestamptz NOT NULL,
	valid_to timestamptz,
	source text NOT NULL,
	reason text,
	PRIMARY KEY (customer_id, dimension, segment, valid_from)
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.membership', '');
