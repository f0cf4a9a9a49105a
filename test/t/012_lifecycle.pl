# The main thing, by the worker alone: nobody calls refresh here. A fact is
# committed and what follows from it stands there. How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

require "$FindBin::Bin/../lib/server.pl";

our $database = 'company';
our $node = PostgreSQL::Test::Cluster->new('lifecycle');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'cs_ext'
max_worker_processes = 16
max_prepared_transactions = 4
restart_after_crash = on
log_statement = none
CONF
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE company');

my $quiet = q(NOT EXISTS (SELECT FROM cs_internal.change_log) AND NOT EXISTS (SELECT FROM cs_internal.pending)
	AND NOT EXISTS (SELECT FROM cs_internal.dirty));

sql(<<'SQL');
CREATE TABLE public.customers (id int PRIMARY KEY, name text, created date);
CREATE TABLE public.tickets (id int PRIMARY KEY, customer_id int, opened timestamptz DEFAULT now(), resolved timestamptz, escalated boolean);
INSERT INTO public.customers SELECT i, 'customer ' || i, '2026-01-01' FROM generate_series(1, 40) i;
INSERT INTO public.tickets SELECT i, i, now() - interval '30 days', now() - interval '29 days', false FROM generate_series(1, 40) i;
CREATE EXTENSION cs_ext;
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR');
SELECT count(*) FROM cs.add_source('customers', 'customer', 'public.customers',
	'{"customer_id": "id", "name": "name", "created_at": "created"}');
SELECT count(*) FROM cs.add_source('tickets', 'ticket', 'public.tickets',
	'{"customer_id": "customer_id", "ticket_id": "id", "opened_at": "opened", "resolved_at": "resolved", "escalated": "escalated"}');
SQL
becomes("SELECT count(*) = 40 AND $quiet FROM cs_internal.state", 'after set-up every customer is evaluated by the worker');
is(sql(q(SELECT count(*) FROM cs.alert WHERE rule = 'ticket_escalated')), '0', 'no alert before there is a reason');

# --- a ticket, an alert ------------------------------------------------------------

my $alerts = q(SELECT count(*) FROM cs.alert WHERE rule = 'ticket_escalated');
sql(q(INSERT INTO public.tickets VALUES (101, 7, now() - interval '1 minute', NULL, true)));
becomes("SELECT ($alerts) = 1", 'a new escalated ticket: an alert, by the worker alone');
is(sql(q(SELECT customer_id || ' ' || key || ' ' || state || ' ' || severity FROM cs.open_alert WHERE rule = 'ticket_escalated')),
	'7 101 open critical', 'it names customer and ticket');
becomes(q(SELECT count(*) = 1 FROM cs.alert_event WHERE seq IS NOT NULL AND alert_id = (SELECT id FROM cs.alert WHERE rule = 'ticket_escalated')),
	'its event is numbered');

sub refreshes { return "SELECT coalesce(sum(runs), 0) FROM cs.job_run WHERE job = 'refresh' AND status = 'succeeded'" }
for my $n (1 .. 3)
{
	my $before = sql(refreshes());
	sql(q(UPDATE public.tickets SET opened = opened - interval '1 second' WHERE id = 101));
	becomes('SELECT (' . refreshes() . ") > $before AND $quiet", "the ticket is touched again ($n): refreshed");
}
is(sql($alerts), '1', 'no second alert for the same ticket');
is(sql(q(SELECT count(*) FROM cs.alert_event e JOIN cs.alert a ON a.id = e.alert_id WHERE a.rule = 'ticket_escalated')), '1', 'and no second event');

my $listener = $node->background_psql('company', on_error_stop => 0);
$listener->query_safe('LISTEN cs_alert');
sql(q(INSERT INTO public.tickets VALUES (102, 7, now() - interval '1 minute', NULL, true)));
becomes("SELECT ($alerts) = 2", 'another ticket of the same customer: another alert');
becomes(q(SELECT count(*) = 0 FROM cs.alert_event WHERE seq IS NULL), 'numbered');
my $heard = $listener->query('SELECT 1');
like($heard, qr/Asynchronous notification "cs_alert" .*"severity"/, 'a listener hears of it');
$listener->quit;

sql(q(UPDATE public.tickets SET resolved = now() - interval '1 second' WHERE id = 101));
becomes(q(SELECT string_agg(key || ' ' || state, ',' ORDER BY key) = '101 resolved,102 open' FROM cs.alert WHERE rule = 'ticket_escalated'),
	'the ticket is resolved: its alert too, the other stays');

# --- rolled back, prepared ------------------------------------------------------------

my $before = sql(refreshes());
sql(q(BEGIN; INSERT INTO public.tickets VALUES (103, 8, now(), NULL, true); ROLLBACK));
sql(q(INSERT INTO public.tickets VALUES (104, 9, now() - interval '1 minute', NULL, true)));
becomes("SELECT ($alerts) = 3", 'a committed ticket after a rolled back one');
is(sql(q(SELECT count(*) FROM cs.alert WHERE key = '103')), '0', 'of what was rolled back nothing is left');

# --- a refresh that fails: recorded, rests, goes on by itself ------------------------------

