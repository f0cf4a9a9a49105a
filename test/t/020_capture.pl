# Changes that reach a table by other ways than a session of its own: prepared
# transactions committed elsewhere, and rows applied by logical replication, from
# a database beside and from another server, with partitions on this side.
# They are in the change log when they are visible, and a refresh knows them. A
# broken mapping stops neither a writer nor the apply worker.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 'logical');
$node->append_conf('postgresql.conf', "fsync = off\nmax_prepared_transactions = 5\n");
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE source');
$node->safe_psql('postgres', 'CREATE DATABASE target');

my $table = 'CREATE TABLE event (id int PRIMARY KEY, customer int, at timestamptz)';
$node->safe_psql('source', $table);
$node->safe_psql('target', "$table; CREATE EXTENSION cs_ext");
$node->safe_psql('target', q{
	SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL);
	SELECT count(*) FROM cs.add_source('event', 'usage_event', 'event', '{"customer_id": "customer", "at": "at"}')});
$node->safe_psql('target', 'CALL cs.refresh()');

sub is_right
{
	my ($label) = @_;
	$node->safe_psql('target', 'CALL cs.refresh()');
	is($node->safe_psql('target', 'SELECT customer_id, sum(events) FROM cs.usage_daily GROUP BY 1 ORDER BY 1'),
		$node->safe_psql('target', 'SELECT customer, count(*) FROM event GROUP BY 1 ORDER BY customer::text COLLATE "C"'), $label);
}

# ---- prepared
$node->safe_psql('target', q{BEGIN; INSERT INTO event VALUES (1, 1, '2024-01-01'); PREPARE TRANSACTION 'one'});
$node->safe_psql('target', q{BEGIN; INSERT INTO event VALUES (2, 2, '2024-01-01'); PREPARE TRANSACTION 'two'});
is_right('a prepared transaction is not seen');
is($node->safe_psql('target', 'SELECT count(*) FROM event'), '0', 'nor are its rows');
$node->safe_psql('target', q{COMMIT PREPARED 'one'});
$node->safe_psql('target', q{ROLLBACK PREPARED 'two'});
is($node->safe_psql('target', 'SELECT source, customer_key FROM cs_internal.change_log'), 'event|1', 'what was committed is in the log');
is_right('and known after a refresh');

# ---- prepared, and the server crashes in between
$node->safe_psql('target', q{BEGIN; UPDATE event SET customer = 3; PREPARE TRANSACTION 'three'});
$node->stop('immediate');
$node->start;
$node->safe_psql('target', q{COMMIT PREPARED 'three'});
is_right('prepared before a crash, committed after it');

# ---- logical replication
$node->safe_psql('source', 'CREATE PUBLICATION p FOR TABLE event');
$node->safe_psql('source', q{SELECT pg_create_logical_replication_slot('s', 'pgoutput')});
my $connection = sprintf('host=%s port=%s dbname=source', $node->host, $node->port);
$node->safe_psql('target', "CREATE SUBSCRIPTION s CONNECTION '$connection' PUBLICATION p WITH (create_slot = false, slot_name = 's', copy_data = false)");
$node->safe_psql('source', q{INSERT INTO event SELECT g, g, '2024-02-01' FROM generate_series(10, 20) g});
$node->safe_psql('source', q{UPDATE event SET customer = 99 WHERE id = 11; DELETE FROM event WHERE id = 12});
$node->wait_for_catchup('s');
is($node->safe_psql('target', 'SELECT count(*) FROM event WHERE id >= 10'), '10', 'rows were applied');
is_right('rows applied by logical replication are captured');
$node->safe_psql('source', 'TRUNCATE event');
$node->wait_for_catchup('s');
is_right('and a truncate');
is($node->safe_psql('target', 'SELECT count(*) FROM cs.usage_daily'), '0', 'nothing is left');
$node->safe_psql('target', 'DROP SUBSCRIPTION s');

