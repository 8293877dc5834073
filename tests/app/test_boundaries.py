"""What no request can make the service do: ask a host that the operator did not allow, read a file that is none of its
business, or run anything of a model's. A real server is asked, and everything that it does is noted."""

from __future__ import annotations

import http.client
import json
import mimetypes
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.hub_hosts import is_allowed
from tests.app.hostile_hub import Forbidden, Hub, serving
from tests.app.jobs import CONFIG, FITS
from tests.probes.common import said_address

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60
GPU_LIBRARIES = {"torch", "transformers", "peft", "trl", "unsloth", "bitsandbytes", "accelerate", "datasets", "triton"}
JOB_ROUTES = ("/v1/estimates", "/v1/max-context", "/v1/plans", "/v1/scripts")

# Read by Python and by what counts the process's own memory and threads; what names people, programs or secrets is not.
SYSTEM_FILES = {
    *mimetypes.knownfiles,
    *("/dev/null", "/dev/urandom", "/proc/stat", "/proc/cpuinfo", "/proc/sys/kernel/random/boot_id"),
    *("/proc/self/stat", "/proc/self/limits"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A service with its notes. ``folder``: where it runs; ``secret``: a model's directory that none may read."""

    port: int
    hub: str
    forbidden: str
    folder: Path
    secret: Path
    notes: Path

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """The path goes out as it is written: a client would tidy it up."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.putrequest(method, path, skip_host=False)
            if data is not None:
                connection.putheader("Content-Type", "application/json")
                connection.putheader("Content-Length", str(len(data)))
            connection.endheaders(data)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def noted(self, kind: str) -> set[str]:
        lines = self.notes.read_text(encoding="utf-8", errors="replace").splitlines()
        return {what for line in lines for noted, _, what in [line.partition("\t")] if noted == kind}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("service")
    secret = tmp_path_factory.mktemp("elsewhere") / "secret"
    secret.mkdir()
    (secret / "config.json").write_text(json.dumps(CONFIG))
    (secret / "tokenizer.json").write_text("{}")
    # What a name could stand for in the folder that the service runs in: a directory, and a link out of it.
    (folder / "someone").mkdir()
    (folder / "someone" / "model").symlink_to(secret)
    (folder / "link").symlink_to(secret)
    notes = folder / "notes"
    with serving(Hub) as hub, serving(Forbidden) as forbidden:
        Hub.asked.clear()
        Forbidden.asked.clear()
        Hub.away = f"http://{forbidden}"
        environment = {
            "PATH": os.defpath,
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HF_ENDPOINT": f"http://{hub}",
            "HF_TOKEN": "hf_the_operators_own",
            "WATCHED_NOTES": str(notes),
            # Plans are worked on where the notes are taken, by the same code.
            "CTXPLAN_PLANNING_PROCESSES": "0",
            "CTXPLAN_LOG_LEVEL": "error",
        }
        command = [sys.executable, str(ROOT / "tests/app/watched.py"), "serve", "--port", "0"]
        with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                port = int(said_address(process.stderr).rpartition(":")[2])
                yield Watched(port=port, hub=hub, forbidden=forbidden, folder=folder, secret=secret, notes=notes)
            finally:
                process.terminate()
                process.communicate(timeout=SECONDS)


def hostile_names(service: Watched) -> list[str]:
    """Names that would be an address, a path or an instruction, were they taken for one."""
    away, secret = service.forbidden, str(service.secret)
    addresses = [
        f"http://{away}/a/b",
        f"https://{away}/a/b",
        f"//{away}/a/b",
        f"{away}/a",
        f"a@{away}/b",
        f"a/b@{away}",
        f"a/b@http://{away}/",
        f"a/b?x=http://{away}",
        f"a/b#@{away}",
        f"a/b\r\nHost: {away}",
        f"a\\@{away}/b",
        "169.254.169.254/latest",
        f"hf://{away}/a",
        f"git+http://{away}/a",
    ]
    up = os.path.relpath(secret, service.folder)
    paths = [secret, f"file://{secret}", up, f"./{up}", f"a/{up}", "link", "someone/model", "~", "~root", ".", ".."]
    twisted = [f"a/b@../../../../{secret}", "..%2f..%2fsecret", f"a/b@refs/../../..{secret}", "a/..", "../a", f"{up}\0"]
    return [*addresses, *paths, *twisted, "a/" + "b" * 5000, "﹒﹒/secret", "a//b", "models--a--b", "a--b/c"]


def test_no_models_name_reaches_another_host_or_a_file(service: Watched) -> None:
    for name in hostile_names(service):
        for path in JOB_ROUTES:
            status, body = service.ask("POST", path, {**FITS, "model": name})
            assert (status, json.loads(body)["code"]) in REFUSED, (name, path, body)
        status, _ = service.ask("POST", "/v1/tokens", {"texts": ["a"], "tokenizer": name})
        assert 400 <= status < 500, name
        config = json.dumps({"model_name_or_path": name, "max_length": 2048})
        status, _ = service.ask("POST", "/v1/preflight", {"config": config, "file": f"{name}.json", "tool": "trl"})
        assert status in (400, 422), name
    nothing_forbidden_happened(service)


REFUSED = {(422, "unknown-model"), (422, "invalid-job"), (404, "unknown-model"), (400, "invalid-job")}


def test_no_path_of_a_url_reaches_a_file(service: Watched) -> None:
    ups = ("../" * 12, "..%2f" * 12, "%2e%2e/" * 12, "..\\" * 12, "....//" * 12, "%252e%252e%252f" * 12)
    for route in ("/static/", "/v1/tiers/", "/v1/calibrations/", "/problems/", "/tiers/", "/calibrations/", "/"):
        for up in ups:
            for target in (f"{service.secret}/config.json".lstrip("/"), "etc/passwd"):
                status, body = service.ask("GET", f"{route}{up}{target}")
                assert status in (400, 404, 405, 422), (route, up)
                assert b"root:" not in body
                assert b"hidden_size" not in body
    nothing_forbidden_happened(service)


def test_no_config_of_a_launcher_reaches_a_file_or_runs_anything(service: Watched) -> None:
    secret = service.secret
    configs = {
        "yaml": f"!!python/object/apply:os.system ['touch {service.folder}/evil']",
        "tag.yaml": f"base_model: !!python/object/new:pathlib.Path ['{secret}']\n",
        "include.yaml": f"base_model: !include {secret}/config.json\n",
        "deepspeed.yaml": f"base_model: {FITS['model']}\ndeepspeed: {secret}/config.json\nsequence_len: 2048\n",
        "data.yaml": f"base_model: {FITS['model']}\nsequence_len: 2048\ndatasets:\n  - path: {secret}\n    type: a\n",
        "template.yaml": f"base_model: {FITS['model']}\nsequence_len: 2048\nchat_template_jinja: {secret}/a.jinja\n",
        "code.py": f"from unsloth import FastLanguageModel\nopen('{secret}/config.json')\n",
        f"{secret}/config.json": json.dumps({"model_name_or_path": str(secret), "max_length": 2048}),
    }
    for file, config in configs.items():
        status, _ = service.ask("POST", "/v1/preflight", {"config": config, "file": file})
        assert status in (200, 400, 422), file
    nothing_forbidden_happened(service)


def test_no_redirect_of_the_hub_is_followed_to_another_host(service: Watched) -> None:
    for path in JOB_ROUTES:
        assert service.ask("POST", path, {**FITS, "model": "away/model"})[0] in (404, 422)
    assert service.ask("POST", "/v1/tokens", {"texts": ["a"], "tokenizer": "away/model"})[0] in (404, 422)
    assert any("away/model" in path for path in Hub.asked)
    assert service.noted("connect") == {service.hub}
    nothing_forbidden_happened(service)


def test_a_models_own_code_and_pickles_are_neither_fetched_nor_run(service: Watched) -> None:
    status, body = service.ask("POST", "/v1/estimates", {**FITS, "model": "evil/code"})
    assert status == 200, body
    fetched = {path.rpartition("/")[2].partition("?")[0] for path in Hub.asked if "evil/code" in path}
    assert "config.json" in fetched
    assert not [name for name in fetched if name.endswith((".py", ".bin", ".pt", ".pth", ".ckpt"))]
    nothing_forbidden_happened(service)


def test_a_models_chat_template_is_not_rendered_for_a_request(service: Watched) -> None:
    status, body = service.ask("POST", "/v1/tokens", {"texts": ["a b"], "tokenizer": "evil/template"})
    assert status == 200, body
    nothing_forbidden_happened(service)


def test_the_shards_that_an_index_names_are_names_beside_it(service: Watched) -> None:
    status, _ = service.ask("POST", "/v1/estimates", {**FITS, "model": "evil/index"})
    assert status in (200, 422)
    nothing_forbidden_happened(service)


def test_the_operators_token_is_sent_to_nobody(service: Watched) -> None:
    notes = service.notes.read_text(errors="replace")
    assert "hf_the_operators_own" not in notes
    assert not (service.folder / "evil").exists()


def nothing_forbidden_happened(service: Watched) -> None:
    """By the service's own notes, and by those of whom it might have asked."""
    assert Forbidden.asked == []
    assert not (service.folder / "evil").exists()
    assert service.noted("connect") <= {service.hub}
    assert service.noted("start") == set()
    assert not {name.partition(".")[0] for name in service.noted("import")} & GPU_LIBRARIES
    assert not [name for name in service.noted("unpickle") if not name.startswith(("numpy", "scipy"))]
    assert not [file for file in service.noted("open") if not is_its_own(file, service)]


def is_its_own(file: str, service: Watched) -> bool:
    """Where its name leads, links followed: Python's, the project's, the folder's that the service runs in, or one of
    the system's that its libraries need, each by name."""
    if file in SYSTEM_FILES:
        return True
    real = Path(os.path.realpath(service.folder / file))
    own = (sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), "/usr", "/lib", ROOT, service.folder)
    return any(real.is_relative_to(os.path.realpath(one)) for one in own)


@pytest.mark.parametrize(
    ("file", "own"),
    [
        ("ctxplan.db", True),
        ("{folder}/.cache/huggingface/hub/models--a--b/snapshots/0/config.json", True),
        (f"{ROOT}/app/main.py", True),
        (f"{ROOT}-of-another/main.py", False),
        ("/proc/self/stat", True),
        ("/proc/self/environ", False),
        ("/proc/self/root/usr/../etc/passwd", False),
        ("/etc/passwd", False),
        ("/sys/class/dmi/id/product_uuid", False),
        ("link/config.json", False),
        ("someone/model/config.json", False),
        ("{folder}/someone/model/config.json", False),
        ("{folder}/../secret", False),
        ("{secret}/config.json", False),
    ],
)
def test_a_file_is_the_services_own_by_where_its_name_leads(service: Watched, file: str, own: bool) -> None:
    assert is_its_own(file.format(folder=service.folder, secret=service.secret), service) is own


@pytest.mark.parametrize(
    ("url", "endpoint", "hosts", "allowed"),
    [
        ("https://huggingface.co/a/b", "https://huggingface.co", None, True),
        ("https://cdn-lfs.huggingface.co/a", "https://huggingface.co", None, True),
        ("https://cas-bridge.xethub.hf.co/a", "https://huggingface.co", None, True),
        ("http://cdn-lfs.huggingface.co/a", "https://huggingface.co", None, False),
        ("http://huggingface.co/a", "https://huggingface.co", None, False),
        ("https://huggingface.co:8443/a", "https://huggingface.co", None, False),
        ("https://hf.co.example.org/a", "https://huggingface.co", None, False),
        ("https://evilhf.co/a", "https://huggingface.co", None, False),
        ("https://hf.co@example.org/a", "https://huggingface.co", None, False),
        ("http://169.254.169.254/latest", "https://huggingface.co", None, False),
        ("https://127.0.0.1/a", "https://huggingface.co", None, False),
        ("https://mirror.example.org/a", "https://mirror.example.org", None, True),
        ("https://cdn.hf.co/a", "https://mirror.example.org", None, False),
        ("https://cdn.hf.co/a", "https://mirror.example.org", "*.hf.co", True),
        ("https://files.example.org/a", "https://mirror.example.org", "cdn.example.org, files.example.org", True),
        ("https://example.org/a", "https://huggingface.co", "*.", False),
        ("https://huggingface.co/a", "https://huggingface.co", "", True),
        ("https://cdn.hf.co/a", "https://huggingface.co", "", False),
        ("http://127.0.0.1:9/a", "http://127.0.0.1:8", None, False),
    ],
)
def test_a_look_up_reaches_the_hub_and_where_its_operator_lets_it_send(
    url: str, endpoint: str, hosts: str | None, allowed: bool
) -> None:
    assert is_allowed(url, endpoint, hosts) is allowed


def test_a_chat_template_reaches_nothing_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.tokens.chat import ChatTemplate
    from app.tokens.sources import BadRow

    monkeypatch.chdir(tmp_path)
    conversation: list[dict[str, Any]] = [{"role": "user", "content": "a"}]
    for template in (
        "{{ cycler.__init__.__globals__.os.system('touch evil') }}",
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{% include 'config.json' %}",
        "{% import 'os' as os %}",
        "{{ messages.append({'role': 'user'}) }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
    ):
        with pytest.raises(BadRow):
            ChatTemplate(template, {}).render(conversation)
    assert list(tmp_path.iterdir()) == []
