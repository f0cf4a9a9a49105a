/*
 * source.h
 *		Registered sources: what is mapped, and the SELECT that reads it.
 */
#ifndef CS_SOURCE_H
#define CS_SOURCE_H

#include "cs_ext.h"

typedef struct CsSource
{
	char *name;
	char *kind;
	char *relation;     /* qualified, quoted */
	Oid relid;          /* InvalidOid: the relation is gone */
	char *capture;      /* in force: trigger, watermark, scan or window */
	int window_days;    /* that a window re-reads; 0: none */
	TimestampTz sealed; /* rows before it are final and not read; DT_NOBEGIN: none are */
	char *search_path;
	char *anchor;  /* canonical name of the anchor column, NULL: none mapped */
	Oid key_type;  /* native type of the customer key (TEXTOID for an expression) */
	bool current;  /* terms 'current': rows are overwritten in place */
	bool by_user;  /* user_id is mapped, the customer comes from a user source */
	List *columns; /* canonical and x_ names that are mapped, char * */
	void *mapping; /* private to source.c */
} CsSource;

/* Enabled sources of a kind (NULL: all) in order of name, as List of CsSource *; and one by name or NULL; named: it is there, or an error says which is near. */
extern List *cs_sources(const char *kind);
extern CsSource *cs_source(const char *name);
extern CsSource *cs_source_named(const char *name);

/*
 * The usable rows of a source: a SELECT giving customer_key (native type),
 * every canonical column of the kind (NULL of the right type where unmapped)
 * and the x_ columns.  keyed: only rows whose key is in $1.  cut: only rows
 * with anchor < as_of, and what was not yet known at as_of is NULL (SURFACE 2).
 * Group by customer_key, then make the outside id with cs_source_id().
 */
extern char *cs_source_rows(const CsSource *source, bool keyed, bool cut);

/*
 * The same of all events of a usage_event source, and some that are not usable:
 * without a key, with an empty one, with an instant that is NULL or outside
 * [CS_TIME_MIN, CS_TIME_MAX).
 */
extern char *cs_source_events(const CsSource *source);

/* Years 1 to 10000. */
#define CS_TIME_MIN (INT64CONST(-730119) * USECS_PER_DAY)
#define CS_TIME_MAX (INT64CONST(2922306) * USECS_PER_DAY)
extern char *cs_source_id(const CsSource *source, const char *key_expression);

/* Sets search_path and the keys ($1) of a query from outside ids (text[]); an id that is no value of the native type is left out. */
extern void cs_source_keys(const CsSource *source, Datum ids, CsUserQuery *query);

/*
 * The same for customers whose facts may stand under other ids (facts/merge.h):
 * cut or uncut rows of theirs, where the key of each is the customer for whom it
 * counts; the id made from it; the id a row stands under, NULL where that is the
 * customer's; and the keys of some of them (sorted text[]).
 * The rows are read while the relation "fact_owner" is shown.
 */
struct CsWhose;
extern char *cs_source_rows_of(const CsSource *source, const struct CsWhose *whose, bool cut);
extern char *cs_source_id_of(const CsSource *source, const struct CsWhose *whose,
							 const char *key_expression);
extern const char *cs_source_fact_of(const CsSource *source, const struct CsWhose *whose);
extern void cs_source_keys_of(const CsSource *source, const struct CsWhose *whose, Datum customers,
							  CsUserQuery *query);

/*
 * Capture and scan (facts/capture.c, facts/scan.c).
 * cs_collect: moves change_log into pending (whole source where unknown), and
 * re-reads scanned sources that are due, comparing checksums; force_scan
 * ignores the interval.  '*' marks every customer dirty.
 * cs_count_unusable: recount rows that cannot be used, of these customers
 * (ids NULL: of the whole source); between: where only rows with anchors in
 * [since, until] changed, which reads no others of who has no such rows.
 * cs_orphans_ingest: after identity of a chunk of this source, which of its ids
 * stand in a source and are no customers.
 * cs_source_extent: first_at, last_at, available of a source; true when
 * availability at as_of changed (then every customer is evaluated again).
 */
extern void cs_collect(TimestampTz as_of, bool force_scan);
extern void cs_count_unusable(const CsSource *source, Datum ids, bool whole);
extern void cs_count_unusable_between(const CsSource *source, Datum ids, TimestampTz since,
									  TimestampTz until);
extern void cs_orphans_ingest(const CsSource *source, Datum ids);
extern bool cs_source_extent(const CsSource *source, TimestampTz as_of);

/*
 * Notes a change in memory, to be written to the change log before commit, as
 * the capture trigger does. key NULL: the whole source; source "*": a
 * definition changed. Bounds are the anchors touched (infinite: unknown).
 */
extern void cs_capture_note(const char *source, const char *key, TimestampTz since,
							TimestampTz until);

/* Writes what is noted to the change log now, so that this transaction's refresh sees it. */
extern void cs_capture_flush(void);

/* Called after commit of a transaction that changed facts or definitions; set by the scheduler. */
extern void (*cs_commit_hook)(void);

/*
 * The facts of these customers with anchors in [since, until] were ingested just
 * now, on this snapshot: of a source that is looked at, by window or by scan, the
 * sums of what was read are kept.
 */
extern void cs_look_ingested(const CsSource *source, Datum ids, TimestampTz since,
							 TimestampTz until);

/* Widens [since, until] to what these customers did in a source with a watermark since the last look. */
extern void cs_watermark_tail(const CsSource *source, Datum ids, TimestampTz *since,
							  TimestampTz *until);

/* The source could not be read: the error is shown, and it is read whole once it can be. */
extern void cs_source_failed(const CsSource *source, const char *error);

/*
 * The same while something is made from nothing: who asked for it stands in the
 * table `build` of schema cs_internal; nobody is built, all of them are read
 * whole once they can be.
 */
extern void cs_build_failed(const char *build, const CsSource *source, const char *error);

/* Installed by _PG_init: flush of noted changes before commit, wake-up after it. */
extern void cs_capture_init(void);

#endif
