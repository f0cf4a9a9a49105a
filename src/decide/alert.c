/*
 * alert.c
 *		The stage of alerts.
 *
 * In: the rows of state of a batch with all earlier stages done, the enabled
 * alert rules, and the live alerts of these customers.  Out: alerts opened,
 * resolved, woken and opened again, an event for each change (its seq is NULL:
 * it is numbered after commit), and rules that hold too much back in
 * cs_internal.definition_status.
 *
 * The way: read and lock the live alerts; ask every rule (alert_rule.c);
 * bring both together by rule, customer and key; let the state machine take one
 * step for each pair (alert_step.c); decide which of those that are to open may
 * (alert_limit.c); write what is different.
 *
 * Cases.
 * A person acts on an alert meanwhile: the lock waits for that transaction and
 * reads what it made of the alert, although the batch has an older snapshot.
 * A rule that is gone or disabled: its alerts are resolved, cause "definition".
 * A customer who is none any more: cs_internal.end_alerts, not here.
 * A what-if writes nothing decided: the stage does nothing.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/timestamp.h"

#include "cs_ext.h"
#include "core/empty.h"
#include "core/texts.h"
#include "decide/alert.h"
#include "facts/merge.h"

PG_FUNCTION_INFO_V1(cs_evaluate_alerts_sql);
PG_FUNCTION_INFO_V1(cs_evaluate_segment_alerts_sql);

typedef struct Stage
{
	CsBatch *batch;
	CsAlertRule *rules; /* by name */
	int nrules;
	CsAlert **alerts; /* live ones, by rule, customer, key */
	int nalerts;
	List *outcomes; /* CsOutcome * */
	List *steps;    /* CsStep * */
	CsResult *changes;
} Stage;

/* ---- reading ------------------------------------------------------------ */

static TimestampTz
time_cell(uint64 row, int column)
{
	bool isnull;
	Datum value = cs_cell_datum(row, column, &isnull);

	return isnull ? CS_NEVER : DatumGetTimestampTz(value);
}

static bool
bool_cell(uint64 row, int column)
{
	bool isnull;

	return DatumGetBool(cs_cell_datum(row, column, &isnull));
}

/*
 * read_alerts: live alerts of the batch, locked in order of id; the rows that
 * come back are the newest versions, not those of the snapshot.
 */
static void
read_alerts(Stage *stage)
{
	uint64 n =
		cs_is_empty("alert")
			? 0
			: cs_exec("SELECT a.id, a.rule, a.customer_id, a.key, a.severity, a.state, a.message, "
					  "a.cause,"
					  " a.pending_since, a.held_by, a.opened_at, a.fired_at, a.acknowledged_at, "
					  "a.snoozed_until,"
					  " a.clear_since, a.resolved_at, a.rearmed, a.due_at,"
					  " a.ack_due_at, a.resolve_due_at, a.ack_missed, a.resolve_missed, "
					  "a.escalated_to, "
					  "a.escalated_at, a.fact_id"
					  " FROM cs_internal.alert a WHERE a.live"
					  " AND a.customer_id = ANY ((SELECT $1)::text[]) ORDER BY a.id FOR UPDATE",
					  CS_ARGS(cs_textarray(stage->batch->ids)));

	stage->nalerts = (int) n;
	stage->alerts = palloc0(sizeof(CsAlert *) * (n + 1));
	for (uint64 i = 0; i < n; i++)
	{
		CsAlert *alert = palloc0(sizeof(CsAlert));
		bool isnull;

		alert->id = DatumGetInt64(cs_cell_datum(i, 1, &isnull));
		alert->rule = cs_cell(i, 2);
		alert->customer_id = cs_cell(i, 3);
		alert->key = cs_cell(i, 4);
		alert->severity = cs_cell(i, 5);
		alert->state = cs_alert_state_of(cs_cell(i, 6));
		alert->message = cs_cell(i, 7);
		alert->cause = cs_cell(i, 8);
		alert->pending_since = time_cell(i, 9);
		alert->held_by = cs_cell(i, 10);
		alert->opened_at = time_cell(i, 11);
		alert->fired_at = time_cell(i, 12);
		alert->acknowledged_at = time_cell(i, 13);
		alert->snoozed_until = time_cell(i, 14);
		alert->clear_since = time_cell(i, 15);
		alert->resolved_at = time_cell(i, 16);
		alert->rearmed = bool_cell(i, 17);
		alert->due_at = time_cell(i, 18);
		alert->held_until = alert->held_by ? alert->due_at : CS_NEVER;
		alert->ack_due_at = time_cell(i, 19);
		alert->resolve_due_at = time_cell(i, 20);
		alert->ack_missed = bool_cell(i, 21);
		alert->resolve_missed = bool_cell(i, 22);
		alert->escalated_to = cs_cell(i, 23);
		alert->escalated_at = time_cell(i, 24);
		alert->fact_id = cs_cell(i, 25);
		alert->live = true;
		stage->alerts[i] = alert;
	}
}

