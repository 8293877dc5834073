"""What a client makes of a service that is away, busy, at fault, or something else altogether."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

import ctxplan
from ctxplan.client import (
    AsyncClient,
    Client,
    Conflict,
    NotAuthorized,
    NotFound,
    ProblemError,
    RefusedInput,
    Retries,
    ServerFailed,
    ServiceError,
    TooManyRequests,
    Unreachable,
    UnreadableAnswer,
)
from ctxplan.client.retries import retry_after_seconds
from estimator import CtxplanError, JobError

JOB = {"model": "Qwen/Qwen3-8B"}
OK = httpx.Response(200, json={"status": "ok", "version": "1"})
SCRIPT = {"filename": "train.py", "script": "pass"}
KEY = "ctxp_secret"


def problem(status: int, code: str = "invalid-job", **more: Any) -> httpx.Response:
    document = {
        "type": f"/problems/{code}",
        "title": "t",
        "status": status,
        "detail": "r: -1 is not accepted",
        "code": code,
    }
    return httpx.Response(status, json={**document, **more}, headers={"content-type": "application/problem+json"})


class Service:
    """Answers in turn, an exception by raising it, and remembers what it was asked; the last answer stays."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []
        self.waits: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, retries: int | Retries = 3, **options: Any) -> Client:
        return Client(
            "http://service", transport=httpx.MockTransport(self), retries=retries, sleep=self.waits.append, **options
        )


@pytest.mark.parametrize(
    ("status", "kind", "exit_code"),
    [
        (400, RefusedInput, 2),
        (401, NotAuthorized, 2),
        (403, NotAuthorized, 2),
        (404, NotFound, 2),
        (405, ProblemError, 2),
        (409, Conflict, 2),
        (413, RefusedInput, 2),
        (422, RefusedInput, 2),
        (429, TooManyRequests, 4),
        (500, ServerFailed, 4),
        (503, ServerFailed, 4),
    ],
)
def test_a_problem_is_raised_as_the_leaf_of_its_status(status: int, kind: type[ProblemError], exit_code: int) -> None:
    with pytest.raises(ProblemError) as raised:
        Service(problem(status)).client(retries=0).estimate(JOB)
    assert type(raised.value) is kind
    assert (raised.value.status, raised.value.exit_code) == (status, exit_code)


def test_a_problem_carries_its_whole_document_and_names_the_key_as_a_local_error_does() -> None:
    faults = [{"key": "r", "message": "-1 is not accepted", "allowed": "1 to 8192"}]
    with pytest.raises(CtxplanError) as raised:
        Service(problem(422, errors=faults, request_id="q1")).client().estimate(JOB)
    error = raised.value
    assert isinstance(error, RefusedInput)
    assert (error.code, error.type, error.key, error.allowed) == (
        "invalid-job",
        "/problems/invalid-job",
        "r",
        "1 to 8192",
    )
    assert (error.errors, error.request_id, error.problem["title"]) == (tuple(faults), "q1", "t")
    assert str(error) == "r: -1 is not accepted (invalid-job, HTTP 422)"


def test_a_problem_goes_from_one_process_to_another_whole() -> None:
    with pytest.raises(RefusedInput) as raised:
        Service(problem(422)).client().estimate(JOB)
    again = pickle.loads(pickle.dumps(raised.value))  # noqa: S301 - our own bytes
    assert (type(again), str(again), again.problem) == (RefusedInput, str(raised.value), raised.value.problem)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(502, html="<h1>Bad gateway</h1>"),
        httpx.Response(502, content=b"{", headers={"content-type": "application/problem+json"}),
        httpx.Response(502, json=[], headers={"content-type": "application/problem+json"}),
        httpx.Response(
            502, json={"errors": "none", "detail": None}, headers={"content-type": "application/problem+json"}
        ),
    ],
)
def test_an_error_that_is_no_problem_document_is_still_told_by_its_status(answer: httpx.Response) -> None:
    with pytest.raises(ServerFailed) as raised:
        Service(answer).client(retries=0).estimate(JOB)
    assert raised.value.code == "http-502"
    assert raised.value.errors == ()


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, html="<h1>Welcome</h1>"),
        httpx.Response(200, content=b"["),
        httpx.Response(200, content=b"[" * 200_000),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={}),
        httpx.Response(200, json={"terms": 1}),
        httpx.Response(200, content=b"\xff\xfe"),
        httpx.Response(204),
        httpx.Response(308, headers={"location": "https://elsewhere/"}),
    ],
)
def test_an_answer_that_the_service_does_not_write_is_unreadable_and_not_asked_for_again(
    answer: httpx.Response,
) -> None:
    service = Service(answer)
    with pytest.raises(UnreadableAnswer, match="POST /v1/estimates") as raised:
        service.client().estimate(JOB)
    assert (len(service.asked), raised.value.exit_code) == (1, 4)
    if answer.is_redirect:
        assert "https://elsewhere/" in str(raised.value)


def test_a_list_without_its_items_is_unreadable() -> None:
    for document in ({}, {"items": 3}):
        with pytest.raises(UnreadableAnswer):
            Service(httpx.Response(200, json=document)).client().gpus()


REFUSED = httpx.ConnectError("refused")
CUT_OFF = httpx.RemoteProtocolError("Server disconnected without sending a response.")


@pytest.mark.parametrize("fault", [REFUSED, CUT_OFF, problem(429), problem(503), httpx.Response(502)])
def test_what_may_pass_is_asked_again_after_longer_and_longer_waits(fault: Any) -> None:
    service = Service(fault, fault, fault, httpx.Response(200, json=SCRIPT))
    assert (
        service.client(Retries(most=3, first_seconds=2.0, longest_seconds=5.0, dice=lambda: 0.5)).script(JOB) == SCRIPT
    )
    assert service.waits == [1.0, 2.0, 2.5]
    assert len({request.content for request in service.asked}) == 1


