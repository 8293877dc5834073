"""The planner and what it remembers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ctxplan
from ctxplan.models import ModelFacts, resolve_model
from ctxplan.planning import FactsMemory, Planner
from estimator import Job
from tests.app.jobs import CONFIG, FITS, MODEL, config


class Counting:
    """Resolves as usual, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, model: Any, **options: Any) -> ModelFacts:
        self.asked += 1
        return resolve_model(model, **options)


def test_a_job_as_json_and_as_an_object_have_the_same_answer() -> None:
    assert ctxplan.estimate(FITS) == ctxplan.estimate(Job(**FITS))
    assert ctxplan.max_context(FITS) == ctxplan.max_context(Job(**FITS))


@pytest.mark.parametrize("model", [MODEL, CONFIG])
def test_a_model_is_resolved_once(model: Any) -> None:
    resolve = Counting()
    planner = Planner(offline=True, resolve=resolve)
    assert planner.remembered(model) is None
    for _ in range(3):
        planner.estimate({"model": model})
    assert resolve.asked == 1
    assert planner.remembered(model) is not None


def test_equal_configs_are_one_model_whatever_the_order_of_their_keys() -> None:
    resolve = Counting()
    planner = Planner(resolve=resolve)
    planner.facts(CONFIG)
    planner.facts(dict(reversed(CONFIG.items())))
    assert resolve.asked == 1


def test_a_directory_is_read_again_each_time(tmp_path: Path) -> None:
    planner = Planner(offline=True)
    for layers in (2, 3):
        (tmp_path / "config.json").write_text(json.dumps(config(num_hidden_layers=layers)))
        assert planner.facts(str(tmp_path)).architecture.num_hidden_layers == layers


def test_what_was_assumed_about_the_model_is_in_the_answer() -> None:
    def resolve(model: Any, **_: Any) -> ModelFacts:
        return ModelFacts(architecture=resolve_model(model).architecture, source="hub", assumptions=("guessed",))

    planner = Planner(resolve=resolve)
    assert planner.estimate(FITS).assumptions[-1] == "guessed"
    answer = planner.max_context(FITS)
    assert answer.assumptions[-1] == "guessed"
    assert answer.estimate is not None
    assert answer.estimate.assumptions[-1] == "guessed"


def test_the_memory_forgets_the_least_recently_used() -> None:
    facts = resolve_model(CONFIG)
    memory = FactsMemory(count=2)
    memory.put("a", facts)
    memory.put("b", facts)
    memory.get("a")
    memory.put("c", facts)
    assert [memory.get(key) is not None for key in "abc"] == [True, False, True]


def test_the_memory_is_bounded_by_weight() -> None:
    memory = FactsMemory(count=10_000, weight_bytes=100_000)
    facts = resolve_model(CONFIG)
    for index in range(1000):
        memory.put(str(index), facts)
    assert 0 < len(memory) < 50


def test_a_hostile_config_is_answered_and_not_remembered() -> None:
    memory = FactsMemory(weight_bytes=4 * 3000)
    memory.put("x" * 5000, resolve_model(CONFIG))
    assert len(memory) == 0
