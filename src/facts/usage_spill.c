/*
 * usage_spill.c
 *		The first build of the rollup: one pass over all events.
 *
 * Owns the aggregate usage_pack.  Grouping by customer and month in the executor
 * costs a state and a hash entry for each of very many groups, and what several
 * processes made of one group has to be united again.  This aggregate has one
 * state a process, which only hands events out: to the part of a temporary file
 * that their customer belongs to (usage_spill.h).  Who reads the result finds all
 * of a customer's events together (usage_unpack.c).
 *
 * Memory: a block for each part.  Disk: where a file grows beyond a bound,
 * customers at the upper end of the hash range are left out and the result says so
 * (hi); the caller asks for them in another pass.
 *
 * Cases.  Aborted, cancelled: everything is in the aggregate's context, the file is
 * closed with the query and deleted by who named the file set (usage_first.c).
 * kill -9, crash: temporary files go when the server starts.  Called by somebody
 * else than the first build: refused, for nobody would delete the file.
 */
#include "cs_ext.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "facts/source.h"
#include "facts/source_kind.h"
#include "facts/usage_spill.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/uuid.h"
#include "utils/wait_event.h"

/*
 * Bytes of one process's file (2 GB where cs_ext.usage_memory is 256 MB), and of
 * a block.
 */
#define MAX_SPILL (cs_usage_memory * INT64CONST(1024) * 8)
#define BLOCK Min(16 * 1024, Max(256, cs_usage_memory * INT64CONST(1024) / 512))

typedef struct Part
{
	char *block;
	uint32 used;
	int64 bytes; /* of all its blocks */
} Part;

typedef struct Spill
{
	MemoryContext cxt;
	Oid customer_type;
	Oid user_type;
	CsSpillHead head;
	int shift;
	int nparts; /* those from there on are left out */
	uint32 block;
	int64 bytes;
	File file; /* 0: none yet */
	char name[32];
	int64 end; /* of the file */
	Part parts[CS_SPILL_PARTS];
	CsSpillBlock *blocks;
	int64 nblocks;
	int64 blocks_size;
	int64 *holes; /* where blocks of parts that were left out stood */
	int64 nholes;
	StringInfo files; /* those that are complete, as in the result */
} Spill;

/* A key as it stands in the file. */
typedef struct Key
{
	const char *s;
	uint32 len;
	char number[sizeof(int64)];
} Key;

/*
 * cs_usage_slice: the hash of a customer's id that slices are ranges of.
 */
uint32
cs_usage_slice(const char *id, int len)
{
	return hash_bytes((const unsigned char *) id, len);
}

PG_FUNCTION_INFO_V1(cs_usage_slice_sql);

Datum
cs_usage_slice_sql(PG_FUNCTION_ARGS)
{
	text *id = PG_GETARG_TEXT_PP(0);

	PG_RETURN_INT64(cs_usage_slice(VARDATA_ANY(id), VARSIZE_ANY_EXHDR(id)));
}

/* ---- where files are ------------------------------------------------------ */

/*
 * cs_spill_to: see usage_spill.h.  A setting is what parallel workers are given;
 * nobody but a superuser can write this one.
 */
void
cs_spill_to(const FileSet *files)
{
	char hex[sizeof(FileSet) * 2 + 1];

	hex_encode((const char *) files, sizeof(FileSet), hex);
	hex[sizeof(FileSet) * 2] = '\0';
	(void) set_config_option("cs_ext.usage_files", hex, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
}

static void
create_file(Spill *p)
{
	static uint32 number = 0;
	FileSet files;

	if (strlen(cs_usage_files) != sizeof(FileSet) * 2)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("usage_pack is called outside the first build of the rollup"),
						errhint("Use cs.usage_agg.")));
	hex_decode(cs_usage_files, strlen(cs_usage_files), (char *) &files);
	/* the id of a worker that has ended may be given to another: his file must stay */
	snprintf(p->name, sizeof(p->name), "%x.%llx.%x", MyProcPid,
			 (unsigned long long) MyStartTimestamp, number++);
	p->file = FileSetCreate(&files, p->name);
}

