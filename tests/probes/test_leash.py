"""Whoever is killed, nothing of a probe stays: real processes, real SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from probes.errors import ProbeUnavailable
from probes.leash import _kill_group
from probes.lock import held
from probes.measurement import Measurement
from probes.process import LeashedProcess
from probes.protocol import Progress
from probes.supervise import Options, measure
from tests.probes.children import child
from tests.probes.common import alive, point, points, read_number, wait_for, work_folders

ROOT = Path(__file__).resolve().parents[2]

GROUP = """
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
tell("member", str(subprocess.Popen(sleeper).pid))
tell("away", str(subprocess.Popen(sleeper, start_new_session=True).pid))
tell("leash", str(os.getppid()))
tell("child", str(os.getpid()))
open("checkpoint.bin", "wb").write(b"x" * 100_000)
progress(0)
hang()
"""
"""A process with one in its group and one that left it, busy in its work folder."""

PARENT = """
import signal
import sys
from pathlib import Path
from probes.sweep import sweep
from probes.supervise import Options
from tests.probes.common import point

# A test suite that runs in the background of a shell ignores the interrupt, and so would what it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
out, *command = sys.argv[1:]
sweep([[point()]], Path(out), Options(child=tuple(command), time_limit_seconds=60))
"""


@dataclass
class Family:
    """A probe in full: PIDs of its parent, leash, child, and of two that the child started."""

    parent: subprocess.Popen[bytes]
    leash: int
    child: int
    member: int
    away: int

    def gone(self) -> bool:
        return not any(alive(pid) for pid in (self.leash, self.child, self.member, self.away))


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    command = child(tmp_path, GROUP)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "out.jsonl"), *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    pids = {name: read_number(tmp_path / name) for name in ("leash", "child", "member", "away")}
    yield Family(parent=parent, **pids)
    parent.kill()
    parent.wait()


@pytest.fixture(autouse=True)
def _nothing_is_left_running(tmp_path: Path) -> object:
    yield
    for name in ("child", "member", "away"):
        with suppress(OSError, ValueError):
            os.kill(int((tmp_path / name).read_text()), signal.SIGKILL)


def _files(folder: Path) -> set[str]:
    ours = {"child.py", "leash", "child", "member", "away"}
    return {file.name for file in folder.iterdir()} - ours


class TestKilled:
    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_the_parents_end_takes_everything_with_it(
        self, family: Family, tmp_path: Path, number: signal.Signals
    ) -> None:
        assert len(work_folders(family.parent.pid)) == 1
        family.parent.send_signal(number)
        family.parent.wait(90)
        wait_for(family.gone, "the end of the group")
        wait_for(lambda: not work_folders(family.parent.pid), "the removal of the work folder")
        # A killed sweep cannot remove its lock, which holds nobody up.
        assert _files(tmp_path) <= {".out.jsonl.lock"}
        with held(tmp_path / "out.jsonl"):
            pass
        assert _files(tmp_path) == set()

    def test_the_leashs_end_takes_the_group_with_it_and_is_told(self, family: Family, tmp_path: Path) -> None:
        os.kill(family.leash, signal.SIGKILL)
        family.parent.wait(90)
        wait_for(lambda: not alive(family.child) and not alive(family.member), "the end of the group")
        assert work_folders(family.parent.pid) == []
        (measured,) = _measurements(tmp_path)
        assert (measured.outcome, "leash" in str(measured.detail)) == ("crashed", True)

    def test_a_child_dies_with_its_leash_although_the_parent_does_not_look(self, family: Family) -> None:
        family.parent.send_signal(signal.SIGSTOP)
        os.kill(family.leash, signal.SIGKILL)
        wait_for(lambda: not alive(family.child), "the end of the child")
        family.parent.send_signal(signal.SIGCONT)
        family.parent.wait(90)

    def test_the_childs_end_takes_what_it_started_with_it_and_is_told(self, family: Family, tmp_path: Path) -> None:
        os.kill(family.child, signal.SIGKILL)
        family.parent.wait(90)
        assert family.gone()
        assert work_folders(family.parent.pid) == []
        (measured,) = _measurements(tmp_path)
        assert (measured.outcome, "SIGKILL" in str(measured.detail)) == ("crashed", True)
        assert _files(tmp_path) == {"out.jsonl"}

    def test_a_leash_that_is_asked_to_go_clears_up(self, family: Family) -> None:
        os.kill(family.leash, signal.SIGTERM)
        family.parent.wait(90)
        wait_for(family.gone, "the end of the group")
        assert work_folders(family.parent.pid) == []

    @pytest.mark.parametrize("delay_ms", range(0, 80, 5))
    def test_a_parent_killed_while_it_starts_leaves_nothing(self, tmp_path: Path, delay_ms: int) -> None:
        """At sixteen instants between the start of the leash and the work of the child."""
        command = child(tmp_path, GROUP)
        parent = subprocess.Popen(
            [sys.executable, "-c", DOOMED, str(delay_ms / 1000), str(tmp_path / "out"), *command],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "A_TEST": str(tmp_path)},
            stderr=subprocess.DEVNULL,
        )
        assert parent.wait(30) == -signal.SIGKILL
        wait_for(lambda: not _marked(f"A_TEST={tmp_path}"), "the end of the group")
        assert work_folders(parent.pid) == []


DOOMED = (
    """
