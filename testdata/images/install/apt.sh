#!/bin/sh
# Installs packages from the folder of packages at /repo, in a container of
# the image base.
set -e
export DEBIAN_FRONTEND=noninteractive
echo "deb [trusted=yes] file:/repo ./" >/etc/apt/sources.list
apt-get --quiet=2 update
apt-get --quiet=2 --option Dpkg::Use-Pty=0 install --yes --no-install-recommends "$@"
test -z "$(dpkg --audit)"
