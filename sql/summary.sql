
-- ---------------------------------------------------------------------------
-- summary: what the customers of each segment did in each month, kept
-- (src/refresh/summary.c), and churn and revenue of many periods made of it.
--
-- Kept are the months that have ended, for everybody and for each dimension
-- that has a fingerprint below. period_sums() reads them where it can and computes
-- the rest in one pass over the ledger: the same sums either way.
-- ---------------------------------------------------------------------------

-- Derived: dimensions whose months are kept ('' is everybody), under which
-- definitions, and up to which bound.
CREATE TABLE cs_internal.summary (
	dimension text PRIMARY KEY,
	fingerprint text NOT NULL,
	through timestamptz NOT NULL,
	built_at timestamptz NOT NULL,
	failed boolean NOT NULL DEFAULT false        -- a rule raised: nothing is kept until the definitions change
);

-- Derived: sums of one segment and month; see src/insight/flow.h. Of who was in
-- the segment at the start of the month; customers and mrr are the change of
-- the balance, the balance itself is the sum of all months before.
CREATE TABLE cs_internal.summary_month (
	dimension text NOT NULL,
	segment text NOT NULL,
	starts timestamptz NOT NULL,
	customers bigint NOT NULL, churned bigint NOT NULL, churns bigint NOT NULL, start_churned bigint NOT NULL,
	joined bigint NOT NULL, customers_in bigint NOT NULL, customers_out bigint NOT NULL,
	mrr numeric NOT NULL, new_mrr numeric NOT NULL, reactivation_mrr numeric NOT NULL, expansion_mrr numeric NOT NULL,
	contraction_mrr numeric NOT NULL, churn_mrr numeric NOT NULL, pause_mrr numeric NOT NULL, resume_mrr numeric NOT NULL,
	merge_in numeric NOT NULL, merge_out numeric NOT NULL, fx_mrr numeric NOT NULL, net_new numeric NOT NULL,
	net_reactivation numeric NOT NULL, net_expansion numeric NOT NULL, net_contraction numeric NOT NULL, net_churn numeric NOT NULL,
	net_pause numeric NOT NULL, net_resume numeric NOT NULL, net_merge_in numeric NOT NULL, net_merge_out numeric NOT NULL,
	net_fx numeric NOT NULL, start_gross numeric NOT NULL, start_net numeric NOT NULL, lost numeric NOT NULL,
	net_lost numeric NOT NULL, gained numeric NOT NULL, mrr_in numeric NOT NULL, mrr_out numeric NOT NULL,
	PRIMARY KEY (dimension, segment, starts)
);

-- Derived: what the summaries have of customers whose rows changed since: the
-- movement as it was, kind NULL where there was none.
CREATE TABLE cs_internal.movement_before (
	customer_id text COLLATE "C" NOT NULL,
	at timestamptz NOT NULL,
	seq smallint NOT NULL,
	kind text,
	delta numeric(20,6),
	mrr_after numeric(20,6),
	active_after boolean,
	PRIMARY KEY (customer_id, at, seq)
);

-- Derived: the same of the customer, present false where there was none.
CREATE TABLE cs_internal.customer_before (
	customer_id text COLLATE "C" PRIMARY KEY,
	present boolean NOT NULL,
	name text,
	owner text,
	parent_id text,
	created_at timestamptz,
	attributes jsonb
);

-- Derived, one row: under these definitions and with these summaries nothing was to be done (src/refresh/settled.c).
CREATE TABLE cs_internal.summary_settled (
	id boolean PRIMARY KEY DEFAULT true CHECK (id),
	hash text NOT NULL,
	until timestamptz NOT NULL                   -- end of the month: then there is
);

CREATE FUNCTION cs_internal.has_turn() RETURNS boolean
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_has_turn_sql';
COMMENT ON FUNCTION cs_internal.has_turn() IS 'Whether this transaction is the refresher, or has its turn.';

-- While nothing is kept the refresher writes no journal: the build comes after it,
-- in its own turn. Everybody else always does, for a build may be under way.
CREATE FUNCTION cs_internal.journals() RETURNS boolean
LANGUAGE sql VOLATILE AS $$
	SELECT EXISTS (SELECT 1 FROM cs_internal.summary) OR NOT cs_internal.has_turn()
$$;
COMMENT ON FUNCTION cs_internal.journals() IS 'Whether a change of the ledger is to be noted for the summaries.';

-- The first change of a row since the journal was worked off says what it was.
CREATE FUNCTION cs_internal.note_movement() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'TRUNCATE' THEN
		DELETE FROM cs_internal.summary;
		DELETE FROM cs_internal.movement_before;
	ELSIF NOT cs_internal.journals() THEN
		RETURN NULL;
	ELSIF TG_OP = 'INSERT' THEN
		INSERT INTO cs_internal.movement_before (customer_id, at, seq)
		SELECT n.customer_id, n.at, n.seq FROM come n ON CONFLICT DO NOTHING;
	ELSE
		INSERT INTO cs_internal.movement_before (customer_id, at, seq, kind, delta, mrr_after, active_after)
		SELECT o.customer_id, o.at, o.seq, o.kind, o.delta, o.mrr_after, o.active_after FROM gone o ON CONFLICT DO NOTHING;
		IF TG_OP = 'UPDATE' THEN
			INSERT INTO cs_internal.movement_before (customer_id, at, seq)
			SELECT n.customer_id, n.at, n.seq FROM come n ON CONFLICT DO NOTHING;
		END IF;
	END IF;
	RETURN NULL;
END $$;
COMMENT ON FUNCTION cs_internal.note_movement() IS 'Keeps what rows of movement were, until the summaries have taken the change in.';

