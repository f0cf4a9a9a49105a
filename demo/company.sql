-- company.sql: two years of a made-up company, in ordinary tables of its own.
--
-- Shiftwell sells staff scheduling to other companies. Nothing here knows of
-- cs_ext: schema "company" is what such a company has anyway. connect.sql then
-- points cs_ext at it.
--
-- The same variables give the same rows, on every machine: each draw is a hash
-- of what it is for, no clock and no random() is used.
--
--   psql -v customers=300     how many customers
--        -v until=2026-10-31  the day the data ends (its morning is "now")
--        -v signal=1          1: usage, tickets, surveys and payment decline before
--                             a customer leaves; 0: they decline at random, so
--                             nothing foretells churn
--        -v leaving=1         how many times as often customers leave; for tests
--                             that need many churns of few customers
\if :{?customers} \else \set customers 300 \endif
\if :{?until} \else \set until '2026-10-31' \endif
\if :{?signal} \else \set signal 1 \endif
\if :{?leaving} \else \set leaving 1 \endif

\set ON_ERROR_STOP on
SET client_min_messages = warning;
SET TimeZone = 'Europe/Berlin';
SET jit = off;

BEGIN;
CREATE SCHEMA company;
COMMENT ON SCHEMA company IS 'Shiftwell, a made-up company: two years of facts, in the shape a company has them.';
SET LOCAL search_path = company;

-- ---- what the company keeps -------------------------------------------------

CREATE TABLE customer (
	id integer PRIMARY KEY,
	name text NOT NULL UNIQUE,
	account_manager text NOT NULL,
	country text NOT NULL,
	industry text NOT NULL,
	channel text NOT NULL,
	employees integer NOT NULL,
	created_at timestamptz NOT NULL
);
CREATE TABLE app_user (
	id integer PRIMARY KEY,
	customer_id integer NOT NULL REFERENCES customer,
	email text NOT NULL,
	role text NOT NULL,
	created_at timestamptz NOT NULL,
	removed_at timestamptz
);
-- One row per agreed term or change; a renewal is a row that starts where the last one ends.
CREATE TABLE contract (
	id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	customer_id integer NOT NULL REFERENCES customer,
	plan text NOT NULL,
	seats integer NOT NULL,
	amount numeric(12,2) NOT NULL,
	billing text NOT NULL,                  -- month, year: what amount is for
	term_months integer NOT NULL,
	signed_on date NOT NULL,
	starts_on date NOT NULL,
	ended_on date,                          -- first day without the contract
	renews_on date,
	status text NOT NULL,
	cancel_requested_on date,
	cancel_reason text,
	auto_renew boolean NOT NULL
);
CREATE TABLE usage_log (
	customer_id integer NOT NULL,
	user_id integer NOT NULL,
	at timestamptz NOT NULL,
	event text NOT NULL,
	uses integer NOT NULL
);
CREATE TABLE ticket (
	id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	customer_id integer NOT NULL REFERENCES customer,
	subject text NOT NULL,
	severity text NOT NULL,
	escalated boolean NOT NULL,
	opened_at timestamptz NOT NULL,
	first_reply_at timestamptz,
	resolved_at timestamptz,
	csat integer
);
CREATE TABLE survey (
	id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	user_id integer NOT NULL REFERENCES app_user,
	kind text NOT NULL,
	score integer NOT NULL,
	answered_at timestamptz NOT NULL
);
CREATE TABLE invoice (
	id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	customer_id integer NOT NULL REFERENCES customer,
	amount numeric(12,2) NOT NULL,
	issued_on date NOT NULL,
	due_on date NOT NULL,
	paid_at timestamptz
);
CREATE TABLE touchpoint (
	id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	customer_id integer NOT NULL REFERENCES customer,
	at timestamptz NOT NULL,
	channel text NOT NULL,
	department text NOT NULL,
	author text NOT NULL,
	note text
);
CREATE TABLE onboarding_step (
	customer_id integer NOT NULL REFERENCES customer,
	step text NOT NULL,
	weight numeric NOT NULL,
	starts_at timestamptz NOT NULL,
	due_at timestamptz NOT NULL,
	completed_at timestamptz,
	PRIMARY KEY (customer_id, step)
);

-- ---- chance -------------------------------------------------------------------

