/*
 * cs_ext.h
 *		What every file of the extension shares: the two SPI wrappers, the
 *		policy, time, and the batch that goes through the stages.
 *
 * Words (docs and code use exactly these): a source is a relation registered
 * for one kind of fact; ingest turns facts into rollup and ledger; evaluate
 * turns those into metrics, segments, health and alerts; refresh is both.
 */
#ifndef CS_EXT_H
#define CS_EXT_H

#include "postgres.h"

#include "access/htup.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "compat.h"

/* ---- settings (core/init.c) ------------------------------------------- */

extern bool cs_scheduler;
extern char *cs_databases;
extern int cs_max_workers;
extern int cs_refresh_batch;
extern int cs_usage_large;      /* bytes */
extern int cs_usage_memory;     /* kilobytes */
extern char *cs_usage_files;    /* of the build that runs */
extern int cs_user_sql_timeout; /* milliseconds, 0 = none */
extern int cs_change_log_warn_rows;
extern int cs_scan_interval; /* seconds between re-reads of a scanned source by the worker */
extern bool cs_allow_superuser_sql;
extern char *cs_actor;
extern char *cs_now_setting;

/* ---- bound parameters ------------------------------------------------- */

typedef struct CsArg
{
	Oid type;
	Datum value;
	bool isnull;
} CsArg;

#define CS_NO_ARGS NULL, 0
#define CS_ARGS(...) (CsArg[]){__VA_ARGS__}, (int) (sizeof((CsArg[]){__VA_ARGS__}) / sizeof(CsArg))

extern CsArg cs_text(const char *s); /* NULL pointer is SQL NULL */
extern CsArg cs_textarray(Datum array);
extern CsArg cs_int4(int32 v);
extern CsArg cs_int8(int64 v);
extern CsArg cs_bool(bool v);
extern CsArg cs_float8(float8 v);
extern CsArg cs_tstz(TimestampTz v);
extern CsArg cs_date(DateADT v);
extern CsArg cs_datum(Oid type, Datum v, bool isnull);

/* ---- the privileged side (core/spi.c) --------------------------------- */

/*
 * A frame: between enter and leave the extension's owner is the current
 * user, search_path and every setting that could change a result are pinned,
 * and SPI is connected.  Frames nest.  After an error the (sub)transaction's
 * abort undoes them.
 */
typedef struct CsFrame
{
	Oid user;
	int sec_context;
	int guc_level;
	Oid caller; /* of the frame around */
} CsFrame;

extern void cs_enter(CsFrame *frame);
extern void cs_leave(CsFrame *frame);

/*
 * Kilobytes that rows may take before they go to a file. They are of one batch
 * and so bounded; more than work_mem, because a file must be closed by hand.
 */
#define CS_RESULT_MEM Max(work_mem, 65536)

/* Rows of a finished query, outside any SPI memory; readable many times. */
typedef struct CsResult
{
	Tuplestorestate *store;
	TupleDesc desc;
	uint64 nrows;
} CsResult;

/*
 * Run one statement as the extension's owner, on the batch snapshot when one
 * is set.  cs_exec leaves rows in SPI_tuptable and returns SPI_processed;
 * cs_query hands them out as a CsResult (in CurrentMemoryContext at the call).
 */
extern uint64 cs_exec(const char *sql, const CsArg *args, int nargs);
extern CsResult *cs_query(const char *sql, const CsArg *args, int nargs);

/* First column of the first row of the last cs_exec: NULL when no row or SQL NULL. */
extern char *cs_value(void); /* as text, in CurrentMemoryContext */
extern Datum cs_value_datum(bool *isnull);

/* Reading SPI_tuptable: row r, column c (from 1), as text. */
extern char *cs_cell(uint64 row, int col);
extern Datum cs_cell_datum(uint64 row, int col, bool *isnull);

/* Statements see a relation of this name until it is unregistered or the frame is left. */
extern void cs_register(const char *name, CsResult *rows);
extern void cs_unregister(const char *name);

/*
 * All rows into the result of a set-returning function, whose columns are the
 * same; with not_null only those that have a value in that column (from 1).  Ends
 * the result.
 */
extern void cs_return_rows(CsResult *rows, FunctionCallInfo fcinfo, int not_null);

/* NULL: each statement has its own snapshot. Set by refresh, one a batch. */
extern Snapshot cs_set_snapshot(Snapshot snapshot); /* returns the one before */

/* Makes the snapshot that a statement would have now the active one, until PopActiveSnapshot. */
extern void cs_push_snapshot(void);

/* ---- the contained side (core/spi.c) ---------------------------------- */

