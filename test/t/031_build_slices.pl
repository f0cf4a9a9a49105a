# A first build of many slices that is stopped between two of them: killed and
# cancelled, with changes, a refresh_customer and a reader of cs.progress beside
# it. The next refresh goes on, and the rollup is what plain SQL says.
#
# The build stops where the test wants: reading an event waits for a lock once
# enough customers are built. How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

require "$FindBin::Bin/../lib/server.pl";

my $seed = $ENV{CS_EXT_SEED} // int(rand(1_000_000));
diag("seed $seed");

our $node = PostgreSQL::Test::Cluster->new('slices');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
cs_ext.now = '2025-06-20 09:00+02'
cs_ext.usage_memory = 6kB
cs_ext.refresh_batch = 5
restart_after_crash = on
log_statement = none
CONF
$node->start;

sql(qq(CREATE EXTENSION cs_ext;
CREATE SCHEMA app;
SELECT setseed($seed / 1000000.0);
CREATE TABLE app.event (customer_id int, at timestamptz, user_id int, name text, amount numeric);
CREATE INDEX ON app.event (customer_id, at);
INSERT INTO app.event SELECT floor(random() * 60), timestamptz '2025-06-20 00:00+02' - random() ^ 2 * interval '100 days', floor(random() * 40), (ARRAY['a', 'b', NULL])[1 + floor(random() * 3)],
	CASE WHEN random() < 0.3 THEN round((random() * 9 - 4)::numeric, 2) END FROM generate_series(1, 6000);
-- one who is larger than memory
INSERT INTO app.event SELECT 7, timestamptz '2025-06-20 00:00+02' - random() * interval '100 days', floor(random() * 900), 'a', 1 FROM generate_series(1, 3000);
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL);
CREATE TABLE app.stop (position bigint);
INSERT INTO app.stop VALUES (-1);
CREATE FUNCTION app.read(name text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog AS \$\$
BEGIN
	IF (SELECT b.position >= s.position AND s.position >= 0 FROM cs_internal.usage_build b, app.stop s) THEN
		PERFORM pg_advisory_xact_lock_shared(4711);
	END IF;
	RETURN name;
END \$\$;
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON app.event TO cs_ext_run;
INSERT INTO cs.metric (name, source, expression) VALUES ('n', 'usage', 'events(usage, NULL, 30)'), ('u', 'usage', 'active_users(usage, 7)');
SELECT cs.add_source('events', 'usage_event', 'app.event', '{"customer_id": "customer_id", "at": "at", "user_id": "user_id", "event": "app.read(name)", "quantity": "amount"}')));

# '': the rollup and the metrics are what plain SQL says.
sub difference
{
	return sql(q(SET TimeZone = 'Europe/Berlin';
	WITH raw AS (SELECT customer_id::text, name AS event, at::date AS day, count(*) AS events, sum(amount)::numeric(38,9) AS quantity, count(DISTINCT user_id) AS active_users FROM app.event GROUP BY 1, 2, 3),
		kept AS (SELECT customer_id, event, day, events, quantity, active_users FROM cs.usage_daily)
	(SELECT 'raw', * FROM (TABLE raw EXCEPT ALL TABLE kept) r) UNION ALL (SELECT 'kept', * FROM (TABLE kept EXCEPT ALL TABLE raw) k) LIMIT 3;
	SELECT 'value of ' || customer_id FROM (SELECT customer_id::text, date_trunc('month', at)::date AS month, cs.usage_agg(at::date, at, user_id::text, name, amount, NULL) AS usage FROM app.event GROUP BY 1, 2) r
	FULL JOIN cs_internal.usage_whole w USING (customer_id, month) WHERE cs_internal.usage_send(r.usage) IS DISTINCT FROM cs_internal.usage_send(w.usage) LIMIT 3;
	SELECT 'metric of ' || c FROM (SELECT customer_id::text AS c, count(*) FILTER (WHERE at::date >= '2025-05-21' AND at::date < '2025-06-20') AS n, count(DISTINCT user_id) FILTER (WHERE at::date >= '2025-06-13' AND at::date < '2025-06-20') AS u FROM app.event GROUP BY 1) f
	FULL JOIN (SELECT customer_id AS c, max(value) FILTER (WHERE metric = 'n') AS n, max(value) FILTER (WHERE metric = 'u') AS u FROM cs.customer_metric GROUP BY 1) m USING (c) WHERE f.n IS DISTINCT FROM m.n OR f.u IS DISTINCT FROM m.u LIMIT 3));
}
# How many files of a pass are left.
sub files { return sql("SELECT count(*) FROM pg_ls_dir('base/pgsql_tmp', true, false)"); }
my $position = 'SELECT coalesce(max(position), -1) FROM cs_internal.usage_build';

# A run of $call that stops at the first slice from $at on; the lock's holder, the run, its pid.
sub stopped
{
	my ($call, $at) = @_;
	my $holder = $node->background_psql('postgres');
	$holder->query_safe('SELECT pg_advisory_lock(4711)');
	sql("UPDATE app.stop SET position = $at");
	return ($holder, stuck($call, q(locktype = 'advisory' AND objid = 4711)));
}
sub go_on { sql('UPDATE app.stop SET position = -1'); $_[0]->quit; }

