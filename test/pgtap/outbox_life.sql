-- What goes into the outbox, and how consumers get it.
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SET cs_ext.now = '2026-03-02 08:00+00';
SELECT * FROM no_plan();

SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR', template => NULL) IS NULL AS done \gset
INSERT INTO cs_internal.customer (customer_id, name, owner, from_customer) SELECT c, upper(c), 'ann', true FROM unnest('{a,b}'::text[]) c;
INSERT INTO cs_internal.state (customer_id, active, segments, mrr) SELECT c, true, '{}', 10 FROM unnest('{a,b}'::text[]) c;
INSERT INTO cs.dimension (name, fallback) VALUES ('size', 'small'), ('colour', NULL);
INSERT INTO cs.segment (dimension, name, rule) VALUES ('size', 'big', 'mrr > 100'), ('colour', 'red', 'mrr > 200'), ('colour', 'blue', 'mrr > 3000');
INSERT INTO cs.alert_rule (name, rule, message) VALUES ('much', 'mrr > 100', '''much'''), ('more', 'mrr > 1000', NULL);

-- at: moves the clock there, evaluates segments and alerts, and commits.
CREATE PROCEDURE public.at(moment text, a numeric, b numeric) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('cs_ext.now', moment || '+00', false);
	UPDATE cs_internal.state SET mrr = CASE customer_id WHEN 'a' THEN a ELSE b END;
	PERFORM cs_internal.evaluate_segments('{a,b}', (moment || '+00')::timestamptz, false);
	PERFORM cs_internal.evaluate_alerts('{a,b}', (moment || '+00')::timestamptz);
END $$;
-- told: what the consumer is given, in order.
CREATE FUNCTION public.told(who text, n integer DEFAULT 100) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(concat_ws(' ', p.event, p.customer_id, p.payload ->> 'action', p.payload ->> 'from', p.payload ->> 'to', p.payload ->> 'segment',
		p.payload ->> 'rule', p.payload ->> 'to_state'), '; ' ORDER BY p.seq) FROM cs.poll(who, n) p
$$;

-- ---- topics ---------------------------------------------------------------------
CALL public.at('2026-03-02 08:00', 10, 10);
SELECT is(public.told('early'), NULL, 'nobody asks, nothing goes in');
SELECT is((SELECT count(*) FROM cs_internal.outbox), 0::bigint, 'no row at all');
PREPARE topic (text, text, text, text, text) AS INSERT INTO cs.outbox_topic (name, event, dimension, segment, rule) VALUES ($1, $2, $3, $4, $5);
SELECT throws_ok($$EXECUTE topic('t', 'segments', NULL, NULL, NULL)$$, '22023', NULL, 'an unknown event is refused');
SELECT throws_like($$EXECUTE topic('t', 'segment', 'sise', NULL, NULL)$$, '%unknown dimension "sise"%', 'so is an unknown dimension');
SELECT throws_like($$EXECUTE topic('t', 'segment', 'size', 'bigg', NULL)$$, '%bigg%', 'an unknown segment');
SELECT throws_like($$EXECUTE topic('t', 'segment', NULL, 'big', NULL)$$, '%needs its dimension%', 'a segment without dimension');
SELECT throws_like($$EXECUTE topic('t', 'alert', NULL, NULL, 'munch')$$, '%unknown alert rule "munch"%', 'an unknown rule');
SELECT throws_like($$EXECUTE topic('t', 'band', 'size', NULL, NULL)$$, '%go with event segment%', 'a dimension with event band');
SELECT throws_like($$EXECUTE topic('t', 'band', NULL, NULL, 'much')$$, '%goes with event alert%', 'a rule with event band');
SELECT throws_ok($$EXECUTE topic(' ', 'band', NULL, NULL, NULL)$$, '42602', NULL, 'a topic without a name');
EXECUTE topic('sizes', 'segment', 'size', NULL, NULL);
EXECUTE topic('reds', 'segment', 'colour', 'red', NULL);
EXECUTE topic('much', 'alert', NULL, NULL, 'much');
EXECUTE topic('bands', 'band', NULL, NULL, NULL);

