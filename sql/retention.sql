
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

-- ---- active periods --------------------------------------------------------------

-- The instants at which being active turned alternate, a start first.
CREATE FUNCTION cs_internal.active_stretch(gap_days integer, until timestamptz)
RETURNS TABLE (customer_id text, period_no integer, start_at timestamptz, end_at timestamptz, days integer, churned boolean)
LANGUAGE sql STABLE AS $$
	WITH turn AS (
		SELECT m.customer_id, m.at, m.seq, m.kind, m.active_after,
			lag(m.active_after, 1, false) OVER (PARTITION BY m.customer_id ORDER BY m.at, m.seq) AS was_active
		FROM cs_internal.movement m
		WHERE m.at < until + (SELECT cs_internal.edge_shift())
	), neighbour AS (
		SELECT t.customer_id, t.at, t.seq, t.active_after, lag(t.at) OVER w AS ended_before, lead(t.at) OVER w AS end_at, lead(t.kind) OVER w AS end_kind
		FROM turn t
		WHERE t.active_after <> t.was_active
		WINDOW w AS (PARTITION BY t.customer_id ORDER BY t.at, t.seq)
	), piece AS (
		SELECT n.customer_id, n.at AS start_at, n.end_at, n.end_kind,
			count(*) FILTER (WHERE n.ended_before IS NULL OR n.ended_before + make_interval(days => gap_days) < n.at)
				OVER (PARTITION BY n.customer_id ORDER BY n.at, n.seq) AS period_no
		FROM neighbour n
		WHERE n.active_after
	), period AS (
		SELECT p.customer_id, p.period_no, min(p.start_at) AS start_at,
			-- only the last piece can be running
			nullif(max(coalesce(p.end_at, 'infinity')), 'infinity') AS end_at,
			(array_agg(p.end_kind ORDER BY p.start_at DESC))[1] AS end_kind
		FROM piece p
		GROUP BY p.customer_id, p.period_no
	)
	SELECT p.customer_id, p.period_no::integer, p.start_at, p.end_at, coalesce(p.end_at, until)::date - p.start_at::date,
		coalesce(p.end_kind = 'churn', false)
	FROM period p
$$;
COMMENT ON FUNCTION cs_internal.active_stretch(integer, timestamptz) IS
'Stretches in which a customer was active up to an instant, gaps of up to gap_days closed; whole local days.';

CREATE FUNCTION cs_internal.active_periods(p_gap_days integer)
RETURNS TABLE (customer_id text, period_no integer, start_at timestamptz, end_at timestamptz, days integer, churned boolean)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	gap integer := coalesce(p_gap_days, (SELECT p.gap_days_tenure FROM cs.policy p));
BEGIN
	IF gap IS NULL OR NOT EXISTS (SELECT 1 FROM cs.policy) THEN
		PERFORM cs_internal.instant(current_date);     -- says that setup is missing
	END IF;
	IF gap NOT BETWEEN 0 AND 36500 THEN
		RAISE EXCEPTION 'gap_days must be from 0 to 36500, not %', gap USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Leave it out for policy.gap_days_tenure; 0 closes no gap.';
	END IF;
	RETURN QUERY
	SELECT s.* FROM cs_internal.active_stretch(gap, cs_internal.now()) s ORDER BY s.customer_id, s.period_no;
END $$;
COMMENT ON FUNCTION cs_internal.active_periods(integer) IS 'See cs.active_periods.';

CREATE FUNCTION cs.active_periods(gap_days integer DEFAULT NULL)
RETURNS TABLE (customer_id text, period_no integer, start_at timestamptz, end_at timestamptz, days integer, churned boolean)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.active_periods(integer) IS
'The stretches in which each customer was active by the ledger, up to now, numbered from 1; a gap of up to gap_days days (default policy.gap_days_tenure) between two does not end one. end_at is the first instant without, NULL while it runs; days are local days from the start to the end, or to now; churned is true where it ended in a churn, false where it runs or went into a merged customer: so cs.km(days, churned).';

-- ---- survival over them -------------------------------------------------------------

-- How segments are found where customers may be in several of a dimension: as
-- they were stored.
CREATE FUNCTION cs_internal.stay_basis(dimension text) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT CASE WHEN dimension IS NULL THEN NULL WHEN EXISTS (SELECT FROM cs.dimension d WHERE d.name = stay_basis.dimension AND NOT d.exclusive) THEN 'stored'
		ELSE cs_internal.basis_of(dimension) END