-- A number in [0, 1) that belongs to (a, b, c).
CREATE FUNCTION chance(a bigint, b bigint, c integer) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (hashint8extended(a, hashint8extended(b, c)) & 4503599627370495) / 4503599627370496.0::float8;

-- One of the words.
CREATE FUNCTION pick(words text[], r float8) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN words[1 + floor(r * array_length(words, 1))::integer];

CREATE TEMP TABLE setting AS
SELECT :'until'::date AS until, :'until'::date - 730 AS since, :customers AS customers, :signal <> 0 AS signal, :leaving::float8 AS leaving;

-- ---- customers ------------------------------------------------------------------

INSERT INTO customer
SELECT n,
	stem || ' ' || kind || CASE WHEN n > 720 THEN ' ' || n / 720 + 1 ELSE '' END,
	pick('{Amira Haddad,Jonas Lindqvist,Clara Boateng,Mateo Rossi,Ines Carvalho,Tom Becker}', chance(n, 0, 1)),
	pick('{DE,DE,DE,AT,CH,NL,FR,PL,DK,SE,IT,ES}', chance(n, 0, 2)),
	pick('{care,logistics,retail,hospitality,manufacturing,security,facility,health}', chance(n, 0, 3)),
	pick('{partner,inbound,inbound,outbound,event,referral}', chance(n, 0, 4)),
	(10 + 40 / (0.02 + chance(n, 0, 5)))::integer,
	CASE WHEN chance(n, 0, 6) < 0.58 THEN since - 20 - floor(chance(n, 0, 7) * 540)::integer
		ELSE since + floor(chance(n, 0, 7) * 705)::integer END + interval '10 hours'
FROM setting, generate_series(1, customers) n,
	LATERAL (SELECT
		('{Aldergate,Birkholm,Castellan,Dunmore,Eberhardt,Falkirk,Grünwald,Halvorsen,Ilmenau,Juniper,Kestrel,Lindenau,Marbach,Norrland,Oakhaven,Pellworm,Quarry,Rosenthal,Solway,Tannhof,Ulmen,Vesterbro,Waldheim,Ysel,Zandvoort,Arnsberg,Bellavista,Cordoba,Drava,Elsinore,Fairholme,Glarus,Hartmann,Isola,Jutland,Kaltenbach,Lorient,Mosel,Nordhavn,Odense,Pilsen,Ravensburg,Stavanger,Tarvisio,Usedom,Valmont,Wexford,Zillertal,Ambrosia,Brenner,Calder,Donau,Enzian,Fjord,Gotland,Havel,Inntal,Jasmund,Kiruna,Lagan}'::text[])[1 + n % 60] AS stem,
		('{Logistics,Care Homes,Hotels,Foods,Clinics,Retail,Facilities,Security,Freight,Bakeries,Components,Services}'::text[])[1 + (n / 60 + 7 * (n % 60)) % 12] AS kind) names;

-- ---- contracts -------------------------------------------------------------------

-- When a customer's engagement falls: linearly from 1 at onset to low at full_at, until it is over.
CREATE TEMP TABLE decline (customer_id integer, onset date, full_at date, until date, low float8);

DO $$
DECLARE
	s record;
	c record;
	plan text; seats integer; price numeric; term integer; billing text;
	term_start date; term_end date; change_on date; new_seats integer;
	leaves boolean; reason text; asked date; step integer; lives integer; r float8; hazard float8;
	horizon date;
