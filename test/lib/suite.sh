#!/bin/bash
# suite.sh WORK [NAME...]: everything test/run does once it is an ordinary user
# in a private copy: build, checks, and all tests, each counted.
#
#   WORK/src       the sources          WORK/pg        the private PostgreSQL
#   WORK/data      the server's data    WORK/testdata  what CS_EXT_TESTDATA named
set -u
WORK=$1
shift
NAMES=("$@")
cd "$WORK/src" || exit 1
. test/lib/machine.sh

PGBIN=$WORK/pg/lib/postgresql/$PG_MAJOR/bin
export HOME=$WORK PATH=$PGBIN:$PATH LC_ALL=C.UTF-8 LANG=C.UTF-8
export PGHOST=$WORK/socket PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
export PGTZ=UTC PGCONNECT_TIMEOUT=10
unset PGOPTIONS PGSERVICE PGPASSFILE PGCLIENTENCODING

passed=0 failed=0 skipped=0 counted=0
failures=()
FULL=${CS_EXT_TEST_FULL:-}

# A long test says "full run only" in its first lines.
is_long() { head -3 "$1" | grep -q 'full run only'; }

# limit FILE: seconds after which it is stopped
limit() {
	if [ -n "${CS_EXT_TEST_FILE_LIMIT:-}" ]; then echo "$CS_EXT_TEST_FILE_LIMIT"; elif is_long "$1"; then echo 1800; else echo 300; fi
}

# wanted FILE: is it part of this run
wanted() {
	[ -e "$1" ] || return 1
	local name=${1##*/}
	chosen "${name%.*}" || return 1
	[ -n "$FULL" ] || [ ${#NAMES[@]} -gt 0 ] || ! is_long "$1"
}

# count NAME PASSED FAILED SKIPPED: adds up, and prints one line, with the seconds since the line before.
began=$SECONDS
count() {
	local word=ok took=$((SECONDS - began))
	began=$SECONDS
	case $2$3$4 in
		'' | *[!0-9]*) set -- "$1" 0 1 0 ;;
	esac
	add_up "$@"
	if [ "$3" -gt 0 ]; then
		word=FAILED
	elif [ "$2" = 0 ] && [ "$4" -gt 0 ]; then
		word=skipped
	fi
	printf '%-42s %-8s %5d %5d s %s\n' "$1" "$word" "$2" "$took" "$([ "$3" -gt 0 ] && echo "($3 failed)")"
}

# add_up NAME PASSED FAILED SKIPPED: into the sums of this shell, and LANE's file in a second one
add_up() {
	[ -n "${LANE:-}" ] && echo "$*" >>"$LANE"
	case $1 in pgtap/* | t/*) counted=$((counted + 1)) ;; esac
	passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + $4))
	[ "$3" = 0 ] || failures+=("$1")
}

# chosen NAME: is it asked for (no names: everything is)
chosen() {
	local n
	[ ${#NAMES[@]} = 0 ] && return 0
	for n in "${NAMES[@]}"; do
		n=${n##*/}
		n=${n%.*}
		[ "$n" = "$1" ] || [ "$n" = "${1#[0-9][0-9][0-9]_}" ] && return 0
	done
	return 1
}

# What there is to run, counted before anything runs: all of it must have been counted in the end.
planned=0
for file in test/pgtap/*.sql test/t/*.pl; do
	wanted "$file" && planned=$((planned + 1))
done

# one_check NAME COMMAND...: a check that passes or fails as a whole; status 77: it could not be made
one_check() {
	local name=$1 status=0
	shift
	chosen "${name##*/}" || return 0
	"$@" >"$WORK/check.out" 2>&1 || status=$?
	if [ "$status" = 0 ]; then
		count "$name" 1 0 0
	elif [ "$status" = 77 ]; then
		count "$name" 0 0 1
	else
		head -60 "$WORK/check.out" | sed 's/^/    /'
		count "$name" 0 1 0
	fi
}

