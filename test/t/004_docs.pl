# (full run only) every SQL block of doc/*.md runs as it stands, each page in its
# own copy of one database, the demo's (made smaller) with a few tables beside
# it that the pages call the reader's own.  install.md runs in an empty database,
# since it begins with CREATE EXTENSION and ends with DROP.  A block may fail for
# one reason only: a page of pg_cron's calls, where pg_cron is not installed.
use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/../..";
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\nshared_preload_libraries = 'cs_ext'\ncs_ext.databases = 'served'\n");
$node->start;

# The first ERROR stops psql; NOTICEs are for whoever looks at a failure.
sub run_sql
{
	my ($db, $sql, @args) = @_;
	my $log = '';
	my $ok = IPC::Run::run([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db), @args ], '<', \$sql, '>', \$log, '2>&1');
	diag(substr($log, -2000)) unless $ok;
	return $ok;
}

# [section, text] of each SQL block of a page, in its order.
sub blocks
{
	my ($page) = @_;
	my ($section, @blocks) = ('');
	my $text = slurp_file($page);
	while ($text =~ /^(?:#+ ([^\n]+)|```sql\n(.*?)^```)$/msg)
	{
		if (defined $1) { $section = $1; }
		else { push @blocks, [ $section, $2 ]; }
	}
	return @blocks;
}

$node->safe_psql('postgres', "CREATE DATABASE $_") for qw(empty demo);
ok(run_sql('demo', '', '-v', 'customers=40', '-f', "$root/demo/company.sql"), 'a small demo company is made');
ok(run_sql('demo', '', '-f', "$root/demo/connect.sql"), 'and connected');
ok(run_sql('demo', <<'SQL'), 'what the pages call the own tables of the reader stands beside it, and is refreshed');
CREATE ROLE anna; CREATE ROLE ben; CREATE ROLE carla;
CREATE ROLE reporting LOGIN;
CREATE SCHEMA report;
CREATE PROCEDURE report.export() LANGUAGE sql AS 'SELECT 1';
CREATE SCHEMA app;
CREATE TABLE app.customer (id bigint);
CREATE TABLE app.subscription (id bigint);
CREATE TABLE app.contract (id bigint PRIMARY KEY, account_id bigint NOT NULL, start_date date NOT NULL, end_date date, price numeric);
CREATE TABLE app.event (customer_id bigint NOT NULL, user_id text, at timestamptz NOT NULL, name text, amount numeric);
CREATE TABLE app.event_2024 (LIKE app.event);
CREATE TABLE app.lead (id bigint, active_days_30d float8, open_tickets integer);
INSERT INTO app.contract VALUES (1, 17, '2026-01-01', NULL, 10);
INSERT INTO app.event SELECT 42, 'u' || d % 3, timestamptz '2026-09-30' - d * interval '1 day', 'export', d FROM generate_series(1, 20) d;
INSERT INTO app.lead VALUES (1, 12, 1), (2, NULL, NULL);
CREATE SCHEMA crm;
CREATE TABLE crm.merge (old_id bigint, new_id bigint, merged_at timestamptz);
CREATE SCHEMA stripe;
CREATE TABLE stripe.subscriptions (id text PRIMARY KEY, customer text, start_date timestamptz, ended_at timestamptz, amount numeric, "interval" text,
	status text, updated_at timestamptz);
SELECT * FROM cs.add_source('event', 'usage_event', 'app.event', '{"customer_id": "customer_id", "user_id": "user_id", "at": "at", "event": "name"}');
GRANT USAGE ON SCHEMA app, crm, stripe TO cs_ext_run;
CALL cs.refresh();
SQL

my @pages = grep { !/reference\.md$/ } sort glob "$root/doc/*.md";
cmp_ok(scalar @pages, '>=', 15, 'there are pages');
my $run = 0;
for my $page (@pages)
{
	my ($name) = $page =~ m{([^/]+)$};
	my @blocks = blocks($page);
	next unless @blocks;
	# jobs of kind sql need the scheduler; elsewhere it would only race with the page
	my $db = { 'install.md' => 'empty', 'operations.md' => 'served' }->{$name} // 'page';
	if ($db ne 'empty')
	{
		$node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE demo");
		$node->safe_psql('postgres', "ALTER DATABASE $db SET cs_ext.now = '2026-10-31 06:00:00+01'");
	}
	for my $block (@blocks)
	{
	  SKIP:
		{
			skip 'pg_cron has a test of its own', 1 if $block->[1] =~ /cron\.schedule/;
			ok(run_sql($db, $block->[1]), "$name, $block->[0]");
			$run++;
		}
	}
	$node->safe_psql('postgres', "DROP DATABASE $db") if $db ne 'empty';
}
cmp_ok($run, '>=', 50, 'blocks were run');
$node->stop;
done_testing();
