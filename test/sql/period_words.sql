-- Period words and instants, at a fixed now, in Tokyo, whatever the session says.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE regress_period_run NOLOGIN;
INSERT INTO cs.policy (run_as, time_zone, currency) VALUES ('regress_period_run', 'Asia/Tokyo', 'JPY');
SET cs_ext.now = '2026-10-20 03:00:00+00';	-- noon in Tokyo, a Tuesday
SET TimeZone = 'America/New_York';
SET DateStyle = 'SQL, DMY';

CREATE FUNCTION pg_temp.local(at timestamptz) RETURNS text LANGUAGE sql AS
$$ SELECT to_char(at AT TIME ZONE 'Asia/Tokyo', 'YYYY-MM-DD HH24:MI:SS.US') $$;
CREATE FUNCTION pg_temp.show(word text) RETURNS text LANGUAGE sql AS
$$ SELECT format('[%s, %s) %s', pg_temp.local(period_start), pg_temp.local(period_end),
	CASE WHEN complete THEN 'complete' ELSE 'running' END) FROM cs.period(word) $$;

SELECT word, pg_temp.show(word)
FROM unnest(ARRAY['2026-09', '2026-10', '2026-Q3', '2026-q4', '2026-W41', '2026-W43', '2026-W01', '2020-W53',
	'2025', '2026', 'FY2026', 'today', 'yesterday', 'this week', 'last week', 'wtd', 'this month', 'Last  Month ', 'mtd',
	'this quarter', 'last quarter', 'qtd', 'this year', 'last year', 'ytd',
	'[2026-10-01,2026-11-15)', '[2026-09-01, 2026-10-15 12:30)', '["2026-09-01 00:00:00+00","2026-10-01 00:00:00Z")',
	'[2024-02-29,2024-03-01)']) WITH ORDINALITY AS w (word, n) ORDER BY n;

-- year and quarter before; as_of in its forms; a period that begins or ends at as_of
SELECT pg_temp.local(period_start), pg_temp.local(period_end), complete FROM cs.period('last quarter', '2026-02-10');
SELECT pg_temp.local(period_start), pg_temp.local(period_end), complete FROM cs.period('last month', date '2026-01-01');
SELECT pg_temp.local(period_start), pg_temp.local(period_end), complete FROM cs.period('2026-01', timestamp '2026-01-01 00:00');
SELECT pg_temp.local(period_start), pg_temp.local(period_end), complete FROM cs.period('2025-12', as_of => '2026-01-01');
SELECT pg_temp.local(period_start), pg_temp.local(period_end), complete FROM cs.period('today', timestamptz '2026-01-01 16:00+00');

-- fiscal year and week start are the policy's
UPDATE cs.policy SET fiscal_year_start = 4, week_start = 7;
SELECT word, pg_temp.show(word)
FROM unnest(ARRAY['FY2025', 'FY2026', '2026', 'this week', 'last week']) WITH ORDINALITY AS w (word, n) ORDER BY n;
SELECT cs.period('2026-W41');
UPDATE cs.policy SET week_start = 1;