-- ---- changes --------------------------------------------------------------------
CALL public.at('2026-03-02 09:00', 10, 10);
SELECT is(public.told('mail'), NULL, 'no change, no row');
CALL public.at('2026-03-02 10:00', 2000, 10);
SELECT is(public.told('mail'), 'segment a leave small; segment a enter red; segment a enter big; alert a much open',
	'segments left and entered, and the alert; blue and the rule that nobody asked for are not there');
SELECT is((SELECT topics FROM cs.outbox WHERE payload ->> 'segment' = 'red'), '{reds}', 'each row says which topic asked');
SELECT is((SELECT payload - 'alert_id' FROM cs.outbox WHERE event = 'alert'),
	'{"key": null, "note": null, "rule": "much", "actor": "cs_ext", "cause": null, "owner": "ann", "message": "much", "severity": "medium", "to_state": "open", "from_state": null}',
	'an alert says all that a receiver needs');
CALL public.at('2026-03-02 11:00', 2000, 10);
SELECT is((SELECT count(*) FROM cs.outbox), 4::bigint, 'evaluating again adds nothing');
INSERT INTO cs_internal.health (customer_id, as_of, score, band, computed_at) VALUES ('a', '2026-03-02 11:00+00', 80, 'green', now());
SELECT is((SELECT count(*) FROM cs.outbox WHERE event = 'band'), 0::bigint, 'a first band is no change');
UPDATE cs_internal.health SET score = 79, as_of = '2026-03-02 11:30+00' WHERE customer_id = 'a';
SELECT is((SELECT count(*) FROM cs.outbox WHERE event = 'band'), 0::bigint, 'nor is another score');
UPDATE cs_internal.health SET band = 'yellow', score = 60, as_of = '2026-03-02 12:00+00' WHERE customer_id = 'a';
SELECT is((SELECT (payload ->> 'from', payload ->> 'to', payload ->> 'score')::text FROM cs.outbox WHERE event = 'band'), '(green,yellow,60)', 'another band is');
BEGIN;
CALL public.at('2026-03-02 13:00', 10, 2000);
SELECT is((SELECT count(*) FROM cs.outbox) > 5, true, 'seen inside the transaction');
ROLLBACK;
SELECT is((SELECT count(*) FROM cs.outbox), 5::bigint, 'and undone with the change');

-- ---- consuming ------------------------------------------------------------------
SELECT is(public.told('mail', 2), 'segment a leave small; segment a enter red', 'max_rows limits');
SELECT is(public.told('mail', 2), 'segment a leave small; segment a enter red', 'the same again until acknowledged');
CREATE TEMP TABLE first AS SELECT * FROM cs.poll('mail');
SELECT results_eq($$SELECT seq, idempotency_key FROM cs.poll('mail')$$, 'SELECT seq, idempotency_key FROM first', 'with the same keys');
SELECT is((SELECT array_agg(seq ORDER BY seq) FROM first), '{1,2,3,4,5}', 'numbers are dense');
SELECT is((SELECT count(DISTINCT idempotency_key) FROM first), 5::bigint, 'keys are unique');
SELECT cs.ack('mail', 3);
SELECT is(public.told('mail'), 'alert a much open; band a green yellow', 'then it goes on');
SELECT cs.ack('mail', 1);
SELECT is(public.told('mail'), 'alert a much open; band a green yellow', 'a smaller ack changes nothing');
SELECT is(public.told('crm', 1), 'segment a leave small', 'another consumer has its own position');
SELECT throws_ok($$SELECT cs.ack('mail', 6)$$, '22023', NULL, 'nobody acknowledges what was never given');
SELECT throws_ok($$SELECT cs.ack('mail', NULL)$$, '22023', NULL, 'nor nothing');
SELECT throws_like($$SELECT cs.ack('male', 1)$$, '%unknown consumer "male"%', 'an unknown consumer is refused');
SELECT throws_ok($$SELECT * FROM cs.poll('mail', 0)$$, '22023', NULL, 'so is max_rows 0');
SELECT throws_ok($$SELECT * FROM cs.poll(' ')$$, '42602', NULL, 'and a consumer without a name');
SELECT is((SELECT array_agg((consumer, seq, waiting)::text ORDER BY consumer) FROM cs.outbox_consumer),
	'{"(crm,0,5)","(early,0,5)","(mail,3,2)"}', 'the view says how far each is');