int
cs_compare_identity(const char *rule1, const char *customer1, const char *key1, const char *rule2,
					const char *customer2, const char *key2)
{
	int c = strcmp(rule1, rule2);

	if (c == 0)
		c = strcmp(customer1, customer2);
	return c != 0 ? c : strcmp(key1, key2);
}

static int
compare_alerts(const void *a, const void *b)
{
	const CsAlert *x = *(CsAlert *const *) a;
	const CsAlert *y = *(CsAlert *const *) b;

	return cs_compare_identity(x->rule, x->customer_id, x->key, y->rule, y->customer_id, y->key);
}

/*
 * is_known: whether there is a live alert of this identity.
 */
static bool
is_known(const CsAlertRule *rule, const char *customer_id, const char *key, void *arg)
{
	Stage *stage = arg;
	CsAlert wanted = {.rule = rule->name, .customer_id = (char *) customer_id, .key = (char *) key};
	CsAlert *p = &wanted;

	return bsearch(&p, stage->alerts, stage->nalerts, sizeof(CsAlert *), compare_alerts) != NULL;
}

/* ---- writing ------------------------------------------------------------- */

static const struct
{
	const char *name;
	Oid type;
} change_columns[] = {
	{"id", INT8OID},
	{"rule", TEXTOID},
	{"customer_id", TEXTOID},
	{"key", TEXTOID},
	{"severity", TEXTOID},
	{"state", TEXTOID},
	{"message", TEXTOID},
	{"cause", TEXTOID},
	{"pending_since", TIMESTAMPTZOID},
	{"held_by", TEXTOID},
	{"opened_at", TIMESTAMPTZOID},
	{"fired_at", TIMESTAMPTZOID},
	{"acknowledged_at", TIMESTAMPTZOID},
	{"snoozed_until", TIMESTAMPTZOID},
	{"clear_since", TIMESTAMPTZOID},
	{"resolved_at", TIMESTAMPTZOID},
	{"rearmed", BOOLOID},
	{"live", BOOLOID},
	{"due_at", TIMESTAMPTZOID},
	{"ack_due_at", TIMESTAMPTZOID},
	{"resolve_due_at", TIMESTAMPTZOID},
	{"ack_missed", BOOLOID},
	{"resolve_missed", BOOLOID},
	{"escalated_to", TEXTOID},
	{"escalated_at", TIMESTAMPTZOID},
	{"fact_id", TEXTOID},
	{"from_state", TEXTOID},
	{"moved", BOOLOID},
	{"event_cause", TEXTOID},
	{"note", TEXTOID},
};

#define NCHANGE lengthof(change_columns)

static void
begin_changes(Stage *stage)
{
	CsResult *changes = palloc0(sizeof(CsResult));

	changes->desc = CreateTemplateTupleDesc(NCHANGE);
	for (int i = 0; i < NCHANGE; i++)
		TupleDescInitEntry(changes->desc, i + 1, change_columns[i].name, change_columns[i].type, -1,
						   0);
	TupleDescInitEntryCollation(changes->desc, 3, C_COLLATION_OID);
	changes->store = tuplestore_begin_heap(true, false, CS_RESULT_MEM);
	stage->changes = changes;
}

