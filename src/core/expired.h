/*
 * expired.h
 *		SQL of definitions that ran out of time, remembered for the session.
 */
#ifndef CS_EXPIRED_H
#define CS_EXPIRED_H

#include "cs_ext.h"

/*
 * The error to report of a definition whose SQL ran longer than
 * cs_ext.user_sql_timeout a short while ago, and is left out; NULL: it may run.
 */
extern ErrorData *cs_expired(const char *table, const char *key, const char *sql);

/* Leaves it out for a while, where the error is that its time was over. */
extern void cs_note_expired(const char *table, const char *key, const char *sql,
							const ErrorData *error);

/* All may run again: somebody asks for it. */
extern void cs_forget_expired(void);

#endif
