"""The queue of probe jobs: points to be measured, given to workers under leases, each measured and counted once."""

from app.queue.errors import (
    IdempotencyConflict,
    InvalidCursor,
    InvalidSubmission,
    JobStateConflict,
    LeaseLost,
    QueueError,
    UnknownCampaign,
    UnknownJob,
    UnknownWorker,
)
from app.queue.requests import JobRequest, Submission, WorkerFacts
from app.queue.states import CampaignState, EventKind, State
from app.queue.store import JobStore, Limits
from app.queue.views import (
    Accepted,
    CampaignView,
    Depth,
    JobEvent,
    JobView,
    Lease,
    LeaseKey,
    Page,
    Submitted,
    Swept,
    WorkerView,
)

__all__ = [
    "Accepted",
    "CampaignState",
    "CampaignView",
    "Depth",
    "EventKind",
    "IdempotencyConflict",
    "InvalidCursor",
    "InvalidSubmission",
    "JobEvent",
    "JobRequest",
    "JobStateConflict",
    "JobStore",
    "JobView",
    "Lease",
    "LeaseKey",
    "LeaseLost",
    "Limits",
    "Page",
    "QueueError",
    "State",
    "Submission",
    "Submitted",
    "Swept",
    "UnknownCampaign",
    "UnknownJob",
    "UnknownWorker",
    "WorkerFacts",
    "WorkerView",
]
