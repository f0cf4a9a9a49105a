-- Whatever a writer does, the next refresh knows it: random transactions with
-- savepoints, rollbacks, exceptions and truncates, on a
-- table, a partitioned one, and one whose customers come from users. After each
-- refresh the rollup must be what the facts say. psql -v seed=N repeats a run.
\ir ../lib/seed.sql
SET client_min_messages = warning;
SET TimeZone = 'America/New_York';
SET jit = off;
SELECT cs.setup(time_zone => 'Asia/Tokyo', currency => 'JPY', template => NULL) \g /dev/null
SELECT * FROM no_plan();
CREATE SCHEMA app;
CREATE TABLE app.plain (customer int, at timestamptz, n int);
CREATE TABLE app.dated (at date, customer text) PARTITION BY RANGE (at);
CREATE TABLE app.dated_1 (customer text, at date);
ALTER TABLE app.dated ATTACH PARTITION app.dated_1 FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE app.dated_2 PARTITION OF app.dated DEFAULT;
CREATE TABLE app.member (u int, customer bigint);
CREATE TABLE app.click (u int, at timestamp);
CREATE INDEX ON app.plain (customer);
SELECT count(*) FROM cs.add_source('plain', 'usage_event', 'app.plain', '{"customer_id": "customer", "at": "at", "event": "''plain''", "event_count": "n"}') \g /dev/null
SELECT count(*) FROM cs.add_source('dated', 'usage_event', 'app.dated', '{"customer_id": "customer", "at": "at", "event": "''dated''"}') \g /dev/null
SELECT count(*) FROM cs.add_source('member', 'user', 'app.member', '{"customer_id": "customer", "user_id": "u"}') \g /dev/null
SELECT count(*) FROM cs.add_source('click', 'usage_event', 'app.click', '{"user_id": "u", "at": "at", "event": "''click''"}') \g /dev/null
SELECT is((SELECT string_agg(source || ' ' || capture, ', ' ORDER BY source) FROM cs.source_status), 'click trigger, dated trigger, member trigger, plain trigger', 'all of them are captured by trigger');

