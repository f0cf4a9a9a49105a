/*
 * scorecard.c
 *		The arithmetic of a scorecard: values of one customer in, a score and
 *		what each measure contributes to it out; and the band of a score.
 *
 * Pure: no SPI, no allocation.  Scores, contributions and losses are integers
 * of 2^-32 points, so sums are exact in any order.  Every sum of floats runs
 * in the order of names, so the order in which measures were written changes
 * nothing.
 *
 * Rules (DEFINITIONS C.2, C.3; doc/health.md):
 *	- a leaf's share is group share x share in the group;
 *	- a missing leaf of `redistribute` gives its share to the leaves of its
 *	  group that count, in proportion; when there are none, to the groups that
 *	  have some, in proportion to their shares;
 *	- a missing leaf of `reweight`, or of `carry` with nothing to carry, is dropped
 *	  and all shares are divided by what is left;
 *	- a cap cuts the sum, and stands beside the measures with what it takes;
 *	- with `min` the lowest leaf of a group (the lowest group of a scorecard)
 *	  carries the shares of all.
 */
#include "postgres.h"

#include <math.h>

#include "insight/scorecard.h"

/*
 * cs_scorecard_prepare: compute the shares from the weights.  Groups without
 * measures have none.
 */
void
cs_scorecard_prepare(CsScorecard *card)
{
	float8 total = 0;

	for (int g = 0; g < card->ngroups; g++)
	{
		CsGroup *group = &card->groups[g];
		float8 inside = 0;

		group->share = 0;
		for (int i = 0; i < card->nmeasures; i++)
			if (card->measures[i].group == g)
				inside += card->measures[i].weight;
		if (!(inside > 0) || !(group->weight > 0))
			continue;
		group->share = group->weight;
		total += group->weight;
		for (int i = 0; i < card->nmeasures; i++)
			if (card->measures[i].group == g)
				card->measures[i].share = card->measures[i].weight / inside;
	}
	for (int g = 0; g < card->ngroups; g++)
		if (total > 0)
			card->groups[g].share /= total;
	for (int i = 0; i < card->nmeasures; i++)
		card->measures[i].share *= card->groups[card->measures[i].group].share;
}

/*
 * points_of: what the measure says of this customer, before shares.  False
 * when the missing policy forbids a score.
 */
static bool
points_of(const CsMeasure *measure, const float8 *values, const bool *nulls, int nvalues,
		  const CsReference *reference, float8 carried, CsPart *part)
{
	int at = measure->slot - 1;
	float8 value = NAN;

	memset(part, 0, sizeof(*part));
	if (at >= 0 && at < nvalues && !(nulls && nulls[at]))
		value = values[at];
	if (isnan(value) && measure->missing == CS_MISSING_CARRY && !isnan(carried))
	{
		value = carried;
		part->carried = true;
	}
	if (!isnan(value))
	{
		part->value = value;
		part->has_value = part->counts =
			cs_curve_points(&measure->curve, value, reference, &part->points);
		part->out_of_range = !part->has_value;
	}
	if (part->has_value)
		return true;
	switch (measure->missing)
	{
		case CS_MISSING_ZERO:
			part->points = 0;
			part->counts = true;
			break;
		case CS_MISSING_NEUTRAL:
			part->points = measure->missing_points;
			part->counts = true;
			break;
		case CS_MISSING_NULL_OVERALL:
			return false;
		case CS_MISSING_REWEIGHT:
		case CS_MISSING_REDISTRIBUTE:
		case CS_MISSING_CARRY:
			break;
	}
	return true;
}

/*
 * spread: shares after the missing policies, adding to 1.  False when no leaf
 * counts.
 */
