#!/bin/bash
# Makes a minimal Debian in the folder $TREE: suite $SUITE, packages from the
# apt sources in the file $SOURCES, apt options in the file $OPTIONS.
#
# Run as root and as pid 1 of mount and pid namespaces of its own (sandbox.go),
# so that nothing is left mounted or running when it is killed. It is not for
# use by hand: without those namespaces it would change the host's mounts.
set -euo pipefail

mount --make-rprivate /
mount -t proc proc /proc

# Manuals and translations are half of a small image. The rules stay in the
# image, so that later layers follow them too.
mmdebstrap --mode=root --variant=minbase --format=directory --quiet \
	--aptopt="$OPTIONS" \
	--dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/info/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' \
	--dpkgopt='path-exclude=/usr/share/doc/*' \
	--dpkgopt='path-include=/usr/share/doc/*/copyright' \
	--dpkgopt='path-exclude=/usr/share/lintian/*' \
	"$SUITE" "${TREE:?}" "$SOURCES"

# Packages must not start services while an image is built.
printf '#!/bin/sh\nexit 101\n' >"$TREE/usr/sbin/policy-rc.d"
chmod 755 "$TREE/usr/sbin/policy-rc.d"

# What belongs to this host or to this minute.
rm -rf "${TREE:?}"/etc/{resolv.conf,hostname,machine-id} \
	"${TREE:?}"/etc/apt/{sources.list,apt.conf.d/99mmdebstrap} \
	"${TREE:?}"/var/{log,tmp}/* "${TREE:?}"/{tmp,run,dev}/* \
	"${TREE:?}"/var/lib/{apt/lists/*,dpkg/*-old} \
	"${TREE:?}"/var/cache/{apt/*,debconf/*-old,ldconfig/*}
