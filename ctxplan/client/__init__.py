"""A client of the planning service, for code that waits and for code that awaits.

    from ctxplan import Client

    with Client("http://127.0.0.1:8000", api_key=None) as client:
        estimate = client.estimate({"model": "Qwen/Qwen3-8B", "gpu": "RTX-4090-24GB", "max_seq_length": 32768})
        print(estimate.verdict, estimate.peak_allocated_bytes.expected)

What can go wrong is drawn in `ctxplan.client.errors`; the questions are in `ctxplan.client.calls`.
"""

from ctxplan.client.asynchronous import AsyncClient
from ctxplan.client.errors import (
    Conflict,
    NotAuthorized,
    NotFound,
    ProblemError,
    RefusedInput,
    ServerFailed,
    ServiceError,
    TooManyRequests,
    Unreachable,
    UnreadableAnswer,
)
from ctxplan.client.reading import estimate_from_json, max_context_from_json
from ctxplan.client.retries import Retries
from ctxplan.client.sync import Client

__all__ = [
    "AsyncClient",
    "Client",
    "Conflict",
    "NotAuthorized",
    "NotFound",
    "ProblemError",
    "RefusedInput",
    "Retries",
    "ServerFailed",
    "ServiceError",
    "TooManyRequests",
    "Unreachable",
    "UnreadableAnswer",
    "estimate_from_json",
    "max_context_from_json",
]