/* ---- blocks --------------------------------------------------------------- */

/* Write a part's block. */
static void
flush(Spill *p, uint32 part)
{
	Part *b = &p->parts[part];
	CsSpillBlock *block;
	int64 offset = p->end;
	uint32 done = 0;

	if (b->used == 0)
		return;
	CHECK_FOR_INTERRUPTS();
	if (p->nblocks == p->blocks_size)
	{
		p->blocks_size = Max(256, p->blocks_size * 2);
		p->blocks = p->blocks
						? repalloc_huge(p->blocks, mul_size(sizeof(CsSpillBlock), p->blocks_size))
						: MemoryContextAlloc(p->cxt, sizeof(CsSpillBlock) * p->blocks_size);
	}
	/* larger ones hold one event that is larger */
	if (p->nholes > 0 && b->used <= p->block)
		offset = p->holes[--p->nholes];
	else
		p->end += Max(b->used, p->block);
	while (done < b->used)
	{
		int n = FileWrite(p->file, b->block + done, Min(b->used - done, 1 << 30), offset + done,
						  WAIT_EVENT_BUFFILE_WRITE);

		if (n <= 0)
			ereport(ERROR, (errcode_for_file_access(),
							errmsg("could not write to file \"%s\": %m", FilePathName(p->file))));
		done += n;
	}
	block = &p->blocks[p->nblocks++];
	block->offset = offset;
	block->len = b->used;
	block->part = part;
	b->used = 0;
}

/* Place for some bytes in a part. */
static inline char *
room(Spill *p, uint32 part, Size bytes)
{
	Part *b = &p->parts[part];

	if (b->block == NULL || b->used + bytes > p->block)
	{
		flush(p, part);
		if (b->block == NULL || bytes > p->block)
		{
			if (b->block != NULL)
				pfree(b->block);
			b->block = MemoryContextAllocHuge(p->cxt, Max(bytes, p->block));
		}
	}
	return b->block + b->used;
}

/* Leave customers out, until half of what there may be is there or one hash is left. */
static void
shed(Spill *p)
{
	int64 n = 0;

	while (p->bytes > MAX_SPILL / 2 && p->nparts > 1)
	{
		Part *b = &p->parts[--p->nparts];

		p->bytes -= b->bytes;
		if (b->block != NULL)
			pfree(b->block);
		b->block = NULL;
		b->used = 0;
	}
	p->head.hi = Min(p->head.hi, p->head.lo + ((int64) p->nparts << p->shift));
	while (p->bytes > MAX_SPILL / 2 && p->head.hi - p->head.lo > 1)
	{
		/* of the last part, what is beyond is left out when it is read */
		p->head.hi = p->head.lo + (p->head.hi - p->head.lo) / 2;
		p->bytes = p->parts[0].bytes /= 2;
	}

	p->holes = p->holes ? repalloc_huge(p->holes, mul_size(sizeof(int64), p->blocks_size))
						: MemoryContextAllocHuge(p->cxt, mul_size(sizeof(int64), p->blocks_size));
	for (int64 i = 0; i < p->nblocks; i++)
	{
		if (p->blocks[i].part < p->nparts)
			p->blocks[n++] = p->blocks[i];
		else if (p->blocks[i].len <= p->block)
			p->holes[p->nholes++] = p->blocks[i].offset;
	}
	p->nblocks = n;
}

/* As what keys of a type stand in the file. */
static Oid
stored_type(Oid type)
{
	switch (type)
	{
		case INT2OID:
		case INT4OID:
			return INT4OID;
		case INT8OID:
		case UUIDOID:
			return type;
		default:
			return TEXTOID;
	}
}

