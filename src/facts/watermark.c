/*
 * watermark.c
 *		Capture without triggers, for tables that only grow: each row carries the
 *		transaction that wrote it.
 *
 * In: a column of type xid8, DEFAULT pg_current_xact_id(), that
 * cs.add_watermark() puts on the table, and source_state.watermark, the
 * pg_snapshot of the last look.  Out: rows of cs_internal.change_log, as a
 * trigger would have written them: customers with rows that are visible now and
 * were not visible then.  Sequences and clocks could not do this: what commits
 * late has a small number and an old time, and would be missed.
 *
 * The rows are found by an index on the column (BRIN or btree) from the oldest
 * transaction that was running at the last look; never by reading the table.
 *
 *	commits late			its xid stood in the snapshot as running (or above it),
 *							so its rows are new whenever it commits; prepared
 *							transactions and savepoints likewise (the column holds
 *							the top transaction's id).
 *	our own transaction		refresh(commit => false) after own writes: its xid is
 *							added to the running ones of the snapshot that is kept,
 *							so what it writes afterwards is new to the next look.
 *	rollback of a refresh	the kept snapshot rolls back with what was derived.
 *	crash					likewise.
 *	update, delete			not noticed: such a table only grows.  cs.doctor() says
 *							when the server counted any.
 *	truncate, partitions	seen by the storage, as with triggers (scan.c): the
 *	come and go				source is read whole.
 *	restore, copied rows	an xid of another cluster says nothing here. Above the
 *							next xid of this one it is found, and the source
 *							refused until cs.add_watermark() gives a new column;
 *							source_state is not dumped, so whatever was restored
 *							is read whole at first.
 *	logical apply			a published column brings the publisher's xids, so a
 *							table that a subscription fills is not captured this way.
 *	standby					refresh does not run there.
 */
#include "cs_ext.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "facts/source_kind.h"

#define COLUMN "cs_watermark"
#define LOCK_TIMEOUT "3s"

PG_FUNCTION_INFO_V1(cs_add_watermark);

/* The relation $1 and all its partitions. */
#define WITH_TREE                                                                     \
	"WITH RECURSIVE tree AS (SELECT $1::oid AS oid UNION ALL SELECT i.inhrelid FROM " \
	"pg_inherits i JOIN tree t ON i.inhparent = t.oid) "

#define THE_DEFAULT "pg_get_expr(d.adbin, d.adrelid) = 'pg_current_xact_id()'"

static CsArg
relation_arg(Oid relid)
{
	return cs_datum(OIDOID, ObjectIdGetDatum(relid), false);
}

/* ---- whether it is possible ----------------------------------------------- */

/*
 * watermark_column: the column of the relation that holds its writer's
 * transaction, NULL when there is none.
 */
static char *
watermark_column(Oid relid)
{
	if (cs_exec("SELECT a.attname FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid "
				"AND d.adnum = a.attnum WHERE a.attrelid = $1 AND a.atttypid = 'xid8'::regtype AND "
				"a.attnotnull AND NOT a.attisdropped AND " THE_DEFAULT " ORDER BY a.attnum LIMIT 1",
				CS_ARGS(relation_arg(relid))) == 0)
		return NULL;
	return cs_value();
}

/*
 * watermark_index: the index that finds new rows, InvalidOid when there is none.
 */
static Oid
watermark_index(Oid relid, const char *column)
{
	bool isnull;

	if (cs_exec("SELECT i.indexrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN "
				"pg_am m ON m.oid = c.relam JOIN pg_attribute a ON a.attrelid = i.indrelid AND "
				"a.attnum = i.indkey[0] WHERE i.indrelid = $1 AND a.attname = $2 AND i.indisvalid "
				"AND i.indpred IS NULL AND m.amname IN ('brin', 'btree') ORDER BY m.amname LIMIT 1",
				CS_ARGS(relation_arg(relid), cs_text(column))) == 0)
		return InvalidOid;
	return DatumGetObjectId(cs_value_datum(&isnull));
}

/*
 * cs_watermark_obstacle: why a source cannot be captured by watermark; NULL
 * when it can, with the column in *column.  *column NULL: nobody asked for it.
 */
