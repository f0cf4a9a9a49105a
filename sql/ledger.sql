-- ---------------------------------------------------------------------------
-- ledger: movements of each customer's MRR, from the sweep over subscriptions.
-- ---------------------------------------------------------------------------

-- What a subscription row says to the ledger, in the order ledger_term.c reads.
CREATE TYPE cs_internal.subscription_fact AS (
	start_at timestamptz,
	end_at timestamptz,
	mrr numeric,
	currency text,
	status text,
	is_trial boolean,
	is_recurring boolean,
	changed_at timestamptz,
	cancel_requested_at timestamptz,
	cancel_reason text,
	churn_kind text,
	auto_renew boolean,
	subscription_id text,
	term_months bigint,
	seats numeric,
	product text
);

CREATE TYPE cs_internal.cancellation_fact AS (
	at timestamptz,
	churn_kind text,
	reason text
);

-- Derived. One row per customer and instant at which MRR or being active
-- changed; seq > 0 only where one instant needs more than one kind: merge_in,
-- then fx, then what else happened (the end of a negative MRR before a churn).
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
	term_extension boolean NOT NULL DEFAULT false,  -- a contraction at which a longer term began
	service_end_at timestamptz,          -- of a churn: its three instants, policy.recognition chooses at
	cancel_requested_at timestamptz,
	cancel_effective_at timestamptz,
	-- no two rows are alike, so looking for such ones only costs
	PRIMARY KEY (customer_id, at, seq) WITH (deduplicate_items = off)
);
CREATE INDEX movement_at ON cs_internal.movement (at);

-- Derived. What sources of kind customer_merge say: facts of from_id count for
-- into_id from `at` on.
CREATE TABLE cs_internal.merge (
	source text NOT NULL,
	from_id text COLLATE "C" NOT NULL,
	into_id text COLLATE "C" NOT NULL,
	at timestamptz NOT NULL,
	PRIMARY KEY (source, from_id, into_id, at)
);
CREATE INDEX merge_from ON cs_internal.merge (from_id);
CREATE INDEX merge_into ON cs_internal.merge (into_id);

-- A row for each source that was found to be read whole while there was no
-- ledger: customers and ledger are to be built from nothing.
CREATE TABLE cs_internal.ledger_build (
	source text PRIMARY KEY
);

CREATE FUNCTION cs_internal.ledger_sweep(
	facts cs_internal.subscription_fact[],
	cancellations cs_internal.cancellation_fact[] DEFAULT NULL,
	free_is_active boolean DEFAULT false,
	max_pause_days integer DEFAULT NULL,
	gap_days_money integer DEFAULT 0,
	reactivation_days integer DEFAULT NULL,
	recognition text DEFAULT 'service_end',
	OUT at timestamptz, OUT seq smallint, OUT kind text, OUT delta numeric, OUT mrr_after numeric,
	OUT active_after boolean, OUT churn_kind text, OUT reason text, OUT term_extension boolean,
	OUT service_end_at timestamptz, OUT cancel_requested_at timestamptz, OUT cancel_effective_at timestamptz)
RETURNS SETOF record
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_ledger_sweep_sql';
COMMENT ON FUNCTION cs_internal.ledger_sweep(cs_internal.subscription_fact[], cs_internal.cancellation_fact[], boolean, integer, integer, integer, text) IS
'The movements of one customer with these subscription rows, from no table: the sweep that the ledger uses. All amounts in one currency; max_pause_days NULL: no limit; reactivation_days NULL: any time.';

-- Rates of other currencies into the policy's.
CREATE TABLE cs.fx_rate (
	currency varchar(3) NOT NULL,
	valid_from date NOT NULL,
	rate numeric NOT NULL,
	enabled boolean NOT NULL DEFAULT true,
	description text,
	PRIMARY KEY (currency, valid_from)
);
SELECT pg_catalog.pg_extension_config_dump('cs.fx_rate', '');
COMMENT ON TABLE cs.fx_rate IS
'Rates into the currency of the policy. A subscription row takes the rate in force on the local day of its start and keeps it.';
COMMENT ON COLUMN cs.fx_rate.currency IS 'Three letters, upper case: the currency that is converted.';
COMMENT ON COLUMN cs.fx_rate.valid_from IS 'First local day of the rate; it holds until the next row of the same currency.';
COMMENT ON COLUMN cs.fx_rate.rate IS 'Units of the policy''s currency for one unit of this one; above 0.';
COMMENT ON COLUMN cs.fx_rate.enabled IS 'False: the row is as if it were not there.';
COMMENT ON COLUMN cs.fx_rate.description IS 'Free text, e.g. where the rate comes from; may be NULL.';

