/*
 * compat.h
 *		What differs between the PostgreSQL majors this builds on (15 and newer),
 *		by meaning and in this one place.
 */
#ifndef CS_COMPAT_H
#define CS_COMPAT_H

#include "postgres.h"
#include "utils/memutils.h"

#if PG_VERSION_NUM < 150000
#error "cs_ext needs PostgreSQL 15 or newer"
#endif

#endif							/* CS_COMPAT_H */
