# Capture by watermark: rows are found by the transaction that wrote them, and
# none is missed whatever commits late. Sessions are driven one step at a time
# in random order (the seed is printed; CS_EXT_SEED=n repeats the run), with
# savepoints, prepared transactions and refreshes that see their own writes; after
# each refresh the rollup must be what a plain count says. A steady refresh reads
# new rows by the index, never the table. A restored column is refused until it is
# made anew.
# How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

require "$FindBin::Bin/../lib/server.pl";

my $seed = $ENV{CS_EXT_SEED} // int(rand(1_000_000));
diag("seed $seed");
srand($seed);

our $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
# What the tests look at must not depend on when autovacuum comes by.
$node->append_conf('postgresql.conf', "fsync = off\nautovacuum = off\nmax_prepared_transactions = 8\nmax_parallel_workers_per_gather = 0\n");
$node->start;
sql(<<'SQL');
CREATE EXTENSION cs_ext;
SELECT cs.setup(time_zone => 'Asia/Tokyo', currency => 'JPY', template => NULL);
CREATE SCHEMA app;
CREATE TABLE app.hit (customer int, at timestamptz NOT NULL);
INSERT INTO app.hit SELECT g % 500, timestamptz '2024-01-01 00:00Z' + g * interval '1 minute' FROM generate_series(1, 80000) g;
CREATE INDEX ON app.hit (customer);
CREATE INDEX ON app.hit (at);
CREATE TABLE app.part (at timestamptz NOT NULL, customer text) PARTITION BY RANGE (at);
CREATE TABLE app.part_1 PARTITION OF app.part FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE app.part_2 PARTITION OF app.part FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
INSERT INTO app.part SELECT timestamptz '2024-01-02 00:00Z' + g * interval '1 minute', 'p' || g % 300 FROM generate_series(1, 30000) g;
CREATE INDEX ON app.part (customer);
CREATE INDEX ON app.part (at);
SELECT count(*) FROM cs.add_source('hit', 'usage_event', 'app.hit', '{"customer_id": "customer", "at": "at"}');
SQL
is(sql('SELECT capture FROM cs.source_status'), 'trigger', 'a table is captured by trigger');
is(sql("SELECT cs.add_watermark('app.hit') || ' ' || cs.add_watermark('app.part')"), 'cs_watermark cs_watermark', 'both get a column');
is(sql('SELECT capture, needs_scan FROM cs.source_status'), 'watermark|t', 'the source chooses its capture anew');
is(sql("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'app.hit'::regclass"), '0', 'and its triggers are gone');
sql(q(SELECT count(*) FROM cs.add_source('part', 'usage_event', 'app.part', '{"customer_id": "customer", "at": "at", "event": "''p''"}')));
is(sql("SELECT capture, why FROM cs.source_status WHERE source = 'part'"),
	'watermark|column cs_watermark says which transaction wrote a row; updates and deletes are not noticed', 'auto chooses it where the column is, and says why');
is(sql("SELECT pg_relation_filenode('app.hit') = (SELECT relfilenode FROM pg_class WHERE oid = 'app.hit'::regclass) AND NOT EXISTS (SELECT FROM cs_internal.change_log WHERE source <> '*')"), 't', 'nothing is in the log');

my $truth = q(SELECT customer_id, event, sum(n) FROM (
	SELECT customer::text COLLATE "C" AS customer_id, NULL AS event, count(*) AS n FROM app.hit GROUP BY 1
	UNION ALL SELECT customer COLLATE "C", 'p', count(*) FROM app.part GROUP BY 1) x GROUP BY 1, 2);
my $rollup = 'SELECT customer_id, event, sum(events) FROM cs.usage_daily GROUP BY 1, 2';
my $difference = "SELECT * FROM (($truth EXCEPT $rollup) UNION ALL ($rollup EXCEPT $truth)) d LIMIT 3";
sub right
{
	my ($label) = @_;
	is(sql($difference), '', $label);
}
sql('CALL cs.refresh()');
right('read whole');

