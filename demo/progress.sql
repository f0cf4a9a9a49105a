-- progress.sql: how much of the refresh is done, in percent. Reading counts
-- for half, evaluating for half; 100 only when nothing is left.
SELECT CASE
	WHEN c.last_refresh_at IS NOT NULL AND NOT w.waiting AND w.dirty = 0 THEN 100
	ELSE least(99, (50 * (1 - w.unread) + 50 * w.evaluated)::integer)
	END
FROM (SELECT 1) one
LEFT JOIN cs_internal.clock c ON true,
	LATERAL (SELECT
		EXISTS (SELECT FROM cs_internal.change_log) OR EXISTS (SELECT FROM cs_internal.pending)
			OR EXISTS (SELECT FROM cs_internal.source_state WHERE needs_scan) AS waiting,
		(SELECT count(*) FROM cs_internal.dirty) AS dirty,
		coalesce((SELECT avg((needs_scan OR EXISTS (SELECT FROM cs_internal.pending p WHERE p.source = s.source))::integer)
			FROM cs_internal.source_state s), 1) AS unread,
		(SELECT count(*) FROM cs_internal.state)::float8 / greatest((SELECT count(*) FROM cs_internal.customer), 1) AS evaluated) w;
