# A few hundred turns of a database worker and of the launcher: a turn costs
# little, and memory stays flat. Ten thousand of each: 111_fifty.pl.
# How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
require "$FindBin::Bin/../lib/turns.pl";

my $node = PostgreSQL::Test::Cluster->new('turns');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'cs_ext'
fsync = off
log_statement = none
CONF
$node->start;
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE public.customers (id int PRIMARY KEY, name text);
CREATE TABLE public.tickets (id int PRIMARY KEY, customer_id int, opened timestamptz, resolved timestamptz, escalated boolean);
INSERT INTO public.customers SELECT i, 'customer ' || i FROM generate_series(1, 10) i;
INSERT INTO public.tickets VALUES (1, 3, now() - interval '1 day', NULL, true);
CREATE EXTENSION cs_ext;
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR');
SELECT count(*) FROM cs.add_source('customers', 'customer', 'public.customers', '{"customer_id": "id", "name": "name"}');
SELECT count(*) FROM cs.add_source('tickets', 'ticket', 'public.tickets',
	'{"customer_id": "customer_id", "ticket_id": "id", "opened_at": "opened", "resolved_at": "resolved", "escalated": "escalated"}');
INSERT INTO cs.job (name, kind, every) VALUES ('tick', 'retention', '1 second');
SQL
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM cs_internal.alert WHERE rule = 'ticket_escalated')), 'served');
worker_turns($node, 'postgres', $ENV{CS_EXT_TURNS} // 700, 180);
launcher_turns($node, $ENV{CS_EXT_TURNS} // 700);
$node->stop('fast');
done_testing();