CREATE TRIGGER journal_insert AFTER INSERT ON cs_internal.movement REFERENCING NEW TABLE AS come
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.note_movement();
CREATE TRIGGER journal_update AFTER UPDATE ON cs_internal.movement REFERENCING OLD TABLE AS gone NEW TABLE AS come
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.note_movement();
CREATE TRIGGER journal_delete AFTER DELETE ON cs_internal.movement REFERENCING OLD TABLE AS gone
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.note_movement();
CREATE TRIGGER journal_truncate AFTER TRUNCATE ON cs_internal.movement
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.note_movement();

CREATE FUNCTION cs_internal.note_customer() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'TRUNCATE' THEN
		DELETE FROM cs_internal.summary;
		DELETE FROM cs_internal.customer_before;
	ELSIF NOT cs_internal.journals() THEN
		RETURN NULL;
	ELSIF TG_OP = 'INSERT' THEN
		INSERT INTO cs_internal.customer_before (customer_id, present)
		SELECT n.customer_id, false FROM come n ON CONFLICT DO NOTHING;
	ELSE
		INSERT INTO cs_internal.customer_before (customer_id, present, name, owner, parent_id, created_at, attributes)
		SELECT o.customer_id, true, o.name, o.owner, o.parent_id, o.created_at, o.attributes FROM gone o ON CONFLICT DO NOTHING;
	END IF;
	RETURN NULL;
END $$;
COMMENT ON FUNCTION cs_internal.note_customer() IS 'Keeps what rows of customer were, until the summaries have taken the change in.';

CREATE TRIGGER journal_insert AFTER INSERT ON cs_internal.customer REFERENCING NEW TABLE AS come
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.note_customer();
CREATE TRIGGER journal_update AFTER UPDATE ON cs_internal.customer REFERENCING OLD TABLE AS gone
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.note_customer();
CREATE TRIGGER journal_delete AFTER DELETE ON cs_internal.customer REFERENCING OLD TABLE AS gone
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.note_customer();
CREATE TRIGGER journal_truncate AFTER TRUNCATE ON cs_internal.customer
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.note_customer();

-- Months that are kept do not change with membership, which is written at the
-- instant of the refresh. What does reach back makes the dimension's be built anew.
CREATE FUNCTION cs_internal.note_membership() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'TRUNCATE' THEN
		DELETE FROM cs_internal.summary s WHERE s.dimension <> '';
	ELSIF TG_OP = 'INSERT' THEN
		DELETE FROM cs_internal.summary s
		WHERE s.dimension IN (SELECT n.dimension FROM come n WHERE n.valid_from <= s.through OR n.valid_to <= s.through);
	ELSIF TG_OP = 'DELETE' THEN
		DELETE FROM cs_internal.summary s
		WHERE s.dimension IN (SELECT o.dimension FROM gone o WHERE o.valid_from <= s.through OR o.valid_to <= s.through);
	ELSE
		DELETE FROM cs_internal.summary s
		WHERE s.dimension IN (
			SELECT x.dimension
			FROM (
				(SELECT o.dimension, o.segment, o.customer_id, o.valid_from, CASE WHEN o.valid_to <= s.through THEN o.valid_to END FROM gone o WHERE o.valid_from <= s.through
				EXCEPT SELECT n.dimension, n.segment, n.customer_id, n.valid_from, CASE WHEN n.valid_to <= s.through THEN n.valid_to END FROM come n)
				UNION ALL
				(SELECT n.dimension, n.segment, n.customer_id, n.valid_from, CASE WHEN n.valid_to <= s.through THEN n.valid_to END FROM come n WHERE n.valid_from <= s.through
				EXCEPT SELECT o.dimension, o.segment, o.customer_id, o.valid_from, CASE WHEN o.valid_to <= s.through THEN o.valid_to END FROM gone o)
			) x);
	END IF;
	RETURN NULL;
END $$;
COMMENT ON FUNCTION cs_internal.note_membership() IS 'Forgets the summaries of a dimension whose membership changed in months that are kept.';

CREATE TRIGGER journal_insert AFTER INSERT ON cs_internal.membership REFERENCING NEW TABLE AS come
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.note_membership();
CREATE TRIGGER journal_update AFTER UPDATE ON cs_internal.membership REFERENCING OLD TABLE AS gone NEW TABLE AS come
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.note_membership();
CREATE TRIGGER journal_delete AFTER DELETE ON cs_internal.membership REFERENCING OLD TABLE AS gone
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.note_membership();
CREATE TRIGGER journal_truncate AFTER TRUNCATE ON cs_internal.membership
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.note_membership();

-- Few are assigned by hand; who reads asks for these alone.
CREATE INDEX membership_manual ON cs_internal.membership (dimension) WHERE source = 'manual';

-- ---- what is kept --------------------------------------------------------------

CREATE FUNCTION cs_internal.month_starts(since timestamptz, until timestamptz) RETURNS timestamptz[]
LANGUAGE sql STABLE AS $$
	SELECT array_agg(g.month AT TIME ZONE p.time_zone ORDER BY g.month)
	FROM cs.policy p
	CROSS JOIN LATERAL generate_series(date_trunc('month', since AT TIME ZONE p.time_zone),
		date_trunc('month', until AT TIME ZONE p.time_zone), interval '1 month') AS g (month)
$$;
COMMENT ON FUNCTION cs_internal.month_starts(timestamptz, timestamptz) IS
'The instants at which the policy''s months begin, from the month of since to the month of until.';

