-- Monthly summaries of segments restated by the rules of today (full run only): value tiers,
-- attributes and rules over both, from facts that are corrected at random, with
-- refresh, refresh_customer and assignments by hand in between; against each month
-- and segment asked for by itself. Prints its seed; psql -v seed=N repeats one.
BEGIN;
SELECT no_plan();

CREATE ROLE regress_summary_run NOLOGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL search_path = public;
SET LOCAL cs_ext.now = '2024-06-15 12:00+00';
INSERT INTO cs.policy (run_as, time_zone, currency) VALUES ('regress_summary_run', 'America/New_York', 'EUR');

\ir ../lib/seed.sql

CREATE TABLE cust (c text PRIMARY KEY, owner text, attributes jsonb, since timestamptz);
CREATE TABLE sub (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, c text, s timestamptz, e timestamptz, mrr numeric, status text);
CREATE INDEX ON sub (c);
GRANT SELECT ON cust, sub TO regress_summary_run;
CREATE FUNCTION pg_temp.some_time() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
	SELECT CASE WHEN random() < 0.4 THEN date_trunc('month', x.at AT TIME ZONE 'America/New_York') AT TIME ZONE 'America/New_York' ELSE x.at END
	FROM (SELECT timestamptz '2023-01-10 00:00+00' + random() * interval '600 days' AS at) x $$;
CREATE FUNCTION pg_temp.some_sub(c text) RETURNS void LANGUAGE sql AS $$
	INSERT INTO sub (c, s, e, mrr, status) SELECT some_sub.c, t, CASE WHEN random() < 0.6 THEN t + random() * interval '200 days' END, round((random() * 80)::numeric, 2),
		CASE WHEN random() < 0.1 THEN 'paused' WHEN random() < 0.1 THEN 'trialing' ELSE 'active' END FROM pg_temp.some_time() t $$;
INSERT INTO cust SELECT 'c' || n, 'o' || n % 3, CASE WHEN random() < 0.9 THEN jsonb_build_object('plan', 'p' || floor(random() * 3)) END,
	CASE WHEN random() < 0.8 THEN pg_temp.some_time() END FROM generate_series(1, 30) n;
SELECT pg_temp.some_sub('c' || 1 + floor(random() * 33)::integer) FROM generate_series(1, 70) \g /dev/null
SELECT count(*) FROM cs.add_source('cust', 'customer', 'cust', '{"customer_id": "c", "owner": "owner", "attributes": "attributes", "created_at": "since"}') \g /dev/null
SELECT count(*) FROM cs.add_source('sub', 'subscription', 'sub', '{"customer_id": "c", "start_at": "s", "end_at": "e", "mrr": "mrr", "status": "status"}') \g /dev/null
INSERT INTO cs.metric (name, source, expression) VALUES ('mrr', 'ledger', 'mrr'), ('tenure_days', 'ledger', 'tenure_days');
INSERT INTO cs.dimension (name, attribute, fallback) VALUES ('plan', 'plan', NULL), ('value', NULL, 'small'), ('mixed', NULL, NULL), ('whose', NULL, 'nobody'), ('age', NULL, NULL), ('touch', NULL, 'tech');
INSERT INTO cs.segment (dimension, name, rule, priority) VALUES ('value', 'big', 'mrr >= 60', 1), ('value', 'mid', 'mrr >= 20', 2), ('value', 'idle', 'NOT active', 3),
	('mixed', 'a', 'mrr > 30 AND owner = ''o1''', 1), ('mixed', 'b', 'attributes ->> ''plan'' IN (''p1'', ''p2'') AND active', 2),
	('whose', 'one', 'owner = ''o1''', 1), ('age', 'old', 'tenure_days > 90', 1), ('touch', 'high', 'value = ''big''', 1);
CREATE TABLE part AS SELECT NULL::text AS part UNION ALL SELECT unnest(ARRAY['plan:p0', 'plan:p1', 'plan:(none)', 'value:big', 'value:mid', 'value:idle', 'value:small', 'mixed:a', 'mixed:b', 'mixed:(none)', 'whose:one']);
CREATE TABLE span (until timestamptz);
INSERT INTO span VALUES ('2024-06-15 12:00+00');
\ir ../lib/summary_differences.sql

-- Facts of some customers get corrected.
CREATE FUNCTION pg_temp.correct() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	x text;
BEGIN
	FOR x IN SELECT 'c' || 1 + floor(random() * 33)::integer FROM generate_series(1, 6) LOOP
		CASE floor(random() * 6)
		WHEN 0 THEN PERFORM pg_temp.some_sub(x);
		WHEN 1 THEN DELETE FROM sub WHERE c = x AND random() < 0.6;
		WHEN 2 THEN UPDATE sub SET mrr = mrr + 15, s = s - interval '20 days' WHERE c = x;
		WHEN 3 THEN UPDATE cust SET attributes = jsonb_build_object('plan', 'p' || floor(random() * 3)) WHERE c = x;
		WHEN 4 THEN UPDATE cust SET owner = 'o' || floor(random() * 3), since = pg_temp.some_time() WHERE c = x;
		ELSE
			DELETE FROM cust WHERE c = x;
			INSERT INTO cust VALUES ('c' || 1 + floor(random() * 33)::integer, 'o1', '{"plan": "p1"}', '2023-06-01') ON CONFLICT DO NOTHING;
		END CASE;
	END LOOP;
