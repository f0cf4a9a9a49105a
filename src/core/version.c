/*
 * version.c
 *		The library must be of the version that the SQL in the database is.
 *
 * In: pg_extension.extversion, read once a session and again when functions
 * change (an update of the extension makes some).  Out: an error with what to
 * do, before anything of ours runs.  A new library may serve a database before
 * ALTER EXTENSION UPDATE, or an old one after it: guessing what the tables look
 * like would be worse than saying so.
 */
#include "cs_ext.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "core/core.h"

static bool agrees = false;

/* Functions of this database changed: look again. */
static void
look_again(Datum arg, int cacheid, uint32 hash)
{
	agrees = false;
}

/* The version of the SQL in this database, NULL: not installed. */
static char *
installed_version(void)
{
	Relation rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tup;
	char *version = NULL;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("cs_ext"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tup = systable_getnext(scan);
	if (HeapTupleIsValid(tup))
	{
		bool isnull;
		Datum value =
			heap_getattr(tup, Anum_pg_extension_extversion, RelationGetDescr(rel), &isnull);

		if (!isnull)
			version = TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return version;
}

/* cs_version_check: see core.h. Scripts of the extension itself are not asked. */
void
cs_version_check(void)
{
	static bool registered = false;
	char *version;

	if (agrees || creating_extension || IsBinaryUpgrade)
		return;
	if (!registered)
	{
		CacheRegisterSyscacheCallback(PROCOID, look_again, (Datum) 0);
		registered = true;
	}
	version = installed_version();
	if (version == NULL)
		return;
	if (strcmp(version, CS_EXT_VERSION) != 0)
		ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("the library of cs_ext is of version %s, the extension in this database of "
					   "version %s",
					   CS_EXT_VERSION, version),
				errhint("Run ALTER EXTENSION cs_ext UPDATE here; if that is done, start a new "
						"session, or restart the server where cs_ext is preloaded."));
	agrees = true;
}
