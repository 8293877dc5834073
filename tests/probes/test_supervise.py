"""The parent of a probe: each way in which the measured process can end, with real processes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from estimator import parse_job
from estimator.errors import UnknownDevice
from probes.checks import missing_packages, wrong_gpu
from probes.errors import PointError, ProbeUnavailable
from probes.measurement import Measurement
from probes.nvml import Card, find_card
from probes.outcome import oom_kills, outcome_of, raised
from probes.points import Point, parse_point
from probes.process import Ended
from probes.protocol import Progress
from probes.supervise import Options, measure
from tests.probes.children import WELL, child
from tests.probes.common import JOB, alive, point, points, read_number, work_folders

LIMIT_SECONDS = 20.0


def run(
    tmp_path: Path, body: str, *asked: Point, environment: Mapping[str, str] | None = None, **options: Any
) -> list[Measurement]:
    """Measure with such a child; the folder in which it tells things is in its environment."""
    told = {"UNSLOTH_TEST_DIR": str(tmp_path), **(environment or {})}
    asked = asked or (point(),)
    given = [replace(p, environment=told) for p in asked]
    chosen: dict[str, Any] = {"time_limit_seconds": LIMIT_SECONDS, "child": child(tmp_path, body), **options}
    measurements = measure(given, Options(**chosen))
    assert work_folders() == []
    return measurements


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
        live = '[{"bytes": 1, "blocks": 1, "stack": ["x" * 100]}] * 5000'
        (measured,) = run(tmp_path, f"measured(live_tensors={live})")
        assert measured.live_tensors is not None
        assert len(measured.live_tensors) == 5000

    def test_facts_that_are_no_measurement_are_a_crash_that_names_them(self, tmp_path: Path) -> None:
        (measured,) = run(tmp_path, "measured(steps_run=-1, colour='red')")
        assert measured.outcome == "crashed"
        assert "steps_run" in str(measured.detail)
        assert "colour" in str(measured.detail)

    def test_a_loss_that_is_no_number_is_null(self, tmp_path: Path) -> None:
        (measured,) = run(tmp_path, "measured(steps=[{**STEP, 'loss': float('nan')}])")
        assert measured.outcome == "ok"
        assert measured.steps[0].loss is None
        assert "NaN" not in measured.model_dump_json()

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
        asked = point(steps=5, environment={"UNSLOTH_X": "1"})
        (measured,) = measure([asked], Options(child=child(tmp_path, WELL)))
        assert measured.point == asked.digest
        assert measured.steps_asked == 5
        assert measured.environment_asked == {"UNSLOTH_X": "1"}
        assert Measurement.model_validate_json(measured.model_dump_json()) == measured

    def test_its_time_is_the_callers_clock_in_utc(self, tmp_path: Path) -> None:
        east = datetime(2026, 11, 22, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
        (measured,) = measure([point()], Options(child=child(tmp_path, WELL)), now=lambda: east)
        assert measured.measured_at == "2026-11-22T01:04:05Z"

    def test_it_notes_the_variables_that_count_and_no_path(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("UNSLOTH_SOME_FOLDER", "/home/me")
        monkeypatch.setenv("UNSLOTH_SOME_TOKEN", "hush")
        monkeypatch.setenv("TORCH_LOGS", "dynamo")
        monkeypatch.setenv("HOME_GROWN", "1")
        (measured,) = run(tmp_path, WELL)
        assert measured.environment == {
            "PYTORCH_ALLOC_CONF": "expandable_segments:True",
            "TORCH_LOGS": "dynamo",
            "UNSLOTH_DISABLE_STATISTICS": "1",
        }

    def test_a_process_that_told_no_versions_gets_the_installed_ones(self, tmp_path: Path) -> None:
        (measured,) = run(tmp_path, "sys.exit(1)")
        assert measured.stack["torch"]
        assert measured.stack["unsloth"]


class TestEnvironment:
    @pytest.mark.parametrize(
        ("job", "name", "text"),
        [
            ({"block_compile": False}, "UNSLOTH_BLOCK_COMPILE", "0"),
            ({"block_compile": False, "padding_free": True}, "UNSLOTH_BLOCK_COMPILE", None),
            ({"block_compile": False, "mode": "generate"}, "UNSLOTH_BLOCK_COMPILE", None),
            ({"block_compile": None}, "UNSLOTH_BLOCK_COMPILE", None),
            ({"pin_host_memory": False}, "UNSLOTH_DISABLE_PINNED_MEMORY", "1"),
            ({"unsloth_tiled_mlp": True}, "UNSLOTH_TILED_MLP", "arctic"),
            ({"unsloth_tiled_mlp": True, "framework": "transformers"}, "UNSLOTH_TILED_MLP", None),
            ({}, "HF_HUB_OFFLINE", "1"),
            ({}, "PYTHONSTARTUP", None),
            ({}, "TRITON_CACHE_DIR", "elsewhere"),
        ],
    )
    def test_the_process_gets_what_the_job_implies(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: dict[str, Any], name: str, text: str | None
    ) -> None:
        monkeypatch.setenv("PYTHONSTARTUP", "/nowhere.py")
        monkeypatch.setenv("TRITON_CACHE_DIR", "elsewhere")
        body = 'tell("environment", json.dumps(dict(os.environ)))\n' + WELL
        run(tmp_path, body, parse_point({**JOB, **job}))
        assert json.loads((tmp_path / "environment").read_text()).get(name) == text

    def test_the_point_has_the_last_word(self, tmp_path: Path) -> None:
        body = 'tell("environment", json.dumps(dict(os.environ)))\n' + WELL
        run(tmp_path, body, environment={"UNSLOTH_DISABLE_STATISTICS": "0"})
        assert json.loads((tmp_path / "environment").read_text())["UNSLOTH_DISABLE_STATISTICS"] == "0"

    def test_the_process_runs_in_its_work_folder_with_its_caches_there(self, tmp_path: Path) -> None:
        body = (
            'tell("seen", json.dumps([os.getcwd(), request["workdir"], os.environ["TORCHINDUCTOR_CACHE_DIR"]]))\n'
            + WELL
        )
        run(tmp_path, body)
        here, workdir, cache = json.loads((tmp_path / "seen").read_text())
        assert here == workdir
        assert Path(cache).parent == Path(workdir)

    def test_output_is_kept_on_request(self, tmp_path: Path) -> None:
        run(tmp_path, "print('spoken')\n" + WELL, keep_output=tmp_path / "kept")
        (file,) = (tmp_path / "kept").iterdir()
        assert file.read_text() == "spoken\n"

    def test_a_folder_for_the_output_that_cannot_be_made_is_found_before_the_run(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ProbeUnavailable, match="file"):
            measure([point()], Options(keep_output=tmp_path / "file" / "deeper"))


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
            time.sleep(0.6)
            measured(index)
        hang()
        """
        measured = run(tmp_path, body, *points(1, 2, 3, 4, 5), time_limit_seconds=1.2)
        assert [m.outcome for m in measured] == ["ok", "ok", "ok", "ok", "timed_out"]

    def test_each_is_given_to_the_caller_before_the_next_is_measured(self, tmp_path: Path) -> None:
        body = """
        measured(0)
        while not os.path.exists(os.path.join(os.environ["UNSLOTH_TEST_DIR"], "heard")):
            time.sleep(0.01)
        measured(1)
        """
        told = {"UNSLOTH_TEST_DIR": str(tmp_path)}
        asked = [point(job=p.job, environment=told) for p in points(16, 32)]
        seen = measure(
            asked, Options(child=child(tmp_path, body)), on_measurement=lambda _: (tmp_path / "heard").touch()
        )
        assert [m.outcome for m in seen] == ["ok", "ok"]

    def test_points_of_different_environments_do_not_share_a_process(self) -> None:
        with pytest.raises(PointError, match="environment"):
            measure([point(), point(environment={"UNSLOTH_X": "1"})])

    def test_no_points_are_refused(self) -> None:
        with pytest.raises(PointError, match="no points"):
            measure([])


