/*
 * scheduler.h
 *		What the rest of the extension sees of the scheduler.
 */
#ifndef CS_SCHEDULER_H
#define CS_SCHEDULER_H

#include "cs_ext.h"

/*
 * Called by _PG_init while the library is being preloaded: shared memory, the
 * hook that makes way for DROP DATABASE and its like, the launcher.
 */
extern void cs_scheduler_init(void);

/* Is there shared memory, i.e. was the library preloaded? */
extern bool cs_scheduler_preloaded(void);

/*
 * Tell the scheduler that this database has work. cs_scheduler_wake acts at
 * once and may be called after commit (it cannot fail);
 * cs_scheduler_wake_at_commit acts when the running transaction has committed.
 * Both do nothing when the library is not preloaded.
 */
extern void cs_scheduler_wake(void);
extern void cs_scheduler_wake_at_commit(void);

#endif