CREATE FUNCTION app.r(n int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT floor(random() * n)::int';
-- One random statement.
CREATE FUNCTION app.write() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	day timestamptz := timestamptz '2024-01-25 00:00+09' + app.r(20 * 24) * interval '1 hour';
	c int := 1 + app.r(8);
BEGIN
	CASE app.r(14)
	WHEN 0, 1 THEN INSERT INTO app.plain SELECT 1 + app.r(8), day + g * interval '7 hours', 1 + app.r(3) FROM generate_series(1, 1 + app.r(5)) g;
	WHEN 2 THEN UPDATE app.plain SET at = at + interval '3 days' WHERE customer = c;
	WHEN 3 THEN UPDATE app.plain SET customer = customer % 8 + 1 WHERE customer = c;
	WHEN 4 THEN DELETE FROM app.plain WHERE customer = c;
	WHEN 5 THEN INSERT INTO app.dated (customer, at) SELECT (1 + app.r(8))::text, (day + g * interval '1 day')::date FROM generate_series(1, 1 + app.r(5)) g;
	WHEN 6 THEN UPDATE app.dated SET at = at + 6 WHERE customer = c::text;
	WHEN 7 THEN DELETE FROM app.dated WHERE customer = c::text;
	WHEN 8 THEN INSERT INTO app.member SELECT g, c FROM generate_series(c * 10, c * 10 + app.r(3)) g WHERE NOT EXISTS (SELECT 1 FROM app.member m WHERE m.u = g);
	WHEN 9 THEN UPDATE app.member SET customer = customer % 8 + 1 WHERE u % 8 = c;
	WHEN 10 THEN DELETE FROM app.member WHERE u = c * 10;
	WHEN 11, 12 THEN INSERT INTO app.click SELECT 10 + app.r(80), (day AT TIME ZONE 'UTC') + g * interval '5 hours' FROM generate_series(1, 4) g;
	ELSE
		CASE app.r(6)
		WHEN 0 THEN TRUNCATE app.dated_1;
		WHEN 1 THEN TRUNCATE app.plain;
		WHEN 2 THEN DELETE FROM app.click WHERE u % 8 = c;
		WHEN 3 THEN INSERT INTO app.plain VALUES (NULL, day, 1), (c, NULL, 1), (c, 'infinity', 1);
		WHEN 4 THEN INSERT INTO app.plain SELECT 100 + g, day, 1 FROM generate_series(1, 300) g;
		ELSE DELETE FROM app.plain WHERE customer > 100;
		END CASE;
	END CASE;
END $$;
-- A random shape of work around them: each level may be undone.
CREATE FUNCTION app.work(depth int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 0 .. app.r(4) LOOP
		IF depth < 3 AND random() < 0.4 THEN
			BEGIN
				PERFORM app.work(depth + 1);
				IF random() < 0.4 THEN
					RAISE EXCEPTION 'undone' USING ERRCODE = 'P0999';
				END IF;
			EXCEPTION WHEN SQLSTATE 'P0999' THEN NULL;
			END;
		ELSE
			PERFORM app.write();
		END IF;
	END LOOP;
END $$;
-- The rollup by the facts alone.
CREATE VIEW app.truth AS
SELECT customer_id, event, day, sum(events)::bigint AS events FROM (
	SELECT customer::text AS customer_id, 'plain' AS event, (at AT TIME ZONE 'Asia/Tokyo')::date AS day, n AS events FROM app.plain WHERE customer IS NOT NULL AND isfinite(at)
	UNION ALL SELECT customer, 'dated', at, 1 FROM app.dated
	UNION ALL SELECT m.customer::text, 'click', c.at::date, 1 FROM app.click c JOIN app.member m USING (u)) f
GROUP BY customer_id, event, day;

CREATE PROCEDURE app.run(rounds int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. rounds LOOP
		FOR j IN 0 .. app.r(3) LOOP
			PERFORM app.work(0);
			IF random() < 0.2 THEN ROLLBACK; ELSE COMMIT; END IF;
		END LOOP;
		IF random() < 0.3 THEN
			-- this transaction's own changes count for its own refresh
			PERFORM app.write();
			CALL cs.refresh(commit => false);
			INSERT INTO app.differences SELECT i, d.* FROM app.difference() d;
			IF random() < 0.5 THEN ROLLBACK; ELSE COMMIT; END IF;
		END IF;
		CALL cs.refresh(commit => false);
		INSERT INTO app.differences SELECT i, d.* FROM app.difference() d;
		COMMIT;
	END LOOP;
END $$;
CREATE FUNCTION app.difference() RETURNS TABLE (side text, customer_id text, event text, day date, events bigint) LANGUAGE sql AS $$
	SELECT 'missing or wrong', * FROM (SELECT customer_id, event, day, events FROM app.truth EXCEPT SELECT customer_id, event, day, events FROM cs.usage_daily) a
	UNION ALL
	SELECT 'too much', * FROM (SELECT customer_id, event, day, events FROM cs.usage_daily EXCEPT SELECT customer_id, event, day, events FROM app.truth) b $$;
CREATE TABLE app.differences (round int, side text, customer_id text, event text, day date, events bigint);
CALL app.run(60);
SELECT is((SELECT count(*) FROM app.differences), 0::bigint, 'sixty rounds of random work: the rollup is what the facts say');
SELECT diag(d::text) FROM (SELECT * FROM app.differences ORDER BY round LIMIT 10) d;
SELECT cmp_ok((SELECT count(*) FROM cs.usage_daily), '>', 0::bigint, 'there was something to compare');
CREATE TABLE app.kept AS SELECT customer_id, event, day, events FROM cs.usage_daily;
CREATE TABLE app.unusable AS SELECT * FROM cs_internal.unusable;
CALL cs.rebuild();
SELECT set_eq('SELECT customer_id, event, day, events FROM cs.usage_daily', 'SELECT * FROM app.kept', 'a rebuild makes the same of it');
SELECT set_eq('SELECT source, customer_id, reason, row_count FROM cs_internal.unusable', 'SELECT source, customer_id, reason, row_count FROM app.unusable', 'and counts the same rows as unusable');
SELECT is((SELECT count(*) FROM cs_internal.change_log), 0::bigint, 'nothing is left in the log');
SELECT finish();
