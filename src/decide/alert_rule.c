/*
 * alert_rule.c
 *		Alert rules: read, and asked.
 *
 * In: rows of cs.alert_rule and a batch.  Out: what each rule says of each
 * customer (and key) for whom that matters: whether it holds, whether it is
 * clear, the message and the severity.
 *
 * Cases.
 * A severity_expression that gives no severity: the rule's own is taken, and the
 * rule is marked in definition_status.
 * A calendar or quiet hours that do not parse (restored, not yet checked): as if
 * none were given.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/timestamp.h"

#include "cs_ext.h"
#include "core/texts.h"
#include "decide/alert.h"

/* ---- reading ------------------------------------------------------------ */

static Interval
interval_cell(uint64 row, int column)
{
	bool isnull;

	return *DatumGetIntervalP(cs_cell_datum(row, column, &isnull));
}

static Interval *
interval_or_null(uint64 row, int column)
{
	bool isnull;
	Datum value = cs_cell_datum(row, column, &isnull);

	return isnull ? NULL : DatumGetIntervalP(datumCopy(value, false, sizeof(Interval)));
}

static List *
names_cell(uint64 row, int column)
{
	bool isnull;
	Datum value = cs_cell_datum(row, column, &isnull);
	List *names = NIL;
	Datum *elements;
	int n;

	elements = cs_text_elements(value, &n);
	for (int i = 0; i < n; i++)
		names = lappend(names, TextDatumGetCString(elements[i]));
	return names;
}

/*
 * cs_alert_rule_find: by name; NULL: not among them.
 */
