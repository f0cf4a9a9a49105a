
-- ---------------------------------------------------------------------------
-- backtest: would the score have told who leaves?
--
-- The scorecard is applied to each customer as of each past month bound, from
-- the facts as they were visible then (evaluated_at), and joined to what the
-- customer did in the time after. What was known beforehand or is not known
-- yet does not count: who had given notice is left out, notice counts as the
-- event, and a window that is not over is no retention.
-- ---------------------------------------------------------------------------

CREATE FUNCTION cs_internal.notices()
RETURNS TABLE (customer_id text, notice_at timestamptz, end_at timestamptz)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_notices_sql';
COMMENT ON FUNCTION cs_internal.notices() IS
'Notices in the facts: of subscriptions with the end they announce, and cancellations (end_at NULL: of the next churn).';

-- Each churn that the ledger knows, with the instant from which it was known.
CREATE FUNCTION cs_internal.churn_events()
RETURNS TABLE (customer_id text, churned_at timestamptz, event_at timestamptz)
LANGUAGE sql VOLATILE AS $$
	WITH notice AS MATERIALIZED (
		-- of merged customers it is a notice of whom their facts count for at the churn
		SELECT coalesce(o.owner, n.customer_id) AS customer_id, n.notice_at, n.end_at, coalesce(o.since, '-infinity') AS since, coalesce(o.until, 'infinity') AS until
		FROM cs_internal.notices() n LEFT JOIN cs_internal.merge_span() o ON o.id = n.customer_id)
	SELECT m.customer_id, m.at, least(m.at, (
		SELECT min(n.notice_at) FROM notice n
		WHERE n.customer_id = m.customer_id AND n.notice_at <= m.at AND n.since <= m.at AND n.until > m.at
			AND (n.end_at = m.at OR (n.end_at IS NULL AND NOT EXISTS (
				SELECT FROM cs_internal.movement x
				WHERE x.customer_id = m.customer_id AND x.kind IN ('new', 'reactivation', 'churn') AND x.at > n.notice_at AND x.at < m.at)))))
	FROM cs_internal.movement m
	WHERE m.kind = 'churn' AND NOT m.active_after
$$;
COMMENT ON FUNCTION cs_internal.churn_events() IS 'Churns with the earlier of their instant and that of the notice for it.';

CREATE FUNCTION cs_internal.check_horizon(since timestamptz, horizon interval) RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF since IS NULL THEN
		RAISE EXCEPTION 'since must not be NULL' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	IF horizon IS NULL OR horizon <= interval '0' OR NOT isfinite(horizon) THEN
		RAISE EXCEPTION 'horizon is %', coalesce(horizon::text, 'NULL')
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the time within which a churn counts, for example ''90 days''.';
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.check_horizon(timestamptz, interval) IS 'Refuses a start or a time to look ahead that is none.';

