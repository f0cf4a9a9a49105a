/*
 * segment_define.c
 *		Dimensions and segments read from their definitions, in the order in which
 *		they are evaluated.
 *
 * In: cs.dimension, cs.segment.  Out: the entries of the stage of segments: one
 * for an exclusive dimension, one for each segment of an overlapping one.  The
 * order follows from the text of the definitions, so it is asked for only when
 * that changed.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "cs_ext.h"
#include "decide/segment.h"

/* What cs_internal.dimension_order() says, which follows from the text of the definitions alone. */
typedef struct Order
{
	char *text;
	int n;
	char **names;
	bool *late;
	int *levels;
} Order;

static Order *
dimension_order(const char *text)
{
	static Order *order = NULL;
	static MemoryContext memory = NULL;
	MemoryContext old;
	Order *fresh;

	if (order != NULL && strcmp(order->text, text) == 0)
		return order;
	cs_exec("SELECT o.dimension, o.late, o.level FROM cs_internal.dimension_order() o"
			" ORDER BY o.late, o.level, o.dimension",
			CS_NO_ARGS);
	order = NULL;
	if (memory == NULL)
		memory = AllocSetContextCreate(TopMemoryContext, "cs_ext dimensions", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(memory);
	old = MemoryContextSwitchTo(memory);
	fresh = palloc(sizeof(Order));
	fresh->text = pstrdup(text);
	fresh->n = (int) SPI_processed;
	fresh->names = palloc(sizeof(char *) * (fresh->n + 1));
	fresh->late = palloc(fresh->n + 1);
	fresh->levels = palloc(sizeof(int) * (fresh->n + 1));
	for (int i = 0; i < fresh->n; i++)
	{
		fresh->names[i] = MemoryContextStrdup(memory, cs_cell(i, 1));
		fresh->late[i] = *cs_cell(i, 2) == 't';
		fresh->levels[i] = atoi(cs_cell(i, 3));
	}
	MemoryContextSwitchTo(old);
	order = fresh;
	return order;
}

/*
 * cs_dimensions: see segment.h.
 */
CsDimensions *
cs_dimensions(void)
{
	CsDimensions *defs = palloc0(sizeof(CsDimensions));
	StringInfoData text;
	Order *order;
	CsDimension *all;
	int nall;
	char ***segments;
	int nsegments;
	bool *overlapping;

	initStringInfo(&text);
	nall = (int) cs_exec("SELECT d.name, d.attribute, d.fallback, d.exclusive, d.min_days"
						 " FROM cs.dimension d"
						 " WHERE d.enabled ORDER BY d.name COLLATE \"C\"",
						 CS_NO_ARGS);
	all = palloc0(sizeof(CsDimension) * (nall + 1));
	overlapping = palloc0(nall + 1);
	for (int i = 0; i < nall; i++)
	{
		all[i].name = cs_cell(i, 1);
		all[i].attribute = cs_cell(i, 2);
		all[i].fallback = cs_cell(i, 3);
		overlapping[i] = *cs_cell(i, 4) == 'f';
		all[i].min_days = atoi(cs_cell(i, 5));
		appendStringInfo(&text, "%s\n", all[i].name);
	}
	SPI_freetuptable(SPI_tuptable);
	nsegments = (int) cs_exec("SELECT s.dimension, s.name, s.rule, s.search_path FROM cs.segment s"
							  " ORDER BY s.dimension COLLATE \"C\", s.priority,"
							  "  s.name COLLATE \"C\"",
							  CS_NO_ARGS);
	segments = palloc(sizeof(char **) * (nsegments + 1));
	for (int i = 0; i < nsegments; i++)
	{
		segments[i] = palloc(sizeof(char *) * 4);
		for (int c = 0; c < 4; c++)
			segments[i][c] = cs_cell(i, c + 1);
		appendStringInfo(&text, "%s: %s\n", segments[i][0], segments[i][2]);
	}
	SPI_freetuptable(SPI_tuptable);

	order = dimension_order(text.data);
	defs->dimensions = palloc0(sizeof(CsDimension) * (order->n + nall + nsegments + 1));
	defs->rules = palloc0(sizeof(CsRule) * (nsegments + 1));
	defs->names = palloc(sizeof(char *) * (nsegments + 1));
	for (int o = 0, r = 0; o < order->n; o++)
	{
		CsDimension *dimension = NULL;
		CsDimension template = {0};
		bool parts = false;

		for (int i = 0; i < nall; i++)
			if (strcmp(all[i].name, order->names[o]) == 0)
			{
				template = all[i];
				parts = overlapping[i];
			}
		template.level = order->levels[o];
		template.late = order->late[o];
		if (!parts)
		{
			dimension = &defs->dimensions[defs->ndimensions++];
			*dimension = template;
			dimension->first = r;
		}
		for (int i = 0; i < nsegments; i++)
		{
			if (strcmp(segments[i][0], template.name) != 0)
				continue;
			if (parts)
			{
				dimension = &defs->dimensions[defs->ndimensions++];
				*dimension = template;
				dimension->first = r;
				dimension->part = segments[i][1];
			}
			defs->names[r] = segments[i][1];
			defs->rules[r].table_name = "segment";
			defs->rules[r].key = psprintf("%s/%s", template.name, segments[i][1]);
			defs->rules[r].expression = segments[i][2];
			defs->rules[r].search_path = segments[i][3];
			defs->rules[r].type = BOOLOID;
			dimension->count++;
			r++;
		}
		if (parts && template.fallback != NULL)
		{
			dimension = &defs->dimensions[defs->ndimensions++];
			*dimension = template;
			dimension->first = r;
			dimension->part = template.fallback;
			dimension->is_spare = true;
		}
	}
	return defs;
}
