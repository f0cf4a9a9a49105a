# Runs: concurrency groups, cancelling, who may run what and see it, history that
# stays bounded. How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

require "$FindBin::Bin/../lib/server.pl";

our $node = preloaded('runs', "max_worker_processes = 16\n");

sub as
{
	my ($role, $query) = @_;
	return $node->safe_psql('postgres', $query, extra_params => [ '-U', $role ]);
}
sql(<<'SQL');
CREATE EXTENSION cs_ext;
CREATE ROLE runner LOGIN;
CREATE ROLE reports LOGIN;
CREATE ROLE secret LOGIN;
CREATE ROLE writer LOGIN;
CREATE ROLE reader LOGIN;
GRANT reports TO writer;
INSERT INTO cs.policy (run_as, time_zone, currency) VALUES ('runner', 'UTC', 'EUR');
SELECT cs_internal.grant_definer('runner');
SELECT cs.grant_reader('reader'), cs.grant_reader('reports'), cs.grant_admin('writer');
SQL

# --- a group runs one at a time ----------------------------------------------------

sql(<<'SQL');
CREATE TABLE public.spans (job text, began timestamptz, ended timestamptz);
GRANT INSERT ON public.spans TO reports;
CREATE PROCEDURE public.span(job text) LANGUAGE plpgsql AS $$
DECLARE
	began timestamptz := clock_timestamp();
BEGIN
	PERFORM pg_sleep(0.4);
	INSERT INTO public.spans VALUES (job, began, clock_timestamp());
END $$;
INSERT INTO cs.job (name, kind, command, run_as, concurrency_group)
SELECT 'g' || i, 'sql', format('CALL public.span(%L)', 'g' || i), 'reports', 'heavy' FROM generate_series(1, 4) i;
INSERT INTO cs.job (name, kind, command, run_as) SELECT 'f' || i, 'sql', format('CALL public.span(%L)', 'f' || i), 'reports' FROM generate_series(1, 2) i;
INSERT INTO cs.job (name, kind, concurrency_group) VALUES ('own', 'retention', 'heavy');
SELECT cs.run_job(name) FROM cs.job;
SQL
becomes(q(SELECT count(*) = 7 FROM cs.job_run WHERE status = 'succeeded' AND job <> 'refresh'), 'seven jobs asked for at once all run');
is(sql(q(SELECT count(*) FROM public.spans a JOIN public.spans b ON a.job < b.job AND a.began < b.ended AND b.began < a.ended AND a.job ~ 'g' AND b.job ~ 'g')), '0',
	'those of one concurrency_group one after the other');
is(sql(q(SELECT count(*) FROM public.spans a JOIN cs.job_run r ON r.job = 'own' AND a.job ~ 'g' AND a.began < r.ended_at AND r.started_at < a.ended)), '0',
	'also beside a kind of our own');
# --- asked for while the worker takes in a new schedule: the request stays -----------------------

sql(q(INSERT INTO cs.job (name, kind, every) VALUES ('raced', 'retention', '30 days')));
becomes(q(SELECT count(*) = 1 FROM cs_internal.job_state WHERE job = 'raced' AND next_run_at IS NOT NULL), 'a job is taken in');
my $asker = $node->background_psql('postgres');
$asker->query_safe(q(BEGIN; SELECT FROM cs_internal.job_state WHERE job = 'raced' FOR UPDATE));
sql(q(UPDATE cs.job SET every = '31 days' WHERE name = 'raced'));
becomes(q(SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'cs_ext worker' AND wait_event_type = 'Lock'), 'its new schedule waits');
$asker->query_safe(q(SELECT cs.run_job('raced')));
$asker->query_safe('COMMIT');
$asker->quit;
becomes(q(SELECT count(*) = 1 FROM cs_internal.job_run WHERE job = 'raced' AND status = 'succeeded'), 'who asked meanwhile gets his run');
sql(q(DELETE FROM cs.job WHERE name = 'raced'));

sql(q(INSERT INTO cs.job (name, kind, command, run_as, concurrency_group) VALUES ('long', 'sql', 'SELECT pg_sleep(300)', 'reports', 'heavy')));
sql(q(SELECT cs.run_job('long')));
becomes(q(SELECT status = 'running' FROM cs.job_run WHERE job = 'long'), 'a long one of the group runs');
sql(q(SELECT cs.run_job('g1')));
becomes(q(SELECT what_to_do = 'wait: job "long" of its concurrency_group runs' FROM cs.job_status WHERE job = 'g1'), 'job_status says for whom another waits');

# --- what a DBA asks --------------------------------------------------------------------

