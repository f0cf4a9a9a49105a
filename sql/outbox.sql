
-- ---------------------------------------------------------------------------
-- outbox: what other systems are to be told, once each, in order.
--
-- A row of cs.outbox_topic asks for a kind of change; each change that somebody
-- asked for becomes one row of the outbox, in the transaction of the change
-- itself, so it is there exactly if the change is. Nothing is sent from here:
-- consumers come with cs.poll() and say with cs.ack() what they are done with.
--
-- Cases.
-- Abort, crash, kill -9 between change and commit: neither is there; the next
-- refresh makes both.
-- Transactions that commit out of order: a row has no seq until it is numbered
-- after its commit, by whoever holds the lock of cs_internal.number_events, so
-- a consumer never sees a seq below one it has acknowledged.
-- Consumer dies between poll and ack: it is given the same rows again, with the
-- same idempotency keys.
-- Two processes poll as one consumer: both see the same rows; the greater ack
-- counts.
-- Consumer that never comes back: rows older than the limit go all the same;
-- how many it lost stands in cs.outbox_consumer and cs.doctor().
-- Restore: rows, topics and positions are dumped; the triggers do nothing while
-- rows are loaded, and poll gives nothing until cs.release_hold().
-- Standby: reading cs.outbox works, poll and ack are refused by the server.
-- ---------------------------------------------------------------------------

CREATE TABLE cs.outbox_topic (
	name text PRIMARY KEY,
	event text NOT NULL,
	dimension text,
	segment text,
	rule text,
	enabled boolean NOT NULL DEFAULT true,
	description text
);
SELECT pg_catalog.pg_extension_config_dump('cs.outbox_topic', '');
COMMENT ON TABLE cs.outbox_topic IS 'Which changes are put into cs.outbox. Changes that happened before the row was written are not.';
COMMENT ON COLUMN cs.outbox_topic.name IS 'Name of the topic, given with each row of the outbox that it asked for.';
COMMENT ON COLUMN cs.outbox_topic.event IS 'segment (entering and leaving), band (health band changed) or alert (any change of an alert).';
COMMENT ON COLUMN cs.outbox_topic.dimension IS 'With event segment: only this dimension, for example stage. NULL: all.';
COMMENT ON COLUMN cs.outbox_topic.segment IS 'With event segment: only this segment of the dimension. NULL: all.';
COMMENT ON COLUMN cs.outbox_topic.rule IS 'With event alert: only alerts of this rule. NULL: all.';
COMMENT ON COLUMN cs.outbox_topic.enabled IS 'false: nothing more is put into the outbox for it.';
COMMENT ON COLUMN cs.outbox_topic.description IS 'Free text.';

