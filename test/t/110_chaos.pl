# Chaos under load, full run only: while writers change facts at random, random
# workers and launchers are terminated, processes are killed (each a crash restart
# of the server), the server is shut down at once. In the end derived state equals
# a rebuild, no job is stuck, no worker leaked, no alert is doubled or lost, and
# cs_ext itself wrote few lines to the log.
#
# CS_EXT_CHAOS_TERMINATES (150), CS_EXT_CHAOS_KILLS (50), CS_EXT_CHAOS_SHUTDOWNS (3),
# CS_EXT_CHAOS_WRITERS (2) make it longer or shorter. The seed is printed;
# CS_EXT_SEED=n repeats its choices (not the moments). How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

require "$FindBin::Bin/../lib/server.pl";

my %want = (
	terminate => $ENV{CS_EXT_CHAOS_TERMINATES} // 150,
	kill => $ENV{CS_EXT_CHAOS_KILLS} // 50,
	shutdown => $ENV{CS_EXT_CHAOS_SHUTDOWNS} // 3);
my $nwriters = $ENV{CS_EXT_CHAOS_WRITERS} // 2;
my $seed = $ENV{CS_EXT_SEED} // int(rand(1_000_000));
diag("seed $seed");
srand($seed);

our $node = PostgreSQL::Test::Cluster->new('chaos');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'cs_ext'
max_worker_processes = 16
cs_ext.now = '2025-06-20 09:00+02'
cs_ext.refresh_batch = 5
cs_ext.scan_interval = '5s'
restart_after_crash = on
log_statement = none
log_line_prefix = '%m [%p] {%b} '
shared_buffers = 32MB
CONF
$node->start;
$node->safe_psql('postgres', slurp_file("$FindBin::Bin/../lib/busy_company.sql"));
sql(q(CREATE ROLE toucher LOGIN; CREATE TABLE app.touched (at timestamptz); GRANT USAGE ON SCHEMA app TO toucher; GRANT INSERT ON app.touched TO toucher;
	INSERT INTO cs.job (name, kind, every, command, run_as, retry_after) VALUES ('touches', 'sql', '1 second', 'INSERT INTO app.touched VALUES (now())', 'toucher', '1 second');
	INSERT INTO cs.job (name, kind, every, retry_after) VALUES ('thins', 'retention', '1 second', '1 second'), ('reads', 'refresh', '3 seconds', '1 second'), ('keeps', 'snapshot', '5 seconds', '1 second')));
my $quiet = q(NOT EXISTS (SELECT FROM cs_internal.change_log) AND NOT EXISTS (SELECT FROM cs_internal.pending) AND NOT EXISTS (SELECT FROM cs_internal.dirty));
ok($node->poll_query_until('postgres', "SELECT count(*) > 0 AND $quiet FROM cs_internal.state"), 'the scheduler has made a beginning');

# --- writers -----------------------------------------------------------------------

my $stop = $node->basedir . '/stop';
my @writers;
for my $w (1 .. $nwriters)
{
	my $pid = fork;
	die "fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		my $n = 0;
		open STDERR, '>', '/dev/null';
		open STDOUT, '>', '/dev/null';
		while (!-e $stop)
		{
			$n++;
			my $s = ($seed + $w * 1009 + $n * 31) % 1_000_000;
			system('psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "CALL app.work($s, 3)");
			usleep(60_000);
		}
		require POSIX;
		POSIX::_exit(0);
	}
	push @writers, $pid;
}

# --- chaos ----------------------------------------------------------------------------

# The server answers (again after a crash); what the query gives then.
sub answer
{
	my ($query) = @_;
	for (1 .. 1200)
	{
		my ($status, $out) = $node->psql('postgres', $query);
		return $out if defined $status && $status == 0;
		usleep(50_000);
	}
	die 'the server did not come back';
}
my %did = map { $_ => 0 } qw(terminate kill shutdown);
my %victims;
my $begin = time;
for my $what (shuffle map { ($_) x $want{$_} } sort keys %want)
{
	usleep(int(rand(150_000)));
	if ($what eq 'shutdown')
	{
		answer('SELECT 1');
		$node->stop('immediate');
		$node->start;
		$did{shutdown}++;
		next;
	}
	my ($pid, $type);
	for (1 .. 400)
	{
		($pid, $type) = split /\|/, answer(q(SELECT pid, backend_type FROM pg_stat_activity WHERE backend_type LIKE 'cs\_ext%'
			ORDER BY (backend_type = 'cs_ext launcher'), random() LIMIT 1))
			if rand() < 0.9;
		($pid, $type) = split /\|/, answer(q(SELECT pid, backend_type FROM pg_stat_activity WHERE backend_type LIKE 'cs\_ext%' ORDER BY random() LIMIT 1)) unless $pid;
		last if $pid;
		usleep(50_000);
	}
	next unless $pid;
	if ($what eq 'terminate')
	{
		$did{terminate}++ if answer("SELECT pg_terminate_backend($pid)") =~ /t/;
	}
	else
	{
		$did{kill}++ if kill 9, $pid;
		usleep(20_000);
	}
	$victims{$type}++;
}
note(sprintf('%.0f s of chaos; %s', time - $begin, join(', ', map { "$_: $victims{$_}" } sort keys %victims)));
for my $what (sort keys %want)
{
	cmp_ok($did{$what}, '>=', 0.9 * $want{$what}, "$what: $did{$what} of $want{$what}");
}

append_to_file($stop, 'stop');
waitpid $_, 0 for @writers;
my $facts = answer('SELECT (SELECT count(*) FROM app.event) + (SELECT count(*) FROM app.click) + (SELECT count(*) FROM app.ticket)');
cmp_ok($facts, '>', 100, "the writers went on writing: $facts facts");

# --- afterwards ------------------------------------------------------------------------

# A job that crashed rests five minutes; that is no stuck job, so it is asked for.
sql(q(SELECT cs.run_job(name) FROM cs.job WHERE name IN ('touches', 'thins', 'reads', 'keeps')));
my $mark = sql('SELECT clock_timestamp()');
for my $job (qw(touches thins reads keeps))
{
	ok($node->poll_query_until('postgres', "SELECT count(*) > 0 FROM cs.job_run WHERE job = '$job' AND status = 'succeeded' AND started_at > '$mark'"), "job $job is not stuck");
}
ok($node->poll_query_until('postgres', "SELECT $quiet"), 'the scheduler comes to rest: nothing waits');
sql('UPDATE cs.job SET enabled = false');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 0 FROM cs.job_run WHERE status = 'running')), 'no run stays running');
is(sql(q(SELECT count(*) FROM cs_internal.job_run WHERE status = 'started')), '0', 'nor marked as started');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 0 FROM cs_internal.job_state s WHERE s.run_id IS NOT NULL)), 'no job holds a run that is gone');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type LIKE 'cs\_ext%')), 'only the launcher is left: no worker leaked');
is(sql(q(SELECT string_agg(process, ',') FROM cs.workers() WHERE pid IS NOT NULL)), 'launcher', 'nor a place in shared memory');

