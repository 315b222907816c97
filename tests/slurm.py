"""SLURM from Debian's packages, for one test: munge, controller and one node on this host, in a folder of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = {"munged": "munge", "slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "sbatch": "slurm-wlm"}  # and packages
SBIN = f"{os.environ['PATH']}:/usr/sbin"  # a user's path may be without the daemons

# no cgroups, accounting or separate users: it runs in a container, as anybody
CONF = """\
ClusterName=fly64
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
MailProg=/bin/true
KillWait={kill_wait}
SchedulerParameters=sched_interval=2,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing_packages() -> list[str]:
    """Debian packages that are needed here and not installed."""
    return sorted({package for program, package in PROGRAMS.items() if not shutil.which(program, path=SBIN)})


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [s.getsockname()[1] for s in sockets]


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for a condition; AssertionError after some seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.2)


@contextlib.contextmanager
def slurm(folder: Path, cpus: int = 2, memory: int = 8000, kill_wait: int = 5) -> Iterator[dict[str, str]]:
    """Start SLURM; gives the environment in which `sbatch` and its like find it.

    Parameters
    ----------
    folder : path
        For key, state and logs; made here.
    cpus, memory : int
        What the node says it has: cores, and MB.
    kill_wait : int
        Seconds between a job's SIGTERM and its SIGKILL.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key, conf, host, user = folder / "munge.key", folder / "slurm.conf", socket.gethostname(), getpass.getuser()
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(128))
    node = {"host": host, "user": user, "cpus": cpus, "memory": memory, "kill_wait": kill_wait}
    conf.write_text(CONF.format(folder=folder, ports=free_ports(2), **node))
    environment = {**os.environ, "PATH": SBIN, "SLURM_CONF": str(conf)}
    socket_file = folder / "munge.socket"
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "seed", "log")]
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={socket_file}", *files]
    commands = [munged, ["slurmctld", "-D", "-i"], ["slurmd", "-D", "-N", host]]
    processes: list[subprocess.Popen] = []

    def up() -> bool:
        found = subprocess.run(["sinfo", "-h", "-o", "%t"], env=environment, capture_output=True, text=True)
        return found.stdout.strip() == "idle"

    try:
        for command in commands:
            with open(folder / f"{command[0]}.out", "w") as log:
                processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
            if command is munged:
                wait_until(socket_file.exists, 60, f"munged (see {folder})")
        wait_until(up, 120, f"SLURM's node (see {folder})")
        yield environment
    finally:
        subprocess.run(["scancel", "--user", user], env=environment, timeout=30)
        for process in reversed(processes):
            process.terminate()
            process.wait(30)
