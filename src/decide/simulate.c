/*
 * simulate.c
 *		What an alert rule would have done on kept history.
 *
 * In: a rule, an interval, and what metric_history kept at its day bounds.  Out:
 * each alert that would have opened, when, and when it would have been resolved;
 * how often the rule was evaluated and gave NULL.  Nothing is written.
 *
 * Day bound by day bound, all customers kept there go through the rule
 * (alert_rule.c) and the state machine (alert_step.c), as at a refresh at that
 * instant; what depends on other alerts or people (caps, quiet hours,
 * inhibition, acknowledgement, snooze) is left out.  Only customers for whom the
 * rule once held are remembered.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "cs_ext.h"
#include "decide/alert.h"
#include "facts/merge.h"
#include "refresh/refresh.h"

PG_FUNCTION_INFO_V1(cs_simulate_rule_sql);

#define MAX_ID 256

typedef struct Life
{
	char customer_id[MAX_ID]; /* hash key: the id, or as much of it as there is room for */
	List *alerts;             /* CsAlert *, of ids that share the key */
} Life;

typedef struct Simulation
{
	HTAB *lives;
	MemoryContext kept; /* what lives longer than a batch */
	ReturnSetInfo *out;
	CsAlertCounts counts;
	int bounds;
} Simulation;

static void
life_key(const char *customer_id, char *key)
{
	memset(key, 0, MAX_ID);
	strlcpy(key, customer_id, MAX_ID);
}

static CsAlert *
find_life(Simulation *simulation, const char *customer_id)
{
	char key[MAX_ID];
	Life *life;
	ListCell *lc;

	life_key(customer_id, key);
	life = hash_search(simulation->lives, key, HASH_FIND, NULL);
	if (life != NULL)
		foreach (lc, life->alerts)
			if (strcmp(((CsAlert *) lfirst(lc))->customer_id, customer_id) == 0)
				return lfirst(lc);
	return NULL;
}

static bool
is_known(const CsAlertRule *rule, const char *customer_id, const char *key, void *arg)
{
	return find_life(arg, customer_id) != NULL;
}

/*
 * begin_life: an alert that there is not yet.
 */
static CsAlert *
begin_life(Simulation *simulation, const CsOutcome *outcome)
{
	MemoryContext old = MemoryContextSwitchTo(simulation->kept);
	CsAlert *alert = palloc0(sizeof(CsAlert));
	char key[MAX_ID];
	bool found;
	Life *life;

	alert->customer_id = pstrdup(outcome->customer_id);
	alert->rule = pstrdup(outcome->rule->name);
	alert->key = "";
	life_key(alert->customer_id, key);
	life = hash_search(simulation->lives, key, HASH_ENTER, &found);
	if (!found)
		life->alerts = NIL;
	life->alerts = lappend(life->alerts, alert);
	MemoryContextSwitchTo(old);
	return alert;
}

static void
renew(CsAlert *alert)
{
	alert->state = CS_NONE;
	alert->live = true;
	alert->held_by = alert->cause = alert->escalated_to = NULL;
	alert->rearmed = alert->ack_missed = alert->resolve_missed = false;
	alert->pending_since = alert->opened_at = alert->fired_at = alert->acknowledged_at = CS_NEVER;
	alert->snoozed_until = alert->clear_since = alert->resolved_at = alert->due_at = CS_NEVER;
	alert->held_until = alert->ack_due_at = alert->resolve_due_at = alert->escalated_at = CS_NEVER;
}

/*
 * put: a row of the result.  opened CS_NEVER: the totals.
 */
static void
put(Simulation *simulation, const CsAlert *alert, TimestampTz resolved)
{
	Datum values[8] = {0};
	bool nulls[8];

	memset(nulls, true, sizeof(nulls));
	if (alert != NULL)
	{
		values[0] = CStringGetTextDatum(alert->customer_id);
		values[1] = TimestampTzGetDatum(alert->fired_at);
		values[2] = TimestampTzGetDatum(resolved);
		nulls[0] = nulls[1] = false;
		nulls[2] = resolved == CS_NEVER;
		values[3] = CStringGetTextDatum(alert->severity);
		nulls[3] = false;
		if (alert->message != NULL)
		{
			values[4] = CStringGetTextDatum(alert->message);
			nulls[4] = false;
		}
	}
	else
	{
		values[5] = Int64GetDatum(simulation->counts.evaluations);
		values[6] = Int64GetDatum(simulation->counts.nulls);
		values[7] = Int32GetDatum(simulation->bounds);
		nulls[5] = nulls[6] = nulls[7] = false;
	}
	tuplestore_putvalues(simulation->out->setResult, simulation->out->setDesc, values, nulls);
}

static bool
is_open(const CsAlert *alert)
{
	return alert->state >= CS_OPEN && alert->state <= CS_SNOOZED;
}

/*
 * keep_text: a copy in the place of a text that is not the one kept before,
 * which goes.
 */
static void
keep_text(Simulation *simulation, char **text, char *before)
{
	if (*text == before)
		return;
	if (*text != NULL)
		*text = MemoryContextStrdup(simulation->kept, *text);
	if (before != NULL)
		pfree(before);
}

