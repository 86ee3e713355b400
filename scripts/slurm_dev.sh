#!/usr/bin/env bash
# A one-node Slurm cluster on the loopback address, for testing job submission.
#
#   slurm_dev.sh install   install the Debian packages it needs, if missing
#   slurm_dev.sh start     start munged, slurmctld and slurmd; wait until the node is idle
#   slurm_dev.sh env       print the line that points sbatch, srun, squeue and sacct at it
#   slurm_dev.sh status    what runs, and the queue
#   slurm_dev.sh stop      cancel the jobs and end the daemons that `start` started, by pid
#
# Everything lives under $SLURM_DEV_DIR (default: slurm-dev in the temporary directory). Safe to run again.
#
# Settings read by `start`:
#   SLURM_DEV_CPUS      CPUs of the node (default: nproc)
#   SLURM_DEV_PORT      first of two ports (default 16817)
#   SLURM_DEV_SACCT     1 (default): a stand-in `sacct` fed from slurmctld's own job records,
#                       since a real one needs a database; 0: none, so `sacct` fails;
#                       db: the real thing, with slurmdbd and MariaDB (slower to start)
set -euo pipefail

DIR=${SLURM_DEV_DIR:-${TMPDIR:-/tmp}/slurm-dev}
CPUS=${SLURM_DEV_CPUS:-$(nproc)}
PORT=${SLURM_DEV_PORT:-16817}
SACCT=${SLURM_DEV_SACCT:-1}
HOST=$(hostname -s)
PATH=$PATH:/usr/sbin:/sbin

