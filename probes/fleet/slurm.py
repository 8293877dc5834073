"""An sbatch script: an array of workers, one GPU each.

Options: sbatch(1) of Slurm 22.05 and later. The batch shell becomes the worker (``exec``), so that the SIGTERM which
``--signal=B:`` sends to that shell before the time is over is the worker's to hear, with nothing to forward it.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

from ctxplan.variables import API_KEY
from probes.fleet.errors import FleetOptionError
from probes.fleet.order import Order, check_no_secret, check_text

SHELL = "#!/bin/bash"
WORD = r"[A-Za-z0-9_.-]{1,120}"
LIST = r"[A-Za-z0-9_.,-]{1,200}"
FEATURES = r"[A-Za-z0-9_.&|*()\[\]:,=-]{1,200}"
FILE = r"[A-Za-z0-9_./%~+-]{1,400}"
TIME = r"\d+|\d+:\d+(:\d+)?|\d+-\d+(:\d+){0,2}"
TIMES = "MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS, DAYS-HOURS, DAYS-HOURS:MINUTES or DAYS-HOURS:MINUTES:SECONDS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slurm:
    """What the site wants to know; names as the site has them.

    Attributes:
        gpu: the type in the generic resource ``gpu:TYPE:1``; None: any. image: of Apptainer; None: what is installed.
        setup: lines of shell before the worker, as they are. key_file: holds the API key, on the nodes; None: sbatch
            hands over the environment that it was called in, with the key. state: a folder that outlives the job, for
            results that wait.

    Raises:
        FleetOptionError: on creation, for what cannot be written into a script.
    """

    name: str = "ctxplan-worker"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpu: str | None = None
    time: str | None = None
    cpus: int = 8
    memory_gib: int = 64
    log: str = "%x-%A_%a.log"
    image: str | None = None
    setup: tuple[str, ...] = field(default=())
    key_file: str | None = None
    state: str | None = None

    def __post_init__(self) -> None:
        letters = "letters, digits, _ . -"
        check_text("name", self.name, WORD, letters)
        check_text("partition", self.partition, LIST, f"{letters}, with commas between several")
        check_text("account", self.account, WORD, letters)
        check_text("qos", self.qos, WORD, letters)
        check_text("constraint", self.constraint, FEATURES, "features, with & | and brackets between them")
        check_text("gpu", self.gpu, WORD, f"the site's name of a type of GPU: {letters}")
        check_text("time", self.time, TIME, TIMES)
        check_text("log", self.log, FILE, "a path without spaces, and sbatch's own %x %A %a %N")
        for key, text in (("image", self.image), ("key_file", self.key_file), ("state", self.state)):
            check_text(key, text, r"[^\x00-\x1f\x7f]{1,4000}", "a path")
        for line in self.setup:
            check_no_secret("setup", line)
            if not line.isprintable() or line.startswith("#SBATCH"):
                raise FleetOptionError("is no line of shell", key="setup", allowed="one line each, no #SBATCH")
        for key, number, most in (("cpus", self.cpus, 1024), ("memory", self.memory_gib, 100_000)):
            if not 1 <= number <= most:
                raise FleetOptionError(f"{number} is not accepted", key=key, allowed=f"1 to {most}")


def sbatch_script(order: Order, slurm: Slurm) -> str:
    """The script, for ``sbatch``; it ends with a newline and holds no secret."""
    lines = [SHELL, *(f"#SBATCH --{name}" for name in _options(order, slurm)), "", *_body(order, slurm)]
    return "\n".join(lines) + "\n"


def _options(order: Order, slurm: Slurm) -> list[str]:
    given = {
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "time": slurm.time,
    }
    resources = [] if order.cpu else [f"gres=gpu:{slurm.gpu}:1" if slurm.gpu else "gres=gpu:1"]
    return [
        f"job-name={slurm.name}",
        f"array=0-{order.workers - 1}",
        "nodes=1",
        "ntasks=1",
        *resources,
        f"cpus-per-task={slurm.cpus}",
        f"mem={slurm.memory_gib}G",
        *(f"{name}={text}" for name, text in given.items() if text is not None),
        # To the batch shell, which is the worker by then: it drains.
        f"signal=B:TERM@{order.grace_seconds}",
        # Preempted, it starts again, and sends what it had kept.
        "requeue",
        "open-mode=append",
        f"output={slurm.log}",
    ]


def _body(order: Order, slurm: Slurm) -> list[str]:
    lines = list(slurm.setup)
    if slurm.key_file is not None:
        file = shlex.quote(slurm.key_file)
        lines += [f'IFS= read -r {API_KEY} < {file} || [ -n "${{{API_KEY}-}}" ] || exit 2']
        lines += [f"export {API_KEY}"]
    if slurm.state is not None:
        lines += [f"export XDG_STATE_HOME={shlex.quote(slurm.state)}"]
    before = ["apptainer", "exec", *([] if order.cpu else ["--nv"]), slurm.image] if slurm.image else []
    worker = shlex.join([*before, "ctxplan", *order.arguments()])
    # Several workers of a node are told apart by their cards, and without cards by this.
    own = ' --id "$(hostname)-cpu-${SLURM_ARRAY_TASK_ID:-0}"' if order.cpu else ""
    return [*lines, f"exec {worker}{own}"]