BEGIN
	SELECT * INTO s FROM setting;
	horizon := s.until + 240;
	FOR c IN SELECT id, created_at::date AS born FROM company.customer ORDER BY id LOOP
		r := company.chance(c.id, 0, 10);
		plan := CASE WHEN r < 0.44 THEN 'Starter' WHEN r < 0.82 THEN 'Business' ELSE 'Enterprise' END;
		r := company.chance(c.id, 0, 11);
		seats := CASE plan WHEN 'Starter' THEN 2 + floor(r * 4) WHEN 'Business' THEN 5 + floor(r * 11) ELSE 16 + floor(r * r * 40) END;
		r := company.chance(c.id, 0, 12);
		term := CASE plan WHEN 'Starter' THEN CASE WHEN r < 0.7 THEN 1 ELSE 12 END
			WHEN 'Business' THEN CASE WHEN r < 0.25 THEN 1 ELSE 12 END
			ELSE CASE WHEN r < 0.7 THEN 12 ELSE 24 END END;
		term_start := c.born + 1;
		step := 0;
		lives := 1;
		IF plan = 'Starter' AND company.chance(c.id, 0, 13) < 0.5 THEN
			INSERT INTO company.contract (customer_id, plan, seats, amount, billing, term_months, signed_on, starts_on, ended_on, status, auto_renew)
			VALUES (c.id, plan, seats, 0, 'month', 1, term_start, term_start, term_start + 14, 'trialing', false);
			term_start := term_start + 14;
		END IF;

		<<terms>>
		WHILE term_start < horizon LOOP
			step := step + 1;
			billing := CASE WHEN term = 1 THEN 'month' ELSE 'year' END;
			price := CASE plan WHEN 'Starter' THEN 59 WHEN 'Business' THEN 99 ELSE 149 END
				* CASE WHEN term = 1 THEN 1 ELSE 0.9 END
				* (1 + 0.03 * floor((term_start - (s.since - 560)) / 365.0));
			term_end := (term_start + make_interval(months => term))::date;

			-- does the customer leave at the end of this term, and why
			hazard := CASE WHEN term = 1 THEN CASE plan WHEN 'Starter' THEN 0.032 ELSE 0.024 END
				ELSE CASE plan WHEN 'Starter' THEN 0.28 WHEN 'Business' THEN 0.2 ELSE 0.14 END END;
			leaves := company.chance(c.id, step, 20) < hazard * s.leaving;
			reason := NULL;
			asked := NULL;
			IF leaves THEN
				r := company.chance(c.id, step, 21);
				reason := CASE WHEN r < 0.26 THEN 'low adoption' WHEN r < 0.46 THEN 'price' WHEN r < 0.62 THEN 'missing feature'
					WHEN r < 0.76 THEN 'competitor' WHEN r < 0.86 THEN 'poor support' WHEN r < 0.93 THEN 'business closed' ELSE 'acquired' END;
				asked := term_end - CASE WHEN term = 1 THEN 1 + floor(company.chance(c.id, step, 22) * 25)::integer
					ELSE 12 + floor(company.chance(c.id, step, 22) * 50)::integer END;
				-- whoever closes shop or is bought leaves without a sign
				IF s.signal AND reason NOT IN ('business closed', 'acquired') THEN
					INSERT INTO decline VALUES (c.id, term_end - 80 - floor(company.chance(c.id, step, 23) * 100)::integer,
						term_end - 25 - floor(company.chance(c.id, step, 24) * 30)::integer, 'infinity',
						0.02 + 0.2 * company.chance(c.id, step, 25));
				END IF;
			END IF;

			-- more or fewer seats in the middle of a long term
			change_on := NULL;
			IF term > 1 AND company.chance(c.id, step, 30) < 0.22 * term / 12 THEN
				change_on := (term_start + make_interval(months => 2 + floor(company.chance(c.id, step, 31) * (term - 3))::integer))::date;
				new_seats := seats + greatest(1, round(seats * (0.1 + 0.3 * company.chance(c.id, step, 32))));
			END IF;

			INSERT INTO company.contract (customer_id, plan, seats, amount, billing, term_months, signed_on, starts_on, ended_on,
				renews_on, status, cancel_requested_on, cancel_reason, auto_renew)
			SELECT c.id, plan, p.seats, round(p.seats * price * CASE WHEN term = 1 THEN 1 ELSE 12 END, 2), billing, term, p.signed_on, p.starts_on, p.ended_on,
				term_end, CASE WHEN term = 1 AND step > 3 AND NOT leaves AND company.chance(c.id, step, 33) < 0.008 THEN 'paused' ELSE 'active' END,
				CASE WHEN p.ended_on = term_end THEN asked END, CASE WHEN p.ended_on = term_end THEN reason END, asked IS NULL
			FROM (
				SELECT seats, term_start - CASE WHEN step = 1 OR term = 1 THEN 0 ELSE floor(company.chance(c.id, step, 34) * 35)::integer END,
					term_start, coalesce(change_on, term_end)
				UNION ALL
				SELECT new_seats, change_on, change_on, term_end WHERE change_on IS NOT NULL
			) p(seats, signed_on, starts_on, ended_on);
			IF change_on IS NOT NULL THEN
				seats := new_seats;
			END IF;

			IF leaves THEN
				-- some come back after a while
				EXIT terms WHEN lives = 2 OR company.chance(c.id, step, 40) > 0.1;
				lives := 2;
				step := step + 1000;
				term_start := term_end + 45 + floor(company.chance(c.id, step, 41) * 150)::integer;
				UPDATE decline SET until = term_start WHERE customer_id = c.id AND until = 'infinity';
				seats := greatest(2, round(seats * 0.7));
				CONTINUE terms;
			END IF;

			-- at the renewal: seats, plan, term
			r := company.chance(c.id, step, 50);
			IF term > 1 THEN
				seats := greatest(2, round(seats * CASE WHEN r < 0.3 THEN 1.1 + r WHEN r > 0.88 THEN 0.5 + (1 - r) * 3 ELSE 1 END));
			ELSIF r < 0.035 THEN
				seats := seats + 1 + (seats > 6)::integer;
			ELSIF r > 0.985 THEN
				seats := greatest(2, seats - 1);
			END IF;
			r := company.chance(c.id, step, 51);
			IF plan = 'Starter' AND seats >= 5 AND r < (CASE WHEN term = 1 THEN 0.04 ELSE 0.3 END) THEN
				plan := 'Business';
			ELSIF plan = 'Business' AND seats >= 18 AND r < 0.35 THEN
				plan := 'Enterprise';
			END IF;
			IF term = 1 AND company.chance(c.id, step, 52) < 0.02 THEN
				term := 12;
			END IF;
			term_start := term_end;
		END LOOP;
	END LOOP;
