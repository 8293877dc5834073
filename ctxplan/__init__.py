"""What other people's code imports to plan a fine-tuning run."""

from ctxplan.job_from import NotModelled, job_from
from ctxplan.planning import Planner, estimate, max_context, plan

__version__ = "0.1.0"

__all__ = ["NotModelled", "Planner", "__version__", "estimate", "job_from", "max_context", "plan"]
