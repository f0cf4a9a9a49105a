/*
 * segment.h
 *		Dimensions and segments as the stage of segments reads them.
 */
#ifndef CS_SEGMENT_H
#define CS_SEGMENT_H

#include "decide/decide.h"

typedef struct CsDimension
{
	char *name;
	char *attribute; /* NULL: segments have rules */
	char *fallback;
	char *part;    /* of an overlapping dimension: the segment that this entry stands for */
	bool is_spare; /* the part is the fallback, for who is in no other one */
	int min_days;
	int level;
	bool late; /* after health */
	int first; /* its segments in the array of rules */
	int count;
} CsDimension;

/* Definitions of dimensions and segments, and the order that follows from them. */
typedef struct CsDimensions
{
	CsDimension *dimensions; /* enabled, in order of level, name */
	int ndimensions;
	CsRule *rules; /* of these, as they are tried */
	char **names;  /* segment of rules[i] */
} CsDimensions;

/* The enabled ones with the rules of their segments. Inside a frame. */
extern CsDimensions *cs_dimensions(void);

#endif /* CS_SEGMENT_H */
