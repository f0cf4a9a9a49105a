# turns.pl: many turns of a database worker and of the launcher, and their memory
# meanwhile.  For tests with a preloaded server; the database has a table
# public.tickets (id, opened) that is a source, with a row of id 1.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

# Kilobytes of a process that are its own; 0 when it is gone.
sub memory
{
	my ($pid) = @_;
	open my $f, '<', "/proc/$pid/smaps_rollup" or return 0;
	my $sum = 0;
	while (<$f>) { $sum += $1 if /^Private_(?:Clean|Dirty): +(\d+)/ }
	return $sum;
}

# How often a process went to sleep: at least once a turn.
sub sleeps
{
	my ($pid) = @_;
	open my $f, '<', "/proc/$pid/status" or return 0;
	while (<$f>) { return $1 if /^voluntary_ctxt_switches:\s+(\d+)/ }
	return 0;
}

# Refreshes of one change each, one after the other, until there were so many; a
# bound in seconds.  Flat: from turn 200 on (caches are filled by then, the plans
# that are made anew have been) a worker grows by less than 3 MB.
sub worker_turns
{
	my ($node, $database, $want, $bound) = @_;
	my $turns = q(SELECT coalesce(sum(runs), 0) FROM cs_internal.job_run WHERE job = 'refresh' AND status = 'succeeded');
	my $start = $node->safe_psql($database, $turns);
	my $script = $PostgreSQL::Test::Utils::tmp_check . '/touch.sql';
	open my $f, '>', $script or die $!;
	print $f "UPDATE public.tickets SET opened = opened - interval '1 microsecond' WHERE id = 1;\n\\sleep 5 ms\n";
	close $f;
	my $writer = IPC::Run::start([ 'pgbench', '-n', '-T', $bound + 60, '-f', $script, $node->connstr($database) ], '>', \my $out, '2>', \my $err);
	my ($begin, $done) = (time, 0);
	my (%first, %last);
	do
	{
		usleep(300_000);
		(my $pid, $done) = split /\|/, $node->safe_psql($database,
			"SELECT (SELECT min(pid) FROM pg_stat_activity WHERE backend_type = 'cs_ext worker' AND datname = current_database()), ($turns) - $start");
		my $m = $pid ? memory($pid) : 0;
		$first{$pid} //= { kb => $m, turns => $done } if $m && $done > 200;
		$last{$pid} = { kb => $m, turns => $done } if $m && $first{$pid};
	} while ($done < $want && time - $begin < $bound);
	$writer->signal('TERM');
	$writer->finish;
	my $took = time - $begin;
	cmp_ok($done, '>=', $want, sprintf('%d turns in %.0f s, %.1f ms a turn', $done, $took, 1000 * $took / ($done || 1)));
	cmp_ok(scalar keys %last, '>=', 1, 'by ' . scalar(keys %last) . ' workers');
	for my $pid (sort { $first{$a}{turns} <=> $first{$b}{turns} } keys %last)
	{
		my ($a, $b) = ($first{$pid}, $last{$pid});
		cmp_ok($b->{kb}, '<', $a->{kb} + 3000, sprintf('memory of a worker after turn %d: %d kB, after turn %d: %d kB', $a->{turns}, $a->{kb}, $b->{turns}, $b->{kb}));
	}
	return;
}

# Turns of the launcher: each signal makes one in which it reads its settings and
# the list of databases again.
sub launcher_turns
{
	my ($node, $want) = @_;
	my $launcher = $node->safe_psql('postgres', q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'cs_ext launcher'));
	my $turn = sub {
		my $before = sleeps($launcher);
		kill 'HUP', $launcher;
		for (1 .. 1000)
		{
			return 1 if sleeps($launcher) > $before;
			usleep(1000);
		}
		return 0;
	};
	my ($done, $begin) = (0, time);
	$done += $turn->() for 1 .. 200;
	my $before = memory($launcher);
	$done += $turn->() for 201 .. $want;
	my $after = memory($launcher);
	cmp_ok($done, '>=', 0.99 * $want, sprintf('%d turns of the launcher in %.0f s', $done, time - $begin));
	cmp_ok($after, '<', $before + 500, "its memory is flat: $before kB, then $after kB");
	is($node->safe_psql('postgres', q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'cs_ext launcher')), $launcher, 'it is the same');
	return;
}

1;
