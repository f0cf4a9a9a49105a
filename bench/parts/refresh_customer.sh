# One customer refreshed inside a transaction, in a warm session: the template's
# metrics, scorecard, segments and alert rules over subscriptions, usage and
# tickets. The median of the calls after the first twenty.
customers=$(sized 200000)
calls=200

database
say "$customers customers"
sql -v customers="$customers" >/dev/null <<'SQL'
CREATE SCHEMA app;
CREATE TABLE app.subscription AS SELECT c AS customer_id, 100 + c % 900 AS mrr, date '2024-01-01' + c % 400 AS start_on, NULL::date AS end_on FROM generate_series(1, :customers) c;
CREATE TABLE app.event AS SELECT c AS customer_id, c * 20 + e % 20 AS user_id, timestamptz '2025-05-01 00:00Z' + (e * 4 + c % 4) * interval '1 day' AS at, 'event' || e % 9 AS name
	FROM generate_series(1, :customers) c, generate_series(1, 15) e;
CREATE TABLE app.ticket AS SELECT c AS customer_id, timestamptz '2025-03-01 00:00Z' + c % 100 * interval '1 day' AS opened_at, CASE WHEN c % 3 > 0 THEN timestamptz '2025-03-03 00:00Z' + c % 100 * interval '1 day' END AS resolved_at
	FROM generate_series(1, :customers) c;
CREATE INDEX ON app.subscription (customer_id);
CREATE INDEX ON app.event (customer_id, at);
CREATE INDEX ON app.ticket (customer_id);
VACUUM ANALYZE;
ALTER DATABASE part SET cs_ext.now = '2025-07-01 06:00Z';
SQL
sql >/dev/null <<'SQL'
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => 'saas_basic');
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO cs_ext_run;
SELECT cs.add_source('subscriptions', 'subscription', 'app.subscription', '{"customer_id": "customer_id", "mrr": "mrr", "start_at": "start_on", "end_at": "end_on"}');
SELECT cs.add_source('events', 'usage_event', 'app.event', '{"customer_id": "customer_id", "user_id": "user_id", "at": "at", "event": "name"}');
SELECT cs.add_source('tickets', 'ticket', 'app.ticket', '{"customer_id": "customer_id", "opened_at": "opened_at", "resolved_at": "resolved_at"}');
CALL cs.refresh();
VACUUM ANALYZE;
SQL

{
	echo '\timing on'
	for ((i = 1; i <= calls; i++)); do echo "SELECT cs.refresh_customer('$((1 + i * 7919 % customers))');"; done
} >"$BENCH_WORK/tmp/calls.sql"
median() { "$PGBIN/psql" -Xq -v ON_ERROR_STOP=1 -f "$1" 2>&1 | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' | tail -n +21 | sort -g | awk '{ t[NR] = $1 } END { print t[int((NR + 1) / 2)] }'; }
row "one customer refreshed inside a transaction, warm session (median of $((calls - 20)))" "$(median "$BENCH_WORK/tmp/calls.sql") ms" "" "" "<= 5 ms"
