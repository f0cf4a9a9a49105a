# What other extensions with background processes were bitten by: settings of a
# database that reach the worker, a list of databases with mistakes, processes
# that are cancelled, no place for a worker, commits that wait for a standby, a
# role that is renamed, a schema that somebody made first.
# How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

require "$FindBin::Bin/../lib/server.pl";

our $node = preloaded('pitfalls', "max_worker_processes = 16\n", allows_streaming => 1);

sub logged { my ($what) = @_; my @l = slurp_file($node->logfile) =~ /$what/g; return scalar @l; }

# --- somebody made the schema first ------------------------------------------------------------

sql('CREATE DATABASE squatted');
for my $schema (qw(cs cs_internal))
{
	$node->safe_psql('squatted', "CREATE SCHEMA $schema");
	my ($status, $out, $err) = $node->psql('squatted', 'CREATE EXTENSION cs_ext');
	like($err, qr/schema "$schema" already exists|not a member of extension|cannot use schema/, "a schema $schema that was made before is not trusted");
	$node->safe_psql('squatted', "DROP SCHEMA $schema CASCADE");
}
sql('DROP DATABASE squatted');

# --- settings of the database ---------------------------------------------------------------------

sql(<<'SQL');
ALTER DATABASE postgres SET search_path = 'evil', 'public';
ALTER DATABASE postgres SET default_transaction_isolation = 'serializable';
ALTER DATABASE postgres SET statement_timeout = '1ms';
ALTER DATABASE postgres SET lock_timeout = '1ms';
ALTER DATABASE postgres SET idle_in_transaction_session_timeout = '1ms';
ALTER DATABASE postgres SET DateStyle = 'German';
ALTER DATABASE postgres SET TimeZone = 'Asia/Kathmandu';
ALTER DATABASE postgres SET bytea_output = 'escape';
ALTER DATABASE postgres SET row_security = off;
ALTER DATABASE postgres SET client_min_messages = debug1;
SQL
# This session's own settings are the server's.
$ENV{PGOPTIONS} = '-c search_path=public -c default_transaction_isolation=read\ committed -c statement_timeout=0 -c lock_timeout=0'
	. ' -c idle_in_transaction_session_timeout=0 -c DateStyle=ISO -c TimeZone=UTC -c bytea_output=hex -c client_min_messages=warning';
sql(<<'SQL');
CREATE SCHEMA evil;
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''shadowed''; END';
CREATE TABLE public.customers (id int PRIMARY KEY, name text);
CREATE TABLE public.tickets (id int PRIMARY KEY, customer_id int, opened timestamptz DEFAULT now(), resolved timestamptz, escalated boolean);
INSERT INTO public.customers SELECT i, 'customer ' || i FROM generate_series(1, 10) i;
CREATE EXTENSION cs_ext;
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR');
SELECT count(*) FROM cs.add_source('customers', 'customer', 'public.customers', '{"customer_id": "id", "name": "name"}');
SELECT count(*) FROM cs.add_source('tickets', 'ticket', 'public.tickets',
	'{"customer_id": "customer_id", "ticket_id": "id", "opened_at": "opened", "resolved_at": "resolved", "escalated": "escalated"}');
