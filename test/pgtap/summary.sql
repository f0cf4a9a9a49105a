-- Monthly summaries: what they keep equals what the ledger says, after random
-- changes, for every method, unit and basis, and whichever way it came to be kept.
-- Prints its seed; psql -v seed=N repeats one.
BEGIN;
SELECT no_plan();

CREATE ROLE regress_summary_run NOLOGIN;
SET LOCAL client_min_messages = warning;
INSERT INTO cs.policy (run_as, time_zone, currency) VALUES ('regress_summary_run', 'Europe/Berlin', 'EUR');
UPDATE cs.policy SET segment_basis = 'stored';
SET LOCAL cs_ext.now = '2024-06-15 12:00+00';
SET LOCAL search_path = public;

\ir ../lib/seed.sql

CREATE TABLE kind AS SELECT unnest(ARRAY['new', 'expansion', 'contraction', 'churn', 'reactivation', 'pause', 'resume', 'fx', 'merge_in', 'merge_out']) AS kind;
-- A few random movements of one customer, some on bounds of months, some at one instant.
CREATE FUNCTION pg_temp.random_ledger(c text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	t timestamptz; m numeric := 0; a numeric; act boolean;
BEGIN
	FOR t IN SELECT CASE WHEN random() < 0.3 THEN date_trunc('month', x.at AT TIME ZONE 'Europe/Berlin') AT TIME ZONE 'Europe/Berlin' ELSE x.at END
		FROM (SELECT timestamptz '2023-01-10 00:00+00' + random() * interval '600 days' AS at FROM generate_series(1, floor(random() * 8)::integer)) x ORDER BY 1
	LOOP
		a := CASE WHEN random() < 0.3 THEN 0 ELSE round((random() * 100)::numeric, 2) END;
		act := a > 0 OR random() < 0.2;
		INSERT INTO cs_internal.movement (customer_id, at, seq, kind, delta, mrr_after, active_after)
		SELECT c, t, coalesce((SELECT max(seq) + 1 FROM cs_internal.movement v WHERE v.customer_id = c AND v.at = t), 0), k.kind, a - m, a, act
		FROM kind k ORDER BY random() LIMIT 1;
		m := a;
	END LOOP;
END $$;
CREATE FUNCTION pg_temp.random_membership(c text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	t timestamptz := timestamptz '2023-01-01 00:00+01'; u timestamptz;
BEGIN
	LOOP
		t := t + random() * interval '200 days';
		IF random() < 0.2 THEN t := (date_trunc('month', t AT TIME ZONE 'Europe/Berlin') + interval '1 month') AT TIME ZONE 'Europe/Berlin'; END IF;
		EXIT WHEN t > '2024-06-10';
		u := t + (0.1 + random()) * interval '150 days';
		IF random() < 0.2 THEN u := date_trunc('month', u AT TIME ZONE 'Europe/Berlin') AT TIME ZONE 'Europe/Berlin' + interval '2 months'; END IF;
		INSERT INTO cs_internal.membership (customer_id, dimension, segment, valid_from, valid_to, source)
		VALUES (c, 'tier', 's' || floor(random() * 3), t, CASE WHEN u < '2024-06-10' THEN u END, 'rule') ON CONFLICT DO NOTHING;
		t := u;
	END LOOP;
END $$;
INSERT INTO cs.dimension (name) VALUES ('tier');
INSERT INTO cs.segment (dimension, name, rule) SELECT 'tier', 's' || n, 'mrr > 0' FROM generate_series(0, 2) n;
SELECT pg_temp.random_ledger('c' || n), pg_temp.random_membership('c' || n) FROM generate_series(1, 60) n \g /dev/null

-- Each month and segment asked for one by one goes over the ledger: what the sums must say.
CREATE TABLE span (until timestamptz);
INSERT INTO span VALUES ('2024-06-15 12:00+00');
CREATE TABLE part AS SELECT NULL::text AS part UNION ALL SELECT 'tier:' || unnest(ARRAY['s0', 's1', 's2', '(none)']);
\ir ../lib/summary_differences.sql

-- Some customers get another past.
CREATE FUNCTION pg_temp.correct() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	c text;
BEGIN
	FOR c IN SELECT 'c' || 1 + floor(random() * 65)::integer FROM generate_series(1, 8) LOOP
		CASE floor(random() * 3)
		WHEN 0 THEN
			DELETE FROM cs_internal.movement WHERE customer_id = c;
			PERFORM pg_temp.random_ledger(c);
		WHEN 1 THEN
			UPDATE cs_internal.movement SET at = at + interval '20 days' WHERE customer_id = c;
		ELSE
			DELETE FROM cs_internal.movement WHERE customer_id = c AND random() < 0.5;
		END CASE;
	END LOOP;
END $$;

SELECT is_empty('SELECT * FROM cs_internal.summary', 'nothing is kept before the first refresh');
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'computed in one pass: as month by month');

CALL cs.refresh(commit => false);
SELECT results_eq('SELECT dimension, through FROM cs_internal.summary ORDER BY 1', $$ VALUES ('', timestamptz '2024-06-01 00:00+02'), ('tier', '2024-06-01 00:00+02') $$,
	'refresh keeps the months that have ended, for everybody and the dimension');
SELECT is_empty('SELECT 1 FROM cs_internal.movement_before', 'and nothing is waiting');
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'from what is kept: as month by month');
UPDATE cs_internal.summary_month SET churned = churned + 1000;
SELECT ok(bool_and(s.numerator >= 1000), 'months that have ended come from what is kept') FROM cs_internal.churn_periods(pg_temp.bounds(), NULL, 'snapshot', 'logo') s WHERE s.period_no < 16 AND s.numerator > 0;
SELECT ok(max(s.numerator) < 1000, 'the running one from the ledger') FROM cs_internal.churn_periods(pg_temp.bounds(), NULL, 'snapshot', 'logo') s WHERE s.period_no = 16;
SELECT ok(max(s.numerator) < 1000, 'and so do periods that are no months') FROM cs_internal.churn_periods(ARRAY['2024-01-02'::timestamptz, '2024-02-02', '2024-03-02'], NULL, 'snapshot', 'logo') s;
UPDATE cs_internal.summary_month SET churned = churned - 1000;

