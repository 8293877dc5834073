"""Who is let in: one caller's rate, a service that is behind, and work that waits for threads."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from app.admission import (
    BURST_SECONDS,
    KEYS_PER_ADDRESS,
    MAX_CALLERS,
    TICK_SECONDS,
    VERY_LATE,
    Admission,
    Lag,
    Overloaded,
    RateLimit,
)
from app.apart import Apart
from app.logs import make_logger
from app.main import RATE_WITH_KEYS, create_app
from app.metrics import Metrics
from app.plans import Plans
from app.settings import Settings
from app.turns import Turns
from ctxplan import Planner
from tests.app.jobs import FITS, MODEL
from tests.app.test_problems import problem_of

QUIET: dict[str, Any] = {"allow_hub": False, "log_level": "error"}


def client_of(**settings: Any) -> TestClient:
    return TestClient(create_app(Settings(**QUIET, **settings)))


class TestRate:
    @given(per_second=st.floats(0.1, 1000), gaps=st.lists(st.floats(0, 2), min_size=1, max_size=200))
    def test_in_no_time_is_more_let_in_than_the_rate_and_the_burst(self, per_second: float, gaps: list[float]) -> None:
        now, taken = 0.0, 0
        limit = RateLimit(per_second, time=lambda: now)
        for gap in gaps:
            now += gap
            taken += limit.wait_seconds("a") == 0
            assert taken <= per_second * (now + BURST_SECONDS) + 1.000001

    def test_who_waits_as_long_as_told_is_let_in(self) -> None:
        now = 0.0
        limit = RateLimit(2, time=lambda: now)
        while not (wait := limit.wait_seconds("a")):
            pass
        now = wait + 1e-9
        assert limit.wait_seconds("a") == 0

    def test_one_caller_costs_another_nothing_and_strangers_no_memory(self) -> None:
        limit = RateLimit(1, time=lambda: 0.0)
        while not limit.wait_seconds("a"):
            pass
        assert limit.wait_seconds("b") == 0
        for number in range(2 * MAX_CALLERS):
            limit.wait_seconds(str(number))
        assert len(limit._due) <= MAX_CALLERS

    def test_over_http_it_is_a_problem_that_says_when_to_come_again(self) -> None:
        with client_of(requests_per_second=1) as client:
            answers = [client.get("/v1/gpus") for _ in range(6)]
            refused = next(one for one in answers if one.status_code == 429)
            problem_of(refused, 429, "too-many-requests")
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.headers["x-request-id"]
            assert client.get("/healthz").status_code == 200
            assert 'ctxplan_http_shed_total{why="rate"}' in client.get("/metrics").text

    def test_what_watches_has_a_rate_of_its_own_so_that_it_is_no_way_around_the_others(self) -> None:
        with client_of(requests_per_second=1) as client:
            watched = [client.get("/healthz") for _ in range(6)]
            assert [one.status_code for one in watched[:2]] == [200, 200]
            problem_of(watched[-1], 429, "too-many-requests")
            assert client.get("/v1/gpus").status_code == 200

    def test_keys_have_rates_of_their_own_within_that_of_their_address(self) -> None:
        with client_of(requests_per_second=1) as client:
            statuses = [
                client.get("/v1/gpus", headers={"authorization": f"Bearer {number}"}).status_code
                for number in range(200)
            ]
        first = statuses.index(429)
        assert first >= BURST_SECONDS * KEYS_PER_ADDRESS

    def test_by_default_it_is_for_addresses_that_others_reach(self) -> None:
        def limits(**settings: Any) -> float:
            app = create_app(Settings(**QUIET, **settings))
            (one,) = (one for one in app.user_middleware if one.cls is Admission)  # type: ignore[comparison-overlap]
            return float(one.kwargs["per_second"])  # type: ignore[arg-type]

        assert limits() == 0
        assert limits(host="0.0.0.0") == RATE_WITH_KEYS
        assert limits(host="0.0.0.0", requests_per_second=0) == 0


class TestLag:
    def test_one_pause_is_no_lag_a_second_on_end_is_and_a_long_one_as_well(self) -> None:
        now = 0.0
        lag = Lag(0.1, time=lambda: now)
        assert not lag.is_too_much
        lag.expect()
        now += TICK_SECONDS + 0.2
        assert not lag.is_too_much
        lag.came()
        lag.expect()
        assert not lag.is_too_much
        now += TICK_SECONDS + 0.2
        assert lag.is_too_much
        lag.came()
        lag.expect()
        now += TICK_SECONDS
        assert not lag.is_too_much
        lag.came()
        lag.expect()
        now += TICK_SECONDS + 0.1 * VERY_LATE + 0.01
        assert lag.is_too_much

    async def test_it_ticks_while_it_is_watched(self) -> None:
        lag = Lag(0.005)
        async with lag.watched():
            await asyncio.sleep(0)
            time.sleep(0.1)
            assert lag.is_too_much
            while lag.is_too_much:
                await asyncio.sleep(0.02)

    def test_over_http_it_is_a_problem_and_what_watches_is_let_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with client_of() as client:
            monkeypatch.setattr(Lag, "is_too_much", True)
            answer = client.post("/v1/estimates", json=FITS)
            problem_of(answer, 503, "overloaded")
            assert answer.headers["retry-after"] == "1"
            assert client.get("/readyz").status_code == 200
            assert 'ctxplan_http_shed_total{why="lag"} 1.0' in client.get("/metrics").text
            seen = client.get("/", headers={"accept": "text/html,*/*"})
            assert (seen.status_code, seen.headers["refresh"]) == (503, "1")
            assert "more to do than it can" in seen.text
            monkeypatch.undo()
            assert client.post("/v1/estimates", json=FITS).status_code == 200


class TestPlans:
    async def test_what_would_wait_behind_too_many_is_refused_and_the_rest_is_done(self) -> None:
        planner, metrics = Planner(offline=True), Metrics()
        log = make_logger("error")
        apart = Apart(planner, processes=0, max_waiting=1, metrics=metrics, log=log)
        lookups = Turns("lookups", at_once=1, max_waiting=1, metrics=metrics, log=log)
        plans = Plans(planner, apart=apart, lookups=lookups)
        go, begun = threading.Event(), threading.Event()

        def work(_: object, __: object) -> str:
            begun.set()
            assert go.wait(30)
            return "done"

        first = asyncio.create_task(plans.ask(MODEL, work))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        second = asyncio.create_task(plans.ask(MODEL, work))
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded):
            await plans.ask(MODEL, work)
        assert 'ctxplan_http_shed_total{why="plans"} 1.0' in metrics.text().decode()
        go.set()
        assert list(await asyncio.gather(first, second)) == ["done", "done"]
        assert await plans.ask(MODEL, work) == "done"

    def test_over_http_it_says_when_to_come_again(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        async def refuse(*_: object, **__: object) -> None:
            raise Overloaded

        monkeypatch.setattr(Plans, "plan", refuse)
        with client_of() as client:
            answer = client.post("/v1/plans", json=FITS)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
