
-- ---------------------------------------------------------------------------
-- watermark: capture of tables that only grow, without a trigger.
-- ---------------------------------------------------------------------------

-- PostgreSQL has no BRIN operator class for xid8. Not the default one: an index
-- that names it is ours.
CREATE OPERATOR CLASS cs.xid8_minmax_ops FOR TYPE xid8 USING brin AS
	OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
	FUNCTION 1 brin_minmax_opcinfo(internal),
	FUNCTION 2 brin_minmax_add_value(internal, internal, internal, internal),
	FUNCTION 3 brin_minmax_consistent(internal, internal, internal),
	FUNCTION 4 brin_minmax_union(internal, internal, internal);
COMMENT ON OPERATOR CLASS cs.xid8_minmax_ops USING brin IS
'Least and greatest transaction id of a range of pages, for the index of a watermark column.';

-- No gate: the table is altered with the caller's rights.
CREATE FUNCTION cs.add_watermark(relation regclass) RETURNS text
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'cs_add_watermark';
COMMENT ON FUNCTION cs.add_watermark(regclass) IS
'Gives a table that only grows a column with the transaction that wrote each row, and a BRIN index on it; returns the column''s name. Sources of the table with capture auto are then captured by it instead of by triggers: writers pay next to nothing, updates and deletes are not noticed. Once more after a restore it makes the column anew. Needs ownership of the table; ACCESS EXCLUSIVE while the table is read once.';
