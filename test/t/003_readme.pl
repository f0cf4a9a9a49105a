# Every SQL block of the README runs as it stands: the first in an empty
# database, the others one after the other in the demo's (made smaller).
use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/../..";
my $text = slurp_file("$root/README.md");
my ($section, @blocks) = ('');
while ($text =~ /^(?:#+ ([^\n]+)|```sql\n(.*?)^```)$/msg)
{
	if (defined $1) { $section = $1; }
	else { push @blocks, [ $section, $2 ]; }
}
cmp_ok(scalar @blocks, '>=', 7, 'the README has examples');

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\nshared_preload_libraries = 'cs_ext'\ncs_ext.scheduler = off\n");
$node->start;
$node->safe_psql('postgres', "CREATE DATABASE $_") for qw(empty demo);

sub run_sql
{
	my ($db, $sql, @args) = @_;
	my $log = '';
	my $ok = IPC::Run::run([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db), @args ], '<', \$sql, '>', \$log, '2>&1');
	diag($log) unless $ok;
	return ($ok, $log);
}

my $first = shift @blocks;
my ($ok, $log) = run_sql('empty', $first->[1]);
ok($ok, "the first block runs in an empty database");
like($log, qr/Acme Ltd\|1200/, 'and answers: the customer with its MRR');
like($log, qr/ticket_escalated\|acme/, 'and its alert');
is($node->safe_psql('empty', q{SELECT sum(numerator) FROM cs.churn_monthly}) + 0, 1, 'and the one who left');

($ok) = run_sql('demo', '', '-v', 'customers=40', '-f', "$root/demo/company.sql");
ok($ok, 'a small demo company is made');
($ok) = run_sql('demo', '', '-f', "$root/demo/connect.sql");
ok($ok, 'and connected');
($ok) = run_sql('demo', 'CALL cs.refresh()');
ok($ok, 'and refreshed');
for my $block (@blocks)
{
	($ok) = run_sql('demo', $block->[1]);
	ok($ok, "README, $block->[0]");
}
($ok, $log) = run_sql('demo', '', '-f', "$root/demo/report.sql");
ok($ok, 'the report of the demo runs');
like($log, qr/^1\|[^\n]+\|\d+\|\d+\|/m, 'and names whom to contact first');
is(run_sql('demo', '', '-f', "$root/demo/progress.sql") ? (run_sql('demo', '', '-f', "$root/demo/progress.sql"))[1] + 0 : -1, 100, 'nothing is left to refresh');
$node->stop;
done_testing();
