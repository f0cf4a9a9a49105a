
-- ---------------------------------------------------------------------------
-- doctor: what is wrong, and what to do about it.
-- ---------------------------------------------------------------------------

CREATE VIEW cs.source_status WITH (security_barrier) AS
SELECT s.name AS source, s.kind, s.relation, coalesce(t.capture, 'scan') AS capture,
	coalesce(t.capture_reason, 'not looked at yet') AS why, s.enabled, coalesce(t.needs_scan, true) AS needs_scan,
	coalesce(u.row_count, 0)::bigint AS unusable_rows, u.unusable,
	(SELECT count(*) FROM cs_internal.orphan o WHERE o.source = s.name
		AND NOT EXISTS (SELECT 1 FROM cs_internal.customer c WHERE c.customer_id = o.customer_id)
		AND NOT EXISTS (SELECT 1 FROM cs_internal.merge m WHERE m.from_id = o.customer_id)) AS orphans,
	(SELECT count(*) FROM cs_internal.pending p WHERE p.source = s.name) AS pending_customers,
	t.first_at, t.last_at, t.scanned_at, t.error,
	k.last_as_of AS data_through_at, k.last_refresh_at AS computed_at,
	coalesce(t.capture, 'scan') <> 'window' AS exact,
	q.before AS sealed_before, q.corrections AS corrections_refused,
	CASE WHEN s.terms = 'current' THEN (SELECT min(v.recorded_at) FROM cs_internal.subscription_version v WHERE v.source = s.name) END AS history_from
FROM cs.source s
LEFT JOIN cs_internal.source_state t ON t.source = s.name
LEFT JOIN (
	SELECT r.source, sum(r.row_count)::bigint AS row_count,
		jsonb_object_agg(r.reason, jsonb_build_object('rows', r.row_count, 'example', r.example) ORDER BY r.reason) AS unusable
	FROM (SELECT n.source, n.reason, sum(n.row_count)::bigint AS row_count, min(n.example COLLATE "C") AS example
		FROM cs_internal.unusable n GROUP BY n.source, n.reason) r
	GROUP BY r.source) u ON u.source = s.name
LEFT JOIN cs_internal.seal q ON q.source = s.name
LEFT JOIN cs_internal.clock k ON true;
COMMENT ON VIEW cs.source_status IS 'One row per source: how it is captured, what of it cannot be used, how far it reaches.';
COMMENT ON COLUMN cs.source_status.source IS 'Name of the source.';
COMMENT ON COLUMN cs.source_status.kind IS 'Kind of facts.';
COMMENT ON COLUMN cs.source_status.relation IS 'The relation, qualified and quoted.';
COMMENT ON COLUMN cs.source_status.capture IS 'How changes are noticed now: trigger, watermark (rows of new transactions), scan (re-read and compared) or window (the last days re-read and compared).';
COMMENT ON COLUMN cs.source_status.why IS 'Why it is captured that way.';
COMMENT ON COLUMN cs.source_status.exact IS 'false: changes before the window that is re-read are not noticed.';
COMMENT ON COLUMN cs.source_status.history_from IS 'With terms current, the instant from which changes of its rows are known; NULL: rows say themselves when they held, or none was read yet.';
COMMENT ON COLUMN cs.source_status.sealed_before IS 'What happened before it is final, see cs.seal(); NULL: nothing is.';
COMMENT ON COLUMN cs.source_status.corrections_refused IS 'Rows written below the seal since, which are not applied, as far as capture by trigger or watermark has seen; NULL: not sealed.';
COMMENT ON COLUMN cs.source_status.enabled IS 'false: the source is not read.';
COMMENT ON COLUMN cs.source_status.needs_scan IS 'true: it is read whole at the next refresh.';
COMMENT ON COLUMN cs.source_status.unusable_rows IS 'Number of rows that cannot be used and are left out.';
COMMENT ON COLUMN cs.source_status.unusable IS 'Per reason the number of rows and an example: {"reason": {"rows": n, "example": "…"}}. NULL: every row is usable.';
COMMENT ON COLUMN cs.source_status.orphans IS 'Number of ids in the source that are no customers, nor merged into another one.';
COMMENT ON COLUMN cs.source_status.pending_customers IS 'Number of customers whose facts changed and are not ingested yet.';
COMMENT ON COLUMN cs.source_status.first_at IS 'Least anchor of usable rows; NULL: no rows, or no anchor.';
COMMENT ON COLUMN cs.source_status.last_at IS 'Greatest anchor of usable rows; NULL: no rows, or no anchor.';
COMMENT ON COLUMN cs.source_status.scanned_at IS 'When it was last read whole.';
COMMENT ON COLUMN cs.source_status.error IS 'Why it could not be read at the last refresh; NULL: it could.';
COMMENT ON COLUMN cs.source_status.data_through_at IS 'The instant up to which facts are evaluated.';
COMMENT ON COLUMN cs.source_status.computed_at IS 'When that was computed.';

