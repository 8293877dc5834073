"""Several configs in one ``ctxplan preflight``: one exit code, one document, and every verdict seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.app.test_cli import run
from tests.app.test_preflight import SMALL, TOO_LARGE, UNSURE

BROKEN = "model: [\n"
TEXTS = {"fits": SMALL, "uncertain": UNSURE, "does_not_fit": TOO_LARGE, "unreadable": BROKEN}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A config of each verdict, in files whose names need care."""
    paths = {verdict: tmp_path / f"a {verdict} 'run'.yaml" for verdict in TEXTS}
    for verdict, path in paths.items():
        path.write_text(TEXTS[verdict])
    return {verdict: str(path) for verdict, path in paths.items()}


@pytest.mark.parametrize(
    ("verdicts", "worst", "code"),
    [
        (["fits", "fits"], "fits", 0),
        (["uncertain", "fits"], "uncertain", 3),
        (["uncertain", "does_not_fit", "fits"], "does_not_fit", 1),
        (["does_not_fit", "unreadable", "uncertain"], "unreadable", 2),
    ],
)
def test_the_exit_code_is_that_of_the_worst_config(
    files: dict[str, str], verdicts: list[str], worst: str, code: int
) -> None:
    done = run("preflight", *(files[verdict] for verdict in verdicts), "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == answer["exit_code"] == code
    assert answer["verdict"] == worst
    assert [item["verdict"] for item in answer["items"]] == verdicts
    assert [item["config"]["file"] for item in answer["items"]] == [files[verdict] for verdict in verdicts]


def test_each_item_is_the_answer_that_its_config_has_alone(files: dict[str, str]) -> None:
    several = json.loads(run("preflight", files["fits"], files["does_not_fit"], "--json").stdout)["items"]
    alone = [json.loads(run("preflight", files[name], "--json").stdout) for name in ("fits", "does_not_fit")]
    assert several == alone


def test_an_uncertain_config_passes_among_several_where_only_one_that_does_not_fit_is_to_fail(
    files: dict[str, str],
) -> None:
    done = run("preflight", files["fits"], files["uncertain"], "--fail-on", "does_not_fit", "--json")
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (0, "uncertain")


def test_a_config_that_cannot_be_read_does_not_hide_the_others(files: dict[str, str]) -> None:
    done = run("preflight", files["unreadable"], files["fits"])
    assert done.returncode == 2
    assert f"ctxplan: error: {files['unreadable']}:" in done.stderr
    assert "Fits: " in done.stderr


def test_what_was_wrong_with_a_config_is_in_its_item(files: dict[str, str]) -> None:
    done = run("preflight", files["unreadable"], files["fits"], "--json")
    broken = json.loads(done.stdout)["items"][0]
    assert set(broken) == {"verdict", "exit_code", "config", "error"}
    assert broken["error"].startswith(files["unreadable"])
    assert broken["error"] in done.stderr


def test_a_wrong_option_ends_it_once_before_any_config_is_read(files: dict[str, str]) -> None:
    done = run("preflight", files["fits"], files["uncertain"], "--host-ram", "much")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("--host-ram") == 1


def test_every_verdict_is_annotated_before_any_detail(files: dict[str, str], tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    names = ["uncertain", "does_not_fit", "unreadable", "fits"]
    done = run("preflight", *(files[name] for name in names), "--format", "github", GITHUB_STEP_SUMMARY=str(summary))
    lines = done.stdout.splitlines()
    titles = ["Uncertain whether it fits", "Does not fit", "ctxplan cannot read this", "Fits"]
    for line, title, name in zip(lines, titles, names, strict=False):
        assert f"title={title}::" in line
        assert f"a {name} 'run'.yaml" in line
    assert len(lines) > len(titles)
    assert summary.read_text().count("\n| load |") == 3
    assert done.returncode == 2
