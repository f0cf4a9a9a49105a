-- demo_company.sql: the demo company with the variables customers, signal and
-- leaving (demo/company.sql), connected and refreshed as of now (a variable too).
-- Included by \ir.
\o /dev/null
\ir ../../demo/company.sql
-- after the company, which resets all settings
SET client_min_messages = warning;
\if :{?now}
\else
\set now '2026-10-31 06:00:00+01'
\endif
SET cs_ext.now = :'now';
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => 'saas_basic');
GRANT USAGE ON SCHEMA company TO cs_ext_run;
GRANT SELECT ON ALL TABLES IN SCHEMA company TO cs_ext_run;
SELECT count(*) FROM (
	SELECT cs.add_source('customers', 'customer', 'company.customer', '{"customer_id": "id", "name": "name", "owner": "account_manager", "created_at": "created_at"}')
	UNION ALL
	SELECT cs.add_source('users', 'user', 'company.app_user', '{"user_id": "id", "customer_id": "customer_id", "valid_from": "created_at", "valid_to": "removed_at"}')
	UNION ALL
	SELECT cs.add_source('contracts', 'subscription', 'company.contract', '{"customer_id": "customer_id", "subscription_id": "id", "seats": "seats", "amount": "amount", "interval": "billing", "status": "status", "signed_at": "signed_on", "start_at": "starts_on", "end_at": "ended_on", "renews_at": "renews_on", "cancel_requested_at": "cancel_requested_on", "cancel_reason": "cancel_reason", "auto_renew": "auto_renew"}')
	UNION ALL
	SELECT cs.add_source('app', 'usage_event', 'company.usage_log', '{"customer_id": "customer_id", "user_id": "user_id", "at": "at", "event": "event", "event_count": "uses"}')
	UNION ALL
	SELECT cs.add_source('support', 'ticket', 'company.ticket', '{"customer_id": "customer_id", "ticket_id": "id", "opened_at": "opened_at", "first_reply_at": "first_reply_at", "resolved_at": "resolved_at", "severity": "severity", "csat": "csat", "escalated": "escalated"}')
	UNION ALL
	SELECT cs.add_source('nps', 'survey', 'company.survey', '{"user_id": "user_id", "at": "answered_at", "kind": "kind", "score": "score", "respondent": "user_id"}')
	UNION ALL
	SELECT cs.add_source('invoices', 'invoice', 'company.invoice', '{"customer_id": "customer_id", "invoice_id": "id", "amount": "amount", "issued_at": "issued_on", "due_at": "due_on", "paid_at": "paid_at"}')
	UNION ALL
	SELECT cs.add_source('contacts', 'touchpoint', 'company.touchpoint', '{"customer_id": "customer_id", "at": "at", "channel": "channel", "department": "department", "author": "author"}')
) m;
\o
CALL cs.refresh();