CREATE FUNCTION cs_internal.check_fx_rate(new_row jsonb, old_row jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	v_currency text := new_row ->> 'currency';
	v_rate numeric := (new_row ->> 'rate')::numeric;
BEGIN
	IF new_row IS NOT NULL THEN
		IF v_currency !~ '^[A-Z]{3}$' THEN
			RAISE EXCEPTION 'currency "%" of cs.fx_rate is not three upper-case letters', v_currency
				USING ERRCODE = 'invalid_parameter_value', HINT = 'Use the ISO 4217 code, for example EUR.';
		END IF;
		IF NOT (v_rate > 0 AND v_rate < 1000000000) THEN
			RAISE EXCEPTION 'rate % of currency % in cs.fx_rate is not a number above 0', v_rate, v_currency
				USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Give the units of the policy''s currency for one unit of ' || v_currency || '.';
		END IF;
		IF NOT isfinite((new_row ->> 'valid_from')::date) THEN
			RAISE EXCEPTION 'valid_from of currency % in cs.fx_rate is not a day', v_currency
				USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the first day on which the rate holds.';
		END IF;
		IF v_currency = (SELECT p.currency FROM cs.policy p) THEN
			RAISE EXCEPTION 'currency % is the currency of the policy', v_currency
				USING ERRCODE = 'invalid_parameter_value', HINT = 'It needs no rate: amounts in it count as they are.';
		END IF;
	END IF;
	-- the next refresh makes the ledger of every customer anew
	UPDATE cs_internal.source_state s SET needs_scan = true
	FROM cs.source x WHERE x.name = s.source AND x.kind = 'subscription';
END
$$;
COMMENT ON FUNCTION cs_internal.check_fx_rate(jsonb, jsonb) IS
'Refuses a row of cs.fx_rate that no conversion can use; a good one has the ledger made anew.';

CREATE TRIGGER definition AFTER INSERT OR UPDATE OR DELETE ON cs.fx_rate
	FOR EACH ROW EXECUTE FUNCTION cs_internal.definition_trigger();

CREATE FUNCTION cs_internal.require_fx_rates() RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
	v_missing text;
	v_rows bigint;
BEGIN
	SELECT string_agg(x.what, ', ' ORDER BY x.what), sum(x.n)
	INTO v_missing, v_rows
	FROM (SELECT substr(u.reason, length('no fx_rate for ') + 1) AS what, sum(u.row_count) AS n
		FROM cs_internal.unusable u WHERE u.reason LIKE 'no fx_rate for %' GROUP BY 1) x;
	IF v_missing IS NOT NULL THEN
		RAISE EXCEPTION 'currencies are mixed and rates are missing in cs.fx_rate: %', v_missing
			USING ERRCODE = 'data_exception',
			DETAIL = format('%s subscription rows cannot be converted into %s.', v_rows, (SELECT p.currency FROM cs.policy p)),
			HINT = 'INSERT INTO cs.fx_rate (currency, valid_from, rate) for each of them, then CALL cs.refresh().';
	END IF;
END
$$;
COMMENT ON FUNCTION cs_internal.require_fx_rates() IS
'Raises, listing currencies and dates, where the ledger left rows out because no rate converts them: sums of money would be wrong.';

CREATE VIEW cs.movement WITH (security_barrier) AS
SELECT m.customer_id, m.at, m.kind, m.delta::numeric(20,6) AS delta, m.mrr_after::numeric(20,6) AS mrr_after,
	m.active_after, m.churn_kind, m.reason, m.seq, m.term_extension, m.service_end_at, m.cancel_requested_at, m.cancel_effective_at
FROM cs_internal.movement m;
COMMENT ON VIEW cs.movement IS
'The ledger: each change of a customer''s MRR, one row per customer and instant, net of what happened at that instant (more than one only where a merge or an exchange rate is told apart, in order of seq). Starts and ends already known for the future stand here too: cut with at < an instant.';
COMMENT ON COLUMN cs.movement.customer_id IS 'The customer, as text.';
COMMENT ON COLUMN cs.movement.at IS 'The instant from which the new balance holds.';
COMMENT ON COLUMN cs.movement.kind IS
'new, reactivation, expansion, contraction, churn, pause, resume, fx, merge_in or merge_out. New: no positive MRR at any instant before, or none within policy.reactivation_days. fx: what goes on at another rate. merge_in and merge_out: the MRR of customers merged at that instant.';
COMMENT ON COLUMN cs.movement.delta IS 'Signed change of MRR per month in the policy''s currency; 0 where only being active changed.';
COMMENT ON COLUMN cs.movement.mrr_after IS 'MRR per month from this instant until the customer''s next movement: the sum of all delta up to here.';
COMMENT ON COLUMN cs.movement.active_after IS
'Whether the customer is active from here on: MRR above 0, or paused within policy.max_pause_days, or free where policy.free_is_active.';
COMMENT ON COLUMN cs.movement.churn_kind IS
'Of a churn: voluntary, involuntary, term_end or what the subscription or cancellation says; NULL where nothing tells. merged for merge_out; NULL for other kinds.';
COMMENT ON COLUMN cs.movement.reason IS 'Of a churn: the reason given; NULL where none was, and for other kinds.';
COMMENT ON COLUMN cs.movement.seq IS 'Order of the movements of one customer at one instant, from 0.';
COMMENT ON COLUMN cs.movement.term_extension IS 'True for a contraction at which a row with a longer term_months began than those that ended: a move to a longer term at a discount, which some count as no loss. Otherwise false.';
COMMENT ON COLUMN cs.movement.service_end_at IS 'Of a churn: the first instant without entitlement, where it counts under recognition service_end; NULL for other kinds.';
COMMENT ON COLUMN cs.movement.cancel_requested_at IS 'Of a churn: when it was asked for (of several rows that end then the latest, else the cancellation), where it counts under recognition cancel_request; NULL where nothing tells, and for other kinds.';
COMMENT ON COLUMN cs.movement.cancel_effective_at IS 'Of a churn: when billing cancelled (changed_at of rows with status canceled), where it counts under recognition cancel_effective; NULL where nothing tells, and for other kinds.';
