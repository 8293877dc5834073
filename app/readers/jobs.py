"""A job in the planner's own words, as JSON or as YAML."""

from __future__ import annotations

from app.readers.document import Document
from app.readers.reading import Reading
from app.readers.section import Notebook, Section
from estimator.errors import JobError
from estimator.job import RULES, parse_job

TOOL = "job"


def read_job(document: Document) -> Reading:
    """Read a job. Raises ConfigError."""
    notebook = Notebook(document, TOOL, {})
    root = Section(notebook, null_is_unset=False)
    if isinstance(root.values.get("job"), dict):
        raise root.error("job", "this is a point, which ctxplan probe measures", "the value of job alone")
    try:
        parse_job(dict(root.values))
    except JobError as error:
        key = error.key or ""
        raise root.error(key.partition(".")[0].partition("[")[0], error.message, error.allowed) from None
    for key in RULES:
        if root.has(key):
            root.set(key, root.values[key], key)
    notebook.packs = bool(root.values.get("packing"))
    return notebook.reading()
