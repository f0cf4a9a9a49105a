/*
 * usage_label.c
 *		Labels of the aggregate usage_pack: customers, users and events by number.
 *
 * In: values in their native types.  Out: numbers that stand in records, and the
 * text of each, made once.  A process meets as many labels as there are users in
 * one buffer of records, and looks one up for each row, so tables are small and
 * what is needed of them is asked for ahead.
 */
#include "cs_ext.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "facts/usage_pack.h"
#include "port/pg_bswap.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/uuid.h"

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
 * The number of the label of a key; *fresh: it is new and has no text yet.  text:
 * the key is its text; else the bytes of a long key stand before it.
 */
static inline uint32
label_of(Pack *p, Labels *d, Probe probe, const char *s, uint32 len, bool text, bool *fresh)
{
	uint32 k;
	uint32 id;

	*fresh = false;
	for (k = (probe.hash >> 1) & d->mask; d->slots[k].id != 0; k = (k + 1) & d->mask)
	{
		const Slot *slot = &d->slots[k];

		if (slot->hash != probe.hash || slot->key != probe.key)
			continue;
		if ((probe.hash & 1) == 0)
			return slot->id - 1;
		if (text ? d->labels[slot->id - 1].len == len &&
					   memcmp(d->labels[slot->id - 1].s, s, len) == 0
				 : memcmp(d->labels[slot->id - 1].s - len, s, len) == 0)
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

static inline uint32
label_null(Pack *p, Labels *d)
{
	if (d->null_id < 0)
		d->null_id = add_label(p, d);
	return (uint32) d->null_id;
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
 * short_key: a number, or a text of at most eight bytes; false for what is neither.
 */
static inline bool
short_key(Oid type, Datum value, bool isnull, ShortKey *key)
{
	int64 number;

	if (isnull)
	{
		key->kind = KEY_NULL;
		return true;
	}
	switch (type)
	{
		case INT2OID:
			number = DatumGetInt16(value);
			break;
		case INT4OID:
			number = DatumGetInt32(value);
			break;
		case INT8OID:
			number = DatumGetInt64(value);
			break;
		case TEXTOID:
		case VARCHAROID:
		{
			struct varlena *t = (struct varlena *) DatumGetPointer(value);

			if (!VARATT_IS_SHORT(t) || VARATT_IS_EXTERNAL(t) ||
				VARSIZE_SHORT(t) - VARHDRSZ_SHORT > sizeof(uint64))
				return false;
			key->kind = VARSIZE_SHORT(t) - VARHDRSZ_SHORT;
			key->probe = probe_of(VARDATA_SHORT(t), key->kind);
			return true;
		}
		default:
			return false;
	}
	key->kind = KEY_NUMBER;
	key->probe.key = (uint64) number;
	key->probe.hash = mix(key->probe.key) & ~(uint32) 1;
	return true;
}

/* The label of a short key. */
static inline uint32
short_label(Pack *p, Labels *d, const ShortKey *key, bool *fresh)
{
	uint32 id;

	*fresh = false;
	if (key->kind == KEY_NULL)
		return label_null(p, d);
	id = label_of(p, d, key->probe, NULL, 0, false, fresh);
	if (*fresh && key->kind == KEY_NUMBER)
		set_number(p, &d->labels[id], (int64) key->probe.key);
	else if (*fresh)
		set_text(p, &d->labels[id], (const char *) &key->probe.key, key->kind);
	return id;
}

/*
 * native_label: of a value in its own type, whose text is the one outside.
 */
static uint32
native_label(Pack *p, Labels *d, Oid type, Datum value, bool isnull, bool *fresh)
{
	ShortKey key;
	uint32 id;

	if (short_key(type, value, isnull, &key))
		return short_label(p, d, &key, fresh);
	switch (type)
	{
		case UUIDOID:
		{
			const char *bytes = (const char *) DatumGetUUIDP(value)->data;

			id = label_of(p, d, probe_of(bytes, UUID_LEN), bytes, UUID_LEN, false, fresh);
			if (*fresh)
			{
				char *s = DatumGetCString(DirectFunctionCall1(uuid_out, value));
				char both[UUID_LEN + 36];

				memcpy(both, bytes, UUID_LEN);
				memcpy(both + UUID_LEN, s, 36);
				set_text(p, &d->labels[id], s, 36);
				d->labels[id].s = keep_bytes(p, both, sizeof(both)) + UUID_LEN;
				pfree(s);
			}
			return id;
		}
		case NUMERICOID:
		{
			char *s = DatumGetCString(
				DirectFunctionCall1(numeric_out, DirectFunctionCall1(numeric_trim_scale, value)));

			id = label_of(p, d, probe_of(s, strlen(s)), s, strlen(s), true, fresh);
			if (*fresh)
				set_text(p, &d->labels[id], s, strlen(s));
			pfree(s);
			return id;
		}
		default:
		{
			text *t = DatumGetTextPP(value);
			uint32 len = VARSIZE_ANY_EXHDR(t);

			if (type == BPCHAROID)
				len = bpchartruelen(VARDATA_ANY(t), len);
			id = label_of(p, d, probe_of(VARDATA_ANY(t), len), VARDATA_ANY(t), len, true, fresh);
			if (*fresh)
				set_text(p, &d->labels[id], VARDATA_ANY(t), len);
			if ((Pointer) t != DatumGetPointer(value))
				pfree(t);
			return id;
		}
	}
}

/* Whether the customer of a label is in the slice; asked for each row, so not of the label where it is everybody. */
static inline bool
in_slice(Pack *p, uint32 id, bool fresh)
{
	Label *l;

	if (p->lo == 0 && p->hi == CS_SLICES)
		return true;
	l = &p->customers.labels[id];
	if (fresh)
	{
		uint32 slice = cs_usage_slice(l->s, l->len);

		l->rank = slice >= p->lo && slice < p->hi;
	}
	return l->rank;
}

int64
cs_pack_customer(Pack *p, Datum key)
{
	bool fresh;
	uint32 id = native_label(p, &p->customers, p->key_type, key, false, &fresh);

	return in_slice(p, id, fresh) ? (int64) id : -1;
}

uint32
cs_pack_user(Pack *p, Datum user, bool isnull)
{
	bool fresh;

	return native_label(p, &p->users, p->user_type, user, isnull, &fresh);
}

uint32
cs_pack_event(Pack *p, Datum name, bool isnull)
{
	bool fresh;

	return native_label(p, &p->names, TEXTOID, name, isnull, &fresh);
}

/* ---- keys looked up later ------------------------------------------------- */

static inline void
settle(Pack *p, const Waiting *w)
{
	bool fresh;
	uint32 customer = short_label(p, &p->customers, &w->customer, &fresh);

	if (in_slice(p, customer, fresh))
		cs_pack_record(p, customer, short_label(p, &p->users, &w->user, &fresh), w->event, w->at,
					   0);
}

void
cs_pack_settle(Pack *p)
{
	for (int i = 0; i < WAITING; i++)
	{
		if (p->waiting[i].used)
			settle(p, &p->waiting[i]);
		p->waiting[i].used = false;
	}
}

/*
 * cs_pack_later: customers and users are many, and finding one means waiting for
 * memory.  So their places are only asked for now and looked at some events later.
 */
bool
cs_pack_later(Pack *p, Datum customer, Datum user, bool no_user, Datum name, bool no_name,
			  TimestampTz at)
{
	Waiting *w = &p->waiting[p->oldest];

	if (w->used)
		settle(p, w);
	w->used = false;
	if (!short_key(p->key_type, customer, false, &w->customer) ||
		!short_key(p->user_type, user, no_user, &w->user))
		return false;
	__builtin_prefetch(&p->customers.slots[(w->customer.probe.hash >> 1) & p->customers.mask]);
	if (!no_user)
		__builtin_prefetch(&p->users.slots[(w->user.probe.hash >> 1) & p->users.mask]);
	w->at = at;
	w->event = cs_pack_event(p, name, no_name);
	w->used = true;
	p->oldest = (p->oldest + 1) % WAITING;
	return true;
}
