# Changes that reach a table by other ways than a session of its own: prepared
# transactions committed elsewhere, and rows applied by logical replication.
# Both are in the change log when they are visible, and a refresh knows them.
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

$node->stop;
done_testing();