CREATE FUNCTION cs_internal.are_months(bounds timestamptz[]) RETURNS boolean
LANGUAGE sql STABLE AS $$
	SELECT bounds[:cardinality(bounds) - 1] = (cs_internal.month_starts(bounds[1], bounds[cardinality(bounds) - 1]))
		AND bounds[cardinality(bounds)] <= p.ends
	FROM (SELECT (date_trunc('month', bounds[cardinality(bounds) - 1] AT TIME ZONE p.time_zone) + interval '1 month') AT TIME ZONE p.time_zone AS ends
		FROM cs.policy p) p
$$;
COMMENT ON FUNCTION cs_internal.are_months(timestamptz[]) IS
'Whether the bounds cut whole months of the policy, one after another, the last of which may be a running one.';

-- A rule may use what is the same whenever it is asked: no clock, no other
-- table, no function but these.
CREATE FUNCTION cs_internal.is_timeless(rule text) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
	SELECT rule !~* '\m(select|current_\w+|localtime\w*|session_user|user|operator)\M'
		AND NOT EXISTS (
			SELECT FROM regexp_matches(rule, '([\w."]+)\s*\(', 'g') f
			WHERE lower(f[1]) <> ALL ('{abs,and,any,btrim,case,ceil,coalesce,concat,else,exists,floor,greatest,ilike,in,jsonb_array_length,jsonb_typeof,least,left,length,like,lower,ltrim,mod,not,nullif,numeric,or,position,replace,right,round,row,rtrim,sign,split_part,starts_with,strpos,substr,substring,then,trim,trunc,upper,varchar,when}'))
$$;
COMMENT ON FUNCTION cs_internal.is_timeless(text) IS 'Whether an expression depends on its names alone, as far as one can tell from its words; false when in doubt.';

-- t total, s membership as stored, a an attribute, r rules over MRR, being active and the customer's columns.
CREATE FUNCTION cs_internal.pass_mode(p_dimension text) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT CASE
		WHEN p_dimension = '' THEN 't'
		WHEN cs_internal.basis_of(p_dimension) = 'stored' THEN 's'
		WHEN d.attribute IN ('product', 'term_months') THEN NULL     -- of subscription rows, which are read at each call
		WHEN d.attribute IS NOT NULL THEN 'a'
		WHEN (SELECT count(*) FROM cs_internal.dimension_needs(p_dimension)) = 1 AND cs_internal.ledger_knows(p_dimension)
			AND NOT EXISTS (SELECT FROM cs_internal.dimension_uses(p_dimension) u WHERE u.name IN ('as_of', 'as_of_day'))
			AND (SELECT count(DISTINCT s.search_path) <= 1 AND bool_and(cs_internal.is_timeless(s.rule)) IS NOT FALSE
				FROM cs.segment s WHERE s.dimension = p_dimension) THEN 'r'
		END
	FROM (SELECT) x
	LEFT JOIN cs.dimension d ON d.name = p_dimension
$$;
COMMENT ON FUNCTION cs_internal.pass_mode(text) IS
'How one pass over the ledger finds the segments of a dimension (total, stored, attribute, rules, by the first letter); NULL where it cannot: product and term of subscriptions, rules over metrics, over other dimensions or over time itself.';

