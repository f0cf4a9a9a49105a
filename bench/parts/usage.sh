# Usage: the first build of the rollup, refreshes of what changed, disk; beside
# parallel counts, hand-written SQL, a materialized view and DuckDB.
#
# The data are a function of the seed: many small customers and few large ones
# (a customer's share falls with the cube of its number), users of their own,
# twelve event names of falling frequency, a year, rows in order of time.
customers=$(sized 20000)
events=$(sized 20000000)
seed=0.4321

database
say "$customers customers, $events events, seed $seed"
sql -v customers="$customers" -v events="$events" -v seed="$seed" >/dev/null <<'SQL'
SELECT setseed(:seed);
CREATE SCHEMA app;
CREATE TABLE app.customer AS SELECT c AS id, 'customer ' || c AS name, timestamptz '2024-01-01 00:00Z' + c % 150 * interval '1 day' AS created FROM generate_series(1, :customers) c;
ALTER TABLE app.customer ADD PRIMARY KEY (id);
CREATE TABLE app.event (customer_id integer NOT NULL, user_id bigint NOT NULL, at timestamptz NOT NULL, name text NOT NULL);
INSERT INTO app.event
SELECT c, c * 1000 + floor(random() ^ 2 * least(1000, 3 + :customers * 4 / c)), timestamptz '2024-07-01 00:00Z' + e * (365 * 86400.0 / :events) * interval '1 second',
	(ARRAY['login', 'view', 'edit', 'save', 'search', 'share', 'comment', 'export', 'import', 'invite', 'report', 'api'])[1 + floor(random() ^ 2 * 12)]
FROM (SELECT e, 1 + floor(random() ^ 3 * :customers)::integer AS c FROM generate_series(0, :events - 1) e) x;
CREATE INDEX ON app.event (customer_id, at);
VACUUM ANALYZE app.event;
VACUUM ANALYZE app.customer;
ALTER DATABASE part SET cs_ext.now = '2025-07-01 00:00Z';
SQL
sql >/dev/null <<'SQL'
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL);
INSERT INTO cs.metric (name, source, expression) VALUES
	('events_30d', 'usage', 'events(usage, NULL, 30)'), ('users_30d', 'usage', 'active_users(usage, 30)'), ('days_30d', 'usage', 'active_days(usage, 30)'),
	('names_30d', 'usage', 'distinct_events(usage, 30)'), ('since', 'usage', 'days_since(usage, NULL)');
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO cs_ext_run;
SELECT cs.add_source('customers', 'customer', 'app.customer', '{"customer_id": "id", "name": "name", "created_at": "created"}');
SELECT cs.add_source('events', 'usage_event', 'app.event', '{"customer_id": "customer_id", "user_id": "user_id", "at": "at", "event": "name"}');
SQL

count_all="SELECT count(*) FROM (SELECT customer_id, count(*) FROM app.event GROUP BY 1) g"
# the five metrics above, as one writes them by hand, on the day of the run
by_hand() {
	echo "SELECT customer_id, count(*) FILTER (WHERE at >= d - interval '30 days') AS events_30d,
		count(DISTINCT user_id) FILTER (WHERE at >= d - interval '30 days') AS users_30d,
		count(DISTINCT (at AT TIME ZONE 'Europe/Berlin')::date) FILTER (WHERE at >= d - interval '30 days') AS days_30d,
		count(DISTINCT name) FILTER (WHERE at >= d - interval '30 days') AS names_30d,
		(d AT TIME ZONE 'Europe/Berlin')::date - (max(at) AT TIME ZONE 'Europe/Berlin')::date AS since
		FROM app.event, (SELECT timestamptz '2025-07-01 00:00 Europe/Berlin' AS d) n WHERE at < d GROUP BY customer_id, d"
}
grouped=$(best 2 "$count_all")
view=$(took "CREATE MATERIALIZED VIEW app.by_hand AS $(by_hand)")
hand=$(took "SELECT count(events_30d + users_30d + days_30d + names_30d + since) FROM ($(by_hand) OFFSET 0) h")

total=$(took "SET client_min_messages = debug1" "CALL cs.refresh()")
read_ms=$(sed -n 's/.*usage read: .* in \([0-9.]*\) ms.*/\1/p' "$BENCH_WORK/tmp/took" | awk '{s += $1} END {print s + 0}')
write_ms=$(sed -n 's/.*usage written: .* in \([0-9.]*\) ms.*/\1/p' "$BENCH_WORK/tmp/took" | awk '{s += $1} END {print s + 0}')
both=$(awk -v a="$read_ms" -v b="$write_ms" 'BEGIN { print a + b }')
if [ "$both" != 0 ]; then
	slower "first build of the rollup, read / parallel count per customer" "$read_ms" "$grouped" "<= 1.5 x"
	slower "first build of the rollup, read and write / the same" "$both" "$grouped" "<= 2.5 x"
	faster "first build of the rollup, read and write / hand-written metrics with DISTINCT" "$both" "$hand" ">= 3 x faster"
