# Who decides something about a customer (an override, an assignment) in a
# transaction that overlaps with a refresh: the refresh does not wait for it, and
# the decision is not lost, though the customer was marked before and that mark
# is done with. How to run: see 010_worker.pl.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('decide');
$node->init;
$node->append_conf('postgresql.conf', "cs_ext.now = '2026-03-02 12:00+00'\n");
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub shown
{
	return sql(q(SELECT string_agg(concat_ws(' ', h.customer_id, h.band, s.segment), ', ' ORDER BY h.customer_id)
		FROM cs.customer_health h JOIN cs.customer_segment s USING (customer_id)));
}

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
INSERT INTO cs.scorecard (name) VALUES ('card');
INSERT INTO cs.measure (scorecard, name, metric, worst, best) VALUES ('card', 'money', 'money', 0, 10);
INSERT INTO cs.dimension (name, fallback) VALUES ('tier', 'small');
INSERT INTO cs.segment (dimension, name, rule, priority) VALUES ('tier', 'big', 'money > 100', 10);
SQL
sql('CALL cs.refresh()');
is(shown(), 'x green small, y green small', 'as the rules say');

my $one = $node->background_psql('postgres');
for my $what (["SELECT cs.override_health('x', band => 'red', reason => 'r', expires_at => '2026-03-09 12:00')", 'x red small, y green small', 'an override'],
	["SELECT cs.assign_segment('x', 'tier', 'big', 'r')", 'x red big, y green small', 'an assignment'])
{
	my ($decision, $expected, $name) = @$what;
	my $before = shown();

	sql("SELECT cs.assign_segment(c, 'tier', NULL, NULL) FROM unnest('{x,y}'::text[]) c");
	is(sql('SELECT count(*) FROM cs_internal.dirty'), '2', 'both are marked');
	$one->query_safe('BEGIN');
	$one->query_safe($decision);
	sql('CALL cs.refresh()');
	is(sql('SELECT string_agg(customer_id, NULL) FROM cs_internal.dirty'), 'x', "$name that is not committed: the refresh does not wait, and leaves him marked");
	is(shown(), $before, 'and does not show it');
	$one->query_safe('COMMIT');
	sql('CALL cs.refresh()');
	is(shown(), $expected, "$name is shown by the refresh behind it");
}

# the other way round: the refresh is at him
sql("SELECT cs.assign_segment('x', 'tier', 'big', 'again')");
my $two = $node->background_psql('postgres');
$one->query_safe('BEGIN');
$one->query_safe('CALL cs.refresh(commit => false)');
$two->query_until(qr/start/, "\\echo start\nSELECT cs.assign_segment('x', 'tier', NULL, NULL);\n");
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock')), 'who decides waits for the refresh that is at him');
$one->query_safe('COMMIT');
$two->query_safe('SELECT 1');
is(shown(), 'x red big, y green small', 'what the refresh saw');
sql('CALL cs.refresh()');
is(shown(), 'x red small, y green small', 'and then what was decided meanwhile');

$one->quit;
$two->quit;
$node->stop;
done_testing();
