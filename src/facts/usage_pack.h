/*
 * usage_pack.h
 *		The state of the aggregate usage_pack, shared by usage_runs.c,
 *		usage_label.c and usage_encode.c.
 */
#ifndef CS_USAGE_PACK_H
#define CS_USAGE_PACK_H

#include "cs_ext.h"

#include "facts/usage_runs.h"
#include "facts/usage_value.h"

/*
 * Bytes that one process keeps encoded (cs_ext.usage_memory, 256 MB); the other
 * bounds follow it.  Records that are gathered before they are encoded (24 MB, and
 * as much for sorting), bytes of labels, bytes of a result.
 */
#define MAX_ENCODED (cs_usage_memory * INT64CONST(1024))
#define MAX_RECORDS Max(100, MAX_ENCODED / 268)
#define MAX_NAMES Max(1024 * 1024, MAX_ENCODED / 4)
#define MAX_RESULT (MAX_ENCODED / 2 * 7)

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
	const char *s; /* before a long native key's text stand its bytes */
	uint64 prefix; /* of the text, as a number that sorts as it does */
	uint32 len;
	/* scratch of encoding: which group it was last met in, its rank there */
	uint32 group;
	uint32 rank; /* of customers: whether it is in the slice */
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

/* A key of at most eight bytes: a number, a short text (kind is its length) or NULL. */
typedef struct ShortKey
{
	Probe probe;
	int kind;
} ShortKey;

#define KEY_NUMBER (-1)
#define KEY_NULL (-2)

/* An event whose customer and user are still to be found. */
typedef struct Waiting
{
	bool used;
	ShortKey customer;
	ShortKey user;
	TimestampTz at;
	uint32 event;
} Waiting;

#define WAITING 16

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
	Oid key_type;           /* of customers */
	Oid user_type;
	int64 lo;
	int64 hi;
	int64 events;
	TimestampTz first;
	TimestampTz last;

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
	Waiting waiting[WAITING];
	uint32 oldest; /* place of the next one */
	char *arena;
	Size arena_left;
	Size arena_used;
	Size tables; /* bytes of the tables of labels, which stay for the next records */

	Run *runs;
	int nruns;
	int runs_size;
	int64 encoded;

	DaySlot days[DAY_SLOTS];
} Pack;

/* ---- labels (usage_label.c) ------------------------------------------- */

/* Forget all labels, and the extras. */
extern void cs_pack_start_labels(Pack *p);

/* The numbers of a customer (-1: not in this slice), a user, an event. */
extern int64 cs_pack_customer(Pack *p, Datum key);
extern uint32 cs_pack_user(Pack *p, Datum user, bool isnull);
extern uint32 cs_pack_event(Pack *p, Datum name, bool isnull);

/*
 * An event without quantity that counts once, later: true where its keys are short.
 * It becomes a record some events on, or by cs_pack_settle.
 */
extern bool cs_pack_later(Pack *p, Datum customer, Datum user, bool no_user, Datum name,
						  bool no_name, TimestampTz at);
extern void cs_pack_settle(Pack *p);

/* ---- records (usage_runs.c) ------------------------------------------- */

/* A record more. */
extern void cs_pack_record(Pack *p, uint32 customer, uint32 user, uint32 event, TimestampTz at,
						   uint32 extra);

/* ---- encoding (usage_encode.c) ---------------------------------------- */

/* Encode what was gathered as one run, and forget it. */
extern void cs_pack_encode(Pack *p);

extern void cs_pack_add_run(Pack *p, char *data, int64 len);

/* Next entry of a run, from *at; the pointers go into it. */
extern void cs_pack_read(const char *data, int64 *at, CsUsageString *id, DateADT *month,
						 CsUsagePart *payload);

/*
 * Leave customers out, from the upper end of the hash range, until it is at most
 * `most` bytes or one hash is left.
 */
extern void cs_pack_shed(Pack *p, int64 most);

#endif
