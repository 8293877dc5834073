"""The store of calibrations: what is put comes back, what was changed is refused, and nobody's activation is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxplan.calibration_keeping import SHIPPED, NothingToRollBack, StoreUnavailable, UnknownCalibration
from ctxplan.calibration_store import FileStore, before_active, default_folder
from ctxplan.calibration_summary import listed, summary
from ctxplan.calibrations import shipped
from estimator.calibration.document import Calibration, calibration_to_json, content_id
from estimator.errors import CalibrationError
from tests.probes.conftest import full_disk as full_disk

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[2]


def made(number: int, **changes: object) -> Calibration:
    """A calibration that differs from others by its number."""
    calibration = Calibration(points=number + 1, digests=(f"{number:064x}",), **changes)  # type: ignore[arg-type]
    return replace(calibration, id=content_id(calibration_to_json(calibration)))


def fill(file: Path) -> None:
    """Take all the room that a file system has."""
    with suppress(OSError), file.open("wb", buffering=0) as filler:
        while filler.write(b"x" * 4096):
            pass


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "calibrations")


class TestDocuments:
    def test_what_is_put_comes_back_the_same(self, store: FileStore) -> None:
        assert store.put(shipped()) is False
        calibration = made(1, residuals={"eager": (-0.1, 0.25)}, corrections={"generated/loss/dense": {"mlp": 1.5}})
        assert store.put(calibration) is True
        assert store.put(calibration) is False
        assert store.get(calibration.id) == calibration
        assert [file.name for file in store.folder.iterdir()] == [f"{calibration.id}.json"]

    @given(
        residuals=st.dictionaries(
            st.text("abcdef/", min_size=1, max_size=9),
            st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=6).map(lambda values: tuple(sorted(values))),
            max_size=4,
        ),
        multiple=st.floats(-9, 9),
        number=st.integers(0, 10**9),
    )
    def test_any_calibration_survives_the_disk(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        residuals: dict[str, tuple[float, ...]],
        multiple: float,
        number: int,
    ) -> None:
        store = FileStore(tmp_path_factory.getbasetemp() / "any")
        calibration = made(number, residuals=residuals, corrections={"generated/loss/dense": {"hidden": multiple}})
        store.put(calibration)
        assert store.get(calibration.id) == calibration
        assert store.get(calibration.id[7:]) == calibration

    @pytest.mark.parametrize("change", ["points", "cut", "no JSON", "another's"])
    def test_a_changed_document_is_refused_by_its_file(self, store: FileStore, change: str) -> None:
        calibration = made(1)
        store.put(calibration)
        file = store.file_of(calibration.id)
        text = file.read_text()
        changed = {
            "points": text.replace('"points":2', '"points":3'),
            "cut": text[: len(text) // 2],
            "no JSON": "{{{",
            "another's": json.dumps(calibration_to_json(made(2))),
        }[change]
        assert changed != text
        file.write_text(changed)
        with pytest.raises(CalibrationError, match=file.name):
            store.get(calibration.id)
        assert [one.fault is None for one in store.list()] == [False, True]
        assert store.put(calibration) is True, "the name says what belongs there"
        assert store.get(calibration.id) == calibration

    def test_a_name_that_is_not_its_content_is_not_put(self, store: FileStore) -> None:
        with pytest.raises(CalibrationError, match="id"):
            store.put(replace(made(1), points=77))
        assert not store.folder.exists()

    def test_an_id_may_be_abbreviated_while_it_is_one_only(self, store: FileStore) -> None:
        many = [made(number) for number in range(2000)]
        beginnings: dict[str, Calibration] = {}
        one, other = next(
            (found, calibration)
            for calibration in many
            if (found := beginnings.setdefault(calibration.id[:11], calibration)) is not calibration
        )
        store.put(one)
        assert store.get(one.id[7:11]) == one
        store.put(other)
        with pytest.raises(UnknownCalibration, match="begins the ids of 2"):
            store.get(one.id[:11])
        assert store.get(one.id) == one

    @pytest.mark.parametrize("id", ["", "abc", "../../etc/passwd", "sha256-", "F" * 64, "0" * 65, "0000", "a/b", "\0"])
    def test_what_is_no_id_is_unknown(self, store: FileStore, id: str) -> None:
        with pytest.raises(UnknownCalibration):
            store.get(id)

    def test_the_shipped_one_is_always_there(self, store: FileStore) -> None:
        assert store.get(SHIPPED) is shipped()
        assert store.get(shipped().id[7:15]) is shipped()
        assert [one.id for one in store.list()] == [shipped().id]

    def test_the_summary_says_how_wide_the_bounds_are(self) -> None:
        found = summary(made(1, residuals={"eager": tuple(i / 1000 for i in range(19)), "generated": (-0.5,)}))
        assert found["bounds"] == [
            {"stratum": "eager", "points": 19, "largest": 0.018, "margins": {"0.95": 0.018, "0.99": None}},
            {"stratum": "generated", "points": 1, "largest": -0.5, "margins": {"0.95": None, "0.99": None}},
        ]


class TestActivations:
    def test_the_last_one_is_active_and_none_is_the_shipped_one(self, store: FileStore) -> None:
        assert store.active() is shipped()
        one, other = made(1), made(2)
        for calibration in (one, other):
            store.put(calibration)
            store.activate(calibration.id[7:20], why="test", at=NOW)
            assert store.active() == calibration
        assert [line.to_json() for line in store.history()] == [
            {"at": "2026-11-25T12:00:00Z", "id": one.id, "why": "test"},
            {"at": "2026-11-25T12:00:00Z", "id": other.id, "why": "test"},
        ]
        assert [item["active"] for item in listed(store.list(), store.active_id()) if item["id"] == other.id] == [True]

    def test_rolling_back_adds_a_line_and_goes_back_step_by_step(self, store: FileStore) -> None:
        for number in (1, 2, 3):
            store.put(made(number))
            store.activate(made(number).id, why="test", at=NOW)
        assert [store.rollback(why="bad", at=NOW).id for _ in range(3)] == [made(2).id, made(1).id, SHIPPED]
        assert len(store.history()) == 6
        assert store.active() is shipped()
        with pytest.raises(NothingToRollBack):
            store.rollback(why="bad", at=NOW)

    @given(st.lists(st.sampled_from("abc"), max_size=12))
    def test_as_many_rollbacks_as_steps_end_at_the_shipped_one(self, ids: list[str]) -> None:
        seen = list(ids)
        for _ in range(len(ids)):
            before = before_active(seen)
            if before is None:
                break
            assert before != (seen[-1] if seen else SHIPPED)
            seen.append(before)
        assert before_active(seen) is None

    def test_the_shipped_one_is_activated_by_name_so_that_the_next_release_uses_its_own(self, store: FileStore) -> None:
        store.put(made(1))
        store.activate(made(1).id, why="test", at=NOW)
        store.activate(shipped().id, why="test", at=NOW)
        assert store.history()[-1].id == SHIPPED

    def test_an_active_document_that_is_gone_or_changed_is_an_error_that_names_it(self, store: FileStore) -> None:
        store.put(made(1))
        store.put(made(2))
        store.activate(made(1).id, why="test", at=NOW)
        store.activate(made(2).id, why="test", at=NOW)
        store.file_of(made(2).id).write_text("{}")
        with pytest.raises(CalibrationError, match=made(2).id):
            store.active()
        store.file_of(made(2).id).unlink()
        with pytest.raises(CalibrationError, match=made(2).id):
            store.active()
        assert store.rollback(why="broken", at=NOW).id == made(1).id
        assert store.active() == made(1)

    def test_what_is_broken_is_not_activated(self, store: FileStore) -> None:
        store.put(made(1))
        store.file_of(made(1).id).write_text("{}")
        with pytest.raises(CalibrationError):
            store.activate(made(1).id, why="test", at=NOW)
        assert store.history() == ()

    def test_half_a_line_of_a_killed_writer_counts_for_nothing(self, store: FileStore) -> None:
        store.put(made(1))
        store.activate(made(1).id, why="test", at=NOW)
        with store.activations_file.open("ab") as file:
            file.write(b'{"at":"2026-11-25T12:00:00Z","id":"sha2')
        assert store.active() == made(1)
        store.activate(SHIPPED, why="test", at=NOW)
        assert [line.id for line in store.history()] == [made(1).id, SHIPPED]

    @pytest.mark.parametrize("line", ["nonsense", "[]", '{"at": 1}', '{"at": "x", "id": "../x", "why": ""}'])
    def test_a_line_that_is_no_activation_is_an_error_that_names_it(self, store: FileStore, line: str) -> None:
        store.folder.mkdir()
        store.activations_file.write_text(line + "\n")
        with pytest.raises(CalibrationError, match=r"activations\.jsonl: line 1"):
            store.active()

    def test_processes_at_once_lose_nothing(self, store: FileStore) -> None:
        """Eight processes, each with calibrations of its own: every document and every activation is there."""
        script = (
            "import sys; from pathlib import Path; from tests.ctxplan.test_calibration_store import *\n"
            "store, first = FileStore(Path(sys.argv[1])), int(sys.argv[2])\n"
            "for number in range(first, first + 10):\n"
            "    store.put(made(number)); store.put(made(999))\n"
            "    store.activate(made(number).id, why=str(number), at=NOW)\n"
        )
        command = [sys.executable, "-c", script, str(store.folder)]
        running = [subprocess.Popen([*command, str(100 * number)], cwd=ROOT) for number in range(8)]
        assert [process.wait(timeout=60) for process in running] == [0] * 8
        numbers = sorted(100 * process + step for process in range(8) for step in range(10))
        assert sorted(int(line.why) for line in store.history()) == numbers
        assert {line.id for line in store.history()} == {made(number).id for number in numbers}
        assert all(one.fault is None for one in store.list())
        assert not list(store.folder.glob(".*"))


class TestTheDisk:
    def test_a_folder_that_cannot_be_read_or_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        store = FileStore(tmp_path / "file" / "calibrations")
        with pytest.raises(StoreUnavailable, match="calibrations"):
            store.put(made(1))
        with pytest.raises(StoreUnavailable, match="cannot be read"):
            store.active()

    def test_a_full_disk_leaves_everything_as_it_was(self, full_disk: Path) -> None:
        store = FileStore(full_disk / "calibrations")
        store.put(made(1))
        store.activate(made(1).id, why="test", at=NOW)
        fill(full_disk / "filler")
        before = store.activations_file.read_bytes()
        with pytest.raises(StoreUnavailable, match="space"):
            store.put(made(2, residuals={"eager": tuple(float(i) for i in range(3000))}))
        for _ in range(100):  # the rest of the last page is taken first
            try:
                store.activate(SHIPPED, why="x" * 200, at=NOW)
            except StoreUnavailable:
                break
        else:
            pytest.fail("the disk was never full")
        after = store.activations_file.read_bytes()
        assert after.startswith(before)
        assert after.endswith(b"\n")
        assert [one.id for one in store.list()] == [made(1).id, shipped().id]
        assert store.history()

    def test_the_folder_is_the_variables_or_in_the_users_data(self) -> None:
        assert default_folder({"CTXPLAN_CALIBRATIONS": "/a"}) == Path("/a")
        assert default_folder({"XDG_DATA_HOME": "/b"}) == Path("/b/ctxplan/calibrations")
        assert default_folder({}) == Path(os.path.expanduser("~/.local/share/ctxplan/calibrations"))


class TestWhatIsKeptBeside:
    def test_measurements_are_kept_by_calibration(self, store: FileStore) -> None:
        store.keep_measurements("one", [{"point": "a"}, {"point": "b"}])
        store.keep_measurements("two", [{"point": "c"}])
        assert [row["point"] for row in store.measurements("one")] == ["a", "b"]
        assert len(store.measurements()) == 3
        assert store.measurements("three") == []

    def test_a_finding_is_noted_once(self, store: FileStore) -> None:
        finding = {"calibration": "x", "stratum": "eager", "error": 0.1}
        store.note_drift([{"at": "1", **finding}])
        store.note_drift([{"at": "2", **finding}, {"at": "2", **finding, "error": 0.2}])
        assert [one["error"] for one in store.drift("x")] == [0.1, 0.2]
        assert store.drift("y") == []
