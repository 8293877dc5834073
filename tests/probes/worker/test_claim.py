"""One worker for a GPU: the lock lies where every user finds it, and is none of what somebody may have put there."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from probes.nvml import Card
from probes.worker import claim
from probes.worker.claim import claimed, lock_of
from probes.worker.errors import CardTaken, WorkerError

SOMEBODY = 12345
HOLD = """
import sys
from pathlib import Path
from probes.worker.claim import claimed
with claimed(Path(sys.argv[1]), "it"):
    print("locked", flush=True)
    sys.stdin.read()
"""
FIND = """
import sys
from probes.nvml import Card
from probes.worker.claim import lock_of
print(lock_of(Card(uuid=sys.argv[1], name="a", total_bytes=1, free_bytes=1, driver="1")))
"""


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder in which everybody may write, as the one of the locks."""
    folder = tmp_path / "everybodys"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def a_card() -> Card:
    return Card(uuid=f"GPU-{uuid.uuid4()}", name="a card", total_bytes=1, free_bytes=1, driver="1")


@contextmanager
def holder(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Another worker's process that has the lock."""
    command = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()


def test_workers_of_different_temporary_folders_exclude_each_other(tmp_path: Path) -> None:
    card = a_card()
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    run = [sys.executable, "-c", FIND, card.uuid]
    found = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    assert Path(found) == lock_of(card)
    assert lock_of(card).parent == claim.FOLDER
    with (
        holder(Path(found)) as process,
        pytest.raises(CardTaken, match=f"by another worker, process {process.pid}"),
        claimed(lock_of(card), "the card"),
    ):
        pass
    lock_of(card).unlink(missing_ok=True)


def test_the_file_is_its_users_alone_and_gone_with_its_worker(shared: Path) -> None:
    file = shared / "lock"
    umask = os.umask(0)
    try:
        with claimed(file, "it"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    finally:
        os.umask(umask)
    assert not file.exists()


def test_a_lock_of_a_worker_that_was_killed_is_free(shared: Path) -> None:
    file = shared / "lock"
    with holder(file) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert file.exists()
        with claimed(file, "it"):
            assert file.read_text() == f"process {os.getpid()}\n"


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_that_somebody_put_there_is_not_followed(shared: Path, tmp_path: Path, is_there: bool) -> None:
    victim = tmp_path / "victim"
    if is_there:
        victim.write_text("precious")
    (shared / "lock").symlink_to(victim)
    with pytest.raises(WorkerError, match=f"{shared}/lock: cannot be locked: it is no regular file"):
        claimed(shared / "lock", "it").__enter__()
    assert victim.read_text() == "precious" if is_there else not victim.exists()


def test_a_file_of_ours_that_somebody_gave_a_second_name_is_not_overwritten(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    os.link(tmp_path / "victim", shared / "lock")
    with pytest.raises(WorkerError, match="it is no regular file with one name"):
        claimed(shared / "lock", "it").__enter__()
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["a folder", "a pipe"])
def test_what_is_no_file_is_refused_without_waiting(shared: Path, make: object) -> None:
    make(shared / "lock")  # type: ignore[operator]
    with pytest.raises(WorkerError, match="it is no regular file"):
        claimed(shared / "lock", "it").__enter__()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_refused_and_named_where_others_may_write(shared: Path, tmp_path: Path) -> None:
    for folder in (shared, tmp_path):
        (folder / "lock").touch(0o600)
        os.chown(folder / "lock", SOMEBODY, SOMEBODY)
    with pytest.raises(WorkerError, match=f"{shared}/lock: .* of user {SOMEBODY} .allowed: to remove it"):
        claimed(shared / "lock", "it").__enter__()
    tmp_path.chmod(0o700)
    with claimed(tmp_path / "lock", "a spool on a network disk, which has its own names for users"):
        pass


def test_a_folder_that_takes_no_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="cannot be locked: No such file"):
        claimed(tmp_path / "none" / "lock", "it").__enter__()
