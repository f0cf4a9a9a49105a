
-- ---------------------------------------------------------------------------
-- reason: why customers left, as they said and as it was found out.
--
-- The stated reason is of the facts: it stands in the ledger beside the churn.
-- The root cause is decided by people, later: it is kept here for the churn of
-- a customer, and follows it where a correction moves its date by up to a month.
-- ---------------------------------------------------------------------------

CREATE TABLE cs.churn_reason (
	code text PRIMARY KEY,
	addressable boolean NOT NULL,
	voluntary boolean NOT NULL,
	enabled boolean NOT NULL DEFAULT true,
	description text
);
SELECT pg_catalog.pg_extension_config_dump('cs.churn_reason', '');
COMMENT ON TABLE cs.churn_reason IS
'Reasons for churn that mean something to the company. A reason in the facts is one of these where it is the same text but for case and surrounding spaces; others are shown as they stand.';
COMMENT ON COLUMN cs.churn_reason.code IS 'The reason as facts and set_root_cause() name it.';
COMMENT ON COLUMN cs.churn_reason.addressable IS 'Whether customer success can do something about it.';
COMMENT ON COLUMN cs.churn_reason.voluntary IS 'Whether the customer chose to leave.';
COMMENT ON COLUMN cs.churn_reason.enabled IS 'False: the row is as if it were not there.';
COMMENT ON COLUMN cs.churn_reason.description IS 'Free text; may be NULL.';

