"""A Hub on this machine whose repositories are up to no good, and a place that nobody may ask."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

from tests.app.jobs import config
from tests.app.tiny_tokenizer import tiny_tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
AUTO_MAP = {"AutoConfig": "configuration_evil.EvilConfig", "AutoModelForCausalLM": "modeling_evil.EvilModel"}
TEMPLATE = "{{ cycler.__init__.__globals__.os.system('touch evil') }}"


class Evil:
    """Makes a file where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("evil"),)


FILES: dict[str, dict[str, bytes]] = {
    # Code of its own, which transformers would import with trust_remote_code, and weights that are a pickle.
    "evil/code": {
        "config.json": json.dumps(config(auto_map=AUTO_MAP)).encode(),
        "configuration_evil.py": b"import pathlib; pathlib.Path('evil').touch()",
        "modeling_evil.py": b"import pathlib; pathlib.Path('evil').touch()",
        "pytorch_model.bin": pickle.dumps(Evil()),
    },
    "evil/template": {
        "tokenizer.json": tiny_tokenizer().to_str().encode(),
        "tokenizer_config.json": json.dumps(
            {"bos_token": "<s>", "chat_template": TEMPLATE, "auto_map": AUTO_MAP}
        ).encode(),
    },
    "evil/index": {
        "config.json": json.dumps(config()).encode(),
        "model.safetensors.index.json": json.dumps(
            {"metadata": {}, "weight_map": {"a": "../../../../secret/config.json", "b": "http://127.0.0.1/x"}}
        ).encode(),
    },
}


class Hub(BaseHTTPRequestHandler):
    """Serves `FILES`; whatever is asked of ``away/...`` is sent on to another host."""

    asked: ClassVar[list[str]] = []
    away: ClassVar[str] = ""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.asked.append(self.path)
        parts = self.path.partition("?")[0].removeprefix("/api/models").split("/")
        repository, name = "/".join(parts[1:3]), parts[-1]
        if repository.startswith("away/"):
            self._head(302, b"", Location=f"{self.away}/{name}")
            return
        content = FILES.get(repository, {}).get(name)
        if content is None:
            self._head(404, b"", **{"X-Error-Code": "EntryNotFound"})
            return
        self._head(200, content, **{"X-Repo-Commit": COMMIT, "ETag": f'"{repository}/{name}"'.replace("/", "-")})
        if self.command == "GET":
            self.wfile.write(content)

    def _head(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Forbidden(BaseHTTPRequestHandler):
    """Nobody may come here; who does is remembered."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server on loopback; its host and port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
