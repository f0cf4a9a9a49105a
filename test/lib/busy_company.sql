-- busy_company.sql: a company whose facts are changed at random by several
-- sessions at once, for tests that compare what refresh made with a rebuild.
-- Run in an empty database; cs_ext.now is set by the server's configuration.
--
--   CALL app.work(seed, n)   n transactions of random changes, with savepoints,
--                            rollbacks and refresh_customer among them
--   app.derived()            every derived row, as (tab, row), without clocks
--   CALL app.empty()         empties what is derived, as a crash never would
CREATE EXTENSION cs_ext;
CREATE SCHEMA app;
CREATE TABLE app.customer (id integer PRIMARY KEY, name text, owner text, created_at timestamptz, parent integer);
CREATE TABLE app.member (id text PRIMARY KEY, customer_id integer, valid_from timestamptz, valid_to timestamptz);
CREATE TABLE app.subscription (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id integer, mrr numeric, currency text,
	start_on date, end_on date, status text, seats integer);
CREATE INDEX ON app.subscription (customer_id);
CREATE TABLE app.event (customer_id integer, user_id integer, at timestamptz NOT NULL, name text, n integer, quantity numeric) PARTITION BY RANGE (at);
CREATE TABLE app.event_early PARTITION OF app.event FOR VALUES FROM (MINVALUE) TO ('2025-05-01 00:00Z');
CREATE TABLE app.event_late PARTITION OF app.event FOR VALUES FROM ('2025-06-01 00:00Z') TO (MAXVALUE);
CREATE INDEX ON app.event (customer_id, at);
-- of another column order than its future parent
CREATE TABLE app.event_may (name text, at timestamptz NOT NULL, quantity numeric, n integer, user_id integer, customer_id integer);
INSERT INTO app.event_may SELECT 'login', timestamptz '2025-05-01 00:00Z' + e * interval '7 hours', 0.5, 1, e % 9, e % 60 FROM generate_series(1, 100) e;
CREATE TABLE app.click (user_id text, at timestamptz, name text);
CREATE INDEX ON app.click (user_id);
CREATE TABLE app.ticket (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id integer, opened_at timestamptz, resolved_at timestamptz, escalated boolean, csat integer);
CREATE INDEX ON app.ticket (customer_id);
CREATE TABLE app.invoice (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id integer, issued_on date, due_on date, paid_at timestamptz);
CREATE TABLE app.contact (customer_id integer, at timestamptz, channel text);
CREATE VIEW app.touch AS SELECT customer_id, at, channel FROM app.contact WHERE channel <> 'draft';
CREATE TABLE app.cancellation (customer_id integer, at timestamptz, reason text);
-- where a test has made it a source; then customers are merged, too
CREATE TABLE app.merge (old_id integer, new_id integer, at timestamptz);
CREATE TABLE app.stop (id integer);
CREATE TABLE app.surprise (sqlstate text, message text);

INSERT INTO app.customer SELECT c, 'Customer ' || c, 'owner' || c % 3, timestamptz '2024-01-01 00:00Z' + c * interval '3 days' FROM generate_series(1, 50) c;
INSERT INTO app.member SELECT 'u' || u, 1 + u % 50, NULL, NULL FROM generate_series(1, 200) u;
INSERT INTO app.subscription (customer_id, mrr, currency, start_on, status, seats) SELECT c, 100 + c, 'EUR', date '2024-01-05' + c, 'active', c FROM generate_series(1, 50) c;

SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => 'saas_basic');
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO cs_ext_run;
INSERT INTO cs.fx_rate (currency, valid_from, rate) VALUES ('USD', '2024-06-01', 0.9), ('USD', '2025-01-01', 1.1);
SELECT count(*) FROM (
	SELECT cs.add_source('customers', 'customer', 'app.customer', '{"customer_id": "id", "name": "name", "owner": "owner", "created_at": "created_at", "parent_id": "parent"}')
	UNION ALL
	SELECT cs.add_source('members', 'user', 'app.member', '{"customer_id": "customer_id", "user_id": "id", "valid_from": "valid_from", "valid_to": "valid_to"}')
	UNION ALL
	SELECT cs.add_source('subscriptions', 'subscription', 'app.subscription', '{"customer_id": "customer_id", "subscription_id": "id", "seats": "seats", "mrr": "mrr", "currency": "currency", "start_at": "start_on", "end_at": "end_on", "status": "status"}')
	UNION ALL
	SELECT cs.add_source('events', 'usage_event', 'app.event', '{"customer_id": "customer_id", "user_id": "user_id", "at": "at", "event": "name", "event_count": "n", "quantity": "quantity"}')
	UNION ALL
	SELECT cs.add_source('clicks', 'usage_event', 'app.click', '{"user_id": "user_id", "at": "at", "event": "name"}')
	UNION ALL
	SELECT cs.add_source('tickets', 'ticket', 'app.ticket', '{"customer_id": "customer_id", "ticket_id": "id", "opened_at": "opened_at", "resolved_at": "resolved_at", "escalated": "escalated", "csat": "csat"}')
	UNION ALL
	SELECT cs.add_source('invoices', 'invoice', 'app.invoice', '{"customer_id": "customer_id", "invoice_id": "id", "issued_at": "issued_on", "due_at": "due_on", "paid_at": "paid_at"}')
	UNION ALL
	SELECT cs.add_source('touches', 'touchpoint', 'app.touch', '{"customer_id": "customer_id", "at": "at", "channel": "channel"}')
	UNION ALL
	SELECT cs.add_source('cancellations', 'cancellation', 'app.cancellation', '{"customer_id": "customer_id", "at": "at", "reason": "reason"}')
) m;

-- Facts are dated from 2024 to some weeks after cs_ext.now: late and early ones.
CREATE FUNCTION app.some_time() RETURNS timestamptz LANGUAGE sql VOLATILE AS
$$ SELECT CASE WHEN random() < 0.8 THEN timestamptz '2025-06-01 00:00Z' + random() * interval '60 days' ELSE timestamptz '2024-09-01 00:00Z' + random() * interval '330 days' END $$;

-- One random change; about 60 customers, of which some do not exist at a time.
CREATE FUNCTION app.change() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	c integer := 1 + floor(random() * 60);
	u text := 'u' || 1 + floor(random() * 230)::integer;
	d date := date '2024-03-01' + floor(random() * 500)::integer;
	event text := (ARRAY['login', 'view', 'export', 'share', NULL])[1 + floor(random() * 5)];
