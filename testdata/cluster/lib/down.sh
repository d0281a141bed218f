# Taking a cluster down. Sourced.
# shellcheck shell=bash

# detach_loops frees loop devices whose file lies in the cluster's folder. One
# that was set to free itself is gone with the last mount; a test that ended
# between losetup and mount leaves another kind. Files are told by device and
# inode, for the names that the kernel knew are gone with the machines.
detach_loops() {
  local name inode device held
  while read -r name inode device; do
    held=$(find "$DIR/machines" "$DIR/home" "$DIR/shared" -xdev -inum "$inode" -type f -print -quit 2>/dev/null) || true
    [[ -n $held && $(stat -c %Hd:%Ld "$held") == "$device" ]] || continue
    losetup -d "$name"
  done < <(losetup -n -l -O NAME,BACK-INO,BACK-MAJ:MIN 2>/dev/null)
}

# stop_machines kills process number 1 of each machine: the kernel then kills
# everything in its pid namespace, and mounts and network go with the rest.
stop_machines() {
  local file failed=0
  for file in "$DIR"/spawned/*.pid "$DIR"/machines/*/pid "$DIR"/machines/*/unshare.pid; do
    [[ -f $file ]] || continue
    kill_recorded "$file" KILL || failed=1
  done
  return "$failed"
}

# watch OWNER is the process that --owner leaves on the host: it takes the
# cluster down when OWNER is gone, be it killed, so that a test runner that
# times out leaves nothing.
watch() {
  tail --pid "$1" -f /dev/null
  cmd_down "${@:2}"
}

start_watcher() {
  (
    close_inherited
    exec </dev/null >>"$DIR/watcher.log" 2>&1
    exec setsid bash "$HERE/cluster" watch --dir "$DIR" "$OWNER"
  ) &
  record_pid "$DIR/watcher.pid" $!
  disown
}

# stop_watcher is harmless in the watcher itself.
stop_watcher() {
  local pid
  pid=$(live_pid "$DIR/watcher.pid") || return 0
  ((pid == $$)) && return 0
  pkill -KILL -P "$pid" tail || true
  kill_recorded "$DIR/watcher.pid" KILL
}

# remove_all does the work of down; DIR is known to be ours and locked.
remove_all() {
  stop_watcher
  stop_machines || die "some processes of $DIR do not end: $(cat "$DIR"/machines/*/pid)"
  detach_loops
  rm -rf --one-file-system "$DIR"
}

cmd_down() {
  (($#)) && misuse "down takes no $1"
  [[ -e $DIR ]] || return 0
  ours || die "$DIR is not a cluster's folder; nothing removed"
  lock 60 || return 0
  remove_all
}
