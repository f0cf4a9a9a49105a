-- The first build of usage over ids of every type, and its refresh: keys and users
-- as int, bigint, uuid, numeric, char(n) and text of a collation, rows without user
-- or name, negative and fractional quantities, times before 1970, zones that change
-- the clock (by half an hour, at midnight), and little memory, so that a build is
-- many slices of many runs. Values, the view and all accessors are what plain SQL
-- over the raw events says.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
\ir ../lib/seed.sql
SELECT * FROM no_plan();
SET TimeZone = 'Asia/Tokyo';
SET cs_ext.now = '2026-04-20 12:00+00';
SET cs_ext.usage_memory = '4kB';

CREATE SCHEMA app;
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL) IS NULL AS done \gset
GRANT USAGE ON SCHEMA app TO cs_ext_run;

CREATE FUNCTION app.id(type text, n integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE type WHEN 'integer' THEN (n * 1000 - 5000)::text WHEN 'bigint' THEN (n * 30000000000 - 90000000000)::text WHEN 'uuid' THEN md5(n::text)::uuid::text
		WHEN 'numeric' THEN (n / 4.0)::text WHEN 'char(12)' THEN substr('kunde-nr-', 1, n % 9) || n ELSE (ARRAY['Ä', 'a', 'Zürich an der Limmat ', 'Z', ''])[1 + n % 5] || n END
$$;

-- n events; the same few instants again and again, where clocks change and at both ends of days
CREATE FUNCTION app.add(ids text, users text, n integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format($q$INSERT INTO app.event SELECT app.id(%L, floor(random() ^ 2 * 12)::integer)::%s,
		CASE WHEN random() < 0.4 THEN (ARRAY['2026-03-29 00:59:59.999999+00', '2026-03-29 01:00+00', '2026-03-08 06:59:59.999999+00', '2026-03-08 07:00+00', '2026-03-28 23:00+00', '2026-04-04 14:59:59.999999+00',
			'2026-04-04 15:00+00', '2026-04-04 13:10+00', '2018-11-04 02:59+00', '2018-11-04 03:00+00', '2018-02-18 01:30+00', '2026-03-31 21:59:59.999999+00', '2026-03-31 22:00+00', '2026-04-01 04:00+00', '2026-04-01 03:59:59.9+00']::timestamptz[])[1 + floor(random() * 15)]
			WHEN random() < 0.1 THEN timestamptz '1969-12-30 00:00+00' + random() * interval '3 days'
			WHEN random() < 0.1 THEN timestamptz '1880-01-01 00:00+00' + random() * interval '70 years'
			WHEN random() < 0.02 THEN timestamptz '0044-03-15 00:00+00' + random() * interval '40 days'
			ELSE timestamptz '2026-05-20 00:00+00' - random() ^ 2 * interval '420 days' END,
		CASE WHEN random() < 0.8 THEN app.id(%L, floor(random() * 30)::integer)::%s END,
		(ARRAY['login', 'export', 'Ä', 'a name of more than eight bytes', 'a name of more than nine bytes', '', NULL])[1 + floor(random() * 7)],
		CASE WHEN random() < 0.4 THEN round((random() * 20 - 10)::numeric, floor(random() * 5)::integer) WHEN random() < 0.02 THEN 0.1234567890123456789012 * (random() * 5)::integer END,
		CASE WHEN random() < 0.3 THEN floor(random() * 5)::bigint END
		FROM generate_series(1, %s)$q$, ids, ids, users, users, n);
END $$;

-- NULL: the rollup is what usage_agg and plain SQL make of the raw events; else the first that is not
CREATE FUNCTION app.difference(zone text, accessors boolean DEFAULT false) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found text;
BEGIN
	PERFORM set_config('TimeZone', zone, true);
	WITH raw AS (SELECT trim_scale_of AS customer_id, date_trunc('month', at)::date AS month,
			cs.usage_agg(at::date, at, who, what, amount, times) AS usage FROM app.fact GROUP BY 1, 2),
		kept AS (SELECT customer_id, month, usage FROM cs_internal.usage_whole)
	SELECT 'value of ' || x INTO found FROM (SELECT to_jsonb(r)::text AS x FROM raw r FULL JOIN kept k USING (customer_id, month)
		WHERE r.usage::text IS DISTINCT FROM k.usage::text OR cs_internal.usage_send(r.usage) IS DISTINCT FROM cs_internal.usage_send(k.usage) LIMIT 1) d;
	IF found IS NOT NULL THEN
		RETURN found;
	END IF;
	WITH raw AS (SELECT trim_scale_of AS customer_id, what AS event, at::date AS day, sum(coalesce(times, 1))::bigint AS events, sum(amount)::numeric(38,9) AS quantity, count(DISTINCT who) AS active_users
			FROM app.fact GROUP BY 1, 2, 3),
		kept AS (SELECT customer_id, event, day, events, quantity, active_users FROM cs.usage_daily)
	SELECT 'usage_daily: ' || to_jsonb(x)::text INTO found FROM ((TABLE raw EXCEPT ALL TABLE kept) UNION ALL (TABLE kept EXCEPT ALL TABLE raw)) x LIMIT 1;
	IF found IS NOT NULL OR NOT accessors THEN
		RETURN found;
	END IF;
	-- all accessors, at days before, in and after what happened
	WITH asked AS MATERIALIZED (SELECT d::date, n, ago FROM unnest(ARRAY['1900-01-01', '1970-01-01', '2018-11-05', '2026-03-30', '2026-04-05', '2026-04-30', '2027-03-01']::date[]) d,
			(VALUES (1, 0), (7, 0), (30, 30), (400, 1), (31, 400)) w (n, ago)),
		value AS MATERIALIZED (SELECT customer_id, cs.union_agg(usage) AS usage FROM cs_internal.usage_whole GROUP BY 1),
		stamped AS MATERIALIZED (SELECT v.customer_id, d, cs.usage_at(v.usage, d) AS usage FROM value v, (SELECT DISTINCT d FROM asked) x),
		said AS (SELECT customer_id, d, n, ago, jsonb_build_object('events', cs.events(usage, NULL, n, ago => ago), 'logins', cs.events(usage, 'login', n, ago => ago),
				'quantity', cs.quantity(usage, NULL, n, ago => ago), 'exported', cs.quantity(usage, 'export', n, ago => ago), 'users', cs.active_users(usage, n, ago => ago),
				'user_names', cs.active_users(usage, n, 'a name of more than nine bytes', ago => ago), 'days', cs.active_days(usage, n, ago => ago), 'names', cs.distinct_events(usage, n, ago => ago),
				'stickiness', round(cs.stickiness(usage, n, ago => ago)::numeric, 12), 'since', cs.days_since(usage, NULL, ago => ago), 'since_login', cs.days_since(usage, 'login', ago => ago)) AS j
			FROM stamped JOIN asked USING (d)),
		fact AS MATERIALIZED (SELECT trim_scale_of AS customer_id, at::date AS day, who, what, amount, coalesce(times, 1) AS times FROM app.fact),
		plain AS (SELECT customer_id, d, n, ago, jsonb_build_object('events', coalesce(sum(times) FILTER (WHERE w), 0), 'logins', coalesce(sum(times) FILTER (WHERE w AND what = 'login'), 0),
				'quantity', trim_scale(sum(amount) FILTER (WHERE w)), 'exported', trim_scale(sum(amount) FILTER (WHERE w AND what = 'export')), 'users', count(DISTINCT who) FILTER (WHERE w),
				'user_names', count(DISTINCT who) FILTER (WHERE w AND what = 'a name of more than nine bytes'), 'days', count(DISTINCT day) FILTER (WHERE w), 'names', count(DISTINCT what) FILTER (WHERE w),
				'stickiness', round((count(DISTINCT (day, who)) FILTER (WHERE w AND who IS NOT NULL))::numeric / n / nullif(count(DISTINCT who) FILTER (WHERE w), 0), 12),
				'since', d - ago - max(day) FILTER (WHERE day < d - ago), 'since_login', d - ago - max(day) FILTER (WHERE day < d - ago AND what = 'login')) AS j
			FROM (SELECT *, day >= d - ago - n AND day < d - ago AS w FROM fact, asked) f GROUP BY 1, 2, 3, 4)
	SELECT format('accessors of %s at %s, %s days, %s ago say %s, not %s', customer_id, d, n, ago, s.j, p.j) INTO found
	FROM said s FULL JOIN plain p USING (customer_id, d, n, ago) WHERE s.j IS DISTINCT FROM p.j LIMIT 1;
	RETURN found;
END $$;

CREATE TABLE app.result (n integer GENERATED ALWAYS AS IDENTITY, what text, got text);
CREATE PROCEDURE app.try(ids text, users text, zone text) LANGUAGE plpgsql AS $$
DECLARE
	name text := format('keys %s, users %s, %s', ids, users, zone);
	text_of text := CASE ids WHEN 'numeric' THEN 'trim_scale(customer)::text' ELSE 'customer::text' END;
	user_text text := CASE users WHEN 'numeric' THEN 'trim_scale(user_id)::text' ELSE 'user_id::text' END;
BEGIN
	EXECUTE format('CREATE TABLE app.event (customer %s, at timestamptz, user_id %s, what text, amount numeric, times bigint)', replace(ids, 'text', 'text COLLATE "und-x-icu"'), replace(users, 'text', 'text COLLATE "und-x-icu"'));
	CREATE INDEX ON app.event (customer, at);
	EXECUTE format('CREATE VIEW app.fact AS SELECT (%s) COLLATE "C" AS trim_scale_of, at, (%s) COLLATE "C" AS who, what, amount, times FROM app.event
		WHERE customer::text <> '''' AND at >= ''0001-01-01 00:00+00'' AND at < ''10001-01-01 00:00+00''', text_of, user_text);
	GRANT SELECT ON app.event TO cs_ext_run;
	UPDATE cs.policy SET time_zone = zone;
	PERFORM app.add(ids, users, 400);
	-- rows that cannot be used, and the first and last instant that can
	EXECUTE format('INSERT INTO app.event (customer, at, what) SELECT c::%s, at::timestamptz, ''edge'' FROM unnest($1) at, unnest($2) c', ids)
		USING ARRAY['2026-04-01 00:00+00', NULL, 'infinity', '-infinity', '0001-12-31 23:59:59.999999+00 BC', '0001-01-01 00:00+00', '10000-12-31 23:59:59.999999+00', '10001-01-01 00:00+00'],
		ARRAY[app.id(ids, 1), NULL] || CASE WHEN ids ~ 'text|char' THEN '{""}'::text[] END;
	PERFORM cs.add_source('events', 'usage_event', 'app.event', '{"customer_id": "customer", "at": "at", "user_id": "user_id", "event": "what", "quantity": "amount", "event_count": "times"}');
	COMMIT;
	CALL cs.refresh();
	INSERT INTO app.result (what, got) SELECT 'first build: ' || name, app.difference(zone);
	PERFORM app.add(ids, users, 12);
	DELETE FROM app.event WHERE random() < 0.02;
	UPDATE app.event SET at = at + interval '26 hours' WHERE random() < 0.01;
	COMMIT;
	CALL cs.refresh();
	INSERT INTO app.result (what, got) SELECT 'refresh: ' || name, app.difference(zone, true);
	COMMIT;
	CALL cs.rebuild();
	INSERT INTO app.result (what, got) SELECT 'rebuild: ' || name, app.difference(zone);
	PERFORM cs.drop_source('events');
	DROP TABLE app.event CASCADE;
	COMMIT;
END $$;
CALL app.try('integer', 'text', 'Europe/Berlin');
CALL app.try('bigint', 'integer', 'America/New_York');
CALL app.try('uuid', 'bigint', 'Australia/Lord_Howe');
CALL app.try('numeric', 'uuid', 'America/Sao_Paulo');
CALL app.try('char(12)', 'numeric', 'Europe/Berlin');
CALL app.try('text', 'char(12)', 'America/New_York');
SELECT is(got, NULL, what) FROM app.result ORDER BY n;
SELECT is(count(*), 18::bigint, 'all were tried') FROM app.result;
SELECT is((SELECT count(*) FROM pg_ls_dir('base/pgsql_tmp', true, false) f WHERE f LIKE 'pgsql\_tmp' || pg_backend_pid() || '.%'), 0::bigint, 'no temporary files stay');
SELECT throws_ok('SELECT cs.usage_pack(0, 4294967296, 1, now(), 1, NULL, NULL, NULL)', '55000', NULL, 'nobody else hands events out');
SELECT * FROM finish();
