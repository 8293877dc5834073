"""deploy/compose.yaml: what Compose takes, with no more rights than it must have, and its secrets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from app.settings import Settings
from tests.containers.dockerfile import ROOT, STEPS, of

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_the_compose_file_is_one() -> None:
    read = PyCompose.from_json(json.dumps(COMPOSE))
    read.validate()
    assert read.service_names()
    assert set(read.service_names()) == set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_of_the_compose_file_may_do_no_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "devices", "network_mode", "pid", "userns_mode"}
    assert not [mount for mount in service["volumes"] if mount.startswith(("/", ".", "~"))]


def test_only_the_server_is_reached_from_outside_and_only_by_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"server": ["127.0.0.1:8000:8000"]}
    assert SERVICES["database"]["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}


def test_no_secret_is_written_in_the_compose_file() -> None:
    variables = {name: value for service in SERVICES.values() for name, value in service["environment"].items()}
    secret = {name for name in variables if re.search(r"PASSWORD|SECRET|KEY|TOKEN|URL", name)}
    assert {variables[name] for name in secret} == {
        "/run/secrets/postgres_password",
        "/run/secrets",
        "${CTXPLAN_WORKER_KEY:-}",
    }
    assert {one for service in SERVICES.values() for one in service.get("secrets", ())} == COMPOSE["secrets"].keys()


def test_who_needs_another_service_waits_until_it_is_healthy() -> None:
    waits = {name: list(service.get("depends_on", ())) for name, service in SERVICES.items()}
    assert waits == {"database": [], "server": ["database"], "worker": ["server"]}
    for service in SERVICES.values():
        assert all(one == {"condition": "service_healthy"} for one in service.get("depends_on", {}).values())
    assert SERVICES["database"]["healthcheck"]["test"][0] == "CMD"
    assert of("server", "HEALTHCHECK")


def test_the_compose_file_builds_images_that_the_dockerfile_has() -> None:
    for service in SERVICES.values():
        if "build" in service:
            assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
            assert service["build"]["target"] in {step.stage for step in STEPS}


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    subprocess.run([DEPLOY / "make-secrets", folder], check=True, capture_output=True)
    return folder


def test_the_secrets_are_what_the_services_read(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted = {Path(one["file"]).name for one in COMPOSE["secrets"].values()}
    assert {file.name for file in secrets.iterdir()} == mounted == COMPOSE["secrets"].keys()
    monkeypatch.delenv("CTXPLAN_DATABASE_URL", raising=False)
    monkeypatch.setenv("CTXPLAN_SECRETS_DIR", str(secrets))
    settings = Settings()
    password = (secrets / "postgres_password").read_text()
    assert settings.database_url == f"postgresql+psycopg://ctxplan:{password}@database:5432/ctxplan"
    assert settings.keys_secret is not None
    assert len(settings.keys_secret.get_secret_value()) == 64
    environment = SERVICES["database"]["environment"]
    assert (environment["POSTGRES_USER"], environment["POSTGRES_DB"]) == ("ctxplan", "ctxplan")


def test_secrets_are_random_out_of_reach_and_made_once(secrets: Path, tmp_path: Path) -> None:
    before = {file.name: file.read_text() for file in secrets.iterdir()}
    assert secrets.stat().st_mode & 0o777 == 0o700
    subprocess.run([DEPLOY / "make-secrets", secrets], check=True, capture_output=True)
    assert {file.name: file.read_text() for file in secrets.iterdir()} == before
    subprocess.run([DEPLOY / "make-secrets", tmp_path / "others"], check=True, capture_output=True)
    assert not {file.read_text() for file in (tmp_path / "others").iterdir()} & set(before.values())


def test_a_variable_goes_before_a_mounted_file(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTXPLAN_SECRETS_DIR", str(secrets))
    monkeypatch.setenv("CTXPLAN_DATABASE_URL", "sqlite+aiosqlite:///other.db")
    assert Settings().database_url == "sqlite+aiosqlite:///other.db"


def test_secrets_that_are_not_mounted_are_a_usage_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app", "serve"],
        cwd=ROOT,
        env={"CTXPLAN_SECRETS_DIR": str(tmp_path / "none"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "CTXPLAN_SECRETS_DIR" in done.stderr
