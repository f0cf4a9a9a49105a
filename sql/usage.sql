
-- ---------------------------------------------------------------------------
-- usage: the type cs.usage, its aggregates and accessors, the rollup.
-- ---------------------------------------------------------------------------

CREATE TYPE cs.usage;

CREATE FUNCTION cs_internal.usage_in(cstring) RETURNS cs.usage
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_in';
CREATE FUNCTION cs_internal.usage_out(cs.usage) RETURNS cstring
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_out';
CREATE FUNCTION cs_internal.usage_recv(internal) RETURNS cs.usage
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_recv';
CREATE FUNCTION cs_internal.usage_send(cs.usage) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_send';

CREATE TYPE cs.usage (
	INPUT = cs_internal.usage_in,
	OUTPUT = cs_internal.usage_out,
	RECEIVE = cs_internal.usage_recv,
	SEND = cs_internal.usage_send,
	INTERNALLENGTH = variable,
	STORAGE = external -- dense already: compressing took a fifth of the time of writing and saved a fiftieth
);
COMMENT ON TYPE cs.usage IS
'What one customer did, exactly: per event and local day the count and the sum of quantities, per user and event the days. Stamped with a day it answers the accessors.';

-- ---- comparing and uniting --------------------------------------------------

CREATE FUNCTION cs.usage_eq(a cs.usage, b cs.usage) RETURNS boolean
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_eq';
COMMENT ON FUNCTION cs.usage_eq(cs.usage, cs.usage) IS
'Operator =: both say the same, stamp and instants included. NULL: NULL.';
CREATE FUNCTION cs.usage_ne(a cs.usage, b cs.usage) RETURNS boolean
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_ne';
COMMENT ON FUNCTION cs.usage_ne(cs.usage, cs.usage) IS 'Operator <>: not the same. NULL: NULL.';
CREATE FUNCTION cs.usage_hash(usage cs.usage) RETURNS integer
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_hash';
COMMENT ON FUNCTION cs.usage_hash(cs.usage) IS 'Hash of a usage value, for EXCEPT, DISTINCT and GROUP BY.';
CREATE FUNCTION cs.usage_plus(a cs.usage, b cs.usage) RETURNS cs.usage
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_plus';
COMMENT ON FUNCTION cs.usage_plus(cs.usage, cs.usage) IS
'Operator +: the union of two values: counts and quantities added, days of users united. Both unstamped or with the same stamp, else 22023. NULL: NULL.';
CREATE FUNCTION cs.usage_minus(a cs.usage, b cs.usage) RETURNS cs.usage
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_minus';
COMMENT ON FUNCTION cs.usage_minus(cs.usage, cs.usage) IS
'Operator -: a without what b says, where that is exact: each event of b on a day is in a with the same count, quantity and users, and without stamps the first and last instant stay (or nothing does). Else 22023. Both unstamped or with the same stamp. NULL: NULL.';

CREATE OPERATOR cs.= (
	FUNCTION = cs.usage_eq, LEFTARG = cs.usage, RIGHTARG = cs.usage,
	COMMUTATOR = OPERATOR(cs.=), NEGATOR = OPERATOR(cs.<>),
	RESTRICT = pg_catalog.eqsel, JOIN = pg_catalog.eqjoinsel, HASHES
);
CREATE OPERATOR cs.<> (
	FUNCTION = cs.usage_ne, LEFTARG = cs.usage, RIGHTARG = cs.usage,
	COMMUTATOR = OPERATOR(cs.<>), NEGATOR = OPERATOR(cs.=),
	RESTRICT = pg_catalog.neqsel, JOIN = pg_catalog.neqjoinsel
);
CREATE OPERATOR cs.+ (
	FUNCTION = cs.usage_plus, LEFTARG = cs.usage, RIGHTARG = cs.usage,
	COMMUTATOR = OPERATOR(cs.+)
);
CREATE OPERATOR cs.- (
	FUNCTION = cs.usage_minus, LEFTARG = cs.usage, RIGHTARG = cs.usage
);
CREATE OPERATOR CLASS cs.usage_ops DEFAULT FOR TYPE cs.usage USING hash AS
	OPERATOR 1 cs.= (cs.usage, cs.usage),
	FUNCTION 1 cs.usage_hash(cs.usage);