# ---- from another server, into a partitioned table, by a worker that must never stop
my $publisher = PostgreSQL::Test::Cluster->new('publisher');
$publisher->init(allows_streaming => 'logical');
$publisher->append_conf('postgresql.conf', "fsync = off\n");
$publisher->start;
$publisher->safe_psql('postgres', 'CREATE TABLE hit (id int PRIMARY KEY, at timestamptz NOT NULL, who int); CREATE PUBLICATION p FOR TABLE hit');
$node->safe_psql('target', q{
	CREATE TABLE hit (who int, at timestamptz NOT NULL, id int, account text GENERATED ALWAYS AS ('a' || who) STORED, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
	CREATE TABLE hit_1 PARTITION OF hit FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
	ALTER TABLE hit REPLICA IDENTITY FULL;
	SELECT count(*) FROM cs.add_source('hit', 'usage_event', 'hit', '{"customer_id": "account", "at": "at", "event": "''hit''"}')});
$publisher->safe_psql('postgres', 'ALTER TABLE hit REPLICA IDENTITY FULL');
my $far = sprintf('host=%s port=%s dbname=postgres', $publisher->host, $publisher->port);
$node->safe_psql('target', "CREATE SUBSCRIPTION far CONNECTION '$far' PUBLICATION p");
$node->wait_for_subscription_sync($publisher, 'far', 'target');

sub applied
{
	my ($sql, $label) = @_;
	$publisher->safe_psql('postgres', $sql);
	$publisher->wait_for_catchup('far');
	$node->safe_psql('target', 'CALL cs.refresh()');
	is($node->safe_psql('target', q{SELECT customer_id, sum(events) FROM cs.usage_daily WHERE event = 'hit' GROUP BY 1 ORDER BY 1}),
		$publisher->safe_psql('postgres', q{SELECT 'a' || who, count(*) FROM hit GROUP BY who ORDER BY ('a' || who) COLLATE "C"}), $label);
}
applied(q{INSERT INTO hit SELECT g, '2024-01-05', g % 4 FROM generate_series(1, 40) g}, 'inserted on the other server');
applied(q{UPDATE hit SET who = 9 WHERE who = 1; DELETE FROM hit WHERE who = 2}, 'updated and deleted there');
$node->safe_psql('target', q{CREATE TABLE hit_2 PARTITION OF hit FOR VALUES FROM ('2024-02-01') TO ('2024-03-01')});
applied(q{INSERT INTO hit VALUES (100, '2024-02-05', 5)}, 'into a partition created later');
applied(q{BEGIN; INSERT INTO hit VALUES (101, '2024-02-06', 6); SAVEPOINT a; INSERT INTO hit VALUES (102, '2024-02-06', 7); ROLLBACK TO a; COMMIT}, 'with a subtransaction rolled back');

# the mapped column goes away: the worker and the writers go on, the source says so
$node->safe_psql('target', 'ALTER TABLE hit RENAME COLUMN account TO client');
$publisher->safe_psql('postgres', q{INSERT INTO hit VALUES (103, '2024-02-07', 8)});
$publisher->wait_for_catchup('far');
is($node->safe_psql('target', 'SELECT count(*) FROM hit WHERE id = 103'), '1', 'a broken mapping does not stop the apply worker');
$node->safe_psql('target', q{INSERT INTO hit (id, at, who) VALUES (200, '2024-02-07', 8); COPY hit (id, at, who) FROM STDIN;
201	2024-02-08	8
\.
DELETE FROM hit WHERE id IN (200, 201)});
pass('nor a writer');
$node->safe_psql('target', 'CALL cs.refresh()');
like($node->safe_psql('target', q{SELECT error FROM cs.source_status WHERE source = 'hit'}), qr/account/, 'the source says what is wrong');
$node->safe_psql('target', 'ALTER TABLE hit RENAME COLUMN client TO account');
applied(q{INSERT INTO hit VALUES (104, '2024-02-08', 8)}, 'mended, nothing was lost');
applied('TRUNCATE hit', 'and truncated there');
is($node->safe_psql('target', q{SELECT apply_error_count FROM pg_stat_subscription_stats WHERE subname = 'far'}), '0', 'the worker never failed');
$node->safe_psql('target', 'DROP SUBSCRIPTION far');
$publisher->stop;

$node->stop;
done_testing();