/*
 * One SELECT written by a user.  It runs as policy.run_as, in a subtransaction
 * that is read-only and always rolled back, limited by cs_ext.user_sql_timeout,
 * with the policy's time zone, row_security off and the search_path kept with
 * the definition (pg_catalog, cs, then that).  The names as_of and as_of_day in
 * it are constants; $1 is the array of keys.  Registered relations are visible.
 * Call inside a frame.
 */
typedef struct CsUserQuery
{
	const char *sql;
	const char *search_path; /* may be NULL */
	TimestampTz as_of;
	DateADT as_of_day;
	Oid key_type; /* array type of $1, InvalidOid: none */
	Datum keys;
	bool unlimited; /* reads a whole relation, however long that takes */
} CsUserQuery;

/*
 * cs_user_query: the rows, outside the subtransaction, in the caller's
 * context.  error == NULL: an error is rethrown; else it is returned there
 * (copied) and the result is NULL.
 * cs_user_check: analyse only; refuses what is not one SELECT, what writes and
 * what is volatile; returns the row type (in the caller's context).
 */
extern CsResult *cs_user_query(const CsUserQuery *query, ErrorData **error);
extern TupleDesc cs_user_check(const CsUserQuery *query, ErrorData **error);

/*
 * Names in an expression of a user's (raw parse only): every unqualified
 * column name in it, once, in order of appearance, as a list of char *.
 * Raises a syntax error that names `what` (e.g. "rule of segment \"x\"").
 */
extern List *cs_expression_names(const char *expression, const char *what);

/*
 * Calls func(constant, ...) in an expression, e.g. ago('mrr', 30) or
 * mrr_ago(90): each is replaced by the column name that `name_of` returns for
 * its constants.  Constants are passed as text.  A call whose arguments are
 * not constants is refused, naming `what`.
 */
typedef char *(*CsCallName)(const char *func, List *constants, void *arg);
extern char *cs_replace_calls(const char *expression, const char *func, CsCallName name_of,
							  void *arg, const char *what);

/* Two kept search_paths as one, for a definition over a source's mapping; either may be NULL or empty. */
extern const char *cs_join_paths(const char *first, const char *second);

/* ---- policy and time (core/policy.c) ---------------------------------- */

typedef struct CsPolicy
{
	char *run_as;
	Oid run_as_oid;
	char *time_zone;
	char currency[4];
	bool edge_at; /* period_edge = 'at' */
	bool free_is_active;
	int grace_days;
	int max_pause_days; /* -1: no limit */
	int gap_days_tenure;
	int gap_days_money;
	int reactivation_days; /* -1: any time */
	char *recognition;
	int version;
} CsPolicy;

/*
 * The policy as this transaction sees it, palloc'd in CurrentMemoryContext.
 * Raises "cs_ext is not set up" with the hint to call cs.setup() unless
 * missing_ok (then NULL).  Call inside a frame.
 */
extern CsPolicy *cs_policy(bool missing_ok);

/* cs_ext.now or the clock, never before the last evaluated instant. */
extern TimestampTz cs_now(void);
extern DateADT cs_local_day(TimestampTz t, const char *time_zone);

/*
 * Where a day starts. Where clocks go back from 01:00 to 00:00 it has two
 * midnights: local is the first, with which usage is told apart by days; clock is
 * the one that AT TIME ZONE gives, with which periods and balances are bounded in
 * SQL as here.
 */
extern TimestampTz cs_local_midnight(DateADT day, const char *time_zone);
extern TimestampTz cs_clock_midnight(DateADT day, const char *time_zone);

/* ---- errors (core/error.c) -------------------------------------------- */

/* Nearest of the candidates by edit distance, or NULL when nothing is near. */
extern char *cs_nearest(const char *word, List *candidates);

/* errhint("Did you mean \"%s\"?") when something is near, else nothing. */
extern int cs_errhint_nearest(const char *word, List *candidates);

/* ---- the batch (refresh/) --------------------------------------------- */

/*
 * N customers on their way through the stages of evaluate.  ids is a sorted
 * text[]; the same ids stand in the registered relation "batch"(customer_id).
 */
typedef struct CsBatch
{
	TimestampTz as_of;       /* the evaluated instant */
	DateADT as_of_day;       /* its local day, D */
	TimestampTz computed_at; /* the clock */
	Datum ids;
	int nids;
	bool kept;         /* rules see the state as history kept it at as_of, which is a day bound */
	bool what_if;      /* recompute: nothing is written */
	bool early_only;   /* of a what_if: early segments are all that is asked */
	TimestampTz ahead; /* refresh_customer: as_of, to be kept in state; else 0 */
	const char *cause; /* NULL, or 'definition' for changes by a changed definition */
	CsPolicy *policy;
	struct CsState *state; /* its rows of cs_internal.state, see refresh/state.h */
	struct CsWhose *whose; /* under which ids their facts stand, see facts/merge.h */
} CsBatch;

#endif /* CS_EXT_H */