# ---- rows read: in one transaction, so that the counters are of it alone
my $counters = q(SELECT relname, seq_scan, seq_tup_read, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE schemaname = 'app' ORDER BY 1);
sql("INSERT INTO app.hit VALUES (7, '2024-01-05 12:00Z'), (8, '2024-03-05 12:00Z'); INSERT INTO app.part VALUES ('2024-02-05', 'p7')");
my %read;
for (split /\n/, sql("BEGIN; CALL cs.refresh(commit => false); $counters; COMMIT"))
{
	my ($table, $scans, $tuples, $fetched) = split /\|/;
	is("$scans $tuples", '0 0', "a steady refresh does not read $table");
	$read{$table} = $fetched;
}
# pages_per_range = 32: the new rows' range and the one not summarised, some 5000 rows each, and the customers' own
cmp_ok($read{hit}, '<', 25_000, "rows of hit read by index: $read{hit} of 80000");
cmp_ok($read{part_1} + $read{part_2}, '<', 15_000, "rows of part read by index: $read{part_1} + $read{part_2} of 30000");
right('what was new is there');
my $again = sql("BEGIN; CALL cs.refresh(commit => false); SELECT sum(idx_tup_fetch) + sum(seq_tup_read) FROM pg_stat_xact_user_tables WHERE schemaname = 'app'; COMMIT");
cmp_ok($again, '<', 15_000, "with nothing new it reads the newest pages only: $again rows");
sql("INSERT INTO app.hit VALUES (7, '2024-01-05 13:00Z')");
sql("SELECT cs.refresh_customer('7')");
is(sql("SELECT sum(events) FROM cs.usage_daily WHERE customer_id = '7' AND event IS NULL"), sql('SELECT count(*) FROM app.hit WHERE customer = 7'),
	'refresh_customer knows what no refresh has looked at yet');