BEGIN
	CASE floor(random() * 28)
	WHEN 0 THEN
		INSERT INTO app.customer VALUES (c, 'New ' || c, 'owner' || c % 4, app.some_time()) ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, created_at = excluded.created_at;
	WHEN 1 THEN
		IF random() < 0.4 THEN
			DELETE FROM app.customer WHERE id = c;
			DELETE FROM app.subscription WHERE customer_id = c;
		ELSE
			UPDATE app.customer SET parent = nullif(c % 7, 0), name = name || '.' WHERE id = c;
		END IF;
	WHEN 2 THEN
		INSERT INTO app.member VALUES (u, c, CASE WHEN random() < 0.5 THEN app.some_time() END, CASE WHEN random() < 0.3 THEN app.some_time() END)
		ON CONFLICT (id) DO UPDATE SET customer_id = excluded.customer_id, valid_from = excluded.valid_from, valid_to = excluded.valid_to;
	WHEN 3 THEN
		DELETE FROM app.member WHERE id = u AND random() < 0.5;
	WHEN 4 THEN
		UPDATE app.member SET customer_id = nullif(c, 60) WHERE id = u;
	WHEN 5, 6 THEN
		INSERT INTO app.subscription (customer_id, mrr, currency, start_on, end_on, status, seats)
		VALUES (nullif(c, 60), CASE WHEN random() < 0.03 THEN 'NaN' ELSE round((random() * 300)::numeric, 2) END, (ARRAY['EUR', 'EUR', 'USD', 'CHF'])[1 + floor(random() * 4)], d,
			CASE WHEN random() < 0.6 THEN d + floor(random() * 300)::integer - 5 END,
			(ARRAY['active', 'active', 'trialing', 'paused', 'past_due', 'canceled', 'strange'])[1 + floor(random() * 7)], floor(random() * 20));
	WHEN 7 THEN
		UPDATE app.subscription SET mrr = mrr + round((random() * 60 - 30)::numeric, 2) WHERE customer_id = c;
	WHEN 8 THEN
		UPDATE app.subscription SET end_on = CASE WHEN random() < 0.7 THEN start_on + floor(random() * 400)::integer END, customer_id = CASE WHEN random() < 0.8 THEN c ELSE c % 50 + 1 END WHERE customer_id = c;
	WHEN 9 THEN
		DELETE FROM app.subscription WHERE id = (SELECT s.id FROM app.subscription s WHERE customer_id = c ORDER BY s.id LIMIT 1);
	WHEN 10, 11, 12, 13 THEN
		INSERT INTO app.event SELECT nullif(c, 60), c * 5 + floor(random() * 6)::integer, t, event, CASE WHEN random() < 0.9 THEN 1 + floor(random() * 4)::integer ELSE -1 END, round((random() * 9)::numeric, 3)
		FROM (SELECT app.some_time() AS t FROM generate_series(1, 1 + floor(random() * 5)::integer)) x WHERE t < '2025-05-01 00:00Z' OR t >= '2025-06-01 00:00Z';
	WHEN 14 THEN
		DELETE FROM app.event WHERE customer_id = c AND at >= timestamptz '2025-06-01 00:00Z' + random() * interval '60 days';
	WHEN 15 THEN
		UPDATE app.event SET n = n + 1, customer_id = CASE WHEN random() < 0.3 THEN c % 55 + 1 ELSE c END WHERE customer_id = c AND at >= timestamptz '2025-06-20 00:00Z';
	WHEN 16, 17, 18 THEN
		INSERT INTO app.click SELECT CASE WHEN random() < 0.97 THEN u END, CASE WHEN random() < 0.95 THEN app.some_time() ELSE '-infinity' END, event FROM generate_series(1, 1 + floor(random() * 4)::integer);
	WHEN 19 THEN
		DELETE FROM app.click WHERE user_id = u AND random() < 0.5;
	WHEN 20, 21 THEN
		INSERT INTO app.ticket (customer_id, opened_at, escalated, csat) VALUES (nullif(c, 60), app.some_time(), random() < 0.3, CASE WHEN random() < 0.5 THEN 1 + floor(random() * 5)::integer END);
	WHEN 22 THEN
		UPDATE app.ticket SET resolved_at = CASE WHEN resolved_at IS NULL THEN opened_at + interval '1 day' END WHERE customer_id = c;
		DELETE FROM app.ticket WHERE customer_id = c AND random() < 0.1;
	WHEN 23 THEN
		INSERT INTO app.invoice (customer_id, issued_on, due_on) VALUES (c, d, d + 30);
		UPDATE app.invoice SET paid_at = CASE WHEN paid_at IS NULL THEN due_on + 3 END WHERE customer_id = c AND random() < 0.5;
	WHEN 24 THEN
		INSERT INTO app.contact VALUES (c, app.some_time(), (ARRAY['call', 'mail', 'draft'])[1 + floor(random() * 3)]);
		DELETE FROM app.contact WHERE customer_id = 1 + c % 50 AND random() < 0.3;
	WHEN 25 THEN
		BEGIN
			PERFORM cs.ack_alert(a.id) FROM (SELECT id FROM cs.alert WHERE state = 'open' ORDER BY random() LIMIT 2) a;
		EXCEPTION WHEN object_not_in_prerequisite_state THEN    -- resolved meanwhile
		END;
	WHEN 26 THEN
		IF EXISTS (SELECT FROM cs.source s WHERE s.relation = 'app.merge') THEN
			INSERT INTO app.merge SELECT c, 1 + floor(random() * 60), app.some_time() WHERE random() < 0.5;
			UPDATE app.merge SET new_id = 1 + floor(random() * 60), at = app.some_time() WHERE old_id = c AND random() < 0.5;
			DELETE FROM app.merge WHERE old_id = 1 + c % 50;
		END IF;
	ELSE
		INSERT INTO app.cancellation VALUES (c, app.some_time(), (ARRAY['price', 'product'])[1 + floor(random() * 2)]);
		DELETE FROM app.cancellation WHERE customer_id = 1 + c % 50 AND random() < 0.2;
	END CASE;
END $$;

-- What a writer may meet without anything being wrong: a row that two sessions
-- change (deadlocks between them), a customer that does not exist.
CREATE PROCEDURE app.work(seed integer, transactions integer) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM setseed(seed / 1000000.0);
	FOR t IN 1 .. transactions LOOP
		FOR s IN 1 .. 1 + floor(random() * 3)::integer LOOP
			BEGIN
				FOR i IN 1 .. 1 + floor(random() * 6)::integer LOOP
					PERFORM app.change();
				END LOOP;
				IF random() < 0.03 THEN
					PERFORM cs.refresh_customer((1 + floor(random() * 60)::integer)::text);
				END IF;
				IF random() < 0.15 THEN
					RAISE EXCEPTION 'undo' USING ERRCODE = 'UNDO1';
				END IF;
			EXCEPTION
				WHEN SQLSTATE 'UNDO1' OR no_data_found OR deadlock_detected THEN
				WHEN OTHERS THEN
					INSERT INTO app.surprise VALUES (SQLSTATE, SQLERRM);
			END;
		END LOOP;
		IF random() < 0.1 THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
	END LOOP;
