/*
 * fuzz_usage.c
 *		Throws mutated values at the functions of cs.usage.
 *
 * In: a seed, seconds, and valid values as a corpus.  Out: a line of counts, or
 * an error that names the seed and shows the value.  A crash takes the server
 * with it, which is the finding.  Three ways in: the text input function, the
 * binary one, and the functions that read a stored value, whose payload is
 * mutated without being checked first (a damaged page).  What is accepted must
 * come back unchanged from text and binary form.
 *
 * Inputs lie in blocks of malloc() of just their size, so that valgrind sees a
 * byte read beyond them, which it would not in a memory context.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/timestamp.h"

PG_MODULE_MAGIC;
PG_FUNCTION_INFO_V1(fuzz_usage);

#define MAX_INPUT 8192

typedef struct Input
{
	char *data;
	int len;
} Input;

static uint64 state;

static uint64
dice(uint64 n)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (state * UINT64CONST(2685821657736338717)) % n;
}

static Oid
function(const char *signature)
{
	return DatumGetObjectId(DirectFunctionCall1(regprocedurein, CStringGetDatum(signature)));
}

/*
 * mutate: a corpus entry, changed in one to six places, in a block of its size
 * and one byte, which is zero.
 */
static Input
mutate(const Input *corpus, int n, bool text)
{
	static const unsigned char bytes[] = {0x00, 0x01, 0x7f, 0x80, 0xff, 0xfe, '"',
										  '[',  ']',  '-',  '9',  '0',  'e',  '\\'};
	char work[MAX_INPUT * 2];
	const Input *from = &corpus[dice(n)];
	int len = Min(from->len, MAX_INPUT);
	int changes = (int) dice(7); /* none, now and then */
	Input result;

	memcpy(work, from->data, len);
	while (changes-- > 0)
	{
		int at = len > 0 ? (int) dice(len) : 0;
		int piece = len > 0 ? (int) dice(Min(len - at, 40) + 1) : 0;

		switch (dice(7))
		{
			case 0:
				if (len > 0)
					work[at] ^= (char) (1 << dice(8));
				break;
			case 1:
				if (len > 0)
					work[at] = (char) bytes[dice(lengthof(bytes))];
				break;
			case 2: /* take out */
				memmove(work + at, work + at + piece, len - at - piece);
				len -= piece;
				break;
			case 3: /* say twice */
				if (len + piece <= MAX_INPUT)
				{
					memmove(work + at + piece, work + at, len - at);
					len += piece;
				}
				break;
			case 4: /* cut off */
				len = at;
				break;
			case 5: /* a piece of another */
			{
				const Input *other = &corpus[dice(n)];
				int start = other->len > 0 ? (int) dice(other->len) : 0;
				int take = (int) dice(60);

				take = Min(take, other->len - start);
				if (len + take <= MAX_INPUT)
				{
					memmove(work + at + take, work + at, len - at);
					memcpy(work + at, other->data + start, take);
					len += take;
				}
				break;
			}
			default: /* other digits, so that numbers stay numbers */
				for (int i = at; i < at + piece; i++)
				{
					if (work[i] >= '0' && work[i] <= '9')
						work[i] = (char) ('0' + dice(10));
				}
		}
	}
	result.data = malloc(len + 1);
	if (result.data == NULL)
		elog(ERROR, "out of memory");
	memcpy(result.data, work, len);
	result.data[len] = '\0';
	result.len = len;
	if (text)
	{
		/* what cannot come from a client: zero bytes and bytes of no character */
		for (int i = 0; i < len; i++)
		{
			if (result.data[i] == '\0')
				result.data[i] = ' ';
		}
		if (!pg_verifymbstr(result.data, len, true))
		{
			for (int i = 0; i < len; i++)
			{
				if (IS_HIGHBIT_SET(result.data[i]))
					result.data[i] = 'x';
			}
		}
	}
	return result;
}

static char *
hex(const char *data, int len)
{
	char *out = palloc(len * 2 + 1);

	out[hex_encode(data, len, out)] = '\0';
	return out;
}

static bytea *
send(Oid send_function, Datum value)
{
	return DatumGetByteaPP(OidFunctionCall1(send_function, value));
}

