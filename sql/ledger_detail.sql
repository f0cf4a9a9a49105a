
-- ---------------------------------------------------------------------------
-- ledger_detail: the subscription rows behind each movement.
-- ---------------------------------------------------------------------------

CREATE FUNCTION cs_internal.movement_rows(customer text)
RETURNS TABLE (at timestamptz, seq smallint, kind text, delta numeric, amount numeric, source text, subscription_id text,
	fact_customer_id text, start_at timestamptz, end_at timestamptz, mrr numeric, native_mrr numeric, currency text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_movement_rows_sql';
COMMENT ON FUNCTION cs_internal.movement_rows(text) IS 'See cs.movement_rows.';

CREATE FUNCTION cs.movement_rows(customer text)
RETURNS TABLE (at timestamptz, seq smallint, kind text, delta numeric, amount numeric, source text, subscription_id text,
	fact_customer_id text, start_at timestamptz, end_at timestamptz, mrr numeric, native_mrr numeric, currency text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.movement_rows(text) IS
'The rows of cs.movement_detail of one customer, from the facts as they are now: one row for each subscription row that has a share in a movement, whose amounts add up to its delta exactly. No row for an unknown customer.';

CREATE VIEW cs.movement_detail WITH (security_barrier) AS
SELECT c.customer_id, r.at, r.seq, r.kind, r.delta::numeric(20,6) AS delta, r.amount::numeric(20,6) AS amount, r.source, r.subscription_id,
	r.fact_customer_id, r.start_at, r.end_at, r.mrr::numeric(20,6) AS mrr, r.native_mrr::numeric(20,6) AS native_mrr, r.currency
FROM (SELECT DISTINCT m.customer_id FROM cs_internal.movement m) c
CROSS JOIN LATERAL cs.movement_rows(c.customer_id) r;
COMMENT ON VIEW cs.movement_detail IS
'The subscription rows behind each movement of cs.movement; the amounts of a movement add up to its delta exactly. Made from the facts as they are now, customer by customer: ask for some customers, or wait.';
COMMENT ON COLUMN cs.movement_detail.customer_id IS 'The customer whose movement it is, as text.';
COMMENT ON COLUMN cs.movement_detail.at IS 'Instant of the movement, as in cs.movement.';
COMMENT ON COLUMN cs.movement_detail.seq IS 'Order of the movements at one instant, as in cs.movement.';
COMMENT ON COLUMN cs.movement_detail.kind IS 'Kind of the movement, as in cs.movement.';
COMMENT ON COLUMN cs.movement_detail.delta IS 'The whole movement: the sum of amount over its rows.';
COMMENT ON COLUMN cs.movement_detail.amount IS 'Share of this subscription row: its MRR where it begins, minus that where it ends, in the policy''s currency; 0 in the one row of a movement that no money moved in.';
COMMENT ON COLUMN cs.movement_detail.source IS 'Name of the source of the subscription row; NULL where no money moved.';
COMMENT ON COLUMN cs.movement_detail.subscription_id IS 'Id of the subscription row; NULL where none is mapped, or no money moved.';
COMMENT ON COLUMN cs.movement_detail.fact_customer_id IS 'The customer the row stands under: another one where that was merged into this; NULL where no money moved.';
COMMENT ON COLUMN cs.movement_detail.start_at IS 'Start of the row (with terms current, of its version); NULL where no money moved.';
COMMENT ON COLUMN cs.movement_detail.end_at IS 'End of the row as the ledger counts it (grace included); NULL: open, or no money moved.';
COMMENT ON COLUMN cs.movement_detail.mrr IS 'MRR of the row per month in the policy''s currency; NULL where no money moved.';
COMMENT ON COLUMN cs.movement_detail.native_mrr IS 'The same in the row''s own currency; NULL where that is the policy''s, or no money moved.';
COMMENT ON COLUMN cs.movement_detail.currency IS 'Currency of native_mrr; NULL where that is the policy''s, or no money moved.';