$$;
COMMENT ON FUNCTION cs_internal.stay_basis(text) IS 'As basis_of; stored where segments overlap. NULL without a dimension.';

-- Restated: exact where the ledger and the customer alone tell; else the rules
-- are asked at each local start of a month, and hold until the next.
CREATE FUNCTION cs_internal.segment_stay(p_dimension text, p_segment text, basis text, until timestamptz)
RETURNS TABLE (customer_id text, valid_from timestamptz, valid_to timestamptz)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
	mode text := cs_internal.pass_mode(p_dimension);
BEGIN
	IF basis = 'stored' THEN
		RETURN QUERY SELECT m.customer_id, m.valid_from, m.valid_to FROM cs_internal.membership m WHERE m.dimension = p_dimension AND m.segment = p_segment;
		RETURN;
	END IF;
	RETURN QUERY
	WITH ruled AS (
		SELECT r.customer_id, tstzrange(NULL, NULL) AS held
		FROM cs_internal.segments_restated(p_dimension, until) r WHERE mode = 'a' AND r.segment = p_segment
		UNION ALL
		SELECT m.customer_id, tstzrange(m.at, m.next_at)
		FROM (SELECT v.customer_id, v.at, v.mrr_after, v.active_after, lead(v.at) OVER (PARTITION BY v.customer_id ORDER BY v.at, v.seq) AS next_at
			FROM cs_internal.movement v) m
		JOIN cs_internal.states_placed(p_dimension) p ON p.customer_id = m.customer_id AND p.mrr = m.mrr_after AND p.active = m.active_after
		WHERE mode = 'r' AND p.segment = p_segment
		UNION ALL
		SELECT r.customer_id, tstzrange(g.starts, g.stops)
		FROM (SELECT u.starts, lead(u.starts) OVER (ORDER BY u.starts) AS stops
			FROM unnest(cs_internal.month_starts((SELECT min(v.at) FROM cs_internal.movement v), until)) u (starts)
			WHERE mode IS DISTINCT FROM 'a' AND mode IS DISTINCT FROM 'r') g
		CROSS JOIN LATERAL cs_internal.segments_restated(p_dimension, g.starts) r
		WHERE r.segment = p_segment
	), manual AS (
		-- a decision of its time goes before the rules
		SELECT m.customer_id, range_agg(tstzrange(m.valid_from, m.valid_to)) AS held,
			range_agg(CASE WHEN m.segment = p_segment THEN tstzrange(m.valid_from, m.valid_to) ELSE 'empty' END) AS here
		FROM cs_internal.membership m WHERE m.dimension = p_dimension AND m.source = 'manual'
		GROUP BY m.customer_id
	)
	SELECT h.customer_id, coalesce(lower(x.held), '-infinity'), upper(x.held)
	FROM (
		SELECT coalesce(r.customer_id, m.customer_id) AS customer_id,
			coalesce(r.held, '{}') - coalesce(m.held, '{}') + coalesce(m.here, '{}') AS held
		FROM (SELECT u.customer_id, range_agg(u.held) AS held FROM ruled u GROUP BY u.customer_id) r
		FULL JOIN manual m ON m.customer_id = r.customer_id
	) h
	CROSS JOIN LATERAL unnest(h.held) x (held);
END $$;
COMMENT ON FUNCTION cs_internal.segment_stay(text, text, text, timestamptz) IS
'From when to when (NULL: still) who is in a segment, up to an instant: as stored, or restated by the rules of today.';

CREATE FUNCTION cs_internal.survival(p_segment text)
RETURNS TABLE ("time" float8, at_risk bigint, events bigint, censored bigint, survival float8, ci_low float8, ci_high float8, segment_basis text)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.now();
	gap integer;
	sure float8;
	part record;
	basis text;
