"""Sends requests to a service: what its OpenAPI document allows, what it forbids, and what is no request at all."""

from __future__ import annotations

import json
import socket
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import requests
import schemathesis
from hypothesis import given, seed
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from benchmarks.fuzz.bodies import BODIES, PAGES
from benchmarks.fuzz.drawing import drawing
from benchmarks.fuzz.mutation import JUNK, broken, json_text, wrong
from benchmarks.fuzz.record import Record, where
from benchmarks.fuzz.service import Service
from benchmarks.fuzz.targets import MODEL

CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
SECONDS = 20.0
"""What one request may take."""
SHED = {(429, "too-many-requests"), (503, "overloaded")}
"""Refused because there was too much to do, which is as it should be, and says nothing of what was sent."""
JOBS = frozenset({"/v1/estimates", "/v1/max-context", "/v1/plans", "/v1/preflight", "/v1/scripts"})
CONTENT_TYPES = (*("application/json",) * 6, "text/plain", "")
Send = Callable[["Sender", Any], str]


@dataclass(slots=True, kw_only=True)
class Sender:
    """Sends, with every key in turn, and notes what came of it."""

    service: Service
    session: requests.Session
    record: Record
    keep: Path | None
    sent: int = 0
    key: str | None = field(default=None)

    def next_key(self) -> dict[str, str]:
        """Of eight requests six with a key for everything, one with a key for plans, one without."""
        self.sent += 1
        self.key = {0: None, 1: self.service.plan}.get(self.sent % 8, self.service.every)
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of request: what is drawn, and how it is sent. ``weight``: its share."""

    name: str
    drawn: st.SearchStrategy[Any]
    send: Send
    weight: int


def fuzz_requests(service: Service, count: int, *, start: int, keep: Path | None = None) -> list[Record]:
    """Send so many requests in all. ``start``: the seed. ``keep``: a folder for those that showed a fault."""
    document = _document(service)
    kinds = list(_kinds(document))
    weights = sum(kind.weight for kind in kinds)
    records: dict[str, Record] = {}
    with requests.Session() as session:
        # In the first round caches fill, and what is imported late is imported: growth is counted from the second on.
        for turn, share in enumerate((count // 5, count - count // 5)):
            for index, kind in enumerate(kinds):
                record = records.setdefault(kind.name, Record(what=kind.name))
                sender = Sender(service=service, session=session, record=record, keep=keep, sent=index)
                if turn:
                    record.first_rss_bytes = record.first_rss_bytes or service.rss_bytes()
                _send_many(sender, kind, -(-share * kind.weight // weights), start + turn)
                record.last_rss_bytes = service.rss_bytes()
        missing = count - sum(record.count for record in records.values())
        last = Sender(service=service, session=session, record=records[kinds[-1].name], keep=keep)
        _send_many(last, kinds[-1], missing, start + 2)
    for line in service.said():
        records["as the document says"].fault(f"the log: {line[:200]}", line, b"", None)
    return list(records.values())


def _document(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(f"{service.address}/openapi.json", timeout=SECONDS).json()
    return found


def _kinds(document: dict[str, Any]) -> Iterator[Kind]:
    schema: Any = schemathesis.openapi.from_dict(document)
    for path, operations in document["paths"].items():
        for method in operations:
            operation = schema[path][method]
            weight = 8 if operation.body else 1
            for mode, name in (
                (GenerationMode.POSITIVE, "as the document says"),
                (GenerationMode.NEGATIVE, "against it"),
            ):
                if mode == GenerationMode.POSITIVE or operation.body or operation.query or operation.path_parameters:
                    yield Kind(name=name, drawn=operation.as_strategy(generation_mode=mode), send=_case, weight=weight)
    for path, bodies in BODIES.items():
        body = st.tuples(st.just(path), wrong(bodies, json_text), st.sampled_from(CONTENT_TYPES))
        yield Kind(name="broken bodies", drawn=body, send=_body, weight=16)
    for path in PAGES:
        page = st.tuples(st.just(path), st.lists(st.tuples(_words(), _words()), max_size=4))
        yield Kind(name="pages", drawn=page, send=_page, weight=4)
    yield Kind(name="no HTTP at all", drawn=_bytes(), send=_raw, weight=8)


def _words() -> st.SearchStrategy[str]:
    known = (
        "model",
        "gpu",
        "max_seq_length",
        "r",
        "weights",
        "state",
        "cursor",
        "limit",
        "q",
        "key",
        "4096",
        "-1",
        "1e9",
    )
    return st.one_of(st.sampled_from(known), st.text(max_size=40))


def _bytes() -> st.SearchStrategy[bytes]:
    head = b"POST /v1/estimates HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    chunked = head.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked").replace(b"{}", b"2\r\n{}\r\n0\r\n\r\n")
    return st.one_of(broken(st.sampled_from((head, chunked))), st.lists(st.sampled_from(JUNK)).map(b"".join))


def _send_many(sender: Sender, kind: Kind, count: int, start: int) -> None:
    if count < 1:
        return
    sent = 0

    @seed(start)
    @drawing(count)
    @given(kind.drawn)
    def one(drawn: Any) -> None:
        nonlocal sent
        sent += 1
        _send(sender, kind, drawn)

    # Hypothesis ends where it has drawn everything that can be drawn, such as a request without parameters: then it
    # is sent again, since with another key it is another request.
    while sent < count:
        try:
            one()
        except Unsatisfiable:  # nothing of this operation can be wrong
            return


def _send(sender: Sender, kind: Kind, drawn: Any) -> None:
    record = sender.record
    began = perf_counter()
    try:
        outcome = kind.send(sender, drawn)
    except BaseException as error:  # schemathesis' failures are no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome = "failed"
        given_text = repr(drawn)[:4000]
        record.fault(where(error) + f": {str(error)[:120]}", traceback.format_exc(), given_text.encode(), sender.keep)
    record.slowest_seconds = max(record.slowest_seconds, perf_counter() - began)
    record.outcomes[outcome] += 1


def _case(sender: Sender, case: Any) -> str:
    if case.operation.path in JOBS and isinstance(case.body, dict) and sender.sent % 2:
        # Hardly a drawn name is a model's: with one that is, the rest of the job is planned.
        case.body["model"] = MODEL
        if isinstance(case.body.get("gpu"), str):
            del case.body["gpu"]
    answer = case.call(
        base_url=sender.service.address,
        session=sender.session,
        headers=sender.next_key(),
        timeout=SECONDS,
        stream=False,
    )
    if is_shed(answer):
        return "shed"
    if sender.key is None:
        _expect_refusal(case, answer.status_code)
    case.validate_response(answer, checks=CHECKS)
    return _sort(answer.status_code)


def _expect_refusal(case: Any, status: int) -> None:
    """Without a key whatever needs one is not done."""
    if case.operation.definition.raw.get("security") and status < 400:
        raise AssertionError(f"{case.method} {case.path} is open")


def _body(sender: Sender, drawn: tuple[str, bytes, str]) -> str:
    path, body, kind = drawn
    headers = {**sender.next_key(), **({"Content-Type": kind} if kind else {})}
    return _sent(sender, "POST", path, data=body, headers=headers)


def _page(sender: Sender, drawn: tuple[str, list[tuple[str, str]]]) -> str:
    path, query = drawn
    pairs = [(_encodable(key), _encodable(value)) for key, value in query]
    return _sent(sender, "GET", path, params=pairs, headers=sender.next_key())


def _encodable(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _sent(sender: Sender, method: str, path: str, **request: Any) -> str:
    answer = sender.session.request(
        method, sender.service.address + path, timeout=SECONDS, allow_redirects=False, **request
    )
    if is_shed(answer):
        return "shed"
    if answer.status_code >= 500:
        raise AssertionError(f"{method} {path} answered {answer.status_code}: {answer.text[:200]}")
    if answer.status_code >= 400 and answer.headers.get("content-type", "").startswith("application/problem+json"):
        problem = json.loads(answer.content)
        assert {"type", "title", "status", "code"} <= problem.keys()
    return _sort(answer.status_code)


def _raw(sender: Sender, sent: bytes) -> str:
    """Bytes on a connection of their own; an answer, or the end of the connection."""
    at = urlsplit(sender.service.address)
    with socket.create_connection((at.hostname, at.port), timeout=SECONDS) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65536)
    if answer.startswith(b"HTTP/1.1 5"):
        raise AssertionError(answer[:300].decode(errors="replace"))
    return _sort(int(answer[9:12])) if answer.startswith(b"HTTP/1.1 ") else "closed"


def _sort(status: int) -> str:
    """401 and 403 apart from the other refusals: they say that nothing behind the key was reached."""
    return {401: "no key", 403: "no scope"}.get(status, f"{status // 100}xx")


def is_shed(answer: Any) -> bool:
    """Whether a request was turned away unread."""
    if answer.status_code not in {status for status, _ in SHED}:
        return False
    return (answer.status_code, answer.json().get("code")) in SHED
