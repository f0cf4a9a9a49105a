# From the commit of a fact to its alert being visible to another session, with
# the scheduler on: each change is an escalated ticket of a random customer, in a
# transaction of its own, at 50 a second; each opens an alert. Measured from
# before the INSERT, so its commit is in it, to the look that finds the alert, and
# to the one that finds its event numbered; looks are 5 ms apart. The reference is what the same INSERT takes by itself.
customers=$(sized 20000)
changes=1000
[ -n "$BENCH_QUICK" ] && changes=200

database
sql -v n="$customers" >/dev/null <<'SQL'
CREATE SCHEMA app;
CREATE TABLE app.customer AS SELECT g AS id, 'Customer ' || g AS name FROM generate_series(1, :n) g;
CREATE TABLE app.subscription AS SELECT g AS id, g AS customer_id, 100 + g % 900 AS mrr, date '2024-01-01' + g % 400 AS start_on FROM generate_series(1, :n) g;
CREATE TABLE app.ticket (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id int, opened_at timestamptz, resolved_at timestamptz, escalated boolean);
INSERT INTO app.ticket (customer_id, opened_at, resolved_at, escalated) SELECT g, now() - interval '40 days', now() - interval '39 days', false FROM generate_series(1, :n) g;
CREATE INDEX ON app.subscription (customer_id);
CREATE INDEX ON app.ticket (customer_id);
CREATE UNIQUE INDEX ON app.customer (id);
CREATE TABLE app.seen (key text, id bigint, at timestamptz, numbered_at timestamptz);
CREATE TABLE app.plain (LIKE app.ticket INCLUDING ALL);
VACUUM ANALYZE;
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR');
GRANT USAGE ON SCHEMA app TO cs_ext_run;
SELECT cs.add_source('customers', 'customer', 'app.customer', '{"customer_id": "id", "name": "name"}');
SELECT cs.add_source('subscriptions', 'subscription', 'app.subscription', '{"customer_id": "customer_id", "subscription_id": "id", "mrr": "mrr", "start_at": "start_on"}');
SELECT cs.add_source('tickets', 'ticket', 'app.ticket', '{"customer_id": "customer_id", "ticket_id": "id", "opened_at": "opened_at", "resolved_at": "resolved_at", "escalated": "escalated"}');
-- enough for every change of one turn: limits against storms are not what is measured
UPDATE cs.alert_rule SET max_new = 100000;
CALL cs.refresh();
CREATE PROCEDURE app.watch(n bigint, since bigint, until timestamptz) LANGUAGE plpgsql AS $$
DECLARE
	found_now bigint;
BEGIN
	LOOP
		UPDATE app.seen s SET numbered_at = clock_timestamp() WHERE s.numbered_at IS NULL
			AND EXISTS (SELECT FROM cs_internal.alert_event e WHERE e.alert_id = s.id AND e.seq IS NOT NULL);
		INSERT INTO app.seen SELECT a.key, a.id, clock_timestamp() FROM cs_internal.alert a WHERE a.id > since AND a.rule = 'ticket_escalated' AND a.state = 'open'
			AND NOT EXISTS (SELECT FROM app.seen s WHERE s.key = a.key);
		GET DIAGNOSTICS found_now = ROW_COUNT;
		n := n - found_now;
		COMMIT;
		EXIT WHEN n <= 0 AND NOT EXISTS (SELECT FROM app.seen s WHERE s.numbered_at IS NULL) OR clock_timestamp() > until;
		PERFORM pg_sleep(0.005);
	END LOOP;
END $$;
CREATE INDEX ON app.seen (key);
CREATE INDEX ON app.seen (id) WHERE numbered_at IS NULL;
VACUUM ANALYZE;
SQL

write() { # TABLE
	printf '\\set c random(1, %s)\nINSERT INTO app.%s (customer_id, opened_at, escalated) VALUES (:c, clock_timestamp(), true);\n' "$customers" "$1" >"$BENCH_WORK/tmp/write.sql"
	"$PGBIN/pgbench" -n -c 1 -t "$changes" -R 50 -f "$BENCH_WORK/tmp/write.sql" "$PGDATABASE" 2>/dev/null | sed -n 's/^latency average = \([0-9.]*\) ms.*/\1/p'
}
plain=$(write plain)
sql -c "ALTER SYSTEM SET cs_ext.scheduler = on" -c "SELECT pg_reload_conf()" >/dev/null
since=$(sql -c "SELECT coalesce(max(id), 0) FROM cs_internal.alert")
sql -c "CALL app.watch($changes, $since, now() + interval '3 minutes')" &
watcher=$!
write ticket >/dev/null
wait "$watcher" || die "the watcher failed"
sql -c "ALTER SYSTEM RESET cs_ext.scheduler" -c "SELECT pg_reload_conf()" >/dev/null
read -r n p50 p99 worst numbered < <(sql -F ' ' -c "SELECT count(s.key), round(1000 * percentile_cont(0.5) WITHIN GROUP (ORDER BY l)::numeric, 1),
	round(1000 * percentile_cont(0.99) WITHIN GROUP (ORDER BY l)::numeric, 1), round(1000 * max(l)::numeric, 1),
	round(1000 * percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM s.numbered_at - t.opened_at))::numeric, 1)
	FROM app.ticket t LEFT JOIN app.seen s ON s.key = t.id::text, LATERAL (SELECT extract(epoch FROM s.at - t.opened_at) AS l) x WHERE t.escalated")
[ "$n" = "$changes" ] || die "of $changes changes $n had their alert"
row "a change committed -> its alert visible, median of $changes at 50 a second, $customers customers / the INSERT alone" "$p50 ms" "$plain ms" "$(ratio "$p50" "$plain") x" ""
row "the same, p99" "$p99 ms" "$plain ms" "$(ratio "$p99" "$plain") x" "< 1000 ms"
row "the same, p99 until a poller gets it (cs.alert_changes)" "$numbered ms" "$plain ms" "$(ratio "$numbered" "$plain") x" "< 1000 ms"
row "the same, the worst" "$worst ms" "$plain ms" "$(ratio "$worst" "$plain") x" ""
