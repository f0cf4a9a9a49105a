/*
 * period.c
 *		Period words: what people write about spans of time.
 *
 * In: a word ('2026-10', 'last quarter', '[2026-10-01,2026-11-15)') and the
 * instant it is said at.  Out: a half-open interval of instants, cut in the
 * policy's zone.  Nothing here looks at the session's TimeZone or DateStyle,
 * and nothing here looks at facts.  Every other file that takes a period from
 * a user goes through here.
 */
#include "postgres.h"

#include <ctype.h>

#include "access/htup_details.h"
#include "funcapi.h"
#include "pgtime.h"
#include "utils/datetime.h"

#include "core/period.h"

#define PERIOD_FORMS                                                                         \
	"Periods are written '2026-10', '2026-Q3', '2026-W41', '2026', 'FY2026', 'last month', " \
	"'this quarter', 'yesterday', 'qtd' or '[2026-10-01,2026-11-15)'."

/* What the words mean: the unit, and how many of them back from now. */
typedef enum PeriodUnit
{
	UNIT_DAY,
	UNIT_WEEK,
	UNIT_MONTH,
	UNIT_QUARTER,
	UNIT_YEAR
} PeriodUnit;

typedef struct PeriodWord
{
	const char *word;
	PeriodUnit unit;
	int back;
} PeriodWord;

static const PeriodWord period_words[] = {
	{"today", UNIT_DAY, 0},
	{"yesterday", UNIT_DAY, 1},
	{"this week", UNIT_WEEK, 0},
	{"last week", UNIT_WEEK, 1},
	{"wtd", UNIT_WEEK, 0},
	{"this month", UNIT_MONTH, 0},
	{"last month", UNIT_MONTH, 1},
	{"mtd", UNIT_MONTH, 0},
	{"this quarter", UNIT_QUARTER, 0},
	{"last quarter", UNIT_QUARTER, 1},
	{"qtd", UNIT_QUARTER, 0},
	{"this year", UNIT_YEAR, 0},
	{"last year", UNIT_YEAR, 1},
	{"ytd", UNIT_YEAR, 0},
};

/* What people write instead, for the hint. */
static const struct
{
	const char *written;
	const char *meant;
} period_slips[] = {
	{"day", "today"},
	{"week", "this week\" or \"last week"},
	{"month", "this month\" or \"last month"},
	{"quarter", "this quarter\" or \"last quarter"},
	{"year", "this year\" or \"last year"},
	{"current month", "this month"},
	{"previous month", "last month"},
	{"prev month", "last month"},
	{"past month", "last month"},
	{"month to date", "mtd"},
	{"current quarter", "this quarter"},
	{"previous quarter", "last quarter"},
	{"prev quarter", "last quarter"},
	{"quarter to date", "qtd"},
	{"current year", "this year"},
	{"previous year", "last year"},
	{"year to date", "ytd"},
	{"current week", "this week"},
	{"previous week", "last week"},
	{"week to date", "wtd"},
	{"next week", "this week"},
	{"next month", "this month"},
	{"next quarter", "this quarter"},
	{"next year", "this year"},
	{"tomorrow", "today"},
};

static const char *const month_names[] = {"january",   "february", "march",    "april",
										  "may",       "june",     "july",     "august",
										  "september", "october",  "november", "december"};

static DateADT make_day(int year, int month, int day);
static void policy_calendar(int *week_start, int *fiscal_year_start);
static void range_period(const char *word, pg_tz *zone, CsPeriod *period);
static bool calendar_period(const char *word, const char *given, DateADT *start, DateADT *end);
static void word_period(const PeriodWord *word, DateADT today, DateADT *start, DateADT *end);
static char *suggest(const char *word, int this_year, bool *ambiguous);
static void refuse_period(const char *given, const char *word, DateADT today);

PG_FUNCTION_INFO_V1(cs_period_sql);

/*
 * cs_period reads a period word as it stands at as_of, in the policy's zone.
 * A period that as_of lies in ends at as_of and is not complete; one that
 * begins after as_of is refused, as is everything that is not a period, with
 * SQLSTATE 22023 and the near match.  Call inside a frame.
 */
