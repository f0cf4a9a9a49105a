#!/usr/bin/perl
# tap.pl NAME STATUS < output: counts the points of one TAP file.
#
# Prints "passed failed skipped" to stdout and to stderr what went wrong. A
# program that ends with an error, has no plan or runs another number of
# points than planned is one more failure.
use strict;
use warnings;

my ($name, $status) = @ARGV;
my ($passed, $failed, $skipped, $plan, $ran) = (0, 0, 0, undef, 0);
my (@bad, @all, $diag, $seed);

while (my $line = <STDIN>)
{
	chomp $line;
	push @all, $line;
	if ($line =~ /^(not )?ok\b(.*)$/)
	{
		my ($not, $rest) = ($1, $2);
		$ran++;
		$diag = 0;
		if ($rest =~ /#\s*skip/i) { $skipped++; }
		elsif ($rest =~ /#\s*todo/i) { $passed++; }
		elsif ($not) { $failed++; $diag = 1; push @bad, $line; }
		else { $passed++; }
	}
	elsif ($line =~ /^1\.\.(\d+)(?:\s*#\s*skip\S*\s*(.*))?/i)
	{
		$plan = $1;
		$skipped++ if $1 == 0;
	}
	elsif ($line =~ /^Bail out!/) { push @bad, $line; }
	elsif ($line =~ /^# seed/) { $seed = $line; }
	elsif ($diag && $line =~ /^\s*#/) { push @bad, $line; }
	elsif ($line =~ /(?:ERROR|FATAL|PANIC):/) { push @bad, $line; $diag = 0; }
}

my $odd;
if ($status == 124) { $odd = 'took too long and was stopped'; }
elsif ($status != 0 && $failed == 0) { $odd = "ended with status $status"; }
elsif (!defined $plan) { $odd = 'has no plan'; }
elsif ($plan != $ran) { $odd = "planned $plan points and ran $ran"; }
if (defined $odd)
{
	$failed++;
	push @bad, "$name $odd; its last lines:", @all > 15 ? @all[-15 .. -1] : @all;
}
unshift @bad, $seed if @bad && defined $seed;
print STDERR "    $_\n" for @bad;
print "$passed $failed $skipped\n";
