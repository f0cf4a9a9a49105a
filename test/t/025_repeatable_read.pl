# A refresh inside a transaction that sees the world as it was (REPEATABLE READ),
# beside one that has committed since: it fails as any statement there would, so
# that who tries again on a serialization failure does. How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

require "$FindBin::Bin/../lib/server.pl";

our $node = PostgreSQL::Test::Cluster->new('serial');
$node->init;
$node->append_conf('postgresql.conf', "cs_ext.now = '2026-03-02 12:00+00'\n");
$node->start;

sql(<<'SQL');
CREATE EXTENSION cs_ext;
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL);
CREATE SCHEMA app;
CREATE TABLE app.subscription (customer_id text, start_at timestamptz, mrr numeric);
INSERT INTO app.subscription SELECT c, '2024-01-01', 10 FROM unnest('{x,y}'::text[]) c;
GRANT USAGE ON SCHEMA app TO cs_ext_run;
GRANT SELECT ON app.subscription TO cs_ext_run;
SELECT cs.add_source('subscription', 'subscription', 'app.subscription', '{"customer_id": "customer_id", "start_at": "start_at", "mrr": "mrr"}');
INSERT INTO cs.metric (name, source, expression) VALUES ('money', 'ledger', 'mrr');
SQL
sql('CALL cs.refresh()');

my $log = 'SELECT count(*) FROM cs_internal.change_log';
for my $case (["UPDATE app.subscription SET mrr = mrr + 1 WHERE customer_id = 'x'", 'rows of the change log'],
	["SELECT cs.assign_segment('x', 'tier', NULL, NULL)", 'a mark and the state'])
{
	my ($change, $name) = @$case;

	sql("INSERT INTO cs.dimension (name, fallback) VALUES ('tier', 'small') ON CONFLICT DO NOTHING") if $change =~ /tier/;
	sql($change);
	my $one = $node->background_psql('postgres', on_error_stop => 0);
	$one->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$one->query_safe($log);
	sql('CALL cs.refresh()');
	my ($out, $failed) = $one->query("\\set VERBOSITY verbose\nCALL cs.refresh(commit => false);");
	like($one->{stderr}, qr/ERROR:  40001:/, "$name taken by another: a serialization failure");
	$one->{stderr} = '';
	$one->query_safe('ROLLBACK');
	$one->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$one->query_safe('CALL cs.refresh(commit => false)');
	$one->query_safe('COMMIT');
	$one->quit;
	is(sql("$log UNION ALL SELECT count(*) FROM cs_internal.dirty"), "0\n0", 'tried again it succeeds, and nothing is left');
}
is(sql("SELECT mrr FROM cs_internal.state WHERE customer_id = 'x'"), '11.000000', 'as the facts say');

$node->stop;
done_testing();
