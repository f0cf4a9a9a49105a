/*
 * source_kind.h
 *		The kinds of facts and their canonical columns, and a source as it is
 *		mapped to them. Private to facts/.
 */
#ifndef CS_SOURCE_KIND_H
#define CS_SOURCE_KIND_H

#include "facts/source.h"

typedef enum CsColumnType
{
	CS_COL_TEXT,
	CS_COL_TIME,
	CS_COL_NUMERIC,
	CS_COL_INT,
	CS_COL_BOOL,
	CS_COL_JSONB
} CsColumnType;

/* Required: the mapping must name it and a row without it is unusable. */
#define CS_COL_REQUIRED 1
/* The instant a row happened or became known; rows with anchor >= as_of are not seen. */
#define CS_COL_ANCHOR 2
/* A number that can't be below zero. */
#define CS_COL_NOT_NEGATIVE 4

typedef struct CsKindColumn
{
	const char *name;
	CsColumnType type;
	int flags;

	/*
	 * Names of the time columns that say when the value became known: the
	 * least of those that are mapped.  NULL, or none of them mapped: known with the row.
	 */
	const char *known[3];
} CsKindColumn;

typedef struct CsKind
{
	const char *name;
	const CsKindColumn
		*columns; /* ends with a NULL name; the key is always first, see CS_KEY_COLUMN */
} CsKind;

/* The column that says whose a row is: customer_id, of a merge the customer that goes. */
#define CS_KEY_COLUMN(kind) ((kind)->columns[0].name)

extern const CsKind *cs_kind(const char *name);
extern List *cs_kind_names(void);
extern const CsKindColumn *cs_kind_column(const CsKind *kind, const char *name);
extern const char *cs_column_type_name(CsColumnType type);

/* One entry of cs.source.columns. */
typedef struct CsMapped
{
	char *name;                /* canonical, user_id or x_... */
	const CsKindColumn *canon; /* NULL: x_..., or a user_id that only links */
	char *expr;
	Oid type;          /* of the expression; InvalidOid until analysed */
	Oid collation;     /* of the expression */
	AttrNumber attnum; /* > 0: the expression is this bare column */
} CsMapped;

typedef struct CsMapping
{
	const CsKind *kind;
	List *columns;  /* CsMapped *, in the kind's order, then x_ by name */
	CsMapped *key;  /* customer_id, or user_id when by_user */
	bool native;    /* keys are compared in the column's own type */
	Oid key_native; /* native type of the key column itself (user_id's when by_user) */
	List *users;    /* by_user: CsSource * of the user sources */
} CsMapping;

#define CS_MAPPING(source) ((CsMapping *) (source)->mapping)

extern CsMapped *cs_mapped(const CsSource *source, const char *name);

/* source.c */
extern CsSource *cs_source_make(const char *name, const char *kind, const char *relation,
								const char *columns_json, const char *search_path, bool with_users);
extern ErrorData *cs_source_analyse(CsSource *source, CsMapped **failed);
extern void cs_source_resolve(CsSource *source);
extern bool cs_native_key_type(Oid type);
extern void cs_user_keys(Oid user_type, Datum ids, CsUserQuery *query);
extern char *cs_expression_column(const char *expression, const char *what, int *offset);

/* source_define.c: what cs.add_source() is given */
typedef struct CsDefinition
{
	const char *name;
	const char *kind;
	Oid relid;
	const char *columns;
	const char *capture;
	const char *terms;
	const char *search_path;
	bool quiet; /* no NOTICE about locks: a new table */
} CsDefinition;

/* source_check.c */
extern void cs_check_words(const CsDefinition *def);
extern char *cs_relation_name(Oid relid);
extern void cs_check_columns(const CsSource *source);
extern void cs_check_expressions(CsSource *source);

extern CsSource *cs_define_source(const CsDefinition *def, Oid caller);
extern const char *cs_source_capture(const CsSource *source, const char *wanted,
									 const char **reason);
extern char *cs_source_denied(const CsSource *source, const CsPolicy *policy, char **remedy);
extern int cs_window_days(const char *capture);
extern void cs_must_be_member(const CsPolicy *policy, Oid caller, const char *what);
extern void cs_source_lock(const CsSource *source);
extern void cs_source_add_triggers(const CsSource *source);
extern void cs_source_drop_triggers(const CsSource *source);
extern char *cs_source_types(const CsSource *source);

/* watermark.c */
extern const char *cs_watermark_obstacle(const CsSource *source, char **column);
extern bool cs_watermark_begin(const CsSource *source);
extern bool cs_watermark_look(const CsSource *source);
extern int64 cs_rewritten(Oid relid);
extern CsResult *cs_query_by_index(const CsUserQuery *query, bool ordered, ErrorData **error);

/* How the least and greatest anchor of a source are found; see cs_source_extent_sql(). */
typedef enum CsBounds
{
	CS_BOUNDS_NONE,
	CS_BOUNDS_SCAN,
	CS_BOUNDS_INDEX
} CsBounds;

/* extent.c: rows whose key is NULL or empty are counted anew */
extern void cs_count_without_customer(const CsSource *source);
extern CsBounds cs_anchor_bounds(const CsSource *source);

/* How a row becomes pending for a customer who may be already: the range is widened. */
#define CS_UPSERT_PENDING                                                            \
	" ON CONFLICT (source, customer_id) DO UPDATE SET since = least(pending.since, " \
	"excluded.since), until = greatest(pending.until, excluded.until)"

/*
 * change_log.c: some rows of the log become pending rows of these sources; false:
 * none are left.  Names of sources that are to be read whole are added to *whole.
 */
extern bool cs_take_changes(List *sources, List **whole);
extern bool cs_is_named(List *names, const char *name);

/* window.c: the days of a source's window that changed are pending; whole: all of them, it is read whole */
extern void cs_window_look(const CsSource *source, TimestampTz as_of, bool whole);

/* window.c: cs_look_ingested() of a source captured by window */
extern void cs_window_ingested(const CsSource *source, Datum ids, TimestampTz since,
							   TimestampTz until);

/*
 * scan.c: runs a query over a source's relations; what it finds is the relation
 * "found" until cs_source_found() ends it.  NULL when the source cannot be read,
 * which is noted.
 */
extern CsResult *cs_source_find(const CsSource *source, const CsUserQuery *query);
extern void cs_source_found(CsResult *rows);
extern void cs_source_error(const CsSource *source, const char *error);
extern void cs_pending_known(const char *source);
extern bool cs_pending_all(const CsSource *source);
extern bool cs_source_has_triggers(const CsSource *source);

/* source_rows.c */
extern bool cs_anchor_required(const CsSource *source);
extern bool cs_anchor_is_one(const CsSource *source);
extern char *cs_source_extent_sql(const CsSource *source, bool required, CsBounds bounds);
extern char *cs_source_user_join(const CsSource *source);
extern char *cs_source_preview(const CsSource *source, int max_rows);
extern char *cs_source_facts(const CsSource *source, const char *key_condition);
extern char *cs_source_reason(const CsSource *source);

/* Whether rows of usage with a key and an instant can be used, whatever else stands in them. */
extern bool cs_usage_is_usable(const CsSource *source);
extern char *cs_source_key(const CsSource *source);
extern char *cs_source_anchor(const CsSource *source);
extern char *cs_source_users(const CsSource *source, bool keyed);
extern char *cs_key_text(Oid type, const char *expression);

#endif