/* The file is complete. */
static void
end_file(Spill *p)
{
	CsSpillFile file;

	if (p->file <= 0)
		return;
	for (int i = 0; i < p->nparts; i++)
		flush(p, i);
	FileClose(p->file);
	p->file = 0;
	memset(&file, 0, sizeof(file));
	strlcpy(file.name, p->name, sizeof(file.name));
	file.customer_type = stored_type(p->customer_type);
	file.user_type = stored_type(p->user_type);
	file.nblocks = p->nblocks;
	appendBinaryStringInfo(p->files, (char *) &file, sizeof(file));
	appendBinaryStringInfo(p->files, (char *) p->blocks, sizeof(CsSpillBlock) * p->nblocks);
	p->head.nfiles++;
}

/* ---- the aggregate -------------------------------------------------------- */

static Spill *
start_spill(FunctionCallInfo fcinfo)
{
	MemoryContext cxt;
	MemoryContext old;
	Spill *p;

	if (!AggCheckCallContext(fcinfo, &cxt))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("aggregate support function called outside an aggregate")));
	p = MemoryContextAllocZero(cxt, sizeof(Spill));
	p->cxt = cxt;
	p->head.hi = CS_SLICES;
	old = MemoryContextSwitchTo(cxt);
	p->files = makeStringInfo();
	MemoryContextSwitchTo(old);
	return p;
}

/* The type of keys in the file; raises for what is none. */
static Oid
key_type(Oid type)
{
	type = getBaseType(type);
	if (!cs_native_key_type(type))
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
						errmsg("type %s is no type of ids", format_type_be(type)),
						errhint("Cast it to text.")));
	return type;
}

static void
start_pass(Spill *p, FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(1) || PG_ARGISNULL(2) || PG_GETARG_INT64(1) < 0 ||
		PG_GETARG_INT64(2) > CS_SLICES || PG_GETARG_INT64(1) >= PG_GETARG_INT64(2))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("slice of customers is out of range"),
				 errhint("It is [lo, hi) with 0 <= lo < hi <= %lld.", (long long) CS_SLICES)));
	p->customer_type = key_type(get_fn_expr_argtype(fcinfo->flinfo, 3));
	p->user_type = key_type(get_fn_expr_argtype(fcinfo->flinfo, 5));
	p->head.lo = PG_GETARG_INT64(1);
	p->head.hi = PG_GETARG_INT64(2);
	p->shift = cs_spill_shift(p->head.lo, p->head.hi);
	p->nparts = ((p->head.hi - p->head.lo - 1) >> p->shift) + 1;
	p->block = BLOCK;
	create_file(p);
}

static inline void
number_key(Key *key, const void *number, uint32 len)
{
	memcpy(key->number, number, len);
	key->s = key->number;
	key->len = len;
}

static inline void
key_of(Oid type, Datum value, Key *key)
{
	switch (type)
	{
		case INT2OID:
		case INT4OID:
		{
			int32 number = type == INT2OID ? DatumGetInt16(value) : DatumGetInt32(value);

			number_key(key, &number, sizeof(number));
			break;
		}
		case INT8OID:
		{
			int64 number = DatumGetInt64(value);

			number_key(key, &number, sizeof(number));
			break;
		}
		case UUIDOID:
			key->s = (const char *) DatumGetUUIDP(value)->data;
			key->len = UUID_LEN;
			break;
		case NUMERICOID:
			key->s = DatumGetCString(
				DirectFunctionCall1(numeric_out, DirectFunctionCall1(numeric_trim_scale, value)));
			key->len = strlen(key->s);
			break;
		default:
		{
			text *t = DatumGetTextPP(value);

			key->s = VARDATA_ANY(t);
			key->len = VARSIZE_ANY_EXHDR(t);
			if (type == BPCHAROID)
				key->len = bpchartruelen(VARDATA_ANY(t), key->len);
			break;
		}
	}
}

