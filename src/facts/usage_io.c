/*
 * usage_io.c
 *		Text and binary form of cs.usage.
 *
 * Text is JSON, in the order of the encoding, and says the same under every
 * setting of the session:
 *
 *	{"version": 1, "stamp": "2024-02-01",
 *	 "first": "2024-01-01 08:00:00+00", "last": "2024-01-05 09:30:00+00",
 *	 "events": [["login", ["2024-01-01", 3], ["2024-01-05", 1, 2.5]]],
 *	 "users": [["u1", ["login", "2024-01-01"]], [null, ["login", "2024-01-05"]]]}
 *
 * An event lists [day, count] or [day, count, quantity]; a user lists events
 * with their days; null stands for rows without event or user.  stamp stands
 * only in a stamped value ("running": true beside it where the stamp's own day
 * is known), first and last only in an unstamped one with events.
 *
 * Binary is the version, the encoding and nothing else (usage_value.h); names
 * in it are in the server's encoding.  Both forms are checked as a whole.
 */
#include "cs_ext.h"

#include "facts/usage_value.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/jsonb.h"

/* ---- out -------------------------------------------------------------- */

static void
put_day(StringInfo buf, DateADT day)
{
	struct pg_tm tm;
	char text[MAXDATELEN + 1];

	memset(&tm, 0, sizeof(tm));
	j2date(day + POSTGRES_EPOCH_JDATE, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
	EncodeDateOnly(&tm, USE_ISO_DATES, text);
	appendStringInfo(buf, "\"%s\"", text);
}

static void
put_instant(StringInfo buf, TimestampTz at)
{
	struct pg_tm tm;
	fsec_t fsec;
	char text[MAXDATELEN + 1];

	if (timestamp2tm(at, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	tm.tm_isdst = 0;
	EncodeDateTime(&tm, fsec, true, 0, NULL, USE_ISO_DATES, text);
	appendStringInfo(buf, "\"%s\"", text);
}

static void
put_name(StringInfo buf, const CsUsageString *name)
{
	char *copy;

	if (name->s == NULL)
	{
		appendStringInfoString(buf, "null");
		return;
	}
	copy = pnstrdup(name->s, name->len);
	escape_json(buf, copy);
	pfree(copy);
}

PG_FUNCTION_INFO_V1(cs_usage_out);

Datum
cs_usage_out(PG_FUNCTION_ARGS)
{
	CsUsageReader r;
	CsUsageString *events;
	CsUsageString name;
	StringInfoData buf;

	cs_usage_read_value(&r, PG_GETARG_USAGE(0));
	initStringInfo(&buf);
	appendStringInfo(&buf, "{\"version\": %d", CS_USAGE_VERSION);
	if (r.stamped)
	{
		appendStringInfoString(&buf, ", \"stamp\": ");
		put_day(&buf, r.stamp);
		if (r.running)
			appendStringInfoString(&buf, ", \"running\": true");
	}
	if (r.has_instants)
	{
		appendStringInfoString(&buf, ", \"first\": ");
		put_instant(&buf, r.first);
		appendStringInfoString(&buf, ", \"last\": ");
		put_instant(&buf, r.last);
	}

	appendStringInfoString(&buf, ", \"events\": [");
	events = MemoryContextAllocHuge(CurrentMemoryContext,
									mul_size(r.nevents + 1, sizeof(CsUsageString)));
	for (uint32 i = 0; i < r.nevents; i++)
	{
		uint32 ndays = cs_usage_read_event(&r, &events[i]);

		CHECK_FOR_INTERRUPTS();
		appendStringInfoString(&buf, i > 0 ? ", [" : "[");
		put_name(&buf, &events[i]);
		while (ndays-- > 0)
		{
			DateADT day;
			int64 count;
			CsQty qty;

			cs_usage_read_day(&r, &day, &count, &qty);
			appendStringInfoString(&buf, ", [");
			put_day(&buf, day);
			appendStringInfo(&buf, ", " INT64_FORMAT, count);
			if (qty.has)
				appendStringInfo(&buf, ", %s",
								 DatumGetCString(DirectFunctionCall1(
									 numeric_out, NumericGetDatum(cs_qty_to_numeric(&qty)))));
			appendStringInfoChar(&buf, ']');
		}
		appendStringInfoChar(&buf, ']');
	}

	appendStringInfoString(&buf, "], \"users\": [");
	cs_usage_read_users(&r);
	for (uint32 i = 0; i < r.nusers; i++)
	{
		uint32 nevents = cs_usage_read_user(&r, &name);

		CHECK_FOR_INTERRUPTS();
		appendStringInfoString(&buf, i > 0 ? ", [" : "[");
		put_name(&buf, &name);
		while (nevents-- > 0)
		{
			uint32 event;
			uint32 nchunks = cs_usage_read_user_event(&r, &event);

			appendStringInfoString(&buf, ", [");
			put_name(&buf, &events[event]);
			while (nchunks-- > 0)
			{
				int32 chunk;
				uint32 bits;

				cs_usage_read_chunk(&r, &chunk, &bits);
				for (int k = 0; k < 32; k++)
				{
					if ((bits & ((uint32) 1 << k)) == 0)
						continue;
					appendStringInfoString(&buf, ", ");
					put_day(&buf, chunk * 32 + k);
				}
			}
			appendStringInfoChar(&buf, ']');
		}
		appendStringInfoChar(&buf, ']');
	}
	cs_usage_read_end(&r);
	appendStringInfoString(&buf, "]}");
	PG_RETURN_CSTRING(buf.data);
}

/* ---- in --------------------------------------------------------------- */

CS_NORETURN static void pg_attribute_printf(1, 2) refuse(const char *format, ...)
{
	StringInfoData detail;
	va_list args;

	initStringInfo(&detail);
	for (;;)
	{
		int needed;

		va_start(args, format);
		needed = appendStringInfoVA(&detail, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&detail, needed);
	}
	ereport(ERROR, (errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
					errmsg("invalid input syntax for type %s", "cs.usage"),
					errdetail("%s.", detail.data)));
}

/* A string of the input, terminated; NULL when it is null; anything else is refused. */
static char *
text_of(const JsonbValue *v, const char *what)
{
	if (v->type == jbvNull)
		return NULL;
	if (v->type != jbvString)
		refuse("%s must be a string", what);
	return pnstrdup(v->val.string.val, v->val.string.len);
}

/* YYYY-MM-DD [BC], as written by put_day; date_in would read words and settings. */
static DateADT
day_of(const JsonbValue *v, const char *what)
{
	char *text = text_of(v, what);
	int digits = text ? (int) strspn(text, "0123456789") : 0;
	int year;
	int month;
	int day;
	int end = 0;
	int y;
	int m;
	int d;
	int julian;

	if (text == NULL || digits < 4 || digits > 7 ||
		sscanf(text, "%d-%2d-%2d%n", &year, &month, &day, &end) != 3 || end != digits + 6 ||
		(text[end] != '\0' && strcmp(text + end, " BC") != 0))
		refuse("%s must be a day such as \"2024-01-31\"", what);
	if (text[end] != '\0')
		year = 1 - year;
	if (year > 5874897 || year < -4712 || month < 1 || month > 12 || day < 1 || day > 31)
		refuse("%s \"%s\" is no day", what, text);
	julian = date2j(year, month, day);
	j2date(julian, &y, &m, &d);
	if (y != year || m != month || d != day || julian - POSTGRES_EPOCH_JDATE < CS_DAY_MIN ||
		julian - POSTGRES_EPOCH_JDATE >= CS_DAY_END)
		refuse("%s \"%s\" is no day", what, text);
	pfree(text);
	return julian - POSTGRES_EPOCH_JDATE;
}

/* YYYY-MM-DD hh:mm:ss[.ffffff]+00 [BC], as written by put_instant. */
static TimestampTz
instant_of(const JsonbValue *v, const char *what)
{
	char *text = text_of(v, what);
	Size len = text ? strlen(text) : 0;
	TimestampTz at;

	if (len > 3 && strcmp(text + len - 3, " BC") == 0)
		len -= 3;
	if (len < 22 || strspn(text, "0123456789") < 4 || strncmp(text + len - 3, "+00", 3) != 0 ||
		strspn(text, "0123456789-: .") != len - 3)
		refuse("%s must be an instant such as \"2024-01-31 12:00:00+00\"", what);
	at = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(text),
												 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	pfree(text);
	return at;
}

static JsonbContainer *
array_of(const JsonbValue *v, const char *what)
{
	if (v->type != jbvBinary || !JsonContainerIsArray(v->val.binary.data) ||
		JsonContainerIsScalar(v->val.binary.data))
		refuse("%s must be an array", what);
	return v->val.binary.data;
}

/* One event: [name, [day, count [, quantity]], ...]. */
static void
read_event(CsUsageBuild *b, JsonbContainer *c)
{
	int n = JsonContainerSize(c);
	char *name;
	int event;

	if (n < 2)
		refuse("An event must list its name and at least one day");
	name = text_of(getIthJsonbValueFromContainer(c, 0), "The name of an event");
	event = cs_usage_event(b, name, name ? strlen(name) : 0);
	for (int i = 1; i < n; i++)
	{
		JsonbContainer *cell = array_of(getIthJsonbValueFromContainer(c, i), "A day of an event");
		int width = JsonContainerSize(cell);
		JsonbValue *v;
		DateADT day;
		int64 count;
		CsQty qty = {0};
		Numeric number;

		if (width < 2 || width > 3)
			refuse("A day of an event must be [day, count] or [day, count, quantity]");
		day = day_of(getIthJsonbValueFromContainer(cell, 0), "A day of an event");
		v = getIthJsonbValueFromContainer(cell, 1);
		if (v->type != jbvNumeric)
			refuse("A count must be a whole number");
		number = v->val.numeric;
		count = DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(number)));
		if (!DatumGetBool(DirectFunctionCall2(numeric_eq, NumericGetDatum(number),
											  NumericGetDatum(int64_to_numeric(count)))))
			refuse("A count must be a whole number");
		if (width == 3)
		{
			v = getIthJsonbValueFromContainer(cell, 2);
			if (v->type != jbvNumeric)
				refuse("A quantity must be a number");
			qty = cs_qty_from_numeric(v->val.numeric);
		}
		if (cs_usage_has_count(b, event, day))
			refuse("An event has a day twice");
		cs_usage_count(b, event, day, count, &qty);
	}
}

/* One user: [name, [event, day, ...], ...]. */
static void
read_user(CsUsageBuild *b, JsonbContainer *c)
{
	int n = JsonContainerSize(c);
	char *name;
	int user;

	if (n < 2)
		refuse("A user must list the name and at least one event");
	name = text_of(getIthJsonbValueFromContainer(c, 0), "The name of a user");
	user = cs_usage_user(b, name, name ? strlen(name) : 0);
	for (int i = 1; i < n; i++)
	{
		JsonbContainer *days = array_of(getIthJsonbValueFromContainer(c, i), "An event of a user");
		int width = JsonContainerSize(days);
		int event;

		if (width < 2)
			refuse("An event of a user must list its name and at least one day");
		name = text_of(getIthJsonbValueFromContainer(days, 0), "The event of a user");
		event = cs_usage_event(b, name, name ? strlen(name) : 0);
		for (int k = 1; k < width; k++)
		{
			DateADT day = day_of(getIthJsonbValueFromContainer(days, k), "A day of a user");

			cs_usage_mark(b, user, event, cs_chunk_of(day), cs_bit_of(day));
		}
	}
}

PG_FUNCTION_INFO_V1(cs_usage_in);

Datum
cs_usage_in(PG_FUNCTION_ARGS)
{
	Jsonb *json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, PG_GETARG_DATUM(0)));
	CsUsageBuild *b = cs_usage_build(CurrentMemoryContext);
	JsonbIterator *it;
	JsonbValue v;
	JsonbContainer *events = NULL;
	JsonbContainer *users = NULL;
	TimestampTz first = 0;
	TimestampTz last = 0;
	bool version = false;
	int instants = 0;
	DateADT stamp = 0;
	bool stamped = false;
	bool running = false;
	const char *fault;

	if (!JB_ROOT_IS_OBJECT(json))
		refuse("It must be a JSON object");
	it = JsonbIteratorInit(&json->root);
	JsonbIteratorNext(&it, &v, true);
	while (JsonbIteratorNext(&it, &v, true) == WJB_KEY)
	{
		char *key = pnstrdup(v.val.string.val, v.val.string.len);

		JsonbIteratorNext(&it, &v, true);
		if (strcmp(key, "version") == 0)
		{
			if (v.type != jbvNumeric ||
				DatumGetInt32(
					DirectFunctionCall2(numeric_cmp, NumericGetDatum(v.val.numeric),
										NumericGetDatum(int64_to_numeric(CS_USAGE_VERSION)))) != 0)
				refuse("\"version\" must be %d", CS_USAGE_VERSION);
			version = true;
		}
		else if (strcmp(key, "stamp") == 0)
		{
			stamp = day_of(&v, "\"stamp\"");
			stamped = true;
		}
		else if (strcmp(key, "running") == 0)
		{
			if (v.type != jbvBool || !v.val.boolean)
				refuse("\"running\" must be true");
			running = true;
		}
		else if (strcmp(key, "first") == 0)
		{
			first = instant_of(&v, "\"first\"");
			instants++;
		}
		else if (strcmp(key, "last") == 0)
		{
			last = instant_of(&v, "\"last\"");
			instants++;
		}
		else if (strcmp(key, "events") == 0)
			events = array_of(&v, "\"events\"");
		else if (strcmp(key, "users") == 0)
			users = array_of(&v, "\"users\"");
		else
			refuse("It has no key \"%s\"", key);
	}
	if (!version || !events || !users)
		refuse("\"version\", \"events\" and \"users\" must be there");
	if (running && !stamped)
		refuse("\"running\" stands beside \"stamp\" only");
	if (stamped)
		cs_usage_set_stamp(b, stamp, running);
	if (instants == 1)
		refuse("\"first\" and \"last\" go together");
	if (instants == 2)
	{
		if (first > last)
			refuse("\"first\" is later than \"last\"");
		cs_usage_instants(b, first, last);
	}
	for (int i = 0; i < JsonContainerSize(events); i++)
	{
		CHECK_FOR_INTERRUPTS();
		read_event(b, array_of(getIthJsonbValueFromContainer(events, i), "An event"));
	}
	for (int i = 0; i < JsonContainerSize(users); i++)
	{
		CHECK_FOR_INTERRUPTS();
		read_user(b, array_of(getIthJsonbValueFromContainer(users, i), "A user"));
	}
	if ((fault = cs_usage_fault(b)) != NULL)
		refuse("In it %s", fault);
	PG_RETURN_POINTER(cs_usage_encode(b));
}

