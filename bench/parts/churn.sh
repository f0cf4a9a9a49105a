# Sixty months of churn and revenue by five segments over a million subscriptions:
# from the monthly sums that refresh keeps, and for a dimension of which none are
# kept, against the usual SQL, which joins the subscriptions of a month's start with
# those of its end, month by month.
subscriptions=$(sized 1000000)
corrected=$((subscriptions / 1000))

database
sql -v n="$subscriptions" >/dev/null <<'SQL'
CREATE SCHEMA app;
SELECT setseed(0.4);
-- ten in a hundred customers have two subscriptions; most change price or leave at some time
CREATE TABLE app.subscription AS
SELECT s AS id, CASE WHEN s % 10 = 0 THEN s - 1 ELSE s END AS customer_id, t.starts AS start_on,
	CASE WHEN random() < 0.6 THEN t.starts + 20 + floor(random() * 900)::integer END AS end_on, 10 + floor(random() * 490)::numeric AS mrr
FROM generate_series(1, :n) s CROSS JOIN LATERAL (SELECT date '2019-06-01' + floor(random() * 2000 + 0 * s)::integer AS starts) t;
CREATE INDEX ON app.subscription (customer_id);
CREATE TABLE app.customer AS
SELECT DISTINCT s.customer_id, timestamptz '2019-05-01 00:00Z' AS created_at,
	jsonb_build_object('tier', (ARRAY['enterprise', 'large', 'medium', 'small', 'micro'])[1 + s.customer_id % 5],
		'region', (ARRAY['north', 'east', 'south', 'west', 'centre'])[1 + s.customer_id / 7 % 5]) AS attributes
FROM app.subscription s;
ALTER TABLE app.customer ADD PRIMARY KEY (customer_id);
VACUUM ANALYZE;
ALTER DATABASE part SET cs_ext.now = '2025-01-10 06:00Z';
SQL
sql >/dev/null <<'SQL'
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL);
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO cs_ext_run;
SELECT cs.add_source('customers', 'customer', 'app.customer', '{"customer_id": "customer_id", "created_at": "created_at", "attributes": "attributes"}');
SELECT cs.add_source('subscriptions', 'subscription', 'app.subscription', '{"customer_id": "customer_id", "mrr": "mrr", "start_at": "start_on", "end_at": "end_on"}');
INSERT INTO cs.dimension (name, attribute) VALUES ('tier', 'tier');
SQL
say "first refresh of $subscriptions subscriptions"
first=$(took "CALL cs.refresh()")
sql -c 'VACUUM ANALYZE'

