-- Profiles: scorecards that add up as other products do.
\set ON_ERROR_STOP 1
BEGIN;
SET client_min_messages = warning;
SELECT plan(13);
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL) \g /dev/null
SELECT throws_ok($$SELECT cs.install_template('profile_natero')$$, '55000', 'template "profile_natero" needs the standard metrics', 'a profile needs the standard metrics');
SELECT cs.install_template('saas_basic') \g /dev/null
SELECT throws_ok($$SELECT cs.install_template('profile_other')$$, '42704', NULL, 'an unknown profile');
SELECT cs.install_template('profile_' || p) FROM unnest('{gainsight,totango,churnzero,planhat,catalyst,natero,vitally}'::text[]) p \g /dev/null
SELECT results_eq('SELECT count(*), count(*) FILTER (WHERE enabled) FROM cs.scorecard WHERE name LIKE $$profile%$$', 'VALUES (7::bigint, 0::bigint)', 'seven profiles, none in use');
SELECT is((SELECT count(*) FROM cs.validate()), 0::bigint, 'all of them pass the checks');
CREATE TEMP TABLE given AS SELECT '{"active_days_30d": 10, "features_used_30d": 5, "open_tickets": 1, "open_escalations": 0, "nps_latest": 9}'::jsonb AS m;
-- points: active 50, features 50, tickets 80, escalations 100, NPS 90, CSAT not there
SELECT is(round(cs.score(m, 'profile_gainsight')::numeric, 6), round(((40 * 50 + 30 * 90 + 15 * 90) / 85.0), 6), 'gainsight: the rest divided by what is left') FROM given;
SELECT is(cs.score(m || '{"open_escalations": 1}', 'profile_gainsight'), 50::float8, 'gainsight: the exception caps') FROM given;
SELECT is((SELECT band FROM cs.score_detail(m || '{"open_escalations": 1}', 'profile_gainsight')), 'red', 'gainsight: 50 is red') FROM given;
SELECT is(round(cs.score(m, 'profile_catalyst')::numeric, 6), (40 * 50 + 30 * 90 + 30 * 90) / 100.0, 'catalyst: the weight stays in its group') FROM given;
-- good and poor by steps: active 10 average, features 5 average, tickets 1 good, escalations 0 good, NPS good
SELECT is(round(cs.score(m, 'profile_totango')::numeric, 6), round((50 * 60 + 25 * 100 + 12.5 * 100) / 87.5, 6), 'totango: average is 60') FROM given;
SELECT is(cs.score(m, 'profile_churnzero'), (25 * 0.5 + 15 * 0.5 + 15 + 20 + 15)::float8, 'churnzero: points add, no value earns none') FROM given;
SELECT is(round(cs.score(m, 'profile_planhat')::numeric, 6), round((50 + 50 + 80 + 100 + 90 + 50) / 6.0, 6), 'planhat: plain mean, no value has no impact') FROM given;
SELECT is(round(cs.score(m, 'profile_natero')::numeric, 6), round((3 * 50 + 2 * 90 + 1 * 90) / 6.0, 6), 'natero: components by weight') FROM given;
SELECT is(round(cs.score(m, 'profile_vitally')::numeric, 6), round((50 * 50 + 25 * 100 + 12.5 * 100) / 87.5, 6), 'vitally: concerning is half') FROM given;
SELECT * FROM finish();
ROLLBACK;
