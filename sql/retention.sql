
-- ---------------------------------------------------------------------------
-- retention: how long customers stay. The aggregates km and logrank (C, on any
-- durations), active periods and cohorts from the ledger, survival over both.
-- ---------------------------------------------------------------------------

-- ---- Kaplan-Meier ------------------------------------------------------------

CREATE TYPE cs.km_estimate AS (
	n bigint,
	late bigint,
	times float8[],
	at_risk bigint[],
	events bigint[],
	censored bigint[]
);
COMMENT ON TYPE cs.km_estimate IS
'What cs.km returns: the counts a Kaplan-Meier curve is made of, exact. Read it with km_curve, median, survival_at and restricted_mean.';
COMMENT ON COLUMN cs.km_estimate.n IS 'Rows that were counted.';
COMMENT ON COLUMN cs.km_estimate.late IS 'Of these, rows that entered after time 0.';
COMMENT ON COLUMN cs.km_estimate.times IS 'Each time at which somebody left or was last seen, ascending, in the unit of the durations.';
COMMENT ON COLUMN cs.km_estimate.at_risk IS 'At each time, rows that entered before it and had not left before it.';
COMMENT ON COLUMN cs.km_estimate.events IS 'At each time, rows that ended in an event.';
COMMENT ON COLUMN cs.km_estimate.censored IS 'At each time, rows last seen there without an event.';

CREATE FUNCTION cs_internal.km_step(internal, float8, boolean) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_km_step';
CREATE FUNCTION cs_internal.km_step(internal, float8, boolean, float8) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_km_step';
CREATE FUNCTION cs_internal.km_combine(internal, internal) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_km_combine';
CREATE FUNCTION cs_internal.km_serialize(internal) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_km_serialize';
CREATE FUNCTION cs_internal.km_deserialize(bytea, internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_km_deserialize';
CREATE FUNCTION cs_internal.km_final(internal) RETURNS cs.km_estimate
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_km_final';

CREATE AGGREGATE cs.km(duration float8, event boolean) (
	SFUNC = cs_internal.km_step,
	STYPE = internal,
	FINALFUNC = cs_internal.km_final,
	COMBINEFUNC = cs_internal.km_combine,
	SERIALFUNC = cs_internal.km_serialize,
	DESERIALFUNC = cs_internal.km_deserialize,
	PARALLEL = safe
);
COMMENT ON AGGREGATE cs.km(float8, boolean) IS
'The Kaplan-Meier estimate of durations: event true where the duration ended in the event (churn), false where it was still running when last seen (censored). Who leaves at a time is at risk there. Rows with a NULL are left out; a duration that is negative or not finite is refused (22023). NULL over no rows. Read it with km_curve, median, survival_at, restricted_mean.';

CREATE AGGREGATE cs.km(duration float8, event boolean, entry float8) (
	SFUNC = cs_internal.km_step,
	STYPE = internal,
	FINALFUNC = cs_internal.km_final,
	COMBINEFUNC = cs_internal.km_combine,
	SERIALFUNC = cs_internal.km_serialize,
	DESERIALFUNC = cs_internal.km_deserialize,
	PARALLEL = safe
);
COMMENT ON AGGREGATE cs.km(float8, boolean, float8) IS
'The Kaplan-Meier estimate with late entry: entry is the time from which on the row was seen, and it is at risk after that only (history that begins later than the customers). Entry 0 or NULL: from the start. An entry below 0 or not below the duration is refused (22023). Otherwise as km(duration, event).';

CREATE FUNCTION cs.km_curve(estimate cs.km_estimate, confidence float8 DEFAULT 0.95)
RETURNS TABLE ("time" float8, at_risk bigint, events bigint, censored bigint, survival float8, ci_low float8, ci_high float8)
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_km_curve';
COMMENT ON FUNCTION cs.km_curve(cs.km_estimate, float8) IS
'The rows of a Kaplan-Meier estimate: time 0, and each time at which somebody left or was last seen. survival is the share that stays beyond the time, a step function: it holds until the next row. ci_low and ci_high are log-log bounds (Greenwood''s variance) at confidence, a fraction; NULL where survival is 1 or 0. No rows for NULL.';

CREATE FUNCTION cs.median(estimate cs.km_estimate) RETURNS float8
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_km_median';
COMMENT ON FUNCTION cs.median(cs.km_estimate) IS
'The first time at which survival is one half or less, in the unit of the durations; NULL where it stays above.';

CREATE FUNCTION cs.survival_at(estimate cs.km_estimate, "time" float8) RETURNS float8
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_km_survival_at';
COMMENT ON FUNCTION cs.survival_at(cs.km_estimate, float8) IS
'The share that stays beyond a time, 0 to 1; NULL after the last time that was seen, unless nobody was left there.';

CREATE FUNCTION cs.restricted_mean(estimate cs.km_estimate, until float8 DEFAULT NULL) RETURNS float8
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_km_restricted_mean';
COMMENT ON FUNCTION cs.restricted_mean(cs.km_estimate, float8) IS
'The mean duration of the first until units, the area under the curve: how long a customer stays within that horizon, also where nobody churned. until NULL: the last time that was seen; NULL beyond it, unless nobody was left there. Compare groups at one until.';

-- ---- log-rank test -------------------------------------------------------------

CREATE TYPE cs.logrank_result AS (
	chi_square float8,
	degrees_of_freedom integer,
	p_value float8,
	groups text[],
	n bigint[],
	observed bigint[],
	expected float8[]
);
COMMENT ON TYPE cs.logrank_result IS 'What cs.logrank returns: the test that all groups have one survival curve.';
COMMENT ON COLUMN cs.logrank_result.chi_square IS 'The statistic; NULL where there is nothing to compare (one group, no events).';
COMMENT ON COLUMN cs.logrank_result.degrees_of_freedom IS 'Groups that could be compared, less one; 0 where chi_square is NULL.';
COMMENT ON COLUMN cs.logrank_result.p_value IS 'Probability of such a statistic or a greater one where the curves are one; NULL with chi_square. 0 where it is too small for float8.';
COMMENT ON COLUMN cs.logrank_result.groups IS 'The groups, in the order of their bytes; the next three run along.';
COMMENT ON COLUMN cs.logrank_result.n IS 'Rows of each group.';
COMMENT ON COLUMN cs.logrank_result.observed IS 'Events of each group.';
COMMENT ON COLUMN cs.logrank_result.expected IS 'Events of each group had all groups one curve.';

CREATE FUNCTION cs_internal.logrank_step(internal, float8, boolean, text) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_logrank_step';
CREATE FUNCTION cs_internal.logrank_final(internal) RETURNS cs.logrank_result
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_logrank_final';

CREATE AGGREGATE cs.logrank(duration float8, event boolean, grp text) (
	SFUNC = cs_internal.logrank_step,
	STYPE = internal,
	FINALFUNC = cs_internal.logrank_final,
	PARALLEL = safe
);
COMMENT ON AGGREGATE cs.logrank(float8, boolean, text) IS
'The log-rank test between groups of durations: (cs.logrank(...)).* is chi-square, degrees of freedom and p-value, and per group n, observed and expected events. Durations and events as in km; rows with a NULL are left out; at most 100 groups (54000). NULL over no rows.';
