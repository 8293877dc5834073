"""An out-of-memory of a run that has no trainer, and what is kept of what was seen."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from app.observations.reading import read_observations
from ctxplan import Planner, ProblemError, ServiceError, explain_out_of_memory
from ctxplan.client.errors import problem_error
from ctxplan.live import Batches, longest_sample, trained_bytes
from ctxplan.observations import Observations, default_unsent
from ctxplan.variables import SERVER
from ctxplan.watching import GIB, Seen, after_a_step, at_length, before_the_run, plan_run, will_not_fit
from estimator import parse_job

PLANNER = Planner(offline=True)
JOB: dict[str, Any] = {"model": "unsloth/Llama-3.1-8B-Instruct-bnb-4bit", "max_seq_length": 32768, "r": 32}
TORCH = "CUDA out of memory. Tried to allocate 2.50 GiB. Of the allocated memory 70.00 GiB is allocated by PyTorch"


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


def backward() -> None:
    raise OutOfMemoryError(TORCH)


class TestExplained:
    @pytest.mark.parametrize("run", [JOB, parse_job(JOB)])
    def test_a_bare_loop_gives_its_job_and_gets_its_own_error_back(
        self, run: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(OutOfMemoryError) as raised, explain_out_of_memory(run, planner=PLANNER, r=64):
            backward()
        (note,) = raised.value.__notes__
        assert str(raised.value) == TORCH
        assert note in capsys.readouterr().err
        planned = next(p for p in PLANNER.estimate({**JOB, "r": 64}).phases if p.phase == "backward")
        assert f"it ended in the backward phase, for which {planned.allocated_bytes / GIB:.2f} GiB were planned" in note
        assert "tried to allocate 2.50 GiB; 70.00 GiB were allocated then" in note

    def test_a_host_whose_memory_ended_is_told_what_was_planned_for_it(self) -> None:
        with pytest.raises(MemoryError) as raised, explain_out_of_memory(JOB, planner=PLANNER):
            raise MemoryError
        note = raised.value.__notes__[0]
        assert "host RAM planned: " in note
        assert "host_ram_bytes, what the host has, is not known" in note
        change = note.partition("change first: ")[2]
        assert change.startswith("use_gradient_checkpointing: True (")
        less = PLANNER.estimate({**JOB, "use_gradient_checkpointing": True}).host_bytes.expected
        assert f"({less / GIB:.2f} GiB of host RAM)" in change
        assert less < PLANNER.estimate(JOB).host_bytes.expected

    def test_a_host_that_nothing_relieves_is_told_so(self) -> None:
        job = {**JOB, "use_gradient_checkpointing": True, "offload_embedding": False, "host_ram_bytes": 2**30}
        with pytest.raises(RuntimeError) as raised, explain_out_of_memory(job, planner=PLANNER):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        assert "no change of this job is known to need less host RAM" in raised.value.__notes__[0]
        assert ", of 1.00" in raised.value.__notes__[0]

    def test_a_card_whose_memory_ended_is_told_of_a_host_that_the_plan_finds_too_small(self) -> None:
        job = {**JOB, "host_ram_bytes": 2**30}
        with pytest.raises(OutOfMemoryError) as raised, explain_out_of_memory(job, planner=PLANNER):
            backward()
        expected = PLANNER.estimate(JOB).host_bytes.expected / GIB
        assert f"host RAM planned: {expected:.2f} GiB, of 1.00" in raised.value.__notes__[0]

    def test_another_error_goes_through_untouched(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(ValueError, match="shapes") as raised, explain_out_of_memory(JOB, planner=PLANNER):
            raise ValueError("shapes")
        assert not hasattr(raised.value, "__notes__")
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("run", [{"model": 3}, {**JOB, "gpu": "H1000"}, object()])
    def test_a_run_that_cannot_be_planned_hides_no_error(self, run: Any) -> None:
        with pytest.raises(OutOfMemoryError) as raised, explain_out_of_memory(run, planner=PLANNER):
            backward()
        assert "cannot be planned" in raised.value.__notes__[0]

    def test_it_needs_neither_torch_nor_transformers(self) -> None:
        code = "import sys, ctxplan.out_of_memory; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


class TestObservations:
    ESTIMATE = PLANNER.estimate(JOB)

    SEEN: ClassVar[dict[str, Any]] = {"step": 1, "peaks": {"allocated_bytes": 5 * GIB, "reserved_bytes": 6 * GIB}}

    def test_what_was_seen_stands_beside_what_was_expected_one_line_each(self, tmp_path: Path) -> None:
        kept = Observations(tmp_path / "seen.jsonl", clock=lambda: datetime(2026, 11, 25, 10, tzinfo=UTC))
        for step in (1, 2):
            kept.add({**self.SEEN, "step": step}, self.ESTIMATE)
        first, second = (json.loads(line) for line in (tmp_path / "seen.jsonl").read_text().splitlines())
        assert (first["step"], second["step"], first["seen_at"]) == (1, 2, "2026-11-25T10:00:00+00:00")
        assert first["expected"]["expected"] == self.ESTIMATE.peak_allocated_bytes.expected
        assert parse_job(first["job"]) == self.ESTIMATE.job
        assert (first["outcome"], first["calibration"]) == ("ok", self.ESTIMATE.calibration["id"])
        assert first["run"] == second["run"]
        assert len(read_observations({"observations": [first, second]})) == 2

    def test_without_a_file_and_a_service_nothing_is_done(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(SERVER, raising=False)
        assert not Observations().is_wanted
        assert not Observations(server="").is_wanted
        monkeypatch.setenv(SERVER, "http://service")
        assert Observations().is_wanted
        assert not Observations(server="").is_wanted

    def test_a_file_that_cannot_be_written_ends_no_run_and_is_said_once(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        kept = Observations(tmp_path, server="")
        with caplog.at_level(logging.WARNING, "ctxplan"):
            kept.add({}, self.ESTIMATE)
            kept.add({}, self.ESTIMATE)
        assert len(caplog.records) == 1

    def test_nothing_that_goes_wrong_ends_a_run(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, "ctxplan"):
            Observations(tmp_path / "seen.jsonl", server="").add({"step": object()}, self.ESTIMATE)
            Observations(client=Taker(RuntimeError("odd")), unsent=tmp_path / "unsent").add({}, self.ESTIMATE)
            Observations(server="no address", unsent=tmp_path / "unsent.jsonl").add({}, self.ESTIMATE)
        assert len(caplog.records) == 3


class Taker:
    """Takes observations, or raises; remembers what was sent in each request."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.sent: list[list[dict[str, Any]]] = []

    def add_observations(self, observations: Sequence[Mapping[str, Any]]) -> None:
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        self.sent.append([dict(one) for one in observations])

    @property
    def steps(self) -> list[list[int]]:
        return [[one["step"] for one in sent] for sent in self.sent]


