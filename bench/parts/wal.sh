# One customer with 100,000 users and an event a second: what a refresh every ten
# seconds writes for an event, while the month grows.
users=$(sized 100000)
rounds=$([ -n "$BENCH_QUICK" ] && echo 10 || echo 100)

database
sql -v users="$users" >/dev/null <<'SQL'
CREATE SCHEMA app;
CREATE TABLE app.event (customer_id integer NOT NULL, user_id integer NOT NULL, at timestamptz NOT NULL, name text NOT NULL);
CREATE INDEX ON app.event (customer_id, at);
INSERT INTO app.event SELECT 1, e * 7919 % :users, timestamptz '2025-06-01 00:00Z' + e * interval '1 second', 'event' || e % 9 FROM generate_series(1, :users::bigint * 10) e;
VACUUM ANALYZE app.event;
ALTER DATABASE part SET cs_ext.now = '2025-06-29 00:00Z';
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL);
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO cs_ext_run;
SELECT cs.add_source('events', 'usage_event', 'app.event', '{"customer_id": "customer_id", "user_id": "user_id", "at": "at", "event": "name"}');
SQL
# in a session that has the database's clock
sql -c 'CALL cs.refresh()' -c 'CHECKPOINT'
size=$(sql -c "SELECT pg_column_size(usage) FROM cs_internal.usage_month WHERE month = '2025-06-01'")
wal() { sql -c "SELECT pg_current_wal_insert_lsn() - '0/0'"; }
written=0
for ((i = 0; i < rounds; i++)); do
	sql -c "INSERT INTO app.event SELECT 1, (random() * $users)::integer, timestamptz '2025-06-28 00:00Z' + ($i * 10 + e) * interval '1 second', 'event' || e % 9 FROM generate_series(0, 9) e"
	before=$(wal)
	sql -c "CALL cs.refresh()"
	written=$((written + $(wal) - before))
done
row "one customer with $users users, an event a second, refreshed every 10 s: WAL of refresh per event" "$((written / rounds / 10)) bytes" "$size bytes to write its month anew" "$(ratio $((written / rounds / 10)) "$size") of it" "bounded"
