-- Definitions of scorecards that are refused: each with its SQLSTATE, naming
-- the thing, with a hint; and that nothing of them stays.
\set ON_ERROR_STOP 1
\pset format unaligned
\pset tuples_only on
SET client_min_messages = warning;
BEGIN;
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => 'saas_basic') \g /dev/null

CREATE FUNCTION pg_temp.try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	code text; message text; detail text; hint text;
BEGIN
	BEGIN
		EXECUTE statement;
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		RETURN concat_ws(E'\n', format('%s: %s', code, message), '  DETAIL: ' || nullif(detail, ''), '  HINT: ' || nullif(hint, ''));
	END;
	RETURN 'accepted';
END $$;
-- The values of cs.measure as written: one measure added to the standard scorecard.
CREATE FUNCTION pg_temp.measure(columns text, vals text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.try(format('INSERT INTO cs.measure (scorecard, name, %s) VALUES (''default'', ''m'', %s)', columns, vals))
$$;
SELECT md5(string_agg(x, ',' ORDER BY x)) AS before FROM (SELECT c::text AS x FROM cs.scorecard c UNION ALL SELECT m::text FROM cs.measure m
	UNION ALL SELECT g::text FROM cs.measure_group g UNION ALL SELECT count(*)::text FROM cs_internal.definition_history) y \gset

\echo -- scorecard
SELECT pg_temp.try($$INSERT INTO cs.scorecard (name, red_below, green_from) VALUES ('c', 80, 60)$$);
SELECT pg_temp.try($$INSERT INTO cs.scorecard (name, red_below) VALUES ('c', -1)$$);
SELECT pg_temp.try($$INSERT INTO cs.scorecard (name, green_from) VALUES ('c', 'NaN')$$);
SELECT pg_temp.try($$INSERT INTO cs.scorecard (name, hysteresis) VALUES ('c', -2)$$);
SELECT pg_temp.try($$INSERT INTO cs.scorecard (name, min_coverage) VALUES ('c', 50)$$);
SELECT pg_temp.try($$INSERT INTO cs.scorecard (name, combine) VALUES ('c', 'maen')$$);
SELECT pg_temp.try($$INSERT INTO cs.scorecard (name, edge_closed) VALUES ('c', 'left')$$);
SELECT pg_temp.try($$INSERT INTO cs.scorecard (name) VALUES (' ')$$);
SELECT pg_temp.try($$INSERT INTO cs.scorecard (name, segment) VALUES ('c', 'tier:enterprize')$$);
SELECT pg_temp.try($$INSERT INTO cs.scorecard (name, segment) VALUES ('c', 'teir:enterprise')$$);
SELECT pg_temp.try($$INSERT INTO cs.scorecard (name, segment) VALUES ('c', 'whatever')$$);
SAVEPOINT more;
SELECT pg_temp.try($$INSERT INTO cs.scorecard (name, segment) VALUES ('c', 'low')$$);
INSERT INTO cs.dimension (name, fallback) VALUES ('other_touch', 'none');
INSERT INTO cs.segment (dimension, name, rule) VALUES ('other_touch', 'low', 'mrr < 10');
SELECT pg_temp.try($$INSERT INTO cs.scorecard (name, segment) VALUES ('d', 'low')$$);
INSERT INTO cs.dimension (name, fallback) VALUES ('mood', 'fine');
INSERT INTO cs.segment (dimension, name, rule) VALUES ('mood', 'bad', 'health < 30');
SELECT pg_temp.try($$INSERT INTO cs.scorecard (name, segment) VALUES ('d', 'mood:bad')$$);
ROLLBACK TO more;

\echo -- group
SELECT pg_temp.try($$INSERT INTO cs.measure_group (scorecard, name, weight) VALUES ('default', 'g', -1)$$);
SELECT pg_temp.try($$INSERT INTO cs.measure_group (scorecard, name, weight) VALUES ('default', 'g', 'Infinity')$$);
SELECT pg_temp.try($$INSERT INTO cs.measure_group (scorecard, name, combine) VALUES ('default', 'g', 'max')$$);
SELECT pg_temp.try($$INSERT INTO cs.measure_group (scorecard, name) VALUES ('nowhere', 'g')$$);

\echo -- measure: metric, group, weight
SELECT pg_temp.measure('metric, worst, best', $$'open_tikets', 5, 0$$);
SELECT pg_temp.measure('metric, worst, best', $$'qqqqqqqq', 5, 0$$);
SELECT pg_temp.measure('metric, measure_group, worst, best', $$'seats', 'nowhere', 5, 0$$);
SELECT pg_temp.measure('metric, weight, worst, best', $$'seats', -1, 0, 5$$);
SELECT pg_temp.measure('metric, weight, worst, best', $$'seats', 'NaN', 0, 5$$);

\echo -- measure: curve
SELECT pg_temp.measure('metric, worst, best', $$'seats', 5, 5$$);
SELECT pg_temp.measure('metric, worst', $$'seats', 5$$);
SELECT pg_temp.measure('metric, worst, best', $$'seats', 0, 'Infinity'$$);
SELECT pg_temp.measure('metric, curve, worst, best', $$'seats', 'liner', 0, 5$$);
SELECT pg_temp.measure('metric, curve', $$'seats', 'percentile'$$);
SELECT pg_temp.measure('metric, curve, within', $$'seats', 'percentile', 'teir'$$);
SELECT pg_temp.measure('metric, curve, within, worst', $$'seats', 'percentile', 'tier', 3$$);
SELECT pg_temp.measure('metric, curve, within, min_n', $$'seats', 'percentile', 'tier', 0$$);
SELECT pg_temp.measure('metric, curve, worst, best', $$'seats', 'logistic', 1, 1$$);
SELECT pg_temp.measure('metric, curve, half_life_days', $$'seats', 'logistic', 1$$);
SELECT pg_temp.measure('metric, curve, within, worst, best', $$'seats', 'linear', 'tier', 0, 5$$);
SAVEPOINT late;
INSERT INTO cs.dimension (name, fallback) VALUES ('mood', 'fine');
INSERT INTO cs.segment (dimension, name, rule) VALUES ('mood', 'bad', 'health < 30');
SELECT pg_temp.measure('metric, curve, within', $$'seats', 'percentile', 'mood'$$);
ROLLBACK TO late;
SELECT pg_temp.measure('metric, worst, best, half_life_days', $$'seats', 0, 5, 3$$);
SELECT pg_temp.measure('metric, curve, half_life_days', $$'seats', 'half_life', 0$$);
SELECT pg_temp.measure('metric, curve, worst, best', $$'seats', 'flag', 0, 5$$);
SELECT pg_temp.measure('metric, curve', $$'seats', 'steps'$$);
SELECT pg_temp.measure('metric, curve, steps', $$'seats', 'steps', '[]'$$);
SELECT pg_temp.measure('metric, curve, steps', $$'seats', 'steps', '[{"to":10,"points":0},{"to":5,"points":50},{"points":100}]'$$);
SELECT pg_temp.measure('metric, curve, steps', $$'seats', 'steps', '[{"to":10,"points":0},{"to":50,"points":60}]'$$);
SELECT pg_temp.measure('metric, curve, steps', $$'seats', 'steps', '[{"to":10,"points":0},{"points":160}]'$$);
SELECT pg_temp.measure('metric, curve, steps', $$'seats', 'steps', '[{"to":10,"points":"0"},{"points":60}]'$$);
SELECT pg_temp.measure('metric, curve, steps', $$'seats', 'steps', '[{"points":10},{"points":60}]'$$);
SELECT pg_temp.measure('metric, curve, steps', $$'seats', 'steps', '[{"till":10,"points":10},{"points":60}]'$$);

\echo -- measure: missing
SELECT pg_temp.measure('metric, worst, best, missing', $$'seats', 0, 5, 'reweigth'$$);
SELECT pg_temp.measure('metric, worst, best, missing', $$'seats', 0, 5, 'carry'$$);
SELECT pg_temp.measure('metric, worst, best, missing', $$'seats', 0, 5, 'neutral'$$);
SELECT pg_temp.measure('metric, worst, best, missing_points', $$'seats', 0, 5, 50$$);
SELECT pg_temp.measure('metric, worst, best, missing, missing_points', $$'seats', 0, 5, 'neutral', 101$$);
SELECT pg_temp.measure('metric, worst, best, max_age_days', $$'seats', 0, 5, 30$$);
SELECT pg_temp.measure('metric, worst, best, missing, max_age_days', $$'seats', 0, 5, 'carry', 0$$);

\echo -- cap
SELECT pg_temp.try($$INSERT INTO cs.cap (scorecard, rule, at_most) VALUES ('default', 'open_escalations > 0', 101)$$);
SELECT pg_temp.try($$INSERT INTO cs.cap (scorecard, rule, at_most) VALUES ('default', 'open_escalations > 0', 'NaN')$$);
SELECT pg_temp.try($$INSERT INTO cs.cap (scorecard, rule, at_most) VALUES ('default', 'open_escalation > 0', 49)$$);
SELECT pg_temp.try($$INSERT INTO cs.cap (scorecard, rule, at_most) VALUES ('default', 'open_escalations', 49)$$);
SELECT pg_temp.try($$INSERT INTO cs.cap (scorecard, rule, at_most) VALUES ('default', 'open_escalations >', 49)$$);
SELECT pg_temp.try($$INSERT INTO cs.cap (scorecard, rule, at_most) VALUES ('default', 'random() < 0.5', 49)$$);
SELECT pg_temp.try($$INSERT INTO cs.cap (scorecard, rule, at_most) VALUES ('default', 'health < 30', 49)$$);
SELECT pg_temp.try($$INSERT INTO cs.cap (scorecard, rule, at_most) VALUES ('nowhere', 'mrr < 30', 49)$$);

\echo -- what would leave nothing that counts, or nothing to refer to
SELECT pg_temp.try($$UPDATE cs.measure SET weight = 0 WHERE scorecard = 'default'$$);
SELECT pg_temp.try($$DO 'BEGIN
	INSERT INTO cs.measure_group (scorecard, name) VALUES (''default'', ''g'');
	UPDATE cs.measure SET measure_group = ''g'' WHERE scorecard = ''default'';
	DELETE FROM cs.measure_group WHERE name = ''g'';
END'$$);
SELECT pg_temp.try($$DO 'BEGIN
	INSERT INTO cs.measure_group (scorecard, name) VALUES (''default'', ''g'');
	UPDATE cs.measure SET measure_group = ''g'' WHERE scorecard = ''default'';
	UPDATE cs.measure_group SET weight = 0;
END'$$);

SELECT 'nothing changed: ' || (:'before' = md5(string_agg(x, ',' ORDER BY x)))::text FROM (SELECT c::text AS x FROM cs.scorecard c UNION ALL SELECT m::text FROM cs.measure m
	UNION ALL SELECT g::text FROM cs.measure_group g UNION ALL SELECT count(*)::text FROM cs_internal.definition_history) y;

\echo -- accepted
SELECT pg_temp.measure('metric, curve, steps', $$'seats', 'steps', '[{"to":10,"points":0},{"to":50,"points":60},{"points":100}]'$$);
SELECT pg_temp.try($$UPDATE cs.measure SET weight = 0 WHERE name <> 'm'$$);
SELECT pg_temp.try($$DELETE FROM cs.measure WHERE name = 'm'$$);
SELECT pg_temp.try($$UPDATE cs.scorecard SET name = 'renamed' WHERE name = 'default'$$);
SELECT pg_temp.try($$DELETE FROM cs.scorecard$$);
SELECT count(*) FROM cs.measure;
ROLLBACK;
