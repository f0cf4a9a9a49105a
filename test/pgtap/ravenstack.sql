-- RavenStack, a data set nobody here made: five ordinary tables, mapped,
-- refreshed, and compared with numbers computed elsewhere
-- (oracles/endpoints_expected.json, oracles/ravenstack.json).
\set ON_ERROR_STOP 1
SET client_min_messages = warning;

SELECT plan(27);

CREATE TABLE account (
	account_id text PRIMARY KEY,
	account_name text NOT NULL,
	industry text,
	country text,
	signup_date date NOT NULL,
	referral_source text,
	plan_tier text,
	seats integer,
	is_trial boolean,
	churn_flag boolean
);
CREATE TABLE subscription (
	subscription_id text PRIMARY KEY,
	account_id text NOT NULL REFERENCES account,
	start_date date NOT NULL,
	end_date date,
	plan_tier text,
	seats integer,
	mrr_amount numeric,
	arr_amount numeric,
	is_trial boolean,
	upgrade_flag boolean,
	downgrade_flag boolean,
	churn_flag boolean,
	billing_frequency text,
	auto_renew_flag boolean
);
CREATE INDEX ON subscription (account_id);
-- usage_id is no key: the data has duplicates
CREATE TABLE feature_usage (
	usage_id text NOT NULL,
	subscription_id text NOT NULL REFERENCES subscription,
	usage_date date NOT NULL,
	feature_name text,
	usage_count integer,
	usage_duration_secs integer,
	error_count integer,
	is_beta_feature boolean
);
CREATE INDEX ON feature_usage (subscription_id, usage_date);
CREATE TABLE support_ticket (
	ticket_id text PRIMARY KEY,
	account_id text NOT NULL REFERENCES account,
	submitted_at timestamp NOT NULL,
	closed_at timestamp,
	resolution_time_hours numeric,
	priority text,
	first_response_time_minutes integer,
	satisfaction_score numeric,
	escalation_flag boolean
);
CREATE INDEX ON support_ticket (account_id);
CREATE TABLE churn_event (
	churn_event_id text PRIMARY KEY,
	account_id text NOT NULL REFERENCES account,
	churn_date date NOT NULL,
	reason_code text,
	refund_amount_usd numeric,
	preceding_upgrade_flag boolean,
	preceding_downgrade_flag boolean,
	is_reactivation boolean,
	feedback_text text
);
CREATE INDEX ON churn_event (account_id);

SELECT format('COPY %I FROM %L CSV HEADER', t, :'testdata' || '/data/ravenstack/ravenstack_' || f || '.csv')
FROM (VALUES (1, 'account', 'accounts'), (2, 'subscription', 'subscriptions'), (3, 'feature_usage', 'feature_usage'),
	(4, 'support_ticket', 'support_tickets'), (5, 'churn_event', 'churn_events')) x (n, t, f) ORDER BY n \gexec

CREATE VIEW account_usage AS
SELECT u.*, s.account_id FROM feature_usage u JOIN subscription s USING (subscription_id);

ANALYZE;
SELECT pg_read_file(:'testdata' || '/oracles/ravenstack.json') AS oracle, pg_read_file(:'testdata' || '/oracles/endpoints_expected.json') AS endpoints \gset
CREATE TABLE oracle AS SELECT :'oracle'::jsonb AS doc, :'endpoints'::jsonb -> 'ravenstack' -> 'before' AS months;

SELECT cs.setup(time_zone => 'UTC', currency => 'USD') \g /dev/null
SELECT count(*) FROM cs.add_source('account', 'customer', 'account',
	'{"customer_id": "account_id", "name": "account_name", "created_at": "signup_date",
	"attributes": "jsonb_build_object(''industry'', industry, ''country'', country, ''plan'', plan_tier)"}') \g /dev/null
