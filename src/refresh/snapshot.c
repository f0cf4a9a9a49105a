/*
 * snapshot.c
 *		Health and metrics of every customer as of a local midnight, kept as they
 *		are known now.
 *
 * Each batch is evaluated at that instant without leaving a trace (cs_what_if)
 * and what came out is appended to history.  A row that is there already is
 * never rewritten, so running twice, or after a crash, adds what is missing.
 */
#include "cs_ext.h"

#include "miscadmin.h"

#include "insight/scorecard.h"
#include "refresh/refresh.h"

PG_FUNCTION_INFO_V1(cs_take_snapshot_sql);

/*
 * cs_take_snapshot_sql(as_of): number of customers whose snapshot was added.
 */
Datum
cs_take_snapshot_sql(PG_FUNCTION_ARGS)
{
	TimestampTz as_of = PG_GETARG_TIMESTAMPTZ(0);
	char *after = "";
	int64 added = 0;
	CsFrame frame;

	cs_enter(&frame);
	if (cs_local_day(as_of, cs_policy(false)->time_zone) ==
		cs_local_day(cs_now(), cs_policy(false)->time_zone))
		(void) cs_references_fix(cs_local_day(as_of, cs_policy(false)->time_zone), false);
	for (;;)
	{
		CsFrame batch_frame;
		CsResult *rows;
		Datum ids;
		int n;

		CHECK_FOR_INTERRUPTS();
		ids = cs_ids_from_query(
			"SELECT s.customer_id FROM cs_internal.state s WHERE s.customer_id > $1 AND NOT EXISTS"
			" (SELECT 1 FROM cs_internal.metric_history h WHERE h.customer_id = s.customer_id AND "
			"h.as_of = $2)"
			" ORDER BY s.customer_id LIMIT $3",
			CS_ARGS(cs_text(after), cs_tstz(as_of), cs_int4(cs_refresh_batch)), &n);
		if (n == 0)
			break;
		cs_exec("SELECT ($1)[$2]", CS_ARGS(cs_textarray(ids), cs_int4(n)));
		after = cs_value();

		/* A frame a batch gives its memory back. */
		cs_enter(&batch_frame);
		rows = cs_what_if(
			ids, n, as_of,
			"SELECT customer_id, \"values\", segments, score, coverage, scorecard, health_inputs"
			" FROM evaluated");
		cs_register("snapshot", rows);
		cs_exec("INSERT INTO cs_internal.metric_history (customer_id, as_of, \"values\", segments, "
				"health_inputs, computed_at)"
				" SELECT customer_id, $1, \"values\", segments, health_inputs, clock_timestamp() "
				"FROM snapshot"
				" WHERE \"values\" IS NOT NULL ON CONFLICT DO NOTHING",
				CS_ARGS(cs_tstz(as_of)));
		cs_exec(
			"INSERT INTO cs_internal.health_history"
			" (customer_id, as_of, score, band, coverage, scorecard, version, basis, computed_at)"
			" SELECT n.customer_id, $1, w.score, w.band, "
			"n.coverage, n.scorecard,"
			" cs_internal.scorecard_version(n.scorecard), 'stored', clock_timestamp()"
			" FROM snapshot n"
			" LEFT JOIN LATERAL (SELECT h.band FROM cs_internal.health_history h"
			"  WHERE h.customer_id = n.customer_id AND h.as_of < $1 AND h.basis = 'stored'"
			"  ORDER BY h.as_of DESC LIMIT 1) p ON true"
			" CROSS JOIN LATERAL cs_internal.shown_health(n.customer_id, $1, n.scorecard, n.score,"
			"  p.band) w"
			" ON CONFLICT DO NOTHING",
			CS_ARGS(cs_tstz(as_of)));
		added += SPI_processed;
		cs_leave(&batch_frame);
	}
	cs_leave(&frame);
	PG_RETURN_INT64(added);
}
