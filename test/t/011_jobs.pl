# Jobs: kinds, retries, timeouts, crashes, roles. How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

require "$FindBin::Bin/../lib/server.pl";

our $node = PostgreSQL::Test::Cluster->new('jobs');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'cs_ext'
max_worker_processes = 16
restart_after_crash = on
log_statement = none
CONF
$node->start;
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION cs_ext;
CREATE ROLE runner LOGIN;
CREATE ROLE worker_role LOGIN;
CREATE ROLE writer LOGIN;
CREATE ROLE boss LOGIN SUPERUSER;
INSERT INTO cs.policy (run_as, time_zone, currency) VALUES ('runner', 'UTC', 'EUR');
SELECT cs_internal.grant_definer('runner');
GRANT runner TO writer;
CREATE TABLE public.log (who text, what text, at timestamptz DEFAULT clock_timestamp());
GRANT INSERT, SELECT ON public.log TO worker_role;
SQL

# Fails with this SQLSTATE, as this role.
sub refused
{
	my ($role, $query, $state, $name) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSET ROLE $role;\n$query");
	like($err, qr/ERROR:  $state:/, $name);
}

# --- kind sql ---------------------------------------------------------------------

sql(<<'SQL');
INSERT INTO cs.job (name, kind, every, command, run_as) VALUES
	('writes', 'sql', '1 second', $$INSERT INTO public.log (who, what) VALUES (current_user, 'first');
		INSERT INTO public.log (who, what) VALUES (session_user, 'second')$$, 'worker_role');
SQL
becomes(q(SELECT count(*) > 1 FROM cs.job_run WHERE job = 'writes' AND status = 'succeeded'), 'a job of kind sql runs by its schedule');
is(sql('SELECT string_agg(DISTINCT who || what, \',\' ORDER BY who || what) FROM public.log'),
	'worker_rolefirst,worker_rolesecond', 'both statements ran as run_as');
sql(q(SELECT cs.pause_job('writes')));
becomes(q(SELECT s.schedule ~ 'f$' AND s.run_id IS NULL FROM cs_internal.job_state s WHERE s.job = 'writes'), 'paused: seen by the worker, no run is under way');
is(sql(q(SELECT last_status || '|' || what_to_do FROM cs.job_status WHERE job = 'writes')),
	'succeeded|paused: cs.resume_job() to go on', 'job_status says so');
my $done = q(SELECT count(*) FROM cs.job_run WHERE job = 'writes' AND status = 'succeeded');
my $runs = sql($done);
sql('SELECT pg_sleep(2.2)');    # what must not happen can only be waited for
is(sql($done), $runs, 'a paused job does not run');
is(sql(q(SELECT cs.run_job('writes'))), 'queued', 'run_job queues it');
becomes("SELECT ($done) = $runs + 1", 'and it runs once');

# --- errors: recorded, tried again, no harm to others --------------------------------

sql(<<'SQL');
INSERT INTO cs.job (name, kind, every, command, run_as, max_retries, retry_after) VALUES
	('fails', 'sql', '1 hour', 'SELECT 1 / 0', 'worker_role', 2, '0.3 seconds'),
	('forbidden', 'sql', NULL, 'SELECT * FROM pg_authid', 'worker_role', 0, '1 second'),
	('resets', 'sql', NULL, 'RESET ROLE; RESET SESSION AUTHORIZATION; SELECT * FROM pg_authid', 'worker_role', 0, '1 second'),
	('commits', 'sql', NULL, 'CALL public.commits()', 'worker_role', 0, '1 second'),
	('begins', 'sql', NULL, 'BEGIN', 'worker_role', 0, '1 second');
CREATE PROCEDURE public.commits() LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.log (who, what) VALUES (current_user, 'kept');
	COMMIT;
	RAISE EXCEPTION 'after the commit';
END $$;
SQL
sql(q(SELECT cs.run_job(name) FROM cs.job WHERE name IN ('fails', 'forbidden', 'resets', 'commits', 'begins')));
becomes(q(SELECT count(*) = 3 FROM cs.job_run WHERE job = 'fails' AND status = 'failed'), 'a failing job is tried again max_retries times');
is(sql(q(SELECT string_agg(attempt || error, ',' ORDER BY id) FROM cs.job_run WHERE job = 'fails')),
	'1division by zero,2division by zero,3division by zero', 'each try is recorded with its error');
becomes(q(SELECT failures = 3 AND next_run_at > now() + interval '10 minutes' FROM cs.job_status WHERE job = 'fails'),
	'then it waits for its next slot');
becomes(q(SELECT count(*) = 4 FROM cs.job_run WHERE job IN ('forbidden', 'resets', 'commits', 'begins') AND status = 'failed'), 'the others ended too');
is(sql(q(SELECT string_agg(job || ': ' || error, '; ' ORDER BY job) FROM cs.job_run WHERE job IN ('forbidden', 'resets', 'commits', 'begins'))),
	'begins: transaction statements are not allowed in a job; commits: after the commit; '
	. 'forbidden: permission denied for table pg_authid; resets: permission denied for table pg_authid', 'each with its error');
is(sql(q(SELECT count(*) FROM public.log WHERE what = 'kept')), '1', 'a procedure may commit in a job');

# --- timeout, overlap, cancel ---------------------------------------------------------------

