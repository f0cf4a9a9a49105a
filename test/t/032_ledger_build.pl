# The first build of the ledger, stopped where the test wants: while it reads
# (a mapped function waits for a lock) and when all is written (another session
# holds cs_internal.customer). Killed, cancelled, with a refresh_customer, a
# writer and readers beside it. Afterwards the ledger and its indexes are what
# ingest makes customer by customer. How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

require "$FindBin::Bin/../lib/server.pl";

my $seed = $ENV{CS_EXT_SEED} // int(rand(1_000_000));
diag("seed $seed");

our $node = PostgreSQL::Test::Cluster->new('ledger');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
cs_ext.now = '2025-06-20 09:00+02'
restart_after_crash = on
log_statement = none
CONF
$node->start;

sql(qq(CREATE EXTENSION cs_ext;
CREATE SCHEMA app;
SELECT setseed($seed / 1000000.0);
CREATE TABLE app.sub (customer_id int, start_at timestamptz, end_at timestamptz, mrr numeric, reason text);
INSERT INTO app.sub SELECT floor(random() * 900), s, CASE WHEN random() < 0.7 THEN s + floor(random() * 400) * interval '1 day' END, 1 + floor(random() * 99)
	FROM generate_series(1, 4000) i, LATERAL (SELECT timestamptz '2023-01-01 00:00+01' + i % 2 * interval '1 day' + floor(random() * 800) * interval '1 day' AS s) x;
CREATE INDEX ON app.sub (customer_id);
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL);
CREATE TABLE app.stop (here boolean);
CREATE FUNCTION app.read(mrr numeric) RETURNS numeric LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog AS \$\$
BEGIN
	IF EXISTS (SELECT FROM app.stop) AND EXISTS (SELECT FROM cs_internal.ledger_build) THEN
		PERFORM pg_advisory_xact_lock_shared(4711);
	END IF;
	RETURN mrr;
END \$\$;
GRANT USAGE ON SCHEMA app TO cs_ext_run;
SELECT cs.add_source('sub', 'subscription', 'app.sub', '{"customer_id": "customer_id", "start_at": "start_at", "end_at": "end_at", "mrr": "app.read(mrr)", "cancel_reason": "reason"}')));

# '': the ledger and the customers are what ingest makes, and both indexes find every row.
sub difference
{
	return sql(q(CREATE TEMP TABLE m AS SELECT * FROM cs_internal.movement;
	CREATE TEMP TABLE c AS SELECT * FROM cs_internal.customer;
	SET enable_seqscan = off; SET enable_bitmapscan = off;
	SELECT 'key' FROM m WHERE (SELECT x FROM cs_internal.movement x WHERE (x.customer_id, x.at, x.seq) = (m.customer_id, m.at, m.seq))::text IS DISTINCT FROM m::text LIMIT 1;
	SELECT 'at' FROM m WHERE NOT EXISTS (SELECT FROM cs_internal.movement x WHERE x.at = m.at AND x.customer_id = m.customer_id) LIMIT 1;
	SELECT 'waits' FROM cs_internal.ledger_build UNION ALL SELECT 'waits' FROM cs_internal.pending LIMIT 1;
	RESET enable_seqscan; RESET enable_bitmapscan;
	BEGIN;
	TRUNCATE cs_internal.movement, cs_internal.customer;
	SELECT cs.mark_changed('sub') IS NULL \g /dev/null
	CALL cs.refresh(commit => false);
	(SELECT 'first', m::text FROM m EXCEPT ALL SELECT 'first', x::text FROM cs_internal.movement x LIMIT 3) UNION ALL (SELECT 'ingest', x::text FROM cs_internal.movement x EXCEPT ALL SELECT 'ingest', m::text FROM m LIMIT 3);
	(SELECT 'first', c::text FROM c EXCEPT ALL SELECT 'first', x::text FROM cs_internal.customer x LIMIT 3) UNION ALL (SELECT 'ingest', x::text FROM cs_internal.customer x EXCEPT ALL SELECT 'ingest', c::text FROM c LIMIT 3);
	ROLLBACK));
}
sub at_once { return sql('SELECT count(DISTINCT xmin::text) FROM cs_internal.movement'); }

