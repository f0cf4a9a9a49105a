/*
 * usage_label.c
 *		Labels of what is gathered: customers, users and events by number.
 *
 * In: numbers and texts.  Out: numbers that stand in records, and the text of
 * each, made once.  A process meets as many labels as there are users of a part of
 * the customers, and looks three up for each event, so tables are small.
 */
#include "cs_ext.h"

#include "common/hashfn.h"
#include "facts/usage_pack.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* A copy of the bytes that lives as long as the names. */
static const char *
keep_bytes(Pack *p, const char *s, uint32 len)
{
	char *copy;

	if (p->arena == NULL || len > p->arena_left)
	{
		Size block = Max((Size) len, 256 * 1024);

		p->arena = MemoryContextAlloc(p->name_cxt, block);
		p->arena_left = block;
		p->arena_used += block;
	}
	copy = p->arena;
	memcpy(copy, s, len);
	p->arena += len;
	p->arena_left -= len;
	return copy;
}

static void
start_labels(Pack *p, Labels *d)
{
	d->n = 0;
	d->null_id = -1;
	if (d->size > 0)
	{
		/* about as many will come again */
		memset(d->slots, 0, sizeof(Slot) * ((Size) d->mask + 1));
		return;
	}
	d->size = 64;
	d->labels = MemoryContextAlloc(p->cxt, sizeof(Label) * d->size);
	d->mask = 127;
	d->slots = MemoryContextAllocZero(p->cxt, sizeof(Slot) * (d->mask + 1));
}

static void
forget_labels(Labels *d)
{
	pfree(d->labels);
	pfree(d->slots);
	d->size = 0;
}

void
cs_pack_start_labels(Pack *p)
{
	MemoryContextReset(p->name_cxt);
	p->arena = NULL;
	p->arena_left = p->arena_used = 0;
	if (p->tables > MAX_NAMES / 2)
	{
		forget_labels(&p->customers);
		forget_labels(&p->users);
		forget_labels(&p->names);
		p->tables = 0;
	}
	start_labels(p, &p->customers);
	start_labels(p, &p->users);
	start_labels(p, &p->names);
	p->extras_size = 0;
	p->extras = NULL;
	p->nextras = 0;
}