say() { printf 'slurm-dev: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The pid in a pid file, if that process is alive and is the program we expect.
running() { # program pidfile
    local pid
    [ -s "$2" ] || return 1
    pid=$(tr -dc 0-9 <"$2")
    [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ] || return 1
    # and it was started from our folder, so that another cluster is left alone
    cat "/proc/$pid/cmdline" "/proc/$pid/environ" 2>/dev/null | tr '\0' '\n' | grep -qF -- "$DIR/" || return 1
    printf '%s\n' "$pid"
}

wait_for() { # seconds command...
    local end=$((SECONDS + $1)); shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}

end_program() { # program pidfile
    local pid end
    pid=$(running "$1" "$2") || { rm -f "$2"; return 0; }
    kill "$pid" 2>/dev/null || true
    end=$((SECONDS + 10))
    while kill -0 "$pid" 2>/dev/null; do
        if [ $SECONDS -ge $end ]; then kill -9 "$pid" 2>/dev/null || true; sleep 0.3; break; fi
        sleep 0.1
    done
    rm -f "$2"
}

packages() {
    local p="munge slurmctld slurmd slurm-client"
    [ "$SACCT" = db ] && p="$p slurmdbd mariadb-server"
    echo "$p"
}

do_install() {
    local missing="" p
    for p in $(packages); do
        dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
    done
    [ -n "$missing" ] || return 0
    say "installing$missing"
    apt-get update -qq
    # The packages would start system-wide daemons; on a machine without an init system that is
    # a no-op, and elsewhere this keeps them from starting.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

write_config() {
    mkdir -p "$DIR"/{etc,log,run,state,spool,munge}
    chmod 700 "$DIR/munge"; chmod 755 "$DIR" "$DIR/run"
    if [ ! -s "$DIR/munge/key" ]; then
        (umask 077; dd if=/dev/urandom of="$DIR/munge/key" bs=1024 count=1 status=none)
    fi
    local mem; mem=$(awk '/MemTotal/ {print int($2 / 1024) - 256}' /proc/meminfo)
    local acct=none dbd=""
    if [ "$SACCT" = db ]; then acct=slurmdbd dbd="AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((PORT + 2))
AccountingStoragePass=$DIR/run/munge.socket"; fi
    cat >"$DIR/etc/slurm.conf" <<CONF
ClusterName=dev
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=$PORT
SlurmdPort=$((PORT + 1))
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket=$DIR/run/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.log
# no control groups; a job above its memory is killed by what samples it each second
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
# two CPUs are two CPUs
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=$((mem / CPUS))
# quick reactions, so that tests are short
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=100000,batch_sched_delay=0,requeue_setup_env_fail,preempt_send_user_signal
KillWait=5
MinJobAge=600
InactiveLimit=0
ReturnToService=2
OverTimeLimit=0
JobRequeue=1
# jobs of "high" put jobs of "low" back into the queue
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/$acct
$dbd
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/log/jobcomp.log
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=$CPUS RealMemory=$mem State=UNKNOWN
PartitionName=dev  Nodes=$HOST Default=YES MaxTime=INFINITE State=UP PriorityTier=5 PreemptMode=OFF
PartitionName=low  Nodes=$HOST MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=4
PartitionName=high Nodes=$HOST MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
CONF
    # never look at control groups, and need no D-Bus
    printf 'CgroupPlugin=cgroup/v1\nConstrainCores=no\n' >"$DIR/etc/cgroup.conf"
    : >"$DIR/etc/plugstack.conf"
}

write_sacct() {
    rm -rf "$DIR/bin"
    [ "$SACCT" = 1 ] || return 0
    mkdir -p "$DIR/bin"
    cat >"$DIR/bin/sacct" <<'PY'
#!/usr/bin/env python3
"""sacct -o JobID,State,NodeList --parsable2 -j ID [-j ID ...], answered from `scontrol show job`.

slurmctld keeps finished jobs for MinJobAge seconds (600 in this cluster).
"""
import re, subprocess, sys
ids = [a for f, a in zip(sys.argv[1:], sys.argv[2:]) if f in ("-j", "--jobs")]
ids += [a.split("=", 1)[1] for a in sys.argv[1:] if a.startswith("--jobs=")]
print("JobID|State|NodeList")
for job in (j for a in ids for j in a.split(",")):
    out = subprocess.run(["scontrol", "-o", "show", "job", job], capture_output=True, text=True).stdout
    for line in out.splitlines():
        f = dict(re.findall(r"(\w+)=(\S*)", line))
        if "JobId" not in f:
            continue
        name = f["JobId"]
        if "ArrayTaskId" in f:
            task = f["ArrayTaskId"]
            name = f["ArrayJobId"] + "_" + (task if task.isdigit() else f"[{task}]")
        print(f"{name}|{f['JobState']}|{f.get('NodeList', '')}")
PY
    chmod 755 "$DIR/bin/sacct"
}

start_db() {
    local sock=$DIR/run/mysql.sock data=$DIR/mysql
    if ! running mariadbd "$DIR/run/mysql.pid" >/dev/null; then
        [ -d "$data/mysql" ] || { mkdir -p "$data"; mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$data" --skip-test-db >"$DIR/log/mysql-install.log" 2>&1; }
        setsid mariadbd --no-defaults --user="$(id -un)" --datadir="$data" --socket="$sock" --pid-file="$DIR/run/mysql.pid" \
            --port=$((PORT + 3)) --bind-address=127.0.0.1 --innodb-buffer-pool-size=64M --log-error="$DIR/log/mysql.log" </dev/null >/dev/null 2>&1 &
        wait_for 60 mariadb-admin --no-defaults --socket="$sock" ping || die "MariaDB did not start, see $DIR/log/mysql.log"
        mariadb --no-defaults --socket="$sock" -e "CREATE DATABASE IF NOT EXISTS slurm_acct_db;
            CREATE USER IF NOT EXISTS 'slurm'@'localhost' IDENTIFIED BY 'slurm'; CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1' IDENTIFIED BY 'slurm';
            GRANT ALL ON slurm_acct_db.* TO 'slurm'@'localhost'; GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';"
    fi
    cat >"$DIR/etc/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$DIR/run/munge.socket
DbdHost=$HOST
DbdAddr=127.0.0.1
DbdPort=$((PORT + 2))
SlurmUser=$(id -un)
LogFile=$DIR/log/slurmdbd.log
PidFile=$DIR/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((PORT + 3))
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
CommunicationParameters=NoInAddrAny
CONF
    chmod 600 "$DIR/etc/slurmdbd.conf"
    if ! running slurmdbd "$DIR/run/slurmdbd.pid" >/dev/null; then
        SLURM_CONF=$DIR/etc/slurm.conf setsid slurmdbd -D </dev/null >"$DIR/log/slurmdbd.out" 2>&1 &
        echo $! >"$DIR/run/slurmdbd.pid"
        wait_for 60 sacctmgr -n list cluster || die "slurmdbd did not start, see $DIR/log/slurmdbd.log"
        sacctmgr -n list cluster format=cluster | grep -qw dev || sacctmgr -i add cluster dev >/dev/null
    fi
}

do_start() {
    local c
    [ "$(id -u)" = 0 ] || die "run as root (slurmd starts jobs as their owners)"
    for c in munged slurmctld slurmd scontrol; do
        command -v $c >/dev/null || die "$c is missing; run: $0 install"
    done
    export SLURM_CONF=$DIR/etc/slurm.conf
    if running slurmctld "$DIR/run/slurmctld.pid" >/dev/null && running slurmd "$DIR/run/slurmd.pid" >/dev/null; then
        say "already running"; return 0
    fi
    do_stop
    write_config
    write_sacct
    munged --force --key-file="$DIR/munge/key" --socket="$DIR/run/munge.socket" --pid-file="$DIR/run/munged.pid" \
        --log-file="$DIR/log/munged.log" --seed-file="$DIR/munge/seed" --num-threads=2
    wait_for 10 munge -n -S "$DIR/run/munge.socket" || die "munged did not start, see $DIR/log/munged.log"
    [ "$SACCT" = db ] && start_db
    slurmctld -f "$SLURM_CONF" -L "$DIR/log/slurmctld.log"
    wait_for 20 scontrol ping || die "slurmctld did not start, see $DIR/log/slurmctld.log"
    slurmd -f "$SLURM_CONF" -L "$DIR/log/slurmd.log"
    wait_for 30 sh -c "sinfo -h -p dev -o %t | grep -qE '^(idle|mix|alloc)$'" \
        || die "the node did not come up, see $DIR/log/slurmd.log"
    say "ready: $CPUS CPUs on $HOST"
}

do_stop() {
    export SLURM_CONF=$DIR/etc/slurm.conf
    if running slurmctld "$DIR/run/slurmctld.pid" >/dev/null && [ -r "$SLURM_CONF" ]; then
        local j; j=$(timeout 5 squeue -h -o %A 2>/dev/null | sort -u || true)
        if [ -n "$j" ]; then
            timeout 10 scancel $j 2>/dev/null || true
            wait_for 12 sh -c '[ -z "$(squeue -h -o %A)" ]' || say "some jobs did not end in time"
        fi
    fi
    end_program slurmd "$DIR/run/slurmd.pid"
    end_program slurmctld "$DIR/run/slurmctld.pid"
    end_program slurmdbd "$DIR/run/slurmdbd.pid"
    end_program mariadbd "$DIR/run/mysql.pid"
    end_program munged "$DIR/run/munged.pid"
    # forget old jobs, so that the next start begins with an empty queue
    rm -rf "$DIR/state" "$DIR/spool"
}

do_env() {
    if [ "$SACCT" = 1 ]; then printf 'export SLURM_CONF=%q PATH=%q:$PATH\n' "$DIR/etc/slurm.conf" "$DIR/bin"
    else printf 'export SLURM_CONF=%q\n' "$DIR/etc/slurm.conf"; fi
}

do_status() {
    local p
    for p in munged slurmctld slurmd slurmdbd; do
        if running $p "$DIR/run/$p.pid" >/dev/null; then say "$p runs (pid $(running $p "$DIR/run/$p.pid"))"; else say "$p: not running"; fi
    done
    running slurmctld "$DIR/run/slurmctld.pid" >/dev/null || return 3
    export SLURM_CONF=$DIR/etc/slurm.conf
    timeout 5 sinfo; timeout 5 squeue -a
}

case ${1:-} in
    install) do_install ;;
    start)   do_start ;;
    stop)    do_stop; say "stopped" ;;
    env)     do_env ;;
    status)  do_status ;;
    *) sed -n '2,/^set -e/p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 2 ;;
esac
