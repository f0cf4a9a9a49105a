/*
 * curve.c
 *		The curves of cs.measure: a value in, points in [0, 100] out.
 *
 * Pure arithmetic, no SPI, no allocation.  Each curve is monotone also in
 * floating point: it is built of single operations that are.
 * Formulas: DEFINITIONS C.2, rule 2.
 */
#include "postgres.h"

#include <math.h>

#include "insight/curve.h"

/*
 * cs_curve_kind: the kind that a word of cs.measure.curve means.  Any other
 * (of a row that was restored unchecked) gives CS_CURVE_NONE.
 */
CsCurveKind
cs_curve_kind(const char *word)
{
	if (strcmp(word, "linear") == 0)
		return CS_CURVE_LINEAR;
	if (strcmp(word, "bounded") == 0)
		return CS_CURVE_BOUNDED;
	if (strcmp(word, "steps") == 0)
		return CS_CURVE_STEPS;
	if (strcmp(word, "half_life") == 0)
		return CS_CURVE_HALF_LIFE;
	if (strcmp(word, "flag") == 0)
		return CS_CURVE_FLAG;
	if (strcmp(word, "percentile") == 0)
		return CS_CURVE_PERCENTILE;
	if (strcmp(word, "logistic") == 0)
		return CS_CURVE_LOGISTIC;
	return CS_CURVE_NONE;
}

/*
 * clamp: into [0, 100]; never called with NaN.
 */
static float8
clamp(float8 points)
{
	return points < 0 ? 0 : points > 100 ? 100 : points;
}

/*
 * count_below: how many of the reference's values are below this one, and equal
 * to it where `equal` is set too.
 */
static int
count_below(const CsReference *reference, float8 value, bool equal)
{
	int low = 0;
	int high = reference->nvalues;

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (reference->values[middle] < value || (equal && reference->values[middle] == value))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/*
 * mid_rank: per cent of the reference's values that are below, those equal
 * counted half.
 */
static float8
mid_rank(const CsReference *reference, float8 value)
{
	float8 ranks = (float8) count_below(reference, value, false) +
				   (float8) count_below(reference, value, true);

	return 100 * (ranks / (2.0 * reference->nvalues));
}

/*
 * z_score: distance from the mean in standard deviations; where all compared
 * are equal, beyond every bound on either side of it.
 */
static float8
z_score(const CsReference *reference, float8 value)
{
	float8 distance = value - reference->mean;

	if (reference->sd > 0)
		return distance / reference->sd;
	return distance > 0 ? INFINITY : distance < 0 ? -INFINITY : 0;
}

/*
 * cs_curve_points: points of a value.  False where the curve has none: NaN,
 * outside of a bounded curve, nothing or too little to compare with, a curve that is not usable (worst = best, no
 * steps): such rows are refused when written, but a restore may bring them.
 */
bool
cs_curve_points(const CsCurve *curve, float8 value, const CsReference *reference, float8 *points)
{
	if (isnan(value))
		return false;

	switch (curve->kind)
	{
		case CS_CURVE_BOUNDED:
			if (value < Min(curve->worst, curve->best) || value > Max(curve->worst, curve->best))
				return false;
			/* FALLTHROUGH */
		case CS_CURVE_LINEAR:
			if (!isfinite(curve->worst) || !isfinite(curve->best) || curve->worst == curve->best)
				return false;
			*points = clamp(100 * ((value - curve->worst) / (curve->best - curve->worst)));
			return true;

		case CS_CURVE_STEPS:
			for (int i = 0; i < curve->nsteps; i++)
			{
				if (i == curve->nsteps - 1 || value <= curve->to[i])
				{
					if (isnan(curve->points[i]))
						return false;
					*points = clamp(curve->points[i]);
					return true;
				}
			}
			return false;

		case CS_CURVE_HALF_LIFE:
			if (!(curve->half_life > 0))
				return false;
			*points = clamp(100 * exp2(-value / curve->half_life));
			return true;

		case CS_CURVE_FLAG:
			/* worst 1, best 0: the flag is a bad sign; both unset: a good one */
			*points = (value != 0) == !(curve->worst > curve->best) ? 100 : 0;
			return true;

		case CS_CURVE_PERCENTILE:
			if (reference == NULL || reference->n < curve->min_n || reference->nvalues == 0)
				return false;
			*points = mid_rank(reference, value);
			*points = clamp(curve->falling ? 100 - *points : *points);
			return true;

		case CS_CURVE_LOGISTIC:
			if (reference == NULL || reference->n < Max(1, curve->min_n) || isnan(reference->mean))
				return false;
			*points = z_score(reference, value);
			*points = clamp(100 / (1 + exp(curve->falling ? *points : -*points)));
			return true;

		case CS_CURVE_NONE:
			break;
	}
	return false;
}
