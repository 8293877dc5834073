"""What to change in a job, ranked; each with the address of the changed job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from app.page.query import query_of_job
from app.page.words import GIB, gib, tokens
from ctxplan import Planner
from ctxplan.models import ModelFacts
from estimator import Job
from estimator.advise import Advice, Proposal
from estimator.advise.answer import plain

GOALS = {"fit": "makes it fit", "context": "a longer context", "batch": "a larger batch"}


class Change(NamedTuple):
    """A proposal. ``title``: its changes in the words of a job. ``query``: the job with them. ``host``: the host's RAM
    that it takes or saves; empty where that is nothing."""

    title: str
    goal: str
    words: tuple[str, ...]
    host: str
    query: str
    proposal: Proposal


class Changes(NamedTuple):
    """How a job stands, and what could be changed, best first."""

    advice: Advice
    changes: tuple[Change, ...]


def changes_of(job: Job, planner: Planner, facts: ModelFacts) -> Changes:
    """Search for changes: tens of milliseconds, so to be called in a thread. Raises CtxplanError."""
    advice = planner.plan(job, facts)
    return Changes(advice, tuple(_change(job, proposal) for proposal in advice.proposals))


def _change(job: Job, proposal: Proposal) -> Change:
    changes = plain(proposal.changes)
    return Change(
        title=", ".join(f"{key}: {_value(value)}" for key, value in changes.items()),
        goal=GOALS[proposal.goal],
        words=tuple(option.words for option in proposal.options),
        host=_host(proposal.host_ram_bytes),
        query=query_of_job(job, **changes),
        proposal=proposal,
    )


def _host(more_bytes: int) -> str:
    if abs(more_bytes) < GIB // 100:
        return ""
    return f"{gib(abs(more_bytes))} GiB {'more' if more_bytes > 0 else 'less'} of the host's RAM"


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "automatic", True: "on", False: "off"}[value]
    if isinstance(value, Mapping):
        return str(value.get("name", "given"))
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return tokens(value) if isinstance(value, int) else str(value)