SELECT count(*) FROM cs.add_source('subscription', 'subscription', 'subscription',
	'{"customer_id": "account_id", "subscription_id": "subscription_id", "start_at": "start_date", "end_at": "end_date",
	"mrr": "mrr_amount", "product": "plan_tier", "seats": "seats", "is_trial": "is_trial", "auto_renew": "auto_renew_flag"}') \g /dev/null
SELECT count(*) FROM cs.add_source('feature_usage', 'usage_event', 'account_usage',
	'{"customer_id": "account_id", "at": "usage_date", "event": "feature_name", "event_count": "usage_count"}') \g /dev/null
SELECT count(*) FROM cs.add_source('ticket', 'ticket', 'support_ticket',
	'{"customer_id": "account_id", "ticket_id": "ticket_id", "opened_at": "submitted_at", "resolved_at": "closed_at",
	"first_reply_at": "submitted_at + first_response_time_minutes * interval ''1 minute''", "severity": "priority",
	"csat": "satisfaction_score", "escalated": "escalation_flag"}') \g /dev/null
SELECT count(*) FROM cs.add_source('churn_event', 'cancellation', 'churn_event',
	'{"customer_id": "account_id", "at": "churn_date", "reason": "reason_code", "note": "feedback_text"}') \g /dev/null

-- ---- the day before: metrics of four accounts against pandas

-- rows and errors, which a usage event does not have
SELECT count(*) FROM cs.add_source('usage_row', 'other', 'account_usage', '{"customer_id": "account_id", "at": "usage_date", "x_errors": "error_count"}') \g /dev/null
SELECT count(*) FROM cs.add_source('account_day', 'other', 'account', '{"customer_id": "account_id", "x_signup": "signup_date"}') \g /dev/null

INSERT INTO cs.metric (name, source, expression, unit, better) VALUES
	('rs_usage_30d', 'usage', 'events(usage, NULL, 30)', 'count', 'high'),
	('rs_usage_90d', 'usage', 'events(usage, NULL, 90)', 'count', 'high'),
	('rs_features_90d', 'usage', 'distinct_events(usage, 90)', 'count', 'high'),
	('rs_days_since', 'usage', 'days_since(usage, NULL)', 'days', 'low'),
	('rs_tickets_90d', 'ticket', 'count(*) FILTER (WHERE opened_at >= as_of_day - 90)', 'count', 'low'),
	('rs_urgent_90d', 'ticket', $$count(*) FILTER (WHERE severity = 'urgent' AND opened_at >= as_of_day - 90)$$, 'count', 'low'),
	('rs_escalated_90d', 'ticket', 'count(*) FILTER (WHERE escalated AND opened_at >= as_of_day - 90)', 'count', 'low'),
	('rs_csat', 'ticket', 'avg(csat)', 'number', 'high'),
	('rs_rows_30d', 'usage_row', 'count(*) FILTER (WHERE at >= as_of_day - 30)', 'count', 'high'),
	('rs_errors_90d', 'usage_row', 'coalesce(sum(x_errors) FILTER (WHERE at >= as_of_day - 90), 0)', 'count', 'low'),
	('rs_tenure', 'account_day', 'as_of_day - max(x_signup)', 'days', 'high'),
	('rs_mrr', 'ledger', 'mrr', 'money', 'high');

SET cs_ext.now = '2024-12-31';
CALL cs.refresh();

