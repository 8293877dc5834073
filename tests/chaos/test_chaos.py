"""The queue under everything that can happen to it, in small: real processes, for seconds that nothing less can show.
`make chaos` is the same at full size."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from sqlalchemy import insert

from app.database import Database, migrate
from app.listen import listen
from app.queue.tables import CAMPAIGNS
from benchmarks.chaos import report, verdict
from benchmarks.chaos.plan import Kind, faults_of, kinds_on
from benchmarks.chaos.points import points_of
from benchmarks.chaos.proxy import Proxy
from benchmarks.chaos.run import run
from benchmarks.chaos.verdict import NAMES, Kept, Verdict
from benchmarks.chaos.world import Setup, held_ports
from probes.points import parse_points

PLAN = {"seed": 3, "jobs": 200, "workers": 4}


@pytest.mark.timeout(280)
def test_nothing_is_lost_and_nothing_counts_twice_whatever_happens(tmp_path: Path) -> None:
    said: list[str] = []
    found = run(Setup(jobs=12, real=0, workers=3, seed=2), tmp_path, said.append)
    assert found.findings == (), said
    assert found.figures[verdict.JOBS_DONE] == 12
    for kind in kinds_on(sqlite=True):
        assert found.figures[NAMES[kind]] >= 1, (kind, said)


@pytest.mark.timeout(280)
@pytest.mark.slow
def test_a_database_that_crashes_under_load_loses_nothing_either(tmp_path: Path) -> None:
    only = frozenset({Kind.RESTART_DATABASE, Kind.KILL_SERVER, Kind.LOSE_RESULT})
    setup = Setup(jobs=8, real=0, workers=2, seed=1, database="PostgreSQL", only=only)
    found = run(setup, tmp_path, print)
    assert found.findings == ()
    assert [found.figures[NAMES[kind]] >= 1 for kind in sorted(only)] == [True] * 3


def test_what_happens_is_the_same_for_the_same_seed_and_spread_over_the_run() -> None:
    kinds = kinds_on(sqlite=True)
    assert faults_of(kinds, **PLAN) == faults_of(sorted(kinds), **PLAN)
    assert faults_of(kinds, **PLAN) != faults_of(kinds, **{**PLAN, "seed": 4})
    faults = faults_of(kinds, **PLAN)
    assert {fault.kind for fault in faults} == kinds
    assert [fault.after for fault in faults] == sorted(fault.after for fault in faults)
    assert 0 < faults[0].after < 20
    assert 150 < faults[-1].after < 190  # those that are trained in earnest are not waited for


@pytest.mark.parametrize(
    ("sqlite", "never"), [(True, {Kind.RESTART_DATABASE}), (False, {Kind.FILL_DATABASE})], ids=["sqlite", "postgresql"]
)
def test_all_that_a_database_allows_happens(sqlite: bool, never: set[Kind]) -> None:
    assert kinds_on(sqlite=sqlite) == frozenset(Kind) - never


def test_every_point_is_one_and_no_two_are_the_same() -> None:
    points = [point for data in points_of(Setup(jobs=40, real=4)) for point in parse_points(data)]
    assert len({point.digest for point in points}) == 40
    assert sum(isinstance(point.job.model, dict) for point in points) == 4


@pytest.fixture
def upstream() -> Iterator[int]:
    """A service that takes every result, and says how many came."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        taken = 0

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            Handler.taken += 1
            body = json.dumps({"taken": Handler.taken}).encode()
            self.send_response(404 if "nothing" in self.path else 201)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_port_of_a_service_is_given_to_nobody_else_also_while_the_service_is_down() -> None:
    with held_ports(3) as ports:
        assert len(set(ports)) == 3
        for port in ports:
            with pytest.raises(OSError, match="in use"), socket.socket() as other:
                other.bind(("127.0.0.1", port))
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
            for _ in range(2):  # one life of the service after another
                with listen("127.0.0.1", port) as service:
                    socket.create_connection(service.getsockname()).close()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", ports[0]))


RESULT, LEASE = "/v1/probe-jobs/7/leases/1/result", "/v1/probe-jobs/leases"


def test_an_answer_is_lost_after_its_request_was_done(upstream: int) -> None:
    with Proxy(upstream) as proxy, httpx.Client(base_url=proxy.url, trust_env=False) as client:
        assert client.post(RESULT, json={}).json() == {"taken": 1}
        proxy.lose("result")
        assert client.post(LEASE, json={}).json() == {"taken": 2}
        with pytest.raises(httpx.RemoteProtocolError):
            client.post(RESULT, json={})
        assert client.post(RESULT, json={}).json() == {"taken": 4}
        assert proxy.lost == {"result": 1}


def test_an_answer_that_refuses_is_not_one_to_lose(upstream: int) -> None:
    with Proxy(upstream) as proxy, httpx.Client(base_url=proxy.url, trust_env=False) as client:
        proxy.lose("lease")
        assert client.post("/nothing", json={}).status_code == 404
        with pytest.raises(httpx.RemoteProtocolError):
            client.post(LEASE, json={})


def test_a_service_that_is_away_is_away_through_the_proxy() -> None:
    with Proxy(1) as proxy, pytest.raises(httpx.TransportError):
        httpx.post(f"{proxy.url}{RESULT}", json={}, trust_env=False)


def row(number: int, mark: str, digest: str = "d", **document: Any) -> Any:
    whole = {"job": {"model": "a/model"}, "outcome": "ok", "detail": mark, **document}
    return SimpleNamespace(job_id=number, point_digest=digest, document=whole)


