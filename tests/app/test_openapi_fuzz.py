"""Schemathesis walks the whole OpenAPI document against a real server: no answer may break what the document
says."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from app.main import create_app
from tests.app.jobs import MODEL

DOCUMENT = create_app().openapi()
JOBS = {"/v1/estimates", "/v1/max-context", "/v1/plans", "/v1/preflight", "/v1/scripts"}
AS_STATED, AGAINST_IT = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
OPERATIONS = [(path, method) for path, operations in DOCUMENT["paths"].items() for method in operations]
WALKS = [
    *((path, method, AS_STATED) for path, method in OPERATIONS),
    *((path, method, AGAINST_IT) for path, method in OPERATIONS if method == "post"),
]
SCHEMA: Any = schemathesis.openapi.from_dict(DOCUMENT)


@pytest.mark.parametrize(("path", "method", "mode"), WALKS)
def test_every_answer_is_one_that_the_document_allows(
    server_address: tuple[str, int], path: str, method: str, mode: GenerationMode
) -> None:
    operation = SCHEMA[path][method]
    base_url = f"http://127.0.0.1:{server_address[1]}"
    examples = 100 if operation.body else 4

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def walk(case: Any) -> None:
        if mode == AS_STATED and isinstance(case.body, dict) and path in JOBS:
            _plannable(case.body)
        # A job may be well-formed and name a model that nobody has: that it is refused breaks nothing.
        case.call_and_validate(base_url=base_url, excluded_checks=[positive_data_acceptance])

    walk()


def _plannable(job: dict[str, Any]) -> None:
    """Give a drawn job a model and a GPU that are known, so that the rest of it is planned."""
    job["model"] = MODEL
    if isinstance(job.get("gpu"), str):
        del job["gpu"]
