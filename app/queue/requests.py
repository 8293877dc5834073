"""What the queue is asked: checked here, so that whatever reaches a statement can be stored by both databases."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from app.queue.errors import InvalidSubmission

MAX_NAME, MAX_MODEL, MAX_KEY = 200, 400, 200
MAX_JOBS = 10_000
MAX_PRIORITY = 1_000
MAX_ATTEMPTS = 10
MAX_BYTES = 2**62
DEFAULT_ATTEMPTS = 3


def digest_of(document: Any, *, key: str = "document") -> str:
    """SHA-256 of the canonical JSON, hexadecimal. Of a point's JSON it is `probes.points.Point.digest`.

    Raises:
        InvalidSubmission: it is no JSON: a number is not finite, or a value is of another type.
    """
    try:
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidSubmission(f"is not JSON: {error}", key=key) from None
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """One point to be measured.

    Attributes:
        point: `probes.points.Point.to_json`: one job at one length, every key present.
        gpu: catalogue name of the card that it needs; None where any will do.
        min_total_bytes: total bytes that the card has at least.
        versions: packages, and the version that each must have on the worker.
        priority: higher ones are claimed first; of equals, the one submitted first.
        max_attempts: leases given before it fails.
        expires_in: where it is still queued after so long, it expires.
    """

    point: Mapping[str, Any]
    gpu: str | None = None
    min_total_bytes: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    max_attempts: int = DEFAULT_ATTEMPTS
    expires_in: timedelta | None = None

    def __post_init__(self) -> None:
        digest_of(self.point, key="point")
        if self.gpu is not None:
            check_name("gpu", self.gpu)
        _check_versions(self.versions)
        _check_between("min_total_bytes", self.min_total_bytes, 0, MAX_BYTES)
        _check_between("priority", self.priority, -MAX_PRIORITY, MAX_PRIORITY)
        _check_between("max_attempts", self.max_attempts, 1, MAX_ATTEMPTS)
        if self.expires_in is not None and not timedelta(0) < self.expires_in <= timedelta(days=3650):
            raise InvalidSubmission("is not a time to wait", key="expires_in", allowed="more than 0, up to 3650 days")

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values: what an idempotency key is held to."""
        seconds = None if self.expires_in is None else self.expires_in.total_seconds()
        return {**asdict(self), "expires_in": seconds}


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A request for jobs, taken whole or not at all.

    Attributes:
        submitter: who asks; idempotency keys are theirs.
        idempotency_key: a request with the same key and the same content gives the same jobs again.
        campaign_model: begin a campaign for this model. campaign_id: add to one that is measuring.
    """

    submitter: str
    jobs: tuple[JobRequest, ...]
    idempotency_key: str | None = None
    campaign_model: str | None = None
    campaign_id: int | None = None

    def __post_init__(self) -> None:
        check_name("submitter", self.submitter)
        if self.idempotency_key is not None:
            check_name("idempotency_key", self.idempotency_key, longest=MAX_KEY)
        if self.campaign_model is not None:
            check_name("campaign_model", self.campaign_model, longest=MAX_MODEL)
        if self.campaign_model is not None and self.campaign_id is not None:
            raise InvalidSubmission("is given beside campaign_model", key="campaign_id", allowed="one of the two")
        if not 1 <= len(self.jobs) <= MAX_JOBS:
            raise InvalidSubmission(f"{len(self.jobs)} jobs", key="jobs", allowed=f"1 to {MAX_JOBS} jobs")

    @property
    def body_digest(self) -> str:
        """What was asked for, as a name. Neither who asked nor the key is part of it."""
        jobs = [job.to_json() for job in self.jobs]
        return digest_of({"jobs": jobs, "campaign_model": self.campaign_model, "campaign_id": self.campaign_id})


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """What a worker says of itself when it asks for a job.

    Attributes:
        gpu: catalogue name of its card, and total_bytes the card's own total.
        versions: of the packages installed there; None where one is missing.
    """

    id: str
    gpu: str
    total_bytes: int
    versions: Mapping[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name("worker", self.id)
        check_name("gpu", self.gpu)
        _check_between("total_bytes", self.total_bytes, 0, MAX_BYTES)
        _check_versions({name: version for name, version in self.versions.items() if version is not None})

    def has(self, versions: Mapping[str, str]) -> bool:
        """Whether every package that is asked for is installed in the version that is asked for."""
        return all(self.versions.get(name) == version for name, version in versions.items())


def check_name(key: str, text: str, *, longest: int = MAX_NAME) -> None:
    """Raise InvalidSubmission unless it is a line of text that both databases hold: no NUL, no lone surrogate."""
    if not 1 <= len(text) <= longest or not text.isprintable():
        raise InvalidSubmission("is not a name", key=key, allowed=f"1 to {longest} printable characters")


def _check_between(key: str, number: int, least: int, most: int) -> None:
    if not least <= number <= most:
        raise InvalidSubmission(f"{number!r} is not accepted", key=key, allowed=f"{least} to {most}")


def _check_versions(versions: Mapping[str, str]) -> None:
    if len(versions) > 64:
        raise InvalidSubmission(f"{len(versions)} packages", key="versions", allowed="at most 64 packages")
    for name, version in versions.items():
        check_name("versions", name)
        check_name(f"versions.{name}", version)
