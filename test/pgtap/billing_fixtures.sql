-- Tables as billing systems keep them (rows of Stripe's and Recurly's own shape): mapped, read, and what the ledger makes of them.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET cs_ext.now = '2021-03-01 00:00Z';
SELECT * FROM no_plan();
SELECT :'testdata' || '/data/billing_fixtures' AS fixtures \gset

CREATE SCHEMA app;
SELECT cs.setup(time_zone => 'UTC', currency => 'USD', template => NULL) \g /dev/null
GRANT USAGE ON SCHEMA app TO cs_ext_run;
CREATE FUNCTION app.ledger(customer text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(concat_ws(' ', to_char(m.at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), m.kind, trim_scale(m.delta), m.churn_kind), ', ' ORDER BY m.at, m.seq)
	FROM cs.movement m WHERE m.customer_id = customer
$$;
-- a CSV file as a table of text columns named by its header
CREATE FUNCTION app.csv(tab text, file text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TABLE app.%I (%s)', tab, (SELECT string_agg(quote_ident(trim(c)) || ' text', ', ' ORDER BY o) FROM string_to_table(split_part(replace(pg_read_file(file), E'\r', ''), E'\n', 1), ',') WITH ORDINALITY s(c, o)));
	EXECUTE format('COPY app.%I FROM %L WITH (FORMAT csv, HEADER)', tab, file);
END $$;

-- ---- Stripe, loaded by a connector: subscriptions, items and plans in cents --------------
SELECT app.csv('s_subscription', :'fixtures' || '/dbt_stripe/subscription_data.csv') \g /dev/null
SELECT app.csv('s_item', :'fixtures' || '/dbt_stripe/subscription_item_data.csv') \g /dev/null
SELECT app.csv('s_plan', :'fixtures' || '/dbt_stripe/plan_data.csv') \g /dev/null
CREATE VIEW app.stripe AS
SELECT s.id, s.customer_id, s.start_date::timestamptz AS started, s.ended_at::timestamptz AS ended, s.canceled_at::timestamptz AS canceled, s.status, s.trial_end::timestamptz AS trial_end,
	p.amount::numeric / 100 * i.quantity::integer AS amount, p."interval" AS every, p.interval_count::integer AS every_count, p.currency, i.quantity::integer AS quantity
FROM app.s_subscription s JOIN app.s_item i ON i.subscription_id = s.id JOIN app.s_plan p ON p.id = i.plan_id;
SELECT count(*) FROM cs.add_source('stripe', 'subscription', 'app.stripe', '{"customer_id": "customer_id", "subscription_id": "id", "start_at": "started", "end_at": "ended", "cancel_requested_at": "canceled",
	"status": "status", "amount": "amount", "interval": "every", "interval_count": "every_count", "currency": "currency", "seats": "quantity"}') \g /dev/null
CALL cs.refresh();
SELECT is(app.ledger('sdf6547'), '2021-02-18 14:16:37 new 1500, 2021-02-19 14:16:37 churn -1500 voluntary', 'cents, quantity and a cancellation at the end');
SELECT is(app.ledger('123fsdf'), '2021-02-18 14:16:37 new 3000, 2021-02-19 14:16:37 churn -3000 voluntary', 'two of a plan');
SELECT cs.drop_source('stripe') \g /dev/null
-- who leaves when the trial ends was never a customer
SELECT count(*) FROM cs.add_source('stripe', 'subscription', 'app.stripe', '{"customer_id": "customer_id", "subscription_id": "id", "start_at": "greatest(started, trial_end)", "end_at": "ended",
	"status": "status", "amount": "amount", "interval": "every", "interval_count": "every_count", "currency": "currency"}') \g /dev/null
CALL cs.refresh();
SELECT is((SELECT count(*) FROM cs.movement), 0::bigint, 'a trial that ends in nothing moves nothing');
SELECT is((SELECT unusable_rows FROM cs.source_status WHERE source = 'stripe'), 0::bigint, 'and every row can be used');
SELECT cs.drop_source('stripe') \g /dev/null
GRANT SELECT ON app.s_plan TO cs_ext_run;
-- a price in months of six is a sixth of it
SELECT is((SELECT (r.row ->> 'mrr')::numeric FROM cs.preview_source('subscription', 'app.s_plan', '{"customer_id": "id", "start_at": "created::timestamptz", "amount": "amount::numeric / 100", "interval": "\"interval\"", "interval_count": "interval_count::integer"}', 20) r
	WHERE r.row ->> 'customer_id' = '3gf'), 300.000000, 'an interval of six months');

-- ---- Recurly: states of its own, a row a version --------------------------------------------
SELECT app.csv('r_subscription', :'fixtures' || '/dbt_recurly/subscription_history_data.csv') \g /dev/null
CREATE VIEW app.recurly AS
SELECT DISTINCT ON (id) id, account_id, activated_at::timestamptz AS started, nullif(expires_at, '')::timestamptz AS ended, nullif(canceled_at, '')::timestamptz AS canceled,
	CASE state WHEN 'expired' THEN 'canceled' ELSE state END AS state, subtotal::numeric AS amount, currency, auto_renew::boolean AS auto_renew, current_term_ends_at::timestamptz AS renews
FROM app.r_subscription ORDER BY id, updated_at::timestamptz DESC;
SELECT count(*) FROM cs.add_source('recurly', 'subscription', 'app.recurly', '{"customer_id": "account_id", "subscription_id": "id", "start_at": "started", "end_at": "ended", "cancel_requested_at": "canceled",
	"status": "state", "amount": "amount", "interval": "''month''", "currency": "currency", "auto_renew": "auto_renew", "renews_at": "renews"}') \g /dev/null
CALL cs.refresh();
SELECT is(app.ledger('4458762633d912919d7ff692cab13b69'), '2015-02-13 09:31:52 new 5596, 2019-03-26 09:25:03 expansion 99, 2019-03-26 09:27:19 contraction -99, 2019-03-26 09:28:17 expansion 99, 2019-03-26 09:37:26 contraction -99',
	'subscriptions that come and go beside one that stays');
SELECT is(app.ledger('51bccf87e2571558b3da93688e17469f'), '2015-02-11 08:20:38 new 99', 'of several versions the newest');
SELECT set_eq('SELECT customer_id, at, kind, sum(amount) FROM cs.movement_detail GROUP BY 1, 2, 3', 'SELECT customer_id, at, kind, delta AS sum FROM cs.movement', 'the rows behind add up');
SELECT cs.drop_source('recurly') \g /dev/null
DROP VIEW app.recurly;
CALL cs.refresh();

-- ---- Stripe, one row a subscription, overwritten by each webhook ---------------------------------
CREATE TABLE app.webhook (id text PRIMARY KEY, customer text, doc jsonb, changed timestamptz);
CREATE FUNCTION app.take(file text) RETURNS timestamptz LANGUAGE sql AS $$
	INSERT INTO app.webhook SELECT e #>> '{data,object,id}', e #>> '{data,object,customer}', e #> '{data,object}', to_timestamp((e ->> 'created')::bigint) FROM (SELECT pg_read_file(file)::jsonb) x (e)
	ON CONFLICT (id) DO UPDATE SET doc = excluded.doc, changed = excluded.changed RETURNING changed
$$;
SELECT count(*) FROM cs.add_source('hook', 'subscription', 'app.webhook', '{"customer_id": "customer", "subscription_id": "id", "start_at": "to_timestamp((doc ->> ''start_date'')::bigint)", "end_at": "to_timestamp((doc ->> ''ended_at'')::bigint)",
	"cancel_requested_at": "to_timestamp((doc ->> ''canceled_at'')::bigint)", "status": "doc ->> ''status''", "amount": "(doc #>> ''{items,data,0,price,unit_amount}'')::numeric / 100 * (doc ->> ''quantity'')::integer",
	"interval": "doc #>> ''{items,data,0,price,recurring,interval}''", "currency": "doc #>> ''{items,data,0,price,currency}''", "changed_at": "changed"}', terms => 'current') \g /dev/null
UPDATE cs.policy SET free_is_active = true;
SELECT app.take(:'fixtures' || '/stripe_sync_engine/subscription_updated.json') \g /dev/null
SELECT app.take(:'fixtures' || '/stripe_sync_engine/subscription_created.json') AS now \gset
SET cs_ext.now = :'now';
CALL cs.refresh();
SELECT is(app.ledger('cus_IhGfebO16cMIGN'), '2021-04-21 04:45:44 new 0', 'two free subscriptions of a customer');
DELETE FROM app.webhook WHERE id = 'sub_JLEPMp81LApOJl';
SELECT app.take(:'fixtures' || '/stripe_sync_engine/subscription_deleted.json') AS now \gset
SET cs_ext.now = :'now';
CALL cs.refresh();
SELECT is(app.ledger('cus_IhGfebO16cMIGN'), '2021-04-21 04:45:44 new 0, 2021-06-08 10:45:02 churn 0 voluntary', 'the webhook of a deletion is a churn, dated by it');
SELECT results_eq($$SELECT status COLLATE "default", valid_from FROM cs_internal.subscription_version WHERE subscription_id = 'sub_JdIzvfy6o5GZRd' ORDER BY valid_from$$,
	$$VALUES ('active', timestamptz '-infinity'), ('canceled', '2021-06-08 10:45:02Z')$$, 'and a version');
SELECT is((SELECT unusable_rows FROM cs.source_status WHERE source = 'hook'), 0::bigint, 'every row can be used');
SELECT * FROM finish();
