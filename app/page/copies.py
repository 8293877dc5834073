"""The job to take away: as an Unsloth script, as YAML, as a request."""

from __future__ import annotations

import json
import shlex
from typing import Any, NamedTuple

import yaml

from app.page.query import plain_values
from app.scripts import write_script
from ctxplan.models import ModelFacts
from estimator import Estimate, Job
from estimator.errors import CtxplanError


class Copy(NamedTuple):
    """A text to copy. ``note``: what it is for."""

    key: str
    title: str
    note: str
    text: str


def copies_of(job: Job, estimate: Estimate, facts: ModelFacts, address: str) -> tuple[Copy, ...]:
    """The same job three ways.

    Args:
        address: of this service, such as http://127.0.0.1:8000.
    """
    return (_script(job, estimate, facts), _yaml(plain_values(job)), _curl(plain_values(job), address))


def _script(job: Job, estimate: Estimate, facts: ModelFacts) -> Copy:
    try:
        written = write_script(job, estimate, facts.architecture)
    except CtxplanError as error:
        return Copy("python", "Python", "No script is written for this job.", f"# {error}")
    note = f"A complete training script: save it as {written.filename} and run it with your data."
    return Copy("python", "Python", note, written.text)


def _yaml(values: dict[str, Any]) -> Copy:
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return Copy("yaml", "YAML", "Save it as job.yaml and check it anywhere: ctxplan preflight job.yaml", text)


def _curl(values: dict[str, Any], address: str) -> Copy:
    body = json.dumps(values, indent=1, ensure_ascii=False)
    text = f"curl -s {shlex.quote(address + '/v1/estimates')} \\\n  -H 'content-type: application/json' \\\n"
    return Copy(
        "curl", "curl", "Asks this service for the same estimate, as JSON.", f"{text}  -d {shlex.quote(body)}\n"
    )
