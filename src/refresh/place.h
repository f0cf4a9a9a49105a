/*
 * place.h
 *		Inside the summaries: customers as they are or as they were, and where the
 *		definitions of today place each state that they were in.
 */
#ifndef CS_PLACE_H
#define CS_PLACE_H

#include "cs_ext.h"

/* Which customers, and as what. */
typedef enum CsScope
{
	SCOPE_ALL,
	SCOPE_THESE, /* $2 */
	SCOPE_BEFORE /* $2, as the journals have them */
} CsScope;

/* How the customers of a dimension are placed, and what of it the SQL needs. */
typedef struct CsPlacing
{
	char mode; /* total, stored, attribute, rules; see pass_mode() */
	char *attribute;
	char *fallback;
	bool by_customer; /* rules use the customer's own columns */
	bool by_ledger;   /* rules use MRR or being active */
	bool manual;      /* somebody was assigned by hand at some time */
} CsPlacing;

/* SQL of the movements and the customers of a scope, as a FROM item without alias. */
extern const char *cs_place_movements(CsScope scope);
extern const char *cs_place_customers(CsScope scope);

/* False where the segments of the past cannot be had in one pass. */
extern bool cs_place_read(const char *dimension, CsPlacing *placing);

/*
 * What the rules say of every state that these customers were in, as rows
 * (_customer, _mrr, _active, segment), of which those columns are there that the
 * rules depend on.  NULL where a rule raises.
 */
extern CsResult *cs_placed_rows(const char *dimension, const CsPlacing *placing, CsScope scope,
								const CsArg *args, int nargs);

#endif