END $$;

-- Without signal the same kind of decline comes to anyone at any time.
INSERT INTO decline
SELECT c.id, d.onset, d.onset + 60 + floor(chance(c.id, k, 61) * 60)::integer, d.onset + 150 + floor(chance(c.id, k, 62) * 60)::integer,
	0.05 + 0.25 * chance(c.id, k, 63)
FROM setting s, customer c, generate_series(1, 2) k,
	LATERAL (SELECT s.since - 300 + floor(chance(c.id, k, 60) * 1250)::integer AS onset) d
WHERE NOT s.signal AND chance(c.id, k, 64) < 0.35;

-- Holidays and projects: dips that mean nothing and pass.
INSERT INTO decline
SELECT c.id, d.onset, d.onset + 20, d.onset + 35 + floor(chance(c.id, k, 71) * 25)::integer, 0.45 + 0.4 * chance(c.id, k, 72)
FROM setting s, customer c, generate_series(1, 2) k,
	LATERAL (SELECT s.since + floor(chance(c.id, k, 70) * 730)::integer AS onset) d
WHERE chance(c.id, k, 73) < 0.22;

-- One price a month becomes one row per price: touching monthly rows without a change are one contract.
CREATE TEMP TABLE piece AS
SELECT *, sum(fresh::integer) OVER (PARTITION BY customer_id ORDER BY starts_on, id) AS run
FROM (
	SELECT *, term_months > 1 OR (plan, seats, amount, status, billing)
		IS DISTINCT FROM (lag(plan) OVER w, lag(seats) OVER w, lag(amount) OVER w, lag(status) OVER w, lag(billing) OVER w)
		OR starts_on IS DISTINCT FROM lag(ended_on) OVER w AS fresh
	FROM contract, setting
	WHERE signed_on <= setting.until
	WINDOW w AS (PARTITION BY customer_id ORDER BY starts_on, contract.id)
) p;
TRUNCATE contract RESTART IDENTITY;
INSERT INTO contract (customer_id, plan, seats, amount, billing, term_months, signed_on, starts_on, ended_on, renews_on, status, cancel_requested_on, cancel_reason, auto_renew)
SELECT customer_id, min(plan), min(seats), min(amount), min(billing), min(term_months), min(signed_on), min(starts_on), max(ended_on), max(renews_on),
	min(status), max(cancel_requested_on), max(cancel_reason), bool_and(auto_renew)
FROM piece
GROUP BY customer_id, run
ORDER BY min(starts_on), customer_id;