SELECT results_eq($$
	SELECT h.key, i.name, round(m.value::numeric, 6)
	FROM oracle o, jsonb_each(o.doc -> 'health_inputs_2024_12_31') h,
		(VALUES ('rs_mrr'), ('rs_usage_30d'), ('rs_usage_90d'), ('rs_features_90d'), ('rs_days_since'), ('rs_tickets_90d'),
		('rs_urgent_90d'), ('rs_escalated_90d'), ('rs_csat'), ('rs_rows_30d'), ('rs_errors_90d'), ('rs_tenure')) i (name)
	LEFT JOIN LATERAL (SELECT x.value FROM cs.customer_metric x WHERE x.customer_id = h.key AND x.metric = i.name) m ON true
	ORDER BY h.key COLLATE "C", i.name COLLATE "C"
$$, $$
	SELECT h.key, i.name, round((h.value ->> i.of)::numeric, 6)
	FROM oracle o, jsonb_each(o.doc -> 'health_inputs_2024_12_31') h,
		(VALUES ('rs_mrr', 'mrr'), ('rs_usage_30d', 'usage_count_30d'), ('rs_usage_90d', 'usage_count_90d'),
		('rs_features_90d', 'distinct_features_90d'), ('rs_days_since', 'days_since_last_usage'), ('rs_tickets_90d', 'tickets_90d'),
		('rs_urgent_90d', 'urgent_tickets_90d'), ('rs_escalated_90d', 'escalated_90d'), ('rs_csat', 'avg_csat_all'),
		('rs_rows_30d', 'usage_rows_30d'), ('rs_errors_90d', 'errors_90d'), ('rs_tenure', 'tenure_days')) i (name, of)
	ORDER BY h.key COLLATE "C", i.name COLLATE "C"
$$, 'all twelve inputs of four accounts at 2024-12-31');

-- a scorecard over them gives the stored score, and the same to the oracle's own numbers
INSERT INTO cs.scorecard (name, priority, min_coverage) VALUES ('rs', 1, 0);
INSERT INTO cs.measure (scorecard, name, metric, weight, worst, best)
SELECT 'rs', v.* FROM (VALUES ('features', 'rs_features_90d', 3, 0, 8), ('silence', 'rs_days_since', 3, 30, 0), ('csat', 'rs_csat', 2, 1, 5),
	('errors', 'rs_errors_90d', 1, 10, 0), ('tenure', 'rs_tenure', 1, 0, 365)) v;
CALL cs.refresh();
SELECT results_eq($$
	SELECT h.key, cs.health_score(h.key) FROM oracle o, jsonb_each(o.doc -> 'health_inputs_2024_12_31') h ORDER BY h.key COLLATE "C"
$$, $$
	SELECT h.key, cs.score(jsonb_build_object('rs_features_90d', h.value -> 'distinct_features_90d', 'rs_days_since', h.value -> 'days_since_last_usage',
		'rs_csat', h.value -> 'avg_csat_all', 'rs_errors_90d', h.value -> 'errors_90d', 'rs_tenure', h.value -> 'tenure_days'), 'rs')
	FROM oracle o, jsonb_each(o.doc -> 'health_inputs_2024_12_31') h ORDER BY h.key COLLATE "C"
$$, 'the stored scores are those of cs.score() over the oracle''s inputs');
SELECT is((SELECT round(cs.health_score('A-0a282f')::numeric, 9)), round((3 * 100 + 3 * 100 * 21 / 30.0 + 2 * 100 * (4.666666666666667 - 1) / 4 + 50 + 100 * 126 / 365.0) / 10, 9),
	'one of them by hand');
DELETE FROM cs.scorecard WHERE name = 'rs';

-- ---- the first day of 2025

SET cs_ext.now = '2025-01-01';
CALL cs.refresh();

SELECT is((SELECT count(*) FROM cs.customer_360), 500::bigint, 'customer_360 has one row per account');
SELECT is((SELECT count(DISTINCT customer_id) FROM cs.customer_360), 500::bigint, 'and no account twice');
SELECT is_empty('SELECT account_id FROM account EXCEPT SELECT customer_id FROM cs.customer_360', 'no account is missing');
SELECT is((SELECT count(*) FROM cs.customer_360 c JOIN account a ON a.account_id = c.customer_id WHERE c.name = a.account_name), 500::bigint, 'names are there');