static Datum
receive(Oid receive_function, const char *data, int len)
{
	StringInfoData buf;

	buf.data = (char *) data;
	buf.len = buf.maxlen = len;
	buf.cursor = 0;
	return OidFunctionCall3(receive_function, PointerGetDatum(&buf), ObjectIdGetDatum(InvalidOid),
							Int32GetDatum(-1));
}

static bool
same(Datum a, Datum b)
{
	struct varlena *x = PG_DETOAST_DATUM_PACKED(a);
	struct varlena *y = PG_DETOAST_DATUM_PACKED(b);

	return VARSIZE_ANY_EXHDR(x) == VARSIZE_ANY_EXHDR(y) &&
		   memcmp(VARDATA_ANY(x), VARDATA_ANY(y), VARSIZE_ANY_EXHDR(x)) == 0;
}

/* What reads a stored value, each in a call of its own: one raises, the next is tried. */
enum
{
	READ_OUT,
	READ_SEND,
	READ_HASH,
	READ_PLUS,
	READ_MINUS,
	READ_AT,
	READ_EVENTS,
	READ_QUANTITY,
	READ_ACTIVE_USERS,
	READ_ACTIVE_DAYS,
	READ_DISTINCT,
	READ_STICKINESS,
	READ_DAYS_SINCE,
	READERS
};

static const char *const signatures[READERS] = {
	"cs_internal.usage_out(cs.usage)",
	"cs_internal.usage_send(cs.usage)",
	"cs.usage_hash(cs.usage)",
	"cs.usage_plus(cs.usage,cs.usage)",
	"cs.usage_minus(cs.usage,cs.usage)",
	"cs.usage_at(cs.usage,date)",
	"cs.events(cs.usage,text,integer,integer,boolean)",
	"cs.quantity(cs.usage,text,integer,integer,boolean)",
	"cs.active_users(cs.usage,integer,text,integer,boolean)",
	"cs.active_days(cs.usage,integer,integer,boolean)",
	"cs.distinct_events(cs.usage,integer,integer,boolean)",
	"cs.stickiness(cs.usage,integer,integer,boolean)",
	"cs.days_since(cs.usage,text,integer,boolean)",
};

/* Arguments of any sort; NULL is given where SQL would give it. */
static void
read_value(int reader, Oid oid, Datum value, Datum other, bool stamp)
{
	LOCAL_FCINFO(call, 5);
	FmgrInfo info;
	Datum days = Int32GetDatum((int32) dice(400) + 1);
	Datum ago = Int32GetDatum((int32) dice(500));
	Datum event = CStringGetTextDatum(dice(2) ? "login" : "e\"1");

	fmgr_info(oid, &info);
	InitFunctionCallInfoData(*call, &info, info.fn_nargs, InvalidOid, NULL, NULL);
	for (int i = 0; i < 5; i++)
		call->args[i].isnull = false;
	call->args[0].value = value;
	switch (reader)
	{
		case READ_PLUS:
		case READ_MINUS:
			call->args[1].value = other;
			break;
		case READ_AT:
			call->args[1].value = Int32GetDatum((int32) dice(20000) - 2000);
			break;
		case READ_EVENTS:
		case READ_QUANTITY:
			call->args[1].value = event;
			call->args[1].isnull = dice(2) == 0;
			call->args[2].value = days;
			call->args[3].value = ago;
			call->args[4].value = BoolGetDatum(stamp);
			break;
		case READ_ACTIVE_USERS:
			call->args[1].value = days;
			call->args[2].value = event;
			call->args[2].isnull = dice(2) == 0;
			call->args[3].value = ago;
			call->args[4].value = BoolGetDatum(stamp);
			break;
		case READ_DAYS_SINCE:
			call->args[1].value = event;
			call->args[1].isnull = dice(2) == 0;
			call->args[2].value = ago;
			call->args[3].value = BoolGetDatum(stamp);
			break;
		default:
			call->args[1].value = days;
			call->args[2].value = ago;
			call->args[3].value = BoolGetDatum(stamp);
	}
	(void) FunctionCallInvoke(call);
}

/*
 * fuzz_usage(seed bigint, seconds float8, corpus text[]) returns text
 */
