"""The service's settings: misspelt names are told, and a directory of secrets is read wherever it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import Settings, misspelt, words_of
from tests.app.test_cli import run


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("CTXPLAN_LEASE_SECOND", "CTXPLAN_LEASE_SECONDS"),
        ("CTXPLAN_REQUIRE_KEY", "CTXPLAN_REQUIRE_KEYS"),
        ("CTXPLAN_DATABASEURL", "CTXPLAN_DATABASE_URL"),
        ("CTXPLAN_PLANNING_THREADS", "CTXPLAN_PLANNING_PROCESSES"),
        ("ctxplan_require_key", "CTXPLAN_REQUIRE_KEYS"),
    ],
)
def test_a_name_that_is_nearly_a_settings_is_refused(given: str, meant: str) -> None:
    assert misspelt([given, "PATH"]) == (given, meant)


def test_settings_the_clients_names_and_what_kubernetes_adds_are_not() -> None:
    added = ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_8000_TCP", "PORT_8000_TCP_ADDR", "SERVER_PORT"]
    ours = [*Settings.model_fields, "api_key", "server"]
    assert misspelt([f"CTXPLAN_{name.upper()}" for name in [*ours, *added]]) is None


def test_the_service_does_not_start_with_one_and_says_what_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTXPLAN_REQUIRE_KEY", "true")
    done = run("serve", "--port", "0")
    assert done.returncode == 2
    assert "CTXPLAN_REQUIRE_KEY: no setting has this name; did you mean CTXPLAN_REQUIRE_KEYS?" in done.stderr


def test_secrets_are_read_from_the_directory_where_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ctxplan_keys_secret").write_text("s" * 40)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTXPLAN_SECRETS_DIR", ".")
    secret = Settings().keys_secret
    assert secret is not None
    assert secret.get_secret_value() == "s" * 40


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("allowed_hosts", "http://a", '"http://a" is no name of a host (allowed: names of hosts without scheme'),
        ("allowed_hosts", "plans.example, b:8000", '"b:8000" is no name of a host'),
        ("allowed_hosts", "*.example.org", '"*.example.org" is no name of a host'),
        ("hub_hosts", "https://cdn.example.org/", "is no name of a host"),
        ("keys_secret", "short", "should have at least 32 characters"),
        ("max_body_bytes", "-1", "greater than or equal to 1024"),
    ],
)
def test_a_value_that_cannot_work_is_said_with_its_variable_and_what_is_allowed(
    setting: str, value: str, said: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(**{setting: value})  # type: ignore[arg-type]
    words = words_of(refused.value)
    assert words.startswith(f"CTXPLAN_{setting.upper()}: ")
    assert said in words
    assert "items" not in words


@pytest.mark.parametrize("hosts", ["", "localhost", "plans.example.org, my_host,10.0.0.7,::1,"])
def test_names_and_addresses_of_hosts_are_taken(hosts: str) -> None:
    assert Settings(allowed_hosts=hosts).allowed_hosts == hosts
    assert Settings(hub_hosts=f"*.example.org,{hosts}").hub_hosts == f"*.example.org,{hosts}"


def test_calibrations_that_could_not_be_kept_stop_the_start(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for place in ("/proc/x", str(file), str(file / "below")):
        done = run("serve", "--port", "0", CTXPLAN_CALIBRATIONS=place)
        assert done.returncode == 2
        assert f"CTXPLAN_CALIBRATIONS: {place} cannot be made" in done.stderr
        assert "a directory that the service can make and write to" in done.stderr