CsPeriod
cs_period(const char *given, TimestampTz as_of, const CsPolicy *policy)
{
	pg_tz *zone = cs_policy_zone(policy);
	DateADT today = cs_local_day(as_of, policy->time_zone);
	DateADT start = 0;
	DateADT end = 0;
	CsPeriod period;
	StringInfoData word;
	bool found = false;

	/* lower case, blanks collapsed: "Last  Month" is a period, too */
	initStringInfo(&word);
	for (const char *s = given; *s; s++)
	{
		if (!isspace((unsigned char) *s))
			appendStringInfoChar(&word, pg_ascii_tolower((unsigned char) *s));
		else if (word.len > 0 && word.data[word.len - 1] != ' ')
			appendStringInfoChar(&word, ' ');
	}
	if (word.len > 0 && word.data[word.len - 1] == ' ')
		word.data[--word.len] = '\0';

	if (word.data[0] == '[' || word.data[0] == '(')
	{
		range_period(given, zone, &period);
		found = true;
	}
	else
	{
		for (int i = 0; i < lengthof(period_words) && !found; i++)
		{
			if (strcmp(word.data, period_words[i].word) == 0)
			{
				word_period(&period_words[i], today, &start, &end);
				found = true;
			}
		}
		if (!found)
			found = calendar_period(word.data, given, &start, &end);
		if (!found)
			refuse_period(given, word.data, today);
		period.start = cs_clock_midnight(start, policy->time_zone);
		period.end = cs_clock_midnight(end, policy->time_zone);
	}

	if (period.start > as_of)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("period \"%s\" has not begun", given),
				 errdetail("It begins at %s, after %s.", pstrdup(timestamptz_to_str(period.start)),
						   pstrdup(timestamptz_to_str(as_of))),
				 errhint("Ask for a period that has begun; a running one is computed to as_of.")));

	period.complete = period.end <= as_of;
	if (!period.complete)
		period.end = as_of;
	return period;
}

/*
 * A word of period_words: the day, week, month, quarter or year of today, or
 * the one before.  Quarters and years are those of the calendar.
 */
static void
word_period(const PeriodWord *word, DateADT today, DateADT *start, DateADT *end)
{
	int year;
	int month;
	int day;

	j2date(today + POSTGRES_EPOCH_JDATE, &year, &month, &day);
	switch (word->unit)
	{
		case UNIT_DAY:
			*start = today - word->back;
			*end = *start + 1;
			break;
		case UNIT_WEEK:
		{
			int week_start;
			int fiscal_year_start;
			int weekday = j2day(today + POSTGRES_EPOCH_JDATE); /* 0 is Sunday */

			policy_calendar(&week_start, &fiscal_year_start);
			*start = today - (weekday - week_start % 7 + 7) % 7 - 7 * word->back;
			*end = *start + 7;
			break;
		}
		case UNIT_MONTH:
			*start = make_day(year, month - word->back, 1);
			*end = make_day(year, month - word->back + 1, 1);
			break;
		case UNIT_QUARTER:
			month = (month - 1) / 3 * 3 + 1 - 3 * word->back;
			*start = make_day(year, month, 1);
			*end = make_day(year, month + 3, 1);
			break;
		case UNIT_YEAR:
			*start = make_day(year - word->back, 1, 1);
			*end = make_day(year - word->back + 1, 1, 1);
			break;
	}
}

/*
 * '2026', '2026-10', '2026-q3', '2026-w41' and 'fy2026'; false when the word
 * has none of these shapes.  A number that no calendar has (month 13, week 53
 * of a year with 52) is refused here, where it is known what was meant.
 */
