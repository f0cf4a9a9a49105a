/*
 * core.h
 *		What the files of core/ share among themselves.
 */
#ifndef CS_CORE_H
#define CS_CORE_H

#include "cs_ext.h"

extern Oid cs_owner(void);
extern Oid cs_caller(void);

/* The policy's zone, NULL before setup. Inside a frame. */
extern char *cs_policy_time_zone(void);

/* Raises unless the library is of the version of the SQL in this database. */
extern void cs_version_check(void);

/* What is said of SQL of definitions whose time was over; palloc'd. */
extern char *cs_timeout_message(void);

/* Answers a gate's call; false: cannot. */
typedef bool (*CsShortcut)(FunctionCallInfo fcinfo, Datum *result);

extern bool cs_health_score_shortcut(FunctionCallInfo fcinfo, Datum *result); /* insight/health.c */

#endif /* CS_CORE_H */
