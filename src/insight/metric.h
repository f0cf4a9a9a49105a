/*
 * metric.h
 *		Metrics: one query per source, values in slots.
 */
#ifndef CS_METRIC_H
#define CS_METRIC_H

#include "cs_ext.h"

typedef struct CsMetric
{
	char *name;
	char *source; /* usage, ledger, formula, a kind, or the name of an "other" source */
	char *expression;
	char *search_path;
	int slot;      /* from 1 */
	int64 max_lag; /* microseconds, 0: none */
} CsMetric;

/* Enabled metrics in order of name, as List of CsMetric *. */
extern List *cs_metrics(void);

/* Stage: fills "values" of cs_internal.state for the batch. */
extern void cs_stage_metrics(CsBatch *batch);

/* Names of all enabled metrics (char *), in order. */
extern List *cs_metric_names(void);

/*
 * The SELECT list item of a metric: its value as float8.  mrr_ago(n) becomes a
 * column mrr_ago_n; each n is added to *ago_days (a list of int).
 */
extern char *cs_metric_item(const CsMetric *metric, List **ago_days);

/*
 * The sources a metric's source word stands for: registered sources of the
 * kind, or the one "other" source of that name.
 */
extern List *cs_metric_sources(const char *word);

/* The canonical columns of a kind but the customer's, as "alias.a, alias.b". */
extern char *cs_kind_columns_list(const char *kind, const char *alias);

#endif /* CS_METRIC_H */
