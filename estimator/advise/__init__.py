"""What to change in a job so that it fits, or to use the room that it leaves (`estimator.advise.plan.advise`)."""

from estimator.advise.answer import Advice, Proposal
from estimator.advise.plan import advise
from estimator.advise.prices import Price

__all__ = ["Advice", "Price", "Proposal", "advise"]
