
-- ---------------------------------------------------------------------------
-- source: where the facts are, how they are read, how change is noticed.
-- ---------------------------------------------------------------------------

CREATE TABLE cs.source (
	name text PRIMARY KEY,
	kind text NOT NULL,
	relation text NOT NULL,             -- qualified and quoted
	columns jsonb NOT NULL,             -- canonical name -> SQL expression
	capture text NOT NULL DEFAULT 'auto',
	terms text NOT NULL DEFAULT 'interval',
	enabled boolean NOT NULL DEFAULT true,
	description text,
	search_path text NOT NULL DEFAULT pg_catalog.current_setting('search_path')
);
SELECT pg_catalog.pg_extension_config_dump('cs.source', '');

-- Derived, one row a source: how far it is read and what was found.
CREATE TABLE cs_internal.source_state (
	source text PRIMARY KEY,
	capture text NOT NULL,              -- what is in force: trigger or scan
	capture_reason text NOT NULL,
	needs_scan boolean NOT NULL DEFAULT true,   -- re-read whole at the next refresh
	scanned_at timestamptz,
	first_at timestamptz,               -- least and greatest anchor of usable rows
	last_at timestamptz,
	available boolean NOT NULL DEFAULT false,   -- has rows before the last evaluated instant
	column_types jsonb,                 -- type oid of each mapped expression, as last analysed
	storage text,                       -- oid and file of the relation and its partitions, as last seen
	error text
);

-- Written by the capture trigger: one row per source and customer and flush.
-- No index, no key: appended by writers, read and deleted by ctid by refresh.
-- source '*': a definition changed, every customer is evaluated again.
-- customer_key NULL: rows without customer, or more customers than are noted.
CREATE TABLE cs_internal.change_log (
	source text NOT NULL,
	customer_key text,                  -- as text; the user's id where user_id is mapped
	since timestamptz,                  -- anchors touched: [since, until]; NULL = unknown, all
	until timestamptz
);

-- Work queue of ingest, filled from change_log and by scans.
CREATE TABLE cs_internal.pending (
	source text NOT NULL,
	customer_id text COLLATE "C" NOT NULL,
	since timestamptz NOT NULL DEFAULT '-infinity',
	until timestamptz NOT NULL DEFAULT 'infinity',
	PRIMARY KEY (source, customer_id)
);

-- Checksum per customer of a scanned source.
CREATE TABLE cs_internal.scan_checksum (
	source text NOT NULL,
	customer_id text COLLATE "C" NOT NULL,
	checksum numeric NOT NULL,
	PRIMARY KEY (source, customer_id)
);

-- Rows that cannot be used, counted where they stand. customer_id '' = none.
CREATE TABLE cs_internal.unusable (
	source text NOT NULL,
	customer_id text COLLATE "C" NOT NULL DEFAULT '',
	reason text NOT NULL,
	row_count bigint NOT NULL,
	example text,
	PRIMARY KEY (source, customer_id, reason)
);
