/*
 * policy.c
 *		The policy row, the evaluated instant, and the local day.
 */
#include "cs_ext.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/acl.h"
#include "utils/datetime.h"

#include "core/core.h"
#include "core/hold.h"

PG_FUNCTION_INFO_V1(cs_now_sql);
PG_FUNCTION_INFO_V1(cs_caller_sql);

/*
 * cs_policy_time_zone: read with a plan kept for the session, for every frame
 * asks.  NULL before setup.
 */
char *
cs_policy_time_zone(void)
{
	static SPIPlanPtr plan = NULL;
	char *zone = NULL;

	if (plan == NULL)
	{
		SPIPlanPtr p = SPI_prepare("SELECT time_zone FROM cs.policy", 0, NULL);

		if (p == NULL || SPI_keepplan(p) != 0)
			elog(ERROR, "could not prepare the policy's query");
		plan = p;
	}
	if (SPI_execute_plan(plan, NULL, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the policy");
	if (SPI_processed == 1)
		zone = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	SPI_freetuptable(SPI_tuptable);
	return zone;
}

/*
 * cs_policy: see cs_ext.h.
 */
CsPolicy *
cs_policy(bool missing_ok)
{
	MemoryContext context = CurrentMemoryContext;
	void **held = cs_held(CS_HELD_POLICY, &context);
	MemoryContext before = CurrentMemoryContext;
	CsPolicy *policy;
	char *s;

	if (held != NULL && *held != NULL)
		return *held;
	cs_exec("SELECT run_as, time_zone, currency, period_edge = 'at', free_is_active, grace_days,"
			" max_pause_days, gap_days_tenure, version, gap_days_money, reactivation_days,"
			" recognition FROM cs.policy",
			CS_NO_ARGS);
	if (SPI_processed == 0)
	{
		if (missing_ok)
			return NULL;
		ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("cs_ext is not set up in this database"),
				errhint("Run SELECT cs.setup(time_zone => 'Europe/Berlin', currency => 'EUR');"));
	}
	MemoryContextSwitchTo(context);
	policy = palloc0(sizeof(CsPolicy));
	policy->run_as = cs_cell(0, 1);
	policy->run_as_oid = get_role_oid(policy->run_as, true);
	policy->time_zone = cs_cell(0, 2);
	strlcpy(policy->currency, cs_cell(0, 3), sizeof(policy->currency));
	policy->edge_at = *cs_cell(0, 4) == 't';
	policy->free_is_active = *cs_cell(0, 5) == 't';
	policy->grace_days = atoi(cs_cell(0, 6));
	s = cs_cell(0, 7);
	policy->max_pause_days = s ? atoi(s) : -1;
	policy->gap_days_tenure = atoi(cs_cell(0, 8));
	policy->version = atoi(cs_cell(0, 9));
	policy->gap_days_money = atoi(cs_cell(0, 10));
	s = cs_cell(0, 11);
	policy->reactivation_days = s ? atoi(s) : -1;
	policy->recognition = cs_cell(0, 12);
	SPI_freetuptable(SPI_tuptable);
	MemoryContextSwitchTo(before);
	if (held != NULL)
		*held = policy;
	return policy;
}

/*
 * cs_now: cs_ext.now or the clock, never before the last evaluated instant.
 * A statement sees one instant; a worker, which has no statements, the clock.
 */
TimestampTz
cs_now(void)
{
	TimestampTz now;
	Datum last;
	bool isnull;

	if (cs_now_setting != NULL && *cs_now_setting != '\0')
	{
		now = DatumGetTimestampTz(
			DirectFunctionCall3(timestamptz_in, CStringGetDatum(cs_now_setting),
								ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
		if (TIMESTAMP_NOT_FINITE(now))
			ereport(
				ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("cs_ext.now must be a finite instant"),
				errhint(
					"Set it to a timestamp such as '2025-01-01', or reset it to use the clock."));
	}
	else
		now = MyBackendType == B_BG_WORKER ? GetCurrentTimestamp()
										   : GetCurrentStatementStartTimestamp();

	cs_exec("SELECT last_as_of FROM cs_internal.clock", CS_NO_ARGS);
	last = cs_value_datum(&isnull);
	if (!isnull && DatumGetTimestampTz(last) > now)
		now = DatumGetTimestampTz(last);
	return now;
}

Datum
cs_now_sql(PG_FUNCTION_ARGS)
{
	CsFrame frame;
	TimestampTz now;

	cs_enter(&frame);
	now = cs_now();
	cs_leave(&frame);
	PG_RETURN_TIMESTAMPTZ(now);
}

/*
 * cs_caller_sql: name of the role that called the outermost gate.
 */
Datum
cs_caller_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(GetUserNameFromId(cs_caller(), false)));
}

static pg_tz *
zone_of(const char *time_zone)
{
	pg_tz *tz = pg_tzset(time_zone);

	if (tz == NULL)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("unknown time zone \"%s\"", time_zone),
				errhint("Names stand in pg_timezone_names."));
	return tz;
}

DateADT
cs_local_day(TimestampTz t, const char *time_zone)
{
	struct pg_tm tm;
	fsec_t fsec;
	int tz;

	if (timestamp2tm(t, &tz, &tm, &fsec, NULL, zone_of(time_zone)) != 0)
		ereport(ERROR, errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				errmsg("timestamp out of range"));
	return date2j(tm.tm_year, tm.tm_mon, tm.tm_mday) - POSTGRES_EPOCH_JDATE;
}

/*
 * cs_clock_midnight, cs_local_midnight: see cs_ext.h.
 */
TimestampTz
cs_clock_midnight(DateADT day, const char *time_zone)
{
	struct pg_tm tm = {0};
	TimestampTz result;
	int tz;

	j2date(day + POSTGRES_EPOCH_JDATE, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
	tz = DetermineTimeZoneOffset(&tm, zone_of(time_zone));
	if (tm2timestamp(&tm, 0, &tz, &result) != 0)
		ereport(ERROR, errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("date out of range"));
	return result;
}

TimestampTz
cs_local_midnight(DateADT day, const char *time_zone)
{
	TimestampTz result = cs_clock_midnight(day, time_zone);
	struct pg_tm tm;
	fsec_t fsec;
	int tz;

	/* of two midnights that is the second: the instant before it is of the same day */
	if (timestamp2tm(result - 1, &tz, &tm, &fsec, NULL, zone_of(time_zone)) == 0 &&
		date2j(tm.tm_year, tm.tm_mon, tm.tm_mday) - POSTGRES_EPOCH_JDATE == day)
	{
		tm.tm_hour = tm.tm_min = tm.tm_sec = 0;
		(void) tm2timestamp(&tm, 0, &tz, &result);
	}
	return result;
}