import os, sys, threading
import probes.process
popen = probes.process.subprocess.Popen
def start(*arguments, **options):
    threading.Timer(float(delay), os.kill, (os.getpid(), 9)).start()
    return popen(*arguments, **options)
probes.process.subprocess.Popen = start
delay = sys.argv.pop(1)
"""
    + PARENT
)
"""A parent that dies so long after it begins to start the leash."""


def _measurements(folder: Path) -> list[Measurement]:
    lines = (folder / "out.jsonl").read_text().splitlines()
    return [Measurement.model_validate_json(line) for line in lines]


def _marked(variable: str) -> list[int]:
    """Processes that have the variable in their environment."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if variable.encode() in file.read_bytes() and alive(int(file.parent.name)):
                found.append(int(file.parent.name))
    return found


def test_a_process_that_is_not_yet_the_leader_of_its_group_is_reached() -> None:
    """Between its fork and its setsid."""
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            _kill_group(process.pid, signal.SIGKILL)
            assert process.wait(90) == -signal.SIGKILL
        finally:
            process.kill()


class TestErrorsInTheParent:
    def test_an_interrupt_ends_the_group(self, tmp_path: Path) -> None:
        self._raise(tmp_path, KeyboardInterrupt)

    def test_an_error_of_the_callers_ends_the_group(self, tmp_path: Path) -> None:
        self._raise(tmp_path, ZeroDivisionError)

    def _raise(self, tmp_path: Path, kind: type[BaseException]) -> None:
        def stop(_: Progress) -> None:
            raise kind

        with pytest.raises(kind):
            measure([point()], Options(child=child(tmp_path, GROUP)), on_progress=stop)
        assert work_folders() == []
        assert not any(alive(read_number(tmp_path / name)) for name in ("leash", "child", "member", "away"))


class TestStart:
    def test_a_work_folder_that_cannot_be_made_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ProbeUnavailable, match="Not a directory"):
            self._run(tmp_path / "file" / "work", {})

    def test_a_full_disk_is_said(self, full_disk: Path) -> None:
        with pytest.raises(ProbeUnavailable, match="no space left"):
            self._run(full_disk / "work", {"request.json": "x" * 10**6})
        assert not (full_disk / "work").exists()

    def test_somebody_elses_folder_is_neither_used_nor_removed(self, tmp_path: Path) -> None:
        theirs = tmp_path / "work"
        theirs.mkdir()
        (theirs / "precious").write_text("")
        with pytest.raises(ProbeUnavailable, match="File exists"):
            self._run(theirs, {})
        assert (theirs / "precious").exists()

    def test_the_work_folder_is_private(self, tmp_path: Path) -> None:
        os.umask(before := os.umask(0))
        with LeashedProcess(["sleep", "600"], workdir=tmp_path / "work", environment=dict(os.environ), files={}) as run:
            while run.pid is None:
                run.hear()
            assert (tmp_path / "work").stat().st_mode & 0o777 == 0o700
            assert before == os.umask(before)
        assert not (tmp_path / "work").exists()

    def _run(self, workdir: Path, files: dict[str, str]) -> None:
        with LeashedProcess(["true"], workdir=workdir, environment=dict(os.environ), files=files) as process:
            while process.ended is None:
                process.hear()


def test_no_file_descriptor_is_left_open(tmp_path: Path) -> None:
    command = child(tmp_path, "measured(0)\nmeasured(1)")
    count: Callable[[], int] = lambda: len(os.listdir("/proc/self/fd"))  # noqa: E731
    measure(points(1, 2), Options(child=command))
    before = count()
    measure(points(1, 2), Options(child=command))
    assert count() == before
