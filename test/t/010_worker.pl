# The life of the processes: launcher and database worker, through creating and
# dropping, settings, crashes.
#
# Runs with PostgreSQL's own test modules, as an ordinary user: PATH with the
# server's programs, PERL5LIB with PostgreSQL::Test::Cluster (below pgxs in the
# server's development package), TESTDIR writable, PG_REGRESS. test/run sets them.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

require "$FindBin::Bin/../lib/server.pl";

our $node = PostgreSQL::Test::Cluster->new('worker');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'cs_ext'
max_worker_processes = 12
restart_after_crash = on
log_statement = none
CONF
$node->start;

# Polls a query in database postgres, which has no extension at first.
sub becomes_in
{
	my ($db, $query, $name) = @_;
	my $begin = time;
	ok($node->poll_query_until($db, $query), $name);
	note(sprintf("%.1f s", time - $begin));
}

my $worker = q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'cs_ext worker' AND datname = 'one');

# --- launcher, discovery, leaving ---------------------------------------------

becomes_in('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'cs_ext launcher'),
	'the launcher runs');
is($node->safe_psql('postgres', q(SELECT datname IS NULL FROM pg_stat_activity WHERE backend_type = 'cs_ext launcher')),
	't', 'it is connected to no database');

$node->safe_psql('postgres', 'CREATE DATABASE one');
$node->safe_psql('one', 'CREATE EXTENSION cs_ext; CREATE ROLE runner LOGIN');
becomes_in('one', q(SELECT count(*) = 1 FROM cs.workers() WHERE database = 'one' AND pid IS NULL AND message ~ 'not set up'),
	'a database that is not set up is left alone');

my $policy = q(INSERT INTO cs.policy (run_as, time_zone, currency) VALUES ('runner', 'UTC', 'EUR'));
my $mark = $node->safe_psql('one', 'SELECT clock_timestamp()');
$node->safe_psql('one', $policy);
becomes_in('one', qq(SELECT since > '$mark' FROM cs.workers() WHERE database = 'one' AND message IS NULL),
	'set-up wakes a worker');
becomes_in('one', q(SELECT pid IS NULL AND next_due > clock_timestamp() FROM cs.workers() WHERE database = 'one' AND message IS NULL),
	'it ends when idle, and says when it comes again');

# --- nothing while off or held ---------------------------------------------------

my $ticks = q(SELECT count(*) FROM cs.job_run WHERE job = 'tick' AND status = 'succeeded');
$node->safe_psql('one', q(INSERT INTO cs.job (name, kind, every) VALUES ('tick', 'retention', '1 second')));
becomes_in('one', "SELECT ($ticks) > 1", 'a job runs');

$node->append_conf('postgresql.conf', 'cs_ext.scheduler = off');
$node->reload;
becomes_in('one', "SELECT NOT EXISTS ($worker)", 'scheduler off: the worker ends');
my $count = $node->safe_psql('one', $ticks);
$node->safe_psql('one', q(UPDATE cs.job SET description = 'changed'));
$node->safe_psql('one', q(SELECT pg_sleep(2.5)));    # what must not happen can only be waited for
is($node->safe_psql('one', $ticks), $count, 'scheduler off: no job runs');
$node->append_conf('postgresql.conf', 'cs_ext.scheduler = on');
$node->reload;
becomes_in('one', "SELECT ($ticks) > $count", 'scheduler on by reload: jobs go on');

$node->safe_psql('one', q(INSERT INTO cs_internal.hold (reason, since) VALUES ('restore', now())));
becomes_in('one', q(SELECT count(*) = 1 FROM cs.workers() WHERE database = 'one' AND pid IS NULL AND message ~ 'held'),
	'a held database is left alone');
$count = $node->safe_psql('one', $ticks);
$node->safe_psql('one', q(SELECT pg_sleep(2.5)));
is($node->safe_psql('one', $ticks), $count, 'held: no job runs');
$node->safe_psql('one', 'SELECT cs.release_hold()');
becomes_in('one', "SELECT ($ticks) > $count", 'released: jobs go on');

# --- the library of another version ------------------------------------------------

my $version = $node->safe_psql('one', q(SELECT extversion FROM pg_extension WHERE extname = 'cs_ext'));
my $offset = -s $node->logfile;
$node->safe_psql('one', q(UPDATE pg_extension SET extversion = '0.0.1' WHERE extname = 'cs_ext'));
my $said = qr/cs_ext does not serve database "one": library of version \Q$version\E, extension of version 0.0.1/;
ok(wait_for(sub { slurp_file($node->logfile, $offset) =~ $said }), 'SQL of another version: the worker says so');
becomes_in('one', "SELECT NOT EXISTS ($worker)", 'and ends');
my ($woken_status, undef, $mismatch) = $node->psql('one', "SELECT cs.mrr()");
like($mismatch, qr/library of cs_ext is of version \Q$version\E, the extension in this database of version 0.0.1.*HINT:  Run ALTER EXTENSION cs_ext UPDATE/s,
	'functions fail with a clear hint');