-- One row per customer and month bound, for active customers that have the
-- scorecard; of one that is not enabled, for those in its segment.
CREATE FUNCTION cs_internal.backtest_observations(card text, since timestamptz, until timestamptz, horizon interval)
RETURNS TABLE (as_of timestamptz, customer_id text, score float8, band text, churned_at timestamptz, event_at timestamptz, outcome text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
	zone text := (SELECT p.time_zone FROM cs.policy p);
	present timestamptz := cs_internal.now();
	bounds timestamptz[];
	late integer;
	chosen cs.scorecard;
BEGIN
	PERFORM cs_internal.must_be_scorecard(card);
	PERFORM cs_internal.check_horizon(since, horizon);
	SELECT array_agg(b.at ORDER BY b.at) FILTER (WHERE b.at + horizon <= present), count(*) FILTER (WHERE b.at + horizon > present)
	INTO bounds, late
	FROM (SELECT m AT TIME ZONE zone AS at
		FROM generate_series(date_trunc('month', since AT TIME ZONE zone), least(until, present) AT TIME ZONE zone, interval '1 month') m) b
	WHERE b.at >= since AND b.at < coalesce(until, present) AND b.at <= present;
	IF bounds IS NULL THEN
		RAISE EXCEPTION 'no month whose next % are over starts in [%, %)', horizon, since, coalesce(until, present)
			USING ERRCODE = 'invalid_parameter_value', DETAIL = format('Now is %s.', present),
				HINT = 'Give an earlier since, or a shorter horizon.';
	END IF;
	IF late > 0 THEN
		RAISE NOTICE '% months are left out: their next % are not over', late, horizon;
	END IF;
	SELECT * INTO chosen FROM cs.scorecard c WHERE c.name = card;
	RETURN QUERY
	WITH event AS MATERIALIZED (SELECT * FROM cs_internal.churn_events()),
	seen AS MATERIALIZED (
		SELECT b.at, e.customer_id,
			-- the stage's own score where it used this scorecard, so that nothing can differ
			CASE WHEN e.scorecard = card THEN e.score
				ELSE cs.score(cs_internal.score_inputs(e."values", e.segments), card) END AS score
		FROM unnest(bounds) b (at) CROSS JOIN LATERAL cs_internal.evaluated_at(NULL, b.at) e
		-- a draft is tried on everybody in its segment, also on whom another one has
		WHERE e.active AND CASE WHEN chosen.enabled THEN e.scorecard = card ELSE cs_internal.in_card_segment(chosen.segment, e.segments) END
	)
	SELECT s.at, s.customer_id, s.score, cs_internal.fresh_band(card, NULL, s.score), v.churned_at, v.event_at,
		CASE WHEN v.event_at < s.at THEN 'announced' WHEN v.event_at < s.at + horizon THEN 'churned' ELSE 'retained' END
	FROM seen s
	LEFT JOIN LATERAL (
		-- the churn that ended the time in which the customer was seen
		SELECT e.churned_at, e.event_at FROM event e
		WHERE e.customer_id = s.customer_id AND e.churned_at >= s.at ORDER BY e.churned_at LIMIT 1) v ON true
	ORDER BY s.at, s.customer_id;
END $$;
COMMENT ON FUNCTION cs_internal.backtest_observations(text, timestamptz, timestamptz, interval) IS 'See cs.backtest_observations.';

CREATE FUNCTION cs.backtest_observations(card text, since timestamptz, until timestamptz DEFAULT NULL, horizon interval DEFAULT '90 days')
RETURNS TABLE (as_of timestamptz, customer_id text, score float8, band text, churned_at timestamptz, event_at timestamptz, outcome text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.backtest_observations(text, timestamptz, timestamptz, interval) IS 'What cs.backtest_scorecard() counts: a row per active customer that has the scorecard (of one that is not enabled: that is in its segment) and month start in [since, until) (NULL: now) whose horizon is over. score and band are as the facts visible then give them, by the definitions of now, without overrides and hysteresis; churned_at is the end of that time as a customer (NULL: not known), event_at the earlier of it and the notice; outcome is churned (event within horizon), retained, or announced (notice had been given: not counted).';

-- ---- what comes of it ---------------------------------------------------------

-- The first red since the customer was last green, before the event.
CREATE FUNCTION cs_internal.backtest_churned(card text, since timestamptz, until timestamptz, horizon interval)
RETURNS TABLE (customer_id text, name text, churned_at timestamptz, event_at timestamptz, as_of timestamptz, score float8, band text, first_red_at timestamptz, lead_days integer)
LANGUAGE sql VOLATILE AS $$
	WITH observed AS MATERIALIZED (SELECT * FROM cs_internal.backtest_observations(card, since, until, horizon) o WHERE o.outcome <> 'announced'),
	last_seen AS (
		SELECT DISTINCT ON (o.customer_id, o.event_at) o.* FROM observed o WHERE o.outcome = 'churned' ORDER BY o.customer_id, o.event_at, o.as_of DESC
	)
	SELECT l.customer_id, c.name, l.churned_at, l.event_at, l.as_of, l.score, l.band, r.at,
		(l.event_at AT TIME ZONE p.time_zone)::date - (r.at AT TIME ZONE p.time_zone)::date
	FROM last_seen l
	CROSS JOIN cs.policy p
	LEFT JOIN cs_internal.customer c ON c.customer_id = l.customer_id
	LEFT JOIN LATERAL (
		SELECT min(o.as_of) AS at FROM observed o
		WHERE o.customer_id = l.customer_id AND o.event_at = l.event_at AND o.band = 'red'
			AND o.as_of > coalesce((SELECT max(g.as_of) FROM observed g
				WHERE g.customer_id = l.customer_id AND g.event_at = l.event_at AND g.band = 'green'), '-infinity')) r ON true
	ORDER BY l.event_at, l.customer_id
$$;
COMMENT ON FUNCTION cs_internal.backtest_churned(text, timestamptz, timestamptz, interval) IS 'See cs.backtest_churned.';

CREATE FUNCTION cs.backtest_churned(card text, since timestamptz, until timestamptz DEFAULT NULL, horizon interval DEFAULT '90 days')
RETURNS TABLE (customer_id text, name text, churned_at timestamptz, event_at timestamptz, as_of timestamptz, score float8, band text, first_red_at timestamptz, lead_days integer)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.backtest_churned(text, timestamptz, timestamptz, interval) IS 'The customers that churned in a backtest, one row a churn: when (event_at: the notice, where one was given), score and band at the last month start before it (band = green: nobody saw it coming; NULL: no score), the first red since the last green, and the days from there to the event (NULL: never red).';

CREATE FUNCTION cs_internal.backtest_scorecard(card text, since timestamptz, until timestamptz, horizon interval)
RETURNS TABLE (band text, observations bigint, churned bigint, rate numeric(18,9), ci_low numeric(18,9), ci_high numeric(18,9), lift numeric(18,9),
	share_of_churned numeric(18,9), customers_churned bigint, auc numeric(18,9), median_lead_days numeric(18,9), announced bigint, months bigint)
LANGUAGE sql VOLATILE AS $$
	WITH observed AS MATERIALIZED (
		SELECT o.*, coalesce(o.band, '(no score)') AS part FROM cs_internal.backtest_observations(card, since, until, horizon) o
	), counted AS (
		SELECT * FROM observed o WHERE o.outcome <> 'announced'
	), ranked AS (
		-- mid-ranks by score: ties count half
		SELECT o.outcome = 'churned' AS gone,
			rank() OVER (ORDER BY o.score) + (count(*) OVER (PARTITION BY o.score) - 1) / 2.0 AS mid_rank
		FROM counted o WHERE o.score IS NOT NULL
	), curve AS (
		SELECT (1 - (sum(r.mid_rank) FILTER (WHERE r.gone) - n.gone * (n.gone + 1) / 2) / nullif(n.gone * n.stayed, 0))::numeric(18,9) AS auc
		FROM ranked r, LATERAL (SELECT count(*) FILTER (WHERE x.gone)::numeric AS gone, count(*) FILTER (WHERE NOT x.gone)::numeric AS stayed FROM ranked x) n
		GROUP BY n.gone, n.stayed
	), lead AS (
		SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY d.days)::numeric(18,9) AS days
		FROM (SELECT (o.event_at AT TIME ZONE p.time_zone)::date - (min(o.as_of) AT TIME ZONE p.time_zone)::date AS days
			FROM counted o CROSS JOIN cs.policy p
			WHERE o.band = 'red'
				AND EXISTS (SELECT FROM counted x WHERE x.customer_id = o.customer_id AND x.event_at = o.event_at AND x.outcome = 'churned')
				AND o.as_of > coalesce((SELECT max(g.as_of) FROM counted g
					WHERE g.customer_id = o.customer_id AND g.event_at = o.event_at AND g.band = 'green'), '-infinity')
			GROUP BY o.customer_id, o.event_at, p.time_zone) d
	), total AS (
		SELECT count(*) AS n, count(*) FILTER (WHERE o.outcome = 'churned') AS k FROM counted o
	), parts AS (
		SELECT g.part, g.place, count(o.as_of) AS n, count(o.as_of) FILTER (WHERE o.outcome = 'churned') AS k,
			count(DISTINCT (o.customer_id, o.event_at)) FILTER (WHERE o.outcome = 'churned') AS customers
		FROM (VALUES ('red', 1), ('yellow', 2), ('green', 3), ('(no score)', 4), ('(all)', 5)) g (part, place)
		LEFT JOIN counted o ON g.part IN (o.part, '(all)')
		GROUP BY 1, 2
	)
	SELECT p.part, p.n, p.k, cs_internal.rate(p.k, p.n),
		cs_internal.wilson(p.k, p.n, y.confidence::float8, false)::numeric(18,9), cs_internal.wilson(p.k, p.n, y.confidence::float8, true)::numeric(18,9),
		(p.k::numeric * t.n / nullif(p.n::numeric * t.k, 0))::numeric(18,9), cs_internal.rate(p.k, t.k), p.customers,
		CASE WHEN p.part = '(all)' THEN (SELECT c.auc FROM curve c) END,
		CASE WHEN p.part IN ('(all)', 'red') THEN (SELECT l.days FROM lead l) END,
		(SELECT count(*) FROM observed o WHERE o.outcome = 'announced' AND p.part IN (o.part, '(all)')),
		(SELECT count(DISTINCT o.as_of) FROM observed o)
	FROM parts p CROSS JOIN total t CROSS JOIN cs.policy y
	ORDER BY p.place
$$;
COMMENT ON FUNCTION cs_internal.backtest_scorecard(text, timestamptz, timestamptz, interval) IS 'See cs.backtest_scorecard.';

CREATE FUNCTION cs.backtest_scorecard(card text, since timestamptz, until timestamptz DEFAULT NULL, horizon interval DEFAULT '90 days')
RETURNS TABLE (band text, observations bigint, churned bigint, rate numeric(18,9), ci_low numeric(18,9), ci_high numeric(18,9), lift numeric(18,9),
	share_of_churned numeric(18,9), customers_churned bigint, auc numeric(18,9), median_lead_days numeric(18,9), announced bigint, months bigint)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.backtest_scorecard(text, timestamptz, timestamptz, interval) IS 'Would the scorecard have told who leaves? Scores as of each month start in [since, until) (NULL: now) whose horizon is over, against the churn within the horizon: a row each for red, yellow, green, (no score) and (all) with observations (customer and month), how many churned, the rate with its Wilson interval, lift (rate over the rate of all), the band''s share of what churned, churned customers, announced (notice given before: not counted) and months. rate and share_of_churned of red are its precision and recall. auc, in (all): the chance that one who churned had the lower score, 0.5 says nothing. median_lead_days, in red and (all): from the first red since the last green to the event, of churned customers that were red. The months of a customer resemble each other, so intervals are narrower than they should be. Stores nothing; writes and rolls back, so not in a read-only transaction.';

-- ---- forms: since and until as timestamp, date and text ------------------------

DO $forms$
DECLARE
	f record;
	c text;
	t text;
	signature text;
BEGIN
	FOR f IN
		SELECT p.oid, p.proname, obj_description(p.oid) AS comment, pg_get_function_arguments(p.oid) AS args,
			pg_get_function_result(p.oid) AS result, CASE p.provolatile WHEN 's' THEN 'STABLE' ELSE 'VOLATILE' END AS volatility,
			CASE WHEN pg_get_function_arguments(p.oid) LIKE 'customer text%' THEN '{text,bigint,uuid}'::text[] ELSE '{text}' END AS customers
		FROM pg_proc p
		WHERE p.pronamespace = 'cs'::regnamespace
			AND p.proname IN ('health_diff', 'health_restatement', 'backtest_observations', 'backtest_churned', 'backtest_scorecard')
		ORDER BY p.proname
	LOOP
		FOREACH c IN ARRAY f.customers LOOP
			FOREACH t IN ARRAY '{timestamptz,timestamp,date,text}'::text[] LOOP
				CONTINUE WHEN c = 'text' AND t = 'timestamptz';
				signature := regexp_replace(f.args, '^customer text', 'customer ' || c);
				IF t <> 'timestamptz' THEN
					-- since has no default here, or a call without it would fit all forms
					signature := regexp_replace(signature, '\msince timestamp with time zone(?: DEFAULT [^,]+)?', 'since ' || t);
					signature := regexp_replace(signature, '\muntil timestamp with time zone DEFAULT [^,]+', 'until ' || t || ' DEFAULT NULL');
				END IF;
				EXECUTE format('CREATE FUNCTION cs.%I(%s) RETURNS %s LANGUAGE c %s AS ''MODULE_PATHNAME'', ''cs_gate''', f.proname, signature, f.result, f.volatility);
				EXECUTE format('COMMENT ON FUNCTION cs.%I(%s) IS %L', f.proname, regexp_replace(signature, ' DEFAULT [^,]+', '', 'g'), f.comment);
			END LOOP;
		END LOOP;
	END LOOP;
END $forms$;
