# Slurm's configuration and daemons. Sourced.
# shellcheck shell=bash

# slurm_defaults prints slurm.conf without what --conf gives. Timings are for
# tests: the scheduler acts at once and nothing polls slowly.
slurm_defaults() {
  cat <<'CONF'
ClusterName=berth
SlurmctldHost=ctl
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
SlurmctldDebug=info
SlurmdDebug=debug
PlugStackConfig=/etc/slurm/plugstack.conf
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=1
MpiDefault=none
ReturnToService=2
KillWait=5
InactiveLimit=0
MessageTimeout=60
TCPTimeout=5
CONF
}

# slurm_conf prints slurm.conf; a key that --conf gives replaces the default.
slurm_conf() {
  local line key node overrides=" "
  for line in "${CONF[@]}"; do
    key=${line%%=*}
    [[ ${key,,} == nodename || ${key,,} == partitionname ]] || overrides+="${key,,} "
  done
  while IFS= read -r line; do
    key=${line%%=*}
    [[ $overrides == *" ${key,,} "* ]] || printf '%s\n' "$line"
  done < <(slurm_defaults)
  ((${#CONF[@]})) && printf '%s\n' "${CONF[@]}"
  for ((node = 1; node <= NODES; node++)); do
    printf 'NodeName=n%d NodeAddr=%s Sockets=1 CoresPerSocket=%d ThreadsPerCore=1 RealMemory=8000 State=UNKNOWN\n' \
      "$node" "$(address "n$node")" "$CPUS"
  done
  printf 'PartitionName=main Nodes=n[1-%d] Default=YES MaxTime=60 State=UP\n' "$NODES"
}

# use_job_container turns --job-container into the slurm.conf lines it needs.
use_job_container() {
  local i flags=
  for i in "${!CONF[@]}"; do
    [[ ${CONF[i],,} == prologflags=* ]] || continue
    flags=${CONF[i]#*=},
    unset "CONF[i]"
  done
  CONF+=("JobContainerType=job_container/tmpfs" "PrologFlags=${flags}Contain")
  printf 'AutoBasePath=true\nBasePath=/var/lib/slurm/containers\n' >"$DIR/slurm/job_container.conf"
}

write_slurm() {
  mkdir -p "$DIR/slurm"
  # 22.05's slurmd loads a cgroup plugin always and finds none by itself in a
  # namespace; this one touches nothing as long as no plugin asks it to.
  printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n' >"$DIR/slurm/cgroup.conf"
  ((JOB_CONTAINER)) && use_job_container
  slurm_conf >"$DIR/slurm/slurm.conf"
  ((${#GRES[@]})) && printf '%s\n' "${GRES[@]}" >"$DIR/slurm/gres.conf"
  : >"$DIR/slurm/plugstack.conf"
  local entry
  for entry in "${PLUGSTACK[@]}"; do
    if [[ -f $entry ]]; then cat "$entry"; else printf '%s\n' "$entry"; fi
  done >>"$DIR/slurm/plugstack.conf"
}

write_munge_key() {
  local key=$DIR/machines/ctl/root/var/lib/munge/key
  head -c 128 /dev/urandom >"$key"
  chmod 0400 "$key"
  chown 981:981 "$key"
  install -d -m 0755 -o 981 -g 981 "$DIR/munge"
}

# daemon MACHINE CMD… starts a daemon that puts itself into the background.
daemon() {
  local machine=$1 pid
  shift
  pid=$(machine_pid "$machine")
  (
    close_inherited
    exec </dev/null >>"$DIR/machines/$machine/daemons.log" 2>&1
    exec timeout 120 nsenter -t "$pid" -m -u -i -n -p -- \
      env -i -C / PATH="$BASE_PATH" LC_ALL=C "$@"
  ) || die "$machine: $1 did not start: $(tail -n 5 "$DIR/machines/$machine/daemons.log")"
}

start_daemons() {
  local machine pids=() pid
  daemon ctl setpriv --reuid munge --regid munge --clear-groups munged --key-file /var/lib/munge/key
  daemon ctl slurmctld -c
  while read -r machine; do
    [[ $machine == ctl ]] && continue
    daemon "$machine" slurmd &
    pids+=($!)
  done < <(machines)
  for pid in "${pids[@]}"; do wait "$pid" || return 1; done
}

# all_idle: every node is registered and no job is left.
all_idle() {
  local states
  # A node in several partitions has a line for each.
  states=$(in_machine ctl 30 sinfo -h -N -o '%N %T' 2>/dev/null | sort -u) || return 1
  [[ $(cut -d ' ' -f 2 <<<"$states" | sort -u) == idle && $(wc -l <<<"$states") == "$(cat "$DIR/nodes")" ]] || return 1
  [[ -z $(in_machine ctl 30 squeue -h -a 2>/dev/null) ]]
}
