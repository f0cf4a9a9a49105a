# Evaluate: a million customers, thirty metrics each, a scorecard of thirty
# measures; beside a plain UPDATE of as many rows of the same width.
#
# Ten metrics come from a source of kind other (one row per customer), six from
# the ledger, fourteen are formulas over them. All values change from one day to
# the next, so every customer's row of state is written. Phases are told apart by
# evaluating four days: without scorecard, with it, with alert rules beside it,
# and the snapshot that history takes.
customers=$(sized 1000000)

database
say "$customers customers"
sql -v customers="$customers" >/dev/null <<'SQL'
CREATE SCHEMA app;
CREATE TABLE app.subscription AS SELECT c AS customer_id, 100 + c % 900 AS mrr, 1 + c % 50 AS seats, date '2024-01-01' + c % 400 AS start_on, date '2025-08-01' + c % 300 AS renews_on
	FROM generate_series(1, :customers) c;
CREATE TABLE app.fact AS SELECT c AS customer_id, timestamptz '2025-06-01 00:00Z' + c % 1000 * interval '1 minute' AS at,
	c % 100 AS n0, c % 97 AS n1, c % 89 AS n2, c % 83 AS n3, c % 79 AS n4, c % 73 AS n5, c % 71 AS n6, c % 67 AS n7, c % 61 AS n8, c % 59 AS n9
	FROM generate_series(1, :customers) c;
CREATE INDEX ON app.subscription (customer_id);
CREATE INDEX ON app.fact (customer_id);
CREATE TABLE app.plain AS SELECT c::text COLLATE "C" AS customer_id, date '2025-07-01' AS as_of_day, 100.000000::numeric(20,6) AS mrr, true AS active, false AS in_trial, 10::numeric AS seats, 300 AS tenure_days,
	60 AS days_to_renewal, array_fill(c::float8, ARRAY[30]) AS "values", '{}'::jsonb AS segments, 'card' AS scorecard, 50.0::float8 AS score, 1.0::float8 AS coverage, NULL::text AS score_reason,
	NULL::jsonb AS health_inputs, timestamptz '2025-07-02 00:00Z' AS due_at, NULL::timestamptz AS ahead FROM generate_series(1, :customers) c;
ALTER TABLE app.plain ADD PRIMARY KEY (customer_id);
CREATE INDEX ON app.plain (due_at);
VACUUM ANALYZE;
ALTER DATABASE part SET cs_ext.now = '2025-07-01 06:00Z';
SQL
sql >/dev/null <<'SQL'
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL);
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO cs_ext_run;
SELECT cs.add_source('subscriptions', 'subscription', 'app.subscription', '{"customer_id": "customer_id", "mrr": "mrr", "seats": "seats", "start_at": "start_on", "renews_at": "renews_on"}');
SELECT cs.add_source('facts', 'other', 'app.fact', '{"customer_id": "customer_id", "at": "at", "x_n0": "n0", "x_n1": "n1", "x_n2": "n2", "x_n3": "n3", "x_n4": "n4", "x_n5": "n5", "x_n6": "n6", "x_n7": "n7", "x_n8": "n8", "x_n9": "n9"}');
-- a day more is another value: no two days are the same for anybody
INSERT INTO cs.metric (name, source, expression) SELECT 'fact' || i, 'facts', format('sum(x_n%s) + (as_of_day - date ''2025-01-01'')', i) FROM generate_series(0, 9) i;
INSERT INTO cs.metric (name, source, expression) VALUES ('mrr', 'ledger', 'mrr'), ('mrr_30d_ago', 'ledger', 'mrr_ago(30)'), ('tenure_days', 'ledger', 'tenure_days'), ('days_to_renewal', 'ledger', 'days_to_renewal'),
	('seats', 'ledger', 'seats'), ('mrr_per_seat', 'ledger', 'mrr / nullif(seats, 0)');
INSERT INTO cs.metric (name, source, expression) SELECT 'formula' || i, 'formula', format('fact%s * %s + tenure_days / 10', i % 10, 1 + i) FROM generate_series(0, 13) i;
CALL cs.refresh();
SQL
vacuum() { sql -c 'VACUUM ANALYZE' -c CHECKPOINT; }
on() { echo "SET cs_ext.now = '$1 06:00Z'"; }

vacuum
plain=$(took "UPDATE app.plain SET \"values\" = array_fill(1.5::float8, ARRAY[30]), as_of_day = as_of_day + 1, due_at = due_at + interval '1 day'")
sql -c 'DROP TABLE app.plain'
metrics=$(took "$(on 2025-07-02)" "CALL cs.refresh()")
sql >/dev/null <<'SQL'
SET cs_ext.now = '2025-07-02 06:00Z';
INSERT INTO cs.scorecard (name, min_coverage) VALUES ('card', 0);
INSERT INTO cs.measure (scorecard, name, metric, weight, curve, worst, best) SELECT 'card', name, name, 1, 'linear', 0, 1000 FROM cs.metric;
CALL cs.refresh();
SQL
vacuum
scored=$(took "$(on 2025-07-03)" "CALL cs.refresh()")
vacuum
snapshot=$(took "$(on 2025-07-03)" "SELECT cs_internal.take_snapshot('2025-07-03 00:00Z')")
sql >/dev/null <<'SQL'
SET cs_ext.now = '2025-07-03 06:00Z';
INSERT INTO cs.alert_rule (name, rule, severity) SELECT 'rule' || i, format('fact%s > 50 AND mrr < 0', i), 'low' FROM generate_series(0, 9) i;
CALL cs.refresh();
SQL
vacuum
alerts=$(took "$(on 2025-07-04)" "CALL cs.refresh()")
difference() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", a - b }'; }
slower "$customers customers x 30 metrics evaluated, without scorecard" "$metrics" "$plain" ""
slower "the same, scored by 30 measures, without history and alerts / plain UPDATE" "$scored" "$plain" "<= 2 x"
slower "  more for 10 alert rules" "$(difference "$alerts" "$scored")" "$plain" ""
slower "  history: the day's snapshot of all" "$snapshot" "$plain" ""
