-- The sweep: subscription rows of one customer in, movements out. No table is read.
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, MDY';

CREATE FUNCTION pg_temp.sweep(facts text, cancellations text DEFAULT '[]', free boolean DEFAULT false, pause_days integer DEFAULT NULL)
RETURNS TABLE (day text, kind text, delta numeric, mrr_after numeric, active boolean, why text)
LANGUAGE sql AS $$
	SELECT to_char(s.at, 'YYYY-MM-DD HH24:MI'), s.kind, s.delta, s.mrr_after, s.active_after, concat_ws(': ', s.churn_kind, s.reason)
	FROM cs_internal.ledger_sweep(
		ARRAY(SELECT f FROM jsonb_populate_recordset(NULL::cs_internal.subscription_fact, facts::jsonb) f),
		ARRAY(SELECT c FROM jsonb_populate_recordset(NULL::cs_internal.cancellation_fact, cancellations::jsonb) c),
		free, pause_days) s
$$;

-- nothing, and one open row
SELECT * FROM pg_temp.sweep('[]');
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "mrr": 100}]');
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "infinity", "mrr": 100}]');
-- touching rows of one price leave no trace, of two prices their difference
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-02-01", "end_at": "2024-03-01", "mrr": 100}, {"start_at": "2024-01-01", "end_at": "2024-02-01", "mrr": 100}]');
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-02-01", "mrr": 100}, {"start_at": "2024-02-01", "mrr": 130}]');
-- a gap: churn and return; a day is enough
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-02-01", "mrr": 100}, {"start_at": "2024-02-02", "end_at": "2024-03-01", "mrr": 80}]');
-- overlapping: expansion, contraction, one churn when the last ends
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-06-01", "mrr": 100}, {"start_at": "2024-03-01", "end_at": "2024-05-01", "mrr": 50}, {"start_at": "2024-04-01", "end_at": "2024-06-01", "mrr": 10}]');
-- no length, equal starts, many at once
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-01-01", "mrr": 100}]');
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-01-01", "mrr": 999}, {"start_at": "2024-01-01", "end_at": "2024-02-01", "mrr": 1}, {"start_at": "2024-01-01", "end_at": "2024-02-01", "mrr": 2}]');
-- a net of zero is nothing
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "mrr": 100}, {"start_at": "2024-01-01", "end_at": "2024-03-01", "mrr": 25}, {"start_at": "2024-03-01", "mrr": 25}]');

-- rounded once a row, so ten rows are ten times one
SELECT kind, delta, mrr_after FROM pg_temp.sweep((SELECT jsonb_agg(jsonb_build_object('start_at', '2024-01-01', 'mrr', 0.83333333333)) FROM generate_series(1, 10))::text);

-- what carries no MRR
SELECT f.w, s.* FROM (VALUES ('"status": "trialing"'), ('"status": "incomplete"'), ('"status": "unpaid"'), ('"is_trial": true'), ('"is_recurring": false'), ('"status": "canceled"')) f (w)
	LEFT JOIN LATERAL pg_temp.sweep(format('[{"start_at": "2024-01-01", "mrr": 100, %s}]', f.w)) s ON true;
-- what does: past due, canceled until its end, else until it was changed
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-02-01", "mrr": 100, "status": "past_due"}]');
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-02-01", "changed_at": "2024-01-10", "mrr": 100, "status": "canceled"}]');
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "changed_at": "2024-01-10 10:00", "mrr": 100, "status": "canceled"}]');
-- a trial that becomes a customer is new
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-01-15", "mrr": 100, "is_trial": true}, {"start_at": "2024-01-15", "mrr": 100}]');

-- pause and resume are neither churn nor contraction
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-03-01", "mrr": 100}, {"start_at": "2024-03-01", "end_at": "2024-05-01", "mrr": 100, "status": "paused"}, {"start_at": "2024-05-01", "mrr": 120}]');
-- past the limit it is a churn of nothing, and the return a reactivation
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-03-01", "mrr": 100}, {"start_at": "2024-03-01", "end_at": "2024-04-01", "status": "paused"}, {"start_at": "2024-04-01", "end_at": "2024-05-01", "status": "paused"}, {"start_at": "2024-05-01", "mrr": 100}]', pause_days => 40);
-- no pause allowed, pause that ends in nothing, pause of one of two, pause before any money
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-03-01", "mrr": 100}, {"start_at": "2024-03-01", "status": "paused"}]', pause_days => 0);
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-03-01", "mrr": 100}, {"start_at": "2024-03-01", "end_at": "2024-04-01", "status": "paused", "cancel_reason": "never came back"}]', pause_days => 40);
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "mrr": 30}, {"start_at": "2024-01-01", "end_at": "2024-03-01", "mrr": 100}, {"start_at": "2024-03-01", "end_at": "2024-04-01", "status": "paused"}, {"start_at": "2024-04-01", "mrr": 100}]', pause_days => 10);
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-02-01", "status": "paused"}, {"start_at": "2024-02-01", "mrr": 100}]');

