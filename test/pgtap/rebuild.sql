-- After random changes of the facts and a refresh, every derived table is what
-- a rebuild at the same instant makes of the facts; decided state is not
-- touched by the rebuild. The seed is printed: psql -v seed=N repeats a run.
\ir ../lib/small_company.sql
\ir ../lib/seed.sql
SET client_min_messages = warning;
SELECT * FROM no_plan();

-- A few random changes of each kind of fact, the way an application makes them.
CREATE FUNCTION app.change() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	k integer;
	c bigint;
BEGIN
	FOR k IN 1 .. 3 LOOP
		c := 1 + floor(random() * 44);
		UPDATE app.subscription SET mrr = mrr + round((random() * 80 - 30)::numeric, 2) WHERE customer_id = c;
		c := 1 + floor(random() * 44);
		UPDATE app.subscription SET end_on = start_on + floor(random() * 500)::integer, reason = 'changed' WHERE customer_id = c AND random() < 0.5;
		c := 1 + floor(random() * 44);
		INSERT INTO app.subscription (customer_id, plan, seats, mrr, start_on, end_on, status)
		SELECT c, 'extra', 1 + floor(random() * 9), round((random() * 300)::numeric, 2), s, CASE WHEN random() < 0.5 THEN s + floor(random() * 200)::integer END,
			(ARRAY['active', 'active', 'active', 'trialing', 'paused', 'past_due'])[1 + floor(random() * 6)]
		FROM (SELECT date '2024-06-01' + floor(random() * 450)::integer AS s) d;
		DELETE FROM app.subscription WHERE id = (SELECT id FROM app.subscription ORDER BY random() LIMIT 1) AND random() < 0.4;

		c := 1 + floor(random() * 44);
		INSERT INTO app.event
		SELECT c, c * 10 + floor(random() * 6), timestamptz '2025-05-01 00:00+02' + random() * interval '75 days', (ARRAY['login', 'view', 'import'])[1 + floor(random() * 3)]
		FROM generate_series(1, 1 + floor(random() * 40)::integer);
		DELETE FROM app.event WHERE customer_id = 1 + floor(random() * 44) AND at > timestamptz '2025-06-01 00:00+02' AND random() < 0.3;
		UPDATE app.event SET at = at + interval '2 days', customer_id = customer_id % 40 + 1 WHERE customer_id = 1 + floor(random() * 40) AND random() < 0.05;

		INSERT INTO app.ticket (customer_id, opened_at, severity, escalated)
		VALUES (1 + floor(random() * 44), timestamptz '2025-06-01 00:00+02' + random() * interval '40 days', 'high', random() < 0.4);
		UPDATE app.ticket SET resolved_at = opened_at + interval '1 day', csat = 1 + floor(random() * 5) WHERE resolved_at IS NULL AND random() < 0.3;
		DELETE FROM app.ticket WHERE random() < 0.02;
	END LOOP;
	UPDATE app.invoice SET paid_at = CASE WHEN paid_at IS NULL THEN due_on + 10 END WHERE random() < 0.05;
	UPDATE app.customer SET owner = 'owner' || floor(random() * 3) WHERE random() < 0.05;
	IF random() < 0.5 THEN
		INSERT INTO app.customer VALUES (41 + floor(random() * 4), 'Late', 'owner1', 'west', '2025-06-20 00:00+02') ON CONFLICT DO NOTHING;
	END IF;
END $$;

-- Every table of the extension's own, row by row, without when it was computed.
-- Derived is what pg_dump leaves out; queues, scan state and the notes of ids met that were no customers are neither.
CREATE TABLE app.kept (pass text, decided boolean, tab text, r jsonb);
CREATE FUNCTION app.keep(pass text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	t record;
BEGIN
	FOR t IN
		SELECT c.oid::regclass AS name, c.oid = ANY (e.extconfig) AS decided
		FROM pg_class c, pg_extension e
		WHERE e.extname = 'cs_ext' AND c.relkind = 'r' AND c.relnamespace IN ('cs_internal'::regnamespace, 'cs'::regnamespace)
			AND c.relname NOT IN ('change_log', 'pending', 'dirty', 'source_state', 'definition_status', 'job_run', 'clock', 'orphan')
	LOOP
		EXECUTE format('INSERT INTO app.kept SELECT %L, %L, %L, to_jsonb(x) - ''computed_at'' FROM %s x', pass, t.decided, t.name, t.name);
	END LOOP;
END $$;

CALL cs.refresh();
SELECT app.change() IS NULL AS changed \gset
CALL cs.refresh();
SELECT app.change() IS NULL AS changed \gset
SET cs_ext.now = '2025-07-01 18:30:00+02';
CALL cs.refresh();
SELECT app.change() IS NULL AS changed \gset
SET cs_ext.now = '2025-07-05 09:00:00+02';
CALL cs.refresh();
SELECT app.change() IS NULL AS changed \gset
CALL cs.refresh();
SELECT app.change() IS NULL AS changed \gset
SET cs_ext.now = '2025-07-09 23:59:00+02';
CALL cs.refresh();

SELECT is((SELECT count(*) FROM cs_internal.dirty) + (SELECT count(*) FROM cs_internal.pending) + (SELECT count(*) FROM cs_internal.change_log), 0::bigint,
	'after the refresh nothing waits');
SELECT app.keep('refreshed') IS NULL AS kept \gset
CALL cs.rebuild();
CALL cs.refresh();
SELECT app.keep('rebuilt') IS NULL AS kept \gset

SELECT is(
	(SELECT jsonb_agg(d) FROM (SELECT r FROM app.kept k WHERE pass = 'refreshed' AND tab = t.tab EXCEPT ALL SELECT r FROM app.kept k WHERE pass = 'rebuilt' AND tab = t.tab LIMIT 3) d),
	NULL, t.tab || ': no row that only the refresh made')
FROM (SELECT DISTINCT tab FROM app.kept) t ORDER BY t.tab;
SELECT is(
	(SELECT jsonb_agg(d) FROM (SELECT r FROM app.kept k WHERE pass = 'rebuilt' AND tab = t.tab EXCEPT ALL SELECT r FROM app.kept k WHERE pass = 'refreshed' AND tab = t.tab LIMIT 3) d),
	NULL, t.tab || ': no row that only the rebuild made')
FROM (SELECT DISTINCT tab FROM app.kept) t ORDER BY t.tab;
SELECT ok(count(*) >= 40, 'derived state of ' || count(*) || ' customers was compared') FROM app.kept WHERE pass = 'rebuilt' AND tab = 'cs_internal.state';
SELECT ok(count(*) > 100, 'and ' || count(*) || ' months of usage') FROM app.kept WHERE pass = 'rebuilt' AND tab = 'cs_internal.usage_month';
SELECT ok(count(*) > 60, 'and ' || count(*) || ' movements') FROM app.kept WHERE pass = 'rebuilt' AND tab ~ 'movement';
SELECT ok(count(*) > 0, count(*) || ' rows of decided state were compared') FROM app.kept WHERE pass = 'rebuilt' AND decided AND tab ~ 'alert|membership|health';
SELECT is_empty('SELECT * FROM cs.check()', 'no invariant is broken');
SELECT * FROM finish();