-- What nobody knows yet on the last day is not in the books: the end of a running contract
-- is known when notice was given or the next one is signed.
UPDATE contract c
SET ended_on = CASE WHEN c.cancel_requested_on <= s.until
		OR EXISTS (SELECT FROM contract n WHERE n.customer_id = c.customer_id AND n.starts_on = c.ended_on) THEN c.ended_on END,
	cancel_requested_on = CASE WHEN c.cancel_requested_on <= s.until THEN c.cancel_requested_on END,
	cancel_reason = CASE WHEN c.cancel_requested_on <= s.until THEN c.cancel_reason END,
	auto_renew = c.auto_renew OR coalesce(c.cancel_requested_on > s.until, false)
FROM setting s
WHERE c.ended_on > s.until;

CREATE INDEX ON contract (customer_id);
CREATE INDEX ON decline (customer_id);
ANALYZE customer, contract, decline;

-- ---- engagement, day by day ---------------------------------------------------------

-- calm: 1 = as ever, towards 0 = on the way out.  engaged: that times how much this customer uses at all.
CREATE TEMP TABLE engagement AS
SELECT c.id AS customer_id, d.day::date AS day, x.plan, x.seats, e.calm,
	e.calm * CASE WHEN chance(c.id, 0, 82) < 0.12 THEN 0.12 + 0.2 * chance(c.id, 0, 80) ELSE 0.5 + 0.5 * chance(c.id, 0, 80) END * least(1, 0.35 + (d.day::date - c.created_at::date) / 60.0)
		* (1 + 0.15 * sin((d.day::date - s.since) / 58.0 + 6 * chance(c.id, 0, 81))) AS engaged
FROM setting s, customer c, generate_series(s.since, s.until - 1, interval '1 day') d(day),
	LATERAL (SELECT plan, seats FROM contract t
		WHERE t.customer_id = c.id AND t.starts_on <= d.day AND (t.ended_on IS NULL OR t.ended_on > d.day) AND t.status <> 'paused'
		ORDER BY t.starts_on DESC LIMIT 1) x,
	LATERAL (SELECT coalesce(min(1 - (1 - l.low) * least(1, greatest(0, (d.day::date - l.onset) / (l.full_at - l.onset)::float8))), 1) AS calm
		FROM decline l WHERE l.customer_id = c.id AND l.onset < d.day AND l.until > d.day) e;
CREATE INDEX ON engagement (customer_id, day);
ANALYZE engagement;

INSERT INTO app_user
SELECT row_number() OVER (ORDER BY c.id, k), c.id,
	lower(pick('{anna,ben,carla,david,elena,felix,greta,hugo,ida,jan,kira,leo,maria,nils,olga,paul,rosa,sven,tina,uwe,vera,willem,xenia,yannick,zoe}', chance(c.id, k, 90)))
		|| '.' || k || '@' || lower(regexp_replace(translate(c.name, 'ü', 'u'), '[^A-Za-z0-9]+', '-', 'g')) || '.example',
	CASE WHEN k = 1 THEN 'admin' WHEN k % 4 = 0 THEN 'manager' ELSE 'planner' END,
	l.first_on + floor(40 * power(k::float8 / l.seats, 2) * chance(c.id, k, 91))::integer + interval '9 hours',
	CASE WHEN l.gone <= s.until THEN l.gone::timestamptz END
FROM setting s, customer c,
	LATERAL (SELECT min(starts_on) AS first_on, max(seats) AS seats, max(coalesce(ended_on, 'infinity')) AS gone FROM contract t WHERE t.customer_id = c.id) l,
	generate_series(1, l.seats) k
WHERE l.first_on < s.until;

CREATE INDEX ON app_user (customer_id);
ANALYZE app_user;

-- One row a user and day: what they did most, and how often.
INSERT INTO usage_log
SELECT e.customer_id, u.id, e.day + interval '7 hours' + interval '11 hours' * chance(u.id, e.day - date '2000-01-01', 101),
	(CASE WHEN e.engaged > 0.5 THEN '{login,plan_published,shift_swapped,timesheet_approved,mobile_clock_in,report_exported,forecast_run}'
		WHEN e.engaged > 0.25 THEN '{login,plan_published,shift_swapped,mobile_clock_in}' ELSE '{login,plan_published}' END::text[])
		[1 + floor((CASE WHEN e.engaged > 0.5 THEN 7 WHEN e.engaged > 0.25 THEN 4 ELSE 2 END) * power(chance(u.id, e.day - date '2000-01-01', 102), 1.6))::integer],
	1 + floor(chance(u.id, e.day - date '2000-01-01', 103) * 12 * e.engaged)::integer
