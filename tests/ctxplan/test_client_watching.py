"""What the client makes of events that break off, and of submissions whose answer is lost on the way."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from ctxplan.client import (
    AsyncClient,
    NotFound,
    Retries,
    ServerFailed,
    ServiceError,
    Unreachable,
    UnreadableAnswer,
)
from ctxplan.client.watch import QUIET_SECONDS
from tests.ctxplan.test_client_faults import Service, problem

STREAM = {"content-type": "text/event-stream; charset=utf-8"}


def campaign(state: str = "measuring", **jobs: int) -> dict[str, Any]:
    return {"id": 7, "state": state, "jobs": jobs}


def event(told: dict[str, Any], *, ending: str = "\n") -> str:
    return f"id: 1{ending}event: state{ending}data: {json.dumps(told)}{ending}{ending}"


class Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Gives its parts, and then ends or raises."""

    def __init__(self, *parts: str | Exception) -> None:
        self.parts = parts
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part.encode()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


def events(*parts: str | Exception, **options: Any) -> httpx.Response:
    return httpx.Response(200, **{"headers": STREAM, "stream": Stream(*parts), **options})


FIRST, SECOND, LAST = campaign(queued=2), campaign(queued=1, succeeded=1), campaign("done", succeeded=2)


def test_an_event_may_come_in_any_pieces_with_comments_between() -> None:
    text = ": nothing new\n\n" + event(FIRST) + ": nothing new\n\n" + event(SECOND, ending="\r\n") + event(LAST)
    service = Service(events(*text))
    assert list(service.client().watch_campaign(7)) == [FIRST, SECOND, LAST]
    assert service.asked[0].headers["accept"] == "text/event-stream"
    assert service.asked[0].extensions["timeout"]["read"] == QUIET_SECONDS
    assert service.waits == []


@pytest.mark.parametrize(
    "cut",
    [None, httpx.RemoteProtocolError("peer closed"), httpx.ReadError("reset"), httpx.ReadTimeout("silent")],
)
def test_events_that_break_off_are_asked_for_again_and_nothing_is_told_twice(cut: Exception | None) -> None:
    parts: list[str | Exception] = [event(FIRST), *([] if cut is None else [cut])]
    service = Service(events(*parts), events(event(FIRST), event(SECOND)), problem(503), events(event(LAST)))
    assert list(service.client().watch_campaign(7)) == [FIRST, SECOND, LAST]
    assert len(service.waits) == 3


def test_a_half_event_at_the_end_of_a_connection_is_no_event() -> None:
    service = Service(events("data: {"), events(event(LAST)))
    assert list(service.client().watch_campaign(7)) == [LAST]


def test_a_campaign_of_days_outlives_more_connections_than_there_are_retries() -> None:
    cut = [events(event(campaign(succeeded=n))) for n in range(20)]
    service = Service(*cut, events(event(LAST)))
    assert len(list(service.client(retries=2).watch_campaign(7))) == 21


@pytest.mark.parametrize(
    ("answer", "kind", "asked"),
    [
        (httpx.ConnectError("refused"), Unreachable, 3),
        (problem(503), ServerFailed, 3),
        (problem(404), NotFound, 1),
        (httpx.Response(302, headers={"location": "/login"}), UnreadableAnswer, 1),
        (httpx.Response(200, html="<h1>Sign in</h1>"), UnreadableAnswer, 1),
        (httpx.Response(200, headers=STREAM, content="data: [\n\n"), UnreadableAnswer, 1),
        (httpx.Response(200, headers=STREAM, content="data: 3\n\n"), UnreadableAnswer, 1),
    ],
)
def test_what_tells_no_events_is_raised_as_elsewhere(answer: Any, kind: type[Exception], asked: int) -> None:
    service = Service(answer)
    with pytest.raises(kind):
        list(service.client(retries=2).watch_campaign(7))
    assert len(service.asked) == asked


def test_a_stream_that_never_tells_anything_is_given_up() -> None:
    service = Service(*(events(": hello\n\n") for _ in range(4)))
    with pytest.raises(Unreachable, match="ended before the campaign"):
        list(service.client(retries=Retries(most=3)).watch_campaign(7))


async def test_the_async_client_connects_again_as_well() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    service = Service(events(event(FIRST), httpx.ReadError("reset")), problem(503), events(event(LAST)))
    async with AsyncClient("http://service", transport=httpx.MockTransport(service), sleep=sleep) as client:
        assert [one async for one in client.watch_campaign(7)] == [FIRST, LAST]
    assert len(waits) == 2


def test_whoever_stops_watching_closes_the_connection() -> None:
    stream = Stream(event(FIRST), event(SECOND))
    watched = Service(httpx.Response(200, headers=STREAM, stream=stream)).client().watch_campaign(7)
    assert next(iter(watched)) == FIRST
    watched.close()
    assert stream.closed


def test_a_submission_whose_answer_is_lost_is_sent_again_under_the_same_key() -> None:
    taken = httpx.Response(200, json={"items": [], "campaign": None})
    service = Service(httpx.ReadError("cut off"), problem(503), taken)
    client = service.client()
    assert client.submit_point({"job": {"model": "m"}})["items"] == []
    assert client.submit_point({"job": {"model": "m"}})["items"] == []
    first, second, third, other = (request.headers["idempotency-key"] for request in service.asked)
    assert first == second == third != other


@pytest.mark.parametrize("ask", [lambda c: c.retry_probe_job(1), lambda c: c.cancel_campaign(1)])
def test_what_would_do_more_the_second_time_is_not_sent_again(ask: Any) -> None:
    service = Service(httpx.ReadError("cut off"))
    with pytest.raises(Unreachable):
        ask(service.client())
    assert len(service.asked) == 1
    refused = Service(problem(429), httpx.Response(200, json={"id": 1}))
    assert ask(refused.client()) == {"id": 1}


def test_a_page_that_is_none_ends_the_iteration_with_an_error() -> None:
    service = Service(httpx.Response(200, json=[]))
    with pytest.raises(UnreadableAnswer):
        next(iter(service.client().each_probe_job()))


def test_a_client_of_a_service_without_a_queue_says_so() -> None:
    with pytest.raises(NotFound):
        Service(problem(404, "not-found")).client().submit_point({})


@pytest.mark.parametrize("key", ["", "a night", "line\n", "é", "x" * 201])
def test_a_key_that_no_header_carries_is_refused_before_anything_is_sent(key: str) -> None:
    service = Service(httpx.Response(201, json={"items": [], "campaign": None}))
    with pytest.raises(ServiceError, match="idempotency_key"):
        service.client().submit_point({}, idempotency_key=key)
    assert service.asked == []
