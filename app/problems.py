"""Every error over HTTP is a problem document (RFC 9457) whose ``type`` is a page of this service.

    {"type": "/problems/invalid-job", "title": "...", "status": 422, "detail": "...", "instance":
    "/v1/estimates",
     "code": "invalid-job", "request_id": "...", "errors": [{"key": "r", "message": "...", "allowed": "..."}]}

``code`` and ``type`` are stable; ``detail`` and the messages are for people and may be reworded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from estimator.errors import CtxplanError

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of problem: what all its documents share."""

    status: int
    title: str
    explanation: str


KINDS: Mapping[str, Kind] = {
    "invalid-job": Kind(
        status=422,
        title="The job cannot be planned as it was written",
        explanation=(
            "A key is unknown, missing, out of its range, or contradicts another one. `errors` names "
            "the key and says what is allowed. The keys of a job are those of Unsloth and Hugging "
            "Face; /openapi.json has them all."
        ),
    ),
    "invalid-architecture": Kind(
        status=422,
        title="The model's config lacks a dimension or has an absurd one",
        explanation=(
            "The model's config.json was read, and a size that memory depends on is missing or is one"
            " that no model has."
        ),
    ),
    "unsupported-architecture": Kind(
        status=422,
        title="The model's architecture is not modelled",
        explanation=(
            "The model_type is one that this planner has no memory model for. It is never mapped to a"
            " similar one: the detail says what support would need."
        ),
    ),
    "unknown-gpu": Kind(
        status=422,
        title="The GPU is not in the catalogue",
        explanation=(
            'GET /v1/gpus lists the known names. Any other card can be given as {"name": ..., "total_bytes": ...}.'
        ),
    ),
    "unknown-model": Kind(
        status=422,
        title="The model could not be found",
        explanation=(
            "The model is not in the catalogue (GET /v1/models) nor in the server's cache, and the "
            "Hub does not have it, could not be reached, or is not asked by this server. A "
            "config.json given as an object in `model` needs no look-up."
        ),
    ),
    "invalid-documents": Kind(
        status=422,
        title="The documents or their lengths cannot be counted",
        explanation=(
            "POST /v1/tokens takes lengths, or texts with the tokenizer to count them by. A key is unknown, missing or "
            "out of its range, or a text is one that the tokenizer cannot encode; `errors` names it."
        ),
    ),
    "invalid-config": Kind(
        status=422,
        title="The config cannot be read",
        explanation=(
            "The config of a launcher has a key that its tool does not know, a value that it does not take, settings "
            "that exclude each other, or is no YAML or JSON at all. The detail gives the line; `errors` names the key "
            "and says what is allowed."
        ),
    ),
    "invalid-evidence": Kind(
        status=422,
        title="The measurements cannot be read",
        explanation=(
            "POST /v1/calibrations takes measurements as `ctxplan probe --json` prints them. `errors` names the one "
            "that is none, or that names a model which is not known here."
        ),
    ),
    "cannot-fit": Kind(
        status=422,
        title="No calibration can be made from these measurements",
        explanation=(
            "A calibration is fitted to training runs that ended well on a GPU, on the path that is planned for them. "
            "None of the measurements is one, or the family to be left out is in none of them."
        ),
    ),
    "invalid-request": Kind(
        status=422,
        title="The request is not valid",
        explanation="A parameter in the path, the query or a header is missing, is not known, or has a wrong value.",
    ),
    "invalid-json": Kind(
        status=400,
        title="The body is not valid JSON",
        explanation=(
            "The body must be one JSON document in UTF-8: names unique within an object, numbers "
            "finite, nesting and numbers of a sane size. The detail gives the line and column."
        ),
    ),
    "invalid-point": Kind(
        status=422,
        title="The point cannot be measured as it was written",
        explanation=(
            "A point is a job and how its steps are run, as `ctxplan probe` takes it. `errors` names the key and says "
            "what is allowed."
        ),
    ),
    "invalid-submission": Kind(
        status=422,
        title="The request of the queue cannot be taken as it was written",
        explanation=(
            "A key of the body is unknown, missing or out of its range. `errors` names it and says what is allowed. "
            "docs/queue.md has every body."
        ),
    ),
    "invalid-cursor": Kind(
        status=422,
        title="The cursor is of no page of this listing",
        explanation="Give the `next` of the page before, with the same filters.",
    ),
    "wrong-point": Kind(
        status=422,
        title="The measurement is not of its point",
        explanation=(
            "A measurement names the digest of its point, and for a lease that of the point that was leased, with the "
            "same job and the same way to run it. The job goes on as it was; `errors` names what differs."
        ),
    ),
    "bad-request": Kind(
        status=400, title="The request cannot be read", explanation="The request is malformed as HTTP."
    ),
    "unauthenticated": Kind(
        status=401,
        title="An API key is needed",
        explanation=(
            "Send `Authorization: Bearer ctxp_...`. `ctxplan keys create` makes a key. One that is none, has expired "
            "or was revoked is refused without saying which."
        ),
    ),
    "missing-scope": Kind(
        status=403,
        title="The key may not do this",
        explanation=(
            "A key has scopes: `plan` for planning, `measure` for submitting jobs and measurements, `work` for "
            "workers, `admin` for what changes every answer. The detail names the one that is missing."
        ),
    ),
    "other-site": Kind(
        status=403,
        title="A page of another site changes nothing here",
        explanation=(
            "The browser says, in Sec-Fetch-Site or Origin, that the page which asks is not one of this service. A "
            "program sends neither header; a page asks from this service's own address. It is no matter of a key's "
            "scopes."
        ),
    ),
    "other-name": Kind(
        status=403,
        title="The service is not called by this name",
        explanation=(
            "A service on loopback that asks for no key answers to loopback's own names alone, since a page on the web "
            "can make its name lead to this machine (DNS rebinding). CTXPLAN_ALLOWED_HOSTS lists other names that it "
            "has; a request with an API key is answered by any name."
        ),
    ),
    "not-allowed": Kind(
        status=403,
        title="The server does not allow this",
        explanation=(
            "Requests that change which calibration answers, or add one, are refused unless the server's "
            "CTXPLAN_ALLOW_CALIBRATION is set."
        ),
    ),
    "unknown-calibration": Kind(
        status=404,
        title="There is no such calibration",
        explanation="GET /v1/calibrations lists them. An id may be abbreviated to digits that begin no other.",
    ),
    "unknown-job": Kind(status=404, title="There is no such job", explanation="GET /v1/probe-jobs lists the jobs."),
    "unknown-campaign": Kind(
        status=404, title="There is no such campaign", explanation="GET /v1/campaigns lists the campaigns."
    ),
    "unknown-worker": Kind(
        status=404, title="There is no such worker", explanation="GET /v1/workers lists the workers that were seen."
    ),
    "unknown-measurement": Kind(
        status=404, title="There is no such measurement", explanation="GET /v1/measurements lists the measurements."
    ),
    "not-found": Kind(
        status=404,
        title="There is nothing here",
        explanation="No route has this path. /docs lists the routes.",
    ),
    "method-not-allowed": Kind(
        status=405,
        title="The method is not allowed here",
        explanation=("The path exists and does not take this method; the Allow header lists those that it takes."),
    ),
    "nothing-to-roll-back": Kind(
        status=409,
        title="No calibration was active before",
        explanation="The shipped calibration is active, and it is the first.",
    ),
    "idempotency-conflict": Kind(
        status=409,
        title="The idempotency key stands for another request",
        explanation="The same key was used with another body. A new request needs a new key.",
    ),
    "state-conflict": Kind(
        status=409,
        title="The job or the campaign is past this",
        explanation="What has ended cannot be cancelled, what succeeded is not tried again. The detail has the state.",
    ),
    "lease-lost": Kind(
        status=409,
        title="The lease is not the job's, or no longer",
        explanation=(
            "It ran out, the job was cancelled or leased anew, or the token is another's. A result that comes late is "
            "kept aside and counted nowhere. Stop the probe; nothing more is to be sent for this lease."
        ),
    ),
    "body-too-large": Kind(
        status=413,
        title="The body is too large",
        explanation=(
            "A job is a few kilobytes. The limit is the server's CTXPLAN_MAX_BODY_BYTES; it counts "
            "the bytes that really arrive."
        ),
    ),
    "unsupported-media-type": Kind(
        status=415,
        title="The body is not declared as JSON",
        explanation="Send the body with the header Content-Type: application/json.",
    ),
    "too-many-requests": Kind(
        status=429,
        title="One caller asks too often",
        explanation=(
            "An API key, or an address without one that has opened something, may make CTXPLAN_REQUESTS_PER_SECOND "
            "requests a second. Retry-After says when there is room again."
        ),
    ),
    "invalid-calibration": Kind(
        status=500,
        title="A stored calibration is not what its name says",
        explanation=(
            "The document of a calibration is gone, or was changed since it was stored. Nothing is answered by another "
            "in its place; the detail names the file."
        ),
    ),
    "internal-error": Kind(
        status=500,
        title="The server failed",
        explanation=("A fault of the service, not of the request. Its log has the details under the request_id."),
    ),
    "calibration-store-unavailable": Kind(
        status=503,
        title="The calibrations cannot be read or written",
        explanation=(
            "The directory of calibrations is on a disk that is full, read-only or gone. Plans are answered all the "
            "same."
        ),
    ),
    "queue-unavailable": Kind(
        status=503,
        title="The database cannot be reached",
        explanation=(
            "Jobs, measurements and API keys are in the database of CTXPLAN_DATABASE_URL, which cannot be opened, read "
            "or written. Plans that need no key are answered all the same."
        ),
    ),
    "overloaded": Kind(
        status=503,
        title="The service has more to do than it can",
        explanation=(
            "The request was refused before it was looked at, so that those that are answered stay quick. Retry-After "
            "says when to try again."
        ),
    ),
    "not-ready": Kind(
        status=503,
        title="The service is not ready",
        explanation="The process runs and cannot plan yet, or no longer.",
    ),
}
_BY_STATUS = {
    400: "bad-request",
    **{kind.status: code for code, kind in KINDS.items() if kind.status not in (400, 422)},
}


