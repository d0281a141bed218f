# Bringing a cluster up. Sourced.
# shellcheck shell=bash

# absolute PATH prints it absolute, or ends with an error if it is not there.
absolute() {
  [[ -e $1 ]] || die "no such file: $1"
  realpath -s -- "$1"
}

# add_bind MODE SRC:DST adds to BINDS.
add_bind() {
  local src dst
  src=$(absolute "${2%%:*}")
  dst=${2#*:}
  [[ $2 == *:* ]] || dst=$src
  [[ $dst == /* ]] || misuse "not an absolute path: $dst"
  BINDS+=("$1"$'\t'"$src"$'\t'"$dst")
  printf -v LAST_DST %s "$dst"
}

add_file() {
  [[ $1 == *:/* ]] || misuse "--etc needs FILE:/PATH, not $1"
  FILES+=("$(absolute "${1%%:*}")"$'\t'"${1#*:}")
}

add_plugstack() {
  if [[ -f $1 ]]; then PLUGSTACK+=("$(absolute "$1")"); else PLUGSTACK+=("$1"); fi
}

parse_up() {
  NODES=3 CPUS=8 LIMIT=60 JOB_CONTAINER=0 BARE=0 ROOT='' INSTALL_PATH='' OWNER=''
  PLUGSTACK=() CONF=() GRES=() BINDS=() FILES=()
  while (($#)); do
    case $1 in
      --job-container) JOB_CONTAINER=1 && shift && continue ;;
      --bare) BARE=1 && shift && continue ;;
      --*) (($# > 1)) || misuse "$1 needs a value" ;;&
      --dir) misuse "--dir comes right after the command" ;;
      --nodes) NODES=$2 ;;
      --cpus) CPUS=$2 ;;
      --timeout) LIMIT=$2 ;;
      --root) ROOT=$2 ;;
      --owner) OWNER=$2 ;;
      --plugstack) add_plugstack "$2" ;;
      --conf) [[ $2 == *=* ]] || misuse "--conf needs KEY=VALUE, not $2" ;;&
      --conf) CONF+=("$2") ;;
      --gres) GRES+=("$2") ;;
      --install) add_bind ro "$2" && INSTALL_PATH=$LAST_DST/bin${INSTALL_PATH:+:$INSTALL_PATH} ;;
      --bind) add_bind rw "$2" ;;
      --ro-bind) add_bind ro "$2" ;;
      --etc) add_file "$2" ;;
      *) misuse "unknown option $1" ;;
    esac
    shift 2
  done
  [[ $NODES =~ ^[1-9][0-9]?$ && $CPUS =~ ^[1-9][0-9]*$ && $LIMIT =~ ^[1-9][0-9]*$ ]] ||
    misuse "--nodes, --cpus and --timeout need numbers (at most 99 nodes)"
}

# options_text is what "the same cluster" means.
options_text() {
  local file
  printf '%s\n' "nodes $NODES" "cpus $CPUS" "job-container $JOB_CONTAINER" "bare $BARE" "root $ROOT" "${PLUGSTACK[@]/#/plugstack }" "${GRES[@]/#/gres }" \
    "${CONF[@]/#/conf }" "${BINDS[@]/#/bind }" "${FILES[@]/#/file }"
  for file in "${PLUGSTACK[@]}" "${FILES[@]%%$'\t'*}"; do
    [[ -f $file ]] && cat "$file"
  done
  return 0
}

# lines ARRAY-ELEMENT… prints one line each, and nothing for none.
lines() { ((!$#)) || printf '%s\n' "$@"; }

write_dir() {
  local user
  printf '%s\n' "$NODES" >"$DIR/nodes"
  options_text >"$DIR/options"
  lines "${BINDS[@]}" >"$DIR/binds"
  lines "${FILES[@]}" >"$DIR/files"
  printf '%s' "$INSTALL_PATH" >"$DIR/path"
  mkdir -m 1777 "$DIR/shared"
  printf '%s' "$ROOT" >"$DIR/root"
  write_etc "$DIR/etc"
  [[ -z $ROOT ]] || sed -i '/^berth:/d' "$DIR"/etc/{passwd,group,shadow,gshadow}
  mkdir -m 0755 "$DIR/home"
  for user in alice:2001 bob:2002 carol:2003 dave:2004 erin:2005 frank:2006 grace:2007 heidi:2008; do
    install -d -m 0700 -o "${user#*:}" -g "${user#*:}" "$DIR/home/${user%:*}"
  done
}

start_machines() {
  local machine
  while read -r machine; do
    mkdir -p "$DIR/machines/$machine"
    make_root "$machine"
  done < <(machines)
  write_munge_key
  while read -r machine; do
    start_machine "$machine" &
    record_pid "$DIR/machines/$machine/unshare.pid" $! || die "$machine did not start"
    disown
  done < <(machines)
  while read -r machine; do
    wait_for 120 booted "$machine" || die "$machine did not boot"
  done < <(machines)
}

# give_up is the EXIT trap of up: all or nothing.
give_up() {
  local code=$?
  trap - EXIT
  ((code)) || return 0
  printf 'cluster: up did not succeed; logs of %s:\n' "$DIR" >&2
  cmd_logs 2>&1 | tail -n 200 >&2
  remove_all
  exit "$code"
}

# same_is_up: 0 if this very cluster runs, 1 if none does, an error if DIR has
# a running cluster made with other options.
same_is_up() {
  local machine alive=0 all=0
  [[ -f $DIR/nodes && -f $DIR/ready ]] || return 1
  while read -r machine; do
    all=$((all + 1))
    booted "$machine" && alive=$((alive + 1))
  done < <(machines)
  ((alive == all)) || return 1
  [[ $(options_text) == "$(cat "$DIR/options")" ]] ||
    die "a cluster with other options is up in $DIR; stop it first: cluster down --dir $DIR"
}

bring_up() {
  write_dir
  write_slurm
  start_machines
  start_network
  if ((!BARE)); then
    start_daemons
    wait_for "$LIMIT" all_idle || die "nodes not idle after $LIMIT s"
  fi
  : >"$DIR/ready"
}

cmd_up() {
  local begin
  begin=$(now_ms)
  parse_up "$@"
  cmd_check
  [[ ! -e $DIR ]] || ours || [[ -d $DIR && -z $(ls -A "$DIR") ]] || die "$DIR is in use for something else"
  mkdir -p "$DIR"
  DIR=$(realpath "$DIR")
  lock 60 || die "$DIR was removed meanwhile; try again"
  if ours; then
    same_is_up && printf 'cluster: up already in %s\n' "$DIR" && return 0
    remove_all && cmd_up "$@" && return 0
  fi
  chmod 0700 "$DIR"
  : >"$DIR/.berth-cluster"
  [[ -z $OWNER ]] || start_watcher
  trap give_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  bring_up
  trap - EXIT
  printf 'cluster: %d nodes up in %s after %d ms\n' "$NODES" "$DIR" $(($(now_ms) - begin))
}
