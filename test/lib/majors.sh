# majors.sh: the tests with the other majors of PostgreSQL (sourced by test/run).
#
# Each in a release of Debian that has that major, unpacked into a folder of its
# own, where test/run then does what it does on any new machine. Needs root,
# some 2 GB of disk and a few minutes of installing for each.

# major, release, and the release whose script debootstrap takes where it does not know that one yet
MAJORS='17 trixie sid
18 forky sid'

# run_majors WORK ARGUMENT...: what this machine's own major does, then each of MAJORS;
# the last line is the sum of all.
run_majors() {
	local work=$1 mirror major release script root passed=0 failed=0 skipped=0
	shift
	[ "$(id -u)" = 0 ] || die "--all-majors needs root, for debootstrap and chroot"
	command -v debootstrap >/dev/null || { apt_update; apt_install debootstrap; }
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | grep -m 1 -E '/debian/?$') ||
		die "no Debian mirror in the package lists"

	say "== PostgreSQL of this machine"
	"$ROOT/test/run" "$@" | tee "$work/out"
	add_counts
	while read -r major release script <&3; do
		say "== PostgreSQL $major, Debian $release"
		root=$work/$release
		[ -e "/usr/share/debootstrap/scripts/$release" ] && script=
		if ! debootstrap --variant=minbase "$release" "$root" "$mirror" $script >"$work/out" 2>&1; then
			tail -20 "$work/out" >&2
			echo "$release could not be installed" >"$work/out"
		else
			mount -t proc proc "$root/proc"
			mkdir -p "$root/dev/shm" && mount -t tmpfs tmpfs "$root/dev/shm"
			# no service starts there
			printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
			chmod 755 "$root/usr/sbin/policy-rc.d"
			# a mirror may lag behind what a release in the making says of itself
			echo 'Acquire::Check-Valid-Until "false";' >"$root/etc/apt/apt.conf.d/lagging"
			copy_tree "$ROOT" "$root/srv/cs_ext"
			[ -d "${CS_EXT_TESTDATA:-$ROOT/../shared}" ] && cp -r "${CS_EXT_TESTDATA:-$ROOT/../shared}" "$root/srv/shared"
			chroot "$root" env -i PATH="$PATH" HOME=/root LANG=C.UTF-8 PG_MAJOR="$major" CS_EXT_TESTDATA=/srv/shared /srv/cs_ext/test/run "$@" | tee "$work/out"
			umount "$root/dev/shm" "$root/proc"
			rm -rf "$root"
		fi
		add_counts
	done 3<<<"$MAJORS"
	echo "$passed passed, $failed failed$([ "$skipped" = 0 ] || echo ", $skipped skipped")"
	[ "$failed" = 0 ]
}

# add_counts: adds the last line of $work/out to the sums; a run without one has failed.
add_counts() {
	local counts a b c
	if counts=$(tail -1 "$work/out" | grep -E '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$'); then
		read -r a _ b _ c _ <<<"$counts"
		passed=$((passed + a)) failed=$((failed + b)) skipped=$((skipped + ${c:-0}))
	else
		failed=$((failed + 1))
	fi
}

# leave_majors WORK: nothing stays mounted there, so that it can be removed.
leave_majors() {
	local mounted
	for mounted in "$1"/*/dev/shm "$1"/*/proc; do
		mountpoint -q "$mounted" && umount -l "$mounted"
	done
}
