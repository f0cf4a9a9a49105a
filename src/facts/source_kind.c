/*
 * source_kind.c
 *		The table of fact kinds: canonical columns, their types, which are
 *		required, which one is the anchor, and when later columns became known.
 *
 * Everything that reads, checks or documents a kind follows this table.
 */
#include "cs_ext.h"

#include "facts/source_kind.h"

#define COL(name, type, flags) \
	{                          \
		name, type, flags,     \
		{                      \
			NULL               \
		}                      \
	}
#define LATER(name, type, ...) \
	{                          \
		name, type, 0,         \
		{                      \
			__VA_ARGS__        \
		}                      \
	}
#define END  \
	{        \
		NULL \
	}
#define CUSTOMER COL("customer_id", CS_COL_TEXT, CS_COL_REQUIRED)

static const CsKindColumn customer_columns[] = {CUSTOMER,
												COL("created_at", CS_COL_TIME, CS_COL_ANCHOR),
												COL("name", CS_COL_TEXT, 0),
												COL("parent_id", CS_COL_TEXT, 0),
												COL("owner", CS_COL_TEXT, 0),
												COL("attributes", CS_COL_JSONB, 0),
												END};

static const CsKindColumn user_columns[] = {CUSTOMER,
											COL("user_id", CS_COL_TEXT, CS_COL_REQUIRED),
											COL("valid_from", CS_COL_TIME, 0),
											LATER("valid_to", CS_COL_TIME, "valid_to"),
											COL("email", CS_COL_TEXT, 0),
											COL("role", CS_COL_TEXT, 0),
											END};

/*
 * end_at and what goes with it are known from least(cancel_requested_at,
 * end_at); a term known beforehand is renews_at, visible at once.
 */
static const CsKindColumn subscription_columns[] = {
	CUSTOMER,
	COL("subscription_id", CS_COL_TEXT, 0),
	COL("start_at", CS_COL_TIME, CS_COL_REQUIRED | CS_COL_ANCHOR),
	LATER("end_at", CS_COL_TIME, "cancel_requested_at", "end_at"),
	COL("mrr", CS_COL_NUMERIC, 0),
	COL("amount", CS_COL_NUMERIC, 0),
	COL("interval", CS_COL_TEXT, 0),
	COL("interval_count", CS_COL_INT, 0),
	COL("currency", CS_COL_TEXT, 0),
	COL("product", CS_COL_TEXT, 0),
	COL("seats", CS_COL_NUMERIC, CS_COL_NOT_NEGATIVE),
	COL("term_months", CS_COL_INT, 0),
	COL("status", CS_COL_TEXT, 0),
	COL("is_trial", CS_COL_BOOL, 0),
	COL("is_recurring", CS_COL_BOOL, 0),
	COL("signed_at", CS_COL_TIME, CS_COL_ANCHOR),
	LATER("cancel_requested_at", CS_COL_TIME, "cancel_requested_at"),
	LATER("cancel_reason", CS_COL_TEXT, "cancel_requested_at", "end_at"),
	LATER("churn_kind", CS_COL_TEXT, "cancel_requested_at", "end_at"),
	COL("auto_renew", CS_COL_BOOL, 0),
	COL("renews_at", CS_COL_TIME, 0),
	LATER("changed_at", CS_COL_TIME, "changed_at"),
	END};

static const CsKindColumn usage_event_columns[] = {
	CUSTOMER,
	COL("at", CS_COL_TIME, CS_COL_REQUIRED | CS_COL_ANCHOR),
	COL("user_id", CS_COL_TEXT, 0),
	COL("event", CS_COL_TEXT, 0),
	COL("quantity", CS_COL_NUMERIC, 0),
	COL("event_count", CS_COL_INT, CS_COL_NOT_NEGATIVE),
	END};

static const CsKindColumn ticket_columns[] = {
	CUSTOMER,
	COL("ticket_id", CS_COL_TEXT, 0),
	COL("opened_at", CS_COL_TIME, CS_COL_REQUIRED | CS_COL_ANCHOR),
	LATER("first_reply_at", CS_COL_TIME, "first_reply_at"),
	LATER("resolved_at", CS_COL_TIME, "resolved_at"),
	COL("severity", CS_COL_TEXT, 0),
	COL("category", CS_COL_TEXT, 0),
	LATER("csat", CS_COL_NUMERIC, "resolved_at"),
	COL("escalated", CS_COL_BOOL, 0),
	END};

static const CsKindColumn survey_columns[] = {
	CUSTOMER,
	COL("at", CS_COL_TIME, CS_COL_REQUIRED | CS_COL_ANCHOR),
	COL("kind", CS_COL_TEXT, CS_COL_REQUIRED),
	COL("score", CS_COL_NUMERIC, CS_COL_REQUIRED),
	COL("respondent", CS_COL_TEXT, 0),
	END};

