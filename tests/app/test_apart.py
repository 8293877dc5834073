"""Work in a process of its own: the same answers and errors as in a thread, whatever befalls the process."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app import apart
from app.admission import Overloaded
from app.apart import Apart
from app.apart_child import NoProcess, WorkFailed
from app.apart_process import HEAD
from app.logs import make_logger
from app.main import create_app
from app.metrics import Metrics
from app.settings import Settings
from ctxplan import Planner
from estimator.errors import CtxplanError
from tests.app import odd_work
from tests.app.jobs import CONFIG, DOES_NOT_FIT, FITS, MODEL, WRONG_JOBS
from tests.probes.common import alive, wait_for

ROOT = Path(__file__).resolve().parents[2]
YAML = (
    "base_model: unsloth/Llama-3.2-1B-Instruct\nadapter: qlora\nload_in_4bit: true\nsequence_len: 2048\n"
    "lora_r: 16\nlora_target_linear: true\n"
)
PREFLIGHTS: tuple[dict[str, Any], ...] = (
    {"config": json.dumps(FITS), "file": "job.json"},
    {"config": json.dumps(DOES_NOT_FIT), "file": "job.json"},
    {"config": YAML, "file": "axolotl.yml", "gpu": "RTX-4090-24GB"},
    {"config": YAML + "lora_target_modules: 7\n", "file": "axolotl.yml"},
    {"config": YAML.replace("unsloth/Llama-3.2-1B-Instruct", "nobody/nothing"), "file": "axolotl.yml"},
)


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[TestClient, TestClient]]:
    """The same service with a process, and without one."""

    def made(processes: int) -> TestClient:
        return TestClient(create_app(Settings(allow_hub=False, log_level="error", planning_processes=processes)))

    with made(1) as with_one, made(0) as without:
        yield with_one, without


def same(both: tuple[TestClient, TestClient], method: str, path: str, body: Any = None) -> Any:
    content = None if body is None else json.dumps(body)
    headers = {"x-request-id": "a", "content-type": "application/json"}
    first, second = (client.request(method, path, content=content, headers=headers) for client in both)
    assert (first.status_code, first.content) == (second.status_code, second.content)
    return first


@pytest.mark.parametrize("job", [FITS, DOES_NOT_FIT, {"model": CONFIG}, {"model": MODEL, "mode": "generate"}])
def test_a_plan_is_the_same_wherever_it_is_made(both: tuple[TestClient, TestClient], job: Any) -> None:
    assert same(both, "POST", "/v1/plans", job).status_code == 200


@pytest.mark.parametrize("path", ["/", "/page/answer", "/page/more", "/planner.json"])
@pytest.mark.parametrize("query", [f"model={MODEL}&max_seq_length=4096", "model=nobody/nothing", "gpu=none"])
def test_so_is_a_page(both: tuple[TestClient, TestClient], path: str, query: str) -> None:
    found = same(both, "GET", f"{path}?{query}")
    alone = path.startswith("/page")  # which answers a question that cannot be answered too
    assert found.status_code == (200 if alone or "4096" in query else 422)


@pytest.mark.parametrize(("body", "status"), list(zip(PREFLIGHTS, (200, 200, 200, 422, 422), strict=True)))
def test_so_is_a_preflight(both: tuple[TestClient, TestClient], body: dict[str, Any], status: int) -> None:
    assert same(both, "POST", "/v1/preflight", body).status_code == status


@pytest.mark.parametrize("name", WRONG_JOBS)
def test_so_is_a_refusal(both: tuple[TestClient, TestClient], name: str) -> None:
    assert same(both, "POST", "/v1/plans", WRONG_JOBS[name][0]).status_code >= 400


@asynccontextmanager
async def running(planner: Planner | None = None, **settings: Any) -> AsyncIterator[Apart]:
    planner = planner or Planner(offline=True)
    log = make_logger("warning")
    one = Apart(planner, **{"processes": 1, "max_waiting": 4, "metrics": Metrics(), "log": log, **settings})
    async with one.running():
        yield one


async def test_a_process_that_was_killed_is_replaced_before_anybody_is_told() -> None:
    async with running() as one:
        before = await one.do(odd_work.pid)
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: not alive(before), "it is gone")
        after = await one.do(odd_work.pid)
        assert after not in (before, os.getpid())


async def test_one_that_dies_over_its_work_fails_it_and_is_replaced() -> None:
    async with running() as one:
        for _ in range(2):
            with pytest.raises(WorkFailed, match="its process is gone"):
                await one.do(odd_work.die)
        assert await one.do(odd_work.talkative) == "the answer"


async def test_what_fails_unexpectedly_comes_with_its_traceback_and_costs_no_process() -> None:
    async with running() as one:
        before = await one.do(odd_work.pid)
        with pytest.raises(WorkFailed, match=r"(?s)Traceback.*in fail.*ValueError: this is why"):
            await one.do(odd_work.fail, why="this is why")
        assert await one.do(odd_work.pid) == before


async def test_work_without_an_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as one:
        before = await one.do(odd_work.pid)
        with monkeypatch.context() as patch:
            patch.setattr(apart, "LONGEST_SECONDS", 0.05)
            with pytest.raises(WorkFailed, match="longer than"):
                await one.do(odd_work.sleep, 600)
        assert not alive(before)
        assert await one.do(odd_work.talkative) == "the answer"


async def busy(one: Apart, work: Callable[..., Any], *given: Any) -> asyncio.Task[Any]:
    """Somebody who has a process to himself."""
    asked = asyncio.create_task(one.do(work, *given))
    while not one._turns.are_all_taken:
        await asyncio.sleep(0.01)
    return asked


async def test_what_has_begun_is_done_though_who_asked_gives_up(tmp_path: Path) -> None:
    async with running() as one:
        before = await one.do(odd_work.pid)
        asked = await busy(one, odd_work.write_later, tmp_path / "done", 0.3)
        asked.cancel()
        assert not (tmp_path / "done").exists()
        assert await one.do(odd_work.pid) == before
        assert (tmp_path / "done").exists()
        assert asked.cancelled()


async def test_who_gives_up_before_it_has_begun_leaves_its_place_to_others(tmp_path: Path) -> None:
    async with running(max_waiting=1) as one:
        first = await busy(one, odd_work.sleep, 0.5)
        given_up = asyncio.create_task(one.do(odd_work.write_later, tmp_path / "done", 0))
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded):
            await one.do(odd_work.pid)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert await one.do(odd_work.talkative) == "the answer"
        await first
        assert not (tmp_path / "done").exists()


async def test_what_is_worked_on_for_nobody_keeps_no_service_from_stopping(capfd: pytest.CaptureFixture[str]) -> None:
    async with running() as one:
        before = await one.do(odd_work.pid)
        asked = await busy(one, odd_work.sleep, 600)
        asked.cancel()
        await asyncio.sleep(0.05)
    assert not alive(before)
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert "its process is gone" in capfd.readouterr().err


async def test_a_process_that_is_lost_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    async with running(metrics=metrics) as one:
        with pytest.raises(WorkFailed):
            await one.do(odd_work.die)
        monkeypatch.setattr(apart, "LONGEST_SECONDS", 0.05)
        with pytest.raises(WorkFailed):
            await one.do(odd_work.sleep, 600)
    assert "ctxplan_planning_processes_lost_total 2.0" in metrics.text().decode()


async def test_it_is_able_while_it_works_and_while_it_could(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as one:
        asked = await busy(one, odd_work.sleep, 0.3)
        assert await one.is_able()
        await asked
        assert await one.is_able()
        with pytest.raises(WorkFailed):
            await one.do(odd_work.die)
        monkeypatch.setattr("app.children.command_of", lambda _: ["/nothing/here"])
        assert not await one.is_able()
        with pytest.raises(NoProcess):
            await one.do(odd_work.pid)


def test_a_service_without_its_processes_says_that_it_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("app.children.command_of", lambda _: ["/nothing/here"])
        settings = Settings(allow_hub=False, log_level="error", planning_processes=1)
        with TestClient(create_app(settings)) as client:
            for answer in (client.get("/readyz"), client.post("/v1/plans", json=FITS)):
                assert (answer.status_code, answer.json()["code"]) == (503, "not-ready")
            assert answer.headers["retry-after"] == "1"
            assert client.post("/v1/estimates", json=FITS).status_code == 200
            patch.undo()
            assert client.get("/readyz").status_code == 200
            assert client.post("/v1/plans", json=FITS).status_code == 200


async def test_what_a_process_says_is_a_line_of_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    async with running(log=make_logger("warning")) as one:
        assert await one.do(odd_work.talkative) == "the answer"
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["line"] for line in lines if line["event"] == "a planning process said"] == ["what no answer is"]


async def test_what_would_wait_behind_too_many_is_refused_and_the_rest_is_done() -> None:
    async with running(max_waiting=1) as one:
        tasks = [await busy(one, odd_work.sleep, 0.5)]
        tasks.append(asyncio.create_task(one.do(odd_work.sleep, 0)))
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded):
            await one.do(odd_work.sleep, 0)
        await asyncio.gather(*tasks)


async def test_several_work_at_once() -> None:
    async with running(processes=2) as one:
        pids = await asyncio.gather(*(one.do(odd_work.pid) for _ in range(2)))
        assert len(set(pids)) == 2


async def test_a_calibration_takes_effect_with_the_next_work() -> None:
    planner = Planner(offline=True)
    async with running(planner) as one:
        assert await one.do(odd_work.calibration) == planner.calibration
        planner.calibration = replace(planner.calibration, points=planner.calibration.points + 1)
        assert await one.do(odd_work.calibration) == planner.calibration


async def test_it_has_no_secret_and_looks_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTXPLAN_DATABASE_URL", "postgresql+psycopg://me:hunter2@db/x")
    secrets = ("HF_TOKEN", "ctxplan_keys_secret", "PGPASSWORD", "OTEL_EXPORTER_OTLP_HEADERS", "AWS_SECRET_ACCESS_KEY")
    for name in secrets:
        monkeypatch.setenv(name, "hunter2")
    async with running() as one:
        found = await one.do(odd_work.environment)
        assert not {*secrets, "CTXPLAN_DATABASE_URL"} & set(found)
        assert "PATH" in found
        for name in ("somebody/unknown", str(ROOT)):
            with pytest.raises(CtxplanError) as caught:
                await one.do(Planner.facts, name)
            assert caught.value.key == "model"


async def test_a_signal_to_all_of_the_services_processes_leaves_the_work_to_be_finished() -> None:
    async with running() as one:
        before = await one.do(odd_work.pid)
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(before, number)
        assert await one.do(odd_work.pid) == before
    assert not alive(before)


def test_it_ends_with_a_service_that_was_killed() -> None:
    program = (
        "import asyncio\n"
        "from app.apart import Apart\n"
        "from app.logs import make_logger\n"
        "from app.metrics import Metrics\n"
        "from ctxplan import Planner\n"
        "from tests.app import odd_work\n"
        "async def main():\n"
        "    log = make_logger('warning')\n"
        "    one = Apart(Planner(offline=True), processes=1, max_waiting=1, metrics=Metrics(), log=log)\n"
        "    async with one.running():\n"
        "        print(await one.do(odd_work.pid), flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert alive(child)
        process.kill()
        wait_for(lambda: not alive(child), "its process has ended as well")


async def test_what_lies_where_the_service_was_started_is_not_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "app").mkdir()
    for name in ("app/__init__.py", "pickle.py"):
        (tmp_path / name).write_text("raise SystemExit('a stranger')")
    monkeypatch.chdir(tmp_path)
    async with running() as one:
        assert await one.do(odd_work.pid) != os.getpid()


async def test_after_an_order_that_cannot_be_read_the_calibration_is_told_again() -> None:
    planner = Planner(offline=True)
    async with running(planner) as one:
        await one.do(odd_work.calibration)
        planner.calibration = replace(planner.calibration, points=7)
        with pytest.raises(WorkFailed):
            await one.do(odd_work.given, odd_work.Unreadable())
        assert (await one.do(odd_work.calibration)).points == 7


def test_work_without_an_end_ends_though_nobody_is_left_to_end_it() -> None:
    program = "import app.apart_process as one; one.MOST_SECONDS = 1; one.main()"
    order = pickle.dumps((None, odd_work.sleep, (60,), {}))
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        process.stdin.write(HEAD.pack(len(order)) + order)
        process.stdin.flush()
        assert process.wait(30) == -signal.SIGALRM
