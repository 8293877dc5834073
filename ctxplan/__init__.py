"""What other people's code imports to plan a fine-tuning run.

The client needs httpx and `PlanCallback` needs transformers: each is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ctxplan.job_from import NotModelled, job_from
from ctxplan.planning import Planner, estimate, max_context, plan

if TYPE_CHECKING:
    from ctxplan.callback import PlanCallback
    from ctxplan.client import AsyncClient, Client, ProblemError, ServiceError, Unreachable
    from ctxplan.out_of_memory import explain_out_of_memory

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "Client",
    "NotModelled",
    "PlanCallback",
    "Planner",
    "ProblemError",
    "ServiceError",
    "Unreachable",
    "__version__",
    "estimate",
    "explain_out_of_memory",
    "job_from",
    "max_context",
    "plan",
]

LAZY = {
    "AsyncClient": "ctxplan.client",
    "Client": "ctxplan.client",
    "PlanCallback": "ctxplan.callback",
    "ProblemError": "ctxplan.client",
    "ServiceError": "ctxplan.client",
    "Unreachable": "ctxplan.client",
    "explain_out_of_memory": "ctxplan.out_of_memory",
}


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
