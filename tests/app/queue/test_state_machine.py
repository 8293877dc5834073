"""The lease store against a model of it, under every order of what workers, operators and clocks may do.

Worth its half minute: it is the proof that no order of events counts a result twice or leaves a job behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from app.database import Database
from app.queue import IdempotencyConflict, JobRequest, JobStateConflict, Lease, LeaseLost, State, Submission
from app.queue.audit import audit
from app.queue.states import FINAL, RETRIABLE
from app.queue.tables import LATE_RESULTS, MEASUREMENTS
from tests.app.database.servers import remove_rows
from tests.app.queue.helpers import LEASE, Clock, Queue, job, worker
from tests.app.queue.model import MAX_LOSSES, Model, ModelJob, seen_of

CARDS = ("H100-80GB", "L4-24GB")
ASKED = st.builds(
    job,
    gpu=st.sampled_from([None, *CARDS]),
    priority=st.integers(-1, 1),
    max_attempts=st.integers(1, 3),
    expires_in=st.sampled_from([None, None, timedelta(seconds=30), timedelta(hours=1)]),
)
ANY = st.integers(min_value=0, max_value=10**6)
T = TypeVar("T")


class LeaseMachine(RuleBasedStateMachine):
    """One database, one clock, workers that may forget, stall and come back, and a server that may restart."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.url = url
        self.clock = Clock()
        self.model = Model()
        self.leases: list[Lease] = []
        self.submissions: dict[str, tuple[Submission, tuple[int, ...]]] = {}
        self.epochs: dict[int, int] = {}
        self.start()
        self.run(remove_rows(self.queue.database))

    def start(self) -> None:
        self.queue = Queue(Database(self.url, pool_size=2), clock=self.clock, max_losses=MAX_LOSSES)
        self.store = self.queue.store

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(doing)

    @rule(asked=st.lists(ASKED, min_size=1, max_size=3), key=st.sampled_from([None, None, "k1", "k2"]))
    def submit(self, asked: list[JobRequest], key: str | None) -> None:
        submission = Submission(submitter="me", jobs=tuple(asked), idempotency_key=key)
        before = self.submissions.get(key) if key else None
        try:
            done = self.run(self.store.submit(submission))
        except IdempotencyConflict:
            assert before is not None
            assert before[0].jobs != submission.jobs
            return
        if before is not None:
            assert (done.replayed, done.job_ids, submission.jobs) == (True, before[1], before[0].jobs)
            return
        assert not done.replayed
        for job_id, one in zip(done.job_ids, asked, strict=True):
            self.model.add(job_id, one, self.clock.now)
        if key:
            self.submissions[key] = (submission, done.job_ids)

    @rule(card=st.sampled_from(CARDS), name=st.sampled_from(["a", "b", "c"]), after=st.sampled_from([0, 0, 30]))
    def claim(self, card: str, name: str, after: int = 0) -> None:
        self.clock.move(after)
        expected = self.model.best(card, self.clock.now)
        lease = self.run(self.store.claim(worker(name, gpu=card)))
        assert (lease.key.job_id if lease else None) == (expected.id if expected else None)
        if lease is not None and expected is not None:
            expected.lease(name, self.clock.now)
            assert (lease.key.epoch, lease.attempt) == (expected.epoch, expected.attempts)
            self.leases.append(lease)

    @precondition(lambda self: self.leases)
    @rule(pick=ANY)
    def renew(self, pick: int) -> None:
        lease, of = self.pick(pick)
        if self.goes_through(lease, of, self.store.renew(lease.key)):
            of.renew(self.clock.now)

    @precondition(lambda self: self.leases)
    @rule(pick=ANY, number=st.integers(0, 1))
    def complete(self, pick: int, number: int) -> None:
        lease, of = self.pick(pick)
        document = {"outcome": "out_of_memory", "number": number}
        replayed = of.accepted == (lease.key.epoch, document)
        held = of.holds(lease.key.epoch, self.clock.now)
        try:
            accepted = self.run(self.store.complete(lease.key, document))
        except LeaseLost as lost:
            kept = lost.kept
        else:
            assert held or replayed
            assert accepted.replayed is replayed
            if held:
                of.succeed(document)
            return
        assert not held
        assert not replayed
        assert kept == (lease.key.epoch not in of.late)
        of.late.setdefault(lease.key.epoch, document)

    @precondition(lambda self: self.leases)
    @rule(pick=ANY, retriable=st.booleans())
    def fail(self, pick: int, retriable: bool) -> None:
        lease, of = self.pick(pick)
        if self.goes_through(lease, of, self.store.fail(lease.key, "crashed", retriable=retriable)):
            of.fail(retriable)

    @precondition(lambda self: self.leases)
    @rule(pick=ANY)
    def give_back(self, pick: int) -> None:
        lease, of = self.pick(pick)
        if self.goes_through(lease, of, self.store.give_back(lease.key)):
            of.give_back()

    @precondition(lambda self: self.leases)
    @rule(pick=ANY)
    def crash(self, pick: int) -> None:
        """A worker dies: nobody will ever show this lease again."""
        self.leases.pop(pick % len(self.leases))

    # What is rare when every step is drawn by itself, and matters most.

    @rule(card=st.sampled_from(CARDS))
    def fall_silent(self, card: str) -> None:
        self.claim(card, "dies")
        self.time_passes(LEASE)
        self.sweep()

    @precondition(lambda self: self.leases)
    @rule(pick=ANY, how=st.sampled_from(["renew", "complete", "fail", "give_back"]))
    def stall(self, pick: int, how: str) -> None:
        self.time_passes(LEASE)
        if how == "complete":
            self.complete(pick, 0)
        elif how == "fail":
            self.fail(pick, True)
        else:
            getattr(self, how)(pick)

    @precondition(lambda self: self.model.jobs)
    @rule(pick=ANY)
    def cancel(self, pick: int) -> None:
        of = self.pick_job(pick)
        try:
            self.run(self.store.cancel(of.id))
        except JobStateConflict:
            assert of.state in FINAL - {State.CANCELLED}
        else:
            assert of.state not in FINAL - {State.CANCELLED}
            of.leave(State.CANCELLED)

    @precondition(lambda self: self.model.jobs)
    @rule(pick=ANY)
    def retry(self, pick: int) -> None:
        of = self.pick_job(pick)
        try:
            self.run(self.store.retry(of.id))
        except JobStateConflict:
            assert of.state not in RETRIABLE
        else:
            assert of.state in RETRIABLE
            of.retry()

    @rule()
    def sweep(self) -> None:
        self.run(self.store.sweep())
        self.model.sweep(self.clock.now)

    @rule(seconds=st.sampled_from([1, LEASE // 2, LEASE, 20 * LEASE]))
    def time_passes(self, seconds: int) -> None:
        self.clock.move(seconds)

    @rule(seconds=st.sampled_from([1, LEASE, 100 * LEASE]))
    def clock_is_set_back(self, seconds: int) -> None:
        self.clock.move(-seconds)

    @rule()
    def restart(self) -> None:
        self.run(self.queue.database.dispose())
        self.start()

    @invariant()
    def every_job_is_as_the_model_says_and_epochs_only_grow(self) -> None:
        views = self.run(self.store.list(limit=500)).items
        assert {view.id: seen_of(view) for view in views} == {of.id: of.seen() for of in self.model.jobs.values()}
        epochs = {view.id: view.epoch for view in views}
        assert all(epochs[job_id] >= epoch for job_id, epoch in self.epochs.items())
        self.epochs = epochs

    @invariant()
    def a_job_has_at_most_one_result_and_it_is_the_one_that_was_accepted(self) -> None:
        kept = sorted((row.job_id, row.epoch, str(row.document)) for row in self.run(self.rows(MEASUREMENTS)))
        accepted = {of.id: of.accepted for of in self.model.jobs.values() if of.accepted}
        assert kept == sorted((job_id, epoch, str(document)) for job_id, (epoch, document) in accepted.items())
        late = sorted((row.job_id, row.epoch, str(row.document)) for row in self.run(self.rows(LATE_RESULTS)))
        jobs = self.model.jobs.values()
        assert late == sorted((of.id, epoch, str(document)) for of in jobs for epoch, document in of.late.items())

    @invariant()
    def the_history_explains_everything(self) -> None:
        assert self.run(audit(self.queue.database)).findings == ()

    def teardown(self) -> None:
        """Nothing is stuck: a term and a sweep later no lease of a silent worker is left, wherever the clock stood."""
        try:
            self.run(self.store.sweep())
            self.clock.move(LEASE)
            self.run(self.store.sweep())
            states = {view.state for view in self.run(self.store.list(limit=500)).items}
            assert State.LEASED not in states
            assert self.run(audit(self.queue.database)).findings == ()
        finally:
            self.run(remove_rows(self.queue.database))
            self.run(self.queue.database.dispose())
            self.runner.close()

    def pick(self, number: int) -> tuple[Lease, ModelJob]:
        lease = self.leases[number % len(self.leases)]
        return lease, self.model.jobs[lease.key.job_id]

    def pick_job(self, number: int) -> ModelJob:
        ids = sorted(self.model.jobs)
        return self.model.jobs[ids[number % len(ids)]]

    def goes_through(self, lease: Lease, of: ModelJob, doing: Coroutine[Any, Any, Any]) -> bool:
        held = of.holds(lease.key.epoch, self.clock.now)
        try:
            self.run(doing)
        except LeaseLost:
            assert not held
            return False
        assert held
        return True

    async def rows(self, table: Any) -> list[Any]:
        async with self.queue.database.read() as connection:
            return list((await connection.execute(select(table))).all())


def test_the_queue_does_what_its_model_does_in_every_order(database_url: str) -> None:
    class OnThisDatabase(LeaseMachine):
        def __init__(self) -> None:
            super().__init__(database_url)

    run_state_machine_as_test(
        OnThisDatabase,
        settings=settings(
            max_examples=25,
            derandomize=True,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
