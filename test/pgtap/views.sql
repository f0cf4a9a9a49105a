-- The views agree with each other, with the functions and with the facts, and
-- a reader sees them and nothing behind them.
\ir ../lib/small_company.sql
SET client_min_messages = warning;
CALL cs.refresh();
SELECT * FROM no_plan();

-- ---- the promised columns -----------------------------------------------------------
SELECT columns_are_there.* FROM (VALUES
	('customer_360', 'customer_id,name,owner,mrr,health_score,band,band_reason,coverage,stage,tier,touch,days_to_renewal,open_alerts'),
	('customer_health', 'customer_id'),
	('customer_segment', 'customer_id,dimension,segment,valid_from'),
	('customer_metric', 'customer_id,metric,value,as_of'),
	('open_alert', 'id,seq,rule,customer_id,key,severity,state,message,cause,owner,opened_at,acknowledged_at,resolved_at'),
	('churn_monthly', 'month,numerator,denominator,rate,ci_low,ci_high'),
	('revenue_monthly', 'month,mrr_start,new_mrr,reactivation_mrr,expansion_mrr,contraction_mrr,churn_mrr,pause_mrr,resume_mrr,mrr_end,grr,nrr'),
	('contact_priority', 'customer_id'),
	('movement', 'customer_id,at,kind,delta,mrr_after'),
	('health_history', 'customer_id,as_of,score,band,coverage,scorecard,version,basis,computed_at'),
	('segment_history', 'customer_id,dimension,segment,valid_from,valid_to,source,reason'),
	('job_run', 'id,job,status,started_at,ended_at,error'),
	('job_status', 'job'),
	('source_status', 'source'),
	('definition_status', 'status')) v(view, wanted),
	LATERAL (SELECT is((SELECT string_agg(w, ',') FROM unnest(string_to_array(wanted, ',')) w
		WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = to_regclass('cs.' || view) AND a.attname = w AND a.attnum > 0)), NULL, view || ' lacks no promised column') AS ok) columns_are_there;

-- ---- agreement ---------------------------------------------------------------------
SELECT is((SELECT count(*) FROM cs.customer_360), 40::bigint, 'customer_360: one row a customer');
SELECT is_empty($$SELECT id::text FROM app.customer EXCEPT SELECT customer_id FROM cs.customer_360$$, 'every one of them');
SELECT is_empty($$SELECT customer_id, name, owner FROM cs.customer_360 EXCEPT SELECT id::text, name, owner FROM app.customer$$, 'with name and owner of the facts');
SELECT is((SELECT sum(mrr) FROM cs.customer_360)::numeric(20,2),
	(SELECT sum(mrr) FROM app.subscription WHERE status = 'active' AND start_on < '2025-07-01 06:00+02' AND (end_on IS NULL OR end_on >= '2025-07-01 06:00+02'))::numeric(20,2),
	'MRR of all customers is what the contracts say');
SELECT is((SELECT sum(mrr) FROM cs.customer_360)::numeric(20,6), cs.mrr('2025-07-01 06:00')::numeric(20,6), 'and what cs.mrr() says');
SELECT is_empty($$SELECT customer_id, health_score, cs.health_score(customer_id) FROM cs.customer_360 WHERE health_score IS DISTINCT FROM cs.health_score(customer_id)$$,
	'health_score is the score of the view');
SELECT is_empty($$SELECT customer_id, health_score, sum(contribution) FROM cs.customer_360 c, cs.health_explain(c.customer_id) WHERE health_score IS NOT NULL
	GROUP BY 1, 2 HAVING sum(contribution) <> health_score$$, 'contributions sum to the score, exactly');
SELECT is_empty($$SELECT customer_id, health_score, band FROM cs.customer_360, cs.scorecard s WHERE s.name = 'default'
	AND band IS DISTINCT FROM CASE WHEN health_score < red_below THEN 'red' WHEN health_score < green_from THEN 'yellow' ELSE 'green' END AND health_score IS NOT NULL$$,
	'a first band is cut at red_below and green_from');
SELECT is_empty($$SELECT customer_id FROM cs.customer_360 WHERE mrr > 0 AND health_score IS NULL AND coverage >= 0.5$$, 'who is active and covered has a score');
SELECT is_empty($$SELECT customer_id FROM cs.customer_360 WHERE coalesce(mrr, 0) = 0 AND health_score IS NOT NULL$$, 'who has left has none');
SELECT isnt_empty($$SELECT customer_id FROM cs.customer_360 WHERE health_score IS NULL AND NOT active$$, 'some have left');
SELECT is_empty($$SELECT customer_id FROM cs.customer_360 JOIN cs.customer_health USING (customer_id)
	WHERE customer_360.health_score IS NULL AND coalesce(customer_360.band_reason, '') = '' OR customer_360.band_reason IS DISTINCT FROM customer_health.band_reason$$,
	'who has no score has the reason instead, also who left before the first evaluation');
SELECT is_empty($$SELECT customer_id, open_alerts FROM cs.customer_360 c WHERE open_alerts IS DISTINCT FROM (SELECT count(*) FROM cs.open_alert a WHERE a.customer_id = c.customer_id)$$,
	'open_alerts counts open_alert');