CREATE FUNCTION cs_internal.doctor_sources() RETURNS TABLE ("check" text, severity text, object text, finding text, remedy text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_doctor_sources';
COMMENT ON FUNCTION cs_internal.doctor_sources() IS 'What cs.doctor() finds by looking at the relations of sources.';

CREATE FUNCTION cs_internal.source_sql(source text, keyed boolean, cut boolean) RETURNS text
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'cs_source_sql';
COMMENT ON FUNCTION cs_internal.source_sql(text, boolean, boolean) IS
'The SELECT that reads a source, to look at its plan; keyed: for the customers in $1; cut: as known at as_of. NULL for an unknown source.';

CREATE FUNCTION cs_internal.doctor() RETURNS TABLE ("check" text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
	IF NOT EXISTS (SELECT 1 FROM cs.policy) THEN
		RETURN QUERY SELECT 'setup', 'error', 'cs_ext', 'cs_ext is not set up in this database',
			'SELECT cs.setup(time_zone => ''Europe/Berlin'', currency => ''EUR'');';
		RETURN;
	END IF;

	RETURN QUERY
	WITH looked AS MATERIALIZED (SELECT * FROM cs_internal.doctor_sources()),
	f AS (
		SELECT 'run_as' AS "check", 'error' AS severity, p.run_as AS object,
			CASE WHEN r.rolname IS NULL THEN 'the role does not exist' ELSE 'the role is a superuser' END AS finding,
			'UPDATE cs.policy SET run_as = … to an ordinary role.' AS remedy
		FROM cs.policy p LEFT JOIN pg_roles r ON r.rolname = p.run_as
		WHERE r.rolname IS NULL OR r.rolsuper
		UNION ALL
		SELECT 'scheduler', 'warning', 'shared_preload_libraries', 'cs_ext is not preloaded: nothing is refreshed by itself',
			'Add cs_ext to shared_preload_libraries and restart, or CALL cs.refresh() from a scheduler of your own.'
		WHERE NOT 'cs_ext' = ANY (regexp_split_to_array(replace(current_setting('shared_preload_libraries'), '"', ''), '\s*,\s*'))
		UNION ALL
		SELECT 'scheduler', 'warning', 'cs_ext.scheduler', 'the scheduler is switched off',
			'ALTER SYSTEM SET cs_ext.scheduler = on; SELECT pg_reload_conf();'
		WHERE current_setting('cs_ext.scheduler') = 'off'
		UNION ALL
		SELECT 'scheduler', 'warning', 'cs_ext.databases', format('cs_ext.databases (%s) does not name this database: it is not refreshed by itself', l.list),
			'ALTER SYSTEM SET cs_ext.databases = …; SELECT pg_reload_conf();'
		FROM (SELECT current_setting('cs_ext.databases') AS list) l
		WHERE l.list <> '' AND NOT EXISTS (SELECT FROM regexp_split_to_table(btrim(l.list), '\s*,\s*') n
			WHERE current_database() = CASE WHEN n LIKE '"%' THEN replace(btrim(n, '"'), '""', '"') ELSE lower(n) END OR btrim(n, '"') = '*')
		UNION ALL
		SELECT 'grants', 'warning', p.run_as, format('run_as may not execute %s functions of schema cs, e.g. %s', count(*), min(f.oid::regprocedure::text COLLATE "C")),
			format('SELECT cs.grant_admin(%L); then cs.grant_reader() and cs.grant_csm() for the roles that have these.', p.run_as)
		FROM cs.policy p JOIN pg_roles r ON r.rolname = p.run_as
			JOIN pg_proc f ON f.pronamespace = 'cs'::regnamespace AND NOT has_function_privilege(r.oid, f.oid, 'EXECUTE')
		GROUP BY p.run_as
		UNION ALL
		SELECT 'jobs', CASE WHEN s.failures > 2 THEN 'error' ELSE 'warning' END, j.name, 
				CASE WHEN s.failures > 1 THEN format('%s runs in a row failed, the last: ', s.failures) ELSE 'the last run failed: ' END || coalesce(e.error, e.status),
			format('Put right what it says, then SELECT cs.run_job(%L);', j.name)
		FROM cs.job j JOIN cs_internal.job_state s ON s.job = j.name AND s.failures > 0
			LEFT JOIN LATERAL (SELECT CASE r.status WHEN 'started' THEN 'crashed' ELSE r.status END AS status, r.error FROM cs_internal.job_run r
				WHERE r.job = j.name AND r.status <> 'skipped' ORDER BY r.id DESC LIMIT 1) e ON true
		WHERE j.enabled
		UNION ALL
		SELECT 'jobs', 'warning', j.name, format('its role "%s" does not exist or may not log in', j.run_as), 'Create it with LOGIN, or UPDATE cs.job SET run_as.'
		FROM cs.job j WHERE j.enabled AND j.kind = 'sql' AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = j.run_as AND r.rolcanlogin)
		UNION ALL
		SELECT 'hold', 'warning', 'cs_ext', 'the scheduler is held since a restore: ' || h.reason, 'SELECT cs.release_hold();'
		FROM cs_internal.hold h
		UNION ALL
		SELECT 'sources', 'warning', 'cs.source', 'there is no source: nothing to compute from',
			'Map your tables with cs.add_source(), or SELECT * FROM cs.create_tables(''facts'');'
		WHERE NOT EXISTS (SELECT 1 FROM cs.source)
		UNION ALL
		SELECT * FROM looked
		UNION ALL
		SELECT 'unreadable', 'error', t.source, t.error, 'Correct what the error says; then CALL cs.refresh().'
		FROM cs_internal.source_state t WHERE t.error IS NOT NULL
			AND NOT EXISTS (SELECT FROM looked l WHERE l.object = t.source AND l.finding = t.error)
		UNION ALL
		SELECT 'unusable', 'warning', u.source, format('%s cannot be used: %s; e.g. %s', CASE sum(u.row_count) WHEN 1 THEN '1 row' ELSE sum(u.row_count) || ' rows' END,
				u.reason, min(u.example COLLATE "C")),
			CASE WHEN u.reason LIKE 'no fx\_rate for %' THEN 'INSERT INTO cs.fx_rate (currency, valid_from, rate); then CALL cs.refresh().'
				ELSE 'Correct these rows, or map an expression that does.' END
		FROM cs_internal.unusable u GROUP BY u.source, u.reason
		UNION ALL
		SELECT 'seal', 'warning', q.source, format('%s rows were written below the seal of %s, the last time at %s, and are not counted', q.corrections, q.before, q.corrected_at),
			format('Record them with an instant after the seal; or, while all rows are still there: SELECT cs.unseal(%L);', q.source)
		FROM cs_internal.seal q WHERE q.corrections > 0
		UNION ALL
		SELECT 'orphans', 'warning', s.source, format('%s ids are no customers, e.g. "%s"', s.orphans,
				(SELECT min(o.customer_id) FROM cs_internal.orphan o WHERE o.source = s.source
					AND NOT EXISTS (SELECT 1 FROM cs_internal.customer c WHERE c.customer_id = o.customer_id)
					AND NOT EXISTS (SELECT 1 FROM cs_internal.merge m WHERE m.from_id = o.customer_id))),
			'Map the column that holds the customer''s id, or add the missing customers.'
		FROM cs.source_status s WHERE s.orphans > 0
		UNION ALL
		SELECT 'merge', 'warning', g.into_id, format('"%s" was merged into "%s", which is no customer: its MRR counts in the totals, but nobody has it', g.from_id, g.into_id),
			'Correct the merge, or add the customer it names to a customer source.'
		FROM (SELECT m.into_id, min(m.from_id) AS from_id FROM cs_internal.merge m
			WHERE NOT EXISTS (SELECT 1 FROM cs_internal.customer c WHERE c.customer_id = m.into_id)
				AND NOT EXISTS (SELECT 1 FROM cs_internal.merge n WHERE n.from_id = m.into_id)
			GROUP BY m.into_id ORDER BY m.into_id LIMIT 10) g
		UNION ALL
		SELECT 'held', 'warning', d.table_name || ' ' || d.key, d.error,
			format('See cs.held_alert: the worst come first, the rest is tried again within an hour. Where so many are right, UPDATE cs.alert_rule SET max_new = … WHERE name = %L;', d.key)
		FROM cs_internal.definition_status d WHERE d.status = 'held'
		UNION ALL
		SELECT 'definition', 'error', d.table_name || ' ' || d.key,
			concat(d.status, ' for ' || d.customers || CASE d.customers WHEN 1 THEN ' customer' ELSE ' customers' END, ', e.g. "' || d.example || '"', ': ' || d.error),
			CASE WHEN d.sqlstate = '57014' THEN 'Make the expression cheaper, or switch it off: it takes that long whenever it is tried again.'
				ELSE 'Correct the definition, or the rows it fails for.' END
			|| CASE WHEN d.table_name IN ('metric', 'alert_rule')
				THEN format(' If the cause was elsewhere and is gone, UPDATE cs.%I SET enabled = enabled WHERE name = %L; tries it for everybody again.', d.table_name, d.key) ELSE '' END
		FROM cs_internal.definition_status d WHERE d.status NOT IN ('ok', 'held')
		UNION ALL
		SELECT 'waiting', 'warning', a.backend_type, format('pid %s has waited since %s for a lock that %s', a.pid, w.since,
				coalesce((SELECT string_agg(format('pid %s (%s, %s since %s)', b.pid, coalesce(b.usename, b.backend_type), coalesce(b.state, 'at work'), b.state_change), ', ' ORDER BY b.pid)
					FROM pg_stat_activity b WHERE b.pid = ANY (pg_blocking_pids(a.pid))) || ' holds', 'was given back')),
			'It goes on when that transaction ends. If it does not: SELECT pg_terminate_backend(pid) of who holds it.'
		FROM pg_stat_activity a, LATERAL (SELECT min(l.waitstart) AS since FROM pg_locks l WHERE l.pid = a.pid AND NOT l.granted) w
		WHERE a.datname = current_database() AND a.backend_type LIKE 'cs\_ext %' AND w.since < clock_timestamp() - interval '2 s'
		UNION ALL
		SELECT 'change_log', 'warning', 'cs_internal.change_log', format('more than %s changes are waiting for a refresh', w.n),
			'CALL cs.refresh(); and see that the scheduler runs.'
		FROM (SELECT current_setting('cs_ext.change_log_warn_rows')::bigint AS n) w
		WHERE (SELECT count(*) FROM (SELECT 1 FROM cs_internal.change_log LIMIT w.n + 1) c) > w.n
		UNION ALL
		SELECT 'refresh', 'warning', 'cs_ext', CASE WHEN k.last_refresh_at IS NULL THEN 'nothing was computed yet'
				ELSE format('the last refresh was at %s', k.last_refresh_at) END,
			'CALL cs.refresh();'
		FROM (SELECT max(c.last_refresh_at) AS last_refresh_at FROM cs_internal.clock c) k
		WHERE EXISTS (SELECT 1 FROM cs.source)
			AND (k.last_refresh_at IS NULL OR k.last_refresh_at < clock_timestamp() - interval '1 day')
		UNION ALL
		SELECT 'unread', 'warning', s.name, 'it was not read yet: all numbers are without it', 'CALL cs.refresh();'
		FROM cs.source s LEFT JOIN cs_internal.source_state t ON t.source = s.name
		WHERE s.enabled AND t.scanned_at IS NULL AND t.error IS NULL
			AND NOT EXISTS (SELECT FROM looked l WHERE l.object = s.name AND l.severity = 'error')
			AND EXISTS (SELECT FROM cs_internal.clock c WHERE c.last_refresh_at IS NOT NULL)
		UNION ALL
		SELECT 'outbox', 'warning', c.consumer, format('%s rows of the outbox wait for it since %s', c.waiting, c.waiting_since),
			'See whether it still runs; else SELECT cs.drop_consumer(''its name'');'
		FROM cs.outbox_consumer c WHERE c.waiting_since < clock_timestamp() - interval '1 day'
		UNION ALL
		SELECT 'outbox_lost', 'warning', c.consumer, format('%s rows of the outbox went before it had them', c.lost),
			'Bring it up to date from the views, then SELECT cs.drop_consumer(''its name''); and poll anew.'
		FROM cs.outbox_consumer c WHERE c.lost > 0
		UNION ALL
		SELECT 'stale', 'info', t.source, format('the newest row is of %s', t.last_at),
			'See whether what fills the relation still runs.'
		FROM cs_internal.source_state t JOIN cs.source s ON s.name = t.source
		WHERE s.kind = 'usage_event' AND t.last_at < cs_internal.now() - interval '7 days')
	SELECT f."check", f.severity, f.object, f.finding, f.remedy FROM f
	ORDER BY array_position('{error,warning,info}', f.severity), f."check" = 'definition', f."check" COLLATE "C", f.object COLLATE "C", f.finding COLLATE "C";
END $$;
COMMENT ON FUNCTION cs_internal.doctor() IS 'See cs.doctor.';

CREATE FUNCTION cs.doctor() RETURNS TABLE ("check" text, severity text, object text, finding text, remedy text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.doctor() IS
'What is wrong with the set-up, the sources and the definitions: check, severity (error, warning, info), the object, what was found, and what to do. No rows: nothing was found. Reads subscription and user sources whole.';
