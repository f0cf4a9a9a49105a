
-- ---------------------------------------------------------------------------
-- publish: the numbers of a period as they were given out, and what has moved
-- them since. Decided state: written once, never changed, always dumped.
--
-- Cases. Restore: three plain tables with their sequence, no check against the
-- present. Corrected facts, changed policy or rates: nothing here moves;
-- restatement computes anew and compares. Abort: nothing is published.
-- Concurrent publishing: two publications, the later one is compared with.
-- ---------------------------------------------------------------------------

CREATE TABLE cs_internal.publication (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	period text NOT NULL,
	period_start timestamptz NOT NULL,
	period_end timestamptz NOT NULL,
	policy jsonb NOT NULL,               -- the row of cs.policy
	numbers jsonb NOT NULL,              -- {"mrr_start": 1000.000000, ...}; null where there was none
	note text,
	actor text NOT NULL,
	data_through_at timestamptz,         -- last evaluated instant then
	published_at timestamptz NOT NULL
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.publication', '');
SELECT pg_catalog.pg_extension_config_dump('cs_internal.publication_id_seq', '');

-- What each customer had in the numbers that are sums over customers.
CREATE TABLE cs_internal.published_customer (
	publication bigint NOT NULL,
	customer_id text COLLATE "C" NOT NULL,
	numbers jsonb NOT NULL,              -- those that are not 0
	PRIMARY KEY (publication, customer_id)
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.published_customer', '');

-- Subscription rows of the period, as far as they matter to it.
CREATE TABLE cs_internal.published_fact (
	publication bigint NOT NULL,
	customer_id text COLLATE "C" NOT NULL,
	source text NOT NULL,
	subscription_id text,
	start_at timestamptz NOT NULL,
	end_at timestamptz,                  -- NULL: not within the period
	mrr numeric,
	currency text,
	counts boolean NOT NULL
);
CREATE INDEX published_fact_customer ON cs_internal.published_fact (publication, customer_id);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.published_fact', '');

CREATE FUNCTION cs_internal.keep_published() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RAISE EXCEPTION 'what was published is not changed' USING ERRCODE = 'object_not_in_prerequisite_state',
		HINT = 'Publish the period once more: SELECT cs.publish(period, note).';
END $$;
COMMENT ON FUNCTION cs_internal.keep_published() IS 'Refuses every change of what was published.';
CREATE TRIGGER keep BEFORE UPDATE OR DELETE OR TRUNCATE ON cs_internal.publication
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.keep_published();
CREATE TRIGGER keep BEFORE UPDATE OR DELETE OR TRUNCATE ON cs_internal.published_customer
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.keep_published();
CREATE TRIGGER keep BEFORE UPDATE OR DELETE OR TRUNCATE ON cs_internal.published_fact
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.keep_published();

-- ---- the numbers as the facts give them -----------------------------------------

-- Of each customer, the numbers that add up; names as in revenue, and churned
-- and churn_base by the method that is asked.
CREATE FUNCTION cs_internal.customer_numbers(t0 timestamptz, t1 timestamptz, method text)
RETURNS TABLE (customer_id text, numbers jsonb)
LANGUAGE plpgsql STABLE SET jit = off SET enable_nestloop = off AS $$
#variable_conflict use_column
DECLARE
	by_account boolean := cs_internal.measure_of('logo') = 'logo';
BEGIN
	RETURN QUERY
	WITH flow AS (
		SELECT f.*, max(f.period_no) OVER (PARTITION BY f.customer_id) AS last_no
		FROM cs_internal.customer_flow(ARRAY[t0], t1, false, NULL, NULL, NULL, NULL, 'mrr') f
	), moved AS (
		SELECT f.customer_id, f.active_start, f.active_end, f.mrr_start, f.mrr_end, f.new_mrr, f.reactivation_mrr, f.expansion_mrr,
			f.contraction_mrr, f.churn_mrr, f.pause_mrr, f.resume_mrr, f.merge_in, f.merge_out, f.fx_mrr
		FROM flow f WHERE f.period_no = 1
		UNION ALL
		SELECT b.customer_id, b.active_end, b.active_end, b.mrr_end, b.mrr_end, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
		FROM flow b
		WHERE b.period_no = 0 AND (b.active_end OR b.mrr_end <> 0) AND b.last_no = 0
	), counted AS (
		SELECT m.customer_id, m.numerator, coalesce(m.denominator, 0) AS denominator
		FROM cs_internal.churn_member(t0, t1, NULL, NULL, NULL, method, 'logo') m
		WHERE m.numerator <> 0 OR m.denominator <> 0
	), logo AS (
		SELECT m.customer_id, m.active_start, m.active_end FROM moved m WHERE NOT by_account AND (m.active_start OR m.active_end)
		UNION ALL
		SELECT coalesce(a.customer_id, z.customer_id), coalesce(a.active, false), coalesce(z.active, false)
		FROM (SELECT x.* FROM cs_internal.account_at(NULL, t0, NULL) x WHERE by_account AND x.active) a
		FULL JOIN (SELECT x.* FROM cs_internal.account_at(NULL, t1, NULL) x WHERE by_account AND x.active) z ON z.customer_id = a.customer_id
	)
	SELECT coalesce(m.customer_id, c.customer_id, l.customer_id), n.numbers
	FROM moved m
	FULL JOIN counted c ON c.customer_id = m.customer_id
	FULL JOIN logo l ON l.customer_id = coalesce(m.customer_id, c.customer_id)
	CROSS JOIN LATERAL (
		SELECT jsonb_object_agg(v.name, v.value) AS numbers
		FROM (VALUES ('customers_start', l.active_start::integer::numeric), ('customers_end', l.active_end::integer),
			('mrr_start', m.mrr_start), ('mrr_end', m.mrr_end), ('new_mrr', m.new_mrr), ('reactivation_mrr', m.reactivation_mrr),
			('expansion_mrr', m.expansion_mrr), ('contraction_mrr', m.contraction_mrr), ('churn_mrr', m.churn_mrr),
			('pause_mrr', m.pause_mrr), ('resume_mrr', m.resume_mrr), ('merge_in', m.merge_in), ('merge_out', m.merge_out),
			('fx_mrr', m.fx_mrr), ('churned', c.numerator), ('churn_base', c.denominator)) v (name, value)
		WHERE v.value <> 0) n
	WHERE n.numbers IS NOT NULL;
END $$;
COMMENT ON FUNCTION cs_internal.customer_numbers(timestamptz, timestamptz, text) IS
'What each customer has in the numbers of a period that are sums over customers, those that are not 0.';

CREATE FUNCTION cs_internal.period_numbers(t0 timestamptz, t1 timestamptz, method text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET jit = off AS $$
DECLARE
	result jsonb;
	rates jsonb;
BEGIN
	SELECT to_jsonb(f) - 'period_no' INTO result FROM cs_internal.flow_total(ARRAY[t0], t1, false, NULL, NULL, NULL, NULL) f;
	result := result || coalesce((SELECT to_jsonb(g) - 'in_segment' FROM cs_internal.logos_between(t0, t1, NULL, NULL, NULL) g), '{}');
	SELECT jsonb_object_agg('churn_rate_' || u.unit, t.rate)
			|| jsonb_build_object('churned', sum(t.numerator) FILTER (WHERE u.unit = 'logo'), 'churn_base', coalesce(sum(t.denominator) FILTER (WHERE u.unit = 'logo'), 0))
		INTO rates
	FROM unnest('{logo,gross_mrr,net_mrr}'::text[]) u (unit)
	CROSS JOIN LATERAL cs_internal.churn_total(ARRAY[t0], t1, method, u.unit, NULL, NULL, NULL, NULL) t;
	RETURN result || rates || jsonb_build_object('arpa', ((result ->> 'mrr_end')::numeric / nullif((result ->> 'customers_end')::numeric, 0))::numeric(20,6));
END $$;
COMMENT ON FUNCTION cs_internal.period_numbers(timestamptz, timestamptz, text) IS
'The numbers of a period: those of revenue by the movements, churned customers and their base by a method, and its rates in customers, gross and net MRR.';

-- An end after the period, or a start in it that comes to nothing, is no matter of it.
CREATE FUNCTION cs_internal.period_fact(t0 timestamptz, t1 timestamptz, edge text)
RETURNS TABLE (customer_id text, source text, subscription_id text, start_at timestamptz, end_at timestamptz, mrr numeric, currency text, counts boolean)
LANGUAGE sql STABLE AS $$
	SELECT r.customer_id, r.source, r.subscription_id, r.start_at, CASE WHEN r.end_at - s.shift < t1 THEN r.end_at END, r.mrr, r.currency, r.counts
	FROM cs_internal.term_rows() r
	CROSS JOIN (SELECT CASE edge WHEN 'at' THEN interval '1 microsecond' ELSE interval '0' END AS shift) s
	WHERE r.status <> 'licence' AND r.start_at - s.shift < t1 AND (r.end_at IS NULL OR r.end_at - s.shift >= t0)
$$;
COMMENT ON FUNCTION cs_internal.period_fact(timestamptz, timestamptz, text) IS 'Subscription rows that run or end in a period, with their end only where it lies in it.';

-- ---- publish ------------------------------------------------------------------------

CREATE FUNCTION cs_internal.publish(p_period text, p_note text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	span record;
	made bigint;
	method text := (SELECT p.churn_method FROM cs.policy p);
BEGIN
	SELECT * INTO span FROM cs_internal.period(p_period, cs_internal.now());
	IF NOT span.complete THEN
		RAISE EXCEPTION 'the period "%" is not over', p_period USING ERRCODE = 'object_not_in_prerequisite_state',
			DETAIL = format('Now is %s.', cs_internal.now()), HINT = 'Publish a period that has ended, for example ''last month''.';
	END IF;
	PERFORM cs_internal.churn_choice(method, NULL);
	INSERT INTO cs_internal.publication (period, period_start, period_end, policy, numbers, note, actor, data_through_at, published_at)
	SELECT p_period, span.period_start, span.period_end, to_jsonb(p), cs_internal.period_numbers(span.period_start, span.period_end, method),
		p_note, cs_internal.actor(NULL), (SELECT c.last_as_of FROM cs_internal.clock c), clock_timestamp()
	FROM cs.policy p
	RETURNING id INTO made;
	INSERT INTO cs_internal.published_customer (publication, customer_id, numbers)
	SELECT made, n.customer_id, n.numbers FROM cs_internal.customer_numbers(span.period_start, span.period_end, method) n;
	INSERT INTO cs_internal.published_fact (publication, customer_id, source, subscription_id, start_at, end_at, mrr, currency, counts)
	SELECT made, f.* FROM cs.policy p CROSS JOIN LATERAL cs_internal.period_fact(span.period_start, span.period_end, p.period_edge) f;
	RETURN made;
END $$;
COMMENT ON FUNCTION cs_internal.publish(text, text) IS 'See cs.publish.';

CREATE FUNCTION cs.publish(period text, note text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.publish(text, text) IS
'Keeps the numbers of a period that is over as they are now, with what each customer and which subscription rows had in them, the policy, and a note; returns the number of the publication. They stand in cs.published, are never changed and are dumped; cs.restatement says what has moved since. A period can be published again: then the later publication is compared with. Raises 55000 for a period that is not over.';

CREATE VIEW cs.published WITH (security_barrier) AS
SELECT p.id AS publication, p.period, p.period_start, p.period_end, n.key AS number,
	n.value::numeric(30,9) AS value,
	p.policy ->> 'churn_method' AS churn_method, (p.policy ->> 'version')::integer AS policy_version,
	p.policy ->> 'time_zone' AS time_zone, p.policy ->> 'period_edge' AS period_edge, p.policy ->> 'currency' AS currency,
	p.id = pg_catalog.max(p.id) OVER (PARTITION BY p.period_start, p.period_end) AS latest,
	p.note, p.actor, p.published_at, p.data_through_at, p.published_at AS computed_at
FROM cs_internal.publication p
CROSS JOIN LATERAL pg_catalog.jsonb_each_text(p.numbers) n;
COMMENT ON VIEW cs.published IS 'The numbers of periods as they were published, one row a number; never changed.';
COMMENT ON COLUMN cs.published.publication IS 'Number of the publication, as cs.publish returned it.';
COMMENT ON COLUMN cs.published.period IS 'The period as it was written then.';
COMMENT ON COLUMN cs.published.period_start IS 'Its first instant.';
COMMENT ON COLUMN cs.published.period_end IS 'The first instant after it.';
COMMENT ON COLUMN cs.published.number IS 'Which number: the columns of cs.revenue (basis ledger); churned and churn_base, customers by the method; churn_rate_logo, churn_rate_gross_mrr, churn_rate_net_mrr.';
COMMENT ON COLUMN cs.published.value IS 'MRR per month in currency, customers, or a fraction; NULL where there was none, such as a rate of an empty base.';
COMMENT ON COLUMN cs.published.churn_method IS 'Method of churn: that of the policy then.';
COMMENT ON COLUMN cs.published.policy_version IS 'Version of the policy it was computed with; its row stands in cs.definition_history.';
COMMENT ON COLUMN cs.published.time_zone IS 'Time zone of the policy then.';
COMMENT ON COLUMN cs.published.period_edge IS 'Edge of the policy then.';
COMMENT ON COLUMN cs.published.currency IS 'Currency of the amounts.';
COMMENT ON COLUMN cs.published.latest IS 'True for the last publication of the period, the one cs.restatement compares with.';
COMMENT ON COLUMN cs.published.note IS 'Note given; may be NULL.';
COMMENT ON COLUMN cs.published.actor IS 'Who published.';
COMMENT ON COLUMN cs.published.published_at IS 'When, by the clock.';
COMMENT ON COLUMN cs.published.data_through_at IS 'Instant up to which facts were evaluated then; NULL before the first refresh.';
COMMENT ON COLUMN cs.published.computed_at IS 'As published_at.';

-- ---- restatement ------------------------------------------------------------------------

CREATE FUNCTION cs_internal.restatement(p_period text)
RETURNS TABLE (number text, customer_id text, name text, published numeric, now numeric, difference numeric, cause text, facts_then jsonb, facts_now jsonb, publication bigint)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	span record;
	p cs_internal.publication;
	method text;
	redefined boolean;
	counts text[] := '{customers_start,customers_end,churned,churn_base}';
BEGIN
	SELECT * INTO span FROM cs_internal.period(p_period, cs_internal.now());
	SELECT x.* INTO p FROM cs_internal.publication x
	WHERE x.period_start = span.period_start AND x.period_end = span.period_end
	ORDER BY x.id DESC LIMIT 1;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'the period "%" was not published', p_period USING ERRCODE = 'no_data_found',
			HINT = coalesce('Published are ' || (SELECT string_agg(DISTINCT '"' || x.period || '"', ', ') FROM cs_internal.publication x) || '.',
				'SELECT cs.publish(period, note) keeps the numbers of a period.');
	END IF;
	method := p.policy ->> 'churn_method';
	redefined := (SELECT to_jsonb(c) - '{version,description,run_as}'::text[] FROM cs.policy c) <> p.policy - '{version,description,run_as}'::text[];
	RETURN QUERY
	WITH total AS (
		SELECT n.key AS number, n.value::numeric AS was, (t.numbers ->> n.key)::numeric AS is
		FROM (SELECT cs_internal.period_numbers(p.period_start, p.period_end, method) AS numbers) t
		CROSS JOIN LATERAL jsonb_each_text(p.numbers) n
	), customer AS MATERIALIZED (
		SELECT coalesce(w.customer_id, i.customer_id) AS customer_id, k.number, coalesce((w.numbers ->> k.number)::numeric, 0) AS was,
			coalesce((i.numbers ->> k.number)::numeric, 0) AS is
		FROM (SELECT c.customer_id, c.numbers FROM cs_internal.published_customer c WHERE c.publication = p.id) w
		FULL JOIN cs_internal.customer_numbers(p.period_start, p.period_end, method) i ON i.customer_id = w.customer_id
		CROSS JOIN LATERAL (SELECT jsonb_object_keys(coalesce(w.numbers, '{}') || coalesce(i.numbers, '{}'))) k (number)
		WHERE w.numbers IS DISTINCT FROM i.numbers
	), account AS MATERIALIZED (
		SELECT a.* FROM cs_internal.account_of() a WHERE cs_internal.measure_of('logo') = 'logo'
	), whose AS (
		-- numbers of accounts are moved by the facts of all their customers
		SELECT x.customer_id, x.customer_id AS of_id, false AS is_logo FROM customer x WHERE NOT x.number = ANY (counts)
		UNION
		SELECT coalesce(a.customer_id, x.customer_id), x.customer_id, true
		FROM customer x
		LEFT JOIN (SELECT y.customer_id, y.account_id FROM account y UNION SELECT y.account_id, y.account_id FROM account y) a ON a.account_id = x.customer_id
		WHERE x.number = ANY (counts)
	), fact_now AS MATERIALIZED (
		SELECT w.of_id, w.is_logo, f.*
		FROM cs_internal.period_fact(p.period_start, p.period_end, p.policy ->> 'period_edge') f
		JOIN whose w ON w.customer_id = f.customer_id
	), fact_then AS MATERIALIZED (
		SELECT w.of_id, w.is_logo, f.customer_id, f.source, f.subscription_id, f.start_at, f.end_at, f.mrr, f.currency, f.counts
		FROM cs_internal.published_fact f
		JOIN whose w ON w.customer_id = f.customer_id
		WHERE f.publication = p.id
	), fact AS (
		SELECT x.of_id, x.is_logo,
			jsonb_agg(to_jsonb(x) - '{of_id,is_logo,customer_id,was}'::text[] ORDER BY x.start_at, x.source, x.subscription_id) FILTER (WHERE x.was) AS facts_then,
			jsonb_agg(to_jsonb(x) - '{of_id,is_logo,customer_id,was}'::text[] ORDER BY x.start_at, x.source, x.subscription_id) FILTER (WHERE NOT x.was) AS facts_now
		FROM (
			SELECT g.*, true AS was FROM (SELECT * FROM fact_then EXCEPT ALL SELECT * FROM fact_now) g
			UNION ALL
			SELECT g.*, false FROM (SELECT * FROM fact_now EXCEPT ALL SELECT * FROM fact_then) g
		) x
		GROUP BY x.of_id, x.is_logo
	)
	SELECT t.number, NULL::text, NULL::text, t.was::numeric(30,9), t.is::numeric(30,9), (t.was - t.is)::numeric(30,9), NULL::text, NULL::jsonb, NULL::jsonb, p.id
	FROM total t
	WHERE t.was IS DISTINCT FROM t.is
	UNION ALL
	SELECT c.number, c.customer_id, i.name, c.was::numeric(30,9), c.is::numeric(30,9), (c.was - c.is)::numeric(30,9),
		CASE WHEN f.of_id IS NOT NULL THEN 'facts' WHEN redefined THEN 'policy' ELSE 'other' END, f.facts_then, f.facts_now, p.id
	FROM customer c
	LEFT JOIN fact f ON f.of_id = c.customer_id AND f.is_logo = (c.number = ANY (counts))
	LEFT JOIN cs_internal.customer i ON i.customer_id = c.customer_id
	WHERE c.was <> c.is
	ORDER BY 1, 2 NULLS FIRST;
END $$;
COMMENT ON FUNCTION cs_internal.restatement(text) IS 'See cs.restatement.';

CREATE FUNCTION cs.restatement(period text)
RETURNS TABLE (number text, customer_id text, name text, published numeric, now numeric, difference numeric, cause text, facts_then jsonb, facts_now jsonb, publication bigint)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.restatement(text) IS
'What has moved the numbers of a period since they were last published. For each number that is another one now a row without customer_id, and, where it is a sum over customers, a row for each customer whose part has changed: their differences (published minus now) add up exactly to that of the first row. Rates have the first row alone. cause is facts where subscription rows of the customer were corrected: facts_then are those published that are no longer so, facts_now those that are so now; else policy where the policy was changed since, or other (exchange rates, cancellations, merges). Computed by the churn method that was published, otherwise by the policy of now. No rows: nothing has moved. Raises P0002 for a period that was not published.';
