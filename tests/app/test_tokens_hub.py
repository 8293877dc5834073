"""A tokenizer from the Hub: fetched once with its chat template, and what happens where there is none."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from app.tokens.tokenizer import ModelTokenizer, find_tokenizer
from estimator.errors import UnknownModel
from tests.app.tiny_tokenizer import SENTENCES, length, tiny_tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "tokenizer.json": tiny_tokenizer().to_str().encode(),
    "tokenizer_config.json": json.dumps({"bos_token": "<s>", "chat_template": "{{ bos_token }}"}).encode(),
}


@pytest.fixture(autouse=True)
def open_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and an environment that forbids nothing."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


class _Hub(BaseHTTPRequestHandler):
    """The part of the Hub that a download needs: ``someone/model`` has a tokenizer, ``old/model`` has none."""

    asked: list[str] = []  # noqa: RUF012 - one for each request, in order

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.asked.append(self.path)
        repository, name = "/".join(self.path.split("/")[1:3]), self.path.rsplit("/", 1)[1]
        content = FILES.get(name) if repository == "someone/model" else None
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{name}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if body and content:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A Hub on this machine, and what it is asked."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    _Hub.asked.clear()
    yield _Hub.asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_it_is_fetched_with_its_template_and_never_again(asked: list[str]) -> None:
    model = ModelTokenizer(find_tokenizer("someone/model"), "someone/model")
    assert model.lengths(SENTENCES, add_special_tokens=True) == [length(text) for text in SENTENCES]
    assert model.chat_template
    assert model.chat_template.render([]) == "<s>"
    assert asked
    asked.clear()
    assert find_tokenizer("someone/model", offline=True) == find_tokenizer(f"someone/model@{COMMIT}")
    assert asked == []


def test_a_model_without_one_is_refused_in_words(asked: list[str]) -> None:
    with pytest.raises(UnknownModel, match=r"cannot be fetched: the repository has no such file") as error:
        find_tokenizer("old/model")
    assert error.value.key == "tokenizer"
    assert asked


@pytest.mark.parametrize("forbidden_by", ["the caller", "the environment"])
def test_nobody_is_asked_where_that_is_forbidden(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, forbidden_by: str
) -> None:
    if forbidden_by == "the environment":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UnknownModel, match="the Hub is not asked"):
        find_tokenizer("someone/model", offline=forbidden_by == "the caller")
    assert asked == []


def test_a_hub_that_is_not_there_is_an_answer_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(UnknownModel, match="the Hub cannot be reached"):
        find_tokenizer("someone/model")
    assert time.monotonic() - started < 8
