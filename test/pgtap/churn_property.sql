-- full run only: what must hold of every rate and amount, on random subscriptions (overlapping, gapped,
-- touching, of no length, at the same instants, in three currencies), periods and
-- segments: the invariants of cs.check(), touching pieces and the order of rows change
-- nothing, segments plus transfers and customers add up exactly.
-- The seed is printed; psql -v seed=N repeats a run.
BEGIN;
SELECT no_plan();
CREATE ROLE regress_property_run NOLOGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL search_path = public;
SET LOCAL cs_ext.now = '2024-08-20 15:30+00';
\ir ../lib/seed.sql

INSERT INTO cs.policy (run_as, time_zone, currency, week_start, free_is_active, max_pause_days, gap_days_money)
SELECT 'regress_property_run', (ARRAY['UTC', 'Europe/Berlin', 'Asia/Tokyo', 'America/New_York'])[1 + floor(random() * 4)::integer], 'EUR', 1 + floor(random() * 7)::integer,
	random() < 0.3, (ARRAY[NULL, 20])[1 + floor(random() * 2)::integer], (ARRAY[0, 0, 2])[1 + floor(random() * 3)::integer];
UPDATE cs.policy SET period_edge = 'at' WHERE random() < 0.4;
SELECT diag(format('zone %s, edge %s, free_is_active %s, max_pause_days %s, gap_days_money %s', time_zone, period_edge, free_is_active, max_pause_days, gap_days_money)) FROM cs.policy;
INSERT INTO cs.fx_rate (currency, valid_from, rate) VALUES ('USD', '2000-01-01', 0.9), ('GBP', '2000-01-01', 1.1), ('GBP', '2024-03-10', 1.2), ('GBP', '2024-05-01', 1.15);
CREATE TABLE cust (c text PRIMARY KEY, attributes jsonb);
CREATE TABLE sub (id serial, c text, s timestamptz, e timestamptz, mrr numeric, currency text, seats integer, status text);
SELECT count(*) FROM cs.add_source('cust', 'customer', 'cust', '{"customer_id": "c", "attributes": "attributes"}') \g /dev/null
SELECT count(*) FROM cs.add_source('sub', 'subscription', 'sub', '{"customer_id": "c", "start_at": "s", "end_at": "e", "mrr": "mrr", "currency": "currency", "seats": "seats", "status": "status"}') \g /dev/null
INSERT INTO cs.metric (name, source, expression) VALUES ('mrr', 'ledger', 'mrr');
INSERT INTO cs.dimension (name, fallback) VALUES ('tier', 'small');
INSERT INTO cs.segment (dimension, name, rule, priority) VALUES ('tier', 'big', 'mrr >= 60', 1), ('tier', 'mid', 'mrr >= 25', 2);
INSERT INTO cs.dimension (name, attribute) VALUES ('channel', 'channel');
INSERT INTO cust SELECT 'p' || n, CASE WHEN random() < 0.8 THEN jsonb_build_object('channel', (ARRAY['web', 'partner', 'event'])[1 + floor(random() * 3)::integer]) END FROM generate_series(0, 49) n;
INSERT INTO sub (c, s, e, mrr, currency, seats, status)
SELECT 'p' || floor(random() * 50)::integer, x.s, CASE WHEN random() < 0.85 THEN x.s + CASE WHEN random() < 0.1 THEN interval '0' ELSE make_interval(hours => (random() * random() * 3000)::integer) END END,
	(ARRAY[0, 10, 20, 33.333333, 49.99])[1 + floor(random() * 5)::integer], (ARRAY[NULL, 'EUR', 'USD', 'GBP'])[1 + floor(random() * 4)::integer], (random() * 5)::integer,
	(ARRAY['active', 'active', 'active', 'active', 'paused', 'trialing'])[1 + floor(random() * 6)::integer]
FROM (SELECT timestamptz '2024-01-05' + make_interval(hours => (random() * 5000)::integer) AS s FROM generate_series(1, 260)) x;
-- whole days and firsts of months, so that many things happen at one instant and on bounds; some end where another begins
UPDATE sub SET s = date_trunc('day', s), e = date_trunc('day', e) WHERE random() < 0.6;
UPDATE sub SET s = date_trunc('month', s) WHERE random() < 0.15;
UPDATE sub SET e = date_trunc('month', e) WHERE random() < 0.15 AND date_trunc('month', e) >= s;
INSERT INTO sub (c, s, e, mrr, currency, seats, status) SELECT c, e, e + interval '35 days', mrr + 5, currency, seats + 1, 'active' FROM sub WHERE e IS NOT NULL AND random() < 0.2;
CALL cs.refresh(commit => false);
SELECT cmp_ok(count(*), '>=', 7::bigint, 'kinds of movements there are') FROM (SELECT DISTINCT kind FROM cs_internal.movement) k;

