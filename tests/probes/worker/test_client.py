"""What the service answers is read strictly: what is no answer ends with an error that says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from probes.worker.client import Lease, Server
from probes.worker.errors import NotTheService
from probes.worker.facts import find_facts
from tests.probes.common import point
from tests.probes.worker.service import Service, listening

FACTS = find_facts(cpu=True, id="here")
LEASE: dict[str, Any] = {
    "job": 1,
    "epoch": 1,
    "token": "secret",
    "point": {},
    "digest": "d",
    "time_limit_seconds": 60,
    "expires_in_seconds": 60,
    "renew_after_seconds": 20,
}
RENEWED: dict[str, Any] = {"expires_in_seconds": 60, "renew_after_seconds": 20, "cancelled": False}


@pytest.fixture
def service() -> Iterator[Service]:
    with listening(Service()) as one:
        yield one


@pytest.fixture
def server(service: Service) -> Iterator[Server]:
    with closing(Server(service.url)) as one:
        yield one


def held() -> Lease:
    return Lease(**LEASE)


ASKED: dict[str, tuple[Callable[[Server], Any], dict[str, Any]]] = {
    "leases": (lambda server: server.lease(FACTS), LEASE),
    "renewal": (lambda server: server.renew(held()), RENEWED),
    "heartbeat": (lambda server: server.heartbeat(FACTS, draining=False, job=None), {"cancelled": False}),
}
WRONG: dict[str, list[Any]] = {
    "job": ["1", 1.5, True, -1, None],
    "epoch": [[]],
    "token": [5, "", "two words", "l\u00f6se", "a\nb"],
    "point": [[], "text"],
    "digest": [None],
    "time_limit_seconds": ["60", float("nan"), float("inf"), -1, 10**400],
    "expires_in_seconds": [{}, True],
    "renew_after_seconds": ["soon"],
    "cancelled": ["false", 0, None],
}
CASES = [(what, key, value) for what, (_, whole) in ASKED.items() for key in whole for value in WRONG[key]]


@pytest.mark.parametrize("what", ASKED)
def test_what_the_protocol_says_is_read(service: Service, server: Server, what: str) -> None:
    ask, whole = ASKED[what]
    service.odd = {what: whole}
    found = ask(server)
    assert found is False if what == "heartbeat" else found.renew_after_seconds == 20


@pytest.mark.parametrize(("what", "key", "value"), CASES)
def test_a_value_of_another_kind_is_named_and_never_taken_for_one(
    service: Service, server: Server, what: str, key: str, value: Any
) -> None:
    ask, whole = ASKED[what]
    service.odd = {what: {**whole, key: value}}
    with pytest.raises(NotTheService, match=f"^{key}: 127.0.0.1 answers /v1/.*allowed: ") as caught:
        ask(server)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("what", "key"), [(what, key) for what, (_, whole) in ASKED.items() for key in whole])
def test_a_key_that_is_missing_is_named(service: Service, server: Server, what: str, key: str) -> None:
    ask, whole = ASKED[what]
    service.odd = {what: {name: value for name, value in whole.items() if name != key}}
    with pytest.raises(NotTheService, match=f"^{key}: .* with nothing "):
        ask(server)


@pytest.mark.parametrize("odd", ["text", 5, [LEASE], None], ids=str)
@pytest.mark.parametrize("what", ASKED)
def test_what_is_no_object_is_no_service(service: Service, server: Server, what: str, odd: Any) -> None:
    service.odd = {what: odd}
    with pytest.raises(NotTheService, match="answers without a JSON object"):
        ASKED[what][0](server)


def test_no_service_makes_a_worker_wait_for_ever(service: Service, server: Server) -> None:
    service.no_job_retry_after = "9" * 400
    assert server.lease(FACTS) == 3600.0


def test_a_code_that_is_no_text_is_none(service: Service, server: Server) -> None:
    service.add(point())
    lease = server.lease(FACTS)
    assert isinstance(lease, Lease)
    service.refuse_result = (422, {"code": None, "detail": "no"})
    with pytest.raises(NotTheService, match="answers 422: no"):
        server.send_result(lease, {})
