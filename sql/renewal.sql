
-- ---------------------------------------------------------------------------
-- renewal: terms that run out, and what became of them.
-- ---------------------------------------------------------------------------

CREATE FUNCTION cs_internal.subscription_rows(customers text[], as_of timestamptz)
RETURNS TABLE (customer_id text, subscription_id text, start_at timestamptz, end_at timestamptz, mrr numeric, currency text, product text,
	term_months integer, status text, is_trial boolean, is_recurring boolean, signed_at timestamptz, cancel_requested_at timestamptz,
	cancel_reason text, churn_kind text, auto_renew boolean, renews_at timestamptz, changed_at timestamptz, row_start timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_subscription_rows_sql';
COMMENT ON FUNCTION cs_internal.subscription_rows(text[], timestamptz) IS
'Usable rows of all subscription sources, of these customers (NULL: of all), as known at as_of (NULL: as they stand). mrr is per month in the row''s currency. A row that is overwritten in place has a row a version; row_start is where the first began.';

-- The span that a period word means, also the part of it that has not come: what is due then is known.
CREATE FUNCTION cs_internal.whole_period(word text, seen_at timestamptz, OUT period_start timestamptz, OUT period_end timestamptz, OUT complete boolean)
LANGUAGE plpgsql STABLE AS $$
DECLARE
	w text := lower(btrim(word));
BEGIN
	IF word ~ '\d' THEN        -- names its time itself
		SELECT x.period_start, x.period_end INTO period_start, period_end FROM cs_internal.period(word, '9000-01-01') x;
	ELSE
		SELECT x.period_start, x.period_end, x.complete INTO period_start, period_end, complete FROM cs_internal.period(word, seen_at) x;
		IF NOT complete THEN
			period_end := period_start + CASE WHEN w ~ 'quarter|qtd' THEN interval '3 months' WHEN w ~ 'month|mtd' THEN interval '1 month'
				WHEN w ~ 'year|ytd' THEN interval '1 year' WHEN w ~ 'week|wtd' THEN interval '7 days' ELSE interval '1 day' END;
		END IF;
	END IF;
	complete := period_end <= seen_at;
END $$;
COMMENT ON FUNCTION cs_internal.whole_period(text, timestamptz) IS 'As period, but a running period and one that has not begun are given to their end.';

-- Every term that runs out in [t0, t1), by what the facts said at seen_at.
--
-- When a term runs out: with term_months, every so many months on the grid of
-- renews_at, or of the start where it has none; without, at renews_at; with
-- neither, at the end. A row that ends before its date and goes on in another
-- row within gap_days_tenure days was changed, not due; one that does not go on
-- is lost at its date.
--
-- What became of it: the row runs on by itself (auto_renew, or a later date of
-- its own grid), or rows of the customer begin where it ended, up to
-- gap_days_tenure days later. Else it is open before its date, overdue while it
-- runs on, and lost after. Each following row belongs to one renewal: the one
-- that ended last before it.
--
-- Merged customers: a term is due for whom its row counts then; whose rows follow
-- is asked of all that are one customer by now.
CREATE FUNCTION cs_internal.renewal_rows(t0 timestamptz, t1 timestamptz, seen_at timestamptz, every_one boolean)
RETURNS TABLE (customer_id text, due_at timestamptz, products text, subscriptions bigint, target_mrr numeric, renewed_mrr numeric,
	outcome text, in_time boolean, kept boolean, ran_over boolean, renewed_at timestamptz, notice_at timestamptz, auto_renew boolean, dues bigint)
LANGUAGE sql STABLE AS $$
	WITH raw AS MATERIALIZED (
		SELECT r.customer_id AS stands_under, coalesce(o.owner, r.customer_id) COLLATE "C" AS customer_id, r.subscription_id, r.start_at, r.product, r.signed_at,
			r.cancel_requested_at, r.auto_renew, r.renews_at, r.row_start, coalesce(r.end_at, CASE WHEN r.status = 'canceled' THEN coalesce(r.changed_at, r.cancel_requested_at, r.start_at) END, 'infinity') AS ends_at,
			CASE WHEN r.status = 'paused' THEN 0 ELSE round(r.mrr * CASE WHEN r.currency IS NULL OR upper(r.currency) = p.currency THEN 1 ELSE (
				SELECT x.rate FROM cs.fx_rate x WHERE x.enabled AND x.currency = upper(r.currency)
					AND x.valid_from <= (r.start_at AT TIME ZONE p.time_zone)::date ORDER BY x.valid_from DESC LIMIT 1) END, 6) END AS amount,
			make_interval(days => p.gap_days_tenure) AS gap, nullif(greatest(r.term_months, 0), 0) AS months
		FROM cs_internal.subscription_rows(NULL, seen_at) r
		CROSS JOIN cs.policy p
		LEFT JOIN cs_internal.merge_span() o ON o.id = r.customer_id AND o.until = 'infinity'
		WHERE r.is_trial IS NOT TRUE AND r.is_recurring IS NOT FALSE AND r.status IN ('active', 'past_due', 'canceled', 'paused')
			AND (r.mrr > 0 OR r.status = 'paused' OR r.mrr = 0 AND p.free_is_active)
	), fact AS MATERIALIZED (
		SELECT row_number() OVER (ORDER BY r.customer_id, r.start_at, r.ends_at, r.subscription_id, r.amount) AS id, r.*
		FROM raw r WHERE r.ends_at > r.start_at AND r.amount IS NOT NULL
	), grid AS (
		SELECT f.id, d.at, lag(d.at) OVER (PARTITION BY f.id ORDER BY d.at) AS before_at
		FROM fact f
		CROSS JOIN LATERAL (SELECT coalesce(f.renews_at, f.row_start) AS anchor,
			least(t1, seen_at + make_interval(months => CASE WHEN every_one THEN 1200 ELSE f.months + 1 END)) AS until) a
		CROSS JOIN LATERAL generate_series(
			floor((extract(year FROM t0) * 12 + extract(month FROM t0) - extract(year FROM a.anchor) * 12 - extract(month FROM a.anchor)) / f.months)::integer - 2,
			ceil((extract(year FROM a.until) * 12 + extract(month FROM a.until) - extract(year FROM a.anchor) * 12 - extract(month FROM a.anchor)) / f.months)::integer + 1) k
		CROSS JOIN LATERAL (SELECT a.anchor + make_interval(months => k * f.months) AS at) d
		WHERE f.months IS NOT NULL
	), due AS (
		SELECT g.id, g.at FROM grid g JOIN fact f USING (id)
		-- the first date after an end too: there it would have been due
		WHERE g.at <= f.ends_at OR coalesce(g.before_at, f.start_at) < f.ends_at
		UNION ALL
		SELECT f.id, f.renews_at FROM fact f WHERE f.months IS NULL AND f.renews_at IS NOT NULL
		UNION ALL
		SELECT f.id, f.ends_at FROM fact f WHERE f.months IS NULL AND f.renews_at IS NULL AND f.ends_at < 'infinity'
	), item AS (
		SELECT f.*, d.at, coalesce(w.owner, f.stands_under) COLLATE "C" AS whose,
			CASE WHEN f.ends_at < d.at THEN f.ends_at WHEN f.ends_at > seen_at THEN d.at ELSE f.ends_at END AS lapsed_at,
			d.at <= seen_at AND f.ends_at > d.at AND (f.auto_renew IS TRUE OR f.renews_at > d.at
				OR f.renews_at IS NULL AND f.months IS NOT NULL AND f.auto_renew IS NOT FALSE) AS itself,
			count(*) OVER later AS dues, row_number() OVER (PARTITION BY f.id, d.at > seen_at ORDER BY d.at) AS nth
		FROM due d JOIN fact f USING (id)
		LEFT JOIN cs_internal.merge_span() w ON w.id = f.stands_under AND w.since <= d.at AND d.at < w.until
		WHERE d.at >= t0 AND d.at < t1 AND d.at > f.start_at
			AND NOT (f.ends_at < d.at AND EXISTS (SELECT FROM fact o WHERE o.customer_id = f.customer_id AND o.id <> f.id
				AND o.start_at BETWEEN f.ends_at AND f.ends_at + f.gap AND o.ends_at > f.ends_at))
		WINDOW later AS (PARTITION BY f.id, d.at > seen_at)
	), term AS MATERIALIZED (
		SELECT i.* FROM item i WHERE i.at <= seen_at OR i.nth = 1
	), following AS (
		-- the row that follows, and the renewal it belongs to
		SELECT x.whose, x.at, o.id, o.amount, o.start_at, coalesce(o.signed_at, o.start_at) <= x.at OR o.start_at <= x.at AS was_in_time
		FROM fact o
		CROSS JOIN LATERAL (
			SELECT t.at, t.whose FROM term t
			WHERE t.customer_id = o.customer_id AND t.id <> o.id AND NOT t.itself AND o.start_at BETWEEN t.lapsed_at AND t.lapsed_at + t.gap
			ORDER BY t.lapsed_at DESC, t.at DESC, t.stands_under <> o.stands_under, t.whose LIMIT 1) x
	), followed AS (
		SELECT n.whose, n.at, sum(n.amount) AS amount, bool_and(n.was_in_time) AS in_time, max(n.start_at) AS renewed_at, array_agg(n.id) AS ids
		FROM following n GROUP BY 1, 2
	), renewal AS (
		SELECT t.whose, t.at, min(t.customer_id) AS customer_id, count(*) AS subscriptions, string_agg(DISTINCT t.product, ', ' ORDER BY t.product) AS products,
			sum(t.amount) AS target, coalesce(sum(t.amount) FILTER (WHERE t.itself), 0) AS by_itself, bool_or(t.itself) AS itself,
			bool_or(NOT t.itself AND t.ends_at > seen_at) AS runs, min(t.cancel_requested_at) AS notice_at, bool_and(t.auto_renew) AS auto_renew,
			max(t.dues) AS dues, array_agg(t.id) AS ids, max(t.lapsed_at) AS lapsed_at,
			bool_or(NOT t.itself AND t.lapsed_at > t.at) AS ran_over
		FROM term t GROUP BY 1, 2
	)
	SELECT r.whose, r.at, r.products, r.subscriptions, r.target::numeric(20,6), (r.by_itself + coalesce(n.amount, 0))::numeric(20,6),
		CASE WHEN n.ids IS NOT NULL OR r.itself AND NOT r.runs THEN 'renewed'
			WHEN r.at > seen_at THEN 'open' WHEN r.runs THEN 'overdue' WHEN r.itself THEN 'renewed' ELSE 'lost' END,
		CASE WHEN n.ids IS NOT NULL THEN n.in_time WHEN r.itself AND NOT r.runs THEN true END,
		n.ids IS NOT NULL OR r.itself OR EXISTS (SELECT FROM fact o WHERE o.customer_id = r.customer_id AND o.id <> ALL (r.ids)
			AND o.start_at <= r.lapsed_at AND o.ends_at > r.lapsed_at), r.ran_over,
		CASE WHEN n.ids IS NOT NULL THEN n.renewed_at WHEN r.itself AND NOT r.runs THEN r.at END,
		r.notice_at, r.auto_renew, r.dues
	FROM renewal r
	LEFT JOIN followed n ON n.whose = r.whose AND n.at = r.at
$$;
COMMENT ON FUNCTION cs_internal.renewal_rows(timestamptz, timestamptz, timestamptz, boolean) IS
'Renewals due in [t0, t1) as known at seen_at, one row a customer and instant: what was due per month and what follows, outcome (renewed, lost, overdue, open), whether the customer is still there. Of dates after seen_at the next one of each subscription; every_one counts them all in dues.';

CREATE FUNCTION cs_internal.renewals(p_period text, p_segment text)
RETURNS TABLE (customer_id text, name text, owner text, due_at timestamptz, status text, in_time boolean, target_mrr numeric, renewed_mrr numeric,
	lost_mrr numeric, renewed_at timestamptz, notice_at timestamptz, auto_renew boolean, days_to_due integer, band text, health_score float8,
	subscriptions bigint, products text, is_kept boolean, segment text, data_through_at timestamptz, computed_at timestamptz)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.now();
	span record;
	part record;
BEGIN
	SELECT * INTO span FROM cs_internal.whole_period(coalesce(p_period, 'this quarter'), seen_at);
	IF p_period IS NULL THEN
		span.period_start := span.period_start - interval '1 year';
		span.period_end := seen_at + interval '1 year';
	END IF;
	SELECT * INTO part FROM cs_internal.find_part(p_segment);
	PERFORM cs_internal.note_stored_since(part.dimension, least(span.period_start, seen_at));
	PERFORM cs_internal.require_fx_rates();
	RETURN QUERY
	SELECT r.customer_id, c.name, c.owner, r.due_at,
		CASE WHEN r.outcome <> 'open' THEN r.outcome WHEN r.notice_at IS NOT NULL OR h.band = 'red' THEN 'at_risk' ELSE 'not_at_risk' END,
		r.in_time, r.target_mrr, CASE WHEN r.outcome IN ('renewed', 'lost') THEN r.renewed_mrr END,
		CASE WHEN r.outcome IN ('renewed', 'lost') THEN greatest(r.target_mrr - r.renewed_mrr, 0) END::numeric(20,6), r.renewed_at, r.notice_at, r.auto_renew,
		(r.due_at AT TIME ZONE p.time_zone)::date - (seen_at AT TIME ZONE p.time_zone)::date,
		CASE WHEN r.outcome IN ('open', 'overdue') THEN h.band END, CASE WHEN r.outcome IN ('open', 'overdue') THEN h.score END,
		r.subscriptions, r.products, CASE WHEN r.outcome IN ('renewed', 'lost') THEN r.kept END, part.dimension || ':' || part.segment, k.last_as_of, k.last_refresh_at
	FROM cs_internal.renewal_rows(span.period_start, span.period_end, seen_at, false) r
	CROSS JOIN cs.policy p
	LEFT JOIN cs_internal.segment_at(part.dimension, least(span.period_start, seen_at), cs_internal.basis_of(part.dimension)) s ON s.customer_id = r.customer_id
	LEFT JOIN cs_internal.customer c ON c.customer_id = r.customer_id
	LEFT JOIN cs_internal.health h ON h.customer_id = r.customer_id
	LEFT JOIN cs_internal.clock k ON true
	WHERE part.dimension IS NULL OR coalesce(s.segment, '(none)') = part.segment
	ORDER BY r.due_at, r.target_mrr DESC, r.customer_id;
END $$;
COMMENT ON FUNCTION cs_internal.renewals(text, text) IS 'See cs.renewals.';

CREATE FUNCTION cs_internal.renewal_status(p_period text, p_segment text)
RETURNS TABLE (status text, renewals bigint, customers bigint, target_mrr numeric, renewed_mrr numeric, lost_mrr numeric, in_time bigint, late bigint, share numeric)
LANGUAGE sql STABLE AS $$
	SELECT w.status, count(r.due_at), count(DISTINCT r.customer_id), coalesce(sum(r.target_mrr), 0)::numeric(20,6),
		coalesce(sum(r.renewed_mrr), 0)::numeric(20,6), coalesce(sum(r.lost_mrr), 0)::numeric(20,6),
		count(*) FILTER (WHERE r.in_time), count(*) FILTER (WHERE NOT r.in_time),
		cs_internal.rate(coalesce(sum(r.target_mrr), 0), sum(sum(r.target_mrr)) FILTER (WHERE w.place < 6) OVER ())
	FROM (VALUES ('renewed', 1), ('not_at_risk', 2), ('at_risk', 3), ('overdue', 4), ('lost', 5), ('(total)', 6)) w (status, place)
	LEFT JOIN cs_internal.renewals(p_period, p_segment) r ON w.status IN (r.status, '(total)')
	GROUP BY w.status, w.place
	ORDER BY w.place
$$;
COMMENT ON FUNCTION cs_internal.renewal_status(text, text) IS 'See cs.renewal_status.';

CREATE FUNCTION cs_internal.renewal_rate(p_period text, p_segment text, p_unit text)
RETURNS TABLE (period_start timestamptz, period_end timestamptz, segment text, unit text, numerator numeric, denominator numeric, rate numeric,
	ci_low numeric, ci_high numeric, in_time numeric, overdue numeric, lost numeric,
	time_zone text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.now();
	unit text := coalesce(p_unit, 'logo');
	span record;
	part record;
BEGIN
	SELECT * INTO span FROM cs_internal.period(p_period, seen_at);
	PERFORM cs_internal.must_be_word('unit of renewal', unit, '{logo,gross_mrr,net_mrr}');
	SELECT * INTO part FROM cs_internal.find_part(p_segment);
	RETURN QUERY
	WITH due AS MATERIALIZED (
		SELECT r.*, row_number() OVER (PARTITION BY r.customer_id ORDER BY r.due_at DESC) AS back
		FROM cs_internal.renewals(format('[%s,%s)', span.period_start, span.period_end), p_segment) r
		WHERE r.due_at < span.period_end
	), total AS (
		-- a customer counts once, by what became of its last date
		SELECT count(*) FILTER (WHERE d.back = 1)::numeric AS n, count(*) FILTER (WHERE d.back = 1 AND d.is_kept AND d.status <> 'overdue')::numeric AS k,
			count(*) FILTER (WHERE d.back = 1 AND d.in_time)::numeric AS on_time, count(*) FILTER (WHERE d.back = 1 AND d.status = 'overdue')::numeric AS late,
			count(*) FILTER (WHERE d.back = 1 AND NOT d.is_kept AND d.status <> 'overdue')::numeric AS gone,
			coalesce(sum(d.target_mrr), 0) AS target, coalesce(sum(least(coalesce(d.renewed_mrr, 0), d.target_mrr)), 0) AS gross, coalesce(sum(d.renewed_mrr), 0) AS net,
			coalesce(sum(least(coalesce(d.renewed_mrr, 0), d.target_mrr)) FILTER (WHERE d.in_time), 0) AS gross_on_time,
			coalesce(sum(d.renewed_mrr) FILTER (WHERE d.in_time), 0) AS net_on_time,
			coalesce(sum(d.target_mrr) FILTER (WHERE d.status = 'overdue'), 0) AS overdue_mrr, coalesce(sum(d.lost_mrr), 0) AS lost_mrr
		FROM due d
	)
	SELECT span.period_start, span.period_end, part.dimension || ':' || part.segment, unit,
		CASE unit WHEN 'logo' THEN t.k WHEN 'gross_mrr' THEN t.gross ELSE t.net END, CASE unit WHEN 'logo' THEN t.n ELSE t.target END,
		CASE unit WHEN 'logo' THEN cs_internal.rate(t.k, t.n) WHEN 'gross_mrr' THEN cs_internal.rate(t.gross, t.target) ELSE cs_internal.rate(t.net, t.target) END,
		CASE unit WHEN 'logo' THEN cs_internal.wilson(t.k::bigint, t.n::bigint, p.confidence::float8, false) END::numeric(18,9),
		CASE unit WHEN 'logo' THEN cs_internal.wilson(t.k::bigint, t.n::bigint, p.confidence::float8, true) END::numeric(18,9),
		CASE unit WHEN 'logo' THEN t.on_time WHEN 'gross_mrr' THEN t.gross_on_time ELSE t.net_on_time END,
		CASE unit WHEN 'logo' THEN t.late ELSE t.overdue_mrr END, CASE unit WHEN 'logo' THEN t.gone ELSE t.lost_mrr END,
		p.time_zone, p.version, cs_internal.basis_of(part.dimension), span.complete, seen_at
	FROM total t CROSS JOIN cs.policy p;
END $$;
COMMENT ON FUNCTION cs_internal.renewal_rate(text, text, text) IS 'See cs.renewal_rate.';

-- ---- what churn costs --------------------------------------------------------

-- Churns of [t0, t1) as the ledger has them, at twelve months of MRR.
CREATE FUNCTION cs_internal.lost_in(t0 timestamptz, t1 timestamptz, dimension text, segment text, OUT cost numeric, OUT accounts bigint, OUT contraction numeric)
LANGUAGE sql STABLE AS $$
	SELECT coalesce(-12 * sum(m.delta) FILTER (WHERE m.kind = 'churn'), 0)::numeric(20,6), count(DISTINCT m.customer_id) FILTER (WHERE m.kind = 'churn'),
		coalesce(-12 * sum(m.delta) FILTER (WHERE m.kind = 'contraction'), 0)::numeric(20,6)
	FROM cs_internal.movement m
	LEFT JOIN cs_internal.segment_at(lost_in.dimension, t0, cs_internal.basis_of(lost_in.dimension)) s ON s.customer_id = m.customer_id
	WHERE m.kind IN ('churn', 'contraction') AND m.at >= t0 + (SELECT cs_internal.edge_shift()) AND m.at < t1 + (SELECT cs_internal.edge_shift())
		AND (lost_in.dimension IS NULL OR coalesce(s.segment, '(none)') = lost_in.segment)
$$;
COMMENT ON FUNCTION cs_internal.lost_in(timestamptz, timestamptz, text, text) IS 'Twelve times the MRR lost by churn, the customers lost, and twelve times the contraction, in [t0, t1); of who was in the segment at t0.';

CREATE FUNCTION cs_internal.churn_cost(p_period text, p_segment text)
RETURNS TABLE (period_start timestamptz, period_end timestamptz, segment text, churn_cost numeric, accounts_lost bigint, cost_per_account numeric,
	contraction_cost numeric, last_year_start timestamptz, last_year_end timestamptz, last_year_cost numeric, last_year_accounts bigint,
	last_year_cost_per_account numeric, change numeric, currency text, time_zone text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.now();
	span record;
	part record;
BEGIN
	SELECT * INTO span FROM cs_internal.period(coalesce(p_period, 'qtd'), seen_at);
	SELECT * INTO part FROM cs_internal.find_part(p_segment);
	PERFORM cs_internal.note_stored_since(part.dimension, span.period_start);
	PERFORM cs_internal.require_fx_rates();
	RETURN QUERY
	SELECT span.period_start, span.period_end, part.dimension || ':' || part.segment, n.cost, n.accounts, (n.cost / nullif(n.accounts, 0))::numeric(20,6), n.contraction,
		y.t0, y.t1, b.cost, b.accounts, (b.cost / nullif(b.accounts, 0))::numeric(20,6), (n.cost / nullif(b.cost, 0) - 1)::numeric(18,9),
		p.currency::text, p.time_zone, p.version, cs_internal.basis_of(part.dimension), span.complete, seen_at
	FROM cs.policy p
	CROSS JOIN LATERAL (SELECT span.period_start - interval '1 year', span.period_end - interval '1 year') y (t0, t1)
	CROSS JOIN LATERAL cs_internal.lost_in(span.period_start, span.period_end, part.dimension, part.segment) n
	CROSS JOIN LATERAL cs_internal.lost_in(y.t0, y.t1, part.dimension, part.segment) b;
END $$;
COMMENT ON FUNCTION cs_internal.churn_cost(text, text) IS 'See cs.churn_cost.';

-- Chances come from the renewals of the four quarters before: of those with
-- notice given by their date, of those that ran over it, and of the rest, the
-- share that was lost. A subscription with several dates before the end of the
-- quarter has its chance at each: 1 - (1 - p)^n.
CREATE FUNCTION cs_internal.churn_cost_forecast(p_segment text)
RETURNS TABLE (part text, renewals bigint, amount numeric, past_renewals bigint, past_lost bigint, p_low numeric, p_expected numeric, p_high numeric,
	low numeric, expected numeric, high numeric, period_start timestamptz, period_end timestamptz, as_of timestamptz)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.now();
	span record;
	seg record;
	realised record;
BEGIN
	SELECT * INTO span FROM cs_internal.whole_period('this quarter', seen_at);
	SELECT * INTO seg FROM cs_internal.find_part(p_segment);
	PERFORM cs_internal.require_fx_rates();
	SELECT * INTO realised FROM cs_internal.lost_in(span.period_start, seen_at, seg.dimension, seg.segment);
	RETURN QUERY
	WITH past AS (
		SELECT CASE WHEN r.notice_at IS NOT NULL THEN 'notice' WHEN r.ran_over THEN 'overdue' ELSE 'open' END AS part,
			r.outcome = 'lost' AS lost
		FROM cs_internal.renewal_rows(span.period_start - interval '1 year', span.period_start, seen_at, false) r
		WHERE r.outcome IN ('renewed', 'lost')
	), chance AS (
		SELECT w.part, w.place, count(x.lost) AS n, count(*) FILTER (WHERE x.lost) AS k
		FROM (VALUES ('open', 2), ('notice', 3), ('overdue', 4)) w (part, place)
		LEFT JOIN past x ON x.part = w.part
		GROUP BY 1, 2
	), ahead AS (
		SELECT CASE WHEN r.outcome = 'overdue' THEN 'overdue' WHEN r.notice_at IS NOT NULL THEN 'notice' ELSE 'open' END AS part,
			12 * r.target_mrr AS amount, CASE WHEN r.outcome = 'overdue' THEN 1 ELSE r.dues END AS dues
		FROM cs_internal.renewal_rows(span.period_start - interval '1 year', span.period_end, seen_at, true) r
		LEFT JOIN cs_internal.segment_at(seg.dimension, span.period_start, cs_internal.basis_of(seg.dimension)) s ON s.customer_id = r.customer_id
		WHERE r.outcome IN ('open', 'overdue') AND (seg.dimension IS NULL OR coalesce(s.segment, '(none)') = seg.segment)
	), p AS (
		SELECT c.part, c.place, c.n, c.k, coalesce(cs_internal.wilson(c.k, c.n, y.confidence::float8, false), 0)::numeric AS low,
			c.k::numeric / nullif(c.n, 0) AS expected, coalesce(cs_internal.wilson(c.k, c.n, y.confidence::float8, true), 1)::numeric AS high
		FROM chance c CROSS JOIN cs.policy y
	), line AS (
		SELECT 'realised' AS part, 1 AS place, realised.accounts AS renewals, realised.cost AS amount, NULL::bigint AS n, NULL::bigint AS k,
			NULL::numeric AS p_low, NULL::numeric AS p_expected, NULL::numeric AS p_high, realised.cost AS low, realised.cost AS expected, realised.cost AS high
		UNION ALL
		SELECT p.part, p.place, count(a.amount), coalesce(sum(a.amount), 0), p.n, p.k, p.low, p.expected, p.high,
			coalesce(sum(a.amount * (1 - power(1 - p.low, a.dues))), 0),
			CASE WHEN count(a.amount) = 0 THEN 0 ELSE sum(a.amount * (1 - power(1 - p.expected, a.dues))) END,
			coalesce(sum(a.amount * (1 - power(1 - p.high, a.dues))), 0)
		FROM p LEFT JOIN ahead a ON a.part = p.part
		GROUP BY p.part, p.place, p.n, p.k, p.low, p.expected, p.high
	)
	SELECT l.part, l.renewals, l.amount::numeric(20,6), l.n, l.k, l.p_low::numeric(18,9), l.p_expected::numeric(18,9), l.p_high::numeric(18,9),
		l.low::numeric(20,6), l.expected::numeric(20,6), l.high::numeric(20,6), span.period_start, span.period_end, seen_at
	FROM (SELECT * FROM line
		UNION ALL
		SELECT '(total)', 5, (sum(x.renewals) FILTER (WHERE x.place > 1))::bigint, sum(x.amount) FILTER (WHERE x.place > 1), NULL, NULL, NULL, NULL, NULL,
			sum(x.low), CASE WHEN bool_and(x.expected IS NOT NULL) THEN sum(x.expected) END, sum(x.high) FROM line x) l
	ORDER BY l.place;
END $$;
COMMENT ON FUNCTION cs_internal.churn_cost_forecast(text) IS 'See cs.churn_cost_forecast.';

-- ---- gates ----------------------------------------------------------------------

CREATE FUNCTION cs.renewals(period text DEFAULT NULL, segment text DEFAULT NULL)
RETURNS TABLE (customer_id text, name text, owner text, due_at timestamptz, status text, in_time boolean, target_mrr numeric, renewed_mrr numeric,
	lost_mrr numeric, renewed_at timestamptz, notice_at timestamptz, auto_renew boolean, days_to_due integer, band text, health_score float8,
	subscriptions bigint, products text, is_kept boolean, segment text, data_through_at timestamptz, computed_at timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.renewals(text, text) IS
'Terms that run out in a period, to its end also where that has not come, one row a customer and date. A term runs out every term_months on the grid of renews_at (or of the start), else at renews_at, else at the end; what is trial, one-off or without MRR is not due. status: renewed (runs on by auto_renew or its own later date, or another subscription begins where it ended, up to policy.gap_days_tenure days later), lost, overdue (the date is past, it runs on and nobody renewed it), and before the date at_risk (notice given, or band red) or not_at_risk. target_mrr is the MRR that was due, renewed_mrr what follows, lost_mrr what is missing to the target (both NULL while open or overdue); in_time: renewed by the date (NULL: not renewed). is_kept: the customer is still there, by this or another subscription (NULL while open or overdue). band and health_score are those of now, of open and overdue ones. Of dates to come each subscription has its next one. period NULL: from the start of the same quarter last year to a year from now. Segments as at the start of the period.';

CREATE FUNCTION cs.renewal_status(period text DEFAULT 'this quarter', segment text DEFAULT NULL)
RETURNS TABLE (status text, renewals bigint, customers bigint, target_mrr numeric, renewed_mrr numeric, lost_mrr numeric, in_time bigint, late bigint, share numeric)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.renewal_status(text, text) IS
'The renewals of a period by status (renewed, not_at_risk, at_risk, overdue, lost, then (total)): how many, of how many customers, their MRR due, renewed and lost, how many were renewed in time and late, and the status'' share of the MRR due (NULL where nothing is due). The sums of cs.renewals.';

CREATE FUNCTION cs.renewal_rate(period text, segment text DEFAULT NULL, unit text DEFAULT 'logo')
RETURNS TABLE (period_start timestamptz, period_end timestamptz, segment text, unit text, numerator numeric, denominator numeric, rate numeric,
	ci_low numeric, ci_high numeric, in_time numeric, overdue numeric, lost numeric,
	time_zone text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.renewal_rate(text, text, text) IS
'Renewed of what was due in a period (a running one: up to now), one row. Unit logo: customers that are still there, by any subscription, after their last date in the period, over the customers with one; gross_mrr: MRR renewed, at most what was due of each, over the MRR due; net_mrr: with what was sold on top. in_time, overdue (not renewed and still running; not in the numerator) and lost are in the same unit. rate is NULL where nothing was due; ci_low and ci_high (Wilson, policy.confidence) for logo only. cs.renewals has the rows.';

CREATE FUNCTION cs.churn_cost(period text DEFAULT 'qtd', segment text DEFAULT NULL)
RETURNS TABLE (period_start timestamptz, period_end timestamptz, segment text, churn_cost numeric, accounts_lost bigint, cost_per_account numeric,
	contraction_cost numeric, last_year_start timestamptz, last_year_end timestamptz, last_year_cost numeric, last_year_accounts bigint,
	last_year_cost_per_account numeric, change numeric, currency text, time_zone text, policy_version integer, segment_basis text, complete boolean, as_of timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.churn_cost(text, text) IS
'What churn cost in a period (default: the quarter to date): twelve times the MRR of the churns in it, as the ledger has them; the customers lost; the cost per customer lost (NULL where nobody was); contraction at twelve months beside it, not in it; and the same of the period a year before, to the same day. change is the cost over last year''s, less 1 (NULL where that was 0). Amounts in the policy''s currency; a segment is who was in it at the start of each period.';

CREATE FUNCTION cs.churn_cost_forecast(segment text DEFAULT NULL)
RETURNS TABLE (part text, renewals bigint, amount numeric, past_renewals bigint, past_lost bigint, p_low numeric, p_expected numeric, p_high numeric,
	low numeric, expected numeric, high numeric, period_start timestamptz, period_end timestamptz, as_of timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.churn_cost_forecast(text) IS
'What churn will have cost at the end of the running quarter. part realised is the cost so far (renewals: customers lost); open, notice (notice given) and overdue are what is still to be renewed until then: how many, twelve times their MRR, and the chance to lose it, which is the share lost of the renewals of the same part that were due in the four quarters before (past_lost of past_renewals; with Wilson bounds at policy.confidence; the chances of all customers, also with a segment). A subscription with n dates until then has the chance 1 - (1 - p)^n. low, expected and high are amounts times chance; (total) adds up with what is realised. Without past renewals of a part its chance lies between 0 and 1 and expected is NULL. low and high add bounds up, so they are wider than policy.confidence says.';

CREATE VIEW cs.renewal WITH (security_barrier) AS
SELECT r.customer_id, r.name, r.owner, r.due_at, r.status, r.in_time, r.target_mrr::numeric(20,6) AS target_mrr, r.renewed_mrr::numeric(20,6) AS renewed_mrr,
	r.lost_mrr::numeric(20,6) AS lost_mrr, r.renewed_at, r.notice_at, r.auto_renew, r.days_to_due, r.band, r.health_score, r.subscriptions, r.products,
	r.is_kept, r.data_through_at, r.computed_at
FROM cs.renewals() r;
COMMENT ON VIEW cs.renewal IS
'Renewals due from the start of the same quarter last year to a year from now, one row a customer and date; of dates to come each subscription has its next one. Read from the facts as they are known now. cs.renewals(period, segment) has other periods.';
COMMENT ON COLUMN cs.renewal.customer_id IS 'The customer.';
COMMENT ON COLUMN cs.renewal.name IS 'Name of the customer; NULL where none is mapped.';
COMMENT ON COLUMN cs.renewal.owner IS 'The customer''s owner (a person); NULL: none.';
COMMENT ON COLUMN cs.renewal.due_at IS 'When the term runs out: renews_at, a step of term_months, or the end.';
COMMENT ON COLUMN cs.renewal.status IS 'renewed, not_at_risk, at_risk (notice given, or band red), overdue (past its date, running on, not renewed) or lost.';
COMMENT ON COLUMN cs.renewal.in_time IS 'Renewed by the date, or signed by then; false: later; NULL: not renewed.';
COMMENT ON COLUMN cs.renewal.target_mrr IS 'MRR per month that is due, in the policy''s currency.';
COMMENT ON COLUMN cs.renewal.renewed_mrr IS 'MRR per month of what follows; NULL while open or overdue.';
COMMENT ON COLUMN cs.renewal.lost_mrr IS 'What renewed_mrr is short of target_mrr, at least 0; NULL while open or overdue.';
COMMENT ON COLUMN cs.renewal.renewed_at IS 'When the following subscription begins, or the date itself where it runs on; NULL: not renewed.';
COMMENT ON COLUMN cs.renewal.notice_at IS 'When notice was given for it; NULL: none known.';
COMMENT ON COLUMN cs.renewal.auto_renew IS 'Whether all of its subscriptions renew themselves; NULL: not known.';
COMMENT ON COLUMN cs.renewal.days_to_due IS 'Local days to the date, negative: past.';
COMMENT ON COLUMN cs.renewal.band IS 'Health band of the customer now, of open and overdue renewals; NULL: none, or decided.';
COMMENT ON COLUMN cs.renewal.health_score IS 'Health score of the customer now, of open and overdue renewals; NULL: none, or decided.';
COMMENT ON COLUMN cs.renewal.subscriptions IS 'Number of subscription rows due.';
COMMENT ON COLUMN cs.renewal.products IS 'Their products; NULL where none is mapped.';
COMMENT ON COLUMN cs.renewal.is_kept IS 'The customer is still there after the date, by this or another subscription; NULL while open or overdue.';
COMMENT ON COLUMN cs.renewal.data_through_at IS 'Facts before this instant are evaluated; NULL before the first refresh.';
COMMENT ON COLUMN cs.renewal.computed_at IS 'When the last refresh was; NULL before the first.';
