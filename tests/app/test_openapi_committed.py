"""The committed OpenAPI document is what is served, and keeps what the last release promised."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.main import create_app
from app.settings import Settings
from scripts.contract.promise import Promise, may_break, release, text_of, why_not

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def served() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(create_app(Settings.model_construct()).openapi()))
    return found


@pytest.fixture
def promise(tmp_path: Path, served: dict[str, Any]) -> Promise:
    """Documents of a release, in which nothing has changed since."""
    found = Promise(
        document=tmp_path / "openapi.json", released=tmp_path / "released.json", allowed=tmp_path / "breaks.json"
    )
    assert release(found, served) == ()
    return found


def changed(served: dict[str, Any], *, version: str | None = None) -> dict[str, Any]:
    """The document without a route, perhaps under another version."""
    found = copy.deepcopy(served)
    del found["paths"]["/v1/gpus"]
    found["info"]["version"] = version or served["info"]["version"]
    return found


def test_the_committed_document_is_current_and_keeps_what_the_release_promised() -> None:
    done = subprocess.run([sys.executable, "scripts/openapi", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_document_depends_on_no_setting(monkeypatch: pytest.MonkeyPatch, served: dict[str, Any]) -> None:
    monkeypatch.setenv("CTXPLAN_HOST", "0.0.0.0")
    monkeypatch.setenv("CTXPLAN_ALLOW_CALIBRATION", "true")
    assert json.loads(json.dumps(create_app(Settings()).openapi())) == served


def test_an_addition_fails_only_until_the_document_is_written(promise: Promise, served: dict[str, Any]) -> None:
    added = copy.deepcopy(served)
    added["paths"]["/v1/new"] = {"get": {"responses": {"200": {}}}}
    assert why_not(promise, added) == ("openapi.json is not current; run make openapi",)
    promise.write(added)
    assert why_not(promise, added) == ()


def test_a_break_fails_though_the_document_is_written(promise: Promise, served: dict[str, Any]) -> None:
    broken = changed(served)
    promise.write(broken)
    assert why_not(promise, broken) == (f"breaks {served['info']['version']}: GET /v1/gpus: is removed",)


def test_a_break_passes_under_a_version_that_says_so(promise: Promise, served: dict[str, Any]) -> None:
    broken = changed(served, version="0.9.0")
    promise.write(broken)
    assert why_not(promise, broken) == ()


def test_a_break_passes_where_it_is_listed_with_its_reason(promise: Promise, served: dict[str, Any]) -> None:
    broken = changed(served)
    promise.write(broken)
    one = {"where": "GET /v1/gpus", "what": "is removed", "why": "it was never used"}
    promise.allowed.write_text(text_of({"since": served["info"]["version"], "breaks": [one]}))
    assert why_not(promise, broken) == ()


def test_a_listed_break_needs_a_reason_and_to_be_one(promise: Promise, served: dict[str, Any]) -> None:
    unexplained = {"where": "GET /v1/models", "what": "is removed"}
    promise.allowed.write_text(text_of({"since": served["info"]["version"], "breaks": [unexplained]}))
    assert why_not(promise, served) == (
        "breaks.json: GET /v1/models: says no why",
        "breaks.json lists what is no break: GET /v1/models: is removed",
    )


def test_a_list_of_another_release_allows_nothing(promise: Promise, served: dict[str, Any]) -> None:
    one = {"where": "GET /v1/gpus", "what": "is removed", "why": "it was never used"}
    promise.allowed.write_text(text_of({"since": "0.0.1", "breaks": [one]}))
    broken = changed(served)
    promise.write(broken)
    assert len(why_not(promise, broken)) == 2


def test_what_a_version_promised_is_not_changed_after_it(promise: Promise, served: dict[str, Any]) -> None:
    before = promise.released.read_text()
    assert "is of" in release(promise, changed(served))[0]
    assert promise.released.read_text() == before
    assert release(promise, changed(served, version="0.9.0")) == ()
    assert promise.released.read_text() != before


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [
        ("0.1.0", "0.1.0", False),
        ("0.1.0", "0.1.9", False),
        ("0.1.0", "0.2.0", True),
        ("0.2.0", "0.1.0", False),
        ("0.9.0", "1.0.0", True),
        ("1.0.0", "1.1.0", False),
        ("1.1.0", "2.0.0", True),
    ],
)
def test_another_major_version_may_break_and_before_the_first_another_minor_one(
    old: str, new: str, allowed: bool
) -> None:
    assert may_break(old, new) is allowed
