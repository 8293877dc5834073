"""A session in this process, with plain transformers on a CPU: what it watches, and what it says of a point that
fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from probes.child import load, train  # noqa: E402 - after the check that torch is there
from probes.child.observe import Observer  # noqa: E402
from probes.child.session import Session, check_flattened  # noqa: E402
from probes.errors import PointError, ProbeUnavailable  # noqa: E402
from probes.planned import run_of  # noqa: E402
from probes.points import parse_point, parse_points  # noqa: E402
from probes.protocol import Events  # noqa: E402
from tests.probes.tiny import tiny_job  # noqa: E402

JOB = tiny_job(framework="transformers")


class Told(Events):
    """Keeps what is told."""

    def __init__(self) -> None:
        super().__init__(None)
        self.events: list[Any] = []

    def write(self, document: Any) -> None:
        self.events.append(document)

    def facts(self) -> list[dict[str, Any]]:
        return [event["facts"] for event in self.events if event["event"] == "measured"]


@pytest.fixture(autouse=True)
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def session(folder: Path, told: Told, **point: Any) -> Session:
    return Session(parse_points({"job": JOB, **point}), told, folder=folder, ballast_bytes=0, snapshots=False)


@pytest.mark.parametrize(("steps", "watched"), [(2, [1]), (3, [2]), (5, [2])])
def test_the_step_that_is_reported_is_never_the_one_that_is_watched(
    steps: int, watched: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    told = Told()

    @contextmanager
    def watching(_: Observer) -> Iterator[None]:
        numbers = [event["step"] for event in told.events if event["event"] == "progress" and event["step"]]
        seen.append(max(numbers, default=0) + 1)
        yield

    monkeypatch.setattr(Observer, "watching", watching)
    session(tmp_path, told, steps=steps).run()
    assert seen == watched
    assert len(told.facts()[0]["steps"]) == steps


def test_what_ran_is_counted_in_the_model_and_every_part_has_its_seconds(tmp_path: Path) -> None:
    told = Told()
    session(tmp_path, told, sequence_lengths=[16, 32]).run()
    first, second = told.facts()
    for facts, length in ((first, 16), (second, 32)):
        assert facts["num_hidden_layers"] == 2
        assert facts["ran"]["input_shape"] == (1, length)
        assert facts["ran"]["optimizer"] == "torch.optim.adamw.AdamW"
        assert set(facts["seconds"]) == {"load", "peft", "steps"}
        assert facts["seconds"]["steps"] == sum(step["seconds"] for step in facts["steps"])
        assert facts["host"]["rss_bytes"] > 0


def test_layers_are_those_of_the_model_and_not_those_that_were_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()

    def load_with_one_less(*arguments: Any) -> Any:
        loaded = load.load_model(*arguments)
        del loaded.model.model.layers[-1]
        return loaded

    monkeypatch.setattr("probes.child.session.load_model", load_with_one_less)
    session(tmp_path, told, steps=2).run()
    assert told.facts()[0]["num_hidden_layers"] == 1


def test_of_a_point_that_fails_everything_until_then_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train_until_the_end_fails(*arguments: Any) -> None:
        train.train(*arguments)
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr("probes.child.session.train", train_until_the_end_fails)
    failing = session(tmp_path, Told(), steps=3)
    with pytest.raises(RuntimeError):
        failing.run()
    facts = failing.facts_so_far()
    assert facts["steps_run"] == len(facts["steps"]) == 3
    assert (facts["execution_path"], facts["num_hidden_layers"]) == ("cpu", 2)
    assert (facts["ran"]["attention"], facts["ran"]["checkpointing"]) == ("sdpa", "torch")
    assert facts["ran"]["input_shape"] == (1, 64)
    assert facts["ran"]["optimizer"] == "torch.optim.adamw.AdamW"


def test_of_a_point_that_fails_as_it_loads_no_model_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr("probes.child.session.load_model", refuse)
    failing = session(tmp_path, Told())
    with pytest.raises(RuntimeError):
        failing.run()
    facts = failing.facts_so_far()
    assert facts["steps"] == []
    assert not {"ran", "execution_path"} & facts.keys()


def test_the_second_length_that_fails_does_not_tell_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()

    def train_the_first(*arguments: Any) -> None:
        if told.facts():
            raise RuntimeError("CUDA out of memory")
        train.train(*arguments)

    monkeypatch.setattr("probes.child.session.train", train_the_first)
    failing = session(tmp_path, told, sequence_lengths=[16, 32])
    with pytest.raises(RuntimeError):
        failing.run()
    facts = failing.facts_so_far()
    assert facts["steps"] == []
    assert facts["ran"]["optimizer"] is None
    assert "input_shape" not in facts["ran"]


def test_several_gpus_end_it_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = session(tmp_path, Told())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ProbeUnavailable, match="2 GPUs"):
        started.run()
    assert not any(tmp_path.iterdir())


def test_documents_of_one_row_are_refused_where_the_stack_runs_dense_batches() -> None:
    gemma = {**JOB, "model": "unsloth/gemma-2-9b-it-bnb-4bit", "framework": "unsloth", "load_in_16bit": False}
    point = parse_point({"job": gemma, "sample_lengths": [32, 32]})
    with pytest.raises(PointError) as raised:
        check_flattened(point, run_of(point))
    assert raised.value.key == "sample_lengths"
    packed = parse_point({"job": tiny_job(packing=True), "sample_lengths": [32, 32]})
    check_flattened(packed, run_of(packed))


def test_the_trainers_first_step_already_learns_at_the_full_rate() -> None:
    point = parse_point({"job": tiny_job(packing=True, per_device_train_batch_size=3)})
    settings = train.sft_settings(point, run_of(point), cuda=True)
    assert (settings["lr_scheduler_type"], settings["warmup_steps"]) == ("constant", 0)
    assert (settings["per_device_train_batch_size"], settings["max_length"]) == (3, 64)
