"""What the database and the disk say when it is over: whether anything was lost, and whether anything counts twice."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from app.database import Database
from app.queue.states import EventKind, State
from app.queue.tables import EVENTS, JOBS, LATE_RESULTS, MEASUREMENTS
from benchmarks.chaos.plan import Kind
from benchmarks.chaos.process import ROOT
from benchmarks.chaos.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the database has.

    Attributes:
        jobs: state by id. events: how many of each kind. measurements: rows of job, point's digest and document, and
            late results the same without a digest.
    """

    jobs: Mapping[int, str]
    events: Mapping[str, int]
    measurements: Sequence[Any]
    late: Sequence[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a run came to.

    Attributes:
        figures: what is told of it, in the order of the table. findings: what must not be.
    """

    database: str
    figures: Mapping[str, int]
    findings: tuple[str, ...]


def judge(world: World, *, seconds: float) -> Verdict:
    """Audit the database, and hold it to what was really measured and to what lies on the workers' disks."""
    audited = _audit(world.database_url)
    kept = asyncio.run(_read(world.database_url))
    findings = [f"audit: {one}" for one in audited["findings"]]
    findings += _lost(world, kept)
    findings += _made_up(world, kept)
    findings += _left_behind(world, kept)
    findings += _faults_of_ours(world)
    return Verdict(
        database=world.setup.database, figures=_figures(world, kept, audited, seconds), findings=tuple(findings)
    )


def is_real(document: Mapping[str, Any]) -> bool:
    """Whether a measurement is of a model that was trained in earnest."""
    return isinstance(document["job"]["model"], dict)


def _lost(world: World, kept: Kept) -> Iterator[str]:
    """Every job that was submitted is there, once, and has its one result."""
    if sorted(world.submitted) != sorted(kept.jobs) or len(set(world.submitted)) != world.setup.jobs:
        yield f"{len(set(world.submitted))} jobs were answered for, and {len(kept.jobs)} are there"
    for job, state in kept.jobs.items():
        if state != State.SUCCEEDED:
            yield f"job {job} is {state}"
    of_jobs = Counter(row.job_id for row in kept.measurements)
    if set(of_jobs) != set(kept.jobs) or set(of_jobs.values()) != {1}:
        yield f"{len(kept.measurements)} results for {len(kept.jobs)} jobs"


def _made_up(world: World, kept: Kept) -> Iterator[str]:
    """Every result that counts was really measured, for its own point, and counts once."""
    ledger = {file.name: file.read_text(encoding="utf-8") for file in world.ledger.iterdir()}
    marks = Counter[str]()
    for row in kept.measurements:
        document = row.document
        if is_real(document):
            if document["outcome"] == "ok" and not all(step["loss"] for step in document["steps"]):
                yield f"job {row.job_id} was trained without a loss"
        elif document["outcome"] == "ok":
            mark = document["detail"]
            marks[mark] += 1
            if ledger.get(mark) != row.point_digest:
                yield f"job {row.job_id} has a result that was not measured for it"
    yield from (f"{mark} counts {times} times" for mark, times in marks.items() if times > 1)


def _left_behind(world: World, kept: Kept) -> Iterator[str]:
    """No worker keeps a result that it has not sent. What it was refused came too late, and the service has it."""
    late = {json.dumps(row.document, sort_keys=True) for row in kept.late}
    for worker in world.workers:
        for name in ("results", "running"):
            if files := worker.files(name):
                yield f"{worker.name} still has {len(files)} of {name}"
        for file in worker.files("refused"):
            refused = json.loads(file.read_bytes())
            if refused["answer"].get("code") != "lease-lost":
                yield f"{worker.name} was refused: {refused['answer']}"
            elif json.dumps(refused["document"], sort_keys=True) not in late:
                yield f"{worker.name} had a late result of job {refused['job']}, which is not kept"


def _faults_of_ours(world: World) -> Iterator[str]:
    """What failed was expected to: nothing that runs has ended in an error that it has no words for."""
    for one in (*world.services, *world.workers):
        said = one.said()
        if "Traceback" in said or "internal-error" in said:
            place = said.rfind("Traceback")
            yield f"{one.log.name} has a fault of ours: {said[max(0, place - 500) : place + 3000]}"


def _figures(world: World, kept: Kept, audited: Mapping[str, Any], seconds: float) -> dict[str, int]:
    said = "\n".join(worker.said() for worker in world.workers)
    real = [row for row in kept.measurements if is_real(row.document)]
    return {
        "services": len(world.services),
        "workers": len(world.workers),
        JOBS_DONE: len(kept.measurements),
        REAL: sum(row.document["outcome"] == "ok" for row in real),
        **{NAMES[kind]: world.struck[kind] for kind in Kind},
        RESENT: world.resent,
        "leases given": kept.events.get(EventKind.LEASED, 0),
        RAN_OUT: kept.events.get(EventKind.LEASE_LOST, 0),
        FAILED: kept.events.get(EventKind.ATTEMPT_FAILED, 0),
        AGAIN: said.count(": duplicate"),
        LATE: len(kept.late),
        "jobs that failed with their evidence, and were tried again": kept.events.get(EventKind.RETRIED, 0),
        "seconds": round(seconds),
        "events that the audit read": audited["events"],
        FINDINGS: len(audited["findings"]),
    }


JOBS_DONE = "jobs, each with one result that counts"
REAL = "of these trained in earnest, on Unsloth's CPU backend"
RESENT = "answers to a submission lost, and it sent again"
RAN_OUT = "leases that ran out"
FAILED = "attempts that gave no result"
AGAIN = "results sent again, and counted once"
LATE = "results that came late, kept and not counted"
FINDINGS = "findings"
CAME_OF_IT = (RESENT, RAN_OUT, FAILED, AGAIN, LATE)
"""What all the faults together cannot but lead to."""
NAMES: Mapping[Kind, str] = {
    Kind.KILL_WORKER: "workers killed over a point",
    Kind.KILL_PROBE: "probes killed, or the processes that watch them",
    Kind.KILL_SERVER: "a service killed",
    Kind.KILL_IN_REQUEST: "a service killed while it took a result",
    Kind.FREEZE_WORKER: "workers frozen until their lease was over",
    Kind.DRAIN_WORKER: "workers asked to leave",
    Kind.LOSE_RESULT: "answers to a result lost after the commit",
    Kind.LOSE_LEASE: "answers with a lease lost after the commit",
    Kind.FILL_SPOOL: "a worker's disk full",
    Kind.FILL_DATABASE: "a service's disk full",
    Kind.RESTART_DATABASE: "PostgreSQL restarted",
}


def _audit(url: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "app.queue.audit", url], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def _read(url: str) -> Kept:
    database = Database(url)
    try:
        async with database.read(snapshot=True) as connection:
            jobs = await connection.execute(select(JOBS.c.id, JOBS.c.state))
            events = await connection.execute(select(EVENTS.c.kind, func.count().label("n")).group_by(EVENTS.c.kind))
            rows = await connection.execute(
                select(MEASUREMENTS.c.job_id, MEASUREMENTS.c.point_digest, MEASUREMENTS.c.document)
            )
            late = await connection.execute(select(LATE_RESULTS.c.job_id, LATE_RESULTS.c.document))
            return Kept(
                jobs={row.id: row.state for row in jobs},
                events={row.kind: row.n for row in events},
                measurements=rows.all(),
                late=late.all(),
            )
    finally:
        await database.dispose()