$node->append_conf('postgresql.conf', 'cs_ext.scheduler = off');
$node->reload;
is(sql('SELECT string_agg(DISTINCT sqlstate || \' \' || message, \'; \') FROM app.surprise WHERE sqlstate !~ \'^57\''), '', 'no writer met an error of cs_ext');
sql('CALL cs.refresh()');
sql("INSERT INTO app.kept SELECT 'refreshed', * FROM app.derived()");
is(sql("SELECT * FROM app.kept WHERE tab = 'waiting'"), '', 'nothing waits');
my $alerts = sql('SELECT jsonb_agg(to_jsonb(a) ORDER BY a.id) FROM cs_internal.alert a');
sql('CALL app.empty()');
sql('CALL cs.refresh()');
sql("INSERT INTO app.kept SELECT 'rebuilt', * FROM app.derived()");
is(sql("SELECT * FROM app.difference('refreshed', 'rebuilt')"), '', 'derived state equals a rebuild from nothing');
ok(sql('SELECT jsonb_agg(to_jsonb(a) ORDER BY a.id) FROM cs_internal.alert a') eq $alerts, 'which leaves the alerts alone');
is(sql('SELECT rule, customer_id, key FROM cs_internal.alert WHERE live GROUP BY 1, 2, 3 HAVING count(*) > 1'), '', 'no alert is open twice');
cmp_ok(sql('SELECT count(*) FROM cs_internal.alert_event'), '>', 20, 'there were alert events');
is(sql('SELECT (min(seq) = 1)::text || (max(seq) = count(*))::text || (count(DISTINCT seq) = count(*))::text FROM cs_internal.alert_event'),
	'truetruetrue', 'each has one number, without a gap');
is(sql(q(SELECT count(*) FROM (SELECT alert_id, to_state, lag(to_state) OVER (PARTITION BY alert_id ORDER BY seq) AS before, from_state FROM cs_internal.alert_event) e
	WHERE from_state IS DISTINCT FROM before AND NOT (from_state = 'pending' AND coalesce(before, 'resolved') IN ('resolved', 'dismissed')))), '0', 'and each goes on where the one before it ended');
is(sql(q(SELECT count(*) FROM (
		SELECT t.id::text FROM app.ticket t JOIN cs_internal.customer c ON c.customer_id = t.customer_id::text JOIN cs_internal.state s ON s.customer_id = c.customer_id
		WHERE t.escalated AND t.resolved_at IS NULL AND t.opened_at < '2025-06-20 09:00+02'
		EXCEPT SELECT a.key FROM cs_internal.alert a WHERE a.rule = 'ticket_escalated' AND a.live) x)), '0', 'every open escalated ticket has its alert: none is lost');

# --- the log ---------------------------------------------------------------------------

my @lines = grep { /\{cs_ext [a-z]+\} +(LOG|WARNING|ERROR|FATAL|PANIC)/ } split /\n/, slurp_file($node->logfile);
# what the server says of a process that somebody else ended is not ours
my @ours = grep { !/terminating background worker|terminating connection|due to administrator command/ } @lines;
my %texts;
for my $line (@ours)
{
	my $text = $line =~ s/^.*?\} +//r;
	$texts{ $text =~ s/\d+/n/gr }++;
}
note("$texts{$_} x $_") for sort { $texts{$b} <=> $texts{$a} } keys %texts;
cmp_ok(scalar @ours, '<', 200, 'cs_ext wrote ' . scalar(@ours) . ' lines to the log');
unlike(join("\n", @lines), qr/TRAP|PANIC|segmentation/i, 'no crash but those that were asked for');
$node->stop;
done_testing();