Datum
fuzz_usage(PG_FUNCTION_ARGS)
{
	int64 seed = PG_GETARG_INT64(0);
	TimestampTz stop = GetCurrentTimestamp() + (int64) (PG_GETARG_FLOAT8(1) * USECS_PER_SEC);
	Oid in = function("cs_internal.usage_in(cstring)");
	Oid recv = function("cs_internal.usage_recv(internal)");
	Oid readers[READERS];
	Datum *elems;
	int n;
	Input *texts;
	Input *binaries;
	Datum *values;
	int64 tried = 0;
	int64 accepted = 0;
	int64 calls = 0;
	int64 raised = 0;
	MemoryContext context = CurrentMemoryContext;
	MemoryContext scratch =
		AllocSetContextCreate(CurrentMemoryContext, "fuzz", ALLOCSET_DEFAULT_SIZES);

	state = (uint64) seed * UINT64CONST(0x9E3779B97F4A7C15) + 1;
	for (int i = 0; i < READERS; i++)
		readers[i] = function(signatures[i]);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), TEXTOID, -1, false, TYPALIGN_INT, &elems, NULL, &n);
	texts = palloc(sizeof(Input) * n);
	binaries = palloc(sizeof(Input) * n);
	values = palloc(sizeof(Datum) * n);
	for (int i = 0; i < n; i++)
	{
		Datum value;
		bytea *b;

		texts[i].data = TextDatumGetCString(elems[i]);
		texts[i].len = strlen(texts[i].data);
		value = values[i] = OidFunctionCall1(in, CStringGetDatum(texts[i].data));
		b = send(readers[READ_SEND], value);
		binaries[i].data = VARDATA_ANY(b);
		binaries[i].len = VARSIZE_ANY_EXHDR(b);
	}

	while (GetCurrentTimestamp() < stop)
	{
		int way = (int) dice(3);
		Input volatile input = mutate(way == 0 ? texts : binaries, n, way == 0);
		struct varlena *volatile stored = NULL;
		volatile int step = -1;
		int start = (int) dice(READERS);

		CHECK_FOR_INTERRUPTS();
		tried++;
		if (way == 2)
		{
			stored = malloc(VARHDRSZ + input.len);
			SET_VARSIZE(stored, VARHDRSZ + input.len);
			memcpy(VARDATA(stored), input.data, input.len);
		}
		/* each turn goes on behind what raised */
		while (step < (stored != NULL ? READERS : 0))
		{
			MemoryContextSwitchTo(scratch);
			PG_TRY();
			{
				if (way < 2 && step < 0)
				{
					Datum value = way == 0 ? OidFunctionCall1(in, CStringGetDatum(input.data))
										   : receive(recv, input.data, input.len);
					char *text = DatumGetCString(OidFunctionCall1(readers[READ_OUT], value));
					bytea *bin = send(readers[READ_SEND], value);
					struct varlena *plain = PG_DETOAST_DATUM_COPY(value);

					if (!same(value, OidFunctionCall1(in, CStringGetDatum(text))) ||
						!same(value, receive(recv, VARDATA_ANY(bin), VARSIZE_ANY_EXHDR(bin))))
						elog(ERROR, "not the same again: %s", text);
					accepted++;
					stored = malloc(VARSIZE(plain));
					memcpy(stored, plain, VARSIZE(plain));
				}
				for (step = Max(step, 0); step < READERS; step++)
				{
					int reader = (start + step) % READERS;

					calls++;
					read_value(reader, readers[reader], PointerGetDatum(stored), values[dice(n)],
							   dice(2) == 0);
				}
			}
			PG_CATCH();
			{
				ErrorData *error;

				MemoryContextSwitchTo(context);
				error = CopyErrorData();
				FlushErrorState();
				raised++;
				if (error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
					error->sqlerrcode == ERRCODE_INTERNAL_ERROR)
				{
					error->message = psprintf("%s; seed " INT64_FORMAT ", try " INT64_FORMAT
											  ", way %d, step %d, input \\x%s",
											  error->message, seed, tried, way, step,
											  hex(input.data, input.len));
					ReThrowError(error);
				}
				FreeErrorData(error);
				if (stored == NULL)
					step = READERS; /* refused */
				else
					step++;
			}
			PG_END_TRY();
			MemoryContextSwitchTo(context);
		}
		MemoryContextReset(scratch);
		free(input.data);
		free(stored);
	}
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("seed " INT64_FORMAT ": " INT64_FORMAT
											  " inputs, " INT64_FORMAT " accepted, " INT64_FORMAT
											  " reads, " INT64_FORMAT " errors raised",
											  seed, tried, accepted, calls, raised)));
}
