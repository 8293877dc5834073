"""The queue as one would write it without a database: what the state machine holds the real one to."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from app.queue import JobRequest, JobView, State
from tests.app.queue.helpers import LEASE

MAX_LOSSES = 2
TERM = timedelta(seconds=LEASE)


@dataclass(kw_only=True)
class ModelJob:
    """A job: what a test may know of it."""

    id: int
    gpu: str | None
    priority: int
    max_attempts: int
    deadline: datetime | None
    state: State = State.QUEUED
    epoch: int = 0
    attempts: int = 0
    losses: int = 0
    worker: str | None = None
    renewed: datetime | None = None
    until: datetime | None = None
    accepted: tuple[int, Any] | None = None
    late: dict[int, Any] = field(default_factory=dict)

    def seen(self) -> tuple[Any, ...]:
        return (self.state, self.epoch, self.attempts, self.losses, self.until, self.deadline, self.worker)

    def holds(self, epoch: int, now: datetime) -> bool:
        return self.state is State.LEASED and self.epoch == epoch and self.until is not None and self.until > now

    def lease(self, worker: str, now: datetime) -> None:
        self.state, self.worker = State.LEASED, worker
        self.epoch += 1
        self.attempts += 1
        self.renewed, self.until = now, now + TERM

    def renew(self, now: datetime) -> None:
        self.renewed, self.until = now, now + TERM

    def succeed(self, document: Any) -> None:
        self.state, self.until = State.SUCCEEDED, None
        self.accepted = (self.epoch, document)

    def leave(self, state: State) -> None:
        self.state, self.worker, self.renewed, self.until = state, None, None, None

    def fail(self, retriable: bool) -> None:
        self.leave(State.QUEUED if retriable and self.attempts < self.max_attempts else State.FAILED)

    def give_back(self) -> None:
        self.attempts -= 1
        self.leave(State.QUEUED)

    def retry(self) -> None:
        self.attempts = self.losses = 0
        self.deadline = None
        self.leave(State.QUEUED)

    def sweep(self, now: datetime) -> None:
        if self.state is State.LEASED:
            assert self.until is not None
            assert self.renewed is not None
            if self.until > now and self.renewed > now:
                self.renew(now)
            if self.until <= now:
                self.losses += 1
                used_up = self.losses >= MAX_LOSSES or self.attempts >= self.max_attempts
                self.leave(State.FAILED if used_up else State.QUEUED)
        if self.state is State.QUEUED and self.deadline is not None and self.deadline <= now:
            self.leave(State.EXPIRED)


class Model:
    """All jobs."""

    def __init__(self) -> None:
        self.jobs: dict[int, ModelJob] = {}

    def add(self, job_id: int, asked: JobRequest, now: datetime) -> None:
        self.jobs[job_id] = ModelJob(
            id=job_id,
            gpu=asked.gpu,
            priority=asked.priority,
            max_attempts=asked.max_attempts,
            deadline=None if asked.expires_in is None else now + asked.expires_in,
        )

    def best(self, gpu: str, now: datetime) -> ModelJob | None:
        """What a worker with this card is given."""
        fitting = [
            job
            for job in self.jobs.values()
            if job.state is State.QUEUED and job.gpu in (None, gpu) and (job.deadline is None or job.deadline > now)
        ]
        return min(fitting, key=lambda job: (-job.priority, job.id), default=None)

    def sweep(self, now: datetime) -> None:
        for job in self.jobs.values():
            job.sweep(now)


def seen_of(view: JobView) -> tuple[Any, ...]:
    """The same of a real job as `ModelJob.seen`."""
    return (
        view.state,
        view.epoch,
        view.attempts,
        view.losses,
        view.lease_expires_at,
        view.expires_at,
        view.worker,
    )
