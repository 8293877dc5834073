"""``ctxplan keys``, and when ``ctxplan serve`` asks for one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import application
from app.keys.form import is_key


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "x.db"
    monkeypatch.setenv("CTXPLAN_DATABASE_URL", f"sqlite:///{file}")
    return file


def keys(*arguments: str) -> Any:
    return CliRunner().invoke(application, ["keys", *arguments])


def made(*arguments: str) -> dict[str, Any]:
    run = keys("create", *arguments, "--json")
    assert run.exit_code == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def listed() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(keys("list", "--json").stdout)["items"]
    return found


def test_a_key_is_shown_once_alone_on_standard_output(database: Path) -> None:
    run = keys("create", "laptop", "--scope", "plan", "--scope", "work", "--expires", "90d")
    assert run.exit_code == 0, run.stderr
    key = run.stdout.strip()
    assert is_key(key)
    assert key not in run.stderr
    assert "plan, work" in run.stderr
    again = keys("list")
    assert key not in again.output
    assert key[:13] in again.stderr
    assert key.encode() not in database.read_bytes()


def test_keys_are_listed_with_what_they_open_and_until_when(database: Path) -> None:
    assert "no key" in keys("list").stderr
    first, second = made("a", "--scope", "plan"), made("b", "--scope", "admin", "--expires", "2w")
    found = listed()
    assert [one["id"] for one in found] == [first["id"], second["id"]]
    assert [one["scopes"] for one in found] == [["plan"], ["admin"]]
    assert found[0]["expires_at"] is None
    assert found[1]["expires_at"] is not None
    assert all("key" not in one for one in found)


def test_a_key_is_rotated_and_revoked(database: Path) -> None:
    first = made("a", "--scope", "plan")
    run = keys("rotate", first["id"], "--json")
    second = json.loads(run.stdout)
    assert is_key(second["key"])
    assert second["key"] != first["key"]
    assert listed()[0]["revoked_at"] is not None
    assert keys("revoke", second["id"]).exit_code == 0
    assert all(one["revoked_at"] for one in listed())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create", "a", "--scope", "root"), "plan, measure, work, admin"),
        (("create", "a", "--scope", "plan", "--expires", "soon"), "expires"),
        (("revoke", "nothing"), "is no key"),
    ],
)
def test_what_cannot_be_is_said_with_exit_code_2(database: Path, arguments: tuple[str, ...], told: str) -> None:
    run = subprocess.run([sys.executable, "-m", "app", "keys", *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert told in run.stderr
    assert run.stdout == ""


class TestServing:
    """Real processes, each of which leaves before it serves."""

    def serve(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app", "serve", "--port", "0", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def test_an_address_that_others_reach_is_not_served_without_a_key(self, database: Path) -> None:
        for host in ("0.0.0.0", "::"):
            run = self.serve("--host", host)
            assert run.returncode == 2
            assert "ctxplan keys create" in run.stderr
            assert "serving" not in run.stderr

    def test_a_revoked_key_is_none(self, database: Path) -> None:
        keys("revoke", made("a", "--scope", "plan")["id"])
        assert self.serve("--host", "0.0.0.0").returncode == 2

    def test_with_a_key_it_goes_on_to_listen(self, database: Path) -> None:
        """An address of no interface is refused by the system, and only after the keys were looked at."""
        made("a", "--scope", "plan")
        run = self.serve("--host", "203.0.113.7")
        assert run.returncode == 2
        assert "cannot listen" in run.stderr

    def test_where_the_operator_says_so_no_key_is_asked_for(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CTXPLAN_REQUIRE_KEYS", "false")
        assert "cannot listen" in self.serve("--host", "203.0.113.7").stderr

    def test_a_database_url_that_is_none_is_bad_usage(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CTXPLAN_DATABASE_URL", "oracle://user:secret@x/y")
        run = self.serve()
        assert run.returncode == 2
        assert "CTXPLAN_DATABASE_URL" in run.stderr
        assert "secret" not in run.stderr