SELECT pg_temp.correct() \g /dev/null
SELECT isnt_empty('SELECT 1 FROM cs_internal.movement_before', 'a corrected ledger is noted');
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'before the next refresh: as month by month');
CREATE TABLE build AS SELECT dimension, built_at FROM cs_internal.summary;
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT 1 FROM cs_internal.movement_before', 'refresh takes it in');
SELECT set_eq('SELECT dimension, built_at FROM cs_internal.summary', 'SELECT * FROM build', 'without a build');
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'after it: as month by month');
SELECT pg_temp.same_as_built('a build from nothing makes the same, to the last digit');

-- time goes on: two months end
SET LOCAL cs_ext.now = '2024-08-10 12:00+00';
UPDATE span SET until = '2024-08-10 12:00+00';
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'months that ended since the last refresh are computed');
TRUNCATE build; INSERT INTO build SELECT dimension, built_at FROM cs_internal.summary;
SELECT pg_temp.correct() \g /dev/null
CALL cs.refresh(commit => false);
SELECT results_eq('SELECT DISTINCT through FROM cs_internal.summary', $$ VALUES (timestamptz '2024-08-01 00:00+02') $$, 'and are kept after it');
SELECT set_eq('SELECT dimension, built_at FROM cs_internal.summary', 'SELECT * FROM build', 'without a build');
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'as month by month');
SELECT pg_temp.same_as_built('added month by month or built at once: the same');

