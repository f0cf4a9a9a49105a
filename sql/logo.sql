
-- ---------------------------------------------------------------------------
-- logo: what counts as one customer (policy.logo_level).
--
--   customer   each customer by itself
--   parent     customers under one parent are one account: it is active while
--              any of them is, and its MRR is the sum of theirs
--
-- Only counts follow it: the unit logo, customers_start and customers_end, what
-- is divided by them. Money stays that of the customers, so that choosing a
-- level changes no amount. An account goes by the id of its topmost parent,
-- which need not be a customer itself; parents are those of today.
-- ---------------------------------------------------------------------------

-- Who has a parent. A circle of parents goes by the least id in it.
CREATE FUNCTION cs_internal.account_of() RETURNS TABLE (customer_id text, account_id text)
LANGUAGE sql STABLE AS $$
	WITH RECURSIVE child AS MATERIALIZED (
		SELECT c.customer_id, c.parent_id COLLATE "C" AS parent_id
		FROM cs_internal.customer c WHERE c.parent_id <> c.customer_id AND c.parent_id <> ''
	), up AS (
		SELECT c.customer_id, c.parent_id FROM child c
		UNION
		SELECT u.customer_id, c.parent_id FROM up u JOIN child c ON c.customer_id = u.parent_id
	)
	SELECT u.customer_id, coalesce(min(u.parent_id) FILTER (WHERE c.customer_id IS NULL), min(u.parent_id))
	FROM up u
	LEFT JOIN child c ON c.customer_id = u.parent_id
	GROUP BY u.customer_id
$$;
COMMENT ON FUNCTION cs_internal.account_of() IS 'The account of each customer that has a parent: its topmost parent. Others have no row, they are their own.';

-- measure: what the flows of a unit are taken from.
CREATE FUNCTION cs_internal.measure_of(unit text) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT CASE WHEN unit = 'seats' THEN 'seats' WHEN unit = 'logo' AND p.logo_level = 'parent' THEN 'logo' ELSE 'mrr' END FROM cs.policy p
$$;
COMMENT ON FUNCTION cs_internal.measure_of(text) IS 'Whose flows a unit of churn counts: mrr (of customers), seats, or logo (accounts, where policy.logo_level is parent).';

-- Movements of accounts, in the columns of cs_internal.movement: what its
-- customers did at an instant is one row, so that a customer that goes over to
-- another one of the same account is nothing. Of kinds only churn and merge_out
-- mean anything: the account stops being active. Not SQL, so that who asks for
-- customers does not plan this with it.
CREATE FUNCTION cs_internal.logo_movement()
RETURNS TABLE (customer_id text, at timestamptz, seq smallint, kind text, delta numeric, mrr_after numeric, active_after boolean, churn_kind text, reason text)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	WITH step AS (
		SELECT coalesce(a.account_id, m.customer_id) AS account_id, m.customer_id, m.at, m.kind, m.delta, m.churn_kind, m.reason,
			m.active_after::integer - lag(m.active_after::integer, 1, 0) OVER (PARTITION BY m.customer_id ORDER BY m.at, m.seq) AS turn
		FROM cs_internal.movement m
		LEFT JOIN cs_internal.account_of() a ON a.customer_id = m.customer_id
	), net AS (
		SELECT s.account_id, s.at, sum(s.delta) AS delta, sum(s.turn) AS turn,
			bool_or(s.kind = 'churn') AS churned, bool_or(s.kind = 'merge_out') AS merged,
			-- of several that left at once, what the largest says
			(array_agg(s.churn_kind ORDER BY s.delta, s.customer_id) FILTER (WHERE s.kind = 'churn'))[1] AS churn_kind,
			(array_agg(s.reason ORDER BY s.delta, s.customer_id) FILTER (WHERE s.kind = 'churn'))[1] AS reason
		FROM step s
		GROUP BY s.account_id, s.at
	), run AS (
		SELECT n.*, sum(n.delta) OVER w AS mrr_after, sum(n.turn) OVER w AS active
		FROM net n
		WINDOW w AS (PARTITION BY n.account_id ORDER BY n.at)
	)
	SELECT r.account_id, r.at, 0::smallint, k.kind, r.delta, r.mrr_after, r.active > 0,
		CASE WHEN k.kind = 'churn' THEN r.churn_kind END, CASE WHEN k.kind = 'churn' THEN r.reason END
	FROM run r
	CROSS JOIN LATERAL (SELECT CASE WHEN r.active > 0 OR r.turn >= 0 THEN 'change' WHEN r.merged AND NOT r.churned THEN 'merge_out' ELSE 'churn' END) k (kind);
