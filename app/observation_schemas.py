"""The answers and the body of ``/v1/observations``, as the OpenAPI document states them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from app.job_schemas import body
from app.jobs.reading import object_schema
from app.observations.reading import BODY
from app.schemas import Count

OBSERVATIONS_BODY = body(object_schema(BODY, frozenset({"observations"})))


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ObservationAnswer(_Answer):
    """What was seen of a run, and how the service's calibration answers its job. ``drift`` is what lies beyond the
    bound at 99 %, null where nothing does."""

    id: int
    state: Literal["within", "beyond", "unjudged"]
    drift: str | None
    seen_bytes: Count | None
    expected_bytes: Count
    bound_bytes: Count
    calibration: str
    received_at: str
    document: dict[str, Any]


class ObservationListing(_Answer):
    """A page of observations, newest first."""

    items: list[ObservationAnswer]
    next: str | None


class KeptObservation(ObservationAnswer):
    """An observation that was sent. ``new``: whether it was not here before."""

    new: bool


class KeptAnswer(_Answer):
    """The observations that were sent, in their order."""

    items: list[KeptObservation]
    next: None
