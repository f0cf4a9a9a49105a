/*
 * scorecard.h
 *		Scorecards, compiled once a batch, and the health score.
 */
#ifndef CS_SCORECARD_H
#define CS_SCORECARD_H

#include "cs_ext.h"

#include "utils/array.h"
#include "utils/jsonb.h"

#include "decide/decide.h"
#include "insight/curve.h"

/* Scores and contributions are integers of this unit, so that they add exactly in any order. */
#define CS_GRID 4294967296.0 /* 2^32 */

typedef enum CsMissing
{
	CS_MISSING_REWEIGHT,
	CS_MISSING_REDISTRIBUTE,
	CS_MISSING_ZERO,
	CS_MISSING_NEUTRAL,
	CS_MISSING_NULL_OVERALL,
	CS_MISSING_CARRY
} CsMissing;

/* One measure: a leaf of the scorecard. */
typedef struct CsMeasure
{
	char *name;
	char *metric;
	int slot;      /* of the metric in "values", 0: there is none */
	int group;     /* index into groups */
	float8 weight; /* as written */
	float8 share;  /* group share x share in group; all add to 1 */
	CsCurve curve;
	CsMissing missing;
	float8 missing_points; /* of neutral */
	int max_age_days;      /* of carry */
	int carry;             /* carry: which of the columns of the running batch it is */
	char *within;          /* dimension, NULL: compared with everybody */
	int nreferences;
	const CsReference *references;
} CsMeasure;

/* A measure without group is a group of its own, with its own weight. */
typedef struct CsGroup
{
	char *name; /* NULL: one measure without group */
	float8 weight;
	float8 share; /* of the groups that have measures; all add to 1 */
	bool min;
} CsGroup;

/* While the rule holds, the score is at most that. */
typedef struct CsCap
{
	char *rule;
	char *search_path;
	int64 at_most; /* in 1 / CS_GRID points */
	int in_batch;  /* which of the rules of the running batch it is */
} CsCap;

typedef struct CsScorecard
{
	char *name;
	char *dimension; /* NULL: for everybody */
	char *segment;
	float8 red_below;
	float8 green_from;
	bool edge_below; /* a score on a cut belongs to the lower band */
	float8 hysteresis;
	float8 min_coverage;
	bool min;
	int64 version; /* newest definition_history.id of its rows, 0: none */
	int ngroups;
	CsGroup *groups; /* in order of name, then those of one measure */
	int nmeasures;
	CsMeasure *measures; /* in order of name; weight 0 is left out */
	int ncaps;
	CsCap *caps; /* the lowest first, then in order of their rules */
} CsScorecard;

/* What is known of one customer beside its values; kept as health_inputs, so that a stored score can be explained. */
typedef struct CsExtra
{
	int cap;                        /* the first of the card's caps whose rule holds, -1: none */
	bool compares;                  /* the card has measures that need references */
	DateADT day;                    /* whose references are used */
	const CsReference **references; /* per measure if compares, NULL: none */
	float8 *carried;                /* per measure, NaN: none; NULL: none at all */
} CsExtra;

/* What became of one measure for one customer. */
typedef struct CsPart
{
	bool has_value;    /* the metric has one that the curve accepts */
	bool counts;       /* has points: from a value, or by policy */
	bool out_of_range; /* the metric has one that the curve does not accept */
	bool carried;      /* the value is one of before */
	float8 value;
	float8 points;
	float8 share;       /* after the missing policies and min; all add to 1 */
	int64 contribution; /* in 1 / CS_GRID points */
	int64 lost;         /* likewise: contributions and losses add to 100 */
} CsPart;

typedef enum CsScoreReason
{
	CS_SCORED,
	CS_SCORE_MISSING,
	CS_SCORE_COVERAGE,
	CS_SCORE_INACTIVE,
	CS_SCORE_NO_SCORECARD
} CsScoreReason;

typedef struct CsScore
{
	CsScoreReason reason; /* CS_SCORED, or why there is none */
	int64 score;          /* in 1 / CS_GRID points */
	int64 uncapped;       /* likewise: what the measures contribute in sum */
	float8 coverage;      /* weight with a value / total weight */
	int blocker;          /* CS_SCORE_MISSING by null_overall: which measure, else -1 */
} CsScore;

typedef enum CsBand
{
	CS_BAND_NONE,
	CS_BAND_RED,
	CS_BAND_YELLOW,
	CS_BAND_GREEN
} CsBand;

/*
 * scorecard_compile.c: enabled scorecards in the order in which they are
 * tried, as List of CsScorecard *; and one by name, as it was in `version`
 * (0: as it is now, enabled or not), NULL when there is none.  In a frame; the
 * result is in the memory context of the call.
 */
extern List *cs_scorecards(void);
extern CsScorecard *cs_scorecard(const char *name, int64 version);

/*
 * reference.c.  cs_references_fix writes the reference distributions of a local
 * day that are not there yet: those of metrics that had one before, with `first`
 * all.  True when it wrote any.  In a frame, without a batch's snapshot.
 * cs_references_load gives the measures of these cards the newest up to a day.
 * cs_reference_of is that of a segment, NULL where there is none.
 * cs_extra_compare chooses by the segments of a customer.
 */
extern bool cs_references_fix(DateADT day, bool first);
extern void cs_references_load(List *cards, DateADT day);
extern const CsReference *cs_reference_of(const CsMeasure *measure, const char *segment,
										  int length);
extern void cs_extra_compare(const CsScorecard *card, JsonbContainer *segments, DateADT day,
							 CsExtra *extra);

/*
 * scorecard.c: pure. parts has room for card->nmeasures. nulls may be NULL: no
 * nulls; extra may be NULL: nothing more is known.
 */
extern void cs_scorecard_prepare(CsScorecard *card);
extern CsScore cs_score_values(const CsScorecard *card, const float8 *values, const bool *nulls,
							   int nvalues, const CsExtra *extra, CsPart *parts);

/* scorecard_sql.c: the same of the float8[] of a customer, NULL: nothing known. */
extern CsScore cs_score_array(const CsScorecard *card, ArrayType *array, const CsExtra *extra,
							  CsPart *parts);

/* The rule of one of a card's caps. */
extern void cs_cap_rule(const CsScorecard *card, int cap, CsRule *rule);

/*
 * extra.c: health_inputs of a customer, NULL when there is nothing to keep; and
 * back, with the references of the day kept there (of `today` where none is)
 * loaded into the card.
 */
extern Jsonb *cs_extra_write(const CsScorecard *card, const CsExtra *extra);
extern void cs_extra_read(CsScorecard *card, Jsonb *json, DateADT today, CsExtra *extra);

extern CsBand cs_band(const CsScorecard *card, float8 score, CsBand previous);
extern const char *cs_band_name(CsBand band); /* NULL for none */
extern CsBand cs_band_of_name(const char *name);
extern const char *cs_score_reason_name(CsScoreReason reason); /* NULL when scored */

/*
 * Stage: scorecard, score, coverage, score_reason of cs_internal.state; unless
 * what_if also cs_internal.health (band with hysteresis) and, on a change of
 * band, cs_internal.health_history.
 */
extern void cs_stage_health(CsBatch *batch);

#endif