-- on the very bound, membership may still change
SET LOCAL cs_ext.now = '2024-09-01 00:00+02';
UPDATE span SET until = '2024-09-01 00:00+02';
CALL cs.refresh(commit => false);
SELECT results_eq('SELECT DISTINCT through FROM cs_internal.summary', $$ VALUES (timestamptz '2024-08-01 00:00+02') $$, 'a month that ends this instant is not yet kept');
SET LOCAL cs_ext.now = '2024-09-02 00:00+02';
UPDATE span SET until = '2024-09-02 00:00+02';
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'the instant after');

-- definitions
UPDATE cs.policy SET period_edge = 'at';
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'under another edge nothing kept is read');
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'and the next refresh builds');
SELECT pg_temp.correct() \g /dev/null
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'corrected, with balances on the bound');
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'and taken in');
SELECT pg_temp.same_as_built('the same, with balances on the bound');
UPDATE cs.policy SET time_zone = 'Asia/Tokyo';
UPDATE span SET until = '2024-09-02 00:00+02';
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'in another zone');
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'in another zone, kept');

-- what they depend on is asked once, not by each refresh
SET LOCAL track_functions = 'all';
CREATE FUNCTION pg_temp.asked() RETURNS bigint LANGUAGE sql AS $$ SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_xact_user_functions WHERE funcname = 'summary_fingerprint' $$;
SELECT pg_temp.asked() AS asked \gset
CALL cs.refresh(commit => false);
INSERT INTO cs_internal.movement (customer_id, at, kind, delta, mrr_after, active_after) VALUES ('later', '2024-02-05', 'new', 1, 1, true);
CALL cs.refresh(commit => false);
SELECT is(pg_temp.asked(), :asked::bigint, 'a refresh does not look into the rules again, whether the ledger changed or not');
SELECT is_empty('SELECT * FROM cs_internal.movement_before', 'and takes in what changed');
SELECT cmp_ok((SELECT count(*) FROM cs.churn_by_segment_monthly), '>', 0::bigint, 'who reads what is kept');
SELECT is(pg_temp.asked(), :asked::bigint, 'does not look into them either');
UPDATE cs.segment SET rule = 'mrr > 1' WHERE dimension = 'tier' AND name = 's1';
SELECT count(*) FROM cs.churn_by_segment_monthly \g /dev/null
SELECT cmp_ok(pg_temp.asked(), '>', :asked::bigint, 'but where a rule changed');
SELECT pg_temp.asked() AS asked \gset
CALL cs.refresh(commit => false);
SELECT cmp_ok(pg_temp.asked(), '>', :asked::bigint, 'a changed rule is looked into');
SAVEPOINT before_change;
UPDATE cs.policy SET period_edge = 'before';
CALL cs.refresh(commit => false);
ROLLBACK TO before_change;
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'nor is what was rolled back taken for what is');

-- membership that reaches back
UPDATE cs_internal.membership SET valid_to = valid_from + interval '1 day' WHERE customer_id = 'c7';
INSERT INTO cs_internal.membership VALUES ('c63', 'tier', 's1', '2023-05-05', NULL, 'rule');
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'membership changed in the past is not overlooked');
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'nor after a refresh');
UPDATE cs_internal.membership SET valid_to = '2024-09-01 12:00+02' WHERE customer_id = 'c63';
SELECT results_eq('SELECT count(*) FROM cs_internal.summary', $$ VALUES (2::bigint) $$, 'membership of the running month leaves what is kept');
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'and shows in it');

-- more than a tenth: built anew
INSERT INTO cs_internal.movement (customer_id, at, kind, delta, mrr_after, active_after) SELECT 'many' || n, '2024-01-05', 'new', 1, 1, true FROM generate_series(1, 1100) n;
TRUNCATE build; INSERT INTO build SELECT dimension, built_at FROM cs_internal.summary;
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT dimension, built_at FROM cs_internal.summary INTERSECT SELECT * FROM build', 'where very much changed, all is built');
SELECT is_empty('SELECT * FROM pg_temp.differences()', 'and right');
TRUNCATE cs_internal.movement;
SELECT is_empty('SELECT * FROM cs_internal.summary', 'an emptied ledger has no summaries');
SELECT * FROM finish();
ROLLBACK;
