# Every way in which a database is dumped and restored, also into a server that
# lacks the roles: what was defined and decided comes back, the scheduler rests
# until release_hold(); pg_upgrade carries it over and lets it go on.
# pg_dump | psql is shown in 001_dump_restore.pl. How to run: see 010_worker.pl.
use strict;
use warnings;

use Cwd;
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = <<'CONF';
shared_preload_libraries = 'cs_ext'
max_worker_processes = 16
cs_ext.now = '2025-07-01 06:00:00+02'
log_statement = none
fsync = off
CONF
my $node = PostgreSQL::Test::Cluster->new('old');
$node->init;
$node->append_conf('postgresql.conf', $conf);
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE original');
$node->safe_psql('original', 'CREATE EXTENSION cs_ext');
is($node->psql('original', slurp_file("$FindBin::Bin/../lib/small_company.sql")), 0, 'a company is set up');
$node->safe_psql('postgres', 'CREATE ROLE exporter LOGIN');
$node->safe_psql('original', <<'SQL');
CALL cs.refresh();
SELECT cs.ack_alert(min(id), 'seen') FROM cs.open_alert;
SELECT cs.override_health('7', 40, NULL, NULL, 'they told us', '2026-01-01');
INSERT INTO cs.dimension (name, fallback) VALUES ('my_tier', 'small');
INSERT INTO cs.segment (dimension, name, rule, priority) VALUES ('my_tier', 'big', 'mrr >= 250', 10);
SELECT cs.assign_segment('7', 'my_tier', 'big', 'by hand', '2026-01-01');
INSERT INTO cs.job (name, kind, every, command, run_as) VALUES ('export', 'sql', '1 second', 'SELECT 1', 'exporter');
CALL cs.refresh();
SQL
ok($node->poll_query_until('original', q(SELECT count(*) > 0 FROM cs.job_run WHERE job = 'export' AND status = 'succeeded')), 'its jobs run');
$node->safe_psql('original', q(SELECT cs.pause_job('export')));
my $quiet = q(NOT EXISTS (SELECT FROM cs_internal.change_log) AND NOT EXISTS (SELECT FROM cs_internal.pending) AND NOT EXISTS (SELECT FROM cs_internal.dirty));
ok($node->poll_query_until('original', "SELECT $quiet"), 'everything is evaluated');
$node->safe_psql('original', q(SELECT cs.resume_job('export')));
$node->safe_psql('original', q(ALTER DATABASE original SET cs_ext.actor = 'keeper'));

# Every table that a dump carries, as one text; and what is derived from it.
sub kept
{
	my ($n, $db) = @_;
	my @tables = split /\n/, $n->safe_psql($db, q{SELECT c.oid::regclass FROM pg_class c, pg_extension e
		WHERE e.extname = 'cs_ext' AND c.oid = ANY (e.extconfig) AND c.relkind IN ('r', 'p') ORDER BY 1::text});
	return { map { my $t = $_; $t => $n->safe_psql($db, "SET TimeZone = 'UTC'; SELECT coalesce(jsonb_agg(r ORDER BY r), '[]') FROM (SELECT to_jsonb(x) AS r FROM $t x) s") } @tables };
}
my $derived = q{SELECT jsonb_agg(to_jsonb(s) - 'due_at' ORDER BY s.customer_id) FROM cs_internal.state s};
my $alerts = q{SELECT jsonb_agg(to_jsonb(a) - 'computed_at' - 'data_through_at' ORDER BY a.id) FROM cs.alert a};
my $before = kept($node, 'original');
my ($state, $alerts_before) = map { $node->safe_psql('original', $_) } ($derived, $alerts);
cmp_ok(scalar keys %$before, '>', 20, 'definitions and decisions are marked for dump');
isnt($alerts_before, '', 'there are alerts');

# What must hold of a database that was restored.
sub restored
{
	my ($n, $db, $how) = @_;
	my $after = kept($n, $db);
	is_deeply([ grep { $after->{$_} ne $before->{$_} } sort keys %$before ], [], "$how: every definition and decision came back");
	is($n->safe_psql($db, 'SELECT reason FROM cs_internal.hold'), 'restore', "$how: held");
	ok($n->poll_query_until($db, "SELECT message = 'held until cs.release_hold()' FROM cs.workers() WHERE database = '$db' AND process = 'worker'"), "$how: the scheduler sees it and rests");
	is($n->safe_psql($db, 'SELECT count(*) FROM cs_internal.job_run'), '0', "$how: no job has run, nothing was refreshed");
	is($n->safe_psql($db, q(SELECT DISTINCT what_to_do FROM cs.job_status)), 'held since a restore: SELECT cs.release_hold()', "$how: job_status says why");
}
sub released
{
	my ($n, $db, $how) = @_;
	is($n->safe_psql($db, 'SELECT cs.release_hold()'), 't', "$how: released");
	ok($n->poll_query_until($db, "SELECT count(*) > 0 AND $quiet FROM cs_internal.state"), "$how: refreshed by the scheduler");
	ok($n->safe_psql($db, $derived) eq $state, "$how: what is derived is what it was");
	ok($n->safe_psql($db, $alerts) eq $alerts_before, "$how: no alert is doubled, lost or changed");
	ok($n->poll_query_until($db, q(SELECT last_status = 'succeeded' FROM cs.job_status WHERE job = 'export')), "$how: jobs of kind sql go on");
	$n->safe_psql($db, q(UPDATE cs.job SET enabled = false));
}
my $dumps = $PostgreSQL::Test::Utils::tmp_check;

