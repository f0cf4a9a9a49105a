# What capture costs the writer: COPY and single-row inserts into a table captured
# by trigger and by watermark, against the same table without; also partitioned.
# Taken in turns, the best of each; the tables are emptied between.
rows=$(sized 2000000)
seconds=$(if [ -n "$BENCH_QUICK" ]; then echo 1; else echo 6; fi)
turns=$(if [ -n "$BENCH_QUICK" ]; then echo 1; else echo 5; fi)

database
sql >/dev/null <<'SQL'
SELECT cs.setup(time_zone => 'UTC', currency => 'EUR', template => NULL);
CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO cs_ext_run;
CREATE FUNCTION app.make(way text, partitioned boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE t text := way || CASE WHEN partitioned THEN '_parts' ELSE '' END;
BEGIN
	EXECUTE format('CREATE TABLE app.%I (customer_id integer NOT NULL, at timestamptz NOT NULL, user_id integer, event text)', t)
		|| CASE WHEN partitioned THEN ' PARTITION BY RANGE (at)' ELSE '' END;
	IF partitioned THEN
		FOR m IN 0 .. 11 LOOP
			EXECUTE format('CREATE TABLE app.%I PARTITION OF app.%I FOR VALUES FROM (%L) TO (%L)', t || m, t, '2025-01-01 00:00Z'::timestamptz + m * interval '1 month', '2025-01-01 00:00Z'::timestamptz + (m + 1) * interval '1 month');
		END LOOP;
	END IF;
	EXECUTE format('CREATE INDEX ON app.%I (customer_id)', t);
	EXECUTE format('CREATE INDEX ON app.%I (at)', t);
	IF way = 'watermark' THEN PERFORM cs.add_watermark(format('app.%I', t)::regclass); END IF;
	IF way <> 'none' THEN
		PERFORM cs.add_source(t, 'usage_event', format('app.%I', t)::regclass, '{"customer_id": "customer_id", "at": "at", "user_id": "user_id", "event": "event"}');
	END IF;
END $$;
SELECT app.make(w, p) FROM unnest('{none,trigger,watermark}'::text[]) w, unnest('{f,t}'::boolean[]) p;
SELECT 1 / (count(*) = 4)::int FROM cs.source_status WHERE source ~ ('^' || capture);
SQL
sql -c "COPY (SELECT 1 + (g * 7919::bigint) % 20000, timestamptz '2025-01-01 00:00Z' + ((g * 104729::bigint) % 31000000) * interval '1 second', g % 100000, 'event' || g % 20 FROM generate_series(1, $rows) g) TO '$BENCH_WORK/tmp/events.copy'"

# copied TABLE: milliseconds of one COPY into it, empty.
copied() { took "TRUNCATE app.$1" "CHECKPOINT" "COPY app.$1 (customer_id, at, user_id, event) FROM '$BENCH_WORK/tmp/events.copy'"; }

# inserted TABLE: single-row transactions a second, of one client; without waiting for the disk, which would hide the cost.
inserted() {
	sql -c "TRUNCATE app.$1" -c 'CHECKPOINT'
	printf '\\set c random(1, 20000)\n\\set s random(1, 31000000)\nINSERT INTO app.%s (customer_id, at, user_id, event) VALUES (:c, timestamptz '"'2025-01-01 00:00Z'"' + :s * interval '"'1 second'"', :c, '"'event'"');\n' "$1" >"$BENCH_WORK/tmp/insert.sql"
	PGOPTIONS="$PGOPTIONS -c synchronous_commit=off" "$PGBIN/pgbench" -n -M prepared -c 1 -T "$seconds" -f "$BENCH_WORK/tmp/insert.sql" 2>/dev/null | sed -n 's/^tps = \([0-9.]*\) .*/\1/p'
}

# compare HOW ORDER: best of turns, the three ways one after the other in each turn; fills best_none, best_trigger, best_watermark.
compare() {
	local how=$1 order=$2 suffix=$3 way i n
	for way in none trigger watermark; do : >"$BENCH_WORK/tmp/$way.list"; done
	for ((i = 0; i < turns; i++)); do
		for way in none trigger watermark; do "$how" "$way$suffix" >>"$BENCH_WORK/tmp/$way.list"; done
	done
	for way in none trigger watermark; do
		n=$(sort "$order" "$BENCH_WORK/tmp/$way.list" | head -1)
		[ -n "$n" ] || die "$how $way$suffix gave no number"
		printf -v "best_$way" '%s' "$n"
	done
}

for suffix in '' _parts; do
	what=$([ -n "$suffix" ] && echo ', 12 partitions' || echo '')
	compare copied -g "$suffix"
	slower "COPY of $rows rows, capture by trigger / none$what" "$best_trigger" "$best_none" "<= 1.40 x"
	slower "COPY of $rows rows, capture by watermark / none$what" "$best_watermark" "$best_none" "<= 1.10 x"
	compare inserted -gr "$suffix"
	row "single-row inserts a second, capture by trigger / none$what" "$best_trigger" "$best_none" "$(ratio "$best_trigger" "$best_none") x" ">= 0.75 x"
	row "single-row inserts a second, capture by watermark / none$what" "$best_watermark" "$best_none" "$(ratio "$best_watermark" "$best_none") x" ">= 0.90 x"
done
