
-- ---------------------------------------------------------------------------
-- check: what must hold between numbers, tried on the user's own data.
--
-- Each invariant stands in a function of its own that gives violations; what is
-- compared comes, as far as it can, by two ways: the functions people call, and
-- a plain query over the ledger, the facts or the stages.
--
--   balance       the chain of movements of each customer, kinds, and the state
--   roll_forward  MRR and customers from bound to bound, GRR and NRR
--   drill_down    churn_customers against churn, by every method and unit
--   segment       parts and transfers against the total
--   session       the same under other settings and plans
--   cohort        a quarter against the months of the same customers
--   touching      facts cut in two, through the sweep
--   recompute     the kept state against the stages run anew
-- ---------------------------------------------------------------------------

CREATE TYPE cs_internal.violation AS (
	invariant text,
	period text,
	customer_id text,
	expected text,
	got text,
	detail text
);

-- What stands just before an instant (on it with period_edge at), by nothing but the last movement of each.
CREATE FUNCTION cs_internal.balance_before(bound timestamptz, OUT customers bigint, OUT mrr numeric)
LANGUAGE sql STABLE AS $$
	SELECT count(DISTINCT coalesce(a.account_id, b.customer_id)) FILTER (WHERE b.active_after), coalesce(sum(b.mrr_after), 0)
	FROM (
		SELECT DISTINCT ON (m.customer_id) m.customer_id, m.mrr_after, m.active_after
		FROM cs_internal.movement m
		WHERE m.at < bound + (SELECT cs_internal.edge_shift())
		ORDER BY m.customer_id, m.at DESC, m.seq DESC) b
	LEFT JOIN cs_internal.account_of() a ON a.customer_id = b.customer_id AND cs_internal.measure_of('logo') = 'logo'
$$;
COMMENT ON FUNCTION cs_internal.balance_before(timestamptz) IS 'Active customers (or accounts, by policy.logo_level) and their MRR at a bound, from the ledger alone.';

-- The months that hold an instant of [since, until), as period words.
CREATE FUNCTION cs_internal.check_months(since timestamptz, until timestamptz)
RETURNS TABLE (word text, t0 timestamptz, t1 timestamptz, complete boolean)
LANGUAGE sql STABLE AS $$
	SELECT to_char(b.months[n], 'YYYY-MM'), b.bounds[n], least(coalesce(b.bounds[n + 1], cs_internal.now()), cs_internal.now()), n < cardinality(b.bounds)
	FROM cs_internal.month_bound(cs_internal.now()) b
	CROSS JOIN LATERAL generate_subscripts(b.bounds, 1) n
	WHERE coalesce(b.bounds[n + 1], 'infinity') > since AND b.bounds[n] < until AND b.months[n] < date '10000-01-01'
	ORDER BY n
$$;
COMMENT ON FUNCTION cs_internal.check_months(timestamptz, timestamptz) IS 'Months from the first movement to now that hold an instant of [since, until), as period words.';

-- ---- balance -------------------------------------------------------------------

