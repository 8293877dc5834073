"""The client against a real service on loopback: what it answers is what the library answers here."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ctxplan
from ctxplan import AsyncClient, Client
from ctxplan.calibrations import shipped
from ctxplan.client import Conflict, NotFound, RefusedInput, Retries, Unreachable, estimate_from_json
from estimator import CtxplanError, parse_job
from tests.app.jobs import DOES_NOT_FIT, FITS, MODEL, WRONG_JOBS
from tests.ctxplan.serving import serving

ROOT = Path(__file__).resolve().parents[2]
LLAMA_70B = json.loads((ROOT / "examples" / "llama-3.3-70b-qlora-89k.json").read_text(encoding="utf-8"))
CONFIG = (ROOT / "examples" / "configs" / "trl.yaml").read_text(encoding="utf-8")
JOBS = [FITS, DOES_NOT_FIT, LLAMA_70B, {**FITS, "mode": "generate", "max_new_tokens": 64}]
HERE = ctxplan.Planner(offline=True, calibration=shipped())


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service of our own, whose calibrations a test may change."""
    with serving(tmp_path_factory.mktemp("service"), allow_calibration=True) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def measurements() -> list[dict[str, Any]]:
    """A few committed rows to fit to."""
    file = sorted((ROOT / "evidence" / "measurements").glob("*.jsonl"))[0]
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["outcome"] == "ok" and row["execution_path"] == "eager"][:12]


@pytest.mark.parametrize("job", JOBS)
def test_an_estimate_over_http_is_the_one_made_here(client: Client, job: dict[str, Any]) -> None:
    there, here = client.estimate(job), HERE.estimate(job)
    assert there.to_json() == here.to_json()
    assert (there.terms, there.peak_phase, there.job) == (here.terms, here.peak_phase, here.job)
    assert client.estimate(parse_job(job)).to_json() == here.to_json()


@pytest.mark.parametrize("job", JOBS[:3])
def test_a_longest_context_over_http_is_the_one_found_here(client: Client, job: dict[str, Any]) -> None:
    assert client.max_context(job).to_json() == HERE.max_context(job).to_json()


def test_a_plan_over_http_is_the_one_made_here(client: Client) -> None:
    there, here = client.plan(DOES_NOT_FIT, trainer="loop", limit=2), HERE.plan(DOES_NOT_FIT, trainer="loop", limit=2)
    assert there == here.to_json()
    assert len(there["proposals"]) <= 2
    changed = client.estimate({**DOES_NOT_FIT, **there["proposals"][0]["changes"]})
    assert changed.verdict == there["proposals"][0]["verdict"]


@pytest.mark.parametrize("name", sorted(WRONG_JOBS.keys() - {"a directory of the server"}))
def test_a_wrong_job_is_the_same_error_there_and_here_but_for_where_it_was_found(client: Client, name: str) -> None:
    job, code, keys = WRONG_JOBS[name]
    with pytest.raises(RefusedInput) as there:
        client.estimate(job)
    with pytest.raises(CtxplanError) as here:
        ctxplan.Planner(offline=True, allow_local=False).estimate(job)
    assert there.value.code == here.value.code == code
    assert there.value.key in keys.split("|")
    assert (there.value.key, there.value.allowed) == (here.value.key, here.value.allowed)
    assert there.value.exit_code == 2


def test_what_a_later_service_adds_is_passed_over() -> None:
    document = HERE.estimate(FITS).to_json()
    later = {**document, "new": 1, "job": {**document["job"], "new_key": True}}
    assert estimate_from_json(later).to_json() == document


def test_a_config_is_checked_with_its_tools_defaults(client: Client) -> None:
    answer = client.preflight(CONFIG, file="trl.yaml", gpu="RTX-4090-24GB")
    assert (answer["config"]["tool"], answer["config"]["file"]) == ("trl", "trl.yaml")
    assert estimate_from_json(answer["estimate"]).job.gpu == "RTX-4090-24GB"
    assert answer["exit_code"] in (0, 1, 3)
    as_job = client.preflight({**FITS, "gpu": "H100-80GB"}, tool="job", strict=True)
    assert (as_job["config"]["tool"], as_job["verdict"]) == ("job", "fits")


