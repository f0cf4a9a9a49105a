-- full run only: policy.logo_level = 'parent' on random companies, with chains and
-- circles of parents, merges and every method: lists, segments, series and views agree,
-- the invariants hold, accounts are counted once more by another way, and without
-- parents both levels say the same. The seed is printed; psql -v seed=N repeats a run.
BEGIN;
SELECT no_plan();
\set run_as regress_logo_random_run
\ir ../lib/logo_company.sql

\ir ../lib/seed.sql
CREATE TEMP TABLE method AS SELECT unnest(ARRAY['snapshot', 'rolling_base', 'event_over_start', 'event_of_start', 'daily_sum', 'eligible_base', 'activity']) AS method;
UPDATE cs.policy SET logo_level = 'parent', free_is_active = random() < 0.3, period_edge = CASE WHEN random() < 0.4 THEN 'at' ELSE 'before' END;
INSERT INTO cust SELECT 'p' || n, CASE WHEN random() < 0.6 THEN 'p' || floor(random() * 50) WHEN random() < 0.1 THEN 'far' || n % 3 END,
	CASE WHEN random() < 0.8 THEN jsonb_build_object('channel', (ARRAY['web', 'partner', 'event'])[1 + floor(random() * 3)::integer]) END FROM generate_series(0, 59) n;
INSERT INTO sub (c, s, e, mrr, status, terms)
SELECT 'p' || floor(random() * 60)::integer, date_trunc('day', x.s), CASE WHEN random() < 0.85 THEN date_trunc('day', x.s) + make_interval(days => (random() * random() * 120)::integer) END,
	(ARRAY[0, 10, 20, 33.333333, 49.99])[1 + floor(random() * 5)::integer], (ARRAY['active', 'active', 'active', 'paused', 'trialing'])[1 + floor(random() * 5)::integer], CASE WHEN random() < 0.3 THEN 1 END
FROM (SELECT timestamptz '2024-01-05' + make_interval(hours => (random() * 3900)::integer) AS s FROM generate_series(1, 200)) x;
UPDATE sub SET s = date_trunc('month', s) WHERE random() < 0.2;
INSERT INTO event SELECT 'p' || floor(random() * 60)::integer, timestamptz '2024-01-01' + random() * interval '160 days' FROM generate_series(1, 150);
INSERT INTO merge SELECT 'p' || n, 'p' || floor(random() * 50), timestamptz '2024-02-01' + random() * interval '100 days' FROM generate_series(50, 56) n;
CALL cs.refresh(commit => false);
CREATE TEMP TABLE span AS SELECT unnest(ARRAY['2024-02', '2024-05', '2024-06', '[2024-02-10,2024-04-20)']) AS period;