# What is asked: of each of the 60 months before 2025 and each segment, the
# customers and MRR at the start, who and what left, and the MRR gained and lost.
kept_churn="SELECT count(*), sum(c.numerator), sum(c.denominator) FROM cs.churn_segment_months('tier') c WHERE c.month >= '2020-01-01' AND c.month < '2025-01-01'"
kept_revenue="SELECT count(*), sum(r.mrr_start), sum(r.churn_mrr), sum(r.new_mrr + r.reactivation_mrr + r.expansion_mrr), sum(r.contraction_mrr) FROM cs.revenue_segment_months('tier', 'endpoints') r WHERE r.month >= '2020-01-01' AND r.month < '2025-01-01'"
by_hand() {
	local m
	for ((m = 0; m < 60; m++)); do
		cat <<-SQL
			INSERT INTO app.by_hand
			WITH month AS (SELECT (date '2020-01-01' + $m * interval '1 month')::date AS t0, (date '2020-01-01' + $((m + 1)) * interval '1 month')::date AS t1),
			before AS (SELECT s.customer_id, sum(s.mrr) AS mrr FROM app.subscription s, month WHERE s.start_on < t0 AND (s.end_on >= t0 OR s.end_on IS NULL) GROUP BY 1),
			after AS (SELECT s.customer_id, sum(s.mrr) AS mrr FROM app.subscription s, month WHERE s.start_on < t1 AND (s.end_on >= t1 OR s.end_on IS NULL) GROUP BY 1)
			SELECT t0, c.attributes ->> '$1', count(b.customer_id), count(*) FILTER (WHERE a.customer_id IS NULL), sum(b.mrr), sum(b.mrr) FILTER (WHERE a.customer_id IS NULL),
				sum(greatest(coalesce(a.mrr, 0) - coalesce(b.mrr, 0), 0)), sum(b.mrr - a.mrr) FILTER (WHERE a.mrr < b.mrr)
			FROM month CROSS JOIN (before b FULL JOIN after a USING (customer_id)) JOIN app.customer c ON c.customer_id = customer_id GROUP BY 1, 2;
		SQL
	done
}
by_hand_took() {
	sql -c 'DROP TABLE IF EXISTS app.by_hand' -c 'CREATE TABLE app.by_hand (month date, segment text, customers bigint, churned bigint, mrr numeric, churn numeric, gain numeric, contraction numeric)'
	by_hand "$1" | sed 's/c.customer_id = customer_id/c.customer_id = coalesce(b.customer_id, a.customer_id)/; s/FULL JOIN after a USING (customer_id)/FULL JOIN after a ON a.customer_id = b.customer_id/' >"$BENCH_WORK/tmp/by_hand.sql"
	local start end
	start=$(date +%s%N)
	sql -f "$BENCH_WORK/tmp/by_hand.sql"
	end=$(date +%s%N)
	echo $(((end - start) / 1000000))
}
# both say the same: customers and MRR at the start, churned customers, and what was won and lost
same() {
	local differ
	differ=$(sql -c "SELECT count(*) FROM app.by_hand h FULL JOIN (SELECT c.month, c.segment, c.numerator, c.denominator, r.mrr_start, r.churn_mrr, r.new_mrr + r.reactivation_mrr + r.expansion_mrr AS gain, r.contraction_mrr
		FROM cs.churn_segment_months('$1') c JOIN cs.revenue_segment_months('$1', 'endpoints') r USING (month, segment) WHERE c.month >= '2020-01-01' AND c.month < '2025-01-01' AND c.segment <> '(none)') s USING (month, segment)
		WHERE (h.customers, h.churned, h.mrr, coalesce(h.churn, 0), h.gain, coalesce(h.contraction, 0)) IS DISTINCT FROM (s.denominator, s.numerator, s.mrr_start, s.churn_mrr, s.gain, s.contraction_mrr)")
	[ "$differ" = 0 ] || die "$differ of 300 rows differ between cs_ext and the SQL by hand ($1)"
}
both() { awk -v a="$(best 3 "$1")" -v b="$(best 3 "$2")" 'BEGIN { printf "%.1f", a + b }'; }

say "60 months by hand"
hand=$(by_hand_took tier)
same tier
kept=$(both "$kept_churn" "$kept_revenue")
faster "60 months of churn and revenue by 5 segments, kept sums" "$kept" "$hand" ">= 100 x faster"

sql -c "UPDATE app.subscription SET mrr = mrr + 5, start_on = start_on - 40 WHERE id % 1000 = 1"
refresh=$(took "CALL cs.refresh()")
again=$(by_hand_took tier)
same tier
kept=$(both "$kept_churn" "$kept_revenue")
faster "the same after 0.1 % of the subscriptions were corrected" "$kept" "$again" ">= 100 x faster"
row "the refresh between, $corrected corrected subscriptions" "$refresh ms" "$again ms" "$(ratio "$again" "$refresh") x faster" ""

sql -c "INSERT INTO cs.dimension (name, attribute) VALUES ('region', 'region')" -c "INSERT INTO cs_internal.attribute_value SELECT DISTINCT 'region', attributes ->> 'region' FROM app.customer"
computed=$(both "${kept_churn/tier/region}" "${kept_revenue/tier/region}")
hand=$(by_hand_took region)
same region
faster "60 months by a dimension that is not summarised" "$computed" "$hand" ">= 10 x faster"
row "first refresh of $subscriptions subscriptions, sums included" "$first ms" "" "" ""