static bool
spread(const CsScorecard *card, CsPart *parts)
{
	float8 pool = 0;   /* shares of redistribute whose group is empty */
	float8 takers = 0; /* shares of the groups that are not */
	float8 total = 0;

	for (int pass = 1; pass <= 2; pass++)
	{
		for (int g = 0; g < card->ngroups; g++)
		{
			float8 present = 0;
			float8 given = 0;

			for (int i = 0; i < card->nmeasures; i++)
			{
				if (card->measures[i].group != g)
					continue;
				if (parts[i].counts)
					present += card->measures[i].share;
				else if (card->measures[i].missing == CS_MISSING_REDISTRIBUTE)
					given += card->measures[i].share;
			}
			if (pass == 1 && present > 0)
				takers += card->groups[g].share;
			else if (pass == 1)
				pool += given;
			else if (present > 0)
			{
				float8 has = present + given;

				if (pool > 0)
					has += pool * (card->groups[g].share / takers);
				for (int i = 0; i < card->nmeasures; i++)
					if (card->measures[i].group == g && parts[i].counts)
						parts[i].share = has == present ? card->measures[i].share
														: card->measures[i].share * (has / present);
			}
		}
	}
	for (int i = 0; i < card->nmeasures; i++)
		total += parts[i].share;
	if (!(total > 0))
		return false;
	for (int i = 0; i < card->nmeasures; i++)
		parts[i].share /= total;
	return true;
}

/*
 * lowest_in_group: with `min` the lowest leaf that counts (the first by name
 * among equals) takes all shares of its group.
 */
static void
lowest_in_group(const CsScorecard *card, int g, CsPart *parts)
{
	int lowest = -1;
	float8 sum = 0;

	for (int i = 0; i < card->nmeasures; i++)
	{
		if (card->measures[i].group != g || !(parts[i].share > 0))
			continue;
		sum += parts[i].share;
		parts[i].share = 0;
		if (lowest < 0 || parts[i].points < parts[lowest].points)
			lowest = i;
	}
	if (lowest >= 0)
		parts[lowest].share = sum;
}

/*
 * lowest_group: with `min` the group with the fewest points takes all shares;
 * among equals the first by name.
 */
static void
lowest_group(const CsScorecard *card, CsPart *parts)
{
	int lowest = -1;
	float8 lowest_points = 0;
	float8 lowest_sum = 0;

	for (int g = 0; g < card->ngroups; g++)
	{
		float8 sum = 0;
		float8 points = 0;

		for (int i = 0; i < card->nmeasures; i++)
			if (card->measures[i].group == g)
				sum += parts[i].share;
		if (!(sum > 0))
			continue;
		for (int i = 0; i < card->nmeasures; i++)
			if (card->measures[i].group == g)
				points += parts[i].share / sum * parts[i].points;
		if (lowest < 0 || points < lowest_points)
		{
			lowest = g;
			lowest_points = points;
			lowest_sum = sum;
		}
	}
	for (int i = 0; i < card->nmeasures; i++)
		parts[i].share = card->measures[i].group == lowest ? parts[i].share / lowest_sum : 0;
}

/*
 * to_grid: one integer per part, of points that lose `from` (0: what is
 * contributed, 100: what is lost), adding exactly to `sum`.  What rounding
 * leaves over goes to the largest, the first by name among equals.
 */
static void
to_grid(const CsScorecard *card, CsPart *parts, bool lost, int64 sum)
{
	int largest = 0;
	int64 largest_units = -1;

	for (int i = 0; i < card->nmeasures; i++)
	{
		float8 points = lost ? 100 - parts[i].points : parts[i].points;
		int64 units = 0;

		if (parts[i].share > 0)
			units = (int64) rint(parts[i].share * points * CS_GRID);
		if (lost)
			parts[i].lost = units;
		else
			parts[i].contribution = units;
		sum -= units;
		if (units > largest_units)
		{
			largest = i;
			largest_units = units;
		}
	}
	if (lost)
		parts[largest].lost += sum;
	else
		parts[largest].contribution += sum;
}

/*
 * cs_score_values: the score of one customer from its values by slot, and what
 * each measure has to do with it.  parts[i] belongs to card->measures[i].
 */
