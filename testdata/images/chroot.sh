#!/bin/bash
# Installs $PACKAGES and then runs the sh script $SCRIPT in a copy-on-write
# view of the folders $LOWER (uppermost first, colons between). What changes
# lands in $UPPER. $SHARE is visible at /share. Scratch files go to $WORK.
#
# Run as root and as pid 1 of mount and pid namespaces of its own (sandbox.go),
# so that nothing is left mounted or running when it is killed. It is not for
# use by hand: without those namespaces it would change the host's mounts.
set -euo pipefail

root=$WORK/root
mkdir -p "$root" "$WORK/overlay" "$WORK/apt/archives/partial"
mount --make-rprivate /
mount -t proc proc /proc
# volatile: a build that dies is thrown away, so nothing needs fsync. The
# others keep overlayfs from writing what a layer cannot express.
mount -t overlay overlay "$root" -o "lowerdir=$LOWER,upperdir=$UPPER,workdir=$WORK/overlay" \
	-o volatile,redirect_dir=off,metacopy=off,index=off

mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
mount -t tmpfs -o mode=0755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=0755 tmpfs "$root/var/log"
for device in null zero full random urandom; do
	cp -a "/dev/$device" "$root/dev/"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/run/share" "$root/run/lock"
mount --bind "$SHARE" "$root/run/share"
ln -s run/share "$root/share"
mount --bind "$WORK/apt" "$root/var/cache/apt"

# The host's apt installs into the tree: names are resolved, and sources and
# proxies read, out here, and nothing about them gets into the image.
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C.UTF-8
if [[ -n $PACKAGES ]]; then
	# shellcheck disable=SC2086 # a list of words
	apt-get --config-file="$APT_OPTIONS" \
		-o Dir::State="$root/var/lib/apt" -o Dir::State::status="$root/var/lib/dpkg/status" \
		-o Dir::Cache="$root/var/cache/apt" -o Dir::Log="$root/var/log/apt" \
		-o DPkg::Chroot-Directory="$root" -o DPkg::Options::=--force-unsafe-io \
		-y --no-install-recommends install $PACKAGES
fi
if [[ -n $SCRIPT ]]; then
	env -i PATH="$PATH" HOME=/tmp LC_ALL=C.UTF-8 \
		chroot "$root" sh -euc "cd /share; $SCRIPT"
fi
rm -rf "$root/share" "$root"/var/lib/dpkg/*-old "$root"/var/cache/{debconf/*-old,ldconfig/*}
