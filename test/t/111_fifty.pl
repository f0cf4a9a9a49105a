# Fifty databases share eight worker slots, full run only: all are served, none
# starves, and over ten thousand turns each the memory of a database worker and of
# the launcher stays flat. CS_EXT_DATABASES (50), CS_EXT_TURNS (10000) make it
# longer or shorter. How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

require "$FindBin::Bin/../lib/server.pl";
require "$FindBin::Bin/../lib/turns.pl";

my $databases = $ENV{CS_EXT_DATABASES} // 50;
my $want = $ENV{CS_EXT_TURNS} // 10_000;
our $node = PostgreSQL::Test::Cluster->new('fifty');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'cs_ext'
max_worker_processes = 12
max_connections = 100
cs_ext.max_workers = 8
fsync = off
log_statement = none
CONF
$node->start;
# One company, then copies: every one has facts, a source and a job every second.
sql('CREATE DATABASE d1');
$node->append_conf('postgresql.conf', 'cs_ext.scheduler = off');
$node->reload;
$node->safe_psql('d1', <<'SQL');
CREATE TABLE public.customers (id int PRIMARY KEY, name text);
CREATE TABLE public.tickets (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id int, opened timestamptz DEFAULT clock_timestamp(), resolved timestamptz, escalated boolean);
INSERT INTO public.customers SELECT i, 'customer ' || i FROM generate_series(1, 10) i;
CREATE EXTENSION cs_ext;
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR');
SELECT count(*) FROM cs.add_source('customers', 'customer', 'public.customers', '{"customer_id": "id", "name": "name"}');
SELECT count(*) FROM cs.add_source('tickets', 'ticket', 'public.tickets',
	'{"customer_id": "customer_id", "ticket_id": "id", "opened_at": "opened", "resolved_at": "resolved", "escalated": "escalated"}');
INSERT INTO cs.job (name, kind, every) VALUES ('tick', 'retention', '1 second');
CALL cs.refresh();
SQL
sql("CREATE DATABASE d$_ TEMPLATE d1") for 2 .. $databases;
$node->append_conf('postgresql.conf', 'cs_ext.scheduler = on');
my $begin = time;
$node->reload;

# --- all served, none starved ---------------------------------------------------------

my $ticks = q(SELECT count(*) FROM cs_internal.job_run WHERE job = 'tick' AND status = 'succeeded');
ok($node->poll_query_until("d$_", "SELECT ($ticks) > 0"), "d$_ is served") for 1 .. $databases;
note(sprintf('all of them after %.0f s', time - $begin));
$node->safe_psql("d$_", 'INSERT INTO public.tickets (customer_id, escalated) VALUES (3, true)') for 1 .. $databases;
my $alert = q(SELECT count(*) = 1 FROM cs_internal.alert WHERE rule = 'ticket_escalated');
is(scalar(grep { !$node->poll_query_until("d$_", $alert) } 1 .. $databases), 0, 'in each a fact has its alert');
my ($most) = (0);
for (1 .. 40)
{
	my $n = sql(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('cs_ext worker', 'cs_ext job')));
	$most = $n if $n > $most;
	usleep(50_000);
}
cmp_ok($most, '<=', 8, "never more than eight workers ($most)");
cmp_ok($most, '>=', 2, 'several at a time');

# Three windows: in each every database gets its share.
my %before = map { $_ => $node->safe_psql("d$_", $ticks) } 1 .. $databases;
my $window = time;
my ($least, $rounds) = (0, 0);
while ($rounds++ < 120)
{
	my @got = sort { $a <=> $b } map { $node->safe_psql("d$_", $ticks) - $before{$_} } 1 .. $databases;
	$least = $got[0];
	note(sprintf('after %.0f s: least %d, median %d, most %d runs', time - $window, $got[0], $got[$#got / 2], $got[-1])) if $least >= 3;
	if ($least >= 3)
	{
		cmp_ok($got[-1], '<=', 20 * $got[0], "shared out: $got[0] to $got[-1] runs");
		last;
	}
	usleep(500_000);
}
cmp_ok($least, '>=', 3, 'none starves');
my @scarce = slurp_file($node->logfile) =~ /no place for a worker/g;
cmp_ok(scalar @scarce, '<', 30, 'scarcity is logged by its turns and not by each look: ' . scalar @scarce);

# --- memory -----------------------------------------------------------------------------

# One database alone, its worker kept busy.
$node->append_conf('postgresql.conf', q(cs_ext.databases = 'd1'));
$node->reload;
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'cs_ext worker' AND datname = 'd1')
	. q( AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'cs_ext worker' AND datname <> 'd1'))), 'only one database is served');
worker_turns($node, 'd1', $want, 900);
launcher_turns($node, $want);
$node->stop('fast');
done_testing();
