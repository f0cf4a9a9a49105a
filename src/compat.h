/*
 * compat.h
 *		What differs between the PostgreSQL majors this builds on (15 and newer),
 *		by meaning and in this one place.
 */
#ifndef CS_COMPAT_H
#define CS_COMPAT_H

#include "postgres.h"
#include "access/genam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#if PG_VERSION_NUM < 150000
#error "cs_ext needs PostgreSQL 15 or newer"
#endif

/* Who may drop or rename a database; superusers too. */
#if PG_VERSION_NUM >= 160000
#include "catalog/pg_database.h"
#include "utils/acl.h"
#define cs_database_owner(dboid, roleid) object_ownercheck(DatabaseRelationId, (dboid), (roleid))
#define cs_class_owner(relid, roleid) object_ownercheck(RelationRelationId, (relid), (roleid))
#else
#include "utils/acl.h"
#define cs_database_owner(dboid, roleid) pg_database_ownercheck((dboid), (roleid))
#define cs_class_owner(relid, roleid) pg_class_ownercheck((relid), (roleid))
#endif

/* Run a portal to its end, as a statement of its own. */
#if PG_VERSION_NUM >= 180000
#define cs_portal_run(portal, dest, qc) PortalRun((portal), FETCH_ALL, true, (dest), (dest), (qc))
#else
#define cs_portal_run(portal, dest, qc) \
	PortalRun((portal), FETCH_ALL, true, true, (dest), (dest), (qc))
#endif

/* Reads the fields of a date and time; 0: it is one. */
#if PG_VERSION_NUM >= 160000
#define cs_decode_datetime(fields, types, n, what, tm, fsec, zone) \
	DecodeDateTime((fields), (types), (n), (what), (tm), (fsec), (zone), &(DateTimeErrorExtra){0})
#else
#define cs_decode_datetime(fields, types, n, what, tm, fsec, zone) \
	DecodeDateTime((fields), (types), (n), (what), (tm), (fsec), (zone))
#endif

/* Right of a role on a schema: one function for all objects from 16 on. */
#if PG_VERSION_NUM >= 160000
#define CS_NAMESPACE_ACLCHECK(nsp, role, mode) object_aclcheck(NamespaceRelationId, nsp, role, mode)
#else
#define CS_NAMESPACE_ACLCHECK(nsp, role, mode) pg_namespace_aclcheck(nsp, role, mode)
#endif

/* Raises unless the current user may read all that a plan reads; in 16 the rights left the range table. */
#if PG_VERSION_NUM >= 160000
#define cs_check_plan_permissions(stmt) \
	((void) ExecCheckPermissions((stmt)->rtable, (stmt)->permInfos, true))
#else
#define cs_check_plan_permissions(stmt) ((void) ExecCheckRTPerms((stmt)->rtable, true))
#endif

/* A new row into all indexes of its table; 16 can leave out those that do not summarise. */
#if PG_VERSION_NUM >= 160000
#define cs_insert_index_tuples(rel, slot, estate) \
	ExecInsertIndexTuples((rel), (slot), (estate), false, false, NULL, NIL, false)
#else
#define cs_insert_index_tuples(rel, slot, estate) \
	ExecInsertIndexTuples((rel), (slot), (estate), false, false, NULL, NIL)
#endif

/* The new version of a row; *in_index: it is to be put into the indexes. */
static inline TM_Result
cs_table_tuple_update(Relation rel, ItemPointer tid, TupleTableSlot *slot, bool *in_index)
{
	TM_FailureData failure;
	LockTupleMode lock;
	TM_Result result;
#if PG_VERSION_NUM >= 160000
	TU_UpdateIndexes indexes = TU_None;
#else
	bool indexes = false;
#endif

	result = table_tuple_update(rel, tid, slot, GetCurrentCommandId(true), GetActiveSnapshot(),
								InvalidSnapshot, true, &failure, &lock, &indexes);
#if PG_VERSION_NUM >= 160000
	*in_index = indexes != TU_None;
#else
	*in_index = indexes;
#endif
	return result;
}

/* A scan of rows by an index; 18 counts for EXPLAIN. */
#if PG_VERSION_NUM >= 180000
#define cs_index_beginscan(rel, index, snapshot, nkeys) \
	index_beginscan((rel), (index), (snapshot), NULL, (nkeys), 0)
#else
#define cs_index_beginscan(rel, index, snapshot, nkeys) \
	index_beginscan((rel), (index), (snapshot), (nkeys), 0)
#endif

/* Stands before a function that does not return. */
#if PG_VERSION_NUM >= 180000
#define CS_NORETURN pg_noreturn
#else
#define CS_NORETURN pg_attribute_noreturn()
#endif

/* Whether this process holds a lock of just this mode; 17 can ask for stronger ones too. */
#if PG_VERSION_NUM >= 170000
#define cs_lock_held_by_me(tag, mode) LockHeldByMe((tag), (mode), false)
#else
#define cs_lock_held_by_me(tag, mode) LockHeldByMe((tag), (mode))
#endif

#endif /* CS_COMPAT_H */