BEGIN
	SELECT p.gap_days_tenure, p.confidence INTO gap, sure FROM cs.policy p;
	IF NOT FOUND THEN
		PERFORM cs_internal.instant(current_date);     -- says that setup is missing
	END IF;
	SELECT * INTO part FROM cs_internal.find_segment(p_segment);
	IF part.dimension IS NULL THEN
		RETURN QUERY
		SELECT c.*, NULL::text FROM (SELECT cs.km(s.days, s.churned) AS estimate FROM cs_internal.active_stretch(gap, seen_at) s) k,
			cs.km_curve(k.estimate, sure) c;
		RETURN;
	END IF;
	basis := cs_internal.stay_basis(part.dimension);
	PERFORM cs_internal.note_stored_since(part.dimension, seen_at);
	-- A customer is at risk in a segment while it is in it: seen from the day it
	-- came in, censored on the day it went over to another.
	RETURN QUERY
	SELECT c.*, basis
	FROM (
		SELECT cs.km(x.days, x.churned, x.entry) AS estimate
		FROM (
			SELECT greatest(m.valid_from, s.start_at)::date - s.start_at::date AS entry,
				least(m.valid_to, s.end_at, seen_at)::date - s.start_at::date AS days,
				s.churned AND (m.valid_to IS NULL OR s.end_at <= m.valid_to) AS churned
			FROM cs_internal.active_stretch(gap, seen_at) s
			JOIN cs_internal.segment_stay(part.dimension, part.segment, basis, seen_at) m ON m.customer_id = s.customer_id
				AND m.valid_from < coalesce(s.end_at, seen_at) AND (m.valid_to IS NULL OR m.valid_to > s.start_at)) x
		WHERE x.entry = 0 OR x.entry < x.days) k,
		cs.km_curve(k.estimate, sure) c;
END $$;
COMMENT ON FUNCTION cs_internal.survival(text) IS 'See cs.survival.';

