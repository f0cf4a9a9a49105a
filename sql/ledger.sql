
-- ---------------------------------------------------------------------------
-- ledger: movements of each customer's MRR, from the sweep over subscriptions.
-- ---------------------------------------------------------------------------

-- Derived. One row per customer and instant at which MRR or being active
-- changed; seq > 0 only where one instant needs two kinds (fx beside another).
CREATE TABLE cs_internal.movement (
	customer_id text COLLATE "C" NOT NULL,
	at timestamptz NOT NULL,
	seq smallint NOT NULL DEFAULT 0,
	kind text NOT NULL,                  -- new, expansion, contraction, churn, reactivation, pause, resume, fx, merge_in, merge_out
	delta numeric(20,6) NOT NULL,
	mrr_after numeric(20,6) NOT NULL,
	active_after boolean NOT NULL,       -- MRR > 0, or paused within the limit, or free where free_is_active
	churn_kind text,                     -- of a churn: voluntary, involuntary, term_end, merged, or what the row says
	reason text,
	PRIMARY KEY (customer_id, at, seq)
);
CREATE INDEX movement_at ON cs_internal.movement (at);