is(sql(q(SELECT last_status || ' ' || run_as || ' ' || (what_to_do = format('wait: it runs; SELECT cs.cancel_run(%s) to stop it', last_run)) FROM cs.job_status WHERE job = 'long')),
	'running reports true', 'job_status: that it runs, as whom, and how to stop it');
is(sql(q(SELECT process || ' ' || run_as || ' ' || activity || ' ' || job || ' ' || (since > now() - interval '1 minute') FROM cs.workers() WHERE process = 'job')),
	'job reports long long true', 'workers(): the process, as whom, since when');

# --- cancel ---------------------------------------------------------------------------------

is(sql(q(SELECT cs.cancel_run(last_run) FROM cs.job_status WHERE job = 'long')), 't', 'cancel_run asks it to stop');
becomes(q(SELECT status = 'cancelled' FROM cs.job_run WHERE job = 'long'), 'the run is cancelled');
becomes(q(SELECT count(*) = 2 FROM cs.job_run WHERE job = 'g1' AND status = 'succeeded'), 'who waited for it runs');
is(sql(q(SELECT failures FROM cs.job_status WHERE job = 'long')), '0', 'which is no failure');
is(sql(q(SELECT cs.cancel_run(last_run) FROM cs.job_status WHERE job = 'long')), 'f', 'nothing to cancel any more');
my ($status, $out, $err) = $node->psql('postgres', 'SELECT cs.cancel_run(987654321)');
like($err, qr/unknown run 987654321/, 'an unknown run is refused');

# A job of a kind of our own, in the worker: held up by a lock on what it thins.
my $holder = $node->background_psql('postgres', on_error_stop => 0);
$holder->query_safe('BEGIN; LOCK TABLE cs_internal.metric_history IN ACCESS EXCLUSIVE MODE');
sql(q(SELECT cs.run_job('own')));
becomes(q(SELECT count(*) = 1 FROM cs.job_run WHERE job = 'own' AND status = 'running'), 'a run of our own kind waits for a lock');
is(sql(q(SELECT cs.cancel_run(last_run) FROM cs.job_status WHERE job = 'own')), 't', 'cancel_run reaches it');
becomes(q(SELECT last_status = 'cancelled' FROM cs.job_status WHERE job = 'own'), 'it is cancelled, and the worker goes on');
$holder->query_safe('COMMIT');
$holder->quit;
sql(q(SELECT cs.run_job('own')));
becomes(q(SELECT last_status = 'succeeded' FROM cs.job_status WHERE job = 'own'), 'and can run again');

# --- membership, at each run -------------------------------------------------------------------

as('writer', q(INSERT INTO cs.job (name, kind, command, run_as) VALUES ('mine', 'sql', 'SELECT 1', 'reports')));
sql(q(SELECT cs.run_job('mine')));
becomes(q(SELECT last_status = 'succeeded' FROM cs.job_status WHERE job = 'mine'), 'a job written by a member of its role runs');
sql('REVOKE reports FROM writer');
sql(q(SELECT cs.run_job('mine')));
becomes(q(SELECT error = 'role "writer", which wrote this job, is no member of role "reports" any more' FROM cs.job_status WHERE job = 'mine'),
	'not any more when that membership was taken away');
sql(q(SELECT cs.run_job('g1')));
becomes(q(SELECT count(*) = 3 FROM cs.job_run WHERE job = 'g1' AND status = 'succeeded'), 'jobs of the same role by others go on');
sql(q(UPDATE cs.job SET description = 'taken over' WHERE name = 'mine'));
sql(q(SELECT cs.run_job('mine')));
becomes(q(SELECT last_status = 'succeeded' FROM cs.job_status WHERE job = 'mine'), 'written again by one who may, it runs');
is(sql(q(SELECT string_agg(job || ' ' || writer, ',') FROM cs_internal.job_writer WHERE job = 'mine')), 'mine postgres', 'its writer is known by name');
sql(q(DELETE FROM cs.job WHERE name = 'mine'));
is(sql(q(SELECT count(*) FROM cs_internal.job_writer WHERE job = 'mine')), '0', 'and forgotten with it');

# --- who sees what ----------------------------------------------------------------------------------