const char *
cs_watermark_obstacle(const CsSource *source, char **column)
{
	char relkind = get_rel_relkind(source->relid);

	*column = NULL;
	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE)
		return "only a table can have a watermark column";
	*column = watermark_column(source->relid);
	if (*column == NULL)
		return "it has no column of type xid8 with DEFAULT pg_current_xact_id()";
	if (!OidIsValid(watermark_index(source->relid, *column)))
		return psprintf("no index begins with column %s", quote_identifier(*column));
	cs_exec(WITH_TREE "SELECT EXISTS (SELECT 1 FROM tree t JOIN pg_subscription_rel s ON s.srrelid "
					  "= t.oid)",
			CS_ARGS(relation_arg(source->relid)));
	if (*cs_value() == 't')
		return "a subscription fills it, which may bring transaction ids of another server";
	cs_exec(WITH_TREE "SELECT EXISTS (SELECT 1 FROM tree t JOIN pg_attribute a ON a.attrelid = "
					  "t.oid AND a.attname = $2 AND NOT a.attisdropped JOIN pg_attrdef d ON "
					  "d.adrelid = a.attrelid AND d.adnum = a.attnum WHERE NOT " THE_DEFAULT ")",
			CS_ARGS(relation_arg(source->relid), cs_text(*column)));
	if (*cs_value() == 't')
		return psprintf("a partition has another default for column %s", quote_identifier(*column));
	if (relkind == RELKIND_RELATION)
	{
		cs_exec("SELECT EXISTS (SELECT 1 FROM pg_inherits WHERE inhparent = $1)",
				CS_ARGS(relation_arg(source->relid)));
		if (*cs_value() == 't')
			return "child tables that are no partitions may lack the default";
	}
	return NULL;
}

/*
 * cs_rewritten: rows of a relation and its partitions that were updated or
 * deleted, as the server has counted since its statistics were reset.
 */
int64
cs_rewritten(Oid relid)
{
	bool isnull;

	cs_exec(WITH_TREE "SELECT coalesce(sum(pg_stat_get_tuples_updated(t.oid) + "
					  "pg_stat_get_tuples_deleted(t.oid)), 0)::bigint FROM tree t",
			CS_ARGS(relation_arg(relid)));
	return DatumGetInt64(cs_value_datum(&isnull));
}

/* ---- looking -------------------------------------------------------------- */

/*
 * cs_query_by_index: runs a query that an index must answer.  The planner has no
 * statistics of xid8 ranges worth the name and would take a third of the table
 * for new; and takes conditions that nearly every row fulfils for rare ones.
 * ordered: the index gives the order, too.
 */
