# Incremental equals rebuild while everybody writes: three sessions change the
# facts at random, with savepoints, rollbacks and refresh_customer among them,
# others refresh all the while. Afterwards every derived row is what a rebuild
# from nothing makes of the facts at the same instant, and the rollup is what a
# plain count over the raw events says. From the second phase on customers are
# merged, too.
#
# The seed is printed; CS_EXT_SEED=n repeats its changes (not who came first).
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

our $node = PostgreSQL::Test::Cluster->new('incremental');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
cs_ext.now = '2025-06-20 09:00+02'
cs_ext.refresh_batch = 7
cs_ext.usage_large = 300B
max_prepared_transactions = 4
deadlock_timeout = 50ms
log_statement = none
CONF
$node->start;
# Again when it met a writer in a deadlock, as any application does.
sub change
{
	my ($script) = @_;
	for (1 .. 20)
	{
		my ($status, $out, $err) = $node->psql('postgres', $script, on_error_stop => 1);
		return if $status == 0;
		die $err unless $err =~ /deadlock detected/;
	}
	die "always a deadlock: $script";
}

$node->safe_psql('postgres', slurp_file("$FindBin::Bin/../lib/busy_company.sql"));

# refresh again and again until the writers are done
my $refresh = q(DO $$ BEGIN LOOP CALL cs.refresh(); EXIT WHEN EXISTS (SELECT 1 FROM app.stop); END LOOP; END $$;);

my @instants = ('2025-06-20 09:00+02', '2025-06-21 00:00:00.000001+02', '2025-07-03 17:30+02');
my $transactions = 170;    # of about eight changes, by each of three writers, at each instant
for my $phase (0 .. $#instants)
{
	sql('TRUNCATE app.stop');
	$node->append_conf('postgresql.conf', "cs_ext.now = '$instants[$phase]'");
	$node->reload;
	sql(q(GRANT SELECT ON app.merge TO cs_ext_run;
		SELECT cs.add_source('merges', 'customer_merge', 'app.merge', '{"from_customer_id": "old_id", "into_customer_id": "new_id", "at": "at"}'))) if $phase == 1;
	my @writers;
	for my $w (1 .. 3)
	{
		my $s = $node->background_psql('postgres', on_error_stop => 0);
		my $n = ($seed + 1000 * $phase + $w) % 1_000_000;
		$s->query_until(qr/begun/, "\\echo begun\nCALL app.work($n, $transactions);\n\\echo finished\n");
		push @writers, $s;
	}
	my $refresher = $node->background_psql('postgres', on_error_stop => 0);
	$refresher->query_safe("SET default_transaction_isolation = 'repeatable read'") if $phase == 1;
	$refresher->query_until(qr/begun/, "\\echo begun\n$refresh\n\\echo finished\n");

	# what is rare, meanwhile
	if ($phase == 0)
	{
		# who builds waits for writers, and these would wait for what is prepared
		sql('CALL cs.refresh()');
		change("BEGIN; SELECT app.change() FROM generate_series(1, 50); PREPARE TRANSACTION 'p'");
		sql('CALL cs.refresh()');
		sql("COMMIT PREPARED 'p'");
		sql("ALTER TABLE app.event ATTACH PARTITION app.event_may FOR VALUES FROM ('2025-05-01 00:00Z') TO ('2025-06-01 00:00Z')");
	}
	elsif ($phase == 1)
	{
		change("BEGIN; SET LOCAL session_replication_role = replica; SELECT app.change() FROM generate_series(1, 50); COMMIT");
		change('BEGIN; SELECT app.change() FROM generate_series(1, 20); CALL cs.refresh(commit => false); SELECT app.change() FROM generate_series(1, 20); COMMIT');
		change('BEGIN; SELECT app.change() FROM generate_series(1, 20); CALL cs.refresh(commit => false); ROLLBACK');
		sql('TRUNCATE app.event_may');
	}
	else
	{
		sql("COPY app.click FROM STDIN;\nu1\t2025-06-25 12:00+02\tcopied\nnobody\t2025-06-25 12:00+02\tcopied\n\\.\n");
		sql('TRUNCATE app.cancellation');
		change('BEGIN; ALTER TABLE app.event DETACH PARTITION app.event_early; CREATE TABLE app.event_rest PARTITION OF app.event DEFAULT; COMMIT');
	}

	$_->query_until(qr/finished/, '') for @writers;
	sql('INSERT INTO app.stop VALUES (1)');
	$refresher->query_until(qr/finished/, '');
	is($refresher->{stderr}, '', "phase $phase: no refresh failed");
	is($_->{stderr}, '', "phase $phase: no writer failed") for @writers;
	$_->quit for @writers, $refresher;
	is(sql('SELECT * FROM app.surprise LIMIT 5'), '', "phase $phase: no writer met an error that is ours");

	sql('CALL cs.refresh()');
	sql("TRUNCATE app.kept; INSERT INTO app.kept SELECT 'refreshed', * FROM app.derived()");
	is(sql("SELECT * FROM app.kept WHERE tab = 'waiting'"), '', "phase $phase: nothing waits");
	sql('CALL app.empty()');
	sql('CALL cs.refresh()');
	sql("INSERT INTO app.kept SELECT 'rebuilt', * FROM app.derived()");
	is(sql("SELECT * FROM app.difference('refreshed', 'rebuilt')"), '', "phase $phase: incremental equals rebuild");
	is(sql(q(SELECT * FROM ((SELECT 'view' AS only, d.customer_id, d.event, d.day, d.events, d.quantity, d.active_users FROM cs.usage_daily d
			EXCEPT ALL SELECT 'view', * FROM app.usage_by_hand())
			UNION ALL (SELECT 'raw', * FROM app.usage_by_hand()
			EXCEPT ALL SELECT 'raw', d.customer_id, d.event, d.day, d.events, d.quantity, d.active_users FROM cs.usage_daily d)) x LIMIT 6)), '',
		"phase $phase: the rollup is what the raw events say");
	is(sql('SELECT rule, customer_id, key FROM cs_internal.alert WHERE live GROUP BY 1, 2, 3 HAVING count(*) > 1'), '', "phase $phase: one live alert per identity");
}
cmp_ok(sql("SELECT count(*) FROM app.kept WHERE pass = 'rebuilt' AND tab = 'usage_month'"), '>', 100, 'there was something to compare');
cmp_ok(sql("SELECT count(*) FROM app.kept WHERE pass = 'rebuilt' AND tab = 'merge'"), '>', 5, 'some are merged');
note(sql("SELECT string_agg(tab || ' ' || n, ', ') FROM (SELECT tab, count(*) AS n FROM app.kept WHERE pass = 'rebuilt' GROUP BY 1) x"));

is(sql('SELECT count(*) FILTER (WHERE seq IS NULL) || \' \' || (count(*) = max(seq))::text || \' \' || (count(DISTINCT seq) = count(*))::text FROM cs_internal.alert_event'),
	'0 true true', 'alert events are numbered without a gap');
$node->stop;
done_testing();