CsScore
cs_score_values(const CsScorecard *card, const float8 *values, const bool *nulls, int nvalues,
				const CsExtra *extra, CsPart *parts)
{
	CsScore result = {.reason = CS_SCORED, .blocker = -1};
	float8 points = 0;
	int64 hundred = (int64) (100 * CS_GRID);

	for (int i = 0; i < card->nmeasures; i++)
	{
		const CsReference *reference =
			extra != NULL && extra->compares ? extra->references[i] : NULL;
		float8 carried = extra != NULL && extra->carried ? extra->carried[i] : NAN;

		if (!points_of(&card->measures[i], values, nulls, nvalues, reference, carried, &parts[i]) &&
			result.blocker < 0)
			result.blocker = i;
		if (parts[i].has_value)
			result.coverage += card->measures[i].share;
	}
	/* nine decimals, so that three times 0.2 reaches a minimum of 0.6 */
	result.coverage = rint(result.coverage * 1e9) / 1e9;

	if (result.blocker >= 0)
		result.reason = CS_SCORE_MISSING;
	else if (result.coverage < rint(card->min_coverage * 1e9) / 1e9)
		result.reason = CS_SCORE_COVERAGE;
	else if (!spread(card, parts))
		result.reason = CS_SCORE_MISSING;
	if (result.reason != CS_SCORED)
		return result;

	for (int g = 0; g < card->ngroups; g++)
		if (card->groups[g].min)
			lowest_in_group(card, g, parts);
	if (card->min)
		lowest_group(card, parts);

	for (int i = 0; i < card->nmeasures; i++)
		points += parts[i].share * parts[i].points;
	result.score = (int64) rint(points * CS_GRID);
	result.score = result.uncapped = Max(0, Min(hundred, result.score));
	to_grid(card, parts, false, result.score);
	to_grid(card, parts, true, hundred - result.score);
	if (extra != NULL && extra->cap >= 0)
		result.score = Min(result.score, card->caps[extra->cap].at_most);
	return result;
}

/*
 * reaches: does the score lie beyond this cut, moved up by a margin?  A cut
 * moved past 100 is reached by 100.
 */
static bool
reaches(const CsScorecard *card, float8 score, float8 cut, float8 margin)
{
	if (margin > 0 && cut + margin >= 100)
		return score >= 100;
	return card->edge_below ? score > cut + margin : score >= cut + margin;
}

/*
 * band_beyond: the band with both cuts moved up by a margin.
 */
static CsBand
band_beyond(const CsScorecard *card, float8 score, float8 margin)
{
	if (reaches(card, score, card->green_from, margin))
		return CS_BAND_GREEN;
	return reaches(card, score, card->red_below, margin) ? CS_BAND_YELLOW : CS_BAND_RED;
}

/*
 * cs_band: the band of a score.  It worsens at once; better than `previous` it
 * gets only beyond the cut plus the hysteresis.
 */
CsBand
cs_band(const CsScorecard *card, float8 score, CsBand previous)
{
	CsBand band = band_beyond(card, score, 0);

	if (previous != CS_BAND_NONE && band > previous)
		band = Max(previous, band_beyond(card, score, card->hysteresis));
	return band;
}

/*
 * cs_band_name: red, yellow, green; NULL for none.
 */
const char *
cs_band_name(CsBand band)
{
	switch (band)
	{
		case CS_BAND_RED:
			return "red";
		case CS_BAND_YELLOW:
			return "yellow";
		case CS_BAND_GREEN:
			return "green";
		case CS_BAND_NONE:
			break;
	}
	return NULL;
}

/*
 * cs_band_of_name: the other way round; none for NULL and unknown words.
 */
CsBand
cs_band_of_name(const char *name)
{
	if (name == NULL)
		return CS_BAND_NONE;
	for (CsBand band = CS_BAND_RED; band <= CS_BAND_GREEN; band++)
		if (strcmp(cs_band_name(band), name) == 0)
			return band;
	return CS_BAND_NONE;
}

/*
 * cs_score_reason_name: the word of state.score_reason; NULL when scored.
 */
const char *
cs_score_reason_name(CsScoreReason reason)
{
	switch (reason)
	{
		case CS_SCORED:
			return NULL;
		case CS_SCORE_MISSING:
			return "missing";
		case CS_SCORE_COVERAGE:
			return "coverage";
		case CS_SCORE_INACTIVE:
			return "inactive";
		case CS_SCORE_NO_SCORECARD:
			return "no_scorecard";
	}
	return NULL;
}