static bool
calendar_period(const char *word, const char *given, DateADT *start, DateADT *end)
{
	const char *s = word;
	bool fiscal = strncmp(word, "fy", 2) == 0;
	int year;
	int number;

	if (fiscal)
		s += 2;
	if (!cs_scan_digits(&s, 4, &year) || year == 0)
		return false;

	if (*s == '\0')
	{
		int week_start;
		int month = 1;

		if (fiscal)
			policy_calendar(&week_start, &month);
		*start = make_day(year, month, 1);
		*end = make_day(year + 1, month, 1);
		return true;
	}
	if (fiscal || *s++ != '-')
		return false;

	if (*s == 'q')
	{
		s++;
		if (!cs_scan_digits(&s, 1, &number) || *s != '\0')
			return false;
		if (number < 1 || number > 4)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("period \"%s\" names quarter %d", given, number),
							errhint("Quarters are \"%04d-Q1\" to \"%04d-Q4\".", year, year)));
		*start = make_day(year, 3 * number - 2, 1);
		*end = make_day(year, 3 * number + 1, 1);
		return true;
	}
	if (*s == 'w')
	{
		int weeks = date2isoweek(year, 12, 28); /* always in the last week of its year */
		int week_start;
		int fiscal_year_start;

		s++;
		if (!cs_scan_digits(&s, 2, &number) || *s != '\0')
			return false;
		if (number < 1 || number > weeks)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("period \"%s\" names week %d", given, number),
							errhint("The ISO weeks of %04d are \"%04d-W01\" to \"%04d-W%02d\".",
									year, year, year, weeks)));
		policy_calendar(&week_start, &fiscal_year_start);
		if (week_start != 1)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("period \"%s\" is an ISO week, but the policy's weeks do not start on "
							"Monday",
							given),
					 errdetail("policy.week_start is %d; ISO weeks start on day 1.", week_start),
					 errhint("Write 'this week', 'last week' or a range '[first day,day after the "
							 "last)'.")));
		*start = isoweek2j(year, number) - POSTGRES_EPOCH_JDATE;
		*end = *start + 7;
		return true;
	}
	if (!cs_scan_digits(&s, 2, &number) || *s != '\0')
		return false;
	if (number < 1 || number > 12)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("period \"%s\" names month %d", given, number),
						errhint("Months are \"%04d-01\" to \"%04d-12\".", year, year)));
	*start = make_day(year, number, 1);
	*end = make_day(year, number + 1, 1);
	return true;
}

/*
 * '[from,to)': both bounds as instants are written, in double quotes or not
 * (so that a tstzrange shown as text is a period).  Only this closed-open form
 * with both bounds is taken: every interval of the extension is half-open.
 */
static void
range_period(const char *given, pg_tz *zone, CsPeriod *period)
{
	char *text = pstrdup(given);
	char *bound[2];
	TimestampTz at[2];
	char *comma;
	int len;

	while (isspace((unsigned char) *text))
		text++;
	len = strlen(text);
	while (len > 0 && isspace((unsigned char) text[len - 1]))
		text[--len] = '\0';

	comma = strchr(text, ',');
	if (comma == NULL || strchr(comma + 1, ',') != NULL || text[0] != '[' || text[len - 1] != ')')
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("period \"%s\" is not a half-open range", given),
						errhint("Write '[from,to)' with the first instant that no longer counts as "
								"the end: October is '[2026-10-01,2026-11-01)'.")));
	text[len - 1] = '\0';
	*comma = '\0';
	bound[0] = text + 1;
	bound[1] = comma + 1;

	for (int i = 0; i < 2; i++)
	{
		char *s = bound[i];
		const char *why;
		int n;

		while (isspace((unsigned char) *s))
			s++;
		n = strlen(s);
		while (n > 0 && isspace((unsigned char) s[n - 1]))
			s[--n] = '\0';
		if (n >= 2 && s[0] == '"' && s[n - 1] == '"')
		{
			s[n - 1] = '\0';
			s++;
		}
		if (!cs_parse_instant(s, zone, &at[i], &why))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("period \"%s\" has an unusable %s", given, i == 0 ? "start" : "end"),
					 errdetail("\"%s\" %s.", s, why), errhint(CS_INSTANT_FORMS)));
	}
	if (at[0] >= at[1])
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						at[0] == at[1] ? errmsg("period \"%s\" is empty", given)
									   : errmsg("period \"%s\" is reversed", given),
						errhint("Write the earlier bound first: '[from,to)'.")));
	period->start = at[0];
	period->end = at[1];
}