static void
note_change(Stage *stage, const CsAlert *alert, const CsAlertChange *change)
{
	Datum values[NCHANGE];
	bool nulls[NCHANGE] = {false};
	int n = 0;

#define PUT(is_null, datum) (nulls[n] = (is_null), values[n] = nulls[n] ? (Datum) 0 : (datum), n++)
#define PUT_TEXT(s) PUT((s) == NULL, CStringGetTextDatum(s))
#define PUT_TIME(t) PUT((t) == CS_NEVER, TimestampTzGetDatum(t))
	PUT(alert->id == 0, Int64GetDatum(alert->id));
	PUT_TEXT(alert->rule);
	PUT_TEXT(alert->customer_id);
	PUT_TEXT(alert->key);
	PUT_TEXT(alert->severity);
	PUT_TEXT(cs_alert_state_name(alert->state));
	PUT_TEXT(alert->message);
	PUT_TEXT(alert->cause);
	PUT_TIME(alert->pending_since);
	PUT_TEXT(alert->held_by);
	PUT_TIME(alert->opened_at);
	PUT_TIME(alert->fired_at);
	PUT_TIME(alert->acknowledged_at);
	PUT_TIME(alert->snoozed_until);
	PUT_TIME(alert->clear_since);
	PUT_TIME(alert->resolved_at);
	PUT(false, BoolGetDatum(alert->rearmed));
	PUT(false, BoolGetDatum(alert->live));
	PUT_TIME(alert->due_at);
	PUT_TIME(alert->ack_due_at);
	PUT_TIME(alert->resolve_due_at);
	PUT(false, BoolGetDatum(alert->ack_missed));
	PUT(false, BoolGetDatum(alert->resolve_missed));
	PUT_TEXT(alert->escalated_to);
	PUT_TIME(alert->escalated_at);
	PUT_TEXT(alert->fact_id);
	PUT_TEXT(cs_alert_state_name(change->from));
	PUT(false, BoolGetDatum(change->moved));
	PUT_TEXT(change->cause);
	PUT_TEXT(change->note);
#undef PUT_TIME
#undef PUT_TEXT
#undef PUT
	Assert(n == NCHANGE);
	tuplestore_putvalues(stage->changes->store, stage->changes->desc, values, nulls);
	stage->changes->nrows++;
}