sql(q(INSERT INTO cs.job (name, kind, command, run_as, max_retries) VALUES ('hush', 'sql', $$SELECT 'the salary is 12345'::int$$, 'secret', 0)));
sql(q(SELECT cs.run_job('hush')));
becomes(q(SELECT last_status = 'failed' FROM cs.job_status WHERE job = 'hush'), 'a job fails with an error that quotes data');
is(as('reader', q(SELECT count(*) FROM cs.job_run WHERE job = 'hush' OR error ~ 'salary')), '0', 'a reader does not see the run');
is(as('reader', q(SELECT count(*) FROM cs.job_status WHERE job = 'hush' OR error ~ 'salary')), '0', 'nor the status');
is(as('reader', q(SELECT count(*) > 0 FROM cs.job_run WHERE job = 'own')), 't', 'but those of our own kinds');
is(as('reports', q(SELECT string_agg(DISTINCT job, ',' ORDER BY job) FROM cs.job_run WHERE run_as IS NOT NULL AND job < 'g2')), 'f1,f2,g1', 'the role itself sees its runs');
is(as('reports', q(SELECT count(*) FROM cs.job_status WHERE job = 'hush')), '0', 'and not those of another');
is(as('writer', q(SELECT count(*) FROM cs.job_run WHERE job = 'hush')), '1', 'a member of policy.run_as sees all');
is(as('reader', q(SELECT count(*) FROM cs.job_run WHERE id IN (SELECT id FROM cs.job_run) AND (SELECT 1 / (error IS NULL OR error !~ 'salary')::int) = 1)) > 0, 1,
	'a filter of the reader runs behind the barrier');

# --- kind check -----------------------------------------------------------------------------------------

sql(q(INSERT INTO cs.job (name, kind) VALUES ('audit', 'check')));
sql(q(SELECT cs.run_job('audit')));
becomes(q(SELECT last_status = 'succeeded' FROM cs.job_status WHERE job = 'audit'), 'a job of kind check runs, and finds nothing');
sql(q(SET check_function_bodies = off; CREATE OR REPLACE FUNCTION cs_internal."check"(since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL)
	RETURNS TABLE (invariant text, period text, customer_id text, expected text, got text, detail text) LANGUAGE sql AS $$
	SELECT 'balance', '2026-01', '7', '10', '11', 'on purpose' UNION ALL SELECT 'balance', '2026-02', '8', '10', '11', '' $$));
sql(q(SELECT cs.run_job('audit')));
becomes(q(SELECT error = '2 violations, e.g. balance 2026-01 7: expected 10, got 11' AND failures = 1 FROM cs.job_status WHERE job = 'audit'),
	'a violation fails the run, and says which');
sql(q(DELETE FROM cs.job WHERE name = 'audit'));

# --- history stays bounded -----------------------------------------------------------------------------

sql(q(INSERT INTO cs_internal.job_run (job, status, started_at, ended_at) SELECT 'own', 'succeeded', now() - i * interval '1 minute', now() FROM generate_series(1, 1500) i));
sql(q(INSERT INTO cs_internal.job_run (job, status, started_at, ended_at) SELECT 'gone', 'succeeded', now() - interval '91 days', now() FROM generate_series(1, 30) i));
sql(q(UPDATE cs.job SET every = '1 second' WHERE name = 'own'));
becomes(q(SELECT count(*) <= 1001 FROM cs_internal.job_run WHERE job = 'own'), 'a thousand runs of a job are kept, however often it runs');
cmp_ok(sql(q(SELECT count(*) FROM cs_internal.job_run WHERE job = 'own')), '>', 900, 'and no fewer');
sql(q(DELETE FROM cs.job WHERE name = 'own'));
sql(q(SELECT cs_internal.note_refresh(now() - interval '10 minutes', 1, NULL)));
is(sql(q(SELECT count(*) FROM cs_internal.job_run WHERE job = 'gone')), '0', 'runs of a job that is gone leave after ninety days');
sql(q(SELECT cs_internal.note_refresh(clock_timestamp(), 1, NULL) FROM generate_series(1, 500)));
cmp_ok(sql(q(SELECT count(*) FROM cs_internal.job_run WHERE job = 'refresh' AND started_at > now() - interval '2 minutes')), '<', 8,
	'five hundred refreshes in a moment are a row or two');
cmp_ok(sql(q(SELECT sum(runs) FROM cs.job_run WHERE job = 'refresh')), '>=', 501, 'that count them');
sql(q(SELECT cs_internal.job_skip('f1', now() + i * interval '1 second', 'the run before was still active') FROM generate_series(1, 300) i));
is(sql(q(SELECT count(*) || ' ' || max(runs) FROM cs.job_run WHERE job = 'f1' AND status = 'skipped')), '1 300', 'slots skipped in a row are one row');
is(sql(q(SELECT skipped || ' ' || skipped_why FROM cs.job_status WHERE job = 'f1')), '300 the run before was still active', 'and job_status counts them');

$node->stop;
done_testing();
