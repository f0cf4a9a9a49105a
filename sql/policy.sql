
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

COMMENT ON TABLE cs.policy IS 'One row of rules that every number follows. Written by cs.setup(), changed by UPDATE; each change counts version up and is kept in definition_history.';
COMMENT ON COLUMN cs.policy.id IS 'Always true: there is one row.';
COMMENT ON COLUMN cs.policy.run_as IS 'Ordinary role under which all source reads, metrics and rules run; its members may write definitions.';
COMMENT ON COLUMN cs.policy.time_zone IS 'Zone in which days, months and local times are cut. Changing it reads everything again.';
COMMENT ON COLUMN cs.policy.currency IS 'ISO 4217 code of every amount that cs_ext shows.';
COMMENT ON COLUMN cs.policy.period_edge IS 'before: balances at a bound are taken just before it (default); at: on the bound itself.';
COMMENT ON COLUMN cs.policy.week_start IS 'First day of a week, 1 = Monday to 7 = Sunday.';
COMMENT ON COLUMN cs.policy.fiscal_year_start IS 'Month in which the fiscal year starts, 1 to 12; FYn starts in year n.';
COMMENT ON COLUMN cs.policy.churn_method IS 'Method of churn where none is named: snapshot, rolling_base, event_over_start, event_of_start, daily_sum, eligible_base or activity.';
COMMENT ON COLUMN cs.policy.churn_unit IS 'Unit of churn where none is named: logo, gross_mrr, net_mrr or seats.';
COMMENT ON COLUMN cs.policy.recognition IS 'When a churn counts: service_end, the first instant without entitlement; cancel_request, when it was asked for; cancel_effective, when billing cancelled. Where that is not known, service_end. Changing it makes the whole ledger anew.';
COMMENT ON COLUMN cs.policy.segment_basis IS 'How segments of the past are found: restated or stored.';
COMMENT ON COLUMN cs.policy.logo_level IS 'What counts as one logo: customer, or parent: customers under one topmost parent are one account. Changes what is counted (unit logo, customers_start and customers_end, arpa, ltv), no amount of money.';
COMMENT ON COLUMN cs.policy.free_is_active IS 'Whether a customer with a running subscription of price zero is active.';
COMMENT ON COLUMN cs.policy.grace_days IS 'Local days a past due subscription still counts after the unpaid invoice was due; then it is an involuntary churn.';
COMMENT ON COLUMN cs.policy.max_pause_days IS 'Days a paused customer stays active; NULL: without limit.';
COMMENT ON COLUMN cs.policy.gap_days_money IS 'Local days for which a customer may be inactive without a churn: who is back by then never left, and the MRR before goes on. 0: every gap is a churn.';
COMMENT ON COLUMN cs.policy.gap_days_tenure IS 'Gap in days that does not end an active period for tenure.';
COMMENT ON COLUMN cs.policy.reactivation_days IS 'Local days after a churn within which a return is a reactivation, later it is new; NULL: any time.';
COMMENT ON COLUMN cs.policy.inactivity_days IS 'Window in local days of the churn method activity.';
COMMENT ON COLUMN cs.policy.min_n IS 'Least base at which rates are ranked.';
COMMENT ON COLUMN cs.policy.confidence IS 'Confidence of the intervals beside rates, between 0 and 1.';
COMMENT ON COLUMN cs.policy.version IS 'Counts changes of this row; results name it.';
COMMENT ON COLUMN cs.policy.description IS 'Free text.';

CREATE FUNCTION cs_internal.policy_version() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	NEW.version := OLD.version + 1;
	NEW.currency := upper(NEW.currency);
	RETURN NEW;
END $$;
COMMENT ON FUNCTION cs_internal.policy_version() IS 'Counts policy.version up at each change.';

CREATE TRIGGER version BEFORE UPDATE ON cs.policy
	FOR EACH ROW EXECUTE FUNCTION cs_internal.policy_version();
CREATE TRIGGER definition AFTER INSERT OR UPDATE OR DELETE ON cs.policy
	FOR EACH ROW EXECUTE FUNCTION cs_internal.definition_trigger();

