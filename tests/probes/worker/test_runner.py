"""What the process that measures says, and what a library prints between its lines."""

from __future__ import annotations

import pytest

from probes.worker.runner import _told


@pytest.mark.parametrize("line", [b"", b"Loading...", b"5", b'"text"', b"[1]", b"{"])
def test_what_a_library_prints_is_no_word_of_it(line: bytes) -> None:
    assert _told(line) is None


def test_its_own_lines_are_read() -> None:
    assert _told(b'{"phase": "load"}') == {"phase": "load"}
