
-- ---------------------------------------------------------------------------
-- progress: how far a long refresh or rebuild is.
-- ---------------------------------------------------------------------------

-- Written with each step of a run that has more than one batch to do; emptied by its end.
CREATE TABLE cs_internal.progress (
	stage text PRIMARY KEY,
	place integer NOT NULL,                 -- of the stage in the run
	done bigint NOT NULL,
	total bigint NOT NULL,
	started_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL
);

CREATE VIEW cs.progress WITH (security_barrier) AS
SELECT p.stage, p.done, p.total, r.rate,
	CASE WHEN p.done >= p.total THEN '0'::interval WHEN r.rate > 0 THEN make_interval(secs => ((p.total - p.done) / r.rate)::float8) END AS remaining,
	p.started_at, p.updated_at
FROM cs_internal.progress p
CROSS JOIN LATERAL (SELECT (p.done / nullif(extract(epoch FROM p.updated_at - p.started_at), 0))::numeric(18,3) AS rate) r
ORDER BY p.place;
COMMENT ON VIEW cs.progress IS 'How far a long refresh or rebuild is, a row per stage it has come to; empty when none is under way, and after one that was killed until the next.';
COMMENT ON COLUMN cs.progress.stage IS 'build (the rollup of usage from nothing, in percent), ingest (customers with changed facts, once a source) or evaluate (customers).';
COMMENT ON COLUMN cs.progress.done IS 'What is done of the stage.';
COMMENT ON COLUMN cs.progress.total IS 'What there was to do when the stage began, or has become known since.';
COMMENT ON COLUMN cs.progress.rate IS 'Done per second since the stage began; NULL before the first step ended.';
COMMENT ON COLUMN cs.progress.remaining IS 'Time the rest takes at this rate; NULL while the rate is not known.';
COMMENT ON COLUMN cs.progress.started_at IS 'When the stage began, by the clock.';
COMMENT ON COLUMN cs.progress.updated_at IS 'When the last step ended, by the clock.';