CsAlertRule *
cs_alert_rule_find(CsAlertRule *rules, int nrules, const char *name)
{
	int low = 0;
	int high = nrules;

	while (low < high)
	{
		int middle = (low + high) / 2;
		int c = strcmp(rules[middle].name, name);

		if (c == 0)
			return &rules[middle];
		if (c < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/*
 * raise_levels: each rule above those that inhibit it; true when one was raised.
 */
static bool
raise_levels(CsAlertRule *rules, int nrules)
{
	bool raised = false;

	for (int i = 0; i < nrules; i++)
	{
		ListCell *lc;

		foreach (lc, rules[i].inhibited_by)
		{
			CsAlertRule *other = cs_alert_rule_find(rules, nrules, lfirst(lc));

			if (other != NULL && rules[i].level <= other->level)
			{
				rules[i].level = other->level + 1;
				raised = true;
			}
		}
	}
	return raised;
}

/*
 * cs_alert_rules: see alert.h.  A segment that is not found any more is left to
 * the evaluation, which marks the rule.
 */
CsAlertRule *
cs_alert_rules(const CsBatch *batch, const char *scope, const char *only, int *nrules)
{
	const char *from = only ? "jsonb_populate_record(NULL::cs.alert_rule, $2::jsonb) a"
							: "cs.alert_rule a WHERE a.enabled AND a.scope = $3 AND $2 IS NULL";
	CsAlertRule *rules;
	uint64 n = cs_exec(
		psprintf(
			"SELECT a.name, a.rule, a.clear_rule, a.source, a.key, a.severity, a.message, "
			"a.search_path,"
			" a.dwell, a.resolve_after, a.cooldown, a.reopen_within, a.max_new,"
			" CASE WHEN a.segment LIKE '%%:%%' THEN split_part(a.segment, ':', 1)"
			"  ELSE (SELECT min(x.dimension) FROM (SELECT s.dimension, s.name FROM cs.segment s"
			"   UNION SELECT d.name, d.fallback FROM cs.dimension d) x WHERE x.name = a.segment) "
			"END,"
			" CASE WHEN a.segment LIKE '%%:%%' THEN substr(a.segment, strpos(a.segment, ':') + 1)"
			"  ELSE a.segment END,"
			" a.severity_expression, a.ack_within, a.resolve_within, a.calendar, a.quiet_hours,"
			" coalesce(a.owner_cap_per_day, 0), a.escalate_to, a.fallback_owner,"
			" coalesce(cs_internal.names_in(a.inhibited_by), '{}'),"
			" (SELECT count(*) FROM cs_internal.alert x WHERE x.rule = a.name AND x.fired_at = $1),"
			" coalesce(a.segment, 'all'), EXISTS (SELECT FROM cs.dimension d WHERE NOT "
			"d.exclusive AND (d.name = split_part(a.segment, ':', 1) OR (a.segment NOT "
			"LIKE '%%:%%' AND EXISTS (SELECT FROM cs.segment s WHERE s.dimension = d.name "
			"AND s.name = a.segment))))"
			" FROM %s ORDER BY a.name COLLATE \"C\"",
			from),
		CS_ARGS(cs_tstz(batch->as_of), cs_text(only), cs_text(scope)));

	*nrules = (int) n;
	rules = palloc0(sizeof(CsAlertRule) * (n + 1));
	for (uint64 i = 0; i < n; i++)
	{
		CsAlertRule *rule = &rules[i];

		rule->name = cs_cell(i, 1);
		rule->rule = cs_cell(i, 2);
		rule->clear_rule = cs_cell(i, 3);
		rule->source = cs_cell(i, 4);
		rule->key = cs_cell(i, 5);
		rule->severity = cs_cell(i, 6);
		rule->message = cs_cell(i, 7);
		rule->search_path = cs_cell(i, 8);
		rule->dwell = interval_cell(i, 9);
		rule->resolve_after = interval_cell(i, 10);
		rule->cooldown = interval_cell(i, 11);
		rule->reopen_within = interval_cell(i, 12);
		rule->max_new = atoi(cs_cell(i, 13));
		rule->dimension = cs_cell(i, 14);
		rule->segment = cs_cell(i, 15);
		rule->severity_expression = cs_cell(i, 16);
		rule->ack_within = interval_or_null(i, 17);
		rule->resolve_within = interval_or_null(i, 18);
		rule->calendar = cs_hours_or_null(cs_cell(i, 19));
		rule->quiet = cs_hours_or_null(cs_cell(i, 20));
		rule->owner_cap = atoi(cs_cell(i, 21));
		rule->escalate_to = cs_cell(i, 22);
		rule->fallback_owner = cs_cell(i, 23);
		rule->inhibited_by = names_cell(i, 24);
		rule->fired = atoi(cs_cell(i, 25));
		rule->scope_word = cs_cell(i, 26);
		rule->overlapping = *cs_cell(i, 27) == 't';
		if (rule->segment != NULL && rule->dimension == NULL)
			rule->dimension = rule->segment;
	}
	/* As many turns as there can be levels: cycles are refused where rules are written. */
	for (int turn = 0; turn < *nrules && raise_levels(rules, *nrules); turn++)
		;
	return rules;
}

/* ---- asking the rules ----------------------------------------------------- */

static int
compare_outcomes(const ListCell *a, const ListCell *b)
{
	const CsOutcome *x = lfirst(a);
	const CsOutcome *y = lfirst(b);

	return cs_compare_identity(x->rule->name, x->customer_id, x->key, y->rule->name, y->customer_id,
							   y->key);
}

static CsTruth
cell_truth(const CsRuleValues *values, int customer, int rule)
{
	int cell = CS_CELL(values, customer, rule);

	if (values->isnull[cell])
		return CS_UNKNOWN;
	return DatumGetBool(values->values[cell]) ? CS_YES : CS_NO;
}

static int
add_rule(CsRule *rules, int *n, const CsAlertRule *rule, char *expression, Oid type)
{
	CsRule *r = &rules[*n];

	r->table_name = "alert_rule";
	r->key = rule->name;
	r->expression = expression;
	r->search_path = rule->search_path;
	r->type = type;
	return (*n)++;
}

/*
 * refuse_severities: what is no severity is left out and marked.
 */
static void
refuse_severities(const CsBatch *batch, int nrules, List *outcomes)
{
	CsFailure *failures = palloc0(sizeof(CsFailure) * (nrules + 1));
	int n = 0;
	ListCell *lc;

	foreach (lc, outcomes)
	{
		CsOutcome *outcome = lfirst(lc);
		CsFailure *failure = NULL;

		if (outcome->severity == NULL || cs_severity_rank(outcome->severity) >= 0)
			continue;
		for (int i = 0; i < n && failure == NULL; i++)
			if (failures[i].key == outcome->rule->name)
				failure = &failures[i];
		if (failure == NULL)
		{
			failure = &failures[n++];
			failure->table_name = "alert_rule";
			failure->key = outcome->rule->name;
			failure->example = outcome->customer_id;
			failure->sqlstate = "22023";
			failure->error = psprintf("severity_expression gives \"%s\", which is not low, medium, "
									  "high or critical",
									  outcome->severity);
		}
		failure->customers++;
		outcome->severity = NULL;
	}
	if (n > 0)
		cs_note_failures(batch, failures, n);
}

/*
 * cs_alert_outcomes: see alert.h.  All rules over state in one go, four
 * expressions each at most; then the rules over rows.
 */
List *
cs_alert_outcomes(const CsBatch *batch, CsAlertRule *alert_rules, int nrules, CsAlertKnown known,
				  void *arg, CsAlertCounts *counts)
{
	List *outcomes = NIL;
	CsRule *rules = palloc0(sizeof(CsRule) * (nrules * 4 + 1));
	int *holds = palloc(sizeof(int) * (nrules + 1));
	int *clear = palloc(sizeof(int) * (nrules + 1));
	int *message = palloc(sizeof(int) * (nrules + 1));
	int *severity = palloc(sizeof(int) * (nrules + 1));
	int n = 0;
	CsRuleValues *values;

	for (int i = 0; i < nrules; i++)
	{
		CsAlertRule *rule = &alert_rules[i];
		char *in =
			rule->overlapping
				? psprintf("in_segment(%s)",
						   quote_literal_cstr(psprintf("%s:%s", rule->dimension, rule->segment)))
			: rule->dimension ? psprintf("%s = %s", quote_identifier(rule->dimension),
										 quote_literal_cstr(rule->segment))
							  : NULL;

		holds[i] = clear[i] = message[i] = severity[i] = -1;
		if (rule->source != NULL)
		{
			/* The rows know no segment: it is asked of the state. */
			if (in != NULL)
				holds[i] = add_rule(rules, &n, rule, psprintf("coalesce(%s, false)", in), BOOLOID);
			continue;
		}
		holds[i] = add_rule(rules, &n, rule,
							in ? psprintf("CASE WHEN %s THEN (%s\n) ELSE false END", in, rule->rule)
							   : rule->rule,
							BOOLOID);
		if (rule->clear_rule != NULL)
			clear[i] = add_rule(
				rules, &n, rule,
				in ? psprintf("CASE WHEN %s THEN (%s\n) ELSE true END", in, rule->clear_rule)
				   : rule->clear_rule,
				BOOLOID);
		if (rule->message != NULL)
			message[i] = add_rule(rules, &n, rule,
								  psprintf("CASE WHEN (%s\n) THEN (%s\n)::pg_catalog.text END",
										   rule->rule, rule->message),
								  TEXTOID);
		if (rule->severity_expression != NULL)
			severity[i] = add_rule(rules, &n, rule,
								   psprintf("CASE WHEN (%s\n) THEN (%s\n)::pg_catalog.text END",
											rule->rule, rule->severity_expression),
								   TEXTOID);
	}
	values = cs_rule_values(batch, rules, n);

	for (int i = 0; i < nrules; i++)
	{
		CsAlertRule *rule = &alert_rules[i];
		ListCell *lc;

		if (rule->source == NULL)
		{
			for (int c = 0; c < values->ncustomers; c++)
			{
				CsTruth truth = cell_truth(values, c, holds[i]);
				CsOutcome *outcome;

				if (counts != NULL && values->present[c])
				{
					counts->evaluations++;
					counts->nulls += truth == CS_UNKNOWN;
				}
				if (truth != CS_YES && !known(rule, values->ids[c], "", arg))
					continue;
				outcome = palloc0(sizeof(CsOutcome));
				outcome->rule = rule;
				outcome->customer_id = values->ids[c];
				outcome->key = "";
				outcome->holds = truth;
				outcome->clear = clear[i] >= 0         ? cell_truth(values, c, clear[i])
								 : truth == CS_UNKNOWN ? CS_UNKNOWN
								 : truth == CS_YES     ? CS_NO
													   : CS_YES;
				if (message[i] >= 0 && !values->isnull[CS_CELL(values, c, message[i])])
					outcome->message =
						TextDatumGetCString(values->values[CS_CELL(values, c, message[i])]);
				if (severity[i] >= 0 && !values->isnull[CS_CELL(values, c, severity[i])])
					outcome->severity =
						TextDatumGetCString(values->values[CS_CELL(values, c, severity[i])]);
				outcomes = lappend(outcomes, outcome);
			}
			continue;
		}
		foreach (lc, cs_row_outcomes(batch, rule, known, arg))
		{
			CsOutcome *outcome = lfirst(lc);

			if (holds[i] >= 0)
			{
				char **id = bsearch(&outcome->customer_id, values->ids, values->ncustomers,
									sizeof(char *), pg_qsort_strcmp);
				CsTruth in = id ? cell_truth(values, id - values->ids, holds[i]) : CS_UNKNOWN;

				if (in == CS_NO)
				{
					outcome->holds = CS_NO;
					outcome->clear = CS_YES;
				}
				else if (in == CS_UNKNOWN)
					outcome->holds = outcome->clear = CS_UNKNOWN;
			}
			if (outcome->holds == CS_YES || known(rule, outcome->customer_id, outcome->key, arg))
				outcomes = lappend(outcomes, outcome);
		}
	}
	cs_alert_settle(batch, nrules, outcomes);
	return outcomes;
}

/*
 * cs_alert_settle: see alert.h.
 */
void
cs_alert_settle(const CsBatch *batch, int nrules, List *outcomes)
{
	refuse_severities(batch, nrules, outcomes);
	list_sort(outcomes, compare_outcomes);
}
