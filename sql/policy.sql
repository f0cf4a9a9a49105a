
-- ---------------------------------------------------------------------------
-- policy: one row of rules that every number follows.
-- ---------------------------------------------------------------------------

CREATE TABLE cs.policy (
	id boolean PRIMARY KEY DEFAULT true CHECK (id),
	run_as text NOT NULL,
	time_zone text NOT NULL,
	currency varchar(3) NOT NULL,
	period_edge text NOT NULL DEFAULT 'before',
	week_start integer NOT NULL DEFAULT 1,
	fiscal_year_start integer NOT NULL DEFAULT 1,
	churn_method text NOT NULL DEFAULT 'snapshot',
	churn_unit text NOT NULL DEFAULT 'logo',
	recognition text NOT NULL DEFAULT 'service_end',
	segment_basis text NOT NULL DEFAULT 'restated',
	logo_level text NOT NULL DEFAULT 'customer',
	free_is_active boolean NOT NULL DEFAULT false,
	grace_days integer NOT NULL DEFAULT 30,
	max_pause_days integer,
	gap_days_money integer NOT NULL DEFAULT 0,
	gap_days_tenure integer NOT NULL DEFAULT 7,
	reactivation_days integer,
	inactivity_days integer NOT NULL DEFAULT 30,
	min_n integer NOT NULL DEFAULT 5,
	confidence numeric NOT NULL DEFAULT 0.95,
	version integer NOT NULL DEFAULT 1,
	description text
);
SELECT pg_catalog.pg_extension_config_dump('cs.policy', '');
