#!/bin/sh
# Makes an rpm whose files belong to several accounts, one of which it adds, and
# installs it: by rpm, and by dnf from a repository of its own.
set -e
mkdir -p /build/SPECS
cat >/build/SPECS/owners.spec <<'END'
Name: owners
Version: 1
Release: 1
Summary: Files of other owners
License: none
BuildArch: noarch
%description
Files of other owners.
%install
mkdir -p %{buildroot}/opt/owners
echo data >%{buildroot}/opt/owners/mail
echo data >%{buildroot}/opt/owners/new
%pre
getent passwd owners >/dev/null || useradd --system --home-dir /opt/owners owners
%post
chown owners:owners /opt/owners/new
%package shell
Summary: What dnf believes to be a shell.
Provides: /bin/sh
%description shell
Nothing.
%files shell
%files
%attr(0750, daemon, mail) %dir /opt/owners
%attr(0640, mail, mail) /opt/owners/mail
/opt/owners/new
END
rpmbuild --quiet --define '_topdir /build' -bb /build/SPECS/owners.spec
createrepo_c --quiet /build/RPMS/noarch
rpm --initdb
rpm --install --nodeps /build/RPMS/noarch/owners-1-1.noarch.rpm
cat /opt/owners/mail; getent passwd owners
rpm --erase owners
dnf --quiet --releasever 1 -y --setopt=reposdir=/nowhere --repofrompath=local,/build/RPMS/noarch --nogpgcheck --setopt=install_weak_deps=0 install owners owners-shell
rpm --query owners; cat /opt/owners/new