-- who is active or in trial is scored; the others say why not
CREATE TABLE running AS
SELECT a.account_id,
	coalesce(sum(s.mrr_amount) FILTER (WHERE NOT s.is_trial), 0) AS mrr,
	coalesce(bool_or(s.is_trial), false) AS in_trial,
	sum(s.seats) FILTER (WHERE NOT s.is_trial) AS seats
FROM account a LEFT JOIN subscription s ON s.account_id = a.account_id AND s.start_date < '2025-01-01' AND (s.end_date >= '2025-01-01' OR s.end_date IS NULL)
GROUP BY 1;
SELECT cmp_ok((SELECT count(*) FROM running WHERE mrr > 0 OR in_trial), '>', 450::bigint, 'most accounts are running');
SELECT is_empty($$
	SELECT r.account_id FROM running r WHERE (mrr > 0 OR in_trial) AND cs.health_score(r.account_id) IS NULL
$$, 'every account that is active or in trial is scored');
SELECT is_empty($$
	SELECT r.account_id FROM running r WHERE NOT (mrr > 0 OR in_trial) AND cs.health_score(r.account_id) IS NOT NULL
$$, 'and no other');
SELECT is_empty($$SELECT 1 FROM running r WHERE cs.health_score(r.account_id) NOT BETWEEN 0 AND 100$$, 'scores lie between 0 and 100');
SELECT is((SELECT count(*) FROM running r JOIN cs.customer_360 c ON c.customer_id = r.account_id WHERE c.mrr = r.mrr), 500::bigint, 'MRR of each account is that of plain SQL');
SELECT is(cs.mrr('2025-01-01'), (SELECT sum(mrr) FROM running), 'and so is the total');
SELECT is_empty($$
	SELECT r.account_id, r.seats, m.value FROM running r LEFT JOIN cs.customer_metric m ON m.customer_id = r.account_id AND m.metric = 'seats'
	WHERE m.value::numeric IS DISTINCT FROM r.seats
$$, 'seats of active rows without trials');
SELECT is_empty($$
	SELECT r.account_id FROM running r JOIN LATERAL (SELECT sum(e.contribution) AS s, cs.health_score(r.account_id) AS score FROM cs.health_explain(r.account_id) e) e ON true
	WHERE e.score IS NOT NULL AND e.s <> e.score
$$, 'contributions add up to each score');

-- ---- churn and revenue of 2023

CREATE TABLE expected AS
SELECT m.* FROM oracle o, jsonb_to_recordset(o.months) AS m (month text, n_start bigint, n_end bigint, n_churn bigint, n_new bigint,
	n_reactivated bigint, mrr_start numeric, new numeric, reactivation numeric, expansion numeric, contraction numeric,
	churn numeric, mrr_end numeric, churn_rate numeric, grr numeric, nrr numeric);
SELECT is((SELECT count(*) FROM expected), 12::bigint, 'the oracle has twelve months');
SELECT results_eq($$
	SELECT e.month, c.denominator::bigint, c.numerator::bigint, c.rate,
		r.mrr_start, r.new_mrr, r.reactivation_mrr, r.expansion_mrr, r.contraction_mrr, r.churn_mrr, r.mrr_end, r.grr, r.nrr
	FROM expected e, cs.churn(e.month) c, cs.revenue(e.month, basis => 'endpoints') r ORDER BY 1
$$, $$
	SELECT month, n_start, n_churn, round(churn_rate, 9), mrr_start, new, reactivation, expansion, contraction, churn, mrr_end, round(grr, 9), round(nrr, 9)
	FROM expected ORDER BY 1
$$, 'churn and revenue of all twelve months of 2023');
SELECT results_eq($$
	SELECT e.month, count(*) FILTER (WHERE x.mrr_end > 0), count(*) FILTER (WHERE x.in_numerator),
		count(*) FILTER (WHERE NOT x.in_denominator AND x.mrr_end > 0 AND NOT k.known), count(*) FILTER (WHERE NOT x.in_denominator AND x.mrr_end > 0 AND k.known)
	FROM expected e LEFT JOIN LATERAL cs.churn_customers(e.month) x ON true
	LEFT JOIN LATERAL (SELECT EXISTS (SELECT FROM cs.movement m WHERE m.customer_id = x.customer_id AND m.mrr_after > 0 AND m.at < (e.month || '-01')::date) AS known) k ON true
	GROUP BY 1 ORDER BY 1
$$, 'SELECT month, n_end, n_churn, n_new, n_reactivated FROM expected ORDER BY 1', 'customers at the end, churned, new and returned');
SELECT is((SELECT count(*) FROM expected e, cs.revenue(e.month) r WHERE r.mrr_start = e.mrr_start AND r.mrr_end = e.mrr_end
	AND r.mrr_end = r.mrr_start + r.new_mrr + r.reactivation_mrr + r.expansion_mrr + r.resume_mrr - r.contraction_mrr - r.churn_mrr - r.pause_mrr),
	12::bigint, 'the ledger basis has the same balances and adds up');

