/*
 * init.c
 *		Loading of the library: settings, and the hooks of capture and scheduler.
 *
 * Settings are about the server only; nothing here changes a result except
 * cs_ext.now, the instant everything is computed at, and that is a superuser's.
 */
#include "cs_ext.h"

#include <limits.h>

#include "access/parallel.h"
#include "miscadmin.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "compat.h"
#include "facts/source.h"
#include "scheduler/scheduler.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

bool cs_scheduler = true;
char *cs_databases = NULL;
int cs_max_workers = 4;
int cs_refresh_batch = 2000;
int cs_usage_large = 32768;
int cs_usage_memory = 256 * 1024;
char *cs_usage_files = NULL;
int cs_user_sql_timeout = 60000;
int cs_change_log_warn_rows = 1000000;
int cs_scan_interval = 60;
bool cs_allow_superuser_sql = false;
char *cs_actor = NULL;
char *cs_now_setting = NULL;

/*
 * check_now: cs_ext.now is empty or an instant. What is wrong shall be refused
 * where it is written, not by whatever is computed later. As the check of
 * recovery_target_time it must not raise, so it only decodes.
 */
static bool
check_now(char **newval, void **extra, GucSource source)
{
	char *fields[MAXDATEFIELDS];
	int types[MAXDATEFIELDS];
	char buffer[MAXDATELEN + MAXDATEFIELDS];
	struct pg_tm tm;
	fsec_t fsec;
	int zone;
	int what;
	int n;

	/* a parallel worker is given what was checked, before it knows the time zones */
	if (**newval == '\0' || InitializingParallelWorker)
		return true;
	if (ParseDateTime(*newval, buffer, sizeof(buffer), fields, types, MAXDATEFIELDS, &n) == 0 &&
		cs_decode_datetime(fields, types, n, &what, &tm, &fsec, &zone) == 0 &&
		(what == DTK_DATE || what == DTK_EPOCH))
		return true;
	GUC_check_errdetail("It is no instant such as 2025-01-01 or 2025-01-01 06:00:00+01.");
	GUC_check_errhint("Leave it empty to use the clock.");
	return false;
}

static bool
check_databases(char **newval, void **extra, GucSource source)
{
	char *list = pstrdup(*newval);
	List *names;
	bool valid = SplitIdentifierString(list, ',', &names);

	list_free(names);
	pfree(list);
	if (valid)
		return true;
	GUC_check_errdetail("List syntax is invalid.");
	GUC_check_errhint("Write names separated by commas, in double quotes where they need them.");
	return false;
}

/*
 * _PG_init: defines the settings; when preloaded also registers the launcher.
 */
void
_PG_init(void)
{
	DefineCustomBoolVariable("cs_ext.scheduler", "Whether the launcher starts database workers.",
							 NULL, &cs_scheduler, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("cs_ext.databases",
							   "Databases that the scheduler serves, separated by commas.",
							   "Empty: every database that has the extension.", &cs_databases, "",
							   PGC_SIGHUP, GUC_LIST_INPUT, check_databases, NULL, NULL);
	DefineCustomIntVariable("cs_ext.max_workers", "Database and job workers at a time.", NULL,
							&cs_max_workers, 4, 1, 64, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("cs_ext.refresh_batch",
							"Customers that one transaction of refresh handles.", NULL,
							&cs_refresh_batch, 2000, 1, 100000, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"cs_ext.usage_large", "Size from which a customer's month of usage is kept in pieces.",
		NULL, &cs_usage_large, 32768, 0, INT_MAX, PGC_USERSET, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"cs_ext.usage_memory", "Memory of a process of the rollup's first build.",
		"For tests: a small value makes many slices.", &cs_usage_memory, 256 * 1024, 1, 256 * 1024,
		PGC_SUSET, GUC_UNIT_KB | GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"cs_ext.usage_files", "Where the rollup's first build puts temporary files.",
		"Set by the build itself, for its workers.", &cs_usage_files, "", PGC_SUSET,
		GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE, NULL, NULL, NULL);
	DefineCustomIntVariable("cs_ext.user_sql_timeout",
							"Longest time one statement made of users' definitions may take.",
							"Zero: no limit.", &cs_user_sql_timeout, 60000, 0, INT_MAX, PGC_SUSET,
							GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("cs_ext.change_log_warn_rows",
							"Rows waiting in the change log from which cs.doctor() warns.", NULL,
							&cs_change_log_warn_rows, 1000000, 1, INT_MAX, PGC_SIGHUP, 0, NULL,
							NULL, NULL);
	DefineCustomIntVariable(
		"cs_ext.scan_interval", "Time between two re-reads of a scanned source by the worker.",
		NULL, &cs_scan_interval, 60, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomBoolVariable("cs_ext.allow_superuser_sql",
							 "Whether jobs of kind sql may run as a superuser.", NULL,
							 &cs_allow_superuser_sql, false, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"cs_ext.actor", "Who acts on alerts and overrides, for apps that pool one role.",
		"Empty: the session's user.", &cs_actor, "", PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("cs_ext.now", "The instant everything is computed at.",
							   "Empty: the clock. Never before the last evaluated instant.",
							   &cs_now_setting, "", PGC_SUSET, 0, check_now, NULL, NULL);
	MarkGUCPrefixReserved("cs_ext");

	cs_capture_init();
	if (process_shared_preload_libraries_in_progress)
		cs_scheduler_init();
}