my $reading = q(locktype = 'advisory' AND objid = 4711);
my $written = q(relation = 'cs_internal.customer'::regclass);
sub session { my $s = $node->background_psql('postgres'); $s->query_safe($_[0]); return $s; }
sub stop_reading { sql('INSERT INTO app.stop VALUES (true)'); return session('SELECT pg_advisory_lock(4711)'); }
sub stop_written { return session('BEGIN; LOCK TABLE cs_internal.customer IN SHARE MODE'); }
sub kill_it
{
	my ($run, $pid, $holder) = @_;
	kill 9, $pid;
	eval { $_->{run}->kill_kill } for ($run, $holder);
	$node->poll_query_until('postgres', 'SELECT true') or die 'the server did not come back';
}

# --- killed while it reads -------------------------------------------------------------
my $holder = stop_reading();
my ($run, $pid) = stuck('cs.refresh()', $reading);
is(sql('SELECT source FROM cs_internal.ledger_build'), 'sub', 'what is to be built is committed');
kill_it($run, $pid, $holder);
is(sql('SELECT count(*) FROM cs_internal.movement'), '0', 'killed while it reads, nothing is written');

# --- a refresh_customer before it is begun again, and a writer --------------------------
sql('DELETE FROM app.stop');
sql(q(SELECT cs.refresh_customer('17')));
ok(sql('SELECT count(*) FROM cs_internal.movement') > 0, 'one customer has a ledger');
sql('INSERT INTO app.sub VALUES (17, $$2025-06-01$$, NULL, 5), (2000, $$2025-06-02$$, NULL, 6)');

# --- killed when everything is written and indexed --------------------------------------
$holder = stop_written();
($run, $pid) = stuck('cs.refresh()', $written);
kill_it($run, $pid, $holder);
is(sql('SELECT string_agg(DISTINCT customer_id, $$,$$) FROM cs_internal.movement'), '17', 'killed when all is written, nothing of it is there');
is(sql('SET enable_seqscan = off; SELECT count(*) > 0, count(DISTINCT customer_id) FROM cs_internal.movement WHERE at > $$-infinity$$'), 't|1', 'nor in an index');

# --- cancelled, and a refresh_customer that waits meanwhile -----------------------------
$holder = stop_written();
($run, $pid) = stuck('cs.refresh()', $written);
my $other = $node->background_psql('postgres', on_error_stop => 0);
my $other_pid = $other->query_safe('SELECT pg_backend_pid()');
$other->query_until(qr/begun/, "\\echo begun\nSELECT cs.refresh_customer('17');\n");
$node->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $other_pid AND NOT granted AND locktype = 'advisory')") or die 'it did not wait';
sql("SELECT pg_cancel_backend($pid)");
ok(gone($pid), 'a cancel ends it');
$run->quit;
$holder->quit;
ok(gone($other_pid), 'and refresh_customer goes on');
$other->quit;

# --- a reader who keeps his transaction open does not hold it up ------------------------
my $reader = session(q(BEGIN; SELECT count(*) FROM cs_internal.movement WHERE customer_id = '17'));
sql('CALL cs.refresh()');
is(at_once(), '1', 'built in one transaction beside a reader');
ok($reader->query_safe(q(SELECT count(*) FROM cs_internal.movement WHERE at > '-infinity')) > 1000, 'the reader sees it then');
$reader->quit;
is(difference(), '', 'all is what ingest makes, where its rows went into the indexes one by one');

# --- and with nobody beside it ------------------------------------------------------------
sql('TRUNCATE cs_internal.movement; UPDATE cs_internal.source_state SET needs_scan = true');
sql('CALL cs.refresh()');
is(at_once(), '1', 'built in one transaction');
is(difference(), '', 'all is what ingest makes, where the indexes were made anew');
is(sql('SELECT count(*) FROM cs_internal.progress'), '0', 'progress is empty');