FROM engagement e
JOIN app_user u ON u.customer_id = e.customer_id AND u.created_at <= e.day
WHERE chance(u.id, e.day - date '2000-01-01', 100) < e.engaged * (0.35 + 0.9 * chance(u.id, 0, 104)) * CASE WHEN extract(isodow FROM e.day) < 6 THEN 0.42 ELSE 0.05 END
ORDER BY 3, 2;

-- ---- support, surveys, money, contacts -------------------------------------------------

INSERT INTO ticket (customer_id, subject, severity, escalated, opened_at, first_reply_at, resolved_at, csat)
SELECT customer_id, subject, severity, escalated, opened_at,
	CASE WHEN first_reply_at < n.now THEN first_reply_at END,
	CASE WHEN resolved_at < n.now THEN resolved_at END,
	CASE WHEN resolved_at < n.now AND chance(customer_id, k, 117) < 0.55 THEN greatest(1, least(5, round(1 + 2.6 * calm + 0.8 * chance(customer_id, 0, 119) + 2.6 * (chance(customer_id, k, 118) - 0.5))))::integer END
FROM (SELECT until + interval '6 hours' AS now FROM setting) n,
	LATERAL (
		SELECT customer_id, calm, day - date '2000-01-01' AS k,
			pick('{Shift swap not visible,Import of absences fails,Wrong overtime total,Mobile app logs out,Question about public holidays,Report is slow,Roles and permissions,Payroll export format}', chance(customer_id, day - date '2000-01-01', 111)) AS subject,
			CASE WHEN chance(customer_id, day - date '2000-01-01', 112) < 0.06 + 0.2 * (1 - calm) THEN 'urgent'
				WHEN chance(customer_id, day - date '2000-01-01', 112) < 0.25 + 0.2 * (1 - calm) THEN 'high'
				WHEN chance(customer_id, day - date '2000-01-01', 112) < 0.75 THEN 'normal' ELSE 'low' END AS severity,
			chance(customer_id, day - date '2000-01-01', 113) < 0.03 + 0.22 * (1 - calm) AS escalated,
			t.opened_at,
			t.opened_at + interval '1 hour' * (0.2 - 4 * ln(1 - chance(customer_id, day - date '2000-01-01', 114))) AS first_reply_at,
			t.opened_at + interval '1 hour' * (3 - (34 + 60 * (1 - calm)) * CASE WHEN chance(customer_id, day - date '2000-01-01', 109) > 0.96 THEN 12 WHEN chance(customer_id, day - date '2000-01-01', 113) < 0.03 + 0.22 * (1 - calm) THEN 4 ELSE 1 END * ln(1 - chance(customer_id, day - date '2000-01-01', 115))) AS resolved_at
		FROM engagement, LATERAL (SELECT day + interval '8 hours' + interval '9 hours' * chance(customer_id, day - date '2000-01-01', 116) AS opened_at) t
		WHERE chance(customer_id, day - date '2000-01-01', 110) < (0.012 + 0.006 * sqrt(seats)) * (1 + 1.8 * (1 - calm))
	) d
ORDER BY opened_at;

INSERT INTO survey (user_id, kind, score, answered_at)
SELECT u.id, 'nps', greatest(0, least(10, round(0.5 + 5.8 * e.calm + 2.2 * chance(e.customer_id, 0, 123) + 4.6 * (chance(u.id, e.day - date '2000-01-01', 121) - 0.5))))::integer,
	e.day + interval '12 hours' + interval '5 hours' * chance(u.id, e.day - date '2000-01-01', 122)
FROM engagement e
JOIN app_user u ON u.customer_id = e.customer_id AND u.created_at < e.day - 30 AND u.role <> 'planner'
WHERE (e.day - date '2000-01-01' + e.customer_id * 17) % 122 = 0 AND chance(u.id, e.day - date '2000-01-01', 120) < 0.4
ORDER BY 4, 1;

