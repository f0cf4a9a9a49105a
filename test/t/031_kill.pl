# Killed at any point, nothing is lost and nothing happens twice: the backend
# that refreshes or rebuilds gets kill -9 at random moments (the server restarts
# after the crash), while facts change. Afterwards derived state is what a
# rebuild from nothing makes of it, no alert is open twice, and the numbers of
# alert events are dense and in order.
#
# The seed is printed; CS_EXT_SEED=n repeats its changes (not the moments).
# How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

require "$FindBin::Bin/../lib/server.pl";

my $seed = $ENV{CS_EXT_SEED} // int(rand(1_000_000));
diag("seed $seed");
srand($seed);

our $node = PostgreSQL::Test::Cluster->new('kill');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
cs_ext.now = '2025-06-20 09:00+02'
cs_ext.refresh_batch = 3
cs_ext.usage_large = 500B
restart_after_crash = on
log_statement = none
CONF
$node->start;
$node->safe_psql('postgres', slurp_file("$FindBin::Bin/../lib/busy_company.sql"));
sql("INSERT INTO cs.outbox_topic (name, event) VALUES ('segments', 'segment'), ('bands', 'band'), ('alerts', 'alert')");
my $begin = time;
sql('CALL cs.refresh()');
my $whole = time - $begin;

# The server answers again after a crash.
sub back
{
	for (1 .. 600)
	{
		my ($status) = $node->psql('postgres', 'SELECT 1');
		return 1 if $status == 0;
		usleep(50_000);
	}
	die 'the server did not come back';
}

my ($killed, $finished) = (0, 0);
for my $round (1 .. 8)
{
	my $n = ($seed + $round) % 1_000_000;
	sql("SELECT setseed($n / 1000000.0); SELECT app.change() FROM generate_series(1, 60)");
	sql("SELECT cs.ack_alert(id) FROM cs.alert WHERE state = 'open' ORDER BY id LIMIT 1") if $round % 3 == 0;
	my $what = $round % 4 == 0 ? 'rebuild' : 'refresh';
	my $s = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $s->query_safe('SELECT pg_backend_pid()');
	$s->query_until(qr/begun/, "\\echo begun\nCALL cs.$what();\n");
	usleep(int(rand() * $whole * 1_000_000));
	$finished++ if sql("SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $pid") eq 't';
	kill 9, $pid;
	$killed++;
	eval { $s->{run}->kill_kill };
	usleep(20_000);
	back();
}
is($killed, 8, 'eight backends were killed');
cmp_ok($finished, '<', 8, "not all of them after the end ($finished were)");

sql('CALL cs.refresh()');
sql("INSERT INTO app.kept SELECT 'refreshed', * FROM app.derived()");
is(sql("SELECT * FROM app.kept WHERE tab = 'waiting'"), '', 'nothing waits');
my $alerts = sql('SELECT jsonb_agg(to_jsonb(a) ORDER BY a.id) FROM cs_internal.alert a');
sql('CALL app.empty()');
sql('CALL cs.refresh()');
sql("INSERT INTO app.kept SELECT 'rebuilt', * FROM app.derived()");
is(sql("SELECT * FROM app.difference('refreshed', 'rebuilt')"), '', 'derived state equals a rebuild from nothing');
is(sql('SELECT jsonb_agg(to_jsonb(a) ORDER BY a.id) FROM cs_internal.alert a'), $alerts, 'which leaves the alerts alone');

is(sql('SELECT rule, customer_id, key FROM cs_internal.alert WHERE live GROUP BY 1, 2, 3 HAVING count(*) > 1'), '', 'no alert is open twice');
cmp_ok(sql('SELECT count(*) FROM cs_internal.alert_event'), '>', 50, 'there were alert events');
is(sql('SELECT (min(seq) = 1)::text || (max(seq) = count(*))::text || (count(DISTINCT seq) = count(*))::text FROM cs_internal.alert_event'),
	'truetruetrue', 'each has one number, without a gap');
is(sql(q(SELECT count(*) FROM (SELECT alert_id, to_state, lag(to_state) OVER (PARTITION BY alert_id ORDER BY seq) AS before, from_state FROM cs_internal.alert_event) e
	WHERE from_state IS DISTINCT FROM before)), '0', 'and each goes on where the one before it ended');
is(sql(q(SELECT count(*) FROM cs_internal.alert a WHERE a.state <> coalesce((SELECT e.to_state FROM cs_internal.alert_event e WHERE e.alert_id = a.id ORDER BY e.seq DESC LIMIT 1), 'pending'))),
	'0', 'the last of them is the state of the alert');

# --- the outbox: one row for each change, and who replays it knows what holds -----------
$node->psql('postgres', "SELECT count(*) FROM cs.poll('replay', 1)");
cmp_ok(sql('SELECT count(*) FROM cs_internal.outbox'), '>', 50, 'there were rows of the outbox');
is(sql('SELECT (min(seq) = 1)::text || (max(seq) = count(*))::text || (count(DISTINCT seq) = count(*))::text || (count(DISTINCT idempotency_key) = count(*))::text FROM cs_internal.outbox'),
	'truetruetruetrue', 'each has one number and one key');
is(sql("SELECT count(*) FROM cs_internal.alert_event e FULL JOIN (SELECT (payload ->> 'alert_id')::bigint AS alert_id, payload ->> 'to_state' AS to_state, at,"
	. " row_number() OVER (PARTITION BY payload ->> 'alert_id' ORDER BY seq) AS n FROM cs_internal.outbox WHERE event = 'alert') o"
	. " ON o.alert_id = e.alert_id AND o.n = (SELECT count(*) FROM cs_internal.alert_event b WHERE b.alert_id = e.alert_id AND b.id <= e.id)"
	. " WHERE o.to_state IS DISTINCT FROM e.to_state OR o.at IS DISTINCT FROM e.at"), '0', 'every alert event is there once, in order');
is(sql("SELECT count(*) FROM (SELECT DISTINCT ON (customer_id, payload ->> 'dimension', payload ->> 'segment') customer_id, payload ->> 'dimension' AS dimension,"
	. " payload ->> 'segment' AS segment, payload ->> 'action' AS action FROM cs_internal.outbox WHERE event = 'segment'"
	. " ORDER BY customer_id, payload ->> 'dimension', payload ->> 'segment', seq DESC) o"
	. " FULL JOIN (SELECT customer_id, dimension, segment FROM cs_internal.membership WHERE valid_to IS NULL) m USING (customer_id, dimension, segment)"
	. " WHERE (o.action IS NOT DISTINCT FROM 'enter') <> (m IS NOT NULL)"), '0', 'who replays it knows who is in which segment');
$node->stop;
done_testing();
