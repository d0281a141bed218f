# Words shared by the other files. Sourced, never run.
# shellcheck shell=bash

# The path that processes inside the cluster get, whatever the caller's is.
# shellcheck disable=SC2034
readonly BASE_PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

die() {
  printf 'cluster: error: %s\n' "$*" >&2
  exit 1
}

misuse() {
  printf 'cluster: %s (see "cluster help")\n' "$*" >&2
  exit 64
}

# cmd_check ends with 77, which test runners take for "skipped", unless a
# cluster can be started here.
cmd_check() {
  local program package missing=()
  while read -r program package; do
    command -v "$program" >/dev/null || missing+=("$package")
  done <<'PROGRAMS'
slurmctld slurmctld
slurmd slurmd
srun slurm-client
munged munge
tini tini
ip iproute2
nsenter util-linux
setpriv util-linux
pgrep procps
perl perl-base
losetup mount
PROGRAMS
  if ((${#missing[@]})); then
    printf 'cluster: missing packages: %s\n' "${missing[*]}" >&2
    printf 'cluster:   apt-get install slurm-wlm-basic-plugins %s\n' "${missing[*]}" >&2
    exit 77
  fi
  compgen -G '/usr/lib/*/slurm-wlm/select_cons_tres.so' >/dev/null || {
    printf 'cluster: missing package: slurm-wlm-basic-plugins\n' >&2
    exit 77
  }
  ((EUID == 0)) || {
    printf 'cluster: only root can start a cluster\n' >&2
    exit 77
  }
}

# now_ms prints milliseconds since the epoch; no fork, no floating point.
now_ms() {
  printf '%s\n' "$((${EPOCHREALTIME/[^0-9]/} / 1000))"
}

# wait_for SECONDS CMD… runs CMD every 50 ms until it succeeds; 1 at the end.
wait_for() {
  local end=$(($(now_ms) + $1 * 1000))
  shift
  until "$@"; do
    (($(now_ms) < end)) || return 1
    sleep 0.05
  done
}

# start_time PID prints when PID was started, in clock ticks since boot: with
# it a recorded pid that was given to another process is not taken for ours.
start_time() {
  local stat
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
  local fields
  read -ra fields <<<"${stat##*) }"
  printf '%s\n' "${fields[19]}"
}

# record_pid FILE PID remembers a process by its pid and start time.
record_pid() {
  local start
  start=$(start_time "$2") || return 1
  printf '%s %s\n' "$2" "$start" >"$1.new"
  mv "$1.new" "$1"
}

# live_pid FILE prints the recorded pid if that very process still lives.
live_pid() {
  local pid start state
  { read -r pid start <"$1"; } 2>/dev/null || return 1
  [[ $(start_time "$pid") == "$start" ]] || return 1
  { read -r state <"/proc/$pid/stat"; } 2>/dev/null || return 1
  state=${state##*) }
  [[ ${state%% *} != Z ]] || return 1
  printf '%s\n' "$pid"
}

gone() { ! live_pid "$1" >/dev/null; }

# kill_recorded FILE SIGNAL… sends each signal, waiting 5 s after it, until the
# recorded process is gone, at most a minute after the last.
kill_recorded() {
  local file=$1 pid signal
  shift
  for signal; do
    pid=$(live_pid "$file") || break
    kill -s "$signal" "$pid" 2>/dev/null || true
    wait_for 5 gone "$file" && break
  done
  wait_for 60 gone "$file"
}

# close_inherited closes what a caller left open (a test runner's pipes, the
# lock): a daemon that holds a pipe keeps its reader waiting for ever.
close_inherited() {
  local fd
  for fd in /proc/self/fd/*; do
    fd=${fd##*/}
    ((fd > 2 && fd != 255)) && eval "exec $fd>&-"
  done
  return 0
}

machines() {
  local i
  printf 'ctl\n'
  for ((i = 1; i <= $(cat "$DIR/nodes"); i++)); do printf 'n%d\n' "$i"; done
}

# ours: DIR is a cluster's folder and nothing else.
ours() { [[ -f $DIR/.berth-cluster ]]; }

# lock makes up, down, spawn and stop of one DIR wait for each other.
lock() {
  local seconds=$1
  while :; do
    exec {LOCK}<"$DIR" || die "cannot open $DIR"
    flock -w "$seconds" "$LOCK" || die "another command holds $DIR for over $seconds s"
    # down removes DIR while others wait for its lock
    [[ "/proc/self/fd/$LOCK" -ef $DIR ]] && return 0
    exec {LOCK}<&-
    [[ -d $DIR ]] || return 1
  done
}
