"""Files of measurements: whole before and after, whatever happens in between."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from probes import files
from probes.errors import EvidenceError
from probes.files import append_document, check_writable, read_documents, write_json
from tests.probes.common import wait_for

ROOT = Path(__file__).resolve().parents[2]

APPEND_FOREVER = """
import sys
from pathlib import Path
from probes.files import append_document
n = 0
while True:
    append_document(Path(sys.argv[1]), {"n": n, "text": "x" * 20_000})
    n += 1
    if n % 200 == 0:
        Path(sys.argv[1]).unlink()
"""

APPEND_SOME = """
import sys
from pathlib import Path
from probes.files import append_document
for n in range(20):
    append_document(Path(sys.argv[1]), {"writer": sys.argv[2], "n": n})
"""


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


class TestAppend:
    def test_documents_come_back_in_order(self, tmp_path: Path) -> None:
        for n in range(3):
            append_document(tmp_path / "rows.jsonl", {"n": n})
        assert read_documents(tmp_path / "rows.jsonl") == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert names(tmp_path) == ["rows.jsonl"]

    def test_a_last_line_without_its_end_is_not_run_into(self, tmp_path: Path) -> None:
        (tmp_path / "rows.jsonl").write_text('{"n": 0}')
        append_document(tmp_path / "rows.jsonl", {"n": 1})
        assert read_documents(tmp_path / "rows.jsonl") == [{"n": 0}, {"n": 1}]

    def test_the_mode_of_the_file_and_a_link_to_it_stay(self, tmp_path: Path) -> None:
        (tmp_path / "rows.jsonl").write_text("")
        (tmp_path / "rows.jsonl").chmod(0o640)
        (tmp_path / "link").symlink_to("rows.jsonl")
        append_document(tmp_path / "link", {"n": 0})
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "rows.jsonl").stat().st_mode & 0o777 == 0o640
        assert read_documents(tmp_path / "rows.jsonl") == [{"n": 0}]

    def test_a_new_file_has_the_mode_that_the_umask_says(self, tmp_path: Path) -> None:
        before = os.umask(0o027)
        try:
            append_document(tmp_path / "rows.jsonl", {})
        finally:
            os.umask(before)
        assert (tmp_path / "rows.jsonl").stat().st_mode & 0o777 == 0o640

    def test_writers_in_several_processes_lose_nothing(self, tmp_path: Path) -> None:
        out = tmp_path / "rows.jsonl"
        writers = [_start(APPEND_SOME, str(out), name) for name in "abc"]
        assert [writer.wait(60) for writer in writers] == [0, 0, 0]
        rows = [(row["writer"], row["n"]) for row in read_documents(out)]
        assert sorted(rows) == [(name, n) for name in "abc" for n in range(20)]

    def test_kill_leaves_no_half_line_and_no_other_file(self, tmp_path: Path) -> None:
        """Twenty kills, each at another instant of a write."""
        out = tmp_path / "rows.jsonl"
        for _ in range(20):
            size = out.stat().st_size if out.exists() else 0
            writer = _start(APPEND_FOREVER, str(out))
            wait_for(lambda size=size: out.exists() and out.stat().st_size != size, "a line")  # type: ignore[misc]
            writer.send_signal(signal.SIGKILL)
            writer.wait(20)
            assert all(len(row["text"]) == 20_000 for row in read_documents(out))
        leftover = [name for name in names(tmp_path) if name != "rows.jsonl"]
        # Between linking the whole file and renaming it there is an instant; what it leaves is whole, and reused.
        assert all(json.loads(line) for name in leftover for line in (tmp_path / name).read_text().splitlines())
        append_document(out, {"n": 0, "text": ""})
        assert names(tmp_path) == ["rows.jsonl"]


class TestErrors:
    def test_a_full_disk_is_named_and_leaves_what_was_there(self, full_disk: Path) -> None:
        out = full_disk / "rows.jsonl"
        append_document(out, {"n": 0})
        with pytest.raises(EvidenceError, match=r"rows\.jsonl: cannot be written: no space left"):
            append_document(out, {"text": "x" * 200_000})
        assert read_documents(out) == [{"n": 0}]
        assert names(full_disk) == ["rows.jsonl"]
        append_document(out, {"n": 1})

    @pytest.mark.parametrize("call", ["write", "fsync", "replace"])
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
    def test_a_failing_call_leaves_what_was_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
    ) -> None:
        out = tmp_path / "rows.jsonl"
        append_document(out, {"n": 0})

        def fail(*_: Any, **__: Any) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patched:
            patched.setattr(os, call, fail)
            with pytest.raises(EvidenceError, match=r"rows\.jsonl: cannot be written"):
                append_document(out, {"n": 1})
        assert read_documents(out) == [{"n": 0}]
        assert names(tmp_path) == ["rows.jsonl"]

    def test_a_file_system_without_unnamed_files_is_written_all_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise OSError(errno.EOPNOTSUPP, "not here")

        monkeypatch.setattr(files, "_write_unnamed", fail)
        append_document(tmp_path / "rows.jsonl", {"n": 0})
        assert read_documents(tmp_path / "rows.jsonl") == [{"n": 0}]
        assert names(tmp_path) == ["rows.jsonl"]

    def test_a_bad_line_is_named_by_its_number(self, tmp_path: Path) -> None:
        (tmp_path / "rows.jsonl").write_text('{"n": 0}\n\n{"n": \n')
        with pytest.raises(EvidenceError, match="line 3 is not JSON"):
            read_documents(tmp_path / "rows.jsonl")
        (tmp_path / "rows.jsonl").write_text("[]\n")
        with pytest.raises(EvidenceError, match="line 1 is not a JSON object"):
            read_documents(tmp_path / "rows.jsonl")

    def test_bytes_that_are_no_text_are_named_by_their_line(self, tmp_path: Path) -> None:
        (tmp_path / "rows.jsonl").write_bytes(b'{"n": 0}\n{"n": "\xff"}\n')
        with pytest.raises(EvidenceError, match="line 2"):
            read_documents(tmp_path / "rows.jsonl")

    def test_no_file_has_no_documents(self, tmp_path: Path) -> None:
        assert read_documents(tmp_path / "rows.jsonl") == []

    def test_what_cannot_be_written_is_found_before_the_work(self, tmp_path: Path) -> None:
        check_writable(tmp_path / "rows.jsonl")
        with pytest.raises(EvidenceError, match="there is no folder"):
            check_writable(tmp_path / "nowhere" / "rows.jsonl")
        with pytest.raises(EvidenceError, match="it is a folder"):
            check_writable(tmp_path)
        with pytest.raises(EvidenceError, match="/proc/rows: cannot be written"):
            check_writable(Path("/proc/rows"))
        assert names(tmp_path) == []

    def test_a_file_that_may_not_be_written_is_found_before_the_work(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "rows.jsonl"
        out.write_text("")
        # Root may write every file, whatever its mode says.
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != out or not mode & os.W_OK)
        with pytest.raises(EvidenceError, match=r"rows\.jsonl: cannot be written: no permission"):
            check_writable(out)


class TestSpecialFiles:
    """Devices and pipes, which are never replaced by a file."""

    def test_a_pipe_is_written_as_it_is(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            check_writable(pipe)
            append_document(pipe, {"n": 0})
            assert os.read(reader, 100) == b'{"n":0}\n'
        finally:
            os.close(reader)
        assert pipe.is_fifo()

    def test_a_full_device_is_an_error_when_it_is_written_and_stays_a_device(self) -> None:
        full = Path("/dev/full")
        check_writable(full)
        with pytest.raises(EvidenceError, match="/dev/full: cannot be written: no space left"):
            append_document(full, {"n": 0})
        assert full.is_char_device()

    def test_they_cannot_be_read_again(self) -> None:
        with pytest.raises(EvidenceError, match="is no file that can be read again"):
            check_writable(Path("/dev/full"), read_again=True)


def test_json_is_written_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "tier.json", {"a": [1]})
    write_json(tmp_path / "tier.json", {"a": [1, 2]})
    assert json.loads((tmp_path / "tier.json").read_text()) == {"a": [1, 2]}
    assert names(tmp_path) == ["tier.json"]


def _start(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", script, *arguments], env=environment)