INSERT INTO cs_internal.hold (reason, since) VALUES ('restore', now());
SELECT is(public.told('mail'), NULL, 'a restored database gives nothing');
SELECT cs.release_hold() \gset
SELECT is(public.told('mail', 1), 'alert a much open', 'until the hold is released');

-- the same change at the same instant twice: told twice
CALL public.at('2026-03-02 14:00', 10, 10);
CALL public.at('2026-03-02 14:00', 150, 10);
CALL public.at('2026-03-02 14:00', 10, 10);
SELECT is((SELECT string_agg(payload ->> 'action', ' ' ORDER BY id) FROM cs_internal.outbox WHERE payload ->> 'segment' = 'big'),
	'enter leave enter leave', 'going to and fro at one instant is told as it was');
SELECT is((SELECT count(DISTINCT idempotency_key) = count(*) FROM cs.outbox), true, 'under different keys');
SELECT is((SELECT array_agg(DISTINCT x.last) FROM (SELECT DISTINCT ON (customer_id, payload ->> 'segment') customer_id, payload ->> 'segment' AS segment, payload ->> 'action' AS last
		FROM cs_internal.outbox WHERE event = 'segment' ORDER BY 1, 2, id DESC) x
	JOIN cs.customer_segment m ON m.customer_id = x.customer_id AND m.segment = x.segment), '{enter}', 'who replays it knows who is where');

-- ---- how long it is kept -----------------------------------------------------------
SELECT cs.drop_consumer('early'), cs.ack('crm', 2) \gset
SELECT is(cs_internal.outbox_retention(), 2::bigint, 'what everybody has goes');
SELECT is((SELECT min(seq) FROM cs.outbox), 3::bigint, 'and no more');
SELECT is(cs_internal.outbox_retention(max_rows => 1) > 0, true, 'beyond the limit all but the newest go');
SELECT is((SELECT array_agg((consumer, waiting)::text ORDER BY consumer) FROM cs.outbox_consumer), '{"(crm,1)","(mail,1)"}', 'consumers go on behind them');
SELECT is((SELECT lost FROM cs.outbox_consumer WHERE consumer = 'crm'), (SELECT max(seq) - 3 FROM cs.outbox), 'and know what they lost');
SELECT is((SELECT count(*) FROM cs.doctor() WHERE "check" = 'outbox_lost'), 2::bigint, 'the doctor says so');
SELECT is(cs_internal.outbox_retention(keep => '-1 hour') > 0, true, 'age is a limit too');
CALL public.at('2026-03-02 15:00', 150, 10);
SELECT max(seq) AS before FROM cs_internal.outbox_number \gset
SELECT is((SELECT min(seq) FROM cs.poll('mail')), :before + 1::bigint, 'numbers go on where they were');
SELECT is((SELECT count(*) FROM cs.poll('late')), (SELECT count(*) FROM cs.outbox), 'a new consumer gets what is there');
SELECT throws_ok($$SELECT cs.drop_consumer('nobody')$$, 'P0002', NULL, 'dropping nobody is an error');

UPDATE cs.outbox_topic SET enabled = false;
CALL public.at('2026-03-02 16:00', 10, 150);
SELECT is((SELECT count(*) FROM cs_internal.outbox WHERE at >= '2026-03-02 16:00+00'), 0::bigint, 'a topic that is off asks for nothing');
SELECT * FROM finish();