-- active accounts counted by another way: up the parents, one at a time
CREATE FUNCTION pg_temp.top(id text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE way text[] := ARRAY[id]; up text;
BEGIN
	LOOP
		SELECT parent INTO up FROM cust WHERE c = way[cardinality(way)] AND parent <> c;
		IF NOT FOUND OR up IS NULL THEN RETURN way[cardinality(way)]; END IF;
		IF up = ANY (way) THEN RETURN (SELECT min(w COLLATE "C") FROM unnest(way[array_position(way, up):]) w); END IF;
		way := way || up;
	END LOOP;
END $$;
CREATE TEMP TABLE tops AS SELECT c, pg_temp.top(c) AS account FROM cust;
SELECT cmp_ok((SELECT count(DISTINCT account) FROM tops), '<', 50::bigint, 'companies have several customers');
CREATE FUNCTION pg_temp.active_at(t timestamptz) RETURNS TABLE (account text) LANGUAGE sql AS $$
	SELECT DISTINCT tops.account FROM tops, LATERAL (SELECT m.active_after FROM cs.movement m WHERE m.customer_id = tops.c AND (m.at < t OR m.at = t AND (SELECT period_edge = 'at' FROM cs.policy)) ORDER BY m.at DESC, m.seq DESC LIMIT 1) m WHERE m.active_after
$$;
SELECT is_empty($$ SELECT s.period FROM span s, cs.churn(s.period) c WHERE c.denominator <> (SELECT count(*) FROM pg_temp.active_at(c.period_start)) $$, 'active accounts at the start, counted one by one');
SELECT is_empty($$ SELECT s.period FROM span s, cs.revenue(s.period) r WHERE (r.customers_start, r.customers_end) IS DISTINCT FROM ((SELECT count(*) FROM pg_temp.active_at(r.period_start)), (SELECT count(*) FROM pg_temp.active_at(r.period_end))) $$, 'and in revenue');
SELECT is_empty($$ SELECT s.period, x.customer_id FROM span s, cs.churn_customers(s.period, NULL, 'snapshot') x, cs.churn(s.period) c WHERE x.part = 'churned' AND (x.customer_id NOT IN (SELECT account FROM pg_temp.active_at(c.period_start)) OR x.customer_id IN (SELECT account FROM pg_temp.active_at(c.period_end))) $$, 'who churned was there and is not');
SELECT is_empty('SELECT * FROM cs.check(''2024-01-01'', NULL)', 'the invariants hold on random companies');

CREATE FUNCTION pg_temp.add_up(basis text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	UPDATE cs.policy SET segment_basis = basis;
	CREATE TEMP TABLE part ON COMMIT DROP AS SELECT s.period AS word, d, m.method AS by, c.* FROM span s, unnest(ARRAY['tier', 'channel']) d, method m, cs.churn_by(s.period, d, m.method, 'logo') c;
	RETURN NEXT is_empty('SELECT word, d, by FROM part GROUP BY 1, 2, 3 HAVING sum(numerator) FILTER (WHERE segment <> ''(total)'') IS DISTINCT FROM max(numerator) FILTER (WHERE segment = ''(total)'')
		OR sum(denominator) FILTER (WHERE segment <> ''(total)'') IS DISTINCT FROM max(denominator) FILTER (WHERE segment = ''(total)'') OR sum(transfer_in) <> sum(transfer_out)', basis || ': segments add up to the total by every method');
	RETURN NEXT is_empty('SELECT p.word, p.d, p.by, p.segment FROM part p, cs.churn(p.word, nullif(p.d || '':'' || p.segment, p.d || '':(total)''), p.by) c WHERE (p.numerator, p.denominator, p.rate, p.ci_low) IS DISTINCT FROM (c.numerator, c.denominator, c.rate, c.ci_low)', basis || ': each is churn of its segment');
	RETURN NEXT is_empty('SELECT p.word, p.by, p.segment FROM part p, LATERAL (SELECT coalesce(sum(x.numerator), 0), coalesce(sum(x.denominator), 0), count(*) = count(DISTINCT x.customer_id) FROM cs.churn_customers(p.word, nullif(p.d || '':'' || p.segment, p.d || '':(total)''), p.by) x) w (n, b, once)
		WHERE p.numerator <> w.n OR p.denominator <> w.b OR NOT w.once', basis || ': accounts add up to each of them');
	CREATE TEMP TABLE money ON COMMIT DROP AS SELECT s.period AS word, d, r.* FROM span s, unnest(ARRAY['tier', 'channel']) d, cs.revenue_by(s.period, d) r;
	RETURN NEXT is_empty('SELECT m.word, m.segment FROM money m JOIN part p ON p.word = m.word AND p.d = m.d AND p.segment = m.segment AND p.by = ''snapshot'' WHERE m.customers_start <> p.denominator', basis || ': revenue has as many at the start');
	RETURN NEXT is_empty('SELECT m.word, m.segment FROM money m, cs.revenue(m.word, nullif(m.d || '':'' || m.segment, m.d || '':(total)'')) r WHERE (m.customers_start, m.customers_end, m.arpa, m.mrr_end, m.ltv_churn) IS DISTINCT FROM (r.customers_start, r.customers_end, r.arpa, r.mrr_end, r.ltv_churn)', basis || ': revenue of one segment says the same');
	RETURN NEXT is_empty('SELECT word, d FROM money GROUP BY 1, 2 HAVING sum(customers_end) FILTER (WHERE segment <> ''(total)'') <> max(customers_end) FILTER (WHERE segment = ''(total)'')', basis || ': and adds up at the end');
	DROP TABLE part, money;
	-- series and views by month
	RETURN NEXT is_empty('SELECT s.day, m.method FROM method m, cs.churn_series(''2024-01-01'', NULL, ''month'', NULL, m.method) s, cs.churn(to_char(s.day, ''YYYY-MM''), NULL, m.method) c WHERE (s.numerator, s.denominator, s.rate) IS DISTINCT FROM (c.numerator, c.denominator, c.rate)', basis || ': a series says what churn says');
	RETURN NEXT is_empty('SELECT s.day, m.method FROM method m, unnest(ARRAY[''tier:mid'', ''channel:web'']) p, cs.churn_series(''2024-02-01'', ''2024-05-01'', ''month'', p, m.method) s, cs.churn(to_char(s.day, ''YYYY-MM''), p, m.method) c WHERE (s.numerator, s.denominator, s.rate) IS DISTINCT FROM (c.numerator, c.denominator, c.rate)', basis || ': of a segment too');
	RETURN NEXT is_empty('SELECT s.month FROM cs.churn_monthly s, cs.churn(to_char(s.month, ''YYYY-MM'')) c WHERE (s.numerator, s.denominator) IS DISTINCT FROM (c.numerator, c.denominator)', basis || ': churn_monthly');
	RETURN NEXT is_empty('SELECT s.month FROM cs.revenue_monthly s, cs.revenue(to_char(s.month, ''YYYY-MM'')) c WHERE (s.customers_start, s.customers_end, s.arpa, s.mrr_end) IS DISTINCT FROM (c.customers_start, c.customers_end, c.arpa, c.mrr_end)', basis || ': revenue_monthly');
	RETURN NEXT is_empty('SELECT s.month, s.segment FROM cs.churn_by_segment_monthly s, cs.churn(to_char(s.month, ''YYYY-MM''), s.dimension || '':'' || s.segment) c WHERE s.dimension = ''channel'' AND (s.numerator, s.denominator) IS DISTINCT FROM (c.numerator, c.denominator)', basis || ': churn_by_segment_monthly');
	RETURN NEXT is_empty('SELECT s.month, s.segment FROM cs.revenue_by_segment_monthly s, cs.revenue(to_char(s.month, ''YYYY-MM''), s.dimension || '':'' || s.segment) c WHERE s.dimension = ''channel'' AND (s.customers_start, s.customers_end, s.arpa, s.mrr_end) IS DISTINCT FROM (c.customers_start, c.customers_end, c.arpa, c.mrr_end)', basis || ': revenue_by_segment_monthly');
END $$;
SELECT * FROM pg_temp.add_up('restated');
SELECT * FROM pg_temp.add_up('stored');
UPDATE cs.policy SET segment_basis = 'restated';

-- without parents an account is a customer
UPDATE cust SET parent = NULL;
CALL cs.refresh(commit => false);
CREATE FUNCTION pg_temp.answers() RETURNS TABLE (what text, answer text) LANGUAGE sql AS $$
	SELECT format('churn %s %s %s', s.period, m.method, p), jsonb_build_array(c.numerator, c.denominator, c.rate, c.ci_low)::text
	FROM span s, method m, unnest(ARRAY[NULL, 'tier:mid', 'channel:web', 'channel:(none)']) p, cs.churn(s.period, p, m.method, 'logo') c
	UNION ALL SELECT format('list %s %s %s', s.period, m.method, x.customer_id), to_jsonb(x)::text FROM span s, method m, cs.churn_customers(s.period, NULL, m.method) x WHERE m.method <> 'daily_sum'
	UNION ALL SELECT format('revenue %s %s', s.period, r.segment), (to_jsonb(r) - '{policy_version,as_of}'::text[])::text FROM span s, cs.revenue_by(s.period, 'tier') r
$$;
CREATE TEMP TABLE parents AS SELECT * FROM pg_temp.answers();
UPDATE cs.policy SET logo_level = 'customer';
SELECT cmp_ok((SELECT count(*) FROM parents), '>', 300::bigint, 'what is asked');
SELECT is_empty('SELECT * FROM pg_temp.answers() EXCEPT SELECT * FROM parents', 'where nobody has a parent both levels say the same');
SELECT * FROM finish();
ROLLBACK;
