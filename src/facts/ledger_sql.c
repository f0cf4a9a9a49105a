/*
 * ledger_sql.c
 *		The sweep from SQL: rows in as arguments, movements out.
 *
 * No table is read and none is written: for tests, and for trying out what a
 * set of subscriptions would mean.
 */
#include "cs_ext.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/typcache.h"

#include "facts/ledger_sweep.h"

PG_FUNCTION_INFO_V1(cs_ledger_sweep_sql);

/*
 * cs_internal.ledger_sweep(facts, cancellations, free_is_active,
 * max_pause_days, gap_days_money, reactivation_days, recognition): the movements of one customer with these rows, from no
 * table.  What cannot be used is an error here: the rows are arguments.
 */
Datum
cs_ledger_sweep_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CsSweepRules rules;
	CsTerm *terms = NULL;
	CsCancellation *cancellations = NULL;
	CsMember member = {0};
	int nterms = 0;
	int ncancellations = 0;

	InitMaterializedSRF(fcinfo, 0);
	rules.free_is_active = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	rules.max_pause_days = PG_ARGISNULL(3) ? -1 : PG_GETARG_INT32(3);
	rules.gap_days = PG_ARGISNULL(4) ? 0 : PG_GETARG_INT32(4);
	rules.reactivation_days = PG_ARGISNULL(5) ? -1 : PG_GETARG_INT32(5);
	rules.recognition =
		PG_ARGISNULL(6) ? CS_AT_SERVICE_END : cs_recognition(text_to_cstring(PG_GETARG_TEXT_PP(6)));
	rules.shares = false;

	for (int arg = 0; arg < 2; arg++)
	{
		ArrayType *array;
		TupleDesc desc;
		Datum *rows;
		bool *missing;
		int nrows;

		if (PG_ARGISNULL(arg))
			continue;
		array = PG_GETARG_ARRAYTYPE_P(arg);
		deconstruct_array(array, ARR_ELEMTYPE(array), -1, false, TYPALIGN_DOUBLE, &rows, &missing,
						  &nrows);
		desc = lookup_rowtype_tupdesc(ARR_ELEMTYPE(array), -1);
		if (arg == 0)
			terms = palloc(sizeof(CsTerm) * (nrows + 1));
		else
			cancellations = palloc(sizeof(CsCancellation) * (nrows + 1));
		for (int i = 0; i < nrows; i++)
		{
			HeapTupleData tuple = {0};
			Datum values[FACT_NCOLUMNS];
			bool nulls[FACT_NCOLUMNS];

			if (desc->natts > FACT_NCOLUMNS)
				elog(ERROR, "type %u has too many columns", ARR_ELEMTYPE(array));
			if (missing[i])
				continue;
			tuple.t_data = DatumGetHeapTupleHeader(rows[i]);
			tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
			heap_deform_tuple(&tuple, desc, values, nulls);
			if (arg == 1)
			{
				if (cs_cancellation_make(values, nulls, &cancellations[ncancellations]))
					ncancellations++;
				continue;
			}
			switch (cs_term_make(values, nulls, NULL, &terms[nterms]))
			{
				case CS_TERM_OK:
					nterms++;
					break;
				case CS_TERM_NOTHING:
					break;
				default:
					ereport(
						ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("subscription row %d cannot be used", i + 1),
						 errdetail("It needs a finite start_at, an end_at not before it, a known "
								   "status and an mrr.")));
			}
		}
		ReleaseTupleDesc(desc);
	}

	member.terms = terms;
	member.nterms = nterms;
	member.cancellations = cancellations;
	member.ncancellations = ncancellations;
	cs_sweep(&member, 1, NULL, 0, &rules);
	for (int i = 0; i < member.nmovements; i++)
	{
		Datum values[MOVEMENT_COLUMNS];
		bool nulls[MOVEMENT_COLUMNS];

		cs_movement_values(&member.movements[i], values, nulls);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
