
-- ---------------------------------------------------------------------------
-- seal: what happened before an instant is final, and its rows may go.
-- ---------------------------------------------------------------------------

-- Decided: what is sealed. The rollup below it is cs_internal.usage_sealed (piece usage).
CREATE TABLE cs_internal.seal (
	source text PRIMARY KEY,
	before timestamptz NOT NULL,
	time_zone text NOT NULL,            -- that the sealed days are cut in
	actor text NOT NULL,
	sealed_at timestamptz NOT NULL,
	first_at timestamptz,               -- least and greatest instant that is sealed; NULL: there was none
	last_at timestamptz,
	corrections bigint NOT NULL DEFAULT 0,      -- rows written below it since, not applied
	corrected_at timestamptz
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.seal', '');

CREATE FUNCTION cs_internal.seal(source text, before timestamptz) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_seal';
COMMENT ON FUNCTION cs_internal.seal(text, timestamptz) IS 'See cs.seal.';
CREATE FUNCTION cs.seal(source text, before timestamptz) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.seal(text, timestamptz) IS
'Makes the usage events of a source before an instant final: their rollup is kept and dumped, so the rows may be dropped, detached or deleted. What is written below it afterwards is not applied but counted (cs.source_status); the policy''s zone cannot change any more. Returns how many customers and months were added. Raises for an instant to come or before the seal that is there, and for other kinds.';

CREATE FUNCTION cs_internal.unseal(source text) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_unseal';
COMMENT ON FUNCTION cs_internal.unseal(text) IS 'See cs.unseal.';
CREATE FUNCTION cs.unseal(source text) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.unseal(text) IS
'Gives up what is sealed of a source: the next refresh reads the rows that are there, and what was dropped is gone for good. Returns how many customers and months were given up.';