CREATE FUNCTION cs_internal.states_placed(dimension text) RETURNS TABLE (customer_id text, mrr numeric, active boolean, segment text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_states_placed_sql';
COMMENT ON FUNCTION cs_internal.states_placed(text) IS
'The segment of each state that a customer was in by the ledger, by the rules of today; none unless pass_mode is r.';

-- Everything but the ledger, the customers and membership that the sums of a dimension depend on.
CREATE FUNCTION cs_internal.summary_fingerprint(p_dimension text) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT md5(jsonb_build_array(m.mode, p.time_zone, p.period_edge, d.attribute, d.fallback,
		(SELECT jsonb_agg(jsonb_build_array(s.name, s.rule, s.priority, s.search_path) ORDER BY s.name) FROM cs.segment s WHERE m.mode = 'r' AND s.dimension = p_dimension),
		(SELECT jsonb_agg(v.value ORDER BY v.value) FROM cs_internal.attribute_value v WHERE m.mode = 'a' AND v.dimension = p_dimension),
		m.mode = 'r' AND EXISTS (SELECT FROM cs.source s WHERE s.kind = 'subscription' AND s.enabled))::text)
	FROM cs.policy p
	CROSS JOIN (SELECT cs_internal.pass_mode(p_dimension)) m (mode)
	LEFT JOIN cs.dimension d ON d.name = p_dimension
	WHERE m.mode = 't' OR m.mode IS NOT NULL AND d.enabled AND d.exclusive
$$;
COMMENT ON FUNCTION cs_internal.summary_fingerprint(text) IS
'Changes whenever kept months of the dimension are to be built anew; NULL where none are kept.';

CREATE FUNCTION cs_internal.prune_journal() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	changed bigint;
BEGIN
	-- a steady refresh reads no table of customers here
	IF EXISTS (SELECT 1 FROM cs_internal.customer_before) THEN
		DELETE FROM cs_internal.customer_before b USING cs_internal.customer c
		WHERE c.customer_id = b.customer_id AND b.present
			AND (c.name, c.owner, c.parent_id, c.created_at, c.attributes) IS NOT DISTINCT FROM (b.name, b.owner, b.parent_id, b.created_at, b.attributes);
	END IF;
	SELECT count(*) INTO changed
	FROM (SELECT b.customer_id FROM cs_internal.movement_before b UNION SELECT c.customer_id FROM cs_internal.customer_before c) x;
	IF changed > 1000 AND changed > 1000 + (SELECT count(*) / 10 FROM cs_internal.customer c) THEN
		DELETE FROM cs_internal.summary;
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.prune_journal() IS
'Before the journal is worked off: what is as it was again goes, and where more than a tenth of the customers changed so do the summaries, which are then built anew.';

-- ---- reading -------------------------------------------------------------------

CREATE FUNCTION cs_internal.period_sums(dimension text, bounds timestamptz[], may_be_kept boolean)
RETURNS TABLE (segment text, period_no integer, customers_start bigint, mrr_start numeric,
	customers bigint, churned bigint, churns bigint, start_churned bigint, joined bigint,
	customers_in bigint, customers_out bigint,
	mrr numeric, new_mrr numeric, reactivation_mrr numeric, expansion_mrr numeric, contraction_mrr numeric,
	churn_mrr numeric, pause_mrr numeric, resume_mrr numeric, merge_in numeric, merge_out numeric,
	fx_mrr numeric, net_new numeric, net_reactivation numeric, net_expansion numeric, net_contraction numeric,
	net_churn numeric, net_pause numeric, net_resume numeric, net_merge_in numeric, net_merge_out numeric,
	net_fx numeric, start_gross numeric, start_net numeric, lost numeric, net_lost numeric,
	gained numeric, mrr_in numeric, mrr_out numeric)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_period_sums_sql';
COMMENT ON FUNCTION cs_internal.period_sums(text, timestamptz[], boolean) IS
'What the customers of each segment did in each of the periods that the ascending bounds cut (one less than bounds); dimension NULL: everybody, as (total). A row a segment that had a customer or movement, and period. may_be_kept false: from the ledger alone.';

-- Churn of many periods by a method that needs no days of its own: as
-- churn_total says of each, with the transfers at the end of each.
CREATE FUNCTION cs_internal.churn_periods(bounds timestamptz[], dimension text, method text, unit text)
RETURNS TABLE (period_no integer, in_segment text, numerator numeric, denominator numeric, rate numeric, k bigint, n bigint,
	transfer_in numeric, transfer_out numeric)
LANGUAGE sql STABLE AS $$
	SELECT x.period_no, x.segment, x.lost, x.base, cs_internal.rate(x.lost, x.base),
		CASE WHEN unit = 'logo' AND method IN ('snapshot', 'event_of_start') THEN x.lost::bigint END,
		CASE WHEN unit = 'logo' AND method IN ('snapshot', 'event_of_start') THEN x.base::bigint END,
		x.transfer_in, x.transfer_out
	FROM (
		SELECT s.period_no, s.segment,
			CASE unit
				WHEN 'logo' THEN CASE method WHEN 'snapshot' THEN s.churned WHEN 'event_of_start' THEN s.start_churned ELSE s.churns END
				WHEN 'gross_mrr' THEN CASE method WHEN 'snapshot' THEN s.net_churn + s.net_contraction
					WHEN 'event_of_start' THEN s.start_gross ELSE s.churn_mrr + s.contraction_mrr END
				ELSE CASE method WHEN 'snapshot' THEN s.net_churn + s.net_contraction - s.net_expansion - s.net_reactivation
					WHEN 'event_of_start' THEN s.start_net ELSE s.churn_mrr + s.contraction_mrr - s.expansion_mrr - s.reactivation_mrr END
			END AS lost,
			CASE unit WHEN 'logo' THEN s.customers_start + CASE method WHEN 'rolling_base' THEN s.joined ELSE 0 END
				ELSE s.mrr_start + CASE method WHEN 'rolling_base' THEN s.new_mrr ELSE 0 END END AS base,
			CASE unit WHEN 'logo' THEN s.customers_in ELSE s.mrr_in END AS transfer_in,
			CASE unit WHEN 'logo' THEN s.customers_out ELSE s.mrr_out END AS transfer_out
		FROM cs_internal.period_sums(churn_periods.dimension, bounds, true) s
	) x
$$;
COMMENT ON FUNCTION cs_internal.churn_periods(timestamptz[], text, text, text) IS
'Churn by method (not daily_sum) and unit in each of the periods that the bounds cut, a row a segment that ever had a customer; dimension NULL: (total).';

-- Revenue of many periods, as cs.revenue says of each.
CREATE FUNCTION cs_internal.revenue_periods(bounds timestamptz[], dimension text, endpoints boolean)
RETURNS TABLE (period_no integer, in_segment text,
	mrr_start numeric, new_mrr numeric, reactivation_mrr numeric, expansion_mrr numeric, contraction_mrr numeric, churn_mrr numeric,
	pause_mrr numeric, resume_mrr numeric, merge_in numeric, merge_out numeric, fx_mrr numeric, transfer_in numeric, transfer_out numeric, mrr_end numeric,
	grr numeric, nrr numeric, gross_mrr_churn numeric, net_mrr_churn numeric, quick_ratio numeric, arpa numeric,
	customers_start bigint, customers_end bigint)
LANGUAGE sql STABLE AS $$
	SELECT t.period_no, t.segment, t.m0::numeric(20,6), t.new::numeric(20,6), t.reactivation::numeric(20,6), t.expansion::numeric(20,6),
		t.contraction::numeric(20,6), t.churn::numeric(20,6), t.pause::numeric(20,6), t.resume::numeric(20,6),
		t.merged_in::numeric(20,6), t.merged_out::numeric(20,6), t.fx::numeric(20,6), t.mrr_in::numeric(20,6), t.mrr_out::numeric(20,6), t.m1::numeric(20,6),
		cs_internal.rate(t.m0 - t.lost, t.m0), cs_internal.rate(t.m0 + t.gained, t.m0),
		cs_internal.rate(t.churn + t.contraction, t.m0), cs_internal.rate(t.churn + t.contraction - t.expansion - t.reactivation, t.m0),
		((t.new + t.expansion) / nullif(t.churn + t.contraction, 0))::numeric(30,9), (t.m1 / nullif(c.n1, 0))::numeric(20,6), c.n0, c.n1
	FROM (SELECT cs_internal.measure_of('logo') = 'logo') l (by_account)
	CROSS JOIN (
		SELECT s.period_no, s.segment, s.mrr_start AS m0, s.mrr_start + s.mrr + s.mrr_in - s.mrr_out AS m1,
			s.customers_start AS n0, s.customers_start + s.customers + s.customers_in - s.customers_out AS n1, s.mrr_in, s.mrr_out, s.gained,
			CASE WHEN endpoints THEN s.net_lost ELSE s.lost END AS lost,
			CASE WHEN endpoints THEN s.net_new ELSE s.new_mrr END AS new,
			CASE WHEN endpoints THEN s.net_reactivation ELSE s.reactivation_mrr END AS reactivation,
			CASE WHEN endpoints THEN s.net_expansion ELSE s.expansion_mrr END AS expansion,
			CASE WHEN endpoints THEN s.net_contraction ELSE s.contraction_mrr END AS contraction,
			CASE WHEN endpoints THEN s.net_churn ELSE s.churn_mrr END AS churn,
			CASE WHEN endpoints THEN s.net_pause ELSE s.pause_mrr END AS pause,
			CASE WHEN endpoints THEN s.net_resume ELSE s.resume_mrr END AS resume,
			CASE WHEN endpoints THEN s.net_merge_in ELSE s.merge_in END AS merged_in,
			CASE WHEN endpoints THEN s.net_merge_out ELSE s.merge_out END AS merged_out,
			CASE WHEN endpoints THEN s.net_fx ELSE s.fx_mrr END AS fx
		FROM cs_internal.period_sums(revenue_periods.dimension, bounds, true) s
	) t
	LEFT JOIN cs_internal.logo_periods(bounds, revenue_periods.dimension) g ON g.period_no = t.period_no AND g.in_segment = t.segment
	CROSS JOIN LATERAL (SELECT CASE WHEN l.by_account THEN coalesce(g.customers_start, 0) ELSE t.n0 END,
		CASE WHEN l.by_account THEN coalesce(g.customers_end, 0) ELSE t.n1 END) c (n0, n1)
$$;
COMMENT ON FUNCTION cs_internal.revenue_periods(timestamptz[], text, boolean) IS
'Revenue in each of the periods that the bounds cut, by the movements or net (endpoints), a row a segment that ever had a customer; dimension NULL: (total).';

-- As churn_total of each period at its own start, by the sums where they say it.
CREATE FUNCTION cs_internal.churn_spans(bounds timestamptz[], until timestamptz, method text, unit text, dimension text, segment text, basis text)
RETURNS TABLE (period_no integer, in_segment text, numerator numeric, denominator numeric, rate numeric, k bigint, n bigint)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_variable
BEGIN
	IF method IN ('snapshot', 'rolling_base', 'event_over_start', 'event_of_start') AND unit IN ('logo', 'gross_mrr', 'net_mrr')
		AND cs_internal.measure_of(unit) = 'mrr' THEN
		RETURN QUERY
		WITH summed AS MATERIALIZED (
			SELECT c.* FROM cs_internal.churn_periods(bounds || until, dimension, method, unit) c
		)
		SELECT g.no, x.name, coalesce(s.numerator, 0), coalesce(s.denominator, 0), s.rate,
			CASE WHEN unit = 'logo' AND method IN ('snapshot', 'event_of_start') THEN coalesce(s.k, 0) END,
			CASE WHEN unit = 'logo' AND method IN ('snapshot', 'event_of_start') THEN coalesce(s.n, 0) END
		FROM generate_subscripts(bounds, 1) g (no)
		CROSS JOIN (
			SELECT DISTINCT d.in_segment FROM summed d WHERE segment IS NULL OR d.in_segment = segment
			UNION SELECT CASE WHEN dimension IS NULL THEN '(total)' ELSE coalesce(segment, '(none)') END
		) x (name)
		LEFT JOIN summed s ON s.period_no = g.no AND s.in_segment = x.name
		WHERE EXISTS (SELECT FROM summed);
		IF FOUND THEN
			RETURN;
		END IF;
	END IF;
	IF dimension IS NULL THEN
		RETURN QUERY SELECT t.* FROM cs_internal.churn_total(bounds, until, method, unit, NULL, NULL, NULL, NULL) t;
		RETURN;
	END IF;
	-- who is in the segment is asked anew at each start
	RETURN QUERY
	SELECT g.no, t.in_segment, t.numerator, t.denominator, t.rate, t.k, t.n
	FROM generate_subscripts(bounds, 1) g (no)
	CROSS JOIN LATERAL cs_internal.churn_total(ARRAY[bounds[g.no]], coalesce(bounds[g.no + 1], until), method, unit, dimension, segment, bounds[g.no], basis) t;
END $$;
COMMENT ON FUNCTION cs_internal.churn_spans(timestamptz[], timestamptz, text, text, text, text, text) IS
'Churn of touching periods, the last of which ends at until: a row a period and segment (all where segment is NULL) of the dimension, where everybody counts where it stood at the start of each. In one pass or from kept months where that can be.';

-- ---- by month and segment ------------------------------------------------------

CREATE FUNCTION cs_internal.churn_segment_months(p_dimension text)
RETURNS TABLE (
	month date, dimension text, segment text, numerator numeric, denominator numeric, rate numeric, ci_low numeric, ci_high numeric,
	method text, unit text, segment_basis text, complete boolean, data_through_at timestamptz, computed_at timestamptz)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.now();
	choice record;
	span record;
	basis text;
BEGIN
	SELECT * INTO span FROM cs_internal.period('this month', seen_at);
	SELECT * INTO choice FROM cs_internal.churn_choice(NULL, NULL);
	PERFORM cs_internal.must_be_dimension(p_dimension);
	SELECT * INTO span FROM cs_internal.month_bound(seen_at);
	IF span.bounds IS NULL OR cs_internal.pass_mode(p_dimension) IS NULL THEN
		RETURN;
	END IF;
	basis := cs_internal.basis_of(p_dimension);
	RETURN QUERY
	WITH summed AS MATERIALIZED (
		SELECT t.* FROM cs_internal.churn_spans(span.bounds, seen_at, choice.method, choice.unit, p_dimension, NULL, basis) t
	)
	SELECT span.months[g.no], p_dimension, x.name, coalesce(t.numerator, 0),
		CASE WHEN choice.method <> 'daily_sum' THEN coalesce(t.denominator, 0) END, t.rate,
		cs_internal.wilson(t.k, t.n, p.confidence::float8, false)::numeric(18,9),
		cs_internal.wilson(t.k, t.n, p.confidence::float8, true)::numeric(18,9),
		choice.method, choice.unit, basis, g.no < cardinality(span.bounds), c.last_as_of, c.last_refresh_at
	FROM generate_subscripts(span.bounds, 1) g (no)
	CROSS JOIN (
		SELECT s.in_segment FROM summed s
		UNION SELECT k.name FROM cs_internal.known_segment(p_dimension, span.bounds[1], seen_at, basis) k (name)
	) x (name)
	LEFT JOIN summed t ON t.period_no = g.no AND t.in_segment = x.name
	CROSS JOIN cs.policy p
	LEFT JOIN cs_internal.clock c ON true
	ORDER BY g.no, x.name = '(none)', x.name COLLATE "C";
END $$;
COMMENT ON FUNCTION cs_internal.churn_segment_months(text) IS 'See cs.churn_segment_months.';

CREATE FUNCTION cs.churn_segment_months(dimension text)
RETURNS TABLE (
	month date, dimension text, segment text, numerator numeric, denominator numeric, rate numeric, ci_low numeric, ci_high numeric,
	method text, unit text, segment_basis text, complete boolean, data_through_at timestamptz, computed_at timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.churn_segment_months(text) IS
'The rows of cs.churn_by_segment_monthly of one dimension. No row where the segments of the past cannot be had in one pass over the ledger (cs.summary_status() names these): ask month by month with cs.churn_by.';

CREATE VIEW cs.churn_by_segment_monthly WITH (security_barrier) AS
SELECT c.month, d.name AS dimension, c.segment, c.numerator::numeric(20,6) AS numerator, c.denominator::numeric(20,6) AS denominator,
	c.rate::numeric(18,9) AS rate, c.ci_low::numeric(18,9) AS ci_low, c.ci_high::numeric(18,9) AS ci_high,
	c.method, c.unit, c.segment_basis, c.complete, c.data_through_at, c.computed_at
FROM cs.dimension d
CROSS JOIN LATERAL cs.churn_segment_months(d.name) c
WHERE d.enabled;
COMMENT ON VIEW cs.churn_by_segment_monthly IS
'Churn of every month from the first movement to the running one by the segments of each dimension, by the policy''s method and unit; each row is what cs.churn_by says of that month. Say which dimension: the others are then not computed. Without dimensions over metrics or over other dimensions, see cs.summary_status().';
COMMENT ON COLUMN cs.churn_by_segment_monthly.month IS 'First day of the month, which is cut in the policy''s time zone.';
COMMENT ON COLUMN cs.churn_by_segment_monthly.dimension IS 'Dimension that the segment belongs to.';
COMMENT ON COLUMN cs.churn_by_segment_monthly.segment IS 'Segment in which the customers were at the start of the month; (none) for those in none.';
COMMENT ON COLUMN cs.churn_by_segment_monthly.numerator IS 'Customers or churns, as the method counts (unit logo), or MRR lost (money units; net_mrr can be negative).';
COMMENT ON COLUMN cs.churn_by_segment_monthly.denominator IS 'Customers active, or MRR, at the start of the month; by rolling_base with the new ones. NULL by daily_sum, which has one a day.';
COMMENT ON COLUMN cs.churn_by_segment_monthly.rate IS 'numerator / denominator as a fraction, by daily_sum the sum of those of each day; NULL where the base is empty.';
COMMENT ON COLUMN cs.churn_by_segment_monthly.ci_low IS 'Lower Wilson bound of the rate at policy.confidence; only where the rate is a share of customers, NULL with an empty base.';
COMMENT ON COLUMN cs.churn_by_segment_monthly.ci_high IS 'Upper Wilson bound of the rate at policy.confidence; only where the rate is a share of customers, NULL with an empty base.';
COMMENT ON COLUMN cs.churn_by_segment_monthly.method IS 'Method of churn: policy.churn_method.';
COMMENT ON COLUMN cs.churn_by_segment_monthly.unit IS 'What is counted: policy.churn_unit.';
COMMENT ON COLUMN cs.churn_by_segment_monthly.segment_basis IS 'How segments of the past were found: restated or stored.';
COMMENT ON COLUMN cs.churn_by_segment_monthly.complete IS 'False for the running month, which is computed up to now.';
COMMENT ON COLUMN cs.churn_by_segment_monthly.data_through_at IS 'Instant up to which facts were evaluated; NULL before the first refresh.';
COMMENT ON COLUMN cs.churn_by_segment_monthly.computed_at IS 'When the last refresh was; NULL before the first.';

CREATE FUNCTION cs_internal.revenue_segment_months(p_dimension text, p_basis text)
RETURNS TABLE (
	month date, dimension text, segment text, basis text,
	mrr_start numeric, new_mrr numeric, reactivation_mrr numeric, expansion_mrr numeric, contraction_mrr numeric, churn_mrr numeric,
	pause_mrr numeric, resume_mrr numeric, merge_in numeric, merge_out numeric, fx_mrr numeric, transfer_in numeric, transfer_out numeric, mrr_end numeric,
	grr numeric, nrr numeric, gross_mrr_churn numeric, net_mrr_churn numeric, quick_ratio numeric, arpa numeric,
	customers_start bigint, customers_end bigint, currency text, segment_basis text,
	complete boolean, data_through_at timestamptz, computed_at timestamptz)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	seen_at timestamptz := cs_internal.now();
	chosen text := coalesce(p_basis, 'ledger');
	span record;
BEGIN
	SELECT * INTO span FROM cs_internal.period('this month', seen_at);
	PERFORM cs_internal.must_be_word('basis of revenue', chosen, '{ledger,endpoints}');
	PERFORM cs_internal.must_be_dimension(p_dimension);
	PERFORM cs_internal.require_fx_rates();
	SELECT * INTO span FROM cs_internal.month_bound(seen_at);
	IF span.bounds IS NULL THEN
		RETURN;
	END IF;
	RETURN QUERY
	SELECT span.months[t.period_no], p_dimension, t.in_segment, chosen,
		t.mrr_start, t.new_mrr, t.reactivation_mrr, t.expansion_mrr, t.contraction_mrr, t.churn_mrr,
		t.pause_mrr, t.resume_mrr, t.merge_in, t.merge_out, t.fx_mrr, t.transfer_in, t.transfer_out, t.mrr_end,
		t.grr, t.nrr, t.gross_mrr_churn, t.net_mrr_churn, t.quick_ratio, t.arpa, t.customers_start, t.customers_end,
		p.currency::text, cs_internal.basis_of(p_dimension), t.period_no < cardinality(span.bounds), c.last_as_of, c.last_refresh_at
	FROM cs_internal.revenue_periods(span.bounds || seen_at, p_dimension, chosen = 'endpoints') t
	CROSS JOIN cs.policy p
	LEFT JOIN cs_internal.clock c ON true
	ORDER BY t.period_no, t.in_segment = '(none)', t.in_segment COLLATE "C";
END $$;
COMMENT ON FUNCTION cs_internal.revenue_segment_months(text, text) IS 'See cs.revenue_segment_months.';

CREATE FUNCTION cs.revenue_segment_months(dimension text, basis text DEFAULT 'ledger')
RETURNS TABLE (
	month date, dimension text, segment text, basis text,
	mrr_start numeric, new_mrr numeric, reactivation_mrr numeric, expansion_mrr numeric, contraction_mrr numeric, churn_mrr numeric,
	pause_mrr numeric, resume_mrr numeric, merge_in numeric, merge_out numeric, fx_mrr numeric, transfer_in numeric, transfer_out numeric, mrr_end numeric,
	grr numeric, nrr numeric, gross_mrr_churn numeric, net_mrr_churn numeric, quick_ratio numeric, arpa numeric,
	customers_start bigint, customers_end bigint, currency text, segment_basis text,
	complete boolean, data_through_at timestamptz, computed_at timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.revenue_segment_months(text, text) IS
'The rows of cs.revenue_by_segment_monthly of one dimension, of basis ledger or endpoints. No row where the segments of the past cannot be had in one pass over the ledger (cs.summary_status() names these): ask month by month with cs.revenue_by.';

CREATE VIEW cs.revenue_by_segment_monthly WITH (security_barrier) AS
SELECT r.month, d.name AS dimension, r.segment,
	r.mrr_start::numeric(20,6) AS mrr_start, r.new_mrr::numeric(20,6) AS new_mrr,
	r.reactivation_mrr::numeric(20,6) AS reactivation_mrr, r.expansion_mrr::numeric(20,6) AS expansion_mrr,
	r.contraction_mrr::numeric(20,6) AS contraction_mrr, r.churn_mrr::numeric(20,6) AS churn_mrr,
	r.pause_mrr::numeric(20,6) AS pause_mrr, r.resume_mrr::numeric(20,6) AS resume_mrr,
	r.merge_in::numeric(20,6) AS merge_in, r.merge_out::numeric(20,6) AS merge_out, r.fx_mrr::numeric(20,6) AS fx_mrr,
	r.transfer_in::numeric(20,6) AS transfer_in, r.transfer_out::numeric(20,6) AS transfer_out, r.mrr_end::numeric(20,6) AS mrr_end,
	r.grr::numeric(18,9) AS grr, r.nrr::numeric(18,9) AS nrr,
	r.gross_mrr_churn::numeric(18,9) AS gross_mrr_churn, r.net_mrr_churn::numeric(18,9) AS net_mrr_churn,
	r.quick_ratio::numeric(30,9) AS quick_ratio, r.arpa::numeric(20,6) AS arpa,
	r.customers_start, r.customers_end, r.currency, r.segment_basis, r.complete, r.data_through_at, r.computed_at
FROM cs.dimension d
CROSS JOIN LATERAL cs.revenue_segment_months(d.name) r
WHERE d.enabled;
COMMENT ON VIEW cs.revenue_by_segment_monthly IS
'MRR and its movements in every month by the segments of each dimension; each row is what cs.revenue says of that month and segment (basis ledger), so the segments of a dimension add up to cs.revenue_monthly. Segments that never had a customer are left out. Say which dimension: the others are then not computed. Without dimensions over metrics or over other dimensions, see cs.summary_status(). Amounts are MRR per month in the policy''s currency.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.month IS 'First day of the month, which is cut in the policy''s time zone.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.dimension IS 'Dimension that the segment belongs to.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.segment IS 'Segment; (none) for who is in none. Flows and rates are of who was in it at the start of the month.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.mrr_start IS 'MRR at the start of the month: mrr_end of the month before.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.new_mrr IS 'MRR of customers that never paid before.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.reactivation_mrr IS 'MRR of customers that came back after a churn.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.expansion_mrr IS 'Increases of customers that were active.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.contraction_mrr IS 'Decreases of customers that stayed active; >= 0.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.churn_mrr IS 'MRR lost with customers that stopped being active; >= 0.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.pause_mrr IS 'MRR put on hold by pauses, neither churn nor contraction; >= 0.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.resume_mrr IS 'MRR back from pauses.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.merge_in IS 'MRR that came with merged customers.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.merge_out IS 'MRR that went with merged customers; >= 0.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.fx_mrr IS 'Change by exchange rates alone; of either sign.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.transfer_in IS 'MRR at the end of customers that came from other segments (or none) in the month.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.transfer_out IS 'MRR at the end of customers that went to other segments (or none) in the month.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.mrr_end IS 'MRR at the end of who is in the segment then: mrr_start + new + reactivation + expansion + resume + merge_in + transfer_in - contraction - churn - pause - merge_out - transfer_out + fx.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.grr IS 'Gross revenue retention, a fraction from 0 to 1: of mrr_start, what is left after losses; NULL where mrr_start is 0.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.nrr IS 'Net revenue retention, a fraction: MRR at the end of the customers there at the start, over mrr_start; NULL where that is 0.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.gross_mrr_churn IS '(churn + contraction) / mrr_start; NULL where mrr_start is 0.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.net_mrr_churn IS '(churn + contraction - expansion - reactivation) / mrr_start, can be negative; NULL where mrr_start is 0.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.quick_ratio IS '(new + expansion) / (churn + contraction); NULL where nothing was lost.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.arpa IS 'MRR per active customer at the end: mrr_end / customers_end; NULL without customers.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.customers_start IS 'Active customers in the segment at the start.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.customers_end IS 'Active customers in the segment at the end.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.currency IS 'Currency of the amounts: policy.currency.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.segment_basis IS 'How segments of the past were found: restated or stored.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.complete IS 'False for the running month, which is computed up to now.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.data_through_at IS 'Instant up to which facts were evaluated; NULL before the first refresh.';
COMMENT ON COLUMN cs.revenue_by_segment_monthly.computed_at IS 'When the last refresh was; NULL before the first.';

CREATE FUNCTION cs_internal.summary_status()
RETURNS TABLE (dimension text, kept boolean, reason text, through timestamptz, months bigint, waiting bigint, built_at timestamptz)
LANGUAGE sql STABLE AS $$
	SELECT x.name, s.fingerprint IS NOT NULL AND s.fingerprint = x.fingerprint AND NOT s.failed,
		CASE WHEN x.name IS NOT NULL AND cs_internal.pass_mode(x.name) IS NULL THEN CASE WHEN EXISTS (SELECT FROM cs.dimension d WHERE d.name = x.name AND d.attribute IS NOT NULL)
				THEN 'products and terms of subscriptions: every month is read by itself'
				ELSE 'rules over metrics, time or other dimensions: every month is evaluated by itself' END
			WHEN s.failed AND s.fingerprint = x.fingerprint THEN 'a rule raised: see cs.definition_status'
			WHEN s.fingerprint IS DISTINCT FROM x.fingerprint THEN 'from the next refresh on' END,
		CASE WHEN s.fingerprint = x.fingerprint AND NOT s.failed THEN s.through END,
		(SELECT count(DISTINCT k.starts) FROM cs_internal.summary_month k WHERE s.fingerprint = x.fingerprint AND k.dimension = s.dimension),
		(SELECT count(*) FROM (SELECT b.customer_id FROM cs_internal.movement_before b UNION SELECT c.customer_id FROM cs_internal.customer_before c) w),
		CASE WHEN s.fingerprint = x.fingerprint THEN s.built_at END
	FROM (
		SELECT NULL AS name, cs_internal.summary_fingerprint('') AS fingerprint
		UNION ALL
		SELECT d.name, cs_internal.summary_fingerprint(d.name) FROM cs.dimension d WHERE d.enabled
	) x
	LEFT JOIN cs_internal.summary s ON s.dimension = coalesce(x.name, '')
	ORDER BY x.name NULLS FIRST
$$;
COMMENT ON FUNCTION cs_internal.summary_status() IS 'See cs.summary_status.';

CREATE FUNCTION cs.summary_status()
RETURNS TABLE (dimension text, kept boolean, reason text, through timestamptz, months bigint, waiting bigint, built_at timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.summary_status() IS
'Which monthly sums of churn and revenue are kept: one row for everybody (dimension NULL) and one a dimension. reason says why not; through is the end of the last kept month, months how many have any number, waiting the customers whose changes the next refresh takes in (who reads has them already).';
