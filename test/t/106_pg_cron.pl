# full run only (pg_cron has minutes).  Beside pg_cron: the procedures that the scheduler runs are called from
# cron.schedule as well, where cs_ext is not preloaded, and where both run at once.
# Skipped where Debian's postgresql-NN-cron is not installed. How to run: see 010_worker.pl.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

require "$FindBin::Bin/../lib/server.pl";

our $node = PostgreSQL::Test::Cluster->new('cron');
my $share = $node->config_data('--sharedir');
chomp $share;
plan skip_all => 'pg_cron is not installed' unless -e "$share/extension/pg_cron.control";
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'pg_cron'
cron.use_background_workers = on
max_worker_processes = 20
cs_ext.now = '2025-07-01 06:00:00+02'
log_statement = none
CONF
$node->start;
sql('CREATE EXTENSION pg_cron; CREATE EXTENSION cs_ext');
is($node->psql('postgres', slurp_file("$FindBin::Bin/../lib/small_company.sql")), 0, 'a company is set up');

# pg_cron has minutes; a run at the next one is soon enough for a test.
sub scheduled
{
	my ($name, $command) = @_;
	sql("SELECT cron.schedule('$name', '* * * * *', \$c\$$command\$c\$)");
}
my $done = q(SELECT count(*) FROM cron.job_run_details d JOIN cron.job j USING (jobid) WHERE j.jobname = '%s' AND d.status = 'succeeded');
sub runs { return sprintf $done, $_[0] }

scheduled('refresh', 'CALL cs.refresh()');
becomes('SELECT (' . runs('refresh') . ') > 0', 'pg_cron runs a refresh');
scheduled('snapshot', q(SELECT cs.run_job('nightly_snapshot')));
scheduled('retention', q(SELECT cs.run_job('retention')));
becomes('SELECT (' . runs($_) . ') > 0', "pg_cron runs $_") for qw(snapshot retention);
is(sql(q(SELECT string_agg(DISTINCT status, ',') FROM cron.job_run_details WHERE status NOT IN ('running', 'starting'))), 'succeeded', 'none of them failed');
is(sql(q(SELECT (count(*) = 40)::text || (NOT EXISTS (SELECT FROM cs_internal.dirty))::text FROM cs_internal.state)), 'truetrue', 'everybody is evaluated, nothing waits: CALL committed between its batches');
is(sql(q(SELECT count(DISTINCT customer_id) FROM cs_internal.metric_history)), '40', 'the snapshot is kept');
is(sql(q(SELECT string_agg(job || ' ' || last_status, ',' ORDER BY job) FROM cs.job_status WHERE last_status IS NOT NULL)), 'nightly_snapshot succeeded,retention succeeded', 'and stands in job_status');
sql(q(INSERT INTO app.ticket (id, customer_id, opened_at, severity, escalated) VALUES (9001, 2, '2025-06-30 12:00+02', 'urgent', true)));
becomes(q(SELECT count(*) = 1 FROM cs.open_alert WHERE rule = 'ticket_escalated' AND key = '9001'), 'a new fact has its alert by the next minute');
becomes(q(SELECT count(*) = 0 FROM cs.alert_event WHERE seq IS NULL), 'and is numbered');

# --- both at once ------------------------------------------------------------------------

$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_cron, cs_ext'");
$node->restart;
my $before = sql(runs('refresh'));
sql(qq(INSERT INTO app.ticket (id, customer_id, opened_at, severity, escalated) SELECT 9100 + i, 1 + i % 40, '2025-06-30 12:00+02', 'urgent', true FROM generate_series(1, 40) i));
becomes(q(SELECT count(*) = 40 FROM cs.open_alert WHERE key::text ~ '^91'), 'the scheduler of cs_ext serves it too, at once');
becomes('SELECT (' . runs('refresh') . ") > $before", 'beside pg_cron');
is(sql(q(SELECT count(*) FROM (SELECT FROM cs.alert WHERE rule = 'ticket_escalated' GROUP BY key HAVING count(*) > 1) x)), '0', 'no alert is doubled');
is(sql(q(SELECT count(*) FROM cron.job_run_details WHERE status = 'failed' AND start_time > now() - interval '10 minutes' AND return_message !~ 'server restarted|administrator command')), '0', 'no run failed');
$node->stop('fast');
done_testing();
