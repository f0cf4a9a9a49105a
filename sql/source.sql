
-- ---------------------------------------------------------------------------
-- source: where the facts are, how they are read, how change is noticed.
-- ---------------------------------------------------------------------------

CREATE TABLE cs.source (
	name text PRIMARY KEY,
	kind text NOT NULL,
	relation text NOT NULL,             -- qualified and quoted
	columns jsonb NOT NULL,             -- canonical name -> SQL expression
	capture text NOT NULL DEFAULT 'auto',
	terms text NOT NULL DEFAULT 'interval',
	enabled boolean NOT NULL DEFAULT true,
	description text,
	search_path text NOT NULL DEFAULT pg_catalog.current_setting('search_path')
);
SELECT pg_catalog.pg_extension_config_dump('cs.source', '');

-- Derived, one row a source: how far it is read and what was found.
CREATE TABLE cs_internal.source_state (
	source text PRIMARY KEY,
	capture text NOT NULL,              -- what is in force: trigger, watermark, scan or window
	capture_reason text NOT NULL,
	needs_scan boolean NOT NULL DEFAULT true,   -- re-read whole at the next refresh
	scanned_at timestamptz,             -- when it was last read whole
	looked_at timestamptz,              -- when it was last looked at: whole, by watermark, or its window
	watermark pg_snapshot,              -- what was seen then; our own transaction counts as running
	rewritten bigint,                   -- updates and deletes the server had counted at scanned_at
	first_at timestamptz,               -- least and greatest anchor of usable rows
	last_at timestamptz,
	bounded boolean NOT NULL DEFAULT false,     -- no anchor lies behind last_at: it was looked up, or widened by all that changed
	has_rows boolean NOT NULL DEFAULT false,    -- any usable rows
	available boolean NOT NULL DEFAULT false,   -- has rows before the last evaluated instant
	changed_since timestamptz,          -- anchors changed since first_at and last_at were found
	changed_until timestamptz,
	read_whole boolean NOT NULL DEFAULT false,  -- since then it was read whole: they are looked up
	column_types jsonb,                 -- type oid of each mapped expression, as last analysed
	storage text,                       -- oid and file of the relation and its partitions, as last seen
	error text,
	failures integer NOT NULL DEFAULT 0,        -- to read it, one soon after the other
	retry_at timestamptz                -- where needs_scan: not before, unless somebody calls for a refresh
);

-- Written by the capture trigger: one row per source and customer and flush.
-- No index, no key: appended by writers, read and deleted by ctid by refresh.
-- source '*': a definition changed, every customer is evaluated again.
-- customer_key is the outside id; '' stands for rows without a customer, NULL
-- for more customers than are noted: the whole source.
CREATE TABLE cs_internal.change_log (
	source text NOT NULL,
	customer_key text,                  -- the user's id where user_id is mapped
	since timestamptz,                  -- anchors touched: [since, until]; NULL = unknown, all
	until timestamptz,                  -- since after until: none but those refused
	refused bigint                      -- rows written below the seal; NULL: none
);

-- Work queue of ingest, filled from change_log and by scans.
CREATE TABLE cs_internal.pending (
	source text NOT NULL,
	customer_id text COLLATE "C" NOT NULL,
	since timestamptz NOT NULL DEFAULT '-infinity',
	until timestamptz NOT NULL DEFAULT 'infinity',
	PRIMARY KEY (source, customer_id)
);

-- Checksum per customer of a scanned source; of a window per local day of the
-- anchor, customer_id '' = none.
CREATE TABLE cs_internal.scan_checksum (
	source text NOT NULL,
	customer_id text COLLATE "C" NOT NULL,
	day date NOT NULL DEFAULT '-infinity',      -- scan: all days; window: rows without an anchor
	checksum numeric NOT NULL,
	PRIMARY KEY (source, customer_id, day)
);

-- Ids met in a source that were no customers then.
CREATE TABLE cs_internal.orphan (
	source text NOT NULL,
	customer_id text COLLATE "C" NOT NULL,
	PRIMARY KEY (source, customer_id)
);

-- Rows that cannot be used, counted where they stand. customer_id '' = none.
CREATE TABLE cs_internal.unusable (
	source text NOT NULL,
	customer_id text COLLATE "C" NOT NULL DEFAULT '',
	reason text NOT NULL,
	row_count bigint NOT NULL,
	example text,
	found_by text NOT NULL DEFAULT 'source',    -- who counts it again: source, or ledger (no rate, too much money)
	PRIMARY KEY (source, customer_id, reason)
);