/* The hash of the customer's id, which is a text. */
static inline uint32
slice_of(Oid type, Datum value, const Key *key)
{
	char text[MAXINT8LEN + 1];

	switch (type)
	{
		case INT2OID:
			return cs_usage_slice(text, pg_ltoa(DatumGetInt16(value), text));
		case INT4OID:
			return cs_usage_slice(text, pg_ltoa(DatumGetInt32(value), text));
		case INT8OID:
			return cs_usage_slice(text, pg_lltoa(DatumGetInt64(value), text));
		case UUIDOID:
		{
			const char *s = DatumGetCString(DirectFunctionCall1(uuid_out, value));

			return cs_usage_slice(s, strlen(s));
		}
		default:
			return cs_usage_slice(key->s, key->len);
	}
}

static inline char *
put(char *to, const void *data, Size len)
{
	memcpy(to, data, len);
	return to + len;
}

static inline char *
put_string(char *to, const char *s, uint32 len)
{
	if (len < CS_SPILL_LONG)
		*to++ = (char) len;
	else
	{
		*to++ = (char) CS_SPILL_LONG;
		to = put(to, &len, sizeof(len));
	}
	return put(to, s, len);
}

static inline char *
put_key(char *to, Oid type, const Key *key)
{
	switch (type)
	{
		case INT2OID:
		case INT4OID:
			return put(to, key->number, sizeof(int32));
		case INT8OID:
			return put(to, key->number, sizeof(int64));
		case UUIDOID:
			return put(to, key->s, UUID_LEN);
		default:
			return put_string(to, key->s, key->len);
	}
}

PG_FUNCTION_INFO_V1(cs_usage_pack_step);

/*
 * One event: (state, lo, hi, customer key, at, user_id, event, quantity,
 * event_count).  A row without key, with an empty one, or without a usable instant
 * says nothing.
 */
Datum
cs_usage_pack_step(PG_FUNCTION_ARGS)
{
	Spill *p;
	TimestampTz at;
	uint32 slice;
	uint32 part;
	Key customer;
	Key user = {0};
	text *event = NULL;
	struct varlena *quantity = NULL;
	uint32 event_len = 0;
	Size need;
	uint8 flags = 0;
	char *begin;
	char *to;

	if (PG_ARGISNULL(0))
	{
		p = start_spill(fcinfo);
		start_pass(p, fcinfo);
	}
	else
		p = (Spill *) PG_GETARG_POINTER(0);
	if (PG_ARGISNULL(3) || PG_ARGISNULL(4))
		PG_RETURN_POINTER(p);
	at = PG_GETARG_TIMESTAMPTZ(4);
	if (at < CS_TIME_MIN || at >= CS_TIME_MAX)
		PG_RETURN_POINTER(p);
	key_of(p->customer_type, PG_GETARG_DATUM(3), &customer);
	if (customer.len == 0)
		PG_RETURN_POINTER(p);
	slice = slice_of(p->customer_type, PG_GETARG_DATUM(3), &customer);
	if (slice < p->head.lo || slice >= p->head.hi)
		PG_RETURN_POINTER(p);
	part = (slice - p->head.lo) >> p->shift;

	/* instant, flags, count, lengths of four strings */
	need = sizeof(int64) * 2 + 1 + (sizeof(uint32) + 1) * 4 + customer.len;
	if (PG_ARGISNULL(5))
		flags |= CS_SPILL_NO_USER;
	else
	{
		key_of(p->user_type, PG_GETARG_DATUM(5), &user);
		need += user.len;
	}
	if (PG_ARGISNULL(6))
		flags |= CS_SPILL_NO_EVENT;
	else
	{
		event = PG_GETARG_TEXT_PP(6);
		event_len = VARSIZE_ANY_EXHDR(event);
		need += event_len;
	}
	if (!PG_ARGISNULL(7))
	{
		quantity = (struct varlena *) PG_GETARG_NUMERIC(7);
		flags |= CS_SPILL_EXTRA | CS_SPILL_QUANTITY;
		need += VARSIZE(quantity);
	}
	else if (!PG_ARGISNULL(8) && PG_GETARG_INT64(8) != 1)
		flags |= CS_SPILL_EXTRA;

	begin = to = room(p, part, need);
	to = put(to, &at, sizeof(at));
	*to++ = (char) flags;
	to = put_key(to, p->customer_type, &customer);
	if ((flags & CS_SPILL_NO_USER) == 0)
		to = put_key(to, p->user_type, &user);
	if (event != NULL)
		to = put_string(to, VARDATA_ANY(event), event_len);
	if (flags & CS_SPILL_EXTRA)
	{
		int64 count = PG_ARGISNULL(8) ? 1 : PG_GETARG_INT64(8);

		to = put(to, &count, sizeof(count));
		to =
			quantity ? put_string(to, (char *) quantity, VARSIZE(quantity)) : put_string(to, "", 0);
	}
	p->parts[part].used += to - begin;
	p->parts[part].bytes += to - begin;
	p->bytes += to - begin;

	p->head.first = p->head.events ? Min(p->head.first, at) : at;
	p->head.last = p->head.events ? Max(p->head.last, at) : at;
	p->head.events++;
	if (p->bytes > MAX_SPILL && p->head.hi - p->head.lo > 1)
		shed(p);
	PG_RETURN_POINTER(p);
}