CREATE TEMP TABLE span AS
SELECT unnest(ARRAY['2024-03', '2024-04', '2024-08']) AS period
UNION ALL SELECT format('[%s,%s)', a::date, a::date + 1 + (random() * 60)::integer) FROM (SELECT date '2024-01-10' + (random() * 150)::integer AS a FROM generate_series(1, 2)) x;
CREATE TEMP TABLE method AS SELECT unnest(ARRAY['snapshot', 'rolling_base', 'event_over_start', 'event_of_start', 'daily_sum', 'eligible_base']) AS method;
CREATE TEMP TABLE unit AS SELECT unnest(ARRAY['logo', 'gross_mrr', 'net_mrr', 'seats']) AS unit;

-- everything that is asked below, as text
CREATE FUNCTION pg_temp.answers() RETURNS TABLE (what text, answer text) LANGUAGE sql AS $$
	SELECT format('churn %s %s %s', s.period, m.method, u.unit), jsonb_build_array(c.numerator, c.denominator, c.rate, c.ci_low, c.ci_high, c.month_rate)::text
	FROM span s, method m, unit u, cs.churn(s.period, NULL, m.method, u.unit) c WHERE m.method <> 'eligible_base'
	UNION ALL SELECT format('by %s %s %s', s.period, d, c.segment), (to_jsonb(c) - '{policy_version,as_of}'::text[])::text
	FROM span s, unnest(ARRAY['tier', 'channel']) d, cs.churn_by(s.period, d, 'snapshot', 'net_mrr') c
	UNION ALL SELECT format('revenue %s %s %s', s.period, b, r.segment), (to_jsonb(r) - '{policy_version,as_of}'::text[])::text
	FROM span s, unnest(ARRAY['ledger', 'endpoints']) b, cs.revenue_by(s.period, 'tier', b) r
	UNION ALL SELECT format('month %s', to_char(r.month, 'YYYY-MM')), (to_jsonb(r) - '{data_through_at,computed_at}'::text[])::text FROM cs.revenue_monthly r
	UNION ALL SELECT format('week %s', to_char(r.day, 'YYYY-MM-DD')), jsonb_build_array(r.numerator, r.denominator)::text FROM cs.churn_series('2024-01-01', NULL, 'week', NULL, 'event_over_start') r
	UNION ALL SELECT format('mrr %s', to_char(d, 'YYYY-MM-DD')), cs.mrr(d::date)::text FROM generate_series(timestamp '2024-01-01', '2024-08-01', '20 days') d
$$;