fi
faster "first refresh, all of it ($customers customers evaluated) / the same" "$total" "$hand" ""
faster "first refresh, all of it / CREATE MATERIALIZED VIEW of it" "$total" "$view" ""
wrong=$(sql -c "SELECT count(*) FROM ($(by_hand)) h FULL JOIN (SELECT customer_id, max(value) FILTER (WHERE metric = 'events_30d') AS e, max(value) FILTER (WHERE metric = 'users_30d') AS u,
	max(value) FILTER (WHERE metric = 'days_30d') AS d, max(value) FILTER (WHERE metric = 'names_30d') AS n, max(value) FILTER (WHERE metric = 'since') AS s FROM cs.customer_metric GROUP BY 1) m
	ON m.customer_id = h.customer_id::text WHERE h.customer_id IS NOT NULL AND (h.events_30d, h.users_30d, h.days_30d, h.names_30d, h.since) IS DISTINCT FROM (m.e, m.u, m.d, m.n, m.s)")
row "customers whose metrics are not the hand-written ones" "$wrong" "0" "-" "0"

raw=$(sql -c "SELECT pg_table_size('app.event')")
rollup=$(sql -c "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c WHERE c.relnamespace = 'cs_internal'::regnamespace AND c.relname LIKE 'usage%' AND c.relkind = 'r'")
row "rollup on disk / raw events" "$((rollup / 1048576)) MB" "$((raw / 1048576)) MB" "$(awk -v a="$rollup" -v b="$raw" 'BEGIN { printf "%.1f %%", 100 * a / b }')" "<= 15 %"

# what is new, a thousandth: in 2 % of the customers, then in as many as there are
new=$((events / 1000))
few=$((customers / 50))
sql -c "INSERT INTO app.event SELECT 1 + c % $few, 1000 * (1 + c % $few), timestamptz '2025-06-30 12:00Z' + c * interval '10 ms', 'login' FROM generate_series(1, $new) c"
concentrated=$(took "SELECT count(*) FROM cs.source" "CALL cs.refresh()")
sql -c "INSERT INTO app.event SELECT 1 + (c::bigint * 7919) % $customers, 1000 * (1 + (c::bigint * 7919) % $customers), timestamptz '2025-06-30 18:00Z' + c * interval '10 ms', 'login' FROM generate_series(1, $new) c"
spread=$(took "SELECT count(*) FROM cs.source" "CALL cs.refresh()")
nothing=$(took "SELECT count(*) FROM cs.source" "CALL cs.refresh()")
faster "refresh after 0.1 % new events, in 2 % of the customers / hand-written SQL in full" "$concentrated" "$hand" ">= 100 x faster"
faster "refresh after 0.1 % new events, spread / the same" "$spread" "$hand" ">= 20 x faster"
faster "refresh with nothing to do / the same" "$nothing" "$hand" ""

# DuckDB computes the same in full on a copy of its own
duck=
if command -v npm >/dev/null && (cd "$BENCH_WORK/tmp" && npm install --silent --no-audit --no-fund @duckdb/node-api >/dev/null 2>&1); then
	sql -c "COPY (SELECT customer_id, user_id, extract(epoch FROM at)::bigint AS at, name FROM app.event) TO STDOUT (FORMAT csv)" >"$BENCH_WORK/tmp/event.csv"
	cat >"$BENCH_WORK/tmp/duck.js" <<'JS'
const { DuckDBInstance } = require('@duckdb/node-api');
(async () => {
	const c = await (await DuckDBInstance.create(process.env.BENCH_WORK + '/tmp/duck.db')).connect();
	await c.run('SET threads = 2');
	await c.run(`CREATE TABLE event AS SELECT column0::integer AS customer_id, column1::bigint AS user_id, column2::bigint AS instant, column3 AS name FROM read_csv('${process.env.BENCH_WORK}/tmp/event.csv', header = false)`);
	// the day begins at 2025-06-30 22:00 UTC; Berlin is two hours ahead in all of the window
	const sql = `SELECT count(e + u + d + n + s) FROM (SELECT customer_id, count(*) FILTER (WHERE instant >= 1751320800 - 30 * 86400) AS e, count(DISTINCT user_id) FILTER (WHERE instant >= 1751320800 - 30 * 86400) AS u,
		count(DISTINCT (instant + 7200) // 86400) FILTER (WHERE instant >= 1751320800 - 30 * 86400) AS d, count(DISTINCT name) FILTER (WHERE instant >= 1751320800 - 30 * 86400) AS n, 20270 - (max(instant) + 7200) // 86400 AS s
		FROM event WHERE instant < 1751320800 GROUP BY customer_id)`;
	let best = Infinity;
	for (let i = 0; i < 3; i++) {
		const t = process.hrtime.bigint();
		await c.runAndReadAll(sql);
		best = Math.min(best, Number(process.hrtime.bigint() - t) / 1e6);
	}
	console.log(best.toFixed(1));
})();
JS
	duck=$(cd "$BENCH_WORK/tmp" && node duck.js)
	rm -f "$BENCH_WORK/tmp/event.csv" "$BENCH_WORK/tmp/duck.db"
fi
if [ -n "$duck" ]; then
	slower "refresh after 0.1 % new events, in 2 % of the customers / DuckDB in full on its own copy" "$concentrated" "$duck" "<= 1 x"
	slower "refresh after 0.1 % new events, spread / the same" "$spread" "$duck" "<= 3 x"
else
	row "DuckDB: @duckdb/node-api could not be installed" "-" "-" "-" ""
fi
