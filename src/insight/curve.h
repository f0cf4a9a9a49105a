/*
 * curve.h
 *		From a metric's value to points between 0 and 100.
 */
#ifndef CS_CURVE_H
#define CS_CURVE_H

#include "cs_ext.h"

typedef enum CsCurveKind
{
	CS_CURVE_LINEAR,
	CS_CURVE_BOUNDED,
	CS_CURVE_STEPS,
	CS_CURVE_HALF_LIFE,
	CS_CURVE_FLAG,
	CS_CURVE_PERCENTILE,
	CS_CURVE_LOGISTIC,
	CS_CURVE_NONE /* not known here: every value is missing */
} CsCurveKind;

/* The values that percentile and logistic compare with, of a segment or of everybody. */
typedef struct CsReference
{
	char *segment; /* empty: everybody */
	int64 n;       /* customers that had a value */
	float8 mean;
	float8 sd; /* of the population */
	int nvalues;
	float8 *values; /* ascending; quantiles where there were very many */
} CsReference;

typedef struct CsCurve
{
	CsCurveKind kind;
	float8 worst;     /* value of 0 points; direction = which of the two is larger */
	float8 best;      /* value of 100 points */
	float8 half_life; /* days */
	int nsteps;       /* steps: (to[i-1], to[i]] has points[i]; the last is open */
	float8 *to;       /* nsteps - 1 of them count */
	float8 *points;
	bool falling; /* percentile, logistic: the lower the better */
	int min_n;    /* percentile, logistic: compared with fewer, there are no points */
} CsCurve;

/* The kind of a word of cs.measure.curve; CS_CURVE_NONE for any other. */
extern CsCurveKind cs_curve_kind(const char *word);

/*
 * Points of a value, in [0, 100]; false when the curve has none for it
 * (missing).  reference may be NULL; it is used by percentile and logistic.
 */
extern bool cs_curve_points(const CsCurve *curve, float8 value, const CsReference *reference,
							float8 *points);

#endif
