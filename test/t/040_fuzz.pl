# A few seconds of mutated values for the functions of cs.usage: no crash, and
# what is accepted comes back unchanged. test/sanitize does it longer and under
# sanitizers. The seed is printed; CS_EXT_SEED=n repeats it, CS_EXT_FUZZ_SECONDS=n
# is how long. How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{CS_EXT_SEED} // int(rand(1_000_000));
my $seconds = $ENV{CS_EXT_FUZZ_SECONDS} // 5;
diag("seed $seed");

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION cs_ext');

my $library = $node->basedir . '/fuzz_usage.so';
my ($include) = run_command([ 'pg_config', '--includedir-server' ]);
chomp $include;
command_ok([ 'gcc', '-shared', '-fPIC', '-O1', '-g', "-I$include", '-o', $library, "$FindBin::RealBin/../fuzz/fuzz_usage.c" ], 'the fuzzer is built');
my ($status, $out, $err) = $node->psql('postgres', slurp_file("$FindBin::RealBin/../fuzz/fuzz_usage.sql"),
	extra_params => [ '-v', "library=$library", '-v', "seed=$seed", '-v', "seconds=$seconds" ]);
is($err, '', 'nothing went wrong');
like($out, qr/^seed $seed: \d{3,} inputs, \d{2,} accepted, \d+ reads, \d+ errors raised$/, "fuzzed: $out");
is($node->safe_psql('postgres', 'SELECT 1'), '1', 'the server is still there');
$node->stop;
done_testing();