def judged(tmp_path: Path, kept: Kept, *, submitted: list[int], ledger: dict[str, str]) -> list[str]:
    """What the verdict finds in a world of so many jobs, whose stand-ins wrote that down."""
    (tmp_path / "ledger").mkdir()
    for mark, digest in ledger.items():
        (tmp_path / "ledger" / mark).write_text(digest)
    world: Any = SimpleNamespace(
        submitted=submitted, setup=Setup(jobs=2, real=0), ledger=tmp_path / "ledger", workers=[]
    )
    return [*verdict._lost(world, kept), *verdict._made_up(world, kept)]


SOUND = {"jobs": {1: "succeeded", 2: "succeeded"}, "measurements": [row(1, "a"), row(2, "b")]}


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({}, None),
        ({"jobs": {1: "succeeded"}}, "and 1 are there"),
        ({"jobs": {1: "succeeded", 2: "failed"}}, "job 2 is failed"),
        ({"measurements": [row(1, "a")]}, "1 results for 2 jobs"),
        ({"measurements": [row(1, "a"), row(2, "a")]}, "a counts 2 times"),
        ({"measurements": [row(1, "a"), row(2, "never")]}, "job 2 has a result that was not measured for it"),
        ({"measurements": [row(1, "a"), row(2, "b", digest="x")]}, "job 2 has a result that was not measured for it"),
        (
            {"measurements": [row(1, "a"), row(2, "", job={"model": {}}, steps=[{"loss": None}])]},
            "job 2 was trained without a loss",
        ),
    ],
)
def test_the_verdict_finds_what_must_not_be(tmp_path: Path, changes: dict[str, Any], finding: str | None) -> None:
    kept = Kept(**{**SOUND, "events": {}, "late": [], **changes})
    found = judged(tmp_path, kept, submitted=[1, 2], ledger={"a": "d", "b": "d"})
    assert found == [] if finding is None else any(finding in one for one in found), found


def test_the_verdict_finds_what_a_worker_kept_for_itself(tmp_path: Path) -> None:
    files = {"results": "{}", "refused": json.dumps({"answer": {"code": "lease-lost"}, "job": 3, "document": {"a": 1}})}
    for name, content in files.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.json").write_text(content)
    worker = SimpleNamespace(name="w", files=lambda name: sorted((tmp_path / name).glob("*.json")))
    world: Any = SimpleNamespace(workers=[worker])

    def found(late: list[Any]) -> list[str]:
        return [*verdict._left_behind(world, Kept(jobs={}, events={}, measurements=[], late=late))]

    assert found([]) == ["w still has 1 of results", "w had a late result of job 3, which is not kept"]
    assert found([SimpleNamespace(document={"a": 1})]) == ["w still has 1 of results"]


def test_a_broken_history_is_in_the_verdict(tmp_path: Path) -> None:
    """The audit is the program that operators run, on the database as it is left."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'x.db'}"

    async def broken() -> None:
        database = Database(url)
        await migrate(database)
        async with database.write() as connection:
            started = {"model": "m", "state": "measuring", "points": 2, "created_at": datetime(2026, 1, 1, tzinfo=UTC)}
            await connection.execute(insert(CAMPAIGNS).values(**started))
        await database.dispose()

    asyncio.run(broken())
    assert verdict._audit(url)["findings"][0]["what"] == "campaign 1 has 0 jobs for 2 points"


def figures(**changes: int) -> dict[str, int]:
    names = (verdict.REAL, *NAMES.values(), *verdict.CAME_OF_IT)
    return {verdict.JOBS_DONE: 200, **dict.fromkeys(names, 10), verdict.FINDINGS: 0, **changes}


@pytest.fixture
def manual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "reliability.md"
    file.write_text("before\n<!-- chaos -->\n<!-- /chaos -->\nafter\n")
    monkeypatch.setattr(report, "MANUAL", file)
    return file


def written(**changes: int) -> list[str]:
    """What the check finds in a table of these figures."""
    both = [Verdict(database=name, figures=figures(**changes), findings=()) for name in ("SQLite", "PostgreSQL")]
    report.write(both, seed=1)
    return report.check()


def test_the_table_that_is_written_is_sound(manual: Path) -> None:
    assert report.check() == ["docs/reliability.md has no table of a run on both databases: make chaos"]
    assert written() == []
    assert manual.read_text().startswith("before\n<!-- chaos -->\nSeed 1:\n\n| | SQLite | PostgreSQL |")
    assert manual.read_text().endswith("<!-- /chaos -->\nafter\n")
    assert f"| {NAMES[Kind.RESTART_DATABASE]} | – | 10 |" in manual.read_text()


@pytest.mark.parametrize(
    "changes",
    [
        {verdict.FINDINGS: 1},
        {verdict.JOBS_DONE: 199},
        {verdict.REAL: 9},
        {verdict.LATE: 0},
        {NAMES[Kind.KILL_WORKER]: 0},
        {NAMES[Kind.RESTART_DATABASE]: 0},
    ],
    ids=str,
)
def test_a_table_of_too_little_or_with_a_finding_is_not(manual: Path, changes: dict[str, int]) -> None:
    assert any(name in one for name in changes for one in written(**changes))


def test_the_table_of_the_manual_is_of_a_whole_run_and_clean() -> None:
    assert report.check() == []