END $$;
COMMENT ON FUNCTION cs_internal.logo_movement() IS
'When accounts start and stop being active, and their MRR: one row an account and instant at which any of its customers has a movement.';

CREATE FUNCTION cs_internal.moves(measure text)
RETURNS TABLE (customer_id text, at timestamptz, seq smallint, kind text, delta numeric, mrr_after numeric, active_after boolean, churn_kind text, reason text)
LANGUAGE sql STABLE AS $$
	SELECT m.customer_id, m.at, m.seq, m.kind, m.delta, m.mrr_after, m.active_after, m.churn_kind, m.reason
	FROM cs_internal.movement m WHERE measure = 'mrr'
	UNION ALL
	SELECT s.customer_id, s.at, s.seq, s.kind, s.delta, s.mrr_after, s.active_after, s.churn_kind, s.reason
	FROM cs_internal.seat_movement() s WHERE measure = 'seats'
	UNION ALL
	SELECT l.customer_id, l.at, l.seq, l.kind, l.delta, l.mrr_after, l.active_after, l.churn_kind, l.reason
	FROM cs_internal.logo_movement() l WHERE measure = 'logo'
$$;
COMMENT ON FUNCTION cs_internal.moves(text) IS 'The movements of MRR, or those of seats or of accounts in the same columns.';

-- An account stands where its customer with the largest MRR just before the
-- instant stands, as a customer has the product of its largest subscription. Of
-- customers that pay the same, none perhaps: who is active, then the parent, then the least id.
CREATE FUNCTION cs_internal.account_at(dimension text, at timestamptz, basis text)
RETURNS TABLE (customer_id text, segment text, active boolean, mrr numeric)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	SELECT DISTINCT ON (x.account_id) x.account_id, s.segment, bool_or(x.active) OVER w, sum(x.mrr) OVER w
	FROM (
		SELECT coalesce(a.account_id, i.customer_id) AS account_id, i.customer_id, coalesce(b.mrr_after, 0) AS mrr, coalesce(b.active_after, false) AS active
		FROM (SELECT c.customer_id FROM cs_internal.customer c UNION SELECT m.customer_id FROM cs_internal.movement m) i
		LEFT JOIN cs_internal.account_of() a ON a.customer_id = i.customer_id
		LEFT JOIN (
			SELECT DISTINCT ON (m.customer_id) m.customer_id, m.mrr_after, m.active_after
			FROM cs_internal.movement m
			WHERE m.at < account_at.at + (SELECT cs_internal.edge_shift())
			ORDER BY m.customer_id, m.at DESC, m.seq DESC
		) b ON b.customer_id = i.customer_id
	) x
	LEFT JOIN cs_internal.segment_at(account_at.dimension, account_at.at, basis) s ON s.customer_id = x.customer_id
	WINDOW w AS (PARTITION BY x.account_id)
	ORDER BY x.account_id, x.mrr DESC, x.active DESC, x.customer_id <> x.account_id, x.customer_id;
END $$;
COMMENT ON FUNCTION cs_internal.account_at(text, timestamptz, text) IS
'Every account just before an instant (on it with period_edge at): whether it is active, its MRR, and the segment it stands in, NULL for none.';