def test_lengths_are_counted_and_go_into_a_preflight_as_they_come(client: Client) -> None:
    answer = client.tokens(lengths=[10, 20, 3000], max_seq_lengths=[2048, 4096])
    assert (answer["documents"], answer["max_seq_length"]["nothing_cut"]) == (3, 3000)
    assert [cut["documents_cut"] for cut in answer["cuts"]] == [1, 0]
    checked = client.preflight(CONFIG, gpu="H100-80GB", tokens=answer)
    assert checked["tokens"] is not None
    assert checked["tokens"]["longest"] == 3000


def test_a_script_of_a_job_is_python(client: Client) -> None:
    answer = client.script(FITS)
    assert answer["filename"].endswith(".py")
    compile(answer["script"], answer["filename"], "exec")
    assert MODEL in answer["script"]


def test_what_is_known_is_listed(client: Client) -> None:
    assert MODEL in {name for model in client.models() for name in (model["id"], *model["aliases"])}
    assert "H100-80GB" in {gpu["name"] for gpu in client.gpus()}
    name = client.tiers()[0]["name"]
    assert client.tier(name)["evidence"] is not None
    with pytest.raises(NotFound):
        client.tier("no such tier")


def test_the_service_says_that_it_lives_can_plan_and_what_it_has_done(client: Client) -> None:
    assert client.health() == {"status": "ok", "version": ctxplan.__version__}
    assert client.ready()["status"] == "ready"
    assert "ctxplan_http_requests_total" in client.metrics()


def test_a_calibration_is_fitted_compared_activated_and_rolled_back(
    client: Client, measurements: list[dict[str, Any]]
) -> None:
    with pytest.raises(Conflict, match="nothing"):
        client.roll_back_calibration()
    made = client.fit_calibration(measurements)
    assert made["new"]
    assert not client.fit_calibration(measurements)["new"]
    page = client.calibrations(limit=1)
    assert [one["id"] for one in page["items"]] == [made["id"]]
    assert client.calibrations(after=page["next"])["items"][-1]["shipped"]
    assert client.calibration(made["id"])["points"] == made["points"]
    assert client.compare_calibrations("shipped", made["id"])["after"]["id"] == made["id"]
    try:
        assert client.activate_calibration(made["id"], why="a test")["activation"]["why"] == "a test"
        assert client.active_calibration()["id"] == made["id"]
        assert client.estimate(FITS).calibration["id"] == made["id"]
    finally:
        back = client.roll_back_calibration(why="enough")
    assert (back["activation"]["id"], back["activation"]["why"]) == ("shipped", "enough")
    with pytest.raises(NotFound):
        client.calibration("ffff")


async def test_the_async_client_gives_the_same_answers(address: str) -> None:
    async with AsyncClient(address, retries=0) as client:
        assert (await client.estimate(FITS)).to_json() == HERE.estimate(FITS).to_json()
        assert (await client.max_context(FITS)).safe == HERE.max_context(FITS).safe
        assert (await client.preflight(FITS, tool="job"))["verdict"] == "fits"
        assert (await client.tokens(lengths=[1]))["documents"] == 1
        with pytest.raises(RefusedInput, match="unknown-gpu"):
            await client.estimate({**FITS, "gpu": "H1000"})


def test_a_service_that_is_not_there_is_unreachable_and_was_asked_again() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: whoever connects is refused
        waits: list[float] = []
        client = Client(
            f"http://127.0.0.1:{taken.getsockname()[1]}", retries=Retries(most=2), sleep=waits.append, timeout=5
        )
        with client, pytest.raises(Unreachable) as raised:
            client.estimate(FITS)
    assert (len(waits), raised.value.exit_code) == (2, 4)


def test_a_service_that_does_not_answer_in_time_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.05)
        with client, pytest.raises(Unreachable):
            client.estimate(FITS)


def test_the_python_of_the_manual_runs(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, _, second = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "client.md").read_text(encoding="utf-8"), re.DOTALL
    )
    exec(first.replace("http://127.0.0.1:8000", address), {})  # noqa: S102 - our own manual
    verdict, peak, longest = capsys.readouterr().out.split()
    assert verdict in ("fits", "does_not_fit", "uncertain")
    assert int(peak) > int(longest) > 0
    with pytest.raises(SystemExit) as left:
        exec(second.replace("http://127.0.0.1:8000", address), {})  # noqa: S102
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("r: ")
