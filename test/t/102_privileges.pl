# Forty-odd ways for a plain role, a reader, a csm, a definer and the owner of a
# job to read or write what they must not, or to have their code run as somebody
# else: all refused. Every attack carries a function that would note whom it ran
# as; in the end nobody but the attackers themselves stands there.
# How to run: see 010_worker.pl.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use FindBin;
use Test::More;

require "$FindBin::Bin/../lib/server.pl";

our $node = PostgreSQL::Test::Cluster->new('privileges');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'cs_ext'
max_worker_processes = 16
cs_ext.now = '2025-07-01 06:00:00+02'
log_statement = none
CONF
$node->start;
sub as
{
	my ($role, $query) = @_;
	return $node->psql('postgres', $query, extra_params => [ '-U', $role ]);
}
my ($n, $refused) = (0, 0);

# An attack that must fail with this SQLSTATE.
sub refused
{
	my ($role, $state, $name, $query) = @_;
	my ($status, $out, $err) = as($role, "\\set VERBOSITY sqlstate\n$query");
	$n++;
	ok($err =~ /ERROR:  $state/, "$n. $role: $name") ? $refused++ : diag($err eq '' ? "not refused: $out" : $err);
}

# An attack that runs and must give just this.
sub harmless
{
	my ($role, $expected, $name, $query) = @_;
	my ($status, $out, $err) = as($role, $query);
	$n++;
	is($out . ($err =~ /(salary \d+)/ ? $1 : ''), $expected, "$n. $role: $name") ? $refused++ : diag($err);
}

$node->safe_psql('postgres', 'CREATE EXTENSION cs_ext');
is($node->psql('postgres', slurp_file("$FindBin::Bin/../lib/small_company.sql")), 0, 'a company is set up');
sql(<<'SQL');
CALL cs.refresh();
CREATE ROLE plain LOGIN;
CREATE ROLE reader LOGIN;
CREATE ROLE csm LOGIN;
CREATE ROLE definer LOGIN;
CREATE ROLE owner LOGIN;       -- of jobs
CREATE ROLE vault LOGIN;       -- owns what nobody may see
CREATE ROLE farmer LOGIN;      -- owns a relation that is mapped
SELECT cs.grant_reader('reader'), cs.grant_csm('csm'), cs.grant_admin('definer');
CREATE SCHEMA vault AUTHORIZATION vault;
CREATE TABLE vault.salary AS SELECT 1 AS customer_id, 'salary 12345'::text AS amount;
ALTER TABLE vault.salary OWNER TO vault;

