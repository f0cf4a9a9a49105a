/*
 * alert_limit.c
 *		Which of the alerts that are to open may.
 *
 * In: the alerts of a batch after their step (alert_step.c), those that want to
 * open marked.  Out: each of these open, or pending and held with the reason.
 * What holds them, in this order: an open alert of a rule that inhibits theirs,
 * quiet hours, the cap of openings per owner and day, max_new of the rule.
 *
 * They are taken in order of rank (severity, then MRR, then names), rules that
 * inhibit before rules that are inhibited, so that a limit lets the most
 * important ones through.  The rank is of a batch: over several batches the
 * earlier ones go first.
 *
 * Cases.
 * The inhibiting alert is closed by the refresh: the same customer is evaluated
 * then.  By a person: the action marks the customer (sql/alert.sql).
 * The inhibiting alert is itself held: it inhibits nothing.
 * No owner: the cap is per owner, so it does not hold.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "cs_ext.h"
#include "core/period.h"
#include "core/texts.h"
#include "decide/alert.h"
#include "refresh/state.h"

/* An alert held by max_new is tried again after this time, or whenever the customer is evaluated. */
#define HELD_RETRY (USECS_PER_HOUR)

typedef struct Candidate
{
	CsStep *step;
	int severity;
	float8 mrr;
	char *owner; /* NULL: none */
} Candidate;

/* Openings of a rule for an owner on this local day. */
typedef struct Opened
{
	const char *rule;
	const char *owner;
	int n;
} Opened;

static int
compare_rank(const ListCell *a, const ListCell *b)
{
	const Candidate *x = lfirst(a);
	const Candidate *y = lfirst(b);
	int c = x->step->rule->level - y->step->rule->level;

	if (c == 0)
		c = y->severity - x->severity;
	if (c == 0)
		c = x->mrr > y->mrr ? -1 : x->mrr < y->mrr;
	if (c == 0)
		c = strcmp(x->step->alert->rule, y->step->alert->rule);
	if (c == 0)
		c = strcmp(x->step->alert->customer_id, y->step->alert->customer_id);
	return c != 0 ? c : strcmp(x->step->alert->key, y->step->alert->key);
}

/*
 * read_customers: owner and MRR of the candidates' customers.
 */
static void
read_customers(const CsBatch *batch, List *candidates)
{
	int n = list_length(candidates);
	Datum *ids = palloc(sizeof(Datum) * n);
	uint64 rows;
	ListCell *lc;
	int i = 0;

	foreach (lc, candidates)
		ids[i++] = CStringGetTextDatum(((Candidate *) lfirst(lc))->step->alert->customer_id);
	cs_state_show(batch);
	rows = cs_exec(
		"SELECT u.n - 1, c.owner, s.mrr::float8 FROM unnest($1) WITH ORDINALITY u (customer_id, n)"
		" JOIN evaluated s ON s.customer_id = u.customer_id COLLATE \"C\""
		" LEFT JOIN cs_internal.customer c ON c.customer_id = s.customer_id",
		CS_ARGS(cs_textarray(cs_text_array(ids, n))));
	cs_state_hide();
	for (uint64 row = 0; row < rows; row++)
	{
		Candidate *candidate = list_nth(candidates, atoi(cs_cell(row, 1)));
		bool isnull;
		Datum mrr = cs_cell_datum(row, 3, &isnull);

		candidate->owner = cs_cell(row, 2);
		candidate->mrr = isnull ? 0 : DatumGetFloat8(mrr);
	}
	foreach (lc, candidates)
	{
		Candidate *candidate = lfirst(lc);

		if (candidate->owner == NULL)
			candidate->owner = candidate->step->rule->fallback_owner;
	}
}

/*
 * read_opened: what opened today, of rules with a cap.
 */
static List *
read_opened(const CsBatch *batch, List *candidates)
{
	List *opened = NIL;
	Datum *rules = palloc(sizeof(Datum) * list_length(candidates));
	const char *last = "";
	int n = 0;
	uint64 rows;
	ListCell *lc;

	foreach (lc, candidates)
	{
		CsAlertRule *rule = ((Candidate *) lfirst(lc))->step->rule;

		if (rule->owner_cap > 0 && strcmp(rule->name, last) != 0)
			rules[n++] = CStringGetTextDatum(last = rule->name);
	}
	if (n == 0)
		return NIL;
	rows = cs_exec(
		"SELECT a.rule, a.owner, count(*) FROM cs_internal.alert a"
		" WHERE a.rule = ANY ($1) AND a.fired_at >= $2 AND a.owner IS NOT NULL GROUP BY 1, 2",
		CS_ARGS(cs_textarray(cs_text_array(rules, n)),
				cs_tstz(cs_local_midnight(batch->as_of_day, batch->policy->time_zone))));
	for (uint64 i = 0; i < rows; i++)
	{
		Opened *o = palloc(sizeof(Opened));

		o->rule = cs_cell(i, 1);
		o->owner = cs_cell(i, 2);
		o->n = atoi(cs_cell(i, 3));
		opened = lappend(opened, o);
	}
	return opened;
}

