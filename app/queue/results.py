"""Taking results: one for each job, and from its newest lease alone."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.queue.history import RECORD, event
from app.queue.leases import held
from app.queue.requests import check_name, digest_of
from app.queue.states import EventKind, State
from app.queue.tables import EVENTS, HELD, JOBS, LATE_RESULTS, MEASUREMENTS, NOW, insert_new
from app.queue.tokens import hash_of
from app.queue.views import Accepted, LeaseKey

# The token's hash stays: by it the worker that sends its result once more is known.
_SUCCEED = (
    update(JOBS)
    .where(HELD)
    .values(
        state=State.SUCCEEDED,
        finished_at=NOW,
        lease_expires_at=None,
        last_seq=JOBS.c.last_seq + 1,
    )
    .returning(JOBS.c.last_seq, JOBS.c.point_digest, JOBS.c.lease_worker)
)
_SENT_BEFORE = (
    select(MEASUREMENTS.c.id, MEASUREMENTS.c.state)
    .join(JOBS, JOBS.c.id == MEASUREMENTS.c.job_id)
    .where(
        JOBS.c.id == bindparam("job_id"),
        JOBS.c.lease_token_hash == bindparam("token_hash"),
        MEASUREMENTS.c.epoch == bindparam("epoch"),
        MEASUREMENTS.c.document_digest == bindparam("digest"),
    )
)
_GIVEN = select(EVENTS.c.worker, EVENTS.c.detail).where(
    EVENTS.c.job_id == bindparam("job_id"),
    EVENTS.c.epoch == bindparam("epoch"),
    EVENTS.c.kind == EventKind.LEASED,
)
NEXT_SEQ = (
    update(JOBS)
    .where(JOBS.c.id == bindparam("numbered_job_id"))
    .values(last_seq=JOBS.c.last_seq + 1)
    .returning(JOBS.c.last_seq)
)
"""The number of an event that moves its job nowhere."""


async def complete(
    connection: AsyncConnection,
    key: LeaseKey,
    now: datetime,
    *,
    document: Mapping[str, Any],
    quarantine: str | None,
) -> Accepted | None:
    """Accept the result if the lease is held, and end the job; None where it is not held.

    The same document under the same lease, sent again because its answer was lost, is answered as the first time.

    Raises:
        InvalidSubmission: the document is no JSON, or the reason of the quarantine is no line of text.
    """
    if quarantine is not None:
        check_name("quarantine", quarantine, longest=1000)
    digest = digest_of(document)
    row = (await connection.execute(_SUCCEED, held(key, now))).one_or_none()
    if row is None:
        return await _sent_before(connection, key, digest)
    state = "accepted" if quarantine is None else "quarantined"
    added = insert(MEASUREMENTS).values(
        point_digest=row.point_digest,
        job_id=key.job_id,
        epoch=key.epoch,
        document=dict(document),
        document_digest=digest,
        state=state,
        quarantine_reason=quarantine,
        received_at=now,
    )
    measurement_id: int = (await connection.execute(added.returning(MEASUREMENTS.c.id))).scalar_one()
    detail = {"measurement": measurement_id, "outcome": document.get("outcome"), "state": state}
    history = event(
        key.job_id, row.last_seq, now, EventKind.SUCCEEDED, epoch=key.epoch, worker=row.lease_worker, detail=detail
    )
    await connection.execute(RECORD, history)
    return Accepted(measurement_id=measurement_id, state="accepted" if quarantine is None else "quarantined")


async def keep_late(connection: AsyncConnection, key: LeaseKey, now: datetime, document: Mapping[str, Any]) -> bool:
    """Put a result aside whose lease was given once and is over: the first of each lease. Whether it was kept.

    What comes with a token that no lease ever had is not kept: anyone could send that.
    """
    found = await connection.execute(_GIVEN, {"job_id": key.job_id, "epoch": key.epoch})
    given = found.one_or_none()
    if given is None or not hmac.compare_digest(given.detail["token_hash"], hash_of(key.token)):
        return False
    seq = (await connection.execute(NEXT_SEQ, {"numbered_job_id": key.job_id})).scalar_one()
    statement = insert_new(connection, LATE_RESULTS).on_conflict_do_nothing(index_elements=["job_id", "epoch"])
    late = await connection.execute(
        statement.returning(LATE_RESULTS.c.id),
        {
            "job_id": key.job_id,
            "epoch": key.epoch,
            "worker": given.worker,
            "document": dict(document),
            "received_at": now,
        },
    )
    late_id = late.scalar_one_or_none()
    detail = {"late_result": late_id}  # null where one of this lease is kept already
    history = event(key.job_id, seq, now, EventKind.LATE_RESULT, epoch=key.epoch, worker=given.worker, detail=detail)
    await connection.execute(RECORD, history)
    return late_id is not None


async def _sent_before(connection: AsyncConnection, key: LeaseKey, digest: str) -> Accepted | None:
    same = {"job_id": key.job_id, "epoch": key.epoch, "token_hash": hash_of(key.token), "digest": digest}
    row = (await connection.execute(_SENT_BEFORE, same)).one_or_none()
    return None if row is None else Accepted(measurement_id=row.id, state=row.state, replayed=True)
