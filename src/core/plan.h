/*
 * plan.h
 *		Plans kept for the session, and the relations a frame has registered.
 *		For core/spi.c alone.
 */
#ifndef CS_PLAN_H
#define CS_PLAN_H

#include "cs_ext.h"

#include "utils/plancache.h"

typedef struct CsPlan CsPlan;

struct CsPlan
{
	SPIPlanPtr spi;
	Oid key_type;  /* of a user's query: what its parser hook needs, as long as the plan lives */
	List *checked; /* of a user's query: the trees that were found fit, else NIL */
	struct Kept *kept; /* NULL: not kept, cs_plan_release frees it */
};

/* The relations of a frame: they are known by name until the frame's SPI memory goes. */
extern void cs_plan_frame(void);
extern void cs_plan_relation(const char *name, const CsResult *rows);
extern void cs_plan_no_relation(const char *name);

/*
 * A plan of one of our statements; it takes one parameter more than is given,
 * so that a plan for the values at hand can be asked for.
 */
extern CsPlan *cs_plan_own(const char *sql, const CsArg *args, int nargs);

/*
 * A plan of a user's query under the settings in force; `setting` holds what of
 * them the meaning of the text depends on.  make() prepares and checks it.
 */
extern CsPlan *cs_plan_user(const CsUserQuery *query, const char *setting,
							void (*make)(CsPlan *plan, const CsUserQuery *query));

extern void cs_plan_release(CsPlan *plan);

#endif /* CS_PLAN_H */
