# One machine: its root folder, its namespaces, its network. Sourced.
# shellcheck shell=bash

readonly SUBNET=10.97.0

# address MACHINE prints its address in the cluster's own network.
address() {
  if [[ $1 == ctl ]]; then echo "$SUBNET.1"; else echo "$SUBNET.$((10 + ${1#n}))"; fi
}

pid_file() { printf '%s/machines/%s/pid\n' "$DIR" "$1"; }

# machine_pid MACHINE prints, in host numbers, its process number 1.
machine_pid() {
  [[ -d $DIR/machines/$1 ]] || die "no machine $1 in $DIR (is the cluster up?)"
  live_pid "$(pid_file "$1")" || die "$1 is not running; try: cluster down"
}

write_passwd() {
  cat >"$1/passwd" <<'PASSWD'
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
munge:x:981:981::/nonexistent:/usr/sbin/nologin
slurm:x:982:982::/nonexistent:/usr/sbin/nologin
berth:x:990:990:Berth:/nonexistent:/usr/sbin/nologin
alice:x:2001:2001:Alice:/home/alice:/bin/bash
bob:x:2002:2002:Bob:/home/bob:/bin/bash
carol:x:2003:2003:Carol:/home/carol:/bin/bash
dave:x:2004:2004:Dave:/home/dave:/bin/bash
erin:x:2005:2005:Erin:/home/erin:/bin/bash
frank:x:2006:2006:Frank:/home/frank:/bin/bash
grace:x:2007:2007:Grace:/home/grace:/bin/bash
heidi:x:2008:2008:Heidi:/home/heidi:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
PASSWD
  cat >"$1/group" <<'GROUP'
root:x:0:
daemon:x:1:
tty:x:5:
disk:x:6:
munge:x:981:
slurm:x:982:
berth:x:990:
users:x:100:
alice:x:2001:
bob:x:2002:
carol:x:2003:
dave:x:2004:
erin:x:2005:
frank:x:2006:
grace:x:2007:
heidi:x:2008:
project:x:3001:alice,bob
biology:x:3002:alice
nogroup:x:65534:
GROUP
  sed 's/:.*/:*:19000:0:99999:7:::/' "$1/passwd" >"$1/shadow"
  sed 's/:.*/:*::/' "$1/group" >"$1/gshadow"
  chmod 0640 "$1/shadow" "$1/gshadow"
}

write_hosts() {
  local machine
  printf '127.0.0.1 localhost\n'
  while read -r machine; do
    printf '%s %s\n' "$(address "$machine")" "$machine"
  done < <(machines)
}

# write_etc writes what all machines have in /etc besides the host's files.
write_etc() {
  local etc=$1
  mkdir -p "$etc"/{slurm,berth}
  write_passwd "$etc"
  write_hosts >"$etc/hosts"
  : >"$etc/resolv.conf"
  : >"$etc/fstab"
  : >"$etc/subuid"
  : >"$etc/subgid"
  ln -s ../proc/self/mounts "$etc/mtab"
  printf '%s: files\n' passwd group shadow hosts services protocols >"$etc/nsswitch.conf"
}

# make_root MACHINE makes its root folder: mount points and an empty /var. The
# rest is mounted by boot.sh.
make_root() {
  local machine=$1 root=$DIR/machines/$1/root entry
  mkdir -p "$root"/{dev,etc,proc,sys,run,usr,home,shared,root,opt,srv,mnt,media,.old}
  mkdir -p "$root"/var/{cache,lib/berth,lib/munge,lib/slurm,log/slurm,log/munge,spool/slurmd,spool/slurmctld}
  mkdir -m 1777 "$root/tmp" "$root/var/tmp"
  chmod 0700 "$root/root"
  ln -s ../run "$root/var/run"
  ln -s ../run/lock "$root/var/lock"
  for entry in /bin /sbin /lib /lib32 /lib64 /libx32; do
    if [[ -L $entry ]]; then
      cp -a "$entry" "$root$entry"
    elif [[ -d $entry ]]; then
      mkdir "$root$entry"
    fi
  done
  chown 981:981 "$root"/var/{lib,log}/munge
  chmod 0700 "$root"/var/{lib,log}/munge
}

