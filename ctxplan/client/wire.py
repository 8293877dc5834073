"""One question over HTTP: the request that asks it, and the answer or the exception that a response is.

Nothing here waits or sends, so the sync and the async client share all of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx

from ctxplan.client.errors import ServiceError, Unreachable, UnreadableAnswer, problem_error
from ctxplan.client.retries import Outcome, retry_after_seconds
from estimator.errors import CtxplanError, JobError

T = TypeVar("T")
PROBLEM = "application/problem+json"
MOST_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """A question: where it is asked, with what, and how its answer is read.

    Attributes:
        read: the answer from a response of 200 or 201. body: JSON values, None for no body. key: by which the service
            knows the request again when it is sent a second time.
        repeatable: whether a second request that arrives changes nothing more. patient: whether it is worth asking
            again: not where the state of this moment is the question.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    body: Any = None
    params: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    repeatable: bool = True
    patient: bool = True

    @property
    def headers(self) -> dict[str, str]:
        """Beside those of every request."""
        headers = {} if self.body is None else {"content-type": "application/json"}
        return headers if self.key is None else {**headers, "idempotency-key": self.key}


def content_of(call: Call[T]) -> bytes | None:
    """The body's bytes. ASCII, since half a surrogate pair in a string is JSON, and not UTF-8.

    Raises:
        JobError: values that JSON has not.
    """
    if call.body is None:
        return None
    try:
        return json.dumps(call.body, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise JobError(f"cannot be written as JSON: {error}") from None


def base_headers(api_key: str | None) -> dict[str, str]:
    """The headers of every request. Raises ServiceError for a key that no header can carry, and never shows it."""
    headers = {"accept": "application/json"}
    if api_key is not None:
        if not api_key or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
            raise ServiceError(
                "is no API key", key="api_key", allowed="printable ASCII without spaces, as ctxplan keys prints it"
            )
        headers["authorization"] = f"Bearer {api_key}"
    return headers


def base_address(url: str) -> httpx.URL:
    """Where the service is. Raises ServiceError for what is no address of HTTP."""
    try:
        address = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        address = httpx.URL("")
    if address.scheme not in ("http", "https") or not address.host:
        raise ServiceError("is no address of a service", key="base_url", allowed="http://HOST:PORT or https://HOST")
    return address


def answer_of(call: Call[T], outcome: Outcome) -> T:
    """The answer that a response is.

    Raises:
        Unreachable, UnreadableAnswer, ProblemError: as `ctxplan.client.errors` draws them.
    """
    where = f"{call.method} {call.path}"
    if isinstance(outcome, httpx.DecodingError | httpx.TooManyRedirects):
        raise UnreadableAnswer(f"{where}: {outcome}") from outcome
    if isinstance(outcome, httpx.RequestError):
        raise Unreachable(f"{where}: {str(outcome) or type(outcome).__name__}") from outcome
    if outcome.status_code >= 400:
        raise problem_error(
            outcome.status_code, _problem(outcome, where), retry_after_seconds=retry_after_seconds(outcome)
        )
    if outcome.status_code not in (200, 201):
        to = outcome.headers.get("location")
        raise UnreadableAnswer(f"{where} answered {outcome.status_code}" + (f", which leads to {to}" if to else ""))
    try:
        return call.read(outcome)
    except (CtxplanError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"[:MOST_SHOWN]
        raise UnreadableAnswer(f"{where} answered what this version of ctxplan cannot read: {reason}") from error


def json_object(response: httpx.Response) -> dict[str, Any]:
    """The object that a response is. Raises ValueError for anything else."""
    document = response.json()
    if not isinstance(document, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - a wrong answer, not a wrong argument
    return document


def _problem(response: httpx.Response, where: str) -> Mapping[str, Any]:
    """The problem document, or one in its place for an error that something on the way has written."""
    if response.headers.get("content-type", "").partition(";")[0].strip() == PROBLEM:
        try:
            return json_object(response)
        except (ValueError, RecursionError):
            pass  # then the status alone says what is wrong
    status = response.status_code
    title = httpx.codes.get_reason_phrase(status) or "an unknown status"
    return {"status": status, "title": title, "detail": f"{where} answered {status}: {title}"}