COMMENT ON TABLE cs.source IS
'Sources: relations registered for a kind of facts. Written by cs.add_source() and cs.drop_source().';
COMMENT ON COLUMN cs.source.name IS 'Name of the source; metrics of kind other name it.';
COMMENT ON COLUMN cs.source.kind IS 'Kind of facts: customer, user, subscription, usage_event, ticket, survey, invoice, touchpoint, message, onboarding_step, cancellation or other.';
COMMENT ON COLUMN cs.source.relation IS 'The relation, qualified and quoted as text, so that a dump restores before it exists.';
COMMENT ON COLUMN cs.source.columns IS 'Canonical or x_ column name -> SQL expression over the relation.';
COMMENT ON COLUMN cs.source.capture IS 'What was asked for: auto, trigger, watermark, scan, window or window <days>. cs.source_status says what is in force.';
COMMENT ON COLUMN cs.source.terms IS 'interval: each row is a fact, an UPDATE corrects history. current (subscriptions): a row is overwritten in place, a change of amount, currency, status, trial, seats, product or term counts from changed_at, else from the refresh that finds it.';
COMMENT ON COLUMN cs.source.enabled IS 'false: the source is not read.';
COMMENT ON COLUMN cs.source.description IS 'Free text, or NULL.';
COMMENT ON COLUMN cs.source.search_path IS 'search_path of the session that added the source; its expressions are read with it.';

-- The capture trigger. It only notes keys in memory, so who can attach it to a
-- table of his own can at most have customers looked at again.
CREATE FUNCTION cs_internal.capture() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'cs_capture';
COMMENT ON FUNCTION cs_internal.capture() IS 'Trigger on the tables of sources: notes which customers changed.';

-- Not gates: who calls matters, so these look at the caller before they become the owner.
CREATE FUNCTION cs.add_source(name text, kind text, relation regclass, columns jsonb,
	capture text DEFAULT 'auto', terms text DEFAULT 'interval')
