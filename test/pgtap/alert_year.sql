-- full run only: a year of the demo company under the standard pack, day by day.
-- How many alerts people get, that there is never a second open one, and what
-- came before each customer that left.  The table in README.md is made by this:
--   ./test/run alert_year        (diagnostics of the test)
\set ON_ERROR_STOP 1
\set customers 300
\set signal 1
\set now '2025-10-31 06:00:00+01'
\ir ../lib/demo_company.sql
SELECT * FROM no_plan();

CREATE PROCEDURE public.live_through(days integer) LANGUAGE plpgsql AS $$
DECLARE
	day timestamp;
BEGIN
	FOR day IN SELECT timestamp '2025-10-31 06:00' + n * interval '1 day' FROM generate_series(1, days) n LOOP
		PERFORM set_config('cs_ext.now', (day AT TIME ZONE 'Europe/Berlin')::text, false);
		CALL cs.refresh();
	END LOOP;
END $$;
CALL public.live_through(365);

-- An opening of an alert: a day's work for somebody. The first refresh meets everything at once; the year begins after it.
CREATE TEMP TABLE opening AS
SELECT a.rule, a.severity, a.owner, a.customer_id, e.at, (e.at AT TIME ZONE 'Europe/Berlin')::date AS day
FROM cs.alert_event e JOIN cs.alert a ON a.id = e.alert_id
WHERE e.to_state = 'open' AND e.from_state IS DISTINCT FROM 'open' AND e.from_state IS DISTINCT FROM 'snoozed' AND e.at > '2025-11-01';
CREATE TEMP TABLE busy AS
SELECT o.rule, count(*) AS openings, count(DISTINCT o.customer_id) AS customers, round(count(*) / 365.0, 2) AS a_day,
	round(count(*) / 365.0 / nullif((SELECT count(DISTINCT owner) FROM cs.customer_360), 0), 2) AS an_owner_and_day,
	(SELECT max(n) FROM (SELECT count(*) AS n FROM opening x WHERE x.rule IS NOT DISTINCT FROM coalesce(o.rule, x.rule) GROUP BY x.owner, x.day) d) AS worst
FROM opening o GROUP BY ROLLUP (o.rule);
SELECT diag(format('| %s | %s | %s | %s | %s | %s |', coalesce(rule, 'all'), openings, customers, a_day, an_owner_and_day, worst)) FROM busy ORDER BY rule NULLS LAST;

SELECT cmp_ok((SELECT a_day FROM busy WHERE rule IS NULL), '>', 0.1, 'there are alerts');
SELECT cmp_ok((SELECT an_owner_and_day FROM busy WHERE rule IS NULL), '<', 5.0, 'a person can read them: fewer than five an owner and day');
SELECT is((SELECT count(*) FROM (SELECT 1 FROM cs.alert a WHERE a.state IN ('pending', 'open', 'acknowledged', 'snoozed') GROUP BY a.rule, a.customer_id, a.key HAVING count(*) > 1) x),
	0::bigint, 'no duplicate is open now');
-- nor ever was: of one identity the times from opening to closing do not overlap
CREATE TEMP TABLE span AS
SELECT a.rule, a.customer_id, a.key, e.alert_id, e.id, e.at AS from_at,
	(SELECT min(n.at) FROM cs_internal.alert_event n WHERE n.alert_id = e.alert_id AND n.id > e.id AND n.to_state IN ('resolved', 'dismissed')) AS to_at
FROM cs_internal.alert_event e JOIN cs.alert a ON a.id = e.alert_id WHERE e.to_state = 'open' AND e.from_state IS DISTINCT FROM 'open';
SELECT is((SELECT count(*) FROM span x JOIN span y ON y.rule = x.rule AND y.customer_id = x.customer_id AND y.key IS NOT DISTINCT FROM x.key AND y.id > x.id
	WHERE y.from_at < coalesce(x.to_at, 'infinity')), 0::bigint, 'and none ever was');
SELECT is((SELECT pg_get_indexdef('cs_internal.alert_identity'::regclass) LIKE '%UNIQUE%(rule, customer_id, key) WHERE live'), true, 'because a constraint forbids it');

-- ---- those who left -----------------------------------------------------------------
CREATE TEMP TABLE gone AS
SELECT m.customer_id, m.at FROM cs.movement m WHERE m.kind = 'churn' AND m.mrr_after = 0 AND m.at > '2025-11-01' AND m.at <= '2026-10-31';
CREATE TEMP TABLE before AS
SELECT g.customer_id, g.at, o.rule, o.at AS opened_at, g.at::date - o.at::date AS days_before
FROM gone g LEFT JOIN opening o ON o.customer_id = g.customer_id AND o.at < g.at AND o.at >= g.at - interval '180 days';
SELECT diag(format('%s left on %s: %s', g.customer_id, g.at::date, coalesce((SELECT string_agg(format('%s %s days before', b.rule, b.days_before), ', ' ORDER BY b.opened_at)
	FROM before b WHERE b.customer_id = g.customer_id AND b.at = g.at AND b.rule IS NOT NULL), 'without an alert')))
FROM gone g ORDER BY g.at, g.customer_id;
SELECT cmp_ok((SELECT count(*) FROM gone), '>=', 10::bigint, 'customers left');
SELECT diag(format('%s of %s who left had an alert before', count(DISTINCT (customer_id, at)) FILTER (WHERE rule IS NOT NULL), count(DISTINCT (customer_id, at)))) FROM before;
SELECT cmp_ok((SELECT count(DISTINCT (customer_id, at)) FILTER (WHERE rule IS NOT NULL)::numeric / count(DISTINCT (customer_id, at)) FROM before), '>', 0.5, 'most of them with an alert before');
SELECT * FROM finish();
