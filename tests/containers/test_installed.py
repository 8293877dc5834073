"""The wheel as the server image installs it: by a process that may write nothing but its data, from the first key to
the end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.app.database.servers import new_url
from tests.app.database.servers import postgres_server as postgres_server
from tests.app.jobs import FITS
from tests.containers.dockerfile import ROOT, environment_of, of

NOBODY = 10001
SECONDS = 60
REACHES_ITSELF = "import os, sys; os.stat(os.path.realpath(sys.executable))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What the image has: its environment under ``opt``, read-only, and ``data``, which alone may be written."""

    opt: Path
    data: Path

    def environment(self, **more: str) -> dict[str, str]:
        """The image's own variables, its folders moved here."""
        there = {"/opt/ctxplan": str(self.opt), "/data": str(self.data)}
        own = environment_of("server")
        for name, value in own.items():
            for old, new in there.items():
                value = value.replace(old, new)
            own[name] = value.replace("$PATH", "/usr/bin:/bin")
        return {**own, "HF_HUB_OFFLINE": "1", **more}

    def start(self, command: list[str], **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*without_rights(self.opt), *command],
            cwd=self.data,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        with self.start([*command], **environment) as process:
            out, err = process.communicate(timeout=SECONDS)
            return subprocess.CompletedProcess(command, process.returncode, out, err)


def without_rights(opt: Path) -> list[str]:
    """Where the tests run as root: as nobody, or, where nobody may run this Python, as a root without capabilities, to
    whom the modes of files apply."""
    if os.geteuid() != 0:
        return []
    none = ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    nobody = [*none, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return nobody if is_runnable([*nobody, str(opt / "bin/python"), "-c", REACHES_ITSELF]) else none


def is_runnable(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Takes some seconds: the wheel is built and installed as the Dockerfile does it."""
    folder = Path(tempfile.mkdtemp(prefix="ctxplan-image-"))
    folder.chmod(0o755)
    opt, data, wheels = folder / "opt", folder / "data", folder / "wheels"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(wheels)]
    subprocess.run([*pip, *build, str(ROOT)], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(opt)], check=True)
    install = ["--python", str(opt / "bin/python"), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, *install, *map(str, wheels.glob("*.whl"))], check=True)
    # The service's requirements are those of the tests; a line that is a folder brings in no editable project.
    site = next(opt.glob("lib/python*/site-packages"))
    (site / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
    data.mkdir(mode=0o700)
    if os.geteuid() == 0 and NOBODY in owners(without_rights(opt)):
        os.chown(data, NOBODY, NOBODY)
    for path in [opt, *opt.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    yield Image(opt=opt, data=data)
    for path in [opt, *opt.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


def owners(command: list[str]) -> set[int]:
    return {int(word.partition("=")[2]) for word in command if word.startswith("--reuid=")}


def test_the_tree_is_read_only_and_the_project_is_the_installed_one(image: Image) -> None:
    where = "import app; print(app.__file__); open(app.__file__, 'a')"
    done = image.run("python", "-c", where)
    assert done.stdout.startswith(str(image.opt))
    assert "PermissionError" in done.stderr


def test_it_starts_with_no_key_only_to_say_how_one_is_made(image: Image) -> None:
    done = image.run(*entry("serve"), CTXPLAN_DATABASE_URL=f"sqlite+aiosqlite:///{image.data}/none.db")
    assert done.returncode == 2
    assert "ctxplan keys create" in done.stderr


def entry(*arguments: str) -> list[str]:
    """ENTRYPOINT, and what stands in CMD's place."""
    return [*json.loads(of("server", "ENTRYPOINT")[0]), *arguments]


def test_from_the_first_key_to_the_end(image: Image) -> None:
    made = image.run(*entry("keys", "create", "first", "--scope", "plan"))
    assert (made.returncode, made.stderr[:4]) == (0, "Key ")
    key = made.stdout.strip()
    port = str(free_port())
    command = entry(*json.loads(of("server", "CMD")[0]))
    with image.start(command, CTXPLAN_PORT=port) as process:
        try:
            wait_until_healthy(image, port, process)
            assert asked(port, "/v1/estimates", FITS, key)[0] == 200
            assert asked(port, "/v1/estimates", FITS)[0] == 401
            assert [
                asked(port, path)[0] for path in ("/static/page/page.css", "/readyz", "/docs", "/openapi.json")
            ] == [200] * 4
            process.send_signal(getattr(signal, of("server", "STOPSIGNAL")[0]))
            _, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert process.returncode in (0, -signal.SIGTERM)  # in a container, where it is the first process, always 0
    assert ("Traceback" in err, key in err) == (False, False)
    kept = {path.relative_to(image.data).parts[0] for path in image.data.rglob("*")}
    assert {"ctxplan.db", "ctxplan.db.secret"} <= kept


def test_it_serves_postgresql_by_the_secrets_that_are_mounted(
    image: Image, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """As Compose and Kubernetes have it: neither the database nor the secret of the keys is in the environment. With
    the rights of the tests, which own the database's socket."""
    make_secrets(tmp_path / "secrets", new_url(request, "postgresql", tmp_path))
    mounted = {**image.environment(), "CTXPLAN_SECRETS_DIR": str(tmp_path / "secrets")}
    run: dict[str, Any] = {"cwd": image.data, "env": mounted, "capture_output": True, "text": True, "timeout": SECONDS}
    before = {path.name for path in image.data.iterdir()}
    refused = subprocess.run(entry("serve"), **run, check=False)
    assert (refused.returncode, "ctxplan keys create" in refused.stderr) == (2, True)
    key = subprocess.run(entry("keys", "create", "first", "--scope", "measure"), **run, check=True).stdout.strip()
    port = str(free_port())
    with subprocess.Popen(
        entry("serve"), cwd=image.data, env={**mounted, "CTXPLAN_PORT": port}, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            wait_until_healthy(image, port, process)
            assert asked(port, "/v1/probe-jobs", {"point": FITS}, key)[0] == 201
            assert asked(port, "/v1/probe-jobs", key=key)[0] == 200
        finally:
            process.terminate()
            process.communicate(timeout=SECONDS)
    assert {path.name for path in image.data.iterdir()} == before


def make_secrets(folder: Path, url: str) -> None:
    subprocess.run([ROOT / "deploy" / "make-secrets", folder], check=True, capture_output=True)
    (folder / "ctxplan_database_url").unlink()
    (folder / "ctxplan_database_url").write_text(url)


def test_the_health_check_fails_where_nothing_answers(image: Image) -> None:
    assert health(image, str(free_port())) != 0


def wait_until_healthy(image: Image, port: str, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + SECONDS
    while health(image, port) != 0:
        assert process.poll() is None
        assert time.monotonic() < until


def health(image: Image, port: str) -> int:
    """The exit code of the image's own check."""
    found = re.fullmatch(r"(?:--\S+ )+CMD (\[.*\])", of("server", "HEALTHCHECK")[0])
    assert found
    return image.run(*json.loads(found[1]), CTXPLAN_PORT=port).returncode


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def asked(port: str, path: str, body: object = None, key: str | None = None) -> tuple[int, bytes]:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as response:  # noqa: S310
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