-- ---- cohorts by month of first money: customers and MRR at each month's end

SELECT results_eq($$
	WITH first AS (
		SELECT customer_id, date_trunc('month', min(at), 'UTC') AS cohort FROM cs.movement WHERE mrr_after > 0 GROUP BY 1
	)
	SELECT to_char(f.cohort AT TIME ZONE 'UTC', 'YYYY-MM'), k, count(*) FILTER (WHERE b.mrr_after > 0), sum(coalesce(b.mrr_after, 0))
	FROM first f, generate_series(1, 24) k,
		LATERAL (SELECT m.mrr_after FROM cs.movement m WHERE m.customer_id = f.customer_id
			AND m.at < (f.cohort AT TIME ZONE 'UTC' + k * interval '1 month') AT TIME ZONE 'UTC' ORDER BY m.at DESC LIMIT 1) b
	WHERE f.cohort < '2023-07-01Z' AND (f.cohort AT TIME ZONE 'UTC' + k * interval '1 month') <= timestamp '2025-01-01'
	GROUP BY 1, 2 ORDER BY 1, 2
$$, $$
	SELECT c.key, a.ordinality::int, (a.value ->> 0)::bigint, (a.value ->> 1)::numeric
	FROM oracle o, jsonb_each(o.doc -> 'cohorts_month_end') c, jsonb_array_elements(c.value -> 'active_and_mrr_by_age') WITH ORDINALITY a
	ORDER BY 1, 2
$$, 'six cohorts over up to 24 months');

-- ---- the data's flaws are there, and break nothing

SELECT is((SELECT count(*) FROM subscription WHERE end_date = start_date), (SELECT (doc -> 'quality' ->> 'end_equals_start')::bigint FROM oracle), 'rows of no length are in the data');
SELECT is_empty('SELECT * FROM cs_internal.unusable', 'and no row is unusable');
SELECT is((SELECT count(*) FROM cs.movement WHERE at >= '2025-01-01'), 0::bigint, 'nothing moves after the data''s end');
SELECT is_empty($$
	SELECT * FROM (SELECT m.*, sum(m.delta) OVER (PARTITION BY m.customer_id ORDER BY m.at) AS rolled FROM cs.movement m) m WHERE rolled <> mrr_after
$$, 'each balance is the one before plus the movement');

-- a second refresh finds nothing to do; a rebuild makes the same
CREATE TEMP TABLE before AS SELECT * FROM cs_internal.movement;
CALL cs.rebuild();
SELECT set_eq('SELECT * FROM cs_internal.movement', 'SELECT * FROM before', 'a rebuild makes the same ledger');
SELECT is((SELECT count(*) FROM cs.customer_360), 500::bigint, 'and the same customers');

SELECT is_empty('SELECT * FROM cs.check()', 'no invariant is broken');
SELECT * FROM finish();
