"""The lease protocol over HTTP, from the worker's side. Keys and tokens are in headers alone, and in no message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from ctxplan.client.retries import retry_after_seconds
from ctxplan.client.wire import base_address, base_headers
from probes.worker.answer import Answer, json_of
from probes.worker.errors import Away, LeaseLost, NotLetIn, NotTheService, Refused
from probes.worker.facts import Facts

JOBS = "/v1/probe-jobs"
TIMEOUT_SECONDS = 30.0
LONGEST_ASKED_SECONDS = 3600.0
"""A worker asks again by then, however long the service would have it wait."""
AWAY = frozenset({408, 425, 429})
"""Beside 500 and above: to be asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A point in this worker's hands. The token is a secret, and so not in its ``repr``."""

    job: int
    epoch: int
    token: str = field(repr=False)
    point: Mapping[str, Any] = field(repr=False)
    digest: str
    time_limit_seconds: float
    expires_in_seconds: float
    renew_after_seconds: float

    @property
    def path(self) -> str:
        return f"{JOBS}/{self.job}/leases/{self.epoch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """What a renewal said."""

    expires_in_seconds: float
    renew_after_seconds: float
    cancelled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A result that counts. ``how``: ``duplicate`` where it had arrived before."""

    how: Literal["accepted", "duplicate"]
    answer: Mapping[str, Any]


class Server:
    """The service; to be used from several threads.

    Every method raises Away where it cannot be reached now, NotLetIn for the API key, and NotTheService for an answer
    that is none of its own.

    Args:
        url: of the service. api_key: with the scope ``work``; None where it asks for none.

    Raises:
        ServiceError: an address, or a key, that is none.
    """

    def __init__(self, url: str, api_key: str | None = None, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.url = str(base_address(url)).rstrip("/")
        self._http = httpx.Client(base_url=self.url, headers=base_headers(api_key), timeout=timeout_seconds)

    def close(self) -> None:
        self._http.close()

    def lease(self, facts: Facts) -> Lease | float | None:
        """A point for this worker; where there is none, the seconds after which to ask again, if it says so."""
        try:
            response = self._post(f"{JOBS}/leases", {"worker": facts.to_json()})
        except (Refused, LeaseLost) as error:
            raise NotTheService(f"{self.url} takes no worker like this one: {error}") from None
        if response.status_code == httpx.codes.NO_CONTENT:
            asked = retry_after_seconds(response)
            return None if asked is None else min(asked, LONGEST_ASKED_SECONDS)
        return _lease(Answer(response))

    def renew(self, lease: Lease) -> Renewed:
        """Hold on to a lease. Raises LeaseLost."""
        found = Answer(self._post(f"{lease.path}/renewal", None, lease))
        return Renewed(
            expires_in_seconds=found.seconds("expires_in_seconds"),
            renew_after_seconds=found.seconds("renew_after_seconds"),
            cancelled=found.flag("cancelled"),
        )

    def send_result(self, lease: Lease, document: Mapping[str, Any]) -> Sent:
        """Send what a point gave. Raises LeaseLost: it came too late. Refused: it is not taken as it is."""
        response = self._post(f"{lease.path}/result", document, lease)
        return Sent(how="accepted" if response.status_code == 201 else "duplicate", answer=Answer(response).document)

    def fail(self, lease: Lease, why: str, detail: Mapping[str, Any], *, retriable: bool = True) -> None:
        """Say that the attempt gave no result. Raises LeaseLost, Refused."""
        self._post(f"{lease.path}/failure", {"why": why, "detail": detail, "retriable": retriable}, lease)

    def give_back(self, lease: Lease) -> None:
        """Return the point untouched. Raises LeaseLost."""
        self._post(f"{lease.path}/return", None, lease)

    def heartbeat(self, facts: Facts, *, draining: bool, job: int | None) -> bool:
        """Say that the worker lives. Returns whether its job was cancelled."""
        body = {**facts.to_json(), "draining": draining, "job": job}
        return Answer(self._post(f"/v1/workers/{facts.id}/heartbeat", body)).flag("cancelled")

    def _post(self, path: str, body: Any, lease: Lease | None = None) -> httpx.Response:
        headers = {"lease-token": lease.token} if lease else {}
        try:
            response = (
                self._http.post(path, json=body, headers=headers)
                if body is not None
                else self._http.post(path, headers=headers)
            )
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise Away(f"{self.url} cannot be reached: {str(error) or type(error).__name__}") from None
        if not response.is_success:
            raise self._error(response)
        return response

    def _error(self, response: httpx.Response) -> Exception:
        status, problem = response.status_code, _problem(response)
        said = f"{self.url} answers {status}: {problem.get('detail') or response.reason_phrase}"
        named = problem.get("code")
        code = named if isinstance(named, str) else ""
        if status >= 500 or status in AWAY:
            return Away(said, retry_after_seconds=retry_after_seconds(response))
        if status in (401, 403):
            return NotLetIn(said, allowed="an API key with the scope work, in CTXPLAN_API_KEY")
        if code in ("lease-lost", "unknown-job"):
            return LeaseLost(said, problem)
        if not code:
            return NotTheService(said, allowed="the address of a ctxplan service")
        return Refused(said, problem, why=code)


def _lease(found: Answer) -> Lease:
    return Lease(
        job=found.number("job"),
        epoch=found.number("epoch"),
        token=found.token("token"),
        point=found.object("point"),
        digest=found.text("digest"),
        time_limit_seconds=found.seconds("time_limit_seconds"),
        expires_in_seconds=found.seconds("expires_in_seconds"),
        renew_after_seconds=found.seconds("renew_after_seconds"),
    )


def _problem(response: httpx.Response) -> Mapping[str, Any]:
    found = json_of(response)
    return found if isinstance(found, dict) else {}