END $$;

CALL cs.refresh(commit => false);
SELECT results_eq('SELECT dimension FROM cs_internal.summary ORDER BY 1', $$ VALUES (''), ('mixed'), ('plan'), ('value'), ('whose') $$,
	'kept: everybody, attributes, and rules over the ledger and the customer; not rules over metrics or other dimensions');
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'from what is kept: as month by month');
DELETE FROM cs_internal.summary;
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'computed in one pass: as month by month');
SELECT is_empty($$ SELECT 1 FROM cs_internal.period_sums('age', pg_temp.bounds(), true) UNION ALL SELECT 1 FROM cs_internal.period_sums('touch', pg_temp.bounds(), true) $$, 'what asks for more than one pass has is left to the long way');
CALL cs.refresh(commit => false);

SELECT pg_temp.correct() \g /dev/null
SELECT cs.refresh_customer('c5'), cs.refresh_customer('c6') \g /dev/null
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'after refresh_customer: as month by month');
CREATE TABLE build AS SELECT dimension, built_at FROM cs_internal.summary;
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT 1 FROM cs_internal.movement_before UNION ALL SELECT 1 FROM cs_internal.customer_before', 'refresh takes everything in');
SELECT set_eq('SELECT dimension, built_at FROM cs_internal.summary', 'SELECT * FROM build', 'without a build');
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'after refresh: as month by month');
SELECT pg_temp.same_as_built('a build from nothing makes the same, to the last digit');

SELECT cs.assign_segment('c3', 'value', 'big', 'strategic'), cs.assign_segment('c4', 'plan', 'p2', 'by hand', '2024-08-05 00:00+00') \g /dev/null
CALL cs.refresh(commit => false);
SET LOCAL cs_ext.now = '2024-09-10 12:00+00';
UPDATE span SET until = '2024-09-10 12:00+00';
SELECT pg_temp.correct() \g /dev/null
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'assigned by hand, and three months later');
SELECT pg_temp.correct() \g /dev/null
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'and corrected');
SELECT pg_temp.same_as_built('with assignments, added month by month: the same');

-- definitions
UPDATE cs.segment SET rule = 'mrr >= 40' WHERE dimension = 'value' AND name = 'big';
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'under a changed rule');
TRUNCATE build; INSERT INTO build SELECT dimension, built_at FROM cs_internal.summary;
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'and built under it');
SELECT results_eq('SELECT s.dimension FROM cs_internal.summary s JOIN build b USING (dimension) WHERE s.built_at <> b.built_at', $$ VALUES ('value') $$, 'that dimension alone');
UPDATE cust SET attributes = '{"plan": "p9"}' WHERE c = (SELECT min(c) FROM cust);
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'a new value of an attribute');
UPDATE cs.segment SET rule = '1 / (mrr - mrr) > 0' WHERE dimension = 'value' AND name = 'mid';
SELECT lives_ok('CALL cs.refresh(commit => false)', 'a rule that raises does not stop the refresh');
SELECT results_eq('SELECT dimension FROM cs_internal.summary WHERE failed', $$ VALUES ('value') $$, 'its dimension is not kept');
UPDATE cs.segment SET rule = 'mrr >= 30' WHERE dimension = 'value' AND name = 'mid';
UPDATE cs.policy SET period_edge = 'at';
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'with balances on the bound');
SELECT pg_temp.correct() \g /dev/null
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'corrected');
SELECT pg_temp.same_as_built('the same, with balances on the bound');
SELECT is_empty($$ SELECT 1 FROM cs_internal.summary WHERE failed $$, 'a rule put right is kept again');
SELECT results_eq($$ SELECT w, cs_internal.is_timeless(w) FROM unnest(ARRAY['mrr > 3', 'lower(owner) = ''a''', 'created_at < now()', 'EXISTS (SELECT 1 FROM sub)', 'mrr > app.f(3)', 'owner IN (''a'', ''b'')', 'created_at < current_date']) w $$,
	$$ VALUES ('mrr > 3', true), ('lower(owner) = ''a''', true), ('created_at < now()', false), ('EXISTS (SELECT 1 FROM sub)', false), ('mrr > app.f(3)', false), ('owner IN (''a'', ''b'')', true), ('created_at < current_date', false) $$, 'which rules say the same whenever they are asked');
SELECT * FROM finish();
ROLLBACK;