# --- pg_dump -Fc | pg_restore -j ---------------------------------------------------------

command_ok([ 'pg_dump', '-Fc', '-f', "$dumps/c.dump", $node->connstr('original') ], 'pg_dump -Fc');
$node->safe_psql('postgres', 'CREATE DATABASE jobs');
command_ok([ 'pg_restore', '-j', '3', '-d', $node->connstr('jobs'), "$dumps/c.dump" ], 'pg_restore -j 3 without an error');
restored($node, 'jobs', 'pg_restore -j');
released($node, 'jobs', 'pg_restore -j');

# --- schema first, then --data-only ----------------------------------------------------------

command_ok([ 'pg_dump', '--schema-only', '-f', "$dumps/s.sql", $node->connstr('original') ], 'pg_dump --schema-only');
command_ok([ 'pg_dump', '--data-only', '-f', "$dumps/d.sql", $node->connstr('original') ], 'pg_dump --data-only');
$node->safe_psql('postgres', 'CREATE DATABASE parts');
command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('parts'), '-f', "$dumps/s.sql" ], 'the schema restores');
command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('parts'), '-f', "$dumps/d.sql" ], 'then the data');
restored($node, 'parts', '--data-only');
released($node, 'parts', '--data-only');

# --- into a server that lacks the roles ----------------------------------------------------------

my $bare = PostgreSQL::Test::Cluster->new('bare');
$bare->init;
$bare->append_conf('postgresql.conf', $conf);
$bare->start;
$bare->safe_psql('postgres', 'CREATE DATABASE strange');
my ($out, $err) = ('', '');
IPC::Run::run([ 'pg_restore', '-d', $bare->connstr('strange'), "$dumps/c.dump" ], '<', \'', '>', \$out, '2>', \$err);
my @errors = grep { /error: could not execute query/ } split /\n/, $err;
my @roles = $err =~ /ERROR:  role "(?:cs_ext_run|exporter)" does not exist/g;
is(scalar @errors, scalar @roles, 'without the roles nothing fails but what is granted to them');
restored($bare, 'strange', 'without roles');
is($bare->safe_psql('strange', q(SELECT object || ': ' || finding FROM cs.doctor() WHERE "check" = 'run_as')), 'cs_ext_run: the role does not exist', 'doctor says which role it lacks');
$bare->safe_psql('strange', q(CREATE ROLE cs_ext_run; CREATE ROLE exporter LOGIN; GRANT USAGE ON SCHEMA app TO cs_ext_run; GRANT SELECT ON ALL TABLES IN SCHEMA app TO cs_ext_run));
released($bare, 'strange', 'the roles made');
is($bare->safe_psql('strange', q(SELECT count(*) FROM cs.definition_status WHERE status = 'failing')), '0', 'the roles made: nothing fails');
$bare->stop;

# --- pg_upgrade --------------------------------------------------------------------------------------

$node->safe_psql('postgres', "DROP DATABASE $_ WITH (FORCE)") for qw(jobs parts);
$before = kept($node, 'original');
$state = $node->safe_psql('original', $derived);
my $months = $node->safe_psql('original', 'SELECT count(*) FROM cs_internal.usage_month');
my $new = PostgreSQL::Test::Cluster->new('new');
$new->init;
$new->append_conf('postgresql.conf', $conf);
$node->stop;
my $bin = $node->config_data('--bindir');
chomp $bin;
# pg_upgrade leaves a script where it is called; paths of log files are relative
my $here = getcwd();
chdir $dumps;
command_ok([ 'pg_upgrade', '--no-sync', '-d', $node->data_dir, '-D', $new->data_dir, '-b', $bin, '-B', $bin, '-s', $new->host, '-p', $node->port, '-P', $new->port ], 'pg_upgrade');
chdir $here;
unlike(slurp_file($_), qr/cs_ext (launcher|worker|job)/, 'nothing of cs_ext ran during it') for glob($new->data_dir . '/pg_upgrade_output.d/*/log/pg_upgrade_server.log');
$new->start;
is($new->safe_psql('original', 'SELECT count(*) FROM cs_internal.hold'), '0', 'upgraded: not held');
is($new->safe_psql('original', 'SELECT count(*) FROM cs_internal.usage_month'), $months, 'upgraded: what was derived is there without a refresh');
ok($new->safe_psql('original', $derived) eq $state, 'upgraded: state is what it was');
ok($new->safe_psql('original', $alerts) eq $alerts_before, 'upgraded: so are the alerts');
my $after = kept($new, 'original');
is_deeply([ grep { $after->{$_} ne $before->{$_} } sort keys %$before ], [], 'upgraded: and every definition and decision');
my $runs = $new->safe_psql('original', q(SELECT count(*) FROM cs.job_run WHERE job = 'export' AND status = 'succeeded'));
ok($new->poll_query_until('original', "SELECT count(*) > $runs FROM cs.job_run WHERE job = 'export' AND status = 'succeeded'"), 'upgraded: jobs go on by themselves');
$new->safe_psql('original', q(INSERT INTO app.ticket (id, customer_id, opened_at, severity, escalated) VALUES (9001, 2, '2025-06-30 12:00+02', 'urgent', true)));
ok($new->poll_query_until('original', q(SELECT count(*) = 1 FROM cs.open_alert WHERE rule = 'ticket_escalated' AND key = '9001')), 'upgraded: capture and alerts go on');
$new->stop;
done_testing();