# --- kill -9 between two slices, the first build ---------------------------------------
my ($holder, $run, $pid) = stopped('cs.refresh()', 2**30);
my $before = sql($position);
cmp_ok($before, '>=', 2**30, 'slices were built');
cmp_ok($before, '<', 2**32, 'not all of them');
my $built = sql('SELECT count(DISTINCT customer_id) FROM cs_internal.usage_month');
ok($built > 0 && $built < 60, "the months of $built of 60 customers are there");
is(sql('SELECT stage, done BETWEEN 20 AND 99, total FROM cs.progress'), 'build|t|100', 'progress says so to another session');
is(sql('SELECT abs(rate - done / extract(epoch FROM updated_at - started_at)) < 0.001, abs(extract(epoch FROM remaining) * rate - (total - done)) < 0.1 FROM cs.progress'), 't|t', 'with what is done a second, and the time that is left');
kill 9, $pid;
eval { $run->{run}->kill_kill };
eval { $holder->{run}->kill_kill };
sql('SELECT 1') if $node->poll_query_until('postgres', 'SELECT true');
is(sql($position), $before, 'what was built stays');
is(files(), '0', 'files of the pass that was killed do not');

# --- a refresh_customer in the middle: of one who is built, and of one who is not -----
sql('UPDATE app.stop SET position = -1');
my $done = sql("SELECT customer_id FROM cs_internal.usage_month WHERE cs_internal.usage_slice(customer_id) < $before ORDER BY 1 LIMIT 1");
my $open = sql("SELECT DISTINCT customer_id::text FROM app.event WHERE cs_internal.usage_slice(customer_id::text) >= $before ORDER BY 1 LIMIT 1");
sql("INSERT INTO app.event SELECT c, '2025-06-19 10:00+02', 1000, 'late', 2.5 FROM unnest(ARRAY[$done, $open]) c; DELETE FROM app.event WHERE customer_id IN ($done, $open) AND at < '2025-04-20'");
my $calm = sql("SELECT max(customer_id) FROM app.event WHERE cs_internal.usage_slice(customer_id::text) >= $before AND customer_id <> $open");
for my $c ($done, $open, $calm)    # nothing of the last one changed
{
	sql("SELECT cs.refresh_customer('$c')");
	is(sql("SELECT sum(events) FROM cs.usage_daily WHERE customer_id = '$c'"), sql("SELECT count(*) FROM app.event WHERE customer_id = $c"), "customer $c is refreshed between slices");
	is(sql("SELECT value FROM cs.customer_metric WHERE customer_id = '$c' AND metric = 'n'"), '', 'his metrics are not known before the source is');
}
is(sql($position), $before, 'the build waits');
sql("INSERT INTO app.event SELECT c, '2025-06-18 10:00+02', 1001, 'more', NULL FROM generate_series(0, 60, 3) c");
sql('CALL cs.refresh()');
is(sql($position), '-1', 'the next refresh ends the build');
is(difference(), '', 'and all is what plain SQL says');
is(sql('SELECT count(*) FROM cs.progress'), '0', 'progress is empty again');

# --- a rebuild that is cancelled, with changes beside it ------------------------------
($holder, $run, $pid) = stopped('cs.rebuild()', 2**31);
is(sql("SELECT string_agg(stage, ',') FROM cs.progress"), 'build', 'progress shows a rebuild');
sql("UPDATE app.event SET at = at + interval '1 day' WHERE customer_id % 7 = 3; DELETE FROM app.event WHERE customer_id = 11");
sql("SELECT pg_cancel_backend($pid)");
ok(gone($pid), 'a cancel ends it while it reads');
$run->quit;
go_on($holder);
cmp_ok(sql($position), '>=', 2**31, 'its slices stay');
is(files(), '0', 'and no files');
sql("SELECT cs.refresh_customer('3')");
is(sql("SELECT value FROM cs.customer_metric WHERE customer_id = '3' AND metric = 'n'"),
	sql("SELECT count(*) FROM app.event WHERE customer_id = 3 AND at >= '2025-05-21 00:00+02' AND at < '2025-06-20 00:00+02'"), 'a customer is refreshed between slices of a rebuild');
sql('CALL cs.refresh()');
is(sql($position), '-1', 'the next refresh ends it');
is(difference(), '', 'and all is what plain SQL says, of changes in built slices and in others');
is(sql('SELECT count(*) FROM cs_internal.usage_month WHERE customer_id = $$11$$'), '0', 'who has no events any more is gone');
is(sql('SELECT count(*) FROM cs.progress'), '0', 'progress is empty again');

