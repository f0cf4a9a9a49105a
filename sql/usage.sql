
-- ---------------------------------------------------------------------------
-- usage: the type cs.usage, its aggregates and accessors, the rollup.
-- ---------------------------------------------------------------------------

-- (type first)
CREATE TYPE cs.usage;

-- Derived: what one customer did in one local month; only months with events.
-- CREATE TABLE cs_internal.usage_month (
-- 	customer_id text COLLATE "C" NOT NULL,
-- 	month date NOT NULL,
-- 	usage cs.usage NOT NULL,
-- 	PRIMARY KEY (customer_id, month)
-- );
