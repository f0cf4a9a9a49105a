# The lifecycle matrix of src/scheduler/README.md, the cells that no other file
# shows: what commits and what is rolled back, and statements that need a database
# alone, while jobs run there. How to run: see 010_worker.pl.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = PostgreSQL::Test::Cluster->new('matrix');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'cs_ext'
max_worker_processes = 20
cs_ext.max_workers = 12
restart_after_crash = on
log_statement = none
CONF
$node->start;

sub becomes
{
	my ($db, $query, $name) = @_;
	ok($node->poll_query_until($db, $query), $name);
}

# Within so many seconds, and says how long it took.
sub quick
{
	my ($limit, $name, $db, @statements) = @_;
	my $begin = time;
	$node->safe_psql($db, $_) for @statements;
	my $took = time - $begin;
	cmp_ok($took, '<', $limit, sprintf('%s: %.1f s', $name, $took));
}
my $ticks = q(SELECT count(*) FROM cs_internal.job_run WHERE job = 'tick' AND status = 'succeeded');
my $running = q(SELECT count(*) > 0 FROM cs.job_run WHERE job = 'sleeps' AND status = 'running');
my $policy = q(INSERT INTO cs.policy (run_as, time_zone, currency) VALUES ('runner', 'UTC', 'EUR'));
my $set_up = "CREATE EXTENSION cs_ext; $policy;" . q(
	INSERT INTO cs.job (name, kind, every) VALUES ('tick', 'retention', '1 second');
	INSERT INTO cs.job (name, kind, every, command, run_as, retry_after) VALUES ('sleeps', 'sql', '1 second', 'SELECT pg_sleep(300)', 'sleeper', '1 second'));
$node->safe_psql('postgres', 'CREATE ROLE runner LOGIN; CREATE ROLE sleeper LOGIN; CREATE EXTENSION cs_ext');

# A database in which a job of kind sql runs for minutes and one of our own every second.
sub busy
{
	my ($db) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, $set_up);
	ok($node->poll_query_until($db, $running) && $node->poll_query_until($db, "SELECT ($ticks) > 0"), "$db: jobs run");
}
sub goes_on
{
	my ($db, $name) = @_;
	my $n = $node->safe_psql($db, $ticks);
	becomes($db, "SELECT ($ticks) > $n", $name);
}

# --- CREATE EXTENSION, set-up, jobs: rolled back ----------------------------------------

$node->safe_psql('postgres', 'CREATE DATABASE aborts');
$node->safe_psql('aborts', 'BEGIN; CREATE EXTENSION cs_ext; ROLLBACK');
becomes('postgres', q(SELECT count(*) = 1 FROM cs.workers() WHERE database = 'aborts' AND pid IS NULL AND message = 'extension not created'),
	'CREATE EXTENSION rolled back: nothing is served');
$node->safe_psql('aborts', 'CREATE EXTENSION cs_ext');
$node->safe_psql('aborts', "BEGIN; $policy; ROLLBACK; SELECT cs_internal.wake_scheduler()");
becomes('postgres', q(SELECT count(*) = 1 FROM cs.workers() WHERE database = 'aborts' AND pid IS NULL AND message ~ 'not set up'),
	'set-up rolled back: nothing is served');
$node->safe_psql('aborts', $policy);
becomes('aborts', q(SELECT count(*) = 1 FROM cs.workers() WHERE database = 'aborts' AND message IS NULL), 'set up: served');
$node->safe_psql('aborts', q(BEGIN; INSERT INTO cs.job (name, kind, every) VALUES ('tick', 'retention', '1 second'); ROLLBACK;
	INSERT INTO cs.job (name, kind, every) VALUES ('tock', 'retention', '1 second')));
becomes('aborts', q(SELECT count(*) > 1 FROM cs.job_run WHERE job = 'tock'), 'a job that was committed runs');
is($node->safe_psql('aborts', q(SELECT count(*) FROM cs.job_run WHERE job = 'tick')), '0', 'one that was rolled back does not');

# --- a job is deleted while it runs: rolled back ----------------------------------------------

$node->safe_psql('aborts', q(INSERT INTO cs.job (name, kind, command, run_as) VALUES ('short', 'sql', 'SELECT pg_sleep(2)', 'sleeper'); SELECT cs.run_job('short')));
becomes('aborts', q(SELECT status = 'running' FROM cs.job_run WHERE job = 'short'), 'a run is under way');
$node->safe_psql('aborts', q(BEGIN; DELETE FROM cs.job WHERE name = 'short'; ROLLBACK));
becomes('aborts', q(SELECT last_status = 'succeeded' FROM cs.job_status WHERE job = 'short'), 'its deletion rolled back: it ends as it should');
$node->safe_psql('aborts', q(UPDATE cs.job SET enabled = false));

# --- a database for itself, while jobs run there -------------------------------------------------

busy('one');
my $guest = $node->background_psql('one', on_error_stop => 0);
$guest->query_safe('SELECT 1');
my ($status, $out, $err) = $node->psql('postgres', 'DROP DATABASE one');
like($err, qr/is being accessed by other users/, 'DROP DATABASE is refused for a guest who stays');
goes_on('one', 'refused: it is served again');
($status, $out, $err) = $node->psql('postgres', 'CREATE DATABASE copy TEMPLATE one');
like($err, qr/is being accessed by other users/, 'CREATE DATABASE TEMPLATE is refused for a guest');
goes_on('one', 'refused: it is served again (template)');
$guest->quit;
($status, $out, $err) = $node->psql('postgres', 'ALTER DATABASE one RENAME TO postgres');
like($err, qr/already exists/, 'ALTER DATABASE RENAME to a name that is taken is refused');
goes_on('one', 'refused: it is served again (rename)');
($status, $out, $err) = $node->psql('postgres', 'ALTER DATABASE one SET TABLESPACE nowhere');
like($err, qr/does not exist/, 'ALTER DATABASE SET TABLESPACE to one that is not there is refused');
goes_on('one', 'refused: it is served again (tablespace)');

