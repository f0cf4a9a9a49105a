# health_score(id) by pgbench, beside a prepared look-up of one column by primary
# key, in a table of as many rows.
customers=$(sized 1000000)

database
say "$customers customers"
sql -v customers="$customers" >/dev/null <<'SQL'
CREATE SCHEMA app;
CREATE TABLE app.subscription AS SELECT c AS customer_id, 100 + c % 900 AS mrr, date '2024-01-01' + c % 400 AS start_on FROM generate_series(1, :customers) c;
CREATE INDEX ON app.subscription (customer_id);
VACUUM ANALYZE;
ALTER DATABASE part SET cs_ext.now = '2025-07-01 06:00Z';
SQL
sql >/dev/null <<'SQL'
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL);
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO cs_ext_run;
INSERT INTO cs.metric (name, source, expression) VALUES ('mrr', 'ledger', 'mrr');
INSERT INTO cs.scorecard (name) VALUES ('card');
INSERT INTO cs.measure (scorecard, name, metric, curve, worst, best) VALUES ('card', 'mrr', 'mrr', 'linear', 0, 1000);
SELECT cs.add_source('subscriptions', 'subscription', 'app.subscription', '{"customer_id": "customer_id", "mrr": "mrr", "start_at": "start_on"}');
CALL cs.refresh();
CREATE TABLE app.plain AS SELECT customer_id, health_score FROM cs.customer_health;
ALTER TABLE app.plain ADD PRIMARY KEY (customer_id);
VACUUM ANALYZE;
SQL

printf '\\set c random(1, %s)\nSELECT cs.health_score(:c::text);\n' "$customers" >"$BENCH_WORK/tmp/score.sql"
printf '\\set c random(1, %s)\nSELECT health_score FROM app.plain WHERE customer_id = :c::text;\n' "$customers" >"$BENCH_WORK/tmp/plain.sql"
seconds=$([ -n "$BENCH_QUICK" ] && echo 2 || echo 10)
rate() { "$PGBIN/pgbench" -n -M prepared -c 2 -j 2 -T "$seconds" -f "$1" 2>/dev/null | sed -n 's/^tps = \([0-9]*\).*/\1/p'; }
rate "$BENCH_WORK/tmp/score.sql" >/dev/null
rate "$BENCH_WORK/tmp/plain.sql" >/dev/null
# by turns, for what else the machine does to fall on both
score=0 plain=0
for turn in 1 2 3; do
	score=$((score + $(rate "$BENCH_WORK/tmp/score.sql")))
	plain=$((plain + $(rate "$BENCH_WORK/tmp/plain.sql")))
done
row "health_score(id), $customers customers / prepared primary-key look-up (pgbench, 2 clients)" "$((score / 3)) /s" "$((plain / 3)) /s" "$(ratio "$score" "$plain") x its rate" ">= 0.8 x"
