
-- ---------------------------------------------------------------------------
-- term: what churn asks of subscription rows beside money: when a term ends,
-- how many seats there are. Read from the facts at each call, nothing is kept.
-- ---------------------------------------------------------------------------

CREATE FUNCTION cs_internal.term_rows(ids text[] DEFAULT NULL)
RETURNS TABLE (customer_id text, source text, subscription_id text, start_at timestamptz, end_at timestamptz,
	renews_at timestamptz, term_months integer, seats numeric, mrr numeric, currency text, product text, status text, counts boolean,
	row_start timestamptz, goes_on boolean)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_term_rows_sql';
COMMENT ON FUNCTION cs_internal.term_rows(text[]) IS
'Usable rows of subscription and licence sources, of these customers (NULL: all), as known now; counts is false for trials, one-off rows and statuses without MRR. A row that is overwritten in place has a row a version: row_start is where the first began, goes_on whether the next one follows and counts.';

-- Product and term of a customer: those of the row that runs at the instant and
-- carries most. known is false where a source cannot be read (and may_fail).
CREATE FUNCTION cs_internal.main_term(ids text[], at timestamptz, may_fail boolean)
RETURNS TABLE (customer_id text, product text, term_months integer, known boolean)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	WITH span AS MATERIALIZED (
		SELECT m.* FROM cs_internal.merge_span() m
	)
	SELECT DISTINCT ON (w.id) w.id, r.product, r.term_months, true
	FROM (SELECT main_term.at + cs_internal.edge_shift()) e (at)
	-- rows of who was merged with them, too
	CROSS JOIN cs_internal.term_rows(CASE WHEN ids IS NOT NULL THEN ids || ARRAY(SELECT m.id FROM span m WHERE m.owner = ANY (ids) AND m.id <> m.owner) END) r
	LEFT JOIN span o ON o.id = r.customer_id AND o.since < e.at AND o.until >= e.at
	CROSS JOIN LATERAL (SELECT coalesce(o.owner, r.customer_id) COLLATE "C") w (id)
	WHERE r.counts AND r.status <> 'licence' AND r.start_at < e.at AND (r.end_at IS NULL OR r.end_at >= e.at)
		AND (ids IS NULL OR w.id = ANY (ids))
	ORDER BY w.id, r.mrr DESC NULLS LAST, r.start_at, r.subscription_id, r.product;
EXCEPTION WHEN OTHERS THEN
	IF NOT may_fail THEN
		RAISE;
	END IF;
	RETURN QUERY SELECT u.id COLLATE "C", NULL::text, NULL::integer, false FROM unnest(ids) u (id);
END $$;
COMMENT ON FUNCTION cs_internal.main_term(text[], timestamptz, boolean) IS
'Product and term_months of the subscription row with the largest MRR that runs just before an instant, per customer (ids NULL: all); customers without one have no row.';

-- What a dimension by attribute takes of a customer: the value of that key, or
-- where there is no such key what cs_ext itself knows by that name.
CREATE FUNCTION cs_internal.attribute_of(ids text[], at timestamptz, dimensions text[], may_fail boolean)
RETURNS TABLE (customer_id text, dimension text, value text, known boolean)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
	by_term boolean := EXISTS (SELECT FROM cs.dimension d WHERE d.name = ANY (dimensions) AND d.attribute IN ('product', 'term_months'));
BEGIN
	RETURN QUERY
	WITH term AS MATERIALIZED (
		SELECT t.* FROM cs_internal.main_term(ids, attribute_of.at, may_fail) t WHERE by_term
	)
	SELECT c.customer_id, d.name,
		coalesce(c.attributes ->> d.attribute, CASE d.attribute WHEN 'owner' THEN c.owner WHEN 'product' THEN t.product WHEN 'term_months' THEN t.term_months::text END),
		coalesce(t.known, true) OR d.attribute NOT IN ('product', 'term_months')
	FROM (
		-- not as one condition with OR, with which a first refresh takes a tenth longer
		SELECT a.customer_id, a.attributes, a.owner FROM cs_internal.customer a WHERE ids IS NULL
		UNION ALL
		SELECT b.customer_id, b.attributes, b.owner FROM cs_internal.customer b WHERE b.customer_id = ANY (ids)
	) c
	CROSS JOIN cs.dimension d
	LEFT JOIN term t ON t.customer_id = c.customer_id
	WHERE d.name = ANY (dimensions);
