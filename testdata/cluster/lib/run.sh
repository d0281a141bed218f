# Running things on the machines. Sourced.
# shellcheck shell=bash

# in_machine MACHINE SECONDS CMD… runs CMD as root.
in_machine() {
  local pid seconds=$2
  pid=$(machine_pid "$1")
  shift 2
  timeout -k 5 "$seconds" nsenter -t "$pid" -m -u -i -n -p -- \
    env -i -C / PATH="$BASE_PATH" LC_ALL=C "$@"
}

# parse_run reads the options of run and spawn into USER_NAME, ENVIRONMENT,
# SECONDS_LEFT and ARGV.
parse_run() {
  USER_NAME=root ENVIRONMENT=() TIME_LIMIT=120
  while (($#)); do
    case $1 in
      -u) USER_NAME=${2:?-u needs a user} && shift 2 ;;
      -e) ENVIRONMENT+=("${2:?-e needs NAME=VALUE}") && shift 2 ;;
      --timeout) TIME_LIMIT=${2:?--timeout needs seconds} && shift 2 ;;
      --) shift && break ;;
      -*) misuse "unknown option $1" ;;
      *) break ;;
    esac
  done
  (($#)) || misuse "no command given"
  ARGV=("$@")
}

# enter_command MACHINE sets ENTER to the command line that runs ARGV there as
# USER_NAME, with a login's environment. Whoever kills nsenter on the host ends
# the command too: its child asks for a signal at its parent's death.
enter_command() {
  local machine=$1 pid home as=() path=$BASE_PATH
  pid=$(machine_pid "$machine")
  home=$(awk -F: -v u="$USER_NAME" '$1 == u { print $6 }' "$DIR/etc/passwd")
  [[ -n $home ]] || die "no user $USER_NAME in the cluster"
  [[ $home == /nonexistent ]] && home=/
  [[ $USER_NAME == root ]] || as=(--reuid "$USER_NAME" --regid "$USER_NAME" --init-groups)
  [[ -s $DIR/path ]] && path=$(cat "$DIR/path"):$path
  ENTER=(nsenter -t "$pid" -m -u -i -n -p --
    setpriv "${as[@]}" --pdeathsig TERM
    env -i -C "$home" "PATH=$path" "HOME=$home" "USER=$USER_NAME" "LOGNAME=$USER_NAME"
    SHELL=/bin/bash LANG=C.UTF-8 "${ENVIRONMENT[@]}")
}

cmd_run() {
  local machine=${1:?run needs a machine} foreground=()
  shift
  parse_run "$@"
  enter_command "$machine"
  # A command in a process group of its own could not read its terminal.
  [[ -t 0 ]] && foreground=(--foreground) && ENVIRONMENT+=("TERM=${TERM:-dumb}")
  exec "${ENTER[@]}" timeout "${foreground[@]}" -k 5 "$TIME_LIMIT" "${ARGV[@]}"
}

cmd_spawn() {
  local machine=${1:?spawn needs a machine} name=${2:?spawn needs a name}
  shift 2
  [[ $name =~ ^[A-Za-z0-9._-]+$ ]] || misuse "not a name: $name"
  parse_run "$@"
  ours || die "no cluster in $DIR"
  lock 120 || die "the cluster in $DIR went down meanwhile"
  enter_command "$machine"
  mkdir -p "$DIR/spawned"
  gone "$DIR/spawned/$name.pid" || die "$name runs already"
  (
    close_inherited
    exec </dev/null >"$DIR/spawned/$name.log" 2>&1
    exec setsid "${ENTER[@]}" "${ARGV[@]}"
  ) &
  record_pid "$DIR/spawned/$name.pid" $! || die "$name ended at once: $(cat "$DIR/spawned/$name.log")"
}

# cmd_stop ends a spawned command: TERM to it, KILL 5 s later. Its nsenter on
# the host, whose pid is recorded, then ends with it.
cmd_stop() {
  local name=${1:?stop needs a name} file pid signal
  file=$DIR/spawned/$name.pid
  [[ -f $file ]] || die "nothing spawned with the name $name"
  for signal in TERM KILL; do
    pid=$(live_pid "$file") || break
    pkill -s 0 -"$signal" -P "$pid" 2>/dev/null || pkill -"$signal" -P "$pid" || true
    wait_for 5 gone "$file" && break
  done
  wait_for 60 gone "$file" || die "$name cannot be stopped"
  rm -f "$file"
}

cmd_logs() {
  local only=${1:-} file
  ours || die "no cluster in $DIR"
  for file in "$DIR"/machines/*/{boot,daemons}.log \
    "$DIR"/machines/*/root/var/log/{munge/munged,slurm/slurmctld,slurm/slurmd}.log "$DIR"/spawned/*.log; do
    [[ -s $file ]] || continue
    [[ -z $only || $file == "$DIR/machines/$only/"* ]] || continue
    printf '== %s\n' "${file#"$DIR/"}"
    cat "$file"
  done
}

cmd_status() {
  ours || die "no cluster in $DIR"
  local machine file
  while read -r machine; do
    printf '%s\t%s\tpid %s\n' "$machine" "$(address "$machine")" "$(live_pid "$(pid_file "$machine")" || echo -)"
  done < <(machines)
  for file in "$DIR"/spawned/*.pid; do
    [[ -f $file ]] || continue
    printf '%s\tspawned\tpid %s\n' "$(basename "$file" .pid)" "$(live_pid "$file" || echo -)"
  done
  in_machine ctl 30 sinfo -N -o '%N %T %E'
  in_machine ctl 30 squeue -a
}

cmd_wait_idle() {
  local seconds=180
  [[ ${1:-} == --timeout ]] && seconds=${2:?--timeout needs seconds}
  ours || die "no cluster in $DIR"
  wait_for "$seconds" all_idle || {
    cmd_status >&2
    die "not idle after $seconds s"
  }
}
