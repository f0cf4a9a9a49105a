/*
 * merge.h
 *		Merged customers: whose facts are whose, at an instant.
 */
#ifndef CS_MERGE_H
#define CS_MERGE_H

#include "cs_ext.h"

typedef struct CsMergeFact
{
	char *from;
	char *into;
	TimestampTz at;
} CsMergeFact;

/*
 * All ids (sorted text[]) that are merged with one of these, directly or over
 * others, themselves included, and the merges between them.
 */
extern Datum cs_merge_family(Datum ids, CsMergeFact **merges, int *nmerges);

/*
 * Under which ids the facts of some customers stand at an instant: their own as
 * a rule, and those of who is merged into them by then; of who is merged away,
 * none.
 */
typedef struct CsWhose
{
	Datum customers; /* sorted text[] */
	Datum fact_ids;  /* sorted text[]; the same where nobody is merged */
	bool merged;     /* some of them are merged with somebody, whenever */

	/* with merged: */
	int n;              /* of fact_ids */
	char **facts;       /* fact_ids */
	char **owners;      /* for whom each counts */
	CsMergeFact *ahead; /* merges that come later, each to where it ends up */
	int nahead;

	CsResult *owner; /* (fact_id, customer_id) of those that count for another */
} CsWhose;

/*
 * cs_whose: of these customers (sorted text[]) at the instant.
 * cs_whose_show: also registers the relation "fact_owner", which is of a batch,
 * like "batch".
 */
extern CsWhose *cs_whose(Datum customers, TimestampTz as_of, const CsPolicy *policy);
extern CsWhose *cs_whose_show(Datum customers, TimestampTz as_of, const CsPolicy *policy);
extern void cs_whose_hide(void);

/* The fact ids of some of the customers (both sorted text[]). */
extern Datum cs_whose_ids(const CsWhose *whose, Datum customers);

/* Whether what stands under the id counts for the customer, who is one of them. */
extern bool cs_counts_for(const CsWhose *whose, const char *fact_id, const char *customer_id);

/*
 * What the source says of merges from these ids, by way of cs_internal.merge;
 * everybody merged with them is pending and dirty.
 * cs_merge_pending: who is merged with a pending customer is pending, too,
 * where the ledger is concerned.
 * cs_merge_reached: these ids (text[]), and all into whom their facts may go.
 */
struct CsSource;
extern void cs_merge_ingest(const struct CsSource *source, Datum ids);
extern void cs_merge_pending(void);
extern Datum cs_merge_reached(Datum ids);

#endif