CsResult *
cs_query_by_index(const CsUserQuery *query, bool ordered, ErrorData **error)
{
	int level = NewGUCNestLevel();
	CsResult *rows;

	(void) set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	(void) set_config_option("enable_bitmapscan", ordered ? "off" : "on", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	if (ordered)
		(void) set_config_option("enable_sort", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
	rows = cs_user_query(query, error);
	AtEOXact_GUC(false, level);
	return rows;
}

/*
 * remember_snapshot: what is visible now was seen.  Our own transaction, which
 * no snapshot of its own lists, counts as running.
 */
static void
remember_snapshot(const CsSource *source)
{
	cs_exec(
		"WITH n AS (SELECT pg_current_snapshot() AS s, pg_current_xact_id_if_assigned() AS own), "
		"r AS (SELECT pg_snapshot_xip(n.s) AS x FROM n UNION SELECT n.own FROM n WHERE n.own < "
		"pg_snapshot_xmax(n.s)) UPDATE cs_internal.source_state SET looked_at = clock_timestamp(), "
		"watermark = (SELECT format('%s:%s:%s', least(pg_snapshot_xmin(n.s)::text::numeric, "
		"(SELECT min(r.x::text::numeric) FROM r)), pg_snapshot_xmax(n.s), (SELECT "
		"string_agg(r.x::text, ',' ORDER BY r.x) FROM r)) FROM n)::pg_snapshot WHERE source = $1",
		CS_ARGS(cs_text(source->name)));
}

/*
 * new_rows: SQL over the relation that is true of rows not seen at the last
 * look; NULL when there was none.
 */
static char *
new_rows(const CsSource *source, const char *column)
{
	char *watermark;

	if (cs_exec("SELECT watermark::text, pg_snapshot_xmin(watermark)::text FROM "
				"cs_internal.source_state WHERE source = $1 AND watermark IS NOT NULL",
				CS_ARGS(cs_text(source->name))) == 0)
		return NULL;
	watermark = cs_cell(0, 1);
	return psprintf("%s >= '%s'::pg_catalog.xid8 AND NOT "
					"pg_catalog.pg_visible_in_snapshot(%s, '%s'::pg_catalog.pg_snapshot)",
					quote_identifier(column), cs_cell(0, 2), quote_identifier(column), watermark);
}

/*
 * refuse_foreign: true when a row carries a transaction that this cluster has
 * not come to; the source is marked with what to do.
 */
static bool
refuse_foreign(const CsSource *source, const char *column)
{
	CsUserQuery query = {0};
	ErrorData *error = NULL;
	CsResult *rows;
	bool foreign;
	char *own;

	cs_exec("SELECT pg_snapshot_xmax(pg_current_snapshot())::text, "
			"coalesce(pg_current_xact_id_if_assigned()::text, '0')",
			CS_NO_ARGS);
	own = cs_cell(0, 2);
	query.sql = psprintf("SELECT 1 AS found FROM %s WHERE %s >= '%s'::pg_catalog.xid8 AND %s <> "
						 "'%s'::pg_catalog.xid8 LIMIT 1",
						 source->relation, quote_identifier(column), cs_cell(0, 1),
						 quote_identifier(column), own);
	rows = cs_query_by_index(&query, false, &error);
	if (rows == NULL)
	{
		cs_source_failed(source, error->message);
		return true;
	}
	foreign = rows->nrows > 0;
	tuplestore_end(rows->store);
	if (foreign)
		cs_source_failed(
			source, psprintf("column %s of %s has transaction ids of another server, as after a "
							 "restore; SELECT cs.add_watermark(%s); gives it a new column",
							 quote_identifier(column), source->relation,
							 quote_literal_cstr(source->relation)));
	return foreign;
}

/*
 * summarise: a BRIN index covers new pages only when somebody tells it to;
 * where autovacuum has not yet, and the table is not being worked on, we do.
 */
static void
summarise(const CsSource *source, const char *column)
{
	uint64 n;
	Oid *tables;
	Oid *indexes;
	bool isnull;

	n = cs_exec(WITH_TREE "SELECT i.indrelid, i.indexrelid FROM tree t JOIN pg_index i ON "
						  "i.indrelid = t.oid JOIN pg_class c ON c.oid = i.indexrelid AND "
						  "c.relkind = 'i' JOIN pg_am m ON m.oid = c.relam AND m.amname = 'brin' "
						  "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = "
						  "i.indkey[0] AND a.attname = $2 WHERE i.indisvalid AND "
						  "pg_has_role(c.relowner, 'USAGE')",
				CS_ARGS(relation_arg(source->relid), cs_text(column)));
	tables = palloc(sizeof(Oid) * (n + 1));
	indexes = palloc(sizeof(Oid) * (n + 1));
	for (uint64 i = 0; i < n; i++)
	{
		tables[i] = DatumGetObjectId(cs_cell_datum(i, 1, &isnull));
		indexes[i] = DatumGetObjectId(cs_cell_datum(i, 2, &isnull));
	}
	for (uint64 i = 0; i < n; i++)
	{
		/* The lock it takes itself: were it to wait, we would wait behind a vacuum. */
		if (ConditionalLockRelationOid(tables[i], ShareUpdateExclusiveLock))
			cs_exec("SELECT brin_summarize_new_values($1)", CS_ARGS(relation_arg(indexes[i])));
	}
}

/*
 * cs_watermark_begin: the source is being read whole on this snapshot; false
 * when it must not be.
 */
bool
cs_watermark_begin(const CsSource *source)
{
	char *column;

	if (cs_watermark_obstacle(source, &column) != NULL)
		return false;
	if (refuse_foreign(source, column))
		return false;
	summarise(source, column);
	remember_snapshot(source);
	return true;
}

/*
 * cs_watermark_look: customers with new rows go to the change log; false when
 * the source has to be read whole (never looked at), or was refused.
 */
bool
cs_watermark_look(const CsSource *source)
{
	CsMapping *mapping = CS_MAPPING(source);
	const char *anchor = cs_source_anchor(source);
	CsUserQuery query = {0};
	ErrorData *error = NULL;
	CsResult *rows;
	char *column;
	char *condition;
	char *range;

	if (cs_watermark_obstacle(source, &column) != NULL ||
		(condition = new_rows(source, column)) == NULL)
		return false;
	if (refuse_foreign(source, column))
		return false;
	if (anchor == NULL)
		anchor = "NULL::timestamptz";
	if (TIMESTAMP_IS_NOBEGIN(source->sealed))
		range =
			psprintf("coalesce(min(%s), '-infinity') AS since, coalesce(max(%s), 'infinity') AS "
					 "until, NULL::bigint AS refused",
					 anchor, anchor);
	else
		/* below the seal rows are counted; with no other the range is none */
		range = psprintf(
			"CASE WHEN count(*) = count(%s) THEN coalesce(min(%s) FILTER (WHERE %s >= as_of), "
			"'infinity') ELSE '-infinity' END AS since, CASE WHEN count(*) = count(%s) THEN "
			"coalesce(max(%s) FILTER (WHERE %s >= as_of), '-infinity') ELSE 'infinity' END AS "
			"until, nullif(count(*) FILTER (WHERE %s < as_of), 0) AS refused",
			anchor, anchor, anchor, anchor, anchor, anchor, anchor);
	query.as_of = source->sealed;
	query.sql = psprintf(
		"SELECT coalesce(%s, '') AS customer_key, %s FROM (%s) f GROUP BY 1",
		cs_key_text(mapping->key_native, source->by_user ? "f.user_key" : "f.customer_key"), range,
		cs_source_facts(source, condition));
	query.search_path = source->search_path;
	rows = cs_query_by_index(&query, false, &error);
	if (rows == NULL)
	{
		cs_source_failed(source, error->message);
		return false;
	}
	if (rows->nrows > 0)
	{
		cs_register("new_rows", rows);
		cs_exec("INSERT INTO cs_internal.change_log (source, customer_key, since, until, refused) "
				"SELECT $1, customer_key, since, until, refused FROM new_rows",
				CS_ARGS(cs_text(source->name)));
		cs_unregister("new_rows");
		summarise(source, column);
	}
	tuplestore_end(rows->store);
	remember_snapshot(source);
	return true;
}

/*
 * cs_watermark_tail: widens [since, until] to what one customer did that no
 * refresh has looked at yet.  Where events are of users, whose they are is not
 * looked up.
 */
void
cs_watermark_tail(const CsSource *source, Datum ids, TimestampTz *since, TimestampTz *until)
{
	CsUserQuery query = {0};
	CsResult *rows;
	ErrorData *error = NULL;
	const char *anchor = cs_source_anchor(source);
	char *column;
	char *condition;

	if (strcmp(source->capture, "watermark") != 0 || !OidIsValid(source->relid) ||
		cs_watermark_obstacle(source, &column) != NULL)
		return;
	condition = new_rows(source, column);
	if (source->by_user || anchor == NULL || condition == NULL)
	{
		*since = DT_NOBEGIN;
		*until = DT_NOEND;
		return;
	}
	cs_source_keys(source, ids, &query);
	query.sql = psprintf("SELECT min(%s) AS since, max(%s) AS until FROM (%s) f", anchor, anchor,
						 cs_source_facts(source, psprintf("%s = ANY ($1) AND %s",
														  cs_source_key(source), condition)));
	rows = cs_query_by_index(&query, false, &error);
	if (rows == NULL)
		return; /* reading the customer says so, too */
	cs_register("tail", rows);
	cs_exec("SELECT since, until FROM tail WHERE since IS NOT NULL", CS_NO_ARGS);
	if (SPI_processed > 0)
	{
		bool isnull;

		*since = Min(*since, DatumGetTimestampTz(cs_cell_datum(0, 1, &isnull)));
		*until = Max(*until, DatumGetTimestampTz(cs_cell_datum(0, 2, &isnull)));
	}
	cs_unregister("tail");
	tuplestore_end(rows->store);
}

/* ---- add_watermark -------------------------------------------------------- */

static void
as_caller(const char *sql)
{
	int rc = SPI_execute(sql, false, 0);

	if (rc < 0)
		elog(ERROR, "SPI_execute failed: %s: %s", SPI_result_code_string(rc), sql);
}

/*
 * what_to_do: refuses a relation that can have no watermark; else whether the
 * column must be added, or made anew because its ids are of another server.
 */
static char *
what_to_do(Oid relid, const char *relation, bool *add, bool *drop)
{
	char *column = watermark_column(relid);
	char relkind = get_rel_relkind(relid);

	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("%s is not a table", relation),
				errhint("A watermark is a column; views and foreign tables are captured by scan."));
	if (get_rel_relispartition(relid))
		ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("%s is a partition", relation),
				errhint("Add the watermark to the partitioned table."));
	*add = column == NULL;
	*drop = false;
	if (column == NULL && get_attnum(relid, COLUMN) != InvalidAttrNumber)
		ereport(ERROR, errcode(ERRCODE_DUPLICATE_COLUMN),
				errmsg("%s has a column \"%s\" that is no watermark", relation, COLUMN),
				errhint("A watermark is xid8 NOT NULL DEFAULT pg_current_xact_id(); rename or "
						"drop the column."));
	return column ? column : pstrdup(COLUMN);
}