CREATE TABLE cs_internal.outbox (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	seq bigint UNIQUE,                   -- NULL when written; numbered after commit
	idempotency_key text COLLATE "C" NOT NULL,
	topics text[] NOT NULL,
	event text NOT NULL,
	customer_id text COLLATE "C" NOT NULL,
	payload jsonb NOT NULL,
	at timestamptz NOT NULL,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
CREATE UNIQUE INDEX outbox_key ON cs_internal.outbox (idempotency_key);
CREATE INDEX outbox_unnumbered ON cs_internal.outbox (id) WHERE seq IS NULL;
SELECT pg_catalog.pg_extension_config_dump('cs_internal.outbox', '');
SELECT pg_catalog.pg_extension_config_dump('cs_internal.outbox_id_seq', '');

-- Decided: how far each consumer is, and the greatest number ever given (rows go, numbers do not come back).
CREATE TABLE cs_internal.outbox_consumer (
	consumer text PRIMARY KEY,
	seq bigint NOT NULL,
	lost bigint NOT NULL DEFAULT 0,
	created_at timestamptz NOT NULL,
	polled_at timestamptz,
	acked_at timestamptz
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.outbox_consumer', '');
CREATE TABLE cs_internal.outbox_number (
	id boolean PRIMARY KEY DEFAULT true CHECK (id),
	seq bigint NOT NULL
);
SELECT pg_catalog.pg_extension_config_dump('cs_internal.outbox_number', '');

CREATE FUNCTION cs_internal.check_outbox_topic(new jsonb, old jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	n cs.outbox_topic := jsonb_populate_record(NULL::cs.outbox_topic, new);
	what text;
BEGIN
	IF new IS NULL THEN
		RETURN;
	END IF;
	what := format('outbox topic "%s"', n.name);
	IF btrim(n.name) = '' THEN
		RAISE EXCEPTION 'an outbox topic needs a name' USING ERRCODE = 'invalid_name';
	END IF;
	PERFORM cs_internal.must_be_word(format('event of %s:', what), n.event, '{segment,band,alert}');
	IF n.event <> 'segment' AND (n.dimension IS NOT NULL OR n.segment IS NOT NULL) THEN
		RAISE EXCEPTION '%: dimension and segment go with event segment, not %', what, n.event USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF n.event <> 'alert' AND n.rule IS NOT NULL THEN
		RAISE EXCEPTION '%: rule goes with event alert, not %', what, n.event USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF n.segment IS NOT NULL AND n.dimension IS NULL THEN
		RAISE EXCEPTION '%: a segment needs its dimension', what USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Write for example dimension ''stage'' and segment ''renewal''.';
	END IF;
	IF n.segment IS NOT NULL THEN
		PERFORM cs_internal.must_be_segment(n.dimension || ':' || n.segment);
	ELSIF n.dimension IS NOT NULL THEN
		PERFORM cs_internal.must_be_defined(n.dimension, what);
	END IF;
	IF n.rule IS NOT NULL AND NOT EXISTS (SELECT 1 FROM cs.alert_rule r WHERE r.name = n.rule) THEN
		RAISE EXCEPTION '%: unknown alert rule "%"', what, n.rule USING ERRCODE = 'invalid_parameter_value',
			HINT = coalesce('Did you mean "' || cs_internal.nearest(n.rule, (SELECT array_agg(r.name) FROM cs.alert_rule r)) || '"?',
				'Alert rules stand in cs.alert_rule.');
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.check_outbox_topic(jsonb, jsonb) IS 'Refuses what cs.outbox_topic must not hold; called by the definition trigger.';

CREATE TRIGGER definition AFTER INSERT OR UPDATE OR DELETE ON cs.outbox_topic
	FOR EACH ROW EXECUTE FUNCTION cs_internal.definition_trigger();

-- ---- what goes in -----------------------------------------------------------

-- Does anybody ask for such changes; never while a dump is loaded.
CREATE FUNCTION cs_internal.outbox_wants(event text) RETURNS boolean
LANGUAGE sql STABLE AS $$
	SELECT current_setting('check_function_bodies') = 'on'
		AND EXISTS (SELECT FROM cs.outbox_topic t WHERE t.event = outbox_wants.event AND t.enabled)
$$;
COMMENT ON FUNCTION cs_internal.outbox_wants(text) IS 'Whether a topic asks for such changes; false while a dump is loaded.';

-- One row for a change that somebody asked for. The key is made of the change
-- itself, so that it is the same wherever the change is told of; a second change
-- of the same content at the same instant (frozen clock) is counted.
CREATE FUNCTION cs_internal.put_outbox(topics text[], event text, customer_id text, what text, payload jsonb, at timestamptz) RETURNS void
LANGUAGE sql AS $$
	INSERT INTO cs_internal.outbox (idempotency_key, topics, event, customer_id, payload, at)
	SELECT k.key || CASE WHEN n.n > 0 THEN '#' || n.n ELSE '' END, topics, event, customer_id, payload, at
	FROM (SELECT concat_ws('/', event, customer_id, what, trim_scale(extract(epoch FROM at))) COLLATE "C" AS key) k,
		LATERAL (SELECT count(*) AS n FROM cs_internal.outbox o
			WHERE o.idempotency_key = k.key OR (o.idempotency_key > k.key || '#' AND o.idempotency_key < k.key || '$')) n
$$;
COMMENT ON FUNCTION cs_internal.put_outbox(text[], text, text, text, jsonb, timestamptz) IS 'Puts one change into the outbox.';

CREATE FUNCTION cs_internal.outbox_membership() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
	changes jsonb;
BEGIN
	IF NOT cs_internal.outbox_wants('segment') THEN
		RETURN NULL;
	END IF;
	IF TG_OP = 'INSERT' THEN
		changes := (SELECT jsonb_agg(to_jsonb(n) || '{"action": "enter"}' || jsonb_build_object('at', n.valid_from)) FROM new_rows n WHERE n.valid_to IS NULL);
	ELSIF TG_OP = 'DELETE' THEN
		changes := (SELECT jsonb_agg(to_jsonb(o) || '{"action": "leave"}' || jsonb_build_object('at', o.valid_from)) FROM old_rows o WHERE o.valid_to IS NULL);
	ELSE
		changes := (SELECT jsonb_agg(to_jsonb(n) || CASE WHEN n.valid_to IS NULL THEN '{"action": "enter"}' || jsonb_build_object('at', n.valid_from)
				ELSE '{"action": "leave"}' || jsonb_build_object('at', n.valid_to) END)
			FROM old_rows o JOIN new_rows n ON n.customer_id = o.customer_id AND n.dimension = o.dimension
				AND n.segment = o.segment AND n.valid_from = o.valid_from
			WHERE (o.valid_to IS NULL) <> (n.valid_to IS NULL));
	END IF;
	PERFORM cs_internal.put_outbox(t.topics, 'segment', c.customer_id, concat_ws('/', c.action, c.dimension, c.segment),
		jsonb_build_object('action', c.action, 'dimension', c.dimension, 'segment', c.segment, 'source', c.source, 'reason', c.reason), c.at)
	FROM (SELECT * FROM jsonb_to_recordset(changes) r (customer_id text, dimension text, segment text, source text, reason text, action text, at timestamptz)
			ORDER BY r.customer_id, r.dimension, r.segment) c,
		LATERAL (SELECT array_agg(t.name ORDER BY t.name) AS topics FROM cs.outbox_topic t
			WHERE t.event = 'segment' AND t.enabled AND coalesce(t.dimension, c.dimension) = c.dimension
				AND coalesce(t.segment, c.segment) = c.segment) t
	WHERE t.topics IS NOT NULL;
	RETURN NULL;
END $$;
COMMENT ON FUNCTION cs_internal.outbox_membership() IS 'Puts segments entered and left into the outbox.';
CREATE TRIGGER outbox_insert AFTER INSERT ON cs_internal.membership REFERENCING NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.outbox_membership();
CREATE TRIGGER outbox_update AFTER UPDATE ON cs_internal.membership REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.outbox_membership();
CREATE TRIGGER outbox_delete AFTER DELETE ON cs_internal.membership REFERENCING OLD TABLE AS old_rows
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.outbox_membership();

-- The first band of a customer is no change of it.
CREATE FUNCTION cs_internal.outbox_band() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	IF cs_internal.outbox_wants('band') THEN
		PERFORM cs_internal.put_outbox(t.topics, 'band', NEW.customer_id, concat_ws('/', coalesce(OLD.band, 'none'), coalesce(NEW.band, 'none')),
			jsonb_build_object('from', OLD.band, 'to', NEW.band, 'score', NEW.score, 'scorecard', NEW.scorecard, 'reason', NEW.band_reason), NEW.as_of)
		FROM (SELECT array_agg(t.name ORDER BY t.name) AS topics FROM cs.outbox_topic t WHERE t.event = 'band' AND t.enabled) t;
	END IF;
	RETURN NULL;
END $$;
COMMENT ON FUNCTION cs_internal.outbox_band() IS 'Puts changes of a health band into the outbox.';
CREATE TRIGGER outbox AFTER UPDATE ON cs_internal.health
	FOR EACH ROW WHEN (OLD.band IS DISTINCT FROM NEW.band) EXECUTE FUNCTION cs_internal.outbox_band();

CREATE FUNCTION cs_internal.outbox_alert() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	IF cs_internal.outbox_wants('alert') THEN
		PERFORM cs_internal.put_outbox(t.topics, 'alert', a.customer_id, concat_ws('/', e.alert_id, coalesce(e.from_state, 'none'), e.to_state),
			jsonb_build_object('alert_id', e.alert_id, 'rule', a.rule, 'key', nullif(a.key, ''), 'severity', a.severity, 'owner', a.owner,
				'message', a.message, 'from_state', e.from_state, 'to_state', e.to_state, 'actor', e.actor, 'cause', e.cause, 'note', e.note), e.at)
		FROM (SELECT * FROM new_rows ORDER BY id) e JOIN cs_internal.alert a ON a.id = e.alert_id,
			LATERAL (SELECT array_agg(t.name ORDER BY t.name) AS topics FROM cs.outbox_topic t
				WHERE t.event = 'alert' AND t.enabled AND coalesce(t.rule, a.rule) = a.rule) t
		WHERE t.topics IS NOT NULL;
	END IF;
	RETURN NULL;
END $$;
COMMENT ON FUNCTION cs_internal.outbox_alert() IS 'Puts changes of alerts into the outbox.';
CREATE TRIGGER outbox AFTER INSERT ON cs_internal.alert_event REFERENCING NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION cs_internal.outbox_alert();

-- Called with the lock of cs_internal.number_events held until commit, so that
-- numbers are given in order of commit.
CREATE FUNCTION cs_internal.number_outbox() RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
	last bigint;
	n bigint;
BEGIN
	IF NOT EXISTS (SELECT FROM cs_internal.outbox o WHERE o.seq IS NULL) THEN
		RETURN false;
	END IF;
	INSERT INTO cs_internal.outbox_number (seq) VALUES (0) ON CONFLICT DO NOTHING;
	SELECT x.seq INTO last FROM cs_internal.outbox_number x;
	WITH next AS (
		SELECT o.id, last + row_number() OVER (ORDER BY o.id) AS seq
		FROM cs_internal.outbox o WHERE o.seq IS NULL
	)
	UPDATE cs_internal.outbox o SET seq = next.seq FROM next WHERE o.id = next.id;
	GET DIAGNOSTICS n = ROW_COUNT;
	UPDATE cs_internal.outbox_number SET seq = last + n;
	IF pg_notification_queue_usage() <= 0.5 THEN
		PERFORM pg_notify('cs_outbox', json_build_object('seq', last + n)::text);
	END IF;
	RETURN true;
END $$;
COMMENT ON FUNCTION cs_internal.number_outbox() IS 'Numbers the rows of the outbox that are committed and have no seq yet. False when there was none.';

-- ---- what comes out ---------------------------------------------------------

CREATE FUNCTION cs_internal.poll(consumer text, max_rows integer)
RETURNS TABLE (seq bigint, idempotency_key text, topics text[], event text, customer_id text, payload jsonb, at timestamptz)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	position bigint;
BEGIN
	IF consumer IS NULL OR btrim(consumer) = '' THEN
		RAISE EXCEPTION 'a consumer needs a name' USING ERRCODE = 'invalid_name';
	END IF;
	IF max_rows IS NULL OR max_rows < 1 THEN
		RAISE EXCEPTION 'max_rows must be at least 1, not %', coalesce(max_rows::text, 'NULL') USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF EXISTS (SELECT FROM cs_internal.hold) THEN
		RAISE NOTICE 'the outbox is on hold since this database was restored' USING HINT = 'Run cs.release_hold() when its consumers may be told.';
		RETURN;
	END IF;
	IF current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN
		PERFORM cs_internal.number_events();
	END IF;
	-- A new consumer gets all that is still there.
	INSERT INTO cs_internal.outbox_consumer AS c (consumer, seq, created_at, polled_at)
	SELECT poll.consumer, coalesce((SELECT min(o.seq) - 1 FROM cs_internal.outbox o), (SELECT x.seq FROM cs_internal.outbox_number x), 0),
		clock_timestamp(), clock_timestamp()
	ON CONFLICT ON CONSTRAINT outbox_consumer_pkey DO UPDATE SET polled_at = excluded.polled_at
	RETURNING c.seq INTO position;
	RETURN QUERY
	SELECT o.seq, o.idempotency_key::text, o.topics, o.event, nullif(o.customer_id, '')::text, o.payload, o.at
	FROM cs_internal.outbox o
	WHERE o.seq > position
	ORDER BY o.seq
	LIMIT max_rows;
END $$;
COMMENT ON FUNCTION cs_internal.poll(text, integer) IS 'See cs.poll.';

CREATE FUNCTION cs_internal.ack(consumer text, seq bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	last bigint := coalesce((SELECT x.seq FROM cs_internal.outbox_number x), 0);
BEGIN
	IF seq IS NULL OR seq > last THEN
		RAISE EXCEPTION 'cannot acknowledge %, the newest row of the outbox is %', coalesce(seq::text, 'NULL'), last
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the greatest seq that cs.poll() returned and that is done.';
	END IF;
	UPDATE cs_internal.outbox_consumer c SET seq = greatest(c.seq, ack.seq), acked_at = clock_timestamp() WHERE c.consumer = ack.consumer;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'unknown consumer "%"', consumer USING ERRCODE = 'no_data_found',
			HINT = coalesce('Did you mean "' || cs_internal.nearest(consumer, (SELECT array_agg(c.consumer) FROM cs_internal.outbox_consumer c)) || '"?',
				'A consumer is known after its first cs.poll().');
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.ack(text, bigint) IS 'See cs.ack.';

CREATE FUNCTION cs_internal.drop_consumer(consumer text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM cs_internal.outbox_consumer c WHERE c.consumer = drop_consumer.consumer;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'unknown consumer "%"', consumer USING ERRCODE = 'no_data_found';
	END IF;
END $$;
COMMENT ON FUNCTION cs_internal.drop_consumer(text) IS 'See cs.drop_consumer.';

CREATE FUNCTION cs.poll(consumer text, max_rows integer DEFAULT 100)
RETURNS TABLE (seq bigint, idempotency_key text, topics text[], event text, customer_id text, payload jsonb, at timestamptz)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.poll(text, integer) IS
'The next rows of the outbox for this consumer, in order of seq, at most max_rows; the same again until cs.ack(). A name polls for the first time: it gets all that is still there. The idempotency_key of a change never differs, so a receiver can leave out what it has. Nothing while the database is on hold after a restore (NOTICE).';
CREATE FUNCTION cs.ack(consumer text, seq bigint) RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.ack(text, bigint) IS
'Says that the consumer is done with all rows up to seq; a smaller seq than before changes nothing. Raises for an unknown consumer and for a seq that was never given.';
CREATE FUNCTION cs.drop_consumer(consumer text) RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.drop_consumer(text) IS
'Forgets a consumer, so that the outbox keeps nothing for it. Raises for an unknown one.';

CREATE VIEW cs.outbox WITH (security_barrier) AS
	SELECT o.seq, o.idempotency_key::text AS idempotency_key, o.topics, o.event, nullif(o.customer_id, '')::text AS customer_id, o.payload, o.at
	FROM cs_internal.outbox o;
COMMENT ON VIEW cs.outbox IS 'Changes that a row of cs.outbox_topic asked for and that are still kept: until every consumer has acknowledged them, at most 30 days and 1,000,000 rows. Consumers read by cs.poll().';
COMMENT ON COLUMN cs.outbox.seq IS 'Number, dense and increasing in order of commit; NULL until it is numbered.';
COMMENT ON COLUMN cs.outbox.idempotency_key IS 'Names the change itself; unique.';
COMMENT ON COLUMN cs.outbox.topics IS 'Names of the topics that asked for it.';
COMMENT ON COLUMN cs.outbox.event IS 'segment, band or alert.';
COMMENT ON COLUMN cs.outbox.customer_id IS 'Customer; NULL for an alert of a whole segment.';
COMMENT ON COLUMN cs.outbox.payload IS 'segment: action (enter or leave), dimension, segment, source, reason; band: from, to, score, scorecard, reason; alert: alert_id, rule, key, severity, owner, message, from_state, to_state, actor, cause, note.';
COMMENT ON COLUMN cs.outbox.at IS 'Instant of the change.';

CREATE VIEW cs.outbox_consumer WITH (security_barrier) AS
	SELECT c.consumer, c.seq, (SELECT count(*) FROM cs_internal.outbox o WHERE o.seq > c.seq) AS waiting,
		(SELECT min(o.created_at) FROM cs_internal.outbox o WHERE o.seq > c.seq) AS waiting_since, c.lost, c.created_at, c.polled_at, c.acked_at
	FROM cs_internal.outbox_consumer c;
COMMENT ON VIEW cs.outbox_consumer IS 'Who reads the outbox, and how far each is.';
COMMENT ON COLUMN cs.outbox_consumer.consumer IS 'Name given to cs.poll().';
COMMENT ON COLUMN cs.outbox_consumer.seq IS 'Everything up to here is acknowledged.';
COMMENT ON COLUMN cs.outbox_consumer.waiting IS 'Numbered rows that are not.';
COMMENT ON COLUMN cs.outbox_consumer.waiting_since IS 'When the oldest of them was written, by the clock; NULL: none.';
COMMENT ON COLUMN cs.outbox_consumer.lost IS 'Rows that went, by age or number, before it had acknowledged them.';
COMMENT ON COLUMN cs.outbox_consumer.created_at IS 'First poll.';
COMMENT ON COLUMN cs.outbox_consumer.polled_at IS 'Last poll.';
COMMENT ON COLUMN cs.outbox_consumer.acked_at IS 'Last acknowledgement; NULL: none yet.';

-- What everybody has, and what is beyond the limits: 30 days, 1,000,000 rows.
CREATE FUNCTION cs_internal.outbox_retention(keep interval DEFAULT '30 days', max_rows bigint DEFAULT 1000000) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	everybody bigint := (SELECT min(c.seq) FROM cs_internal.outbox_consumer c);
	beyond bigint := greatest(
		(SELECT x.seq - max_rows FROM cs_internal.outbox_number x),
		(SELECT max(o.seq) FROM cs_internal.outbox o WHERE o.created_at < clock_timestamp() - keep));
	n bigint;
BEGIN
	UPDATE cs_internal.outbox_consumer c
	SET lost = c.lost + (SELECT count(*) FROM cs_internal.outbox o WHERE o.seq > c.seq AND o.seq <= beyond), seq = beyond
	WHERE c.seq < beyond;
	DELETE FROM cs_internal.outbox o WHERE o.seq <= greatest(everybody, beyond);
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END $$;
COMMENT ON FUNCTION cs_internal.outbox_retention(interval, bigint) IS 'Part of what a job of kind retention does: removes rows of the outbox that every consumer has acknowledged, or that are beyond the limits; returns how many.';
