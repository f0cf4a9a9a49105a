# cs.seal(): what happened before an instant is final. Its rows are then deleted,
# detached and dropped, and nothing changes, not by a refresh, a rebuild or a
# restore; corrections below it are counted and not applied.
# How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

require "$FindBin::Bin/../lib/server.pl";

our $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\ncs_ext.now = '2024-06-15 12:00+02'\n");
$node->start;
sub refused
{
	my ($sql, $like, $label) = @_;
	my ($status, $out, $err) = $node->psql('postgres', $sql);
	ok($status != 0 && $err =~ $like, $label) or diag("status $status: $err");
}

sql(<<'SQL');
CREATE EXTENSION cs_ext;
SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL);
INSERT INTO cs.metric (name, source, expression) VALUES
	('all_events', 'usage', 'events(usage, NULL, 400)'), ('users', 'usage', 'active_users(usage, 400)'), ('volume', 'usage', 'quantity(usage, NULL, 400)'), ('quiet', 'usage', 'days_since(usage, NULL)');
CREATE SCHEMA app;
CREATE TABLE app.event (at timestamptz NOT NULL, customer int, who text, name text, n int, amount numeric) PARTITION BY RANGE (at);
CREATE TABLE app.event_q1 PARTITION OF app.event FOR VALUES FROM ('2023-12-31 00:00+01') TO ('2024-03-01 00:00+01');
CREATE TABLE app.event_q2 PARTITION OF app.event FOR VALUES FROM ('2024-03-01 00:00+01') TO ('2025-01-01 00:00+01');
CREATE TABLE app.daily (day date, customer int, n int);
CREATE TABLE app.stream (customer text, at timestamptz NOT NULL);
SELECT setseed(0.5);
INSERT INTO app.event SELECT timestamptz '2024-01-01' + random() * interval '160 days', g % 40, 'u' || g % 7, 'e' || g % 3, g % 4, g / 8.0 FROM generate_series(1, 6000) g;
INSERT INTO app.daily SELECT date '2024-01-10' + g % 150, g % 45, 2 FROM generate_series(1, 900) g;
INSERT INTO app.stream SELECT 's' || g % 20, timestamptz '2024-01-01' + g * interval '3 hours' FROM generate_series(1, 1200) g;
CREATE INDEX ON app.event (customer);
CREATE INDEX ON app.event (at);
CREATE INDEX ON app.daily (customer);
SELECT cs.add_watermark('app.stream');
SELECT count(*) FROM cs.add_source('event', 'usage_event', 'app.event', '{"customer_id": "customer", "at": "at", "user_id": "who", "event": "name", "event_count": "n", "quantity": "amount"}');
SELECT count(*) FROM cs.add_source('daily', 'usage_event', 'app.daily', '{"customer_id": "customer", "at": "day", "event": "''e1''", "event_count": "n"}');
SELECT count(*) FROM cs.add_source('stream', 'usage_event', 'app.stream', '{"customer_id": "customer", "at": "at"}');
CREATE TABLE app.contract (customer int, start_on date, mrr numeric);
SELECT count(*) FROM cs.add_source('contract', 'subscription', 'app.contract', '{"customer_id": "customer", "start_at": "start_on", "mrr": "mrr"}');
SELECT cs.drop_source('contract');
CALL cs.refresh();
CREATE TABLE app.before AS SELECT customer_id, event, day, events, quantity, active_users FROM cs.usage_daily;
CREATE TABLE app.metrics AS SELECT customer_id, metric, value FROM cs.customer_metric;
SQL
my $whole = q(SELECT customer_id, event, day, events, quantity, active_users FROM cs.usage_daily);
sub same
{
	my ($label) = @_;
	is(sql("SELECT * FROM (($whole EXCEPT ALL TABLE app.before) UNION ALL (TABLE app.before EXCEPT ALL $whole)) d LIMIT 4"), '', "$label: the rollup");
	is(sql('SELECT * FROM ((SELECT customer_id, metric, value FROM cs.customer_metric EXCEPT TABLE app.metrics) UNION ALL (TABLE app.metrics EXCEPT SELECT customer_id, metric, value FROM cs.customer_metric)) d LIMIT 4'), '', "$label: the metrics");
}
cmp_ok(sql('SELECT count(*) FROM app.before'), '>', 3000, 'there is a rollup');