-- ---- aggregates -------------------------------------------------------------

CREATE FUNCTION cs_internal.usage_agg_step(internal, date, timestamptz, text, text, numeric, bigint)
RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_agg_step';
CREATE FUNCTION cs_internal.usage_union_step(internal, cs.usage) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_union_step';
CREATE FUNCTION cs_internal.usage_agg_combine(internal, internal) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_agg_combine';
CREATE FUNCTION cs_internal.usage_agg_serialize(internal) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_agg_serialize';
CREATE FUNCTION cs_internal.usage_agg_deserialize(bytea, internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_agg_deserialize';
CREATE FUNCTION cs_internal.usage_agg_final(internal) RETURNS cs.usage
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_agg_final';

CREATE AGGREGATE cs.usage_agg(day date, at timestamptz, user_id text, event text, quantity numeric, event_count bigint) (
	SFUNC = cs_internal.usage_agg_step,
	STYPE = internal,
	FINALFUNC = cs_internal.usage_agg_final,
	COMBINEFUNC = cs_internal.usage_agg_combine,
	SERIALFUNC = cs_internal.usage_agg_serialize,
	DESERIALFUNC = cs_internal.usage_agg_deserialize,
	PARALLEL = safe
);
COMMENT ON AGGREGATE cs.usage_agg(date, timestamptz, text, text, numeric, bigint) IS
'The usage value of events: day is the local day of at. user_id or event NULL: an event without; quantity NULL adds nothing; event_count NULL is 1; rows without day or at are left out. NULL over no rows.';

CREATE AGGREGATE cs.union_agg(usage cs.usage) (
	SFUNC = cs_internal.usage_union_step,
	STYPE = internal,
	FINALFUNC = cs_internal.usage_agg_final,
	COMBINEFUNC = cs_internal.usage_agg_combine,
	SERIALFUNC = cs_internal.usage_agg_serialize,
	DESERIALFUNC = cs_internal.usage_agg_deserialize,
	PARALLEL = safe
);
COMMENT ON AGGREGATE cs.union_agg(cs.usage) IS
'The union of usage values, as operator +. NULLs are left out; NULL over no rows.';

CREATE FUNCTION cs_internal.usage_pack_step(internal, bigint, bigint, "any", timestamptz, "any", text, numeric, bigint) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_pack_step';
CREATE FUNCTION cs_internal.usage_pack_combine(internal, internal) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_pack_combine';
CREATE FUNCTION cs_internal.usage_pack_serialize(internal) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_pack_serialize';
CREATE FUNCTION cs_internal.usage_pack_deserialize(bytea, internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_pack_deserialize';
CREATE FUNCTION cs_internal.usage_pack_final(internal) RETURNS bytea
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_pack_final';

CREATE AGGREGATE cs.usage_pack(lo bigint, hi bigint, customer "any", at timestamptz, user_id "any", event text, quantity numeric, event_count bigint) (
	SFUNC = cs_internal.usage_pack_step,
	STYPE = internal,
	FINALFUNC = cs_internal.usage_pack_final,
	COMBINEFUNC = cs_internal.usage_pack_combine,
	SERIALFUNC = cs_internal.usage_pack_serialize,
	DESERIALFUNC = cs_internal.usage_pack_deserialize,
	PARALLEL = safe
);
COMMENT ON AGGREGATE cs.usage_pack(bigint, bigint, "any", timestamptz, "any", text, numeric, bigint) IS
'Usage of many customers in one pass, by customer and month, in the form the first build reads: customers whose hash of 32 bits is in [lo, hi). Not meant to be called by hand. NULL over no rows.';

CREATE FUNCTION cs_internal.usage_slice(customer text) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_slice_sql';
COMMENT ON FUNCTION cs_internal.usage_slice(text) IS 'The hash of a customer''s id that slices of cs.usage_pack are ranges of, 0 to 2^32 - 1.';

-- ---- stamping and accessors -------------------------------------------------

CREATE FUNCTION cs_internal.usage_stamp(usage cs.usage, day date, running cs.usage DEFAULT NULL) RETURNS cs.usage
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_stamp';
COMMENT ON FUNCTION cs_internal.usage_stamp(cs.usage, date, cs.usage) IS
'Days of usage before day, and of running that day itself, stamped with day. usage NULL: an empty value; running NULL: the running day is not known and today => true is refused.';

CREATE FUNCTION cs.usage_at(usage cs.usage, day date) RETURNS cs.usage
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_stamp';
COMMENT ON FUNCTION cs.usage_at(cs.usage, date) IS
'The value as accessors read it on a local day: stamped with it, without later days. usage NULL: an empty value; day NULL: NULL.';

CREATE FUNCTION cs.events(usage cs.usage, event text, days integer, ago integer DEFAULT 0, today boolean DEFAULT false)
RETURNS bigint
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_events';
COMMENT ON FUNCTION cs.events(cs.usage, text, integer, integer, boolean) IS
'Events (sum of event_count) of the n local days before D, D being the stamp moved ago days back; today adds day D. event NULL: any. 0 without events; NULL for usage NULL.';

CREATE FUNCTION cs.quantity(usage cs.usage, event text, days integer, ago integer DEFAULT 0, today boolean DEFAULT false)
RETURNS numeric
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_quantity';
COMMENT ON FUNCTION cs.quantity(cs.usage, text, integer, integer, boolean) IS
'Exact sum of quantity over the window, as cs.events has it. NULL where no event of the window has a quantity.';

CREATE FUNCTION cs.active_users(usage cs.usage, days integer, event text DEFAULT NULL, ago integer DEFAULT 0, today boolean DEFAULT false)
RETURNS bigint
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_active_users';
COMMENT ON FUNCTION cs.active_users(cs.usage, integer, text, integer, boolean) IS
'Different users with an event in the window; event NULL: any. Events without user_id count for nobody.';

CREATE FUNCTION cs.active_days(usage cs.usage, days integer, ago integer DEFAULT 0, today boolean DEFAULT false)
RETURNS integer
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_active_days';
COMMENT ON FUNCTION cs.active_days(cs.usage, integer, integer, boolean) IS
'Local days of the window with any event, with or without user.';

CREATE FUNCTION cs.distinct_events(usage cs.usage, days integer, ago integer DEFAULT 0, today boolean DEFAULT false)
RETURNS bigint
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_distinct_events';
COMMENT ON FUNCTION cs.distinct_events(cs.usage, integer, integer, boolean) IS
'Different event names in the window; events without a name count as none.';

CREATE FUNCTION cs.stickiness(usage cs.usage, days integer, ago integer DEFAULT 0, today boolean DEFAULT false)
RETURNS double precision
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_stickiness';
COMMENT ON FUNCTION cs.stickiness(cs.usage, integer, integer, boolean) IS
'Mean daily users over the days of the window divided by the users of the window, a share from 0 to 1; today makes the window a day longer. NULL without users.';

CREATE FUNCTION cs.days_since(usage cs.usage, event text, ago integer DEFAULT 0, today boolean DEFAULT false)
RETURNS integer
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_days_since';
COMMENT ON FUNCTION cs.days_since(cs.usage, text, integer, boolean) IS
'D minus the last local day before D with the event, of any age; event NULL: any; today lets day D count (0). NULL: never.';

CREATE FUNCTION cs.unnest(usage cs.usage,
	OUT day date, OUT event text, OUT events bigint, OUT quantity numeric, OUT active_users bigint)
RETURNS SETOF record
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_unnest';
COMMENT ON FUNCTION cs.unnest(cs.usage) IS
'One row per event and local day: the count, the sum of quantities (NULL: none had one), the different users.';

-- ---- the rollup -------------------------------------------------------------

-- Derived: what one customer did in one local month; only months with events.
CREATE TABLE cs_internal.usage_month (
	customer_id text COLLATE "C" NOT NULL,
	month date NOT NULL,
	usage cs.usage NOT NULL,
	PRIMARY KEY (customer_id, month)
) WITH (fillfactor = 95);                               -- room for the newest month of a customer beside what it was

-- Decided: the same of events below a seal, per source; see cs.seal().
CREATE TABLE cs_internal.usage_sealed (
	source text NOT NULL,
	customer_id text COLLATE "C" NOT NULL,
	month date NOT NULL,
	usage cs.usage NOT NULL,
	PRIMARY KEY (customer_id, month, source)
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.usage_sealed', '');

-- Derived: pieces of large months behind what stands in usage_month, which has
-- the events before the first of them; each has those up to the next one.
CREATE TABLE cs_internal.usage_delta (
	customer_id text COLLATE "C" NOT NULL,
	month date NOT NULL,
	since timestamptz NOT NULL,
	usage cs.usage NOT NULL,
	PRIMARY KEY (customer_id, month, since)
);

-- All pieces, with what is sealed: a month is the union of its rows.
CREATE VIEW cs_internal.usage_piece AS
SELECT customer_id, month, usage FROM cs_internal.usage_month
UNION ALL SELECT customer_id, month, usage FROM cs_internal.usage_delta
UNION ALL SELECT customer_id, month, usage FROM cs_internal.usage_sealed;

-- What people read: a row per customer and month.
CREATE VIEW cs_internal.usage_whole AS
SELECT m.customer_id, m.month, m.usage FROM cs_internal.usage_month m
WHERE NOT EXISTS (SELECT FROM cs_internal.usage_sealed s WHERE s.customer_id = m.customer_id AND s.month = m.month)
	AND NOT EXISTS (SELECT FROM cs_internal.usage_delta d WHERE d.customer_id = m.customer_id AND d.month = m.month)
UNION ALL
SELECT p.customer_id, p.month, cs.union_agg(p.usage)
FROM (SELECT customer_id, month FROM cs_internal.usage_sealed UNION SELECT customer_id, month FROM cs_internal.usage_delta) k
JOIN cs_internal.usage_piece p ON p.customer_id = k.customer_id AND p.month = k.month
GROUP BY p.customer_id, p.month;

CREATE FUNCTION cs_internal.usage_last(usage cs.usage) RETURNS timestamptz
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cs_usage_last';
COMMENT ON FUNCTION cs_internal.usage_last(cs.usage) IS 'The last instant of an unstamped value; NULL where it has none.';

-- A row for each source that is read whole: how far the build is, as a hash of customers.
CREATE TABLE cs_internal.usage_build (
	source text PRIMARY KEY,
	position bigint NOT NULL DEFAULT 0,     -- customers below are built
	width bigint NOT NULL,                  -- of the last slice; 2^32: one pass is all
	events bigint NOT NULL DEFAULT 0,       -- read so far, of this source
	first_at timestamptz,                   -- of them
	last_at timestamptz
);

CREATE VIEW cs.usage_daily WITH (security_barrier) AS
SELECT m.customer_id, u.event, u.day, m.month, u.events,
	u.quantity::numeric(38,9) AS quantity, u.active_users,
	t.data_through_at, c.last_refresh_at AS computed_at
FROM cs_internal.usage_whole m
CROSS JOIN LATERAL cs.unnest(m.usage) u
LEFT JOIN (SELECT pg_catalog.max(x.last_at) AS data_through_at
	FROM cs_internal.source_state x JOIN cs.source s ON s.name = x.source AND s.kind = 'usage_event') t ON true
LEFT JOIN cs_internal.clock c ON true;
COMMENT ON VIEW cs.usage_daily IS 'What each customer did, a row per event and local day with any.';
COMMENT ON COLUMN cs.usage_daily.customer_id IS 'The customer.';
COMMENT ON COLUMN cs.usage_daily.event IS 'Name of the event; NULL for events without a name.';
COMMENT ON COLUMN cs.usage_daily.day IS 'Local day in the policy''s time zone.';
COMMENT ON COLUMN cs.usage_daily.month IS 'First day of its month; a condition on it leaves out other months before their values are opened.';
COMMENT ON COLUMN cs.usage_daily.events IS 'Number of events: the sum of event_count, or of rows where none is mapped.';
COMMENT ON COLUMN cs.usage_daily.quantity IS 'Sum of quantity to nine decimals; NULL when no event of the day has one.';
COMMENT ON COLUMN cs.usage_daily.active_users IS 'Different users of the event on the day; events without user count for nobody.';
COMMENT ON COLUMN cs.usage_daily.data_through_at IS 'Instant of the newest usage event read; NULL: none yet.';
COMMENT ON COLUMN cs.usage_daily.computed_at IS 'When the last refresh ended; NULL: never.';
