-- Leaving: CALL cs.uninstall(keep_in) keeps what was decided in ordinary tables,
-- and DROP EXTENSION then needs no CASCADE and loses no row of the user's.
\ir ../lib/small_company.sql
SELECT * FROM no_plan();
CREATE ROLE cs_ext_test_plain;
GRANT cs_ext_run TO cs_ext_test_plain;
CALL cs.refresh();
BEGIN;
SELECT isnt((SELECT count(*) FROM cs.alert), 0::bigint, 'there are alerts');
SELECT isnt((SELECT count(*) FROM cs.health_history), 0::bigint, 'and scores');
CREATE TEMPORARY TABLE before AS SELECT (SELECT count(*) FROM cs.alert) AS alerts, (SELECT count(*) FROM cs.alert_event) AS events,
	(SELECT count(*) FROM cs.movement) AS movements, (SELECT count(*) FROM cs.health_history) AS scores, (SELECT count(*) FROM cs.segment_history) AS segments,
	(SELECT count(*) FROM cs.metric) AS metrics, (SELECT count(*) FROM app.ticket) AS tickets, (SELECT jsonb_agg(to_jsonb(a) ORDER BY a.id) FROM cs.alert a) AS alert_rows;
SELECT ok((SELECT count(*) > 0 FROM pg_trigger WHERE tgfoid = 'cs_internal.capture'::regproc), 'there are capture triggers');

-- who may, and where to
SET ROLE cs_ext_test_plain;
SELECT throws_ok($$CALL cs.uninstall(keep_in => 'kept')$$, '42501', NULL, 'a definer may not');
RESET ROLE;
SELECT throws_ok($$CALL cs.uninstall(keep_in => 'cs')$$, '22023', NULL, 'not into a schema of the extension');
SAVEPOINT a;
CREATE SCHEMA kept; CREATE TABLE kept.alert ();
SELECT throws_ok($$CALL cs.uninstall(keep_in => 'kept')$$, '42P07', 'schema "kept" already has a table "alert"', 'nor over a table that is there');
ROLLBACK TO a;

-- undone by ROLLBACK
SAVEPOINT b;
SELECT lives_ok($$CALL cs.uninstall(keep_in => 'kept')$$, 'it works');
SELECT is((SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = 'app'::regnamespace AND NOT t.tgisinternal), 0::bigint, 'the triggers are gone');
ROLLBACK TO b;
SELECT ok((SELECT count(*) > 0 FROM pg_trigger WHERE tgfoid = 'cs_internal.capture'::regproc), 'rolled back: they are there');

-- done
CREATE VIEW public.built AS SELECT customer_id FROM cs.customer_health;
CALL cs.uninstall(keep_in => 'kept');
SELECT throws_ok($$DROP EXTENSION cs_ext$$, '2BP01', NULL, 'what people built on it is theirs to drop (a warning names it)');
DROP VIEW public.built;
SELECT lives_ok($$DROP EXTENSION cs_ext$$, 'DROP EXTENSION needs no CASCADE');
SELECT is((SELECT count(*) FROM kept.alert), (SELECT alerts FROM before), 'every alert is kept');
SELECT is((SELECT jsonb_agg(to_jsonb(a) ORDER BY a.id) FROM kept.alert a), (SELECT alert_rows FROM before), 'as it was read');
SELECT is((SELECT count(*) FROM kept.alert_event), (SELECT events FROM before), 'every event');
SELECT is((SELECT count(*) FROM kept.movement), (SELECT movements FROM before), 'every movement');
SELECT is((SELECT count(*) FROM kept.health_history), (SELECT scores FROM before), 'every score');
SELECT is((SELECT count(*) FROM kept.segment_history), (SELECT segments FROM before), 'every membership');
SELECT is((SELECT count(*) FROM kept.definition_metric), (SELECT metrics FROM before), 'every definition');
SELECT is((SELECT count(*) FROM app.ticket), (SELECT tickets FROM before), 'and no fact is lost');
SELECT * FROM finish();
ROLLBACK;
DROP OWNED BY cs_ext_test_plain;
DROP ROLE cs_ext_test_plain;
