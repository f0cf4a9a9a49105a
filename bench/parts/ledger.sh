# The first build of the ledger against sorting the subscriptions it is made of,
# and the refresh after a thousandth of them was corrected.
subscriptions=$(sized 1000000)

database
sql -v n="$subscriptions" >/dev/null <<'SQL'
CREATE SCHEMA app;
-- four rows a customer: overlapping, touching and gapped, a third of them open
CREATE TABLE app.subscription AS SELECT g AS id, 1 + (g * 7919::bigint) % (:n / 4) AS customer_id, s.start_at,
	CASE WHEN g % 3 > 0 THEN s.start_at + (30 + g % 700) * interval '1 day' END AS end_at, (10 + g % 990)::numeric AS mrr
	FROM generate_series(1, :n) g, LATERAL (SELECT timestamptz '2021-01-01 00:00Z' + ((g * 104729::bigint) % 1800) * interval '1 day' AS start_at) s;
CREATE INDEX ON app.subscription (customer_id);
VACUUM ANALYZE;
ALTER DATABASE part SET cs_ext.now = '2026-01-01 00:00Z';
SQL
sql >/dev/null <<'SQL'
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL);
GRANT USAGE ON SCHEMA app TO cs_ext_run;
SELECT cs.add_source('subscription', 'subscription', 'app.subscription', '{"customer_id": "customer_id", "subscription_id": "id", "mrr": "mrr", "start_at": "start_at", "end_at": "end_at"}');
SQL

# Into a table, as the ledger is one; and the sort alone, its rows counted. With
# as much memory as the build has.
memory="SET work_mem = '$(sql -c 'SHOW maintenance_work_mem')'"
sorting=$(best 3 "$memory" "DROP TABLE IF EXISTS app.sorted" "CREATE TABLE app.sorted AS SELECT * FROM app.subscription ORDER BY customer_id, start_at")
counting=$(best 3 "$memory" "SELECT count(*) FROM (SELECT * FROM app.subscription ORDER BY customer_id, start_at OFFSET 0) x")
sql -c "DROP TABLE app.sorted" -c "CHECKPOINT"

# The refresh says how long it took over what: the ledger is read, swept and
# written, and indexed; then everybody becomes a customer and is evaluated.
whole=$(took "SET client_min_messages = debug1" "CALL cs.refresh()")
read=$(sed -n 's/^DEBUG:  ledger read: .* in \([0-9]*\) ms$/\1/p' "$BENCH_WORK/tmp/took")
written=$(sed -n 's/^DEBUG:  ledger written: .* movements in \([0-9]*\) ms.*/\1/p' "$BENCH_WORK/tmp/took")
indexed=$(sed -n 's/^DEBUG:  ledger written: .* indexed in \([0-9]*\) ms$/\1/p' "$BENCH_WORK/tmp/took")
customers=$(sed -n 's/^DEBUG:  customers written in \([0-9]*\) ms$/\1/p' "$BENCH_WORK/tmp/took")
[ -n "$read" ] && [ -n "$written" ] && [ -n "$indexed" ] && [ -n "$customers" ] || die "the first refresh did not say how long the ledger took"
build=$((read + written + indexed))
movements=$(sql -c "SELECT count(*) FROM cs_internal.movement")
slower "first build of the ledger ($subscriptions subscriptions, $movements movements) / sorting them into a table" "$build" "$sorting" "<= 2 x"
slower "the same / sorting them, nothing written" "$build" "$counting" ""
row "of it: read in order of customer; swept and written; indexed" "$read ms; $written ms; $indexed ms" "" "" ""
slower "the same, and everybody a customer and marked / sorting into a table" "$((build + customers))" "$sorting" ""
sql -c "CREATE TABLE app.plain (LIKE cs_internal.movement INCLUDING ALL)" >/dev/null
slower "the ledger / inserting its movements into a table like theirs" "$build" "$(took "INSERT INTO app.plain SELECT * FROM cs_internal.movement")" ""
# What nobody who keeps these rows can do without: to write them, given, and to index them.
sql -c "DROP TABLE app.plain" -c "CREATE TABLE app.plain (LIKE cs_internal.movement)" >/dev/null
copied=$(took "INSERT INTO app.plain SELECT * FROM cs_internal.movement")
keyed=$(took "ALTER TABLE app.plain ADD PRIMARY KEY (customer_id, at, seq)")
at=$(took "CREATE INDEX ON app.plain (at)")
slower "of that, by plain SQL: copying its movements in their order and indexing the copy / sorting into a table" "$(awk -v a="$copied" -v b="$keyed" -v c="$at" 'BEGIN { printf "%.0f", a + b + c }')" "$sorting" ""
slower "the whole first refresh, everybody evaluated / sorting into a table" "$whole" "$sorting" ""

sql -c "UPDATE app.subscription SET mrr = mrr + 1 WHERE id % 1000 = 0" >/dev/null
slower "refresh after 0.1 % of the subscriptions was corrected / sorting all into a table" "$(took "CALL cs.refresh()")" "$sorting" ""