CREATE FUNCTION cs_internal.must_be_word(what text, word text, words text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	near text;
BEGIN
	IF word = ANY (words) THEN
		RETURN;
	END IF;
	near := cs_internal.nearest(word, words);
	RAISE EXCEPTION 'unknown % "%"', what, word USING ERRCODE = 'invalid_parameter_value',
		HINT = coalesce('Did you mean "' || near || '"? ', '') || 'Known: ' || array_to_string(words, ', ') || '.';
END $$;
COMMENT ON FUNCTION cs_internal.must_be_word(text, text, text[]) IS
'Raises 22023 with the near match unless the word is one of the words.';

CREATE FUNCTION cs_internal.check_policy(new jsonb, old jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	n cs.policy := jsonb_populate_record(NULL::cs.policy, new);
	o cs.policy := jsonb_populate_record(NULL::cs.policy, old);
	waits text;
BEGIN
	IF new IS NULL THEN
		RAISE EXCEPTION 'the row of cs.policy cannot be deleted' USING ERRCODE = 'object_in_use',
			HINT = 'Change it by UPDATE, or remove everything with DROP EXTENSION cs_ext.';
	END IF;
	PERFORM 1 FROM pg_timezone_names z WHERE lower(z.name) = lower(n.time_zone);
	IF NOT FOUND THEN
		RAISE EXCEPTION 'unknown time zone "%"', n.time_zone USING ERRCODE = 'invalid_parameter_value',
			HINT = coalesce('Did you mean "' || cs_internal.nearest(n.time_zone,
				(SELECT array_agg(z.name) FROM pg_timezone_names z)) || '"? ', '') || 'Names stand in pg_timezone_names.';
	END IF;
	IF n.currency !~ '^[A-Z]{3}$' THEN
		RAISE EXCEPTION 'currency must be a three-letter ISO 4217 code, not "%"', n.currency
			USING ERRCODE = 'invalid_parameter_value', HINT = 'For example EUR, USD or JPY.';
	END IF;
	PERFORM cs_internal.must_be_word('period_edge', n.period_edge, '{before,at}');
	PERFORM cs_internal.must_be_word('segment_basis', n.segment_basis, '{restated,stored}');
	PERFORM cs_internal.must_be_word('churn_method', n.churn_method,
		'{snapshot,rolling_base,event_over_start,event_of_start,daily_sum,eligible_base,activity}');
	PERFORM cs_internal.must_be_word('churn_unit', n.churn_unit, '{logo,gross_mrr,net_mrr,seats}');
	PERFORM cs_internal.must_be_word('recognition', n.recognition, '{service_end,cancel_request,cancel_effective}');
	PERFORM cs_internal.must_be_word('logo_level', n.logo_level, '{customer,parent}');
	IF n.week_start NOT BETWEEN 1 AND 7 THEN
		RAISE EXCEPTION 'week_start must be from 1 (Monday) to 7 (Sunday), not %', n.week_start USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF n.fiscal_year_start NOT BETWEEN 1 AND 12 THEN
		RAISE EXCEPTION 'fiscal_year_start must be a month from 1 to 12, not %', n.fiscal_year_start USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF n.confidence <= 0 OR n.confidence >= 1 OR n.confidence = 'NaN' THEN
		RAISE EXCEPTION 'confidence must lie between 0 and 1, not %', n.confidence USING ERRCODE = 'invalid_parameter_value';
	END IF;
	waits := (SELECT string_agg(format('%s = %s', d.name, d.days), ', ') FROM (VALUES
		('grace_days', n.grace_days), ('max_pause_days', n.max_pause_days), ('gap_days_money', n.gap_days_money),
		('gap_days_tenure', n.gap_days_tenure), ('reactivation_days', n.reactivation_days), ('min_n', n.min_n),
		('inactivity_days', least(n.inactivity_days - 1, 0))) d (name, days) WHERE d.days < 0);
	IF waits IS NOT NULL THEN
		RAISE EXCEPTION 'cs.policy must not hold a negative number: %', waits USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Days are 0 or more, inactivity_days 1 or more.';
	END IF;
	IF o.run_as IS DISTINCT FROM n.run_as THEN
		PERFORM cs_internal.use_run_as(n.run_as, o.run_as);
	END IF;
	IF old IS NOT NULL AND o.time_zone <> n.time_zone AND EXISTS (SELECT FROM cs_internal.seal) THEN
		RAISE EXCEPTION 'the time zone cannot change: usage is sealed' USING ERRCODE = 'object_not_in_prerequisite_state',
			DETAIL = (SELECT string_agg(format('Source "%s" is sealed before %s; its days are cut in %s.', s.source, s.before, s.time_zone), ' ' ORDER BY s.source) FROM cs_internal.seal s),
			HINT = 'Keep the zone, or give the sealed rollup up with cs.unseal() while all rows are still there.';
	END IF;
	IF old IS NOT NULL AND (o.time_zone, o.period_edge, o.free_is_active, o.grace_days, o.max_pause_days, o.currency, o.gap_days_money, o.reactivation_days, o.recognition)
		IS DISTINCT FROM (n.time_zone, n.period_edge, n.free_is_active, n.grace_days, n.max_pause_days, n.currency, n.gap_days_money, n.reactivation_days, n.recognition) THEN
		UPDATE cs_internal.source_state SET needs_scan = true;
		RAISE NOTICE 'the next refresh reads all sources again, because cs.policy changed';
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.check_policy(jsonb, jsonb) IS 'Refuses what cs.policy must not hold; called by the definition trigger.';

CREATE FUNCTION cs_internal.use_run_as(role_name text, old_role_name text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	r record;
	who text := cs_internal.caller();
BEGIN
	SELECT * INTO r FROM pg_roles p WHERE p.rolname = role_name;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'role "%" does not exist', role_name USING ERRCODE = 'undefined_object',
			HINT = format('CREATE ROLE %I NOLOGIN; then run this again.', role_name);
	END IF;
	IF r.rolsuper THEN
		RAISE EXCEPTION 'run_as must not be a superuser' USING ERRCODE = 'insufficient_privilege',
			DETAIL = format('Role "%s" is a superuser; definitions would run with all rights.', role_name),
			HINT = 'Name an ordinary role, NOLOGIN if you like, and GRANT it SELECT on the sources.';
	END IF;
	IF NOT pg_has_role(who, r.oid, 'USAGE') THEN
		RAISE EXCEPTION 'must be a member of role "%"', role_name USING ERRCODE = 'insufficient_privilege',
			HINT = format('GRANT %I TO %I;', role_name, who);
	END IF;
	IF old_role_name IS NOT NULL AND EXISTS (SELECT 1 FROM pg_roles p WHERE p.rolname = old_role_name) THEN
		PERFORM cs_internal.revoke_definer(old_role_name);
	END IF;
	PERFORM cs_internal.grant_definer(role_name);
END $$;
COMMENT ON FUNCTION cs_internal.use_run_as(text, text) IS 'Checks a role for policy.run_as and moves the rights on definitions to it.';

CREATE FUNCTION cs_internal.setup(time_zone text, currency text, template text, run_as text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	who text := cs_internal.caller();
	role_name text := run_as;
BEGIN
	IF time_zone IS NULL OR currency IS NULL THEN
		RAISE EXCEPTION 'cs.setup needs time_zone and currency' USING ERRCODE = 'null_value_not_allowed',
			HINT = 'For example: SELECT cs.setup(time_zone => ''Europe/Berlin'', currency => ''EUR'');';
	END IF;
	IF EXISTS (SELECT 1 FROM cs.policy) THEN
		RAISE EXCEPTION 'cs_ext is already set up in this database' USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Change it with UPDATE cs.policy; add definitions with cs.install_template().';
	END IF;
	IF role_name IS NULL THEN
		role_name := who;
		IF (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = who) THEN
			role_name := 'cs_ext_run';
			IF NOT EXISTS (SELECT 1 FROM pg_roles r WHERE r.rolname = role_name) THEN
				CREATE ROLE cs_ext_run NOLOGIN;
				RAISE NOTICE 'role cs_ext_run was created: sources are read and definitions run as it';
			END IF;
		END IF;
	END IF;
	INSERT INTO cs.policy (run_as, time_zone, currency) VALUES (role_name, setup.time_zone, upper(setup.currency));
	INSERT INTO cs_internal.clock DEFAULT VALUES;
	IF template IS NOT NULL THEN
		PERFORM cs_internal.install_template(template);
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.setup(text, text, text, text) IS 'See cs.setup.';

CREATE FUNCTION cs.setup(time_zone text, currency text, template text DEFAULT 'saas_basic', run_as text DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.setup(text, text, text, text) IS
'Sets cs_ext up in this database: writes the policy and, from the template (NULL: none), standard metrics, scorecard, dimensions, alert rules and jobs. run_as: the role that reads sources and runs definitions; left out, the caller, or for a superuser cs_ext_run, made if missing. Raises 55000 when already set up.';

CREATE FUNCTION cs_internal.release_hold() RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
	-- restored where run_as did not exist yet, what was granted to it is lost
	PERFORM cs_internal.grant_definer(p.run_as) FROM cs.policy p JOIN pg_roles r ON r.rolname = p.run_as AND NOT r.rolsuper;
	DELETE FROM cs_internal.hold;
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION cs_internal.release_hold() IS 'See cs.release_hold.';

CREATE FUNCTION cs.release_hold() RETURNS boolean LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.release_hold() IS
'Lets the scheduler go on after a restore, and grants policy.run_as on schema cs what it may have lost where the role was made later. True when there was a hold.';

CREATE VIEW cs.definition_history WITH (security_barrier) AS
SELECT h.id, h.at, h.actor, h.table_name, h.key, h.cause, h.old_row, h.new_row
FROM cs_internal.definition_history h;
COMMENT ON VIEW cs.definition_history IS 'Who changed which definition when: one row a change of a definition table, never rewritten. Results that name a policy_version were made with the row of table_name policy whose new_row has that version.';
COMMENT ON COLUMN cs.definition_history.id IS 'Counts up.';
COMMENT ON COLUMN cs.definition_history.at IS 'When, by the clock.';
COMMENT ON COLUMN cs.definition_history.actor IS 'Who: cs_ext.actor where it was set, else the user of the session.';
COMMENT ON COLUMN cs.definition_history.table_name IS 'Definition table, without schema.';
COMMENT ON COLUMN cs.definition_history.key IS 'Primary key of the row, parts separated by /.';
COMMENT ON COLUMN cs.definition_history.cause IS 'How: insert, update or delete.';
COMMENT ON COLUMN cs.definition_history.old_row IS 'The row before; NULL where it was added.';
COMMENT ON COLUMN cs.definition_history.new_row IS 'The row after; NULL where it was deleted.';