static Opened *
find_opened(List **opened, const char *rule, const char *owner)
{
	Opened *o;
	ListCell *lc;

	foreach (lc, *opened)
	{
		o = lfirst(lc);
		if (strcmp(o->rule, rule) == 0 && strcmp(o->owner, owner) == 0)
			return o;
	}
	o = palloc0(sizeof(Opened));
	o->rule = rule;
	o->owner = owner;
	*opened = lappend(*opened, o);
	return o;
}

static bool
is_open(const CsAlert *alert)
{
	return alert->state >= CS_OPEN && alert->state <= CS_SNOOZED;
}

/*
 * is_inhibited: has the customer an open alert of a rule that inhibits this one?
 */
static bool
is_inhibited(const CsStep *step, List *inhibiting)
{
	ListCell *lc;

	foreach (lc, inhibiting)
	{
		CsAlert *other = lfirst(lc);
		ListCell *name;

		if (strcmp(other->customer_id, step->alert->customer_id) != 0 || !is_open(other))
			continue;
		foreach (name, step->rule->inhibited_by)
			if (strcmp(lfirst(name), other->rule) == 0)
				return true;
	}
	return false;
}

/*
 * inhibitors: alerts of rules that some candidate's rule is inhibited by.
 */
static List *
inhibitors(List *steps, List *candidates)
{
	List *names = NIL;
	List *result = NIL;
	ListCell *lc;

	foreach (lc, candidates)
	{
		ListCell *name;

		foreach (name, ((Candidate *) lfirst(lc))->step->rule->inhibited_by)
			if (!list_member_ptr(names, lfirst(name)))
				names = lappend(names, lfirst(name));
	}
	if (names == NIL)
		return NIL;
	foreach (lc, steps)
	{
		CsStep *step = lfirst(lc);
		ListCell *name;

		if (!is_open(step->alert) && !step->alert->wants)
			continue;
		foreach (name, names)
			if (strcmp(lfirst(name), step->alert->rule) == 0)
			{
				result = lappend(result, step->alert);
				break;
			}
	}
	return result;
}

/*
 * cs_alert_limits: see alert.h.
 */
void
cs_alert_limits(const CsBatch *batch, List *steps)
{
	List *candidates = NIL;
	List *inhibiting;
	List *opened;
	TimestampTz now = batch->as_of;
	ListCell *lc;

	foreach (lc, steps)
	{
		CsStep *step = lfirst(lc);
		Candidate *candidate;

		if (!step->alert->wants)
			continue;
		candidate = palloc0(sizeof(Candidate));
		candidate->step = step;
		candidate->severity = cs_severity_rank(step->alert->severity);
		candidates = lappend(candidates, candidate);
	}
	if (candidates == NIL)
		return;
	read_customers(batch, candidates);
	opened = read_opened(batch, candidates);
	inhibiting = inhibitors(steps, candidates);
	list_sort(candidates, compare_rank);

	foreach (lc, candidates)
	{
		Candidate *candidate = lfirst(lc);
		CsStep *step = candidate->step;
		CsAlertRule *rule = step->rule;
		Opened *today = rule->owner_cap > 0 && candidate->owner != NULL
							? find_opened(&opened, rule->name, candidate->owner)
							: NULL;

		CHECK_FOR_INTERRUPTS();
		if (is_inhibited(step, inhibiting))
			cs_alert_hold(batch, step->alert, CS_HELD_INHIBITED, CS_NEVER);
		else if (rule->quiet != NULL &&
				 cs_hours_contain(rule->quiet, now, cs_policy_zone(batch->policy)))
			cs_alert_hold(batch, step->alert, CS_HELD_QUIET,
						  cs_hours_next(rule->quiet, now, false, cs_policy_zone(batch->policy)));
		else if (today != NULL && today->n >= rule->owner_cap)
			cs_alert_hold(batch, step->alert, CS_HELD_CAP,
						  cs_local_midnight(batch->as_of_day + 1, batch->policy->time_zone));
		else if (rule->fired >= rule->max_new)
			cs_alert_hold(batch, step->alert, CS_HELD_MAX_NEW, now + HELD_RETRY);
		else
		{
			cs_alert_open(batch, rule, step->alert, &step->change);
			if (today != NULL)
				today->n++;
		}
	}
}
