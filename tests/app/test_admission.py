"""Who is let in: one caller's rate, a service that is behind, and work that waits for threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

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
from app.keys.form import new_key
from app.logs import make_logger
from app.main import RATE_WITH_KEYS, create_app
from app.metrics import Metrics
from app.plans import Plans
from app.settings import Settings
from app.turns import Turns
from ctxplan import Planner
from tests.app.jobs import FITS, MODEL
from tests.app.measuring import service
from tests.app.test_keys_over_http import SECRET, bearer, key
from tests.app.test_problems import problem_of

QUIET: dict[str, Any] = {"allow_hub": False, "log_level": "error"}


def client_of(**settings: Any) -> TestClient:
    return TestClient(create_app(Settings(**QUIET, **settings)))


def asker() -> Callable[..., Coroutine[Any, Any, int]]:
    """Asks a service that takes a request a second of each caller; no time passes. ``opens``: the key is a good one."""
    good: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if good.pop():
            scope["state"]["principal"] = "somebody"
        await Response()(scope, receive, send)

    metrics = Metrics()
    admission = Admission(app, per_second=1, lag=Lag(1), metrics=metrics)
    for limit in (admission._keys, admission._addresses, admission._anybody):
        limit._time = lambda: 0.0

    async def ask(shown: str | None, *, address: str = "10.0.0.1", opens: bool = False) -> int:
        statuses: list[int] = []

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        headers = [] if shown is None else [(b"authorization", shown.encode())]
        scope = {"type": "http", "method": "GET", "path": "/v1/gpus", "client": (address, 1), "headers": headers}
        good[:] = [opens]
        await admission({**scope, "state": {}}, _nothing, send)
        return statuses[0]

    return ask


async def _nothing() -> Any:
    raise AssertionError("no body is read")


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

    async def test_keys_that_have_opened_something_have_rates_of_their_own_within_that_of_their_address(self) -> None:
        ask = asker()
        keys = [f"key {number}" for number in range(2 * KEYS_PER_ADDRESS)]
        for number, one in enumerate(keys):
            assert await ask(one, address=f"10.0.1.{number}", opens=True) == 200
        statuses = [await ask(one, opens=True) for _ in range(2) for one in keys]
        assert BURST_SECONDS * KEYS_PER_ADDRESS <= statuses.count(200) <= BURST_SECONDS * KEYS_PER_ADDRESS + 1
        spaced = ("key 0", "KEY 0", "key  0", "key 0 ", "key \t0")
        elsewhere = [await ask(one, address=f"10.0.2.{number}", opens=True) for number, one in enumerate(spaced)]
        assert elsewhere[0] == 200
        assert elsewhere[-1] == 429, "it has one rate, wherever it comes from and however it is written"

    @pytest.mark.parametrize("header", ["made up {}", "Basic {}", "Bearer x{}", None])
    async def test_what_is_no_key_is_worth_no_more_than_none(self, header: str | None) -> None:
        ask = asker()
        shown = [header and header.format(number) for number in range(50)]
        statuses = [await ask(one) for one in shown for _ in range(2)]
        assert statuses.count(200) == BURST_SECONDS + 1
        assert await ask("good", opens=True) == 429
        assert await ask("good", opens=True, address="10.0.0.2") == 200
        assert await ask("good", opens=True) == 200, "it is known, and no longer one of its address"

    async def test_a_made_up_key_proves_nothing_where_no_key_is_needed(self) -> None:
        """A route that is open answers 200 whatever is shown."""
        with client_of(requests_per_second=1, require_keys=True) as client:
            headers = [{"authorization": f"Bearer {new_key()}"} for _ in range(6)]
            statuses = [client.get("/docs", headers=one).status_code for one in headers]
        assert statuses[:2] == [200, 200]
        assert statuses[-1] == 429

    def test_a_key_that_was_let_in_is_known(self, database_url: str, tmp_path: Path) -> None:
        own = {"require_keys": True, "keys_secret": SECRET, "requests_per_second": 1}
        with service(database_url, tmp_path, **own) as client:
            client.get("/v1/gpus", headers=bearer(new_key()))  # waits for the database
            headers = bearer(key(database_url, "plan").key)
            assert client.get("/v1/gpus", headers=headers).status_code == 200
            while client.get("/v1/gpus").status_code != 429:
                pass
            assert client.get("/v1/gpus", headers=headers).status_code == 200

    async def test_of_one_ipv6_network_are_one_machines(self) -> None:
        ask = asker()
        statuses = [await ask(None, address=f"2001:db8::{number:x}") for number in range(20)]
        assert statuses.count(200) == BURST_SECONDS + 1
        assert await ask(None, address="2001:db8:0:1::1") == 200
        assert {await ask(None, address=f"::ffff:10.0.0.{number}") for number in range(20)} == {200}

    async def test_the_keys_that_are_known_take_only_so_much_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("app.admission.MAX_CALLERS", 3)
        ask = asker()
        for number in range(5):
            await ask(f"key {number}", address=f"10.0.1.{number}", opens=True)
        while await ask(None) == 200:
            pass
        known = [await ask(f"key {number}", opens=True) for number in range(5)]
        assert known == [429, 429, 200, 200, 200]

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