CREATE FUNCTION cs.survival(segment text DEFAULT NULL)
RETURNS TABLE ("time" float8, at_risk bigint, events bigint, censored bigint, survival float8, ci_low float8, ci_high float8, segment_basis text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.survival(text) IS
'The Kaplan-Meier curve of active periods (gaps up to policy.gap_days_tenure closed), those that run censored now: share of periods that last more than time local days, with log-log bounds at policy.confidence, NULL where it is 1 or 0. In a segment a customer is at risk while it is in it: from the day it came in (late entry), to the day it churned or went over (censored); who came in and left within a day after its start is not seen. segment_basis says how that is known (NULL without a segment): restated, by the rules of today, asked at each start of a month where they ask for more than MRR, being active and the customer''s own columns; or stored, as membership was kept (always where segments overlap). No rows where nothing was active.';

-- ---- cohorts ---------------------------------------------------------------------------

-- Local periods that begin before as_of, from the first movement on.
CREATE FUNCTION cs_internal.cohort_bound(grain text, as_of timestamptz, OUT days date[], OUT bounds timestamptz[])
LANGUAGE sql STABLE AS $$
	SELECT array_agg(g.start::date ORDER BY g.start), array_agg(g.start AT TIME ZONE p.time_zone ORDER BY g.start)
	FROM cs.policy p
	CROSS JOIN LATERAL (SELECT make_interval(days => CASE grain WHEN 'week' THEN p.week_start - 1 ELSE 0 END) AS shift) w
	CROSS JOIN (SELECT min(m.at) - cs_internal.edge_shift() AS first_at FROM cs_internal.movement m) f
	CROSS JOIN LATERAL generate_series(date_trunc(grain, f.first_at AT TIME ZONE p.time_zone - w.shift) + w.shift,
		as_of AT TIME ZONE p.time_zone - interval '1 microsecond',
		CASE grain WHEN 'quarter' THEN interval '3 months' ELSE ('1 ' || grain)::interval END) AS g (start)
$$;
COMMENT ON FUNCTION cs_internal.cohort_bound(text, timestamptz) IS
'Every week, month, quarter or year from the first movement to as_of''s, and the instants at which they start; NULL without movements.';

CREATE FUNCTION cs_internal.retention_cohorts(p_grain text, p_segment text)
RETURNS TABLE (
	cohort date, age integer, period_start timestamptz, period_end timestamptz,
	customers bigint, active bigint, retention numeric,
	mrr_first numeric, mrr numeric, mrr_retention numeric, complete boolean, segment_basis text)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.now();
	chosen text := coalesce(p_grain, 'month');
	span record;
	part record;
	basis text;
BEGIN
	IF NOT EXISTS (SELECT 1 FROM cs.policy) THEN
		PERFORM cs_internal.instant(current_date);     -- says that setup is missing
	END IF;
	PERFORM cs_internal.must_be_word('grain', chosen, '{week,month,quarter,year}');
	PERFORM cs_internal.require_fx_rates();
	SELECT * INTO part FROM cs_internal.find_segment(p_segment);
	basis := cs_internal.stay_basis(part.dimension);
	SELECT * INTO span FROM cs_internal.cohort_bound(chosen, seen_at);
	IF span.bounds IS NULL THEN
		RETURN;
	END IF;
	PERFORM cs_internal.note_stored_since(part.dimension, coalesce(span.bounds[2], seen_at));
	RETURN QUERY
	WITH placed AS (
		SELECT m.customer_id, m.at, m.seq, m.delta, m.mrr_after, m.active_after,
			lag(m.active_after, 1, false) OVER (PARTITION BY m.customer_id ORDER BY m.at, m.seq) AS was_active,
			width_bucket(m.at - (SELECT cs_internal.edge_shift()), span.bounds) AS n
		FROM cs_internal.movement m
		WHERE m.at < seen_at + (SELECT cs_internal.edge_shift())
	), first AS MATERIALIZED (
		SELECT DISTINCT ON (p.customer_id) p.customer_id, p.n AS first_n, p.mrr_after AS first_mrr
		FROM placed p
		WHERE p.mrr_after > 0
		ORDER BY p.customer_id, p.at, p.seq
	), inside AS MATERIALIZED (
		SELECT n.first_n, s.customer_id
		FROM (SELECT DISTINCT f.first_n FROM first f WHERE part.dimension IS NOT NULL) n
		CROSS JOIN LATERAL cs_internal.segment_at(part.dimension, coalesce(span.bounds[n.first_n + 1], seen_at), basis) s
		WHERE s.segment = part.segment
	), member AS (
		SELECT f.* FROM first f
		WHERE part.dimension IS NULL OR EXISTS (SELECT FROM inside s WHERE s.first_n = f.first_n AND s.customer_id = f.customer_id)
	), size AS (
		SELECT b.first_n, count(*) AS customers, sum(b.first_mrr) AS mrr_first FROM member b GROUP BY b.first_n
	), changed AS (
		-- who was active before paying (free) counts from the cohort's first period on
		SELECT b.first_n, greatest(p.n, b.first_n) AS n,
			sum(p.active_after::integer - p.was_active::integer) AS d_active, sum(p.delta) AS d_mrr
		FROM placed p JOIN member b ON b.customer_id = p.customer_id
		GROUP BY 1, 2
	), cell AS (
		SELECT z.first_n, g.n, z.customers, z.mrr_first,
			coalesce(sum(c.d_active) OVER w, 0)::bigint AS active, coalesce(sum(c.d_mrr) OVER w, 0) AS mrr
		FROM size z
		CROSS JOIN LATERAL generate_series(z.first_n, cardinality(span.bounds)) AS g (n)
		LEFT JOIN changed c ON c.first_n = z.first_n AND c.n = g.n
		WINDOW w AS (PARTITION BY z.first_n ORDER BY g.n)
	)
	SELECT span.days[c.first_n], c.n - c.first_n, span.bounds[c.n], coalesce(span.bounds[c.n + 1], seen_at),
		c.customers, c.active, cs_internal.rate(c.active, c.customers),
		c.mrr_first::numeric(20,6), c.mrr::numeric(20,6), cs_internal.rate(c.mrr, c.mrr_first),
		c.n < cardinality(span.bounds) OR seen_at = e.ends_at, basis
	FROM cell c
	CROSS JOIN LATERAL (SELECT (span.days[c.n] + CASE chosen WHEN 'quarter' THEN interval '3 months' ELSE ('1 ' || chosen)::interval END)
		AT TIME ZONE p.time_zone AS ends_at FROM cs.policy p) e
	ORDER BY c.first_n, c.n;
END $$;
COMMENT ON FUNCTION cs_internal.retention_cohorts(text, text) IS 'See cs.retention_cohorts.';

CREATE FUNCTION cs.retention_cohorts(grain text DEFAULT 'month', segment text DEFAULT NULL)
RETURNS TABLE (
	cohort date, age integer, period_start timestamptz, period_end timestamptz,
	customers bigint, active bigint, retention numeric,
	mrr_first numeric, mrr numeric, mrr_retention numeric, complete boolean, segment_basis text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.retention_cohorts(text, text) IS
'Retention by the period (week, month, quarter or year in the policy''s time zone) in which customers first paid: a row per cohort (its first day) and age in periods, 0 being the first, up to the running one, which ends now with complete = false. Of the cohort''s customers, active are so at the end of that period, whether they left in between or not: a customer that comes back stays in its cohort, and age 0 shows who left within the first period. mrr_first is what they first paid, mrr what they pay at the end of the period, per month in the policy''s currency; retention and mrr_retention are fractions of the first. With a segment: customers that are in it at the end of their cohort''s period; segment_basis (NULL without) says how that is known: restated, by the rules of today, or stored, as membership was kept (always where segments overlap).';
