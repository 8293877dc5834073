"""What the measured process tells, and the document that becomes of it."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from probes.measurement import Measurement
from probes.protocol import Progress
from probes.supervise import Options, measure
from tests.probes.children import WELL, child
from tests.probes.common import point
from tests.probes.running import run


class TestWhatIsTold:
    @pytest.mark.parametrize(
        "line",
        [
            b"\\xff\\xfe\\n",
            b"not JSON\\n",
            b"[]\\n",
            b"{}\\n",
            b'{"event": "measured", "index": 7, "facts": {}}\\n',
            b'{"event": "measured", "index": -1, "facts": {}}\\n',
            b'{"event": "measured", "index": true, "facts": {}}\\n',
            b'{"event": "measured", "index": 0, "facts": 3}\\n',
            b'{"event": "progress", "index": 0, "phase": 3}\\n',
            b'{"event": "failed", "index": 0, "kind": "bad luck"}\\n',
            b"[" * 100_000 + b"\\n",
            b"\\n",
        ],
    )
    def test_garbage_on_the_pipe_is_passed_over(self, tmp_path: Path, line: bytes) -> None:
        text = f"b'''{line.decode()}'''"
        (measured,) = run(tmp_path, f"os.write(FD, {text})\n" + WELL)
        assert measured.outcome == "ok"

    def test_half_a_last_line_is_a_crash(self, tmp_path: Path) -> None:
        body = 'os.write(FD, b\'{"event": "measured", "index": 0, "fac\'); os.kill(os.getpid(), signal.SIGKILL)'
        (measured,) = run(tmp_path, body)
        assert measured.outcome == "crashed"

    def test_a_line_in_pieces_is_one_event(self, tmp_path: Path) -> None:
        body = """
        line = json.dumps({"event": "measured", "index": 0, "facts": FACTS}).encode() + b"\\n"
        for i in range(len(line)):
            os.write(FD, line[i : i + 1])
        """
        (measured,) = run(tmp_path, body)
        assert measured.outcome == "ok"

    def test_facts_larger_than_a_pipe_arrive(self, tmp_path: Path) -> None:
        (measured,) = run(tmp_path, "measured(steps=[STEP] * 5000, steps_run=5000)")
        assert len(measured.steps) == 5000

    def test_facts_that_are_no_measurement_are_a_crash_that_names_them(self, tmp_path: Path) -> None:
        (measured,) = run(tmp_path, "measured(steps_run=-1, colour='red')")
        assert measured.outcome == "crashed"
        assert "steps_run" in str(measured.detail)
        assert "colour" in str(measured.detail)

    def test_a_loss_that_is_no_number_is_null(self, tmp_path: Path) -> None:
        facts = "facts={'steps': [{**STEP, 'loss': float('nan')}], 'steps_run': 1}"
        (measured,) = run(tmp_path, f"failed('not_supported', {facts})")
        assert measured.outcome == "not_supported"
        assert measured.steps[0].loss is None
        assert "NaN" not in measured.model_dump_json()

    def test_a_training_without_one_did_not_end_well(self, tmp_path: Path) -> None:
        (measured,) = run(tmp_path, "measured(steps=[{**STEP, 'loss': float('nan')}])")
        assert measured.outcome == "crashed"
        assert "finite loss" in str(measured.detail)

    def test_the_process_cannot_change_what_was_asked(self, tmp_path: Path) -> None:
        (measured,) = run(tmp_path, "measured(outcome='crashed', point='0', instrument='me', job={})")
        assert measured.outcome == "ok"
        assert measured.instrument.startswith("ctxplan ")
        assert measured.job["max_seq_length"] == 64

    def test_progress_reaches_the_caller(self, tmp_path: Path) -> None:
        seen: list[Progress] = []
        command = child(tmp_path, 'progress(0, "forward", 2)\nmeasured(0)')
        measure([point()], Options(child=command), on_progress=seen.append)
        assert seen == [Progress(phase="forward", index=0, step=2, allocated_bytes=None)]


class TestDocument:
    def test_it_carries_the_point_as_asked_and_its_digest(self, tmp_path: Path) -> None:
        asked = point(steps=5, environment={"UNSLOTH_FULLGRAPH": "1"})
        (measured,) = measure([asked], Options(child=child(tmp_path, WELL)))
        assert measured.point == asked.digest
        assert measured.steps_asked == 5
        assert measured.environment_asked == {"UNSLOTH_FULLGRAPH": "1"}
        assert Measurement.model_validate_json(measured.model_dump_json()) == measured

    def test_its_time_is_the_callers_clock_in_utc(self, tmp_path: Path) -> None:
        east = datetime(2026, 11, 22, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
        (measured,) = measure([point()], Options(child=child(tmp_path, WELL)), now=lambda: east)
        assert measured.measured_at == "2026-11-22T01:04:05Z"

    def test_a_process_that_told_no_versions_gets_the_installed_ones(self, tmp_path: Path) -> None:
        (measured,) = run(tmp_path, "sys.exit(1)")
        assert measured.stack["torch"]
        assert measured.stack["unsloth"]


def test_utc_is_the_default_clock(tmp_path: Path) -> None:
    (measured,) = run(tmp_path, WELL)
    at = datetime.fromisoformat(str(measured.measured_at))
    assert math.fabs((datetime.now(UTC) - at).total_seconds()) < 60