class TestWhatIsCheckedFirst:
    H100 = Card(uuid="GPU-1", name="NVIDIA H100 80GB HBM3", total_bytes=85_520_809_984, free_bytes=0, driver="580")

    def test_the_card_must_be_of_the_jobs_kind(self) -> None:
        assert wrong_gpu(point(), self.H100) is None
        other = Card(uuid="GPU-2", name="NVIDIA H200", total_bytes=150_754_820_096, free_bytes=0, driver="580")
        assert "NVIDIA H200" in str(wrong_gpu(point(), other))

    def test_kinds_that_differ_in_memory_alone_are_told_apart(self) -> None:
        asked = point(job=parse_job({**JOB, "gpu": "A100-40GB"}))
        small = Card(uuid="1", name="NVIDIA A100-SXM4-40GB", total_bytes=42_949_672_960, free_bytes=0, driver="580")
        large = Card(uuid="1", name="NVIDIA A100-SXM4-80GB", total_bytes=85_899_345_920, free_bytes=0, driver="580")
        assert wrong_gpu(asked, small) is None
        assert wrong_gpu(asked, large) is not None

    def test_a_card_that_the_catalogue_lacks_is_known_by_its_name(self) -> None:
        card = Card(uuid="1", name="NVIDIA Quadro 9", total_bytes=2**34, free_bytes=0, driver="580")
        asked = point(job=parse_job({**JOB, "gpu": {"name": "NVIDIA Quadro 9", "total_bytes": 2**34}}))
        assert wrong_gpu(asked, card) is None
        assert wrong_gpu(point(), card) is not None

    def test_a_gpu_that_does_not_exist_is_an_error(self) -> None:
        with pytest.raises(UnknownDevice):
            wrong_gpu(point(job=parse_job({**JOB, "gpu": "H1000"})), self.H100)

    def test_missing_packages_are_named(self) -> None:
        assert missing_packages(point()) == ()
        assert missing_packages(point(), lambda _: None) == (
            "torch",
            "transformers",
            "peft",
            "unsloth",
            "unsloth_zoo",
            "trl",
            "datasets",
        )

    def test_a_cap_needs_a_gpu(self) -> None:
        if find_card() is not None:
            pytest.skip("there is a GPU here")
        with pytest.raises(ProbeUnavailable, match="has none"):
            measure([point(cap_bytes=2**34)])


