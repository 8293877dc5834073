"""Why a worker cannot go on, and what it hears from the service.

ProbeError
├── WorkerError           the worker ends
│   ├── CardTaken         another worker has the GPU, or the spool
│   ├── SpoolError        the spool cannot be read or written
│   ├── NotLetIn          no API key, a wrong one, or one without the scope ``work``
│   └── NotTheService     what answers is no service with a queue, or takes no worker like this one
├── Away                  the service cannot be reached now
├── LeaseLost             the lease is over
└── Refused               the service refuses what it was sent, and will refuse it again
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from probes.errors import ProbeError


class WorkerError(ProbeError):
    """The worker cannot go on."""

    code = "worker-error"


class CardTaken(WorkerError):
    """Another worker has the GPU, or the spool."""

    code = "card-taken"


class SpoolError(WorkerError):
    """The spool cannot be read or written."""

    code = "spool-error"


class NotLetIn(WorkerError):
    """The service asks for an API key, or this one may not lease."""

    code = "not-let-in"


class NotTheService(WorkerError):
    """What answers is no service with a queue, or one that takes no worker like this."""

    code = "not-the-service"


class Away(ProbeError):
    """The service cannot be reached now, or asks to be asked later.

    Attributes:
        retry_after_seconds: when, where it says so.
    """

    code = "service-away"

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class LeaseLost(ProbeError):
    """The lease is over: it ran out, or its job has ended or gone.

    Attributes:
        answer: the problem document of the service.
    """

    code = "lease-lost"

    def __init__(self, message: str, answer: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.answer = answer


class Refused(ProbeError):
    """The service refuses what it was sent, and will refuse it again.

    Attributes:
        answer: the problem document of the service. why: its code.
    """

    code = "refused"

    def __init__(self, message: str, answer: Mapping[str, Any], *, why: str) -> None:
        super().__init__(message)
        self.answer = answer
        self.why = why
