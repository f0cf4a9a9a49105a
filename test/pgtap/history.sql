-- What became of a score: differences that add up, previews, the past filled
-- in and compared with what was stored, trend, disagreement, thinning.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET cs_ext.now = '2026-03-01 06:00+01';
SELECT * FROM no_plan();
\ir ../lib/seed.sql

CREATE TABLE account (id text PRIMARY KEY, created_at timestamptz);
CREATE TABLE contract (account_id text, start_at timestamptz, end_at timestamptz, mrr numeric);
CREATE INDEX ON contract (account_id);
CREATE TABLE answer (account_id text, at timestamptz, kind text, score numeric);
CREATE INDEX ON answer (account_id);
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL) \g /dev/null
SELECT count(*) FROM cs.add_source('account', 'customer', 'account', '{"customer_id": "id", "created_at": "created_at"}') \g /dev/null
SELECT count(*) FROM cs.add_source('contract', 'subscription', 'contract', '{"customer_id": "account_id", "start_at": "start_at", "end_at": "end_at", "mrr": "mrr"}') \g /dev/null
SELECT count(*) FROM cs.add_source('answer', 'survey', 'answer', '{"customer_id": "account_id", "at": "at", "kind": "kind", "score": "score"}') \g /dev/null

-- m1 to m6: the newest answer of that kind of the last two days: values come and go.
INSERT INTO cs.metric (name, source, expression)
SELECT 'm' || k, 'survey', format('(array_agg(score ORDER BY at DESC) FILTER (WHERE kind = %L AND at >= as_of_day - 2))[1]', 'm' || k) FROM generate_series(1, 6) k;
INSERT INTO cs.metric (name, source, expression) VALUES ('mrr', 'ledger', 'mrr');
INSERT INTO cs.dimension (name, fallback) VALUES ('size', 'small');
INSERT INTO cs.segment (dimension, name, rule) VALUES ('size', 'large', 'mrr >= 1000');
INSERT INTO cs.scorecard (name, segment, min_coverage) VALUES ('large', 'size:large', 0), ('standard', NULL, 0.1);

INSERT INTO account SELECT 'c' || c, '2026-01-01' FROM generate_series(1, 16) c;
INSERT INTO contract SELECT 'c' || c, '2026-01-01', NULL, 100 FROM generate_series(1, 16) c;
-- some are large for some of the days, one leaves
INSERT INTO contract SELECT 'c' || c, d, d + interval '2 days', 5000 FROM generate_series(1, 16) c, LATERAL (SELECT timestamptz '2026-03-01 03:00+01' + floor(random() * 6) * interval '1 day' + c * interval '0' AS d) x;
UPDATE contract SET end_at = '2026-03-05' WHERE account_id = 'c16';

