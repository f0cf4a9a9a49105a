-- Money in the sweep is an integer of millionths: what goes in as numeric comes
-- out rounded as numeric rounds, in the very bytes that numeric makes, at the
-- bounds of numeric(20,6) and for random numbers. The seed is printed:
-- psql -v seed=N repeats a run.
\set ON_ERROR_STOP 1
\ir ../lib/seed.sql
SELECT * FROM no_plan();

CREATE FUNCTION pg_temp.fact(mrr numeric, start_at timestamptz DEFAULT '2025-01-01') RETURNS cs_internal.subscription_fact LANGUAGE sql AS
$$SELECT jsonb_populate_record(NULL::cs_internal.subscription_fact, jsonb_build_object('start_at', start_at, 'mrr', mrr))$$;
CREATE FUNCTION pg_temp.swept(VARIADIC mrr numeric[]) RETURNS numeric LANGUAGE sql AS
$$SELECT s.mrr_after FROM cs_internal.ledger_sweep((SELECT array_agg(pg_temp.fact(m)) FROM unnest(mrr) m)) s$$;
CREATE TEMP TABLE number (n numeric);
INSERT INTO number VALUES (0.000001), (0.0000005), (0.00000051), (0.0001), (0.000099), (0.01), (1), (9999), (9999.9999), (9999.999999), (9999.9999995), (9999.99999949), (10000), (10000.0001), (10000.000001),
	(99999999), (100000000), (100000000.5), (123456789012.123456), (999999999999.999999), (1000000000000), (1000000000000.000001), (9223372036854.775807), (9223372036854.775808), (99999999999999.999999), (99999999999999.9999994), (1.10), (1.000000), (20.500), (0.123456789012345678);
INSERT INTO number SELECT -n FROM number;
INSERT INTO number SELECT DISTINCT round((random() * 10 ^ (random() * 22 - 8))::numeric, floor(random() * 12)::integer) * (1 - 2 * floor(random() * 2)::integer) FROM generate_series(1, 2000);
INSERT INTO number SELECT (floor(random() * 10 ^ 7)::bigint || repeat('0', (random() * 5)::integer) || '.' || repeat('0', (random() * 5)::integer) || floor(random() * 10 ^ 4)::bigint || repeat('0', (random() * 6)::integer))::numeric FROM generate_series(1, 1000);
DELETE FROM number WHERE abs(round(n, 6)) >= 1e14;
SELECT ok(count(*) > 2000, count(*) || ' numbers') FROM number;
SELECT is_empty($$SELECT n, pg_temp.swept(n) FROM number WHERE numeric_send(pg_temp.swept(n)) IS DISTINCT FROM numeric_send(round(n, 6)::numeric(20,6)) AND round(n, 6) <> 0$$, 'each comes out as numeric(20,6) has it');
SELECT is_empty($$SELECT n FROM number WHERE round(n, 6) = 0 AND n <> 0 AND pg_temp.swept(n) IS NOT NULL$$, 'what rounds to nothing is nothing');
SELECT is_empty($$SELECT a.n, b.n FROM (SELECT n, row_number() OVER () AS i FROM number) a JOIN (SELECT n, row_number() OVER () AS i FROM number) b ON b.i = (a.i * 7919 + 13) % 2500
	WHERE round(a.n, 6) + round(b.n, 6) <> 0 AND round(a.n, 6) * round(b.n, 6) <> 0 AND numeric_send(pg_temp.swept(a.n, b.n)) IS DISTINCT FROM numeric_send(round(a.n, 6) + round(b.n, 6))$$, 'sums are those of numeric');
SELECT throws_ok($$SELECT pg_temp.swept(99999999999999.9999995)$$, '22023', NULL, 'what rounds up to 10^14 is refused');
SELECT throws_ok($$SELECT pg_temp.swept(1e14)$$, '22023', NULL, 'so is 10^14');
SELECT throws_ok($$SELECT pg_temp.swept(1e40)$$, '22023', NULL, 'and much more');
SELECT throws_ok($$SELECT pg_temp.swept(-1e300)$$, '22023', NULL, 'and much less');
SELECT throws_ok($$SELECT pg_temp.swept('NaN')$$, '22023', NULL, 'NaN is refused');
SELECT throws_ok($$SELECT pg_temp.swept('-Infinity')$$, '22023', NULL, 'infinity is refused');
SELECT is(pg_temp.swept(1e-300), NULL, 'next to nothing is nothing');
SELECT is((SELECT mrr_after FROM cs_internal.ledger_sweep((SELECT array_agg(pg_temp.fact(99999999999999.999999, timestamptz '2025-01-01' + i * interval '1 minute')) FROM generate_series(1, 10000) i)) s ORDER BY at DESC LIMIT 1),
	999999999999999999.990000, 'a sum of very many of the largest is exact');
SELECT * FROM finish();
