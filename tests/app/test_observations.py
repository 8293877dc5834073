"""What training runs showed, over HTTP: taken in once, judged by the active calibration, listed, counted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.database import Database
from app.observation_schemas import KeptAnswer, ObservationListing
from app.observations.judging import Judged, judge
from app.observations.reading import MAX_OBSERVATIONS, OBSERVATION, read_observations
from app.observations.store import keep
from ctxplan import Planner
from ctxplan.calibrations import shipped
from ctxplan.observations import Observations
from tests.app.jobs import CONFIG, MODEL, WRONG_JSON
from tests.app.test_problems import problem_of

PATH = "/v1/observations"
GIB = 2**30
PLANNER = Planner(offline=True, calibration=shipped())
JOB: dict[str, Any] = {"model": MODEL, "max_seq_length": 4096}
ESTIMATE = PLANNER.estimate(JOB)
EXPECTED = ESTIMATE.peak_allocated_bytes.expected
JSON = {"content-type": "application/json"}


class Taker:
    """Keeps what `ctxplan.observations` would have sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def add_observations(self, observations: Any) -> None:
        self.sent += observations


def observation(share: float = 1.0, *, run: str = "r1", job: Mapping[str, Any] = JOB, **changes: Any) -> dict[str, Any]:
    """What the callback sends of a step that took so much of what was expected."""
    taker = Taker()
    estimate = PLANNER.estimate(job)
    size = int(estimate.peak_allocated_bytes.expected * share)
    seen = {"step": 2, "peaks": {"allocated_bytes": size, "reserved_bytes": size}, "unplanned_bytes": 0}
    Observations(client=taker, run=run).add(seen, estimate)
    return {**taker.sent[0], "seen_at": "2026-11-25T10:00:00+00:00", "versions": {}, **changes}


def ended(tried: int, allocated: int, **changes: Any) -> dict[str, Any]:
    """What the explanation of an out-of-memory sends."""
    numbers = {"tried_bytes": tried, "free_bytes": 0, "allocated_bytes": allocated, "unallocated_bytes": None}
    of_the_end = {"outcome": "out_of_memory", "step": None, "peaks": None, "phase": "backward", "allocator": numbers}
    return observation(**{**of_the_end, **changes})


def sent(client: TestClient, *observations: dict[str, Any], status: int = 201) -> list[Any]:
    response = client.post(PATH, json={"observations": list(observations)})
    assert response.status_code == status, response.text
    return KeptAnswer.model_validate_json(response.content).items


def test_what_a_run_sends_is_what_the_service_reads() -> None:
    document = observation()
    assert document.keys() <= OBSERVATION.keys()
    (read,) = read_observations({"observations": [document, ended(GIB, GIB)]})[:1]
    assert read["job"] == ESTIMATE.job


def test_a_step_as_expected_is_within_and_one_beyond_the_bound_is_drift(queue_client: TestClient) -> None:
    usual, beyond = sent(queue_client, observation(), observation(1.4, run="r2", versions={"torch": "2.12.0"}))
    assert (usual.state, usual.drift, usual.new) == ("within", None, True)
    assert (usual.seen_bytes, usual.expected_bytes, usual.calibration) == (EXPECTED, EXPECTED, shipped().id)
    assert usual.bound_bytes > EXPECTED
    assert beyond.state == "beyond"
    assert beyond.drift is not None
    assert "40.0% more than" in beyond.drift
    assert beyond.drift.endswith("with torch 2.12.0 for 2.11.0")


def test_the_same_sent_again_is_kept_once(queue_client: TestClient) -> None:
    (first,) = sent(queue_client, observation())
    (again,) = sent(queue_client, observation(), status=200)
    assert (again.new, again.id, again.document) == (False, first.id, first.document)
    both = sent(queue_client, observation(), observation(run="r2"))
    assert [one.new for one in both] == [False, True]
    twice = sent(queue_client, observation(run="r3"), observation(run="r3"))
    assert [one.new for one in twice] == [True, False]


def test_the_listing_is_paged_newest_first_and_can_be_narrowed_to_drift(queue_client: TestClient) -> None:
    kept = sent(queue_client, *(observation(1.0 + n % 2, run=f"r{n}") for n in range(5)))
    first = ObservationListing.model_validate_json(queue_client.get(PATH, params={"limit": 3}).content)
    rest = ObservationListing.model_validate_json(queue_client.get(PATH, params={"cursor": first.next or ""}).content)
    assert [one.id for one in (*first.items, *rest.items)] == [one.id for one in reversed(kept)]
    assert rest.next is None
    drift = queue_client.get(PATH, params={"state": "beyond"}).json()["items"]
    assert [one["id"] for one in drift] == [kept[3].id, kept[1].id]
    problem_of(queue_client.get(PATH, params={"cursor": first.next or "", "state": "beyond"}), 422, "invalid-cursor")
    problem_of(queue_client.get(PATH, params={"state": "odd"}), 422, "invalid-request")


def test_they_are_counted_by_how_they_stand_each_once(queue_client: TestClient) -> None:
    sent(queue_client, observation(), observation(1.4, run="r2"), observation(run="r3", peaks=None))
    sent(queue_client, observation(), status=200)
    counted = [line for line in queue_client.get("/metrics").text.splitlines() if "ctxplan_observations_total" in line]
    assert {line.split("{")[1] for line in counted if "{" in line} == {
        'state="within"} 1.0',
        'state="beyond"} 1.0',
        'state="unjudged"} 1.0',
    }