-- What an attack leaves behind: whom its code ran as. Everybody may write it.
CREATE TABLE public.seen (attack text, who text, session text);
GRANT INSERT ON public.seen TO PUBLIC;
CREATE SCHEMA evil;
GRANT USAGE, CREATE ON SCHEMA evil TO PUBLIC;
CREATE FUNCTION evil.note(attack text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.seen VALUES (attack, current_user, session_user);
	RETURN true;
END $$;
CREATE FUNCTION evil.note_stable(attack text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
	INSERT INTO public.seen VALUES (attack, current_user, session_user);
	RETURN true;
END $$;

-- A job of the vault's that fails with an error that quotes what nobody may see; one of the owner's.
INSERT INTO cs.job (name, kind, command, run_as, max_retries) VALUES
	('hush', 'sql', 'SELECT amount::int FROM vault.salary', 'vault', 0), ('own', 'sql', 'SELECT 1', 'owner', 0);
SELECT cs.run_job('hush');
SQL
ok($node->poll_query_until('postgres', q(SELECT error ~ 'salary' FROM cs.job_status WHERE job = 'hush')), 'an error in cs.job_run quotes a secret');

my $launcher = sql(q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'cs_ext launcher'));

# --- a plain role ----------------------------------------------------------------------

refused('plain', '42501', 'reads a view', 'SELECT * FROM cs.customer_health');
refused('plain', '42501', 'calls a reading function', 'SELECT cs.mrr()');
refused('plain', '42501', 'reads state', 'SELECT * FROM cs_internal.state');
refused('plain', '42501', 'calls what stands behind a gate', q(SELECT cs_internal.setup('UTC', 'EUR', NULL, 'plain')));
refused('plain', '42501', 'refreshes', 'CALL cs.refresh()');
refused('plain', '42501', 'releases a hold', 'SELECT cs.release_hold()');
refused('plain', '42501', 'writes a job', q(INSERT INTO cs.job (name, kind) VALUES ('x', 'retention')));
refused('plain', '42501', 'sets the instant', q(SET cs_ext.now = '2031-01-01'));
refused('plain', '42501', 'allows jobs as superuser', 'SET cs_ext.allow_superuser_sql = on');
refused('plain', '42501', 'takes the time limit off', 'SET cs_ext.user_sql_timeout = 0');
refused('plain', '42501', 'makes a gate of his own', q(CREATE FUNCTION evil.setup(text) RETURNS text LANGUAGE c AS 'cs_ext', 'cs_gate'));
refused('plain', '42501', 'puts the capture trigger on a table of his own',
	q(CREATE TABLE evil.t (customer_id int); CREATE TRIGGER t AFTER INSERT ON evil.t FOR EACH ROW EXECUTE FUNCTION cs_internal.capture('tickets', 'customer_id')));
refused('plain', '42501', 'puts the definition trigger on a table of his own',
	q(CREATE TABLE evil.policy (LIKE pg_am); CREATE TRIGGER t AFTER INSERT ON evil.policy FOR EACH ROW EXECUTE FUNCTION cs_internal.definition_trigger()));
refused('plain', '42501', 'terminates the launcher', "SELECT pg_terminate_backend($launcher)");
harmless('plain', '0', 'looks into the planner\'s statistics', q(SELECT count(*) FROM pg_stats WHERE schemaname IN ('cs', 'cs_internal')));

# --- a reader -----------------------------------------------------------------------------

refused('reader', '42501', 'writes a definition', q(UPDATE cs.policy SET currency = 'USD'));
refused('reader', '42501', 'writes through a view', q(UPDATE cs.alert SET state = 'dismissed'));
refused('reader', '42501', 'acts on an alert', q(SELECT cs.ack_alert(1, 'x', 'y')));
refused('reader', '42501', 'overrides a score', q(SELECT cs.override_health('1', 100, NULL, NULL, 'x', '2031-01-01')));
refused('reader', '42501', 'reads definitions with their SQL', 'SELECT command FROM cs.job');
refused('reader', '42501', 'runs a job', q(SELECT cs.run_job('hush')));
refused('reader', '42501', 'cancels a run', 'SELECT cs.cancel_run(1)');
refused('reader', '42501', 'looks at all databases', 'SELECT * FROM cs.workers()');
refused('reader', '42501', 'becomes the execution role', 'SET ROLE cs_ext_run');
harmless('reader', '0', 'sees the failed job of another role', q(SELECT count(*) FROM cs.job_run WHERE job = 'hush' OR error ~ 'salary'));
as('reader', q(CREATE FUNCTION evil.leak(x text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$BEGIN RAISE NOTICE 'leaked %', x; RETURN true; END $$));
harmless('reader', '', 'leaks it by a cheap function in a filter of job_run', q(SET client_min_messages = notice; SELECT FROM cs.job_run WHERE evil.leak(error) AND false));
harmless('reader', '', 'leaks it by a cheap function in a filter of job_status', q(SET client_min_messages = notice; SELECT job FROM cs.job_status WHERE evil.leak(error) AND job = 'hush'));
harmless('reader', '', 'leaks it by an error in a filter', q(SELECT job FROM cs.job_run WHERE error::int = 1 AND job = 'hush'));

# Shadowing: functions, operators and tables of his own come first in his path.
as('reader', q(
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT evil.note('now'); SELECT pg_catalog.now()$$;
CREATE FUNCTION evil.format(text, VARIADIC "any") RETURNS text LANGUAGE internal AS 'text_format';
CREATE FUNCTION evil.coalesce_text(text) RETURNS text LANGUAGE sql AS $$SELECT evil.note('function')::text$$;
CREATE FUNCTION evil.date_trunc(text, timestamptz, text) RETURNS timestamptz LANGUAGE sql AS $$SELECT evil.note('date_trunc'); SELECT pg_catalog.date_trunc($1, $2, $3)$$;
CREATE FUNCTION evil.pg_has_role(oid, text) RETURNS boolean LANGUAGE sql AS $$SELECT evil.note('pg_has_role')$$;
CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE sql AS $$SELECT evil.note('=')$$;
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq);
CREATE FUNCTION evil.eqn(name, name) RETURNS boolean LANGUAGE sql AS $$SELECT evil.note('= of names')$$;
CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.eqn);
CREATE FUNCTION evil.lt(timestamptz, timestamptz) RETURNS boolean LANGUAGE sql AS $$SELECT evil.note('<')$$;
CREATE OPERATOR evil.< (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = evil.lt);));
my $shadow = q(SET search_path = evil, pg_catalog, cs; SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'; SET lc_numeric = 'C';);
my $score = $node->safe_psql('postgres', q(SELECT cs.health_score('5')));
harmless('reader', $score, 'shadows functions and operators under a gate', qq($shadow SELECT cs.health_score('5'::text)));
harmless('reader', '0', 'shadows operators under a view', qq($shadow SELECT count(*) OPERATOR(pg_catalog.-) count(*) FROM cs.customer_360));
harmless('reader', 'f', 'shadows pg_has_role under job_run', qq($shadow SELECT count(*) OPERATOR(pg_catalog.>) 0::bigint FROM cs.job_run r WHERE r.job OPERATOR(pg_catalog.=) 'hush'));
harmless('reader', $score, 'shadows tables by temporary ones', q(CREATE TEMP TABLE policy (time_zone text); CREATE TEMP TABLE state (customer_id text);
	CREATE TEMP TABLE health (customer_id text, score float8); SET search_path = pg_temp, cs_internal, cs; SELECT cs.health_score('5'::text)));
harmless('reader', '', 'puts SQL into an argument', q(SELECT cs.health_score('5''; INSERT INTO public.seen VALUES (''injection'', current_user, session_user); --')));
refused('reader', '22023|42704|42601|22P02|P0001', 'puts SQL into a segment', q(SELECT cs.mrr(now(), 'tier:x'' OR true; --')));

# --- a csm --------------------------------------------------------------------------------

refused('csm', '42501', 'writes a rule', q(INSERT INTO cs.alert_rule (name, rule) VALUES ('x', 'true')));
refused('csm', '42501', 'writes the alert table', q(UPDATE cs_internal.alert SET state = 'resolved'));
refused('csm', '42501', 'maps a table', q(SELECT * FROM cs.add_source('x', 'other', 'pg_class', '{"customer_id": "oid"}')));
refused('csm', '42501', 'forgets a source', q(SELECT cs.drop_source('tickets')));
refused('csm', '42501', 'rebuilds', 'CALL cs.rebuild()');

# --- a definer, member of policy.run_as ------------------------------------------------------

refused('definer', '42501', 'a metric that reads what run_as may not', q(INSERT INTO cs.metric (name, source, expression) VALUES ('x', 'ticket', '(SELECT count(*) FROM vault.salary)')));
refused('definer', '0A000', 'a metric that calls a volatile function', q(INSERT INTO cs.metric (name, source, expression) VALUES ('x', 'ticket', 'count(*) FILTER (WHERE evil.note(''volatile''))')));
refused('definer', '42501', 'maps a table that he may not read', q(SELECT * FROM cs.add_source('x', 'other', 'vault.salary', '{"customer_id": "customer_id"}')));
refused('definer', '42501', 'previews it', q(SELECT * FROM cs.preview_source('other', 'vault.salary', '{"customer_id": "customer_id"}')));
refused('definer', '42501', 'a job as superuser', q(INSERT INTO cs.job (name, kind, command, run_as) VALUES ('x', 'sql', 'SELECT evil.note(''job'')', 'postgres')));
refused('definer', '42501', 'a job as another role', q(INSERT INTO cs.job (name, kind, command, run_as) VALUES ('x', 'sql', 'SELECT evil.note(''job'')', 'vault')));
refused('definer', '42501', 'takes over the command of another role\'s job', q(UPDATE cs.job SET command = 'SELECT evil.note(''takeover'')' WHERE name = 'hush'));
refused('definer', '42501', 'takes it over by another name', q(UPDATE cs.job SET name = 'mine', command = 'SELECT evil.note(''takeover'')' WHERE name = 'hush'));
refused('definer', '42501', 'turns a job of his own kind into one of another role', q(UPDATE cs.job SET kind = 'sql', command = 'SELECT evil.note(''turn'')', run_as = 'vault' WHERE name = 'retention'));
refused('definer', '42501', 'says who wrote a job', q(UPDATE cs_internal.job_writer SET writer = 'postgres'));
refused('definer', '42501', 'makes run_as a superuser', q(UPDATE cs.policy SET run_as = 'postgres'));
refused('definer', '42501', 'makes run_as another role', q(UPDATE cs.policy SET run_as = 'vault'));
refused('definer', '42501', 'uninstalls', q(CALL cs.uninstall('evil')));
refused('definer', '42501', 'skips the checks as a restore does', q(SET check_function_bodies = off; INSERT INTO cs.job (name, kind, command, run_as) VALUES ('x', 'sql', 'SELECT evil.note(''restore'')', 'postgres')));
refused('definer', '42501', 'makes run_as another role as a restore does', q(SET check_function_bodies = off; UPDATE cs.policy SET run_as = 'vault'));

# Definitions that behave until they are run: a STABLE function that writes, one that changes who it is.
as('definer', q(
CREATE FUNCTION evil.becomes(r text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$BEGIN EXECUTE format('SET ROLE %I', r); PERFORM evil.note_stable('set role'); RETURN true; END $$;
CREATE FUNCTION evil.resets() RETURNS boolean LANGUAGE plpgsql STABLE AS $$BEGIN RESET SESSION AUTHORIZATION; RESET ROLE; PERFORM evil.note_stable('reset'); RETURN true; END $$;
CREATE FUNCTION evil.notifies() RETURNS boolean LANGUAGE plpgsql STABLE AS $$BEGIN PERFORM pg_notify('evil', current_user); PERFORM set_config('cs_ext.actor', 'evil', false); RETURN true; END $$;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA evil TO PUBLIC;
INSERT INTO cs.metric (name, source, expression) VALUES
	('evil_writes', 'ticket', 'count(*) FILTER (WHERE evil.note_stable(''metric''))'), ('evil_becomes', 'ticket', 'count(*) FILTER (WHERE evil.becomes(''postgres''))'),
	('evil_resets', 'ticket', 'count(*) FILTER (WHERE evil.resets())'), ('evil_notifies', 'ticket', 'count(*) FILTER (WHERE evil.notifies())');
INSERT INTO cs.alert_rule (name, rule, message) VALUES ('evil_rule', 'evil.note_stable(''rule'')', $$CASE WHEN evil.note_stable('message') THEN 'x' END$$);
INSERT INTO cs.dimension (name, fallback) VALUES ('evil_dim', 'none');
INSERT INTO cs.segment (dimension, name, rule) VALUES ('evil_dim', 'evil_seg', 'evil.note_stable(''segment'')');));
my ($s1, $listened) = $node->psql('postgres', "LISTEN evil;\nCALL cs.refresh();\nSELECT current_setting('cs_ext.actor');");
$n++;
is($listened, '', "$n. definer: definitions that write, notify or set settings leave nothing behind a refresh by a superuser");
$n++;
is(sql(q(SELECT count(*) FROM cs.definition_status WHERE status = 'failing' AND key IN ('evil_writes', 'evil_becomes', 'evil_resets', 'evil_rule')) ), '4',
	"$n. definer: those that wrote or became somebody else are marked as failing");
sql(q(DELETE FROM cs.metric WHERE name ~ 'evil'; DELETE FROM cs.alert_rule WHERE name ~ 'evil'; DELETE FROM cs.segment WHERE name ~ 'evil'; DELETE FROM cs.dimension WHERE name ~ 'evil'));

# --- the owner of a mapped relation ---------------------------------------------------------------

sql(q(CREATE SCHEMA farm AUTHORIZATION farmer; GRANT USAGE ON SCHEMA farm TO cs_ext_run));
as('farmer', q(CREATE TABLE farm.touch (customer_id int, at timestamptz); INSERT INTO farm.touch VALUES (1, '2025-06-01'), (2, '2025-06-01');
	CREATE VIEW farm.seen AS SELECT customer_id, at FROM farm.touch; GRANT SELECT ON ALL TABLES IN SCHEMA farm TO cs_ext_run));
sql(q(SELECT count(*) FROM cs.add_source('farm', 'touchpoint', 'farm.seen', '{"customer_id": "customer_id", "at": "at"}');
	SELECT count(*) FROM cs.add_source('farm_table', 'touchpoint', 'farm.touch', '{"customer_id": "customer_id", "at": "at"}'); CALL cs.refresh()));
as('farmer', q(CREATE OR REPLACE VIEW farm.seen AS SELECT customer_id, at FROM farm.touch WHERE evil.note_stable('view')));
sql('CALL cs.refresh()');
$n++;
like(sql(q(SELECT error FROM cs.source_status WHERE source = 'farm')), qr/not allowed in a non-volatile function|read-only|permission denied/, "$n. farmer: code in a mapped view writes nothing, and the source says why it cannot be read");
as('farmer', q(CREATE FUNCTION farm.trigger() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM evil.note('trigger'); RETURN NEW; END $$;
	CREATE TRIGGER a BEFORE INSERT ON farm.touch FOR EACH ROW EXECUTE FUNCTION farm.trigger(); INSERT INTO farm.touch VALUES (3, '2025-06-02')));
sql('CALL cs.refresh()');
$n++;
is(sql(q(SELECT string_agg(DISTINCT who, ',') FROM public.seen WHERE attack = 'trigger')), 'farmer', "$n. farmer: a trigger of his on a mapped table runs as the writer, never by a refresh");
as('farmer', q(ALTER TABLE farm.touch ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON farm.touch USING (evil.note_stable('policy'))));
sql('CALL cs.refresh(); CALL cs.rebuild()');
$n++;
like(sql(q(SELECT error FROM cs.source_status WHERE source = 'farm_table')), qr/row-level security/, "$n. farmer: a row security policy on a mapped table raises instead of running");

# --- the owner of a job -------------------------------------------------------------------------------

refused('owner', '42501', 'writes the job that runs as him', q(UPDATE cs.job SET command = 'SELECT evil.note(''own'')' WHERE name = 'own'));
my %commands = (
	'reset role' => 'RESET ROLE; RESET SESSION AUTHORIZATION; SELECT evil.note(\'job: reset\'); SELECT * FROM cs_internal.state',
	'session authorization' => 'SET SESSION AUTHORIZATION postgres; SELECT evil.note(\'job: session\')',
	'state' => 'UPDATE cs_internal.job_state SET failures = 0',
	'alter system' => 'ALTER SYSTEM SET cs_ext.allow_superuser_sql = on',
	'others' => 'UPDATE cs.job SET run_as = \'postgres\'',
	'program' => q(COPY public.seen FROM PROGRAM 'echo x'));
for my $name (sort keys %commands)
{
	my $command = $commands{$name};
	sql(qq(INSERT INTO cs.job (name, kind, command, run_as, max_retries) VALUES ('try', 'sql', \$c\$$command\$c\$, 'owner', 0); SELECT cs.run_job('try')));
	$n++;
	ok($node->poll_query_until('postgres', q(SELECT last_status = 'failed' AND error ~ 'denied|must be|permission' FROM cs.job_status WHERE job = 'try')), "$n. owner: a job of his: $name")
		? $refused++ : 0;
	sql(q(DELETE FROM cs.job WHERE name = 'try'));
}
harmless('owner', '', 'sees the runs of others', q(SELECT job FROM cs.job_run WHERE job = 'hush'))
	if sql(q(SELECT cs.grant_reader('owner'))) eq '';

# --- what the attacks left ---------------------------------------------------------------------------

cmp_ok($n, '>=', 40, "$n ways were tried");
is(sql(q(SELECT string_agg(DISTINCT attack || ' ran as ' || who, ', ') FROM public.seen
	WHERE who NOT IN ('plain', 'reader', 'csm', 'definer', 'owner', 'farmer') OR who <> session)), '', 'no code of theirs ran as somebody else');
is(sql(q(SELECT run_as FROM cs.policy)), 'cs_ext_run', 'the policy is untouched');
is(sql(q(SELECT amount FROM vault.salary)), 'salary 12345', 'and so is the vault');

# --- everything that is anybody's: nothing ------------------------------------------------------------

is(sql(q(SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a WHERE n.nspname IN ('cs', 'cs_internal') AND a.grantee = 0)), '0',
	'no relation is granted to PUBLIC');
is(sql(q(SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE n.nspname IN ('cs', 'cs_internal') AND a.grantee = 0)), '0',
	'no function is');
is(sql(q(SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname IN ('cs', 'cs_internal') AND p.prosecdef)), '0', 'there is no SECURITY DEFINER function');
$node->stop;
done_testing();