END $$;

CREATE FUNCTION app.derived() RETURNS TABLE (tab text, r jsonb) LANGUAGE plpgsql AS $$
DECLARE
	t text;
BEGIN
	FOREACH t IN ARRAY '{customer,movement,merge,state,unusable,orphan,scan_checksum,summary_month}'::text[] LOOP
		RETURN QUERY EXECUTE format('SELECT %L, to_jsonb(x) - ''computed_at'' FROM cs_internal.%I x', t, t);
	END LOOP;
	-- a month may be in pieces, which are its union
	RETURN QUERY SELECT 'usage_month', to_jsonb(x) FROM (SELECT customer_id, month, cs.union_agg(usage) AS usage FROM cs_internal.usage_piece GROUP BY 1, 2) x;
	RETURN QUERY SELECT 'source_state', to_jsonb(x) - 'scanned_at' - 'looked_at' - 'capture_reason' FROM cs_internal.source_state x;
	RETURN QUERY SELECT 'waiting', to_jsonb(w) FROM (SELECT 'change_log' AS queue, source, customer_key FROM cs_internal.change_log
		UNION ALL SELECT 'pending', source, customer_id FROM cs_internal.pending UNION ALL SELECT 'dirty', cause, customer_id FROM cs_internal.dirty) w;
END $$;

CREATE PROCEDURE app.empty() LANGUAGE sql AS $$
	TRUNCATE cs_internal.customer, cs_internal.movement, cs_internal.merge, cs_internal.ledger_build, cs_internal.usage_month, cs_internal.usage_delta, cs_internal.usage_build, cs_internal.state, cs_internal.unusable, cs_internal.orphan,
		cs_internal.scan_checksum, cs_internal.source_state, cs_internal.pending, cs_internal.dirty, cs_internal.change_log,
		cs_internal.summary, cs_internal.summary_month, cs_internal.movement_before, cs_internal.customer_before;
$$;

-- Up to three rows a table that are in one state and not in the other.
CREATE TABLE app.kept (pass text, tab text, r jsonb);
CREATE FUNCTION app.difference(a text, b text) RETURNS TABLE (tab text, "only" text, r jsonb) LANGUAGE sql AS $$
	SELECT x.tab, x.o, x.r FROM (
		SELECT y.*, row_number() OVER (PARTITION BY y.tab, y.o ORDER BY y.r) AS n FROM (
			SELECT a AS o, d.* FROM (SELECT k.tab, k.r FROM app.kept k WHERE pass = a EXCEPT ALL SELECT k.tab, k.r FROM app.kept k WHERE pass = b) d
			UNION ALL
			SELECT b AS o, d.* FROM (SELECT k.tab, k.r FROM app.kept k WHERE pass = b EXCEPT ALL SELECT k.tab, k.r FROM app.kept k WHERE pass = a) d) y) x
	WHERE n <= 3;
$$;

-- What cs.usage_daily must say, counted over the raw rows.
CREATE FUNCTION app.usage_by_hand() RETURNS TABLE (customer_id text, event text, day date, events bigint, quantity numeric, active_users bigint) LANGUAGE sql AS $$
	SELECT e.c::text, e.name, (e.at AT TIME ZONE 'Europe/Berlin')::date, sum(e.n)::bigint, sum(e.quantity)::numeric(38,9), count(DISTINCT e.u)
	FROM (
		SELECT customer_id AS c, user_id::text AS u, at, name, coalesce(n, 1) AS n, quantity FROM app.event WHERE n IS NULL OR n >= 0
		UNION ALL
		SELECT m.customer_id, k.user_id, k.at, k.name, 1, NULL FROM app.click k JOIN app.member m ON m.id = k.user_id
			AND (m.valid_from IS NULL OR m.valid_from <= k.at) AND (m.valid_to IS NULL OR m.valid_to > k.at)
			AND (m.valid_to IS NULL OR m.valid_from IS NULL OR m.valid_to >= m.valid_from)) e
	WHERE e.c IS NOT NULL AND e.at > '-infinity'
	GROUP BY 1, 2, 3;
$$;