@pytest.mark.parametrize(
    ("document", "state", "seen"),
    [
        (ended(GIB, EXPECTED), "beyond", EXPECTED + GIB),
        (ended(1, EXPECTED // 2), "within", EXPECTED // 2 + 1),
        (ended(GIB, EXPECTED, allocator=None), "unjudged", None),
        (ended(GIB, EXPECTED, allocator={"tried_bytes": GIB}), "unjudged", None),
        (observation(peaks=None), "unjudged", None),
        (observation(0.2), "within", int(EXPECTED * 0.2)),
        (observation(1.4, unplanned_bytes=EXPECTED), "within", int(EXPECTED * 1.4)),
        (observation(1.4, unplanned_bytes=-10 * EXPECTED), "beyond", int(EXPECTED * 1.4)),
    ],
    ids=["ended beyond", "ended below", "no words", "half of them", "no peaks", "short", "trains more", "trains less"],
)
def test_what_was_seen_is_held_to_the_bound(document: dict[str, Any], state: str, seen: int | None) -> None:
    (read,) = read_observations({"observations": [document]})
    judged = judge(read, PLANNER, known=PLANNER)
    assert (judged.state, judged.seen_bytes) == (state, seen)
    assert (judged.drift is None) == (state != "beyond")
    if document["outcome"] == "out_of_memory" and judged.drift:
        assert judged.drift.startswith("the memory ended at")


def test_a_run_of_a_model_that_the_service_does_not_know_is_held_to_its_own_plan(queue_client: TestClient) -> None:
    document = observation(1.4)
    document["job"]["model"] = "/home/me/a model"
    kept, fits = sent(queue_client, document, {**document, "expected": {"expected": 2**40, "upper": 2**41}})
    assert (kept.state, fits.state) == ("beyond", "within")
    assert (kept.expected_bytes, kept.calibration) == (document["expected"]["expected"], document["calibration"])


def test_a_live_models_own_config_is_planned_without_a_look_up(queue_client: TestClient) -> None:
    document = observation(job={**JOB, "model": CONFIG}, expected={"expected": 1, "upper": 1})
    (kept,) = sent(queue_client, document)
    assert (kept.state, kept.calibration) == ("within", shipped().id)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"outcome": "odd"}, "observations[1].outcome"),
        ({"peaks": {"allocated_bytes": 1}}, "observations[1].peaks.reserved_bytes"),
        ({"peaks": {"allocated_bytes": -1, "reserved_bytes": 0}}, "observations[1].peaks.allocated_bytes"),
        ({"allocator": {"odd": 1}}, "observations[1].allocator.odd"),
        ({"job": {"model": MODEL, "r": -1}}, "observations[1].job.r"),
        ({"job": None}, "observations[1].job"),
        ({"seen_at": "yesterday"}, "observations[1].seen_at"),
        ({"seen_at": "2026-11-25T10:00:00"}, "observations[1].seen_at"),
        ({"versions": {"torch": 2}}, "observations[1].versions.torch"),
        ({"versions": []}, "observations[1].versions"),
        ({"run": ""}, "observations[1].run"),
        ({"step": 1.5}, "observations[1].step"),
        ({"odd": 1}, "observations[1].odd"),
    ],
)
def test_one_that_is_none_is_refused_by_name_and_nothing_is_kept(
    queue_client: TestClient, change: dict[str, Any], key: str
) -> None:
    body = {"observations": [observation(), {**observation(run="r2"), **change}]}
    found = problem_of(queue_client.post(PATH, json=body), 422, "invalid-submission")
    assert found["errors"][0]["key"] == key
    assert queue_client.get(PATH).json() == {"items": [], "next": None}


@pytest.mark.parametrize("body", [[], {}, {"observations": []}, {"observations": 3}, {"observation": observation()}])
def test_a_body_that_holds_none_is_refused(client: TestClient, body: Any) -> None:
    problem_of(client.post(PATH, json=body), 422, "invalid-submission")


def test_more_than_a_request_may_hold_are_refused(client: TestClient) -> None:
    body: dict[str, Any] = {"observations": [{}] * (MAX_OBSERVATIONS + 1)}
    problem_of(client.post(PATH, json=body), 422, "invalid-submission")


@pytest.mark.parametrize("name", WRONG_JSON)
def test_a_body_that_is_not_strict_json_is_refused(client: TestClient, name: str) -> None:
    problem_of(client.post(PATH, content=WRONG_JSON[name], headers=JSON), 400, "invalid-json")


async def test_two_batches_with_the_same_in_another_order_never_wait_for_each_other(database: Database) -> None:
    """Each has half of them when it comes to the other's half."""
    documents = [{"run": f"r{number}"} for number in range(60)]
    judged = Judged(state="within", drift=None, seen_bytes=1, expected_bytes=1, bound_bytes=2, calibration="c")
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    async def keep_all(batch: list[dict[str, str]]) -> list[tuple[Any, bool]]:
        async with database.write() as connection:
            return await keep(connection, batch, [judged] * len(batch), now, submitter="me")

    one, other = await asyncio.gather(keep_all(documents), keep_all(documents[::-1]))
    assert [row.document for row, _ in one] == documents
    assert [row.id for row, _ in one] == [row.id for row, _ in reversed(other)]
    ids = [row.id for batch in (one, other) for row, is_new in batch if is_new]
    assert len(ids) == len(documents)
    assert ids == sorted(ids), "in the order in which they came"
