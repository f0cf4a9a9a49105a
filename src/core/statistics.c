/*
 * statistics.c
 *		Distributions and intervals that rates are shown with.
 *
 * In: counts and a confidence.  Out: float8.  No state, no SPI.
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"

#include "core/statistics.h"

PG_FUNCTION_INFO_V1(cs_normal_quantile_sql);
PG_FUNCTION_INFO_V1(cs_wilson_sql);

/* Evaluates c[0] + c[1] x + ... + c[7] x^7. */
static double
polynomial(const double c[8], double x)
{
	double sum = 0;

	for (int i = 7; i >= 0; i--)
		sum = sum * x + c[i];
	return sum;
}

/*
 * cs_normal_quantile is the inverse of the standard normal distribution
 * function for 0 < p < 1, to about 1e-15 relative: Wichura's rational
 * approximations (algorithm AS 241, Applied Statistics 37, 1988).
 */
double
cs_normal_quantile(double p)
{
	static const double a[8] = {3.3871328727963666080e0, 1.3314166789178437745e2,
								1.9715909503065514427e3, 1.3731693765509461125e4,
								4.5921953931549871457e4, 6.7265770927008700853e4,
								3.3430575583588128105e4, 2.5090809287301226727e3};
	static const double b[8] = {1.0,
								4.2313330701600911252e1,
								6.8718700749205790830e2,
								5.3941960214247511077e3,
								2.1213794301586595867e4,
								3.9307895800092710610e4,
								2.8729085735721942674e4,
								5.2264952788528545610e3};
	static const double c[8] = {1.42343711074968357734e0,  4.63033784615654529590e0,
								5.76949722146069140550e0,  3.64784832476320460504e0,
								1.27045825245236838258e0,  2.41780725177450611770e-1,
								2.27238449892691845833e-2, 7.74545014278341407640e-4};
	static const double d[8] = {1.0,
								2.05319162663775882187e0,
								1.67638483018380384940e0,
								6.89767334985100004550e-1,
								1.48103976427480074590e-1,
								1.51986665636164571966e-2,
								5.47593808499534494600e-4,
								1.05075007164441684324e-9};
	static const double e[8] = {6.65790464350110377720e0,  5.46378491116411436990e0,
								1.78482653991729133580e0,  2.96560571828504891230e-1,
								2.65321895265761230930e-2, 1.24266094738807843860e-3,
								2.71155556874348757815e-5, 2.01033439929228813265e-7};
	static const double f[8] = {1.0,
								5.99832206555887937690e-1,
								1.36929880922735805310e-1,
								1.48753612908506148525e-2,
								7.86869131145613259100e-4,
								1.84631831751005468180e-5,
								1.42151175831644588870e-7,
								2.04426310338993978564e-15};
	double q = p - 0.5;
	double r;
	double x;

	if (!(p > 0 && p < 1))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a probability of %g has no normal quantile", p),
						errhint("It must lie between 0 and 1, both excluded.")));

	if (fabs(q) <= 0.425)
	{
		r = 0.180625 - q * q;
		return q * polynomial(a, r) / polynomial(b, r);
	}
	r = sqrt(-log(q < 0 ? p : 1 - p));
	if (r <= 5)
		x = polynomial(c, r - 1.6) / polynomial(d, r - 1.6);
	else
		x = polynomial(e, r - 5) / polynomial(f, r - 5);
	return q < 0 ? -x : x;
}

/*
 * cs_wilson is one bound of the Wilson score interval of k out of n at the
 * given two-sided confidence (DEFINITIONS B.2).  k = 0 has the lower bound 0
 * and k = n the upper bound 1, exactly.  n > 0.
 */
double
cs_wilson(int64 k, int64 n, double confidence, bool upper)
{
	double z = cs_normal_quantile((1 + confidence) / 2);
	double rate = (double) k / n;
	double centre = rate + z * z / (2.0 * n);
	double half = z * sqrt(rate * (1 - rate) / n + z * z / (4.0 * n * n));
	double scale = 1 + z * z / n;

	if (!upper)
		return k == 0 ? 0 : Max((centre - half) / scale, 0);
	return k == n ? 1 : Min((centre + half) / scale, 1);
}

/* cs_internal.normal_quantile(p float8) */
Datum
cs_normal_quantile_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_FLOAT8(cs_normal_quantile(PG_GETARG_FLOAT8(0)));
}

/* cs_internal.wilson(k bigint, n bigint, confidence float8, upper boolean); NULL where n = 0. */
Datum
cs_wilson_sql(PG_FUNCTION_ARGS)
{
	int64 k = PG_GETARG_INT64(0);
	int64 n = PG_GETARG_INT64(1);

	if (n <= 0)
		PG_RETURN_NULL();
	if (k < 0 || k > n)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%lld of %lld is not a share", (long long) k, (long long) n)));
	PG_RETURN_FLOAT8(cs_wilson(k, n, PG_GETARG_FLOAT8(2), PG_GETARG_BOOL(3)));
}
