"""The parent of a probe: each way in which the measured process can end, with real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.errors import PointError, ProbeUnavailable
from probes.supervise import Options, measure
from tests.probes.children import WELL, child
from tests.probes.common import alive, point, points, read_number, work_folders
from tests.probes.running import run


class TestEndings:
    def test_a_point_that_ends_well_is_a_measurement(self, tmp_path: Path) -> None:
        (measured,) = run(tmp_path, WELL)
        assert (measured.outcome, measured.execution_path, measured.steps_run) == ("ok", "cpu", 3)
        assert measured.steps[0].loss == 2.5
        assert measured.stack["torch"] == "2.0"
        assert measured.sequence_length == 64
        assert measured.num_hidden_layers == 2

    def test_out_of_memory_is_a_measurement_with_what_was_tried(self, tmp_path: Path) -> None:
        body = """
        failed("out_of_memory", message="tried 5 bytes", facts={"gpu": "NVIDIA H100 80GB HBM3"}, out_of_memory={
            "phase": "backward", "step": 1, "tried_bytes": 5, "allocated_bytes": 3, "reserved_bytes": 4, "message": "m",
        })
        """
        (measured,) = run(tmp_path, body)
        assert measured.outcome == "out_of_memory"
        assert measured.out_of_memory is not None
        assert (measured.out_of_memory.phase, measured.out_of_memory.tried_bytes) == ("backward", 5)
        assert measured.gpu == "NVIDIA H100 80GB HBM3"

    def test_out_of_memory_without_particulars_names_the_last_phase(self, tmp_path: Path) -> None:
        (measured,) = run(tmp_path, 'progress(0, "forward", 2)\nfailed("out_of_memory")')
        assert measured.out_of_memory is not None
        assert (measured.out_of_memory.phase, measured.out_of_memory.step) == ("forward", 2)

    def test_a_real_memory_error_is_the_hosts(self, tmp_path: Path) -> None:
        body = """
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
        try:
            bytearray(2**31)
        except MemoryError as error:
            failed("host_out_of_memory", message=f"MemoryError {error}")
        """
        (measured,) = run(tmp_path, body)
        assert measured.outcome == "host_out_of_memory"
        assert "MemoryError" in str(measured.detail)
        assert measured.out_of_memory is None

    def test_a_job_that_the_stack_refuses_is_not_supported(self, tmp_path: Path) -> None:
        (measured,) = run(tmp_path, 'failed("not_supported", message="ValueError: no such head")')
        assert (measured.outcome, measured.detail) == ("not_supported", "ValueError: no such head")

    def test_a_device_that_failed_and_a_batch_that_is_not_the_points_are_crashes_that_say_so(
        self, tmp_path: Path
    ) -> None:
        (measured,) = run(tmp_path, 'failed("crashed", message="the model was given 32 tokens")')
        assert (measured.outcome, measured.detail) == ("crashed", "the model was given 32 tokens")

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ("os.abort()", "killed by SIGABRT"),
            ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
            ("import ctypes; ctypes.string_at(0)", "killed by SIGSEGV"),
            ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
            ("sys.exit(3)", "ended with exit code 3 and no result"),
            ("raise ValueError('so it is')", "ValueError: so it is"),
            ("", "ended with exit code 0 and no result"),
            ("events.write({'event': 'done'})", "ended with exit code 0 and no result"),
        ],
    )
    def test_a_process_that_dies_has_crashed(self, tmp_path: Path, body: str, said: str) -> None:
        (measured,) = run(tmp_path, "print('my last words', flush=True)\n" + body)
        assert measured.outcome == "crashed"
        assert said in str(measured.detail)
        assert "my last words" in str(measured.detail)

    def test_a_crash_carries_the_end_of_the_output_and_no_more(self, tmp_path: Path) -> None:
        (measured,) = run(tmp_path, "print('x' * 100_000 + 'é the end', flush=True); sys.exit(1)")
        assert str(measured.detail).endswith("é the end")
        assert len(str(measured.detail)) < 4200

    def test_a_process_that_hangs_is_ended_with_all_that_it_started(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("probes.process.GRACE_SECONDS", 0.2)
        body = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
        tell("group", str(subprocess.Popen(sleeper).pid))
        tell("away", str(subprocess.Popen(sleeper, start_new_session=True).pid))
        hang()
        """
        (measured,) = run(tmp_path, body, time_limit_seconds=1.0)
        assert measured.outcome == "timed_out"
        assert "not finished after 1 s" in str(measured.detail)
        assert not alive(read_number(tmp_path / "group"))
        assert not alive(read_number(tmp_path / "away"))

    def test_a_process_that_heeds_sigterm_has_the_time_to_say_something(self, tmp_path: Path) -> None:
        body = """
        def leave(*_):
            print("leaving in order", flush=True)
            sys.exit(0)
        signal.signal(signal.SIGTERM, leave)
        hang()
        """
        (measured,) = run(tmp_path, body, time_limit_seconds=1.0)
        assert measured.outcome == "timed_out"
        assert "leaving in order" in str(measured.detail)

    def test_a_missing_package_is_no_measurement(self, tmp_path: Path) -> None:
        with pytest.raises(ProbeUnavailable, match="unsloth is not installed"):
            run(tmp_path, 'failed("unavailable", message="unsloth is not installed")')
        assert work_folders() == []

    def test_a_command_that_is_not_there_says_so(self, tmp_path: Path) -> None:
        (measured,) = measure([point()], Options(child=(str(tmp_path / "nothing"),)))
        assert measured.outcome == "crashed"
        assert "cannot be started" in str(measured.detail)

    def test_a_grandchild_that_outlives_its_parent_is_ended_and_changes_nothing(self, tmp_path: Path) -> None:
        body = WELL + 'tell("pid", str(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid))'
        (measured,) = run(tmp_path, body)
        assert measured.outcome == "ok"
        assert not alive(read_number(tmp_path / "pid"))

    def test_a_death_after_the_last_point_changes_nothing(self, tmp_path: Path) -> None:
        (measured,) = run(tmp_path, WELL + "os.abort()")
        assert measured.outcome == "ok"


