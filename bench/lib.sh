# lib.sh: what the parts of bench/run have in common (sourced by it).
#
# A part makes its database with `database`, measures, and prints each result
# with `row`. What it prints otherwise goes to stderr with `say`.
#   BENCH_SHARE  by what the size of the data is divided: 1, 10 (--tenth), 100 (--quick)
#   BENCH_QUICK  set with --quick: short runs, too
#   BENCH_WORK   private folder; BENCH_WORK/tmp is the part's to write in
#   PG*          the private server; PGDATABASE is the part's after `database`
set -u
export PGOPTIONS='-c client_min_messages=warning'
say() { printf '%s\n' "$*" >&2; }
die() { say "$BENCH_PART: $*"; exit 1; }
sql() { "$PGBIN/psql" -XAtq -v ON_ERROR_STOP=1 "$@" || die "failed: $*"; }

# database: a fresh one with the extension in it.
database() {
	PGDATABASE=postgres sql -c 'DROP DATABASE IF EXISTS part WITH (FORCE)' -c 'CREATE DATABASE part'
	export PGDATABASE=part
	sql -c 'CREATE EXTENSION cs_ext'
}

# sized N: N, or a tenth or hundredth of it.
sized() { echo $(($1 / BENCH_SHARE)); }

# took STATEMENT...: milliseconds of the last one, in one session.
took() {
	local c=() s
	for s in "$@"; do c+=(-c "$s"); done
	"$PGBIN/psql" -Xq -v ON_ERROR_STOP=1 -c '\timing on' "${c[@]}" >"$BENCH_WORK/tmp/took" 2>&1 || { cat "$BENCH_WORK/tmp/took" >&2; die "failed: $*"; }
	sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' "$BENCH_WORK/tmp/took" | tail -1
}

# best N STATEMENT...: the least of N times.
best() {
	local n=$1 i
	shift
	for ((i = 0; i < n; i++)); do took "$@"; done | sort -g | head -1
}

ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (b > 0) printf "%.2f", a / b; else printf "-" }'; }

# row WHAT CS_EXT REFERENCE RATIO TARGET
row() { printf '%s | %s | %s | %s | %s\n' "$@"; }

# slower WHAT MS REFERENCE_MS TARGET: ratio = how many times the reference's time.
slower() { row "$1" "$2 ms" "$3 ms" "$(ratio "$2" "$3") x" "$4"; }

# faster WHAT MS REFERENCE_MS TARGET: ratio = how many times faster than the reference.
faster() { row "$1" "$2 ms" "$3 ms" "$(ratio "$3" "$2") x faster" "$4"; }
