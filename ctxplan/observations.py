"""What was seen of a run beside what was planned, kept as JSON lines and, where it takes them, sent to a service."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from estimator import CtxplanError, Estimate

LOG = logging.getLogger("ctxplan")


def _now() -> datetime:
    return datetime.now(UTC)


class Observations:
    """Where observations go. A training run never ends for one: a full disk or a service that is away is logged, once.

    Args:
        file: of JSON lines, to which each is added. client: something with a method ``add_observation`` that takes
            one; a service's client without it sends nothing. clock: the time.
    """

    def __init__(
        self, file: str | Path | None = None, client: Any = None, *, clock: Callable[[], datetime] = _now
    ) -> None:
        self._file = Path(file) if file else None
        self._send: Callable[[dict[str, Any]], object] | None = getattr(client, "add_observation", None)
        self._clock = clock
        self._told = False

    def add(self, seen: Mapping[str, Any], planned: Estimate) -> None:
        """Keep what was seen, with the job, its estimate and the calibration that made it."""
        document = planned.to_json()
        observation = {
            **seen,
            "expected": document["peak_allocated_bytes"],
            "calibration": document["calibration"],
            "job": document["job"],
            "seen_at": self._clock().isoformat(timespec="seconds"),
        }
        try:
            if self._file is not None:
                with self._file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(observation) + "\n")
            if self._send is not None:
                self._send(observation)
        except (OSError, CtxplanError) as error:
            if not self._told:
                LOG.warning("what is seen of this run is not kept: %s", error)
            self._told = True
