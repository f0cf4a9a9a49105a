
-- ---------------------------------------------------------------------------
-- refresh: customers, their state, and the marks that say who is evaluated.
-- ---------------------------------------------------------------------------

-- Derived: who the customers are.
CREATE TABLE cs_internal.customer (
	customer_id text COLLATE "C" PRIMARY KEY,
	name text,
	owner text,
	parent_id text,
	created_at timestamptz,
	attributes jsonb,
	from_customer boolean NOT NULL DEFAULT false,       -- has a row in a customer source
	from_subscription boolean NOT NULL DEFAULT false,
	from_other boolean NOT NULL DEFAULT false           -- only where neither kind is registered
);

-- Derived: what is computed of each customer at its last evaluation.
CREATE TABLE cs_internal.state (
	customer_id text COLLATE "C" PRIMARY KEY,
	as_of_day date,
	-- stage ledger
	mrr numeric(20,6),
	active boolean,
	in_trial boolean,
	seats numeric,
	tenure_days integer,
	days_to_renewal integer,
	-- stage metrics: slots of cs_internal.metric_slot, NULL where missing
	"values" float8[],
	-- stages early and late segments: {"dimension": "segment"} (array of names where not exclusive)
	segments jsonb NOT NULL DEFAULT '{}',
	-- stage health: the automatic score, before overrides
	scorecard text,
	score float8,
	coverage float8,
	score_reason text,                                  -- why NULL: inactive, coverage, missing
	health_inputs jsonb,                                -- what the score depends on beside "values": {"cap": rule}
	-- when time alone changes something: the earliest next boundary
	due_at timestamptz,
	-- refresh_customer was here at this instant: a refresh that began before it leaves the customer to the next
	ahead timestamptz
) WITH (fillfactor = 45);                               -- an evaluation writes most rows of a page: room for the new ones beside the old
CREATE INDEX state_due_at ON cs_internal.state (due_at);

-- Who is evaluated next.
CREATE TABLE cs_internal.dirty (
	customer_id text COLLATE "C" PRIMARY KEY,
	marked_at timestamptz NOT NULL,
	cause text                                          -- NULL or 'definition'
);

-- A mark counts for what its batch sees. Who decides something about a customer
-- and marks him takes his lock first, as cs.refresh_customer does: a batch that is
-- at him commits before that, and one that begins later leaves him and his mark
-- alone until the decision is committed.
CREATE FUNCTION cs_internal.lock_customer(customer text) RETURNS void
LANGUAGE sql AS $$
	SELECT pg_advisory_xact_lock_shared(1668509799, 0);
	SELECT pg_advisory_xact_lock(1668509797, hashtext(customer COLLATE "C"));
$$;
COMMENT ON FUNCTION cs_internal.lock_customer(text) IS 'Keeps the refresh away from a customer until the end of the transaction; waits for a batch that is at him.';

-- Decided, one row: the last instant evaluated, and when that was by the clock.
CREATE TABLE cs_internal.clock (
	id boolean PRIMARY KEY DEFAULT true CHECK (id),
	last_as_of timestamptz,
	last_refresh_at timestamptz
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.clock', '');

CREATE PROCEDURE cs.refresh(commit boolean DEFAULT true) LANGUAGE c AS 'MODULE_PATHNAME', 'cs_refresh_sql';
COMMENT ON PROCEDURE cs.refresh(boolean) IS
'Brings everything up to date: reads what changed in the sources, then evaluates the customers concerned. Commits between batches; commit => false stays inside the caller''s transaction (for drivers that open one). A second refresher waits its turn.';

CREATE PROCEDURE cs.rebuild(source text DEFAULT NULL) LANGUAGE c AS 'MODULE_PATHNAME', 'cs_rebuild_sql';
COMMENT ON PROCEDURE cs.rebuild(text) IS
'Recomputes all derived state from the facts of one source, or of every source where NULL; by the same code as refresh, committing between batches. Decided state (bands, memberships, alerts, history) is kept.';

CREATE FUNCTION cs_internal.refresh_customer(customer text) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_refresh_customer_sql';
COMMENT ON FUNCTION cs_internal.refresh_customer(text) IS 'See cs.refresh_customer.';

CREATE FUNCTION cs.refresh_customer(customer text) RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.refresh_customer(text) IS
'Brings one customer up to date inside the caller''s transaction, with its uncommitted changes; commits or rolls back with them. Raises for an unknown customer, and under REPEATABLE READ or above (25001).';
