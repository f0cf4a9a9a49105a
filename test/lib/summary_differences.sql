-- summary_differences.sql: what monthly sums say against each month and segment
-- asked for by itself, for the tests of summaries. Included inside their
-- transaction; they bring the tables part, span and their own random ledger.
CREATE FUNCTION pg_temp.bounds() RETURNS timestamptz[] LANGUAGE sql AS $$ SELECT cs_internal.month_starts('2023-03-15', until) || until FROM span $$;
CREATE FUNCTION pg_temp.words() RETURNS TABLE (n integer, word text) LANGUAGE sql AS $$
	SELECT n, to_char(timestamp '2023-03-01' + (n - 1) * interval '1 month', 'YYYY-MM') FROM generate_series(1, cardinality(pg_temp.bounds()) - 1) n $$;
CREATE TABLE method AS SELECT unnest(ARRAY['snapshot', 'rolling_base', 'event_over_start', 'event_of_start']) AS method;
CREATE TABLE unit AS SELECT unnest(ARRAY['logo', 'gross_mrr', 'net_mrr']) AS unit;
-- A random choice of everything that can be asked each time, everything in the long run.
CREATE FUNCTION pg_temp.differences() RETURNS TABLE (what text) LANGUAGE sql AS $$
	WITH asked AS MATERIALIZED (
		SELECT p.part, m.method, u.unit, w.* FROM part p CROSS JOIN method m CROSS JOIN unit u CROSS JOIN pg_temp.words() w ORDER BY random() LIMIT 12
	)
	SELECT format('churn %s %s %s %s: %s instead of %s', a.word, a.part, a.method, a.unit, (s.numerator, s.denominator, s.rate, s.k, s.n), (c.numerator, c.denominator, c.rate))
	FROM asked a
	CROSS JOIN LATERAL cs.churn(a.word, a.part, a.method, a.unit) c
	LEFT JOIN LATERAL (SELECT x.* FROM cs_internal.churn_periods(pg_temp.bounds(), split_part(a.part, ':', 1), a.method, a.unit) x
		WHERE x.in_segment = coalesce(split_part(a.part, ':', 2), '(total)') AND x.period_no = a.n) s ON true
	WHERE (coalesce(s.numerator, 0), coalesce(s.denominator, 0), s.rate) IS DISTINCT FROM (c.numerator, c.denominator, c.rate)
		OR a.unit = 'logo' AND a.method IN ('snapshot', 'event_of_start') AND (coalesce(s.k, 0), coalesce(s.n, 0)) IS DISTINCT FROM (c.numerator::bigint, c.denominator::bigint)
	UNION ALL
	(WITH asked AS MATERIALIZED (
		SELECT p.part, b.basis, w.* FROM part p CROSS JOIN (VALUES ('ledger'), ('endpoints')) b (basis) CROSS JOIN pg_temp.words() w ORDER BY random() LIMIT 6
	)
	SELECT format('revenue %s %s %s: %s instead of %s', a.word, a.part, a.basis, s, c)
	FROM asked a
	CROSS JOIN LATERAL (SELECT r.mrr_start, r.new_mrr, r.reactivation_mrr, r.expansion_mrr, r.contraction_mrr, r.churn_mrr, r.pause_mrr, r.resume_mrr,
		r.merge_in, r.merge_out, r.fx_mrr, r.transfer_in, r.transfer_out, r.mrr_end, r.grr, r.nrr, r.gross_mrr_churn, r.net_mrr_churn, r.quick_ratio, r.arpa,
		r.customers_start, r.customers_end FROM cs.revenue(a.word, a.part, a.basis) r) c
	LEFT JOIN LATERAL (SELECT x.mrr_start, x.new_mrr, x.reactivation_mrr, x.expansion_mrr, x.contraction_mrr, x.churn_mrr, x.pause_mrr, x.resume_mrr,
		x.merge_in, x.merge_out, x.fx_mrr, x.transfer_in, x.transfer_out, x.mrr_end, x.grr, x.nrr, x.gross_mrr_churn, x.net_mrr_churn, x.quick_ratio, x.arpa,
		x.customers_start, x.customers_end
		FROM cs_internal.revenue_periods(pg_temp.bounds(), split_part(a.part, ':', 1), a.basis = 'endpoints') x
		WHERE x.period_no = a.n AND x.in_segment = coalesce(split_part(a.part, ':', 2), '(total)')) s ON true
	-- a segment that never had a customer has no sums
	WHERE CASE WHEN s IS NULL THEN (c.mrr_start, c.mrr_end, c.transfer_in, c.customers_start) <> (0, 0, 0, 0) ELSE s IS DISTINCT FROM c END)
$$;
CREATE TABLE kept (pass text, r cs_internal.summary_month);
-- What is kept now, and what a build from nothing makes of it.
CREATE FUNCTION pg_temp.same_as_built(name text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO kept SELECT name, k FROM cs_internal.summary_month k;
	DELETE FROM cs_internal.summary;
	CALL cs.refresh(commit => false);
	RETURN NEXT set_eq('SELECT * FROM cs_internal.summary_month', format('SELECT (r).* FROM kept WHERE pass = %L', name), name);
END $$;
