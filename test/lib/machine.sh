# machine.sh: what test/run and demo/run need of the machine (sourced).
#
# Debian packages, the ordinary user that servers run as, a private copy of
# the PostgreSQL installation, and cs_ext built and installed into that copy.
# The system's PostgreSQL is read and never written to.

say() { printf '%s\n' "$*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# As root, with sudo where we are not.
as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"
	elif command -v sudo >/dev/null; then sudo "$@"
	else die "needs root or sudo to run: $*"
	fi
}

# The newest installed server that can build extensions, else what Debian has.
pg_major() {
	local dir best=
	if [ -n "${PG_MAJOR:-}" ]; then echo "$PG_MAJOR"; return; fi
	for dir in $(ls -d /usr/lib/postgresql/*/bin/postgres 2>/dev/null | sort -t/ -k5n); do
		dir=${dir%/bin/postgres}; dir=${dir##*/}
		[ "$dir" -ge 15 ] && { [ -z "$best" ] || [ -e "/usr/include/postgresql/$dir/server/postgres.h" ]; } && best=$dir
	done
	if [ -z "$best" ]; then
		best=$(apt-cache policy postgresql 2>/dev/null | sed -n 's/^  Candidate: \([0-9]*\)+.*/\1/p')
	fi
	echo "$best"
}

# ensure_packages build|test: installs from Debian what is missing, without
# creating or starting a cluster of the system's when the server is new here.
ensure_packages() {
	local want=() fresh= conf=/etc/postgresql-common/createcluster.conf
	PG_MAJOR=$(pg_major)
	if [ -z "$PG_MAJOR" ]; then
		apt_update
		PG_MAJOR=$(pg_major)
		[ -n "$PG_MAJOR" ] || die "no PostgreSQL found in the package lists; set PG_MAJOR"
	fi
	[ -x "/usr/lib/postgresql/$PG_MAJOR/bin/postgres" ] || want+=("postgresql-$PG_MAJOR")
	[ -e "/usr/include/postgresql/$PG_MAJOR/server/postgres.h" ] || want+=("postgresql-server-dev-$PG_MAJOR")
	command -v gcc >/dev/null || want+=(gcc libc6-dev)
	command -v make >/dev/null || want+=(make)
	[ -e /usr/share/zoneinfo/Europe/Berlin ] || want+=(tzdata)
	if [ "$1" = test ]; then
		[ -e "/usr/share/postgresql/$PG_MAJOR/extension/pgtap.control" ] || want+=("postgresql-$PG_MAJOR-pgtap")
		[ -e "/usr/share/postgresql/$PG_MAJOR/extension/pg_cron.control" ] || want+=("postgresql-$PG_MAJOR-cron")
		perl -MTest::More -MIPC::Run -e 1 2>/dev/null || want+=(perl libipc-run-perl)
		command -v clang-format >/dev/null || want+=(clang-format)
		command -v npm >/dev/null || want+=(nodejs npm)
		[ -x /usr/bin/Rscript ] || want+=(r-base-core)
		[ -d /usr/lib/R/library/survival ] || [ -d /usr/lib/R/site-library/survival ] || want+=(r-cran-survival)
		/usr/bin/python3 -c 'import psycopg' 2>/dev/null || want+=(python3-psycopg)
	fi
	[ ${#want[@]} = 0 ] && return 0

	say "installing from Debian: ${want[*]}"
	apt_update
	if [ ! -e "$conf" ]; then
		fresh=1
		apt_install postgresql-common
		as_root sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' "$conf"
	fi
	apt_install "${want[@]}"
	if [ -n "$fresh" ]; then
		as_root sed -i 's/^create_main_cluster.*/#create_main_cluster = true/' "$conf"
	fi
}

apt_update() {
	[ -n "${APT_UPDATED:-}" ] && return 0
	as_root apt-get update -qq >&2 || die "apt-get update failed"
	APT_UPDATED=1
}

apt_install() {
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
		-o Dpkg::Use-Pty=0 "$@" >"${TMPDIR:-/tmp}/cs_ext-apt.$$" 2>&1 </dev/null || {
		cat "${TMPDIR:-/tmp}/cs_ext-apt.$$" >&2
		rm -f "${TMPDIR:-/tmp}/cs_ext-apt.$$"
		die "apt-get install $* failed"
	}
	rm -f "${TMPDIR:-/tmp}/cs_ext-apt.$$"
}

# A server refuses to run as root: then everything of ours runs as postgres.
ordinary_user() {
	if [ "$(id -u)" != 0 ]; then id -un
	elif id postgres >/dev/null 2>&1; then echo postgres
	else echo nobody
	fi
}

as_user() {
	if [ "$(id -u)" = 0 ]; then (cd / && exec runuser -u "$(ordinary_user)" -- "$@")
	else "$@"
	fi
}

# copy_tree FROM TO: the sources without what was built or is private.
copy_tree() {
	mkdir -p "$2"
	tar -C "$1" --exclude=./.git --exclude=./demo/cluster --exclude=./test/tmp --exclude=./results \
		--exclude='*.o' --exclude='*.so' --exclude='*.bc' --exclude='./cs_ext.control' \
		--exclude='./sql/cs_ext--[0-9]*.[0-9]*.[0-9].sql' -cf - . | tar -C "$2" -xf -
}

# private_postgres DIR: a copy of the installation. PostgreSQL's programs find
# their files relative to themselves, so a copy works wherever it stands.
private_postgres() {
	mkdir -p "$1/lib/postgresql" "$1/share/postgresql" "$1/include"
	cp -a "/usr/lib/postgresql/$PG_MAJOR" "$1/lib/postgresql/"
	cp -a "/usr/share/postgresql/$PG_MAJOR" "$1/share/postgresql/"
	ln -sfn /usr/include/postgresql "$1/include/postgresql"
	PGBIN=$1/lib/postgresql/$PG_MAJOR/bin
}

# build_into PGDIR SRC LOG [make arguments]: builds and installs cs_ext there.
build_into() {
	local bin=$1/lib/postgresql/$PG_MAJOR/bin src=$2 log=$3
	shift 3
	if ! make -s -C "$src" -j"$(nproc)" with_llvm=no PG_CONFIG="$bin/pg_config" "$@" >"$log" 2>&1 ||
		! make -s -C "$src" install with_llvm=no PG_CONFIG="$bin/pg_config" "$@" >>"$log" 2>&1; then
		grep -E -A4 '(error:|warning:|Error )' "$log" >&2 || tail -30 "$log" >&2
		return 1
	fi
}
