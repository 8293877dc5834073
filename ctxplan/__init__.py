"""What other people's code imports to plan a fine-tuning run."""

from ctxplan.planning import Planner, estimate, max_context

__version__ = "0.1.0"

__all__ = ["Planner", "__version__", "estimate", "max_context"]