# ---- what is refused
refused("SELECT cs.seal('evnt', '2024-03-01')", qr/there is no source "evnt"[\s\S]*Did you mean "event"/, 'an unknown source');
refused("SELECT cs.seal('event', '2024-07-01')", qr/still to come/, 'an instant to come');
sql(q(SELECT count(*) FROM cs.add_source('contract', 'subscription', 'app.contract', '{"customer_id": "customer", "start_at": "start_on", "mrr": "mrr"}')));
refused("SELECT cs.seal('contract', '2024-03-01')", qr/of kind "subscription" cannot be sealed/, 'another kind');
sql("SELECT cs.drop_source('contract')");
refused("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT cs.seal('event', '2024-03-01')", qr/READ COMMITTED/, 'an older snapshot');
refused("CREATE ROLE stranger; GRANT USAGE ON SCHEMA cs TO stranger; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cs TO stranger; SET ROLE stranger; SELECT cs.seal('event', '2024-03-01')", qr/must be a member of role/, 'who is no member of run_as');

# ---- sealed in the middle of a month, and at other instants for the others; nothing changes
cmp_ok(sql("SELECT cs.seal('event', '2024-03-01')"), '>', 60, 'customers and months are sealed');
same('sealed, not refreshed');
sql("SELECT cs.seal('event', '2024-03-11 14:30'::timestamp), cs.seal('daily', '2024-02-20'::date), cs.seal('stream', '2024-02-01')");
same('sealed further');
is(sql("SET TimeZone = 'Europe/Berlin'; SELECT string_agg(source || ' ' || sealed_before || ' ' || corrections_refused, ', ' ORDER BY source) FROM cs.source_status"),
	'daily 2024-02-20 00:00:00+01 0, event 2024-03-11 14:30:00+01 0, stream 2024-02-01 00:00:00+01 0', 'source_status says so');
is(sql("SELECT cs.seal('event', '2024-03-11 14:30')"), '0', 'the same seal again is no change');
refused("SELECT cs.seal('event', '2024-02-01')", qr/sealed before a later instant already/, 'it never moves back');
sql('CALL cs.refresh()');
same('refreshed');
sql('CALL cs.rebuild()');
same('rebuilt');

# ---- rows go
sql("DELETE FROM app.event WHERE at < '2024-03-05'; CALL cs.refresh()");
same('rows deleted');
is(sql('SELECT count(*) FROM app.event_q1'), '0', 'they are gone');
sql('ALTER TABLE app.event DETACH PARTITION app.event_q1; CALL cs.refresh()');
same('a partition detached');
sql('DROP TABLE app.event_q1; CALL cs.refresh(); CALL cs.rebuild()');
same('dropped, and all rebuilt');
sql("DELETE FROM app.daily WHERE day < '2024-02-20'; DELETE FROM app.stream WHERE at < '2024-02-01 00:00+01'; DELETE FROM app.daily WHERE customer = 44 AND false; CALL cs.rebuild()");
same('the others deleted, and all rebuilt');
is(sql('SELECT sum(corrections_refused) FROM cs.source_status'), '0', 'rows that go are no corrections');
is(sql('SELECT first_at < sealed_before FROM cs.source_status'), "t\nt\nt", 'a source still reaches back to where it did');

# ---- corrections
sql("INSERT INTO app.event SELECT '2024-03-05 12:00+01', 1, 'x', 'e1', 1, 1 FROM generate_series(1, 5)");
sql("UPDATE app.event SET n = 7 WHERE at < '2024-03-11 14:30+01' AND who = 'x'");
sql("INSERT INTO app.daily VALUES ('2024-02-19', 3, 9), ('2024-01-01', 999, 9)");
sql("INSERT INTO app.stream VALUES ('s1', '2024-01-31 23:59+01'), ('s1', '2024-01-01')");
sql('CALL cs.refresh()');
same('corrections below the seal');
is(sql("SELECT string_agg(source || ' ' || corrections_refused, ', ' ORDER BY source) FROM cs.source_status"), 'daily 2, event 10, stream 2', 'they are counted');
like(sql(q(SELECT finding FROM cs.doctor() WHERE "check" = 'seal' AND object = 'event')), qr/10 rows were written below the seal/, 'doctor shows them');
sql('CALL cs.rebuild()');
same('nor does a rebuild apply them');
refused("SELECT cs.mark_changed('event', 1, '2024-01-01', '2024-02-01')", qr/is sealed: what is before .* is final/, 'mark_changed below the seal is refused');
sql("DELETE FROM app.event WHERE who = 'x'; DELETE FROM app.daily WHERE n = 9");
# above the seal everything counts, in the month of the seal too
sql("INSERT INTO app.event VALUES ('2024-03-11 14:30+01', 1, 'new', 'e1', 3, 1), ('2024-03-20', 2, 'new', 'e2', 4, 1); INSERT INTO app.daily VALUES ('2024-02-20', 3, 5); INSERT INTO app.stream VALUES ('s2', '2024-02-01 00:00+01')");
sql('CALL cs.refresh()');
is(sql(q(SELECT string_agg(format('%s %s %s %s', customer_id, event, day, events - b), ', ' ORDER BY customer_id, event, day)
	FROM (SELECT d.*, coalesce((SELECT b.events FROM app.before b WHERE (b.customer_id, b.day) = (d.customer_id, d.day) AND b.event IS NOT DISTINCT FROM d.event), 0) AS b FROM cs.usage_daily d) x WHERE events <> b)),
	'1 e1 2024-03-11 3, 2 e2 2024-03-20 4, 3 e1 2024-02-20 5, s2  2024-02-01 1', 'what is written from the seal on counts');