sql(<<'SQL');
INSERT INTO cs.job (name, kind, every, command, run_as, max_runtime, max_retries) VALUES
	('long', 'sql', '1 hour', 'SELECT pg_sleep(100)', 'worker_role', '1 second', 0),
	('overlaps', 'sql', '1 second', 'SELECT pg_sleep(3)', 'worker_role', '1 minute', 0),
	('cancelled', 'sql', NULL, 'SELECT pg_sleep(100)', 'worker_role', '1 minute', 0);
SELECT cs.run_job('long'), cs.run_job('cancelled');
SQL
becomes(q(SELECT error = 'ran longer than max_runtime' FROM cs.job_run WHERE job = 'long' AND status = 'failed'), 'max_runtime ends a run');
becomes(q(SELECT count(*) > 0 FROM cs.job_run WHERE job = 'overlaps' AND status = 'skipped' AND error ~ 'still active'), 'overlap: the slot is skipped and recorded');
is(sql(q(SELECT count(*) FROM cs.job_run WHERE job = 'overlaps' AND status = 'running')) <= 1, 1, 'never two at a time');
sql(q(DELETE FROM cs.job WHERE name = 'overlaps'));
becomes(q(SELECT NOT EXISTS (SELECT FROM cs.job_run WHERE job = 'overlaps' AND status IN ('running', 'crashed'))), 'a job deleted while it runs leaves an ended run');
becomes(q(SELECT status = 'running' FROM cs.job_run WHERE job = 'cancelled'), 'the view shows running');
sql(q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'cs_ext job' AND query ~ 'pg_sleep'));
becomes(q(SELECT status = 'cancelled' AND error ~ 'canceling' FROM cs.job_run WHERE job = 'cancelled'), 'a run can be cancelled');

# --- roles --------------------------------------------------------------------------------------

refused('writer', q(INSERT INTO cs.job (name, kind, command, run_as) VALUES ('x', 'sql', 'SELECT 1', 'worker_role')), '42501', 'run_as one is no member of');
refused('postgres', q(INSERT INTO cs.job (name, kind, command, run_as) VALUES ('x', 'sql', 'SELECT 1', 'boss')), '42501', 'run_as a superuser');
refused('postgres', q(INSERT INTO cs.job (name, kind, command, run_as) VALUES ('x', 'sql', 'SELECT 1', 'worker_rol')), '42704', 'run_as unknown');
refused('writer', q(UPDATE cs.job SET command = 'SELECT 2' WHERE name = 'writes'), '42501', 'changing the command of another role\'s job');
refused('worker_role', q(INSERT INTO cs.job (name, kind) VALUES ('x', 'retention')), '42501', 'a role without rights');
sql('CREATE ROLE passing LOGIN');
sql(q(INSERT INTO cs.job (name, kind, every, command, run_as) VALUES ('orphan', 'sql', '1 hour', 'SELECT 1', 'passing')));
sql('DROP ROLE passing');
sql(q(SELECT cs.run_job('orphan')));
becomes(q(SELECT last_status = 'failed' AND error ~ 'role "passing" does not exist' FROM cs.job_status WHERE job = 'orphan'), 'a dropped role fails its jobs with a clear word');
sql('ALTER ROLE worker_role NOLOGIN');
sql(q(SELECT cs.run_job('writes')));
becomes(q(SELECT last_status = 'failed' AND error ~ 'may not log in' FROM cs.job_status WHERE job = 'writes'), 'so does one that may not log in');
sql('ALTER ROLE worker_role LOGIN');

# --- missed ------------------------------------------------------------------------------------------

sql(<<'SQL');
INSERT INTO cs.job (name, kind, every, missed) VALUES ('once', 'retention', '1 day', 'run_once'), ('skips', 'retention', '1 day', 'skip');
SQL
becomes(q(SELECT count(*) = 2 FROM cs_internal.job_state WHERE job IN ('once', 'skips') AND next_run_at IS NOT NULL), 'both are planned');
sql(q(UPDATE cs_internal.job_state SET anchor = now() - interval '3 days 1 hour', last_slot = NULL WHERE job IN ('once', 'skips');
	UPDATE cs.job SET description = 'look' WHERE name = 'once'));
becomes(q(SELECT count(*) = 2 FROM cs.job_run WHERE job IN ('once', 'skips')), 'missed slots are noticed');
is(sql(q(SELECT string_agg(job || ' ' || status, ',' ORDER BY job) FROM cs.job_run WHERE job IN ('once', 'skips'))),
	'once succeeded,skips skipped', 'run_once makes one run of three missed slots, skip none');

# --- crash ---------------------------------------------------------------------------------------------

sql(q(INSERT INTO cs.job (name, kind, every, command, run_as) VALUES ('crashes', 'sql', '1 hour', 'SELECT pg_sleep(100)', 'worker_role')));
sql(q(SELECT cs.run_job('crashes')));
becomes(q(SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'cs_ext job' AND query ~ 'pg_sleep'), 'the run that is to crash is under way');
my $pid = sql(q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'cs_ext job' AND query ~ 'pg_sleep'));
kill 9, $pid;
ok(wait_for(sub {
		my ($status, $out) = $node->psql('postgres', q(SELECT last_status FROM cs.job_status WHERE job = 'crashes'));
		return defined $out && $out eq 'crashed';
	}), 'kill -9 of the process: the run counts as crashed');
becomes(q(SELECT what_to_do ~ 'crashed' AND next_run_at > now() + interval '3 minutes' FROM cs.job_status WHERE job = 'crashes'), 'it rests before it runs again');
sql(q(SELECT cs.run_job('fails')));
becomes(q(SELECT count(*) = 6 FROM cs.job_run WHERE job = 'fails'), 'other jobs go on');

$node->stop;
done_testing();
