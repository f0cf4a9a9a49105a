-- The fuzz test of cs.usage: fuzz_usage.so is :'library'; needs :seed and :seconds.
-- In a database with cs_ext. Valid values of all sorts are the corpus.
CREATE FUNCTION fuzz_usage(seed bigint, seconds float8, corpus text[]) RETURNS text LANGUAGE c STRICT AS :'library', 'fuzz_usage';
SELECT fuzz_usage(:seed, :seconds, ARRAY(
	SELECT u::text FROM (VALUES
		('{"version": 1, "events": [], "users": []}'::cs.usage),
		('{"version": 1, "stamp": "2024-01-01", "events": [], "users": []}'),
		('{"version": 1, "stamp": "2024-02-01", "running": true, "events": [["login", ["2024-01-31", 2, 0.5], ["2024-02-01", 1]]], "users": [["u1", ["login", "2024-01-31", "2024-02-01"]]]}'),
		('{"version": 1, "first": "0044-03-15 00:00:00+00 BC", "last": "12000-01-01 00:00:00+00", "events": [["", ["12000-01-01", -9223372036854775808, -9223372036854775808]], [null, ["0044-03-15 BC", 0, 1e25], ["0044-03-16 BC", 1, 0.1234567890123456789], ["2024-02-29", 1, 0.00]], ["a \"quoted\"\n", ["2024-02-29", 1]]], "users": [["", ["", "12000-01-01"], [null, "2024-02-29", "0044-03-15 BC", "0044-03-16 BC"], ["a \"quoted\"\n", "2024-02-29"]]]}')) v (u)
	UNION ALL
	SELECT cs.usage_agg('2024-01-01'::date + g % k, '2024-01-01 00:00Z'::timestamptz + (g % k) * interval '1 day' + g * interval '1 second',
		CASE WHEN g % 11 > 0 THEN 'ü' || g % 13 END, CASE WHEN g % 7 > 0 THEN 'login' || CASE WHEN g % 3 > 0 THEN g % 5 ELSE NULL END END,
		CASE WHEN g % 4 > 0 THEN (g * 1.25 - 20) * 10::numeric ^ (g % 6) END, g % 9)::text
	FROM generate_series(1, 60) g, generate_series(1, 45, 4) k GROUP BY k
	UNION ALL
	SELECT cs.usage_at(cs.usage_agg('2024-01-01'::date + g % 40, '2024-01-01 00:00Z'::timestamptz + (g % 40) * interval '1 day', 'u' || g % k, 'e"' || g % 3, g, 1), '2024-02-05')::text
	FROM generate_series(1, 80) g, generate_series(1, 9, 2) k GROUP BY k)) AS fuzzed;