sql("DELETE FROM app.event WHERE who = 'new'; DELETE FROM app.daily WHERE n = 5; DELETE FROM app.stream WHERE (customer, at) = ('s2', '2024-02-01 00:00+01'); CALL cs.rebuild()");
same('and its removal, too');
refused("UPDATE cs.policy SET time_zone = 'Asia/Tokyo'", qr/the time zone cannot change: usage is sealed/, 'the zone cannot change');
refused("SELECT cs.drop_source('event')", qr/source "event" is sealed/, 'nor the source be dropped');

# ---- dumped and restored
sql('CREATE DATABASE restored');
my $dump = $node->basedir . '/dump.sql';
command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'dumped');
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ], 'restored');
$node->safe_psql('restored', 'CALL cs.refresh()');
my $fetch = "$whole ORDER BY customer_id, event, day";
is($node->safe_psql('restored', $fetch), sql($fetch), 'the restored rollup has what is sealed');
is($node->safe_psql('restored', 'SELECT customer_id, metric, value FROM cs.customer_metric ORDER BY 1, 2'), sql('SELECT customer_id, metric, value FROM cs.customer_metric ORDER BY 1, 2'), 'and the metrics');
is($node->safe_psql('restored', "SELECT string_agg(source || ' ' || corrections_refused, ', ' ORDER BY source) FROM cs.source_status"), 'daily 2, event 10, stream 2', 'and what was counted');
$node->safe_psql('restored', "INSERT INTO app.event VALUES ('2024-03-05 12:00+01', 1, 'x', 'e1', 1, 1); CALL cs.refresh()");
is($node->safe_psql('restored', "SELECT corrections_refused FROM cs.source_status WHERE source = 'event'"), '11', 'its triggers know the seal');
refused_in('restored', "UPDATE cs.policy SET time_zone = 'Asia/Tokyo'", qr/cannot change/, 'its zone cannot change either');
sub refused_in
{
	my ($db, $sql, $like, $label) = @_;
	my ($status, $out, $err) = $node->psql($db, $sql);
	ok($status != 0 && $err =~ $like, $label);
}

# ---- a writer while it is sealed: either in it, or above, or counted
my $writer = $node->background_psql('postgres', on_error_stop => 1);
$writer->query_safe('BEGIN');
$writer->query_safe("INSERT INTO app.daily VALUES ('2024-03-02', 5, 1000)");
my $sealer = $node->background_psql('postgres', on_error_stop => 0);
$sealer->query_safe('SET client_min_messages = warning');
$sealer->query_until(qr/start/, "\\echo start\nSELECT cs.seal('daily', '2024-04-01');\n");
ok($node->poll_query_until('postgres', q(SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'cs.seal'))), 'the seal waits for the writer');
$writer->query_safe('COMMIT');
$sealer->query_safe('SELECT 1');
is(sql("SELECT events FROM cs.usage_daily WHERE day = '2024-03-02' AND customer_id = '5' AND event = 'e1'") >= 1000, 1, 'whose row is sealed with the others');
sql('CALL cs.refresh()');
is(sql("SELECT corrections_refused FROM cs.source_status WHERE source = 'daily'"), '2', 'and is no correction');
$_->quit for $writer, $sealer;

# ---- given up
sql("SELECT cs.unseal('event'); CALL cs.refresh()");
is(sql("SELECT coalesce(min(at), 'infinity')::date >= '2024-03-05' FROM app.event"), 't', 'after unseal there is what rows there are');
is(sql("SELECT count(*) FROM cs.usage_daily WHERE event IN ('e0', 'e2') AND day < '2024-03-05'"), '0', 'and no more');
sql("SELECT cs.drop_source('event')");

$node->stop;
done_testing();
