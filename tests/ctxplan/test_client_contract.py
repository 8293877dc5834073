"""The client and the service's own OpenAPI document say the same: every route has its call, every answer its type."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from inspect import iscoroutinefunction, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Match

from app.jobs.reading import OF_CALIBRATE, SUBMISSION, WHAT
from app.main import create_app
from app.preflight.request import RULES as PREFLIGHT_RULES
from app.settings import Settings
from app.tokens.question import question_schema
from ctxplan.client import (
    AsyncClient,
    Client,
    Retries,
    answers,
    calibration_answers,
    calls,
    errors,
    queue_answers,
    queue_calls,
)
from ctxplan.client.options import CampaignOptions, PreflightOptions, SubmitOptions, TokensOptions
from ctxplan.client.retries import ASK_AGAIN
from ctxplan.client.wire import Call
from tests.app.jobs import FITS

MANUAL = (Path(__file__).resolve().parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
ELSEWHERE = ("/v1/probe-jobs/leases", "/v1/probe-jobs/{id}/leases", "/v1/workers/{id}/heartbeat", "/problems")
"""What workers speak, and the pages."""

CALLS: dict[str, Call[Any]] = {
    "estimate": calls.estimate(FITS),
    "max_context": calls.max_context(FITS),
    "plan": calls.plan(FITS, "sft", 3),
    "script": calls.script(FITS),
    "preflight": calls.preflight("model: x", {}),
    "tokens": calls.tokens({"lengths": [1]}),
    "models": calls.models(),
    "gpus": calls.gpus(),
    "tiers": calls.tiers(),
    "tier": calls.tier("x"),
    "calibrations": calls.calibrations(3, None),
    "calibration": calls.calibration("x"),
    "active_calibration": calls.active_calibration(),
    "compare_calibrations": calls.compare_calibrations("x", "y"),
    "fit_calibration": calls.fit_calibration([], []),
    "activate_calibration": calls.activate_calibration("x", None),
    "roll_back_calibration": calls.roll_back_calibration(None),
    "submit_point": queue_calls.submit_point({}, {}),
    "submit_points": queue_calls.submit_points([{}], {}),
    "start_campaign": queue_calls.start_campaign(FITS, {}),
    "probe_jobs": queue_calls.probe_jobs(None, None, None, None),
    "probe_job": queue_calls.probe_job(1),
    "cancel_probe_job": queue_calls.cancel_probe_job(1),
    "retry_probe_job": queue_calls.retry_probe_job(1),
    "add_measurements": queue_calls.add_measurements([]),
    "measurements": queue_calls.measurements(None, None, None, None, None, None),
    "measurement": queue_calls.measurement(1),
    "release_measurement": queue_calls.release_measurement(1, None),
    "campaigns": queue_calls.campaigns(None, None, None),
    "campaign": queue_calls.campaign(1),
    "cancel_campaign": queue_calls.cancel_campaign(1),
    "watch_campaign": queue_calls.watch_campaign(1),
    "workers": queue_calls.workers(),
    "drain_worker": queue_calls.drain_worker("a worker/of ours", True),
    "add_observations": queue_calls.add_observations([]),
    "observations": queue_calls.observations(None, None, None),
    "health": calls.health(),
    "ready": calls.ready(),
    "metrics": calls.metrics(),
}
OF_ALL_PAGES = {
    "each_probe_job": "probe_jobs",
    "each_measurement": "measurements",
    "each_campaign": "campaigns",
    "each_observation": "observations",
}
"""Methods that go through the pages of another one."""
TOLD = "watch_campaign"
TYPES = {
    name: kind
    for module in (answers, calibration_answers, queue_answers)
    for name, kind in vars(module).items()
    if is_typeddict(kind)
}
APP = create_app(Settings(allow_hub=False, log_level="error", calibrations=Path("no such directory")))
SCHEMAS: dict[str, Any] = APP.openapi()["components"]["schemas"]


def route_of(call: Call[Any]) -> tuple[str, str]:
    """The method and the path of the route that takes a call."""
    scope = {"type": "http", "method": call.method, "path": call.path}
    found = [r for r in APP.routes if isinstance(r, APIRoute) and r.matches(scope)[0] is Match.FULL]
    assert len(found) == 1, call
    return call.method, found[0].path_format


def test_every_route_for_people_has_its_call_and_every_call_its_route() -> None:
    documented = {
        (method.upper(), path)
        for path, operations in APP.openapi()["paths"].items()
        for method in operations
        if not path.startswith(ELSEWHERE)
    }
    assert {route_of(call) for call in CALLS.values()} == documented


def test_both_clients_have_a_method_for_every_call_with_the_same_arguments_and_answer() -> None:
    offered = {name for name in dir(Client) if not name.startswith("_")} - {"ask", "close"}
    assert offered == set(CALLS) | OF_ALL_PAGES.keys()
    for name in offered - OF_ALL_PAGES.keys() - {TOLD}:
        sync, asynchronous = getattr(Client, name), getattr(AsyncClient, name)
        assert signature(sync) == signature(asynchronous)
        assert (sync.__doc__, iscoroutinefunction(asynchronous)) == (asynchronous.__doc__, True)


def test_what_goes_on_and_on_is_iterated_over_by_both_clients_with_the_same_arguments() -> None:
    for name in (*OF_ALL_PAGES, TOLD):
        sync, asynchronous = getattr(Client, name), getattr(AsyncClient, name)
        assert signature(sync).parameters == signature(asynchronous).parameters
        assert sync.__doc__ == asynchronous.__doc__
        given, awaited = get_type_hints(sync)["return"], get_type_hints(asynchronous)["return"]
        assert get_args(given)[0] is get_args(awaited)[0]
        assert issubclass(get_origin(given), Iterator)
        assert issubclass(get_origin(awaited), AsyncIterator)
    for name, page in OF_ALL_PAGES.items():
        narrowed = signature(getattr(Client, page)).parameters.keys() - {"limit", "cursor"}
        assert signature(getattr(Client, name)).parameters.keys() == narrowed


def test_what_may_be_asked_beside_points_or_a_model_is_what_the_service_takes() -> None:
    beside = CampaignOptions.__annotations__.keys() | SubmitOptions.__annotations__.keys()
    assert beside - {"idempotency_key"} == SUBMISSION.keys() - set(WHAT)
    assert CampaignOptions.__annotations__.keys() - SubmitOptions.__annotations__.keys() == set(OF_CALIBRATE)


def test_a_submission_has_a_key_of_its_own_unless_it_is_given_one() -> None:
    first, second = CALLS["submit_point"], queue_calls.submit_point({}, {})
    assert first.key
    assert first.key != second.key
    mine = queue_calls.submit_point({}, {"idempotency_key": "mine", "priority": 3})
    assert (mine.key, mine.headers["idempotency-key"]) == ("mine", "mine")
    assert mine.body == {"point": {}, "priority": 3}


def test_what_may_be_asked_beside_a_config_or_documents_is_what_the_service_takes() -> None:
    assert {"config", *PreflightOptions.__annotations__} == set(PREFLIGHT_RULES)
    taken = {key for kind in question_schema()["oneOf"] for key in kind["properties"]}
    assert set(TokensOptions.__annotations__) == taken


def test_every_type_has_a_schema_but_the_one_that_others_are_made_of() -> None:
    assert TYPES.keys() - SCHEMAS.keys() == {"Standing"}


@pytest.mark.parametrize("name", sorted(TYPES.keys() & SCHEMAS.keys()))
def test_an_answers_type_is_key_for_key_the_schema_of_its_name(name: str) -> None:
    schema = SCHEMAS[name]
    stated = {key: from_schema(value) for key, value in schema["properties"].items()}
    assert {key: from_hint(hint) for key, hint in get_type_hints(TYPES[name]).items()} == stated
    assert set(schema["required"]) == set(stated)


def from_hint(hint: Any) -> Any:
    """A type as the kinds that JSON knows: a name for an object of a type, a list for an array, a set for a choice."""
    if is_typeddict(hint):
        return hint.__name__
    origin, parts = get_origin(hint), get_args(hint)
    if origin is list:
        return [from_hint(parts[0])]
    if origin is UnionType or origin is Union:
        return frozenset(from_hint(part) for part in parts)
    if origin is Literal:
        return frozenset(parts) if len(parts) > 1 else parts[0]
    return {dict: "object", int: "integer", float: "number", str: "string", bool: "boolean", NoneType: "null"}[
        origin or hint
    ]


def from_schema(schema: dict[str, Any]) -> Any:
    """The same of a schema."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return frozenset(SCHEMAS[name]["enum"]) if "enum" in SCHEMAS[name] else name
    if "anyOf" in schema:
        return frozenset(from_schema(one) for one in schema["anyOf"])
    if "enum" in schema:
        return frozenset(schema["enum"])
    if "const" in schema:
        return schema["const"]
    return [from_schema(schema["items"])] if schema["type"] == "array" else schema["type"]


