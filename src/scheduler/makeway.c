/*
 * makeway.c
 *		Out of the way of statements that need a database to themselves.
 *
 * DROP DATABASE, ALTER DATABASE RENAME and SET TABLESPACE and CREATE DATABASE
 * TEMPLATE fail while anybody is connected to the database.  Before such a
 * statement runs its workers are told to end, and none is started until a
 * moment after it.
 */
#include "postgres.h"

#include <signal.h>

#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/timestamp.h"

#include "cs_ext.h"
#include "scheduler/shared.h"

/* For how long, when the statement is still at it; and afterwards, so that its commit comes first. */
#define AWAY_MS 600000
#define AFTER_MS 1000

static ProcessUtility_hook_type prev_utility = NULL;

/* The database that this statement needs alone, InvalidOid: none. */
static Oid
database_of(Node *stmt)
{
	const char *name = NULL;

	if (IsA(stmt, DropdbStmt))
		name = ((DropdbStmt *) stmt)->dbname;
	else if (IsA(stmt, RenameStmt) && ((RenameStmt *) stmt)->renameType == OBJECT_DATABASE)
		name = ((RenameStmt *) stmt)->subname;
	else if (IsA(stmt, AlterDatabaseStmt))
	{
		ListCell *lc;

		foreach (lc, ((AlterDatabaseStmt *) stmt)->options)
			if (strcmp(((DefElem *) lfirst(lc))->defname, "tablespace") == 0)
				name = ((AlterDatabaseStmt *) stmt)->dbname;
	}
	else if (IsA(stmt, CreatedbStmt))
	{
		ListCell *lc;

		foreach (lc, ((CreatedbStmt *) stmt)->options)
			if (strcmp(((DefElem *) lfirst(lc))->defname, "template") == 0 &&
				((DefElem *) lfirst(lc))->arg != NULL)
				name = defGetString((DefElem *) lfirst(lc));
	}
	return name ? get_database_oid(name, true) : InvalidOid;
}

/* Ends the processes of this database and keeps new ones away for so long. */
static void
make_way(Oid dboid, int ms, bool end)
{
	CsDatabaseSlot *slot;
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);

	LWLockAcquire(cs_shared->lock, LW_EXCLUSIVE);
	slot = cs_database_slot(dboid);
	if (slot)
	{
		slot->not_before = until;
		if (end && slot->worker_pid != 0)
			kill(slot->worker_pid, SIGTERM);
		if (!end && cs_shared->launcher_latch)
		{
			slot->next_due = until;
			SetLatch(cs_shared->launcher_latch);
		}
	}
	for (int i = 0; end && i < CS_MAX_JOB_PROCESSES; i++)
		if (cs_shared->jobs[i].dboid == dboid && cs_shared->jobs[i].state == CS_JOB_RUNNING &&
			cs_shared->jobs[i].pid != 0)
			kill(cs_shared->jobs[i].pid, SIGTERM);
	LWLockRelease(cs_shared->lock);
}

/*
 * The hook.  Only for those who own the database: nobody else's statement
 * would succeed, so nobody else may disturb.
 */
static void
utility(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
		ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	volatile Oid dboid = InvalidOid;

	if (cs_shared != NULL)
	{
		dboid = database_of(pstmt->utilityStmt);
		if (dboid == MyDatabaseId || (OidIsValid(dboid) && !cs_database_owner(dboid, GetUserId())))
			dboid = InvalidOid;
		if (IsA(pstmt->utilityStmt, CreatedbStmt) || IsA(pstmt->utilityStmt, DropdbStmt))
			cs_rescan_at_commit();
	}
	if (OidIsValid(dboid))
		make_way(dboid, AWAY_MS, true);

	PG_TRY();
	{
		(prev_utility ? prev_utility : standard_ProcessUtility)(pstmt, query, read_only_tree,
																context, params, env, dest, qc);
	}
	PG_CATCH();
	{
		if (OidIsValid(dboid))
			make_way(dboid, AFTER_MS, false);
		PG_RE_THROW();
	}
	PG_END_TRY();

	/* the slot of a dropped database is freed by the launcher and not used before */
	if (OidIsValid(dboid) && !IsA(pstmt->utilityStmt, DropdbStmt))
		make_way(dboid, AFTER_MS, false);
}

/* cs_makeway_init: installs the hook. */
void
cs_makeway_init(void)
{
	prev_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
}
