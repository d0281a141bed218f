# boot.sh DIR MACHINE [CPUS TRIES]: process number 1 of a machine's fresh namespaces. It
# assembles the root, makes it "/", forgets the host's and becomes tini.
# shellcheck shell=bash

set -euo pipefail
umask 022

DIR=$1 MACHINE=$2
root=$DIR/machines/$MACHINE/root
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# namespace_id prints the number of the mount namespace it runs in (the ioctl
# is NS_GET_MNTNS_ID of linux/nsfs.h); it fails on kernels older than 6.11.
# shellcheck disable=SC2016
namespace_id=(perl -e '
  open my $ns, "<", "/proc/self/ns/mnt" or exit 1;
  my $id = "\0" x 8;
  ioctl $ns, 0x8008b705, $id or exit 1;
  print unpack "Q", $id;')

# list_cpus LIST prints "0-2,5" as lines.
list_cpus() {
  local range
  for range in ${1//,/ }; do seq "${range%-*}" "${range#*-}"; done
}

# be_the_oldest starts over in a new mount namespace until its number is lower
# than those of all namespaces to come. A mount namespace can be pinned only in
# one with a lower number (mnt_ns_loop in fs/namespace.c); that is to stop
# loops, and an "older" one once had the lower number. Linux 6.18 draws the
# numbers from a block per CPU, so that in a machine made on the wrong CPU
# whatever pins a namespace (job_container/tmpfs, Berth) gets EINVAL half of
# the time. The host itself has the lowest number of all.
be_the_oldest() {
  local own id cpu lowest best=0
  own=$("${namespace_id[@]}") || return 0
  lowest=$own
  for cpu in $(list_cpus "$CPUS"); do
    id=$(taskset -c "$cpu" unshare -m "${namespace_id[@]}")
    ((id >= lowest)) || { lowest=$id && best=$cpu; }
  done
  ((lowest < own)) || return 0
  ((TRIES < 10)) || die "no mount namespace older than the others after $TRIES tries"
  exec taskset -c "$best" unshare -m bash "$0" "$DIR" "$MACHINE" "$CPUS" $((TRIES + 1))
}

# /proc is still the host's, so this is the pid by which the host knows us.
read -r pid _ </proc/self/stat
record_pid "$DIR/machines/$MACHINE/pid" "$pid"
CPUS=${3:-$(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status)} TRIES=${4:-0}
be_the_oldest
taskset -pc "$CPUS" "$BASHPID" >/dev/null
hostname "$MACHINE"

# copy_etc makes the machine's /etc: the host's, for the loader, certificates
# and alternatives, without its secrets, its accounts and the settings that
# lead out of the cluster's network; over it the cluster's own. It is a tmpfs,
# which takes these many small files ten times faster than a disk.
copy_etc() {
  local from=/etc
  [[ -s $DIR/root ]] && from=$DIR/machines/$MACHINE/tree/etc
  mount -t tmpfs -o mode=0755 tmpfs "$root/etc"
  tar -C "$from" -cf - \
    --exclude={./shadow*,./gshadow*,./passwd*,./group*,./subuid*,./subgid*,./ssh,./slurm,./munge,./berth} \
    --exclude={./apt,./pip.conf,./npmrc,./wgetrc,./gitconfig,./containers,./docker,./maven} \
    --exclude={./cron*,./systemd,./fstab,./hosts,./hostname,./resolv.conf,./mtab,./environment,./nsswitch.conf} . |
    tar -C "$root/etc" -xf -
  cp -a "$DIR/etc/." "$root/etc"
  printf '%s\n' "$MACHINE" >"$root/etc/hostname"
}

# mount_tree shows the folders of --root, with changes beside them, and makes
# their /usr and /var the machine's.
mount_tree() {
  local machine=$DIR/machines/$MACHINE
  mkdir "$machine"/{tree,upper,work}
  mount -t overlay overlay "$machine/tree" -o "lowerdir=$(cat "$DIR/root"),upperdir=$machine/upper,workdir=$machine/work"
  mount --bind "$machine/tree/usr" "$root/usr"
  tar -C "$machine/tree/var" -cf - --exclude={./run,./lock,./log,./spool,./tmp,./lib/munge,./lib/slurm} . | tar -C "$root/var" -xpf -
}

mount_system() {
  local entry
  mount --bind "$root" "$root"
  [[ ! -s $DIR/root ]] || mount_tree
  for entry in /usr /bin /sbin /lib /lib32 /lib64 /libx32; do
    [[ -d $entry && ! -L $entry ]] || continue
    [[ $entry != /usr || ! -s $DIR/root ]] || continue
    mount --bind "$entry" "$root$entry"
    mount -o remount,bind,ro "$root$entry"
  done
  mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
  mount -t sysfs -o nosuid,nodev,noexec,ro sysfs "$root/sys"
  mount_cgroups
  # The host's devices (loop, fuse), but terminals and shared memory apart.
  mount --bind /dev "$root/dev"
  open_fuse
  mount -t devpts -o newinstance,gid=5,mode=620,ptmxmode=666 devpts "$root/dev/pts"
  mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
  mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs "$root/run"
  mkdir -m 1777 "$root/run/lock"
  mkdir "$root/run/munge"
  mount --bind "$DIR/munge" "$root/run/munge"
  mount --bind "$DIR/home" "$root/home"
  mount --bind "$DIR/shared" "$root/shared"
}

# Everyone may open /dev/fuse, as udev has it; a host without udev does not, and
# its own device must stay as it is. The tmpfs goes, the device in it stays.
open_fuse() {
  [[ -c $root/dev/fuse ]] || return 0
  mount -t tmpfs tmpfs "$root/mnt"
  mknod -m 0666 "$root/mnt/fuse" c 10 229
  mount --bind "$root/mnt/fuse" "$root/dev/fuse"
  umount -l "$root/mnt"
}

# The host's cgroups are visible and nothing in the cluster can change them.
mount_cgroups() {
  local target
  mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
  while read -r _ _ _ _ target _; do
    [[ $target == "$root/sys/fs/cgroup"* ]] && mount -o remount,bind,ro "$target"
  done </proc/self/mountinfo
  return 0
}

# DIR/binds has a line "ro|rw<TAB>SRC<TAB>DST" for each folder or file to show.
mount_binds() {
  local mode src dst
  while IFS=$'\t' read -r mode src dst; do
    if [[ -d $src ]]; then
      mkdir -p "$root$dst"
    else
      mkdir -p "$(dirname "$root$dst")"
      [[ -e $root$dst ]] || : >"$root$dst"
    fi
    mount --rbind "$src" "$root$dst"
    [[ $mode == rw ]] || mount -o remount,bind,ro "$root$dst"
  done <"$DIR/binds"
}

copy_files() {
  local src dst
  while IFS=$'\t' read -r src dst; do
    install -D -m "$(stat -c %a "$src")" "$src" "$root$dst"
  done <"$DIR/files"
}

mount_system
copy_etc
mount --bind "$DIR/slurm" "$root/etc/slurm"
mount -o remount,bind,ro "$root/etc/slurm"
mount_binds
copy_files
cd "$root"
pivot_root . .old
cd /
umount -l /.old
rmdir /.old
# As systemd does on a real machine: what Berth does must work below it.
mount --make-rshared /
exec tini -- sleep infinity
