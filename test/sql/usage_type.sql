--
-- cs.usage: text form, refusals, union, comparison, accessors by hand
--
SET search_path = cs, public;

-- one value, in whatever order it is written
SELECT '{"version": 1, "users": [["u1", ["login", "2024-01-01"]], [null, ["login", "2024-01-05"]]],
 "events": [["login", ["2024-01-05", 1, 2.50], ["2024-01-01", 3]]],
 "last": "2024-01-05 09:30:00+00", "first": "2024-01-01 08:00:00.5+00"}'::usage;
SELECT '{"version": 1, "events": [], "users": []}'::usage;
SELECT '{"version": 1, "stamp": "2024-01-01", "events": [], "users": []}'::usage;
-- far days, names with quotes, big and small quantities
SELECT '{"version": 1, "first": "0044-03-15 00:00:00+00 BC", "last": "12000-01-01 00:00:00+00",
 "events": [["", ["12000-01-01", -9223372036854775808, -9223372036854775808]],
   [null, ["0044-03-15 BC", 0, 1e25], ["0044-03-16 BC", 1, 0.1234567890123456789], ["2024-02-29", 1, 0.00]],
   ["a \"quoted\"\n", ["2024-02-29", 1]]],
 "users": [["", ["", "12000-01-01"], [null, "2024-02-29", "0044-03-15 BC", "0044-03-16 BC"], ["a \"quoted\"\n", "2024-02-29"]]]}'::usage AS far
\gset
SELECT :'far'::usage;
SELECT :'far'::usage::text = :'far', :'far'::usage = :'far'::usage;
SELECT day, event, events, quantity, active_users FROM cs.unnest(:'far'::usage);
-- the session's settings change nothing
SET DateStyle = 'German, DMY'; SET TimeZone = 'Asia/Kolkata'; SET extra_float_digits = -15;
SELECT '{"version": 1, "first": "2024-02-03 08:00:00+00", "last": "2024-02-03 09:30:00+00", "events": [["e", ["2024-02-03", 1]]], "users": [["u", ["e", "2024-02-03"]]]}'::usage;
RESET DateStyle; RESET TimeZone; RESET extra_float_digits;