INSERT INTO invoice (customer_id, amount, issued_on, due_on, paid_at)
SELECT customer_id, amount, issued_on, issued_on + 30, CASE WHEN paid_at < now THEN paid_at END
FROM (
	SELECT c.customer_id, i.issued_on, s.until + interval '6 hours' AS now,
		CASE WHEN c.billing = 'month' THEN c.amount
			ELSE round(c.amount * least(12, extract(year FROM age(c.renews_on, i.issued_on)) * 12 + extract(month FROM age(c.renews_on, i.issued_on))) / 12, 2) END AS amount,
		i.issued_on + interval '16 hours' + interval '1 day' * CASE
			WHEN coalesce(e.calm, 1) < 0.6 AND chance(c.id, i.issued_on - date '2000-01-01', 130) < 0.5 THEN 45 + 120 * chance(c.id, i.issued_on - date '2000-01-01', 131)
			WHEN chance(c.id, i.issued_on - date '2000-01-01', 130) > 0.9 THEN 31 + 45 * chance(c.id, i.issued_on - date '2000-01-01', 132)
			ELSE 4 + 25 * chance(c.id, i.issued_on - date '2000-01-01', 133) END AS paid_at
	FROM setting s, contract c,
		LATERAL (SELECT g::date AS issued_on FROM generate_series(c.starts_on, least(coalesce(c.ended_on, s.until), s.until) - 1,
			CASE WHEN c.billing = 'month' THEN interval '1 month' ELSE interval '1 year' END) g) i
		LEFT JOIN LATERAL (SELECT calm FROM engagement e WHERE e.customer_id = c.customer_id AND e.day = i.issued_on) e ON true
	WHERE c.amount > 0 AND c.status = 'active' AND i.issued_on >= s.since
) x
WHERE amount > 0
ORDER BY issued_on, customer_id;

INSERT INTO touchpoint (customer_id, at, channel, department, author, note)
SELECT e.customer_id, e.day + interval '9 hours' + interval '8 hours' * chance(e.customer_id, e.day - date '2000-01-01', 141),
	pick('{email,call,call,meeting,video}', chance(e.customer_id, e.day - date '2000-01-01', 142)),
	pick('{customer success,customer success,customer success,sales,support}', chance(e.customer_id, e.day - date '2000-01-01', 143)),
	c.account_manager,
	pick('{Quarterly review,Check-in,Training,Renewal talk,Product question,Follow-up}', chance(e.customer_id, e.day - date '2000-01-01', 144))
FROM engagement e
JOIN customer c ON c.id = e.customer_id
WHERE extract(isodow FROM e.day) < 6
	AND chance(e.customer_id, e.day - date '2000-01-01', 140) < 1.4 / CASE e.plan WHEN 'Enterprise' THEN 14 WHEN 'Business' THEN 32 ELSE 80 END
		* CASE c.account_manager WHEN 'Tom Becker' THEN 0.5 ELSE 1 END
ORDER BY 2;

INSERT INTO onboarding_step
SELECT c.id, o.step, o.weight, f.first_on + o.begins, f.first_on + o.due,
	CASE WHEN d.done < s.until THEN d.done END
FROM setting s, customer c,
	LATERAL (SELECT min(starts_on)::timestamptz AS first_on FROM contract t WHERE t.customer_id = c.id) f,
	(VALUES (1, 'kick-off', 1.0, interval '0', interval '7 days'),
		(2, 'staff imported', 2.0, interval '3 days', interval '14 days'),
		(3, 'first plan published', 3.0, interval '7 days', interval '30 days'),
		(4, 'mobile app rolled out', 2.0, interval '14 days', interval '45 days'),
		(5, 'payroll connected', 2.0, interval '30 days', interval '75 days')) o(k, step, weight, begins, due),
	LATERAL (SELECT f.first_on + o.begins + (o.due - o.begins) * (0.3 + 1.5 * power(chance(c.id, o.k, 150), 2))
		+ CASE WHEN chance(c.id, o.k, 151) > 0.93 THEN interval '200 days' ELSE interval '0' END AS done) d
WHERE f.first_on >= s.since - 30 AND f.first_on + o.begins < s.until;

CREATE INDEX ON usage_log (customer_id, at);
CREATE INDEX ON usage_log USING brin (at);
CREATE INDEX ON ticket (customer_id);
CREATE INDEX ON survey (user_id);
CREATE INDEX ON invoice (customer_id);
CREATE INDEX ON touchpoint (customer_id);
DROP FUNCTION chance, pick;
DROP TABLE pg_temp.setting, pg_temp.decline, pg_temp.piece, pg_temp.engagement;
COMMIT;
ANALYZE;
RESET ALL;