becomes('one', $running, 'a job runs');
quick(5, 'ALTER DATABASE RENAME while jobs run', 'postgres', 'ALTER DATABASE one RENAME TO uno');
goes_on('uno', 'renamed: goes on');
becomes('uno', $running, 'a job runs again');
quick(5, 'CREATE DATABASE TEMPLATE while jobs run', 'postgres', 'CREATE DATABASE due TEMPLATE uno');
goes_on('uno', 'copied: goes on');
goes_on('due', 'the copy is served');
my $space = $node->basedir . '/space';
mkdir $space;
$node->safe_psql('postgres', "CREATE TABLESPACE space LOCATION '$space'");
becomes('uno', $running, 'a job runs before SET TABLESPACE');
quick(8, 'ALTER DATABASE SET TABLESPACE while jobs run', 'postgres', 'ALTER DATABASE uno SET TABLESPACE space');
goes_on('uno', 'moved: goes on');

# what ran in the original when it was copied is a crash in the copy, and rests
$node->safe_psql('due', q(SELECT cs.run_job('sleeps')));
becomes('due', $running, 'a job runs before DROP DATABASE');
quick(5, 'DROP DATABASE while jobs run', 'postgres', 'DROP DATABASE due');
becomes('uno', $running, 'a job runs before DROP DATABASE WITH (FORCE)');
quick(5, 'DROP DATABASE WITH (FORCE) while jobs run', 'postgres', 'DROP DATABASE uno WITH (FORCE)');
becomes('postgres', q(SELECT count(*) = 0 FROM cs.workers() WHERE database IS NULL AND process <> 'launcher'), 'nothing is left of them in shared memory');
is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'cs_ext job')), '0', 'nor a process');

# --- DROP EXTENSION while jobs run ------------------------------------------------------------------

busy('three');
$node->safe_psql('three', 'BEGIN; DROP EXTENSION cs_ext; ROLLBACK');
goes_on('three', 'DROP EXTENSION rolled back: goes on');
becomes('three', $running, 'also the job that was running');
quick(5, 'DROP EXTENSION while jobs run', 'three', 'DROP EXTENSION cs_ext');
becomes('postgres', q(SELECT count(*) = 1 FROM cs.workers() WHERE database = 'three' AND process = 'worker' AND pid IS NULL AND message = 'extension not created'),
	'the worker ends');
$node->safe_psql('postgres', q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'cs_ext job' AND datname = 'three'));
becomes('postgres', q(SELECT count(*) = 0 FROM cs.workers() WHERE database = 'three' AND process = 'job'), 'the outcome of the run is nobody\'s and forgotten');
quick(5, 'created again', 'three', $set_up);
goes_on('three', 'created again: served');

# --- a template, connections not allowed ---------------------------------------------------------------

$node->safe_psql('postgres', 'ALTER DATABASE three WITH IS_TEMPLATE true');
becomes('postgres', q(SELECT count(*) = 0 FROM cs.workers() WHERE database = 'three' AND process = 'worker'), 'made a template: not served any more');
$node->safe_psql('postgres', 'ALTER DATABASE three WITH IS_TEMPLATE false');
goes_on('three', 'no template any more: served');
$node->safe_psql('postgres', 'ALTER DATABASE three WITH ALLOW_CONNECTIONS false');
becomes('postgres', q(SELECT count(*) = 0 FROM cs.workers() WHERE database = 'three' AND process = 'worker'), 'no connections allowed: not served');
$node->safe_psql('postgres', 'ALTER DATABASE three WITH ALLOW_CONNECTIONS true');
goes_on('three', 'allowed again: served');

# --- the postmaster ---------------------------------------------------------------------------------------

becomes('three', $running, 'a job runs');
my $run = $node->safe_psql('three', q(SELECT max(id) FROM cs.job_run WHERE job = 'sleeps' AND status = 'running'));
my $ids = $node->safe_psql('three', q(SELECT string_agg(pid::text, ' ') FROM pg_stat_activity));
$node->kill9;
my $gone = 0;
for (1 .. 300)
{
	$gone = !grep { kill 0, $_ } split / /, $ids;
	last if $gone;
	Time::HiRes::sleep(0.1);
}
ok($gone, 'kill -9 of the postmaster: every process of ours ends');
unlink $node->data_dir . '/postmaster.pid';
$node->start;
goes_on('three', 'started again: goes on');
is($node->safe_psql('three', "SELECT status FROM cs.job_run WHERE id = $run"), 'crashed', 'the run that was under way counts as crashed');

$node->safe_psql('three', q(UPDATE cs.job SET description = 'x'; SELECT cs.run_job('sleeps')));
becomes('three', $running, 'a job runs before the shutdown');
my $begin = time;
$node->stop('fast');
my $took = time - $begin;
cmp_ok($took, '<', 20, sprintf('fast shutdown while jobs run: %.1f s', $took));
done_testing();