/* What is not a period: says whether it could be two things, and what was probably meant. */
static void
refuse_period(const char *given, const char *word, DateADT today)
{
	int year;
	int month;
	int day;
	bool ambiguous = false;
	char *near;

	j2date(today + POSTGRES_EPOCH_JDATE, &year, &month, &day);
	near = suggest(word, year, &ambiguous);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 ambiguous ? errmsg("period \"%s\" is ambiguous", given)
					   : errmsg("\"%s\" is not a period", given),
			 near ? errhint("Did you mean \"%s\"? " PERIOD_FORMS, near) : errhint(PERIOD_FORMS)));
}

/*
 * The period that was probably meant, or NULL.  The word is cut into runs of
 * digits and of letters, and the sequence of runs compared with the slips
 * people make (10/2026, Q3 2026, Oct 2026, FY26).  *ambiguous: it names no
 * year, or can be read in two ways.
 */
static char *
suggest(const char *word, int this_year, bool *ambiguous)
{
	char shape[16];
	char run[12][16];
	int number[12];
	int n = 0;
	int month = 0;
	List *candidates = NIL;

	for (int i = 0; i < lengthof(period_slips); i++)
	{
		if (strcmp(word, period_slips[i].written) == 0)
		{
			*ambiguous = strstr(period_slips[i].meant, "\" or \"") != NULL;
			return pstrdup(period_slips[i].meant);
		}
	}

	/* shape: a digit d1..d8 by its length, q, w, f for those words, m for a month, x else */
	for (const char *s = word; *s && n < 12;)
	{
		int len = 0;
		bool digits = isdigit((unsigned char) *s);

		if (!isalnum((unsigned char) *s))
		{
			s++;
			continue;
		}
		while (isalnum((unsigned char) s[len]) &&
			   (isdigit((unsigned char) s[len]) != 0) == digits && len < 15)
			len++;
		memcpy(run[n], s, len);
		run[n][len] = '\0';
		number[n] = digits && len < 9 ? atoi(run[n]) : 0;
		if (digits)
			shape[n] = '0' + Min(len, 9);
		else if (strcmp(run[n], "q") == 0 || strcmp(run[n], "quarter") == 0)
			shape[n] = 'q';
		else if (strcmp(run[n], "w") == 0 || strcmp(run[n], "week") == 0)
			shape[n] = 'w';
		else if (strcmp(run[n], "fy") == 0)
			shape[n] = 'f';
		else
		{
			shape[n] = 'x';
			for (int i = 0; i < lengthof(month_names); i++)
			{
				if (len >= 3 && strncmp(run[n], month_names[i], len) == 0)
				{
					shape[n] = 'm';
					month = i + 1;
				}
			}
		}
		s += len;
		n++;
	}
	shape[n] = '\0';

#define SHAPE(s) (strcmp(shape, s) == 0)
#define IN(i, lo, hi) (number[i] >= (lo) && number[i] <= (hi))
	if ((SHAPE("41") || SHAPE("42")) && IN(1, 1, 12))
		return psprintf("%04d-%02d", number[0], number[1]);
	if ((SHAPE("14") || SHAPE("24")) && IN(0, 1, 12))
		return psprintf("%04d-%02d", number[1], number[0]);
	if (SHAPE("6") && number[0] % 100 >= 1 && number[0] % 100 <= 12)
		return psprintf("%04d-%02d", number[0] / 100, number[0] % 100);
	if (SHAPE("m4") || SHAPE("4m"))
		return psprintf("%04d-%02d", number[shape[0] == 'm'], month);
	if (SHAPE("4q1") && IN(2, 1, 4))
		return psprintf("%04d-Q%d", number[0], number[2]);
	if (SHAPE("q14") && IN(1, 1, 4))
		return psprintf("%04d-Q%d", number[2], number[1]);
	if ((SHAPE("4w1") || SHAPE("4w2")) && IN(2, 1, 53))
		return psprintf("%04d-W%02d", number[0], number[2]);
	if ((SHAPE("w14") || SHAPE("w24")) && IN(1, 1, 53))
		return psprintf("%04d-W%02d", number[2], number[1]);
	if (SHAPE("f2") || SHAPE("2f"))
		return psprintf("FY%04d", this_year / 100 * 100 + number[shape[0] == 'f']);
	if (SHAPE("f4") || SHAPE("4f"))
		return psprintf("FY%04d", number[shape[0] == 'f']);
	if (SHAPE("422") && IN(1, 1, 12) && IN(2, 1, 31))
	{
		int year;
		int next_month;
		int day;

		j2date(date2j(number[0], number[1], number[2]) + 1, &year, &next_month, &day);
		return psprintf("[%04d-%02d-%02d,%04d-%02d-%02d)", number[0], number[1], number[2], year,
						next_month, day);
	}
	if (SHAPE("422422") || SHAPE("422x422"))
	{
		int to = shape[3] == 'x' ? 4 : 3;

		return psprintf("[%04d-%02d-%02d,%04d-%02d-%02d)", number[0], number[1], number[2],
						number[to], number[to + 1], number[to + 2]);
	}

	/* no year */
	*ambiguous = true;
	if (SHAPE("q1") && IN(1, 1, 4))
		return psprintf("%04d-Q%d", this_year, number[1]);
	if ((SHAPE("w1") || SHAPE("w2")) && IN(1, 1, 53))
		return psprintf("%04d-W%02d", this_year, number[1]);
	if (SHAPE("m"))
		return psprintf("%04d-%02d", this_year, month);
	/* 01/02/2026, 26-10: which is which? */
	if (SHAPE("224") || SHAPE("114") || SHAPE("124") || SHAPE("214") || SHAPE("22") ||
		SHAPE("222") || SHAPE("m2"))
		return NULL;
	*ambiguous = false;
#undef SHAPE
#undef IN

	for (int i = 0; i < lengthof(period_words); i++)
		candidates = lappend(candidates, unconstify(char *, period_words[i].word));
	return cs_nearest(word, candidates);
}

