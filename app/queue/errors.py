"""What the queue refuses.

CtxplanError
└── QueueError
    ├── InvalidSubmission     a job, a worker or a document that cannot be taken as it was written
    ├── InvalidCursor         a cursor that no page of this listing gave
    ├── UnknownJob            no job has this id
    ├── UnknownCampaign       no campaign has this id
    ├── UnknownWorker         no worker has this id
    ├── IdempotencyConflict   the key was used with another request
    ├── JobStateConflict      the job, or the campaign, is past what was asked for
    └── LeaseLost             the lease is not the job's, or no longer
"""

from __future__ import annotations

from estimator.errors import CtxplanError


class QueueError(CtxplanError):
    """The queue refuses what was asked; nothing has changed, unless the class says so."""

    code = "queue-error"


class InvalidSubmission(QueueError):
    """A job, a worker or a document that cannot be taken as it was written."""

    code = "invalid-submission"


class InvalidCursor(QueueError):
    """A cursor that no page of this listing gave."""

    code = "invalid-cursor"


class UnknownJob(QueueError):
    """No job has this id."""

    code = "unknown-job"

    def __init__(self, job_id: int) -> None:
        super().__init__(f"there is no job {job_id}", key="job_id")


class UnknownCampaign(QueueError):
    """No campaign has this id."""

    code = "unknown-campaign"

    def __init__(self, campaign_id: int) -> None:
        super().__init__(f"there is no campaign {campaign_id}", key="campaign_id")


class UnknownWorker(QueueError):
    """No worker has this id."""

    code = "unknown-worker"

    def __init__(self, worker_id: str) -> None:
        super().__init__(f"there is no worker {worker_id}", key="worker_id")


class IdempotencyConflict(QueueError):
    """The submitter has used the key before, for something else."""

    code = "idempotency-conflict"


class JobStateConflict(QueueError):
    """The job, or the campaign, is in a state from which what was asked for does not lead on."""

    code = "state-conflict"


class LeaseLost(QueueError):
    """The lease is not the job's, or no longer: it ran out, the job was cancelled, or the token is not its own.

    Attributes:
        kept: the result that came with it was put aside as a late one. It is counted nowhere.
    """

    code = "lease-lost"

    def __init__(self, message: str, *, kept: bool = False) -> None:
        super().__init__(message, key="lease")
        self.kept = kept