static const CsKindColumn invoice_columns[] = {CUSTOMER,
											   COL("invoice_id", CS_COL_TEXT, 0),
											   COL("issued_at", CS_COL_TIME, CS_COL_ANCHOR),
											   COL("due_at", CS_COL_TIME, CS_COL_REQUIRED),
											   LATER("paid_at", CS_COL_TIME, "paid_at"),
											   COL("amount", CS_COL_NUMERIC, 0),
											   COL("currency", CS_COL_TEXT, 0),
											   END};

static const CsKindColumn touchpoint_columns[] = {
	CUSTOMER,
	COL("at", CS_COL_TIME, CS_COL_REQUIRED | CS_COL_ANCHOR),
	COL("channel", CS_COL_TEXT, 0),
	COL("department", CS_COL_TEXT, 0),
	COL("author", CS_COL_TEXT, 0),
	COL("note", CS_COL_TEXT, 0),
	END};

static const CsKindColumn message_columns[] = {
	CUSTOMER,
	COL("sent_at", CS_COL_TIME, CS_COL_REQUIRED | CS_COL_ANCHOR),
	LATER("opened_at", CS_COL_TIME, "opened_at"),
	LATER("clicked_at", CS_COL_TIME, "clicked_at"),
	COL("channel", CS_COL_TEXT, 0),
	COL("campaign", CS_COL_TEXT, 0),
	END};

static const CsKindColumn onboarding_columns[] = {
	CUSTOMER,
	COL("step", CS_COL_TEXT, CS_COL_REQUIRED),
	COL("starts_at", CS_COL_TIME, CS_COL_ANCHOR),
	COL("due_at", CS_COL_TIME, 0),
	LATER("completed_at", CS_COL_TIME, "completed_at"),
	COL("weight", CS_COL_NUMERIC, CS_COL_NOT_NEGATIVE),
	END};

static const CsKindColumn cancellation_columns[] = {
	CUSTOMER,
	COL("at", CS_COL_TIME, CS_COL_REQUIRED | CS_COL_ANCHOR),
	COL("churn_kind", CS_COL_TEXT, 0),
	COL("reason", CS_COL_TEXT, 0),
	COL("note", CS_COL_TEXT, 0),
	END};

static const CsKindColumn licence_columns[] = {
	CUSTOMER,
	COL("seats", CS_COL_NUMERIC, CS_COL_REQUIRED | CS_COL_NOT_NEGATIVE),
	COL("start_at", CS_COL_TIME, CS_COL_REQUIRED | CS_COL_ANCHOR),
	LATER("end_at", CS_COL_TIME, "end_at"),
	COL("product", CS_COL_TEXT, 0),
	END};

/* Its key is the customer whose facts count for another one. */
static const CsKindColumn customer_merge_columns[] = {
	COL("from_customer_id", CS_COL_TEXT, CS_COL_REQUIRED),
	COL("into_customer_id", CS_COL_TEXT, CS_COL_REQUIRED),
	COL("at", CS_COL_TIME, CS_COL_REQUIRED | CS_COL_ANCHOR), END};

static const CsKindColumn other_columns[] = {CUSTOMER, COL("at", CS_COL_TIME, CS_COL_ANCHOR), END};

static const CsKind kinds[] = {
	{"customer", customer_columns},
	{"user", user_columns},
	{"subscription", subscription_columns},
	{"usage_event", usage_event_columns},
	{"ticket", ticket_columns},
	{"survey", survey_columns},
	{"invoice", invoice_columns},
	{"touchpoint", touchpoint_columns},
	{"message", message_columns},
	{"onboarding_step", onboarding_columns},
	{"cancellation", cancellation_columns},
	{"other", other_columns},
	{"licence", licence_columns},
	{"customer_merge", customer_merge_columns},
};

/*
 * cs_kind: the kind of this name, or NULL.
 */
const CsKind *
cs_kind(const char *name)
{
	for (int i = 0; i < lengthof(kinds); i++)
	{
		if (strcmp(kinds[i].name, name) == 0)
			return &kinds[i];
	}
	return NULL;
}

/*
 * cs_kind_names: all kinds that can be registered, as char *, for near matches.
 */
List *
cs_kind_names(void)
{
	List *names = NIL;

	for (int i = 0; i < lengthof(kinds); i++)
		names = lappend(names, pstrdup(kinds[i].name));
	return names;
}

/*
 * cs_kind_column: the canonical column of this name, or NULL.
 */
const CsKindColumn *
cs_kind_column(const CsKind *kind, const char *name)
{
	for (const CsKindColumn *c = kind->columns; c->name != NULL; c++)
	{
		if (strcmp(c->name, name) == 0)
			return c;
	}
	return NULL;
}

/*
 * cs_column_type_name: the SQL type a canonical column is projected as.
 */
const char *
cs_column_type_name(CsColumnType type)
{
	switch (type)
	{
		case CS_COL_TEXT:
			return "text";
		case CS_COL_TIME:
			return "timestamptz";
		case CS_COL_NUMERIC:
			return "numeric";
		case CS_COL_INT:
			return "bigint";
		case CS_COL_BOOL:
			return "boolean";
		case CS_COL_JSONB:
			return "jsonb";
	}
	return "text";
}
