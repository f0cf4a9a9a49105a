# What cs.doctor() says of a server in trouble: who locks a mapped table, for
# which lock the worker waits, a database that cs_ext.databases leaves out; and
# that it does not itself wait for the lock. A lock costs nobody's values.
use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\nshared_preload_libraries = 'cs_ext'\n");
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE app');
$node->safe_psql('app', <<'SQL');
CREATE EXTENSION cs_ext;
SELECT cs.setup('UTC', 'EUR', 'saas_basic');
SELECT cs.create_tables('facts');
INSERT INTO facts.customer (customer_id, name, created_at) SELECT 'c' || i, 'Customer ' || i, now() - interval '1 year' FROM generate_series(1, 5) i;
INSERT INTO facts.subscription (subscription_id, customer_id, start_at, mrr) SELECT 's' || i, 'c' || i, now() - interval '300 days', 100 FROM generate_series(1, 5) i;
INSERT INTO facts.ticket (customer_id, ticket_id, opened_at) VALUES ('c1', 't1', now() - interval '3 days');
SQL
$node->poll_query_until('app', q{SELECT count(*) = 5 FROM cs.customer_360 WHERE mrr = 100}) or die 'the worker did nothing';
ok($node->poll_query_until('app', q{SELECT count(*) = 0 FROM cs.doctor() WHERE severity <> 'info'}), 'nothing is wrong');

my $locker = $node->background_psql('app');
$locker->query_safe('BEGIN; LOCK TABLE facts.ticket IN ACCESS EXCLUSIVE MODE');
my $pid = $node->safe_psql('app', q{SELECT pid FROM pg_locks WHERE relation = 'facts.ticket'::regclass AND mode = 'AccessExclusiveLock'});
my $found = $node->safe_psql('app', q{SET statement_timeout = '60s'; SELECT object || ': ' || finding || ' / ' || remedy FROM cs.doctor() WHERE "check" = 'locked'});
like($found, qr/facts\.ticket is locked against readers by pid $pid /, 'the doctor does not wait for a locked table, and names who locks it');
like($found, qr/pg_terminate_backend\($pid\)/, 'and how to end that');
$node->safe_psql('app', q{INSERT INTO facts.survey (customer_id, at, kind, score) VALUES ('c1', now() - interval '1 day', 'nps', 9)});
ok($node->poll_query_until('app', qq{SELECT EXISTS (SELECT FROM cs.doctor() WHERE "check" = 'waiting' AND object = 'cs_ext worker' AND finding LIKE '%pid $pid (%holds')}),
	'a worker that waits for a lock is shown, with who holds it');
my $values = q{SELECT string_agg(concat_ws(' ', metric, value), ', ' ORDER BY metric) FROM cs.customer_metric WHERE customer_id = 'c2'};
my $before = $node->safe_psql('app', $values);
my ($refused, undef, $waited) = $node->psql('app', q{SET cs_ext.user_sql_timeout = '1s'; SELECT cs.refresh_customer('c2')});
isnt($refused, 0, 'who waits for the lock longer than user_sql_timeout gives up');
like($waited, qr/waited for a lock longer than cs_ext.user_sql_timeout/, 'says so');
is($node->safe_psql('app', $values), $before, 'and leaves the values as they were');
is($node->safe_psql('app', q{SELECT count(*) FROM cs_internal.definition_status WHERE status <> 'ok'}), '0', 'for no definition is to blame');
$locker->query_safe('COMMIT');
$locker->quit;
ok($node->poll_query_until('app', q{SELECT count(*) = 0 FROM cs.doctor() WHERE severity <> 'info'}), 'when that is over nothing is wrong');
ok($node->poll_query_until('app', q{SELECT EXISTS (SELECT FROM cs.customer_metric WHERE customer_id = 'c1' AND metric = 'nps_latest' AND value = 9)}), 'and the refresh went on');

my ($status, undef, $error) = $node->psql('app', q{ALTER SYSTEM SET cs_ext.databases = 'app,,"x'});
isnt($status, 0, 'a list of databases that is none is refused');
like($error, qr/List syntax is invalid/, 'and says why');
$node->safe_psql('app', q{ALTER SYSTEM SET cs_ext.databases = 'App, "other"'});
$node->reload;
ok($node->poll_query_until('app', q{SELECT current_setting('cs_ext.databases') <> ''}), 'names are folded');
is($node->safe_psql('app', q{SELECT count(*) FROM cs.doctor() WHERE object = 'cs_ext.databases'}), '0', 'so this database is served');
$node->safe_psql('app', q{ALTER SYSTEM SET cs_ext.databases = '"App", other'});
$node->reload;
ok($node->poll_query_until('app', q{SELECT count(*) = 1 FROM cs.doctor() WHERE object = 'cs_ext.databases'}), 'a database that is left out says so');
$node->stop;
done_testing();
