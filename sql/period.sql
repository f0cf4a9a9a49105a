
-- ---------------------------------------------------------------------------
-- period: what people write about time, read in the policy's zone.
-- ---------------------------------------------------------------------------

CREATE FUNCTION cs_internal.period(word text, as_of timestamptz,
	OUT period_start timestamptz, OUT period_end timestamptz, OUT complete boolean)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_period_sql';
COMMENT ON FUNCTION cs_internal.period(text, timestamptz) IS
'The half-open period that a word means at as_of (NULL: now). A running one ends at as_of and is not complete.';

-- Every at and as_of argument that is not a timestamptz goes through here.
CREATE FUNCTION cs_internal.instant(at text) RETURNS timestamptz
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'cs_instant_text';
COMMENT ON FUNCTION cs_internal.instant(text) IS
'ISO date (the start of that day) or date and time, in the policy''s zone unless it names one; else 22007.';
CREATE FUNCTION cs_internal.instant(at date) RETURNS timestamptz
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'cs_instant_date';
COMMENT ON FUNCTION cs_internal.instant(date) IS 'The start of that day in the policy''s zone; 22007 when not finite.';
CREATE FUNCTION cs_internal.instant(at timestamp) RETURNS timestamptz
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'cs_instant_timestamp';
COMMENT ON FUNCTION cs_internal.instant(timestamp) IS 'That local time in the policy''s zone; 22007 when not finite.';
CREATE FUNCTION cs_internal.instant(at timestamptz) RETURNS timestamptz
LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'cs_instant_timestamptz';
COMMENT ON FUNCTION cs_internal.instant(timestamptz) IS 'The instant itself; 22007 when not finite.';

-- The instant a past is looked at from: now unless given, never after now.
CREATE FUNCTION cs_internal.past_instant(at timestamptz, what text) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
DECLARE
	present timestamptz := cs_internal.now();
BEGIN
	IF cs_internal.instant(at) > present THEN
		RAISE EXCEPTION '% % lies in the future', what, at
			USING ERRCODE = '22023',
				DETAIL = pg_catalog.format('Now is %s.', present),
				HINT = 'Ask for an instant that has come; the ledger knows ends that are announced, not renewals.';
	END IF;
	RETURN coalesce(at, present);
END $$;
COMMENT ON FUNCTION cs_internal.past_instant(timestamptz, text) IS
'The instant, now where it is NULL; refuses one after now (22023).';

CREATE FUNCTION cs_internal.normal_quantile(p float8) RETURNS float8
LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'cs_normal_quantile_sql';
COMMENT ON FUNCTION cs_internal.normal_quantile(float8) IS 'Inverse of the standard normal distribution function.';
CREATE FUNCTION cs_internal.wilson(k bigint, n bigint, confidence float8, upper boolean) RETURNS float8
LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'cs_wilson_sql';
COMMENT ON FUNCTION cs_internal.wilson(bigint, bigint, float8, boolean) IS
'One bound of the Wilson score interval of k out of n; NULL where n is 0.';

-- public: what a word means
CREATE FUNCTION cs.period(word text, as_of timestamptz DEFAULT NULL,
	OUT period_start timestamptz, OUT period_end timestamptz, OUT complete boolean)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.period(text, timestamptz) IS
'What a period word means, as a half-open interval [period_start, period_end) in the policy''s time zone: ''2026-10'', ''2026-Q3'', ''2026-W41'', ''2026'', ''FY2026'', ''last month'', ''this quarter'', ''qtd'', ''[2026-10-01,2026-11-15)''. A period that as_of (default now) lies in ends at as_of with complete = false; one that has not begun, and what is no period, is an error.';

-- what a bound takes
CREATE FUNCTION cs_internal.edge_shift() RETURNS interval
LANGUAGE sql STABLE AS $$
	SELECT CASE WHEN p.period_edge = 'at' THEN interval '1 microsecond' ELSE interval '0' END FROM cs.policy p
$$;
COMMENT ON FUNCTION cs_internal.edge_shift() IS
'What is taken from the instant of a movement before it is compared with a bound: nothing, or a microsecond with period_edge at.';