CREATE ROLE own LOGIN;
INSERT INTO cs.job (name, kind, every) VALUES ('tick', 'retention', '1 second');
INSERT INTO cs.job (name, kind, every, command, run_as) VALUES ('own', 'sql', '1 second', 'SELECT 1', 'own');
SQL
my $ran = sub { return sprintf(q(SELECT count(*) > %d FROM cs_internal.job_run WHERE job = '%s' AND status = 'succeeded'), $_[1] // 0, $_[0]) };
my $runs = sub { return sql(sprintf(q(SELECT count(*) FROM cs_internal.job_run WHERE job = '%s' AND status = 'succeeded'), $_[0])) };
my $alert = sub { return "SELECT count(*) = 1 FROM cs_internal.alert WHERE rule = 'ticket_escalated' AND key = '$_[0]'" };
my $ticket = sub { return "INSERT INTO public.tickets VALUES ($_[0], $_[0], now() - interval '1 minute', NULL, true)" };
sql($ticket->(1));
becomes($alert->(1), 'settings of the database do not reach what the worker does');
becomes($ran->('tick'), 'nor jobs of our own');
is(sql(q(SELECT count(*) FROM cs_internal.job_run WHERE job = 'refresh' AND status = 'failed')), '0', 'no refresh failed');
sql("ALTER DATABASE postgres RESET $_") for qw(statement_timeout lock_timeout idle_in_transaction_session_timeout client_min_messages);
becomes($ran->('own'), 'a job of kind sql runs with its database\'s settings');

# --- a role that is renamed -----------------------------------------------------------------------

sql('ALTER ROLE own RENAME TO renamed');
becomes(q(SELECT last_status = 'failed' AND error ~ 'role "own" does not exist any more' FROM cs.job_status WHERE job = 'own'), 'a job whose role was renamed fails and says so');
my $n = $runs->('tick');
becomes($ran->('tick', $n), 'the others go on');
sql('ALTER ROLE renamed RENAME TO own');
$n = $runs->('own');
sql(q(SELECT cs.run_job('own')));
becomes($ran->('own', $n), 'renamed back it runs');
sql(q(DELETE FROM cs.job WHERE name = 'own'));

# --- processes that are cancelled -------------------------------------------------------------------

for my $process ('launcher', 'worker')
{
	becomes("SELECT count(pg_cancel_backend(pid)) > 0 FROM pg_stat_activity WHERE backend_type = 'cs_ext $process'", "the $process is cancelled");
	my $id = $process eq 'launcher' ? 2 : 3;
	sql($ticket->($id));
	becomes($alert->($id), 'work goes on');
	becomes(q(SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'cs_ext launcher'), 'the launcher is there');
}

# --- a list of databases with mistakes ---------------------------------------------------------------

$node->append_conf('postgresql.conf', q(cs_ext.databases = 'nowhere, , "postgres'));
$node->reload;
for (1 .. 100) { last if logged(qr/invalid value for parameter "cs_ext.databases"/); usleep(100_000); }
cmp_ok(logged(qr/invalid value for parameter "cs_ext.databases"/), '>=', 1, 'a list that is none is said');
$node->append_conf('postgresql.conf', q(cs_ext.databases = 'nowhere, postgres'));
$node->reload;
$n = $runs->('tick');
becomes($ran->('tick', $n), 'a name in it that is no database harms no other');

# --- commits that wait for a standby --------------------------------------------------------------------

$node->append_conf('postgresql.conf', q(synchronous_standby_names = 'nobody'));
$node->reload;
becomes(q(SELECT setting = 'nobody' FROM pg_settings WHERE name = 'synchronous_standby_names'), 'a standby that never comes');
sql('SET synchronous_commit = local; ' . $ticket->(4));
becomes(q(SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'cs_ext worker' AND wait_event = 'SyncRep'), 'the worker waits for it');
my $begin = time;
$node->stop('fast');
cmp_ok(time - $begin, '<', 10, 'and does not hold up a fast shutdown');
$node->append_conf('postgresql.conf', q(synchronous_standby_names = ''));
$node->start;
becomes($alert->(4), 'afterwards it goes on');

# --- no place for a worker ---------------------------------------------------------------------------------

$node->append_conf('postgresql.conf', q(max_worker_processes = 2)); # one is PostgreSQL's own
$node->restart;
for (1 .. 100) { last if logged(qr/Raise max_worker_processes/); usleep(100_000); }
sql($ticket->(5));
# Many turns of the launcher, each of which finds no place.
sql('SELECT cs_internal.wake_scheduler()') for 1 .. 50;
usleep(100_000) until sql(q(SELECT now() - pg_postmaster_start_time() > interval '4 seconds')) eq 't';
is(logged(qr/Raise max_worker_processes/), 1, 'no place for any worker: said once, with what to raise');
sql('CALL cs.refresh()');
is(sql($alert->(5)), 't', 'who calls for a refresh needs no worker');
$node->append_conf('postgresql.conf', q(max_worker_processes = 16));
$node->restart;
sql($ticket->(6));
becomes($alert->(6), 'with places it is served again');
is(sql(q(SELECT count(*) FROM (SELECT FROM cs_internal.alert WHERE rule = 'ticket_escalated' GROUP BY key HAVING count(*) > 1) x)), '0', 'no alert is doubled');
$node->stop;
done_testing();
