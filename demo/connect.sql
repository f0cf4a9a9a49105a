-- connect.sql: cs_ext is told where Shiftwell keeps its facts.
-- The data ends on a fixed day; that morning is the database's "now".
\set ON_ERROR_STOP on
ALTER DATABASE demo SET cs_ext.now = '2026-10-31 06:00:00+01';
SET cs_ext.now = '2026-10-31 06:00:00+01';
SET client_min_messages = warning;

BEGIN;
CREATE EXTENSION cs_ext;
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => 'saas_basic');

GRANT USAGE ON SCHEMA company TO cs_ext_run;
GRANT SELECT ON ALL TABLES IN SCHEMA company TO cs_ext_run;

SELECT cs.add_source('customers', 'customer', 'company.customer', '{
	"customer_id": "id", "name": "name", "owner": "account_manager", "created_at": "created_at",
	"attributes": "jsonb_build_object(''country'', country, ''industry'', industry, ''channel'', channel, ''employees'', employees)"}');
SELECT cs.add_source('users', 'user', 'company.app_user', '{
	"user_id": "id", "customer_id": "customer_id", "email": "email", "role": "role",
	"valid_from": "created_at", "valid_to": "removed_at"}');
SELECT cs.add_source('contracts', 'subscription', 'company.contract', '{
	"customer_id": "customer_id", "subscription_id": "id", "product": "plan", "seats": "seats",
	"amount": "amount", "interval": "billing", "term_months": "term_months", "status": "status",
	"signed_at": "signed_on", "start_at": "starts_on", "end_at": "ended_on", "renews_at": "renews_on",
	"cancel_requested_at": "cancel_requested_on", "cancel_reason": "cancel_reason", "auto_renew": "auto_renew"}');
SELECT cs.add_source('app', 'usage_event', 'company.usage_log', '{
	"customer_id": "customer_id", "user_id": "user_id", "at": "at", "event": "event", "event_count": "uses"}');
SELECT cs.add_source('support', 'ticket', 'company.ticket', '{
	"customer_id": "customer_id", "ticket_id": "id", "opened_at": "opened_at", "first_reply_at": "first_reply_at",
	"resolved_at": "resolved_at", "severity": "severity", "csat": "csat", "escalated": "escalated"}');
-- surveys know the user only: the users source says whose user it is
SELECT cs.add_source('nps', 'survey', 'company.survey', '{
	"user_id": "user_id", "at": "answered_at", "kind": "kind", "score": "score", "respondent": "user_id"}');
SELECT cs.add_source('invoices', 'invoice', 'company.invoice', '{
	"customer_id": "customer_id", "invoice_id": "id", "amount": "amount", "issued_at": "issued_on",
	"due_at": "due_on", "paid_at": "paid_at"}');
SELECT cs.add_source('contacts', 'touchpoint', 'company.touchpoint', '{
	"customer_id": "customer_id", "at": "at", "channel": "channel", "department": "department",
	"author": "author", "note": "note"}');
SELECT cs.add_source('onboarding', 'onboarding_step', 'company.onboarding_step', '{
	"customer_id": "customer_id", "step": "step", "weight": "weight", "starts_at": "starts_at",
	"due_at": "due_at", "completed_at": "completed_at"}');
COMMIT;
