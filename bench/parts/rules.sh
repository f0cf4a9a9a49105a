# A thousand alert rules over a hundred thousand customers of whom one in a
# hundred changed: one pass of refresh, beside the same rules evaluated one query
# each over the same customers' metrics in a plain table.
customers=$(sized 100000)
rules=1000

database
say "$customers customers, $rules rules"
sql -v customers="$customers" >/dev/null <<'SQL'
CREATE SCHEMA app;
CREATE TABLE app.subscription AS SELECT c AS customer_id, 100 + c % 900 AS mrr, date '2024-01-01' + c % 400 AS start_on FROM generate_series(1, :customers) c;
CREATE TABLE app.fact AS SELECT c AS customer_id, timestamptz '2025-06-01 00:00Z' + c % 1000 * interval '1 minute' AS at, c % 100 AS n0, c % 97 AS n1, c % 89 AS n2, c % 83 AS n3 FROM generate_series(1, :customers) c;
CREATE INDEX ON app.subscription (customer_id);
CREATE INDEX ON app.fact (customer_id);
VACUUM ANALYZE;
ALTER DATABASE part SET cs_ext.now = '2025-07-01 06:00Z';
SQL
sql -v rules="$rules" >/dev/null <<'SQL'
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL);
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO cs_ext_run;
SELECT cs.add_source('subscriptions', 'subscription', 'app.subscription', '{"customer_id": "customer_id", "mrr": "mrr", "start_at": "start_on"}');
SELECT cs.add_source('facts', 'other', 'app.fact', '{"customer_id": "customer_id", "at": "at", "x_n0": "n0", "x_n1": "n1", "x_n2": "n2", "x_n3": "n3"}');
INSERT INTO cs.metric (name, source, expression) SELECT 'fact' || i, 'facts', format('sum(x_n%s)', i) FROM generate_series(0, 3) i;
INSERT INTO cs.metric (name, source, expression) VALUES ('mrr', 'ledger', 'mrr'), ('tenure_days', 'ledger', 'tenure_days');
CALL cs.refresh();
-- each true for few: some hundred alerts in all
INSERT INTO cs.alert_rule (name, rule, severity) SELECT 'rule' || i, format('fact%s >= %s AND fact%s < %s AND mrr > %s AND tenure_days::integer %% 1000 = %s', i % 4, i % 60, (i + 1) % 4, 30 + i % 50, i % 500, i % 700), 'low' FROM generate_series(1, :rules) i;
CALL cs.refresh();
VACUUM ANALYZE;
CREATE TABLE app.plain AS SELECT customer_id, max(value) FILTER (WHERE metric = 'fact0') AS fact0, max(value) FILTER (WHERE metric = 'fact1') AS fact1, max(value) FILTER (WHERE metric = 'fact2') AS fact2,
	max(value) FILTER (WHERE metric = 'fact3') AS fact3, max(value) FILTER (WHERE metric = 'mrr') AS mrr, max(value) FILTER (WHERE metric = 'tenure_days')::integer AS tenure_days FROM cs.customer_metric GROUP BY 1;
ALTER TABLE app.plain ADD PRIMARY KEY (customer_id);
VACUUM ANALYZE app.plain;
CREATE TABLE app.found (customer_id text);
CREATE PROCEDURE app.one_by_one() LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT name, rule FROM cs.alert_rule LOOP
		EXECUTE format('INSERT INTO app.found SELECT customer_id FROM app.plain WHERE %s', r.rule);
	END LOOP;
END $$;
SQL
sql -c "UPDATE app.fact SET n0 = n0 + 1 WHERE customer_id % 100 = 7"
pass=$(took "CALL cs.refresh()")
sql -c "UPDATE app.fact SET n0 = n0 + 1 WHERE customer_id % 100 = 7"
pass_warm=$(took "CALL cs.refresh()" "UPDATE app.fact SET n0 = n0 + 1 WHERE customer_id % 100 = 9" "CALL cs.refresh()")
single=$(took "CALL app.one_by_one()")
faster "$rules alert rules, $((customers / 100)) of $customers customers changed: one pass of refresh / one query a rule over all" "$pass" "$single" ""
faster "  the same in a warm session" "$pass_warm" "$single" ""