RETURNS TABLE ("column" text, mapped_to text, sample text, warning text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_add_source';
COMMENT ON FUNCTION cs.add_source(text, text, regclass, jsonb, text, text) IS
'Registers a relation for one kind of facts. columns maps canonical names (or x_ names of your own) to SQL expressions. Returns one row per canonical column: what it is mapped to (NULL: not mapped), the value in the first row, a warning. Needs membership of policy.run_as and the TRIGGER privilege; grants run_as SELECT where the caller can. Reads no more than one row.';

CREATE FUNCTION cs.drop_source(name text) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_drop_source';
COMMENT ON FUNCTION cs.drop_source(text) IS
'Forgets a source: its capture triggers go, its facts stay, what was derived from them goes at the next refresh. Raises for an unknown source and for one that metrics or other sources need.';

CREATE FUNCTION cs.preview_source(kind text, relation regclass, columns jsonb, max_rows integer DEFAULT 10)
RETURNS TABLE (usable boolean, reason text, "row" jsonb)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_preview_source';
COMMENT ON FUNCTION cs.preview_source(text, regclass, jsonb, integer) IS
'The first rows as a source with this mapping would read them; reason says why a row could not be used. Writes nothing.';

CREATE FUNCTION cs.create_tables(schema text) RETURNS TABLE (source text, relation text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_create_tables';
COMMENT ON FUNCTION cs.create_tables(text) IS
'Makes empty fact tables in a schema (made if missing) and registers each as a source. They are ordinary tables of the caller and outlive the extension.';

CREATE FUNCTION cs_internal.mark_changed(source text, customer text, since timestamptz, until timestamptz) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_mark_changed';
COMMENT ON FUNCTION cs_internal.mark_changed(text, text, timestamptz, timestamptz) IS 'See cs.mark_changed.';
CREATE FUNCTION cs.mark_changed(source text, customer text DEFAULT NULL, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.mark_changed(text, text, timestamptz, timestamptz) IS
'Says that facts changed where no trigger saw it (ETL, ATTACH PARTITION): of one customer, or of the whole source when customer is NULL; with anchors in [since, until], NULL = unbounded.';

-- A guess at what a relation is, from the names of its columns alone. Patterns
-- are tried in order; a kind counts when all its required columns are found.
CREATE FUNCTION cs_internal.suggest_source(relation regclass) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
	best record;
BEGIN
	IF relation IS NULL OR NOT EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = relation) THEN
		RAISE EXCEPTION 'relation does not exist' USING ERRCODE = 'undefined_table';
	END IF;
	WITH pattern (kind, col, required, types, names) AS (VALUES
		('customer', 'customer_id', true, '', 'customer_id|account_id|company_id|org_id|organization_id|organisation_id|tenant_id|id'),
		('customer', 'created_at', false, 'D', 'created_at|signup_date|signup|signed_up_at|created|created_on|since'),
		('customer', 'name', true, 'S', 'name|customer_name|account_name|company_name|company|org_name'),
		('customer', 'owner', false, 'S', 'owner|csm|account_manager|csm_name|owner_name'),
		('customer', 'parent_id', false, '', 'parent_id|parent_account_id|parent'),
		('user', 'user_id', true, '', 'user_id|member_id|id'),
		('user', 'email', true, 'S', 'email|email_address|mail'),
		('user', 'role', false, 'S', 'role|user_role'),
		('user', 'valid_from', false, 'D', 'valid_from|joined_at|created_at'),
		('user', 'valid_to', false, 'D', 'valid_to|left_at|deleted_at|deactivated_at'),
		('subscription', 'subscription_id', false, '', 'subscription_id|contract_id|id'),
		('subscription', 'start_at', true, 'D', 'start_at|start_date|started_at|starts_at|current_period_start|valid_from|begin_date'),
		('subscription', 'end_at', false, 'D', 'end_at|end_date|ended_at|ends_at|valid_to|expires_at'),
		('subscription', 'mrr', true, 'N', 'mrr|mrr_amount|monthly_amount|monthly_price|monthly_revenue|price_per_month'),
		('subscription', 'product', false, 'S', 'product|plan|plan_tier|plan_name|product_name'),
		('subscription', 'seats', false, 'N', 'seats|licenses|licences|quantity'),
		('subscription', 'status', false, 'S', 'status|state'),
		('subscription', 'is_trial', false, 'B', 'is_trial|trial'),
		('subscription', 'auto_renew', false, 'B', 'auto_renew|auto_renew_flag|autorenew'),
		('subscription', 'renews_at', false, 'D', 'renews_at|renewal_date|term_end|next_renewal'),
		('subscription', 'cancel_requested_at', false, 'D', 'cancel_requested_at|canceled_at|cancelled_at'),
		('subscription', 'currency', false, 'S', 'currency|currency_code'),
		('usage_event', 'at', true, 'D', 'at|occurred_at|event_at|event_time|timestamp|ts|usage_date|created_at|time'),
		('usage_event', 'event', true, 'S', 'event|event_name|event_type|feature|feature_name|action'),
		('usage_event', 'user_id', false, '', 'user_id|member_id|actor_id'),
		('usage_event', 'event_count', false, 'I', 'event_count|usage_count|count|n'),
		('usage_event', 'quantity', false, 'N', 'quantity|amount|value|usage_duration_secs'),
		('ticket', 'ticket_id', true, '', 'ticket_id|case_id|issue_id|ticket_number|id'),
		('ticket', 'opened_at', true, 'D', 'opened_at|submitted_at|created_at|opened|reported_at'),
		('ticket', 'resolved_at', true, 'D', 'resolved_at|closed_at|solved_at|completed_at'),
		('ticket', 'first_reply_at', false, 'D', 'first_reply_at|first_response_at|replied_at'),
		('ticket', 'severity', false, 'S', 'severity|priority|urgency'),
		('ticket', 'category', false, 'S', 'category|type|topic'),
		('ticket', 'csat', false, 'N', 'csat|satisfaction_score|satisfaction|rating'),
		('ticket', 'escalated', false, 'B', 'escalated|escalation_flag|is_escalated'),
		('survey', 'at', true, 'D', 'at|answered_at|responded_at|submitted_at|created_at'),
		('survey', 'kind', true, 'S', 'kind|survey|survey_type|type'),
		('survey', 'score', true, 'N', 'score|rating|answer|nps|nps_score'),
		('survey', 'respondent', false, '', 'respondent|respondent_id|email|user_id'),
		('invoice', 'invoice_id', false, '', 'invoice_id|invoice_number|number|id'),
		('invoice', 'due_at', true, 'D', 'due_at|due_date|due_on|due'),
		('invoice', 'issued_at', false, 'D', 'issued_at|invoice_date|issued_on|issue_date|created_at'),
		('invoice', 'paid_at', false, 'D', 'paid_at|paid_date|payment_date|paid_on'),
		('invoice', 'amount', false, 'N', 'amount|total|amount_due|total_amount'),
		('invoice', 'currency', false, 'S', 'currency|currency_code'),
		('touchpoint', 'at', true, 'D', 'at|contacted_at|met_at|activity_date|occurred_at|created_at|date'),
		('touchpoint', 'channel', true, 'S', 'channel|activity_type|contact_type|medium'),
		('touchpoint', 'author', false, 'S', 'author|csm|owner|created_by'),
		('touchpoint', 'department', false, 'S', 'department|team'),
		('touchpoint', 'note', false, 'S', 'note|notes|summary|subject'),
		('message', 'sent_at', true, 'D', 'sent_at|delivered_at'),
		('message', 'opened_at', false, 'D', 'opened_at|open_at|read_at'),
		('message', 'clicked_at', false, 'D', 'clicked_at|click_at'),
		('message', 'campaign', false, 'S', 'campaign|campaign_name'),
		('message', 'channel', false, 'S', 'channel'),
		('onboarding_step', 'step', true, 'S', 'step|step_name|task|milestone'),
		('onboarding_step', 'completed_at', true, 'D', 'completed_at|done_at|finished_at'),
		('onboarding_step', 'starts_at', false, 'D', 'starts_at|start_at|created_at'),
		('onboarding_step', 'due_at', false, 'D', 'due_at|due_date'),
		('cancellation', 'at', true, 'D', 'at|churn_date|churned_at|cancelled_at|canceled_at|cancellation_date'),
		('cancellation', 'reason', true, 'S', 'reason|reason_code|churn_reason|cancel_reason'),
		('cancellation', 'note', false, 'S', 'note|feedback_text|feedback|comment')),
	key (kind, names) AS (
		SELECT k, 'customer_id|account_id|company_id|org_id|organization_id|organisation_id|tenant_id|client_id'
		FROM unnest('{user,subscription,usage_event,ticket,survey,invoice,touchpoint,message,onboarding_step,cancellation}'::text[]) k),
	wanted AS (
		SELECT p.kind, p.col, p.required, p.types, p.names FROM pattern p
		UNION ALL SELECT k.kind, 'customer_id', true, '', k.names FROM key k),
	att AS (
		SELECT a.attname::text AS name, CASE
			WHEN b.oid = 'bool'::regtype THEN 'B' WHEN b.typcategory = 'D' THEN 'D'
			WHEN b.oid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) THEN 'IN'
			WHEN b.typcategory = 'N' THEN 'N' WHEN b.typcategory IN ('S', 'E') THEN 'S' ELSE '?' END AS type
		FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
		JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
		WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped),
	found AS (
		SELECT DISTINCT ON (w.kind, w.col) w.kind, w.col, w.required, a.name
		FROM wanted w CROSS JOIN LATERAL regexp_split_to_table(w.names, '\|') WITH ORDINALITY n(name, o)
		JOIN att a ON lower(a.name) = n.name AND (w.types = '' OR position(w.types IN a.type) > 0)
		ORDER BY w.kind, w.col, n.o),
	kinds AS (
		SELECT f.kind, count(*) FILTER (WHERE f.required) AS required, count(*) AS n,
			jsonb_object_agg(f.col, quote_ident(f.name)) AS columns
		FROM found f GROUP BY f.kind)
	SELECT k.kind, k.columns INTO best
	FROM kinds k
	WHERE k.required = (SELECT count(*) FROM wanted w WHERE w.kind = k.kind AND w.required)
	ORDER BY (SELECT c.relname ~* replace(k.kind, '_', '.?') FROM pg_class c WHERE c.oid = relation) DESC, k.n DESC, k.kind
	LIMIT 1;
	IF best.kind IS NULL THEN
		RAISE NOTICE 'no kind of facts is recognised in the columns of %', relation
			USING HINT = 'Map it by hand with cs.add_source(); kind other takes any table with a customer id.';
		RETURN NULL;
	END IF;
	RETURN format('SELECT * FROM cs.add_source(%L, %L, %L, %L);', best.kind, best.kind,
		(SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation),
		best.columns);
END $$;
COMMENT ON FUNCTION cs_internal.suggest_source(regclass) IS 'See cs.suggest_source.';

CREATE FUNCTION cs.suggest_source(relation regclass) RETURNS text
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_gate';
COMMENT ON FUNCTION cs.suggest_source(regclass) IS
'A ready call of cs.add_source() guessed from the names and types of the columns; NULL with a NOTICE when no kind of facts is recognised. Look it over before running it.';