/* ---- binary ----------------------------------------------------------- */

PG_FUNCTION_INFO_V1(cs_usage_send);

Datum
cs_usage_send(PG_FUNCTION_ARGS)
{
	struct varlena *value = PG_GETARG_USAGE(0);
	StringInfoData buf;

	pq_begintypsend(&buf);
	pq_sendbytes(&buf, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
	PG_RETURN_BYTEA_P(pq_endtypsend(&buf));
}

PG_FUNCTION_INFO_V1(cs_usage_recv);

/* Whatever decodes is accepted only when it is the encoding of what it says. */
Datum
cs_usage_recv(PG_FUNCTION_ARGS)
{
	StringInfo message = (StringInfo) PG_GETARG_POINTER(0);
	int len = message->len - message->cursor;
	const char *data = pq_getmsgbytes(message, len);
	struct varlena *value = palloc(VARHDRSZ + len);
	struct varlena *again;
	CsUsageBuild *b = cs_usage_build(CurrentMemoryContext);
	CsUsageReader r;
	CsUsageString name;
	const char *fault;

	/* first a walk that raises binary errors and looks at the names */
	cs_usage_read(&r, data, len, ERRCODE_INVALID_BINARY_REPRESENTATION);
	for (uint32 i = 0; i < r.nevents; i++)
	{
		uint32 ndays = cs_usage_read_event(&r, &name);
		DateADT day;
		int64 count;
		CsQty qty;

		if (name.s)
			pg_verifymbstr(name.s, name.len, false);
		while (ndays-- > 0)
			cs_usage_read_day(&r, &day, &count, &qty);
	}
	cs_usage_read_users(&r);
	for (uint32 i = 0; i < r.nusers; i++)
	{
		uint32 nevents = cs_usage_read_user(&r, &name);

		if (name.s)
			pg_verifymbstr(name.s, name.len, false);
		while (nevents-- > 0)
		{
			uint32 event;
			uint32 nchunks = cs_usage_read_user_event(&r, &event);
			int32 chunk;
			uint32 bits;

			while (nchunks-- > 0)
				cs_usage_read_chunk(&r, &chunk, &bits);
		}
	}
	cs_usage_read_end(&r);

	SET_VARSIZE(value, VARHDRSZ + len);
	memcpy(VARDATA(value), data, len);
	if (r.stamped)
		cs_usage_set_stamp(b, r.stamp, r.running);
	cs_usage_add(b, value, CS_DAY_MIN, CS_DAY_END);
	if ((fault = cs_usage_fault(b)) != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
						errmsg("invalid binary form of cs.usage"), errdetail("In it %s.", fault)));
	again = cs_usage_encode(b);
	if (VARSIZE(again) != VARSIZE(value) || memcmp(again, value, VARSIZE(value)) != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
						errmsg("invalid binary form of cs.usage"),
						errdetail("It is not sorted or not in its shortest form.")));
	PG_RETURN_POINTER(again);
}