# --- a cancel while it writes ----------------------------------------------------------
# Somebody else has written all the rows, and has not committed: the first one of the build waits.
sql('TRUNCATE cs_internal.usage_month');
my $other = $node->background_psql('postgres');
$other->query_safe(q(BEGIN; INSERT INTO cs_internal.usage_month SELECT c::text, m::date, '{"version": 1, "events": [], "users": []}' FROM generate_series(0, 59) c, generate_series('2025-03-01'::date, '2025-06-01', interval '1 month') m));
$run = $node->background_psql('postgres', on_error_stop => 0);
$pid = $run->query_safe('SET min_parallel_table_scan_size = 0; SELECT pg_backend_pid()');
$run->query_until(qr/begun/, "\\echo begun\nCALL cs.rebuild();\n");
$node->poll_query_until('postgres', "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE pid = $pid AND locktype = 'transactionid' AND NOT granted)") or die 'it did not wait';
cmp_ok(files(), '>', 0, 'there are files while it writes');
sql("SELECT pg_cancel_backend($pid)");
ok(gone($pid), 'a cancel ends it while it writes');
is(sql("SELECT count(*) FROM pg_stat_activity WHERE leader_pid = $pid"), '0', 'and its workers');
is(files(), '0', 'no files stay');
$run->quit;
$other->query_safe('ROLLBACK');
$other->quit;
sql('SET min_parallel_table_scan_size = 0; CALL cs.refresh()');
is(difference(), '', 'the next refresh makes all of it');

# --- rows that go past the index --------------------------------------------------------
# Where the table is empty and there is much to write the index is made anew; else it stays the same file.
my $file = "SELECT pg_relation_filenode('cs_internal.usage_month_pkey')";
# How many rows the table has, and how many its index finds.
sub rows
{
	return sql(q(SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM cs_internal.usage_month WHERE customer_id >= '';
	RESET ALL; SET enable_seqscan = off; SELECT count(*) FROM cs_internal.usage_month WHERE customer_id >= ''));
}
my $many = sub { sql('SET cs_ext.usage_memory = 65536; SET min_parallel_table_scan_size = 0; CALL cs.rebuild()') };
my $rows = rows();
like($rows, qr/^([1-9]\d*)\n\1$/, 'the index has all rows');
sub emptied { sql('TRUNCATE cs_internal.usage_month'); return sql($file); }

my $old = emptied();
$many->();
isnt(sql($file), $old, 'the index of an empty rollup is made anew');
is(rows(), $rows, 'over all rows');
is(difference(), '', 'which are what plain SQL says');
$old = sql($file);
$many->();
is(sql($file), $old, 'where rows are, it is not');

$old = emptied();
$other = $node->background_psql('postgres');
$other->query_safe('BEGIN; SELECT count(*) FROM cs_internal.usage_month');
$many->();
is(sql($file), $old, 'nor where somebody reads and stays');
is(rows(), $rows, 'then rows are added to it');
$other->query_safe('COMMIT');

$old = emptied();
$other->query_safe('BEGIN; LOCK TABLE cs_internal.usage_month IN ROW EXCLUSIVE MODE');
$many->();
is(sql($file), $old, 'nor where somebody writes');
is(rows(), $rows, 'all the same');
$other->query_safe('COMMIT');

# all rows are written, and the index is made, when somebody's row of the queue stands in the way
$old = emptied();
$other->query_safe(q(BEGIN; INSERT INTO cs_internal.pending (source, customer_id) VALUES ('events', '0')));
$run = $node->background_psql('postgres', on_error_stop => 0);
$pid = $run->query_safe('SET cs_ext.usage_memory = 65536; SET min_parallel_table_scan_size = 0; SELECT pg_backend_pid()');
$run->query_until(qr/begun/, "\\echo begun\nCALL cs.rebuild();\n");
$node->poll_query_until('postgres', "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE pid = $pid AND locktype = 'transactionid' AND NOT granted)") or die 'it did not wait';
is(sql("SELECT count(*) FROM pg_locks WHERE pid = $pid AND mode = 'AccessExclusiveLock' AND relation = 'cs_internal.usage_month_pkey'::regclass"), '1', 'it is made anew');
sql("SELECT pg_cancel_backend($pid)");
ok(gone($pid), 'a cancel ends it');
$run->quit;
is(sql($file), $old, 'the index is the one that was');
is(rows(), "0\n0", 'and nothing was built');
$other->query_safe('ROLLBACK');
$other->quit;
sql('SET min_parallel_table_scan_size = 0; CALL cs.refresh()');
is(rows(), $rows, 'the next refresh makes all of it');
is(difference(), '', 'as plain SQL has it');

# --- what a rebuild tells who called it ------------------------------------------------
my $told;
$node->psql('postgres', 'CALL cs.rebuild()', stderr => \$told);
like($told, qr/NOTICE:  usage read: \d+ events of source "events" in \d+ ms\n/, 'a notice for each pass over the events');
like($told, qr/NOTICE:  build: \d+ of 100 after [\d.]+ s\n.*NOTICE:  build: 100 of 100 after/s, 'and for each tenth of the build');
is(difference(), '', 'all is what plain SQL says');
is(sql('SELECT count(*) FROM cs.check()'), '0', 'no invariant is broken');
is(files(), '0', 'no temporary files stay');
$node->stop;
done_testing();