/* The state as one value (usage_spill.h). */
static struct varlena *
packed(Spill *p)
{
	struct varlena *result;
	Size size;

	end_file(p);
	size = VARHDRSZ + sizeof(p->head) + p->files->len;
	result = palloc(size);
	SET_VARSIZE(result, size);
	memcpy(VARDATA(result), &p->head, sizeof(p->head));
	memcpy(VARDATA(result) + sizeof(p->head), p->files->data, p->files->len);
	return result;
}

PG_FUNCTION_INFO_V1(cs_usage_pack_serialize);

Datum
cs_usage_pack_serialize(PG_FUNCTION_ARGS)
{
	PG_RETURN_POINTER(packed((Spill *) PG_GETARG_POINTER(0)));
}

PG_FUNCTION_INFO_V1(cs_usage_pack_deserialize);

Datum
cs_usage_pack_deserialize(PG_FUNCTION_ARGS)
{
	Spill *p = start_spill(fcinfo);
	struct varlena *value = PG_DETOAST_DATUM_PACKED(PG_GETARG_DATUM(0));

	memcpy(&p->head, VARDATA_ANY(value), sizeof(p->head));
	appendBinaryStringInfo(p->files, VARDATA_ANY(value) + sizeof(p->head),
						   VARSIZE_ANY_EXHDR(value) - sizeof(p->head));
	PG_RETURN_POINTER(p);
}

PG_FUNCTION_INFO_V1(cs_usage_pack_combine);

Datum
cs_usage_pack_combine(PG_FUNCTION_ARGS)
{
	Spill *a = PG_ARGISNULL(0) ? NULL : (Spill *) PG_GETARG_POINTER(0);
	Spill *b;

	if (PG_ARGISNULL(1))
	{
		if (a == NULL)
			PG_RETURN_NULL();
		PG_RETURN_POINTER(a);
	}
	b = (Spill *) PG_GETARG_POINTER(1);
	end_file(b);
	if (a == NULL)
		a = start_spill(fcinfo);
	end_file(a);
	a->head.lo = b->head.lo;
	a->head.hi = Min(a->head.hi, b->head.hi);
	if (b->head.events > 0)
	{
		a->head.first = a->head.events ? Min(a->head.first, b->head.first) : b->head.first;
		a->head.last = a->head.events ? Max(a->head.last, b->head.last) : b->head.last;
		a->head.events += b->head.events;
	}
	a->head.nfiles += b->head.nfiles;
	appendBinaryStringInfo(a->files, b->files->data, b->files->len);
	PG_RETURN_POINTER(a);
}

PG_FUNCTION_INFO_V1(cs_usage_pack_final);

Datum
cs_usage_pack_final(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_POINTER(packed((Spill *) PG_GETARG_POINTER(0)));
}