finish() {
	if [ ${#NAMES[@]} = 0 ] && [ "$counted" -lt "$planned" ]; then count "all files (of $planned ran $counted)" 0 1 0; fi
	[ ${#failures[@]} -gt 0 ] && printf 'failed: %s\n' "${failures[*]}"
	if [ $((passed + failed + skipped)) = 0 ]; then
		echo "no test is named ${NAMES[*]}"
		failed=1
	fi
	printf '%d passed, %d failed' "$passed" "$failed"
	[ "$skipped" -gt 0 ] && printf ', %d skipped' "$skipped"
	echo
	[ "$failed" = 0 ]
	exit
}

# Nothing of ours outlives the run, whatever happened.
stop_servers() {
	local pid
	find "${1:-$WORK}" -name postmaster.pid 2>/dev/null | while read -r pid; do
		"$PGBIN/pg_ctl" -D "${pid%/*}" -m immediate -w stop >/dev/null 2>&1
	done
}
trap stop_servers EXIT
trap 'exit 130' INT TERM HUP

# ---- build ---------------------------------------------------------------

if ! build_into "$WORK/pg" "$WORK/src" "$WORK/build.log" \
	PG_CFLAGS="-Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers -Wno-cast-function-type -DUSE_ASSERT_CHECKING"; then
	count build 0 1 0
	finish
fi
count build 1 0 0

# ---- checks of the text ----------------------------------------------------

file_sizes() {
	find src sql -name '*.[ch]' -o -name '*.sql' ! -name 'cs_ext--*' -path 'sql/*' |
		xargs wc -l | awk '$2 != "total" && $1 > 900 { print $2 ": " $1 " lines, more than 900"; bad = 1 } END { exit bad }'
}

# What an attacker could use in the install script; and in C, a statement that is run outside
# the wrappers of core/spi.c, where names are looked up by the caller's search_path.
install_script() {
	perl test/lib/install_script.pl sql/cs_ext--*.sql || return 1
	! grep -nE '\bSPI_(execute|exec|prepare)[a-z_]*\("' src/*/*.c | grep -vE '^src/core/policy\.c:|^src/scheduler/worker\.c:.*"SELECT extversion FROM pg_catalog\.'
}

# Names the files only: clang-format -i mends them. Other versions of it differ in what they
# want, so that only one is asked.
format() {
	clang-format --version | grep -q 'version 14\.' || { echo "formatting is that of clang-format 14" && return 77; }
	make -s format-check PG_CONFIG="$PGBIN/pg_config" 2>&1 | sed -n 's/^\([^ :]*\):[0-9].*error: code should be.*/not formatted: \1/p' | sort -u >"$WORK/format.out"
	cat "$WORK/format.out"
	[ ! -s "$WORK/format.out" ]
}

one_check checks/format format
one_check checks/file_sizes file_sizes
one_check checks/install_script install_script

# ---- the server ------------------------------------------------------------

# A new cluster with an empty template for the pgTAP files. Nothing is preloaded:
# whatever works here works in a plain session.
new_server() {
	pg_ctl -D "$WORK/data" -m immediate -w stop >/dev/null 2>&1
	rm -rf "$WORK/data" "$WORK/socket"
	mkdir -p "$WORK/socket"
	initdb -D "$WORK/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync || return 1
	cat >>"$WORK/data/postgresql.conf" <<-EOF
		listen_addresses = ''
		unix_socket_directories = '$WORK/socket'
		fsync = off
		synchronous_commit = off
		full_page_writes = off
		max_prepared_transactions = 10
		shared_buffers = 128MB
		log_min_messages = warning
		log_line_prefix = '%m [%p] %q%a %d '
	EOF
	pg_ctl -D "$WORK/data" -l "$WORK/server.log" -w start || return 1
	psql -qX -v ON_ERROR_STOP=1 -c 'CREATE DATABASE cs_template' || return 1
	psql -qX -v ON_ERROR_STOP=1 -d cs_template -c 'CREATE EXTENSION cs_ext' -c 'CREATE EXTENSION pgtap'
}
if ! new_server >"$WORK/server.out" 2>&1; then
	tail -30 "$WORK/server.out" | sed 's/^/    /'
	count server 0 1 0
	finish
fi
count server 1 0 0

# What the comments in the catalog say is what stands in doc/.
reference() {
	psql -XAtq -d cs_template -f doc/reference.sql | diff doc/reference.md - >"$WORK/reference.diff" && return 0
	head -20 "$WORK/reference.diff"
	echo "mend: psql -XAtq -d DATABASE_WITH_CS_EXT -f doc/reference.sql > doc/reference.md"
	return 1
}
one_check checks/reference reference

# What the extension consists of is what its version's list says: an addition shows in its diff.
members() {
	local version
	version=$(psql -XAtq -d cs_template -c "SELECT extversion FROM pg_extension WHERE extname = 'cs_ext'")
	psql -XAtq -d cs_template -f test/lib/members.sql | diff "test/members/$version.txt" - >"$WORK/members.diff" && return 0
	head -40 "$WORK/members.diff"
	echo "mend: psql -XAtq -d DATABASE_WITH_CS_EXT -f test/lib/members.sql > test/members/$version.txt"
	return 1
}
one_check checks/members members

# crashed NAME: a server that went down says why, and is replaced for what follows
crashed() {
	if grep -E 'PANIC|TRAP:|was terminated by signal' "$WORK/server.log" >"$WORK/crash.out"; then
		head -20 "$WORK/crash.out" | sed 's/^/    /'
		count "server (crashed in $1)" 0 1 0
		: >"$WORK/server.log"
		new_server >"$WORK/server.out" 2>&1
	fi
}

# ---- TAP: servers of their own, in a lane beside what follows ----------------------

# servers_of_their_own LANE FILE...: in a subshell; what it sets and counts reaches the rest
# by the file LANE alone. Each test is taken by one lane, whichever comes to it first.
servers_of_their_own() {
	local lib file name status p f s
	lib=$(dirname "$(pg_config --pgxs)")/../../src/test
	LANE=$1
	shift
	began=$SECONDS
	export PG_REGRESS=$lib/regress/pg_regress PERL5LIB=$lib/perl TESTDIR=$LANE.t TESTDATADIR=$LANE.t/data CS_EXT_TESTDATA=
	[ -d "$WORK/testdata" ] && CS_EXT_TESTDATA=$WORK/testdata
	unset PGHOST PGPORT PGUSER PGDATABASE
	trap 'stop_servers "$TESTDIR"' EXIT
	trap 'exit 130' INT TERM HUP
	: >"$LANE"
	for file in "$@"; do
		wanted "$file" || continue
		name=${file##*/}
		name=${name%.pl}
		mkdir "$WORK/taken/$name" 2>/dev/null || continue
		mkdir -p "$TESTDIR"
		timeout "$(limit "$file")" perl "$file" >"$LANE.out" 2>&1 </dev/null
		status=$?
		read -r p f s < <(perl test/lib/tap.pl "$name" "$status" <"$LANE.out" 2>"$LANE.err")
		cat "$LANE.err"
		count "t/$name" "$p" "$f" "$s"
		if [ "$f" -gt 0 ]; then
			find "$TESTDIR" -name '*.log' | head -4 | while read -r log; do
				echo "    -- ${log##*/}"
				grep -E 'ERROR|FATAL|PANIC|TRAP|signal' "$log" | tail -15 | sed 's/^/    /'
			done
		fi
		stop_servers "$TESTDIR"
		[ -n "${CS_EXT_TEST_KEEP:-}" ] || rm -rf "$TESTDIR"
	done
}
mkdir "$WORK/taken"
servers=(test/t/*.pl)
(servers_of_their_own "$WORK/lane1" "${servers[@]}") &
lane=$!

# ---- pg_regress: plain function behaviour --------------------------------------

tests=()
for file in test/sql/*.sql; do
	[ -e "$file" ] || continue
	name=${file##*/}
	name=${name%.sql}
	chosen "$name" && tests+=("$name")
done
if [ ${#tests[@]} -gt 0 ]; then
	timeout 600 "$(dirname "$(pg_config --pgxs)")/../../src/test/regress/pg_regress" --bindir="$PGBIN" --inputdir=test \
		--load-extension=cs_ext --dbname=contrib_regression "${tests[@]}" >"$WORK/regress.out" 2>&1 </dev/null
	ran=0
	while read -r name word; do
		ran=$((ran + 1))
		if [ "$word" = ok ]; then count "regress/$name" 1 0 0; else count "regress/$name" 0 1 0; fi
	done < <(sed -nE -e 's/^test ([^ ]+) +\.\.\. ([A-Za-z]+).*/\1 \2/p' \
		-e 's/^ok [0-9]+ +- ([^ ]+).*/\1 ok/p' -e 's/^not ok [0-9]+ +- ([^ ]+).*/\1 FAILED/p' "$WORK/regress.out")
	if [ -s regression.diffs ]; then head -200 regression.diffs | sed 's/^/    /'; fi
	if [ "$ran" != ${#tests[@]} ]; then
		tail -20 "$WORK/regress.out" | sed 's/^/    /'
		count "regress (of ${#tests[@]} ran $ran)" 0 1 0
	fi
	crashed regress
fi

# ---- pgTAP: behaviour and oracles, each file in a database of its own ------------

for file in test/pgtap/*.sql; do
	wanted "$file" || continue
	name=${file##*/}
	name=${name%.sql}
	if [ ! -d "$WORK/testdata" ] && grep -q ':.\?testdata' "$file"; then
		count "pgtap/$name (no test data)" 0 0 1
		continue
	fi
	psql -qX -c 'CREATE DATABASE cs_test TEMPLATE cs_template' || { count "pgtap/$name" 0 1 0; continue; }
	timeout "$(limit "$file")" psql -XAtq -d cs_test -v ON_ERROR_STOP=1 -v "testdata=$WORK/testdata" -f "$file" \
		>"$WORK/pgtap.out" 2>&1 </dev/null
	read -r p f s < <(perl test/lib/tap.pl "$name" $? <"$WORK/pgtap.out" 2>"$WORK/tap.err")
	cat "$WORK/tap.err"
	count "pgtap/$name" "$p" "$f" "$s"
	crashed "pgtap/$name"
	psql -qX -c 'SET client_min_messages = warning' -c 'DROP DATABASE IF EXISTS cs_test WITH (FORCE)'
done

# What the other lane has not come to, from the end.
backwards=()
for file in "${servers[@]}"; do backwards=("$file" "${backwards[@]}"); done
(servers_of_their_own "$WORK/lane2" "${backwards[@]}")
wait "$lane"
while read -r name p f s; do
	add_up "$name" "$p" "$f" "$s"
done < <(cat "$WORK/lane1" "$WORK/lane2")

finish