def test_the_last_failure_is_raised_when_all_retries_are_used() -> None:
    service = Service(REFUSED)
    with pytest.raises(Unreachable, match="POST /v1/scripts: refused") as raised:
        service.client(retries=2).script(JOB)
    assert (len(service.asked), raised.value.exit_code) == (3, 4)
    assert raised.value.__cause__ is REFUSED


@pytest.mark.parametrize("fault", [problem(422), problem(500), httpx.ReadTimeout("too slow")])
def test_what_will_not_pass_is_asked_once(fault: Any) -> None:
    service = Service(fault)
    with pytest.raises(ServiceError):
        service.client().script(JOB)
    assert (len(service.asked), service.waits) == (1, [])


def test_the_service_says_how_long_to_wait_and_is_obeyed() -> None:
    busy = problem(429)
    busy.headers["retry-after"] = "7"
    service = Service(busy, httpx.Response(200, json=SCRIPT))
    service.client().script(JOB)
    assert service.waits == [7.0]


def test_a_wait_that_is_too_long_is_told_and_not_made() -> None:
    busy = problem(503)
    busy.headers["retry-after"] = "3600"
    service = Service(busy)
    with pytest.raises(ServerFailed) as raised:
        service.client().script(JOB)
    assert (raised.value.retry_after_seconds, service.waits) == (3600.0, [])


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("Wed, 25 Nov 2026 10:00:30 GMT", 30.0),
        ("Wed, 25 Nov 2026 09:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("", None),
    ],
)
def test_a_retry_after_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    response = httpx.Response(503, headers=[(b"retry-after", header.encode())])
    assert retry_after_seconds(response, lambda: datetime(2026, 11, 25, 10, 0, 0, tzinfo=UTC)) == seconds


@pytest.mark.parametrize(("fault", "times"), [(REFUSED, 4), (problem(429), 4), (CUT_OFF, 1), (problem(503), 1)])
def test_a_rollback_is_sent_again_only_where_the_first_cannot_have_arrived(fault: Any, times: int) -> None:
    """Two rollbacks go two calibrations back."""
    service = Service(fault)
    with pytest.raises(ServiceError):
        service.client().roll_back_calibration()
    assert len(service.asked) == times


@pytest.mark.parametrize("ask", [Client.health, Client.ready])
def test_whether_the_service_is_there_is_a_question_of_this_moment(ask: Callable[[Client], Any]) -> None:
    service = Service(problem(503, "not-ready"))
    with pytest.raises(ServerFailed):
        ask(service.client())
    assert len(service.asked) == 1


async def test_the_async_client_asks_again_and_raises_in_the_same_way() -> None:
    service, waits = Service(REFUSED, httpx.Response(503), httpx.Response(200, json=SCRIPT), problem(404)), []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    patient = Retries(first_seconds=2.0, dice=lambda: 0.5)
    transport = httpx.MockTransport(service)
    async with AsyncClient("http://service", transport=transport, retries=patient, sleep=sleep) as client:
        assert await client.script(JOB) == SCRIPT
        assert waits == [1.0, 2.0]
        with pytest.raises(NotFound):
            await client.tier("none")


def test_a_key_is_sent_and_shown_nowhere() -> None:
    service = Service(OK)
    client = service.client(api_key=KEY)
    client.health()
    assert service.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(client)
    service = Service(OK)
    service.client().health()
    assert "authorization" not in service.asked[0].headers


@pytest.mark.parametrize("key", ["", f"{KEY}\n", f"{KEY} x", f"{KEY}é"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ServiceError, match="api_key") as raised:
        Client("http://service", api_key=key)
    assert KEY not in str(raised.value)


@pytest.mark.parametrize("url", ["", "service:8000", "ftp://service", "http://", "http://a:b", 3])
def test_an_address_that_is_none_is_refused_before_anything_is_asked(url: Any) -> None:
    with pytest.raises(ServiceError, match="base_url"):
        Client(url)


def test_a_password_in_the_address_is_not_shown() -> None:
    assert "hunter2" not in repr(Client("https://me:hunter2@service"))


def test_a_path_in_front_of_the_service_is_kept_and_a_name_cannot_leave_its_route() -> None:
    service = Service(problem(404))
    client = Client("http://proxy/ctxplan/", transport=httpx.MockTransport(service))
    with pytest.raises(NotFound):
        client.tier("../a b?c#d")
    assert service.asked[0].url.raw_path == b"/ctxplan/v1/tiers/..%2Fa%20b%3Fc%23d"


def circle() -> dict[str, Any]:
    around: dict[str, Any] = {}
    around["model"] = around
    return around


@pytest.mark.parametrize("job", [{"model": {1, 2}}, {"confidence": float("nan")}, circle()])
def test_a_job_that_json_cannot_hold_is_refused_here(job: dict[str, Any]) -> None:
    service = Service(OK)
    with pytest.raises(JobError, match="JSON"):
        service.client().estimate(job)
    assert service.asked == []


def leaves(kind: type[Exception]) -> Iterator[type[Exception]]:
    for one in kind.__subclasses__():
        yield one
        yield from leaves(one)


def test_the_tree_that_the_errors_draw_is_the_tree_that_there_is() -> None:
    from ctxplan.client import errors

    drawn = [line.split("── ")[1].split()[0] for line in (errors.__doc__ or "").splitlines() if "── " in line]
    assert drawn == [ServiceError.__name__, *(kind.__name__ for kind in leaves(ServiceError))]
    assert all(name in ctxplan.client.__all__ for name in drawn)
