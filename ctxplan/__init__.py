"""What other people's code imports to plan a fine-tuning run.

`PlanCallback` and `explain_out_of_memory` import transformers, and do so when they are first asked for.
"""

from typing import TYPE_CHECKING, Any

from ctxplan.job_from import NotModelled, job_from
from ctxplan.planning import Planner, estimate, max_context, plan

if TYPE_CHECKING:
    from ctxplan.callback import PlanCallback, explain_out_of_memory

__version__ = "0.1.0"

__all__ = [
    "NotModelled",
    "PlanCallback",
    "Planner",
    "__version__",
    "estimate",
    "explain_out_of_memory",
    "job_from",
    "max_context",
    "plan",
]

LAZY = ("PlanCallback", "explain_out_of_memory")


def __getattr__(name: str) -> Any:
    if name in LAZY:
        from ctxplan import callback

        return getattr(callback, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
