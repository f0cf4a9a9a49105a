# Clients of the kind applications have (Node.js with pg, Python with psycopg)
# poll and listen at once, have their connections cut and are killed, come back,
# and see every change of every alert exactly once, in order of seq.
# How to run: see 010_worker.pl. Takes npm's package pg from the registry that
# npm is set up with; without that the Node.js half is skipped.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

require "$FindBin::Bin/../lib/server.pl";

my $dir = PostgreSQL::Test::Utils::tempdir();
my $modules = "$dir/node";
mkdir $modules;
my $npm = system("cd '$modules' && npm install --no-audit --no-fund --silent pg\@8 >'$dir/npm.log' 2>&1") == 0;
my $psycopg = system("/usr/bin/python3 -c 'import psycopg' 2>/dev/null") == 0;
$ENV{NODE_PATH} = "$modules/node_modules";

my %command;
$command{js} = ['node', "$FindBin::Bin/../clients/poller.js"] if $npm;
$command{py} = ['/usr/bin/python3', "$FindBin::Bin/../clients/poller.py"] if $psycopg;
plan skip_all => 'neither the npm package pg nor psycopg is to be had' unless %command;

my $seed = $ENV{CS_EXT_SEED} // int(rand(1_000_000));
diag("seed $seed");
srand($seed);

our $node = PostgreSQL::Test::Cluster->new('clients');
$node->init;
$node->start;
sql(<<'SQL');
CREATE EXTENSION cs_ext;
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL);
INSERT INTO cs.metric (name, source, expression) VALUES ('x', 'ledger', 'mrr');
INSERT INTO cs_internal.customer (customer_id, from_customer) SELECT 'c' || n, true FROM generate_series(1, 40) n;
INSERT INTO cs_internal.state (customer_id, "values") SELECT 'c' || n, '{1}' FROM generate_series(1, 40) n;
INSERT INTO cs.alert_rule (name, rule, reopen_within, cooldown) VALUES ('low', 'x < 5', '0', '0'), ('lower', 'x < 2', '1 day', '0');
-- each session has its own half of the customers
CREATE TABLE public.stop (at_turn integer);
CREATE PROCEDURE public.live(seed integer, turns integer) LANGUAGE plpgsql AS $$
DECLARE
	few text[];
	a bigint;
BEGIN
	PERFORM setseed(seed / 1000000.0);
	FOR i IN 1 .. turns LOOP
		EXIT WHEN i > 100 AND EXISTS (SELECT FROM public.stop);
		PERFORM pg_sleep(0.005);
		SELECT array_agg(s.customer_id) INTO few FROM (SELECT c.customer_id FROM cs_internal.state c WHERE right(c.customer_id, 1)::integer % 2 = seed % 2 ORDER BY random() LIMIT 5) s;
		UPDATE cs_internal.state SET "values" = ARRAY[floor(random() * 10)] WHERE customer_id = ANY (few);
		PERFORM cs_internal.evaluate_alerts(few, clock_timestamp());
		IF random() < 0.3 THEN
			SELECT id INTO a FROM cs.alert WHERE state = 'open' AND right(customer_id, 1)::integer % 2 = seed % 2 ORDER BY random() LIMIT 1;
			IF a IS NOT NULL THEN PERFORM cs.ack_alert(a); END IF;
		END IF;
		IF random() < 0.1 THEN ROLLBACK; ELSE COMMIT; END IF;
	END LOOP;
END $$;
SQL

my %pid;
sub begin
{
	my ($name) = @_;
	my $pid = fork();
	die 'no process' unless defined $pid;
	if ($pid == 0)
	{
		open STDOUT, '>>', "$dir/$name.log";
		open STDERR, '>>', "$dir/$name.log";
		exec @{ $command{$name} }, $node->host, $node->port, 'postgres', "$dir/$name" or exit 127;
	}
	$pid{$name} = $pid;
	return;
}

# done CONDITION: within two minutes
sub done
{
	my ($condition) = @_;
	for (1 .. 2400)
	{
		return 1 if $condition->();
		usleep(50_000);
	}
	return 0;
}

begin($_) for sort keys %command;
my @writers = map { my $s = $node->background_psql('postgres'); $s->query_until(qr/begun/, "\\echo begun\nCALL public.live(" . ($seed + $_) . ", 20000);\n"); $s } 1 .. 2;
my ($cut, $killed) = (0, 0);
my $working = q(SELECT count(*) FROM pg_stat_activity WHERE query ~ '^CALL public.live' AND state = 'active');
for my $turn (1 .. 8)
{
	usleep(int(rand(300_000)));
	for my $name (sort keys %command)
	{
		# cut while it is connected, so that each turn is one
		my $cuts = $cut;
		ok(done(sub { return ($cut += sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'poller_$name'")) > $cuts }),
			"$name: cut off in turn $turn");
		next unless $turn % 4 == 0;
		kill 9, $pid{$name};
		waitpid($pid{$name}, 0);
		$killed++;
		begin($name);
	}
}
for my $name (sort keys %command)
{
	my $before = -s "$dir/$name" // 0;
	ok(done(sub { return (-s "$dir/$name" // 0) > $before && -s "$dir/$name.hints" }), "$name: goes on");
}
sql('INSERT INTO public.stop VALUES (1)');
ok(done(sub { return sql($working) eq '0' }), 'the writers are through');
$_->quit for @writers;
cmp_ok($cut, '>', 3, "connections were cut ($cut)");
cmp_ok($killed, '>', 1, "clients were killed ($killed)");

sql('SELECT count(*) FROM cs.alert_changes(0, 1)');    # what nobody numbered yet
my $last = sql('SELECT max(seq) FROM cs.alert_event');
cmp_ok($last, '>', 200, "there were changes ($last)");
is(sql('SELECT count(*) FROM cs.alert_event'), $last, 'all numbered');
for my $name (sort keys %command)
{
	open my $stop, '>', "$dir/$name.stop.new" or die;
	print $stop "$last\n";
	close $stop;
	rename "$dir/$name.stop.new", "$dir/$name.stop";
	ok(done(sub { return waitpid($pid{$name}, 1) != 0 }), "$name: comes to the end");
	my @seen = split /\n/, slurp_file("$dir/$name");
	is(scalar @seen, $last, "$name: sees as many changes as there are");
	is(join(' ', @seen), join(' ', 1 .. $last), "$name: each once, in order");
	ok(-s "$dir/$name.hints", "$name: was notified meanwhile");
	ok(-s "$dir/$name.cuts", "$name: was cut off meanwhile");
}
$node->stop;
done_testing();