# A source that cannot be read stops no refresh; something in the tables of cs_ext itself does.
sql(q(CREATE FUNCTION public.breaks() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''broken on purpose''; END';
	CREATE TRIGGER breaks BEFORE INSERT ON cs_internal.alert FOR EACH ROW EXECUTE FUNCTION public.breaks()));
sql(q(INSERT INTO public.tickets VALUES (105, 10, now() - interval '1 minute', NULL, true)));
becomes(q(SELECT count(*) > 0 FROM cs.job_run WHERE job = 'refresh' AND status = 'failed' AND error = 'broken on purpose'),
	'a refresh that fails is recorded');
becomes(q(SELECT message = 'broken on purpose' AND failures > 0 FROM cs.workers() WHERE database = 'company'), 'cs.workers() says why, and counts');
becomes(q(SELECT count(*) > 1 FROM cs.job_run WHERE job = 'refresh' AND status = 'failed'), 'it is tried again, and fails again');
sql('DROP TRIGGER breaks ON cs_internal.alert');
becomes(q(SELECT count(*) = 1 FROM cs.alert WHERE key = '105'), 'put right: the worker tries again by itself, nothing was lost');
becomes(q(SELECT message IS NULL AND failures = 0 FROM cs.workers() WHERE database = 'company'), 'and forgets the failure');
my @lines = slurp_file($node->logfile) =~ /ERROR:  broken on purpose/g;
is(scalar @lines, 1, 'the same error is logged once');

# --- jobs of our own kinds ---------------------------------------------------------------------

sql(q(SELECT cs.run_job('nightly_snapshot')));
becomes(q(SELECT last_status = 'succeeded' FROM cs.job_status WHERE job = 'nightly_snapshot'), 'the snapshot job runs');
is(sql(q(SELECT count(*) FROM cs_internal.metric_history WHERE as_of = date_trunc('day', now(), 'Europe/Berlin'))), '40',
	'and keeps every customer at the local midnight');
sql(q(INSERT INTO cs.job (name, kind, every) VALUES ('often', 'refresh', '1 second')));
becomes(q(SELECT count(*) > 1 FROM cs.job_run WHERE job = 'often' AND status = 'succeeded'), 'a job of kind refresh runs');
sql(q(DELETE FROM cs.job WHERE name = 'often'));

# --- a view as a source is read again by the worker ------------------------------------------------

$node->append_conf('postgresql.conf', "cs_ext.scan_interval = '1s'");
$node->reload;
sql(<<'SQL');
CREATE TABLE public.raw (id int, who int, at timestamptz);
CREATE VIEW public.seen AS SELECT id, who, at FROM public.raw;
SELECT count(*) FROM cs.add_source('seen', 'touchpoint', 'public.seen', '{"customer_id": "who", "at": "at"}');
SQL
becomes("SELECT scanned_at IS NOT NULL AND $quiet FROM cs_internal.source_state WHERE source = 'seen'", 'a view is scanned');
$before = sql(q(SELECT scanned_at FROM cs_internal.source_state WHERE source = 'seen'));
becomes("SELECT scanned_at > '$before' FROM cs_internal.source_state WHERE source = 'seen'", 'and scanned again, without a commit that wakes');
$node->append_conf('postgresql.conf', "cs_ext.scan_interval = '1h'");
$node->reload;

# --- crash, immediate shutdown: nothing lost, nothing doubled -----------------------------------------

my $insert = 0;
for my $round (1 .. 3)
{
	for (1 .. 20)
	{
		$insert++;
		sql("INSERT INTO public.tickets VALUES (200 + $insert, $insert % 40 + 1, now() - interval '1 minute', NULL, true)");
	}
	my $pid = sql(q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'cs_ext worker' AND datname = 'company'));
	if ($round < 3 && $pid =~ /^\d+$/)
	{
		kill 9, $pid;
	}
	else
	{
		$node->stop('immediate');
		$node->start;
	}
	ok(wait_for(sub {
			my ($status, $out) = $node->psql('company', "SELECT count(*) = $insert AND $quiet FROM cs.alert WHERE key::int BETWEEN 201 AND 300");
			return defined $out && $out eq 't';
		}), "crash $round: every ticket has its alert");
}
is(sql(q(SELECT count(*) FROM (SELECT 1 FROM cs.alert WHERE rule = 'ticket_escalated' GROUP BY key HAVING count(*) > 1) x)), '0', 'none is doubled');
is(sql(q(SELECT count(*) FROM cs.job_run WHERE status = 'running' AND job <> 'refresh')), '0', 'no run stays running');

# --- the evaluated instant fixed by ALTER DATABASE: the worker honours it, and rests -------------------

sql(q(ALTER DATABASE company SET cs_ext.now = '2031-01-01 00:00+00'));
$node->safe_psql('postgres', q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'cs_ext worker' AND datname = 'company'));
sql(q(UPDATE public.customers SET name = 'renamed' WHERE id = 1));
becomes(q(SELECT last_as_of = '2031-01-01 00:00+00' FROM cs_internal.clock), 'cs_ext.now of the database is what the worker computes at');
becomes(q(SELECT pid IS NULL FROM cs.workers() WHERE database = 'company'), 'and it ends when idle');

$node->stop;
done_testing();
