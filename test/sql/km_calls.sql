-- km and logrank: forms of calls, what is refused, what is left out.
\set SHOW_CONTEXT never
SET client_min_messages = warning;

-- integers and numerics will do; NULL rows are left out
SELECT * FROM cs.km_curve((SELECT cs.km(d, e) FROM (VALUES (1, true), (2, false), (2, true), (NULL, true), (3, NULL)) v (d, e)));
SELECT cs.km(d, e) FROM (VALUES (1.5, true), (0, false)) v (d, e);
SELECT cs.km(d, e, 1) FROM (VALUES (2, true), (3, false)) v (d, e);
SELECT cs.median(k), cs.survival_at(k, 2), cs.restricted_mean(k), cs.restricted_mean(k, until => 1.5) FROM (SELECT cs.km(d, true) AS k FROM generate_series(1, 4) d) x;
-- a curve that reaches zero is known for ever; one that does not is not
SELECT cs.survival_at(k, 99), cs.restricted_mean(k, 99) FROM (SELECT cs.km(d, true) AS k FROM generate_series(1, 4) d) x;
SELECT cs.median(k), cs.survival_at(k, 99), cs.restricted_mean(k, 99) FROM (SELECT cs.km(d, d < 2) AS k FROM generate_series(1, 4) d) x;
-- a single event on a single customer; a first event at time 0
SELECT * FROM cs.km_curve((SELECT cs.km(0, true)));
SELECT time, at_risk, survival FROM cs.km_curve((SELECT cs.km(d, true) FROM (VALUES (0), (1)) v (d)));
-- over groups, windows, and nothing
SELECT g, (k).n, cs.median(k) FROM (SELECT d % 3 AS g, cs.km(d, true) AS k FROM generate_series(1, 9) d GROUP BY 1) x ORDER BY g;
SELECT d, cs.median(cs.km(d, true) OVER (ORDER BY d)) FROM generate_series(1, 4) d;
SELECT cs.km(1, true) FILTER (WHERE false) AS km, cs.logrank(1, true, 'a') FILTER (WHERE false) AS logrank;
SELECT cs.median(NULL), cs.restricted_mean(NULL), cs.restricted_mean(NULL, 3), cs.survival_at(NULL, 3), (SELECT count(*) FROM cs.km_curve(NULL)) AS rows;

-- refused
SELECT cs.km(-1, true);
SELECT cs.km('NaN', false);
SELECT cs.km('Infinity', false);
SELECT cs.km(3, true, 3);
SELECT cs.km(3, true, -1);
SELECT cs.km(3, true, 'NaN');
SELECT cs.logrank(-1, true, 'a');
SELECT cs.logrank(1, true, g::text) FROM generate_series(1, 101) g;
SELECT * FROM cs.km_curve((SELECT cs.km(1, true)), 1);
SELECT cs.survival_at((SELECT cs.km(1, true)), -1);
SELECT cs.restricted_mean((SELECT cs.km(1, true)), 'NaN');

-- a row that km cannot have returned
SELECT cs.median(ROW(1, 0, '{1}', '{1}', '{2}', '{0}')::cs.km_estimate);
SELECT cs.median(ROW(1, 0, '{1,2}', '{1}', '{1}', '{0}')::cs.km_estimate);
SELECT cs.median(ROW(2, 0, '{2,1}', '{2,1}', '{1,1}', '{0,0}')::cs.km_estimate);
SELECT cs.median(ROW(1, 0, '{NaN}', '{1}', '{1}', '{0}')::cs.km_estimate);
SELECT cs.median(ROW(1, 0, '{1}', '{0}', '{0}', '{0}')::cs.km_estimate);
SELECT cs.median(ROW(1, 0, '{NULL}', '{1}', '{1}', '{0}')::cs.km_estimate);
SELECT cs.median(ROW(1, 0, '{{1}}', '{1}', '{1}', '{0}')::cs.km_estimate);
SELECT cs.median(ROW(NULL, 0, '{1}', '{1}', '{1}', '{0}')::cs.km_estimate);
SELECT cs.median(ROW(1, 2, '{1}', '{1}', '{1}', '{0}')::cs.km_estimate);
SELECT * FROM cs.km_curve(ROW(NULL, NULL, NULL, NULL, NULL, NULL)::cs.km_estimate);

-- log-rank: one group, no events, a group that was never at risk at an event, all at once
SELECT (cs.logrank(d, true, 'a')).* FROM generate_series(1, 3) d;
SELECT (cs.logrank(d, false, (d % 2)::text)).* FROM generate_series(1, 4) d;
SELECT chi_square > 0 AS positive, degrees_of_freedom, p_value BETWEEN 0 AND 1 AS share, groups, n, observed
FROM (SELECT (cs.logrank(d, e, g)).* FROM (VALUES (1, false, 'early'), (2, true, 'b'), (3, true, 'a'), (4, true, 'b'), (5, false, 'a')) v (d, e, g)) x;
SELECT (cs.logrank(1, true, g)).* FROM unnest('{b,a}'::text[]) g;
SELECT (cs.logrank(d, true, g)).* FROM (VALUES (1, 'a'), (2, NULL), (NULL, 'a')) v (d, g);
-- alike groups do not differ
SELECT round(chi_square::numeric, 12) AS chi_square, round(p_value::numeric, 6) AS p_value FROM (SELECT (cs.logrank(d, d % 3 > 0, g)).* FROM generate_series(1, 9) d, unnest('{a,b,c}'::text[]) g) x;
