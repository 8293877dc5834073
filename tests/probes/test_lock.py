"""One sweep at a time writes a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from probes.errors import EvidenceError
from probes.lock import held
from tests.probes.common import wait_for

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from pathlib import Path
from probes.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_the_second_is_told_who_holds_it_and_the_lock_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    said = rf"out\.jsonl: is being written by process {os.getpid()} on "
    with held(out), pytest.raises(EvidenceError, match=said), held(out):
        pass
    assert names(tmp_path) == []
    with held(out):
        pass


def test_a_file_by_another_name_is_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("")
    (tmp_path / "link").symlink_to("out.jsonl")
    with held(tmp_path / "out.jsonl"), pytest.raises(EvidenceError, match="is being written"), held(tmp_path / "link"):
        pass


def test_another_file_of_the_folder_is_free(tmp_path: Path) -> None:
    with held(tmp_path / "one.jsonl"), held(tmp_path / "other.jsonl"):
        assert names(tmp_path) == [".one.jsonl.lock", ".other.jsonl.lock"]


def test_a_process_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        wait_for(holder.stdout.readline, "the lock")
        with pytest.raises(EvidenceError, match=f"process {holder.pid} on"), held(out):
            pass
        holder.send_signal(signal.SIGKILL)
    with held(out):
        assert names(tmp_path) == [".out.jsonl.lock"]
    assert names(tmp_path) == []


def test_a_folder_that_takes_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="cannot be locked"), held(tmp_path / "nowhere" / "out.jsonl"):
        pass