static void
grow_labels(Pack *p, Labels *d)
{
	Slot *old = d->slots;
	uint32 old_mask = d->mask;

	d->size *= 2;
	d->labels = repalloc_huge(d->labels, mul_size(sizeof(Label), d->size));
	d->mask = old_mask * 2 + 1;
	d->slots = MemoryContextAllocExtended(p->cxt, mul_size(sizeof(Slot), (Size) d->mask + 1),
										  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (uint32 i = 0; i <= old_mask; i++)
	{
		uint32 k;

		if (old[i].id == 0)
			continue;
		for (k = (old[i].hash >> 1) & d->mask; d->slots[k].id != 0; k = (k + 1) & d->mask)
			;
		d->slots[k] = old[i];
	}
	pfree(old);
	p->tables += (Size) d->size * (sizeof(Label) / 2 + sizeof(Slot));
}

static uint32
add_label(Pack *p, Labels *d)
{
	if (d->n == d->size)
		grow_labels(p, d);
	memset(&d->labels[d->n], 0, sizeof(Label));
	return d->n++;
}

/* MurmurHash3's finalizer. */
static inline uint32
mix(uint64 h)
{
	h ^= h >> 33;
	h *= UINT64CONST(0xff51afd7ed558ccd);
	h ^= h >> 33;
	h *= UINT64CONST(0xc4ceb9fe1a85ec53);
	return (uint32) (h >> 32);
}

/*
 * The bytes of a short text as a number, the rest zero.  Read by loads of fixed
 * width: bytes stored one by one could not be loaded as one word at once.
 */
static inline uint64
bytes_of(const char *s, uint32 len)
{
	uint64 key = 0;

#ifdef WORDS_BIGENDIAN
	memcpy(&key, s, len);
#else
	if (len == sizeof(key))
		memcpy(&key, s, sizeof(key));
	else if (len >= 4)
	{
		uint32 low;
		uint32 high;

		memcpy(&low, s, 4);
		memcpy(&high, s + len - 4, 4);
		key = low | ((uint64) high << ((len - 4) * 8));
	}
	else if (len > 0)
		key = (uint64) (uint8) s[0] | ((uint64) (uint8) s[len / 2] << (len / 2 * 8)) |
			  ((uint64) (uint8) s[len - 1] << ((len - 1) * 8));
#endif
	return key;
}

/* Zero bytes stand in no text and numbers have all eight, so short keys are told apart. */
static inline Probe
probe_of(const char *s, uint32 len)
{
	Probe probe = {0, 0};

	if (len <= sizeof(probe.key))
	{
		probe.key = bytes_of(s, len);
		probe.hash = mix(probe.key) & ~(uint32) 1;
	}
	else
	{
		memcpy(&probe.key, s, sizeof(probe.key));
		probe.hash = hash_bytes((const unsigned char *) s, len) | 1;
	}
	return probe;
}

/*
 * The number of the label of a key; *fresh: it is new and has no text yet.  s: the
 * text of a long key.
 */
static inline uint32
label_of(Pack *p, Labels *d, Probe probe, const char *s, uint32 len, bool *fresh)
{
	uint32 k;
	uint32 id;

	*fresh = false;
	for (k = (probe.hash >> 1) & d->mask; d->slots[k].id != 0; k = (k + 1) & d->mask)
	{
		const Slot *slot = &d->slots[k];

		if (slot->hash != probe.hash || slot->key != probe.key)
			continue;
		if ((probe.hash & 1) == 0 ||
			(d->labels[slot->id - 1].len == len && memcmp(d->labels[slot->id - 1].s, s, len) == 0))
			return slot->id - 1;
	}
	if (d->n == d->size)
	{
		grow_labels(p, d);
		for (k = (probe.hash >> 1) & d->mask; d->slots[k].id != 0; k = (k + 1) & d->mask)
			;
	}
	id = add_label(p, d);
	d->slots[k].key = probe.key;
	d->slots[k].hash = probe.hash;
	d->slots[k].id = id + 1;
	*fresh = true;
	return id;
}

/* The text of a new label. */
static void
set_text(Pack *p, Label *l, const char *s, uint32 len)
{
	l->s = keep_bytes(p, s, len);
	l->len = len;
	memcpy(&l->prefix, s, Min(len, sizeof(uint64)));
	l->prefix = pg_ntoh64(l->prefix);
}

static void
set_number(Pack *p, Label *l, int64 number)
{
	char text[MAXINT8LEN + 1];

	set_text(p, l, text, pg_lltoa(number, text));
}

/*
 * cs_pack_number, cs_pack_text, cs_pack_null: see usage_pack.h.  A number and its
 * text are different labels; who gathers both encodes between them.
 */
uint32
cs_pack_number(Pack *p, Labels *d, int64 number, bool *fresh)
{
	Probe probe;
	uint32 id;

	probe.key = (uint64) number;
	probe.hash = mix(probe.key) & ~(uint32) 1;
	id = label_of(p, d, probe, NULL, 0, fresh);
	if (*fresh)
		set_number(p, &d->labels[id], number);
	return id;
}

uint32
cs_pack_text(Pack *p, Labels *d, const char *s, uint32 len, bool *fresh)
{
	uint32 id = label_of(p, d, probe_of(s, len), s, len, fresh);

	if (*fresh)
		set_text(p, &d->labels[id], s, len);
	return id;
}

uint32
cs_pack_null(Pack *p, Labels *d)
{
	if (d->null_id < 0)
		d->null_id = add_label(p, d);
	return (uint32) d->null_id;
}
