"""Which GPU is asked when, and when the fleet leaves; and what of Ray's nodes is room for a worker."""

from __future__ import annotations

from typing import Any

from probes.fleet.driver import capacity
from probes.fleet.slots import IDLE_SECONDS, UNABLE_SECONDS, Slot, Slots


def slots(**options: Any) -> Slots:
    made = Slots(since=0.0, dice=lambda: 1.0, **options)
    made.refresh({"a": 2, "b": 1})
    return made


def begin(one: Slots, now: float) -> list[Slot]:
    due = one.due(now)
    for slot in due:
        one.began(slot)
    return due


def work(one: Slots, slot: Slot, now: float) -> None:
    one.leased(slot)
    one.ended(slot, "worked", now)


def test_every_whole_gpu_is_asked_at_once_and_again_after_each_job() -> None:
    one = slots()
    first = begin(one, 0.0)
    assert sorted((slot.node, slot.number) for slot in first) == [("a", 0), ("a", 1), ("b", 0)]
    assert begin(one, 0.0) == []
    work(one, first[0], 5.0)
    assert begin(one, 5.0) == [first[0]]


def test_an_empty_queue_is_asked_less_and_less_and_a_job_makes_it_worth_asking() -> None:
    one = slots()
    slot, *_ = begin(one, 0.0)
    one.ended(slot, "idle", 0.0)
    assert slot not in one.due(IDLE_SECONDS - 0.1)
    assert begin(one, IDLE_SECONDS) == [slot]
    one.ended(slot, "idle", 10.0)
    assert slot not in one.due(10.0 + IDLE_SECONDS)
    assert begin(one, 10.0 + 2 * IDLE_SECONDS) == [slot]
    work(one, slot, 30.0)
    assert begin(one, 30.0) == [slot]
    one.ended(slot, "idle", 40.0)
    assert one.due(40.0 + IDLE_SECONDS) == [slot]


def test_a_node_that_cannot_work_rests_and_the_others_go_on() -> None:
    one = slots()
    broken, other, _ = begin(one, 0.0)
    one.ended(broken, "unable", 1.0)
    work(one, other, 1.0)
    assert one.due(1.0) == [other]
    assert broken in one.due(1.0 + UNABLE_SECONDS)


def test_a_new_node_is_used_and_one_that_is_gone_is_not_and_lives_keep_their_slots() -> None:
    one = slots()
    begin(one, 0.0)
    one.refresh({"b": 1, "c": 4})
    assert {slot.node for slot in one.taken} == {"a", "b"}
    assert [slot.node for slot in begin(one, 1.0)] == ["c"] * 4
    for slot in [slot for slot in one.taken if slot.node == "a"]:
        one.ended(slot, "lost", 2.0)
    one.refresh({"b": 1, "c": 4})
    assert one.due(1e6) == []


def test_no_more_jobs_are_begun_than_asked_for_in_all() -> None:
    one = slots(max_jobs=2)
    first, second = begin(one, 0.0)
    one.leased(first)
    assert begin(one, 0.0) == []
    one.ended(second, "idle", 1.0)
    (third,) = begin(one, 1.0)
    work(one, third, 2.0)
    assert not one.is_done(2.0)
    one.ended(first, "worked", 3.0)
    assert begin(one, 3.0) == []
    assert one.is_done(3.0)


def test_no_more_lives_go_on_at_once_than_asked_for() -> None:
    one = slots(most=2)
    first, _ = begin(one, 0.0)
    assert begin(one, 0.0) == []
    one.ended(first, "idle", 0.0)
    assert len(begin(one, 1.0)) == 1


def test_it_leaves_after_so_long_without_a_job_and_never_while_one_is_worked_on() -> None:
    one = slots(idle_exit_seconds=60.0)
    first, second, third = begin(one, 0.0)
    one.leased(first)
    one.ended(second, "idle", 1.0)
    one.ended(third, "idle", 1.0)
    assert not one.is_winding_down(500.0)
    assert len(one.due(500.0)) == 2
    one.ended(first, "worked", 500.0)
    assert not one.is_done(559.0)
    assert one.due(560.0) == []
    assert one.is_done(560.0)


def node(name: str, kind: str | None = None, *, alive: bool = True, **resources: float) -> dict[str, Any]:
    kinds = {} if kind is None else {f"accelerator_type:{kind}": 1.0}
    return {"NodeID": name, "Alive": alive, "Resources": {**resources, **kinds}}


def test_a_worker_has_a_whole_gpu_with_a_core_of_a_node_that_lives() -> None:
    nodes = [
        node("head", CPU=8.0),
        node("gone", alive=False, CPU=8.0, GPU=8.0),
        node("half", CPU=8.0, GPU=0.5),
        node("h100", "H100", CPU=32.0, GPU=8.0),
        node("a100", "A100", CPU=2.0, GPU=4.0),
    ]
    assert capacity(nodes, cpu=False, accelerator=None) == {"h100": 8, "a100": 2}
    assert capacity(nodes, cpu=False, accelerator="H100") == {"h100": 8}
    assert capacity(nodes, cpu=False, accelerator="H200") == {}
    assert capacity(nodes, cpu=True, accelerator=None) == {"head": 8, "half": 8, "h100": 32, "a100": 2}
