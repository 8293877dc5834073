"""A Slurm of this machine alone, with its own files: munged, slurmctld and slurmd, where they are installed."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.probes.fleet.running import within

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"
CONFIGURATION = """
ClusterName=site
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
SlurmUser=root
SlurmctldPort={first}
SlurmdPort={second}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=2048 Gres=gpu:h100:2 State=UNKNOWN
PartitionName=gpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there can be no Slurm here; None where there can."""
    absent = [name for name in DAEMONS if not shutil.which(name, path=SYSTEM)]
    if absent:
        return f"not installed: {', '.join(absent)}"
    return None if os.geteuid() == 0 else "slurmd starts jobs as root alone"


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Two H100, as far as Slurm knows; the environment in which its commands find it."""
    host = socket.gethostname().partition(".")[0]
    first, second = free_ports()
    for name in ("state", "spool"):
        (folder / name).mkdir()
    for name in ("card0", "card1"):
        (folder / name).touch()
    cores = os.cpu_count() or 1
    text = CONFIGURATION.format(host=host, folder=folder, first=first, second=second, cores=cores)
    (folder / "slurm.conf").write_text(text)
    (folder / "gres.conf").write_text(f"Name=gpu Type=h100 File={folder}/card[0-1]\n")
    (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
    (folder / "munge.key").chmod(0o400)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:{SYSTEM}"}
    files = {name: f"{folder}/munge.{name}" for name in ("key", "sock", "pid", "log", "seed")}
    munge = ["munged", "--foreground", "--force", f"--key-file={files['key']}", f"--socket={files['sock']}"]
    munge += [f"--pid-file={files['pid']}", f"--log-file={files['log']}", f"--seed-file={files['seed']}"]
    with ExitStack() as stack:
        stack.enter_context(daemon(munge, folder / "munged.log", environment))
        within(lambda: (folder / "munge.sock").exists(), "munge's socket")
        stack.enter_context(daemon(["slurmctld", "-D", "-c"], folder / "slurmctld.log", environment))
        stack.enter_context(daemon(["slurmd", "-D"], folder / "slurmd.log", environment))
        within(lambda: "idle" in answer(["sinfo", "--noheader", "-o", "%t"], environment), "a node that is idle")
        try:
            yield environment
        finally:
            answer(["scancel", "--full", "--signal=KILL", "--user=root"], environment)


def answer(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout.strip()


@contextmanager
def daemon(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[None]:
    with log.open("wb") as said, subprocess.Popen(command, env=environment, stdout=said, stderr=said) as process:
        try:
            yield
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.send_signal(signal.SIGKILL)
