"""What is worked on apart (`app.apart`): functions of a planner and of what can be pickled. Imports nothing that only
answers requests: the process that works has it all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from app.page.answer import answer_of, more_of
from app.preflight import Preflight, Question, check
from ctxplan.models import ModelFacts
from ctxplan.planning import Planner

__all__ = ["answer_of", "asked", "checked", "more_of", "nothing"]

Answer = TypeVar("Answer")


def nothing(_: Planner) -> None:
    """Nothing: who can do it could do something."""


def checked(planner: Planner, question: Question, facts: ModelFacts) -> Preflight:
    """The answer of a preflight. Raises CtxplanError."""
    return check(question, planner, facts)


def asked(planner: Planner, question: Callable[[Planner, ModelFacts], Answer], facts: ModelFacts) -> Answer:
    """The answer to a question about a model; a partial of a module's function. Raises CtxplanError."""
    return question(planner, facts)