-- free rows: nobody by default, active under free_is_active
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-03-01", "mrr": 0}]');
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-03-01", "mrr": 0}]', free => true);
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-06-01", "mrr": 0}, {"start_at": "2024-02-01", "end_at": "2024-03-01", "mrr": 20}, {"start_at": "2024-04-01", "end_at": "2024-05-01", "mrr": 20}]', free => true);
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-06-01", "mrr": 0}, {"start_at": "2024-02-01", "end_at": "2024-03-01", "mrr": 20}, {"start_at": "2024-04-01", "end_at": "2024-05-01", "mrr": 20}]');

-- why: the row that ends says it first
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-03-01", "mrr": 100, "churn_kind": "involuntary", "cancel_reason": "card expired", "cancel_requested_at": "2024-02-01"}]',
	'[{"at": "2024-02-20", "churn_kind": "voluntary", "reason": "price"}]');
-- then the latest cancellation since the churn before; one after the churn waits for the next
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-03-01", "mrr": 100}, {"start_at": "2024-04-01", "end_at": "2024-06-01", "mrr": 100}, {"start_at": "2024-07-01", "end_at": "2024-08-01", "mrr": 100}]',
	'[{"at": "2024-03-10", "churn_kind": "voluntary", "reason": "moved"}, {"at": "2024-02-20", "reason": "price"}, {"at": "2024-01-20", "reason": "features"}]');
-- then what else the row tells
SELECT f.w, s.why FROM (VALUES ('"status": "past_due"'), ('"cancel_requested_at": "2024-01-20"'), ('"auto_renew": false'), ('"auto_renew": true')) f (w),
	LATERAL pg_temp.sweep(format('[{"start_at": "2024-01-01", "end_at": "2024-02-01", "mrr": 100, %s}]', f.w)) s WHERE s.kind = 'churn';
-- of several that end together, the one that says something, then the larger
SELECT why FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-02-01", "mrr": 500}, {"start_at": "2024-01-05", "end_at": "2024-02-01", "mrr": 10, "cancel_reason": "small"}, {"start_at": "2024-01-09", "end_at": "2024-02-01", "mrr": 20, "cancel_reason": "large"}]') WHERE kind = 'churn';
-- a contraction has no reason
SELECT kind, why FROM pg_temp.sweep('[{"start_at": "2024-01-01", "mrr": 100}, {"start_at": "2024-01-01", "end_at": "2024-02-01", "mrr": 10, "cancel_reason": "unused"}]');

-- credits: a negative row lowers, and who is below zero is not active
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "mrr": 100}, {"start_at": "2024-02-01", "end_at": "2024-04-01", "mrr": -30}]');
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "end_at": "2024-03-01", "mrr": -10}, {"start_at": "2024-02-01", "mrr": 100}]');

-- instants, not days; before the epoch too
SELECT * FROM pg_temp.sweep('[{"start_at": "1969-12-31 23:00", "end_at": "1970-01-01 10:00", "mrr": 1}, {"start_at": "1970-01-01 10:00:01", "mrr": 1}]');

-- arguments that cannot be used are errors here
SELECT * FROM pg_temp.sweep('[{"mrr": 100}]');
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-02-01", "end_at": "2024-01-01", "mrr": 100}]');
SELECT * FROM pg_temp.sweep('[{"start_at": "-infinity", "mrr": 100}]');
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-02-01", "mrr": "NaN"}]');
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-02-01", "mrr": 1e30}]');
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-02-01"}]');
SELECT * FROM pg_temp.sweep('[{"start_at": "2024-01-01", "mrr": 100}, {"start_at": "2024-02-01", "mrr": 100, "status": "zombie"}]');
