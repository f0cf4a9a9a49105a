
-- ---------------------------------------------------------------------------
-- renewal: terms that run out, and what became of them.
-- ---------------------------------------------------------------------------

CREATE FUNCTION cs_internal.subscription_rows(customers text[], as_of timestamptz)
RETURNS TABLE (customer_id text, subscription_id text, start_at timestamptz, end_at timestamptz, mrr numeric, currency text, product text,
	term_months integer, status text, is_trial boolean, is_recurring boolean, signed_at timestamptz, cancel_requested_at timestamptz,
	cancel_reason text, churn_kind text, auto_renew boolean, renews_at timestamptz, changed_at timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'cs_subscription_rows_sql';
COMMENT ON FUNCTION cs_internal.subscription_rows(text[], timestamptz) IS
'Usable rows of all subscription sources, of these customers (NULL: of all), as known at as_of (NULL: as they stand). mrr is per month in the row''s currency.';