CREATE FUNCTION cs_internal.violations_balance(since timestamptz, until timestamptz)
RETURNS SETOF cs_internal.violation
LANGUAGE sql STABLE AS $$
	WITH chain AS (
		SELECT m.*, coalesce(lag(m.mrr_after) OVER w, 0) AS before, coalesce(lag(m.active_after) OVER w, false) AS was_active,
			coalesce(bool_or(m.mrr_after > 0) OVER past, false) AS paid_before
		FROM cs_internal.movement m
		WHERE EXISTS (SELECT FROM cs_internal.movement x WHERE x.customer_id = m.customer_id AND x.at >= since AND x.at < until)
		WINDOW w AS (PARTITION BY m.customer_id ORDER BY m.at, m.seq),
			past AS (PARTITION BY m.customer_id ORDER BY m.at, m.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
	)
	SELECT 'roll_forward', c.at::text, c.customer_id, (c.before + c.delta)::text, c.mrr_after::text, format('MRR after the %s of %s', c.kind, c.delta)
	FROM chain c WHERE c.mrr_after <> c.before + c.delta AND c.at >= since AND c.at < until
	UNION ALL
	SELECT 'movement_kind', c.at::text, c.customer_id, w.expected, format('%s of %s', c.kind, c.delta), w.detail
	FROM chain c
	CROSS JOIN LATERAL (VALUES
		('a gain', 'the MRR of this kind rises', c.kind IN ('new', 'reactivation', 'expansion', 'resume', 'merge_in') AND c.delta < 0),
		('a loss', 'the MRR of this kind falls', c.kind IN ('contraction', 'churn', 'pause', 'merge_out') AND c.delta > 0),
		('a reactivation', 'there was MRR before', c.kind = 'new' AND c.paid_before AND (SELECT p.reactivation_days IS NULL FROM cs.policy p)),
		('no churn', 'the customer was not active before', c.kind = 'churn' AND NOT c.was_active),
		('no churn', 'the customer is active after', c.kind = 'churn' AND c.active_after),
		('a churn', 'the customer is no longer active', c.was_active AND NOT c.active_after AND c.kind NOT IN ('churn', 'merge_out', 'fx')),
		('active', 'there is MRR after', c.mrr_after > 0 AND NOT c.active_after)) w (expected, detail, broken)
	WHERE w.broken AND c.at >= since AND c.at < until
	UNION ALL
	-- a merge moves MRR and makes none
	SELECT 'merge', m.at::text, NULL, '0', sum(m.delta)::text, 'what merges took out and put in at one instant'
	FROM cs_internal.movement m
	WHERE m.kind IN ('merge_in', 'merge_out') AND m.at >= since AND m.at < until
	GROUP BY m.at HAVING sum(m.delta) <> 0
	UNION ALL
	-- the state of who waits for nothing is what the ledger says at the last evaluation
	SELECT 'state', k.last_as_of::text, s.customer_id, format('MRR %s, active %s', coalesce(b.mrr_after, 0), coalesce(b.active_after, false)),
		format('MRR %s, active %s', s.mrr, s.active), 'kept state against the ledger'
	FROM cs_internal.clock k
	JOIN cs_internal.state s ON s.mrr IS NOT NULL AND s.ahead IS NULL
	LEFT JOIN LATERAL (
		SELECT m.mrr_after, m.active_after FROM cs_internal.movement m
		WHERE m.customer_id = s.customer_id AND m.at < k.last_as_of + (SELECT cs_internal.edge_shift())
		ORDER BY m.at DESC, m.seq DESC LIMIT 1) b ON true
	WHERE k.last_as_of >= since AND k.last_as_of <= until
		AND (coalesce(b.mrr_after, 0), coalesce(b.active_after, false)) IS DISTINCT FROM (s.mrr, s.active)
		AND NOT EXISTS (SELECT FROM cs_internal.dirty d WHERE d.customer_id = s.customer_id)
		AND coalesce(s.due_at > k.last_as_of, true)
$$;
COMMENT ON FUNCTION cs_internal.violations_balance(timestamptz, timestamptz) IS
'Breaks in the chain of movements: a balance that is not the one before plus the delta, a kind that does not fit, merges that make money, a state that is not the ledger''s.';

-- ---- from bound to bound ---------------------------------------------------------

CREATE FUNCTION cs_internal.violations_roll_forward(since timestamptz, until timestamptz)
RETURNS SETOF cs_internal.violation
LANGUAGE plpgsql STABLE SET jit = off AS $$
DECLARE
	m record;
BEGIN
	FOR m IN
		SELECT c.*, o.customers AS n0, o.mrr AS m0, e.customers AS n1, e.mrr AS m1
		FROM cs_internal.check_months(since, until) c
		CROSS JOIN LATERAL cs_internal.balance_before(c.t0) o
		CROSS JOIN LATERAL cs_internal.balance_before(c.t1) e
	LOOP
		RETURN QUERY
		WITH basis AS MATERIALIZED (
			SELECT r.*, r.mrr_start + r.new_mrr + r.reactivation_mrr + r.expansion_mrr + r.resume_mrr + r.merge_in
				- r.contraction_mrr - r.churn_mrr - r.pause_mrr - r.merge_out + r.fx_mrr AS rolled
			FROM unnest('{ledger,endpoints}'::text[]) b (basis)
			CROSS JOIN LATERAL cs_internal.revenue(m.word, NULL, b.basis) r
		), customer AS MATERIALIZED (
			SELECT c.* FROM cs_internal.churn_customers(m.word, NULL, 'snapshot', 'gross_mrr') c
		), logo AS MATERIALIZED (
			SELECT c.* FROM cs_internal.churn_customers(m.word, NULL, 'snapshot', 'logo') c
		), cohort AS (
			-- who had MRR at the start, or had it before: a free customer's first payment is new
			SELECT sum(c.mrr_start) AS m0, sum(greatest(c.mrr_end - c.mrr_start, 0)) AS gained, sum(greatest(c.mrr_start - c.mrr_end, 0)) AS lost
			FROM customer c
			WHERE c.in_denominator AND (c.mrr_start > 0 OR EXISTS (SELECT FROM cs_internal.movement x
				WHERE x.customer_id = c.customer_id AND x.mrr_after > 0 AND x.at < m.t0 + cs_internal.edge_shift()))
		), counted AS (
			SELECT count(*) FILTER (WHERE c.part IN ('churned', 'retained', 'left_and_returned', 'merged')) AS n0,
				count(*) FILTER (WHERE c.part IN ('retained', 'left_and_returned', 'joined', 'reactivated')) AS n1,
				sum(c.mrr_start) AS m0, sum(c.mrr_end) AS m1
			FROM logo c
		)
		SELECT 'roll_forward', m.word, NULL::text, v.expected::text, v.got::text, v.detail
		FROM basis b
		CROSS JOIN LATERAL (VALUES
			(b.rolled, b.mrr_end, format('revenue, basis %s: what the start and the flows come to, and mrr_end', b.basis)),
			(m.m0::numeric(20,6), b.mrr_start, format('revenue, basis %s: mrr_start and the balance of the ledger', b.basis)),
			(m.m1::numeric(20,6), b.mrr_end, format('revenue, basis %s: mrr_end and the balance of the ledger', b.basis)),
			(m.n0, b.customers_start, format('revenue, basis %s: customers_start and the ledger', b.basis)),
			(m.n1, b.customers_end, format('revenue, basis %s: customers_end and the ledger', b.basis))) v (expected, got, detail)
		WHERE v.expected IS DISTINCT FROM v.got
		UNION ALL
		SELECT 'grr_nrr', m.word, NULL, v.expected, v.got::text, v.detail
		FROM basis b
		CROSS JOIN LATERAL (VALUES
			('0 to 1', b.grr, format('grr, basis %s', b.basis), b.grr NOT BETWEEN 0 AND 1),
			('at most nrr ' || b.nrr, b.grr, format('grr, basis %s', b.basis), b.grr > b.nrr + 0.000000001)) v (expected, got, detail, broken)
		WHERE v.broken
		UNION ALL
		SELECT 'grr_nrr', m.word, NULL, 'at most ' || e.grr, l.grr::text, 'grr of the movements and between the bounds'
		FROM basis l, basis e WHERE l.basis = 'ledger' AND e.basis = 'endpoints' AND l.grr > e.grr
		UNION ALL
		SELECT 'grr_nrr', m.word, NULL, (c.gained / e.mrr_start)::numeric(18,9)::text, (e.nrr - e.grr)::text, 'nrr - grr and what the customers of the start gained'
		FROM basis e, cohort c
		WHERE e.basis = 'endpoints' AND e.mrr_start > 0 AND abs(c.gained / e.mrr_start - (e.nrr - e.grr)) > 0.000000002
		UNION ALL
		SELECT 'endpoint_counts', m.word, NULL, v.expected::text, v.got::text, v.detail
		FROM counted c
		CROSS JOIN LATERAL (VALUES (m.n0, c.n0, 'customers of churn_customers there at the start, and the ledger'),
			(m.n1, c.n1, 'customers of churn_customers there at the end, and the ledger')) v (expected, got, detail)
		WHERE v.expected <> v.got
		UNION ALL
		SELECT 'endpoint_counts', m.word, NULL, v.expected::text, v.got::text, v.detail
		FROM counted c
		CROSS JOIN (SELECT sum(x.mrr_start) AS m0, sum(x.mrr_end) AS m1 FROM customer x) w
		CROSS JOIN LATERAL (VALUES (w.m0, c.m0, 'MRR at the start of the customers and of the logos of churn_customers'),
			(w.m1, c.m1, 'MRR at the end of the customers and of the logos of churn_customers')) v (expected, got, detail)
		WHERE v.expected <> v.got;
	END LOOP;
	-- the views by month say what the functions say of a month
	RETURN QUERY
	SELECT 'monthly_view', c.word, NULL::text, format('%s to %s', e.mrr_start, e.mrr_end), format('%s to %s', r.mrr_start, r.mrr_end), format('revenue_months, basis %s', b.basis)
	FROM unnest('{ledger,endpoints}'::text[]) b (basis)
	CROSS JOIN LATERAL cs_internal.revenue_months(b.basis) r
	JOIN cs_internal.check_months(since, until) c ON c.word = to_char(r.month, 'YYYY-MM')
	CROSS JOIN LATERAL cs_internal.revenue(c.word, NULL, b.basis) e
	WHERE (r.mrr_start, r.new_mrr, r.reactivation_mrr, r.expansion_mrr, r.contraction_mrr, r.churn_mrr, r.pause_mrr, r.resume_mrr, r.merge_in,
			r.merge_out, r.fx_mrr, r.mrr_end, r.customers_start, r.customers_end)
		IS DISTINCT FROM (e.mrr_start, e.new_mrr, e.reactivation_mrr, e.expansion_mrr, e.contraction_mrr, e.churn_mrr, e.pause_mrr, e.resume_mrr, e.merge_in,
			e.merge_out, e.fx_mrr, e.mrr_end, e.customers_start, e.customers_end)
	UNION ALL
	SELECT 'monthly_view', c.word, NULL, format('%s of %s', e.numerator, e.denominator), format('%s of %s', r.numerator, r.denominator), 'churn_months'
	FROM cs_internal.churn_months() r
	JOIN cs_internal.check_months(since, until) c ON c.word = to_char(r.month, 'YYYY-MM')
	CROSS JOIN LATERAL cs_internal.churn(c.word, NULL, NULL, NULL, NULL::timestamptz) e
	WHERE (r.numerator, r.denominator, r.rate) IS DISTINCT FROM (e.numerator, e.denominator, e.rate);
END $$;
COMMENT ON FUNCTION cs_internal.violations_roll_forward(timestamptz, timestamptz) IS
'Months whose start and flows do not come to their end, in money and customers, whose GRR and NRR cannot be, or that a view shows otherwise.';

-- ---- who is behind a number --------------------------------------------------------

CREATE FUNCTION cs_internal.violations_drill_down(since timestamptz, until timestamptz)
RETURNS SETOF cs_internal.violation
LANGUAGE plpgsql STABLE SET jit = off AS $$
DECLARE
	m record;
	method text;
	unit text;
	c record;
	sums record;
	expected text;
	got text;
BEGIN
	FOR m IN SELECT k.*, row_number() OVER (ORDER BY k.t0 DESC) AS back FROM cs_internal.check_months(since, until) k ORDER BY k.t0 LOOP
		FOREACH method IN ARRAY '{snapshot,rolling_base,event_over_start,event_of_start,daily_sum,eligible_base,activity}'::text[] LOOP
			FOREACH unit IN ARRAY '{logo,gross_mrr,net_mrr,seats}'::text[] LOOP
				-- some methods and units read the facts at each call
				CONTINUE WHEN CASE WHEN m.back > 2 THEN method <> 'snapshot' OR unit = 'seats' ELSE method <> 'snapshot' AND unit <> 'logo' AND m.back > 1 END;
				BEGIN
					SELECT * INTO c FROM cs_internal.churn(m.word, NULL, method, unit, NULL::timestamptz);
					SELECT coalesce(sum(x.numerator), 0) AS numerator, sum(x.denominator) AS denominator, count(DISTINCT x.customer_id) = count(*) AS once
					INTO sums
					FROM cs_internal.churn_customers(m.word, NULL, method, unit) x;
					expected := format('%s of %s', trim_scale(c.numerator), trim_scale(c.denominator));
					got := format('%s of %s', trim_scale(sums.numerator), CASE WHEN c.denominator IS NOT NULL THEN trim_scale(coalesce(sums.denominator, 0)) END);
					IF expected <> got OR NOT sums.once THEN
						RETURN NEXT ('drill_down', m.word, NULL, expected, got, format('churn and the sum of churn_customers, method %s, unit %s', method, unit))::cs_internal.violation;
					END IF;
				EXCEPTION WHEN feature_not_supported OR object_not_in_prerequisite_state THEN
					NULL;       -- a method or unit that this version or these sources do not have
				END;
			END LOOP;
		END LOOP;
	END LOOP;
END $$;
COMMENT ON FUNCTION cs_internal.violations_drill_down(timestamptz, timestamptz) IS 'Months in which the customers behind churn do not add up to it: by snapshot in customers and MRR, the last month by each method and unit there is, the one before by each method in customers.';

-- ---- by segment ------------------------------------------------------------------------

-- Without the notices of each call that there were no segments yet. Restated
-- segments are found by running the stages, so only the last two months are
-- looked at then.
CREATE FUNCTION cs_internal.violations_segment(since timestamptz, until timestamptz)
RETURNS SETOF cs_internal.violation
LANGUAGE plpgsql STABLE SET jit = off SET client_min_messages = warning AS $$
DECLARE
	d record;
	m record;
	u text;
	part text;            -- the segment most customers are in
	before_mrr numeric;   -- and how it closed the month before
	before_count bigint;
	r record;
BEGIN
	RETURN QUERY
	SELECT 'segment', greatest(a.valid_from, b.valid_from)::text, a.customer_id::text, format('one segment of %s', a.dimension), a.segment || ' and ' || b.segment, 'kept memberships at one instant'
	FROM cs_internal.membership a
	JOIN cs.dimension x ON x.name = a.dimension AND x.exclusive
	JOIN cs_internal.membership b ON b.customer_id = a.customer_id AND b.dimension = a.dimension AND (b.segment, b.valid_from) > (a.segment, a.valid_from)
		AND b.valid_from < coalesce(a.valid_to, 'infinity') AND a.valid_from < coalesce(b.valid_to, 'infinity')
	WHERE coalesce(a.valid_to, 'infinity') > since AND coalesce(b.valid_to, 'infinity') > since AND greatest(a.valid_from, b.valid_from) < until;
	FOR d IN
		SELECT x.name, cs_internal.basis_of(x.name) AS basis FROM cs.dimension x
		WHERE x.exclusive AND EXISTS (SELECT FROM cs_internal.membership s WHERE s.dimension = x.name)
		ORDER BY x.name
	LOOP
		before_count := NULL;
		SELECT d.name || ':' || s.segment INTO part FROM cs_internal.membership s
		WHERE s.dimension = d.name GROUP BY s.segment ORDER BY count(*) DESC, s.segment LIMIT 1;
		FOR m IN
			SELECT k.* FROM (SELECT c.*, row_number() OVER (ORDER BY c.t0 DESC) AS back FROM cs_internal.check_months(since, until) c) k
			WHERE k.back <= 2 OR d.basis = 'stored' ORDER BY k.t0
		LOOP
			FOREACH u IN ARRAY '{logo,gross_mrr}'::text[] LOOP
				RETURN QUERY
				WITH part AS MATERIALIZED (
					SELECT c.segment = '(total)' AS is_total, c.* FROM cs_internal.churn_by(m.word, d.name, 'snapshot', u) c
				)
				SELECT 'segment', m.word, NULL::text, v.expected::text, v.got::text, format('%s, churn_by %s, unit %s', v.detail, d.name, u)
				FROM (SELECT sum(p.numerator) AS k, sum(p.denominator) AS n, sum(p.transfer_in) AS moved_in, sum(p.transfer_out) AS moved_out FROM part p WHERE NOT p.is_total) s
				CROSS JOIN cs_internal.churn(m.word, NULL, 'snapshot', u, NULL::timestamptz) t
				CROSS JOIN LATERAL (VALUES (t.numerator, s.k, 'numerators'), (t.denominator, s.n, 'denominators'), (s.moved_in, s.moved_out, 'transfers in and out')) v (expected, got, detail)
				WHERE v.expected <> v.got;
			END LOOP;
			-- where a segment closes it opens the next month
			SELECT x.mrr_start, x.customers_start, x.mrr_end, x.customers_end INTO r FROM cs_internal.revenue(m.word, part, 'ledger') x;
			IF before_count IS NOT NULL AND (before_mrr, before_count) IS DISTINCT FROM (r.mrr_start, r.customers_start) THEN
				RETURN NEXT ('segment', m.word, NULL, format('%s of %s customers', before_mrr, before_count),
					format('%s of %s customers', r.mrr_start, r.customers_start), part || ': MRR at the start, and at the end of the month before')::cs_internal.violation;
			END IF;
			before_mrr := r.mrr_end;
			before_count := r.customers_end;
		END LOOP;
	END LOOP;
END $$;
COMMENT ON FUNCTION cs_internal.violations_segment(timestamptz, timestamptz) IS
'Customers in two segments of an exclusive dimension at once; months in which its segments and their transfers do not add up to the total, or its largest segment opens elsewhere than it closed; the last two where segments are restated.';

-- ---- settings and plans ------------------------------------------------------------------

-- The public functions, so that what is pinned by a gate is tried too.
CREATE FUNCTION cs_internal.fingerprint(word text) RETURNS text
LANGUAGE sql VOLATILE AS $$
	SELECT format('%s of %s = %s, %s to %s; %s to %s, %s, %s', c.numerator, c.denominator, c.rate,
		extract(epoch FROM c.period_start), extract(epoch FROM c.period_end), r.mrr_start, r.mrr_end, r.grr, r.nrr)
	FROM cs.churn(word) c CROSS JOIN cs.revenue(word) r
$$;
COMMENT ON FUNCTION cs_internal.fingerprint(text) IS 'Churn and revenue of a period as text that no setting changes unless it changes them.';

CREATE FUNCTION cs_internal.violations_session(since timestamptz, until timestamptz)
RETURNS SETOF cs_internal.violation
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	m record;
	usual text;
	other text;
	s record;
	before text;
BEGIN
	-- the last month and, in it, everything since the first one
	FOR m IN
		SELECT x.word FROM (SELECT c.word, c.t0 FROM cs_internal.check_months(since, until) c ORDER BY c.t0 DESC LIMIT 2) x ORDER BY x.t0
	LOOP
		usual := cs_internal.fingerprint(m.word);
		FOR s IN SELECT * FROM (VALUES
			('TimeZone', 'Pacific/Kiritimati'), ('TimeZone', 'America/St_Johns'), ('DateStyle', 'German, DMY'), ('IntervalStyle', 'sql_standard'),
			('enable_hashagg', 'off'), ('enable_hashjoin', 'off'), ('enable_sort', 'off'), ('enable_indexscan', 'off')) v (name, value)
		LOOP
			before := current_setting(s.name);
			PERFORM set_config(s.name, s.value, true);
			other := cs_internal.fingerprint(m.word);
			PERFORM set_config(s.name, before, true);
			IF other IS DISTINCT FROM usual THEN
				RETURN NEXT ('session', m.word, NULL, usual, other, format('%s = %s', s.name, s.value))::cs_internal.violation;
			END IF;
		END LOOP;
	END LOOP;
END $$;
COMMENT ON FUNCTION cs_internal.violations_session(timestamptz, timestamptz) IS 'Churn and revenue of the last two months that other session settings or plans change.';

-- ---- a quarter and its months -----------------------------------------------------------

CREATE FUNCTION cs_internal.violations_cohort(since timestamptz, until timestamptz)
RETURNS SETOF cs_internal.violation
LANGUAGE plpgsql STABLE SET jit = off AS $$
DECLARE
	q record;
	word text;
	cohort text[];
	gone text[] := '{}';
	total record;
BEGIN
	FOR q IN
		SELECT min(c.t0) AS t0, max(c.t1) AS t1, array_agg(c.word ORDER BY c.t0) AS months, to_char(min(to_date(c.word, 'YYYY-MM')), 'YYYY-"Q"Q') AS word
		FROM cs_internal.check_months(since, until) c
		WHERE c.complete
		GROUP BY date_trunc('quarter', to_date(c.word, 'YYYY-MM')) HAVING count(*) = 3
		ORDER BY 1
	LOOP
		SELECT * INTO total FROM cs_internal.churn(q.word, NULL, 'snapshot', 'logo', NULL::timestamptz);
		CONTINUE WHEN (total.period_start, total.period_end) <> (q.t0, q.t1);       -- quarters of the policy are other months
		SELECT array_agg(c.customer_id) FILTER (WHERE c.in_denominator) INTO cohort
		FROM cs_internal.churn_customers(q.word, NULL, 'snapshot', 'logo') c;
		-- with returners the product of the months is another number
		CONTINUE WHEN EXISTS (SELECT FROM cs_internal.movement m
			LEFT JOIN cs_internal.account_of() a ON a.customer_id = m.customer_id AND cs_internal.measure_of('logo') = 'logo'
			WHERE coalesce(a.account_id, m.customer_id) = ANY (cohort)
				AND m.at >= q.t0 + cs_internal.edge_shift() AND m.at < q.t1 + cs_internal.edge_shift()
				AND (m.kind IN ('reactivation', 'merge_in', 'merge_out', 'new')
					-- who comes back on hold pays nothing yet: a pause of somebody who was not there
					OR m.kind = 'pause' AND NOT (SELECT p.active_after FROM cs_internal.movement p
						WHERE p.customer_id = m.customer_id AND (p.at, p.seq) < (m.at, m.seq) ORDER BY p.at DESC, p.seq DESC LIMIT 1)));
		gone := '{}';
		FOREACH word IN ARRAY q.months LOOP
			gone := gone || ARRAY(SELECT c.customer_id FROM cs_internal.churn_customers(word, NULL, 'snapshot', 'logo') c
				WHERE c.in_numerator AND c.customer_id = ANY (cohort));
		END LOOP;
		IF cardinality(gone) <> total.numerator OR coalesce(cardinality(cohort), 0) <> total.denominator THEN
			RETURN NEXT ('cohort', q.word, NULL, format('%s of %s', total.numerator, total.denominator),
				format('%s of %s', cardinality(gone), coalesce(cardinality(cohort), 0)), 'churn of a quarter, and of the same customers by month')::cs_internal.violation;
		END IF;
	END LOOP;
END $$;
COMMENT ON FUNCTION cs_internal.violations_cohort(timestamptz, timestamptz) IS
'Complete quarters without returners whose churn is not what the months of the same customers come to.';

-- ---- the facts once more -------------------------------------------------------------------

-- At most so many customers, those with the least hash: no order of theirs decides.
CREATE FUNCTION cs_internal.check_sample(since timestamptz, until timestamptz, size integer) RETURNS text[]
LANGUAGE sql STABLE AS $$
	SELECT coalesce(array_agg(x.customer_id ORDER BY x.customer_id), '{}')
	FROM (SELECT m.customer_id FROM cs_internal.movement m WHERE m.at >= since AND m.at < until
		GROUP BY 1 ORDER BY hashtext(m.customer_id), 1 LIMIT size) x
$$;
COMMENT ON FUNCTION cs_internal.check_sample(timestamptz, timestamptz, integer) IS 'Up to so many customers with a movement in [since, until), always the same ones.';

CREATE FUNCTION cs_internal.violations_touching(since timestamptz, until timestamptz)
RETURNS SETOF cs_internal.violation
LANGUAGE sql STABLE AS $$
	WITH fact AS MATERIALIZED (
		SELECT f.customer_id, to_jsonb(f) AS row, f.start_at, e.end_at,
			CASE WHEN e.end_at < 'infinity' THEN f.start_at + (e.end_at - f.start_at) / 2 ELSE f.start_at + interval '40 days' END AS cut_at
		FROM cs_internal.subscription_rows(cs_internal.check_sample(since, until, 500), NULL) f
		CROSS JOIN LATERAL (SELECT coalesce(f.end_at, CASE WHEN f.status = 'canceled' THEN coalesce(f.changed_at, f.cancel_requested_at) END, 'infinity') AS end_at) e
		WHERE e.end_at >= f.start_at
	), whole AS (
		SELECT f.customer_id, array_agg(jsonb_populate_record(NULL::cs_internal.subscription_fact, f.row)) AS facts
		FROM fact f GROUP BY 1
	), cut AS (
		SELECT f.customer_id, array_agg(jsonb_populate_record(NULL::cs_internal.subscription_fact, p.row)) AS facts
		FROM fact f
		CROSS JOIN LATERAL (
			SELECT f.row || jsonb_build_object('end_at', f.cut_at) AS row WHERE f.cut_at > f.start_at AND f.cut_at < f.end_at
			UNION ALL
			SELECT f.row || jsonb_build_object('start_at', f.cut_at) WHERE f.cut_at > f.start_at AND f.cut_at < f.end_at
			UNION ALL
			SELECT f.row WHERE NOT (f.cut_at > f.start_at AND f.cut_at < f.end_at)) p
		GROUP BY 1
	)
	SELECT 'touching', min(x.at)::text, x.customer_id, string_agg(x.what, ', ' ORDER BY x.what) FILTER (WHERE x.side = 1),
		string_agg(x.what, ', ' ORDER BY x.what) FILTER (WHERE x.side = 2), 'movements of the subscriptions, and of the same cut in two touching pieces'
	FROM (
		SELECT y.customer_id, y.at, y.what, min(y.side) AS side
		FROM (
			SELECT w.customer_id, s.at, format('%s %s %s %s', s.at, s.kind, s.delta, s.mrr_after) AS what, 1 AS side
			FROM whole w CROSS JOIN cs.policy p
			CROSS JOIN LATERAL cs_internal.ledger_sweep(w.facts, free_is_active => p.free_is_active, max_pause_days => p.max_pause_days) s
			UNION ALL
			SELECT c.customer_id, s.at, format('%s %s %s %s', s.at, s.kind, s.delta, s.mrr_after), 2
			FROM cut c CROSS JOIN cs.policy p
			CROSS JOIN LATERAL cs_internal.ledger_sweep(c.facts, free_is_active => p.free_is_active, max_pause_days => p.max_pause_days) s) y
		GROUP BY y.customer_id, y.at, y.what HAVING count(*) <> 2) x
	GROUP BY x.customer_id
$$;
COMMENT ON FUNCTION cs_internal.violations_touching(timestamptz, timestamptz) IS
'Up to 500 customers whose movements change when each of their subscriptions is cut into two touching ones.';

-- Only of who waits for nothing: what is outstanding is no violation.
CREATE FUNCTION cs_internal.violations_recompute(since timestamptz, until timestamptz)
RETURNS SETOF cs_internal.violation
LANGUAGE plpgsql VOLATILE SET jit = off AS $$
DECLARE
	k cs_internal.clock;
	ids text[];
BEGIN
	SELECT * INTO k FROM cs_internal.clock;
	IF k.last_as_of IS NULL OR k.last_as_of < since OR k.last_as_of > until OR current_setting('transaction_read_only')::boolean THEN
		RETURN;
	END IF;
	IF EXISTS (SELECT FROM cs_internal.change_log) OR EXISTS (SELECT FROM cs_internal.pending) OR EXISTS (SELECT FROM cs_internal.source_state s WHERE s.needs_scan) THEN
		RAISE NOTICE 'the state is not compared with the facts: changes wait for a refresh' USING HINT = 'CALL cs.refresh(); then check again.';
		RETURN;
	END IF;
	SELECT array_agg(x.customer_id ORDER BY x.customer_id) INTO ids
	FROM (SELECT s.customer_id FROM cs_internal.state s
		WHERE s.as_of_day = (k.last_as_of AT TIME ZONE (SELECT p.time_zone FROM cs.policy p))::date AND s.ahead IS NULL
			AND coalesce(s.due_at > k.last_as_of, true)
			AND NOT EXISTS (SELECT FROM cs_internal.dirty d WHERE d.customer_id = s.customer_id)
		ORDER BY hashtext(s.customer_id), 1 LIMIT 200) x;
	IF ids IS NULL THEN
		RETURN;
	END IF;
	RETURN QUERY
	WITH anew AS MATERIALIZED (SELECT e.* FROM cs_internal.evaluated_at(ids, k.last_as_of) e)
	SELECT 'recompute', k.last_as_of::text, s.customer_id, v.found::text, v.kept::text, v.what || ': from the facts, and as kept'
	FROM cs_internal.state s
	JOIN anew e ON e.customer_id = s.customer_id
	CROSS JOIN LATERAL (
		SELECT 'metric ' || t.metric AS what, s."values"[t.slot] AS kept, e."values"[t.slot] AS found
		FROM cs_internal.metric_slot t JOIN cs.metric d ON d.name = t.metric AND d.enabled
		UNION ALL
		SELECT 'score', s.score, e.score) v
	-- a metric of a user's that adds floats up may differ in the last places
	WHERE v.kept IS DISTINCT FROM v.found AND coalesce(abs(v.kept - v.found) > 1e-12 * greatest(abs(v.kept), abs(v.found)), true);
END $$;
COMMENT ON FUNCTION cs_internal.violations_recompute(timestamptz, timestamptz) IS
'Up to 200 evaluated customers whose kept metrics or score are not what the stages make of the facts at the same instant.';

-- ---- all of them ------------------------------------------------------------------------------

CREATE FUNCTION cs_internal."check"(since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL)
RETURNS TABLE (invariant text, period text, customer_id text, expected text, got text, detail text)
LANGUAGE plpgsql VOLATILE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.now();
	stop_at timestamptz := coalesce(cs_internal.instant(until), 'infinity');
	start_at timestamptz := cs_internal.instant(since);
BEGIN
	PERFORM cs_internal.period('this month', seen_at);        -- says so where setup is missing
	IF start_at IS NULL THEN
		SELECT date_trunc('month', least(stop_at, seen_at) AT TIME ZONE p.time_zone) - interval '12 months' INTO start_at FROM cs.policy p;
	END IF;
	IF stop_at <= start_at THEN
		RAISE EXCEPTION 'until % is not after since %', stop_at, start_at USING ERRCODE = 'invalid_parameter_value',
			HINT = 'The months that hold an instant from since to just before until are checked.';
	END IF;
	RETURN QUERY SELECT (v.x).* FROM (SELECT cs_internal.violations_balance(start_at, stop_at)) v (x);
	RETURN QUERY SELECT (v.x).* FROM (SELECT cs_internal.violations_roll_forward(start_at, stop_at)) v (x);
	RETURN QUERY SELECT (v.x).* FROM (SELECT cs_internal.violations_drill_down(start_at, stop_at)) v (x);
	RETURN QUERY SELECT (v.x).* FROM (SELECT cs_internal.violations_segment(start_at, stop_at)) v (x);
	RETURN QUERY SELECT (v.x).* FROM (SELECT cs_internal.violations_session(start_at, stop_at)) v (x);
	RETURN QUERY SELECT (v.x).* FROM (SELECT cs_internal.violations_cohort(start_at, stop_at)) v (x);
	RETURN QUERY SELECT (v.x).* FROM (SELECT cs_internal.violations_touching(start_at, stop_at)) v (x);
	RETURN QUERY SELECT (v.x).* FROM (SELECT cs_internal.violations_recompute(start_at, stop_at)) v (x);
END $$;
COMMENT ON FUNCTION cs_internal."check"(timestamptz, timestamptz) IS 'See cs.check.';

-- Defaults stand in the form of text, which a literal then finds.
CREATE FUNCTION cs."check"(since text DEFAULT NULL, until text DEFAULT NULL)
RETURNS TABLE (invariant text, period text, customer_id text, expected text, got text, detail text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
DO $forms$
DECLARE
	t text;
BEGIN
	FOREACH t IN ARRAY '{timestamptz,timestamp,date,text}'::text[] LOOP
		IF t <> 'text' THEN
			EXECUTE format('CREATE FUNCTION cs."check"(since %1$s, until %1$s)
				RETURNS TABLE (invariant text, period text, customer_id text, expected text, got text, detail text)
				LANGUAGE c VOLATILE AS ''MODULE_PATHNAME'', ''cs_gate''', t);
		END IF;
		EXECUTE format('COMMENT ON FUNCTION cs."check"(%1$s, %1$s) IS %2$L', t,
			'What should hold between numbers and does not, on the data that is there: one row a violation, none when all is well. Looks at the months that hold an instant of [since, until) (NULL: the last twelve and the running one; to now), so its time is bounded by them. Invariants: roll_forward, endpoint_counts and grr_nrr (start and flows come to the end, in total and for each customer), movement_kind, merge, state, monthly_view, drill_down (customers behind each number add up to it), segment (parts and transfers add up), session (settings and plans change nothing), cohort (a quarter and its months), touching (cutting subscriptions in two changes nothing; up to 500 customers), recompute (the kept state is what the facts give; up to 200 customers). expected is what follows from one side, got what the other side says. Stores nothing; writes and rolls back, so in a read-only transaction recompute is left out.');
	END LOOP;
END $forms$;
