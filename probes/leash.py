"""Holds the measured process on a leash, so that no kill of one process leaves anything of it behind.

Started by `probes.process` as ``python -I -S leash.py``, with the standard library alone, in a session of its own. Its
standard input is the parent's lifeline: the first line says what to start (`Order` in `probes.process`), ``stop`` ends
the process (SIGTERM, then SIGKILL), and the end of the input, which a parent's death brings too, ends everything at
once. Its standard output says, as JSON lines, ``{"started": PID}`` or ``{"refused": TEXT}``, then ``{"ended": CODE,
"stopped": BOOL}`` when the process and all that it started are gone, or have not gone within `UNKILLABLE_SECONDS` of
SIGKILL; a negative code is the signal that ended it.

The work folder is made here and removed here. Descendants that left the process group come to this process when their
parents end (it is their subreaper), and are killed as well. Who is killed, and what then ends the rest:

- the measured process, or the parent: the leash ends everything and removes the folder;
- the leash: the kernel kills the measured process with it (PDEATHSIG), and the parent kills the rest of its group and
  removes the folder. A descendant that had left the group goes on: nobody is its subreaper any more;
- parent and leash at the same instant: the measured process dies, what it had started goes on, the folder stays.

What is inside a driver's call when it is killed ends when the driver lets it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import sys
import time
from typing import Any, NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LIFELINE, REPORTS = 0, 1
UNKILLABLE_SECONDS = 30.0
"""How long a killed process may stay inside a driver's call before the leash reports without it."""


def main() -> None:
    wake = _wake_on(signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP)
    line = _read_line()
    if line is None:
        return
    order = json.loads(line)
    parent = order["parent"]
    if os.getppid() != parent:
        return
    try:
        os.mkdir(order["workdir"], 0o700)
    except OSError as error:
        _refuse(order, error)
        return
    try:
        if _start_and_watch(order, wake, parent):
            _wait_for_the_parent(parent)
    finally:
        shutil.rmtree(order["workdir"], ignore_errors=True)


def _start_and_watch(order: dict[str, Any], wake: int, parent: int) -> bool:
    """Run the process to its end. Returns whether the parent is still there."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        child = _start(order, libc)
    except OSError as error:
        _refuse(order, error)
        return True
    _report({"started": child})
    code, stopped, parent_is_there = _watch(child, order["grace_seconds"], wake, parent)
    _clear(child)
    _report({"ended": code, "stopped": stopped})
    return parent_is_there


def _start(order: dict[str, Any], libc: ctypes.CDLL) -> int:
    """Write the files of the order into the work folder, and start the process there."""
    workdir = order["workdir"]
    for name, text in order["files"].items():
        with open(os.path.join(workdir, name), "w", encoding="utf-8") as file:
            file.write(text)
    output = os.open(os.path.join(workdir, order["output"]), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    leash = os.getpid()
    child = os.fork()
    if child == 0:
        _become(order, output, leash, libc)
    os.close(output)
    os.close(order["events_fd"])
    return child


def _become(order: dict[str, Any], output: int, leash: int, libc: ctypes.CDLL) -> NoReturn:
    """In the forked process: turn into the one that was ordered."""
    argv = order["argv"]
    try:
        os.setsid()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != leash:  # it died before the line above
            os._exit(1)
        for fd, target in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
            os.dup2(fd, target)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        # Where the host's memory ends, the kernel is to take this process and not the one that tells of it.
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
            score.write("1000")
        os.chdir(order["workdir"])
        os.execvpe(argv[0], argv, order["environment"])  # noqa: S606 -- no shell is wanted
    except BaseException as error:
        os.write(2, f"{argv[0]}: cannot be started: {error}\n".encode())
    finally:
        os._exit(127)


def _watch(child: int, grace_seconds: float, wake: int, parent: int) -> tuple[int, bool, bool]:
    """Wait for the process, and end it where the parent asks or is gone.

    Returns its exit code (negative: the signal), whether it was ended from here, and whether the parent is there.
    """
    parent_is_there, kill_at = True, None
    while True:
        code = _exit_code(child)
        if code is not None:
            return code, kill_at is not None or not parent_is_there, parent_is_there
        heard = [wake, LIFELINE] if parent_is_there else [wake]
        ready, _, _ = select.select(heard, [], [], 0.1 if kill_at is not None else 1.0)
        signals = os.read(wake, 4096) if wake in ready else b""
        command = os.read(LIFELINE, 4096) if LIFELINE in ready else None
        gone = command == b"" or os.getppid() != parent or any(number != signal.SIGCHLD for number in signals)
        if parent_is_there and gone:
            parent_is_there = False
            _kill_group(child, signal.SIGKILL)
        elif command and kill_at is None:
            kill_at = time.monotonic() + grace_seconds
            _kill_group(child, signal.SIGTERM)
        if kill_at is not None and time.monotonic() >= kill_at:
            _kill_group(child, signal.SIGKILL)


def _exit_code(child: int) -> int | None:
    """How the process ended, or None. It stays a zombie, so that its group's number is not given away yet."""
    while True:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return None
        if found.si_pid == child:
            return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        os.waitpid(found.si_pid, 0)  # an orphan that came here


def _clear(child: int) -> None:
    """Kill what is left of the group and whatever has come here from outside it, and reap all."""
    _kill_group(child, signal.SIGKILL)
    give_up_at = time.monotonic() + UNKILLABLE_SECONDS
    while time.monotonic() < give_up_at:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(0.01)


def _children() -> list[int]:
    me, found = os.getpid(), []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if name.isdecimal():
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    if int(file.read().rpartition(")")[2].split()[1]) == me:
                        found.append(int(name))
    return found


def _kill_group(child: int, number: int) -> None:
    """Signal the process and its group. It is not reaped yet, so the numbers are still its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        try:
            os.killpg(child, number)
        except ProcessLookupError:  # just forked, and not yet the leader of a group
            os.kill(child, number)


def _wait_for_the_parent(parent: int) -> None:
    """Until it has read what it wants from the work folder and lets go."""
    while os.getppid() == parent:
        ready, _, _ = select.select([LIFELINE], [], [], 1.0)
        if ready and not os.read(LIFELINE, 4096):
            return


def _read_line() -> bytes | None:
    """The order; None where the parent ended before it was given."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(LIFELINE, 65536)
        if not piece:
            return None
        line += piece
    return line


def _refuse(order: dict[str, Any], error: OSError) -> None:
    _report({"refused": f"{error.filename or order['workdir']}: {error.strerror}", "errno": error.errno})


def _report(document: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        os.write(REPORTS, json.dumps(document).encode() + b"\n")


def _wake_on(*numbers: int) -> int:
    """A file descriptor that becomes readable with each of the signals."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    os.set_blocking(reads, False)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return reads


if __name__ == "__main__":
    main()
    sys.exit(0)