/* Where weeks (1 is Monday, 7 Sunday) and fiscal years (month) start; call inside a frame. */
static void
policy_calendar(int *week_start, int *fiscal_year_start)
{
	bool isnull;

	*week_start = 1;
	*fiscal_year_start = 1;
	if (cs_exec("SELECT week_start, fiscal_year_start FROM cs.policy", CS_NO_ARGS) > 0)
	{
		*week_start = DatumGetInt32(cs_cell_datum(0, 1, &isnull));
		*fiscal_year_start = DatumGetInt32(cs_cell_datum(0, 2, &isnull));
	}
}

/* The day of a year and month, the month counted on below 1 and above 12. */
static DateADT
make_day(int year, int month, int day)
{
	int months = year * 12 + month - 1;

	return date2j(months / 12, months % 12 + 1, day) - POSTGRES_EPOCH_JDATE;
}

/*
 * cs_internal.period(word text, as_of timestamptz) -> (period_start,
 * period_end, complete).  as_of NULL is cs_internal.now().
 */
Datum
cs_period_sql(PG_FUNCTION_ARGS)
{
	CsFrame frame;
	CsPeriod period;
	TimestampTz as_of;
	TupleDesc desc;
	Datum values[3];
	bool nulls[3] = {false, false, false};

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("the period is NULL"),
						errhint(PERIOD_FORMS)));
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	BlessTupleDesc(desc);

	cs_enter(&frame);
	as_of = PG_ARGISNULL(1) ? cs_now() : PG_GETARG_TIMESTAMPTZ(1);
	if (TIMESTAMP_NOT_FINITE(as_of))
		cs_refuse_instant(as_of > 0 ? "infinity" : "-infinity", "is not finite");
	period = cs_period(text_to_cstring(PG_GETARG_TEXT_PP(0)), as_of, cs_policy(false));
	cs_leave(&frame);

	values[0] = TimestampTzGetDatum(period.start);
	values[1] = TimestampTzGetDatum(period.end);
	values[2] = BoolGetDatum(period.complete);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
