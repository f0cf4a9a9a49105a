/*
 * usage_pack.h
 *		What a process gathers of a part of the customers, shared by usage_unpack.c,
 *		usage_label.c and usage_encode.c.
 */
#ifndef CS_USAGE_PACK_H
#define CS_USAGE_PACK_H

#include "cs_ext.h"

#include "facts/usage_runs.h"
#include "facts/usage_value.h"
#include "pgtime.h"

/*
 * Records that are gathered before they are encoded (24 MB, and as much for
 * sorting, where cs_ext.usage_memory is 256 MB), and bytes of labels.
 */
#define MAX_RECORDS Max(100, cs_usage_memory *INT64CONST(1024) / 268)
#define MAX_NAMES Max(1024 * 1024, cs_usage_memory * INT64CONST(1024) / 4)

#define DAY_SLOTS 1024

/* Cells of a table that is filled instead of sorting. */
#define DENSE 16384

typedef struct Record
{
	TimestampTz at;
	uint32 customer;
	uint32 user;
	uint32 event;
	uint32 extra; /* 0: counts once, no quantity; else place in extras */
} Record;

typedef struct Extra
{
	int64 count;
	CsQty qty;
} Extra;

/* Local days of one UTC day; simple: the zone's offset does not change in it. */
typedef struct DaySlot
{
	int64 utc_day;
	int64 offset; /* microseconds */
	bool filled;
	bool simple;
} DaySlot;

/* A customer, user or event by its text; NULL: SQL NULL. */
typedef struct Label
{
	const char *s;
	uint64 prefix; /* of the text, as a number that sorts as it does */
	uint32 len;
	bool wanted; /* of customers: among those asked for */
} Label;

/* Where a key is found: up to eight bytes stand here, of longer ones the first. */
typedef struct Slot
{
	uint64 key;
	uint32 hash; /* odd: the key is longer than eight bytes */
	uint32 id;   /* number of the label + 1, 0: free */
} Slot;

/* What a key is looked up by. */
typedef struct Probe
{
	uint64 key;
	uint32 hash;
} Probe;

/* Labels by number, in order of arrival. */
typedef struct Labels
{
	Label *labels;
	uint32 n;
	uint32 size;
	Slot *slots;
	uint32 mask;
	int64 null_id; /* -1: NULL did not occur */
} Labels;

typedef struct Run
{
	char *data;
	int64 len;
} Run;

typedef struct Pack
{
	MemoryContext cxt;      /* of the state: runs, buffers */
	MemoryContext name_cxt; /* of names, reset when they are encoded */
	int64 hi;               /* customers from there on are left out */
	pg_tz *zone;            /* of days */

	Record *records;
	uint32 n;
	uint32 size;
	Record *sorted;
	uint32 sorted_size;
	Extra *extras;
	uint32 nextras;
	uint32 extras_size;
	Labels customers;
	Labels users;
	Labels names; /* of events */
	char *arena;
	Size arena_left;
	Size arena_used;
	Size tables; /* bytes of the tables of labels, which stay for the next records */

	Run *runs;
	int nruns;
	int runs_size;

	DaySlot days[DAY_SLOTS];
} Pack;

/* ---- labels (usage_label.c) ------------------------------------------- */

/* Forget all labels, and the extras. */
extern void cs_pack_start_labels(Pack *p);

/* The numbers of what has a text: *fresh says that it was not met before. */
extern uint32 cs_pack_number(Pack *p, Labels *d, int64 number, bool *fresh);
extern uint32 cs_pack_text(Pack *p, Labels *d, const char *s, uint32 len, bool *fresh);
extern uint32 cs_pack_null(Pack *p, Labels *d);

/* ---- encoding (usage_encode.c) ---------------------------------------- */

/* Encode what was gathered as one run, and forget it. */
extern void cs_pack_encode(Pack *p);

#endif