CREATE FUNCTION pg_temp.pick(words text[]) RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT words[1 + floor(random() * cardinality(words))::int] $$;
-- Other measures, in other groups, with other curves, weights and policies.
CREATE FUNCTION pg_temp.rewrite(card text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	groups text[] := (ARRAY['g1', 'g2'])[1:floor(random() * 3)::int];
	kind text; policy text;
BEGIN
	DELETE FROM cs.measure WHERE scorecard = card;
	DELETE FROM cs.measure_group WHERE scorecard = card;
	DELETE FROM cs.cap WHERE scorecard = card;
	INSERT INTO cs.cap (scorecard, rule, at_most) SELECT card, 'm' || ceil(random() * 6) || ' > 0', 60 * random() WHERE random() < 0.7;
	UPDATE cs.scorecard SET combine = pg_temp.pick('{mean,mean,min}'), red_below = 30 + 20 * random(), green_from = 60 + 20 * random() WHERE name = card;
	INSERT INTO cs.measure_group (scorecard, name, weight, combine) SELECT card, g, 1 + 50 * random(), pg_temp.pick('{mean,mean,min}') FROM unnest(groups) g;
	FOR k IN 1 .. 2 + floor(random() * 5)::int LOOP
		kind := pg_temp.pick('{linear,linear,bounded,half_life,flag}');
		policy := pg_temp.pick('{reweight,reweight,redistribute,zero,neutral}');
		INSERT INTO cs.measure (scorecard, name, metric, measure_group, weight, curve, worst, best, half_life_days, missing, missing_points)
		VALUES (card, 'x' || k, 'm' || k, CASE WHEN random() < 0.7 THEN groups[1 + floor(random() * cardinality(groups))::int] END, 0.1 + 100 * random(), kind,
			CASE WHEN kind IN ('linear', 'bounded') THEN -10 * random() - 1 END, CASE WHEN kind IN ('linear', 'bounded') THEN 10 * random() + 1 END,
			CASE kind WHEN 'half_life' THEN 1 + 20 * random() END, policy, CASE policy WHEN 'neutral' THEN 100 * random() END);
	END LOOP;
END $$;
-- What happens in the morning of a day.
CREATE FUNCTION pg_temp.morning(day timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	c text; what text;
BEGIN
	PERFORM pg_temp.rewrite(card) FROM unnest('{standard,large}'::text[]) card WHERE day IN ('2026-03-01 00:00+01', '2026-03-04 00:00+01', '2026-03-06 00:00+01') OR random() < 0.4;
	INSERT INTO answer SELECT a.id, day + interval '5 hours', 'm' || k, round((random() * 30 - 15)::numeric, 3) FROM account a, generate_series(1, 6) k WHERE random() < 0.4;
	FOR c IN SELECT id FROM account WHERE day > '2026-03-01 00:00+01' AND random() < 0.15 LOOP
		what := pg_temp.pick('{value,delta,band}');
		PERFORM cs.override_health(c, value => CASE what WHEN 'value' THEN 100 * random() END, delta => CASE what WHEN 'delta' THEN 60 * random() - 30 END,
			band => CASE what WHEN 'band' THEN 'red' END, reason => 'at random', expires_at => day + interval '1 day' * (1 + 3 * random()));
	END LOOP;
END $$;
\o /dev/null
SELECT s FROM generate_series(1, 8) n, LATERAL (SELECT format('2026-03-%s 00:00+01', lpad(n::text, 2, '0')) AS day) d, LATERAL (VALUES
	(1, format('SET cs_ext.now = %L', replace(day, '00:00', '05:30'))), (2, format('SELECT pg_temp.morning(%L)', day)), (3, format('SET cs_ext.now = %L', replace(day, '00:00', '06:00'))),
	(4, 'CALL cs.refresh()'), (5, format('SELECT cs_internal.take_snapshot(%L)', day))) v (place, s) ORDER BY n, place \gexec
\o

-- ---- differences -------------------------------------------------------------------
CREATE TEMPORARY TABLE tried AS
SELECT p.id, p.t1, p.t2, cs.health_score(p.id, p.t1) AS s1, cs.health_score(p.id, p.t2) AS s2, d.*
FROM (SELECT a.id, timestamptz '2026-03-01 00:00+01' + x * interval '1 day' AS t1, CASE WHEN y < 8 THEN timestamptz '2026-03-01 00:00+01' + y * interval '1 day' END AS t2
		FROM account a, generate_series(0, 6) x, generate_series(1, 8) y WHERE x < y AND random() < 0.2) p,
	LATERAL (SELECT count(*) AS parts, sum(change) AS forth, sum(change ORDER BY change DESC) AS back, bool_or(part = 'no score') AS no_score, array_agg(DISTINCT part) AS kinds,
		bool_or(explanation IS NULL OR explanation ~ '^:') AS mute, bool_or(change * 4294967296 <> floor(change * 4294967296)) AS off_grid FROM cs.health_diff(p.id, p.t1, p.t2)) d;
UPDATE tried SET s2 = cs.health_score(id) WHERE t2 IS NULL;
SELECT is_empty('SELECT * FROM tried WHERE s1 IS NOT NULL AND s2 IS NOT NULL AND (forth IS DISTINCT FROM s2 - s1 OR back IS DISTINCT FROM forth OR no_score)', 'the parts add exactly to the difference of the two stored scores, in any order');
SELECT is_empty('SELECT * FROM tried WHERE (s1 IS NULL OR s2 IS NULL) AND NOT (no_score AND parts = 1 AND forth IS NULL)', 'without a score at one end there is one row that says so');
SELECT is_empty('SELECT * FROM tried WHERE mute OR off_grid', 'each part says what it is and lies on the grid');
SELECT cmp_ok(count(*) FILTER (WHERE s1 IS NOT NULL AND s2 IS NOT NULL), '>=', 30::bigint, 'scores at both ends were met often enough') FROM tried;
SELECT ok(array_agg(DISTINCT k) @> '{value,missing,definition,scorecard,cap,override}', 'and every kind of part: ' || string_agg(DISTINCT k, ', ')) FROM tried, unnest(kinds) k;
SELECT is_empty($$SELECT * FROM cs.health_diff('nobody', '2026-03-02')$$, 'health_diff of an unknown customer');
SELECT throws_ok($$SELECT * FROM cs.health_diff('c1', '2026-03-03', '2026-03-03')$$, '22023', NULL, 'health_diff of nothing');
SELECT results_eq($$SELECT * FROM cs.health_diff('c1', date '2026-03-02', date '2026-03-06')$$, $$SELECT * FROM cs.health_diff('c1', '2026-03-02', '2026-03-06 00:00')$$, 'since and until in other forms');

-- ---- the past recomputed ---------------------------------------------------------------
SELECT is_empty($$SELECT c.id, r.* FROM account c, cs.health_restatement(c.id) r WHERE NOT r.same$$, 'every stored score recomputed at its instant, under its version, is the same bit for bit');
SELECT cmp_ok(count(*), '>', 60::bigint, 'of many') FROM account c, cs.health_restatement(c.id) r WHERE r.stored IS NOT NULL AND r.same;
CREATE TEMPORARY TABLE kept AS SELECT * FROM cs_internal.health_history;
CREATE TEMPORARY TABLE kept_values AS SELECT * FROM cs_internal.metric_history;
-- facts corrected: the first answers of half of them were others
DELETE FROM answer WHERE substr(account_id, 2)::int <= 8 AND at = '2026-03-01 05:00+01';
INSERT INTO answer SELECT 'c' || c, '2026-03-01 05:10+01', 'm' || k, CASE WHEN (k + c) % 2 = 0 THEN 0.9 ELSE -0.9 END FROM generate_series(1, 8) c, generate_series(1, 6) k;
CALL cs.refresh();
SELECT ok(bool_or(NOT same), 'where a fact was corrected, both are shown') FROM account a, cs.health_restatement(a.id, '2026-03-02', '2026-03-04');
SELECT results_eq($$SELECT as_of, stored, scorecard, version FROM cs.health_restatement('c1')$$,
	$$SELECT as_of, score, scorecard, version FROM cs.health_history WHERE customer_id = 'c1' AND basis = 'stored' ORDER BY 1$$, 'beside what was stored');
SELECT is_empty($$SELECT c.id, r.* FROM account c, cs.health_restatement(c.id) r WHERE NOT r.same AND substr(c.id, 2)::int > 8$$, 'and nobody else has changed');

-- ---- backfill ------------------------------------------------------------------------------
CALL cs.backfill_health('2026-02-20', '2026-03-05', '1 day');
SELECT is_empty($$SELECT * FROM kept EXCEPT SELECT * FROM cs_internal.health_history$$, 'stored rows are as they were');
SELECT is_empty($$SELECT * FROM kept_values EXCEPT SELECT * FROM cs_internal.metric_history$$, 'and the values kept with them');
SELECT results_eq($$SELECT basis, min(as_of), max(as_of), count(DISTINCT as_of) FROM cs.health_history WHERE as_of < '2026-03-05 00:00+01' AND extract(hour FROM as_of AT TIME ZONE 'Europe/Berlin') = 0 GROUP BY 1 ORDER BY 1$$,
	$$VALUES ('recomputed', '2026-02-20 00:00+01'::timestamptz, '2026-02-28 00:00+01'::timestamptz, 9::bigint), ('stored', '2026-03-01 00:00+01', '2026-03-04 00:00+01', 4)$$, 'the days before anything was stored are filled in');
CREATE TEMPORARY TABLE filled AS SELECT * FROM cs_internal.health_history;
CALL cs.backfill_health('2026-02-20', '2026-03-05', '1 day');
SELECT set_eq('SELECT * FROM cs_internal.health_history', 'SELECT * FROM filled', 'a second run changes nothing');
SELECT is_empty($$SELECT * FROM cs_internal.health_history h WHERE basis = 'recomputed' AND NOT EXISTS (SELECT FROM cs_internal.metric_history m WHERE m.customer_id = h.customer_id AND m.as_of = h.as_of)$$, 'metric values are filled in with it');
SELECT is_empty($$SELECT h.customer_id, h.as_of, h.score, cs.health_recompute(h.customer_id, h.as_of) FROM cs.health_history h
	WHERE h.basis = 'recomputed' AND h.score IS DISTINCT FROM cs.health_recompute(h.customer_id, h.as_of)$$, 'what is filled in is what health_recompute() gives');
INSERT INTO answer SELECT id, '2026-02-21 12:00+01', 'm' || k, 0.5 FROM account, generate_series(1, 6) k;
CALL cs.refresh();
CALL cs.backfill_health(date '2026-02-20', date '2026-03-05', '1 day', again => true);
SELECT ok((SELECT count(*) FROM cs_internal.health_history h JOIN filled f USING (customer_id, as_of, basis) WHERE h.score IS DISTINCT FROM f.score) > 0, 'again => true takes the place of what was recomputed');
SELECT is_empty($$SELECT * FROM kept EXCEPT SELECT * FROM cs_internal.health_history$$, 'not of what was stored');
SELECT is(cs.health_score('c1', '2026-02-25'), NULL, 'health_score reads only what was stored');
SELECT throws_ok($$CALL cs.backfill_health('2026-02-20', '2026-03-05', '1 hour')$$, '2D000', NULL, 'backfill_health inside a transaction');
SELECT throws_ok($$SELECT cs_internal.backfill_bounds('2026-02-20', '2026-03-05', '1 hour')$$, '22023', NULL, 'bounds are days');
SELECT throws_ok($$SELECT cs_internal.backfill_bounds('2027-02-20', NULL, '1 day')$$, '22023', NULL, 'and lie in the past');
SELECT is((SELECT count(*) FROM unnest(cs_internal.backfill_bounds('2025-01-31', '2026-01-31', '1 month'))), 12::bigint, 'monthly bounds');

-- ---- trend, disagreement ------------------------------------------------------------------------
SELECT is_empty($$SELECT c.id, t.*, cs.health_score(c.id), cs.health_score(c.id, '2026-03-05') FROM account c, cs.health_trend(c.id, 3) t
	WHERE t.score IS DISTINCT FROM cs.health_score(c.id) OR t.score_before IS DISTINCT FROM cs.health_score(c.id, '2026-03-05') OR t.change IS DISTINCT FROM t.score - t.score_before OR t.basis_before <> 'stored'$$,
	'trend: the newest score against that stored three days before');
SELECT is((SELECT DISTINCT basis_before FROM account c, cs.health_trend(c.id, 10)), 'recomputed', 'before anything was stored: against what was filled in');
SELECT is_empty($$SELECT h.customer_id, h.days_in_band FROM cs.customer_health h WHERE h.days_in_band IS DISTINCT FROM (timestamptz '2026-03-08' AT TIME ZONE 'Europe/Berlin')::date - (h.band_since AT TIME ZONE 'Europe/Berlin')::date AND h.band_since IS NOT NULL$$, 'days in band');
SELECT is_empty($$SELECT h.customer_id FROM cs.customer_health h WHERE h.trend_30d IS DISTINCT FROM h.health_score - h.score_30d_ago$$, 'the view says the same difference');
\o /dev/null
SELECT cs.override_health('c2', value => 1, reason => 'they told us', expires_at => '2026-03-20');
SELECT cs.override_health('c3', band => 'red', reason => 'they told us', expires_at => '2026-03-20');
\o
CALL cs.refresh();
SELECT results_eq($$SELECT d.customer_id COLLATE "default", d.health_score, d.automatic_score, d.difference, d.band, d.reason FROM cs.score_disagreement d WHERE d.customer_id IN ('c2', 'c3') ORDER BY 1$$,
	$$SELECT h.customer_id COLLATE "default", h.health_score, h.automatic_score, h.health_score - h.automatic_score, 'red', 'they told us' FROM cs.customer_health h JOIN cs_internal.health i USING (customer_id)
	WHERE customer_id = 'c2' OR customer_id = 'c3' AND i.auto_band IS DISTINCT FROM 'red' ORDER BY 1$$, 'overrides beside what they differ from');
INSERT INTO account VALUES ('silent', '2026-01-01');
INSERT INTO contract VALUES ('silent', '2026-01-01', NULL, 100);
UPDATE cs.measure SET missing = 'reweight', missing_points = NULL WHERE scorecard = 'standard';
CALL cs.refresh();
SELECT cs.override_health('silent', delta => 5, reason => 'a good feeling', expires_at => '2026-03-20') \g /dev/null
CALL cs.refresh();
SELECT is((SELECT w.score FROM cs_internal.shown_health('silent', cs_internal.now(), 'standard', NULL, NULL) w), NULL, 'a delta does not make a score where there is none');
SELECT is(cs.health_score('silent'), NULL, 'nor in the refresh');
SELECT is_empty($$SELECT * FROM cs.score_disagreement WHERE health_score IS NOT DISTINCT FROM automatic_score AND band IS NOT DISTINCT FROM automatic_band$$, 'and none that agrees');

-- ---- before it counts --------------------------------------------------------------------------------
SELECT is_empty($$SELECT * FROM cs.preview_scorecard('standard') WHERE score_now IS DISTINCT FROM score_new OR band_now IS DISTINCT FROM band_new$$, 'unchanged: nobody moves');
SELECT is((SELECT count(*) FROM cs.preview_scorecard('standard')), (SELECT count(*) FROM cs_internal.state WHERE scorecard = 'standard'), 'everybody it scores is there');
BEGIN;
UPDATE cs.measure SET weight = weight * CASE WHEN name = 'x1' THEN 7 ELSE 1 END WHERE scorecard = 'standard';
UPDATE cs.scorecard SET red_below = 10, green_from = 20 WHERE name = 'standard';
CREATE TEMPORARY TABLE foreseen AS SELECT * FROM cs.preview_scorecard('standard');
ROLLBACK;
BEGIN;
UPDATE cs.measure SET weight = weight * CASE WHEN name = 'x1' THEN 7 ELSE 1 END WHERE scorecard = 'standard';
UPDATE cs.scorecard SET red_below = 10, green_from = 20 WHERE name = 'standard';
CREATE TEMPORARY TABLE foreseen AS SELECT * FROM cs.preview_scorecard('standard');
COMMIT;
CALL cs.refresh();
SELECT set_eq('SELECT customer_id, score_new, band_new FROM foreseen',
	$$SELECT s.customer_id, s.score, cs_internal.fresh_band(s.scorecard, NULL, s.score) FROM cs_internal.state s JOIN foreseen USING (customer_id)$$, 'what was foreseen is what the refresh makes, and a rollback left nothing');
SELECT throws_ok($$SELECT * FROM cs.preview_scorecard('standrad')$$, '42704', 'scorecard "standrad" does not exist', 'preview of an unknown scorecard');
SELECT is_empty($$SELECT x.* FROM cs.compare_scorecards('standard', 'large') x JOIN cs_internal.state s USING (customer_id)
	WHERE (s.scorecard = 'standard' AND x.score_a IS DISTINCT FROM s.score) OR (s.scorecard = 'large' AND x.score_b IS DISTINCT FROM s.score) OR x.change IS DISTINCT FROM x.score_b - x.score_a$$,
	'compare_scorecards gives each customer both scores');
SELECT is((SELECT count(*) FROM cs.compare_scorecards('standard', 'large')), (SELECT count(*) FROM cs_internal.state WHERE active), 'every customer, where one of them is for all');

-- ---- thinning ----------------------------------------------------------------------------------------------
-- Three years of days, a change of band every 40 days.
DELETE FROM cs_internal.health_history;
DELETE FROM cs_internal.metric_history;
INSERT INTO cs_internal.health_history (customer_id, as_of, score, band, basis, computed_at)
SELECT 'c1', (date '2023-03-08' + d)::timestamp AT TIME ZONE 'Europe/Berlin', 50, CASE WHEN d / 40 % 2 = 0 THEN 'red' ELSE 'green' END, b, now()
FROM generate_series(0, 1095) d, unnest('{stored,recomputed}'::text[]) b;
INSERT INTO cs_internal.metric_history (customer_id, as_of, "values", segments, computed_at) SELECT customer_id, as_of, '{1}', '{}', now() FROM cs_internal.health_history WHERE basis = 'stored';
CREATE TEMPORARY TABLE full_history AS SELECT *, band IS DISTINCT FROM lag(band) OVER (PARTITION BY basis ORDER BY as_of) AS change, (as_of AT TIME ZONE 'Europe/Berlin')::date AS day FROM cs_internal.health_history;
SELECT cmp_ok(cs_internal.retention(), '>', 0::bigint, 'retention removes');
SELECT results_eq($$SELECT basis, as_of FROM cs_internal.health_history ORDER BY 1, 2$$,
	$$SELECT basis, as_of FROM full_history WHERE change OR day >= date '2026-03-08' - 92 OR extract(day FROM day) = 1 OR (extract(isodow FROM day) = 1 AND day >= date '2026-03-08' - 730) ORDER BY 1, 2$$,
	'kept: 92 days, Mondays of two years, firsts of months, and every change of band');
SELECT results_eq($$SELECT as_of FROM cs_internal.metric_history ORDER BY 1$$,
	$$SELECT as_of FROM full_history WHERE basis = 'stored' AND (day >= date '2026-03-08' - 92 OR extract(day FROM day) = 1 OR (extract(isodow FROM day) = 1 AND day >= date '2026-03-08' - 730)) ORDER BY 1$$, 'values likewise');
CREATE TEMPORARY TABLE thinned AS SELECT * FROM cs_internal.health_history;
SELECT is(cs_internal.retention(), 0::bigint, 'a second time there is nothing to remove');
SELECT set_eq('SELECT * FROM cs_internal.health_history', 'SELECT * FROM thinned', 'and nothing is');

SELECT * FROM finish();
