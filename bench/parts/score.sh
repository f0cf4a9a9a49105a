# One customer: its score read by many clients, and refreshed in a transaction.
customers=$(sized 200000)

database
sql -v customers="$customers" >/dev/null <<'SQL'
CREATE SCHEMA app;
CREATE TABLE app.subscription AS SELECT c AS customer_id, 100 + c % 900 AS mrr, date '2024-01-01' + c % 400 AS start_on, NULL::date AS end_on FROM generate_series(1, :customers) c;
CREATE TABLE app.event AS SELECT c AS customer_id, c * 20 + e % 20 AS user_id, timestamptz '2025-05-01 00:00Z' + (e * 4 + c % 4) * interval '1 day' AS at, 'event' || e % 9 AS name
	FROM generate_series(1, :customers) c, generate_series(1, 15) e;
CREATE INDEX ON app.subscription (customer_id);
CREATE INDEX ON app.event (customer_id, at);
VACUUM ANALYZE;
ALTER DATABASE part SET cs_ext.now = '2025-07-01 06:00Z';
SQL
sql >/dev/null <<'SQL'
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => 'saas_basic');
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO cs_ext_run;
SELECT cs.add_source('subscriptions', 'subscription', 'app.subscription', '{"customer_id": "customer_id", "mrr": "mrr", "start_at": "start_on", "end_at": "end_on"}');
SELECT cs.add_source('events', 'usage_event', 'app.event', '{"customer_id": "customer_id", "user_id": "user_id", "at": "at", "event": "name"}');
CALL cs.refresh();
CREATE TABLE app.plain AS SELECT customer_id, health_score FROM cs.customer_health;
ALTER TABLE app.plain ADD PRIMARY KEY (customer_id);
VACUUM ANALYZE;
SQL

one=$(took "SELECT cs.refresh_customer('7')" "SELECT cs.refresh_customer('8')" "SELECT cs.refresh_customer('9')")
row "one customer refreshed inside a transaction, warm session" "$one ms" "" "" "<= 5 ms"

printf '\\set c random(1, %s)\nSELECT cs.health_score(:c::text);\n' "$customers" >"$BENCH_WORK/tmp/score.sql"
printf '\\set c random(1, %s)\nSELECT health_score FROM app.plain WHERE customer_id = :c::text;\n' "$customers" >"$BENCH_WORK/tmp/plain.sql"
rate() { "$PGBIN/pgbench" -n -M prepared -T $([ -n "$BENCH_QUICK" ] && echo 2 || echo 10) -f "$1" 2>/dev/null | sed -n 's/^tps = \([0-9]*\).*/\1/p'; }
score=$(rate "$BENCH_WORK/tmp/score.sql")
plain=$(rate "$BENCH_WORK/tmp/plain.sql")
row "health_score(id) / prepared primary-key lookup (pgbench, 1 client)" "$score /s" "$plain /s" "$(ratio "$score" "$plain") x its rate" ">= 0.8 x"
