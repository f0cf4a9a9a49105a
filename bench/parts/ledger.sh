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

sorting=$(took "CREATE TABLE app.sorted AS SELECT * FROM app.subscription ORDER BY customer_id, start_at")
swept=$(took "SELECT count(*) FROM (SELECT customer_id, array_agg(ROW(start_at, end_at, mrr, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, id::text, NULL, NULL, NULL)::cs_internal.subscription_fact) AS facts
	FROM app.subscription GROUP BY customer_id) x, LATERAL cs_internal.ledger_sweep(x.facts) s")
row "grouping and sweeping alone, nothing written / sorting" "$swept ms" "$sorting ms" "$(ratio "$swept" "$sorting") x" ""
# What follows has one refresh with the ledger in it and one without; the rest of both is the same.
whole=$(took "CALL cs.refresh()")
sql -c "INSERT INTO cs_internal.dirty (customer_id, marked_at) SELECT customer_id, now() FROM cs_internal.customer" >/dev/null
without=$(took "CALL cs.refresh()")
build=$(awk -v a="$whole" -v b="$without" 'BEGIN { printf "%.1f", a - b }')
row "first build of the ledger: reading, identity, movements ($subscriptions subscriptions) / sorting them into a table" "$build ms" "$sorting ms" "$(ratio "$build" "$sorting") x" "<= 2 x"
sql -c "CREATE TABLE app.plain (LIKE cs_internal.movement INCLUDING ALL)" >/dev/null
plain=$(took "INSERT INTO app.plain SELECT * FROM cs_internal.movement")
row "the same / inserting its movements into a table like theirs" "$build ms" "$plain ms" "$(ratio "$build" "$plain") x" ""
row "the whole first refresh, everybody evaluated / sorting" "$whole ms" "$sorting ms" "$(ratio "$whole" "$sorting") x" ""

sql -c "UPDATE app.subscription SET mrr = mrr + 1 WHERE id % 1000 = 0" >/dev/null
corrected=$(took "CALL cs.refresh()")
row "refresh after 0.1 % of the subscriptions was corrected / sorting all" "$corrected ms" "$sorting ms" "$(ratio "$corrected" "$sorting") x" ""
