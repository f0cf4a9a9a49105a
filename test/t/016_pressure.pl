# full run only (a minute and a half): Work that nobody announces, and more work than can be done at once: prepared
# transactions, and writers who are faster than refreshes.
# How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

require "$FindBin::Bin/../lib/server.pl";

our $node = preloaded('pressure', "max_worker_processes = 16\nmax_prepared_transactions = 4\n");

support_company(40);
my $quiet = quiet();
becomes("SELECT count(*) = 40 AND $quiet FROM cs_internal.state", 'set up and evaluated');

# --- prepared transactions: their commit wakes nobody -------------------------------------

sql(q(BEGIN; INSERT INTO public.tickets VALUES (1000001, 5, now() - interval '1 minute', NULL, true); PREPARE TRANSACTION 'yes'));
sql(q(BEGIN; INSERT INTO public.tickets VALUES (1000002, 6, now() - interval '1 minute', NULL, true); PREPARE TRANSACTION 'no'));
becomes(q(SELECT pid IS NULL FROM cs.workers() WHERE process = 'worker' AND database = 'postgres'), 'the worker has left');
sql(q(ROLLBACK PREPARED 'no'));
sql(q(COMMIT PREPARED 'yes'));
becomes(q(SELECT count(*) = 1 FROM cs_internal.alert WHERE key = '1000001'), 'COMMIT PREPARED: found by the next look, within a minute');
is(sql(q(SELECT count(*) FROM cs_internal.alert WHERE key = '1000002')), '0', 'ROLLBACK PREPARED: nothing is left of it');

# --- refreshes slower than their writers ----------------------------------------------------

# Each evaluated batch takes a quarter of a second; four writers commit all the time.
sql(q(CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.25); RETURN NULL; END';
	CREATE TRIGGER slow AFTER DELETE ON cs_internal.dirty FOR EACH STATEMENT EXECUTE FUNCTION public.slow();
	INSERT INTO cs.job (name, kind, every) VALUES ('tick', 'retention', '1 second')));
my $ticks = q(SELECT count(*) FROM cs.job_run WHERE job = 'tick' AND status = 'succeeded');
my $refreshes = q(SELECT coalesce(sum(runs), 0) FROM cs.job_run WHERE job = 'refresh' AND status = 'succeeded');
my ($ticks_before, $refreshes_before) = (sql($ticks), sql($refreshes));
my $script = $PostgreSQL::Test::Utils::tmp_check . '/write.sql';
append_to_file($script, "\\set c random(1, 40)\nINSERT INTO public.tickets (customer_id, opened, escalated) VALUES (:c, clock_timestamp(), true);\n\\sleep 5 ms\n");
my $bench = IPC::Run::start([ 'pgbench', '-n', '-c', '4', '-T', '12', '-f', $script, $node->connstr('postgres') ], '>', \my $out, '2>', \my $err);
my ($most, $behind) = (0, 0);
for (1 .. 30)
{
	my $n = sql('SELECT count(*) FROM cs_internal.change_log');
	$most = $n if $n > $most;
	$behind++ if $n > 0;
	Time::HiRes::usleep(250_000);
}
$bench->finish;
my ($written) = $out =~ /transactions actually processed: (\d+)/;
my $done = sql($refreshes) - $refreshes_before;
cmp_ok($written, '>', 10 * $done, "writers were faster: $written commits, $done refreshes");
cmp_ok($behind, '>', 5, 'the log of changes was rarely empty');
cmp_ok($most, '<', $written, "and never held all of them: at most $most rows");
cmp_ok(sql($ticks) - $ticks_before, '>=', 3, 'jobs went on meanwhile');
becomes("SELECT (SELECT count(*) FROM cs_internal.alert WHERE rule = 'ticket_escalated') + (SELECT count(*) FROM cs.held_alert) >= 1 AND $quiet", 'slower than its writers: afterwards everything is taken, by itself');
sql('DROP TRIGGER slow ON cs_internal.dirty');
is(sql(q(SELECT count(*) FROM (SELECT FROM cs_internal.alert WHERE rule = 'ticket_escalated' GROUP BY key HAVING count(*) > 1) x)), '0', 'no alert is doubled');

# --- news during a long refresh ---------------------------------------------------------------

# Twenty batches of two customers, a quarter of a second each: what changes meanwhile waits for one, and so do jobs.
sql(q(DELETE FROM cs.job WHERE name = 'tick'));
becomes(q(SELECT pid IS NULL FROM cs.workers() WHERE process = 'worker' AND database = 'postgres'), 'the worker has left');
sql(q(ALTER DATABASE postgres SET cs_ext.refresh_batch = 2;
	INSERT INTO cs.job (name, kind, every) VALUES ('tock', 'retention', '1 second')));
my $tocks = q(SELECT count(*) FROM cs.job_run WHERE job = 'tock' AND status = 'succeeded');
sql(q(INSERT INTO cs.alert_rule (name, scope, rule) VALUES ('whole', 'segment', 'customers > 0')));
my %left = (time => q(SELECT count(*) FROM cs_internal.state WHERE due_at <= now()), definition => q(SELECT count(*) FROM cs_internal.dirty WHERE cause = 'definition'));
my %begin = (time => 'UPDATE cs_internal.state SET due_at = now(); SELECT cs_internal.wake_scheduler()',
	definition => q(UPDATE cs.metric SET description = 'changed' WHERE name = 'open_tickets'; UPDATE cs.measure SET weight = weight * 2 WHERE name = 'open_tickets'));
for my $what (sort keys %left)
{
	becomes("SELECT $quiet AND ($left{$what}) = 0", 'nothing to do');
	sql('DELETE FROM cs_internal.segment_look');
	sql($begin{$what});
	sql(q(CREATE TRIGGER slow AFTER DELETE ON cs_internal.dirty FOR EACH STATEMENT EXECUTE FUNCTION public.slow()));
	becomes("SELECT ($left{$what}) BETWEEN 1 AND 38", "$what: everybody is being evaluated");
	my $before = sql($tocks);
	my $key = sql("INSERT INTO public.tickets VALUES (DEFAULT, 9, now() - interval '1 minute', NULL, true) RETURNING id");
	becomes("SELECT count(*) = 1 FROM cs_internal.alert WHERE rule = 'ticket_escalated' AND key = '$key'", 'a new fact has its alert');
	my $rest = sql($left{$what});
	cmp_ok($rest, '>=', 10, "before those who are left: $rest of 40");
	is(sql('SELECT count(*) FROM cs_internal.segment_look'), '0', 'alerts on whole segments wait until everybody is');
	becomes("SELECT ($left{$what}) = 0 AND $quiet", 'who were left are evaluated afterwards');
	becomes('SELECT count(*) = 1 FROM cs_internal.segment_look', 'and are looked at then');
	cmp_ok(sql($tocks), '>=', $before + 2, 'jobs went on meanwhile');
	sql('DROP TRIGGER slow ON cs_internal.dirty');
}
$node->stop;
done_testing();
