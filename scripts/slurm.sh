#!/bin/sh
# SLURM of one node from Debian's packages, without systemd and cgroups, for tests and for trying recipes out.
#
#   scripts/slurm.sh install            packages; does nothing where they are
#   scripts/slurm.sh run FOLDER         starts munged, slurmctld and slurmd in FOLDER, and ends them with itself
#
# FOLDER/slurm.conf appears when sbatch can be used: export SLURM_CONF=FOLDER/slurm.conf.
set -eu
PATH=$PATH:/usr/sbin:/sbin  # where Debian puts daemons, and not every user looks

install() {
    command -v slurmctld >/dev/null && command -v munged >/dev/null && return
    "$(dirname "$0")/debian.sh" slurm-wlm munge
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

configure() {
    node=$(hostname -s)
    # Not nproc: it answers OMP_NUM_THREADS, which dask sets for its workers and what starts them.
    cores=$(getconf _NPROCESSORS_ONLN)
    megabytes=$(awk '/MemTotal/ {print int($2 / 1024 * 0.95)}' /proc/meminfo)
    cat <<CONF
ClusterName=lungmix
SlurmctldHost=$node(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
MpiDefault=none
ReturnToService=2
NodeName=$node NodeAddr=127.0.0.1 NodeHostname=$node CPUs=$cores RealMemory=$megabytes State=UNKNOWN
PartitionName=normal Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
}

stop() {
    trap - EXIT INT TERM
    # Only what this script has started, by its ids.
    for pid in $started; do kill "$pid" 2>/dev/null || true; done
    for pid in $started; do wait "$pid" 2>/dev/null || true; done
}

run() {
    folder=$(mkdir -p "$1" && cd "$1" && pwd)
    started=
    trap stop EXIT
    trap 'exit 0' INT TERM
    mkdir -p "$folder/state" "$folder/spool"
    # munged wants its folders to be open to no one else.
    chmod 0755 "$folder"
    (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
    munged --foreground --force --socket="$folder/munge.socket" --key-file="$folder/munge.key" \
        --log-file="$folder/munge.log" --pid-file="$folder/munge.pid" --seed-file="$folder/munge.seed" 2>>"$folder/munge.err" &
    started="$started $!"
    configure >"$folder/starting.conf"
    until [ -S "$folder/munge.socket" ]; do sleep 0.1; done
    SLURM_CONF=$folder/starting.conf
    export SLURM_CONF
    slurmctld -D 2>>"$folder/slurmctld.err" &
    started="$started $!"
    slurmd -D -N "$(hostname -s)" 2>>"$folder/slurmd.err" &
    started="$started $!"
    until sinfo --noheader --format=%t 2>/dev/null | grep -q idle; do sleep 0.2; done
    ln -s starting.conf "$folder/slurm.conf"
    wait
}

case "${1:-}" in
    install) install ;;
    run) run "$2" ;;
    *) echo "usage: $0 install | run FOLDER" >&2; exit 2 ;;
esac