CREATE FUNCTION cs_internal.check_churn_reason(new jsonb, old jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	other text;
BEGIN
	IF new IS NOT NULL THEN
		IF new ->> 'code' !~ '\S' OR new ->> 'code' LIKE '(%)' THEN
			RAISE EXCEPTION 'code "%" of cs.churn_reason is no reason', new ->> 'code' USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Give a word such as price; words in brackets stand for (none) and (total).';
		END IF;
		SELECT r.code INTO other FROM cs.churn_reason r WHERE lower(btrim(r.code)) = lower(btrim(new ->> 'code')) AND r.code <> new ->> 'code';
		IF FOUND THEN
			RAISE EXCEPTION 'code "%" of cs.churn_reason is the same as "%"', new ->> 'code', other USING ERRCODE = 'unique_violation',
				HINT = 'Codes are compared without case and surrounding spaces.';
		END IF;
	END IF;
	IF old IS NOT NULL AND new ->> 'code' IS DISTINCT FROM old ->> 'code' AND EXISTS (SELECT FROM cs_internal.root_cause c WHERE c.reason = old ->> 'code') THEN
		RAISE EXCEPTION 'churn reason "%" is in use', old ->> 'code' USING ERRCODE = 'dependent_objects_still_exist',
			DETAIL = format('It is the root cause of %s churns.', (SELECT count(*) FROM cs_internal.root_cause c WHERE c.reason = old ->> 'code')),
			HINT = 'Give those another one with cs.set_root_cause(), or set enabled to false.';
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.check_churn_reason(jsonb, jsonb) IS 'Refuses what cs.churn_reason must not hold; called by the definition trigger.';

CREATE TRIGGER definition AFTER INSERT OR UPDATE OR DELETE ON cs.churn_reason
	FOR EACH ROW EXECUTE FUNCTION cs_internal.definition_trigger();

-- Decided: what people found out about a churn.
CREATE TABLE cs_internal.root_cause (
	customer_id text COLLATE "C" NOT NULL,
	churned_at timestamptz NOT NULL,
	reason text NOT NULL,
	note text,
	actor text NOT NULL,
	set_at timestamptz NOT NULL,
	PRIMARY KEY (customer_id, churned_at)
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.root_cause', '');

-- The code that a text means, the text itself where it is none, NULL for nothing.
CREATE FUNCTION cs_internal.reason_code(reason text) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT coalesce((SELECT r.code FROM cs.churn_reason r WHERE r.enabled AND lower(btrim(r.code)) = lower(btrim(reason))), nullif(btrim(reason), ''))
$$;
COMMENT ON FUNCTION cs_internal.reason_code(text) IS 'Code of cs.churn_reason that the text names, else the text without surrounding spaces; NULL for an empty one.';

CREATE FUNCTION cs_internal.churn_reason_detail(p_period text, p_segment text)
RETURNS TABLE (customer_id text, name text, churned_at timestamptz, churn_mrr numeric, churn_kind text, stated text, root text, note text, actor text, segment text)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
	span record;
	part record;
BEGIN
	SELECT * INTO span FROM cs_internal.period(p_period, cs_internal.now());
	SELECT * INTO part FROM cs_internal.find_part(p_segment);
	PERFORM cs_internal.note_stored_since(part.dimension, span.period_start);
	PERFORM cs_internal.require_fx_rates();
	RETURN QUERY
	WITH cause AS (
		-- the nearest churn of the customer, and of two causes the nearer one
		SELECT DISTINCT ON (x.customer_id, x.at) x.*
		FROM (SELECT DISTINCT ON (c.customer_id, c.churned_at) c.customer_id, m.at, c.reason, c.note, c.actor,
				greatest(m.at - c.churned_at, c.churned_at - m.at) AS apart, c.set_at
			FROM cs_internal.root_cause c
			JOIN cs_internal.movement m ON m.customer_id = c.customer_id AND m.kind = 'churn'
				AND m.at BETWEEN c.churned_at - interval '31 days' AND c.churned_at + interval '31 days'
			ORDER BY c.customer_id, c.churned_at, greatest(m.at - c.churned_at, c.churned_at - m.at), m.at) x
		ORDER BY x.customer_id, x.at, x.apart, x.set_at DESC
	)
	SELECT m.customer_id, i.name, m.at, (-m.delta)::numeric(20,6), m.churn_kind, cs_internal.reason_code(m.reason), cs_internal.reason_code(c.reason), c.note, c.actor,
		part.dimension || ':' || part.segment
	FROM cs_internal.movement m
	LEFT JOIN cause c ON c.customer_id = m.customer_id AND c.at = m.at
	LEFT JOIN cs_internal.segment_at(part.dimension, span.period_start, cs_internal.basis_of(part.dimension)) s ON s.customer_id = m.customer_id
	LEFT JOIN cs_internal.customer i ON i.customer_id = m.customer_id
	WHERE m.kind = 'churn' AND m.at >= span.period_start + (SELECT cs_internal.edge_shift()) AND m.at < span.period_end + (SELECT cs_internal.edge_shift())
		AND (part.dimension IS NULL OR coalesce(s.segment, '(none)') = part.segment)
	ORDER BY m.at, m.customer_id, m.seq;
END $$;
COMMENT ON FUNCTION cs_internal.churn_reason_detail(text, text) IS 'See cs.churn_reason_detail.';

CREATE FUNCTION cs_internal.churn_by_reason(p_period text, p_segment text)
RETURNS TABLE (basis text, reason text, addressable boolean, voluntary boolean, churns bigint, customers bigint, churn_mrr numeric, share numeric, share_mrr numeric)
LANGUAGE sql STABLE AS $$
	WITH detail AS MATERIALIZED (
		SELECT d.* FROM cs_internal.churn_reason_detail(p_period, p_segment) d
	), said AS (
		SELECT w.basis, w.reason, d.customer_id, d.churn_mrr FROM detail d
		CROSS JOIN LATERAL (VALUES ('stated', coalesce(d.stated, '(none)')), ('root', coalesce(d.root, '(none)'))) w (basis, reason)
	), line AS (
		SELECT b.basis, r.code AS reason FROM (VALUES ('stated'), ('root')) b (basis) CROSS JOIN (SELECT x.code FROM cs.churn_reason x WHERE x.enabled UNION SELECT '(none)') r
		UNION SELECT s.basis, s.reason FROM said s
	)
	SELECT l.basis, l.reason, r.addressable, r.voluntary, count(s.customer_id), count(DISTINCT s.customer_id), coalesce(sum(s.churn_mrr), 0)::numeric(20,6),
		cs_internal.rate(count(s.customer_id), sum(count(s.customer_id)) OVER w),
		cs_internal.rate(coalesce(sum(s.churn_mrr), 0), sum(sum(s.churn_mrr)) OVER w)
	FROM line l
	LEFT JOIN said s ON s.basis = l.basis AND s.reason = l.reason
	LEFT JOIN cs.churn_reason r ON r.enabled AND r.code = l.reason
	GROUP BY l.basis, l.reason, r.addressable, r.voluntary
	WINDOW w AS (PARTITION BY l.basis)
	ORDER BY l.basis DESC, l.reason = '(none)', count(s.customer_id) DESC, l.reason COLLATE "C"
$$;
COMMENT ON FUNCTION cs_internal.churn_by_reason(text, text) IS 'See cs.churn_by_reason.';

CREATE FUNCTION cs_internal.set_root_cause(customer text, reason text, note text, period text, actor text,
	OUT customer_id text, OUT churned_at timestamptz, OUT stated text, OUT root text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_variable
DECLARE
	span record;
	known text[] := ARRAY(SELECT r.code FROM cs.churn_reason r WHERE r.enabled ORDER BY 1);
	near text;
BEGIN
	SELECT * INTO span FROM cs_internal.period(coalesce(period, 'today'), cs_internal.now());
	IF period IS NULL THEN
		span.period_start := '-infinity';
	END IF;
	customer_id := customer;
	SELECT m.at, cs_internal.reason_code(m.reason) INTO churned_at, stated FROM cs_internal.movement m
	WHERE m.customer_id = customer AND m.kind = 'churn' AND m.at >= span.period_start AND m.at < span.period_end ORDER BY m.at DESC LIMIT 1;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'customer "%" has no churn%', customer, coalesce(' in ' || period, '') USING ERRCODE = 'no_data_found',
			HINT = 'Churns stand in cs.movement, kind churn; the period, where one is given, must hold it.';
	END IF;
	IF reason IS NOT NULL AND NOT cs_internal.reason_code(reason) = ANY (known) THEN
		near := cs_internal.nearest(reason, known);
		RAISE EXCEPTION 'unknown churn reason "%"', reason USING ERRCODE = 'invalid_parameter_value',
			HINT = coalesce('Did you mean "' || near || '"?', 'Known: ' || nullif(array_to_string(known, ', '), '') || '.', 'There are none yet: INSERT INTO cs.churn_reason.');
	END IF;
	DELETE FROM cs_internal.root_cause c WHERE c.customer_id = customer AND c.churned_at = set_root_cause.churned_at;
	root := cs_internal.reason_code(reason);
	IF root IS NOT NULL THEN
		INSERT INTO cs_internal.root_cause VALUES (customer, churned_at, root, note, cs_internal.actor(actor), cs_internal.now());
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.set_root_cause(text, text, text, text, text) IS 'See cs.set_root_cause.';

-- ---- gates -----------------------------------------------------------------------

CREATE FUNCTION cs.churn_reason_detail(period text, segment text DEFAULT NULL)
RETURNS TABLE (customer_id text, name text, churned_at timestamptz, churn_mrr numeric, churn_kind text, stated text, root text, note text, actor text, segment text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.churn_reason_detail(text, text) IS
'The churns of a period with the reason stated in the facts and the root cause that was set, one row a churn (a customer may leave twice): what cs.churn_by_reason adds up. Codes of cs.churn_reason where they match but for case and spaces; stated and root are NULL where there is none. note and actor are of the root cause.';

CREATE FUNCTION cs.churn_by_reason(period text, segment text DEFAULT NULL)
RETURNS TABLE (basis text, reason text, addressable boolean, voluntary boolean, churns bigint, customers bigint, churn_mrr numeric, share numeric, share_mrr numeric)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.churn_by_reason(text, text) IS
'The churns of a period by reason, stated (by the customer, in the facts) and root (set_root_cause()) apart: each code of cs.churn_reason, other texts as they stand (addressable and voluntary NULL), and (none). churns adds up to the numerator of churn by event_over_start, churn_mrr to churn_mrr of revenue, for each basis; shares are fractions of them, NULL where there is nothing to divide by.';

CREATE FUNCTION cs.set_root_cause(customer text, reason text, note text DEFAULT NULL, period text DEFAULT NULL, actor text DEFAULT NULL,
	OUT customer_id text, OUT churned_at timestamptz, OUT stated text, OUT root text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.set_root_cause(text, text, text, text, text) IS
'Says why a customer really left: the root cause of its last churn up to now, or of the last one in a period. reason is a code of cs.churn_reason; NULL takes the root cause back. Returns the churn with the stated reason beside it. Raises P0002 without such a churn, 22023 for an unknown code. actor defaults to cs_ext.actor, else the session''s user.';