# --- with a worker beside it, and without ---------------------------------------------------
sub built
{
	sql('TRUNCATE cs_internal.movement; UPDATE cs_internal.source_state SET needs_scan = true');
	my ($out, $said) = ('', '');
	$node->psql('postgres', "SET client_min_messages = debug1; $_[0] CALL cs.refresh()", stdout => \$out, stderr => \$said);
	return $said =~ /ledger written: [1-9]\d* movements in \d+ ms( beside a worker)?, indexed/ ? ($1 ? 'beside' : 'alone') : $said;
}
is(built(''), 'alone', 'few facts are not worth a worker');
is(built('SET min_parallel_table_scan_size = 0;'), 'beside', 'a worker sweeps');
is(at_once(), '1', 'built in one transaction');
is(difference(), '', 'all is what ingest makes, where a worker swept');
for my $none ('max_parallel_workers', 'max_parallel_maintenance_workers')
{
	is(built("SET min_parallel_table_scan_size = 0; SET $none = 0;"), 'alone', "without one where $none is 0");
	is(difference(), '', 'all is what ingest makes');
}

# --- cancelled while a worker sweeps, and the worker ended ---------------------------------
# more than its queue holds, and the first movements need a table that another session holds
sql(q(INSERT INTO app.sub SELECT floor(random() * 900), s, s + floor(1 + random() * 400) * interval '1 day', 1 + floor(random() * 99), 'more'
		FROM generate_series(1, 12000) i, LATERAL (SELECT timestamptz '2023-01-01 00:00+01' + floor(random() * 800) * interval '1 day' AS s) x;
	INSERT INTO app.sub SELECT -1, '2023-01-01', '2024-01-01', 5, string_agg(md5(i::text), '') FROM generate_series(1, 300) i;
	ALTER DATABASE postgres SET min_parallel_table_scan_size = 0));
my $toast = sql(q(SELECT reltoastrelid::regclass FROM pg_class WHERE oid = 'cs_internal.movement'::regclass));
my $workers = q(FROM pg_stat_activity WHERE backend_type = 'parallel worker');
for my $end ('pg_cancel_backend', 'pg_terminate_backend')
{
	sql('TRUNCATE cs_internal.movement; UPDATE cs_internal.source_state SET needs_scan = true');
	$holder = session("BEGIN; REINDEX TABLE $toast");
	($run, $pid) = stuck('cs.refresh()', "relation = '$toast'::regclass");
	my $worker = sql("SELECT pid $workers");
	like($worker, qr/^\d+$/, 'a worker sweeps');
	sql("SELECT $end(" . ($end =~ /cancel/ ? $pid : $worker) . ')');
	ok(gone($pid), "$end ends it");
	ok($node->poll_query_until('postgres', "SELECT count(*) = 0 $workers"), 'and the worker');
	$_->quit for ($run, $holder);
	is(sql('SELECT count(*) FROM cs_internal.movement'), '0', 'nothing is written');
}
sql('CALL cs.refresh()');
is(at_once(), '1', 'then it is built');
is(difference(), '', 'and all is what ingest makes');
is(built('SET maintenance_work_mem = 1024;'), 'beside', 'built where what the indexes need does not fit into memory');
is(difference(), '', 'all is what ingest makes');
sql('ALTER DATABASE postgres RESET min_parallel_table_scan_size; DELETE FROM app.sub WHERE customer_id = -1 OR reason = $$more$$');

# --- a customer who is gone by then ---------------------------------------------------------
sql('DELETE FROM app.sub WHERE customer_id IN (17, 18); TRUNCATE cs_internal.movement; UPDATE cs_internal.source_state SET needs_scan = true');
sql('CALL cs.refresh()');
is(at_once(), '1', 'built in one transaction, where customers stood already');
is(sql(q(SELECT count(*) FROM cs_internal.state WHERE customer_id IN ('17', '18'))), '0', 'who has no facts any more is gone');
is(difference(), '', 'all is what ingest makes');

# --- a change after a kill is not lost ---------------------------------------------------
sql('TRUNCATE cs_internal.movement; UPDATE cs_internal.source_state SET needs_scan = true');
$holder = stop_written();
($run, $pid) = stuck('cs.refresh()', $written);
sql('UPDATE app.sub SET mrr = mrr + 3 WHERE customer_id % 50 = 1');
kill_it($run, $pid, $holder);
sql('UPDATE app.sub SET mrr = mrr + 4 WHERE customer_id % 50 = 2');
sql('CALL cs.refresh()');
is(difference(), '', 'changes beside it and after it are in the ledger');
$node->stop;
done_testing();