-- ---- customers, segments and transfers add up --------------------------------------
CREATE FUNCTION pg_temp.add_up(basis text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	UPDATE cs.policy SET segment_basis = basis;
	CREATE TEMP TABLE part ON COMMIT DROP AS SELECT s.period AS word, d, m.method AS by, u.unit AS of, c.* FROM span s, unnest(ARRAY['tier', 'channel']) d, method m, unit u, cs.churn_by(s.period, d, m.method, u.unit) c;
	RETURN NEXT is_empty('SELECT word, d, by, of FROM part GROUP BY 1, 2, 3, 4 HAVING sum(numerator) FILTER (WHERE segment <> ''(total)'') IS DISTINCT FROM max(numerator) FILTER (WHERE segment = ''(total)'')
		OR sum(denominator) FILTER (WHERE segment <> ''(total)'') IS DISTINCT FROM max(denominator) FILTER (WHERE segment = ''(total)'') OR sum(transfer_in) <> sum(transfer_out)', basis || ': segments add up to the total by every method and unit');
	RETURN NEXT is_empty('SELECT p.word, p.by, p.of FROM part p, cs.churn(p.word, NULL, p.by, p.of) c WHERE p.segment = ''(total)'' AND d = ''tier'' AND (p.numerator, p.denominator, p.rate) IS DISTINCT FROM (c.numerator, c.denominator, c.rate)', basis || ': which is churn of the period');
	RETURN NEXT is_empty('SELECT p.word, p.by, p.of, p.segment FROM part p, LATERAL (SELECT coalesce(sum(x.numerator), 0), coalesce(sum(x.denominator), 0) FROM cs.churn_customers(p.word, nullif(p.d || '':'' || p.segment, p.d || '':(total)''), p.by, p.of) x WHERE p.d = ''tier'') w (n, b)
		WHERE p.d = ''tier'' AND (p.numerator <> w.n OR p.denominator <> w.b)', basis || ': customers add up to each of them');
	CREATE TEMP TABLE money ON COMMIT DROP AS SELECT s.period AS word, d, b, r.* FROM span s, unnest(ARRAY['tier', 'channel']) d, unnest(ARRAY['ledger', 'endpoints']) b, cs.revenue_by(s.period, d, b) r;
	RETURN NEXT is_empty('SELECT word, d, b FROM money GROUP BY 1, 2, 3 HAVING ' || (SELECT string_agg(format('sum(%1$s) FILTER (WHERE segment <> ''(total)'') <> max(%1$s) FILTER (WHERE segment = ''(total)'')', k), ' OR ')
		FROM unnest(ARRAY['mrr_start', 'new_mrr', 'reactivation_mrr', 'expansion_mrr', 'contraction_mrr', 'churn_mrr', 'pause_mrr', 'resume_mrr', 'fx_mrr', 'transfer_in - transfer_out', 'mrr_end', 'customers_start', 'customers_end']) k), basis || ': revenue of the segments adds up');
	RETURN NEXT is_empty('SELECT * FROM money WHERE mrr_end <> mrr_start + new_mrr + reactivation_mrr + expansion_mrr + resume_mrr + merge_in + transfer_in - contraction_mrr - churn_mrr - pause_mrr - merge_out - transfer_out + fx_mrr', basis || ': and rolls forward');
	RETURN NEXT is_empty('SELECT m.word FROM money m, cs.revenue(m.word, NULL, m.b) r WHERE m.segment = ''(total)'' AND (m.mrr_start, m.churn_mrr, m.grr, m.nrr, m.mrr_end, m.ltv) IS DISTINCT FROM (r.mrr_start, r.churn_mrr, r.grr, r.nrr, r.mrr_end, r.ltv)', basis || ': the total is revenue of the period');
	RETURN NEXT is_empty('SELECT a.word, a.segment FROM money a JOIN money z ON z.segment = a.segment AND z.d = a.d AND z.b = a.b AND z.period_start = a.period_end WHERE a.mrr_end <> z.mrr_start OR a.customers_end <> z.customers_start', basis || ': a segment closes where it opens next');
	RETURN NEXT is_empty('SELECT word FROM money WHERE grr < 0 OR grr > 1 OR grr > nrr AND b = ''endpoints'' AND fx_mrr = 0', basis || ': 0 <= GRR <= 1, GRR <= NRR');
	RETURN NEXT is_empty('SELECT l.word FROM money l JOIN money e USING (word, d, segment) WHERE l.b = ''ledger'' AND e.b = ''endpoints'' AND l.grr > e.grr', basis || ': GRR by movements never exceeds GRR between endpoints');
	DROP TABLE part, money;
END $$;
SELECT * FROM pg_temp.add_up('restated');
SELECT * FROM pg_temp.add_up('stored');
UPDATE cs.policy SET segment_basis = 'restated';
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT * FROM cs.check(''2024-01-01'', NULL)', 'the invariants hold');

-- ---- touching pieces, and the order of rows -------------------------------------------
CREATE TEMP TABLE first AS SELECT * FROM pg_temp.answers();
CREATE TEMP TABLE ledger AS SELECT m.* FROM cs_internal.movement m;
SELECT cmp_ok((SELECT count(*) FROM first), '>', 200::bigint, 'what is asked');
-- a row of a currency whose rate moves would take another rate in its second piece
CREATE TEMP TABLE cut AS SELECT id, s + (coalesce(e, '2024-08-20') - s) * random() AS at FROM sub WHERE coalesce(e, '2024-08-20') > s + interval '2 hours' AND currency IS DISTINCT FROM 'GBP' AND random() < 0.6;
INSERT INTO sub (c, s, e, mrr, currency, seats, status) SELECT c, cut.at, e, mrr, currency, seats, status FROM sub JOIN cut USING (id);
UPDATE sub SET e = cut.at FROM cut WHERE cut.id = sub.id;
CALL cs.refresh(commit => false);
SELECT cmp_ok((SELECT count(*) FROM cut), '>', 60::bigint, 'rows are cut in two');
SELECT is_empty('SELECT * FROM pg_temp.answers() EXCEPT SELECT * FROM first', 'touching pieces change no answer');
SELECT is_empty('SELECT customer_id, at, kind, delta, mrr_after, active_after FROM cs_internal.movement EXCEPT SELECT customer_id, at, kind, delta, mrr_after, active_after FROM ledger', 'nor the ledger');
CREATE TEMP TABLE kept AS SELECT * FROM sub;
DELETE FROM sub;
INSERT INTO sub SELECT * FROM kept ORDER BY random();
CALL cs.refresh(commit => false);
SELECT is_empty('SELECT * FROM pg_temp.answers() EXCEPT SELECT * FROM first', 'nor does the order of rows');
SELECT is((SELECT count(*) FROM pg_temp.answers()), (SELECT count(*) FROM first), 'which are as many');
-- nor what the session has set
SET LOCAL TimeZone = 'Pacific/Kiritimati'; SET LOCAL DateStyle = 'SQL, DMY'; SET LOCAL extra_float_digits = 0; SET LOCAL enable_hashjoin = off; SET LOCAL enable_sort = off;
SELECT is_empty($$ SELECT what, answer FROM pg_temp.answers() WHERE what LIKE 'churn%' OR what LIKE 'mrr%' OR what LIKE 'week%' EXCEPT SELECT what, answer FROM first $$, 'nor what the session has set');
SELECT * FROM finish();
ROLLBACK;
