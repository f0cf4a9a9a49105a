# A source that cannot be read: it is tried again with a growing pause, holds up
# nothing else, and keeps no worker busy; mended, it is read by itself, or at once
# by who calls for a refresh. How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

require "$FindBin::Bin/../lib/server.pl";

our $node = preloaded('unreadable');

support_company(10);
sql(<<'SQL');
CREATE TABLE public.surveys (customer_id int, at timestamptz, kind text, score int);
SELECT count(*) FROM cs.add_source('surveys', 'survey', 'public.surveys', '{"customer_id": "customer_id", "at": "at", "kind": "kind", "score": "score"}');
SQL
my $quiet = quiet();
becomes("SELECT count(*) = 10 AND $quiet FROM cs_internal.state", 'set up and evaluated');
becomes(q(SELECT pid IS NULL FROM cs.workers() WHERE process = 'worker' AND database = 'postgres'), 'the worker has left');

my $refreshes = q(SELECT coalesce(sum(runs), 0) FROM cs.job_run WHERE job = 'refresh');
my $state = q(SELECT %s FROM cs_internal.source_state WHERE source = 'surveys');
sub state_of { return sprintf $state, $_[0] }

my $before = sql($refreshes);
sql(q(REVOKE SELECT ON public.surveys FROM cs_ext_run; INSERT INTO public.surveys VALUES (3, now() - interval '1 day', 'nps', 9)));
becomes(state_of('needs_scan AND failures >= 1 AND error IS NOT NULL'), 'it cannot be read');
like(sql(q(SELECT error FROM cs.source_status WHERE source = 'surveys')), qr/may not read/, 'source_status says why');
becomes(state_of('failures >= 3'), 'it is tried again');
my $tried = sql($refreshes) - $before;
my $failures = sql(state_of('failures'));
cmp_ok($tried, '<=', $failures + 2, "no more refreshes than tries: $tried, $failures");
cmp_ok(sql(state_of('round(extract(epoch FROM retry_at - clock_timestamp()))')), '>', 2, 'the pauses grow');
becomes(q(SELECT pid IS NULL FROM cs.workers() WHERE process = 'worker' AND database = 'postgres'), 'while it rests no worker stays');

# The others go on, and do not make it be tried more often.
($before, $failures) = (sql($refreshes), sql(state_of('failures')));
for my $id (1 .. 5)
{
	sql("INSERT INTO public.tickets VALUES ($id, $id, now() - interval '1 minute', NULL, true)");
	becomes("SELECT count(*) = 1 FROM cs_internal.alert WHERE rule = 'ticket_escalated' AND key = '$id'", "other facts go on: $id");
}
cmp_ok(sql($refreshes) - $before, '>=', 3, 'in refreshes of their own');
cmp_ok(sql(state_of('failures')), '<=', $failures + 1, 'it was not tried by each of them');

# Mended: what was written meanwhile is read.
sql('GRANT SELECT ON public.surveys TO cs_ext_run');
becomes(state_of('NOT needs_scan AND error IS NULL'), 'mended, it is read by itself');
my $nps = q(SELECT count(*) = 1 FROM cs.customer_metric WHERE customer_id = '3' AND metric = 'nps_latest' AND value = 9);
becomes($nps, 'with what was written meanwhile');
sql(q(REVOKE SELECT ON public.surveys FROM cs_ext_run; INSERT INTO public.surveys VALUES (4, now() - interval '1 day', 'nps', 9)));
becomes(state_of('failures >= 4 AND retry_at > clock_timestamp()'), 'unreadable again: it rests as long as it did, and longer');
sql('GRANT SELECT ON public.surveys TO cs_ext_run');
sql('CALL cs.refresh()');
is(sql(state_of('needs_scan')), 'f', 'mended, it is read at once by who calls for a refresh');
$node->stop;
done_testing();
