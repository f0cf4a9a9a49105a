-- cs.check(): nothing to say of a company as it is, and the right thing of each
-- kind of damage, done by hand to what is derived.
\set ON_ERROR_STOP 1
\set customers 60
\ir ../lib/demo_company.sql
SELECT no_plan();

SELECT is_empty('SELECT * FROM cs.check()', 'the demo company: no violation in a year');
SELECT cmp_ok(count(*), '=', 13::bigint, 'that were thirteen months') FROM cs_internal.check_months('2025-10-01 00:00+02', 'infinity');
SELECT set_eq($$SELECT word FROM cs_internal.check_months('2025-01-15', '2025-03-02')$$, '{2025-01,2025-02,2025-03}'::text[], 'which is cut in months');
SELECT is_empty($$SELECT * FROM cs.check(date '2026-10-01', NULL)$$, 'instants may be dates');
UPDATE cs.policy SET period_edge = 'at';
CALL cs.refresh();
SELECT is_empty($$SELECT * FROM cs.check('2026-10-01')$$, 'none with the other edge');
UPDATE cs.policy SET period_edge = 'before';
CALL cs.refresh();

-- What one part of the check reports of damage, and everything is as before.
CREATE FUNCTION pg_temp.after(damage text, part text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
	found text[];
BEGIN
	BEGIN
		EXECUTE damage;
		EXECUTE format('SELECT ARRAY(SELECT DISTINCT c.invariant FROM cs_internal.%I(''2026-09-01'', ''infinity'') c)', 'violations_' || part) INTO found;
		RAISE EXCEPTION USING ERRCODE = 'UE001';
	EXCEPTION WHEN SQLSTATE 'UE001' THEN
		RETURN found;
	END;
END $$;
SELECT customer_id AS moved, at AS moved_at, delta AS moved_by FROM cs_internal.movement WHERE kind = 'expansion' AND at BETWEEN '2026-09-02' AND '2026-09-28' ORDER BY at, customer_id LIMIT 1 \gset
SELECT customer_id AS gone, at AS gone_at FROM cs_internal.movement WHERE kind = 'churn' AND at BETWEEN '2026-09-02' AND '2026-10-28' ORDER BY at, customer_id LIMIT 1 \gset

CREATE FUNCTION pg_temp.has(damage text, part text, want text, what text) RETURNS text LANGUAGE sql AS $$
	SELECT ok(want = ANY (x.found), what) || CASE WHEN want = ANY (x.found) THEN '' ELSE E'\n' || diag(x.found::text) END
	FROM (SELECT pg_temp.after(damage, part) AS found) x
$$;
SELECT is(pg_temp.after('SELECT 1', p), '{}', 'without damage nothing: ' || p) FROM unnest('{balance,recompute,session,cohort,touching}'::text[]) p;
SELECT pg_temp.has(format('UPDATE cs_internal.movement SET delta = delta + 1 WHERE customer_id = %L AND at = %L', :'moved', :'moved_at'), 'balance', 'roll_forward', 'a delta that is not the change');
SELECT pg_temp.has(format('DELETE FROM cs_internal.movement WHERE customer_id = %L AND at = %L', :'moved', :'moved_at'), 'balance', 'state', 'a movement that is missing');
SELECT pg_temp.has(format('UPDATE cs_internal.movement SET mrr_after = mrr_after + 1, delta = delta + 1 WHERE customer_id = %L AND at >= %L AND at = (SELECT max(at) FROM cs_internal.movement WHERE customer_id = %L AND at < now())', :'moved', :'moved_at', :'moved'), 'balance', 'state', 'a balance that the state does not have');
SELECT pg_temp.has(format('UPDATE cs_internal.movement SET kind = ''contraction'' WHERE customer_id = %L AND at = %L', :'moved', :'moved_at'), 'balance', 'movement_kind', 'a gain that is called a contraction');
SELECT pg_temp.has(format('UPDATE cs_internal.movement SET kind = ''contraction'' WHERE customer_id = %L AND at = %L', :'gone', :'gone_at'), 'balance', 'movement_kind', 'a churn that is called a contraction');
SELECT pg_temp.has(format('UPDATE cs_internal.movement SET active_after = true WHERE customer_id = %L AND at = %L', :'gone', :'gone_at'), 'balance', 'movement_kind', 'a churn after which the customer is active');
SELECT pg_temp.has(format('UPDATE cs_internal.movement SET kind = ''merge_out'' WHERE customer_id = %L AND at = %L', :'gone', :'gone_at'), 'balance', 'merge', 'a merge that only takes');
SELECT pg_temp.has(format('UPDATE cs_internal.movement SET kind = ''new'' WHERE customer_id = %L AND at = %L', :'moved', :'moved_at'), 'balance', 'movement_kind', 'a new customer that paid before');
SELECT pg_temp.has('UPDATE cs_internal.state SET mrr = mrr + 1 WHERE active AND customer_id = (SELECT min(customer_id) FROM cs_internal.state WHERE active)', 'balance', 'state', 'a state that the ledger does not have');
SELECT pg_temp.has('UPDATE cs_internal.state SET score = score - 1 WHERE customer_id = (SELECT min(customer_id) FROM cs_internal.state WHERE score > 10)', 'recompute', 'recompute', 'a score that the facts do not give');
SELECT pg_temp.has('UPDATE cs_internal.state SET "values"[(SELECT slot FROM cs_internal.metric_slot WHERE metric = ''events_30d'')] = 12345 WHERE customer_id = (SELECT min(customer_id) FROM cs_internal.state WHERE score > 10)', 'recompute', 'recompute', 'a metric that the facts do not give');
SELECT pg_temp.has('UPDATE cs.policy SET segment_basis = ''stored''; INSERT INTO cs_internal.membership (customer_id, dimension, segment, valid_from, source) SELECT m.customer_id, m.dimension, ''twice'', ''2026-01-01'', ''rule'' FROM cs_internal.membership m WHERE m.dimension = ''tier'' AND m.customer_id IN (SELECT customer_id FROM cs_internal.state WHERE active); UPDATE cs_internal.membership SET valid_from = ''2026-01-01'' WHERE dimension = ''tier''', 'segment', 'segment', 'a customer in two segments of one dimension');

-- a number that hangs on a setting
SELECT pg_temp.has($$CREATE OR REPLACE FUNCTION cs_internal.edge_shift() RETURNS interval LANGUAGE sql STABLE AS
	'SELECT CASE WHEN current_setting(''enable_sort'') = ''off'' THEN interval ''40 days'' ELSE interval ''0'' END'$$, 'session', 'session', 'a rate that depends on a setting of the session');
-- the whole of it, and what a row says
-- (asked inside the transaction, told outside: a rollback takes test numbers back)
BEGIN;
UPDATE cs_internal.movement SET delta = delta + 1 WHERE customer_id = :'moved' AND at = :'moved_at';
SELECT coalesce(string_agg(c::text, ' | '), '') AS found FROM (SELECT c.invariant, c.period::timestamptz, c.customer_id, c.expected, c.got, c.detail
	FROM cs.check('2026-09-01', '2026-09-30') c WHERE c.invariant = 'roll_forward' AND c.customer_id IS NOT NULL) c \gset
SELECT (SELECT c::text FROM (SELECT 'roll_forward' AS invariant, at, customer_id, (mrr_after + 1)::text, mrr_after::text, format('MRR after the expansion of %s', delta)) c) AS expected
FROM cs_internal.movement WHERE customer_id = :'moved' AND at = :'moved_at' \gset
ROLLBACK;
SELECT is(:'found'::text, :'expected'::text, 'cs.check() finds it and says what it should be');

-- outstanding changes are no violation, and said
UPDATE company.contract SET amount = amount * 2 WHERE customer_id = :'moved'::integer;
SELECT is_empty($$SELECT * FROM cs.check('2026-10-01')$$, 'facts that wait for a refresh are no violation');
CALL cs.refresh();
SELECT is_empty($$SELECT * FROM cs.check('2026-10-01')$$, 'nor after it');

-- who leaves and comes back on hold in another month of the quarter is a returner, though he pays nothing yet
SELECT m.customer_id AS "left", (date_trunc('month', m.at) + interval '1 month 10 days')::date AS back
FROM cs_internal.movement m
WHERE m.kind = 'churn' AND NOT m.active_after AND extract(month FROM m.at)::integer % 3 > 0 AND m.at BETWEEN '2025-10-05' AND '2026-09-01'
	AND NOT EXISTS (SELECT FROM cs_internal.movement x WHERE x.customer_id = m.customer_id AND (x.at, x.seq) > (m.at, m.seq))
	AND NOT EXISTS (SELECT FROM cs_internal.movement x WHERE x.kind = 'reactivation' AND date_trunc('quarter', x.at) = date_trunc('quarter', m.at))
ORDER BY m.at, m.customer_id LIMIT 1 \gset
INSERT INTO company.contract (customer_id, plan, seats, amount, billing, term_months, signed_on, starts_on, ended_on, status, auto_renew)
VALUES (:'left', 'basic', 3, 90, 'month', 1, :'back', :'back', :'back'::date + 90, 'paused', false);
CALL cs.refresh();
SELECT is((SELECT string_agg(c.part, ' ') FROM cs.churn_customers(to_char(:'back'::date, 'YYYY-"Q"Q')) c WHERE c.customer_id = :'left'), 'left_and_returned', 'one comes back on hold');
SELECT is_empty('SELECT * FROM cs.check()', 'which is no violation');

-- ---- refused ---------------------------------------------------------------------
SELECT throws_ok($$SELECT * FROM cs.check('2026-05-01', '2026-05-01')$$, '22023', NULL, 'an empty span');
SELECT throws_ok($$SELECT * FROM cs.check('soon')$$, '22007', NULL, 'no instant');
BEGIN READ ONLY;
SELECT count(*) AS violations FROM cs.check('2026-10-01') \gset
ROLLBACK;
SELECT is(:violations, 0, 'in a read-only transaction the rest is checked');

-- readers do not run it: it takes its turn with the refresher
BEGIN;
CREATE ROLE regress_check_reader NOLOGIN;
SELECT cs.grant_reader('regress_check_reader') \g /dev/null
SELECT has_function_privilege('regress_check_reader', 'cs.check(text,text)', 'EXECUTE') AS may \gset
ROLLBACK;
SELECT is(:'may'::boolean, false, 'readers may not');
SELECT * FROM finish();