# ---- sessions in random order
my @sessions = map { { psql => $node->background_psql('postgres', on_error_stop => 1), depth => -1 } } 1 .. 5;
my @prepared;
my $names = 0;
my ($commits, $late, $refreshes) = (0, 0, 0);
sub any { return $_[int(rand(@_))]; }
sub insertion
{
	my $c = int(rand(12));
	my $n = 1 + int(rand(3));
	my $day = 1 + int(rand(50));
	return rand() < 0.6
		? "INSERT INTO app.hit (customer, at) SELECT $c, timestamptz '2024-01-01' + $day * interval '1 day' + g * interval '1 hour' FROM generate_series(1, $n) g"
		: "INSERT INTO app.part (customer, at) SELECT 'p$c', timestamptz '2024-01-03' + $day * interval '1 day' + g * interval '1 hour' FROM generate_series(1, $n) g";
}
my @wrong;
for my $step (1 .. 300)
{
	my $s = any(@sessions);
	my $p = $s->{psql};
	my $dice = rand();
	if ($s->{depth} < 0)
	{
		if ($dice < 0.15) { $p->query_safe(insertion()); $commits++; }
		else { $p->query_safe('BEGIN'); $p->query_safe(insertion()); $s->{depth} = 0; }
	}
	elsif ($dice < 0.35) { $p->query_safe(insertion()); }
	elsif ($dice < 0.5) { $p->query_safe('SAVEPOINT s' . ++$s->{depth}); $p->query_safe(insertion()); }
	elsif ($dice < 0.6 && $s->{depth} > 0) { $p->query_safe('ROLLBACK TO s' . $s->{depth}--); }
	elsif ($dice < 0.67 && @prepared < 4)
	{
		$p->query_safe("PREPARE TRANSACTION 'g" . ++$names . "'");
		push @prepared, "g$names";
		$s->{depth} = -1;
	}
	elsif ($dice < 0.72)
	{
		# its own writes count for its own refresh, and what it writes afterwards for the next
		$p->query_safe('CALL cs.refresh(commit => false)');
		$p->query_safe(insertion());
		$p->query_safe(rand() < 0.7 ? 'COMMIT' : 'ROLLBACK');
		$s->{depth} = -1;
	}
	elsif ($dice < 0.8) { $p->query_safe('ROLLBACK'); $s->{depth} = -1; }
	else { $p->query_safe('COMMIT'); $s->{depth} = -1; $commits++; }

	if (@prepared && rand() < 0.1)
	{
		my $g = splice @prepared, int(rand(@prepared)), 1;
		sql((rand() < 0.7 ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$g'");
		$late++;
	}
	if (rand() < 0.1)
	{
		sql('CALL cs.refresh()');
		$refreshes++;
		my $d = sql($difference);
		push @wrong, "step $step: $d" if $d ne '';
	}
}
$_->{psql}->quit for @sessions;
sql("COMMIT PREPARED '$_'") for @prepared;
sql('CALL cs.refresh()');
is_deeply(\@wrong, [], "after each of $refreshes refreshes among $commits commits and $late late ones nothing is missing");
right('nor at the end');
sql('CREATE TABLE app.kept AS SELECT * FROM cs_internal.usage_month');
sql('CALL cs.rebuild()');
is(sql('SELECT count(*) FROM ((TABLE app.kept EXCEPT TABLE cs_internal.usage_month) UNION ALL (TABLE cs_internal.usage_month EXCEPT TABLE app.kept)) d'), '0', 'a rebuild makes the same of it');

# ---- what it does not notice, and what it does
sql('DELETE FROM app.hit WHERE customer = 3');
sql('CALL cs.refresh()');
like(sql($difference), qr/^3\|/, 'a delete is not noticed: such a table only grows');
$node->poll_query_until('postgres', q(SELECT EXISTS (SELECT FROM cs.doctor() WHERE "check" = 'watermark' AND object = 'hit'))) or diag('no finding');
like(sql(q(SELECT finding FROM cs.doctor() WHERE "check" = 'watermark')), qr/rows were updated or deleted/, 'doctor says so');
sql("SELECT cs.mark_changed('hit', 3)");
sql('CALL cs.refresh()');
right('mark_changed makes it known');
sql("UPDATE app.hit SET customer = 5 WHERE customer = 4; CALL cs.rebuild('hit')");
right('and rebuild');
sql("TRUNCATE app.part_2; CALL cs.refresh()");
right('a truncate is noticed');
sql("ALTER TABLE app.part DETACH PARTITION app.part_1; CALL cs.refresh()");
right('a detached partition');
sql("ALTER TABLE app.part ATTACH PARTITION app.part_1 FOR VALUES FROM ('2024-01-01') TO ('2024-02-01'); CALL cs.refresh()");
right('an attached one');
sql("CREATE TABLE app.part_3 PARTITION OF app.part FOR VALUES FROM ('2024-03-01') TO ('2024-05-01'); INSERT INTO app.part (at, customer) VALUES ('2024-04-01', 'new'); CALL cs.refresh()");
right('and a new one');

# ---- a crash
sql("INSERT INTO app.hit VALUES (1, '2024-01-09'); BEGIN; INSERT INTO app.hit VALUES (2, '2024-01-09'); PREPARE TRANSACTION 'over'");
sql('CALL cs.refresh()');
$node->stop('immediate');
$node->start;
sql("COMMIT PREPARED 'over'; CALL cs.refresh()");
right('prepared before a crash and a refresh, committed after them');

# ---- without its index, and with a subscription
sql('DROP INDEX app.hit_cs_watermark_idx; CALL cs.refresh()');
is(sql("SELECT capture, why FROM cs.source_status WHERE source = 'hit'"), 'scan|its capture triggers are missing or disabled', 'without index it is re-read');
is(sql("SELECT cs.add_watermark('app.hit')"), 'cs_watermark', 'add_watermark makes the index again');
sql("INSERT INTO app.hit VALUES (1, '2024-01-10'); CALL cs.refresh(); INSERT INTO app.hit VALUES (1, '2024-01-10'); CALL cs.refresh()");
is(sql("SELECT capture FROM cs.source_status WHERE source = 'hit'"), 'watermark', 'and it is in force again');
right('nothing was missed meanwhile');

# ---- restored on another server
sql('SELECT pg_current_xact_id()') for 1;
$node->safe_psql('postgres', join('', map { "SELECT pg_current_xact_id();\n" } 1 .. 4000));
sql("INSERT INTO app.hit VALUES (1, '2024-01-11'); INSERT INTO app.part (at, customer) VALUES ('2024-01-11', 'p1')");
my $other = PostgreSQL::Test::Cluster->new('other');
$other->init;
$other->append_conf('postgresql.conf', "fsync = off\n");
$other->start;
my $dump = $node->backup_dir . '/dump.sql';
mkdir $node->backup_dir;
command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'dumped');
$other->safe_psql('postgres', 'CREATE ROLE cs_ext_run NOLOGIN');
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $other->connstr('postgres'), '-f', $dump ], 'restored elsewhere');
$other->safe_psql('postgres', 'CALL cs.refresh()');
is($other->safe_psql('postgres', "SELECT error FROM cs.source_status WHERE source = 'hit'"),
	q(column cs_watermark of app.hit has transaction ids of another server, as after a restore; SELECT cs.add_watermark('app.hit'); gives it a new column),
	'ids of another server are refused, with the remedy');
$other->safe_psql('postgres', "SELECT cs.add_watermark('app.hit'), cs.add_watermark('app.part')");
$other->safe_psql('postgres', 'CALL cs.refresh()');
is($other->safe_psql('postgres', "SELECT string_agg(capture || coalesce(error, ''), ' ') FROM cs.source_status"), 'watermark watermark', 'which helps');
is($other->safe_psql('postgres', $difference), '', 'and the rollup is right');
$other->safe_psql('postgres', "INSERT INTO app.hit VALUES (1, '2024-01-12'); CALL cs.refresh()");
is($other->safe_psql('postgres', $difference), '', 'as it goes on');
$other->stop;

# ---- gone with the extension
sql('DROP TABLE app.kept; DROP EXTENSION cs_ext');
is(sql("SELECT count(*) FROM pg_index WHERE indrelid IN ('app.hit'::regclass, 'app.part'::regclass, 'app.part_1'::regclass) AND pg_get_indexdef(indexrelid) ~ 'brin'"), '0',
	'DROP EXTENSION takes its indexes along without CASCADE');
is(sql("INSERT INTO app.hit VALUES (1, '2024-01-12') RETURNING 1"), '1', 'and the table goes on');

$node->stop;
done_testing();