SELECT is_empty($$SELECT rule, customer_id, key FROM cs.open_alert GROUP BY 1, 2, 3 HAVING count(*) > 1$$, 'one open alert a rule, customer and key');
SELECT is_empty($$SELECT customer_id, dimension FROM cs.customer_segment GROUP BY 1, 2 HAVING count(*) > 1$$, 'one segment a customer and dimension');
SELECT is_empty($$SELECT customer_id, tier FROM cs.customer_360 EXCEPT SELECT customer_id, segment FROM cs.customer_segment WHERE dimension = 'tier'$$, 'the tier of customer_360 is that segment');
SELECT is((SELECT count(*) FROM cs.open_alert WHERE rule = 'ticket_escalated'),
	(SELECT count(*) FROM app.ticket t WHERE escalated AND (resolved_at IS NULL OR resolved_at >= '2025-07-01 06:00+02') AND opened_at < '2025-07-01 06:00+02'),
	'an alert for each open escalation');
SELECT is_empty($$SELECT m.* FROM cs.churn_monthly m, cs.churn(to_char(month, 'YYYY-MM')) c
	WHERE (m.numerator, m.denominator, m.rate, m.ci_low, m.ci_high) IS DISTINCT FROM (c.numerator, c.denominator, c.rate, c.ci_low, c.ci_high)$$, 'churn_monthly is churn() of each month');
SELECT cmp_ok((SELECT count(*) FROM cs.churn_monthly)::integer, '>=', 18, 'every month is there');
SELECT is_empty($$SELECT month FROM (SELECT month, lag(month) OVER (ORDER BY month) AS before FROM cs.churn_monthly) m WHERE month <> before + interval '1 month'$$, 'without a gap');
SELECT is_empty($$SELECT month FROM cs.revenue_monthly WHERE mrr_end <> mrr_start + new_mrr + reactivation_mrr + expansion_mrr + resume_mrr - contraction_mrr - churn_mrr - pause_mrr + fx_mrr$$,
	'revenue_monthly: opening plus movements is closing');
SELECT is_empty($$SELECT month FROM (SELECT month, mrr_start, lag(mrr_end) OVER (ORDER BY month) AS before FROM cs.revenue_monthly) m WHERE mrr_start <> before$$, 'and closing is the next opening');
SELECT is((SELECT sum(numerator) FROM cs.churn_monthly WHERE month < '2025-07-01')::numeric(20,6),
	(SELECT count(*) FROM cs.churn_monthly m, cs.churn_customers(to_char(m.month, 'YYYY-MM')) x WHERE m.month < '2025-07-01' AND x.in_numerator)::numeric(20,6),
	'churn_customers are those behind the numerators');
SELECT ok(count(*) > 0 AND bool_and(customer_id IN (SELECT customer_id FROM cs.customer_360 WHERE mrr > 0)), 'contact_priority: ' || count(*) || ' customers, all of them active') FROM cs.contact_priority;
SELECT is_empty($$SELECT source FROM cs.source_status WHERE unusable_rows <> 0 OR error IS NOT NULL$$, 'every row of every source was usable');
SELECT is_empty($$SELECT * FROM cs.definition_status WHERE status <> 'ok'$$, 'no definition fails');

-- ---- a reader ------------------------------------------------------------------------
CREATE ROLE views_reader;
SELECT cs.grant_reader('views_reader') IS NULL AS granted \gset
CREATE TEMP TABLE everything AS
	SELECT c.relname AS name FROM pg_class c WHERE c.relnamespace = 'cs'::regnamespace AND c.relkind = 'v';
CREATE FUNCTION public.rows_of(view text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
	EXECUTE format('SELECT count(v::text) FROM cs.%I v', view) INTO n;
	RETURN n;
END $$;
CREATE TEMP TABLE owner_sees AS SELECT name, public.rows_of(name) AS n FROM everything;
GRANT SELECT ON everything, owner_sees TO views_reader;
SET ROLE views_reader;
SELECT is(public.rows_of(name), n, 'a reader sees all ' || n || ' rows of ' || name) FROM owner_sees WHERE name NOT IN ('definition_history', 'definition_status') ORDER BY name;
SELECT is(cs.churn_rate('2025-05'), (SELECT rate FROM cs.churn_monthly WHERE month = '2025-05-01'), 'and calls reading functions');
SELECT throws_ok('SELECT * FROM app.ticket', '42501', NULL, 'but not the facts');
SELECT throws_ok('SELECT * FROM cs_internal.state', '42501', NULL, 'nor what is behind');
SELECT throws_ok($$UPDATE cs.policy SET run_as = 'views_reader'$$, '42501', NULL, 'nor may they define');
SELECT throws_ok($$SELECT cs.refresh_customer('1')$$, '42501', NULL, 'nor refresh');
SELECT throws_ok($$SELECT cs.drop_source('tickets')$$, '42501', NULL, 'nor drop a source');
SELECT throws_ok($$SET cs_ext.now = '2020-01-01'$$, '42501', NULL, 'nor turn the clock');
RESET ROLE;
SELECT * FROM finish();
DROP OWNED BY views_reader;
DROP ROLE views_reader;
