# A physical standby: nothing runs there, reading works; promoted, it goes on by
# itself. How to run: see 010_worker.pl.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'cs_ext'
max_worker_processes = 12
log_statement = none
CONF
$primary->start;
$primary->safe_psql('postgres', <<'SQL');
CREATE TABLE public.customers (id int PRIMARY KEY, name text);
CREATE TABLE public.tickets (id int PRIMARY KEY, customer_id int, opened timestamptz, resolved timestamptz, escalated boolean);
INSERT INTO public.customers SELECT i, 'customer ' || i FROM generate_series(1, 10) i;
CREATE EXTENSION cs_ext;
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR');
SELECT count(*) FROM cs.add_source('customers', 'customer', 'public.customers', '{"customer_id": "id", "name": "name"}');
SELECT count(*) FROM cs.add_source('tickets', 'ticket', 'public.tickets',
	'{"customer_id": "customer_id", "ticket_id": "id", "opened_at": "opened", "resolved_at": "resolved", "escalated": "escalated"}');
INSERT INTO public.tickets VALUES (1, 3, now() - interval '1 hour', NULL, true);
CREATE TABLE public.subscriptions (customer_id int, since timestamptz, mrr numeric);
INSERT INTO public.subscriptions SELECT i, '2024-01-01', i * 700 FROM generate_series(1, 10) i;
SELECT count(*) FROM cs.add_source('subscriptions', 'subscription', 'public.subscriptions', '{"customer_id": "customer_id", "start_at": "since", "mrr": "mrr"}');
CREATE ROLE sleeper LOGIN;
INSERT INTO cs.job (name, kind, command, run_as) VALUES ('sleeps', 'sql', 'SELECT pg_sleep(300)', 'sleeper');
SQL
my $alerts = q(SELECT string_agg(key || ' ' || state, ',' ORDER BY key) FROM cs.alert WHERE rule = 'ticket_escalated');
ok($primary->poll_query_until('postgres', "SELECT ($alerts) = '1 open'"), 'the primary has an alert');
$primary->safe_psql('postgres', q(SELECT cs.run_job('sleeps')));
ok($primary->poll_query_until('postgres', q(SELECT status = 'running' FROM cs.job_run WHERE job = 'sleeps')), 'and a job that runs');

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);

is($standby->safe_psql('postgres', $alerts), '1 open', 'the standby reads');
is($standby->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'cs_ext')), '0', 'nothing of cs_ext runs there');
is($standby->safe_psql('postgres', q(SELECT status FROM cs.job_run WHERE job = 'sleeps')), 'crashed',
	'a run of the primary is none of the standby');
my ($status, $out, $err) = $standby->psql('postgres', 'CALL cs.refresh()');
isnt($status, 0, 'a refresh is refused there');
is($standby->safe_psql('postgres', q(SELECT string_agg(segment || ' ' || denominator, ', ') FROM cs.churn_by('last month', 'tier'))),
	'enterprise 3, mid 6, small 1, (none) 0, (total) 10', 'value tiers are restated from the ledger');
($status, $out, $err) = $standby->psql('postgres', q(SELECT count(*) FROM cs.churn_by('last month', 'stage')));
like($err, qr/segments of dimension "stage" cannot be restated on a standby/, 'what would run the stages is refused');

$primary->safe_psql('postgres', q(INSERT INTO public.tickets VALUES (2, 4, now() - interval '1 hour', NULL, true)));
ok($primary->poll_query_until('postgres', "SELECT ($alerts) = '1 open,2 open'"), 'another ticket on the primary');
$primary->wait_for_catchup($standby);
$primary->stop('immediate');
$standby->promote;

ok($standby->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'cs_ext launcher')),
	'promoted: the launcher starts');
$standby->safe_psql('postgres', q(INSERT INTO public.tickets VALUES (3, 5, now() - interval '1 hour', NULL, true)));
ok($standby->poll_query_until('postgres', "SELECT ($alerts) = '1 open,2 open,3 open'"), 'alerts go on, none lost or doubled');
ok($standby->poll_query_until('postgres', q(SELECT last_status = 'crashed' AND failures = 1 FROM cs.job_status WHERE job = 'sleeps')),
	'the run of the old primary counts as crashed');
$standby->stop;
done_testing();