class ProblemError(BaseModel):
    """One fault: the key at fault, what is wrong with it, what would be accepted."""

    model_config = ConfigDict(extra="forbid")

    key: str | None
    message: str
    allowed: str | None


class Problem(BaseModel):
    """A problem document."""

    model_config = ConfigDict(extra="forbid")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[ProblemError]


def code_of_status(status: int) -> str:
    """The kind of problem that a bare HTTP status stands for."""
    return _BY_STATUS.get(status, "internal-error" if status >= 500 else "bad-request")


def problem_of(scope: Scope, error: CtxplanError, *, headers: Mapping[str, str] | None = None) -> Response:
    """The problem document of an error that the library raised."""
    code = error.code if error.code in KINDS else "invalid-job"
    fault = {"key": error.key, "message": error.message, "allowed": error.allowed}
    return problem(scope, code, str(error), errors=[fault], headers=headers)


def problem(
    scope: Scope,
    code: str,
    detail: str,
    *,
    status: int | None = None,
    errors: Sequence[Mapping[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Write a problem document about the request in ``scope``."""
    kind = KINDS[code]
    document = {
        "type": f"/problems/{code}",
        "title": kind.title,
        "status": status or kind.status,
        "detail": detail,
        "instance": quote(scope.get("path", "")),
        "code": code,
        "request_id": scope.get("state", {}).get("request_id", ""),
        "errors": list(errors),
    }
    return _ProblemResponse(document, status_code=status or kind.status, headers=headers)


class _ProblemResponse(JSONResponse):
    """JSON in ASCII: a path or a key may carry characters (lone surrogates) that UTF-8 cannot."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode()