-- refused, each with what is wrong
CREATE FUNCTION pg_temp.refusal(value text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE state text; message text; detail text;
BEGIN
	PERFORM value::cs.usage;
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
	RETURN format('%s %s: %s', state, message, detail);
END $$;
SELECT v, pg_temp.refusal(v) FROM (VALUES
	(''), ('x'), ('[]'), ('1'), ('{}'), ('null'),
	('{"version": 2, "events": [], "users": []}'),
	('{"version": "1", "events": [], "users": []}'),
	('{"version": 1, "users": []}'),
	('{"version": 1, "events": 1, "users": []}'),
	('{"version": 1, "events": {}, "users": []}'),
	('{"version": 1, "events": [], "users": [], "more": 1}'),
	('{"version": 1, "events": [1], "users": []}'),
	('{"version": 1, "events": [[]], "users": []}'),
	('{"version": 1, "events": [["e"]], "users": []}'),
	('{"version": 1, "events": [[1, ["2024-01-01", 1]]], "users": []}'),
	('{"version": 1, "events": [["e", ["2024-01-01"]]], "users": []}'),
	('{"version": 1, "events": [["e", ["2024-01-01", 1, 2, 3]]], "users": []}'),
	('{"version": 1, "events": [["e", ["2024-01-01", 1.5]]], "users": []}'),
	('{"version": 1, "events": [["e", ["2024-01-01", "1"]]], "users": []}'),
	('{"version": 1, "events": [["e", ["2024-01-01", 9223372036854775808]]], "users": []}'),
	('{"version": 1, "events": [["e", ["2024-01-01", 1, "NaN"]]], "users": []}'),
	('{"version": 1, "events": [["e", ["2024-01-01", 1], ["2024-01-01", 1]]], "users": []}'),
	('{"version": 1, "events": [["e", ["2023-02-29", 1]]], "users": []}'),
	('{"version": 1, "events": [["e", ["01/02/2024", 1]]], "users": []}'),
	('{"version": 1, "events": [["e", ["today", 1]]], "users": []}'),
	('{"version": 1, "events": [["e", ["infinity", 1]]], "users": []}'),
	('{"version": 1, "events": [["e", ["2024-01-01x", 1]]], "users": []}'),
	('{"version": 1, "events": [["e", ["9999999-01-01", 1]]], "users": []}'),
	('{"version": 1, "events": [["e", [null, 1]]], "users": []}'),
	('{"version": 1, "events": [["e", ["2024-01-01", 1]]], "users": []}'),
	('{"version": 1, "events": [["e", ["2024-01-01", 1]]], "users": [["u", ["e", "2024-01-02"]]]}'),
	('{"version": 1, "events": [["e", ["2024-01-01", 1]]], "users": [["u", ["f", "2024-01-01"]]]}'),
	('{"version": 1, "events": [["e", ["2024-01-01", 1]]], "users": [["u", ["e"]]]}'),
	('{"version": 1, "events": [["e", ["2024-01-01", 1]]], "users": [["u"]]}'),
	('{"version": 1, "events": [["e", ["2024-01-01", 1]]], "users": [["u", ["e", "2024-01-01"]]]}'),
	('{"version": 1, "first": "2024-01-01 00:00:00+00", "events": [["e", ["2024-01-01", 1]]], "users": [["u", ["e", "2024-01-01"]]]}'),
	('{"version": 1, "first": "2024-01-02 00:00:00+00", "last": "2024-01-01 00:00:00+00", "events": [["e", ["2024-01-01", 1]]], "users": [["u", ["e", "2024-01-01"]]]}'),
	('{"version": 1, "first": "now", "last": "now", "events": [["e", ["2024-01-01", 1]]], "users": [["u", ["e", "2024-01-01"]]]}'),
	('{"version": 1, "first": "2024-01-01 00:00:00", "last": "2024-01-01 00:00:00", "events": [["e", ["2024-01-01", 1]]], "users": [["u", ["e", "2024-01-01"]]]}'),
	('{"version": 1, "first": "2024-01-01 99:00:00+00", "last": "2024-01-01 99:00:00+00", "events": [["e", ["2024-01-01", 1]]], "users": [["u", ["e", "2024-01-01"]]]}'),
	('{"version": 1, "first": "2024-01-01 00:00:00+00", "last": "2024-01-01 00:00:00+00", "events": [], "users": []}'),
	('{"version": 1, "stamp": "2024-01-01", "events": [["e", ["2024-01-02", 1]]], "users": [["u", ["e", "2024-01-02"]]]}'),
	('{"version": 1, "stamp": "2024-01-01", "events": [["e", ["2024-01-01", 1]]], "users": [["u", ["e", "2024-01-01"]]]}'),
	('{"version": 1, "running": true, "events": [], "users": []}'),
	('{"version": 1, "stamp": "2024-01-01", "running": false, "events": [], "users": []}'),
	('{"version": 1, "stamp": "2024-01-01", "running": true, "events": [["e", ["2024-01-01", 1]]], "users": [["u", ["e", "2024-01-01"]]]}')
) t (v);

-- aggregates
CREATE TEMP TABLE ev (day date, at timestamptz, u text, e text, q numeric, n bigint);
INSERT INTO ev VALUES
	('2024-01-30', '2024-01-30 10:00:00+00', 'ann', 'login', NULL, NULL),
	('2024-01-30', '2024-01-30 11:00:00+00', 'ann', 'login', 1.50, 2),
	('2024-01-30', '2024-01-30 12:00:00+00', NULL, 'export', -0.5, 1),
	('2024-01-31', '2024-01-31 12:00:00+00', 'bob', NULL, NULL, 0),
	('2024-02-01', '2024-02-01 12:00:00+00', 'bob', 'login', 1.500, 3),
	('2024-02-03', '2024-02-03 12:00:00+00', 'ann', 'export', 7, 1),
	(NULL, '2024-02-03 12:00:00+00', 'none', 'none', 7, 1),
	('2024-02-03', NULL, 'none', 'none', 7, 1);
SELECT usage_agg(day, at, u, e, q, n) AS whole FROM ev \gset
SELECT :'whole'::usage;
SELECT usage_agg(day, at, u, e, q, n) FROM ev WHERE false;
SELECT union_agg(m) = :'whole'::usage AS by_month, union_agg(m) AS united
FROM (SELECT usage_agg(day, at, u, e, q, n) m FROM ev GROUP BY date_trunc('month', day)) s;
SELECT union_agg(NULL::usage);
SELECT a + b = b + a AS commutes, a + b = :'whole'::usage AS whole, a <> b AS differ, a + NULL
FROM (SELECT usage_agg(day, at, u, e, q, n) FILTER (WHERE u = 'ann') a,
	usage_agg(day, at, u, e, q, n) FILTER (WHERE u IS DISTINCT FROM 'ann') b FROM ev) s;
SELECT count(*) FROM (SELECT :'whole'::usage INTERSECT SELECT :'whole'::usage) s;
-- exact beyond float8 and int64
SELECT quantity(usage_at(usage_agg('2024-01-01', '2024-01-01', 'u', 'e', q, 1), '2024-01-02'), 'e', 1)
FROM (VALUES (0.1), (0.2), (9223372036854775807), (1e-20), (-0.3)) v (q);
SELECT quantity(usage_at(usage_agg('2024-01-01', '2024-01-01', 'u', 'e', q, 1), '2024-01-02'), 'e', 1)
FROM (VALUES (9223372036854775807), (1), (-9223372036854775807)) v (q);
SELECT usage_agg('2024-01-01', '2024-01-01', 'u', 'e', 'NaN', 1);
SELECT usage_agg('2024-01-01', '2024-01-01', 'u', 'e', 'infinity', 1);
SELECT usage_agg('infinity', '2024-01-01', 'u', 'e', 1, 1);
SELECT usage_agg('2024-01-01', '-infinity', 'u', 'e', 1, 1);
SELECT usage_agg('2024-01-01', '2024-01-01', 'u', 'e', 1, n) FROM (VALUES (9223372036854775807), (1)) v (n);

-- subtraction: all of an event on a day goes, or it is refused
SELECT usage_agg(day, at, u, e, q, n) AS ends, (SELECT usage_agg(day, at, u, e, q, n) FROM ev WHERE day NOT IN (SELECT min(day) FROM ev UNION ALL SELECT max(day) FROM ev)) AS middle
FROM ev WHERE day IN (SELECT min(day) FROM ev UNION ALL SELECT max(day) FROM ev) \gset
SELECT :'whole'::usage - :'middle' = :'ends' AS days, (:'whole'::usage - :'middle') + :'middle' = :'whole' AS back, :'whole'::usage - :'whole' AS nothing,
	:'whole'::usage - (:'whole'::usage - :'whole') = :'whole' AS nothing_gone, :'whole'::usage - NULL AS unknown;
SELECT usage_at(:'whole', '2024-03-01') - usage_at(:'ends', '2024-03-01') = usage_at(:'middle', '2024-03-01') AS stamped;
SELECT :'whole'::usage - :'ends';
SELECT :'whole'::usage - usage_at(:'middle', '2024-03-01');
SELECT :'middle'::usage - :'whole';
SELECT usage_at(usage_agg(d, d, u, 'e', q, n), '2024-02-01') - usage_at('{"version": 1, "first": "2024-01-01 00:00:00+00", "last": "2024-01-01 00:00:00+00", "events": [["e", ["2024-01-01", 1, 2]]], "users": [["a", ["e", "2024-01-01"]]]}', '2024-02-01')
FROM (VALUES (date '2024-01-01', 'a', 2, 2), ('2024-01-02', 'b', NULL, 1)) v (d, u, q, n);
SELECT usage_at(usage_agg(d, d, u, 'e', q, n), '2024-02-01') - usage_at('{"version": 1, "first": "2024-01-01 00:00:00+00", "last": "2024-01-01 00:00:00+00", "events": [["e", ["2024-01-01", 1, 2]]], "users": [["a", ["e", "2024-01-01"]]]}', '2024-02-01')
FROM (VALUES (date '2024-01-01', 'a', 2, 1), ('2024-01-01', 'b', NULL, 0)) v (d, u, q, n);
SELECT usage_at(usage_agg(d, d, u, 'e', q, n), '2024-02-01') - usage_at('{"version": 1, "first": "2024-01-01 00:00:00+00", "last": "2024-01-01 00:00:00+00", "events": [["e", ["2024-01-01", 1, 2]]], "users": [["a", ["e", "2024-01-01"]]]}', '2024-02-01')
FROM (VALUES (date '2024-01-01', 'b', 2, 1)) v (d, u, q, n);

-- stamping
SELECT usage_at(:'whole', '2024-02-01');
SELECT cs_internal.usage_stamp(:'whole', '2024-02-01');
SELECT cs_internal.usage_stamp(:'whole', '2024-02-01', :'whole') = usage_at(:'whole', '2024-02-01');
SELECT cs_internal.usage_stamp(NULL, '2024-02-01');
SELECT usage_at(:'whole', NULL);
SELECT usage_at(:'whole', 'infinity');
SELECT usage_at(:'whole', '2024-02-01') + :'whole'::usage;
SELECT usage_at(:'whole', '2024-02-01') + usage_at(:'whole', '2024-02-02');
SELECT usage_at(:'whole', '2024-02-01') + cs_internal.usage_stamp(:'whole', '2024-02-01');
SELECT usage_at(:'whole', '2024-02-01') + usage_at(:'whole', '2024-02-01') = usage_at(:'whole'::usage + :'whole', '2024-02-01');

-- the calls that metrics use, D = 2024-02-03
SELECT events(usage, NULL, 30), events(usage, 'login', 30), events(usage, 'login', 2), events(usage, NULL, 30, ago => 2),
	events(usage, NULL, 1, today => true), events(usage, 'missing', 30),
	events(usage, NULL, 30) / nullif(events(usage, NULL, 30, ago => 30), 0)::float8 - 1 AS change
FROM (SELECT usage_at(:'whole', '2024-02-03') AS usage) s;
SELECT quantity(usage, NULL, 30), quantity(usage, 'login', 30), quantity(usage, 'export', 30, today => true),
	quantity(usage, NULL, 1) AS none, quantity(usage, 'missing', 30) AS missing
FROM (SELECT usage_at(:'whole', '2024-02-03') AS usage) s;
SELECT active_users(usage, 30), active_users(usage, 30, 'login'), active_users(usage, 30, 'export') AS anonymous,
	active_users(usage, 30, ago => 30), active_users(usage, 2, ago => 2), active_days(usage, 30),
	active_days(usage, 30, today => true), distinct_events(usage, 30), distinct_events(usage, 3, ago => 1)
FROM (SELECT usage_at(:'whole', '2024-02-03') AS usage) s;
SELECT stickiness(usage, 4), stickiness(usage, 4, today => true), stickiness(usage, 30, ago => 30) AS nobody
FROM (SELECT usage_at(:'whole', '2024-02-03') AS usage) s;
SELECT days_since(usage, NULL), days_since(usage, 'export'), days_since(usage, NULL, today => true),
	days_since(usage, 'login', ago => 2), days_since(usage, 'missing') AS never
FROM (SELECT usage_at(:'whole', '2024-02-03') AS usage) s;
-- nobody ever did anything
SELECT events(usage, NULL, 30), quantity(usage, NULL, 30), active_users(usage, 30), active_days(usage, 30),
	distinct_events(usage, 30), stickiness(usage, 30), days_since(usage, NULL)
FROM (SELECT cs_internal.usage_stamp(NULL, '2024-02-03') AS usage) s;
-- NULL arguments
SELECT events(NULL, NULL, 30), events(usage, NULL, NULL), active_users(usage, 30, ago => NULL), active_days(usage, 30, today => NULL),
	days_since(NULL, NULL), days_since(usage, NULL, ago => NULL)
FROM (SELECT usage_at(:'whole', '2024-02-03') AS usage) s;
-- refused
SELECT events(:'whole'::usage, NULL, 30);
SELECT days_since(:'whole'::usage, NULL);
SELECT events(usage_at(:'whole', '2024-02-03'), NULL, 0);
SELECT active_users(usage_at(:'whole', '2024-02-03'), 401);
SELECT active_days(usage_at(:'whole', '2024-02-03'), -1);
SELECT events(usage_at(:'whole', '2024-02-03'), NULL, 30, ago => -1);
SELECT events(usage_at(:'whole', '2024-02-03'), NULL, 30, ago => 401);
SELECT days_since(usage_at(:'whole', '2024-02-03'), NULL, ago => -1);
SELECT events(cs_internal.usage_stamp(:'whole', '2024-02-03'), NULL, 30, today => true);
SELECT days_since(cs_internal.usage_stamp(:'whole', '2024-02-03'), NULL, today => true);
SELECT events(cs_internal.usage_stamp(:'whole', '2024-02-03'), NULL, 30, ago => 1, today => true);

-- binary form: what is sent is what is received; what is not the one form is refused
CREATE TEMP TABLE sent (v usage);
CREATE TEMP TABLE bytes (v bytea);
CREATE FUNCTION pg_temp.receive(b bytea) RETURNS text LANGUAGE plpgsql AS $$
DECLARE file text := current_setting('data_directory') || '/cs_usage_regress.bin'; state text; message text; detail text; v text;
BEGIN
	TRUNCATE bytes; TRUNCATE sent;
	INSERT INTO bytes VALUES (b);
	EXECUTE format('COPY bytes TO %L (FORMAT binary)', file);
	EXECUTE format('COPY sent FROM %L (FORMAT binary)', file);
	SELECT s.v INTO v FROM sent s;
	RETURN v;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
	RETURN format('%s %s: %s', state, message, detail);
END $$;
SELECT pg_temp.receive(cs_internal.usage_send(:'whole')) = :'whole' AS whole,
	pg_temp.receive(cs_internal.usage_send(:'far')) = :'far' AS far;
SELECT cs_internal.usage_send('{"version": 1, "stamp": "2000-01-02", "events": [["e", ["2000-01-01", 1]]], "users": [["u", ["e", "2000-01-01"]]]}');
SELECT what, pg_temp.receive(b::bytea) FROM (VALUES
	('good', '\x010102010265020002010275010100'),
	('empty', '\x'), ('header cut', '\x01'), ('version', '\x0200'), ('flag', '\x0108'), ('stamp cut', '\x0101'),
	('stamp out of range', '\x0101ffffffffffffffffff01'), ('number too long', '\x0101ffffffffffffffffffffff'),
	('more events than bytes', '\x0100ffffffff07'), ('users cut', '\x010000'), ('bytes left over', '\x0100000000'),
	('users without events', '\x0100000175'), ('instants of nothing', '\x0102000000'),
	('day after the stamp', '\x010102010265020602010275010100'),
	('no days', '\x01010201026500010275010100'),
	('name too long', '\x010102018002650200020102750101'),
	('event out of range', '\x010102010265020002010275010500'),
	('no chunks', '\x010102010265020002010275010000'),
	('no bits', '\x0101020102650200020102750100010000'),
	('one day as a chunk', '\x0101020102650200020102750100010001'),
	('another day', '\x010102010265020002010275010101'),
	('listed day out of range', '\x0101020102650200020102750101ffffffff0f'),
	('listed day far out of range', '\x0101020102650200020102750101ffffffffffffffff7f'),
	('fewer days than said', '\x010102010265020002010275010200'),
	('quantity 0 scale 1', '\x0101020102650300020200010275010100'),
	('quantity form', '\x0101020102650300024000010275010100'),
	('quantity no number', '\x010102010265030002ff03656532010275010100'),
	('quantity as needless text', '\x010102010265030002ff03312e35010275010100'),
	('number not in shortest form', '\x01018200010265020002010275010100'),
	('events not sorted', '\x01010202026602000202650200020102750201000100')
) t (what, b);
DO $$ BEGIN EXECUTE format('COPY (SELECT) TO PROGRAM %L', 'rm -f cs_usage_regress.bin'); END $$;