/*
 * step: one customer at one day bound.
 */
static void
step(Simulation *simulation, const CsBatch *batch, CsAlertRule *rule, const CsOutcome *outcome)
{
	CsAlert *alert = find_life(simulation, outcome->customer_id);
	CsAlertChange change = {0};
	CsAlert before;

	if (alert == NULL)
	{
		alert = begin_life(simulation, outcome);
		alert->severity = MemoryContextStrdup(simulation->kept, rule->severity);
		renew(alert);
	}
	before = *alert;
	if (cs_alert_step(batch, rule, alert, outcome, &change))
	{
		renew(alert);
		alert->severity = outcome->severity ? outcome->severity : rule->severity;
		cs_alert_step(batch, rule, alert, outcome, &change);
	}
	else if (!alert->live)
		renew(alert);
	if (alert->wants)
	{
		if (outcome->severity == NULL)
			alert->severity = rule->severity;
		cs_alert_open(batch, rule, alert, &change);
	}
	if (is_open(&before) && !is_open(alert))
		put(simulation, &before, batch->as_of);

	/* The texts are of the batch, the alert outlives it. */
	keep_text(simulation, &alert->severity, before.severity);
	keep_text(simulation, &alert->message, before.message);
}

/*
 * simulate_bound: all customers kept at a day bound, a batch at a time.
 */
static void
simulate_bound(Simulation *simulation, const char *rule_row, TimestampTz bound)
{
	char *after = pstrdup("");
	int n;

	do
	{
		Datum ids = cs_ids_from_query(
			"SELECT m.customer_id FROM cs_internal.metric_history m"
			" WHERE m.as_of = $1 AND m.customer_id > $2"
			" ORDER BY m.customer_id LIMIT $3",
			CS_ARGS(cs_tstz(bound), cs_text(after), cs_int4(cs_refresh_batch)), &n);
		CsBatch *batch;
		CsAlertRule *rules;
		int nrules;
		ListCell *lc;

		CHECK_FOR_INTERRUPTS();
		if (n == 0)
			break;
		cs_exec("SELECT ($1)[$2]", CS_ARGS(cs_textarray(ids), cs_int4(n)));
		after = cs_value();
		batch = cs_batch_make(ids, n, bound, true);
		batch->kept = true;
		rules = cs_alert_rules(batch, "customer", rule_row, &nrules);
		foreach (lc,
				 cs_alert_outcomes(batch, rules, nrules, is_known, simulation, &simulation->counts))
			step(simulation, batch, &rules[0], lfirst(lc));
		cs_unregister("batch");
		cs_whose_hide();
	} while (n == cs_refresh_batch);
}

/*
 * cs_internal.simulate_rule(rule jsonb, since, until).
 */
Datum
cs_simulate_rule_sql(PG_FUNCTION_ARGS)
{
	Simulation simulation = {.out = (ReturnSetInfo *) fcinfo->resultinfo};
	char *rule_row = text_to_cstring(PG_GETARG_TEXT_PP(0));
	HASHCTL control = {.keysize = MAX_ID, .entrysize = sizeof(Life)};
	MemoryContext work;
	MemoryContext old;
	TimestampTz *bounds;
	CsFrame frame;
	HASH_SEQ_STATUS all;
	Life *life;

	InitMaterializedSRF(fcinfo, 0);
	simulation.kept = CurrentMemoryContext;
	control.hcxt = CurrentMemoryContext;
	simulation.lives = hash_create("cs_ext simulated alerts", 1024, &control,
								   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	cs_enter(&frame);
	old = MemoryContextSwitchTo(simulation.kept);
	simulation.bounds = (int) cs_exec(
		"SELECT DISTINCT m.as_of FROM cs_internal.metric_history m WHERE m.as_of >= $1 AND m.as_of "
		"< "
		"$2 ORDER BY 1",
		CS_ARGS(cs_tstz(PG_GETARG_TIMESTAMPTZ(1)), cs_tstz(PG_GETARG_TIMESTAMPTZ(2))));
	bounds = palloc(sizeof(TimestampTz) * (simulation.bounds + 1));
	for (int i = 0; i < simulation.bounds; i++)
	{
		bool isnull;

		bounds[i] = DatumGetTimestampTz(cs_cell_datum(i, 1, &isnull));
	}
	work = AllocSetContextCreate(CurrentMemoryContext, "cs_ext simulation", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < simulation.bounds; i++)
	{
		MemoryContextSwitchTo(work);
		simulate_bound(&simulation, rule_row, bounds[i]);
		MemoryContextReset(work);
	}
	MemoryContextSwitchTo(simulation.kept);
	hash_seq_init(&all, simulation.lives);
	while ((life = hash_seq_search(&all)) != NULL)
	{
		ListCell *lc;

		foreach (lc, life->alerts)
			if (is_open(lfirst(lc)))
				put(&simulation, lfirst(lc), CS_NEVER);
	}
	put(&simulation, NULL, CS_NEVER);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(work);
	cs_leave(&frame);
	return (Datum) 0;
}