/*
 * cs_add_watermark: cs.add_watermark(relation), with the caller's rights: the
 * table is his.  Adding the column writes no row (its value for old rows is
 * kept in the catalog); the index is built by reading the table once.
 */
Datum
cs_add_watermark(PG_FUNCTION_ARGS)
{
	Oid relid;
	char *relation;
	char *column;
	bool add;
	bool drop;
	bool index;
	CsFrame frame;
	List *triggers = NIL;
	ListCell *lc;
	int level;
	uint64 n;

	if (PG_ARGISNULL(0))
		ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("relation must not be NULL"));
	relid = PG_GETARG_OID(0);

	cs_enter(&frame);
	(void) cs_policy(false);
	relation = cs_relation_name(relid);
	if (!cs_class_owner(relid, frame.user))
		ereport(
			ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			errmsg("must be owner of %s to add a watermark", relation),
			errhint("Ask its owner, or capture it by trigger, which needs TRIGGER on it only."));
	column = what_to_do(relid, relation, &add, &drop);
	if (!add)
	{
		cs_exec(psprintf("SELECT EXISTS (SELECT 1 FROM %s WHERE %s >= "
						 "pg_snapshot_xmax(pg_current_snapshot()) AND %s IS DISTINCT FROM "
						 "pg_current_xact_id_if_assigned())",
						 relation, quote_identifier(column), quote_identifier(column)),
				CS_NO_ARGS);
		drop = *cs_value() == 't';
	}
	index = add || drop || !OidIsValid(watermark_index(relid, column));
	relation = MemoryContextStrdup(TopTransactionContext, relation);
	column = MemoryContextStrdup(TopTransactionContext, column);
	cs_leave(&frame);

	if (index)
	{
		ereport(NOTICE,
				errmsg("taking %s lock on %s to add %s",
					   add || drop ? "an ACCESS EXCLUSIVE" : "a SHARE", relation,
					   add || drop ? "a column and its index" : "an index"),
				errdetail("It is held until this transaction ends; the table is read once."));
		SPI_connect();
		level = NewGUCNestLevel();
		if (strcmp(GetConfigOption("lock_timeout", false, false), "0") == 0)
			(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
		if (drop)
			as_caller(
				psprintf("ALTER TABLE %s DROP COLUMN %s", relation, quote_identifier(column)));
		if (add || drop)
			as_caller(psprintf("ALTER TABLE %s ADD COLUMN %s pg_catalog.xid8 NOT NULL DEFAULT "
							   "pg_catalog.pg_current_xact_id()",
							   relation, quote_identifier(column)));
		as_caller(psprintf("CREATE INDEX ON %s USING brin (%s cs.xid8_minmax_ops) WITH "
						   "(pages_per_range = 32, autosummarize = on)",
						   relation, quote_identifier(column)));
		AtEOXact_GUC(false, level);
		SPI_finish();
	}

	cs_enter(&frame);
	if (index)
	{
		Oid oid = watermark_index(relid, column);

		/* Its operator class is of the extension: DROP EXTENSION takes the index along. */
		cs_exec(psprintf("ALTER INDEX %s DEPENDS ON EXTENSION %s",
						 quote_qualified_identifier(get_namespace_name(get_rel_namespace(oid)),
													get_rel_name(oid)),
						 quote_identifier(get_extension_name(get_extension_oid("cs_ext", false)))),
				CS_NO_ARGS);
	}

	/* Sources that chose their capture themselves choose again now; the others keep theirs. */
	n = cs_exec("SELECT name FROM cs.source WHERE capture = 'auto' AND relation = $1 ORDER BY name",
				CS_ARGS(cs_text(relation)));
	for (uint64 i = 0; i < n; i++)
		triggers = lappend(triggers, cs_cell(i, 1));
	foreach (lc, triggers)
	{
		CsSource *source = cs_source(lfirst(lc));
		const char *reason;

		if (source == NULL)
			continue;
		if (strcmp(cs_source_capture(source, "auto", &reason), "watermark") != 0)
			continue;
		cs_source_drop_triggers(source);
		cs_exec("UPDATE cs_internal.source_state SET capture = 'watermark', capture_reason = $2, "
				"needs_scan = true WHERE source = $1",
				CS_ARGS(cs_text(source->name), cs_text(reason)));
	}
	cs_leave(&frame);
	PG_RETURN_TEXT_P(cstring_to_text(column));
}