CREATE FUNCTION cs_internal.place_at(measure text, dimension text, at timestamptz, basis text)
RETURNS TABLE (customer_id text, segment text)
LANGUAGE sql STABLE AS $$
	SELECT s.customer_id, s.segment FROM cs_internal.segment_at(place_at.dimension, place_at.at, basis) s WHERE measure <> 'logo'
	UNION ALL
	SELECT a.customer_id, a.segment FROM cs_internal.account_at(place_at.dimension, place_at.at, basis) a
	WHERE measure = 'logo' AND place_at.dimension IS NOT NULL
$$;
COMMENT ON FUNCTION cs_internal.place_at(text, text, timestamptz, text) IS 'Who is in which segment of a dimension at an instant, by the ids that moves(measure) has.';

CREATE FUNCTION cs_internal.logos_at(dimension text, segment text, at timestamptz, basis text)
RETURNS TABLE (in_segment text, logos bigint)
LANGUAGE sql STABLE AS $$
	SELECT x.in_segment, count(*)
	FROM (
		SELECT CASE WHEN logos_at.dimension IS NULL THEN '(total)' ELSE coalesce(a.segment, '(none)') END AS in_segment
		FROM cs_internal.account_at(logos_at.dimension, logos_at.at, basis) a
		WHERE a.active
	) x
	WHERE logos_at.segment IS NULL OR x.in_segment = logos_at.segment
	GROUP BY x.in_segment
$$;
COMMENT ON FUNCTION cs_internal.logos_at(text, text, timestamptz, text) IS 'Active accounts at an instant, by segment; without a dimension as (total).';

-- No row where customers are what counts: the flows of money have their number.
CREATE FUNCTION cs_internal.logos_between(t0 timestamptz, t1 timestamptz, dimension text, segment text, basis text)
RETURNS TABLE (in_segment text, customers_start bigint, customers_end bigint)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_variable
BEGIN
	IF cs_internal.measure_of('logo') <> 'logo' THEN
		RETURN;
	END IF;
	RETURN QUERY
	SELECT x.name, sum(x.at_start)::bigint, sum(x.at_end)::bigint
	FROM (
		SELECT a.in_segment, a.logos, 0 FROM cs_internal.logos_at(dimension, segment, t0, basis) a
		UNION ALL
		SELECT z.in_segment, 0, z.logos FROM cs_internal.logos_at(dimension, segment, t1, basis) z
		UNION ALL
		SELECT CASE WHEN dimension IS NULL THEN '(total)' ELSE coalesce(segment, '(none)') END, 0, 0
	) x (name, at_start, at_end)
	GROUP BY x.name;
END $$;
COMMENT ON FUNCTION cs_internal.logos_between(timestamptz, timestamptz, text, text, text) IS
'With policy.logo_level parent, active accounts at both instants, each where it stands then: a row a segment, at least one; otherwise no row.';

CREATE FUNCTION cs_internal.logo_periods(bounds timestamptz[], dimension text)
RETURNS TABLE (period_no integer, in_segment text, customers_start bigint, customers_end bigint)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_variable
DECLARE
	basis text := cs_internal.basis_of(dimension);
BEGIN
	IF cs_internal.measure_of('logo') <> 'logo' THEN
		RETURN;
	END IF;
	RETURN QUERY
	WITH counted AS MATERIALIZED (
		SELECT b.n::integer AS n, l.in_segment, l.logos
		FROM unnest(bounds) WITH ORDINALITY b (at, n)
		CROSS JOIN LATERAL cs_internal.logos_at(dimension, NULL, b.at, basis) l
	)
	SELECT x.period_no, x.in_segment, sum(x.at_start)::bigint, sum(x.at_end)::bigint
	FROM (
		SELECT c.n, c.in_segment, c.logos, 0 FROM counted c
		UNION ALL
		SELECT c.n - 1, c.in_segment, 0, c.logos FROM counted c
	) x (period_no, in_segment, at_start, at_end)
	WHERE x.period_no BETWEEN 1 AND cardinality(bounds) - 1
	GROUP BY 1, 2;
END $$;
COMMENT ON FUNCTION cs_internal.logo_periods(timestamptz[], text) IS
'As logos_between of each of the periods that the ascending bounds cut; who has no row has no account.';