class TestHostMemory:
    KILLED = Ended(code=-9, stopped=False)

    def test_a_kill_beside_a_raised_counter_is_the_hosts_memory(self) -> None:
        assert outcome_of(self.KILLED, timed_out=None, oom_killed=True, output="")[0] == "host_out_of_memory"
        assert outcome_of(self.KILLED, timed_out=None, oom_killed=False, output="")[0] == "crashed"

    def test_a_kill_of_ours_is_not(self) -> None:
        ours = Ended(code=-9, stopped=True)
        assert outcome_of(ours, timed_out=1.0, oom_killed=True, output="")[0] == "timed_out"

    def test_another_signal_is_not(self) -> None:
        assert outcome_of(Ended(code=-11, stopped=False), timed_out=None, oom_killed=True, output="")[0] == "crashed"

    def test_a_counter_counts_only_where_it_was_read_before(self) -> None:
        assert raised({"a": 1}, {"a": 2})
        assert not raised({"a": 1}, {"a": 1, "b": 9})
        assert not raised({"a": 1}, {})

    def test_the_kernels_counter_is_read(self) -> None:
        assert all(count >= 0 for count in oom_kills().values())
        assert "/proc/vmstat" in oom_kills()


def test_utc_is_the_default_clock(tmp_path: Path) -> None:
    (measured,) = run(tmp_path, WELL)
    at = datetime.fromisoformat(str(measured.measured_at))
    assert math.fabs((datetime.now(UTC) - at).total_seconds()) < 60
