-- The definitions and empty fact tables of the tests of policy.logo_level, in their
-- transaction. Run with \ir; :run_as names the execution role.
CREATE ROLE :"run_as" NOLOGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL search_path = public;
SET LOCAL cs_ext.now = '2024-06-20 12:00+00';
INSERT INTO cs.policy (run_as, time_zone, currency) VALUES (:'run_as', 'UTC', 'EUR');
CREATE TABLE cust (c text PRIMARY KEY, parent text, attributes jsonb);
CREATE TABLE sub (id serial, c text, s timestamptz, e timestamptz, mrr numeric, seats integer DEFAULT 1, status text, terms integer);
CREATE TABLE event (c text, at timestamptz);
CREATE TABLE merge (f text, i text, at timestamptz);
SELECT count(*) FROM cs.add_source('cust', 'customer', 'cust', '{"customer_id": "c", "parent_id": "parent", "attributes": "attributes"}') \g /dev/null
SELECT count(*) FROM cs.add_source('sub', 'subscription', 'sub', '{"customer_id": "c", "start_at": "s", "end_at": "e", "mrr": "mrr", "seats": "seats", "status": "status", "term_months": "terms"}') \g /dev/null
SELECT count(*) FROM cs.add_source('event', 'usage_event', 'event', '{"customer_id": "c", "at": "at"}') \g /dev/null
SELECT count(*) FROM cs.add_source('merge', 'customer_merge', 'merge', '{"from_customer_id": "f", "into_customer_id": "i", "at": "at"}') \g /dev/null
INSERT INTO cs.metric (name, source, expression) VALUES ('mrr', 'ledger', 'mrr');
INSERT INTO cs.dimension (name, attribute) VALUES ('channel', 'channel');
INSERT INTO cs.dimension (name, fallback) VALUES ('tier', 'small');
INSERT INTO cs.segment (dimension, name, rule, priority) VALUES ('tier', 'big', 'mrr >= 60', 1), ('tier', 'mid', 'mrr >= 25', 2);