# start_machine MACHINE becomes unshare and makes the namespaces; call it with
# "&". unshare stays as the parent of process number 1, and --kill-child ends
# the machine if unshare is killed.
start_machine() {
  close_inherited
  exec </dev/null >>"$DIR/machines/$1/boot.log" 2>&1
  exec env -i PATH="$BASE_PATH" LC_ALL=C setsid unshare \
    --mount --net --uts --ipc --pid --fork --kill-child \
    bash "$HERE/lib/boot.sh" "$DIR" "$1"
}

# booted MACHINE: boot.sh is through and tini is process number 1.
booted() {
  local pid name
  pid=$(live_pid "$(pid_file "$1")") || return 1
  { read -r name <"/proc/$pid/comm"; } 2>/dev/null || return 1
  [[ $name == tini ]]
}

# plug_in NODE… are commands for ip(8) in ctl's network that join nodes to the
# bridge by a cable each.
plug_in() {
  local node
  for node; do
    printf 'link add %s type veth peer name eth0 netns %s\n' "$node" "$(machine_pid "$node")"
    printf 'link set %s master br0 up\n' "$node"
  done
}

# give_address NODE… gives each node's end of its cable an address.
give_address() {
  local node
  for node; do
    printf 'link set lo up\naddr add %s/24 dev eth0\nlink set eth0 up\n' "$(address "$node")" |
      nsenter -t "$(machine_pid "$node")" -n ip -batch -
  done
}

# start_network joins all machines by a bridge. It lives in ctl's network
# namespace, so the host never sees it and clusters never meet.
start_network() {
  local ctl nodes
  ctl=$(machine_pid ctl)
  [[ ! "/proc/$ctl/ns/net" -ef /proc/self/ns/net ]] || die "ctl has no network of its own"
  mapfile -t nodes < <(machines | grep -v '^ctl$')
  {
    printf 'link set lo up\nlink add br0 type bridge\n'
    printf 'addr add %s/24 dev br0\nlink set br0 up\n' "$(address ctl)"
    plug_in "${nodes[@]}"
  } | nsenter -t "$ctl" -n ip -batch -
  give_address "${nodes[@]}"
}

# power_off NODE takes away all that a power cut does: processes, memory,
# mounts, the network. What is on its disk stays, as if it had been synced.
power_off() {
  local file
  for file in "$(pid_file "$1")" "$DIR/machines/$1/unshare.pid"; do
    kill_recorded "$file" KILL || die "$1 does not end"
  done
}

# power_on NODE boots it, runs /var/rc.local of its own disk, if there is one,
# and starts slurmd.
power_on() {
  local node=$1
  mkdir -p "$DIR/machines/$node/root/.old"
  start_machine "$node" &
  record_pid "$DIR/machines/$node/unshare.pid" $! || die "$node did not start"
  disown
  wait_for 120 booted "$node" || die "$node did not boot"
  # The cable to the machine that was goes with its network, but not at once.
  nsenter -t "$(machine_pid ctl)" -n ip link delete "$node" 2>/dev/null || true
  plug_in "$node" | nsenter -t "$(machine_pid ctl)" -n ip -batch -
  give_address "$node"
  [[ ! -x $DIR/machines/$node/root/var/rc.local ]] || daemon "$node" /var/rc.local
  grep -qx 'bare 1' "$DIR/options" || daemon "$node" slurmd
}

cmd_power() {
  local how=${1:-} node=${2:-}
  [[ $how == off || $how == on ]] || misuse "power off or on?"
  ours || die "no cluster in $DIR"
  [[ $node != ctl && -d $DIR/machines/$node && -n $node ]] || misuse "no such node: $node"
  lock 60 || die "the cluster in $DIR went down meanwhile"
  if [[ $how == off ]]; then
    power_off "$node"
  else
    gone "$(pid_file "$node")" || die "$node runs"
    power_on "$node"
  fi
}
