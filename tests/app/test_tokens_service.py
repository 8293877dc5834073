"""``POST /v1/tokens``: the command's answer, of lengths and of texts, and nothing read that may not be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from ctxplan.token_lengths import Question, TokenLengths
from estimator.job import MAX_TOKENS
from tests.app.test_problems import problem_of
from tests.app.test_service import assert_matches, schema_of
from tests.app.tiny_tokenizer import SENTENCES, length, write_tokenizer

PATH = "/v1/tokens"
LENGTHS = [5, 3000, 12, 700, 700, 40_000]
COMMIT = "0" * 40


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A Hub id whose tokenizer is in the local cache."""
    root = tmp_path / "hub" / "models--someone--model"
    write_tokenizer(root / "snapshots" / COMMIT)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return "someone/model"


@pytest.fixture
def local_client() -> Iterator[TestClient]:
    """A service whose operator lets requests name directories."""
    with TestClient(create_app(Settings(allow_hub=False, allow_local_models=True, log_level="error"))) as client:
        yield client


def test_lengths_are_answered_as_the_library_answers_them(client: TestClient) -> None:
    asked = {"lengths": LENGTHS, "max_seq_lengths": [1024, 64], "max_cut_percent": 50, "per_device_train_batch_size": 2}
    answer = client.post(PATH, json=asked).json()
    question = Question(max_seq_lengths=(1024, 64), max_cut_percent=50, per_device_train_batch_size=2)
    assert answer == {**TokenLengths.of(LENGTHS).report(question).to_json(), "tokenizer": None}


def test_texts_are_counted_by_a_cached_models_tokenizer(client: TestClient, cached: str) -> None:
    answer = client.post(PATH, json={"texts": SENTENCES, "tokenizer": cached}).json()
    lengths = TokenLengths.of([length(text) for text in SENTENCES])
    assert answer == {**lengths.report(Question()).to_json(), "tokenizer": cached}
    bare = client.post(PATH, json={"texts": SENTENCES, "tokenizer": cached, "add_special_tokens": False}).json()
    assert bare["tokens"] == lengths.tokens - len(SENTENCES)


@pytest.mark.parametrize(
    "asked", [{"lengths": [0]}, {"lengths": LENGTHS}, {"lengths": [MAX_TOKENS] * 3, "max_seq_lengths": None}]
)
def test_an_answer_matches_the_openapi_document(client: TestClient, asked: dict[str, Any]) -> None:
    response = client.post(PATH, json=asked)
    assert response.status_code == 200, response.text
    assert_matches(schema_of(client, PATH, "post"), response.json())


@pytest.mark.parametrize(
    ("asked", "key"),
    [
        ([], None),
        ({}, "texts"),
        ({"lengths": [1], "texts": ["a"], "tokenizer": "x"}, "texts"),
        ({"lengths": []}, "lengths"),
        ({"lengths": 3}, "lengths"),
        ({"lengths": [1, -1]}, "lengths[1]"),
        ({"lengths": [1, MAX_TOKENS + 1]}, "lengths[1]"),
        ({"lengths": [True]}, "lengths[0]"),
        ({"lengths": [1.0]}, "lengths[0]"),
        ({"lengths": [1], "tokenizer": "x"}, "tokenizer"),
        ({"lengths": [1], "max_seq_lengths": []}, "max_seq_lengths"),
        ({"lengths": [1], "max_seq_lengths": [1] * 33}, "max_seq_lengths"),
        ({"lengths": [1], "max_seq_lengths": [0]}, "max_seq_lengths[0]"),
        ({"lengths": [1], "max_cut_percent": 101}, "max_cut_percent"),
        ({"lengths": [1], "per_device_train_batch_size": 0}, "per_device_train_batch_size"),
        ({"texts": ["a"]}, "tokenizer"),
        ({"texts": [], "tokenizer": "x"}, "texts"),
        ({"texts": [3], "tokenizer": "x"}, "texts[0]"),
        ({"texts": ["a"], "tokenizer": "x", "add_special_tokens": 1}, "add_special_tokens"),
        ({"texts": ["\ud800"], "tokenizer": "x"}, "texts[0]"),
    ],
)
def test_a_wrong_question_is_refused_by_the_name_of_its_key(client: TestClient, asked: Any, key: str | None) -> None:
    response = client.post(PATH, content=json.dumps(asked), headers={"content-type": "application/json"})
    assert problem_of(response, 422, "invalid-documents")["errors"][0]["key"] == key


@pytest.mark.parametrize("name", ["PATH", "PATH/tokenizer.json", "./tokenizer.json", "../x", "~", "nobody/nothing"])
def test_nothing_of_the_servers_disk_is_read_and_no_host_asked_unless_that_is_allowed(
    client: TestClient, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctxplan.hub.ask_hub", lambda *_: pytest.fail("the Hub was asked"))
    write_tokenizer(tmp_path / "model")
    named = name.replace("PATH", str(tmp_path / "model"))
    response = client.post(PATH, json={"texts": ["a"], "tokenizer": named})
    assert problem_of(response, 422, "unknown-model")["errors"][0]["key"] == "tokenizer"


def test_a_relative_name_is_a_hub_id_and_no_directory(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tokenizer(tmp_path / "some" / "model")
    monkeypatch.chdir(tmp_path)
    response = client.post(PATH, json={"texts": ["a"], "tokenizer": "some/model"})
    problem_of(response, 422, "unknown-model")


def test_a_directory_is_read_where_the_settings_allow_it_and_again_when_it_changed(
    local_client: TestClient, tmp_path: Path
) -> None:
    model = write_tokenizer(tmp_path / "model")
    asked = {"texts": ["a"], "tokenizer": str(model)}
    assert local_client.post(PATH, json=asked).json()["tokens"] == 2
    assert local_client.post(PATH, json=asked).json()["tokens"] == 2
    changed = json.loads((model / "tokenizer.json").read_text())
    changed["post_processor"] = None
    (model / "tokenizer.json").write_text(json.dumps(changed))
    assert local_client.post(PATH, json=asked).json()["tokens"] == 1
    (model / "tokenizer.json").write_text("{}")
    assert problem_of(local_client.post(PATH, json=asked), 422, "unknown-model")["errors"][0]["key"] == "tokenizer"


def test_another_media_type_and_a_body_over_the_limit_are_refused(client: TestClient) -> None:
    problem_of(client.post(PATH, content="{}", headers={"content-type": "text/plain"}), 415, "unsupported-media-type")
    problem_of(client.post(PATH, json={"lengths": [1] * 600_000}), 413, "body-too-large")
