-- seed.sql: seeds random() and prints with what; psql -v seed=N repeats a run.
\if :{?seed}
\else
SELECT floor(random() * 1000000)::integer AS seed \gset
\endif
\echo # seed :seed
SELECT setseed(:seed / 1000000.0) IS NULL AS seeded \gset
