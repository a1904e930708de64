#!/bin/sh
# Install what the crash lab and the end-to-end tests need on Debian 12: QEMU,
# what it takes to make guests, a C compiler for the race detector and for a
# kernel module, and the judges and peers that Debian 12 has. The judges of
# newer suites (crash, makedumpfile) and the kernels are fetched by the lab
# itself, without being installed.
#
# usage: e2e/install.sh
#
# Safe to run again: when everything is there it does nothing, in no time.
set -eu

packages='
	qemu-system-x86 qemu-system-arm qemu-user qemu-utils seabios ipxe-qemu
	kmod cpio xz-utils bzip2 lz4 dracut-core e2fsprogs xfsprogs mmdebstrap binutils gdb gcc make libc6-dev
	python3-drgn python3-libkdumpfile debuginfod
	openssh-client openssh-server lftp curl
	iproute2 time
	nfs-ganesha nfs-ganesha-vfs rpcbind nfs-common dnsmasq-base
	lintian rpmlint rpm mandoc
	ca-certificates debian-archive-keyring
'

missing=
for package in $packages; do
	# dpkg-query also succeeds for packages that were removed but not purged.
	status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$status" = installed ] || missing="$missing $package"
done
# The lab asks apt for mirrors and labels, which it knows from its lists.
lists=yes
ls /var/lib/apt/lists/*Release >/dev/null 2>&1 || lists=

if [ -n "$lists" ] && [ -z "$missing" ]; then
	exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "e2e/install.sh: run as root to install:$missing" >&2
	exit 1
fi

export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Tests start the servers they need by themselves: none is to run as a service from now on.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$log" "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
fi

install_missing() {
	# shellcheck disable=SC2086 # a list of words
	apt-get install -y -qq --no-install-recommends $missing >"$log" 2>&1
}

[ -n "$lists" ] || apt-get update -qq
# Lists that are there may still be too old to download what they name.
if ! install_missing; then
	apt-get update -qq
	if ! install_missing; then
		cat "$log" >&2
		exit 1
	fi
fi
