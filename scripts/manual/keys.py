"""The keys of a job, as every command, route and client takes them."""

from __future__ import annotations

import json
from typing import Any

from app.cli.jobs import HELP
from estimator import Job, job_schema, job_to_json
from scripts.manual.markdown import code, document, prose, table
from scripts.manual.shapes import kind

DEFAULTS = job_to_json(Job(model=""))


def page() -> str:
    """The reference of a job."""
    properties: dict[str, Any] = job_schema()["properties"]
    rows = [(code(key), prose(HELP[key]), kind(schema), _default(key)) for key, schema in properties.items()]
    return document(
        "The keys of a job",
        "A job is one JSON object with the names of Unsloth and Hugging Face, the same on the command line, over HTTP "
        "and in Python. Only `model` is required. A key that is not here is refused by name, and so is a value beyond "
        "its range. On the command line each key is an option as well, with `-` for `_`: `--max-seq-length 8192`.",
        table(("key", "meaning", "value", "default"), rows),
        "`null` is what the stack would choose. An answer carries the `job` with every `null` filled in, and says in "
        "`assumptions` what was assumed.",
    )


def _default(key: str) -> str:
    return "required" if key == "model" else code(json.dumps(DEFAULTS[key]))