END $$;
COMMENT ON FUNCTION cs_internal.attribute_of(text[], timestamptz, text[], boolean) IS
'The value of each customer (ids NULL: of all) in dimensions by attribute; known is false where its sources cannot be read.';

-- Merged customers: from when to when the facts of an id count for whom. Ids
-- that were never merged have no row.
CREATE FUNCTION cs_internal.merge_span() RETURNS TABLE (id text, owner text, since timestamptz, until timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_merge_span_sql';
COMMENT ON FUNCTION cs_internal.merge_span() IS
'For ids that were merged: whose facts theirs are, from when to when (-infinity, infinity: ever).';

-- Subscription and licence rows that count, cut where customers were merged:
-- cut_start and cut_end say that a bound is such a cut, row_start where the row
-- itself begins, goes_on that the row goes on there as another version.
CREATE FUNCTION cs_internal.term_piece(licences boolean)
RETURNS TABLE (customer_id text, start_at timestamptz, end_at timestamptz, row_start timestamptz, cut_start boolean, cut_end boolean,
	renews_at timestamptz, term_months integer, seats numeric, goes_on boolean)
LANGUAGE sql STABLE AS $$
	SELECT coalesce(o.owner, r.customer_id) COLLATE "C", greatest(r.start_at, o.since), nullif(least(coalesce(r.end_at, 'infinity'), o.until), 'infinity'),
		r.row_start, o.since > r.start_at AND o.id IS NOT NULL, o.until < coalesce(r.end_at, 'infinity') AND o.id IS NOT NULL,
		r.renews_at, r.term_months, r.seats, r.goes_on
	FROM cs_internal.term_rows() r
	LEFT JOIN cs_internal.merge_span() o ON o.id = r.customer_id AND o.since < coalesce(r.end_at, 'infinity') AND o.until > r.start_at
	WHERE r.counts AND (r.end_at IS NULL OR r.end_at > r.start_at) AND (r.status = 'licence') = licences
$$;
COMMENT ON FUNCTION cs_internal.term_piece(boolean) IS 'Rows of licences, or of subscriptions that carry MRR, by the customer they count for.';

-- Movements of seats, in the columns of cs_internal.movement: seats of licences
-- where a licence source exists, else of subscription rows that carry MRR.
CREATE FUNCTION cs_internal.seat_movement()
RETURNS TABLE (customer_id text, at timestamptz, seq smallint, kind text, delta numeric, mrr_after numeric, active_after boolean, churn_kind text, reason text)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	SELECT b.customer_id, b.at, 0::smallint,
		CASE WHEN b.merged THEN CASE WHEN b.delta > 0 THEN 'merge_in' ELSE 'merge_out' END
			WHEN b.after <= 0 THEN 'churn'
			WHEN b.after - b.delta <= 0 THEN CASE WHEN b.n = 1 THEN 'new' ELSE 'reactivation' END
			WHEN b.delta > 0 THEN 'expansion' ELSE 'contraction' END,
		b.delta, b.after, b.after > 0, NULL::text, NULL::text
	FROM (
		SELECT a.customer_id, a.at, a.delta, a.merged, sum(a.delta) OVER w AS after, row_number() OVER w AS n
		FROM (
			SELECT e.customer_id, e.at, sum(e.seats) AS delta, bool_or(e.merged) AS merged
			FROM (
				SELECT p.customer_id, x.at, x.seats, x.merged
				FROM cs_internal.term_piece(EXISTS (SELECT FROM cs.source s WHERE s.kind = 'licence' AND s.enabled)) p
				CROSS JOIN LATERAL (VALUES (p.start_at, p.seats, p.cut_start), (p.end_at, -p.seats, p.cut_end)) x (at, seats, merged)
				WHERE p.seats > 0 AND x.at IS NOT NULL
			) e
			GROUP BY e.customer_id, e.at
			HAVING sum(e.seats) <> 0
		) a
		WINDOW w AS (PARTITION BY a.customer_id ORDER BY a.at)
	) b;
END $$;
COMMENT ON FUNCTION cs_internal.seat_movement() IS
'Changes of the number of seats a customer pays for, one row a customer and instant; delta and mrr_after are seats.';

-- When terms end. The end of a row is one; so is every term_months from its
-- start, and renews_at. A row of known term that is cut short and goes on at
-- that instant in another row (an upgrade) has not come to its term.
CREATE FUNCTION cs_internal.term_due(bounds timestamptz[], until timestamptz)
RETURNS TABLE (customer_id text, period_no integer, due_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	WITH item AS MATERIALIZED (
		SELECT p.* FROM cs_internal.term_piece(false) p WHERE p.start_at < until
	), due AS (
		SELECT i.customer_id, i.end_at AS at FROM item i
		WHERE i.end_at IS NOT NULL AND NOT i.cut_end AND NOT i.goes_on AND (i.term_months IS NULL OR NOT EXISTS (
			SELECT FROM item o WHERE o.customer_id = i.customer_id AND o.start_at = i.end_at AND NOT o.cut_start))
		UNION ALL
		SELECT i.customer_id, i.renews_at FROM item i
		WHERE i.renews_at > i.start_at AND (i.end_at IS NULL OR i.renews_at <= i.end_at)
		UNION ALL
		-- from the start each time: adding on would drift at the ends of months
		SELECT i.customer_id, k.at
		FROM item i
		CROSS JOIN LATERAL (
			SELECT i.row_start + make_interval(months => n * i.term_months)
			FROM generate_series(1, (12 + extract(year FROM age(least(i.end_at, until), i.row_start)) * 12)::integer / greatest(i.term_months, 1) + 1) n) k (at)
		WHERE i.term_months > 0 AND k.at > i.start_at AND (i.end_at IS NULL OR k.at <= i.end_at)
	)
	SELECT d.customer_id, width_bucket(d.at - (SELECT cs_internal.edge_shift()), bounds), min(d.at)
	FROM due d
	WHERE d.at - (SELECT cs_internal.edge_shift()) >= bounds[1] AND d.at - (SELECT cs_internal.edge_shift()) < until
	GROUP BY 1, 2;
END $$;
COMMENT ON FUNCTION cs_internal.term_due(timestamptz[], timestamptz) IS
'Customers with a term that ends in a period, and when the first of them does; periods as in customer_flow.';

-- Who used the product: at each bound and at the end, an event in the days
-- before the bound's local day; the day itself is out.
CREATE FUNCTION cs_internal.usage_activity(bounds timestamptz[], until timestamptz)
RETURNS TABLE (customer_id text, bound_no integer)
LANGUAGE sql STABLE AS $$
	SELECT w.id, b.n::integer
	FROM cs.policy p
	CROSS JOIN LATERAL unnest(bounds || until) WITH ORDINALITY AS b (at, n)
	CROSS JOIN LATERAL (SELECT (b.at AT TIME ZONE p.time_zone)::date AS day) d
	JOIN cs_internal.usage_piece u ON u.month < d.day AND u.month >= date_trunc('month', d.day::timestamp - make_interval(days => p.inactivity_days))::date
	-- what merged customers do is done by whom they count for at the bound
	LEFT JOIN cs_internal.merge_span() o ON o.id = u.customer_id AND o.since < b.at + cs_internal.edge_shift() AND o.until >= b.at + cs_internal.edge_shift()
	CROSS JOIN LATERAL (SELECT coalesce(o.owner, u.customer_id) COLLATE "C") w (id)
	GROUP BY w.id, b.n, d.day, p.inactivity_days
	HAVING EXISTS (SELECT FROM cs_internal.customer c WHERE c.customer_id = w.id)       -- orphans have usage too
		AND min(cs.days_since(cs.usage_at(u.usage, d.day), NULL)) <= p.inactivity_days
$$;
COMMENT ON FUNCTION cs_internal.usage_activity(timestamptz[], timestamptz) IS
'Customers with a usage event in the policy.inactivity_days local days before a bound, by the number of the bound; the last one is until.';
