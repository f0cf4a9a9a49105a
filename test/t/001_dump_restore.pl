# pg_dump | psql into a new database brings every definition and decision back,
# with custom metrics, rules and policy, while the facts are restored after the
# extension; nothing runs there until release_hold().
use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\n");
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE original');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->safe_psql('postgres', "ALTER DATABASE $_ SET cs_ext.now = '2025-07-01 06:00:00+02'") for qw(original restored);

sub run_file
{
	my ($db, @args) = @_;
	my $log = '';
	my $ok = IPC::Run::run([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db), @args ], '<', \'', '>', \$log, '2>&1');
	diag($log) unless $ok;
	return $ok;
}

$node->safe_psql('original', 'CREATE EXTENSION cs_ext');
ok(run_file('original', '-f', "$FindBin::RealBin/../lib/small_company.sql"), 'a company is set up') or BAIL_OUT('no company');
$node->safe_psql('original', q{
	UPDATE cs.policy SET period_edge = 'at', week_start = 7, fiscal_year_start = 4, description = 'as finance wants it';
	INSERT INTO cs.metric (name, source, expression, unit, better, description)
	VALUES ('my_urgent_tickets_60d', 'ticket', $$count(*) FILTER (WHERE severity = 'urgent' AND opened_at >= as_of_day - 60)$$, 'count', 'low', 'it''s "mine"; with a \ and a tab	in it');
	INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('my_twice', 'formula', 'my_urgent_tickets_60d * 2', 'number', 'low');
	INSERT INTO cs.dimension (name, fallback) VALUES ('my_tier', 'small');
	INSERT INTO cs.segment (dimension, name, rule, priority) VALUES ('my_tier', 'big', 'mrr >= 250', 10);
	INSERT INTO cs.scorecard (name, segment, priority) VALUES ('my_big', 'my_tier:big', 10);
	INSERT INTO cs.measure_group (scorecard, name, weight) VALUES ('my_big', 'adoption', 60), ('my_big', 'support', 40);
	INSERT INTO cs.measure (scorecard, name, metric, measure_group, worst, best) VALUES
		('my_big', 'urgent tickets', 'my_urgent_tickets_60d', 'support', 5, 0), ('my_big', 'active days', 'active_days_30d', 'adoption', 0, 20);
	INSERT INTO cs.alert_rule (name, rule, clear_rule, severity, dwell, message)
	VALUES ('my_quiet', 'events_30d < 20', 'events_30d > 25', 'high', '0', $$format('only %s events', events_30d)$$);
	INSERT INTO cs.job (name, kind, every, at) VALUES ('my_noon', 'snapshot', '1 day', '12:00');
	INSERT INTO cs.target (metric, segment, period, value) VALUES ('grr', 'my_tier:big', '2025-05', 0.9), ('healthy_renewals', '(total)', 'this quarter', 0.9);
	INSERT INTO cs.churn_reason (code, addressable, voluntary, description) VALUES ('price', true, true, 'too dear'), ('closed', false, false, NULL);
	INSERT INTO cs.fx_rate (currency, valid_from, rate) VALUES ('USD', '2024-01-01', 0.92);
	UPDATE cs.measure SET weight = 7 WHERE scorecard = 'default' AND metric = 'open_tickets';
	DELETE FROM cs.alert_rule WHERE name = 'renewal_near';
});
# Rows that are overwritten in place: what they said before is nowhere but in the versions.
$node->safe_psql('original', q{
	CREATE TABLE app.billing (id text PRIMARY KEY, customer_id integer, start_on date, mrr numeric, status text, changed_at timestamptz);
	GRANT SELECT ON app.billing TO cs_ext_run;
	INSERT INTO app.billing VALUES ('b1', 1, '2025-01-01', 40, 'active', NULL), ('b2', 2, '2025-01-01', 30, 'trialing', NULL), ('b3', 3, '2025-01-01', 20, 'active', NULL);
	SELECT count(*) FROM cs.add_source('billing', 'subscription', 'app.billing', '{"customer_id": "customer_id", "subscription_id": "id", "start_at": "start_on", "mrr": "mrr", "status": "status",
		"changed_at": "changed_at"}', terms => 'current')});
$node->safe_psql('original', 'CALL cs.refresh()');
$node->safe_psql('original', q{UPDATE app.billing SET mrr = mrr + 5, status = 'active', changed_at = '2025-06-10' WHERE id <> 'b3'; DELETE FROM app.billing WHERE id = 'b3'});
$node->safe_psql('original', 'CALL cs.refresh()');
my $movements = 'SELECT * FROM cs_internal.movement ORDER BY customer_id, at, seq';
my $before_movements = $node->safe_psql('original', $movements);
is($node->safe_psql('original', q{SELECT count(*) FROM cs_internal.subscription_version}), '6', 'rows overwritten in place have versions');
is($node->safe_psql('original', q{SELECT cs.publish('2025-05', 'closed')}), '1', 'a month is published');
$node->safe_psql('original', q{SELECT cs.set_root_cause('7', 'closed', 'bought by somebody', actor => 'ida')});
my $alert = $node->safe_psql('original', 'SELECT min(id) FROM cs.open_alert');
isnt($alert, '', 'alerts are open');

# Tables that pg_dump carries, as the catalog says, and what is in them.
my @kept = split /\n/, $node->safe_psql('original', q{
	SELECT c.oid::regclass FROM pg_class c, pg_extension e WHERE e.extname = 'cs_ext' AND c.oid = ANY (e.extconfig) AND c.relkind = 'r' ORDER BY 1::text});
cmp_ok(scalar @kept, '>', 15, 'definitions and decisions are marked for dump');

sub contents
{
	my ($db, $table) = @_;
	return $node->safe_psql($db, "SET TimeZone = 'UTC'; SELECT coalesce(jsonb_agg(r ORDER BY r), '[]') FROM (SELECT to_jsonb(x) AS r FROM $table x) s");
}
my %before = map { $_ => contents('original', $_) } @kept;
my $scores = 'SELECT customer_id, health_score, band FROM cs.customer_health ORDER BY 1';
my $before_scores = $node->safe_psql('original', $scores);
my $churn = "SELECT churn_rate('2025-05'), (cs.churn('2025-Q2')).rate";
$churn =~ s/SELECT churn_rate/SELECT cs.churn_rate/;
my $before_churn = $node->safe_psql('original', $churn);

my $dump = $PostgreSQL::Test::Utils::tmp_check . '/original.sql';
command_ok([ 'pg_dump', '-f', $dump, $node->connstr('original') ], 'pg_dump');
my $text = slurp_file($dump);
cmp_ok(index($text, 'CREATE EXTENSION'), '<', index($text, 'CREATE TABLE app.ticket'), 'the extension comes before the facts');
ok(run_file('restored', '-f', $dump), 'psql restores it without an error');

is(contents('restored', $_), $before{$_}, "$_ came back") for @kept;
is($node->safe_psql('restored', q{SELECT count(*) FROM cs_internal.hold}), '1', 'the restored database is on hold');
is($node->safe_psql('original', q{SELECT count(*) FROM cs_internal.hold}), '0', 'the original is not');
is($node->safe_psql('restored', q{SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
	WHERE c.relnamespace = 'app'::regnamespace AND NOT t.tgisinternal}),
	$node->safe_psql('original', q{SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
	WHERE c.relnamespace = 'app'::regnamespace AND NOT t.tgisinternal}), 'capture triggers came back with the facts');

# An analyst asks: the hold is about acting, and derived state is made by a refresh.
$node->safe_psql('restored', 'SELECT cs.release_hold()');
is($node->safe_psql('restored', q{SELECT count(*) FROM cs_internal.hold}), '0', 'release_hold() lifts the hold');
$node->safe_psql('restored', 'CALL cs.refresh()');
is($node->safe_psql('restored', $scores), $before_scores, 'the same scores after a refresh');
is($node->safe_psql('restored', $churn), $before_churn, 'the same churn');
is($node->safe_psql('restored', $movements), $before_movements, 'the same ledger, with what was overwritten');
is(contents('restored', 'cs_internal.subscription_version'), $before{'cs_internal.subscription_version'}, 'and no version more');
is($node->safe_psql('restored', q{SELECT root FROM cs.churn_reason_detail('[2024-01-01,2025-07-01)') WHERE customer_id = '7'}), 'closed', 'and why one of them left');
is($node->safe_psql('restored', 'SELECT count(*) FROM cs.check()'), '0', 'no invariant is broken');
is($node->safe_psql('restored', q{SELECT count(*) FROM cs.restatement('2025-05')}), '0', 'what was published still holds');
is($node->safe_psql('restored', q{SELECT cs.publish('2025-Q1')}), '2', 'and the next publication has a number of its own');
is($node->safe_psql('restored', q{SELECT count(*) FROM cs.open_alert}), $node->safe_psql('original', q{SELECT count(*) FROM cs.open_alert}), 'no alert was doubled or lost');
is($node->safe_psql('restored', q{SELECT period_edge || ' ' || week_start || ' ' || fiscal_year_start FROM cs.policy}), 'at 7 4', 'the policy is the one that was set');
is($node->safe_psql('restored', q{SELECT count(*) FROM cs.customer_metric WHERE metric = 'my_twice'}),
	$node->safe_psql('original', q{SELECT count(*) FROM cs.customer_metric WHERE metric = 'my_twice'}), 'custom metrics are computed');

# It goes on living: new facts, new definitions, new alerts with new ids.
$node->safe_psql('restored', q{
	INSERT INTO app.ticket (id, customer_id, opened_at, severity, escalated) VALUES (9001, 2, '2025-06-30 12:00+02', 'urgent', true);
	INSERT INTO cs.metric (name, source, expression, unit, better) VALUES ('my_third', 'formula', 'my_twice + 1', 'number', 'low')});
$node->safe_psql('restored', 'CALL cs.refresh()');
is($node->safe_psql('restored', q{SELECT count(*) FROM cs.open_alert WHERE rule = 'ticket_escalated' AND key = '9001'}), '1', 'a new ticket opens an alert there');
cmp_ok($node->safe_psql('restored', q{SELECT max(id) FROM cs.open_alert}), '>', $node->safe_psql('original', q{SELECT max(id) FROM cs.open_alert}), 'with an id of its own');
$node->stop;
done_testing();
