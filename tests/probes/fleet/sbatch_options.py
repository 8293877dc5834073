"""The long options of sbatch, and the form of the values that are used here.

Source: sbatch(1) of Slurm 22.05, the options that it lists and how it writes their values.
"""

from __future__ import annotations

import re

FLAGS = frozenset(
    """
    contiguous hold ignore-pbs no-kill no-requeue overcommit oversubscribe parsable quiet reboot requeue
    spread-job test-only usage use-min-nodes verbose wait exclusive get-user-env nice propagate
    """.split()  # noqa: SIM905 -- a table of names
)
"""May stand alone; the last four take a value as well."""
VALUES = frozenset(
    """
    account acctg-freq array batch bb bbf begin chdir cluster-constraint clusters comment constraint container
    core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot dependency distribution
    error exclude export export-file extra-node-info gid gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket
    gpus-per-task gres gres-flags hint input job-name kill-on-invalid-dep licenses mail-type mail-user mcs-label
    mem mem-bind mem-per-cpu mem-per-gpu mincpus network nodefile nodelist nodes ntasks ntasks-per-core
    ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output partition power prefer priority profile qos
    reservation signal sockets-per-node switches thread-spec threads-per-core time time-min tmp uid wait-all-nodes
    wckey wrap exclusive get-user-env nice propagate
    """.split()  # noqa: SIM905
)
FORMS = {
    "array": r"\d+(-\d+)?(:\d+)?(,\d+(-\d+)?(:\d+)?)*(%\d+)?",
    "nodes": r"\d+(-\d+)?",
    "ntasks": r"\d+",
    "cpus-per-task": r"\d+",
    "mem": r"\d+[KMGT]?",
    "gres": r"\w+(:[\w.-]+)?(:\d+)?",
    "time": r"\d+|\d+:\d\d(:\d\d)?|\d+-\d\d?(:\d\d){0,2}",
    "signal": r"([RB]{1,2}:)?[A-Z0-9]+(@\d{1,5})?",
    "open-mode": r"append|truncate",
    "job-name": r"\S+",
    "output": r"\S+",
    "partition": r"[\w.,-]+",
    "account": r"[\w.-]+",
    "qos": r"[\w.-]+",
    "constraint": r"\S+",
}


def check(line: str) -> tuple[str, str | None]:
    """Name and value of one ``#SBATCH`` line, which has to be one that sbatch reads whole."""
    found = re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line)
    assert found, line
    name, value = found.groups()
    if value is None:
        assert name in FLAGS, line
    else:
        assert name in VALUES, line
        assert re.fullmatch(FORMS[name], value), line
    return name, value