$count = $node->safe_psql('one', q(SELECT count(*) FROM cs_internal.job_run));
$node->safe_psql('one', 'SELECT cs_internal.wake_scheduler()') for 1 .. 3;
$node->safe_psql('one', q(SELECT pg_sleep(2)));    # what must not happen can only be waited for
is($node->safe_psql('one', q(SELECT count(*) FROM cs_internal.job_run)), $count, 'no job runs, also when woken');
my @lines = slurp_file($node->logfile, $offset) =~ /$said/g;
is(scalar @lines, 1, 'with one log line');
$node->safe_psql('one', "UPDATE pg_extension SET extversion = '$version' WHERE extname = 'cs_ext'; SELECT cs_internal.wake_scheduler()");
$count = $node->safe_psql('one', $ticks);
becomes_in('one', "SELECT ($ticks) > $count", 'the right version again: jobs go on');

# --- terminated, killed -----------------------------------------------------------

becomes_in('one', "SELECT EXISTS ($worker)", 'a worker is there');
$count = $node->safe_psql('one', $ticks);
$node->safe_psql('one', "SELECT pg_terminate_backend(pid) FROM ($worker) w");
becomes_in('one', "SELECT ($ticks) > $count", 'a terminated worker is followed by another');

my $launcher = $node->safe_psql('postgres', q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'cs_ext launcher'));
$count = $node->safe_psql('one', $ticks);
$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
becomes_in('one', "SELECT ($ticks) > $count + 1 AND count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'cs_ext launcher' AND pid <> $launcher",
	'a terminated launcher is started again');

becomes_in('one', "SELECT EXISTS ($worker)", 'a worker is there again');
my $pid = $node->safe_psql('one', $worker);
$count = $node->safe_psql('one', $ticks);
kill 9, $pid;
ok(wait_for(sub {
		my ($status, $out) = $node->psql('one', "SELECT ($ticks) > $count + 1");
		return defined $out && $out eq 't';
	}), 'kill -9 of the worker: after the crash restart jobs go on');

# --- dropping ------------------------------------------------------------------------

becomes_in('one', "SELECT EXISTS ($worker)", 'a worker is there before DROP EXTENSION');
my $start = time;
$node->safe_psql('one', 'BEGIN; DROP EXTENSION cs_ext; ROLLBACK');
$count = $node->safe_psql('one', $ticks);
becomes_in('one', "SELECT ($ticks) > $count", 'DROP EXTENSION rolled back: jobs go on');
$node->safe_psql('one', 'DROP EXTENSION cs_ext');
cmp_ok(time - $start, '<', 20, 'DROP EXTENSION takes seconds');
becomes_in('one', "SELECT NOT EXISTS ($worker)", 'the worker ends');

$node->safe_psql('one', "CREATE EXTENSION cs_ext; $policy;
	INSERT INTO cs.job (name, kind, every) VALUES ('tick', 'retention', '1 second')");
becomes_in('one', "SELECT ($ticks) > 0", 'created again: jobs run');

becomes_in('postgres', "SELECT EXISTS ($worker)", 'a worker is there before CREATE DATABASE TEMPLATE');
$node->safe_psql('postgres', 'CREATE DATABASE two TEMPLATE one');
becomes_in('two', q(SELECT count(*) > 0 FROM cs.workers() WHERE database = 'two'), 'the copy is found');
becomes_in('two', "SELECT ($ticks) > 0", 'and served');
$node->safe_psql('postgres', 'ALTER DATABASE two RENAME TO three');
becomes_in('three', "SELECT ($ticks) > 2", 'renamed while it is served: goes on');
$start = time;
$node->safe_psql('postgres', 'DROP DATABASE three');
$node->safe_psql('postgres', 'DROP DATABASE one WITH (FORCE)');
cmp_ok(time - $start, '<', 20, 'DROP DATABASE takes seconds while it is served');
becomes_in('postgres', q(SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'cs_ext worker' AND datname <> 'postgres'),
	'no worker is left');

# --- a plain role ------------------------------------------------------------------------

$node->safe_psql('postgres', "CREATE EXTENSION cs_ext; $policy; CREATE ROLE reader LOGIN; SELECT cs.grant_reader('reader')");
my ($status, $out, $err) = $node->psql('postgres', 'SET ROLE reader; SELECT count(*) FROM cs.job_status; SELECT count(*) >= 0 FROM cs.job_run');
is($err, '', 'a reader reads job_status and job_run');
($status, $out, $err) = $node->psql('postgres', q(SET ROLE reader; INSERT INTO cs.job (name, kind) VALUES ('x', 'retention')));
like($err, qr/permission denied/, 'a reader writes no job');

$start = time;
$node->stop('fast');
cmp_ok(time - $start, '<', 20, 'fast shutdown takes seconds');
done_testing();
