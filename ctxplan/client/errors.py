"""What can go wrong between a client and a service, as one exception tree.

    CtxplanError                      everything of ctxplan, asked here or over HTTP
    └── ServiceError                  no answer was had from the service
        ├── Unreachable               nothing answered: refused, cut off, too slow
        ├── UnreadableAnswer          something answered that is not what the service writes
        └── ProblemError              the service answered with a problem document
            ├── RefusedInput          400, 413, 415, 422: the question is at fault; ``key`` names the part
            ├── NotAuthorized         401, 403: no API key, a wrong one, or one without the scope
            ├── NotFound              404: no such tier, calibration or route
            ├── Conflict              409: not in this state
            ├── TooManyRequests       429: ask again later
            └── ServerFailed          500 and above: the service is at fault

``exit_code`` is what a command that ends with the error should exit with: 4 where the service could not be had, 2 where
the question is at fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from estimator.errors import CtxplanError

QUESTION_AT_FAULT = 2
SERVICE_AT_FAULT = 4


class ServiceError(CtxplanError):
    """No answer was had from the service."""

    code = "service-error"
    exit_code = QUESTION_AT_FAULT


class Unreachable(ServiceError):
    """Nothing answered: the connection was refused or cut off, or the answer took too long."""

    code = "unreachable"
    exit_code = SERVICE_AT_FAULT


class UnreadableAnswer(ServiceError):
    """Something answered that is not what the service writes: a proxy, another service, another version."""

    code = "unreadable-answer"
    exit_code = SERVICE_AT_FAULT


class ProblemError(ServiceError):
    """The service answered with a problem document (RFC 9457), or a proxy with a bare HTTP error.

    Attributes:
        status: of HTTP. type: a path of the service that explains the problem. title, detail: for people.
        errors: every fault, with its ``key``, ``message`` and ``allowed``; the first one's are the exception's own.
        request_id: by which the service's log knows the request. problem: the whole document.
        retry_after_seconds: when to ask again, where the service says so.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], *, retry_after_seconds: float | None = None) -> None:
        self.status = status
        self.problem = problem
        self.retry_after_seconds = retry_after_seconds
        self.type = str(problem.get("type") or "about:blank")
        self.title = str(problem.get("title") or "")
        self.detail = str(problem.get("detail") or self.title)
        self.request_id = str(problem.get("request_id") or "")
        self.errors = _faults(problem.get("errors"))
        first = self.errors[0] if self.errors else {}
        super().__init__(self.detail, key=first.get("key"), allowed=first.get("allowed"))
        self.code = str(problem.get("code") or f"http-{status}")

    def __str__(self) -> str:
        """The detail, which names the keys and what is allowed already."""
        return f"{self.detail} ({self.code}, HTTP {self.status})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Between processes: an exception is made anew from its ``args``, which are the message alone."""
        return type(self)._again, (self.status, dict(self.problem), self.retry_after_seconds)

    @classmethod
    def _again(cls, status: int, problem: Mapping[str, Any], retry_after_seconds: float | None) -> ProblemError:
        return cls(status, problem, retry_after_seconds=retry_after_seconds)


class RefusedInput(ProblemError):
    """The question cannot be answered as it was written; ``key`` and ``allowed`` say what to change."""


class NotAuthorized(ProblemError):
    """The service asks for an API key, or this one may not do this."""


class NotFound(ProblemError):
    """There is no such tier, calibration or route."""


class Conflict(ProblemError):
    """What was asked for is not possible in the state that the service is in."""


class TooManyRequests(ProblemError):
    """The service asks for fewer requests."""

    exit_code = SERVICE_AT_FAULT


class ServerFailed(ProblemError):
    """The service, or what it depends on, is at fault."""

    exit_code = SERVICE_AT_FAULT


def problem_error(status: int, problem: Mapping[str, Any], *, retry_after_seconds: float | None = None) -> ProblemError:
    """The exception of a status: one of the tree's leaves, or `ProblemError` itself for a status that has none."""
    kind = ServerFailed if status >= 500 else _BY_STATUS.get(status, ProblemError)
    return kind(status, problem, retry_after_seconds=retry_after_seconds)


_BY_STATUS: Mapping[int, type[ProblemError]] = {
    400: RefusedInput,
    401: NotAuthorized,
    403: NotAuthorized,
    404: NotFound,
    409: Conflict,
    413: RefusedInput,
    415: RefusedInput,
    422: RefusedInput,
    429: TooManyRequests,
}


def _faults(errors: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(errors, Sequence) or isinstance(errors, str):
        return ()
    return tuple(fault for fault in errors if isinstance(fault, Mapping))