def refused(status: int) -> ProblemError:
    return problem_error(status, {"detail": "is not taken"})


class TestSent:
    ESTIMATE = PLANNER.estimate(JOB)
    AWAY = ServiceError("is away")

    def observed(self, taker: Taker, unsent: Path, *steps: int) -> None:
        kept = Observations(client=taker, unsent=unsent)
        for step in steps:
            kept.add({"step": step}, self.ESTIMATE)

    def test_each_is_sent_at_once(self, tmp_path: Path) -> None:
        taker = Taker()
        self.observed(taker, tmp_path / "unsent", 1, 2)
        assert taker.steps == [[1], [2]]
        assert not (tmp_path / "unsent").exists()

    def test_a_service_that_is_away_is_waited_for_once_and_gets_them_with_the_next_run(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        unsent, taker = tmp_path / "state" / "unsent", Taker(self.AWAY)
        with caplog.at_level(logging.WARNING, "ctxplan"):
            self.observed(taker, unsent, 1, 2, 3)
        assert taker.sent == []
        assert len(caplog.records) == 1
        assert str(unsent) in caplog.text
        self.observed(taker, unsent, 4, 5)
        assert taker.steps == [[1, 2, 3], [4], [5]]
        assert unsent.read_bytes() == b""

    def test_what_waits_is_kept_where_the_service_goes_away_again(self, tmp_path: Path) -> None:
        unsent = tmp_path / "unsent"
        self.observed(Taker(self.AWAY), unsent, 1)
        self.observed(Taker(self.AWAY), unsent, 2)
        taker = Taker()
        self.observed(taker, unsent, 3)
        assert taker.steps == [[1, 2], [3]]

    @pytest.mark.parametrize("status", [400, 404, 413, 422])
    def test_what_a_service_will_never_take_is_not_kept_for_it(self, status: int, tmp_path: Path) -> None:
        unsent = tmp_path / "unsent"
        self.observed(Taker(self.AWAY), unsent, 1)
        taker = Taker(refused(status), refused(status))
        self.observed(taker, unsent, 2, 3)
        assert taker.steps == [[3]]
        assert unsent.read_bytes() == b""

    @pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
    def test_what_it_may_take_later_is(self, status: int, tmp_path: Path) -> None:
        unsent = tmp_path / "unsent"
        self.observed(Taker(refused(status)), unsent, 1)
        assert len(unsent.read_bytes().splitlines()) == 1

    def test_a_line_that_a_dying_process_left_half_is_passed_over(self, tmp_path: Path) -> None:
        unsent = tmp_path / "unsent"
        self.observed(Taker(self.AWAY), unsent, 1)
        whole = unsent.read_bytes()
        unsent.write_bytes(b"{broken\n" + whole + whole[:40])
        taker = Taker()
        self.observed(taker, unsent, 2)
        assert taker.steps == [[1], [2]]
        assert unsent.read_bytes() == b""

    def test_a_service_that_is_gone_for_good_does_not_fill_the_disk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unsent = tmp_path / "unsent"
        self.observed(Taker(self.AWAY), unsent, 1)
        size = unsent.stat().st_size
        monkeypatch.setattr("ctxplan.observations.MOST_KEPT_BYTES", 3 * size)
        self.observed(Taker(self.AWAY), unsent, *range(2, 9))
        assert size < unsent.stat().st_size <= 3 * size

    def test_more_than_goes_into_a_request_goes_with_later_ones(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ctxplan.observations.MOST_AT_ONCE", 2)
        unsent = tmp_path / "unsent"
        self.observed(Taker(self.AWAY), unsent, 1, 2, 3)
        taker = Taker()
        self.observed(taker, unsent, 4, 5)
        assert taker.steps == [[1, 2], [4], [3], [5]]

    def test_what_waits_for_one_service_is_not_sent_to_another(self) -> None:
        home = {"XDG_STATE_HOME": "/state"}
        ours, theirs = default_unsent("http://ours", home), default_unsent("http://theirs", home)
        assert ours != theirs
        assert ours.parent == theirs.parent == Path("/state/ctxplan")
        assert default_unsent("http://ours", {}).is_relative_to(Path.home())


class Tensor:
    """Has a shape, as what a model is given."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape


class Model:
    """Calls its hooks as torch's modules do."""

    training = True

    def __init__(self) -> None:
        self.hooks: list[Any] = []

    def register_forward_pre_hook(self, hook: Any, *, with_kwargs: bool) -> Any:
        assert with_kwargs
        self.hooks.append(hook)
        return SimpleNamespace(remove=lambda: self.hooks.remove(hook))

    def __call__(self, *positional: Any, **named: Any) -> None:
        for hook in self.hooks:
            hook(self, positional, named)


class TestLive:
    def test_the_longest_training_batch_is_remembered_until_it_is_no_longer_watched(self) -> None:
        model = Model()
        batches = Batches(model, rows=4)
        model(input_ids=Tensor(4, 100))
        model(Tensor(4, 50))
        model.training = False
        model(input_ids=Tensor(4, 9000))
        model.training = True
        assert batches.length == 100
        model(input_ids=Tensor(1, 1001))  # flattened: four rows in one
        assert batches.length == 251
        batches.stop()
        batches.stop()
        assert model.hooks == []

    def test_what_has_no_shape_or_no_hooks_is_passed_over(self) -> None:
        model = Model()
        batches = Batches(model, rows=1)
        model()
        model(inputs_embeds=Tensor(1, 2, 3))
        assert batches.length is None
        assert Batches(None, rows=1).length is None

    def test_only_what_trains_is_counted_in_the_allocators_blocks(self) -> None:
        def parameter(number: int, *, trains: bool) -> Any:
            return SimpleNamespace(requires_grad=trains, numel=lambda: number, element_size=lambda: 4)

        model = SimpleNamespace(parameters=lambda: [parameter(1, trains=True), parameter(10**9, trains=False)])
        assert trained_bytes(model) == 512
        assert trained_bytes(SimpleNamespace(parameters=lambda: [parameter(0, trains=True)])) is None
        assert trained_bytes(None) is None

    def test_a_dataset_that_tells_no_lengths_has_no_longest_sample(self) -> None:
        assert longest_sample(None) is None
        assert longest_sample(SimpleNamespace(column_names=["text"])) is None


class TestWhatTrains:
    def plan(self, share: float, **job: Any) -> Any:
        plan = plan_run(parse_job({**JOB, "gpu": "H100-80GB", **job}), PLANNER)
        return replace(plan, trained_bytes=round(plan.planned_trained_bytes * share))

    def test_a_model_that_trains_what_was_planned_is_said_nothing_of(self) -> None:
        assert before_the_run(self.plan(1.0)) == []
        assert before_the_run(self.plan(1.005)) == []

    def test_one_that_trains_more_is_told_in_bytes_with_what_follows_from_it(self) -> None:
        plan = self.plan(3.0)
        terms = {term.name: term.bytes for term in plan.typical.terms}
        more = 2 * (terms["lora_parameters"] + terms["gradients"] + terms["optimizer_state"])
        (said,) = before_the_run(plan)
        assert said.endswith(f"{more / GIB:.2f} GiB more than planned")
        assert not will_not_fit(plan)

    def test_one_that_trains_less_is_told_too(self) -> None:
        (said,) = before_the_run(self.plan(0.5))
        assert said.endswith("GiB less than planned")

    def test_a_run_that_fits_as_planned_and_not_with_what_trains_is_said_to_end(self) -> None:
        plan = self.plan(120.0)
        assert plan.typical.verdict == "fits"
        assert will_not_fit(plan)
        assert "will not fit with it" in before_the_run(plan)[1]

    def test_full_fine_tuning_trains_the_weights_which_are_planned_as_such(self) -> None:
        plan = plan_run(parse_job({"model": "Qwen/Qwen3-0.6B", "full_finetuning": True}), PLANNER, trained_bytes=10**12)
        assert before_the_run(plan) == []


class TestLengths:
    def test_a_step_of_short_rows_is_compared_with_what_short_rows_need(self) -> None:
        plan = plan_run(parse_job(JOB), PLANNER)
        short = at_length(plan, PLANNER, 1024)
        assert short.job.sequence_length == 1024
        took = Seen(short.peak_allocated_bytes.upper + GIB, 0)
        assert took.allocated_bytes < plan.typical.peak_allocated_bytes.expected
        assert after_a_step(plan, took, 1) == []
        (said,) = after_a_step(plan, took, 1, short)
        assert "planned for 1,024 tokens" in said

    @pytest.mark.parametrize("length", [None, 32768, 10**6])
    def test_a_row_as_long_as_the_plans_or_one_of_no_known_length_is_the_plans(self, length: int | None) -> None:
        plan = plan_run(parse_job(JOB), PLANNER)
        assert at_length(plan, PLANNER, length) is plan.typical
