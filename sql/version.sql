
-- ---------------------------------------------------------------------------
-- version: what rows that are overwritten in place (terms => 'current') said
-- before, and from when. Decided: kept and dumped, never recomputed.
-- ---------------------------------------------------------------------------

CREATE TABLE cs_internal.subscription_version (
	source text NOT NULL,
	customer_id text COLLATE "C" NOT NULL,
	subscription_id text COLLATE "C" NOT NULL,
	valid_from timestamptz NOT NULL,     -- -infinity: as it was when first read
	recorded_at timestamptz NOT NULL,
	gone boolean NOT NULL,               -- from valid_from on the row is not there
	mrr numeric(20,6),                   -- a change of one of these is a version
	currency text,
	status text,
	is_trial boolean,
	is_recurring boolean,
	seats numeric,
	product text,
	term_months bigint,
	start_at timestamptz,                -- a change of one of these is a correction
	end_at timestamptz,
	changed_at timestamptz,
	cancel_requested_at timestamptz,
	cancel_reason text,
	churn_kind text,
	auto_renew boolean,
	renews_at timestamptz,
	PRIMARY KEY (source, customer_id, subscription_id, valid_from)
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.subscription_version', '');
CREATE INDEX subscription_version_recorded ON cs_internal.subscription_version (source, recorded_at);

-- Versions as rows that each hold for their interval: dates are what the row
-- says last, a piece ends where the next version begins.
CREATE VIEW cs_internal.subscription_piece AS
SELECT p.source, p.customer_id, p.subscription_id, p.start_at, p.end_at, p.mrr, p.currency, p.status, p.is_trial, p.is_recurring, p.changed_at,
	CASE WHEN p.next_from IS NULL OR p.next_status = 'canceled' THEN p.cancel_requested_at END AS cancel_requested_at, p.cancel_reason,
	coalesce(p.churn_kind, CASE WHEN p.next_status = 'unpaid' THEN 'involuntary' END) AS churn_kind,
	p.auto_renew, p.term_months, p.seats, p.product, p.renews_at, p.next_from IS NULL AS is_last
FROM (
	SELECT v.source, v.customer_id, v.subscription_id, v.mrr, v.currency, v.status, v.is_trial, v.is_recurring, v.term_months, v.seats, v.product, v.changed_at, v.gone,
		greatest(last_value(v.start_at) OVER w, v.valid_from) AS start_at,
		least(last_value(v.end_at) OVER w, lead(v.valid_from) OVER w) AS end_at,
		lead(v.valid_from) OVER w AS next_from, lead(v.status) OVER w AS next_status,
		last_value(v.cancel_requested_at) OVER w AS cancel_requested_at, last_value(v.cancel_reason) OVER w AS cancel_reason,
		last_value(v.churn_kind) OVER w AS churn_kind, last_value(v.auto_renew) OVER w AS auto_renew, last_value(v.renews_at) OVER w AS renews_at
	FROM cs_internal.subscription_version v
	WINDOW w AS (PARTITION BY v.source, v.customer_id, v.subscription_id ORDER BY v.valid_from ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
) p
WHERE NOT p.gone AND (p.end_at IS NULL OR p.end_at > p.start_at OR p.next_from IS NULL AND p.end_at = p.start_at);
COMMENT ON VIEW cs_internal.subscription_piece IS
'Rows of sources with terms current as intervals: what the row said from one version to the next.';

CREATE FUNCTION cs_internal.history_from() RETURNS TABLE (source text, at timestamptz)
LANGUAGE sql STABLE AS $$
	SELECT s.name, (SELECT min(v.recorded_at) FROM cs_internal.subscription_version v WHERE v.source = s.name)
	FROM cs.source s
	WHERE s.terms = 'current'
$$;
COMMENT ON FUNCTION cs_internal.history_from() IS
'Per source with terms current, the instant from which its rows'' changes are known.';

CREATE FUNCTION cs_internal.note_history_from(since timestamptz) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
	h record;
BEGIN
	FOR h IN SELECT * FROM cs_internal.history_from() f WHERE f.at > since ORDER BY f.source LOOP
		RAISE NOTICE 'history of source "%" begins at %', h.source, h.at
			USING DETAIL = 'Its rows are overwritten in place; what they said before is not known, and they count as they were then.';
	END LOOP;
END $$;
COMMENT ON FUNCTION cs_internal.note_history_from(timestamptz) IS
'A NOTICE for each source with terms current whose history begins after the instant.';
