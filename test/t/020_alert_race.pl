# Two at once on the same alert: people, the refresh, and who numbers events.
# How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

require "$FindBin::Bin/../lib/server.pl";

our $node = PostgreSQL::Test::Cluster->new('race');
$node->init;
$node->append_conf('postgresql.conf', "max_prepared_transactions = 4\ncs_ext.now = '2026-03-02 12:00+00'\n");
$node->start;

# state of an alert, and who moved it how
sub state_of { return sql("SELECT state FROM cs.alert WHERE id = $_[0]"); }
sub story { return sql("SELECT string_agg(actor || ':' || to_state, ' ' ORDER BY id) FROM cs_internal.alert_event WHERE alert_id = $_[0]"); }
sub value { sql("UPDATE cs_internal.state SET \"values\" = ARRAY[$_[1]::float8] WHERE customer_id = '$_[0]'"); return; }

# Both sessions run; the second one waits for the first until that commits.
sub waits
{
	my ($name) = @_;
	ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock')), $name);
}

sql(<<'SQL');
CREATE EXTENSION cs_ext;
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL);
INSERT INTO cs.metric (name, source, expression) VALUES ('x', 'ledger', 'mrr');
INSERT INTO cs_internal.customer (customer_id, from_customer) SELECT c, true FROM unnest('{a,b,c,d,e}'::text[]) c;
INSERT INTO cs_internal.state (customer_id, "values") SELECT c, '{1}' FROM unnest('{a,b,c,d,e}'::text[]) c;
INSERT INTO cs.alert_rule (name, rule) VALUES ('low', 'x < 3');
SELECT cs_internal.evaluate_alerts('{a,b,c,d,e}', cs_internal.now());
SQL
is(sql("SELECT string_agg(id || customer_id, ' ' ORDER BY id) FROM cs.alert WHERE state = 'open'"), '1a 2b 3c 4d 5e', 'five alerts');

my $one = $node->background_psql('postgres', on_error_stop => 0);
my $two = $node->background_psql('postgres', on_error_stop => 0);
$one->query_safe("SET cs_ext.actor = 'one'");
$two->query_safe("SET cs_ext.actor = 'two'");

# --- a person dismisses while the refresh resolves ---------------------------------
value('a', 5);
$one->query_safe("BEGIN");
$one->query_safe("SELECT state FROM cs.dismiss_alert(1, 'false alarm')");
$two->query_until(qr/start/, "\\echo start\nSELECT cs_internal.evaluate_alerts('{a}', cs_internal.now());\n");
waits('the refresh waits for the person');
$one->query_safe('COMMIT');
$two->query_safe('SELECT 1');
is(state_of(1), 'dismissed', 'what the person decided stands');
is(story(1), 'cs_ext:open one:dismissed', 'the refresh wrote nothing over it');

# --- the refresh resolves while a person acknowledges ------------------------------
value('b', 5);
$one->query_safe("BEGIN");
$one->query_safe("SELECT cs_internal.evaluate_alerts('{b}', cs_internal.now())");
$two->query_until(qr/start/, "\\echo start\nSELECT state FROM cs.ack_alert(2);\n");
waits('the person waits for the refresh');
$one->query_safe('COMMIT');
$two->query('SELECT 1');
is(state_of(2), 'resolved', 'resolved');
is(story(2), 'cs_ext:open cs_ext:resolved', 'and not acknowledged afterwards');
like($two->{stderr}, qr/cannot acknowledge alert 2, which is resolved/, 'the person is told');
$two->{stderr} = '';

# --- two people at once ---------------------------------------------------------------
$one->query_safe("BEGIN");
$one->query_safe("SELECT state FROM cs.ack_alert(3)");
$two->query_until(qr/start/, "\\echo start\nSELECT state FROM cs.resolve_alert(3);\n");
waits('the second waits for the first');
$one->query_safe('COMMIT');
$two->query_safe('SELECT 1');
is(story(3), 'cs_ext:open one:acknowledged two:resolved', 'one after the other');
$one->query_safe("BEGIN");
$one->query_safe("SELECT state FROM cs.ack_alert(4)");
$two->query_until(qr/start/, "\\echo start\nSELECT state FROM cs.ack_alert(4);\n");
waits('the second waits for the first again');
$one->query_safe('COMMIT');
$two->query_safe('SELECT 1');
is(story(4), 'cs_ext:open one:acknowledged', 'acknowledged twice is one change');

# --- two refreshes of one customer never open two alerts ------------------------------
sql("INSERT INTO cs.alert_rule (name, rule) VALUES ('lower', 'x < 2')");
$one->query_safe("BEGIN");
$one->query_safe("SELECT cs_internal.evaluate_alerts('{e}', cs_internal.now())");
$two->query_until(qr/start/, "\\echo start\nSELECT cs_internal.evaluate_alerts('{e}', cs_internal.now());\n");
waits('the identity is taken');
$one->query_safe('COMMIT');
$two->query('SELECT 1');
is(sql("SELECT count(*) FROM cs.alert WHERE rule = 'lower'"), '1', 'one alert');
$two->{stderr} = '';

# --- numbering: in order of commit, nothing is missed, nobody waits ---------------------
my $last = sql('SELECT max(seq) FROM cs.alert_changes(0)');
is($last, sql('SELECT count(*) FROM cs.alert_event'), 'all that is committed is numbered');
$one->query_safe('BEGIN');
$one->query_safe("SELECT owner FROM cs.assign_alert(4, 'early')");
sql("SELECT owner FROM cs.assign_alert(5, 'late')");
is(sql("SELECT string_agg(alert_id || ' ' || seq - $last, ',') FROM cs.alert_changes($last)"), '5 1', 'a poller sees what is committed');
$one->query_safe('COMMIT');
is(sql("SELECT string_agg(alert_id || ' ' || seq - $last, ',') FROM cs.alert_changes($last + 1)"), '4 2', 'what commits later has a greater number');
sql("SELECT owner FROM cs.assign_alert(5, 'later')");
$one->query_safe('BEGIN');
is($one->query_safe("SELECT count(*) FROM cs.alert_changes($last + 2)"), '1', 'one poller numbers and does not commit');
is(sql("SELECT count(*) FROM cs.alert_changes($last + 2)"), '0', 'another one does not wait and does not number');
$one->query_safe('ROLLBACK');
is(sql("SELECT count(*) FROM cs.alert_changes($last + 2)"), '1', 'what was rolled back is numbered anew');
is(sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM cs.alert_changes($last); COMMIT"), '3', 'under a fixed snapshot it reads what is numbered');
is(sql("BEGIN READ ONLY; SELECT count(*) FROM cs.alert_changes($last); COMMIT"), '3', 'and in a read-only transaction');

# --- a prepared transaction -------------------------------------------------------------
sql("BEGIN; SELECT owner FROM cs.assign_alert(5, 'prepared'); PREPARE TRANSACTION 'p'");
is(sql("SELECT count(*) FROM cs.alert_changes($last + 3)"), '0', 'a prepared change is not seen');
sql("COMMIT PREPARED 'p'");
is(sql("SELECT note FROM cs.alert_changes($last + 3)"), 'owner: prepared', 'until it commits');

$one->quit;
$two->quit;
$node->stop;
done_testing();
