/*
 * statistics.h
 *		Distributions and intervals that rates are shown with.
 */
#ifndef CS_STATISTICS_H
#define CS_STATISTICS_H

#include "postgres.h"

/* Inverse of the standard normal distribution function; 22023 outside (0,1). */
extern double cs_normal_quantile(double p);

/* Lower or upper Wilson bound of k out of n > 0. */
extern double cs_wilson(int64 k, int64 n, double confidence, bool upper);

#endif