def test_the_manual_names_every_method_and_draws_the_tree_of_the_errors() -> None:
    named = set(re.findall(r"`(\w+)\(", MANUAL.split("## What can be asked")[1].split("## What it does")[0]))
    assert named == set(CALLS) | OF_ALL_PAGES.keys()
    drawn = re.search(r"<!-- tree -->\n```\n(.*?)```", MANUAL, re.DOTALL)
    assert drawn
    lines = (errors.__doc__ or "").splitlines()
    tree = [line[8:] for line in lines if "── " in line][1:]
    assert drawn[1].splitlines()[1:] == tree


def test_the_defaults_that_the_manual_states_are_those_of_the_client() -> None:
    defaults = {name: parameter.default for name, parameter in signature(Client).parameters.items()}
    assert f"| `timeout` | {defaults['timeout']:.0f} |" in MANUAL
    assert f"| `retries` | {defaults['retries']} |" in MANUAL
    assert f"random up to {Retries().first_seconds} s, 1 s, 2 s" in MANUAL
    assert (Retries().longest_asked_seconds, Retries().most) == (60.0, defaults["retries"])
    statuses = ", ".join(str(status) for status in sorted(ASK_AGAIN)[:-1])
    assert f"{statuses} and {max(ASK_AGAIN)}." in MANUAL