class TestGroups:
    def test_points_share_a_process_and_each_names_the_lengths_before_it(self, tmp_path: Path) -> None:
        measured = run(tmp_path, WELL, *points(16, 32, 64))
        assert [m.sequence_length for m in measured] == [16, 32, 64]
        assert [m.lengths_before for m in measured] == [(), (16,), (16, 32)]

    def test_points_after_the_one_that_ended_the_process_are_left_out(self, tmp_path: Path) -> None:
        measured = run(tmp_path, 'measured(0)\nfailed("out_of_memory", 1)', *points(16, 32, 64))
        assert [m.outcome for m in measured] == ["ok", "out_of_memory"]

    def test_a_crash_is_the_running_points(self, tmp_path: Path) -> None:
        measured = run(tmp_path, "measured(0)\nprogress(1)\nos.abort()", *points(16, 32, 64))
        assert [(m.sequence_length, m.outcome) for m in measured] == [(16, "ok"), (32, "crashed")]

    def test_the_clock_starts_again_with_each_point(self, tmp_path: Path) -> None:
        body = """
        for index in range(4):
            time.sleep(1.0)
            measured(index)
        hang()
        """
        measured = run(tmp_path, body, *points(1, 2, 3, 4, 5), time_limit_seconds=3.5)
        assert [m.outcome for m in measured] == ["ok", "ok", "ok", "ok", "timed_out"]

    def test_each_is_given_to_the_caller_before_the_next_is_measured(self, tmp_path: Path) -> None:
        body = """
        measured(0)
        while not os.path.exists(os.path.join(TOLD, "heard")):
            time.sleep(0.01)
        measured(1)
        """
        command = child(tmp_path, body)
        seen = measure(points(16, 32), Options(child=command), on_measurement=lambda _: (tmp_path / "heard").touch())
        assert [m.outcome for m in seen] == ["ok", "ok"]

    def test_points_of_different_environments_do_not_share_a_process(self) -> None:
        with pytest.raises(PointError, match="environment"):
            measure([point(), point(environment={"UNSLOTH_FULLGRAPH": "1"})])

    def test_no_points_are_refused(self) -> None:
        with pytest.raises(PointError, match="no points"):
            measure([])