-- a zone where the day may begin at one o'clock
UPDATE cs.policy SET time_zone = 'America/Santiago';
SELECT to_char(period_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS utc_start, period_end - period_start AS length
FROM cs.period('[2026-09-06,2026-09-07)');
UPDATE cs.policy SET time_zone = 'Asia/Tokyo';

-- refused, each with its near match
\set VERBOSITY terse
CREATE FUNCTION pg_temp.refused(word text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text; message text; hint text;
BEGIN
	PERFORM cs.period(word);
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RETURN format('%s %s | %s', state, message, split_part(hint, ' Periods are written', 1));
END $$;
SELECT pg_temp.refused(word) AS refusal
FROM unnest(ARRAY[NULL, '', 'nonsense', 'last mont', 'month', 'quarter', 'previous month', 'month to date', 'next month',
	'2026-11', '2027', 'FY2027', '[2026-10-21,2026-10-22)', '2026-13', '2026-00', '2026-Q5', '2026-Q0', '2026-W54', '2025-W53', '2026-W00',
	'0000', '2026-1', '10/2026', '2026/10', '202610', 'Oct 2026', 'october', 'Q3', 'Q3 2026', '2026Q3', 'W41', '2026W4', 'FY26', 'FY 2026', 'FY',
	'26-10', '01/02/2026', '2026-10-05', '2026-10-01..2026-10-15', '2026-10-01 to 2026-10-15',
	'[2026-10-01,2026-10-15]', '(2026-10-01,2026-10-15]', '[2026-10-01,)', '[,2026-10-01)', '[2026-10-01)', '[2026-10-15,2026-10-01)', '[2026-10-01,2026-10-01)',
	'[2026-02-29,2026-03-01)', '[2026-10-01,infinity)', '[2026-10-01 25:00,2026-10-02)', '[2026-10,2026-11)', '[10/01/2026,11/01/2026)',
	'[2026-10-01 10:00 Mars/Olympus,2026-10-02)', '[2026-10-01,2026-10-02,2026-10-03)', '2026-10-', '２０２６-10']) WITH ORDINALITY AS w (word, n) ORDER BY n;

-- instants
SELECT pg_temp.local(cs_internal.instant(t)) FROM unnest(ARRAY['2026-10-31', '2026-10-31 14:30', '2026-10-31T14:30:15.25',
	'2026-10-31 14:30Z', '2026-10-31 14:30:00+09', '2026-10-31 14:30-0330', '2026-10-31 14:30:00.0000005-03:30', '2026-10-31 14:30 Europe/Berlin',
	' 2026-10-31 ', '1969-12-31 23:59']) AS t;
SELECT pg_temp.local(cs_internal.instant(date '2026-10-31')), pg_temp.local(cs_internal.instant(timestamp '2026-10-31 14:30')),
	pg_temp.local(cs_internal.instant(timestamptz '2026-10-31 14:30+00'));
CREATE FUNCTION pg_temp.refused_instant(given text, type text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text; message text; hint text;
BEGIN
	EXECUTE format('SELECT cs_internal.instant(%L::%s)', given, type);
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RETURN format('%s %s %s', state, message, CASE WHEN hint <> '' THEN '(hint)' END);
END $$;
SELECT pg_temp.refused_instant(given, type)
FROM (VALUES ('', 'text'), ('now', 'text'), ('today', 'text'), ('NaN', 'text'), ('infinity', 'text'), ('-infinity', 'text'), ('infinity', 'date'),
	('-infinity', 'timestamp'), ('infinity', 'timestamptz'), ('2026-02-29', 'text'), ('2026-1-1', 'text'), ('2026-10-31 24:00', 'text'), ('31.10.2026', 'text'),
	('2026-10-31 10', 'text'), ('2026-10-31 10:00 nowhere', 'text'), ('2026-10-31 10:00+99', 'text'), ('2026-10-31x', 'text'), ('2026-10-31 10:00.', 'text')) AS v (given, type);

-- normal quantile and Wilson bounds
SELECT round(cs_internal.normal_quantile(p)::numeric, 12) FROM unnest(ARRAY[0.5, 0.975, 0.995, 0.025, 0.84134474606854293, 1e-10, 1e-300]) AS p;
SELECT cs_internal.normal_quantile(1);
SELECT k, n, round(cs_internal.wilson(k, n, 0.95, false)::numeric, 6) AS low, round(cs_internal.wilson(k, n, 0.95, true)::numeric, 6) AS high
FROM (VALUES (0, 12), (1, 20), (5, 100), (12, 12), (0, 0)) AS v (k, n);

-- before setup
ALTER TABLE cs.policy DISABLE TRIGGER USER;
DELETE FROM cs.policy;
ALTER TABLE cs.policy ENABLE TRIGGER USER;
SELECT cs.period('2026-09');
SELECT cs_internal.instant('2026-09-01');
RESET client_min_messages;
DROP OWNED BY regress_period_run;
DROP ROLE regress_period_run;
