# From an older version to this one: a database that was updated is, member for
# member, what a fresh one is, and what a dump of it restores to; until the update
# nothing of it works half: the worker idles, functions say what to do.
#
# The older version is made here, of this one's script without a piece; the update
# script is that piece. Real ones (sql/cs_ext--A--B.sql) are walked as well, from
# each version whose install script is kept. How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('update');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'cs_ext'
max_worker_processes = 16
cs_ext.now = '2025-07-01 06:00:00+02'
log_statement = none
CONF
my $share = $node->config_data('--sharedir');
chomp $share;
my $dir = "$share/extension";
my ($version) = slurp_file("$dir/cs_ext.control") =~ /default_version = '(.*?)'/;
my $old = '0.0.9';
plan skip_all => "cannot write to $dir" unless -w $dir;

# Of the pieces of the script the one of uninstall.
my $script = slurp_file("$dir/cs_ext--$version.sql");
my ($piece) = $script =~ /(\n-- -{70,}\n-- uninstall:.*?)(?=\n-- -{70,}\n-- [a-z_]+\b)/s;
ok(defined $piece && $piece =~ /CREATE PROCEDURE cs.uninstall/, 'the script has a piece to leave out');
my $shorter = $script;
substr($shorter, index($shorter, $piece), length $piece) = '';
sub write_file { my ($file, $text) = @_; open my $f, '>', $file or die "$file: $!"; print $f $text; close $f; }
write_file("$dir/cs_ext--$old.sql", $shorter);
write_file("$dir/cs_ext--$old--$version.sql", "\\echo Use \"ALTER EXTENSION cs_ext UPDATE\" to load this file. \\quit\nSET LOCAL search_path TO pg_catalog, pg_temp;\n$piece
-- of its own objects alone: a REVOKE on all would make the grants that a database has into ones that come by themselves, lost in a dump
REVOKE ALL ON PROCEDURE cs.uninstall(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION cs_internal.uninstall(text), cs_internal.keepsakes() FROM PUBLIC;
");
END { unlink "$dir/cs_ext--$old.sql", "$dir/cs_ext--$old--$version.sql" if $dir && $old && -w $dir; }

# Every member with all that makes it what it is; nothing that is of one database alone.
my $members = <<'SQL';
SELECT m FROM (
	SELECT pg_describe_object(d.classid, d.objid, 0) || ': ' || concat_ws(' | ',
		CASE d.classid WHEN 'pg_proc'::regclass THEN (SELECT CASE WHEN p.prokind = 'a' THEN 'aggregate' ELSE pg_get_functiondef(p.oid) END || coalesce((SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(p.proacl) a), '') FROM pg_proc p WHERE p.oid = d.objid)
		WHEN 'pg_class'::regclass THEN (SELECT concat_ws(' | ', c.relkind, (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(c.relacl) a), c.reloptions::text, CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END,
			(SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, pg_get_expr(f.adbin, f.adrelid), col_description(c.oid, a.attnum)), ', ' ORDER BY a.attname)
				FROM pg_attribute a LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
			(SELECT string_agg(pg_get_constraintdef(k.oid), ', ' ORDER BY k.conname) FROM pg_constraint k WHERE k.conrelid = c.oid),
			(SELECT string_agg(pg_get_indexdef(i.indexrelid), ', ' ORDER BY i.indexrelid::regclass::text) FROM pg_index i WHERE i.indrelid = c.oid),
			(SELECT string_agg(pg_get_triggerdef(t.oid), ', ' ORDER BY t.tgname) FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
			(SELECT e.extcondition[array_position(e.extconfig, c.oid)] || ' dumped' FROM pg_extension e WHERE e.extname = 'cs_ext')) FROM pg_class c WHERE c.oid = d.objid)
		ELSE '' END,
		obj_description(d.objid, d.classid::regclass::name)) AS m
	FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'cs_ext'
	WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e') x ORDER BY m COLLATE "C"
SQL

# What is in one list and not in the other, cut short.
sub same
{
	my ($a, $b, $name) = @_;
	my (%a, %b);
	$a{$_}++ for split /\n(?=\S+ \S+.*: )/, $a;
	$b{$_}++ for split /\n(?=\S+ \S+.*: )/, $b;
	my @only = ((map { "- $_" } grep { !$b{$_} } sort keys %a), (map { "+ $_" } grep { !$a{$_} } sort keys %b));
	ok(!@only, $name) or diag(join "\n", map { substr $_, 0, 300 } @only[0 .. ($#only > 5 ? 5 : $#only)]);
}

$node->start;
$node->safe_psql('postgres', "CREATE DATABASE $_") for qw(fresh updated restored);
$node->safe_psql('fresh', 'CREATE EXTENSION cs_ext');

# --- the older version: nothing works half ------------------------------------------------

$node->safe_psql('updated', "CREATE EXTENSION cs_ext VERSION '$old'");
my ($status, $out, $err) = $node->psql('updated', q(SELECT cs.setup('Europe/Berlin', 'EUR')));
like($err, qr/the library of cs_ext is of version \Q$version\E, the extension in this database of version $old.*HINT:  Run ALTER EXTENSION cs_ext UPDATE/s, 'a function of the older version says what to do');
($status, $out, $err) = $node->psql('updated', 'CALL cs.refresh()');
like($err, qr/ALTER EXTENSION cs_ext UPDATE/, 'so does a refresh');
my $log = sub { my @l = slurp_file($node->logfile) =~ /cs_ext does not serve database "updated"/g; return scalar @l };
for (1 .. 300) { last if $log->(); Time::HiRes::usleep(100_000); }
is($log->(), 1, 'the worker idles, with one line in the log');

# --- the update: rolled back, committed ------------------------------------------------------

$node->safe_psql('updated', 'BEGIN; ALTER EXTENSION cs_ext UPDATE; ROLLBACK');
($status, $out, $err) = $node->psql('updated', 'SELECT cs.mrr()');
like($err, qr/ALTER EXTENSION cs_ext UPDATE/, 'ALTER EXTENSION UPDATE rolled back: it is the older version');
$node->safe_psql('updated', 'ALTER EXTENSION cs_ext UPDATE');
is($node->safe_psql('updated', q(SELECT extversion FROM pg_extension WHERE extname = 'cs_ext')), $version, 'updated');
is($node->psql('updated', slurp_file("$FindBin::Bin/../lib/small_company.sql")), 0, 'a company is set up there');
ok($node->poll_query_until('updated', q(SELECT count(*) > 0 AND NOT EXISTS (SELECT FROM cs_internal.dirty) FROM cs_internal.state)), 'the scheduler serves it by itself');
is($log->(), 1, 'and has said no more');

# Back to the older version under a running scheduler, with data, and updated again.
$node->safe_psql('updated', q(INSERT INTO cs.job (name, kind, every) VALUES ('tick', 'retention', '1 second')));
ok($node->poll_query_until('updated', q(SELECT count(*) > 0 FROM cs.job_run WHERE job = 'tick')), 'a job runs while it is updated');
my $alerts = $node->safe_psql('updated', 'SELECT jsonb_agg(to_jsonb(a) ORDER BY a.id) FROM cs_internal.alert a');
$node->safe_psql('updated', qq(BEGIN; ALTER EXTENSION cs_ext DROP PROCEDURE cs.uninstall(text); DROP PROCEDURE cs.uninstall(text);
	ALTER EXTENSION cs_ext DROP FUNCTION cs_internal.uninstall(text); DROP FUNCTION cs_internal.uninstall(text);
	ALTER EXTENSION cs_ext DROP FUNCTION cs_internal.keepsakes(); DROP FUNCTION cs_internal.keepsakes();
	UPDATE pg_extension SET extversion = '$old' WHERE extname = 'cs_ext'; COMMIT));
my $runs = q(SELECT count(*) FROM cs_internal.job_run WHERE job = 'tick');
for (1 .. 300) { last if $log->() == 2; Time::HiRes::usleep(100_000); }
is($log->(), 2, 'an older version again: the worker idles');
my $n = $node->safe_psql('updated', $runs);
$node->safe_psql('updated', 'ALTER EXTENSION cs_ext UPDATE; SELECT cs_internal.wake_scheduler()');
ok($node->poll_query_until('updated', "SELECT ($runs) > $n"), 'updated: jobs go on');
ok($node->safe_psql('updated', 'SELECT jsonb_agg(to_jsonb(a) ORDER BY a.id) FROM cs_internal.alert a') eq $alerts, 'and every alert is what it was');
$node->safe_psql('updated', q(DELETE FROM cs.job WHERE name = 'tick'));

# What the update brought is granted afterwards: a grant in its script would count as one that comes by itself, and be lost in a dump.
is($node->safe_psql('updated', q(SELECT object || ': ' || finding FROM cs.doctor() WHERE "check" = 'grants')),
	'cs_ext_run: run_as may not execute 1 functions of schema cs, e.g. cs.uninstall(text)', 'doctor says what run_as lacks after the update');
$node->safe_psql('updated', q(SELECT cs.grant_admin('cs_ext_run')));
is($node->safe_psql('updated', q(SELECT count(*) FROM cs.doctor() WHERE "check" = 'grants')), '0', 'and its remedy works');

# --- fresh, updated, restored -------------------------------------------------------------------

$node->safe_psql('fresh', q(SELECT cs_internal.grant_definer('cs_ext_run')));
my $dump = $PostgreSQL::Test::Utils::tmp_check . '/updated.sql';
command_ok([ 'pg_dump', '-f', $dump, $node->connstr('updated') ], 'pg_dump of the updated one');
command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ], 'restored');
my %list = map { $_ => $node->safe_psql($_, $members) } qw(fresh updated restored);
my $count = () = $list{fresh} =~ /^(?:function|table|view|procedure)/mg;
cmp_ok($count, '>', 150, "$count members are compared");
same($list{fresh}, $list{updated}, 'updated is what fresh is, member for member');
same($list{fresh}, $list{restored}, 'restored is what fresh is');

# The comparison sees what it shall see.
$node->safe_psql('restored', 'GRANT EXECUTE ON FUNCTION cs.mrr(timestamptz, text) TO PUBLIC');
isnt($node->safe_psql('restored', $members), $list{fresh}, 'a grant too many is seen');

# --- the scripts that were released ----------------------------------------------------------------

my @from = map { /cs_ext--([^-]+)\.sql$/ && $1 ne $version && $1 ne $old ? $1 : () } glob "$dir/cs_ext--*.sql";
my $list_of_members = "$FindBin::Bin/../lib/members.sql";
my $frozen = sub { return slurp_file("$FindBin::Bin/../members/$_[0].txt") };
my $is_frozen = sub { my ($db, $v) = @_; command_like([ 'psql', '-XAtq', '-d', $node->connstr($db), '-f', $list_of_members ], qr/\A\Q@{[ $frozen->($v) ]}\E\z/, "of version $v are the members that stand in its list") };
$is_frozen->('fresh', $version);
for my $from (@from)
{
	$node->safe_psql('postgres', 'DROP DATABASE IF EXISTS walked WITH (FORCE)');
	$node->safe_psql('postgres', 'CREATE DATABASE walked');
	$node->safe_psql('walked', "CREATE EXTENSION cs_ext VERSION '$from'");
	$is_frozen->('walked', $from);
	$node->safe_psql('walked', "ALTER EXTENSION cs_ext UPDATE; SELECT cs_internal.grant_definer('cs_ext_run')");
	same($list{fresh}, $node->safe_psql('walked', $members), "updated from $from is what fresh is");
}
is(scalar(grep { !/^\d+\.\d+\.\d+$/ } @from), 0, 'released versions kept: ' . (@from ? "@from" : 'none yet'));
$node->stop;
done_testing();