static bool
same_text(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool
is_different(const CsAlert *a, const CsAlert *b)
{
	return a->state != b->state || !same_text(a->message, b->message) ||
		   !same_text(a->severity, b->severity) || a->pending_since != b->pending_since ||
		   !same_text(a->held_by, b->held_by) || a->ack_missed != b->ack_missed ||
		   a->resolve_missed != b->resolve_missed || a->escalated_at != b->escalated_at ||
		   a->opened_at != b->opened_at || a->fired_at != b->fired_at ||
		   a->acknowledged_at != b->acknowledged_at || a->snoozed_until != b->snoozed_until ||
		   a->clear_since != b->clear_since || a->resolved_at != b->resolved_at ||
		   a->rearmed != b->rearmed || a->live != b->live || a->due_at != b->due_at ||
		   !same_text(a->fact_id, b->fact_id);
}

/*
 * new_alert: the rule says something where no live alert is.
 */
static CsAlert *
new_alert(const CsOutcome *outcome)
{
	CsAlert *alert = palloc0(sizeof(CsAlert));

	alert->rule = outcome->rule->name;
	alert->customer_id = outcome->customer_id;
	alert->key = outcome->key;
	alert->severity = outcome->severity ? outcome->severity : outcome->rule->severity;
	alert->fact_id = outcome->fact_id;
	alert->state = CS_NONE;
	alert->live = true;
	alert->pending_since = alert->opened_at = alert->fired_at = alert->acknowledged_at = CS_NEVER;
	alert->snoozed_until = alert->clear_since = alert->resolved_at = alert->due_at = CS_NEVER;
	alert->held_until = alert->ack_due_at = alert->resolve_due_at = alert->escalated_at = CS_NEVER;
	return alert;
}

/*
 * step_alert: one live alert with what its rule says (NULL: nothing).
 */
static void
step_alert(Stage *stage, CsAlert *alert, const CsOutcome *outcome)
{
	CsStep *step = palloc0(sizeof(CsStep));
	bool again = false;

	step->rule = cs_alert_rule_find(stage->rules, stage->nrules, alert->rule);
	step->alert = alert;
	step->before = *alert;
	if (step->rule != NULL && outcome == NULL)
		outcome = cs_row_left(stage->batch, step->rule, alert);
	if (step->rule == NULL)
		cs_alert_end(stage->batch, alert, &step->change);
	else
		again = cs_alert_step(stage->batch, step->rule, alert, outcome, &step->change);
	stage->steps = lappend(stage->steps, step);
	if (again)
		step_alert(stage, new_alert(outcome), outcome);
}

/*
 * step_all: both lists are in order of identity.
 */
static void
step_all(Stage *stage)
{
	int a = 0;
	int o = 0;

	while (a < stage->nalerts || o < list_length(stage->outcomes))
	{
		CsAlert *alert = a < stage->nalerts ? stage->alerts[a] : NULL;
		CsOutcome *outcome = o < list_length(stage->outcomes) ? list_nth(stage->outcomes, o) : NULL;
		int c = alert == NULL ? 1
				: outcome == NULL
					? -1
					: cs_compare_identity(alert->rule, alert->customer_id, alert->key,
										  outcome->rule->name, outcome->customer_id, outcome->key);

		if (c <= 0)
			step_alert(stage, alert, c == 0 ? outcome : NULL);
		else
			step_alert(stage, new_alert(outcome), outcome);
		if (c <= 0)
			a++;
		if (c >= 0)
			o++;
	}
}

/*
 * conclude: opens what may open, and notes what is different.
 */
static void
conclude(Stage *stage)
{
	ListCell *lc;

	cs_alert_limits(stage->batch, stage->steps);
	foreach (lc, stage->steps)
	{
		CsStep *step = lfirst(lc);

		if (step->rule != NULL)
			cs_alert_reckon(stage->batch, step->rule, step->alert);
		if (is_different(&step->before, step->alert))
			note_change(stage, step->alert, &step->change);
	}
}

/*
 * write_changes: first what exists, so that an identity that is given up is
 * free for its successor.
 */
static void
write_changes(Stage *stage)
{
	CsArg args[] = {cs_tstz(stage->batch->as_of)};

	if (stage->changes->nrows == 0)
		return;
	cs_register("change", stage->changes);
	cs_exec("UPDATE cs_internal.alert a SET state = c.state, severity = c.severity, message = "
			"c.message, cause = c.cause,"
			" pending_since = c.pending_since, held_by = c.held_by, opened_at = c.opened_at, "
			"fired_at = "
			"c.fired_at,"
			" acknowledged_at = c.acknowledged_at, snoozed_until = c.snoozed_until, clear_since = "
			"c.clear_since,"
			" resolved_at = c.resolved_at, rearmed = c.rearmed, live = c.live, due_at = c.due_at,"
			" ack_due_at = c.ack_due_at, resolve_due_at = c.resolve_due_at, ack_missed = "
			"c.ack_missed,"
			" resolve_missed = c.resolve_missed, escalated_to = c.escalated_to, escalated_at = "
			"c.escalated_at, fact_id = c.fact_id"
			" FROM change c WHERE a.id = c.id",
			CS_NO_ARGS);
	cs_exec("INSERT INTO cs_internal.alert_event (alert_id, at, actor, from_state, to_state, "
			"cause, note)"
			" SELECT c.id, $1, 'cs_ext', c.from_state, c.state, c.event_cause, c.note"
			" FROM change c WHERE c.id IS NOT NULL AND c.moved ORDER BY c.id",
			args, 1);
	cs_exec("WITH opened AS ("
			" INSERT INTO cs_internal.alert (rule, customer_id, key, severity, state, message, "
			"cause, owner,"
			"  pending_since, held_by, opened_at, fired_at, due_at, ack_due_at, resolve_due_at,"
			"  fact_id)"
			" SELECT c.rule, c.customer_id, c.key, c.severity, c.state, c.message, c.cause,"
			"  coalesce(k.owner, r.fallback_owner), c.pending_since, c.held_by, c.opened_at, "
			"c.fired_at, c.due_at, c.ack_due_at, c.resolve_due_at, c.fact_id"
			" FROM change c LEFT JOIN cs_internal.customer k ON k.customer_id = c.customer_id"
			"  LEFT JOIN cs.alert_rule r ON r.name = c.rule"
			" WHERE c.id IS NULL ORDER BY c.rule, c.customer_id, c.key"
			" RETURNING id, rule, customer_id, key, state)"
			" INSERT INTO cs_internal.alert_event (alert_id, at, actor, from_state, to_state, "
			"cause, note)"
			" SELECT o.id, $1, 'cs_ext', NULL, o.state, c.event_cause, c.note"
			" FROM opened o JOIN change c ON c.id IS NULL AND c.moved AND c.rule = o.rule AND "
			"c.customer_id = "
			"o.customer_id"
			"  AND c.key = o.key ORDER BY o.id",
			args, 1);
	cs_unregister("change");
}

/*
 * note_held: rules that held something back say how much, in definition_status;
 * a rule that fails keeps that mark.
 */
static void
note_held(Stage *stage)
{
	const char *is =
		"SELECT h.rule, count(*) AS n, min(h.customer_id) AS example"
		" FROM cs_internal.alert h WHERE h.held_by = '" CS_HELD_MAX_NEW "' GROUP BY h.rule";
	CsArg args[] = {cs_tstz(stage->batch->computed_at)};

	cs_exec(
		psprintf("SELECT 1 FROM (%s) h FULL JOIN (SELECT d.key, d.customers FROM "
				 "cs_internal.definition_status d"
				 "  WHERE d.table_name = 'alert_rule' AND d.status = 'held') d ON d.key = h.rule"
				 " WHERE d.customers IS DISTINCT FROM h.n LIMIT 1",
				 is),
		CS_NO_ARGS);
	if (SPI_processed == 0 || !cs_status_lock())
		return;
	cs_exec(psprintf("DELETE FROM cs_internal.definition_status d WHERE d.table_name = "
					 "'alert_rule' AND d.status = 'held'"
					 " AND NOT EXISTS (SELECT 1 FROM (%s) h WHERE h.rule = d.key)",
					 is),
			CS_NO_ARGS);
	cs_exec(psprintf("INSERT INTO cs_internal.definition_status AS d (table_name, key, status, "
					 "sqlstate, error, customers, example, since)"
					 " SELECT 'alert_rule', h.rule, 'held', NULL, format('%%s alerts are held: "
					 "more than max_new = %%s would have opened in one refresh run',"
					 "  h.n, r.max_new), h.n, h.example, $1 FROM (%s) h JOIN cs.alert_rule r ON "
					 "r.name = h.rule"
					 " ON CONFLICT (table_name, key) DO UPDATE SET error = excluded.error, "
					 "customers = excluded.customers,"
					 " example = excluded.example WHERE d.status = 'held'",
					 is),
			args, 1);
}

static void
run_stage(CsBatch *batch, bool segments)
{
	Stage stage = {.batch = batch};

	stage.rules = cs_alert_rules(batch, segments ? "segment" : "customer", NULL, &stage.nrules);
	read_alerts(&stage);
	if (stage.nrules == 0 && stage.nalerts == 0)
		return;
	qsort(stage.alerts, stage.nalerts, sizeof(CsAlert *), compare_alerts);
	begin_changes(&stage);
	if (segments)
	{
		stage.outcomes = cs_segment_outcomes(batch, stage.rules, stage.nrules, is_known, &stage);
		cs_alert_settle(batch, stage.nrules, stage.outcomes);
	}
	else
		stage.outcomes =
			cs_alert_outcomes(batch, stage.rules, stage.nrules, is_known, &stage, NULL);
	step_all(&stage);
	conclude(&stage);
	write_changes(&stage);
	note_held(&stage);
	tuplestore_end(stage.changes->store);
}

/*
 * cs_stage_alerts: see decide.h.
 */
void
cs_stage_alerts(CsBatch *batch)
{
	if (!batch->what_if)
		run_stage(batch, false);
}

/*
 * cs_segment_alerts: see decide.h.
 */
void
cs_segment_alerts(TimestampTz as_of)
{
	CsBatch *batch;
	Datum nobody = CStringGetTextDatum("");
	bool isnull;

	cs_exec("SELECT cs_internal.segments_due($1)", CS_ARGS(cs_tstz(as_of)));
	if (!DatumGetBool(cs_value_datum(&isnull)))
		return;
	batch = cs_decide_batch(cs_text_array(&nobody, 1), as_of, NULL);
	run_stage(batch, true);
	cs_unregister("batch");
	cs_whose_hide();
	cs_exec("INSERT INTO cs_internal.segment_look AS l (as_of_day) VALUES ($1)"
			" ON CONFLICT (id) DO UPDATE SET as_of_day = excluded.as_of_day",
			CS_ARGS(cs_date(batch->as_of_day)));
}

/*
 * cs_number_events: see decide.h.
 */
bool
cs_number_events(void)
{
	CsFrame frame;
	bool isnull;
	bool any;

	cs_enter(&frame);
	cs_exec("SELECT cs_internal.number_events()", CS_NO_ARGS);
	any = DatumGetBool(cs_value_datum(&isnull));
	cs_leave(&frame);
	return any;
}

/*
 * cs_internal.evaluate_alerts(customer_ids, as_of, cause): the stage alone.
 */
Datum
cs_evaluate_alerts_sql(PG_FUNCTION_ARGS)
{
	char *cause = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));
	CsFrame frame;

	cs_enter(&frame);
	cs_stage_alerts(cs_decide_batch(PG_GETARG_DATUM(0), PG_GETARG_TIMESTAMPTZ(1), cause));
	cs_leave(&frame);
	PG_RETURN_VOID();
}

/*
 * cs_internal.evaluate_segment_alerts(as_of): that of whole segments alone.
 */
Datum
cs_evaluate_segment_alerts_sql(PG_FUNCTION_ARGS)
{
	CsFrame frame;

	cs_enter(&frame);
	cs_segment_alerts(PG_GETARG_TIMESTAMPTZ(0));
	cs_leave(&frame);
	PG_RETURN_VOID();
}
