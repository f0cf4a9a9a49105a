# Capture by window and by scan beside a writer: what comes between a look and the
# reading of what the look made pending, and is gone at the next look, does not
# stay. The reading is held up by the customer's lock; the worker does it without
# a look.
# How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

require "$FindBin::Bin/../lib/server.pl";

our $node = preloaded('looks', "max_worker_processes = 16\ncs_ext.scan_interval = '1h'\n");
sql(<<'SQL');
CREATE TABLE public.customers (id text PRIMARY KEY, name text);
CREATE TABLE public.events (customer_id text, at timestamptz, n integer);
CREATE INDEX ON public.events (at);
INSERT INTO public.customers SELECT c, 'customer ' || c FROM unnest('{a,b,c}'::text[]) c;
CREATE EXTENSION cs_ext;
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL);
SELECT count(*) FROM cs.add_source('customers', 'customer', 'public.customers', '{"customer_id": "id", "name": "name"}');
SQL
my $kept = q(SELECT string_agg(customer_id || ' ' || event || ' ' || events, ', ' ORDER BY customer_id, event) FROM cs.usage_daily);
my $pending = q(SELECT string_agg(customer_id, ',') FROM cs_internal.pending WHERE source = 'events');

# the lock of the refresher's own: class and hash of the customer
my $class = 1668509797;

foreach my $capture (qw(window scan))
{
	sql(<<SQL);
INSERT INTO public.events SELECT c, now() - interval '30 hours', 0 FROM unnest('{a,b,c}'::text[]) c;
SELECT count(*) FROM cs.add_source('events', 'usage_event', 'public.events', '{"customer_id": "customer_id", "at": "at", "event": "n::text"}', capture => '$capture');
CALL cs.refresh();
SQL
	is(sql($kept), 'a 0 1, b 0 1, c 0 1', "$capture: everybody is read");
	is(sql(q(SELECT capture FROM cs.source_status WHERE source = 'events')), $capture, "$capture: so captured");

	my $holder = $node->background_psql('postgres');
	$holder->query_safe("SELECT pg_advisory_lock($class, hashtext('b'))");
	sql(q(INSERT INTO public.events VALUES ('b', now() - interval '30 hours', 1), ('c', now() - interval '30 hours', 1)));
	sql('CALL cs.refresh()');
	is(sql($kept), 'a 0 1, b 0 1, c 0 1, c 1 1', "$capture: who is locked is left out");
	is(sql($pending), 'b', "$capture: and stays pending");
	sql('CALL cs.refresh()');
	is(sql($pending), 'b', "$capture: also after another look");

	# comes after the look
	sql(q(INSERT INTO public.events VALUES ('b', now() - interval '30 hours', 2)));
	my $looked = sql(q(SELECT looked_at FROM cs_internal.source_state WHERE source = 'events'));
	$holder->quit;
	sql("UPDATE public.customers SET name = 'of $capture' WHERE id = 'a'");    # wakes the worker
	becomes("SELECT ($pending) IS NULL", "$capture: the worker reads what was pending");
	is(sql(q(SELECT looked_at FROM cs_internal.source_state WHERE source = 'events')), $looked, "$capture: without a look");
	is(sql($kept), 'a 0 1, b 0 1, b 1 1, b 2 1, c 0 1, c 1 1', "$capture: and what came since");

	# and is gone at the next look: the rows are as the one before it found them
	sql('DELETE FROM public.events WHERE n = 2');
	sql('CALL cs.refresh()');
	is(sql($kept), 'a 0 1, b 0 1, b 1 1, c 0 1, c 1 1', "$capture: what went is seen to be gone");
	sql(<<'SQL');
SELECT cs.drop_source('events');
TRUNCATE public.events;
CALL cs.refresh();
SQL
}
$node->stop;
done_testing();
